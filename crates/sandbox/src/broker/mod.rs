//! The calls that a process in a cage does not make itself: the broker judges them and carries them out.
//!
//! It works on one call at a time and starts no threads. The one fact a newcomer gets wrong: that *is* its protection
//! against races. All calls of the cage that make or move a name or open a file for writing come through here in order,
//! so between judging and doing nothing in the cage can move.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use crate::seal::{Scanned, SealSet};

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
    setup: BrokerSetup,
    listeners: Vec<OwnedFd>,
}

impl Broker {
    /// A broker without commands yet.
    ///
    /// # Errors
    /// What it needs of `/proc` cannot be opened.
    pub fn new(setup: BrokerSetup) -> io::Result<Self> {
        Ok(Self { setup, listeners: Vec::new() })
    }

    /// Serves one more command: the descriptor of [`crate::filter::install`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_listener(&mut self, _listener: OwnedFd) -> io::Result<()> {
        let _ = &self.setup;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// What to wait on for reading; call [`Broker::serve`] with the index of what is ready. The order holds until the
    /// next call of `serve` or `add_listener`.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        use std::os::fd::AsFd as _;
        self.listeners.iter().map(OwnedFd::as_fd)
    }

    /// How long to wait at most before [`Broker::tick`]; `None` as long as there is nothing to try again.
    pub fn timeout(&self) -> Option<Duration> {
        None
    }

    /// Serves what is ready at one descriptor; does not block.
    ///
    /// # Errors
    /// Something is broken so badly that the cage must end.
    pub fn serve(&mut self, _index: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Tries again what could not be done at once, and sends events that had to wait.
    ///
    /// # Errors
    /// As [`Broker::serve`].
    pub fn tick(&mut self) -> io::Result<()> {
        Ok(())
    }
}
