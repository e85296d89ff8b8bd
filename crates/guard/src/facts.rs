//! The facts of one action, as edges and pure analysers state them, before anything is decided.
//!
//! Nothing here decides. The one fact a newcomer gets wrong: [`Caller`] comes from the kernel (peer credentials and the
//! process tree), everything in [`Action`] comes from the agent and is only claimed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use creel_model::{
    Account, Action, ApprovalMode, CommandClass, Digest, Effect, Finding, Mode, Modification, Object, ProcessKey, RunId,
};

/// Most effects that one action may have; more make it an `ask` (rule `too-many-effects`).
pub const EFFECTS_MAX: usize = 64;

/// A run's key: a process for as long as this boot lasts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunKey {
    /// The machine's boot id (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// The root process of the run; of a cage, its supervisor.
    pub process: ProcessKey,
    /// The cage, whose id is then the run's: it was given before there was a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cage: Option<RunId>,
}

impl RunKey {
    /// The run's id: derived, so that the same process has the same id in every record and after every restart.
    #[must_use]
    pub fn id(&self) -> RunId {
        if let Some(cage) = &self.cage {
            return cage.clone();
        }
        let text = format!("creel.run/1\0{}\0{}\0{}", self.boot_id, self.process.pid, self.process.start_ticks);
        let digest = creel_seal::sha256(text.as_bytes());
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        RunId::from_random(bytes)
    }
}

/// Who asks, as the kernel showed it: the nearest catalogued agent above the hook process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The run.
    pub run: RunKey,
    /// The catalog kind that the process tree shows, for example `claude-code`.
    pub kind: String,
    /// The account that the agent runs as.
    pub account: Account,
    /// The folder that the agent works in, absolute: where its root process stands, not what the payload claims.
    pub workspace: Option<String>,
    /// Folders for scratch files on this machine, absolute, for the zone `temporary`.
    pub temporary: Vec<String>,
    /// How the agent approves its own actions, from its process and settings.
    pub approval_mode: ApprovalMode,
    /// Whether protection was installed for it.
    pub managed: bool,
    /// User mode or system mode.
    pub mode: Mode,
    /// Whether a person sits at it: it has a terminal and was not started for a single unattended task. Only then is
    /// its own question used.
    pub interactive: bool,
    /// Whether it runs in a cage that was proved.
    pub caged: bool,
    /// Tier of the device, for rules; empty where none is set.
    pub tier: String,
    /// The next catalogued agent above this one, where there is one: its labels are inherited.
    pub parent: Option<RunKey>,
}

/// What an action does, from its own text alone. Made by [`crate::understand`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts {
    /// Effects, at most [`EFFECTS_MAX`].
    pub effects: Vec<Effect>,
    /// There were more effects than are kept: the action becomes an `ask`.
    pub overflow: bool,
    /// Everything was understood.
    pub parsed: bool,
    /// Something runs that was not understood.
    pub opaque: bool,
    /// Classes of its commands.
    pub classes: BTreeSet<CommandClass>,
    /// What the command analysis noticed.
    pub findings: Vec<Finding>,
}

/// What the edge has to look up before [`crate::prepare`]. Both lists are sorted, without repetitions and bounded:
/// at most 128 paths and 16 digests; what is beyond stays unresolved and is judged as `dynamic`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Absolute paths whose symbolic links are to be followed, as the agent's account, without opening the last one.
    pub paths: Vec<String>,
    /// Absolute paths of scripts to be run and files to be sent, whose content is to be digested.
    pub digests: Vec<String>,
}

/// What one looked-up path turned out to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resolution {
    /// The path after symbolic links; of one that does not exist yet, its longest existing part resolved, the rest
    /// appended.
    Resolved(String),
    /// It could not be resolved (a loop, no permission, changed underneath): the effect counts as `dynamic`.
    Failed(String),
    /// It leads through a process' own view (`/proc/self/cwd`), which is another file for every process that opens it:
    /// what is done to which file cannot be told, and counts as a command that was not understood.
    OfProcess,
}

/// What the content of one file was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileDigest {
    /// Digest of its content.
    Content(Digest),
    /// There is no such file.
    Absent,
    /// Not a regular file, too large for the edge's limit, or not readable.
    Unknown,
}

/// What the edge found for a [`Wanted`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// By the path asked for.
    pub paths: BTreeMap<String, Resolution>,
    /// By the path asked for.
    pub digests: BTreeMap<String, FileDigest>,
}

/// A limit on work that the caller enforces, because pure code has no clock.
pub trait Budget {
    /// Whether the time or size that was granted is used up; asked between steps of the work.
    fn spent(&self) -> bool;
}

/// A budget without end, for tests, replay and inspection by hand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unlimited;

impl Budget for Unlimited {
    fn spent(&self) -> bool {
        false
    }
}

/// Something found in one of the action's texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// JSON pointer of the text, as in [`creel_model::Content::pointer`].
    pub pointer: String,
    /// What was found; its span counts in that text.
    pub finding: Finding,
}

/// Everything that is needed to decide on an action, except what only the state knows (labels, sink grades, approvals).
/// Made by [`crate::prepare`], which runs in parallel and stops when its budget is spent.
#[derive(Clone, Debug)]
pub enum Prepared {
    /// Ready to be judged.
    Ready(Box<Ready>),
    /// The budget was spent first: it will be denied with `overload`, never turned into a question.
    Overload(Box<Overloaded>),
}

/// A prepared action.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Who asks.
    pub caller: Caller,
    /// The action as translated.
    pub action: Action,
    /// Its effects with resolved objects, zones, origins and content classes; sink grades still absent.
    pub effects: Vec<Effect>,
    /// What it was understood as.
    pub parts: Parts,
    /// What was found in its texts.
    pub located: Vec<Located>,
    /// Classes of its content, for rules.
    pub content_classes: BTreeSet<String>,
    /// The texts that change when a rule redacts, ready to be applied.
    pub redactions: Vec<Modification>,
    /// The texts as they stand after those changes still contain findings of these classes.
    pub classes_after: BTreeSet<String>,
    /// Objects of `effects` without secrets, for records and people.
    pub shown: Vec<Object>,
    /// A redacted, bounded excerpt of the call by allow-list; empty for prompts and results.
    pub excerpt: String,
    /// Digests of the scripts it runs and the files it sends.
    pub files: BTreeMap<String, FileDigest>,
    /// Tokens of the objects that the user's prompt names literally (only at `prompt`), see `sink.rs`.
    pub named: BTreeSet<u64>,
    /// The bundle whose zones are in `effects`; when another is active by the time of the step, they are made anew.
    pub bundle: Digest,
    /// Size of the payload in bytes.
    pub payload_bytes: u64,
}

/// An action whose preparation was stopped.
#[derive(Clone, Debug)]
pub struct Overloaded {
    /// Who asks.
    pub caller: Caller,
    /// The action as translated.
    pub action: Action,
    /// Size of the payload in bytes.
    pub payload_bytes: u64,
}

impl Prepared {
    /// Who asks.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        match self {
            Prepared::Ready(ready) => &ready.caller,
            Prepared::Overload(over) => &over.caller,
        }
    }

    /// The action.
    #[must_use]
    pub fn action(&self) -> &Action {
        match self {
            Prepared::Ready(ready) => &ready.action,
            Prepared::Overload(over) => &over.action,
        }
    }
}
