//! The hook in an agent's settings: current text in, new text and its difference out, and the exact way back.
//!
//! Pure: reads and writes no file; the caller hands in texts and carries out the [`Plan`]. Nothing of a person is
//! dropped: foreign hooks and settings stay in their order, and what a managed setting silences is listed first. The one
//! thing a newcomer gets wrong: undo is the backup's bytes, not a second merge; only a file that was edited since is
//! edited again.

use std::collections::BTreeMap;

use creel_model::Mode;
use serde_json::Value;

use crate::kinds::Event;
use crate::{Malformed, json};

pub mod claude_code;
pub mod codex;
mod difference;

pub use difference::difference;

/// Milliseconds after which the hook denies by itself, where somebody may be asked.
pub const DEADLINE_MS: u32 = 55_000;
/// Seconds after which the agent gives up on the hook there: later than the hook itself.
pub const TIMEOUT_SECONDS: u32 = 60;

/// The hook as it is written into settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookCommand {
    /// Absolute path of `creel-hook`.
    pub path: String,
    /// Another socket than the compiled-in ones, for development.
    pub socket: Option<String>,
    /// Whether only the system daemon may answer.
    pub mode: Mode,
    /// Environment to pin in managed settings beside what is always pinned, for example the model endpoint.
    pub environment: BTreeMap<String, String>,
}

/// A version as `MAJOR.MINOR.PATCH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// Reads the first `N.N.N` of a text such as `2.1.329 (Claude Code)` or `codex-cli 0.169.0`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(|word| {
            let mut numbers = word.split('.').map(str::parse);
            match (numbers.next(), numbers.next(), numbers.next()) {
                (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) => Some(Self(major, minor, patch)),
                _ => None,
            }
        })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Another settings file that the agent reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherFile<'a> {
    /// Where it is, for messages.
    pub path: &'a str,
    /// Its text.
    pub text: &'a str,
    /// Whether it is a managed one, whose hooks go on.
    pub managed: bool,
}

/// A hook of somebody else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OtherHook {
    /// The file it stands in.
    pub file: String,
    /// The event.
    pub event: String,
    /// What it runs, cut at 200 characters.
    pub command: String,
}

/// What installing would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The file: absolute, or beginning with `~/` for the account's home.
    pub path: String,
    /// Its text now; none where there is no file.
    pub before: Option<String>,
    /// Its text afterwards.
    pub after: String,
    /// Permission bits of a new file.
    pub permissions: u32,
    /// A unified difference; empty when nothing changes.
    pub difference: String,
    /// Hooks that no longer run afterwards.
    pub silenced: Vec<OtherHook>,
    /// What cannot be held in this mode at this version, in whole sentences.
    pub limits: Vec<String>,
}

impl Plan {
    fn new(path: &str, before: Option<&str>, after: String, permissions: u32) -> Self {
        Self {
            path: path.to_owned(),
            before: before.map(str::to_owned),
            difference: difference(path, before.unwrap_or_default(), &after),
            after,
            permissions,
            silenced: Vec::new(),
            limits: Vec::new(),
        }
    }
}

/// What undoing would do to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undo {
    /// Nothing: the file is gone already.
    Nothing,
    /// Remove it: there was none before.
    Remove,
    /// Write these bytes: the backup, or the edited file without our part.
    Write(Vec<u8>),
}

/// Why settings cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstallError {
    /// The file is not what the agent itself would read: comments, a key twice, cut off.
    Unreadable {
        /// Which file.
        file: String,
        /// What is wrong, with its place.
        why: String,
    },
    /// A value has a shape that cannot be merged with.
    Shape {
        /// Which file.
        file: String,
        /// The key.
        key: String,
        /// What was expected.
        expected: &'static str,
    },
    /// A setting that switches every hook off.
    HooksOff {
        /// Which file.
        file: String,
        /// The key.
        key: &'static str,
    },
    /// The hook's path is not absolute or cannot be written into a command line.
    HookPath(String),
}

impl std::fmt::Display for InstallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable { file, why } => write!(f, "`{file}` cannot be merged with: {why}"),
            Self::Shape { file, key, expected } => write!(f, "`{key}` in `{file}` is not {expected}"),
            Self::HooksOff { file, key } => write!(f, "`{key}` in `{file}` switches every hook off"),
            Self::HookPath(path) => write!(f, "`{path}` is not an absolute path that a command line can hold"),
        }
    }
}

impl std::error::Error for InstallError {}

impl HookCommand {
    /// The arguments for one event.
    ///
    /// # Errors
    /// [`InstallError::HookPath`] for a path or socket that is not absolute or has a line break.
    pub fn arguments(&self, kind: &str, event: &Event) -> Result<Vec<String>, InstallError> {
        for path in [Some(&self.path), self.socket.as_ref()].into_iter().flatten() {
            if !path.starts_with('/') || path.contains(['\n', '\0']) {
                return Err(InstallError::HookPath(path.clone()));
            }
        }
        let mode = if self.mode == Mode::System { "--system" } else { "--user" };
        let mut words = vec![kind.to_owned(), event.name.to_owned(), mode.to_owned()];
        words.extend(["--deadline-ms".to_owned(), deadline_ms(event).to_string()]);
        words.extend(self.socket.iter().flat_map(|path| ["--socket".to_owned(), path.clone()]));
        Ok(words)
    }

    /// The same as one line for agents that start hooks through a shell.
    ///
    /// # Errors
    /// As [`Self::arguments`].
    pub fn line(&self, kind: &str, event: &Event) -> Result<String, InstallError> {
        let mut line = quoted(&self.path);
        for word in self.arguments(kind, event)? {
            line.push(' ');
            line.push_str(&quoted(&word));
        }
        Ok(line)
    }
}

fn quoted(word: &str) -> String {
    if word.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b)) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The hook's own deadline: the agent's whole budget for the end of a session is 1.5 seconds.
const fn deadline_ms(event: &Event) -> u32 {
    match event.name.as_bytes() {
        b"SessionEnd" => 1_000,
        // Codex cuts the time of this event at three seconds, with a warning at every start.
        b"Interrupt" => 2_000,
        _ if event.blocking => DEADLINE_MS,
        _ => 5_000,
    }
}

const fn timeout_seconds(event: &Event) -> u32 {
    match event.name.as_bytes() {
        b"SessionEnd" => 2,
        b"Interrupt" => 3,
        _ if event.blocking => TIMEOUT_SECONDS,
        _ => 10,
    }
}

/// The way back. `installed` is what was written, `backup` what stood there before, `found` what stands there now;
/// `without` takes our part out of a text that was edited since.
///
/// # Errors
/// Those of `without`: an edited file that cannot be read is left alone.
pub fn undo(
    found: Option<&[u8]>,
    installed: &[u8],
    backup: Option<&[u8]>,
    without: impl FnOnce(&str) -> Result<Option<String>, InstallError>,
) -> Result<Undo, InstallError> {
    match (found, backup) {
        (None, _) => Ok(Undo::Nothing),
        (Some(found), Some(backup)) if found == installed => Ok(Undo::Write(backup.to_vec())),
        (Some(found), None) if found == installed => Ok(Undo::Remove),
        (Some(found), _) => {
            let text = std::str::from_utf8(found).map_err(|error| InstallError::Unreadable {
                file: "the edited settings".to_owned(),
                why: error.to_string(),
            })?;
            Ok(match without(text)? {
                None if backup.is_none() => Undo::Remove,
                None => Undo::Write(b"{}\n".to_vec()),
                Some(rest) => Undo::Write(rest.into_bytes()),
            })
        }
    }
}

/// What of `expected` no longer stands in `found`, one line each; both JSON or both TOML. Empty: nothing drifted.
#[must_use]
pub fn managed_drift(expected: &str, found: Option<&str>) -> Vec<String> {
    let Some(found) = found else { return vec!["the file is missing".to_owned()] };
    if found == expected {
        return Vec::new();
    }
    let read = |text: &str| json::parse(text.as_bytes()).ok().or_else(|| codex::as_json(text));
    let (Some(expected), Some(found)) = (read(expected), read(found)) else {
        return vec!["the file can no longer be read".to_owned()];
    };
    let mut drift = Vec::new();
    compare(&expected, &found, "", &mut drift);
    if found.get("disableAllHooks") == Some(&Value::Bool(true)) {
        drift.push("`/disableAllHooks` switches every hook off".to_owned());
    }
    drift
}

fn compare(expected: &Value, found: &Value, at: &str, drift: &mut Vec<String>) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            for (key, value) in expected {
                match found.get(key) {
                    Some(found) => compare(value, found, &format!("{at}/{key}"), drift),
                    None => drift.push(format!("`{at}/{key}` is missing")),
                }
            }
        }
        (Value::Array(expected), Value::Array(found)) => {
            for (index, value) in expected.iter().enumerate() {
                if !found.iter().any(|found| json::same(value, found)) {
                    drift.push(format!("`{at}/{index}` is missing or changed"));
                }
            }
        }
        (expected, found) if json::same(expected, found) => {}
        _ => drift.push(format!("`{at}` is changed")),
    }
}

/// A settings text as a JSON object; a missing or empty file is an empty object.
fn object(file: &str, text: Option<&str>) -> Result<serde_json::Map<String, Value>, InstallError> {
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else { return Ok(serde_json::Map::new()) };
    let unreadable = |why: String| InstallError::Unreadable { file: file.to_owned(), why };
    match json::parse(text.as_bytes()) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(unreadable("it is not a JSON object".to_owned())),
        Err(Malformed::NotJson { line, column }) => {
            Err(unreadable(format!("not JSON at line {line}, column {column}; comments are not JSON")))
        }
        Err(malformed) => Err(unreadable(malformed.to_string())),
    }
}

fn pretty(map: serde_json::Map<String, Value>) -> String {
    // Serialising a `Value` with text keys into memory has nothing that could fail.
    let mut text = serde_json::to_string_pretty(&Value::Object(map)).unwrap_or_default();
    text.push('\n');
    text
}

/// Whether a handler of a `hooks` list is this kind's `creel-hook`, in either form.
fn is_ours(kind: &str, handler: &Value) -> bool {
    let command = handler.get("command").and_then(Value::as_str).unwrap_or_default();
    match handler.get("args").and_then(|args| args.get(0)).and_then(Value::as_str) {
        Some(first) => command.ends_with("/creel-hook") && first == kind,
        None => {
            [format!("/creel-hook {kind} "), format!("/creel-hook' {kind} ")].iter().any(|ours| command.contains(ours))
        }
    }
}

/// Takes our handlers out of a `hooks` object and drops what becomes empty by that.
fn remove_ours(kind: &str, hooks: &mut serde_json::Map<String, Value>) {
    for groups in hooks.values_mut().filter_map(Value::as_array_mut) {
        groups.retain_mut(|group| {
            let Some(handlers) = group.get_mut("hooks").and_then(Value::as_array_mut) else { return true };
            let before = handlers.len();
            handlers.retain(|handler| !is_ours(kind, handler));
            before == handlers.len() || !handlers.is_empty()
        });
    }
    hooks.retain(|_, groups| groups.as_array().is_none_or(|groups| !groups.is_empty()));
}

/// Every hook of somebody else in a `hooks` object.
fn others(kind: &str, file: &str, hooks: &Value) -> Vec<OtherHook> {
    let mut found = Vec::new();
    for (event, groups) in hooks.as_object().into_iter().flatten() {
        for group in groups.as_array().into_iter().flatten() {
            for handler in group.get("hooks").and_then(Value::as_array).into_iter().flatten() {
                if !is_ours(kind, handler) {
                    let shown = ["command", "url", "tool", "prompt", "type"]
                        .into_iter()
                        .find_map(|key| handler.get(key).and_then(Value::as_str))
                        .unwrap_or_default();
                    found.push(OtherHook {
                        file: file.to_owned(),
                        event: event.clone(),
                        command: shown.chars().take(200).collect(),
                    });
                }
            }
        }
    }
    found
}

/// The hooks object of a settings map, made if there is none.
fn hooks_of<'a>(
    file: &str,
    settings: &'a mut serde_json::Map<String, Value>,
) -> Result<&'a mut serde_json::Map<String, Value>, InstallError> {
    let shape = |key: &str, expected| InstallError::Shape { file: file.to_owned(), key: key.to_owned(), expected };
    let hooks = settings.entry("hooks").or_insert_with(|| Value::Object(serde_json::Map::new()));
    let hooks = hooks.as_object_mut().ok_or_else(|| shape("hooks", "an object"))?;
    if let Some((event, _)) = hooks.iter().find(|(_, groups)| !groups.is_array()) {
        return Err(shape(&format!("hooks.{event}"), "a list"));
    }
    Ok(hooks)
}

/// Adds one group per installed event behind those that are there.
fn add_ours(
    hooks: &mut serde_json::Map<String, Value>,
    events: &[Event],
    group: impl Fn(&Event) -> Result<Value, InstallError>,
) -> Result<(), InstallError> {
    for event in events.iter().filter(|event| event.installed) {
        let groups = hooks.entry(event.name).or_insert_with(|| Value::Array(Vec::new()));
        if let Some(groups) = groups.as_array_mut() {
            groups.push(group(event)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
