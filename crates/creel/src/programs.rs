//! The programs beside this one: finding them, starting the daemon, waiting until it answers.
//!
//! They are looked for in the folder of this executable only; `PATH` is never asked, because whoever sets it could put
//! another daemon there.

use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::connection::{Daemon, Place};
use crate::failure::{Exit, Failure, Outcome};
use crate::text::clean;

/// How long a starting daemon may take until it answers: it checks the journal's last segment and loads the rules.
const START: Duration = Duration::from_secs(30);
/// Pause between two looks at a starting daemon.
const LOOK: Duration = Duration::from_millis(10);

/// A program in the folder of this one.
pub(crate) fn beside(name: &str) -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().map_err(|e| Failure::new(format!("cannot tell where creel is: {e}")))?;
    let path = own.parent().unwrap_or(Path::new("/")).join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::new(format!("`{name}` is missing beside `{}`", clean(&own.display().to_string())))
        .hint("install creel, creeld and creel-hook into one folder; `./dev build` does"))
}

/// How a daemon is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Start {
    /// Arguments of `creeld`.
    pub(crate) arguments: Vec<String>,
    /// It goes on when this program ends.
    pub(crate) detached: bool,
    /// Where it writes what it has to say when detached.
    pub(crate) messages: Option<PathBuf>,
}

/// Starts the daemon and waits until it answers at `place`.
pub(crate) fn start(place: &Place, start: &Start) -> Result<(Child, Daemon), Failure> {
    let program = beside("creeld")?;
    let mut command = if start.detached {
        // A session of its own needs a process that leads no group: this program, started once more, see `detached`.
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("run-detached").arg(&program).arg("--");
        command
    } else {
        let mut command = Command::new(&program);
        // Ctrl-C reaches the whole foreground group; the daemon is stopped by us, in order.
        command.process_group(0);
        command
    };
    command.args(&start.arguments).stdin(Stdio::null()).stdout(Stdio::null());
    // Its allocator gives memory back after so many milliseconds instead of a second: 4 MB less, for 5 % more time.
    command.env("MIMALLOC_PURGE_DELAY", "50");
    match &start.messages {
        Some(path) => {
            let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
            command.stderr(file.map_err(|e| Failure::file("write", path, &e))?);
        }
        None => {
            command.stderr(Stdio::piped());
        }
    }
    let mut child = command.spawn().map_err(|e| Failure::file("start", &program, &e))?;
    match wait(place, &mut child, start) {
        Ok(daemon) => {
            drain(&mut child);
            Ok((child, daemon))
        }
        Err(failure) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(failure)
        }
    }
}

fn wait(place: &Place, child: &mut Child, start: &Start) -> Result<Daemon, Failure> {
    let begin = Instant::now();
    while begin.elapsed() < START {
        if let Some(status) = child.try_wait()? {
            let said = last_words(child, start);
            let said = if said.is_empty() { status.to_string() } else { said };
            return Err(Failure::new(format!("the daemon did not start: {said}")));
        }
        if let Some(daemon) = Daemon::try_open(place)? {
            return Ok(daemon);
        }
        std::thread::sleep(LOOK);
    }
    Err(Failure::new(format!("the daemon does not answer after {} s", START.as_secs()))
        .hint(format!("it was expected at `{}`", clean(&place.runtime.join("control.sock").display().to_string()))))
}

/// What a daemon that ended had to say: at most the last 2 KiB of it.
fn last_words(child: &mut Child, start: &Start) -> String {
    let mut text = String::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(64 << 10).read_to_string(&mut text);
    } else if let Some(path) = &start.messages {
        text = std::fs::read_to_string(path).unwrap_or_default();
    }
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(3)..).unwrap_or_default();
    let said = clean(&last.join("; "));
    said.trim_start_matches("creeld: ").trim_start_matches("error: ").chars().take(2048).collect()
}

/// Reads away what the daemon says, so that it never blocks on a full pipe; ends with the daemon.
fn drain(child: &mut Child) {
    if let Some(mut stderr) = child.stderr.take() {
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while matches!(stderr.read(&mut buffer), Ok(n) if n > 0) {}
        });
    }
}

/// `creel run-detached PROGRAM ARG…`: becomes that program in a session of its own. Only `creel up --detach` uses it.
pub(crate) fn detached(program: &Path, arguments: &[String]) -> Outcome {
    if let Err(error) = rustix::process::setsid() {
        return Err(Failure::new(format!("cannot begin a session: {error}")));
    }
    let error = Command::new(program).args(arguments).exec();
    Err(Failure::file("start", program, &error))
}

/// Runs a sibling program to its end and hands back what it printed (at most 16 MiB) and whether it succeeded.
pub(crate) fn output(name: &str, arguments: &[&str], input: Option<&Path>) -> Result<(Vec<u8>, Exit), Failure> {
    let program = beside(name)?;
    let mut command = Command::new(&program);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    match input {
        Some(path) => command.stdin(std::fs::File::open(path).map_err(|e| Failure::file("read", path, &e))?),
        None => command.stdin(Stdio::null()),
    };
    let mut child = command.spawn().map_err(|e| Failure::file("start", &program, &e))?;
    let stderr = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        if let Some(stderr) = stderr {
            let _ = stderr.take(64 << 10).read_to_string(&mut text);
        }
        text
    });
    let mut printed = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(16 << 20).read_to_end(&mut printed)?;
    }
    let status = child.wait()?;
    let said = reader.join().unwrap_or_default();
    match status.code() {
        Some(0) => Ok((printed, Exit::Good)),
        Some(1) if !printed.is_empty() => Ok((printed, Exit::No)),
        _ => {
            let said = said.lines().map(str::trim).filter(|l| !l.is_empty()).take(3).collect::<Vec<_>>().join("; ");
            let said = if said.is_empty() { status.to_string() } else { clean(&said) };
            Err(Failure::new(format!("`{name}` failed: {said}")))
        }
    }
}
