//! What an action's effects look like to a digest, to a record and to a person.
//!
//! The one fact a newcomer gets wrong: the effect digest is made of what *happens*, not of what was sent — ids,
//! descriptions and time limits of a call change on every retry and must not matter, while the text of a call matters
//! exactly where the effects do not say everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use creel_model::{Action, Certainty, ContentRole, Digest, Effect, Object, Verb, Zone};
use serde_json::Value;

use crate::facts::Ready;

/// Arguments of a call that do not change what it does.
const IDLE_FIELDS: &[&str] = &["description", "timeout", "timeout_ms", "run_in_background", "justification"];

/// Arguments that an excerpt may show.
const EXCERPT_FIELDS: &[&str] = &[
    "command",
    "cmd",
    "file_path",
    "notebook_path",
    "path",
    "pattern",
    "glob",
    "url",
    "server",
    "tool",
    "subagent_type",
    "skill",
    "workdir",
];

/// Most characters of an excerpt, and of one field of a recorded object.
const SHOWN_CHARS_MAX: usize = 400;
const FIELD_CHARS_MAX: usize = 2048;
/// Most fields of a call that are named when judged and executed call differ.
const FIELDS_MAX: usize = 16;
/// Most arguments of a program that are recorded.
const ARGV_MAX: usize = 128;

/// The digest that an approval is bound to (DESIGN §10).
pub(crate) fn digest(ready: &Ready, effects: &[Effect], ask_rules: &BTreeSet<String>, bundle: &Digest) -> Digest {
    let mut lines: Vec<String> = effects.iter().map(line).collect();
    lines.sort();
    let mut text = String::from("creel.effects/1\n");
    let mut put = |key: &str, value: &str| {
        // Lengths keep two different lists from giving the same text.
        let _ = writeln!(text, "{key} {}:{value}", value.len());
    };
    put("kind", &ready.caller.kind);
    put("uid", &ready.caller.account.uid.to_string());
    put("workspace", ready.caller.workspace.as_deref().unwrap_or_default());
    put("cwd", ready.action.cwd.as_deref().unwrap_or_default());
    put("conversation", &ready.action.conversation);
    put("point", ready.action.point.as_str());
    put("bundle", &bundle.0);
    for rule in ask_rules {
        put("rule", rule);
    }
    for line in &lines {
        put("effect", line);
    }
    for (path, digest) in &ready.files {
        put("file", path);
        put("content", &format!("{digest:?}"));
    }
    if !says_everything(ready, effects) {
        if let Some(call) = &ready.action.call {
            put("tool", &call.tool);
            put("input", &canonical_input(&call.input));
        } else {
            for content in &ready.action.contents {
                put(&content.pointer, &content.text);
            }
        }
    }
    Digest::from_bytes(&creel_seal::sha256(text.as_bytes()))
}

/// Everything about an effect that a person approves.
fn line(effect: &Effect) -> String {
    let object = match &effect.object {
        Object::Path { path, resolved } => {
            Object::Path { path: path.clone(), resolved: Some(resolved.clone().unwrap_or_else(|| path.clone())) }
        }
        object => object.clone(),
    };
    let object = serde_json::to_string(&object).unwrap_or_default();
    format!(
        "{} {object} {} recursive={} dynamic={} elevated={} remote={} content={:?}",
        effect.verb, effect.certainty, effect.recursive, effect.dynamic, effect.elevated, effect.remote, effect.content
    )
}

/// Whether the effects alone describe what happens; otherwise the call's text is part of the digest.
fn says_everything(ready: &Ready, effects: &[Effect]) -> bool {
    let guarded =
        |zone: &Zone| [Zone::EXEC_BEARING, Zone::AGENT_CONFIG, Zone::SECRETS, Zone::SYSTEM].contains(&zone.as_str());
    !ready.parts.overflow
        && !ready.parts.opaque
        && !effects.is_empty()
        && effects.iter().all(|effect| {
            effect.certainty != Certainty::Opaque
                && !effect.dynamic
                && match &effect.object {
                    // What is written there will be run or believed later: its text is what is approved.
                    Object::Path { .. } => effect.verb != Verb::Write || !effect.zones.iter().any(guarded),
                    Object::Program { .. } | Object::Credential { .. } => true,
                    // From a command the arguments stand in a program's effect; from a tool they stand nowhere else.
                    Object::Host { .. } => effect.certainty == Certainty::Parsed,
                    Object::McpTool { .. } | Object::ConfigKey { .. } | Object::Text { .. } => false,
                }
        })
}

/// A call's arguments without idle fields, in one spelling.
fn canonical_input(input: &Value) -> String {
    let mut out = String::new();
    match input {
        Value::Object(map) => {
            let fields: BTreeMap<&String, &Value> =
                map.iter().filter(|(key, value)| !value.is_null() && !IDLE_FIELDS.contains(&key.as_str())).collect();
            for (key, value) in fields {
                let _ = write!(out, "{key:?}=");
                canonical(value, &mut out);
                out.push(';');
            }
        }
        other => canonical(other, &mut out),
    }
    out
}

/// JSON in one spelling: sorted keys, no nulls in objects, whole numbers without a fraction. The depth is bounded by
/// the parser that made the value.
pub(crate) fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let fields: BTreeMap<&String, &Value> = map.iter().filter(|(_, value)| !value.is_null()).collect();
            out.push('{');
            for (key, value) in fields {
                let _ = write!(out, "{key:?}:");
                canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Number(number) => match number.as_f64().filter(|number| number.fract() == 0.0) {
            Some(whole) if number.as_i64().is_none() && number.as_u64().is_none() => {
                let _ = write!(out, "{whole:.0}");
            }
            _ => {
                let _ = write!(out, "{number}");
            }
        },
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

/// Digests of a call's arguments by field, to compare what was judged with what ran without keeping the text.
pub(crate) fn fields(input: &Value) -> BTreeMap<String, u64> {
    let digest = |value: &Value| {
        let mut text = String::new();
        canonical(value, &mut text);
        creel_seal::sha256(text.as_bytes()).iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
    };
    let mut fields = BTreeMap::new();
    if let Value::Object(map) = input {
        let stated = map.iter().filter(|(_, value)| !value.is_null()).take(FIELDS_MAX);
        fields.extend(stated.map(|(key, value)| (key.chars().take(64).collect(), digest(value))));
    }
    // The whole decides; the fields only say where two inputs differ.
    fields.insert(String::new(), digest(input));
    fields
}

/// A text without secrets and of bounded length. Doubtful findings go too: on record, a placeholder too many harms less
/// than a secret.
pub(crate) fn redacted(text: &str, chars_max: usize) -> String {
    let mut findings = creel_inspect::content(text, ContentRole::Arguments);
    findings.retain(|finding| finding.span.is_some());
    let text = if findings.is_empty() { text.to_owned() } else { creel_inspect::redact(text, &findings).text };
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// An object without secrets and of bounded size.
pub(crate) fn shown(object: &Object) -> Object {
    let short = |text: &str| redacted(text, FIELD_CHARS_MAX);
    match object {
        Object::Path { path, resolved } => Object::Path { path: short(path), resolved: resolved.as_deref().map(short) },
        Object::Host { host, port, url } => {
            Object::Host { host: short(host), port: *port, url: url.as_deref().map(short) }
        }
        Object::Program { program, argv, script } => {
            // Some secrets are seen only beside the word before them.
            let joined = redacted(&argv.join(" "), usize::MAX);
            let argv = if joined == argv.join(" ") {
                argv.iter().take(ARGV_MAX).map(|word| short(word)).collect()
            } else {
                joined.split(' ').take(ARGV_MAX).map(short).collect()
            };
            Object::Program { program: short(program), argv, script: script.as_deref().map(short) }
        }
        Object::McpTool { server, tool } => Object::McpTool { server: short(server), tool: short(tool) },
        Object::Credential { name } => Object::Credential { name: short(name) },
        Object::ConfigKey { system, key } => Object::ConfigKey { system: short(system), key: short(key) },
        Object::Text { role, bytes } => Object::Text { role: *role, bytes: *bytes },
    }
}

/// What an excerpt may show of a call.
pub(crate) fn excerpt(action: &Action) -> String {
    let Some(call) = &action.call else { return String::new() };
    let mut excerpt = String::new();
    for field in EXCERPT_FIELDS {
        let text = match call.input.get(field) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
            _ => continue,
        };
        if !excerpt.is_empty() {
            excerpt.push_str("; ");
        }
        let _ = write!(excerpt, "{field}: {}", redacted(&text, SHOWN_CHARS_MAX));
        if excerpt.len() >= SHOWN_CHARS_MAX {
            break;
        }
    }
    excerpt
}

/// One line for a person.
pub(crate) fn sentence(effect: &Effect, shown: &Object) -> String {
    let mut text = format!("{} ", effect.verb);
    match shown {
        Object::Path { path, resolved } => {
            text.push_str(path);
            if let Some(target) = resolved.as_ref().filter(|target| *target != path) {
                let _ = write!(text, " -> {target}");
            }
        }
        Object::Program { program, .. } if program.is_empty() => text.push_str("something that was not understood"),
        other => {
            let _ = write!(text, "{other}");
        }
    }
    let zones: Vec<&str> = effect.zones.iter().map(Zone::as_str).collect();
    if !zones.is_empty() {
        let _ = write!(text, " [{}]", zones.join(", "));
    }
    for (flag, word) in [
        (effect.recursive, "and everything below"),
        (effect.dynamic, "not known exactly"),
        (effect.elevated, "with higher rights"),
        (effect.remote, "elsewhere"),
    ] {
        if flag {
            let _ = write!(text, ", {word}");
        }
    }
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn idle_fields_and_spelling_do_not_matter() {
        let a = json!({"command": "ls", "description": "x", "n": 1.0, "gone": null});
        let b = json!({"n": 1, "command": "ls", "timeout": 5});
        assert_eq!(canonical_input(&a), canonical_input(&b));
        assert_ne!(canonical_input(&a), canonical_input(&json!({"command": "ls -a", "n": 1})));
        assert_eq!(fields(&json!({"a": {"x": 1, "y": null}})), fields(&json!({"a": {"x": 1.0}})));
    }

    #[test]
    fn a_long_word_is_cut_at_a_character() {
        let long = "é".repeat(5000);
        assert_eq!(redacted(&long, 10), format!("{}…", "é".repeat(10)));
    }
}
