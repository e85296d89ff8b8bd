//! The single-threaded half: one input at a time to an answer, records and changes of the state.
//!
//! This file holds the frame and the way of an action through it. Approvals are in `approval.rs`, everything that is
//! not an action in `lifecycle.rs`. The one fact a newcomer gets wrong: a step never fails and never waits. What cannot
//! be decided is denied, and what needs a human is `Pending` and comes back through another input.

use std::collections::BTreeMap;
use std::sync::Arc;

use creel_model::record::{Detail, Envelope, Record};
use creel_model::{ActionId, Cause, Decision, Link, MatchedRule, Moment, RecordKind, Severity, Verdict};
use creel_policy::{Bundle, Judgement};
use serde_json::Value;

use crate::facts::{Caller, Overloaded, Prepared, Ready};
use crate::input::{Alert, Answer, Input, Output, Settings, Submission};
use crate::ledger::{Count, RuleCounts};
use crate::record::{self, cut, envelope, facts, json, rule_ids, strongest_first};
use crate::seen::Seen;
use crate::state::{Batch, Change, State};

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
    pub(crate) detectors: String,
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
            Input::Activate { bundle, trust, confirmed_by } => step.activate(bundle, &trust, confirmed_by),
            Input::BundleRefused { why } => step.bundle_refused(&why),
            Input::SetModes { bundle, by } => step.set_modes(bundle, &by),
            Input::OpenBreakGlass { seconds, reason, uid, by } => step.open_break_glass(seconds, &reason, uid, by),
            Input::EndBreakGlass { by } => step.end_break_glass(Some(&by)),
            Input::Tick => step.tick(),
            Input::NoAgentAbove(call) => step.no_agent_above(&call),
            Input::Malformed(call) => step.malformed(&call),
            Input::Overload(call) => step.overload_call(&call),
            Input::Note(note) => step.note(*note),
            Input::Cage(note) => step.cage(*note),
        }
        step.finish()
    }

    /// 16 bytes that no other id of this guard has.
    pub(crate) fn draw(&mut self) -> [u8; 16] {
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
