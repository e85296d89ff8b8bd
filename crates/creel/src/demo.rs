//! `creel demo`: a recorded attack, played through the real hook, the real daemon and the real rules, enforced, in a
//! private folder that is gone afterwards.
//!
//! What is recorded are hook payloads as Claude Code sends them; nothing that they name is ever run, read or written.
//! The daemon attributes calls to the agent above the hook, so the calls are made by a copy of this program in a place
//! where that agent's program stands (`stage`). Verdicts are taken from the journal, answers from the hook.

mod stage;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use clap::Args;
use creel_journal::{Reader, Start as From};
use creel_model::{RecordKind, Verdict};
use nix::sys::signal::{SigSet, Signal};
use serde::Serialize;

use crate::connection::Place;
use crate::failure::{Exit, Failure, Outcome};
use crate::out::{self, Format, Look};
use crate::programs::{self, Start};
use crate::text::{clean, count, cut, pad, width};
use crate::{clock, show};

pub(crate) use stage::{Stage, run as stage};

/// Arguments of `creel demo`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  creel demo\n  creel demo --format jsonl     each decision as one JSON document")]
pub(crate) struct Arguments {
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Leave the folder with the journal for a look.
    #[arg(long)]
    keep: bool,
}

/// One decision of the demonstration.
#[derive(Debug, Serialize)]
struct Decided {
    step: u32,
    event: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<String>,
    /// What happens in the story.
    say: String,
    what: String,
    verdict: Verdict,
    rules: Vec<String>,
    reason: String,
    took_ns: u64,
    /// The hook's answer, byte for byte as the agent reads it.
    answer: String,
    exit_code: u8,
    /// The verdict is the one that the story expects.
    as_expected: bool,
}

/// What the journal is worth at the end.
#[derive(Debug, Serialize)]
struct Ended {
    decisions: usize,
    stopped: usize,
    as_expected: bool,
    journal: String,
    records: u64,
}

/// Plays it.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let folder = Folder::make(arguments.keep)?;
    let interrupted = Interrupted::watch()?;
    let program = folder.agent()?;
    let hook = programs::beside("creel-hook")?;
    let place = Place { runtime: folder.path("run"), system: false };
    let mut start = Start::default();
    for (name, value) in [("--runtime", "run"), ("--state", "state"), ("--configuration", "etc")] {
        start.arguments.extend([name.to_owned(), folder.text(value)]);
    }
    start.arguments.extend(["--user", "--enforce", "--with-parent", "--anchor", "none"].map(str::to_owned));
    let (mut daemon, connection) = programs::start(&place, &start)?;
    drop(connection);

    let mut agent = Command::new(&program)
        .arg("demo-agent")
        .args(["--hook".as_ref(), hook.as_os_str()])
        .args(["--socket".as_ref(), place.runtime.join("hook.sock").as_os_str()])
        .args(["--workspace".as_ref(), folder.path("site").as_os_str()])
        .current_dir(folder.path("site"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::file("start", &program, &error))?;
    interrupted.ends(&agent);
    let played = play(&mut agent, &folder, arguments.format);
    let _ = agent.wait();
    let stopped = stop(&mut daemon);
    if interrupted.happened() {
        return Err(Failure::new("interrupted; nothing is left behind"));
    }
    let (decided, ended) = (played?, stopped?);
    finish(&folder, &decided, ended, arguments)
}

/// Follows the stage line by line and the journal record by record.
fn play(agent: &mut std::process::Child, folder: &Folder, format: Format) -> Result<Vec<Decided>, Failure> {
    let journal = folder.path("state/journal");
    let mut reader = Reader::open(&journal, From::Beginning).map_err(|e| Failure::new(format!("{e:?}")))?;
    let look = Look::of_stdout();
    if format == Format::Table {
        out::lines([
            look.bold("a recorded attack, through the real hook, daemon and rules (nothing of it is run)"),
            String::new(),
        ])?;
    }
    let stdout = agent.stdout.take().ok_or_else(|| Failure::new("the stage has no output"))?;
    let mut all = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let played: stage::Played = serde_json::from_str(&line?)?;
        let record = next_decision(&mut reader, &played)?;
        let envelope = &record.envelope;
        let verdict = envelope.verdict.unwrap_or(Verdict::Allow);
        let decision = record.detail.as_ref().and_then(|detail| detail.decision.as_ref());
        let decided = Decided {
            step: played.step,
            event: played.event,
            tool: envelope.tool.clone(),
            say: played.say,
            what: played.what,
            verdict,
            rules: envelope.rules.clone(),
            reason: decision.map_or(String::new(), |decision| decision.reason.clone()),
            took_ns: envelope.took_ns,
            as_expected: (verdict >= Verdict::Ask) == played.expect_stop && played.stopped == played.expect_stop,
            answer: played.answer,
            exit_code: played.exit_code,
        };
        match format {
            Format::Table => out::lines(step_lines(&decided, look))?,
            Format::Jsonl => out::json(&decided, Format::Jsonl)?,
            Format::Json => {}
        }
        all.push(decided);
    }
    if all.is_empty() {
        return Err(Failure::new("the stage played nothing"));
    }
    Ok(all)
}

/// The record of the call that was just answered. It was appended before the answer was released, so it is there.
fn next_decision(reader: &mut Reader, played: &stage::Played) -> Result<creel_journal::Stored, Failure> {
    let found = reader.next_where(&mut |_, envelope| {
        matches!(envelope.kind, RecordKind::Decision | RecordKind::Event)
            && envelope.event.as_deref() == Some(played.event.as_str())
    });
    match found {
        Ok(Some(record)) => Ok(record),
        Ok(None) => Err(Failure::new(format!(
            "the journal holds no record of step {} ({}); the hook answered: {}",
            played.step, played.event, played.answer
        ))),
        Err(error) => Err(Failure::new(format!("the journal cannot be read: {error:?}"))),
    }
}

fn step_lines(decided: &Decided, look: Look) -> Vec<String> {
    let mut lines = Vec::new();
    if !decided.say.is_empty() {
        lines.push(look.dim(&cut(&clean(&decided.say), look.width)));
    }
    let verdict = decided.verdict.to_string();
    let what = match &decided.tool {
        Some(tool) if !decided.what.starts_with(tool.as_str()) => format!("{}: {}", clean(tool), clean(&decided.what)),
        _ => clean(&decided.what),
    };
    let took = clock::short(decided.took_ns);
    let head = format!("  {}  ", pad(&verdict, 6));
    let room = look.width.saturating_sub(width(&head) + width(&took) + 2);
    let what = crate::text::cut_middle(&what, room);
    let line = format!("{head}{}  {took}", pad(&what, room));
    lines.push(if decided.verdict >= Verdict::Ask { look.bold(&line) } else { line });
    if decided.verdict >= Verdict::Ask {
        let rules: Vec<&str> = decided.rules.iter().map(String::as_str).collect();
        let unanswered = if decided.verdict == Verdict::Ask { "nobody answers, so it stops: " } else { "" };
        let line = format!("          {unanswered}{}", show::reason_with_rules(&decided.reason, &rules));
        lines.extend(show::wrap_kept(&line, look.width, 10));
    }
    if !decided.as_expected {
        lines.push("          this is not what the story expects".to_owned());
    }
    lines
}

fn stop(daemon: &mut std::process::Child) -> Result<bool, Failure> {
    if let Ok(pid) = i32::try_from(daemon.id()) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM);
    }
    Ok(daemon.wait()?.success())
}

fn finish(folder: &Folder, decided: &[Decided], clean_stop: bool, arguments: &Arguments) -> Outcome {
    let key = crate::log::public_key(None, &folder.path("state/journal"))?;
    let verification = creel_journal::verify(&folder.path("state/journal"), &key.key, &[])
        .map_err(|error| Failure::new(format!("the journal cannot be verified: {error:?}")))?;
    let view = crate::log::verification_view(&verification);
    let intact = view.verdict != creel_wire::control::VerificationVerdict::Broken;
    let ended = Ended {
        decisions: decided.len(),
        stopped: decided.iter().filter(|decided| decided.verdict >= Verdict::Ask).count(),
        as_expected: decided.iter().all(|decided| decided.as_expected) && intact && clean_stop,
        journal: view.verdict.as_str().to_owned(),
        records: view.records,
    };
    match arguments.format {
        Format::Json => out::json(&serde_json::json!({ "decisions": decided, "end": ended }), Format::Json)?,
        Format::Jsonl => out::json(&ended, Format::Jsonl)?,
        Format::Table => {
            let mut lines = vec![
                String::new(),
                format!(
                    "{} of {} stopped; the journal of {} is {}",
                    ended.stopped,
                    count(ended.decisions as u64, "call"),
                    count(ended.records, "record"),
                    if intact { "consistent" } else { "broken" }
                ),
            ];
            if arguments.keep {
                lines.push(format!("kept: {}", clean(&folder.root.display().to_string())));
            } else {
                lines.push("nothing is left behind".to_owned());
            }
            lines.push("on this machine's own agents: `creel up`, then `creel guard install KIND`".to_owned());
            out::lines(lines.iter().flat_map(|line| show::wrap_kept(line, Look::of_stdout().width, 2)))?;
        }
    }
    if !ended.as_expected {
        out::say("creel: the demonstration did not go as recorded");
        return Ok(Exit::No);
    }
    Ok(Exit::Good)
}

/// A new folder that only this account can enter. Not below `TMPDIR`: a socket's path holds 108 bytes.
pub(crate) fn private_folder(name: &str) -> Result<PathBuf, Failure> {
    use std::io::Read as _;
    let mut random = [0; 6];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let path = Path::new("/tmp").join(format!("{name}-{}", creel_model::id::hex(&random)));
    let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
    made.map_err(|error| Failure::file("create", &path, &error))?;
    Ok(path)
}

/// The private folder; gone when this value goes.
struct Folder {
    root: PathBuf,
    keep: bool,
}

impl Folder {
    fn make(keep: bool) -> Result<Self, Failure> {
        let make = |path: &Path| {
            let made = std::fs::DirBuilder::new().mode(0o700).recursive(true).create(path);
            made.map_err(|error| Failure::file("create", path, &error))
        };
        let root = private_folder("creel-demo")?;
        let folder = Self { root, keep };
        for name in ["run", "state", "etc", "site/.git/hooks", "home/.local/share/claude/versions"] {
            make(&folder.path(name))?;
        }
        Ok(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// This program where the agent's program would stand.
    fn agent(&self) -> Result<PathBuf, Failure> {
        let own = std::env::current_exe()?;
        let path = self.path("home/.local/share/claude/versions/demo");
        std::fs::hard_link(&own, &path)
            .or_else(|_| std::fs::copy(&own, &path).map(drop))
            .map_err(|error| Failure::file("create", &path, &error))?;
        Ok(path)
    }
}

/// Ctrl-C ends the process that was started; then everything goes its ordinary way to the end and leaves nothing behind.
pub(crate) struct Interrupted {
    /// The stage's process; 0 before it runs, -1 once interrupted.
    stage: Arc<AtomicI32>,
}

impl Interrupted {
    pub(crate) fn watch() -> Result<Self, Failure> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            set.add(signal);
        }
        set.thread_block().map_err(|error| Failure::new(format!("cannot wait for signals: {error}")))?;
        let stage = Arc::new(AtomicI32::new(0));
        let shared = Arc::clone(&stage);
        std::thread::spawn(move || {
            while set.wait().is_ok() {
                end(shared.swap(-1, Ordering::SeqCst));
            }
        });
        Ok(Self { stage })
    }

    /// That process is the stage.
    pub(crate) fn ends(&self, agent: &std::process::Child) {
        let pid = i32::try_from(agent.id()).unwrap_or(0);
        if self.stage.compare_exchange(0, pid, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            end(pid);
        }
    }

    pub(crate) fn happened(&self) -> bool {
        self.stage.load(Ordering::SeqCst) == -1
    }
}

fn end(pid: i32) {
    if pid > 0 {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(&self.root);
        }
    }
}
