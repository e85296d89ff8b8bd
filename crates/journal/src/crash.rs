//! What survives: kills at every byte, power cuts at every step, full disks, failing syncs — on the twin of the disk.

use std::sync::Arc;
use std::time::Duration;

use creel_model::record::{Detail, EVENT_SCHEMA, Envelope, Record, RecordKind};
use creel_model::{ActionId, Moment};
use creel_seal::DeviceKey;

use crate::reader::{Reader, Start};
use crate::storage::Storage;
use crate::twin::{Op, Random, Twin};
use crate::verify::{Verdict, verify_in};
use crate::writer::{AppendError, Journal, Options, Space};

const NEVER: Duration = Duration::from_hours(24);

fn options() -> Options {
    Options {
        owner: 0,
        segment_bytes: 6 * 1024,
        reserve_bytes: 12 * 1024,
        sync_every: NEVER,
        checkpoint_every: NEVER,
        anchor_every: NEVER,
        ..Options::new(DeviceKey::from_seed("creel/twin", &[4; 32]).unwrap())
    }
}

/// Record number `number` of the tests: its facts say so.
fn record(number: u64) -> Record {
    let envelope = Envelope {
        schema: EVENT_SCHEMA.to_owned(),
        kind: RecordKind::Event,
        // Clocks jump: every other record is earlier than the one before.
        at: Moment { unix_ns: 1_800_000_000_000_000_000 - (number as i64 % 2) * 7_000_000_000, boot_ns: number },
        boot_id: "b".to_owned(),
        action_id: ActionId::from_random([number as u8; 16]),
        trace_id: None,
        causes: Vec::new(),
        owner: 1000,
        subject: None,
        point: None,
        event: None,
        tool: None,
        verdict: None,
        rules: Vec::new(),
        audit_rules: Vec::new(),
        code: None,
        bundle: None,
        bundle_trust: None,
        engine: "0".to_owned(),
        detectors: None,
        payload_bytes: number,
        took_ns: 0,
        effects: 0,
    };
    Record { envelope, detail: Detail { excerpt: format!("number {number}"), ..Detail::default() } }
}

/// The numbers of the test's own records, in order.
fn numbers(twin: &Twin) -> Vec<u64> {
    let mut reader = Reader::open_in(Arc::new(twin.clone()), Start::Beginning).unwrap();
    std::iter::from_fn(|| reader.next_where(&mut |_, envelope| envelope.kind == RecordKind::Event).unwrap())
        .map(|stored| stored.envelope.payload_bytes)
        .collect()
}

fn append(journal: &mut Journal, number: u64) -> Result<u64, AppendError> {
    journal.append(&record(number), &mut || number.to_le_bytes().to_vec()).map(|appended| appended.sequence)
}

/// Appends `count` records with syncs and signed heads between; every operation is in the twin's log.
fn history(count: u64) -> Vec<Op> {
    let twin = Twin::default();
    let (mut journal, _) = Journal::open_in(Arc::new(twin.clone()), options()).unwrap();
    let mut synced = 0;
    for number in 0..count {
        append(&mut journal, number).unwrap();
        if number % 3 == 2 {
            journal.sync().unwrap();
            synced = number + 1;
        }
        if number % 5 == 4 {
            journal.checkpoint().unwrap();
            synced = number + 1;
        }
        twin.mark(number + 1, synced);
    }
    journal.close().unwrap();
    twin.mark(count, count);
    twin.log()
}

/// Opens what a crash left and checks that the first `at_least` records are there, in order, with their state, and that
/// the journal goes on.
fn check(twin: &Twin, at_least: u64, context: &dyn Fn() -> String) {
    let (mut journal, recovered) =
        Journal::open_in(Arc::new(twin.clone()), options()).unwrap_or_else(|error| panic!("{error}: {}", context()));
    let found = numbers(twin);
    let count = found.len() as u64;
    assert!(count >= at_least, "{count} of {at_least} records: {}", context());
    assert_eq!(found, (0..count).collect::<Vec<_>>(), "{}", context());
    let before = recovered.snapshot.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
    let after: Vec<u64> = recovered.records_after.iter().map(|stored| stored.envelope.payload_bytes).collect();
    assert_eq!(after, (before..count).collect::<Vec<_>>(), "{}", context());
    append(&mut journal, count).unwrap();
    journal.close().unwrap();
    let key = options().key;
    let found = verify_in(twin, key.verifier(), &[]).unwrap();
    assert_eq!(found.verdict, Verdict::SelfConsistentOnly, "{}", context());
    assert_eq!(found.torn_tail_bytes, 0, "{}", context());
    assert_eq!(numbers(twin).len() as u64, count + 1, "{}", context());
}

/// What had returned before this operation.
fn marks(ops: &[Op]) -> (u64, u64) {
    let last = ops.iter().rev().find_map(|op| match op {
        Op::Mark { appended, synced } => Some((*appended, *synced)),
        _ => None,
    });
    last.unwrap_or((0, 0))
}

#[test]
fn a_kill_at_any_byte_loses_nothing_that_was_appended() {
    let exhaustive = std::env::var_os("CREEL_TEST_ALL").is_some();
    let ops = history(if exhaustive { 14 } else { 9 });
    for (place, op) in ops.iter().enumerate() {
        let (before, appended) = (&ops[..place], marks(&ops[..place]).0);
        let Op::Write { bytes, .. } = op else {
            if !matches!(op, Op::Sync { .. } | Op::Mark { .. }) {
                check(&Twin::killed(before, None), appended, &|| format!("killed before {place} {op:?}"));
            }
            continue;
        };
        // Every byte of what is a record; of tiles and heads, which are replaced whole, some.
        let step = if exhaustive || bytes.starts_with(b"CRF1") { 1 } else { 61 };
        for partial in (0..bytes.len()).step_by(step) {
            let twin = Twin::killed(before, Some((op, partial)));
            check(&twin, appended, &|| format!("killed in operation {place}, {partial} bytes written"));
        }
    }
}

#[test]
fn a_power_cut_at_any_step_loses_nothing_that_was_synced() {
    let rounds = if std::env::var_os("CREEL_TEST_ALL").is_some() { 40 } else { 8 };
    let ops = history(25);
    for seed in 1..=rounds {
        for place in 0..=ops.len() {
            let synced = marks(&ops[..place]).1;
            let twin = Twin::cut(&ops[..place], &mut Random(seed * 7919 + place as u64));
            check(&twin, synced, &|| format!("power cut before operation {place}, seed {seed}"));
        }
    }
}

#[test]
fn crashes_upon_crashes() {
    // Each life ends in a power cut while it runs; what was synced in any life stays for all later ones.
    for seed in 1..=30_u64 {
        let mut random = Random(seed * 104_729);
        let mut twin = Twin::default();
        let mut certain = 0;
        for life in 0..10 {
            let (mut journal, _) = Journal::open_in(Arc::new(twin.clone()), options()).unwrap();
            let start = numbers(&twin).len() as u64;
            assert!(start >= certain, "seed {seed}, life {life}: {start} of {certain}");
            certain = start;
            for number in start..start + random.below(9) {
                append(&mut journal, number).unwrap();
                if random.below(3) == 0 {
                    journal.sync().unwrap();
                    certain = number + 1;
                }
            }
            let after = twin.cut_now(&mut random);
            drop(journal);
            twin = after;
        }
    }
}

#[test]
fn a_full_disk_is_counted_and_the_gap_is_the_first_record_afterwards() {
    let twin = Twin::default();
    let (mut journal, _) = Journal::open_in(Arc::new(twin.clone()), options()).unwrap();
    append(&mut journal, 0).unwrap();
    journal.sync().unwrap();
    // Wait for the spare, so that what follows does not depend on when the thread made it.
    drop(journal.checkpoint().unwrap());
    twin.set_capacity(Some(twin.used()));
    let mut number = 1;
    let mut in_reserve = 0;
    let lost = loop {
        match append(&mut journal, number) {
            Ok(_) => in_reserve += u64::from(journal.state().space == Space::Reserve),
            Err(AppendError::Full { lost }) => break lost,
            Err(error) => panic!("{error}"),
        }
        number += 1;
    };
    assert_eq!(lost, 1);
    assert!(in_reserve > 0, "the reserve was used, and said so");
    assert_eq!(append(&mut journal, number), Err(AppendError::Full { lost: 2 }));
    assert_eq!(journal.state().space, Space::Full { lost: 2 });
    journal.close().ok();

    // The count survives the process, and space comes back.
    let (mut journal, _) = Journal::open_in(Arc::new(twin.clone()), options()).unwrap();
    assert_eq!(append(&mut journal, number), Err(AppendError::Full { lost: 3 }));
    twin.set_capacity(None);
    let sequence = append(&mut journal, number).unwrap();
    journal.close().unwrap();
    let mut reader = Reader::open_in(Arc::new(twin.clone()), Start::At(sequence - 1)).unwrap();
    let gap = reader.next_record().unwrap().unwrap();
    assert_eq!((gap.envelope.kind, gap.sealed.gap.map(|gap| gap.lost)), (RecordKind::Gap, Some(3)));
    let found = verify_in(&twin, options().key.verifier(), &[]).unwrap();
    assert_eq!((found.verdict, found.gaps, found.lost), (Verdict::SelfConsistentOnly, 1, 3));

    // It is told once.
    let (journal, _) = Journal::open_in(Arc::new(twin), options()).unwrap();
    assert!(!matches!(journal.state().space, Space::Full { .. }));
}

#[test]
fn a_failing_sync_stops_the_journal() {
    let twin = Twin::default();
    let (mut journal, _) = Journal::open_in(Arc::new(twin.clone()), options()).unwrap();
    append(&mut journal, 0).unwrap();
    journal.sync().unwrap();
    append(&mut journal, 1).unwrap();
    twin.fail_syncs();
    journal.sync().unwrap_err();
    assert!(matches!(append(&mut journal, 2), Err(AppendError::Failed(_))));
    assert!(journal.state().failed.is_some());
    journal.checkpoint().unwrap_err();
    journal.close().unwrap_err();
}

/// Segments with room for the tree's edge, which grows to 8 KiB per tile level.
fn wide() -> Options {
    Options { segment_bytes: 48 * 1024, reserve_bytes: 48 * 1024, ..options() }
}

#[test]
fn lost_tiles_are_made_again() {
    let twin = Twin::default();
    let (mut journal, _) = Journal::open_in(Arc::new(twin.clone()), wide()).unwrap();
    for number in 0..600 {
        append(&mut journal, number).unwrap();
    }
    journal.close().unwrap();
    twin.remove("tile/0/000").unwrap();
    twin.remove("tile/0/001").unwrap();
    let key = options().key;
    assert_eq!(verify_in(&twin, key.verifier(), &[]).unwrap().tiles_bad, 2);
    Journal::open_in(Arc::new(twin.clone()), wide()).unwrap().0.close().unwrap();
    let found = verify_in(&twin, key.verifier(), &[]).unwrap();
    assert_eq!((found.tiles_bad, found.verdict), (0, Verdict::SelfConsistentOnly));
    for sequence in [0, 1, 255, 256, 300, 599] {
        let proof = crate::prove::prove_in(&twin, key.verifier(), sequence).unwrap();
        let mut reader = Reader::open_in(Arc::new(twin.clone()), Start::At(sequence)).unwrap();
        let stored = reader.next_where(&mut |_, _| true).unwrap().unwrap();
        proof.check(&stored.envelope_bytes, key.verifier()).unwrap();
        proof.check(b"another", key.verifier()).unwrap_err();
    }
}

#[test]
fn an_interrupted_erasure_is_completed() {
    let twin = Twin::default();
    let (mut journal, _) = Journal::open_in(Arc::new(twin.clone()), options()).unwrap();
    for number in 0..12 {
        append(&mut journal, number).unwrap();
    }
    let before = twin.log().len();
    journal.erase(&[(2, 4), (11, 12)], "asked for", &record(0), &mut Vec::new).unwrap();
    let ops = twin.log();
    drop(journal);
    let key = options().key;
    for place in before..=ops.len() {
        let twin = Twin::killed(&ops[..place], None);
        let announced = {
            let mut reader = Reader::open_in(Arc::new(twin.clone()), Start::Beginning).unwrap();
            reader.next_where(&mut |_, envelope| envelope.kind == RecordKind::Erasure).unwrap().is_some()
        };
        let (journal, _) = Journal::open_in(Arc::new(twin.clone()), options()).unwrap();
        journal.close().unwrap();
        let found = verify_in(&twin, key.verifier(), &[]).unwrap();
        assert_eq!(found.verdict, Verdict::SelfConsistentOnly, "killed before operation {place}");
        assert_eq!((found.erased, found.half_erased), (if announced { 5 } else { 0 }, 0), "before {place}");
    }
}

#[test]
fn a_restart_on_a_full_disk_keeps_the_reserve() {
    let twin = Twin::default();
    let (mut journal, _) = Journal::open_in(Arc::new(twin.clone()), options()).unwrap();
    append(&mut journal, 0).unwrap();
    journal.sync().unwrap();
    journal.checkpoint().unwrap();
    journal.close().unwrap();
    twin.set_capacity(Some(0));
    let (mut journal, _) = Journal::open_in(Arc::new(twin.clone()), options()).unwrap();
    assert_eq!(journal.state().space, Space::Normal);
    let mut number = 1;
    while journal.state().space == Space::Normal {
        append(&mut journal, number).unwrap();
        number += 1;
    }
    assert_eq!(journal.state().space, Space::Reserve);
}
