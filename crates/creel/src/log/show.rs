//! `creel log show ID`: one record's story, in the order in which a person asks: what was it, what came of it and why,
//! what would it have done, what led to it, what followed.

use std::path::Path;

use clap::Args;
use creel_model::decision::MatchedRule;
use creel_model::record::Detail;
use creel_wire::control::{Answer, RecordView, Request, Story};

use crate::connection::Daemon;
use crate::failure::{Exit, Failure, Outcome};
use crate::out::{self, Format, Look};
use crate::text::{clean, count, pad};
use crate::{clock, show};

/// Arguments of `creel log show`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A sequence number, an action id, or the beginning of one.
    id: String,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Prints it.
pub(crate) fn run(arguments: &Arguments, runtime: Option<&Path>) -> Outcome {
    let story = ask(&arguments.id, runtime)?;
    match arguments.format {
        Format::Table => out::lines(tell(&story, Look::of_stdout()))?,
        format => out::json(&story, format)?,
    }
    Ok(Exit::Good)
}

/// The story of that record.
pub(crate) fn ask(id: &str, runtime: Option<&Path>) -> Result<Story, Failure> {
    Daemon::open(runtime)?.one(&Request::Record { id: id.to_owned() }, |answer| match answer {
        Answer::Story(story) => Some(*story),
        _ => None,
    })
}

/// The story as lines.
pub(crate) fn tell(story: &Story, look: Look) -> Vec<String> {
    let record = &story.record;
    let envelope = &record.envelope;
    let mut page = Page { look, lines: Vec::new() };
    let what = show::subject_of(record);
    page.lines.push(look.bold(&format!("{} · {}", envelope.kind, clock::date_time(envelope.at.unix_ns))));
    page.fact("what", &what);
    if let Some(subject) = &envelope.subject {
        page.fact(
            "agent",
            &format!("{} (pid {}, account {}, run {})", subject.kind, subject.pid, subject.uid, subject.run),
        );
        if let Some(workspace) = &subject.workspace {
            page.fact("in", workspace);
        }
    }
    let seen: Vec<&str> =
        [envelope.point.map(creel_model::Point::as_str), envelope.event.as_deref(), envelope.tool.as_deref()]
            .into_iter()
            .flatten()
            .collect();
    if !seen.is_empty() {
        page.fact("seen at", &seen.join(" · "));
    }
    if envelope.verdict.is_some() {
        page.fact("verdict", &show::verdict_word(record));
    }
    if let Some(code) = &envelope.code {
        page.fact("code", code);
    }
    match &record.detail {
        Some(detail) => page.detail(detail, story),
        None if record.erased => page.fact("detail", "erased"),
        None => page.fact("detail", "too large to show here; `creel log --format jsonl` is no larger"),
    }
    page.others("led to by", &story.causes);
    page.others("followed by", &story.followed_by);
    page.fact("record", &format!("{} · action {}", record.sequence, envelope.action_id));
    if let Some(bundle) = &envelope.bundle {
        let trust = envelope.bundle_trust.as_deref().unwrap_or("-");
        page.fact("judged by", &format!("bundle {} ({trust}), creel {}", bundle.short(), envelope.engine));
    }
    if envelope.took_ns > 0 {
        let payload = crate::text::bytes(envelope.payload_bytes);
        page.fact("took", &format!("{} for {payload}", clock::short(envelope.took_ns)));
    }
    page.lines
}

struct Page {
    look: Look,
    lines: Vec<String>,
}

impl Page {
    fn fact(&mut self, name: &str, value: &str) {
        let line = format!("  {}  {}", pad(name, 11), clean(value));
        self.lines.extend(show::wrap_kept(&line, self.look.width, 15));
    }

    fn detail(&mut self, detail: &Detail, story: &Story) {
        if let Some(decision) = &detail.decision {
            if !decision.reason.is_empty() {
                self.fact("why", &decision.reason);
            }
            for rule in &decision.rules {
                self.rule("rule", rule, detail, story);
            }
            for rule in &decision.audit {
                self.rule("would have", rule, detail, story);
            }
            if let Some(approval) = &decision.approval {
                self.fact("question", approval);
            }
            if !decision.modifications.is_empty() {
                let replaced: u64 = decision.modifications.iter().map(|m| u64::from(m.replaced)).sum();
                self.fact("changed", &format!("{} replaced", count(replaced, "place")));
            }
        }
        for effect in &detail.effects {
            self.fact("effect", &show::effect_line(effect));
        }
        for finding in &detail.findings {
            let evidence = if finding.evidence.is_empty() { String::new() } else { format!(": {}", finding.evidence) };
            self.fact(
                "finding",
                &format!("{} ({}, {} confidence){evidence}", finding.code, finding.severity, finding.confidence),
            );
        }
        for label in &detail.labels {
            self.fact("label", &format!("{} since {} (from {})", label.label, label.cause, label.origin));
        }
    }

    fn rule(&mut self, name: &str, rule: &MatchedRule, detail: &Detail, story: &Story) {
        let aside = match (&rule.excepted_by, &rule.approved_by) {
            (Some(exception), _) => format!(", set aside by exception `{exception}`"),
            (None, Some(approval)) => format!(", set aside by approval `{approval}`"),
            (None, None) => String::new(),
        };
        let gone = story.rules.iter().all(|known| known.id != rule.rule);
        let gone = if gone && !story.rules.is_empty() { ", no longer in the bundle" } else { "" };
        let verb = if name == "rule" { "demands" } else { "would demand" };
        self.fact(name, &format!("{}: {verb} {} ({}{aside}{gone})", rule.rule, rule.effect, rule.severity));
        self.fact("", &rule.reason);
        let effect = usize::try_from(rule.effect_index).ok().and_then(|index| detail.effects.get(index));
        if let (Some(effect), true) = (effect, detail.effects.len() > 1) {
            self.fact("", &format!("because of: {}", show::effect_line(effect)));
        }
    }

    fn others(&mut self, name: &str, records: &[RecordView]) {
        let inner = Look { width: self.look.width.saturating_sub(15), ..self.look };
        for (index, record) in records.iter().enumerate() {
            let name = if index == 0 { name } else { "" };
            self.lines.push(format!("  {}  {}", pad(name, 11), show::record_line(record, inner, true)));
        }
    }
}

#[cfg(test)]
mod tests {
    use creel_model::{Certainty, Effect, Mode, Object, Verb, Verdict};

    use super::*;
    use crate::show::tests::record;
    use crate::text::width;

    fn story() -> Story {
        let mut denied = record(12, Verdict::Deny, "rm -rf ~", "destructive-outside");
        if let Some(detail) = &mut denied.detail {
            let home = Object::Path { path: "/home/ada".to_owned(), resolved: None };
            detail.effects = vec![Effect { recursive: true, ..Effect::new(Verb::Delete, home, Certainty::Parsed) }];
        }
        Story {
            record: denied,
            causes: vec![record(11, Verdict::Allow, "clean up", "")],
            followed_by: Vec::new(),
            rules: Vec::new(),
            mode: Mode::User,
        }
    }

    #[test]
    fn a_story_says_what_why_and_what_led_to_it() {
        let text = tell(&story(), Look { width: 100, decorated: false }).join("\n");
        for expected in [
            "what         rm -rf ~",
            "verdict      deny",
            "rule         destructive-outside: demands deny (high)",
            "effect       delete /home/ada (whole tree, parsed)",
            "led to by         11",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }

    #[test]
    fn a_story_fits_every_width() {
        for columns in [60, 80, 120] {
            for line in tell(&story(), Look { width: columns, decorated: false }) {
                assert!(width(&line) <= columns, "{columns}: {line}");
            }
        }
    }
}
