//! What the supervisor tells the daemon while a run goes on: a queue, a thread, and short connections.
//!
//! The command never waits for the daemon: what does not fit into the queue is counted. The one thing a newcomer gets
//! wrong: a daemon that was restarted does not know the run; the signed statement of the start brings it back.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use creel_model::RunId;
use creel_model::cage::{CageEvent, CageEventKind};
use creel_wire::control::{EVENTS_MAX, RefusalCode, Request, RunEnd, RunEvents, RunResume};

use crate::connection::Daemon;
use crate::failure::Failure;

/// Events that wait for the daemon; more are counted as lost.
const QUEUE: usize = 4096;
/// Events are collected for so long, so that a busy run asks little.
const COLLECT: Duration = Duration::from_millis(100);
/// How often a run without events looks whether the daemon is still the same.
const LOOK: Duration = Duration::from_secs(2);
/// Pause before a daemon that did not answer is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the end of a run waits for the daemon.
const LAST: Duration = Duration::from_secs(5);

enum Word {
    Event(Box<CageEvent>),
    Lost(u64),
    End(RunEnd),
}

/// The near end.
pub(super) struct Reporter {
    queue: SyncSender<Word>,
    thread: Option<JoinHandle<()>>,
    lost: u64,
    refusals: u64,
}

impl Reporter {
    /// Starts the thread. `note` is the run's signed statement, `socket` its hook socket
    /// on the host.
    pub(super) fn begin(runtime: Option<&Path>, run: RunId, note: String, socket: PathBuf) -> Self {
        let (queue, words) = sync_channel(QUEUE);
        let far = Far {
            runtime: runtime.map(Path::to_owned),
            run,
            note,
            words,
            waiting: Vec::new(),
            lost: 0,
            unknown: false,
            socket_now: identity(&socket),
            socket,
        };
        let thread = std::thread::Builder::new().stack_size(128 * 1024).spawn(move || far.run()).ok();
        Self { queue, thread, lost: 0, refusals: 0 }
    }

    /// Tells of an event; never waits.
    pub(super) fn event(&mut self, event: CageEvent) {
        if event.kind == CageEventKind::Refused {
            self.refusals = self.refusals.saturating_add(event.times.max(1));
        }
        if self.lost > 0 && self.queue.try_send(Word::Lost(self.lost)).is_ok() {
            self.lost = 0;
        }
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.try_send(Word::Event(Box::new(event)))
        {
            self.lost = self.lost.saturating_add(1);
        }
    }

    /// Refusals so far.
    pub(super) fn refusals(&self) -> u64 {
        self.refusals
    }

    /// Tells of the end, and waits a few seconds at most until the daemon knows.
    pub(super) fn end(mut self, end: RunEnd) {
        let _ = self.queue.try_send(Word::Lost(self.lost));
        let sent = self.queue.send(Word::End(end)).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| sent) {
            let _ = thread.join();
        }
    }
}

/// The far end, in its thread.
struct Far {
    runtime: Option<PathBuf>,
    run: RunId,
    note: String,
    words: Receiver<Word>,
    waiting: Vec<CageEvent>,
    lost: u64,
    /// The daemon may be another one than that which knew the run.
    unknown: bool,
    /// The run's hook socket on the host, and what it was when last looked at.
    socket: PathBuf,
    socket_now: Option<(u64, u64)>,
}

/// Device and inode.
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::symlink_metadata(path).ok().map(|facts| (facts.dev(), facts.ino()))
}

impl Far {
    fn run(mut self) {
        loop {
            let word = match self.words.recv_timeout(LOOK) {
                Ok(word) => word,
                Err(RecvTimeoutError::Timeout) => {
                    self.look();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut end = self.take(word);
            let until = Instant::now() + COLLECT;
            while end.is_none() && self.waiting.len() < EVENTS_MAX {
                match self.words.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(word) => end = self.take(word),
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            let last = end.as_ref().map(|_| Instant::now() + LAST);
            while self.tell(end.as_ref()).is_err() {
                self.unknown = true;
                if last.is_some_and(|last| Instant::now() >= last) {
                    return;
                }
                if last.is_none() && self.waiting.len() >= QUEUE {
                    let more = self.waiting.len() - QUEUE / 2;
                    self.lost = self.lost.saturating_add(more as u64);
                    self.waiting.drain(..more);
                }
                std::thread::sleep(AGAIN.min(LAST / 20));
            }
            if end.is_some() {
                return;
            }
        }
    }

    /// A daemon that was restarted makes the run's socket anew once it is told of the run; without it the hooks inside
    /// would be denied until the next event.
    fn look(&mut self) {
        if self.socket_now.is_some() && identity(&self.socket) == self.socket_now {
            return;
        }
        let resume = Request::RunResume(RunResume { note: self.note.clone() });
        let told = Daemon::open(self.runtime.as_deref()).and_then(|mut daemon| daemon.attempt(&resume));
        if told.is_ok() {
            self.unknown = false;
            self.socket_now = identity(&self.socket);
        }
    }

    fn take(&mut self, word: Word) -> Option<RunEnd> {
        match word {
            Word::Event(event) => self.waiting.push(*event),
            Word::Lost(lost) => self.lost = self.lost.saturating_add(lost),
            Word::End(end) => return Some(end),
        }
        None
    }

    fn tell(&mut self, end: Option<&RunEnd>) -> Result<(), Failure> {
        if self.waiting.is_empty() && self.lost == 0 && end.is_none() {
            return Ok(());
        }
        let mut daemon = Daemon::open(self.runtime.as_deref())?;
        if self.unknown {
            // An answer of whatever kind means that it knows the run now, or never will.
            let _ = daemon.attempt(&Request::RunResume(RunResume { note: self.note.clone() }))?;
            self.unknown = false;
        }
        let mut resumed = false;
        while !self.waiting.is_empty() || self.lost > 0 {
            let count = self.waiting.len().min(EVENTS_MAX);
            let events = self.waiting.iter().take(count).cloned().collect();
            let request = Request::RunEvents(RunEvents { run: self.run.clone(), events, lost: self.lost });
            let answer = daemon.attempt(&request)?;
            if answer.is_err_and(|refusal| refusal.code == RefusalCode::NotFound) && !resumed {
                // Another daemon than the one that knew the run; it was not needed in between.
                resumed = true;
                let _ = daemon.attempt(&Request::RunResume(RunResume { note: self.note.clone() }))?;
                continue;
            }
            // What it refuses otherwise will not be taken a second time either.
            self.waiting.drain(..count);
            self.lost = 0;
        }
        if let Some(end) = end {
            let _ = daemon.attempt(&Request::RunEnd(end.clone()))?;
        }
        Ok(())
    }
}
