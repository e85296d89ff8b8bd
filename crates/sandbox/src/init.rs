//! Process 1 of a cage: builds the root, starts the broker, reaps what is left over, and ends everything with itself.
//!
//! It keeps its capabilities over the cage's namespaces and no file rules, because seals are mounts; nothing that the
//! command says ever reaches it. The one fact a newcomer gets wrong: its end is the cage's end. The kernel kills every
//! process of a pid namespace whose first process ends, so "kill process 1" is all there is to stopping a cage.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use creel_model::cage::FileAccess;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal, WaitOptions};

use crate::channel;
use crate::root::build::{Built, Failed, Step as _, build};
use crate::root::layout::What;
use crate::root::resolve::open_without_links;
use crate::seal::{Root, Scanned, SealSet};
use crate::setup::{Ends, FromCage, Setup};
use crate::sys::mount::{self, Attributes};
use crate::sys::process::{self, Fork};
use crate::warden;

/// The life of process 1. It begins in the new namespaces with a copy of the supervisor's memory.
pub(crate) fn run(setup: &Setup, ends: Ends) -> ! {
    let gate = ends.gate.as_fd();
    let prepared = prepare(setup, &ends);
    let (built, seals, scanned) = match prepared {
        Ok(prepared) => prepared,
        Err(failed) => {
            let _ = channel::send(gate, &FromCage::Failed(failed.to_string()), &[], SendFlags::empty());
            process::exit_now(1);
        }
    };
    let child = match process::fork() {
        Ok(Fork::Child) => warden::run(setup, ends, seals, scanned),
        Ok(Fork::Parent(child)) => child,
        Err(error) => {
            let _ = channel::send(gate, &crate::setup::failed("start the broker", &error), &[], SendFlags::empty());
            process::exit_now(1);
        }
    };
    drop((seals, scanned));
    // This waits for a grace period of the kernel; meanwhile the broker gets ready. The command waits for both.
    let told = match built.forget_host() {
        Ok(()) => channel::send(gate, &FromCage::HostForgotten, &[], SendFlags::empty()),
        Err(failed) => channel::send(gate, &FromCage::Failed(failed.to_string()), &[], SendFlags::empty())
            .and(Err(io::ErrorKind::Other.into())),
    };
    if told.is_err() {
        process::exit_now(1);
    }
    let Ends { life, gate, orders, events } = ends;
    drop((gate, orders, events));
    let _ = stand_still();
    let _ = rustix::thread::set_name(c"creel-cage");
    let _ = reap(&life, child);
    process::exit_now(1)
}

fn prepare(setup: &Setup, ends: &Ends) -> Result<(Built, SealSet, Scanned), Failed> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).step("tie the cage to its supervisor")?;
    rustix::process::setsid().step("lead a session")?;
    process::close_all_but(&[ends.gate.as_fd(), ends.life.as_fd(), ends.orders.as_fd(), ends.events.as_fd()]);
    map_ids(setup.ids).step("map the account")?;
    mount::loopback_up().step("set up the loopback device")?;
    match process::new_session_keyring() {
        // A kernel without keyrings has none that could be reached.
        Err(error) if error.raw_os_error() != Some(Errno::NOSYS.raw_os_error()) => {
            return Err(error).step("leave the session keyring");
        }
        _ => {}
    }
    for port in &setup.ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).step("listen on a forwarded port")?;
        channel::send(&ends.gate, &FromCage::Port(*port), &[listener.as_fd()], SendFlags::empty())
            .step("hand out a forwarded port")?;
    }
    let layer = setup.layer.as_ref().map(|layer| layer.mount()).transpose().step("mount the workspace's layer")?;
    rustix::process::umask(Mode::empty());
    let built = build(&setup.layout, setup.limits.temporary_bytes, layer)?;
    rustix::process::chdir(c"/").step("enter the new root")?;
    let (seals, scanned) = seal(setup)?;
    // From here on nobody of this account may look into this process or the broker, and nothing gains rights by exec.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).step("close the memory")?;
    rustix::thread::set_no_new_privs(true).step("give up new privileges")?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none).step("forbid core files")?;
    Ok((built, seals, scanned))
}

/// One account and one group, mapped to themselves.
pub(crate) fn map_ids((uid, gid): (u32, u32)) -> io::Result<()> {
    let write = |file: &str, text: &str| -> io::Result<()> {
        std::fs::OpenOptions::new().write(true).open(file)?.write_all(text.as_bytes())
    };
    write("/proc/self/uid_map", &format!("{uid} {uid} 1"))?;
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/gid_map", &format!("{gid} {gid} 1"))
}

/// Binds what is sealed and exists read-only onto itself.
fn seal(setup: &Setup) -> Result<(SealSet, Scanned), Failed> {
    let mut seals = SealSet::new(&setup.seals);
    let mut opened: Vec<(PathBuf, OwnedFd)> = Vec::new();
    for path in writable_roots(setup) {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let folder = open_without_links(&path).on("open", &path)?;
        // A place holder cannot be listed; a folder is opened again through it.
        let folder = match rustix::fs::openat(&folder, c".", flags | OFlags::DIRECTORY, Mode::empty()) {
            Ok(listable) => listable,
            Err(Errno::NOTDIR) => folder,
            Err(errno) => return Err(errno).on("open", &path),
        };
        opened.push((PathBuf::from(path), folder));
    }
    let roots: Vec<Root<'_>> =
        opened.iter().map(|(path, folder)| Root { descriptor: folder.as_fd(), path: path.as_path() }).collect();
    let scanned = seals.scan(&roots).step("look for what is sealed")?;
    for found in &scanned.found {
        let object = found.path.display().to_string();
        let tree = mount::copy_tree(found.object.as_fd()).on("seal", &object)?;
        mount::restrict(tree.as_fd(), Attributes::READ_ONLY).on("seal", &object)?;
        mount::attach(tree.as_fd(), found.object.as_fd()).on("seal", &object)?;
    }
    Ok((seals, scanned))
}

/// The parts of the host that may be written, as paths in the cage.
pub(crate) fn writable_roots(setup: &Setup) -> impl Iterator<Item = String> + '_ {
    setup.layout.pieces.iter().filter_map(|piece| match &piece.what {
        What::Host { access: FileAccess::Write, directory: true, .. } | What::Layer => Some(piece.at.clone()),
        _ => None,
    })
}

/// Granted files with write access: a rename onto one replaces its content.
pub(crate) fn replaceable(setup: &Setup) -> Vec<PathBuf> {
    let file = |what: &What| matches!(what, What::Host { access: FileAccess::Write, directory: false, .. });
    setup.layout.pieces.iter().filter(|piece| file(&piece.what)).map(|piece| Path::new(&piece.at).to_owned()).collect()
}

/// Lets go of the caller's standard descriptors, so that pipes end when the command's last process does.
pub(crate) fn stand_still() -> io::Result<()> {
    let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// Reaps whatever is left to process 1, until the broker or the supervisor ends.
fn reap(life: &OwnedFd, broker: rustix::process::Pid) -> io::Result<()> {
    let signals = process::signals(&[libc::SIGCHLD])?;
    loop {
        while let Some((pid, status)) = rustix::process::wait(WaitOptions::NOHANG)? {
            if pid == broker && (status.exited() || status.signaled()) {
                return Ok(());
            }
        }
        let mut ready = [PollFd::new(&signals, PollFlags::IN), PollFd::new(life, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let [_, supervisor] = &ready;
        if !supervisor.revents().is_empty() {
            return Ok(());
        }
        while process::next_signal(signals.as_fd()).is_some() {}
    }
}
