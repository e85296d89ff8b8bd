//! Processes, seen on our own children only.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use creel_catalog::Catalog;
use creel_discover::{identity, nearest_agent, process};
use creel_model::ProcessKey;

/// A child that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts `cat` under another name and place, and waits until it answers: then its `exec` is done.
    fn cat(program: &std::path::Path) -> Self {
        let mut child = spawn(Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()));
        child.stdin.as_mut().unwrap().write_all(b"up\n").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        Self(child)
    }
}

/// Starts a program that was just written. Another test's child may hold the file open for writing between its fork
/// and its exec; then the kernel says "busy", and it is tried again.
fn spawn(command: &mut Command) -> Child {
    loop {
        match command.spawn() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            other => return other.unwrap(),
        }
    }
}

fn copy_of_cat(folder: &std::path::Path, path: &str) -> std::path::PathBuf {
    let program = folder.join(path);
    std::fs::create_dir_all(program.parent().unwrap()).unwrap();
    std::fs::copy("/bin/cat", &program).unwrap();
    program
}

#[test]
fn facts_of_a_child() {
    let folder = tempfile::tempdir().unwrap();
    let root = std::fs::canonicalize(folder.path()).unwrap();
    let program = copy_of_cat(&root, "node_modules/@openai/codex-linux-x64/vendor/codex");
    let child = Running::cat(&program);
    let facts = process::facts(child.0.id()).unwrap();
    assert_eq!(facts.exe, program.to_str().unwrap());
    assert_eq!(facts.argv, [program.to_str().unwrap()]);
    assert_eq!(facts.comm, "codex");
    assert_eq!(facts.ppid, std::process::id());
    assert_eq!(facts.uid, rustix::process::geteuid().as_raw());
    assert_eq!(facts.cwd, std::env::current_dir().unwrap().to_str().unwrap());
    assert!(facts.namespaces.contains_key("mnt") && !facts.exe_deleted);
    assert_eq!(Catalog::built_in().match_process(&facts).unwrap().id, "codex");
    assert!(
        process::agents(&Catalog::built_in()).iter().any(|(kind, found)| kind == "codex" && found.key == facts.key)
    );

    let expected = creel_discover::look::look(program.to_str().unwrap(), true).digest;
    assert_eq!(identity::of_process(facts.key, facts.identity.unwrap()), expected);
    std::fs::remove_file(&program).unwrap();
    let facts = process::facts(child.0.id()).unwrap();
    assert!(facts.exe_deleted && facts.exe == program.to_str().unwrap());

    let pidfd =
        rustix::process::pidfd_open(rustix::process::Pid::from_child(&child.0), rustix::process::PidfdFlags::empty())
            .unwrap();
    assert_eq!(process::facts_by_pidfd(&pidfd).unwrap().key, facts.key);
    drop(child);
    assert!(!process::is_alive(facts.key));
    assert_eq!(process::facts_by_pidfd(&pidfd), None);
    assert_eq!(identity::of_process(facts.key, facts.identity.unwrap()), None);
}

#[test]
fn ancestors_and_the_nearest_agent() {
    let folder = tempfile::tempdir().unwrap();
    let root = std::fs::canonicalize(folder.path()).unwrap();
    // A shell that stands where Claude Code stands, and a child of it.
    let agent = root.join("node_modules/@anthropic-ai/claude-code/bin/claude.exe");
    std::fs::create_dir_all(agent.parent().unwrap()).unwrap();
    std::fs::copy("/bin/sh", &agent).unwrap();
    let program = copy_of_cat(&root, "tool");
    // Two commands, so that the shell stays and does not become its child.
    let script = format!("'{}'; exit 0", program.display());
    let mut child =
        Running(spawn(Command::new(&agent).args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped())));
    child.0.stdin.as_mut().unwrap().write_all(b"up\n").unwrap();
    let mut line = String::new();
    BufReader::new(child.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.0.id())).unwrap();
    let tool: u32 = children.split_whitespace().next().unwrap().parse().unwrap();

    let chain = process::ancestors(tool);
    assert_eq!(chain[0].exe, program.to_str().unwrap());
    assert_eq!(chain[1].key.pid, child.0.id());
    assert_eq!(chain[2].key.pid, std::process::id());
    let found = nearest_agent(tool, &Catalog::built_in()).unwrap();
    assert_eq!((found.kind.as_str(), found.agent.key.pid), ("claude-code", child.0.id()));
    assert!(found.by_executable);
    assert_eq!(found.between, [chain[0].key]);
    // What stands above us is the machine's business; of our own making there is one agent only.
    assert!(found.above.iter().all(|(_, key)| key.pid != child.0.id()));
    drop(child.0.stdin.take());
    child.0.wait().unwrap();
}

#[test]
fn nobody_is_nobody() {
    let gone = {
        let mut child = Command::new("/bin/true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    };
    let key = ProcessKey { pid: gone, start_ticks: u64::MAX };
    assert!(!process::is_alive(key));
    assert!(process::facts(0).is_none());
    assert!(process::ancestors(u32::MAX).is_empty());
    assert!(nearest_agent(u32::MAX, &Catalog::built_in()).is_none());
}

#[test]
fn catalogued_variables_only() {
    let child = Command::new("/bin/cat")
        .env_clear()
        .env("CODEX_HOME", "/x")
        .env("OPENAI_API_KEY", "sk-A1b2C3")
        .env("PRIVATE", "p")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Running(child);
    child.0.stdin.as_mut().unwrap().write_all(b"up\n").unwrap();
    let mut line = String::new();
    BufReader::new(child.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let catalog = Catalog::built_in();
    let key = process::facts(child.0.id()).unwrap().key;
    let names = ["CODEX_HOME", "OPENAI_API_KEY", "PRIVATE"].into();
    let found = process::variables(key, &names, &catalog);
    let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(found, [("CODEX_HOME", "/x"), ("OPENAI_API_KEY", "(set)")]);
}

#[test]
fn identities_come_later() {
    let identities = identity::Identities::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = copy_of_cat(folder.path(), "tool");
    let child = Running::cat(&program);
    let facts = process::facts(child.0.id()).unwrap();
    let file = facts.identity.unwrap();
    assert_eq!(identities.digest(facts.key, file), None);
    let expected = creel_discover::look::look(program.to_str().unwrap(), true).digest;
    // The digest comes from another thread: asked again until it is there, however long this machine takes.
    let late = std::time::Instant::now() + std::time::Duration::from_secs(120);
    let found = loop {
        match identities.digest(facts.key, file) {
            None if std::time::Instant::now() < late => std::thread::yield_now(),
            found => break found,
        }
    };
    assert_eq!(found, expected);
}
