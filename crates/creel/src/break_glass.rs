//! `creel break-glass`: for a limited time nothing is stopped, everything is recorded. Impossible from inside a run.

use std::path::Path;

use clap::Args;
use creel_wire::control::{Answer, BreakGlassView, Purpose, Request};

use crate::connection::{Daemon, pick_one};
use crate::failure::{Exit, Failure, Outcome};
use crate::{clock, presence};

/// Arguments of `creel break-glass`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  creel break-glass --minutes 20 --reason \"production is down, incident 4711\"\n  creel break-glass --end"
)]
pub(crate) struct Arguments {
    /// For how long, 1 to 240.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=240), required_unless_present = "end")]
    minutes: Option<u32>,
    /// Why; sealed in the record.
    #[arg(long, required_unless_present = "end")]
    reason: Option<String>,
    /// The code that `creel up` shows in another terminal.
    #[arg(long)]
    code: Option<String>,
    /// Close the window now.
    #[arg(long, conflicts_with_all = ["minutes", "reason", "code"])]
    end: bool,
}

fn window(answer: Answer) -> Option<Option<BreakGlassView>> {
    match answer {
        Answer::BreakGlass(window) => Some(window),
        _ => None,
    }
}

/// Opens or closes the window.
pub(crate) fn run(arguments: Arguments, runtime: Option<&Path>) -> Outcome {
    let mut daemon = Daemon::open(runtime)?;
    let (Some(minutes), Some(reason)) = (arguments.minutes, arguments.reason) else {
        daemon.one(&Request::BreakGlassEnd, window)?;
        presence::done("break-glass is closed; rules act as before")?;
        return Ok(Exit::Good);
    };
    if reason.trim().is_empty() {
        return Err(Failure::new("the reason is empty").hint("say why: it is sealed in the record"));
    }
    let answers = presence::carry_out(&mut daemon, &Purpose::BreakGlass, arguments.code.as_deref(), &|code| {
        Request::BreakGlass { minutes, reason: reason.clone(), code }
    })?;
    match pick_one(answers, window)? {
        Some(window) => {
            let until = clock::date_time(window.until_unix_ns);
            presence::done(&format!("nothing is stopped until {until}; everything is recorded"))?;
            Ok(Exit::Good)
        }
        None => Err(Failure::new("the daemon did not open the window")),
    }
}
