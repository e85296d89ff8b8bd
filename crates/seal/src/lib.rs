//! Bytes to tamper-evident bytes: digests, signed checkpoints, RFC 6962 Merkle trees, C2SP tiles and proofs.
//!
//! Pure computation: no file, clock or randomness; seeds and salts come in as arguments. It knows nothing about
//! records. The one thing a newcomer gets wrong: a Merkle root protects nothing by itself, only a root that was signed
//! *and* kept where its writer cannot replace it (an anchor) does.

mod digest;
mod note;
mod proof;
pub mod tile;
mod tree;

pub use digest::{ContentKey, detail_digest, hmac_sha256, sha256};
pub use note::{Checkpoint, CheckpointError, DeviceKey, KeyError, NoteError, VerifierKey};
pub use proof::{Nodes, ProofError, check_consistency, check_inclusion, consistency_proof, inclusion_proof};
pub use tree::{FullTile, Range, Tree, empty_root, leaf_hash, node_hash};

/// A SHA-256 value.
pub type Hash = [u8; 32];
