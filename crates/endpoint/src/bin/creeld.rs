//! `creeld`: reads its arguments and calls one function of the assembly.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use creel_endpoint::config::{self, Role};
use creel_endpoint::{daemon, offline, root, signals};

/// Trees of commands and facts are many small pieces: with the system's allocator a third of the time went there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let uid = rustix::process::geteuid().as_raw();
    let home = creel_endpoint::own_home().unwrap_or_else(|| PathBuf::from("/nonexistent"));
    let role = match config::parse(&arguments, uid, &home) {
        Ok(role) => role,
        Err(mistakes) => {
            for mistake in mistakes {
                complain(&mistake);
            }
            return ExitCode::from(2);
        }
    };
    let outcome = match role {
        Role::Version => say(concat!("creeld ", env!("CARGO_PKG_VERSION"))),
        Role::Help => say(config::HELP),
        Role::Offline { question, operands } => return offline::run(&question, &operands),
        Role::Root { socket, account } => root::serve(&socket, &account),
        Role::Daemon(config) => {
            let stop = Arc::new(daemon::Stop::default());
            signals::stop_on_signal(&stop).and_then(|()| daemon::run(config, stop))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "a program's own output")]
fn say(text: &str) -> anyhow::Result<()> {
    println!("{text}");
    Ok(())
}

#[expect(clippy::print_stderr, reason = "a program's own complaint")]
fn complain(text: &str) {
    eprintln!("creeld: {text}");
}
