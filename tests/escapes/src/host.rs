//! The rest of the machine, played by a process of the same account outside: what a cage must keep apart.
//!
//! Turns a list of socket paths into listeners that greet, beside shared memory, queues, ports and a secret in memory;
//! writes down where all that is (`.escape-facts` in the workspace), says `ready` and stays. What it leaves behind goes
//! away with it: segments are removed when they are attached, the rest lies in folders that the test throws away.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use crate::sockets::GREETING;
use crate::sys;

/// Stays until it is ended.
pub(crate) fn play(home: &str, workspace: &str, sockets: &[&str]) -> io::Result<()> {
    let id = std::process::id();
    let key = fs::read_to_string(format!("{home}/.ssh/id_ed25519"))?;
    let secret = key.lines().find(|line| line.starts_with("secret-")).unwrap_or_default().to_owned();
    let mut facts = format!("home={home}\nworkspace={workspace}\nsecret={secret}\nhost_pid={id}\n");
    // SAFETY: no arguments.
    let _ = writeln!(facts, "uid={}", unsafe { libc::getuid() });
    let _ = writeln!(facts, "home_device={}", fs::metadata(home)?.dev());

    // In memory, at an address that does not move.
    let in_memory: &'static str = Box::leak(secret.clone().into_boxed_str());
    let _ = writeln!(facts, "host_address={}", in_memory.as_ptr() as usize);

    let mut paths = Vec::new();
    let own = [format!("{workspace}/host.sock"), format!("{home}/host.sock"), format!("/tmp/escape-{id}.sock")];
    for path in sockets.iter().map(ToString::to_string).chain(own) {
        if let Some(folder) = Path::new(&path).parent() {
            fs::create_dir_all(folder)?;
        }
        let _ = fs::remove_file(&path);
        greet(UnixListener::bind(&path).map_err(|error| io::Error::other(format!("{path}: {error}")))?);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        paths.push(path);
    }
    for path in
        [format!("{workspace}/datagram.sock"), format!("{home}/datagram.sock"), format!("/tmp/datagram-{id}.sock")]
    {
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path)?;
        std::thread::spawn(move || while socket.recv(&mut [0; 16]).is_ok() {});
        paths.push(path);
    }
    let _ = writeln!(facts, "sockets={}", paths.join(":"));

    pass(format!("{workspace}/pass.sock"), format!("{home}/.ssh/id_ed25519"))?;

    let tcp = TcpListener::bind("127.0.0.1:0")?;
    let port = tcp.local_addr()?.port();
    let _ = writeln!(facts, "tcp_port={port}");
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let _ = stream.write_all(GREETING.as_bytes());
        }
    });
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    let _ = writeln!(facts, "udp_port={}", udp.local_addr()?.port());
    std::thread::spawn(move || {
        while let Ok((_, from)) = udp.recv_from(&mut [0; 16]) {
            let _ = udp.send_to(GREETING.as_bytes(), from);
        }
    });

    // The port is nobody else's on this machine, whatever namespaces there are; process numbers are not.
    let name = format!("creel-escape-{port}");
    greet(UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?);
    let _ = writeln!(facts, "abstract={name}");

    shared(&mut facts, &secret, &name)?;

    // The user's keyring, which every session of the account shares.
    let arguments =
        [c"user".as_ptr() as u64, c"escape-host".as_ptr() as u64, c"x".as_ptr() as u64, 1, (-4_i64) as u64, 0];
    let _ = sys::call(libc::SYS_add_key, arguments);

    let extra = fs::read_to_string(format!("{workspace}/.escape-extra")).unwrap_or_default();
    fs::write(format!("{workspace}/.escape-facts"), facts + &extra)?;
    println!("ready");
    loop {
        std::thread::park();
    }
}

fn greet(listener: UnixListener) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = stream.write_all(GREETING.as_bytes());
                // Until the caller hangs up, so that what it still says does not fail.
                while stream.read(&mut [0; 256]).is_ok_and(|read| read > 0) {}
            });
        }
    });
}

/// Hands every caller a descriptor of the secret.
fn pass(path: String, secret: String) -> io::Result<()> {
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if let Ok(file) = fs::File::open(&secret) {
                let _ = hand_over(&stream, file.as_raw_fd());
            }
        }
    });
    Ok(())
}

fn hand_over(stream: &UnixStream, descriptor: i32) -> io::Result<()> {
    let mut byte = [b'x'];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut space = [0_u64; 8];
    // SAFETY: all zero is a valid empty message; what it points to lives over the call, and the control part is long
    // enough for one descriptor.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = space.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(4) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as _;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(descriptor);
        sys::checked(libc::sendmsg(stream.as_raw_fd(), &raw const message, 0) as i64).map(|_| ())
    }
}

fn shared(facts: &mut String, secret: &str, name: &str) -> io::Result<()> {
    // SAFETY: a new segment of our own, written within its length and then marked to go away with us.
    unsafe {
        let id = libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | 0o600);
        sys::checked(i64::from(id))?;
        let at = libc::shmat(id, std::ptr::null(), 0);
        if at as isize == -1 {
            return Err(io::Error::last_os_error());
        }
        std::ptr::copy_nonoverlapping(secret.as_ptr(), at.cast::<u8>(), secret.len());
        libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut());
        let _ = writeln!(facts, "shm_id={id}");
    }
    fs::write(format!("/dev/shm/{name}"), secret)?;
    let _ = writeln!(facts, "shm_name={name}");
    Ok(())
}
