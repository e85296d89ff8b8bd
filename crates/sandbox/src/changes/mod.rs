//! A workspace before and after a run → which files changed, with digests, for the record.
//!
//! At the start a walk notes what stands where ([`Snapshot`]), beside the run and never before it; at the end another
//! walk compares ([`after`]). The change times of files, which only the kernel's clock sets, answer for what the first
//! walk had not reached. The one fact a newcomer gets wrong: without a layer this says *that* a file changed while the run
//! went on, not *who* changed it; an editor beside the run is in the list too.

mod after;
mod snapshot;
mod watch;

pub use after::{CHANGES_MAX, Changed, Changes, Clue, after, events};
pub use snapshot::{Snapshot, SnapshotError, Taken};
pub(crate) use snapshot::{entries, note_restored, restored};
pub use watch::{Finished, Watch};
