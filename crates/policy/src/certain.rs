//! Which rules certainly do not match an effect, so that Cedar need not be asked about them.
//!
//! A rule's condition is translated at load into [`Test`], as far as it is understood, and evaluated in three values
//! over the same facts that Cedar would get. *Certainly false* skips the rule; everything else is Cedar's to judge, so
//! a mistake here can only be too few matches in the understood subset, which a randomised test compares with Cedar.
//!
//! The one fact a newcomer gets wrong: what stands behind a part that is not understood is never looked at, although
//! `unknown && false` seems to be false. Cedar evaluates from the left and may fail in that part, and a failure is a
//! deny.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::str::FromStr as _;

use cedar_policy::{Policy, PrincipalConstraint, ResourceConstraint};
use serde_json::Value;

use creel_model::Verb;

use crate::facts::{Attribute, Fact, Facts, Owner};

/// Nesting up to which conditions are understood; a chain of `||` or `&&` counts once.
const DEPTH_MAX: u32 = 64;

/// A condition over facts.
#[derive(Clone, Debug)]
pub(crate) enum Test {
    /// Not understood: Cedar must be asked.
    Unknown,
    Constant(bool),
    Not(Box<Test>),
    All(Vec<Test>),
    Any(Vec<Test>),
    If(Box<[Test; 3]>),
    /// The object is of that type.
    Kind(String),
    /// The verb is one of these.
    Verbs(BTreeSet<Verb>),
    Flag(Attribute),
    Equal(Term, Term),
    Less(Term, Term),
    /// The attribute's set holds the term's text.
    Contains(Term, Term),
    /// The first set holds every word of the second.
    ContainsAll(Term, Term),
    ContainsAny(Term, Term),
    Empty(Term),
    /// Literal pieces between wildcards.
    Like(Term, Vec<String>),
}

/// A value in a condition.
#[derive(Clone, Debug)]
pub(crate) enum Term {
    Attribute(Attribute),
    Literal(Literal),
}

/// A value that stands in a rule's text.
#[derive(Clone, Debug)]
pub(crate) enum Literal {
    Text(String),
    Flag(bool),
    Number(i64),
    Set(Vec<String>),
}

/// Either side's value.
enum Got<'a> {
    Text(&'a str),
    Flag(bool),
    Number(i64),
    Facts(&'a [Cow<'a, str>]),
    Words(&'a [String]),
}

impl Test {
    /// The whole condition of a policy whose verb and object type are already known to fit.
    pub(crate) fn of(policy: &Policy, conditions: &Value) -> Self {
        let plain = matches!(policy.principal_constraint(), PrincipalConstraint::Any | PrincipalConstraint::Is(_))
            && matches!(policy.resource_constraint(), ResourceConstraint::Any | ResourceConstraint::Is(_));
        let Some(conditions) = conditions.as_array().filter(|_| plain) else { return Self::Unknown };
        let tests = conditions.iter().map(|condition| {
            let body = condition.get("body").map_or(Self::Unknown, |body| Self::read(body, 0));
            match condition.get("kind").and_then(Value::as_str) {
                Some("when") => body,
                Some("unless") => Self::Not(Box::new(body)),
                _ => Self::Unknown,
            }
        });
        Self::All(tests.collect())
    }

    fn read(tree: &Value, depth: u32) -> Self {
        if depth > DEPTH_MAX { Self::Unknown } else { Self::try_read(tree, depth).unwrap_or(Self::Unknown) }
    }

    fn try_read(tree: &Value, depth: u32) -> Option<Self> {
        let mut entries = tree.as_object()?.iter();
        let (operator, operands) = entries.next()?;
        if entries.next().is_some() {
            return None;
        }
        let side = |name: &str| operands.get(name);
        let terms = || Some((Term::read(side("left")?)?, Term::read(side("right")?)?));
        Some(match operator.as_str() {
            "Value" => Self::Constant(operands.as_bool()?),
            "." => Self::Flag(attribute(tree)?),
            "!" => Self::Not(Box::new(Self::read(side("arg")?, depth + 1))),
            "&&" => Self::All(chain(tree, "&&", depth)?),
            "||" => Self::Any(chain(tree, "||", depth)?),
            "if-then-else" => {
                let part = |name| side(name).map(|part| Self::read(part, depth + 1));
                Self::If(Box::new([part("if")?, part("then")?, part("else")?]))
            }
            "is" if side("in").is_none() => match side("left")?.get("Var")?.as_str()? {
                "resource" => Self::Kind(side("entity_type")?.as_str()?.to_owned()),
                _ => return None,
            },
            "==" | "!=" => {
                let equal = match verb_of(side("left")?, side("right")?).or(verb_of(side("right")?, side("left")?)) {
                    Some(verb) => Self::Verbs(BTreeSet::from([verb])),
                    None => {
                        let (left, right) = terms()?;
                        Self::Equal(left, right)
                    }
                };
                if operator == "==" { equal } else { Self::Not(Box::new(equal)) }
            }
            "in" => {
                let listed = side("right")?.get("Set")?.as_array()?;
                let verbs = listed.iter().map(|one| verb_of(side("left")?, one));
                Self::Verbs(verbs.collect::<Option<_>>()?)
            }
            "<" => terms().map(|(left, right)| Self::Less(left, right))?,
            ">" => terms().map(|(left, right)| Self::Less(right, left))?,
            "<=" => terms().map(|(left, right)| Self::Not(Box::new(Self::Less(right, left))))?,
            ">=" => terms().map(|(left, right)| Self::Not(Box::new(Self::Less(left, right))))?,
            "contains" => terms().map(|(left, right)| Self::Contains(left, right))?,
            "containsAll" => terms().map(|(left, right)| Self::ContainsAll(left, right))?,
            "containsAny" => terms().map(|(left, right)| Self::ContainsAny(left, right))?,
            "isEmpty" => Self::Empty(Term::read(side("arg")?)?),
            "like" => Self::Like(Term::read(side("left")?)?, pieces(side("pattern")?)?),
            _ => return None,
        })
    }

    /// Whether the condition holds; `None`: Cedar must say.
    pub(crate) fn holds(&self, facts: &Facts<'_>) -> Option<bool> {
        match self {
            Self::Unknown => None,
            Self::Constant(constant) => Some(*constant),
            Self::Not(test) => test.holds(facts).map(|truth| !truth),
            Self::All(tests) => first(tests, facts, false),
            Self::Any(tests) => first(tests, facts, true),
            Self::If(parts) => {
                let [condition, then, otherwise] = parts.as_ref();
                if condition.holds(facts)? { then.holds(facts) } else { otherwise.holds(facts) }
            }
            Self::Kind(kind) => Some(facts.kind == kind),
            Self::Verbs(verbs) => Some(verbs.contains(&facts.verb)),
            Self::Flag(attribute) => match facts.get(*attribute)? {
                Fact::Flag(flag) => Some(*flag),
                _ => None,
            },
            Self::Equal(left, right) => match (left.get(facts)?, right.get(facts)?) {
                (Got::Text(left), Got::Text(right)) => Some(left == right),
                (Got::Flag(left), Got::Flag(right)) => Some(left == right),
                (Got::Number(left), Got::Number(right)) => Some(left == right),
                _ => None,
            },
            Self::Less(left, right) => match (left.get(facts)?, right.get(facts)?) {
                (Got::Number(left), Got::Number(right)) => Some(left < right),
                _ => None,
            },
            Self::Contains(set, word) => match word.get(facts)? {
                Got::Text(word) => set.get(facts)?.contains(word),
                _ => None,
            },
            Self::ContainsAll(set, words) => {
                let set = set.get(facts)?;
                words.get(facts)?.all(|word| set.contains(word))
            }
            Self::ContainsAny(set, words) => {
                let set = set.get(facts)?;
                // Where the second is no set, neither answer is `Some`.
                words.get(facts)?.all(|word| set.contains(word).map(|found| !found)).map(|none| !none)
            }
            Self::Empty(set) => match set.get(facts)? {
                Got::Facts(words) => Some(words.is_empty()),
                Got::Words(words) => Some(words.is_empty()),
                _ => None,
            },
            Self::Like(text, pieces) => match text.get(facts)? {
                Got::Text(text) => Some(is_like(text, pieces)),
                _ => None,
            },
        }
    }
}

/// From the left: the first test with that outcome decides, and one without an outcome ends the matter.
fn first(tests: &[Test], facts: &Facts<'_>, outcome: bool) -> Option<bool> {
    for test in tests {
        if test.holds(facts)? == outcome {
            return Some(outcome);
        }
    }
    Some(!outcome)
}

/// The operands of a chain of one operator, in order. Cedar nests them to the left, as deep as the chain is long.
fn chain(tree: &Value, operator: &str, depth: u32) -> Option<Vec<Test>> {
    let mut tests = Vec::new();
    let mut rest = tree;
    while let Some(operands) = rest.get(operator) {
        tests.push(Test::read(operands.get("right")?, depth + 1));
        rest = operands.get("left")?;
    }
    tests.push(Test::read(rest, depth + 1));
    tests.reverse();
    Some(tests)
}

impl Term {
    fn read(tree: &Value) -> Option<Self> {
        if let Some(attribute) = attribute(tree) {
            return Some(Self::Attribute(attribute));
        }
        if let Some(items) = tree.get("Set").and_then(Value::as_array) {
            let words = items.iter().map(|item| Some(item.get("Value")?.as_str()?.to_owned()));
            return Some(Self::Literal(Literal::Set(words.collect::<Option<_>>()?)));
        }
        Some(Self::Literal(match tree.get("Value")? {
            Value::String(text) => Literal::Text(text.clone()),
            Value::Bool(flag) => Literal::Flag(*flag),
            Value::Number(number) => Literal::Number(number.as_i64()?),
            _ => return None,
        }))
    }

    fn get<'a>(&'a self, facts: &'a Facts<'_>) -> Option<Got<'a>> {
        Some(match self {
            Self::Attribute(attribute) => match facts.get(*attribute)? {
                Fact::Text(text) => Got::Text(text),
                Fact::Flag(flag) => Got::Flag(*flag),
                Fact::Number(number) => Got::Number(*number),
                Fact::Set(words) => Got::Facts(words),
            },
            Self::Literal(Literal::Text(text)) => Got::Text(text),
            Self::Literal(Literal::Flag(flag)) => Got::Flag(*flag),
            Self::Literal(Literal::Number(number)) => Got::Number(*number),
            Self::Literal(Literal::Set(words)) => Got::Words(words),
        })
    }
}

impl Got<'_> {
    fn contains(&self, word: &str) -> Option<bool> {
        match self {
            Got::Facts(words) => Some(words.iter().any(|known| known == word)),
            Got::Words(words) => Some(words.iter().any(|known| known == word)),
            _ => None,
        }
    }

    fn all(&self, mut test: impl FnMut(&str) -> Option<bool>) -> Option<bool> {
        let mut all = true;
        match self {
            Got::Facts(words) => words.iter().try_for_each(|word| test(word).map(|truth| all &= truth))?,
            Got::Words(words) => words.iter().try_for_each(|word| test(word).map(|truth| all &= truth))?,
            _ => return None,
        }
        Some(all)
    }
}

/// The attribute that a tree accesses.
fn attribute(tree: &Value) -> Option<Attribute> {
    let access = tree.get(".")?;
    let name = access.get("attr")?.as_str()?;
    let left = access.get("left")?;
    let owner = match left.get("Var").and_then(Value::as_str) {
        Some("principal") => Owner::Principal,
        Some("resource") => Owner::Resource,
        Some("context") => Owner::Context,
        Some(_) => return None,
        None => {
            let record = left.get(".")?;
            if record.get("left")?.get("Var")?.as_str()? != "context" {
                return None;
            }
            match record.get("attr")?.as_str()? {
                "labels" => Owner::Labels,
                "content" => Owner::Content,
                _ => return None,
            }
        }
    };
    Attribute::named(owner, name)
}

/// The verb with which `action` is compared.
fn verb_of(action: &Value, literal: &Value) -> Option<Verb> {
    if action.get("Var")?.as_str()? != "action" {
        return None;
    }
    let entity = literal.get("Value")?.get("__entity")?;
    if entity.get("type")?.as_str()? != "Action" {
        return None;
    }
    Verb::from_str(entity.get("id")?.as_str()?).ok()
}

/// The literal pieces of a `like` pattern: one more than it has wildcards.
fn pieces(pattern: &Value) -> Option<Vec<String>> {
    let mut pieces = vec![String::new()];
    for element in pattern.as_array()? {
        if element.as_str() == Some("Wildcard") {
            pieces.push(String::new());
        } else {
            pieces.last_mut()?.push_str(element.get("Literal")?.as_str()?);
        }
    }
    Some(pieces)
}

/// Whether the text begins with the first piece, ends with the last, and has the others between them in order.
fn is_like(text: &str, pieces: &[String]) -> bool {
    let (Some((head, rest)), Some(text_rest)) =
        (pieces.split_first(), pieces.first().and_then(|p| text.strip_prefix(p.as_str())))
    else {
        return false;
    };
    let Some((tail, middle)) = rest.split_last() else { return text == head };
    let Some(mut between) = text_rest.strip_suffix(tail.as_str()) else { return false };
    for piece in middle {
        let Some(at) = find(between, piece) else { return false };
        between = between.get(at + piece.len()..).unwrap_or_default();
    }
    true
}

/// Where `piece` begins in `text`. In short texts the standard search spends most of its time on preparing itself, and a
/// comparison of whole pieces at every place more than one of their first and last bytes.
fn find(text: &str, piece: &str) -> Option<usize> {
    const SHORT: usize = 256;
    let (text_bytes, piece_bytes) = (text.as_bytes(), piece.as_bytes());
    if piece.is_empty() || text.len() > SHORT {
        return text.find(piece);
    }
    let ends = (piece_bytes.first(), piece_bytes.last());
    let mut places = text_bytes.windows(piece.len());
    places.position(|place| (place.first(), place.last()) == ends && place == piece_bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cedar_policy::{Authorizer, PolicySet};
    use creel_model::{ApprovalMode, Certainty, CommandClass, ContentRole, Effect, Mode, Object, Point, Zone};

    use super::*;
    use crate::facts::Names;
    use crate::question::{AgentFacts, Context, Places, Question};
    use crate::schema::TYPES;
    use crate::zones::Zones;

    const WORDS: [&str; 9] = ["", "a", "b", "ab", "aab", "/a/b", "a*b", "é", "workspace"];

    /// Numbers that look random and are the same in every run (xorshift).
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % bound as u64).unwrap()
        }

        fn of<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
            items[self.below(items.len())]
        }

        fn flag(&mut self) -> bool {
            self.below(2) == 0
        }

        fn word(&mut self) -> String {
            self.of(&WORDS).to_owned()
        }

        fn words(&mut self) -> BTreeSet<String> {
            (0..self.below(4)).map(|_| self.word()).collect()
        }

        fn list(&mut self) -> String {
            let count = 1 + self.below(3);
            format!("[{}]", (0..count).map(|_| format!("{:?}", self.word())).collect::<Vec<_>>().join(", "))
        }

        fn text(&mut self, kind: &str) -> &'static str {
            let own: &[&str] = match kind {
                "Path" => &["resource.path", "resource.resolved", "resource.name"],
                "Host" => &["resource.host", "resource.url"],
                "Program" => &["resource.program", "resource.command", "resource.script"],
                "McpTool" => &["resource.server", "resource.tool"],
                "Credential" => &["resource.name"],
                "ConfigKey" => &["resource.system", "resource.key"],
                _ => &["resource.role"],
            };
            let common = ["resource.zone", "context.tool", "context.sink", "principal.kind", "context.point"];
            if self.flag() { self.of(own) } else { self.of(&common) }
        }

        fn set(&mut self, kind: &str) -> &'static str {
            match (kind, self.below(6)) {
                ("Path", 0 | 1) => "resource.covers",
                ("Program", 0 | 1) => "resource.argv",
                (_, 2) => "context.classes",
                (_, 3) => "context.findings",
                (_, 4) => "context.labels.sensitive",
                (_, 5) => "context.content.classes",
                _ => "resource.zones",
            }
        }

        fn condition(&mut self, kind: &str, depth: usize) -> String {
            let choice = if depth == 0 { 6 + self.below(14) } else { self.below(20) };
            let part = |dice: &mut Self| dice.condition(kind, depth - 1);
            match choice {
                0 | 1 => format!("({} && {})", part(self), part(self)),
                2 | 3 => format!("({} || {})", part(self), part(self)),
                4 => format!("!({})", part(self)),
                5 => format!("(if {} then {} else {})", part(self), part(self), part(self)),
                6 => format!("{} == {:?}", self.text(kind), self.word()),
                7 => format!("{:?} != {}", self.word(), self.text(kind)),
                8 => {
                    let pattern = ["*", "a*", "*b", "a*b", "*a*", "/a/*", "*é", "a\\*b", "ab", ""];
                    format!("{} like \"{}\"", self.text(kind), self.of(&pattern))
                }
                9 => format!("{}.contains({:?})", self.set(kind), self.word()),
                10 => format!("{}.containsAny({})", self.set(kind), self.list()),
                11 => format!("{}.containsAll({})", self.set(kind), self.list()),
                12 => format!("{}.contains({})", self.list(), self.text(kind)),
                13 => format!("{}.isEmpty()", self.set(kind)),
                14 => self
                    .of(&["context.recursive", "context.labels.untrusted", "context.opaque", "principal.managed"])
                    .to_owned(),
                15 => format!("principal.uid {} {}", self.of(&["<", "<=", ">", ">=", "==", "!="]), self.below(4)),
                16 => self
                    .of(&["action == Action::\"delete\"", "action in [Action::\"read\", Action::\"delete\"]"])
                    .to_owned(),
                17 => format!("resource is {}", self.of(&TYPES)),
                18 => format!("{} == {}", self.text(kind), self.text(kind)),
                // Not understood here, and sometimes an error in Cedar.
                _ => format!("principal.uid + {} > 2", self.of(&["1", "9223372036854775807"])),
            }
        }

        fn effect(&mut self, kind: &str) -> Effect {
            let object = match kind {
                "Path" => Object::Path { path: self.word(), resolved: self.flag().then(|| self.word()) },
                "Host" => Object::Host { host: self.word(), port: self.flag().then_some(3), url: Some(self.word()) },
                "Program" => Object::Program {
                    program: self.word(),
                    argv: self.words().into_iter().collect(),
                    script: self.flag().then(|| self.word()),
                },
                "McpTool" => Object::McpTool { server: self.word(), tool: self.word() },
                "Credential" => Object::Credential { name: self.word() },
                "ConfigKey" => Object::ConfigKey { system: self.word(), key: self.word() },
                _ => Object::Text { role: ContentRole::Prompt, bytes: 2 },
            };
            let mut effect = Effect::new(Verb::ALL[self.below(Verb::ALL.len())], object, Certainty::Parsed);
            effect.zones = self.words().into_iter().map(Zone).collect();
            effect.content = self.words();
            effect.recursive = self.flag();
            if self.flag() {
                effect.certainty = Certainty::Opaque;
                effect.classes.insert(CommandClass::Build);
            }
            effect
        }
    }

    #[test]
    fn never_contradicts_cedar() {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let (names, zones, authorizer) = (Names::new().unwrap(), Zones::default(), Authorizer::new());
        let (mut seen, mut failed) = ([0; 3], 0);
        for round in 0..4_000 {
            let kind = TYPES[round % TYPES.len()];
            let clause = if dice.below(4) == 0 { "unless" } else { "when" };
            let (first, second) = (dice.condition(kind, 3), dice.condition(kind, 1));
            let text =
                format!("forbid (principal, action, resource is {kind}) {clause} {{ {first} }} when {{ {second} }};");
            let policy = Policy::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let test = Test::of(&policy, &policy.to_json().unwrap()["conditions"]);
            let policies = PolicySet::from_policies([policy]).unwrap();
            for _ in 0..3 {
                let effect = dice.effect(kind);
                let agent = AgentFacts {
                    kind: dice.word(),
                    account_uid: u32::try_from(dice.below(4)).unwrap(),
                    mode: Mode::System,
                    approval_mode: ApprovalMode::Ask,
                    managed: dice.flag(),
                };
                let mut context = Context::at(Point::ToolCall);
                context.tool = dice.word();
                context.findings = dice.words();
                context.content_classes = dice.words();
                context.labels.untrusted = dice.flag();
                context.labels.sensitive = dice.words();
                let question = Question {
                    agent: &agent,
                    effects: &[],
                    context: &context,
                    places: &Places { home: "/a".into(), workspace: Some("/a/b".into()), ..Places::default() },
                    set_aside: &BTreeMap::new(),
                    now_unix_s: 0,
                };
                let facts = Facts::new(&question, &effect, &zones);
                let (request, entities) = names.request(&facts).unwrap();
                let response = authorizer.is_authorized(&request, &policies, &entities);
                let error = response.diagnostics().errors().next().is_some();
                let matched = response.diagnostics().reason().next().is_some();
                match test.holds(&facts) {
                    None => seen[2] += 1,
                    Some(truth) => {
                        assert!(!error && truth == matched, "{text}\n{facts:?}\nhere {truth}, Cedar {matched} {error}");
                        seen[usize::from(truth)] += 1;
                    }
                }
                failed += usize::from(error);
            }
        }
        assert!(seen.iter().all(|count| *count > 1_000) && failed > 100, "one-sided: {seen:?}, {failed}");
    }

    #[test]
    fn every_rule_of_the_starter_bundle_is_understood() {
        fn unknown(test: &Test) -> bool {
            match test {
                Test::Unknown => true,
                Test::Not(test) => unknown(test),
                Test::All(tests) | Test::Any(tests) => tests.iter().any(unknown),
                Test::If(parts) => parts.iter().any(unknown),
                _ => false,
            }
        }
        let bundle = crate::Bundle::load(&crate::starter(), 0).unwrap();
        for rule in &bundle.rules {
            assert!(!unknown(&rule.test), "{}: {:?}", rule.info.id, rule.test);
        }
    }
}
