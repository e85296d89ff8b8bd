//! Verbs that change what is in force, or would: `load`, `enforce`, `audit`, `replay`.

use std::path::{Path, PathBuf};

use clap::Args;
use creel_model::RuleMode;
use creel_wire::control::{Answer, Purpose, ReplayReport, Request};

use super::{bundle, mistakes, read};
use crate::connection::{Daemon, pick_one};
use crate::failure::{Exit, Outcome};
use crate::log::Filter;
use crate::out::{self, Format, Look};
use crate::text::{clean, count, table, thousands};
use crate::{clock, presence, show};

/// Arguments of `creel policy load`.
#[derive(Debug, Args)]
pub(super) struct Load {
    /// The bundle's folder.
    folder: PathBuf,
    /// Only check it and run its tests.
    #[arg(long)]
    dry_run: bool,
    /// The code that `creel up` shows in another terminal.
    #[arg(long)]
    code: Option<String>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Arguments of `creel policy enforce` and `audit`.
#[derive(Debug, Args)]
pub(super) struct Modes {
    /// The rules; all of them if none is named.
    rules: Vec<String>,
    /// The code that `creel up` shows in another terminal (loosening needs one).
    #[arg(long)]
    code: Option<String>,
}

/// Arguments of `creel policy replay`.
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// The other bundle's folder.
    #[arg(long, value_name = "DIR")]
    bundle: PathBuf,
    #[command(flatten)]
    filter: Filter,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// `creel policy load`.
pub(super) fn load(arguments: &Load, runtime: Option<&Path>) -> Outcome {
    let files = bundle::read(&arguments.folder)?;
    let mut daemon = Daemon::open(runtime)?;
    let request = |code| Request::PolicyActivate { files: files.clone(), dry_run: arguments.dry_run, code };
    let answers = if arguments.dry_run {
        daemon.ask(&request(None))?
    } else {
        presence::carry_out(&mut daemon, &Purpose::PolicyActivate, arguments.code.as_deref(), &request)?
    };
    let answer = pick_one(answers, |answer| match answer {
        Answer::PolicyActivated { .. } | Answer::Diagnostics(_) => Some(answer),
        _ => None,
    })?;
    match answer {
        Answer::PolicyActivated { summary, tests, active, .. } => {
            if arguments.format == Format::Table {
                let mut lines = read::test_lines(&tests, Look::of_stdout());
                let state = match (active, arguments.dry_run) {
                    (true, _) => "is in force",
                    (false, true) => "would be put in force (dry run)",
                    (false, false) => "is not in force: its tests fail; the one before stays",
                };
                lines.push(format!("{} {} {state}", clean(&summary.id), clean(&summary.version)));
                out::lines(lines)?;
            } else {
                out::json(&summary, arguments.format)?;
            }
            Ok(if tests.failed == 0 && (active || arguments.dry_run) { Exit::Good } else { Exit::No })
        }
        Answer::Diagnostics(diagnostics) => {
            mistakes(&diagnostics, arguments.format)?;
            out::say("the bundle in force stays");
            Ok(Exit::No)
        }
        _ => Ok(Exit::No),
    }
}

/// `creel policy enforce` and `audit`.
pub(super) fn modes(arguments: &Modes, mode: RuleMode, runtime: Option<&Path>) -> Outcome {
    let mut daemon = Daemon::open(runtime)?;
    let request = |code| Request::PolicyModes { rules: arguments.rules.clone(), mode, code };
    // Becoming stricter needs nobody's presence; the daemon asks for a code when something is loosened.
    let answers = if mode == RuleMode::Block {
        daemon.ask(&request(None))?
    } else {
        presence::carry_out(&mut daemon, &Purpose::PolicyModes, arguments.code.as_deref(), &request)?
    };
    let view = pick_one(answers, |answer| match answer {
        Answer::Policy(view) => Some(view),
        _ => None,
    })?;
    let summary = &view.summary;
    out::lines([format!(
        "{} of {} act, {} watch, {} off",
        summary.blocking,
        count(u64::from(summary.blocking + summary.audit + summary.off), "rule"),
        summary.audit,
        summary.off
    )])?;
    Ok(Exit::Good)
}

/// `creel policy replay`.
pub(super) fn replay(arguments: &Replay, runtime: Option<&Path>) -> Outcome {
    let files = bundle::read(&arguments.bundle)?;
    let filter = arguments.filter.to_wire(clock::now_unix_ns())?;
    let answers = Daemon::open(runtime)?.ask(&Request::PolicyReplay { files, filter })?;
    let answer = pick_one(answers, |answer| match answer {
        Answer::Replay(_) | Answer::Diagnostics(_) => Some(answer),
        _ => None,
    })?;
    match answer {
        Answer::Replay(report) => {
            match arguments.format {
                Format::Table => out::lines(replay_lines(&report, Look::of_stdout()))?,
                format => out::json(&report, format)?,
            }
            Ok(Exit::Good)
        }
        Answer::Diagnostics(diagnostics) => {
            mistakes(&diagnostics, arguments.format)?;
            Ok(Exit::No)
        }
        _ => Ok(Exit::No),
    }
}

fn replay_lines(report: &ReplayReport, look: Look) -> Vec<String> {
    let mut lines = show::wrap_kept(
        &format!(
            "{} judged again, {} with another verdict, {} not judged because their detail is erased",
            count(report.judged, "decision"),
            thousands(report.changed),
            thousands(report.erased)
        ),
        look.width,
        2,
    );
    if !report.totals.is_empty() {
        lines.push(String::new());
        let rows: Vec<Vec<String>> = report
            .totals
            .iter()
            .map(|total| {
                vec![
                    format!("{} → {}", total.before, total.after),
                    clean(&total.kind),
                    total.uid.to_string(),
                    thousands(total.count),
                ]
            })
            .collect();
        lines.extend(table(&["VERDICT", "AGENT", "ACCOUNT", "DECISIONS"], &rows, look.width));
    }
    if !report.changes.is_empty() {
        lines.push(String::new());
        let rows: Vec<Vec<String>> = report
            .changes
            .iter()
            .map(|change| {
                let rules = if change.rules_after.is_empty() { &change.rules_before } else { &change.rules_after };
                vec![
                    change.sequence.to_string(),
                    format!("{} → {}", change.before, change.after),
                    clean(change.tool.as_deref().unwrap_or("-")),
                    clean(&change.excerpt),
                    clean(&rules.join(", ")),
                ]
            })
            .collect();
        lines.extend(table(&["RECORD", "VERDICT", "TOOL", "WHAT", "RULES"], &rows, look.width));
    }
    lines
}
