//! What to print when the answer is *no* and nothing about the payload is known: each agent's own words for it.
//!
//! Turns a kind, an event and a reason into output and exit code. No dependency, no payload, no allocation beyond the
//! reason. The one thing a newcomer gets wrong: one form for all agents is an open door. Codex runs the call when it
//! sees one field too many, or exit code 2 without a word on standard error.

use crate::kinds::{self, Doubt};

/// Longest reason in bytes; agents cut at 10,000 characters.
pub const REASON_BYTES_MAX: usize = 4_000;

/// What goes to the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Printed {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit status.
    pub exit_code: u8,
}

/// The strongest *no* that the event has without looking at the payload; silence where there is nothing to stop.
///
/// An unknown kind or event gets exit code 2 and the reason on standard error, which every command-hook agent that can
/// be stopped at all understands.
#[must_use]
pub fn print(kind: &str, event: &str, reason: &str) -> Printed {
    let reason = bounded(reason);
    let doubt = kinds::event(kind, event).map_or(Doubt::ExitCode, |event| event.doubt);
    match doubt {
        Doubt::Silent => Printed::default(),
        Doubt::ExitCode => Printed { stdout: String::new(), stderr: format!("{reason}\n"), exit_code: 2 },
        Doubt::PermissionRequest => Printed {
            stdout: format!(
                r#"{{"hookSpecificOutput":{{"hookEventName":"PermissionRequest","decision":{{"behavior":"deny","message":{}}}}}}}"#,
                json_string(reason)
            ),
            stderr: String::new(),
            exit_code: 0,
        },
        Doubt::EndRun => {
            let quoted = json_string(reason);
            Printed {
                stdout: format!(r#"{{"continue":false,"stopReason":{quoted},"decision":"block","reason":{quoted}}}"#),
                stderr: String::new(),
                exit_code: 0,
            }
        }
    }
}

/// A reason that is never empty and never longer than [`REASON_BYTES_MAX`], cut between characters.
#[must_use]
pub fn bounded(reason: &str) -> &str {
    let reason = reason.trim();
    if reason.is_empty() {
        return "creel: denied";
    }
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.get(..end).unwrap_or("creel: denied")
}

/// The text as a JSON string with its quotes.
#[must_use]
pub fn json_string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if control < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: &str, event: &str, stdout: &str, stderr: &str, exit_code: u8) {
        let printed = print(kind, event, "creel: no \"answer\"");
        assert_eq!((printed.stdout.as_str(), printed.stderr.as_str(), printed.exit_code), (stdout, stderr, exit_code));
    }

    #[test]
    fn each_event_has_its_own_form() {
        let no = "creel: no \"answer\"\n";
        check("claude-code", "PreToolUse", "", no, 2);
        check("claude-code", "UserPromptSubmit", "", no, 2);
        check("claude-code", "Stop", "", "", 0);
        check("claude-code", "SessionEnd", "", "", 0);
        check(
            "claude-code",
            "PostToolUse",
            r#"{"continue":false,"stopReason":"creel: no \"answer\"","decision":"block","reason":"creel: no \"answer\""}"#,
            "",
            0,
        );
        check(
            "claude-code",
            "PermissionRequest",
            r#"{"hookSpecificOutput":{"hookEventName":"PermissionRequest","decision":{"behavior":"deny","message":"creel: no \"answer\""}}}"#,
            "",
            0,
        );
        check("codex", "PreToolUse", "", no, 2);
        check("codex", "PostToolUse", "", no, 2);
        check("codex", "UserPromptSubmit", "", no, 2);
        check("codex", "SessionStart", "", "", 0);
        check("codex", "NotAnEvent", "", no, 2);
        check("not-a-kind", "Anything", "", no, 2);
    }

    #[test]
    fn a_reason_is_never_empty_nor_too_long_nor_cut_inside_a_character() {
        assert_eq!(print("codex", "PreToolUse", " \n").stderr, "creel: denied\n");
        let long = "é".repeat(REASON_BYTES_MAX);
        assert!(bounded(&long).len() <= REASON_BYTES_MAX);
        assert_eq!(json_string("a\u{1}\n\"\\é"), r#""a\u0001\n\"\\é""#);
    }
}
