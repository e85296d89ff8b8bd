//! A layout to the root of this mount namespace, by descriptors.
//!
//! Every object of the host is copied as a mount *before* anything is put anywhere, and folders are only ever made in
//! file systems that nobody else can see yet; nothing is created through a path that somebody else controls. The one
//! fact a newcomer gets wrong: until [`Built::forget_host`] has run the host's mounts still exist above the new root,
//! reached by `/..` alone, so no command may be started before it.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use creel_model::cage::FileAccess;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::layout::{Layout, Piece, What, within};
use super::resolve::open_without_links;
use crate::sys::mount::{self, Attributes, FsOption};

/// Device files that every program expects; the nodes are the host's.
const DEVICES: [(&str, &str); 6] = [
    ("/dev/null", "null"),
    ("/dev/zero", "zero"),
    ("/dev/full", "full"),
    ("/dev/random", "random"),
    ("/dev/urandom", "urandom"),
    ("/dev/tty", "tty"),
];
/// Links in `/dev` and where they point.
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// Folders of the host on which the new root may stand for a moment; the first that exists is taken.
const FOOTHOLDS: [&str; 3] = ["/tmp", "/usr", "/etc"];

/// What went wrong, at which step.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {error}")]
pub(crate) struct Failed {
    /// What was being done.
    pub(crate) step: String,
    /// The kernel's answer.
    pub(crate) error: io::Error,
}

/// Names a step in an error.
pub(crate) trait Step<T> {
    /// The value, or the error with what was being done.
    fn step(self, step: &str) -> Result<T, Failed>;
    /// As [`Step::step`], with an object.
    fn on(self, step: &str, object: &str) -> Result<T, Failed>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &str) -> Result<T, Failed> {
        self.map_err(|error| Failed { step: step.to_owned(), error: error.into() })
    }

    fn on(self, step: &str, object: &str) -> Result<T, Failed> {
        self.map_err(|error| Failed { step: format!("{step} `{object}`"), error: error.into() })
    }
}

/// A root that stands, read-only, with the host's still mounted above it, where only `/..` leads.
#[derive(Debug)]
#[must_use = "the host is still mounted"]
pub(crate) struct Built(());

impl Built {
    /// Ends the host's mounts in this namespace.
    ///
    /// # Errors
    /// [`Failed`]; then the host may still be there, and the caller must end.
    pub(crate) fn forget_host(self) -> Result<(), Failed> {
        mount::drop_old_root().step("unmount the host")
    }
}

/// A mount that has no place yet.
struct Loose {
    tree: OwnedFd,
    directory: bool,
}

/// Builds the root and moves this process into it. `layer` is the mounted copy-on-write layer, where the layout has one;
/// `temporary_bytes` bounds what the writable folders of the cage's own may hold together.
///
/// # Errors
/// [`Failed`]; then the caller must end.
pub(crate) fn build(layout: &Layout, temporary_bytes: Option<u64>, layer: Option<OwnedFd>) -> Result<Built, Failed> {
    // 1. Everything of the host, before anything is hidden.
    let mut layer = layer;
    let mut loose = Vec::with_capacity(layout.pieces.len());
    for piece in &layout.pieces {
        loose.push(match &piece.what {
            What::Host { path, access, directory } => {
                let object = open_without_links(path).on("open", path)?;
                let tree = mount::copy_tree(object.as_fd()).on("copy the mount of", path)?;
                let mut lost = attributes(*access, path);
                if *access == FileAccess::Write && layout.without_programs(path) {
                    lost = lost.and(Attributes::NO_EXEC);
                }
                mount::restrict(tree.as_fd(), lost).on("restrict", path)?;
                Some(Loose { tree, directory: *directory })
            }
            What::Layer => layer.take().map(|tree| Loose { tree, directory: true }),
            _ => None,
        });
    }
    let mut devices = Vec::with_capacity(DEVICES.len());
    for (path, name) in DEVICES {
        let object = open_without_links(path).on("open", path)?;
        let device = mount::copy_tree(object.as_fd()).on("copy the mount of", path)?;
        mount::restrict(device.as_fd(), Attributes::NO_SET_ID.and(Attributes::NO_EXEC)).on("restrict", path)?;
        devices.push((device, name));
    }

    // 2. The new file systems.
    let plain = Attributes::NO_SET_ID.and(Attributes::NO_DEVICES);
    let root_options = [FsOption::Text(c"mode", c"0755"), FsOption::Text(c"size", c"1m")];
    let root = mount::new_file_system(c"tmpfs", &root_options, plain).step("make the root")?;
    let bytes = temporary_bytes.and_then(|bytes| std::ffi::CString::new(bytes.to_string()).ok());
    let mut options = vec![FsOption::Text(c"mode", c"0700")];
    options.extend(bytes.as_deref().map(|bytes| FsOption::Text(c"size", bytes)));
    let scratch = mount::new_file_system(c"tmpfs", &options, plain).step("make the writable folders")?;
    let sealed = plain.and(Attributes::NO_EXEC);
    let proc = mount::new_file_system(c"proc", &[], sealed.and(Attributes::READ_ONLY)).step("make `/proc`")?;
    let terminals =
        [FsOption::Flag(c"newinstance"), FsOption::Text(c"ptmxmode", c"0666"), FsOption::Text(c"mode", c"0620")];
    let attributes = Attributes::NO_SET_ID.and(Attributes::NO_EXEC);
    let terminals = mount::new_file_system(c"devpts", &terminals, attributes).step("make `/dev/pts`")?;

    // 3. Their places. The new root needs a place itself before others can be put into it.
    let foothold = FOOTHOLDS.iter().find_map(|path| open_without_links(path).ok());
    let foothold = foothold.ok_or(Errno::NOENT).step("find a place for the root")?;
    // Parts of a mount can be copied only once it has a place, too; this one lies below the root's and ends with the host.
    mount::attach(scratch.as_fd(), foothold.as_fd()).step("place the writable folders")?;
    mount::attach(root.as_fd(), foothold.as_fd()).step("place the root")?;
    let scratch = Scratch { mount: scratch.as_fd(), folders: 0, denied: None };
    let mut inside = Inside { root: root.as_fd(), layout, scratch, hollow: Vec::new() };
    inside.put("/proc", &proc, true)?;
    inside.devices(&devices, &terminals)?;
    for (index, (piece, loose)) in layout.pieces.iter().zip(&loose).enumerate() {
        inside.piece(index, piece, loose.as_ref())?;
    }
    for hollow in inside.hollow {
        mount::restrict_one(hollow.as_fd(), Attributes::READ_ONLY).step("close what stands for refused folders")?;
    }
    mount::restrict_one(root.as_fd(), Attributes::READ_ONLY).step("seal the root")?;
    mount::switch_root(root.as_fd()).step("enter the new root")?;
    Ok(Built(()))
}

/// What a grant's mount does not let through.
fn attributes(access: FileAccess, path: &str) -> Attributes {
    let set_id = Attributes::NO_SET_ID;
    // A device is granted by its own name only.
    let plain = if within(path, "/dev") { set_id } else { set_id.and(Attributes::NO_DEVICES) };
    match access {
        FileAccess::Write => plain,
        FileAccess::Execute => plain.and(Attributes::READ_ONLY),
        FileAccess::Read | FileAccess::Deny => plain.and(Attributes::READ_ONLY).and(Attributes::NO_EXEC),
    }
}

/// The file system of the writable folders.
struct Scratch<'a> {
    mount: BorrowedFd<'a>,
    folders: u32,
    /// Device number of the folder and the file that nobody may read, once they are made.
    denied: Option<u64>,
}

impl Scratch<'_> {
    /// A new folder, as a mount.
    fn folder(&mut self, mode: u32) -> Result<OwnedFd, Failed> {
        self.folders += 1;
        let name = std::ffi::CString::new(self.folders.to_string()).unwrap_or_default();
        let step = "make a writable folder";
        rustix::fs::mkdirat(self.mount, &*name, Mode::from_raw_mode(mode)).step(step)?;
        mount::copy_at(self.mount, &name).step(step)
    }

    /// A mount to put over a refused object, and the device number by which it is known.
    fn denied(&mut self, directory: bool) -> Result<(OwnedFd, u64), Failed> {
        let step = "make what stands for refused files";
        let device = match self.denied {
            Some(device) => device,
            None => {
                rustix::fs::mkdirat(self.mount, c"folder", Mode::empty()).step(step)?;
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::RDONLY;
                let file = rustix::fs::openat(self.mount, c"file", flags, Mode::empty()).step(step)?;
                *self.denied.insert(rustix::fs::fstat(&file).step(step)?.st_dev)
            }
        };
        let tree = mount::copy_at(self.mount, if directory { c"folder" } else { c"file" }).step(step)?;
        mount::restrict_one(tree.as_fd(), Attributes::READ_ONLY.and(Attributes::NO_EXEC)).step(step)?;
        Ok((tree, device))
    }
}

/// The new root while it is filled.
struct Inside<'a> {
    root: BorrowedFd<'a>,
    layout: &'a Layout,
    scratch: Scratch<'a>,
    /// Folders that stand for refused ones, to be made read-only when the places of grants are made in them.
    hollow: Vec<OwnedFd>,
}

impl Inside<'_> {
    fn piece(&mut self, index: usize, piece: &Piece, loose: Option<&Loose>) -> Result<(), Failed> {
        match (&piece.what, loose) {
            (What::Host { .. } | What::Layer, Some(loose)) => {
                let on = self.place(index, &piece.at, loose.directory)?;
                mount::attach(loose.tree.as_fd(), on.as_fd()).on("put in place", &piece.at)
            }
            (What::Host { .. } | What::Layer, None) => Err(Errno::NOENT).on("put in place", &piece.at),
            (What::Hollow, _) => {
                let tree = self.scratch.folder(0o755)?;
                let on = self.place(index, &piece.at, true)?;
                mount::attach(tree.as_fd(), on.as_fd()).on("put in place", &piece.at)?;
                self.hollow.push(tree);
                Ok(())
            }
            (What::Scratch(mode), _) => {
                let tree = self.scratch.folder(*mode)?;
                if self.layout.without_programs(&piece.at) {
                    mount::restrict_one(tree.as_fd(), Attributes::NO_EXEC).on("restrict", &piece.at)?;
                }
                let on = self.place(index, &piece.at, true)?;
                mount::attach(tree.as_fd(), on.as_fd()).on("put in place", &piece.at)
            }
            (What::Link(text), _) => self.link(index, &piece.at, text),
            (What::Denied, _) => self.deny(&piece.at),
        }
    }

    /// The object on which the piece goes; it is made where no object of the host can be meant.
    fn place(&self, index: usize, at: &str, directory: bool) -> Result<OwnedFd, Failed> {
        match self.open(at, ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH) {
            Err(Errno::NOENT) if !self.on_host(index, at) => self.make(at, directory),
            result => result.on("find the place of", at),
        }
    }

    /// Whether the path lies in something of the host that an earlier piece shows.
    fn on_host(&self, index: usize, at: &str) -> bool {
        let earlier = self.layout.pieces.iter().take(index).rev();
        let above = earlier.into_iter().find(|above| above.at != at && within(at, &above.at));
        above.is_some_and(|above| matches!(above.what, What::Host { .. } | What::Layer))
    }

    fn make(&self, at: &str, directory: bool) -> Result<OwnedFd, Failed> {
        let (parent, name) = split(at);
        let step = "make the place of";
        let beneath = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        let folder = match self.open(parent, beneath) {
            Err(Errno::NOENT) => self.make(parent, true)?,
            result => result.on(step, at)?,
        };
        if directory {
            match rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno).on(step, at),
            }
            self.open(at, beneath).on(step, at)
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::RDONLY;
            rustix::fs::openat(&folder, name, flags, Mode::from_raw_mode(0o644)).on(step, at)
        }
    }

    fn put(&self, at: &str, mount: &OwnedFd, directory: bool) -> Result<(), Failed> {
        let on = self.make(at, directory)?;
        mount::attach(mount.as_fd(), on.as_fd()).on("put in place", at)
    }

    fn devices(&self, devices: &[(OwnedFd, &str)], terminals: &OwnedFd) -> Result<(), Failed> {
        let step = "fill `/dev`";
        let dev = self.make("/dev", true)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::RDONLY;
        for (device, name) in devices {
            let on = rustix::fs::openat(&dev, *name, flags, Mode::from_raw_mode(0o644)).step(step)?;
            mount::attach(device.as_fd(), on.as_fd()).on("put in place", name)?;
        }
        for (name, text) in DEVICE_LINKS {
            rustix::fs::symlinkat(text, &dev, name).step(step)?;
        }
        self.put("/dev/pts", terminals, true)
    }

    /// Makes a link of the system again, unless it is there already with what holds it.
    fn link(&self, index: usize, at: &str, text: &str) -> Result<(), Failed> {
        if self.on_host(index, at) {
            return Ok(());
        }
        let (parent, name) = split(at);
        let folder = match self.open(parent, ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH) {
            Err(Errno::NOENT) => self.make(parent, true)?,
            result => result.on("make the link", at)?,
        };
        match rustix::fs::symlinkat(text, &folder, name) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno).on("make the link", at),
        }
    }

    /// Covers what the path names in the cage, through links, and looks again whether it is covered.
    fn deny(&mut self, at: &str) -> Result<(), Failed> {
        let object = match self.open(at, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS) {
            Ok(object) => object,
            // What is not there, or cannot be reached by anybody of this account, needs no cover.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => return Ok(()),
            Err(errno) => return Err(errno).on("look for", at),
        };
        let stat = rustix::fs::fstat(&object).on("look at", at)?;
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let (cover, device) = self.scratch.denied(directory)?;
        mount::attach(cover.as_fd(), object.as_fd()).on("cover", at)?;
        let covered = self.open(at, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS).on("look again at", at)?;
        if rustix::fs::fstat(&covered).on("look again at", at)?.st_dev == device {
            Ok(())
        } else {
            Err(io::Error::other("somebody changed it meanwhile")).on("cover", at)
        }
    }

    fn open(&self, at: &str, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
        let relative = at.trim_start_matches('/');
        let relative = if relative.is_empty() { "." } else { relative };
        // The last component is followed only where the path may go through links.
        let follow = if resolve.contains(ResolveFlags::NO_SYMLINKS) { OFlags::NOFOLLOW } else { OFlags::empty() };
        rustix::fs::openat2(self.root, relative, OFlags::PATH | OFlags::CLOEXEC | follow, Mode::empty(), resolve)
    }
}

fn split(at: &str) -> (&str, &str) {
    match at.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((parent, name)) => (parent, name),
        None => ("/", at),
    }
}
