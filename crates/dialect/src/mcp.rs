//! What the arguments of an MCP tool name: paths and commands, beside the call itself.
//!
//! A server says what its arguments mean only in prose, so this is a reading of shapes: a text that is wholly a path is
//! read, written or removed as the tool's name suggests. The fact a newcomer gets wrong: this adds to the call, it
//! never replaces it; a tool that names nothing here may still do anything.

use serde_json::Value;

use creel_model::{Certainty, Verb};

use crate::tools::{Part, Place, Shell};

/// How deeply arguments are looked into.
const DEPTH_MAX: u8 = 6;
/// Most paths and commands of one call; a call that names more counts as not understood.
const PARTS_MAX: usize = 32;
/// Longest text that counts as a path, in bytes: the kernel's own bound.
const PATH_BYTES_MAX: usize = 4096;

/// Names of arguments whose text is a path even when it is relative.
const PATH_KEYS: &[&str] = &[
    "path",
    "paths",
    "file",
    "files",
    "filename",
    "filepath",
    "file_path",
    "file_paths",
    "absolute_path",
    "relative_path",
    "directory",
    "dir",
    "folder",
    "old_path",
    "new_path",
    "source_path",
    "destination_path",
    "target_path",
    "output_path",
    "input_path",
    "repo_path",
];
/// Names of arguments whose text a tool that runs things runs.
const COMMAND_KEYS: &[&str] = &["command", "cmd", "commands", "shell_command", "command_line", "script"];
/// Words in a tool's name that say what becomes of the paths it is given; the first line that holds one counts.
const REMOVES: &[&str] = &["delete", "remove", "unlink", "rm", "rmdir", "trash", "erase", "wipe", "purge"];
const CHANGES: &[&str] = &[
    "write", "create", "edit", "move", "rename", "copy", "save", "update", "append", "insert", "replace", "patch",
    "put", "set", "mkdir", "touch", "upload", "download", "export", "modify", "apply", "sync", "extract", "unzip",
    "chmod",
];
const RUNS: &[&str] = &["run", "exec", "execute", "shell", "bash", "terminal", "command", "cmd", "process", "spawn"];

/// What the arguments name, at most [`PARTS_MAX`] things.
pub(crate) fn parts(tool: &str, input: &Value, place: &Place<'_>) -> Vec<Part> {
    let words = words(tool);
    let says = |known: &[&str]| words.iter().any(|word| known.contains(&word.as_str()));
    let verb = if says(REMOVES) {
        Verb::Delete
    } else if says(CHANGES) {
        Verb::Write
    } else {
        Verb::Read
    };
    let mut look = Look { place, verb, runs: says(RUNS), parts: Vec::new(), whole: true };
    look.value("", input, 0);
    if !look.whole {
        look.parts.push(Part::Unknown);
    }
    look.parts
}

/// The words of a tool's name: `readTextFile` and `read_text-file` alike.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut small = false;
    for c in name.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && small) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
        small = c.is_lowercase();
    }
    words
}

struct Look<'a> {
    place: &'a Place<'a>,
    verb: Verb,
    runs: bool,
    parts: Vec<Part>,
    /// Nothing was left out.
    whole: bool,
}

impl Look<'_> {
    fn value(&mut self, key: &str, value: &Value, depth: u8) {
        match value {
            Value::String(text) => self.text(key, text),
            Value::Array(_) | Value::Object(_) if depth >= DEPTH_MAX => self.whole = false,
            Value::Array(items) => items.iter().for_each(|item| self.value(key, item, depth + 1)),
            Value::Object(map) => map.iter().for_each(|(key, value)| self.value(key, value, depth + 1)),
            _ => {}
        }
    }

    fn text(&mut self, key: &str, text: &str) {
        let key = key.to_ascii_lowercase();
        let part = if self.runs && COMMAND_KEYS.contains(&key.as_str()) {
            Part::Command { text: text.to_owned(), shell: Shell::Posix, workdir: None }
        } else if let Some(path) = path(&key, text) {
            Part::Effect({
                let mut effect = self.place.path(self.verb, path);
                effect.certainty = Certainty::Parsed;
                effect
            })
        } else {
            return;
        };
        if self.parts.contains(&part) {
            return;
        }
        if self.parts.len() < PARTS_MAX {
            self.parts.push(part);
        } else {
            self.whole = false;
        }
    }
}

/// The path that a text wholly is.
fn path<'a>(key: &str, text: &'a str) -> Option<&'a str> {
    let path = text.strip_prefix("file://").unwrap_or(text);
    let shaped = !path.is_empty() && path.len() <= PATH_BYTES_MAX && !path.contains(['\n', '\0']);
    // A home, or more than one part: `/help` is as likely a command of a chat.
    let absolute = path.starts_with("~/") || path.strip_prefix('/').is_some_and(|rest| rest.contains('/'));
    let named = PATH_KEYS.contains(&key) && !path.contains("://");
    (shaped && (named || (absolute && !path.starts_with("//") && !path.contains(' ')))).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use creel_model::Object;
    use serde_json::json;

    fn seen(tool: &str, input: &Value) -> Vec<String> {
        let place = Place { cwd: "/home/a/p", home: "/home/a" };
        let show = |part: Part| match part {
            Part::Effect(effect) => match effect.object {
                Object::Path { path, .. } => format!("{} {path}", effect.verb),
                other => format!("{other:?}"),
            },
            Part::Command { text, .. } => format!("run {text}"),
            Part::Unknown => "unknown".to_owned(),
        };
        parts(tool, input, &place).into_iter().map(show).collect()
    }

    #[test]
    fn paths_are_read_written_or_removed_as_the_tools_name_says() {
        assert_eq!(seen("read_text_file", &json!({"path": "~/.ssh/id_rsa"})), ["read /home/a/.ssh/id_rsa"]);
        assert_eq!(seen("readFile", &json!({"uri": "file:///etc/shadow"})), ["read /etc/shadow"]);
        assert_eq!(seen("write_file", &json!({"path": "../x", "content": "/etc/a\nb"})), ["write /home/a/x"]);
        assert_eq!(seen("deleteFiles", &json!({"paths": ["/a/b", "c"]})), ["delete /a/b", "delete /home/a/p/c"]);
        assert_eq!(seen("any", &json!({"options": {"inner": ["/a/b/c"]}})), ["read /a/b/c"]);
    }

    #[test]
    fn commands_are_handed_on_where_the_tool_runs_things() {
        assert_eq!(seen("execute_command", &json!({"command": "rm -rf ~"})), ["run rm -rf ~"]);
        assert!(seen("str_replace_editor", &json!({"command": "view"})).is_empty());
    }

    #[test]
    fn ordinary_texts_name_nothing() {
        let input = json!({
            "query": "a/b or /help", "url": "https://example.com/a/b", "title": "/start", "body": "see /etc/hosts there",
            "id": 7, "from": "https://example.com", "path": "",
        });
        assert!(seen("search", &input).is_empty());
    }

    #[test]
    fn beyond_the_bounds_a_call_is_not_understood() {
        let many: Vec<String> = (0..40).map(|n| format!("/a/{n}")).collect();
        let seen_of_many = seen("read", &json!({"paths": many}));
        assert_eq!((seen_of_many.len(), seen_of_many.last().map(String::as_str)), (PARTS_MAX + 1, Some("unknown")));
        let deep = (0..10).fold(json!("/etc/shadow"), |inner, _| json!([inner]));
        assert_eq!(seen("read", &deep), ["unknown"]);
    }
}
