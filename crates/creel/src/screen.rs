//! The `up` screen: the daemon's state and events → lines of a given width and height.
//!
//! Calm: what needs a person comes first, then agents, protections with their limits, decisions, quietness. Nothing is
//! said by colour. Drawing is elsewhere ([`crate::up`]); this is plain computation, so it is tested at several widths.

use std::collections::VecDeque;

use creel_model::{Mode, Severity, Verdict};
use creel_wire::control::{Live, Protection, ProtectionState, Quietness, RecordView, StatusReport};

use crate::out::Look;
use crate::text::{clean, count, cut, pad, thousands, width};
use crate::{clock, show};

/// Decisions that are kept for redrawing.
const RECENT_MAX: usize = 100;
/// Codes that are kept for showing.
const CODES_MAX: usize = 8;

/// What the screen knows.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    status: Option<StatusReport>,
    recent: VecDeque<RecordView>,
    codes: VecDeque<(String, String, i64)>,
    missed: u64,
    /// The last line: how to leave.
    footer: String,
}

impl Screen {
    /// An empty screen with that last line.
    pub(crate) fn with_footer(footer: &str) -> Self {
        Self { footer: footer.to_owned(), ..Self::default() }
    }

    /// Takes an event in.
    pub(crate) fn apply(&mut self, live: Live) {
        match live {
            Live::Status(status) => self.status = Some(*status),
            Live::Record(record) => {
                if record.envelope.verdict.is_some() || record.envelope.code.is_some() {
                    self.recent.push_front(*record);
                    self.recent.truncate(RECENT_MAX);
                }
            }
            Live::Question(question) => {
                if question.state != creel_wire::control::QuestionState::Pending {
                    // Its code is of no use any more.
                    let purpose = creel_wire::control::Purpose::Approval { id: question.id.clone() }.to_string();
                    self.codes.retain(|(known, _, _)| *known != purpose);
                }
                if let Some(status) = &mut self.status {
                    status.questions.retain(|known| known.id != question.id);
                    if question.state == creel_wire::control::QuestionState::Pending {
                        status.questions.push(*question);
                    }
                }
            }
            Live::Confirmation { purpose, code, expires_unix_ns } => {
                self.codes.push_front((purpose.to_string(), code, expires_unix_ns));
                self.codes.truncate(CODES_MAX);
            }
            Live::Missed { events } => self.missed += events,
            Live::Stopping { .. } => {}
        }
    }

    /// The whole screen, at most `height` lines.
    pub(crate) fn lines(&self, look: Look, height: usize, now_unix_ns: i64) -> Vec<String> {
        let Some(status) = &self.status else { return vec!["creel starts …".to_owned()] };
        let mut top = vec![look.bold(&headline(status, look, now_unix_ns))];
        top.push(String::new());
        top.extend(self.needs_me(status, look, now_unix_ns));
        top.push(String::new());
        top.extend(agents(status, look));
        let quiet = quietness(&status.quietness, look);
        let bottom = quiet.len() + 3; // an empty line, and the footer with one before it
        // Protections give up their limits' lines first, then the oldest decisions go.
        let room = height.saturating_sub(top.len() + bottom);
        let mut middle = vec![String::new()];
        middle.extend(protections(status, look, now_unix_ns, room.saturating_sub(8)));
        top.extend(middle);
        let room = height.saturating_sub(top.len() + bottom);
        if room >= 3 {
            top.push(String::new());
            top.push(look.dim("decisions"));
            top.extend(self.decisions(look, room - 2));
        }
        top.push(String::new());
        top.extend(quiet);
        top.truncate(height.saturating_sub(2));
        top.push(String::new());
        top.push(look.dim(&cut(&self.footer, look.width)));
        top.truncate(height);
        top
    }

    fn needs_me(&self, status: &StatusReport, look: Look, now: i64) -> Vec<String> {
        let mut lines = needs_me(status, look, now);
        for (purpose, code, expires) in self.codes.iter().filter(|(_, _, expires)| *expires > now) {
            let left = clock::span(expires - now);
            let line = format!("  code for `creel {}`: {} (for {left})", clean(purpose), clean(code));
            lines.insert(1, look.bold(&cut(&line, look.width)));
        }
        if self.missed > 0 {
            lines.push(format!("  {} not shown here; `creel log` has them", count(self.missed, "event")));
        }
        lines
    }

    fn decisions(&self, look: Look, rows: usize) -> Vec<String> {
        if self.recent.is_empty() {
            return vec!["  none yet".to_owned()];
        }
        let inner = Look { width: look.width.saturating_sub(2), ..look };
        self.recent.iter().take(rows).map(|record| format!("  {}", show::record_line(record, inner, false))).collect()
    }
}

/// The state as `creel status` prints it: the same sections, all of them, without limits of height.
pub(crate) fn report(status: &StatusReport, look: Look) -> Vec<String> {
    let now = status.now_unix_ns;
    let mut lines = vec![look.bold(&headline(status, look, now)), String::new()];
    lines.extend(needs_me(status, look, now));
    lines.push(String::new());
    lines.extend(agents(status, look));
    lines.push(String::new());
    lines.extend(protections(status, look, now, usize::MAX));
    lines.push(String::new());
    lines.extend(journal(status, look, now));
    lines.push(String::new());
    lines.extend(quietness(&status.quietness, look));
    lines
}

fn headline(status: &StatusReport, look: Look, now: i64) -> String {
    let policy = &status.policy;
    let rules = match (policy.blocking, policy.audit) {
        (0, 0) => "no rules".to_owned(),
        (0, _) => "rules only watch (audit)".to_owned(),
        (_, 0) => "rules enforced".to_owned(),
        (blocking, audit) => format!("{blocking} of {} rules enforced", blocking + audit),
    };
    let left = format!(
        "creel {} · {} mode · {rules} · up {}",
        clean(&status.version),
        status.mode,
        clock::span(now - status.started_unix_ns)
    );
    let right = clock::clock(now);
    let gap = look.width.saturating_sub(width(&left) + width(&right));
    if gap >= 2 { format!("{left}{}{right}", " ".repeat(gap)) } else { cut(&left, look.width) }
}

fn needs_me(status: &StatusReport, look: Look, now: i64) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(window) = &status.break_glass {
        let left = clock::span(window.until_unix_ns - now);
        let line = format!("  break-glass is open for {left}: nothing is stopped ({})", clean(&window.reason));
        lines.extend(show::wrap_kept(&line, look.width, 2));
        lines.push("  end it: creel break-glass --end".to_owned());
    }
    for question in &status.questions {
        lines.extend(show::question(question, look, now));
    }
    for problem in status.problems.iter().filter(|problem| problem.severity >= Severity::Medium) {
        lines.extend(show::problem(problem, look));
    }
    if lines.is_empty() {
        return vec![format!("{}  nothing", look.dim("needs you"))];
    }
    lines.insert(0, look.dim("needs you"));
    lines
}

fn agents(status: &StatusReport, look: Look) -> Vec<String> {
    if status.agents.is_empty() {
        let words = cut("none found; `creel demo` shows creel at work", look.width.saturating_sub(8));
        return vec![format!("{}  {words}", look.dim("agents"))];
    }
    let mut lines = vec![look.dim("agents")];
    let inner = Look { width: look.width.saturating_sub(2), ..look };
    lines.extend(show::agents(&status.agents, inner).into_iter().skip(1).map(|line| format!("  {line}")));
    for agent in &status.agents {
        if agent.governed == creel_wire::control::Governed::No {
            let line = format!("  {}: `creel guard install {}` governs it", clean(&agent.name), clean(&agent.kind));
            lines.push(cut(&line, look.width));
        }
    }
    lines
}

fn protections(status: &StatusReport, look: Look, now: i64, rows: usize) -> Vec<String> {
    let mut lines = vec![look.dim("protections")];
    let name_columns = status.protections.iter().map(|p| width(&clean(&p.name))).max().unwrap_or(0).min(look.width / 3);
    for protection in &status.protections {
        lines.extend(protection_lines(protection, look, now, name_columns));
    }
    let mut limits: Vec<&String> = Vec::new();
    for limit in status.protections.iter().flat_map(|protection| &protection.limits) {
        if !limits.contains(&limit) {
            limits.push(limit);
        }
    }
    for limit in limits {
        let wrapped = show::wrap_kept(&format!("  limit: {}", clean(limit)), look.width, 9);
        if lines.len() + wrapped.len() > rows.max(status.protections.len() + 3) {
            lines.push("  more limits: `creel status`".to_owned());
            break;
        }
        lines.extend(wrapped);
    }
    if status.protections.is_empty() && status.mode == Mode::User {
        lines.push("  none is set up".to_owned());
    }
    lines
}

fn protection_lines(protection: &Protection, look: Look, now: i64, name_columns: usize) -> Vec<String> {
    let shown = match (protection.state, protection.shown_unix_ns) {
        (ProtectionState::Effective | ProtectionState::NotEffective, Some(at)) => {
            format!(", shown {} ago", clock::span(now - at))
        }
        _ => String::new(),
    };
    let name = pad(&cut(&clean(&protection.name), name_columns), name_columns);
    let line = format!("  {name}  {}  {}{shown}", pad(protection.state.as_str(), 13), clean(&protection.detail));
    show::wrap_kept(line.trim_end(), look.width, name_columns + 19)
}

fn journal(status: &StatusReport, look: Look, now: i64) -> Vec<String> {
    let journal = &status.journal;
    let anchored = match (&journal.anchor, journal.anchored_unix_ns) {
        (Some(anchor), Some(at)) => format!("anchored in {} {} ago", clean(anchor), clock::span(now - at)),
        (Some(anchor), None) => format!("anchored in {}", clean(anchor)),
        (None, _) => "not anchored outside".to_owned(),
    };
    let mut lines = vec![look.dim("record")];
    let line = format!(
        "  {} ({}) in {}, {} sealed, {anchored}",
        count(journal.records, "record"),
        crate::text::bytes(journal.bytes),
        clean(&journal.folder),
        thousands(journal.checkpoint_records),
    );
    lines.extend(show::wrap_kept(&line, look.width, 2));
    if journal.reserve_in_use {
        lines.push("  the disk is full: the reserve is in use, questions become denials".to_owned());
    }
    if journal.lost > 0 {
        lines.push(format!("  {} lost", count(journal.lost, "record")));
    }
    lines
}

fn quietness(quiet: &Quietness, look: Look) -> Vec<String> {
    let mut lines = vec![look.dim(&format!("quietness, last {}", clock::span(seconds_ns(quiet.window_seconds))))];
    let work = clock::span(seconds_ns(quiet.agent_seconds));
    let line = format!(
        "  {} in {work} of agents at work · {} ({}/h) · {} ({}/h) · waited {}",
        count(quiet.decisions, "decision"),
        count(quiet.asks, "question"),
        per_hour(quiet.asks, quiet.agent_seconds),
        count(quiet.denials, "denial"),
        per_hour(quiet.denials, quiet.agent_seconds),
        clock::span(i64::try_from(quiet.waited_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000)),
    );
    lines.extend(show::wrap_kept(&line, look.width, 2));
    if quiet.took_p99_ns > 0 {
        let line = format!(
            "  a decision takes {} (99 of 100 within {})",
            clock::short(quiet.took_p50_ns),
            clock::short(quiet.took_p99_ns)
        );
        lines.push(cut(&line, look.width));
    }
    if quiet.would_ask + quiet.would_deny > 0 {
        let line = format!(
            "  enforced, the rules would have made {} and {}: `creel policy report`",
            count(quiet.would_ask, "question"),
            count(quiet.would_deny, "denial")
        );
        lines.extend(show::wrap_kept(&line, look.width, 2));
    }
    if let Some(rule) = quiet.rules.first().filter(|rule| rule.asks + rule.denials > 0) {
        let line = format!(
            "  most from `{}`: {}, {}, waited {}",
            clean(&rule.rule),
            count(rule.asks, "question"),
            count(rule.denials, "denial"),
            clock::span(i64::try_from(rule.waited_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000)),
        );
        lines.push(cut(&line, look.width));
    }
    lines
}

fn seconds_ns(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000)
}

/// `0.7` of something per agent-hour; `-` when agents were at work for less than a minute, which says nothing.
pub(crate) fn per_hour(number: u64, agent_seconds: u64) -> String {
    if agent_seconds < 60 {
        return "-".to_owned();
    }
    let tenths = number.saturating_mul(36_000) / agent_seconds;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// One event as a plain line, where there is no screen to draw on.
pub(crate) fn plain(live: &Live, look: Look, now_unix_ns: i64) -> Vec<String> {
    match live {
        Live::Status(_) => Vec::new(),
        Live::Record(record) => match record.envelope.verdict {
            Some(Verdict::Allow) if record.envelope.audit_rules.is_empty() => Vec::new(),
            None if record.envelope.code.is_none() => Vec::new(),
            _ => vec![show::record_line(record, look, true)],
        },
        Live::Question(question) if question.state == creel_wire::control::QuestionState::Pending => {
            show::question(question, look, now_unix_ns)
        }
        Live::Question(question) => vec![format!("question {} is {}", clean(&question.id), question.state.as_str())],
        Live::Confirmation { purpose, code, .. } => vec![format!("code for `creel {purpose}`: {}", clean(code))],
        Live::Missed { events } => vec![format!("{} not shown", count(*events, "event"))],
        Live::Stopping { reason } => vec![format!("the daemon stops: {}", clean(reason))],
    }
}

#[cfg(test)]
mod tests {
    use creel_model::{ApprovalMode, Effect, Object, Verb};
    use creel_wire::control::{AgentView, Governed, JournalView, PolicySummary, Problem, QuestionState, QuestionView};

    use super::*;
    use crate::show::tests::{NOW, record};

    const MINUTE: i64 = 60_000_000_000;

    fn look(width: usize) -> Look {
        Look { width, decorated: false }
    }

    fn question() -> QuestionView {
        QuestionView {
            id: "ap-4f2a".to_owned(),
            state: QuestionState::Pending,
            asked_unix_ns: NOW,
            expires_unix_ns: NOW + 4 * MINUTE,
            kind: "claude-code".to_owned(),
            uid: 1000,
            account: "ada".to_owned(),
            run: "r-1".to_owned(),
            pid: 4711,
            workspace: Some("/home/ada/site".to_owned()),
            tool: Some("Bash".to_owned()),
            excerpt: "git push --force origin main".to_owned(),
            reason: "history that others may have would be rewritten".to_owned(),
            severity: Severity::High,
            rules: Vec::new(),
            effects: vec![Effect::new(
                Verb::Send,
                Object::Host { host: "example.org".to_owned(), port: None, url: None },
                creel_model::Certainty::Parsed,
            )],
            code: Some("481 220".to_owned()),
            asked_by_agent: false,
            answered_by: None,
        }
    }

    fn status() -> StatusReport {
        StatusReport {
            version: "0.1.0".to_owned(),
            mode: Mode::User,
            pid: 99,
            account: "ada".to_owned(),
            started_unix_ns: NOW - 3 * MINUTE,
            now_unix_ns: NOW,
            policy: PolicySummary {
                id: "starter".to_owned(),
                version: "1".to_owned(),
                digest: "d".repeat(64),
                trust: "local-unsigned".to_owned(),
                blocking: 0,
                audit: 34,
                off: 0,
                since_unix_ns: NOW,
            },
            protections: vec![
                Protection {
                    name: "hook claude-code".to_owned(),
                    state: ProtectionState::Effective,
                    detail: "a canary was stopped".to_owned(),
                    limits: vec!["stops accidents, not a hostile process of your account".to_owned()],
                    shown_unix_ns: Some(NOW - 2 * MINUTE),
                },
                Protection {
                    name: "rules".to_owned(),
                    state: ProtectionState::Audit,
                    detail: "34 rules watch; `creel policy enforce` turns them on".to_owned(),
                    limits: vec!["stops accidents, not a hostile process of your account".to_owned()],
                    shown_unix_ns: None,
                },
            ],
            agents: vec![AgentView {
                kind: "claude-code".to_owned(),
                name: "Claude Code".to_owned(),
                version: Some("2.1.204".to_owned()),
                account: "ada".to_owned(),
                uid: 1000,
                program: Some("/home/ada/.local/bin/claude".to_owned()),
                installed: true,
                configured: true,
                runs: Vec::new(),
                approval_mode: ApprovalMode::Ask,
                approval_origin: "default".to_owned(),
                governed: Governed::Yes,
                governed_because: String::new(),
                mcp_servers: Vec::new(),
                hooks: Vec::new(),
                files: Vec::new(),
                findings: Vec::new(),
            }],
            questions: vec![question()],
            journal: JournalView { folder: "/home/ada/.local/state/creel".to_owned(), ..JournalView::default() },
            quietness: Quietness {
                window_seconds: 86_400,
                agent_seconds: 10_800,
                decisions: 412,
                asks: 2,
                denials: 1,
                would_ask: 3,
                would_deny: 1,
                waited_ms: 40_000,
                took_p50_ns: 85_000,
                took_p99_ns: 1_200_000,
                rules: Vec::new(),
            },
            break_glass: None,
            problems: vec![Problem {
                severity: Severity::Medium,
                text: "the record is not anchored outside".to_owned(),
                hint: "start journald, or name a socket with `--anchor`".to_owned(),
            }],
        }
    }

    fn screen() -> Screen {
        let mut screen = Screen::with_footer("Ctrl-C stops creel");
        screen.apply(Live::Status(Box::new(status())));
        screen.apply(Live::Record(Box::new(record(1, Verdict::Allow, "cargo test", ""))));
        screen.apply(Live::Record(Box::new(record(2, Verdict::Deny, "rm -rf ~", "destructive-outside"))));
        screen
    }

    #[test]
    fn at_eighty_columns() {
        let lines = screen().lines(look(80), 40, NOW);
        let expected = "\
creel 0.1.0 · user mode · rules only watch (audit) · up 3 min          19:28:09Z

needs you
  high  claude-code  Bash                                        lapses in 4 min
    git push --force origin main
    history that others may have would be rewritten
    creel approve ap-4f2a --code 481 220   or   creel deny ap-4f2a
  medium    the record is not anchored outside
            start journald, or name a socket with `--anchor`

agents
  Claude Code  2.1.204  ada   installed  asks first  yes

protections
  hook claude-code  effective      a canary was stopped, shown 2 min ago
  rules             audit          34 rules watch; `creel policy enforce` turns
                                   them on
  limit: stops accidents, not a hostile process of your account

decisions
  19:28:09Z  deny        Bash        rm -rf ~  destructive-outside
  19:28:09Z  allow       Bash        cargo test

quietness, last 24 h
  412 decisions in 3 h of agents at work";
        let text = lines.join("\n");
        for (line, wanted) in lines.iter().zip(expected.lines()) {
            assert!(line.trim_end() == wanted.trim_end() || line.starts_with(wanted), "{line:?}\n{wanted:?}\n\n{text}");
        }
        assert_eq!(lines.last().map(String::as_str), Some("Ctrl-C stops creel"));
    }

    #[test]
    fn no_line_is_wider_and_no_screen_higher_than_the_terminal() {
        for columns in [40, 60, 80, 120, 200] {
            for rows in [10, 24, 50] {
                let lines = screen().lines(look(columns), rows, NOW);
                assert!(lines.len() <= rows, "{columns}×{rows}: {} lines", lines.len());
                for line in lines {
                    assert!(width(&line) <= columns, "{columns}: {line}");
                }
            }
            let nobody = StatusReport { agents: Vec::new(), ..status() };
            for line in report(&status(), look(columns)).iter().chain(&report(&nobody, look(columns))) {
                assert!(width(line) <= columns, "{columns}: {line}");
            }
        }
    }

    #[test]
    fn limits_are_always_told_in_status() {
        for columns in [60, 80, 120] {
            let text = report(&status(), look(columns)).join(" ");
            let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(words.contains("not a hostile process of your account"), "{columns}: {words}");
        }
    }

    #[test]
    fn an_answered_question_leaves_the_screen_and_a_code_appears() {
        let mut screen = screen();
        screen.apply(Live::Question(Box::new(QuestionView { state: QuestionState::Approved, ..question() })));
        let purpose = creel_wire::control::Purpose::BreakGlass;
        screen.apply(Live::Confirmation { purpose, code: "123 456".to_owned(), expires_unix_ns: NOW + MINUTE });
        let text = screen.lines(look(80), 40, NOW).join("\n");
        assert!(!text.contains("ap-4f2a"));
        assert!(text.contains("code for `creel break-glass`: 123 456"), "{text}");
        let later = screen.lines(look(80), 40, NOW + 2 * MINUTE).join("\n");
        assert!(!later.contains("123 456"));
    }

    #[test]
    fn events_as_plain_lines() {
        let deny = Live::Record(Box::new(record(2, Verdict::Deny, "rm -rf ~", "destructive-outside")));
        assert_eq!(plain(&deny, look(80), NOW).len(), 1);
        let allow = Live::Record(Box::new(record(2, Verdict::Allow, "cargo test", "")));
        assert!(plain(&allow, look(80), NOW).is_empty());
        assert_eq!(plain(&Live::Question(Box::new(question())), look(80), NOW).len(), 4);
    }

    #[test]
    fn figures_per_agent_hour() {
        assert_eq!(per_hour(2, 10_800), "0.6");
        assert_eq!(per_hour(5, 3_600), "5.0");
        assert_eq!(per_hour(1, 0), "-");
    }
}
