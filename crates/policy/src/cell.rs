//! What of a bundle holds without knowing the situation: its floor, and which mechanism holds which rule.
//!
//! The floor asks for each verb and zone what comes out when nothing else is known. It does not guess: rules' conditions
//! are evaluated in three values (true, false, cannot say), and only a rule that is certainly true counts. A rule that
//! might be true makes its cell `depends`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use creel_model::{Point, RuleMode, Verb, Verdict, Zone};

use crate::bundle::Bundle;
use crate::cage::Hold;
use crate::rules::{Rule, attribute_of};

/// What a cell of the floor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Always allowed.
    Allow,
    /// Always asked.
    Ask,
    /// Always denied.
    Deny,
    /// A rule looks at more than verb and zone.
    Depends,
}

impl Answer {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Answer::Allow => "allow",
            Answer::Ask => "ask",
            Answer::Deny => "deny",
            Answer::Depends => "depends",
        }
    }
}

/// One cell of the floor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// What comes out.
    pub answer: Answer,
    /// What holds at least, where it depends.
    pub at_least: Verdict,
    /// The strictest that can come out, where it depends; a mechanism that cannot hold the call takes this.
    pub at_most: Verdict,
    /// Rules that make it so.
    pub rules: BTreeSet<String>,
}

/// The floor: verb, object type (`Path` or `Host`) and zone to what comes out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// The cells.
    pub cells: BTreeMap<(Verb, &'static str, Zone), Cell>,
}

/// How far a mechanism holds a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// The kernel or a broker holds it whatever the agent does.
    Held,
    /// A mechanism stops the call and asks the policy.
    Mediated,
    /// It holds as far as the agent's hook tells the truth and waits for the answer.
    HookOnly,
    /// Nothing holds it.
    NotHeld,
}

impl Standing {
    /// The words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Standing::Held => "held",
            Standing::Mediated => "mediated",
            Standing::HookOnly => "hook-only",
            Standing::NotHeld => "not held",
        }
    }
}

/// What an agent kind's hook lets creel do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KindSupport {
    /// The catalog kind.
    pub kind: String,
    /// Points at which the hook waits for an answer that can stop what happens.
    pub blocks_at: BTreeSet<Point>,
    /// Points at which it can put in a changed text.
    pub modifies_at: BTreeSet<Point>,
    /// Whether *ask* reaches a person; else it is answered with deny.
    pub asks: bool,
}

/// How one rule stands with one kind of agent and one mechanism.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageRow {
    /// The rule.
    pub rule: String,
    /// The agent kind.
    pub kind: String,
    /// The mechanism: `hook` or `cage`.
    pub mechanism: String,
    /// How far it holds.
    pub standing: Standing,
    /// Why, in words.
    pub why: String,
}

impl Bundle {
    /// What holds per verb and zone whatever else is the case, by the rules that act now. Plans for mechanisms that
    /// know no context are made from this.
    #[must_use]
    pub fn floor(&self) -> Floor {
        let (paths, hosts) = self.zones.kinds();
        let mut floor = Floor::default();
        for verb in Verb::ALL {
            for (kind, zones) in [("Path", &paths), ("Host", &hosts)] {
                for zone in zones {
                    floor.cells.insert((*verb, kind, zone.clone()), self.cell(*verb, kind, zone));
                }
            }
        }
        floor
    }

    fn cell(&self, verb: Verb, kind: &'static str, zone: &Zone) -> Cell {
        let default = self.defaults.get(&verb).copied().unwrap_or(Verdict::Deny);
        let mut at_least = default;
        let mut at_most = default;
        let mut rules = BTreeSet::new();
        let of_slice = self.rules.iter().filter(|rule| {
            rule.info.mode == RuleMode::Block && rule.info.verbs.contains(&verb) && rule.types.contains(kind)
        });
        for rule in of_slice {
            let truth = rule.truth(kind, zone);
            if rule.permit {
                // A permit that holds for certain lifts the default; one that may hold makes it doubtful.
                match truth {
                    Some(true) if at_least == default => at_least = Verdict::Allow,
                    Some(false) => continue,
                    _ => at_least = at_least.min(Verdict::Allow),
                }
                rules.insert(rule.info.id.clone());
            }
        }
        for rule in self.rules.iter().filter(|rule| !rule.permit) {
            let applies =
                rule.info.mode == RuleMode::Block && rule.info.verbs.contains(&verb) && rule.types.contains(kind);
            let Some(truth) = applies.then(|| rule.truth(kind, zone)) else { continue };
            match truth {
                Some(false) => continue,
                Some(true) => at_least = at_least.max(rule.info.effect),
                None => {}
            }
            at_most = at_most.max(rule.info.effect);
            rules.insert(rule.info.id.clone());
        }
        let answer = match (at_least, at_most) {
            (Verdict::Deny, _) => Answer::Deny,
            (least, most) if least != most => Answer::Depends,
            (Verdict::Ask, _) => Answer::Ask,
            (Verdict::Modify, _) => Answer::Depends,
            (Verdict::Allow, _) => Answer::Allow,
        };
        Cell { answer, at_least, at_most, rules }
    }

    /// How each acting rule stands with each kind of agent: at its hook, and in a cage. Proxy and sensor do not exist
    /// yet. A cage holds a rule or it does not: it knows no context, and it asks nobody.
    #[must_use]
    pub fn coverage(&self, kinds: &[KindSupport]) -> Vec<CoverageRow> {
        let mut rows = Vec::new();
        for rule in self.rules.iter().filter(|rule| !rule.permit && rule.info.mode == RuleMode::Block) {
            let points = rule.points();
            let (caged, caged_why) = self.in_cage(rule);
            for kind in kinds {
                let (standing, why) = rule.standing(&points, kind);
                rows.push(CoverageRow {
                    rule: rule.info.id.clone(),
                    kind: kind.kind.clone(),
                    mechanism: "hook".to_owned(),
                    standing,
                    why,
                });
                rows.push(CoverageRow {
                    rule: rule.info.id.clone(),
                    kind: kind.kind.clone(),
                    mechanism: "cage".to_owned(),
                    standing: caged,
                    why: caged_why.clone(),
                });
            }
        }
        rows
    }

    /// How a rule stands in a cage, whatever the agent: what plans are made of (`cage/zones.rs`).
    fn in_cage(&self, rule: &Rule) -> (Standing, String) {
        let reaches_out = |verb: &Verb| matches!(verb, Verb::Connect | Verb::Send | Verb::Receive | Verb::Call);
        if rule.types.iter().all(|kind| *kind == "Host") && rule.info.verbs.iter().all(reaches_out) {
            return (Standing::Held, "a cage has no network but ports that its profile names".to_owned());
        }
        // A plan takes the strongest rule of a zone; a weaker one about the same zone holds by it too.
        let about = |verb: Verb, hold: &Option<(Verdict, String)>, zone: &Zone| {
            rule.info.verbs.contains(&verb)
                && rule.types.contains("Path")
                && hold.as_ref().is_some_and(|(verdict, _)| *verdict >= rule.info.effect)
                && rule.local_truth(zone) == Some(true)
        };
        let of = |verb: Verb, pick: &dyn Fn(&Hold) -> Option<(Verdict, String)>| {
            let zones = self.holds.iter().filter(|(zone, hold)| about(verb, &pick(hold), zone));
            zones.map(|(zone, _)| zone.as_str()).collect::<Vec<_>>().join(", ")
        };
        let read = of(Verb::Read, &|hold| hold.read.clone());
        let written = of(Verb::Write, &|hold| hold.write.clone());
        match (read.is_empty(), written.is_empty()) {
            (true, true) => {
                (Standing::NotHeld, "it looks at more than a cage knows; the hook holds it there too".to_owned())
            }
            (false, true) => (
                Standing::Held,
                format!("what is in {read} does not exist in a cage, but by a line of its own; see a plan's notes"),
            ),
            (true, false) => (Standing::Held, format!("what is in {written} is sealed, but for a line of its own")),
            (false, false) => {
                (Standing::Held, format!("what is in {read} does not exist in a cage, what is in {written} is sealed"))
            }
        }
    }
}

impl Rule {
    /// Whether the rule matches an object of that type in exactly that zone, when nothing else is known.
    fn truth(&self, kind: &str, zone: &Zone) -> Option<bool> {
        self.truth_of(kind, zone, false)
    }

    /// The same for a path of this machine: what is known in a cage.
    pub(crate) fn local_truth(&self, zone: &Zone) -> Option<bool> {
        self.truth_of("Path", zone, true)
    }

    fn truth_of(&self, kind: &str, zone: &Zone, local: bool) -> Option<bool> {
        let scope = match self.policy.principal_constraint() {
            cedar_policy::PrincipalConstraint::Any | cedar_policy::PrincipalConstraint::Is(_) => Some(true),
            _ => None,
        };
        let conditions = self.conditions.as_array().into_iter().flatten().map(|condition| {
            let body = condition.get("body").and_then(|body| truth(body, kind, zone, local));
            if condition.get("kind").and_then(Value::as_str) == Some("unless") {
                body.map(|truth| !truth)
            } else {
                body
            }
        });
        conditions.fold(scope, and)
    }

    /// Points that the rule's conditions name; a rule that names none is about tool calls.
    fn points(&self) -> BTreeSet<Point> {
        let mut points = BTreeSet::new();
        collect_points(&self.conditions, &mut points);
        if points.is_empty() {
            let of_verb = |verb: &Verb| match verb {
                Verb::Prompt => Point::Prompt,
                Verb::Reply => Point::Response,
                Verb::Receive if self.types.len() == 1 && self.types.contains("Text") => Point::ToolResult,
                _ => Point::ToolCall,
            };
            // A rule about every verb stands and falls with tool calls; the others follow from their verbs.
            if self.info.verbs.len() == Verb::ALL.len() {
                points.insert(Point::ToolCall);
            } else {
                points.extend(self.info.verbs.iter().map(of_verb));
            }
        }
        points
    }

    fn standing(&self, points: &BTreeSet<Point>, kind: &KindSupport) -> (Standing, String) {
        let names = |points: BTreeSet<&Point>| points.iter().map(|point| point.as_str()).collect::<Vec<_>>().join(", ");
        let missing: BTreeSet<&Point> = points.difference(&kind.blocks_at).collect();
        if missing.len() == points.len() {
            return (Standing::NotHeld, format!("its hook cannot stop anything at {}", names(missing)));
        }
        let mut why = if missing.is_empty() {
            format!("its hook waits at {}", names(points.iter().collect()))
        } else {
            format!("its hook waits, but not at {}", names(missing))
        };
        match self.info.effect {
            Verdict::Modify if points.is_disjoint(&kind.modifies_at) => {
                why.push_str("; it cannot replace the text, so creel refuses it instead");
            }
            Verdict::Ask if !kind.asks => why.push_str("; its own question reaches nobody, so creel asks or refuses"),
            _ => {}
        }
        (Standing::HookOnly, why)
    }
}

fn collect_points(tree: &Value, points: &mut BTreeSet<Point>) {
    match tree {
        Value::Array(items) => items.iter().for_each(|item| collect_points(item, points)),
        Value::Object(map) => {
            for operands in map.values() {
                if let (Some(left), Some(right)) = (operands.get("left"), operands.get("right"))
                    && attribute_of(left) == Some(("context".to_owned(), "point".to_owned()))
                    && let Some(point) = right.get("Value").and_then(Value::as_str).and_then(|word| word.parse().ok())
                {
                    points.insert(point);
                }
                collect_points(operands, points);
            }
        }
        _ => {}
    }
}

fn and(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

fn not(truth: Option<bool>) -> Option<bool> {
    truth.map(|truth| !truth)
}

/// Kleene's three values over Cedar's tree, knowing only the object's type and zone, and perhaps that it is `local`: on
/// this machine.
fn truth(tree: &Value, kind: &str, zone: &Zone, local: bool) -> Option<bool> {
    let (operator, operands) = tree.as_object()?.iter().next()?;
    let side = |name: &str| operands.get(name);
    let sides = || Some((truth(side("left")?, kind, zone, local), truth(side("right")?, kind, zone, local)));
    match operator.as_str() {
        "Value" => operands.as_bool(),
        "!" => not(truth(side("arg")?, kind, zone, local)),
        "&&" => sides().and_then(|(left, right)| and(left, right)),
        "||" => sides().and_then(|(left, right)| not(and(not(left), not(right)))),
        "is" => {
            let resource = side("left")?.get("Var")?.as_str()? == "resource" && side("in").is_none();
            resource.then(|| side("entity_type").and_then(Value::as_str) == Some(kind))
        }
        "." if local => (attribute_of(tree) == Some(("context".to_owned(), "remote".to_owned()))).then_some(false),
        "==" => compare_zone(side("left")?, side("right")?, zone),
        "!=" => not(compare_zone(side("left")?, side("right")?, zone)),
        "contains" => is_zones(side("left")?).then(|| side("right").and_then(word) == Some(zone.as_str())),
        "containsAny" | "containsAll" => {
            is_zones(side("left")?).then_some(())?;
            let words: Vec<&str> = side("right")?.get("Set")?.as_array()?.iter().filter_map(word).collect();
            Some(if operator == "containsAny" {
                words.contains(&zone.as_str())
            } else {
                words.iter().all(|word| *word == zone.as_str())
            })
        }
        _ => None,
    }
}

fn word(tree: &Value) -> Option<&str> {
    tree.get("Value")?.as_str()
}

fn is_zones(tree: &Value) -> bool {
    attribute_of(tree)
        .is_some_and(|(variable, name)| ["context", "resource"].contains(&variable.as_str()) && name == "zones")
}

fn compare_zone(left: &Value, right: &Value, zone: &Zone) -> Option<bool> {
    let (attribute, literal) = if word(right).is_some() { (left, right) } else { (right, left) };
    let (variable, name) = attribute_of(attribute)?;
    (variable == "resource" && name == "zone").then(|| word(literal) == Some(zone.as_str()))
}
