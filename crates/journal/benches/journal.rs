//! Prints what an append costs and how fast a journal is verified: `cargo bench -p creel-journal`.
//!
//! Arguments: records (default 200000) and folder (default a temporary one, removed afterwards).

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, reason = "a measuring program")]

use std::time::{Duration, Instant};

use creel_journal::{Detail, Envelope, Journal, Options, Reader, Record, Start};
use creel_model::effect::{Certainty, Effect, Object, Verb};
use creel_model::record::{EVENT_SCHEMA, RecordKind, Subject};
use creel_model::{ActionId, Decision, Moment, Point, RunId, Verdict};
use creel_seal::DeviceKey;

fn main() {
    let mut numbers = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let count: u64 = numbers.next().map_or(200_000, |text| text.parse().unwrap());
    let temporary = tempfile::tempdir().unwrap();
    let folder = numbers.next().map_or_else(|| temporary.path().to_owned(), Into::into);
    let key = || DeviceKey::from_seed("creel/bench", &[1; 32]).unwrap();

    let (mut journal, _) = Journal::open(&folder, Options::new(key())).unwrap();
    let state = vec![7; 64 * 1024];
    let mut took = Vec::new();
    let begun = Instant::now();
    for number in 0..count {
        let record = record(number);
        let start = Instant::now();
        journal.append(&record, &mut || state.clone()).unwrap();
        took.push(start.elapsed());
        // As a busy day, not as a flood: the thread that syncs runs beside.
        if number % 1000 == 999 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let all = begun.elapsed();
    journal.close().unwrap();
    took.sort_unstable();
    let at = |share: f64| took[(took.len() as f64 * share) as usize].as_nanos() as f64 / 1000.0;
    let rate = count as f64 / all.as_secs_f64();
    println!(
        "append: {count} records, p50 {:.1} µs, p99 {:.1} µs, p99.9 {:.1} µs, max {:.1} µs, {rate:.0} records/s",
        at(0.5),
        at(0.99),
        at(0.999),
        at(0.999_999_9)
    );

    let begun = Instant::now();
    let found = creel_journal::verify(&folder, key().verifier(), &[]).unwrap();
    let rate = found.records as f64 / begun.elapsed().as_secs_f64();
    println!("verify: {} records, {rate:.0} records/s, {:?}", found.records, found.verdict);

    let begun = Instant::now();
    let mut reader = Reader::open(&folder, Start::Beginning).unwrap();
    let read = std::iter::from_fn(|| reader.next_record().unwrap()).count();
    println!("read: {read} records, {:.0} records/s", read as f64 / begun.elapsed().as_secs_f64());

    let begun = Instant::now();
    let (_, recovered) = Journal::open(&folder, Options::new(key())).unwrap();
    println!("open: {} records after the snapshot, {:?}", recovered.records_after.len(), begun.elapsed());
}

fn record(number: u64) -> Record {
    let path = format!("/home/someone/project/src/module-{number}.rs");
    let object = Object::Path { path: path.clone(), resolved: Some(path.clone()) };
    Record {
        envelope: Envelope {
            schema: EVENT_SCHEMA.to_owned(),
            kind: RecordKind::Decision,
            at: Moment { unix_ns: 1_800_000_000_000_000_000 + number as i64, boot_ns: number },
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
                conversation: "5f9e7f6e-0000-4000-8000-000000000001".to_owned(),
                workspace: Some("/home/someone/project".to_owned()),
            }),
            point: Some(Point::ToolCall),
            event: Some("PreToolUse".to_owned()),
            tool: Some("Write".to_owned()),
            verdict: Some(Verdict::Allow),
            rules: Vec::new(),
            audit_rules: vec!["write-outside-workspace".to_owned()],
            code: None,
            bundle: Some(creel_model::Digest("ab".repeat(32))),
            bundle_trust: Some("local-unsigned".to_owned()),
            engine: "0.1.0".to_owned(),
            detectors: Some("2026-11-21".to_owned()),
            payload_bytes: 4096,
            took_ns: 250_000,
            effects: 1,
        },
        detail: Detail {
            effects: vec![Effect::new(Verb::Write, object, Certainty::Exact)],
            decision: Some(Decision::allow()),
            excerpt: format!("Write {path}"),
            cwd: Some("/home/someone/project".to_owned()),
            ..Detail::default()
        },
    }
}
