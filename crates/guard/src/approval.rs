//! Questions to humans: asked, answered, used once, expired (DESIGN §10).
//!
//! A question is bound to the effect digest. An answer lets exactly that happen once: the action is looked at again
//! with the files of now, and anything different is denied. The one fact a newcomer gets wrong: an approval sets aside
//! the `ask` rules that it names and nothing else, so a `deny` that appears meanwhile still denies.

use std::collections::{BTreeMap, BTreeSet};

use creel_model::record::Subject;
use creel_model::{Cause, Decision, Digest, Link, RecordKind, Severity, Verdict};
use creel_policy::{Bundle, Judgement};
use serde_json::Value;

use crate::effects;
use crate::facts::{Prepared, Ready};
use crate::guard::{Step, Waiting, deny, own, settled};
use crate::input::{Answer, Approver, Response};
use crate::judge::native_ask;
use crate::ledger::{Count, RuleCounts};
use crate::record::{cut, detail, facts, json, stops, strongest_first};
use crate::seen::Seen;
use crate::state::{Approval, Change, OpenCall, Standing};

/// Most lines of effects that a question shows.
const SHOWN_MAX: usize = 16;

impl Step<'_> {
    /// An action that rules want a human to see. `None`: its hook is held.
    pub(crate) fn ask(
        &mut self,
        seen: &Seen<'_>,
        bundle: &Bundle,
        judgement: Judgement,
        ticket: u64,
        wait_ns_max: u64,
    ) -> Option<Decision> {
        let rules = asking(&judgement);
        let digest = effects::digest(seen.ready, &seen.case.effects, &rules, bundle.digest());
        let decision = match self.known(&digest) {
            Some(known) => match (&known.standing, self.guard.waiting.contains_key(&known.id)) {
                (Standing::Approved(_), false) => self.use_approval(seen, bundle, &known),
                (Standing::Refused(by), _) => {
                    let why = format!("{} refused this ({})", cut(&by.name, 64), known.id);
                    denied(judgement, "approval-refused", why)
                }
                (_, true) => {
                    let why = format!("the same action already waits for an answer ({})", known.id);
                    denied(judgement, "approval-waiting", why)
                }
                (Standing::Open, false) => return self.hold(seen, judgement, &known, ticket, wait_ns_max),
            },
            None if !seen.ready.action.blocking => {
                let why = "nobody can be asked, because the agent does not wait here".to_owned();
                denied(judgement, "approval-impossible", why)
            }
            None if native_ask(seen.ready, worst(&judgement)) => {
                // Its result, if one comes, tells that the person at the agent said yes.
                settled(judgement, Verdict::Ask, Vec::new())
            }
            None => match self.open(seen, &judgement, &rules, digest) {
                Some(opened) => return self.hold(seen, judgement, &opened, ticket, wait_ns_max),
                None => denied(judgement, "overload", "too many questions are open".to_owned()),
            },
        };
        self.conclude(seen, &decision, Verdict::Ask, None);
        Some(decision)
    }

    /// The approval of that digest that still counts.
    fn known(&self, digest: &Digest) -> Option<Approval> {
        let now = self.now.boot_ns;
        let mut known = self.guard.state.approvals.values();
        known.find(|known| known.digest == *digest && known.expires_boot_ns > now).cloned()
    }

    /// Opens a question; `None` when there are too many.
    fn open(
        &mut self,
        seen: &Seen<'_>,
        judgement: &Judgement,
        rules: &BTreeSet<String>,
        digest: Digest,
    ) -> Option<Approval> {
        self.expire();
        let limits = &self.guard.settings.limits;
        let (all, of_one, validity_ns) = (limits.approvals, (limits.approvals / 4).max(1), limits.validity_ns);
        let approvals = &self.guard.state.approvals;
        let own = approvals.values().filter(|known| known.run == seen.run).count();
        if approvals.len() >= all || own >= of_one {
            return None;
        }
        let ready = seen.ready;
        let reason = |id: &String| {
            let rule = judgement.rules.iter().find(|rule| rule.rule == *id);
            (id.clone(), rule.map(|rule| cut(&rule.reason, 300)).unwrap_or_default())
        };
        let asked_about: BTreeSet<u32> = judgement.deciding().map(|rule| rule.effect_index).collect();
        let lines = seen.case.effects.iter().zip(&ready.shown).enumerate();
        let lines = lines.filter(|(index, _)| u32::try_from(*index).is_ok_and(|index| asked_about.contains(&index)));
        let mut lines: Vec<String> = lines.map(|(_, (effect, shown))| effects::sentence(effect, shown)).collect();
        if lines.len() > SHOWN_MAX {
            // Nobody approves what is not shown without being told that there is more.
            let more = lines.split_off(SHOWN_MAX - 1).len();
            lines.push(format!("… and {more} more that are not shown"));
        }
        let approval = Approval {
            id: self.guard.approval_id(),
            digest,
            standing: Standing::Open,
            rules: rules.iter().map(reason).collect(),
            severity: worst(judgement),
            effects: lines,
            kind: cut(&ready.caller.kind, 64),
            uid: ready.caller.account.uid,
            run: seen.run.clone(),
            conversation: cut(&ready.action.conversation, 256),
            workspace: ready.caller.workspace.clone(),
            tool: ready.action.call.as_ref().map(|call| cut(&call.tool, 128)).unwrap_or_default(),
            point: ready.action.point,
            action: seen.id.clone(),
            asked_unix_ns: self.now.unix_ns,
            asked_boot_ns: self.now.boot_ns,
            expires_boot_ns: self.now.boot_ns.saturating_add(validity_ns),
        };
        self.change(Change::Approval(Box::new(approval.clone())));
        Some(approval)
    }

    /// Holds the hook for an open question, or denies at once when the hook cannot wait.
    fn hold(
        &mut self,
        seen: &Seen<'_>,
        judgement: Judgement,
        approval: &Approval,
        ticket: u64,
        wait_ns_max: u64,
    ) -> Option<Decision> {
        let wait_ns = wait_ns_max.min(self.guard.settings.limits.hold_ns);
        if wait_ns == 0 {
            let decision = unanswered(settled(judgement, Verdict::Deny, Vec::new()), &approval.id);
            self.conclude(seen, &decision, Verdict::Ask, Some("approval.asked"));
            self.show(approval);
            return Some(decision);
        }
        let mut decision = settled(judgement, Verdict::Ask, Vec::new());
        decision.approval = Some(approval.id.clone());
        self.conclude(seen, &decision, Verdict::Ask, Some("approval.asked"));
        let deadline_boot_ns = self.now.boot_ns.saturating_add(wait_ns);
        self.guard.waiting.insert(
            approval.id.clone(),
            Waiting { ticket, since_boot_ns: self.now.boot_ns, deadline_boot_ns, rechecking: false },
        );
        self.show(approval);
        self.out.answer = Some(Answer::Pending { approval: approval.id.clone(), deadline_boot_ns });
        None
    }

    fn show(&mut self, approval: &Approval) {
        let view = self.guard.view(approval);
        self.out.asked.push(view);
    }

    /// Uses an approval up: the action is judged again with the named rules set aside.
    fn use_approval(&mut self, seen: &Seen<'_>, bundle: &Bundle, approval: &Approval) -> Decision {
        let set_aside: BTreeMap<String, String> =
            approval.rules.iter().map(|(rule, _)| (rule.clone(), approval.id.clone())).collect();
        let judgement = seen.case.judge(bundle, seen.ready, &set_aside, self.now);
        let decision = match judgement.verdict {
            Verdict::Allow => settled(judgement, Verdict::Allow, Vec::new()),
            Verdict::Modify => self.modified(seen, bundle, judgement, &set_aside),
            Verdict::Ask | Verdict::Deny => stale(judgement, &approval.id),
        };
        self.change(Change::ApprovalGone(approval.id.clone()));
        let code = if stops(decision.verdict) { "approval.stale" } else { "approval.used" };
        self.approval_record(approval, code, None, Some(Cause { action_id: seen.id.clone(), link: Link::Exact }));
        decision
    }

    /// A human's answer.
    pub(crate) fn answer(&mut self, id: &str, response: Response, approver: Approver) {
        self.expire();
        let Some(known) = self.guard.state.approvals.get(id).cloned() else {
            self.out.refused = Some(format!("no question `{}` is open", cut(id, 32)));
            return;
        };
        if known.standing != Standing::Open {
            self.out.refused = Some(format!("`{}` was answered already", known.id));
            return;
        }
        let validity_ns = self.guard.settings.limits.validity_ns;
        let (standing, code) = match response {
            Response::Approve => (Standing::Approved(approver.clone()), "approval.approved"),
            Response::Refuse => (Standing::Refused(approver.clone()), "approval.refused"),
        };
        let expires_boot_ns = self.now.boot_ns.saturating_add(validity_ns);
        let answered = Approval { standing, expires_boot_ns, ..known };
        self.change(Change::Approval(Box::new(answered.clone())));
        self.approval_record(&answered, code, Some(&approver), None);
        self.out.sync = true;
        match response {
            Response::Approve => {
                if let Some(waiting) = self.guard.waiting.get_mut(id) {
                    waiting.rechecking = true;
                    self.out.recheck.push(waiting.ticket);
                }
            }
            Response::Refuse => {
                let why = format!("{} refused this ({id})", cut(&approver.name, 64));
                self.let_go(&answered, deny("approval-refused", answered.severity, why));
            }
        }
    }

    /// The held action, prepared again with the files of now.
    pub(crate) fn recheck(&mut self, ticket: u64, prepared: Prepared) {
        let held = self.guard.waiting.iter().find(|(_, waiting)| waiting.ticket == ticket && waiting.rechecking);
        let Some(id) = held.map(|(id, _)| id.clone()) else {
            self.out.refused = Some("no approved action waits under that ticket".to_owned());
            return;
        };
        let Some(approval) = self.guard.state.approvals.get(&id).cloned() else { return };
        self.waited(&approval);
        self.guard.waiting.remove(&id);
        let decision = match prepared {
            Prepared::Overload(_) => {
                // Nothing was used: the same action may be tried again while the answer is fresh.
                let why = format!("approved, but creel could not look at it again in time; try it again ({id})");
                let decision = deny("overload", Severity::Medium, why);
                self.decided(&approval, &decision, "approval.overload");
                decision
            }
            Prepared::Ready(mut ready) => self.approved(&mut ready, &approval),
        };
        self.out.released.push((ticket, decision));
    }

    /// Decides on an approved action that was prepared again.
    fn approved(&mut self, ready: &mut Ready, approval: &Approval) -> Decision {
        let received = self.now;
        let mut seen = self.see(ready, received);
        seen.again = true;
        seen.causes = vec![Cause { action_id: approval.action.clone(), link: Link::Exact }];
        let Some(bundle) = self.guard.bundle.clone() else {
            let decision = deny("no-bundle", Severity::High, "no policy is active".to_owned());
            self.conclude(&seen, &decision, Verdict::Deny, None);
            return decision;
        };
        let judgement = seen.case.judge(&bundle, seen.ready, &BTreeMap::new(), self.now);
        let judged = judgement.verdict;
        let digest = effects::digest(seen.ready, &seen.case.effects, &asking(&judgement), bundle.digest());
        let decision = if judged == Verdict::Ask && digest == approval.digest && approval.kind == seen.ready.caller.kind
        {
            self.use_approval(&seen, &bundle, approval)
        } else {
            self.change(Change::ApprovalGone(approval.id.clone()));
            let cause = Cause { action_id: seen.id.clone(), link: Link::Exact };
            self.approval_record(approval, "approval.stale", None, Some(cause));
            stale(judgement, &approval.id)
        };
        self.conclude(&seen, &decision, judged, None);
        decision
    }

    /// The hook of a held action went away.
    pub(crate) fn gone(&mut self, ticket: u64) {
        let held = self.guard.waiting.iter().find(|(_, waiting)| waiting.ticket == ticket);
        let Some(id) = held.map(|(id, _)| id.clone()) else { return };
        if let Some(approval) = self.guard.state.approvals.get(&id).cloned() {
            self.waited(&approval);
            self.approval_record(&approval, "approval.hook-gone", None, None);
        }
        self.guard.waiting.remove(&id);
    }

    /// Holds that are over are released, what expired is forgotten.
    pub(crate) fn tick(&mut self) {
        let now = self.now.boot_ns;
        let over: Vec<String> = self
            .guard
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.deadline_boot_ns <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in over {
            if let Some(approval) = self.guard.state.approvals.get(&id).cloned() {
                let plain = deny("approval-unanswered", approval.severity, String::new());
                let decision = unanswered(plain, &approval.id);
                self.decided(&approval, &decision, "approval.hold-ended");
                self.let_go(&approval, decision);
            }
        }
        self.expire();
        let glass_over = self.guard.state.break_glass.as_ref().is_some_and(|glass| glass.until_boot_ns <= now);
        if glass_over {
            self.end_break_glass(None);
        }
    }

    /// Forgets approvals whose time is over.
    pub(crate) fn expire(&mut self) {
        let now = self.now.boot_ns;
        let expired: Vec<Approval> =
            self.guard.state.approvals.values().filter(|known| known.expires_boot_ns <= now).cloned().collect();
        for approval in expired {
            self.change(Change::ApprovalGone(approval.id.clone()));
            self.approval_record(&approval, "approval.expired", None, None);
            let why = format!("nobody answered in time ({})", approval.id);
            self.let_go(&approval, deny("approval-unanswered", approval.severity, why));
        }
    }

    /// Releases the hook that is held for an approval, if one is.
    pub(crate) fn let_go(&mut self, approval: &Approval, decision: Decision) {
        if self.guard.waiting.contains_key(&approval.id) {
            self.waited(approval);
        }
        if let Some(waiting) = self.guard.waiting.remove(&approval.id) {
            self.out.released.push((waiting.ticket, decision));
        }
    }

    /// Counts the time that a hook was held.
    fn waited(&mut self, approval: &Approval) {
        let Some(waiting) = self.guard.waiting.get(&approval.id) else { return };
        let waited_ns = self.now.boot_ns.saturating_sub(waiting.since_boot_ns);
        let counts = RuleCounts { waited_ns, ..RuleCounts::default() };
        self.change(Change::Count(Box::new(Count {
            kind: approval.kind.clone(),
            uid: approval.uid,
            waited_ns,
            boot_ns: self.now.boot_ns,
            rules: approval.rules.iter().map(|(rule, _)| (rule.clone(), counts.clone())).collect(),
            ..Count::default()
        })));
    }

    /// The agent's own question was answered with yes: that is all the result tells.
    pub(crate) fn native_used(&mut self, seen: &Seen<'_>, judged: &OpenCall) {
        let mut envelope = self.envelope(RecordKind::Approval, seen.ready.caller.account.uid);
        crate::record::of_action(&mut envelope, &seen.ready.caller, &seen.ready.action);
        envelope.code = Some("approval.native-used".to_owned());
        envelope.trace_id.clone_from(&seen.trace);
        envelope.causes = vec![Cause { action_id: judged.action.clone(), link: Link::Exact }];
        let facts = facts([("approver", Value::from("agent-ui, unverified"))]);
        self.record(envelope, detail(facts));
    }

    /// A record that also carries the decision that a held action got.
    fn decided(&mut self, approval: &Approval, decision: &Decision, code: &str) {
        let mut envelope = self.approval_envelope(approval, code);
        envelope.verdict = Some(decision.verdict);
        envelope.rules = crate::record::rule_ids(decision.rules.iter());
        let mut detail = detail(approval_facts(approval, None));
        detail.decision = Some(decision.clone());
        self.record(envelope, detail);
    }

    fn approval_record(&mut self, approval: &Approval, code: &str, by: Option<&Approver>, cause: Option<Cause>) {
        let mut envelope = self.approval_envelope(approval, code);
        envelope.causes.extend(cause);
        self.record(envelope, detail(approval_facts(approval, by)));
    }

    fn approval_envelope(&mut self, approval: &Approval, code: &str) -> creel_model::record::Envelope {
        let pid = self.guard.state.runs.get(&approval.run).map_or(0, |run| run.key.process.pid);
        let mut envelope = self.envelope(RecordKind::Approval, approval.uid);
        envelope.code = Some(code.to_owned());
        envelope.point = Some(approval.point);
        envelope.tool = (!approval.tool.is_empty()).then(|| approval.tool.clone());
        envelope.causes = vec![Cause { action_id: approval.action.clone(), link: Link::Exact }];
        envelope.subject = Some(Subject {
            kind: approval.kind.clone(),
            run: approval.run.clone(),
            uid: approval.uid,
            pid,
            conversation: cut(&approval.conversation, 128),
            workspace: approval.workspace.clone(),
        });
        envelope
    }
}

fn approval_facts(approval: &Approval, by: Option<&Approver>) -> serde_json::Map<String, Value> {
    let by = by.or(match &approval.standing {
        Standing::Approved(by) | Standing::Refused(by) => Some(by),
        Standing::Open => None,
    });
    facts([
        ("approval", Value::from(approval.id.clone())),
        ("digest", json(&approval.digest)),
        ("rules", json(&approval.rules)),
        ("effects", json(&approval.effects)),
        ("approver", json(&by)),
    ])
}

/// Ids of the rules that ask, as far as nothing set them aside.
fn asking(judgement: &Judgement) -> BTreeSet<String> {
    let asking = judgement
        .rules
        .iter()
        .filter(|rule| rule.effect == Verdict::Ask && rule.excepted_by.is_none() && rule.approved_by.is_none());
    asking.map(|rule| rule.rule.clone()).collect()
}

/// The worst severity among the deciding rules.
fn worst(judgement: &Judgement) -> Severity {
    judgement.deciding().map(|rule| rule.severity).max().unwrap_or(Severity::High)
}

/// A deny by creel's own rule, beside the rules that asked.
fn denied(judgement: Judgement, rule: &str, why: String) -> Decision {
    let severity = worst(&judgement);
    let asked = judgement.reason();
    let mut decision = settled(judgement, Verdict::Deny, Vec::new());
    decision.reason = if asked.is_empty() { why.clone() } else { format!("{asked} — {why}") };
    decision.rules.push(own(rule, Verdict::Deny, severity, why));
    strongest_first(&mut decision.rules);
    decision
}

/// The deny of a held action that nobody answered: it says how to go on.
fn unanswered(mut decision: Decision, id: &str) -> Decision {
    let why = format!("nobody has approved this yet: try the same again after `creel approve {id}`");
    let reasons: Vec<&str> =
        decision.rules.iter().filter(|rule| rule.effect == Verdict::Ask).map(|rule| rule.reason.as_str()).collect();
    decision.reason = match reasons.first() {
        Some(first) => format!("{first} — {why}"),
        None => why.clone(),
    };
    decision.rules.retain(|rule| rule.rule != "approval-unanswered");
    decision.rules.push(own("approval-unanswered", Verdict::Deny, Severity::Medium, why));
    strongest_first(&mut decision.rules);
    decision.approval = Some(id.to_owned());
    decision
}

/// The deny of an approved action that is not what was approved any more.
fn stale(judgement: Judgement, id: &str) -> Decision {
    let why = format!("this is not what was approved ({id}): something changed since; ask again");
    denied(judgement, "approval-stale", why)
}
