//! The journal of release 0.1 stays readable and verifiable for every later version.
//!
//! `tests/golden/0.1` was written once by `write_the_golden_journal` below and is never written again.

use creel_journal::{Anchor, Journal, Reader, Start, Verdict};

use super::*;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/0.1")
}

/// The public key as a verifier gets it.
const KEY: &str = include_str!("../golden/0.1.key");
/// What a system's log printed.
const LOG: &str = include_str!("../golden/0.1.log");

#[test]
fn the_journal_of_release_0_1_verifies_with_the_public_key_alone() {
    let key = creel_seal::VerifierKey::parse(KEY).unwrap();
    let found = creel_journal::verify(&golden(), &key, &Anchor::parse(LOG)).unwrap();
    assert_eq!(found.verdict, Verdict::Intact, "{found:?}");
    assert_eq!((found.records, found.erased, found.lost, found.anchored), (45, 2, 0, Some(45)));
    assert_eq!(found.segments, 2);
}

#[test]
fn its_records_are_read_and_unknown_fields_stay() {
    let mut reader = Reader::open(&golden(), Start::Beginning).unwrap();
    let mut seen = 0;
    while let Some(stored) = reader.next_record().unwrap() {
        if stored.envelope.kind == RecordKind::Decision {
            let detail = (!stored.erased).then(|| record(seen).detail);
            assert_eq!((stored.envelope, stored.detail), (record(seen).envelope, detail));
            seen += 1;
        }
    }
    assert_eq!(seen, 42);
}

#[test]
fn this_version_goes_on_where_release_0_1_ended() {
    let folder = tempfile::tempdir().unwrap();
    copy(&golden(), folder.path());
    let (mut journal, recovered) = Journal::open(folder.path(), options()).unwrap();
    assert_eq!(recovered.records, 45);
    fill(&mut journal, 0..50);
    journal.close().unwrap();
    let found = creel_journal::verify(folder.path(), key().verifier(), &Anchor::parse(LOG)).unwrap();
    assert_eq!(found.verdict, Verdict::Intact, "{found:?}");
    let mut reader = Reader::open(folder.path(), Start::At(3)).unwrap();
    let stored = reader.next_record().unwrap().unwrap();
    let proof = creel_journal::prove(folder.path(), key().verifier(), 3).unwrap();
    proof.check(&stored.envelope_bytes, key().verifier()).unwrap();
}

/// Run by hand with `CREEL_WRITE_GOLDEN=<folder>` when a release is cut; the folder must be new.
#[test]
fn write_the_golden_journal() {
    let Some(target) = std::env::var_os("CREEL_WRITE_GOLDEN").map(PathBuf::from) else { return };
    assert!(!target.exists(), "a golden journal is written once");
    let beside = |end: &str| PathBuf::from(format!("{}.{end}", target.display()));
    let socket_path = beside("socket");
    let socket = std::os::unix::net::UnixDatagram::bind(&socket_path).unwrap();
    let anchors = vec![creel_journal::Target::Syslog(socket_path.clone())];
    let (mut journal, _) = Journal::open(&target, Options { anchors, ..options() }).unwrap();
    let mut log = String::new();
    let mut receive = || {
        let mut buffer = [0; 4096];
        let count = socket.recv(&mut buffer).unwrap();
        log.push_str(&format!("Nov 21 20:00:00 device {}\n", String::from_utf8_lossy(&buffer[4..count])));
    };
    receive();
    fill(&mut journal, 0..42);
    journal.erase(&[(7, 8)], "the person asked", &erasure_record(), &mut Vec::new).unwrap();
    journal.close().unwrap();
    receive();
    std::fs::write(beside("log"), log).unwrap();
    std::fs::write(beside("key"), format!("{}\n", key().verifier())).unwrap();
    for left in ["lock", "loss", "segments/spare", "segments/reserve"] {
        // The thread may not have made the spare again.
        let _ = std::fs::remove_file(target.join(left));
    }
    std::fs::remove_file(socket_path).unwrap();
}
