//! This machine and account to what a cage could hold here, found out by trying.
//!
//! Every line is a real attempt in a child that ends at once; nothing is read from a version number. The one fact a
//! newcomer gets wrong: the answer is for the asking account and program. Another account, a service with fewer rights,
//! or a program at another path may get another one.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{PidfdFlags, Signal, WaitOptions};
use rustix::time::Timespec;
use serde::{Deserialize, Serialize};

use crate::channel;
use crate::file_rules;
use crate::filter::{self, FilterSpec};
use crate::sys::mount::{self, Attributes, FsOption};
use crate::sys::process::{self, Fork};

/// How long one child may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Stable id, for example `namespaces`, `files.rules`.
    pub id: String,
    /// What it is for, in plain words.
    pub purpose: String,
    /// It works here.
    pub works: bool,
    /// No cage is started without it.
    pub needed: bool,
    /// What was tried and what came back.
    pub evidence: String,
    /// What to change, where something can be changed; else empty.
    pub fix: String,
}

/// Tries everything, in a few milliseconds. The caller must have one thread.
#[must_use]
pub fn examine() -> Vec<Trial> {
    let _ = OUTER_IDS.set((rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()));
    let mut trials = match in_child(Kind::Namespaces, inside_namespaces) {
        Ok(trials) => trials,
        Err(error) => vec![namespaces(Err(error))],
    };
    let plain = in_child(Kind::Plain, without_namespaces);
    trials.extend(plain.unwrap_or_else(|error| {
        vec![trial("filter", FILTER, true, &Err::<(), _>(error), "a kernel with system call filters (5.19 or newer)")]
    }));
    trials.push(delegated_group());
    trials
}

const NAMESPACES: &str = "a root, processes and a network of its own";
const FILTER: &str = "holding the kernel's surface, and carrying out calls that make names";

enum Kind {
    Namespaces,
    Plain,
}

fn in_child(kind: Kind, tried: fn() -> Vec<Trial>) -> io::Result<Vec<Trial>> {
    let (here, there) = channel::pair()?;
    let fork = match kind {
        Kind::Namespaces => process::clone_into_namespaces()?,
        Kind::Plain => process::fork()?,
    };
    let child = match fork {
        Fork::Child => {
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            let sent = channel::send(&there, &tried(), &[], SendFlags::empty());
            process::exit_now(i32::from(sent.is_err()));
        }
        Fork::Parent(child) => child,
    };
    drop(there);
    let answer = wait_for(&here);
    let _ = rustix::process::kill_process(child, Signal::KILL);
    let _ = rustix::process::waitpid(Some(child), WaitOptions::empty());
    answer
}

fn wait_for(here: &OwnedFd) -> io::Result<Vec<Trial>> {
    let until = Instant::now() + PATIENCE;
    let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).ok();
    poll(&mut [PollFd::new(here, PollFlags::IN)], left.as_ref())?;
    let got = channel::receive::<Vec<Trial>>(here, RecvFlags::DONTWAIT)?;
    got.map(|got| got.message).ok_or_else(|| io::Error::other("the trial broke off"))
}

fn trial<T>(id: &str, purpose: &str, needed: bool, result: &io::Result<T>, fix: &str) -> Trial {
    let (works, evidence) = match result {
        Ok(_) => (true, "tried, and it works".to_owned()),
        Err(error) => (false, error.to_string()),
    };
    let fix = if works { String::new() } else { fix.to_owned() };
    Trial { id: id.to_owned(), purpose: purpose.to_owned(), works, needed, evidence, fix }
}

fn namespaces(result: io::Result<()>) -> Trial {
    let setting = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let zero = |path: &str| setting(path).as_deref() == Some("0");
    let fix = if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        "install the AppArmor profile of creel's packages (packaging/apparmor/creel); it lets this program make them"
    } else if zero("/proc/sys/kernel/unprivileged_userns_clone") {
        "let the administrator set `sysctl kernel.unprivileged_userns_clone=1`"
    } else if zero("/proc/sys/user/max_user_namespaces") {
        "let the administrator raise `sysctl user.max_user_namespaces`"
    } else {
        "this process may be in a container or a cage that forbids them; start it outside"
    };
    trial("namespaces", NAMESPACES, true, &result, fix)
}

/// Runs as process 1 of new namespaces.
fn inside_namespaces() -> Vec<Trial> {
    // In the new namespace the account's own number cannot be asked any more.
    let mapped = crate::init::map_ids(OUTER_IDS.get().copied().unwrap_or_default());
    let mut trials = vec![namespaces(mapped)];
    let plain = Attributes::NO_SET_ID.and(Attributes::NO_DEVICES);
    let mut add = |id: &str, purpose: &str, needed: bool, result: io::Result<()>, fix: &str| {
        trials.push(trial(id, purpose, needed, &result, fix));
    };
    let root = mount::new_file_system(c"tmpfs", &[FsOption::Text(c"size", c"1m")], plain);
    add("root", "a root built from nothing", true, root.map(drop), "a kernel of version 5.12 or newer");
    let proc = mount::new_file_system(c"proc", &[], plain.and(Attributes::NO_EXEC));
    add(
        "proc",
        "processes outside are not visible",
        true,
        proc.map(drop),
        "in a container: mount its `/proc` unmasked",
    );
    let terminal = mount::new_file_system(c"devpts", &[FsOption::Flag(c"newinstance")], Attributes::NO_SET_ID);
    add("terminals", "terminals of the cage's own", true, terminal.map(drop), "a kernel with devpts");
    let copied = crate::root::resolve::open_without_links("/")
        .map_err(io::Error::from)
        .and_then(|root| mount::copy_tree(root.as_fd()))
        .and_then(|tree| mount::restrict(tree.as_fd(), plain.and(Attributes::READ_ONLY)));
    add("binds", "granted files at their own paths, and seals", true, copied, "a kernel of version 5.12 or newer");
    add("loopback", "servers that a command starts for itself", true, mount::loopback_up(), "a kernel with networking");
    let overlay = rustix::mount::fsopen("overlay", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC)
        .and_then(|context| rustix::mount::fsconfig_set_flag(&context, "userxattr"));
    let fix = "a kernel with overlayfs for accounts (5.11 or newer; `modprobe overlay` as root)";
    add("layers", "`creel run --review`", false, overlay.map_err(io::Error::from), fix);
    let keyring = process::new_session_keyring();
    add(
        "keyring",
        "no key of the session is in reach",
        false,
        keyring,
        "a kernel with keyrings; without any there is nothing to reach",
    );
    trials
}

/// The account's ids outside, which a process in a new user namespace cannot ask any more.
static OUTER_IDS: std::sync::OnceLock<(u32, u32)> = std::sync::OnceLock::new();

fn without_namespaces() -> Vec<Trial> {
    let mut trials = Vec::new();
    let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
        .and_then(|own| {
            let number = std::os::fd::AsRawFd::as_raw_fd(&own);
            rustix::process::pidfd_getfd(&own, number, rustix::process::PidfdGetfdFlags::empty())
        })
        .map_err(io::Error::from);
    let fix = "a kernel of version 5.6 or newer";
    trials.push(trial("descriptors", "carrying out connections for commands", true, &own, fix));
    let privileges = rustix::thread::set_no_new_privs(true).map_err(io::Error::from);
    trials.push(trial("privileges", "no program gains privileges", true, &privileges, ""));
    let rules = file_rules::apply_scopes();
    let version = rules.as_ref().copied().unwrap_or(0);
    let rules = match rules {
        Ok(0) => Err(io::Error::other("the kernel has no Landlock, or it is switched off")),
        other => other,
    };
    let fix = "a kernel with `landlock` in its list of security modules (`lsm=` on its command line)";
    let mut told = trial("files.rules", "grants hold a second time, independently of mounts", false, &rules, fix);
    if told.works {
        told.evidence = format!("Landlock, version {version} of its interface");
        // Scopes came with the sixth: without them a command can signal the broker, which ends the run.
        if version < 6 {
            told.evidence.push_str("; signals are not held by it before version 6");
        }
    }
    trials.push(told);
    let filter = filter::install(&FilterSpec::default());
    trials.push(trial(
        "filter",
        FILTER,
        true,
        &filter,
        "a kernel with system call filters (5.19 or newer), or start outside of a cage",
    ));
    trials
}

/// Whether this account may make control groups below its own: limits of a whole run instead of each process.
fn delegated_group() -> Trial {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).map(|path| format!("/sys/fs/cgroup{path}"));
    let tried = match path {
        None => Err(io::Error::other("the machine has no unified control groups")),
        Some(path) => {
            let folder =
                format!("{}/creel-doctor-{}", path.trim_end_matches('/'), rustix::process::getpid().as_raw_nonzero());
            std::fs::create_dir(&folder).and_then(|()| std::fs::remove_dir(&folder))
        }
    };
    let fix = "start it from a session of the service manager that is delegated: `systemd-run --user --scope`";
    trial("groups", "counting memory of a whole run; without it limits are for each process", false, &tried, fix)
}

/// What the machine can hold, in one sentence.
#[must_use]
pub fn verdict(trials: &[Trial]) -> &'static str {
    if trials.iter().any(|trial| trial.needed && !trial.works) {
        "cages cannot be started here: what is needed is missing, and nothing weaker is started in their place"
    } else if trials.iter().any(|trial| trial.id == "files.rules" && !trial.works) {
        "cages hold by mounts and filter, without the second layer; only profiles that say `degrade = \"declare\"` start"
    } else {
        "cages hold here with every layer"
    }
}
