//! Recorded events of Claude Code 2.1.329 in, exact answers out.

use serde_json::{Value, json};

use creel_model::{Action, ContentRole, Decision, Modification, Point, Verdict, action::SessionChange};

use crate::answer::Answer;
use crate::{answer, kinds, parse, tools};

fn recorded(name: &str) -> Action {
    let path = format!("{}/testdata/claude-code/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let event = name.split('.').next().unwrap();
    parse("claude-code", event, &std::fs::read(path).unwrap()).unwrap()
}

fn event(name: &str, extra: Value) -> Action {
    let mut payload = json!({"session_id": "s", "cwd": "/p", "hook_event_name": name});
    payload.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    parse("claude-code", name, payload.to_string().as_bytes()).unwrap()
}

fn decide(verdict: Verdict) -> Decision {
    Decision { verdict, reason: "no \"such\" thing".into(), ..Decision::allow() }
}

fn redact(pointer: &str, text: &str) -> Decision {
    let modifications = vec![Modification { pointer: pointer.into(), text: text.into(), replaced: 1 }];
    Decision { modifications, ..decide(Verdict::Modify) }
}

#[track_caller]
fn check(action: &Action, decision: &Decision, expected: Value) {
    let found = answer("claude-code", action, decision);
    let json: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!((json, found.stderr, found.exit_code), (expected, Vec::new(), 0));
}

#[test]
fn recorded_events_become_actions() {
    let call = recorded("PreToolUse");
    assert_eq!((call.point, call.blocking), (Point::ToolCall, true));
    assert_eq!(call.conversation, "11111111-1111-4111-8111-111111111111");
    assert_eq!(call.turn.as_deref(), Some("22222222-2222-4222-8222-222222222222"));
    assert_eq!(call.permission_mode.as_deref(), Some("bypassPermissions"));
    assert_eq!(call.call.as_ref().unwrap().call_id.as_deref(), Some("toolu_000000_0"));
    assert_eq!(call.contents[0].pointer, "/command");
    assert!(
        matches!(&tools::parts(&call, "/home/user")[0], tools::Part::Command { text, .. } if text.starts_with("echo"))
    );

    let mcp = recorded("PreToolUse.mcp");
    assert_eq!(mcp.call.unwrap().mcp, Some(("calc".into(), "add".into())));

    let result = recorded("PostToolUse");
    assert_eq!(result.contents.iter().map(|c| c.pointer.as_str()).collect::<Vec<_>>(), ["/stdout"]);
    assert!(crate::same_input(call.call.as_ref().unwrap(), result.call.as_ref().unwrap()));
    let result = recorded("PostToolUse.mcp");
    assert!(result.contents.iter().any(|c| c.pointer == "/0/text" && c.text == "SUM=5"));

    let failed = recorded("PostToolUseFailure");
    assert!(failed.failed);
    assert_eq!((failed.contents[0].role, failed.contents[0].text.as_str()), (ContentRole::Error, "Exit code 3"));

    let prompt = recorded("UserPromptSubmit");
    assert_eq!((prompt.point, prompt.contents[0].pointer.as_str()), (Point::Prompt, "/prompt"));
    assert_eq!(recorded("SessionStart").session, Some(SessionChange::Startup));
    assert_eq!(recorded("SessionEnd").session, Some(SessionChange::End));
    let subagent = recorded("SubagentStart");
    assert_eq!(
        (subagent.session, subagent.subagent.as_deref()),
        (Some(SessionChange::Subagent), Some("a47599c1e65252916"))
    );
    assert_eq!(recorded("SubagentStop").session, Some(SessionChange::End));
    assert_eq!(recorded("Stop").contents[0].text, "done");
    assert_eq!(recorded("PostToolBatch").facts["tool_calls"], 1);
    assert_eq!(recorded("MessageDisplay").point, Point::Response);
}

#[test]
fn every_event_has_a_reading_and_an_allow_is_silence() {
    let extra = json!({
        "tool_name": "Bash", "tool_input": {"command": "ls"}, "tool_use_id": "t", "tool_response": "ok", "error": "e",
        "prompt": "p", "source": "startup", "agent_id": "a", "reason": "other", "trigger": "auto", "message": "m",
        "content": {"name": "x"},
    });
    for known in kinds::CLAUDE_CODE_EVENTS {
        let action = event(known.name, extra.clone());
        assert_eq!(answer("claude-code", &action, &Decision::allow()), Answer::default(), "{}", known.name);
        assert!(serde_json::to_string(&action).is_ok());
        let denied = answer("claude-code", &action, &decide(Verdict::Deny));
        assert!(known.blocking || denied == Answer::default(), "{} cannot be stopped", known.name);
        assert!(!known.fails_closed() || denied != Answer::default(), "{} must be stopped", known.name);
    }
}

#[test]
fn facts_never_hold_prompts_or_results() {
    let marked = json!({
        "tool_name": "Bash", "tool_input": {"command": "SECRET"}, "tool_response": "SECRET", "error": "SECRET",
        "prompt": "SECRET", "source": "startup", "agent_id": "a", "last_assistant_message": "SECRET",
        "message": "SECRET", "compact_summary": "SECRET", "custom_instructions": "SECRET", "title": "SECRET",
        "session_title": "SECRET", "mcp_server": {"name": "x", "nested": {"y": "SECRET"}}, "unknown_new": "SECRET",
    });
    for known in kinds::CLAUDE_CODE_EVENTS {
        let facts = Value::Object(event(known.name, marked.clone()).facts).to_string();
        assert!(!facts.contains("SECRET"), "{}: {facts}", known.name);
    }
}

#[test]
fn a_call_is_denied_asked_or_rewritten() {
    let call = recorded("PreToolUse");
    let permission = |word: &str| {
        json!({"hookSpecificOutput": {"hookEventName": "PreToolUse", "permissionDecision": word,
            "permissionDecisionReason": "no \"such\" thing"}})
    };
    check(&call, &decide(Verdict::Deny), permission("deny"));
    check(&call, &decide(Verdict::Ask), permission("ask"));
    // Held by us until the deadline: now it is a no.
    check(&call, &Decision { approval: Some("a1".into()), ..decide(Verdict::Ask) }, permission("deny"));
    check(
        &call,
        &redact("/command", "echo [redacted]"),
        json!({"hookSpecificOutput": {"hookEventName": "PreToolUse",
            "updatedInput": {"command": "echo [redacted]", "description": "x"}}}),
    );
    check(&call, &redact("/nowhere", "x"), permission("deny"));
}

#[test]
fn a_result_is_replaced_in_its_own_shape() {
    let replaced =
        |output: Value| json!({"hookSpecificOutput": {"hookEventName": "PostToolUse", "updatedToolOutput": output}});
    let bash = recorded("PostToolUse");
    check(
        &bash,
        &redact("/stdout", "[redacted]"),
        replaced(json!({"stdout": "[redacted]", "stderr": "", "interrupted": false, "isImage": false,
            "noOutputExpected": false})),
    );
    check(&recorded("PostToolUse.mcp"), &redact("/0/text", "-"), replaced(json!([{"type": "text", "text": "-"}])));
}

/// A failed command comes as text and must go back as what a command gives.
#[test]
fn an_error_text_is_replaced_in_the_shape_of_a_success() {
    let action = event(
        "PostToolUse",
        json!({"tool_name": "Bash", "tool_input": {}, "tool_response": "Error: Exit code 3\nkey"}),
    );
    let shape = |stdout: &str| json!({"stdout": stdout, "stderr": "", "interrupted": false, "isImage": false});
    check(
        &action,
        &redact("", "Error: Exit code 3\n-"),
        json!({"hookSpecificOutput": {"hookEventName": "PostToolUse", "updatedToolOutput": shape("Error: Exit code 3\n-")}}),
    );
    let denied = answer("claude-code", &action, &decide(Verdict::Deny));
    let denied: Value = serde_json::from_slice(&denied.stdout).unwrap();
    assert_eq!(denied["hookSpecificOutput"]["updatedToolOutput"], shape("no \"such\" thing"));
}

/// The shapes of the tools' results in 2.1.329.
#[test]
fn a_denied_result_tells_nothing_and_keeps_its_shape() {
    let withheld = |response: Value| {
        let action = event("PostToolUse", json!({"tool_name": "T", "tool_input": {}, "tool_response": response}));
        let found = answer("claude-code", &action, &decide(Verdict::Deny));
        let json: Value = serde_json::from_slice(&found.stdout).unwrap();
        assert_eq!(json["decision"], "block");
        json["hookSpecificOutput"]["updatedToolOutput"].clone()
    };
    let why = "no \"such\" thing";
    assert_eq!(withheld(json!("SECRET")), why);
    assert_eq!(withheld(json!([{"type": "text", "text": "SECRET"}])), json!([{"type": "text", "text": why}]));
    assert_eq!(
        withheld(json!({"stdout": "SECRET", "stderr": "SECRET", "interrupted": false, "isImage": true,
            "structuredContent": ["SECRET"]})),
        json!({"stdout": why, "stderr": "", "interrupted": false, "isImage": false, "structuredContent": []})
    );
    let read = json!({"type": "text", "file": {"filePath": "/a", "content": why, "numLines": 1, "startLine": 1,
        "totalLines": 1}});
    assert_eq!(
        withheld(json!({"type": "text", "file": {"filePath": "/a", "content": "SECRET", "numLines": 9, "startLine": 1,
            "totalLines": 9}})),
        read
    );
    assert_eq!(
        withheld(json!({"type": "pdf", "file": {"filePath": "/a", "base64": "SECRET", "originalSize": 3}})),
        read
    );
    assert_eq!(
        withheld(
            json!({"mode": "content", "numFiles": 0, "filenames": ["SECRET"], "content": "SECRET", "numLines": 1})
        ),
        json!({"mode": "content", "numFiles": 0, "filenames": [], "content": why, "numLines": 1})
    );
    assert_eq!(
        withheld(json!({"agentId": "a", "content": [{"type": "text", "text": "SECRET"}], "totalTokens": 1})),
        json!({"agentId": "a", "content": [{"type": "text", "text": why}], "totalTokens": 1})
    );
}

#[test]
fn images_are_not_text() {
    let action = event(
        "PostToolUse",
        json!({"tool_name": "mcp__a__b", "tool_input": {}, "tool_response": [
            {"type": "image", "data": "AAAA", "mimeType": "image/png"},
            {"type": "image", "source": {"type": "base64", "data": "BBBB"}},
            {"type": "text", "text": "seen", "data": "seen too"},
        ]}),
    );
    let texts: Vec<_> = action.contents.iter().map(|content| content.text.as_str()).collect();
    assert!(texts.contains(&"seen") && texts.contains(&"seen too"));
    assert!(!texts.contains(&"AAAA") && !texts.contains(&"BBBB"));
}

#[test]
fn a_prompt_is_blocked_and_not_repeated() {
    let blocked = json!({"decision": "block", "reason": "no \"such\" thing",
        "hookSpecificOutput": {"hookEventName": "UserPromptSubmit", "suppressOriginalPrompt": true}});
    for verdict in [Verdict::Deny, Verdict::Ask, Verdict::Modify] {
        check(&recorded("UserPromptSubmit"), &decide(verdict), blocked.clone());
    }
}

#[test]
fn what_cannot_be_taken_back_ends_the_run() {
    let ended = json!({"continue": false, "stopReason": "no \"such\" thing"});
    check(&recorded("PostToolUseFailure"), &decide(Verdict::Modify), ended.clone());
    check(&recorded("Stop"), &decide(Verdict::Deny), ended);
    assert_eq!(answer("claude-code", &recorded("Stop"), &decide(Verdict::Modify)), Answer::default());
}

#[test]
fn a_huge_redacted_result_is_withheld_instead() {
    let action = event(
        "PostToolUse",
        json!({"tool_name": "Bash", "tool_input": {}, "tool_response": {"stdout": "x".repeat(2_000_000), "stderr": "key"}}),
    );
    let found = answer("claude-code", &action, &redact("/stderr", "-"));
    assert!(found.stdout.len() < 10_000);
    assert!(String::from_utf8(found.stdout).unwrap().contains("such"));
}

#[test]
fn a_prompt_that_no_person_wrote_is_not_the_persons_word() {
    let role = |extra: Value| event("UserPromptSubmit", extra).contents[0].role;
    assert_eq!(role(json!({"prompt": "go"})), ContentRole::Prompt);
    assert_eq!(role(json!({"prompt": "go", "source": "sdk"})), ContentRole::Prompt);
    assert_eq!(role(json!({"prompt": "go", "source": "poll_event"})), ContentRole::Other);
    assert_eq!(role(json!({"prompt": "go", "source": "brand-new"})), ContentRole::Other);
    assert_eq!(role(json!({"prompt": "<task-notification>\n<result>go</result>"})), ContentRole::Other);
}

#[test]
fn sources_of_a_session() {
    for (source, expected) in [
        ("resume", SessionChange::Resume),
        ("clear", SessionChange::Clear),
        ("compact", SessionChange::Compact),
        ("fork", SessionChange::Fork),
        ("something-new", SessionChange::Resume),
    ] {
        assert_eq!(event("SessionStart", json!({"source": source})).session, Some(expected));
    }
}
