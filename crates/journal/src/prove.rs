//! Proofs that one record is under a signed head, from tiles alone.
//!
//! Whoever has the public key checks such a proof without the journal.

use std::io;
use std::path::Path;

use creel_seal::{Checkpoint, Hash, Nodes, NoteError, ProofError, VerifierKey, check_inclusion, inclusion_proof};
use creel_seal::{leaf_hash, tile};

use crate::recover::NOTE_BYTES_MAX;
use crate::storage::{Folder, Storage, read_small};
use crate::sync::CHECKPOINT;

/// A record's path to a signed head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionProof {
    /// The record's number.
    pub sequence: u64,
    /// The hashes beside its path, lowest first.
    pub hashes: Vec<Hash>,
    /// The head as a signed note.
    pub checkpoint: String,
}

/// Why there is no proof, or why one was not believed.
#[derive(Debug)]
pub enum ProveError {
    /// The folder has no checkpoint.
    NoCheckpoint,
    /// The checkpoint is not signed by the key.
    Checkpoint(NoteError),
    /// The record is not under the head yet, a tile is missing, or the proof leads elsewhere.
    Proof(ProofError),
    /// The system refused something.
    Io(io::Error),
}

/// Proves that the record with this number is under the newest head in the folder.
pub fn prove(folder: &Path, key: &VerifierKey, sequence: u64) -> Result<InclusionProof, ProveError> {
    prove_in(&Folder::at(folder), key, sequence)
}

pub(crate) fn prove_in(storage: &dyn Storage, key: &VerifierKey, sequence: u64) -> Result<InclusionProof, ProveError> {
    let note = read_small(storage, CHECKPOINT, NOTE_BYTES_MAX).map_err(ProveError::Io)?;
    let note = note.and_then(|note| String::from_utf8(note).ok()).ok_or(ProveError::NoCheckpoint)?;
    let head = Checkpoint::open(&note, key).map_err(ProveError::Checkpoint)?;
    let tiles = Tiles { storage, size: head.size };
    let hashes = inclusion_proof(&tiles, sequence, head.size).map_err(ProveError::Proof)?;
    Ok(InclusionProof { sequence, hashes, checkpoint: note })
}

impl InclusionProof {
    /// Whether these envelope bytes are the record, under a head that `key` signed.
    pub fn check(&self, envelope: &[u8], key: &VerifierKey) -> Result<Checkpoint, ProveError> {
        let head = Checkpoint::open(&self.checkpoint, key).map_err(ProveError::Checkpoint)?;
        check_inclusion(&self.hashes, self.sequence, head.size, &leaf_hash(envelope), &head.root)
            .map_err(ProveError::Proof)?;
        Ok(head)
    }
}

/// The tiles in a folder, as of a head.
struct Tiles<'a> {
    storage: &'a dyn Storage,
    size: u64,
}

impl Nodes for Tiles<'_> {
    fn node(&self, level: u32, index: u64) -> Option<Hash> {
        let place = tile::place(self.size, level, index)?;
        let path = tile::path(place.level, place.number, place.width);
        let bytes = read_small(self.storage, &path, tile::BYTES as u64).ok()?;
        // The partial tile of a head disappears when the next head is published; the full one holds its hashes too.
        let bytes = match bytes {
            Some(bytes) => bytes,
            None => {
                read_small(self.storage, &tile::path(place.level, place.number, None), tile::BYTES as u64).ok()??
            }
        };
        tile::node(&place, &bytes)
    }
}

impl std::fmt::Display for ProveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ProveError::NoCheckpoint => f.write_str("there is no checkpoint in this folder"),
            ProveError::Checkpoint(error) => write!(f, "the checkpoint is not believed: {error}"),
            ProveError::Proof(error) => write!(f, "no proof: {error}"),
            ProveError::Io(error) => write!(f, "cannot read the journal: {error}"),
        }
    }
}

impl std::error::Error for ProveError {}
