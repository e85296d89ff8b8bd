//! `creel doctor`: what cages can hold on this machine, found out by trying.
//!
//! Needs no daemon. The one thing a newcomer gets wrong: it answers for the account that asks and the program that is
//! asked, so it is to be run as whoever will run agents.

use clap::Args;
use creel_sandbox::doctor::{examine, verdict};
use serde_json::json;

use crate::failure::{Exit, Outcome};
use crate::out::{self, Format, Look};
use crate::text::{clean, wrap};

/// Arguments of `creel doctor`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Does it. The answer is no where something is missing that a cage needs.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let root = rustix::process::geteuid().is_root();
    let trials = examine();
    let holds = !root && !trials.iter().any(|trial| trial.needed && !trial.works);
    if arguments.format == Format::Table {
        let look = Look::of_stdout();
        let mut lines = vec![look.bold(verdict(&trials))];
        if root {
            lines.push("asked by root, who starts no cages; ask as the account that runs agents".to_owned());
        }
        for trial in &trials {
            let word = match (trial.works, trial.needed) {
                (true, _) => "holds   ",
                (false, true) => "missing ",
                (false, false) => "without ",
            };
            lines.push(format!("{word} {:12} {}", trial.id, clean(&trial.purpose)));
            let evidence = clean(&trial.evidence);
            lines.extend(
                wrap(&evidence, look.width.saturating_sub(22), 0).iter().map(|line| format!("{:22}{line}", "")),
            );
            if !trial.fix.is_empty() {
                let fix = format!("fix: {}", clean(&trial.fix));
                lines
                    .extend(wrap(&fix, look.width.saturating_sub(22), 5).iter().map(|line| format!("{:22}{line}", "")));
            }
        }
        out::lines(lines)?;
    } else {
        out::json(&json!({ "holds": holds, "verdict": verdict(&trials), "trials": trials }), arguments.format)?;
    }
    Ok(if holds { Exit::Good } else { Exit::No })
}
