//! Everything the guard remembers, and the only way it changes: [`State::apply`].
//!
//! Every change made by a step stands in that step's records (`facts.state` of the detail), so that recovery is the
//! same code as operation: the last snapshot, then the changes of the records after it. The one fact a newcomer gets
//! wrong: nothing may be changed in place; make a [`Change`] of it.
//!
//! No text of a prompt and no argument of a call is kept here: objects that a user named are 64-bit tokens, and calls
//! are remembered by digests of their fields.

use std::collections::{BTreeMap, VecDeque};

use creel_model::{ActionId, Digest, LabelFact, Origin, Point, RuleMode, RunId, Severity, TraceId};
use serde::{Deserialize, Serialize};

use crate::facts::RunKey;
use crate::input::{Approver, Limits};
use crate::ledger::{Count, Ledger};

/// Most labels on a run or a conversation; further ones of the same kind change nothing that a rule can see.
pub(crate) const LABELS_MAX: usize = 64;
/// Most objects remembered as named by the user, per conversation; the oldest is forgotten first.
pub(crate) const NAMED_MAX: usize = 256;
/// Most bundles whose highest version is remembered.
const VERSIONS_MAX: usize = 64;

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) key: RunKey,
    pub(crate) kind: String,
    pub(crate) uid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<RunKey>,
    /// What led to it, where an open call of the parent did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) causes: Vec<creel_model::Cause>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) labels: Vec<LabelFact>,
    #[serde(default)]
    pub(crate) ended: bool,
    /// A conversation was seen in it.
    #[serde(default)]
    pub(crate) talked: bool,
    pub(crate) first_boot_ns: u64,
    pub(crate) last_boot_ns: u64,
}

/// A conversation, keyed by account, kind and claimed id together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Conversation {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) labels: Vec<LabelFact>,
    pub(crate) run: RunId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trace: Option<TraceId>,
    /// The turn as the agent claims it; only to see that it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) turn: Option<String>,
    /// The prompt that began the turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) prompt: Option<ActionId>,
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    pub(crate) named: VecDeque<u64>,
    pub(crate) last_boot_ns: u64,
}

/// A call that was let go and whose result has not come yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenCall {
    pub(crate) action: ActionId,
    pub(crate) tool: String,
    pub(crate) conversation: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subagent: Option<String>,
    /// Digests of the arguments, as the agent was let run them: the whole under the empty name, and by field.
    pub(crate) fields: BTreeMap<String, u64>,
    /// Where its result comes from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) origins: Vec<Origin>,
    /// Whether the result is sensitive because of what was read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sensitive: Vec<String>,
    /// Tokens of the destinations that count as seen once it succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sinks: Vec<u64>,
    /// The agent's own question was used.
    #[serde(default)]
    pub(crate) native: bool,
    /// The call starts a subagent.
    #[serde(default)]
    pub(crate) spawns: bool,
    /// Its failure was told. It is over, but Claude Code tells the result once more as an ordinary one.
    #[serde(default)]
    pub(crate) failed: bool,
    pub(crate) order: u64,
}

/// Where an approval stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Standing {
    Open,
    Approved(Approver),
    Refused(Approver),
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Approval {
    pub(crate) id: String,
    pub(crate) digest: Digest,
    pub(crate) standing: Standing,
    /// The ask rules that it sets aside.
    pub(crate) rules: Vec<(String, String)>,
    pub(crate) severity: Severity,
    pub(crate) effects: Vec<String>,
    pub(crate) kind: String,
    pub(crate) uid: u32,
    pub(crate) run: RunId,
    pub(crate) conversation: String,
    pub(crate) workspace: Option<String>,
    pub(crate) tool: String,
    pub(crate) point: Point,
    pub(crate) action: ActionId,
    pub(crate) asked_unix_ns: i64,
    pub(crate) asked_boot_ns: u64,
    pub(crate) expires_boot_ns: u64,
}

/// Rules do not act until then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakGlass {
    /// Boot clock, in nanoseconds.
    pub until_boot_ns: u64,
    /// Wall clock at the opening, in nanoseconds.
    pub opened_unix_ns: i64,
    /// Why.
    pub reason: String,
    /// Only for this account.
    pub uid: Option<u32>,
    /// Who.
    pub by: Approver,
}

/// The bundle that judges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Active {
    pub(crate) digest: Digest,
    pub(crate) id: String,
    pub(crate) version: String,
    pub(crate) trust: String,
}

/// One change of the state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Change {
    /// A run is new or its whole entry changes.
    Run(Box<Run>),
    RunEnded(RunId),
    /// A conversation is new or belongs to another run now.
    Conversation {
        key: String,
        run: RunId,
        labels: Vec<LabelFact>,
        at: u64,
    },
    /// An action of these was seen.
    Seen {
        run: RunId,
        conversation: Option<String>,
        at: u64,
    },
    Turn {
        conversation: String,
        trace: TraceId,
        turn: Option<String>,
        prompt: Option<ActionId>,
        named: Vec<u64>,
    },
    Labels {
        run: RunId,
        conversation: Option<String>,
        labels: Vec<LabelFact>,
    },
    CallOpened {
        run: RunId,
        id: String,
        call: Box<OpenCall>,
    },
    CallClosed {
        run: RunId,
        id: String,
    },
    SinksSeen {
        workspace: String,
        tokens: Vec<u64>,
    },
    Approval(Box<Approval>),
    ApprovalGone(String),
    Activated(Active),
    Modes(BTreeMap<String, RuleMode>),
    BreakGlass(Option<BreakGlass>),
    Count(Box<Count>),
}

/// The changes that one record carries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Batch {
    /// Its number; a snapshot that already holds it is not changed by it again.
    pub(crate) serial: u64,
    pub(crate) changes: Vec<Change>,
}

impl Batch {
    /// Under which name it stands in a detail's facts.
    pub(crate) const FACT: &'static str = "state";
}

/// Everything remembered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) runs: BTreeMap<RunId, Run>,
    pub(crate) conversations: BTreeMap<String, Conversation>,
    pub(crate) calls: BTreeMap<RunId, BTreeMap<String, OpenCall>>,
    pub(crate) approvals: BTreeMap<String, Approval>,
    /// Known destinations by workspace, oldest first.
    pub(crate) workspaces: BTreeMap<String, Sinks>,
    pub(crate) ledger: Ledger,
    pub(crate) active: Option<Active>,
    /// Highest version activated per bundle id.
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) modes: BTreeMap<String, RuleMode>,
    pub(crate) break_glass: Option<BreakGlass>,
    /// Latest start time, in clock ticks, of a run that was forgotten before it ended: older ones start untrusted.
    pub(crate) forgotten_start_ticks: Option<u64>,
    /// Number of the last batch of changes that is in this state.
    pub(crate) serial: u64,
    /// Counts opened calls and used workspaces, for order.
    pub(crate) order: u64,
}

/// Known destinations of one workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sinks {
    pub(crate) tokens: BTreeMap<u64, u64>,
    pub(crate) order: u64,
}

impl State {
    /// Numbers the next batch.
    pub(crate) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Makes one change. Deterministic; keeps every table within its limit by forgetting the oldest entry.
    pub(crate) fn apply(&mut self, change: &Change, limits: &Limits) {
        match change {
            Change::Run(run) => self.put_run(run, limits),
            Change::RunEnded(id) => {
                if let Some(run) = self.runs.get_mut(id) {
                    run.ended = true;
                }
                self.calls.remove(id);
            }
            Change::Conversation { key, run, labels, at } => self.put_conversation(key, run, labels, *at, limits),
            Change::Seen { run, conversation, at } => {
                if let Some(run) = self.runs.get_mut(run) {
                    run.last_boot_ns = *at;
                    run.ended = false;
                }
                if let Some(known) = conversation.as_ref().and_then(|key| self.conversations.get_mut(key)) {
                    known.last_boot_ns = *at;
                    known.run = run.clone();
                }
            }
            Change::Turn { conversation, trace, turn, prompt, named } => {
                if let Some(known) = self.conversations.get_mut(conversation) {
                    known.trace = Some(trace.clone());
                    known.turn.clone_from(turn);
                    known.prompt.clone_from(prompt);
                    for token in named {
                        if !known.named.contains(token) {
                            known.named.push_back(*token);
                        }
                    }
                    while known.named.len() > NAMED_MAX {
                        known.named.pop_front();
                    }
                }
            }
            Change::Labels { run, conversation, labels } => {
                if let Some(run) = self.runs.get_mut(run) {
                    union(&mut run.labels, labels);
                }
                if let Some(known) = conversation.as_ref().and_then(|key| self.conversations.get_mut(key)) {
                    union(&mut known.labels, labels);
                }
            }
            Change::CallOpened { run, id, call } => {
                self.order += 1;
                let open = self.calls.entry(run.clone()).or_default();
                open.insert(id.clone(), OpenCall { order: self.order, ..(**call).clone() });
                while open.len() > limits.calls {
                    let Some(oldest) = open.iter().min_by_key(|(_, call)| call.order).map(|(id, _)| id.clone()) else {
                        break;
                    };
                    open.remove(&oldest);
                }
                self.forget_calls(limits.calls_all);
            }
            Change::CallClosed { run, id } => {
                if let Some(open) = self.calls.get_mut(run) {
                    open.remove(id);
                    if open.is_empty() {
                        self.calls.remove(run);
                    }
                }
            }
            Change::SinksSeen { workspace, tokens } => self.see_sinks(workspace, tokens, limits),
            Change::Approval(approval) => {
                self.approvals.insert(approval.id.clone(), (**approval).clone());
            }
            Change::ApprovalGone(id) => {
                self.approvals.remove(id);
            }
            Change::Activated(active) => {
                let known = self.versions.entry(active.id.clone()).or_default();
                if !goes_back(known, &active.version) {
                    known.clone_from(&active.version);
                }
                while self.versions.len() > VERSIONS_MAX {
                    let other = self.versions.keys().find(|id| **id != active.id).cloned();
                    let Some(other) = other else { break };
                    self.versions.remove(&other);
                }
                self.active = Some(active.clone());
            }
            Change::Modes(modes) => self.modes.clone_from(modes),
            Change::BreakGlass(glass) => self.break_glass.clone_from(glass),
            Change::Count(count) => self.ledger.add(count, limits.ledger),
        }
    }

    fn put_run(&mut self, run: &Run, limits: &Limits) {
        self.runs.insert(run.key.id(), run.clone());
        while self.runs.len() > limits.runs {
            let oldest =
                self.runs.iter().min_by_key(|(id, run)| (!run.ended, run.last_boot_ns, *id)).map(|(id, _)| id.clone());
            let Some(gone) = oldest.and_then(|id| self.runs.remove(&id)) else { break };
            self.calls.remove(&gone.key.id());
            if !gone.ended {
                let ticks = gone.key.process.start_ticks;
                self.forgotten_start_ticks = Some(self.forgotten_start_ticks.map_or(ticks, |known| known.max(ticks)));
            }
        }
    }

    fn put_conversation(&mut self, key: &str, run: &RunId, labels: &[LabelFact], at: u64, limits: &Limits) {
        let known = self.conversations.entry(key.to_owned()).or_insert_with(|| Conversation {
            labels: Vec::new(),
            run: run.clone(),
            trace: None,
            turn: None,
            prompt: None,
            named: VecDeque::new(),
            last_boot_ns: at,
        });
        known.run = run.clone();
        known.last_boot_ns = at;
        union(&mut known.labels, labels);
        if let Some(run) = self.runs.get_mut(run) {
            run.talked = true;
        }
        while self.conversations.len() > limits.conversations {
            let oldest = self
                .conversations
                .iter()
                .filter(|(other, _)| *other != key)
                .min_by_key(|(key, known)| (known.last_boot_ns, *key))
                .map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            self.conversations.remove(&oldest);
        }
    }

    /// Calls of a run that may still be running.
    pub(crate) fn open_calls(&self, run: &RunId) -> impl Iterator<Item = &OpenCall> {
        self.calls.get(run).into_iter().flat_map(BTreeMap::values).filter(|call| !call.failed)
    }

    /// Forgets the oldest open calls of all runs beyond a number.
    fn forget_calls(&mut self, calls_max: usize) {
        while self.calls.values().map(BTreeMap::len).sum::<usize>() > calls_max {
            let all =
                self.calls.iter().flat_map(|(run, open)| open.iter().map(move |(id, call)| (run, id, call.order)));
            let oldest = all.min_by_key(|(_, _, order)| *order).map(|(run, id, _)| (run.clone(), id.clone()));
            let Some((run, id)) = oldest else { break };
            if let Some(open) = self.calls.get_mut(&run) {
                open.remove(&id);
                if open.is_empty() {
                    self.calls.remove(&run);
                }
            }
        }
    }

    fn see_sinks(&mut self, workspace: &str, tokens: &[u64], limits: &Limits) {
        self.order += 1;
        let order = self.order;
        let known = self.workspaces.entry(workspace.to_owned()).or_default();
        known.order = order;
        for token in tokens {
            known.tokens.insert(*token, order);
        }
        while known.tokens.len() > limits.sinks {
            let Some(oldest) = known.tokens.iter().min_by_key(|(token, order)| (**order, **token)).map(|(t, _)| *t)
            else {
                break;
            };
            known.tokens.remove(&oldest);
        }
        while self.workspaces.len() > limits.workspaces {
            let oldest = self.workspaces.iter().min_by_key(|(_, sinks)| sinks.order).map(|(key, _)| key.clone());
            let Some(oldest) = oldest else { break };
            self.workspaces.remove(&oldest);
        }
    }
}

/// Whether version `to` is lower than `from`: numbers are compared part by part, `1.10` is above `1.9`.
pub(crate) fn goes_back(from: &str, to: &str) -> bool {
    let parts = |version: &str| -> Vec<u64> {
        version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    parts(to) < parts(from)
}

/// Adds labels that are not there yet: one fact per label is kept, the first.
pub(crate) fn union(into: &mut Vec<LabelFact>, from: &[LabelFact]) {
    for fact in from {
        if into.len() < LABELS_MAX && !into.iter().any(|known| known.label == fact.label) {
            into.push(fact.clone());
        }
    }
}
