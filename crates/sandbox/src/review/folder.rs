//! The folder of one run under the account's state folder: what the run was, its layer, its snapshot, its undo record.
//!
//! ```text
//! ~/.local/state/creel/runs/<run>/
//!   run.json   what the run was: workspace and its identity, seals, when it began
//!   lock       held by the supervisor as long as the run lives
//!   upper/     what the run wrote (review only)
//!   work/      the overlay's own scratch folder (review only)
//!   before     what stood in the workspace at the start
//!   undo/      what a commit replaced, and the list that puts it back
//! ```
//!
//! The one fact a newcomer gets wrong: whether a run still lives is said by the lock, which the kernel gives up when the
//! last process that holds it ends, never by a file's presence.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use creel_model::cage::{CagePlan, Seal, WorkspaceMode};
use creel_model::id::RunId;

use super::fd;

/// Bytes of `run.json` and of other small files of a run folder that are read.
const FACTS_BYTES_MAX: u64 = 1 << 20;
/// Run folders that are listed.
const RUNS_MAX: usize = 10_000;
/// Version of `run.json`.
const FACTS_VERSION: u32 = 1;

/// What a run was, as far as its changes are concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFacts {
    /// Of this format.
    pub version: u32,
    /// The run.
    pub run: RunId,
    /// Name of its profile.
    pub profile: String,
    /// Absolute path of the workspace.
    pub workspace: String,
    /// Device of the workspace folder.
    pub device: u64,
    /// Inode of the workspace folder.
    pub inode: u64,
    /// How writes reach the disk.
    pub mode: WorkspaceMode,
    /// When the folder was made, nanoseconds since 1970, by the clock that stamps files: what changed before has a change
    /// time of at most this, what changed since has one of at least this. On kernels before 6.13 that clock moves in
    /// steps of up to 10 ms, so that a change shortly before may look like one since.
    pub began_unix_ns: i64,
    /// Names that were sealed.
    pub seals: Vec<Seal>,
}

/// Why a run's folder cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The id of a run is one word of letters, digits and hyphens.
    #[error("`{0}` is not the name of a run")]
    Name(String),
    /// There is no such run, or nothing is kept of it.
    #[error("nothing is kept of run `{0}`")]
    Missing(String),
    /// The run still goes on.
    #[error("run `{0}` still goes on")]
    Running(String),
    /// What is written there is not what this version writes.
    #[error("`{path}` is not readable: {why}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The workspace is gone or another folder stands in its place.
    #[error("`{0}` is not the folder that the run worked on any more")]
    Workspace(String),
    /// The system said no.
    #[error("cannot {doing} `{path}`: {error}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: String,
        /// What came back.
        error: std::io::Error,
    },
}

impl FolderError {
    pub(crate) fn system(doing: &'static str, path: &Path, error: Errno) -> Self {
        FolderError::System { doing, path: super::name::shown_path(path), error: error.into() }
    }
}

/// The folder of one run. Dropping it gives up the lock if this value holds it.
#[derive(Debug)]
pub struct Folder {
    facts: RunFacts,
    path: PathBuf,
    folder: OwnedFd,
    runs: OwnedFd,
    workspace: OwnedFd,
    /// Absent when the run was only looked at while it goes on.
    lock: Option<OwnedFd>,
}

impl Folder {
    /// Makes the folder of a run that is about to start, and locks it for the life of this process.
    ///
    /// `state` is creel's state folder of the account (`$XDG_STATE_HOME/creel` or `~/.local/state/creel`); it is made
    /// where missing, closed to other accounts.
    ///
    /// # Errors
    /// When the workspace is not a folder or the state folder cannot be written.
    pub fn create(state: &Path, plan: &CagePlan) -> Result<Self, FolderError> {
        Self::create_began(state, plan, None)
    }

    /// As [`Folder::create`], for a run that began before: at that time of the clock that stamps files.
    pub(crate) fn create_began(state: &Path, plan: &CagePlan, began_unix_ns: Option<i64>) -> Result<Self, FolderError> {
        let name = checked_name(plan.run.as_str())?;
        let workspace_path = Path::new(&plan.workspace);
        let workspace =
            fd::folder(workspace_path).map_err(|error| FolderError::system("open", workspace_path, error))?;
        let stamp = stamp_of(workspace.as_fd(), workspace_path)?;
        let (runs, runs_path) = open_runs(state, true)?;
        let path = runs_path.join(name);
        rustix::fs::mkdirat(&runs, name, Mode::RWXU).map_err(|error| FolderError::system("make", &path, error))?;
        let folder =
            fd::child(runs.as_fd(), OsStr::new(name)).map_err(|error| FolderError::system("open", &path, error))?;
        let lock = take_lock(&folder, &path, OFlags::CREATE)?.ok_or_else(|| FolderError::Running(name.to_owned()))?;
        let began_unix_ns = match began_unix_ns {
            Some(began) => began,
            None => {
                file_clock(lock.as_fd()).map_err(|error| FolderError::system("touch", &path.join("lock"), error))?
            }
        };
        let facts = RunFacts {
            version: FACTS_VERSION,
            run: plan.run.clone(),
            profile: plan.profile.clone(),
            workspace: plan.workspace.clone(),
            device: stamp.device,
            inode: stamp.inode,
            mode: plan.mode,
            began_unix_ns,
            seals: plan.seals.clone(),
        };
        let result = Self { facts, path, folder, runs, workspace, lock: Some(lock) };
        let text = serde_json::to_vec(&result.facts)
            .map_err(|error| FolderError::Damaged { path: "run.json".to_owned(), why: error.to_string() })?;
        result.put("run.json", &text)?;
        Ok(result)
    }

    /// Opens the folder of a run that has ended, and locks it while this value lives.
    ///
    /// # Errors
    /// [`FolderError::Running`] while its supervisor lives; [`FolderError::Workspace`] when another folder stands where
    /// the workspace was.
    pub fn open(state: &Path, run: &str) -> Result<Self, FolderError> {
        let opened = Self::look(state, run)?;
        if opened.is_locked() { Ok(opened) } else { Err(FolderError::Running(run.to_owned())) }
    }

    /// Opens the folder of a run that may still go on: enough for looking, not for changing anything.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn look(state: &Path, run: &str) -> Result<Self, FolderError> {
        let name = checked_name(run)?;
        let missing = || FolderError::Missing(name.to_owned());
        let (runs, runs_path) = open_runs(state, false).map_err(|error| not_found(error, missing))?;
        let path = runs_path.join(name);
        let opened = fd::child(runs.as_fd(), OsStr::new(name));
        let folder = opened.map_err(|error| not_found(FolderError::system("open", &path, error), missing))?;
        // Not made anew: a run that is just being removed would be left behind with a lock in it.
        let lock = take_lock(&folder, &path, OFlags::empty()).map_err(|error| not_found(error, missing))?;
        let facts = read_facts(&folder, &path)?;
        if facts.run.as_str() != name {
            let why = format!("it says that it belongs to run `{}`", super::name::shown(facts.run.as_str().as_bytes()));
            return Err(FolderError::Damaged { path: super::name::shown_path(&path.join("run.json")), why });
        }
        let workspace_path = Path::new(&facts.workspace);
        let gone = || FolderError::Workspace(super::name::shown_path(workspace_path));
        let workspace = fd::folder(workspace_path).map_err(|_| gone())?;
        let stamp = stamp_of(workspace.as_fd(), workspace_path)?;
        if (stamp.device, stamp.inode) != (facts.device, facts.inode) {
            return Err(gone());
        }
        Ok(Self { facts, path, folder, runs, workspace, lock })
    }

    /// What the run was.
    #[must_use]
    pub fn facts(&self) -> &RunFacts {
        &self.facts
    }

    /// Absolute path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    pub(crate) fn workspace(&self) -> BorrowedFd<'_> {
        self.workspace.as_fd()
    }

    /// Whether this value holds the run's lock: the run has ended, or is this process's own.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.lock.is_some()
    }

    /// Removes the folder with everything in it; the workspace is not touched.
    ///
    /// # Errors
    /// When something in it cannot be removed; what could be is gone then.
    pub fn remove(self) -> Result<(), FolderError> {
        let name = OsStr::new(self.facts.run.as_str());
        fd::remove_tree(self.runs.as_fd(), name).map_err(|error| FolderError::system("remove", &self.path, error))
    }

    /// Writes a small file of the folder: whole or not at all.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> Result<(), FolderError> {
        let path = self.path.join(name);
        let fail = |error| FolderError::system("write", &path, error);
        let temporary = format!("{name}.new");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&self.folder, &temporary, flags, Mode::RUSR | Mode::WUSR).map_err(fail)?;
        let mut file = std::fs::File::from(opened);
        let system = |error| FolderError::System { doing: "write", path: super::name::shown_path(&path), error };
        file.write_all(bytes).map_err(system)?;
        rustix::fs::renameat(&self.folder, &temporary, &self.folder, name).map_err(fail)
    }

    /// Reads a small file of the folder; `None` when there is none.
    pub(crate) fn take(&self, name: &str, bytes_max: u64) -> Result<Option<Vec<u8>>, FolderError> {
        read_small(&self.folder, &self.path, name, bytes_max)
    }
}

/// Runs of which something is kept, with what they were, in the order of their names; at most [`RUNS_MAX`]. Folders that
/// cannot be read are left out.
///
/// # Errors
/// When the state folder is there and cannot be read.
pub fn runs(state: &Path) -> Result<Vec<RunFacts>, FolderError> {
    let (runs, path) = match open_runs(state, false) {
        Ok(opened) => opened,
        Err(FolderError::System { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let names = fd::names(runs.as_fd(), RUNS_MAX).map_err(|error| FolderError::system("read", &path, error))?;
    let names = names.ok_or_else(|| FolderError::Damaged {
        path: super::name::shown_path(&path),
        why: format!("there are more than {RUNS_MAX} runs"),
    })?;
    let facts = |name: &std::ffi::OsString| {
        let folder = fd::child(runs.as_fd(), name).ok()?;
        read_facts(&folder, &path.join(name)).ok()
    };
    Ok(names.iter().filter_map(facts).collect())
}

fn checked_name(run: &str) -> Result<&str, FolderError> {
    let good = (1..=64).contains(&run.len())
        && !run.starts_with('-')
        && run.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if good { Ok(run) } else { Err(FolderError::Name(super::name::shown(run.as_bytes()))) }
}

/// The clock that stamps files, read by changing one. The first look makes newer kernels give the next change an exact
/// time, below which no later change of any file can come.
fn file_clock(file: BorrowedFd<'_>) -> rustix::io::Result<i64> {
    rustix::fs::fstat(file)?;
    rustix::fs::fchmod(file, Mode::RUSR | Mode::WUSR)?;
    Ok(fd::Stamp::from(rustix::fs::fstat(file)?).changed_ns)
}

fn stamp_of(fd: BorrowedFd<'_>, path: &Path) -> Result<fd::Stamp, FolderError> {
    rustix::fs::fstat(fd).map(fd::Stamp::from).map_err(|error| FolderError::system("look at", path, error))
}

fn not_found(error: FolderError, missing: impl Fn() -> FolderError) -> FolderError {
    match error {
        FolderError::System { error, .. } if error.kind() == std::io::ErrorKind::NotFound => missing(),
        error => error,
    }
}

fn open_runs(state: &Path, make: bool) -> Result<(OwnedFd, PathBuf), FolderError> {
    let path = state.join("runs");
    if make {
        use std::os::unix::fs::DirBuilderExt as _;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|error| FolderError::System { doing: "make", path: super::name::shown_path(&path), error })?;
    }
    // A link in a person's own configuration of folders is his choice; the last part must be a folder.
    let opened = fd::folder(&path).map_err(|error| FolderError::system("open", &path, error))?;
    let stamp = stamp_of(opened.as_fd(), &path)?;
    let owner = rustix::fs::fstat(&opened).map_err(|error| FolderError::system("look at", &path, error))?.st_uid;
    if owner != rustix::process::geteuid().as_raw() {
        let why = "it belongs to another account".to_owned();
        return Err(FolderError::Damaged { path: super::name::shown_path(&path), why });
    }
    if stamp.mode & 0o077 != 0 {
        rustix::fs::fchmod(&opened, Mode::RWXU).map_err(|error| FolderError::system("close", &path, error))?;
    }
    Ok((opened, path))
}

/// `None` when another process holds it.
fn take_lock(folder: &OwnedFd, path: &Path, make: OFlags) -> Result<Option<OwnedFd>, FolderError> {
    let path = path.join("lock");
    let flags = OFlags::RDWR | make | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(folder, "lock", flags, Mode::RUSR | Mode::WUSR);
    let lock = opened.map_err(|error| FolderError::system("open", &path, error))?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(lock)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(FolderError::system("lock", &path, error)),
    }
}

fn read_facts(folder: &OwnedFd, path: &Path) -> Result<RunFacts, FolderError> {
    let damaged = |why: String| FolderError::Damaged { path: super::name::shown_path(&path.join("run.json")), why };
    let bytes = read_small(folder, path, "run.json", FACTS_BYTES_MAX)?;
    let bytes = bytes.ok_or_else(|| damaged("it is missing".to_owned()))?;
    let facts: RunFacts = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if facts.version != FACTS_VERSION {
        return Err(damaged(format!("expected version {FACTS_VERSION}, found {}", facts.version)));
    }
    Ok(facts)
}

fn read_small(folder: &OwnedFd, path: &Path, name: &str, max: u64) -> Result<Option<Vec<u8>>, FolderError> {
    let path = path.join(name);
    let opened = fd::file(folder.as_fd(), OsStr::new(name));
    let Some((file, _)) = opened.map_err(|error| FolderError::system("open", &path, error))? else { return Ok(None) };
    let mut bytes = Vec::new();
    let read = std::fs::File::from(file).take(max + 1).read_to_end(&mut bytes);
    read.map_err(|error| FolderError::System { doing: "read", path: super::name::shown_path(&path), error })?;
    if bytes.len() as u64 > max {
        let why = format!("it has more than {max} bytes");
        return Err(FolderError::Damaged { path: super::name::shown_path(&path), why });
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::super::test::plan;
    use super::*;

    #[test]
    fn a_folder_is_locked_while_its_run_lives_and_closed_to_others() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (state, workspace) = (dir.path().join("state"), dir.path().join("work"));
        std::fs::create_dir(&workspace).unwrap();
        let live = Folder::create(&state, &plan("r-1", &workspace, WorkspaceMode::Review)).unwrap();
        assert!(matches!(Folder::open(&state, "r-1"), Err(FolderError::Running(_))));
        assert!(Folder::create(&state, &plan("r-1", &workspace, WorkspaceMode::Review)).is_err());
        assert_eq!(std::fs::metadata(state.join("runs")).unwrap().permissions().mode() & 0o777, 0o700);
        drop(live);
        let ended = Folder::open(&state, "r-1").unwrap();
        let stamp = fd::stamp(ended.fd(), OsStr::new("run.json")).unwrap().unwrap();
        assert!(ended.facts().began_unix_ns <= stamp.changed_ns);
        assert_eq!(runs(&state).unwrap().len(), 1);
        ended.remove().unwrap();
        assert!(matches!(Folder::open(&state, "r-1"), Err(FolderError::Missing(_))));
        assert!(runs(&state).unwrap().is_empty());
    }

    #[test]
    fn names_that_are_no_runs_open_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", "..", "a/b", "-x", "a b", "r-1\n", &"x".repeat(65)] {
            assert!(matches!(Folder::open(dir.path(), name), Err(FolderError::Name(_))), "{name:?}");
        }
        assert!(matches!(Folder::open(dir.path(), "r-1"), Err(FolderError::Missing(_))));
    }

    #[test]
    fn another_folder_in_the_workspaces_place_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (state, workspace) = (dir.path().join("state"), dir.path().join("work"));
        std::fs::create_dir(&workspace).unwrap();
        drop(Folder::create(&state, &plan("r-1", &workspace, WorkspaceMode::Review)).unwrap());
        std::fs::rename(&workspace, dir.path().join("old")).unwrap();
        assert!(matches!(Folder::open(&state, "r-1"), Err(FolderError::Workspace(_))));
        std::fs::create_dir(&workspace).unwrap();
        assert!(matches!(Folder::open(&state, "r-1"), Err(FolderError::Workspace(_))));
        std::os::unix::fs::symlink("old", dir.path().join("link")).unwrap();
    }
}
