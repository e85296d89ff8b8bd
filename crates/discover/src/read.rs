//! A path that somebody else may control → its text, without following where it should not and without waiting.
//!
//! First a descriptor that opens nothing (`O_PATH`), then a look at what it is, and only a regular file of bounded size
//! is opened for reading, through that very descriptor. A FIFO is never waited for, a device never touched, and nothing
//! can be swapped in between.

use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use creel_catalog::{ConfigFile, Content, FileFacts};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// Who may do what with a file. Where it could not be looked at: nobody but root, so that nothing is claimed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Owner's user id.
    pub owner: u32,
    /// Owning group id.
    pub group: u32,
    /// Permission bits (the low twelve).
    pub mode: u32,
}

impl Rights {
    pub(crate) const fn of(stat: &Stat) -> Self {
        Self { owner: stat.st_uid, group: stat.st_gid, mode: stat.st_mode & 0o7777 }
    }
}

/// A machine's root folder, and how paths below it are followed.
#[derive(Debug)]
pub struct Machine {
    root: OwnedFd,
    live: bool,
}

/// Whether symbolic links on the way are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Within the machine's root: for administrators' places, and where we have the rights of the folder's owner only.
    Follow,
    /// Not below this folder (absolute, without the leading `/`): it belongs to somebody with fewer rights than ours.
    RefuseBelow,
}

impl Machine {
    /// Opens the root folder: `/`, or a folder laid out like a machine.
    ///
    /// # Errors
    /// The folder cannot be opened.
    pub fn open(root: &std::path::Path) -> std::io::Result<Self> {
        let fd = rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let (here, slash) = (rustix::fs::fstat(&fd)?, rustix::fs::stat("/")?);
        let live = (here.st_dev, here.st_ino) == (slash.st_dev, slash.st_ino);
        Ok(Self { root: fd, live })
    }

    /// Whether it is the running machine, so that `/proc` speaks about it.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.live
    }

    /// A descriptor for a path, which opens nothing. `base` is an absolute folder that is trusted as far as it goes,
    /// `path` absolute and below it.
    ///
    /// # Errors
    /// What the kernel says; `LOOP` for a symbolic link that is refused.
    pub fn locate(&self, base: &str, path: &str, links: Links) -> Result<OwnedFd, Errno> {
        self.open_at(base, path, links, OFlags::PATH)
    }

    pub(crate) fn open_at(&self, base: &str, path: &str, links: Links, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        if links == Links::Follow {
            return retried(|| rustix::fs::openat2(&self.root, path, flags, Mode::empty(), inside));
        }
        let below = path.strip_prefix(base).map(|rest| rest.trim_start_matches('/')).ok_or(Errno::XDEV)?;
        let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let base = retried(|| rustix::fs::openat2(&self.root, base, folder, Mode::empty(), inside))?;
        let refuse = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let below = if below.is_empty() { "." } else { below };
        retried(|| rustix::fs::openat2(&base, below, flags | OFlags::NOFOLLOW, Mode::empty(), refuse))
    }

    /// Whether something is there, of whatever type.
    #[must_use]
    pub fn exists(&self, base: &str, path: &str, links: Links) -> bool {
        self.locate(base, path, links).is_ok()
    }

    /// Reads one configuration file; `None` where nothing is there.
    #[must_use]
    pub fn config(&self, base: &str, path: &str, links: Links, bytes_max: usize) -> Option<(Rights, Content)> {
        let fd = match self.locate(base, path, links) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => return None,
            Err(Errno::LOOP) => {
                let what = if links == Links::Follow { "symlink loop" } else { "symlink" };
                return Some((Rights::default(), Content::NotAFile(what.to_owned())));
            }
            Err(error) => return Some((Rights::default(), Content::Unreadable(why(error)))),
        };
        let Ok(stat) = rustix::fs::fstat(&fd) else { return None };
        Some((Rights::of(&stat), content(&fd, &stat, bytes_max)))
    }
}

/// `openat2` asks to be tried again when something moves meanwhile; a hostile mover does not hold us here for ever.
fn retried(mut open: impl FnMut() -> Result<OwnedFd, Errno>) -> Result<OwnedFd, Errno> {
    let mut last = Errno::AGAIN;
    for _ in 0..16 {
        match open() {
            Err(error @ (Errno::AGAIN | Errno::INTR)) => last = error,
            other => return other,
        }
    }
    Err(last)
}

/// The text behind a descriptor that opens nothing.
pub(crate) fn content(fd: &OwnedFd, stat: &Stat, bytes_max: usize) -> Content {
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::Directory => "folder",
        _ => "device",
    };
    if !what.is_empty() {
        return Content::NotAFile(what.to_owned());
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if size > bytes_max as u64 {
        return Content::TooLarge(size);
    }
    let file = match reopen(fd) {
        Ok(file) => file,
        Err(error) => return Content::Unreadable(why(error)),
    };
    let mut bytes = Vec::new();
    match file.take(bytes_max as u64 + 1).read_to_end(&mut bytes) {
        Ok(read) if read > bytes_max => Content::TooLarge(read as u64),
        Ok(_) => String::from_utf8(bytes).map_or(Content::NotText, Content::Text),
        Err(error) => Content::Unreadable(clip_error(&error)),
    }
}

/// Opens for reading what a descriptor that opens nothing refers to.
pub(crate) fn reopen(fd: impl AsFd) -> Result<std::fs::File, Errno> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map(std::fs::File::from)
}

/// The path of what a descriptor refers to, as the kernel names it.
pub(crate) fn path_of(fd: impl AsFd) -> Option<String> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    rustix::fs::readlinkat(CWD, path, Vec::new()).ok()?.into_string().ok()
}

/// Reads a small file of the kernel's or the administrator's; `None` where it cannot be read.
pub(crate) fn small(path: &str, bytes_max: u64) -> Option<Vec<u8>> {
    let file = std::fs::File::open(path).ok()?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Which file it is, and in which state.
#[must_use]
pub(crate) fn file_facts(stat: &Stat) -> FileFacts {
    FileFacts {
        device: stat.st_dev,
        inode: stat.st_ino,
        ctime_ns: stat
            .st_ctime
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::try_from(stat.st_ctime_nsec).unwrap_or(0)),
        size: u64::try_from(stat.st_size).unwrap_or(0),
    }
}

/// Facts of a file with its content, for the catalog.
pub(crate) fn config_file(
    place: &str,
    path: String,
    project: Option<String>,
    rights: Rights,
    content: Content,
) -> ConfigFile {
    ConfigFile {
        place: place.to_owned(),
        path,
        project,
        owner: rights.owner,
        group: rights.group,
        mode: rights.mode,
        content,
    }
}

fn why(error: Errno) -> String {
    clip_error(&std::io::Error::from(error))
}

fn clip_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => "no permission".to_owned(),
        kind => kind.to_string(),
    }
}
