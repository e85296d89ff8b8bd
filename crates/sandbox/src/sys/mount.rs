//! Mounts as descriptors: a copy of a tree, its attributes, a new file system, and where they are put.
//!
//! A mount made here has no place until [`attach`] gives it one, so that nothing half-made is ever visible. The one fact
//! a newcomer gets wrong: [`Attributes`] are only ever added; a cage never takes one away from a tree of the host.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

/// What a mount does not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes(u64);

impl Attributes {
    /// Nothing is written.
    pub(crate) const READ_ONLY: Self = Self(libc::MOUNT_ATTR_RDONLY);
    /// Set-user-id bits and file capabilities have no effect.
    pub(crate) const NO_SET_ID: Self = Self(libc::MOUNT_ATTR_NOSUID);
    /// Device files cannot be opened.
    pub(crate) const NO_DEVICES: Self = Self(libc::MOUNT_ATTR_NODEV);
    /// Nothing is executed.
    pub(crate) const NO_EXEC: Self = Self(libc::MOUNT_ATTR_NOEXEC);

    /// Both.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A private copy of the mounts at and below an object, without a place.
///
/// # Errors
/// The kernel's, for example when the object lies in another mount namespace.
pub(crate) fn copy_tree(object: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(open_tree(
        object,
        c"",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE
            | OpenTreeFlags::AT_EMPTY_PATH,
    )?)
}

/// As [`copy_tree`], of what lies at `path` below `folder`, which nobody else can change, and without mounts below it.
///
/// # Errors
/// The kernel's.
pub(crate) fn copy_at(folder: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    Ok(open_tree(
        folder,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW,
    )?)
}

/// Adds attributes to a mount and all below it, and takes it out of the host's propagation.
///
/// # Errors
/// The kernel's.
pub(crate) fn restrict(mount: BorrowedFd<'_>, attributes: Attributes) -> io::Result<()> {
    set_attributes(mount, attributes, libc::MS_PRIVATE, libc::AT_RECURSIVE)
}

/// Adds attributes to one mount.
///
/// # Errors
/// The kernel's.
pub(crate) fn restrict_one(mount: BorrowedFd<'_>, attributes: Attributes) -> io::Result<()> {
    set_attributes(mount, attributes, 0, 0)
}

fn set_attributes(mount: BorrowedFd<'_>, attributes: Attributes, propagation: u64, flags: i32) -> io::Result<()> {
    let what = libc::mount_attr { attr_set: attributes.0, attr_clr: 0, propagation, userns_fd: 0 };
    // SAFETY: the descriptor is open, the path is an empty C string, `what` is a valid `mount_attr` that outlives the
    // call, and the size given is its size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            &raw const what,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One option of a new file system.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FsOption<'a> {
    /// A word.
    Flag(&'a CStr),
    /// A word and its value.
    Text(&'a CStr, &'a CStr),
}

/// A new file system of a kind, without a place.
///
/// # Errors
/// The kernel's.
pub(crate) fn new_file_system(kind: &CStr, options: &[FsOption<'_>], attributes: Attributes) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for option in options {
        match option {
            FsOption::Flag(name) => fsconfig_set_flag(context.as_fd(), *name)?,
            FsOption::Text(name, value) => fsconfig_set_string(context.as_fd(), *name, *value)?,
        }
    }
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes.0).unwrap_or(u32::MAX));
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Puts a mount on an object.
///
/// # Errors
/// The kernel's.
pub(crate) fn attach(mount: BorrowedFd<'_>, on: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_mount(
        mount,
        c"",
        on,
        c"",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )?)
}

/// Makes the mount behind `new_root`, which has a place, the root of this mount namespace. The old root is still
/// mounted, above; [`drop_old_root`] ends it.
///
/// # Errors
/// The kernel's.
pub(crate) fn switch_root(new_root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(new_root)?;
    Ok(rustix::process::pivot_root(c".", c".")?)
}

/// Ends what [`switch_root`] left mounted. Files that are open stay open.
///
/// # Errors
/// The kernel's.
pub(crate) fn drop_old_root() -> io::Result<()> {
    // What lies on top at the root is the old one; `.` would be the new one by now.
    rustix::process::chdir(c"/..")?;
    rustix::mount::unmount(c".", rustix::mount::UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir(c"/")?)
}

/// Sets up the loopback device of this network namespace.
///
/// # Errors
/// The kernel's.
pub(crate) fn loopback_up() -> io::Result<()> {
    // SAFETY: creates a descriptor from constants.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
    // SAFETY: the request asks for an `ifreq`, which it gets, and the name in it ends with a zero.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
