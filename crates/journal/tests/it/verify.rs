//! Verification: every kind of tampering is noticed, and every verdict is earned.

use std::os::unix::net::UnixDatagram;

use creel_journal::{Anchor, Journal, Reader, Start, Target, Verdict};
use creel_seal::Checkpoint;

use super::*;

#[test]
fn every_flipped_bit_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = journal(folder.path(), 6);
    let segment = segments(&path).pop().unwrap();
    let good = std::fs::read(&segment).unwrap();
    let end = good.iter().rposition(|byte| *byte != 0).unwrap();
    let step = if std::env::var_os("CREEL_TEST_ALL").is_some() { 1 } else { 7 };
    for at in (0..=end).step_by(step) {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&segment, &bytes).unwrap();
        let found = verify(&path);
        // The zeros that fill a record up to eight bytes are the only bytes that mean nothing.
        let filler = good[at] == 0 && at + 8 > end.min(next_frame(&good, at));
        assert!(matches!(found.verdict, Verdict::Broken { .. }) || filler, "byte {at} of {end}: {found:?}");
    }
}

/// Where the next frame after `at` begins.
fn next_frame(bytes: &[u8], at: usize) -> usize {
    bytes[at..].windows(4).position(|window| window == b"CRF1").map_or(bytes.len(), |offset| at + offset)
}

#[test]
fn the_first_bad_record_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = journal(folder.path(), 100);
    let copy_path = folder.path().join("copy");
    let broken = |change: &dyn Fn(&Path)| {
        let _ = std::fs::remove_dir_all(&copy_path);
        copy(&path, &copy_path);
        change(&copy_path);
        match verify(&copy_path).verdict {
            Verdict::Broken { first_bad, why } => (first_bad, why),
            other => panic!("{other:?}"),
        }
    };
    let total = verify(&path).records;
    assert_eq!(broken(&|path| std::fs::remove_file(&segments(path)[0]).unwrap()).0, 0);
    let second: u64 = segments(&path)[1].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    assert_eq!(broken(&|path| std::fs::remove_file(&segments(path)[1]).unwrap()).0, second);
    let last: u64 = segments(&path).pop().unwrap().file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let (bad, why) = broken(&|path| std::fs::remove_file(segments(path).pop().unwrap()).unwrap());
    assert_eq!(bad, last);
    assert!(why.contains(&format!("covers {total} records")), "{why}");
    assert_eq!(broken(&|path| std::fs::remove_file(path.join("checkpoint")).unwrap()).1, "the checkpoint is missing");
    let (bad, _) = broken(&|path| {
        let segment = &segments(path)[2];
        let mut bytes = std::fs::read(segment).unwrap();
        let place = bytes.windows(5).position(|window| window == b"allow").unwrap();
        bytes[place..place + 5].copy_from_slice(b"maybe");
        std::fs::write(segment, bytes).unwrap();
    });
    let third: u64 = segments(&path)[2].file_stem().unwrap().to_str().unwrap().parse().unwrap();
    assert!((third..third + 4).contains(&bad), "{bad} after {third}");
}

#[test]
fn a_rewritten_history_is_caught_by_tile_signature_or_anchor() {
    // The attacker has another journal with the same numbers and puts its segment in place of ours.
    let folder = tempfile::tempdir().unwrap();
    let path = journal(folder.path(), 10);
    let other_folder = tempfile::tempdir().unwrap();
    let other = journal(other_folder.path(), 10);
    let ours = Checkpoint::open(&std::fs::read_to_string(path.join("checkpoint")).unwrap(), key().verifier()).unwrap();
    std::fs::copy(&segments(&other)[0], &segments(&path)[0]).unwrap();
    assert!(matches!(verify(&path).verdict, Verdict::Broken { .. }), "the head is of another history");
    assert!(Journal::open(&path, options()).is_err(), "and no writer goes on");

    // The device key's holder signs the other history too: only an anchor speaks.
    let anchor = Anchor { note: ours.sign(&key()).unwrap(), when: "yesterday".to_owned() };
    assert_eq!(verify(&other).verdict, Verdict::SelfConsistentOnly);
    let found = creel_journal::verify(&other, key().verifier(), &[anchor]).unwrap();
    assert!(matches!(found.verdict, Verdict::Broken { first_bad: 0, .. }), "{found:?}");
}

#[test]
fn anchors_from_the_beginning_from_later_and_from_strangers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let log = folder.path().join("log");
    let socket = UnixDatagram::bind(&log).unwrap();
    let anchors = vec![Target::Syslog(log), Target::Journald(folder.path().join("nobody"))];
    let (mut journal, _) = Journal::open(&path, Options { anchors, ..options() }).unwrap();
    let mut text = String::new();
    let mut receive = || {
        let mut buffer = [0; 4096];
        let count = socket.recv(&mut buffer).unwrap();
        text.push_str(&format!("Nov 21 20:00 host {}\n", String::from_utf8_lossy(&buffer[..count])));
        text.clone()
    };
    receive();
    fill(&mut journal, 0..10);
    journal.checkpoint().unwrap();
    let state = journal.state();
    assert_eq!((state.anchors[0].anchored, &state.anchors[0].absent), (Some(11), &None));
    assert!(state.anchors[1].absent.is_some(), "a missing log is declared");
    receive();
    fill(&mut journal, 10..15);
    journal.close().unwrap();
    let text = receive();

    let check = |anchors: &[Anchor]| creel_journal::verify(&path, key().verifier(), anchors).unwrap();
    let anchors = Anchor::parse(&text);
    let found = check(&anchors);
    assert_eq!((found.verdict, found.anchors_matched, found.anchored), (Verdict::Intact, 3, Some(16)));
    let Verdict::IntactSince { records, when } = check(&anchors[1..]).verdict else { panic!() };
    assert_eq!((records, when.get(..12)), (11, Some("Nov 21 20:00")));
    assert_eq!(check(&[]).verdict, Verdict::SelfConsistentOnly);

    // A stranger's line is not evidence, neither for nor against.
    let stranger = DeviceKey::from_seed("creel/golden", &[3; 32]).unwrap();
    let forged = Checkpoint { origin: "creel/golden".to_owned(), size: 4, root: [0; 32] }.sign(&stranger).unwrap();
    let found = check(&[Anchor { note: forged, when: String::new() }]);
    assert_eq!((found.verdict, found.anchors_ignored), (Verdict::SelfConsistentOnly, 1));

    // A journal that is shorter than an anchor was truncated.
    let future = Checkpoint { origin: "creel/golden".to_owned(), size: 99, root: [0; 32] }.sign(&key()).unwrap();
    let found = check(&[Anchor { note: future, when: String::new() }]);
    assert!(matches!(found.verdict, Verdict::Broken { first_bad: 16, .. }), "{found:?}");
}

#[test]
fn erased_details_are_counted_and_the_seal_stays_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let (mut journal, _) = Journal::open(&path, options()).unwrap();
    fill(&mut journal, 0..100);
    let before: Vec<Vec<u8>> = envelopes(&path);
    let erased = journal.erase(&[(3, 5), (50, 50)], "the person asked", &erasure_record(), &mut Vec::new).unwrap();
    assert_eq!(erased.details, 4);
    assert_eq!(journal.erase(&[(3, 5)], "again", &erasure_record(), &mut Vec::new).unwrap().details, 0);
    for (ranges, reason) in [(vec![], "x"), (vec![(5, 4)], "x"), (vec![(0, 5000)], "x"), (vec![(1, 1)], " ")] {
        journal.erase(&ranges, reason, &erasure_record(), &mut Vec::new).unwrap_err();
    }
    journal.close().unwrap();

    let found = verify(&path);
    assert_eq!((found.verdict, found.erased, found.half_erased), (Verdict::SelfConsistentOnly, 4, 0));
    assert_eq!(envelopes(&path)[..before.len()], before, "no envelope changed");
    let mut reader = Reader::open(&path, Start::At(3)).unwrap();
    let stored = reader.next_record().unwrap().unwrap();
    assert_eq!((stored.sequence, stored.erased, stored.detail), (3, true, None));
    let mut reader = Reader::open(&path, Start::At(erased.sequence)).unwrap();
    let erasure = reader.next_record().unwrap().unwrap().sealed.erasure.unwrap();
    assert_eq!((erasure.ranges, erasure.reason.as_str()), (vec![(3, 5), (50, 50)], "the person asked"));
    let needle = record(2).detail.excerpt + "\"";
    for segment in segments(&path) {
        let bytes = std::fs::read(segment).unwrap();
        assert!(!bytes.windows(needle.len()).any(|window| window == needle.as_bytes()), "record 3 is the third");
    }
}

fn envelopes(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = Reader::open(path, Start::Beginning).unwrap();
    std::iter::from_fn(|| reader.next_where(&mut |_, _| true).unwrap()).map(|stored| stored.envelope_bytes).collect()
}

#[test]
fn an_erasure_that_nobody_recorded_is_tampering() {
    let folder = tempfile::tempdir().unwrap();
    let path = journal(folder.path(), 6);
    let segment = &segments(&path)[0];
    let mut bytes = std::fs::read(segment).unwrap();
    let starts: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"CRF1")).collect();
    let (begin, end) = (starts[4], starts[5]);
    let envelope = u32::from_le_bytes(bytes[begin + 4..begin + 8].try_into().unwrap()) as usize;
    bytes[begin + 12] = 1;
    bytes[begin + 24..begin + 40].fill(0);
    bytes[begin + 48 + envelope..end].fill(0);
    std::fs::write(segment, bytes).unwrap();
    let found = verify(&path);
    assert!(matches!(found.verdict, Verdict::Broken { first_bad: 4, .. }), "{found:?}");
}

#[test]
fn a_folder_without_a_journal_says_so() {
    let folder = tempfile::tempdir().unwrap();
    creel_journal::verify(folder.path(), key().verifier(), &[]).unwrap_err();
}

#[test]
fn a_running_journal_can_be_verified() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(folder.path(), options()).unwrap();
    for round in 0..20 {
        fill(&mut journal, round * 10..round * 10 + 10);
        let found = verify(folder.path());
        assert_eq!((found.verdict, found.records), (Verdict::SelfConsistentOnly, journal.state().records));
    }
}
