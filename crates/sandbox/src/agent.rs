//! A command before it is one: the last process that is still creel's code, in the finished cage.
//!
//! It puts the filter on itself, lets the probes run in a child of its own, and waits for its byte; then it becomes the
//! program. The one fact a newcomer gets wrong: everything that the command will not be able to do, this process cannot
//! do any more either from the filter on, so what it still needs (its descriptors) it must have by then.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use creel_model::cage::CageLimits;
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::channel;
use crate::file_rules;
use crate::filter::{self, FilterSpec};
use crate::probe::{self, ProbeSet};
use crate::setup::{Command, FromCage, Setup, failed};
use crate::sys::process;
use crate::warden;

/// Where programs are looked for when the environment does not say.
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";
/// Processes of the cage's own that count against its limit: process 1, the broker, and the one that runs probes.
const OWN_PROCESSES: u64 = 3;

/// What it starts with.
pub(crate) struct Start<'a> {
    /// Of the cage.
    pub(crate) setup: &'a Setup,
    /// What it becomes.
    pub(crate) command: &'a Command,
    /// To the supervisor.
    pub(crate) gate: BorrowedFd<'a>,
    /// Takes the filter's descriptor to the broker.
    pub(crate) listener: OwnedFd,
    /// Its terminal, and which standard descriptors it stands for.
    pub(crate) terminal: Option<(BorrowedFd<'a>, [bool; 3])>,
    /// Its standard descriptors, where they are not those of the process it was forked from.
    pub(crate) descriptors: Option<[BorrowedFd<'a>; 3]>,
    /// It leads a session of its own; else it is the foreground group of the terminal.
    pub(crate) leads_session: bool,
    /// What is tried first; nothing for further commands of a run.
    pub(crate) probes: Option<&'a ProbeSet>,
}

/// Becomes the command.
pub(crate) fn run(start: Start<'_>) -> ! {
    let gate = start.gate;
    match ready(&start) {
        Ok(()) => {}
        Err((step, error)) => {
            let _ = channel::send(gate, &failed(step, &error), &[], SendFlags::empty());
            process::exit_now(126);
        }
    }
    drop(start.listener);
    // A copy of creel's memory is waiting here; whoever may look into the account's processes may look into this one.
    // Without this the daemon could not see the namespaces that it is to confirm.
    if start.probes.is_some() && rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).is_err() {
        process::exit_now(126);
    }
    let mut byte = [0_u8];
    let told = channel::send(gate, &FromCage::Ready, &[], SendFlags::empty());
    if told.is_err() || !matches!(rustix::io::read(gate, &mut byte), Ok(1)) {
        process::exit_now(126);
    }
    let error = execute(start.command);
    let number = error.raw_os_error().unwrap_or_default();
    let _ = channel::send(gate, &FromCage::NotExecuted(number), &[], SendFlags::empty());
    process::exit_now(if number == Errno::NOENT.raw_os_error() { 127 } else { 126 })
}

type Broken = (&'static str, io::Error);

fn ready(start: &Start<'_>) -> Result<(), Broken> {
    fn at<T, E: Into<io::Error>>(step: &'static str, result: Result<T, E>) -> Result<T, Broken> {
        result.map_err(|error| (step, error.into()))
    }
    if start.leads_session {
        at("lead a session", rustix::process::setsid())?;
    } else {
        at("form a group", rustix::process::setpgid(None, None))?;
    }
    at("take the standard descriptors", standard(start))?;
    if let Some((slave, _)) = start.terminal {
        at("come to the foreground", rustix::termios::tcsetpgrp(slave, rustix::process::getpid()))?;
    }
    // The language's own start ignores this one.
    process::default_signals(&[libc::SIGPIPE]);
    process::default_signals(&warden::IGNORED);
    rustix::process::umask(start.setup.umask);
    limit(&start.setup.limits).map_err(|error| ("set the limits", error))?;
    at("enter the folder", rustix::process::chdir(start.command.folder.as_c_str()))?;
    no_capabilities().map_err(|error| ("give up capabilities", error))?;
    at("bind the command to its scopes", file_rules::apply_scopes())?;
    at("close what is not the command's", process::close_on_exec())?;
    let listener = at("install the filter", filter::install(&FilterSpec { learn: start.setup.learn }))?;
    let sent = channel::send(&start.listener, &(), &[listener.as_fd()], SendFlags::empty());
    at("hand over the filter", sent)?;
    drop(listener);
    if let Some(set) = start.probes {
        // The broker reads the arguments of calls out of this process; as long as it is closed like the supervisor, such a
        // call fails before anything is judged, and a probe would take that for a seal that holds.
        at("open the memory to the broker", rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable))?;
        at("try the cage", probe::run(set, start.gate))?;
    }
    Ok(())
}

fn standard(start: &Start<'_>) -> rustix::io::Result<()> {
    let put = |from: BorrowedFd<'_>, index: usize| match index {
        0 => rustix::stdio::dup2_stdin(from),
        1 => rustix::stdio::dup2_stdout(from),
        _ => rustix::stdio::dup2_stderr(from),
    };
    if let Some(descriptors) = start.descriptors {
        for (index, from) in descriptors.into_iter().enumerate() {
            put(from, index)?;
        }
        if start.leads_session && rustix::termios::isatty(rustix::stdio::stdin()) {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
    }
    if let Some((slave, which)) = start.terminal {
        for (index, _) in which.iter().enumerate().filter(|(_, terminal)| **terminal) {
            put(slave, index)?;
        }
    }
    Ok(())
}

/// Limits of each process; that on processes counts all of the cage, because they are counted per user namespace.
fn limit(limits: &CageLimits) -> io::Result<()> {
    let set = |resource: Resource, value: Option<u64>| -> io::Result<()> {
        let Some(value) = value else { return Ok(()) };
        let old = rustix::process::getrlimit(resource).maximum;
        let value = old.map_or(value, |old| old.min(value));
        Ok(rustix::process::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?)
    };
    set(Resource::Nproc, limits.processes.map(|count| count.saturating_add(OWN_PROCESSES)))?;
    set(Resource::Data, limits.memory_bytes)?;
    set(Resource::Nofile, limits.open_files)?;
    set(Resource::Fsize, limits.file_bytes)
}

fn no_capabilities() -> io::Result<()> {
    let empty = CapabilitySet::empty();
    rustix::thread::clear_ambient_capability_set()?;
    rustix::thread::set_capabilities(None, CapabilitySets { effective: empty, permitted: empty, inheritable: empty })?;
    Ok(())
}

/// Executes as a shell would: by path, or looked for in `PATH`; a script without a first line goes to the shell.
fn execute(command: &Command) -> io::Error {
    let Some(name) = command.arguments.first() else { return Errno::NOENT.into() };
    if name.as_bytes().contains(&b'/') {
        return one(name, command);
    }
    let path = command.environment.iter().find_map(|text| text.as_bytes().strip_prefix(b"PATH="));
    let mut refused = None;
    for folder in path.unwrap_or(DEFAULT_PATH).split(|byte| *byte == b':') {
        let mut whole = if folder.is_empty() { b".".to_vec() } else { folder.to_vec() };
        whole.push(b'/');
        whole.extend_from_slice(name.as_bytes());
        let Ok(whole) = CString::new(whole) else { continue };
        let error = one(&whole, command);
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR) => {}
            Some(Errno::ACCESS) => refused = Some(error),
            _ => return error,
        }
    }
    refused.unwrap_or_else(|| Errno::NOENT.into())
}

fn one(program: &CStr, command: &Command) -> io::Error {
    let error = process::exec(program, &command.arguments, &command.environment);
    if error.raw_os_error() != Some(libc::ENOEXEC) {
        return error;
    }
    let mut arguments = vec![c"sh".to_owned(), program.to_owned()];
    arguments.extend(command.arguments.iter().skip(1).cloned());
    process::exec(c"/bin/sh", &arguments, &command.environment)
}
