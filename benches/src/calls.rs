//! Hook events as Claude Code sends them: what a working agent does, and payloads of a chosen size.

use serde_json::{Value, json};

/// One event.
pub(crate) struct Call {
    pub(crate) event: &'static str,
    pub(crate) payload: Vec<u8>,
    /// The rules stop it.
    pub(crate) stopped: bool,
}

/// Events of one conversation, in order.
pub(crate) struct Conversation {
    session: String,
    folder: String,
    next: usize,
    pending: Option<(Value, usize)>,
}

impl Conversation {
    /// A conversation in `folder`.
    pub(crate) fn new(session: &str, folder: &str) -> Self {
        Self { session: session.to_owned(), folder: folder.to_owned(), next: 0, pending: None }
    }

    /// How it begins.
    pub(crate) fn start(&self) -> Vec<Call> {
        let start = json!({ "source": "startup", "model": "bench" });
        let prompt = json!({ "prompt": "Make the parser faster and run the tests" });
        vec![self.call("SessionStart", start, false), self.call("UserPromptSubmit", prompt, false)]
    }

    /// The next event: a tool call, then its result, then another tool call. One call of sixteen is stopped by a rule.
    pub(crate) fn next(&mut self) -> Call {
        if let Some((tool, index)) = self.pending.take() {
            return self.result(&tool, index);
        }
        let index = self.next;
        self.next += 1;
        let file = format!("{}/src/lib.rs", self.folder);
        let (name, input, stopped) = match index % 16 {
            0 | 5 | 10 => ("Bash", json!({ "command": "cargo test --workspace 2>&1 | tail -20" }), false),
            1 | 6 | 11 => ("Read", json!({ "file_path": file }), false),
            2 | 7 => ("Grep", json!({ "pattern": "fn parse", "path": self.folder }), false),
            3 | 8 => {
                let new = "fn parse(text: &str) -> usize {\n    text.len()\n}\n".repeat(8);
                ("Edit", json!({ "file_path": file, "old_string": "fn parse", "new_string": new }), false)
            }
            4 | 9 => ("Bash", json!({ "command": "git status --short && git diff --stat" }), false),
            12 => ("Write", json!({ "file_path": file, "content": source(2048) }), false),
            13 => ("Bash", json!({ "command": "ls -la src | head -40; wc -l src/*.rs" }), false),
            14 => ("Glob", json!({ "pattern": "**/*.rs", "path": self.folder }), false),
            _ => ("Bash", json!({ "command": "rm -rf ~" }), true),
        };
        let tool = json!({ "tool_name": name, "tool_input": input });
        let mut body = tool.clone();
        put(&mut body, "tool_use_id", Value::from(format!("toolu_{}_{index}", self.session)));
        if !stopped {
            self.pending = Some((tool, index));
        }
        self.call("PreToolUse", body, stopped)
    }

    fn result(&self, tool: &Value, index: usize) -> Call {
        let mut body = tool.clone();
        put(&mut body, "tool_use_id", Value::from(format!("toolu_{}_{index}", self.session)));
        let output = json!({ "stdout": source(1024), "stderr": "", "interrupted": false, "isImage": false });
        put(&mut body, "tool_response", output);
        self.call("PostToolUse", body, false)
    }

    /// A harmless tool call or result whose payload is about so many bytes.
    pub(crate) fn sized(&mut self, shape: Shape, bytes: usize) -> Call {
        let index = self.next;
        self.next += 1;
        let file = format!("{}/src/lib.rs", self.folder);
        let id = Value::from(format!("toolu_{}_{index}", self.session));
        // What is around the text, roughly.
        let room = bytes.saturating_sub(512);
        let (event, mut body) = match shape {
            Shape::Write => {
                let input = json!({ "file_path": file, "content": source(room) });
                ("PreToolUse", json!({ "tool_name": "Write", "tool_input": input }))
            }
            Shape::Command => {
                let input = json!({ "command": script(room) });
                ("PreToolUse", json!({ "tool_name": "Bash", "tool_input": input }))
            }
            Shape::Result => {
                let output = json!({ "stdout": source(room), "stderr": "", "interrupted": false, "isImage": false });
                let input = json!({ "command": "cat src/lib.rs" });
                ("PostToolUse", json!({ "tool_name": "Bash", "tool_input": input, "tool_response": output }))
            }
        };
        put(&mut body, "tool_use_id", id);
        self.call(event, body, false)
    }

    fn call(&self, event: &'static str, body: Value, stopped: bool) -> Call {
        let mut payload = json!({
            "session_id": self.session,
            "transcript_path": format!("{}/transcript.jsonl", self.folder),
            "cwd": self.folder,
            "permission_mode": "default",
            "hook_event_name": event,
        });
        if let Value::Object(fields) = body {
            for (name, value) in fields {
                put(&mut payload, &name, value);
            }
        }
        Call { event, payload: payload.to_string().into_bytes(), stopped }
    }
}

/// What makes a payload large.
#[derive(Clone, Copy)]
pub(crate) enum Shape {
    /// The content of a file to be written.
    Write,
    /// A command.
    Command,
    /// A tool's output.
    Result,
}

fn put(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(name.to_owned(), value);
    }
}

/// Text like a source file, about so long; it holds words that detectors look at more closely, and no secret.
fn source(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 200);
    let mut line = 0;
    while text.len() < bytes {
        line += 1;
        text.push_str(&format!(
            "    let value_{line} = table.get({line}).map(|row| row.token.len() + {line}).unwrap_or_default();\n"
        ));
        if line % 16 == 0 {
            text.push_str(
                "    // The key of the cache is the path; see https://docs.example.com/cache#keys for why.\n",
            );
        }
    }
    text.truncate(bytes);
    text
}

/// A harmless shell text, about so long, of at most sixteen effects: few commands with long arguments.
fn script(bytes: usize) -> String {
    let mut text = String::from("cargo build --release");
    while text.len() + 40 < bytes {
        text.push_str(" \\\n  --config 'profile.dev.opt-level=1'");
    }
    text.push_str(" 2>&1 | tail -20");
    text
}
