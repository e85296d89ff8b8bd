//! Which agents speak a hook protocol, which events they have, and what each event can stop.
//!
//! Turns a kind and an event name into facts; knows nothing of payloads and has no dependency, because `creel-hook`
//! links it. The one thing a newcomer gets wrong: *can stop something* and *fails closed* differ. `Stop` can be
//! answered, yet a dead daemon must not keep an agent running, so in doubt it stays silent.

/// Claude Code's catalog name.
pub const CLAUDE_CODE: &str = "claude-code";
/// Codex's catalog name.
pub const CODEX: &str = "codex";
/// Every kind that has a dialect.
pub const ALL: &[&str] = &[CLAUDE_CODE, CODEX];

/// How an event's *no* is spelled so that the agent understands it without knowing the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Nothing can or should be stopped here: silence, exit 0.
    Silent,
    /// Exit code 2 with the reason on standard error; does not depend on standard output being read.
    ExitCode,
    /// A JSON answer of `PermissionRequest`, where the exit code is ignored.
    PermissionRequest,
    /// `continue: false`: the run ends before the model reads what cannot be taken back otherwise.
    EndRun,
}

/// One event of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The agent's own name.
    pub name: &'static str,
    /// Whether the agent waits for an answer that can stop or change something.
    pub blocking: bool,
    /// What is printed when nobody answers.
    pub doubt: Doubt,
    /// Whether `guard install` registers the hook for it.
    pub installed: bool,
}

impl Event {
    /// Whether no answer means *no*.
    #[must_use]
    pub const fn fails_closed(&self) -> bool {
        !matches!(self.doubt, Doubt::Silent)
    }
}

const fn blocking(name: &'static str, doubt: Doubt) -> Event {
    Event { name, blocking: true, doubt, installed: true }
}

const fn recorded(name: &'static str) -> Event {
    Event { name, blocking: false, doubt: Doubt::Silent, installed: true }
}

const fn not_installed(name: &'static str) -> Event {
    Event { name, blocking: false, doubt: Doubt::Silent, installed: false }
}

/// Claude Code's 33 events, as of 2.1.329.
pub const CLAUDE_CODE_EVENTS: &[Event] = &[
    blocking("PreToolUse", Doubt::ExitCode),
    blocking("PostToolUse", Doubt::EndRun),
    blocking("PostToolUseFailure", Doubt::EndRun),
    recorded("PostToolBatch"),
    blocking("PermissionRequest", Doubt::PermissionRequest),
    recorded("PermissionDenied"),
    blocking("UserPromptSubmit", Doubt::ExitCode),
    blocking("UserPromptExpansion", Doubt::ExitCode),
    recorded("SessionStart"),
    recorded("SessionEnd"),
    recorded("Setup"),
    // Blocking a stop makes the agent go on: silence is the safe side.
    blocking("Stop", Doubt::Silent),
    recorded("StopFailure"),
    recorded("SubagentStart"),
    blocking("SubagentStop", Doubt::Silent),
    // A compaction that is blocked for ever ends the session without protecting anything.
    blocking("PreCompact", Doubt::Silent),
    recorded("PostCompact"),
    blocking("PreModelSwitch", Doubt::ExitCode),
    recorded("PostModelSwitch"),
    recorded("Notification"),
    blocking("TeammateIdle", Doubt::Silent),
    blocking("TaskCreated", Doubt::ExitCode),
    blocking("TaskCompleted", Doubt::Silent),
    blocking("Elicitation", Doubt::ExitCode),
    blocking("ElicitationResult", Doubt::ExitCode),
    blocking("ConfigChange", Doubt::ExitCode),
    recorded("InstructionsLoaded"),
    recorded("CwdChanged"),
    recorded("FileChanged"),
    recorded("DirectoryAdded"),
    // A hook on these two replaces the agent's own worktree handling: its output is taken as the path.
    not_installed("WorktreeCreate"),
    not_installed("WorktreeRemove"),
    // Fires for every piece of streamed text; what was said is seen at `Stop`.
    not_installed("MessageDisplay"),
];

/// Codex's events, as of 0.169.
pub const CODEX_EVENTS: &[Event] = &[
    blocking("PreToolUse", Doubt::ExitCode),
    blocking("PermissionRequest", Doubt::PermissionRequest),
    blocking("PostToolUse", Doubt::ExitCode),
    blocking("UserPromptSubmit", Doubt::ExitCode),
    blocking("SessionStart", Doubt::Silent),
    recorded("SessionEnd"),
    recorded("PreCompact"),
    recorded("PostCompact"),
    recorded("SubagentStart"),
    blocking("SubagentStop", Doubt::Silent),
    blocking("Stop", Doubt::Silent),
    recorded("Interrupt"),
    // Only some builds have it, and an unknown event in requirements.toml is not worth the risk.
    not_installed("StopFailure"),
];

/// The events of a kind; empty for an unknown kind.
#[must_use]
pub fn events(kind: &str) -> &'static [Event] {
    match kind {
        CLAUDE_CODE => CLAUDE_CODE_EVENTS,
        CODEX => CODEX_EVENTS,
        _ => &[],
    }
}

/// One event of a kind.
#[must_use]
pub fn event(kind: &str, name: &str) -> Option<&'static Event> {
    events(kind).iter().find(|event| event.name == name)
}

/// Whether no answer means *no*; true for everything unknown.
#[must_use]
pub fn fails_closed(kind: &str, name: &str) -> bool {
    event(kind, name).is_none_or(Event::fails_closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_there_once_and_the_gates_fail_closed() {
        assert_eq!(CLAUDE_CODE_EVENTS.len(), 33);
        for kind in ALL {
            for (at, event) in events(kind).iter().enumerate() {
                assert!(events(kind)[at + 1..].iter().all(|other| other.name != event.name), "{} twice", event.name);
                assert!(!event.fails_closed() || event.blocking, "{} cannot be stopped", event.name);
                assert!(!event.fails_closed() || event.installed, "{} fails closed but is not installed", event.name);
            }
            for gate in ["PreToolUse", "PostToolUse", "UserPromptSubmit", "PermissionRequest"] {
                assert!(fails_closed(kind, gate), "{kind} {gate}");
            }
        }
        assert!(fails_closed("claude-code", "NeverHeardOf"));
        assert!(fails_closed("never-heard-of", "Stop"));
    }
}
