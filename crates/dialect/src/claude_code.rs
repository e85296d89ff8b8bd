//! Claude Code's hook protocol, tested against 2.1.329: its 33 events to actions, decisions to its answers.
//!
//! The one thing a newcomer gets wrong: a result that is *blocked* has still been read by the model. Only
//! `updatedToolOutput` in the tool's own shape takes text back, so a denied result is replaced, not blocked.

mod tools;

use serde_json::{Map, Value, json};

use creel_model::{Action, Content, ContentRole, Decision, Point, Verdict, action::SessionChange};

use crate::answer::{Answer, OUTPUT_BYTES_MAX, reason};
use crate::parse::{ID_BYTES_MAX, NAME_BYTES_MAX, Payload};
use crate::{Malformed, deny, json};

pub(crate) use tools::tool_parts;

/// One payload as an action.
pub(crate) fn parse(payload: &Payload<'_>) -> Result<Action, Malformed> {
    let event = payload.event.name;
    let mut action = payload.action(point(event), "prompt_id")?;
    match event {
        "PreToolUse" => {
            let call = payload.call()?;
            json::texts(&call.input, "", ContentRole::Arguments, &mut action.contents)?;
            action.call = Some(call);
        }
        "PostToolUse" => {
            action.call = Some(payload.call()?);
            let result = payload.value("tool_response")?;
            result_texts(result, &mut action.contents)?;
            action.result = Some(result.clone());
        }
        "PostToolUseFailure" => {
            action.call = Some(payload.call()?);
            action.failed = true;
            let error = payload.text("error", crate::PAYLOAD_BYTES_MAX)?;
            action.contents.push(Content { role: ContentRole::Error, pointer: String::new(), text: error.to_owned() });
            action.result = Some(Value::String(error.to_owned()));
        }
        "PermissionRequest" | "PermissionDenied" => keep_tool_name(payload, &mut action)?,
        "PostToolBatch" => {
            let calls = payload.map.get("tool_calls").and_then(Value::as_array).map_or(0, Vec::len);
            action.facts.insert("tool_calls".to_owned(), json!(calls));
        }
        "UserPromptSubmit" => {
            payload.text("prompt", crate::PAYLOAD_BYTES_MAX)?;
            action.contents = payload.content("prompt", prompt_role(payload)?)?;
        }
        "UserPromptExpansion" => {
            action.contents = payload.content("prompt", ContentRole::Prompt)?;
            action.contents.extend(payload.content("command_args", ContentRole::Prompt)?);
        }
        "Stop" | "SubagentStop" => {
            action.contents = payload.content("last_assistant_message", ContentRole::Response)?;
            action.session = (event == "SubagentStop").then_some(SessionChange::End);
        }
        "MessageDisplay" => action.contents = payload.content("delta", ContentRole::Response)?,
        "SessionStart" => action.session = Some(session_change(payload.text("source", NAME_BYTES_MAX)?)),
        "SessionEnd" => action.session = Some(SessionChange::End),
        "SubagentStart" => {
            payload.text("agent_id", ID_BYTES_MAX)?;
            action.session = Some(SessionChange::Subagent);
        }
        "PostCompact" => action.contents = payload.content("compact_summary", ContentRole::Other)?,
        "Elicitation" => action.contents = payload.content("message", ContentRole::Other)?,
        "ElicitationResult" => {
            // What the person typed leaves for the MCP server.
            if let Some(content) = payload.map.get("content") {
                json::texts(content, "/content", ContentRole::Outbound, &mut action.contents)?;
            }
        }
        _ => {}
    }
    Ok(action)
}

/// Not every prompt is a person's: subagents that finish, wake-ups and events arrive as prompts too, and words that no
/// person wrote must not vouch for anything.
fn prompt_role(payload: &Payload<'_>) -> Result<ContentRole, Malformed> {
    let source = payload.optional_text("source", NAME_BYTES_MAX)?.unwrap_or("user");
    let words = payload.text("prompt", crate::PAYLOAD_BYTES_MAX)?.trim_start();
    let written = matches!(source, "user" | "sdk") && !words.starts_with("<task-notification>");
    Ok(if written { ContentRole::Prompt } else { ContentRole::Other })
}

fn point(event: &str) -> Point {
    match event {
        "PreToolUse" => Point::ToolCall,
        "PostToolUse" | "PostToolUseFailure" => Point::ToolResult,
        "UserPromptSubmit" | "UserPromptExpansion" => Point::Prompt,
        "Stop" | "SubagentStop" | "MessageDisplay" => Point::Response,
        "Elicitation" | "ElicitationResult" => Point::Mcp,
        _ => Point::Config,
    }
}

/// The call itself was or will be judged at `PreToolUse`, so here it is a fact and not judged twice.
fn keep_tool_name(payload: &Payload<'_>, action: &mut Action) -> Result<(), Malformed> {
    let tool = payload.text("tool_name", NAME_BYTES_MAX)?;
    action.facts.insert("tool_name".to_owned(), Value::String(tool.to_owned()));
    Ok(())
}

/// A source that is not known counts as resumed: nothing is assumed about what was read before.
fn session_change(source: &str) -> SessionChange {
    match source {
        "startup" => SessionChange::Startup,
        "clear" => SessionChange::Clear,
        "compact" => SessionChange::Compact,
        "fork" => SessionChange::Fork,
        _ => SessionChange::Resume,
    }
}

/// Every text of a result that a model can read; base64 data of images and documents is not text.
fn result_texts(result: &Value, contents: &mut Vec<Content>) -> Result<(), Malformed> {
    json::texts(result, "", ContentRole::Result, contents)?;
    contents.retain(|content| !is_binary(result, &content.pointer));
    Ok(())
}

fn is_binary(result: &Value, pointer: &str) -> bool {
    let Some((parent, key)) = pointer.rsplit_once('/') else { return false };
    if !matches!(key, "base64" | "data") {
        return false;
    }
    let typed = |value: &Value| {
        ["type", "mediaType", "media_type", "mimeType"].iter().any(|key| {
            value.get(key).and_then(Value::as_str).is_some_and(|kind| {
                matches!(kind, "image" | "audio" | "pdf" | "base64")
                    || ["image/", "audio/", "application/pdf"].iter().any(|prefix| kind.starts_with(prefix))
            })
        })
    };
    let grandparent = parent.rsplit_once('/').map(|(grandparent, _)| grandparent);
    [Some(parent), grandparent].into_iter().flatten().filter_map(|at| result.pointer(at)).any(typed)
}

/// A decision in this agent's words.
pub(crate) fn answer(action: &Action, decision: &Decision) -> Answer {
    if decision.verdict == Verdict::Allow {
        return Answer::default();
    }
    let why = reason(decision);
    match action.event.as_str() {
        "PreToolUse" => pre_tool_use(action, decision, &why),
        "PostToolUse" => post_tool_use(action, decision, &why),
        "UserPromptSubmit" | "UserPromptExpansion" => Answer::json(&json!({
            "decision": "block",
            "reason": why,
            "hookSpecificOutput": {"hookEventName": action.event, "suppressOriginalPrompt": true},
        })),
        // Here the error text cannot be replaced; the `PostToolUse` that 2.1.329 sends next can do it. Older versions may
        // send none: ending the run is all that is left there. Words of the model are already on the screen, so a mere
        // redaction of them changes nothing any more.
        "PostToolUseFailure" => end_run(&why),
        "Stop" | "SubagentStop" if decision.verdict != Verdict::Modify => end_run(&why),
        "PermissionRequest" => Answer::from(deny::print(&action.kind, "PermissionRequest", &why)),
        "PreCompact" | "TeammateIdle" | "TaskCompleted" => Answer::exit_two(&why),
        event => Answer::from(deny::print(&action.kind, event, &why)),
    }
}

fn end_run(why: &str) -> Answer {
    Answer::json(&json!({"continue": false, "stopReason": why}))
}

fn pre_tool_use(action: &Action, decision: &Decision, why: &str) -> Answer {
    let permission = |word: &str| {
        Answer::json(&json!({"hookSpecificOutput": {
            "hookEventName": "PreToolUse",
            "permissionDecision": word,
            "permissionDecisionReason": why,
        }}))
    };
    match decision.verdict {
        // Without a pending approval of ours, the agent's own question is meant.
        Verdict::Ask if decision.approval.is_none() => permission("ask"),
        Verdict::Modify => {
            let input = action.call.as_ref().and_then(|call| json::apply(&call.input, &decision.modifications).ok());
            let rewritten = input.map(|input| {
                // No decision beside it: the agent's own permission flow goes on.
                Answer::json(&json!({"hookSpecificOutput": {"hookEventName": "PreToolUse", "updatedInput": input}}))
            });
            rewritten.filter(|answer| answer.stdout.len() <= OUTPUT_BYTES_MAX).unwrap_or_else(|| permission("deny"))
        }
        _ => permission("deny"),
    }
}

fn post_tool_use(action: &Action, decision: &Decision, why: &str) -> Answer {
    let result = action.result.as_ref().unwrap_or(&Value::Null);
    if decision.verdict == Verdict::Modify
        && let Ok(changed) = json::apply(result, &decision.modifications)
    {
        let answer = Answer::json(&json!({"hookSpecificOutput": {
            "hookEventName": "PostToolUse",
            "updatedToolOutput": shaped(action, changed),
        }}));
        if answer.stdout.len() <= OUTPUT_BYTES_MAX {
            return answer;
        }
    }
    let answer = Answer::json(&json!({
        "decision": "block",
        "reason": why,
        "hookSpecificOutput": {"hookEventName": "PostToolUse", "updatedToolOutput": shaped(action, withheld(result, why))},
    }));
    if answer.stdout.len() <= OUTPUT_BYTES_MAX { answer } else { end_run(why) }
}

/// A failed call is reported a second time at `PostToolUse` with its error as plain text, but replaced only by what the
/// tool gives when it succeeds. Where we know that shape, the text goes into it; elsewhere the agent refuses our text
/// and shows the model that refusal instead of the result, which holds as well.
fn shaped(action: &Action, output: Value) -> Value {
    let tool = action.call.as_ref().map_or("", |call| call.tool.as_str());
    match output {
        Value::String(text) if matches!(tool, "Bash" | "PowerShell") => {
            json!({"stdout": text, "stderr": "", "interrupted": false, "isImage": false})
        }
        output => output,
    }
}

/// The result with nothing left of what it told, in the shape that the agent accepts for this tool.
fn withheld(result: &Value, why: &str) -> Value {
    match result {
        Value::Array(_) => json!([{"type": "text", "text": why}]),
        Value::Object(map) if map.get("file").is_some_and(Value::is_object) => read_withheld(map, why),
        Value::Object(map) => {
            let mut told = false;
            let mut kept = emptied(map, why, &mut told);
            if kept.get("isImage") == Some(&Value::Bool(true)) {
                kept.insert("isImage".to_owned(), Value::Bool(false));
            }
            Value::Object(kept)
        }
        _ => Value::String(why.to_owned()),
    }
}

/// `Read` has five shapes; the text one is valid for every file.
fn read_withheld(map: &Map<String, Value>, why: &str) -> Value {
    let path = map.get("file").and_then(|file| file.get("filePath")).and_then(Value::as_str).unwrap_or_default();
    json!({"type": "text", "file": {
        "filePath": path, "content": why, "numLines": 1, "startLine": 1, "totalLines": 1,
    }})
}

/// Every text is emptied but words of the shape itself; the first one that a model reads carries the reason.
fn emptied(map: &Map<String, Value>, why: &str, told: &mut bool) -> Map<String, Value> {
    const SHAPE: &[&str] = &["type", "mode", "status", "agentId", "agentType", "filePath", "file_path", "mimeType"];
    const READ: &[&str] = &["stdout", "content", "text", "result", "output", "message"];
    let mut kept = Map::new();
    for (key, value) in map {
        let value = match value {
            Value::String(_) if SHAPE.contains(&key.as_str()) => value.clone(),
            Value::String(_) if READ.contains(&key.as_str()) && !*told => {
                *told = true;
                Value::String(why.to_owned())
            }
            Value::String(_) => Value::String(String::new()),
            Value::Array(items) if READ.contains(&key.as_str()) && items.iter().any(Value::is_object) && !*told => {
                *told = true;
                json!([{"type": "text", "text": why}])
            }
            Value::Array(_) => Value::Array(Vec::new()),
            Value::Object(inner) => Value::Object(emptied(inner, why, told)),
            other => other.clone(),
        };
        kept.insert(key.clone(), value);
    }
    kept
}

#[cfg(test)]
mod tests;
