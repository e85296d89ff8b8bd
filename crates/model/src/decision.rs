//! What was decided, by which rules, and why.

use serde::{Deserialize, Serialize};

use crate::finding::Severity;
use crate::word::words;

words! {
    /// The answer to an action; ordered by strength, so the strongest of several is their maximum.
    pub enum Verdict {
        /// It goes on.
        Allow = "allow",
        /// It goes on, changed (redacted or rewritten).
        Modify = "modify",
        /// A human is asked.
        Ask = "ask",
        /// It does not happen.
        Deny = "deny",
    }
}

words! {
    /// Whether a rule acts.
    pub enum RuleMode {
        /// It acts.
        Block = "block",
        /// It is only recorded: "would have".
        Audit = "audit",
        /// It is not evaluated.
        Off = "off",
    }
}

/// A rule that matched an effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatchedRule {
    /// The rule's id; `policy-error`, `overload`, `default` and `break-glass` are creel's own.
    pub rule: String,
    /// What the rule demands.
    pub effect: Verdict,
    /// How bad.
    pub severity: Severity,
    /// Why, in words for a person and a model.
    pub reason: String,
    /// Index of the effect that it matched, in the action's list.
    pub effect_index: u32,
    /// The exception that set it aside, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excepted_by: Option<String>,
    /// The approval that set it aside, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
}

/// A change to one text of an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modification {
    /// JSON pointer of the changed text, as in [`crate::Content::pointer`].
    pub pointer: String,
    /// Its new text.
    pub text: String,
    /// How many places were replaced.
    pub replaced: u32,
}

/// The decision on one action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The answer.
    pub verdict: Verdict,
    /// Enforced rules that matched, strongest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<MatchedRule>,
    /// Rules in audit mode that would have matched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audit: Vec<MatchedRule>,
    /// One sentence for the person and the model; empty at a plain allow.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Changes to make, at `modify`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modifications: Vec<Modification>,
    /// The pending approval's id, at `ask`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
}

impl Decision {
    /// A plain allow.
    #[must_use]
    pub const fn allow() -> Self {
        Self {
            verdict: Verdict::Allow,
            rules: Vec::new(),
            audit: Vec::new(),
            reason: String::new(),
            modifications: Vec::new(),
            approval: None,
        }
    }
}
