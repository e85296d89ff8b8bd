//! Erasing details: a sealed record says what and why, then the bytes are overwritten where they stand.
//!
//! The order makes an interruption harmless: the record is durable first, then each frame is marked, then its salt and
//! detail become zeros. Opening the journal completes what the last segment's erasure records announced. What was
//! sealed stays sealed: the envelope and its digest do not change. An erased byte may survive on a copy-on-write file
//! system, in a snapshot or in a flash controller.

use std::io;

use creel_model::record::{Record, RecordKind};

use crate::envelope::Erasure;
use crate::frame::{ERASED, FLAGS_AT, SALT_AT, Scanner, Step};
use crate::storage::{Storage, segment_path, segments};
use crate::sync::SyncError;
use crate::writer::{AppendError, Journal};

/// Ranges in one erasure record.
const RANGES_MAX: usize = 1000;
/// The longest reason, in bytes.
const REASON_BYTES_MAX: usize = 500;

/// Details were erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erased {
    /// Number of the erasure record.
    pub sequence: u64,
    /// How many details were overwritten now (those erased before are not counted).
    pub details: u64,
}

/// Why details were not erased.
#[derive(Debug)]
pub enum EraseError {
    /// No ranges, more than 1000, one that ends before it begins, or one beyond the last record.
    Ranges,
    /// The reason is empty or longer than 500 bytes.
    Reason,
    /// The erasure record could not be written; nothing was erased.
    Append(AppendError),
    /// The erasure record could not be made durable; nothing was erased.
    Sync(SyncError),
    /// Overwriting failed half-way; asking again, or the next start, completes it.
    Io(io::Error),
}

impl Journal {
    /// Erases the details of the records in `ranges` (first and last number, inclusive). `record` is the erasure record
    /// without those facts; its kind is set here. Waits for the disk.
    pub fn erase(
        &mut self,
        ranges: &[(u64, u64)],
        reason: &str,
        record: &Record,
        snapshot: &mut dyn FnMut() -> Vec<u8>,
    ) -> Result<Erased, EraseError> {
        let inside = |(first, last): &(u64, u64)| first <= last && *last < self.records();
        if ranges.is_empty() || ranges.len() > RANGES_MAX || !ranges.iter().all(inside) {
            return Err(EraseError::Ranges);
        }
        if reason.trim().is_empty() || reason.len() > REASON_BYTES_MAX {
            return Err(EraseError::Reason);
        }
        let erasure = Erasure { ranges: ranges.to_vec(), reason: reason.to_owned() };
        let mut envelope = record.envelope.clone();
        envelope.kind = RecordKind::Erasure;
        let detail = serde_json::to_vec(&record.detail).map_err(|_| EraseError::Append(AppendError::Unwritable))?;
        let sequence = self.put(&envelope, &detail, Some(&erasure), snapshot).map_err(EraseError::Append)?.sequence;
        self.sync().map_err(EraseError::Sync)?;
        let current = segments(self.storage()).map_err(EraseError::Io)?.pop().unwrap_or(0);
        let details = wipe(self.storage(), ranges, sequence, current).map_err(EraseError::Io)?;
        Ok(Erased { sequence, details })
    }
}

/// Overwrites the details in the ranges below `end`, except the state at the beginning of the `current` segment, which
/// the next start needs. Returns how many were not overwritten before.
pub(crate) fn wipe(storage: &dyn Storage, ranges: &[(u64, u64)], end: u64, current: u64) -> io::Result<u64> {
    let hit = |sequence: u64| {
        sequence < end && sequence != current && ranges.iter().any(|(first, last)| (*first..=*last).contains(&sequence))
    };
    let names = segments(storage)?;
    let mut wiped = 0;
    for (place, first) in names.iter().enumerate() {
        let following = names.get(place + 1).copied().unwrap_or(u64::MAX);
        if !ranges.iter().any(|(from, to)| *from < following && first <= to) {
            continue;
        }
        let Some(disk) = storage.open(&segment_path(*first), true)? else { continue };
        let Ok((mut scanner, tree)) = Scanner::open(disk.clone(), *first)? else { continue };
        let mut sequence = tree.size();
        let mut places = Vec::new();
        while let Step::Frame(frame) = scanner.step(sequence)? {
            let zeros = frame.salt.iter().chain(frame.detail).all(|byte| *byte == 0);
            if hit(sequence) && !(frame.erased && zeros) {
                places.push((frame.offset, frame.envelope.len() as u64, frame.detail.len()));
            }
            sequence += 1;
        }
        for (offset, _, _) in &places {
            disk.write_at(&ERASED.to_le_bytes(), offset + FLAGS_AT)?;
        }
        disk.sync()?;
        for (offset, envelope, detail) in &places {
            disk.write_at(&[0; 16], offset + SALT_AT)?;
            disk.write_at(&vec![0; *detail], offset + crate::frame::HEADER as u64 + envelope)?;
        }
        disk.sync()?;
        wiped += places.len() as u64;
    }
    Ok(wiped)
}

impl std::fmt::Display for EraseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EraseError::Ranges => f.write_str("expected 1 to 1000 ranges of existing record numbers"),
            EraseError::Reason => f.write_str("expected a reason of 1 to 500 bytes"),
            EraseError::Append(error) => write!(f, "nothing was erased: {error}"),
            EraseError::Sync(error) => write!(f, "nothing was erased: {error}"),
            EraseError::Io(error) => write!(f, "erasing was interrupted, ask again: {error}"),
        }
    }
}

impl std::error::Error for EraseError {}
