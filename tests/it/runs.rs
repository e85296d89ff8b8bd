//! What the daemon makes of supervisors of cages that are none: it believes nothing that it does not see, hands nobody
//! another's run, and judges over a run's socket only what comes out of its cage.

use creel_tests::{Account, Creel, Deadline, Finished, Run, Stage, StandIn, until};
use serde_json::{Value, json};

/// A person's program that speaks to the daemon as `creel run` does. Each line of its input is a request, or a payload for
/// the hook; the answers to each are a line of its output.
const SUPERVISOR: &str = r#"
import json, os, socket, struct, subprocess, sys
control = sys.argv[1]
def ticks(pid):
    return int(open(f"/proc/{pid}/stat").read().rsplit(") ", 1)[1].split()[19])
def key(pid):
    return {"pid": pid, "start_ticks": ticks(pid)}
def ask(request):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(control)
        text = json.dumps(request).encode()
        s.sendall(struct.pack(">I", len(text)) + text)
        answers = []
        while True:
            head = s.recv(4, socket.MSG_WAITALL)
            if len(head) < 4: return answers + [{"answer": "hung-up"}]
            answer = json.loads(s.recv(struct.unpack(">I", head)[0], socket.MSG_WAITALL))
            answers.append(answer)
            if answer["answer"] in ("done", "refused"): return answers
def say(what, answers):
    print(json.dumps({"what": what, "answers": answers}), flush=True)
run, hook = None, None
child = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE)
inner = int(child.stdout.readline())
names = {"$SUPERVISOR": key(os.getpid()), "$INIT": key(child.pid), "$AGENT": key(inner), "$ONE": key(1)}
for line in sys.stdin:
    line = line.strip()
    if line.startswith("hook "):
        environment = dict(os.environ)
        done = subprocess.run(["/usr/bin/creel-hook", "claude-code", "PreToolUse", "--socket", hook + "/hook.sock"],
            input=line[5:].encode(), capture_output=True, env=environment)
        say("hook", [{"code": done.returncode, "stdout": done.stdout.decode(), "stderr": done.stderr.decode()}])
        continue
    def fill(value):
        if isinstance(value, dict): return {k: fill(v) for k, v in value.items()}
        if isinstance(value, list): return [fill(v) for v in value]
        if isinstance(value, str) and value in names: return names[value]
        return run if value == "$RUN" else value
    answers = ask(fill(json.loads(line)))
    if answers[0]["answer"] == "run-plan":
        run, hook = answers[0]["of"]["plan"]["run"], answers[0]["of"]["hook"]["host"]
    say(json.loads(line)["request"], answers)
child.kill()
os.kill(inner, 9)
"#;

fn supervisor(creel: &Creel<'_>, stage: &Stage, account: Account, script: &[Value]) -> Vec<Value> {
    let lines: Vec<String> =
        script.iter().map(|line| line.as_str().map_or_else(|| line.to_string(), str::to_owned)).collect();
    let ended: Finished = stage
        .run(account, "python3")
        .arguments(["-c".to_owned(), SUPERVISOR.to_owned(), format!("{}/control.sock", creel.runtime)])
        .input(lines.join("\n") + "\n")
        .finish(60)
        .unwrap()
        .well()
        .unwrap();
    ended.json_lines().unwrap()
}

fn start(workspace: &str) -> Value {
    json!({"request": "run-start", "workspace": workspace, "program": "/usr/bin/env", "command": ["env"], "mode": "direct"})
}

fn control(standing: &str) -> Value {
    json!({"id": "files.outside", "promise": "p", "mechanism": "m", "standing": standing, "evidence": "e"})
}

fn go(init: &str, agent: &str) -> Value {
    json!({"request": "run-go", "run": "$RUN", "init": init, "agent": agent, "controls": [control("proved")]})
}

fn refused(line: &Value) -> &Value {
    let last = line["answers"].as_array().unwrap().last().unwrap();
    assert_eq!(last["answer"], "refused", "{line}");
    &last["of"]
}

fn workspace(stage: &Stage) -> String {
    let folder = format!("{}/project", Account::USER.home);
    stage.make_folder(Account::USER, &folder).unwrap();
    folder
}

/// Everything that its supervisor says is good, and it is an ordinary process: the kernel's word counts.
#[test]
fn a_cage_that_is_none_gets_no_statement_whatever_is_said_about_it() {
    let Some(stage) = Stage::open() else { return };
    let folder = workspace(&stage);
    for system in [true, false] {
        let creel = if system { Creel::system(&stage).unwrap() } else { Creel::user(&stage, Account::USER).unwrap() };
        let said = supervisor(
            &creel,
            &stage,
            Account::USER,
            &[
                start(&folder),
                go("$INIT", "$AGENT"),
                go("$SUPERVISOR", "$AGENT"),
                go("$ONE", "$INIT"),
                go("$AGENT", "$INIT"),
            ],
        );
        let plan = &said[0]["answers"][0]["of"]["plan"];
        assert_eq!((&plan["profile"], &plan["workspace"]), (&json!("default"), &json!(folder)), "{}", said[0]);
        let words = refused(&said[1])["message"].as_str().unwrap();
        for hole in ["outside.filter", "outside.privileges", "outside.processes", "outside.mounts", "outside.users"] {
            assert!(words.contains(hole), "{words}");
        }
        for other in &said[2..] {
            assert_eq!(refused(other)["code"], "invalid", "{other}");
        }
        let codes: Vec<Value> = ["cage.planned", "cage.refused-start", "cage.statement"]
            .iter()
            .map(|code| creel.coded(code).unwrap().len().into())
            .collect();
        assert_eq!(codes, [1, 1, 0]);
        // The supervisor ended without a word: its run ends, and its folder goes.
        until("the end of the run", Deadline::seconds(30), || {
            (!creel.coded("cage.ended").unwrap().is_empty()).then_some(())
        })
        .unwrap();
        let left = std::fs::read_dir(stage.outside(&format!("{}/runs", creel.runtime))).unwrap().count();
        assert_eq!(left, 0);
        creel.stop().unwrap();
    }
}

#[test]
fn a_probe_that_got_through_stops_the_run() {
    let Some(stage) = Stage::open() else { return };
    let folder = workspace(&stage);
    let creel = Creel::user(&stage, Account::USER).unwrap();
    let mut open = go("$INIT", "$AGENT");
    open["controls"] = json!([control("not held")]);
    let mut none = go("$INIT", "$AGENT");
    none["controls"] = json!([]);
    let said = supervisor(&creel, &stage, Account::USER, &[start(&folder), open, none]);
    assert!(refused(&said[1])["message"].as_str().unwrap().contains("files.outside: e"), "{}", said[1]);
    assert_eq!(refused(&said[2])["code"], "invalid");
}

/// The socket of a run is no way past the process tree: outside its cage nobody is its agent.
#[test]
fn a_hook_call_over_a_runs_socket_from_outside_its_cage_is_denied_and_alerted() {
    let Some(stage) = Stage::open() else { return };
    let folder = workspace(&stage);
    let creel = Creel::user(&stage, Account::USER).unwrap();
    let call = creel_tests::tool_call(Account::USER, "s-1", "t-1", "Bash", &json!({"command": "ls"}));
    let said = supervisor(&creel, &stage, Account::USER, &[start(&folder), json!(format!("hook {call}"))]);
    let answer: Value = serde_json::from_str(said[1]["answers"][0]["stdout"].as_str().unwrap()).unwrap();
    let reason = answer["hookSpecificOutput"]["permissionDecisionReason"].as_str().unwrap();
    assert_eq!(answer["hookSpecificOutput"]["permissionDecision"], "deny", "{reason}");
    let alerts = creel.alerts().unwrap();
    assert!(alerts.iter().any(|alert| alert["envelope"]["code"] == "alert.no-agent-above"), "{alerts:?}");
    let calls = creel.coded("hook.no-agent-above").unwrap();
    assert!(calls[0]["detail"]["facts"]["reason"].as_str().unwrap().contains("is not in that run's cage"), "{calls:?}");
}

#[test]
fn events_are_written_down_few_and_told_in_plain_words() {
    let Some(stage) = Stage::open() else { return };
    let folder = workspace(&stage);
    let creel = Creel::user(&stage, Account::USER).unwrap();
    let event = |kind: &str, object: String, times: u64| {
        json!({"kind": kind, "at_unix_ns": 1, "pid": 3, "program": "/usr/bin/sh", "call": "openat", "object": object,
            "rule": "write-exec-bearing", "reason": "git would run it", "fix": "commit it yourself", "times": times})
    };
    let many: Vec<Value> = (0..256).map(|n| event("refused", format!("/w/{}\u{1b}", n % 3), 2)).collect();
    let mut script = vec![start(&folder)];
    script.extend((0..20).map(|_| json!({"request": "run-events", "run": "$RUN", "events": many})));
    let too_many: Vec<Value> = (0..257).map(|_| event("exec", "/usr/bin/x".to_owned(), 1)).collect();
    script.push(json!({"request": "run-events", "run": "$RUN", "events": too_many}));
    script.push(json!({"request": "run-events", "run": "r-00", "events": []}));
    script.push(json!({"request": "run-why", "id": "", "limit": 2}));
    script.push(json!({"request": "run-end", "run": "$RUN", "exit": {"code": 3}}));
    let said = supervisor(&creel, &stage, Account::USER, &script);
    assert_eq!(refused(&said[21])["code"], "invalid");
    assert_eq!(refused(&said[22])["code"], "not-found");
    assert_eq!(said[23]["answers"][0]["of"]["events"].as_array().unwrap().len(), 2);
    let records = creel.coded("cage.refused").unwrap();
    assert!((1..=20).contains(&records.len()), "{}", records.len());
    let count = |record: &Value| -> u64 {
        record["detail"]["facts"]["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["times"].as_u64().unwrap())
            .sum()
    };
    assert_eq!(records.iter().map(count).sum::<u64>(), 20 * 256 * 2, "every one is counted");
    let envelope = &records[0]["envelope"];
    assert_eq!((&envelope["verdict"], &envelope["rules"]), (&json!("deny"), &json!(["write-exec-bearing"])));
    let run = envelope["subject"]["run"].as_str().unwrap();
    assert_eq!(creel.coded("cage.ended").unwrap()[0]["detail"]["facts"]["exit"], json!({"code": 3}));

    let why = creel.command(&["why", &run[2..8]]).unwrap().well().unwrap().stdout;
    for word in ["openat", "git would run it", "[write-exec-bearing]", "fix: commit it yourself"] {
        assert!(why.contains(word), "{why}");
    }
    assert!(!why.contains('\u{1b}'), "what an agent names cannot move the cursor");
    creel.verified().unwrap();
}

/// Another account sees neither the run nor may it speak for it.
#[test]
fn a_run_is_its_supervisors_alone() {
    let Some(stage) = Stage::open() else { return };
    let folder = workspace(&stage);
    let creel = Creel::system(&stage).unwrap();
    let mut first = stage
        .run(Account::USER, "python3")
        .arguments(["-c".to_owned(), SUPERVISOR.to_owned(), format!("{}/control.sock", creel.runtime)])
        .input(format!("{}\n", start(&folder)) + "{\"request\": \"watch\"}\n")
        .start()
        .unwrap();
    first.says("run-plan", Deadline::seconds(30)).unwrap();
    let line: Value = serde_json::from_str(first.stdout().lines().next().unwrap()).unwrap();
    let run = line["answers"][0]["of"]["plan"]["run"].clone();
    let script = [
        json!({"request": "run-events", "run": run, "events": []}),
        json!({"request": "run-end", "run": run, "exit": {"code": 0}}),
        json!({"request": "runs"}),
        json!({"request": "run-show", "id": run}),
    ];
    let other = supervisor(&creel, &stage, Account::OTHER, &script);
    assert_eq!(refused(&other[0])["code"], "not-found");
    assert_eq!(refused(&other[1])["code"], "not-found");
    assert_eq!(other[2]["answers"][0]["of"], json!([]));
    assert_eq!(refused(&other[3])["code"], "not-found");
    let same = supervisor(&creel, &stage, Account::USER, &script);
    assert_eq!(refused(&same[0])["code"], "forbidden", "another process of the same account");
    assert_eq!(refused(&same[1])["code"], "forbidden");
    assert_eq!(same[2]["answers"][0]["of"][0]["run"], run);
    first.stop().unwrap();
}

/// The stand-in for Claude Code in a cage; what it runs there is a script.
fn caged<'stage>(stage: &'stage Stage, folder: &str, script: &str) -> Run<'stage> {
    StandIn::claude(stage, Account::USER).unwrap();
    let program = format!("{}/.local/bin/claude", Account::USER.home);
    let script = format!("{script}\nexit $?");
    stage.run(Account::USER, "creel").arguments(["run", "--", &program, "-c", &script]).folder(folder)
}

fn payload(event: &str, command: &str) -> String {
    let mut payload = creel_tests::tool_call(Account::USER, "s-1", "t-1", "Bash", &json!({"command": command}));
    payload["hook_event_name"] = event.into();
    if event == "PostToolUse" {
        payload["tool_response"] = json!({"stdout": "", "stderr": "", "interrupted": false, "isImage": false});
    }
    payload.to_string()
}

fn hook(system: bool, event: &str, command: &str) -> String {
    let mode = if system { "--system" } else { "--user" };
    format!(
        "printf '%s' '{}' | /usr/bin/creel-hook claude-code {event} {mode}",
        payload(event, command).replace('\'', "")
    )
}

/// The whole way: kind found by the catalog, plan, cage, statement; hooks in it are that run's, and their answers come
/// back; what a seal refused is written down and told to the person.
#[test]
fn an_agent_in_a_cage_is_stated_judged_and_recorded_as_one_run() {
    let Some(stage) = Stage::open() else { return };
    let folder = workspace(&stage);
    for system in [true, false] {
        let creel = if system { Creel::system(&stage).unwrap() } else { Creel::user(&stage, Account::USER).unwrap() };
        let script = format!(
            "{}; echo one=$?; {}; echo two=$?; mkdir -p .git/hooks; echo x > .git/hooks/pre-commit; cat ~/.ssh/id_ed25519",
            hook(system, "PreToolUse", "ls"),
            hook(system, "PreToolUse", "rm -rf ~"),
        );
        let ended = caged(&stage, &folder, &script).finish(60).unwrap();
        assert!(ended.stdout.starts_with("one=0\n{"), "an allowed call is answered with silence: {ended}");
        assert!(ended.stdout.contains("\"permissionDecision\":\"deny\"") && ended.stdout.contains("two=0"), "{ended}");
        assert!(!stage.exists(&format!("{folder}/.git/hooks/pre-commit")));

        let calls = creel.decisions("tool_call", "Bash").unwrap();
        let verdicts: Vec<&Value> = calls.iter().map(|call| &call["envelope"]["verdict"]).collect();
        assert_eq!(verdicts, ["allow", "deny"]);
        let ended = creel.coded("cage.ended").unwrap();
        let run = ended[0]["envelope"]["subject"]["run"].clone();
        for record in
            calls.iter().chain(&creel.coded("cage.refused").unwrap()).chain(&creel.coded("cage.statement").unwrap())
        {
            assert_eq!(record["envelope"]["subject"]["run"], run, "{record}");
            assert_eq!(record["envelope"]["subject"]["kind"], "claude-code");
        }
        let short = &run.as_str().unwrap()[..10];
        let stated = creel.command_by(Account::USER, &["status", short, "--format", "json"]).unwrap().json().unwrap();
        let controls = stated["statement"]["statement"]["controls"].as_array().unwrap().clone();
        let standing =
            |id: &str| controls.iter().find(|control| control["id"] == id).map(|control| control["standing"].clone());
        for id in [
            "outside.filter",
            "outside.privileges",
            "outside.processes",
            "outside.namespaces",
            "outside.users",
            "outside.mounts",
            "files.outside",
            "seals.names",
        ] {
            assert_eq!(standing(id), Some(json!("proved")), "{id}: {controls:?}");
        }
        assert_eq!(stated["profile"], "claude-code");
        let why = creel.command_by(Account::USER, &["why", short]).unwrap().well().unwrap().stdout;
        assert!(why.contains("pre-commit") && why.contains("write-exec-bearing"), "{why}");
        creel.verified().unwrap();
        creel.stop().unwrap();
    }
}

/// What a cage refused is told to the model with the next result, once.
#[test]
fn the_model_is_told_what_its_cage_refused() {
    let Some(stage) = Stage::open() else { return };
    let folder = workspace(&stage);
    let creel = Creel::user(&stage, Account::USER).unwrap();
    let result = hook(false, "PostToolUse", "make hook");
    // The refusal travels to the daemon beside the agent; results are reported until it is told.
    let script = format!(
        "mkdir -p .husky; echo x > .husky/pre-commit; until {result} > said && [ -s said ]; do :; done; cat said; {result}"
    );
    let ended = caged(&stage, &folder, &script).finish(120).unwrap();
    let said = ended.json().unwrap_or_else(|error| panic!("{error}: {ended}"));
    let text = said["hookSpecificOutput"]["additionalContext"].as_str().unwrap();
    assert!(text.contains(".husky/pre-commit") && text.contains("write-exec-bearing"), "{text}");
    assert_eq!(text.matches("\n- ").count(), 1, "what the probes tried is no news: {text}");
    drop(creel);
}

/// A daemon that is killed and started again finds the run where it was: the supervisor presents the statement.
#[test]
fn a_run_goes_on_with_a_daemon_that_was_restarted() {
    let Some(stage) = Stage::open() else { return };
    let folder = workspace(&stage);
    let mut creel = Creel::user(&stage, Account::USER).unwrap();
    let call = hook(false, "PreToolUse", "ls");
    let script = format!("{call}; echo one=$?; until [ -e go ]; do sleep 0.05; done; {call}; echo two=$?");
    let mut running = caged(&stage, &folder, &script).start().unwrap();
    running.says("one=0", Deadline::seconds(60)).unwrap();
    creel.kill().unwrap();
    creel.start().unwrap();
    stage.write(Account::USER, &format!("{folder}/go"), "").unwrap();
    let ended = running.finish(Deadline::seconds(60)).unwrap();
    assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), ["one=0", "two=0"], "{ended}");
    let calls = creel.decisions("tool_call", "Bash").unwrap();
    let verdicts: Vec<&Value> = calls.iter().map(|call| &call["envelope"]["verdict"]).collect();
    assert_eq!(verdicts, ["allow", "allow"]);
    assert_eq!(calls[0]["envelope"]["subject"]["run"], calls[1]["envelope"]["subject"]["run"]);
    assert_eq!(creel.coded("cage.resumed").unwrap().len(), 1);
    assert_eq!(creel.coded("cage.ended").unwrap().len(), 1);
    creel.verified().unwrap();
}
