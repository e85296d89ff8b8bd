//! Whole reviews on real overlays, as an ordinary account: run, look, commit, undo, discard.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::path::Path;

use super::name::Relative;
use super::test::{Trial, as_account};
use super::*;

const PREPARE: &str = "echo one > changed; echo two > deleted; echo three > old; echo four > mode; ln -s changed link
    mkdir -p dir/sub gone/inner becomes-file; echo a > dir/sub/a; echo c > gone/inner/c; echo x > becomes-file/x
    echo y > becomes-folder; chmod 640 changed; mkdir other; echo l > other/l";
const RUN: &str = "echo more >> changed; rm deleted; mv old new; chmod 755 mode; ln -sfn dir link; rm -r gone
    echo a2 > dir/sub/a; rm -r becomes-file; echo z > becomes-file; rm becomes-folder
    mkdir -p becomes-folder/deep; echo in > becomes-folder/deep/in; mkdir -p fresh/closed; echo n > fresh/closed/n
    chmod 555 fresh/closed; : > empty; printf esc > \"$(printf 'a\\033[2Jb')\"; echo s > program; chmod 755 program";
/// Kind, permissions, name and link of all that is there, and the digest of each file.
const MANIFEST: &str = "{ find . -printf '%y %m %p %l\\n'; find . -type f -exec sha256sum {} +; } | LC_ALL=C sort > ";

fn path(text: &str) -> Relative {
    Relative::parse(Path::new(text)).unwrap()
}

fn paths(texts: &[&str]) -> BTreeSet<Relative> {
    texts.iter().map(|text| path(text)).collect()
}

fn everything() -> Wish {
    Wish::default()
}

impl Trial {
    fn manifest(&self) -> String {
        self.outside(&format!("{MANIFEST} ../manifest"));
        std::fs::read_to_string(self.workspace.join("../manifest")).unwrap()
    }

    fn commit(&self, wish: &Wish) -> Committed {
        commit(&self.folder(), wish, 7).unwrap()
    }

    fn left(&self) -> usize {
        look(&self.folder(), &BTreeSet::new()).unwrap().differences.len()
    }
}

#[test]
fn a_commit_makes_the_workspace_what_the_run_saw_and_undo_makes_it_what_it_was() {
    if !as_account("review::trials::a_commit_makes_the_workspace_what_the_run_saw_and_undo_makes_it_what_it_was") {
        return;
    }
    for make in [Trial::new, Trial::across] {
        let trial = make(&format!("{PREPARE}\n{MANIFEST} ../was"), &format!("{RUN}\n{MANIFEST} ../seen"));
        let was = std::fs::read_to_string(trial.workspace.join("../was")).unwrap();
        let seen = std::fs::read_to_string(trial.workspace.join("../seen")).unwrap();
        assert_eq!(trial.manifest(), was, "the workspace itself was not touched");
        assert!(trial.left() > 15);
        for _ in 0..2 {
            let committed = trial.commit(&everything());
            assert_eq!((committed.left, committed.refused), (Vec::new(), false));
            assert_eq!(trial.manifest(), seen);
            assert_eq!(trial.left(), 0, "what was carried over is no difference any more");
            let restored = undo(&trial.folder()).unwrap();
            assert_eq!(restored.left, []);
            assert_eq!(trial.manifest(), was);
        }
        assert!(undo(&trial.folder()).unwrap().of_unix_ns.is_none(), "there is nothing left to undo");
        discard(trial.folder(), false).unwrap();
        assert_eq!(trial.manifest(), was);
        assert!(Folder::open(&trial.state, "r-1").is_err());
    }
}

#[test]
fn single_paths_are_committed_with_the_folders_that_lead_to_them() {
    if !as_account("review::trials::single_paths_are_committed_with_the_folders_that_lead_to_them") {
        return;
    }
    let trial = Trial::new(PREPARE, RUN);
    let wish = Wish { paths: paths(&["fresh/closed/n", "deleted", "no/such"]), ..everything() };
    let committed = trial.commit(&wish);
    assert_eq!(committed.unknown, [path("no/such")]);
    assert_eq!(trial.read("fresh/closed/n"), "n\n");
    assert!(!trial.workspace.join("deleted").exists());
    assert_eq!(trial.read("changed"), "one\n");
    assert!(trial.left() > 10);
    // Each commit is undone by itself, the last one first.
    trial.commit(&Wish { paths: paths(&["changed"]), ..everything() });
    assert_eq!(trial.read("changed"), "one\nmore\n");
    discard(trial.folder(), false).unwrap();
    assert_eq!(undo(&trial.folder()).unwrap().done, [path("changed")]);
    assert_eq!(trial.read("changed"), "one\n");
    assert_eq!(undo(&trial.folder()).unwrap().left, []);
    assert_eq!(trial.read("deleted"), "two\n");
    assert!(!trial.workspace.join("fresh").exists());
}

#[test]
fn what_changed_underneath_is_refused_and_nothing_else_is_done() {
    if !as_account("review::trials::what_changed_underneath_is_refused_and_nothing_else_is_done") {
        return;
    }
    let trial = Trial::new(PREPARE, RUN);
    trial.outside(
        "echo mine > changed; echo new > gone/inner/mine; rm dir/sub/a; echo mine > empty2; echo mine > new; chmod 600 mode",
    );
    let before = trial.manifest();
    let refused = trial.commit(&everything());
    assert!(refused.refused && refused.done.is_empty());
    let conflicts: BTreeSet<String> =
        refused.left.iter().filter(|(_, why)| matches!(why, Why::Conflict(_))).map(|(path, _)| path.shown()).collect();
    let expected = ["changed", "dir/sub/a", "gone/inner/mine", "mode", "new"];
    assert_eq!(conflicts, expected.map(str::to_owned).into_iter().collect());
    assert_eq!(trial.manifest(), before);
    let rest = trial.commit(&Wish { leave_refused: true, ..everything() });
    assert!(!rest.refused);
    assert_eq!((trial.read("changed"), trial.read("new")), ("mine\n".to_owned(), "mine\n".to_owned()));
    assert_eq!(trial.read("gone/inner/mine"), "new\n");
    assert!(!trial.workspace.join("gone/inner/c").exists());
    assert!(!trial.workspace.join("deleted").exists());
    assert_eq!(undo(&trial.folder()).unwrap().left, []);
    assert_eq!(trial.manifest(), before);
}

#[test]
fn undo_leaves_alone_what_was_changed_after_the_commit() {
    if !as_account("review::trials::undo_leaves_alone_what_was_changed_after_the_commit") {
        return;
    }
    let trial = Trial::new(PREPARE, RUN);
    trial.commit(&everything());
    trial.outside("echo mine > changed; echo mine > deleted; echo mine > becomes-folder/deep/mine; rm empty");
    let restored = undo(&trial.folder()).unwrap();
    let left: BTreeSet<String> = restored.left.iter().map(|(path, _)| path.shown()).collect();
    let expected = ["becomes-folder", "becomes-folder/deep", "changed", "deleted"];
    assert_eq!(left, expected.map(str::to_owned).into_iter().collect());
    assert_eq!((trial.read("changed"), trial.read("deleted")), ("mine\n".to_owned(), "mine\n".to_owned()));
    assert_eq!((trial.read("dir/sub/a"), trial.read("old")), ("a\n".to_owned(), "three\n".to_owned()));
    // When the person made room, the rest comes back.
    trial.outside("rm -r becomes-folder deleted");
    undo(&trial.folder()).unwrap();
    assert_eq!((trial.read("becomes-folder"), trial.read("deleted")), ("y\n".to_owned(), "two\n".to_owned()));
}

#[test]
fn sealed_names_are_only_committed_by_name() {
    if !as_account("review::trials::sealed_names_are_only_committed_by_name") {
        return;
    }
    let trial = Trial::new(
        "mkdir -p .git/objects .git/refs; echo '[core]' > .git/config; echo x > package.json",
        "mkdir -p .github/workflows .git/hooks; echo ci > .github/workflows/ci.yml; echo h > .git/hooks/pre-commit
         echo other > package.json; echo plain > plain; mkdir -p b/objects b/refs b/hooks; echo h > b/hooks/post-update",
    );
    let refused = trial.commit(&everything());
    assert!(refused.refused && !trial.workspace.join("plain").exists());
    let sealed: BTreeSet<String> =
        refused.left.iter().filter(|(_, why)| matches!(why, Why::Sealed(_))).map(|(path, _)| path.shown()).collect();
    let expected = [".git/hooks/pre-commit", ".github/workflows/ci.yml", "b/hooks/post-update", "package.json"];
    assert_eq!(sealed, expected.map(str::to_owned).into_iter().collect());
    let wish =
        Wish { sealed: paths(&[".github/workflows/ci.yml", "package.json"]), leave_refused: true, ..everything() };
    let committed = trial.commit(&wish);
    assert_eq!(trial.read(".github/workflows/ci.yml"), "ci\n");
    assert_eq!((trial.read("package.json"), trial.read("plain")), ("other\n".to_owned(), "plain\n".to_owned()));
    let files = |folder: &str| std::fs::read_dir(trial.workspace.join(folder)).unwrap().count();
    assert_eq!((files(".git/hooks"), files("b/hooks"), committed.left.len()), (0, 0, 2));
}

#[test]
fn a_git_configuration_passes_where_its_change_executes_nothing() {
    if !as_account("review::trials::a_git_configuration_passes_where_its_change_executes_nothing") {
        return;
    }
    let init = "git init -q . && git init -q b";
    let set = |key: &str| format!("git config user.name ada; git -C b config {key} x; git init -q --template= new");
    let trial = Trial::new(init, &set("user.name"));
    let committed = trial.commit(&everything());
    assert_eq!((committed.left, committed.refused), (Vec::new(), false));
    assert!(trial.read(".git/config").contains("ada") && trial.workspace.join("new/.git/HEAD").exists());
    let trial = Trial::new(init, &set("core.fsmonitor"));
    let refused = trial.commit(&everything());
    assert!(refused.refused && !trial.read(".git/config").contains("ada"));
    assert!(matches!(refused.left.as_slice(), [(left, Why::Sealed(_))] if *left == path("b/.git/config")));
}

#[test]
fn nothing_is_written_through_a_link_and_no_set_id_bit_or_fifo_is_taken_over() {
    if !as_account("review::trials::nothing_is_written_through_a_link_and_no_set_id_bit_or_fifo_is_taken_over") {
        return;
    }
    let trial = Trial::new(
        "mkdir -p d ../outside; echo a > d/a",
        "echo b > d/a; echo c > d/new; echo s > tool; chmod 6755 tool; mkfifo pipe; ln -s ../outside out",
    );
    // The folder becomes a link to somewhere else after the run.
    trial.outside("mv d d2; ln -s ../outside d");
    let committed = trial.commit(&Wish { leave_refused: true, ..everything() });
    assert_eq!(std::fs::read_dir(trial.workspace.join("../outside")).unwrap().count(), 0);
    assert_eq!(trial.read("d2/a"), "a\n");
    let why = |name: &str| committed.left.iter().find(|(left, _)| *left == path(name)).map(|(_, why)| why.clone());
    assert_eq!(why("pipe"), Some(Why::Obstacle("a FIFO")));
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(trial.workspace.join("tool")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    assert_eq!(std::fs::read_link(trial.workspace.join("out")).unwrap(), Path::new("../outside"));
}

#[test]
fn what_its_owner_may_not_read_is_refused_and_can_be_left() {
    if !as_account("review::trials::what_its_owner_may_not_read_is_refused_and_can_be_left") {
        return;
    }
    let trial = Trial::new(
        "echo one > changed",
        "echo two > changed; echo x > closed; chmod 000 closed; mkdir shut; echo y > shut/y; chmod 000 shut",
    );
    let refused = trial.commit(&everything());
    let unread: Vec<String> = refused.left.iter().map(|(path, _)| path.shown()).collect();
    assert!(refused.refused && refused.left.iter().all(|(_, why)| matches!(why, Why::Unread(_))));
    assert_eq!(unread, ["closed", "shut"]);
    trial.commit(&Wish { leave_refused: true, ..everything() });
    assert_eq!(trial.read("changed"), "two\n");
    assert!(!trial.workspace.join("closed").exists() && !trial.workspace.join("shut").exists());
}

#[test]
fn a_run_that_wrote_to_the_workspace_itself_has_nothing_to_commit() {
    let dir = tempfile::tempdir().unwrap();
    let plan = test::plan("r-1", dir.path(), creel_model::cage::WorkspaceMode::Direct);
    let state = tempfile::tempdir().unwrap();
    let folder = Folder::create(state.path(), &plan).unwrap();
    assert!(matches!(commit(&folder, &everything(), 7), Err(CommitError::NotReviewed(_))));
}

/// One line per difference: how, where, and what for.
fn listed(trial: &Trial, scope: &[&str]) -> Vec<String> {
    let folder = trial.folder();
    let upper = fd::child(folder.fd(), "upper".as_ref()).unwrap();
    let scope = scope.iter().map(|path| Relative::parse(path.as_ref()).unwrap()).collect();
    let found = compare(upper.as_fd(), folder.workspace(), &scope);
    assert!(!found.cut);
    let mut lines: Vec<String> = found.differences.iter().map(line).collect();
    lines.extend(found.unread.iter().map(|(path, why)| format!("unread {} {why}", path.shown())));
    lines
}

fn line(difference: &Difference) -> String {
    let mut line = format!("{} {}", difference.change.word(), difference.path.shown());
    if let Change::Renamed { from } = &difference.change {
        line += &format!(" from {}", from.shown());
    }
    if let Some(obstacle) = difference.obstacle {
        line += &format!(" ({obstacle})");
    }
    if difference.set_id {
        line += " (set-id)";
    }
    line
}

#[test]
fn a_real_layer_is_read_as_what_was_done_in_it() {
    if !as_account("review::trials::a_real_layer_is_read_as_what_was_done_in_it") {
        return;
    }
    let trial = Trial::new(
        "echo one > changed; echo two > deleted; echo three > 'old name'; echo four > mode; echo five > touched
         echo six > opened; ln -s changed link; ln -s changed other-link; mkdir -p dir/sub gone/inner whole empty
         echo a > dir/sub/a; echo b > dir/b; echo c > gone/inner/c; echo d > whole/d; echo e > whole/e
         mkdir becomes-file; echo x > becomes-file/x; echo y > becomes-folder; chmod 700 dir/sub",
        "echo more >> changed; rm deleted; mv 'old name' 'new name'; chmod 755 mode; touch touched; : >> opened
         rm link; ln -s dir link; echo b2 > dir/b; rm -r gone; rm -r whole; mkdir whole; echo d > whole/d
         echo f > whole/f; rm -r becomes-file; echo z > becomes-file; rm becomes-folder; mkdir becomes-folder
         echo in > becomes-folder/in; mkdir -p new/deep; echo n > new/deep/n; mkfifo pipe; echo s > setuid
         chmod 4755 setuid; chmod 755 dir/sub; rmdir empty; printf 'esc' > \"$(printf 'a\\033[2Jb')\"",
    );
    let mut lines = listed(&trial, &[]);
    lines.sort();
    let mut expected = vec![
        "changed changed",
        "changed dir/b",
        "changed link",
        "created \"a\\u{1b}[2Jb\"",
        "created becomes-folder/in",
        "created new",
        "created new/deep",
        "created new/deep/n",
        "created pipe (a FIFO)",
        "created setuid (set-id)",
        "created whole/f",
        "deleted becomes-file/x",
        "deleted deleted",
        "deleted empty",
        "deleted gone",
        "deleted gone/inner",
        "deleted gone/inner/c",
        "deleted old name",
        "deleted whole/e",
        "permissions dir/sub",
        "permissions mode",
        "renamed new name from old name",
        "replaced becomes-file",
        "replaced becomes-folder",
    ];
    expected.sort_unstable();
    assert_eq!(lines, expected);
    assert_eq!(listed(&trial, &["new/deep", "deleted"]), ["deleted deleted", "created new/deep", "created new/deep/n"]);
    assert_eq!(listed(&trial, &["nothing"]), [""; 0]);
}

#[test]
fn marks_that_the_reader_does_not_know_are_obstacles() {
    if !as_account("review::trials::marks_that_the_reader_does_not_know_are_obstacles") {
        return;
    }
    let trial = Trial::new("mkdir d; echo x > d/x; echo f > f", "echo y > d/y; echo g > f; mkdir -p e; echo z > e/z");
    let mark = |path: &str, name: &str, value: &str| {
        let path = trial.state.join("runs/r-1/upper").join(path);
        rustix::fs::setxattr(path, name, value.as_bytes(), rustix::fs::XattrFlags::empty()).unwrap();
    };
    mark("d", "user.overlay.redirect", "/etc");
    mark("f", "user.overlay.metacopy", "");
    mark("e", "user.overlay.opaque", "x");
    let why = "marked in a way that the layer's reader does not know";
    let expected = [format!("changed d ({why})"), format!("created e ({why})"), format!("changed f ({why})")];
    assert_eq!(listed(&trial, &[]), expected);
}

#[test]
fn a_layer_deeper_than_the_bound_is_refused_where_it_is_and_can_be_thrown_away() {
    if !as_account("review::trials::a_layer_deeper_than_the_bound_is_refused_where_it_is_and_can_be_thrown_away") {
        return;
    }
    let dig = "echo plain > plain; i=0; while [ $i -lt 400 ]; do mkdir d; cd d; i=$((i+1)); done; echo x > x";
    let trial = Trial::new("true", dig);
    let refused = trial.commit(&everything());
    assert!(refused.refused && matches!(refused.left.as_slice(), [(_, Why::Unread(_))]), "{:?}", refused.left);
    trial.commit(&Wish { paths: paths(&["plain"]), ..everything() });
    assert_eq!(trial.read("plain"), "plain\n");
    discard(trial.folder(), true).unwrap();
    assert!(Folder::open(&trial.state, "r-1").is_err());
}
