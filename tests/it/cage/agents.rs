//! The real agents in cages: a scripted turn over a forwarded port, their hooks, and what holds without any hook.

use creel_tests::{Account, Agent, Creel, Endpoint, Finished, Run, Stage, Step, claude, codex, gemini};
use serde_json::{Value, json};

use super::{WORKSPACE, copy};

/// What the agents' own programs and a script try: a harmless file, and a hook of git.
const ATTACK: &str = "echo fine >mark.txt; (printf '#!/bin/sh\\n' >.git/hooks/pre-commit) 2>&1; echo over";

/// A stage with the agent, a repository to work in, and a script that does what no hook sees.
fn scene(agent: Agent) -> Option<Stage> {
    let stage = Stage::open()?;
    if !agent.is_here(&stage) {
        return None;
    }
    stage.make_folder(Account::USER, WORKSPACE).unwrap();
    super::sh(&stage, Account::USER, "cd project; git init -q -b main .; mkdir -p .git/hooks");
    stage.write(Account::USER, &format!("{WORKSPACE}/build.sh"), ATTACK).unwrap();
    Some(stage)
}

/// creel in system mode; the agent's own profile, with the model's port.
fn creel<'stage>(stage: &'stage Stage, profile: &str, endpoint: &Endpoint) -> Creel<'stage> {
    let folder = "/etc/creel/policy";
    copy(stage, Account::ROOT, std::path::Path::new(super::STARTER), folder);
    let text = format!(
        "about = \"with the scripted model\"\nextends = \"{profile}\"\n[network]\nhost_loopback_ports = [{}]\n\
         [environment]\npass = [\"SCRIPTED_KEY\", \"GEMINI_CLI_TRUST_WORKSPACE\"]\n",
        endpoint.port()
    );
    stage.write(Account::ROOT, &format!("{folder}/profiles/scripted.toml"), text).unwrap();
    super::sh(stage, Account::ROOT, "chmod -R a+rX /etc/creel");
    Creel::system(stage).unwrap()
}

/// What the agent and the daemon said, for a failure.
fn words(creel: &Creel<'_>, ended: &Finished) -> String {
    let records = creel.records().unwrap();
    let shown: Vec<String> = records.iter().rev().take(12).map(|record| record["envelope"].to_string()).collect();
    format!("{ended}\n{}", shown.join("\n"))
}

fn inside(run: Run<'_>) -> Finished {
    let options = ["run", "--profile", "scripted", "--workspace", WORKSPACE, "--"];
    run.folder(WORKSPACE).under("creel", &options).finish(180).unwrap().well().unwrap()
}

/// What each step's result was; the first request of a conversation has none.
fn results(endpoint: &Endpoint) -> Vec<String> {
    let requests = endpoint.requests();
    requests.into_iter().filter(|request| request.step > Some(0)).map(|request| request.last_result).collect()
}

/// The harmless half of the attack was done, the other one was stopped by the cage and not by a judgement.
fn held(stage: &Stage, told: &str) {
    assert_eq!(stage.read(&format!("{WORKSPACE}/mark.txt")).unwrap_or_default(), "fine\n", "{told}");
    assert!(!stage.exists(&format!("{WORKSPACE}/.git/hooks/pre-commit")), "{told}");
    assert!(told.contains("over"), "{told}");
    let refused = ["Read-only file system", "Operation not permitted", "Permission denied"];
    assert!(refused.iter().any(|words| told.contains(words)), "{told}");
}

/// The newest run's statement: every control, its mechanism and what showed it.
fn stated(creel: &Creel<'_>, kind: &str) {
    let runs = creel.command(&["runs", "--all", "--format", "jsonl"]).unwrap().well().unwrap().json_lines().unwrap();
    let run = runs.last().and_then(|run| run["run"].as_str()).unwrap().to_owned();
    // The run is over, so its statement holds no more, and the exit code says so.
    let shown = creel.command(&["status", &run, "--format", "json"]).unwrap().json().unwrap();
    assert_eq!(shown["kind"], kind, "{shown:#}");
    let controls = shown["statement"]["statement"]["controls"].as_array().unwrap();
    assert!(controls.len() >= 10, "{controls:#?}");
    let weak: Vec<&Value> = controls
        .iter()
        .filter(|control| !["proved", "configured"].contains(&control["standing"].as_str().unwrap()))
        .collect();
    assert!(weak.is_empty(), "{weak:#?}");
    assert!(controls.iter().all(|control| control["mechanism"].as_str().is_some_and(|text| !text.is_empty())));
    let why = creel.command(&["why", &run]).unwrap();
    assert!(why.stdout.contains(".git/hooks"), "{why}");
}

/// The agent's hooks spoke to the daemon from inside, and what they said belongs to one run.
fn heard(creel: &Creel<'_>, kind: &str) {
    let records = creel.records().unwrap();
    let of =
        |event: &str| -> Vec<&Value> { records.iter().filter(|record| record["envelope"]["event"] == event).collect() };
    for event in ["SessionStart", "UserPromptSubmit", "PreToolUse", "PostToolUse", "Stop"] {
        assert!(!of(event).is_empty(), "{event}: {records:#?}");
    }
    assert!(of("PreToolUse").iter().all(|call| call["envelope"]["subject"]["kind"] == kind), "{records:#?}");
    creel.verified().unwrap();
}

#[test]
fn claude_code_works_inside_with_and_without_its_hooks() {
    let Some(stage) = scene(Agent::Claude) else { return };
    let bash = |command: &str| Step::tool("Bash", json!({"command": command, "description": "a step"}));
    let endpoint = Endpoint::start(vec![bash("sh ./build.sh"), Step::QuoteResult]).unwrap();
    let creel = creel(&stage, "claude-code", &endpoint);
    let run = || claude(&stage, Account::USER, &endpoint, "build it").unwrap();
    stage.make_folder(Account::USER, "/home/dana/.claude").unwrap();
    inside(run());
    held(&stage, &results(&endpoint)[0]);

    super::sh(&stage, Account::USER, "rm project/mark.txt");
    creel.command(&["guard", "install", "claude-code", "--system"]).unwrap().well().unwrap();
    endpoint.play(vec![bash("sh ./build.sh"), Step::QuoteResult]);
    let ended = inside(run());
    assert_eq!(endpoint.played(), 2, "{}", words(&creel, &ended));
    held(&stage, &endpoint.last_result());
    heard(&creel, "claude-code");
    stated(&creel, "claude-code");
    // The person keeps what the agent keeps between its runs.
    let kept = super::sh(&stage, Account::USER, "ls -d .claude/projects; cat .claude.json");
    assert!(kept.stdout.lines().count() > 5, "it is as it was begun: {kept}");
}

#[test]
fn codex_works_inside_with_and_without_its_hooks() {
    let Some(stage) = scene(Agent::Codex) else { return };
    let shell = |command: &str| Step::tool("exec_command", json!({"cmd": command}));
    let endpoint = Endpoint::start(vec![shell("sh ./build.sh"), Step::text("done")]).unwrap();
    let creel = creel(&stage, "codex", &endpoint);
    let run = || codex(&stage, Account::USER, &endpoint, "build it").unwrap();
    inside(run());
    held(&stage, &results(&endpoint)[0]);

    super::sh(&stage, Account::USER, "rm project/mark.txt");
    creel.command(&["guard", "install", "codex", "--system"]).unwrap().well().unwrap();
    endpoint.play(vec![shell("sh ./build.sh"), Step::text("done")]);
    let ended = inside(run());
    assert_eq!(endpoint.played(), 2, "{}", words(&creel, &ended));
    held(&stage, &endpoint.last_result());
    heard(&creel, "codex");
    stated(&creel, "codex");
}

/// creel speaks no hook protocol of this one: what holds is the cage alone.
#[test]
fn gemini_works_inside_without_any_hook() {
    let Some(stage) = scene(Agent::Gemini) else { return };
    let shell = json!({"command": "sh ./build.sh", "description": "a step"});
    let endpoint = Endpoint::start(vec![Step::tool("run_shell_command", shell), Step::QuoteResult]).unwrap();
    let creel = creel(&stage, "gemini-cli", &endpoint);
    inside(gemini(&stage, Account::USER, &endpoint, "build it").unwrap());
    held(&stage, &endpoint.last_result());
    stated(&creel, "gemini-cli");
}
