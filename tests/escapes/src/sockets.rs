//! Sockets: of the host by path and by name, of families that nobody needs, and creel's own (U1–U11, N13).

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::attempt::{Ready, Stop, Tried, Tries, held};
use crate::facts::Facts;
use crate::files::{last, read_secret};
use crate::sys;

/// What the host's listeners say.
pub(crate) const GREETING: &str = "this is the host";

/// Connects and waits for the host's greeting.
fn greeted(mut stream: UnixStream) -> Tried {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ready("timeout")?;
    let mut said = [0; 64];
    let read = stream.read(&mut said)?;
    if String::from_utf8_lossy(&said[..read]).contains(GREETING) {
        Ok("the host answered".to_owned())
    } else {
        held("somebody else answered")
    }
}

fn each(facts: &Facts, tries: &mut Tries, part: &str) {
    for path in facts.sockets(part) {
        tries.attempt(&path, || greeted(UnixStream::connect(&path)?));
    }
}

pub(crate) fn container_engines(facts: &Facts, tries: &mut Tries) {
    for part in ["docker", "podman", "containerd", "libvirt"] {
        each(facts, tries, part);
    }
    let workspace = facts.at("host.sock");
    tries.attempt("a socket of the host in the workspace", || greeted(UnixStream::connect(&workspace)?));
    tries.attempt("the same through a link", || {
        std::os::unix::fs::symlink(&workspace, facts.at("u1-link")).ready("link")?;
        greeted(UnixStream::connect(facts.at("u1-link"))?)
    });
    tries.attempt("the same through the process folder", || {
        greeted(UnixStream::connect(format!("/proc/self/root{workspace}"))?)
    });
    tries.attempt("the same by another name", || {
        fs::hard_link(&workspace, facts.at("u1-hard"))?;
        greeted(UnixStream::connect(facts.at("u1-hard"))?)
    });
    tries.attempt("the same, renamed", || {
        sys::rename(&workspace, &facts.at("u1-renamed"), 0)?;
        let tried = UnixStream::connect(facts.at("u1-renamed"));
        sys::rename(&facts.at("u1-renamed"), &workspace, 0).ready("rename back")?;
        greeted(tried?)
    });
}

pub(crate) fn secret_service(facts: &Facts, tries: &mut Tries) {
    each(facts, tries, "bus");
    each(facts, tries, "keyring");
    let secret = facts.text("secret");
    tries.attempt("the token of gh", || read_secret(&format!("{}/.config/gh/hosts.yml", facts.text("home")), &secret));
}

pub(crate) fn virtual_files(facts: &Facts, tries: &mut Tries) {
    each(facts, tries, "gvfsd");
}

pub(crate) fn service_manager(facts: &Facts, tries: &mut Tries) {
    each(facts, tries, "systemd");
}

pub(crate) fn abstract_names(facts: &Facts, tries: &mut Tries) {
    tries.attempt("the host's abstract socket", || {
        let address = UnixAddr::from_abstract_name(facts.text("abstract")).ready("address")?;
        greeted(UnixStream::connect_addr(&address)?)
    });
}

fn unix_address(path: &str) -> (libc::sockaddr_un, libc::socklen_t) {
    // SAFETY: all zero is a valid address of this family once the family is set.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(path.bytes()) {
        *to = from as libc::c_char;
    }
    (address, (size_of::<libc::sa_family_t>() + path.len() + 1) as libc::socklen_t)
}

fn send_to(socket: i32, path: &str) -> Tried {
    let (address, length) = unix_address(path);
    // SAFETY: buffer and address live over the call.
    let sent = unsafe {
        libc::sendto(socket, b"x".as_ptr().cast(), 1, libc::MSG_DONTWAIT, (&raw const address).cast(), length)
    };
    sys::checked(sent as i64).map_err(Stop::from).map(|_| "sent".to_owned())
}

pub(crate) fn datagrams(facts: &Facts, tries: &mut Tries) {
    for path in facts.sockets("datagram") {
        tries.attempt(&format!("a pair's end to {path}"), || {
            let mut ends = [0; 2];
            // SAFETY: `ends` holds two descriptors.
            sys::done(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_DGRAM, 0, ends.as_mut_ptr()) })?;
            send_to(ends[0], &path)
        });
        tries.attempt(&format!("a socket to {path}"), || {
            // SAFETY: plain numbers.
            let socket = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0) };
            sys::checked(i64::from(socket))?;
            send_to(socket, &path)
        });
    }
}

/// Takes a descriptor from a stream.
fn received(stream: &UnixStream) -> Result<i32, Stop> {
    let mut byte = [0_u8; 64];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    let mut space = [0_u64; 8];
    // SAFETY: all zero is a valid empty message.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = space.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&space) as _;
    // SAFETY: the message and all it points to live over the call.
    sys::checked(unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut message, 0) } as i64)?;
    // SAFETY: the kernel has filled the control part within its length.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() {
            return held("a message without a descriptor");
        }
        Ok(libc::CMSG_DATA(header).cast::<i32>().read_unaligned())
    }
}

pub(crate) fn passed_descriptors(facts: &Facts, tries: &mut Tries) {
    let secret = facts.text("secret");
    tries.attempt("a descriptor from a socket in the workspace", || {
        let stream = UnixStream::connect(facts.at("pass.sock"))?;
        let descriptor = received(&stream)?;
        read_secret(&format!("/proc/self/fd/{descriptor}"), &secret)
    });
}

pub(crate) fn agents_and_screens(facts: &Facts, tries: &mut Tries) {
    for part in ["agent", "X11", "wayland", "pulse"] {
        each(facts, tries, part);
    }
    tries.attempt("the screen by its abstract name", || {
        let address = UnixAddr::from_abstract_name(b"/tmp/.X11-unix/X0").ready("address")?;
        UnixStream::connect_addr(&address).map_err(Stop::from).map(|_| "connected".to_owned())
    });
}

pub(crate) fn engine_request(facts: &Facts, tries: &mut Tries) {
    for path in facts.sockets("docker") {
        tries.attempt(&format!("a container of the whole host, by {path}"), || {
            let mut stream = UnixStream::connect(&path)?;
            let body = "{\"Image\":\"x\",\"HostConfig\":{\"Binds\":[\"/:/host\"]}}";
            write!(
                stream,
                "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
            greeted(stream)
        });
    }
}

pub(crate) fn families(_facts: &Facts, tries: &mut Tries) {
    for (what, family, kind, protocol) in [
        ("AF_VSOCK", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
        ("AF_ALG", libc::AF_ALG, libc::SOCK_SEQPACKET, 0),
        ("AF_NETLINK, netfilter", libc::AF_NETLINK, libc::SOCK_RAW, 12),
        ("AF_NETLINK, audit", libc::AF_NETLINK, libc::SOCK_RAW, 9),
        ("AF_NETLINK, socket diagnosis", libc::AF_NETLINK, libc::SOCK_RAW, 4),
        ("AF_NETLINK, kernel events", libc::AF_NETLINK, libc::SOCK_DGRAM, 15),
        ("AF_PACKET", libc::AF_PACKET, libc::SOCK_RAW, 0x0300),
        ("raw IPv4", libc::AF_INET, libc::SOCK_RAW, 1),
        ("raw IPv6", libc::AF_INET6, libc::SOCK_RAW, 58),
        ("AF_KEY", libc::AF_KEY, libc::SOCK_RAW, 2),
        ("AF_BLUETOOTH", 31, libc::SOCK_RAW, 1),
        ("AF_CAN", 29, libc::SOCK_RAW, 1),
        ("AF_TIPC", 30, libc::SOCK_STREAM, 0),
        ("AF_RDS", 21, libc::SOCK_SEQPACKET, 0),
        ("AF_SMC", 43, libc::SOCK_STREAM, 0),
        ("AF_XDP", 44, libc::SOCK_RAW, 0),
        ("AF_QIPCRTR", 42, libc::SOCK_DGRAM, 0),
    ] {
        tries.attempt(what, || {
            // SAFETY: plain numbers.
            let socket = unsafe { libc::socket(family, kind, protocol) };
            if socket < 0 { Err(last()) } else { Ok("a socket".to_owned()) }
        });
    }
}

pub(crate) fn control(facts: &Facts, tries: &mut Tries) {
    let mut sockets = Vec::new();
    for folder in
        ["/run/creel".to_owned(), "/run/creel-root".to_owned(), format!("/run/user/{}/creel", facts.text("uid"))]
    {
        for name in ["control.sock", "root.sock", "cage.sock", "supervisor.sock"] {
            sockets.push(format!("{folder}/{name}"));
        }
    }
    // Whatever else lies there beside the one socket of this run.
    sockets.extend(
        facts
            .text("creel_sockets")
            .split(':')
            .filter(|path| !path.is_empty() && !path.ends_with("hook.sock"))
            .map(str::to_owned),
    );
    sockets.sort();
    sockets.dedup();
    tries.attempt("creel's sockets by name", || {
        let mut said = Vec::new();
        for path in &sockets {
            match UnixStream::connect(path) {
                Ok(_) => return Ok(format!("connected to {path}")),
                Err(error) => said.push(sys::words(&error)),
            }
        }
        said.dedup();
        held(said.join(", "))
    });
    tries.attempt("anything beside the run's own socket", || {
        let mut seen = Vec::new();
        for folder in ["/run/creel".to_owned(), format!("/run/user/{}/creel", facts.text("uid"))] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name != "hook.sock" {
                    return Ok(format!("{} is in sight", entry.path().display()));
                }
                seen.push(name);
            }
        }
        held(format!("in sight: {}", seen.join(", ")))
    });
    tries.attempt("words of control on the hook's socket", || {
        let mut said = Vec::new();
        for path in ["/run/creel/hook.sock".to_owned(), format!("/run/user/{}/creel/hook.sock", facts.text("uid"))] {
            let Ok(mut stream) = UnixStream::connect(&path) else { continue };
            stream.set_read_timeout(Some(Duration::from_secs(3))).ready("timeout")?;
            let words = b"{\"request\":\"status\"}";
            let mut frame = u32::try_from(words.len()).unwrap_or(0).to_be_bytes().to_vec();
            frame.extend_from_slice(words);
            let _ = stream.write_all(&frame);
            let mut answer = Vec::new();
            let _ = stream.take(4096).read_to_end(&mut answer);
            let answer = String::from_utf8_lossy(&answer).into_owned();
            if answer.contains("\"status\"") || answer.contains("version") {
                return Ok(format!("{path} answered"));
            }
            said.push(path);
        }
        held(format!("asked {}", said.join(", ")))
    });
    tries.attempt("the command line", || {
        let output = Command::new("/usr/bin/creel").arg("status").stdin(Stdio::null()).output()?;
        if output.status.success() {
            Ok("it answers".to_owned())
        } else {
            held(String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned())
        }
    });
}

pub(crate) fn host_loopback(facts: &Facts, tries: &mut Tries) {
    let port = facts.number("tcp_port") as u16;
    for address in ["127.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0"] {
        tries.attempt(&format!("TCP to {address}"), || {
            let address: SocketAddr = format!("{address}:{port}").parse().ok().ready("address")?;
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).ready("timeout")?;
            let mut said = [0; 64];
            let read = stream.read(&mut said)?;
            if String::from_utf8_lossy(&said[..read]).contains(GREETING) {
                Ok("the host answered".to_owned())
            } else {
                held("somebody else")
            }
        });
    }
    tries.attempt("UDP to 127.0.0.1", || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(2))).ready("timeout")?;
        socket.send_to(b"x", ("127.0.0.1", facts.number("udp_port") as u16))?;
        let mut said = [0; 64];
        let read = socket.recv(&mut said)?;
        if String::from_utf8_lossy(&said[..read]).contains(GREETING) {
            Ok("the host answered".to_owned())
        } else {
            held("somebody else")
        }
    });
    tries.attempt("an interface beside the loopback", || {
        let text = fs::read_to_string("/proc/net/dev").ready("/proc/net/dev")?;
        let names: Vec<&str> = text.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim).collect();
        if names.iter().all(|name| *name == "lo") { held("only lo") } else { Ok(names.join(", ")) }
    });
}
