//! Device nodes, and the kernel's knobs in `/proc` and `/sys` (F25).

use std::fs;
use std::os::unix::fs::FileTypeExt;

use crate::attempt::{Ready, Stop, Tries, held};
use crate::facts::Facts;
use crate::files::last;
use crate::sys;

/// Devices that programs cannot do without.
const PLAIN: &[&str] = &["null", "zero", "full", "random", "urandom", "tty", "ptmx"];

/// Knobs; none of them may be opened for writing.
const KNOBS: &[&str] = &[
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv4/ping_group_range",
    "/proc/sys/user/max_user_namespaces",
    "/proc/sys/fs/mqueue/queues_max",
    "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity",
    "/sys/kernel/mm/ksm/run",
    "/sys/power/state",
];

pub(crate) fn devices(_facts: &Facts, tries: &mut Tries) {
    tries.attempt("a device beyond the plain ones", || {
        let mut seen = 0;
        for entry in fs::read_dir("/dev").ready("/dev")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(kind) = entry.file_type() else { continue };
            if !(kind.is_char_device() || kind.is_block_device()) || PLAIN.contains(&name.as_str()) {
                continue;
            }
            seen += 1;
            if sys::open(&format!("/dev/{name}"), libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY, 0).is_ok() {
                return Ok(format!("opened /dev/{name}"));
            }
        }
        held(format!("{seen} in sight, none opens"))
    });
    for (what, kind, major, minor) in [("memory", libc::S_IFCHR, 1, 1), ("a disk", libc::S_IFBLK, 254, 0)] {
        tries.attempt(&format!("a node of {what} made"), || {
            let name = sys::path("/tmp/f25-node");
            // SAFETY: the name lives over the call.
            sys::done(unsafe { libc::mknod(name.as_ptr(), kind | 0o600, libc::makedev(major, minor)) })?;
            sys::open("/tmp/f25-node", libc::O_RDONLY, 0)?;
            Ok("made and opened it".to_owned())
        });
    }
    for knob in KNOBS {
        tries.attempt(&format!("{knob} for writing"), || {
            sys::open(knob, libc::O_WRONLY, 0).map_err(Stop::from).map(|_| "opened".to_owned())
        });
    }
    for secret in ["/proc/kcore", "/proc/kmsg", "/sys/kernel/debug/x"] {
        tries.attempt(&format!("{secret} for reading"), || {
            let file = sys::open(secret, libc::O_RDONLY | libc::O_NONBLOCK, 0)?;
            use std::os::fd::AsRawFd as _;
            let bytes = sys::read_once(file.as_raw_fd())?;
            if bytes.is_empty() { held("empty") } else { Ok(format!("{} bytes", bytes.len())) }
        });
    }
    tries.attempt("a virtual console", || {
        let file = sys::open("/dev/tty0", libc::O_RDWR | libc::O_NOCTTY, 0)?;
        use std::os::fd::AsRawFd as _;
        // SAFETY: a request without a pointer that is used.
        if unsafe { libc::ioctl(file.as_raw_fd(), 0x541C, 0) } < 0 { Err(last()) } else { Ok("it answers".to_owned()) }
    });
}
