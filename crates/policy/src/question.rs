//! What is asked of a bundle and what it answers, as plain data.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use creel_model::{ApprovalMode, Effect, MatchedRule, Mode, Point, RuleMode, Severity, Verb, Verdict};

/// Where an account's things are; the words `~`, `@workspace` and `@temporary` of `zones.toml` mean these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// Home folder, absolute.
    pub home: String,
    /// The project folder, absolute, where known. One that contains the home folder (or is `/`) is not taken as a
    /// workspace: an agent started in the home folder does not own everything in it.
    pub workspace: Option<String>,
    /// Scratch folders, absolute.
    pub temporary: Vec<String>,
    /// Numeric account.
    pub uid: u32,
}

/// The agent as rules see it (`principal`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentFacts {
    /// Catalog kind.
    pub kind: String,
    /// Numeric account of the run.
    pub account_uid: u32,
    /// How creel runs.
    pub mode: Mode,
    /// How the agent approves its own actions.
    pub approval_mode: ApprovalMode,
    /// Whether its configuration is managed by creel.
    pub managed: bool,
}

/// Labels in force: the union of the run's and the conversation's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// Content that nobody vouches for was read.
    pub untrusted: bool,
    /// Content of mixed origin was read.
    pub mixed: bool,
    /// Classes of sensitive content that was read.
    pub sensitive: BTreeSet<String>,
}

/// What is known about the action as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Where the action was seen.
    pub point: Point,
    /// The agent's own name of the tool; empty where there is none.
    pub tool: String,
    /// Labels in force.
    pub labels: Labels,
    /// Codes of findings in the action's content, for example `secret.aws-access-key`.
    pub findings: BTreeSet<String>,
    /// Classes of those findings, for example `secret`.
    pub finding_classes: BTreeSet<String>,
    /// Classes of the content that the action as a whole moves; each effect's own are added to these.
    pub content_classes: BTreeSet<String>,
    /// The device's tier, a word of the organisation's own; empty where none is set.
    pub tier: String,
    /// Whether the run is inside a proven cage.
    pub caged: bool,
    /// Whether the action's text was understood completely.
    pub parsed: bool,
}

impl Context {
    /// A context that knows nothing but where the action was seen.
    #[must_use]
    pub fn at(point: Point) -> Self {
        Self {
            point,
            tool: String::new(),
            labels: Labels::default(),
            findings: BTreeSet::new(),
            finding_classes: BTreeSet::new(),
            content_classes: BTreeSet::new(),
            tier: String::new(),
            caged: false,
            parsed: true,
        }
    }
}

/// One action to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who.
    pub agent: &'a AgentFacts,
    /// What it does, at most [`crate::Bundle::EFFECTS_MAX`]; more is answered with *ask*.
    pub effects: &'a [Effect],
    /// What else is known.
    pub context: &'a Context,
    /// The account's places.
    pub places: &'a Places,
    /// `ask` rules that an approval sets aside: rule id to approval id. A rule of another effect is never set aside.
    pub set_aside: &'a BTreeMap<String, String>,
    /// Now, in seconds since 1970; exceptions end by it.
    pub now_unix_s: i64,
}

/// A change that a `modify` rule demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transform {
    /// What a detector found is replaced by a placeholder that names its kind.
    Redact,
    /// The whole text is replaced by the rule's reason.
    Withhold,
}

impl Transform {
    /// Every transformation, as `@transform` spells it.
    pub const ALL: &'static [(&'static str, Transform)] =
        &[("redact", Transform::Redact), ("withhold", Transform::Withhold)];
}

/// The answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The strongest over all effects, after exceptions and approvals.
    pub verdict: Verdict,
    /// Enforced rules that matched, strongest first; also those that an exception or an approval set aside, which say
    /// so in `excepted_by` and `approved_by` and did not count.
    pub rules: Vec<MatchedRule>,
    /// Audit rules that matched; they did not count.
    pub audit: Vec<MatchedRule>,
    /// What to change at `modify`: index of the effect to the one transformation that all its rules agree on.
    pub transforms: BTreeMap<u32, Transform>,
}

impl Judgement {
    /// The matched rules that made the verdict: those of its strength which nothing set aside.
    pub fn deciding(&self) -> impl Iterator<Item = &MatchedRule> {
        self.rules
            .iter()
            .filter(|rule| rule.effect == self.verdict && rule.excepted_by.is_none() && rule.approved_by.is_none())
    }

    /// For the person and the model: the reasons of the first two deciding rules, each once. Empty at a plain allow.
    #[must_use]
    pub fn reason(&self) -> String {
        let mut seen = BTreeSet::new();
        let mut text = String::new();
        for rule in self.deciding().filter(|rule| seen.insert(rule.rule.as_str())).take(2) {
            if !text.is_empty() {
                text.push_str("; ");
            }
            text.push_str(&rule.reason);
            text.push_str(" [");
            text.push_str(&rule.rule);
            text.push(']');
        }
        text
    }
}

/// A rule as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleInfo {
    /// Its id, unique in the bundle and its bases.
    pub id: String,
    /// What it demands when it matches; `allow` for a `permit`.
    pub effect: Verdict,
    /// How bad a match is.
    pub severity: Severity,
    /// Why, in words for a person and a model.
    pub reason: String,
    /// The verbs it is about.
    pub verbs: BTreeSet<Verb>,
    /// Whether it acts, as things stand (the bundle's own word, changed by `set_modes`).
    pub mode: RuleMode,
    /// Whether an exception or an approved question may set it aside by name.
    pub exceptable: bool,
    /// Taxonomy ids from `@asi` and `@attack`.
    pub taxonomy: Vec<String>,
    /// The change it demands, for `modify`.
    pub transform: Option<Transform>,
    /// File of the bundle in which it stands.
    pub file: String,
    /// Line at which it begins, from 1.
    pub line: u32,
    /// Its text.
    pub text: String,
}

/// How one effect was judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EffectExplanation {
    /// The effect in words, for example `read /home/dev/.ssh/id_rsa`.
    pub effect: String,
    /// Exactly what the rules saw: `principal`, `action`, `resource` and `context`.
    pub facts: serde_json::Value,
    /// What it alone would have been answered.
    pub verdict: Verdict,
    /// How many rules were looked at.
    pub considered: u32,
}

/// Why a question was answered as it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The answer.
    pub judgement: Judgement,
    /// Per effect, in order.
    pub effects: Vec<EffectExplanation>,
}
