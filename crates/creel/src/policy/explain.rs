//! `creel policy explain ID`: the deciding rule as it is written, and the facts that it saw.

use std::path::Path;

use clap::Args;
use creel_wire::control::{Answer, PolicyView, Request, Story};

use super::read;
use crate::connection::Daemon;
use crate::failure::{Exit, Outcome};
use crate::out::{self, Format, Look};
use crate::text::clean;
use crate::{log, show};

/// Arguments of `creel policy explain`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The record: a sequence number, an action id, or the beginning of one.
    id: String,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Explains.
pub(super) fn run(arguments: &Arguments, runtime: Option<&Path>) -> Outcome {
    let story = log::story(&arguments.id, runtime)?;
    if arguments.format != Format::Table {
        out::json(&story, arguments.format)?;
        return Ok(Exit::Good);
    }
    let policy = Daemon::open(runtime)?.one(&Request::PolicyShow { files: true }, |answer| match answer {
        Answer::Policy(view) => Some(*view),
        _ => None,
    })?;
    out::lines(lines(&story, &policy, Look::of_stdout()))?;
    Ok(Exit::Good)
}

fn lines(story: &Story, policy: &PolicyView, look: Look) -> Vec<String> {
    let mut lines = log::story_lines(story, look);
    let envelope = &story.record.envelope;
    let same = envelope.bundle.as_ref().is_none_or(|bundle| bundle.0 == policy.summary.digest);
    lines.push(String::new());
    if envelope.rules.is_empty() && envelope.audit_rules.is_empty() {
        lines.extend(show::wrap_kept("no rule matched: the default for the verb decided", look.width, 2));
        for (verb, verdict) in &policy.defaults {
            lines.push(format!("  {}: {verdict}", clean(verb)));
        }
        return lines;
    }
    if !same {
        lines.extend(show::wrap_kept(
            "another bundle is in force now; the rules below are its text, not the one that decided",
            look.width,
            2,
        ));
    }
    for id in envelope.rules.iter().chain(&envelope.audit_rules) {
        let source = read::source(policy, id);
        if source.is_empty() {
            lines.push(format!("{}: creel's own, or no longer in the bundle", clean(id)));
        } else {
            lines.push(look.bold(&clean(id)));
            lines.extend(source.into_iter().skip(1));
        }
    }
    lines
}
