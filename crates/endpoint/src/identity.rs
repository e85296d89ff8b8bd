//! Whose call is it: from a connected process up the process tree to the nearest agent of the catalog.
//!
//! Everything here is the kernel's word. What is looked up once about an agent's process (its kind, folder, account) is
//! kept under its pid *and* start time. The one fact a newcomer gets wrong: "no agent above" is an answer that denies a
//! hook call and admits a person; "cannot tell" denies both.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use creel_catalog::{Catalog, ProcessFacts};
use creel_discover::process::{self, AgentAbove};
use creel_guard::{Caller, RunKey};
use creel_model::{Account, ApprovalMode, Mode, ProcessKey};

use crate::accounts::Accounts;
use crate::root::Root;
use crate::sockets::Peer;

/// Agents' processes kept in mind; beyond, all are forgotten and looked up again.
const KNOWN_MAX: usize = 4096;
/// How often a tree that changes while it is looked at is looked at.
const LOOKS_MAX: usize = 3;

/// Why a call cannot be attributed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// No catalogued agent is above the process that called.
    NoAgentAbove,
    /// The process that called is gone, so the tree above it cannot be trusted.
    Gone,
    /// The tree above the process could not be seen up to its root: it is too deep, changed, or nobody answers.
    NotWhole,
    /// It came over the socket of a run in a cage, and not out of that cage.
    OutsideCage,
    /// The agent runs under another account than the hook.
    OtherAccount {
        /// The hook's.
        hook: u32,
        /// The agent's.
        agent: u32,
    },
}

impl std::fmt::Display for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unknown::NoAgentAbove => f.write_str("no agent of the catalog is above the process that called the hook"),
            Unknown::Gone => f.write_str("the process that called the hook ended before it was looked at"),
            Unknown::NotWhole => f.write_str("the processes above it cannot be seen up to the first one"),
            Unknown::OutsideCage => {
                f.write_str("the process that called a run's hook socket is not in that run's cage")
            }
            Unknown::OtherAccount { hook, agent } => {
                write!(f, "the hook runs as account {hook} and the agent above it as {agent}")
            }
        }
    }
}

impl std::error::Error for Unknown {}

/// Finds agents above processes.
pub struct Identity {
    catalog: Arc<Catalog>,
    accounts: Arc<Accounts>,
    root: Arc<Root>,
    mode: Mode,
    boot_id: String,
    known: Mutex<BTreeMap<ProcessKey, Known>>,
}

#[derive(Clone)]
struct Known {
    kind: String,
    caller: Caller,
}

/// How an agent stands by the last look at its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Posture {
    /// How it approves its own actions.
    pub approval_mode: ApprovalMode,
    /// Whether creel's hook is wired in.
    pub managed: bool,
}

impl Identity {
    /// An identity service.
    #[must_use]
    pub fn new(catalog: Arc<Catalog>, accounts: Arc<Accounts>, root: Arc<Root>, mode: Mode, boot_id: String) -> Self {
        Self { catalog, accounts, root, mode, boot_id, known: Mutex::new(BTreeMap::new()) }
    }

    /// The kind of the nearest agent at or above a process.
    ///
    /// # Errors
    /// The process is gone, or what is above it cannot be seen.
    pub fn agent_above(&self, pid: u32) -> Result<Option<String>, Unknown> {
        if process::start_ticks(pid).is_none() {
            return Err(Unknown::Gone);
        }
        let mut found = Err(Unknown::NotWhole);
        // A parent that ends while we look makes a short chain; it is another one the next time.
        for _ in 0..LOOKS_MAX {
            found = nearest_of(&self.chain(pid), &self.catalog);
            if found.is_ok() {
                break;
            }
        }
        found
    }

    /// The run that a hook call belongs to.
    ///
    /// # Errors
    /// It cannot be attributed; the call is denied.
    pub fn caller(&self, peer: &Peer) -> Result<Caller, Unknown> {
        let caller = match self.known_above(peer.pid) {
            Some(known) => known.caller,
            None => {
                let chain = self.chain(peer.pid);
                if chain.is_empty() {
                    return Err(Unknown::Gone);
                }
                let above = process::nearest_in(&chain, &self.catalog).ok_or(Unknown::NoAgentAbove)?;
                self.learn(above)
            }
        };
        // The chain is only about this call if the process at the other end is still the one that called.
        if peer.is_still_there() == Some(false) {
            return Err(Unknown::Gone);
        }
        if caller.account.uid != peer.uid {
            return Err(Unknown::OtherAccount { hook: peer.uid, agent: caller.account.uid });
        }
        Ok(caller)
    }

    /// A run's posture changed or its configuration was looked at: what is known of all agents of that kind and account
    /// is brought up to date.
    pub fn set_posture(&self, kind: &str, uid: u32, posture: Posture) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in known.values_mut().filter(|entry| entry.kind == kind && entry.caller.account.uid == uid) {
            entry.caller.approval_mode = posture.approval_mode;
            entry.caller.managed = posture.managed;
        }
    }

    /// Whether a process has a controlling terminal.
    #[must_use]
    pub fn has_terminal(&self, pid: u32) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .ok()
            .and_then(|stat| stat.rsplit_once(") ")?.1.split(' ').nth(4)?.parse::<i64>().ok())
            .is_some_and(|terminal| terminal != 0)
    }

    /// A walk that reads one line per ancestor and stops at the first process that is known already.
    fn known_above(&self, pid: u32) -> Option<Known> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_empty() {
            return None;
        }
        let mut next = pid;
        let mut child_started = u64::MAX;
        for _ in 0..process::ANCESTORS_MAX {
            let (parent, started) = parent_of(next)?;
            if started > child_started {
                return None;
            }
            if let Some(entry) = known.get(&ProcessKey { pid: next, start_ticks: started }) {
                return Some(entry.clone());
            }
            // A process in between may be an agent that is not known yet: only shells and hooks are passed over.
            if next != pid && !is_plain(next) {
                return None;
            }
            child_started = started;
            next = parent;
            if next <= 1 {
                return None;
            }
        }
        None
    }

    fn learn(&self, above: AgentAbove) -> Caller {
        let AgentAbove { kind, agent, above, .. } = above;
        let account = self.accounts.of(agent.uid);
        let caller = Caller {
            run: RunKey { boot_id: self.boot_id.clone(), process: agent.key, cage: None },
            kind: kind.clone(),
            account,
            workspace: Some(agent.cwd.clone()).filter(|folder| folder.starts_with('/')),
            temporary: vec!["/tmp".to_owned(), "/var/tmp".to_owned()],
            approval_mode: ApprovalMode::Unknown,
            managed: true,
            mode: self.mode,
            interactive: self.has_terminal(agent.key.pid) && !is_unattended(&agent.argv),
            caged: false,
            tier: String::new(),
            parent: above.first().map(|(_, process)| RunKey {
                boot_id: self.boot_id.clone(),
                process: *process,
                cage: None,
            }),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(agent.key, Known { kind, caller: caller.clone() });
        caller
    }

    /// A process and its ancestors. In system mode the root role looks, because an account may not see another's
    /// executables and folders.
    fn chain(&self, pid: u32) -> Vec<ProcessFacts> {
        match self.mode {
            Mode::User => process::ancestors(pid),
            Mode::System => self.root.ancestors(pid),
        }
    }

    /// Ends what is known of processes that are gone, and names their runs.
    #[must_use]
    pub fn ended(&self) -> Vec<RunKey> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<ProcessKey> = known.keys().copied().filter(|key| !process::is_alive(*key)).collect();
        gone.iter().filter_map(|key| known.remove(key)).map(|entry| entry.caller.run).collect()
    }
}

/// The kind of the nearest agent in a chain; that there is none can only be told of a whole one.
fn nearest_of(chain: &[ProcessFacts], catalog: &Catalog) -> Result<Option<String>, Unknown> {
    match process::nearest_in(chain, catalog) {
        Some(above) => Ok(Some(above.kind)),
        None if process::is_whole(chain) => Ok(None),
        None => Err(Unknown::NotWhole),
    }
}

/// Whether a process between hook and agent is one that starts things for others: the agent cannot hide another agent
/// behind such a name, because an agent is recognised by the full look whenever the quick one stops here.
fn is_plain(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .is_ok_and(|name| matches!(name.trim_end(), "sh" | "bash" | "dash" | "zsh" | "creel-hook"))
}

/// Whether an agent was started for one task without a person: its own question would wait for nobody.
fn is_unattended(argv: &[String]) -> bool {
    argv.iter().any(|word| matches!(word.as_str(), "-p" | "--print" | "exec"))
}

/// Parent and start time of a process, from its one-line status.
fn parent_of(pid: u32) -> Option<(u32, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let parent = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some((parent, started))
}

/// The account that stands for a number that has no name.
#[must_use]
pub fn nameless(uid: u32) -> Account {
    Account { uid, name: uid.to_string(), home: "/nonexistent".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Enough shells inside one another put the agent out of sight, and a root role that does not answer shows nothing
    /// at all: neither makes a person of whoever asks.
    #[test]
    fn a_tree_that_is_not_seen_whole_has_not_no_agent_in_it() {
        let catalog = Catalog::built_in();
        let process = |pid: u32, ppid: u32| ProcessFacts::bare(ProcessKey { pid, start_ticks: 1 }, ppid, 1000);
        let deep: Vec<ProcessFacts> = (0..64).map(|n| process(200 - n, 199 - n)).collect();
        assert_eq!(nearest_of(&deep, &catalog), Err(Unknown::NotWhole));
        assert_eq!(nearest_of(&[], &catalog), Err(Unknown::NotWhole));
        assert_eq!(nearest_of(&[process(7, 1), process(1, 0)], &catalog), Ok(None));
    }

    #[test]
    fn the_quick_look_agrees_with_the_kernel_about_ourselves() {
        let own = std::process::id();
        let (parent, started) = parent_of(own).expect("we exist");
        assert_eq!(parent, std::os::unix::process::parent_id());
        assert_eq!(Some(started), process::start_ticks(own));
    }
}
