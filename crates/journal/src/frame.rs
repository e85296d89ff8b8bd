//! A segment's bytes: a preface with the tree's edge, then frames, each a header, an envelope and a detail.
//!
//! All integers are little-endian. A frame's header carries no seal of its own: its lengths and number are confirmed
//! by the envelope, its check is the beginning of the leaf hash. The flag "erased" is the only bit that may change.

use std::io;
use std::sync::Arc;

use creel_seal::{Hash, Tree, detail_digest, leaf_hash, sha256, tile};

use crate::envelope::{Core, unhex};
use crate::storage::Disk;
use crate::{DETAIL_BYTES_MAX, ENVELOPE_BYTES_MAX, SNAPSHOT_BYTES_MAX};

/// Bytes of a frame's header.
pub(crate) const HEADER: usize = 48;
/// Where in a frame the flags are.
pub(crate) const FLAGS_AT: u64 = 12;
/// Where in a frame the salt is.
pub(crate) const SALT_AT: u64 = 24;
/// The detail was erased.
pub(crate) const ERASED: u32 = 1;

const MAGIC: [u8; 4] = *b"CRF1";
const PREFACE_MAGIC: [u8; 8] = *b"creelseg";
const PREFACE_VERSION: u32 = 1;
const PREFACE_HEADER: usize = 56;
/// How much is read at once.
const CHUNK: usize = 256 * 1024;

/// The bytes of a frame. Lengths were checked by the caller.
pub(crate) fn frame(sequence: u64, salt: &[u8; 16], leaf: &Hash, envelope: &[u8], detail: &[u8]) -> Vec<u8> {
    let length = frame_bytes(envelope.len(), detail.len());
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&(envelope.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(detail.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&0_u32.to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(salt);
    bytes.extend(leaf.iter().take(8));
    bytes.extend_from_slice(envelope);
    bytes.extend_from_slice(detail);
    bytes.resize(length, 0);
    bytes
}

/// The length of a frame, padded to eight bytes.
pub(crate) const fn frame_bytes(envelope: usize, detail: usize) -> usize {
    (HEADER + envelope + detail).next_multiple_of(8)
}

/// The bytes at a segment's beginning.
pub(crate) fn preface(tree: &Tree) -> Vec<u8> {
    let edge = tree.edge_bytes();
    let mut bytes = PREFACE_MAGIC.to_vec();
    bytes.extend_from_slice(&PREFACE_VERSION.to_le_bytes());
    bytes.extend_from_slice(&((PREFACE_HEADER + edge.len()) as u32).to_le_bytes());
    bytes.extend_from_slice(&tree.size().to_le_bytes());
    let mut checked = tree.size().to_le_bytes().to_vec();
    checked.extend_from_slice(&edge);
    bytes.extend_from_slice(&sha256(&checked));
    bytes.extend_from_slice(&edge);
    bytes
}

/// One frame, borrowed from the scanner.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    /// Where in the file it begins.
    pub(crate) offset: u64,
    pub(crate) leaf: Hash,
    pub(crate) erased: bool,
    pub(crate) salt: [u8; 16],
    pub(crate) envelope: &'a [u8],
    pub(crate) detail: &'a [u8],
}

/// What became of a frame's detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DetailState {
    Whole,
    Erased,
    /// Marked as erased, but not overwritten: the eraser was interrupted.
    HalfErased,
}

impl<'a> Frame<'a> {
    /// The journal's fields of the envelope, after checking that header, envelope and detail belong together.
    pub(crate) fn check(&self, sequence: u64) -> Result<(Core<'a>, DetailState), &'static str> {
        let core: Core<'a> =
            serde_json::from_slice(self.envelope).map_err(|_| "the envelope is not one of a sealed record")?;
        if core.sequence != sequence {
            return Err("the envelope has another number");
        }
        if core.detail_bytes != self.detail.len() as u64 {
            return Err("the detail's length is not the sealed one");
        }
        let state = if self.erased {
            let wiped = self.salt.iter().chain(self.detail).all(|byte| *byte == 0);
            if wiped { DetailState::Erased } else { DetailState::HalfErased }
        } else {
            if unhex(core.detail_digest) != Some(detail_digest(&self.salt, self.detail)) {
                return Err("the detail does not match its sealed digest");
            }
            DetailState::Whole
        };
        Ok((core, state))
    }
}

/// What stands at the scanner's place.
#[derive(Debug)]
pub(crate) enum Step<'a> {
    /// A frame whose envelope is the one that was written.
    Frame(Frame<'a>),
    /// Nothing was written here yet, or the file ends.
    End,
    /// Something that is not a whole frame.
    Bad(&'static str),
}

/// Reads a segment from front to back with bounded memory.
pub(crate) struct Scanner {
    disk: Arc<dyn Disk>,
    length: u64,
    /// File offset of the buffer's first byte.
    start: u64,
    buffer: Vec<u8>,
    /// Place within the buffer.
    at: usize,
}

impl Scanner {
    /// Opens a segment: its scanner after the preface, and the tree at its beginning. `Ok(Err)`: not a whole preface.
    pub(crate) fn open(disk: Arc<dyn Disk>, first: u64) -> io::Result<Result<(Self, Tree), &'static str>> {
        let length = disk.length()?;
        let mut scanner = Self { disk, length, start: 0, buffer: Vec::new(), at: 0 };
        let Some(header) = scanner.need(PREFACE_HEADER)? else { return Ok(Err("the segment is too short")) };
        let number = |at: usize| header.get(at..)?.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
        let Some((version_and_length, size)) = number(8).zip(number(16)) else {
            return Ok(Err("the segment is too short"));
        };
        let length = (version_and_length >> 32) as usize;
        if !header.starts_with(&PREFACE_MAGIC) || version_and_length as u32 != PREFACE_VERSION {
            return Ok(Err("the segment does not begin as one"));
        }
        if size != first || length as u64 != PREFACE_HEADER as u64 + tile::edge_bytes(size) {
            return Ok(Err("the segment's name and beginning do not agree"));
        }
        let Some(preface) = scanner.need(length)? else { return Ok(Err("the segment is too short")) };
        let (Some(check), Some(edge)) = (preface.get(24..PREFACE_HEADER), preface.get(PREFACE_HEADER..length)) else {
            return Ok(Err("the segment is too short"));
        };
        let mut checked = size.to_le_bytes().to_vec();
        checked.extend_from_slice(edge);
        if sha256(&checked) != check {
            return Ok(Err("the segment's tree edge is damaged"));
        }
        let Some(tree) = Tree::from_edge(size, edge) else { return Ok(Err("the segment's tree edge is damaged")) };
        scanner.at += length;
        Ok(Ok((scanner, tree)))
    }

    /// The file offset of its place.
    pub(crate) const fn offset(&self) -> u64 {
        self.start + self.at as u64
    }

    /// Bytes from its place to the file's end, as long as the file was when it was opened.
    pub(crate) const fn bytes_left(&self) -> u64 {
        self.length.saturating_sub(self.offset())
    }

    /// Forgets what was read ahead, because a writer may have written since.
    pub(crate) fn refresh(&mut self) -> io::Result<()> {
        self.start = self.offset();
        self.at = 0;
        self.buffer.clear();
        self.length = self.disk.length()?;
        Ok(())
    }

    /// The frame at its place, which must have this number. Moves on only over a whole frame.
    pub(crate) fn step(&mut self, sequence: u64) -> io::Result<Step<'_>> {
        let offset = self.offset();
        let Some(header) = self.need(HEADER)? else { return Ok(Step::End) };
        if header.iter().take(HEADER).all(|byte| *byte == 0) {
            return Ok(Step::End);
        }
        let Some(header) = header.first_chunk::<HEADER>().copied() else { return Ok(Step::End) };
        let word =
            |at: usize| header.get(at..).and_then(|rest| rest.first_chunk()).map(|bytes| u32::from_le_bytes(*bytes));
        let (Some(envelope), Some(detail), Some(flags)) = (word(4), word(8), word(12)) else {
            return Ok(Step::Bad("not a frame"));
        };
        let (envelope, detail) = (envelope as usize, detail as usize);
        let numbered = header.get(16..24) == Some(&sequence.to_le_bytes());
        if !header.starts_with(&MAGIC) || flags & !ERASED != 0 {
            return Ok(Step::Bad("not a frame"));
        }
        if !numbered {
            return Ok(Step::Bad("a frame with another number"));
        }
        if envelope > ENVELOPE_BYTES_MAX || detail > DETAIL_BYTES_MAX.max(SNAPSHOT_BYTES_MAX) {
            return Ok(Step::Bad("a frame longer than any"));
        }
        let length = frame_bytes(envelope, detail);
        let Some(bytes) = self.need(length)? else { return Ok(Step::Bad("a frame that is cut off")) };
        let salt = bytes.get(24..40).and_then(|salt| salt.first_chunk()).copied().unwrap_or_default();
        let leaf = leaf_hash(bytes.get(HEADER..HEADER + envelope).unwrap_or_default());
        if header.get(40..48) != leaf.get(..8) {
            return Ok(Step::Bad("the envelope is not the one that was written"));
        }
        let begin = self.at;
        self.at += length;
        let body = self.buffer.get(begin + HEADER..begin + HEADER + envelope + detail).unwrap_or_default();
        let Some((envelope, detail)) = body.split_at_checked(envelope) else { return Ok(Step::Bad("not a frame")) };
        Ok(Step::Frame(Frame { offset, leaf, erased: flags & ERASED != 0, salt, envelope, detail }))
    }

    /// The next `count` bytes. `None`: the file ends before.
    fn need(&mut self, count: usize) -> io::Result<Option<&[u8]>> {
        if self.buffer.len() - self.at < count {
            if self.offset() + count as u64 > self.length {
                return Ok(None);
            }
            self.buffer.drain(..self.at);
            self.start += self.at as u64;
            self.at = 0;
            let kept = self.buffer.len();
            let rest = usize::try_from(self.length - self.start).unwrap_or(usize::MAX);
            let wanted = count.max(CHUNK).min(rest);
            self.buffer.resize(wanted, 0);
            let read = self.disk.read_at(self.buffer.get_mut(kept..).unwrap_or_default(), self.start + kept as u64)?;
            self.buffer.truncate(kept + read);
        }
        Ok(self.buffer.get(self.at..).filter(|rest| rest.len() >= count))
    }
}
