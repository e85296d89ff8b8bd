//! The canary with the real agent: effective where the hook holds, and a true *not effective* where it does not.

use creel_tests::{Account, Agent, Creel, Stage, StandIn};
use serde_json::Value;

const SETTINGS: &str = "/home/dana/.claude/settings.json";

/// Runs the canary as the person, and gives back exit code and what it found.
fn canary(creel: &Creel<'_>, kind: &str) -> (Option<i32>, Value) {
    let ended = creel.command_by(Account::USER, &["guard", "canary", kind, "--live", "--format", "json"]).unwrap();
    (ended.code, ended.json().unwrap())
}

/// What the status says about the last proof of the account's own agent.
fn proof(creel: &Creel<'_>, kind: &str, scope: &str) -> Value {
    let status = creel.command_by(Account::USER, &["guard", "status", kind, "--format", "json"]).unwrap();
    let states = status.well().unwrap().json().unwrap();
    states.as_array().unwrap().iter().find(|state| state["scope"] == scope).unwrap()["canary"].clone()
}

/// Nothing of the run is left: no folder, no process of the agent.
fn nothing_is_left(stage: &Stage) {
    let left = std::fs::read_dir(stage.outside("/tmp")).unwrap().flatten();
    let left: Vec<String> = left.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(!left.iter().any(|name| name.starts_with("creel-canary-")), "{left:?}");
    for process in stage.processes() {
        let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        assert!(!matches!(name.trim(), "claude" | "codex" | "node"), "{name}");
    }
}

#[test]
fn claude_code_is_proved_in_user_mode_and_seen_to_fail_without_its_hook() {
    let Some(stage) = Stage::open() else { return };
    if !Agent::Claude.is_here(&stage) {
        return;
    }
    let creel = Creel::user(&stage, Account::USER).unwrap();
    let installed =
        creel.command(&["guard", "install", "claude-code", "--live", "--format", "json"]).unwrap().well().unwrap();
    let installed = installed.json().unwrap();
    assert_eq!(installed["canary"]["live"], true, "{installed:#}");
    assert_eq!(installed["canary"]["effective"], true, "{installed:#}");
    assert_eq!(installed["canary"]["version"], Agent::Claude.version());
    let kept = proof(&creel, "claude-code", "user");
    assert_eq!((&kept["live"], &kept["effective"]), (&Value::Bool(true), &Value::Bool(true)), "{kept:#}");
    let status = creel.command(&["status"]).unwrap().well().unwrap();
    assert!(status.stdout.contains("by live canary"), "{status}");
    nothing_is_left(&stage);

    // The harmless call was judged like any other, and the proof itself is on record.
    let calls = creel.decisions("tool_call", "Bash").unwrap();
    assert_eq!(calls.len(), 1, "{calls:#?}");
    assert_eq!(calls[0]["envelope"]["verdict"], "allow");
    assert_eq!(creel.coded("protection.canary").unwrap().len(), 1);

    // Somebody switches all hooks off: the agent runs the forbidden call, and that is what is said.
    let text = stage.read(SETTINGS).unwrap();
    let off = text.replacen('{', "{\"disableAllHooks\": true,", 1);
    stage.write(Account::USER, SETTINGS, off).unwrap();
    let (code, seen) = canary(&creel, "claude-code");
    assert_eq!(code, Some(1), "{seen:#}");
    assert_eq!(seen["effective"], false);
    assert!(seen["because"].as_str().unwrap().contains("without asking the hook"), "{seen:#}");
    let kept = proof(&creel, "claude-code", "user");
    assert_eq!(kept["effective"], false, "{kept:#}");
    nothing_is_left(&stage);

    // As it was: effective again.
    stage.write(Account::USER, SETTINGS, text).unwrap();
    let (code, seen) = canary(&creel, "claude-code");
    assert_eq!((code, &seen["effective"]), (Some(0), &Value::Bool(true)), "{seen:#}");
    creel.verified().unwrap();
}

#[test]
fn both_agents_are_proved_in_system_mode_by_the_person_and_never_by_root() {
    let Some(stage) = Stage::open() else { return };
    if !Agent::Claude.is_here(&stage) || !Agent::Codex.is_here(&stage) {
        return;
    }
    let creel = Creel::system(&stage).unwrap();
    for kind in ["claude-code", "codex"] {
        creel.command(&["guard", "install", kind, "--system"]).unwrap().well().unwrap();
        let root = creel.command(&["guard", "canary", kind, "--live"]).unwrap();
        assert_eq!(root.code, Some(2), "{root}");
        assert!(root.stderr.contains("never runs an agent as root"), "{root}");
        let (code, seen) = canary(&creel, kind);
        assert_eq!(
            (code, &seen["effective"], &seen["live"]),
            (Some(0), &Value::Bool(true), &Value::Bool(true)),
            "{seen:#}"
        );
        assert_eq!(proof(&creel, kind, "system")["live"], true);
        nothing_is_left(&stage);
    }
    // One person's proof says nothing about everybody's wiring.
    let root = creel.command(&["guard", "status", "codex", "--format", "json"]).unwrap().well().unwrap();
    assert_eq!(root.json().unwrap()[0]["canary"]["live"], false, "{root}");
}

#[test]
fn codex_without_trust_in_its_hooks_is_seen_to_be_not_protected() {
    let Some(stage) = Stage::open() else { return };
    if !Agent::Codex.is_here(&stage) {
        return;
    }
    let creel = Creel::user(&stage, Account::USER).unwrap();
    let installed = creel.command(&["guard", "install", "codex", "--live", "--format", "json"]).unwrap();
    assert_eq!(installed.code, Some(1), "{installed}");
    let canary = installed.json().unwrap()["canary"].clone();
    assert_eq!(canary["effective"], false);
    assert!(canary["because"].as_str().unwrap().contains("without asking the hook"), "{canary:#}");
    nothing_is_left(&stage);
}

#[test]
fn an_agent_that_is_not_there_or_asks_itself_proves_nothing() {
    let Some(stage) = Stage::open() else { return };
    let creel = Creel::user(&stage, Account::USER).unwrap();
    // A stand-in that never asks a model, where the person's PATH finds it first.
    let agent = StandIn::claude(&stage, Account::USER).unwrap();
    creel.command(&["guard", "install", "claude-code"]).unwrap().well().unwrap();
    let run = stage
        .run(Account::USER, "creel")
        .arguments(["guard", "canary", "claude-code", "--live", "--format", "json"])
        .environment("PATH", "/home/dana/.local/bin:/usr/bin:/bin");
    let ended = run.finish(60).unwrap();
    assert_eq!(ended.code, Some(1), "{ended}");
    assert!(ended.json().unwrap()["because"].as_str().unwrap().contains("did not ask the model"), "{ended}");
    // Below an agent nobody proves anything.
    let below = agent.script("/usr/bin/creel guard canary claude-code --live").finish(60).unwrap();
    assert_eq!(below.code, Some(2), "{below}");
    assert!(below.stderr.contains("below"), "{below}");
}
