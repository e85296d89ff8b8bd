//! Time to judge 16 effects by the starter bundle and by 100 rules of one verb and object type: p50 and p99.
//!
//! `cargo bench -p creel-policy`. The budget (DESIGN §8) is p99 ≤ 1 ms for everything about a 4 KiB payload; judging is
//! the largest part of it. 100 rules on one verb is the worst case: slicing by verb helps nothing there. On a busy
//! machine the p99 shows the neighbours' time slices.
#![expect(clippy::print_stdout, clippy::expect_used, reason = "a measurement prints, and stops when it cannot start")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use creel_model::{ApprovalMode, Certainty, CommandClass, Effect, Mode, Object, Point, Verb};
use creel_policy::{AgentFacts, Bundle, Context, Places, Question, starter};

fn main() {
    let starter = Bundle::load(&starter(), 0).expect("the starter bundle loads");
    measure("starter bundle, ordinary command", &starter, &ordinary(&starter));
    let hundred = hundred();
    let reads: Vec<Effect> =
        (0..16).map(|n| path(&hundred, Verb::Read, &format!("/home/dev/project/src/{n}.rs"))).collect();
    measure("100 rules on one verb, none matches", &hundred, &reads);
    let hits: Vec<Effect> =
        (0..16).map(|n| path(&hundred, Verb::Read, &format!("/home/dev/project/secret-{n}/x"))).collect();
    measure("100 rules on one verb, one matches", &hundred, &hits);
    let began = Instant::now();
    let report = starter.run_tests();
    println!("starter bundle's {} cases: {:?}", report.cases, began.elapsed());
}

fn measure(name: &str, bundle: &Bundle, effects: &[Effect]) {
    let agent = AgentFacts {
        kind: "claude-code".into(),
        account_uid: 1000,
        mode: Mode::System,
        approval_mode: ApprovalMode::Ask,
        managed: true,
    };
    let question = Question {
        agent: &agent,
        effects,
        context: &Context::at(Point::ToolCall),
        places: &places(),
        set_aside: &BTreeMap::new(),
        now_unix_s: 0,
    };
    let mut times: Vec<u128> = Vec::new();
    for round in 0..3_300 {
        let began = Instant::now();
        let judgement = std::hint::black_box(bundle.judge(std::hint::black_box(&question)));
        let took = began.elapsed().as_nanos();
        drop(judgement);
        if round >= 300 {
            times.push(took);
        }
    }
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or(0) / 1_000;
    println!("{name}: {} effects, p50 {} us, p90 {} us, p99 {} us", effects.len(), at(50), at(90), at(99));
}

/// A build-and-push command's effects.
fn ordinary(bundle: &Bundle) -> Vec<Effect> {
    let program = |words: &str| {
        let mut words = words.split(' ').map(str::to_owned);
        let object = Object::Program { program: words.next().unwrap_or_default(), argv: words.collect(), script: None };
        let mut effect = Effect::new(Verb::Execute, object, Certainty::Parsed);
        effect.classes = BTreeSet::from([CommandClass::Build]);
        effect
    };
    let mut effects: Vec<Effect> =
        ["cargo test --all", "git add -A", "git commit -m x", "git push", "npm ci"].map(program).into();
    for n in 0..8 {
        let verb = if n % 2 == 0 { Verb::Read } else { Verb::Write };
        effects.push(path(bundle, verb, &format!("/home/dev/project/src/module/{n}.rs")));
    }
    for (verb, host) in
        [(Verb::Connect, "github.com"), (Verb::Send, "github.com"), (Verb::Receive, "registry.npmjs.org")]
    {
        let object = Object::Host { host: host.into(), port: Some(443), url: None };
        let mut effect = Effect::new(verb, object, Certainty::Parsed);
        effect.zones = bundle.zones_of_object(&effect.object, &places());
        effects.push(effect);
    }
    effects
}

/// A bundle of 100 rules about reading paths.
fn hundred() -> Bundle {
    let mut files = starter();
    files.retain(|file, _| !file.starts_with("tests/") && !file.starts_with("rules/"));
    if let Some(manifest) = files.get_mut("bundle.toml") {
        *manifest = manifest.split("[modes]").next().unwrap_or_default().to_owned();
    }
    let mut rules = String::new();
    for n in 0..100 {
        rules.push_str(&format!(
            "@id(\"r{n}\") @effect(\"ask\") @reason(\"measured\")\nforbid (principal, action == Action::\"read\", resource is Path)\nwhen {{ resource.path like \"*/secret-{n}/*\" || (resource.zones.contains(\"keys\") && context.labels.untrusted) || resource.name == \"x{n}\" }};\n"
        ));
    }
    files.insert("rules/hundred.cedar".into(), rules);
    Bundle::load(&files, 0).expect("the generated bundle loads")
}

fn places() -> Places {
    Places {
        home: "/home/dev".into(),
        workspace: Some("/home/dev/project".into()),
        temporary: vec!["/tmp".into()],
        uid: 1000,
    }
}

fn path(bundle: &Bundle, verb: Verb, path: &str) -> Effect {
    let object = Object::Path { path: path.to_owned(), resolved: None };
    let mut effect = Effect::new(verb, object, Certainty::Exact);
    effect.zones = bundle.zones_of_object(&effect.object, &places());
    effect
}
