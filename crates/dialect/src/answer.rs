//! A decision becomes bytes for the agent, and a judged call is compared with what ran.
//!
//! The one thing a newcomer gets wrong: an *ask* with a pending approval of ours has already been held as long as the
//! agent waits, so it is a deny that says where to answer; only an *ask* without one is the agent's own question.

use serde_json::Value;

use creel_model::{Action, Decision, Modification, ToolCall, Verdict};

use crate::{Malformed, claude_code, codex, deny, json, kinds};

/// Longest output: what one answer frame of the hook wire carries.
pub(crate) const OUTPUT_BYTES_MAX: usize = 1024 * 1024;

/// What the hook prints and how it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Standard output, at most 1 MiB.
    pub stdout: Vec<u8>,
    /// Standard error, at most 1 MiB.
    pub stderr: Vec<u8>,
    /// Exit status.
    pub exit_code: u8,
}

impl Answer {
    pub(crate) fn json(value: &Value) -> Self {
        Self { stdout: value.to_string().into_bytes(), stderr: Vec::new(), exit_code: 0 }
    }

    pub(crate) fn exit_two(why: &str) -> Self {
        Self { stdout: Vec::new(), stderr: format!("{why}\n").into_bytes(), exit_code: 2 }
    }
}

impl From<deny::Printed> for Answer {
    fn from(printed: deny::Printed) -> Self {
        Self { stdout: printed.stdout.into(), stderr: printed.stderr.into(), exit_code: printed.exit_code }
    }
}

/// The decision in the agent's own words; an unknown kind gets [`deny::print`] for all but a plain allow.
#[must_use]
pub fn answer(kind: &str, action: &Action, decision: &Decision) -> Answer {
    match kind {
        kinds::CLAUDE_CODE => claude_code::answer(action, decision),
        kinds::CODEX => codex::answer(action, decision),
        _ if decision.verdict == Verdict::Allow => Answer::default(),
        _ => deny::print(kind, &action.event, &reason(decision)).into(),
    }
}

/// The answer to a payload that is not an action.
#[must_use]
pub fn deny_malformed(kind: &str, event: &str, malformed: &Malformed) -> Answer {
    deny::print(kind, event, &format!("creel: denied, because the event could not be understood: {malformed}")).into()
}

/// The reason for the model and the person: never empty, bounded.
pub(crate) fn reason(decision: &Decision) -> String {
    let stated = decision.rules.first().map_or("", |rule| rule.reason.as_str());
    let words = if decision.reason.trim().is_empty() { stated } else { &decision.reason };
    deny::bounded(words).to_owned()
}

/// The value with every modification made; `Err` names the pointer that leads to no text.
///
/// # Errors
/// The first pointer that does not lead to a text.
pub fn apply(value: &Value, modifications: &[Modification]) -> Result<Value, String> {
    json::apply(value, modifications)
}

/// The call as the agent will run it after this decision; none when it does not run.
#[must_use]
pub fn executed(call: &ToolCall, decision: &Decision) -> Option<ToolCall> {
    match decision.verdict {
        Verdict::Allow => Some(call.clone()),
        Verdict::Modify => {
            let input = json::apply(&call.input, &decision.modifications).ok()?;
            Some(ToolCall { input, ..call.clone() })
        }
        // A native question may be answered with yes.
        Verdict::Ask => decision.approval.is_none().then(|| call.clone()),
        Verdict::Deny => None,
    }
}

/// Whether what ran is what was judged: the same tool with arguments of the same meaning.
#[must_use]
pub fn same_input(judged: &ToolCall, executed: &ToolCall) -> bool {
    judged.tool == executed.tool && judged.mcp == executed.mcp && json::same(&judged.input, &executed.input)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_ran_is_compared_with_what_was_judged() {
        let call = |input: Value| ToolCall { tool: "Bash".into(), input, call_id: None, mcp: None };
        let judged = call(json!({"command": "ls", "timeout": 1}));
        assert!(same_input(&judged, &call(json!({"timeout": 1.0, "command": "ls", "description": null}))));
        assert!(!same_input(&judged, &call(json!({"command": "ls -a", "timeout": 1}))));
        assert!(!same_input(&judged, &ToolCall { tool: "bash".into(), ..judged.clone() }));

        let mut decision = Decision::allow();
        assert_eq!(executed(&judged, &decision), Some(judged.clone()));
        decision.verdict = Verdict::Modify;
        decision.modifications = vec![Modification { pointer: "/command".into(), text: "ls -a".into(), replaced: 1 }];
        assert!(same_input(&executed(&judged, &decision).unwrap(), &call(json!({"command": "ls -a", "timeout": 1}))));
        decision.verdict = Verdict::Deny;
        assert_eq!(executed(&judged, &decision), None);
    }

    #[test]
    fn an_unknown_kind_is_never_allowed_by_accident() {
        let action: Action = serde_json::from_value(json!({
            "point": "tool_call", "kind": "x", "event": "y", "conversation": "c", "blocking": true
        }))
        .unwrap();
        let mut decision = Decision::allow();
        assert_eq!(answer("x", &action, &decision), Answer::default());
        decision.verdict = Verdict::Modify;
        assert_eq!(answer("x", &action, &decision).exit_code, 2);
    }
}
