//! Processes: how they come to be, what they keep, which signals they see, and how they end.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;

use rustix::process::Pid;

/// Which of the two one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fork {
    /// The new process.
    Child,
    /// The old one, with the new one's number.
    Parent(Pid),
}

/// A copy of this process.
///
/// # Errors
/// The kernel's, for example when a limit on processes is reached.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: programs that use this crate have one thread when they start a cage, so no lock is held by another one.
    forked(unsafe { libc::fork() }.into())
}

/// A copy of this process in new namespaces: user, mount, process, network, IPC, host name and control group. In it the
/// copy has all capabilities, and number 1.
///
/// # Errors
/// The kernel's: `EPERM` or `ENOSPC` where user namespaces are forbidden.
pub(crate) fn clone_into_namespaces() -> io::Result<Fork> {
    let flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP
        | libc::SIGCHLD;
    // SAFETY: without `CLONE_VM` and with no stack given the child goes on with a copy of this one's memory, as after
    // `fork`; the process has one thread.
    forked(unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) })
}

fn forked(result: libc::c_long) -> io::Result<Fork> {
    match i32::try_from(result) {
        Ok(0) => Ok(Fork::Child),
        Ok(pid) if pid > 0 => Pid::from_raw(pid).map(Fork::Parent).ok_or_else(|| io::ErrorKind::InvalidData.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends this process at once, without what the C library does at exit.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: never returns and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Ends this process by `signal`, so that its parent sees what happened to the command; without a core file.
pub(crate) fn die_by(signal: i32) -> ! {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
    // SAFETY: plain calls with a default disposition and an emptied signal mask.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
        libc::kill(libc::getpid(), signal);
    }
    exit_now(128_i32.saturating_add(signal))
}

/// Becomes another program. Returns only when that failed.
pub(crate) fn exec(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: the program is a C string; both lists end with a null pointer and point to C strings that outlive the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Closes every descriptor above the standard ones that is not among `keep`. The caller must not use, nor drop with an
/// effect, an owner of another descriptor afterwards; it is the child after a fork, which leaves such owners behind.
pub(crate) fn close_all_but(keep: &[BorrowedFd<'_>]) {
    let mut keep: Vec<RawFd> = keep.iter().map(|fd| fd.as_raw_fd()).filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep {
        if fd > from {
            close_between(from, fd - 1);
        }
        from = fd.saturating_add(1).max(from);
    }
    close_between(from, RawFd::MAX);
}

fn close_between(first: RawFd, last: RawFd) {
    let (first, last) = (first.cast_unsigned(), last.cast_unsigned());
    // SAFETY: numbers only; what is closed belongs to owners that the caller has left behind.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// Marks every descriptor above the standard ones to be closed when a program is started.
///
/// # Errors
/// The kernel's.
pub(crate) fn close_on_exec() -> io::Result<()> {
    // SAFETY: numbers only; no descriptor is closed now.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Holds these signals back and hands them out through a descriptor that does not block.
///
/// # Errors
/// The kernel's.
pub(crate) fn signals(numbers: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: an all-zero `sigset_t` is emptied before use; the calls get pointers to it that outlive them; the new
    // descriptor has no other owner.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        for number in numbers {
            libc::sigaddset(&raw mut set, *number);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// The next signal of [`signals`], if there is one.
pub(crate) fn next_signal(fd: BorrowedFd<'_>) -> Option<i32> {
    let mut bytes = [0_u8; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(fd, &mut bytes) {
        Ok(count) if count == bytes.len() => {
            bytes.first_chunk::<4>().map(|number| i32::from_ne_bytes(*number)).filter(|number| *number > 0)
        }
        _ => None,
    }
}

/// Gives these signals their default effect, and holds none back.
pub(crate) fn default_signals(numbers: &[i32]) {
    for number in numbers {
        // SAFETY: a disposition of this process only.
        unsafe { libc::signal(*number, libc::SIG_DFL) };
    }
    // SAFETY: the mask of this process only; the set is emptied before use.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
    }
}

/// Lets these signals have no effect on this process.
pub(crate) fn ignore_signals(numbers: &[i32]) {
    for number in numbers {
        // SAFETY: a disposition of this process only.
        unsafe { libc::signal(*number, libc::SIG_IGN) };
    }
}

/// Leaves the caller's session keyring for a new, empty one.
///
/// # Errors
/// The kernel's; `ENOSYS` where it has no keyrings.
pub(crate) fn new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: the name is a null pointer, which means an anonymous keyring.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>(), 0, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Processor time in milliseconds, and most memory of one process in bytes, of the children that were waited for.
pub(crate) fn children_usage() -> (u64, u64) {
    // SAFETY: all-zero bytes are a valid `rusage`, and the call fills the one it is given.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let milliseconds = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or(0) * 1000 + u64::try_from(time.tv_usec).unwrap_or(0) / 1000
    };
    let memory = u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024);
    (milliseconds(usage.ru_utime) + milliseconds(usage.ru_stime), memory)
}
