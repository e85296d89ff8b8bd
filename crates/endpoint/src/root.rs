//! The seam to what only root may do: in process in user mode, over a socket in system mode.
//!
//! The other side of the socket is `serve`, the whole of `creeld --role=root`. The one fact a newcomer gets wrong: a
//! connection that failed is thrown away and the request fails; nothing falls back to this account's own rights.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow, bail};
use creel_catalog::{AgentReport, Catalog, ProcessFacts};
use creel_discover::look::{self, Looked};
use creel_discover::root::{self as door, Answer, Policy, Request};
use creel_discover::{accounts, process, scan::judge, scan::scan};
use creel_model::{Account, Mode, ProcessKey};

use crate::config::Config;
use crate::connections::Places;
use crate::sockets::{Peer, listen, prepare_folder};

/// Connections to the root role that are kept open.
const IDLE_MAX: usize = 8;
/// Connections that the root role serves at a time.
const SERVED_MAX: usize = 64;

/// The seam.
pub struct Root {
    local: Option<Mutex<door::Root>>,
    socket: PathBuf,
    idle: Mutex<Vec<door::Root>>,
}

impl Root {
    /// The seam for this configuration.
    ///
    /// # Errors
    /// System mode, and the root role does not answer.
    pub fn connect(config: &Config) -> Result<Self> {
        let local = match config.mode {
            Mode::User => Some(Mutex::new(door::Root::local(Policy::user(&config.state)))),
            Mode::System => None,
        };
        let root = Self { local, socket: config.root_socket.clone(), idle: Mutex::new(Vec::new()) };
        if root.local.is_none() {
            root.ask(&Request::ProcessFacts { pid: std::process::id() })
                .map_err(|why| anyhow!("the root role does not answer on `{}`: {why}", config.root_socket.display()))?;
        }
        Ok(root)
    }

    /// The seam in this very process, for what must work without a daemon; `managed`: with root's own places.
    #[must_use]
    pub fn in_process(config: &Config, managed: bool) -> Self {
        let policy = if managed { Policy::system(0) } else { Policy::user(&config.state) };
        Self {
            local: Some(Mutex::new(door::Root::local(policy))),
            socket: config.root_socket.clone(),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Asks for one thing.
    ///
    /// # Errors
    /// What went wrong, in words; a refusal of the other side included.
    pub fn ask(&self, request: &Request) -> Result<Answer, String> {
        let answer = match &self.local {
            Some(local) => {
                local.lock().unwrap_or_else(PoisonError::into_inner).ask(request).map_err(|error| error.to_string())?
            }
            None => {
                let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let (mut connection, fresh) = match kept {
                    Some(connection) => (connection, false),
                    None => (self.open()?, true),
                };
                let answer = match connection.ask(request) {
                    // A kept connection may have been closed by a restart of the other side.
                    Err(_) if !fresh => {
                        connection = self.open()?;
                        connection.ask(request).map_err(|error| error.to_string())?
                    }
                    other => other.map_err(|error| error.to_string())?,
                };
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                if idle.len() < IDLE_MAX {
                    idle.push(connection);
                }
                answer
            }
        };
        match answer {
            Answer::Refused(refusal) => Err(refusal.to_string()),
            answer => Ok(answer),
        }
    }

    fn open(&self) -> Result<door::Root, String> {
        let stream = UnixStream::connect(&self.socket)
            .map_err(|error| format!("the root role cannot be reached on `{}`: {error}", self.socket.display()))?;
        // Whoever else listens there would hand out facts that are believed.
        match Peer::of(&stream) {
            Ok(peer) if peer.uid == 0 => Ok(door::Root::Remote(stream)),
            Ok(peer) => Err(format!("account {} listens in place of the root role", peer.uid)),
            Err(error) => Err(format!("it cannot be told who serves the root role: {error}")),
        }
    }

    /// A process and its ancestors, nearest first; empty where it is gone or nobody can tell.
    #[must_use]
    pub fn ancestors(&self, pid: u32) -> Vec<ProcessFacts> {
        if self.local.is_some() {
            return process::ancestors(pid);
        }
        match self.ask(&Request::IdentifyPeer { pid }) {
            Ok(Answer::Processes(chain)) => chain,
            _ => Vec::new(),
        }
    }

    /// The namespaces of exactly that process; none where it is gone or nobody may see them.
    #[must_use]
    pub fn namespaces(&self, process: ProcessKey) -> BTreeMap<String, u64> {
        match self.ask(&Request::ProcessFacts { pid: process.pid }) {
            Ok(Answer::Process(Some(facts))) if facts.key == process => facts.namespaces,
            _ => BTreeMap::new(),
        }
    }

    /// What paths mean to an account.
    ///
    /// # Errors
    /// Nobody can tell.
    pub fn look(
        &self,
        paths: &[String],
        digests: &BTreeSet<String>,
        account: &Account,
    ) -> Result<BTreeMap<String, Looked>, String> {
        if self.local.is_some() {
            return all(paths, digests, |paths, digests| Ok(look::resolve(paths, digests)));
        }
        all(paths, digests, |paths, digests| {
            let request =
                Request::ResolvePaths { account: account.uid, paths: paths.to_vec(), scripts: digests.clone() };
            match self.ask(&request)? {
                Answer::Paths(found) => Ok(found),
                _ => Err("the root role answered something else than was asked".to_owned()),
            }
        })
    }

    /// The agents of this account (user mode) or of all accounts (system mode).
    #[must_use]
    pub fn scan(&self, mode: Mode, catalog: &Catalog) -> Vec<AgentReport> {
        if mode == Mode::User {
            let own = [accounts::own()];
            return scan(Path::new("/"), &own, catalog, &mut |_| {});
        }
        let Ok(Answer::Accounts(accounts)) = self.ask(&Request::Accounts) else { return Vec::new() };
        let Ok(Answer::Agents(processes)) = self.ask(&Request::AgentProcesses) else { return Vec::new() };
        let mut reports = Vec::new();
        for account in accounts {
            if let Ok(Answer::Collected(collected)) = self.ask(&Request::Collect { account: account.uid }) {
                reports.extend(judge(&collected, &account, catalog, &processes));
            }
        }
        reports
    }
}

/// What was found, by path.
type Found = BTreeMap<String, Looked>;

/// One look may be about [`look::PATHS_MAX`] paths only; a longer list is asked in pieces.
fn all(
    paths: &[String],
    digests: &BTreeSet<String>,
    mut look: impl FnMut(&[String], &BTreeSet<String>) -> Result<Found, String>,
) -> Result<BTreeMap<String, Looked>, String> {
    let unique: BTreeSet<&String> = paths.iter().chain(digests).collect();
    let unique: Vec<String> = unique.into_iter().cloned().collect();
    let mut found = BTreeMap::new();
    for piece in unique.chunks(look::PATHS_MAX) {
        let scripts = piece.iter().filter(|path| digests.contains(*path)).cloned().collect();
        found.extend(look(piece, &scripts)?);
    }
    Ok(found)
}

/// `creeld --role=root`: serves the one account on the socket until it is stopped.
///
/// # Errors
/// The account does not exist, or the socket cannot be made.
pub fn serve(socket: &Path, account: &str) -> Result<()> {
    let (uid, gid) = crate::accounts::Accounts::default()
        .named(account)
        .with_context(|| format!("there is no account `{account}`; `creel service install --system` makes it"))?;
    if uid == 0 {
        bail!("the root role serves an account of its own, not root");
    }
    let folder = socket.parent().context("the socket needs a folder")?;
    prepare_folder(folder, 0o755)?;
    let listener = listen(socket, 0o660)?;
    std::os::unix::fs::chown(socket, Some(0), Some(gid.as_raw())).context("cannot hand the socket to the account")?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o660))?;
    let served = Places::new(SERVED_MAX, SERVED_MAX);
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let Ok(peer) = Peer::of(&stream) else { continue };
        if peer.uid != uid && peer.uid != 0 {
            continue;
        }
        let Some(place) = served.take(()) else { continue };
        let _ = std::thread::Builder::new().name("root".to_owned()).spawn(move || {
            let _ = door::serve(stream, &Policy::system(uid));
            drop(place);
        });
    }
    Ok(())
}
