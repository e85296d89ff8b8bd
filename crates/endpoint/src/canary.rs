//! The canary: the hook is driven exactly as the agent would drive it, with a call that must be stopped and one that
//! must not, and what it prints is compared with the agent's own forms.
//!
//! A canary call is recognised by a random word that this daemon drew a moment ago *and* by the kernel's word that the
//! hook is our own child. So no agent can use it to be answered without being judged.

mod live;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use creel_dialect::{self as dialect, kinds};
use creel_model::{Decision, MatchedRule, Severity, Verdict};
use creel_wire::control::CanaryView;
use creel_wire::hook;

use crate::clock;
use crate::sockets::Peer;

pub use live::{LiveCanaries, Outcome};

/// How long the hook may take in a canary call.
const PATIENCE: Duration = Duration::from_secs(10);
/// Canary calls open at a time.
const OPEN_MAX: usize = 16;

/// Words that are expected in canary calls, and whether the call is to be denied.
#[derive(Debug, Default)]
pub struct Canary {
    expected: Mutex<BTreeMap<String, bool>>,
    /// Those that run the real agent.
    pub live: LiveCanaries,
}

/// What one canary call printed.
struct Printed {
    stdout: String,
    stderr: String,
    code: Option<i32>,
}

impl Canary {
    /// Answers a canary call; `None`: it is none.
    #[must_use]
    pub fn answer(&self, request: &hook::Request, peer: &Peer) -> Option<hook::Answer> {
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        if expected.is_empty() || parent_of(peer.pid) != Some(std::process::id()) {
            return None;
        }
        let payload = std::str::from_utf8(&request.payload).ok()?;
        let (word, deny) = expected.iter().find(|(word, _)| payload.contains(word.as_str()))?;
        let action = dialect::parse(&request.kind, &request.event, &request.payload).ok()?;
        let decision = if *deny { denied(word) } else { Decision::allow() };
        let dialect::Answer { stdout, stderr, exit_code } = dialect::answer(&request.kind, &action, &decision);
        Some(hook::Answer { exit_code, stdout, stderr })
    }

    /// Drives the hook of a kind: `command` is the program and arguments that stand in the agent's settings.
    #[must_use]
    pub fn drive(&self, kind: &str, command: &[String]) -> CanaryView {
        let mut steps = Vec::new();
        let outcome = self.both(kind, command, &mut steps);
        CanaryView {
            kind: kind.to_owned(),
            effective: outcome.is_ok(),
            because: outcome.err().unwrap_or_default(),
            at_unix_ns: clock::now().unix_ns,
            live: false,
            version: None,
            steps,
        }
    }

    fn both(&self, kind: &str, command: &[String], steps: &mut Vec<String>) -> Result<(), String> {
        let denied = self.call(kind, command, true)?;
        steps.push("a forbidden call was handed to the hook".to_owned());
        let expected = self.expected_form(kind, &denied.0)?;
        if denied.1.stdout != expected.stdout || denied.1.code != Some(i32::from(expected.exit)) {
            return Err(format!(
                "the forbidden call was not answered with the agent's deny form (exit {:?}, {} bytes on standard \
                 output, `{}` on standard error)",
                denied.1.code,
                denied.1.stdout.len(),
                denied.1.stderr.chars().take(200).collect::<String>().trim()
            ));
        }
        steps.push("it was stopped in the agent's own words".to_owned());
        let allowed = self.call(kind, command, false)?;
        if allowed.1.code != Some(0) || !allowed.1.stdout.is_empty() {
            return Err(format!("the harmless call was not left alone (exit {:?})", allowed.1.code));
        }
        steps.push("a harmless call was left alone".to_owned());
        Ok(())
    }

    fn expected_form(&self, kind: &str, word: &str) -> Result<Form, String> {
        let payload = payload(kind, word, &std::env::temp_dir().display().to_string());
        let action = dialect::parse(kind, "PreToolUse", payload.as_bytes()).map_err(|error| error.to_string())?;
        let answer = dialect::answer(kind, &action, &denied(word));
        Ok(Form { stdout: String::from_utf8_lossy(&answer.stdout).into_owned(), exit: answer.exit_code })
    }

    fn call(&self, kind: &str, command: &[String], deny: bool) -> Result<(String, Printed), String> {
        let word = format!("creel-canary-{}", creel_model::id::hex(&clock::random16().map_err(|e| e.to_string())?));
        {
            let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
            if expected.len() >= OPEN_MAX {
                return Err("too many canaries at a time".to_owned());
            }
            expected.insert(word.clone(), deny);
        }
        let printed = run(kind, command, &payload(kind, &word, &std::env::temp_dir().display().to_string()));
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).remove(&word);
        printed.map(|printed| (word, printed))
    }
}

struct Form {
    stdout: String,
    exit: u8,
}

fn denied(word: &str) -> Decision {
    let reason = format!("this call is creel's own test ({word}) and must be stopped");
    Decision {
        verdict: Verdict::Deny,
        rules: vec![MatchedRule {
            rule: "canary".to_owned(),
            effect: Verdict::Deny,
            severity: Severity::Info,
            reason: reason.clone(),
            effect_index: 0,
            excepted_by: None,
            approved_by: None,
        }],
        audit: Vec::new(),
        reason,
        modifications: Vec::new(),
        approval: None,
    }
}

/// A call in the agent's own shape: what Claude Code and Codex share, and what only Codex sends.
fn payload(kind: &str, word: &str, cwd: &str) -> String {
    let mut call = serde_json::json!({
        "session_id": word,
        "transcript_path": null,
        "cwd": cwd,
        "permission_mode": "default",
        "hook_event_name": "PreToolUse",
        "tool_name": "Bash",
        "tool_input": { "command": format!("true {word}") },
        "tool_use_id": word,
    });
    if let (kinds::CODEX, Some(fields)) = (kind, call.as_object_mut()) {
        fields.insert("turn_id".to_owned(), word.into());
        fields.insert("model".to_owned(), "none".into());
    }
    call.to_string()
}

fn run(kind: &str, command: &[String], payload: &str) -> Result<Printed, String> {
    let [program, arguments @ ..] = command else { return Err("the settings name no hook program".to_owned()) };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("the hook of {kind} cannot be started: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook that ends without reading shows in its answer.
        let _ = stdin.write_all(payload.as_bytes());
    }
    let started = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if started.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(2)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("the hook gave no answer within {} s", PATIENCE.as_secs()));
            }
        }
    };
    let mut stdout = String::new();
    let mut stderr = String::new();
    if let Some(out) = child.stdout.take() {
        let _ = out.take(64 * 1024).read_to_string(&mut stdout);
    }
    if let Some(err) = child.stderr.take() {
        let _ = err.take(64 * 1024).read_to_string(&mut stderr);
    }
    Ok(Printed { stdout, stderr, code: status.code() })
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}
