//! `creel status RUN`: what holds in a run, by which mechanism, and what showed it.

use std::path::Path;

use creel_model::cage::{Control, Standing};
use creel_wire::control::{Answer, CageRunView, Request, RunExit, Statement};

use crate::connection::Daemon;
use crate::failure::{Exit, Failure, Outcome};
use crate::out::{self, Format, Look};
use crate::text::{clean, count};
use crate::{clock, show};

/// Prints the statement of a run; ends with 1 where none holds.
pub(crate) fn run(id: &str, format: Format, runtime: Option<&Path>) -> Outcome {
    let view = Daemon::open(runtime)?.one(&Request::RunShow { id: id.to_owned() }, |answer| match answer {
        Answer::Runs(runs) => runs.into_iter().next(),
        _ => None,
    })?;
    match format {
        Format::Table => out::lines(lines(&view, Look::of_stdout()))?,
        format => out::json(&view, format)?,
    }
    match &view.statement {
        Some(_) => Ok(if view.expired.is_empty() && view.ended_unix_ns.is_none() { Exit::Good } else { Exit::No }),
        None => Err(Failure::new("this run has no statement: its command was never started").hint("see `creel log`")),
    }
}

fn lines(view: &CageRunView, look: Look) -> Vec<String> {
    let who = view.kind.as_deref().unwrap_or("program");
    let mut lines = vec![look.bold(&format!(
        "run {} · {} · {} · profile {}",
        clean(view.run.as_str()),
        clean(who),
        clean(&view.state),
        clean(&view.profile)
    ))];
    lines.push(format!("workspace {} · account {}", clean(&view.workspace), clean(&view.account)));
    lines.push(format!(
        "{} started, {} refused (`creel why {}`)",
        count(view.executed, "program"),
        count(view.refused, "attempt"),
        clean(view.run.as_str().get(..10).unwrap_or(view.run.as_str()))
    ));
    if let Some(exit) = &view.exit {
        lines.push(match exit {
            RunExit::Code(code) => format!("ended with exit code {code}"),
            RunExit::Signal(signal) => format!("ended by signal {signal}"),
            RunExit::Failed(why) => format!("failed: {}", clean(why)),
            RunExit::Stopped(why) => format!("stopped: {}", clean(why)),
        });
    }
    let Some(stated) = &view.statement else { return lines };
    lines.push(String::new());
    lines.extend(statement_lines(&stated.statement, look));
    if !view.expired.is_empty() {
        lines.push(look.bold(&format!("this statement says nothing any more: {}", clean(&view.expired))));
    }
    lines
}

fn statement_lines(statement: &Statement, look: Look) -> Vec<String> {
    let of = |standing: Standing| statement.controls.iter().filter(move |control| control.standing == standing);
    let numbers: Vec<String> = [Standing::Proved, Standing::Configured, Standing::Declared, Standing::NotHeld]
        .into_iter()
        .filter(|standing| of(*standing).next().is_some())
        .map(|standing| format!("{} {standing}", of(standing).count()))
        .collect();
    let mut lines = vec![look.bold(&format!(
        "enforcement statement of {}: {}",
        clock::date_time(statement.issued_unix_ns),
        numbers.join(", ")
    ))];
    for control in &statement.controls {
        lines.extend(control_lines(control, look));
    }
    for note in &statement.notes {
        lines.extend(show::wrap_kept(&format!("note: {}", clean(note)), look.width, 2));
    }
    lines.push(format!(
        "bundle {} · plan {} · kernel {} · until {}",
        clean(statement.bundle.short()),
        clean(statement.plan.short()),
        clean(&statement.kernel),
        clock::date_time(statement.expires_unix_ns)
    ));
    lines
}

fn control_lines(control: &Control, look: Look) -> Vec<String> {
    let standing = format!("{:<10}", control.standing);
    let standing = if control.standing == Standing::Proved { standing } else { look.bold(&standing) };
    let mut lines = vec![format!("{standing}  {}", look.bold(&clean(&control.id)))];
    lines.extend(show::wrap_kept(&format!("            {}", clean(&control.promise)), look.width, 12));
    lines.extend(show::wrap_kept(&format!("            by {}", clean(&control.mechanism)), look.width, 12));
    if !control.evidence.is_empty() {
        lines.extend(show::wrap_kept(&format!("            {}", clean(&control.evidence)), look.width, 12));
    }
    lines
}
