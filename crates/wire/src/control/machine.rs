//! What the control socket tells about the machine, its agents and its records, as plain data.

use creel_model::record::{Detail, Envelope};
use creel_model::{ApprovalMode, Finding, Mode, RecordKind, Severity, Verdict};
use serde::{Deserialize, Serialize};

use super::{BreakGlassView, PolicySummary, QuestionView};

/// The daemon's whole state; the lists are bounded by the daemon (64 agents, 64 questions, 32 protections, 32 rules).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// creel's version.
    pub version: String,
    /// User or system mode.
    pub mode: Mode,
    /// The daemon's process.
    pub pid: u32,
    /// The daemon's account name.
    pub account: String,
    /// When it started.
    pub started_unix_ns: i64,
    /// When this was put together.
    pub now_unix_ns: i64,
    /// The bundle in force.
    pub policy: PolicySummary,
    /// What protects, each with its limits.
    pub protections: Vec<Protection>,
    /// Agents that were found.
    pub agents: Vec<AgentView>,
    /// Questions that wait.
    pub questions: Vec<QuestionView>,
    /// The record.
    pub journal: JournalView,
    /// How much people are disturbed, over the last 24 hours.
    pub quietness: Quietness,
    /// The open break-glass window.
    #[serde(default)]
    pub break_glass: Option<BreakGlassView>,
    /// What a person should look at, worst first.
    #[serde(default)]
    pub problems: Vec<Problem>,
}

/// Something a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// How bad.
    pub severity: Severity,
    /// What is wrong, lower case.
    pub text: String,
    /// What to do; may be empty.
    #[serde(default)]
    pub hint: String,
}

/// State of a protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProtectionState {
    /// Shown to hold.
    Effective,
    /// Set up, not shown to hold.
    Configured,
    /// Set up, only recording.
    Audit,
    /// Shown not to hold.
    NotEffective,
    /// Not set up.
    Off,
}

impl ProtectionState {
    /// The words as they stand on a screen.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ProtectionState::Effective => "effective",
            ProtectionState::Configured => "configured",
            ProtectionState::Audit => "audit",
            ProtectionState::NotEffective => "not effective",
            ProtectionState::Off => "off",
        }
    }
}

/// One protection and what it does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// Its name, for example `hook claude-code`, `rules`, `journal`.
    pub name: String,
    /// Its state.
    pub state: ProtectionState,
    /// What it does or how it was shown, in one line.
    #[serde(default)]
    pub detail: String,
    /// What it cannot hold, one line each; in user mode always at least one.
    #[serde(default)]
    pub limits: Vec<String>,
    /// When it was last shown to hold or not.
    #[serde(default)]
    pub shown_unix_ns: Option<i64>,
}

/// State of the record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalView {
    /// Its folder.
    pub folder: String,
    /// Number of records.
    pub records: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Size (in records) of the last signed checkpoint.
    pub checkpoint_records: u64,
    /// The device's public key, as a note verifier key.
    pub verifier_key: String,
    /// Where the last checkpoint was anchored, for example `journald`; absent means nowhere.
    #[serde(default)]
    pub anchor: Option<String>,
    /// When it was anchored.
    #[serde(default)]
    pub anchored_unix_ns: Option<i64>,
    /// The reserve is in use: the disk is full, questions become denials.
    #[serde(default)]
    pub reserve_in_use: bool,
    /// Records lost since the start.
    #[serde(default)]
    pub lost: u64,
}

/// How much people are disturbed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quietness {
    /// The time looked at, in seconds.
    pub window_seconds: u64,
    /// Time with an agent at work in it, summed over runs, in seconds.
    pub agent_seconds: u64,
    /// Decisions.
    pub decisions: u64,
    /// Questions.
    pub asks: u64,
    /// Denials.
    pub denials: u64,
    /// Decisions that audit rules would have asked.
    pub would_ask: u64,
    /// Decisions that audit rules would have denied.
    pub would_deny: u64,
    /// Time that agents waited for people, in milliseconds.
    pub waited_ms: u64,
    /// Median time of a decision, in nanoseconds.
    pub took_p50_ns: u64,
    /// Its 99th percentile.
    pub took_p99_ns: u64,
    /// Per rule, most disturbing first.
    #[serde(default)]
    pub rules: Vec<RuleQuietness>,
}

/// How much one rule disturbs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleQuietness {
    /// The rule.
    pub rule: String,
    /// Questions.
    pub asks: u64,
    /// Denials.
    pub denials: u64,
    /// Would-have matches.
    pub would_have: u64,
    /// Time that agents waited because of it, in milliseconds.
    pub waited_ms: u64,
}

/// Whether creel judges what an agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Governed {
    /// Its hooks are ours and were shown to work.
    Yes,
    /// Its hooks are ours, not shown to work, or a running process bypasses them.
    Partly,
    /// It runs without creel.
    No,
    /// creel cannot govern this kind yet.
    Unsupported,
}

impl Governed {
    /// The word as it stands on a screen.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Governed::Yes => "governed",
            Governed::Partly => "partly governed",
            Governed::No => "not governed",
            Governed::Unsupported => "not supported",
        }
    }
}

/// One agent: kind × account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentView {
    /// Catalog kind.
    pub kind: String,
    /// Its name for people.
    pub name: String,
    /// Its version, where known.
    #[serde(default)]
    pub version: Option<String>,
    /// The account's login name.
    pub account: String,
    /// The account.
    pub uid: u32,
    /// Where its program is.
    #[serde(default)]
    pub program: Option<String>,
    /// It is installed.
    pub installed: bool,
    /// It has configuration.
    pub configured: bool,
    /// Its running processes.
    #[serde(default)]
    pub runs: Vec<RunView>,
    /// How it approves its own actions.
    pub approval_mode: ApprovalMode,
    /// Where that comes from: a file, a flag, the default.
    #[serde(default)]
    pub approval_origin: String,
    /// Whether creel judges it.
    pub governed: Governed,
    /// Why, where it is not plainly so.
    #[serde(default)]
    pub governed_because: String,
    /// MCP servers.
    #[serde(default)]
    pub mcp_servers: Vec<McpServerView>,
    /// Hooks.
    #[serde(default)]
    pub hooks: Vec<HookView>,
    /// Configuration files that were read, absolute.
    #[serde(default)]
    pub files: Vec<String>,
    /// Weaknesses.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

/// A running agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunView {
    /// The run, where it has shown itself at the hook.
    #[serde(default)]
    pub run: Option<String>,
    /// Its process.
    pub pid: u32,
    /// When it started, where known.
    #[serde(default)]
    pub started_unix_ns: Option<i64>,
    /// Its working directory.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Flags that weaken its approvals, as on its command line.
    #[serde(default)]
    pub bypass_flags: Vec<String>,
}

/// An MCP server of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpServerView {
    /// Its name.
    pub name: String,
    /// Its command line or URL, without credentials.
    pub target: String,
    /// The file that declares it.
    #[serde(default)]
    pub file: String,
}

/// A hook of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookView {
    /// The agent's event.
    pub event: String,
    /// What it runs.
    pub command: String,
    /// It is creel's.
    pub ours: bool,
    /// The file that declares it.
    #[serde(default)]
    pub file: String,
}

/// Which records. Everything stated must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordFilter {
    /// Catalog kind of the agent.
    pub agent: Option<String>,
    /// The run, or the beginning of its id.
    pub run: Option<String>,
    /// The conversation as claimed, or its beginning.
    pub conversation: Option<String>,
    /// The verdict.
    pub verdict: Option<Verdict>,
    /// A rule that matched, enforced or in audit.
    pub rule: Option<String>,
    /// Owner account.
    pub owner: Option<u32>,
    /// Not before.
    pub since_unix_ns: Option<i64>,
    /// Before.
    pub until_unix_ns: Option<i64>,
    /// Kinds of records; empty means all except snapshots.
    pub kinds: Vec<RecordKind>,
    /// Only records with a larger sequence number.
    pub after_sequence: Option<u64>,
    /// Only the last so many of the matching ones (before following); at most 10,000.
    pub last: Option<u32>,
}

impl RecordFilter {
    /// Whether one record matches; `last` is the caller's business.
    #[must_use]
    pub fn matches(&self, sequence: u64, envelope: &Envelope) -> bool {
        let subject = envelope.subject.as_ref();
        let kinds = if self.kinds.is_empty() {
            envelope.kind != RecordKind::Snapshot
        } else {
            self.kinds.contains(&envelope.kind)
        };
        kinds
            && self.after_sequence.is_none_or(|after| sequence > after)
            && self.since_unix_ns.is_none_or(|since| envelope.at.unix_ns >= since)
            && self.until_unix_ns.is_none_or(|until| envelope.at.unix_ns < until)
            && self.owner.is_none_or(|owner| envelope.owner == owner)
            && self.verdict.is_none_or(|verdict| envelope.verdict == Some(verdict))
            && self.agent.as_ref().is_none_or(|kind| subject.is_some_and(|s| s.kind == *kind))
            && self.run.as_ref().is_none_or(|run| subject.is_some_and(|s| s.run.as_str().starts_with(run.as_str())))
            && self
                .conversation
                .as_ref()
                .is_none_or(|talk| subject.is_some_and(|s| s.conversation.starts_with(talk.as_str())))
            && self
                .rule
                .as_ref()
                .is_none_or(|rule| envelope.rules.contains(rule) || envelope.audit_rules.contains(rule))
    }
}

/// One record as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordView {
    /// Its place in the journal.
    pub sequence: u64,
    /// The sealed part.
    pub envelope: Envelope,
    /// The erasable part; absent when erased, or when it does not fit a frame.
    #[serde(default)]
    pub detail: Option<Detail>,
    /// Its detail was erased.
    #[serde(default)]
    pub erased: bool,
}

/// What a verification found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerificationVerdict {
    /// Complete and unaltered, up to an anchor that covers it.
    Intact,
    /// Complete and unaltered up to the newest anchor; what follows is only consistent with itself.
    IntactSince,
    /// Consistent with itself; nobody outside can vouch for it.
    SelfConsistentOnly,
    /// Altered or incomplete.
    Broken,
}

impl VerificationVerdict {
    /// The words as they stand in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            VerificationVerdict::Intact => "intact",
            VerificationVerdict::IntactSince => "intact since an anchor",
            VerificationVerdict::SelfConsistentOnly => "self-consistent only",
            VerificationVerdict::Broken => "broken",
        }
    }
}

/// The outcome of a verification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerificationView {
    /// What was found.
    pub verdict: VerificationVerdict,
    /// Records that were verified.
    pub records: u64,
    /// Records whose detail is erased.
    pub erased: u64,
    /// The anchor, at `IntactSince` and `Intact`: where and at how many records.
    #[serde(default)]
    pub anchor: Option<String>,
    /// Sequence number of the first bad record, at `Broken`, where one can be named.
    #[serde(default)]
    pub first_bad: Option<u64>,
    /// What is wrong with it.
    #[serde(default)]
    pub why: String,
    /// Records lost, as gap records say.
    #[serde(default)]
    pub lost: u64,
}

#[cfg(test)]
mod tests {
    use creel_model::record::{EVENT_SCHEMA, Subject};
    use creel_model::{ActionId, Moment, RunId};

    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            schema: EVENT_SCHEMA.to_owned(),
            kind: RecordKind::Decision,
            at: Moment { unix_ns: 1_000, boot_ns: 1 },
            boot_id: "b".to_owned(),
            action_id: ActionId::from_random([1; 16]),
            trace_id: None,
            causes: Vec::new(),
            owner: 1000,
            subject: Some(Subject {
                kind: "claude-code".to_owned(),
                run: RunId("r-abcdef".to_owned()),
                uid: 1000,
                pid: 7,
                conversation: "c-1".to_owned(),
                workspace: None,
            }),
            point: None,
            event: None,
            tool: None,
            verdict: Some(Verdict::Deny),
            rules: vec!["enforced".to_owned()],
            audit_rules: vec!["watched".to_owned()],
            code: None,
            bundle: None,
            bundle_trust: None,
            engine: "0".to_owned(),
            detectors: None,
            payload_bytes: 0,
            took_ns: 0,
            effects: 0,
        }
    }

    fn check(filter: &RecordFilter, expected: bool) {
        assert_eq!(filter.matches(5, &envelope()), expected, "{filter:?}");
    }

    #[test]
    fn each_condition_admits_and_refuses() {
        let base = RecordFilter::default;
        check(&base(), true);
        for (value, expected) in [("claude-code", true), ("codex", false)] {
            check(&RecordFilter { agent: Some(value.to_owned()), ..base() }, expected);
        }
        for (value, expected) in [("r-abc", true), ("r-b", false)] {
            check(&RecordFilter { run: Some(value.to_owned()), ..base() }, expected);
        }
        for (value, expected) in [("enforced", true), ("watched", true), ("other", false)] {
            check(&RecordFilter { rule: Some(value.to_owned()), ..base() }, expected);
        }
        for (value, expected) in [(Verdict::Deny, true), (Verdict::Allow, false)] {
            check(&RecordFilter { verdict: Some(value), ..base() }, expected);
        }
        for (value, expected) in [(1_000, true), (1_001, false)] {
            check(&RecordFilter { since_unix_ns: Some(value), ..base() }, expected);
        }
        for (value, expected) in [(1_001, true), (1_000, false)] {
            check(&RecordFilter { until_unix_ns: Some(value), ..base() }, expected);
        }
        for (value, expected) in [(4, true), (5, false)] {
            check(&RecordFilter { after_sequence: Some(value), ..base() }, expected);
        }
        check(&RecordFilter { kinds: vec![RecordKind::Gap], ..base() }, false);
        check(&RecordFilter { owner: Some(0), ..base() }, false);
    }

    #[test]
    fn snapshots_are_shown_only_when_asked_for() {
        let snapshot = Envelope { kind: RecordKind::Snapshot, ..envelope() };
        assert!(!RecordFilter::default().matches(1, &snapshot));
        assert!(RecordFilter { kinds: vec![RecordKind::Snapshot], ..RecordFilter::default() }.matches(1, &snapshot));
    }

    #[test]
    fn a_filter_of_a_newer_client_is_understood() {
        let filter: RecordFilter = serde_json::from_str(r#"{"agent":"codex","colour":"red"}"#).unwrap();
        assert_eq!(filter.agent.as_deref(), Some("codex"));
    }
}
