//! Is there a person? A positive test before creel asks the daemon for something that loosens protection.
//!
//! Standard input and output are a terminal, no agent is above us in the process tree, and the code that is typed was
//! shown on another screen. The daemon tests again; this test is here so that a person gets a clear sentence. In user
//! mode none of it holds against a hostile process of the same account, and `creel status` says so.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use creel_wire::control::{Answer, Purpose, RefusalCode, Request};

use crate::connection::{Daemon, pick_one};
use crate::failure::Failure;
use crate::text::clean;
use crate::{clock, out};

/// Longest line that is read for a code.
const CODE_BYTES_MAX: u64 = 64;

/// The agent that this process runs below, if any: its kind and process id.
pub(crate) fn agent_above() -> Option<(String, u32)> {
    creel_discover::process::nearest_agent(std::process::id(), &creel_catalog::Catalog::built_in())
        .map(|found| (found.kind, found.agent.key.pid))
}

/// Whether a person sits here.
pub(crate) fn person() -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Err(Failure::new("this needs a person at a terminal").hint("run it directly, without pipes"));
    }
    not_below_agent()
}

/// Whether no agent is above us; enough where no code could be shown because no daemon runs.
pub(crate) fn not_below_agent() -> Result<(), Failure> {
    match agent_above() {
        Some((kind, pid)) => Err(Failure::new(format!("this runs below an agent ({}, pid {pid})", clean(&kind)))
            .hint("run it in a terminal that no agent started")),
        None => Ok(()),
    }
}

/// Carries out a request that may need a confirmation code: with the one given, or after asking for one.
pub(crate) fn carry_out(
    daemon: &mut Daemon,
    purpose: &Purpose,
    code: Option<&str>,
    request: &dyn Fn(Option<String>) -> Request,
) -> Result<Vec<Answer>, Failure> {
    person()?;
    let refusal = match daemon.attempt(&request(code.map(plain_code)))? {
        Ok(answers) => return Ok(answers),
        Err(refusal) => refusal,
    };
    if refusal.code != RefusalCode::ConfirmationNeeded || code.is_some() {
        return Err(refusal.into());
    }
    let asked = daemon.ask(&Request::RequestConfirmation { purpose: purpose.clone() })?;
    let (screens, expires) = pick_one(asked, |answer| match answer {
        Answer::Confirmation { screens, expires_unix_ns } => Some((screens, expires_unix_ns)),
        _ => None,
    })?;
    if screens == 0 {
        return Err(Failure::new("a code is needed, and no screen is there to show it")
            .hint("run `creel up` in another terminal, then try again"));
    }
    let left = clock::span(expires - clock::now_unix_ns());
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "code on the `creel up` screen (works for {left}): ").and_then(|()| err.flush());
    drop(err);
    let mut line = String::new();
    let mut input = std::io::Read::take(std::io::stdin().lock(), CODE_BYTES_MAX);
    input.read_line(&mut line)?;
    if line.trim().is_empty() {
        return Err(Failure::new("no code was typed; nothing was done"));
    }
    daemon.attempt(&request(Some(plain_code(&line))))?.map_err(Failure::from)
}

/// People type `481 220` and `481-220`; the daemon compares `481220`.
pub(crate) fn plain_code(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).collect()
}

/// Says on the person's screen what happened.
pub(crate) fn done(line: &str) -> Result<(), Failure> {
    out::lines([line])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_as_people_type_them() {
        for text in ["481220", " 481 220\n", "481-220"] {
            assert_eq!(plain_code(text), "481220", "{text:?}");
        }
    }

    #[test]
    fn a_test_run_is_not_a_person_at_a_pipe() {
        // The harness of automated runs has no terminal; with one, nothing is claimed here.
        if !std::io::stdin().is_terminal() {
            assert!(person().is_err());
        }
    }
}
