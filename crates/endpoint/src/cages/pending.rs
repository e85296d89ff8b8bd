//! Events of a run until they are written down: equal ones are one, with a count, and there is one record a second at most.
//!
//! A hostile run can produce refusals as fast as it can call; its records must cost the disk no more than a quiet run's.
//! The one fact a newcomer gets wrong: what does not fit is still counted, and the count is written down.

use creel_guard::EFFECTS_MAX;
use creel_model::cage::{CageEvent, CageEventKind};
use creel_model::{Certainty, Effect, Object, RecordKind, Verb, Verdict};
use serde_json::{Map, Value, json};

/// Most different events between two records.
const DIFFERENT_MAX: usize = 128;
/// Longest text of an event that is kept, in characters.
const TEXT_CHARS_MAX: usize = 1_024;

/// What is not written down yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    events: Vec<CageEvent>,
    /// Events beyond [`DIFFERENT_MAX`].
    more: u64,
    /// Events that the supervisor had to drop.
    lost: u64,
}

/// A record to be made.
#[derive(Debug, PartialEq)]
pub(super) struct Draft {
    pub(super) kind: RecordKind,
    pub(super) code: &'static str,
    pub(super) verdict: Option<Verdict>,
    pub(super) rules: Vec<String>,
    pub(super) effects: Vec<Effect>,
    pub(super) facts: Map<String, Value>,
}

/// An event as it is kept: bounded, and without what could move a cursor.
pub(super) fn cleaned(mut event: CageEvent) -> CageEvent {
    for text in
        [&mut event.program, &mut event.call, &mut event.object, &mut event.rule, &mut event.reason, &mut event.fix]
    {
        if text.len() > TEXT_CHARS_MAX || text.chars().any(char::is_control) {
            *text = text.chars().take(TEXT_CHARS_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        }
    }
    event.times = event.times.max(1);
    event
}

impl Pending {
    pub(super) fn add(&mut self, event: &CageEvent) {
        let same = |known: &&mut CageEvent| {
            known.kind == event.kind
                && known.call == event.call
                && known.object == event.object
                && known.program == event.program
                && known.rule == event.rule
        };
        if let Some(known) = self.events.iter_mut().find(same) {
            known.times = known.times.saturating_add(event.times);
        } else if self.events.len() < DIFFERENT_MAX {
            self.events.push(event.clone());
        } else {
            self.more = self.more.saturating_add(event.times);
        }
    }

    pub(super) fn lose(&mut self, events: u64) {
        self.lost = self.lost.saturating_add(events);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.more == 0 && self.lost == 0
    }

    /// Everything as records, at most one of each code; what was not kept is counted in the last one.
    pub(super) fn take(&mut self) -> Vec<Draft> {
        let Self { events, more, lost } = std::mem::take(self);
        let (executed, rest): (Vec<_>, Vec<_>) =
            events.into_iter().partition(|event| event.kind == CageEventKind::Exec);
        let (refused, rest): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|event| event.kind == CageEventKind::Refused);
        let mut drafts = Vec::new();
        for (code, verdict, events) in [
            ("cage.exec", None, executed),
            ("cage.refused", Some(Verdict::Deny), refused),
            ("cage.noticed", None, rest),
        ] {
            if events.is_empty() {
                continue;
            }
            let mut rules: Vec<String> = Vec::new();
            for event in events.iter().filter(|event| verdict.is_some() && !event.rule.is_empty()) {
                if !rules.contains(&event.rule) {
                    rules.push(event.rule.clone());
                }
            }
            let effects = events.iter().take(EFFECTS_MAX).filter_map(effect).collect();
            let facts = [("events".to_owned(), json!(events))].into_iter().collect();
            drafts.push(Draft { kind: RecordKind::Event, code, verdict, rules, effects, facts });
        }
        if more > 0 || lost > 0 {
            let code = "cage.uncounted";
            let facts = [("more".to_owned(), json!(more)), ("lost".to_owned(), json!(lost))].into_iter().collect();
            let rules = Vec::new();
            drafts.push(Draft { kind: RecordKind::Event, code, verdict: None, rules, effects: Vec::new(), facts });
        }
        drafts
    }
}

/// What an event was about to do, or did.
fn effect(event: &CageEvent) -> Option<Effect> {
    let path = || Object::Path { path: event.object.clone(), resolved: None };
    let (verb, object) = match (event.kind, event.call.as_str()) {
        (CageEventKind::Exec, _) => {
            let program = event.object.rsplit('/').next().unwrap_or("").to_owned();
            (Verb::Execute, Object::Program { program, argv: Vec::new(), script: Some(event.object.clone()) })
        }
        (CageEventKind::Changed, _) => (Verb::Write, path()),
        (CageEventKind::Refused, "connect" | "bind" | "sendto") => match event.object.rsplit_once(':') {
            Some((host, port)) if !event.object.starts_with('/') && port.parse::<u16>().is_ok() => {
                (Verb::Connect, Object::Host { host: host.to_owned(), port: port.parse().ok(), url: None })
            }
            _ => (Verb::Connect, path()),
        },
        (CageEventKind::Refused, "execve" | "execveat") => (Verb::Execute, path()),
        (CageEventKind::Refused, call) if call.starts_with("rename") => (Verb::Rename, path()),
        (CageEventKind::Refused, "unlink" | "unlinkat" | "rmdir") => (Verb::Delete, path()),
        (CageEventKind::Refused, _) if event.object.starts_with('/') => (Verb::Write, path()),
        _ => return None,
    };
    // The kernel or the broker saw it; what a program is called is its own word.
    let certainty = if event.kind == CageEventKind::Exec { Certainty::Opaque } else { Certainty::Exact };
    Some(Effect::new(verb, object, certainty))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: CageEventKind, object: &str, rule: &str) -> CageEvent {
        CageEvent {
            kind,
            at_unix_ns: 1,
            pid: 2,
            program: "/usr/bin/sh".to_owned(),
            call: "openat".to_owned(),
            object: object.to_owned(),
            rule: rule.to_owned(),
            reason: String::new(),
            fix: String::new(),
            times: 1,
            before: None,
            after: None,
        }
    }

    #[test]
    fn a_flood_becomes_few_records_and_nothing_goes_uncounted() {
        let mut pending = Pending::default();
        for n in 0..10_000 {
            pending.add(&event(CageEventKind::Refused, &format!("/w/{}", n % 200), "seal"));
        }
        pending.lose(7);
        let drafts = pending.take();
        assert!(pending.is_empty());
        let codes: Vec<_> = drafts.iter().map(|draft| draft.code).collect();
        assert_eq!(codes, ["cage.refused", "cage.uncounted"]);
        let counted: u64 =
            drafts[0].facts["events"].as_array().unwrap().iter().map(|e| e["times"].as_u64().unwrap()).sum();
        assert_eq!(counted + drafts[1].facts["more"].as_u64().unwrap(), 10_000);
        assert_eq!(drafts[1].facts["lost"], 7);
        assert_eq!(
            (drafts[0].rules.as_slice(), drafts[0].verdict),
            (["seal".to_owned()].as_slice(), Some(Verdict::Deny))
        );
        assert_eq!(drafts[0].effects.len(), EFFECTS_MAX);
    }

    #[test]
    fn what_is_kept_is_bounded_and_clean() {
        let hostile = CageEvent {
            object: format!("/w/\u{1b}[2J{}", "x".repeat(9_000)),
            times: 0,
            ..event(CageEventKind::Exec, "", "")
        };
        let kept = cleaned(hostile);
        assert_eq!((kept.object.chars().count(), kept.times), (TEXT_CHARS_MAX, 1));
        assert!(!kept.object.contains('\u{1b}'));
    }
}
