//! Test programs: built once by cargo, run one after the other, each under a deadline.
//!
//! Turns a list of packages into counts of tests passed and failed. A test that fails is run once more, alone: if it
//! then passes it counts as passed and is shouted about as FLAKY, so that a rare race does not hide a good change and
//! is never silent either; if it fails again it failed. What it does not do: decide which packages to test.
//! A newcomer gets wrong: cargo only builds here. Running the programs ourselves gives deadlines, and lets the
//! second run name exactly the failed tests.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::place;

/// Bytes of a test program's output that are kept; beyond, the middle is dropped when it is shown.
const OUTPUT_BYTES_MAX: usize = 4 << 20;
/// Failed tests that are tried again; more than that is not a race.
const AGAIN_MAX: usize = 10;

/// How long output is still awaited after the end of the program that wrote it.
const AFTER_END_MAX: Duration = Duration::from_secs(2);

/// Which test programs, and how they are run.
pub(crate) struct Suite {
    /// Arguments for `cargo test --no-run` that choose packages.
    pub choose: Vec<String>,
    /// Environment of the test programs.
    pub environment: BTreeMap<String, String>,
    /// How long one program may take.
    pub deadline: Duration,
    /// Threads of one program.
    pub threads: usize,
    /// Whether each test's name is shown as it ends.
    pub every_name: bool,
}

/// What came out.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Tests that passed, second tries included.
    pub passed: usize,
    /// Names of tests that failed twice, or of programs that broke.
    pub failed: Vec<String>,
    /// Names of tests that passed only at the second try.
    pub flaky: Vec<String>,
    /// Tests that said they skipped something.
    pub skipped: Vec<String>,
}

struct Program {
    package: String,
    target: String,
    path: PathBuf,
    folder: PathBuf,
}

impl Suite {
    /// Builds and runs.
    pub(crate) fn run(&self) -> Result<Counts> {
        let mut counts = Counts::default();
        for program in self.build()? {
            let label = format!("{} ({})", program.package, program.target);
            let started = Instant::now();
            let first = self.start(&program, &[])?;
            let outcome = Outcome::read(&first.output);
            counts.skipped.extend(outcome.skipped.iter().map(|what| format!("{label}: {what}")));
            if self.every_name {
                for line in first.output.lines().filter(|line| line.starts_with("test ") && line.contains(" ... ")) {
                    println!("    {line}");
                }
            }
            counts.passed += outcome.passed;
            if outcome == Outcome::default() && first.good {
                continue;
            }
            println!(
                "  {label}: {} passed, {} failed, {:.1} s",
                outcome.passed,
                outcome.failed.len(),
                started.elapsed().as_secs_f64()
            );
            if first.good && outcome.failed.is_empty() {
                continue;
            }
            println!("{}", indent(&first.output));
            if outcome.failed.is_empty() || first.timed_out {
                // It broke as a whole: a crash, or the deadline. There is no test to try again.
                counts.failed.push(format!("{label}: {}", first.end));
                continue;
            }
            for (at, name) in outcome.failed.iter().enumerate() {
                if at >= AGAIN_MAX {
                    counts.failed.push(format!("{label} {name}"));
                    continue;
                }
                println!("  {label}: once more: {name}");
                let second = self.start(&program, &["--exact", name])?;
                if second.good && Outcome::read(&second.output).passed == 1 {
                    println!("  FLAKY, mend it: {label} {name}");
                    counts.passed += 1;
                    counts.flaky.push(format!("{label} {name}"));
                } else {
                    println!("{}", indent(&second.output));
                    counts.failed.push(format!("{label} {name}"));
                }
            }
        }
        Ok(counts)
    }

    fn build(&self) -> Result<Vec<Program>> {
        let output = Command::new("cargo")
            .args(["test", "--quiet", "--locked", "--no-run", "--lib", "--bins", "--tests"])
            .args(["--message-format", "json-render-diagnostics"])
            .args(&self.choose)
            .current_dir(place::root())
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("cargo test --no-run")?;
        ensure!(output.status.success(), "the tests do not build");
        let mut programs = Vec::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
            programs.extend(program(&message));
        }
        Ok(programs)
    }

    fn start(&self, program: &Program, arguments: &[&str]) -> Result<Ended> {
        let threads = format!("--test-threads={}", self.threads);
        let mut all = vec![threads.as_str()];
        all.extend(arguments);
        // A test that prints nothing tells nothing when it hangs; its name on standard output does.
        let mut command = Command::new(&program.path);
        command
            .args(all)
            .envs(&self.environment)
            .env("CARGO_MANIFEST_DIR", &program.folder)
            .current_dir(&program.folder);
        with_deadline(command, self.deadline)
    }
}

fn program(message: &Value) -> Option<Program> {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    if message.get("reason")?.as_str()? != "compiler-artifact" || message.get("profile")?.get("test")? != true {
        return None;
    }
    let path = PathBuf::from(text(message.get("executable"))?);
    let manifest = PathBuf::from(text(message.get("manifest_path"))?);
    let target = message.get("target")?;
    let kind = target.get("kind")?.as_array()?.first()?.as_str()?;
    let folder = manifest.parent()?.to_path_buf();
    Some(Program {
        package: folder.file_name()?.to_string_lossy().into_owned(),
        target: if kind == "lib" { kind.to_owned() } else { format!("{kind} {}", text(target.get("name"))?) },
        path,
        folder,
    })
}

/// How a program ended.
pub(crate) struct Ended {
    /// Exit code 0.
    pub good: bool,
    /// The deadline passed and it was ended.
    pub timed_out: bool,
    /// The end in words.
    pub end: String,
    /// Standard output and standard error, in the order in which they were written.
    pub output: String,
}

/// Runs a program to its end or to the deadline, whichever is first. `timeout` ends the whole process group, so that
/// nothing a test started outlives it.
pub(crate) fn with_deadline(command: Command, deadline: Duration) -> Result<Ended> {
    let shown = format!("{:?}", command.get_program());
    let (mut reader, writer) = std::io::pipe().context("pipe")?;
    let mut wrapped = Command::new("timeout");
    wrapped.args(["--kill-after=10", &deadline.as_secs().max(1).to_string()]);
    wrapped.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    wrapped.stdin(Stdio::null()).stdout(writer.try_clone().context("pipe")?).stderr(writer);
    let mut child = wrapped.spawn().with_context(|| format!("start {shown}"))?;
    // The command holds our copies of the pipe's writing end; without this the read below never ends.
    drop(wrapped);
    // A thread reads, so that a forgotten grandchild which holds the pipe open cannot hold us up after the end.
    let (sender, receiver) = std::sync::mpsc::channel::<Vec<u8>>();
    std::thread::spawn(move || {
        let mut chunk = vec![0u8; 64 << 10];
        loop {
            match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => {
                    if sender.send(chunk.iter().take(read).copied().collect()).is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    });
    let status = child.wait().with_context(|| format!("wait for {shown}"))?;
    let mut kept = Vec::new();
    while let Ok(chunk) = receiver.recv_timeout(AFTER_END_MAX) {
        if kept.len() < OUTPUT_BYTES_MAX {
            kept.extend(chunk);
        }
    }
    let timed_out = matches!(status.code(), Some(124 | 137));
    Ok(Ended {
        good: status.success(),
        timed_out,
        end: if timed_out { format!("ended after {} s", deadline.as_secs()) } else { status.to_string() },
        output: String::from_utf8_lossy(&kept).into_owned(),
    })
}

/// What a test program said about its tests.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
}

impl Outcome {
    fn read(output: &str) -> Self {
        let mut outcome = Self::default();
        for line in output.lines() {
            if let Some(rest) = line.strip_prefix("test ") {
                // A test may print before its own verdict; the verdict is what ends the line.
                let name = rest.split(" ... ").next().unwrap_or(rest).trim_end_matches(" - should panic");
                if rest.ends_with(" ... ok") || (rest.contains(" ... ") && rest.ends_with("ok")) {
                    outcome.passed += 1;
                } else if rest.ends_with("FAILED") {
                    outcome.failed.push(name.to_owned());
                }
            } else if let Some(what) = line.trim_start().strip_prefix("SKIPPED: ") {
                outcome.skipped.push(what.to_owned());
            }
        }
        // With several threads two lines may run together; the program's own sum is the authority on passes.
        for line in output.lines().filter_map(|line| line.strip_prefix("test result: ")) {
            let passed = line.split("; ").find_map(|part| part.rsplit_once(" passed").map(|(number, _)| number));
            if let Some(passed) = passed.and_then(|part| part.rsplit(' ').next()).and_then(|n| n.parse().ok()) {
                outcome.passed = passed;
            }
        }
        for name in listed_failures(output) {
            if !outcome.failed.contains(&name) {
                outcome.failed.push(name);
            }
        }
        outcome
    }
}

/// The list of names after the last line `failures:`.
fn listed_failures(output: &str) -> Vec<String> {
    let Some((_, list)) = output.rsplit_once("\nfailures:\n") else { return Vec::new() };
    list.lines().take_while(|line| line.starts_with("    ")).map(|line| line.trim().to_owned()).collect()
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    | {line}")).collect::<Vec<_>>().join("\n")
}

/// Counts of a documentation-test run, whose programs cargo does not hand out.
pub(crate) fn count_lines(output: &str) -> (usize, Vec<String>) {
    let mut passed = 0;
    let mut failed = Vec::new();
    for line in output.lines().filter_map(|line| line.strip_prefix("test ")) {
        if line.ends_with("ok") {
            passed += 1;
        } else if line.ends_with("FAILED") {
            failed.push(line.split(" ... ").next().unwrap_or(line).to_owned());
        }
    }
    (passed, failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_run_is_counted() {
        let output = "running 2 tests\ntest a::b ... ok\ntest c ... ok\n\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
        assert_eq!(Outcome::read(output), Outcome { passed: 2, ..Outcome::default() });
    }

    #[test]
    fn failures_are_named_once() {
        let output = "test a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nboom\n\n\nfailures:\n    b\n    x::c\n\ntest result: FAILED. 1 passed; 2 failed; 0 ignored\n";
        let outcome = Outcome::read(output);
        assert_eq!(outcome.passed, 1);
        assert_eq!(outcome.failed, ["b", "x::c"]);
    }

    #[test]
    fn a_skip_is_heard() {
        assert_eq!(Outcome::read("SKIPPED: needs root\ntest a ... ok\n").skipped, ["needs root"]);
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let ended = with_deadline(command, Duration::from_secs(1)).unwrap();
        assert!(ended.timed_out && !ended.good);
    }

    #[test]
    fn output_and_exit_code_come_back() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let ended = with_deadline(command, Duration::from_secs(20)).unwrap();
        assert_eq!(ended.output, "out\nerr\n");
        assert!(!ended.good && !ended.timed_out);
    }
}
