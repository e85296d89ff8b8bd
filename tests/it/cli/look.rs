//! What only looks: every format parses, pipes may close, and without a daemon each command says what to do.

use creel_tests::{Account, Stage};
use serde_json::{Value, json};

use super::{HOME, attack, creel, json as one, lines, sh, well};

#[test]
fn every_list_is_json_when_asked_and_a_closed_pipe_is_no_crash() {
    let Some(stage) = Stage::open() else { return };
    well(&stage, &["up", "--detach", "--enforce"]);
    attack(&stage);
    for command in [
        "status",
        "log",
        "log show 5",
        "log verify",
        "policy test",
        "policy show",
        "policy show --files",
        "policy show delete-home-or-root",
        "policy coverage",
        "policy floor",
        "policy report",
        "policy explain 5",
        "approvals",
        "approvals --all",
        "agents",
        "agents --scan --details",
        "scan",
        "guard status",
        "guard status codex",
        "guard install claude-code --dry-run",
        "guard install codex --dry-run",
        "guard remove codex --dry-run",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let table = creel(&stage, &words);
        assert_eq!(table.code, Some(0), "{table}");
        one(&stage, &[&words[..], &["--format", "json"]].concat());
        lines(&stage, &[&words[..], &["--format", "jsonl"]].concat());
        // Nobody reads: the first byte already meets a closed pipe.
        for format in ["table", "json", "jsonl"] {
            let closed = sh(&stage, &format!("creel {command} --format {format} | true; exit ${{PIPESTATUS[0]}}"));
            assert_eq!((closed.code, closed.stderr.as_str()), (Some(0), ""), "{command}: {closed}");
        }
        // Nothing for people is decorated when it is not a terminal.
        assert!(!table.stdout.contains('\u{1b}'), "{command}");
    }
    for command in ["log export", "support", "--help", "policy --help", "inspect --help"] {
        let closed = sh(&stage, &format!("creel {command} | true; exit ${{PIPESTATUS[0]}}"));
        assert_eq!((closed.code, closed.stderr.as_str()), (Some(0), ""), "{command}: {closed}");
    }
    // Both agents are here and known, with what governs them.
    let agents = one(&stage, &["agents", "--scan", "--format", "json"]);
    let kinds: Vec<&Value> = agents.as_array().unwrap().iter().map(|agent| &agent["kind"]).collect();
    assert!(kinds.contains(&&json!("claude-code")) && kinds.contains(&&json!("codex")), "{agents:#}");
    assert!(!stage.exists(&format!("{HOME}/.claude/settings.json")), "a dry run wrote");
    assert!(!stage.exists(&format!("{HOME}/.codex/hooks.json")), "a dry run wrote");
    let covered = one(&stage, &["policy", "coverage", "--format", "json"]);
    assert!(covered.as_array().unwrap().iter().any(|row| row["kind"] == "codex"), "{covered:#}");
    // The questions of the attack have lapsed or wait no more; the diagnosis names nobody.
    let asked = one(&stage, &["approvals", "--all", "--format", "json"]);
    assert!(asked.as_array().unwrap().len() >= 2, "{asked:#}");
    let support = well(&stage, &["support"]);
    support.json().unwrap();
    for told in ["dana", "rm -rf", ".aws", "project"] {
        assert!(!support.stdout.contains(told), "{told}: {support}");
    }
    well(&stage, &["support", "--to", "support.json"]);
    assert_eq!(creel(&stage, &["support", "--to", "support.json"]).code, Some(2), "it would overwrite");
}

#[test]
fn without_a_daemon_each_command_says_what_to_do() {
    let Some(stage) = Stage::open() else { return };
    for command in [
        "status",
        "log",
        "log --follow",
        "log show 1",
        "log export",
        "log erase --all --reason x --dry-run",
        "policy report",
        "policy explain 1",
        "policy enforce",
        "approvals",
        "deny ap-1",
        "agents",
        "guard install claude-code",
        "guard install claude-code --dry-run",
        "guard status",
        "guard canary codex",
        "break-glass --end",
    ] {
        let told = creel(&stage, &command.split(' ').collect::<Vec<_>>());
        assert_eq!(told.code, Some(2), "{command}: {told}");
        assert!(told.stdout.is_empty() && told.stderr.contains("hint: start it with `creel up`"), "{command}: {told}");
    }
    for command in [
        "policy test",
        "policy show",
        "policy coverage",
        "policy floor",
        "scan",
        "support",
        "down",
        "--version",
        "guard remove codex",
    ] {
        well(&stage, &command.split(' ').collect::<Vec<_>>());
    }
    let none = creel(&stage, &["log", "verify"]);
    assert_eq!(none.code, Some(2), "{none}");
    let plan = well(&stage, &["service", "install", "--system", "--dry-run"]).stdout;
    for step in ["/usr/bin/creeld", "creeld.service", "/var/lib/creel", "/etc/creel/policy"] {
        assert!(plan.contains(step), "{plan}");
    }
    assert!(!stage.exists("/etc/creel") && !stage.exists("/var/lib/creel"));
    let refused = creel(&stage, &["service", "install", "--system"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("needs root"), "{refused}");
    for wrong in
        ["", "no-such-command", "log --no-such-option", "inspect --as nothing", "break-glass --minutes 0 --reason x"]
    {
        let told = creel(&stage, &wrong.split_whitespace().collect::<Vec<_>>());
        assert_eq!(told.code, Some(2), "{wrong}: {told}");
        assert!(told.stderr.contains("Usage") || told.stderr.contains("--help"), "{wrong}: {told}");
    }
}

#[test]
fn a_folder_that_others_could_have_made_is_not_trusted() {
    let Some(stage) = Stage::open() else { return };
    let runtime = format!("/run/user/{}/creel", Account::USER.id);
    sh(&stage, &format!("mkdir -m 777 {runtime}")).well().unwrap();
    let told = creel(&stage, &["status"]);
    assert_eq!(told.code, Some(2));
    assert!(told.stderr.contains("can be written by others"), "{told}");
    // The environment does not say where the daemon is.
    sh(&stage, &format!("rmdir {runtime}")).well().unwrap();
    well(&stage, &["up", "--detach"]);
    let told = sh(&stage, "XDG_RUNTIME_DIR=/tmp/x HOME=/tmp/x PATH=/tmp/x CREEL_RUNTIME=/tmp/x /usr/bin/creel status");
    assert_eq!(told.code, Some(0), "{told}");
    // Another person has another daemon, or none.
    let other = stage.run(Account::OTHER, "creel").argument("status").finish(60).unwrap();
    assert_eq!(other.code, Some(2), "{other}");
    let other = stage.run(Account::OTHER, "creel").arguments(["status", "--runtime", &runtime]).finish(60).unwrap();
    assert_eq!(other.code, Some(2), "{other}");
}

#[test]
fn texts_are_inspected_as_what_they_are() {
    let Some(stage) = Stage::open() else { return };
    let inspect = |point: &str, text: &str| {
        let run = stage.run(Account::USER, "creel").arguments(["inspect", "--as", point, "--format", "json"]);
        let ended = run.input(text).finish(60).unwrap();
        let value = ended.json().unwrap();
        assert_eq!(ended.code == Some(1), matches!(value["verdict"].as_str(), Some("ask" | "deny")), "{ended}");
        value
    };
    let key = format!(
        "-----BEGIN OPENSSH PRIVATE {0}-----\n{1}\n-----END OPENSSH PRIVATE {0}-----\n",
        "KEY", "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtz"
    );
    let call = |tool: &str, input: Value| json!({"tool_name": tool, "tool_input": input}).to_string();
    for (point, text, verdict) in [
        ("prompt", "please fix the tests".to_owned(), "allow"),
        ("prompt", key.clone(), "deny"),
        ("tool_result", "all 12 tests passed".to_owned(), "allow"),
        ("tool_result", key.clone(), "modify"),
        ("command", "cargo test --workspace".to_owned(), "allow"),
        ("command", "rm -rf ~".to_owned(), "ask"),
        ("command", "echo cm0gLXJmIH4= | base64 -d | sh".to_owned(), "ask"),
        ("tool_call", call("Read", json!({"file_path": "src/main.rs"})), "allow"),
        ("tool_call", call("Bash", json!({"command": "rm -rf ~"})), "ask"),
        ("tool_call", call("exec_command", json!({"cmd": "rm -rf ~"})), "ask"),
        ("tool_call", "not a call".to_owned(), "deny"),
        ("tool_description", "Lists issues of a repository".to_owned(), "allow"),
        ("skill", "# Release\nRun the tests, then tag.".to_owned(), "allow"),
        ("file", "fn main() {}".to_owned(), "allow"),
    ] {
        let seen = inspect(point, &text);
        assert_eq!(seen["verdict"], verdict, "{point}: {text}: {seen:#}");
        for field in ["parsed", "classes", "findings"] {
            assert!(!seen[field].is_null(), "{field}");
        }
    }
    let seen = inspect("command", "rm -rf ~");
    assert_eq!((&seen["parsed"], seen["classes"][0].as_str()), (&true.into(), Some("destructive")), "{seen:#}");
    // The secret itself is never printed.
    for point in ["prompt", "file", "tool_result"] {
        assert!(!inspect(point, &key).to_string().contains("b3BlbnNzaC1r"));
    }
    // From a file, and in a folder.
    stage.write(Account::USER, &format!("{HOME}/tree/a/key.pem"), &key).unwrap();
    stage.write(Account::USER, &format!("{HOME}/tree/b/plain.txt"), "hello").unwrap();
    sh(&stage, "cd tree && ln -s /etc links && mkfifo waits && touch locked && chmod 0 locked").well().unwrap();
    let file = creel(&stage, &["inspect", "--as", "prompt", "tree/a/key.pem"]);
    assert_eq!(file.code, Some(1), "{file}");
    let tree = creel(&stage, &["inspect", "--tree", "tree", "--format", "jsonl"]);
    assert_eq!(tree.code, Some(1), "{tree}");
    let found = tree.json_lines().unwrap();
    assert_eq!(found.len(), 1, "{tree}");
    assert!(found[0]["path"].as_str().unwrap().ends_with("tree/a/key.pem"), "{tree}");
    assert!(tree.stderr.contains("passed over"), "{tree}");
    assert_eq!(creel(&stage, &["inspect", "--tree", "tree/b"]).code, Some(0));
    assert_eq!(creel(&stage, &["inspect", "no-such-file"]).code, Some(2));
}

#[test]
fn a_batch_answers_every_line_in_its_order() {
    let Some(stage) = Stage::open() else { return };
    let mut input = String::new();
    for at in 0..200 {
        let line = match at % 5 {
            0 => json!({"id": at, "point": "command", "text": "ls -la"}).to_string(),
            1 => json!({"id": format!("x{at}"), "point": "command", "text": "rm -rf / --no-preserve-root"}).to_string(),
            2 => json!({"id": at, "point": "tool_result", "text": "x".repeat(at * 100)}).to_string(),
            3 => "{\"id\": 3, \"point\": ".to_owned(),
            _ => json!({"id": null, "point": "prompt", "text": "\u{0}\u{1b}[31m"}).to_string(),
        };
        input.push_str(&line);
        input.push('\n');
    }
    let ended = stage.run(Account::USER, "creel").arguments(["inspect", "--batch"]).input(input).finish(120).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let answers = ended.json_lines().unwrap();
    assert_eq!(answers.len(), 200);
    for (at, answer) in answers.iter().enumerate() {
        let object = answer.as_object().unwrap();
        let fields: Vec<&str> = object.keys().map(String::as_str).collect();
        assert_eq!(fields, ["id", "verdict", "parsed", "classes", "findings"], "{answer}");
        match at % 5 {
            0 => assert_eq!((&answer["id"], &answer["verdict"]), (&json!(at), &json!("allow"))),
            1 => assert_eq!((&answer["id"], &answer["verdict"]), (&json!(format!("x{at}")), &json!("ask"))),
            2 => assert_eq!(answer["id"], json!(at)),
            3 => assert_eq!(
                (&answer["verdict"], &answer["findings"][0]["code"]),
                (&json!("deny"), &json!("input.malformed"))
            ),
            _ => assert!(answer["id"].is_null()),
        }
        for finding in answer["findings"].as_array().unwrap() {
            let fields: Vec<&str> = finding.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(fields, ["code", "class", "severity", "confidence", "span"], "{finding}");
        }
    }
    // One asks, waits, and asks again: answers are not held back.
    let talk = "coproc creel inspect --batch; for id in 1 2 3; do echo '{\"id\":'$id',\"text\":\"x\"}' >&${COPROC[1]}; \
                read -r -t 60 answer <&${COPROC[0]} || exit 9; echo \"$answer\"; done";
    let talked = sh(&stage, talk).well().unwrap().json_lines().unwrap();
    assert_eq!(talked.iter().map(|answer| answer["id"].clone()).collect::<Vec<_>>(), [1, 2, 3]);
}
