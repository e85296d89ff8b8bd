//! A plan and a command to a cage that is built, sealed and probed, with the command held back until [`Prepared::go`].
//!
//! The process that calls this becomes the supervisor: it must have one thread, and the cage ends with it. The one fact
//! a newcomer gets wrong: between [`Launch::prepare`] and [`Prepared::go`] nothing of the command has run, so dropping
//! a [`Prepared`] undoes everything.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::time::{Duration, Instant};

use creel_model::ProcessKey;
use creel_model::cage::{CagePlan, Control, Degrade, FileAccess, FileRule, SealKind, Standing};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use rustix::time::Timespec;

use crate::cage::Cage;
use crate::channel;
use crate::controls;
use crate::environment;
use crate::forward::Forwarder;
use crate::init;
use crate::probe::{Outcome, ProbeSet, Probes, Sealed};
use crate::review::Layer;
use crate::root::layout::{self, What, lay_out, within};
use crate::seal;
use crate::setup::{Command, Ends, FromCage, Setup};
use crate::sys::process::{self, Fork};
use crate::terminal;

/// Longest time that building and probing may take; walking a huge workspace for seals is most of it.
const PREPARE: Duration = Duration::from_secs(120);
/// Places of the host that most plans do not grant.
const OUTSIDE: [&str; 6] = ["/root", "/boot", "/srv", "/var/lib", "/var/log", "/sys/kernel"];
/// Names in a home folder that are worth stealing.
const HOME: [&str; 10] = [
    ".ssh",
    ".gnupg",
    ".aws",
    ".netrc",
    ".bash_history",
    ".docker",
    ".kube",
    ".mozilla",
    ".local/share/keyrings",
    ".git-credentials",
];
/// Well-known unix sockets.
const SOCKETS: [&str; 5] = [
    "/run/dbus/system_bus_socket",
    "/run/docker.sock",
    "/run/systemd/private",
    "/run/creel/control.sock",
    "/tmp/.X11-unix/X0",
];

/// A folder of sockets on the host and its place in the cage; everything in it may be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketFolder {
    /// Absolute path on the host.
    pub host: String,
    /// Absolute path in the cage.
    pub cage: String,
}

/// What is to be started.
#[derive(Debug)]
pub struct Launch {
    /// Everything it may reach.
    pub plan: CagePlan,
    /// The program's name, as a shell would take it, and its arguments.
    pub command: Vec<OsString>,
    /// The folder it starts in, as an absolute path in the cage.
    pub folder: OsString,
    /// The caller's whole environment; the plan says what of it is passed.
    pub environment: Vec<(OsString, OsString)>,
    /// The account's home folder, which is an empty one in the cage but for what is granted in it.
    pub home: String,
    /// The run's hook socket.
    pub hook: Option<SocketFolder>,
    /// The copy-on-write layer, where the plan asks for one.
    pub layer: Option<Layer>,
    /// How much is tried before the start.
    pub probes: Probes,
}

/// Why there is no cage.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Root is not confined by what holds an account.
    #[error("a cage is started from an ordinary account, not as root")]
    Root,
    /// The command or the plan has a form that cannot be carried out.
    #[error("{0}")]
    Form(String),
    /// A line of the plan cannot be carried out.
    #[error("the plan cannot be carried out: {0}")]
    Plan(String),
    /// This host does not allow user namespaces to this program.
    #[error("this machine does not allow this program to make user namespaces ({0})")]
    Namespaces(io::Error),
    /// A step inside the cage failed.
    #[error("the cage could not be built: {0}")]
    Build(String),
    /// A probe got through, or a part is missing that the plan does not do without.
    #[error("the cage does not hold: {}", .0.iter().map(|control| format!("{} ({})", control.id, control.evidence)).collect::<Vec<_>>().join(", "))]
    NotHeld(Vec<Control>),
    /// The program could not be executed.
    #[error("the program cannot be executed in the cage: {0}")]
    Execute(io::Error),
    /// Anything else of the system.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// A cage that stands; its command waits.
#[derive(Debug)]
pub struct Prepared {
    cage: Cage,
    gate: OwnedFd,
    agent: ProcessKey,
    controls: Vec<Control>,
}

impl Launch {
    /// Builds, seals and probes the cage. Waits at most two minutes.
    ///
    /// # Errors
    /// [`LaunchError`]; nothing is left then.
    pub fn prepare(self) -> Result<Prepared, LaunchError> {
        if rustix::process::geteuid().is_root() || rustix::process::getuid().is_root() {
            return Err(LaunchError::Root);
        }
        let (setup, watched) = self.setup()?;
        let (gate, gate_in) = channel::pair()?;
        let (life, life_in) = channel::pair()?;
        let (orders, orders_in) = channel::pair()?;
        let (events, events_in) = channel::pair()?;
        rustix::net::sockopt::set_socket_passcred(&gate, true).map_err(io::Error::from)?;
        let terminal = watched.terminal;
        let init = match process::clone_into_namespaces() {
            Ok(Fork::Child) => {
                init::run(&setup, Ends { gate: gate_in, life: life_in, orders: orders_in, events: events_in })
            }
            Ok(Fork::Parent(pid)) => pid,
            Err(error) => return Err(LaunchError::Namespaces(error)),
        };
        drop((gate_in, life_in, orders_in, events_in));
        let first_terminal = setup.terminal.as_ref().map(|terminal| terminal.which);
        let mut cage = Cage::new(init, life, orders, events, self.plan.limits.seconds)?;
        let mut built = Built::default();
        let deadline = Instant::now() + PREPARE;
        while built.agent.is_none() || !built.host_forgotten {
            built.take(&gate, deadline)?;
        }
        let agent = built.agent.unwrap_or(init);
        let controls = controls::controls(&self.plan, &built.outcomes, built.file_rules, &setup.layout.left_out);
        let controls = self.judge(controls, &built)?;
        cage.connect(built.forwarder, built.master, terminal, first_terminal);
        Ok(Prepared { agent: key(agent)?, cage, gate, controls })
    }

    /// The plan, and the repository that the workspace is a worktree of: git works in a worktree only with both. It is
    /// added where it says itself that it has this worktree, and where no line of the plan says something else about it.
    fn with_repository(&self) -> (CagePlan, Option<String>) {
        let mut plan = self.plan.clone();
        match seal::common_folder(Path::new(&plan.workspace)) {
            Ok(None) => {}
            Ok(Some(common)) => {
                let path = common.path.display().to_string();
                let named = |rule: &&FileRule| Path::new(&path).starts_with(&rule.path);
                let closest = plan.files.iter().filter(named).max_by_key(|rule| rule.path.len());
                if closest.is_some_and(|rule| rule.path == path && rule.access == FileAccess::Write) {
                    return (plan, None);
                }
                if let Some(rule) = closest {
                    let line = format!("`{path}`: the workspace is its worktree, but `{}` is granted apart", rule.path);
                    return (plan, Some(line));
                }
                let source = "the workspace is a worktree of this repository".to_owned();
                plan.files.push(FileRule {
                    path,
                    access: FileAccess::Write,
                    optional: false,
                    initial: None,
                    make: false,
                    source,
                });
            }
            Err(error) => return (plan, Some(format!("the workspace's repository: {error}"))),
        }
        (plan, None)
    }

    fn setup(&self) -> Result<(Setup, Watched), LaunchError> {
        let (plan, without) = self.with_repository();
        let plan = &plan;
        if plan.version != creel_model::cage::CAGE_PLAN_VERSION {
            return Err(LaunchError::Form(format!("plans of version {} are not understood", plan.version)));
        }
        refuse_folders()?;
        let environment = environment::build(&plan.environment, &self.environment);
        let bytes: usize = environment.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
        if bytes > environment::MAX_BYTES {
            return Err(LaunchError::Form(format!("the environment has {bytes} bytes, more than are passed")));
        }
        let command = Command::new(&self.command, &environment, &self.folder)
            .ok_or_else(|| LaunchError::Form("there is no command, or a text of it holds a zero byte".to_owned()))?;
        let mut sockets: Vec<String> = plan.sockets.iter().map(|socket| socket.cage.clone()).collect();
        if let Some(hook) = &self.hook {
            sockets.push(format!("{}/hook.sock", hook.cage));
        }
        let mut layout = lay_out(plan, &self.home).map_err(|refused| LaunchError::Plan(refused.to_string()))?;
        if let Some(hook) = &self.hook {
            layout::add_folder(&mut layout, &hook.host, &hook.cage)
                .map_err(|refused| LaunchError::Plan(refused.to_string()))?;
        }
        layout.left_out.extend(without);
        let (probes, watched) = self.probes(&layout, &environment);
        let (terminal, own) = match terminal::of_caller() {
            Some((setup, own)) => (Some(setup), Some(own)),
            None => (None, None),
        };
        // Git runs what lies there in every repository of the account, and only the host knows where that is.
        let mut seals = plan.seals.clone();
        seals.extend(seal::hooks_seals(Path::new(&self.home))?);
        let umask = rustix::process::umask(Mode::empty());
        rustix::process::umask(umask);
        let setup = Setup {
            layer: self.layer.clone(),
            seals,
            programs: plan.programs.clone(),
            sockets,
            ports: plan.network.host_loopback_ports.iter().copied().collect(),
            limits: plan.limits.clone(),
            learn: plan.learn,
            command,
            terminal,
            umask,
            ids: (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()),
            probes,
            layout,
        };
        Ok((setup, Watched { terminal: own, ..watched }))
    }

    /// What there is to try, from what exists on this host.
    fn probes(&self, layout: &layout::Layout, environment: &[(OsString, OsString)]) -> (ProbeSet, Watched) {
        let plan = &self.plan;
        let granted = |path: &str| {
            layout.pieces.iter().any(|piece| {
                let host = matches!(piece.what, What::Host { .. } | What::Layer | What::Hollow | What::Scratch(_));
                host && (within(path, &piece.at) && piece.at != self.home || within(&piece.at, path))
            })
        };
        // In learning only refusals hold.
        let there = |path: &String| !plan.learn && !granted(path) && rustix::fs::lstat(path.as_str()).is_ok();
        let refused = |rule: &&FileRule| rule.access == FileAccess::Deny;
        let exists_inside = |path: &String| {
            rustix::fs::lstat(path.as_str()).is_ok()
                && layout.pieces.iter().any(|piece| piece.at == *path && piece.what == What::Denied)
        };
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok();
        let number = port.as_ref().and_then(|port| port.local_addr().ok()).map(|address| address.port());
        let abstract_socket = format!("creel-probe-{}", plan.run);
        let listener = SocketAddr::from_abstract_name(&abstract_socket).and_then(|name| UnixListener::bind_addr(&name));
        let granted_socket = |path: &str| plan.sockets.iter().any(|socket| socket.host == path || socket.cage == path);
        let uid = rustix::process::getuid().as_raw();
        let sockets = SOCKETS
            .map(str::to_owned)
            .into_iter()
            .chain([format!("/run/user/{uid}/bus"), format!("/run/user/{uid}/creel/control.sock")]);
        let set = ProbeSet {
            all: self.probes == Probes::All,
            outside: OUTSIDE.map(str::to_owned).into_iter().filter(there).collect(),
            home: HOME.map(|name| format!("{}/{name}", self.home)).into_iter().filter(there).collect(),
            denied: plan
                .files
                .iter()
                .filter(refused)
                .map(|rule| rule.path.clone())
                .filter(exists_inside)
                .take(16)
                .collect(),
            sockets: sockets.filter(|path| !granted_socket(path) && rustix::fs::lstat(path.as_str()).is_ok()).collect(),
            port: number.filter(|port| !plan.network.host_loopback_ports.contains(port)),
            abstract_socket,
            foreign_names: environment::foreign(&plan.environment, environment),
            roots: layout
                .pieces
                .iter()
                .filter(|piece| {
                    matches!(piece.what, What::Host { access: FileAccess::Write, directory: true, .. } | What::Layer)
                })
                .map(|piece| piece.at.clone())
                .collect(),
            seals: plan
                .seals
                .iter()
                .filter(|seal| seal.kind != SealKind::GitConfig)
                .map(|seal| Sealed {
                    components: seal.components.clone(),
                    file: seal.kind == SealKind::File,
                    below: seal.below.clone(),
                })
                .collect(),
        };
        (set, Watched { terminal: None, _port: port, _abstract_socket: listener.ok() })
    }

    /// Whether what was found suffices.
    fn judge(&self, mut controls: Vec<Control>, built: &Built) -> Result<Vec<Control>, LaunchError> {
        if built.outcomes.is_empty() {
            return Err(LaunchError::Build("the probes said nothing".to_owned()));
        }
        // A missing mechanism may be accepted by the profile; something that got through never is.
        if self.plan.degrade == Degrade::Declare {
            for control in controls.iter_mut().filter(|control| control.id == "files.rules") {
                if control.standing == Standing::NotHeld {
                    control.standing = Standing::Declared;
                }
            }
        }
        let failed: Vec<Control> =
            controls.iter().filter(|control| control.standing == Standing::NotHeld).cloned().collect();
        if failed.is_empty() { Ok(controls) } else { Err(LaunchError::NotHeld(failed)) }
    }
}

/// What the supervisor holds open while the probes run.
struct Watched {
    terminal: Option<OwnedFd>,
    _port: Option<TcpListener>,
    _abstract_socket: Option<UnixListener>,
}

/// What has come through the gate.
#[derive(Debug, Default)]
struct Built {
    forwarder: Forwarder,
    master: Option<OwnedFd>,
    outcomes: Vec<Outcome>,
    file_rules: u32,
    agent: Option<Pid>,
    host_forgotten: bool,
}

impl Built {
    fn take(&mut self, gate: &OwnedFd, deadline: Instant) -> Result<(), LaunchError> {
        wait(gate.as_fd(), deadline)?;
        let Some(got) = channel::receive::<FromCage>(gate, RecvFlags::empty())? else {
            return Err(LaunchError::Build("it ended before it stood".to_owned()));
        };
        let descriptor = got.descriptors.into_iter().next();
        match (got.message, descriptor) {
            (FromCage::Port(port), Some(listener)) => self.forwarder.add(port, listener)?,
            (FromCage::Terminal, Some(master)) => self.master = Some(master),
            (FromCage::HostForgotten, _) => self.host_forgotten = true,
            (FromCage::FileRules(version), _) => self.file_rules = version,
            (FromCage::Outcomes(outcomes), _) => self.outcomes = outcomes,
            (FromCage::Failed(why), _) => return Err(LaunchError::Build(why)),
            (FromCage::Ready, _) => {
                let sender = got.sender.and_then(Pid::from_raw);
                self.agent = Some(sender.ok_or_else(|| LaunchError::Build("the command has no number".to_owned()))?);
            }
            (message, _) => return Err(LaunchError::Build(format!("it said {message:?} out of turn"))),
        }
        Ok(())
    }
}

fn wait(fd: BorrowedFd<'_>, deadline: Instant) -> Result<(), LaunchError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(LaunchError::Build("it took too long".to_owned())),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(LaunchError::System(errno.into())),
        }
    }
}

/// A folder behind a standard descriptor would be a way out.
fn refuse_folders() -> Result<(), LaunchError> {
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rustix::fs::fstat(fd) else { continue };
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        let path = rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags.contains(rustix::fs::OFlags::PATH));
        if path || matches!(kind, rustix::fs::FileType::Directory | rustix::fs::FileType::BlockDevice) {
            return Err(LaunchError::Form("a standard descriptor is a folder or a disk".to_owned()));
        }
    }
    Ok(())
}

/// A process with its start time.
pub(crate) fn key(pid: Pid) -> io::Result<ProcessKey> {
    let number = pid.as_raw_nonzero().get();
    let stat = std::fs::read_to_string(format!("/proc/{number}/stat"))?;
    // The second field is the program's name in brackets and may hold anything, brackets too.
    let rest = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let start = rest.split_ascii_whitespace().nth(19).and_then(|field| field.parse().ok());
    let start_ticks = start.ok_or_else(|| io::Error::other("the process table has an unknown form"))?;
    Ok(ProcessKey { pid: number.cast_unsigned(), start_ticks })
}

impl Prepared {
    /// What was found out about the cage.
    #[must_use]
    pub fn controls(&self) -> &[Control] {
        &self.controls
    }

    /// Process 1 of the cage, in the numbering of this process.
    ///
    /// # Errors
    /// It has ended.
    pub fn init(&self) -> io::Result<ProcessKey> {
        key(self.cage.init())
    }

    /// The process that becomes the command: it is confined already and waits.
    #[must_use]
    pub fn agent(&self) -> ProcessKey {
        self.agent
    }

    /// Lets the command begin.
    ///
    /// # Errors
    /// [`LaunchError::Execute`] when the program is not there or may not be executed; the kernel's.
    pub fn go(mut self) -> Result<Cage, LaunchError> {
        self.cage.begin()?;
        rustix::io::write(&self.gate, b"!").map_err(io::Error::from)?;
        match channel::receive::<FromCage>(&self.gate, RecvFlags::empty())? {
            // The gate closes by itself when the program begins.
            None => Ok(self.cage),
            Some(got) => match got.message {
                FromCage::NotExecuted(number) => Err(LaunchError::Execute(io::Error::from_raw_os_error(number))),
                FromCage::Failed(why) => Err(LaunchError::Build(why)),
                message => Err(LaunchError::Build(format!("it said {message:?} out of turn"))),
            },
        }
    }
}

/// Kills process 1, and with it the cage, and waits until nothing is left.
pub(crate) fn end(init: Pid) {
    let _ = rustix::process::kill_process(init, Signal::KILL);
    loop {
        match rustix::process::waitpid(Some(init), WaitOptions::empty()) {
            Err(Errno::INTR) => {}
            _ => return,
        }
    }
}

/// A descriptor by which the end of a process is seen.
///
/// # Errors
/// The kernel's.
pub(crate) fn watch(pid: Pid) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}
