//! The conversation on `control.sock`, as types: what a person's command asks of the daemon and what it answers.
//!
//! A client connects, writes one [`Request`] and reads [`Answer`]s until [`Answer::Done`] or [`Answer::Refused`]; then
//! it may write the next request. Frames are a big-endian `u32` length and that many bytes of JSON, at most
//! [`FRAME_BYTES_MAX`]. Nothing here opens a socket or checks who is asking: the daemon refuses peers below an agent
//! before it reads the first frame.
//!
//! The one thing a newcomer gets wrong: *every* request ends with `Done` or `Refused`, also those with one answer,
//! and a list may come in several answers of the same variant, which the client appends.

mod cage;
mod frame;
mod guarding;
mod judging;
mod machine;

use std::collections::BTreeMap;

use creel_model::cage::CageEvent;
use creel_model::{Mode, RuleMode, RunId};
use serde::{Deserialize, Serialize};

pub use cage::{
    COMMAND_WORDS_MAX, CONTROLS_MAX, CageRunView, EVENTS_MAX, HookFolder, ProfileCheck, ProfileView, RunEnd, RunEvents,
    RunExit, RunGo, RunPlan, RunResume, RunStart, RunStatement, Statement,
};
pub use frame::{FRAME_BYTES_MAX, FrameError, read_frame, write_frame};
pub use guarding::{
    BreakGlassView, CanaryView, FileChange, GuardChange, GuardState, GuardStatusView, LiveReport, LiveWords,
    QuestionState, QuestionView, Scope,
};
pub use judging::{
    CoverageRow, DiagnosticView, FloorCell, PolicySummary, PolicyView, ReplayChange, ReplayReport, ReplayTotal,
    RuleReport, RuleView, TestCaseView, TestReportView, WouldHaveReport,
};
pub use machine::{
    AgentView, Governed, HookView, JournalView, McpServerView, Problem, Protection, ProtectionState, Quietness,
    RecordFilter, RecordView, RuleQuietness, RunView, StatusReport, VerificationVerdict, VerificationView,
};

/// Everything that can be asked of a daemon by a person.
///
/// `code` is the confirmation code of [`Request::RequestConfirmation`] (or of the question itself); without one where
/// one is needed the daemon answers `Refused` with [`RefusalCode::ConfirmationNeeded`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// The whole state. Answer: one [`Answer::Status`].
    Status,
    /// The agents of this machine. Answer: [`Answer::Agents`], possibly several.
    Agents {
        /// Look again now instead of answering from the last look.
        scan: bool,
        /// Agents of all accounts (system mode: root and `creel-analyst` only), else the asker's.
        all_users: bool,
    },
    /// Records in order of sequence. Answers: [`Answer::Record`] each.
    Records {
        /// Which.
        filter: RecordFilter,
        /// Go on with new ones until the client hangs up.
        follow: bool,
    },
    /// One record, by sequence number (decimal), action id, or an unambiguous beginning of one. Answer:
    /// [`Answer::Story`].
    Record {
        /// The id.
        id: String,
    },
    /// Is the journal complete and unaltered? Answer: [`Answer::Verification`].
    VerifyJournal {
        /// Texts of signed checkpoints that were kept where the daemon cannot rewrite them, at most 64.
        #[serde(default)]
        anchors: Vec<String>,
    },
    /// Erases the details of the matching records. Answer: [`Answer::Erased`].
    EraseDetails {
        /// Which.
        filter: RecordFilter,
        /// Why; sealed in the erasure record. Not empty.
        reason: String,
        /// Only count.
        #[serde(default)]
        dry_run: bool,
        /// Confirmation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    },
    /// Questions that wait, and recently closed ones. Answer: [`Answer::Questions`].
    Approvals,
    /// One question. Answer: [`Answer::Questions`] with one.
    Approval {
        /// Its id, or an unambiguous beginning.
        id: String,
    },
    /// Answers a question. Answer: [`Answer::Questions`] with its new state.
    AnswerApproval {
        /// Its id, or an unambiguous beginning.
        id: String,
        /// Yes or no. A no needs no code.
        allow: bool,
        /// The question's confirmation code.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// Why, for the record.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Shows a new single-use code on every watching screen (never in the answer). Answer: [`Answer::Confirmation`].
    RequestConfirmation {
        /// What it will be used for.
        purpose: Purpose,
    },
    /// The bundle in force. Answer: [`Answer::Policy`].
    PolicyShow {
        /// With the text of its files.
        #[serde(default)]
        files: bool,
    },
    /// Checks a bundle, runs its tests and, unless `dry_run`, puts it in force. Answer: [`Answer::PolicyActivated`], or
    /// [`Answer::Diagnostics`] when it has errors (the one in force stays).
    PolicyActivate {
        /// File names relative to the bundle folder, with their text.
        files: BTreeMap<String, String>,
        /// Only check.
        dry_run: bool,
        /// Confirmation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    },
    /// Sets the mode of rules. Answer: [`Answer::Policy`]. Making it stricter needs no confirmation.
    PolicyModes {
        /// Rule ids; empty means all rules.
        rules: Vec<String>,
        /// The new mode.
        mode: RuleMode,
        /// Confirmation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    },
    /// Judges recorded facts with another bundle, changing nothing. Answer: [`Answer::Replay`], or
    /// [`Answer::Diagnostics`].
    PolicyReplay {
        /// As in [`Request::PolicyActivate`].
        files: BTreeMap<String, String>,
        /// Which records.
        #[serde(default)]
        filter: RecordFilter,
    },
    /// What rules in audit mode would have asked or denied. Answer: [`Answer::WouldHave`].
    PolicyReport {
        /// From when; absent means since the bundle came into force.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since_unix_ns: Option<i64>,
    },
    /// Rule × kind × mechanism of the bundle in force. Answer: [`Answer::Coverage`], possibly several.
    PolicyCoverage,
    /// Verb × zone of the bundle in force, without context. Answer: [`Answer::Floor`], possibly several.
    PolicyFloor,
    /// Opens a window in which nothing is stopped, everything is recorded. Answer: [`Answer::BreakGlass`].
    BreakGlass {
        /// Its length, 1–240.
        minutes: u32,
        /// Why; sealed. Not empty.
        reason: String,
        /// Confirmation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    },
    /// Closes that window. Answer: [`Answer::BreakGlass`] with nothing.
    BreakGlassEnd,
    /// Wires protection into an agent's configuration, then proves it with a canary. Answer: [`Answer::GuardChanged`].
    GuardInstall {
        /// Catalog kind.
        kind: String,
        /// For whom.
        scope: Scope,
        /// Only show the difference.
        dry_run: bool,
    },
    /// Restores the agent's configuration exactly. Answer: [`Answer::GuardChanged`].
    GuardRemove {
        /// Catalog kind.
        kind: String,
        /// For whom.
        scope: Scope,
        /// Only show the difference.
        dry_run: bool,
        /// Confirmation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    },
    /// State of the wiring. Answer: [`Answer::GuardStatus`].
    GuardStatus {
        /// Only this kind; absent means all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        kind: Option<String>,
    },
    /// Drives the hook as the agent would. Answer: [`Answer::Canary`].
    GuardCanary {
        /// Catalog kind.
        kind: String,
        /// For whom; absent means whatever is installed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope: Option<Scope>,
        /// With the real agent: refused, because only the asker's own account may run it; see
        /// [`Request::CanaryWord`].
        live: bool,
    },
    /// Begins a canary with the real agent, which the asking program starts itself. Answer: [`Answer::CanaryWord`].
    CanaryWord {
        /// Catalog kind.
        kind: String,
        /// For whom it is installed; absent means whatever the mode installs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope: Option<Scope>,
    },
    /// Ends it. Answer: [`Answer::Canary`].
    CanaryReport {
        /// What the asker saw; the daemon compares it with what reached its hook socket.
        report: LiveReport,
    },
    /// Begins a run in a cage, for the asker's own account. Answer: [`Answer::RunPlan`].
    RunStart(Box<RunStart>),
    /// Its cage is built; may the command be executed? Answer: [`Answer::RunStatement`], or `Refused`: then it may not.
    RunGo(Box<RunGo>),
    /// What was noticed in it. No answer but `Done`.
    RunEvents(RunEvents),
    /// It is over. No answer but `Done`.
    RunEnd(RunEnd),
    /// Takes it up again with a daemon that was restarted. Answer: [`Answer::RunResumed`].
    RunResume(RunResume),
    /// Runs in cages, newest first. Answer: [`Answer::Runs`], possibly several.
    Runs {
        /// Those that ended too (those that this daemon remembers).
        #[serde(default)]
        ended: bool,
    },
    /// One run with its statement. Answer: [`Answer::Runs`] with one.
    RunShow {
        /// Its id, or an unambiguous beginning; empty: the newest.
        id: String,
    },
    /// The last refusals of a run, newest last, from the record. Answer: [`Answer::RunWhy`].
    RunWhy {
        /// As in [`Request::RunShow`]. A run that this daemon does not remember is named by the beginning of its id.
        id: String,
        /// At most so many; at most 256.
        limit: u32,
    },
    /// The profiles of the bundle in force. Answer: [`Answer::Profiles`].
    ProfileShow {
        /// Only this one.
        #[serde(default)]
        name: Option<String>,
        /// With the plan for the asker and this workspace (absolute).
        #[serde(default)]
        workspace: Option<String>,
    },
    /// Checks the profiles of a bundle that is not in force. Answer: [`Answer::Profiles`].
    ProfileCheck {
        /// As in [`Request::PolicyActivate`].
        files: BTreeMap<String, String>,
    },
    /// Everything that a screen needs, as it happens. Answers: [`Answer::Live`] until the client hangs up.
    Watch,
    /// Stop cleanly: seal the journal, answer open calls with deny. Answer: [`Answer::Sealed`] after the last record.
    Shutdown,
}

/// What the daemon says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", content = "of", rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<StatusReport>),
    /// To [`Request::Agents`].
    Agents(Vec<AgentView>),
    /// To [`Request::Records`].
    Record(Box<RecordView>),
    /// To [`Request::Record`].
    Story(Box<Story>),
    /// To [`Request::VerifyJournal`].
    Verification(VerificationView),
    /// To [`Request::EraseDetails`]: how many details were (or, dry, would be) erased.
    Erased {
        /// The number.
        details: u64,
    },
    /// To [`Request::Approvals`] and its neighbours.
    Questions(Vec<QuestionView>),
    /// To [`Request::RequestConfirmation`].
    Confirmation {
        /// How many screens show it; 0 means that nobody can read it.
        screens: u32,
        /// Until when it works.
        expires_unix_ns: i64,
    },
    /// To [`Request::PolicyShow`] and [`Request::PolicyModes`].
    Policy(Box<PolicyView>),
    /// To [`Request::PolicyActivate`].
    PolicyActivated {
        /// The bundle, in force unless the request was dry.
        summary: PolicySummary,
        /// Its tests; a failing test refuses the bundle, then `active` is false.
        tests: TestReportView,
        /// Whether it is in force now.
        active: bool,
        /// Digest of the one before.
        previous: Option<String>,
    },
    /// A bundle's mistakes.
    Diagnostics(Vec<DiagnosticView>),
    /// To [`Request::PolicyReplay`].
    Replay(ReplayReport),
    /// To [`Request::PolicyReport`].
    WouldHave(WouldHaveReport),
    /// To [`Request::PolicyCoverage`].
    Coverage(Vec<CoverageRow>),
    /// To [`Request::PolicyFloor`].
    Floor(Vec<FloorCell>),
    /// To [`Request::BreakGlass`] and its end.
    BreakGlass(Option<BreakGlassView>),
    /// To [`Request::GuardInstall`] and [`Request::GuardRemove`].
    GuardChanged(GuardChange),
    /// To [`Request::GuardStatus`].
    GuardStatus(Vec<GuardStatusView>),
    /// To [`Request::GuardCanary`].
    Canary(CanaryView),
    /// To [`Request::CanaryWord`].
    CanaryWord(LiveWords),
    /// To [`Request::RunStart`].
    RunPlan(Box<RunPlan>),
    /// To [`Request::RunGo`].
    RunStatement(Box<RunStatement>),
    /// To [`Request::RunResume`].
    RunResumed(HookFolder),
    /// To [`Request::Runs`] and [`Request::RunShow`].
    Runs(Vec<CageRunView>),
    /// To [`Request::RunWhy`].
    RunWhy {
        /// The run.
        run: RunId,
        /// Refusals and limits, oldest first.
        events: Vec<CageEvent>,
    },
    /// To [`Request::ProfileShow`] and [`Request::ProfileCheck`].
    Profiles(ProfileCheck),
    /// To [`Request::Watch`].
    Live(Live),
    /// To [`Request::Shutdown`].
    Sealed {
        /// Number of records in the journal.
        records: u64,
        /// The last signed checkpoint, as its note text.
        checkpoint: String,
    },
    /// The request is answered.
    Done,
    /// The request is not carried out; ends it like `Done`.
    Refused {
        /// Which kind of no.
        code: RefusalCode,
        /// Why, lower case, for a person.
        message: String,
        /// What to do; empty where there is nothing.
        #[serde(default)]
        hint: String,
    },
}

/// What happens, for a screen. A watcher that reads too slowly loses events and is told how many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "live", content = "of", rename_all = "kebab-case")]
pub enum Live {
    /// The whole state: at once after `Watch`, and whenever something else than a record changed (at most every 250 ms).
    Status(Box<StatusReport>),
    /// A record was appended.
    Record(Box<RecordView>),
    /// A question opened or changed its state; with its code if this watcher may see it.
    Question(Box<QuestionView>),
    /// A code to type elsewhere.
    Confirmation {
        /// What it is for.
        purpose: Purpose,
        /// The code.
        code: String,
        /// Until when it works.
        expires_unix_ns: i64,
    },
    /// Events were dropped.
    Missed {
        /// How many.
        events: u64,
    },
    /// The daemon stops.
    Stopping {
        /// Why.
        reason: String,
    },
}

/// What a confirmation code is for. A code works for its own purpose only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "purpose", rename_all = "kebab-case")]
pub enum Purpose {
    /// Answering this question.
    Approval {
        /// Its id.
        id: String,
    },
    /// [`Request::BreakGlass`].
    BreakGlass,
    /// [`Request::PolicyActivate`].
    PolicyActivate,
    /// [`Request::PolicyModes`] that loosens.
    PolicyModes,
    /// [`Request::EraseDetails`].
    EraseDetails,
    /// [`Request::GuardRemove`].
    GuardRemove {
        /// Catalog kind.
        kind: String,
    },
}

impl std::fmt::Display for Purpose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Purpose::Approval { id } => write!(f, "approve {id}"),
            Purpose::BreakGlass => f.write_str("break-glass"),
            Purpose::PolicyActivate => f.write_str("policy load"),
            Purpose::PolicyModes => f.write_str("policy audit"),
            Purpose::EraseDetails => f.write_str("log erase"),
            Purpose::GuardRemove { kind } => write!(f, "guard remove {kind}"),
        }
    }
}

/// Kinds of refusal; a newer daemon's kinds read as `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalCode {
    /// No such record, question, kind or rule.
    NotFound,
    /// The asker may not.
    Forbidden,
    /// The asker is not a person at a terminal: an agent is above it.
    BelowAgent,
    /// A confirmation code is needed.
    ConfirmationNeeded,
    /// The code is wrong or has expired.
    WrongCode,
    /// The request makes no sense as it stands.
    Invalid,
    /// The answer does not fit a frame.
    TooLarge,
    /// Try again.
    Busy,
    /// This daemon cannot do that in its mode.
    Unavailable,
    /// A fault of the daemon.
    Internal,
    /// Not known to this version.
    #[serde(other)]
    Other,
}

impl RefusalCode {
    /// The word as it stands in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            RefusalCode::NotFound => "not-found",
            RefusalCode::Forbidden => "forbidden",
            RefusalCode::BelowAgent => "below-agent",
            RefusalCode::ConfirmationNeeded => "confirmation-needed",
            RefusalCode::WrongCode => "wrong-code",
            RefusalCode::Invalid => "invalid",
            RefusalCode::TooLarge => "too-large",
            RefusalCode::Busy => "busy",
            RefusalCode::Unavailable => "unavailable",
            RefusalCode::Internal => "internal",
            RefusalCode::Other => "other",
        }
    }
}

/// A record with those around it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Story {
    /// The record.
    pub record: RecordView,
    /// Its causes, oldest first, at most 16.
    #[serde(default)]
    pub causes: Vec<RecordView>,
    /// Records that name it as a cause, oldest first, at most 16.
    #[serde(default)]
    pub followed_by: Vec<RecordView>,
    /// Rules that matched, as they stand in the bundle in force (a rule that is gone is absent).
    #[serde(default)]
    pub rules: Vec<RuleView>,
    /// Mode of the daemon that answers.
    pub mode: Mode,
}
