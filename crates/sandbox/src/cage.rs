//! A running cage, as its supervisor holds it: what to wait for, what happened, and what can be asked of it.
//!
//! One loop of the program drives everything by [`Cage::turn`]: terminal, forwarded ports, signals, events, ends. The one
//! fact a newcomer gets wrong: signals sent to the supervisor are meant for the command and go there; the supervisor
//! itself ends when the command does.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::time::{Duration, Instant};

use creel_model::cage::CageEvent;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Pid, Signal};
use rustix::termios::Winsize;
use rustix::time::Timespec;

use crate::channel;
use crate::forward::Forwarder;
use crate::launch::{end, watch};
use crate::setup::{FromCage, Order, Report};
use crate::sys::process;
use crate::terminal::{Carried, Raw, carry};

/// Signals that go to the command.
const FORWARDED: [i32; 6] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];
/// Most events taken in one turn.
const EVENTS_IN_TURN: usize = 256;
/// Most commands that are being started at once.
const STARTING: usize = 64;
/// Number of the first command.
pub const FIRST_COMMAND: u32 = crate::warden::FIRST;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// The cage broke before that was known; everything in it was killed.
    Lost,
}

impl End {
    /// Ends this program in the same way, so that whoever waits for it sees what the command did: also by a signal.
    pub fn repeat(self) -> ! {
        match self {
            Self::Code(code) => process::exit_now(code),
            Self::Signal(signal) => process::die_by(signal),
            Self::Lost => process::exit_now(125),
        }
    }
}

/// What came of one turn.
#[derive(Debug)]
pub enum Happening {
    /// Something was noticed.
    Event(CageEvent),
    /// One of the caller's own descriptors is ready: its index.
    Other(usize),
    /// A further command could not be started.
    NotStarted {
        /// Which.
        id: u32,
        /// Why.
        why: String,
    },
    /// A further command has a terminal: the side that is to be read and written.
    Terminal {
        /// Which.
        id: u32,
        /// The terminal.
        master: OwnedFd,
    },
    /// Bytes that the first command wrote on its terminal, for those who watch.
    Output(Vec<u8>),
    /// A further command ended.
    CommandEnded {
        /// Which.
        id: u32,
        /// How.
        end: End,
    },
    /// The time of the run is over; the caller decides how it ends, normally by [`Cage::stop`].
    TimeOver,
    /// The first command has ended, and nothing of the cage is left.
    Ended(End),
}

/// What every process of the cage used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time in milliseconds.
    pub cpu_ms: u64,
    /// Most memory that one process had at once, in bytes.
    pub memory_bytes: u64,
}

/// A running cage. Dropping it kills everything in it.
#[derive(Debug)]
pub struct Cage {
    init: Pid,
    ended: bool,
    watch: OwnedFd,
    _life: OwnedFd,
    orders: OwnedFd,
    events: Option<OwnedFd>,
    forwarder: Forwarder,
    master: Option<OwnedFd>,
    raw: Option<Raw>,
    own_terminal: Option<OwnedFd>,
    types: bool,
    signals: Option<OwnedFd>,
    deadline: Option<Instant>,
    seconds: Option<u64>,
    began_unix_ns: i64,
    starting: Vec<(u32, OwnedFd)>,
    next: u32,
    first: Option<End>,
    /// Typed, and not yet taken by the command's terminal.
    typed: Vec<u8>,
    watched: bool,
}

impl Cage {
    pub(crate) fn new(
        init: Pid,
        life: OwnedFd,
        orders: OwnedFd,
        events: OwnedFd,
        seconds: Option<u64>,
    ) -> io::Result<Self> {
        let watch = watch(init).inspect_err(|_| end(init))?;
        Ok(Self {
            init,
            ended: false,
            watch,
            _life: life,
            orders,
            events: Some(events),
            forwarder: Forwarder::default(),
            master: None,
            raw: None,
            own_terminal: None,
            types: false,
            signals: None,
            deadline: None,
            seconds,
            began_unix_ns: i64::MAX,
            starting: Vec::new(),
            next: FIRST_COMMAND,
            first: None,
            typed: Vec::new(),
            watched: false,
        })
    }

    pub(crate) fn connect(
        &mut self,
        forwarder: Forwarder,
        master: Option<OwnedFd>,
        own: Option<OwnedFd>,
        which: Option<[bool; 3]>,
    ) {
        self.forwarder = forwarder;
        self.master = master;
        self.own_terminal = own;
        self.types = which.is_some_and(|[input, _, _]| input);
    }

    /// From now on signals go to the command, and the terminal is its.
    pub(crate) fn begin(&mut self) -> io::Result<()> {
        let mut numbers = FORWARDED.to_vec();
        numbers.extend([libc::SIGTSTP, libc::SIGCONT]);
        if self.master.is_some() {
            numbers.push(libc::SIGWINCH);
        }
        self.signals = Some(process::signals(&numbers)?);
        if let (Some(master), Some(own)) = (&self.master, &self.own_terminal) {
            rustix::io::ioctl_fionbio(master, true)?;
            let raw = Raw::begin(own.try_clone()?)?;
            // The size may have changed since it was copied.
            raw.copy_size(master.as_fd());
            self.raw = Some(raw);
        }
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        self.began_unix_ns = now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec);
        self.deadline = self.seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        Ok(())
    }

    /// Process 1 of the cage.
    #[must_use]
    pub fn init(&self) -> Pid {
        self.init
    }

    /// The first command has a terminal of the cage.
    #[must_use]
    pub fn has_terminal(&self) -> bool {
        self.master.is_some()
    }

    /// Output of the first command's terminal is handed out as [`Happening::Output`], beside the caller's terminal.
    pub fn watch_output(&mut self, watched: bool) {
        self.watched = watched;
    }

    /// Types into the first command's terminal; what does not fit into 64 KiB waiting is dropped.
    pub fn type_in(&mut self, bytes: &[u8]) {
        if self.master.is_some() && self.typed.len() + bytes.len() <= 64 * 1024 {
            self.typed.extend_from_slice(bytes);
        }
    }

    /// Sets the size of the first command's terminal: rows and columns.
    pub fn resize(&self, rows: u16, columns: u16) {
        if let Some(master) = &self.master {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            let _ = rustix::termios::tcsetwinsize(master, size);
        }
    }

    /// Sends a signal to a command and its group.
    ///
    /// # Errors
    /// The cage is ending.
    pub fn signal(&self, id: u32, number: i32) -> io::Result<()> {
        channel::send(&self.orders, &Order::Signal { id, number }, &[], SendFlags::empty())
    }

    /// Starts a further command of the run, with these standard descriptors, or with a terminal of this size (rows,
    /// columns), whose other side comes as [`Happening::Terminal`]. Gives its number.
    ///
    /// # Errors
    /// Too many are being started, or the cage is ending.
    pub fn exec(
        &mut self,
        command: Vec<OsString>,
        folder: OsString,
        standard: [BorrowedFd<'_>; 3],
        terminal: Option<(u16, u16)>,
    ) -> io::Result<u32> {
        if self.starting.len() >= STARTING {
            return Err(io::Error::other("too many commands are being started"));
        }
        self.next = self.next.checked_add(1).ok_or_else(|| io::Error::other("too many commands"))?;
        let id = self.next;
        let (gate, gate_in) = channel::pair()?;
        let [input, output, error] = standard;
        let order = Order::Command {
            id,
            arguments: command.into_iter().map(OsString::into_vec).collect(),
            folder: folder.into_vec(),
            terminal,
        };
        channel::send(&self.orders, &order, &[gate_in.as_fd(), input, output, error], SendFlags::empty())?;
        self.starting.push((id, gate));
        Ok(id)
    }

    /// Kills everything in the cage and waits until nothing is left.
    pub fn stop(&mut self) {
        if !self.ended {
            self.ended = true;
            end(self.init);
            self.raw = None;
        }
    }

    /// What the cage used, once it has ended.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let (cpu_ms, memory_bytes) = process::children_usage();
        Usage { cpu_ms, memory_bytes }
    }

    /// Waits until something happens, at most `timeout`, and says what. `others` are descriptors of the caller that are
    /// waited for too. An empty answer is no error.
    ///
    /// # Errors
    /// The kernel's; then the caller should [`Cage::stop`].
    pub fn turn(&mut self, others: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<Vec<Happening>> {
        let now = Instant::now();
        let mut happened = Vec::new();
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(now));
        let timeout = match (timeout, left) {
            (Some(timeout), Some(left)) => Some(timeout.min(left)),
            (timeout, left) => timeout.or(left),
        };
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let ready = self.wait(others, timeout.as_ref())?;
        for (index, _) in ready.others.iter().enumerate().filter(|(_, ready)| **ready) {
            happened.push(Happening::Other(index));
        }
        if ready.signal {
            self.take_signals()?;
        }
        if ready.ports {
            self.forwarder.serve();
        }
        if ready.master {
            self.terminal(&mut happened);
        }
        if ready.typed {
            self.read_keys();
        }
        self.push_keys();
        if ready.events {
            self.take_events(&mut happened);
        }
        for index in ready.starting {
            self.started(index, &mut happened);
        }
        self.starting.retain(|(id, _)| *id != 0);
        if ready.report {
            self.take_reports(&mut happened)?;
        }
        if self.first.is_some() || ready.gone {
            // What was written before the end is still in the terminal and the event queue.
            while self.master.is_some() && self.terminal(&mut happened) {}
            while self.take_events(&mut happened) {}
            self.stop();
            happened.push(Happening::Ended(self.first.unwrap_or(End::Lost)));
        } else if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.deadline = None;
            happened.push(Happening::TimeOver);
        }
        Ok(happened)
    }

    fn wait(&self, others: &[BorrowedFd<'_>], timeout: Option<&Timespec>) -> io::Result<Ready> {
        let mut fds = vec![PollFd::new(&self.watch, PollFlags::IN), PollFd::new(&self.orders, PollFlags::IN)];
        let mut index = Vec::new();
        let events = self.events.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN));
        let signals = self.signals.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN));
        let keys = self.types && self.typed.is_empty() && self.raw.as_ref().is_some_and(Raw::is_raw);
        let keyboard = rustix::stdio::stdin();
        let keyboard = keys.then(|| PollFd::from_borrowed_fd(keyboard, PollFlags::IN));
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, !self.typed.is_empty());
        let master = self.master.as_ref().map(|fd| PollFd::new(fd, flags));
        for one in [events, signals, keyboard, master] {
            match one {
                Some(one) => {
                    index.push(Some(fds.len()));
                    fds.push(one);
                }
                None => index.push(None),
            }
        }
        let starting = fds.len();
        fds.extend(self.starting.iter().map(|(_, gate)| PollFd::new(gate, PollFlags::IN)));
        let ports = fds.len();
        fds.extend(self.forwarder.wants().into_iter().map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)));
        let mine = fds.len();
        fds.extend(others.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)));
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(errno) => return Err(errno.into()),
        }
        let is =
            |index: Option<usize>| index.and_then(|index| fds.get(index)).is_some_and(|fd| !fd.revents().is_empty());
        let at = |slot: usize| is(index.get(slot).copied().flatten());
        Ok(Ready {
            gone: is(Some(0)),
            report: is(Some(1)),
            events: at(0),
            signal: at(1),
            typed: at(2),
            master: at(3),
            starting: (0..self.starting.len()).filter(|number| is(Some(starting + number))).collect(),
            ports: (ports..mine).any(|number| is(Some(number))),
            others: (mine..fds.len()).map(|number| is(Some(number))).collect(),
        })
    }

    fn take_signals(&mut self) -> io::Result<()> {
        let Some(signals) = self.signals.as_ref().map(|fd| fd.as_fd().try_clone_to_owned()).transpose()? else {
            return Ok(());
        };
        while let Some(number) = process::next_signal(signals.as_fd()) {
            match number {
                libc::SIGWINCH => {
                    if let (Some(raw), Some(master)) = (&self.raw, &self.master) {
                        raw.copy_size(master.as_fd());
                    }
                }
                libc::SIGTSTP if self.master.is_none() => {
                    let _ = self.signal(FIRST_COMMAND, libc::SIGSTOP);
                    self.stand_aside();
                    let _ = self.signal(FIRST_COMMAND, libc::SIGCONT);
                }
                libc::SIGCONT => self.back()?,
                number => {
                    let _ = self.signal(FIRST_COMMAND, number);
                }
            }
        }
        Ok(())
    }

    /// Stops this program, as the command was stopped, until somebody continues it.
    fn stand_aside(&mut self) {
        if let Some(raw) = &mut self.raw {
            raw.pause();
        }
        let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::STOP);
    }

    fn back(&mut self) -> io::Result<()> {
        if let Some(raw) = &mut self.raw {
            raw.again()?;
            if let Some(master) = &self.master {
                raw.copy_size(master.as_fd());
            }
        }
        if self.master.is_some() {
            let _ = channel::send(&self.orders, &Order::Continue, &[], SendFlags::empty());
        }
        Ok(())
    }

    /// Carries what the command wrote; false when there is no more.
    fn terminal(&mut self, happened: &mut Vec<Happening>) -> bool {
        let (Some(master), Some(own)) = (&self.master, &self.own_terminal) else { return false };
        let carried = if self.watched {
            let mut bytes = vec![0; 32 * 1024];
            match rustix::io::read(master, &mut bytes) {
                Ok(count) if count > 0 => {
                    bytes.truncate(count);
                    let mut rest = bytes.as_slice();
                    while let Ok(written) = rustix::io::write(own, rest) {
                        rest = rest.get(written..).unwrap_or_default();
                        if rest.is_empty() {
                            break;
                        }
                    }
                    happened.push(Happening::Output(bytes));
                    Carried::Bytes(count)
                }
                Err(Errno::AGAIN | Errno::INTR) => Carried::Nothing,
                _ => Carried::End,
            }
        } else {
            carry(master, own)
        };
        if carried == Carried::End {
            self.master = None;
        }
        matches!(carried, Carried::Bytes(_))
    }

    fn read_keys(&mut self) {
        let mut bytes = [0_u8; 4096];
        match rustix::io::read(rustix::stdio::stdin(), &mut bytes) {
            Ok(0) => self.types = false,
            Ok(count) => self.typed.extend_from_slice(bytes.get(..count).unwrap_or_default()),
            Err(Errno::INTR | Errno::AGAIN) => {}
            // The caller's terminal is gone; the command hears of it as of any hang-up.
            Err(_) => {
                self.types = false;
                let _ = self.signal(FIRST_COMMAND, libc::SIGHUP);
            }
        }
    }

    fn push_keys(&mut self) {
        let Some(master) = &self.master else { return };
        while !self.typed.is_empty() {
            match rustix::io::write(master, &self.typed) {
                Ok(count) => drop(self.typed.drain(..count)),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Takes what is there; false when there was nothing.
    fn take_events(&mut self, happened: &mut Vec<Happening>) -> bool {
        let mut any = false;
        for _ in 0..EVENTS_IN_TURN {
            let Some(events) = &self.events else { return any };
            match channel::receive::<CageEvent>(events, RecvFlags::DONTWAIT) {
                Ok(Some(got)) => {
                    any = true;
                    // What the probes caused is no doing of the command's.
                    if got.message.at_unix_ns >= self.began_unix_ns {
                        happened.push(Happening::Event(got.message));
                    }
                }
                Ok(None) => self.events = None,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return any,
                // One broken message is not the end of all others.
                Err(_) => any = true,
            }
        }
        any
    }

    fn take_reports(&mut self, happened: &mut Vec<Happening>) -> io::Result<()> {
        loop {
            let report = match channel::receive::<Report>(&self.orders, RecvFlags::DONTWAIT) {
                Ok(Some(got)) => got.message,
                Ok(None) => {
                    self.first.get_or_insert(End::Lost);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            match report {
                Report::Ended { id, code, signal } => {
                    let end = match (code, signal) {
                        (Some(code), _) => End::Code(code),
                        (None, Some(signal)) => End::Signal(signal),
                        (None, None) => End::Lost,
                    };
                    if id == FIRST_COMMAND {
                        self.first = Some(end);
                        return Ok(());
                    }
                    happened.push(Happening::CommandEnded { id, end });
                }
                Report::Stopped(_) => {
                    // What it wrote before it stopped belongs on the screen first.
                    while self.terminal(happened) {}
                    self.stand_aside();
                    // Continued: the pending signal brings the terminal back.
                }
            }
        }
    }

    fn started(&mut self, index: usize, happened: &mut Vec<Happening>) {
        let Some((id, gate)) = self.starting.get_mut(index) else { return };
        let mut over = None;
        match channel::receive::<FromCage>(&*gate, RecvFlags::DONTWAIT) {
            Ok(Some(got)) => match got.message {
                FromCage::Ready if rustix::io::write(&*gate, b"!").is_ok() => {}
                FromCage::Ready => over = Some("it ended before it began".to_owned()),
                FromCage::Terminal => {
                    for master in got.descriptors {
                        happened.push(Happening::Terminal { id: *id, master });
                    }
                }
                FromCage::Failed(why) => over = Some(why),
                FromCage::NotExecuted(number) => over = Some(io::Error::from_raw_os_error(number).to_string()),
                _ => {}
            },
            // The gate closes when the program begins.
            Ok(None) => over = Some(String::new()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => over = Some(error.to_string()),
        }
        if let Some(why) = over {
            if !why.is_empty() {
                happened.push(Happening::NotStarted { id: *id, why });
            }
            *id = 0;
        }
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What is ready.
#[derive(Debug, Default)]
struct Ready {
    gone: bool,
    report: bool,
    events: bool,
    signal: bool,
    typed: bool,
    master: bool,
    ports: bool,
    starting: Vec<usize>,
    others: Vec<bool>,
}
