//! A finished cage to what was tried in it and what came back; and those outcomes to the controls of a statement.
//!
//! Every probe is the real call, made by the very process that then becomes the command, or by a child of it. The one
//! fact a newcomer gets wrong: an error is the good answer here; what must not happen is success, so a probe whose object does
//! not exist on this machine proves nothing and says so.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::BorrowedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::process::{Pid, WaitOptions};
use serde::{Deserialize, Serialize};

use crate::channel;
use crate::root::layout::within;
use crate::setup::FromCage;
use crate::sys::attempt::{Forbidden, attempt};
use crate::sys::process::{self, Fork};

/// Most objects of one kind that are tried.
const MAX_OBJECTS: usize = 16;

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Probes {
    /// What costs a few microseconds each: always.
    #[default]
    Cheap,
    /// Everything, also what makes files for a moment.
    All,
}

/// What the probes need to know, found out on the host before the cage exists.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProbeSet {
    /// Also the dear ones.
    pub(crate) all: bool,
    /// Paths that exist on the host and are granted nowhere.
    pub(crate) outside: Vec<String>,
    /// As `outside`, in the home folder.
    pub(crate) home: Vec<String>,
    /// What the plan refuses inside its grants, as paths in the cage.
    pub(crate) denied: Vec<String>,
    /// Unix sockets that exist on the host and are granted nowhere.
    pub(crate) sockets: Vec<String>,
    /// A port of the host's loopback device on which the supervisor listens meanwhile.
    pub(crate) port: Option<u16>,
    /// An abstract unix socket on which the supervisor listens meanwhile.
    pub(crate) abstract_socket: String,
    /// Names in the command's environment that the plan does not name.
    pub(crate) foreign_names: Vec<String>,
    /// Writable folders of the host, as paths in the cage.
    pub(crate) roots: Vec<String>,
    /// Seals to try below the roots.
    pub(crate) seals: Vec<Sealed>,
}

/// A sealed name to try.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    /// Its last components.
    pub(crate) components: Vec<String>,
    /// It is a file's.
    pub(crate) file: bool,
    /// The only folder below which it is sealed.
    pub(crate) below: Option<String>,
}

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// The control that it is about.
    pub(crate) control: String,
    /// What was tried and what came back.
    pub(crate) detail: String,
    /// It was refused; nothing was tried where it is absent.
    pub(crate) held: Option<bool>,
}

/// Tries what is to be tried and sends [`FromCage::Outcomes`] through `gate`.
///
/// The cheap attempts are made by the caller itself: should one of them change it, it never becomes the command, because
/// what went through stops the run. Those that make files are left to a child.
///
/// # Errors
/// The outcomes cannot be sent; the child cannot be made, or did not come to its end.
pub(crate) fn run(set: &ProbeSet, gate: BorrowedFd<'_>) -> io::Result<()> {
    let tell = || {
        let outcomes = Trial { set, outcomes: Vec::with_capacity(64) }.all();
        channel::send(gate, &FromCage::Outcomes(outcomes), &[], SendFlags::empty())
    };
    if !set.all {
        return tell();
    }
    match process::fork()? {
        Fork::Child => process::exit_now(i32::from(tell().is_err())),
        Fork::Parent(child) => loop {
            match rustix::process::waitpid(Some(child), WaitOptions::empty()) {
                Ok(Some((_, status))) if status.exit_status() == Some(0) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
                _ => return Err(io::Error::other("the probes did not come to their end")),
            }
        },
    }
}

struct Trial<'a> {
    set: &'a ProbeSet,
    outcomes: Vec<Outcome>,
}

impl Trial<'_> {
    fn all(mut self) -> Vec<Outcome> {
        self.files();
        self.process();
        self.kernel();
        self.sockets();
        self.seals();
        self.outcomes
    }

    fn note<T>(&mut self, control: &str, tried: &str, result: Result<T, impl Into<io::Error>>) {
        let (held, answer) = match result {
            Ok(_) => (false, "it went through".to_owned()),
            Err(error) => {
                let error = error.into();
                (true, error.raw_os_error().map_or_else(|| error.to_string(), name_of))
            }
        };
        self.say(control, Some(held), format!("{tried}: {answer}"));
    }

    fn say(&mut self, control: &str, held: Option<bool>, detail: String) {
        self.outcomes.push(Outcome { control: control.to_owned(), detail, held });
    }

    fn nothing(&mut self, control: &str, why: &str) {
        self.say(control, None, why.to_owned());
    }

    fn files(&mut self) {
        let path = |path: &str| rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        for (control, paths, none) in [
            ("files.outside", &self.set.outside, "nothing outside the grants exists on this machine"),
            ("files.home", &self.set.home, "everything in the home folder is granted"),
        ] {
            if paths.is_empty() {
                self.nothing(control, none);
            }
            for object in paths {
                // An ancestor of a grant exists as an empty folder; what counts is what the host has in it.
                self.note(control, &format!("open `{object}`"), path(object));
            }
        }
        for object in &self.set.denied {
            let opened = rustix::fs::openat(CWD, object.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            self.note("files.denied", &format!("read `{object}`"), opened);
        }
        let write = |path: &str| rustix::fs::openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        self.note(
            "kernel.settings",
            "open `/proc/sys/kernel/core_pattern` for writing",
            write("/proc/sys/kernel/core_pattern"),
        );
        self.note("kernel.settings", "open `/proc/sysrq-trigger` for writing", write("/proc/sysrq-trigger"));
        let root = rustix::fs::mkdirat(CWD, "/creel-probe", Mode::RWXU);
        self.note("files.root", "make `/creel-probe`", root);
        let node =
            rustix::fs::mknodat(CWD, "/tmp/creel-probe", FileType::BlockDevice, Mode::RUSR, rustix::fs::makedev(8, 0));
        if node.is_ok() {
            let _ = rustix::fs::unlinkat(CWD, "/tmp/creel-probe", AtFlags::empty());
        }
        self.note("kernel.devices", "make a device file in `/tmp`", node);
        self.note("kernel.devices", "open `/dev/mem`", path("/dev/mem"));
    }

    fn process(&mut self) {
        let mut leaked = Vec::new();
        let names: Vec<i32> = std::fs::read_dir("/proc/self/fd")
            .map(|entries| entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
            .unwrap_or_default();
        // Without the standard three something is wrong with the list itself.
        if names.len() < 3 {
            leaked.push("the list of descriptors cannot be read".to_owned());
        }
        for number in names.into_iter().filter(|number| *number > 2) {
            if !closes_on_exec(number) {
                leaked.push(number.to_string());
            }
        }
        let held = leaked.is_empty();
        let detail = if held { "no descriptor above 2 survives the start".to_owned() } else { leaked.join(", ") };
        self.say("process.descriptors", Some(held), detail);
        let folder = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()].into_iter().any(|fd| {
            rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
        });
        let detail = if folder { "a standard descriptor is a folder" } else { "no standard descriptor is a folder" };
        self.say("process.descriptors", Some(!folder), detail.to_owned());
        let foreign = &self.set.foreign_names;
        let detail =
            if foreign.is_empty() { "every name in it stands in the plan".to_owned() } else { foreign.join(", ") };
        self.say("process.environment", Some(self.set.foreign_names.is_empty()), detail);
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let mut strangers = Vec::new();
        let mut seen = 0_u32;
        if let Ok(entries) = std::fs::read_dir("/proc") {
            for entry in entries.flatten() {
                let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
                let Some(pid) = pid else { continue };
                seen += 1;
                // Numbers are given in order, and this process is the youngest.
                if pid > own {
                    strangers.push(pid.to_string());
                }
            }
        }
        let held = seen > 0 && strangers.is_empty();
        self.say("processes.host", Some(held), format!("{seen} processes are visible, none from before the cage"));
        for (pid, who) in [(1, "process 1"), (2, "the broker")] {
            let signal = Pid::from_raw(pid).map_or(Err(Errno::SRCH), rustix::process::test_kill_process);
            self.note("processes.signals", &format!("signal {who}"), signal);
        }
    }

    fn kernel(&mut self) {
        for (control, tried, call) in [
            ("kernel.namespaces", "make a user namespace", Forbidden::NewUserNamespace),
            ("kernel.namespaces", "make a mount namespace", Forbidden::NewMountNamespace),
            ("kernel.namespaces", "enter a namespace", Forbidden::EnterNamespace),
            ("kernel.mount", "copy a mount", Forbidden::CopyMount),
            ("kernel.ptrace", "trace process 1", Forbidden::Trace(1)),
            ("kernel.ptrace", "trace the broker", Forbidden::Trace(2)),
            ("kernel.ptrace", "read the broker's memory", Forbidden::ReadMemory(2)),
            ("kernel.surface", "io_uring_setup", Forbidden::IoUring),
            ("kernel.surface", "bpf", Forbidden::Bpf),
            ("kernel.surface", "perf_event_open", Forbidden::Perf),
            ("kernel.surface", "keyctl", Forbidden::Keyring),
            ("kernel.surface", "userfaultfd", Forbidden::UserFault),
            ("kernel.privileges", "setuid(0)", Forbidden::BecomeRoot),
        ] {
            self.note(control, tried, attempt(call));
        }
        let mounted = rustix::mount::mount("creel", "/tmp", "tmpfs", rustix::mount::MountFlags::empty(), None);
        self.note("kernel.mount", "mount over `/tmp`", mounted);
        let broker = rustix::fs::openat(CWD, "/proc/2/mem", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        self.note("kernel.ptrace", "open the broker's memory file", broker);
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let none = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.is_some_and(|value| value.trim().chars().all(|digit| digit == '0'))
        };
        let (effective, permitted) = (none("CapEff:"), none("CapPrm:"));
        let no_new =
            status.lines().any(|line| line.strip_prefix("NoNewPrivs:").is_some_and(|value| value.trim() == "1"));
        let detail = format!(
            "capabilities: {}, no_new_privs: {}",
            if effective && permitted { "none" } else { "some" },
            u8::from(no_new)
        );
        self.say("kernel.privileges", Some(effective && permitted && no_new), detail);
    }

    fn sockets(&mut self) {
        // Of netlink, what lists the cage's own network devices is there: programs ask for it at their start.
        for (tried, family, kind, protocol) in [
            ("netfilter", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER),
            ("socket diagnosis", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_SOCK_DIAG),
            ("vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0),
            ("packet", libc::AF_PACKET, libc::SOCK_RAW, 0),
            ("raw IP", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
            ("unix datagram", libc::AF_UNIX, libc::SOCK_DGRAM, 0),
        ] {
            self.note("kernel.sockets", &format!("{tried} socket"), attempt(Forbidden::Socket(family, kind, protocol)));
        }
        let name = std::os::unix::net::SocketAddr::from_abstract_name(&self.set.abstract_socket);
        let reached = name.and_then(|name| UnixStream::connect_addr(&name));
        self.note("ipc.abstract", "connect to the supervisor's abstract socket", reached);
        if self.set.sockets.is_empty() {
            self.nothing("ipc.sockets", "none of the well-known sockets exists on this machine");
        }
        for path in &self.set.sockets {
            self.note("ipc.sockets", &format!("connect to `{path}`"), UnixStream::connect(path));
        }
        let short = Duration::from_millis(200);
        match self.set.port {
            Some(port) => {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                self.note(
                    "network.loopback",
                    "connect to the supervisor on the host's 127.0.0.1",
                    TcpStream::connect_timeout(&address, short),
                );
            }
            None => self.nothing("network.loopback", "the supervisor could not listen"),
        }
        // A documentation address: nobody answers there, and without a route the answer comes at once.
        let address = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 443));
        self.note("network.outside", "connect to 192.0.2.1", TcpStream::connect_timeout(&address, short));
    }

    fn seals(&mut self) {
        let mut tried = 0_usize;
        for root in &self.set.roots {
            for Sealed { components, file, below } in &self.set.seals {
                // A seal with a folder of its own is tried in that folder.
                let root = match below {
                    Some(below) if within(below, root) => below,
                    Some(_) => continue,
                    None => root,
                };
                if tried >= MAX_OBJECTS && !self.set.all {
                    break;
                }
                let Some((last, parents)) = components.split_last() else { continue };
                let name = |component: &String| component.replace('*', "creel-probe");
                let parent: Vec<String> = parents.iter().map(name).collect();
                let parent = [std::slice::from_ref(root), parent.as_slice()].concat().join("/");
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let Ok(parent) = rustix::fs::openat(CWD, parent.as_str(), flags, Mode::empty()) else { continue };
                let last = name(last);
                let shown = components.join("/");
                tried += 1;
                let exists = rustix::fs::statat(&parent, last.as_str(), AtFlags::SYMLINK_NOFOLLOW);
                match exists {
                    Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                        let inside = format!("{last}/creel-probe");
                        self.make(&parent, &inside, &format!("make a file in sealed `{shown}`"));
                    }
                    Ok(_) => {
                        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
                        let opened = rustix::fs::openat(&parent, last.as_str(), flags, Mode::empty());
                        self.note("seals.existing", &format!("open sealed `{shown}` for writing"), opened);
                        let gone = rustix::fs::renameat(&parent, last.as_str(), &parent, "creel-probe");
                        if gone.is_ok() {
                            let _ = rustix::fs::renameat(&parent, "creel-probe", &parent, last.as_str());
                        }
                        self.note("seals.existing", &format!("rename sealed `{shown}` away"), gone);
                    }
                    Err(_) if *file => self.make(&parent, &last, &format!("make sealed `{shown}`")),
                    Err(_) => self.link(&parent, &last, &shown),
                }
            }
        }
        if tried == 0 {
            self.nothing("seals.names", "no sealed name can stand in what may be written");
        }
    }

    fn make(&mut self, parent: &rustix::fd::OwnedFd, name: &str, tried: &str) {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(parent, name, flags, Mode::RUSR);
        if made.is_ok() {
            let _ = rustix::fs::unlinkat(parent, name, AtFlags::empty());
        }
        self.note("seals.names", tried, made);
    }

    /// A sealed folder that does not exist may be made (and is sealed then), but not by a link to elsewhere.
    fn link(&mut self, parent: &rustix::fd::OwnedFd, name: &str, shown: &str) {
        let made = rustix::fs::symlinkat("/tmp", parent, name);
        if made.is_ok() {
            let _ = rustix::fs::unlinkat(parent, name, AtFlags::empty());
        }
        self.note("seals.names", &format!("make sealed `{shown}` a link"), made);
    }
}

/// Whether a descriptor of this process ends when a program is started.
fn closes_on_exec(number: i32) -> bool {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).map(str::trim);
    let flags = flags.and_then(|octal| u32::from_str_radix(octal, 8).ok());
    // Gone by now: it was the one that this very look had opened.
    flags.is_none_or(|flags| flags & libc::O_CLOEXEC.cast_unsigned() != 0)
}

/// The usual name of an error, which is shorter and better known than its sentence.
fn name_of(number: i32) -> String {
    let errno = Errno::from_raw_os_error(number);
    for (known, name) in [
        (Errno::PERM, "EPERM"),
        (Errno::NOENT, "ENOENT"),
        (Errno::SRCH, "ESRCH"),
        (Errno::BADF, "EBADF"),
        (Errno::ACCESS, "EACCES"),
        (Errno::BUSY, "EBUSY"),
        (Errno::INVAL, "EINVAL"),
        (Errno::ROFS, "EROFS"),
        (Errno::NOSYS, "ENOSYS"),
        (Errno::AFNOSUPPORT, "EAFNOSUPPORT"),
        (Errno::PROTONOSUPPORT, "EPROTONOSUPPORT"),
        (Errno::CONNREFUSED, "ECONNREFUSED"),
        (Errno::NETUNREACH, "ENETUNREACH"),
        (Errno::XDEV, "EXDEV"),
    ] {
        if errno == known {
            return name.to_owned();
        }
    }
    errno.to_string()
}
