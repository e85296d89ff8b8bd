//! Claude Code's settings: a managed drop-in that is wholly ours, or a merge into the account's own file.
//!
//! The one thing a newcomer gets wrong: only managed settings hold. A hook in the account's file runs after that
//! account's mods, which may answer a call without it, and whoever can write the file can remove it.

use serde_json::{Map, Value, json};

use super::{
    HookCommand, InstallError, OtherFile, Plan, Version, add_ours, hooks_of, object, others, pretty, remove_ours,
    timeout_seconds,
};
use crate::kinds::{self, CLAUDE_CODE, Doubt, Event};

/// The managed drop-in; wholly ours.
pub const SYSTEM_PATH: &str = "/etc/claude-code/managed-settings.d/50-creel.json";
/// The account's own settings.
pub const USER_PATH: &str = "~/.claude/settings.json";
/// The first version with `onFailure`.
pub const ON_FAILURE_SINCE: Version = Version(2, 1, 295);
/// The first version that loads mods.
pub const MODS_SINCE: Version = Version(2, 1, 287);
/// The version that this dialect was tested with.
pub const TESTED: Version = Version(2, 1, 329);

const NOT_FOR_ON_FAILURE: &[&str] = &["Stop", "SubagentStop", "TaskCompleted", "TeammateIdle"];

/// The managed drop-in. `dropin` is its present text, `files` everything else that the agent reads.
///
/// # Errors
/// A managed file switches every hook off, or the hook's path cannot be used. An unreadable file of a person is no
/// error: it is named in the limits.
pub fn system(
    hook: &HookCommand,
    version: Option<Version>,
    dropin: Option<&str>,
    files: &[OtherFile<'_>],
) -> Result<Plan, InstallError> {
    let mut settings = Map::new();
    settings.insert("allowManagedHooksOnly".to_owned(), json!(true));
    settings.insert("disableSideloadFlags".to_owned(), json!(true));
    if version.is_some_and(|version| version >= ON_FAILURE_SINCE) {
        settings.insert("requiredMinimumVersion".to_owned(), json!(ON_FAILURE_SINCE.to_string()));
    }
    let mut environment = Map::new();
    environment.insert("CLAUDE_CODE_SHELL_PREFIX".to_owned(), json!(""));
    environment.extend(hook.environment.iter().map(|(name, value)| (name.clone(), json!(value))));
    settings.insert("env".to_owned(), Value::Object(environment));
    settings.insert(
        "pluginConfigs".to_owned(),
        json!({"cc-plugin-sec-default@builtin": {"options": {"allowManagedModsOnly": true}}}),
    );
    add_ours(hooks_of(SYSTEM_PATH, &mut settings)?, kinds::events(CLAUDE_CODE), |event| group(hook, version, event))?;

    let mut plan = Plan::new(SYSTEM_PATH, dropin, pretty(settings), 0o644);
    plan.limits = limits_of_version(version);
    for file in files {
        match object(file.path, Some(file.text)) {
            Ok(map) if file.managed && map.get("disableAllHooks") == Some(&Value::Bool(true)) => {
                return Err(InstallError::HooksOff { file: file.path.to_owned(), key: "disableAllHooks" });
            }
            Ok(map) if !file.managed => {
                plan.silenced.extend(others(CLAUDE_CODE, file.path, map.get("hooks").unwrap_or(&Value::Null)));
            }
            Ok(_) => {}
            Err(error) => plan.limits.push(format!("{error}, so hooks in it that would be silenced are not listed.")),
        }
    }
    plan.limits.push(
        "The flags `--mcp-config`, `--plugin-dir` and `--agents` are refused from now on (`disableSideloadFlags`); MCP \
         servers in settings and projects go on."
            .to_owned(),
    );
    if !hook.environment.contains_key("ANTHROPIC_BASE_URL") {
        plan.limits.push(
            "A repository's settings can redirect the model endpoint in `-p` mode, because `ANTHROPIC_BASE_URL` is not \
             pinned."
                .to_owned(),
        );
    }
    Ok(plan)
}

/// The account's own settings with the hook in them; everything else stays as it is, in its order.
///
/// # Errors
/// The settings cannot be read (comments, a key twice), have another shape, or switch every hook off.
pub fn user(hook: &HookCommand, version: Option<Version>, settings_text: Option<&str>) -> Result<Plan, InstallError> {
    let mut settings = object(USER_PATH, settings_text)?;
    if settings.get("disableAllHooks") == Some(&Value::Bool(true)) {
        return Err(InstallError::HooksOff { file: USER_PATH.to_owned(), key: "disableAllHooks" });
    }
    let hooks = hooks_of(USER_PATH, &mut settings)?;
    remove_ours(CLAUDE_CODE, hooks);
    add_ours(hooks, kinds::events(CLAUDE_CODE), |event| group(hook, version, event))?;

    let mut plan = Plan::new(USER_PATH, settings_text, pretty(settings), 0o600);
    plan.limits = limits_of_version(version);
    plan.limits.push(
        "The account that the agent runs as can remove this hook, set `disableAllHooks`, or redirect it with \
         `CLAUDE_CODE_SAFE_MODE` and `--bare`."
            .to_owned(),
    );
    if version.is_none_or(|version| version >= MODS_SINCE) {
        plan.limits.push(
            "Mods of the account run before this hook and may answer a call without it; only managed settings are \
             above them."
                .to_owned(),
        );
    }
    Ok(plan)
}

/// A settings text without our hooks; nothing when nothing else is left.
///
/// # Errors
/// The text cannot be read.
pub fn without(text: &str) -> Result<Option<String>, InstallError> {
    let mut settings = object(USER_PATH, Some(text))?;
    if settings.contains_key("hooks") {
        let hooks = hooks_of(USER_PATH, &mut settings)?;
        remove_ours(CLAUDE_CODE, hooks);
        if hooks.is_empty() {
            settings.shift_remove("hooks");
        }
    }
    Ok((!settings.is_empty()).then(|| pretty(settings)))
}

fn limits_of_version(version: Option<Version>) -> Vec<String> {
    match version {
        None => vec![
            "The agent's version is unknown, so `onFailure` is left out: a hook that the agent cannot start lets the \
             call run."
                .to_owned(),
        ],
        Some(version) if version < ON_FAILURE_SINCE => vec![format!(
            "Claude Code {version} has no `onFailure` (since {ON_FAILURE_SINCE}): a hook that it cannot start lets the \
             call run."
        )],
        Some(Version(major, minor, _)) if (major, minor) != (TESTED.0, TESTED.1) => {
            vec![format!("This dialect was tested with {TESTED}; the canary must show that it holds here.")]
        }
        Some(_) => Vec::new(),
    }
}

/// One matcher group with our handler in exec form, which no shell and no prefix can touch.
fn group(hook: &HookCommand, version: Option<Version>, event: &Event) -> Result<Value, InstallError> {
    let mut handler = Map::new();
    handler.insert("type".to_owned(), json!("command"));
    handler.insert("command".to_owned(), json!(hook.path));
    handler.insert("args".to_owned(), json!(hook.arguments(CLAUDE_CODE, event)?));
    handler.insert("timeout".to_owned(), json!(timeout_seconds(event)));
    let on_failure = event.doubt != Doubt::Silent
        && !NOT_FOR_ON_FAILURE.contains(&event.name)
        && version.is_some_and(|version| version >= ON_FAILURE_SINCE);
    if on_failure {
        handler.insert("onFailure".to_owned(), json!("block"));
    }
    let mut group = Map::new();
    if event.name.contains("Tool") && event.name != "PostToolBatch" || event.name.starts_with("Permission") {
        group.insert("matcher".to_owned(), json!("*"));
    }
    group.insert("hooks".to_owned(), Value::Array(vec![Value::Object(handler)]));
    Ok(Value::Object(group))
}
