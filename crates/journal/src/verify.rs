//! Verification: is the record complete and unaltered, and since when can nobody have rewritten it?
//!
//! One pass over the bytes, offline, with the public key and whatever anchors were found; `ahead.rs` reads them and
//! checks each record alone, on all processors, and here they are put together in order. It shares no state with a
//! writer and never re-serialises. What each verdict is worth:
//! *intact* — an anchor from the journal's beginning matches, so even the key's holder cannot have rewritten what
//! anchors cover; *intact since* — the same, but what lies before the oldest anchor could have been rewritten before
//! it; *self-consistent only* — whoever holds the key could have rewritten everything.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::mpsc::Receiver;

use creel_model::id::hex;
use creel_seal::{Checkpoint, Hash, Tree, VerifierKey, tile};

use crate::ahead::{Checked, Piece, Rare, read_ahead};
use crate::anchor::Anchor;
use crate::envelope::Gap;
use crate::frame::DetailState;
use crate::recover::NOTE_BYTES_MAX;
use crate::storage::{Folder, Storage, read_small, segments};
use crate::sync::CHECKPOINT;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// The short answer.
    pub verdict: Verdict,
    /// Whole records.
    pub records: u64,
    /// Details that were erased, each covered by an erasure record unless the verdict says otherwise.
    pub erased: u64,
    /// Details that were marked as erased and not yet overwritten.
    pub half_erased: u64,
    /// Records lost, as sealed gap records state.
    pub lost: u64,
    /// Number of gap records.
    pub gaps: u64,
    /// How many records the newest signed head covers; those after it are checked, but not yet signed.
    pub signed: u64,
    /// How many records matching anchors cover.
    pub anchored: Option<u64>,
    /// Anchors that the device key signed and that match.
    pub anchors_matched: usize,
    /// Anchors that the device key did not sign: anybody can write to a system's log.
    pub anchors_ignored: usize,
    /// Bytes of an unfinished end above the signed head.
    pub torn_tail_bytes: u64,
    /// Full level-0 tiles that are missing or wrong although the records are as signed; proofs need them.
    pub tiles_bad: u64,
    /// Number of segments.
    pub segments: usize,
}

/// The short answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Unaltered since the journal began.
    Intact,
    /// Unaltered since this anchor was made.
    IntactSince {
        /// How many records the anchor covers.
        records: u64,
        /// What the system's log printed before it: usually a time.
        when: String,
    },
    /// Everything fits the device's signature, but no anchor speaks for it.
    SelfConsistentOnly,
    /// Something was changed or is missing.
    Broken {
        /// Number of the first record that cannot be believed.
        first_bad: u64,
        /// What is wrong.
        why: String,
    },
}

/// Why a journal could not be looked at.
#[derive(Debug)]
pub enum VerifyError {
    /// The folder holds no journal.
    NoJournal,
    /// The system refused something.
    Io(io::Error),
}

/// Verifies the journal (or a copy of one) in a folder.
pub fn verify(folder: &Path, key: &VerifierKey, anchors: &[Anchor]) -> Result<Verification, VerifyError> {
    verify_in(&Folder::at(folder), key, anchors)
}

pub(crate) fn verify_in(
    storage: &dyn Storage,
    key: &VerifierKey,
    anchors: &[Anchor],
) -> Result<Verification, VerifyError> {
    // The head is read before the segments, so that a live writer can only be ahead of it.
    let note = read_small(storage, CHECKPOINT, NOTE_BYTES_MAX)?;
    let names = segments(storage)?;
    if note.is_none() && names.is_empty() {
        return Err(VerifyError::NoJournal);
    }
    let mut pass = Pass { segments: names.len(), ..Pass::default() };
    let head = match note.as_deref().map(|note| str::from_utf8(note).map(|note| Checkpoint::open(note, key))) {
        Some(Ok(Ok(head))) => Some(head),
        Some(Ok(Err(error))) => pass.broken(0, format!("the checkpoint: {error}")),
        Some(Err(_)) => pass.broken(0, "the checkpoint is not text".to_owned()),
        None => pass.broken(0, "the checkpoint is missing".to_owned()),
    };
    pass.signed = head.as_ref().map_or(0, |head| head.size);
    // Which roots to look at on the way: size → what is claimed, by whom.
    let mut claims: BTreeMap<u64, Vec<(Hash, Option<&Anchor>)>> = BTreeMap::new();
    for anchor in anchors {
        match anchor.open(key) {
            Some(found) => claims.entry(found.size).or_default().push((found.root, Some(anchor))),
            None => pass.anchors_ignored += 1,
        }
    }
    if let Some(head) = &head {
        claims.entry(head.size).or_default().push((head.root, None));
    }
    pass.run(storage, &names, &claims)?;
    Ok(pass.finish(&claims))
}

/// The state of the one pass.
#[derive(Default)]
struct Pass<'a> {
    tree: Tree,
    broken: Option<(u64, String)>,
    erased: u64,
    half_erased: u64,
    /// Runs of erased records: first → last.
    erased_runs: Vec<(u64, u64)>,
    /// Runs that erasure records speak of.
    explained: Vec<(u64, u64)>,
    gaps: u64,
    lost: u64,
    signed: u64,
    matched: Vec<(u64, &'a Anchor)>,
    anchors_ignored: usize,
    torn_tail_bytes: u64,
    tiles_bad: u64,
    /// The first record whose hash is not the one in its tile.
    tile_difference: Option<u64>,
    segments: usize,
    /// The largest size at which a root was as claimed.
    good_until: u64,
}

impl<'a> Pass<'a> {
    /// Remembers the first fault; returns nothing, so that it can stand where a value was expected.
    fn broken<T>(&mut self, first_bad: u64, why: String) -> Option<T> {
        if self.broken.as_ref().is_none_or(|(earlier, _)| first_bad < *earlier) {
            self.broken = Some((first_bad, why));
        }
        None
    }

    fn run(
        &mut self,
        storage: &dyn Storage,
        names: &[u64],
        claims: &BTreeMap<u64, Vec<(Hash, Option<&'a Anchor>)>>,
    ) -> Result<(), VerifyError> {
        self.compare(claims);
        read_ahead(storage, names, |segments| {
            for (place, (first, pieces)) in names.iter().zip(segments).enumerate() {
                if !self.segment(storage, *first, place + 1 == names.len(), pieces, claims)? {
                    break;
                }
            }
            Ok(())
        })?
    }

    /// Takes in one segment as it was read; whether the next one can follow.
    fn segment(
        &mut self,
        storage: &dyn Storage,
        first: u64,
        last: bool,
        pieces: Receiver<Piece>,
        claims: &BTreeMap<u64, Vec<(Hash, Option<&'a Anchor>)>>,
    ) -> Result<bool, VerifyError> {
        let at = self.tree.size();
        if first != at {
            self.broken::<()>(at.min(first), format!("expected a segment that begins with record {at}"));
            return Ok(false);
        }
        for piece in pieces {
            match piece {
                Piece::Vanished => {
                    self.broken::<()>(at, "a segment vanished".to_owned());
                    return Ok(false);
                }
                Piece::NoPreface { length, .. } if last && at >= self.signed => {
                    self.torn_tail_bytes += length;
                    return Ok(false);
                }
                Piece::NoPreface { why, .. } => {
                    self.broken::<()>(at, why.to_owned());
                    return Ok(false);
                }
                Piece::Edge(root) if root != self.tree.root() => {
                    self.broken::<()>(at, "the segment goes on from another history".to_owned());
                    return Ok(false);
                }
                Piece::Edge(_) => {}
                Piece::Records(records) => {
                    for record in records {
                        self.record(storage, first, record)?;
                        self.compare(claims);
                    }
                }
                Piece::End { fault: None, .. } => return Ok(true),
                Piece::End { fault: Some(_), bytes_left } if last && self.tree.size() >= self.signed => {
                    self.torn_tail_bytes += bytes_left;
                    return Ok(true);
                }
                Piece::End { fault: Some(why), .. } => {
                    self.broken::<()>(self.tree.size(), why.to_owned());
                    return Ok(false);
                }
                Piece::Failed(error) => return Err(VerifyError::Io(error)),
            }
        }
        // Whoever reads a segment says how it ends, unless its thread is gone.
        Err(VerifyError::Io(io::Error::other("a segment was not read to its end")))
    }

    fn record(&mut self, storage: &dyn Storage, first: u64, record: Checked) -> io::Result<()> {
        let sequence = self.tree.size();
        let Rare { peaks, erasure, gap } = record.rare.map(|rare| *rare).unwrap_or_default();
        if sequence == first && !self.same_peaks(peaks.as_deref()) {
            self.broken::<()>(sequence, "the sealed tree is another".to_owned());
        }
        self.note(sequence, record.state);
        if let Some(erasure) = erasure {
            let end = sequence.saturating_sub(1);
            self.explained.extend(erasure.ranges.into_iter().map(|(a, b)| (a, b.min(end))));
        }
        if let Some(Gap { lost, .. }) = gap {
            self.gaps += 1;
            self.lost += lost;
        }
        self.push(storage, record.leaf)
    }

    fn note(&mut self, sequence: u64, state: DetailState) {
        if state == DetailState::Whole {
            return;
        }
        match state {
            DetailState::HalfErased => self.half_erased += 1,
            _ => self.erased += 1,
        }
        match self.erased_runs.last_mut() {
            Some((_, last)) if *last + 1 == sequence => *last = sequence,
            _ => self.erased_runs.push((sequence, sequence)),
        }
    }

    /// Whether a segment's first envelope seals the tree before it.
    fn same_peaks(&self, sealed: Option<&[String]>) -> bool {
        let peaks = self.tree.range().peaks();
        sealed.is_some_and(|sealed| {
            sealed.len() == peaks.len() && sealed.iter().zip(peaks).all(|(sealed, peak)| *sealed == hex(peak))
        })
    }

    /// Adds a leaf; compares each completed tile with the stored one, which tells *which* record a wrong root is about.
    fn push(&mut self, storage: &dyn Storage, leaf: Hash) -> io::Result<()> {
        let mut full = None;
        self.tree.push(leaf, |tile| {
            if tile.level == 0 {
                full = Some(tile);
            }
        });
        let Some(full) = full else { return Ok(()) };
        let path = tile::path(0, full.number, None);
        let stored = read_small(storage, &path, tile::BYTES as u64).unwrap_or_default();
        if stored.as_deref() == Some(&*full.bytes) {
            return Ok(());
        }
        self.tiles_bad += 1;
        if let Some(stored) = stored {
            let differs = full.bytes.chunks(32).zip(stored.chunks(32)).position(|(ours, theirs)| ours != theirs);
            if let (Some(differs), None) = (differs, self.tile_difference) {
                self.tile_difference = Some((full.number << tile::HEIGHT) + differs as u64);
            }
        }
        Ok(())
    }

    /// Compares the root with what heads and anchors claim of this size.
    fn compare(&mut self, claims: &BTreeMap<u64, Vec<(Hash, Option<&'a Anchor>)>>) {
        let size = self.tree.size();
        let Some(claimed) = claims.get(&size) else { return };
        let root = self.tree.root();
        let good_until = self.good_until;
        for (expected, anchor) in claimed {
            if *expected == root {
                self.good_until = size;
                if let Some(anchor) = anchor {
                    self.matched.push((size, anchor));
                }
            } else {
                let who = if anchor.is_some() { "an anchor" } else { "the signed checkpoint" };
                let named = self.tile_difference.filter(|sequence| (good_until..size).contains(sequence));
                let why = match named {
                    Some(_) => format!("it is not the record that {who} covers"),
                    None => {
                        format!("a record from {good_until} to {} is not what {who} covers", size.saturating_sub(1))
                    }
                };
                self.broken::<()>(named.unwrap_or(good_until), why);
            }
        }
    }

    fn finish(mut self, claims: &BTreeMap<u64, Vec<(Hash, Option<&'a Anchor>)>>) -> Verification {
        let records = self.tree.size();
        if self.broken.is_none()
            && let Some((size, claimed)) = claims.range(records + 1..).next()
        {
            let who =
                if claimed.iter().any(|(_, anchor)| anchor.is_none()) { "the signed checkpoint" } else { "an anchor" };
            self.broken::<()>(records, format!("{who} covers {size} records, only {records} are there"));
        }
        if let Some(sequence) = self.unexplained() {
            self.broken::<()>(sequence, "its detail was erased, and no erasure record says so".to_owned());
        }
        let verdict = match (self.broken, self.matched.first()) {
            (Some((first_bad, why)), _) => Verdict::Broken { first_bad, why },
            (None, None) => Verdict::SelfConsistentOnly,
            (None, Some((0, _))) => Verdict::Intact,
            (None, Some((records, anchor))) => Verdict::IntactSince { records: *records, when: anchor.when.clone() },
        };
        Verification {
            verdict,
            records,
            erased: self.erased,
            half_erased: self.half_erased,
            lost: self.lost,
            gaps: self.gaps,
            signed: self.signed,
            anchored: self.matched.last().map(|(size, _)| *size),
            anchors_matched: self.matched.len(),
            anchors_ignored: self.anchors_ignored,
            torn_tail_bytes: self.torn_tail_bytes,
            tiles_bad: self.tiles_bad,
            segments: self.segments,
        }
    }

    /// The first erased record that no erasure record speaks of.
    fn unexplained(&mut self) -> Option<u64> {
        self.explained.sort_unstable();
        let mut explained = self.explained.iter().peekable();
        for (first, last) in &self.erased_runs {
            let mut at = *first;
            while at <= *last {
                while explained.next_if(|(_, to)| *to < at).is_some() {}
                match explained.peek() {
                    Some((from, to)) if *from <= at => at = to + 1,
                    _ => return Some(at),
                }
            }
        }
        None
    }
}

impl From<io::Error> for VerifyError {
    fn from(error: io::Error) -> Self {
        VerifyError::Io(error)
    }
}

impl std::fmt::Display for VerifyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            VerifyError::NoJournal => f.write_str("there is no journal in this folder"),
            VerifyError::Io(error) => write!(f, "cannot read the journal: {error}"),
        }
    }
}

impl std::error::Error for VerifyError {}
