//! `creel why RUN`: what a cage refused last, in plain words, with the rule and what to do about it.

use std::path::Path;

use clap::Args;
use creel_model::cage::CageEvent;
use creel_wire::control::{Answer, Request};

use crate::connection::Daemon;
use crate::failure::{Exit, Outcome};
use crate::out::{self, Format, Look};
use crate::text::clean;
use crate::{clock, show};

/// Arguments of `creel why`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  creel why                 the newest run\n  creel why 4f2a --last 3\n  creel why 4f2a --format jsonl"
)]
pub(crate) struct Arguments {
    /// The run, or the beginning of its id; the newest if not said.
    run: Option<String>,
    /// At most so many, the last ones.
    #[arg(long, value_name = "N", default_value_t = 10)]
    last: u32,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Prints it; ends with 1 where nothing was refused.
pub(crate) fn run(arguments: &Arguments, runtime: Option<&Path>) -> Outcome {
    let request = Request::RunWhy { id: arguments.run.clone().unwrap_or_default(), limit: arguments.last };
    let (run, events) = Daemon::open(runtime)?.one(&request, |answer| match answer {
        Answer::RunWhy { run, events } => Some((run, events)),
        _ => None,
    })?;
    out::list(&events, arguments.format, |look| {
        let mut lines = vec![look.bold(&format!("run {}", clean(run.as_str())))];
        if events.is_empty() {
            lines.push("nothing was refused".to_owned());
        }
        lines.extend(events.iter().flat_map(|event| event_lines(event, look)));
        lines
    })?;
    Ok(if events.is_empty() { Exit::No } else { Exit::Good })
}

fn event_lines(event: &CageEvent, look: Look) -> Vec<String> {
    let times = if event.times > 1 { format!(" ({} times)", event.times) } else { String::new() };
    let who = if event.program.is_empty() { String::new() } else { format!(" by {}", clean(&event.program)) };
    let call = if event.call.is_empty() { String::new() } else { format!(" {}", clean(&event.call)) };
    let mut lines = vec![format!(
        "{}  {}{call} {}{who}{times}",
        clock::clock(event.at_unix_ns),
        event.kind,
        look.bold(&clean(&event.object))
    )];
    let rule = if event.rule.is_empty() { String::new() } else { format!(" [{}]", clean(&event.rule)) };
    if !event.reason.is_empty() || !rule.is_empty() {
        lines.extend(show::wrap_kept(&format!("          {}{rule}", clean(&event.reason)), look.width, 10));
    }
    if !event.fix.is_empty() {
        lines.extend(show::wrap_kept(&format!("          fix: {}", clean(&event.fix)), look.width, 10));
    }
    lines
}
