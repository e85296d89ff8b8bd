//! Runs in cages, as `creel run` and the daemon speak about them on `control.sock`.
//!
//! The order is: `RunStart` (the daemon makes the plan and opens the run's hook socket) → the launcher builds the cage,
//! probes it and holds the command back → `RunGo` (the daemon looks from outside, signs, records) → the command is
//! executed → `RunEvents` as they come → `RunEnd`. After a restart of the daemon the supervisor presents its signed
//! statement with `RunResume`, and the run goes on.
//!
//! Connections are few (a daemon admits 32 per account): the supervisor keeps none open between requests, and tries a
//! connection that is closed unanswered again. The one thing a newcomer gets wrong: nothing that the supervisor says
//! makes a control *proved* that the daemon sees not to hold; the launcher's word and the look from outside must agree.

use creel_model::cage::{CageEvent, CagePlan, Control, WorkspaceMode};
use creel_model::{Digest, ProcessKey, RunId};
use serde::{Deserialize, Serialize};

use super::DiagnosticView;

/// Most events in one [`RunEvents`]; more are sent in the next one.
pub const EVENTS_MAX: usize = 256;
/// Most controls in one statement.
pub const CONTROLS_MAX: usize = 64;
/// Most words of a command in [`RunStart`].
pub const COMMAND_WORDS_MAX: usize = 64;

/// Begins a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStart {
    /// Name of a profile of the bundle; absent: the one that is the default for the kind, else `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Catalog kind; absent: found out from `program` by the catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Absolute path of the workspace, symbolic links resolved.
    pub workspace: String,
    /// The common folder of the repository that the workspace is a worktree of, where it lies outside the workspace and
    /// says itself that it has this worktree. Granted like the workspace, unless a line of the plan speaks of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The executable file that will be started: absolute, symbolic links resolved.
    pub program: String,
    /// The path by which it was found, where that is another one (`~/.local/bin/claude`): both are granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_as: Option<String>,
    /// The command for the record: the program's name and the *names* of its options. Arguments that are not options
    /// are left out by the launcher, because prompts stand there.
    #[serde(default)]
    pub command: Vec<String>,
    /// How writes reach the disk.
    pub mode: WorkspaceMode,
    /// Learn instead of refusing.
    #[serde(default)]
    pub learn: bool,
    /// Stop the run after so many seconds; the profile's own limit stays where it is shorter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// What the launcher is to build. The answer to [`RunStart`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPlan {
    /// The plan. The hook program is granted in it; `hook` is not.
    pub plan: CagePlan,
    /// The run's hook socket.
    pub hook: HookFolder,
    /// What the plan does not hold, or narrows, and why; for the person and the statement. At most 64.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A folder that holds `hook.sock` and nothing else, bound read-only into the cage *as a folder*: a daemon that restarts
/// puts a new socket into it, and a bound socket file would stay the dead one. Connecting to `hook.sock` in it is always
/// granted; its identity is the folder's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookFolder {
    /// Absolute path on the host: `<runtime>/runs/<beginning of the id>`.
    pub host: String,
    /// Absolute path in the cage: the daemon's runtime folder, where `creel-hook` looks.
    pub cage: String,
}

/// The cage is built and probed; the command waits. Sent on the connection of [`RunStart`], or on another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunGo {
    /// The run.
    pub run: RunId,
    /// Process 1 of the cage, in the host's numbering. It lives as long as the cage.
    pub init: ProcessKey,
    /// The process that waits to execute the command, in the host's numbering: filter, rules and namespaces are on.
    pub agent: ProcessKey,
    /// What was found out inside. At most [`CONTROLS_MAX`].
    pub controls: Vec<Control>,
}

/// What holds in a run: the enforcement statement (DESIGN §11). The answer to [`RunGo`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStatement {
    /// What is stated.
    pub statement: Statement,
    /// [`Statement`] as JSON on one line, signed as a note by the device key; [`Statement`] is read from it.
    pub note: String,
}

/// The content of a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The run.
    pub run: RunId,
    /// Account.
    pub uid: u32,
    /// Catalog kind; absent for any other program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Profile.
    pub profile: String,
    /// Workspace.
    pub workspace: String,
    /// Digest of the bundle.
    pub bundle: Digest,
    /// SHA-256 of the plan as JSON.
    pub plan: Digest,
    /// The executable, and its device, inode, change time and size: another version is another statement.
    pub program: String,
    /// Identity of that file, opaque; empty where the daemon could not see it.
    #[serde(default)]
    pub program_identity: String,
    /// Kernel release.
    pub kernel: String,
    /// This boot.
    pub boot_id: String,
    /// Process 1 of the cage.
    pub init: ProcessKey,
    /// The controls, with what was seen from outside.
    pub controls: Vec<Control>,
    /// The plan's own notes.
    #[serde(default)]
    pub notes: Vec<String>,
    /// When it was made.
    pub issued_unix_ns: i64,
    /// It says nothing any more after that (24 hours).
    pub expires_unix_ns: i64,
}

/// What was noticed in a run since the last time. Answered with `Done`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEvents {
    /// The run.
    pub run: RunId,
    /// In order. At most [`EVENTS_MAX`].
    pub events: Vec<CageEvent>,
    /// Events that the supervisor had to drop since the last time.
    #[serde(default)]
    pub lost: u64,
}

/// The cage is empty. Answered with `Done`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnd {
    /// The run.
    pub run: RunId,
    /// How the command ended.
    pub exit: RunExit,
    /// Processor time of everything in it, in milliseconds.
    #[serde(default)]
    pub cpu_ms: u64,
    /// Most memory at once, in bytes, where it was counted.
    #[serde(default)]
    pub memory_bytes: u64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunExit {
    /// The command ended with this code.
    Code(u8),
    /// By this signal.
    Signal(u8),
    /// It never began, or a part of the cage failed: why.
    Failed(String),
    /// A person or a limit stopped it: why.
    Stopped(String),
}

/// Takes a run up again with a daemon that was restarted. Answer: [`RunPlan`]'s `hook` as `Answer::RunResumed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunResume {
    /// [`RunStatement::note`], as it was received.
    pub note: String,
}

/// A run, for a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CageRunView {
    /// Its id.
    pub run: RunId,
    /// How it stands: `building`, `running`, `ended`.
    pub state: String,
    /// Account.
    pub uid: u32,
    /// Its login name.
    pub account: String,
    /// Catalog kind.
    #[serde(default)]
    pub kind: Option<String>,
    /// Profile.
    pub profile: String,
    /// Workspace.
    pub workspace: String,
    /// The command without its arguments.
    #[serde(default)]
    pub command: Vec<String>,
    /// The supervisor, in the host's numbering.
    #[serde(default)]
    pub supervisor: Option<ProcessKey>,
    /// Process 1 of the cage, in the host's numbering, once it is there.
    #[serde(default)]
    pub init: Option<ProcessKey>,
    /// When it was asked for.
    pub started_unix_ns: i64,
    /// When it ended.
    #[serde(default)]
    pub ended_unix_ns: Option<i64>,
    /// How it ended.
    #[serde(default)]
    pub exit: Option<RunExit>,
    /// Programs started.
    #[serde(default)]
    pub executed: u64,
    /// Refusals.
    #[serde(default)]
    pub refused: u64,
    /// The statement, in [`Request::RunShow`](super::Request::RunShow) only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<Box<RunStatement>>,
    /// Why the statement says nothing any more; empty while it holds.
    #[serde(default)]
    pub expired: String,
}

/// A profile for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileView {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub about: String,
    /// The profile it adds to.
    #[serde(default)]
    pub extends: Option<String>,
    /// The kinds it is the default for.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// The plan it makes for the asker, where a workspace was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Box<CagePlan>>,
    /// What that plan does not hold, or narrows, and why.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What a check of profiles found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileCheck {
    /// The profiles, where there are no faults.
    pub profiles: Vec<ProfileView>,
    /// The faults of the bundle, profiles included.
    pub diagnostics: Vec<DiagnosticView>,
}
