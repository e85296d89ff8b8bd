//! The guard's counts and the bundle's properties, added up for people.

use std::collections::{BTreeMap, BTreeSet};

use creel_dialect::kinds;
use creel_guard::Guard;
use creel_journal::Stored;
use creel_model::{Point, RuleMode, Severity, Verdict};
use creel_policy::{Bundle, KindSupport};
use creel_wire::control::{CoverageRow, FloorCell, Quietness, RuleQuietness, RuleReport};

/// The quietness ledger, added up over all agents. The window is the time since the ledger began.
#[must_use]
pub fn quietness(guard: &Guard) -> Quietness {
    let mut sum = Quietness::default();
    let mut rules: BTreeMap<String, RuleQuietness> = BTreeMap::new();
    for agent in guard.quietness().agents.values() {
        sum.agent_seconds += agent.active_ns / 1_000_000_000;
        sum.decisions += agent.actions;
        sum.asks += agent.asks;
        sum.denials += agent.denials;
        sum.waited_ms += agent.waited_ns / 1_000_000;
        for (id, counts) in &agent.rules {
            sum.would_ask += counts.would_ask;
            sum.would_deny += counts.would_deny;
            let row = rules
                .entry(id.clone())
                .or_insert_with(|| RuleQuietness { rule: id.clone(), ..RuleQuietness::default() });
            row.asks += counts.asks;
            row.denials += counts.denials;
            row.would_have += counts.would_ask + counts.would_deny;
            row.waited_ms += counts.waited_ns / 1_000_000;
        }
    }
    sum.window_seconds = sum.agent_seconds;
    let mut rows: Vec<RuleQuietness> =
        rules.into_values().filter(|row| row.asks + row.denials + row.would_have > 0).collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.asks + row.denials, row.would_have)));
    rows.truncate(32);
    sum.rules = rows;
    sum
}

/// How often each rule matched, over records.
#[derive(Default)]
pub struct Tally(BTreeMap<String, Row>);

#[derive(Default)]
struct Row {
    matched: u64,
    conversations: BTreeSet<String>,
    examples: Vec<u64>,
}

/// Conversations counted per rule; beyond, the number stands still.
const CONVERSATIONS_MAX: usize = 10_000;

impl Tally {
    /// Counts one record.
    pub fn add(&mut self, stored: &Stored) {
        let envelope = &stored.envelope;
        let ids: BTreeSet<&String> = envelope.rules.iter().chain(&envelope.audit_rules).collect();
        for id in ids {
            let row = self.0.entry(id.clone()).or_default();
            row.matched += 1;
            if let Some(subject) = &envelope.subject
                && row.conversations.len() < CONVERSATIONS_MAX
            {
                row.conversations.insert(subject.conversation.clone());
            }
            if row.examples.len() < 5 {
                row.examples.push(stored.sequence);
            }
        }
    }

    /// The rows, most frequent first; `known` describes a rule of the bundle.
    pub fn rows(self, known: impl Fn(&str) -> Option<RuleReport>) -> Vec<RuleReport> {
        let mut rows: Vec<RuleReport> = self
            .0
            .into_iter()
            .map(|(id, row)| RuleReport {
                matched: row.matched,
                conversations: row.conversations.len() as u64,
                examples: row.examples,
                ..known(&id).unwrap_or_else(|| unknown_rule(&id))
            })
            .collect();
        rows.sort_by(|a, b| (b.matched, &a.rule).cmp(&(a.matched, &b.rule)));
        rows
    }
}

/// A rule that matched and is no longer in the bundle, or is creel's own.
#[must_use]
pub fn unknown_rule(id: &str) -> RuleReport {
    RuleReport {
        rule: id.to_owned(),
        effect: Verdict::Deny,
        mode: RuleMode::Block,
        severity: Severity::Info,
        matched: 0,
        conversations: 0,
        examples: Vec::new(),
    }
}

/// What the hooks of the kinds that creel speaks let it do.
#[must_use]
pub fn kinds() -> Vec<KindSupport> {
    [kinds::CLAUDE_CODE, kinds::CODEX]
        .into_iter()
        .map(|kind| KindSupport {
            kind: kind.to_owned(),
            blocks_at: BTreeSet::from([Point::Prompt, Point::ToolCall, Point::ToolResult]),
            modifies_at: BTreeSet::from([Point::ToolCall, Point::ToolResult]),
            asks: true,
        })
        .collect()
}

/// Rule × kind × mechanism.
#[must_use]
pub fn coverage(bundle: &Bundle) -> Vec<CoverageRow> {
    bundle
        .coverage(&kinds())
        .into_iter()
        .map(|row| CoverageRow {
            rule: row.rule,
            kind: row.kind,
            mechanism: row.mechanism,
            hold: row.standing.as_str().to_owned(),
            why: row.why,
        })
        .collect()
}

/// Verb × zone.
#[must_use]
pub fn floor(bundle: &Bundle) -> Vec<FloorCell> {
    bundle
        .floor()
        .cells
        .into_iter()
        .map(|((verb, _, zone), cell)| FloorCell {
            verb,
            zone,
            cell: cell.answer.as_str().to_owned(),
            rules: cell.rules.into_iter().collect(),
        })
        .collect()
}
