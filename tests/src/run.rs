//! One program on a stage: started as an account, ended by a deadline, its output kept.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use crate::account::Account;
use crate::await_it::{Deadline, until};
use crate::stage::{Stage, child_of};

/// Bytes kept of each stream; what comes after is read and dropped.
const STREAM_BYTES_MAX: usize = 16 << 20;

/// A program to be started.
#[derive(Clone, Debug)]
#[must_use]
pub struct Run<'stage> {
    stage: &'stage Stage,
    account: Account,
    program: String,
    arguments: Vec<OsString>,
    environment: BTreeMap<String, OsString>,
    folder: String,
    input: Vec<u8>,
}

impl<'stage> Run<'stage> {
    pub(crate) fn new(stage: &'stage Stage, account: Account, program: &str) -> Self {
        let environment = [
            ("HOME", account.home),
            ("USER", account.name),
            ("LOGNAME", account.name),
            ("SHELL", "/bin/bash"),
            ("LANG", "C.UTF-8"),
            ("TERM", "dumb"),
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ];
        let mut environment: BTreeMap<String, OsString> =
            environment.iter().map(|(key, value)| ((*key).to_owned(), OsString::from(value))).collect();
        if account.id != 0 {
            environment.insert("XDG_RUNTIME_DIR".to_owned(), format!("/run/user/{}", account.id).into());
        }
        Self {
            stage,
            account,
            program: program.to_owned(),
            arguments: Vec::new(),
            environment,
            folder: account.home.to_owned(),
            input: Vec::new(),
        }
    }

    /// Adds one argument.
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    pub fn arguments<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// The same run, started by another program: its arguments, then this one's name and arguments.
    pub fn under(mut self, program: &str, arguments: &[&str]) -> Self {
        let mut all: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        all.push(OsString::from(std::mem::replace(&mut self.program, program.to_owned())));
        all.append(&mut self.arguments);
        self.arguments = all;
        self
    }

    /// Sets a variable. Nothing else is inherited: the environment starts with a few plain variables.
    pub fn environment(mut self, key: &str, value: impl Into<OsString>) -> Self {
        self.environment.insert(key.to_owned(), value.into());
        self
    }

    /// Removes a variable.
    pub fn without(mut self, key: &str) -> Self {
        self.environment.remove(key);
        self
    }

    /// Sets the working folder; the account's home otherwise.
    pub fn folder(mut self, folder: &str) -> Self {
        folder.clone_into(&mut self.folder);
        self
    }

    /// Sets standard input; empty otherwise.
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// The tools that enter the stage could not be started.
    pub fn start(self) -> Result<Running> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.stage.holder())).args(["--mount", "--pid", "--", "setpriv"]);
        if self.account.id != 0 {
            let id = self.account.id.to_string();
            command.args(["--reuid", &id, "--regid", &id]);
            if self.account.groups.is_empty() {
                command.arg("--clear-groups");
            } else {
                let groups: Vec<String> = self.account.groups.iter().map(u32::to_string).collect();
                command.args(["--groups", &groups.join(",")]);
            }
        } else {
            // It has to do something: root as it is.
            command.args(["--reuid", "0"]);
        }
        command.args(["--", "env", "-i"]).arg(format!("--chdir={}", self.folder));
        for (key, value) in &self.environment {
            let mut pair = OsString::from(format!("{key}="));
            pair.push(value);
            command.arg(pair);
        }
        command.arg(&self.program).args(&self.arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().with_context(|| format!("start {}", self.program))?;
        let stdout = Stream::read(child.stdout.take());
        let stderr = Stream::read(child.stderr.take());
        if let Some(mut stdin) = child.stdin.take() {
            let input = self.input;
            // On a thread: a program that never reads must not hold up the test.
            std::thread::spawn(move || {
                let _ = stdin.write_all(&input);
            });
        }
        Ok(Running { program: self.program, child, stdout, stderr, ended: None })
    }

    /// Starts it and waits for its end.
    ///
    /// # Errors
    ///
    /// It could not be started, or did not end within `seconds`.
    pub fn finish(self, seconds: u64) -> Result<Finished> {
        self.start()?.finish(Deadline::seconds(seconds))
    }
}

/// A stream of a running program, read on a thread of its own.
#[derive(Debug)]
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    fn read(from: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&bytes);
        let thread = from.map(|mut from| {
            std::thread::spawn(move || {
                let mut chunk = vec![0u8; 64 << 10];
                while let Ok(read) = from.read(&mut chunk) {
                    if read == 0 {
                        break;
                    }
                    let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
                    if into.len() < STREAM_BYTES_MAX {
                        into.extend(chunk.iter().take(read));
                    }
                }
            })
        });
        Self { bytes, thread }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits for the end of the stream, but not long: a child left behind may hold it open.
    fn settle(&mut self) {
        let deadline = Deadline::seconds(2);
        if let Some(thread) = self.thread.take() {
            let _ = until("the end of a stream", deadline, || thread.is_finished().then_some(()));
        }
    }
}

/// A program that was started. Dropping it ends it, with its whole process group.
#[derive(Debug)]
pub struct Running {
    program: String,
    child: Child,
    stdout: Stream,
    stderr: Stream,
    ended: Option<ExitStatus>,
}

impl Running {
    /// Its process id by the machine's numbers; the stage's own are others. `None` when it has ended.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        // Our child is the tool that entered the stage; the program is its only child.
        child_of(self.child.id())
    }

    /// What it wrote to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it wrote to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Whether it has not ended yet.
    pub fn alive(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended.is_none()
    }

    /// Sends a signal to the program, not to its children.
    ///
    /// # Errors
    ///
    /// It has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        let id = until("the program to be there", Deadline::seconds(10), || {
            self.id().or_else(|| (!self.alive()).then_some(0))
        })?;
        let id = i32::try_from(id).context("process id")?;
        let id = Pid::from_raw(id).with_context(|| format!("{} has ended already", self.program))?;
        rustix::process::kill_process(id, signal).with_context(|| format!("signal {}", self.program))
    }

    /// Kills it, without a chance to say anything, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// It could not be waited for.
    pub fn kill(mut self) -> Result<Finished> {
        let _ = self.signal(Signal::KILL);
        self.finish(Deadline::seconds(30))
    }

    /// Asks it to stop and waits for its end.
    ///
    /// # Errors
    ///
    /// It did not end in time.
    pub fn stop(mut self) -> Result<Finished> {
        let _ = self.signal(Signal::TERM);
        self.finish(Deadline::seconds(30))
    }

    /// Waits until its standard output holds `text`.
    ///
    /// # Errors
    ///
    /// It ended, or the deadline passed; the message holds what it said.
    pub fn says(&mut self, text: &str, deadline: Deadline) -> Result<()> {
        loop {
            let alive = self.alive();
            if !alive {
                self.stdout.settle();
            }
            if self.stdout().contains(text) {
                return Ok(());
            }
            if !alive || deadline.passed() {
                bail!("{} did not say `{text}`\nstdout: {}\nstderr: {}", self.program, self.stdout(), self.stderr());
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// The deadline passed; it is then killed, and the message holds what it said.
    pub fn finish(mut self, deadline: Deadline) -> Result<Finished> {
        while self.alive() {
            if deadline.passed() {
                self.end();
                bail!("{} did not end in time\nstdout: {}\nstderr: {}", self.program, self.stdout(), self.stderr());
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        self.stdout.settle();
        self.stderr.settle();
        let status = self.ended.context("ended")?;
        Ok(Finished {
            program: self.program.clone(),
            code: status.code(),
            signal: status.signal(),
            stdout: self.stdout(),
            stderr: self.stderr(),
        })
    }

    fn end(&mut self) {
        if self.alive()
            && let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            // The program and what it started in its group; the tool that entered the stage is of the same group.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
            self.ended = self.child.wait().ok();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A program that ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The program, as it was named.
    pub program: String,
    /// Exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Insists that it ended with exit code 0.
    ///
    /// # Errors
    ///
    /// It did not; the message holds what it said.
    pub fn well(self) -> Result<Self> {
        if self.code == Some(0) {
            return Ok(self);
        }
        bail!("{self}");
    }

    /// Standard output as one JSON value.
    ///
    /// # Errors
    ///
    /// It is not one.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("{self}"))
    }

    /// Standard output as one JSON value per line.
    ///
    /// # Errors
    ///
    /// A line is not JSON.
    pub fn json_lines(&self) -> Result<Vec<serde_json::Value>> {
        self.stdout
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| serde_json::from_str(line).with_context(|| format!("line `{line}` of {self}")))
            .collect()
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} ended with code {:?}, signal {:?}\nstdout: {}\nstderr: {}",
            self.program, self.code, self.signal, self.stdout, self.stderr
        )
    }
}
