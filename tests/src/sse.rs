//! Words and tool calls as the three model protocols stream them.
//!
//! Turns an answer into its events (server-sent, one `event:` and one `data:` line each) and into the whole body that
//! an unstreamed request gets. Texts and arguments are cut into pieces, so that an agent has to join them, as in life.
//! It knows nothing of sockets or scripts.

use serde_json::{Map, Value, json};

/// A tool call of the model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Call {
    /// With JSON arguments.
    Arguments { name: String, namespace: Option<String>, input: Value },
    /// With free text.
    Free { name: String, input: String },
}

/// An answer in both forms.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The body of an unstreamed answer.
    pub whole: Value,
    /// Events in order: name and data.
    pub events: Vec<(String, Value)>,
}

impl Answer {
    /// The body of a streamed answer. An event without a name is only its data.
    pub(crate) fn stream(&self) -> String {
        let named = |name: &str| if name.is_empty() { String::new() } else { format!("event: {name}\n") };
        self.events.iter().map(|(name, data)| format!("{}data: {data}\n\n", named(name))).collect()
    }

    fn event(&mut self, name: &str, mut data: Value) {
        if let Some(fields) = data.as_object_mut() {
            fields.insert("type".to_owned(), name.into());
        }
        self.events.push((name.to_owned(), data));
    }
}

/// At most three pieces of about the same size; an empty text is one empty piece.
fn pieces(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    if characters.is_empty() {
        return vec![String::new()];
    }
    characters.chunks(characters.len().div_ceil(3)).map(|piece| piece.iter().collect()).collect()
}

/// An answer of the Anthropic Messages API.
pub(crate) fn messages(id: &str, model: &str, words: Option<&str>, calls: &[Call]) -> Answer {
    let usage = json!({"input_tokens": 100, "output_tokens": 20, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0});
    let message = |content: Vec<Value>, stop: Value| {
        json!({"id": format!("msg_{id}"), "type": "message", "role": "assistant", "model": model, "content": content,
            "stop_reason": stop, "stop_sequence": null, "usage": usage})
    };
    let mut answer = Answer { whole: Value::Null, events: Vec::new() };
    answer.event("message_start", json!({"message": message(Vec::new(), Value::Null)}));
    let mut content = Vec::new();
    if words.is_some() || calls.is_empty() {
        let text = words.unwrap_or_default();
        let deltas = pieces(text).into_iter().map(|piece| json!({"type": "text_delta", "text": piece})).collect();
        block(&mut answer, content.len(), json!({"type": "text", "text": ""}), deltas);
        content.push(json!({"type": "text", "text": text}));
    }
    for (at, call) in calls.iter().enumerate() {
        let (name, input) = match call {
            Call::Arguments { name, input, .. } => (name, input.clone()),
            Call::Free { name, input } => (name, json!({"input": input})),
        };
        let start = json!({"type": "tool_use", "id": format!("toolu_{id}_{at}"), "name": name, "input": {}});
        let deltas = pieces(&input.to_string())
            .into_iter()
            .map(|piece| json!({"type": "input_json_delta", "partial_json": piece}))
            .collect();
        block(&mut answer, content.len(), start.clone(), deltas);
        content.push(with(&start, "input", input));
    }
    let stop = if calls.is_empty() { "end_turn" } else { "tool_use" };
    answer.event(
        "message_delta",
        json!({"delta": {"stop_reason": stop, "stop_sequence": null}, "usage": {"output_tokens": 20}}),
    );
    answer.event("message_stop", json!({}));
    answer.whole = message(content, stop.into());
    answer
}

fn block(answer: &mut Answer, index: usize, start: Value, deltas: Vec<Value>) {
    answer.event("content_block_start", json!({"index": index, "content_block": start}));
    for delta in deltas {
        answer.event("content_block_delta", json!({"index": index, "delta": delta}));
    }
    answer.event("content_block_stop", json!({"index": index}));
}

fn with(value: &Value, key: &str, field: Value) -> Value {
    let mut fields: Map<String, Value> = value.as_object().cloned().unwrap_or_default();
    fields.insert(key.to_owned(), field);
    Value::Object(fields)
}

/// An answer of the OpenAI Responses API.
pub(crate) fn responses(id: &str, model: &str, words: Option<&str>, calls: &[Call]) -> Answer {
    let base = |status: &str, output: Vec<Value>, usage: Value| {
        json!({"id": format!("resp_{id}"), "object": "response", "created_at": 1_750_000_000, "model": model,
            "status": status, "output": output, "usage": usage, "error": null, "incomplete_details": null,
            "instructions": null, "metadata": {}, "parallel_tool_calls": true, "temperature": 1.0,
            "tool_choice": "auto", "tools": [], "top_p": 1.0})
    };
    let mut answer = Answer { whole: Value::Null, events: Vec::new() };
    answer.event("response.created", json!({"response": base("in_progress", Vec::new(), Value::Null)}));
    let mut output = Vec::new();
    if words.is_some() || calls.is_empty() {
        output.push(spoken(&mut answer, &format!("msg_{id}"), words.unwrap_or_default()));
    }
    for (at, call) in calls.iter().enumerate() {
        let index = output.len();
        let call_id = format!("call_{id}_{at}");
        let (mut item, field, stem, value) = match call {
            Call::Arguments { name, namespace, input } => {
                let mut item =
                    json!({"id": format!("fc_{id}_{at}"), "type": "function_call", "call_id": call_id, "name": name});
                if let Some(namespace) = namespace {
                    item = with(&item, "namespace", namespace.as_str().into());
                }
                (item, "arguments", "response.function_call_arguments", input.to_string())
            }
            Call::Free { name, input } => (
                json!({"id": format!("ctc_{id}_{at}"), "type": "custom_tool_call", "call_id": call_id, "name": name}),
                "input",
                "response.custom_tool_call_input",
                input.clone(),
            ),
        };
        let item_id = item.get("id").cloned().unwrap_or_default();
        let started = with(&with(&item, "status", "in_progress".into()), field, "".into());
        answer.event("response.output_item.added", json!({"output_index": index, "item": started}));
        for piece in pieces(&value) {
            answer.event(&format!("{stem}.delta"), json!({"item_id": item_id, "output_index": index, "delta": piece}));
        }
        answer.event(&format!("{stem}.done"), json!({"item_id": item_id, "output_index": index, field: value}));
        item = with(&with(&item, "status", "completed".into()), field, value.into());
        answer.event("response.output_item.done", json!({"output_index": index, "item": item}));
        output.push(item);
    }
    let usage = json!({"input_tokens": 100, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 120});
    answer.whole = base("completed", output, usage);
    let whole = answer.whole.clone();
    answer.event("response.completed", json!({"response": whole}));
    for (number, (_, data)) in answer.events.iter_mut().enumerate() {
        *data = with(data, "sequence_number", number.into());
    }
    answer
}

fn spoken(answer: &mut Answer, id: &str, text: &str) -> Value {
    let item = |status: &str, content: Vec<Value>| json!({"id": id, "type": "message", "role": "assistant", "status": status, "content": content});
    let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
    let at = |key: &str, value: Value| with(&json!({"item_id": id, "output_index": 0, "content_index": 0}), key, value);
    answer.event("response.output_item.added", json!({"output_index": 0, "item": item("in_progress", Vec::new())}));
    answer.event("response.content_part.added", at("part", part("")));
    for piece in pieces(text) {
        answer.event("response.output_text.delta", at("delta", piece.into()));
    }
    answer.event("response.output_text.done", at("text", text.into()));
    answer.event("response.content_part.done", at("part", part(text)));
    let done = item("completed", vec![part(text)]);
    answer.event("response.output_item.done", json!({"output_index": 0, "item": done}));
    done
}

/// An answer of the Gemini API.
pub(crate) fn contents(words: Option<&str>, calls: &[Call]) -> Answer {
    let mut parts: Vec<Value> = Vec::new();
    let mut answer = Answer { whole: Value::Null, events: Vec::new() };
    let usage = json!({"promptTokenCount": 100, "candidatesTokenCount": 20, "totalTokenCount": 120});
    let chunk = |parts: Vec<Value>, last: bool| {
        let mut candidate = json!({"index": 0, "content": {"role": "model", "parts": parts}});
        if last {
            candidate = with(&candidate, "finishReason", "STOP".into());
        }
        json!({"candidates": [candidate], "usageMetadata": usage})
    };
    if words.is_some() || calls.is_empty() {
        let text = words.unwrap_or_default();
        for piece in pieces(text) {
            answer.events.push((String::new(), chunk(vec![json!({"text": piece})], false)));
        }
        parts.push(json!({"text": text}));
    }
    let mut called = Vec::new();
    for call in calls {
        let (name, input) = match call {
            Call::Arguments { name, input, .. } => (name, input.clone()),
            Call::Free { name, input } => (name, json!({"input": input})),
        };
        called.push(json!({"functionCall": {"name": name, "args": input}}));
    }
    parts.extend(called.iter().cloned());
    answer
        .events
        .push((String::new(), chunk(if called.is_empty() { vec![json!({"text": ""})] } else { called }, true)));
    answer.whole = chunk(parts, true);
    answer
}
