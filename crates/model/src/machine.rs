//! Accounts, processes and time, as facts handed in from outside.

use serde::{Deserialize, Serialize};

use crate::word::words;

/// A user account of this machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Account {
    /// Numeric id.
    pub uid: u32,
    /// Login name; the number as text where there is none.
    pub name: String,
    /// Home folder, absolute.
    pub home: String,
}

/// A process for as long as the machine runs: a pid alone is reused, with its start time it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessKey {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot (`/proc/PID/stat` field 22).
    pub start_ticks: u64,
}

/// A point in time: wall clock for people, boot clock for order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Moment {
    /// Nanoseconds since 1970-01-01 UTC by the wall clock, which can jump.
    pub unix_ns: i64,
    /// Nanoseconds since boot (`CLOCK_BOOTTIME`), which cannot.
    pub boot_ns: u64,
}

words! {
    /// How creel runs on this machine (DESIGN §14).
    pub enum Mode {
        /// Under the same account as the agent: stops accidents, not a hostile process of that account.
        User = "user",
        /// Under its own account with a root role: the enforced one.
        System = "system",
    }
}

words! {
    /// How an agent approves its own actions, graded from the strictest to the most open.
    pub enum ApprovalMode {
        /// It changes nothing.
        ReadOnly = "read-only",
        /// It asks for everything that changes something.
        Ask = "ask",
        /// It edits files alone and asks for commands.
        Edits = "edits",
        /// It decides alone, inside its own sandbox or by its own classifier.
        Auto = "auto",
        /// It asks for nothing.
        Bypass = "bypass",
        /// Not known.
        Unknown = "unknown",
    }
}
