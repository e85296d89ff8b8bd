//! The stage: this program, started where the agent's program would stand, calls the hook as the agent would.
//!
//! Reads nothing but its own recorded steps, runs nothing but the hook, writes one JSON line per call.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::{Exit, Failure, Outcome};
use crate::out::{self, Format};

/// The recorded attack.
const STEPS: &str = include_str!("../../demo/claude-code.jsonl");
/// The agent whose payloads they are.
const KIND: &str = "claude-code";

/// How long a question waits for a person: nobody watches a demonstration to answer it.
const DEADLINE_MS: &str = "1500";

/// Arguments of the stage.
#[derive(Debug, Args)]
pub(crate) struct Stage {
    /// The hook program.
    #[arg(long)]
    hook: PathBuf,
    /// The daemon's hook socket.
    #[arg(long)]
    socket: PathBuf,
    /// The folder that stands for a project.
    #[arg(long)]
    workspace: PathBuf,
}

/// One recorded call.
#[derive(Debug, Deserialize)]
struct Step {
    event: String,
    say: String,
    what: String,
    expect: String,
    payload: Value,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Played {
    pub(super) step: u32,
    pub(super) event: String,
    pub(super) say: String,
    pub(super) what: String,
    pub(super) expect_stop: bool,
    pub(super) stopped: bool,
    pub(super) answer: String,
    pub(super) exit_code: u8,
}

fn steps() -> Result<Vec<Step>, Failure> {
    let lines = STEPS.lines().filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_str(line).map_err(Failure::from)).collect()
}

/// Plays all steps.
pub(crate) fn run(stage: &Stage) -> Outcome {
    let home = creel_discover::own().home;
    let workspace = stage.workspace.display().to_string();
    let session = format!("demo-{}", std::process::id());
    for (index, step) in steps()?.into_iter().enumerate() {
        let mut payload = step.payload;
        fill(&mut payload, &[("{{HOME}}", &home), ("{{WORKSPACE}}", &workspace), ("{{SESSION}}", &session)]);
        let mut hook = Command::new(&stage.hook)
            .args([KIND, step.event.as_str(), "--deadline-ms", DEADLINE_MS, "--socket"])
            .arg(&stage.socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::file("start", &stage.hook, &error))?;
        if let Some(mut stdin) = hook.stdin.take() {
            stdin.write_all(payload.to_string().as_bytes())?;
        }
        let output = hook.wait_with_output()?;
        let exit_code = output.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX);
        let answer = String::from_utf8_lossy(&output.stdout).into_owned();
        let played = Played {
            step: u32::try_from(index + 1).unwrap_or(u32::MAX),
            event: step.event,
            say: step.say,
            what: step.what,
            expect_stop: step.expect == "stop",
            stopped: stops(&answer, exit_code),
            answer: if answer.is_empty() { String::from_utf8_lossy(&output.stderr).into_owned() } else { answer },
            exit_code,
        };
        out::json(&played, Format::Jsonl)?;
    }
    Ok(Exit::Good)
}

/// Whether the agent would stop here, by its own protocol.
fn stops(answer: &str, exit_code: u8) -> bool {
    if exit_code == 2 {
        return true;
    }
    let Ok(answer) = serde_json::from_str::<Value>(answer) else { return false };
    let permission = answer.pointer("/hookSpecificOutput/permissionDecision").and_then(Value::as_str);
    matches!(permission, Some("deny" | "ask")) || answer.get("decision").and_then(Value::as_str) == Some("block")
}

/// Replaces the placeholders in every text of a payload.
fn fill(value: &mut Value, with: &[(&str, &str)]) {
    match value {
        Value::String(text) => {
            for (name, value) in with {
                if text.contains(name) {
                    *text = text.replace(name, value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| fill(value, with)),
        Value::Object(map) => map.values_mut().for_each(|value| fill(value, with)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recorded_payload_is_one_that_the_dialect_understands() {
        let steps = steps().unwrap();
        assert!(steps.len() >= 10);
        assert!(steps.iter().any(|step| step.expect == "stop"));
        for step in steps {
            let mut payload = step.payload;
            fill(&mut payload, &[("{{HOME}}", "/home/ada"), ("{{WORKSPACE}}", "/home/ada/site"), ("{{SESSION}}", "s")]);
            let action = creel_dialect::parse(KIND, &step.event, payload.to_string().as_bytes());
            assert!(action.is_ok(), "{}: {action:?}", step.what);
            assert!(!payload.to_string().contains("{{"), "{payload}");
        }
    }

    #[test]
    fn a_stop_is_recognised_in_every_form() {
        for (answer, code, expected) in [
            ("", 0, false),
            ("", 2, true),
            (r#"{"hookSpecificOutput":{"permissionDecision":"deny"}}"#, 0, true),
            (r#"{"hookSpecificOutput":{"permissionDecision":"allow"}}"#, 0, false),
            (r#"{"decision":"block","reason":"x"}"#, 0, true),
        ] {
            assert_eq!(stops(answer, code), expected, "{answer}");
        }
    }
}
