//! One text → what its content alone suggests.
//!
//! Commands: dangerous classes ask, those that have no everyday use deny, text that was not understood asks; deleting
//! inside the working folder is everyday work. Other texts: secrets are replaced (`modify`), or stopped where an agent
//! cannot replace them; everything else on a document is told and never blocks alone.

use creel_dialect::tools::{self, Part};
use creel_inspect::{Place, Understood};
use creel_model::{
    Action, CommandClass, Confidence, ContentRole, Effect, Finding, Object, Severity, ToolCall, Verb, Verdict,
};
use serde_json::Value;

use super::{Inspected, Point, Seen, Surroundings};

/// Judges a text.
pub(super) fn text(point: Point, text: &str, around: &Surroundings) -> Inspected {
    match point {
        Point::Command => of_command(&command(text, creel_inspect::guess_shell(text), around, None), around, text),
        Point::ToolCall => tool_call(text, around),
        Point::Prompt => of_content(text, ContentRole::Prompt, Verdict::Deny),
        Point::ToolResult => of_content(text, ContentRole::Result, Verdict::Modify),
        Point::File => of_content(text, ContentRole::Other, Verdict::Modify),
        Point::ToolDescription | Point::Skill => {
            let mut inspected = of_content(text, ContentRole::Other, Verdict::Modify);
            let commands = creel_inspect::text_commands(text, &place(around, None));
            inspected.classes = commands.classes.iter().map(ToString::to_string).collect();
            inspected.findings.extend(commands.findings.into_iter().map(Seen::from));
            inspected
        }
    }
}

/// The answer to input that cannot be judged: closed.
pub(super) fn refused(id: Value, code: &str) -> Inspected {
    let finding = Seen {
        code: code.to_owned(),
        class: "input".to_owned(),
        severity: Severity::High,
        confidence: Confidence::High,
        span: None,
        evidence: String::new(),
    };
    Inspected { id, verdict: Verdict::Deny, parsed: false, classes: Vec::new(), findings: vec![finding] }
}

fn place<'a>(around: &'a Surroundings, cwd: Option<&'a str>) -> Place<'a> {
    Place { cwd: cwd.unwrap_or(&around.cwd), home: &around.home, user: &around.user, variables: &around.variables }
}

fn command(text: &str, shell: creel_inspect::Shell, around: &Surroundings, cwd: Option<&str>) -> Understood {
    creel_inspect::command(text, shell, &place(around, cwd))
}

fn of_command(understood: &Understood, around: &Surroundings, text: &str) -> Inspected {
    let mut findings = understood.findings.clone();
    findings.extend(creel_inspect::content(text, ContentRole::Arguments));
    Inspected {
        id: Value::Null,
        verdict: command_verdict(understood, around),
        parsed: understood.parsed,
        classes: understood.classes.iter().map(ToString::to_string).collect(),
        findings: findings.into_iter().map(Seen::from).collect(),
    }
}

fn command_verdict(understood: &Understood, around: &Surroundings) -> Verdict {
    let strongest = understood.classes.iter().map(|class| class_verdict(*class, understood, around)).max();
    let doubt =
        if understood.opaque || understood.overflow || !understood.parsed { Verdict::Ask } else { Verdict::Allow };
    strongest.unwrap_or(Verdict::Allow).max(doubt)
}

fn class_verdict(class: CommandClass, understood: &Understood, around: &Surroundings) -> Verdict {
    match class {
        CommandClass::ReadOnly | CommandClass::Build | CommandClass::Install | CommandClass::Discovery => {
            Verdict::Allow
        }
        CommandClass::Destructive if only_inside(&understood.effects, &around.cwd) => Verdict::Allow,
        CommandClass::Exfiltration | CommandClass::DefenseEvasion | CommandClass::InfrastructureDrop => Verdict::Deny,
        CommandClass::Destructive
        | CommandClass::CredentialAccess
        | CommandClass::Persistence
        | CommandClass::Privilege
        | CommandClass::Obfuscated
        | CommandClass::HistoryRewrite
        | CommandClass::DatabaseDrop => Verdict::Ask,
    }
}

/// Whether everything that is deleted lies inside the working folder and is known: a build's own leavings.
fn only_inside(effects: &[Effect], cwd: &str) -> bool {
    let mut deletions = effects.iter().filter(|effect| matches!(effect.verb, Verb::Delete | Verb::Rename)).peekable();
    let inside = |effect: &Effect| match &effect.object {
        Object::Path { path, .. } => {
            let below = path.strip_prefix(cwd).and_then(|rest| rest.strip_prefix('/'));
            !effect.dynamic && !effect.elevated && below.is_some_and(|rest| !rest.is_empty() && rest != ".git")
        }
        _ => false,
    };
    cwd.len() > 1 && deletions.peek().is_some() && deletions.all(inside)
}

fn of_content(text: &str, role: ContentRole, secrets: Verdict) -> Inspected {
    let findings = creel_inspect::content(text, role);
    Inspected {
        id: Value::Null,
        verdict: content_verdict(&findings, secrets),
        parsed: true,
        classes: Vec::new(),
        findings: findings.into_iter().map(Seen::from).collect(),
    }
}

fn content_verdict(findings: &[Finding], secrets: Verdict) -> Verdict {
    let secret = findings.iter().any(|finding| finding.class == "secret" && finding.confidence >= Confidence::Medium);
    if secret { secrets } else { Verdict::Allow }
}

/// `{"tool_name", "tool_input"}` in the words of the agents; every command and text in it.
fn tool_call(text: &str, around: &Surroundings) -> Inspected {
    let Some(action) = action(text, around) else { return refused(Value::Null, "input.not-a-tool-call") };
    let mut whole = Inspected {
        id: Value::Null,
        verdict: Verdict::Allow,
        parsed: true,
        classes: Vec::new(),
        findings: creel_inspect::content(text, ContentRole::Arguments).into_iter().map(Seen::from).collect(),
    };
    for part in tools::parts(&action, &around.home) {
        match part {
            Part::Effect(effect) => {
                whole.classes.extend(effect.classes.iter().map(ToString::to_string));
            }
            Part::Command { text, shell, workdir } => {
                let shell = match shell {
                    tools::Shell::Posix => creel_inspect::Shell::Posix,
                    tools::Shell::PowerShell => creel_inspect::Shell::PowerShell,
                };
                let understood = command(&text, shell, around, workdir.as_deref());
                whole.verdict = whole.verdict.max(command_verdict(&understood, around));
                whole.parsed &= understood.parsed;
                whole.classes.extend(understood.classes.iter().map(ToString::to_string));
                // Spans count in the command, which is not the text that was given.
                whole.findings.extend(understood.findings.into_iter().map(|f| Seen::from(Finding { span: None, ..f })));
            }
            Part::Unknown => {
                whole.parsed = false;
                whole.verdict = whole.verdict.max(Verdict::Ask);
            }
        }
    }
    whole.classes.sort_unstable();
    whole.classes.dedup();
    whole
}

fn action(text: &str, around: &Surroundings) -> Option<Action> {
    let value: Value = serde_json::from_str(text).ok()?;
    let field = |names: [&str; 3]| names.into_iter().find_map(|name| value.get(name)).cloned();
    let tool = field(["tool_name", "tool", "name"])?.as_str()?.to_owned();
    let input = field(["tool_input", "input", "arguments"])?;
    let mcp = tool.strip_prefix("mcp__").and_then(|rest| rest.split_once("__"));
    let mcp = mcp.map(|(server, tool)| (server.to_owned(), tool.to_owned()));
    let codex = ["apply_patch", "exec_command", "shell", "local_shell", "view_image"].contains(&tool.as_str());
    let kind = if codex { creel_dialect::kinds::CODEX } else { creel_dialect::kinds::CLAUDE_CODE };
    Some(Action {
        point: creel_model::Point::ToolCall,
        kind: kind.to_owned(),
        event: "PreToolUse".to_owned(),
        conversation: String::new(),
        turn: None,
        subagent: None,
        cwd: Some(around.cwd.clone()),
        permission_mode: None,
        call: Some(ToolCall { tool, input, call_id: None, mcp }),
        result: None,
        failed: false,
        blocking: true,
        contents: Vec::new(),
        session: None,
        facts: serde_json::Map::new(),
    })
}
