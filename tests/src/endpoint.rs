//! A scripted model on loopback: plays a list of steps to whatever agent asks, and keeps what it was asked.
//!
//! Turns steps into streamed answers of the Anthropic Messages API, the OpenAI Responses API and the Gemini API, which
//! are what Claude Code, Codex and Gemini CLI speak. It is plain HTTP/1.1, one thread and one request per connection. It does not check keys, count
//! tokens or judge. A newcomer gets wrong: only requests that offer tools take a step; titles, classifiers and other
//! side questions get the word `ok`, so that a script is about the conversation alone.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::sse::{self, Call};

/// Bytes of a request that are read; real agents send some hundred kilobytes.
const REQUEST_BYTES_MAX: usize = 32 << 20;
/// Bytes of a request's head that are read.
const HEAD_BYTES_MAX: u64 = 256 << 10;
/// How long a connection may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What the model says next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Words; the turn ends.
    Text(String),
    /// Words that quote the newest tool result it was given, after `RESULT=`; the turn ends.
    QuoteResult,
    /// One tool call.
    Tool {
        /// The tool's name as the agent offered it.
        name: String,
        /// Its arguments.
        input: Value,
    },
    /// Several tool calls in one answer.
    Tools(Vec<(String, Value)>),
    /// One free-form tool call, such as Codex's `apply_patch`; Responses only.
    Free {
        /// The tool's name.
        name: String,
        /// Its input as text.
        input: String,
    },
    /// One call of a tool in a namespace, such as an MCP server's in Codex; Responses only.
    Namespaced {
        /// The namespace, for example `mcp__server`.
        namespace: String,
        /// The tool's name in it.
        name: String,
        /// Its arguments.
        input: Value,
    },
    /// An HTTP error.
    Status(u16),
}

impl Step {
    /// Words; the turn ends.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// One tool call.
    #[must_use]
    pub fn tool(name: &str, input: Value) -> Self {
        Self::Tool { name: name.to_owned(), input }
    }

    fn calls(&self) -> Vec<Call> {
        let call = |name: &String, input: &Value| Call::Arguments {
            name: name.clone(),
            namespace: None,
            input: input.clone(),
        };
        match self {
            Self::Text(_) | Self::QuoteResult | Self::Status(_) => Vec::new(),
            Self::Tool { name, input } => vec![call(name, input)],
            Self::Tools(calls) => calls.iter().map(|(name, input)| call(name, input)).collect(),
            Self::Free { name, input } => vec![Call::Free { name: name.clone(), input: input.clone() }],
            Self::Namespaced { namespace, name, input } => {
                vec![Call::Arguments { name: name.clone(), namespace: Some(namespace.clone()), input: input.clone() }]
            }
        }
    }

    fn words(&self, last_result: &str) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::QuoteResult => Some(format!("RESULT={last_result}")),
            _ => None,
        }
    }
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method and path, for example `POST /v1/messages?beta=true`.
    pub line: String,
    /// The body as it came.
    pub raw: String,
    /// The body as JSON; null when it is none.
    pub body: Value,
    /// Names of the tools that were offered.
    pub tools: Vec<String>,
    /// Text of the newest tool result in the conversation.
    pub last_result: String,
    /// Which step was played, if one was.
    pub step: Option<usize>,
}

#[derive(Debug)]
struct State {
    script: Vec<Step>,
    next: usize,
    requests: Vec<Request>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    stopping: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The endpoint; dropping it stops it.
#[derive(Debug)]
pub struct Endpoint {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// Starts playing a script on a free port of loopback. After its end the model says `(end of script)`.
    ///
    /// # Errors
    ///
    /// No port could be had.
    pub fn start(script: Vec<Step>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on loopback")?;
        let address = listener.local_addr().context("own address")?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State { script, next: 0, requests: Vec::new() }),
            stopping: AtomicBool::new(false),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if theirs.stopping.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(connection) = connection else { continue };
                let shared = Arc::clone(&theirs);
                std::thread::spawn(move || {
                    // A client that hangs up is no concern of the script.
                    let _ = serve(&connection, &shared);
                });
            }
        });
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Every request so far, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    /// Whether any request so far held `text` anywhere: in a prompt, a tool result, a file that was read. JSON's
    /// escapes are undone, so that a text with quotes or line ends is found too.
    #[must_use]
    pub fn heard(&self, text: &str) -> bool {
        self.shared.state().requests.iter().any(|request| request.raw.contains(text) || holds(&request.body, text))
    }

    /// Text of the newest tool result that the model was given.
    #[must_use]
    pub fn last_result(&self) -> String {
        self.shared
            .state()
            .requests
            .iter()
            .rev()
            .find(|request| request.step.is_some())
            .map(|request| request.last_result.clone())
            .unwrap_or_default()
    }

    /// How many steps were played.
    #[must_use]
    pub fn played(&self) -> usize {
        let state = self.shared.state();
        state.next.min(state.script.len())
    }

    /// Begins another script; requests so far are kept.
    pub fn play(&self, script: Vec<Step>) {
        let mut state = self.shared.state();
        state.script = script;
        state.next = 0;
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // The accept in progress must end, too.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn holds(value: &Value, text: &str) -> bool {
    match value {
        Value::String(string) => string.contains(text),
        Value::Array(values) => values.iter().any(|value| holds(value, text)),
        Value::Object(fields) => fields.values().any(|value| holds(value, text)),
        _ => false,
    }
}

fn serve(connection: &TcpStream, shared: &Shared) -> Result<()> {
    connection.set_read_timeout(Some(SILENCE_MAX))?;
    connection.set_write_timeout(Some(SILENCE_MAX))?;
    let (line, raw) = read_request(connection)?;
    let body: Value = serde_json::from_str(&raw).unwrap_or(Value::Null);
    let mut words = line.split(' ');
    let method = words.next().unwrap_or_default();
    let path = words.next().unwrap_or_default().split('?').next().unwrap_or_default().trim_end_matches('/');
    let protocol = match (method, path) {
        ("POST", path) if path.ends_with("/messages/count_tokens") => {
            note(shared, &line, &raw, &body, false, Protocol::Messages);
            return answer_json(connection, 200, &json!({"input_tokens": 100}));
        }
        ("POST", path) if path.ends_with("/messages") => Protocol::Messages,
        ("POST", path) if path.ends_with("/responses") => Protocol::Responses,
        ("POST", path) if path.ends_with("GenerateContent") || path.ends_with(":generateContent") => Protocol::Contents,
        (_, path) => {
            note(shared, &line, &raw, &body, false, Protocol::Messages);
            return if path.ends_with("/models") {
                answer_json(connection, 200, &json!({"object": "list", "data": [], "models": []}))
            } else {
                answer_json(connection, 404, &json!({"error": {"type": "not_found_error", "message": "no such path"}}))
            };
        }
    };
    let main = body.get("tools").and_then(Value::as_array).is_some_and(|tools| !tools.is_empty());
    let (number, step, last_result) = note(shared, &line, &raw, &body, main, protocol);
    if let Step::Status(status) = step {
        return answer_json(
            connection,
            status,
            &json!({"type": "error", "error": {"type": "api_error", "message": "scripted"}}),
        );
    }
    let model = body.get("model").and_then(Value::as_str).unwrap_or("scripted");
    let id = format!("scripted{number:06}");
    let spoken = match protocol {
        Protocol::Messages => sse::messages(&id, model, step.words(&last_result).as_deref(), &step.calls()),
        Protocol::Responses => sse::responses(&id, model, step.words(&last_result).as_deref(), &step.calls()),
        Protocol::Contents => sse::contents(step.words(&last_result).as_deref(), &step.calls()),
    };
    // One of the three says it in the path.
    if body.get("stream").and_then(Value::as_bool) == Some(true) || path.ends_with(":streamGenerateContent") {
        answer(connection, 200, "text/event-stream", spoken.stream().as_bytes())
    } else {
        answer_json(connection, 200, &spoken.whole)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Protocol {
    Messages,
    Responses,
    Contents,
}

/// Keeps a request and, if it belongs to the conversation, takes the next step.
fn note(shared: &Shared, line: &str, raw: &str, body: &Value, main: bool, protocol: Protocol) -> (usize, Step, String) {
    let last_result = last_result(body, protocol);
    let tools = body
        .get("tools")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .flat_map(|tool| match tool.get("functionDeclarations").and_then(Value::as_array) {
            Some(declared) => declared.iter().collect(),
            None => vec![tool],
        })
        .filter_map(|tool| tool.get("name").or_else(|| tool.get("type")).and_then(Value::as_str).map(str::to_owned))
        .collect();
    let mut state = shared.state();
    let (step, played) = if main {
        let at = state.next;
        state.next += 1;
        (state.script.get(at).cloned().unwrap_or_else(|| Step::text("(end of script)")), Some(at))
    } else {
        let schema =
            ["responseJsonSchema", "responseSchema"].iter().find_map(|key| body.get("generationConfig")?.get(key));
        (Step::Text(schema.map_or_else(|| "ok".to_owned(), |schema| filled(schema).to_string())), None)
    };
    let number = state.requests.len();
    state.requests.push(Request {
        line: line.to_owned(),
        raw: raw.to_owned(),
        body: body.clone(),
        tools,
        last_result: last_result.clone(),
        step: played,
    });
    (number, step, last_result)
}

/// The smallest value of a schema: an agent that asks for one asks again and again until it gets it.
fn filled(schema: &Value) -> Value {
    match schema.get("type").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase().as_str() {
        "object" => {
            let properties = schema.get("properties").and_then(Value::as_object);
            properties.into_iter().flatten().map(|(name, schema)| (name.clone(), filled(schema))).collect()
        }
        "array" => json!([]),
        "integer" | "number" => json!(1),
        "boolean" => json!(false),
        _ => schema.pointer("/enum/0").cloned().unwrap_or_else(|| json!("ok")),
    }
}

fn last_result(body: &Value, protocol: Protocol) -> String {
    let mut last = String::new();
    match protocol {
        Protocol::Messages => {
            for message in body.get("messages").and_then(Value::as_array).into_iter().flatten() {
                for part in message.get("content").and_then(Value::as_array).into_iter().flatten() {
                    if part.get("type").and_then(Value::as_str) == Some("tool_result") {
                        last = flat(part.get("content").unwrap_or(&Value::Null));
                    }
                }
            }
        }
        Protocol::Responses => {
            for item in body.get("input").and_then(Value::as_array).into_iter().flatten() {
                if item.get("type").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("_output")) {
                    last = flat(item.get("output").unwrap_or(&Value::Null));
                }
            }
        }
        Protocol::Contents => {
            for content in body.get("contents").and_then(Value::as_array).into_iter().flatten() {
                for part in content.get("parts").and_then(Value::as_array).into_iter().flatten() {
                    if let Some(response) = part.pointer("/functionResponse/response") {
                        last = flat(response);
                    }
                }
            }
        }
    }
    last
}

/// All text inside a message's content.
fn flat(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(flat).collect::<Vec<_>>().join("\n"),
        Value::Object(fields) => ["text", "content", "output", "error"]
            .iter()
            .find_map(|key| fields.get(*key))
            .map_or_else(|| value.to_string(), flat),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn read_request(connection: &TcpStream) -> Result<(String, String)> {
    let mut reader = BufReader::new(connection);
    let mut head = reader.by_ref().take(HEAD_BYTES_MAX);
    let mut line = String::new();
    head.read_line(&mut line).context("request line")?;
    let mut length = 0;
    let mut chunked = false;
    loop {
        let mut header = String::new();
        ensure!(head.read_line(&mut header).context("header")? > 0, "the head ended early");
        let header = header.trim_end();
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').context("header without a colon")?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().context("content-length")?,
            "transfer-encoding" => chunked = value.to_ascii_lowercase().contains("chunked"),
            "content-encoding" => bail!("compressed requests are not understood: {value}"),
            "expect" => {
                let mut writer = connection;
                writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).context("chunk size")?;
            let size =
                usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16).context("chunk size")?;
            ensure!(body.len().saturating_add(size) <= REQUEST_BYTES_MAX, "the request is too long");
            let mut chunk = vec![0; size];
            reader.read_exact(&mut chunk).context("chunk")?;
            body.extend(chunk);
            let mut end = String::new();
            reader.read_line(&mut end).context("end of chunk")?;
            if size == 0 {
                break;
            }
        }
    } else {
        ensure!(length <= REQUEST_BYTES_MAX, "the request is too long");
        body = vec![0; length];
        reader.read_exact(&mut body).context("body")?;
    }
    Ok((line.trim_end().to_owned(), String::from_utf8_lossy(&body).into_owned()))
}

fn answer_json(connection: &TcpStream, status: u16, body: &Value) -> Result<()> {
    answer(connection, status, "application/json", body.to_string().as_bytes())
}

fn answer(mut connection: &TcpStream, status: u16, kind: &str, body: &[u8]) -> Result<()> {
    write!(
        connection,
        "HTTP/1.1 {status} Scripted\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )?;
    connection.write_all(body)?;
    connection.flush()?;
    Ok(())
}
