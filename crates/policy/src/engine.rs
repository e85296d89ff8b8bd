//! Judging: which rules match each effect, and what follows (DESIGN §8, `docs/decisions/0002-cedar-semantics.md`).
//!
//! Rules are sliced by verb and object type when they are prepared, and of a slice only those are put to Cedar that do
//! not certainly fail to match (`certain.rs`). Most effects are ordinary: nothing is left, and Cedar's request is never
//! made. Permits exist only for verbs whose default is not *allow*.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use cedar_policy::{Authorizer, Decision as CedarDecision, Entities, PolicySet, Request};

use creel_model::{Effect, MatchedRule, RuleMode, Severity, Verb, Verdict};

use crate::bundle::Bundle;
use crate::facts::Facts;
use crate::question::{EffectExplanation, Explanation, Judgement, Question};
use crate::rules::Rule;
use crate::schema::TYPES;

/// Rules per verb and object type.
#[derive(Debug, Default)]
pub(crate) struct Engine {
    slices: Vec<Slice>,
    /// Each rule alone, by its place in the bundle.
    alone: Vec<PolicySet>,
    authorizer: Authorizer,
}

#[derive(Debug, Default)]
struct Slice {
    enforced: Forbids,
    audit: Forbids,
    /// Permits that open a verb whose default is ask or deny; `None` where the generated permit lets everything pass.
    permits: Option<PolicySet>,
}

/// Forbids of one slice.
#[derive(Debug, Default)]
struct Forbids {
    /// Places in the bundle's rules.
    rules: Vec<usize>,
    /// All of them.
    together: PolicySet,
}

/// What a set of forbids said about one effect.
#[derive(Default)]
struct Found {
    /// Places in the bundle's rules.
    matched: Vec<usize>,
    /// Cedar's words per rule that could not be evaluated.
    errors: Vec<String>,
}

/// One effect's facts, and Cedar's request about it once it is needed.
struct Asked<'a> {
    facts: Facts<'a>,
    request: OnceCell<Result<(Request, Entities), String>>,
}

/// The text of the permit that a default of *allow* compiles to.
pub(crate) fn generated_permit(verb: Verb) -> String {
    format!("permit (principal, action == Action::\"{verb}\", resource);")
}

impl Engine {
    /// Up to so many rules are asked about one by one; more than these, and the whole slice at once costs less.
    const ALONE_MAX: usize = 8;

    pub(crate) fn build(rules: &[Rule], defaults: &BTreeMap<Verb, Verdict>) -> Self {
        let mut slices = Vec::with_capacity(Verb::ALL.len() * TYPES.len());
        for verb in Verb::ALL {
            for kind in TYPES {
                let of = |mode: RuleMode, permit: bool| {
                    let fits = |rule: &Rule| {
                        rule.permit == permit
                            && rule.info.mode == mode
                            && rule.info.verbs.contains(verb)
                            && rule.types.contains(kind)
                    };
                    let places = rules.iter().enumerate().filter(|(_, rule)| fits(rule)).map(|(place, _)| place);
                    let places: Vec<usize> = places.collect();
                    let together = set(places.iter().filter_map(|place| rules.get(*place)));
                    Forbids { rules: places, together }
                };
                let open = defaults.get(verb) == Some(&Verdict::Allow);
                slices.push(Slice {
                    enforced: of(RuleMode::Block, false),
                    audit: of(RuleMode::Audit, false),
                    permits: (!open).then(|| of(RuleMode::Block, true).together),
                });
            }
        }
        let alone = rules.iter().map(|rule| set([rule].into_iter())).collect();
        Self { slices, alone, authorizer: Authorizer::new() }
    }

    fn slice(&self, effect: &Effect) -> Option<&Slice> {
        let verb = Verb::ALL.iter().position(|verb| *verb == effect.verb)?;
        let kind = TYPES.iter().position(|kind| *kind == effect.object.type_name())?;
        self.slices.get(verb * TYPES.len() + kind)
    }

    /// Which forbids match; an error is Cedar's about the request as a whole.
    fn find(&self, forbids: &Forbids, bundle: &Bundle, asked: &Asked<'_>) -> Result<Found, String> {
        let mut found = Found::default();
        let may_match = |place: &&usize| {
            let rule = bundle.rules.get(**place);
            rule.is_some_and(|rule| rule.test.holds(&asked.facts) != Some(false))
        };
        let left: Vec<usize> = forbids.rules.iter().filter(may_match).copied().collect();
        if left.is_empty() {
            return Ok(found);
        }
        let (request, entities) = asked.request(bundle)?;
        let alone = left.iter().filter_map(|place| self.alone.get(*place));
        let sets: Vec<&PolicySet> =
            if left.len() <= Self::ALONE_MAX { alone.collect() } else { vec![&forbids.together] };
        for policies in sets {
            let response = self.authorizer.is_authorized(request, policies, entities);
            for id in response.diagnostics().reason() {
                let id: &str = id.as_ref();
                if let Ok(place) = bundle.rules.binary_search_by(|rule| rule.info.id.as_str().cmp(id)) {
                    found.matched.push(place);
                }
            }
            found.errors.extend(response.diagnostics().errors().map(ToString::to_string));
        }
        found.matched.sort_unstable();
        found.errors.sort_unstable();
        Ok(found)
    }
}

impl Asked<'_> {
    fn request(&self, bundle: &Bundle) -> Result<(&Request, &Entities), String> {
        match self.request.get_or_init(|| bundle.names.request(&self.facts)) {
            Ok((request, entities)) => Ok((request, entities)),
            Err(why) => Err(format!("the effect could not be put to the rules: {why}")),
        }
    }
}

fn set<'a>(rules: impl Iterator<Item = &'a Rule>) -> PolicySet {
    // Ids are unique in a bundle, so no policy can be refused.
    PolicySet::from_policies(rules.map(|rule| rule.policy.clone())).unwrap_or_default()
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
                facts: Facts::new(question, effect, &self.zones).json(),
                verdict: alone.verdict,
                considered: self.engine.slice(effect).map_or(0, |slice| {
                    u32::try_from(slice.enforced.rules.len() + slice.audit.rules.len()).unwrap_or(u32::MAX)
                }),
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
        let Some(slice) = engine.slice(effect) else {
            rules.push(error("the effect has no place among the rules", index));
            return;
        };
        let asked = Asked { facts: Facts::new(question, effect, &self.zones), request: OnceCell::new() };
        for (forbids, out) in [(&slice.enforced, &mut *rules), (&slice.audit, audit)] {
            let found = match engine.find(forbids, self, &asked) {
                Ok(found) => found,
                Err(why) => {
                    out.push(error(&why, index));
                    continue;
                }
            };
            for rule in found.matched.iter().filter_map(|rule| self.rules.get(*rule)) {
                out.push(self.matched(question, rule, index, effect));
            }
            for why in found.errors {
                out.push(error(&format!("a rule could not be evaluated, so the action is refused: {why}"), index));
            }
        }
        if let Some(permits) = &slice.permits {
            let (request, entities) = match asked.request(self) {
                Ok(request) => request,
                Err(why) => {
                    rules.push(error(&why, index));
                    return;
                }
            };
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
        // Strongest and gravest first; among equals the one that stands first in the bundle, where authors put what
        // people should read first. creel's own answers come before.
        for list in [&mut rules, &mut audit] {
            list.sort_by_cached_key(|rule| {
                let place = self.rule(&rule.rule).map(|info| (info.file.as_str(), info.line));
                (Reverse((rule.effect, rule.severity)), place, rule.effect_index)
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
