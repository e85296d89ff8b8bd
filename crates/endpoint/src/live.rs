//! What happens, handed to everyone who watches: bounded queues, a slow watcher loses events and is told how many.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use creel_guard::Alert;
use creel_wire::control::Purpose;

/// Events that one watcher may be behind; older ones are dropped and counted.
pub const BEHIND_MAX: usize = 512;
/// Watchers at a time; one more is refused.
pub const WATCHERS_MAX: usize = 32;

/// Something that a watcher may want to show.
#[derive(Clone, Debug, PartialEq)]
pub enum LiveEvent {
    /// A record was appended.
    Record {
        /// Its place.
        sequence: u64,
    },
    /// A question opened or changed.
    Question {
        /// Its id.
        id: String,
    },
    /// A person should look.
    Alert(Alert),
    /// A code to be typed elsewhere.
    Confirmation {
        /// What it is for.
        purpose: Purpose,
        /// The code.
        code: String,
        /// Until when it works.
        expires_unix_ns: i64,
        /// Account that may see it.
        uid: u32,
    },
    /// Something else changed.
    State,
    /// The daemon stops.
    Stopping,
}

/// Hands every event to every watcher.
#[derive(Default)]
pub struct Broadcast {
    watchers: Mutex<Vec<Weak<Queue>>>,
}

#[derive(Default)]
struct Queue {
    events: Mutex<(VecDeque<LiveEvent>, u64)>,
    more: Condvar,
    /// Account of the watcher, and whether it may see confirmation codes.
    screen_of: Option<u32>,
}

/// One watcher's end.
pub struct Watcher {
    queue: Arc<Queue>,
}

impl Broadcast {
    /// A new watcher; `screen_of` is its account when it passed the presence test. `None`: too many watch already.
    pub fn watch(&self, screen_of: Option<u32>) -> Option<Watcher> {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|watcher| watcher.strong_count() > 0);
        if watchers.len() >= WATCHERS_MAX {
            return None;
        }
        let queue = Arc::new(Queue { screen_of, ..Queue::default() });
        watchers.push(Arc::downgrade(&queue));
        Some(Watcher { queue })
    }

    /// Hands an event on; returns how many watchers got it.
    pub fn send(&self, event: LiveEvent) -> u32 {
        let watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reached = 0;
        for queue in watchers.iter().filter_map(Weak::upgrade) {
            if let LiveEvent::Confirmation { uid, .. } = &event
                && queue.screen_of != Some(*uid)
                && queue.screen_of != Some(0)
            {
                continue;
            }
            let mut events = queue.events.lock().unwrap_or_else(PoisonError::into_inner);
            if events.0.len() >= BEHIND_MAX {
                events.0.pop_front();
                events.1 += 1;
            }
            events.0.push_back(event.clone());
            queue.more.notify_one();
            reached += 1;
        }
        reached
    }
}

impl Watcher {
    /// Waits for events, at most so long; returns them and how many were lost before them.
    #[must_use]
    pub fn wait(&self, at_most: Duration) -> (Vec<LiveEvent>, u64) {
        let events = self.queue.events.lock().unwrap_or_else(PoisonError::into_inner);
        let mut events = if events.0.is_empty() {
            self.queue.more.wait_timeout(events, at_most).unwrap_or_else(PoisonError::into_inner).0
        } else {
            events
        };
        let lost = std::mem::take(&mut events.1);
        (events.0.drain(..).collect(), lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_watcher_loses_the_oldest_and_is_told() {
        let broadcast = Broadcast::default();
        let watcher = broadcast.watch(None).expect("room");
        for sequence in 0..(BEHIND_MAX as u64 + 3) {
            broadcast.send(LiveEvent::Record { sequence });
        }
        let (events, lost) = watcher.wait(Duration::ZERO);
        assert_eq!(lost, 3);
        assert_eq!(events.first(), Some(&LiveEvent::Record { sequence: 3 }));
    }

    #[test]
    fn a_code_reaches_only_screens_of_its_account() {
        let broadcast = Broadcast::default();
        let own = broadcast.watch(Some(1000)).expect("room");
        let other = broadcast.watch(Some(1001)).expect("room");
        let plain = broadcast.watch(None).expect("room");
        let code = LiveEvent::Confirmation {
            purpose: Purpose::BreakGlass,
            code: "1234".to_owned(),
            expires_unix_ns: 0,
            uid: 1000,
        };
        assert_eq!(broadcast.send(code), 1);
        assert_eq!(own.wait(Duration::ZERO).0.len(), 1);
        assert_eq!(other.wait(Duration::ZERO).0.len(), 0);
        assert_eq!(plain.wait(Duration::ZERO).0.len(), 0);
    }

    #[test]
    fn watchers_are_bounded_and_forgotten_when_gone() {
        let broadcast = Broadcast::default();
        let all: Vec<_> = (0..WATCHERS_MAX).map(|_| broadcast.watch(None).expect("room")).collect();
        assert!(broadcast.watch(None).is_none());
        drop(all);
        assert!(broadcast.watch(None).is_some());
    }
}
