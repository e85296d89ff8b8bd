//! The stand-in for an agent: starts programs and hooks as an agent does, in turns, and prints what that took.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::calls::{Call, Conversation};
use crate::figures::{self, At, Samples};
use crate::spawned::{self, Times};
use crate::{Failure, decisions, machine};

/// What a hook of few lines in another language costs: read the event, answer nothing.
const PYTHON_HOOK: &str = "import json, sys\njson.load(sys.stdin)\n";
/// Hooks at a time, where several are measured.
const AT_ONCE: usize = 8;

struct Agent {
    programs: PathBuf,
    root: PathBuf,
    folder: String,
    daemon: u32,
}

/// What is measured below an agent. `words`: programs, stage, daemon's process, `quick` or `full`, the parts.
pub(crate) fn run(words: &[&str]) -> Result<(), Failure> {
    let [programs, root, daemon, extent, parts @ ..] = words else { return Err("not for people".into()) };
    let part = if *extent == "quick" { 20 } else { 1 };
    let root = PathBuf::from(root);
    let folder = root.join("work").display().to_string();
    let agent = Agent { programs: PathBuf::from(programs), root, folder, daemon: daemon.parse()? };
    if parts.contains(&"startup") {
        agent.startup(2_000 / part)?;
    }
    if parts.contains(&"hook") {
        agent.hook_call(2_000 / part)?;
    }
    if parts.contains(&"at-once") {
        agent.hooks_at_once(4_000 / part)?;
    }
    let socket = agent.socket();
    // Before the large payloads: memory after ordinary decisions has a goal, what large ones leave behind is told apart.
    if parts.contains(&"sustained") {
        decisions::sustained(&socket, &agent.folder, agent.daemon, 100_000 / part)?;
    }
    if parts.contains(&"sizes") {
        decisions::by_size(&socket, &agent.folder, agent.daemon, 1_000 / part)?;
        figures::figure("creeld's memory after these (VmRSS)", machine::memory_mb(agent.daemon, "VmRSS")?, "MB");
    }
    Ok(())
}

impl Agent {
    fn startup(&self, rounds: usize) -> Result<(), Failure> {
        let mut bare = Times::default();
        let mut creel = Times::default();
        for round in 0..rounds {
            let true_first = round % 2 == 0;
            if true_first {
                bare.add(|| spawned::bare(&mut Command::new("/bin/true")))?;
            }
            creel.add(|| spawned::bare(Command::new(self.programs.join("creel")).arg("--version")))?;
            if !true_first {
                bare.add(|| spawned::bare(&mut Command::new("/bin/true")))?;
            }
        }
        figures::heading(&format!("creel --version, {rounds} times in turns with /bin/true"));
        each("/bin/true", &bare);
        each("creel --version", &creel);
        figures::goal("ratio to /bin/true, median", creel.wall.median_ratio_to(&bare.wall), 3.0, At::Most, "x");
        Ok(())
    }

    fn hook_call(&self, rounds: usize) -> Result<(), Failure> {
        let script = self.root.join("hook.py");
        std::fs::write(&script, PYTHON_HOOK)?;
        let python = Path::new("/usr/bin/python3");
        let mut conversation = self.conversation("one")?;
        let (mut bare, mut hook, mut other) = (Times::default(), Times::default(), Times::default());
        let mut bare_beside_other = Samples::default();
        for _ in 0..rounds / 10 {
            self.hook(&conversation.next())?;
        }
        let daemon_before = machine::cpu_seconds(self.daemon)?;
        for round in 0..rounds {
            let call = conversation.next();
            let true_first = round % 2 == 0;
            if true_first {
                bare.add(|| spawned::bare(&mut Command::new("/bin/true")))?;
            }
            hook.add(|| self.hook(&call))?;
            if !true_first {
                bare.add(|| spawned::bare(&mut Command::new("/bin/true")))?;
            }
            // Python takes long, so it runs less often.
            if round % 10 == 0 && python.exists() {
                let silent = Call { event: call.event, payload: call.payload, stopped: false };
                other.add(|| spawned::hook(Command::new(python).arg(&script), &silent))?;
                bare_beside_other.add(spawned::bare(&mut Command::new("/bin/true"))?);
            }
        }
        let daemon = (machine::cpu_seconds(self.daemon)? - daemon_before) / rounds as f64 * 1e6;
        figures::heading(&format!("one hooked call, whole process, {rounds} times in turns with /bin/true"));
        each("/bin/true", &bare);
        each("creel-hook with its answer", &hook);
        figures::figure("creeld for one call, processor time", daemon, "us");
        figures::goal("ratio to /bin/true, median", hook.wall.median_ratio_to(&bare.wall), 2.0, At::Most, "x");
        if other.wall.count() > 0 {
            each("a Python hook that decides nothing", &other);
            figures::figure("its ratio to /bin/true, median", other.wall.median_ratio_to(&bare_beside_other), "x");
        } else {
            figures::note("no python3 here: its hook was not measured");
        }
        Ok(())
    }

    fn hooks_at_once(&self, rounds: usize) -> Result<(), Failure> {
        let conversations: Result<Vec<Conversation>, Failure> =
            (0..AT_ONCE).map(|caller| self.conversation(&format!("at-once-{caller}"))).collect();
        let (mut bare, mut hook) = (Samples::default(), Samples::default());
        let each = rounds / AT_ONCE / 10;
        let mut conversations = conversations?;
        // In ten turns each, so that a neighbour's hour falls on both.
        for _ in 0..10 {
            bare.join(at_once(&mut conversations, |_| spawned::bare(&mut Command::new("/bin/true")), each)?);
            hook.join(at_once(&mut conversations, |conversation| self.hook(&conversation.next()), each)?);
        }
        figures::heading(&format!(
            "{AT_ONCE} hooked calls at a time, {} in all, beside {AT_ONCE} x /bin/true",
            hook.count()
        ));
        figures::figure("/bin/true, p50", bare.median() / 1e3, "ms");
        figures::figure("/bin/true, p99", bare.p99() / 1e3, "ms");
        figures::figure("creel-hook with its answer, p50", hook.median() / 1e3, "ms");
        figures::goal("creel-hook with its answer, p99", hook.p99() / 1e3, 10.0, At::Most, "ms");
        Ok(())
    }

    fn conversation(&self, name: &str) -> Result<Conversation, Failure> {
        let conversation = Conversation::new(name, &self.folder);
        for call in conversation.start() {
            self.hook(&call)?;
        }
        Ok(conversation)
    }

    fn hook(&self, call: &Call) -> Result<f64, Failure> {
        let mut command = Command::new(self.programs.join("creel-hook"));
        command.args(["claude-code", call.event, "--user", "--deadline-ms", "55000", "--socket"]).arg(self.socket());
        spawned::hook(&mut command, call)
    }

    fn socket(&self) -> PathBuf {
        self.root.join("run/hook.sock")
    }
}

fn each(name: &str, times: &Times) {
    figures::figure(&format!("{name}, p50"), times.wall.median(), "us");
    figures::figure(&format!("{name}, p99"), times.wall.p99(), "us");
    figures::figure(&format!("{name}, processor time, mean"), times.cpu.sum() / times.cpu.count().max(1) as f64, "us");
}

/// Several threads, each doing it so often.
fn at_once(
    conversations: &mut [Conversation],
    what: impl Fn(&mut Conversation) -> Result<f64, Failure> + Sync,
    each: usize,
) -> Result<Samples, Failure> {
    let what = &what;
    let parts: Result<Vec<Samples>, Failure> = std::thread::scope(|scope| {
        let callers: Vec<_> = conversations
            .iter_mut()
            .map(|conversation| {
                scope.spawn(move || -> Result<Samples, Failure> {
                    let mut took = Samples::default();
                    for _ in 0..each {
                        took.add(what(conversation)?);
                    }
                    Ok(took)
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap_or_else(|_| Err("a caller ended early".into()))).collect()
    });
    let mut all = Samples::default();
    parts?.into_iter().for_each(|samples| all.join(samples));
    Ok(all)
}
