//! Calls that a cage must refuse, made in earnest.
//!
//! Each gives what the kernel answered. The one fact a newcomer gets wrong: pointers are null here, and that does not
//! weaken the trial: permission is checked before the pointer is used, and a filter sees only the number.
#![allow(unsafe_code)]

use std::io;

/// One of the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forbidden {
    /// `unshare(CLONE_NEWUSER)`.
    NewUserNamespace,
    /// `clone(CLONE_NEWUSER)` by way of `unshare(CLONE_NEWNS)`.
    NewMountNamespace,
    /// `setns` on the caller's own descriptor 0.
    EnterNamespace,
    /// `open_tree(CLONE)` of the root.
    CopyMount,
    /// `ptrace(PTRACE_SEIZE)` of this process of the cage.
    Trace(i32),
    /// `process_vm_readv` of that process.
    ReadMemory(i32),
    /// `io_uring_setup`.
    IoUring,
    /// `bpf(BPF_MAP_CREATE)`.
    Bpf,
    /// `perf_event_open`.
    Perf,
    /// `keyctl(KEYCTL_GET_KEYRING_ID)` of the session keyring.
    Keyring,
    /// `userfaultfd`.
    UserFault,
    /// `socket` of this family, type and protocol.
    Socket(i32, i32, i32),
    /// `setuid(0)`.
    BecomeRoot,
}

/// Makes the call.
///
/// # Errors
/// What the kernel answered: the good case.
pub(crate) fn attempt(call: Forbidden) -> io::Result<i64> {
    let (number, arguments): (libc::c_long, [libc::c_long; 5]) = match call {
        Forbidden::NewUserNamespace => (libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0]),
        Forbidden::NewMountNamespace => (libc::SYS_unshare, [libc::CLONE_NEWNS.into(), 0, 0, 0, 0]),
        Forbidden::EnterNamespace => (libc::SYS_setns, [0, 0, 0, 0, 0]),
        Forbidden::CopyMount => {
            let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
            (libc::SYS_open_tree, [libc::AT_FDCWD.into(), c"/".as_ptr().addr() as libc::c_long, flags.into(), 0, 0])
        }
        Forbidden::Trace(pid) => (libc::SYS_ptrace, [0x4206, pid.into(), 0, 0, 0]),
        Forbidden::ReadMemory(pid) => (libc::SYS_process_vm_readv, [pid.into(), 0, 0, 0, 0]),
        Forbidden::IoUring => (libc::SYS_io_uring_setup, [1, 0, 0, 0, 0]),
        Forbidden::Bpf => (libc::SYS_bpf, [0, 0, 0, 0, 0]),
        Forbidden::Perf => (libc::SYS_perf_event_open, [0, 0, -1, -1, 0]),
        Forbidden::Keyring => (libc::SYS_keyctl, [0, -3, 0, 0, 0]),
        Forbidden::UserFault => (libc::SYS_userfaultfd, [1, 0, 0, 0, 0]),
        Forbidden::Socket(family, kind, protocol) => {
            (libc::SYS_socket, [family.into(), kind.into(), protocol.into(), 0, 0])
        }
        Forbidden::BecomeRoot => (libc::SYS_setuid, [0, 0, 0, 0, 0]),
    };
    let [a, b, c, d, e] = arguments;
    // SAFETY: the arguments are numbers, null pointers, or the address of a constant C string; nothing of this process
    // is written through them.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
