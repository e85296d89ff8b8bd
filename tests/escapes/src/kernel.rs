//! What the kernel offers beside files: foreign calls, new namespaces, mounts, and interfaces with a history (P6–P8, P10).

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::attempt::{Ready, Stop, Tried, Tries, held};
use crate::facts::Facts;
use crate::sys;

pub(crate) fn foreign_calls(_facts: &Facts, tries: &mut Tries) {
    #[cfg(target_arch = "x86_64")]
    {
        tries.attempt("a call of the x32 family", || {
            sys::call(0x4000_0000 + libc::SYS_getpid, [0; 6]).map_err(Stop::from).map(|id| format!("getpid is {id}"))
        });
        tries.attempt("a call of the 32-bit family", || {
            let answer: i64;
            // SAFETY: number 20 is getpid there; it takes nothing and changes one register, which is said.
            unsafe {
                std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => answer, options(nostack));
            }
            sys::checked(answer)?;
            // SAFETY: no arguments.
            if answer == i64::from(unsafe { libc::getpid() }) {
                Ok(format!("getpid is {answer}"))
            } else {
                held(format!("it says {answer}"))
            }
        });
    }
    tries.attempt("a call with a number that nobody knows yet", || {
        sys::call(999, [0; 6]).map_err(Stop::from).map(|answer| format!("it says {answer}"))
    });
}

pub(crate) fn io_uring(_facts: &Facts, tries: &mut Tries) {
    tries.attempt("io_uring_setup", || {
        let mut parameters = [0_u64; 15];
        sys::descriptor(libc::SYS_io_uring_setup, [4, parameters.as_mut_ptr() as u64, 0, 0, 0, 0])?;
        Ok("a ring".to_owned())
    });
}

pub(crate) fn namespaces(facts: &Facts, tries: &mut Tries) {
    for (what, flag) in [
        ("user", libc::CLONE_NEWUSER),
        ("mount, with user", libc::CLONE_NEWUSER | libc::CLONE_NEWNS),
        ("network, with user", libc::CLONE_NEWUSER | libc::CLONE_NEWNET),
        ("pid, with user", libc::CLONE_NEWUSER | libc::CLONE_NEWPID),
        ("time, with user", libc::CLONE_NEWUSER | 0x80),
    ] {
        tries.attempt(&format!("unshare: {what}"), || {
            sys::call(libc::SYS_unshare, [flag as u64, 0, 0, 0, 0, 0])?;
            Ok("a new namespace".to_owned())
        });
    }
    tries.attempt("clone with a new user namespace", || {
        let flags = (libc::CLONE_NEWUSER | libc::SIGCHLD) as u64;
        let child = sys::call(libc::SYS_clone, [flags, 0, 0, 0, 0, 0])?;
        if child == 0 {
            // SAFETY: ends the copy.
            unsafe { libc::_exit(0) };
        }
        Ok("a child in one".to_owned())
    });
    tries.attempt("clone3 with a new user namespace", || {
        let mut arguments = [0_u64; 11];
        arguments[0] = libc::CLONE_NEWUSER as u64;
        arguments[4] = libc::SIGCHLD as u64;
        let child = sys::call(libc::SYS_clone3, [arguments.as_mut_ptr() as u64, 88, 0, 0, 0, 0])?;
        if child == 0 {
            // SAFETY: ends the copy.
            unsafe { libc::_exit(0) };
        }
        Ok("a child in one".to_owned())
    });
    tries.attempt("joining a namespace of the first process", || {
        let space = sys::open("/proc/1/ns/net", libc::O_RDONLY, 0)?;
        sys::call(libc::SYS_setns, [space.as_raw_fd() as u64, 0, 0, 0, 0, 0])?;
        Ok("joined".to_owned())
    });
    mounts(facts, tries);
}

/// Mounts, roots and identities: nothing inside may change what is where.
fn mounts(facts: &Facts, tries: &mut Tries) {
    let here = facts.at("plain");
    let sealed = facts.at("existing/.vscode");
    let mount = |source: &str, target: &str, kind: &str, flags: u64| -> Tried {
        let (source, target, kind) = (sys::path(source), sys::path(target), sys::path(kind));
        let arguments = [source.as_ptr() as u64, target.as_ptr() as u64, kind.as_ptr() as u64, flags, 0, 0];
        sys::call(libc::SYS_mount, arguments)?;
        Ok("mounted".to_owned())
    };
    tries.attempt("mount a temporary file system", || mount("x", &here, "tmpfs", 0));
    tries.attempt("mount the process folder again", || mount("x", &here, "proc", 0));
    tries.attempt("bind over a sealed folder", || mount(&here, &sealed, "", libc::MS_BIND));
    tries.attempt("make a sealed folder writable", || mount("", &sealed, "", libc::MS_REMOUNT | libc::MS_BIND));
    tries.attempt("take the mount off a sealed folder", || {
        let name = sys::path(&sealed);
        sys::call(libc::SYS_umount2, [name.as_ptr() as u64, libc::MNT_DETACH as u64, 0, 0, 0, 0])?;
        Ok("off".to_owned())
    });
    tries.attempt("a copy of a mount by descriptor", || {
        let name = sys::path(&here);
        // OPEN_TREE_CLONE
        sys::descriptor(libc::SYS_open_tree, [libc::AT_FDCWD as u64, name.as_ptr() as u64, 1, 0, 0, 0])?;
        Ok("a copy".to_owned())
    });
    tries.attempt("a mount's attributes", || {
        let name = sys::path(&sealed);
        let mut attributes = [0_u64, 1, 0, 0];
        let arguments = [libc::AT_FDCWD as u64, name.as_ptr() as u64, 0, attributes.as_mut_ptr() as u64, 32, 0];
        sys::call(libc::SYS_mount_setattr, arguments)?;
        Ok("writable".to_owned())
    });
    tries.attempt("a file system by descriptor", || {
        let name = sys::path("tmpfs");
        sys::descriptor(libc::SYS_fsopen, [name.as_ptr() as u64, 0, 0, 0, 0, 0])?;
        Ok("opened".to_owned())
    });
    tries.attempt("another root", || {
        let name = sys::path(&here);
        sys::call(libc::SYS_chroot, [name.as_ptr() as u64, 0, 0, 0, 0, 0])?;
        Ok("changed".to_owned())
    });
    tries.attempt("another host name", || {
        sys::call(libc::SYS_sethostname, [c"x".as_ptr() as u64, 1, 0, 0, 0, 0])?;
        Ok("renamed".to_owned())
    });
    tries.attempt("another user", || {
        sys::call(libc::SYS_setuid, [0; 6])?;
        Ok("is root".to_owned())
    });
    tries.attempt("a program with the set-user-id bit", || {
        for program in ["/usr/bin/su", "/usr/bin/mount", "/usr/bin/passwd", "/usr/bin/newgrp"] {
            let Ok(found) = fs::metadata(program) else { continue };
            use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
            if found.permissions().mode() & 0o4000 == 0 || found.uid() != 0 {
                continue;
            }
            let name = sys::path(program);
            let mut facts = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
            // SAFETY: both live over the call, which fills the second.
            let flags = unsafe {
                sys::done(libc::statvfs(name.as_ptr(), facts.as_mut_ptr()))?;
                facts.assume_init().f_flag
            };
            // SAFETY: no pointers.
            let bound = unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) } == 1;
            if flags & libc::ST_NOSUID == 0 && !bound {
                return Ok(format!("{program} would be root"));
            }
        }
        held("no such program takes effect")
    });
    tries.attempt("rights over this namespace", || {
        let status = fs::read_to_string("/proc/self/status").ready("status")?;
        let of =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
        for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
            if of(set).bytes().any(|byte| byte != b'0') {
                return Ok(format!("{set} {}", of(set)));
            }
        }
        // What could be had by a program with rights of its own, were it not for the promise not to gain any.
        let could = of("CapBnd:").bytes().any(|byte| byte != b'0') && of("NoNewPrivs:") != "1";
        if could { Ok(format!("could have {}", of("CapBnd:"))) } else { held("none, and none can be had") }
    });
    // Last: where it succeeds, nothing is left to try anything on.
    tries.attempt("swap roots", || {
        let name = sys::path(&here);
        sys::call(libc::SYS_pivot_root, [name.as_ptr() as u64, name.as_ptr() as u64, 0, 0, 0, 0])?;
        Ok("swapped".to_owned())
    });
}

pub(crate) fn surface(_facts: &Facts, tries: &mut Tries) {
    tries.attempt("a filter of its own that notifies", || {
        // BPF: return ALLOW.
        let program = [libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 }];
        let filter = libc::sock_fprog { len: 1, filter: program.as_ptr().cast_mut() };
        // SAFETY: no pointers.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        sys::descriptor(libc::SYS_seccomp, [1, 1 << 3, (&raw const filter) as u64, 0, 0, 0])?;
        Ok("a listener".to_owned())
    });
    for (what, flags) in [("userfaultfd", 0_u64), ("userfaultfd for its own faults", 1)] {
        tries.attempt(what, || {
            sys::descriptor(libc::SYS_userfaultfd, [flags, 0, 0, 0, 0, 0])?;
            Ok("a descriptor".to_owned())
        });
    }
    tries.attempt("bpf", || {
        // BPF_MAP_CREATE of a small array.
        let mut attributes = [0_u32; 32];
        attributes[..4].copy_from_slice(&[2, 4, 4, 1]);
        sys::descriptor(libc::SYS_bpf, [0, attributes.as_mut_ptr() as u64, 72, 0, 0, 0])?;
        Ok("a map".to_owned())
    });
    tries.attempt("perf_event_open", || {
        let mut attributes = [0_u64; 16];
        // PERF_TYPE_SOFTWARE, size 128; counts page faults of this process, not of the kernel.
        attributes[0] = 1 | (128 << 32);
        attributes[1] = 2;
        attributes[5] = (1 << 5) | (1 << 6);
        sys::descriptor(libc::SYS_perf_event_open, [attributes.as_mut_ptr() as u64, 0, u64::MAX, u64::MAX, 0, 0])?;
        Ok("a counter".to_owned())
    });
    tries.attempt("keyctl", || {
        // KEYCTL_GET_KEYRING_ID of the user's keyring, which other sessions of the account share.
        sys::call(libc::SYS_keyctl, [0, (-4_i64) as u64, 1, 0, 0, 0])?;
        Ok("the user's keyring".to_owned())
    });
    tries.attempt("add_key", || {
        let arguments =
            [c"user".as_ptr() as u64, c"escape".as_ptr() as u64, c"x".as_ptr() as u64, 1, (-4_i64) as u64, 0];
        sys::call(libc::SYS_add_key, arguments)?;
        Ok("a key".to_owned())
    });
    tries.attempt("request_key", || {
        let arguments = [c"user".as_ptr() as u64, c"escape-host".as_ptr() as u64, 0, 0, 0, 0];
        sys::call(libc::SYS_request_key, arguments)?;
        Ok("the host's key".to_owned())
    });
    for (what, number) in [
        ("kexec_load", libc::SYS_kexec_load),
        ("init_module", libc::SYS_init_module),
        ("reboot", libc::SYS_reboot),
        ("swapon", libc::SYS_swapon),
        ("quotactl", libc::SYS_quotactl),
        ("acct", libc::SYS_acct),
        ("settimeofday", libc::SYS_settimeofday),
        ("fanotify_init", libc::SYS_fanotify_init),
        ("lookup_dcookie", 212),
    ] {
        tries.attempt(what, || sys::call(number, [0; 6]).map_err(Stop::from).map(|answer| format!("it says {answer}")));
    }
    tries.attempt("the kernel's log", || {
        let read = sys::call(libc::SYS_syslog, [3, 0, 0, 0, 0, 0]);
        let size = sys::call(libc::SYS_syslog, [10, 0, 0, 0, 0, 0]);
        read.or(size).map_err(Stop::from).map(|answer| format!("it says {answer}"))
    });
    tries.attempt("memory that no other can see", || {
        let raw = sys::call(447, [0; 6])?;
        // SAFETY: the kernel has just made it for us.
        drop(unsafe { OwnedFd::from_raw_fd(raw as i32) });
        Ok("a descriptor".to_owned())
    });
}
