//! Files by descriptor: open below a folder without following anything, list, look, remove whole trees.
//!
//! Every function takes the folder as a descriptor and names of single parts or a [`Relative`]; none resolves a symbolic
//! link, leaves the folder or crosses into `/proc`'s magic links. The one fact a newcomer gets wrong: a descriptor opened
//! with `O_PATH` was looked at but not opened, so looking has no effect on FIFOs, devices or access times.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::name::Relative;

/// Links are never followed, and nothing above the folder is reached.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// What is known of a file without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Device that holds it.
    pub(crate) device: u64,
    /// Number in that device.
    pub(crate) inode: u64,
    /// `S_IFMT` and permission bits.
    pub(crate) mode: u32,
    /// How many names it has.
    pub(crate) links: u64,
    /// Bytes; a link's is its target's length.
    pub(crate) size: u64,
    /// Last change of content, nanoseconds since 1970; anybody may set it.
    pub(crate) modified_ns: i64,
    /// Last change of anything, nanoseconds since 1970; only the kernel's clock sets it.
    pub(crate) changed_ns: i64,
    /// Device number of a device node, else 0.
    pub(crate) node: u64,
}

impl Stamp {
    /// Its kind.
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// Permission bits without set-id and sticky.
    pub(crate) fn permissions(&self) -> u32 {
        self.mode & 0o777
    }

    /// Whether it is the kernel's mark for "deleted in this layer".
    pub(crate) fn is_whiteout(&self) -> bool {
        self.kind() == FileType::CharacterDevice && self.node == 0
    }
}

impl From<Stat> for Stamp {
    #[expect(clippy::unnecessary_cast, reason = "the fields' types differ between architectures")]
    fn from(stat: Stat) -> Self {
        let ns = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            mode: stat.st_mode as u32,
            links: stat.st_nlink as u64,
            size: stat.st_size as u64,
            modified_ns: ns(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed_ns: ns(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            node: stat.st_rdev as u64,
        }
    }
}

/// A folder by its absolute path; the path's last part may not be a link.
pub(crate) fn folder(path: &std::path::Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// The folder at that place below another.
pub(crate) fn below(base: BorrowedFd<'_>, path: &Relative) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if path.is_root() {
        return rustix::fs::openat(base, ".", flags, Mode::empty());
    }
    rustix::fs::openat2(base, path.bytes(), flags, Mode::empty(), BENEATH)
}

/// The folder of that name in another.
pub(crate) fn child(base: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(base, name, flags, Mode::empty())
}

/// A regular file of that name for reading; `None` when it is something else (nothing was opened then but a look at it).
pub(crate) fn file(base: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Option<(OwnedFd, Stamp)>> {
    // A FIFO would wait without NONBLOCK; a device may act on being opened, so the kind is looked at first.
    if stamp(base, name)?.is_none_or(|stamp| stamp.kind() != FileType::RegularFile) {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(base, name, flags, Mode::empty())?;
    let stamp = Stamp::from(rustix::fs::fstat(&opened)?);
    Ok((stamp.kind() == FileType::RegularFile).then_some((opened, stamp)))
}

/// What stands at that name; `None` when nothing does.
pub(crate) fn stamp(base: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Option<Stamp>> {
    match rustix::fs::statat(base, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT) {
        Ok(stat) => Ok(Some(stat.into())),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A link's target.
pub(crate) fn target(base: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Vec<u8>> {
    rustix::fs::readlinkat(base, name, Vec::new()).map(CString::into_bytes)
}

/// Names in a folder, in the order of their bytes, without `.` and `..`; `None` when there are more than `max`.
pub(crate) fn names(folder: BorrowedFd<'_>, max: usize) -> rustix::io::Result<Option<Vec<OsString>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            if names.len() >= max {
                return Ok(None);
            }
            names.push(OsString::from_vec(name.to_vec()));
        }
    }
    names.sort_unstable();
    Ok(Some(names))
}

/// Removes what stands at that name, with all below it, and is content when nothing does.
///
/// However deep the tree: a folder in a folder is first moved up to `base` (on the same filesystem always possible), so
/// two descriptors suffice. Folders without permissions are given them, since they are the account's own.
pub(crate) fn remove_tree(base: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    let mut waiting = vec![name.to_owned()];
    let mut serial = 0_u64;
    while let Some(name) = waiting.pop() {
        match rustix::fs::unlinkat(base, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
        let folder = match child(base, &name) {
            Ok(folder) => folder,
            Err(Errno::ACCESS) => {
                set_mode(base, &name, 0o700)?;
                child(base, &name)?
            }
            Err(error) => return Err(error),
        };
        if Stamp::from(rustix::fs::fstat(&folder)?).mode & 0o700 != 0o700 {
            rustix::fs::fchmod(&folder, Mode::RWXU)?;
        }
        // Read in one go: removing while reading may skip names on some filesystems.
        let mut inner = Vec::new();
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let bytes = entry.file_name().to_bytes();
            if bytes != b"." && bytes != b".." {
                inner.push((OsStr::from_bytes(bytes).to_owned(), entry.file_type()));
            }
        }
        for (inside, kind) in inner {
            if kind != FileType::Directory && rustix::fs::unlinkat(&folder, &inside, AtFlags::empty()).is_ok() {
                continue;
            }
            match rustix::fs::unlinkat(&folder, &inside, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            // A folder must be writable itself to be moved: its `..` changes.
            set_mode(folder.as_fd(), &inside, 0o700)?;
            loop {
                serial += 1;
                let moved = OsString::from(format!(".creel-remove-{}-{serial}", rustix::process::getpid()));
                let flags = rustix::fs::RenameFlags::NOREPLACE;
                match rustix::fs::renameat_with(&folder, &inside, base, &moved, flags) {
                    Ok(()) => waiting.push(moved),
                    Err(Errno::EXIST) => continue,
                    Err(error) => return Err(error),
                }
                break;
            }
        }
        rustix::fs::unlinkat(base, &name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// Sets permission bits of what stands at that name without following a link: by a look-only descriptor and its entry in
/// `/proc`, since `fchmodat` follows and its newer form is missing on kernels before 6.6.
pub(crate) fn set_mode(base: BorrowedFd<'_>, name: &OsStr, mode: u32) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let looked = rustix::fs::openat(base, name, flags, Mode::empty())?;
    if Stamp::from(rustix::fs::fstat(&looked)?).kind() == FileType::Symlink {
        return Err(Errno::LOOP);
    }
    let through = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&looked));
    rustix::fs::chmod(through, Mode::from_raw_mode(mode & 0o777))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use super::*;

    #[test]
    fn nothing_is_reached_through_a_link_or_above_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("in/real")).unwrap();
        std::fs::create_dir(dir.path().join("out")).unwrap();
        std::fs::write(dir.path().join("out/secret"), "s").unwrap();
        symlink("../out", dir.path().join("in/link")).unwrap();
        symlink("/", dir.path().join("in/root")).unwrap();
        let base = folder(&dir.path().join("in")).unwrap();
        let path = |text: &str| Relative::parse(Path::new(text)).unwrap();
        assert!(below(base.as_fd(), &path("real")).is_ok());
        assert!(below(base.as_fd(), &path("link")).is_err());
        assert!(below(base.as_fd(), &path("root/tmp")).is_err());
        assert!(file(base.as_fd(), OsStr::new("link")).unwrap().is_none());
        assert!(folder(&dir.path().join("in/link")).is_err());
    }

    #[test]
    fn a_fifo_is_neither_opened_nor_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let base = folder(dir.path()).unwrap();
        rustix::fs::mkfifoat(&base, "pipe", Mode::RWXU).unwrap();
        assert!(file(base.as_fd(), OsStr::new("pipe")).unwrap().is_none());
    }

    #[test]
    fn trees_of_any_depth_and_without_permissions_are_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let base = folder(dir.path()).unwrap();
        std::fs::write(dir.path().join("keep"), "k").unwrap();
        std::fs::create_dir(dir.path().join("tree")).unwrap();
        symlink("../keep", dir.path().join("tree/link")).unwrap();
        symlink("..", dir.path().join("tree/up")).unwrap();
        // Deeper than the kernel's longest path and than the descriptors a process has.
        let mut at = child(base.as_fd(), OsStr::new("tree")).unwrap();
        for _ in 0..1100 {
            rustix::fs::mkdirat(&at, "deeper", Mode::RWXU).unwrap();
            at = child(at.as_fd(), OsStr::new("deeper")).unwrap();
        }
        drop(at);
        std::fs::create_dir_all(dir.path().join("tree/closed/inner")).unwrap();
        std::fs::write(dir.path().join("tree/closed/inner/file"), "").unwrap();
        let closed = std::fs::Permissions::from_mode(0o0);
        std::fs::set_permissions(dir.path().join("tree/closed/inner"), closed.clone()).unwrap();
        std::fs::set_permissions(dir.path().join("tree/closed"), closed).unwrap();
        remove_tree(base.as_fd(), OsStr::new("tree")).unwrap();
        remove_tree(base.as_fd(), OsStr::new("tree")).unwrap();
        assert_eq!(names(base.as_fd(), 10).unwrap().unwrap(), ["keep"]);
    }
}
