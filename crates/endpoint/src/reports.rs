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

/// How long decisions took, in buckets that grow by an eighth: a figure for people, not for proofs.
#[derive(Clone, Debug)]
pub struct Durations {
    buckets: Vec<u64>,
    count: u64,
}

/// Enough buckets for more than an hour.
const BUCKETS: usize = 8 * 42;

impl Default for Durations {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0 }
    }
}

impl Durations {
    /// Counts one, in nanoseconds.
    pub fn add(&mut self, took_ns: u64) {
        if let Some(bucket) = self.buckets.get_mut(Self::bucket(took_ns)) {
            *bucket = bucket.saturating_add(1);
            self.count = self.count.saturating_add(1);
        }
    }

    /// The upper end of the bucket in which that share (in thousandths) of all lies; 0 when there is none.
    #[must_use]
    pub fn at(&self, per_mille: u64) -> u64 {
        let wanted = self.count.saturating_mul(per_mille).div_ceil(1000);
        let mut seen = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += bucket;
            if seen >= wanted && seen > 0 {
                return Self::upper(index);
            }
        }
        0
    }

    fn bucket(took_ns: u64) -> usize {
        let took = took_ns.max(8);
        let power = took.ilog2();
        let eighth = (took >> (power - 3)) & 7;
        (((power - 3) as usize) * 8 + usize::try_from(eighth).unwrap_or(0)).min(BUCKETS - 1)
    }

    fn upper(index: usize) -> u64 {
        let (power, eighth) = (index / 8 + 3, (index % 8) as u64);
        (8 + eighth + 1).checked_shl(u32::try_from(power - 3).unwrap_or(0)).unwrap_or(u64::MAX)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_right_within_an_eighth() {
        let mut durations = Durations::default();
        assert_eq!(durations.at(500), 0);
        for took in 1..=1000_u64 {
            durations.add(took * 1_000);
        }
        for (per_mille, exact) in [(500, 500_000.0), (990, 990_000.0), (1000, 1_000_000.0)] {
            #[expect(clippy::cast_precision_loss, reason = "a test of small numbers")]
            let found = durations.at(per_mille) as f64;
            assert!(found >= exact && found <= exact * 1.13, "{per_mille}: {found}");
        }
        durations.add(u64::MAX);
        durations.add(0);
    }
}
