//! A machine of its own for one test: private mounts over the real one, accounts, programs and agents in place.
//!
//! Turns the machine into one that a test may break: `/etc`, `/usr`, `/var` and `/opt` are copied on write into memory;
//! `/home`, `/root`, `/run` and `/tmp` begin empty; mounts of the machine below those do not shine through. Processes
//! are numbered anew, so that nothing above the test (which an agent may have started) is above a program of the stage,
//! and so that the kernel ends all of them with the first. Network and kernel are the machine's own. It needs root and
//! `unshare`, `nsenter`, `setpriv`.
//! A newcomer gets wrong: paths in a test are paths *inside*; [`Stage::outside`] says where the test process finds them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::account::Account;
use crate::run::Run;
use crate::skip::skip;

/// A stage; dropping it ends every process on it and leaves nothing behind.
#[derive(Debug)]
pub struct Stage {
    folder: TempDir,
    /// `unshare`, which waits for the first process.
    keeper: Child,
    /// The stage's first process.
    holder: u32,
}

impl Stage {
    /// A stage with the accounts, the pinned agents and the programs, or `None` where there cannot be one: then the
    /// reason was said, and with `CI` set the test fails.
    ///
    /// # Panics
    ///
    /// Panics where `CI` is set and there cannot be a stage.
    #[must_use]
    pub fn open() -> Option<Self> {
        let Some(programs) = std::env::var_os("CREEL_PROGRAMS") else {
            skip("CREEL_PROGRAMS does not name the folder of the programs; use ./dev test --only e2e");
            return None;
        };
        Self::with(Some(Path::new(&programs)))
    }

    /// The same without creel's programs, for tests of the harness.
    ///
    /// # Panics
    ///
    /// Panics where `CI` is set and there cannot be a stage.
    #[must_use]
    pub fn without_programs() -> Option<Self> {
        Self::with(None)
    }

    fn with(programs: Option<&Path>) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip("a stage needs root: private mounts and another account for the agent");
            return None;
        }
        match Self::build(programs) {
            Ok(stage) => Some(stage),
            Err(error) => {
                skip(&format!("no stage: {error:#}"));
                None
            }
        }
    }

    fn build(programs: Option<&Path>) -> Result<Self> {
        let folder = TempDir::with_prefix("creel-stage-").context("stage folder")?;
        let path = folder.path();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        for part in ["programs", "claude", "codex", "gemini", "layers", "home", "root", "run/user", "tmp"] {
            fs::create_dir_all(path.join(part))?;
        }
        fs::set_permissions(path.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        fs::set_permissions(path.join("root"), fs::Permissions::from_mode(0o700))?;
        for account in Account::PEOPLE {
            for (part, mode) in [(format!("home/{}", account.name), 0o755), (format!("run/user/{}", account.id), 0o700)]
            {
                let part = path.join(part);
                fs::create_dir_all(&part)?;
                fs::set_permissions(&part, fs::Permissions::from_mode(mode))?;
                chown(&part, Some(account.id), Some(account.id))?;
            }
        }
        fs::write(path.join("passwd"), Account::passwd())?;
        fs::write(path.join("group"), Account::group())?;

        let mut keeper = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
            .args(["bash", "-c", include_str!("stage.sh"), "stage"])
            .arg(path)
            .arg(programs.unwrap_or(Path::new("")))
            .arg(agents())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("unshare")?;
        let mut line = String::new();
        if let Some(stdout) = keeper.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).context("stage")?;
        }
        if line != "ready\n" {
            drop(keeper.stdin.take());
            let output = keeper.wait_with_output().context("stage")?;
            anyhow::bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let holder = child_of(keeper.id()).context("the stage's first process")?;
        Ok(Self { folder, keeper, holder })
    }

    /// The process that holds the mounts.
    pub(crate) fn holder(&self) -> u32 {
        self.holder
    }

    /// A program to be run by `account`; a name is looked up in the usual folders.
    pub fn run(&self, account: Account, program: &str) -> Run<'_> {
        Run::new(self, account, program)
    }

    /// Where the test process finds a path of the stage.
    #[must_use]
    pub fn outside(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.holder()))
    }

    /// Writes a file of the stage, with its folders, owned by `account`.
    ///
    /// # Errors
    ///
    /// It could not be written.
    pub fn write(&self, account: Account, inside: &str, text: impl AsRef<[u8]>) -> Result<()> {
        self.folder_for(account, inside)?;
        let path = self.outside(inside);
        fs::write(&path, text).with_context(|| format!("write {inside}"))?;
        chown(&path, Some(account.id), Some(account.id)).with_context(|| format!("own {inside}"))
    }

    /// Makes a folder of the stage, with its parents; those that are new are owned by `account`.
    ///
    /// # Errors
    ///
    /// It could not be made.
    pub fn make_folder(&self, account: Account, inside: &str) -> Result<()> {
        self.folder_for(account, &format!("{inside}/."))
    }

    fn folder_for(&self, account: Account, inside: &str) -> Result<()> {
        ensure!(inside.starts_with('/'), "`{inside}` is not absolute");
        let mut so_far = String::new();
        let parts: Vec<&str> = inside.split('/').filter(|part| !part.is_empty()).collect();
        for part in parts.iter().take(parts.len().saturating_sub(1)) {
            so_far.push('/');
            so_far.push_str(part);
            let path = self.outside(&so_far);
            if !path.exists() {
                fs::create_dir(&path).with_context(|| format!("make {so_far}"))?;
                chown(&path, Some(account.id), Some(account.id)).with_context(|| format!("own {so_far}"))?;
            }
        }
        Ok(())
    }

    /// Reads a file of the stage.
    ///
    /// # Errors
    ///
    /// It could not be read, or is not text.
    pub fn read(&self, inside: &str) -> Result<String> {
        fs::read_to_string(self.outside(inside)).with_context(|| format!("read {inside}"))
    }

    /// Whether a path of the stage exists; a dangling link does.
    #[must_use]
    pub fn exists(&self, inside: &str) -> bool {
        self.outside(inside).symlink_metadata().is_ok()
    }

    /// Whether a program of this name runs on the stage now.
    #[must_use]
    pub fn process_named(&self, name: &str) -> bool {
        let named = |id: &u32| fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm.trim_end() == name);
        self.processes().iter().any(named)
    }

    /// Processes on the stage beside its first, by the machine's numbers. They are known by their process namespace,
    /// which nobody else has.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let Ok(ours) = fs::read_link(format!("/proc/{}/ns/pid", self.holder)) else { return Vec::new() };
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
            .filter(|id| *id != self.holder)
            .filter(|id| fs::read_link(format!("/proc/{id}/ns/pid")).is_ok_and(|theirs| theirs == ours))
            .collect()
    }
}

impl Stage {
    /// Every process below the stage's first, those in namespaces of their own too, by the machine's numbers, with names.
    #[must_use]
    pub fn everything(&self) -> BTreeMap<u32, String> {
        let mut parents: BTreeMap<u32, (u32, String)> = BTreeMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(id) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
            // One that ended and was not fetched yet holds nothing any more.
            if field("State:").starts_with('Z') {
                continue;
            }
            if let Ok(parent) = field("PPid:").parse() {
                parents.insert(id, (parent, field("Name:").to_owned()));
            }
        }
        // Who entered the stage from outside has its parent there, and a cage has numbers of its own: what counts is
        // whether somebody on the way up is numbered by the stage.
        let ours = fs::read_link(format!("/proc/{}/ns/pid", self.holder)).unwrap_or_default();
        let below = |id: u32| {
            let mut at = id;
            for _ in 0..parents.len() {
                if at != self.holder && fs::read_link(format!("/proc/{at}/ns/pid")).is_ok_and(|theirs| theirs == ours) {
                    return true;
                }
                match parents.get(&at) {
                    Some((parent, _)) if *parent != 0 => at = *parent,
                    _ => return false,
                }
            }
            false
        };
        parents.iter().filter(|(id, _)| below(**id)).map(|(id, (_, name))| (*id, name.clone())).collect()
    }

    /// The mounts of the stage, one line each.
    #[must_use]
    pub fn mounts(&self) -> String {
        fs::read_to_string(format!("/proc/{}/mounts", self.holder)).unwrap_or_default()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The end of its input ends the first process, and the kernel ends all others with it.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
        // The mounts went with their namespace; what is left is ordinary files.
        let _ = self.folder.path();
    }
}

/// The only child of a process of ours that has just one.
pub(crate) fn child_of(id: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// The folder of the pinned agents.
pub(crate) fn agents() -> PathBuf {
    if let Some(cache) = std::env::var_os("CREEL_CACHE") {
        return cache.into();
    }
    PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(".cache/creel")
}
