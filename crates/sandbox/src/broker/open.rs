//! Opening for writing, and opening that may create.
//!
//! What does not exist is created at once; what exists is first held, looked at, and then opened through that hold. The
//! one fact a newcomer gets wrong: the second opening goes through `/proc/self/fd`, never through the name again, so what
//! was judged is what is opened, and a pipe that nobody reads never holds the broker up.

use std::borrow::Cow;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::caller::Call;
use super::judge::Verdict;
use super::later::Wait;
use super::path::{MOST_LINKS, Place, Step, own, plain};
use super::{Broker, Done, Outcome, join};
use crate::seal::{above, completes_repository};

/// How often a file may be deleted and made again by others while it is opened.
const MOST_TRIES: u32 = 60;

/// `/dev/tty`: the terminal of whoever opens it.
const TERMINAL: u64 = 5 << 8;

/// The files of its own that a process may write in `/proc`.
const OWN_SETTINGS: [&[u8]; 4] = [b"comm", b"oom_score_adj", b"coredump_filter", b"timerslack_ns"];

impl Broker {
    pub(super) fn open(&mut self, call: &Call, base: i32, path: usize, flags: u32, mode: u32) -> Done {
        let flags = OFlags::from_bits_retain(flags);
        let writes = writing(flags);
        let creates = flags.contains(OFlags::CREATE);
        let path = call.path(path)?;
        if !writes && !creates {
            return self.note_reading(call, base, &path);
        }
        if creates && flags.contains(OFlags::DIRECTORY) {
            return Err(Errno::INVAL);
        }
        if let Some(done) = self.open_at_once(call, base, &path, flags, mode)? {
            return Ok(done);
        }
        let mut place = self.locate(call, base, &path)?;
        let mut links = 0;
        for _ in 0..MOST_TRIES {
            if place.name.is_empty() || (place.slash && creates) {
                return Err(Errno::ISDIR);
            }
            let parent = self.real(&place.folder)?;
            let verdict = self.judge(&parent, &place.name);
            if verdict.rule().is_some() && (writes || !self.present(&place)) {
                if !creates && !self.present(&place) {
                    return Err(Errno::NOENT);
                }
                return Err(self.refuse_sealed(call, "open", &join(&parent, &place.name), &verdict));
            }
            if creates && verdict.rule().is_none() {
                match self.create(call, &place, &parent, flags, mode) {
                    Ok(descriptor) => {
                        if self.learn {
                            self.need("write", &join(&parent, &place.name));
                        }
                        return Ok(descriptor_for(descriptor, flags));
                    }
                    Err(Errno::EXIST) if !flags.contains(OFlags::EXCL) => {}
                    Err(error) => return Err(error),
                }
            }
            let hold = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let object = match rustix::fs::openat(&place.folder, place.name.as_slice(), hold, Mode::empty()) {
                Err(Errno::NOENT) if creates => continue,
                other => other?,
            };
            let about = rustix::fs::fstat(&object)?;
            if FileType::from_raw_mode(about.st_mode) != FileType::Symlink {
                if place.slash && FileType::from_raw_mode(about.st_mode) != FileType::Directory {
                    return Err(Errno::NOTDIR);
                }
                return self.open_object(call, object, &about, flags, &parent, &place.name);
            }
            links += 1;
            if flags.contains(OFlags::NOFOLLOW) || links > MOST_LINKS {
                return Err(Errno::LOOP);
            }
            match self.follow(call, place, &object, &about, links)? {
                Step::Place(next) => place = next,
                Step::Object(object) => return self.open_nameless(call, object, flags),
            }
        }
        Err(Errno::AGAIN)
    }

    fn present(&self, place: &Place) -> bool {
        rustix::fs::accessat(
            &place.folder,
            place.name.as_slice(),
            rustix::fs::Access::EXISTS,
            rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
        )
        .is_ok()
    }

    /// The short way for the most frequent calls: a path of plain names, without links, to a file that is not sealed.
    /// `None`: it is not that, and the long way must be gone.
    fn open_at_once(
        &mut self,
        call: &Call,
        base: i32,
        path: &[u8],
        flags: OFlags,
        mode: u32,
    ) -> Result<Option<Outcome>, Errno> {
        let path = path.strip_prefix(b"./").unwrap_or(path);
        if !plain(path) {
            return Ok(None);
        }
        let real = if path.starts_with(b"/") {
            Cow::Borrowed(path)
        } else {
            let standing = self.standing(call, base)?;
            if !standing.starts_with(b"/") {
                return Ok(None);
            }
            Cow::Owned(join(&standing, path))
        };
        let parent = above(&real);
        let name = real.get(parent.len() + 1..).unwrap_or_default();
        let parent = if parent.is_empty() { b"/" } else { parent };
        if self.judge(parent, name).rule().is_some() || completes_repository(name) {
            return Ok(None);
        }
        // With these, the kernel comes to the very path that was judged, or nowhere.
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let open = |flags, mode| rustix::fs::openat2(CWD, &*real, flags, mode, resolve);
        if flags.contains(OFlags::CREATE) {
            self.take_umask(call)?;
            let create = flags | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
            match open(create, Mode::from_raw_mode(mode & 0o7777)) {
                Ok(descriptor) => {
                    self.need("write", &real);
                    return Ok(Some(descriptor_for(descriptor, flags)));
                }
                Err(Errno::EXIST) if flags.contains(OFlags::EXCL) => return Err(Errno::EXIST),
                Err(Errno::EXIST) => {}
                Err(_) => return Ok(None),
            }
        }
        let Ok(object) = open(OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) else {
            return Ok(None);
        };
        let about = rustix::fs::fstat(&object)?;
        if FileType::from_raw_mode(about.st_mode) == FileType::Symlink {
            return Ok(None);
        }
        self.open_object(call, object, &about, flags, parent, name).map(Some)
    }

    /// Creates a file that does not exist.
    fn create(
        &mut self,
        call: &Call,
        place: &Place,
        parent: &[u8],
        flags: OFlags,
        mode: u32,
    ) -> Result<OwnedFd, Errno> {
        if completes_repository(&place.name) && !self.present(place) {
            self.complete(call, &place.folder, parent, &place.name)?;
        }
        self.take_umask(call)?;
        let flags = flags | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        rustix::fs::openat(&place.folder, place.name.as_slice(), flags, Mode::from_raw_mode(mode & 0o7777))
    }

    /// Opens what a link in the caller's folder in `/proc` names: `/dev/stdout`, `/dev/fd/5`.
    fn open_nameless(&mut self, call: &Call, object: OwnedFd, flags: OFlags) -> Done {
        let about = rustix::fs::fstat(&object)?;
        if about.st_nlink > 0 {
            let path = self.real(&object)?;
            if path.starts_with(b"/") {
                let verdict = self.judge_path(&path);
                if verdict.rule().is_some() && writing(flags) {
                    return Err(self.refuse_sealed(call, "open", &path, &verdict));
                }
            }
        }
        let flags = flags.difference(OFlags::EXCL);
        self.open_object(call, object, &about, flags, b"", b"")
    }

    /// Opens an object that exists and is not a link.
    fn open_object(
        &mut self,
        call: &Call,
        object: OwnedFd,
        about: &Stat,
        flags: OFlags,
        parent: &[u8],
        name: &[u8],
    ) -> Done {
        let again = flags.difference(OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW);
        if self.learn {
            let path = if parent.is_empty() { self.real(&object)? } else { join(parent, name) };
            self.need("write", &path);
        }
        if about.st_dev == self.proc_device && !self.own_setting(call, parent, name)? {
            return Err(Errno::ACCESS);
        }
        if about.st_nlink > 1 && writing(flags) && self.linked.contains(&(about.st_dev, about.st_ino)) {
            let verdict = Verdict::Inside(self.seals.git_rule().to_owned());
            return Err(self.refuse_sealed(call, "open", &join(parent, name), &verdict));
        }
        match FileType::from_raw_mode(about.st_mode) {
            FileType::Directory => Err(Errno::ISDIR),
            FileType::Socket => Err(Errno::NXIO),
            FileType::Fifo => self.open_pipe(object, flags, again),
            FileType::CharacterDevice if about.st_rdev == TERMINAL => self.open_terminal(call, flags, again),
            _ => Ok(descriptor_for(self.again(&object, again)?, flags)),
        }
    }

    /// Whether a file in `/proc` is one that the caller may write.
    fn own_setting(&mut self, call: &Call, parent: &[u8], name: &[u8]) -> Result<bool, Errno> {
        let process = self.callers.process(call)?;
        Ok(OWN_SETTINGS.contains(&name) && own(parent, process, call.notification.thread))
    }

    /// A named pipe: whoever opens one waits for the other side, so this must not be the broker.
    fn open_pipe(&mut self, object: OwnedFd, flags: OFlags, again: OFlags) -> Done {
        let close_on_exec = flags.contains(OFlags::CLOEXEC);
        if flags.contains(OFlags::RDWR) || flags.contains(OFlags::NONBLOCK) {
            return Ok(descriptor_for(self.again(&object, again)?, flags));
        }
        if !flags.contains(OFlags::WRONLY) {
            let descriptor = self.again(&object, again | OFlags::NONBLOCK)?;
            return Ok(Outcome::Later(Wait::Writer { descriptor, close_on_exec }));
        }
        match self.again(&object, again | OFlags::NONBLOCK) {
            Ok(descriptor) => {
                rustix::fs::fcntl_setfl(&descriptor, again)?;
                Ok(descriptor_for(descriptor, flags))
            }
            Err(Errno::NXIO) => Ok(Outcome::Later(Wait::Reader { object, flags: again, close_on_exec })),
            Err(error) => Err(error),
        }
    }

    /// The caller's own terminal, not the broker's.
    fn open_terminal(&mut self, call: &Call, flags: OFlags, again: OFlags) -> Done {
        let device = terminal_of(&call.folder)?;
        if device == 0 {
            return Err(Errno::NXIO);
        }
        let hold = OFlags::PATH | OFlags::CLOEXEC;
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let mut places = Vec::new();
        if (136..144).contains(&major) {
            let path = format!("/dev/pts/{}", (major - 136) * 256 + minor);
            places.extend(rustix::fs::open(path, hold, Mode::empty()));
        }
        for number in 0..3 {
            places.extend(self.descriptor(call, number, hold));
        }
        for place in places {
            let about = rustix::fs::fstat(&place)?;
            if FileType::from_raw_mode(about.st_mode) == FileType::CharacterDevice && about.st_rdev == device {
                return Ok(descriptor_for(self.again(&place, again)?, flags));
            }
        }
        Err(Errno::NXIO)
    }

    /// `truncate`: an opening for writing, without a descriptor for the caller.
    pub(super) fn truncate(&mut self, call: &Call) -> Done {
        let length = call.argument(1);
        let flags = OFlags::WRONLY.union(OFlags::NONBLOCK).bits();
        match self.open(call, libc::AT_FDCWD, 0, flags, 0)? {
            Outcome::Descriptor { descriptor, .. } => {
                rustix::fs::ftruncate(&descriptor, length)?;
                Ok(Outcome::Value(0))
            }
            _ => Err(Errno::INVAL),
        }
    }

    /// In learning, reading is noted and left to the kernel.
    fn note_reading(&mut self, call: &Call, base: i32, path: &[u8]) -> Done {
        if let Ok(place) = self.locate(call, base, path)
            && let Ok(parent) = self.real(&place.folder)
            && (place.name.is_empty() || self.present(&place))
        {
            let path = if place.name.is_empty() { parent } else { join(&parent, &place.name) };
            self.need("read", &path);
        }
        Ok(Outcome::LetThrough)
    }
}

fn writing(flags: OFlags) -> bool {
    flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC)
}

fn descriptor_for(descriptor: OwnedFd, flags: OFlags) -> Outcome {
    Outcome::Descriptor { descriptor, close_on_exec: flags.contains(OFlags::CLOEXEC) }
}

/// The device of a thread's terminal; 0 if it has none.
fn terminal_of(folder: &OwnedFd) -> Result<u64, Errno> {
    let file = rustix::fs::openat(folder, c"stat", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = [0; 1024];
    let length = rustix::io::read(&file, &mut text)?;
    let text = text.get(..length).unwrap_or_default();
    // The name of the program may hold anything; what follows its last bracket does not.
    let behind = text.iter().rposition(|byte| *byte == b')').ok_or(Errno::IO)?;
    let fields = std::str::from_utf8(text.get(behind + 1..).unwrap_or_default()).map_err(|_| Errno::IO)?;
    let number: i32 = fields.split_ascii_whitespace().nth(4).and_then(|field| field.parse().ok()).ok_or(Errno::IO)?;
    let number = number.cast_unsigned();
    Ok(rustix::fs::makedev((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xfff00)))
}
