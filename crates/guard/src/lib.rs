//! Facts in order, with time, to answers, records and effects on state: the only place where a decision is made.
//!
//! Two halves. [`understand`], [`wanted`] and [`prepare`] are stateless and run in parallel: they parse, inspect and
//! resolve within a budget. [`Guard::step`] is single-threaded: it adds what only the state knows (labels, sink grades,
//! approvals, break-glass), asks the bundle, writes the records and changes the state. Whoever calls it appends the
//! records first and gives the answers afterwards, so the journal's order is the state's order.
//!
//! Not here: files, sockets, clocks, randomness (all arguments), rules (the bundle), and who may approve (the edge
//! tests a person's presence). The one fact a newcomer gets wrong: state changes only through the changes that stand
//! in the records, see `state.rs`; a change made anywhere else would be lost by a restart.

mod approval;
mod conclude;
mod effects;
mod facts;
mod guard;
mod input;
mod judge;
mod ledger;
mod lifecycle;
mod origin;
mod prepare;
mod record;
mod replay;
mod restore;
mod seen;
mod shrink;
mod sink;
mod state;
mod understand;
mod view;

pub use facts::{
    Budget, Caller, EFFECTS_MAX, FileDigest, Located, Looked, Overloaded, Parts, Prepared, Ready, Resolution, RunKey,
    Unlimited, Wanted,
};
pub use guard::Guard;
pub use input::{
    Alert, Answer, ApprovalView, Approver, BREAK_GLASS_SECONDS_MAX, CageNote, Input, Limits, Note, Output, Response,
    Settings, Submission, Trust, Unattributed,
};
pub use ledger::{AgentCounts, Ledger, OTHER, RuleCounts};
pub use prepare::{PREPARED_BYTES_MAX, places, prepare};
pub use replay::{Difference, Differences, Explained, Replayed, explain, replay};
pub use restore::RestoreError;
pub use shrink::SNAPSHOT_BYTES_MAX;
pub use state::BreakGlass;
pub use understand::{understand, wanted};
pub use view::{ActiveBundle, RunView};
