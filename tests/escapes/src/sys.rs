//! Raw system calls in the shapes that the cases need, with errors by their names.
//!
//! It does nothing cleverly: a case wants exactly this call with exactly these arguments, not what a library makes of it.

use std::ffi::CString;
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// What every planted file holds, so that whoever looks from outside knows it.
pub(crate) const MARK: &str = "#!/bin/sh\n# planted by creel-escape\nexit 0\n";

/// An error by its name.
pub(crate) fn words(error: &Error) -> String {
    let Some(number) = error.raw_os_error() else { return error.to_string() };
    let name = match number {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::ESRCH => "ESRCH",
        libc::EINTR => "EINTR",
        libc::EIO => "EIO",
        libc::ENXIO => "ENXIO",
        libc::ENOEXEC => "ENOEXEC",
        libc::EBADF => "EBADF",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::EXDEV => "EXDEV",
        libc::ENODEV => "ENODEV",
        libc::ENOTDIR => "ENOTDIR",
        libc::EISDIR => "EISDIR",
        libc::EINVAL => "EINVAL",
        libc::EMFILE => "EMFILE",
        libc::ENOTTY => "ENOTTY",
        libc::EFBIG => "EFBIG",
        libc::ENOSPC => "ENOSPC",
        libc::EROFS => "EROFS",
        libc::EMLINK => "EMLINK",
        libc::ENAMETOOLONG => "ENAMETOOLONG",
        libc::ENOSYS => "ENOSYS",
        libc::ENOTEMPTY => "ENOTEMPTY",
        libc::ELOOP => "ELOOP",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::EAFNOSUPPORT => "EAFNOSUPPORT",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::EDQUOT => "EDQUOT",
        libc::ETIMEDOUT => "ETIMEDOUT",
        _ => return format!("errno {number}"),
    };
    name.to_owned()
}

/// A path for the kernel.
pub(crate) fn path(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

/// A result of the kernel as one of ours.
pub(crate) fn checked(value: i64) -> Result<i64> {
    if value < 0 { Err(Error::last_os_error()) } else { Ok(value) }
}

/// A result of a call that returns an `int`.
pub(crate) fn done(value: i32) -> Result<()> {
    checked(i64::from(value)).map(|_| ())
}

/// Any system call.
pub(crate) fn call(number: i64, arguments: [u64; 6]) -> Result<i64> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: callers hand over pointers that live over the call; what they ask for is refused or harmless to us.
    checked(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

/// A descriptor that a system call made.
pub(crate) fn descriptor(number: i64, arguments: [u64; 6]) -> Result<OwnedFd> {
    let raw = call(number, arguments)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as RawFd) })
}

/// `openat`.
pub(crate) fn open_at(folder: RawFd, name: &str, flags: i32, mode: u32) -> Result<OwnedFd> {
    let name = path(name);
    descriptor(libc::SYS_openat, [folder as u64, name.as_ptr() as u64, flags as u64, u64::from(mode), 0, 0])
}

/// `open`, by its descendant.
pub(crate) fn open(name: &str, flags: i32, mode: u32) -> Result<OwnedFd> {
    open_at(libc::AT_FDCWD, name, flags, mode)
}

/// A descriptor that only names.
pub(crate) fn folder(name: &str) -> Result<OwnedFd> {
    open(name, libc::O_PATH | libc::O_DIRECTORY, 0)
}

/// `renameat2` with flags.
pub(crate) fn rename(from: &str, to: &str, flags: u32) -> Result<()> {
    let (from, to) = (path(from), path(to));
    let here = libc::AT_FDCWD as u64;
    let number = libc::SYS_renameat2;
    call(number, [here, from.as_ptr() as u64, here, to.as_ptr() as u64, u64::from(flags), 0]).map(|_| ())
}

/// A pipe.
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` holds two descriptors.
    done(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: both were just made for us.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Gives up ownership.
pub(crate) fn into_raw(descriptor: OwnedFd) -> RawFd {
    descriptor.into_raw_fd()
}

/// Reads do not wait any more.
pub(crate) fn nonblocking(descriptor: RawFd) {
    // SAFETY: plain calls on a descriptor of ours.
    unsafe { libc::fcntl(descriptor, libc::F_SETFL, libc::O_NONBLOCK) };
}

/// Writes all, as far as it goes.
pub(crate) fn write_all(descriptor: RawFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the slice lives over the call.
        let written = unsafe { libc::write(descriptor, bytes.as_ptr().cast(), bytes.len()) };
        if written <= 0 {
            return;
        }
        bytes = &bytes[usize::try_from(written).unwrap_or(bytes.len()).min(bytes.len())..];
    }
}

/// Writes once and says whether it went.
pub(crate) fn write_once(descriptor: &OwnedFd, bytes: &[u8]) -> Result<()> {
    // SAFETY: the slice lives over the call.
    let written = unsafe { libc::write(descriptor.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    checked(written as i64).map(|_| ())
}

/// Reads once, at most 64 KiB.
pub(crate) fn read_once(descriptor: RawFd) -> Result<Vec<u8>> {
    let mut bytes = vec![0; 64 << 10];
    // SAFETY: the buffer is as long as said.
    let read = checked(unsafe { libc::read(descriptor, bytes.as_mut_ptr().cast(), bytes.len()) } as i64)?;
    bytes.truncate(usize::try_from(read).unwrap_or(0));
    Ok(bytes)
}
