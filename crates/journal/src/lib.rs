//! Records to durable sealed segments, and cursors for their readers.
//!
//! One writer per folder appends records; each record is a sealed envelope (a leaf of a Merkle tree) and an erasable
//! detail beside it. A thread of the journal makes appended records durable at most 50 ms later and signs the tree's
//! head; copies of signed heads go to the system's log as anchors. The format is `docs/journal-format.md`.
//!
//! It decides nothing: what a full disk means for an answer is the caller's policy, see [`Space`] and [`AppendError`].
//! The one thing a newcomer gets wrong: `append` has returned means *written*, which survives the end of the process;
//! only [`Journal::sync`] (or a [`Syncer`]) means *durable*, which survives a power cut.
//!
//! Weaknesses: an erasure overwrites in place, which a copy-on-write file system or a flash controller may keep a
//! copy of; segments are never deleted yet; whoever holds the device key can rewrite what no anchor covers.

mod ahead;
pub mod anchor;
#[cfg(test)]
mod crash;
mod envelope;
mod erase;
mod frame;
pub mod keys;
pub mod ocsf;
mod prove;
mod reader;
mod recover;
mod storage;
mod sync;
#[cfg(test)]
mod twin;
mod verify;
mod writer;

pub use anchor::{Anchor, Target};
pub use creel_model::record::{Detail, Envelope, Record};
pub use envelope::{Erasure, Gap, Sealed};
pub use erase::{EraseError, Erased};
pub use prove::{InclusionProof, ProveError, prove};
pub use reader::{ReadError, Reader, Start, Stored};
pub use recover::{OpenError, Recovered, set_aside};
pub use sync::{AnchorState, SyncError, Syncer};
pub use verify::{Verdict, Verification, VerifyError, verify};
pub use writer::{AppendError, Appended, Journal, Options, Space, State};

/// The longest envelope, in bytes; fits a C2SP entry bundle's 16-bit length.
pub const ENVELOPE_BYTES_MAX: usize = 60 * 1024;
/// The longest detail, in bytes.
pub const DETAIL_BYTES_MAX: usize = 1024 * 1024;
/// The longest state snapshot, in bytes.
pub const SNAPSHOT_BYTES_MAX: usize = 2 * 1024 * 1024;
