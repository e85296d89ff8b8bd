//! Whether the other end of a connection is still there.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Whether the peer has closed the connection altogether.
#[must_use]
pub fn is_closed(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(stream.as_fd(), PollFlags::HUP | PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut fds, Some(&now)) {
        Ok(0) | Err(_) => false,
        Ok(_) => fds.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_end_is_seen_and_an_open_one_is_not() {
        let (here, there) = UnixStream::pair().expect("pair");
        assert!(!is_closed(&here));
        drop(there);
        assert!(is_closed(&here));
    }
}
