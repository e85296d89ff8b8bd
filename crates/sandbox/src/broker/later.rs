//! Calls that wait for somebody else: the other end of a pipe, a server that accepts.
//!
//! They are tried again, soon at first and then every few milliseconds, because waiting in the kernel would hold up every
//! other call of the cage. The one fact a newcomer gets wrong: a caller that is killed gives no sign; each try looks
//! first whether it still waits.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::caller::Call;
use super::{Broker, Done, Outcome};
use crate::sys::seccomp;

/// Calls that wait at most; further ones are refused with `EAGAIN`.
const MOST_LATER: usize = 64;
/// How soon the first tries follow, and the later ones.
const SOON: Duration = Duration::from_millis(1);
const STEADY: Duration = Duration::from_millis(10);
/// Tries before they become steady.
const SOON_TRIES: u32 = 50;

/// What is waited for.
#[derive(Debug)]
pub(super) enum Wait {
    /// A pipe, to be opened for writing when somebody reads it.
    Reader { object: OwnedFd, flags: OFlags, close_on_exec: bool },
    /// A pipe that is open for reading, until somebody writes.
    Writer { descriptor: OwnedFd, close_on_exec: bool },
    /// A socket that is being connected.
    Connected { socket: OwnedFd },
    /// A unix socket whose server has too many waiting.
    Accepting {
        socket: OwnedFd,
        address: Vec<u8>,
        /// Held because the address names it by its number.
        _server: Option<OwnedFd>,
    },
}

/// A call that waits.
#[derive(Debug)]
pub(super) struct Later {
    call: Call,
    wait: Wait,
    tries: u32,
    at: Instant,
}

impl Later {
    /// Until the next try.
    pub(super) fn delay(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

impl Broker {
    pub(super) fn postpone(&mut self, call: Call, wait: Wait) {
        if self.later.len() >= MOST_LATER {
            seccomp::answer(call.listener.as_fd(), call.notification.id, Err(Errno::AGAIN));
            return;
        }
        self.later.push(Later { call, wait, tries: 0, at: Instant::now() + SOON });
    }

    pub(super) fn again_later(&mut self) {
        let now = Instant::now();
        for later in std::mem::take(&mut self.later) {
            if later.at > now {
                self.later.push(later);
                continue;
            }
            let Later { call, wait, tries, .. } = later;
            if !call.waits() {
                continue;
            }
            match self.try_again(wait) {
                Err(wait) => {
                    let delay = if tries < SOON_TRIES { SOON } else { STEADY };
                    self.later.push(Later { call, wait, tries: tries.saturating_add(1), at: now + delay });
                }
                Ok(done) => self.answer(call, done),
            }
        }
    }

    /// The end, or what is still waited for.
    fn try_again(&self, wait: Wait) -> Result<Done, Wait> {
        match wait {
            Wait::Reader { object, flags, close_on_exec } => match self.again(&object, flags | OFlags::NONBLOCK) {
                Ok(descriptor) => Ok(blocking(descriptor, flags, close_on_exec)),
                Err(Errno::NXIO) => Err(Wait::Reader { object, flags, close_on_exec }),
                Err(error) => Ok(Err(error)),
            },
            Wait::Writer { descriptor, close_on_exec } => {
                if ready(&descriptor, PollFlags::IN) {
                    Ok(blocking(descriptor, OFlags::empty(), close_on_exec))
                } else {
                    Err(Wait::Writer { descriptor, close_on_exec })
                }
            }
            Wait::Connected { socket } => {
                if !ready(&socket, PollFlags::OUT) {
                    return Err(Wait::Connected { socket });
                }
                let ended = rustix::net::sockopt::socket_error(&socket);
                Ok(match (super::socket::blocking(&socket), ended) {
                    (Ok(()), Ok(Ok(()))) => Ok(Outcome::Value(0)),
                    (_, Ok(Err(error)) | Err(error)) | (Err(error), _) => Err(error),
                })
            }
            Wait::Accepting { socket, address, _server } => match seccomp::connect(socket.as_fd(), &address) {
                Err(Errno::AGAIN) => Err(Wait::Accepting { socket, address, _server }),
                ended => {
                    let restored = super::socket::blocking(&socket);
                    Ok(ended.and(restored).map(|()| Outcome::Value(0)))
                }
            },
        }
    }
}

fn ready(descriptor: &OwnedFd, flags: PollFlags) -> bool {
    let mut one = [PollFd::new(descriptor, flags)];
    matches!(rustix::event::poll(&mut one, Some(&Timespec::default())), Ok(1))
}

fn blocking(descriptor: OwnedFd, flags: OFlags, close_on_exec: bool) -> Done {
    rustix::fs::fcntl_setfl(&descriptor, flags.difference(OFlags::NONBLOCK))?;
    Ok(Outcome::Descriptor { descriptor, close_on_exec })
}
