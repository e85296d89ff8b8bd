//! `creel log`: records, oldest first, and with `--follow` those that come.

use std::ops::ControlFlow;
use std::path::Path;

use clap::Args;
use creel_wire::control::{Answer, Request};

use super::Filter;
use crate::connection::Daemon;
use crate::failure::{Exit, Failure, Outcome};
use crate::out::{self, Format, Look};
use crate::{clock, show};

/// How many records are shown when nothing is said.
const LAST: u32 = 50;
/// How many can be asked for at once; the daemon's own bound.
const LAST_MAX: u32 = 10_000;

/// Arguments of `creel log`.
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    filter: Filter,
    /// Go on with what happens.
    #[arg(long, short)]
    follow: bool,
    /// Only the last N, at most 10000.
    #[arg(short = 'n', long = "last", value_name = "N", default_value_t = LAST, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    last: u32,
    /// How to print them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Prints them.
pub(super) fn run(arguments: &List, runtime: Option<&Path>) -> Outcome {
    let mut filter = arguments.filter.to_wire(clock::now_unix_ns())?;
    filter.last = Some(arguments.last.min(LAST_MAX));
    if arguments.follow && arguments.format == Format::Json {
        return Err(Failure::new("an endless list is not one JSON document").hint("use `--format jsonl`"));
    }
    let request = Request::Records { filter, follow: arguments.follow };
    let look = Look::of_stdout();
    let mut all = Vec::new();
    let mut day = String::new();
    Daemon::open(runtime)?.each(&request, &mut |answer| {
        let Answer::Record(record) = answer else { return Ok(ControlFlow::Continue(())) };
        match arguments.format {
            Format::Json => all.push(record),
            Format::Jsonl => out::json(&record, Format::Jsonl)?,
            Format::Table => {
                let date: String = clock::date_time(record.envelope.at.unix_ns).chars().take(10).collect();
                if date != day {
                    out::lines([look.dim(&date)])?;
                    day = date;
                }
                out::lines([show::record_line(&record, look, true)])?;
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if arguments.format == Format::Json {
        out::json(&all, Format::Json)?;
    }
    Ok(Exit::Good)
}
