//! A process id → facts about the process, its ancestors, and the nearest agent above it.
//!
//! Read straight from `/proc`, bounded. A pid is reused, so every walk checks start times: facts are taken only when
//! the start time is the same before and after, and a parent that started later than its child is not its parent.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd as _};

use creel_catalog::process::{absolute, base_name, script_argument};
use creel_catalog::{Catalog, ProcessFacts, Strength};
use creel_model::ProcessKey;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};

use crate::read::{file_facts, path_of, small};

/// The most ancestors that are walked up.
pub const ANCESTORS_MAX: usize = 64;
/// The most processes that are looked at in one listing.
pub const PROCESSES_MAX: usize = 65_536;
const ARGUMENT_BYTES_MAX: u64 = 64 * 1024;
const ARGUMENTS_MAX: usize = 512;
const ENVIRONMENT_BYTES_MAX: u64 = 256 * 1024;

/// The nearest agent above a process, and everything on the way to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentAbove {
    /// The catalogued kind.
    pub kind: String,
    /// The agent's process.
    pub agent: ProcessFacts,
    /// Whether it was recognised by its executable as the kernel names it (else by a script or a name).
    pub by_executable: bool,
    /// The processes between the one asked about (first) and the agent (not contained).
    pub between: Vec<ProcessKey>,
    /// Agents further up, nearest first: kind and process. An agent that another agent started has one.
    pub above: Vec<(String, ProcessKey)>,
}

/// Facts about a process; `None` where there is none or it ended meanwhile.
#[must_use]
pub fn facts(pid: u32) -> Option<ProcessFacts> {
    let stat = stat(pid)?;
    let mut facts = ProcessFacts::bare(ProcessKey { pid, start_ticks: stat.start_ticks }, stat.ppid, uid(pid)?);
    facts.comm = stat.comm;
    let exe = link(pid, "exe");
    facts.exe_deleted = exe.ends_with(" (deleted)");
    facts.exe = exe.strip_suffix(" (deleted)").map_or_else(|| exe.clone(), str::to_owned);
    facts.cwd = link(pid, "cwd");
    facts.argv = arguments(pid);
    facts.script = script(&facts);
    facts.identity = rustix::fs::stat(format!("/proc/{pid}/exe")).ok().map(|stat| file_facts(&stat));
    for name in crate::confinement::NAMESPACES {
        if let Some(inode) = namespace(pid, name) {
            facts.namespaces.insert(name.to_owned(), inode);
        }
    }
    is_alive(facts.key).then_some(facts)
}

/// Facts about the process behind a pidfd, which cannot be somebody else's by reuse of the pid.
#[must_use]
pub fn facts_by_pidfd(pidfd: impl AsFd) -> Option<ProcessFacts> {
    let pid = pid_of(pidfd.as_fd())?;
    let facts = facts(pid)?;
    // The pid is the pidfd's for as long as the process lives: alive afterwards means that all of it was about it.
    (pid_of(pidfd.as_fd()) == Some(pid)).then_some(facts)
}

fn pid_of(pidfd: impl AsFd) -> Option<u32> {
    let info = small(&format!("/proc/self/fdinfo/{}", pidfd.as_fd().as_raw_fd()), 4096)?;
    // `Pid:	-1` once it has ended.
    String::from_utf8_lossy(&info).lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
}

/// When a process started, in clock ticks since boot; `None` where there is none.
#[must_use]
pub fn start_ticks(pid: u32) -> Option<u64> {
    stat(pid).map(|stat| stat.start_ticks)
}

/// Parent and start time of a process; `None` where there is none.
#[must_use]
pub fn parent_of(pid: u32) -> Option<(u32, u64)> {
    stat(pid).map(|stat| (stat.ppid, stat.start_ticks))
}

/// Whether exactly this process, not a later one with its pid, still runs (or waits to be reaped).
#[must_use]
pub fn is_alive(key: ProcessKey) -> bool {
    start_ticks(key.pid) == Some(key.start_ticks)
}

/// The process itself and its ancestors, nearest first, at most [`ANCESTORS_MAX`]. Ends early where a parent ended or
/// changed meanwhile: what is returned was true.
#[must_use]
pub fn ancestors(pid: u32) -> Vec<ProcessFacts> {
    let mut chain: Vec<ProcessFacts> = Vec::new();
    let mut next = pid;
    while next != 0 && chain.len() < ANCESTORS_MAX {
        let Some(facts) = facts(next) else { break };
        if let Some(child) = chain.last() {
            let still = stat(child.key.pid)
                .is_some_and(|stat| stat.start_ticks == child.key.start_ticks && stat.ppid == facts.key.pid);
            if !still || facts.key.start_ticks > child.key.start_ticks {
                break;
            }
        }
        next = facts.ppid;
        chain.push(facts);
    }
    chain
}

/// Whether a chain of ancestors goes up to where processes begin. Of a shorter one (too long to be walked up, or changed
/// meanwhile) nobody can say what is *not* in it.
#[must_use]
pub fn is_whole(chain: &[ProcessFacts]) -> bool {
    chain.last().is_some_and(|last| last.ppid == 0)
}

/// The nearest agent at or above a process; `None` where none is.
#[must_use]
pub fn nearest_agent(pid: u32, catalog: &Catalog) -> Option<AgentAbove> {
    nearest_in(&ancestors(pid), catalog)
}

/// The nearest agent in a chain of processes, nearest first.
#[must_use]
pub fn nearest_in(chain: &[ProcessFacts], catalog: &Catalog) -> Option<AgentAbove> {
    let mut found: Option<AgentAbove> = None;
    let mut between = Vec::new();
    for facts in chain {
        match (catalog.identify(facts), &mut found) {
            (Some(matched), None) => {
                found = Some(AgentAbove {
                    kind: matched.kind.id.clone(),
                    agent: facts.clone(),
                    by_executable: matched.strength == Strength::Executable,
                    between: std::mem::take(&mut between),
                    above: Vec::new(),
                });
            }
            (Some(matched), Some(found)) => found.above.push((matched.kind.id.clone(), facts.key)),
            (None, _) => between.push(facts.key),
        }
    }
    found
}

/// Every process of this machine that is an agent of the catalog: kind and facts with its catalogued variables.
#[must_use]
pub fn agents(catalog: &Catalog) -> Vec<(String, ProcessFacts)> {
    let names = catalog.variables();
    let mut agents = Vec::new();
    for pid in pids() {
        let Some(quick) = quick(pid) else { continue };
        if catalog.identify(&quick).is_none() {
            continue;
        }
        // The quick look may be about a process that has since become another program.
        let Some(mut facts) = facts(pid) else { continue };
        if let Some(found) = catalog.identify(&facts) {
            facts.variables = variables(facts.key, &names, catalog);
            facts.powers = powers(&facts);
            agents.push((found.kind.id.clone(), facts));
        }
    }
    agents
}

/// Enough of a process to recognise an agent: most processes of a machine are none, and are passed over cheaply.
fn quick(pid: u32) -> Option<ProcessFacts> {
    let mut facts = ProcessFacts::bare(ProcessKey { pid, start_ticks: 0 }, 0, 0);
    let exe = link(pid, "exe");
    facts.exe = exe.strip_suffix(" (deleted)").map_or_else(|| exe.clone(), str::to_owned);
    facts.argv = arguments(pid);
    if facts.argv.is_empty() {
        return None;
    }
    if !facts.exe.is_empty() && is_interpreter(&facts.exe) {
        facts.cwd = link(pid, "cwd");
        facts.script = script(&facts);
    }
    Some(facts)
}

/// All process ids, at most [`PROCESSES_MAX`].
#[must_use]
pub fn pids() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    names.take(PROCESSES_MAX).collect()
}

/// Those of the named variables that a process was started with, catalogued names only; a secret's value is replaced
/// by `(set)`. Empty where its environment may not be read.
#[must_use]
pub fn variables(key: ProcessKey, names: &BTreeSet<&str>, catalog: &Catalog) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let Some(bytes) = small(&format!("/proc/{}/environ", key.pid), ENVIRONMENT_BYTES_MAX) else { return found };
    let known: BTreeMap<&str, bool> = catalog
        .kinds()
        .iter()
        .flat_map(|kind| kind.variables.iter().map(|variable| (variable.name.as_str(), variable.secret)))
        .filter(|(name, _)| names.contains(name))
        .collect();
    for entry in bytes.split(|byte| *byte == 0) {
        let entry = String::from_utf8_lossy(entry);
        if let Some((name, value)) = entry.split_once('=')
            && let Some(secret) = known.get(name)
        {
            let value = if *secret { "(set)".to_owned() } else { value.chars().take(1024).collect() };
            found.entry(name.to_owned()).or_insert(value);
        }
    }
    if is_alive(key) { found } else { BTreeMap::new() }
}

struct ProcStat {
    comm: String,
    ppid: u32,
    start_ticks: u64,
}

fn stat(pid: u32) -> Option<ProcStat> {
    let bytes = small(&format!("/proc/{pid}/stat"), 4096)?;
    let text = String::from_utf8_lossy(&bytes);
    // The name in brackets may contain brackets and spaces; the last bracket ends it.
    let (head, rest) = text.rsplit_once(')')?;
    let comm = head.split_once('(')?.1.to_owned();
    let mut fields = rest.split_ascii_whitespace();
    let ppid = fields.nth(1)?.parse().ok()?;
    let start_ticks = fields.nth(17)?.parse().ok()?;
    Some(ProcStat { comm, ppid, start_ticks })
}

/// The effective user id.
fn uid(pid: u32) -> Option<u32> {
    let bytes = small(&format!("/proc/{pid}/status"), 8192)?;
    let text = String::from_utf8_lossy(&bytes);
    text.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Groups whose members can become root.
const POWERFUL_GROUPS: [&str; 4] = ["docker", "lxd", "incus-admin", "disk"];
/// The bit of `CAP_SYS_ADMIN`.
const SYS_ADMIN: u32 = 21;

/// What a process has by which it can stop creel, beside its account: capabilities that count outside its own user
/// namespace, groups that are as good as root.
fn powers(facts: &ProcessFacts) -> Vec<String> {
    let Some(status) = small(&format!("/proc/{}/status", facts.key.pid), 64 * 1024) else { return Vec::new() };
    let groups = small("/etc/group", 1 << 20).unwrap_or_default();
    // In a user namespace of its own a process has every capability and none of them counts outside.
    let inner = match (facts.namespaces.get("user"), namespace(std::process::id(), "user")) {
        (Some(theirs), Some(ours)) => *theirs != ours,
        _ => true,
    };
    powers_in(&String::from_utf8_lossy(&status), &String::from_utf8_lossy(&groups), facts.uid == 0 || inner)
}

fn powers_in(status: &str, groups: &str, without_capabilities: bool) -> Vec<String> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    let mut powers = Vec::new();
    let capabilities = u64::from_str_radix(field("CapEff:"), 16).unwrap_or_default();
    if !without_capabilities && capabilities >> SYS_ADMIN & 1 == 1 {
        powers.push("CAP_SYS_ADMIN".to_owned());
    }
    let theirs: BTreeSet<&str> =
        field("Groups:").split_ascii_whitespace().chain(field("Gid:").split_ascii_whitespace()).collect();
    for line in groups.lines() {
        if let [name, _, id, _] = line.split(':').collect::<Vec<_>>().as_slice()
            && POWERFUL_GROUPS.contains(name)
            && theirs.contains(id)
        {
            powers.push(format!("group {name}"));
        }
    }
    powers
}

fn link(pid: u32, name: &str) -> String {
    let target = rustix::fs::readlinkat(CWD, format!("/proc/{pid}/{name}"), Vec::new());
    target.map(|target| target.to_string_lossy().into_owned()).unwrap_or_default()
}

fn arguments(pid: u32) -> Vec<String> {
    let Some(bytes) = small(&format!("/proc/{pid}/cmdline"), ARGUMENT_BYTES_MAX) else { return Vec::new() };
    // A program that sets its title leaves a tail of zero bytes.
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let text = bytes.get(..end).unwrap_or_default();
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|byte| *byte == 0)
        .take(ARGUMENTS_MAX)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

pub(crate) fn namespace(pid: u32, name: &str) -> Option<u64> {
    let target = link(pid, &format!("ns/{name}"));
    target.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

fn is_interpreter(exe: &str) -> bool {
    let base = base_name(exe);
    ["node", "bun", "deno", "python"].iter().any(|name| base.starts_with(name))
}

/// The script of an interpreter, links resolved, as the process sees its files.
fn script(facts: &ProcessFacts) -> Option<String> {
    if !is_interpreter(&facts.exe) {
        return None;
    }
    let path = absolute(&facts.cwd, script_argument(&facts.argv)?);
    if !path.starts_with('/') {
        return None;
    }
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, format!("/proc/{}/root", facts.key.pid), folder, Mode::empty())
        .or_else(|_| rustix::fs::openat(CWD, "/", folder, Mode::empty()))
        .ok()?;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let fd = rustix::fs::openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), inside).ok()?;
    path_of(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_by_which_creel_can_be_stopped_are_seen() {
        let groups = "root:x:0:\ndocker:x:998:ada\nusers:x:100:\n";
        let status = |capabilities: &str, groups: &str| {
            format!("Name:\tx\nGid:\t1000\t1000\t1000\t1000\nGroups:\t{groups} \nCapEff:\t{capabilities}\n")
        };
        let check = |capabilities: &str, theirs: &str, inner: bool, expected: &[&str]| {
            assert_eq!(powers_in(&status(capabilities, theirs), groups, inner), expected, "{capabilities} {theirs}");
        };
        check("0000000000000000", "100", false, &[]);
        check("0000000000200000", "100", false, &["CAP_SYS_ADMIN"]);
        check("000001ffffffffff", "100", true, &[]);
        check("0000000000000000", "100 998", false, &["group docker"]);
        check("not a number", "9980", false, &[]);
    }
}
