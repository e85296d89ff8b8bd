//! The one writer: a record becomes a frame at the end of the current segment.
//!
//! Appending is one positioned write and a few hashes; a sync happens inline only when a segment is full (the old one
//! is made durable before the new one can be found). When no segment can be made, the reserve is used; when that is
//! full too, records are counted in a small file whose space was taken beforehand, and the first record that finds
//! room again is a sealed gap record with that count.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use creel_model::id::hex;
use creel_model::record::{EVENT_SCHEMA, Envelope, Record, RecordKind};
use creel_model::{ActionId, Digest};
use creel_seal::{DeviceKey, detail_digest, leaf_hash};

use crate::anchor::Target;
use crate::envelope::{Erasure, Gap, Sealed, seal};
use crate::frame;
use crate::recover::{self, OpenError, Recovered};
use crate::storage::{Disk, Folder, Storage, segment_path};
use crate::sync::{AnchorState, Prepared, RESERVE, SPARE, Shared, SyncError, Syncer};
use crate::{DETAIL_BYTES_MAX, ENVELOPE_BYTES_MAX, SNAPSHOT_BYTES_MAX};

/// How a journal is written.
#[derive(Debug)]
pub struct Options {
    /// Signs the heads; its name is the log's origin.
    pub key: DeviceKey,
    /// Account that owns the journal's own records.
    pub owner: u32,
    /// Size of a segment in bytes; recovery reads one. 4 MiB.
    pub segment_bytes: u64,
    /// Size of the reserve in bytes. 16 MiB.
    pub reserve_bytes: u64,
    /// The longest time between a write and its sync. 50 ms.
    pub sync_every: Duration,
    /// The longest time between a write and a signed head over it. 2 s.
    pub checkpoint_every: Duration,
    /// The longest time between a signed head and an anchored one. 60 s.
    pub anchor_every: Duration,
    /// Where heads are anchored.
    pub anchors: Vec<Target>,
}

impl Options {
    /// The usual values, without anchors.
    #[must_use]
    pub fn new(key: DeviceKey) -> Self {
        Self {
            key,
            owner: rustix::process::geteuid().as_raw(),
            segment_bytes: 4 * 1024 * 1024,
            reserve_bytes: 16 * 1024 * 1024,
            sync_every: Duration::from_millis(50),
            checkpoint_every: Duration::from_secs(2),
            anchor_every: Duration::from_mins(1),
            anchors: Vec::new(),
        }
    }
}

/// The journal's one writer. Dropping it without [`Journal::close`] also makes everything durable, but tells nobody
/// whether that worked.
pub struct Journal {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    disk: Option<Arc<dyn Disk>>,
    /// Where the next frame begins.
    offset: u64,
    /// Where the segment ends.
    length: u64,
    /// The current segment is the reserve.
    in_reserve: bool,
    sequence: u64,
    loss: Loss,
    _lock: Box<dyn Send + Sync>,
}

/// A record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its number.
    pub sequence: u64,
}

/// Why a record was not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// A part is longer than the format allows; the record is not counted as lost.
    TooLong {
        /// Which part.
        part: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The longest allowed.
        bytes_max: usize,
    },
    /// The envelope holds a number that is not an integer, or the detail cannot be written as JSON.
    Unwritable,
    /// There is no room, not even in the reserve. What that means for an answer is the policy `on_record_loss`.
    Full {
        /// Records lost since the last gap record, this one included.
        lost: u64,
    },
    /// The disk failed; nothing can be appended until the journal is opened again.
    Failed(String),
}

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// The reserve is untouched.
    Normal,
    /// The reserve is in use or cannot be made: say so loudly, and do not ask questions that need a record later.
    Reserve,
    /// Records are being lost.
    Full {
        /// Since the last gap record.
        lost: u64,
    },
}

/// How the journal is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Number of records, which is the next one's number.
    pub records: u64,
    /// How many of them are durable.
    pub durable: u64,
    /// How many of them a signed head on disk covers.
    pub signed: u64,
    /// How much room there is.
    pub space: Space,
    /// One per configured target; empty means that no anchor is configured.
    pub anchors: Vec<AnchorState>,
    /// Why nothing can be appended any more.
    pub failed: Option<String>,
    /// What went wrong lately without stopping the journal.
    pub trouble: Option<String>,
}

impl Journal {
    /// Opens the journal in a folder for writing, creating it where it is missing (folders 0700, files 0600).
    ///
    /// A torn tail is cut off; what was signed and is no longer there is [`OpenError::Damaged`]; a second writer is
    /// [`OpenError::Locked`].
    pub fn open(folder: &Path, options: Options) -> Result<(Self, Recovered), OpenError> {
        let storage = Folder::prepare(folder)?;
        Self::open_in(Arc::new(storage), options)
    }

    pub(crate) fn open_in(storage: Arc<dyn Storage>, options: Options) -> Result<(Self, Recovered), OpenError> {
        let lock = storage.lock()?.ok_or(OpenError::Locked)?;
        let restored = recover::recover(&*storage, &options)?;
        let loss = Loss::open(&*storage, &restored)?;
        let recover::Restored { recovered, tree, tail, signed, note } = restored;
        let (disk, offset, length) = match tail {
            Some(tail) => (Some(tail.disk), tail.offset, tail.length),
            None => (None, 0, 0),
        };
        // What an earlier life prepared is kept: on a full disk it could not be made again.
        let files = Prepared {
            spare: recover::prepared(&*storage, SPARE, options.segment_bytes)?,
            reserve: match recover::prepared(&*storage, RESERVE, options.reserve_bytes)? {
                None => storage.create(RESERVE, options.reserve_bytes).ok(),
                kept => kept,
            },
        };
        let sequence = tree.size();
        let shared = Arc::new(Shared::new(storage, options, tree, disk.clone(), files, (signed, note)));
        let thread = std::thread::Builder::new().name("journal-sync".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.run()
        })?;
        let thread = Some(thread);
        let journal = Self { shared, thread, disk, offset, length, in_reserve: false, sequence, loss, _lock: lock };
        Ok((journal, recovered))
    }

    /// Writes a record. `snapshot` is called when a new segment begins; its bytes come back from the next
    /// [`Journal::open`] with the records after it, so it must give the state *before* this record.
    pub fn append(&mut self, record: &Record, snapshot: &mut dyn FnMut() -> Vec<u8>) -> Result<Appended, AppendError> {
        let detail = serde_json::to_vec(&record.detail).map_err(|_| AppendError::Unwritable)?;
        self.put(&record.envelope, &detail, None, snapshot)
    }

    /// Waits until everything appended so far is durable.
    pub fn sync(&self) -> Result<(), SyncError> {
        self.shared.wait_synced(self.sequence)
    }

    /// A handle with which other threads wait for durability.
    #[must_use]
    pub fn syncer(&self) -> Syncer {
        Syncer { shared: Arc::clone(&self.shared) }
    }

    /// Makes everything durable, signs and anchors a head over it, and returns the signed note.
    pub fn checkpoint(&self) -> Result<String, SyncError> {
        self.shared.publish()
    }

    /// Whether records go to an ordinary segment, with the reserve behind it and nothing lost; else nobody should be
    /// asked anything. Waits for no disk, so it may be asked on every decision.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.in_reserve && self.loss.pending.is_none() && self.shared.lock().reserve.is_some()
    }

    /// How it is doing.
    #[must_use]
    pub fn state(&self) -> State {
        let core = self.shared.lock();
        let space = match (self.loss.pending, &core.reserve) {
            (Some(gap), _) => Space::Full { lost: gap.lost },
            (None, Some(_)) if !self.in_reserve => Space::Normal,
            _ => Space::Reserve,
        };
        State {
            records: self.sequence,
            durable: core.synced,
            signed: core.published,
            space,
            anchors: core.anchors.clone(),
            failed: core.failed.clone(),
            trouble: core.trouble.clone(),
        }
    }

    /// Makes everything durable, signs and anchors a last head, and lets the next writer in.
    pub fn close(mut self) -> Result<(), SyncError> {
        self.end();
        let core = self.shared.lock();
        match core.failed.as_ref().or(core.trouble.as_ref()) {
            Some(why) if core.published < self.sequence => Err(SyncError(why.clone())),
            _ => Ok(()),
        }
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.shared.stop();
            let _ = thread.join();
        }
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        &*self.shared.storage
    }

    /// How many records there are.
    pub(crate) const fn records(&self) -> u64 {
        self.sequence
    }

    /// Appends with the journal's own extra fields; counts the record as lost if there is no room.
    pub(crate) fn put(
        &mut self,
        envelope: &Envelope,
        detail: &[u8],
        erasure: Option<&Erasure>,
        snapshot: &mut dyn FnMut() -> Vec<u8>,
    ) -> Result<Appended, AppendError> {
        if let Some(why) = &self.shared.lock().failed {
            return Err(AppendError::Failed(why.clone()));
        }
        if detail.len() > DETAIL_BYTES_MAX {
            return Err(AppendError::TooLong { part: "detail", bytes: detail.len(), bytes_max: DETAIL_BYTES_MAX });
        }
        let written = self
            .put_gap(envelope, snapshot)
            .and_then(|()| self.write(envelope, detail, &Extra { erasure, gap: None }, snapshot));
        if let Err(AppendError::Full { .. }) = written {
            let lost = self.loss.count(envelope.at.unix_ns);
            return Err(AppendError::Full { lost });
        }
        written
    }

    fn put_gap(&mut self, like: &Envelope, snapshot: &mut dyn FnMut() -> Vec<u8>) -> Result<(), AppendError> {
        let Some(gap) = self.loss.pending else { return Ok(()) };
        let own = own_envelope(RecordKind::Gap, "journal.gap", like, self.shared.options.owner)?;
        let Appended { sequence } = self.write(&own, b"{}", &Extra { erasure: None, gap: Some(gap) }, snapshot)?;
        self.loss.recorded(sequence);
        Ok(())
    }

    fn write(
        &mut self,
        envelope: &Envelope,
        detail: &[u8],
        extra: &Extra<'_>,
        snapshot: &mut dyn FnMut() -> Vec<u8>,
    ) -> Result<Appended, AppendError> {
        let mut rolled = false;
        loop {
            let sequence = self.sequence;
            let (bytes, leaf) = build(envelope, detail, sequence, None, extra)?;
            let fits = self.offset + bytes.len() as u64 <= self.length;
            if let Some(disk) = self.disk.as_ref().filter(|_| fits) {
                match disk.write_at(&bytes, self.offset) {
                    Ok(()) => {
                        self.offset += bytes.len() as u64;
                        self.sequence += 1;
                        let mut core = self.shared.lock();
                        let core = &mut *core;
                        core.tree.push(leaf, |tile| core.tiles.push(tile));
                        self.shared.wrote(core);
                        return Ok(Appended { sequence });
                    }
                    // A copy-on-write file system can be full in the middle of an allocated file.
                    Err(error) if no_room(&error) && !rolled => {}
                    Err(error) => return Err(self.failed(&error)),
                }
            } else if rolled {
                let bytes_max = usize::try_from(self.length - self.offset).unwrap_or(usize::MAX);
                return Err(AppendError::TooLong { part: "record", bytes: bytes.len(), bytes_max });
            }
            self.roll(envelope, snapshot)?;
            rolled = true;
        }
    }

    /// Begins a new segment with a snapshot record.
    fn roll(&mut self, like: &Envelope, snapshot: &mut dyn FnMut() -> Vec<u8>) -> Result<(), AppendError> {
        let state = snapshot();
        if state.len() > SNAPSHOT_BYTES_MAX {
            let (bytes, bytes_max) = (state.len(), SNAPSHOT_BYTES_MAX);
            return Err(AppendError::TooLong { part: "snapshot", bytes, bytes_max });
        }
        let shared = Arc::clone(&self.shared);
        let envelope = own_envelope(RecordKind::Snapshot, "journal.snapshot", like, shared.options.owner)?;
        if let Some(disk) = &self.disk {
            // INVARIANT: a segment can be found only when everything before it is durable.
            if let Err(error) = disk.sync().and_then(|()| shared.storage.sync_names()) {
                return Err(self.failed(&error));
            }
        }
        let mut core = shared.lock_prepared();
        let core = &mut *core;
        let peaks = core.tree.range().peaks().iter().map(|peak| hex(peak)).collect();
        let (bytes, leaf) = build(&envelope, &state, self.sequence, Some(peaks), &Extra::default())?;
        let mut start = frame::preface(&core.tree);
        start.extend_from_slice(&bytes);

        let spare = core.spare.take().or_else(|| shared.storage.create(SPARE, shared.options.segment_bytes).ok());
        let (disk, path, reserve) = match (spare, core.reserve.take()) {
            (Some(spare), reserve) => {
                core.reserve = reserve;
                (spare, SPARE, false)
            }
            (None, Some(reserve)) => (reserve, RESERVE, true),
            (None, None) => return Err(AppendError::Full { lost: 0 }),
        };
        let begun = disk.length().and_then(|length| {
            if start.len() as u64 > length {
                return Ok(None);
            }
            disk.write_at(&start, 0)?;
            shared.storage.rename(path, &segment_path(self.sequence))?;
            Ok(Some(length))
        });
        match begun {
            Ok(Some(length)) => self.length = length,
            Ok(None) => {
                if reserve {
                    core.reserve = Some(disk)
                } else {
                    core.spare = Some(disk)
                }
                let bytes_max = usize::try_from(shared.options.segment_bytes).unwrap_or(usize::MAX);
                return Err(AppendError::TooLong { part: "snapshot", bytes: start.len(), bytes_max });
            }
            Err(error) if no_room(&error) => {
                if reserve {
                    core.reserve = Some(disk)
                } else {
                    core.spare = Some(disk)
                }
                return Err(AppendError::Full { lost: 0 });
            }
            Err(error) => {
                let why = format!("cannot begin a segment: {error}");
                core.failed = Some(why.clone());
                return Err(AppendError::Failed(why));
            }
        }
        self.offset = start.len() as u64;
        self.in_reserve = reserve;
        core.synced = core.synced.max(self.sequence);
        self.sequence += 1;
        core.names_dirty = true;
        core.disk = Some(Arc::clone(&disk));
        self.disk = Some(disk);
        core.tree.push(leaf, |tile| core.tiles.push(tile));
        shared.wrote(core);
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> AppendError {
        let why = format!("cannot write a record: {error}");
        self.shared.lock().failed = Some(why.clone());
        AppendError::Failed(why)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.end();
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("state", &self.state()).finish_non_exhaustive()
    }
}

/// What the journal adds to an envelope on some records.
#[derive(Default)]
struct Extra<'a> {
    erasure: Option<&'a Erasure>,
    gap: Option<Gap>,
}

/// A frame's bytes and its leaf hash.
fn build(
    envelope: &Envelope,
    detail: &[u8],
    sequence: u64,
    peaks: Option<Vec<String>>,
    extra: &Extra<'_>,
) -> Result<(Vec<u8>, creel_seal::Hash), AppendError> {
    let salt: [u8; 16] = random()?;
    let sealed = Sealed {
        sequence,
        detail_digest: Digest::from_bytes(&detail_digest(&salt, detail)).0,
        detail_bytes: detail.len() as u64,
        peaks,
        erasure: extra.erasure.cloned(),
        gap: extra.gap,
    };
    let bytes = seal(envelope, &sealed).ok_or(AppendError::Unwritable)?;
    if bytes.len() > ENVELOPE_BYTES_MAX {
        let (bytes, bytes_max) = (bytes.len(), ENVELOPE_BYTES_MAX);
        return Err(AppendError::TooLong { part: "envelope", bytes, bytes_max });
    }
    let leaf = leaf_hash(&bytes);
    Ok((frame::frame(sequence, &salt, &leaf, &bytes, detail), leaf))
}

/// An envelope of the journal itself, at the time and place of the record that made it necessary.
fn own_envelope(kind: RecordKind, code: &str, like: &Envelope, owner: u32) -> Result<Envelope, AppendError> {
    Ok(Envelope {
        schema: EVENT_SCHEMA.to_owned(),
        kind,
        at: like.at,
        boot_id: like.boot_id.clone(),
        action_id: ActionId::from_random(random()?),
        trace_id: None,
        causes: Vec::new(),
        owner,
        subject: None,
        point: None,
        event: None,
        tool: None,
        verdict: None,
        rules: Vec::new(),
        audit_rules: Vec::new(),
        code: Some(code.to_owned()),
        bundle: None,
        bundle_trust: None,
        engine: like.engine.clone(),
        detectors: None,
        payload_bytes: 0,
        took_ns: 0,
        effects: 0,
    })
}

fn random() -> Result<[u8; 16], AppendError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| AppendError::Failed(format!("no randomness: {error}")))?;
    Ok(bytes)
}

fn no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Counts lost records in a file whose space was taken beforehand, so that the count survives a restart.
struct Loss {
    pending: Option<Gap>,
    ledger: Option<Arc<dyn Disk>>,
}

const LOSS: &str = "loss";
const LOSS_BYTES: u64 = 4096;
/// In place of a gap record's number: it is not written yet.
const NOT_RECORDED: u64 = u64::MAX;

impl Loss {
    fn open(storage: &dyn Storage, restored: &recover::Restored) -> Result<Self, OpenError> {
        let Some(ledger) = storage.open(LOSS, true)? else {
            // Without room for the count there is also none for records; the count is then kept in memory only.
            return Ok(Self { pending: None, ledger: storage.create(LOSS, LOSS_BYTES).ok() });
        };
        let mut bytes = [0; 64];
        ledger.read_at(&mut bytes, 0)?;
        let (numbers, check) = bytes.split_at(32);
        let number = |at: usize| numbers.get(at..)?.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
        let pending = match (number(0), number(8), number(16), number(24)) {
            (Some(lost @ 1..), Some(first), Some(last), Some(recorded_in))
                if creel_seal::sha256(numbers) == *check && !restored.has_gap(recorded_in) =>
            {
                Some(Gap { lost, first_unix_ns: first.cast_signed(), last_unix_ns: last.cast_signed() })
            }
            _ => None,
        };
        Ok(Self { pending, ledger: Some(ledger) })
    }

    /// One more is lost; returns how many are.
    fn count(&mut self, unix_ns: i64) -> u64 {
        let gap = self.pending.get_or_insert(Gap { lost: 0, first_unix_ns: unix_ns, last_unix_ns: unix_ns });
        gap.lost += 1;
        gap.last_unix_ns = unix_ns;
        let gap = *gap;
        self.note(&gap, NOT_RECORDED, gap.lost.is_power_of_two());
        gap.lost
    }

    /// The gap record has been written. The count stays, with that number, until it is known to be durable.
    fn recorded(&mut self, sequence: u64) {
        if let Some(gap) = self.pending.take() {
            self.note(&gap, sequence, false);
        }
    }

    fn note(&self, gap: &Gap, recorded_in: u64, durable: bool) {
        let Some(ledger) = &self.ledger else { return };
        let numbers = [gap.lost, gap.first_unix_ns.cast_unsigned(), gap.last_unix_ns.cast_unsigned(), recorded_in];
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        bytes.extend_from_slice(&creel_seal::sha256(&bytes));
        // A ledger that cannot be written leaves the count in memory, where `state` still shows it.
        if ledger.write_at(&bytes, 0).is_ok() && durable {
            let _ = ledger.sync();
        }
    }
}

impl std::fmt::Display for AppendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AppendError::TooLong { part, bytes, bytes_max } => {
                write!(f, "the {part} has {bytes} bytes, at most {bytes_max} can be recorded")
            }
            AppendError::Unwritable => f.write_str("the record cannot be written as canonical JSON"),
            AppendError::Full { lost } => write!(f, "no room to record, {lost} records lost so far"),
            AppendError::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for AppendError {}
