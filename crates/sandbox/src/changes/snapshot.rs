//! What stands in a workspace, into one file of the run's folder: names, identities, sizes, times; and digests of small
//! files as far as a budget goes.
//!
//! ```text
//! before    magic, then per entry: path, device, inode, mode, size, content time, change time; a closing mark when whole
//! digests   magic, then per file: path, SHA-256
//! ```
//! Entries stand in the order of a walk that takes each folder's names in the order of their bytes, so that the walk at
//! the end reads along without holding either in memory. The one fact a newcomer gets wrong: the run goes on meanwhile.
//! An entry is what stood there *when the walk came by*; a change time after the run's beginning says that this was late.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use creel_model::id::Digest;
use rustix::fs::{FileType, Mode, OFlags};

use crate::review::compare::{NAMES_MAX, digest};
use crate::review::fd::{self, Stamp};
use crate::review::{Folder, FolderError, Relative};

/// Entries that are noted; what comes later is answered for by change times alone.
pub(crate) const ENTRIES_MAX: u64 = 250_000;
/// Bytes of a file whose content is hashed at the start.
const DIGEST_BYTES_MAX: u64 = 1 << 20;
/// Bytes that are hashed at the start, all files together.
const DIGEST_BYTES_TOTAL: u64 = 64 << 20;
/// Folders whose files are not hashed at the start: other programs' stores, large and made again at any time.
const NOT_HASHED: [&str; 3] = [".git", "node_modules", "target"];

const MAGIC: &[u8; 16] = b"creel snapshot 1";
const ENTRY: u8 = b'E';
const DIGEST: u8 = b'D';
const WHOLE: u8 = b'Z';

/// Why no snapshot was taken. The run goes on; its changes are then found by change times.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The run's folder cannot be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Writing failed on the way.
    #[error("cannot write the snapshot: {0}")]
    Write(#[from] std::io::Error),
}

/// What came of taking a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Entries noted.
    pub entries: u64,
    /// Files hashed.
    pub digests: u64,
    /// Whether everything was noted.
    pub whole: bool,
}

/// The snapshot of a run's workspace.
#[derive(Debug)]
pub struct Snapshot;

impl Snapshot {
    /// Takes it in one go, without digests: the reviewed workspace keeps the old contents anyway.
    ///
    /// # Errors
    /// When the run's folder cannot be written.
    pub fn take(run: &Folder) -> Result<Taken, SnapshotError> {
        Self::take_until(run, false, &AtomicBool::new(false))
    }

    /// Takes it until told to stop; meant for a thread beside the run.
    ///
    /// # Errors
    /// When the run's folder cannot be written.
    pub fn take_until(run: &Folder, with_digests: bool, stop: &AtomicBool) -> Result<Taken, SnapshotError> {
        let mut taken = Taken::default();
        let mut out = BufWriter::with_capacity(64 << 10, create(run, "before")?);
        out.write_all(MAGIC)?;
        let mut failed = None;
        let whole = walk(run.workspace(), &mut |path, stamp| {
            if taken.entries >= ENTRIES_MAX || stop.load(Ordering::Relaxed) {
                return false;
            }
            taken.entries += 1;
            failed = write_entry(&mut out, path, stamp).err();
            failed.is_none()
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        if whole {
            out.write_all(&[WHOLE])?;
            taken.whole = true;
        }
        out.flush()?;
        drop(out);
        if with_digests && !stop.load(Ordering::Relaxed) {
            taken.digests = take_digests(run, stop)?;
        }
        Ok(taken)
    }
}

/// Reads a snapshot in its order.
pub(crate) struct Entries {
    input: BufReader<File>,
    /// Whether the closing mark was read.
    pub(crate) whole: bool,
    ended: bool,
}

/// The snapshot's entries; `None` when there is no snapshot of this version.
pub(crate) fn entries(run: &Folder) -> Option<Entries> {
    Some(Entries { input: open(run, "before")?, whole: false, ended: false })
}

/// What an undo of a commit put back, and how it stands since: as good as the snapshot.
pub(crate) fn restored(run: &Folder) -> impl Iterator<Item = (Relative, Stamp)> {
    open(run, "restored").map(|input| Entries { input, whole: false, ended: false }).into_iter().flatten()
}

/// Notes for [`restored`] how these paths stand now. When it cannot be noted, they count as changed: the safe side.
pub(crate) fn note_restored(run: &Folder, paths: &[Relative]) {
    let known: Vec<(Relative, Stamp)> = restored(run).collect();
    let now = paths.iter().filter_map(|path| {
        let (parent, name) = path.split()?;
        let folder = fd::below(run.workspace(), &parent).ok()?;
        Some((path.clone(), fd::stamp(folder.as_fd(), name).ok()??))
    });
    let write = || -> Result<(), SnapshotError> {
        let mut out = BufWriter::new(create(run, "restored")?);
        out.write_all(MAGIC)?;
        for (path, stamp) in known.into_iter().chain(now) {
            write_entry(&mut out, &path, &stamp)?;
        }
        Ok(out.flush()?)
    };
    let _ = write();
}

impl Iterator for Entries {
    type Item = (Relative, Stamp);

    /// Ends at the closing mark, and also where the file was cut off.
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let entry = match tag(&mut self.input) {
            Some(WHOLE) => {
                self.whole = true;
                None
            }
            Some(ENTRY) => read_entry(&mut self.input),
            _ => None,
        };
        self.ended = entry.is_none();
        entry
    }
}

/// Reads the digests taken at the start.
pub(crate) fn digests(run: &Folder) -> impl Iterator<Item = (Relative, Digest)> {
    let mut input = open(run, "digests");
    std::iter::from_fn(move || {
        let input = input.as_mut()?;
        if tag(input)? != DIGEST {
            return None;
        }
        let path = read_path(input)?;
        Some((path, Digest::from_bytes(&array(input)?)))
    })
}

/// Walks a folder in the snapshot's order: a folder before what is in it, names by their bytes. The visitor says whether
/// to go on. Answers whether everything was visited; what cannot be read or is beyond a bound is passed over and makes the
/// answer `false`.
pub(crate) fn walk(base: BorrowedFd<'_>, visit: &mut dyn FnMut(&Relative, &Stamp) -> bool) -> bool {
    fn folder(
        opened: &OwnedFd,
        at: &Relative,
        whole: &mut bool,
        visit: &mut dyn FnMut(&Relative, &Stamp) -> bool,
    ) -> bool {
        let Ok(Some(names)) = fd::names(opened.as_fd(), NAMES_MAX) else {
            *whole = false;
            return true;
        };
        for name in names {
            let Some(path) = at.join(name.as_bytes()) else {
                *whole = false;
                continue;
            };
            let stamp = match fd::stamp(opened.as_fd(), &name) {
                Ok(Some(stamp)) => stamp,
                // Gone since the folder was read.
                Ok(None) => continue,
                Err(_) => {
                    *whole = false;
                    continue;
                }
            };
            if !visit(&path, &stamp) {
                return false;
            }
            if stamp.kind() == FileType::Directory {
                match fd::child(opened.as_fd(), &name) {
                    Ok(inner) => {
                        if !folder(&inner, &path, whole, visit) {
                            return false;
                        }
                    }
                    Err(rustix::io::Errno::NOENT) => {}
                    Err(_) => *whole = false,
                }
            }
        }
        true
    }
    let Ok(top) = fd::below(base, &Relative::root()) else { return false };
    let mut whole = true;
    folder(&top, &Relative::root(), &mut whole, visit) && whole
}

/// Hashes small files in the snapshot's order. A file that changed since the run began is left out: its old content is
/// gone.
fn take_digests(run: &Folder, stop: &AtomicBool) -> Result<u64, SnapshotError> {
    let began = run.facts().began_unix_ns;
    let mut out = BufWriter::new(create(run, "digests")?);
    out.write_all(MAGIC)?;
    let (mut budget, mut count) = (DIGEST_BYTES_TOTAL, 0);
    for (path, noted) in entries(run).into_iter().flatten() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let hashed = noted.kind() == FileType::RegularFile
            && noted.size <= DIGEST_BYTES_MAX
            && noted.changed_ns < began
            && !path.parts().any(|part| NOT_HASHED.iter().any(|name| name.as_bytes() == part));
        let Some((parent, name)) = path.split().filter(|_| hashed) else { continue };
        let Some(rest) = budget.checked_sub(noted.size) else { break };
        budget = rest;
        if let Some(digest) = digest_of_unchanged(run.workspace(), &parent, name, &noted) {
            write_digest(&mut out, &path, &digest)?;
            count += 1;
        }
    }
    out.flush()?;
    Ok(count)
}

/// The digest, when the file was the noted one both before and after reading.
fn digest_of_unchanged(base: BorrowedFd<'_>, parent: &Relative, name: &OsStr, noted: &Stamp) -> Option<[u8; 32]> {
    let folder = fd::below(base, parent).ok()?;
    let same = || fd::stamp(folder.as_fd(), name).ok().flatten().is_some_and(|now| now == *noted);
    if !same() {
        return None;
    }
    let digest = digest(folder.as_fd(), name, DIGEST_BYTES_MAX).ok()??;
    same().then_some(digest)
}

fn create(run: &Folder, name: &str) -> Result<File, FolderError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(run.fd(), name, flags, Mode::RUSR | Mode::WUSR);
    opened.map(File::from).map_err(|error| FolderError::system("make", &run.path().join(name), error))
}

fn open(run: &Folder, name: &str) -> Option<BufReader<File>> {
    let (opened, _) = fd::file(run.fd(), OsStr::new(name)).ok()??;
    let mut input = BufReader::with_capacity(64 << 10, File::from(opened));
    (array::<16>(&mut input)? == *MAGIC).then_some(input)
}

fn write_entry(out: &mut impl Write, path: &Relative, stamp: &Stamp) -> std::io::Result<()> {
    write_path(out, ENTRY, path)?;
    for number in [stamp.device, stamp.inode, u64::from(stamp.mode), stamp.links, stamp.size, stamp.node] {
        out.write_all(&number.to_le_bytes())?;
    }
    out.write_all(&stamp.modified_ns.to_le_bytes())?;
    out.write_all(&stamp.changed_ns.to_le_bytes())
}

fn read_entry(input: &mut impl Read) -> Option<(Relative, Stamp)> {
    let path = read_path(input)?;
    let mut number = || array(input).map(u64::from_le_bytes);
    let (device, inode, mode) = (number()?, number()?, u32::try_from(number()?).ok()?);
    let (links, size, node) = (number()?, number()?, number()?);
    let mut time = || array(input).map(i64::from_le_bytes);
    let (modified_ns, changed_ns) = (time()?, time()?);
    Some((path, Stamp { device, inode, mode, links, size, modified_ns, changed_ns, node }))
}

fn write_digest(out: &mut impl Write, path: &Relative, digest: &[u8; 32]) -> std::io::Result<()> {
    write_path(out, DIGEST, path)?;
    out.write_all(digest)
}

fn write_path(out: &mut impl Write, tag: u8, path: &Relative) -> std::io::Result<()> {
    out.write_all(&[tag])?;
    // A relative path is shorter than the kernel's longest.
    out.write_all(&u16::try_from(path.bytes().len()).unwrap_or(u16::MAX).to_le_bytes())?;
    out.write_all(path.bytes())
}

fn read_path(input: &mut impl Read) -> Option<Relative> {
    let length = u16::from_le_bytes(array(input)?);
    let mut bytes = vec![0; usize::from(length)];
    input.read_exact(&mut bytes).ok()?;
    Relative::parse(std::path::Path::new(OsStr::from_bytes(&bytes)))
}

fn tag(input: &mut impl Read) -> Option<u8> {
    array::<1>(input).map(|[tag]| tag)
}

fn array<const N: usize>(input: &mut impl Read) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use creel_model::cage::WorkspaceMode;

    use super::*;
    use crate::review::test::{move_file_clock, plan};

    fn run(dir: &std::path::Path) -> Folder {
        Folder::create(&dir.join("state"), &plan("r-1", &dir.join("work"), WorkspaceMode::Direct)).unwrap()
    }

    #[test]
    fn a_snapshot_reads_back_in_walk_order_with_digests_of_what_was_there_before() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("work");
        std::fs::create_dir_all(work.join("a")).unwrap();
        std::fs::create_dir_all(work.join(".git")).unwrap();
        for name in ["a/inner", "a.txt", "b", ".git/config"] {
            std::fs::write(work.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", work.join("link")).unwrap();
        move_file_clock(dir.path());
        let folder = run(dir.path());
        move_file_clock(dir.path());
        std::fs::write(work.join("b"), "changed since").unwrap();
        let taken = Snapshot::take_until(&folder, true, &AtomicBool::new(false)).unwrap();
        assert!(taken.whole);
        let mut entries = entries(&folder).unwrap();
        let names: Vec<String> = entries.by_ref().map(|(path, _)| path.shown()).collect();
        assert_eq!(names, [".git", ".git/config", "a", "a/inner", "a.txt", "b", "link"]);
        assert!(entries.whole);
        let hashed: Vec<String> = digests(&folder).map(|(path, _)| path.shown()).collect();
        // `b` has lost its old content, `.git` is not hashed, a link has no content.
        assert_eq!(hashed, ["a/inner", "a.txt"]);
    }

    #[test]
    fn a_stopped_or_cut_snapshot_says_that_it_is_not_whole() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        for name in 0..50 {
            std::fs::write(dir.path().join(format!("work/{name}")), "x").unwrap();
        }
        let folder = run(dir.path());
        let taken = Snapshot::take_until(&folder, true, &AtomicBool::new(true)).unwrap();
        assert_eq!(taken, Taken::default());
        Snapshot::take(&folder).unwrap();
        let file = folder.path().join("before");
        let whole = std::fs::read(&file).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&file, &whole[..length]).unwrap();
            let Some(mut entries) = entries(&folder) else {
                assert!(length < 16, "{length}");
                continue;
            };
            assert!(entries.by_ref().count() <= 50);
            assert!(!entries.whole, "{length}");
        }
    }
}
