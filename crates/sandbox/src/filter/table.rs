//! The table: every system call that exists in a cage, and what happens to it.
//!
//! The one fact a newcomer gets wrong: a call that stands in none of the lists does not exist (ENOSYS). That is also how
//! calls are refused whose callers know a way without them: `clone3`, `openat2`, `io_uring_*`, `landlock_*`. Landlock
//! itself is among them because the broker acts with the rights of the *cage*: a program that narrowed itself further
//! would believe in a wall that the broker's help goes around.

use libc::{EACCES, EAFNOSUPPORT, EPERM, EPROTONOSUPPORT};

use super::FilterSpec;
use super::rule::{Action, Clause, Condition, Rule, Test, equal, high, low, masked};

/// `SYS_…` numbers by name.
macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

const REFUSE: Action = Action::Refuse(EPERM as u16);
const NO_ACCESS: Action = Action::Refuse(EACCES as u16);
const NO_FAMILY: Action = Action::Refuse(EAFNOSUPPORT as u16);
const NO_PROTOCOL: Action = Action::Refuse(EPROTONOSUPPORT as u16);

/// Harmless on what the caller already has.
const ALLOWED: &[libc::c_long] = calls![
    // Descriptors and memory.
    SYS_read SYS_write SYS_close SYS_fstat SYS_lseek SYS_mmap SYS_mprotect SYS_munmap SYS_brk SYS_pread64 SYS_pwrite64
    SYS_readv SYS_writev SYS_preadv SYS_pwritev SYS_preadv2 SYS_pwritev2 SYS_mremap SYS_msync SYS_mincore SYS_madvise
    SYS_dup SYS_dup3 SYS_flock SYS_fsync SYS_fdatasync SYS_ftruncate SYS_fallocate SYS_sync SYS_syncfs
    SYS_sync_file_range SYS_readahead SYS_fadvise64 SYS_copy_file_range SYS_sendfile SYS_splice SYS_tee SYS_vmsplice
    SYS_pipe2 SYS_close_range SYS_mlock SYS_munlock SYS_mlockall SYS_munlockall SYS_mlock2 SYS_remap_file_pages
    SYS_pkey_mprotect SYS_pkey_alloc SYS_pkey_free SYS_membarrier SYS_mbind SYS_set_mempolicy SYS_get_mempolicy
    SYS_io_setup SYS_io_destroy SYS_io_getevents SYS_io_submit SYS_io_cancel
    // Files by name that exist: reading about them, deleting them, their modes and times.
    SYS_statx SYS_newfstatat SYS_faccessat SYS_faccessat2 SYS_readlinkat SYS_getdents64 SYS_getcwd SYS_chdir SYS_fchdir
    SYS_unlinkat SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_utimensat SYS_statfs SYS_fstatfs
    SYS_setxattr SYS_lsetxattr SYS_fsetxattr SYS_getxattr SYS_lgetxattr SYS_fgetxattr SYS_listxattr SYS_llistxattr
    SYS_flistxattr SYS_removexattr SYS_lremovexattr SYS_fremovexattr SYS_inotify_init1 SYS_inotify_add_watch
    SYS_inotify_rm_watch
    // Waiting.
    SYS_pselect6 SYS_ppoll SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_signalfd4
    SYS_timerfd_create SYS_timerfd_settime SYS_timerfd_gettime SYS_futex SYS_set_robust_list SYS_get_robust_list
    SYS_nanosleep SYS_clock_nanosleep SYS_restart_syscall SYS_rseq
    // Signals.
    SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn SYS_rt_sigpending SYS_rt_sigtimedwait SYS_rt_sigqueueinfo
    SYS_rt_tgsigqueueinfo SYS_rt_sigsuspend SYS_sigaltstack SYS_kill SYS_tkill SYS_tgkill SYS_pidfd_send_signal
    SYS_pidfd_open
    // Processes and identities.
    SYS_exit SYS_exit_group SYS_wait4 SYS_waitid SYS_getpid SYS_gettid SYS_getppid SYS_getpgid SYS_setpgid SYS_getsid
    SYS_setsid SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_getgroups SYS_setgroups SYS_setuid SYS_setgid
    SYS_setreuid SYS_setregid SYS_setresuid SYS_getresuid SYS_setresgid SYS_getresgid SYS_setfsuid SYS_setfsgid
    SYS_capget SYS_capset SYS_prctl SYS_set_tid_address SYS_sched_yield SYS_sched_setparam SYS_sched_getparam
    SYS_sched_setscheduler SYS_sched_getscheduler SYS_sched_get_priority_max SYS_sched_get_priority_min
    SYS_sched_rr_get_interval SYS_sched_setaffinity SYS_sched_getaffinity SYS_sched_setattr SYS_sched_getattr
    SYS_getpriority SYS_setpriority SYS_ioprio_set SYS_ioprio_get SYS_getrlimit SYS_setrlimit SYS_getrusage SYS_getcpu
    SYS_times SYS_uname SYS_sysinfo SYS_getrandom
    // Time; setting it needs what nobody in a cage has.
    SYS_gettimeofday SYS_clock_gettime SYS_clock_getres SYS_adjtimex SYS_getitimer SYS_setitimer SYS_timer_create
    SYS_timer_settime SYS_timer_gettime SYS_timer_getoverrun SYS_timer_delete
    // Sockets that exist; addresses are the broker's.
    SYS_accept SYS_accept4 SYS_listen SYS_sendto SYS_recvfrom SYS_sendmsg SYS_recvmsg SYS_sendmmsg SYS_recvmmsg
    SYS_shutdown SYS_getsockname SYS_getpeername SYS_setsockopt SYS_getsockopt
    // Shared memory, semaphores and queues of the cage's own namespace.
    SYS_shmget SYS_shmat SYS_shmdt SYS_shmctl SYS_semget SYS_semop SYS_semtimedop SYS_semctl SYS_msgget SYS_msgsnd
    SYS_msgrcv SYS_msgctl SYS_mq_open SYS_mq_unlink SYS_mq_timedsend SYS_mq_timedreceive SYS_mq_notify
    SYS_mq_getsetattr
];

/// As [`ALLOWED`], under the numbers that all machines share and that are newer than the names we have for them.
const ALLOWED_NEW: &[u32] = &[
    // What the kernel itself makes a traced program call; others get nothing from them.
    #[cfg(target_arch = "x86_64")]
    335, // uretprobe
    #[cfg(target_arch = "x86_64")]
    336, // uprobe
    449, // futex_waitv
    450, // set_mempolicy_home_node
    451, // cachestat
    452, // fchmodat2
    453, // map_shadow_stack
    454, // futex_wake
    455, // futex_wait
    456, // futex_requeue
    457, // statmount
    458, // listmount
    459, // lsm_get_self_attr
    461, // lsm_list_modules
    462, // mseal
    463, // setxattrat
    464, // getxattrat
    465, // listxattrat
    466, // removexattrat
];

/// The older forms, which x86-64 still has.
#[cfg(target_arch = "x86_64")]
const ALLOWED_OLD: &[libc::c_long] = calls![
    SYS_stat SYS_lstat SYS_poll SYS_access SYS_pipe SYS_select SYS_dup2 SYS_pause SYS_alarm SYS_fork SYS_vfork
    SYS_getdents SYS_rmdir SYS_unlink SYS_readlink SYS_chmod SYS_chown SYS_lchown SYS_getpgrp SYS_utime SYS_utimes
    SYS_futimesat SYS_time SYS_epoll_create SYS_epoll_wait SYS_epoll_ctl_old SYS_epoll_wait_old SYS_inotify_init
    SYS_signalfd SYS_eventfd SYS_arch_prctl SYS_set_thread_area SYS_get_thread_area SYS_ustat
];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_OLD: &[libc::c_long] = &[];

/// Known, and refused in words instead of missing: callers ask "may I", not "is it there".
const REFUSED: &[libc::c_long] = calls![
    // Namespaces, mounts, roots.
    SYS_setns SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_open_tree SYS_move_mount SYS_fsopen SYS_fsconfig
    SYS_fsmount SYS_fspick SYS_mount_setattr SYS_name_to_handle_at SYS_open_by_handle_at
    // Other processes.
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_pidfd_getfd SYS_kcmp SYS_process_madvise
    SYS_process_mrelease SYS_migrate_pages SYS_move_pages
    // Parts of the kernel with a history.
    SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_add_key SYS_request_key SYS_keyctl SYS_fanotify_init
    SYS_fanotify_mark
    // The machine.
    SYS_reboot SYS_kexec_load SYS_init_module SYS_finit_module SYS_delete_module SYS_swapon SYS_swapoff SYS_acct
    SYS_settimeofday SYS_clock_settime SYS_clock_adjtime SYS_sethostname SYS_setdomainname SYS_syslog SYS_vhangup
    SYS_quotactl SYS_quotactl_fd
];

/// As [`REFUSED`], newer: `lsm_set_self_attr`, `open_tree_attr`.
const REFUSED_NEW: &[u32] = &[460, 467];

#[cfg(target_arch = "x86_64")]
const REFUSED_OLD: &[libc::c_long] = calls![SYS_iopl SYS_ioperm SYS_modify_ldt SYS_kexec_file_load];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_OLD: &[libc::c_long] = calls![SYS_kexec_file_load];

/// Carried out by the broker (or, for `umask` and the two that start programs, only noticed by it).
const NOTIFIED: &[libc::c_long] = calls![
    SYS_mkdirat SYS_mknodat SYS_renameat2 SYS_linkat SYS_symlinkat SYS_truncate SYS_connect SYS_bind SYS_umask
    SYS_execve SYS_execveat
];

#[cfg(target_arch = "x86_64")]
const NOTIFIED_OLD: &[libc::c_long] =
    calls![SYS_mkdir SYS_mknod SYS_rename SYS_renameat SYS_link SYS_symlink SYS_creat];
// The number exists on aarch64; callers that have `renameat2` use that.
#[cfg(not(target_arch = "x86_64"))]
const NOTIFIED_OLD: &[libc::c_long] = calls![SYS_renameat];

const O_CREAT: u32 = libc::O_CREAT as u32;
const O_TRUNC: u32 = libc::O_TRUNC as u32;
const O_WRITING: u32 = (libc::O_WRONLY | libc::O_RDWR) as u32;
const O_PATH: u32 = libc::O_PATH as u32;
/// The bit of `O_TMPFILE` that is not `O_DIRECTORY`.
const O_NAMELESS: u32 = (libc::O_TMPFILE & !libc::O_DIRECTORY) as u32;

/// Opening for writing, and opening that may create, are carried out by the broker. Not so descriptors that only name
/// something (`O_PATH`) and files without a name (`O_TMPFILE`): the first cannot write, the second is new.
#[cfg(target_arch = "x86_64")]
const OPEN: &[Clause] = &[
    Clause { when: &[low(1, Test::Any(O_PATH | O_NAMELESS))], then: Action::Allow },
    Clause { when: &[low(1, Test::Any(O_CREAT | O_TRUNC | O_WRITING))], then: Action::Notify },
];
const OPENAT: &[Clause] = &[
    Clause { when: &[low(2, Test::Any(O_PATH | O_NAMELESS))], then: Action::Allow },
    Clause { when: &[low(2, Test::Any(O_CREAT | O_TRUNC | O_WRITING))], then: Action::Notify },
];

/// `CLONE_NEW…` of `clone`; the lowest byte is a signal there.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;
const NEW_TIME: u32 = 0x80;

const CLONE: &[Clause] = &[Clause { when: &[low(0, Test::Any(NEW_NAMESPACES))], then: REFUSE }];
const UNSHARE: &[Clause] = &[Clause { when: &[low(0, Test::Any(NEW_NAMESPACES | NEW_TIME))], then: REFUSE }];

/// The kind of a socket without `SOCK_NONBLOCK` and `SOCK_CLOEXEC`.
const TYPE: u32 = 0xf;
const STREAM: u32 = libc::SOCK_STREAM as u32;
const DATAGRAM: u32 = libc::SOCK_DGRAM as u32;
const PACKETS: u32 = libc::SOCK_SEQPACKET as u32;
const UNIX: u32 = libc::AF_UNIX as u32;
const INET: u32 = libc::AF_INET as u32;
const INET6: u32 = libc::AF_INET6 as u32;
const NETLINK: u32 = libc::AF_NETLINK as u32;

const fn socket(family: u32, kind: u32, protocol: u32) -> [Condition; 3] {
    [equal(0, family), masked(1, TYPE, kind), equal(2, protocol)]
}

static TCP: [[Condition; 3]; 4] =
    [socket(INET, STREAM, 0), socket(INET, STREAM, 6), socket(INET6, STREAM, 0), socket(INET6, STREAM, 6)];
static UDP: [[Condition; 3]; 4] =
    [socket(INET, DATAGRAM, 0), socket(INET, DATAGRAM, 17), socket(INET6, DATAGRAM, 0), socket(INET6, DATAGRAM, 17)];

/// No datagram sockets of the unix family (each could be sent through to any socket in sight), no raw sockets, no
/// MPTCP (Landlock's rules do not see it), and of netlink only what `getifaddrs` asks: the cage's own loopback device.
static SOCKET: [Clause; 13] = [
    Clause { when: &[equal(0, UNIX), masked(1, TYPE, STREAM)], then: Action::Allow },
    Clause { when: &[equal(0, UNIX), masked(1, TYPE, PACKETS)], then: Action::Allow },
    Clause { when: &[equal(0, UNIX)], then: NO_PROTOCOL },
    Clause { when: &TCP[0], then: Action::Allow },
    Clause { when: &TCP[1], then: Action::Allow },
    Clause { when: &TCP[2], then: Action::Allow },
    Clause { when: &TCP[3], then: Action::Allow },
    Clause { when: &UDP[0], then: Action::Allow },
    Clause { when: &UDP[1], then: Action::Allow },
    Clause { when: &UDP[2], then: Action::Allow },
    Clause { when: &UDP[3], then: Action::Allow },
    Clause { when: &[equal(0, NETLINK), equal(2, 0)], then: Action::Allow },
    Clause { when: &[masked(0, !(INET | INET6 | NETLINK), 0)], then: NO_PROTOCOL },
];

const SOCKETPAIR: &[Clause] = &[
    Clause { when: &[equal(0, UNIX), masked(1, TYPE, STREAM)], then: Action::Allow },
    Clause { when: &[equal(0, UNIX), masked(1, TYPE, PACKETS)], then: Action::Allow },
];

/// Pushing characters into a terminal, its console, its line discipline; making subvolumes, which are names with
/// content. The clone and dedupe calls share a letter with the latter.
const IOCTL: &[Clause] = &[
    Clause { when: &[equal(1, 0x5412)], then: REFUSE }, // TIOCSTI
    Clause { when: &[equal(1, 0x541c)], then: REFUSE }, // TIOCLINUX
    Clause { when: &[equal(1, 0x541d)], then: REFUSE }, // TIOCCONS
    Clause { when: &[equal(1, 0x5423)], then: REFUSE }, // TIOCSETD
    Clause { when: &[equal(1, 0x4004_9409)], then: Action::Allow }, // FICLONE
    Clause { when: &[equal(1, 0x4020_940d)], then: Action::Allow }, // FICLONERANGE
    Clause { when: &[equal(1, 0xc018_9436)], then: Action::Allow }, // FIDEDUPERANGE
    Clause { when: &[masked(1, 0xff00, 0x9400)], then: REFUSE }, // btrfs
    Clause { when: &[masked(1, 0xff00, 0xbc00)], then: REFUSE }, // bcachefs
];

/// A lease makes whoever opens the file wait, and that is the broker.
const FCNTL: &[Clause] = &[Clause { when: &[equal(1, libc::F_SETLEASE.cast_unsigned())], then: NO_ACCESS }];

/// Asking, Linux as it is, and without address randomisation, for debuggers.
const PERSONALITY: &[Clause] = &[
    Clause { when: &[equal(0, u32::MAX)], then: Action::Allow },
    Clause { when: &[equal(0, 0)], then: Action::Allow },
    Clause { when: &[equal(0, 0x0004_0000)], then: Action::Allow },
];

/// A filter of one's own is good; a listener of one's own is not (there can be only one, and it is the broker's).
const SECCOMP: &[Clause] = &[Clause { when: &[equal(0, 1), low(1, Test::Any(8))], then: REFUSE }];

/// Memory as a file, but not to be executed.
const MEMFD: &[Clause] = &[Clause { when: &[low(1, Test::Any(0x10))], then: NO_ACCESS }];

/// Asking about others, setting only oneself: a limit put on the broker would stop the cage.
const PRLIMIT: &[Clause] = &[
    Clause { when: &[equal(0, 0)], then: Action::Allow },
    Clause { when: &[equal(2, 0), high(2, Test::Equal { mask: u32::MAX, value: 0 })], then: Action::Allow },
];

/// Calls whose arguments count.
static BY_ARGUMENT: &[(libc::c_long, Rule)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, Rule::First(OPEN, Action::Allow)),
    (libc::SYS_openat, Rule::First(OPENAT, Action::Allow)),
    (libc::SYS_clone, Rule::First(CLONE, Action::Allow)),
    (libc::SYS_unshare, Rule::First(UNSHARE, Action::Allow)),
    (libc::SYS_socket, Rule::First(&SOCKET, NO_FAMILY)),
    (libc::SYS_socketpair, Rule::First(SOCKETPAIR, NO_PROTOCOL)),
    (libc::SYS_ioctl, Rule::First(IOCTL, Action::Allow)),
    (libc::SYS_fcntl, Rule::First(FCNTL, Action::Allow)),
    (libc::SYS_personality, Rule::First(PERSONALITY, REFUSE)),
    (libc::SYS_seccomp, Rule::First(SECCOMP, Action::Allow)),
    (libc::SYS_memfd_create, Rule::First(MEMFD, Action::Allow)),
    (libc::SYS_prlimit64, Rule::First(PRLIMIT, REFUSE)),
];

/// In learning, every opening is reported.
static LEARNED: &[(libc::c_long, Rule)] = &[
    #[cfg(target_arch = "x86_64")]
    (
        libc::SYS_open,
        Rule::First(&[Clause { when: &[low(1, Test::Any(O_NAMELESS))], then: Action::Allow }], Action::Notify),
    ),
    (
        libc::SYS_openat,
        Rule::First(&[Clause { when: &[low(2, Test::Any(O_NAMELESS))], then: Action::Allow }], Action::Notify),
    ),
];

/// What happens to calls that are in no list.
pub(super) const MISSING: Action = Action::Refuse(libc::ENOSYS as u16);

/// The machine's word in a call's record.
#[cfg(target_arch = "x86_64")]
pub(super) const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub(super) const ARCHITECTURE: u32 = 0xc000_00b7;

/// Numbers from here on belong to x32 (on x86-64) or to nobody.
pub(super) const FOREIGN: u32 = 0x4000_0000;

/// The whole table, sorted by number.
pub(super) fn table(spec: &FilterSpec) -> Vec<(u32, Rule)> {
    let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
    let mut table: Vec<(u32, Rule)> = Vec::with_capacity(400);
    let mut add = |calls: &[libc::c_long], action| {
        table.extend(calls.iter().map(|call| (number(*call), Rule::Always(action))));
    };
    add(ALLOWED, Action::Allow);
    add(ALLOWED_OLD, Action::Allow);
    add(REFUSED, REFUSE);
    add(REFUSED_OLD, REFUSE);
    add(NOTIFIED, Action::Notify);
    add(NOTIFIED_OLD, Action::Notify);
    table.extend(ALLOWED_NEW.iter().map(|number| (*number, Rule::Always(Action::Allow))));
    table.extend(REFUSED_NEW.iter().map(|number| (*number, Rule::Always(REFUSE))));
    table.extend(BY_ARGUMENT.iter().map(|(call, rule)| (number(*call), *rule)));
    if spec.learn {
        for (call, learned) in LEARNED {
            if let Some((_, rule)) = table.iter_mut().find(|(present, _)| *present == number(*call)) {
                *rule = *learned;
            }
        }
    }
    table.sort_unstable_by_key(|(call, _)| *call);
    table
}
