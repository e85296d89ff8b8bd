//! The starter bundle: it loads, its tables hold, and every rule is shown matching and sparing.

use creel_policy::{Bundle, starter};

#[test]
fn the_starter_bundle_holds_its_own_tables() {
    let bundle = match Bundle::load(&starter(), 0) {
        Ok(bundle) => bundle,
        Err(faults) => panic!("{}", faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    };
    let report = bundle.run_tests();
    for failure in &report.failures {
        println!(
            "{}:{} {}: expected {}, {}",
            failure.file, failure.line, failure.case, failure.expected, failure.difference
        );
    }
    assert!(report.passed(), "{} of {} cases fail", report.failures.len(), report.cases);
    assert!(report.cases >= 150, "{} cases", report.cases);
    assert!(report.never_matched.is_empty(), "no case shows these matching: {:?}", report.never_matched);
    assert!(report.never_spared.is_empty(), "no case shows these sparing: {:?}", report.never_spared);
}

#[test]
fn the_built_in_list_names_every_file() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies/starter");
    let mut found = std::collections::BTreeMap::new();
    for folder in ["", "profiles/", "rules/", "tests/"] {
        for entry in std::fs::read_dir(format!("{root}/{folder}")).unwrap().map(Result::unwrap) {
            if entry.path().is_file() {
                let name = format!("{folder}{}", entry.file_name().to_string_lossy());
                found.insert(name, std::fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    assert_eq!(found, starter());
}

#[test]
fn the_floor_says_what_holds_without_context() {
    use creel_model::{Verb, Zone};
    use creel_policy::Answer;
    let bundle = Bundle::load(&starter(), 0).unwrap();
    let floor = bundle.floor();
    let cell = |verb, kind, zone: &str| floor.cells.get(&(verb, kind, Zone::named(zone))).unwrap();
    assert_eq!(cell(Verb::Write, "Path", "creel").answer, Answer::Deny);
    assert_eq!(cell(Verb::Write, "Path", "device").answer, Answer::Deny);
    assert_eq!(cell(Verb::Read, "Path", "workspace").answer, Answer::Allow);
    assert_eq!(cell(Verb::Connect, "Host", "metadata").answer, Answer::Deny);
    assert_eq!(cell(Verb::Connect, "Host", "code-host").answer, Answer::Allow);
    assert_eq!(cell(Verb::Read, "Path", "keys").answer, Answer::Depends, "on another machine it may be read");
    assert_eq!(cell(Verb::Send, "Host", "drop-point").answer, Answer::Deny);
}

#[test]
fn coverage_claims_nothing_better_than_the_hook() {
    use creel_model::Point;
    use creel_policy::{KindSupport, Standing};
    let bundle = Bundle::load(&starter(), 0).unwrap();
    let kind = KindSupport {
        kind: "claude-code".into(),
        blocks_at: [Point::ToolCall, Point::Prompt].into(),
        modifies_at: [].into(),
        asks: true,
    };
    let rows = bundle.coverage(&[kind]);
    let (rows, caged): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.mechanism == "hook");
    let standing =
        |rule: &str| caged.iter().find(|row| row.rule == rule).map(|row| (row.mechanism.as_str(), row.standing));
    for held in [
        "read-private-key",
        "read-credentials",
        "write-exec-bearing",
        "write-pipeline",
        "change-access",
        "creel-files",
        "metadata-service",
        "send-to-drop-point",
    ] {
        assert_eq!(standing(held), Some(("cage", Standing::Held)), "{held}");
    }
    for open in
        ["delete-home-or-root", "prompt-secret", "persistence-command", "send-secret-to-tool", "read-whole-home"]
    {
        assert_ne!(standing(open), Some(("cage", Standing::Held)), "{open}");
    }
    let row = |rule: &str| rows.iter().find(|row| row.rule == rule).unwrap();
    assert_eq!(row("delete-system").standing, Standing::HookOnly);
    assert_eq!(row("result-secret").standing, Standing::NotHeld, "no hook at results");
    assert!(row("prompt-secret").why.contains("cannot replace"));
    assert!(rows.iter().all(|row| matches!(row.standing, Standing::HookOnly | Standing::NotHeld)));
}

#[test]
fn doubtful_paths_and_hosts_are_in_guarded_zones_only() {
    let bundle = Bundle::load(&starter(), 0).unwrap();
    let zones = |path: &str| -> Vec<String> {
        bundle.zones_of_path(path, &crate::places()).into_iter().map(|zone| zone.0).collect()
    };
    assert_eq!(zones("/home/dev/project/src/a.rs"), ["workspace"]);
    assert_eq!(zones("/home/dev/.ssh/id_rsa"), ["home", "keys", "secrets"]);
    assert_eq!(zones("$X/.ssh/id_rsa"), ["keys", "secrets"]);
    assert_eq!(zones("/home/dev/project/../.netrc"), ["home", "secrets"]);
    assert_eq!(zones("/tmp/x"), ["temporary"]);
    assert_eq!(zones("/etc/hostname"), ["system"]);
    for host in [
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "0251.0376.0251.0376",
        "::ffff:169.254.169.254",
        "[::ffff:a9fe:a9fe]",
    ] {
        assert_eq!(bundle.zone_of_host(host).as_str(), "metadata", "{host}");
    }
    assert_eq!(bundle.zone_of_host("github.com.evil.example").as_str(), "unknown");
    assert_eq!(bundle.zone_of_host("127.1").as_str(), "loopback");
    assert_eq!(bundle.zone_of_host("10.1.2.3").as_str(), "internal");
    assert_eq!(bundle.zone_of_host("").as_str(), "unknown");
}

#[test]
fn deleting_the_home_folder_leads_with_that_reason() {
    use creel_model::Verb;
    let bundle = Bundle::load(&starter(), 0).unwrap();
    let mut effect = crate::path(&bundle, Verb::Delete, "/home/dev");
    effect.recursive = true;
    let judgement = crate::judge(&bundle, &[effect]);
    let ids: Vec<&str> = judgement.rules.iter().map(|rule| rule.rule.as_str()).collect();
    assert_eq!(ids.first(), Some(&"delete-home-or-root"));
    assert!(ids.contains(&"creel-files-below"), "{ids:?}");
    assert!(judgement.reason().starts_with("this deletes or moves the whole home folder"));
}
