//! `creel policy`, `break-glass`: rules are tested, changed by people, kept over restarts, and explained.

use creel_tests::{Account, Stage};
use serde_json::Value;

use super::{CALLS, HOME, STATE, STOPPED, Terminal, attack, confirmed, creel, json, lines, sh, well};

const WRITE_DEVICE: &str = "@id(\"write-device\") @effect(\"deny\")";

/// The built-in bundle as a folder of the person, to be changed by a test.
fn bundle(stage: &Stage, name: &str) -> String {
    let folder = format!("{HOME}/{name}");
    let view = json(stage, &["policy", "show", "--files", "--format", "json"]);
    for (name, text) in view["files"].as_object().unwrap() {
        stage.write(Account::USER, &format!("{folder}/{name}"), text.as_str().unwrap()).unwrap();
    }
    folder
}

fn change(stage: &Stage, file: &str, from: &str, to: &str) {
    let text = stage.read(file).unwrap();
    assert!(text.contains(from), "{file}");
    stage.write(Account::USER, file, text.replacen(from, to, 1)).unwrap();
}

fn summary(stage: &Stage) -> Value {
    json(stage, &["status", "--format", "json"])["policy"].clone()
}

fn modes(stage: &Stage) -> (u64, u64) {
    let summary = summary(stage);
    (summary["blocking"].as_u64().unwrap(), summary["audit"].as_u64().unwrap())
}

fn restart(stage: &Stage) {
    well(stage, &["down"]);
    well(stage, &["up", "--detach"]);
}

#[test]
fn a_bundle_is_checked_and_tested_without_a_daemon() {
    let Some(stage) = Stage::open() else { return };
    let built_in = well(&stage, &["policy", "test"]);
    assert!(built_in.stdout.contains("cases passed, 0 failed"), "{built_in}");
    let folder = bundle(&stage, "new");
    assert!(well(&stage, &["policy", "check", &folder]).stdout.contains("no mistakes"));
    well(&stage, &["policy", "test", &folder]);
    for command in ["coverage", "floor"] {
        let built_in = json(&stage, &["policy", command, "--format", "json"]);
        assert!(built_in.as_array().unwrap().len() > 50, "{command}");
        assert_eq!(json(&stage, &["policy", command, &folder, "--format", "json"]), built_in);
        well(&stage, &["policy", command]);
    }

    // Every mistake with its place.
    let rules = format!("{folder}/rules/10-destruction.cedar");
    change(&stage, &rules, "forbid (principal, action", "forbit (principal, action");
    let checked = creel(&stage, &["policy", "check", &folder]);
    assert_eq!(checked.code, Some(1), "{checked}");
    assert!(checked.stdout.contains("rules/10-destruction.cedar:"), "{checked}");
    let told = creel(&stage, &["policy", "check", &folder, "--format", "json"]).json().unwrap();
    assert!(told[0]["line"].as_u64() > Some(1), "{told:#}");
    change(&stage, &rules, "forbit (principal, action", "forbid (principal, action");

    // A rule that no longer does what its tables say.
    change(&stage, &rules, WRITE_DEVICE, &WRITE_DEVICE.replace("deny", "ask"));
    let tested = creel(&stage, &["policy", "test", &folder]);
    assert_eq!(tested.code, Some(1), "{tested}");
    assert!(tested.stdout.contains("failed  tests/10-destruction.toml"), "{tested}");
    assert!(tested.stdout.contains("write-device"), "{tested}");
    let nothing = creel(&stage, &["policy", "check", "/tmp"]);
    assert_eq!(nothing.code, Some(1), "{nothing}");
}

#[test]
fn a_bad_bundle_never_replaces_a_good_one() {
    let Some(stage) = Stage::open() else { return };
    let folder = bundle(&stage, "new");
    well(&stage, &["up", "--detach"]);
    let before = summary(&stage)["digest"].clone();

    let rules = format!("{folder}/rules/10-destruction.cedar");
    change(&stage, &rules, "forbid (", "forbit (");
    for arguments in [&["policy", "load", &folder, "--dry-run"][..], &["policy", "replay", "--bundle", &folder]] {
        let refused = creel(&stage, arguments);
        assert_eq!(refused.code, Some(1), "{refused}");
        assert!(refused.stdout.contains("rules/10-destruction.cedar:"), "{refused}");
    }
    let refused = Terminal::open(&stage, 120, &format!("creel policy load {folder}")).ends();
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stdout.contains("the bundle in force stays"), "{refused}");
    assert_eq!(summary(&stage)["digest"], before);
    change(&stage, &rules, "forbit (", "forbid (");
    change(&stage, &rules, WRITE_DEVICE, &WRITE_DEVICE.replace("deny", "ask"));
    let refused = Terminal::open(&stage, 120, &format!("creel policy load {folder}")).ends();
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stdout.contains("is not in force: its tests fail"), "{refused}");
    assert_eq!(summary(&stage)["digest"], before);
    change(&stage, &rules, &WRITE_DEVICE.replace("deny", "ask"), WRITE_DEVICE);

    // Without a person nothing is loaded, good as it may be.
    change(&stage, &format!("{folder}/bundle.toml"), "version = \"1.0.0\"", "version = \"1.0.1\"");
    let refused = creel(&stage, &["policy", "load", &folder]);
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.stderr.contains("person"), "{refused}");
    assert!(well(&stage, &["policy", "load", &folder, "--dry-run"]).stdout.contains("dry run"));
    assert_eq!(summary(&stage)["digest"], before);

    let loaded = confirmed(&stage, &format!("creel policy load {folder}"));
    assert_eq!(loaded.code, Some(0), "{loaded}");
    let after = summary(&stage);
    assert_ne!(after["digest"], before);
    assert_eq!((&after["version"], &after["trust"]), (&"1.0.1".into(), &"local-unsigned".into()));
    restart(&stage);
    assert_eq!(summary(&stage)["digest"], after["digest"]);

    // What was kept is damaged: the built-in rules act again, and it is said.
    stage.write(Account::USER, &format!("{STATE}/policy/bundle.toml"), "nonsense = [").unwrap();
    restart(&stage);
    assert_eq!(summary(&stage)["digest"], before);
    let status = well(&stage, &["status"]).stdout;
    assert!(status.contains("is not used"), "{status}");
}

#[test]
fn rules_act_when_a_person_says_so_and_stay_so() {
    let Some(stage) = Stage::open() else { return };
    well(&stage, &["up", "--detach"]);
    let (blocking, all) = modes(&stage);
    assert_eq!(blocking, 0);
    // In audit everything runs, and the report says what would not have.
    let played = attack(&stage);
    assert!(played.iter().all(|call| call["stopped"] == false), "{played:#?}");
    let report = json(&stage, &["policy", "report", "--format", "json"]);
    assert!(report["would_have"].as_u64() >= Some(STOPPED as u64), "{report:#}");
    let table = well(&stage, &["policy", "report"]).stdout;
    assert!(table.contains("delete-home-or-root") && table.contains("creel policy enforce"), "{table}");

    // One rule, then all; kept over restarts.
    well(&stage, &["policy", "enforce", "delete-home-or-root"]);
    assert_eq!(modes(&stage).0, 1);
    restart(&stage);
    assert_eq!(modes(&stage).0, 1);
    let unknown = creel(&stage, &["policy", "enforce", "no-such-rule"]);
    assert_eq!(unknown.code, Some(2), "{unknown}");
    well(&stage, &["policy", "enforce"]);
    let enforced = modes(&stage);
    assert!(enforced.0 > 50 && enforced.0 + enforced.1 == all, "{enforced:?}");
    restart(&stage);
    assert_eq!(modes(&stage), enforced);
    let played = attack(&stage);
    assert_eq!(played.iter().filter(|call| call["stopped"] == true).count(), STOPPED, "{played:#?}");
    assert!(played.iter().all(|call| call["stopped"] == call["expect_stop"]));

    // Loosening needs a person.
    let refused = creel(&stage, &["policy", "audit", "delete-home-or-root"]);
    assert_eq!(refused.code, Some(2), "{refused}");
    assert_eq!(modes(&stage), enforced);
    let loosened = confirmed(&stage, "creel policy audit delete-home-or-root");
    assert_eq!(loosened.code, Some(0), "{loosened}");
    assert_eq!(modes(&stage), (enforced.0 - 1, enforced.1 + 1));
    restart(&stage);
    assert_eq!(modes(&stage), (enforced.0 - 1, enforced.1 + 1));
    let changes = lines(&stage, &["log", "--kind", "policy", "--format", "jsonl", "-n", "1000"]);
    assert!(changes.len() >= 4, "{changes:#?}");
    well(&stage, &["log", "verify"]);
}

#[test]
fn the_record_is_judged_again_with_other_rules() {
    let Some(stage) = Stage::open() else { return };
    well(&stage, &["up", "--detach", "--enforce"]);
    attack(&stage);
    let folder = bundle(&stage, "new");
    let same = json(&stage, &["policy", "replay", "--bundle", &folder, "--format", "json"]);
    assert_eq!(same["changed"], 0, "{same:#}");
    assert!(same["judged"].as_u64().unwrap() >= CALLS as u64 - 2, "{same:#}");
    change(
        &stage,
        &format!("{folder}/rules/20-credentials.cedar"),
        "@id(\"read-credentials\") @effect(\"ask\")",
        "@id(\"read-credentials\") @effect(\"deny\")",
    );
    let other = json(&stage, &["policy", "replay", "--bundle", &folder, "--format", "json"]);
    assert!(other["changed"].as_u64().unwrap() >= 1, "{other:#}");
    assert!(other["changes"].to_string().contains("read-credentials"), "{other:#}");
    let table = well(&stage, &["policy", "replay", "--bundle", &folder]).stdout;
    assert!(table.contains("→ deny"), "{table}");
    // Nothing in force has changed by asking.
    assert_eq!(
        json(&stage, &["policy", "replay", "--bundle", &bundle(&stage, "again"), "--format", "json"])["changed"],
        0
    );
    let shown = well(&stage, &["policy", "show", "read-credentials"]).stdout;
    assert!(shown.contains("@id(\"read-credentials\")") && shown.contains("block"), "{shown}");
    let unknown = creel(&stage, &["policy", "show", "no-such-rule"]);
    assert_eq!(unknown.code, Some(2), "{unknown}");
}

#[test]
fn behind_broken_glass_nothing_is_stopped_and_everything_recorded() {
    let Some(stage) = Stage::open() else { return };
    well(&stage, &["up", "--detach", "--enforce"]);
    for refused in [&["break-glass", "--minutes", "5", "--reason", "x"][..], &["break-glass", "--minutes", "5"]] {
        assert_eq!(creel(&stage, refused).code, Some(2));
    }
    let opened = confirmed(&stage, r#"creel break-glass --minutes 5 --reason "production is down""#);
    assert_eq!(opened.code, Some(0), "{opened}");
    assert!(well(&stage, &["status"]).stdout.contains("break-glass"));
    let played = attack(&stage);
    assert!(played.iter().all(|call| call["stopped"] == false), "{played:#?}");
    let records = lines(&stage, &["log", "--rule", "delete-home-or-root", "--format", "jsonl"]);
    assert_eq!(records[0]["envelope"]["verdict"], "allow", "{records:#?}");
    well(&stage, &["break-glass", "--end"]);
    let played = attack(&stage);
    assert_eq!(played.iter().filter(|call| call["stopped"] == true).count(), STOPPED, "{played:#?}");
    let told = sh(&stage, "creel log --kind break-glass,alert --format jsonl").well().unwrap();
    assert!(told.stdout.contains("production is down"), "{told}");
    well(&stage, &["log", "verify"]);
}
