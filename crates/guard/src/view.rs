//! The state as plain data for people: status, approvals, quietness.

use std::collections::BTreeMap;
use std::sync::Arc;

use creel_model::{Digest, RuleMode, RunId};
use creel_policy::Bundle;
use serde::{Deserialize, Serialize};

use crate::facts::RunKey;
use crate::guard::Guard;
use crate::input::ApprovalView;
use crate::ledger::Ledger;
use crate::state::{Approval, BreakGlass, Standing};

/// The bundle that judges, as facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveBundle {
    /// Digest of its files.
    pub digest: Digest,
    /// Its name.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Why it is believed.
    pub trust: String,
}

/// A run as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunView {
    /// Its id.
    pub run: RunId,
    /// Its key.
    pub key: RunKey,
    /// Kind.
    pub kind: String,
    /// Account.
    pub uid: u32,
    /// Whether it ended.
    pub ended: bool,
    /// Labels in words.
    pub labels: Vec<String>,
    /// Calls that run now.
    pub open_calls: usize,
    /// Last action, boot clock in nanoseconds.
    pub last_boot_ns: u64,
}

impl Guard {
    /// The bundle that judges; `None` until one was activated in this process, and then everything is denied.
    #[must_use]
    pub fn bundle(&self) -> Option<&Arc<Bundle>> {
        self.bundle.as_ref()
    }

    /// The bundle last activated, also in an earlier process.
    #[must_use]
    pub fn active_bundle(&self) -> Option<ActiveBundle> {
        self.state.active.as_ref().map(|active| ActiveBundle {
            digest: active.digest.clone(),
            id: active.id.clone(),
            version: active.version.clone(),
            trust: active.trust.clone(),
        })
    }

    /// Mode of every rule, as last activated.
    #[must_use]
    pub fn modes(&self) -> &BTreeMap<String, RuleMode> {
        &self.state.modes
    }

    /// Whether and why rules do not act.
    #[must_use]
    pub fn break_glass(&self) -> Option<&BreakGlass> {
        self.state.break_glass.as_ref()
    }

    /// Questions that are open or whose answer is still fresh, oldest first.
    #[must_use]
    pub fn approvals(&self) -> Vec<ApprovalView> {
        let mut views: Vec<ApprovalView> = self.state.approvals.values().map(|known| self.view(known)).collect();
        views.sort_by(|a, b| (a.asked_unix_ns, &a.id).cmp(&(b.asked_unix_ns, &b.id)));
        views
    }

    /// The quietness ledger.
    #[must_use]
    pub fn quietness(&self) -> &Ledger {
        &self.state.ledger
    }

    /// The runs that are remembered, at most [`crate::Limits::runs`].
    pub fn runs(&self) -> impl Iterator<Item = RunView> + '_ {
        self.state.runs.iter().map(|(id, run)| RunView {
            run: id.clone(),
            key: run.key.clone(),
            kind: run.kind.clone(),
            uid: run.uid,
            ended: run.ended,
            labels: run.labels.iter().map(|fact| fact.label.to_string()).collect(),
            open_calls: self.state.open_calls(id).count(),
            last_boot_ns: run.last_boot_ns,
        })
    }

    /// When the next `Tick` is needed, by the boot clock in nanoseconds.
    #[must_use]
    pub fn next_deadline_boot_ns(&self) -> Option<u64> {
        let holds = self.waiting.values().map(|waiting| waiting.deadline_boot_ns);
        let expiries = self.state.approvals.values().map(|known| known.expires_boot_ns);
        let glass = self.state.break_glass.iter().map(|glass| glass.until_boot_ns);
        holds.chain(expiries).chain(glass).min()
    }

    pub(crate) fn view(&self, known: &Approval) -> ApprovalView {
        ApprovalView {
            id: known.id.clone(),
            state: match known.standing {
                Standing::Open => "open",
                Standing::Approved(_) => "approved",
                Standing::Refused(_) => "refused",
            }
            .to_owned(),
            kind: known.kind.clone(),
            owner: known.uid,
            run: known.run.to_string(),
            conversation: known.conversation.clone(),
            workspace: known.workspace.clone(),
            tool: known.tool.clone(),
            point: known.point,
            effects: known.effects.clone(),
            rules: known.rules.clone(),
            severity: known.severity,
            digest: known.digest.short().to_owned(),
            asked_unix_ns: known.asked_unix_ns,
            waiting: self.waiting.contains_key(&known.id),
            expires_boot_ns: known.expires_boot_ns,
        }
    }
}
