//! `creel run -- COMMAND`: one command in a cage, from the plan to its exit code.
//!
//! This process becomes the run's supervisor. The one thing a newcomer gets wrong: no thread may exist before the cage
//! does, because the cage's first processes are copies of this one; the thread that talks to the daemon starts after.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use creel_model::cage::{CageEventKind, CagePlan, Control, FileAccess, WorkspaceMode};
use creel_sandbox::changes::Watch;
use creel_sandbox::{Cage, End, Happening, Launch, LaunchError, Probes, SocketFolder, remote};
use creel_wire::control::{
    Answer, COMMAND_WORDS_MAX, CONTROLS_MAX, Request, RunEnd, RunExit, RunGo, RunPlan, RunStart,
};

use super::report::Reporter;
use crate::connection::{Daemon, pick_one};
use crate::failure::{Failure, Outcome};
use crate::text::clean;
use crate::{clock, out, up};

/// Exit code when the cage could not be started; 126 and 127 mean that the program could not be executed or found.
const NOT_STARTED: i32 = 125;

/// Exit code when the run was stopped from outside: what a shell says of a killed command.
const STOPPED: i32 = 137;

/// How often a daemon that hangs up is asked again: for half a minute about.
const TRIES: u64 = 80;

/// Arguments of `creel run -- COMMAND`.
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Profile to run under, instead of the one for this kind of agent.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Kind of agent, instead of the one that the catalog knows the program as.
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Folder that it works on, instead of this one.
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// Keep its writes in a layer: `creel run diff`, `commit` and `discard` come after.
    #[arg(long)]
    review: bool,
    /// Refuse nothing but seals and secrets, and record what is needed.
    #[arg(long, conflicts_with = "review")]
    learn: bool,
    /// Try everything that the cage must hold before the start, not only the cheap part.
    #[arg(long)]
    probe: bool,
    /// Stop it after so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    time: Option<u64>,
    /// The command and its arguments.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Start {
    /// There is a command to start.
    pub(crate) fn has_command(&self) -> bool {
        !self.command.is_empty()
    }
}

/// Runs the command; ends this program as the command ended.
pub(crate) fn start(arguments: &Start, runtime: Option<&Path>) -> Outcome {
    let (failure, code) = match supervise(arguments, runtime) {
        Ok(end) => end.repeat(),
        Err(stopped) => stopped,
    };
    if let Failure::Said { message, hint } = failure {
        out::say(&format!("creel: {message}"));
        if !hint.is_empty() {
            out::say(&format!("  hint: {hint}"));
        }
    }
    End::Code(code).repeat()
}

/// Why it did not begin, and the exit code that tells.
type Stopped = (Failure, i32);

fn not_started(failure: impl Into<Failure>) -> Stopped {
    (failure.into(), NOT_STARTED)
}

/// What the run asks of the daemon once more, whatever comes.
struct Begun {
    plan: RunPlan,
    /// Until the command may be executed, and no longer: a daemon admits few connections of an account at once.
    daemon: Option<Daemon>,
}

fn supervise(arguments: &Start, runtime: Option<&Path>) -> Result<End, Stopped> {
    if rustix::process::geteuid().is_root() {
        let failure = Failure::new("a cage is started from an ordinary account, not as root");
        return Err(not_started(failure.hint("root could undo what holds it; use `sudo -u ACCOUNT creel run …`")));
    }
    let (folder, workspace) = folders(arguments.workspace.as_deref()).map_err(not_started)?;
    let name = arguments.command.first().ok_or_else(|| not_started(Failure::new("there is no command")))?;
    let program = find_program(name).ok_or_else(|| {
        (Failure::new(format!("`{}` is not found, or is no program", clean(&name.to_string_lossy()))), 127)
    })?;
    let home = up::home().map_err(not_started)?;
    let mut begun = ask_for_plan(arguments, runtime, &workspace, &program).map_err(not_started)?;
    let result = launch(arguments, &mut begun, runtime, folder, home);
    let Begun { plan, daemon } = begun;
    let run = plan.plan.run;
    match result {
        Ok(end) => Ok(end),
        Err((failure, code)) => {
            let why = if let Failure::Said { message, .. } = &failure { message.clone() } else { String::new() };
            let end = RunEnd { run, exit: RunExit::Failed(why), cpu_ms: 0, memory_bytes: 0 };
            // The connection may have been closed after its first answer.
            let told = daemon.is_some_and(|mut daemon| daemon.ask(&Request::RunEnd(end.clone())).is_ok());
            if !told {
                let _ = Daemon::open(runtime).and_then(|mut daemon| daemon.ask(&Request::RunEnd(end)));
            }
            Err((failure, code))
        }
    }
}

/// Where the command starts, and the folder that it works on.
fn folders(wanted: Option<&Path>) -> Result<(PathBuf, PathBuf), Failure> {
    let here = std::env::current_dir().map_err(|error| Failure::new(format!("this folder cannot be told: {error}")))?;
    let Some(wanted) = wanted else { return Ok((here.clone(), here)) };
    let workspace = wanted.canonicalize().map_err(|error| Failure::file("open", wanted, &error))?;
    if !workspace.is_dir() {
        return Err(Failure::new(format!("`{}` is not a folder", clean(&workspace.display().to_string()))));
    }
    let folder = if here.starts_with(&workspace) { here } else { workspace.clone() };
    Ok((folder, workspace))
}

/// The program as a shell would find it: the path by which it was found.
fn find_program(name: &OsString) -> Option<PathBuf> {
    let executable = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
    };
    if Path::new(name).components().count() > 1 || name.to_string_lossy().contains('/') {
        let path = std::env::current_dir().ok()?.join(name);
        return Some(path).filter(executable);
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    std::env::split_paths(&path).filter(|folder| folder.is_absolute()).map(|folder| folder.join(name)).find(executable)
}

fn text(path: &Path) -> Result<String, Failure> {
    let shown = || Failure::new(format!("`{}` is not a UTF-8 path", clean(&path.display().to_string())));
    path.to_str().map(str::to_owned).ok_or_else(shown)
}

fn ask_for_plan(arguments: &Start, runtime: Option<&Path>, workspace: &Path, found: &Path) -> Result<Begun, Failure> {
    let program = found.canonicalize().map_err(|error| Failure::file("find", found, &error))?;
    let found_as = Some(found).filter(|found| **found != program).map(text).transpose()?;
    let name = found.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let request = RunStart {
        profile: arguments.profile.clone(),
        kind: arguments.kind.clone(),
        workspace: text(workspace)?,
        // What is wrong with it is said by the launcher, in its own words.
        repository: creel_sandbox::seal::common_folder(workspace)
            .ok()
            .flatten()
            .map(|it| text(&it.path))
            .transpose()?,
        program: text(&program)?,
        found_as,
        command: without_content(name, &arguments.command),
        mode: if arguments.review { WorkspaceMode::Review } else { WorkspaceMode::Direct },
        learn: arguments.learn,
        seconds: arguments.time,
    };
    let request = Request::RunStart(Box::new(request));
    let (daemon, answers) = patiently(runtime, &request)?;
    let plan = pick_one(answers, |answer| match answer {
        Answer::RunPlan(plan) => Some(*plan),
        _ => None,
    })?;
    Ok(Begun { plan, daemon: Some(daemon) })
}

/// Asks on a connection of its own, and again where it was closed unanswered: a daemon admits few at once, and many runs
/// may begin at once.
fn patiently(runtime: Option<&Path>, request: &Request) -> Result<(Daemon, Vec<Answer>), Failure> {
    let mut tries = 0;
    loop {
        let mut daemon = Daemon::open(runtime)?;
        match daemon.attempt(request) {
            Ok(answers) => return Ok((daemon, answers?)),
            Err(failure) if tries == TRIES => return Err(failure),
            Err(_) => {
                tries += 1;
                // Not all at the same time again.
                let apart = u64::from(std::process::id() % 64);
                std::thread::sleep(Duration::from_millis((20 * tries).min(400) + apart));
            }
        }
    }
}

/// The program's name and the names of its options. What else stands there may be a prompt, or a secret.
fn without_content(name: String, command: &[OsString]) -> Vec<String> {
    let options = command.iter().skip(1).filter_map(|word| {
        let word = word.to_str()?;
        let name = word.split('=').next().unwrap_or_default();
        let plain = name.trim_start_matches('-');
        let option = name.starts_with('-') && !plain.is_empty();
        (option && plain.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')).then(|| name.to_owned())
    });
    [name].into_iter().chain(options).take(COMMAND_WORDS_MAX).collect()
}

fn launch(
    arguments: &Start,
    begun: &mut Begun,
    runtime: Option<&Path>,
    folder: PathBuf,
    home: String,
) -> Result<End, Stopped> {
    let RunPlan { plan, hook, .. } = begun.plan.clone();
    let hook_socket = Path::new(&hook.host).join("hook.sock");
    let run = plan.run.clone();
    let state = up::state_folder(None).map_err(not_started)?;
    let mut watch = Watch::new(&state, &plan).map_err(|error| not_started(Failure::new(error.to_string())))?;
    let launch = Launch {
        plan,
        command: arguments.command.clone(),
        folder: folder.into_os_string(),
        environment: std::env::vars_os().collect(),
        home,
        hook: Some(SocketFolder { host: hook.host, cage: hook.cage }),
        layer: watch.layer(),
        probes: if arguments.probe { Probes::All } else { Probes::Cheap },
    };
    let prepared = launch.prepare().map_err(refused)?;
    let controls: Vec<Control> = prepared.controls().iter().take(CONTROLS_MAX).cloned().collect();
    let init = prepared.init().map_err(not_started)?;
    let request = Request::RunGo(Box::new(RunGo { run: run.clone(), init, agent: prepared.agent(), controls }));
    let daemon = match begun.daemon.take() {
        Some(daemon) => Ok(daemon),
        None => Daemon::open(runtime),
    };
    let statement = daemon.and_then(|mut daemon| daemon.attempt(&request)).map_err(not_started)?;
    let statement = statement.map_err(not_started)?;
    let statement = pick_one(statement, |answer| match answer {
        Answer::RunStatement(statement) => Some(*statement),
        _ => None,
    })
    .map_err(not_started)?;
    let mut cage = prepared.go().map_err(refused)?;
    watch.begin();
    let mut reporter = Reporter::begin(runtime, run.clone(), statement.note, hook_socket);
    let (end, exit) = drive(&mut cage, &mut reporter, &mut watch, &state, run.as_str());
    let usage = cage.usage();
    let finished = watch.finish(clock::now_unix_ns());
    for event in finished.events {
        reporter.event(event);
    }
    let refusals = reporter.refusals();
    reporter.end(RunEnd { run: run.clone(), exit, cpu_ms: usage.cpu_ms, memory_bytes: usage.memory_bytes });
    if refusals > 0 && rustix::termios::isatty(rustix::stdio::stderr()) {
        out::say(&format!("creel: {refusals} refused; see `creel why {run}`"));
    }
    match (arguments.review, finished.kept) {
        (true, true) => {
            out::say(&format!("creel: the workspace is as it was; see `creel run diff {run}`"));
            let outside = written_at_once(&begun.plan.plan);
            if !outside.is_empty() {
                out::say(&format!("creel: a review holds back the workspace only, and not {}", outside.join(", ")));
            }
        }
        (true, false) => out::say("creel: the run wrote nothing"),
        _ => {}
    }
    if arguments.learn {
        let lost = if finished.lost > 0 { format!(" ({} events were lost)", finished.lost) } else { String::new() };
        out::say(&format!("creel: what it needed: `creel run learned {run}`{lost}"));
    }
    Ok(end)
}

/// Folders outside the workspace that a reviewed run may write; these are written at once.
fn written_at_once(plan: &CagePlan) -> Vec<&str> {
    let writes = plan.files.iter().filter(|line| line.access == FileAccess::Write);
    writes.map(|line| line.path.as_str()).filter(|path| !Path::new(path).starts_with(&plan.workspace)).collect()
}

fn refused(error: LaunchError) -> Stopped {
    let code = match &error {
        LaunchError::Execute(error) if error.kind() == std::io::ErrorKind::NotFound => 127,
        LaunchError::Execute(_) => 126,
        _ => NOT_STARTED,
    };
    let hint = match &error {
        LaunchError::Namespaces(_) => "`creel doctor` tells what this machine can hold, and what to change",
        LaunchError::Plan(_) => "`creel profile show` prints the lines; a grant may be made `optional`",
        LaunchError::Execute(_) => "what is not granted does not exist in the cage; see `creel profile show`",
        LaunchError::NotHeld(_) => "nothing was started; `creel doctor` tells what this machine can hold",
        _ => "",
    };
    (Failure::new(clean(&error.to_string())).hint(hint), code)
}

/// Drives the cage until its end.
fn drive(cage: &mut Cage, reporter: &mut Reporter, watch: &mut Watch, state: &Path, run: &str) -> (End, RunExit) {
    // Without its socket a run goes on; it only cannot be asked anything from elsewhere.
    let mut server = remote::Server::open(&remote::folder(state), run).ok();
    let mut stopped = None;
    loop {
        let happened = {
            let others = server.as_ref().map(remote::Server::descriptors).unwrap_or_default();
            cage.turn(&others, None)
        };
        let happened = match happened {
            Ok(happened) => happened,
            Err(error) => {
                cage.stop();
                return (End::Lost, RunExit::Failed(format!("the supervisor failed: {error}")));
            }
        };
        let mut asked = false;
        for happening in happened {
            if let Some(server) = &mut server {
                server.tell(&happening, cage);
            }
            match happening {
                Happening::Event(event) => {
                    let fault = event.kind == CageEventKind::Fault;
                    let why = event.reason.clone();
                    watch.note(&event);
                    // What was needed is for the proposal; the record keeps what happened.
                    if event.kind != CageEventKind::Needed {
                        reporter.event(event);
                    }
                    if fault {
                        stopped.get_or_insert(format!("a part of the cage failed: {why}"));
                        cage.stop();
                    }
                }
                Happening::Other(_) => asked = true,
                Happening::TimeOver => {
                    stopped = Some("its time is over".to_owned());
                    cage.stop();
                }
                Happening::Ended(mut end) => {
                    if let Some(why) = &stopped {
                        out::say(&format!("creel: stopped, because {why}"));
                        end = End::Code(STOPPED);
                    }
                    let exit = match (stopped, end) {
                        (Some(why), _) => RunExit::Stopped(why),
                        (None, End::Code(code)) => RunExit::Code(u8::try_from(code).unwrap_or(u8::MAX)),
                        (None, End::Signal(signal)) => RunExit::Signal(u8::try_from(signal).unwrap_or(u8::MAX)),
                        (None, End::Lost) => RunExit::Failed("the cage broke".to_owned()),
                    };
                    return (end, exit);
                }
                _ => {}
            }
        }
        if asked
            && let Some(server) = &mut server
            && server.serve(cage)
        {
            stopped = Some("`creel runs stop` was called".to_owned());
            cage.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_command_only_names_are_told() {
        let command =
            ["claude", "-p", "my secret prompt", "--model=opus", "--", "-weird name", "--x"].map(OsString::from);
        assert_eq!(without_content("claude".to_owned(), &command), ["claude", "-p", "--model", "--x"]);
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        assert!(find_program(&"sh".into()).unwrap().is_absolute());
        assert!(find_program(&"no such program".into()).is_none());
        assert!(find_program(&"/etc/passwd".into()).is_none());
    }
}
