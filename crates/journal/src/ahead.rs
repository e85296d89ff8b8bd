//! Segments → their records, checked one by one, by several threads ahead of whoever puts them together.
//!
//! What a record says of itself (its digests, its number, its detail) can be checked without its neighbours; what links
//! records (the tree, heads, anchors) is for the caller, who takes the segments in order. The one fact a newcomer gets
//! wrong: nothing is decided here, so a fault in a later segment never hides one in an earlier.

use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use creel_seal::Hash;

use crate::envelope::{Erasure, Gap};
use crate::frame::{DetailState, Scanner, Step};
use crate::storage::{Storage, segment_path};

/// Threads that read, at most; never more than there are processors.
const READERS_MAX: usize = 4;
/// Records in one piece.
const RECORDS: usize = 512;
/// Pieces of a segment that wait to be taken, at most: about 0.8 MB for each thread.
const PIECES_MAX: usize = 32;

/// What is found in a segment, in order: `Edge`, then `Records`, then `End`; or one of the others.
pub(crate) enum Piece {
    /// There is no such file.
    Vanished,
    /// The segment does not begin as one.
    NoPreface { why: &'static str, length: u64 },
    /// The root of the tree before the segment, as its beginning says.
    Edge(Hash),
    /// Whole records, each checked by itself.
    Records(Vec<Checked>),
    /// No further whole record: nothing was written there yet, or something else stands there.
    End { fault: Option<&'static str>, bytes_left: u64 },
    /// The system refused to read.
    Failed(io::Error),
}

/// A record whose envelope is the one that was written and belongs to its detail.
pub(crate) struct Checked {
    pub(crate) leaf: Hash,
    pub(crate) state: DetailState,
    /// `None` on nearly all records.
    pub(crate) rare: Option<Box<Rare>>,
}

/// What few records have.
#[derive(Default)]
pub(crate) struct Rare {
    /// Kept of a segment's first record only.
    pub(crate) peaks: Option<Vec<String>>,
    pub(crate) erasure: Option<Erasure>,
    pub(crate) gap: Option<Gap>,
}

/// Lets `take` have the pieces of these segments, in their order, while other threads read them. When it returns early,
/// they stop. An error: no thread can be started.
pub(crate) fn read_ahead<T>(
    storage: &dyn Storage,
    segments: &[u64],
    take: impl FnOnce(Vec<Receiver<Piece>>) -> T,
) -> io::Result<T> {
    let readers = std::thread::available_parallelism().map_or(1, usize::from).min(READERS_MAX).min(segments.len());
    let (senders, receivers): (Vec<_>, Vec<_>) = segments.iter().map(|_| sync_channel(PIECES_MAX)).unzip();
    // In their order, so that the segment that is waited for is always being read.
    let todo = Mutex::new(segments.iter().copied().zip(senders));
    let work = || {
        loop {
            let next = todo.lock().ok().and_then(|mut todo| todo.next());
            let Some((first, out)) = next else { return };
            if !read(storage, first, &out) {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for reader in 0..readers {
            match std::thread::Builder::new().spawn_scoped(scope, work) {
                Err(error) if reader == 0 => return Err(error),
                // Fewer are slower, no more.
                _ => {}
            }
        }
        Ok(take(receivers))
    })
}

/// Reads one segment; whether anybody still listens.
fn read(storage: &dyn Storage, first: u64, out: &SyncSender<Piece>) -> bool {
    let piece = match open(storage, first) {
        Ok(Ok((mut scanner, edge))) => {
            if out.send(Piece::Edge(edge)).is_err() {
                return false;
            }
            match records(&mut scanner, first, out) {
                Ok(Some(end)) => end,
                Ok(None) => return false,
                Err(error) => Piece::Failed(error),
            }
        }
        Ok(Err(piece)) => piece,
        Err(error) => Piece::Failed(error),
    };
    out.send(piece).is_ok()
}

fn open(storage: &dyn Storage, first: u64) -> io::Result<Result<(Scanner, Hash), Piece>> {
    let Some(disk) = storage.open(&segment_path(first), false)? else { return Ok(Err(Piece::Vanished)) };
    let length = disk.length()?;
    Ok(match Scanner::open(disk, first)? {
        Ok((scanner, edge)) => Ok((scanner, edge.root())),
        Err(why) => Err(Piece::NoPreface { why, length }),
    })
}

/// Hands on the records of a segment; gives how it ends. `None`: nobody listens any more.
fn records(scanner: &mut Scanner, first: u64, out: &SyncSender<Piece>) -> io::Result<Option<Piece>> {
    let mut found = Vec::with_capacity(RECORDS);
    let mut sequence = first;
    loop {
        let bytes_left = scanner.bytes_left();
        let fault = match scanner.step(sequence)? {
            Step::Frame(frame) => match frame.check(sequence) {
                Ok((core, state)) => {
                    let peaks = core.peaks.filter(|_| sequence == first);
                    let rare = (peaks.is_some() || core.erasure.is_some() || core.gap.is_some())
                        .then(|| Box::new(Rare { peaks, erasure: core.erasure, gap: core.gap }));
                    found.push(Checked { leaf: frame.leaf, state, rare });
                    sequence += 1;
                    if found.len() >= RECORDS
                        && out.send(Piece::Records(std::mem::replace(&mut found, Vec::with_capacity(RECORDS)))).is_err()
                    {
                        return Ok(None);
                    }
                    continue;
                }
                Err(why) => Some(why),
            },
            Step::Bad(why) => Some(why),
            Step::End => None,
        };
        return Ok(out.send(Piece::Records(found)).ok().map(|()| Piece::End { fault, bytes_left }));
    }
}
