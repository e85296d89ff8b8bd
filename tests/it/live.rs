//! What a person does around protection: prove it with the real agent, loosen it with a code, see that it drifted.

use creel_tests::{Account, Agent, Creel, Deadline, Running, Stage, StandIn, tool_call, until};
use serde_json::{Value, json};

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

/// Asks for something that loosens, at a terminal, and gives back the code that the screen then shows for it.
fn code_for(creel: &Creel<'_>, screen: &Running, purpose: &str, arguments: &[&str]) -> String {
    // Nobody types anything: nothing is done, but the code is on the screen.
    let asked = creel.at_terminal(Account::USER, arguments).unwrap();
    assert_eq!(asked.code, Some(2), "{asked}");
    let marker = format!("code for `creel {purpose}`: ");
    until("the code on the screen", Deadline::seconds(60), || {
        let shown = screen.stdout();
        let (_, after) = shown.rsplit_once(&marker)?;
        let digits: String = after.chars().take(8).filter(char::is_ascii_digit).collect();
        (digits.len() == 6).then_some(digits)
    })
    .unwrap()
}

#[test]
fn what_loosens_needs_the_code_of_another_screen() {
    let Some(stage) = Stage::open() else { return };
    let original = "{ \"model\" :\"opus\",\n\n  \"z\":1 }\n";
    stage.write(Account::USER, SETTINGS, original).unwrap();
    let creel = Creel::user(&stage, Account::USER).unwrap();
    let agent = StandIn::claude(&stage, Account::USER).unwrap();
    creel.command(&["guard", "install", "claude-code"]).unwrap().well().unwrap();
    assert_ne!(stage.read(SETTINGS).unwrap(), original);
    let screen = creel.screen(Account::USER).unwrap();
    until("the screen", Deadline::seconds(60), || screen.stdout().contains("Claude Code").then_some(())).unwrap();
    let destroy = || {
        let call = tool_call(Account::USER, "s-1", "t-1", "Bash", &json!({"command": "rm -rf ~"})).to_string();
        let ended = agent.call("PreToolUse", "--user", call).finish(60).unwrap();
        ended.stdout.contains("\"deny\"")
    };
    assert!(destroy());

    let with = |arguments: &[&str], code: &str| {
        let words = [arguments, &["--code", code]].concat();
        creel.at_terminal(Account::USER, &words).unwrap()
    };
    // Without a terminal there is no person; with a wrong code nothing is done.
    let open = ["break-glass", "--minutes", "5", "--reason", "stuck"];
    assert_eq!(creel.command(&open).unwrap().code, Some(2));
    let code = code_for(&creel, &screen, "break-glass", &open);
    let wrong = if code == "000000" { "000001" } else { "000000" };
    assert_eq!(with(&open, wrong).code, Some(2));
    assert!(destroy());
    let opened = with(&open, &code);
    assert_eq!(opened.code, Some(0), "{opened}");
    assert!(!destroy(), "everything goes while the glass is broken");
    let ended = creel.at_terminal(Account::USER, &["break-glass", "--end"]).unwrap();
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(destroy());
    assert_eq!(with(&open, &code).code, Some(2), "a code works once");

    let audit = ["policy", "audit"];
    let code = code_for(&creel, &screen, "policy audit", &audit);
    let done = with(&audit, &code);
    assert_eq!(done.code, Some(0), "{done}");
    assert!(!destroy(), "rules only record");
    // Becoming stricter needs nobody's presence.
    creel.command(&["policy", "enforce"]).unwrap().well().unwrap();
    assert!(destroy());

    let remove = ["guard", "remove", "claude-code"];
    let code = code_for(&creel, &screen, "guard remove claude-code", &remove);
    assert_ne!(stage.read(SETTINGS).unwrap(), original);
    let removed = with(&remove, &code);
    assert_eq!(removed.code, Some(0), "{removed}");
    assert_eq!(stage.read(SETTINGS).unwrap(), original, "exactly, odd spaces and all");
    creel.verified().unwrap();
}

#[test]
fn drift_and_bypass_are_said_and_so_are_the_limits() {
    let Some(stage) = Stage::open() else { return };
    let creel = Creel::user(&stage, Account::USER).unwrap();
    StandIn::claude(&stage, Account::USER).unwrap();
    creel.command(&["guard", "install", "claude-code"]).unwrap().well().unwrap();
    let status = || {
        let states = creel.command(&["guard", "status", "claude-code", "--format", "json"]).unwrap().well().unwrap();
        let states = states.json().unwrap();
        states.as_array().unwrap().iter().find(|state| state["scope"] == "user").unwrap().clone()
    };
    assert_eq!(status()["state"], "installed");
    let wired = stage.read(SETTINGS).unwrap();
    stage.write(Account::USER, SETTINGS, wired.replace("PreToolUse", "PreToolUsed")).unwrap();
    let drifted = status();
    assert_eq!(drifted["state"], "drifted", "{drifted:#}");
    assert!(!drifted["drift"].as_array().unwrap().is_empty());
    let shown = creel.command(&["status"]).unwrap().well().unwrap();
    assert!(shown.stdout.contains("stops accidents, not a hostile process of your account"), "{shown}");
    assert!(shown.stdout.contains("not effective"), "{shown}");
    stage.write(Account::USER, SETTINGS, wired).unwrap();
    assert_eq!(status()["state"], "installed");

    // A running agent that was told to ask for nothing.
    assert_eq!(status()["bypasses"], json!([]));
    let bypassing = stage.run(Account::USER, "/home/dana/.local/bin/claude").arguments([
        "-c",
        "echo here; sleep 600; exit 0",
        "--dangerously-skip-permissions",
    ]);
    let mut running = bypassing.start().unwrap();
    running.says("here", Deadline::seconds(30)).unwrap();
    let seen = status();
    assert!(seen["bypasses"].to_string().contains("agent.bypass-flag"), "{seen:#}");
}

#[test]
fn an_agent_that_can_stop_creel_is_a_critical_problem() {
    let Some(stage) = Stage::open() else { return };
    let creel = Creel::system(&stage).unwrap();
    creel.command(&["guard", "install", "claude-code", "--system"]).unwrap().well().unwrap();
    let _ordinary = StandIn::claude(&stage, Account::USER).unwrap();
    let agent = StandIn::claude(&stage, Account::ROOT).unwrap();
    let mut running = agent.script("echo here; sleep 600").start().unwrap();
    running.says("here", Deadline::seconds(30)).unwrap();
    creel.command(&["agents", "--scan"]).unwrap().well().unwrap();
    let status = creel.status().unwrap();
    let worst = &status["problems"][0];
    assert_eq!(worst["severity"], "critical", "{status:#}");
    assert!(worst["text"].as_str().unwrap().contains("enforcement none: can stop creel"), "{worst}");
    let of = |account: &str| {
        let agents = status["agents"].as_array().unwrap();
        agents.iter().find(|agent| agent["account"] == account).unwrap()["governed_because"].to_string()
    };
    assert!(of("root").contains("can stop creel"), "{status:#}");
    assert!(!of("dana").contains("can stop creel"), "{status:#}");
}
