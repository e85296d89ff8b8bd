//! How many calls that belong to no agent are written down singly, per account and minute.
//!
//! Every account of a machine may speak to `hook.sock`, and each refused call is a record and an alert: without a limit
//! any of them could fill the disk, and a full disk denies everybody's agents. Beyond the limit a call is still denied;
//! it is only counted, and the count is written down once. The one fact a newcomer gets wrong: this is never about calls
//! of an agent that is known, each of which has its own record.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Calls written down singly, per account and window.
const SINGLY_MAX: u32 = 60;
/// Length of a window in nanoseconds.
const WINDOW_NS: u64 = 60 * 1_000_000_000;
/// Accounts kept in mind; beyond, all are forgotten, and each begins a window of its own.
const ACCOUNTS_MAX: usize = 1024;

/// Counts refused calls.
#[derive(Debug, Default)]
pub struct Flood {
    windows: Mutex<BTreeMap<u32, Window>>,
}

#[derive(Debug)]
struct Window {
    ends_boot_ns: u64,
    calls: u32,
}

/// What is to be done with one more refused call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// Write it down.
    Singly,
    /// Write down that no more are written down singly until the window ends.
    Stopped,
    /// Only deny it.
    Nothing,
}

impl Flood {
    /// One more call of that account was refused.
    pub fn refused(&self, uid: u32, now_boot_ns: u64) -> Tell {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= ACCOUNTS_MAX && !windows.contains_key(&uid) {
            windows.clear();
        }
        let fresh = || Window { ends_boot_ns: now_boot_ns.saturating_add(WINDOW_NS), calls: 0 };
        let window = windows.entry(uid).or_insert_with(fresh);
        if window.ends_boot_ns <= now_boot_ns {
            *window = fresh();
        }
        window.calls = window.calls.saturating_add(1);
        match window.calls {
            calls if calls <= SINGLY_MAX => Tell::Singly,
            calls if calls == SINGLY_MAX + 1 => Tell::Stopped,
            _ => Tell::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_once_and_concerns_only_its_account() {
        let flood = Flood::default();
        let told: Vec<Tell> = (0..500).map(|_| flood.refused(1000, 7)).collect();
        assert_eq!(told.iter().filter(|tell| **tell == Tell::Singly).count(), 60);
        assert_eq!(told.iter().filter(|tell| **tell == Tell::Stopped).count(), 1);
        assert_eq!(flood.refused(1001, 7), Tell::Singly);
        assert_eq!(flood.refused(1000, 7 + WINDOW_NS), Tell::Singly, "the next minute");
    }

    #[test]
    fn accounts_are_bounded() {
        let flood = Flood::default();
        for uid in 0..5_000 {
            flood.refused(uid, 1);
        }
        assert!(flood.windows.lock().unwrap().len() <= ACCOUNTS_MAX);
    }
}
