//! The broker's process: starts commands, drives the broker that carries out their mediated calls, and tells the
//! supervisor how they end.
//!
//! It lives under the plan's file rules with one capability, the one needed to read the memory of commands. The one fact
//! a newcomer gets wrong: commands are its children, so their exit codes are seen here and nowhere else, and it is the
//! session leader of their terminal so that they can be stopped and continued like any foreground job.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::termios::{OptionalActions, Winsize};
use rustix::thread::{CapabilitySet, CapabilitySets};
use rustix::time::Timespec;

use crate::agent::{self, Start};
use crate::broker::{Broker, BrokerSetup};
use crate::channel;
use crate::file_rules;
use crate::init::{replaceable, stand_still, writable_roots};
use crate::seal::{Scanned, SealSet};
use crate::setup::{Command, Ends, FromCage, Order, Report, Setup, failed};
use crate::sys::process::{self, Fork};
use crate::terminal;

/// Number of the first command.
pub(crate) const FIRST: u32 = 0;
/// Most commands at once in one run.
const MAX_COMMANDS: usize = 64;

/// Signals that mean nothing to the broker, and something to commands.
pub(crate) const IGNORED: [i32; 10] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
];

/// The life of the broker's process.
pub(crate) fn run(setup: &Setup, ends: Ends, seals: SealSet, scanned: Scanned) -> ! {
    let Ends { gate, life, orders, events } = ends;
    drop(life);
    let mut warden = match begin(setup, &gate, orders, events, seals, scanned) {
        Ok(warden) => warden,
        Err((step, error)) => {
            let _ = channel::send(&gate, &failed(step, &error), &[], SendFlags::empty());
            process::exit_now(1);
        }
    };
    drop(gate);
    let _ = warden.serve();
    process::exit_now(1)
}

type Broken = (&'static str, io::Error);

fn begin<'a>(
    setup: &'a Setup,
    gate: &OwnedFd,
    orders: OwnedFd,
    events: OwnedFd,
    seals: SealSet,
    scanned: Scanned,
) -> Result<Warden<'a>, Broken> {
    fn at<T>(step: &'static str, result: io::Result<T>) -> Result<T, Broken> {
        result.map_err(|error| (step, error))
    }
    let _ = rustix::thread::set_name(c"creel-broker");
    // What a terminal sends to its session must not end the broker, nor stop it.
    process::ignore_signals(&IGNORED);
    let children = at("watch for ends", process::signals(&[libc::SIGCHLD]))?;
    let mut slave = None;
    if let Some(wanted) = &setup.terminal {
        let (master, side) = at("open a terminal", terminal::open())?;
        let copied = rustix::termios::tcsetattr(&side, OptionalActions::Now, &wanted.modes)
            .and_then(|()| rustix::termios::tcsetwinsize(&side, wanted.size));
        at("set up the terminal", copied.map_err(io::Error::from))?;
        at("lead a session", rustix::process::setsid().map_err(io::Error::from))?;
        at("own the terminal", rustix::process::ioctl_tiocsctty(&side).map_err(io::Error::from))?;
        let sent = channel::send(gate, &FromCage::Terminal, &[master.as_fd()], SendFlags::empty());
        at("hand out the terminal", sent)?;
        slave = Some(side);
    }
    let held = at("bind the broker to the file rules", file_rules::apply(&setup.layout, &setup.programs))?;
    at("tell of the file rules", channel::send(gate, &FromCage::FileRules(held), &[], SendFlags::empty()))?;
    let one = CapabilitySet::SYS_PTRACE;
    let sets = CapabilitySets { effective: one, permitted: one, inheritable: CapabilitySet::empty() };
    at("give up capabilities", rustix::thread::set_capabilities(None, sets).map_err(io::Error::from))?;
    let broker = BrokerSetup {
        seals,
        scanned,
        roots: writable_roots(setup).map(PathBuf::from).collect(),
        replaceable: replaceable(setup),
        sockets: setup.sockets.iter().map(PathBuf::from).collect(),
        events,
        learn: setup.learn,
    };
    let broker = at("start the broker", Broker::new(broker))?;
    let mut warden = Warden { setup, orders, children, broker, slave, commands: Vec::new() };
    at("start the command", warden.start(FIRST, &setup.command, gate, None))?;
    at("let go of the caller's descriptors", stand_still())?;
    Ok(warden)
}

/// A command that runs.
#[derive(Clone, Copy, Debug)]
struct Running {
    id: u32,
    pid: Pid,
}

struct Warden<'a> {
    setup: &'a Setup,
    orders: OwnedFd,
    children: OwnedFd,
    broker: Broker,
    /// The first command's terminal.
    slave: Option<OwnedFd>,
    commands: Vec<Running>,
}

impl Warden<'_> {
    /// Forks a command and takes over its listener. `descriptors` are its own standard ones where it has some.
    fn start(
        &mut self,
        id: u32,
        command: &Command,
        gate: &OwnedFd,
        descriptors: Option<[BorrowedFd<'_>; 3]>,
    ) -> io::Result<()> {
        let (here, there) = channel::pair()?;
        match process::fork()? {
            Fork::Child => {
                drop(here);
                let first = id == FIRST;
                let slave = self.slave.as_ref().zip(self.setup.terminal.as_ref()).filter(|_| first);
                let start = Start {
                    setup: self.setup,
                    command,
                    gate: gate.as_fd(),
                    listener: there,
                    terminal: slave.map(|(slave, terminal)| (slave.as_fd(), terminal.which)),
                    descriptors,
                    leads_session: slave.is_none(),
                    probes: first.then_some(&self.setup.probes),
                };
                agent::run(start)
            }
            Fork::Parent(pid) => {
                drop(there);
                self.commands.push(Running { id, pid });
                // Without a listener the command failed, and told the supervisor why.
                if let Some(message) = channel::receive::<()>(&here, RecvFlags::empty())? {
                    for listener in message.descriptors {
                        self.broker.add_listener(listener)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Until the supervisor is gone or the first command has ended and that was told.
    fn serve(&mut self) -> io::Result<()> {
        loop {
            let timeout = self.broker.timeout().and_then(|wait| Timespec::try_from(wait).ok());
            let ready: Vec<PollFlags> = {
                let mut wait =
                    vec![PollFd::new(&self.children, PollFlags::IN), PollFd::new(&self.orders, PollFlags::IN)];
                wait.extend(self.broker.descriptors().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
                match poll(&mut wait, timeout.as_ref()) {
                    Ok(_) => wait.iter().map(PollFd::revents).collect(),
                    Err(Errno::INTR) => continue,
                    Err(errno) => return Err(errno.into()),
                }
            };
            // Descriptors come and go by `serve`, so only the first ready one is served in one round.
            if let Some((index, seen)) = ready.iter().skip(2).enumerate().find(|(_, seen)| !seen.is_empty()) {
                self.broker.serve(index, *seen)?;
            } else {
                self.broker.tick()?;
            }
            if ready.first().is_some_and(|seen| !seen.is_empty()) {
                while process::next_signal(self.children.as_fd()).is_some() {}
                self.reap()?;
            }
            if ready.get(1).is_some_and(|seen| !seen.is_empty()) && !self.order()? {
                return Ok(());
            }
        }
    }

    fn reap(&mut self) -> io::Result<()> {
        loop {
            let (pid, status) = match rustix::process::wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
                Ok(Some(seen)) => seen,
                Ok(None) | Err(Errno::CHILD) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            };
            let Some(id) = self.commands.iter().find(|running| running.pid == pid).map(|running| running.id) else {
                continue;
            };
            let report = if let Some(signal) = status.stopping_signal() {
                if id != FIRST || self.slave.is_none() {
                    continue;
                }
                Report::Stopped(signal)
            } else {
                self.commands.retain(|running| running.pid != pid);
                // What it did last is recorded before its end is told.
                self.broker.tick()?;
                Report::Ended { id, code: status.exit_status(), signal: status.terminating_signal() }
            };
            channel::send(&self.orders, &report, &[], SendFlags::empty())?;
        }
    }

    /// Carries out the next order; false when there will be none any more.
    fn order(&mut self) -> io::Result<bool> {
        let Some(got) = channel::receive::<Order>(&self.orders, RecvFlags::empty())? else { return Ok(false) };
        match got.message {
            Order::Signal { id, number } => {
                let (Some(running), Some(signal)) = (self.find(id), Signal::from_named_raw(number)) else {
                    return Ok(true);
                };
                let _ = rustix::process::kill_process_group(running.pid, signal);
            }
            Order::Continue => {
                if let Some(running) = self.find(FIRST) {
                    if let Some(slave) = &self.slave {
                        let _ = rustix::termios::tcsetpgrp(slave, running.pid);
                    }
                    let _ = rustix::process::kill_process_group(running.pid, Signal::CONT);
                }
            }
            Order::Command { id, arguments, folder, terminal } => {
                let mut descriptors = got.descriptors.into_iter();
                if let (Some(gate), Some(input), Some(output), Some(error)) =
                    (descriptors.next(), descriptors.next(), descriptors.next(), descriptors.next())
                {
                    let standard = [input.as_fd(), output.as_fd(), error.as_fd()];
                    if let Err(error) = self.another(id, arguments, folder, terminal, &gate, standard) {
                        let message = failed("start the command", &error);
                        let _ = channel::send(&gate, &message, &[], SendFlags::empty());
                    }
                }
            }
        }
        Ok(true)
    }

    fn another(
        &mut self,
        id: u32,
        arguments: Vec<Vec<u8>>,
        folder: Vec<u8>,
        size: Option<(u16, u16)>,
        gate: &OwnedFd,
        standard: [BorrowedFd<'_>; 3],
    ) -> io::Result<()> {
        if self.commands.len() >= MAX_COMMANDS {
            return Err(io::Error::other(format!("more than {MAX_COMMANDS} commands at once")));
        }
        let arguments: Vec<CString> = arguments.into_iter().map(CString::new).collect::<Result<_, _>>()?;
        if arguments.is_empty() || id == FIRST || self.find(id).is_some() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let environment = self.setup.command.environment.clone();
        let command = Command { arguments, environment, folder: CString::new(folder)? };
        let Some((rows, columns)) = size else {
            return self.start(id, &command, gate, Some(standard));
        };
        let (master, slave) = terminal::open()?;
        rustix::termios::tcsetwinsize(&slave, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
        channel::send(gate, &FromCage::Terminal, &[master.as_fd()], SendFlags::empty())?;
        let side = slave.as_fd();
        self.start(id, &command, gate, Some([side; 3]))
    }

    fn find(&self, id: u32) -> Option<Running> {
        self.commands.iter().find(|running| running.id == id).copied()
    }
}
