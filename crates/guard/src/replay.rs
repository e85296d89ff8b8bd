//! Recorded facts against another bundle, and the facts behind one decision.
//!
//! Replay judges what was recorded; it does not look at the machine again and prepares nothing. Approvals, break-glass
//! and modifications are left out on both sides: what is compared is what the rules said. The one fact a newcomer gets
//! wrong: arguments are recorded without secrets, so a rule about a secret's own text cannot be replayed.

use std::collections::{BTreeMap, BTreeSet};

use creel_model::record::{Detail, Envelope, Record};
use creel_model::{ActionId, Effect, MatchedRule, RecordKind, Verdict};
use creel_policy::{AgentFacts, Bundle, Context, Explanation, Judgement, Places, Question};
use serde::{Deserialize, Serialize};

use crate::judge::TOO_MANY_EFFECTS;

/// Most differences that are listed; further ones are only counted.
const DIFFERENCES_MAX: usize = 10_000;

/// One action that the other bundle answers differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The action.
    pub action_id: ActionId,
    /// When it happened, wall clock in nanoseconds.
    pub at_unix_ns: i64,
    /// Kind of the agent.
    pub kind: String,
    /// Account.
    pub uid: u32,
    /// The agent's tool.
    pub tool: String,
    /// What it was about, redacted.
    pub excerpt: String,
    /// What the rules said then.
    pub before: Verdict,
    /// By which rules.
    pub before_rules: Vec<String>,
    /// What the other bundle says.
    pub after: Verdict,
    /// By which rules.
    pub after_rules: Vec<String>,
}

/// One recorded action judged once more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    /// What the rules said then.
    pub before: Verdict,
    /// What the other bundle says.
    pub after: Verdict,
    /// Its rules that made that verdict.
    pub rules: Vec<String>,
}

/// What a replay of many records found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differences {
    /// Decisions that were judged again.
    pub compared: u64,
    /// Decisions whose facts are erased or were never recorded.
    pub skipped: u64,
    /// How many of those compared are answered differently.
    pub different: u64,
    /// The first 10,000 of them.
    pub differences: Vec<Difference>,
    /// How many went from which verdict to which: `allow -> ask`.
    pub by_verdict: BTreeMap<String, u64>,
    /// How many differ per kind of agent.
    pub by_agent: BTreeMap<String, u64>,
    /// How many differ per account.
    pub by_user: BTreeMap<u32, u64>,
}

/// The facts of a recorded decision, as the rules saw them.
struct Facts {
    agent: AgentFacts,
    context: Context,
    places: Places,
    overflow: bool,
    judged: Verdict,
}

/// Judges one recorded action with another bundle. `None`: it is no action, or its facts were never recorded.
#[must_use]
pub fn replay(record: &Record, bundle: &Bundle) -> Option<Replayed> {
    again(&record.envelope, &record.detail, bundle)
}

fn again(envelope: &Envelope, detail: &Detail, bundle: &Bundle) -> Option<Replayed> {
    if !is_action(envelope) {
        return None;
    }
    let facts = recorded(detail)?;
    let judgement = judge(&facts, &detail.effects, bundle, envelope.at.unix_ns);
    let rules = deciding(&judgement.rules, judgement.verdict);
    Some(Replayed { before: facts.judged, after: judgement.verdict, rules })
}

fn is_action(envelope: &Envelope) -> bool {
    matches!(envelope.kind, RecordKind::Decision | RecordKind::Event) && envelope.point.is_some()
}

impl Differences {
    /// Judges one more record, whose detail may be erased. Records that are no actions are passed over.
    pub fn add(&mut self, envelope: &Envelope, detail: Option<&Detail>, bundle: &Bundle) {
        if !is_action(envelope) {
            return;
        }
        let Some((detail, again)) = detail.and_then(|detail| Some((detail, again(envelope, detail, bundle)?))) else {
            self.skipped += u64::from(envelope.kind == RecordKind::Decision);
            return;
        };
        self.compared += 1;
        if again.before == again.after {
            return;
        }
        self.different += 1;
        let kind = envelope.subject.as_ref().map(|subject| subject.kind.clone()).unwrap_or_default();
        let uid = envelope.subject.as_ref().map_or(envelope.owner, |subject| subject.uid);
        *self.by_verdict.entry(format!("{} -> {}", again.before, again.after)).or_default() += 1;
        *self.by_agent.entry(kind.clone()).or_default() += 1;
        *self.by_user.entry(uid).or_default() += 1;
        if self.differences.len() < DIFFERENCES_MAX {
            let before = detail.decision.as_ref().map_or(&[][..], |decision| decision.rules.as_slice());
            self.differences.push(Difference {
                action_id: envelope.action_id.clone(),
                at_unix_ns: envelope.at.unix_ns,
                kind,
                uid,
                tool: envelope.tool.clone().unwrap_or_default(),
                excerpt: detail.excerpt.clone(),
                before: again.before,
                before_rules: deciding(before, again.before),
                after: again.after,
                after_rules: again.rules,
            });
        }
    }
}

/// Why a recorded action was answered as it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// What the rules said then.
    pub judged: Verdict,
    /// What the agent was answered: an approval, break-glass or a failed change may lie between.
    pub answered: Verdict,
    /// The rules that matched then, strongest first.
    pub rules: Vec<MatchedRule>,
    /// The audit rules that would have matched then.
    pub audit: Vec<MatchedRule>,
    /// Labels that were in force, in words with where they came from.
    pub labels: Vec<String>,
    /// Whether `bundle` is the one that judged then.
    pub same_bundle: bool,
    /// What `bundle` says now, effect by effect, with exactly the facts that rules see.
    pub now: Explanation,
}

/// Explains a recorded decision with a bundle. `None`: its facts are erased or were never recorded.
#[must_use]
pub fn explain(envelope: &Envelope, detail: &Detail, bundle: &Bundle) -> Option<Explained> {
    let facts = recorded(detail)?;
    let decision = detail.decision.as_ref()?;
    let effects = rezoned(&detail.effects, bundle, &facts.places);
    let nothing = BTreeMap::new();
    let now = bundle.explain(&question(&facts, &effects, &nothing, envelope.at.unix_ns));
    Some(Explained {
        judged: facts.judged,
        answered: decision.verdict,
        rules: decision.rules.clone(),
        audit: decision.audit.clone(),
        labels: detail.labels.iter().map(|fact| format!("{} ({}, {})", fact.label, fact.origin, fact.basis)).collect(),
        same_bundle: envelope.bundle.as_ref() == Some(bundle.digest()),
        now,
    })
}

/// What `decision_record` wrote.
fn recorded(detail: &Detail) -> Option<Facts> {
    let fact = |key: &str| detail.facts.get(key);
    Some(Facts {
        agent: AgentFacts::deserialize(fact("agent")?).ok()?,
        context: Context::deserialize(fact("context")?).ok()?,
        places: Places::deserialize(fact("places")?).ok()?,
        overflow: fact("overflow").and_then(serde_json::Value::as_bool).unwrap_or_default(),
        judged: Verdict::deserialize(fact("judged")?).ok()?,
    })
}

fn judge(facts: &Facts, effects: &[Effect], bundle: &Bundle, unix_ns: i64) -> Judgement {
    let effects = rezoned(effects, bundle, &facts.places);
    let nothing = BTreeMap::new();
    let mut judgement = bundle.judge(&question(facts, &effects, &nothing, unix_ns));
    if facts.overflow {
        judgement.verdict = judgement.verdict.max(Verdict::Ask);
        let reason = "the action does more than is judged".to_owned();
        let rule = crate::guard::own(TOO_MANY_EFFECTS, Verdict::Ask, creel_model::Severity::High, reason);
        judgement.rules.push(rule);
    }
    judgement
}

fn question<'a>(
    facts: &'a Facts,
    effects: &'a [Effect],
    set_aside: &'a BTreeMap<String, String>,
    unix_ns: i64,
) -> Question<'a> {
    Question {
        agent: &facts.agent,
        effects,
        context: &facts.context,
        places: &facts.places,
        set_aside,
        now_unix_s: unix_ns.div_euclid(1_000_000_000),
    }
}

/// The effects with the zones of this bundle.
fn rezoned(effects: &[Effect], bundle: &Bundle, places: &Places) -> Vec<Effect> {
    let mut effects = effects.to_vec();
    effects.iter_mut().for_each(|effect| crate::prepare::set_zones(effect, bundle, places));
    effects
}

/// Ids of the rules that made a verdict.
fn deciding(rules: &[MatchedRule], verdict: Verdict) -> Vec<String> {
    let acting = rules.iter().filter(|rule| rule.effect == verdict && rule.excepted_by.is_none());
    acting.map(|rule| rule.rule.clone()).collect::<BTreeSet<_>>().into_iter().collect()
}
