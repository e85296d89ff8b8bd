//! What no shell can try: threads, changing memory, signals, sockets, forbidden calls. Each runs in the cage.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::{Ran, run};
use crate::sys::attempt::{Forbidden, attempt};
use crate::sys::seccomp::{interrupt_often, open_unsteady};

fn inside_run(outside: &str, case: &str) -> Ran {
    let inside = format!(
        "CREEL_TEST_CASE={case} \"$SELF\" --exact broker::tests::inside::inside --ignored --nocapture --test-threads=1"
    );
    run(outside, &inside)
}

#[test]
#[ignore = "the other tests run it in the cage"]
fn inside() {
    match std::env::var("CREEL_TEST_CASE").as_deref() {
        Ok("memory") => changing_memory(),
        Ok("links") => changing_links(),
        Ok("threads") => threads(),
        Ok("signals") => signals(),
        Ok("unix") => unix_sockets(),
        Ok("internet") => internet_sockets(),
        Ok("kernel") => forbidden_calls(),
        other => assert!(other.is_err(), "unknown case {other:?}"),
    }
}

#[test]
fn a_path_that_changes_in_memory_opens_nothing_sealed() {
    let ran = inside_run("", "memory");
    ran.well();
    assert!(!ran.folder.path().join("w/.envrc").exists());
    assert!(!ran.refused().is_empty(), "the sealed name was never met");
}

fn changing_memory() {
    let path: Vec<AtomicU8> = b"freely\0".iter().copied().map(AtomicU8::new).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for text in [b".envrc", b"freely"] {
                    for (to, from) in path.iter().zip(text) {
                        to.store(*from, Ordering::Relaxed);
                    }
                }
            }
        });
        // Until the sealed name was met at least once, however the threads are scheduled.
        let mut failed = 0;
        for round in 0..1_000_000 {
            failed += u32::from(!open_unsteady(&path, libc::O_CREAT | libc::O_WRONLY));
            if round >= 3000 && failed > 0 {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(!Path::new(".envrc").exists());
}

#[test]
fn a_link_that_changes_leads_to_nothing_sealed() {
    let ran = inside_run("mkdir free", "links");
    ran.well();
    assert_eq!(fs::read_dir(ran.folder.path().join("w/.claude")).unwrap().count(), 0);
}

fn changing_links() {
    fs::create_dir(".claude").unwrap();
    symlink("free", "to-free").unwrap();
    symlink(".claude", "to-sealed").unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for target in ["to-free", "to-sealed"] {
                    let _ = fs::remove_file("next");
                    symlink(target, "next").unwrap();
                    fs::rename("next", "lead").unwrap();
                }
            }
        });
        let mut made = 0;
        for number in 0..1_000_000 {
            made += u32::from(fs::write(format!("lead/{number}"), "x").is_ok());
            if number >= 2000 && made > 0 {
                break;
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(made > 0);
    });
    assert_eq!(fs::read_dir(".claude").unwrap().count(), 0);
}

#[test]
fn many_threads_at_once_are_all_served() {
    inside_run("", "threads").well();
}

fn threads() {
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                let folder = format!("t{thread}");
                fs::create_dir(&folder).unwrap();
                for number in 0..200 {
                    let (one, two) = (format!("{folder}/{number}"), format!("{folder}/{number}-moved"));
                    fs::write(&one, &one).unwrap();
                    fs::rename(&one, &two).unwrap();
                    assert_eq!(fs::read_to_string(&two).unwrap(), one);
                    fs::remove_file(&two).unwrap();
                }
            });
        }
    });
}

#[test]
fn signals_interrupt_no_call_that_is_carried_out() {
    inside_run("", "signals").well();
}

fn signals() {
    interrupt_often();
    for number in 0..3000 {
        fs::File::create_new(format!("s{number}")).unwrap();
    }
}

#[test]
fn unix_sockets_of_the_cage_and_granted_ones_are_reached_and_no_others() {
    let ran = inside_run("", "unix");
    ran.well();
    assert!(ran.refused().iter().any(|refused| refused.starts_with("connect ") && refused.ends_with("foreign.sock")));
}

fn unix_sockets() {
    let refused = UnixStream::connect("foreign.sock").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EACCES));
    symlink("foreign.sock", "lead.sock").unwrap();
    assert_eq!(UnixStream::connect("lead.sock").unwrap_err().raw_os_error(), Some(libc::EACCES));
    UnixStream::connect(Path::new(&std::env::var_os("P").unwrap()).join("granted.sock")).unwrap();
    for path in ["own.sock".into(), std::env::current_dir().unwrap().join("absolute.sock")] {
        let listener = UnixListener::bind(&path).unwrap();
        let mut client = UnixStream::connect(&path).unwrap();
        let mut server = listener.accept().unwrap().0;
        client.write_all(b"x").unwrap();
        let mut byte = [0];
        server.read_exact(&mut byte).unwrap();
        assert_eq!(UnixListener::bind(&path).unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
    }
    // A server that takes its time: the second one waits, and nobody else with it.
    let listener = UnixListener::bind("slow.sock").unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let first = UnixStream::connect("slow.sock").unwrap();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| UnixStream::connect("slow.sock").unwrap());
        fs::write("meanwhile", "x").unwrap();
        drop(listener.accept().unwrap());
        drop(listener.accept().unwrap());
        drop(second.join().unwrap());
    });
    drop(first);
    let name = SocketAddr::from_pathname("own.sock").unwrap();
    assert!(UnixListener::bind(".envrc").is_err(), "{name:?}");
    assert!(UnixStream::connect("missing.sock").is_err());
    fs::write("plain", "x").unwrap();
    assert_eq!(UnixStream::connect("plain").unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
    assert!(UnixDatagram::unbound().is_err());
    assert!(UnixDatagram::pair().is_err());
    UnixStream::pair().unwrap();
}

#[test]
fn internet_sockets_connect_as_without_a_broker() {
    inside_run("", "internet").well();
}

fn internet_sockets() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    let mut server = listener.accept().unwrap().0;
    client.write_all(b"x").unwrap();
    let mut byte = [0];
    server.read_exact(&mut byte).unwrap();
    TcpStream::connect_timeout(&address, std::time::Duration::from_secs(5)).unwrap();
    drop(listener);
    assert_eq!(TcpStream::connect(address).unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
    let one = UdpSocket::bind("127.0.0.1:0").unwrap();
    let two = UdpSocket::bind("127.0.0.1:0").unwrap();
    two.connect(one.local_addr().unwrap()).unwrap();
    two.send(b"x").unwrap();
    assert_eq!(one.recv(&mut byte).unwrap(), 1);
}

#[test]
fn forbidden_calls_are_refused_by_the_real_kernel() {
    inside_run("", "kernel").well();
}

fn forbidden_calls() {
    let own = i32::try_from(std::process::id()).unwrap();
    for (call, expected) in [
        (Forbidden::NewUserNamespace, libc::EPERM),
        (Forbidden::NewMountNamespace, libc::EPERM),
        (Forbidden::EnterNamespace, libc::EPERM),
        (Forbidden::CopyMount, libc::EPERM),
        (Forbidden::Trace(own), libc::EPERM),
        (Forbidden::ReadMemory(own), libc::EPERM),
        (Forbidden::IoUring, libc::ENOSYS),
        (Forbidden::Bpf, libc::EPERM),
        (Forbidden::Perf, libc::EPERM),
        (Forbidden::Keyring, libc::EPERM),
        (Forbidden::UserFault, libc::EPERM),
        (Forbidden::Socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0), libc::EAFNOSUPPORT),
        (Forbidden::Socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0), libc::EAFNOSUPPORT),
        (Forbidden::Socket(libc::AF_INET, libc::SOCK_RAW, 1), libc::EPROTONOSUPPORT),
        (Forbidden::Socket(libc::AF_UNIX, libc::SOCK_DGRAM, 0), libc::EPROTONOSUPPORT),
    ] {
        assert_eq!(attempt(call).unwrap_err().raw_os_error(), Some(expected), "{call:?}");
    }
}
