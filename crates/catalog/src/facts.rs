//! What the edge saw on the machine, as plain values: processes, installed files, configuration texts.

use std::collections::BTreeMap;

use creel_model::ProcessKey;
use serde::{Deserialize, Serialize};

/// What is known about one process. Everything but `key`, `ppid` and `uid` is what the process or its owner says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFacts {
    /// Pid with start time.
    pub key: ProcessKey,
    /// The parent's pid at the moment of looking; 0 for none.
    pub ppid: u32,
    /// Effective user id.
    pub uid: u32,
    /// The executable's path as the kernel gives it, without a ` (deleted)` ending; empty where it could not be read
    /// (another account's process, a kernel thread).
    #[serde(default)]
    pub exe: String,
    /// The executable's file is gone or was replaced since the start, as after an update.
    #[serde(default)]
    pub exe_deleted: bool,
    /// The arguments, program first; bounded by the edge (64 KiB, 512 arguments), lossy where not UTF-8.
    #[serde(default)]
    pub argv: Vec<String>,
    /// The thread name (`/proc/PID/comm`), at most 15 bytes.
    #[serde(default)]
    pub comm: String,
    /// The working folder; empty where it could not be read.
    #[serde(default)]
    pub cwd: String,
    /// The script that an interpreter runs, absolute and with symbolic links resolved, where the edge looked it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// Catalogued environment variables only, as they stood at the start of the process.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// Inode numbers of its namespaces by name (`mnt`, `net`, `pid`, `user` …), where they could be read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<String, u64>,
    /// What it has, beside its account, by which it can stop creel outside a cage: `CAP_SYS_ADMIN`, `group docker`. Only
    /// where the edge looked it up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub powers: Vec<String>,
    /// Which file it executes, for the identity cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<FileFacts>,
}

impl ProcessFacts {
    /// Facts with nothing but what every process has.
    #[must_use]
    pub const fn bare(key: ProcessKey, ppid: u32, uid: u32) -> Self {
        Self {
            key,
            ppid,
            uid,
            exe: String::new(),
            exe_deleted: false,
            argv: Vec::new(),
            comm: String::new(),
            cwd: String::new(),
            script: None,
            variables: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            powers: Vec::new(),
            identity: None,
        }
    }
}

/// Which file it is and in which state: enough to notice every change of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileFacts {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Last change of the inode, in nanoseconds since 1970.
    pub ctime_ns: i64,
    /// Size in bytes.
    pub size: u64,
}

/// One place where an agent is installed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Installation {
    /// The program or package folder, absolute on the looked-at machine.
    pub path: String,
    /// The version from the package's own description; `None` where there is none. Never from running the program.
    pub version: Option<String>,
}

/// What reading a configuration file gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// Its text.
    Text(String),
    /// It exists and could not be read: why, in a few words.
    Unreadable(String),
    /// It is larger than the bound; its size in bytes.
    TooLarge(u64),
    /// It is no regular file: what it is instead (`symlink`, `fifo`, `device`, `socket`, `folder`).
    NotAFile(String),
    /// Its bytes are not UTF-8.
    NotText,
}

/// One configuration file that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFile {
    /// The id of its place in the kind's catalog entry.
    pub place: String,
    /// Where it is.
    pub path: String,
    /// The project folder it belongs to, for places of scope `project` and `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Owner's user id.
    pub owner: u32,
    /// Owning group id.
    pub group: u32,
    /// Permission bits (the low twelve).
    pub mode: u32,
    /// What is in it.
    pub content: Content,
}
