//! Everything that only root may do, as one enum; served in process where creel runs under the agent's own account.
//!
//! A request names things by the catalog (kind, place) or by account; a path that a request brings along is looked at
//! with that account's rights and never written. The root side parses nothing but the frame. The one thing a newcomer
//! gets wrong: this is no file server with checks, it is a short list of deeds, and each carries its own limit.

mod frame;
mod managed;
mod serve;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;

use creel_catalog::{ConfigFile, ProcessFacts};
use creel_model::{Account, Digest, ProcessKey};
use serde::{Deserialize, Serialize};

use crate::collect::Collected;
use crate::look::Looked;

pub use frame::{FRAME_BYTES_MAX, FrameError};
pub use serve::{Policy, serve};

/// What the root side can be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// A process and its ancestors, nearest first, at most 64.
    IdentifyPeer {
        /// Process id.
        pid: u32,
    },
    /// One process.
    ProcessFacts {
        /// Process id.
        pid: u32,
    },
    /// All processes of this machine that are agents of the catalog.
    AgentProcesses,
    /// Catalogued variables of a process; other names are left out, secrets only as set or not.
    ReadVariables {
        /// Which process.
        process: ProcessKey,
        /// Names.
        names: BTreeSet<String>,
    },
    /// The digest of what a process executes.
    DigestExecutable {
        /// Which process.
        process: ProcessKey,
        /// Which file it is known to be.
        file: creel_catalog::FileFacts,
    },
    /// The accounts of this machine.
    Accounts,
    /// Everything of every kind that lies around for one account, with that account's rights.
    Collect {
        /// User id.
        account: u32,
    },
    /// One catalogued configuration file. Administrators' ones are read as root, others with the account's rights.
    OpenCatalogued {
        /// User id.
        account: u32,
        /// The kind's id.
        kind: String,
        /// The place's id.
        place: String,
        /// The file's name where the place is a folder.
        #[serde(default)]
        file: Option<String>,
    },
    /// One catalogued configuration file of a project, with the account's rights.
    OpenInProject {
        /// User id.
        account: u32,
        /// The project's folder, absolute.
        project: String,
        /// The kind's id.
        kind: String,
        /// The place's id.
        place: String,
        /// The file's name where the place is a folder.
        #[serde(default)]
        file: Option<String>,
    },
    /// What paths mean, with the account's rights; see [`crate::look`].
    ResolvePaths {
        /// User id.
        account: u32,
        /// Absolute paths, at most 64.
        paths: Vec<String>,
        /// Those to be digested.
        #[serde(default)]
        scripts: BTreeSet<String>,
    },
    /// The digest of one file, as the account may read it.
    DigestFile {
        /// User id.
        account: u32,
        /// Absolute path.
        path: String,
    },
    /// What a managed place holds now, and what creel would restore.
    ReadManaged {
        /// Which file.
        target: Target,
    },
    /// Writes a managed file, keeping what was there for an exact undo.
    WriteManaged {
        /// Which file.
        target: Target,
        /// Its new text, at most 1 MiB.
        text: String,
        /// The digest of the text that is there now; `None`: nothing may be there. Else it is refused as changed.
        expected: Option<Digest>,
        /// What an undo shall put back instead of what is kept: the text without creel's part, where somebody changed
        /// the file after creel. `None`: what stood there before creel's first write.
        #[serde(default)]
        before: Option<String>,
        /// It is creel's last word: nothing is kept for an undo any more.
        #[serde(default)]
        forget: bool,
    },
    /// Puts back what was there before creel wrote; refused as changed where somebody wrote after creel.
    RemoveManaged {
        /// Which file.
        target: Target,
    },
}

/// A file that creel may write: a place that the catalog declares as writable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The kind's id.
    pub kind: String,
    /// The place's id.
    pub place: String,
    /// The file's name where the place is a folder.
    #[serde(default)]
    pub file: Option<String>,
    /// The account, for places in a home folder.
    #[serde(default)]
    pub account: Option<u32>,
}

/// What the root side answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "value", rename_all = "kebab-case")]
pub enum Answer {
    /// Processes, nearest first.
    Processes(Vec<ProcessFacts>),
    /// One process, if it is there.
    Process(Option<ProcessFacts>),
    /// Agents' processes: kind and facts.
    Agents(Vec<(String, ProcessFacts)>),
    /// Variables by name.
    Variables(BTreeMap<String, String>),
    /// A digest, if it could be computed.
    Digest(Option<Digest>),
    /// Accounts.
    Accounts(Vec<Account>),
    /// What lies around.
    Collected(Collected),
    /// A configuration file, if it is there.
    File(Option<ConfigFile>),
    /// What paths mean.
    Paths(BTreeMap<String, Looked>),
    /// A managed file.
    Managed(Managed),
    /// Done; the digest of what is there now, `None` where nothing is.
    Done(Option<Digest>),
    /// Not done.
    Refused(Refusal),
}

/// A managed file as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Managed {
    /// Where it is.
    pub path: String,
    /// Its text; `None` where nothing is there.
    pub text: Option<String>,
    /// The text's digest.
    pub digest: Option<Digest>,
    /// creel wrote it, and keeps what was there before.
    pub undo: Option<Undo>,
}

/// What creel keeps for an exact undo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo {
    /// What was there before; `None`: nothing.
    pub before: Option<String>,
    /// Its permission bits and owner.
    pub mode: u32,
    /// Owner's user id.
    pub owner: u32,
    /// Group id.
    pub group: u32,
    /// Folders that creel made for it, outermost first.
    pub folders_made: Vec<String>,
    /// The digest of what creel wrote last.
    pub written: Digest,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "because", content = "detail", rename_all = "kebab-case")]
pub enum Refusal {
    /// The catalog does not know it, or it is not declared as writable.
    NotCatalogued(String),
    /// Somebody changed the file since: what is there has another digest (`None`: nothing is there).
    Changed(Option<Digest>),
    /// creel did not write it, so there is nothing to undo.
    NotOurs,
    /// A symbolic link or something else that is no regular file stands there.
    NotAFile(String),
    /// Outside a bound: which.
    TooMuch(String),
    /// The asker may not ask.
    NotAllowed(String),
    /// The machine did not do it: what it said.
    Failed(String),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::NotCatalogued(what) => write!(f, "`{what}` is not in the catalog"),
            Refusal::Changed(_) => f.write_str("the file was changed by somebody else meanwhile"),
            Refusal::NotOurs => f.write_str("the file was not written by creel"),
            Refusal::NotAFile(what) => write!(f, "a {what} stands where a regular file belongs"),
            Refusal::TooMuch(what) => write!(f, "too much: {what}"),
            Refusal::NotAllowed(what) => write!(f, "not allowed: {what}"),
            Refusal::Failed(what) => write!(f, "failed: {what}"),
        }
    }
}

/// Where root's deeds are done.
#[derive(Debug)]
pub enum Root {
    /// In this process, with this process' rights: user mode.
    Local(Box<Policy>),
    /// By `creeld --role=root` at the other end of a connection: system mode.
    Remote(UnixStream),
}

impl Root {
    /// In this process.
    #[must_use]
    pub fn local(policy: Policy) -> Self {
        Self::Local(Box::new(policy))
    }

    /// Asks. Over a connection it waits at most 30 seconds.
    ///
    /// # Errors
    /// The connection failed; it cannot be used again.
    pub fn ask(&mut self, request: &Request) -> Result<Answer, FrameError> {
        match self {
            Self::Local(policy) => Ok(policy.answer(request)),
            Self::Remote(stream) => {
                stream.set_read_timeout(Some(std::time::Duration::from_secs(30)))?;
                stream.set_write_timeout(Some(std::time::Duration::from_secs(30)))?;
                // A refused connection is closed by the other side, perhaps before this is sent: its answer is there.
                let sent = frame::send(stream, request);
                let answer = frame::receive(stream);
                sent.or_else(|error| if matches!(answer, Ok(Some(_))) { Ok(()) } else { Err(error) })?;
                answer?.ok_or(FrameError::Ended)
            }
        }
    }
}
