//! The state to bytes and back, and forward again through the records written after them.
//!
//! Recovery is the same code as operation: every record carries the changes that its step made, and they are applied
//! in order. The one fact a newcomer gets wrong: an erased detail takes its changes with it. What is unknown then is
//! taken to be the worse: all runs and conversations count as `untrusted`, questions and answers are forgotten.

use creel_model::record::{Detail, Envelope};
use creel_model::{Basis, Label, LabelFact, Origin};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::guard::Guard;
use crate::input::Settings;
use crate::shrink::{self, SNAPSHOT_BYTES_MAX};
use crate::state::{Batch, Change, State};

/// The snapshot's format; another one is refused.
const FORMAT: u32 = 1;

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    boot_id: &'a str,
    state: &'a State,
}

#[derive(Deserialize)]
struct Read {
    format: u32,
    boot_id: String,
    state: State,
}

/// Why a snapshot cannot be used. The guard then starts from nothing: strict, because nothing is known to be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreError {
    /// Its bytes are not a snapshot.
    Unreadable(String),
    /// It is of another format than this one.
    Format(u32),
}

impl std::fmt::Display for RestoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RestoreError::Unreadable(why) => write!(f, "the state snapshot cannot be read: {why}"),
            RestoreError::Format(found) => write!(f, "the state snapshot has format {found}, expected {FORMAT}"),
        }
    }
}

impl std::error::Error for RestoreError {}

impl Guard {
    /// The state as bytes, without held hooks: no prompt and no argument of a call is in it. At most
    /// [`crate::SNAPSHOT_BYTES_MAX`] bytes: of a larger state the oldest is left out, and counts as unknown after a
    /// restart.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        let write = |state: &State| {
            let written = Written { format: FORMAT, boot_id: &self.settings.boot_id, state };
            serde_json::to_vec(&written).unwrap_or_default()
        };
        let whole = write(&self.state);
        if whole.len() <= SNAPSHOT_BYTES_MAX {
            return whole;
        }
        let mut state = self.state.clone();
        // What stands around the state takes a few bytes itself.
        shrink::to_fit(&mut state, SNAPSHOT_BYTES_MAX.saturating_sub(1_024));
        write(&state)
    }

    /// The guard as it was when the last of `after` was written. `after` are the records that follow the snapshot, in
    /// order, with their details (`None`: erased). No bundle is active in it until one is activated.
    ///
    /// # Errors
    /// When the snapshot is none, or of another format.
    pub fn restore<'a>(
        settings: Settings,
        snapshot: Option<&[u8]>,
        after: impl IntoIterator<Item = (&'a Envelope, Option<&'a Detail>)>,
    ) -> Result<Self, RestoreError> {
        let mut guard = Self::new(settings);
        let mut boot_id = None;
        if let Some(bytes) = snapshot {
            let read: Read =
                serde_json::from_slice(bytes).map_err(|error| RestoreError::Unreadable(error.to_string()))?;
            if read.format != FORMAT {
                return Err(RestoreError::Format(read.format));
            }
            guard.state = read.state;
            boot_id = Some(read.boot_id);
        }
        for (envelope, detail) in after {
            boot_id = Some(envelope.boot_id.clone());
            match detail {
                Some(detail) => guard.replay_changes(detail),
                None => guard.lost(envelope),
            }
        }
        if boot_id.is_some_and(|boot_id| boot_id != guard.settings.boot_id) {
            guard.another_boot();
        }
        Ok(guard)
    }

    fn replay_changes(&mut self, detail: &Detail) {
        let Some(batch) = detail.facts.get(Batch::FACT) else { return };
        let serial = batch.get("serial").and_then(Value::as_u64).unwrap_or_default();
        let Some(changes) = batch.get("changes").and_then(Value::as_array) else { return };
        if serial <= self.state.serial {
            // The snapshot was taken after the step that wrote this.
            return;
        }
        self.state.serial = serial;
        for change in changes {
            // A change of a newer minor version that is not known here cannot be made; the others still count.
            if let Ok(change) = Change::deserialize(change) {
                self.state.apply(&change, &self.settings.limits);
            }
        }
    }

    /// What an erased detail did is not known.
    fn lost(&mut self, envelope: &Envelope) {
        let fact = LabelFact {
            label: Label::Untrusted,
            origin: Origin::External,
            cause: envelope.action_id.clone(),
            basis: Basis::Declared,
        };
        let labels = std::slice::from_ref(&fact);
        self.state.runs.values_mut().for_each(|run| crate::state::union(&mut run.labels, labels));
        self.state.conversations.values_mut().for_each(|known| crate::state::union(&mut known.labels, labels));
        self.state.approvals.clear();
        self.state.break_glass = None;
    }

    /// The boot clock began anew: what it measured is over, and every process is gone.
    fn another_boot(&mut self) {
        self.state.approvals.clear();
        self.state.break_glass = None;
        self.state.calls.clear();
        self.state.forgotten_start_ticks = None;
        self.state.runs.clear();
        for known in self.state.conversations.values_mut() {
            known.last_boot_ns = 0;
        }
        for agent in self.state.ledger.agents.values_mut() {
            agent.last_boot_ns = 0;
        }
    }
}
