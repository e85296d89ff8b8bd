//! Postures from literal files and processes.

use super::*;
use crate::Catalog;
use creel_model::ProcessKey;

fn process(pid: u32, argv: &[&str], cwd: &str) -> ProcessFacts {
    let mut facts = ProcessFacts::bare(ProcessKey { pid, start_ticks: 1 }, 1, 1000);
    facts.argv = argv.iter().map(|argument| (*argument).to_owned()).collect();
    facts.cwd = cwd.to_owned();
    facts
}

fn file(place: &str, path: &str, project: Option<&str>, text: &str) -> ConfigFile {
    let managed = path.starts_with("/etc");
    ConfigFile {
        place: place.to_owned(),
        path: path.to_owned(),
        project: project.map(str::to_owned),
        owner: if managed { 0 } else { 1000 },
        group: 0,
        mode: 0o644,
        content: Content::Text(text.to_owned()),
    }
}

fn report(kind: &str, files: &[ConfigFile], processes: &[ProcessFacts]) -> AgentReport {
    let account = Account { uid: 1000, name: "ada".into(), home: "/home/ada".into() };
    let catalog = Catalog::built_in();
    let facts = Facts { account: &account, installed: &[], files, processes, instructions: &[], skills: &[] };
    posture(catalog.kind(kind).unwrap(), &facts)
}

fn has(report: &AgentReport, code: &str) -> bool {
    report.findings.iter().any(|finding| finding.code == code)
}

#[test]
fn modes_of_processes() {
    let check = |kind: &str, argv: &[&str], expected: ApprovalMode| {
        let report = report(kind, &[], &[process(7, argv, "/p")]);
        assert_eq!(report.running[0].approval.mode, expected, "{argv:?} {:?}", report.running);
        let by_hand = matches!(report.running[0].approval.origin, Origin::Argument { .. });
        assert_eq!(has(&report, "agent.bypass-flag"), expected == Bypass && by_hand, "{argv:?}");
    };
    use ApprovalMode::{Ask, Auto, Bypass, Edits, ReadOnly, Unknown};
    check("claude-code", &["claude"], Ask);
    check("claude-code", &["claude", "-p", "go", "--dangerously-skip-permissions"], Bypass);
    check("claude-code", &["claude", "--permission-mode=plan"], ReadOnly);
    check("claude-code", &["claude", "--permission-mode", "acceptEdits"], Edits);
    check("claude-code", &["claude", "--permission-mode", "something-new"], Unknown);
    check("claude-code", &["claude", "--", "--dangerously-skip-permissions"], Ask);
    check("codex", &["codex", "exec"], Auto);
    check("codex", &["codex", "--yolo"], Bypass);
    check("codex", &["codex", "exec", "--dangerously-bypass-approvals-and-sandbox", "go"], Bypass);
    check("codex", &["codex", "-a", "never", "-s", "read-only"], ReadOnly);
    check("codex", &["codex", "-c", "approval_policy=\"never\"", "-c", "sandbox_mode=danger-full-access"], Bypass);
    check("codex", &["codex", "-a", "untrusted"], Ask);
    check("gemini-cli", &["node", "/x/gemini", "-y"], Bypass);
    check("gemini-cli", &["node", "/x/gemini", "--approval-mode=auto_edit"], Edits);
    check("copilot-cli", &["copilot", "--allow-all-tools"], Bypass);
    check("opencode", &["opencode"], Bypass);
}

#[test]
fn rights_that_reach_around_protection_are_critical() {
    let plain = process(7, &["claude"], "/p");
    assert!(!has(&report("claude-code", &[], std::slice::from_ref(&plain)), "agent.can-stop-creel"));
    let powerful = ProcessFacts { powers: vec!["CAP_SYS_ADMIN".to_owned(), "group docker".to_owned()], ..plain };
    let found = report("claude-code", &[], &[powerful]);
    let found = found.findings.iter().find(|finding| finding.code == "agent.can-stop-creel").unwrap();
    assert_eq!(found.severity, Severity::Critical);
    assert!(found.evidence.contains("CAP_SYS_ADMIN, group docker"), "{}", found.evidence);
}

#[test]
fn the_strongest_place_wins_and_says_where() {
    let files = [
        file("managed", "/etc/claude-code/managed-settings.json", None, r#"{"permissions":{"defaultMode":"plan"}}"#),
        file("user", "/home/ada/.claude/settings.json", None, r#"{"permissions":{"defaultMode":"bypassPermissions"}}"#),
    ];
    let found = report("claude-code", &files, &[]);
    assert_eq!(found.approval.mode, ApprovalMode::ReadOnly);
    assert_eq!(found.approval.declared, "permissions.defaultMode = plan");
    assert_eq!(found.approval.origin.to_string(), "/etc/claude-code/managed-settings.json");
    assert!(!has(&found, "agent.auto-approve"));
    // A project speaks for what runs in it only.
    let project = r#"{"permissions":{"defaultMode":"acceptEdits"}}"#;
    let files = [file("project", "/p/.claude/settings.json", Some("/p"), project)];
    let inside = report("claude-code", &files, &[process(7, &["claude"], "/p/sub"), process(8, &["claude"], "/pp")]);
    assert_eq!(inside.approval.mode, ApprovalMode::Ask);
    assert_eq!(inside.running[0].approval.mode, ApprovalMode::Edits);
    assert_eq!(inside.running[1].approval.mode, ApprovalMode::Ask);
}

#[test]
fn variables_and_helpers() {
    let mut copilot = process(7, &["copilot"], "/p");
    copilot.variables.insert("COPILOT_ALLOW_ALL".into(), "true".into());
    let found = report("copilot-cli", &[], &[copilot]);
    assert_eq!(found.running[0].approval.origin, Origin::Variable { name: "COPILOT_ALLOW_ALL".into() });
    assert!(has(&found, "agent.bypass-flag"));
    assert!(report("copilot-cli", &[], &[process(7, &["copilot", "--version"], "/")]).running.is_empty());
    let mut child = process(8, &["codex", "--yolo"], "/p");
    child.ppid = 7;
    let found = report("codex", &[], &[process(7, &["node", "codex.js"], "/p"), child]);
    assert_eq!(found.running.len(), 1);
    assert_eq!(found.running[0].approval.mode, ApprovalMode::Bypass);
    let mut claude = process(7, &["claude"], "/p");
    claude.variables.insert("CLAUDE_CODE_SHELL_PREFIX".into(), "/tmp/x".into());
    assert!(has(&report("claude-code", &[], &[claude]), "agent.environment"));
}

#[test]
fn policy_that_does_not_hold() {
    let managed = |text: &str| file("managed", "/etc/claude-code/managed-settings.json", None, text);
    let forbids = managed(r#"{"permissions":{"disableBypassPermissionsMode":"disable"}}"#);
    let bypassing = process(7, &["claude", "--dangerously-skip-permissions"], "/");
    assert!(has(&report("claude-code", std::slice::from_ref(&forbids), &[bypassing]), "agent.policy-not-effective"));
    assert!(!has(&report("claude-code", &[forbids], &[process(7, &["claude"], "/")]), "agent.policy-not-effective"));
    let mut owned = managed("{}");
    owned.owner = 1000;
    assert!(has(&report("claude-code", &[owned], &[]), "agent.policy-not-effective"));
    let requirements = |text: &str| file("managed", "/etc/codex/requirements.toml", None, text);
    let hooks = "[[hooks.PreToolUse]]\n[[hooks.PreToolUse.hooks]]\ncommand = \"/x\"\n";
    assert!(has(&report("codex", &[requirements(hooks)], &[]), "agent.policy-not-effective"));
    let pinned = format!("[features]\nhooks = true\n{hooks}");
    assert!(!has(&report("codex", &[requirements(&pinned)], &[]), "agent.policy-not-effective"));
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let text = "{\"permissions\":{\"defaultMode\":\"\\u001b[2Jplan\"},\"mcpServers\":{\"\\u001b]0;x\":{\"command\":\"npx\",\"args\":[\"\\u0007\"]}}}";
    let found = report("claude-code", &[file("user", "/home/ada/.claude/settings.json", None, text)], &[]);
    assert_eq!(found.mcp_servers.len(), 1);
    let shown = serde_json::to_string(&found).unwrap();
    assert!(!shown.contains("\\u001b") && !shown.contains("\\u0007"), "{shown}");
}
