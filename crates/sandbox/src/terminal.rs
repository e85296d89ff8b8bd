//! Terminals: a new one inside the cage, and the caller's own made raw while its bytes are carried over.
//!
//! The command never has a descriptor of the caller's terminal, so it can neither push input into it nor reach it by a
//! signal. The one fact a newcomer gets wrong: the caller's terminal is raw only while the command is in the foreground;
//! [`Raw`] gives it back on every way out, and before the supervisor stops itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Termios};

use crate::setup::TerminalSetup;

/// Most bytes carried at once.
const CHUNK: usize = 32 * 1024;

/// A new terminal of the cage: the side that the supervisor holds, and the command's.
///
/// # Errors
/// The kernel's.
pub(crate) fn open() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master = rustix::fs::openat(CWD, c"/dev/pts/ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    Ok((master, slave))
}

/// The caller's terminal, where one of the standard descriptors is one.
pub(crate) fn of_caller() -> Option<(TerminalSetup, OwnedFd)> {
    let standard = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let which = standard.map(rustix::termios::isatty);
    let (first, _) = standard.iter().zip(which).find(|(_, terminal)| *terminal)?;
    let size = rustix::termios::tcgetwinsize(first).ok()?;
    let modes = rustix::termios::tcgetattr(first).ok()?;
    let own = first.try_clone_to_owned().ok()?;
    Some((TerminalSetup { size, modes, which }, own))
}

/// The caller's terminal while it is raw.
#[derive(Debug)]
pub(crate) struct Raw {
    terminal: OwnedFd,
    before: Termios,
    raw: bool,
}

impl Raw {
    /// Makes it raw.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn begin(terminal: OwnedFd) -> io::Result<Self> {
        let before = rustix::termios::tcgetattr(&terminal)?;
        let mut this = Self { terminal, before, raw: false };
        this.again()?;
        Ok(this)
    }

    /// Makes it raw again, unless this program is in the background: then it must not touch the terminal.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn again(&mut self) -> io::Result<()> {
        let foreground =
            rustix::termios::tcgetpgrp(&self.terminal).is_ok_and(|group| group == rustix::process::getpgrp());
        if !foreground || self.raw {
            return Ok(());
        }
        let mut modes = self.before.clone();
        modes.make_raw();
        rustix::termios::tcsetattr(&self.terminal, OptionalActions::Drain, &modes)?;
        self.raw = true;
        Ok(())
    }

    /// Gives it back.
    pub(crate) fn pause(&mut self) {
        if self.raw {
            let _ = rustix::termios::tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
            self.raw = false;
        }
    }

    /// It is raw, so what is typed belongs to the command.
    pub(crate) fn is_raw(&self) -> bool {
        self.raw
    }

    /// Carries its size over.
    pub(crate) fn copy_size(&self, master: BorrowedFd<'_>) {
        if let Ok(size) = rustix::termios::tcgetwinsize(&self.terminal) {
            let _ = rustix::termios::tcsetwinsize(master, size);
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.pause();
    }
}

/// What a carrying came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    /// So many bytes.
    Bytes(usize),
    /// There is nothing now.
    Nothing,
    /// There will be nothing any more.
    End,
}

/// Carries what is there from one descriptor to another, whole.
pub(crate) fn carry(from: impl AsFd, to: impl AsFd) -> Carried {
    let mut bytes = [0_u8; CHUNK];
    let count = match rustix::io::read(from, &mut bytes) {
        Ok(0) => return Carried::End,
        Ok(count) => count,
        Err(Errno::INTR | Errno::AGAIN) => return Carried::Nothing,
        // The command's side of a terminal has been closed.
        Err(_) => return Carried::End,
    };
    let mut rest = bytes.get(..count).unwrap_or_default();
    while !rest.is_empty() {
        match rustix::io::write(&to, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut wait = [rustix::event::PollFd::new(&to, rustix::event::PollFlags::OUT)];
                if !matches!(rustix::event::poll(&mut wait, None), Ok(_) | Err(Errno::INTR)) {
                    return Carried::End;
                }
            }
            Err(_) => return Carried::End,
        }
    }
    Carried::Bytes(count)
}
