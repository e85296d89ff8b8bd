//! Recorded events of Codex 0.169 in, exact answers out.

use serde_json::{Value, json};

use creel_model::{Action, Decision, Modification, Point, Verdict, action::SessionChange};

use crate::answer::Answer;
use crate::{Malformed, answer, kinds, parse, tools};

fn read(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/testdata/codex/{name}.json", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn recorded(name: &str) -> Action {
    parse("codex", name.split('.').next().unwrap(), &read(name)).unwrap()
}

fn decide(verdict: Verdict) -> Decision {
    Decision { verdict, reason: "no".into(), ..Decision::allow() }
}

fn redact(pointer: &str, text: &str) -> Decision {
    let modifications = vec![Modification { pointer: pointer.into(), text: text.into(), replaced: 1 }];
    Decision { modifications, ..decide(Verdict::Modify) }
}

/// Bytes, not values: Codex refuses what it does not expect.
#[track_caller]
fn check(action: &Action, decision: &Decision, expected: &str) {
    let found = answer("codex", action, decision);
    assert_eq!((String::from_utf8(found.stdout).unwrap().as_str(), found.exit_code), (expected, 0));
    assert!(found.stderr.is_empty());
}

const DENIED: &str = r#"{"hookSpecificOutput":{"hookEventName":"PreToolUse","permissionDecision":"deny","permissionDecisionReason":"no"}}"#;

#[test]
fn recorded_events_become_actions() {
    let call = recorded("PreToolUse");
    assert_eq!((call.point, call.blocking), (Point::ToolCall, true));
    assert_eq!(call.turn.as_deref(), Some("33333333-3333-7333-8333-333333333333"));
    assert!(matches!(&tools::parts(&call, "")[0], tools::Part::Command { text, .. } if text.starts_with("echo")));
    assert_eq!(recorded("PreToolUse.mcp").call.unwrap().mcp, Some(("calc".into(), "add".into())));
    assert_eq!(recorded("PostToolUse").contents[0].text, "out\n");
    assert!(recorded("PostToolUse.mcp").contents.iter().any(|c| c.pointer == "/content/0/text"));
    assert_eq!(recorded("UserPromptSubmit").contents[0].pointer, "/prompt");
    assert_eq!(recorded("SessionStart").session, Some(SessionChange::Startup));
    assert_eq!(recorded("SessionEnd").session, Some(SessionChange::End));
    assert_eq!(recorded("SubagentStart").session, Some(SessionChange::Subagent));
    assert_eq!(recorded("Stop").contents[0].pointer, "/last_assistant_message");
}

#[test]
fn a_claude_payload_is_not_codex() {
    let mut payload: Value = serde_json::from_slice(&read("PreToolUse")).unwrap();
    payload.as_object_mut().unwrap().remove("turn_id");
    let refused = parse("codex", "PreToolUse", payload.to_string().as_bytes());
    assert_eq!(refused, Err(Malformed::Missing { key: "turn_id" }));
    let refused = parse("claude-code", "PreToolUse", &read("PreToolUse"));
    assert_eq!(refused, Err(Malformed::OtherAgent { looks_like: "codex" }));
}

#[test]
fn answers_are_exactly_what_the_strict_parser_takes() {
    let call = recorded("PreToolUse");
    check(&call, &Decision::allow(), "");
    check(&call, &decide(Verdict::Deny), DENIED);
    // Codex runs the call when it is told `ask`.
    check(&call, &decide(Verdict::Ask), DENIED);
    check(
        &call,
        &redact("/command", "true"),
        r#"{"hookSpecificOutput":{"hookEventName":"PreToolUse","permissionDecision":"allow","updatedInput":{"command":"true"}}}"#,
    );
    check(&call, &redact("/nowhere", "true"), DENIED);
    check(&recorded("UserPromptSubmit"), &decide(Verdict::Modify), r#"{"decision":"block","reason":"no"}"#);
    check(&recorded("PostToolUse"), &decide(Verdict::Deny), r#"{"decision":"block","reason":"no"}"#);
    check(&recorded("SessionStart"), &decide(Verdict::Deny), r#"{"continue":false,"stopReason":"no"}"#);
}

#[test]
fn a_redacted_result_travels_as_the_reason() {
    check(&recorded("PostToolUse"), &redact("", "[secret]\n"), r#"{"decision":"block","reason":"no\n\n[secret]\n"}"#);
    check(
        &recorded("PostToolUse.mcp"),
        &redact("/content/0/text", "SUM=[x]"),
        r#"{"decision":"block","reason":"no\n\nSUM=[x]"}"#,
    );
}

#[test]
fn a_deny_always_has_a_reason() {
    let empty = Decision { reason: String::new(), ..decide(Verdict::Deny) };
    check(&recorded("UserPromptSubmit"), &empty, r#"{"decision":"block","reason":"creel: denied"}"#);
}

#[test]
fn every_event_has_a_reading_and_an_allow_is_silence() {
    for known in kinds::CODEX_EVENTS {
        let payload = json!({
            "session_id": "s", "turn_id": "t", "model": "m", "cwd": "/p", "hook_event_name": known.name,
            "tool_name": "Bash", "tool_input": {"command": "ls"}, "tool_response": "x", "prompt": "p",
            "source": "startup", "transcript_path": null,
        });
        let action = parse("codex", known.name, payload.to_string().as_bytes()).unwrap();
        assert_eq!(answer("codex", &action, &Decision::allow()), Answer::default());
        let denied = answer("codex", &action, &decide(Verdict::Deny));
        assert!(!known.fails_closed() || denied != Answer::default(), "{} must be stopped", known.name);
    }
}
