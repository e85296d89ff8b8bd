//! Whether the other end of a connection is still there, and that it does not take longer than it may.

use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

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

/// A stream whose reads and writes together must be done by a moment: a limit on each of them alone is none, because a
/// byte now and then keeps a connection open for ever.
pub struct InTime<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl<'a> InTime<'a> {
    /// From now, at most so long.
    #[must_use]
    pub fn new(stream: &'a UnixStream, at_most: Duration) -> Self {
        Self { stream, until: Instant::now() + at_most }
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for InTime<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(bytes)
    }
}

impl Write for InTime<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_sends_a_byte_now_and_then_is_cut_off_in_the_end() {
        let (here, mut there) = UnixStream::pair().expect("pair");
        there.write_all(b"abc").expect("write");
        let mut byte = [0; 1];
        assert_eq!(InTime::new(&here, Duration::from_secs(600)).read(&mut byte).expect("in time"), 1);
        let late = InTime::new(&here, Duration::ZERO).read(&mut byte).expect_err("too late, though more is there");
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        assert!(InTime::new(&here, Duration::ZERO).write(b"x").is_err());
    }

    #[test]
    fn a_closed_end_is_seen_and_an_open_one_is_not() {
        let (here, there) = UnixStream::pair().expect("pair");
        assert!(!is_closed(&here));
        drop(there);
        assert!(is_closed(&here));
    }
}
