//! Paths to verdicts, and real folders to what is found in them.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

fn seal(components: &[&str], kind: SealKind) -> Seal {
    Seal {
        components: components.iter().map(|component| (*component).to_owned()).collect(),
        kind,
        rule: "write-exec-bearing".to_owned(),
        below: None,
    }
}

fn set() -> SealSet {
    SealSet::new(&[
        seal(&[".git", "hooks"], SealKind::Directory),
        seal(&[".vscode"], SealKind::Directory),
        seal(&[".github", "workflows"], SealKind::Directory),
        seal(&[".github", "hooks"], SealKind::Directory),
        seal(&[".envrc"], SealKind::File),
        seal(&["*.mcp.json"], SealKind::File),
        Seal { below: Some("/w/project".to_owned()), ..seal(&[".claude"], SealKind::Directory) },
    ])
}

/// `d` inside a sealed directory, `D` a sealed directory, `F` a file, `C` a git configuration, `-` free.
fn verdict(root: &str, path: &str, present: &[&str]) -> char {
    let mut exists = |path: &[u8]| present.iter().any(|present| present.as_bytes() == path);
    match set().judge(root.as_bytes(), path.as_bytes(), &mut exists) {
        Judged::Free => '-',
        Judged::Inside { .. } => 'd',
        Judged::Sealed { kind: SealKind::Directory, .. } => 'D',
        Judged::Sealed { kind: SealKind::File, .. } => 'F',
        Judged::Sealed { kind: SealKind::GitConfig, .. } => 'C',
    }
}

#[test]
fn paths_mean_what_their_names_say() {
    for (path, expected) in [
        ("/w/a", '-'),
        ("/w/.git/hooks", 'D'),
        ("/w/.git/hooks/pre-commit", 'd'),
        ("/w/.git/hooks/pre-commit.sample", '-'),
        ("/w/.git/hooks/x.sample/y", 'd'),
        ("/w/.vscode/hooks/x.sample", 'd'),
        ("/w/.github/hooks/x.sample", 'd'),
        ("/w/deep/er/.GIT/Hooks/x", 'd'),
        ("/w/src/hooks/use.ts", '-'),
        ("/w/.git/config", 'C'),
        ("/w/.git/config.lock", '-'),
        ("/w/.git/config.worktree", 'C'),
        ("/w/.git/info/attributes", 'F'),
        ("/w/.git/info/exclude", '-'),
        ("/w/.git/refs/heads/config", '-'),
        ("/w/.vscode", 'D'),
        ("/w/x/.vscode/tasks.json", 'd'),
        ("/w/.github", '-'),
        ("/w/.github/workflows", 'D'),
        ("/w/.github/FUNDING.yml", '-'),
        ("/w/.envrc", 'F'),
        ("/w/.envrc/x", '-'),
        ("/w/.envrcx", '-'),
        ("/w/x.mcp.json", 'F'),
        ("/w/node_modules/p/.github/workflows/ci.yml", '-'),
        ("/w/node_modules/p/.git/hooks/x", 'd'),
        ("/w/.claude", '-'),
        ("/w/project/.claude/settings.json", 'd'),
        ("/w/projectx/.claude/settings.json", '-'),
    ] {
        assert_eq!(verdict("/w", path, &[]), expected, "{path}");
    }
}

#[test]
fn a_granted_folder_is_never_sealed_by_its_own_name() {
    assert_eq!(verdict("/h/.vscode/w", "/h/.vscode/w/a", &[]), '-');
    assert_eq!(verdict("/h/.vscode", "/h/.vscode/a", &[]), '-');
    assert_eq!(verdict("/h/r/.git", "/h/r/.git/hooks/x", &[]), 'd');
    // And a workspace among packages is a workspace.
    assert_eq!(verdict("/h/node_modules/p", "/h/node_modules/p/.vscode/x", &[]), 'd');
}

#[test]
fn a_folder_with_objects_and_refs_is_a_repository_whatever_its_name() {
    let bare = ["/w/x/objects", "/w/x/refs"];
    assert_eq!(verdict("/w", "/w/x/config", &bare), 'C');
    assert_eq!(verdict("/w", "/w/x/hooks/y", &bare), 'd');
    assert_eq!(verdict("/w", "/w/x/config", &bare[..1]), '-');
    assert_eq!(verdict("/w", "/w/x/config.worktree", &["/w/x/commondir"]), 'C');
}

#[test]
fn a_name_that_leads_to_a_sealed_one_is_known() {
    let rests = |path: &str| -> Vec<String> {
        let leads = set().leads(b"/w", path.as_bytes(), &mut |_| false);
        leads
            .iter()
            .map(|lead| lead.rest.iter().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>().join("/"))
            .collect()
    };
    assert_eq!(rests("/w/.github"), ["workflows", "hooks"]);
    assert!(rests("/w/.git").contains(&"info/attributes".to_owned()));
    assert!(rests("/w/a").is_empty());
    assert!(rests("/w/node_modules/p/.github").is_empty());
    assert!(SealSet::unpacks(b"/w", b"/w/node_modules/p", b"/w/p"));
    assert!(SealSet::unpacks(b"/w", b"/w/node_modules", b"/w/p"));
    assert!(!SealSet::unpacks(b"/w", b"/w/node_modules/p", b"/w/node_modules/q"));
}

#[test]
fn one_walk_finds_what_is_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let top = fs::canonicalize(folder.path()).unwrap();
    for path in [
        ".git/hooks",
        ".git/objects/aa",
        ".git/refs",
        ".vscode",
        "sub/.github/workflows",
        "bare/objects",
        "bare/refs",
        "bare/hooks",
        "tools/githooks",
        "shared",
        "node_modules/p/.vscode",
        "src/hooks",
    ] {
        fs::create_dir_all(top.join(path)).unwrap();
    }
    fs::write(top.join(".git/config"), "[core]\n\thooksPath = tools/githooks\n").unwrap();
    fs::write(top.join("bare/config"), "").unwrap();
    fs::write(top.join("sub/.envrc"), "").unwrap();
    fs::hard_link(top.join("sub/.envrc"), top.join("other-name")).unwrap();
    symlink("../shared", top.join("sub/.vscode")).unwrap();
    let mut set = set();
    let descriptor = fs::File::open(&top).unwrap();
    let root = Root { descriptor: std::os::fd::AsFd::as_fd(&descriptor), path: &top };
    let scanned = set.scan(&[root]).unwrap();
    let mut found: Vec<String> =
        scanned.found.iter().map(|found| found.path.strip_prefix(&top).unwrap().display().to_string()).collect();
    found.sort();
    assert_eq!(
        found,
        [
            ".git/config",
            ".git/hooks",
            ".vscode",
            "bare/config",
            "bare/hooks",
            "shared",
            "sub/.envrc",
            "sub/.github/workflows",
            "tools/githooks",
        ]
    );
    assert_eq!(scanned.linked.len(), 1);
    let path = top.join("tools/githooks/pre-commit").into_os_string().into_encoded_bytes();
    let judged = set.judge(top.as_os_str().as_encoded_bytes(), &path, &mut |_| false);
    assert!(matches!(judged, Judged::Inside { .. }), "{judged:?}");
}

#[test]
fn hooks_of_the_accounts_own_configuration_are_sealed() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join(".gitconfig"), "[include]\n\tpath = more\n[core]\n\thooksPath = tools/hooks\n").unwrap();
    fs::write(home.path().join("more"), "[core]\n\thooksPath = ~/all-hooks\n").unwrap();
    let seals = hooks_seals(home.path()).unwrap();
    assert!(seals.iter().any(|seal| seal.components == ["tools", "hooks"] && seal.below.is_none()), "{seals:?}");
    let below = home.path().display().to_string();
    assert!(seals.iter().any(|seal| seal.components == ["all-hooks"] && seal.below.as_ref() == Some(&below)));
    fs::write(home.path().join("more"), "hooksPath").unwrap();
    assert!(hooks_seals(home.path()).is_err());
}

#[test]
fn a_worktrees_repository_counts_only_if_it_knows_the_worktree() {
    let folder = tempfile::tempdir().unwrap();
    let top = fs::canonicalize(folder.path()).unwrap();
    let (tree, back) = (top.join("tree"), top.join("main/.git/worktrees/tree"));
    fs::create_dir_all(&tree).unwrap();
    fs::create_dir_all(&back).unwrap();
    assert_eq!(common_folder(&tree).unwrap(), None);
    fs::write(tree.join(".git"), format!("gitdir: {}\n", back.display())).unwrap();
    assert!(common_folder(&tree).is_err());
    fs::write(back.join("commondir"), "../..\n").unwrap();
    fs::write(back.join("gitdir"), format!("{}\n", tree.join(".git").display())).unwrap();
    assert_eq!(common_folder(&tree).unwrap(), Some(CommonFolder { path: top.join("main/.git") }));
    fs::write(back.join("gitdir"), format!("{}\n", top.join("other/.git").display())).unwrap();
    assert!(common_folder(&tree).is_err());
    fs::write(tree.join(".git"), "gitdir: inside\n").unwrap();
    fs::create_dir(tree.join("inside")).unwrap();
    assert_eq!(common_folder(&tree).unwrap(), None);
}
