//! A model of three sentences on loopback: one forbidden call, one harmless call, an end.
//!
//! Plain HTTP/1.1, one request per connection, as much of two streaming protocols as one turn of Claude Code (Anthropic
//! Messages) or Codex (OpenAI Responses) needs. It contacts nobody. The one thing a newcomer gets wrong: it keeps no
//! state between requests. Which sentence comes next is told by how many tool results the conversation holds already,
//! so that a repeated request gets the same answer.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

/// Tools that run a shell command, by name, and the argument that holds it.
const SHELLS: [(&str, &str); 3] = [("Bash", "command"), ("exec_command", "cmd"), ("shell_command", "command")];
/// Bytes of a request; agents send some hundred kilobytes.
const REQUEST_BYTES_MAX: usize = 16 << 20;
/// Bytes of a request's head.
const HEAD_BYTES_MAX: u64 = 128 << 10;
/// Connections served at a time; beyond, one is closed.
const CONNECTIONS_MAX: usize = 16;
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(20);

/// What the model asks the agent to do.
#[derive(Clone, Debug)]
pub(super) struct Script {
    /// The first command.
    pub(super) forbidden: String,
    /// The second.
    pub(super) harmless: String,
}

/// The running endpoint; dropping it stops it.
#[derive(Debug)]
pub(super) struct Model {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    script: Script,
    stopping: AtomicBool,
    open: AtomicUsize,
    turns: AtomicUsize,
}

impl Model {
    /// Listens on a free port of 127.0.0.1.
    pub(super) fn start(script: Script) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            script,
            stopping: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            turns: AtomicUsize::new(0),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if theirs.stopping.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(connection) = connection else { continue };
                if theirs.open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
                    theirs.open.fetch_sub(1, Ordering::SeqCst);
                    continue;
                }
                let shared = Arc::clone(&theirs);
                std::thread::spawn(move || {
                    // An agent that hangs up shows in what it did, not here.
                    let _ = serve(&connection, &shared);
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// `http://127.0.0.1:PORT`.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How often the agent asked for a turn of the conversation.
    pub(super) fn turns(&self) -> usize {
        self.shared.turns.load(Ordering::SeqCst)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // The accept in progress must end, too.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the model says in one turn.
enum Said<'a> {
    Call(&'a str),
    Words(&'a str),
}

fn serve(connection: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    connection.set_read_timeout(Some(SILENCE))?;
    connection.set_write_timeout(Some(SILENCE))?;
    let (method, path, body) = request(connection)?;
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let messages = path.ends_with("/messages");
    if method != "POST" || !(messages || path.ends_with("/responses")) {
        return if path.ends_with("/models") {
            answer(connection, "200 OK", "application/json", r#"{"object":"list","data":[],"models":[]}"#)
        } else if path.ends_with("/messages/count_tokens") {
            answer(connection, "200 OK", "application/json", r#"{"input_tokens":100}"#)
        } else {
            let none = r#"{"type":"error","error":{"type":"not_found_error","message":"no such path"}}"#;
            answer(connection, "404 Not Found", "application/json", none)
        };
    }
    // Titles and other side questions offer no tools; they get a word and do not count.
    let offers_tools = body.get("tools").and_then(Value::as_array).is_some_and(|tools| !tools.is_empty());
    let results = if messages { results_of_messages(&body) } else { results_of_responses(&body) };
    let said = match (offers_tools, results) {
        (false, _) => Said::Words("ok"),
        (true, 0) => Said::Call(&shared.script.forbidden),
        (true, 1) => Said::Call(&shared.script.harmless),
        (true, _) => Said::Words("done"),
    };
    if offers_tools {
        shared.turns.fetch_add(1, Ordering::SeqCst);
    }
    let id = format!("creel{results:04}");
    let model = body.get("model").and_then(Value::as_str).unwrap_or("creel");
    let (whole, events) = if messages {
        in_messages(&id, model, shell(&body), &said)
    } else {
        in_responses(&id, model, shell(&body), &said)
    };
    if body.get("stream").and_then(Value::as_bool) == Some(true) {
        let stream: String = events
            .iter()
            .map(|event| {
                let name = event.get("type").and_then(Value::as_str).unwrap_or_default();
                format!("event: {name}\ndata: {event}\n\n")
            })
            .collect();
        answer(connection, "200 OK", "text/event-stream", &stream)
    } else {
        answer(connection, "200 OK", "application/json", &whole.to_string())
    }
}

fn answer(mut connection: &TcpStream, status: &str, kind: &str, body: &str) -> std::io::Result<()> {
    write!(
        connection,
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    connection.flush()
}

/// Method, path without query, body.
fn request(connection: &TcpStream) -> std::io::Result<(String, String, Vec<u8>)> {
    let bad = |why: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, why.to_owned());
    let mut reader = BufReader::new(connection);
    let mut head = reader.by_ref().take(HEAD_BYTES_MAX);
    let mut line = String::new();
    head.read_line(&mut line)?;
    let mut words = line.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or_default().split('?').next().unwrap_or_default().trim_end_matches('/').to_owned();
    let (mut length, mut chunked) = (0_usize, false);
    loop {
        let mut header = String::new();
        if head.read_line(&mut header)? == 0 {
            return Err(bad("the head ended early"));
        }
        let header = header.trim_end();
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').ok_or_else(|| bad("a header without a colon"))?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().map_err(|_| bad("content-length"))?,
            "transfer-encoding" => chunked = value.to_ascii_lowercase().contains("chunked"),
            "expect" => {
                let mut writer = connection;
                writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            _ => {}
        }
    }
    let mut body = Vec::new();
    if !chunked {
        if length > REQUEST_BYTES_MAX {
            return Err(bad("the request is too long"));
        }
        reader.take(length as u64).read_to_end(&mut body)?;
        return Ok((method, path, body));
    }
    loop {
        let mut size = String::new();
        reader.by_ref().take(64).read_line(&mut size)?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
            .map_err(|_| bad("chunk size"))?;
        if body.len().saturating_add(size) > REQUEST_BYTES_MAX {
            return Err(bad("the request is too long"));
        }
        reader.by_ref().take(size as u64).read_to_end(&mut body)?;
        let mut end = String::new();
        reader.by_ref().take(8).read_line(&mut end)?;
        if size == 0 {
            return Ok((method, path, body));
        }
    }
}

/// The shell that the agent offers; the first known one where it offers none by name.
fn shell(body: &Value) -> (&'static str, &'static str) {
    let offered = |name: &str| {
        let tools = body.get("tools").and_then(Value::as_array).into_iter().flatten();
        tools.filter_map(|tool| tool.get("name").and_then(Value::as_str)).any(|tool| tool == name)
    };
    let [first, ..] = SHELLS;
    SHELLS.into_iter().find(|(name, _)| offered(name)).unwrap_or(first)
}

fn results_of_messages(body: &Value) -> usize {
    let messages = body.get("messages").and_then(Value::as_array).into_iter().flatten();
    messages
        .filter_map(|message| message.get("content").and_then(Value::as_array))
        .flatten()
        .filter(|part| part.get("type").and_then(Value::as_str) == Some("tool_result"))
        .count()
}

fn results_of_responses(body: &Value) -> usize {
    let items = body.get("input").and_then(Value::as_array).into_iter().flatten();
    items.filter(|item| item.get("type").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("_output"))).count()
}

/// The Messages protocol: the whole body, and its events.
fn in_messages(id: &str, model: &str, tool: (&str, &str), said: &Said<'_>) -> (Value, Vec<Value>) {
    let message = |content: Vec<Value>, stop: Value| {
        json!({"id": format!("msg_{id}"), "type": "message", "role": "assistant", "model": model, "content": content,
            "stop_reason": stop, "stop_sequence": null, "usage": {"input_tokens": 100, "output_tokens": 20,
            "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}})
    };
    let (start, delta, content, stop) = match said {
        Said::Words(text) => (
            json!({"type": "text", "text": ""}),
            json!({"type": "text_delta", "text": text}),
            json!({"type": "text", "text": text}),
            "end_turn",
        ),
        Said::Call(command) => {
            let input = json!({tool.1: command, "description": "a test by creel"});
            let block =
                |input: Value| json!({"type": "tool_use", "id": format!("toolu_{id}"), "name": tool.0, "input": input});
            (
                block(json!({})),
                json!({"type": "input_json_delta", "partial_json": input.to_string()}),
                block(input),
                "tool_use",
            )
        }
    };
    let events = vec![
        json!({"type": "message_start", "message": message(Vec::new(), Value::Null)}),
        json!({"type": "content_block_start", "index": 0, "content_block": start}),
        json!({"type": "content_block_delta", "index": 0, "delta": delta}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": null},
            "usage": {"output_tokens": 20}}),
        json!({"type": "message_stop"}),
    ];
    (message(vec![content], stop.into()), events)
}

/// The Responses protocol: the whole body, and its events.
fn in_responses(id: &str, model: &str, tool: (&str, &str), said: &Said<'_>) -> (Value, Vec<Value>) {
    let item = match said {
        Said::Words(text) => json!({"id": format!("msg_{id}"), "type": "message", "role": "assistant",
            "status": "completed", "content": [{"type": "output_text", "text": text, "annotations": []}]}),
        Said::Call(command) => json!({"id": format!("fc_{id}"), "type": "function_call", "status": "completed",
            "call_id": format!("call_{id}"), "name": tool.0, "arguments": json!({tool.1: command}).to_string()}),
    };
    let response = |status: &str, output: Vec<Value>| {
        json!({"id": format!("resp_{id}"), "object": "response", "created_at": 1_750_000_000, "model": model,
            "status": status, "output": output, "error": null, "incomplete_details": null,
            "usage": {"input_tokens": 100, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 20,
                "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 120}})
    };
    let whole = response("completed", vec![item.clone()]);
    let events = vec![
        json!({"type": "response.created", "sequence_number": 0, "response": response("in_progress", Vec::new())}),
        json!({"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": item}),
        json!({"type": "response.output_item.done", "sequence_number": 2, "output_index": 0, "item": item}),
        json!({"type": "response.completed", "sequence_number": 3, "response": whole}),
    ];
    (whole, events)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        let script = Script { forbidden: "touch a".into(), harmless: "touch b".into() };
        Model::start(script).unwrap()
    }

    fn post(model: &Model, path: &str, body: &Value) -> String {
        let body = body.to_string();
        let mut connection = TcpStream::connect(model.address).unwrap();
        write!(connection, "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut text = String::new();
        connection.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn messages_go_on_by_the_results_they_hold() {
        let model = model();
        let ask = |results: usize| {
            let content: Vec<Value> = (0..results).map(|_| json!({"type": "tool_result"})).collect();
            let body = json!({"tools": [{"name": "Bash"}], "messages": [{"role": "user", "content": content}]});
            let text = post(&model, "/v1/messages?beta=true", &body);
            serde_json::from_str::<Value>(text.split_once("\r\n\r\n").unwrap().1).unwrap()
        };
        for _ in 0..2 {
            assert_eq!(ask(0)["content"][0]["input"]["command"], "touch a", "a repeated request, the same answer");
        }
        assert_eq!(ask(1)["content"][0]["input"]["command"], "touch b");
        assert_eq!(ask(2)["stop_reason"], "end_turn");
        assert_eq!(model.turns(), 4);
        let aside = post(&model, "/v1/messages", &json!({"messages": []}));
        assert!(aside.contains("end_turn"), "{aside}");
        assert_eq!(model.turns(), 4);
    }

    #[test]
    fn streams_end_as_the_protocols_say() {
        let model = model();
        let messages = post(&model, "/v1/messages", &json!({"stream": true, "tools": [{"name": "Bash"}]}));
        assert!(messages.contains("event: message_stop"), "{messages}");
        assert!(messages.contains("touch a"));
        let body = json!({"stream": true, "tools": [{"name": "x"}], "input": [{"type": "function_call_output"}]});
        let responses = post(&model, "/v1/responses", &body);
        assert!(responses.contains("event: response.completed") && responses.contains("touch b"), "{responses}");
    }

    #[test]
    fn the_shell_is_called_as_it_is_offered() {
        for (name, argument) in SHELLS {
            assert_eq!(shell(&json!({"tools": [{"name": "Read"}, {"name": name}]})), (name, argument));
        }
    }

    #[test]
    fn other_paths_and_lengths_are_refused() {
        let model = model();
        assert!(post(&model, "/v1/else", &json!({})).starts_with("HTTP/1.1 404"));
        let mut connection = TcpStream::connect(model.address).unwrap();
        write!(connection, "POST /v1/messages HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n").unwrap();
        let mut text = String::new();
        let _ = connection.read_to_string(&mut text);
        assert_eq!(text, "");
    }
}
