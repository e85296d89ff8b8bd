//! The words of creel as plain data: what an agent is about to do, what that does to which object, what was decided,
//! and what was recorded.
//!
//! Nothing here decides, reads a file or knows the time. Everything rebuilds when this crate changes, so it stays
//! small and calm. The one thing a newcomer gets wrong: an *action* is what the agent calls, an *effect* is what that
//! does to one object, and rules speak about effects only.

mod word;

pub mod action;
pub mod cage;
pub mod decision;
pub mod effect;
pub mod finding;
pub mod id;
pub mod label;
pub mod machine;
pub mod record;
pub mod zone;

pub use action::{Action, Content, ContentRole, Point, ToolCall};
pub use cage::{
    CageEnvironment, CageEvent, CageEventKind, CageLimits, CageNetwork, CagePlan, Control, Degrade, FileAccess,
    FileRule, Seal, SealKind, SocketGrant, WorkspaceMode,
};
pub use decision::{Decision, MatchedRule, Modification, RuleMode, Verdict};
pub use effect::{Certainty, CommandClass, Effect, Object, Verb};
pub use finding::{Confidence, Finding, Severity};
pub use id::{ActionId, Digest, RunId, TraceId};
pub use label::{Basis, Label, LabelFact, Origin, SinkGrade};
pub use machine::{Account, ApprovalMode, Mode, Moment, ProcessKey};
pub use record::{Cause, Link, RecordKind};
pub use zone::Zone;

/// A word that is not one of those expected where it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    /// What was found.
    pub found: String,
    /// What would have been understood.
    pub expected: &'static [&'static str],
}

impl std::fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unknown word `{}`, expected one of {}", self.found, self.expected.join(", "))
    }
}

impl std::error::Error for UnknownWord {}
