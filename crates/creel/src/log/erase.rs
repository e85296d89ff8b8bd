//! `creel log erase`: the details of records go, their sealed envelopes stay, and the erasure is itself a record.

use std::path::Path;

use clap::Args;
use creel_wire::control::{Answer, Purpose, Request};

use super::Filter;
use crate::connection::{Daemon, pick_one};
use crate::failure::{Exit, Failure, Outcome};
use crate::text::count;
use crate::{clock, out, presence};

/// Arguments of `creel log erase`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  creel log erase --conversation 3f2a --reason \"asked for by the person\" --dry-run\n  creel log erase --until 2026-01-01 --reason \"retention\""
)]
pub(super) struct Arguments {
    #[command(flatten)]
    filter: Filter,
    /// Why; sealed in the record.
    #[arg(long)]
    reason: String,
    /// Erase the details of all records.
    #[arg(long)]
    all: bool,
    /// Only count.
    #[arg(long)]
    dry_run: bool,
    /// The code that `creel up` shows in another terminal.
    #[arg(long)]
    code: Option<String>,
}

/// Does it.
pub(super) fn run(arguments: &Arguments, runtime: Option<&Path>) -> Outcome {
    if arguments.filter.is_empty() && !arguments.all {
        return Err(Failure::new("which records?").hint("name them by `--conversation`, `--until` …, or say `--all`"));
    }
    if arguments.reason.trim().is_empty() {
        return Err(Failure::new("the reason is empty").hint("say why: it is sealed in the record"));
    }
    let filter = arguments.filter.to_wire(clock::now_unix_ns())?;
    let mut daemon = Daemon::open(runtime)?;
    let request = |code: Option<String>| Request::EraseDetails {
        filter: filter.clone(),
        reason: arguments.reason.clone(),
        dry_run: arguments.dry_run,
        code,
    };
    let answers = if arguments.dry_run {
        daemon.ask(&request(None))?
    } else {
        presence::carry_out(&mut daemon, &Purpose::EraseDetails, arguments.code.as_deref(), &request)?
    };
    let details = pick_one(answers, |answer| match answer {
        Answer::Erased { details } => Some(details),
        _ => None,
    })?;
    let did = if arguments.dry_run { "would be erased" } else { "erased" };
    out::lines([format!("{} {did}", count(details, "detail"))])?;
    Ok(Exit::Good)
}
