//! The plan of a cage: everything that a run may reach, compiled from a profile and the bundle's floor.
//!
//! The daemon makes a plan, the launcher carries it out and nothing is added to it on the way. Paths are absolute texts
//! without `.` or `..`; `~` and the like are already expanded. What is not granted does not exist in the cage.
//! The one fact a newcomer gets wrong: a plan that the host cannot hold is *refused*; it is only carried out weaker
//! where [`CagePlan::degrade`] says [`Degrade::Declare`], and then the statement names what is missing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::{Digest, RunId};
use crate::word::words;

/// Version of the plan's format.
pub const CAGE_PLAN_VERSION: u32 = 1;

words! {
    /// What may be done with files below a path. Each includes the one before it.
    pub enum FileAccess {
        /// Nothing: the path does not exist in the cage, or an empty thing stands in its place.
        Deny = "deny",
        /// Read and list; no execution of what lies there.
        Read = "read",
        /// Read, and execute programs that lie there.
        Execute = "execute",
        /// Read, execute, create, change and delete.
        Write = "write",
    }
}

words! {
    /// What to do when the host cannot hold a line of the plan.
    pub enum Degrade {
        /// Do not start.
        Refuse = "refuse",
        /// Start, and name in the statement what does not hold.
        Declare = "declare",
    }
}

words! {
    /// How the agent's writes in the workspace reach the disk.
    pub enum WorkspaceMode {
        /// At once, on the real files.
        Direct = "direct",
        /// Into a copy-on-write layer that a person commits or discards.
        Review = "review",
    }
}

words! {
    /// Which kind of thing a seal protects.
    pub enum SealKind {
        /// A directory and all below it: nothing is created, changed or deleted there.
        Directory = "directory",
        /// A file: not created, not changed, not replaced, not deleted.
        File = "file",
        /// A git configuration: rewritten only where the change touches nothing that executes.
        GitConfig = "git-config",
    }
}

/// One grant or refusal of files. The longest path that is a prefix of the object counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRule {
    /// Absolute path of a file or directory on the host; it has the same path in the cage.
    pub path: String,
    /// What may be done at and below it.
    pub access: FileAccess,
    /// A grant whose path is missing on this machine is left out instead of refused.
    #[serde(default)]
    pub optional: bool,
    /// A *file* that does not exist is written with this text on the host before the cage is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<String>,
    /// A *folder* that does not exist is made on the host, for this account only, before the cage is built.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub make: bool,
    /// Which line of which file this came from, for `creel why` and `creel profile show`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
}

/// A name that is sealed wherever it appears in a writable part of the cage that lives on the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seal {
    /// The last components of a path, for example `[".git", "hooks"]`; a component may hold `*` for any characters.
    pub components: Vec<String>,
    /// What it protects.
    pub kind: SealKind,
    /// The rule of the bundle (or `floor`) that this seal carries out, for messages and records.
    pub rule: String,
    /// Absolute path of a folder: the seal holds only below it, and all its components must be below it. A writable
    /// folder that is granted by name (`~/.codex`) is never sealed by its own name. Absent: everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<String>,
}

/// Where the cage may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CageNetwork {
    /// TCP ports of the host's 127.0.0.1 that the cage reaches as its own 127.0.0.1, by a forwarder. Empty: no network.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub host_loopback_ports: BTreeSet<u16>,
}

/// A unix socket of the host that the cage may connect to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketGrant {
    /// Absolute path on the host.
    pub host: String,
    /// Absolute path in the cage.
    pub cage: String,
}

/// How the cage's environment is built; nothing else of the caller's is passed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CageEnvironment {
    /// Names taken from the caller; a trailing `*` stands for any ending.
    #[serde(default)]
    pub pass: Vec<String>,
    /// Names with fixed values; stronger than `pass`.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
}

/// Limits of the whole cage unless said otherwise; absent means that creel sets none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CageLimits {
    /// Processes and threads at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Memory in bytes: of the whole cage with a delegated control group, else of each process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Open descriptors of each process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Largest file that may be written, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// Bytes that the cage's private `/tmp` and `/dev/shm` may hold together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temporary_bytes: Option<u64>,
    /// Seconds from start until the whole cage is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// Everything that a run may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CagePlan {
    /// [`CAGE_PLAN_VERSION`].
    pub version: u32,
    /// The run this plan is for.
    pub run: RunId,
    /// Name of the profile.
    pub profile: String,
    /// Catalog kind of the agent; absent for any other program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Digest of the bundle that the plan was made from.
    pub bundle: Digest,
    /// Absolute path of the workspace.
    pub workspace: String,
    /// How writes in it reach the disk.
    pub mode: WorkspaceMode,
    /// Files.
    pub files: Vec<FileRule>,
    /// Sealed names.
    pub seals: Vec<Seal>,
    /// Programs that may be started, as absolute paths of files or directories; empty: every program in reach of
    /// [`FileAccess::Execute`] or [`FileAccess::Write`].
    #[serde(default)]
    pub programs: Vec<String>,
    /// Network.
    #[serde(default)]
    pub network: CageNetwork,
    /// Unix sockets of the host.
    #[serde(default)]
    pub sockets: Vec<SocketGrant>,
    /// Environment.
    #[serde(default)]
    pub environment: CageEnvironment,
    /// Limits.
    #[serde(default)]
    pub limits: CageLimits,
    /// What to do when the host cannot hold all of it.
    pub degrade: Degrade,
    /// Record what is used instead of refusing what is not granted; only seals and `deny` lines hold.
    #[serde(default)]
    pub learn: bool,
}

words! {
    /// How sure a control of a run is (DESIGN §11).
    pub enum Standing {
        /// A probe tried the forbidden thing in the finished cage and failed, and the daemon saw it from outside where it can.
        Proved = "proved",
        /// It is set up, and nothing tried it.
        Configured = "configured",
        /// It is missing and the profile accepts that.
        Declared = "declared",
        /// It should hold and does not.
        NotHeld = "not held",
    }
}

/// One control of a run, with the mechanism that holds it and what showed that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// Stable id, for example `files.outside`, `seals.directories`, `kernel.namespaces`.
    pub id: String,
    /// What it promises, in plain words.
    pub promise: String,
    /// What holds it, for example `mount namespace, Landlock ABI 7`.
    pub mechanism: String,
    /// How sure it is.
    pub standing: Standing,
    /// What was tried and what came back, or why nothing was tried.
    pub evidence: String,
}

words! {
    /// What was noticed in a cage.
    pub enum CageEventKind {
        /// A program was started; attribution of the program's path is `declared`, not a decision.
        Exec = "exec",
        /// The cage's own rules refused something.
        Refused = "refused",
        /// A seal was put on something that appeared.
        Sealed = "sealed",
        /// A limit was reached.
        Limit = "limit",
        /// A file changed: digests before and after.
        Changed = "changed",
        /// In learning: something was needed.
        Needed = "needed",
        /// A helper of the cage failed; the cage was stopped.
        Fault = "fault",
    }
}

/// One thing noticed in a cage. Texts are bounded by the supervisor to 4 KiB each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CageEvent {
    /// What.
    pub kind: CageEventKind,
    /// When, nanoseconds since 1970.
    pub at_unix_ns: i64,
    /// Process in the cage's own numbering; 0 where there is none.
    pub pid: u32,
    /// The program of that process, as an absolute path in the cage; empty where unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub program: String,
    /// What was called, for example `openat`, `rename`, `connect`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub call: String,
    /// The object, normally a path in the cage.
    pub object: String,
    /// The rule or plan line that decided, for example `write-exec-bearing`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rule: String,
    /// In plain words, for `creel why`; lower case, no full stop.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The one-line fix, for a person; empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fix: String,
    /// How many equal events this one stands for, at least 1.
    pub times: u64,
    /// At [`CageEventKind::Changed`]: SHA-256 of the file's content before the run; absent where there was no file or
    /// its content was not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Digest>,
    /// At [`CageEventKind::Changed`]: SHA-256 of the content after the run; absent where there is no file any more or it
    /// was not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Digest>,
}

impl CageEvent {
    /// Something of that kind, at that time (nanoseconds since 1970), about that object; all else empty, `times` 1.
    #[must_use]
    pub fn new(kind: CageEventKind, at_unix_ns: i64, object: impl Into<String>) -> Self {
        Self {
            kind,
            at_unix_ns,
            pid: 0,
            program: String::new(),
            call: String::new(),
            object: object.into(),
            rule: String::new(),
            reason: String::new(),
            fix: String::new(),
            times: 1,
            before: None,
            after: None,
        }
    }
}
