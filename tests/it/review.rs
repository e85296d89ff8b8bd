//! Runs whose writes wait for a person, and runs that say what they need: from `creel run` to the files on the disk.

use creel_tests::{Account, Creel, Deadline, Finished, Stage, until};
use serde_json::Value;

const WORKSPACE: &str = "/home/dana/site";

fn sh(stage: &Stage, script: &str) -> Finished {
    stage.run(Account::USER, "sh").arguments(["-euc", script]).folder(WORKSPACE).finish(60).unwrap().well().unwrap()
}

fn creel(stage: &Stage, arguments: &[&str]) -> Finished {
    stage.run(Account::USER, "creel").arguments(arguments.iter().copied()).folder(WORKSPACE).finish(120).unwrap()
}

fn caged(stage: &Stage, options: &[&str], script: &str) -> Finished {
    let command = ["--", "sh", "-euc", script];
    let arguments: Vec<&str> = ["run"].iter().chain(options).chain(&command).copied().collect();
    creel(stage, &arguments)
}

fn workspace(stage: &Stage) {
    stage.make_folder(Account::USER, WORKSPACE).unwrap();
    sh(
        stage,
        "mkdir -p src gone; echo one >src/changed; echo two >src/deleted; echo three >old; echo four >mode; echo five >gone/file
         printf 'a\\0b' >binary; echo '{}' >package.json",
    );
}

/// All names, kinds, modes and contents of the workspace.
fn manifest(stage: &Stage) -> String {
    sh(stage, "{ find . -printf '%y %m %p %l\\n'; find . -type f -exec sha256sum {} +; } | LC_ALL=C sort").stdout
}

const RUN: &str =
    "echo more >>src/changed; rm src/deleted; mv old new; chmod 755 mode; rm -r gone; mkdir deep; echo in >deep/in
    printf 'a\\0c' >binary; ln -s src link; printf 'x\\033[2J\\n' >\"$(printf 'n\\033[2J')\"";

#[test]
fn what_a_reviewed_run_writes_waits_for_a_person_and_can_be_taken_back() {
    let Some(stage) = Stage::open() else { return };
    workspace(&stage);
    let daemon = Creel::user(&stage, Account::USER).unwrap();
    let was = manifest(&stage);
    let seen = caged(&stage, &["--review"], &format!("{RUN}; cat src/changed; test ! -e gone")).well().unwrap();
    assert_eq!(seen.stdout, "one\nmore\n");
    assert_eq!(manifest(&stage), was, "nothing is written yet");
    assert!(seen.stderr.contains("the workspace is as it was"), "{}", seen.stderr);

    // A patch that git takes, and that draws nothing.
    let patch = creel(&stage, &["run", "diff"]).well().unwrap();
    stage.write(Account::USER, "/home/dana/patch", &patch.stdout).unwrap();
    sh(&stage, "cp -a . ../copy; cd ../copy; git init -q .; git apply --check ../patch --exclude=binary");
    assert!(patch.stdout.contains("rename from old\nrename to new\n"), "{}", patch.stdout);
    assert!(
        patch.stdout.contains("--- a/src/changed\n+++ b/src/changed\n@@ -1 +1,2 @@\n one\n+more\n"),
        "{}",
        patch.stdout
    );
    assert!(patch.stdout.contains("diff --git \"a/n\\033[2J\" \"b/n\\033[2J\"\n"), "{}", patch.stdout);
    let shown = creel(&stage, &["run", "diff", "--stat"]).well().unwrap();
    assert!(shown.stdout.contains("permissions") && !shown.stdout.contains('\u{1b}'), "{}", shown.stdout);
    let listed = creel(&stage, &["run", "diff", "--format", "jsonl"]).well().unwrap().json_lines().unwrap();
    let changes: Vec<(&str, &str)> = listed
        .iter()
        .map(|item| (item["change"].as_str().unwrap(), item["path"].as_str().unwrap()))
        .filter(|(_, path)| !path.starts_with('n') || *path == "new")
        .collect();
    for expected in [
        ("changed", "binary"),
        ("changed", "src/changed"),
        ("created", "deep/in"),
        ("created", "link"),
        ("deleted", "gone/file"),
        ("deleted", "src/deleted"),
        ("permissions", "mode"),
        ("renamed", "new"),
    ] {
        assert!(changes.contains(&expected), "{expected:?} in {changes:?}");
    }

    // What the person changed meanwhile is not overwritten.
    let run: String = daemon.latest(500).unwrap().iter().rev().find_map(run_of).unwrap();
    sh(&stage, "echo mine >mode");
    let refused = creel(&stage, &["run", "commit", &run]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stdout.contains("mode: changed in the workspace since the run began"), "{}", refused.stdout);
    let before = manifest(&stage);
    creel(&stage, &["run", "commit", &run, "--leave-refused"]).well().unwrap();
    assert_eq!(stage.read("/home/dana/site/src/changed").unwrap(), "one\nmore\n");
    assert_eq!(stage.read("/home/dana/site/mode").unwrap(), "mine\n");
    assert!(!stage.exists("/home/dana/site/gone") && stage.exists("/home/dana/site/deep/in"));
    creel(&stage, &["run", "undo", &run]).well().unwrap();
    assert_eq!(manifest(&stage), before);
    creel(&stage, &["run", "discard", &run]).well().unwrap();
    assert_eq!(manifest(&stage), before);
    assert!(!stage.exists(&format!("/home/dana/.local/state/creel/runs/{run}/upper")));
}

fn run_of(record: &Value) -> Option<String> {
    let text = record.to_string();
    let at = text.find("r-")?;
    let id: String = text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    (id.len() == 34).then_some(id)
}

#[test]
fn a_reviewed_run_cannot_reach_its_own_layer_and_its_seals_hold() {
    let Some(stage) = Stage::open() else { return };
    workspace(&stage);
    let _daemon = Creel::user(&stage, Account::USER).unwrap();
    sh(&stage, "git init -q --template= . && mkdir .git/hooks");
    let tried = caged(
        &stage,
        &["--review"],
        "for f in .git/hooks/pre-commit .github/workflows/ci.yml; do
            mkdir -p $(dirname $f) 2>/dev/null || true; (echo x >$f) 2>/dev/null && echo wrote $f || true; done
         ls ~/.local/state/creel 2>/dev/null || true; find / -name upper -path '*runs*' 2>/dev/null || true; echo ok >plain; echo end",
    );
    assert_eq!(tried.well().unwrap().stdout, "end\n");
    creel(&stage, &["run", "commit"]).well().unwrap();
    assert!(stage.exists("/home/dana/site/plain") && !stage.exists("/home/dana/site/.git/hooks/pre-commit"));
}

#[test]
fn changed_files_are_in_the_record_with_their_digests() {
    let Some(stage) = Stage::open() else { return };
    workspace(&stage);
    let daemon = Creel::user(&stage, Account::USER).unwrap();
    for options in [&["--review"][..], &[][..]] {
        caged(&stage, options, "echo more >>src/changed; rm src/deleted").well().unwrap();
        let records = daemon.latest(500).unwrap();
        let text = records.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
        assert!(text.contains("/home/dana/site/src/changed"), "{options:?}: {text}");
    }
    // Nothing of a run on the workspace itself stays behind.
    let runs = sh(&stage, "ls ~/.local/state/creel/runs | wc -l");
    assert_eq!(runs.stdout.trim(), "1");
}

#[test]
fn a_learning_run_proposes_a_profile_that_suffices() {
    let Some(stage) = Stage::open() else { return };
    let lay = |stage: &Stage| {
        workspace(stage);
        sh(stage, "mkdir -p ~/.cache/tool ~/.ssh; echo setting >~/.toolrc; echo key >~/.ssh/id_ed25519");
    };
    lay(&stage);
    let script =
        "cat ~/.toolrc; echo db >~/.cache/tool/db; echo t >~/.cache/tool/tmp; rm ~/.cache/tool/tmp; echo out >out";
    let daemon = Creel::user(&stage, Account::USER).unwrap();
    let strict = caged(&stage, &["--profile", "strict"], script);
    assert_ne!(strict.code, Some(0), "without learning it cannot work");
    let learned =
        caged(&stage, &["--profile", "strict", "--learn"], &format!("{script}; ! cat ~/.ssh/id_ed25519 2>/dev/null"));
    assert_eq!(learned.well().unwrap().stdout, "setting\n");
    let shown = creel(&stage, &["run", "learned"]).well().unwrap();
    assert!(shown.stdout.contains("~/.toolrc") && shown.stdout.contains("cat"), "{}", shown.stdout);
    let text = creel(&stage, &["run", "learned", "--format", "toml"]).well().unwrap().stdout;
    assert!(text.contains("paths = [\"~/.cache/tool\"]") && !text.contains("id_ed25519"), "{text}");
    drop(daemon);
    drop(stage);

    // Elsewhere, with that profile in the rules, the command works, and reaches nothing more.
    let Some(stage) = Stage::open() else { return };
    lay(&stage);
    let folder = "/home/dana/.config/creel/policy";
    copy(&stage, std::path::Path::new(STARTER), folder);
    stage.write(Account::USER, &format!("{folder}/profiles/tool.toml"), &text).unwrap();
    let _daemon = Creel::user(&stage, Account::USER).unwrap();
    let worked = caged(&stage, &["--profile", "tool"], &format!("{script}; ! cat ~/.ssh/id_ed25519 2>/dev/null"));
    assert_eq!(worked.well().unwrap().stdout, "setting\n");
    assert_eq!(stage.read("/home/dana/.cache/tool/db").unwrap(), "db\n");
}

#[test]
fn what_a_killed_run_had_written_can_still_be_looked_at() {
    let Some(stage) = Stage::open() else { return };
    workspace(&stage);
    let _daemon = Creel::user(&stage, Account::USER).unwrap();
    let was = manifest(&stage);
    let command = ["run", "--review", "--", "sh", "-euc", "echo half >half; echo written; sleep 600"];
    let mut run = stage.run(Account::USER, "creel").arguments(command).folder(WORKSPACE).start().unwrap();
    run.says("written", Deadline::seconds(60)).unwrap();
    // It can be looked at while it goes on, and not be carried over.
    let shown = creel(&stage, &["run", "diff", "--stat"]).well().unwrap();
    assert!(shown.stdout.contains("half") && shown.stderr.contains("still goes on"), "{shown:?}");
    assert_eq!(creel(&stage, &["run", "commit"]).code, Some(2));
    run.kill().unwrap();
    until("the cage ends", Deadline::seconds(60), || {
        (creel(&stage, &["run", "diff", "--stat"]).stderr.is_empty()).then_some(())
    })
    .unwrap();
    assert_eq!(manifest(&stage), was);
    creel(&stage, &["run", "commit"]).well().unwrap();
    assert_eq!(stage.read("/home/dana/site/half").unwrap(), "half\n");
}

/// The starter bundle in the checkout.
const STARTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/starter");

/// A folder of the checkout onto the stage.
fn copy(stage: &Stage, from: &std::path::Path, to: &str) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{to}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            copy(stage, &entry.path(), &name);
        } else {
            stage.write(Account::USER, &name, std::fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}
