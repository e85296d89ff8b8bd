//! What reaches the daemon through the hook from a stand-in agent: malformed, unknown, forged, and from nobody.

use creel_tests::{Account, Creel, Finished, Stage, StandIn, tool_call};
use serde_json::{Value, json};

fn call(command: &str) -> Value {
    tool_call(Account::USER, "s-1", "t-1", "Bash", &json!({"command": command}))
}

/// Insists on a no: in the agent's words, or as an exit code that it understands.
fn stopped(ended: &Finished) -> String {
    match ended.code {
        Some(2) => ended.stderr.clone(),
        Some(0) => {
            let said = ended.json().unwrap();
            assert_eq!(said["hookSpecificOutput"]["permissionDecision"], "deny", "{ended}");
            said["hookSpecificOutput"]["permissionDecisionReason"].as_str().unwrap().to_owned()
        }
        _ => panic!("neither a yes nor a no: {ended}"),
    }
}

fn let_go(ended: &Finished) {
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{ended}");
}

#[test]
fn a_stand_in_is_judged_like_the_agent() {
    let Some(stage) = Stage::open() else { return };
    let creel = Creel::system(&stage).unwrap();
    let agent = StandIn::claude(&stage, Account::USER).unwrap();
    let_go(&agent.call("PreToolUse", "--system", call("ls").to_string()).finish(60).unwrap());
    let reason = stopped(&agent.call("PreToolUse", "--system", call("rm -rf ~").to_string()).finish(60).unwrap());
    assert!(reason.contains("delete-home-or-root"), "{reason}");
    let verdicts: Vec<_> =
        creel.decisions("tool_call", "Bash").unwrap().iter().map(|call| call["envelope"]["verdict"].clone()).collect();
    assert_eq!(verdicts, ["allow", "deny"]);
}

#[test]
fn whatever_is_not_understood_is_denied_and_recorded() {
    let Some(stage) = Stage::open() else { return };
    let creel = Creel::system(&stage).unwrap();
    let agent = StandIn::claude(&stage, Account::USER).unwrap();
    let good = call("ls").to_string();
    let mut not_text = good.clone().into_bytes();
    let at = good.find("ls").unwrap();
    not_text[at] = 0xff;
    let mut relative = call("ls");
    relative["cwd"] = "project".into();
    let mut numbered = call("ls");
    numbered["tool_name"] = json!(7);
    let mut other_event = call("ls");
    other_event["hook_event_name"] = "Stop".into();
    let deep = format!(r#"{},"deep":{}{}}}"#, &good[..good.len() - 1], "[".repeat(100_000), "]".repeat(100_000));
    let codex = json!({"session_id": "s", "turn_id": "t", "cwd": "/tmp", "hook_event_name": "PreToolUse",
        "model": "m", "tool_name": "shell_command", "tool_use_id": "x", "tool_input": ["ls"]});
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("no JSON", b"rm -rf ~".to_vec()),
        ("cut off", good.as_bytes()[..good.len() - 10].to_vec()),
        ("two values", format!("{good}{good}").into_bytes()),
        ("a list", b"[]".to_vec()),
        ("null", b"null".to_vec()),
        ("not UTF-8", not_text),
        ("a key twice", format!(r#"{},"tool_name":"Read"}}"#, &good[..good.len() - 1]).into_bytes()),
        ("a relative folder", relative.to_string().into_bytes()),
        ("a number for a name", numbered.to_string().into_bytes()),
        ("another event", other_event.to_string().into_bytes()),
        ("nested without end", deep.into_bytes()),
        ("another agent's", codex.to_string().into_bytes()),
    ];
    let expected = cases.len();
    for (what, payload) in cases {
        let ended = agent.call("PreToolUse", "--system", payload).finish(60).unwrap();
        let reason = stopped(&ended);
        assert!(reason.contains("could not be understood"), "{what}: {ended}");
    }
    let records = creel.coded("hook.malformed").unwrap();
    assert_eq!(records.len(), expected);
    for record in &records {
        // Who it was is the kernel's word, whatever the payload held.
        assert_eq!(record["envelope"]["subject"]["kind"], "claude-code");
        assert_eq!(record["envelope"]["subject"]["uid"], Account::USER.id);
        assert_eq!(record["envelope"]["verdict"], "deny");
    }
    let_go(&agent.call("PreToolUse", "--system", good).finish(60).unwrap());
    creel.verified().unwrap();
}

#[test]
fn a_huge_payload_is_denied_by_the_hook_and_a_large_one_is_judged() {
    let Some(stage) = Stage::open() else { return };
    let creel = Creel::system(&stage).unwrap();
    let agent = StandIn::claude(&stage, Account::USER).unwrap();
    let write = |bytes: usize| {
        let input = json!({"file_path": "/home/dana/big.txt", "content": "x ".repeat(bytes / 2)});
        tool_call(Account::USER, "s-1", "t-1", "Write", &input).to_string()
    };
    let reason = stopped(&agent.call("PreToolUse", "--system", write(9 << 20)).finish(120).unwrap());
    assert!(reason.contains("bytes long"), "{reason}");
    // It did not cost the daemon anything.
    assert!(creel.decisions("tool_call", "Write").unwrap().is_empty());
    // Beyond a mebibyte too, nothing is let go unread: it is judged, or denied for want of time.
    let large = agent.call("PreToolUse", "--system", write(2 << 20)).finish(120).unwrap();
    if !large.stdout.is_empty() {
        let reason = stopped(&large);
        assert!(reason.contains("overload") || reason.contains("too much to do"), "{reason}");
    }
    assert_eq!(creel.decisions("tool_call", "Write").unwrap().len(), 1);
    let_go(&agent.call("PreToolUse", "--system", call("ls").to_string()).finish(60).unwrap());
}

#[test]
fn unknown_events_and_tools_are_not_waved_through() {
    let Some(stage) = Stage::open() else { return };
    let creel = Creel::system(&stage).unwrap();
    let agent = StandIn::claude(&stage, Account::USER).unwrap();
    for event in ["BeforeEverything", "", "PreToolUse\u{7f}", "../PreToolUse"] {
        let ended = agent.call(&format!("'{event}'"), "--system", call("ls").to_string()).finish(60).unwrap();
        stopped(&ended);
    }
    let unknown = tool_call(Account::USER, "s-1", "t-1", "Teleport", &json!({"to": "/etc"}));
    let ended = agent.call("PreToolUse", "--system --deadline-ms 1500", unknown.to_string()).finish(60).unwrap();
    stopped(&ended);
    let asked = creel.coded("approval.asked").unwrap();
    assert_eq!(asked.len(), 1);
    assert!(asked[0]["envelope"]["rules"].to_string().contains("unknown-tool"), "{asked:?}");
    // A kind that the run is not.
    let script = "/usr/bin/creel-hook codex PreToolUse --system";
    let mut as_codex = call("ls");
    as_codex["turn_id"] = "t".into();
    as_codex["model"] = "m".into();
    stopped(&agent.script(script).input(as_codex.to_string()).finish(60).unwrap());
    let ended = agent.script("/usr/bin/creel-hook unheard-of PreToolUse --system").input(call("ls").to_string());
    stopped(&ended.finish(60).unwrap());
    // Arguments that the hook does not know are no way around it.
    stopped(&agent.call("PreToolUse", "--system --allow", call("ls").to_string()).finish(60).unwrap());
    creel.verified().unwrap();
}

#[test]
fn a_call_from_nobody_is_denied_and_alerted() {
    let Some(stage) = Stage::open() else { return };
    let creel = Creel::system(&stage).unwrap();
    // A real agent's conversation, claimed by a process that no agent started.
    let agent = StandIn::claude(&stage, Account::USER).unwrap();
    let_go(&agent.call("PreToolUse", "--system", call("ls").to_string()).finish(60).unwrap());
    for account in [Account::USER, Account::OTHER, Account::ROOT] {
        let run = stage.run(account, "/usr/bin/creel-hook").arguments(["claude-code", "PreToolUse", "--system"]);
        let reason = stopped(&run.input(call("ls").to_string()).finish(60).unwrap());
        assert!(reason.contains("no known agent is above this hook call"), "{reason}");
    }
    let alerts = creel.coded("alert.no-agent-above").unwrap();
    let owners: Vec<u64> = alerts.iter().map(|alert| alert["envelope"]["owner"].as_u64().unwrap()).collect();
    assert_eq!(owners, [61_000, 61_001, 0]);
    let denied = creel.coded("hook.no-agent-above").unwrap();
    assert!(denied.iter().all(|record| record["envelope"]["subject"].is_null()), "{denied:?}");
    // A name is no identity: a program called like the agent, elsewhere.
    stage.make_folder(Account::OTHER, "/home/mallory/tools").unwrap();
    stage.run(Account::OTHER, "cp").arguments(["/bin/bash", "/home/mallory/tools/claude"]).finish(30).unwrap();
    let run = stage.run(Account::OTHER, "/home/mallory/tools/claude");
    let run = run.arguments(["-c", "/usr/bin/creel-hook claude-code PreToolUse --system\nexit $?"]);
    stopped(&run.input(call("ls").to_string()).finish(60).unwrap());
    assert_eq!(creel.coded("alert.no-agent-above").unwrap().len(), 4);
}

#[test]
fn a_forged_session_gains_nothing() {
    let Some(stage) = Stage::open() else { return };
    let creel = Creel::system(&stage).unwrap();
    let dana = StandIn::claude(&stage, Account::USER).unwrap();
    let mallory = StandIn::claude(&stage, Account::OTHER).unwrap();
    let claimed = |account: Account, session: &str| {
        let input = json!({"command": "echo x >> /home/dana/.bashrc"});
        let mut payload = tool_call(account, session, "t-1", "Bash", &input);
        payload["cwd"] = "/tmp".into();
        payload.to_string()
    };
    let hook = "--system --deadline-ms 1500";
    // Dana's question is approved; it is for her account and conversation.
    stopped(&dana.call("PreToolUse", hook, claimed(Account::USER, "s-1")).folder("/tmp").finish(60).unwrap());
    let question = creel.question().unwrap();
    let id = question["id"].as_str().unwrap();
    assert_eq!(creel.at_terminal(Account::APPROVER, &["approve", id]).unwrap().code, Some(0));
    // Mallory claims her conversation, and Dana's agent another one.
    stopped(&mallory.call("PreToolUse", hook, claimed(Account::USER, "s-1")).folder("/tmp").finish(60).unwrap());
    stopped(&dana.call("PreToolUse", hook, claimed(Account::USER, "s-2")).folder("/tmp").finish(60).unwrap());
    let_go(&dana.call("PreToolUse", hook, claimed(Account::USER, "s-1")).folder("/tmp").finish(60).unwrap());
    // What Mallory did is hers, and Dana does not see it.
    let records = creel.decisions("tool_call", "Bash").unwrap();
    let owners: Vec<u64> = records
        .iter()
        .filter(|record| record["envelope"]["kind"] == "decision")
        .map(|record| record["envelope"]["owner"].as_u64().unwrap())
        .collect();
    assert_eq!(owners, [61_000, 61_001, 61_000, 61_000]);
    let seen = creel.command_by(Account::USER, &["log", "--format", "jsonl"]).unwrap().well().unwrap();
    assert!(seen.json_lines().unwrap().iter().all(|record| record["envelope"]["owner"] == Account::USER.id));
}

/// An event of Claude Code with these fields beside those that every event has.
fn event(session: &str, name: &str, rest: &Value) -> String {
    let mut payload = json!({"session_id": session, "transcript_path": "/home/dana/t.jsonl", "cwd": "/home/dana",
        "hook_event_name": name});
    payload.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    payload.to_string()
}

/// A script that makes these calls of the hook in one run.
fn in_one_run(stage: &Stage, calls: &[(&str, String)]) -> String {
    let mut script = String::new();
    for (number, (event, payload)) in calls.iter().enumerate() {
        stage.write(Account::USER, &format!("/home/dana/calls/{number}"), payload).unwrap();
        script.push_str(&format!("/usr/bin/creel-hook claude-code {event} --system <calls/{number} || exit 9\n"));
    }
    script
}

/// A conversation that begins and reads what a stranger wrote.
fn reads_a_stranger(session: &str) -> Vec<(&'static str, String)> {
    let fetch = json!({"tool_name": "WebFetch", "tool_use_id": "f", "tool_input":
        {"url": "https://strange.example/page", "prompt": "read"}});
    let mut fetched = fetch.clone();
    fetched["tool_response"] = json!({"result": "some words of a stranger", "code": 200});
    vec![
        ("SessionStart", event(session, "SessionStart", &json!({"source": "startup"}))),
        ("PreToolUse", event(session, "PreToolUse", &fetch)),
        ("PostToolUse", event(session, "PostToolUse", &fetched)),
    ]
}

fn ls() -> Value {
    json!({"tool_name": "Bash", "tool_use_id": "l", "tool_input": {"command": "ls"}})
}

#[test]
fn a_new_claimed_session_does_not_shed_what_the_run_has_read() {
    let Some(stage) = Stage::open() else { return };
    let creel = Creel::system(&stage).unwrap();
    let agent = StandIn::claude(&stage, Account::USER).unwrap();
    let mut calls = reads_a_stranger("s-1");
    // The same run says that it is somebody else now.
    calls.push(("PreToolUse", event("s-fresh", "PreToolUse", &ls())));
    agent.script(&in_one_run(&stage, &calls)).finish(60).unwrap().well().unwrap();
    let calls = creel.decisions("tool_call", "Bash").unwrap();
    assert_eq!(calls.len(), 1);
    assert!(calls[0]["detail"]["labels"].to_string().contains("untrusted"), "{}", calls[0]);
    assert!(creel.alerts().unwrap().is_empty(), "{:?}", creel.alerts());
}

#[test]
fn what_a_conversation_has_read_outlives_a_killed_daemon() {
    let Some(stage) = Stage::open() else { return };
    let mut creel = Creel::system(&stage).unwrap();
    let agent = StandIn::claude(&stage, Account::USER).unwrap();
    agent.script(&in_one_run(&stage, &reads_a_stranger("s-1"))).finish(60).unwrap().well().unwrap();
    creel.kill().unwrap();
    creel.start().unwrap();
    let again = [("PreToolUse", event("s-1", "PreToolUse", &ls()))];
    agent.script(&in_one_run(&stage, &again)).finish(60).unwrap().well().unwrap();
    let read = &creel.decisions("tool_result", "WebFetch").unwrap()[0];
    let call = &creel.decisions("tool_call", "Bash").unwrap()[0];
    // Not merely suspected because it is unknown: known, with what caused it.
    let labels = call["detail"]["labels"].as_array().unwrap();
    let caused = labels.iter().any(|label| label["cause"] == read["envelope"]["action_id"]);
    assert!(caused, "{labels:?} by {}", read["envelope"]);
    creel.verified().unwrap();
}

#[test]
fn a_link_does_not_hide_where_a_write_goes() {
    let Some(stage) = Stage::open() else { return };
    let creel = Creel::system(&stage).unwrap();
    let agent = StandIn::claude(&stage, Account::USER).unwrap();
    stage.make_folder(Account::USER, "/home/dana/project/.git/hooks").unwrap();
    let links = "ln -s .git/hooks docs && ln -s docs notes && ln -s /home/dana/project/notes/pre-commit readme.md";
    let made = stage.run(Account::USER, "sh").arguments(["-c", links]).folder("/home/dana/project");
    made.finish(30).unwrap().well().unwrap();
    for (tool, input) in [
        ("Write", json!({"file_path": "/home/dana/project/docs/pre-commit", "content": "x"})),
        ("Write", json!({"file_path": "/home/dana/project/notes/pre-push", "content": "x"})),
        ("Write", json!({"file_path": "/home/dana/project/readme.md", "content": "x"})),
        ("Bash", json!({"command": "echo x > notes/../hooks/pre-commit"})),
        ("Bash", json!({"command": "cd docs && echo x > pre-rebase"})),
    ] {
        let mut payload = tool_call(Account::USER, "s-1", "t-1", tool, &input);
        payload["cwd"] = "/home/dana/project".into();
        let call = agent.call("PreToolUse", "--system --deadline-ms 1500", payload.to_string());
        stopped(&call.folder("/home/dana/project").finish(60).unwrap());
    }
    let asked = creel.coded("approval.asked").unwrap();
    assert!(!asked.is_empty());
    for record in &asked {
        assert!(record["envelope"]["rules"].to_string().contains("write-exec-bearing"), "{record}");
    }
    assert_eq!(
        creel.decisions("tool_call", "Write").unwrap().iter().filter(|r| r["envelope"]["verdict"] == "allow").count(),
        0
    );
}

#[test]
fn in_audit_everything_goes_on_and_stands_in_the_record() {
    let Some(stage) = Stage::open() else { return };
    let creel = Creel::user_with(&stage, Account::USER, &[]).unwrap();
    let agent = StandIn::claude(&stage, Account::USER).unwrap();
    let_go(&agent.call("PreToolUse", "", call("rm -rf ~").to_string()).finish(60).unwrap());
    let record = &creel.decisions("tool_call", "Bash").unwrap()[0];
    assert_eq!(record["envelope"]["verdict"], "allow");
    assert!(record["envelope"]["audit_rules"].to_string().contains("delete-home-or-root"), "{record}");
    let status = creel.status().unwrap();
    assert_eq!(status["policy"]["blocking"], 0);
    // To tighten needs no code; the same call is stopped.
    let enforced = creel.at_terminal(Account::USER, &["policy", "enforce"]).unwrap();
    assert_eq!(enforced.code, Some(0), "{enforced}");
    stopped(&agent.call("PreToolUse", "", call("rm -rf ~").to_string()).finish(60).unwrap());
    // To loosen does.
    let loosened = creel.at_terminal(Account::USER, &["policy", "audit"]).unwrap();
    assert_eq!(loosened.code, Some(2), "{loosened}");
    stopped(&agent.call("PreToolUse", "", call("rm -rf ~").to_string()).finish(60).unwrap());
}
