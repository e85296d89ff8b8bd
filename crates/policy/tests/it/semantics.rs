//! Each sentence of the pinned semantics (docs/decisions/0002-cedar-semantics.md), and approvals and exceptions.

use std::collections::BTreeMap;

use creel_model::{RuleMode, Verb, Verdict};
use creel_policy::Transform;

use crate::{files, ids, judge, judge_with, load, path, with};

const READ: &str = "(principal, action == Action::\"read\", resource is Path)";

fn rule(id: &str, annotations: &str, condition: &str) -> String {
    format!("@id(\"{id}\") @reason(\"because\") {annotations}\nforbid {READ} when {{ {condition} }};\n")
}

#[test]
fn sentence_1_an_evaluation_error_is_a_deny() {
    // Cedar itself would skip this forbid and allow.
    let overflow = rule("overflows", "@effect(\"ask\")", "principal.uid + 9223372036854775807 > 0");
    let bundle = load(&files(&overflow));
    let judgement = judge(&bundle, &[path(&bundle, Verb::Read, "/x")]);
    assert_eq!(judgement.verdict, Verdict::Deny);
    assert_eq!(ids(&judgement), ["policy-error"].into());
    assert_eq!(
        judge(&bundle, &[path(&bundle, Verb::Write, "/x")]).verdict,
        Verdict::Allow,
        "other verbs are untouched"
    );
}

#[test]
fn sentence_1_holds_inside_a_gated_group_and_hides_no_other_rule() {
    let mut text = rule("overflows", "", "principal.uid + 9223372036854775807 > 0");
    for index in 0..20 {
        text.push_str(&rule(&format!("never-{index}"), "", "resource.path == \"/never\""));
    }
    text.push_str(&rule("zz-matches", "@effect(\"ask\")", "resource.path == \"/x\""));
    let bundle = load(&files(&text));
    let judgement = judge(&bundle, &[path(&bundle, Verb::Read, "/x")]);
    assert_eq!(ids(&judgement), ["policy-error", "zz-matches"].into());
    assert_eq!(judgement.verdict, Verdict::Deny);
}

#[test]
fn sentence_2_audit_rules_are_a_separate_set_and_only_recorded() {
    let text = rule("one", "@effect(\"deny\")", "true") + &rule("two", "@effect(\"ask\")", "true");
    let mut bundle = load(&files(&text));
    bundle.set_modes(&BTreeMap::from([("one".to_owned(), RuleMode::Audit)])).unwrap();
    let judgement = judge(&bundle, &[path(&bundle, Verb::Read, "/x")]);
    assert_eq!((judgement.verdict, ids(&judgement)), (Verdict::Ask, ["two"].into()));
    assert_eq!(judgement.audit.iter().map(|rule| rule.rule.as_str()).collect::<Vec<_>>(), ["one"]);
    bundle.set_modes(&BTreeMap::from([("*".to_owned(), RuleMode::Audit)])).unwrap();
    let judgement = judge(&bundle, &[path(&bundle, Verb::Read, "/x")]);
    assert_eq!((judgement.verdict, judgement.audit.len()), (Verdict::Allow, 2));
    bundle.set_modes(&BTreeMap::from([("one".to_owned(), RuleMode::Off)])).unwrap();
    let judgement = judge(&bundle, &[path(&bundle, Verb::Read, "/x")]);
    assert_eq!((judgement.verdict, judgement.audit.len()), (Verdict::Ask, 0));
    assert!(bundle.set_modes(&BTreeMap::from([("three".to_owned(), RuleMode::Off)])).is_err());
}

#[test]
fn sentence_2_an_error_in_an_audit_rule_denies_nothing() {
    let mut bundle = load(&files(&rule("overflows", "", "principal.uid + 9223372036854775807 > 0")));
    bundle.set_modes(&BTreeMap::from([("*".to_owned(), RuleMode::Audit)])).unwrap();
    let judgement = judge(&bundle, &[path(&bundle, Verb::Read, "/x")]);
    assert_eq!((judgement.verdict, judgement.audit.len()), (Verdict::Allow, 1));
}

#[test]
fn sentence_3_defaults_are_one_generated_permit_per_verb_and_permits_open_the_others() {
    let base = files("");
    let manifest = base["bundle.toml"]
        .replace("read = \"allow\"", "read = \"deny\"")
        .replace("write = \"allow\"", "write = \"ask\"");
    let text = format!("@id(\"open-work\")\npermit {READ} when {{ resource.zones.contains(\"workspace\") }};\n");
    let bundle = load(&with(with(base, "bundle.toml", &manifest), "rules/r.cedar", &text));
    assert_eq!(bundle.generated_permits().len(), Verb::ALL.len() - 2);
    let verdict = |verb, at: &str| judge(&bundle, &[path(&bundle, verb, at)]).verdict;
    assert_eq!(verdict(Verb::Read, "/etc/x"), Verdict::Deny);
    assert_eq!(verdict(Verb::Read, "/home/dev/project/x"), Verdict::Allow);
    assert_eq!(verdict(Verb::Write, "/home/dev/project/x"), Verdict::Ask);
    assert_eq!(verdict(Verb::Delete, "/etc/x"), Verdict::Allow);
    let judgement = judge(&bundle, &[path(&bundle, Verb::Read, "/etc/x")]);
    assert_eq!(ids(&judgement), ["default"].into());
}

#[test]
fn sentence_4_the_strongest_effect_of_all_matching_forbids_counts() {
    let modify = rule("m", "@effect(\"modify\") @transform(\"redact\")", "true");
    let ask = rule("a", "@effect(\"ask\")", "resource.path == \"/a\" || resource.path == \"/d\"");
    let deny = rule("d", "", "resource.path == \"/d\"");
    let bundle = load(&files(&(modify + &ask + &deny)));
    let verdict = |at: &str| judge(&bundle, &[path(&bundle, Verb::Read, at)]).verdict;
    assert_eq!(verdict("/m"), Verdict::Modify);
    assert_eq!(verdict("/a"), Verdict::Ask);
    assert_eq!(verdict("/d"), Verdict::Deny, "a missing @effect is deny");
    let both = judge(&bundle, &[path(&bundle, Verb::Read, "/m"), path(&bundle, Verb::Read, "/a")]);
    assert_eq!(both.verdict, Verdict::Ask, "over all effects");
    assert_eq!(both.rules.first().map(|rule| (rule.rule.as_str(), rule.effect_index)), Some(("a", 1)));
    assert!(both.transforms.is_empty(), "nothing is changed where the verdict is not modify");
}

#[test]
fn sentence_4_no_matching_permit_is_the_default_also_beside_a_weaker_forbid() {
    let base = files(&rule("m", "@effect(\"modify\") @transform(\"redact\")", "true"));
    let manifest = base["bundle.toml"].replace("read = \"allow\"", "read = \"deny\"");
    let bundle = load(&with(base, "bundle.toml", &manifest));
    assert_eq!(judge(&bundle, &[path(&bundle, Verb::Read, "/x")]).verdict, Verdict::Deny);
}

#[test]
fn sentence_5_two_different_transformations_are_a_deny() {
    let redact = rule("r", "@effect(\"modify\") @transform(\"redact\")", "true");
    let again = rule("r2", "@effect(\"modify\") @transform(\"redact\")", "true");
    let withhold = rule("w", "@effect(\"modify\") @transform(\"withhold\")", "resource.path == \"/x\"");
    let bundle = load(&files(&(redact + &again + &withhold)));
    let one = judge(&bundle, &[path(&bundle, Verb::Read, "/y")]);
    assert_eq!((one.verdict, one.transforms.get(&0)), (Verdict::Modify, Some(&Transform::Redact)));
    let two = judge(&bundle, &[path(&bundle, Verb::Read, "/x")]);
    assert_eq!(two.verdict, Verdict::Deny);
    assert!(ids(&two).contains("conflicting-transforms"));
}

#[test]
fn sentence_7_a_rule_is_looked_at_only_for_its_verbs_and_objects() {
    let bundle = load(&files(&rule("r", "", "true")));
    let considered = |verb| {
        let effects = [path(&bundle, verb, "/x")];
        let (agent, places, aside) = (crate::agent(), crate::places(), BTreeMap::new());
        let context = creel_policy::Context::at(creel_model::Point::ToolCall);
        let question = creel_policy::Question {
            agent: &agent,
            effects: &effects,
            context: &context,
            places: &places,
            set_aside: &aside,
            now_unix_s: 0,
        };
        let explanation = bundle.explain(&question);
        assert_eq!(explanation.effects[0].facts["resource"]["path"], "/x");
        explanation.effects[0].considered
    };
    assert_eq!((considered(Verb::Read), considered(Verb::Write)), (1, 0));
}

#[test]
fn an_approval_sets_aside_asks_by_name_and_never_a_deny() {
    let text = rule("a", "@effect(\"ask\")", "true")
        + &rule("b", "@effect(\"ask\")", "true")
        + &rule("d", "", "resource.path == \"/d\"");
    let bundle = load(&files(&text));
    let effects = [path(&bundle, Verb::Read, "/x")];
    assert_eq!(judge_with(&bundle, &effects, &["a"]).verdict, Verdict::Ask);
    let both = judge_with(&bundle, &effects, &["a", "b"]);
    assert_eq!(both.verdict, Verdict::Allow);
    assert!(both.rules.iter().all(|rule| rule.approved_by.as_deref() == Some("a1")), "they are still reported");
    let denied = judge_with(&bundle, &[path(&bundle, Verb::Read, "/d")], &["a", "b", "d", "policy-error"]);
    assert_eq!(denied.verdict, Verdict::Deny);
}

#[test]
fn an_exception_is_reported_scoped_and_ends() {
    let text =
        rule("r", "", "true") + &rule("fixed", "@exceptable(\"no\") @effect(\"ask\")", "resource.path == \"/fixed\"");
    let exception = "[[exception]]\nid = \"e1\"\nrule = \"r\"\nreason = \"x\"\nowner = \"ann\"\nexpires = 2026-12-01\n[exception.scope]\npaths = [\"~/data/**\"]\n";
    let bundle = load(&with(files(&text), "exceptions.toml", exception));
    let inside = judge(&bundle, &[path(&bundle, Verb::Read, "/home/dev/data/x")]);
    assert_eq!(inside.verdict, Verdict::Allow);
    assert_eq!(inside.rules[0].excepted_by.as_deref(), Some("e1"));
    assert_eq!(judge(&bundle, &[path(&bundle, Verb::Read, "/home/dev/x")]).verdict, Verdict::Deny);
    assert_eq!(judge(&bundle, &[path(&bundle, Verb::Read, "/home/dev/data/../x")]).verdict, Verdict::Deny);
    let mut link = path(&bundle, Verb::Read, "/home/dev/data/x");
    link.object = creel_model::Object::Path { path: "/home/dev/data/x".into(), resolved: Some("/etc/shadow".into()) };
    assert_eq!(judge(&bundle, &[link]).verdict, Verdict::Deny, "a link does not carry an exception elsewhere");
    let later = creel_policy::Bundle::load(&with(files(&text), "exceptions.toml", exception), crate::NOW + 60 * 86_400)
        .unwrap();
    let question = [path(&later, Verb::Read, "/home/dev/data/x")];
    let (agent, places, aside) = (crate::agent(), crate::places(), BTreeMap::new());
    let context = creel_policy::Context::at(creel_model::Point::ToolCall);
    let ended = later.judge(&creel_policy::Question {
        agent: &agent,
        effects: &question,
        context: &context,
        places: &places,
        set_aside: &aside,
        now_unix_s: crate::NOW + 60 * 86_400,
    });
    assert_eq!(ended.verdict, Verdict::Deny, "an expired exception does nothing");
}

#[test]
fn more_effects_than_can_be_judged_are_asked() {
    let bundle = load(&files(&rule("d", "", "resource.path == \"/d\"")));
    let many: Vec<_> = (0..65).map(|index| path(&bundle, Verb::Read, &format!("/x{index}"))).collect();
    let judgement = judge(&bundle, &many);
    assert_eq!((judgement.verdict, ids(&judgement)), (Verdict::Ask, ["too-many-effects"].into()));
}

#[test]
fn a_bundle_can_be_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<creel_policy::Bundle>();
}
