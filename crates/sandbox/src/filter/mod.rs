//! Which system calls a process in a cage may make, as a program for the kernel.
//!
//! [`install`] puts it on the calling process and all that it starts, for ever, and gives the descriptor on which the
//! calls arrive that the broker carries out. The one fact a newcomer gets wrong: calls that are not in the table are
//! *missing* (ENOSYS), not allowed, so that a newer kernel opens nothing.

mod compile;
mod rule;
mod table;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;

use crate::sys::seccomp;

pub(crate) use compile::Instruction;

/// What the filter depends on beside the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterSpec {
    /// Every opening of a file is reported to the broker, reading ones too, so that it can record what was needed.
    pub learn: bool,
}

/// Puts the filter on the calling thread, which must be the only one, must have given up new privileges, and execs
/// afterwards. The descriptor belongs to the broker and must not survive in the caller: it closes on exec.
///
/// From here on the caller's own calls are mediated too: without a broker that serves the descriptor, the first opening
/// for writing waits for ever, and `execve` waits for the broker to note it.
///
/// # Errors
/// The kernel's.
pub fn install(spec: &FilterSpec) -> io::Result<OwnedFd> {
    let program = compile::compile(&table::table(spec), table::MISSING, table::ARCHITECTURE, table::FOREIGN)
        .ok_or_else(|| io::Error::other("the filter is longer than the kernel takes"))?;
    seccomp::install(&program)
}
