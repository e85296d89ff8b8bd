//! How long a decision may take (DESIGN §8): first on the fast path in processor time, then once more in a slow lane
//! until the hook's own deadline comes near, then `overload`.
//!
//! Processor time, because a busy machine must not turn a good decision into a deny on the first try.

use std::cell::Cell;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

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

/// One at a time, few waiting: work that was too long for the fast path. Nobody waits longer than its own hook, so that
/// work which would never end costs one call and not the lane.
pub struct SlowLane {
    busy: Mutex<bool>,
    free: Condvar,
    queue: Arc<Places<creel_guard::RunKey>>,
}

/// A turn in the slow lane.
pub struct Turn<'a> {
    lane: &'a SlowLane,
    _place: Taken<creel_guard::RunKey>,
}

impl Default for SlowLane {
    fn default() -> Self {
        Self { busy: Mutex::new(false), free: Condvar::new(), queue: Places::new(SLOW_PER_RUN, SLOW_ALL) }
    }
}

impl SlowLane {
    /// Waits for a turn until a moment; `None`: the queue is full, or no turn came.
    pub fn enter(&self, run: creel_guard::RunKey, until: &Until) -> Option<Turn<'_>> {
        let place = self.queue.take(run)?;
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        while *busy {
            let left = until.boot_ns.checked_sub(clock::now().boot_ns).filter(|left| *left > 0)?;
            (busy, _) =
                self.free.wait_timeout(busy, Duration::from_nanos(left)).unwrap_or_else(PoisonError::into_inner);
        }
        *busy = true;
        Some(Turn { lane: self, _place: place })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.lane.busy.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.lane.free.notify_one();
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
    fn a_turn_that_never_ends_holds_nobody_for_ever() {
        let lane = SlowLane::default();
        let run = |pid| creel_guard::RunKey {
            boot_id: String::new(),
            process: creel_model::ProcessKey { pid, start_ticks: 1 },
            cage: None,
        };
        let over = Until { boot_ns: 0 };
        let turn = lane.enter(run(1), &over);
        assert!(turn.is_some(), "a free lane needs no waiting");
        assert!(lane.enter(run(2), &over).is_none());
        drop(turn);
        assert!(lane.enter(run(2), &over).is_some());
    }

    #[test]
    fn a_moment_in_the_past_is_spent_and_stays_so() {
        assert!(Until { boot_ns: 0 }.spent());
        assert!(!Until { boot_ns: u64::MAX }.spent());
        let fast = Fast { until_cpu_ns: 0, spent: Cell::new(false) };
        assert!(fast.spent() && fast.spent());
    }
}
