//! The crate from outside: the pinned semantics, faults of bundles, layers, and the starter bundle.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly"
)]

mod faults;
mod layers;
mod profiles;
mod semantics;
mod starter;

use std::collections::{BTreeMap, BTreeSet};

use creel_model::{ApprovalMode, Certainty, Effect, Mode, Object, Point, Verb};
use creel_policy::{AgentFacts, Bundle, Context, Judgement, Places, Question};

/// 2026-11-21T00:00:00Z.
pub(crate) const NOW: i64 = 1_795_219_200;

/// A bundle's files around one file of rules.
pub(crate) fn files(rules: &str) -> BTreeMap<String, String> {
    let mut manifest = String::from("id = \"t\"\nversion = \"1\"\ncreel = \"1\"\n\n[default]\n");
    for verb in Verb::ALL {
        manifest.push_str(&format!("{verb} = \"allow\"\n"));
    }
    let zones = "[[zone]]\nname = \"secrets\"\npaths = [\"~/.ssh/**\"]\n\n[[zone]]\nname = \"workspace\"\nopen = true\npaths = [\"@workspace/**\"]\n\n[[zone]]\nname = \"internal\"\nopen = true\nhosts = [\"*.corp\"]\n";
    BTreeMap::from([
        ("bundle.toml".to_owned(), manifest),
        ("zones.toml".to_owned(), zones.to_owned()),
        ("rules/r.cedar".to_owned(), rules.to_owned()),
    ])
}

/// The same with a changed file.
pub(crate) fn with(mut files: BTreeMap<String, String>, file: &str, text: &str) -> BTreeMap<String, String> {
    files.insert(file.to_owned(), text.to_owned());
    files
}

pub(crate) fn load(files: &BTreeMap<String, String>) -> Bundle {
    match Bundle::load(files, NOW) {
        Ok(bundle) => bundle,
        Err(faults) => panic!("{}", faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

pub(crate) fn agent() -> AgentFacts {
    AgentFacts {
        kind: "claude-code".into(),
        account_uid: 1000,
        mode: Mode::System,
        approval_mode: ApprovalMode::Ask,
        managed: true,
    }
}

pub(crate) fn places() -> Places {
    Places {
        home: "/home/dev".into(),
        workspace: Some("/home/dev/project".into()),
        temporary: vec!["/tmp".into()],
        uid: 1000,
    }
}

pub(crate) fn path(bundle: &Bundle, verb: Verb, path: &str) -> Effect {
    let object = Object::Path { path: path.to_owned(), resolved: None };
    let mut effect = Effect::new(verb, object, Certainty::Exact);
    effect.zones = bundle.zones_of_object(&effect.object, &places());
    effect
}

/// Judges with nothing set aside.
pub(crate) fn judge(bundle: &Bundle, effects: &[Effect]) -> Judgement {
    judge_with(bundle, effects, &[])
}

/// Judges with these rules set aside by the approval `a1`.
pub(crate) fn judge_with(bundle: &Bundle, effects: &[Effect], aside: &[&str]) -> Judgement {
    let set_aside = aside.iter().map(|rule| ((*rule).to_owned(), "a1".to_owned())).collect();
    bundle.judge(&Question {
        agent: &agent(),
        effects,
        context: &Context::at(Point::ToolCall),
        places: &places(),
        set_aside: &set_aside,
        now_unix_s: NOW,
    })
}

pub(crate) fn ids(judgement: &Judgement) -> BTreeSet<&str> {
    judgement.rules.iter().map(|rule| rule.rule.as_str()).collect()
}
