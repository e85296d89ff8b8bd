//! A run's folder as long as the run lives: takes the snapshot beside it, keeps what it learns, and says at the end what
//! changed.
//!
//! The one fact a newcomer gets wrong: none of this may cost the run anything. A run on the workspace itself that is over
//! in a moment has no folder at all; a longer one gets it, and the snapshot, from a thread with low priority. What fails
//! here is a gap in the record, never a failed run.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use creel_model::cage::{CageEvent, CagePlan, WorkspaceMode};

use super::after::Ground;
use super::snapshot::Snapshot;
use crate::learn::Recorder;
use crate::review::{self, Folder, FolderError, Layer, LayerError, fd};

/// How long a run on the workspace itself goes on before it gets a folder and a snapshot.
const MOMENT: Duration = Duration::from_millis(20);
/// Stack of the thread that takes the snapshot: a walk of the greatest depth needs far less.
const STACK_BYTES: usize = 512 << 10;
/// How much the thread stands behind the run.
const NICENESS: i32 = 10;

/// What is kept of a run while it goes on. Dropped before [`Watch::begin`], it leaves nothing behind.
#[derive(Debug)]
pub struct Watch {
    state: PathBuf,
    plan: CagePlan,
    began_unix_ns: i64,
    workspace: OwnedFd,
    /// At once in review and learning.
    run: Option<Folder>,
    layer: Option<Layer>,
    beside: Option<Beside>,
    recorder: Option<Recorder>,
    begun: bool,
}

#[derive(Debug)]
struct Beside {
    end: Sender<()>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Option<Folder>>,
}

/// What is left of a run.
#[derive(Debug)]
pub struct Finished {
    /// What changed, for the record.
    pub events: Vec<CageEvent>,
    /// There is something to look at: in review, what was written; in learning, what was needed.
    pub kept: bool,
    /// Events of learning that were not kept.
    pub lost: u64,
}

impl Watch {
    /// For a run that is about to be built: in review, with its layer.
    ///
    /// `state` is creel's state folder of the account.
    ///
    /// # Errors
    /// When the workspace cannot be opened; in review and learning also when the run's folder or layer cannot be made,
    /// with the reason.
    pub fn new(state: &Path, plan: &CagePlan) -> Result<Self, LayerError> {
        let path = Path::new(&plan.workspace);
        let workspace = fd::folder(path).map_err(|error| FolderError::system("open", path, error))?;
        let mut watch = Self {
            state: state.to_owned(),
            plan: plan.clone(),
            began_unix_ns: coarse_clock(),
            workspace,
            run: None,
            layer: None,
            beside: None,
            recorder: None,
            begun: false,
        };
        if plan.mode == WorkspaceMode::Review || plan.learn {
            let run = watch.run.insert(Folder::create(state, plan)?);
            watch.began_unix_ns = run.facts().began_unix_ns;
            if plan.mode == WorkspaceMode::Review {
                watch.layer = Some(Layer::prepare(run)?);
            }
        }
        if let Some(run) = watch.run.as_ref().filter(|_| plan.learn) {
            watch.recorder = Some(Recorder::new(run)?);
        }
        Ok(watch)
    }

    /// What the cage is to mount on the workspace's place; `None` unless in review.
    #[must_use]
    pub fn layer(&self) -> Option<Layer> {
        self.layer.clone()
    }

    /// The command was let go. To be called in a process that makes no children any more.
    pub fn begin(&mut self) {
        self.begun = true;
        let (end, ended) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let its_stop = Arc::clone(&stop);
        let (run, state, plan, began) = (self.run.take(), self.state.clone(), self.plan.clone(), self.began_unix_ns);
        let thread = std::thread::Builder::new().name("snapshot".to_owned()).stack_size(STACK_BYTES).spawn(move || {
            if run.is_none() && ended.recv_timeout(MOMENT) != Err(RecvTimeoutError::Timeout) {
                return None;
            }
            // Of this thread only.
            let _ = rustix::process::setpriority_process(None, NICENESS);
            let run = run.or_else(|| Folder::create_began(&state, &plan, Some(began)).ok())?;
            // What a layer covers can still be hashed at the end.
            let digests = plan.mode == WorkspaceMode::Direct;
            let _ = Snapshot::take_until(&run, digests, &its_stop);
            Some(run)
        });
        // Without a thread there is no snapshot, which the list of changes says. The folder of a reviewed run is closed
        // then, but stays.
        self.beside = thread.ok().map(|thread| Beside { end, stop, thread });
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
        if let Some(beside) = self.beside.take() {
            // In review the whole snapshot is wanted, however short the run: what is not in it and was changed by the
            // host a moment ago would count as changed underneath.
            beside.stop.store(self.plan.mode == WorkspaceMode::Direct, Ordering::Relaxed);
            let _ = beside.end.send(());
            self.run = beside.thread.join().ok().flatten();
        }
        let (path, began_unix_ns) = (self.plan.workspace.as_str(), self.began_unix_ns);
        let (workspace, state, run) = (self.workspace.as_fd(), self.state.as_path(), self.run.as_ref());
        let ground = Ground { workspace, path, began_unix_ns, state, run };
        let changes = ground.after();
        let events = ground.events(&changes, now_unix_ns);
        let lost = self.recorder.as_ref().map_or(0, Recorder::lost);
        let seen = !changes.changed.is_empty() || !changes.gaps.is_empty();
        let kept = self.recorder.is_some() || (self.plan.mode == WorkspaceMode::Review && seen);
        if let Some(run) = self.run.take().filter(|_| !kept) {
            let _ = run.remove();
        }
        sweep(&self.state);
        Finished { events, kept, lost }
    }
}

/// Removes what killed supervisors left of runs whose writes were on the disk at once: nothing asks for it any more. What
/// a run learned, or wrote into a layer, stays until somebody looks at it.
fn sweep(state: &Path) {
    for facts in review::runs(state).unwrap_or_default() {
        if facts.mode == WorkspaceMode::Direct
            // Locked by its supervisor while that lives.
            && let Ok(run) = Folder::open(state, facts.run.as_str())
            && !run.path().join("needed").exists()
        {
            let _ = run.remove();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.begun
            && let Some(run) = self.run.take()
        {
            let _ = run.remove();
        }
    }
}

/// The clock that stamps files, as far as it has come: no file that is changed from now on gets an earlier time.
fn coarse_clock() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::review::test::{Trial, as_account, move_file_clock, plan};

    fn watch(dir: &Path, learn: bool) -> Watch {
        let work = dir.join("work");
        std::fs::create_dir_all(&work).unwrap();
        std::fs::write(work.join("old"), "old").unwrap();
        move_file_clock(dir);
        let mut plan = plan("r-1", &work, WorkspaceMode::Direct);
        plan.learn = learn;
        Watch::new(&dir.join("state"), &plan).unwrap()
    }

    fn runs(dir: &Path) -> usize {
        std::fs::read_dir(dir.join("state/runs")).map_or(0, Iterator::count)
    }

    #[test]
    fn a_run_is_answered_for_however_short_it_is_and_leaves_nothing() {
        for long in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let mut watch = watch(dir.path(), false);
            watch.begin();
            if long {
                while runs(dir.path()) == 0 {
                    std::thread::yield_now();
                }
            }
            std::fs::write(dir.path().join("work/old"), "new").unwrap();
            let finished = watch.finish(7);
            assert!(!finished.kept);
            let changed: Vec<&CageEvent> = finished.events.iter().filter(|event| event.call == "changed").collect();
            let right = |event: &&CageEvent| event.object.ends_with("/work/old") && event.after.is_some();
            assert!(matches!(changed.as_slice(), [event] if right(event)), "{:?}", finished.events);
            assert_eq!(runs(dir.path()), 0);
        }
    }

    #[test]
    fn a_run_that_never_began_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let watch = watch(dir.path(), true);
        assert_eq!(runs(dir.path()), 1);
        drop(watch);
        assert_eq!(runs(dir.path()), 0);
    }

    #[test]
    fn a_learning_run_keeps_what_it_needed() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = watch(dir.path(), true);
        watch.begin();
        let mut event = CageEvent::new(creel_model::cage::CageEventKind::Needed, 0, "/etc/hosts");
        event.call = "read".to_owned();
        watch.note(&event);
        assert!(watch.finish(7).kept);
        let run = Folder::open(&dir.path().join("state"), "r-1").unwrap();
        assert_eq!(crate::learn::Needs::of(&run).unwrap().unwrap().files.len(), 1);
    }

    #[test]
    fn a_reviewed_run_is_kept_while_there_is_something_to_look_at() {
        if !as_account("changes::watch::tests::a_reviewed_run_is_kept_while_there_is_something_to_look_at") {
            return;
        }
        for (script, events) in [("true", 0), ("echo new > new", 1)] {
            let trial = Trial::new("echo old > old", script);
            let said = std::fs::read_to_string(trial.state.join("said")).unwrap();
            assert_eq!(said, format!("{events} {}", events > 0));
            assert_eq!(trial.state.join("runs/r-1").exists(), events > 0);
        }
    }
}
