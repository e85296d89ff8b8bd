//! Cursors, also beside a writer.

use creel_journal::{Journal, ReadError, Reader, Start, ocsf};

use super::*;

fn all(reader: &mut Reader) -> Vec<u64> {
    std::iter::from_fn(|| reader.next_record().unwrap())
        .map(|stored| stored.envelope.at.boot_ns - 5_000_000_000)
        .collect()
}

#[test]
fn a_reader_follows_a_writer_across_segments() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(folder.path(), options()).unwrap();
    let mut reader = Reader::open(folder.path(), Start::Beginning).unwrap();
    let mut seen = Vec::new();
    for number in 0..200 {
        fill(&mut journal, number..number + 1);
        if number % 7 != 0 {
            continue;
        }
        seen.extend(all(&mut reader));
        assert_eq!(seen, (0..=number).collect::<Vec<_>>());
        assert_eq!(reader.next_record().unwrap(), None, "asked again at the end");
    }
    assert!(segments(folder.path()).len() > 5);
}

#[test]
fn a_reader_in_another_thread_sees_every_record_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let (mut journal, _) = Journal::open(&path, options()).unwrap();
    let reading = std::thread::spawn(move || {
        let mut reader = Reader::open(&path, Start::Beginning).unwrap();
        let mut seen = Vec::new();
        while seen.len() < 1500 {
            seen.extend(all(&mut reader));
            std::thread::yield_now();
        }
        seen
    });
    fill(&mut journal, 0..1500);
    assert_eq!(reading.join().unwrap(), (0..1500).collect::<Vec<_>>());
}

#[test]
fn starts_and_filters() {
    let folder = tempfile::tempdir().unwrap();
    let path = journal(folder.path(), 100);
    let mut reader = Reader::open(&path, Start::At(60)).unwrap();
    assert_eq!(reader.next_record().unwrap().unwrap().sequence, 60);
    let mut reader = Reader::open(&path, Start::Last(3)).unwrap();
    assert_eq!(all(&mut reader), [97, 98, 99]);
    let mut reader = Reader::open(&path, Start::At(10_000)).unwrap();
    assert_eq!(reader.next_record().unwrap(), None);

    let mut denied = |_: u64, envelope: &Envelope| envelope.verdict == Some(Verdict::Deny);
    let mut reader = Reader::open(&path, Start::Beginning).unwrap();
    assert_eq!(std::iter::from_fn(|| reader.next_where(&mut denied).unwrap()).count(), 20);
    for count in [0, 1, 4, 20, 1000] {
        let (last, reader) = Reader::last(&path, count, &mut denied).unwrap();
        let numbers: Vec<u64> = last.iter().map(|stored| stored.envelope.at.boot_ns - 5_000_000_000).collect();
        let expected: Vec<u64> = (0..100).step_by(5).collect();
        assert_eq!(numbers, expected[expected.len().saturating_sub(count)..]);
        assert_eq!(reader.position(), verify(&path).records);
    }
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(Reader::open(empty.path(), Start::Last(5)).unwrap().next_record().unwrap(), None);
}

#[test]
fn damage_is_named_and_an_unfinished_end_is_not_damage() {
    let folder = tempfile::tempdir().unwrap();
    let path = journal(folder.path(), 100);
    let first = &segments(&path)[0];
    let mut bytes = std::fs::read(first).unwrap();
    let place = bytes.windows(14).position(|window| window == b"someone/file-5").unwrap();
    bytes[place] ^= 1;
    std::fs::write(first, bytes).unwrap();
    let mut reader = Reader::open(&path, Start::Beginning).unwrap();
    let error = std::iter::from_fn(|| reader.next_record().transpose()).find_map(Result::err).unwrap();
    assert!(matches!(error, ReadError::Damaged { sequence: 6, .. }), "{error}");
}

#[test]
fn an_event_for_a_siem() {
    let folder = tempfile::tempdir().unwrap();
    let path = journal(folder.path(), 2);
    let mut reader = Reader::open(&path, Start::Beginning).unwrap();
    let denied = ocsf::event(&reader.next_record().unwrap().unwrap());
    let allowed = ocsf::event(&reader.next_record().unwrap().unwrap());
    let at = |value: &serde_json::Value, pointer: &str| value.pointer(pointer).cloned().unwrap_or_default();
    for (event, class, category, kind) in [(&denied, 2004, 2, 200_401), (&allowed, 6003, 6, 600_304)] {
        assert_eq!((at(event, "/class_uid"), at(event, "/category_uid")), (class.into(), category.into()));
        assert_eq!(at(event, "/type_uid"), kind);
        let activity = at(event, "/activity_id").as_u64().unwrap();
        assert_eq!(at(event, "/type_uid"), class * 100 + activity);
        assert_eq!(at(event, "/metadata/version"), "1.8.0");
        assert_eq!(at(event, "/time"), 1_800_000_000_123_u64);
        assert_eq!(at(event, "/unmapped/creel/owner"), 1000);
    }
    assert_eq!(at(&denied, "/disposition"), "Blocked");
    assert_eq!(at(&denied, "/severity_id"), 4);
    assert_eq!(at(&denied, "/finding_info/title"), "delete-outside-workspace");
    assert_eq!(at(&denied, "/resources/0/name"), "/home/someone/file-0");
    assert_eq!(at(&allowed, "/api/operation"), "Bash");
    assert_eq!(at(&allowed, "/actor/app_name"), "claude-code");
    assert_eq!(at(&allowed, "/severity_id"), 1);
}
