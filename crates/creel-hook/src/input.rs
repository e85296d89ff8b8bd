//! Standard input as bytes, bounded in size and time.

use std::time::{Duration, Instant};

use creel_wire::hook::PAYLOAD_BYTES_MAX;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;

/// Reads standard input to its end; what is beyond [`PAYLOAD_BYTES_MAX`] is read and dropped.
pub(crate) fn read(deadline: Instant) -> Result<Vec<u8>, String> {
    let standard_input = std::io::stdin();
    let stdin = standard_input.as_fd();
    let mut payload = Vec::new();
    let mut total = 0usize;
    let mut buffer = [0u8; 32 * 1024];
    loop {
        wait(stdin, PollFlags::IN, deadline).map_err(|error| match error {
            Errno::TIMEDOUT => "the agent did not finish its event in time".to_owned(),
            error => format!("the event could not be read: {error}"),
        })?;
        let read = match rustix::io::read(stdin, &mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(error) => return Err(format!("the event could not be read: {error}")),
        };
        total = total.saturating_add(read);
        if total <= PAYLOAD_BYTES_MAX {
            payload.extend_from_slice(buffer.get(..read).unwrap_or_default());
        } else {
            payload = Vec::new();
        }
    }
    if total > PAYLOAD_BYTES_MAX {
        return Err(format!("the event is {total} bytes long, more than {PAYLOAD_BYTES_MAX}"));
    }
    Ok(payload)
}

/// Waits until the descriptor is ready or gone; `TIMEDOUT` at the deadline.
pub(crate) fn wait(descriptor: BorrowedFd<'_>, flags: PollFlags, deadline: Instant) -> Result<(), Errno> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Errno::TIMEDOUT);
        }
        match poll(&mut [PollFd::from_borrowed_fd(descriptor, flags)], Some(&timespec(left))) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX), tv_nsec: duration.subsec_nanos().into() }
}
