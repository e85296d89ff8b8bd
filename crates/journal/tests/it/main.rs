//! The journal from outside, on a real folder.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

mod golden;
mod read;
mod verify;
mod write;

use std::path::{Path, PathBuf};
use std::time::Duration;

use creel_journal::{Detail, Envelope, Journal, Options, Record, Verification};
use creel_model::effect::{Certainty, Effect, Object, Verb};
use creel_model::record::{EVENT_SCHEMA, RecordKind, Subject};
use creel_model::{ActionId, Decision, MatchedRule, Moment, Point, RunId, Severity, Verdict};
use creel_seal::DeviceKey;

/// Always the same key, so that a golden journal can be checked.
pub(crate) fn key() -> DeviceKey {
    DeviceKey::from_seed("creel/golden", &[42; 32]).unwrap()
}

/// Small segments, and heads only when asked for.
pub(crate) fn options() -> Options {
    Options {
        owner: 0,
        segment_bytes: 32 * 1024,
        reserve_bytes: 32 * 1024,
        checkpoint_every: Duration::from_hours(1),
        ..Options::new(key())
    }
}

/// A decision as the guard records it.
pub(crate) fn record(number: u64) -> Record {
    let verdict = if number.is_multiple_of(5) { Verdict::Deny } else { Verdict::Allow };
    let rule = MatchedRule {
        rule: "delete-outside-workspace".to_owned(),
        effect: Verdict::Deny,
        severity: Severity::High,
        reason: "it deletes what is not the project's".to_owned(),
        effect_index: 0,
        excepted_by: None,
        approved_by: None,
    };
    let rules = if verdict == Verdict::Deny { vec![rule] } else { Vec::new() };
    let envelope = Envelope {
        schema: EVENT_SCHEMA.to_owned(),
        kind: RecordKind::Decision,
        at: Moment { unix_ns: 1_800_000_000_123_456_789 + number as i64, boot_ns: 5_000_000_000 + number },
        boot_id: "0b6d2c34-0000-4000-8000-000000000001".to_owned(),
        action_id: ActionId::from_random(u128::from(number).to_be_bytes()),
        trace_id: None,
        causes: Vec::new(),
        owner: 1000,
        subject: Some(Subject {
            kind: "claude-code".to_owned(),
            run: RunId::from_random([1; 16]),
            uid: 1000,
            pid: 4242,
            conversation: "c-1".to_owned(),
            workspace: Some("/home/someone/project".to_owned()),
        }),
        point: Some(Point::ToolCall),
        event: Some("PreToolUse".to_owned()),
        tool: Some("Bash".to_owned()),
        verdict: Some(verdict),
        rules: rules.iter().map(|rule| rule.rule.clone()).collect(),
        audit_rules: Vec::new(),
        code: None,
        bundle: None,
        bundle_trust: Some("local-unsigned".to_owned()),
        engine: "0.1.0".to_owned(),
        detectors: None,
        payload_bytes: 700,
        took_ns: 120_000,
        effects: 1,
    };
    let object = Object::Path { path: format!("/home/someone/file-{number}"), resolved: None };
    let detail = Detail {
        effects: vec![Effect::new(Verb::Delete, object, Certainty::Parsed)],
        decision: Some(Decision { verdict, rules, ..Decision::allow() }),
        excerpt: format!("rm /home/someone/file-{number}"),
        cwd: Some("/home/someone/project".to_owned()),
        ..Detail::default()
    };
    Record { envelope, detail }
}

/// A record about erasing, without the journal's own facts.
pub(crate) fn erasure_record() -> Record {
    let mut record = record(0);
    record.envelope.kind = RecordKind::Erasure;
    record.detail = Detail::default();
    record
}

/// Appends records with these numbers; the state is the number.
pub(crate) fn fill(journal: &mut Journal, numbers: std::ops::Range<u64>) {
    for number in numbers {
        journal.append(&record(number), &mut || number.to_le_bytes().to_vec()).unwrap();
    }
}

/// A closed journal with so many records of the tests.
pub(crate) fn journal(folder: &Path, count: u64) -> PathBuf {
    let path = folder.join("journal");
    let (mut journal, _) = Journal::open(&path, options()).unwrap();
    fill(&mut journal, 0..count);
    journal.close().unwrap();
    path
}

pub(crate) fn verify(path: &Path) -> Verification {
    creel_journal::verify(path, key().verifier(), &[]).unwrap()
}

/// A copy of a folder.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// The segments of a journal, in order.
pub(crate) fn segments(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path.join("segments")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "segment")).collect();
    found.sort();
    found
}
