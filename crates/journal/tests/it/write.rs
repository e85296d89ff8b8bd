//! Opening, appending, locking, restarting.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::{Command, Stdio};

use creel_journal::{AppendError, Journal, OpenError, Reader, Space, Start, Verdict, set_aside};

use super::*;

#[test]
fn a_second_writer_is_refused_and_let_in_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(folder.path(), options()).unwrap();
    assert!(matches!(Journal::open(folder.path(), options()), Err(OpenError::Locked)));
    journal.close().unwrap();
    Journal::open(folder.path(), options()).unwrap();
}

#[test]
fn everything_belongs_to_the_account_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = journal(folder.path(), 600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    Journal::open(&path, options()).unwrap().0.close().unwrap();
    let mut todo = vec![path];
    let mut files = 0;
    while let Some(path) = todo.pop() {
        let facts = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!(facts.mode() & 0o777, if facts.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
        files += usize::from(facts.is_file());
        if facts.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert!(files > 10, "{files}");
}

#[test]
fn a_folder_that_is_a_link_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("real")).unwrap();
    std::os::unix::fs::symlink(folder.path().join("real"), folder.path().join("journal")).unwrap();
    assert!(matches!(Journal::open(&folder.path().join("journal"), options()), Err(OpenError::Io(_))));
}

#[test]
fn a_restart_gets_the_state_and_the_records_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = journal(folder.path(), 100);
    assert!(segments(&path).len() > 3);
    let (mut journal, recovered) = Journal::open(&path, options()).unwrap();
    let state = u64::from_le_bytes(recovered.snapshot.unwrap().try_into().unwrap());
    let after: Vec<_> = recovered.records_after.iter().map(|stored| stored.detail.clone().unwrap()).collect();
    assert_eq!(after, (state..100).map(|number| record(number).detail).collect::<Vec<_>>());
    assert_eq!(recovered.dropped_tail_bytes, 0);
    assert_eq!(journal.state().records, recovered.records);
    fill(&mut journal, 100..120);
    journal.close().unwrap();
    assert_eq!(verify(&path).verdict, Verdict::SelfConsistentOnly);
}

#[test]
fn a_torn_tail_is_cut_off_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let (mut journal, _) = Journal::open(&path, options()).unwrap();
    fill(&mut journal, 0..3);
    journal.checkpoint().unwrap();
    fill(&mut journal, 3..5);
    // A copy while it runs is what a kill leaves; then its last record loses its end.
    journal.sync().unwrap();
    let torn = folder.path().join("torn");
    copy(&path, &torn);
    drop(journal);
    let segment = &segments(&torn)[0];
    let mut bytes = std::fs::read(segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end - 20..].fill(0);
    std::fs::write(segment, bytes).unwrap();

    let before = verify(&torn);
    assert_eq!((before.verdict, before.records), (Verdict::SelfConsistentOnly, 5));
    assert!(before.torn_tail_bytes > 0);
    let (mut journal, recovered) = Journal::open(&torn, options()).unwrap();
    assert!(recovered.dropped_tail_bytes > 500, "{}", recovered.dropped_tail_bytes);
    assert_eq!(recovered.records, 5);
    fill(&mut journal, 4..8);
    journal.close().unwrap();
    let after = verify(&torn);
    assert_eq!((after.verdict, after.records, after.torn_tail_bytes), (Verdict::SelfConsistentOnly, 9, 0));
}

#[test]
fn signed_records_that_are_gone_are_damage_and_can_be_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = journal(folder.path(), 20);
    let segment = segments(&path).pop().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end - 20] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let Err(OpenError::Damaged { first_bad, .. }) = Journal::open(&path, options()) else { panic!("not noticed") };
    let aside = set_aside(&path).unwrap();
    assert!(matches!(verify(&aside).verdict, Verdict::Broken { first_bad: bad, .. } if bad == first_bad));
    Journal::open(&path, options()).unwrap();
}

#[test]
fn another_key_cannot_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = journal(folder.path(), 2);
    let other = Options { key: DeviceKey::from_seed("creel/golden", &[1; 32]).unwrap(), ..options() };
    assert!(matches!(Journal::open(&path, other), Err(OpenError::Damaged { .. })));
}

#[test]
fn what_is_too_long_is_refused_and_the_journal_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(folder.path(), Options { segment_bytes: 4 << 20, ..options() }).unwrap();
    let mut long = record(1);
    long.detail.excerpt = "x".repeat(1 << 20);
    let refused = journal.append(&long, &mut Vec::new);
    assert!(matches!(refused, Err(AppendError::TooLong { part: "detail", .. })), "{refused:?}");
    let mut long = record(1);
    long.envelope.rules = vec!["r".repeat(100); 700];
    let refused = journal.append(&long, &mut Vec::new);
    assert!(matches!(refused, Err(AppendError::TooLong { part: "envelope", .. })), "{refused:?}");
    let refused = journal.append(&record(1), &mut || vec![1; 3 << 20]);
    assert!(matches!(refused, Err(AppendError::TooLong { part: "snapshot", .. })), "{refused:?}");
    fill(&mut journal, 0..3);
    journal.close().unwrap();
    assert_eq!(verify(folder.path()).records, 4);
}

#[test]
fn syncers_and_checkpoints_answer_and_the_state_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(folder.path(), options()).unwrap();
    let syncer = journal.syncer();
    fill(&mut journal, 0..2);
    let waiting = std::thread::spawn(move || syncer.wait(2));
    waiting.join().unwrap().unwrap();
    assert!(journal.state().durable >= 3);
    let note = journal.checkpoint().unwrap();
    assert!(note.starts_with("creel/golden\n3\n"), "{note}");
    let state = journal.state();
    assert_eq!((state.records, state.signed, state.space, state.failed), (3, 3, Space::Normal, None));
    journal.close().unwrap();
}

/// Not a test of its own: the process that the next test kills.
#[test]
fn child_that_appends_until_it_is_killed() {
    let Some(path) = std::env::var_os("CREEL_JOURNAL_CHILD") else { return };
    let (mut journal, recovered) = Journal::open(Path::new(&path), options()).unwrap();
    for number in recovered.records.. {
        let sequence = journal.append(&record(number), &mut Vec::new).unwrap().sequence;
        println!("\nappended {sequence}");
    }
}

#[test]
fn a_killed_process_loses_nothing_that_it_said_it_had_appended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    for kill_after in [1, 2, 7, 50, 333] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "write::child_that_appends_until_it_is_killed", "--nocapture"])
            .env("CREEL_JOURNAL_CHILD", &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = 0;
        for _ in 0..kill_after {
            let line = lines.find_map(|line| line.unwrap().strip_prefix("appended ").map(str::to_owned));
            said = line.unwrap().parse().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let found = verify(&path);
        assert_eq!(found.verdict, Verdict::SelfConsistentOnly);
        assert!(found.records > said, "{} of {said}", found.records);
        let mut reader = Reader::open(&path, Start::At(said)).unwrap();
        assert_eq!(reader.next_record().unwrap().unwrap().sequence, said);
    }
}
