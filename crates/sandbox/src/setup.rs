//! What the processes of a cage know from their start, and what they say to one another.
//!
//! The supervisor makes a [`Setup`] and clones itself; process 1, the broker and the first command find it in their copy
//! of the memory. The one fact a newcomer gets wrong: whatever stands here also stands in the memory of a process that
//! has not yet become the command, so it holds nothing that the account itself could not read.

use std::ffi::{CString, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;

use creel_model::cage::{CageLimits, Seal};
use rustix::fs::Mode;
use rustix::termios::{Termios, Winsize};
use serde::{Deserialize, Serialize};

use crate::probe::{Outcome, ProbeSet};
use crate::review::Layer;
use crate::root::layout::Layout;

/// A program with its arguments, environment and folder.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    /// The program's name and its arguments; never empty.
    pub(crate) arguments: Vec<CString>,
    /// `NAME=value`.
    pub(crate) environment: Vec<CString>,
    /// Where it starts.
    pub(crate) folder: CString,
}

impl Command {
    /// From the texts of a command line; `None` when there is none, or one holds a zero byte.
    pub(crate) fn new(arguments: &[OsString], environment: &[(OsString, OsString)], folder: &OsString) -> Option<Self> {
        let text = |text: &OsString| CString::new(text.clone().into_vec()).ok();
        let arguments: Option<Vec<CString>> = arguments.iter().map(text).collect();
        let environment: Option<Vec<CString>> = environment
            .iter()
            .map(|(name, value)| {
                let mut whole = name.clone().into_vec();
                whole.push(b'=');
                whole.extend(value.clone().into_vec());
                CString::new(whole).ok()
            })
            .collect();
        let arguments = arguments.filter(|arguments| !arguments.is_empty())?;
        Some(Self { arguments, environment: environment?, folder: text(folder)? })
    }
}

/// The terminal that a command gets instead of the caller's.
#[derive(Clone, Debug)]
pub(crate) struct TerminalSetup {
    /// Its size.
    pub(crate) size: Winsize,
    /// Its modes.
    pub(crate) modes: Termios,
    /// Which of the standard descriptors were the caller's terminal.
    pub(crate) which: [bool; 3],
}

/// Everything that is known before the first clone.
#[derive(Debug)]
pub(crate) struct Setup {
    /// What stands where.
    pub(crate) layout: Layout,
    /// The copy-on-write layer of the workspace.
    pub(crate) layer: Option<Layer>,
    /// Sealed names.
    pub(crate) seals: Vec<Seal>,
    /// Programs that may be started; empty: all that are granted.
    pub(crate) programs: Vec<String>,
    /// Granted sockets, as paths in the cage.
    pub(crate) sockets: Vec<String>,
    /// Ports that are listened on inside.
    pub(crate) ports: Vec<u16>,
    /// Limits.
    pub(crate) limits: CageLimits,
    /// Record instead of refuse.
    pub(crate) learn: bool,
    /// The first command.
    pub(crate) command: Command,
    /// Its terminal.
    pub(crate) terminal: Option<TerminalSetup>,
    /// The caller's file mode mask, for commands.
    pub(crate) umask: Mode,
    /// Account and its first group.
    pub(crate) ids: (u32, u32),
    /// What is tried before the first command.
    pub(crate) probes: ProbeSet,
}

/// The cage's ends of the pairs to the supervisor.
#[derive(Debug)]
pub(crate) struct Ends {
    /// Of everything until the first command is executed: [`FromCage`] out, one byte in.
    pub(crate) gate: OwnedFd,
    /// Held by process 1 only; its end means that the other side is gone.
    pub(crate) life: OwnedFd,
    /// [`Order`] in, [`Report`] out, for the broker's process.
    pub(crate) orders: OwnedFd,
    /// Events out.
    pub(crate) events: OwnedFd,
}

/// What comes through a gate before its command is executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromCage {
    /// A listener on this port of the cage's loopback device comes along.
    Port(u16),
    /// The host's mounts are gone; without this no command may begin.
    HostForgotten,
    /// The other side of the command's terminal comes along.
    Terminal,
    /// The kernel's file rules are on, in this version of their interface; 0: the kernel has none.
    FileRules(u32),
    /// What was tried.
    Outcomes(Vec<Outcome>),
    /// The command waits for its byte; the sender is its process.
    Ready,
    /// It cannot start: at which step, and why.
    Failed(String),
    /// The byte came, and the program could not be executed: the kernel's error number.
    NotExecuted(i32),
}

/// What the supervisor wants of the broker's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Start another command. With it come its gate and its three standard descriptors.
    Command {
        /// Number chosen by the supervisor, above 0.
        id: u32,
        /// The program's name and its arguments, as bytes.
        arguments: Vec<Vec<u8>>,
        /// Where it starts, as bytes.
        folder: Vec<u8>,
        /// It gets a terminal of this size: rows and columns.
        terminal: Option<(u16, u16)>,
    },
    /// Send a signal to a command and the processes of its group.
    Signal {
        /// Which command.
        id: u32,
        /// Which signal.
        number: i32,
    },
    /// Let a stopped first command go on, in the foreground of its terminal.
    Continue,
}

/// What the broker's process has seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// A command ended: by a code or by a signal.
    Ended {
        /// Which.
        id: u32,
        /// Its code.
        code: Option<i32>,
        /// Or the signal.
        signal: Option<i32>,
    },
    /// The first command was stopped by this signal.
    Stopped(i32),
}

/// Why the cage's side cannot go on; sent through the gate.
pub(crate) fn failed(step: &str, error: &dyn std::fmt::Display) -> FromCage {
    FromCage::Failed(format!("{step}: {error}"))
}
