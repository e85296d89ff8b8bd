//! The canary with the real agent: run it once, as the person who asks, against a model of three sentences, and report.
//!
//! The model asks the agent to make two files in a private folder. The first call holds a word that the daemon stops,
//! the second one that it does not. Which file is there in the end is what this program saw; which call reached the hook
//! is what the daemon saw; both together are the proof. The one thing a newcomer gets wrong: the agent runs with the
//! person's *own* configuration, because that is what is to be proved. Only the model, its key and what would contact
//! anybody else are replaced, for this one run.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use creel_dialect::kinds;
use creel_wire::control::{Answer, CanaryView, LiveReport, LiveWords, Request, Scope};
use serde_json::json;

use super::model::{Model, Script};
use crate::connection::Daemon;
use crate::demo::{Interrupted, private_folder};
use crate::failure::Failure;
use crate::{out, presence};

/// How long the agent may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at it.
const LOOK: Duration = Duration::from_millis(20);
/// How often what an agent left behind is looked for and ended.
const SWEEPS_MAX: u32 = 200;
/// Variables of the person's own that say where the agent's configuration is, or who they are.
const KEPT: [&str; 6] = ["USER", "LOGNAME", "SHELL", "LANG", "CLAUDE_CONFIG_DIR", "CODEX_HOME"];
/// What the agent is told; the model does not read it.
const PROMPT: &str = "creel tests whether its hook holds: two files in this folder, then the end";

/// Whether this account may run that agent for a proof.
pub(super) fn may_run(kind: &str) -> Result<(), Failure> {
    if name_of(kind).is_none() {
        return Err(Failure::new(format!("`{}` cannot be run headless by creel", crate::text::clean(kind)))
            .hint("without `--live` the hook alone is proved"));
    }
    if rustix::process::geteuid().is_root() || rustix::process::getuid() != rustix::process::geteuid() {
        return Err(Failure::new("the live canary runs the agent, and creel never runs an agent as root")
            .hint("run `creel guard canary KIND --live` under the account that uses the agent"));
    }
    presence::not_below_agent()
}

/// Proves it.
pub(super) fn prove(daemon: &mut Daemon, kind: &str, scope: Option<Scope>) -> Result<CanaryView, Failure> {
    let (name, program) = program(daemon, kind)?;
    let words = daemon.one(&Request::CanaryWord { kind: kind.to_owned(), scope }, |answer| match answer {
        Answer::CanaryWord(words) => Some(words),
        _ => None,
    })?;
    out::say(&format!("running {name} once, in an empty folder, with a model on loopback (at most a minute) …"));
    let folder = Folder::make()?;
    let report = run(kind, &program, &folder, &words)?;
    drop(folder);
    daemon.one(&Request::CanaryReport { report }, |answer| match answer {
        Answer::Canary(canary) => Some(canary),
        _ => None,
    })
}

fn name_of(kind: &str) -> Option<&'static str> {
    match kind {
        kinds::CLAUDE_CODE => Some("claude"),
        kinds::CODEX => Some("codex"),
        _ => None,
    }
}

/// The program that the person would run: by their `PATH`, else where the daemon found it installed.
fn program(daemon: &mut Daemon, kind: &str) -> Result<(&'static str, PathBuf), Failure> {
    let name = name_of(kind).unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let by_path = std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(name))
        .find(|program| is_program(program));
    if let Some(program) = by_path {
        return Ok((name, program));
    }
    let uid = rustix::process::getuid().as_raw();
    let agents = daemon.ask(&Request::Agents { scan: false, all_users: false })?;
    agents
        .into_iter()
        .filter_map(|answer| match answer {
            Answer::Agents(agents) => Some(agents),
            _ => None,
        })
        .flatten()
        .filter(|agent| agent.kind == kind && agent.uid == uid)
        .filter_map(|agent| agent.program.map(PathBuf::from))
        .find(|program| is_program(program))
        .map(|program| (name, program))
        .ok_or_else(|| {
            Failure::new(format!("`{name}` is not installed for this account"))
                .hint("without `--live` the hook alone is proved")
        })
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}

fn run(kind: &str, program: &Path, folder: &Folder, words: &LiveWords) -> Result<LiveReport, Failure> {
    let marker = |word: &str| folder.work().join(word);
    let model = Model::start(Script {
        forbidden: format!("touch {}", words.forbidden),
        harmless: format!("touch {}", words.harmless),
    })?;
    // Whatever the agent leaves behind becomes our child, to be ended.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(std::io::Error::from)?;
    let interrupted = Interrupted::watch()?;
    let mut command = command(kind, program, &model.url());
    command
        .current_dir(folder.work())
        .stdin(Stdio::null())
        .stdout(File::create(folder.root.join("output"))?)
        .stderr(File::create(folder.root.join("errors"))?);
    let mut report = LiveReport { forbidden: words.forbidden.clone(), ..LiveReport::default() };
    report.steps.push(format!("{} was run in an empty folder with a model on loopback", program.display()));
    match command.spawn() {
        Err(error) => report.failed = format!("`{}` cannot be started: {error}", program.display()),
        Ok(mut agent) => {
            interrupted.ends(&agent);
            let ended = wait(&mut agent);
            sweep();
            report.failed = failed(ended, &model, &marker(&words.harmless), &folder.root.join("errors"));
        }
    }
    if interrupted.happened() {
        return Err(Failure::new("interrupted; nothing is left behind"));
    }
    report.forbidden_ran = marker(&words.forbidden).symlink_metadata().is_ok();
    report.harmless_ran = marker(&words.harmless).symlink_metadata().is_ok();
    Ok(report)
}

/// Why the run proves nothing; empty where it came to its end.
fn failed(ended: Option<std::process::ExitStatus>, model: &Model, harmless: &Path, errors: &Path) -> String {
    let Some(status) = ended else { return format!("the agent did not end within {} s", PATIENCE.as_secs()) };
    if model.turns() == 0 {
        let why = "the agent did not ask the model of the canary; its settings may name another one";
        return with_words(why, errors);
    }
    if !status.success() && harmless.symlink_metadata().is_err() {
        return with_words(&format!("the agent ended early ({status})"), errors);
    }
    String::new()
}

/// The reason, with the last line that the agent said about it.
fn with_words(why: &str, errors: &Path) -> String {
    use std::io::Read as _;
    let mut text = String::new();
    if let Ok(file) = File::open(errors) {
        let _ = file.take(64 << 10).read_to_string(&mut text);
    }
    match text.lines().map(str::trim).rfind(|line| !line.is_empty()) {
        Some(line) => format!("{why}: {}", line.chars().take(200).collect::<String>()),
        None => why.to_owned(),
    }
}

/// The agent, headless, with its own configuration and our model.
fn command(kind: &str, program: &Path, url: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", creel_discover::own().home).env("TERM", "dumb");
    command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
    for name in KEPT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    // Not a key of anybody: the model on loopback does not look at it.
    let key = "creel-canary";
    if kind == kinds::CODEX {
        let provider = format!(
            r#"model_providers.creel={{name="creel",base_url="{url}/v1",wire_api="responses",env_key="CREEL_KEY",request_max_retries=0,stream_max_retries=0}}"#
        );
        command.env("CREEL_KEY", key).args(["exec", "--skip-git-repo-check", "--ephemeral"]);
        // Its own sandbox may not work here, and what it would run is known: two files in an empty folder.
        command.args(["--sandbox", "danger-full-access"]);
        for setting in [
            "model=\"creel\"",
            "model_provider=\"creel\"",
            &provider,
            "check_for_update_on_startup=false",
            "analytics.enabled=false",
            "features.plugins=false",
            "features.apps=false",
            "features.remote_plugin=false",
        ] {
            command.args(["-c", setting]);
        }
        return command_with_prompt(command);
    }
    let variables = json!({
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": key,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
    });
    for (name, value) in variables.as_object().into_iter().flatten() {
        command.env(name, value.as_str().unwrap_or_default());
    }
    // Also as settings of this run: those of the person could name another model.
    command.arg("--settings").arg(json!({ "env": variables }).to_string());
    command.args(["--output-format", "json", "--no-session-persistence", "--strict-mcp-config", "--allowedTools=Bash"]);
    command.arg("-p");
    command_with_prompt(command)
}

fn command_with_prompt(mut command: Command) -> Command {
    command.arg(PROMPT);
    command
}

/// Its end, or nothing: then it was killed because its time was over.
fn wait(agent: &mut Child) -> Option<std::process::ExitStatus> {
    let started = Instant::now();
    loop {
        match agent.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if started.elapsed() < PATIENCE => std::thread::sleep(LOOK),
            _ => {
                let _ = agent.kill();
                let _ = agent.wait();
                return None;
            }
        }
    }
}

/// Ends every process that the agent left behind: each becomes our child when its parent ends.
fn sweep() {
    for _ in 0..SWEEPS_MAX {
        let children = children();
        if children.is_empty() {
            return;
        }
        for child in children {
            let pid = nix::unistd::Pid::from_raw(child);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(pid, None);
        }
    }
}

/// Our children, of all our threads.
fn children() -> BTreeSet<i32> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>())
        .filter(|pid| *pid > 1)
        .collect()
}

/// The private folder; gone when this value goes.
struct Folder {
    root: PathBuf,
}

impl Folder {
    fn make() -> Result<Self, Failure> {
        let folder = Self { root: private_folder("creel-canary")? };
        let work = folder.work();
        let made = std::fs::DirBuilder::new().mode(0o700).create(&work);
        made.map_err(|error| Failure::file("create", &work, &error))?;
        Ok(folder)
    }

    fn work(&self) -> PathBuf {
        self.root.join("work")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_model_on_loopback_is_named() {
        for kind in [kinds::CLAUDE_CODE, kinds::CODEX] {
            let command = command(kind, Path::new("/usr/bin/agent"), "http://127.0.0.1:9");
            let words: Vec<String> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
            let variables: Vec<String> =
                command.get_envs().filter_map(|(_, value)| Some(value?.to_string_lossy().into_owned())).collect();
            let named: Vec<&String> = words.iter().chain(&variables).filter(|word| word.contains("://")).collect();
            assert!(!named.is_empty());
            for word in named {
                assert_eq!(word.matches("://").count(), word.matches("http://127.0.0.1:9").count(), "{word}");
            }
            assert_eq!(words.last().map(String::as_str), Some(PROMPT));
        }
    }

    #[test]
    fn the_private_folder_goes_away_with_what_is_in_it() {
        let folder = Folder::make().unwrap();
        let root = folder.root.clone();
        std::fs::write(folder.work().join("file"), "x").unwrap();
        assert_eq!(std::fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
        drop(folder);
        assert!(!root.exists());
    }

    #[test]
    fn what_the_agent_said_last_is_part_of_the_reason() {
        let folder = Folder::make().unwrap();
        let errors = folder.root.join("errors");
        std::fs::write(&errors, "first\nerror: unknown option\n\n").unwrap();
        assert_eq!(with_words("it ended", &errors), "it ended: error: unknown option");
        assert_eq!(with_words("it ended", &folder.root.join("none")), "it ended");
    }
}
