//! What the broker noticed, as messages to the supervisor.
//!
//! The one fact a newcomer gets wrong: a cage never waits for who reads its events. What does not fit the socket is kept,
//! and beyond the bound only counted.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use creel_model::cage::{CageEvent, CageEventKind};
use rustix::net::SendFlags;

/// Events that wait at most.
const MOST_WAITING: usize = 1024;
/// Longest text in an event, in bytes.
const LONGEST_TEXT: usize = 4096;

/// The way to the supervisor.
#[derive(Debug)]
pub(super) struct Events {
    socket: OwnedFd,
    waiting: VecDeque<CageEvent>,
    lost: u64,
}

impl Events {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, waiting: VecDeque::new(), lost: 0 }
    }

    /// Whether [`Events::flush`] has something to do.
    pub(super) fn wait(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends an event, or keeps it.
    pub(super) fn push(&mut self, event: CageEvent) {
        if let Some(last) = self.waiting.back_mut()
            && last.kind == event.kind
            && last.pid == event.pid
            && last.call == event.call
            && last.object == event.object
        {
            last.times = last.times.saturating_add(event.times);
            return;
        }
        if self.waiting.len() >= MOST_WAITING {
            self.lost = self.lost.saturating_add(event.times);
            return;
        }
        self.waiting.push_back(event);
        self.flush();
    }

    /// Sends what waits, as far as the socket takes it.
    pub(super) fn flush(&mut self) {
        while let Some(event) = self.waiting.front() {
            if let Ok(text) = serde_json::to_vec(event)
                && let Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS) =
                    rustix::net::send(&self.socket, &text, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
            {
                return;
            }
            self.waiting.pop_front();
            if self.lost > 0 {
                let mut lost = event_of(CageEventKind::Fault);
                lost.reason = "events came faster than they were taken and were not kept".to_owned();
                lost.times = std::mem::take(&mut self.lost);
                self.waiting.push_back(lost);
            }
        }
    }
}

/// An event of now, to be filled in.
pub(super) fn event_of(kind: CageEventKind) -> CageEvent {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    CageEvent {
        kind,
        at_unix_ns: i64::try_from(at.as_nanos()).unwrap_or(i64::MAX),
        pid: 0,
        program: String::new(),
        call: String::new(),
        object: String::new(),
        rule: String::new(),
        reason: String::new(),
        fix: String::new(),
        times: 1,
        before: None,
        after: None,
    }
}

/// Bytes as a bounded text.
pub(super) fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..bytes.len().min(LONGEST_TEXT)).unwrap_or_default()).into_owned()
}
