//! Workspaces that were laid as traps before the cage began: links, swaps, worktrees, second names (F3, F4, F12, F17).

use creel_tests::{Account, ESCAPE, Scene, Stage, attempts};

use super::{WORKSPACE, caged, creel_with, not_held, open, sh};

#[test]
fn sealed_names_that_lead_out_lead_nowhere() {
    let Some(stage) = Stage::open() else { return };
    let scene = Scene::set(&stage, WORKSPACE, "").unwrap();
    let _creel = creel_with(&stage, &[]);
    let lay = |folder: &str| {
        let script = format!(
            "mkdir -p {folder} ~/outside; cd {folder}; git init -q --template= .; cp ~/.sshfoo/note ~/outside/note
             ln -s /home/dana/outside .git/hooks; ln -s /oldroot/home/dana/outside .vscode
             ln -s /proc/self/root/home/dana/outside .husky; ln -s ../outside .claude; ln -s /newroot/home/dana/outside .codex"
        );
        sh(&stage, Account::USER, &script);
    };
    lay("/home/dana/f3");
    let facts = scene.facts_for("/home/dana/f3", "").unwrap();
    let ended = caged(&stage, "/home/dana/f3", &[], &[ESCAPE, "try", &facts, "F3"]).finish(60).unwrap();
    if ended.code == Some(0) {
        let through = open(&ended, &["F3"]);
        assert!(through.is_empty(), "{through:#?}");
    } else {
        assert!(!ended.stderr.trim().is_empty(), "a refusal says why: {ended}");
    }
    let outside = sh(&stage, Account::USER, "cd ~/outside; echo *; ls -A / | grep -E 'oldroot|newroot' || true");
    assert_eq!(outside.stdout, "note\n", "{outside}");

    // Bare, three of the five lead where they say.
    lay("/home/dana/f3-bare");
    let facts = scene.facts_for("/home/dana/f3-bare", "").unwrap();
    let bare = stage.run(Account::USER, ESCAPE).arguments(["try", &facts, "F3"]).finish(60).unwrap();
    let reached = attempts(&bare, &["F3"]).unwrap().into_iter().filter(|attempt| attempt.outcome == "reached").count();
    assert!(reached >= 3, "{bare}");
}

#[test]
fn a_workspace_that_becomes_another_folder_while_the_cage_begins_is_not_followed() {
    let Some(stage) = Stage::open() else { return };
    let scene = Scene::set(&stage, WORKSPACE, "").unwrap();
    let _creel = creel_with(&stage, &[]);
    sh(&stage, Account::USER, "mkdir -p ws; ln -s .ssh to-secrets");
    let plain = scene.facts_for("/home/dana/ws", "").unwrap();
    // Named as a link: refused, or held.
    let ended = caged(&stage, "/home/dana/to-secrets", &[], &[ESCAPE, "try", &plain, "F4"]).finish(60).unwrap();
    assert!(!ended.stdout.contains("\"reached\":true"), "{ended}");

    let swap = "while [ ! -e ~/stop ]; do mv -T ws ws.d; ln -s .ssh ws; rm ws; mv -T ws.d ws; done; touch ~/stopped";
    let swapper = stage.run(Account::USER, "sh").arguments(["-c", swap]).start().unwrap();
    for _ in 0..8 {
        let script = "cat id_ed25519 /home/dana/ws/id_ed25519 2>/dev/null; true";
        let run = stage.run(Account::USER, "creel").folder("/home/dana");
        let ended = run.arguments(["run", "--workspace", "ws", "--", "sh", "-c", script]).finish(60).unwrap();
        assert!(!ended.stdout.contains("secret-"), "{ended}");
    }
    stage.write(Account::USER, "/home/dana/stop", "").unwrap();
    swapper.finish(creel_tests::Deadline::seconds(30)).unwrap();
}

#[test]
fn a_worktree_commits_and_its_repository_stays_sealed() {
    let Some(stage) = Stage::open() else { return };
    let scene = Scene::set(&stage, WORKSPACE, "").unwrap();
    let _creel = creel_with(&stage, &[]);
    let lay = |main: &str, tree: &str| {
        let script = format!(
            "mkdir -p {main}; cd {main}; git init -q -b main .; git config user.name d; git config user.email d@example.com
             git commit -q --allow-empty -m first; git worktree add -q {tree} -b side"
        );
        sh(&stage, Account::USER, &script);
        let extra = format!("common=/home/dana/{}/.git\nmain=/home/dana/{}\n", &main[2..], &main[2..]);
        scene.facts_for(&format!("/home/dana/{}", &tree[2..]), &extra).unwrap()
    };
    let facts = lay("~/main", "~/tree");
    let committed = caged(
        &stage,
        "/home/dana/tree",
        &[],
        &["sh", "-euc", "echo x >file; git add file; git commit -qm inside; git status --short"],
    );
    committed.finish(60).unwrap().well().unwrap();
    let through = not_held(&stage, "/home/dana/tree", &[], &facts, &["F12"]);
    assert!(through.is_empty(), "{through:#?}");
    let log = sh(&stage, Account::USER, "git -C ~/main log --oneline side; ls -A ~/main; cat ~/main/.git/config");
    assert!(log.stdout.contains("inside") && !log.stdout.contains("fsmonitor") && !log.stdout.contains("f12"), "{log}");

    // A pointer to a repository that does not point back is no reason to grant that repository.
    sh(&stage, Account::USER, "mkdir ~/thief; printf 'gitdir: /home/dana/main/.git/worktrees/tree\\n' >~/thief/.git");
    let theft = "ls -d /home/dana/main/.git && touch /home/dana/main/.git/stolen";
    let ended = caged(&stage, "/home/dana/thief", &[], &["sh", "-c", theft]).finish(60).unwrap();
    assert!(ended.code != Some(0) && !stage.exists("/home/dana/main/.git/stolen"), "{ended}");

    let facts = lay("~/main-b", "~/tree-b");
    let bare = stage.run(Account::USER, ESCAPE).arguments(["try", &facts, "F12"]).finish(60).unwrap();
    let held: Vec<_> =
        attempts(&bare, &["F12"]).unwrap().into_iter().filter(|attempt| attempt.outcome != "reached").collect();
    assert!(held.is_empty(), "{held:#?}");
}

#[test]
fn a_sealed_file_with_a_second_name_is_not_written_through_it() {
    let Some(stage) = Stage::open() else { return };
    let scene = Scene::set(&stage, WORKSPACE, "").unwrap();
    let _creel = creel_with(&stage, &[]);
    let lay = |folder: &str| {
        let script = format!(
            "mkdir -p {folder}; cd {folder}; git init -q .; echo '{{}}' >.mcp.json; ln .mcp.json innocent-a.txt; ln .git/config innocent-b.txt"
        );
        sh(&stage, Account::USER, &script);
        scene.facts_for(folder, "").unwrap()
    };
    let facts = lay("/home/dana/f17");
    let ended = caged(&stage, "/home/dana/f17", &[], &[ESCAPE, "try", &facts, "F17"]).finish(60).unwrap();
    if ended.code == Some(0) {
        let through = open(&ended, &["F17"]);
        assert!(through.is_empty(), "{through:#?}");
    } else {
        assert!(ended.stderr.contains("innocent") || ended.stderr.contains(".mcp.json"), "a refusal says why: {ended}");
    }
    let now = sh(&stage, Account::USER, "cd ~/f17; cat .mcp.json .git/config");
    assert!(!now.stdout.contains("planted"), "{now}");

    let facts = lay("/home/dana/f17-bare");
    let bare = stage.run(Account::USER, ESCAPE).arguments(["try", &facts, "F17"]).finish(60).unwrap();
    assert!(attempts(&bare, &["F17"]).unwrap().iter().all(|attempt| attempt.outcome == "reached"), "{bare}");
}
