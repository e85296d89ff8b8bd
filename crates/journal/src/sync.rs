//! The journal's thread: makes records durable, writes tiles, signs heads, sends anchors, prepares files.
//!
//! INVARIANT: a head is signed only after everything below it is durable. A recovered journal that is shorter than its
//! signed head has therefore been damaged, not merely interrupted.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use creel_seal::{Checkpoint, FullTile, Tree, tile};

use crate::storage::{Disk, SEGMENTS, Storage};
use crate::writer::Options;

/// How often files that could not be made are tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Full tiles that wait for the disk; beyond, they are left for the next start to make again from the segments.
const TILES_MAX: usize = 4096;

/// The names of the prepared files.
pub(crate) const SPARE: &str = "segments/spare";
pub(crate) const RESERVE: &str = "segments/reserve";
pub(crate) const CHECKPOINT: &str = "checkpoint";

/// What the writer and the thread share.
pub(crate) struct Shared {
    core: Mutex<Core>,
    /// Tells the thread that there is work.
    wake: Condvar,
    /// Tells those who wait that the thread got further.
    done: Condvar,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) options: Options,
}

/// The shared state; the lock is held for moments only, never over a sync.
pub(crate) struct Core {
    pub(crate) tree: Tree,
    pub(crate) disk: Option<Arc<dyn Disk>>,
    pub(crate) names_dirty: bool,
    pub(crate) tiles: Vec<FullTile>,
    /// Number of records that are durable.
    pub(crate) synced: u64,
    /// Number of records that somebody waits for.
    wanted: u64,
    publish_asked: u64,
    publish_done: u64,
    /// Size of the newest signed head on disk.
    pub(crate) published: u64,
    pub(crate) note: String,
    pub(crate) spare: Option<Arc<dyn Disk>>,
    pub(crate) reserve: Option<Arc<dyn Disk>>,
    /// The thread is making one of these two.
    preparing: bool,
    /// The thread waits without knowing of unsynced records.
    sleeping: bool,
    stop: bool,
    pub(crate) failed: Option<String>,
    pub(crate) trouble: Option<String>,
    pub(crate) anchors: Vec<AnchorState>,
}

/// The prepared files that a writer found or made when it opened the journal.
pub(crate) struct Prepared {
    pub(crate) spare: Option<Arc<dyn Disk>>,
    pub(crate) reserve: Option<Arc<dyn Disk>>,
}

/// How one anchor target fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnchorState {
    /// Which log, in words.
    pub target: String,
    /// Size of the newest head that was handed to it.
    pub anchored: Option<u64>,
    /// Why the last attempt did not succeed.
    pub absent: Option<String>,
}

/// Why records could not be made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncError(
    /// What the system said.
    pub String,
);

/// Waits for durability from any thread.
#[derive(Clone)]
pub struct Syncer {
    pub(crate) shared: Arc<Shared>,
}

impl Syncer {
    /// Waits until the record with this number is durable.
    pub fn wait(&self, sequence: u64) -> Result<(), SyncError> {
        self.shared.wait_synced(sequence.saturating_add(1))
    }
}

impl std::fmt::Debug for Syncer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Syncer")
    }
}

impl Shared {
    /// A journal's state after recovery, everything in it durable.
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        options: Options,
        tree: Tree,
        disk: Option<Arc<dyn Disk>>,
        files: Prepared,
        published: (u64, String),
    ) -> Self {
        let anchors = options
            .anchors
            .iter()
            .map(|target| AnchorState { target: target.to_string(), anchored: None, absent: None })
            .collect();
        let synced = tree.size();
        let core = Core {
            tree,
            disk,
            names_dirty: false,
            tiles: Vec::new(),
            synced,
            wanted: 0,
            publish_asked: 0,
            publish_done: 0,
            published: published.0,
            note: published.1,
            spare: files.spare,
            reserve: files.reserve,
            preparing: false,
            sleeping: false,
            stop: false,
            failed: None,
            trouble: None,
            anchors,
        };
        Self { core: Mutex::new(core), wake: Condvar::new(), done: Condvar::new(), storage, options }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state at a moment when no file is being made.
    pub(crate) fn lock_prepared(&self) -> MutexGuard<'_, Core> {
        let core = self.lock();
        self.done.wait_while(core, |core| core.preparing).unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the thread of a record, if it does not know that there are any.
    pub(crate) fn wrote(&self, core: &mut Core) {
        if std::mem::take(&mut core.sleeping) {
            self.wake.notify_one();
        }
    }

    /// Waits until the first `count` records are durable.
    pub(crate) fn wait_synced(&self, count: u64) -> Result<(), SyncError> {
        let mut core = self.lock();
        let count = count.min(core.tree.size());
        core.wanted = core.wanted.max(count);
        self.wake.notify_one();
        let core = self
            .done
            .wait_while(core, |core| core.synced < count && core.failed.is_none() && !core.stop)
            .unwrap_or_else(PoisonError::into_inner);
        match &core.failed {
            _ if core.synced >= count => Ok(()),
            Some(why) => Err(SyncError(why.clone())),
            None => Err(SyncError("the journal was closed".to_owned())),
        }
    }

    /// Signs and anchors a head over everything that is written now; returns its note.
    pub(crate) fn publish(&self) -> Result<String, SyncError> {
        let mut core = self.lock();
        core.publish_asked += 1;
        let asked = core.publish_asked;
        let size = core.tree.size();
        self.wake.notify_one();
        let core = self
            .done
            .wait_while(core, |core| core.publish_done < asked && core.failed.is_none() && !core.stop)
            .unwrap_or_else(PoisonError::into_inner);
        match core.failed.as_ref().or(core.trouble.as_ref()) {
            _ if core.published >= size && core.publish_done >= asked => Ok(core.note.clone()),
            Some(why) => Err(SyncError(why.clone())),
            None => Err(SyncError("the journal was closed".to_owned())),
        }
    }

    /// Lets the thread finish: it makes everything durable, signs a last head and ends.
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.wake.notify_one();
        self.done.notify_all();
    }

    /// The thread's whole life.
    pub(crate) fn run(&self) {
        let mut publisher = Publisher::new(&self.lock());
        loop {
            let round = self.next_round(&mut publisher);
            self.sync(&round);
            if round.make_files {
                // Only what failed is tried again later; a segment that was taken is replaced at once.
                let made = self.prepare(round.stop);
                publisher.prepared = (!made).then(Instant::now);
            }
            self.write_tiles(round.tiles);
            if let Some((tree, asked)) = round.publish {
                self.publish_head(&mut publisher, &tree, asked > 0 || round.stop);
                let mut core = self.lock();
                core.publish_done = core.publish_done.max(asked);
            }
            self.done.notify_all();
            if round.stop {
                return;
            }
        }
    }

    /// Waits for work and takes it.
    fn next_round(&self, publisher: &mut Publisher) -> Round {
        let options = &self.options;
        let mut core = self.lock();
        loop {
            let now = Instant::now();
            let healthy = core.failed.is_none();
            let asked = core.publish_asked > core.publish_done;
            let urgent = core.stop || (healthy && (core.wanted > core.synced || asked));
            let due = |since: Option<Instant>, every| since.map_or(now, |since| since + every);
            let dirty = healthy && core.tree.size() > core.synced;
            let sync_at = dirty.then(|| due(publisher.synced, options.sync_every));
            let unpublished = healthy && core.tree.size() > core.published;
            let publish_at = (unpublished || publisher.published.is_none() && healthy)
                .then(|| due(publisher.published, options.checkpoint_every));
            // The last head before a quiet time is anchored too, even if nothing follows.
            let anchor_at = (healthy && !options.anchors.is_empty() && core.published > publisher.anchored_size)
                .then(|| due(publisher.anchored, options.anchor_every));
            let files_missing = core.spare.is_none() || core.reserve.is_none();
            let files_at = (healthy && files_missing).then(|| due(publisher.prepared, RETRY));
            let next = [sync_at, publish_at, anchor_at, files_at].into_iter().flatten().min();
            if urgent || next.is_some_and(|next| next <= now) {
                let publish = asked || core.stop || [publish_at, anchor_at].into_iter().flatten().any(|at| at <= now);
                let make_files = !core.stop && files_at.is_some_and(|at| at <= now);
                core.preparing = make_files;
                publisher.synced = Some(now);
                return Round {
                    size: core.tree.size(),
                    disk: core.disk.clone().filter(|_| dirty),
                    names: std::mem::take(&mut core.names_dirty),
                    tiles: std::mem::take(&mut core.tiles),
                    publish: (publish && healthy).then(|| (core.tree.clone(), core.publish_asked)),
                    make_files,
                    stop: core.stop,
                };
            }
            core.sleeping = !dirty;
            core = match next {
                Some(next) => self.wake.wait_timeout(core, next - now).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wake.wait(core).unwrap_or_else(PoisonError::into_inner),
            };
            core.sleeping = false;
        }
    }

    fn sync(&self, round: &Round) {
        let synced = round
            .disk
            .as_ref()
            .map_or(Ok(()), |disk| disk.sync())
            .and_then(|()| if round.names { self.storage.sync_names() } else { Ok(()) });
        let mut core = self.lock();
        match synced {
            Ok(()) => core.synced = core.synced.max(round.size),
            // A failed sync may have dropped the pages; nothing can be promised any more until a restart reads anew.
            Err(error) => core.failed = Some(format!("cannot make records durable: {error}")),
        }
        drop(core);
        self.done.notify_all();
    }

    /// Makes the spare segment and, after it, the reserve.
    fn prepare(&self, stop: bool) -> bool {
        let (spare, reserve) = {
            let core = self.lock();
            (core.spare.is_none() && !stop, core.reserve.is_none() && !stop)
        };
        let mut made_spare = None;
        let mut made_reserve = None;
        let mut made = || -> io::Result<()> {
            if spare {
                made_spare = Some(self.storage.create(SPARE, self.options.segment_bytes)?);
            }
            if reserve {
                made_reserve = Some(self.storage.create(RESERVE, self.options.reserve_bytes)?);
            }
            Ok(())
        };
        let result = made();
        let mut core = self.lock();
        core.preparing = false;
        core.spare = core.spare.take().or(made_spare);
        core.reserve = core.reserve.take().or(made_reserve);
        let made_all = result.is_ok();
        if let Err(error) = result {
            core.trouble = Some(format!("cannot prepare segments: {error}"));
        }
        drop(core);
        self.done.notify_all();
        made_all
    }

    fn write_tiles(&self, tiles: Vec<FullTile>) {
        let mut left = tiles.into_iter();
        while let Some(tile) = left.next() {
            let path = tile::path(tile.level, tile.number, None);
            if let Err(error) = self.storage.replace(&path, &tile.bytes, false) {
                let mut core = self.lock();
                core.trouble = Some(format!("cannot write `{path}`: {error}"));
                let newer = std::mem::take(&mut core.tiles);
                core.tiles = std::iter::once(tile).chain(left).chain(newer).take(TILES_MAX).collect();
                return;
            }
        }
    }

    /// Writes the unfinished tiles and the signed head of a durable tree, and hands the head to the anchors.
    fn publish_head(&self, publisher: &mut Publisher, tree: &Tree, anchor_now: bool) {
        if self.lock().failed.is_some() {
            return;
        }
        publisher.published = Some(Instant::now());
        let size = tree.size();
        let note = match self.write_head(publisher, tree) {
            Ok(note) => note,
            Err(error) => {
                self.lock().trouble = Some(format!("cannot write a checkpoint: {error}"));
                return;
            }
        };
        let due = publisher.anchored.is_none_or(|since| since.elapsed() >= self.options.anchor_every);
        if due || anchor_now {
            publisher.anchored = Some(Instant::now());
            publisher.anchored_size = size;
            let origin = self.options.key.name();
            let results: Vec<_> = self.options.anchors.iter().map(|target| target.send(&note, origin, size)).collect();
            let mut core = self.lock();
            for (state, result) in core.anchors.iter_mut().zip(results) {
                match result {
                    Ok(()) => (state.anchored, state.absent) = (Some(size), None),
                    Err(error) => state.absent = Some(error.to_string()),
                }
            }
        }
        let mut core = self.lock();
        core.published = size;
        core.note = note;
        core.trouble = None;
    }

    fn write_head(&self, publisher: &mut Publisher, tree: &Tree) -> io::Result<String> {
        let mut partials = Vec::new();
        for (level, hashes) in (0_u8..).zip(tree.edge()) {
            if let Ok(width @ 1..) = u8::try_from(hashes.len()) {
                let number = tree.size().checked_shr(tile::HEIGHT * (u32::from(level) + 1)).unwrap_or(0);
                let path = tile::path(level, number, Some(width));
                if !publisher.partials.contains(&path) {
                    self.storage.replace(&path, hashes.as_flattened(), false)?;
                }
                partials.push(path);
            }
        }
        let note = sign(&self.options, tree)?;
        self.storage.replace(CHECKPOINT, note.as_bytes(), true)?;
        for old in std::mem::replace(&mut publisher.partials, partials) {
            if !publisher.partials.contains(&old) {
                self.storage.remove(&old)?;
            }
        }
        Ok(note)
    }
}

/// The signed head of a tree.
pub(crate) fn sign(options: &Options, tree: &Tree) -> io::Result<String> {
    let head = Checkpoint { origin: options.key.name().to_owned(), size: tree.size(), root: tree.root() };
    head.sign(&options.key).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// What the thread remembers between rounds.
struct Publisher {
    synced: Option<Instant>,
    published: Option<Instant>,
    anchored: Option<Instant>,
    /// Size of the head that was handed to the anchors last.
    anchored_size: u64,
    prepared: Option<Instant>,
    /// Paths of the partial tiles of the newest head.
    partials: Vec<String>,
}

impl Publisher {
    fn new(core: &Core) -> Self {
        let size = core.published;
        let partials = (0..tile::levels(size))
            .filter_map(|level| {
                let width = tile::edge_width(size, level);
                let number = size.checked_shr(tile::HEIGHT * (u32::from(level) + 1)).unwrap_or(0);
                (width > 0).then(|| tile::path(level, number, Some(width)))
            })
            .collect();
        Self { synced: None, published: None, anchored: None, anchored_size: 0, prepared: None, partials }
    }
}

/// One round of the thread's work.
struct Round {
    size: u64,
    disk: Option<Arc<dyn Disk>>,
    names: bool,
    tiles: Vec<FullTile>,
    publish: Option<(Tree, u64)>,
    make_files: bool,
    stop: bool,
}

impl std::fmt::Display for SyncError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SyncError {}

const _: () = assert!(SEGMENTS.len() == 8, "SPARE and RESERVE are in the folder of the segments");
