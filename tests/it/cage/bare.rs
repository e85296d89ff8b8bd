//! The attempts, where nothing holds them: each must reach what it tries, so that `held` in a cage means something.
//!
//! Tried as a plain unprivileged account, and once more as the root of its own namespaces, where an attempt needs
//! rights over a namespace. What neither can reach on any good machine stands in a list, with the reason.

use std::collections::BTreeSet;

use creel_tests::{Account, Attempt, ESCAPE, Scene, Stage, attempts};

use super::{VARIABLES, WORKSPACE};

/// Cases whose attempts are tried bare. The others need a profile, another workspace or a terminal, and their tests
/// run them bare themselves, or would hurt the machine (P15, P16).
const CASES: &[&str] = &[
    "F1", "F2", "F5", "F6", "F7", "F8", "F9", "F10", "F11", "F13", "F14", "F15", "F16", "F20", "F21", "F22", "F23",
    "F24", "F25", "F26", "P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P9", "P10", "P11", "P12", "P13", "P17",
    "P18", "P19", "P20", "P21", "P23", "P25", "U1", "U2", "U3", "U4", "U5", "U6", "U7", "U8", "U9", "U10", "U11", "S1",
    "N13",
];

/// Attempts that a machine holds by itself: case, words of the attempt, why. In a cage they are tried all the same.
const HELD_ANYWAY: &[(&str, &str, &str)] = &[
    ("F2", "/proc/1/root", "processes of others are closed to an account"),
    ("F2", "/proc/2/root", "processes of others are closed to an account"),
    ("F23", "opened by handle", "needs rights over the file system"),
    ("F25", "", "knobs and nodes are root's; a cage that shows them writable would be worse than none"),
    ("P6", "x32", "the kernel may be built without it"),
    ("P6", "number that nobody knows", "no kernel has it"),
    ("P8", "", "needs rights over the namespace; some kernels give them to no account"),
    ("P9", "comparing itself", "the first process is root's"),
    ("P10", "", "closed to accounts on many machines; a cage closes them on all"),
    ("P11", "standard ones", "nobody gave a folder"),
    ("P17", "somebody else", "holds wherever the kernel works"),
    ("P18", "", "there is no notify descriptor without a supervisor"),
    ("P20", "", "system programs are root's"),
    ("P23", "/etc/", "root's"),
    ("P23", "/usr/bin/creel", "root's"),
    ("P23", "/var/lib", "root's"),
    ("P23", "creel ", "no daemon runs here"),
    ("S1", "made as ever", "it is what the others of the case need"),
    ("S1", "submodule", "there is none"),
    ("S1", "opened by handle", "needs rights over the file system"),
    ("U8", "abstract name", "the screen is played by path only"),
    ("U10", "", "families that the kernel has not, or gives to root only"),
    ("U11", "", "no daemon runs here"),
];

/// Of the cases that stand in the list as a whole, what a good machine reaches: so many at least.
const REACHED_AT_LEAST: &[(&str, usize)] = &[("F25", 1), ("P8", 10), ("P10", 4), ("U10", 3)];

fn excused(attempt: &Attempt) -> bool {
    // What was sealed from before is not there in the folder of the repositories that are made inside.
    if attempt.case == "S1" && attempt.said.contains("ENOENT") {
        return true;
    }
    HELD_ANYWAY.iter().any(|(case, words, _)| attempt.case == *case && attempt.name.contains(words))
}

#[test]
fn every_attempt_reaches_what_it_tries_where_nothing_holds_it() {
    let Some(stage) = Stage::open() else { return };
    let extra = "denied_program=/usr/bin/perl\nread_only_program=/usr/bin/perl\n";
    let scene = Scene::set(&stage, WORKSPACE, extra).unwrap();
    let secret = scene.fact("secret").unwrap();
    // With a secret in the environment, and descriptors that came along.
    let with_all = |cases: &[&str]| {
        let mut run = stage.run(Account::USER, "bash");
        for name in VARIABLES {
            run = run.environment(name, secret.as_str());
        }
        let words = "exec 9<~/.ssh/id_ed25519 10</; exec \"$@\"";
        run.arguments(["-c", words, "bash", ESCAPE, "try", &scene.facts()])
            .arguments(cases.iter().copied())
            .folder(WORKSPACE)
    };
    let plain: Vec<&str> = CASES.iter().copied().filter(|case| !["P11", "P12"].contains(case)).collect();
    let ended = scene.bare(&plain).finish(240).unwrap().well().unwrap();
    let mut tried = attempts(&ended, &plain).unwrap();
    let ended = with_all(&["P11", "P12"]).finish(60).unwrap().well().unwrap();
    tried.extend(attempts(&ended, &["P11", "P12"]).unwrap());

    // As the root of its own namespaces: what a sandbox of namespaces alone would give it.
    // P8 last: it takes the root away.
    let privileged = ["F25", "P10", "P20", "U10", "P8"];
    let ended = stage
        .run(Account::USER, "unshare")
        .arguments([
            "--user",
            "--map-root-user",
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--ipc",
            "--uts",
            "--mount-proc",
        ])
        .arguments(["--", ESCAPE, "try", &scene.facts()])
        .arguments(privileged)
        .folder(WORKSPACE)
        .finish(120)
        .unwrap()
        .well()
        .unwrap();
    let again = attempts(&ended, &privileged).unwrap();

    let reached: BTreeSet<(&str, &str)> = tried
        .iter()
        .chain(&again)
        .filter(|attempt| attempt.outcome == "reached")
        .map(|attempt| (attempt.case.as_str(), attempt.name.as_str()))
        .collect();
    let missed: Vec<&Attempt> = tried
        .iter()
        .filter(|attempt| !reached.contains(&(attempt.case.as_str(), attempt.name.as_str())))
        .filter(|attempt| !excused(attempt))
        .collect();
    assert!(missed.is_empty(), "{missed:#?}");
    for (case, least) in REACHED_AT_LEAST {
        let number = reached.iter().filter(|(of, _)| of == case).count();
        assert!(number >= *least, "{case}: {number} reached of at least {least}: {again:#?}");
    }
}
