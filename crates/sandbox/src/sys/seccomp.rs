//! The kernel's call filter and its notifications, and the calls that a broker needs to act for another process.
//!
//! Numbers and records are the kernel's; nothing here decides. The one fact a newcomer gets wrong: a process number in a
//! notification is only that process for as long as [`still_waiting`] says so, because numbers are used again.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::fd::RawFd;
use rustix::io::Errno;

use crate::filter::Instruction;

/// A call that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notification {
    /// Names the call in answers.
    pub(crate) id: u64,
    /// The calling thread, in the numbering of the reader's process namespace.
    pub(crate) thread: u32,
    /// The call's number.
    pub(crate) number: i32,
    /// Its arguments.
    pub(crate) arguments: [u64; 6],
}

#[repr(C)]
struct FilterProgram {
    length: u16,
    instructions: *const Instruction,
}

#[repr(C)]
#[derive(Default)]
struct RawNotification {
    id: u64,
    pid: u32,
    flags: u32,
    number: i32,
    architecture: u32,
    instruction_pointer: u64,
    arguments: [u64; 6],
}

#[repr(C)]
struct RawAnswer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

#[repr(C)]
struct RawDescriptor {
    id: u64,
    flags: u32,
    source: u32,
    target: u32,
    target_flags: u32,
}

const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
const ID_VALID: libc::c_ulong = 0x4008_2102;
const ADD_DESCRIPTOR: libc::c_ulong = 0x4018_2103;
const SET_FLAGS: libc::c_ulong = 0x4008_2104;

const WAKE_UP_ON_THIS_CPU: u64 = 1;
const CONTINUE: u32 = 1;
const ADD_AND_SEND: u32 = 2;

const SET_MODE_FILTER: libc::c_ulong = 1;
const NEW_LISTENER: libc::c_ulong = 1 << 3;
const WAIT_KILLABLE: libc::c_ulong = 1 << 5;

const _: () = assert!(size_of::<RawNotification>() == 0x50, "the record's size is part of the request's number");
const _: () = assert!(size_of::<RawAnswer>() == 0x18, "the record's size is part of the request's number");
const _: () = assert!(size_of::<RawDescriptor>() == 0x18, "the record's size is part of the request's number");

/// Puts a filter on the calling thread and returns the descriptor of its notifications, which closes on exec. A caller
/// that was received waits on, whatever signal comes, unless it is killed.
///
/// # Errors
/// The kernel's: `EACCES` without `no_new_privs`, `EBUSY` if a filter above has a listener.
pub(crate) fn install(program: &[Instruction]) -> io::Result<OwnedFd> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = FilterProgram { length, instructions: program.as_ptr() };
    // SAFETY: the program points to `length` instructions laid out as the kernel's `sock_filter`; the kernel copies it.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, NEW_LISTENER | WAIT_KILLABLE, &raw const program) };
    let descriptor = RawFd::try_from(result).map_err(|_| io::ErrorKind::InvalidData)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Lets callers and their broker change places on one processor, which halves the way. Older kernels cannot.
pub(crate) fn wake_up_here(listener: BorrowedFd<'_>) {
    // SAFETY: the request takes its argument as a number.
    unsafe { libc::ioctl(listener.as_raw_fd(), SET_FLAGS as _, WAKE_UP_ON_THIS_CPU) };
}

/// Takes one waiting call. `None`: its caller ended meanwhile. Blocks if nothing waits; poll first.
///
/// # Errors
/// The kernel's.
pub(crate) fn receive(listener: BorrowedFd<'_>) -> io::Result<Option<Notification>> {
    let mut raw = RawNotification::default();
    // SAFETY: the request writes one record of exactly this size, which must be zero before.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &raw mut raw) };
    if result == 0 {
        return Ok(Some(Notification { id: raw.id, thread: raw.pid, number: raw.number, arguments: raw.arguments }));
    }
    match io::Error::last_os_error() {
        error if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(None),
        error => Err(error),
    }
}

/// Whether the call still waits, and so its thread is still the one that made it.
pub(crate) fn still_waiting(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the request reads one 64-bit number.
    unsafe { libc::ioctl(listener.as_raw_fd(), ID_VALID as _, &raw const id) == 0 }
}

fn send(listener: BorrowedFd<'_>, answer: &RawAnswer) -> bool {
    // SAFETY: the request reads one record of this size.
    unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, std::ptr::from_ref(answer)) == 0 }
}

/// Answers a call with a result, or with an error number. `false`: there was nobody to answer any more.
pub(crate) fn answer(listener: BorrowedFd<'_>, id: u64, result: Result<i64, Errno>) -> bool {
    let (value, error) = match result {
        Ok(value) => (value, 0),
        Err(error) => (0, -error.raw_os_error()),
    };
    send(listener, &RawAnswer { id, value, error, flags: 0 })
}

/// Lets the kernel make the call itself, with the arguments as they are *then*: never a decision about what an argument
/// points to.
pub(crate) fn let_through(listener: BorrowedFd<'_>, id: u64) -> bool {
    send(listener, &RawAnswer { id, value: 0, error: 0, flags: CONTINUE })
}

/// Gives the caller a descriptor and answers the call with its number, in one step.
///
/// # Errors
/// The kernel's; the call then still waits: `EMFILE` if the caller has too many, `ENOENT` if it is gone.
pub(crate) fn answer_with(
    listener: BorrowedFd<'_>,
    id: u64,
    descriptor: BorrowedFd<'_>,
    close_on_exec: bool,
) -> Result<(), Errno> {
    let raw = RawDescriptor {
        id,
        flags: ADD_AND_SEND,
        source: descriptor.as_raw_fd().cast_unsigned(),
        target: 0,
        target_flags: if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
    };
    // SAFETY: the request reads one record of this size; the descriptor in it is open.
    let result = unsafe { libc::ioctl(listener.as_raw_fd(), ADD_DESCRIPTOR as _, &raw const raw) };
    if result >= 0 { Ok(()) } else { Err(last_error()) }
}

/// Reads memory of a thread's process into `into`, up to the first page that is not there. `Ok(0)`: nothing is there.
///
/// # Errors
/// The error number: `ESRCH`, `EPERM`, `EFAULT`.
pub(crate) fn read_memory(thread: u32, address: u64, into: &mut [u8]) -> Result<usize, Errno> {
    const PAGE: usize = 4096;
    let address = usize::try_from(address).map_err(|_| Errno::FAULT)?;
    let first = into.len().min(PAGE - address % PAGE);
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // Split where a page ends: a piece is read whole or not at all.
    let mut remote = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; 3];
    let mut pieces = 0;
    let mut at = address;
    let mut left = into.len();
    let mut length = first;
    for piece in &mut remote {
        *piece = libc::iovec { iov_base: std::ptr::without_provenance_mut(at), iov_len: length };
        pieces += 1;
        left -= length;
        at = at.checked_add(length).ok_or(Errno::FAULT)?;
        length = left.min(PAGE);
        if left == 0 {
            break;
        }
    }
    // SAFETY: the local piece is `into`, which is ours to write; the remote pieces are addresses in the other process,
    // which the kernel checks.
    let result =
        unsafe { libc::process_vm_readv(thread.cast_signed(), &raw const local, 1, remote.as_ptr(), pieces, 0) };
    match usize::try_from(result) {
        Ok(read) => Ok(read),
        Err(_) => Err(last_error()),
    }
}

/// A copy of a thread's descriptor. On kernels that know no descriptors of threads the thread must be its process's
/// first.
///
/// # Errors
/// The error number: `EBADF`, `ESRCH`, `EPERM`.
pub(crate) fn descriptor_of(thread: u32, descriptor: i32) -> Result<OwnedFd, Errno> {
    const THREAD: libc::c_uint = libc::O_EXCL.cast_unsigned();
    let process = match process(thread, THREAD) {
        Err(Errno::INVAL) => process(thread, 0)?,
        other => other?,
    };
    // SAFETY: takes numbers only.
    let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0) };
    owned(copy)
}

fn process(thread: u32, flags: libc::c_uint) -> Result<OwnedFd, Errno> {
    // SAFETY: takes numbers only.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, thread, flags) })
}

fn owned(result: libc::c_long) -> Result<OwnedFd, Errno> {
    let descriptor = RawFd::try_from(result).map_err(|_| Errno::INVAL)?;
    if descriptor < 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel just made it for the caller of this function.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// `connect` with an address as bytes.
///
/// # Errors
/// The error number.
pub(crate) fn connect(socket: BorrowedFd<'_>, address: &[u8]) -> Result<(), Errno> {
    let length = libc::socklen_t::try_from(address.len()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the kernel copies `length` bytes of the address.
    let result = unsafe { libc::connect(socket.as_raw_fd(), address.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// `bind` with an address as bytes.
///
/// # Errors
/// The error number.
pub(crate) fn bind(socket: BorrowedFd<'_>, address: &[u8]) -> Result<(), Errno> {
    let length = libc::socklen_t::try_from(address.len()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the kernel copies `length` bytes of the address.
    let result = unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Starts a command behind a filter and hands over the filter's descriptor before the command is executed: the broker
/// must serve it from then on, so this runs beside the broker.
#[cfg(test)]
pub(crate) fn spawn(
    command: &mut std::process::Command,
    spec: crate::filter::FilterSpec,
    to: OwnedFd,
) -> io::Result<std::process::Child> {
    use std::os::unix::process::CommandExt as _;
    let number = to.as_raw_fd();
    let before_exec = move || {
        rustix::thread::set_no_new_privs(true)?;
        let listener = crate::filter::install(&spec)?;
        // SAFETY: the descriptor stays open in the child until it executes the command.
        let to = unsafe { BorrowedFd::borrow_raw(number) };
        let descriptors = [std::os::fd::AsFd::as_fd(&listener)];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut message = rustix::net::SendAncillaryBuffer::new(&mut space);
        message.push(rustix::net::SendAncillaryMessage::ScmRights(&descriptors));
        let flags = rustix::net::SendFlags::empty();
        rustix::net::sendmsg(to, &[io::IoSlice::new(b"x")], &mut message, flags)?;
        Ok(())
    };
    // SAFETY: the closure makes system calls and allocates, which glibc's fork permits in its child.
    let child = unsafe { command.pre_exec(before_exec) }.spawn();
    drop(to);
    child
}

/// `open` with a path in memory that other threads change meanwhile. `true`: a descriptor came back (it is closed).
#[cfg(test)]
pub(crate) fn open_unsteady(path: &[std::sync::atomic::AtomicU8], flags: i32) -> bool {
    // SAFETY: the path ends with a zero that nobody changes, and only the kernel reads it.
    let descriptor = unsafe { libc::open(path.as_ptr().cast(), flags, 0o600) };
    if descriptor >= 0 {
        // SAFETY: it was just opened and nobody else has it.
        drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
    }
    descriptor >= 0
}

/// Interrupts this process with a signal every millisecond, without restarting calls.
#[cfg(test)]
pub(crate) fn interrupt_often() {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: the handler does nothing; the records are valid and outlive the calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut());
        let every = libc::timeval { tv_sec: 0, tv_usec: 1000 };
        let timer = libc::itimerval { it_interval: every, it_value: every };
        libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut());
    }
}
