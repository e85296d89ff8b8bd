//! Claude Code's own tools as parts, by the argument names of 2.1.329.

use serde_json::Value;

use creel_model::{Certainty, CommandClass, Effect, Object, ToolCall, Verb};

use crate::kinds::CLAUDE_CODE;
use crate::tools::{Part, Place, Shell, fetch, normalised, own_setting, own_tool, prompt, text};

/// Tools that only change what the agent itself shows, plans or waits for.
const HARMLESS: &[&str] = &[
    "AgentOutputTool",
    "AskUserQuestion",
    "BashOutput",
    "CronList",
    "EnterPlanMode",
    "ExitPlanMode",
    "KillBash",
    "KillShell",
    "ListAgents",
    "ListMcpResources",
    "ListMcpResourcesTool",
    "OfferChromeSetup",
    "ProposeGoal",
    "ProposeSkills",
    "PushNotification",
    "ReadNotifications",
    "RefreshMcpTools",
    "ReportFindings",
    "ScheduleWakeup",
    "SendMessage",
    "ShowOnboardingRolePicker",
    "SlashCommand",
    "StructuredOutput",
    "TaskCreate",
    "TaskGet",
    "TaskList",
    "TaskOutput",
    "TaskStop",
    "TaskUpdate",
    "TeamCreate",
    "TeamDelete",
    "TodoRead",
    "TodoWrite",
    "ToolSearch",
];

/// The parts of a call; empty when the tool is unknown or lacks what it needs.
pub(crate) fn tool_parts(call: &ToolCall, place: &Place<'_>) -> Vec<Part> {
    let input = &call.input;
    let effect = |verb: Verb, key: &str| text(input, key).map(|path| Part::Effect(place.path(verb, path)));
    let found = match call.tool.as_str() {
        "Read" | "NotebookRead" => {
            effect(Verb::Read, "file_path").or_else(|| effect(Verb::Read, "notebook_path")).map(|part| vec![part])
        }
        "Write" | "Edit" | "MultiEdit" => effect(Verb::Write, "file_path").map(|part| vec![part]),
        "NotebookEdit" => effect(Verb::Write, "notebook_path").map(|part| vec![part]),
        "LSP" => effect(Verb::Read, "filePath").or_else(|| effect(Verb::Read, "file_path")).map(|part| vec![part]),
        "LS" => effect(Verb::Read, "path").map(|part| vec![part]),
        "Glob" => glob(input, place),
        "Grep" => Some(vec![grep(input, place)]),
        "WebFetch" => text(input, "url").map(fetch),
        "Bash" => text(input, "command").map(|command| bash(command, input)),
        "PowerShell" => text(input, "command")
            .map(|command| vec![Part::Command { text: command.to_owned(), shell: Shell::PowerShell, workdir: None }]),
        "Monitor" => monitor(input),
        "Task" | "Agent" => text(input, "prompt").map(|words| agent(&call.tool, words, input)),
        // What a server's resource says is that server's word, like the result of one of its tools.
        "ReadMcpResource" | "ReadMcpResourceDir" | "ReadMcpResourceDirTool" | "ReadMcpResourceTool" => {
            text(input, "server").map(|server| vec![of_server(server, &call.tool)])
        }
        // The vendor searches, and what is found comes from anywhere.
        "WebSearch" => Some(vec![own_tool("WebSearch"), Part::Effect(found_outside())]),
        "Skill" => Some(vec![own_tool("Skill")]),
        "CronCreate" | "CronDelete" | "RemoteTrigger" => Some(schedule(&call.tool, input)),
        "Config" => text(input, "setting").map(|key| vec![Part::Effect(own_setting(CLAUDE_CODE, key))]),
        "Artifact" | "Projects" | "ClaudeDesign" | "SendFeedback" => Some(upload(call, place)),
        "EnterWorktree" | "ExitWorktree" => {
            let mut parts = vec![own_tool(&call.tool)];
            parts.extend(effect(Verb::Write, "path"));
            Some(parts)
        }
        tool if HARMLESS.contains(&tool) => Some(vec![own_tool(tool)]),
        _ => None,
    };
    found.unwrap_or_default()
}

fn of_server(server: &str, tool: &str) -> Part {
    let object = Object::McpTool { server: server.to_owned(), tool: tool.to_owned() };
    Part::Effect(Effect::new(Verb::Call, object, Certainty::Exact))
}

fn found_outside() -> Effect {
    let object = Object::Host { host: "api.anthropic.com".to_owned(), port: Some(443), url: None };
    Effect::new(Verb::Receive, object, Certainty::Exact)
}

fn bash(command: &str, input: &Value) -> Vec<Part> {
    let mut parts = vec![Part::Command { text: command.to_owned(), shell: Shell::Posix, workdir: None }];
    if input.get("dangerouslyDisableSandbox").and_then(Value::as_bool) == Some(true) {
        parts.push(Part::Effect(own_setting(CLAUDE_CODE, "sandbox.disabled-for-command")));
    }
    parts
}

/// A pattern lists names below its literal beginning; nothing is opened.
fn glob(input: &Value, place: &Place<'_>) -> Option<Vec<Part>> {
    let pattern = text(input, "pattern")?;
    let base = place.absolute(text(input, "path").unwrap_or(".")).0;
    let literal = pattern.find(['*', '?', '[', '{']).and_then(|at| pattern.get(..at)).unwrap_or(pattern);
    let folder = literal.rsplit_once('/').map_or("", |(folder, _)| folder);
    let folder = match (pattern.starts_with('/'), folder) {
        (true, "") => "/".to_owned(),
        (true, folder) => normalised(folder),
        (false, _) if pattern.starts_with('~') => place.absolute(folder).0,
        (false, folder) => normalised(&format!("{base}/{folder}")),
    };
    Some(vec![Part::Effect(place.path(Verb::Read, &folder))])
}

/// Every file below is opened.
fn grep(input: &Value, place: &Place<'_>) -> Part {
    let mut effect = place.path(Verb::Read, text(input, "path").unwrap_or("."));
    effect.recursive = true;
    Part::Effect(effect)
}

fn monitor(input: &Value) -> Option<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    if let Some(command) = text(input, "command") {
        parts.push(Part::Command { text: command.to_owned(), shell: Shell::Posix, workdir: None });
    }
    if let Some(url) = input.get("ws").and_then(|socket| text(socket, "url")) {
        parts.extend(fetch(url));
    }
    (!parts.is_empty()).then_some(parts)
}

fn agent(tool: &str, words: &str, input: &Value) -> Vec<Part> {
    let mut parts = vec![own_tool(tool), prompt(words)];
    if let Some(mode @ ("bypassPermissions" | "dontAsk" | "auto")) = text(input, "mode") {
        parts.push(Part::Effect(own_setting(CLAUDE_CODE, &format!("permission-mode.{mode}"))));
    }
    parts
}

fn schedule(tool: &str, input: &Value) -> Vec<Part> {
    let mut setting = own_setting(CLAUDE_CODE, "schedule");
    setting.classes.insert(CommandClass::Persistence);
    let mut parts = vec![own_tool(tool), Part::Effect(setting)];
    parts.extend(text(input, "prompt").map(prompt));
    parts
}

/// Tools that carry local files to the vendor's own pages.
fn upload(call: &ToolCall, place: &Place<'_>) -> Vec<Part> {
    let mut parts = vec![own_tool(&call.tool)];
    for key in ["file_path", "local_path"] {
        parts.extend(text(&call.input, key).map(|path| Part::Effect(place.path(Verb::Read, path))));
    }
    let object = Object::Host { host: "claude.ai".to_owned(), port: Some(443), url: None };
    parts.push(Part::Effect(Effect::new(Verb::Send, object, Certainty::Exact)));
    parts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(tool: &str, input: Value, expected: &[&str]) {
        let call = ToolCall { tool: tool.to_owned(), input, call_id: None, mcp: None };
        let place = Place { cwd: "/home/u/proj", home: "/home/u" };
        let shown: Vec<String> = tool_parts(&call, &place)
            .iter()
            .map(|part| match part {
                Part::Effect(effect) => {
                    let more = if effect.recursive { "/**" } else { "" };
                    format!("{} {}{more}", effect.verb, effect.object)
                }
                Part::Command { text, shell, .. } => format!("{shell:?} {text}"),
                Part::Unknown => "unknown".to_owned(),
            })
            .collect();
        assert_eq!(shown, expected, "{tool}");
    }

    #[test]
    fn every_known_tool_states_what_it_does() {
        check("Read", json!({"file_path": "/etc/passwd"}), &["read /etc/passwd"]);
        check("Write", json!({"file_path": "a/../.git/hooks/x", "content": ""}), &["write /home/u/proj/.git/hooks/x"]);
        check("Edit", json!({"file_path": "~/.bashrc"}), &["write /home/u/.bashrc"]);
        check("MultiEdit", json!({"file_path": "/a", "edits": []}), &["write /a"]);
        check("NotebookEdit", json!({"notebook_path": "/n.ipynb", "new_source": ""}), &["write /n.ipynb"]);
        check("LS", json!({"path": "/home"}), &["read /home"]);
        check("Glob", json!({"pattern": "src/**/*.rs"}), &["read /home/u/proj/src"]);
        check("Glob", json!({"pattern": "../../.ssh/*"}), &["read /home/.ssh"]);
        check("Glob", json!({"pattern": "/etc/*", "path": "/x"}), &["read /etc"]);
        check("Glob", json!({"pattern": "*"}), &["read /home/u/proj"]);
        check("Grep", json!({"pattern": "x"}), &["read /home/u/proj/**"]);
        check("Grep", json!({"pattern": "x", "path": "/home/u"}), &["read /home/u/**"]);
        check(
            "WebFetch",
            json!({"url": "https://a.b/c?d=e", "prompt": ""}),
            &["connect https://a.b/c", "receive https://a.b/c", "send https://a.b/c"],
        );
        check("Bash", json!({"command": "ls"}), &["Posix ls"]);
        check(
            "Bash",
            json!({"command": "ls", "dangerouslyDisableSandbox": true}),
            &["Posix ls", "configure claude-code:sandbox.disabled-for-command"],
        );
        check("Monitor", json!({"command": "tail -f x"}), &["Posix tail -f x"]);
        check("Task", json!({"prompt": "do", "description": "d"}), &["call Task", "prompt prompt (2 bytes)"]);
        check("Skill", json!({"skill": "x"}), &["call Skill"]);
        check("ReadMcpResourceTool", json!({"server": "jira", "uri": "x:1"}), &["call jira/ReadMcpResourceTool"]);
        check("WebSearch", json!({"query": "x"}), &["call WebSearch", "receive api.anthropic.com"]);
        check("TodoWrite", json!({"todos": []}), &["call TodoWrite"]);
        check(
            "CronCreate",
            json!({"cron": "* * * * *", "prompt": "x"}),
            &["call CronCreate", "configure claude-code:schedule", "prompt prompt (1 bytes)"],
        );
        check(
            "Artifact",
            json!({"file_path": "a.html"}),
            &["call Artifact", "read /home/u/proj/a.html", "send claude.ai"],
        );
    }

    #[test]
    fn what_is_not_known_is_not_harmless() {
        check("BrandNewTool", json!({"x": 1}), &[]);
        check("ReadMcpResourceTool", json!({"uri": "x:1"}), &[]);
        check("Bash", json!({"command": ["ls"]}), &[]);
        check("Write", json!({"path": "/a"}), &[]);
        check("WebFetch", json!({"url": "not a url"}), &["unknown"]);
        check("Workflow", json!({"script": "x"}), &[]);
    }
}
