//! `creel run` beside bare processes and beside others that confine: what starting costs, and what working inside costs.
//!
//! Everything runs as an unprivileged account: whoever starts this as root gets an account of that kind, by a private
//! `/etc/passwd`, and the memory of processes that only root may look at. Each round runs every candidate once, in
//! another order; ratios are medians over the rounds, to the bare run of the same round.

use std::fs::{self, DirBuilder};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::unistd::geteuid;

use crate::figures::{self, At, Samples};
use crate::spawned::{self, Times};
use crate::{Failure, cage_tasks, machine, stage};

/// What can be measured alone.
pub(crate) const PARTS: [&str; 7] = ["start", "git", "build", "npm", "files", "tree", "idle"];
/// The account that everything runs as where root starts this: no account of a real machine.
const ACCOUNT: u32 = 61_000;
/// Runs that stand idle at a time.
const IDLE: usize = 200;

/// Measures. Root prepares an account and watches; everybody else measures at once.
pub(crate) fn measure(programs: &Path, quick: bool, parts: &[&str], peers: Option<&Path>) -> Result<(), Failure> {
    let parts: Vec<&str> = if parts.is_empty() { PARTS.to_vec() } else { parts.to_vec() };
    println!("{}", machine::describe());
    let root = Folder::new()?;
    for name in ["creel", "creeld", "creel-hook"] {
        fs::copy(programs.join(name), root.0.join("bin").join(name))
            .map_err(|error| format!("{}/{name}: {error}", programs.display()))?;
    }
    let own = root.0.join("bin/creel-benches");
    fs::copy(std::env::current_exe()?, &own)?;
    let mut arguments: Vec<String> = vec!["cage-inner".into(), root.0.display().to_string()];
    arguments.push(if quick { "quick".into() } else { "full".into() });
    arguments.push(peers.map(|peers| peers.display().to_string()).unwrap_or_default());
    let as_account = |arguments: &[String]| -> Command {
        if !geteuid().is_root() {
            let mut command = Command::new(&own);
            command.args(arguments);
            return command;
        }
        // A private look at the accounts, a workspace in memory (whatever the disk does falls on every candidate, but
        // not at the same time), then the account itself.
        let script = "mount --bind \"$1/passwd\" /etc/passwd && mount --bind \"$1/group\" /etc/group && \
                      mount -t tmpfs -o \"size=4g,mode=700,uid=$2,gid=$2\" tmpfs \"$1/home/work\" && shift && \
                      exec setpriv --reuid \"$1\" --regid \"$1\" --clear-groups \"${@:2}\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "bash", "-c", script, "bash"]).arg(&root.0).arg(ACCOUNT.to_string()).arg(&own);
        command.args(arguments).env_clear().env("HOME", root.home()).env("USER", "bench").env("LOGNAME", "bench");
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8");
        command
    };
    if geteuid().is_root() {
        root.hand_over()?;
    }
    let timed: Vec<&str> = parts.iter().copied().filter(|part| *part != "idle").collect();
    if !timed.is_empty() {
        let words: Vec<String> = arguments.iter().cloned().chain(timed.iter().map(ToString::to_string)).collect();
        let status = as_account(&words).stdin(Stdio::null()).status()?;
        if !status.success() {
            return Err("the measurements could not be made".into());
        }
    }
    if parts.contains(&"idle") {
        let words: Vec<String> = arguments.iter().cloned().chain(["idle".to_owned()]).collect();
        idle(&mut as_account(&words), quick)?;
    }
    println!("\n{}", machine::load());
    Ok(())
}

/// Watches the account's idle runs: their memory, and the daemon's.
fn idle(command: &mut Command, quick: bool) -> Result<(), Failure> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let mut next = || lines.next().transpose()?.ok_or_else(|| Failure::from("the idle runs could not be started"));
    let daemon: u32 = next()?.parse()?;
    let before = machine::pss_kb(daemon)?;
    child.stdin.as_mut().ok_or("no input")?.write_all(b"go\n")?;
    let supervisors: Result<Vec<u32>, _> = next()?.split_whitespace().map(str::parse).collect();
    let supervisors = supervisors?;
    let processes = machine::processes()?;
    let (mut of_runs, mut counted, mut unseen) = (0, 0_usize, 0_usize);
    for (pid, _) in processes.iter().filter(|(pid, _)| machine::is_below(**pid, &supervisors, &processes)) {
        match machine::program(*pid) {
            Some(name) if name != "creel" => {}
            _ => match machine::pss_kb(*pid) {
                Ok(kb) => (of_runs, counted) = (of_runs + kb, counted + 1),
                Err(_) => unseen += 1,
            },
        }
    }
    let runs = supervisors.len() as f64;
    let daemon_more = machine::pss_kb(daemon)?.saturating_sub(before);
    figures::heading(&format!("{runs} runs that do nothing, at a time{}", if quick { " (quick)" } else { "" }));
    figures::figure("processes of creel for each", counted as f64 / runs, "");
    figures::figure("their memory for each (PSS)", of_runs as f64 / runs / 1e3, "MB");
    figures::figure("the daemon's for each (PSS)", daemon_more as f64 / runs / 1e3, "MB");
    let each = (of_runs + daemon_more) as f64 * 1.024 / runs / 1e3;
    if unseen == 0 {
        figures::goal("memory for each, daemon included (PSS)", each, 3.0, At::Most, "MB");
    } else {
        figures::note(&format!("{unseen} processes show their memory to root only: start this as root"));
    }
    drop(child.stdin.take());
    if child.wait()?.success() { Ok(()) } else { Err("the idle runs did not end well".into()) }
}

/// A folder for everything, gone when this value goes.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Failure> {
        // Not below a long folder, because a socket's path holds 108 bytes; and not below `/tmp`, which is another one
        // in a cage.
        let above = if geteuid().is_root() { "/home".into() } else { std::env::var("HOME")? };
        let root = PathBuf::from(above).join(format!("creel-cage-{}", std::process::id()));
        DirBuilder::new().mode(0o755).create(&root)?;
        let folder = Self(root);
        for name in ["bin", "home/work", "home/run", "home/state", "home/etc"] {
            DirBuilder::new().mode(0o755).recursive(true).create(folder.0.join(name))?;
        }
        Ok(folder)
    }

    fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    /// Gives the home to the account, and writes down who it is.
    fn hand_over(&self) -> Result<(), Failure> {
        let line = format!("bench:x:{ACCOUNT}:{ACCOUNT}::{}:/bin/bash\n", self.home().display());
        fs::write(self.0.join("passwd"), fs::read_to_string("/etc/passwd")? + &line)?;
        fs::write(self.0.join("group"), fs::read_to_string("/etc/group")? + &format!("bench:x:{ACCOUNT}:\n"))?;
        for name in ["home", "home/work", "home/run", "home/state", "home/etc"] {
            let path = self.0.join(name);
            chown(&path, Some(ACCOUNT), Some(ACCOUNT))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How a command is run: bare, by creel, or by another program that confines.
pub(crate) struct Candidate {
    pub(crate) name: &'static str,
    how: How,
    /// Whether a goal is about it.
    pub(crate) is_creel: bool,
    /// Whether it starts so slowly that it is measured in one round of ten.
    slow: bool,
}

enum How {
    /// These words stand before the command.
    Before(Vec<String>),
    /// The command stands in a file that this program is given.
    File { program: PathBuf, work: PathBuf },
}

impl Candidate {
    fn before(name: &'static str, words: Vec<String>) -> Self {
        Self { name, how: How::Before(words), is_creel: false, slow: false }
    }

    /// `words` run by it.
    pub(crate) fn command(&self, words: &[String]) -> Result<Command, Failure> {
        match &self.how {
            How::Before(before) => {
                let mut all = before.iter().chain(words);
                let mut command = Command::new(all.next().ok_or("no command")?);
                command.args(all);
                Ok(command)
            }
            How::File { program, work } => {
                let quoted: Vec<String> =
                    words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
                let config = serde_json::json!({
                    "version": "0.8.0-alpha",
                    "containment": "process",
                    "process": { "commandLine": quoted.join(" "), "cwd": work },
                    "filesystem": {
                        "readwritePaths": [work, "/dev/null"],
                        "readonlyPaths": ["/usr", "/etc", "/bin", "/lib", "/lib64"],
                    },
                    "network": { "defaultPolicy": "block" },
                });
                let file = work.join("../state/mxc.json");
                fs::write(&file, config.to_string())?;
                let mut command = Command::new(program);
                command.arg(file);
                Ok(command)
            }
        }
    }
}

/// The account's side.
pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) quick: bool,
    pub(crate) daemon: stage::Daemon,
    pub(crate) candidates: Vec<Candidate>,
}

/// What is measured as the account. `words`: folder, extent, folder of peers, parts.
pub(crate) fn inner(words: &[&str]) -> Result<(), Failure> {
    let [root, extent, peers, parts @ ..] = words else { return Err("not for people".into()) };
    let root = PathBuf::from(root);
    let home = root.join("home");
    let daemon = stage::Daemon::start(&root.join("bin"), &home)?;
    let candidates = candidates(&root, Path::new(peers));
    let mut inner = Inner { root, quick: *extent == "quick", daemon, candidates };
    let socket = inner.root.join("home/run/control.sock");
    inner.daemon.wait("the daemon does not listen", |_| Ok(socket.exists()))?;
    if parts == ["idle"] {
        inner.idle()?;
    } else {
        inner.describe()?;
        for part in parts {
            match *part {
                "start" => inner.start()?,
                part => cage_tasks::measure(&mut inner, part)?,
            }
        }
    }
    inner.daemon.stop()
}

/// Bare first: ratios are to it.
fn candidates(root: &Path, peers: &Path) -> Vec<Candidate> {
    let text = |path: PathBuf| path.display().to_string();
    let (home, work) = (text(root.join("home")), text(root.join("home/work")));
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let creel = [
        text(root.join("bin/creel")),
        "--runtime".to_owned(),
        text(root.join("home/run")),
        "run".to_owned(),
        "--profile".to_owned(),
        "default".to_owned(),
        "--workspace".to_owned(),
        work.clone(),
        "--".to_owned(),
    ];
    let mut all = vec![
        Candidate::before("bare", Vec::new()),
        Candidate { is_creel: true, ..Candidate::before("creel run", creel.to_vec()) },
    ];
    if Path::new("/usr/bin/bwrap").exists() {
        let mut before = words(&["/usr/bin/bwrap", "--unshare-all", "--die-with-parent", "--new-session"]);
        before.extend(words(&["--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc", "--proc", "/proc"]));
        for name in ["bin", "sbin", "lib", "lib64"] {
            before.extend(words(&["--symlink", &format!("usr/{name}"), &format!("/{name}")]));
        }
        before.extend(words(&["--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", "/var/tmp", "--tmpfs", &home]));
        before.extend(words(&["--bind", &work, &work, "--chdir", &work, "--"]));
        all.push(Candidate::before("bubblewrap", before));
    }
    if peers.as_os_str().is_empty() {
        return all;
    }
    let modules = peers.join("node_modules");
    let mxc = modules.join("@microsoft/mxc-sdk/bin/x64/lxc-exec");
    if mxc.exists() {
        let how = How::File { program: mxc, work: root.join("home/work") };
        all.push(Candidate { name: "MXC", how, is_creel: false, slow: false });
    }
    let codex = modules.join(".bin/codex");
    if codex.exists() {
        let before = words(&[&text(codex), "sandbox", "-c", "sandbox_mode=\"workspace-write\"", "--"]);
        all.push(Candidate { slow: true, ..Candidate::before("codex sandbox", before) });
    }
    let srt = modules.join(".bin/srt");
    if srt.exists() {
        all.push(Candidate { slow: true, ..Candidate::before("srt", words(&[&text(srt)])) });
    }
    all
}

impl Inner {
    pub(crate) fn work(&self) -> PathBuf {
        self.root.join("home/work")
    }

    /// Says which candidates work here; those that do not are left out, but not creel.
    fn describe(&mut self) -> Result<(), Failure> {
        let work = self.work();
        let mut problems = Vec::new();
        self.candidates.retain(|candidate| {
            let command = candidate.command(&["/bin/true".to_owned()]);
            let output =
                command.and_then(|mut command| Ok(command.current_dir(&work).stdin(Stdio::null()).output()?));
            match output {
                Ok(output) if output.status.success() => true,
                Ok(output) => {
                    let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                    problems.push((candidate.name, candidate.is_creel, format!("{}: {told}", output.status)));
                    false
                }
                Err(error) => {
                    problems.push((candidate.name, candidate.is_creel, error.to_string()));
                    false
                }
            }
        });
        for (name, is_creel, problem) in problems {
            if is_creel {
                return Err(format!("{name} starts nothing here: {problem}").into());
            }
            figures::note(&format!("{name} starts nothing here: {problem}"));
        }
        Ok(())
    }

    fn start(&mut self) -> Result<(), Failure> {
        let rounds = if self.quick { 20 } else { 300 };
        let words = ["/bin/true".to_owned()];
        let mut times: Vec<Times> = self.candidates.iter().map(|_| Times::default()).collect();
        let work = self.work();
        let mut daemon = 0.0;
        for round in 0..rounds + rounds / 10 {
            let mut order: Vec<usize> = (0..times.len()).collect();
            order.rotate_left(round % times.len());
            for index in order {
                let (Some(candidate), Some(times)) = (self.candidates.get(index), times.get_mut(index)) else {
                    continue;
                };
                if candidate.slow && round % 10 != 0 {
                    continue;
                }
                let before = machine::cpu_seconds(self.daemon.pid())?;
                let mut once = Times::default();
                once.add(|| spawned::bare(candidate.command(&words)?.current_dir(&work)))?;
                if round >= rounds / 10 {
                    times.wall.join(once.wall);
                    times.cpu.join(once.cpu);
                    daemon += machine::cpu_seconds(self.daemon.pid())? - before;
                }
            }
        }
        figures::heading(&format!("start of `true`, whole process, {rounds} rounds in turns"));
        for (candidate, times) in self.candidates.iter().zip(&times) {
            let name = candidate.name;
            figures::figure(&format!("{name}, p50"), times.wall.median() / 1e3, "ms");
            figures::figure(&format!("{name}, p99"), times.wall.p99() / 1e3, "ms");
            let cpu = times.cpu.sum() / times.cpu.count().max(1) as f64 / 1e3;
            figures::figure(&format!("{name}, processor time of what it waits for, mean"), cpu, "ms");
            match syscalls(&mut candidate.command(&words)?, &work)? {
                Some(count) => figures::figure(&format!("{name}, system calls"), count as f64, ""),
                None => figures::note(&format!("no strace that can follow {name}: its system calls are not counted")),
            }
        }
        figures::figure("creeld for one start, processor time", daemon * 1e3 / rounds as f64, "ms");
        let of = |name: &str| self.candidates.iter().position(|one| one.name == name).and_then(|at| times.get(at));
        if let (Some(ours), Some(theirs)) = (of("creel run"), of("bubblewrap")) {
            let ratio = ours.wall.median_ratio_to(&theirs.wall);
            figures::goal("creel run, ratio to bubblewrap, median", ratio, 1.0, At::Most, "x");
        } else {
            figures::note("no bubblewrap here: apt-get install bubblewrap");
        }
        Ok(())
    }

    /// Runs that sleep, until whoever watches has seen enough.
    fn idle(&mut self) -> Result<(), Failure> {
        let count = if self.quick { IDLE / 20 } else { IDLE };
        let mut line = String::new();
        println!("{}", self.daemon.pid());
        std::io::stdin().lock().read_line(&mut line)?;
        let creel = self.candidates.iter().find(|candidate| candidate.is_creel).ok_or("no creel")?;
        let script = ["/bin/sh", "-c", "echo here; exec sleep 600"].map(str::to_owned);
        let mut runs = Runs(Vec::new());
        for _ in 0..count {
            let mut child =
                creel.command(&script)?.current_dir(self.work()).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
            let mut here = [0; 5];
            // The command's own word that it runs.
            let told = child.stdout.as_mut().ok_or("no output")?.read_exact(&mut here);
            runs.0.push(child);
            told.map_err(|error| format!("an idle run did not start: {error}"))?;
        }
        let pids: Vec<String> = runs.0.iter().map(|child| child.id().to_string()).collect();
        println!("{}", pids.join(" "));
        std::io::stdin().lock().read_to_string(&mut line)?;
        Ok(())
    }
}

/// Ends them when it goes.
struct Runs(Vec<Child>);

impl Drop for Runs {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

/// What one piece of work took inside of one candidate.
#[derive(Default)]
pub(crate) struct Inside {
    /// On the wall, without the start, in microseconds.
    pub(crate) wall: Samples,
    /// Processor time of the work itself, without the start and without whoever works for it.
    pub(crate) own_cpu: Samples,
    /// Processor time of one whole start and everything that it waits for, the daemon apart. Bubblewrap does not wait
    /// for what it started, so that this is only its own.
    pub(crate) all_cpu: Samples,
}

/// What one piece of work took inside of each candidate. A peer that cannot do it is told and has no times.
pub(crate) fn in_turns(inner: &Inner, rounds: usize, words: &[String]) -> Result<Vec<Option<Inside>>, Failure> {
    let mut found: Vec<Option<Inside>> = inner.candidates.iter().map(|_| Some(Inside::default())).collect();
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..found.len()).collect();
        order.rotate_left(round % found.len());
        for index in order {
            let (Some(candidate), Some(place)) = (inner.candidates.get(index), found.get_mut(index)) else { continue };
            let Some(times) = place else { continue };
            if candidate.slow && round % 4 != 0 {
                continue;
            }
            if let Err(failure) = times.add(&mut candidate.command(words)?, &inner.work()) {
                if candidate.is_creel || candidate.name == "bare" {
                    return Err(format!("{}: {failure}", candidate.name).into());
                }
                figures::note(&format!("{} cannot do it: {failure}", candidate.name));
                *place = None;
            }
        }
    }
    Ok(found)
}

impl Inside {
    /// One start of the helper inside. The least of what it told counts: what came in between the others was not theirs.
    fn add(&mut self, command: &mut Command, work: &Path) -> Result<(), Failure> {
        let before = spawned::children_cpu_us()?;
        let output = command.current_dir(work).stdin(Stdio::null()).output()?;
        let all_cpu = spawned::children_cpu_us()? - before;
        if !output.status.success() {
            return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()).into());
        }
        let (mut wall, mut cpu) = (Vec::new(), Vec::new());
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let (took, used) = line.trim().split_once(' ').ok_or("what ran inside did not say what it took")?;
            wall.push(took.parse::<f64>()?);
            cpu.push(used.parse::<f64>()?);
        }
        let least = |of: Vec<f64>| of.into_iter().min_by(f64::total_cmp).ok_or("what ran inside said nothing");
        self.wall.add(least(wall)?);
        self.own_cpu.add(least(cpu)?);
        self.all_cpu.add(all_cpu);
        Ok(())
    }
}

/// How many system calls a command makes, with everything that it starts; `None` without strace.
pub(crate) fn syscalls(command: &mut Command, folder: &Path) -> Result<Option<u64>, Failure> {
    let report = folder.join("../state/strace.txt");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-U", "calls,name", "-o"]).arg(&report).arg(command.get_program());
    strace.args(command.get_args()).current_dir(folder);
    let output = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !output.is_ok_and(|status| status.success()) {
        return Ok(None);
    }
    let text = fs::read_to_string(&report)?;
    let total = text.lines().find(|line| line.trim_end().ends_with(" total"));
    Ok(total.and_then(|line| line.split_whitespace().next()?.parse().ok()))
}
