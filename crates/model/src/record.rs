//! What is written down: the sealed envelope of a record and its erasable detail (DESIGN §12).

use serde::{Deserialize, Serialize};

use crate::action::Point;
use crate::decision::{Decision, Verdict};
use crate::effect::Effect;
use crate::finding::Finding;
use crate::id::{ActionId, Digest, RunId, TraceId};
use crate::label::LabelFact;
use crate::machine::{Account, Moment};
use crate::word::words;

/// The event schema, `creel.event/<major>.<minor>`. Within a major only optional fields are added.
pub const EVENT_SCHEMA: &str = "creel.event/1.0";

words! {
    /// What a record tells.
    pub enum RecordKind {
        /// An action was judged.
        Decision = "decision",
        /// An event that asks for no decision.
        Event = "event",
        /// A question was answered, expired or used.
        Approval = "approval",
        /// A bundle was activated or refused, a rule's mode changed.
        Policy = "policy",
        /// creel started, stopped, changed or noticed something about itself.
        Daemon = "daemon",
        /// Protection was installed, removed, proved or found missing.
        Protection = "protection",
        /// Something a person should look at.
        Alert = "alert",
        /// Records were lost; says how many and why.
        Gap = "gap",
        /// A detail was erased, with the reason.
        Erasure = "erasure",
        /// Break-glass was opened or ended.
        BreakGlass = "break-glass",
        /// A segment's state snapshot.
        Snapshot = "snapshot",
    }
}

words! {
    /// How sure a cause is (DESIGN §7).
    pub enum Link {
        /// The same call or a kernel tag.
        Exact = "exact",
        /// A descendant of a process started inside exactly one open call.
        Subtree = "subtree",
        /// Several calls were open.
        Interval = "interval",
        /// Nothing links them.
        None = "none",
    }
}

/// What led to an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The earlier action.
    pub action_id: ActionId,
    /// How sure.
    pub link: Link,
}

/// Who and where: the agent's identity as the kernel showed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Catalog kind.
    pub kind: String,
    /// The run.
    pub run: RunId,
    /// Numeric account of the run.
    pub uid: u32,
    /// Process id of the run's root.
    pub pid: u32,
    /// The conversation as claimed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub conversation: String,
    /// The workspace, absolute, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
}

/// The sealed part of a record: no content, no secret, no prompt text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// [`EVENT_SCHEMA`] at the time of writing.
    pub schema: String,
    /// What the record tells.
    pub kind: RecordKind,
    /// When.
    pub at: Moment,
    /// Which boot of the machine `at.boot_ns` counts from.
    pub boot_id: String,
    /// The record's own action id.
    pub action_id: ActionId,
    /// The turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<TraceId>,
    /// What led to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Owner account: who may read it without being an analyst.
    pub owner: u32,
    /// Whose action it was; absent for records about creel itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Subject>,
    /// Where it was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<Point>,
    /// The agent's own event name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// The agent's own tool name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Ids of the enforced rules that matched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// Ids of audit rules that would have matched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audit_rules: Vec<String>,
    /// A code for records about creel itself, for example `daemon.started`, `alert.result-mismatch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Bundle that judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<Digest>,
    /// Trust of that bundle: `signed:<key>`, `root-owned` or `local-unsigned`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_trust: Option<String>,
    /// creel's version.
    pub engine: String,
    /// Version of the detector data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detectors: Option<String>,
    /// Size of the judged payload in bytes.
    #[serde(default)]
    pub payload_bytes: u64,
    /// Time from the payload's arrival to the answer, in nanoseconds.
    #[serde(default)]
    pub took_ns: u64,
    /// Number of effects.
    #[serde(default)]
    pub effects: u32,
}

/// The erasable part: the complete judged facts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    /// Effects with normalised objects, as judged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<Effect>,
    /// The whole decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Findings in content, without the secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Labels in force when it was judged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<LabelFact>,
    /// A redacted, bounded excerpt of what the agent asked for, by allow-list.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub excerpt: String,
    /// The working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// The account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// Anything else, for people and for replay.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub facts: serde_json::Map<String, serde_json::Value>,
}

/// A record before it is sealed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Sealed.
    pub envelope: Envelope,
    /// Erasable.
    pub detail: Detail,
}
