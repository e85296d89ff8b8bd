//! Records, agents and questions as lines for people; the same words on the `up` screen, in `status` and in `log`.

use creel_model::record::Envelope;
use creel_model::{ApprovalMode, Effect, RecordKind, Verdict};
use creel_wire::control::{AgentView, Governed, Problem, QuestionView, RecordView};

use crate::out::Look;
use crate::text::{Column, clean, cut, cut_middle, pad, width, wrap};
use crate::{clock, text};

/// A record's verdict in a word or two: what happened, or what audit rules would have done.
pub(crate) fn verdict_word(record: &RecordView) -> String {
    let envelope = &record.envelope;
    match (envelope.kind, envelope.verdict) {
        (_, Some(verdict @ (Verdict::Ask | Verdict::Deny))) => verdict.to_string(),
        (_, Some(verdict)) => match would_have(record) {
            Some(would) => format!("would {would}"),
            None => verdict.to_string(),
        },
        (RecordKind::Decision | RecordKind::Event, None) => "-".to_owned(),
        (kind, None) => kind.to_string(),
    }
}

/// The strongest verdict of audit rules, where they would have asked or denied.
pub(crate) fn would_have(record: &RecordView) -> Option<Verdict> {
    if record.envelope.audit_rules.is_empty() {
        return None;
    }
    let decision = record.detail.as_ref().and_then(|detail| detail.decision.as_ref());
    let strongest = decision
        .into_iter()
        .flat_map(|d| &d.audit)
        .filter(|rule| rule.excepted_by.is_none() && rule.approved_by.is_none())
        .map(|rule| rule.effect)
        .max();
    Some(strongest.unwrap_or(Verdict::Ask)).filter(|verdict| *verdict >= Verdict::Ask)
}

/// What a record is about, in one line.
pub(crate) fn subject_of(record: &RecordView) -> String {
    let envelope = &record.envelope;
    if let Some(detail) = &record.detail {
        if !detail.excerpt.is_empty() {
            // The tool's name stands beside it: which argument it is goes without saying.
            let keys = ["command: ", "file_path: ", "url: ", "prompt: ", "path: ", "pattern: "];
            let excerpt = keys.iter().find_map(|key| detail.excerpt.strip_prefix(key)).unwrap_or(&detail.excerpt);
            return clean(excerpt);
        }
        if let Some(effect) = detail.effects.first() {
            return effect_line(effect);
        }
        if let Some(message) = detail.facts.get("message").and_then(serde_json::Value::as_str) {
            return clean(message);
        }
    }
    if let Some(code) = &envelope.code {
        return clean(code);
    }
    if record.erased { "(erased)".to_owned() } else { clean(envelope.event.as_deref().unwrap_or("-")) }
}

/// Rules behind a record: those that acted, else those that would have.
pub(crate) fn rules_of(envelope: &Envelope) -> String {
    let rules = if envelope.rules.is_empty() { &envelope.audit_rules } else { &envelope.rules };
    clean(&rules.join(", "))
}

/// An effect: `delete /home/ada (recursive, parsed)`.
pub(crate) fn effect_line(effect: &Effect) -> String {
    let mut notes: Vec<&str> = Vec::new();
    for (flag, word) in [
        (effect.recursive, "whole tree"),
        (effect.dynamic, "not fully known"),
        (effect.elevated, "with higher rights"),
        (effect.remote, "elsewhere"),
    ] {
        if flag {
            notes.push(word);
        }
    }
    notes.push(effect.certainty.as_str());
    notes.extend(effect.zones.iter().map(creel_model::Zone::as_str));
    if let creel_model::Object::Text { bytes, .. } = &effect.object {
        return format!("{} of {}", effect.verb, text::bytes(*bytes));
    }
    clean(&format!("{} {} ({})", effect.verb, effect.object, notes.join(", ")))
}

/// One record on one line of at most `look.width` columns.
pub(crate) fn record_line(record: &RecordView, look: Look, with_number: bool) -> String {
    let envelope = &record.envelope;
    let number = if with_number { format!("{:>7}  ", record.sequence) } else { String::new() };
    let agent = envelope.subject.as_ref().map_or("creel", |subject| subject.kind.as_str());
    let tool = envelope.tool.as_deref().or(envelope.event.as_deref()).unwrap_or("-");
    let verdict = verdict_word(record);
    let head = format!("{number}{}  {}  ", clock::clock(envelope.at.unix_ns), pad(&verdict, 10));
    let middle = if look.width >= 100 {
        format!("{}  {}  ", pad(&cut(&clean(agent), 12), 12), pad(&cut(&clean(tool), 14), 14))
    } else {
        format!("{}  ", pad(&cut(&clean(tool), 10), 10))
    };
    let rules = rules_of(envelope);
    let room = look.width.saturating_sub(width(&head) + width(&middle));
    let what = subject_of(record);
    // What was asked for comes before the rules' names, which get what it leaves and at least a third.
    let left = room.saturating_sub(width(&what)).max(room / 3);
    let rules_room = if rules.is_empty() { 0 } else { (width(&rules) + 2).min(left) };
    let what = cut_middle(&what, room.saturating_sub(rules_room));
    let tail = if rules_room > 4 { format!("  {}", cut(&rules, rules_room - 2)) } else { String::new() };
    let strong = matches!(envelope.verdict, Some(Verdict::Ask | Verdict::Deny));
    let line = format!("{head}{middle}{what}{tail}");
    if strong { look.bold(&line) } else { line }
}

/// How an agent approves its own actions, in words for people.
pub(crate) const fn approval_words(mode: ApprovalMode) -> &'static str {
    match mode {
        ApprovalMode::ReadOnly => "changes nothing",
        ApprovalMode::Ask => "asks first",
        ApprovalMode::Edits => "edits alone, asks for commands",
        ApprovalMode::Auto => "decides alone",
        ApprovalMode::Bypass => "asks for nothing",
        ApprovalMode::Unknown => "not known",
    }
}

/// Agents as a table.
pub(crate) fn agents(agents: &[AgentView], look: Look) -> Vec<String> {
    let rows: Vec<Vec<String>> = agents
        .iter()
        .map(|agent| {
            vec![
                clean(&agent.name),
                clean(agent.version.as_deref().unwrap_or("-")),
                clean(&agent.account),
                match agent.runs.len() {
                    0 if agent.installed => "installed".to_owned(),
                    0 => "configured".to_owned(),
                    n => format!("{n} running"),
                },
                approval_words(agent.approval_mode).to_owned(),
                governed(agent),
            ]
        })
        .collect();
    // Names and states are whole or not there; prose may be cut.
    let whole = |head, worth| Column { head, least: usize::MAX, worth };
    let columns = [
        whole("AGENT", 9),
        whole("VERSION", 1),
        whole("USER", 2),
        whole("STATE", 4),
        Column { head: "APPROVALS", least: 14, worth: 3 },
        Column { head: "GOVERNED", least: 8, worth: 5 },
    ];
    text::table_by_worth(&columns, &rows, look.width)
}

/// Whether an agent is governed, and what to do if not.
fn governed(agent: &AgentView) -> String {
    match agent.governed {
        Governed::Yes => "yes".to_owned(),
        Governed::Partly => format!("partly: {}", clean(&agent.governed_because)),
        Governed::No => "no".to_owned(),
        Governed::Unsupported => "not yet possible".to_owned(),
    }
}

/// Everything about one agent, for `creel agents` with few of them and for `scan`.
pub(crate) fn agent_details(agent: &AgentView, look: Look) -> Vec<String> {
    let mut lines =
        vec![look.bold(&cut(
            &format!("{} {}", clean(&agent.name), clean(agent.version.as_deref().unwrap_or(""))),
            look.width,
        ))];
    let mut fact = |name: &str, value: &str| {
        let line = format!("  {} {}", pad(name, 12), clean(value));
        lines.extend(wrap_kept(&line, look.width, 15));
    };
    if let Some(program) = &agent.program {
        fact("program", program);
    }
    fact("account", &format!("{} ({})", agent.account, agent.uid));
    let origin = if agent.approval_origin.is_empty() { "not stated" } else { &agent.approval_origin };
    fact("approvals", &format!("{} ({origin})", approval_words(agent.approval_mode)));
    let because =
        if agent.governed_because.is_empty() { String::new() } else { format!(": {}", agent.governed_because) };
    fact("governed", &format!("{}{because}", agent.governed.as_str()));
    for run in &agent.runs {
        let flags =
            if run.bypass_flags.is_empty() { String::new() } else { format!(", {}", run.bypass_flags.join(" ")) };
        let cwd = run.cwd.as_deref().map_or(String::new(), |cwd| format!(" in {cwd}"));
        fact("running", &format!("pid {}{cwd}{flags}", run.pid));
    }
    for server in &agent.mcp_servers {
        fact("mcp server", &format!("{}: {}", server.name, server.target));
    }
    for hook in &agent.hooks {
        let whose = if hook.ours { " (creel)" } else { "" };
        fact("hook", &format!("{}: {}{whose}", hook.event, hook.command));
    }
    for finding in &agent.findings {
        let evidence = if finding.evidence.is_empty() { String::new() } else { format!(": {}", finding.evidence) };
        fact(finding.severity.as_str(), &format!("{}{evidence}", finding.code));
        if !finding.remedy.is_empty() {
            fact("", &format!("→ {}", finding.remedy));
        }
    }
    lines
}

/// Wraps a line whose first part is set in columns: keeps the leading blanks of the first line.
pub(crate) fn wrap_kept(line: &str, columns: usize, indent: usize) -> Vec<String> {
    if width(line) <= columns {
        return vec![line.trim_end().to_owned()];
    }
    if indent + 16 > columns {
        // Too narrow for a column of its own.
        let lead = line.len() - line.trim_start().len();
        let lines = wrap(line, columns.saturating_sub(lead).max(16), 2);
        return lines.into_iter().map(|line| format!("{}{line}", " ".repeat(lead))).collect();
    }
    let head: String = line.chars().take(indent).collect();
    let rest: String = line.chars().skip(indent).collect();
    let mut lines = wrap(&rest, columns.saturating_sub(indent).max(16), 0);
    for (index, line) in lines.iter_mut().enumerate() {
        let lead = if index == 0 { head.clone() } else { " ".repeat(indent) };
        *line = format!("{lead}{line}");
    }
    lines
}

/// A waiting question with the way to answer it.
pub(crate) fn question(question: &QuestionView, look: Look, now_unix_ns: i64) -> Vec<String> {
    let room = look.width.max(40);
    let tool = clean(question.tool.as_deref().unwrap_or("an action"));
    let left = clock::span(question.expires_unix_ns - now_unix_ns);
    let head = format!("  {}  {}  {tool}", question.severity, clean(&question.kind));
    let tail = format!("lapses in {left}");
    let gap = room.saturating_sub(width(&head) + width(&tail)).max(2);
    let mut lines = vec![look.bold(&cut(&format!("{head}{}{tail}", " ".repeat(gap)), room))];
    if !question.excerpt.is_empty() {
        lines.push(format!("    {}", cut_middle(&clean(&question.excerpt), room - 4)));
    }
    let rules: Vec<&str> = question.rules.iter().map(|rule| rule.rule.as_str()).collect();
    let reason = format!("    {}", reason_with_rules(&question.reason, &rules));
    lines.extend(wrap_kept(&reason, room, 4));
    if question.asked_by_agent {
        lines.push("    the agent asks in its own window; creel records the answer".to_owned());
    } else {
        let code = question.code.as_ref().map_or(String::new(), |code| format!(" --code {}", clean(code)));
        let id = clean(&question.id);
        lines.extend(wrap_kept(&format!("    creel approve {id}{code}   or   creel deny {id}"), room, 4));
    }
    lines
}

/// A reason, and those rules that it does not name itself.
pub(crate) fn reason_with_rules(reason: &str, rules: &[&str]) -> String {
    let missing: Vec<&str> = rules.iter().copied().filter(|rule| !reason.contains(rule)).collect();
    if missing.is_empty() { clean(reason) } else { clean(&format!("{reason} ({})", missing.join(", "))) }
}

/// A problem with its hint.
pub(crate) fn problem(problem: &Problem, look: Look) -> Vec<String> {
    let mut lines =
        wrap_kept(&format!("  {}  {}", pad(problem.severity.as_str(), 8), clean(&problem.text)), look.width, 12);
    if !problem.hint.is_empty() {
        lines.extend(wrap_kept(&format!("            {}", clean(&problem.hint)), look.width, 12));
    }
    lines
}

#[cfg(test)]
pub(crate) mod tests {
    use creel_model::decision::MatchedRule;
    use creel_model::record::{Detail, EVENT_SCHEMA, Subject};
    use creel_model::{ActionId, Decision, Moment, Point, RunId, Severity};

    use super::*;

    pub(crate) const NOW: i64 = 1_795_289_289_000_000_000;

    /// A decision as the daemon shows it, for tests of all renderings.
    pub(crate) fn record(sequence: u64, verdict: Verdict, excerpt: &str, rule: &str) -> RecordView {
        let matched = MatchedRule {
            rule: rule.to_owned(),
            effect: Verdict::Deny,
            severity: Severity::High,
            reason: "files outside the workspace would be deleted".to_owned(),
            effect_index: 0,
            excepted_by: None,
            approved_by: None,
        };
        let acted = verdict >= Verdict::Ask;
        let decision = Decision {
            verdict,
            rules: if acted { vec![matched.clone()] } else { Vec::new() },
            audit: if acted || rule.is_empty() { Vec::new() } else { vec![matched] },
            reason: String::new(),
            modifications: Vec::new(),
            approval: None,
        };
        RecordView {
            sequence,
            envelope: Envelope {
                schema: EVENT_SCHEMA.to_owned(),
                kind: RecordKind::Decision,
                at: Moment { unix_ns: NOW, boot_ns: 1 },
                boot_id: "boot".to_owned(),
                action_id: ActionId::from_random([7; 16]),
                trace_id: None,
                causes: Vec::new(),
                owner: 1000,
                subject: Some(Subject {
                    kind: "claude-code".to_owned(),
                    run: RunId("r-1".to_owned()),
                    uid: 1000,
                    pid: 4711,
                    conversation: "c".to_owned(),
                    workspace: Some("/home/ada/site".to_owned()),
                }),
                point: Some(Point::ToolCall),
                event: Some("PreToolUse".to_owned()),
                tool: Some("Bash".to_owned()),
                verdict: Some(verdict),
                rules: decision.rules.iter().map(|r| r.rule.clone()).collect(),
                audit_rules: decision.audit.iter().map(|r| r.rule.clone()).collect(),
                code: None,
                bundle: None,
                bundle_trust: None,
                engine: "0.1.0".to_owned(),
                detectors: None,
                payload_bytes: 100,
                took_ns: 85_000,
                effects: 1,
            },
            detail: Some(Detail { excerpt: excerpt.to_owned(), decision: Some(decision), ..Detail::default() }),
            erased: false,
        }
    }

    fn look(width: usize) -> Look {
        Look { width, decorated: false }
    }

    #[test]
    fn a_record_on_one_line() {
        let denied = record(12, Verdict::Deny, "rm -rf ~", "destructive-outside");
        assert_eq!(
            record_line(&denied, look(120), true),
            "     12  19:28:09Z  deny        claude-code   Bash            rm -rf ~  destructive-outside"
        );
        assert_eq!(
            record_line(&denied, look(80), false),
            "19:28:09Z  deny        Bash        rm -rf ~  destructive-outside"
        );
        let audited = record(13, Verdict::Allow, "rm -rf ~", "destructive-outside");
        assert!(record_line(&audited, look(80), false).contains("would deny"));
        let plain = record(14, Verdict::Allow, "cargo test", "");
        assert_eq!(record_line(&plain, look(60), false), "19:28:09Z  allow       Bash        cargo test");
    }

    #[test]
    fn no_record_is_wider_than_the_screen_or_draws_on_it() {
        let hostile = record(1, Verdict::Deny, &"echo \u{1b}[2J漢字 ".repeat(40), "a-rule-with-a-rather-long-name");
        for columns in [60, 80, 100, 120] {
            let line = record_line(&hostile, look(columns), true);
            assert!(width(&line) <= columns, "{columns}: {line}");
            assert!(!line.contains('\u{1b}'));
        }
    }

    #[test]
    fn agents_can_be_told_apart_on_a_narrow_screen() {
        let agent = |name: &str, version: &str| AgentView {
            kind: String::new(),
            name: name.to_owned(),
            version: Some(version.to_owned()),
            account: "magdalena".to_owned(),
            uid: 1000,
            program: None,
            installed: true,
            configured: true,
            runs: Vec::new(),
            approval_mode: ApprovalMode::Edits,
            approval_origin: String::new(),
            governed: Governed::Partly,
            governed_because: "its hook was not proved since creel started".to_owned(),
            mcp_servers: Vec::new(),
            hooks: Vec::new(),
            files: Vec::new(),
            findings: Vec::new(),
        };
        let both = [agent("GitHub Copilot CLI", "1.0.12-preview.4"), agent("Claude Code", "2.1.204")];
        for columns in [40, 60, 80, 120] {
            let lines = agents(&both, look(columns));
            assert!(lines.iter().all(|line| width(line) <= columns), "{columns}: {lines:#?}");
            let text = lines.join("\n");
            for name in ["GitHub Copilot CLI", "Claude Code", "partly"] {
                assert!(text.contains(name), "{columns}: {text}");
            }
            assert_eq!(text.contains("magdalena"), columns > 60, "{text}");
            assert_eq!(text.contains("edits alone"), columns >= 60, "{text}");
        }
    }

    #[test]
    fn an_erased_detail_is_said_to_be() {
        let mut erased = record(1, Verdict::Deny, "secret", "rule");
        erased.detail = None;
        erased.erased = true;
        assert!(record_line(&erased, look(80), false).contains("(erased)"));
    }
}
