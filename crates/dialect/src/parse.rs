//! A payload becomes an action: what all command-hook agents have in common.
//!
//! Bounds and types are checked here once; what each event means stands in [`crate::claude_code`] and
//! [`crate::codex`]. The one thing a newcomer gets wrong: hook files are read by other agents too. A payload that looks
//! like another agent's is refused, because an answer in the wrong words would be an open door.

use serde_json::{Map, Value};

use creel_model::{Action, Content, ContentRole, Point, ToolCall};

use crate::kinds::{self, Event};
use crate::{Malformed, claude_code, codex, json};

/// Longest payload.
pub const PAYLOAD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest tool name.
pub(crate) const NAME_BYTES_MAX: usize = 256;
/// Longest id: conversation, turn, call, subagent.
pub(crate) const ID_BYTES_MAX: usize = 256;
/// Longest path.
pub(crate) const PATH_BYTES_MAX: usize = 4096;
/// Longest single fact that is kept; longer ones are left out.
const FACT_BYTES_MAX: usize = 1024;

/// One event of an agent of this kind, from the hook's standard input.
///
/// # Errors
/// Everything that is not exactly one well-formed payload of this kind and event: [`Malformed`], to be denied.
pub fn parse(kind: &str, event: &str, payload: &[u8]) -> Result<Action, Malformed> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(Malformed::TooLarge { bytes: payload.len() });
    }
    if !kinds::ALL.contains(&kind) {
        return Err(Malformed::UnknownKind { kind: cut(kind) });
    }
    let event = kinds::event(kind, event).ok_or_else(|| Malformed::UnknownEvent { event: cut(event) })?;
    let Value::Object(map) = json::parse(payload)? else {
        return Err(Malformed::WrongType { key: "payload", expected: "an object" });
    };
    let payload = Payload { kind, event, map };
    if let Some(looks_like) = other_agent(kind, &payload.map) {
        return Err(Malformed::OtherAgent { looks_like });
    }
    let named = payload.text("hook_event_name", NAME_BYTES_MAX)?;
    if named != event.name {
        return Err(Malformed::WrongEvent { found: cut(named) });
    }
    if kind == kinds::CODEX { codex::parse(&payload) } else { claude_code::parse(&payload) }
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Whose payload this is, when it is certainly not this kind's.
fn other_agent(kind: &str, map: &Map<String, Value>) -> Option<&'static str> {
    const GEMINI_EVENTS: &[&str] = &[
        "BeforeTool",
        "AfterTool",
        "BeforeAgent",
        "AfterAgent",
        "BeforeModel",
        "AfterModel",
        "BeforeToolSelection",
        "PreCompress",
    ];
    let has = |key: &str| map.contains_key(key);
    let event = map.get("hook_event_name").and_then(Value::as_str).unwrap_or_default();
    if has("cursor_version") {
        Some("cursor")
    } else if has("agent_action_name") {
        Some("windsurf")
    } else if has("clineVersion") || has("hookName") {
        Some("cline")
    } else if has("sessionId") || has("toolName") || has("toolArgs") {
        Some("copilot-cli")
    } else if has("sessionID") || has("callID") {
        Some("opencode")
    } else if GEMINI_EVENTS.contains(&event) {
        Some("gemini-cli")
    } else if has("event") && has("session_id") && !has("hook_event_name") {
        Some("crush")
    } else if kind == kinds::CLAUDE_CODE && has("turn_id") && has("model") {
        // Claude Code has a turn id only at `MessageDisplay`, and never together with the model.
        Some(kinds::CODEX)
    } else if kind == kinds::CODEX && (has("prompt_id") || has("effort") || has("scratchpad_dir")) {
        Some(kinds::CLAUDE_CODE)
    } else {
        None
    }
}

/// A payload's object with typed, bounded access.
pub(crate) struct Payload<'a> {
    pub(crate) kind: &'a str,
    pub(crate) event: &'static Event,
    pub(crate) map: Map<String, Value>,
}

impl Payload<'_> {
    /// A text that must be there.
    pub(crate) fn text(&self, key: &'static str, max: usize) -> Result<&str, Malformed> {
        self.optional_text(key, max)?.ok_or(Malformed::Missing { key })
    }

    /// A text that may be absent or null.
    pub(crate) fn optional_text(&self, key: &'static str, max: usize) -> Result<Option<&str>, Malformed> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.len() > max => Err(Malformed::TooLong { key, max }),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Malformed::WrongType { key, expected: "a text" }),
        }
    }

    /// A value that must be there.
    pub(crate) fn value(&self, key: &'static str) -> Result<&Value, Malformed> {
        self.map.get(key).ok_or(Malformed::Missing { key })
    }

    /// The text at `key` as content, addressed from the payload's root; nothing when absent.
    pub(crate) fn content(&self, key: &'static str, role: ContentRole) -> Result<Vec<Content>, Malformed> {
        let text = self.optional_text(key, PAYLOAD_BYTES_MAX)?;
        Ok(text.map(|text| Content { role, pointer: format!("/{key}"), text: text.to_owned() }).into_iter().collect())
    }

    /// What every event of these agents has.
    pub(crate) fn action(&self, point: Point, turn_key: &'static str) -> Result<Action, Malformed> {
        let conversation = self.text("session_id", ID_BYTES_MAX)?.to_owned();
        let cwd = self.text("cwd", PATH_BYTES_MAX)?;
        if !cwd.starts_with('/') || cwd.contains('\0') {
            return Err(Malformed::RelativeCwd);
        }
        Ok(Action {
            point,
            kind: self.kind.to_owned(),
            event: self.event.name.to_owned(),
            conversation,
            turn: self.optional_text(turn_key, ID_BYTES_MAX)?.map(str::to_owned),
            subagent: self.optional_text("agent_id", ID_BYTES_MAX)?.map(str::to_owned),
            cwd: Some(cwd.to_owned()),
            permission_mode: self.optional_text("permission_mode", NAME_BYTES_MAX)?.map(str::to_owned),
            call: None,
            result: None,
            failed: false,
            blocking: self.event.blocking,
            contents: Vec::new(),
            session: None,
            facts: self.facts(),
        })
    }

    /// The tool call of a tool event.
    pub(crate) fn call(&self) -> Result<ToolCall, Malformed> {
        let tool = self.text("tool_name", NAME_BYTES_MAX)?;
        if tool.is_empty() {
            return Err(Malformed::Missing { key: "tool_name" });
        }
        let input = self.value("tool_input")?;
        if !input.is_object() {
            return Err(Malformed::WrongType { key: "tool_input", expected: "an object" });
        }
        Ok(ToolCall {
            tool: tool.to_owned(),
            input: input.clone(),
            call_id: self.optional_text("tool_use_id", ID_BYTES_MAX)?.map(str::to_owned),
            mcp: mcp_name(tool, self.map.get("mcp_server")),
        })
    }

    /// Facts by allow-list: names, paths, ids and counts, never prompt or result text.
    fn facts(&self) -> Map<String, Value> {
        const KEPT: &[&str] = &[
            "action",
            "agent_transcript_path",
            "agent_type",
            "command_name",
            "command_source",
            "context_tokens",
            "directory",
            "duration_ms",
            "effort",
            "event",
            "expansion_type",
            "file_path",
            "from_model",
            "is_interrupt",
            "load_reason",
            "mcp_server",
            "mcp_server_name",
            "memory_type",
            "mode",
            "model",
            "name",
            "new_cwd",
            "notification_type",
            "old_cwd",
            "parent_file_path",
            "reason",
            "source",
            "stop_hook_active",
            "task_id",
            "team_name",
            "teammate_name",
            "to_model",
            "transcript_path",
            "trigger",
            "trigger_file_path",
            "worktree_path",
        ];
        let small = |value: &Value| match value {
            Value::Null | Value::Array(_) => false,
            Value::Bool(_) | Value::Number(_) => true,
            Value::String(text) => text.len() <= FACT_BYTES_MAX,
            Value::Object(map) => {
                map.values().all(|value| !value.is_object() && !value.is_array())
                    && value.to_string().len() <= FACT_BYTES_MAX
            }
        };
        let kept = self.map.iter().filter(|(key, value)| KEPT.contains(&key.as_str()) && small(value));
        kept.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

/// Server and tool of `mcp__server__tool`; the agent's own statement of the server decides where the name is ambiguous.
fn mcp_name(tool: &str, stated: Option<&Value>) -> Option<(String, String)> {
    let rest = tool.strip_prefix("mcp__")?;
    let stated = stated.and_then(|server| server.get("name")).and_then(Value::as_str).map(spelled);
    let by_statement =
        stated.as_deref().and_then(|server| Some((server, rest.strip_prefix(server)?.strip_prefix("__")?)));
    let (server, name) = by_statement.or_else(|| rest.split_once("__"))?;
    (!server.is_empty() && !name.is_empty()).then(|| (server.to_owned(), name.to_owned()))
}

/// A server's name as it stands inside a tool's name.
fn spelled(server: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    server.chars().map(keep).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn base() -> Value {
        json!({"session_id": "s", "cwd": "/p", "hook_event_name": "PreToolUse", "tool_name": "Bash",
            "tool_input": {"command": "ls"}})
    }

    fn refused(kind: &str, change: impl FnOnce(&mut Map<String, Value>)) -> Malformed {
        let mut value = base();
        change(value.as_object_mut().unwrap());
        parse(kind, "PreToolUse", value.to_string().as_bytes()).unwrap_err()
    }

    #[test]
    fn another_agents_payload_is_refused() {
        for (key, looks_like) in [
            ("cursor_version", "cursor"),
            ("agent_action_name", "windsurf"),
            ("clineVersion", "cline"),
            ("sessionId", "copilot-cli"),
            ("toolName", "copilot-cli"),
        ] {
            let malformed = refused("claude-code", |map| drop(map.insert(key.into(), json!("x"))));
            assert_eq!(malformed, Malformed::OtherAgent { looks_like });
        }
        let codex = refused("claude-code", |map| {
            map.insert("turn_id".into(), json!("t"));
            map.insert("model".into(), json!("m"));
        });
        assert_eq!(codex, Malformed::OtherAgent { looks_like: "codex" });
        let claude = refused("codex", |map| drop(map.insert("prompt_id".into(), json!("p"))));
        assert_eq!(claude, Malformed::OtherAgent { looks_like: "claude-code" });
    }

    #[test]
    fn a_payload_that_is_not_whole_is_refused() {
        let kind = "claude-code";
        for key in ["session_id", "cwd", "hook_event_name", "tool_name", "tool_input"] {
            let malformed = refused(kind, |map| drop(map.remove(key)));
            assert!(matches!(malformed, Malformed::Missing { key: missing } if missing == key), "{malformed}");
        }
        assert_eq!(refused(kind, |map| drop(map.insert("cwd".into(), json!("p")))), Malformed::RelativeCwd);
        assert!(matches!(
            refused(kind, |map| drop(map.insert("hook_event_name".into(), json!("Stop")))),
            Malformed::WrongEvent { .. }
        ));
        assert!(matches!(
            refused(kind, |map| drop(map.insert("tool_input".into(), json!("rm -rf /")))),
            Malformed::WrongType { key: "tool_input", .. }
        ));
        assert!(matches!(
            refused(kind, |map| drop(map.insert("tool_name".into(), json!("x".repeat(257))))),
            Malformed::TooLong { key: "tool_name", .. }
        ));
        let text = base().to_string();
        for end in 0..text.len() {
            assert!(parse(kind, "PreToolUse", &text.as_bytes()[..end]).is_err());
        }
        assert!(matches!(
            parse(kind, "PreToolUse", &vec![b' '; PAYLOAD_BYTES_MAX + 1]),
            Err(Malformed::TooLarge { .. })
        ));
        assert!(matches!(parse(kind, "Nope", text.as_bytes()), Err(Malformed::UnknownEvent { .. })));
        assert!(matches!(parse("nope", "Stop", text.as_bytes()), Err(Malformed::UnknownKind { .. })));
        assert!(matches!(parse(kind, "PreToolUse", b"[]"), Err(Malformed::WrongType { .. })));
    }

    /// Every recorded event, cut and flipped ten thousand times: an answer or a reason, never a panic.
    #[test]
    fn damaged_events_never_panic() {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % u64::try_from(below.max(1)).unwrap()).unwrap()
        };
        let mut decision =
            creel_model::Decision { verdict: creel_model::Verdict::Modify, ..creel_model::Decision::allow() };
        for kind in kinds::ALL {
            let folder = format!("{}/testdata/{kind}", env!("CARGO_MANIFEST_DIR"));
            let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            files.sort();
            for file in files {
                let event = file.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned();
                let whole = std::fs::read(&file).unwrap();
                for _ in 0..300 {
                    let mut damaged = whole.clone();
                    for _ in 0..=random(3) {
                        let at = random(damaged.len());
                        match random(3) {
                            0 => damaged[at] = u8::try_from(random(256)).unwrap(),
                            1 => drop(damaged.remove(at)),
                            _ => damaged.insert(at, b"{}[]\",:\\0e-"[random(11)]),
                        }
                    }
                    match parse(kind, &event, &damaged) {
                        Ok(action) => {
                            let pointers = action.contents.iter().map(|content| creel_model::Modification {
                                pointer: content.pointer.clone(),
                                text: "x".to_owned(),
                                replaced: 1,
                            });
                            decision.modifications = pointers.collect();
                            let _ = (crate::tools::parts(&action, "/home/u"), crate::answer(kind, &action, &decision));
                        }
                        Err(malformed) => drop(crate::deny_malformed(kind, &event, &malformed)),
                    }
                }
            }
        }
    }

    #[test]
    fn mcp_names_split_by_the_stated_server() {
        let split = |tool: &str, stated: Option<Value>| mcp_name(tool, stated.as_ref());
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(split("mcp__lab__add", None), pair("lab", "add"));
        assert_eq!(split("mcp__a__b__c", Some(json!({"name": "a__b"}))), pair("a__b", "c"));
        assert_eq!(split("mcp__my_lab__add", Some(json!({"name": "my lab"}))), pair("my_lab", "add"));
        assert_eq!(split("mcp__lab", None), None);
        assert_eq!(split("Bash", None), None);
    }
}
