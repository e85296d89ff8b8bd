//! Which system calls a process in a cage may make, as a program for the kernel.
//!
//! [`install`] puts it on the calling process and all that it starts, for ever, and gives the descriptor on which the
//! calls arrive that the broker carries out. The one fact a newcomer gets wrong: calls that are not in the table are
//! *missing* (ENOSYS), not allowed, so that a newer kernel opens nothing.

use std::io;
use std::os::fd::OwnedFd;

/// What the filter depends on beside the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterSpec {
    /// Every opening of a file is reported to the broker, reading ones too, so that it can record what was needed.
    pub learn: bool,
}

/// Puts the filter on the calling thread, which must be the only one, must have given up new privileges, and execs
/// afterwards. The descriptor belongs to the broker and must not survive in the caller: it closes on exec.
///
/// # Errors
/// The kernel's.
pub fn install(_spec: &FilterSpec) -> io::Result<OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}
