//! Connections made inside a cage to a forwarded port, carried to the same port of the host's 127.0.0.1.
//!
//! The listener was opened inside and is accepted from outside, so no program runs in the cage for it. The one fact a
//! newcomer gets wrong: bytes are not looked at here; a forwarded port is as open as the program behind it.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;

/// Most connections at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 256;
/// Bytes that wait in one direction of one connection.
const BUFFER: usize = 64 * 1024;

/// All forwarded ports of a run.
#[derive(Debug, Default)]
pub(crate) struct Forwarder {
    listeners: Vec<(u16, TcpListener)>,
    connections: Vec<Connection>,
}

#[derive(Debug)]
struct Connection {
    inside: TcpStream,
    outside: TcpStream,
    to_outside: Flow,
    to_inside: Flow,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Flow {
    waiting: Vec<u8>,
    ended: bool,
    told: bool,
}

impl Flow {
    /// Carries what it can; an error means that the connection is over.
    fn carry(&mut self, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        use std::io::{Read as _, Write as _};
        if !self.ended && self.waiting.len() < BUFFER {
            let mut bytes = [0_u8; 16 * 1024];
            match from.read(&mut bytes) {
                Ok(0) => self.ended = true,
                Ok(count) => self.waiting.extend_from_slice(bytes.get(..count).unwrap_or_default()),
                Err(error) if is_later(&error) => {}
                Err(error) => return Err(error),
            }
        }
        while !self.waiting.is_empty() {
            match to.write(&self.waiting) {
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(error) if is_later(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if self.ended && !self.told {
            self.told = true;
            let _ = to.shutdown(Shutdown::Write);
        }
        Ok(())
    }

    fn wants(&self) -> bool {
        !self.ended && self.waiting.len() < BUFFER
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl Forwarder {
    /// Takes over a listener of the cage.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn add(&mut self, port: u16, listener: OwnedFd) -> io::Result<()> {
        let listener = TcpListener::from(listener);
        listener.set_nonblocking(true)?;
        self.listeners.push((port, listener));
        Ok(())
    }

    /// What to wait for.
    pub(crate) fn wants(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let mut wants = Vec::new();
        if self.connections.len() < MAX_CONNECTIONS {
            wants.extend(self.listeners.iter().map(|(_, listener)| (listener.as_fd(), PollFlags::IN)));
        }
        for one in &self.connections {
            let flags = |from: &Flow, to: &Flow| {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, from.wants());
                flags.set(PollFlags::OUT, !to.waiting.is_empty());
                flags
            };
            // A side from which nothing is wanted is left out: its hanging up would wake us for ever.
            let both = [
                (one.inside.as_fd(), flags(&one.to_outside, &one.to_inside)),
                (one.outside.as_fd(), flags(&one.to_inside, &one.to_outside)),
            ];
            wants.extend(both.into_iter().filter(|(_, flags)| !flags.is_empty()));
        }
        wants
    }

    /// Does what can be done now.
    pub(crate) fn serve(&mut self) {
        for (port, listener) in &self.listeners {
            while self.connections.len() < MAX_CONNECTIONS {
                let Ok((inside, _)) = listener.accept() else { break };
                // Without a program behind the port the connection ends, which is what a refusal looks like from here.
                if let Ok(connection) = Connection::to(inside, *port) {
                    self.connections.push(connection);
                }
            }
        }
        self.connections.retain_mut(|one| {
            let out = one.to_outside.carry(&one.inside, &one.outside);
            let back = one.to_inside.carry(&one.outside, &one.inside);
            out.is_ok() && back.is_ok() && !(one.to_outside.told && one.to_inside.told)
        });
    }
}

impl Connection {
    fn to(inside: TcpStream, port: u16) -> io::Result<Self> {
        // The host's own loopback device answers at once, also with a refusal.
        let outside = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        for stream in [&inside, &outside] {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
        }
        Ok(Self { inside, outside, to_outside: Flow::default(), to_inside: Flow::default() })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use rustix::event::{PollFd, poll};

    use super::*;

    #[test]
    fn both_directions_are_carried_whole_and_half_closed() {
        let behind = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = behind.local_addr().unwrap().port();
        let before = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let entry = before.local_addr().unwrap();
        let mut forwarder = Forwarder::default();
        forwarder.add(port, before.into()).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = behind.accept().unwrap();
            let mut asked = Vec::new();
            stream.read_to_end(&mut asked).unwrap();
            stream.write_all(&asked).unwrap();
        });
        let client = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(entry).unwrap();
            let sent: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
            stream.write_all(&sent).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            assert!(got == sent);
        });
        while !client.is_finished() {
            let wants = forwarder.wants();
            let mut fds: Vec<PollFd<'_>> =
                wants.iter().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
            let tick = rustix::time::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            poll(&mut fds, Some(&tick)).unwrap();
            forwarder.serve();
        }
        client.join().unwrap();
        server.join().unwrap();
    }
}
