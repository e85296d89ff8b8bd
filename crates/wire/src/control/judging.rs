//! What the control socket tells about policy, as plain data. The same types are the output of the daemon program's
//! offline policy commands.

use std::collections::BTreeMap;

use creel_model::{RuleMode, Severity, Verb, Verdict, Zone};
use serde::{Deserialize, Serialize};

/// A bundle in one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySummary {
    /// Its name.
    pub id: String,
    /// Its version, as written.
    pub version: String,
    /// Its digest.
    pub digest: String,
    /// `signed:<key>`, `root-owned` or `local-unsigned`.
    pub trust: String,
    /// Rules that act.
    pub blocking: u32,
    /// Rules that are only recorded.
    pub audit: u32,
    /// Rules that are off.
    pub off: u32,
    /// Since when it is in force; 0 when it is not.
    pub since_unix_ns: i64,
}

/// A bundle with its rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    /// In one line.
    pub summary: PolicySummary,
    /// Its rules, in order of id.
    pub rules: Vec<RuleView>,
    /// Exceptions in force, one line each.
    #[serde(default)]
    pub exceptions: Vec<String>,
    /// Defaults per verb.
    #[serde(default)]
    pub defaults: BTreeMap<String, Verdict>,
    /// Its files, where asked for.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleView {
    /// Its id.
    pub id: String,
    /// What it demands.
    pub effect: Verdict,
    /// How bad.
    pub severity: Severity,
    /// Why.
    pub reason: String,
    /// Whether it acts.
    pub mode: RuleMode,
    /// Verbs that it speaks about.
    #[serde(default)]
    pub verbs: Vec<Verb>,
    /// Whether exceptions may set it aside.
    #[serde(default)]
    pub exceptable: bool,
    /// Taxonomy ids.
    #[serde(default)]
    pub taxonomy: Vec<String>,
}

/// A mistake in a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagnosticView {
    /// The file, relative to the bundle folder.
    pub file: String,
    /// From 1; 0 when the whole file is meant.
    pub line: u32,
    /// From 1; 0 when the whole line is meant.
    pub column: u32,
    /// What is wrong and what was expected.
    pub message: String,
    /// What to do; may be empty.
    #[serde(default)]
    pub hint: String,
}

/// The outcome of a bundle's decision tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestReportView {
    /// Cases that hold.
    pub passed: u32,
    /// Cases that do not.
    pub failed: u32,
    /// Failing cases always, passing ones as far as they fit (at most 2,000 in all).
    #[serde(default)]
    pub cases: Vec<TestCaseView>,
    /// Rules that no case makes match.
    #[serde(default)]
    pub untested_rules: Vec<String>,
}

/// One case of a decision table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestCaseView {
    /// Its file.
    pub file: String,
    /// Its name.
    pub name: String,
    /// Whether it holds.
    pub passed: bool,
    /// What the table says, in words.
    #[serde(default)]
    pub expected: String,
    /// What the bundle decides, in words.
    #[serde(default)]
    pub got: String,
}

/// The difference that another bundle would have made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayReport {
    /// The other bundle's digest.
    pub bundle: String,
    /// Decisions judged again.
    pub judged: u64,
    /// Decisions that cannot be judged again because their detail is erased.
    pub erased: u64,
    /// Decisions with another verdict.
    pub changed: u64,
    /// The first 500 of those.
    #[serde(default)]
    pub changes: Vec<ReplayChange>,
    /// Counts by verdict, agent and account.
    #[serde(default)]
    pub totals: Vec<ReplayTotal>,
}

/// One decision with another verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayChange {
    /// The record.
    pub sequence: u64,
    /// Catalog kind.
    pub kind: String,
    /// Account.
    pub uid: u32,
    /// The agent's tool.
    #[serde(default)]
    pub tool: Option<String>,
    /// What was asked for, as recorded.
    #[serde(default)]
    pub excerpt: String,
    /// As decided then.
    pub before: Verdict,
    /// As it would be decided.
    pub after: Verdict,
    /// The rules of then.
    #[serde(default)]
    pub rules_before: Vec<String>,
    /// The rules of the other bundle.
    #[serde(default)]
    pub rules_after: Vec<String>,
}

/// How often one verdict became another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayTotal {
    /// Catalog kind.
    pub kind: String,
    /// Account.
    pub uid: u32,
    /// As decided then.
    pub before: Verdict,
    /// As it would be decided.
    pub after: Verdict,
    /// How often.
    pub count: u64,
}

/// What rules in audit mode would have done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WouldHaveReport {
    /// From when.
    pub since_unix_ns: i64,
    /// Until when.
    pub until_unix_ns: i64,
    /// Decisions in that time.
    pub decisions: u64,
    /// Decisions that at least one audit rule would have asked or denied.
    pub would_have: u64,
    /// Time with an agent at work, summed over runs, in seconds.
    pub agent_seconds: u64,
    /// Per rule, most frequent first.
    pub rules: Vec<RuleReport>,
}

/// What one rule did or would have done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleReport {
    /// The rule.
    pub rule: String,
    /// What it demands.
    pub effect: Verdict,
    /// Whether it acts now.
    pub mode: RuleMode,
    /// How bad.
    pub severity: Severity,
    /// Decisions that it matched.
    pub matched: u64,
    /// Conversations in which it matched.
    pub conversations: u64,
    /// Sequence numbers of up to five examples.
    #[serde(default)]
    pub examples: Vec<u64>,
}

/// Where a rule is held for one kind of agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageRow {
    /// The rule.
    pub rule: String,
    /// Catalog kind.
    pub kind: String,
    /// `hook`, `managed-configuration`, `cage`, `proxy` or `sensor`.
    pub mechanism: String,
    /// `held`, `mediated`, `hook-only` or `not held`.
    pub hold: String,
    /// Why; may be empty.
    #[serde(default)]
    pub why: String,
}

/// One cell of the floor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloorCell {
    /// The verb.
    pub verb: Verb,
    /// The zone.
    pub zone: Zone,
    /// `allow`, `ask`, `deny` or `depends`.
    pub cell: String,
    /// Rules behind it.
    #[serde(default)]
    pub rules: Vec<String>,
}
