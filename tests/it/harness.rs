//! The harness itself: without these, a green test elsewhere would prove nothing.

use std::io::{Read, Write};
use std::net::TcpStream;

use creel_tests::{Account, Agent, Deadline, Endpoint, Stage, Step, claude, codex, gemini, until};
use serde_json::{Value, json};

/// Posts JSON and gives back status line and body.
fn post(endpoint: &Endpoint, path: &str, body: &Value) -> (String, String) {
    let body = body.to_string();
    let mut connection = TcpStream::connect(("127.0.0.1", endpoint.port())).unwrap();
    write!(connection, "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn events(body: &str) -> Vec<Value> {
    body.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

#[test]
fn the_endpoint_streams_messages() {
    let endpoint = Endpoint::start(vec![Step::tool("Bash", json!({"command": "echo hi"})), Step::QuoteResult]).unwrap();
    let request = json!({"model": "m", "stream": true, "tools": [{"name": "Bash"}],
        "messages": [{"role": "user", "content": "go"}]});
    let (status, body) = post(&endpoint, "/v1/messages?beta=true", &request);
    assert_eq!(status, "HTTP/1.1 200 Scripted");
    let kinds: Vec<String> = events(&body).iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds.first().unwrap(), "message_start");
    assert_eq!(kinds.last().unwrap(), "message_stop");
    let arguments: String =
        events(&body).iter().filter_map(|event| event["delta"]["partial_json"].as_str().map(str::to_owned)).collect();
    assert_eq!(serde_json::from_str::<Value>(&arguments).unwrap(), json!({"command": "echo hi"}));

    let request = json!({"model": "m", "tools": [{"name": "Bash"}], "messages": [{"role": "user", "content": [
        {"type": "tool_result", "content": [{"type": "text", "text": "a \"quoted\"\nsecret"}]}]}]});
    let (_, body) = post(&endpoint, "/v1/messages", &request);
    let whole: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(whole["content"][0]["text"], "RESULT=a \"quoted\"\nsecret");
    assert!(endpoint.heard("\"quoted\"\nsec"));
    assert!(!endpoint.heard("something else"));
    assert_eq!(endpoint.played(), 2);
    assert_eq!(endpoint.last_result(), "a \"quoted\"\nsecret");
}

#[test]
fn the_endpoint_streams_responses() {
    let endpoint = Endpoint::start(vec![
        Step::tool("exec_command", json!({"cmd": "true"})),
        Step::Free { name: "apply_patch".to_owned(), input: "*** Begin Patch".to_owned() },
        Step::Status(503),
    ])
    .unwrap();
    let request = json!({"model": "m", "stream": true, "tools": [{"type": "function", "name": "exec_command"}],
        "input": [{"type": "function_call_output", "output": "out"}]});
    let (_, body) = post(&endpoint, "/v1/responses", &request);
    let first = events(&body);
    assert_eq!(first.last().unwrap()["type"], "response.completed");
    assert_eq!(first.last().unwrap()["response"]["output"][0]["arguments"], "{\"cmd\":\"true\"}");
    assert!(first.iter().enumerate().all(|(at, event)| event["sequence_number"] == at));
    let (_, body) = post(&endpoint, "/v1/responses", &request);
    assert_eq!(events(&body).last().unwrap()["response"]["output"][0]["input"], "*** Begin Patch");
    let (status, _) = post(&endpoint, "/v1/responses", &request);
    assert_eq!(status, "HTTP/1.1 503 Scripted");
    assert_eq!(endpoint.requests()[0].last_result, "out");
    assert_eq!(endpoint.requests()[0].tools, ["exec_command"]);
}

#[test]
fn a_request_without_tools_takes_no_step() {
    let endpoint = Endpoint::start(vec![Step::text("mine")]).unwrap();
    let (_, body) = post(&endpoint, "/v1/messages", &json!({"model": "m", "messages": []}));
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["content"][0]["text"], "ok");
    assert_eq!(endpoint.played(), 0);
}

#[test]
fn a_stage_is_private_and_its_user_has_no_rights() {
    let Some(stage) = Stage::without_programs() else { return };
    let root = stage.run(Account::ROOT, "sh").argument("-c").argument(
        "mkdir /etc/claude-code && echo x >/etc/claude-code/managed-settings.json && echo x >/usr/bin/creel-stage-mark && ls /home",
    );
    let listed = root.finish(30).unwrap().well().unwrap();
    assert_eq!(listed.stdout, "avery\ndana\nmallory\n");
    assert!(stage.exists("/etc/claude-code/managed-settings.json"));
    assert!(!std::path::Path::new("/usr/bin/creel-stage-mark").exists());

    let user = stage
        .run(Account::USER, "sh")
        .argument("-c")
        .argument("id -u; id -G; id -un; pwd; touch /etc/x || echo refused; echo $XDG_RUNTIME_DIR; cat /proc/self/status | grep CapEff");
    let user = user.finish(30).unwrap().well().unwrap();
    assert_eq!(
        user.stdout.lines().collect::<Vec<_>>(),
        ["61000", "61000", "dana", "/home/dana", "refused", "/run/user/61000", "CapEff:\t0000000000000000"]
    );
}

#[test]
fn a_stage_takes_its_processes_with_it() {
    let Some(stage) = Stage::without_programs() else { return };
    // Two levels and a session of its own: what a daemon does.
    let run = stage.run(Account::USER, "sh").argument("-c").argument("setsid sleep 600 & echo started");
    let mut running = run.start().unwrap();
    running.says("started", Deadline::seconds(30)).unwrap();
    let left = until("the sleeping process", Deadline::seconds(30), || {
        stage
            .processes()
            .into_iter()
            .find(|id| std::fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name == "sleep\n"))
    })
    .unwrap();
    let link = format!("/proc/{left}/ns/pid");
    let theirs = std::fs::read_link(&link).unwrap();
    drop(stage);
    // It is gone, or a zombie that nobody has waited for, or its number belongs to another: it is not there.
    assert!(std::fs::read_link(&link).ok() != Some(theirs));
}

#[test]
fn nothing_is_above_a_program_of_the_stage() {
    let Some(stage) = Stage::without_programs() else { return };
    let run = stage.run(Account::USER, "sh").arguments(["-c", "echo $PPID; sh -c 'echo $PPID'; echo $$"]);
    let ended = run.finish(30).unwrap().well().unwrap();
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(lines[0], "0");
    assert_eq!(lines[1], lines[2]);
}

#[test]
fn a_program_can_be_killed_and_signals_come_back() {
    let Some(stage) = Stage::without_programs() else { return };
    let mut sleeping = stage.run(Account::ROOT, "sh").arguments(["-c", "echo here; exec sleep 600"]).start().unwrap();
    sleeping.says("here", Deadline::seconds(30)).unwrap();
    assert_eq!(sleeping.kill().unwrap().signal, Some(9));
    let script = "trap 'echo bye; exit 3' TERM; echo here; while :; do sleep 0.05; done";
    let mut polite = stage.run(Account::USER, "bash").arguments(["-c", script]).start().unwrap();
    polite.says("here", Deadline::seconds(30)).unwrap();
    let ended = polite.stop().unwrap();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), "here\nbye\n"));
}

#[test]
fn input_output_and_exit_code_come_through() {
    let Some(stage) = Stage::without_programs() else { return };
    stage.write(Account::USER, "/home/dana/a/b/c.txt", "text").unwrap();
    let run = stage.run(Account::USER, "sh").arguments(["-c", "cat; cat c.txt; stat -c %U .; echo bad >&2; exit 7"]);
    let ended = run.folder("/home/dana/a/b").input("in ").environment("A", "b").finish(30).unwrap();
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(7), "in textdana\n", "bad\n"));
    assert!(ended.well().is_err());
    let late = stage.run(Account::USER, "sleep").argument("600").start().unwrap().finish(Deadline::seconds(0));
    assert!(late.unwrap_err().to_string().contains("did not end in time"));
}

#[test]
fn the_real_claude_code_uses_a_tool() {
    let Some(stage) = Stage::without_programs() else { return };
    if !Agent::Claude.is_here(&stage) {
        return;
    }
    let version = stage.run(Account::USER, "claude").argument("--version").finish(60).unwrap().well().unwrap();
    assert!(version.stdout.starts_with(Agent::Claude.version()), "{version}");
    stage.make_folder(Account::USER, "/home/dana/project").unwrap();
    let call = json!({"command": "echo written >mark.txt; echo seen", "description": "mark"});
    let endpoint = Endpoint::start(vec![Step::tool("Bash", call), Step::QuoteResult]).unwrap();
    let run = claude(&stage, Account::USER, &endpoint, "make a mark").unwrap().folder("/home/dana/project");
    let ended = run.finish(120).unwrap().well().unwrap();
    assert_eq!(ended.json().unwrap()["result"], "RESULT=seen");
    assert_eq!(stage.read("/home/dana/project/mark.txt").unwrap(), "written\n");
    assert!(endpoint.heard("make a mark"));
    assert_eq!(endpoint.played(), 2);
}

#[test]
fn the_real_codex_uses_a_tool() {
    let Some(stage) = Stage::without_programs() else { return };
    if !Agent::Codex.is_here(&stage) {
        return;
    }
    let version = stage.run(Account::USER, "codex").argument("--version").finish(60).unwrap().well().unwrap();
    assert!(version.stdout.contains(Agent::Codex.version()), "{version}");
    stage.make_folder(Account::USER, "/home/dana/project").unwrap();
    let call = json!({"cmd": "echo written >mark.txt; echo seen"});
    let endpoint = Endpoint::start(vec![Step::tool("exec_command", call), Step::text("done")]).unwrap();
    let run = codex(&stage, Account::USER, &endpoint, "make a mark").unwrap().folder("/home/dana/project");
    let ended = run.finish(120).unwrap().well().unwrap();
    assert!(ended.stdout.contains("done"), "{ended}");
    assert_eq!(stage.read("/home/dana/project/mark.txt").unwrap(), "written\n");
    assert!(endpoint.last_result().contains("seen"));
    assert!(endpoint.heard("make a mark"));
}

#[test]
fn the_real_gemini_uses_a_tool() {
    let Some(stage) = Stage::without_programs() else { return };
    if !Agent::Gemini.is_here(&stage) {
        return;
    }
    let version = stage.run(Account::USER, "gemini").argument("--version").finish(60).unwrap().well().unwrap();
    assert!(version.stdout.contains(Agent::Gemini.version()), "{version}");
    stage.make_folder(Account::USER, "/home/dana/project").unwrap();
    let call = json!({"command": "echo written >mark.txt; echo seen", "description": "mark"});
    let endpoint = Endpoint::start(vec![Step::tool("run_shell_command", call), Step::QuoteResult]).unwrap();
    let run = gemini(&stage, Account::USER, &endpoint, "make a mark").unwrap().folder("/home/dana/project");
    let ended = run.finish(120).unwrap().well().unwrap();
    assert!(ended.stdout.contains("RESULT=") && ended.stdout.contains("seen"), "{ended}");
    assert_eq!(stage.read("/home/dana/project/mark.txt").unwrap(), "written\n");
    assert!(endpoint.heard("make a mark"));
}
