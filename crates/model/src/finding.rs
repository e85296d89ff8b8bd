//! Weaknesses of agents and things seen in content.

use serde::{Deserialize, Serialize};

use crate::word::words;

words! {
    /// How bad it is.
    pub enum Severity {
        /// Worth knowing.
        Info = "info",
        /// Worth mending some day.
        Low = "low",
        /// Worth mending.
        Medium = "medium",
        /// Worth mending now.
        High = "high",
        /// Worth waking somebody.
        Critical = "critical",
    }
}

words! {
    /// How sure a detector is.
    pub enum Confidence {
        /// A hint; recorded, never acted on alone.
        Low = "low",
        /// Likely.
        Medium = "medium",
        /// Certain enough to act on.
        High = "high",
    }
}

/// A posture weakness of an agent, or something seen in content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A stable code, for example `secret.aws-access-key` or `agent.auto-approve`.
    pub code: String,
    /// Its class, for example `secret`, `posture`, or a command class.
    pub class: String,
    /// How bad.
    pub severity: Severity,
    /// How sure.
    pub confidence: Confidence,
    /// Byte range in the inspected text; absent where the whole is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span: Option<(usize, usize)>,
    /// What was seen, without any secret: safe to print.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
    /// What to do about it, in one line; empty where nothing is to be done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// Taxonomy ids, for example `ASI02`, `T1552.001`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taxonomy: Vec<String>,
}
