//! The single-threaded half: one input at a time to an answer, records and changes of the state.
//!
//! This file holds the frame and the way of an action through it. Approvals are in `approval.rs`, everything that is
//! not an action in `lifecycle.rs`. The one fact a newcomer gets wrong: a step never fails and never waits. What cannot
//! be decided is denied, and what needs a human is `Pending` and comes back through another input.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use creel_dialect::executed;
use creel_model::action::SessionChange;
use creel_model::record::{Detail, Envelope, Record};
use creel_model::{
    ActionId, Basis, Cause, Decision, Effect, Label, LabelFact, Link, MatchedRule, Moment, Origin, Point, RecordKind,
    RunId, Severity, TraceId, Verdict,
};
use creel_policy::{Bundle, Judgement};
use serde_json::Value;

use crate::facts::{Caller, Overloaded, Prepared, Ready};
use crate::input::{Alert, Answer, Input, Output, Settings, Submission};
use crate::judge::Case;
use crate::ledger::{Count, RuleCounts};
use crate::prepare::{places, set_zones};
use crate::record::{self, cut, envelope, facts, json, rule_ids, strongest_first};
use crate::state::{Batch, Change, Conversation, OpenCall, Run, State};
use crate::{effects, origin, sink};

/// Turns facts into decisions. `Send`; used by one thread.
#[derive(Debug)]
pub struct Guard {
    pub(crate) settings: Settings,
    pub(crate) state: State,
    pub(crate) bundle: Option<Arc<Bundle>>,
    /// Held hooks by approval; not part of the state, because a connection does not survive a restart.
    pub(crate) waiting: BTreeMap<String, Waiting>,
    /// How many ids were drawn.
    drawn: u64,
    /// Version of the detectors' data, for records.
    detectors: String,
}

/// A held hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) ticket: u64,
    pub(crate) since_boot_ns: u64,
    pub(crate) deadline_boot_ns: u64,
    /// The approval was given; the action is being prepared again.
    pub(crate) rechecking: bool,
}

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

impl Guard {
    /// A guard that knows nothing. Until a bundle is activated it denies everything.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: State::default(),
            bundle: None,
            waiting: BTreeMap::new(),
            drawn: 0,
            detectors: creel_inspect::data_version(),
        }
    }

    /// Takes one input. Append `records` before giving any answer.
    pub fn step(&mut self, input: Input, now: Moment) -> Output {
        let mut step = Step { guard: self, now, out: Output::default(), changes: Vec::new() };
        match input {
            Input::Action(submission) => step.action(*submission),
            Input::Recheck { ticket, prepared } => step.recheck(ticket, *prepared),
            Input::Gone { ticket } => step.gone(ticket),
            Input::RunStarted(caller) => step.run_started(&caller),
            Input::RunEnded(key) => step.run_ended(&key),
            Input::Answer { approval, response, approver } => step.answer(&approval, response, approver),
            Input::Activate { bundle, modes, trust, confirmed_by } => {
                step.activate(bundle, modes, &trust, confirmed_by);
            }
            Input::BundleRefused { why } => step.bundle_refused(&why),
            Input::SetModes { bundle, modes, by } => step.set_modes(bundle, modes, &by),
            Input::OpenBreakGlass { seconds, reason, uid, by } => step.open_break_glass(seconds, &reason, uid, by),
            Input::EndBreakGlass { by } => step.end_break_glass(Some(&by)),
            Input::Tick => step.tick(),
            Input::NoAgentAbove(call) => step.no_agent_above(&call),
            Input::Malformed(call) => step.malformed(&call),
            Input::Overload(call) => step.overload_call(&call),
            Input::Note(note) => step.note(*note),
        }
        step.finish()
    }

    /// 16 bytes that no other id of this guard has.
    fn draw(&mut self) -> [u8; 16] {
        self.drawn += 1;
        let mut text = self.settings.seed.to_vec();
        text.extend(self.drawn.to_be_bytes());
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(creel_seal::sha256(&text)).for_each(|(to, from)| *to = from);
        bytes
    }

    pub(crate) fn action_id(&mut self) -> ActionId {
        ActionId::from_random(self.draw())
    }

    /// An id that a person can type; not in use.
    pub(crate) fn approval_id(&mut self) -> String {
        loop {
            let id = format!("ap-{}", creel_model::id::hex(self.draw().get(..4).unwrap_or_default()));
            if !self.state.approvals.contains_key(&id) {
                return id;
            }
        }
    }
}

/// One step under way.
pub(crate) struct Step<'g> {
    pub(crate) guard: &'g mut Guard,
    pub(crate) now: Moment,
    pub(crate) out: Output,
    pub(crate) changes: Vec<Change>,
}

impl Step<'_> {
    /// Changes the state, and remembers the change for the next record.
    pub(crate) fn change(&mut self, change: Change) {
        self.guard.state.apply(&change, &self.guard.settings.limits);
        self.changes.push(change);
    }

    /// Writes a record; it carries the changes made since the one before.
    pub(crate) fn record(&mut self, envelope: Envelope, mut detail: Detail) {
        if !self.changes.is_empty() {
            let batch = Batch { serial: self.guard.state.next_serial(), changes: std::mem::take(&mut self.changes) };
            detail.facts.insert(Batch::FACT.to_owned(), json(&batch));
        }
        self.out.records.push(Record { envelope, detail });
    }

    /// Every change is on record: those after the step's last record are added to it.
    fn finish(mut self) -> Output {
        if self.changes.is_empty() {
            return self.out;
        }
        let written = self.out.records.last_mut().and_then(|last| last.detail.facts.get_mut(Batch::FACT));
        if let Some(Value::Array(written)) = written.and_then(|batch| batch.get_mut("changes")) {
            written.extend(self.changes.iter().map(json));
            self.changes.clear();
            return self.out;
        }
        let mut envelope = self.envelope(RecordKind::Event, 0);
        envelope.code = Some("state.changed".to_owned());
        self.record(envelope, Detail::default());
        self.out
    }

    pub(crate) fn envelope(&mut self, kind: RecordKind, owner: u32) -> Envelope {
        let id = self.guard.action_id();
        envelope(&self.guard.settings, &self.guard.state, kind, self.now, id, owner)
    }

    /// Raises an alert and records it, as caused by an action of a run.
    pub(crate) fn alert(
        &mut self,
        code: &str,
        severity: Severity,
        text: String,
        of: Option<(&Caller, &creel_model::Action, &ActionId)>,
        owner: u32,
    ) {
        let mut envelope = self.envelope(RecordKind::Alert, owner);
        envelope.code = Some(code.to_owned());
        if let Some((caller, action, id)) = of {
            record::of_action(&mut envelope, caller, action);
            envelope.causes = vec![Cause { action_id: id.clone(), link: Link::Exact }];
        }
        let detail = record::detail(facts([("severity", json(&severity)), ("text", Value::from(text.clone()))]));
        self.record(envelope, detail);
        self.out.alerts.push(Alert { code: code.to_owned(), severity, text, owner });
    }

    fn action(&mut self, submission: Submission) {
        let Submission { ticket, prepared, received, wait_ns_max } = submission;
        let decision = match prepared {
            Prepared::Overload(over) => self.overloaded(&over, received),
            Prepared::Ready(mut ready) => {
                if let Some(reason) = self.refused_outright(&ready) {
                    let seen = self.see(&mut ready, received);
                    let decision = deny(reason.0, Severity::High, reason.1);
                    self.conclude(&seen, &decision, Verdict::Deny, None);
                    if reason.0 == "wrong-kind" {
                        let text = format!(
                            "a hook installed for {} was called below {}",
                            cut(&seen.ready.action.kind, 64),
                            cut(&seen.ready.caller.kind, 64)
                        );
                        let (caller, action) = (&seen.ready.caller, &seen.ready.action);
                        let owner = caller.account.uid;
                        self.alert("alert.wrong-kind", Severity::High, text, Some((caller, action, &seen.id)), owner);
                    }
                    decision
                } else {
                    let seen = self.see(&mut ready, received);
                    match self.decide(&seen, ticket, wait_ns_max) {
                        Some(decision) => decision,
                        None => return,
                    }
                }
            }
        };
        self.out.answer = Some(Answer::Final(decision));
    }

    /// Why an action is denied without asking the bundle.
    fn refused_outright(&self, ready: &Ready) -> Option<(&'static str, String)> {
        if ready.action.kind != ready.caller.kind {
            return Some((
                "wrong-kind",
                "the hook was called below another agent than the one it belongs to".to_owned(),
            ));
        }
        if self.guard.bundle.is_none() {
            return Some(("no-bundle", "no policy is active yet".to_owned()));
        }
        None
    }

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
            let open: Vec<&OpenCall> =
                self.guard.state.calls.get(&parent).into_iter().flat_map(BTreeMap::values).collect();
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

    /// The judged call that a result belongs to, by call id; closes it.
    fn correlate(&mut self, ready: &Ready, run: &RunId) -> Option<OpenCall> {
        if ready.action.point != Point::ToolResult {
            return None;
        }
        let key = call_key(&ready.action)?;
        let call = self.guard.state.calls.get(run)?.get(&key)?.clone();
        self.change(Change::CallClosed { run: run.clone(), id: key });
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
            let open = state.calls.get(run).into_iter().flat_map(BTreeMap::values);
            let spawning: Vec<&OpenCall> = open.filter(|call| call.spawns).collect();
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

    /// Asks the bundle and decides. `None`: a human is asked and the answer stands in `out`.
    fn decide(&mut self, seen: &Seen<'_>, ticket: u64, wait_ns_max: u64) -> Option<Decision> {
        let Some(bundle) = self.guard.bundle.clone() else {
            let decision = deny("no-bundle", Severity::High, "no policy is active yet".to_owned());
            self.conclude(seen, &decision, Verdict::Deny, None);
            return Some(decision);
        };
        let nothing = BTreeMap::new();
        let judgement = seen.case.judge(&bundle, seen.ready, &nothing, self.now);
        let judged = judgement.verdict;
        if record::stops(judged) && self.break_glass_for(seen.ready.caller.account.uid) {
            let decision = self.broken_glass(judgement);
            self.conclude(seen, &decision, judged, Some("break-glass"));
            return Some(decision);
        }
        let decision = match judged {
            Verdict::Allow => settled(judgement, Verdict::Allow, Vec::new()),
            Verdict::Deny => settled(judgement, Verdict::Deny, Vec::new()),
            Verdict::Modify => self.modified(seen, &bundle, judgement, &nothing),
            Verdict::Ask => return self.ask(seen, &bundle, judgement, ticket, wait_ns_max),
        };
        self.conclude(seen, &decision, judged, None);
        Some(decision)
    }

    /// The decision on a `modify`: the changed texts, or a deny that says why not.
    pub(crate) fn modified(
        &self,
        seen: &Seen<'_>,
        bundle: &Bundle,
        judgement: Judgement,
        set_aside: &BTreeMap<String, String>,
    ) -> Decision {
        match seen.case.modify(bundle, seen.ready, &judgement, set_aside, self.now) {
            Ok(changes) => settled(judgement, Verdict::Modify, changes),
            Err(why) => {
                let mut decision = settled(judgement, Verdict::Deny, Vec::new());
                decision.reason = format!("{} ({why})", decision.reason);
                decision.rules.push(own("modify-failed", Verdict::Deny, Severity::High, why));
                strongest_first(&mut decision.rules);
                decision
            }
        }
    }

    /// Records a decision and lets its consequences happen: open calls, labels, known destinations, the ledger.
    pub(crate) fn conclude(&mut self, seen: &Seen<'_>, decision: &Decision, judged: Verdict, code: Option<&str>) {
        let ready = seen.ready;
        self.count(ready, decision, !seen.again);
        match ready.action.point {
            Point::ToolCall => self.open_call(seen, decision),
            Point::ToolResult => self.result_arrived(seen, decision),
            Point::Prompt if decision.verdict != Verdict::Deny => {
                let labels = origin::labels(&[], &[], &ready.located, &ready.content_classes, &seen.id);
                self.raise(seen, labels);
            }
            _ => {}
        }
        let (mut envelope, detail) = self.decision_record(seen, decision, judged);
        envelope.code = code.map(str::to_owned);
        self.record(envelope, detail);
        if ready.action.point == Point::ToolResult {
            self.compare(seen);
        }
    }

    /// The record of a decision on an action.
    pub(crate) fn decision_record(
        &mut self,
        seen: &Seen<'_>,
        decision: &Decision,
        judged: Verdict,
    ) -> (Envelope, Detail) {
        let ready = seen.ready;
        let plain = ready.effects.is_empty() && decision.verdict == Verdict::Allow && !ready.action.blocking;
        let kind = if plain { RecordKind::Event } else { RecordKind::Decision };
        let owner = ready.caller.account.uid;
        let mut envelope = envelope(&self.guard.settings, &self.guard.state, kind, self.now, seen.id.clone(), owner);
        record::of_action(&mut envelope, &ready.caller, &ready.action);
        envelope.trace_id = seen.trace.clone();
        envelope.causes.clone_from(&seen.causes);
        envelope.verdict = Some(decision.verdict);
        envelope.rules = rule_ids(decision.rules.iter());
        envelope.audit_rules = rule_ids(decision.audit.iter());
        envelope.detectors = Some(self.guard.detectors.clone());
        envelope.payload_bytes = ready.payload_bytes;
        envelope.took_ns = self.now.boot_ns.saturating_sub(seen.received.boot_ns);
        envelope.effects = u32::try_from(seen.case.effects.len()).unwrap_or(u32::MAX);
        let shown = seen.case.effects.iter().zip(&ready.shown);
        let mut told = decision.clone();
        for change in &mut told.modifications {
            // Where and how often is kept; the text is the agent's.
            change.text = String::new();
        }
        let mut facts = ready.action.facts.clone();
        facts.remove(Batch::FACT);
        let detail = Detail {
            effects: shown.map(|(effect, object)| Effect { object: object.clone(), ..effect.clone() }).collect(),
            decision: Some(told),
            findings: ready.located.iter().map(|l| &l.finding).chain(&ready.parts.findings).cloned().collect(),
            labels: seen.case.labels.clone(),
            excerpt: ready.excerpt.clone(),
            cwd: ready.action.cwd.clone(),
            account: Some(ready.caller.account.clone()),
            facts: record::facts([
                ("judged", json(&judged)),
                ("context", json(&seen.case.context)),
                ("agent", json(&seen.case.agent)),
                ("places", json(&places(&ready.caller))),
                ("overflow", Value::Bool(ready.parts.overflow)),
                ("opaque", Value::Bool(ready.parts.opaque)),
                ("event", Value::Object(facts)),
            ]),
        };
        (envelope, detail)
    }

    /// Remembers a call that may run, to compare it with its result.
    fn open_call(&mut self, seen: &Seen<'_>, decision: &Decision) {
        let action = &seen.ready.action;
        let (Some(key), Some(call)) = (call_key(action), &action.call) else { return };
        let Some(runs) = executed(call, decision) else { return };
        let spawns = matches!(call.tool.as_str(), "Task" | "Agent" | "spawn_agent");
        let mut sinks: Vec<u64> = seen.case.effects.iter().flat_map(|effect| sink::tokens(&effect.object)).collect();
        sinks.sort_unstable();
        sinks.dedup();
        let call = OpenCall {
            action: seen.id.clone(),
            tool: cut(&call.tool, 256),
            conversation: action.conversation.clone(),
            subagent: action.subagent.clone(),
            fields: effects::fields(&runs.input),
            origins: origin::of_call(&seen.case.effects),
            sensitive: origin::sensitive(&seen.case.effects),
            sinks,
            native: decision.verdict == Verdict::Ask,
            spawns,
            order: 0,
        };
        self.change(Change::CallOpened { run: seen.run.clone(), id: key, call: Box::new(call) });
    }

    /// A result enters the context: labels, and destinations that are known now.
    fn result_arrived(&mut self, seen: &Seen<'_>, decision: &Decision) {
        let ready = seen.ready;
        let origins: Vec<Origin> = match &seen.call {
            Some(call) => call.origins.clone(),
            // What nobody judged may come from anywhere.
            None => vec![Origin::External],
        };
        let sensitive = seen.call.as_ref().map(|call| call.sensitive.clone()).unwrap_or_default();
        if decision.verdict != Verdict::Deny {
            let redacted = decision.verdict == Verdict::Modify;
            let classes = if redacted { &ready.classes_after } else { &ready.content_classes };
            let labels = origin::labels(&origins, &sensitive, &ready.located, classes, &seen.id);
            self.raise(seen, labels);
        }
        let sinks = seen.call.as_ref().map(|call| call.sinks.clone()).unwrap_or_default();
        if let Some(workspace) = workspace_key(&ready.caller).filter(|_| !ready.action.failed && !sinks.is_empty()) {
            self.change(Change::SinksSeen { workspace, tokens: sinks });
        }
    }

    /// Attaches labels to run and conversation, where they are new.
    fn raise(&mut self, seen: &Seen<'_>, labels: Vec<LabelFact>) {
        let known = self.labels(&seen.run, seen.conversation.as_deref());
        let fresh: Vec<LabelFact> =
            labels.into_iter().filter(|fact| !known.iter().any(|known| known.label == fact.label)).collect();
        if !fresh.is_empty() {
            self.change(Change::Labels {
                run: seen.run.clone(),
                conversation: seen.conversation.clone(),
                labels: fresh,
            });
        }
    }

    /// Compares what ran with what was judged (DESIGN §7).
    fn compare(&mut self, seen: &Seen<'_>) {
        let ready = seen.ready;
        let Some(ran) = &ready.action.call else { return };
        let owner = ready.caller.account.uid;
        let of = Some((&ready.caller, &ready.action, &seen.id));
        let Some(judged) = &seen.call else {
            let text = format!("a result of `{}` came without a call that was let go", cut(&ran.tool, 64));
            self.alert("alert.result-without-call", Severity::High, text, of, owner);
            return;
        };
        let fields = effects::fields(&ran.input);
        if judged.tool != ran.tool || judged.fields.get("") != fields.get("") {
            let differing: Vec<&str> = fields
                .iter()
                .filter(|(name, digest)| !name.is_empty() && judged.fields.get(*name) != Some(digest))
                .map(|(name, _)| name.as_str())
                .chain(judged.fields.keys().filter(|name| !fields.contains_key(*name)).map(String::as_str))
                .collect();
            let text = format!(
                "what ran is not what was judged: `{}` for `{}`, different: {}",
                cut(&ran.tool, 64),
                cut(&judged.tool, 64),
                cut(&differing.join(", "), 200)
            );
            self.alert("alert.result-mismatch", Severity::High, text, of, owner);
        }
        if judged.native {
            self.native_used(seen, judged);
        }
    }

    /// Counts an action in the ledger.
    pub(crate) fn count(&mut self, ready: &Ready, decision: &Decision, first: bool) {
        let mut rules: BTreeMap<String, RuleCounts> = BTreeMap::new();
        let acting = decision
            .rules
            .iter()
            .filter(|rule| rule.effect == decision.verdict && rule.excepted_by.is_none() && rule.approved_by.is_none());
        let ids: BTreeSet<&str> = acting.map(|rule| rule.rule.as_str()).collect();
        for id in ids {
            let counts = rules.entry(id.to_owned()).or_default();
            match decision.verdict {
                Verdict::Ask => counts.asks += 1,
                Verdict::Deny => counts.denials += 1,
                Verdict::Modify => counts.modified += 1,
                Verdict::Allow => {}
            }
        }
        let audit = if first { decision.audit.as_slice() } else { &[] };
        let would: BTreeSet<(&str, Verdict)> = audit.iter().map(|rule| (rule.rule.as_str(), rule.effect)).collect();
        for (id, effect) in &would {
            let counts = rules.entry((*id).to_owned()).or_default();
            match effect {
                Verdict::Ask => counts.would_ask += 1,
                Verdict::Deny => counts.would_deny += 1,
                _ => {}
            }
        }
        let would_have = would.iter().any(|(_, effect)| record::stops(*effect));
        self.change(Change::Count(Box::new(Count {
            kind: cut(&ready.caller.kind, 64),
            uid: ready.caller.account.uid,
            actions: u64::from(first),
            asks: u64::from(decision.verdict == Verdict::Ask),
            denials: u64::from(decision.verdict == Verdict::Deny),
            waited_ns: 0,
            would_have: u64::from(would_have && first),
            boot_ns: self.now.boot_ns,
            rules,
        })));
    }

    /// An action whose preparation ran out of budget: denied, or let go while the glass is broken.
    fn overloaded(&mut self, over: &Overloaded, received: Moment) -> Decision {
        let (caller, action) = (&over.caller, &over.action);
        let id = self.guard.action_id();
        self.attribute(caller, action, &id);
        let reason = "creel could not look at this in time; try it again, or in smaller parts".to_owned();
        let mut decision = deny("overload", Severity::Medium, reason);
        let mut code = None;
        if self.break_glass_for(caller.account.uid) {
            let rules = std::mem::take(&mut decision.rules);
            decision = Decision { rules, reason: String::new(), ..Decision::allow() };
            decision.rules.push(own("break-glass", Verdict::Allow, Severity::Info, "the glass is broken".to_owned()));
            code = Some("break-glass".to_owned());
        }
        let owner = caller.account.uid;
        let mut envelope = envelope(&self.guard.settings, &self.guard.state, RecordKind::Decision, self.now, id, owner);
        record::of_action(&mut envelope, caller, action);
        envelope.verdict = Some(decision.verdict);
        envelope.rules = rule_ids(decision.rules.iter());
        envelope.code = code;
        envelope.payload_bytes = over.payload_bytes;
        envelope.took_ns = self.now.boot_ns.saturating_sub(received.boot_ns);
        let detail = Detail {
            decision: Some(decision.clone()),
            account: Some(caller.account.clone()),
            cwd: action.cwd.clone(),
            ..Detail::default()
        };
        self.change(Change::Count(Box::new(Count {
            kind: cut(&caller.kind, 64),
            uid: owner,
            actions: 1,
            denials: u64::from(decision.verdict == Verdict::Deny),
            boot_ns: self.now.boot_ns,
            rules: BTreeMap::from([("overload".to_owned(), RuleCounts { denials: 1, ..RuleCounts::default() })]),
            ..Count::default()
        })));
        self.record(envelope, detail);
        decision
    }

    /// A judgement that the broken glass lets pass.
    fn broken_glass(&self, judgement: Judgement) -> Decision {
        let why = self.guard.state.break_glass.as_ref().map(|glass| glass.reason.clone()).unwrap_or_default();
        let mut decision = settled(judgement, Verdict::Allow, Vec::new());
        decision.reason = String::new();
        decision.rules.push(own("break-glass", Verdict::Allow, Severity::Info, why));
        decision
    }
}

/// A rule of creel's own.
pub(crate) fn own(rule: &str, effect: Verdict, severity: Severity, reason: String) -> MatchedRule {
    MatchedRule {
        rule: rule.to_owned(),
        effect,
        severity,
        reason,
        effect_index: 0,
        excepted_by: None,
        approved_by: None,
    }
}

/// A deny by creel's own rule.
pub(crate) fn deny(rule: &str, severity: Severity, reason: String) -> Decision {
    Decision {
        verdict: Verdict::Deny,
        rules: vec![own(rule, Verdict::Deny, severity, reason.clone())],
        reason,
        ..Decision::allow()
    }
}

/// A judgement with its final verdict.
pub(crate) fn settled(
    judgement: Judgement,
    verdict: Verdict,
    modifications: Vec<creel_model::Modification>,
) -> Decision {
    let reason = judgement.reason();
    Decision { verdict, rules: judgement.rules, audit: judgement.audit, reason, modifications, approval: None }
}

/// A conversation's key: account and kind with the claimed id, never the claimed id alone. `None`: it claims none.
fn conversation_key(caller: &Caller, claimed: &str) -> Option<String> {
    (!claimed.is_empty()).then(|| format!("{}/{}/{}", caller.account.uid, cut(&caller.kind, 64), cut(claimed, 256)))
}

/// The workspace whose destinations are remembered, per account.
fn workspace_key(caller: &Caller) -> Option<String> {
    caller.workspace.as_ref().map(|workspace| format!("{}/{workspace}", caller.account.uid))
}

/// Under what an open call is remembered in its run: the agent's call id, else the call itself.
fn call_key(action: &creel_model::Action) -> Option<String> {
    let call = action.call.as_ref()?;
    Some(match &call.call_id {
        Some(id) => format!("id:{}", cut(id, 256)),
        None => {
            let whole = effects::fields(&call.input).get("").copied().unwrap_or_default();
            format!("call:{}:{whole:016x}", cut(&call.tool, 256))
        }
    })
}
