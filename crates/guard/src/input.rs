//! What enters the guard and what comes out: the whole interface of the single-threaded half, as two enums.
//!
//! The one fact a newcomer gets wrong: an [`Answer::Pending`] is not an answer. The hook is held open by the edge, and
//! its decision arrives later in [`Output::released`] — also when nobody answers in time, then as a deny.

use std::sync::Arc;

use creel_model::record::Record;
use creel_model::{Decision, Effect, Moment, Point, RecordKind, Severity, Verdict};
use creel_policy::Bundle;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::facts::{Caller, Prepared, RunKey};

/// One thing that happened. Every decision and every record of creel comes from one of these.
#[derive(Clone, Debug)]
pub enum Input {
    /// An agent's event, prepared.
    Action(Box<Submission>),
    /// The same action prepared once more with the files of now, because [`Output::recheck`] asked for it.
    Recheck {
        /// The ticket that was asked for.
        ticket: u64,
        /// Prepared anew from the same action.
        prepared: Box<Prepared>,
    },
    /// The hook of a held action went away: nobody waits for that answer any more.
    Gone {
        /// Its ticket.
        ticket: u64,
    },
    /// An agent was seen to start.
    RunStarted(Box<Caller>),
    /// An agent's root process ended.
    RunEnded(RunKey),
    /// A human answered a question. The edge has made the presence test (DESIGN §10) before.
    Answer {
        /// Id of the approval.
        approval: String,
        /// Yes or no.
        response: Response,
        /// Who.
        approver: Approver,
    },
    /// A checked bundle becomes the active one.
    Activate {
        /// The bundle, with the modes that people set already put over it (`Bundle::set_modes`, which is slow and belongs
        /// off this thread).
        bundle: Arc<Bundle>,
        /// Why it is believed.
        trust: Trust,
        /// Who confirmed it, needed for a `local-unsigned` bundle that differs from the active one.
        confirmed_by: Option<Approver>,
    },
    /// A bundle did not load; the active one stays.
    BundleRefused {
        /// What the diagnostics say, bounded to 4 KiB in the record.
        why: String,
    },
    /// Modes of rules change.
    SetModes {
        /// The active bundle, loaded anew with the new modes put over it; another one is refused.
        bundle: Arc<Bundle>,
        /// Who.
        by: Approver,
    },
    /// Rules stop acting for a while. The edge has made sure that no agent is above the asker.
    OpenBreakGlass {
        /// How long, in seconds; at most [`BREAK_GLASS_SECONDS_MAX`], longer is cut.
        seconds: u64,
        /// Why; must not be empty.
        reason: String,
        /// Only for actions of this account; `None`: everybody's.
        uid: Option<u32>,
        /// Who.
        by: Approver,
    },
    /// Rules act again.
    EndBreakGlass {
        /// Who.
        by: Approver,
    },
    /// Time passes: holds end, approvals expire.
    Tick,
    /// A hook call without an agent above it: denied and alerted, never attributed by its payload.
    NoAgentAbove(Box<Unattributed>),
    /// A payload that is not understood: denied and recorded.
    Malformed(Box<Unattributed>),
    /// Work was refused before preparation (a full queue, too many callers): denied with `overload`.
    Overload(Box<Unattributed>),
    /// Something about creel itself that belongs in the journal.
    Note(Box<Note>),
    /// Something about a run in a cage that belongs in the journal: its plan, its statement, what was noticed in it.
    Cage(Box<CageNote>),
}

/// Longest break-glass, in seconds: eight hours.
pub const BREAK_GLASS_SECONDS_MAX: u64 = 8 * 3600;

/// A prepared action handed in for judgement.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The edge's number for the waiting hook; answers of held actions come back under it. Unique while held.
    pub ticket: u64,
    /// The action.
    pub prepared: Prepared,
    /// When its payload had arrived.
    pub received: Moment,
    /// How long the hook can still wait for a human, in nanoseconds; 0: not at all. The hold is the shorter of this
    /// and [`Limits::hold_ns`].
    pub wait_ns_max: u64,
}

/// A human's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// Once, exactly this.
    Approve,
    /// No; the same action is not asked about again while the refusal is fresh.
    Refuse,
}

/// Who answered, and how that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approver {
    /// Account.
    pub uid: u32,
    /// Login name.
    pub name: String,
    /// How presence was tested: `terminal-and-code`, `polkit`, `agent-ui`, `console` …
    pub means: String,
    /// Whether an authority other than the agent's own account checked it.
    pub verified: bool,
}

/// Why a bundle is believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// A signature by this key.
    Signed(String),
    /// Only root can write it.
    RootOwned,
    /// Part of the program itself.
    BuiltIn,
    /// Neither: user mode, shown.
    LocalUnsigned,
}

impl std::fmt::Display for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trust::Signed(key) => write!(f, "signed:{key}"),
            Trust::RootOwned => f.write_str("root-owned"),
            Trust::BuiltIn => f.write_str("built-in"),
            Trust::LocalUnsigned => f.write_str("local-unsigned"),
        }
    }
}

/// A call that could not be attributed, understood or taken on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unattributed {
    /// The kind that the hook was installed for, as its arguments say; cut to 64 bytes in records.
    pub kind: String,
    /// The event, as its arguments say; cut to 64 bytes in records.
    pub event: String,
    /// Why, for people: no payload text. Cut to 512 bytes.
    pub reason: String,
    /// Account of the peer.
    pub uid: u32,
    /// Process of the peer.
    pub pid: u32,
    /// The agent above, where one was found.
    pub caller: Option<Caller>,
    /// Size of the payload in bytes.
    pub payload_bytes: u64,
    /// When the payload had arrived, where one did.
    pub received: Moment,
}

/// A record about creel itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// What it tells; `daemon`, `protection`, `alert`, `policy`, `gap`, `erasure` or `event`.
    pub kind: RecordKind,
    /// A code, for example `daemon.started`.
    pub code: String,
    /// Owner account.
    pub owner: u32,
    /// Facts, without content of agents and without secrets: they go into the erasable detail.
    pub facts: Map<String, Value>,
}

/// A record about a run in a cage. What a cage refuses was decided when its plan was made; this writes down that it did.
#[derive(Clone, Debug, PartialEq)]
pub struct CageNote {
    /// The run; it is known from then on.
    pub caller: Caller,
    /// `event` for what happened in it, `protection` for what holds.
    pub kind: RecordKind,
    /// A code, for example `cage.refused`.
    pub code: String,
    /// `deny` for refusals.
    pub verdict: Option<Verdict>,
    /// Rules that refused, each once; at most 64.
    pub rules: Vec<String>,
    /// What was to happen; at most [`crate::EFFECTS_MAX`].
    pub effects: Vec<Effect>,
    /// Facts, without content of agents and without secrets: they go into the erasable detail.
    pub facts: Map<String, Value>,
}

/// What the guard wants done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Output {
    /// The answer to the input, where it waits for one.
    pub answer: Option<Answer>,
    /// To be appended in this order, before any answer is given.
    pub records: Vec<Record>,
    /// Held actions that are decided now, by ticket.
    pub released: Vec<(u64, Decision)>,
    /// Held actions whose approval was given: look their files up again, prepare again, hand in `Recheck`.
    pub recheck: Vec<u64>,
    /// What a person should see now.
    pub alerts: Vec<Alert>,
    /// Questions that were opened, to be shown to people.
    pub asked: Vec<ApprovalView>,
    /// Why the input itself was refused (an unknown approval, a bundle that goes back …), for whoever sent it.
    pub refused: Option<String>,
    /// Whether the records are worth waiting for on disk (approvals, policy, break-glass).
    pub sync: bool,
}

/// The answer to an action.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// It is decided.
    Final(Decision),
    /// A human is asked; the hook is held.
    Pending {
        /// Id of the approval.
        approval: String,
        /// Until when it is held, by the boot clock; hand in `Tick` then.
        deadline_boot_ns: u64,
    },
}

/// Something a person should look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// For example `alert.no-agent-above`.
    pub code: String,
    /// How bad.
    pub severity: Severity,
    /// One sentence.
    pub text: String,
    /// Owner account.
    pub owner: u32,
}

/// A question as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalView {
    /// Its id.
    pub id: String,
    /// `open`, `approved`, `refused`.
    pub state: String,
    /// Kind of the agent.
    pub kind: String,
    /// Account that owns it.
    pub owner: u32,
    /// Run.
    pub run: String,
    /// Conversation as claimed.
    pub conversation: String,
    /// Workspace.
    pub workspace: Option<String>,
    /// The agent's tool.
    pub tool: String,
    /// Where it was seen.
    pub point: Point,
    /// What would happen: one line per effect that a rule asks about, redacted, at most 16.
    pub effects: Vec<String>,
    /// The ask rules: id and reason.
    pub rules: Vec<(String, String)>,
    /// The worst of their severities.
    pub severity: Severity,
    /// Digest of the effects, short.
    pub digest: String,
    /// When it was asked, wall clock in nanoseconds.
    pub asked_unix_ns: i64,
    /// Whether a hook is still held for it.
    pub waiting: bool,
    /// When it ends by itself, boot clock in nanoseconds.
    pub expires_boot_ns: u64,
}

/// Limits of the guard; every one has a stated behaviour at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// How long a hook is held for a human, in nanoseconds (default 120 s). Then: deny with "retry after approval".
    pub hold_ns: u64,
    /// How long an unanswered question stays answerable, and an answer usable, in nanoseconds (default 10 min each).
    pub validity_ns: u64,
    /// Runs remembered (default 4096). Beyond: the one seen longest ago is forgotten; if it comes back, it starts
    /// `untrusted`, like every run that is first seen after one was forgotten.
    pub runs: usize,
    /// Conversations remembered (default 16384). Beyond: as for runs; an unknown one starts `untrusted` when resumed.
    pub conversations: usize,
    /// Open calls per run (default 256). Beyond: the oldest is forgotten; its result will be an alert.
    pub calls: usize,
    /// Open calls of all runs together (default 8192). Beyond: as for one run.
    pub calls_all: usize,
    /// Approvals open, approved or refused at a time (default 256), and at most a quarter of it per run. Beyond: the
    /// question becomes a deny with rule `overload`.
    pub approvals: usize,
    /// Known destinations per workspace and workspaces (defaults 1024 and 256). Beyond: the oldest is forgotten,
    /// which makes a destination `new` again.
    pub sinks: usize,
    /// Workspaces whose destinations are remembered.
    pub workspaces: usize,
    /// Rows of the quietness ledger (default 4096). Beyond: counted in the row `(other)`.
    pub ledger: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hold_ns: 120 * 1_000_000_000,
            validity_ns: 600 * 1_000_000_000,
            runs: 4096,
            conversations: 16384,
            calls: 256,
            calls_all: 8192,
            approvals: 256,
            sinks: 1024,
            workspaces: 256,
            ledger: 4096,
        }
    }
}

/// What the guard is told once, at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// creel's version, for records.
    pub engine: String,
    /// This boot. Approvals and break-glass of an earlier boot do not count.
    pub boot_id: String,
    /// 32 random bytes, drawn anew at every start: ids are derived from them.
    pub seed: [u8; 32],
    /// Limits.
    pub limits: Limits,
}
