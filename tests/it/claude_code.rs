//! The real Claude Code under creel: judged, recorded, stopped, and not switched off.

use creel_tests::{Account, Agent, Creel, Deadline, Endpoint, Finished, Run, Running, Stage, Step, claude, until};
use serde_json::{Value, json};

const PROJECT: &str = "/home/dana/project";
const DROP_IN: &str = "/etc/claude-code/managed-settings.d/50-creel.json";
const USER_SETTINGS: &str = "/home/dana/.claude/settings.json";

/// A stage with the agent, or `None` where that was said already.
fn stage_with_agent() -> Option<Stage> {
    let stage = Stage::open()?;
    if !Agent::Claude.is_here(&stage) {
        return None;
    }
    stage.make_folder(Account::USER, PROJECT).unwrap();
    Some(stage)
}

/// creel in system mode, wired into the managed settings.
fn protected(stage: &Stage) -> Creel<'_> {
    let creel = Creel::system(stage).unwrap();
    let installed = creel.command(&["guard", "install", "claude-code", "--system"]).unwrap().well().unwrap();
    assert!(stage.exists(DROP_IN), "{installed}");
    creel
}

/// creel in user mode, wired into the account's own settings.
fn protected_user(stage: &Stage) -> Creel<'_> {
    let creel = Creel::user(stage, Account::USER).unwrap();
    creel.command(&["guard", "install", "claude-code", "--user"]).unwrap().well().unwrap();
    assert!(stage.read(USER_SETTINGS).unwrap().contains("creel-hook"));
    creel
}

fn agent<'stage>(stage: &'stage Stage, endpoint: &Endpoint, prompt: &str) -> Run<'stage> {
    claude(stage, Account::USER, endpoint, prompt).unwrap().folder(PROJECT)
}

fn bash(command: &str) -> Step {
    Step::tool("Bash", json!({"command": command, "description": "a step"}))
}

/// A command that says that it runs and goes on when the test says so.
fn held(name: &str) -> Step {
    bash(&format!("touch {name}.running; while [ ! -e {name}.go ]; do sleep 0.02; done; echo {name} over"))
}

fn runs(stage: &Stage, name: &str) {
    let path = format!("{PROJECT}/{name}.running");
    until("the held command", Deadline::seconds(120), || stage.exists(&path).then_some(())).unwrap();
}

fn go(stage: &Stage, name: &str) {
    stage.write(Account::USER, &format!("{PROJECT}/{name}.go"), "").unwrap();
}

fn ended(running: Running) -> Finished {
    running.finish(Deadline::seconds(180)).unwrap()
}

/// What the agent said at its end.
fn words(ended: &Finished) -> String {
    ended.json().unwrap()["result"].as_str().unwrap_or_default().to_owned()
}

fn verdicts(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["envelope"]["verdict"].as_str().unwrap()).collect()
}

#[test]
fn a_harmless_call_runs_and_a_destructive_one_is_stopped() {
    let Some(stage) = stage_with_agent() else { return };
    let creel = protected(&stage);
    stage.write(Account::USER, "/home/dana/precious.txt", "keep me").unwrap();
    let endpoint =
        Endpoint::start(vec![bash("echo hello > mark.txt; echo seen"), bash("rm -rf ~"), Step::QuoteResult]).unwrap();
    let ended = agent(&stage, &endpoint, "clean up").finish(120).unwrap().well().unwrap();
    assert_eq!(stage.read("/home/dana/project/mark.txt").unwrap(), "hello\n");
    assert_eq!(stage.read("/home/dana/precious.txt").unwrap(), "keep me");
    let told = words(&ended);
    assert!(told.contains("delete-home-or-root"), "{told}");
    let calls = creel.decisions("tool_call", "Bash").unwrap();
    assert_eq!(verdicts(&calls), ["allow", "deny"]);
    creel.verified().unwrap();
}

#[test]
fn every_step_is_in_the_journal_with_its_cause() {
    let Some(stage) = stage_with_agent() else { return };
    let creel = protected(&stage);
    let endpoint = Endpoint::start(vec![bash("echo hello > mark.txt"), Step::text("all done")]).unwrap();
    agent(&stage, &endpoint, "make a mark").finish(120).unwrap().well().unwrap();
    let records = creel.records().unwrap();
    let find = |event: &str| {
        let found: Vec<&Value> = records.iter().filter(|record| record["envelope"]["event"] == event).collect();
        assert_eq!(found.len(), 1, "{event}: {found:?}");
        &found[0]["envelope"]
    };
    let (start, prompt, call, result, stop) =
        (find("SessionStart"), find("UserPromptSubmit"), find("PreToolUse"), find("PostToolUse"), find("Stop"));
    // The turn is one, and the result was caused by exactly the call.
    assert_eq!(prompt["trace_id"], call["trace_id"]);
    assert_eq!(call["trace_id"], result["trace_id"]);
    assert_eq!(result["causes"][0], json!({"action_id": call["action_id"], "link": "exact"}), "{result}");
    assert!(!call["causes"].as_array().unwrap().is_empty(), "{call}");
    // The kernel's word about the run, the same everywhere.
    for envelope in [start, prompt, call, result, stop] {
        assert_eq!(envelope["subject"]["kind"], "claude-code");
        assert_eq!(envelope["subject"]["uid"], Account::USER.id);
        assert_eq!(envelope["subject"]["run"], call["subject"]["run"]);
        assert_eq!(envelope["owner"], Account::USER.id);
    }
    // Neither prompt text nor command text is in a sealed envelope.
    let envelopes: String = records.iter().map(|record| record["envelope"].to_string()).collect();
    assert!(!envelopes.contains("make a mark") && !envelopes.contains("mark.txt"));
    assert!(creel.alerts().unwrap().is_empty());
    creel.verified().unwrap();
    // Her own records she sees; a stranger sees none.
    let own = creel.command_by(Account::USER, &["log", "--format", "jsonl"]).unwrap().well().unwrap();
    assert!(own.json_lines().unwrap().iter().any(|record| record["envelope"]["event"] == "PreToolUse"));
    let other = creel.command_by(Account::OTHER, &["log", "--format", "jsonl"]).unwrap().well().unwrap();
    assert!(other.json_lines().unwrap().is_empty(), "{other}");
}

#[test]
fn write_and_bash_are_stopped_by_the_same_rule() {
    let Some(stage) = stage_with_agent() else { return };
    let creel = protected(&stage);
    stage.make_folder(Account::USER, "/home/dana/project/.git/hooks").unwrap();
    let hook = "/home/dana/project/.git/hooks/pre-commit";
    let endpoint = Endpoint::start(vec![
        Step::tool("Write", json!({"file_path": hook, "content": "#!/bin/sh\n"})),
        bash("printf x > .git/hooks/pre-commit"),
        Step::text("done"),
    ])
    .unwrap();
    let running = agent(&stage, &endpoint, "add a hook").start().unwrap();
    for _ in 0..2 {
        let question = creel.question().unwrap();
        assert_eq!(question["rules"][0]["rule"], "write-exec-bearing", "{question}");
        creel.command(&["deny", question["id"].as_str().unwrap()]).unwrap().well().unwrap();
    }
    ended(running).well().unwrap();
    assert!(!stage.exists(hook));
    let mut rules = Vec::new();
    for tool in ["Write", "Bash"] {
        let calls = creel.decisions("tool_call", tool).unwrap();
        let asked: Vec<&Value> = calls.iter().filter(|call| call["envelope"]["verdict"] == "ask").collect();
        assert_eq!(asked.len(), 1, "{calls:?}");
        rules.push(asked[0]["envelope"]["rules"].clone());
    }
    assert_eq!(rules[0], rules[1]);
    assert_eq!(rules[0], json!(["write-exec-bearing"]));
    creel.verified().unwrap();
}

#[test]
fn without_the_daemon_everything_is_denied() {
    let Some(stage) = stage_with_agent() else { return };
    let mut creel = protected(&stage);
    let endpoint = Endpoint::start(vec![held("first"), bash("echo x > second.txt"), Step::text("still here")]).unwrap();
    let running = agent(&stage, &endpoint, "two steps").start().unwrap();
    runs(&stage, "first");
    creel.kill().unwrap();
    go(&stage, "first");
    ended(running);
    assert!(!stage.exists("/home/dana/project/second.txt"));
    // A new conversation does not even reach the model.
    let ended = agent(&stage, &endpoint, "a prompt without a judge").finish(120).unwrap();
    assert!(!endpoint.heard("a prompt without a judge"), "{ended}");
    creel.start().unwrap();
    creel.verified().unwrap();
}

#[test]
fn a_restarting_daemon_is_waited_for() {
    let Some(stage) = stage_with_agent() else { return };
    let mut creel = protected(&stage);
    let endpoint = Endpoint::start(vec![held("first"), bash("echo x > second.txt"), Step::QuoteResult]).unwrap();
    let running = agent(&stage, &endpoint, "two steps").start().unwrap();
    runs(&stage, "first");
    creel.kill().unwrap();
    go(&stage, "first");
    creel.start().unwrap();
    ended(running).well().unwrap();
    assert_eq!(stage.read("/home/dana/project/second.txt").unwrap(), "x\n");
    let calls = creel.decisions("tool_call", "Bash").unwrap();
    assert_eq!(verdicts(&calls), ["allow", "allow"]);
    // The call of before the kill is known to the daemon of after it.
    assert!(creel.alerts().unwrap().is_empty(), "{:?}", creel.alerts());
    creel.verified().unwrap();
}

#[test]
fn a_stopped_daemon_is_waited_for_and_nothing_runs_meanwhile() {
    let Some(stage) = stage_with_agent() else { return };
    let mut creel = protected(&stage);
    let endpoint = Endpoint::start(vec![held("first"), bash("echo x > second.txt"), Step::QuoteResult]).unwrap();
    let running = agent(&stage, &endpoint, "two steps").start().unwrap();
    runs(&stage, "first");
    creel.pause().unwrap();
    go(&stage, "first");
    // The hook of the first call's result stands in the queue of a daemon that does not answer.
    until("a waiting hook", Deadline::seconds(60), || stage.process_named("creel-hook").then_some(())).unwrap();
    assert!(!stage.exists("/home/dana/project/second.txt"));
    creel.go_on().unwrap();
    ended(running).well().unwrap();
    assert_eq!(stage.read("/home/dana/project/second.txt").unwrap(), "x\n");
    creel.verified().unwrap();
}

#[test]
fn a_hostile_environment_does_not_switch_protection_off_in_system_mode() {
    let Some(stage) = stage_with_agent() else { return };
    let creel = protected(&stage);
    stage.write(Account::USER, "/home/dana/precious.txt", "keep me").unwrap();
    // Programs that would answer instead of creel's, and a prefix that would run instead of the hook.
    for name in ["creel-hook", "creel", "sh", "bash", "prefix"] {
        let path = format!("/home/dana/evil/{name}");
        let text = if name.ends_with("sh") {
            "#!/bin/dash\nexec /bin/bash \"$@\"\n".to_owned()
        } else {
            format!("#!/bin/dash\necho {name} >> /home/dana/evil/ran\nexit 0\n")
        };
        stage.write(Account::USER, &path, text).unwrap();
        stage.run(Account::USER, "chmod").arguments(["755", &path]).finish(30).unwrap().well().unwrap();
    }
    // A library that makes every program of the hook's name end at once with a yes, and does so where it is loaded.
    stage.write(Account::USER, "/home/dana/evil/yes.c", YES).unwrap();
    let build = "cc -shared -fPIC -o yes.so yes.c && mkdir dynamic && cp /bin/false dynamic/creel-hook && \
                 LD_PRELOAD=/home/dana/evil/yes.so dynamic/creel-hook";
    stage
        .run(Account::USER, "sh")
        .arguments(["-c", build])
        .folder("/home/dana/evil")
        .finish(60)
        .unwrap()
        .well()
        .unwrap();
    let evil = json!({
        "PATH": "/home/dana/evil:/usr/bin:/bin",
        "XDG_RUNTIME_DIR": "/home/dana/evil/run",
        "LD_PRELOAD": "/home/dana/evil/yes.so",
        "LD_LIBRARY_PATH": "/home/dana/evil",
        "CLAUDE_CODE_SHELL_PREFIX": "/home/dana/evil/prefix",
        "CREEL_SOCKET": "/home/dana/evil/hook.sock",
    });
    let settings = json!({"disableAllHooks": true, "env": evil, "hooks": {}}).to_string();
    stage.write(Account::USER, USER_SETTINGS, &settings).unwrap();
    stage.write(Account::USER, "/home/dana/project/.claude/settings.json", &settings).unwrap();
    stage.write(Account::USER, "/home/dana/project/.claude/settings.local.json", &settings).unwrap();

    let endpoint = Endpoint::start(vec![bash("echo ok > mark.txt"), bash("rm -rf ~"), Step::QuoteResult]).unwrap();
    let mut run = agent(&stage, &endpoint, "clean up");
    for (name, value) in evil.as_object().unwrap() {
        run = run.environment(name, value.as_str().unwrap());
    }
    let ended = run.finish(120).unwrap().well().unwrap();
    assert_eq!(stage.read("/home/dana/precious.txt").unwrap(), "keep me");
    assert!(words(&ended).contains("delete-home-or-root"), "{ended}");
    assert_eq!(verdicts(&creel.decisions("tool_call", "Bash").unwrap()), ["allow", "deny"]);
    assert!(!stage.exists("/home/dana/evil/ran"), "{:?}", stage.read("/home/dana/evil/ran"));
}

const YES: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <unistd.h>
__attribute__((constructor)) static void yes(void) {
  if (strcmp(program_invocation_short_name, "creel-hook") == 0) _exit(0);
}
"#;

#[test]
fn modes_that_leave_hooks_out_do_not_leave_out_managed_ones() {
    let Some(stage) = stage_with_agent() else { return };
    let creel = protected(&stage);
    stage.write(Account::USER, "/home/dana/precious.txt", "keep me").unwrap();
    let endpoint = Endpoint::start(Vec::new()).unwrap();
    let variants = [("--bare", ""), ("--safe-mode", ""), ("", "CLAUDE_CODE_SIMPLE"), ("", "CLAUDE_CODE_SAFE_MODE")];
    for (number, what @ (argument, variable)) in variants.into_iter().enumerate() {
        endpoint.play(vec![bash("rm -rf ~"), Step::QuoteResult]);
        let mut run = agent(&stage, &endpoint, "clean up");
        if !argument.is_empty() {
            run = run.argument(argument);
        }
        if !variable.is_empty() {
            run = run.environment(variable, "1");
        }
        let ended = run.finish(120).unwrap();
        assert!(stage.exists("/home/dana/precious.txt"), "{what:?}: {ended}");
        assert_eq!(creel.decisions("tool_call", "Bash").unwrap().len(), number + 1, "{what:?}: {ended}");
    }
}

#[test]
fn user_mode_admits_what_it_cannot_hold() {
    let Some(stage) = stage_with_agent() else { return };
    let creel = protected_user(&stage);
    stage.write(Account::USER, "/home/dana/doomed/file", "x").unwrap();
    let endpoint = Endpoint::start(vec![bash("rm -rf ~"), Step::QuoteResult]).unwrap();
    let ended = agent(&stage, &endpoint, "clean up").finish(120).unwrap().well().unwrap();
    assert!(words(&ended).contains("delete-home-or-root"), "{ended}");

    // A repository's own settings switch the account's hooks off: that is what user mode cannot hold, and it says so.
    stage.write(Account::USER, "/home/dana/project/.claude/settings.json", r#"{"disableAllHooks": true}"#).unwrap();
    endpoint.play(vec![bash("echo unjudged > mark.txt"), Step::QuoteResult]);
    agent(&stage, &endpoint, "mark").finish(120).unwrap().well().unwrap();
    assert_eq!(stage.read("/home/dana/project/mark.txt").unwrap(), "unjudged\n");
    assert_eq!(verdicts(&creel.decisions("tool_call", "Bash").unwrap()), ["deny"]);
    let state = creel.command(&["guard", "status", "claude-code", "--format", "json"]).unwrap().well().unwrap();
    let limits = state.json().unwrap()[1]["limits"].to_string();
    assert!(limits.contains("disableAllHooks"), "{state}");
    let status = creel.status().unwrap();
    let user_mode = status["protections"].as_array().unwrap().iter().find(|one| one["name"] == "user mode").unwrap();
    assert!(user_mode["detail"].as_str().unwrap().contains("not a hostile process"), "{status}");
}

#[test]
fn a_secret_in_a_result_never_reaches_the_model() {
    let Some(stage) = stage_with_agent() else { return };
    let creel = protected(&stage);
    // Made up here, in pieces, so that no scanner takes this file for a leak.
    let secret = format!("ghp_{}", "x9Kq27LmZp4RtVb8NcW3sYd6FgHj1TaE5uQ0");
    stage.write(Account::USER, "/home/dana/project/notes.txt", format!("token = {secret}\n")).unwrap();
    let endpoint = Endpoint::start(vec![
        bash("cat notes.txt"),
        Step::tool("Read", json!({"file_path": "/home/dana/project/notes.txt"})),
        bash("cat notes.txt; exit 3"),
        Step::QuoteResult,
    ])
    .unwrap();
    agent(&stage, &endpoint, "look at the notes").finish(120).unwrap().well().unwrap();
    assert_eq!(endpoint.played(), 4);
    assert!(!endpoint.heard(&secret));
    let results = creel.decisions("tool_result", "Bash").unwrap();
    assert!(results.iter().any(|result| result["envelope"]["verdict"] == "modify"), "{results:?}");
    let record = creel.records().unwrap().iter().map(Value::to_string).collect::<String>();
    assert!(!record.contains(&secret));
    creel.verified().unwrap();
}

#[test]
fn a_prompt_with_a_private_key_is_stopped() {
    let Some(stage) = stage_with_agent() else { return };
    let creel = protected(&stage);
    let body = "MC4CAQAwBQYDK2VwBCIEIJ7v0Vh1m2y4kq3Vt8dC5mJx1Lr9Qz6Wb0Ys2Nf7Hg4T";
    let key = format!("-----BEGIN {0}-----\n{body}\n-----END {0}-----", "PRIVATE KEY");
    let endpoint = Endpoint::start(vec![Step::text("I saw it")]).unwrap();
    let ended = agent(&stage, &endpoint, &format!("use this key:\n{key}")).finish(120).unwrap();
    assert!(!endpoint.heard(body), "{ended}");
    let prompts: Vec<Value> = creel
        .records()
        .unwrap()
        .into_iter()
        .filter(|record| record["envelope"]["event"] == "UserPromptSubmit")
        .collect();
    assert_eq!(verdicts(&prompts), ["deny"]);
    assert!(prompts[0]["envelope"]["rules"].to_string().contains("prompt-private-key"));
}

#[test]
fn ordinary_oddities_raise_no_alert() {
    let Some(stage) = stage_with_agent() else { return };
    let creel = protected(&stage);
    stage.write(Account::USER, "/home/dana/project/server.sh", MCP_SERVER).unwrap();
    let servers = json!({"mcpServers": {"notes": {"command": "bash", "args": ["/home/dana/project/server.sh"]}}});
    stage.write(Account::USER, "/home/dana/project/.mcp.json", servers.to_string()).unwrap();
    stage.write(Account::USER, USER_SETTINGS, r#"{"enableAllProjectMcpServers": true}"#).unwrap();
    let endpoint = Endpoint::start(vec![
        bash("false"),
        bash("ls /nonexistent; exit 7"),
        Step::tool("Read", json!({"file_path": "/home/dana/project/missing.txt"})),
        Step::Tools(vec![
            ("Bash".to_owned(), json!({"command": "echo one > one.txt", "description": "one"})),
            ("Bash".to_owned(), json!({"command": "echo two > two.txt", "description": "two"})),
        ]),
        Step::tool("Bash", json!({"command": "echo far > far.txt", "description": "far", "run_in_background": true})),
        Step::tool("mcp__notes__list", json!({"topic": "today"})),
        Step::tool(
            "Agent",
            json!({"description": "look", "prompt": "look around", "subagent_type": "general-purpose"}),
        ),
        // The subagent's own steps.
        bash("echo below > below.txt"),
        Step::text("looked"),
        Step::QuoteResult,
    ])
    .unwrap();
    agent(&stage, &endpoint, "many things").finish(180).unwrap().well().unwrap();
    for name in ["one", "two", "far", "below"] {
        let path = format!("/home/dana/project/{name}.txt");
        until(name, Deadline::seconds(30), || stage.exists(&path).then_some(())).unwrap();
    }
    assert!(endpoint.heard("notes about today"));
    let alerts = creel.alerts().unwrap();
    assert!(alerts.is_empty(), "{alerts:?}");
    let calls: Vec<Value> =
        creel.records().unwrap().into_iter().filter(|record| record["envelope"]["event"] == "PreToolUse").collect();
    assert!(calls.iter().all(|call| call["envelope"]["verdict"] == "allow"), "{calls:?}");
    assert!(calls.iter().any(|call| call["envelope"]["tool"] == "mcp__notes__list"));
    creel.verified().unwrap();
}

/// A server of one tool, in the shell.
const MCP_SERVER: &str = r#"
while read -r line; do
  id=$(sed -n 's/.*"id":\([0-9]*\).*/\1/p' <<<"$line")
  case $line in
    *'"method":"initialize"'*)
      version=$(sed -n 's/.*"protocolVersion":"\([^"]*\)".*/\1/p' <<<"$line")
      result='{"protocolVersion":"'$version'","capabilities":{"tools":{}},"serverInfo":{"name":"notes","version":"1"}}' ;;
    *'"method":"tools/list"'*)
      result='{"tools":[{"name":"list","description":"Lists notes.","inputSchema":{"type":"object","properties":{"topic":{"type":"string"}}}}]}' ;;
    *'"method":"tools/call"'*)
      result='{"content":[{"type":"text","text":"notes about today"}]}' ;;
    *) result='{}' ;;
  esac
  if [ -n "$id" ]; then printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"; fi
done
"#;

#[test]
fn the_managed_wiring_goes_and_comes_exactly() {
    let Some(stage) = stage_with_agent() else { return };
    // What an administrator has there already, in a form that no program would write.
    let theirs = "{\n\t\"cleanupPeriodDays\" : 9 ,\r\n \"env\":{\"A\":\"b\"} }\n\n";
    stage.write(Account::ROOT, "/etc/claude-code/managed-settings.json", theirs).unwrap();
    stage.write(Account::ROOT, "/etc/claude-code/managed-settings.d/10-theirs.json", "{ }").unwrap();
    let listing = |stage: &Stage| {
        let script = "cd /etc/claude-code && find . -printf '%p %m %u %s\\n' | sort && cat managed-settings.json";
        stage.run(Account::ROOT, "sh").arguments(["-c", script]).finish(30).unwrap().well().unwrap().stdout
    };
    let before = listing(&stage);
    let mut creel = Creel::system(&stage).unwrap();
    for daemon in [true, false] {
        let installed = creel.command(&["guard", "install", "claude-code", "--system"]).unwrap().well().unwrap();
        assert!(installed.stdout.contains("effective"), "{installed}");
        // This version can be told what to do when a hook cannot be started.
        assert!(stage.read(DROP_IN).unwrap().contains("\"onFailure\": \"block\""));
        let again = creel.command(&["guard", "install", "claude-code", "--system"]).unwrap().well().unwrap();
        assert!(again.stdout.contains("already installed"), "{again}");
        // Nobody else may take it out.
        let refused = creel.at_terminal(Account::USER, &["guard", "remove", "claude-code", "--system"]).unwrap();
        assert_eq!(refused.code, Some(2), "{refused}");
        assert!(stage.exists(DROP_IN));
        if !daemon {
            creel.kill().unwrap();
        }
        let removed = creel.at_terminal(Account::ROOT, &["guard", "remove", "claude-code", "--system"]).unwrap();
        assert_eq!(removed.code, Some(0), "{removed}");
        assert_eq!(listing(&stage), before);
    }
}

#[test]
fn the_accounts_settings_go_and_come_exactly() {
    let Some(stage) = stage_with_agent() else { return };
    let theirs = "{\n   \"model\" : \"opus\",\n \"hooks\": {\"Stop\": [ {\"hooks\":[{\"type\":\"command\",\"command\":\"true\"}]}]}}";
    stage.write(Account::USER, USER_SETTINGS, theirs).unwrap();
    let mut creel = Creel::user(&stage, Account::USER).unwrap();
    creel.command(&["guard", "install", "claude-code", "--user"]).unwrap().well().unwrap();
    let wired = stage.read(USER_SETTINGS).unwrap();
    assert!(wired.contains("creel-hook") && wired.contains("opus"));
    creel.kill().unwrap();
    // With the daemon dead, at once; no code can be shown.
    let removed = creel.command(&["guard", "remove", "claude-code", "--user"]).unwrap().well().unwrap();
    assert_eq!(stage.read(USER_SETTINGS).unwrap(), theirs, "{removed}");
}

#[test]
fn settings_that_cannot_be_merged_with_are_left_alone() {
    let Some(stage) = stage_with_agent() else { return };
    let creel = Creel::user(&stage, Account::USER).unwrap();
    let shell = |account: Account, script: &str| {
        stage.run(account, "sh").arguments(["-c", script]).finish(30).unwrap().well().unwrap().stdout
    };
    // How it is made, as whom, and what the refusal must name.
    let cases = [
        ("printf '{ // mine\n \"model\": \"opus\" }' > settings.json", Account::USER, "cannot be merged with"),
        ("printf '{\"hooks\": {}, \"hooks\": {}}' > settings.json", Account::USER, "cannot be merged with"),
        ("printf '{\"hooks\": [1]}' > settings.json", Account::USER, "`hooks`"),
        ("printf '[]' > settings.json", Account::USER, "settings.json"),
        ("printf '\\377\\376' > settings.json", Account::USER, "settings.json"),
        ("printf '{\"disableAllHooks\": true}' > settings.json", Account::USER, "switches every hook off"),
        ("printf '{}' > ../mine.json; ln -s ../mine.json settings.json", Account::USER, "settings.json"),
        ("ln -s /etc/shadow settings.json", Account::USER, "settings.json"),
        ("mkfifo settings.json", Account::USER, "settings.json"),
        ("mkdir settings.json", Account::USER, "settings.json"),
        ("printf '{}' > settings.json; chmod 600 settings.json", Account::ROOT, "settings.json"),
    ];
    for (make, account, names) in cases {
        shell(Account::USER, "mkdir ~/.claude");
        shell(account, &format!("cd /home/dana/.claude && {make}"));
        let look = "cd /home/dana && ls -lnR --time-style=full-iso .claude; \
                    if [ -f .claude/settings.json ]; then cksum <.claude/settings.json; fi";
        let before = shell(Account::ROOT, look);
        let refused = creel.command(&["guard", "install", "claude-code", "--user"]).unwrap();
        assert_eq!(refused.code, Some(2), "{make}: {refused}");
        assert!(refused.stderr.contains(names), "{make}: {refused}");
        assert_eq!(shell(Account::ROOT, look), before, "{make}");
        shell(Account::ROOT, "rm -rf /home/dana/.claude /home/dana/mine.json");
    }
    creel.command(&["guard", "install", "claude-code", "--user"]).unwrap().well().unwrap();
}

#[test]
fn drift_and_bypass_flags_are_seen() {
    let Some(stage) = stage_with_agent() else { return };
    let creel = protected(&stage);
    let state = |creel: &Creel<'_>| {
        let shown = creel.command(&["guard", "status", "claude-code", "--format", "json"]).unwrap().well().unwrap();
        shown.json().unwrap()[0].clone()
    };
    assert_eq!(state(&creel)["state"], "installed");
    let endpoint = Endpoint::start(vec![held("first"), Step::text("done")]).unwrap();
    let running = agent(&stage, &endpoint, "one step").start().unwrap();
    runs(&stage, "first");
    let bypasses = state(&creel)["bypasses"].to_string();
    assert!(bypasses.contains("dangerously-skip-permissions") || bypasses.contains("asks for nothing"), "{bypasses}");
    go(&stage, "first");
    ended(running).well().unwrap();

    let good = stage.read(DROP_IN).unwrap();
    let bad = good.replace("\"allowManagedHooksOnly\": true", "\"allowManagedHooksOnly\": false");
    assert_ne!(good, bad);
    stage.write(Account::ROOT, DROP_IN, bad).unwrap();
    let drifted = state(&creel);
    assert_eq!(drifted["state"], "drifted");
    assert!(drifted["drift"].to_string().contains("allowManagedHooksOnly"), "{drifted}");
    let canary = creel.command(&["guard", "canary", "claude-code"]).unwrap();
    assert_eq!(canary.code, Some(1), "{canary}");
    creel.command(&["guard", "install", "claude-code", "--system"]).unwrap().well().unwrap();
    assert_eq!(state(&creel)["state"], "installed");

    // A managed file that switches every hook off is not hidden behind a hook that answers well by itself.
    stage.write(Account::ROOT, "/etc/claude-code/managed-settings.json", r#"{"disableAllHooks": true}"#).unwrap();
    let off = state(&creel);
    assert_eq!(off["state"], "drifted", "{off}");
    assert!(off["drift"].to_string().contains("disableAllHooks"), "{off}");
    let canary = creel.command(&["guard", "canary", "claude-code"]).unwrap();
    assert_eq!(canary.code, Some(1), "{canary}");
}
