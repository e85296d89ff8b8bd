//! The command line as a person uses it: `creel` in a shell, with and without a terminal, with and without a daemon.
//!
//! Every test has a stage of its own and a person on it. The recorded attack of `creel demo` is played against the
//! person's own daemon where records are needed, so that these tests need no agent.

mod demo;
mod log;
mod look;
mod policy;
mod up;

use creel_tests::{Account, Deadline, Finished, Running, Stage, until};
use serde_json::Value;

const HOME: &str = "/home/dana";
const STATE: &str = "/home/dana/.local/state/creel";

/// `creel` with these arguments, by the person.
fn creel(stage: &Stage, arguments: &[&str]) -> Finished {
    stage.run(Account::USER, "creel").arguments(arguments.iter().copied()).finish(120).unwrap()
}

/// The same; it has to end well.
fn well(stage: &Stage, arguments: &[&str]) -> Finished {
    creel(stage, arguments).well().unwrap()
}

/// A line of the shell, by the person.
fn sh(stage: &Stage, line: &str) -> Finished {
    stage.run(Account::USER, "bash").arguments(["-c", line]).finish(120).unwrap()
}

fn json(stage: &Stage, arguments: &[&str]) -> Value {
    well(stage, arguments).json().unwrap()
}

fn lines(stage: &Stage, arguments: &[&str]) -> Vec<Value> {
    well(stage, arguments).json_lines().unwrap()
}

/// Plays the recorded attack against the person's daemon; gives back what the agent was told, step by step.
fn attack(stage: &Stage) -> Vec<Value> {
    let place = format!("{HOME}/.local/share/claude/versions");
    stage.make_folder(Account::USER, &place).unwrap();
    stage.make_folder(Account::USER, &format!("{HOME}/project/.git/hooks")).unwrap();
    let program = format!("{place}/demo");
    stage.run(Account::USER, "cp").arguments(["/usr/bin/creel", &program]).finish(30).unwrap().well().unwrap();
    let socket = format!("/run/user/{}/creel/hook.sock", Account::USER.id);
    let played = stage
        .run(Account::USER, &program)
        .arguments(["demo-agent", "--hook", "/usr/bin/creel-hook", "--socket", &socket, "--workspace"])
        .argument(format!("{HOME}/project"))
        .folder(&format!("{HOME}/project"));
    played.finish(120).unwrap().well().unwrap().json_lines().unwrap()
}

/// How many calls the recorded attack has, and how many of them are to be stopped.
const CALLS: usize = 14;
const STOPPED: usize = 5;

/// A program at a terminal of its own, for which the test types.
struct Terminal {
    running: Running,
    keys: std::fs::File,
}

impl Terminal {
    fn open(stage: &Stage, columns: u16, command: &str) -> Self {
        let pipe = format!("/tmp/keys-{columns}-{}", command.len());
        sh(stage, &format!("rm -f {pipe}; mkfifo {pipe}")).well().unwrap();
        // For reading too, so that opening does not wait for the other end.
        let keys = std::fs::OpenOptions::new().read(true).write(true).open(stage.outside(&pipe)).unwrap();
        let line = format!(
            "exec script --quiet --return --command 'stty cols {columns} rows 50 -echo; exec {command}' /dev/null < {pipe}"
        );
        let running = stage.run(Account::USER, "bash").arguments(["-c", &line]).environment("TERM", "xterm").start();
        Self { running: running.unwrap(), keys }
    }

    fn sees(&mut self, text: &str) {
        self.running.says(text, Deadline::seconds(60)).unwrap();
    }

    fn types(&mut self, keys: &str) {
        std::io::Write::write_all(&mut self.keys, keys.as_bytes()).unwrap();
    }

    fn ends(self) -> Finished {
        self.running.finish(Deadline::seconds(60)).unwrap()
    }

    /// The screen as it is now: the last whole redraw, without decoration.
    fn screen(&self) -> Vec<String> {
        let text = self.running.stdout();
        let frames: Vec<&str> = text.split("\u{1b}[H").collect();
        // The last one may not be complete yet; a whole one ends with "clear the rest".
        let whole = frames.iter().rev().find(|frame| frame.contains("\u{1b}[J")).unwrap();
        let whole = whole.split("\u{1b}[J").next().unwrap();
        plain(whole).lines().map(|line| line.trim_end_matches('\r').to_owned()).collect()
    }
}

/// Without escape sequences.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(letter) = rest.next() {
        if letter == '\u{1b}' {
            for letter in rest.by_ref() {
                if letter.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            plain.push(letter);
        }
    }
    plain
}

/// What a person does for something that loosens protection: `creel up` shows a code in one terminal, which is typed
/// in another.
fn confirmed(stage: &Stage, command: &str) -> Finished {
    let mut screen = Terminal::open(stage, 100, "creel up");
    screen.sees("Ctrl-C leaves this screen");
    let mut typing = Terminal::open(stage, 120, command);
    typing.sees("code on the `creel up` screen");
    let code = until("the code", Deadline::seconds(60), || {
        let lines = screen.screen();
        let line = lines.iter().find(|line| line.contains("code for `creel"))?;
        let code = line.split("`: ").nth(1)?.split(" (for").next()?;
        (line.contains("(for")).then(|| code.replace(' ', ""))
    })
    .unwrap();
    typing.types(&format!("{code}\r"));
    let ended = typing.ends();
    screen.types("\u{3}");
    let left = screen.ends();
    assert!(left.stdout.contains("creel goes on"), "{left}");
    ended
}
