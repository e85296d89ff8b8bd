//! Every fault of a bundle says file, line, column, what was expected and what to do.

use std::collections::BTreeMap;

use creel_policy::{Bundle, Diagnostic};

use crate::{NOW, files, with};

const HEAD: &str = "@id(\"r\") @reason(\"because\")\n";

/// Loads and expects a fault there that says these words.
#[track_caller]
fn check(files: &BTreeMap<String, String>, at: (&str, u32, u32), words: &str) -> Diagnostic {
    let faults = Bundle::load(files, NOW).expect_err("it loads");
    let found = faults
        .iter()
        .find(|fault| (fault.file.as_str(), fault.line, fault.column) == at && fault.to_string().contains(words));
    match found {
        Some(fault) => fault.clone(),
        None => panic!(
            "no fault at {at:?} with `{words}` in:\n{}",
            faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        ),
    }
}

/// The same, where the place is that of the first `needle` in the rules file.
#[track_caller]
fn check_at(files: &BTreeMap<String, String>, needle: &str, words: &str) -> Diagnostic {
    let text = &files["rules/r.cedar"];
    let (before, _) = text.split_once(needle).expect("the needle is there");
    let line = before.lines().count().max(1) + usize::from(before.ends_with('\n'));
    let column = before.rsplit('\n').next().unwrap_or("").len() + 1;
    check(files, ("rules/r.cedar", u32::try_from(line).unwrap(), u32::try_from(column).unwrap()), words)
}

fn rule(body: &str) -> BTreeMap<String, String> {
    files(&format!("{HEAD}{body}"))
}

#[test]
fn rules() {
    let r = "rules/r.cedar";
    let read = "forbid (principal, action == Action::\"read\", resource is Path)";
    check_at(&rule("forbid (principal, action resource);"), "resource);", "unexpected token");
    check_at(&rule(&format!("{read} when {{ resource.pth == \"x\" }};")), "resource.pth", "pth");
    check_at(&rule(&format!("{read} when {{ context.colour == \"x\" }};")), "context.colour", "colour");
    check_at(&rule("forbid (principal, action == Action::\"raed\", resource);"), "Action::\"raed\"", "raed");
    check_at(&rule("forbid (principal, action, resource) when { resource.path == \"x\" };"), "resource.path", "path");
    let zone = check_at(
        &rule(&format!("{read} when {{ resource.zones.contains(\"secretz\") }};")),
        "\"secretz\"",
        "never `secretz`",
    );
    assert_eq!(zone.hint, "did you mean `secrets`?");
    check_at(
        &rule(&format!("{read} when {{ context.classes.containsAny([\"build\", \"destroy\"]) }};")),
        "\"destroy\"",
        "destroy",
    );
    check_at(&rule(&format!("{read} when {{ context.sink == \"newe\" }};")), "\"newe\"", "newe");
    // Sentence 6: an unknown annotation or value is a load error.
    check(
        &files(&format!("@id(\"r\") @reason(\"x\") @efect(\"ask\")\n{read};")),
        (r, 1, 23),
        "unknown annotation `@efect`",
    );
    check(&files(&format!("@id(\"r\") @reason(\"x\") @effect(\"aks\")\n{read};")), (r, 1, 23), "effect `aks`");
    check(&files(&format!("@id(\"r\") @reason(\"x\") @severity(\"huge\")\n{read};")), (r, 1, 23), "severity `huge`");
    check(&files(&format!("@id(\"r\") @reason(\"x\") @asi(\"ASI2\")\n{read};")), (r, 1, 23), "ASI2");
    check(&files(&format!("@id(\"r\") @reason(\"x\") @attack(\"1552\")\n{read};")), (r, 1, 23), "1552");
    check(&files(&format!("@id(\"r\") @reason(\"x\") @exceptable(\"maybe\")\n{read};")), (r, 1, 23), "maybe");
    check(
        &files(&format!("@id(\"r\") @reason(\"x\") @effect(\"modify\")\n{read};")),
        (r, 1, 23),
        "without `@transform`",
    );
    check(
        &files(&format!("@id(\"r\") @reason(\"x\") @effect(\"modify\") @transform(\"melt\")\n{read};")),
        (r, 1, 41),
        "melt",
    );
    check(&files(&format!("@reason(\"x\")\n{read};")), (r, 1, 1), "rule id");
    check(&files(&format!("@id(\"default\") @reason(\"x\")\n{read};")), (r, 1, 1), "creel's own");
    check(&files(&format!("@id(\"r\")\n{read};")), (r, 1, 1), "no usable reason");
    check(&files(&format!("{HEAD}{read};\n{HEAD}{read};")), (r, 1, 5), "declared twice");
    check(&files("@id(\"p\")\npermit (principal, action, resource);"), (r, 1, 5), "opens nothing");
    check_at(&rule("forbid (principal == ?principal, action, resource);"), "?principal", "template");
}

#[test]
fn other_files() {
    let base = files("");
    let manifest = &base["bundle.toml"];
    let with_manifest = |text: &str| with(base.clone(), "bundle.toml", text);
    check(&with_manifest(&manifest.replace("id = \"t\"", "id = \"t")), ("bundle.toml", 1, 8), "");
    check(&with_manifest(&manifest.replace("creel = \"1\"", "creel = \"9\"")), ("bundle.toml", 3, 9), "`9`");
    check(
        &with_manifest(&manifest.replace("read = \"allow\"", "read = \"perhaps\"")),
        ("bundle.toml", 6, 8),
        "perhaps",
    );
    check(&with_manifest(&manifest.replace("read = \"allow\"\n", "")), ("bundle.toml", 5, 1), "no default for `read`");
    check(&with_manifest(&manifest.replace("read =", "raed =")), ("bundle.toml", 6, 1), "unknown verb `raed`");
    check(
        &with_manifest(&format!("{manifest}\n[modes]\nnothing = \"audit\"\n")),
        ("bundle.toml", 21, 1),
        "unknown rule",
    );
    check(&with_manifest(&format!("colour = 1\n{manifest}")), ("bundle.toml", 1, 1), "colour");
    let zones = |text: &str| with(base.clone(), "zones.toml", text);
    check(&zones("[[zone]]\nname = \"a\"\npaths = [\"etc/x\"]\n"), ("zones.toml", 3, 10), "begins nowhere");
    check(&zones("[[zone]]\nname = \"a\"\nhosts = [\"https://x\"]\n"), ("zones.toml", 3, 10), "not a host pattern");
    check(&zones("[[zone]]\nname = \"A\"\n"), ("zones.toml", 2, 8), "not a zone's name");
    check(&zones("[[zone]]\nname = \"a\"\nunless = [\"b\"]\n"), ("zones.toml", 3, 11), "`b`");
    let rules = "@id(\"r\") @reason(\"x\")\nforbid (principal, action, resource);\n@id(\"f\") @reason(\"x\") @exceptable(\"no\")\nforbid (principal, action, resource);";
    let exception = |rule: &str, expires: &str, scope: &str| {
        let text = format!(
            "[[exception]]\nid = \"e\"\nrule = \"{rule}\"\nreason = \"x\"\nowner = \"a\"\nexpires = {expires}\nscope = {scope}\n"
        );
        with(files(rules), "exceptions.toml", &text)
    };
    check(&exception("gone", "2026-12-01", "{ agents = [\"x\"] }"), ("exceptions.toml", 3, 8), "does not exist");
    check(&exception("f", "2026-12-01", "{ agents = [\"x\"] }"), ("exceptions.toml", 3, 8), "not exceptable");
    check(&exception("r", "2027-12-01", "{ agents = [\"x\"] }"), ("exceptions.toml", 6, 11), "90 days");
    check(&exception("r", "2026-12-01", "{}"), ("exceptions.toml", 7, 9), "no scope");
    let table = |text: &str| with(base.clone(), "tests/t.toml", text);
    check(&table("cases = [\n  { do = \"raed /x\", is = \"allow\" },\n]"), ("tests/t.toml", 2, 3), "unknown verb");
    check(
        &table("cases = [\n  { do = \"read /x\", is = \"allow\", not = \"gone\" },\n]"),
        ("tests/t.toml", 2, 41),
        "unknown rule",
    );
    check(&with(base.clone(), "rule/x.cedar", ""), ("rule/x.cedar", 1, 1), "not part of a bundle");
    check(&BTreeMap::new(), ("bundle.toml", 1, 1), "there is no `bundle.toml`");
}

#[test]
fn a_failing_table_says_what_came_instead() {
    let table = "cases = [\n  { do = \"read ~/.ssh/id\", is = \"deny\", by = \"r\" },\n]";
    let text = format!("{HEAD}@effect(\"ask\") forbid (principal, action == Action::\"read\", resource);");
    let bundle = crate::load(&with(files(&text), "tests/t.toml", table));
    let report = bundle.run_tests();
    assert!(!report.passed());
    let failure = &report.failures[0];
    assert_eq!((failure.line, failure.difference.as_str()), (2, "`ask` by r"));
}

/// A bundle that somebody hands in to be looked at must not end the program: 2 MiB is what a thread has.
#[test]
fn a_rule_is_not_too_deep_for_the_stack_of_a_thread() {
    type Shape = (&'static str, fn(usize) -> String);
    let shapes: [Shape; 7] = [
        ("brackets", |n| format!("{}true{}", "(".repeat(n), ")".repeat(n))),
        ("lists", |n| format!("{}1{} == [1]", "[".repeat(n), "]".repeat(n))),
        ("and", |n| vec!["true"; n].join(" && ")),
        ("or", |n| vec!["resource.path like \"*x\""; n].join("||")),
        ("sums", |n| format!("{} == 1", vec!["1"; n].join("+"))),
        ("accesses", |n| format!("context{} == 1", ".point".repeat(n))),
        ("conditions", |n| format!("{}true{}", "if true then ".repeat(n), " else false".repeat(n))),
    ];
    let deep = move || {
        for (name, shape) in shapes {
            for n in [20, 80, 120, 250, 5_000, 100_000] {
                let read = "forbid (principal, action == Action::\"read\", resource is Path)";
                let loaded = Bundle::load(&rule(&format!("{read} when {{ {} }};", shape(n))), NOW);
                assert!(n <= 250 || loaded.is_err(), "{name} {n}");
            }
        }
        let hidden = "\"))))\" // ((((\n".repeat(1_000);
        assert!(
            Bundle::load(&rule(&format!("forbid (principal, action, resource) when {{ {hidden} }};")), NOW).is_err()
        );
    };
    std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(deep).unwrap().join().unwrap();
    let faults =
        Bundle::load(&rule(&format!("forbid (principal, action, resource) when {{ {} }};", "(".repeat(40))), NOW);
    assert!(faults.unwrap_err()[0].to_string().contains("too many brackets"));
}
