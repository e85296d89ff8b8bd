//! Questions to people: answered from outside, once, for exactly what was asked, and never by the agent.

use creel_tests::{
    Account, Agent, Creel, Deadline, Endpoint, Finished, Run, Stage, StandIn, Step, claude, tool_call, until,
};
use serde_json::{Value, json};

const PROJECT: &str = "/home/dana/project";
const HOOK: &str = "/home/dana/project/.git/hooks/pre-commit";

/// What `ask`s: another program will run that file.
const WRITE_HOOK: &str = "echo x >> .git/hooks/pre-commit";

fn bash(command: &str) -> Step {
    Step::tool("Bash", json!({"command": command, "description": "a step"}))
}

fn stage_with_agent() -> Option<Stage> {
    let stage = Stage::open()?;
    if !Agent::Claude.is_here(&stage) {
        return None;
    }
    project(&stage);
    Some(stage)
}

fn project(stage: &Stage) {
    stage.make_folder(Account::USER, "/home/dana/project/.git/hooks").unwrap();
}

fn agent<'stage>(stage: &'stage Stage, endpoint: &Endpoint) -> Run<'stage> {
    claude(stage, Account::USER, endpoint, "add a hook").unwrap().folder(PROJECT)
}

/// A call by a stand-in whose hook waits this long for a person.
fn asks(stand_in: &StandIn<'_>, tool: &str, input: &Value, deadline_ms: u32, mode: &str) -> Finished {
    let mut payload = tool_call(Account::USER, "s-1", "t-1", tool, input);
    payload["cwd"] = PROJECT.into();
    let arguments = format!("{mode} --deadline-ms {deadline_ms}");
    stand_in.call("PreToolUse", &arguments, payload.to_string()).folder(PROJECT).finish(120).unwrap()
}

/// The agent's answer: `allow` when the hook was silent.
fn answer(ended: &Finished) -> (String, String) {
    assert_eq!(ended.code, Some(0), "{ended}");
    if ended.stdout.is_empty() {
        return ("allow".to_owned(), String::new());
    }
    let said = ended.json().unwrap();
    let field = |name: &str| said["hookSpecificOutput"][name].as_str().unwrap_or_default().to_owned();
    (field("permissionDecision"), field("permissionDecisionReason"))
}

fn id(question: &Value) -> &str {
    question["id"].as_str().unwrap()
}

#[test]
fn an_ask_is_approved_from_outside_and_runs_once() {
    let Some(stage) = stage_with_agent() else { return };
    let creel = Creel::system(&stage).unwrap();
    creel.command(&["guard", "install", "claude-code", "--system"]).unwrap().well().unwrap();
    let endpoint = Endpoint::start(vec![bash(WRITE_HOOK), bash(WRITE_HOOK), Step::QuoteResult]).unwrap();
    let running = agent(&stage, &endpoint).start().unwrap();

    let first = creel.question().unwrap();
    assert_eq!(first["rules"][0]["rule"], "write-exec-bearing", "{first}");
    // Not the account that the agent runs as, and not a stranger.
    let own = creel.at_terminal(Account::USER, &["approve", id(&first)]).unwrap();
    assert_eq!(own.code, Some(2), "{own}");
    assert!(own.stdout.contains("cannot approve for it"), "{own}");
    let stranger = creel.at_terminal(Account::OTHER, &["approve", id(&first)]).unwrap();
    assert_eq!(stranger.code, Some(2), "{stranger}");
    // A script is no person, whoever runs it.
    let piped = creel.command_by(Account::APPROVER, &["approve", id(&first)]).unwrap();
    assert_eq!(piped.code, Some(2), "{piped}");
    assert!(!stage.exists(HOOK));
    let approved = creel.at_terminal(Account::APPROVER, &["approve", id(&first)]).unwrap();
    assert_eq!(approved.code, Some(0), "{approved}");

    // The same call again is a new question.
    let again = until("the second question", Deadline::seconds(60), || {
        creel.questions().ok()?.into_iter().find(|question| question["id"] != first["id"])
    })
    .unwrap();
    assert_eq!(stage.read(HOOK).unwrap(), "x\n");
    creel.command(&["deny", id(&again)]).unwrap().well().unwrap();
    let ended = running.finish(Deadline::seconds(120)).unwrap().well().unwrap();
    assert_eq!(stage.read(HOOK).unwrap(), "x\n");
    let told = ended.json().unwrap()["result"].as_str().unwrap().to_owned();
    assert!(told.contains("root refused this"), "{told}");

    // Who, what and why stands in the record, and hangs together.
    let asked = creel.coded("approval.asked").unwrap();
    let approved = creel.coded("approval.approved").unwrap();
    let used = creel.coded("approval.used").unwrap();
    let refused = creel.coded("approval.refused").unwrap();
    assert_eq!([asked.len(), approved.len(), used.len(), refused.len()], [2, 1, 1, 1]);
    assert_eq!(approved[0]["detail"]["facts"]["approver"]["name"], "avery");
    assert_eq!(approved[0]["detail"]["facts"]["approver"]["verified"], true);
    assert_eq!(approved[0]["envelope"]["causes"][0]["action_id"], asked[0]["envelope"]["action_id"]);
    assert!(creel.alerts().unwrap().is_empty(), "{:?}", creel.alerts());
    creel.verified().unwrap();
}

#[test]
fn in_user_mode_a_terminal_and_the_code_of_another_screen_approve() {
    let Some(stage) = stage_with_agent() else { return };
    let creel = Creel::user(&stage, Account::USER).unwrap();
    creel.command(&["guard", "install", "claude-code", "--user"]).unwrap().well().unwrap();
    let endpoint = Endpoint::start(vec![bash(WRITE_HOOK), Step::text("done")]).unwrap();
    let running = agent(&stage, &endpoint).start().unwrap();
    let question = creel.question().unwrap();

    // Without a screen there is no code, and a wrong one counts for nothing.
    let blind = creel.at_terminal(Account::USER, &["approve", id(&question)]).unwrap();
    assert_eq!(blind.code, Some(2), "{blind}");
    assert!(blind.stdout.contains("no screen is there to show it"), "{blind}");
    // The list that scripts read holds no code.
    assert!(question["code"].is_null(), "{question}");
    let piped = creel.command(&["approve", id(&question), "--code", "000000"]).unwrap();
    assert_eq!(piped.code, Some(2), "{piped}");
    assert!(!stage.exists(HOOK));

    let screen = creel.screen(Account::USER).unwrap();
    let marker = format!("{} --code ", id(&question));
    let code: String = until("the code on the screen", Deadline::seconds(60), || {
        let shown = screen.stdout();
        let (_, after) = shown.rsplit_once(&marker)?;
        let digits: String = after.chars().take(7).filter(char::is_ascii_digit).collect();
        (digits.len() == 6).then_some(digits)
    })
    .unwrap();
    let wrong = if code == "000000" { "000001" } else { "000000" };
    let refused = creel.at_terminal(Account::USER, &["approve", id(&question), "--code", wrong]).unwrap();
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.stdout.contains("the code is wrong"), "{refused}");
    let approved = creel.at_terminal(Account::USER, &["approve", id(&question), "--code", &code]).unwrap();
    assert_eq!(approved.code, Some(0), "{approved}");
    running.finish(Deadline::seconds(120)).unwrap().well().unwrap();
    assert_eq!(stage.read(HOOK).unwrap(), "x\n");
    // It is used up.
    let again = creel.at_terminal(Account::USER, &["approve", id(&question), "--code", &code]).unwrap();
    assert_eq!(again.code, Some(2), "{again}");
    let approved = creel.coded("approval.approved").unwrap();
    assert_eq!(approved[0]["detail"]["facts"]["approver"]["means"], "terminal-and-code");
    assert_eq!(approved[0]["detail"]["facts"]["approver"]["verified"], false);
}

#[test]
fn an_agent_has_no_say_whatever_it_runs() {
    let Some(stage) = stage_with_agent() else { return };
    let creel = Creel::user(&stage, Account::USER).unwrap();
    creel.command(&["guard", "install", "claude-code", "--user"]).unwrap().well().unwrap();
    let endpoint = Endpoint::start(vec![
        bash("creel approve ap-1"),
        bash("creel policy audit"),
        bash("creel down"),
        bash("creel guard remove claude-code"),
        Step::QuoteResult,
    ])
    .unwrap();
    agent(&stage, &endpoint).finish(120).unwrap().well().unwrap();
    let calls = creel.decisions("tool_call", "Bash").unwrap();
    assert_eq!(calls.len(), 4);
    for call in calls {
        assert_eq!(call["envelope"]["verdict"], "deny", "{call}");
        assert!(call["envelope"]["rules"].to_string().contains("creel-"), "{call}");
    }

    // What no rule saw is refused by the daemon itself: it looks who is above the one that asks.
    let stand_in = StandIn::claude(&stage, Account::USER).unwrap();
    for command in [
        "down",
        "status",
        "approvals",
        "log",
        "policy audit",
        "policy enforce",
        "approve ap-1 --code 000000",
        "break-glass --minutes 5 --reason x",
        "guard remove claude-code --user",
        "up",
    ] {
        // Also at a terminal of its own, with shells in between.
        let script = format!("sh -c \"script --quiet --return --command 'creel {command}' /dev/null; exit \\$?\"");
        let refused = stand_in.script(&script).finish(60).unwrap();
        assert_eq!(refused.code, Some(2), "{command}: {refused}");
        assert!(refused.stdout.contains("below"), "{command}: {refused}");
    }
    assert!(creel.status().is_ok());
    assert!(stage.read("/home/dana/.claude/settings.json").unwrap().contains("creel-hook"));
}

#[test]
fn a_process_that_left_its_agent_still_cannot_approve_in_system_mode() {
    let Some(stage) = Stage::open() else { return };
    project(&stage);
    let creel = Creel::system(&stage).unwrap();
    let stand_in = StandIn::claude(&stage, Account::USER).unwrap();
    let ended = asks(&stand_in, "Bash", &json!({"command": WRITE_HOOK}), 1_500, "--system");
    assert_eq!(answer(&ended).0, "deny");
    let question = creel.question().unwrap();
    // It forks away, so that no agent is above it any more, and opens a terminal of its own.
    for command in
        [format!("creel approve {}", id(&question)), "creel down".to_owned(), "creel policy audit".to_owned()]
    {
        let script = format!(
            "setsid --fork script --quiet --return --command '{command}; echo code $? >/tmp/said.new; mv /tmp/said.new /tmp/said' /dev/null"
        );
        stand_in.script(&script).finish(60).unwrap();
        until("the end of it", Deadline::seconds(60), || stage.exists("/tmp/said").then_some(())).unwrap();
        assert_eq!(stage.read("/tmp/said").unwrap(), "code 2\n", "{command}");
        stage.run(Account::ROOT, "rm").argument("/tmp/said").finish(30).unwrap().well().unwrap();
    }
    assert_eq!(creel.question().unwrap()["state"], "pending");
}

#[test]
fn silence_is_a_no_that_names_the_question_and_a_later_yes_counts_once() {
    let Some(stage) = Stage::open() else { return };
    project(&stage);
    let creel = Creel::system(&stage).unwrap();
    let stand_in = StandIn::claude(&stage, Account::USER).unwrap();
    let input = json!({"command": WRITE_HOOK});
    // The run goes away between the calls: an approval is about what happens, not about who retries.
    let (verdict, reason) = answer(&asks(&stand_in, "Bash", &input, 1_500, "--system"));
    assert_eq!(verdict, "deny");
    let question = creel.question().unwrap();
    assert!(reason.contains(id(&question)), "{reason}");
    let approved = creel.at_terminal(Account::ROOT, &["approve", id(&question)]).unwrap();
    assert_eq!(approved.code, Some(0), "{approved}");

    // Something else is not what was approved.
    let other = json!({"command": "echo y >> .git/hooks/pre-push"});
    assert_eq!(answer(&asks(&stand_in, "Bash", &other, 1_500, "--system")).0, "deny");
    assert_eq!(answer(&asks(&stand_in, "Bash", &input, 1_500, "--system")).0, "allow");
    let (verdict, reason) = answer(&asks(&stand_in, "Bash", &input, 1_500, "--system"));
    assert_eq!(verdict, "deny");
    assert!(!reason.contains(id(&question)), "{reason}");
    creel.verified().unwrap();
}

#[test]
fn a_script_that_changed_since_the_question_is_not_what_was_approved() {
    let Some(stage) = Stage::open() else { return };
    project(&stage);
    let creel = Creel::system(&stage).unwrap();
    let stand_in = StandIn::claude(&stage, Account::USER).unwrap();
    stage.write(Account::USER, "/home/dana/project/deploy.sh", "echo harmless\n").unwrap();
    let input = json!({"command": "bash deploy.sh && echo x >> .git/hooks/pre-commit"});
    assert_eq!(answer(&asks(&stand_in, "Bash", &input, 1_500, "--system")).0, "deny");
    let question = creel.question().unwrap();
    assert_eq!(creel.at_terminal(Account::ROOT, &["approve", id(&question)]).unwrap().code, Some(0));
    stage.write(Account::USER, "/home/dana/project/deploy.sh", "echo something else\n").unwrap();
    let (verdict, reason) = answer(&asks(&stand_in, "Bash", &input, 1_500, "--system"));
    assert_eq!(verdict, "deny", "{reason}");
    // As it was, it may run.
    stage.write(Account::USER, "/home/dana/project/deploy.sh", "echo harmless\n").unwrap();
    assert_eq!(answer(&asks(&stand_in, "Bash", &input, 1_500, "--system")).0, "allow");
}

#[test]
fn a_script_that_changed_while_its_hook_is_held_is_stale() {
    let Some(stage) = Stage::open() else { return };
    project(&stage);
    let creel = Creel::system(&stage).unwrap();
    let stand_in = StandIn::claude(&stage, Account::USER).unwrap();
    stage.write(Account::USER, "/home/dana/project/deploy.sh", "echo harmless\n").unwrap();
    let input = json!({"command": "bash deploy.sh && echo x >> .git/hooks/pre-commit"});
    let mut payload = tool_call(Account::USER, "s-1", "t-1", "Bash", &input);
    payload["cwd"] = PROJECT.into();
    let held = stand_in.call("PreToolUse", "--system", payload.to_string()).folder(PROJECT).start().unwrap();
    let question = creel.question().unwrap();
    stage.write(Account::USER, "/home/dana/project/deploy.sh", "echo something else\n").unwrap();
    assert_eq!(creel.at_terminal(Account::ROOT, &["approve", id(&question)]).unwrap().code, Some(0));
    let (verdict, reason) = answer(&held.finish(Deadline::seconds(120)).unwrap());
    assert_eq!(verdict, "deny");
    assert!(reason.contains("not what was approved"), "{reason}");
    assert_eq!(creel.coded("approval.stale").unwrap().len(), 1);
    assert!(creel.coded("approval.used").unwrap().is_empty());
}

#[test]
fn a_deny_is_never_a_question() {
    let Some(stage) = Stage::open() else { return };
    project(&stage);
    let creel = Creel::system(&stage).unwrap();
    let stand_in = StandIn::claude(&stage, Account::USER).unwrap();
    for command in
        ["rm -rf ~", "rm -rf ~; echo x >> .git/hooks/pre-commit", "echo x >> .git/hooks/pre-commit && rm -rf /"]
    {
        let (verdict, _) = answer(&asks(&stand_in, "Bash", &json!({"command": command}), 60_000, "--system"));
        assert_eq!(verdict, "deny");
    }
    assert!(creel.questions().unwrap().is_empty());
    assert!(creel.coded("approval.asked").unwrap().is_empty());
    let nothing = creel.at_terminal(Account::ROOT, &["approve", "ap-"]).unwrap();
    assert_eq!(nothing.code, Some(2), "{nothing}");
}

#[test]
fn break_glass_is_open_to_root_alone_and_everything_is_still_recorded() {
    let Some(stage) = Stage::open() else { return };
    project(&stage);
    let creel = Creel::system(&stage).unwrap();
    let stand_in = StandIn::claude(&stage, Account::USER).unwrap();
    let words = ["break-glass", "--minutes", "5", "--reason", "the release is stuck"];
    for account in [Account::USER, Account::APPROVER] {
        let refused = creel.at_terminal(account, &words).unwrap();
        assert_eq!(refused.code, Some(2), "{refused}");
    }
    let input = json!({"command": WRITE_HOOK});
    assert_eq!(answer(&asks(&stand_in, "Bash", &input, 1_500, "--system")).0, "deny");
    let opened = creel.at_terminal(Account::ROOT, &words).unwrap();
    assert_eq!(opened.code, Some(0), "{opened}");
    assert_eq!(answer(&asks(&stand_in, "Bash", &input, 1_500, "--system")).0, "allow");
    let ended = creel.at_terminal(Account::ROOT, &["break-glass", "--end"]).unwrap();
    assert_eq!(ended.code, Some(0), "{ended}");
    assert_eq!(
        answer(&asks(&stand_in, "Bash", &json!({"command": "echo z >> .git/hooks/pre-commit"}), 1_500, "--system")).0,
        "deny"
    );
    let mut calls = creel.decisions("tool_call", "Bash").unwrap();
    calls.retain(|call| call["envelope"]["kind"] == "decision");
    let verdicts: Vec<&Value> = calls.iter().map(|call| &call["envelope"]["verdict"]).collect();
    assert_eq!(verdicts, ["ask", "allow", "ask"]);
    creel.verified().unwrap();
}
