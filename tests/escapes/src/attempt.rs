//! One attempt in a process of its own, and what came of it.
//!
//! Turns a closure into `reached`, `held` or `untried`. Each attempt is forked, so that one that is killed by the
//! kernel, or hangs, or closes what it should not, costs itself only; what it did to files stays.
//! A newcomer gets wrong: an error of a system call means `held`. Preparations, which must succeed, go through
//! [`Ready::ready`], which says `untried`; otherwise a typing mistake here would look like protection there.

use std::io::{Error, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::sys;

/// How long one attempt may take before it counts as hanging. Nothing here takes more than a fraction of it.
const ATTEMPT_SECONDS_MAX: u64 = 60;

/// Why an attempt did not reach what it tried.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It was tried, and something held it.
    Held(String),
    /// It could not be tried.
    Untried(String),
}

/// How it was reached, or why not.
pub(crate) type Tried = Result<String, Stop>;

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Held(sys::words(&error))
    }
}

/// Something was tried and held.
pub(crate) fn held<T>(said: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Held(said.into()))
}

/// A preparation that has to succeed before anything is tried.
pub(crate) trait Ready<T> {
    /// The value, or `untried`.
    fn ready(self, what: &str) -> Result<T, Stop>;
}

impl<T> Ready<T> for Result<T, Error> {
    fn ready(self, what: &str) -> Result<T, Stop> {
        self.map_err(|error| Stop::Untried(format!("{what}: {}", sys::words(&error))))
    }
}

impl<T> Ready<T> for Option<T> {
    fn ready(self, what: &str) -> Result<T, Stop> {
        self.ok_or_else(|| Stop::Untried(what.to_owned()))
    }
}

/// The attempts of one case.
#[derive(Debug)]
pub(crate) struct Tries {
    case: &'static str,
    reached: bool,
    attempts: Vec<Value>,
}

impl Tries {
    pub(crate) fn new(case: &'static str) -> Self {
        Self { case, reached: false, attempts: Vec::new() }
    }

    /// Tries it in a process of its own.
    pub(crate) fn attempt(&mut self, name: &str, tried: impl FnOnce() -> Tried) {
        let (outcome, said) = apart(tried);
        self.reached |= outcome == "reached";
        self.attempts.push(json!({"name": name, "outcome": outcome, "said": said}));
    }

    /// One line of JSON on standard output.
    pub(crate) fn print(&self) {
        println!("{}", json!({"case": self.case, "reached": self.reached, "attempts": self.attempts}));
    }
}

/// Runs `tried` in a child that leads a process group, and ends the whole group afterwards.
fn apart(tried: impl FnOnce() -> Tried) -> (&'static str, String) {
    let Ok((reader, writer)) = sys::pipe() else { return ("untried", "no pipe".to_owned()) };
    // SAFETY: this program starts no thread outside of an attempt, so the child is a whole copy.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: plain calls without memory.
        unsafe { libc::setpgid(0, 0) };
        drop(reader);
        let line = match tried() {
            Ok(said) => format!("reached\n{said}"),
            Err(Stop::Held(said)) => format!("held\n{said}"),
            Err(Stop::Untried(said)) => format!("untried\n{said}"),
        };
        sys::write_all(writer.as_raw_fd(), line.as_bytes());
        // SAFETY: ends this copy without running what belongs to the original.
        unsafe { libc::_exit(0) };
    }
    drop(writer);
    if child < 0 {
        return ("untried", format!("fork: {}", sys::words(&Error::last_os_error())));
    }
    let end = Instant::now() + Duration::from_secs(ATTEMPT_SECONDS_MAX);
    let mut status = 0;
    let ended = loop {
        // SAFETY: `status` lives over the call.
        let waited = unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) };
        if waited != 0 {
            break true;
        }
        if Instant::now() > end {
            break false;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    // SAFETY: the group is that of our own child; whoever it left behind ends with it.
    unsafe { libc::kill(-child, libc::SIGKILL) };
    if !ended {
        // SAFETY: as above.
        unsafe { libc::waitpid(child, &mut status, 0) };
        return ("untried", format!("did not come back in {ATTEMPT_SECONDS_MAX} s"));
    }
    let mut text = Vec::new();
    sys::nonblocking(reader.as_raw_fd());
    // SAFETY: the descriptor is ours alone from here on.
    let mut reader = unsafe { std::fs::File::from_raw_fd(sys::into_raw(reader)) };
    let mut chunk = [0; 4096];
    while let Ok(read) = reader.read(&mut chunk) {
        if read == 0 {
            break;
        }
        text.extend_from_slice(&chunk[..read]);
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    match text.split_once('\n') {
        Some(("reached", said)) => ("reached", said.to_owned()),
        Some(("held", said)) => ("held", said.to_owned()),
        Some((_, said)) => ("untried", said.to_owned()),
        None if libc::WIFSIGNALED(status) => {
            let signal = libc::WTERMSIG(status);
            // SIGSYS is the filter's, SIGKILL a limit's; any other signal is a fault of this program.
            let outcome = if signal == libc::SIGSYS || signal == libc::SIGKILL { "held" } else { "untried" };
            (outcome, format!("ended by signal {signal}"))
        }
        None => ("untried", format!("said nothing, status {status}")),
    }
}
