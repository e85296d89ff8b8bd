//! Facts and decisions to records. Only here, and only from the guard, is a record made.
//!
//! The envelope is sealed for ever: it gets ids, words, numbers and rule names, never a text of the agent's. The one
//! fact a newcomer gets wrong: tool names and conversation ids come from the agent; they are bounded before they are
//! written, and everything longer goes nowhere.

use creel_model::record::{Detail, EVENT_SCHEMA, Envelope, Subject};
use creel_model::{Action, ActionId, Moment, RecordKind, Verdict};
use serde_json::{Map, Value};

use crate::facts::Caller;
use crate::input::Settings;
use crate::state::State;

/// Longest name of the agent's own in an envelope, in characters.
const NAME_CHARS_MAX: usize = 128;

/// A text cut to a number of characters.
pub(crate) fn cut(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}

/// An envelope that only says what, when and whose.
pub(crate) fn envelope(
    settings: &Settings,
    state: &State,
    kind: RecordKind,
    at: Moment,
    id: ActionId,
    owner: u32,
) -> Envelope {
    Envelope {
        schema: EVENT_SCHEMA.to_owned(),
        kind,
        at,
        boot_id: settings.boot_id.clone(),
        action_id: id,
        trace_id: None,
        causes: Vec::new(),
        owner,
        subject: None,
        point: None,
        event: None,
        tool: None,
        verdict: None,
        rules: Vec::new(),
        audit_rules: Vec::new(),
        code: None,
        bundle: state.active.as_ref().map(|active| active.digest.clone()),
        bundle_trust: state.active.as_ref().map(|active| active.trust.clone()),
        engine: settings.engine.clone(),
        detectors: None,
        payload_bytes: 0,
        took_ns: 0,
        effects: 0,
    }
}

/// The run and conversation of a record.
pub(crate) fn subject(caller: &Caller, conversation: &str) -> Subject {
    Subject {
        kind: cut(&caller.kind, NAME_CHARS_MAX),
        run: caller.run.id(),
        uid: caller.account.uid,
        pid: caller.run.process.pid,
        conversation: cut(conversation, NAME_CHARS_MAX),
        workspace: caller.workspace.clone(),
    }
}

/// Adds what an action says about itself.
pub(crate) fn of_action(envelope: &mut Envelope, caller: &Caller, action: &Action) {
    envelope.subject = Some(subject(caller, &action.conversation));
    envelope.point = Some(action.point);
    envelope.event = Some(cut(&action.event, NAME_CHARS_MAX));
    envelope.tool = action.call.as_ref().map(|call| cut(&call.tool, NAME_CHARS_MAX));
}

/// A detail that holds facts only.
pub(crate) fn detail(facts: Map<String, Value>) -> Detail {
    Detail { facts, ..Detail::default() }
}

/// Rule ids, each once, in the order given.
pub(crate) fn rule_ids<'a>(rules: impl Iterator<Item = &'a creel_model::MatchedRule>) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for rule in rules {
        if !ids.contains(&rule.rule) {
            ids.push(rule.rule.clone());
        }
    }
    ids
}

/// The strongest verdict first, as records and answers list rules.
pub(crate) fn strongest_first(rules: &mut [creel_model::MatchedRule]) {
    rules.sort_by_key(|rule| {
        let set_aside = rule.excepted_by.is_some() || rule.approved_by.is_some();
        (set_aside, std::cmp::Reverse((rule.effect, rule.severity)), rule.effect_index)
    });
}

/// A number as JSON.
pub(crate) fn json<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// Facts from pairs.
pub(crate) fn facts<const N: usize>(pairs: [(&str, Value); N]) -> Map<String, Value> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Whether a verdict stops what the agent wanted.
pub(crate) const fn stops(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Deny | Verdict::Ask)
}
