//! The quietness ledger: how often creel asked, denied and made somebody wait, per agent and rule (DESIGN §1, §15).
//!
//! It counts and forgets nothing until it is full; then new agents and rules are counted in the row `(other)`. Time is
//! *active* time: gaps between two actions of an agent count only up to five minutes, so a night does not make creel
//! look quiet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Longest gap between two actions that still counts as active time, in nanoseconds.
const GAP_NS_MAX: u64 = 300 * 1_000_000_000;

/// The agent and rule under which everything beyond the limits is counted.
pub const OTHER: &str = "(other)";

/// What one rule did to one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCounts {
    /// Questions to a human.
    pub asks: u64,
    /// Denials.
    pub denials: u64,
    /// Texts changed.
    pub modified: u64,
    /// Times it would have asked, in audit mode.
    pub would_ask: u64,
    /// Times it would have denied, in audit mode.
    pub would_deny: u64,
    /// Time that hooks were held for its questions, in nanoseconds.
    pub waited_ns: u64,
}

impl RuleCounts {
    fn add(&mut self, other: &RuleCounts) {
        self.asks = self.asks.saturating_add(other.asks);
        self.denials = self.denials.saturating_add(other.denials);
        self.modified = self.modified.saturating_add(other.modified);
        self.would_ask = self.would_ask.saturating_add(other.would_ask);
        self.would_deny = self.would_deny.saturating_add(other.would_deny);
        self.waited_ns = self.waited_ns.saturating_add(other.waited_ns);
    }
}

/// One agent: a kind under an account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCounts {
    /// Catalog kind.
    pub kind: String,
    /// Account.
    pub uid: u32,
    /// Actions judged.
    pub actions: u64,
    /// Active time in nanoseconds.
    pub active_ns: u64,
    /// Actions that ended in a question, whatever the number of rules.
    pub asks: u64,
    /// Actions that were denied, whatever the number of rules.
    pub denials: u64,
    /// Time that hooks were held, in nanoseconds.
    pub waited_ns: u64,
    /// Actions that would have been asked about or denied by rules in audit mode.
    pub would_have: u64,
    /// Last action, boot clock in nanoseconds.
    #[serde(default)]
    pub last_boot_ns: u64,
    /// By rule id.
    pub rules: BTreeMap<String, RuleCounts>,
}

/// A change of the ledger by one action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) kind: String,
    pub(crate) uid: u32,
    #[serde(default, skip_serializing_if = "zero")]
    pub(crate) actions: u64,
    #[serde(default, skip_serializing_if = "zero")]
    pub(crate) asks: u64,
    #[serde(default, skip_serializing_if = "zero")]
    pub(crate) denials: u64,
    #[serde(default, skip_serializing_if = "zero")]
    pub(crate) waited_ns: u64,
    #[serde(default, skip_serializing_if = "zero")]
    pub(crate) would_have: u64,
    pub(crate) boot_ns: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) rules: BTreeMap<String, RuleCounts>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn zero(number: &u64) -> bool {
    *number == 0
}

/// The ledger as plain data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// By `kind@uid`.
    pub agents: BTreeMap<String, AgentCounts>,
    /// Rows in use: agents and their rules.
    pub rows: usize,
}

impl Ledger {
    /// Adds one action's counts; at most `rows_max` rows, beyond which they go to [`OTHER`].
    pub(crate) fn add(&mut self, count: &Count, rows_max: usize) {
        let mut key = format!("{}@{}", count.kind, count.uid);
        if !self.agents.contains_key(&key) {
            if self.rows >= rows_max {
                key = OTHER.to_owned();
            }
            if !self.agents.contains_key(&key) {
                self.rows += 1;
            }
        }
        let agent = self.agents.entry(key).or_insert_with_key(|key| AgentCounts {
            kind: if key == OTHER { OTHER.to_owned() } else { count.kind.clone() },
            uid: count.uid,
            last_boot_ns: count.boot_ns,
            ..AgentCounts::default()
        });
        agent.actions = agent.actions.saturating_add(count.actions);
        agent.asks = agent.asks.saturating_add(count.asks);
        agent.denials = agent.denials.saturating_add(count.denials);
        agent.waited_ns = agent.waited_ns.saturating_add(count.waited_ns);
        agent.would_have = agent.would_have.saturating_add(count.would_have);
        if count.actions > 0 {
            let gap = count.boot_ns.saturating_sub(agent.last_boot_ns);
            agent.active_ns = agent.active_ns.saturating_add(gap.min(GAP_NS_MAX));
            agent.last_boot_ns = count.boot_ns;
        }
        for (rule, counts) in &count.rules {
            let mut rule = rule.as_str();
            if !agent.rules.contains_key(rule) {
                if self.rows >= rows_max {
                    rule = OTHER;
                }
                if !agent.rules.contains_key(rule) {
                    self.rows += 1;
                }
            }
            agent.rules.entry(rule.to_owned()).or_default().add(counts);
        }
    }
}

impl AgentCounts {
    /// Active time in hours.
    #[must_use]
    pub fn hours(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let seconds = (self.active_ns / 1_000_000) as f64 / 1000.0;
        seconds / 3600.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(rule: &str, boot_s: u64) -> Count {
        Count {
            kind: "k".into(),
            uid: 1,
            actions: 1,
            asks: 1,
            boot_ns: boot_s * 1_000_000_000,
            rules: BTreeMap::from([(rule.to_owned(), RuleCounts { asks: 1, ..RuleCounts::default() })]),
            ..Count::default()
        }
    }

    #[test]
    fn idle_time_is_not_active_time() {
        let mut ledger = Ledger::default();
        for second in [0, 60, 120, 40_000] {
            ledger.add(&count("r", second), 100);
        }
        let agent = &ledger.agents["k@1"];
        assert_eq!(agent.active_ns, (60 + 60 + 300) * 1_000_000_000);
        assert_eq!((agent.actions, agent.rules["r"].asks), (4, 4));
    }

    #[test]
    fn a_full_ledger_counts_on_in_one_row() {
        let mut ledger = Ledger::default();
        for rule in 0..50 {
            ledger.add(&count(&format!("r{rule}"), 1), 10);
        }
        assert!(ledger.rows <= 11, "{}", ledger.rows);
        let agent = &ledger.agents["k@1"];
        assert_eq!(agent.rules.values().map(|c| c.asks).sum::<u64>(), 50);
        assert!(agent.rules[OTHER].asks > 30);
    }
}
