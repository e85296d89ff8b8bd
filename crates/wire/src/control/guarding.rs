//! What the control socket tells about protection and questions, as plain data.

use creel_model::decision::MatchedRule;
use creel_model::{Effect, Severity};
use serde::{Deserialize, Serialize};

/// For whom protection is wired in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The asker's own account: the agent's user settings.
    User,
    /// Every account: the agent's managed settings, owned by root.
    System,
}

impl Scope {
    /// The word as it stands in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::User => "user",
            Scope::System => "system",
        }
    }
}

/// What was, or would be, changed in an agent's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardChange {
    /// Catalog kind.
    pub kind: String,
    /// For whom.
    pub scope: Scope,
    /// Nothing was written.
    pub dry_run: bool,
    /// The files; empty when everything was already as wanted.
    pub files: Vec<FileChange>,
    /// Other people's hooks and settings that lose their effect, one line each.
    #[serde(default)]
    pub silenced: Vec<String>,
    /// Anything else a person should know, one line each.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The proof after an install.
    #[serde(default)]
    pub canary: Option<CanaryView>,
}

/// One changed file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// Absolute.
    pub path: String,
    /// It did not exist before (install) or does not exist after (remove).
    pub created_or_removed: bool,
    /// Lines with `+`, `-` or a space before them; at most 64 KiB.
    pub difference: String,
    /// Where its former bytes are kept.
    #[serde(default)]
    pub backup: Option<String>,
}

/// Whether the wiring is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuardState {
    /// As installed.
    Installed,
    /// Installed, and changed since.
    Drifted,
    /// Not installed.
    Absent,
}

impl GuardState {
    /// The word as it stands in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            GuardState::Installed => "installed",
            GuardState::Drifted => "drifted",
            GuardState::Absent => "absent",
        }
    }
}

/// State of one kind's wiring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardStatusView {
    /// Catalog kind.
    pub kind: String,
    /// For whom.
    pub scope: Scope,
    /// The account, at [`Scope::User`].
    #[serde(default)]
    pub account: Option<String>,
    /// Whether it is there.
    pub state: GuardState,
    /// What differs from the installed state, one line each.
    #[serde(default)]
    pub drift: Vec<String>,
    /// Bypass flags and switches seen on running processes and in settings, one line each.
    #[serde(default)]
    pub bypasses: Vec<String>,
    /// What this wiring cannot hold, one line each.
    #[serde(default)]
    pub limits: Vec<String>,
    /// The last proof.
    #[serde(default)]
    pub canary: Option<CanaryView>,
}

/// The proof that a hook works, or why it does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryView {
    /// Catalog kind.
    pub kind: String,
    /// Whether a forbidden call was stopped and an allowed one was not.
    pub effective: bool,
    /// Why not; empty when effective.
    #[serde(default)]
    pub because: String,
    /// When.
    pub at_unix_ns: i64,
    /// With the real agent.
    pub live: bool,
    /// The agent's version, where known.
    #[serde(default)]
    pub version: Option<String>,
    /// What was tried, one line each.
    #[serde(default)]
    pub steps: Vec<String>,
}

/// The two words of a canary with the real agent. A call that holds the first is denied, whatever the rules say, if it
/// comes from an agent that the asking process started; a call that holds the second is judged as any other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveWords {
    /// Names this canary; to be stopped.
    pub forbidden: String,
    /// To be let through.
    pub harmless: String,
    /// Until when the words count.
    pub expires_unix_ns: i64,
}

/// What the program that ran the real agent saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveReport {
    /// [`LiveWords::forbidden`] of the canary.
    pub forbidden: String,
    /// The file that the forbidden call would have made is there.
    #[serde(default)]
    pub forbidden_ran: bool,
    /// The file that the harmless call makes is there.
    #[serde(default)]
    pub harmless_ran: bool,
    /// Why the agent did not come to an end by itself, or was not started; empty where it did.
    #[serde(default)]
    pub failed: String,
    /// What was tried, one line each, at most 16.
    #[serde(default)]
    pub steps: Vec<String>,
}

/// How a question stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuestionState {
    /// It waits for a person.
    Pending,
    /// Yes, not used yet.
    Approved,
    /// No.
    Denied,
    /// Nobody answered in time: no.
    Expired,
    /// Yes, and the action ran.
    Used,
}

impl QuestionState {
    /// The word as it stands in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            QuestionState::Pending => "pending",
            QuestionState::Approved => "approved",
            QuestionState::Denied => "denied",
            QuestionState::Expired => "expired",
            QuestionState::Used => "used",
        }
    }
}

/// A question to a person about the effects of one action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuestionView {
    /// Its id.
    pub id: String,
    /// How it stands.
    pub state: QuestionState,
    /// When it was asked.
    pub asked_unix_ns: i64,
    /// When it lapses.
    pub expires_unix_ns: i64,
    /// Catalog kind of the agent.
    pub kind: String,
    /// Account of the run.
    pub uid: u32,
    /// Its login name.
    pub account: String,
    /// The run.
    pub run: String,
    /// Process id of the run's root.
    pub pid: u32,
    /// Where it works.
    #[serde(default)]
    pub workspace: Option<String>,
    /// The agent's tool.
    #[serde(default)]
    pub tool: Option<String>,
    /// A redacted, bounded excerpt of what the agent asked for.
    #[serde(default)]
    pub excerpt: String,
    /// Why it is asked.
    pub reason: String,
    /// The strongest severity of its rules.
    pub severity: Severity,
    /// The rules that ask.
    #[serde(default)]
    pub rules: Vec<MatchedRule>,
    /// What would happen.
    #[serde(default)]
    pub effects: Vec<Effect>,
    /// The code to type with `creel approve`; only for watchers that passed the presence test, else absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The agent's own user interface asks it (unverified approver); creel only records.
    #[serde(default)]
    pub asked_by_agent: bool,
    /// Who answered, once answered.
    #[serde(default)]
    pub answered_by: Option<String>,
}

/// An open break-glass window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakGlassView {
    /// Since.
    pub since_unix_ns: i64,
    /// Until.
    pub until_unix_ns: i64,
    /// Why.
    pub reason: String,
    /// Whose account opened it.
    pub by: String,
}
