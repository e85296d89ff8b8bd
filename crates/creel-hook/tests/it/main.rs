//! The hook from outside: real processes, a listener of our own behind a socket of our own.

#![expect(clippy::unwrap_used, reason = "a failing test panics")]

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::{self, JoinHandle};

use creel_wire::hook::{Answer, PAYLOAD_BYTES_MAX, Request, encode_answer, read_request};
use tempfile::TempDir;

struct Lab {
    folder: TempDir,
}

impl Lab {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("hook.sock")
    }

    fn listen(&self) -> UnixListener {
        UnixListener::bind(self.socket()).unwrap()
    }

    /// Serves the given connections in order and returns the requests that could be read.
    fn serve(&self, behaviours: Vec<Behaviour>) -> JoinHandle<Vec<Request>> {
        let listener = self.listen();
        thread::spawn(move || {
            let mut requests = Vec::new();
            for behaviour in behaviours {
                let (mut stream, _) = listener.accept().unwrap();
                if let Ok(request) = read_request(&mut stream) {
                    requests.push(request);
                }
                behaviour(&mut stream);
            }
            requests
        })
    }

    fn hook(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_creel-hook"));
        command.args(arguments).args(["--socket", self.socket().to_str().unwrap()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str], payload: &[u8]) -> Output {
        feed(self.hook(arguments).spawn().unwrap(), payload)
    }
}

type Behaviour = Box<dyn FnOnce(&mut UnixStream) + Send>;

fn answering(exit_code: u8, stdout: &str, stderr: &str) -> Behaviour {
    let answer = Answer { exit_code, stdout: stdout.into(), stderr: stderr.into() };
    Box::new(move |stream| stream.write_all(&encode_answer(&answer).unwrap()).unwrap())
}

fn sending(bytes: &'static [u8]) -> Behaviour {
    Box::new(move |stream| drop(stream.write_all(bytes)))
}

fn breaking_off() -> Behaviour {
    Box::new(|_| ())
}

/// Keeps the connection open and says nothing until the hook is gone.
fn silent() -> Behaviour {
    Box::new(|stream| drop(stream.read(&mut [0])))
}

fn feed(mut hook: Child, payload: &[u8]) -> Output {
    hook.stdin.take().unwrap().write_all(payload).unwrap();
    hook.wait_with_output().unwrap()
}

#[track_caller]
fn check(output: &Output, exit_code: i32, stdout: &str, stderr: &str) {
    let found = (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert_eq!(found.0, Some(exit_code), "{found:?}");
    assert_eq!(found.1, stdout, "{found:?}");
    assert!(found.2.contains(stderr) && (!stderr.is_empty() || found.2.is_empty()), "{found:?}");
}

const TOOL: &[&str] = &["claude-code", "PreToolUse"];

#[test]
fn forwards_the_event_as_it_is_and_prints_the_answer_as_it_is() {
    let lab = Lab::new();
    let serving = lab.serve(vec![answering(0, "{\"x\":1}", ""), answering(2, "", "no\n"), answering(0, "", "")]);
    let hostile = b"{\"a\":\xff\xfe not json, cut o";
    check(&lab.run(TOOL, hostile), 0, "{\"x\":1}", "");
    check(&lab.run(&["codex", "PreToolUse", "--system", "--deadline-ms", "20000"], b"{}"), 2, "", "no\n");
    check(&lab.run(TOOL, b""), 0, "", "");
    let requests = serving.join().unwrap();
    assert_eq!(requests[0].payload, hostile);
    assert_eq!((requests[0].kind.as_str(), requests[0].event.as_str()), ("claude-code", "PreToolUse"));
    let socket = lab.socket().to_str().unwrap().to_owned();
    assert_eq!(requests[1].arguments, ["--system", "--deadline-ms", "20000", "--socket", &socket]);
    assert!(requests[2].payload.is_empty());
}

#[test]
fn without_a_daemon_gates_are_closed_and_records_are_silent() {
    let lab = Lab::new();
    let soon = |kind, event| lab.run(&[kind, event, "--deadline-ms", "300"], b"{}");
    check(&soon("claude-code", "PreToolUse"), 2, "", "the daemon is not there");
    check(&soon("claude-code", "UserPromptSubmit"), 2, "", "the daemon is not there");
    check(&soon("codex", "PreToolUse"), 2, "", "the daemon is not there");
    check(&soon("codex", "PostToolUse"), 2, "", "the daemon is not there");
    check(&soon("unknown-agent", "anything"), 2, "", "the daemon is not there");
    check(&soon("claude-code", "SessionEnd"), 0, "", "");
    check(&soon("claude-code", "Stop"), 0, "", "");
    let result = soon("claude-code", "PostToolUse");
    assert!(String::from_utf8_lossy(&result.stdout).starts_with(r#"{"continue":false,"stopReason":"creel: denied"#));
}

#[test]
fn a_stale_socket_is_like_no_daemon() {
    let lab = Lab::new();
    drop(lab.listen());
    assert!(lab.socket().exists());
    check(&lab.run(&["claude-code", "PreToolUse", "--deadline-ms", "300"], b"{}"), 2, "", "the daemon is not there");
}

#[test]
fn garbled_answers_are_a_no() {
    let garbled: [&[u8]; 6] = [
        b"allow, all of it please",
        b"CRLH\x02\x02\0\0\x09\0\0\0\0\0\0\0\0\0\0\0\0",
        b"CRLH\x01\x01\0\0\x09\0\0\0\0\0\0\0\0\0\0\0\0",
        b"CRLH\x01\x02\0\0\xff\xff\xff\xff",
        b"CRLH\x01\x02\0\0\x09\0\0\0\0\xff\0\0\0\0\0\0\0",
        b"CRLH\x01\x02\0\0\x09\0\0\0\x01\0\0\0\0\0\0\0\0",
    ];
    for bytes in garbled {
        let lab = Lab::new();
        let serving = lab.serve(vec![sending(bytes)]);
        check(&lab.run(TOOL, b"{}"), 2, "", "garbled");
        serving.join().unwrap();
    }
}

#[test]
fn a_daemon_that_says_nothing_is_a_no_at_the_deadline() {
    let lab = Lab::new();
    let serving = lab.serve(vec![silent()]);
    check(&lab.run(&["claude-code", "PreToolUse", "--deadline-ms", "300"], b"{}"), 2, "", "did not answer in time");
    serving.join().unwrap();
}

#[test]
fn a_daemon_that_dies_is_asked_again_and_a_dying_one_is_a_no() {
    let lab = Lab::new();
    let serving = lab.serve(vec![breaking_off(), answering(0, "", "")]);
    check(&lab.run(TOOL, b"{\"n\":1}"), 0, "", "");
    let requests = serving.join().unwrap();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0], requests[1]);

    let lab = Lab::new();
    let half = || sending(b"CRLH\x01\x02\0\0\x09\0\0\0\0\0");
    let serving = lab.serve(vec![breaking_off(), half(), breaking_off()]);
    check(&lab.run(TOOL, b"{}"), 2, "", "broke off");
    serving.join().unwrap();
}

#[test]
fn a_daemon_that_starts_late_is_waited_for() {
    let lab = Lab::new();
    let hook = lab.hook(TOOL).spawn().unwrap();
    let serving = lab.serve(vec![answering(0, "", "")]);
    check(&feed(hook, b"{}"), 0, "", "");
    serving.join().unwrap();
}

#[test]
fn a_folder_that_others_can_write_is_not_trusted() {
    let lab = Lab::new();
    let listener = lab.listen();
    fs::set_permissions(lab.folder.path(), Permissions::from_mode(0o777)).unwrap();
    check(&lab.run(TOOL, b"{}"), 2, "", "others can write its folder");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody was asked");
}

#[test]
fn a_folder_that_is_a_link_is_not_trusted() {
    let lab = Lab::new();
    let _listener = lab.listen();
    let link = lab.folder.path().join("link");
    std::os::unix::fs::symlink(lab.folder.path(), &link).unwrap();
    let mut hook = Command::new(env!("CARGO_BIN_EXE_creel-hook"));
    hook.args(TOOL).arg("--socket").arg(link.join("hook.sock"));
    hook.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    check(&feed(hook.spawn().unwrap(), b"{}"), 2, "", "not a folder");
}

#[test]
fn an_oversized_event_is_read_to_its_end_and_refused() {
    let lab = Lab::new();
    // `feed` fails if the hook ends before the agent has written everything.
    check(&lab.run(TOOL, &vec![b'x'; PAYLOAD_BYTES_MAX + 1_000_000]), 2, "", "bytes long, more than");
}

#[test]
fn the_largest_event_passes() {
    let lab = Lab::new();
    let serving = lab.serve(vec![answering(0, "", "")]);
    check(&lab.run(TOOL, &vec![b'x'; PAYLOAD_BYTES_MAX]), 0, "", "");
    assert_eq!(serving.join().unwrap()[0].payload.len(), PAYLOAD_BYTES_MAX);
}

#[test]
fn orders_that_are_not_understood_are_a_no() {
    let lab = Lab::new();
    check(&lab.run(&["claude-code", "PreToolUse", "--allow"], b"{}"), 2, "", "--allow");
    let mut bare = Command::new(env!("CARGO_BIN_EXE_creel-hook"));
    bare.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    check(&feed(bare.spawn().unwrap(), b"{}"), 2, "", "without kind and event");
}

#[test]
fn a_hostile_environment_changes_nothing() {
    let lab = Lab::new();
    let fake = Lab::new();
    fs::create_dir(fake.folder.path().join("creel")).unwrap();
    let trap = UnixListener::bind(fake.folder.path().join("creel/hook.sock")).unwrap();
    trap.set_nonblocking(true).unwrap();

    let serving = lab.serve(vec![answering(2, "", "held\n")]);
    let mut hook = lab.hook(TOOL);
    let elsewhere: &Path = fake.folder.path();
    for variable in ["XDG_RUNTIME_DIR", "TMPDIR", "HOME", "PATH", "LD_LIBRARY_PATH", "BASH_ENV", "CREEL_SOCKET"] {
        hook.env(variable, elsewhere);
    }
    hook.env("CLAUDE_CODE_SHELL_PREFIX", "/bin/true").env("RUST_BACKTRACE", "full").env("RUST_LOG", "trace");
    check(&feed(hook.spawn().unwrap(), b"{}"), 2, "", "held");
    serving.join().unwrap();
    assert!(trap.accept().is_err(), "the environment's daemon was asked");
}

#[test]
fn an_answer_that_cannot_be_printed_is_a_no() {
    let lab = Lab::new();
    let serving = lab.serve(vec![answering(0, "{\"deny\":1}", "")]);
    let mut hook = lab.hook(TOOL);
    hook.stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    assert_eq!(feed(hook.spawn().unwrap(), b"{}").status.code(), Some(2));
    serving.join().unwrap();
}
