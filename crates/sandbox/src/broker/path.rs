//! A path as a caller wrote it to the folder it leads to, as a descriptor, and the name in it.
//!
//! The kernel resolves paths without links at once; others are walked here, step by step. The one fact a newcomer gets
//! wrong: `/proc/self` is the *caller's*, and the links in `/proc/<number>` lead out of every file system. They are
//! followed only in the caller's own folder; everybody else's are refused, the broker's own first of all.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::Broker;
use super::caller::Call;
use crate::sys::seccomp;

/// Links on one way.
pub(super) const MOST_LINKS: u32 = 40;
/// Components on one way, links' included.
const MOST_COMPONENTS: usize = 4096;

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const OBJECT: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Place {
    /// The folder.
    pub(super) folder: OwnedFd,
    /// The name in it, which may or may not exist; empty if the path is the folder itself (`/`, `a/..`).
    pub(super) name: Vec<u8>,
    /// A `/` stood behind the name.
    pub(super) slash: bool,
}

/// What a link leads to.
pub(super) enum Step {
    /// A name in a folder.
    Place(Place),
    /// An object without a way to it: what a link in the caller's folder in `/proc` names.
    Object(OwnedFd),
}

/// The parts of a path: the folder's, the name, whether slashes stood behind.
fn split(path: &[u8]) -> (&[u8], &[u8], bool) {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    let whole = path.get(..end).unwrap_or_default();
    let start = whole.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (folder, name) = whole.split_at_checked(start).unwrap_or_default();
    (folder, name, end < path.len())
}

/// Whether a path holds nothing but names, so that without links it is what it says.
pub(super) fn plain(path: &[u8]) -> bool {
    let names = path.strip_prefix(b"/").unwrap_or(path);
    names.split(|byte| *byte == b'/').all(|name| !matches!(name, b"" | b"." | b".."))
}

impl Broker {
    /// Finds the place of a path; the last component is not followed.
    pub(super) fn locate(&mut self, call: &Call, base: i32, path: &[u8]) -> Result<Place, Errno> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        let absolute = path.starts_with(b"/");
        let (mut folder, mut name, slash) = split(path);
        if matches!(name, b"" | b"." | b"..") {
            (folder, name) = (path, b"");
        }
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let found = if absolute {
            rustix::fs::openat2(CWD, folder, FOLDER, Mode::empty(), resolve)
        } else {
            let base = self.base(call, base)?;
            if folder.is_empty() {
                Ok(base)
            } else {
                match rustix::fs::openat2(&base, folder, FOLDER, Mode::empty(), resolve) {
                    Err(Errno::LOOP) => return self.walk(call, base, path, 0),
                    other => other,
                }
            }
        };
        match found {
            Ok(folder) => Ok(Place { folder, name: name.to_vec(), slash }),
            Err(Errno::LOOP) => {
                let root = rustix::fs::open(c"/", FOLDER, Mode::empty())?;
                self.walk(call, root, path, 0)
            }
            Err(error) => Err(error),
        }
    }

    /// The folder that a relative path begins in.
    fn base(&mut self, call: &Call, base: i32) -> Result<OwnedFd, Errno> {
        if base == libc::AT_FDCWD {
            return rustix::fs::openat(&*call.folder, c"cwd", FOLDER, Mode::empty());
        }
        self.descriptor(call, base, FOLDER)
    }

    /// The path of the folder that a relative path begins in, in words. It may be gone, or have another name by now:
    /// whoever uses it must come to what was judged, or nowhere.
    pub(super) fn standing(&self, call: &Call, base: i32) -> Result<Vec<u8>, Errno> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let found = if base == libc::AT_FDCWD {
            rustix::fs::readlinkat_raw(&*call.folder, c"cwd", &mut buffer)
        } else if base < 0 {
            return Err(Errno::BADF);
        } else {
            rustix::fs::readlinkat_raw(&*call.folder, format!("fd/{base}"), &mut buffer)
        };
        match found {
            Ok((path, rest)) if !rest.is_empty() => Ok(path.to_vec()),
            // The long way answers as the kernel does.
            Ok(_) | Err(Errno::NOENT | Errno::ACCESS) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// What a descriptor of the caller names.
    pub(super) fn descriptor(&mut self, call: &Call, number: i32, flags: OFlags) -> Result<OwnedFd, Errno> {
        if number < 0 {
            return Err(Errno::BADF);
        }
        match rustix::fs::openat(&*call.folder, format!("fd/{number}"), flags, Mode::empty()) {
            Err(Errno::NOENT) => Err(Errno::BADF),
            // A process that hides its memory hides this folder too.
            Err(Errno::ACCESS) => seccomp::descriptor_of(call.notification.thread, number),
            other => other,
        }
    }

    /// Walks a path component by component.
    fn walk(&mut self, call: &Call, from: OwnedFd, path: &[u8], mut links: u32) -> Result<Place, Errno> {
        let slash = path.ends_with(b"/");
        let mut here = from;
        let mut rest: Vec<Vec<u8>> = Vec::new();
        push(&mut rest, path)?;
        loop {
            let Some(name) = rest.pop() else {
                return Ok(Place { folder: here, name: Vec::new(), slash });
            };
            if name == b"." {
                continue;
            }
            if name == b".." {
                here = rustix::fs::openat(&here, c"..", FOLDER, Mode::empty())?;
                continue;
            }
            if rest.is_empty() {
                return Ok(Place { folder: here, name, slash });
            }
            let object = rustix::fs::openat(&here, name.as_slice(), OBJECT, Mode::empty())?;
            let about = rustix::fs::fstat(&object)?;
            match FileType::from_raw_mode(about.st_mode) {
                FileType::Directory => here = object,
                FileType::Symlink => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Errno::LOOP);
                    }
                    match self.lead(call, &here, &name, &object, &about)? {
                        Lead::Text(text) => {
                            if text.starts_with(b"/") {
                                here = rustix::fs::open(c"/", FOLDER, Mode::empty())?;
                            }
                            push(&mut rest, &text)?;
                        }
                        Lead::Object(object) => {
                            if FileType::from_raw_mode(rustix::fs::fstat(&object)?.st_mode) != FileType::Directory {
                                return Err(Errno::NOTDIR);
                            }
                            here = object;
                        }
                    }
                }
                _ => return Err(Errno::NOTDIR),
            }
        }
    }

    /// Follows a link that is the last component.
    pub(super) fn follow(
        &mut self,
        call: &Call,
        place: Place,
        object: &OwnedFd,
        about: &Stat,
        links: u32,
    ) -> Result<Step, Errno> {
        match self.lead(call, &place.folder, &place.name, object, about)? {
            Lead::Object(object) => Ok(Step::Object(object)),
            Lead::Text(mut text) => {
                let from =
                    if text.starts_with(b"/") { rustix::fs::open(c"/", FOLDER, Mode::empty())? } else { place.folder };
                if place.slash {
                    text.push(b'/');
                }
                Ok(Step::Place(self.walk(call, from, &text, links)?))
            }
        }
    }

    /// What a link says, in the caller's eyes.
    fn lead(
        &mut self,
        call: &Call,
        folder: &OwnedFd,
        name: &[u8],
        link: &OwnedFd,
        about: &Stat,
    ) -> Result<Lead, Errno> {
        if about.st_dev != self.proc_device {
            return Ok(Lead::Text(rustix::fs::readlinkat(link, c"", Vec::new())?.into_bytes()));
        }
        let (process, thread) = (self.callers.process(call)?, call.notification.thread);
        let place = self.real(folder)?;
        if place == b"/proc" {
            return match name {
                b"self" => Ok(Lead::Text(process.to_string().into_bytes())),
                b"thread-self" => Ok(Lead::Text(format!("{process}/task/{thread}").into_bytes())),
                // `mounts` and `net` lead through `self`.
                _ => Ok(Lead::Text(rustix::fs::readlinkat(link, c"", Vec::new())?.into_bytes())),
            };
        }
        if !own(&place, process, thread) {
            return Err(Errno::ACCESS);
        }
        let deep = place.ends_with(b"/fd");
        if deep || matches!(name, b"cwd" | b"root" | b"exe") {
            let object = rustix::fs::openat(folder, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            return Ok(Lead::Object(object));
        }
        Err(Errno::ACCESS)
    }

    /// Where a descriptor of ours leads, as an absolute path in the cage.
    pub(super) fn real(&self, object: impl AsFd) -> Result<Vec<u8>, Errno> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let number = DecInt::from_fd(object.as_fd());
        let (path, rest) = rustix::fs::readlinkat_raw(&self.own, number, &mut buffer)?;
        // A path that fills the buffer may be cut off.
        if rest.is_empty() { Err(Errno::NAMETOOLONG) } else { Ok(path.to_vec()) }
    }

    /// Opens an object that is held by a descriptor, whatever its name is now.
    pub(super) fn again(&self, object: &OwnedFd, flags: OFlags) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(
            &self.own,
            DecInt::new(object.as_raw_fd()),
            flags | OFlags::CLOEXEC | OFlags::NOCTTY,
            Mode::empty(),
        )
    }
}

enum Lead {
    Text(Vec<u8>),
    Object(OwnedFd),
}

/// Whether a folder in `/proc` is the caller's.
pub(super) fn own(folder: &[u8], process: u32, thread: u32) -> bool {
    let Some(rest) = folder.strip_prefix(b"/proc/") else { return false };
    let mut parts = rest.split(|byte| *byte == b'/');
    let number = |part: Option<&[u8]>| part.and_then(|part| std::str::from_utf8(part).ok()?.parse::<u32>().ok());
    let Some(first) = number(parts.next()) else { return false };
    if first != process && first != thread {
        return false;
    }
    match parts.next() {
        Some(b"task") => number(parts.next()) == Some(thread),
        _ => true,
    }
}

/// Puts the components of a path on the stack, the first on top.
fn push(rest: &mut Vec<Vec<u8>>, path: &[u8]) -> Result<(), Errno> {
    if path.is_empty() {
        return Err(Errno::NOENT);
    }
    rest.extend(path.rsplit(|byte| *byte == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec));
    if rest.len() > MOST_COMPONENTS { Err(Errno::NAMETOOLONG) } else { Ok(()) }
}
