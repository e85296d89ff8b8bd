//! Codex's settings: a merge into the machine's requirements, or into the account's hooks file.
//!
//! The one thing a newcomer gets wrong: managed hooks alone can be switched off by the account (`--disable hooks`);
//! only together with `[features] hooks = true` in the same file they stay on.

use serde_json::{Map, Value, json};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, TableLike, value};

use super::{
    HookCommand, InstallError, OtherFile, OtherHook, Plan, Version, add_ours, hooks_of, is_ours, object, others,
    pretty, remove_ours, timeout_seconds,
};
use crate::kinds::{self, CODEX, Event};

/// The machine's requirements.
pub const SYSTEM_PATH: &str = "/etc/codex/requirements.toml";
/// The account's hooks.
pub const USER_PATH: &str = "~/.codex/hooks.json";
/// The version that this dialect was tested with.
pub const TESTED: Version = Version(0, 169, 0);

/// Settings that are pinned beside the hooks: top-level ones have no table.
const PINS: &[(&str, &str, bool)] = &[
    ("", "allow_managed_hooks_only", true),
    ("features", "hooks", true),
    // `write_stdin` types into a shell that runs already, and no hook sees it; without unified exec there is none.
    ("features", "unified_exec", false),
];

/// The machine's requirements with our hooks and pins; everything else stays as it is.
///
/// # Errors
/// The text is not TOML, or `features` or `hooks` have another shape than Codex reads.
pub fn system(
    hook: &HookCommand,
    version: Option<Version>,
    requirements: Option<&str>,
    files: &[OtherFile<'_>],
) -> Result<Plan, InstallError> {
    let mut document = document(requirements.unwrap_or_default())?;
    for (table, key, pinned) in PINS {
        let at = if table.is_empty() {
            document.as_table_mut() as &mut dyn TableLike
        } else {
            table_of(&mut document, table)?
        };
        set(at, key, *pinned);
    }
    remove_our_tables(&mut document)?;
    for event in kinds::events(CODEX).iter().filter(|event| event.installed) {
        let mut handler = Table::new();
        handler.insert("type", value("command"));
        handler.insert("command", value(hook.line(CODEX, event)?));
        handler.insert("timeout", value(i64::from(timeout_seconds(event))));
        let mut handlers = ArrayOfTables::new();
        handlers.push(handler);
        let mut group = Table::new();
        group.insert("hooks", Item::ArrayOfTables(handlers));
        groups_of(&mut document, event)?.push(group);
    }

    let mut plan = Plan::new(SYSTEM_PATH, requirements, document.to_string(), 0o644);
    for file in files.iter().filter(|file| !file.managed) {
        match hooks_in(file) {
            Ok(found) => plan.silenced.extend(found),
            Err(error) => plan.limits.push(format!("{error}, so hooks in it that would be silenced are not listed.")),
        }
    }
    plan.limits.extend(limits(version));
    Ok(plan)
}

/// The account's hooks file with our hooks.
///
/// # Errors
/// The file cannot be read, or has a key beside `hooks` and `description`: Codex then ignores the whole file.
pub fn user(hook: &HookCommand, version: Option<Version>, hooks_text: Option<&str>) -> Result<Plan, InstallError> {
    let mut settings = object(USER_PATH, hooks_text)?;
    if let Some((key, _)) = settings.iter().find(|(key, _)| !matches!(key.as_str(), "hooks" | "description")) {
        return Err(InstallError::Shape {
            file: USER_PATH.to_owned(),
            key: key.clone(),
            expected: "a key that Codex reads (`hooks`, `description`)",
        });
    }
    let hooks = hooks_of(USER_PATH, &mut settings)?;
    remove_ours(CODEX, hooks);
    add_ours(hooks, kinds::events(CODEX), |event| {
        let command = hook.line(CODEX, event)?;
        Ok(json!({"hooks": [{"type": "command", "command": command, "timeout": timeout_seconds(event)}]}))
    })?;

    let mut plan = Plan::new(USER_PATH, hooks_text, pretty(settings), 0o600);
    plan.limits = vec![
        "Codex runs a hook of an account only after that person has trusted it: open `codex`, enter `/hooks`, and trust \
         each `creel-hook` line; every change of the line asks again."
            .to_owned(),
        "The account that the agent runs as can remove this hook or start Codex with `--disable hooks`.".to_owned(),
        "`write_stdin` types into a running shell without any hook; set `features.unified_exec = false`.".to_owned(),
    ];
    plan.limits.extend(limits(version));
    Ok(plan)
}

/// A hooks file without our hooks; nothing when nothing else is left.
///
/// # Errors
/// The text cannot be read.
pub fn without(text: &str) -> Result<Option<String>, InstallError> {
    let mut settings = object(USER_PATH, Some(text))?;
    if settings.contains_key("hooks") {
        let hooks = hooks_of(USER_PATH, &mut settings)?;
        remove_ours(CODEX, hooks);
        if hooks.is_empty() {
            settings.shift_remove("hooks");
        }
    }
    Ok((!settings.is_empty()).then(|| pretty(settings)))
}

/// Edited requirements without our part: our hooks go, pins go back to what the backup says; nothing when nothing is left.
///
/// # Errors
/// The text or the backup is not TOML.
pub fn without_requirements(text: &str, backup: Option<&str>) -> Result<Option<String>, InstallError> {
    let mut edited = document(text)?;
    let before = document(backup.unwrap_or_default())?;
    remove_our_tables(&mut edited)?;
    for (table, key, pinned) in PINS {
        let old = if table.is_empty() { before.get(key) } else { before.get(table).and_then(|table| table.get(key)) };
        let old = old.cloned();
        let at = if table.is_empty() {
            edited.as_table_mut() as &mut dyn TableLike
        } else {
            let Some(at) = edited.get_mut(table).and_then(Item::as_table_like_mut) else { continue };
            at
        };
        if at.get(key).and_then(Item::as_bool) == Some(*pinned) {
            match old {
                Some(old) => drop(at.insert(key, old)),
                None => drop(at.remove(key)),
            }
        }
        if !table.is_empty() && at.is_empty() && before.get(table).is_none() {
            edited.remove(table);
        }
    }
    let rest = edited.to_string();
    Ok((!rest.trim().is_empty()).then_some(rest))
}

fn limits(version: Option<Version>) -> Vec<String> {
    let mut limits = vec![
        "Codex starts hooks through a shell with the account's environment, so a `BASH_ENV` of that account can silence \
         the hook; only a cage closes that."
            .to_owned(),
        "A hook that Codex cannot start, or that answers too late, lets the call run.".to_owned(),
    ];
    if version.is_none_or(|version| (version.0, version.1) != (TESTED.0, TESTED.1)) {
        limits.push(format!("This dialect was tested with {TESTED}; the canary must show that it holds here."));
    }
    limits
}

fn document(text: &str) -> Result<DocumentMut, InstallError> {
    text.parse().map_err(|error: toml_edit::TomlError| InstallError::Unreadable {
        file: SYSTEM_PATH.to_owned(),
        why: error.to_string().trim_end().to_owned(),
    })
}

fn shape(key: &str, expected: &'static str) -> InstallError {
    InstallError::Shape { file: SYSTEM_PATH.to_owned(), key: key.to_owned(), expected }
}

fn table_of<'a>(document: &'a mut DocumentMut, name: &str) -> Result<&'a mut dyn TableLike, InstallError> {
    let item = document.as_table_mut().entry(name).or_insert_with(|| {
        let mut table = Table::new();
        // `[hooks]` itself needs no header before `[[hooks.PreToolUse]]`.
        table.set_implicit(name == "hooks");
        Item::Table(table)
    });
    item.as_table_like_mut().ok_or_else(|| shape(name, "a table"))
}

/// Sets a value and keeps the comment beside it.
fn set(table: &mut dyn TableLike, key: &str, pinned: bool) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            let decor = old.decor().clone();
            *old = pinned.into();
            *old.decor_mut() = decor;
        }
        None => drop(table.insert(key, value(pinned))),
    }
}

fn groups_of<'a>(document: &'a mut DocumentMut, event: &Event) -> Result<&'a mut ArrayOfTables, InstallError> {
    let hooks = table_of(document, "hooks")?;
    let item = hooks.entry(event.name).or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    item.as_array_of_tables_mut().ok_or_else(|| shape(&format!("hooks.{}", event.name), "a list of tables"))
}

fn remove_our_tables(document: &mut DocumentMut) -> Result<(), InstallError> {
    let Some(hooks) = document.get_mut("hooks") else { return Ok(()) };
    let hooks = hooks.as_table_like_mut().ok_or_else(|| shape("hooks", "a table"))?;
    let mut emptied = Vec::new();
    for (event, item) in hooks.iter_mut() {
        let Some(groups) = item.as_array_of_tables_mut() else { continue };
        groups.retain(|group| {
            let handlers = group.get("hooks").map(item_as_json).unwrap_or_default();
            let handlers = handlers.as_array().map(Vec::as_slice).unwrap_or_default();
            handlers.is_empty() || !handlers.iter().all(|handler| is_ours(CODEX, handler))
        });
        if groups.is_empty() {
            emptied.push(event.get().to_owned());
        }
    }
    for event in emptied {
        hooks.remove(&event);
    }
    if hooks.is_empty() {
        document.remove("hooks");
    }
    Ok(())
}

/// Hooks of somebody else in a hooks file (JSON) or a configuration (TOML).
fn hooks_in(file: &OtherFile<'_>) -> Result<Vec<OtherHook>, InstallError> {
    if file.path.ends_with(".toml") {
        let settings = as_json(file.text)
            .ok_or_else(|| InstallError::Unreadable { file: file.path.to_owned(), why: "it is not TOML".to_owned() })?;
        return Ok(others(CODEX, file.path, settings.get("hooks").unwrap_or(&Value::Null)));
    }
    let settings = object(file.path, Some(file.text))?;
    Ok(others(CODEX, file.path, settings.get("hooks").unwrap_or(&Value::Null)))
}

/// TOML as JSON, dates as text; none when it is not TOML.
pub(crate) fn as_json(text: &str) -> Option<Value> {
    let document: DocumentMut = text.parse().ok()?;
    Some(item_as_json(document.as_item()))
}

fn item_as_json(item: &Item) -> Value {
    match item {
        Item::None => Value::Null,
        Item::Value(value) => value_as_json(value),
        Item::Table(table) => table_as_json(table),
        Item::ArrayOfTables(tables) => Value::Array(tables.iter().map(|table| table_as_json(table)).collect()),
    }
}

fn table_as_json(table: &dyn TableLike) -> Value {
    Value::Object(table.iter().map(|(key, item)| (key.to_owned(), item_as_json(item))).collect::<Map<_, _>>())
}

fn value_as_json(value: &toml_edit::Value) -> Value {
    match value {
        toml_edit::Value::String(text) => json!(text.value()),
        toml_edit::Value::Integer(number) => json!(number.value()),
        toml_edit::Value::Float(number) => json!(number.value()),
        toml_edit::Value::Boolean(flag) => json!(flag.value()),
        toml_edit::Value::Datetime(time) => json!(time.value().to_string()),
        toml_edit::Value::Array(items) => Value::Array(items.iter().map(value_as_json).collect()),
        toml_edit::Value::InlineTable(table) => table_as_json(table),
    }
}
