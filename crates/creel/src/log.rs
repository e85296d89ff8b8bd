//! `creel log`: read, explain, check, export and erase the record. One file per verb.

mod erase;
mod export;
mod list;
mod show;
mod verify;

use std::path::Path;

use clap::{Args, Subcommand};
use creel_model::{RecordKind, Verdict};
use creel_wire::control::RecordFilter;

use crate::clock;
use crate::failure::{Failure, Outcome};

/// Arguments of `creel log`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  creel log --follow\n  creel log --verdict deny --since 2h\n  creel log --rule secret-to-new-host --format jsonl\n  creel log show 1234\n  creel log verify"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    list: list::List,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Tell one record's story: what, why, what led to it, what it does, which rules.
    Show(show::Arguments),
    /// Say whether the record is complete and unaltered, and since which anchor.
    Verify(verify::Arguments),
    /// Write the record in a form that other systems read.
    Export(export::Arguments),
    /// Erase the details of records, with a reason; the sealed envelopes stay.
    Erase(erase::Arguments),
}

/// Does it.
pub(crate) fn run(arguments: Arguments, runtime: Option<&Path>) -> Outcome {
    match arguments.verb {
        None => list::run(&arguments.list, runtime),
        Some(Verb::Show(arguments)) => show::run(&arguments, runtime),
        Some(Verb::Verify(arguments)) => verify::run(&arguments, runtime),
        Some(Verb::Export(arguments)) => export::run(&arguments, runtime),
        Some(Verb::Erase(arguments)) => erase::run(&arguments, runtime),
    }
}

pub(crate) use show::{ask as story, tell as story_lines};
pub(crate) use verify::{public_key, verification_view};

/// Which records: the same options at `log`, `log export`, `log erase` and `policy replay`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Filter {
    /// Only of this kind of agent, for example `claude-code`.
    #[arg(long, value_name = "KIND")]
    pub(crate) agent: Option<String>,
    /// Only of this run.
    #[arg(long, value_name = "ID")]
    pub(crate) run: Option<String>,
    /// Only of this conversation.
    #[arg(long, value_name = "ID")]
    pub(crate) conversation: Option<String>,
    /// Only with this verdict: allow, modify, ask or deny.
    #[arg(long)]
    pub(crate) verdict: Option<Verdict>,
    /// Only where this rule matched, also in audit.
    #[arg(long, value_name = "ID")]
    pub(crate) rule: Option<String>,
    /// Not before: `30m`, `2h`, `7d`, `today`, `2026-11-21`, RFC 3339.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Before.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Only these kinds of records: decision, event, approval, policy, daemon, protection, alert, gap, erasure,
    /// break-glass, snapshot.
    #[arg(long = "kind", value_name = "KIND", value_delimiter = ',')]
    pub(crate) kinds: Vec<RecordKind>,
    /// Only after this sequence number.
    #[arg(long, value_name = "N")]
    pub(crate) after: Option<u64>,
}

impl Filter {
    /// As the wire's type.
    pub(crate) fn to_wire(&self, now_unix_ns: i64) -> Result<RecordFilter, Failure> {
        let time = |text: &Option<String>| {
            text.as_deref().map(|text| clock::parse(text, now_unix_ns)).transpose().map_err(Failure::new)
        };
        Ok(RecordFilter {
            agent: self.agent.clone(),
            run: self.run.clone(),
            conversation: self.conversation.clone(),
            verdict: self.verdict,
            rule: self.rule.clone(),
            owner: None,
            since_unix_ns: time(&self.since)?,
            until_unix_ns: time(&self.until)?,
            kinds: self.kinds.clone(),
            after_sequence: self.after,
            last: None,
        })
    }

    /// Whether nothing is stated.
    pub(crate) fn is_empty(&self) -> bool {
        self.agent.is_none()
            && self.run.is_none()
            && self.conversation.is_none()
            && self.verdict.is_none()
            && self.rule.is_none()
            && self.since.is_none()
            && self.until.is_none()
            && self.kinds.is_empty()
            && self.after.is_none()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        filter: Filter,
    }

    const NOW: i64 = 1_795_289_289_000_000_000;

    fn check(arguments: &[&str]) -> Result<RecordFilter, String> {
        let line = Line::try_parse_from(std::iter::once(&"log").chain(arguments)).map_err(|e| e.to_string())?;
        line.filter.to_wire(NOW).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn what_is_typed_becomes_a_filter() {
        let filter =
            check(&["--verdict", "deny", "--since", "1h", "--kind", "decision,alert", "--after", "7"]).unwrap();
        assert_eq!(filter.verdict, Some(Verdict::Deny));
        assert_eq!(filter.since_unix_ns, Some(NOW - 3_600_000_000_000));
        assert_eq!(filter.kinds, [RecordKind::Decision, RecordKind::Alert]);
        assert_eq!(filter.after_sequence, Some(7));
        assert_eq!(check(&[]).unwrap(), RecordFilter::default());
    }

    #[test]
    fn what_is_not_understood_is_said() {
        assert!(check(&["--verdict", "maybe"]).unwrap_err().contains("expected one of allow, modify, ask, deny"));
        assert!(check(&["--since", "yesterday"]).unwrap_err().contains("is not a time"));
        assert!(check(&["--kind", "nothing"]).is_err());
    }
}
