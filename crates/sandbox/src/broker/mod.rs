//! The calls that a process in a cage does not make itself: the broker judges them and carries them out.
//!
//! It works on one call at a time and starts no threads. The one fact a newcomer gets wrong: that *is* its protection
//! against races. All calls of the cage that make or move a name or open a file for writing come through here in order,
//! so between judging and doing nothing in the cage can move. (Deleting does not come through here; it opens no way.)

mod caller;
mod config;
mod events;
mod judge;
mod later;
mod names;
mod open;
mod path;
mod socket;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use creel_model::cage::{CageEventKind, SealKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::seal::{Scanned, SealSet};
use crate::sys::seccomp::{self, Notification};
use caller::{Call, Callers};
use events::{Events, event_of, words};
use judge::Parents;
use later::Later;

/// Different paths that are reported while learning; further ones are not.
const MOST_NEEDED: usize = 20_000;

/// Calls of one command that are served before others are looked at.
const AT_ONCE: usize = 32;

/// What a broker needs to know. It is made in the cage: after the root was switched, with `/proc` mounted, with the
/// Landlock rules of the plan on and with `CAP_SYS_PTRACE` as the only capability.
#[derive(Debug)]
pub struct BrokerSetup {
    /// Sealed names.
    pub seals: SealSet,
    /// What the walk found, after it was bound read-only.
    pub scanned: Scanned,
    /// Writable parts of the host, as absolute paths in the cage; only below these seals are judged.
    pub roots: Vec<PathBuf>,
    /// Granted *files* with write access: a rename onto one replaces its content.
    pub replaceable: Vec<PathBuf>,
    /// Granted sockets, as absolute paths in the cage.
    pub sockets: Vec<PathBuf>,
    /// Where events go: a `SOCK_SEQPACKET` socket, one event as JSON per message. Never blocks; what does not fit is
    /// kept up to 1,024 events and then counted.
    pub events: OwnedFd,
    /// Record what is needed ([`crate::filter::FilterSpec::learn`]).
    pub learn: bool,
}

/// Carries out mediated calls; owned and driven by the loop of its process.
#[derive(Debug)]
pub struct Broker {
    seals: SealSet,
    /// Without a `/` at the end, the longest first.
    roots: Vec<PathBuf>,
    replaceable: Vec<Vec<u8>>,
    sockets: Vec<Vec<u8>>,
    /// Sockets that commands in the cage made, held so that their numbers are not used again.
    bound: Vec<(u64, u64, OwnedFd)>,
    /// Sealed files with several names.
    linked: BTreeSet<(u64, u64)>,
    /// Configurations that are bound read-only: their objects below the binding.
    configs: BTreeMap<(u64, u64), OwnedFd>,
    parents: Parents,
    callers: Callers,
    events: Events,
    listeners: Vec<Rc<OwnedFd>>,
    later: Vec<Later>,
    /// `/proc/self/fd`.
    own: OwnedFd,
    proc_device: u64,
    /// Our own mask, as last set.
    umask: Option<u32>,
    learn: bool,
    needed: BTreeSet<(&'static str, Vec<u8>)>,
    /// In learning: the thread whose call is being carried out, and its folder.
    learner: Option<(u32, Rc<OwnedFd>)>,
    /// For names of passing files.
    counter: u64,
}

/// How a call ends.
#[derive(Debug)]
enum Outcome {
    /// With a number.
    Value(i64),
    /// With a new descriptor.
    Descriptor {
        /// What it opens.
        descriptor: OwnedFd,
        /// `O_CLOEXEC` as the caller wants it.
        close_on_exec: bool,
    },
    /// The kernel makes the call.
    LetThrough,
    /// Not yet.
    Later(later::Wait),
}

type Done = Result<Outcome, Errno>;

impl Broker {
    /// A broker without commands yet.
    ///
    /// # Errors
    /// What it needs of `/proc` cannot be opened.
    pub fn new(setup: BrokerSetup) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let own = rustix::fs::open(c"/proc/self/fd", flags, Mode::empty())?;
        let proc_device = rustix::fs::fstat(&own)?.st_dev;
        let mut roots: Vec<PathBuf> = setup
            .roots
            .iter()
            .map(|root| {
                let bytes = root.as_os_str().as_bytes();
                PathBuf::from(std::ffi::OsString::from_vec(bytes.strip_suffix(b"/").unwrap_or(bytes).to_vec()))
            })
            .collect();
        roots.sort_by_key(|root| std::cmp::Reverse(root.as_os_str().len()));
        let bytes = |path: &PathBuf| path.as_os_str().as_bytes().to_vec();
        let mut configs = BTreeMap::new();
        for found in setup.scanned.found {
            if found.kind == SealKind::GitConfig {
                let about = rustix::fs::fstat(&found.object)?;
                configs.insert((about.st_dev, about.st_ino), found.object);
            }
        }
        Ok(Self {
            seals: setup.seals,
            replaceable: setup.replaceable.iter().map(bytes).collect(),
            sockets: setup.sockets.iter().map(bytes).collect(),
            roots,
            bound: Vec::new(),
            linked: setup.scanned.linked,
            configs,
            parents: Parents::default(),
            callers: Callers::new()?,
            events: Events::new(setup.events),
            listeners: Vec::new(),
            later: Vec::new(),
            own,
            proc_device,
            umask: None,
            learn: setup.learn,
            needed: BTreeSet::new(),
            learner: None,
            counter: 0,
        })
    }

    /// Serves one more command: the descriptor of [`crate::filter::install`].
    ///
    /// # Errors
    /// None today; a listener that cannot be served must end the cage.
    pub fn add_listener(&mut self, listener: OwnedFd) -> io::Result<()> {
        seccomp::wake_up_here(listener.as_fd());
        self.listeners.push(Rc::new(listener));
        Ok(())
    }

    /// What to wait on for reading; call [`Broker::serve`] with the index of what is ready *or has hung up*. The order
    /// holds until the next call of `serve` or `add_listener`.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.listeners.iter().map(|listener| listener.as_fd())
    }

    /// How long to wait at most before [`Broker::tick`]; `None` as long as there is nothing to try again.
    pub fn timeout(&self) -> Option<Duration> {
        let events = self.events.wait().then_some(Duration::from_millis(50));
        let later = self.later.iter().map(Later::delay).min();
        events.into_iter().chain(later).min()
    }

    /// Serves what waits at a descriptor, or lets go of it; `seen` is what a poll for reading just said about it, and
    /// without `IN` nobody will ever call there again. Does not block.
    ///
    /// # Errors
    /// Something is broken so badly that the cage must end.
    pub fn serve(&mut self, index: usize, seen: PollFlags) -> io::Result<()> {
        let Some(listener) = self.listeners.get(index).map(Rc::clone) else { return Ok(()) };
        if !seen.contains(PollFlags::IN) {
            // The last process with this filter is gone.
            self.listeners.remove(index);
            return Ok(());
        }
        for _ in 0..AT_ONCE {
            if let Some(notification) = seccomp::receive(listener.as_fd())? {
                self.one(&listener, notification);
            }
            // Who was answered runs before us and often calls again at once; asking here is cheaper than going round.
            let mut waiting = [PollFd::new(&*listener, PollFlags::IN)];
            let now = Timespec::default();
            if !matches!(poll(&mut waiting, Some(&now)), Ok(1))
                || !waiting.iter().all(|one| one.revents() == PollFlags::IN)
            {
                break;
            }
        }
        Ok(())
    }

    /// Tries again what could not be done at once, and sends events that had to wait.
    ///
    /// # Errors
    /// As [`Broker::serve`].
    pub fn tick(&mut self) -> io::Result<()> {
        self.events.flush();
        self.again_later();
        Ok(())
    }

    /// Carries out one call and answers it. A caller that is gone gets no answer; whatever else goes wrong is an error
    /// for the caller, never a success.
    fn one(&mut self, listener: &Rc<OwnedFd>, notification: Notification) {
        let folder = match self.callers.folder(listener.as_fd(), &notification) {
            Ok(folder) => folder,
            Err(error) => {
                seccomp::answer(listener.as_fd(), notification.id, Err(error));
                return;
            }
        };
        if self.learn {
            self.learner = Some((notification.thread, Rc::clone(&folder)));
        }
        let call = Call { listener: Rc::clone(listener), notification, folder };
        let mut done = self.carry_out(&call);
        if matches!(done, Err(Errno::SRCH)) && call.waits() {
            // The folder was that of a thread that used the number before.
            self.callers.forget(notification.thread);
            if let Ok(folder) = self.callers.folder(listener.as_fd(), &notification) {
                done = self.carry_out(&Call { listener: Rc::clone(listener), notification, folder });
            }
        }
        self.answer(call, done);
    }

    fn answer(&mut self, call: Call, done: Done) {
        let (listener, id) = (call.listener.as_fd(), call.notification.id);
        match done {
            Ok(Outcome::Value(value)) => {
                seccomp::answer(listener, id, Ok(value));
            }
            Ok(Outcome::Descriptor { descriptor, close_on_exec }) => {
                if let Err(error) = seccomp::answer_with(listener, id, descriptor.as_fd(), close_on_exec) {
                    seccomp::answer(listener, id, Err(error));
                }
            }
            Ok(Outcome::LetThrough) => {
                seccomp::let_through(listener, id);
            }
            Ok(Outcome::Later(wait)) => self.postpone(call, wait),
            Err(error) => {
                seccomp::answer(listener, id, Err(error));
            }
        }
    }

    fn carry_out(&mut self, call: &Call) -> Done {
        const HERE: i32 = libc::AT_FDCWD;
        const CREATE: u32 = (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC).cast_unsigned();
        match libc::c_long::from(call.notification.number) {
            libc::SYS_openat => self.open(call, call.int(0), 1, call.word(2), call.word(3)),
            libc::SYS_mkdirat => self.make_folder(call, call.int(0), 1, call.word(2)),
            libc::SYS_mknodat => self.make_node(call, call.int(0), 1, call.word(2)),
            libc::SYS_symlinkat => self.make_symlink(call, 0, call.int(1), 2),
            libc::SYS_linkat => self.make_link(call, (call.int(0), 1), (call.int(2), 3), call.word(4)),
            libc::SYS_renameat => self.rename(call, (call.int(0), 1), (call.int(2), 3), 0),
            libc::SYS_renameat2 => self.rename(call, (call.int(0), 1), (call.int(2), 3), call.word(4)),
            libc::SYS_truncate => self.truncate(call),
            libc::SYS_connect => self.connect(call),
            libc::SYS_bind => self.bind(call),
            libc::SYS_umask => {
                self.callers.umask_changes(call)?;
                Ok(Outcome::LetThrough)
            }
            libc::SYS_execve => self.note_exec(call, 0),
            libc::SYS_execveat => self.note_exec(call, 1),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => self.open(call, HERE, 0, call.word(1), call.word(2)),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_creat => self.open(call, HERE, 0, CREATE, call.word(1)),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_mkdir => self.make_folder(call, HERE, 0, call.word(1)),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_mknod => self.make_node(call, HERE, 0, call.word(1)),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_symlink => self.make_symlink(call, 0, HERE, 1),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_link => self.make_link(call, (HERE, 0), (HERE, 1), 0),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_rename => self.rename(call, (HERE, 0), (HERE, 1), 0),
            _ => Err(Errno::NOSYS),
        }
    }

    /// Starting a program is not decided here (Landlock and the mounts do that), only noted: what is read now may be
    /// something else when the kernel reads it.
    fn note_exec(&mut self, call: &Call, path: usize) -> Done {
        let mut text = call.path(path).unwrap_or_default();
        let mut real = None;
        if text.is_empty() {
            text = b"(a descriptor)".to_vec();
        } else {
            real = self.program(call, &text, if path == 0 { libc::AT_FDCWD } else { call.int(0) });
            if real.is_none() {
                // Shells try one folder after the other.
                return Ok(Outcome::LetThrough);
            }
        }
        let mut event = event_of(CageEventKind::Exec);
        event.pid = call.notification.thread;
        event.call = "execve".to_owned();
        event.object = words(&text);
        self.events.push(event);
        if let Some(real) = real {
            self.need("execute", &real);
        }
        Ok(Outcome::LetThrough)
    }

    /// The absolute path of a program that is there; its last part may be a link. As the caller wrote it unless learning,
    /// where only that is asked for.
    fn program(&mut self, call: &Call, path: &[u8], base: i32) -> Option<Vec<u8>> {
        let place = self.locate(call, base, path).ok()?;
        let access = rustix::fs::Access::EXISTS;
        rustix::fs::accessat(&place.folder, place.name.as_slice(), access, rustix::fs::AtFlags::empty()).ok()?;
        if !self.learn {
            return Some(path.to_vec());
        }
        self.real(&place.folder).ok().map(|parent| join(&parent, &place.name))
    }

    /// In learning: takes down that something was needed.
    fn need(&mut self, what: &'static str, path: &[u8]) {
        if !self.learn || self.needed.len() >= MOST_NEEDED || !self.needed.insert((what, path.to_vec())) {
            return;
        }
        let mut event = event_of(CageEventKind::Needed);
        event.call = what.to_owned();
        event.object = words(path);
        if let Some((thread, folder)) = &self.learner {
            event.pid = *thread;
            if let Ok(program) = rustix::fs::readlinkat(&**folder, c"exe", Vec::new()) {
                event.program = words(program.as_bytes());
            }
        }
        self.events.push(event);
    }

    /// Notes a refusal and gives the error to answer with.
    fn refuse(&mut self, call: &Call, what: &str, object: &[u8], why: &Why<'_>, error: Errno) -> Errno {
        let mut event = event_of(CageEventKind::Refused);
        event.pid = call.notification.thread;
        if let Ok(program) = rustix::fs::readlinkat(&*call.folder, c"exe", Vec::new()) {
            event.program = words(program.as_bytes());
        }
        event.call = what.to_owned();
        event.object = words(object);
        event.rule = why.rule.to_owned();
        event.reason = why.reason.to_owned();
        event.fix = why.fix.to_owned();
        self.events.push(event);
        error
    }

    /// Makes our mask the caller's; all that is made next gets its modes from it.
    fn take_umask(&mut self, call: &Call) -> Result<(), Errno> {
        let mask = self.callers.umask(call)?;
        if self.umask != Some(mask) {
            rustix::process::umask(Mode::from_raw_mode(mask));
            self.umask = Some(mask);
        }
        Ok(())
    }
}

/// Why something is refused, for the record and for people.
struct Why<'a> {
    rule: &'a str,
    reason: &'a str,
    fix: &'a str,
}

/// The path of a name in a folder.
fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(folder.len() + name.len() + 1);
    path.extend_from_slice(folder);
    if !folder.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Bytes as a path.
fn as_path(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}
