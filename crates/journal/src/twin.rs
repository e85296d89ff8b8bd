//! The in-memory twin of the disk: it keeps every operation, and rebuilds what a kill or a power cut would leave.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::storage::{Disk, Storage};

/// One operation, in the order in which it was asked for.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create {
        file: u64,
        path: String,
        bytes: usize,
    },
    Write {
        file: u64,
        offset: usize,
        bytes: Vec<u8>,
    },
    Sync {
        file: u64,
    },
    Rename {
        from: String,
        to: String,
    },
    Remove {
        path: String,
    },
    SyncNames,
    /// The test says what has returned by now.
    Mark {
        appended: u64,
        synced: u64,
    },
}

#[derive(Clone, Default)]
struct World {
    names: BTreeMap<String, u64>,
    files: BTreeMap<u64, Vec<u8>>,
    log: Vec<Op>,
    next_file: u64,
    capacity: Option<usize>,
    syncs_fail: bool,
}

/// A disk in memory.
#[derive(Clone, Default)]
pub(crate) struct Twin {
    world: Arc<Mutex<World>>,
    locked: Arc<AtomicBool>,
}

struct TwinFile {
    world: Arc<Mutex<World>>,
    file: u64,
}

struct TwinLock(Arc<AtomicBool>);

impl Drop for TwinLock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// Seeded random numbers (xorshift); a failing test prints its seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

impl Twin {
    /// From now on at most this many bytes fit. `None`: any number.
    pub(crate) fn set_capacity(&self, bytes: Option<usize>) {
        self.world.lock().unwrap().capacity = bytes;
    }

    /// Bytes of all files.
    pub(crate) fn used(&self) -> usize {
        self.world.lock().unwrap().used()
    }

    /// From now on every sync fails.
    pub(crate) fn fail_syncs(&self) {
        self.world.lock().unwrap().syncs_fail = true;
    }

    /// Says what has returned by now.
    pub(crate) fn mark(&self, appended: u64, synced: u64) {
        self.world.lock().unwrap().log.push(Op::Mark { appended, synced });
    }

    /// The disk after a power cut at this moment. Its history is that of this one, as what begins durable.
    pub(crate) fn cut_now(&self, random: &mut Random) -> Self {
        let cut = Self::cut(&self.log(), random);
        {
            let mut world = cut.world.lock().unwrap();
            let World { names, files, .. } = world.clone();
            for (path, file) in &names {
                let bytes = files[file].len();
                world.log.push(Op::Create { file: *file, path: path.clone(), bytes });
                world.log.push(Op::Write { file: *file, offset: 0, bytes: files[file].clone() });
                world.log.push(Op::Sync { file: *file });
            }
            world.log.push(Op::SyncNames);
        }
        cut
    }

    /// Everything that was asked for.
    pub(crate) fn log(&self) -> Vec<Op> {
        self.world.lock().unwrap().log.clone()
    }

    /// The disk after a process was killed behind `ops`, with only the first `partial` bytes of the `last` write done.
    pub(crate) fn killed(ops: &[Op], last: Option<(&Op, usize)>) -> Self {
        let mut world = World::default();
        ops.iter().for_each(|op| world.apply(op));
        if let Some((Op::Write { file, offset, bytes }, partial)) = last {
            world.apply(&Op::Write { file: *file, offset: *offset, bytes: bytes[..partial].to_vec() });
        }
        world.log.clear();
        Self { world: Arc::new(Mutex::new(world)), locked: Arc::default() }
    }

    /// The disk after a power cut behind `ops`: of what was not synced, each 512-byte sector is there or not, and names
    /// changed up to some point only.
    pub(crate) fn cut(ops: &[Op], random: &mut Random) -> Self {
        let mut durable = World::default();
        let mut pending_writes: BTreeMap<u64, Vec<Op>> = BTreeMap::new();
        let mut pending_names: Vec<Op> = Vec::new();
        for op in ops {
            match op {
                Op::Create { file, bytes, .. } => {
                    durable.files.insert(*file, vec![0; *bytes]);
                    durable.next_file = durable.next_file.max(file + 1);
                    pending_names.push(op.clone());
                }
                Op::Write { file, .. } => pending_writes.entry(*file).or_default().push(op.clone()),
                Op::Sync { file } => {
                    pending_writes.remove(file).unwrap_or_default().iter().for_each(|op| durable.apply(op));
                }
                Op::Rename { .. } | Op::Remove { .. } => pending_names.push(op.clone()),
                Op::SyncNames => pending_names.drain(..).for_each(|op| durable.apply_name(&op)),
                Op::Mark { .. } => {}
            }
        }
        let kept = random.below(pending_names.len() as u64 + 1) as usize;
        pending_names.iter().take(kept).for_each(|op| durable.apply_name(op));
        for op in pending_writes.values().flatten() {
            let Op::Write { file, offset, bytes } = op else { continue };
            let mut at = 0;
            while at < bytes.len() {
                let end = bytes.len().min(at + 512 - (offset + at) % 512);
                if random.below(2) == 0 {
                    durable.apply(&Op::Write { file: *file, offset: offset + at, bytes: bytes[at..end].to_vec() });
                }
                at = end;
            }
        }
        durable.log.clear();
        Self { world: Arc::new(Mutex::new(durable)), locked: Arc::default() }
    }
}

impl World {
    fn used(&self) -> usize {
        self.names.values().map(|file| self.files[file].len()).sum()
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { file, bytes, .. } => {
                self.files.insert(*file, vec![0; *bytes]);
                self.next_file = self.next_file.max(file + 1);
                self.apply_name(op);
            }
            Op::Write { file, offset, bytes } => {
                let contents = self.files.get_mut(file).unwrap();
                let length = contents.len().max(offset + bytes.len());
                contents.resize(length, 0);
                contents[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Op::Rename { .. } | Op::Remove { .. } => self.apply_name(op),
            Op::Sync { .. } | Op::SyncNames | Op::Mark { .. } => {}
        }
    }

    fn apply_name(&mut self, op: &Op) {
        match op {
            Op::Create { file, path, .. } => drop(self.names.insert(path.clone(), *file)),
            Op::Rename { from, to } => {
                let file = self.names.remove(from).unwrap();
                self.names.insert(to.clone(), file);
            }
            Op::Remove { path } => drop(self.names.remove(path)),
            _ => {}
        }
    }

    fn act(&mut self, op: Op) {
        self.apply(&op);
        self.log.push(op);
    }

    fn create(&mut self, path: &str, bytes: usize) -> io::Result<u64> {
        // An earlier file of that name is truncated, as the real disk does it.
        let freed = self.names.get(path).map_or(0, |file| self.files[file].len());
        if self.capacity.is_some_and(|capacity| self.used() - freed + bytes > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = self.next_file;
        self.act(Op::Create { file, path: path.to_owned(), bytes });
        Ok(file)
    }
}

impl Disk for TwinFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.world.lock().unwrap().files[&self.file].len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let world = self.world.lock().unwrap();
        let contents = &world.files[&self.file];
        let from = contents.len().min(offset as usize);
        let count = buffer.len().min(contents.len() - from);
        buffer[..count].copy_from_slice(&contents[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let op = Op::Write { file: self.file, offset: offset as usize, bytes: bytes.to_vec() };
        self.world.lock().unwrap().act(op);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.world.lock().unwrap();
        if world.syncs_fail {
            return Err(io::Error::other("the disk is broken"));
        }
        world.act(Op::Sync { file: self.file });
        Ok(())
    }
}

impl Storage for Twin {
    fn lock(&self) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let free = !self.locked.swap(true, Ordering::SeqCst);
        Ok(free.then(|| Box::new(TwinLock(Arc::clone(&self.locked))) as Box<dyn Send + Sync>))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let world = self.world.lock().unwrap();
        let inside = |path: &String| path.strip_prefix(folder)?.strip_prefix('/').map(str::to_owned);
        Ok(world.names.keys().filter_map(inside).collect())
    }

    fn open(&self, path: &str, _write: bool) -> io::Result<Option<Arc<dyn Disk>>> {
        let file = self.world.lock().unwrap().names.get(path).copied();
        Ok(file.map(|file| Arc::new(TwinFile { world: Arc::clone(&self.world), file }) as Arc<dyn Disk>))
    }

    fn create(&self, path: &str, bytes: u64) -> io::Result<Arc<dyn Disk>> {
        let file = self.world.lock().unwrap().create(path, bytes as usize)?;
        Ok(Arc::new(TwinFile { world: Arc::clone(&self.world), file }))
    }

    fn replace(&self, path: &str, contents: &[u8], durable: bool) -> io::Result<()> {
        let mut world = self.world.lock().unwrap();
        let temporary = format!("{path}.tmp");
        if world.capacity.is_some_and(|capacity| world.used() + contents.len() > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = world.create(&temporary, 0)?;
        world.act(Op::Write { file, offset: 0, bytes: contents.to_vec() });
        world.act(Op::Sync { file });
        world.act(Op::Rename { from: temporary, to: path.to_owned() });
        if durable {
            world.act(Op::SyncNames);
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.world.lock().unwrap().act(Op::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        self.world.lock().unwrap().act(Op::SyncNames);
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.world.lock().unwrap().act(Op::Remove { path: path.to_owned() });
        Ok(())
    }
}
