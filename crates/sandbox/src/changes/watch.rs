//! A run's folder as long as the run lives: takes the snapshot beside it, keeps what it learns, and says at the end what
//! changed.
//!
//! The one fact a newcomer gets wrong: none of this may cost the run anything. The snapshot is taken by a thread of its
//! own with low priority and given up when the run is shorter; what fails here is a gap in the record, never a failed run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use creel_model::cage::{CageEvent, WorkspaceMode};

use super::after::{after, events};
use super::snapshot::Snapshot;
use crate::learn::Recorder;
use crate::review::Folder;

/// Stack of the thread that takes the snapshot: a walk of the greatest depth needs far less.
const STACK_BYTES: usize = 512 << 10;
/// How much the thread stands behind the run.
const NICENESS: i32 = 10;

/// The folder of a run that goes on.
#[derive(Debug)]
pub struct Watch {
    run: Arc<Folder>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    recorder: Option<Recorder>,
}

/// What is left of a run.
#[derive(Debug)]
pub struct Finished {
    /// What changed, for the record.
    pub events: Vec<CageEvent>,
    /// The run's folder stays: it holds a layer to review, or what was learned.
    pub kept: bool,
    /// Events of learning that were not kept.
    pub lost: u64,
}

impl Watch {
    /// Begins to take the snapshot; to be called when the command was let go, in a process that makes no children any
    /// more that are to outlive its threads.
    #[must_use]
    pub fn start(run: Folder, learn: bool) -> Self {
        let recorder = learn.then(|| Recorder::new(&run).ok()).flatten();
        let run = Arc::new(run);
        let stop = Arc::new(AtomicBool::new(false));
        let (its_run, its_stop) = (Arc::clone(&run), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("snapshot".to_owned()).stack_size(STACK_BYTES).spawn(move || {
            // Of this thread only.
            let _ = rustix::process::setpriority_process(None, NICENESS);
            let digests = its_run.facts().mode == WorkspaceMode::Direct;
            let _ = Snapshot::take_until(&its_run, digests, &its_stop);
        });
        // Without a thread there is no snapshot, which the list of changes says.
        Self { run, stop, thread: thread.ok(), recorder }
    }

    /// Takes an event of the run in, for learning; does nothing otherwise.
    pub fn note(&mut self, event: &CageEvent) {
        if let Some(recorder) = &mut self.recorder {
            recorder.note(event);
        }
    }

    /// To be called when every process of the run has ended. Removes the run's folder when nothing in it is worth
    /// keeping.
    #[must_use]
    pub fn finish(mut self, now_unix_ns: i64) -> Finished {
        self.end_thread();
        let Self { run, recorder, .. } = self;
        let changes = after(&run);
        let events = events(&run, &changes, now_unix_ns);
        let lost = recorder.as_ref().map_or(0, Recorder::lost);
        let unseen = changes.changed.is_empty() && changes.gaps.is_empty();
        let kept = recorder.is_some() || (run.facts().mode == WorkspaceMode::Review && !unseen);
        if !kept && let Some(run) = Arc::into_inner(run) {
            let _ = run.remove();
        }
        Finished { events, kept, lost }
    }

    fn end_thread(&mut self) {
        // A short run in review still needs the whole of it: without, every file that the host changed in the last
        // moments would count as changed underneath.
        self.stop.store(self.run.facts().mode == WorkspaceMode::Direct, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::review::test::{move_file_clock, plan};

    fn begun(dir: &std::path::Path, learn: bool) -> Watch {
        let work = dir.join("work");
        std::fs::create_dir_all(&work).unwrap();
        std::fs::write(work.join("old"), "old").unwrap();
        move_file_clock(dir);
        let run = Folder::create(&dir.join("state"), &plan("r-1", &work, WorkspaceMode::Direct)).unwrap();
        Watch::start(run, learn)
    }

    #[test]
    fn a_short_run_is_answered_by_change_times_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let watch = begun(dir.path(), false);
        std::fs::write(dir.path().join("work/old"), "new").unwrap();
        let finished = watch.finish(7);
        assert!(!finished.kept);
        let changed: Vec<&CageEvent> = finished.events.iter().filter(|event| event.call == "changed").collect();
        assert!(matches!(changed.as_slice(), [event] if event.object.ends_with("/work/old") && event.after.is_some()));
        assert_eq!(std::fs::read_dir(dir.path().join("state/runs")).unwrap().count(), 0);
    }

    #[test]
    fn a_learning_run_keeps_what_it_needed() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = begun(dir.path(), true);
        let mut event = CageEvent::new(creel_model::cage::CageEventKind::Needed, 0, "/etc/hosts");
        event.call = "read".to_owned();
        watch.note(&event);
        assert!(watch.finish(7).kept);
        let run = Folder::open(&dir.path().join("state"), "r-1").unwrap();
        assert_eq!(crate::learn::Needs::of(&run).unwrap().unwrap().files.len(), 1);
    }
}
