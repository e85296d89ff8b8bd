//! `creel demo`: ends well by itself, shows what it shows, and leaves nothing behind.

use creel_tests::Stage;

use super::{CALLS, STOPPED, creel, lines, sh, well};

fn nothing_is_left(stage: &Stage) {
    let left = sh(stage, "ls -A /tmp").well().unwrap().stdout;
    assert!(!left.contains("creel"), "{left}");
    for name in ["creel", "creeld", "creel-hook", "demo"] {
        assert!(!stage.process_named(name), "{name} still runs");
    }
    assert!(!stage.exists(super::STATE));
}

#[test]
fn it_stops_the_attack_and_leaves_nothing_behind() {
    let Some(stage) = Stage::open() else { return };
    let shown = well(&stage, &["demo"]);
    for expected in ["rm -rf ~", "delete-home-or-root", "write-exec-bearing", "consistent", "nothing is left behind"] {
        assert!(shown.stdout.contains(expected), "{expected}: {shown}");
    }
    assert!(shown.stdout.contains(&format!("{STOPPED} of {CALLS} calls stopped")), "{shown}");
    nothing_is_left(&stage);
}

#[test]
fn each_decision_is_a_document() {
    let Some(stage) = Stage::open() else { return };
    let documents = lines(&stage, &["demo", "--format", "jsonl"]);
    assert_eq!(documents.len(), CALLS + 1);
    let (end, decisions) = documents.split_last().unwrap();
    assert!(decisions.iter().all(|decision| decision["as_expected"] == true), "{decisions:#?}");
    assert_eq!(decisions.iter().filter(|decision| decision["rules"][0].is_string()).count(), STOPPED);
    assert_eq!((&end["as_expected"], &end["stopped"]), (&true.into(), &STOPPED.into()));
    // The answers are the agent's own words, as its hook printed them.
    let denied = decisions.iter().find(|decision| decision["verdict"] == "deny").unwrap();
    let answer: serde_json::Value = serde_json::from_str(denied["answer"].as_str().unwrap()).unwrap();
    assert_eq!(answer["hookSpecificOutput"]["permissionDecision"], "deny");
    nothing_is_left(&stage);
}

#[test]
fn who_stops_reading_leaves_nothing_behind_either() {
    let Some(stage) = Stage::open() else { return };
    let first = sh(&stage, "creel demo --format jsonl | head -n 1; exit ${PIPESTATUS[0]}");
    assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""), "{first}");
    nothing_is_left(&stage);
}

#[test]
fn the_kept_record_can_be_verified_by_anybody() {
    let Some(stage) = Stage::open() else { return };
    let kept = well(&stage, &["demo", "--keep"]);
    let folder = kept.stdout.lines().find_map(|line| line.strip_prefix("kept: ")).unwrap().to_owned();
    let verified = well(&stage, &["log", "verify", &format!("{folder}/state/journal")]);
    assert!(verified.stdout.contains("self-consistent"), "{verified}");
    let exported = lines(&stage, &["log", "export", "--journal", &format!("{folder}/state/journal")]);
    assert!(exported.len() >= CALLS, "{exported:#?}");
    let wrong = creel(&stage, &["log", "verify", &folder]);
    assert_eq!(wrong.code, Some(2), "{wrong}");
}
