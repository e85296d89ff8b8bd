//! A run from another terminal: more commands in it, signals to it, its end.

use creel_tests::{Account, Deadline, Finished, Running, Stage, until};

use super::{WORKSPACE, caged, creel_with};

/// `creel runs …`, in the workspace.
fn runs(stage: &Stage, arguments: &[&str]) -> Finished {
    let run = stage.run(Account::USER, "creel").argument("runs").arguments(arguments.iter().copied());
    run.folder(WORKSPACE).finish(60).unwrap()
}

/// A run that waits, once it can be asked something.
fn waiting(stage: &Stage, script: &str) -> Running {
    let mut running = caged(stage, WORKSPACE, &[], &["sh", "-c", script]).start().unwrap();
    running.says("inside", Deadline::seconds(60)).unwrap();
    until("the run's socket", Deadline::seconds(30), || {
        (runs(stage, &["exec", "r-", "--", "true"]).code == Some(0)).then_some(())
    })
    .unwrap();
    running
}

#[test]
fn more_commands_run_in_the_same_cage_and_end_with_it() {
    let Some(stage) = Stage::open() else { return };
    stage.make_folder(Account::USER, WORKSPACE).unwrap();
    let creel = creel_with(&stage, &[]);
    let running = waiting(&stage, "echo seen >/tmp/mark; echo inside; exec sleep 3600");

    // The same private folder, the same processes, the same walls; streams and exit code are the asker's.
    let script = "cat; cat /tmp/mark; echo aside >&2; ls /proc | grep -c '^[0-9]'; ls ~/.local; exit 9";
    let more = stage.run(Account::USER, "creel").arguments(["runs", "exec", "r-", "--", "sh", "-c", script]);
    let more = more.folder(WORKSPACE).input("typed\n").finish(60).unwrap();
    assert_eq!(more.code, Some(9), "{more}");
    assert!(more.stdout.starts_with("typed\nseen\n"), "{more}");
    assert!(more.stderr.contains("aside"), "{more}");
    let refused = runs(&stage, &["exec", "r-", "--", "sh", "-c", "echo x >.envrc"]);
    assert_ne!(refused.code, Some(0), "{refused}");
    assert!(!stage.exists(&format!("{WORKSPACE}/.envrc")));
    let killed = runs(&stage, &["exec", "r-", "--", "sh", "-c", "kill -TERM $$"]);
    assert_eq!((killed.code, killed.signal), (None, Some(15)), "{killed}");
    let missing = runs(&stage, &["exec", "r-", "--", "no-such-program"]);
    assert_eq!(missing.code, Some(2), "{missing}");
    let attached = runs(&stage, &["attach", "r-"]);
    assert_ne!(attached.code, Some(0), "a run without a terminal has none to attach to: {attached}");

    let stopped = runs(&stage, &["stop", "r-"]);
    assert_eq!(stopped.code, Some(0), "{stopped}");
    let ended = running.finish(Deadline::seconds(60)).unwrap();
    assert_eq!(ended.code, Some(137), "{ended}");
    assert_eq!(runs(&stage, &["signal", "r-", "INT"]).code, Some(2), "there is no run any more");
    creel.verified().unwrap();
}

#[test]
fn a_signal_reaches_the_command_of_a_run() {
    let Some(stage) = Stage::open() else { return };
    stage.make_folder(Account::USER, WORKSPACE).unwrap();
    let _creel = creel_with(&stage, &[]);
    let script = "trap 'echo caught; exit 7' USR1; echo inside; while :; do sleep 0.05; done";
    let running = waiting(&stage, script);
    assert_eq!(runs(&stage, &["signal", "r-", "usr1"]).code, Some(0));
    let ended = running.finish(Deadline::seconds(60)).unwrap();
    assert_eq!(ended.code, Some(7), "{ended}");
    assert!(ended.stdout.contains("caught"), "{ended}");
}
