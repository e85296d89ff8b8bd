//! Hosts and terminals of other kinds, and ordinary work: a terminal to type into, no user namespaces (P14, P22).

use creel_tests::{Account, ESCAPE, Finished, Scene, Stage, attempts};

use super::{WORKSPACE, caged, creel_with, open, sh};

/// Runs words of the shell with a pseudo-terminal as standard input and output.
fn at_terminal(stage: &Stage, words: &str) -> Finished {
    let script = ["--quiet", "--return", "--command", words, "/dev/null"];
    stage.run(Account::USER, "script").arguments(script).folder(WORKSPACE).finish(120).unwrap()
}

#[test]
fn nothing_is_typed_into_the_persons_terminal() {
    let Some(stage) = Stage::open() else { return };
    let scene = Scene::set(&stage, WORKSPACE, "").unwrap();
    let _creel = creel_with(&stage, &[]);
    let attempt = format!("{ESCAPE} try {} P14", scene.facts());
    let ended = at_terminal(&stage, &format!("creel run -- {attempt}")).well().unwrap();
    let through = open(&ended, &["P14"]);
    assert!(through.is_empty(), "{through:#?}");
    // Bare, the kernel lets a program type into its own terminal, unless the machine forbids it.
    let bare = at_terminal(&stage, &attempt).well().unwrap();
    let typed = |text: &str| text.contains("typed");
    let reached = attempts(&bare, &["P14"]).unwrap().iter().any(|attempt| typed(&attempt.said));
    let allowed = std::fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti").map_or(true, |text| text.trim() == "1");
    assert_eq!(reached, allowed, "{bare}");
    // The terminal is a terminal inside, too, and of the same size.
    let size = at_terminal(&stage, "stty rows 41 cols 97; creel run -- sh -c 'test -t 0 && test -t 1 && stty size'");
    assert!(size.well().unwrap().stdout.contains("41 97"));
}

#[test]
fn without_user_namespaces_it_is_refused_or_said() {
    let Some(stage) = Stage::open() else { return };
    let scene = Scene::set(&stage, WORKSPACE, "").unwrap();
    let _creel = creel_with(&stage, &[]);
    // A namespace in which no further one may be made: as on a machine that forbids them.
    let forbidden = |command: &str| {
        let words = format!("echo 0 >/proc/sys/user/max_user_namespaces && exec {command}");
        let arguments = ["--user", "--map-current-user", "--keep-caps", "sh", "-c", &words];
        stage.run(Account::USER, "unshare").arguments(arguments).folder(WORKSPACE).finish(60).unwrap()
    };
    let probe = forbidden("unshare --user true");
    assert!(probe.code != Some(0) && probe.stderr.contains("unshare"), "the machine is as it should be: {probe}");
    let ended = forbidden(&format!("creel run -- {ESCAPE} try {} F1 F5", scene.facts()));
    assert!(ended.code != Some(0) && !ended.stdout.contains("\"case\""), "it ran all the same: {ended}");
    assert!(ended.stderr.contains("namespace"), "a refusal names what is missing: {ended}");
    // What this machine can hold at all is found out by trying, and said; needs no daemon.
    let doctor = forbidden("creel doctor");
    assert!(doctor.stdout.contains("namespace"), "{doctor}");
    let here = stage.run(Account::USER, "creel").arguments(["doctor", "--format", "json"]).finish(60).unwrap();
    assert!(here.json().is_ok(), "{here}");
}

#[test]
fn ordinary_work_goes_on() {
    let Some(stage) = Stage::open() else { return };
    let _scene = Scene::set(&stage, WORKSPACE, "").unwrap();
    let _creel = creel_with(&stage, &[]);
    let work = "git status --short >/dev/null; echo 'int main(void) { return 0; }' >x.c; cc x.c -o x && ./x
        git add x.c; git -c user.name=d -c user.email=d@example.com commit -qm work; git checkout -qb side; git stash list
        mkdir -p deep/er; mv deep deeper; ln -s deeper link; ls link/er; rm -r deeper link x; python3 -c 'print(1)'; node -e 0
        git init -q fresh; rm -rf fresh; mkfifo p; (echo through >p &); cat p; rm p; echo $HOME; test -w \"$HOME\"; test -w /tmp";
    let ended = caged(&stage, WORKSPACE, &[], &["bash", "-euc", work]).finish(120).unwrap().well().unwrap();
    assert!(ended.stdout.contains("through") && ended.stdout.contains("/home/dana"), "{ended}");
    let log = sh(&stage, Account::USER, "git -C project log --oneline");
    assert!(log.stdout.contains("work"), "{log}");
    // Exit codes and signals come out as they are.
    for (command, code) in [("exit 7", Some(7)), ("kill -TERM $$", Some(143)), ("exec /nowhere", Some(127))] {
        let ended = caged(&stage, WORKSPACE, &[], &["sh", "-c", command]).finish(60).unwrap();
        assert!(ended.code == code || ended.signal == Some(15), "{command}: {ended}");
    }
}
