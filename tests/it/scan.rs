//! `creel scan`: finds agents in a folder laid out like a machine, says how they stand, executes nothing.

use creel_tests::{Account, Stage};
use serde_json::Value;

const ROOT: &str = "/tmp/machine";

/// A machine with two people: Ada's agents ask for nothing, Bob's are as they come.
fn machine() -> Option<Stage> {
    let stage = Stage::open()?;
    let put = |path: &str, text: &str| stage.write(Account::USER, &format!("{ROOT}/{path}"), text).unwrap();
    put(
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\nbob:x:1001:1001::/home/bob:/bin/sh\n",
    );
    let secret = concat!("sk_", "live_51Kd93jGh27fLqPz8sXwVbNmT");
    put(
        "home/ada/.claude/settings.json",
        &format!(
            r#"{{
        "permissions": {{"defaultMode": "bypassPermissions"}},
        "env": {{"STRIPE_SECRET_KEY": "{secret}"}},
        "hooks": {{"PreToolUse": [{{"hooks": [{{"type": "command", "command": "touch /tmp/executed"}}]}}]}}
    }}"#
        ),
    );
    put("home/ada/.claude.json", r#"{"mcpServers": {"files": {"command": "npx", "args": ["-y", "some-mcp-server"]}}}"#);
    put("home/ada/.codex/config.toml", "approval_policy = \"never\"\nsandbox_mode = \"danger-full-access\"\n");
    put(
        "home/ada/site/.mcp.json",
        r#"{"mcpServers": {"x": {"command": "sh", "args": ["-c", "touch /tmp/executed"]}}}"#,
    );
    put("home/ada/.gemini/settings.json", "{ this is not JSON");
    put("home/bob/.codex/config.toml", "model = \"m\"\n[features]\nhooks = false\n");
    // An agent's own program that would tell on itself if anybody ran it to learn its version.
    let package = "home/bob/.npm-global/lib/node_modules/@anthropic-ai/claude-code";
    put(&format!("{package}/package.json"), r#"{"name": "@anthropic-ai/claude-code", "version": "2.1.300"}"#);
    put("home/bob/.local/bin/claude", "#!/bin/sh\ntouch /tmp/executed\n");
    let line = format!(
        "chmod 755 {ROOT}/home/bob/.local/bin/claude; chmod 666 {ROOT}/home/ada/.codex/config.toml
        mkfifo {ROOT}/home/bob/.claude.json; ln -s /etc/shadow {ROOT}/home/bob/.gemini; ln -s / {ROOT}/home/bob/all
        mkdir {ROOT}/home/bob/deep; cd {ROOT}/home/bob/deep; for i in $(seq 40); do mkdir d; cd d; done"
    );
    stage.run(Account::USER, "bash").arguments(["-c", &line]).finish(60).unwrap().well().unwrap();
    Some(stage)
}

fn scan(stage: &Stage, format: &str) -> creel_tests::Finished {
    let arguments = ["scan", "--root", ROOT, "--format", format];
    stage.run(Account::USER, "creel").arguments(arguments).finish(120).unwrap().well().unwrap()
}

fn of<'a>(reports: &'a Value, kind: &str, account: &str) -> &'a Value {
    let reports = reports.as_array().unwrap();
    let found = reports.iter().find(|report| report["kind"] == kind && report["account"]["name"] == account);
    found.unwrap_or_else(|| panic!("{kind} of {account}: {reports:#?}"))
}

fn codes(report: &Value) -> Vec<&str> {
    report["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect()
}

#[test]
fn a_laid_out_machine_is_understood_and_nothing_of_it_runs() {
    let Some(stage) = machine() else { return };
    let reports = scan(&stage, "json").json().unwrap();
    let claude = of(&reports, "claude-code", "ada");
    assert_eq!(claude["approval"]["mode"], "bypass", "{claude:#}");
    let seen = codes(claude);
    for code in ["agent.auto-approve", "agent.secret-in-configuration", "agent.mcp-unpinned", "agent.hooks-of-others"] {
        assert!(seen.contains(&code), "{code}: {claude:#}");
    }
    assert!(claude["mcp_servers"].as_array().unwrap().iter().any(|server| server["name"] == "files"), "{claude:#}");
    let codex = of(&reports, "codex", "ada");
    assert_eq!(codex["approval"]["mode"], "bypass", "{codex:#}");
    for code in ["agent.auto-approve", "agent.no-sandbox", "agent.writable-configuration"] {
        assert!(codes(codex).contains(&code), "{code}: {codex:#}");
    }
    assert!(codes(of(&reports, "gemini-cli", "ada")).contains(&"agent.malformed-configuration"), "{reports:#}");
    assert!(codes(of(&reports, "codex", "bob")).contains(&"agent.hooks-off"), "{reports:#}");
    assert!(!stage.exists("/tmp/executed"), "something was executed");

    // The secret is named and never shown, in no form.
    for format in ["json", "jsonl", "table"] {
        let told = scan(&stage, format).stdout;
        assert!(!told.contains("51Kd93jGh27f"), "{format}");
    }
    let table = scan(&stage, "table").stdout;
    for expected in ["Claude Code", "Codex", "ada", "bob", "agent.auto-approve"] {
        assert!(table.contains(expected), "{expected}: {table}");
    }
    // The same twice: nothing depends on chance.
    assert_eq!(scan(&stage, "json").json().unwrap(), reports);
}

#[test]
fn this_machine_has_the_agents_that_are_installed_on_it() {
    let Some(stage) = Stage::open() else { return };
    let scan = |account: Account, arguments: &[&str]| {
        stage.run(account, "creel").arguments(arguments.iter().copied()).finish(120).unwrap().well().unwrap()
    };
    let reports = scan(Account::USER, &["scan", "--format", "json"]).json().unwrap();
    for (kind, program) in [("claude-code", "/usr/bin/claude"), ("codex", "/usr/bin/codex")] {
        if std::fs::metadata(stage.outside(program)).is_ok() {
            let report = of(&reports, kind, "dana");
            assert!(report["version"].is_string(), "{report:#}");
            assert_eq!(report["running"], serde_json::json!([]), "{report:#}");
        }
    }
    // Of other people only with the right to look; who has none is told so and learns nothing.
    stage.write(Account::OTHER, "/home/mallory/.codex/config.toml", "approval_policy = \"never\"\n").unwrap();
    stage.run(Account::OTHER, "chmod").arguments(["-R", "go-rwx", "/home/mallory"]).finish(30).unwrap().well().unwrap();
    let seen = scan(Account::ROOT, &["scan", "--all-users", "--format", "json"]).json().unwrap();
    assert_eq!(of(&seen, "codex", "mallory")["approval"]["declared"], "approval_policy = never", "{seen:#}");
    let unseen = scan(Account::USER, &["scan", "--all-users", "--format", "json"]);
    assert!(!unseen.stdout.contains("approval_policy = never"), "{unseen}");
}
