//! Everything that is not an agent's action: runs, bundles, modes, break-glass, calls that cannot be attributed, notes.
//!
//! The one fact a newcomer gets wrong: a call without an agent above it, and a payload that was not understood, are
//! denied also while the glass is broken: nobody knows whose action that would be, or what it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use creel_model::{Decision, RecordKind, RuleMode, Severity, Verdict};
use creel_policy::Bundle;
use serde_json::{Map, Value};

use crate::facts::{Caller, EFFECTS_MAX, RunKey};
use crate::guard::{Step, deny};
use crate::input::{Answer, Approver, BREAK_GLASS_SECONDS_MAX, CageNote, Note, Trust, Unattributed};
use crate::record::{cut, detail, facts, json, rule_ids, subject};
use crate::state::{Active, Batch, BreakGlass, Change, goes_back};

/// Most bytes of a note's facts; beyond, they are replaced by a sentence that says so.
const NOTE_BYTES_MAX: usize = 256 * 1024;

impl Step<'_> {
    pub(crate) fn run_started(&mut self, caller: &Caller) {
        if self.guard.state.runs.contains_key(&caller.run.id()) {
            return;
        }
        let mut envelope = self.envelope(RecordKind::Event, caller.account.uid);
        envelope.code = Some("run.started".to_owned());
        envelope.subject = Some(subject(caller, ""));
        self.run(caller, &envelope.action_id.clone());
        let run = self.guard.state.runs.get(&caller.run.id());
        envelope.causes = run.map(|run| run.causes.clone()).unwrap_or_default();
        let facts = facts([
            ("approval_mode", json(&caller.approval_mode)),
            ("managed", Value::Bool(caller.managed)),
            ("interactive", Value::Bool(caller.interactive)),
            ("caged", Value::Bool(caller.caged)),
        ]);
        self.record(envelope, detail(facts));
    }

    pub(crate) fn run_ended(&mut self, key: &RunKey) {
        let id = key.id();
        let Some(run) = self.guard.state.runs.get(&id).filter(|run| !run.ended).cloned() else { return };
        let open = self.guard.state.open_calls(&id).count();
        self.change(Change::RunEnded(id.clone()));
        let mut envelope = self.envelope(RecordKind::Event, run.uid);
        envelope.code = Some("run.ended".to_owned());
        envelope.subject = Some(creel_model::record::Subject {
            kind: run.kind.clone(),
            run: id,
            uid: run.uid,
            pid: key.process.pid,
            conversation: String::new(),
            workspace: None,
        });
        self.record(envelope, detail(facts([("open_calls", Value::from(open))])));
    }

    /// A checked bundle becomes the active one, if it may.
    pub(crate) fn activate(&mut self, bundle: Arc<Bundle>, trust: &Trust, confirmed_by: Option<Approver>) {
        if let Some(why) = self.refuses_bundle(&bundle, trust, confirmed_by.as_ref()) {
            self.bundle_refused(&why);
            self.out.refused = Some(why);
            return;
        }
        let before = self.guard.state.active.clone();
        let active = Active {
            digest: bundle.digest().clone(),
            id: cut(bundle.id(), 128),
            version: cut(bundle.version(), 64),
            trust: trust.to_string(),
        };
        let changed = before.as_ref() != Some(&active);
        let modes = modes_of(&bundle);
        self.guard.bundle = Some(bundle);
        self.change(Change::Activated(active.clone()));
        self.change(Change::Modes(modes));
        let mut envelope = self.envelope(RecordKind::Policy, 0);
        envelope.code = Some(if changed { "policy.activated" } else { "policy.reactivated" }.to_owned());
        let facts = facts([
            ("id", Value::from(active.id)),
            ("version", Value::from(active.version)),
            ("before", json(&before.map(|before| before.digest))),
            ("confirmed_by", json(&confirmed_by)),
        ]);
        self.record(envelope, detail(facts));
        self.out.sync = true;
    }

    fn refuses_bundle(&self, bundle: &Bundle, trust: &Trust, confirmed_by: Option<&Approver>) -> Option<String> {
        let state = &self.guard.state;
        let same = state.active.as_ref().is_some_and(|active| active.digest == *bundle.digest());
        if same {
            return None;
        }
        if *trust == Trust::LocalUnsigned && state.active.is_some() && confirmed_by.is_none() {
            return Some(
                "a bundle that nobody signed replaces the active one only when a person confirms it".to_owned(),
            );
        }
        let highest = state.versions.get(bundle.id());
        match (trust, highest) {
            (Trust::Signed(_) | Trust::RootOwned, Some(highest)) if goes_back(highest, bundle.version()) => {
                Some(format!(
                    "version {} of `{}` is older than {highest}: going back is a new version with old content",
                    bundle.version(),
                    bundle.id(),
                ))
            }
            _ => None,
        }
    }

    pub(crate) fn bundle_refused(&mut self, why: &str) {
        let mut envelope = self.envelope(RecordKind::Policy, 0);
        envelope.code = Some("policy.refused".to_owned());
        self.record(envelope, detail(facts([("why", Value::from(cut(why, 4096)))])));
    }

    pub(crate) fn set_modes(&mut self, bundle: Arc<Bundle>, by: &Approver) {
        let active = self.guard.state.active.as_ref().map(|active| active.digest.clone());
        if active.as_ref() != Some(bundle.digest()) {
            self.out.refused = Some("these modes belong to another bundle than the active one".to_owned());
            return;
        }
        let modes = modes_of(&bundle);
        let before = &self.guard.state.modes;
        let changed: BTreeMap<&String, [Option<&RuleMode>; 2]> = modes
            .iter()
            .filter(|(rule, mode)| before.get(*rule) != Some(mode))
            .map(|(rule, mode)| (rule, [before.get(rule), Some(mode)]))
            .collect();
        let changed = json(&changed);
        self.guard.bundle = Some(bundle);
        self.change(Change::Modes(modes));
        let mut envelope = self.envelope(RecordKind::Policy, 0);
        envelope.code = Some("policy.modes".to_owned());
        self.record(envelope, detail(facts([("changed", changed), ("by", json(by))])));
        self.out.sync = true;
    }

    pub(crate) fn open_break_glass(&mut self, seconds: u64, reason: &str, uid: Option<u32>, by: Approver) {
        let reason = cut(reason.trim(), 512);
        if reason.is_empty() || seconds == 0 {
            self.out.refused = Some("break-glass needs a reason and a time".to_owned());
            return;
        }
        let seconds = seconds.min(BREAK_GLASS_SECONDS_MAX);
        let glass = BreakGlass {
            until_boot_ns: self.now.boot_ns.saturating_add(seconds.saturating_mul(1_000_000_000)),
            opened_unix_ns: self.now.unix_ns,
            reason,
            uid,
            by,
        };
        self.change(Change::BreakGlass(Some(glass.clone())));
        let mut envelope = self.envelope(RecordKind::BreakGlass, glass.by.uid);
        envelope.code = Some("break-glass.opened".to_owned());
        let pairs = [
            ("seconds", Value::from(seconds)),
            ("reason", Value::from(glass.reason.clone())),
            ("uid", json(&uid)),
            ("by", json(&glass.by)),
        ];
        self.record(envelope, detail(facts(pairs)));
        let text = format!("{} suspended the rules for {seconds} s: {}", cut(&glass.by.name, 64), glass.reason);
        self.alert("alert.break-glass", Severity::High, text, None, glass.by.uid);
        self.out.sync = true;
    }

    /// Rules act again; `by` is absent when the time was over.
    pub(crate) fn end_break_glass(&mut self, by: Option<&Approver>) {
        let Some(glass) = self.guard.state.break_glass.clone() else {
            self.out.refused = Some("the rules act already".to_owned());
            return;
        };
        self.change(Change::BreakGlass(None));
        let mut envelope = self.envelope(RecordKind::BreakGlass, glass.by.uid);
        envelope.code = Some("break-glass.ended".to_owned());
        self.record(envelope, detail(facts([("by", json(&by)), ("opened_by", json(&glass.by))])));
        self.out.sync = true;
    }

    /// Whether rules are suspended for an account.
    pub(crate) fn break_glass_for(&self, uid: u32) -> bool {
        self.guard
            .state
            .break_glass
            .as_ref()
            .is_some_and(|glass| glass.until_boot_ns > self.now.boot_ns && glass.uid.is_none_or(|only| only == uid))
    }

    pub(crate) fn no_agent_above(&mut self, call: &Unattributed) {
        let why = "no known agent is above this hook call";
        let decision = deny("no-agent-above", Severity::High, why.to_owned());
        self.unattributed(call, &decision, "hook.no-agent-above");
        let text = format!("{why}: kind `{}`, process {}, account {}", cut(&call.kind, 64), call.pid, call.uid);
        self.alert("alert.no-agent-above", Severity::High, text, None, call.uid);
        self.out.answer = Some(Answer::Final(decision));
    }

    pub(crate) fn malformed(&mut self, call: &Unattributed) {
        let reason = format!("the event could not be understood: {}", cut(&call.reason, 512));
        let decision = deny("malformed", Severity::Medium, reason);
        self.unattributed(call, &decision, "hook.malformed");
        self.out.answer = Some(Answer::Final(decision));
    }

    pub(crate) fn overload_call(&mut self, call: &Unattributed) {
        let reason = "creel has too much to do at the moment; try it again".to_owned();
        let decision = deny("overload", Severity::Medium, reason);
        self.unattributed(call, &decision, "hook.overload");
        self.out.answer = Some(Answer::Final(decision));
    }

    /// The record of a call that is denied without a look into it.
    fn unattributed(&mut self, call: &Unattributed, decision: &Decision, code: &str) {
        let owner = call.caller.as_ref().map_or(call.uid, |caller| caller.account.uid);
        let mut envelope = self.envelope(RecordKind::Decision, owner);
        envelope.code = Some(code.to_owned());
        envelope.subject = call.caller.as_ref().map(|caller| subject(caller, ""));
        envelope.event = Some(cut(&call.event, 64));
        envelope.verdict = Some(Verdict::Deny);
        envelope.rules = rule_ids(decision.rules.iter());
        envelope.payload_bytes = call.payload_bytes;
        envelope.took_ns = match call.received.boot_ns {
            0 => 0,
            received => self.now.boot_ns.saturating_sub(received),
        };
        let pairs = [
            ("kind", Value::from(cut(&call.kind, 64))),
            ("reason", Value::from(cut(&call.reason, 512))),
            ("peer_uid", Value::from(call.uid)),
            ("peer_pid", Value::from(call.pid)),
        ];
        let mut detail = detail(facts(pairs));
        detail.decision = Some(decision.clone());
        self.record(envelope, detail);
    }

    pub(crate) fn note(&mut self, note: Note) {
        let mut envelope = self.envelope(note.kind, note.owner);
        envelope.code = Some(cut(&note.code, 128));
        self.record(envelope, detail(bounded(note.facts)));
        self.out.sync = true;
    }

    pub(crate) fn cage(&mut self, note: CageNote) {
        let mut envelope = self.envelope(note.kind, note.caller.account.uid);
        envelope.code = Some(cut(&note.code, 128));
        envelope.subject = Some(subject(&note.caller, ""));
        envelope.verdict = note.verdict;
        for rule in note.rules {
            let rule = cut(&rule, 128);
            if envelope.rules.len() < EFFECTS_MAX && !envelope.rules.contains(&rule) {
                envelope.rules.push(rule);
            }
        }
        let run = self.run(&note.caller, &envelope.action_id.clone());
        self.change(Change::Seen { run, conversation: None, at: self.now.boot_ns });
        let mut detail = detail(bounded(note.facts));
        detail.effects = note.effects;
        detail.effects.truncate(EFFECTS_MAX);
        envelope.effects = u32::try_from(detail.effects.len()).unwrap_or(u32::MAX);
        self.record(envelope, detail);
    }
}

/// Facts that an edge hands in, without what is the guard's own and within their size.
fn bounded(mut facts: Map<String, Value>) -> Map<String, Value> {
    facts.remove(Batch::FACT);
    if Value::Object(facts.clone()).to_string().len() > NOTE_BYTES_MAX {
        facts = crate::record::facts([("left_out", Value::from("the facts were larger than 256 KiB"))]);
    }
    facts
}

/// The mode of every rule, as it stands in a bundle.
fn modes_of(bundle: &Bundle) -> BTreeMap<String, RuleMode> {
    bundle.rules().iter().map(|rule| (rule.id.clone(), rule.mode)).collect()
}
