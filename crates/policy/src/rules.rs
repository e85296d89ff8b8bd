//! `rules/*.cedar`: parsing, annotations, and the check against the schema and the words.
//!
//! A rule that can never match is as bad as a missing one, so everything that smells of it is a load error: an unknown
//! attribute (Cedar's strict validation), an unknown word beside an attribute with fixed words, an unknown annotation.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr as _;
use std::sync::Arc;

use cedar_policy::ffi::DetailedError;
use cedar_policy::{
    ActionConstraint, Effect as CedarEffect, EntityUid, Policy, PolicyId, PolicySet, ResourceConstraint, Schema,
    ValidationMode, Validator,
};
use serde_json::Value;

use creel_model::{RuleMode, Severity, Verb, Verdict};

use crate::certain::Test;
use crate::nesting;
use crate::question::{RuleInfo, Transform};
use crate::schema::TYPES;
use crate::text::{Faults, position};
use crate::vocabulary::{Words, words};

/// At most this many rules in a bundle with its bases.
pub(crate) const RULES_MAX: usize = 2_000;

/// Ids that creel uses for its own answers.
pub(crate) const RESERVED: &[&str] =
    &["policy-error", "overload", "default", "break-glass", "too-many-effects", "conflicting-transforms"];

const ANNOTATIONS: &str = "@id, @effect, @severity, @reason, @asi, @attack, @exceptable, @transform";

/// A checked rule.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) info: RuleInfo,
    pub(crate) policy: Policy,
    /// Object types it can be about.
    pub(crate) types: BTreeSet<&'static str>,
    pub(crate) permit: bool,
    /// Cedar's tree of its conditions.
    pub(crate) conditions: Value,
    /// The same, as far as it can be told without Cedar.
    pub(crate) test: Arc<Test>,
    /// The mode that the bundle gives it.
    pub(crate) own_mode: RuleMode,
    /// The mode that a person gave to this very rule, not only to all of them.
    pub(crate) set_mode: Option<RuleMode>,
    /// Index of the layer that it comes from; 0 is the lowest.
    pub(crate) layer: usize,
}

impl Rule {
    /// The mode that counts for plans of cages. Whoever starts a cage wants it to hold: that all rules are only recorded
    /// until their interruption rate is known is about questions at the hook, not about what a cage leaves out.
    pub(crate) fn cage_mode(&self) -> RuleMode {
        self.set_mode.unwrap_or(self.own_mode)
    }
}

/// One file with where each of its rules begins, for diagnostics of later checks.
struct Source<'a> {
    file: &'a str,
    text: &'a str,
}

/// Reads one rules file; faults are added to `faults`.
pub(crate) fn read(
    file: &str,
    text: &str,
    layer: usize,
    schema: &Schema,
    zones: &BTreeSet<String>,
    faults: &mut Faults,
) -> Vec<Rule> {
    let source = Source { file, text };
    if let Some((offset, what)) = nesting::too_deep(text) {
        let expected = format!("at most {} brackets and {} operators", nesting::BRACKETS_MAX, nesting::OPERATORS_MAX);
        faults.at(file, text, offset, format!("too many {what}"), &expected, "split the rule into several");
        return Vec::new();
    }
    let set = match PolicySet::from_str(text) {
        Ok(set) => set,
        Err(errors) => {
            for error in errors.iter() {
                source.fault(faults, &DetailedError::from(error), 0, "the text is not Cedar");
            }
            return Vec::new();
        }
    };
    if let Some(template) = set.templates().next() {
        let offset = text.find("?principal").or_else(|| text.find("?resource")).unwrap_or(0);
        let message = format!("rule `{}` is a template", template.id());
        faults.at(
            file,
            text,
            offset,
            message,
            "a rule without `?principal` and `?resource`",
            "write the condition out",
        );
        return Vec::new();
    }
    let mut policies: Vec<&Policy> = set.policies().collect();
    policies.sort_by_key(|policy| number_of(policy.id()));
    let before = faults.0.len();
    let mut rules = Vec::new();
    let mut offsets = BTreeMap::new();
    let mut from = 0;
    for policy in policies {
        let body = policy.to_cedar().unwrap_or_default();
        let offset = text.get(from..).and_then(|rest| rest.find(&body)).map_or(from, |at| at + from);
        from = offset + body.len();
        if let Some(rule) = source.rule(policy, &body, offset, layer, zones, faults) {
            offsets.insert(rule.info.id.clone(), offset);
            rules.push(rule);
        }
    }
    if faults.0.len() == before {
        source.validate(&rules, &offsets, schema, faults);
    }
    rules
}

/// The number in Cedar's own `policy7`.
fn number_of(id: &PolicyId) -> usize {
    AsRef::<str>::as_ref(id).trim_start_matches("policy").parse().unwrap_or(usize::MAX)
}

impl Source<'_> {
    fn rule(
        &self,
        policy: &Policy,
        body: &str,
        offset: usize,
        layer: usize,
        zones: &BTreeSet<String>,
        faults: &mut Faults,
    ) -> Option<Rule> {
        let before = faults.0.len();
        let permit = policy.effect() == CedarEffect::Permit;
        let mut fault = |annotation: &str, message: String, expected: &str, hint: &str| {
            let at = body.find(&format!("@{annotation}")).unwrap_or(0);
            faults.at(self.file, self.text, offset + at, message, expected, hint);
        };
        for (key, _) in policy.annotations() {
            let known = ["id", "effect", "severity", "reason", "asi", "attack", "exceptable", "transform"];
            if !known.contains(&key) {
                fault(
                    key,
                    format!("unknown annotation `@{key}`"),
                    ANNOTATIONS,
                    "a misspelt annotation would be ignored",
                );
            } else if permit && !["id", "reason"].contains(&key) {
                fault(
                    key,
                    format!("`@{key}` on a permit"),
                    "`@id` and `@reason`",
                    "a permit only opens a verb whose default is deny or ask",
                );
            }
        }
        let id = policy.annotation("id").unwrap_or("").to_owned();
        if id.is_empty()
            || id.len() > 64
            || !id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        {
            let hint = "write @id(\"…\") before the rule; records and exceptions name it";
            fault("id", format!("rule id `{id}`"), "1 to 64 lower-case letters, digits and `-`", hint);
        } else if RESERVED.contains(&id.as_str()) {
            fault("id", format!("rule id `{id}` is creel's own"), "another id", "rename the rule");
        }
        let reason = policy.annotation("reason").unwrap_or("").trim().to_owned();
        if (reason.is_empty() && !permit) || reason.len() > 400 {
            let hint = "write @reason(\"…\"): a person and the model will read it";
            fault("reason", format!("rule `{id}` has no usable reason"), "a sentence of 1 to 400 bytes", hint);
        }
        let effect = match policy.annotation("effect") {
            _ if permit => Verdict::Allow,
            None | Some("deny") => Verdict::Deny,
            Some("ask") => Verdict::Ask,
            Some("modify") => Verdict::Modify,
            Some(other) => {
                fault(
                    "effect",
                    format!("effect `{other}`"),
                    "`deny`, `ask` or `modify`",
                    "a rule that allows is a `permit`",
                );
                Verdict::Deny
            }
        };
        let severity = match policy.annotation("severity").map(Severity::from_str) {
            None => Severity::Medium,
            Some(Ok(severity)) => severity,
            Some(Err(unknown)) => {
                let expected = unknown.expected.join(", ");
                fault("severity", format!("severity `{}`", unknown.found), &expected, "correct the word");
                Severity::Medium
            }
        };
        let exceptable = match policy.annotation("exceptable") {
            None | Some("yes") => true,
            Some("no") => false,
            Some(other) => {
                fault("exceptable", format!("exceptable `{other}`"), "`yes` or `no`", "correct the word");
                false
            }
        };
        let named = policy.annotation("transform");
        let transform =
            named.and_then(|name| Transform::ALL.iter().find(|(word, _)| *word == name)).map(|(_, word)| *word);
        match (effect == Verdict::Modify, named, transform) {
            (true, None, _) => fault(
                "effect",
                "`modify` without `@transform`".to_owned(),
                "@transform(\"redact\") or @transform(\"withhold\")",
                "say what to change",
            ),
            (true, Some(name), None) => {
                fault("transform", format!("transform `{name}`"), "`redact` or `withhold`", "correct the word")
            }
            (false, Some(_), _) => fault(
                "transform",
                "`@transform` on a rule that does not modify".to_owned(),
                "@effect(\"modify\")",
                "remove one of the two",
            ),
            _ => {}
        }
        let mut taxonomy = Vec::new();
        for (key, valid) in [("asi", is_asi as fn(&str) -> bool), ("attack", is_attack)] {
            for word in policy.annotation(key).unwrap_or("").split(',').map(str::trim).filter(|word| !word.is_empty()) {
                if valid(word) {
                    taxonomy.push(word.to_owned());
                } else {
                    fault(
                        key,
                        format!("`{word}` in @{key}"),
                        "ids like `ASI02` or `T1552.001`, with commas between",
                        "correct the id",
                    );
                }
            }
        }
        let verbs = self.verbs(policy, offset, faults);
        let types = types(&policy.resource_constraint());
        let conditions = policy.to_json().ok().and_then(|json| json.get("conditions").cloned()).unwrap_or(Value::Null);
        self.check_words(&conditions, body, offset, zones, faults);
        if faults.0.len() > before {
            return None;
        }
        let (line, _) = position(self.text, offset);
        Some(Rule {
            policy: policy.new_id(PolicyId::new(&id)),
            info: RuleInfo {
                id,
                effect,
                severity,
                reason,
                verbs,
                mode: RuleMode::Block,
                exceptable: exceptable && !permit,
                taxonomy,
                transform,
                file: self.file.to_owned(),
                line,
                text: body.to_owned(),
            },
            types,
            permit,
            test: Arc::new(Test::of(policy, &conditions)),
            conditions,
            own_mode: RuleMode::Block,
            set_mode: None,
            layer,
        })
    }

    fn verbs(&self, policy: &Policy, offset: usize, faults: &mut Faults) -> BTreeSet<Verb> {
        let uids: Vec<EntityUid> = match policy.action_constraint() {
            ActionConstraint::Any => return Verb::ALL.iter().copied().collect(),
            ActionConstraint::Eq(uid) => vec![uid],
            ActionConstraint::In(uids) => uids,
        };
        let mut verbs = BTreeSet::new();
        for uid in uids {
            match Verb::from_str(uid.id().unescaped()) {
                Ok(verb) if uid.type_name().to_string() == "Action" => {
                    verbs.insert(verb);
                }
                _ => {
                    let found = uid.to_string();
                    let at =
                        self.text.get(offset..).and_then(|rest| rest.find(&found)).map_or(offset, |at| at + offset);
                    let expected = Verb::ALL.iter().map(|verb| verb.as_str()).collect::<Vec<_>>().join(", ");
                    faults.at(
                        self.file,
                        self.text,
                        at,
                        format!("unknown action `{found}`"),
                        &expected,
                        "actions are written Action::\"read\"",
                    );
                }
            }
        }
        verbs
    }

    /// Compares literals beside attributes with fixed words.
    fn check_words(&self, tree: &Value, body: &str, offset: usize, zones: &BTreeSet<String>, faults: &mut Faults) {
        match tree {
            Value::Array(items) => {
                for item in items {
                    self.check_words(item, body, offset, zones, faults);
                }
            }
            Value::Object(map) => {
                for (operator, operands) in map {
                    if ["==", "!=", "contains", "containsAll", "containsAny"].contains(&operator.as_str())
                        && let (Some(left), Some(right)) = (operands.get("left"), operands.get("right"))
                    {
                        for (attribute, literal) in [(left, right), (right, left)] {
                            self.check_pair(attribute, literal, body, offset, zones, faults);
                        }
                    }
                    self.check_words(operands, body, offset, zones, faults);
                }
            }
            _ => {}
        }
    }

    fn check_pair(
        &self,
        attribute: &Value,
        literal: &Value,
        body: &str,
        offset: usize,
        zones: &BTreeSet<String>,
        faults: &mut Faults,
    ) {
        let Some((variable, name)) = attribute_of(attribute) else { return };
        let Words::Fixed(known) = words(&variable, &name, zones) else { return };
        let single = literal.get("Value").into_iter();
        let several =
            literal.get("Set").and_then(Value::as_array).into_iter().flatten().filter_map(|item| item.get("Value"));
        for word in single.chain(several).filter_map(Value::as_str) {
            if known.contains(word)
                || (name == "origin" && word.starts_with("mcp:"))
                || (name == "sink" && word.is_empty())
            {
                continue;
            }
            let at = body.find(&format!("\"{word}\"")).unwrap_or(0);
            let expected = known.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let message = format!("`{variable}.{name}` is never `{word}`");
            faults.at(self.file, self.text, offset + at, message, &expected, &closest(word, &known));
        }
    }

    fn validate(&self, rules: &[Rule], offsets: &BTreeMap<String, usize>, schema: &Schema, faults: &mut Faults) {
        let mut seen = BTreeSet::new();
        let unique = rules.iter().filter(|rule| seen.insert(rule.info.id.as_str())).map(|rule| rule.policy.clone());
        let Ok(set) = PolicySet::from_policies(unique) else { return };
        let result = Validator::new(schema.clone()).validate(&set, ValidationMode::Strict);
        for error in result.validation_errors() {
            let start = offsets.get(AsRef::<str>::as_ref(error.policy_id())).copied().unwrap_or(0);
            self.fault(faults, &DetailedError::from(error), start, "see docs/policy.md for what rules can look at");
        }
        for warning in result.validation_warnings() {
            let start = offsets.get(AsRef::<str>::as_ref(warning.policy_id())).copied().unwrap_or(0);
            self.fault(faults, &DetailedError::from(warning), start, "a rule that cannot match protects nothing");
        }
    }

    /// Turns one of Cedar's errors into a fault; `start` is used where Cedar says no place.
    fn fault(&self, faults: &mut Faults, error: &DetailedError, start: usize, hint: &str) {
        let label = error.source_locations.first();
        let offset = label.map_or(start, |label| label.loc.start);
        let expected = label.and_then(|label| label.label.clone()).unwrap_or_default();
        let expected = expected.strip_prefix("expected ").unwrap_or(&expected);
        let hint = error.help.as_deref().unwrap_or(hint);
        faults.at(self.file, self.text, offset, error.message.clone(), expected, hint);
    }
}

/// `variable.attribute` of an attribute access; for nested ones the record's name stands for the variable.
pub(crate) fn attribute_of(tree: &Value) -> Option<(String, String)> {
    let access = tree.get(".")?;
    let name = access.get("attr")?.as_str()?.to_owned();
    let left = access.get("left")?;
    if let Some(variable) = left.get("Var").and_then(Value::as_str) {
        return Some((variable.to_owned(), name));
    }
    attribute_of(left).map(|(_, record)| (record, name))
}

fn types(constraint: &ResourceConstraint) -> BTreeSet<&'static str> {
    match constraint {
        ResourceConstraint::Is(name) | ResourceConstraint::IsIn(name, _) => {
            let name = name.to_string();
            TYPES.iter().copied().filter(|kind| *kind == name).collect()
        }
        ResourceConstraint::Any | ResourceConstraint::In(_) | ResourceConstraint::Eq(_) => TYPES.into_iter().collect(),
    }
}

fn is_asi(word: &str) -> bool {
    word.strip_prefix("ASI").is_some_and(|rest| rest.len() == 2 && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_attack(word: &str) -> bool {
    let Some(rest) = word.strip_prefix('T') else { return false };
    let (technique, sub) = rest.split_once('.').unwrap_or((rest, "000"));
    technique.len() == 4 && sub.len() == 3 && technique.bytes().chain(sub.bytes()).all(|byte| byte.is_ascii_digit())
}

/// A hint that names the most similar known word.
fn closest(word: &str, known: &BTreeSet<String>) -> String {
    let nearest = known.iter().map(|candidate| (distance(word, candidate), candidate)).min();
    match nearest {
        Some((distance, candidate)) if distance <= 3 => format!("did you mean `{candidate}`?"),
        _ => "use one of the known words; zones are declared in zones.toml".to_owned(),
    }
}

/// Edit distance of two short words.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.chars().take(64).enumerate() {
        let mut diagonal = index;
        let mut before = index + 1;
        let mut next = vec![before];
        for (to, above) in right.iter().zip(row.iter().skip(1)) {
            before = (above + 1).min(before + 1).min(diagonal + usize::from(*to != from));
            diagonal = *above;
            next.push(before);
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}
