//! Questions to people: answered from outside, once, for exactly what was asked, and never by the agent.

use creel_tests::{Account, Agent, Creel, Endpoint, Stage, Step, claude};
use serde_json::json;

#[test]
fn an_ask_is_approved_from_outside_and_runs_once() {
    let Some(stage) = Stage::open() else { return };
    if !Agent::Claude.is_here(&stage) {
        return;
    }
    let creel = Creel::system(&stage).unwrap();
    creel.command(&["guard", "install", "claude-code", "--system"]).unwrap().well().unwrap();
    stage.make_folder(Account::USER, "/home/dana/project/.git/hooks").unwrap();
    let write = || Step::tool("Bash", json!({"command": "echo x >> .git/hooks/pre-commit", "description": "hook"}));
    let endpoint = Endpoint::start(vec![write(), write(), Step::QuoteResult]).unwrap();
    let run = claude(&stage, Account::USER, &endpoint, "add a hook").unwrap().folder("/home/dana/project");
    let running = run.start().unwrap();

    let question = creel.question().unwrap();
    let id = question["id"].as_str().unwrap();
    assert_eq!(question["rules"][0]["rule"], "write-exec-bearing", "{question}");
    // Not the account that the agent runs as, and not a stranger.
    let own = creel.at_terminal(Account::USER, &["approve", id]).unwrap();
    assert_eq!(own.code, Some(2), "{own}");
    assert!(own.stdout.contains("cannot approve for it"), "{own}");
    let stranger = creel.at_terminal(Account::OTHER, &["approve", id]).unwrap();
    assert_eq!(stranger.code, Some(2), "{stranger}");
    assert!(!stage.exists("/home/dana/project/.git/hooks/pre-commit"));
    let approved = creel.at_terminal(Account::APPROVER, &["approve", id]).unwrap();
    assert_eq!(approved.code, Some(0), "{approved}");

    // The same call again is a new question.
    let again = creel_tests::until("the second question", creel_tests::Deadline::seconds(60), || {
        creel.questions().ok()?.into_iter().find(|question| question["id"] != id)
    })
    .unwrap();
    assert_eq!(stage.read("/home/dana/project/.git/hooks/pre-commit").unwrap(), "x\n");
    creel.command(&["deny", again["id"].as_str().unwrap()]).unwrap().well().unwrap();
    let ended = running.finish(creel_tests::Deadline::seconds(60)).unwrap().well().unwrap();
    assert_eq!(stage.read("/home/dana/project/.git/hooks/pre-commit").unwrap(), "x\n");
    let told = ended.json().unwrap()["result"].as_str().unwrap().to_owned();
    assert!(told.contains("root refused this"), "{told}");
    creel.verified().unwrap();
}
