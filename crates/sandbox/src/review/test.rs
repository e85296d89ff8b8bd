//! Small plans and real overlays for this folder's tests.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use creel_model::cage::{CAGE_PLAN_VERSION, CagePlan, Degrade, Seal, SealKind, WorkspaceMode};
use creel_model::id::{Digest, RunId};

use super::Folder;

/// A plan with nothing in it but a workspace and three seals.
pub(crate) fn plan(run: &str, workspace: &Path, mode: WorkspaceMode) -> CagePlan {
    let seal = |components: &[&str], kind| Seal {
        components: components.iter().map(|part| (*part).to_owned()).collect(),
        kind,
        rule: "write-exec-bearing".to_owned(),
        below: None,
    };
    CagePlan {
        version: CAGE_PLAN_VERSION,
        run: RunId(run.to_owned()),
        profile: "test".to_owned(),
        kind: None,
        bundle: Digest::from_bytes(&[0; 32]),
        workspace: workspace.to_str().unwrap().to_owned(),
        mode,
        files: Vec::new(),
        seals: vec![
            seal(&[".git", "hooks"], SealKind::Directory),
            seal(&[".github", "workflows"], SealKind::Directory),
            seal(&["package.json"], SealKind::File),
            seal(&[".git", "config"], SealKind::GitConfig),
        ],
        programs: Vec::new(),
        network: Default::default(),
        sockets: Vec::new(),
        environment: Default::default(),
        limits: Default::default(),
        degrade: Degrade::Refuse,
        learn: false,
    }
}

/// Returns when the clock that stamps files has moved on.
pub(crate) fn move_file_clock(dir: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    let stamp = || {
        let file = tempfile::NamedTempFile::new_in(dir).unwrap();
        let metadata = file.as_file().metadata().unwrap();
        (metadata.ctime(), metadata.ctime_nsec())
    };
    let before = stamp();
    while stamp() <= before {}
}

/// Whether this process runs as an ordinary account. When it is root, the named test is run again as one, from a copy of
/// the test program, and must pass there; the caller then returns.
pub(crate) fn as_account(test: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("tests");
    // Copied by a process of its own: a child of another test's thread would inherit our writing descriptor, and a file
    // that is open for writing cannot be executed.
    let copied = std::process::Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&program).status();
    assert!(copied.unwrap().success());
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let status = std::process::Command::new(program)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .current_dir("/")
        .uid(61000)
        .gid(61000)
        .status()
        .unwrap();
    assert!(status.success(), "{test} as an ordinary account: {status}");
    false
}

/// A workspace, a state folder, and one reviewed run that has ended.
pub(crate) struct Trial {
    _dirs: [tempfile::TempDir; 2],
    /// The workspace.
    pub(crate) workspace: PathBuf,
    /// The state folder.
    pub(crate) state: PathBuf,
}

impl Trial {
    /// Makes the workspace with a shell script, then runs another one in a real overlay over it, in namespaces of its
    /// own.
    pub(crate) fn new(prepare: &str, run: &str) -> Self {
        Self::with_state(tempfile::tempdir().unwrap(), prepare, run)
    }

    /// The same with the state folder on another filesystem than the workspace, where this machine has one.
    pub(crate) fn across(prepare: &str, run: &str) -> Self {
        let elsewhere = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self::with_state(elsewhere.unwrap(), prepare, run)
    }

    fn with_state(state: tempfile::TempDir, prepare: &str, run: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let state_path = state.path().canonicalize().unwrap().join("state");
        let trial = Self { workspace: root.join("work"), state: state_path, _dirs: [dir, state] };
        std::fs::create_dir(&trial.workspace).unwrap();
        let shell = std::process::Command::new("sh").args(["-ec", prepare]).current_dir(&trial.workspace).status();
        assert!(shell.unwrap().success(), "preparing the workspace");
        let inside = std::process::Command::new("unshare")
            .args(["--user", "--mount", "--map-root-user", "--"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "review::test::inside", "--ignored", "--nocapture", "--test-threads=1"])
            .env("TRIAL_WORKSPACE", &trial.workspace)
            .env("TRIAL_STATE", &trial.state)
            .env("TRIAL_SCRIPT", run)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&inside.stdout).into_owned() + &String::from_utf8_lossy(&inside.stderr);
        assert!(inside.status.success() && said.contains("1 passed"), "{said}");
        trial
    }

    /// The folder of the run.
    pub(crate) fn folder(&self) -> Folder {
        Folder::open(&self.state, "r-1").unwrap()
    }

    /// A shell script in the workspace, outside.
    pub(crate) fn outside(&self, script: &str) {
        let shell = std::process::Command::new("sh").args(["-ec", script]).current_dir(&self.workspace).status();
        assert!(shell.unwrap().success(), "{script}");
    }

    /// A file of the workspace as text.
    pub(crate) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.workspace.join(path)).unwrap()
    }
}

/// The inner half of [`Trial::new`].
#[test]
#[ignore = "run by others, in namespaces of its own"]
fn inside() {
    let workspace = PathBuf::from(std::env::var_os("TRIAL_WORKSPACE").unwrap());
    let state = PathBuf::from(std::env::var_os("TRIAL_STATE").unwrap());
    let mut watch = crate::changes::Watch::new(&state, &plan("r-1", &workspace, WorkspaceMode::Review)).unwrap();
    let mounted = watch.layer().unwrap().mount().unwrap();
    watch.begin();
    let flags = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&mounted, "", rustix::fs::CWD, &workspace, flags).unwrap();
    let script = std::env::var("TRIAL_SCRIPT").unwrap();
    let shell = std::process::Command::new("sh").args(["-ec", &script]).current_dir(&workspace).status().unwrap();
    assert!(shell.success(), "{script}");
    let finished = watch.finish(7);
    std::fs::write(state.join("said"), format!("{} {}", finished.events.len(), finished.kept)).unwrap();
}
