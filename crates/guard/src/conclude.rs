//! What follows from a decision: its record, open calls, labels, known destinations, alerts, the ledger.
//!
//! The one fact a newcomer gets wrong: a record is written for every action, also for those that nothing was decided
//! on, and exactly here.

use std::collections::{BTreeMap, BTreeSet};

use creel_dialect::executed;
use creel_model::record::{Detail, Envelope};
use creel_model::{Decision, Effect, LabelFact, Origin, Point, RecordKind, Severity, Verdict};
use serde_json::Value;

use crate::facts::Ready;
use crate::guard::Step;
use crate::ledger::{Count, RuleCounts};
use crate::prepare::places;
use crate::record::{self, cut, envelope, json, rule_ids};
use crate::seen::{Seen, call_key, workspace_key};
use crate::state::{Batch, Change, OpenCall};
use crate::{effects, origin, sink};

impl Step<'_> {
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
            failed: false,
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
        if judged.native && !judged.failed {
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
}
