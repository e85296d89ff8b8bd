//! What an agent is about to do, or content about to enter or leave its context.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::word::words;

words! {
    /// Where in an agent's loop an action was seen.
    pub enum Point {
        /// The user's words before the model reads them.
        Prompt = "prompt",
        /// A tool call before it runs.
        ToolCall = "tool_call",
        /// A tool's result before the model reads it.
        ToolResult = "tool_result",
        /// The model's own words.
        Response = "response",
        /// A program start seen by the kernel or the cage.
        Exec = "exec",
        /// A file operation seen by the kernel or the cage.
        File = "file",
        /// A connection seen by the proxy or the kernel.
        Connect = "connect",
        /// An outbound request seen by the proxy.
        Request = "request",
        /// A call to a model.
        ModelCall = "model_call",
        /// A message to or from an MCP server.
        Mcp = "mcp",
        /// A change of the agent's configuration, and lifecycle events.
        Config = "config",
    }
}

words! {
    /// What a piece of content is to the agent.
    pub enum ContentRole {
        /// The user's prompt.
        Prompt = "prompt",
        /// Arguments of a tool call.
        Arguments = "arguments",
        /// A tool's result.
        Result = "result",
        /// A failed tool's error text.
        Error = "error",
        /// The model's answer.
        Response = "response",
        /// Bytes that leave the machine.
        Outbound = "outbound",
        /// Anything else an event carried.
        Other = "other",
    }
}

/// A tool call as the agent stated it; hostile input until judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The agent's own name for the tool, at most 256 bytes (longer is a malformed payload).
    pub tool: String,
    /// The arguments, exactly as the agent sent them.
    pub input: Value,
    /// The agent's id of this call; correlates call and result, never trusted as a key alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// MCP server and tool name, where the tool is one of a server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp: Option<(String, String)>,
}

/// One piece of text at a point, addressed by where it stood in the event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// What the text is to the agent.
    pub role: ContentRole,
    /// A JSON pointer (RFC 6901) into the value it came from, so that a redaction can go back to the same place.
    pub pointer: String,
    /// The text.
    pub text: String,
}

/// One event of an agent, translated from its own protocol: nothing in it is believed yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// Where it was seen.
    pub point: Point,
    /// The catalog kind that the hook was installed for, for example `claude-code`.
    pub kind: String,
    /// The agent's own event name, for example `PreToolUse`.
    pub event: String,
    /// The conversation as the agent claims it.
    pub conversation: String,
    /// The turn as the agent claims it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<String>,
    /// A subagent's id as the agent claims it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subagent: Option<String>,
    /// The working directory as the agent claims it; absolute, else the payload is malformed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// The agent's own approval mode at that moment, in its own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission_mode: Option<String>,
    /// The tool call, at `tool_call` and `tool_result`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<ToolCall>,
    /// The tool's result as the agent reported it, at `tool_result`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// Whether the reported call failed.
    #[serde(default)]
    pub failed: bool,
    /// Whether the agent waits for an answer that can stop or change what happens.
    pub blocking: bool,
    /// Texts to look at, with where they stood.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<Content>,
    /// How a conversation begins at this event, for `config` points of session starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionChange>,
    /// Facts of the event that rules do not speak about yet, kept for the record (bounded by the dialect).
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub facts: serde_json::Map<String, Value>,
}

words! {
    /// How a conversation starts, ends or changes.
    pub enum SessionChange {
        /// A fresh conversation.
        Startup = "startup",
        /// An earlier conversation goes on.
        Resume = "resume",
        /// The context was emptied.
        Clear = "clear",
        /// The context was compacted.
        Compact = "compact",
        /// A conversation branched from another.
        Fork = "fork",
        /// A subagent began.
        Subagent = "subagent",
        /// A conversation or subagent ended.
        End = "end",
    }
}
