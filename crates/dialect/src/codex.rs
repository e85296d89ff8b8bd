//! Codex's hook protocol, tested against 0.169: its events to actions, decisions to its strict answers.
//!
//! The one thing a newcomer gets wrong: Codex's parser treats one unknown field, a deny without a reason or the word
//! `ask` as a failed hook, and a failed hook lets the call run. Every answer here has exactly the documented fields.

mod patch;
mod tools;

use serde_json::{Value, json};

use creel_model::{Action, ContentRole, Decision, Point, Verdict, action::SessionChange};

use crate::answer::{Answer, OUTPUT_BYTES_MAX, reason};
use crate::parse::{ID_BYTES_MAX, NAME_BYTES_MAX, Payload};
use crate::{Malformed, deny, json};

pub(crate) use tools::tool_parts;

/// One payload as an action.
pub(crate) fn parse(payload: &Payload<'_>) -> Result<Action, Malformed> {
    let event = payload.event.name;
    let mut action = payload.action(point(event), "turn_id")?;
    if matches!(event, "PreToolUse" | "PostToolUse" | "UserPromptSubmit" | "Stop") {
        // Codex always has both here; without them it is somebody else's payload.
        payload.text("turn_id", ID_BYTES_MAX)?;
        payload.text("model", NAME_BYTES_MAX)?;
    }
    match event {
        "PreToolUse" => {
            let call = payload.call()?;
            json::texts(&call.input, "", ContentRole::Arguments, &mut action.contents)?;
            action.call = Some(call);
        }
        "PostToolUse" => {
            action.call = Some(payload.call()?);
            let result = payload.value("tool_response")?;
            json::texts(result, "", ContentRole::Result, &mut action.contents)?;
            action.result = Some(result.clone());
        }
        "PermissionRequest" => {
            let tool = payload.text("tool_name", NAME_BYTES_MAX)?;
            action.facts.insert("tool_name".to_owned(), Value::String(tool.to_owned()));
        }
        "UserPromptSubmit" => {
            payload.text("prompt", crate::PAYLOAD_BYTES_MAX)?;
            action.contents = payload.content("prompt", ContentRole::Prompt)?;
        }
        "Stop" | "SubagentStop" => {
            action.contents = payload.content("last_assistant_message", ContentRole::Response)?;
            action.session = (event == "SubagentStop").then_some(SessionChange::End);
        }
        "SessionStart" => {
            action.session = Some(match payload.text("source", NAME_BYTES_MAX)? {
                "startup" => SessionChange::Startup,
                "clear" => SessionChange::Clear,
                "compact" => SessionChange::Compact,
                "fork" => SessionChange::Fork,
                _ => SessionChange::Resume,
            });
        }
        "SessionEnd" => action.session = Some(SessionChange::End),
        "SubagentStart" => action.session = Some(SessionChange::Subagent),
        _ => {}
    }
    Ok(action)
}

fn point(event: &str) -> Point {
    match event {
        "PreToolUse" => Point::ToolCall,
        "PostToolUse" => Point::ToolResult,
        "UserPromptSubmit" => Point::Prompt,
        "Stop" | "SubagentStop" => Point::Response,
        _ => Point::Config,
    }
}

/// A decision in this agent's words. There is no native question: an ask is a deny that says where to answer.
pub(crate) fn answer(action: &Action, decision: &Decision) -> Answer {
    if decision.verdict == Verdict::Allow {
        return Answer::default();
    }
    let why = reason(decision);
    match action.event.as_str() {
        "PreToolUse" => pre_tool_use(action, decision, &why),
        "PostToolUse" => post_tool_use(action, decision, &why),
        "UserPromptSubmit" => Answer::json(&json!({"decision": "block", "reason": why})),
        "SessionStart" => Answer::json(&json!({"continue": false, "stopReason": why})),
        event => Answer::from(deny::print(&action.kind, event, &why)),
    }
}

fn pre_tool_use(action: &Action, decision: &Decision, why: &str) -> Answer {
    if decision.verdict == Verdict::Modify {
        let input = action.call.as_ref().and_then(|call| json::apply(&call.input, &decision.modifications).ok());
        if let Some(input) = input {
            // `updatedInput` is only taken together with an explicit allow.
            let answer = Answer::json(&json!({"hookSpecificOutput": {
                "hookEventName": "PreToolUse",
                "permissionDecision": "allow",
                "updatedInput": input,
            }}));
            if answer.stdout.len() <= OUTPUT_BYTES_MAX {
                return answer;
            }
        }
    }
    Answer::json(&json!({"hookSpecificOutput": {
        "hookEventName": "PreToolUse",
        "permissionDecision": "deny",
        "permissionDecisionReason": why,
    }}))
}

/// A blocked result is replaced by the reason: so a redacted result travels as the reason.
fn post_tool_use(action: &Action, decision: &Decision, why: &str) -> Answer {
    let block = |text: &str| Answer::json(&json!({"decision": "block", "reason": text}));
    if decision.verdict == Verdict::Modify
        && let Some(result) = &action.result
        && let Ok(changed) = json::apply(result, &decision.modifications)
    {
        let answer = block(&format!("{why}\n\n{}", shown(&changed)));
        if answer.stdout.len() <= OUTPUT_BYTES_MAX {
            return answer;
        }
    }
    block(why)
}

/// A result as the model would have read it.
fn shown(result: &Value) -> String {
    let blocks = result.get("content").unwrap_or(result);
    match blocks {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(|item| item.get("text").is_some_and(Value::is_string)) => {
            let texts: Vec<&str> = items.iter().filter_map(|item| item.get("text").and_then(Value::as_str)).collect();
            texts.join("\n")
        }
        _ => result.to_string(),
    }
}

#[cfg(test)]
mod tests;
