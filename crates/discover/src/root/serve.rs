//! Requests → answers, on the side that has the rights.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use creel_catalog::document::FILE_BYTES_MAX;
use creel_catalog::{Catalog, Kind, Place, Scope};
use creel_model::Account;
use rustix::fs::OFlags;

use super::managed::{ManagedFile, is_plain_name};
use super::{Answer, FrameError, Refusal, Request, Target, frame};
use crate::accounts::{account, accounts, as_account, own};
use crate::collect::{Bounds, collect, links_for, links_of, locate};
use crate::read::{Links, Machine, config_file};
use crate::{identity, look, process};

/// What the root side serves, and to whom.
#[derive(Debug)]
pub struct Policy {
    /// The catalog: its kinds and places are all that can be named.
    pub catalog: Catalog,
    /// The only user id that may ask over a connection, besides root: that of the account `creel`.
    pub peer: u32,
    /// The machine's root folder: `/`, or another one in tests.
    pub root: PathBuf,
    /// Where undos are kept; made with mode 0700 when needed.
    pub undo: PathBuf,
    /// Accounts that are known without the account database: user mode's own, tests' ones.
    pub accounts: Vec<Account>,
}

impl Policy {
    /// For `creeld --role=root`, serving the account `creel`.
    #[must_use]
    pub fn system(peer: u32) -> Self {
        Self {
            catalog: Catalog::built_in(),
            peer,
            root: PathBuf::from("/"),
            undo: PathBuf::from("/var/lib/creel-root/undo"),
            accounts: Vec::new(),
        }
    }

    /// For user mode: in process, with the state folder of the account's creel.
    #[must_use]
    pub fn user(state: &Path) -> Self {
        let own = own();
        Self {
            catalog: Catalog::built_in(),
            peer: own.uid,
            root: PathBuf::from("/"),
            undo: state.join("undo"),
            accounts: vec![own],
        }
    }

    /// Does what is asked, or says why not.
    #[must_use]
    pub fn answer(&self, request: &Request) -> Answer {
        self.try_answer(request).unwrap_or_else(Answer::Refused)
    }

    fn try_answer(&self, request: &Request) -> Result<Answer, Refusal> {
        Ok(match request {
            Request::IdentifyPeer { pid } => Answer::Processes(process::ancestors(*pid)),
            Request::ProcessFacts { pid } => Answer::Process(process::facts(*pid)),
            Request::AgentProcesses => Answer::Agents(process::agents(&self.catalog)),
            Request::ReadVariables { process, names } => {
                let known = self.catalog.variables();
                let names = names.iter().map(String::as_str).filter(|name| known.contains(name)).collect();
                Answer::Variables(process::variables(*process, &names, &self.catalog))
            }
            Request::DigestExecutable { process, file } => Answer::Digest(identity::of_process(*process, *file)),
            Request::Accounts => Answer::Accounts(accounts(&self.root)),
            Request::Collect { account } => {
                let (machine, account) = (self.machine()?, self.account(*account)?);
                let collected = || collect(&machine, &account, &self.catalog, &Bounds::default());
                Answer::Collected(self.with_rights(account.uid, collected)?)
            }
            Request::OpenCatalogued { account, kind, place, file } => {
                self.open(*account, None, kind, place, file.as_deref())?
            }
            Request::OpenInProject { account, project, kind, place, file } => {
                self.open(*account, Some(project), kind, place, file.as_deref())?
            }
            Request::ResolvePaths { account, paths, scripts } => {
                if paths.len() + scripts.len() > 2 * look::PATHS_MAX {
                    return Err(Refusal::TooMuch(format!("{} paths, at most {}", paths.len(), look::PATHS_MAX)));
                }
                Answer::Paths(self.with_rights(*account, || look::resolve(paths, scripts))?)
            }
            Request::DigestFile { account, path } => {
                Answer::Digest(self.with_rights(*account, || look::look(path, true).digest)?)
            }
            Request::ReadManaged { target } => self.managed(target, |file| file.read().map(Answer::Managed))?,
            Request::WriteManaged { target, text, expected, before, forget } => self.managed(target, |file| {
                let done = file.write(text, expected.as_ref(), before.as_deref())?;
                if *forget {
                    file.forget()?;
                }
                Ok(Answer::Done(done))
            })?,
            Request::RemoveManaged { target } => self.managed(target, |file| file.remove().map(Answer::Done))?,
        })
    }

    fn machine(&self) -> Result<Machine, Refusal> {
        Machine::open(&self.root).map_err(|error| Refusal::Failed(error.to_string()))
    }

    fn account(&self, uid: u32) -> Result<Account, Refusal> {
        let stated = self.accounts.iter().find(|account| account.uid == uid).cloned();
        stated.or_else(|| account(uid)).ok_or_else(|| Refusal::NotCatalogued(format!("account {uid}")))
    }

    fn with_rights<T: Send>(&self, uid: u32, run: impl FnOnce() -> T + Send) -> Result<T, Refusal> {
        as_account(uid, run).map_err(|error| Refusal::NotAllowed(format!("the rights of account {uid}: {error}")))
    }

    fn place(&self, kind: &str, place: &str) -> Result<(&Kind, &Place), Refusal> {
        let unknown = || Refusal::NotCatalogued(format!("{kind}/{place}"));
        let kind = self.catalog.kind(kind).ok_or_else(unknown)?;
        Ok((kind, kind.place(place).ok_or_else(unknown)?))
    }

    /// A catalogued file, read with no more rights than its reader needs.
    fn open(
        &self,
        uid: u32,
        project: Option<&str>,
        kind: &str,
        place: &str,
        file: Option<&str>,
    ) -> Result<Answer, Refusal> {
        let (_, place) = self.place(kind, place)?;
        let account = self.account(uid)?;
        if let Some(project) = project
            && (!project.starts_with('/') || project.split('/').any(|part| part == ".." || part.contains('\0')))
        {
            return Err(Refusal::NotAllowed("a project is an absolute path".to_owned()));
        }
        let unfit = || Refusal::NotCatalogued(format!("place `{}` here", place.id));
        let (base, path) = locate(&place.path, &account, project).ok_or_else(unfit)?;
        let path = file_path(place, path, file)?;
        let machine = self.machine()?;
        let read = || {
            // A project may lie outside the home; with the account's own rights that is no danger, else it is refused.
            let links = links_of(place, links_for(&account));
            let found = machine.config(&base, &path, links, FILE_BYTES_MAX)?;
            Some(config_file(&place.id, path.clone(), project.map(str::to_owned), found.0, found.1))
        };
        let found = match place.scope {
            Scope::Managed | Scope::System => read(),
            Scope::User | Scope::Project | Scope::Local => self.with_rights(uid, read)?,
        };
        Ok(Answer::File(found))
    }

    /// Finds the file that a target names, and does something with it with the rights of the file's owner.
    fn managed(
        &self,
        target: &Target,
        deed: impl FnOnce(ManagedFile) -> Result<Answer, Refusal> + Send,
    ) -> Result<Answer, Refusal> {
        let (kind, place) = self.place(&target.kind, &target.place)?;
        if !place.writable {
            return Err(Refusal::NotCatalogued(format!("{}/{} as writable", kind.id, place.id)));
        }
        let (base, inside, account) = match (place.path.strip_prefix("~/"), target.account) {
            (Some(rest), Some(uid)) => {
                let account = self.account(uid)?;
                (account.home.clone(), rest.to_owned(), Some(account))
            }
            (None, None) => ("/".to_owned(), place.path.trim_start_matches('/').to_owned(), None),
            _ => return Err(Refusal::NotCatalogued(format!("{}/{} for that account", kind.id, place.id))),
        };
        let path = file_path(place, format!("{}/{inside}", base.trim_end_matches('/')), target.file.as_deref())?;
        let below = path.get(base.len()..).unwrap_or("").trim_start_matches('/');
        let mut parts: Vec<String> = below.split('/').map(str::to_owned).collect();
        let name = parts.pop().unwrap_or_default();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let machine = self.machine()?;
        let base = machine
            .open_at("/", &base, Links::Follow, flags)
            .map_err(|error| Refusal::Failed(std::io::Error::from(error).to_string()))?;
        let owner = account.as_ref().map_or_else(String::new, |account| format!("{}.", account.uid));
        let undo = format!("{owner}{}.{}.{}.json", kind.id, place.id, target.file.as_deref().unwrap_or("file"));
        let undo_folder = account.as_ref().filter(|account| account.uid != rustix::process::geteuid().as_raw());
        // The account itself keeps the undo of its own file: root's folder is closed to that thread.
        let undo_folder = undo_folder.map_or_else(
            || self.undo.clone(),
            |account| self.root.join(account.home.trim_start_matches('/')).join(".local/state/creel/undo"),
        );
        // A home's file may hold secrets; an administrator's file is read by every account's agent.
        let mode = if account.is_some() { 0o600 } else { 0o644 };
        let file = ManagedFile { base, folders: parts, name, path, mode, undo: (undo_folder, undo) };
        match account {
            Some(account) => self.with_rights(account.uid, || deed(file))?,
            None => deed(file),
        }
    }
}

/// The path of a place's file: of the place itself, or of a file with a plain name and a fitting ending in it.
fn file_path(place: &Place, path: String, file: Option<&str>) -> Result<String, Refusal> {
    match (file, place.endings.is_empty()) {
        (None, true) => Ok(path),
        (Some(name), false)
            if is_plain_name(name) && place.endings.iter().any(|ending| name.ends_with(ending.as_str())) =>
        {
            Ok(format!("{path}/{name}"))
        }
        _ => Err(Refusal::NotCatalogued(format!("file name for place `{}`", place.id))),
    }
}

/// Serves one connection until the other side closes it: only its account (or root) may ask.
///
/// # Errors
/// The asker is another account, or the connection failed; it is closed either way.
pub fn serve(mut stream: UnixStream, policy: &Policy) -> Result<(), FrameError> {
    let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(std::io::Error::from)?;
    if peer.uid.as_raw() != policy.peer && !peer.uid.is_root() {
        let refusal = Refusal::NotAllowed(format!("account {} may not ask", peer.uid.as_raw()));
        frame::send(&mut stream, &Answer::Refused(refusal))?;
        return Err(FrameError::Malformed("a peer of another account".to_owned()));
    }
    stream.set_write_timeout(Some(std::time::Duration::from_secs(30)))?;
    while let Some(request) = frame::receive::<Request>(&mut stream)? {
        let answer = policy.answer(&request);
        match frame::send(&mut stream, &answer) {
            Err(FrameError::TooLarge(size)) => {
                frame::send(&mut stream, &Answer::Refused(Refusal::TooMuch(format!("an answer of {size} bytes"))))?;
            }
            other => other?,
        }
    }
    Ok(())
}
