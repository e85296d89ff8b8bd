//! The real Codex under creel: judged, recorded, stopped, and not switched off.

use creel_tests::{Account, Agent, Creel, Endpoint, Stage, Step, codex};
use serde_json::json;

/// A stage with creel installed for Codex in system mode.
fn protected(stage: &Stage) -> Creel<'_> {
    let creel = Creel::system(stage).unwrap();
    creel.command(&["guard", "install", "codex", "--system"]).unwrap().well().unwrap();
    assert!(stage.exists("/etc/codex/requirements.toml"));
    stage.make_folder(Account::USER, "/home/dana/project").unwrap();
    creel
}

fn shell(command: &str) -> Step {
    Step::tool("shell_command", json!({"command": command}))
}

#[test]
fn a_harmless_call_runs_and_a_destructive_one_is_stopped() {
    let Some(stage) = Stage::open() else { return };
    if !Agent::Codex.is_here(&stage) {
        return;
    }
    let creel = protected(&stage);
    stage.write(Account::USER, "/home/dana/precious.txt", "keep me").unwrap();
    let endpoint = Endpoint::start(vec![
        shell("echo hello > mark.txt; echo seen"),
        shell("rm -rf ~"),
        Step::text("done"),
    ])
    .unwrap();
    let run = codex(&stage, Account::USER, &endpoint, "clean up").unwrap().folder("/home/dana/project");
    run.finish(120).unwrap().well().unwrap();
    assert_eq!(stage.read("/home/dana/project/mark.txt").unwrap(), "hello\n");
    assert_eq!(stage.read("/home/dana/precious.txt").unwrap(), "keep me");
    let told = endpoint.last_result();
    assert!(told.contains("delete-home-or-root"), "{told}");
    let calls = creel.decisions("tool_call", "Bash").unwrap();
    let verdicts: Vec<&str> = calls.iter().map(|call| call["envelope"]["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["allow", "deny"]);
}
