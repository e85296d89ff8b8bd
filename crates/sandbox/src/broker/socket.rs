//! Connecting and binding, on the caller's own socket.
//!
//! A named socket may be connected to if it is granted or if the cage made it. The one fact a newcomer gets wrong: the
//! server sees the *broker* as who connected (`SO_PEERCRED`), with the account that both share.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::caller::Call;
use super::judge::Verdict;
use super::later::Wait;
use super::path::Place;
use super::{Broker, Done, Outcome, Why, join};
use crate::sys::seccomp;

/// Longest address, in bytes: the kernel's `sockaddr_storage`.
const LONGEST_ADDRESS: u64 = 128;
/// Longest path in an address.
const LONGEST_PATH: usize = 107;
/// Sockets of the cage that are remembered.
const MOST_BOUND: usize = 256;

const UNIX: u16 = libc::AF_UNIX.cast_unsigned() as u16;

/// What an address names.
enum Address {
    /// A unix socket with a path.
    Path(Vec<u8>),
    /// Anything else, as the caller wrote it.
    Other(Vec<u8>),
}

impl Broker {
    pub(super) fn connect(&mut self, call: &Call) -> Done {
        let (socket, address) = self.socket_and_address(call)?;
        match address {
            Address::Other(bytes) => {
                let shown = show(&bytes);
                if let Some(shown) = &shown {
                    self.need("connect", shown.as_bytes());
                }
                match self.connect_now(socket, bytes, None) {
                    Err(error @ (Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::NETDOWN)) => {
                        let why = Why {
                            rule: "network",
                            reason: "the cage has no way to other machines",
                            fix: "let the profile grant what is needed",
                        };
                        let object = shown.unwrap_or_default();
                        Err(self.refuse(call, "connect", object.as_bytes(), &why, error))
                    }
                    done => done,
                }
            }
            Address::Path(path) => {
                let place = self.locate(call, libc::AT_FDCWD, &path)?;
                let server = self.hold(call, place, true)?;
                let about = rustix::fs::fstat(&server)?;
                if FileType::from_raw_mode(about.st_mode) != FileType::Socket {
                    return Err(Errno::CONNREFUSED);
                }
                let real = self.real(&server)?;
                self.need("connect", &real);
                let own = self.bound.iter().any(|(device, inode, _)| (*device, *inode) == (about.st_dev, about.st_ino));
                if !own && !self.sockets.contains(&real) {
                    let why = Why {
                        rule: "sockets",
                        reason: "the socket belongs to a program outside of the cage and is not granted",
                        fix: "let the profile grant this socket",
                    };
                    return Err(self.refuse(call, "connect", &real, &why, Errno::ACCESS));
                }
                let address = unix_address(format!("/proc/self/fd/{}", server.as_raw_fd()).as_bytes());
                self.connect_now(socket, address, Some(server))
            }
        }
    }

    /// Connects without waiting; who must wait, waits in [`super::later`].
    fn connect_now(&mut self, socket: OwnedFd, address: Vec<u8>, server: Option<OwnedFd>) -> Done {
        let flags = rustix::fs::fcntl_getfl(&socket)?;
        if flags.contains(OFlags::NONBLOCK) {
            seccomp::connect(socket.as_fd(), &address)?;
            return Ok(Outcome::Value(0));
        }
        rustix::fs::fcntl_setfl(&socket, flags | OFlags::NONBLOCK)?;
        match seccomp::connect(socket.as_fd(), &address) {
            Err(Errno::INPROGRESS) => Ok(Outcome::Later(Wait::Connected { socket })),
            Err(Errno::AGAIN) if server.is_some() => {
                Ok(Outcome::Later(Wait::Accepting { socket, address, _server: server }))
            }
            ended => {
                rustix::fs::fcntl_setfl(&socket, flags)?;
                ended.map(|()| Outcome::Value(0))
            }
        }
    }

    pub(super) fn bind(&mut self, call: &Call) -> Done {
        let (socket, address) = self.socket_and_address(call)?;
        let path = match address {
            Address::Other(bytes) => {
                seccomp::bind(socket.as_fd(), &bytes)?;
                return Ok(Outcome::Value(0));
            }
            Address::Path(path) => path,
        };
        let place = self.locate(call, libc::AT_FDCWD, &path)?;
        if place.name.is_empty() || place.slash {
            return Err(Errno::ADDRINUSE);
        }
        let parent = self.real(&place.folder)?;
        let verdict = self.judge(&parent, &place.name);
        if verdict.rule().is_some() {
            return Err(self.refuse_sealed(call, "bind", &join(&parent, &place.name), &verdict));
        }
        if verdict == Verdict::Free && crate::seal::completes_repository(&place.name) {
            self.complete(call, &place.folder, &parent, &place.name)?;
        }
        self.take_umask(call)?;
        self.bind_at(&socket, &place, &parent, path.starts_with(b"/"))?;
        let about = rustix::fs::statat(&place.folder, place.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?;
        let hold = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let object = rustix::fs::openat(&place.folder, place.name.as_slice(), hold, Mode::empty())?;
        if self.bound.len() >= MOST_BOUND {
            self.bound.remove(0);
        }
        self.bound.push((about.st_dev, about.st_ino, object));
        Ok(Outcome::Value(0))
    }

    /// Makes the socket's name. A path that the kernel looks up again is safe here, because only the broker moves names.
    fn bind_at(&self, socket: &OwnedFd, place: &Place, parent: &[u8], absolute: bool) -> Result<(), Errno> {
        let whole = join(parent, &place.name);
        if absolute && whole.len() <= LONGEST_PATH {
            return seccomp::bind(socket.as_fd(), &unix_address(&whole));
        }
        rustix::process::fchdir(&place.folder)?;
        let bound = seccomp::bind(socket.as_fd(), &unix_address(&place.name));
        // The broker stands in no folder of the agent's for longer than this.
        rustix::process::chdir(c"/")?;
        bound
    }

    fn socket_and_address(&mut self, call: &Call) -> Result<(OwnedFd, Address), Errno> {
        let length = call.argument(2) & u64::from(u32::MAX);
        if length > LONGEST_ADDRESS {
            return Err(Errno::INVAL);
        }
        let socket = seccomp::descriptor_of(call.notification.thread, call.int(0))?;
        if !call.waits() {
            return Err(Errno::SRCH);
        }
        let domain = rustix::net::sockopt::socket_domain(&socket).map_err(|_| Errno::NOTSOCK)?;
        let bytes = call.bytes(1, usize::try_from(length).map_err(|_| Errno::INVAL)?)?;
        let family = bytes.first_chunk::<2>().map(|family| u16::from_ne_bytes(*family));
        if domain == rustix::net::AddressFamily::UNIX && family == Some(UNIX) {
            let path = bytes.get(2..).unwrap_or_default();
            if path.first().is_some_and(|byte| *byte != 0) {
                let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
                return Ok((socket, Address::Path(path.get(..end).unwrap_or_default().to_vec())));
            }
        }
        Ok((socket, Address::Other(bytes)))
    }
}

fn unix_address(path: &[u8]) -> Vec<u8> {
    let mut address = UNIX.to_ne_bytes().to_vec();
    address.extend_from_slice(path);
    address.push(0);
    address
}

/// An internet address in words.
fn show(bytes: &[u8]) -> Option<String> {
    let family = i32::from(u16::from_ne_bytes(*bytes.first_chunk::<2>()?));
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    match family {
        libc::AF_INET => {
            let address: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some(format!("{}:{port}", std::net::Ipv4Addr::from(address)))
        }
        libc::AF_INET6 => {
            let address: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            Some(format!("[{}]:{port}", std::net::Ipv6Addr::from(address)))
        }
        _ => None,
    }
}

/// Lets a socket wait again.
pub(super) fn blocking(socket: &OwnedFd) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(socket)?;
    rustix::fs::fcntl_setfl(socket, flags.difference(OFlags::NONBLOCK))
}
