//! What a writer finds when it opens a journal: the last segment is read, its torn tail cut off, its state handed back.
//!
//! A tail is *torn* only above the newest signed head, because a head is signed only over durable records. Anything
//! missing or changed below it is damage: the journal then refuses to go on, and the caller decides (see
//! [`set_aside`]); nothing is repaired silently.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use creel_model::record::RecordKind;
use creel_seal::{Checkpoint, Tree, tile};

use crate::erase;
use crate::frame::{Scanner, Step};
use crate::reader::Stored;
use crate::storage::{Disk, Storage, read_small, segment_path, segments};
use crate::sync::{CHECKPOINT, sign};
use crate::writer::Options;

/// A signed head is never longer, in bytes.
pub(crate) const NOTE_BYTES_MAX: u64 = 64 * 1024;

/// What was found when the journal was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The state at the beginning of the current segment. `None` in a new journal.
    pub snapshot: Option<Vec<u8>>,
    /// The records after that snapshot, in order (at most one segment's).
    pub records_after: Vec<Stored>,
    /// Bytes of an unfinished end that were cut off.
    pub dropped_tail_bytes: u64,
    /// Number of records, which is the next one's number.
    pub records: u64,
}

/// Why a journal could not be opened for writing.
#[derive(Debug)]
pub enum OpenError {
    /// Another writer has it open.
    Locked,
    /// Signed records are missing or changed, or another key signed them.
    Damaged {
        /// Number of the first record that is not as it was signed.
        first_bad: u64,
        /// What is wrong.
        why: String,
    },
    /// The system refused something.
    Io(io::Error),
}

/// What recovery hands to the writer.
pub(crate) struct Restored {
    pub(crate) recovered: Recovered,
    pub(crate) tree: Tree,
    pub(crate) tail: Option<Tail>,
    /// Size of the signed head on disk.
    pub(crate) signed: u64,
    pub(crate) note: String,
}

impl Restored {
    /// Whether the gap record with this number is there.
    pub(crate) const fn has_gap(&self, sequence: u64) -> bool {
        sequence < self.recovered.records
    }
}

/// The end of the current segment.
pub(crate) struct Tail {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Moves a damaged journal aside, untouched, so that a new one can begin; returns where it is. The caller says so in
/// the new journal's first record. The name is the folder's with `.damaged-<n>`, with the first free number.
pub fn set_aside(folder: &Path) -> io::Result<PathBuf> {
    let name = folder.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    for number in 1..10_000_u32 {
        let aside = folder.with_file_name(format!("{name}.damaged-{number}"));
        if !aside.try_exists()? {
            std::fs::rename(folder, &aside)?;
            return Ok(aside);
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many damaged journals were set aside"))
}

/// Reads what is there and makes the last segment ready for appending.
pub(crate) fn recover(storage: &dyn Storage, options: &Options) -> Result<Restored, OpenError> {
    let (head, note) = read_head(storage, options)?;
    let mut names = segments(storage)?;
    let mut dropped = 0;
    while let Some(first) = names.pop() {
        let Some(disk) = storage.open(&segment_path(first), true)? else { continue };
        if let Some((mut restored, end)) = replay(&disk, first, &head)? {
            restored.recovered.dropped_tail_bytes = dropped + wipe(&*disk, end)?;
            if restored.recovered.records < head.size {
                let why = format!("{} signed records are missing or changed", head.size - restored.recovered.records);
                return Err(OpenError::Damaged { first_bad: restored.recovered.records, why });
            }
            restored.tail = Some(Tail { offset: end, length: disk.length()?, disk });
            (restored.signed, restored.note) = (head.size, note);
            finish(storage, &names, first, &restored)?;
            return Ok(restored);
        }
        // A segment whose first record is not whole was begun and never made durable; nothing signed is in it.
        if first < head.size {
            return Err(OpenError::Damaged { first_bad: first, why: "a segment's beginning is damaged".to_owned() });
        }
        dropped += wipe(&*disk, 0)?;
        storage.remove(&segment_path(first))?;
    }
    if head.size > 0 {
        return Err(OpenError::Damaged { first_bad: 0, why: "all segments are missing".to_owned() });
    }
    let recovered = Recovered { dropped_tail_bytes: dropped, ..Recovered::default() };
    Ok(Restored { recovered, tree: Tree::new(), tail: None, signed: 0, note })
}

/// The newest signed head; a new journal gets one over nothing before anything else.
fn read_head(storage: &dyn Storage, options: &Options) -> Result<(Checkpoint, String), OpenError> {
    let damaged = |why: &str| OpenError::Damaged { first_bad: 0, why: why.to_owned() };
    match read_small(storage, CHECKPOINT, NOTE_BYTES_MAX)? {
        Some(bytes) => {
            let note = String::from_utf8(bytes).map_err(|_| damaged("the checkpoint is not text"))?;
            let head = Checkpoint::open(&note, options.key.verifier())
                .map_err(|error| damaged(&format!("the checkpoint is not this device's: {error}")))?;
            Ok((head, note))
        }
        None if segments(storage)?.is_empty() => {
            let note = sign(options, &Tree::new())?;
            storage.replace(CHECKPOINT, note.as_bytes(), true)?;
            let tree = Tree::new();
            Ok((Checkpoint { origin: options.key.name().to_owned(), size: 0, root: tree.root() }, note))
        }
        None => Err(damaged("the checkpoint is missing")),
    }
}

/// Reads a segment to the end of its whole frames. `None`: not even its first is whole.
fn replay(disk: &Arc<dyn Disk>, first: u64, head: &Checkpoint) -> Result<Option<(Restored, u64)>, OpenError> {
    let Ok((mut scanner, mut tree)) = Scanner::open(Arc::clone(disk), first)? else { return Ok(None) };
    let mut recovered = Recovered::default();
    let mut end = scanner.offset();
    loop {
        if tree.size() == head.size && tree.root() != head.root {
            let why = "the records are not those of the signed checkpoint".to_owned();
            return Err(OpenError::Damaged { first_bad: first, why });
        }
        let sequence = tree.size();
        let Step::Frame(frame) = scanner.step(sequence)? else { break };
        let Ok((_, state)) = frame.check(sequence) else { break };
        let Ok(stored) = Stored::read(&frame, sequence, state) else { break };
        if sequence == first {
            if stored.envelope.kind != RecordKind::Snapshot {
                break;
            }
            recovered.snapshot = Some(frame.detail.to_vec());
        } else {
            recovered.records_after.push(stored);
        }
        tree.push(frame.leaf, |_| {});
        end = scanner.offset();
    }
    if tree.size() == first {
        return Ok(None);
    }
    recovered.records = tree.size();
    Ok(Some((Restored { recovered, tree, tail: None, signed: 0, note: String::new() }, end)))
}

/// Overwrites everything from `end` on with zeros, durably, so that an old frame can never follow a new one; returns
/// how many bytes were not zero already, counted to the last of them.
fn wipe(disk: &dyn Disk, end: u64) -> io::Result<u64> {
    let length = disk.length()?;
    let mut buffer = vec![0; 64 * 1024];
    let zeros = vec![0; buffer.len()];
    let (mut at, mut last) = (end, end);
    while at < length {
        let count = disk.read_at(&mut buffer, at)?;
        let read = buffer.get(..count).unwrap_or_default();
        if read.is_empty() {
            break;
        }
        if let Some(place) = read.iter().rposition(|byte| *byte != 0) {
            last = at + place as u64 + 1;
            disk.write_at(zeros.get(..count).unwrap_or_default(), at)?;
        }
        at += count as u64;
    }
    if last > end {
        disk.sync()?;
    }
    Ok(last - end)
}

/// A prepared file of an earlier life, emptied of what a crash may have left in it. `None`: there is none of that length.
pub(crate) fn prepared(storage: &dyn Storage, path: &str, bytes: u64) -> io::Result<Option<Arc<dyn Disk>>> {
    let Some(disk) = storage.open(path, true)? else { return Ok(None) };
    if disk.length()? != bytes {
        return Ok(None);
    }
    wipe(&*disk, 0)?;
    Ok(Some(disk))
}

/// Completes what an interruption left half done: tiles that were not written, erasures that were recorded.
fn finish(storage: &dyn Storage, before: &[u64], first: u64, restored: &Restored) -> Result<(), OpenError> {
    // Tiles are written after their records, so the missing ones are the newest; go back to where they are complete.
    let full = restored.tree.size() >> tile::HEIGHT;
    let mut number = full;
    while number > 0 && storage.open(&tile::path(0, number - 1, None), false)?.is_none() {
        number -= 1;
    }
    if number < full {
        let from = number << tile::HEIGHT;
        let begin = before.iter().rposition(|name| *name <= from).unwrap_or(0);
        for name in before.get(begin..).unwrap_or_default().iter().chain([&first]) {
            write_tiles(storage, *name)?;
        }
    }
    for stored in &restored.recovered.records_after {
        if let Some(erasure) = &stored.sealed.erasure {
            erase::wipe(storage, &erasure.ranges, stored.sequence, first)?;
        }
    }
    Ok(())
}

/// Writes the full tiles that a segment's records complete and that are not there.
fn write_tiles(storage: &dyn Storage, first: u64) -> Result<(), OpenError> {
    let Some(disk) = storage.open(&segment_path(first), false)? else { return Ok(()) };
    let Ok((mut scanner, mut tree)) = Scanner::open(disk, first)? else { return Ok(()) };
    let mut tiles = Vec::new();
    while let Step::Frame(frame) = scanner.step(tree.size())? {
        tree.push(frame.leaf, |tile| tiles.push(tile));
        for tile in tiles.drain(..) {
            let path = tile::path(tile.level, tile.number, None);
            if storage.open(&path, false)?.is_none() {
                storage.replace(&path, &tile.bytes, false)?;
            }
        }
    }
    Ok(())
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        OpenError::Io(error)
    }
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenError::Locked => f.write_str("another creel daemon is writing this journal"),
            OpenError::Damaged { first_bad, why } => {
                write!(f, "the journal is damaged: {why}; the first bad record is {first_bad}")
            }
            OpenError::Io(error) => write!(f, "cannot open the journal: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}
