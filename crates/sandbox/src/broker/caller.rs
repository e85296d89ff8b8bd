//! Who makes a call: the thread's folder in `/proc`, which stays that thread's for ever, and what is known about it.
//!
//! The one fact a newcomer gets wrong: the number of a thread may belong to another one a moment later, a descriptor of
//! its folder never does. So everything about a caller is asked through that folder, and the memory, which can only be
//! asked for by number, is believed when the call still waits afterwards.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::sys::seccomp::{self, Notification};

/// Callers that are remembered.
const MOST_KNOWN: usize = 64;
/// An unused one is looked at again after this time: numbers do not come round faster.
const FRESH: Duration = Duration::from_millis(500);
/// Longest path, in bytes, with its zero.
const PATH_BYTES: usize = 4096;

/// A call that is being carried out.
#[derive(Debug)]
pub(super) struct Call {
    /// Where the answer goes.
    pub(super) listener: Rc<OwnedFd>,
    /// The call.
    pub(super) notification: Notification,
    /// `/proc/<thread>`.
    pub(super) folder: Rc<OwnedFd>,
}

#[derive(Debug)]
struct Known {
    thread: u32,
    folder: Rc<OwnedFd>,
    facts: Option<Facts>,
    used: Instant,
}

/// What stands in a thread's `status`.
#[derive(Clone, Copy, Debug)]
struct Facts {
    process: u32,
    umask: Option<u32>,
    /// A thread that was about to change the mask when it was last seen.
    doubt: Option<u32>,
}

/// The callers seen last.
#[derive(Debug)]
pub(super) struct Callers {
    proc: OwnedFd,
    known: Vec<Known>,
}

impl Callers {
    pub(super) fn new() -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { proc: rustix::fs::open(c"/proc", flags, Mode::empty())?, known: Vec::new() })
    }

    /// The folder of a thread that waits for an answer.
    pub(super) fn folder(
        &mut self,
        listener: BorrowedFd<'_>,
        notification: &Notification,
    ) -> Result<Rc<OwnedFd>, Errno> {
        let now = Instant::now();
        let thread = notification.thread;
        if let Some(at) = self.known.iter().position(|known| known.thread == thread)
            && let Some(known) = self.known.get_mut(at)
        {
            let fresh = now.duration_since(known.used) < FRESH
                || rustix::fs::accessat(
                    &*known.folder,
                    c"stat",
                    rustix::fs::Access::EXISTS,
                    rustix::fs::AtFlags::empty(),
                )
                .is_ok();
            if fresh {
                known.used = now;
                return Ok(Rc::clone(&known.folder));
            }
            self.known.swap_remove(at);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(&self.proc, rustix::path::DecInt::new(thread), flags, Mode::empty())?;
        if !seccomp::still_waiting(listener, notification.id) {
            return Err(Errno::SRCH);
        }
        let folder = Rc::new(folder);
        if self.known.len() >= MOST_KNOWN
            && let Some(oldest) = (0..self.known.len()).min_by_key(|at| self.known.get(*at).map(|known| known.used))
        {
            self.known.swap_remove(oldest);
        }
        self.known.push(Known { thread, folder: Rc::clone(&folder), facts: None, used: now });
        Ok(folder)
    }

    /// Forgets what is known under a number; its folder did not answer.
    pub(super) fn forget(&mut self, thread: u32) {
        self.known.retain(|known| known.thread != thread);
    }

    fn facts(&mut self, call: &Call) -> Result<Facts, Errno> {
        let thread = call.notification.thread;
        let known = self.known.iter().find(|known| known.thread == thread).and_then(|known| known.facts);
        if let Some(facts) = known
            && facts.doubt.is_none()
            && facts.umask.is_some()
        {
            return Ok(facts);
        }
        let mut facts = read_facts(&call.folder)?;
        // A thread that makes another call has done with changing the mask; another's change may come any moment.
        facts.doubt = known.and_then(|known| known.doubt).filter(|doubtful| *doubtful != thread);
        for other in &mut self.known {
            if let Some(theirs) = &mut other.facts
                && theirs.process == facts.process
                && theirs.doubt == Some(thread)
            {
                theirs.doubt = None;
            }
        }
        if let Some(known) = self.known.iter_mut().find(|known| known.thread == thread) {
            known.facts = Some(facts);
        }
        Ok(facts)
    }

    /// The caller's file mode creation mask.
    pub(super) fn umask(&mut self, call: &Call) -> Result<u32, Errno> {
        self.facts(call)?.umask.ok_or(Errno::IO)
    }

    /// The number of the caller's process.
    pub(super) fn process(&mut self, call: &Call) -> Result<u32, Errno> {
        Ok(self.facts(call)?.process)
    }

    /// The caller is about to change its mask.
    pub(super) fn umask_changes(&mut self, call: &Call) -> Result<(), Errno> {
        let process = self.facts(call)?.process;
        for known in &mut self.known {
            if let Some(facts) = &mut known.facts
                && facts.process == process
            {
                facts.umask = None;
                facts.doubt = Some(call.notification.thread);
            }
        }
        Ok(())
    }
}

fn read_facts(folder: &OwnedFd) -> Result<Facts, Errno> {
    let file = rustix::fs::openat(folder, c"status", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = [0; 1024];
    let length = rustix::io::read(&file, &mut text)?;
    let text = text.get(..length).unwrap_or_default();
    let field = |name: &[u8]| {
        text.split(|byte| *byte == b'\n')
            .find_map(|line| line.strip_prefix(name))
            .and_then(|value| std::str::from_utf8(value).ok())
            .map(str::trim)
    };
    let process = field(b"Tgid:").and_then(|value| value.parse().ok()).ok_or(Errno::IO)?;
    let umask = field(b"Umask:").and_then(|value| u32::from_str_radix(value, 8).ok());
    Ok(Facts { process, umask, doubt: None })
}

impl Call {
    /// An argument of the call.
    pub(super) fn argument(&self, at: usize) -> u64 {
        self.notification.arguments.get(at).copied().unwrap_or_default()
    }

    /// An argument that is an `int`.
    pub(super) fn int(&self, at: usize) -> i32 {
        self.word(at).cast_signed()
    }

    /// The lower 32 bits of an argument.
    pub(super) fn word(&self, at: usize) -> u32 {
        u32::try_from(self.argument(at) & u64::from(u32::MAX)).unwrap_or_default()
    }

    /// Whether the caller still waits; else everything learnt by its number may be another's.
    pub(super) fn waits(&self) -> bool {
        seccomp::still_waiting(std::os::fd::AsFd::as_fd(&*self.listener), self.notification.id)
    }

    /// A path in the caller's memory, read once. Whoever's memory it turns out to be, it is judged and carried out with
    /// the cage's rights; a caller that is gone gets no answer.
    ///
    /// # Errors
    /// As the kernel answers: `EFAULT`, `ENAMETOOLONG`.
    pub(super) fn path(&self, at: usize) -> Result<Vec<u8>, Errno> {
        let address = self.argument(at);
        let mut text = vec![0; 256];
        loop {
            let read = seccomp::read_memory(self.notification.thread, address, &mut text)?;
            let seen = text.get(..read).unwrap_or_default();
            if let Some(end) = seen.iter().position(|byte| *byte == 0) {
                text.truncate(end);
                return Ok(text);
            }
            if read < text.len() {
                return Err(Errno::FAULT);
            }
            if text.len() >= PATH_BYTES {
                return Err(Errno::NAMETOOLONG);
            }
            // Nothing of the first look is used: the text counts as it stands in one look.
            text = vec![0; PATH_BYTES];
        }
    }

    /// Some bytes of the caller's memory.
    pub(super) fn bytes(&self, at: usize, length: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; length];
        let read = seccomp::read_memory(self.notification.thread, self.argument(at), &mut bytes)?;
        if read < length {
            return Err(Errno::FAULT);
        }
        if self.waits() { Ok(bytes) } else { Err(Errno::SRCH) }
    }
}
