//! A private folder with a daemon in user mode and a stand-in for an agent; gone when this value goes.
//!
//! The daemon attributes calls to the agent above the hook, so the measuring is done by a copy of this program in a place
//! where the catalog expects that agent's program. Nothing that the calls name is run, read or written.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Failure;

/// How long a daemon may take to come up, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon in user mode with everything of its own in one folder; killed when this value goes.
pub(crate) struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts the daemon of `programs` with its sockets, state and configuration below `folder`.
    pub(crate) fn start(programs: &Path, folder: &Path) -> Result<Self, Failure> {
        let child = Command::new(programs.join("creeld"))
            .args(["--user", "--enforce", "--with-parent", "--anchor", "none"])
            .args(["--runtime".as_ref(), folder.join("run").as_os_str()])
            .args(["--state".as_ref(), folder.join("state").as_os_str()])
            .args(["--configuration".as_ref(), folder.join("etc").as_os_str()])
            // As `creel up` and the unit start it.
            .env("MIMALLOC_PURGE_DELAY", "50")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let mut daemon = Self { child };
        let socket = folder.join("run/hook.sock");
        daemon
            .wait("the daemon does not come up", |daemon| Ok(socket.exists() || daemon.child.try_wait()?.is_some()))?;
        match daemon.child.try_wait()? {
            Some(status) => Err(format!("the daemon did not start: {status}").into()),
            None => Ok(daemon),
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it as the service manager does.
    pub(crate) fn stop(&mut self) -> Result<(), Failure> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        self.wait("the daemon does not end", |daemon| Ok(daemon.child.try_wait()?.is_some()))?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the daemon ended with {status}").into()) }
    }

    /// Waits until `done`; an error with `why` where that takes too long.
    pub(crate) fn wait(
        &mut self,
        why: &str,
        mut done: impl FnMut(&mut Self) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let began = Instant::now();
        while !done(self)? {
            if began.elapsed() > PATIENCE {
                return Err(why.into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct Stage {
    root: PathBuf,
    daemon: Option<Daemon>,
}

impl Stage {
    /// Starts the daemon of `programs`.
    pub(crate) fn start(programs: &Path) -> Result<Self, Failure> {
        // Not below a long folder: a socket's path holds 108 bytes.
        let root = PathBuf::from(format!("/tmp/creel-bench-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&root)?;
        for folder in ["run", "state", "etc", "work/src", "home/.local/share/claude/versions"] {
            DirBuilder::new().mode(0o700).recursive(true).create(root.join(folder))?;
        }
        fs::write(root.join("work/src/lib.rs"), "//! A library.\n")?;
        let mut stage = Self { root, daemon: None };
        stage.daemon = Some(Daemon::start(programs, &stage.root)?);
        Ok(stage)
    }

    /// Lets the stand-in measure; it prints its figures itself.
    pub(crate) fn play(&self, programs: &Path, quick: bool, parts: &[&str]) -> Result<(), Failure> {
        let program = self.root.join("home/.local/share/claude/versions/bench");
        fs::copy(std::env::current_exe()?, &program)?;
        let status = Command::new(&program)
            .arg("agent")
            .args([programs.as_os_str(), self.root.as_os_str()])
            .arg(self.daemon.as_ref().map(Daemon::pid).unwrap_or_default().to_string())
            .arg(if quick { "quick" } else { "full" })
            .args(parts)
            .current_dir(self.root.join("work"))
            .stdin(Stdio::null())
            .status()?;
        if status.success() { Ok(()) } else { Err("the measurements could not be made".into()) }
    }

    /// Stops the daemon.
    pub(crate) fn stop(&mut self) -> Result<(), Failure> {
        self.daemon.as_mut().map_or(Ok(()), Daemon::stop)
    }

    /// Verifies the record: how many records, in how many seconds.
    pub(crate) fn verify(&self, programs: &Path) -> Result<(u64, f64), Failure> {
        let journal = self.root.join("state/journal");
        let key = self.root.join("state/device.pub");
        let began = Instant::now();
        let output = Command::new(programs.join("creel"))
            .args(["log", "verify", "--format", "json", "--key"])
            .args([key.as_os_str(), journal.as_os_str()])
            .stdin(Stdio::null())
            .output()?;
        let seconds = began.elapsed().as_secs_f64();
        if !output.status.success() {
            return Err(format!("creel log verify: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        let view: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let records = view.get("records").and_then(serde_json::Value::as_u64).ok_or("no number of records")?;
        Ok((records, seconds))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Before the folder, into which it writes.
        drop(self.daemon.take());
        let _ = fs::remove_dir_all(&self.root);
    }
}
