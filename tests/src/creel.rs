//! creel on a stage: in user mode under one account, or in system mode with the root role beside it.
//!
//! Starts the real programs the way a person or the service manager starts them and waits until they answer; it never
//! looks inside them. The one thing a newcomer gets wrong: dropping it kills the daemon, which is what faults want; call
//! [`Creel::stop`] for a clean end.

use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::account::Account;
use crate::await_it::{Deadline, until};
use crate::run::{Finished, Run, Running};
use crate::stage::Stage;

/// Where the root role listens.
const ROOT_SOCKET: &str = "/run/creel-root/root.sock";

/// A running creel.
pub struct Creel<'stage> {
    stage: &'stage Stage,
    /// Whose daemon it is.
    pub owner: Account,
    /// Arguments of the daemon, so that it can be started again as it was.
    arguments: Vec<String>,
    daemon: Option<Running>,
    /// The root role; it goes away with the stage.
    root: Option<Running>,
    /// The socket that a killed root role left, by when it was made.
    root_socket: Option<(i64, i64)>,
    /// Folder of its sockets.
    pub runtime: String,
    /// Folder of its state.
    pub state: String,
}

impl<'stage> Creel<'stage> {
    /// In user mode for `account`, with every rule on.
    ///
    /// # Errors
    ///
    /// It does not come up.
    pub fn user(stage: &'stage Stage, account: Account) -> Result<Self> {
        Self::user_with(stage, account, &["--enforce"])
    }

    /// In user mode with these arguments.
    ///
    /// # Errors
    ///
    /// It does not come up.
    pub fn user_with(stage: &'stage Stage, account: Account, arguments: &[&str]) -> Result<Self> {
        let mut all = vec!["--user".to_owned()];
        all.extend(arguments.iter().map(ToString::to_string));
        let creel = Self {
            stage,
            owner: account,
            arguments: all,
            daemon: None,
            root: None,
            root_socket: None,
            runtime: format!("/run/user/{}/creel", account.id),
            state: format!("{}/.local/state/creel", account.home),
        };
        creel.started()
    }

    /// In system mode: the root role as root, the daemon as account `creel`, with every rule on.
    ///
    /// # Errors
    ///
    /// It does not come up.
    pub fn system(stage: &'stage Stage) -> Result<Self> {
        for (folder, mode) in [("/run/creel", "0755"), ("/var/lib/creel", "0700")] {
            let make = ["-d", "-m", mode, "-o", "creel", "-g", "creel", folder];
            stage.run(Account::ROOT, "install").arguments(make).finish(30)?.well()?;
        }
        let mut creel = Self {
            stage,
            owner: Account::CREEL,
            arguments: vec!["--system".to_owned(), "--enforce".to_owned()],
            daemon: None,
            root: None,
            root_socket: None,
            runtime: "/run/creel".to_owned(),
            state: "/var/lib/creel".to_owned(),
        };
        creel.start_root()?;
        creel.started()
    }

    fn started(mut self) -> Result<Self> {
        self.start()?;
        Ok(self)
    }

    /// Starts the daemon (again) and waits until it answers.
    ///
    /// # Errors
    ///
    /// It does not come up.
    pub fn start(&mut self) -> Result<()> {
        let mut daemon = self.stage.run(self.owner, "creeld").arguments(self.arguments.clone()).start()?;
        let socket = format!("{}/hook.sock", self.runtime);
        until("the daemon", Deadline::seconds(30), || {
            let answers = self.stage.exists(&socket) && self.status().is_ok();
            (answers || !daemon.alive()).then_some(())
        })?;
        ensure!(daemon.alive(), "the daemon ended at once: {}", daemon.stderr());
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Starts the root role (again) and waits until it listens.
    ///
    /// # Errors
    ///
    /// It does not come up.
    pub fn start_root(&mut self) -> Result<()> {
        let mut root = self.stage.run(Account::ROOT, "creeld").argument("--role=root").start()?;
        // A socket that a killed one left is replaced, so its age tells.
        let old = self.root_socket;
        until("the root role", Deadline::seconds(30), || {
            (self.root_socket_age().is_some_and(|new| Some(new) != old) || !root.alive()).then_some(())
        })?;
        ensure!(root.alive(), "the root role ended at once: {}", root.stderr());
        self.root = Some(root);
        Ok(())
    }

    fn root_socket_age(&self) -> Option<(i64, i64)> {
        let found = self.stage.outside(ROOT_SOCKET).symlink_metadata().ok()?;
        Some((found.ctime(), found.ctime_nsec()))
    }

    /// Kills the root role at once; its socket stays.
    ///
    /// # Errors
    ///
    /// It cannot be killed.
    pub fn kill_root(&mut self) -> Result<()> {
        self.root_socket = self.root_socket_age();
        if let Some(root) = self.root.take() {
            root.kill()?;
        }
        Ok(())
    }

    /// A person's command, run by the administrator in system mode, by the owner in user mode.
    ///
    /// # Errors
    ///
    /// It cannot be run or does not end.
    pub fn command(&self, arguments: &[&str]) -> Result<Finished> {
        let person = if self.owner == Account::CREEL { Account::ROOT } else { self.owner };
        self.command_by(person, arguments)
    }

    /// A command of another person.
    ///
    /// # Errors
    ///
    /// It cannot be run or does not end.
    pub fn command_by(&self, account: Account, arguments: &[&str]) -> Result<Finished> {
        self.stage.run(account, "creel").arguments(arguments.iter().copied()).finish(60)
    }

    /// A command of a person at a terminal: standard input and output are one of the kernel's pseudo-terminals.
    ///
    /// # Errors
    ///
    /// It cannot be run or does not end.
    pub fn at_terminal(&self, account: Account, arguments: &[&str]) -> Result<Finished> {
        self.terminal(account, arguments).finish(60)
    }

    /// The screen of `creel up`, joined to the running daemon, in a terminal of its own.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn screen(&self, account: Account) -> Result<Running> {
        self.terminal(account, &["up"]).environment("TERM", "xterm").start()
    }

    fn terminal(&self, account: Account, arguments: &[&str]) -> Run<'stage> {
        // Wide: a line that is cut would hide the code on it.
        let mut words = vec!["stty cols 200 rows 60; exec creel".to_owned()];
        words.extend(arguments.iter().map(|word| format!("'{word}'")));
        // `--return` hands on the command's own exit code.
        self.stage.run(account, "script").arguments(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"])
    }

    /// The question that waits now, as `creel approvals` lists it for the administrator or owner; waits for one.
    ///
    /// # Errors
    ///
    /// None came, or more than one waits.
    pub fn question(&self) -> Result<Value> {
        let open = until("a question", Deadline::seconds(60), || {
            self.questions().ok().filter(|questions| !questions.is_empty())
        })?;
        ensure!(open.len() == 1, "one question was expected: {open:?}");
        open.into_iter().next().context("one question")
    }

    /// All questions that wait.
    ///
    /// # Errors
    ///
    /// The daemon does not answer.
    pub fn questions(&self) -> Result<Vec<Value>> {
        self.command(&["approvals", "--format", "jsonl"])?.well()?.json_lines()
    }

    /// Records with this code, for example `alert.no-agent-above`.
    ///
    /// # Errors
    ///
    /// The daemon does not answer.
    pub fn coded(&self, code: &str) -> Result<Vec<Value>> {
        let mut records = self.records()?;
        records.retain(|record| record.pointer("/envelope/code").and_then(Value::as_str) == Some(code));
        Ok(records)
    }

    /// Records of the kind `alert`.
    ///
    /// # Errors
    ///
    /// The daemon does not answer.
    pub fn alerts(&self) -> Result<Vec<Value>> {
        let mut records = self.records()?;
        records.retain(|record| record.pointer("/envelope/kind").and_then(Value::as_str) == Some("alert"));
        Ok(records)
    }

    /// Insists that the record is unaltered, as far as anybody can tell without an anchor.
    ///
    /// # Errors
    ///
    /// It is not.
    pub fn verified(&self) -> Result<()> {
        let verified = self.command(&["log", "verify"])?.well()?;
        ensure!(verified.stdout.contains("self-consistent"), "{verified}");
        Ok(())
    }

    /// The state as JSON.
    ///
    /// # Errors
    ///
    /// The daemon does not answer.
    pub fn status(&self) -> Result<Value> {
        self.command(&["status", "--format", "json"])?.well()?.json()
    }

    /// All records as JSON, oldest first.
    ///
    /// # Errors
    ///
    /// The daemon does not answer.
    pub fn records(&self) -> Result<Vec<Value>> {
        self.command(&["log", "--format", "jsonl", "-n", "10000"])?.well()?.json_lines()
    }

    /// The newest records, oldest first.
    ///
    /// # Errors
    ///
    /// The daemon does not answer.
    pub fn latest(&self, number: u32) -> Result<Vec<Value>> {
        self.command(&["log", "--format", "jsonl", "-n", &number.to_string()])?.well()?.json_lines()
    }

    /// Records of decisions about a tool at a point.
    ///
    /// # Errors
    ///
    /// The daemon does not answer.
    pub fn decisions(&self, point: &str, tool: &str) -> Result<Vec<Value>> {
        let mut records = self.records()?;
        records.retain(|record| {
            record.pointer("/envelope/point").and_then(Value::as_str) == Some(point)
                && record.pointer("/envelope/tool").and_then(Value::as_str) == Some(tool)
        });
        Ok(records)
    }

    /// The daemon's process on the stage.
    pub fn daemon(&mut self) -> Option<&mut Running> {
        self.daemon.as_mut()
    }

    /// Kills the daemon at once.
    ///
    /// # Errors
    ///
    /// It cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill()?;
        }
        Ok(())
    }

    /// Halts the daemon where it is; its sockets stay.
    ///
    /// # Errors
    ///
    /// It is not running.
    pub fn pause(&mut self) -> Result<()> {
        self.daemon.as_mut().context("the daemon is not running")?.signal(rustix::process::Signal::STOP)
    }

    /// Lets a paused daemon go on.
    ///
    /// # Errors
    ///
    /// It is not running.
    pub fn go_on(&mut self) -> Result<()> {
        self.daemon.as_mut().context("the daemon is not running")?.signal(rustix::process::Signal::CONT)
    }

    /// Stops the daemon cleanly.
    ///
    /// # Errors
    ///
    /// It does not end well.
    pub fn stop(mut self) -> Result<Finished> {
        match self.daemon.take() {
            Some(daemon) => daemon.stop(),
            None => anyhow::bail!("the daemon is not running"),
        }
    }
}
