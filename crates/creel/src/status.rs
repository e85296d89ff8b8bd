//! `creel status`: the daemon's whole state, with the limits of every protection; or what holds in one run.

use std::path::Path;

use clap::Args;
use creel_wire::control::{Answer, Request, StatusReport};

use crate::connection::Daemon;
use crate::failure::{Exit, Failure, Outcome};
use crate::out::{self, Format, Look};
use crate::{screen, statement};

/// Arguments of `creel status`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  creel status\n  creel status 4f2a                        what holds in that run, and what showed it\n  creel status --format json | jq .quietness"
)]
pub(crate) struct Arguments {
    /// A run in a cage, or the beginning of its id: its enforcement statement.
    run: Option<String>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Prints it.
pub(crate) fn run(arguments: &Arguments, runtime: Option<&Path>) -> Outcome {
    if let Some(id) = &arguments.run {
        return statement::run(id, arguments.format, runtime);
    }
    let status = ask(&mut Daemon::open(runtime)?)?;
    match arguments.format {
        Format::Table => out::lines(screen::report(&status, Look::of_stdout()))?,
        format => out::json(&status, format)?,
    }
    Ok(Exit::Good)
}

/// The state of that daemon.
pub(crate) fn ask(daemon: &mut Daemon) -> Result<StatusReport, Failure> {
    daemon.one(&Request::Status, |answer| match answer {
        Answer::Status(status) => Some(*status),
        _ => None,
    })
}
