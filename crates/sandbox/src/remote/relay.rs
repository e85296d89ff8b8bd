//! The asker's terminal and a stream of the run, carried to one another until one of them ends.
//!
//! The one fact a newcomer gets wrong: keys go through uninterpreted, Ctrl-C too; only the key for letting go of an
//! attachment is ours.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::{Answer, Client};
use crate::sys::process;
use crate::terminal::{Carried, Raw, carry};

/// Ctrl-]: lets go of an attachment.
const LET_GO: u8 = 0x1d;

/// What is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first command's terminal, shared; Ctrl-] lets go of it.
    Attachment,
    /// The terminal of a command of one's own.
    Own,
}

/// Carries bytes and size until the stream ends or the asker lets go. The answer of the run, where it came first.
///
/// # Errors
/// The kernel's.
pub fn relay(client: &Client, stream: &OwnedFd, kind: Kind) -> io::Result<Option<Answer>> {
    let signals = process::signals(&[libc::SIGWINCH, libc::SIGTERM, libc::SIGHUP])?;
    let keyboard = rustix::stdio::stdin();
    let mut raw = Raw::begin(keyboard.try_clone_to_owned()?)?;
    size(client, stream, kind);
    loop {
        let keys = if raw.is_raw() { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = [
            PollFd::new(stream, PollFlags::IN),
            PollFd::new(client, PollFlags::IN),
            PollFd::new(&signals, PollFlags::IN),
            PollFd::from_borrowed_fd(keyboard, keys),
        ];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let [from_run, answer, signal, typed] = fds.map(|fd| !fd.revents().is_empty());
        if signal {
            while let Some(number) = process::next_signal(signals.as_fd()) {
                match number {
                    libc::SIGWINCH => size(client, stream, kind),
                    number if kind == Kind::Own => client.signal_mine(number)?,
                    _ => return Ok(None),
                }
            }
        }
        if from_run && carry(stream, rustix::stdio::stdout()) == Carried::End {
            return Ok(None);
        }
        if typed {
            let mut bytes = [0_u8; 4096];
            let count = rustix::io::read(keyboard, &mut bytes).unwrap_or(0);
            let bytes = bytes.get(..count).unwrap_or_default();
            if count == 0 || kind == Kind::Attachment && bytes.contains(&LET_GO) {
                return Ok(None);
            }
            let mut rest = bytes;
            while !rest.is_empty() {
                match rustix::io::write(stream, rest) {
                    Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => {
                        poll(&mut [PollFd::new(stream, PollFlags::OUT)], None)?;
                    }
                    Err(_) => return Ok(None),
                }
            }
        }
        if answer && kind == Kind::Own {
            // What the command wrote last comes before its end.
            rustix::io::ioctl_fionbio(stream, true)?;
            while let Carried::Bytes(_) = carry(stream, rustix::stdio::stdout()) {}
            raw.pause();
            return client.next().map(Some);
        }
        if answer {
            raw.pause();
            return client.next().map(Some);
        }
    }
}

fn size(client: &Client, stream: &OwnedFd, kind: Kind) {
    let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) else { return };
    match kind {
        Kind::Attachment => drop(client.resize(size.ws_row, size.ws_col)),
        Kind::Own => drop(rustix::termios::tcsetwinsize(stream, size)),
    }
}
