//! Judging: which rules match each effect, and what follows (DESIGN §8, `docs/decisions/0002-cedar-semantics.md`).
//!
//! Rules are sliced by verb and object type when they are prepared. A slice is Cedar policy sets: the enforced forbids,
//! the audit forbids, and — only for verbs whose default is not *allow* — the permits.

use std::collections::BTreeMap;
use std::str::FromStr as _;

use cedar_policy::{Authorizer, Decision as CedarDecision, Entities, Policy, PolicyId, PolicySet, Request};

use creel_model::{Effect, MatchedRule, RuleMode, Severity, Verb, Verdict};

use crate::bundle::Bundle;
use crate::facts;
use crate::question::{EffectExplanation, Explanation, Judgement, Question};
use crate::rules::Rule;
use crate::schema::TYPES;

/// Rules per verb and object type.
#[derive(Debug, Default)]
pub(crate) struct Engine {
    slices: Vec<Slice>,
    authorizer: Authorizer,
}

#[derive(Debug, Default)]
struct Slice {
    enforced: Forbids,
    audit: Forbids,
    /// Permits that open a verb whose default is ask or deny; `None` where the generated permit lets everything pass.
    permits: Option<PolicySet>,
}

/// Forbids of one slice, in groups. A group's gate is one policy with the `||` of its members' conditions: where it does
/// not match, none of them does, at a fraction of the cost of asking each.
#[derive(Debug, Default)]
struct Forbids {
    count: u32,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    gate: Option<PolicySet>,
    members: PolicySet,
}

/// What a set of forbids said about one effect.
#[derive(Default)]
struct Found {
    /// Indices into the bundle's rules.
    matched: Vec<usize>,
    /// Cedar's words per rule that could not be evaluated.
    errors: Vec<String>,
}

/// The text of the permit that a default of *allow* compiles to.
pub(crate) fn generated_permit(verb: Verb) -> String {
    format!("permit (principal, action == Action::\"{verb}\", resource);")
}

impl Engine {
    /// Members per gate.
    const GROUP: usize = 16;
    /// Fewer members than this are asked one by one.
    const GATED_MIN: usize = 3;

    pub(crate) fn build(rules: &[Rule], defaults: &BTreeMap<Verb, Verdict>) -> Self {
        let mut slices = Vec::with_capacity(Verb::ALL.len() * TYPES.len());
        for verb in Verb::ALL {
            for kind in TYPES {
                let of = |mode: RuleMode, permit: bool| {
                    rules.iter().filter(move |rule| {
                        rule.permit == permit
                            && rule.info.mode == mode
                            && rule.info.verbs.contains(verb)
                            && rule.types.contains(kind)
                    })
                };
                let open = defaults.get(verb) == Some(&Verdict::Allow);
                slices.push(Slice {
                    enforced: Forbids::build(of(RuleMode::Block, false)),
                    audit: Forbids::build(of(RuleMode::Audit, false)),
                    permits: (!open).then(|| set(of(RuleMode::Block, true))),
                });
            }
        }
        Self { slices, authorizer: Authorizer::new() }
    }

    fn slice(&self, effect: &Effect) -> Option<&Slice> {
        let verb = Verb::ALL.iter().position(|verb| *verb == effect.verb)?;
        let kind = TYPES.iter().position(|kind| *kind == effect.object.type_name())?;
        self.slices.get(verb * TYPES.len() + kind)
    }

    fn find(&self, forbids: &Forbids, rules: &[Rule], request: &Request, entities: &Entities) -> Found {
        let mut found = Found::default();
        for group in &forbids.groups {
            if let Some(gate) = &group.gate {
                let response = self.authorizer.is_authorized(request, gate, entities);
                let silent = response.diagnostics().reason().next().is_none();
                // An error in one member's condition may hide the others behind it: then every member is asked.
                if silent && response.diagnostics().errors().next().is_none() {
                    continue;
                }
            }
            let response = self.authorizer.is_authorized(request, &group.members, entities);
            for id in response.diagnostics().reason() {
                let id: &str = id.as_ref();
                if let Ok(index) = rules.binary_search_by(|rule| rule.info.id.as_str().cmp(id)) {
                    found.matched.push(index);
                }
            }
            found.errors.extend(response.diagnostics().errors().map(ToString::to_string));
        }
        found.matched.sort_unstable();
        found.errors.sort_unstable();
        found
    }
}

impl Forbids {
    fn build<'a>(rules: impl Iterator<Item = &'a Rule>) -> Self {
        let rules: Vec<&Rule> = rules.collect();
        let groups = rules
            .chunks(Engine::GROUP)
            .map(|members| Group {
                gate: (members.len() >= Engine::GATED_MIN).then(|| gate(members)).flatten(),
                members: set(members.iter().copied()),
            })
            .collect();
        Self { count: u32::try_from(rules.len()).unwrap_or(u32::MAX), groups }
    }
}

fn set<'a>(rules: impl Iterator<Item = &'a Rule>) -> PolicySet {
    // Ids are unique in a bundle, so no policy can be refused.
    PolicySet::from_policies(rules.map(|rule| rule.policy.clone())).unwrap_or_default()
}

/// One forbid whose condition is the `||` of all members' conditions, built from Cedar's own tree of them; `None` where
/// the tree cannot be put together, which only costs speed.
fn gate(members: &[&Rule]) -> Option<PolicySet> {
    let mut any: Option<serde_json::Value> = None;
    for member in members {
        let body = member.gate_condition()?;
        any = Some(match any {
            None => body,
            Some(left) => serde_json::json!({ "||": { "left": left, "right": body } }),
        });
    }
    let json = serde_json::json!({
        "effect": "forbid",
        "principal": { "op": "All" },
        "action": { "op": "All" },
        "resource": { "op": "All" },
        "conditions": [{ "kind": "when", "body": any? }],
    });
    let policy = Policy::from_json(Some(PolicyId::from_str("gate").ok()?), json).ok()?;
    PolicySet::from_policies([policy]).ok()
}

impl Rule {
    /// The rule's whole condition, as one expression. Verb and object type are the slice's; a rule that restricts its
    /// principal or names a single object has more in its scope than that, and is not gated.
    fn gate_condition(&self) -> Option<serde_json::Value> {
        use cedar_policy::{PrincipalConstraint, ResourceConstraint};
        let plain = matches!(self.policy.principal_constraint(), PrincipalConstraint::Any | PrincipalConstraint::Is(_))
            && matches!(self.policy.resource_constraint(), ResourceConstraint::Any | ResourceConstraint::Is(_));
        if !plain {
            return None;
        }
        let mut all = serde_json::json!({ "Value": true });
        for (index, condition) in self.conditions.as_array()?.iter().enumerate() {
            let body = condition.get("body")?.clone();
            let body = match condition.get("kind")?.as_str()? {
                "when" => body,
                "unless" => serde_json::json!({ "!": { "arg": body } }),
                _ => return None,
            };
            all = if index == 0 { body } else { serde_json::json!({ "&&": { "left": all, "right": body } }) };
        }
        Some(all)
    }
}

impl Bundle {
    /// Judges an action: every effect by the enforced rules, then exceptions, approvals and defaults; the strongest
    /// counts. Audit rules are judged beside it and only reported.
    #[must_use]
    pub fn judge(&self, question: &Question<'_>) -> Judgement {
        self.judge_with(&self.engine, question)
    }

    /// The rules in the modes that the bundle itself states.
    pub(crate) fn own_engine(&self) -> Engine {
        let mut rules = self.rules.clone();
        for rule in &mut rules {
            rule.info.mode = rule.own_mode;
        }
        Engine::build(&rules, &self.defaults)
    }

    pub(crate) fn judge_with(&self, engine: &Engine, question: &Question<'_>) -> Judgement {
        let mut rules = Vec::new();
        let mut audit = Vec::new();
        if question.effects.len() > Self::EFFECTS_MAX {
            let reason = format!("the action has {} effects, more than can be judged", question.effects.len());
            rules.push(own("too-many-effects", Verdict::Ask, Severity::High, reason, Self::EFFECTS_MAX));
        }
        for (index, effect) in question.effects.iter().take(Self::EFFECTS_MAX).enumerate() {
            self.judge_effect(engine, question, index, effect, &mut rules, &mut audit);
        }
        self.conclude(question, rules, audit)
    }

    /// Judges and tells for each effect exactly what the rules saw.
    #[must_use]
    pub fn explain(&self, question: &Question<'_>) -> Explanation {
        let effects = question.effects.iter().take(Self::EFFECTS_MAX).map(|effect| {
            let alone = self.judge(&Question { effects: std::slice::from_ref(effect), ..*question });
            EffectExplanation {
                effect: format!("{} {}", effect.verb, effect.object),
                facts: facts::json(question, effect, &self.zones),
                verdict: alone.verdict,
                considered: self.engine.slice(effect).map_or(0, |slice| slice.enforced.count + slice.audit.count),
            }
        });
        Explanation { effects: effects.collect(), judgement: self.judge(question) }
    }

    fn judge_effect(
        &self,
        engine: &Engine,
        question: &Question<'_>,
        index: usize,
        effect: &Effect,
        rules: &mut Vec<MatchedRule>,
        audit: &mut Vec<MatchedRule>,
    ) {
        let request = self.names.request(question, effect, &self.zones);
        let (Some(slice), Ok((request, entities))) = (engine.slice(effect), &request) else {
            let why = request.err().unwrap_or_default();
            rules.push(error(&format!("the effect could not be put to the rules: {why}"), index));
            return;
        };
        for (forbids, out) in [(&slice.enforced, &mut *rules), (&slice.audit, audit)] {
            if forbids.groups.is_empty() {
                continue;
            }
            let found = engine.find(forbids, &self.rules, request, entities);
            for rule in found.matched.iter().filter_map(|rule| self.rules.get(*rule)) {
                out.push(self.matched(question, rule, index, effect));
            }
            for why in found.errors {
                out.push(error(&format!("a rule could not be evaluated, so the action is refused: {why}"), index));
            }
        }
        if let Some(permits) = &slice.permits {
            let response = engine.authorizer.is_authorized(request, permits, entities);
            if let Some(why) = response.diagnostics().errors().next() {
                rules.push(error(&format!("a permit could not be evaluated, so the action is refused: {why}"), index));
            }
            if response.decision() == CedarDecision::Deny {
                let verdict = self.defaults.get(&effect.verb).copied().unwrap_or(Verdict::Deny);
                let reason =
                    format!("the policy's default for `{}` is {verdict}, and no rule permits this", effect.verb);
                let mut matched = own("default", verdict, Severity::Medium, reason, index);
                if verdict == Verdict::Ask {
                    matched.approved_by = question.set_aside.get("default").cloned();
                }
                rules.push(matched);
            }
        }
    }

    fn matched(&self, question: &Question<'_>, rule: &Rule, index: usize, effect: &Effect) -> MatchedRule {
        let info = &rule.info;
        let exception = info.exceptable.then(|| {
            let mut of_rule = self.exceptions.iter().filter(|exception| exception.info.rule == info.id);
            of_rule.find(|exception| exception.covers(question, effect)).map(|exception| exception.info.id.clone())
        });
        let approved = (info.effect == Verdict::Ask).then(|| question.set_aside.get(&info.id).cloned());
        MatchedRule {
            excepted_by: exception.flatten(),
            approved_by: approved.flatten(),
            ..own(&info.id, info.effect, info.severity, info.reason.clone(), index)
        }
    }

    fn conclude(&self, question: &Question<'_>, mut rules: Vec<MatchedRule>, mut audit: Vec<MatchedRule>) -> Judgement {
        if let Some(approval) = question.set_aside.get("too-many-effects") {
            for rule in rules.iter_mut().filter(|rule| rule.rule == "too-many-effects") {
                rule.approved_by = Some(approval.clone());
            }
        }
        let mut transforms = BTreeMap::new();
        let mut conflicts = Vec::new();
        for matched in rules.iter().filter(|rule| counts(rule) && rule.effect == Verdict::Modify) {
            let transform = self.rule(&matched.rule).and_then(|rule| rule.transform);
            let Some(transform) = transform else { continue };
            match transforms.insert(matched.effect_index, transform) {
                Some(other) if other != transform => conflicts.push(matched.effect_index),
                _ => {}
            }
        }
        conflicts.dedup();
        for index in conflicts {
            transforms.remove(&index);
            let reason = "two rules demand different changes of the same text, so it is refused".to_owned();
            rules.push(own("conflicting-transforms", Verdict::Deny, Severity::High, reason, index as usize));
        }
        for list in [&mut rules, &mut audit] {
            list.sort_by(|left, right| {
                (right.effect, right.severity)
                    .cmp(&(left.effect, left.severity))
                    .then_with(|| (left.effect_index, &left.rule).cmp(&(right.effect_index, &right.rule)))
            });
        }
        let verdict = rules.iter().filter(|rule| counts(rule)).map(|rule| rule.effect).max().unwrap_or(Verdict::Allow);
        if verdict != Verdict::Modify {
            transforms.clear();
        }
        Judgement { verdict, rules, audit, transforms }
    }
}

/// Whether nothing set a matched rule aside.
fn counts(rule: &MatchedRule) -> bool {
    rule.excepted_by.is_none() && rule.approved_by.is_none()
}

fn own(rule: &str, effect: Verdict, severity: Severity, reason: String, index: usize) -> MatchedRule {
    MatchedRule {
        rule: rule.to_owned(),
        effect,
        severity,
        reason,
        effect_index: u32::try_from(index).unwrap_or(u32::MAX),
        excepted_by: None,
        approved_by: None,
    }
}

fn error(reason: &str, index: usize) -> MatchedRule {
    own("policy-error", Verdict::Deny, Severity::High, reason.to_owned(), index)
}
