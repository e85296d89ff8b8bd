//! The few things that the journal asks of a disk, and the real one.
//!
//! INVARIANT (what "returned" means): after [`Disk::write_at`] the bytes survive the end of this process, not a power
//! cut; after [`Disk::sync`] everything written to this file before survives a power cut; after [`Storage::rename`] and
//! [`Storage::sync_names`] so do the names; [`Storage::replace`] leaves the old or the new file after any crash.
//! The in-memory twin of the tests breaks everything that is not promised here.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, OFlags, fallocate};

/// An open file.
pub(crate) trait Disk: Send + Sync {
    /// Its length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Fills the buffer from `offset`; fewer bytes only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
}

/// A folder with the journal's files, named by relative path.
pub(crate) trait Storage: Send + Sync {
    /// Takes the writer's lock, held as long as the returned value lives. `None`: somebody else has it.
    fn lock(&self) -> io::Result<Option<Box<dyn Send + Sync>>>;
    /// Names in a folder, unordered; empty if there is no such folder.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Opens a file. `None`: there is none.
    fn open(&self, path: &str, write: bool) -> io::Result<Option<Arc<dyn Disk>>>;
    /// Creates a file of allocated zero bytes, in place of whatever has the name.
    fn create(&self, path: &str, bytes: u64) -> io::Result<Arc<dyn Disk>>;
    /// Puts a whole small file in place of another; `durable` waits until that survives a power cut.
    fn replace(&self, path: &str, contents: &[u8], durable: bool) -> io::Result<()>;
    /// Renames a file of the segments folder.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes names in the segments folder durable.
    fn sync_names(&self) -> io::Result<()>;
    /// Removes a file; no error if there is none.
    fn remove(&self, path: &str) -> io::Result<()>;
}

/// Reads a whole small file. `None`: there is none. Longer than `bytes_max` is an error.
pub(crate) fn read_small(storage: &dyn Storage, path: &str, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(disk) = storage.open(path, false)? else { return Ok(None) };
    let length = disk.length()?;
    if length > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("`{path}` is longer than {bytes_max} bytes")));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let read = disk.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// The folder where segments are.
pub(crate) const SEGMENTS: &str = "segments";

/// The first sequence numbers of all segments, ascending.
pub(crate) fn segments(storage: &dyn Storage) -> io::Result<Vec<u64>> {
    let mut found: Vec<u64> = storage
        .list(SEGMENTS)?
        .iter()
        .filter_map(|name| name.strip_suffix(".segment"))
        .filter(|digits| digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|digits| digits.parse().ok())
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// The path of the segment that begins with this sequence number.
pub(crate) fn segment_path(first: u64) -> String {
    format!("{SEGMENTS}/{first:020}.segment")
}

/// A folder of the machine.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// The folder as a reader finds it.
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The folder made ready for a writer: created with mode 0700 where it is missing, refused if it is not the
    /// writer's own real folder, closed to others if it was open.
    pub(crate) fn prepare(root: &Path) -> io::Result<Self> {
        let folder = Self::at(root);
        for path in [root.to_owned(), root.join(SEGMENTS), root.join("tile")] {
            match DirBuilder::new().mode(0o700).recursive(path == root).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let facts = fs::symlink_metadata(&path)?;
            let own = rustix::process::geteuid().as_raw();
            if !facts.is_dir() || facts.uid() != own {
                let text = format!("`{}` is not a folder of account {own}", path.display());
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
            }
            if facts.mode() & 0o077 != 0 {
                fs::set_permissions(&path, Permissions::from_mode(0o700))?;
            }
        }
        Ok(folder)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn options(write: bool) -> OpenOptions {
        let mut options = OpenOptions::new();
        // The standard library adds O_CLOEXEC.
        options.read(true).write(write).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        options
    }

    fn sync_folder(&self, path: &str) -> io::Result<()> {
        File::open(self.path(path))?.sync_all()
    }
}

impl Disk for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match std::os::unix::fs::FileExt::read_at(self, rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

impl Storage for Folder {
    fn lock(&self) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let file = Self::options(true).create(true).truncate(false).open(self.path("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.path(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, path: &str, write: bool) -> io::Result<Option<Arc<dyn Disk>>> {
        match Self::options(write).open(self.path(path)) {
            Ok(file) if file.metadata()?.is_file() => Ok(Some(Arc::new(file))),
            Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, format!("`{path}` is not a file"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, path: &str, bytes: u64) -> io::Result<Arc<dyn Disk>> {
        // Truncated first, so that nothing of an earlier life is ever read.
        let file = Self::options(true).create(true).truncate(true).open(self.path(path))?;
        let allocated = match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(&file, bytes),
            other => other.map_err(io::Error::from),
        };
        match allocated.and_then(|()| file.sync_all()) {
            Ok(()) => Ok(Arc::new(file)),
            Err(error) => {
                // Half a file would keep the space that somebody else may need.
                let _ = fs::remove_file(self.path(path));
                Err(error)
            }
        }
    }

    fn replace(&self, path: &str, contents: &[u8], durable: bool) -> io::Result<()> {
        let target = self.path(path);
        let temporary = self.path(&format!("{path}.tmp"));
        if let Some(parent) = target.parent() {
            DirBuilder::new().mode(0o700).recursive(true).create(parent)?;
        }
        let mut file = Self::options(true).create(true).truncate(true).open(&temporary)?;
        file.write_all(contents)?;
        // Always before the rename: else a power cut could leave the name with nothing behind it.
        file.sync_data()?;
        fs::rename(&temporary, &target)?;
        match target.parent() {
            Some(parent) if durable => File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.sync_folder(SEGMENTS)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        match fs::remove_file(self.path(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Allocation for file systems without `fallocate`.
fn write_zeros(file: &File, bytes: u64) -> io::Result<()> {
    let zeros = [0; 64 * 1024];
    let mut offset = 0;
    while offset < bytes {
        let count = usize::try_from(bytes - offset).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all_at(zeros.get(..count).unwrap_or(&zeros), offset)?;
        offset += count as u64;
    }
    Ok(())
}
