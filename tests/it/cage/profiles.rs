//! What a profile says more closely: denied below a grant, listed programs, limits (F18, F19, P2–P4, P15).

use std::fmt::Write as _;

use creel_tests::{Account, ESCAPE, Scene, Stage, attempts};

use super::{WORKSPACE, caged, creel_with, not_held, sh};

/// Denied files of F19.
const MANY: usize = 300;

#[test]
fn what_is_denied_below_a_grant_is_not_there_however_many_and_long() {
    let Some(stage) = Stage::open() else { return };
    let scene = Scene::set(&stage, WORKSPACE, "").unwrap();
    let long = format!("{}/{}/{}.txt", "d".repeat(120), "e".repeat(120), "f".repeat(60));
    let mut paths = String::from("\"@workspace/denied\", \"@workspace/denied.txt\"");
    for number in 0..MANY {
        let _ = write!(paths, ", \"@workspace/many/file-{number}.txt\"");
    }
    let _ = write!(paths, ", \"@workspace/{long}\"");
    let profile = format!(
        "about = \"with holes\"\nextends = \"strict\"\n[[files]]\naccess = \"deny\"\npaths = [{paths}]\n\
         [[files]]\naccess = \"write\"\npaths = [\"@workspace/denied/again\"]\n"
    );
    let lay = |folder: &str| {
        let (deep, _) = long.rsplit_once('/').unwrap();
        let script = format!(
            "mkdir -p {folder}/denied/again {folder}/many {folder}/{deep}; cd {folder}; n=~/.sshfoo/note
             cp $n denied/note; cp $n denied.txt; cp $n {long}; i=0; while [ $i -lt {MANY} ]; do cp $n many/file-$i.txt; i=$((i+1)); done"
        );
        sh(&stage, Account::USER, &script);
        scene.facts_for(folder, &format!("long_path={folder}/{long}\n")).unwrap()
    };
    let _creel = creel_with(&stage, &[("holes", profile)]);
    let facts = lay("/home/dana/holes");
    let through = not_held(&stage, "/home/dana/holes", &["--profile", "holes"], &facts, &["F18", "F19"]);
    assert!(through.is_empty(), "{through:#?}");
    // What is granted again works, and what lies beside is as it was.
    let again = caged(
        &stage,
        "/home/dana/holes",
        &["--profile", "holes"],
        &["sh", "-euc", "echo x >denied/again/file; ls many | wc -l"],
    );
    again.finish(60).unwrap().well().unwrap();
    assert_eq!(stage.read("/home/dana/holes/denied/again/file").unwrap(), "x\n");
    assert!(stage.exists("/home/dana/holes/denied/note"));

    let facts = lay("/home/dana/holes-bare");
    let bare = stage.run(Account::USER, ESCAPE).arguments(["try", &facts, "F19", "F18"]).finish(60).unwrap();
    let reached =
        attempts(&bare, &["F18", "F19"]).unwrap().into_iter().filter(|attempt| attempt.outcome == "reached").count();
    assert!(reached >= 9, "{bare}");
}

#[test]
fn a_program_that_is_not_listed_does_not_run_by_any_other_name() {
    let Some(stage) = Stage::open() else { return };
    let extra = "denied_program=/usr/bin/perl\nread_only_program=/home/dana/only-read/perl\n";
    let scene = Scene::set(&stage, WORKSPACE, extra).unwrap();
    sh(&stage, Account::USER, "mkdir ~/only-read; cp /usr/bin/perl ~/only-read/");
    let profile = "about = \"lists its programs\"\nextends = \"strict\"\nprograms = [\"/usr/bin/creel-escape\"]\n\
                   [[files]]\naccess = \"read\"\npaths = [\"~/only-read\"]\n";
    let _creel = creel_with(&stage, &[("listed", profile.to_owned())]);
    let through = not_held(&stage, WORKSPACE, &["--profile", "listed"], &scene.facts(), &["P2", "P3", "P4"]);
    assert!(through.is_empty(), "{through:#?}");
}

#[test]
fn what_is_used_up_is_used_up_inside_only() {
    let Some(stage) = Stage::open() else { return };
    let extra = "limit_processes=64\nlimit_memory=402653184\nlimit_open_files=256\nlimit_file=16777216\nlimit_temporary=33554432\n";
    let scene = Scene::set(&stage, WORKSPACE, extra).unwrap();
    let profile = "about = \"little of everything\"\nextends = \"strict\"\n[limits]\nprocesses = 64\nmemory = \"384 MiB\"\n\
                   open_files = 256\nfile = \"16 MiB\"\ntemporary = \"32 MiB\"\n";
    let creel = creel_with(&stage, &[("little", profile.to_owned())]);
    let through = not_held(&stage, WORKSPACE, &["--profile", "little"], &scene.facts(), &["P15"]);
    assert!(through.is_empty(), "{through:#?}");
    // A limit on time ends the whole cage.
    let ended = caged(&stage, WORKSPACE, &["--profile", "little"], &["sh", "-c", "echo fine"])
        .finish(60)
        .unwrap()
        .well()
        .unwrap();
    assert_eq!(ended.stdout, "fine\n");
    creel.verified().unwrap();
}
