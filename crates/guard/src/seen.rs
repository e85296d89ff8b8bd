//! What the state knows of an action: run and conversation with their labels, turn, causes, sink grades (DESIGN §7, §9).
//!
//! The one fact a newcomer gets wrong: a claimed conversation never takes labels away. An id that is new inherits from
//! its run, one that is known brings its own along, and one that nobody has seen begin starts `untrusted`.

use creel_model::action::SessionChange;
use creel_model::{ActionId, Basis, Cause, Effect, Label, LabelFact, Link, Moment, Origin, Point, RunId, TraceId};

use crate::facts::{Caller, Ready};
use crate::guard::Step;
use crate::judge::Case;
use crate::prepare::{places, set_zones};
use crate::record::cut;
use crate::state::{Change, Conversation, OpenCall, Run};
use crate::{effects, origin, sink};

/// An action with what the state says about it.
pub(crate) struct Seen<'a> {
    pub(crate) ready: &'a Ready,
    pub(crate) received: Moment,
    pub(crate) id: ActionId,
    pub(crate) run: RunId,
    pub(crate) conversation: Option<String>,
    pub(crate) trace: Option<TraceId>,
    pub(crate) causes: Vec<Cause>,
    pub(crate) case: Case,
    /// The judged call that this is the result of.
    pub(crate) call: Option<OpenCall>,
    /// It was seen before and is judged again after an approval; the ledger has it already.
    pub(crate) again: bool,
}

impl Step<'_> {
    /// Everything the state knows about an action; remembers that it was seen.
    pub(crate) fn see<'a>(&mut self, ready: &'a mut Ready, received: Moment) -> Seen<'a> {
        let id = self.guard.action_id();
        let (run, conversation) = self.attribute(&ready.caller, &ready.action, &id);
        let trace = self.turn(ready, &id, conversation.as_deref());
        let call = self.correlate(ready, &run);
        let causes = self.causes(ready, &run, conversation.as_deref(), call.as_ref(), &id);
        self.rezone(ready);
        let mut effects = ready.effects.clone();
        self.grade(&mut effects, ready, conversation.as_deref());
        if let Some(call) = &call {
            // What arrives comes from where the judged call fetched it.
            let from = call.origins.iter().find(|origin| matches!(origin, Origin::External | Origin::Mcp(_)));
            for effect in &mut effects {
                effect.origin = from.or(call.origins.first()).cloned();
            }
        }
        let labels = self.labels(&run, conversation.as_deref());
        let case = Case::new(ready, effects, labels);
        Seen { ready, received, id, run, conversation, trace, causes, case, call, again: false }
    }

    /// The run and conversation of an action. Labels are inherited here (DESIGN §7).
    pub(crate) fn attribute(
        &mut self,
        caller: &Caller,
        action: &creel_model::Action,
        id: &ActionId,
    ) -> (RunId, Option<String>) {
        let run = self.run(caller, id);
        let at = self.now.boot_ns;
        let Some(key) = conversation_key(caller, &action.conversation) else {
            self.change(Change::Seen { run: run.clone(), conversation: None, at });
            return (run, None);
        };
        let run_labels = self.guard.state.runs.get(&run).map(|run| run.labels.clone()).unwrap_or_default();
        match self.guard.state.conversations.get(&key) {
            Some(known) => {
                let carried = known.labels.clone();
                let moved = known.run != run;
                self.change(Change::Seen { run: run.clone(), conversation: Some(key.clone()), at });
                if moved {
                    // It was carried into this run, or this run's labels into it: both know everything now.
                    let labels = [run_labels, carried].concat();
                    self.change(Change::Labels { run: run.clone(), conversation: Some(key.clone()), labels });
                }
            }
            None => {
                let talked = self.guard.state.runs.get(&run).is_some_and(|run| run.talked);
                let fresh = matches!(action.session, Some(SessionChange::Startup | SessionChange::Clear));
                let resumed = action.session == Some(SessionChange::Resume);
                let mut labels = run_labels;
                // Resumed from what we have not seen, or begun before we looked: nobody knows what was read.
                if resumed || (!fresh && !talked) {
                    labels.push(LabelFact {
                        label: Label::Untrusted,
                        origin: Origin::External,
                        cause: id.clone(),
                        basis: Basis::Declared,
                    });
                }
                self.change(Change::Conversation { key: key.clone(), run: run.clone(), labels: labels.clone(), at });
                self.change(Change::Labels { run: run.clone(), conversation: None, labels });
                self.change(Change::Seen { run: run.clone(), conversation: Some(key.clone()), at });
            }
        }
        (run, Some(key))
    }

    /// The caller's run; a new one inherits from the agent above it.
    pub(crate) fn run(&mut self, caller: &Caller, id: &ActionId) -> RunId {
        let run = caller.run.id();
        if self.guard.state.runs.contains_key(&run) {
            return run;
        }
        let mut labels = Vec::new();
        let mut causes = Vec::new();
        if let Some(parent) = caller.parent.as_ref().map(crate::RunKey::id) {
            labels = self.guard.state.runs.get(&parent).map(|run| run.labels.clone()).unwrap_or_default();
            let open: Vec<&OpenCall> = self.guard.state.open_calls(&parent).collect();
            let link = if open.len() == 1 { Link::Subtree } else { Link::Interval };
            causes = open.iter().take(8).map(|call| Cause { action_id: call.action.clone(), link }).collect();
        }
        let older = self.guard.state.forgotten_start_ticks.is_some_and(|ticks| caller.run.process.start_ticks <= ticks);
        if older {
            labels.push(LabelFact {
                label: Label::Untrusted,
                origin: Origin::External,
                cause: id.clone(),
                basis: Basis::Declared,
            });
        }
        self.change(Change::Run(Box::new(Run {
            key: caller.run.clone(),
            kind: cut(&caller.kind, 64),
            uid: caller.account.uid,
            parent: caller.parent.clone(),
            causes,
            labels,
            ended: false,
            talked: false,
            first_boot_ns: self.now.boot_ns,
            last_boot_ns: self.now.boot_ns,
        })));
        run
    }

    /// The turn's id; a prompt begins a new turn, unless it is another event of the same claimed turn.
    fn turn(&mut self, ready: &Ready, id: &ActionId, conversation: Option<&str>) -> Option<TraceId> {
        let key = conversation?;
        let known = self.guard.state.conversations.get(key)?;
        let begins = ready.action.point == Point::Prompt && ready.action.subagent.is_none();
        let same = known.trace.is_some() && ready.action.turn.is_some() && known.turn == ready.action.turn;
        let (known_trace, known_prompt) = (known.trace.clone(), known.prompt.clone());
        let trace = match known_trace {
            Some(trace) if !begins => return Some(trace),
            Some(trace) if same => trace,
            _ => TraceId::from_random(self.guard.draw()),
        };
        self.change(Change::Turn {
            conversation: key.to_owned(),
            trace: trace.clone(),
            turn: ready.action.turn.clone(),
            prompt: if begins { Some(id.clone()) } else { known_prompt },
            named: ready.named.iter().copied().collect(),
        });
        Some(trace)
    }

    /// The judged call that a result belongs to, by call id; closes it. A failure closes it for everything but the
    /// ordinary result that may follow.
    fn correlate(&mut self, ready: &Ready, run: &RunId) -> Option<OpenCall> {
        if ready.action.point != Point::ToolResult {
            return None;
        }
        let key = call_key(&ready.action)?;
        let call = self.guard.state.calls.get(run)?.get(&key)?.clone();
        let over = if ready.action.failed && !call.failed {
            let told = OpenCall { failed: true, ..call.clone() };
            Change::CallOpened { run: run.clone(), id: key, call: Box::new(told) }
        } else {
            Change::CallClosed { run: run.clone(), id: key }
        };
        self.change(over);
        Some(call)
    }

    fn causes(
        &self,
        ready: &Ready,
        run: &RunId,
        conversation: Option<&str>,
        call: Option<&OpenCall>,
        id: &ActionId,
    ) -> Vec<Cause> {
        if let Some(call) = call {
            return vec![Cause { action_id: call.action.clone(), link: Link::Exact }];
        }
        if ready.action.point == Point::ToolResult {
            return Vec::new();
        }
        let state = &self.guard.state;
        if ready.action.subagent.is_some() {
            let spawning: Vec<&OpenCall> = state.open_calls(run).filter(|call| call.spawns).collect();
            if !spawning.is_empty() {
                let link = if spawning.len() == 1 { Link::Subtree } else { Link::Interval };
                return spawning.iter().take(8).map(|call| Cause { action_id: call.action.clone(), link }).collect();
            }
        }
        let prompt = conversation.and_then(|key| state.conversations.get(key)).and_then(|known| known.prompt.clone());
        match prompt {
            Some(prompt) if prompt != *id => vec![Cause { action_id: prompt, link: Link::Interval }],
            // The first thing a nested agent does was caused by what started it.
            _ => state.runs.get(run).map(|run| run.causes.clone()).unwrap_or_default(),
        }
    }

    /// Makes the zones anew where another bundle is active than the one that `prepare` used.
    fn rezone(&self, ready: &mut Ready) {
        let Some(bundle) = &self.guard.bundle else { return };
        if *bundle.digest() == ready.bundle {
            return;
        }
        let places = places(&ready.caller);
        for effect in &mut ready.effects {
            set_zones(effect, bundle, &places);
            effect.origin = origin::of(effect);
        }
        ready.bundle = bundle.digest().clone();
    }

    /// How well known each object is.
    fn grade(&self, effects: &mut [Effect], ready: &Ready, conversation: Option<&str>) {
        let state = &self.guard.state;
        let named = conversation.and_then(|key| state.conversations.get(key)).map(|known| &known.named);
        let sinks = workspace_key(&ready.caller).and_then(|key| state.workspaces.get(&key));
        for effect in effects {
            effect.sink = sink::grade(
                effect,
                |token| named.is_some_and(|named| named.contains(&token)),
                |token| sinks.is_some_and(|sinks| sinks.tokens.contains_key(&token)),
            );
        }
    }

    /// Labels in force: the union of the run's and the conversation's.
    pub(crate) fn labels(&self, run: &RunId, conversation: Option<&str>) -> Vec<LabelFact> {
        let state = &self.guard.state;
        let mut labels = state.runs.get(run).map(|run| run.labels.clone()).unwrap_or_default();
        let of_conversation: Option<&Conversation> = conversation.and_then(|key| state.conversations.get(key));
        crate::state::union(&mut labels, of_conversation.map_or(&[][..], |known| &known.labels));
        labels
    }
}

/// A conversation's key: account and kind with the claimed id, never the claimed id alone. `None`: it claims none.
fn conversation_key(caller: &Caller, claimed: &str) -> Option<String> {
    (!claimed.is_empty()).then(|| format!("{}/{}/{}", caller.account.uid, cut(&caller.kind, 64), cut(claimed, 256)))
}

/// The workspace whose destinations are remembered, per account.
pub(crate) fn workspace_key(caller: &Caller) -> Option<String> {
    caller.workspace.as_ref().map(|workspace| format!("{}/{workspace}", caller.account.uid))
}

/// Under what an open call is remembered in its run: the agent's call id, else the call itself.
pub(crate) fn call_key(action: &creel_model::Action) -> Option<String> {
    let call = action.call.as_ref()?;
    Some(match &call.call_id {
        Some(id) => format!("id:{}", cut(id, 256)),
        None => {
            let whole = effects::fields(&call.input).get("").copied().unwrap_or_default();
            format!("call:{}:{whole:016x}", cut(&call.tool, 256))
        }
    })
}
