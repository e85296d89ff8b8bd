//! How long a decision may take (DESIGN §8): first on the fast path in processor time, then once more in a slow lane
//! until the hook's own deadline comes near, then `overload`.
//!
//! Processor time, because a busy machine must not turn a good decision into a deny on the first try.

use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use creel_guard::Budget;

use crate::clock;
use crate::connections::{Places, Taken};

/// How many times the goal of a payload's size the fast path may use.
const FAST_FACTOR: u64 = 4;
/// The slow lane's queue: of one run, and in all.
const SLOW_PER_RUN: usize = 16;
const SLOW_ALL: usize = 64;

/// The goal (p99) of DESIGN §8 for a payload of so many bytes, in nanoseconds.
#[must_use]
pub const fn goal_ns(payload_bytes: u64) -> u64 {
    if payload_bytes <= 4 * 1024 {
        1_000_000
    } else if payload_bytes <= 64 * 1024 {
        5_000_000
    } else if payload_bytes <= 1024 * 1024 {
        50_000_000
    } else {
        // Beyond the stated sizes the same rate goes on: 50 ms per MiB.
        payload_bytes.div_ceil(1024 * 1024) * 50_000_000
    }
}

/// Processor time of this thread, from now.
pub struct Fast {
    until_cpu_ns: u64,
    spent: Cell<bool>,
}

impl Fast {
    /// For a payload of so many bytes.
    #[must_use]
    pub fn for_payload(bytes: u64) -> Self {
        let until_cpu_ns = clock::thread_cpu_ns().saturating_add(goal_ns(bytes) * FAST_FACTOR);
        Self { until_cpu_ns, spent: Cell::new(false) }
    }
}

impl Budget for Fast {
    fn spent(&self) -> bool {
        if !self.spent.get() && clock::thread_cpu_ns() > self.until_cpu_ns {
            self.spent.set(true);
        }
        self.spent.get()
    }
}

/// Until a moment on the boot clock.
pub struct Until {
    /// Nanoseconds since boot.
    pub boot_ns: u64,
}

impl Budget for Until {
    fn spent(&self) -> bool {
        clock::now().boot_ns >= self.boot_ns
    }
}

/// One at a time, few waiting: work that was too long for the fast path.
pub struct SlowLane {
    lane: Mutex<()>,
    queue: Arc<Places<creel_guard::RunKey>>,
}

/// A turn in the slow lane.
pub struct Turn<'a> {
    _lane: MutexGuard<'a, ()>,
    _place: Taken<creel_guard::RunKey>,
}

impl Default for SlowLane {
    fn default() -> Self {
        Self { lane: Mutex::new(()), queue: Places::new(SLOW_PER_RUN, SLOW_ALL) }
    }
}

impl SlowLane {
    /// Waits for a turn; `None`: the queue is full.
    pub fn enter(&self, run: creel_guard::RunKey) -> Option<Turn<'_>> {
        let place = self.queue.take(run)?;
        Some(Turn { _lane: self.lane.lock().unwrap_or_else(PoisonError::into_inner), _place: place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_goal_grows_with_the_payload() {
        assert_eq!(goal_ns(100), 1_000_000);
        assert_eq!(goal_ns(64 * 1024), 5_000_000);
        assert_eq!(goal_ns(1024 * 1024), 50_000_000);
        assert_eq!(goal_ns(8 * 1024 * 1024), 400_000_000);
    }

    #[test]
    fn a_moment_in_the_past_is_spent_and_stays_so() {
        assert!(Until { boot_ns: 0 }.spent());
        assert!(!Until { boot_ns: u64::MAX }.spent());
        let fast = Fast { until_cpu_ns: 0, spent: Cell::new(false) };
        assert!(fast.spent() && fast.spent());
    }
}
