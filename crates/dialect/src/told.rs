//! What a model should know beside a tool's result (its cage refused something, and why) goes into the answer to that
//! result, where the agent's protocol has a place for it.
//!
//! It changes no decision. The one thing a newcomer gets wrong: an allowed *call* is answered with silence, and stays so;
//! only the answer to a *result* takes words along.

use serde_json::{Value, json};

use creel_model::{Action, Point};

use crate::answer::{Answer, OUTPUT_BYTES_MAX};
use crate::kinds;

/// Longest text that goes along, in bytes; agents cut what is longer than 10,000 characters.
const TEXT_BYTES_MAX: usize = 8_000;

/// Adds `text` for the model to an answer. `None`: this agent takes no words along at this event, or the answer ends the
/// run; nothing was added then, and `text` should be told at another one.
#[must_use]
pub fn tell(action: &Action, answer: &Answer, text: &str) -> Option<Answer> {
    let knows = matches!(action.kind.as_str(), kinds::CLAUDE_CODE | kinds::CODEX);
    if !knows || action.point != Point::ToolResult || action.event != "PostToolUse" || answer.exit_code != 0 {
        return None;
    }
    let mut document =
        if answer.stdout.is_empty() { json!({}) } else { serde_json::from_slice(&answer.stdout).ok()? };
    let fields = document.as_object_mut()?;
    if fields.get("continue") == Some(&Value::Bool(false)) {
        return None;
    }
    let specific = fields.entry("hookSpecificOutput").or_insert_with(|| json!({"hookEventName": "PostToolUse"}));
    let end = text.floor_char_boundary(TEXT_BYTES_MAX.min(text.len()));
    specific.as_object_mut()?.insert("additionalContext".to_owned(), text.get(..end)?.into());
    let told = Answer { stderr: answer.stderr.clone(), ..Answer::json(&document) };
    (told.stdout.len() <= OUTPUT_BYTES_MAX).then_some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(kind: &str, event: &str, point: &str) -> Action {
        let text = json!({"point": point, "kind": kind, "event": event, "conversation": "c", "blocking": true});
        serde_json::from_value(text).unwrap()
    }

    fn stdout(answer: &Answer) -> Value {
        serde_json::from_slice(&answer.stdout).unwrap()
    }

    #[test]
    fn words_go_along_with_a_result_and_change_nothing_else() {
        for kind in [kinds::CLAUDE_CODE, kinds::CODEX] {
            let result = action(kind, "PostToolUse", "tool_result");
            let plain = tell(&result, &Answer::default(), "refused: x").unwrap();
            let expected =
                json!({"hookSpecificOutput": {"hookEventName": "PostToolUse", "additionalContext": "refused: x"}});
            assert_eq!(stdout(&plain), expected);
            let block = Answer::json(&json!({"decision": "block", "reason": "r"}));
            let both = stdout(&tell(&result, &block, "refused: x").unwrap());
            assert_eq!((&both["decision"], &both["reason"]), (&json!("block"), &json!("r")));
            assert_eq!(both["hookSpecificOutput"]["additionalContext"], "refused: x");
        }
    }

    #[test]
    fn where_there_is_no_place_nothing_is_added() {
        let none = |action: &Action, answer: &Answer| assert_eq!(tell(action, answer, "x"), None);
        none(&action(kinds::CLAUDE_CODE, "PreToolUse", "tool_call"), &Answer::default());
        none(&action(kinds::CLAUDE_CODE, "PostToolUseFailure", "tool_result"), &Answer::default());
        none(&action("other", "PostToolUse", "tool_result"), &Answer::default());
        let result = action(kinds::CLAUDE_CODE, "PostToolUse", "tool_result");
        none(&result, &Answer::json(&json!({"continue": false, "stopReason": "s"})));
        none(&result, &Answer::exit_two("why"));
        let long = tell(&result, &Answer::default(), &"ä".repeat(10_000)).unwrap();
        assert!(long.stdout.len() < 9_000);
    }
}
