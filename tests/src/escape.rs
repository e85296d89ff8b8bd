//! What `creel-escape` said: one line of JSON per case, and the rest of the machine that it plays.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::account::Account;
use crate::await_it::Deadline;
use crate::run::{Finished, Run, Running};
use crate::stage::Stage;

/// The program on a stage.
pub const ESCAPE: &str = "/usr/bin/creel-escape";

/// Sockets of services that hold power or secrets; on the stage they are played by the host.
const SERVICES: &[&str] = &[
    "/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
    "/run/libvirt/libvirt-sock",
    "/run/systemd/private",
    "/run/dbus/system_bus_socket",
    "/run/user/61000/bus",
    "/run/user/61000/keyring/control",
    "/run/user/61000/gvfsd/socket-x",
    "/run/user/61000/systemd/private",
    "/run/user/61000/gnupg/S.gpg-agent",
    "/run/user/61000/wayland-0",
    "/run/user/61000/pulse/native",
    "/run/user/61000/ssh-agent.socket",
    "/tmp/.X11-unix/X0",
    "/tmp/ssh-x/agent.1",
];

/// A workspace with everything that the cases need, and the host beside it.
pub struct Scene<'stage> {
    stage: &'stage Stage,
    /// The workspace.
    pub workspace: String,
    host: Option<Running>,
}

/// One attempt of a case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt {
    /// The case, for example `F5`.
    pub case: String,
    /// What was tried.
    pub name: String,
    /// `reached`, `held` or `untried`.
    pub outcome: String,
    /// What came back.
    pub said: String,
}

impl<'stage> Scene<'stage> {
    /// Makes home and workspace as the person, and starts the host. `extra` are lines for the facts.
    ///
    /// # Errors
    ///
    /// The program is missing, or something could not be made.
    pub fn set(stage: &'stage Stage, workspace: &str, extra: &str) -> Result<Self> {
        let account = Account::USER;
        for folder in ["/run/docker", "/run/podman", "/run/containerd", "/run/libvirt", "/run/systemd", "/run/dbus"] {
            stage.run(Account::ROOT, "install").arguments(["-d", "-m", "1777", folder]).finish(30)?.well()?;
        }
        stage.run(Account::ROOT, "chmod").arguments(["1777", "/run"]).finish(30)?.well()?;
        let prepared = ["prepare", account.home, workspace];
        stage.run(account, ESCAPE).arguments(prepared).finish(60)?.well()?;
        stage.write(account, &format!("{workspace}/.escape-extra"), extra)?;
        let mut host = stage
            .run(account, ESCAPE)
            .arguments(["host", account.home, workspace])
            .arguments(SERVICES.iter().copied())
            .start()?;
        host.says("ready", Deadline::seconds(30))?;
        Ok(Self { stage, workspace: workspace.to_owned(), host: Some(host) })
    }

    /// The facts' path.
    #[must_use]
    pub fn facts(&self) -> String {
        format!("{}/.escape-facts", self.workspace)
    }

    /// A fact.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn fact(&self, key: &str) -> Result<String> {
        let text = self.stage.read(&self.facts())?;
        let key = format!("{key}=");
        text.lines().find_map(|line| line.strip_prefix(&key)).map(str::to_owned).context(key)
    }

    /// The facts for another workspace, written into it with further lines; its path.
    ///
    /// # Errors
    ///
    /// They could not be written.
    pub fn facts_for(&self, workspace: &str, extra: &str) -> Result<String> {
        let text = self.stage.read(&self.facts())?;
        let own = format!("workspace={}\n", self.workspace);
        let text = text.replacen(&own, &format!("workspace={workspace}\n"), 1) + extra;
        let path = format!("{workspace}/.escape-facts");
        self.stage.write(Account::USER, &path, text)?;
        Ok(path)
    }

    /// The attempt at these cases, run bare.
    pub fn bare(&self, cases: &[&str]) -> Run<'stage> {
        self.stage
            .run(Account::USER, ESCAPE)
            .arguments(["try", &self.facts()])
            .arguments(cases.iter().copied())
            .folder(&self.workspace)
    }

    /// The host's process, so that a test can end it.
    pub fn host(&mut self) -> Option<&mut Running> {
        self.host.as_mut()
    }
}

/// Every attempt that the program told of.
///
/// # Errors
///
/// It said something else, or not every case was tried.
pub fn attempts(finished: &Finished, cases: &[&str]) -> Result<Vec<Attempt>> {
    let mut attempts = Vec::new();
    let mut seen = BTreeSet::new();
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    // A terminal and a supervisor may say something beside it: only lines that are the program's count.
    for line in finished.stdout.lines().filter_map(|line| line.find("{\"case\"").and_then(|at| line.get(at..))) {
        let report: Value = serde_json::from_str(line.trim()).with_context(|| line.to_owned())?;
        let case = text(&report, "case");
        let tried = report.get("attempts").and_then(Value::as_array).with_context(|| line.to_owned())?;
        ensure!(!tried.is_empty(), "{case} tried nothing: {finished}");
        for attempt in tried {
            attempts.push(Attempt {
                case: case.clone(),
                name: text(attempt, "name"),
                outcome: text(attempt, "outcome"),
                said: text(attempt, "said"),
            });
        }
        seen.insert(case);
    }
    for case in cases {
        ensure!(seen.contains(*case), "{case} was not tried: {finished}");
    }
    Ok(attempts)
}
