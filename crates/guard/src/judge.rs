//! A prepared action and the state's facts to a judgement by the active bundle, and a `modify` to the changed texts.
//!
//! Nothing is remembered here. The one fact a newcomer gets wrong: a modified action is judged again exactly once, and
//! only a plain allow of the changed action makes the change an answer; everything else is a deny.

use std::collections::{BTreeMap, BTreeSet};

use creel_model::{
    Action, ApprovalMode, ContentRole, Effect, Label, LabelFact, MatchedRule, Modification, Moment, Object, Point,
    Severity, Verdict,
};
use creel_policy::{AgentFacts, Bundle, Context, Judgement, Labels, Question, Transform};

use crate::facts::{Caller, EFFECTS_MAX, Ready};
use crate::prepare::{is_sensitive, places};
use crate::record::strongest_first;

/// creel's own rule for an action with more effects than are judged.
pub(crate) const TOO_MANY_EFFECTS: &str = "too-many-effects";

/// Everything that the bundle is asked with.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) agent: AgentFacts,
    pub(crate) effects: Vec<Effect>,
    pub(crate) context: Context,
    pub(crate) labels: Vec<LabelFact>,
}

impl Case {
    /// The case of an action under these labels; `effects` already have their sink grades.
    pub(crate) fn new(ready: &Ready, effects: Vec<Effect>, labels: Vec<LabelFact>) -> Self {
        let findings = || ready.parts.findings.iter().chain(ready.located.iter().map(|located| &located.finding));
        let context = Context {
            point: ready.action.point,
            tool: ready.action.call.as_ref().map(|call| call.tool.clone()).unwrap_or_default(),
            labels: policy_labels(&labels),
            findings: findings().map(|finding| finding.code.clone()).collect(),
            finding_classes: findings().map(|finding| finding.class.clone()).collect(),
            content_classes: ready.content_classes.clone(),
            tier: ready.caller.tier.clone(),
            caged: ready.caller.caged,
            parsed: ready.parts.parsed && !ready.parts.overflow,
        };
        Self { agent: agent(&ready.caller, &ready.action), effects, context, labels }
    }

    /// What the bundle says. `set_aside` names ask rules that an approval sets aside.
    pub(crate) fn judge(
        &self,
        bundle: &Bundle,
        ready: &Ready,
        set_aside: &BTreeMap<String, String>,
        now: Moment,
    ) -> Judgement {
        let places = places(&ready.caller);
        let mut judgement = bundle.judge(&Question {
            agent: &self.agent,
            effects: &self.effects,
            context: &self.context,
            places: &places,
            set_aside,
            now_unix_s: now.unix_ns.div_euclid(1_000_000_000),
        });
        let told = judgement.rules.iter().any(|rule| rule.rule == TOO_MANY_EFFECTS);
        if ready.parts.overflow && !told {
            let approved_by = set_aside.get(TOO_MANY_EFFECTS).cloned();
            if approved_by.is_none() {
                judgement.verdict = judgement.verdict.max(Verdict::Ask);
            }
            judgement.rules.push(MatchedRule {
                rule: TOO_MANY_EFFECTS.to_owned(),
                effect: Verdict::Ask,
                severity: Severity::High,
                reason: format!("the action does more than the {EFFECTS_MAX} things that are judged"),
                effect_index: 0,
                excepted_by: None,
                approved_by,
            });
        }
        strongest_first(&mut judgement.rules);
        judgement
    }

    /// The case after the texts were changed: nothing sensitive is left but what detectors still see.
    fn after(&self, ready: &Ready) -> Self {
        let mut after = self.clone();
        let left = |class: &String| ready.classes_after.contains(class);
        // Only classes that come from texts go away; a secret file that is sent stays one.
        let from_texts = &ready.content_classes;
        for effect in &mut after.effects {
            effect.content.retain(|class| !from_texts.contains(class) || left(class));
        }
        after.context.content_classes.retain(|class| left(class));
        let gone: BTreeSet<&String> =
            ready.located.iter().filter(|l| is_sensitive(&l.finding)).map(|l| &l.finding.code).collect();
        if ready.classes_after.is_empty() {
            after.context.findings.retain(|code| !gone.contains(code));
            after.context.finding_classes.retain(|class| !from_texts.contains(class));
        }
        after
    }

    /// Carries out a `modify`: the changed texts, or why it cannot be done.
    pub(crate) fn modify(
        &self,
        bundle: &Bundle,
        ready: &Ready,
        judgement: &Judgement,
        set_aside: &BTreeMap<String, String>,
        now: Moment,
    ) -> Result<Vec<Modification>, String> {
        let mut changes = Vec::new();
        for (index, transform) in &judgement.transforms {
            let effect = self.effects.get(*index as usize).ok_or("a change of an effect that does not exist")?;
            let reason = judgement.reason();
            changes.extend(transformed(ready, effect, *transform, &reason));
        }
        let changes = merge(changes)?;
        if changes.is_empty() {
            return Err("the rule demands a change, but there is no text to change".to_owned());
        }
        takes_changes(&ready.action, &changes)?;
        let mut after = self.after(ready);
        if judgement.transforms.values().any(|transform| *transform == Transform::Withhold) {
            for index in judgement.transforms.keys() {
                if let Some(effect) = after.effects.get_mut(*index as usize) {
                    effect.content.clear();
                }
            }
        }
        let again = after.judge(bundle, ready, set_aside, now);
        match again.verdict {
            Verdict::Allow => Ok(changes),
            _ => Err(format!("after the change: {}", again.reason())),
        }
    }
}

/// Whether the agent's protocol lets these texts be replaced before they are used.
fn takes_changes(action: &Action, changes: &[Modification]) -> Result<(), String> {
    let base = match (action.event.as_str(), action.point) {
        ("PreToolUse", Point::ToolCall) => action.call.as_ref().map(|call| &call.input),
        ("PostToolUse", Point::ToolResult) => action.result.as_ref(),
        _ => None,
    };
    let known = creel_dialect::kinds::ALL.contains(&action.kind.as_str());
    let base = base.filter(|_| known && action.blocking).ok_or("the agent cannot take a changed text at this point")?;
    match creel_dialect::apply(base, changes) {
        Ok(_) => Ok(()),
        Err(pointer) => Err(format!("there is no text at `{pointer}` to change")),
    }
}

/// The texts that an effect moves, changed.
fn transformed(ready: &Ready, effect: &Effect, transform: Transform, reason: &str) -> Vec<Modification> {
    let roles: &[ContentRole] = match &effect.object {
        Object::Text { role, .. } => std::slice::from_ref(role),
        _ => &[ContentRole::Arguments, ContentRole::Outbound],
    };
    let here = ready.action.contents.iter().filter(|content| roles.contains(&content.role));
    match transform {
        Transform::Redact => {
            let pointers: BTreeSet<&str> = here.map(|content| content.pointer.as_str()).collect();
            ready.redactions.iter().filter(|change| pointers.contains(change.pointer.as_str())).cloned().collect()
        }
        Transform::Withhold => here
            .map(|content| Modification {
                pointer: content.pointer.clone(),
                text: format!("[withheld by creel: {reason}]"),
                replaced: 1,
            })
            .collect(),
    }
}

/// One change per text; two different ones of the same text are refused.
pub(crate) fn merge(changes: Vec<Modification>) -> Result<Vec<Modification>, String> {
    let mut merged: BTreeMap<String, Modification> = BTreeMap::new();
    for change in changes {
        match merged.get(&change.pointer) {
            Some(known) if known.text != change.text => {
                return Err("two rules demand different changes of the same text".to_owned());
            }
            Some(_) => {}
            None => {
                merged.insert(change.pointer.clone(), change);
            }
        }
    }
    Ok(merged.into_values().collect())
}

/// The agent as rules see it. Its own word about its mode can only make it look more open than what is known.
pub(crate) fn agent(caller: &Caller, action: &Action) -> AgentFacts {
    let claimed = action.permission_mode.as_deref().map_or(ApprovalMode::Unknown, graded);
    let approval_mode = match (caller.approval_mode, claimed) {
        (ApprovalMode::Unknown, claimed) => claimed,
        (known, ApprovalMode::Unknown) => known,
        (known, claimed) => known.max(claimed),
    };
    AgentFacts {
        kind: caller.kind.clone(),
        account_uid: caller.account.uid,
        mode: caller.mode,
        approval_mode,
        managed: caller.managed,
    }
}

/// An agent's own word for its approval mode.
fn graded(word: &str) -> ApprovalMode {
    match word {
        "plan" | "read-only" => ApprovalMode::ReadOnly,
        "default" | "ask" | "on-request" | "untrusted" => ApprovalMode::Ask,
        "acceptEdits" | "auto-edit" => ApprovalMode::Edits,
        "auto" | "on-failure" => ApprovalMode::Auto,
        "bypassPermissions" | "dontAsk" | "never" | "yolo" => ApprovalMode::Bypass,
        _ => ApprovalMode::Unknown,
    }
}

/// Whether the agent's own question may be used for an ask of that severity (DESIGN §10): up to `medium`, where its
/// protocol has one, a person sits at it, and its mode does not answer for that person.
pub(crate) fn native_ask(ready: &Ready, severity: Severity) -> bool {
    let asks = matches!(
        agent(&ready.caller, &ready.action).approval_mode,
        ApprovalMode::ReadOnly | ApprovalMode::Ask | ApprovalMode::Edits
    );
    severity <= Severity::Medium
        && asks
        && ready.caller.interactive
        && ready.action.blocking
        && ready.action.point == Point::ToolCall
        && ready.action.kind == creel_dialect::kinds::CLAUDE_CODE
        && ready.action.event == "PreToolUse"
}

/// Labels as rules see them.
pub(crate) fn policy_labels(labels: &[LabelFact]) -> Labels {
    let mut seen = Labels::default();
    for fact in labels {
        match &fact.label {
            Label::Untrusted => seen.untrusted = true,
            Label::Mixed => seen.mixed = true,
            Label::Sensitive(class) => {
                seen.sensitive.insert(class.clone());
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_changes_of_one_text_are_refused() {
        let change =
            |pointer: &str, text: &str| Modification { pointer: pointer.into(), text: text.into(), replaced: 1 };
        assert_eq!(merge(vec![change("/a", "x"), change("/b", "y"), change("/a", "x")]).unwrap().len(), 2);
        assert!(merge(vec![change("/a", "x"), change("/a", "y")]).is_err());
    }
}
