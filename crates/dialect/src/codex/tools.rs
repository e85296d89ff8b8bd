//! Codex's own tools as parts, by what 0.169 reports to its hooks.

use serde_json::Value;

use creel_model::{Certainty, Effect, Object, ToolCall, Verb};

use super::patch;
use crate::tools::{Part, Place, Shell, own_tool, prompt, text};

/// Tools that only change what the agent itself plans, shows or waits for.
const HARMLESS: &[&str] = &[
    "close_agent",
    "create_goal",
    "get_goal",
    "list_agents",
    "list_mcp_resource_templates",
    "list_mcp_resources",
    "read_mcp_resource",
    "request_user_input",
    "resume_agent",
    "tool_search",
    "update_goal",
    "update_plan",
    "wait",
    "wait_agent",
    "web_search",
];

/// The parts of a call; empty when the tool is unknown or lacks what it needs.
pub(crate) fn tool_parts(call: &ToolCall, place: &Place<'_>) -> Vec<Part> {
    let input = &call.input;
    let found = match call.tool.as_str() {
        "Bash" | "shell" | "shell_command" | "local_shell" | "exec_command" | "container.exec" => command(input, place),
        // Never seen at a hook (see the dialect's document); should a version begin to report it, the text is judged.
        "write_stdin" => text(input, "chars").map(|typed| {
            vec![
                Part::Command { text: typed.to_owned(), shell: Shell::Posix, workdir: None },
                Part::Effect(interactive_effect()),
            ]
        }),
        "apply_patch" | "Edit" | "Write" => patch_text(input).map(|text| patch::parts(text, place)),
        "view_image" => text(input, "path").map(|path| vec![Part::Effect(place.path(Verb::Read, path))]),
        "spawn_agent" | "send_input" | "send_message" | "followup_task" => {
            let words = text(input, "message").or_else(|| text(input, "prompt")).unwrap_or_default();
            Some(vec![own_tool(&call.tool), prompt(words)])
        }
        tool if HARMLESS.contains(&tool) => Some(vec![own_tool(tool)]),
        _ => None,
    };
    found.unwrap_or_default()
}

fn patch_text(input: &Value) -> Option<&str> {
    ["command", "input", "patch"].into_iter().find_map(|key| text(input, key))
}

fn command(input: &Value, place: &Place<'_>) -> Option<Vec<Part>> {
    let stated = input.get("command").or_else(|| input.get("cmd"))?;
    let text_of = match stated {
        Value::String(text) => text.clone(),
        Value::Array(words) => joined(words)?,
        _ => return None,
    };
    let workdir = text(input, "workdir").map(|folder| place.absolute(folder).0);
    let mut parts = Vec::new();
    if text_of.contains(patch::BEGIN) {
        let inside = Place { cwd: workdir.as_deref().unwrap_or(place.cwd), home: place.home };
        parts.extend(patch::parts(&text_of, &inside));
    }
    if is_interactive(&text_of) {
        parts.push(Part::Effect(interactive_effect()));
    }
    parts.push(Part::Command { text: text_of, shell: Shell::Posix, workdir });
    Some(parts)
}

/// An argument list as shell text: `["bash", "-lc", TEXT]` is TEXT, anything else is quoted word by word.
fn joined(words: &[Value]) -> Option<String> {
    let words = words.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?;
    if let [shell, option, text] = words.as_slice()
        && SHELLS.contains(&base_name(shell))
        && matches!(*option, "-c" | "-lc")
    {
        return Some((*text).to_owned());
    }
    let quoted: Vec<String> = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    (!quoted.is_empty()).then(|| quoted.join(" "))
}

/// The effect that stands for "whatever is typed later": a rule on tool `write_stdin` of no server decides it.
fn interactive_effect() -> Effect {
    let object = Object::McpTool { server: String::new(), tool: "write_stdin".to_owned() };
    Effect::new(Verb::Call, object, Certainty::Opaque)
}

const SHELLS: &[&str] = &["ash", "bash", "csh", "dash", "fish", "ksh", "mksh", "nu", "pwsh", "sh", "tcsh", "zsh"];
const INTERPRETERS: &[&str] = &[
    "bc", "bpython", "deno", "expect", "ftp", "gdb", "ghci", "ipython", "irb", "julia", "lldb", "lua", "mongosh",
    "mysql", "nc", "ncat", "netcat", "node", "php", "psql", "python", "python2", "python3", "R", "rlwrap", "script",
    "screen", "socat", "sqlite3", "ssh", "telnet", "tmux",
];
const PREFIXES: &[&str] =
    &["builtin", "command", "doas", "env", "exec", "nice", "nohup", "setsid", "stdbuf", "sudo", "time"];

/// Whether the text starts a shell or interpreter that waits for more to be typed.
///
/// Codex's `write_stdin` types into such a program without any hook, so the start is the only place to judge. This looks
/// at words only and errs towards yes; the pin `unified_exec = false` closes the hole in system mode.
fn is_interactive(text: &str) -> bool {
    let text = &without_here_documents(text);
    segments(text).into_iter().any(|(source, segment)| {
        if source.is_some_and(|source| writes_by_itself(source, text)) {
            return false;
        }
        let mut words = segment.split_whitespace().map(|word| word.trim_matches(['"', '\'', '\\', '$']));
        let program = words.find(|word| {
            let assignment = word.split_once('=').is_some_and(|(name, _)| !name.is_empty() && !name.contains('/'));
            !assignment && !word.starts_with('-') && !PREFIXES.contains(&base_name(word))
        });
        let Some(program) = program.filter(|word| !word.starts_with('#')).map(base_name) else { return false };
        let rest: Vec<&str> = words.filter(|word| !word.starts_with(['<', '>']) && !word.starts_with("2>")).collect();
        let flagged = rest.iter().any(|word| {
            *word == "--interactive"
                || word.strip_prefix('-').is_some_and(|flags| !flags.starts_with('-') && flags.contains('i'))
        });
        let bare = rest.iter().all(|word| word.starts_with('-'));
        let has_text = segment.contains('<') || rest.iter().any(|word| *word == "--version" || *word == "--help");
        if SHELLS.contains(&program) {
            let command_text = rest
                .iter()
                .any(|word| word.strip_prefix('-').is_some_and(|flags| !flags.starts_with('-') && flags.contains('c')));
            return (flagged && !has_text) || (bare && !command_text && !has_text);
        }
        INTERPRETERS.contains(&program) && (bare && !has_text || rest.contains(&"-i") || rest.contains(&"-tt"))
    })
}

/// The text without the bodies of its here-documents, which are input and not commands. One without an end, in quotes or
/// in a comment is none.
fn without_here_documents(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        kept.push_str(line);
        kept.push('\n');
        let Some((before, after)) = line.split_once("<<") else { continue };
        let quoted = ['\'', '"'].iter().any(|quote| before.matches(*quote).count() % 2 == 1);
        if quoted || before.contains('#') || before.contains('\\') || after.starts_with('<') {
            continue;
        }
        let after = after.trim_start_matches('-').trim_start();
        let word = after.split([' ', '\t', ';', '|', '&', '>', '<', ')']).next().unwrap_or_default();
        let end = word.trim_matches(['\'', '"', '\\']);
        let mut ahead = lines.clone();
        if !end.is_empty() && ahead.any(|line| line.trim_start_matches('\t') == end) {
            lines = ahead;
        }
    }
    kept
}

const SEPARATORS: [char; 9] = ['\n', ';', '|', '&', '(', ')', '`', '{', '}'];

/// The text between separators; where a pipe leads into it, with what stands at the pipe's beginning. Brackets neither
/// begin nor end a pipe, because most of them stand in quotes.
fn segments(text: &str) -> Vec<(Option<&str>, &str)> {
    let mut found = Vec::new();
    let (mut begin, mut piped) = ("", false);
    let (mut before, mut rest) = (String::new(), text);
    loop {
        let (segment, after) = rest.split_at(rest.find(SEPARATORS).unwrap_or(rest.len()));
        match before.as_str() {
            "" if !found.is_empty() => {}
            "|" | "|&" => piped = true,
            _ => (begin, piped) = (segment, false),
        }
        found.push((piped.then_some(begin), segment));
        if after.is_empty() {
            return found;
        }
        let next = after.find(|c: char| !SEPARATORS.contains(&c) && !c.is_whitespace()).unwrap_or(after.len());
        let (gap, tail) = after.split_at(next);
        before = gap.chars().filter(|c| "\n;|&".contains(*c)).collect();
        rest = tail;
    }
}

/// Whether a pipe's first program writes something of its own and hands on nothing that is typed. Where the text names
/// a terminal or another descriptor, that is not believed.
fn writes_by_itself(source: &str, text: &str) -> bool {
    let doubtful = ["tty", "/proc/", "<&", "$(", "<(", "`"].iter().any(|mark| text.contains(mark))
        || text.replace("/dev/null", "").contains("/dev/");
    let mut words = source.split_whitespace();
    let program = words.next().map(base_name).unwrap_or_default();
    let known = match program {
        "echo" | "printf" | "curl" | "wget" | "ls" | "seq" => true,
        "cat" => words.clone().next().is_some() && words.all(|word| !word.starts_with(['-', '<', '$', '*'])),
        _ => false,
    };
    known && !doubtful
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(tool: &str, input: Value, expected: &[&str]) {
        let call = ToolCall { tool: tool.to_owned(), input, call_id: None, mcp: None };
        let place = Place { cwd: "/w", home: "/home/u" };
        let shown: Vec<String> = tool_parts(&call, &place)
            .iter()
            .map(|part| match part {
                Part::Effect(effect) => format!("{} {} {}", effect.certainty, effect.verb, effect.object),
                Part::Command { text, workdir, .. } => format!("in {} $ {text}", workdir.as_deref().unwrap_or(".")),
                Part::Unknown => "unknown".to_owned(),
            })
            .collect();
        assert_eq!(shown, expected, "{tool}");
    }

    #[test]
    fn known_tools_state_what_they_do() {
        check("Bash", json!({"command": "ls"}), &["in . $ ls"]);
        check("exec_command", json!({"cmd": "ls", "workdir": "sub"}), &["in /w/sub $ ls"]);
        check("shell", json!({"command": ["bash", "-lc", "ls | wc"]}), &["in . $ ls | wc"]);
        check("shell", json!({"command": ["echo", "it's"]}), &[r"in . $ 'echo' 'it'\''s'"]);
        check("view_image", json!({"path": "~/x.png"}), &["exact read /home/u/x.png"]);
        check(
            "apply_patch",
            json!({"command": "*** Begin Patch\n*** Add File: a\n+\n*** End Patch"}),
            &["exact write /w/a"],
        );
        check(
            "Bash",
            json!({"command": "apply_patch <<'E'\n*** Begin Patch\n*** Delete File: a\n*** End Patch\nE"}),
            &["exact delete /w/a", "in . $ apply_patch <<'E'\n*** Begin Patch\n*** Delete File: a\n*** End Patch\nE"],
        );
        check("spawn_agent", json!({"message": "go"}), &["exact call spawn_agent", "exact prompt prompt (2 bytes)"]);
        check("update_plan", json!({}), &["exact call update_plan"]);
        check("brand_new", json!({}), &[]);
        check("Bash", json!({"command": 1}), &[]);
    }

    #[test]
    fn what_waits_for_typing_is_marked() {
        for text in [
            "bash",
            "bash -i",
            "/bin/sh",
            "exec zsh -il",
            "FOO=1 bash",
            "sudo -E bash",
            "cd /x && bash -i",
            "python3",
            "python3 -q",
            "ssh -tt host",
            "tmux",
            "env A=b sh",
            "script",
            "psql",
            "bash --norc -i",
            "python3 -i x.py",
            "cat | bash",
            "cat - | bash",
            "echo; bash",
            "false || bash",
            "echo x | cat /dev/tty | sh",
            "cat a < $(tty) | python3",
            "tee | sqlite3",
            "echo $(cat) | bash",
            "echo (bash)",
            "echo '<<E'\nbash -i\nE",
            "true # <<E\nbash -i\nE",
            "cat <<E\nbash -i",
            "cat <<E\nx\nE\nbash -i",
        ] {
            assert!(is_interactive(text), "{text}");
        }
        for text in [
            "bash -c 'ls'",
            "bash -lc ls",
            "sh run.sh",
            "python3 x.py",
            "python3 -c 'print(1)'",
            "cargo test -i",
            "bash --version",
            "node index.js",
            "echo bash",
            "sed -i s/a/b/ x",
            "bash < script.sh",
            "python3 - <<'E'\nE",
            "ssh host ls",
            "npm run dev",
            "echo 'print(1)' | python3",
            "cat > run.sh <<'EOF'\n#!/bin/bash\nbash\nEOF\nchmod +x run.sh",
            "cat <<-E | tee x\n\tsh\n\tE",
            "#!/bin/sh\nls",
            "curl -s https://x.example 2>/dev/null | sh",
            "cat query.sql | psql",
            "cat a b | sort | node",
            "printf 'select 1' |& sqlite3",
        ] {
            assert!(!is_interactive(text), "{text}");
        }
    }
}
