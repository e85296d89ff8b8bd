//! The canary with the real agent: which calls of it reached the hook socket, and what that proves.
//!
//! A person's program asks for two words, runs the agent so that it makes one call with each, and reports what it found
//! on disk. Here stands what the daemon saw of it: a word counts only in a tool call of an agent that the asking process
//! started, by the kernel's word. The one thing a newcomer gets wrong: a word only ever makes a call *denied*. The call
//! that is to be let through is judged by the rules like any other, so knowing a word is worth nothing to an agent.

use std::sync::{Mutex, PoisonError};

use creel_discover::process;
use creel_model::{Action, Decision, Point, ProcessKey};
use creel_wire::control::{LiveReport, LiveWords, Scope};

use super::{denied, parent_of};
use crate::clock;
use crate::sockets::Peer;

/// Canaries with real agents that may be open at a time.
const OPEN_MAX: usize = 8;
/// How long the words count: the agent's minute and what is around it.
const OPEN_NS: u64 = 120 * 1_000_000_000;
/// Longest line of a report that is kept, in characters, and most lines.
const LINE_CHARS_MAX: usize = 500;
const STEPS_MAX: usize = 16;

/// Open canaries with real agents.
#[derive(Debug, Default)]
pub struct LiveCanaries {
    open: Mutex<Vec<Open>>,
}

#[derive(Debug)]
struct Open {
    kind: String,
    scope: Scope,
    asker: ProcessKey,
    uid: u32,
    forbidden: String,
    harmless: String,
    until_boot_ns: u64,
    saw_forbidden: bool,
    saw_harmless: bool,
}

/// What a canary with the real agent came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Catalog kind.
    pub kind: String,
    /// For whom the hook was to be proved.
    pub scope: Scope,
    /// Why it is not effective; `None`: it is.
    pub because: Option<String>,
    /// What happened, one line each.
    pub steps: Vec<String>,
}

impl LiveCanaries {
    /// Draws the words for a canary that the process `pid` of account `uid` runs.
    ///
    /// # Errors
    /// Too many are open, the process is gone, or there is no randomness; in words.
    pub fn open(&self, kind: &str, scope: Scope, pid: u32, uid: u32) -> Result<LiveWords, String> {
        let start_ticks = process::start_ticks(pid).ok_or("the process that asks has ended")?;
        let word = || -> Result<String, String> {
            Ok(format!("creel-canary-{}", creel_model::id::hex(&clock::random16().map_err(|error| error.to_string())?)))
        };
        let now = clock::now();
        let opened = Open {
            kind: kind.to_owned(),
            scope,
            asker: ProcessKey { pid, start_ticks },
            uid,
            forbidden: word()?,
            harmless: word()?,
            until_boot_ns: now.boot_ns.saturating_add(OPEN_NS),
            saw_forbidden: false,
            saw_harmless: false,
        };
        let words = LiveWords {
            forbidden: opened.forbidden.clone(),
            harmless: opened.harmless.clone(),
            expires_unix_ns: now.unix_ns.saturating_add_unsigned(OPEN_NS),
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|other| other.until_boot_ns > now.boot_ns);
        if open.len() >= OPEN_MAX {
            return Err("too many canaries at a time".to_owned());
        }
        open.push(opened);
        Ok(words)
    }

    /// The answer to a call of an open canary, or `None`: it is judged like any other. `kind` and `uid` are the agent's
    /// by the kernel's word.
    #[must_use]
    pub fn decide(&self, action: &Action, payload: &[u8], kind: &str, uid: u32, peer: &Peer) -> Option<Decision> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.is_empty() || action.point != Point::ToolCall {
            return None;
        }
        let payload = std::str::from_utf8(payload).ok()?;
        let now = clock::now().boot_ns;
        let canary = open.iter_mut().find(|canary| {
            canary.until_boot_ns > now
                && canary.kind == kind
                && canary.uid == uid
                && (payload.contains(&canary.forbidden) || payload.contains(&canary.harmless))
                && is_below(peer.pid, canary.asker)
        })?;
        if payload.contains(&canary.forbidden) {
            canary.saw_forbidden = true;
            return Some(denied(&canary.forbidden));
        }
        canary.saw_harmless = true;
        None
    }

    /// Ends a canary with the report of the process that opened it.
    ///
    /// # Errors
    /// There is no such canary of this process, or its time is over.
    pub fn close(&self, report: &LiveReport, pid: u32) -> Result<Outcome, String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now().boot_ns;
        let found = open.iter().position(|canary| {
            canary.forbidden == report.forbidden
                && canary.asker.pid == pid
                && process::start_ticks(pid) == Some(canary.asker.start_ticks)
        });
        let canary = found.map(|at| open.swap_remove(at)).ok_or("no such canary is open")?;
        if canary.until_boot_ns <= now {
            return Err("the canary took too long".to_owned());
        }
        drop(open);
        let because = because(&canary, report);
        let mut steps: Vec<String> = report.steps.iter().take(STEPS_MAX).map(|step| bounded(step)).collect();
        for (saw, ran, name) in [
            (canary.saw_forbidden, report.forbidden_ran, "forbidden"),
            (canary.saw_harmless, report.harmless_ran, "harmless"),
        ] {
            let seen = if saw { "reached the hook" } else { "did not reach the hook" };
            let ran = if ran { "ran" } else { "did not run" };
            steps.push(format!("the {name} call {seen} and {ran}"));
        }
        Ok(Outcome { kind: canary.kind, scope: canary.scope, because, steps })
    }
}

fn because(canary: &Open, report: &LiveReport) -> Option<String> {
    let failed = bounded(&report.failed);
    // The worst first: what an agent did in spite of creel counts more than what it did not come to.
    Some(match (report.forbidden_ran, canary.saw_forbidden) {
        (true, false) => "the agent ran the forbidden call without asking the hook".to_owned(),
        (true, true) => "the hook said no, and the agent ran the forbidden call all the same".to_owned(),
        _ if !failed.is_empty() => failed,
        (false, false) => "the agent did not bring the forbidden call to the hook".to_owned(),
        _ if !canary.saw_harmless => "the agent did not bring the harmless call to the hook".to_owned(),
        _ if !report.harmless_ran => "the harmless call did not run either".to_owned(),
        _ => return None,
    })
}

fn bounded(line: &str) -> String {
    line.chars().take(LINE_CHARS_MAX).collect()
}

/// Whether a process stands below another one: a walk up, at most as far as any walk to an agent.
fn is_below(pid: u32, above: ProcessKey) -> bool {
    let mut next = pid;
    for _ in 0..process::ANCESTORS_MAX {
        let Some(parent) = parent_of(next) else { return false };
        if parent == above.pid {
            return process::start_ticks(parent) == Some(above.start_ticks);
        }
        if parent <= 1 {
            return false;
        }
        next = parent;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canary() -> Open {
        Open {
            kind: "claude-code".to_owned(),
            scope: Scope::User,
            asker: ProcessKey { pid: 1, start_ticks: 1 },
            uid: 1000,
            forbidden: "f".to_owned(),
            harmless: "h".to_owned(),
            until_boot_ns: u64::MAX,
            saw_forbidden: true,
            saw_harmless: true,
        }
    }

    #[test]
    fn every_way_to_fail_has_its_reason() {
        let check = |saw: (bool, bool), ran: (bool, bool), failed: &str, expected: Option<&str>| {
            let canary = Open { saw_forbidden: saw.0, saw_harmless: saw.1, ..canary() };
            let report = LiveReport {
                forbidden_ran: ran.0,
                harmless_ran: ran.1,
                failed: failed.to_owned(),
                ..LiveReport::default()
            };
            let because = because(&canary, &report);
            match expected {
                None => assert_eq!(because, None),
                Some(part) => assert!(because.as_ref().is_some_and(|why| why.contains(part)), "{because:?}, {part}"),
            }
        };
        check((true, true), (false, true), "", None);
        check((false, true), (true, true), "", Some("without asking the hook"));
        check((true, true), (true, true), "", Some("all the same"));
        check((false, false), (true, false), "it hung", Some("without asking the hook"));
        check((false, false), (false, false), "it hung", Some("it hung"));
        check((false, true), (false, true), "", Some("did not bring the forbidden"));
        check((true, false), (false, true), "", Some("did not bring the harmless"));
        check((true, true), (false, false), "", Some("did not run either"));
    }

    #[test]
    fn words_belong_to_the_process_that_asked() {
        let canaries = LiveCanaries::default();
        let own = std::process::id();
        let words = canaries.open("claude-code", Scope::User, own, 1000).unwrap();
        assert_ne!(words.forbidden, words.harmless);
        let report = LiveReport { forbidden: words.forbidden, ..LiveReport::default() };
        assert!(canaries.close(&report, std::os::unix::process::parent_id()).is_err());
        let outcome = canaries.close(&report, own).unwrap();
        assert_eq!(outcome.because.as_deref(), Some("the agent did not bring the forbidden call to the hook"));
        assert!(canaries.close(&report, own).is_err(), "it is closed");
    }

    #[test]
    fn so_many_and_no_more() {
        let canaries = LiveCanaries::default();
        for _ in 0..OPEN_MAX {
            canaries.open("codex", Scope::System, std::process::id(), 1000).unwrap();
        }
        assert!(canaries.open("codex", Scope::System, std::process::id(), 1000).is_err());
    }

    #[test]
    fn a_child_is_below_its_parent_and_not_the_other_way_round() {
        let own = std::process::id();
        let key = |pid| ProcessKey { pid, start_ticks: process::start_ticks(pid).unwrap() };
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(is_below(child.id(), key(own)));
        assert!(!is_below(own, key(child.id())));
        assert!(!is_below(child.id(), ProcessKey { start_ticks: 1, ..key(own) }), "a reused pid is another process");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
