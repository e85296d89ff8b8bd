//! `creel-hook KIND EVENT [--system|--user] [--deadline-ms N] [--socket PATH]`: forwards one event of an agent from
//! standard input to the daemon and prints the daemon's answer.
//!
//! It decides nothing and reads no environment: where the daemon listens is compiled in, and its peer is checked by the
//! kernel's word. On any doubt it prints the agent's own *no*. The one thing a newcomer gets wrong: it reads its input to
//! the end even when it already knows that it will refuse, because an agent whose write fails counts the hook as broken
//! and lets the call run.

mod daemon;
mod input;
mod socket;

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use creel_dialect::{deny, kinds};
use creel_wire::hook::{Answer, DEADLINE_MS_DEFAULT, Flags};

/// How long a missing or restarting daemon is waited for where no answer means *no*.
const RESTART_WAIT: Duration = Duration::from_secs(5);
/// The same where no answer changes nothing.
const RESTART_WAIT_SILENT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let start = Instant::now();
    let arguments: Option<Vec<String>> = std::env::args_os().skip(1).map(|word| word.into_string().ok()).collect();
    let arguments = arguments.unwrap_or_default();
    let mut words = arguments.iter().map(String::as_str);
    let (kind, event) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let baked: Vec<&str> = words.collect();

    match ask(kind, event, &baked, start) {
        Ok(answer) => print(&answer.stdout, &answer.stderr, answer.exit_code),
        Err(doubt) => {
            let reason = format!("creel: denied, because {doubt}; `creel status` tells more");
            let printed = deny::print(kind, event, &reason);
            print(printed.stdout.as_bytes(), printed.stderr.as_bytes(), printed.exit_code)
        }
    }
}

/// The daemon's answer, or why there is none.
fn ask(kind: &str, event: &str, baked: &[&str], start: Instant) -> Result<Answer, String> {
    let flags =
        Flags::parse(baked).map_err(|argument| format!("the hook does not understand its argument `{argument}`"));
    let deadline_ms = flags.as_ref().map_or(DEADLINE_MS_DEFAULT, |flags| flags.deadline_ms);
    let deadline = start + Duration::from_millis(u64::from(deadline_ms));

    let payload = input::read(deadline)?;
    let flags = flags?;
    if event.is_empty() {
        return Err("the hook was started without kind and event".to_owned());
    }
    let wait = if kinds::fails_closed(kind, event) { RESTART_WAIT } else { RESTART_WAIT_SILENT };
    daemon::ask(&socket::Place::of(&flags), kind, event, baked, &payload, deadline, wait)
}

fn print(stdout: &[u8], stderr: &[u8], exit_code: u8) -> ExitCode {
    // A broken standard error leaves the exit code; a broken standard output would leave an allow.
    let _ = std::io::stderr().write_all(stderr);
    let mut output = std::io::stdout();
    match output.write_all(stdout).and_then(|()| output.flush()) {
        Ok(()) => ExitCode::from(exit_code),
        Err(_) => ExitCode::from(2),
    }
}
