//! What goes wrong around a cage: parts of it killed, no room, no processes, many at once. Nothing stays behind.

use std::collections::BTreeSet;

use creel_tests::{Account, Creel, Deadline, Running, Stage, until};
use rustix::process::{Pid, Signal};

use super::{WORKSPACE, caged, creel_with, sh};

/// What was there before a run, to be compared with what is there after it.
struct Before {
    processes: BTreeSet<u32>,
    mounts: String,
    files: String,
}

/// Folders in which a run might leave something. The journal grows; it is not among them.
const FOLDERS: &str =
    "find /tmp /dev/shm /run/user/61000 ~/project ~/.local/state/creel/runs -mindepth 1 2>/dev/null | sort";

impl Before {
    fn look(stage: &Stage) -> Self {
        Self { processes: stage.everything().into_keys().collect(), mounts: stage.mounts(), files: files(stage) }
    }

    /// Waits until all is as it was.
    fn again(&self, stage: &Stage) {
        let left = || {
            let now = stage.everything();
            now.into_iter().filter(|(id, _)| !self.processes.contains(id)).collect::<Vec<_>>()
        };
        let gone = until("the end of all processes", Deadline::seconds(30), || left().is_empty().then_some(()));
        assert!(gone.is_ok(), "{:?}", left());
        assert_eq!(stage.mounts(), self.mounts);
        // The daemon closes a run's socket when it sees that the run is over.
        let same = until("the end of all files", Deadline::seconds(30), || (files(stage) == self.files).then_some(()));
        assert!(same.is_ok(), "{}\n---\n{}", self.files, files(stage));
    }
}

fn files(stage: &Stage) -> String {
    sh(stage, Account::USER, FOLDERS).stdout
}

fn set(stage: &Stage) -> Creel<'_> {
    stage.make_folder(Account::USER, WORKSPACE).unwrap();
    sh(stage, Account::USER, "cd project; git init -q .; mkdir -p .husky; touch .husky/x");
    let creel = creel_with(stage, &[]);
    // What is made once and kept is made now.
    caged(stage, WORKSPACE, &[], &["true"]).finish(60).unwrap().well().unwrap();
    creel
}

/// A run whose command waits, and the processes that it consists of: supervisor first.
fn waiting(stage: &Stage, before: &Before) -> (Running, Vec<u32>) {
    let mut running = caged(stage, WORKSPACE, &[], &["sh", "-c", "echo inside; exec sleep 3600"]).start().unwrap();
    running.says("inside", Deadline::seconds(60)).unwrap();
    let parts = until("the run's processes", Deadline::seconds(30), || {
        let now = stage.everything();
        let new: Vec<(u32, String)> = now.into_iter().filter(|(id, _)| !before.processes.contains(id)).collect();
        let inside = new.iter().any(|(_, name)| name == "sleep");
        inside.then(|| new.into_iter().filter(|(_, name)| name != "sleep").map(|(id, _)| id).collect::<Vec<_>>())
    });
    (running, parts.unwrap())
}

/// A killed supervisor cannot take its socket away; the next run of the account does.
fn swept(stage: &Stage, before: &Before) {
    caged(stage, WORKSPACE, &[], &["true"]).finish(60).unwrap().well().unwrap();
    before.again(stage);
}

fn kill(id: u32) {
    if let Some(id) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(id, Signal::KILL);
    }
}

fn all() -> bool {
    std::env::var_os("CREEL_TEST_ALL").is_some()
}

#[test]
fn whichever_part_is_killed_nothing_stays() {
    let Some(stage) = Stage::open() else { return };
    let creel = set(&stage);
    let before = Before::look(&stage);
    let (first, parts) = waiting(&stage, &before);
    let number = parts.len();
    assert!(number >= 3, "supervisor, first process and broker at least: {parts:?}");
    first.kill().unwrap();
    swept(&stage, &before);
    for at in 0..number {
        let (running, parts) = waiting(&stage, &before);
        kill(parts[at]);
        let ended = running.finish(Deadline::seconds(60)).unwrap();
        assert_ne!(ended.code, Some(0), "{ended}");
        swept(&stage, &before);
    }
    creel.verified().unwrap();
}

#[test]
fn killed_while_it_begins_nothing_stays() {
    let Some(stage) = Stage::open() else { return };
    let creel = set(&stage);
    let before = Before::look(&stage);
    let steps: u32 = if all() { 200 } else { 12 };
    for step in 0..steps {
        let mut running = caged(&stage, WORKSPACE, &[], &["sleep", "3600"]).start().unwrap();
        // Somewhere along the way: which point it is does not matter, that all points are met in the long run does.
        let end =
            std::time::Instant::now() + std::time::Duration::from_micros(u64::from(step) * 40_000 / u64::from(steps));
        while std::time::Instant::now() < end {
            std::thread::yield_now();
        }
        if running.signal(Signal::KILL).is_err() {
            continue;
        }
        let _ = running.finish(Deadline::seconds(60)).unwrap();
    }
    swept(&stage, &before);
    creel.verified().unwrap();
}

#[test]
fn a_run_outlives_its_daemon_and_is_known_to_the_next() {
    let Some(stage) = Stage::open() else { return };
    let mut creel = set(&stage);
    let script = "echo inside; while [ ! -e go ]; do sleep 0.02; done; (echo x >.envrc) 2>/dev/null; echo over";
    let mut running = caged(&stage, WORKSPACE, &[], &["sh", "-c", script]).start().unwrap();
    running.says("inside", Deadline::seconds(60)).unwrap();
    creel.kill().unwrap();
    // Without a daemon nothing new begins.
    let second = caged(&stage, WORKSPACE, &[], &["true"]).finish(60).unwrap();
    assert!(second.code != Some(0) && !second.stderr.is_empty(), "{second}");
    creel.start().unwrap();
    // A quiet run finds the new daemon by itself; one that ends before it did is not known to it.
    let resumed = until("the run at the new daemon", Deadline::seconds(60), || {
        creel.coded("cage.resumed").ok().filter(|resumed| !resumed.is_empty())
    });
    assert!(resumed.is_ok(), "{:?}", creel.status());
    stage.write(Account::USER, &format!("{WORKSPACE}/go"), "").unwrap();
    let ended = running.finish(Deadline::seconds(60)).unwrap().well().unwrap();
    assert!(ended.stdout.contains("over"), "{ended}");
    assert!(!stage.exists(&format!("{WORKSPACE}/.envrc")));
    let known = until("the run's end on record", Deadline::seconds(30), || {
        creel.coded("cage.ended").ok().filter(|ended| ended.len() >= 2)
    });
    let codes =
        || creel.records().unwrap().into_iter().map(|record| record["envelope"]["code"].clone()).collect::<Vec<_>>();
    assert!(known.is_ok(), "{ended} {:?}", codes());
    creel.verified().unwrap();
}

#[test]
fn without_room_it_does_not_begin_and_nothing_stays() {
    let Some(stage) = Stage::open() else { return };
    let creel = set(&stage);
    let before = Before::look(&stage);
    // No processes, no memory, no descriptors: each is met somewhere on the way.
    for limit in ["--nproc=1", "--nproc=3", "--as=16000000", "--nofile=5", "--nofile=12", "--stack=4096"] {
        let run = caged(&stage, WORKSPACE, &[], &["true"]).under("prlimit", &[limit, "--"]);
        let ended = run.finish(60).unwrap();
        assert!(ended.code == Some(0) || !ended.stderr.is_empty() || ended.signal.is_some(), "{limit}: {ended}");
        before.again(&stage);
    }
    // No room for the runtime folder's files, and none for the record: nothing is allowed that is not written down.
    caged(&stage, WORKSPACE, &[], &["true"]).finish(60).unwrap().well().unwrap();
    before.again(&stage);
    creel.verified().unwrap();
}

#[test]
fn many_at_once_begin_and_end() {
    let Some(stage) = Stage::open() else { return };
    let creel = set(&stage);
    let before = Before::look(&stage);
    let number = if all() { 200 } else { 12 };
    let script = "echo inside; while [ ! -e go ]; do sleep 1; done";
    let mut runs: Vec<Running> =
        (0..number).map(|_| caged(&stage, WORKSPACE, &[], &["sh", "-c", script]).start().unwrap()).collect();
    for run in &mut runs {
        run.says("inside", Deadline::seconds(300)).unwrap();
    }
    sh(&stage, Account::USER, "touch project/go");
    for run in runs {
        run.finish(Deadline::seconds(300)).unwrap().well().unwrap();
    }
    sh(&stage, Account::USER, "rm project/go");
    before.again(&stage);
    creel.verified().unwrap();
}
