//! A cursor over a journal, also beside its writer: bounded memory, nothing locked, nothing written.
//!
//! At the end it returns `None` and may be asked again later. A frame that is not whole is "not written yet" as long as
//! no later segment exists; after that it is damage. A reader checks each record against its own digests, but only
//! [`crate::verify()`] checks the whole against signatures.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use creel_model::record::{Detail, Envelope, RecordKind};

use crate::envelope::Sealed;
use crate::frame::{DetailState, Frame, Scanner, Step};
use crate::storage::{Folder, Storage, segment_path, segments};

/// A record as it stands in the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its number.
    pub sequence: u64,
    /// Its envelope, without fields that this version does not know.
    pub envelope: Envelope,
    /// What the journal sealed into the envelope.
    pub sealed: Sealed,
    /// The envelope's bytes: the leaf of the tree, unknown fields included.
    pub envelope_bytes: Vec<u8>,
    /// Its detail. `None`: erased, or a snapshot record, whose detail is not one.
    pub detail: Option<Detail>,
    /// Whether the detail was erased.
    pub erased: bool,
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first record.
    Beginning,
    /// At the record with this number.
    At(u64),
    /// So many records before the end.
    Last(u64),
}

/// Why a record could not be read.
#[derive(Debug)]
pub enum ReadError {
    /// A record is not whole although later ones exist. The cursor stays.
    Damaged {
        /// Its number.
        sequence: u64,
        /// What is wrong.
        why: String,
    },
    /// A record is whole but not understood (a later major version?). The cursor has moved past it.
    NotUnderstood {
        /// Its number.
        sequence: u64,
        /// What is wrong.
        why: String,
    },
    /// The system refused something.
    Io(io::Error),
}

/// A cursor.
pub struct Reader {
    storage: Arc<dyn Storage>,
    /// The current segment's first number, its scanner, and the number that the scanner is at.
    current: Option<(u64, Scanner, u64)>,
    /// The first number to hand out.
    next: u64,
}

impl Stored {
    /// The record in a checked frame.
    pub(crate) fn read(frame: &Frame<'_>, sequence: u64, state: DetailState) -> Result<Self, String> {
        let envelope: Envelope = serde_json::from_slice(frame.envelope).map_err(|error| error.to_string())?;
        let sealed: Sealed = serde_json::from_slice(frame.envelope).map_err(|error| error.to_string())?;
        let detail = match state {
            DetailState::Whole if envelope.kind == RecordKind::Snapshot => None,
            DetailState::Whole => Some(serde_json::from_slice(frame.detail).map_err(|error| error.to_string())?),
            DetailState::Erased | DetailState::HalfErased => None,
        };
        let erased = state != DetailState::Whole;
        Ok(Self { sequence, envelope, sealed, envelope_bytes: frame.envelope.to_vec(), detail, erased })
    }
}

impl Reader {
    /// A cursor over the journal in a folder. A folder without a journal reads as an empty one.
    pub fn open(folder: &Path, start: Start) -> Result<Self, ReadError> {
        Self::open_in(Arc::new(Folder::at(folder)), start)
    }

    pub(crate) fn open_in(storage: Arc<dyn Storage>, start: Start) -> Result<Self, ReadError> {
        let mut reader = Self { storage, current: None, next: 0 };
        reader.next = match start {
            Start::Beginning => 0,
            Start::At(sequence) => sequence,
            Start::Last(count) => reader.end()?.saturating_sub(count),
        };
        Ok(reader)
    }

    /// The last `count` records for which `keep` is true, oldest first, and a cursor at the end behind them. Reads
    /// backwards segment by segment and holds no more than `count` records.
    pub fn last(
        folder: &Path,
        count: usize,
        keep: &mut dyn FnMut(u64, &Envelope) -> bool,
    ) -> Result<(Vec<Stored>, Self), ReadError> {
        let storage: Arc<dyn Storage> = Arc::new(Folder::at(folder));
        let mut found = VecDeque::new();
        let names = segments(&*storage)?;
        let mut after = None;
        let mut end = 0;
        for first in names.into_iter().rev() {
            let mut reader = Self::open_in(Arc::clone(&storage), Start::At(first))?;
            let mut here = VecDeque::new();
            let room = count - found.len();
            while let Some(stored) = reader.next_below(after.unwrap_or(u64::MAX), keep)? {
                here.push_back(stored);
                if here.len() > room {
                    here.pop_front();
                }
            }
            if after.is_none() {
                end = reader.next;
            }
            here.append(&mut found);
            found = here;
            after = Some(first);
            if found.len() >= count {
                break;
            }
        }
        Ok((found.into(), Self::open_in(storage, Start::At(end))?))
    }

    /// The number of the record that comes next.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.next
    }

    /// The next record, snapshots left out. `None`: there is none yet.
    pub fn next_record(&mut self) -> Result<Option<Stored>, ReadError> {
        self.next_where(&mut |_, envelope| envelope.kind != RecordKind::Snapshot)
    }

    /// The next record for whose number and envelope `keep` is true. `None`: there is none yet; all others up to the
    /// end have been passed.
    pub fn next_where(&mut self, keep: &mut dyn FnMut(u64, &Envelope) -> bool) -> Result<Option<Stored>, ReadError> {
        self.next_below(u64::MAX, keep)
    }

    fn next_below(
        &mut self,
        end: u64,
        keep: &mut dyn FnMut(u64, &Envelope) -> bool,
    ) -> Result<Option<Stored>, ReadError> {
        let mut looked_again = false;
        while self.next < end {
            let Some((first, scanner, at)) = &mut self.current else {
                if !self.enter()? {
                    return Ok(None);
                }
                continue;
            };
            let (first, sequence) = (*first, *at);
            let why = match scanner.step(sequence)? {
                Step::Frame(_) if sequence < self.next => {
                    *at += 1;
                    continue;
                }
                Step::Frame(frame) => match take(&frame, sequence, keep) {
                    // The scanner is past it, so the segment is entered anew.
                    Ok(Taken::Damaged(why)) => {
                        self.current = None;
                        why.to_owned()
                    }
                    taken => {
                        *at += 1;
                        self.next = sequence + 1;
                        match taken? {
                            Taken::Stored(stored) => return Ok(Some(*stored)),
                            Taken::Passed | Taken::Damaged(_) => continue,
                        }
                    }
                },
                Step::End => "the segment ends before it".to_owned(),
                Step::Bad(why) => why.to_owned(),
            };
            match segments(&*self.storage)?.into_iter().find(|name| *name > first) {
                // What was read ahead may be older than this call, so only a second look is an answer.
                None if looked_again => return Ok(None),
                None => {
                    looked_again = true;
                    if let Some((_, scanner, _)) = &mut self.current {
                        scanner.refresh()?;
                    }
                }
                // Everything of this segment has been read.
                Some(following) if following == sequence => self.current = None,
                // The writer may have gone on between the two looks, so look once more before calling it damage.
                Some(_) if !looked_again => {
                    looked_again = true;
                    if let Some((_, scanner, _)) = &mut self.current {
                        scanner.refresh()?;
                    }
                }
                Some(_) => return Err(ReadError::Damaged { sequence, why }),
            }
        }
        Ok(None)
    }

    /// Opens the segment that holds the next record. `false`: there is none yet.
    fn enter(&mut self) -> Result<bool, ReadError> {
        let names = segments(&*self.storage)?;
        let Some(first) = names.iter().rev().find(|name| **name <= self.next).copied() else { return Ok(false) };
        let Some(disk) = self.storage.open(&segment_path(first), false)? else { return Ok(false) };
        match Scanner::open(disk, first)? {
            Ok((scanner, _)) => {
                self.current = Some((first, scanner, first));
                Ok(true)
            }
            Err(why) => Err(ReadError::Damaged { sequence: first, why: why.to_owned() }),
        }
    }

    /// The number of records, as far as they can be read.
    fn end(&self) -> Result<u64, ReadError> {
        let Some(first) = segments(&*self.storage)?.pop() else { return Ok(0) };
        let mut reader = Self { storage: Arc::clone(&self.storage), current: None, next: first };
        while reader.next_where(&mut |_, _| false)?.is_some() {}
        Ok(reader.next)
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("next", &self.next).finish_non_exhaustive()
    }
}

enum Taken {
    Stored(Box<Stored>),
    Passed,
    Damaged(&'static str),
}

fn take(frame: &Frame<'_>, sequence: u64, keep: &mut dyn FnMut(u64, &Envelope) -> bool) -> Result<Taken, ReadError> {
    let not_understood = |why: String| ReadError::NotUnderstood { sequence, why };
    let state = match frame.check(sequence) {
        Ok((_, state)) => state,
        Err(why) => return Ok(Taken::Damaged(why)),
    };
    let envelope: Envelope =
        serde_json::from_slice(frame.envelope).map_err(|error| not_understood(error.to_string()))?;
    if !keep(sequence, &envelope) {
        return Ok(Taken::Passed);
    }
    Stored::read(frame, sequence, state).map(|stored| Taken::Stored(Box::new(stored))).map_err(not_understood)
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        ReadError::Io(error)
    }
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReadError::Damaged { sequence, why } => write!(f, "record {sequence} is damaged: {why}"),
            ReadError::NotUnderstood { sequence, why } => write!(f, "record {sequence} is not understood: {why}"),
            ReadError::Io(error) => write!(f, "cannot read the journal: {error}"),
        }
    }
}

impl std::error::Error for ReadError {}
