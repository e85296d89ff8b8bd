//! Every case that needs nothing special, in one run: nothing is reached, nothing is left, and it is on record.

use creel_tests::{Account, Attempt, ESCAPE, Scene, Stage, attempts};

use super::{VARIABLES, WORKSPACE, caged, creel_with, not_held, open, sh};

const CASES: &[&str] = &[
    "F1", "F2", "F5", "F6", "F7", "F8", "F9", "F10", "F11", "F13", "F14", "F15", "F16", "F20", "F21", "F22", "F23",
    "F24", "F25", "F26", "P1", "P5", "P6", "P7", "P8", "P9", "P10", "P11", "P12", "P13", "P17", "P18", "P19", "P20",
    "P21", "P23", "P24", "P25", "U1", "U2", "U3", "U4", "U5", "U6", "U7", "U8", "U9", "U10", "U11", "S1", "N13",
];

/// What is reached today, and why that is no way out: case, words of the attempt, reason. Each stands in `docs/cage.md`.
const REACHED_TODAY: &[(&str, &str, &str)] = &[];

fn expected(attempt: &Attempt) -> bool {
    REACHED_TODAY.iter().any(|(case, words, _)| attempt.case == *case && attempt.name.contains(words))
}

#[test]
fn nothing_that_is_tried_from_inside_is_reached() {
    let Some(stage) = Stage::open() else { return };
    let scene = Scene::set(&stage, WORKSPACE, "").unwrap();
    let creel = creel_with(&stage, &[]);
    let secret = scene.fact("secret").unwrap();
    // The caller's environment is full of secrets, and its descriptors lead everywhere.
    let mut run = stage.run(Account::USER, "bash").folder(WORKSPACE);
    for name in VARIABLES {
        run = run.environment(name, secret.as_str());
    }
    let words = "exec 9<~/.ssh/id_ed25519 10</ 11<>/dev/tcp/127.0.0.1/$1; shift; exec creel run -- \"$@\"";
    let ended = run
        .arguments(["-c", words, "bash", &scene.fact("tcp_port").unwrap(), ESCAPE, "try", &scene.facts()])
        .arguments(CASES.iter().copied())
        .finish(300)
        .unwrap()
        .well()
        .unwrap();
    let tried = attempts(&ended, CASES).unwrap();
    let through: Vec<&Attempt> =
        tried.iter().filter(|attempt| attempt.outcome == "reached" && !expected(attempt)).collect();
    assert!(through.is_empty(), "{through:#?}");
    let untried: Vec<&Attempt> = tried.iter().filter(|attempt| attempt.outcome == "untried").collect();
    assert!(untried.is_empty(), "{untried:#?}");

    // The look from outside does not depend on what was said inside.
    let sealed = "grep -rl 'planted by creel-escape' . | grep -E \
        '/\\.git/(hooks|config|info/attributes)|/\\.myhooks/|/\\.(envrc|mcp\\.json|vscode|husky|claude/settings|codex|npmrc|gdbinit)' || true";
    let found =
        stage.run(Account::USER, "sh").arguments(["-c", sealed]).folder(WORKSPACE).finish(60).unwrap().well().unwrap();
    assert_eq!(found.stdout, "", "{found}");
    let home = sh(
        &stage,
        Account::USER,
        "cd; grep -rl 'planted by creel-escape' .config .local .claude .ssh projectfoo || true",
    );
    assert_eq!(home.stdout, "", "{home}");

    // It is on record: what was refused, by which rule, and the reason in plain words. `creel why` says the same.
    let refused = creel.coded("cage.refused").unwrap();
    let text: String = refused.iter().map(ToString::to_string).collect();
    for (object, rule) in [
        ("repo-a/.git/hooks/pre-commit", "write-exec-bearing"),
        ("plain-b/.envrc", "write-exec-bearing"),
        ("plain/.codex", "change-agent-config"),
        ("host.sock", ""),
        ("core.fsmonitor", ""),
    ] {
        assert!(text.contains(object) && text.contains(rule), "{object} {rule}: {}", text.len());
    }
    let why = creel.command(&["why", "--last", "200", "--format", "jsonl"]).unwrap().well().unwrap();
    let events = why.json_lines().unwrap();
    assert!(events.len() >= 20, "{why}");
    let told = |event: &serde_json::Value| event["reason"].as_str().is_some_and(|reason| !reason.is_empty());
    assert!(events.iter().all(told), "{why}");
    creel.verified().unwrap();
}

#[test]
fn a_seal_holds_although_the_host_replaces_the_file() {
    let Some(stage) = Stage::open() else { return };
    let scene = Scene::set(&stage, WORKSPACE, "partner=1\n").unwrap();
    let _creel = creel_with(&stage, &[]);
    let facts = scene.facts();
    let running = caged(&stage, WORKSPACE, &[], &[ESCAPE, "try", &facts, "F20"]).start().unwrap();
    let ready = format!("{WORKSPACE}/f20.ready");
    creel_tests::until("the inside", creel_tests::Deadline::seconds(60), || stage.exists(&ready).then_some(()))
        .unwrap();
    // As git does it, and as an editor does it: a new file in the old one's place.
    sh(
        &stage,
        Account::USER,
        "cd project; git -C repo-e config user.email x@example.com; cp existing/.envrc e; mv e existing/.envrc",
    );
    stage.write(Account::USER, &format!("{WORKSPACE}/f20.go"), "").unwrap();
    let ended = running.finish(creel_tests::Deadline::seconds(120)).unwrap().well().unwrap();
    let through = open(&ended, &["F20"]);
    assert!(through.is_empty(), "{through:#?}");
    let text = stage.read(&format!("{WORKSPACE}/repo-e/.git/config")).unwrap();
    assert!(text.contains("x@example.com") && !text.contains("planted"), "{text}");
}

#[test]
fn whoever_stops_the_supervisor_gets_no_yes() {
    let Some(stage) = Stage::open() else { return };
    let scene = Scene::set(&stage, WORKSPACE, "").unwrap();
    let creel = creel_with(&stage, &[]);
    // It may end the cage: then it said nothing, and that is as good.
    let ended = caged(&stage, WORKSPACE, &[], &[ESCAPE, "try", &scene.facts(), "P16"]).finish(120).unwrap();
    if ended.stdout.contains("\"case\"") {
        let through = open(&ended, &["P16"]);
        assert!(through.is_empty(), "{through:#?}");
    }
    assert!(!stage.exists(&format!("{WORKSPACE}/repo-j/.git/hooks/p16")));
    // The next one begins as if nothing had been.
    let through = not_held(&stage, WORKSPACE, &[], &scene.facts(), &["F5"]);
    assert!(through.is_empty(), "{through:#?}");
    creel.verified().unwrap();
}
