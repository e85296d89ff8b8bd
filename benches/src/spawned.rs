//! Whole processes, started and waited for as an agent does it.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::Failure;
use crate::calls::Call;
use crate::figures::Samples;

/// Times of one program, whole process, in microseconds.
#[derive(Clone, Default)]
pub(crate) struct Times {
    pub(crate) wall: Samples,
    /// Of the process itself; not of a daemon that works for it. Empty where several ran at a time.
    pub(crate) cpu: Samples,
}

impl Times {
    /// Adds one run of `what`.
    pub(crate) fn add(&mut self, what: impl FnOnce() -> Result<f64, Failure>) -> Result<(), Failure> {
        let before = children_cpu_us()?;
        self.wall.add(what()?);
        self.cpu.add(children_cpu_us()? - before);
        Ok(())
    }
}

/// Runs a program that needs no input and whose output nobody reads; microseconds until it has ended.
pub(crate) fn bare(command: &mut Command) -> Result<f64, Failure> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let began = Instant::now();
    let status = command.status()?;
    let took = began.elapsed();
    if status.success() { Ok(took.as_secs_f64() * 1e6) } else { Err(format!("{command:?}: {status}").into()) }
}

/// Runs a hook on an event: the payload through a pipe in, the answer through a pipe out; microseconds until it has
/// ended. The answer must be what the rules say.
pub(crate) fn hook(command: &mut Command, call: &Call) -> Result<f64, Failure> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let began = Instant::now();
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&call.payload)?;
    }
    let mut answer = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_end(&mut answer)?;
    }
    let status = child.wait()?;
    let took = began.elapsed();
    if !status.success() || answer.is_empty() == call.stopped {
        let answer = String::from_utf8_lossy(&answer).into_owned();
        return Err(format!("{} was answered with {status}: {answer}", call.event).into());
    }
    Ok(took.as_secs_f64() * 1e6)
}

/// Processor time of all children that have ended, in microseconds.
pub(crate) fn children_cpu_us() -> Result<f64, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok((usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64)
}
