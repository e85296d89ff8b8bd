//! `creel service install|remove --system`: creel as a service of the machine, by hand, without a package manager.
//!
//! A short, linear list of steps, all printed by `--dry-run`: programs, units, accounts, folders, start. What was written
//! or made is remembered in a list, and exactly that is undone, unless somebody changed it since. The one thing a
//! newcomer gets wrong: creel is taken out of the agents' settings *before* its programs go, because settings that name
//! a hook which is gone deny every call. The journal is evidence: it stays, and the account that owns it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Args, Subcommand};
use creel_catalog::Catalog;
use creel_wire::control::Request;
use serde::{Deserialize, Serialize};

use crate::connection::{Daemon, Place, SYSTEM_RUNTIME};
use crate::failure::{Exit, Failure, Outcome};
use crate::text::clean;
use crate::{offline, out, presence, programs};

/// What was written, by path with its digest.
const LIST: &str = "/etc/creel/service.json";
/// Where the programs go; the units name it.
const PROGRAMS: &str = "/usr/bin";
const UNITS: [&str; 3] = ["creeld-root.service", "creeld.socket", "creeld.service"];
const FILES: [(&str, &str); 5] = [
    ("/usr/lib/systemd/system/creeld-root.service", include_str!("../../../packaging/systemd/creeld-root.service")),
    ("/usr/lib/systemd/system/creeld.service", include_str!("../../../packaging/systemd/creeld.service")),
    ("/usr/lib/systemd/system/creeld.socket", include_str!("../../../packaging/systemd/creeld.socket")),
    ("/usr/lib/sysusers.d/creel.conf", include_str!("../../../packaging/sysusers.d/creel.conf")),
    ("/usr/lib/tmpfiles.d/creel.conf", include_str!("../../../packaging/tmpfiles.d/creel.conf")),
];
const SYSTEMCTL: &str = "/usr/bin/systemctl";
const SYSUSERS: &str = "/usr/bin/systemd-sysusers";
const ACCOUNT: &str = "creel";
const GROUPS: [&str; 2] = ["creel-analyst", "creel-approver"];

/// Arguments of `creel service`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  sudo creel service install --system --dry-run\n  sudo creel service install --system\n  sudo creel service remove --system"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install and start the system service.
    Install(Options),
    /// Stop it and remove what was installed; the journal stays.
    Remove(Options),
}

#[derive(Debug, Args)]
struct Options {
    /// For the whole machine (there is no other kind of service yet).
    #[arg(long, required = true)]
    system: bool,
    /// Only print the steps.
    #[arg(long)]
    dry_run: bool,
}

/// Does it.
pub(crate) fn run(arguments: Arguments) -> Outcome {
    let (options, install) = match &arguments.verb {
        Verb::Install(options) => (options, true),
        Verb::Remove(options) => (options, false),
    };
    debug_assert!(options.system, "the parser requires it");
    let mut steps = Steps { dry_run: options.dry_run, done: Done::default() };
    if !options.dry_run {
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::new("this needs root").hint("run it with sudo; `--dry-run` shows what it would do"));
        }
        presence::not_below_agent()?;
    }
    if install {
        steps.install()?
    } else {
        steps.remove()?
    }
    Ok(Exit::Good)
}

/// What was done to the machine, so that exactly that can be undone. Kept as [`LIST`].
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Done {
    /// Files that were written: path and digest.
    files: BTreeMap<String, String>,
    /// Folders that were made, outermost first.
    folders: Vec<String>,
    /// The account was made.
    account: bool,
    /// Groups that were made.
    groups: Vec<String>,
}

impl Done {
    fn is_empty(&self) -> bool {
        self.files.is_empty() && self.folders.is_empty() && !self.account && self.groups.is_empty()
    }
}

struct Steps {
    dry_run: bool,
    done: Done,
}

impl Steps {
    fn install(&mut self) -> Result<(), Failure> {
        self.done = read_list()?;
        self.folder(Path::new("/etc/creel"), 0o755, None)?;
        for name in ["creel", "creeld", "creel-hook"] {
            self.program(name)?;
        }
        for (path, text) in FILES {
            self.write(Path::new(path), text.as_bytes(), 0o644)?;
        }
        self.accounts()?;
        self.folder(Path::new("/etc/creel/policy"), 0o755, None)?;
        for (path, mode) in [("/var/lib/creel", 0o700), ("/run/creel", 0o755)] {
            self.folder(Path::new(path), mode, Some(ACCOUNT))?;
        }
        if running_systemd() {
            self.run(SYSTEMCTL, &["daemon-reload"])?;
            for unit in UNITS {
                self.run(SYSTEMCTL, &["enable", "--now", unit])?;
            }
            self.tell("the service runs; `creel status` shows it")
        } else {
            self.tell("no systemd runs here; start by hand, in this order:")?;
            self.tell("  as root:            /usr/bin/creeld --role=root --account creel")?;
            self.tell("  as account `creel`: /usr/bin/creeld --system")?;
            self.tell(
                "with `setpriv --reuid creel --regid creel --clear-groups` in front, root starts the second as well",
            )
        }
    }

    fn remove(&mut self) -> Result<(), Failure> {
        self.done = read_list()?;
        if self.done.is_empty() {
            return self.tell("nothing is installed by `creel service install`");
        }
        // First what names the hook: an agent whose settings name a program that is gone can do nothing any more.
        self.unwire()?;
        self.stop()?;
        for (path, digest) in std::mem::take(&mut self.done.files) {
            let path = PathBuf::from(path);
            match std::fs::read(&path) {
                Err(_) => self.tell(&format!("gone already  {}", path.display()))?,
                Ok(bytes) if digest_of(&bytes) != digest => {
                    self.tell(&format!("changed, stays  {}", path.display()))?;
                }
                Ok(_) => {
                    self.tell(&format!("remove  {}", path.display()))?;
                    if !self.dry_run {
                        std::fs::remove_file(&path).map_err(|error| Failure::file("remove", &path, &error))?;
                    }
                }
            }
        }
        self.forget_accounts()?;
        if !self.dry_run {
            std::fs::remove_file(LIST).map_err(|error| Failure::file("remove", Path::new(LIST), &error))?;
        }
        for folder in ["/var/lib/creel-root/undo", "/var/lib/creel-root"] {
            // The root role's memory of settings as they were: empty now, unless something still has to be undone.
            if Path::new(folder).exists() {
                self.remove_folder(Path::new(folder))?;
            }
        }
        for folder in std::mem::take(&mut self.done.folders).iter().rev() {
            self.remove_folder(Path::new(folder))?;
        }
        if running_systemd() {
            self.run(SYSTEMCTL, &["daemon-reload"])?;
        }
        Ok(())
    }

    /// Takes creel out of every agent's settings that the service wired it into; refuses where an account did it itself.
    fn unwire(&self) -> Result<(), Failure> {
        for kind in [creel_dialect::kinds::CLAUDE_CODE, creel_dialect::kinds::CODEX] {
            let mut operands = vec![kind, "system"];
            if self.dry_run {
                operands.push("--dry-run");
            }
            let removed: offline::Removed = offline::ask("guard-remove", &operands)?;
            for file in removed.change.files {
                self.tell(&format!("take creel out of  {}", file.path))?;
            }
        }
        let hook = format!("{PROGRAMS}/creel-hook");
        let accounts = creel_discover::accounts(Path::new("/"));
        let reports = creel_discover::scan(Path::new("/"), &accounts, &Catalog::built_in(), &mut |_| {});
        let hooks = reports.iter().flat_map(|report| &report.hooks);
        // In a dry run what the service wired in still stands there.
        let left: BTreeSet<&str> = hooks
            .filter(|known| known.ours && !known.managed && known.command.contains(&hook))
            .map(|known| known.declared_in.as_str())
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        let files: Vec<String> = left.iter().map(|file| clean(file)).collect();
        Err(Failure::new(format!("settings of accounts still name the hook: {}", files.join(", ")))
            .hint("each of these accounts has to run `creel guard remove KIND --user` first"))
    }

    fn stop(&self) -> Result<(), Failure> {
        if running_systemd() {
            for unit in UNITS.iter().rev() {
                self.run(SYSTEMCTL, &["disable", "--now", unit])?;
            }
            return Ok(());
        }
        let place = Place { runtime: SYSTEM_RUNTIME.into(), system: true };
        let Some(mut daemon) = Daemon::try_open(&place)? else { return Ok(()) };
        self.tell("stop  the system daemon; end `creeld --role=root` yourself")?;
        if !self.dry_run {
            daemon.ask(&Request::Shutdown)?;
        }
        Ok(())
    }

    /// The account goes only where it owns no record: a number that is given to somebody else would own the evidence.
    fn forget_accounts(&mut self) -> Result<(), Failure> {
        for group in std::mem::take(&mut self.done.groups) {
            if members(&group).is_none_or(|members| !members.is_empty()) {
                self.tell(&format!("has members, stays  group {group}"))?;
            } else {
                self.run("/usr/sbin/groupdel", &[&group])?;
            }
        }
        let records = Path::new("/var/lib/creel");
        let empty = std::fs::read_dir(records).map_or(true, |mut entries| entries.next().is_none());
        if !empty {
            self.tell("the record in /var/lib/creel is evidence: it stays, and account `creel` with it")?;
        } else if std::mem::take(&mut self.done.account) {
            self.run("/usr/sbin/userdel", &[ACCOUNT])?;
            if members(ACCOUNT).is_some() && !self.dry_run {
                self.run("/usr/sbin/groupdel", &[ACCOUNT])?;
            }
        }
        Ok(())
    }

    /// Removes a folder that holds nothing any more.
    fn remove_folder(&self, path: &Path) -> Result<(), Failure> {
        if self.dry_run {
            return self.tell(&format!("remove  {} (if nothing is in it then)", path.display()));
        }
        match std::fs::remove_dir(path) {
            Ok(()) => self.tell(&format!("remove  {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(_) => self.tell(&format!("not empty, stays  {}", path.display())),
        }
    }

    /// A program that stands in its place already is not ours to write, but nobody else than root may be able to.
    fn check_in_place(path: &Path) -> Result<(), Failure> {
        let mut next = Some(path);
        while let Some(here) = next {
            let facts = std::fs::symlink_metadata(here).map_err(|error| Failure::file("look at", here, &error))?;
            if facts.uid() != 0 || facts.mode() & 0o022 != 0 && !facts.is_symlink() {
                return Err(Failure::new(format!("`{}` can be changed by others than root", here.display()))
                    .hint("the service runs only what nobody else can replace"));
            }
            if facts.is_file() && facts.mode() & 0o6000 != 0 {
                return Err(Failure::new(format!("`{}` is setuid or setgid", here.display())));
            }
            next = here.parent();
        }
        Ok(())
    }

    fn program(&mut self, name: &str) -> Result<(), Failure> {
        let source = programs::beside(name)?;
        let target = Path::new(PROGRAMS).join(name);
        if source == target && !self.done.files.contains_key(&target.display().to_string()) {
            self.tell(&format!("stands  {}", target.display()))?;
            return Self::check_in_place(&target);
        }
        let bytes = std::fs::read(&source).map_err(|error| Failure::file("read", &source, &error))?;
        self.write(&target, &bytes, 0o755)
    }

    /// Writes a file beside its place and renames it there: never half a program, never through a link.
    fn write(&mut self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
        let digest = digest_of(bytes);
        let name = path.display().to_string();
        let there = std::fs::read(path).ok().map(|bytes| digest_of(&bytes));
        if there.as_ref() == Some(&digest) {
            self.done.files.insert(name, digest);
            return Ok(());
        }
        if let Some(there) = there
            && self.done.files.get(&name) != Some(&there)
        {
            return Err(Failure::new(format!(
                "`{}` exists and was not written by `creel service install`",
                clean(&name)
            ))
            .hint("a package may own it; remove that package or the file first"));
        }
        self.tell(&format!("write {mode:o}  {name}"))?;
        if self.dry_run {
            return Ok(());
        }
        let fail = |error: &std::io::Error| Failure::file("write", path, error);
        if let Some(folder) = path.parent() {
            self.parents(folder)?;
        }
        let fresh = path.with_extension("creel-new");
        let _ = std::fs::remove_file(&fresh);
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh);
        let mut file = file.map_err(|error| fail(&error))?;
        std::io::Write::write_all(&mut file, bytes).map_err(|error| fail(&error))?;
        file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(|error| fail(&error))?;
        file.sync_all().map_err(|error| fail(&error))?;
        std::fs::rename(&fresh, path).map_err(|error| fail(&error))?;
        self.done.files.insert(name, digest);
        // A step that fails later must not make this file unknown.
        self.remember()
    }

    /// Makes the folders above a file that are missing, outermost first.
    fn parents(&mut self, folder: &Path) -> Result<(), Failure> {
        if folder.is_dir() {
            return Ok(());
        }
        if let Some(above) = folder.parent() {
            self.parents(above)?;
        }
        self.folder(folder, 0o755, None)
    }

    fn accounts(&mut self) -> Result<(), Failure> {
        let account = crate::connection::account_uid(ACCOUNT).is_none();
        let groups: Vec<&str> = GROUPS.into_iter().filter(|group| members(group).is_none()).collect();
        if !account && groups.is_empty() {
            return self.tell("stands  account and groups");
        }
        // Said before it is done: a step that fails half-way must not make them unknown.
        self.done.account |= account;
        self.done.groups.extend(groups.iter().map(ToString::to_string));
        self.remember()?;
        if Path::new(SYSUSERS).exists() {
            return self.run(SYSUSERS, &["/usr/lib/sysusers.d/creel.conf"]);
        }
        if account {
            self.run(
                "/usr/sbin/useradd",
                &[
                    "--system",
                    "--user-group",
                    "--home-dir",
                    "/var/lib/creel",
                    "--no-create-home",
                    "--shell",
                    "/usr/sbin/nologin",
                    ACCOUNT,
                ],
            )?;
        }
        for group in groups {
            self.run("/usr/sbin/groupadd", &["--system", group])?;
        }
        Ok(())
    }

    fn folder(&mut self, path: &Path, mode: u32, account: Option<&str>) -> Result<(), Failure> {
        let owner = account.map_or("root", |account| account);
        let fail = |error: &std::io::Error| Failure::file("create", path, error);
        let name = path.display().to_string();
        match std::fs::symlink_metadata(path) {
            Ok(facts) if !facts.is_dir() => return Err(Failure::new(format!("`{name}` is not a folder"))),
            Ok(_) => {}
            Err(_) => {
                self.tell(&format!("folder {mode:o} {owner}  {name}"))?;
                if !self.dry_run {
                    std::fs::create_dir(path).map_err(|error| fail(&error))?;
                    self.done.folders.push(name);
                    self.remember()?;
                }
            }
        }
        if self.dry_run {
            return Ok(());
        }
        let (uid, gid) = match account {
            Some(name) => crate::connection::account_ids(name)
                .ok_or_else(|| Failure::new(format!("account `{name}` was not created")))?,
            None => (0, 0),
        };
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).map_err(|error| fail(&error))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(|error| fail(&error))
    }

    fn remember(&self) -> Result<(), Failure> {
        if self.dry_run {
            return Ok(());
        }
        let path = Path::new(LIST);
        let fail = |error: &std::io::Error| Failure::file("write", path, error);
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, serde_json::to_vec_pretty(&self.done)?).map_err(|error| fail(&error))?;
        std::fs::rename(&fresh, path).map_err(|error| fail(&error))
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<(), Failure> {
        self.tell(&format!("run   {program} {}", arguments.join(" ")))?;
        if self.dry_run {
            return Ok(());
        }
        let status = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .status()
            .map_err(|error| Failure::file("start", Path::new(program), &error))?;
        if status.success() { Ok(()) } else { Err(Failure::new(format!("`{program}` failed: {status}"))) }
    }

    fn tell(&self, line: &str) -> Result<(), Failure> {
        out::lines([clean(line)])
    }
}

fn read_list() -> Result<Done, Failure> {
    match std::fs::read(LIST) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|error| Failure::new(format!("`{LIST}` is damaged: {error}")))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Done::default()),
        Err(error) => Err(Failure::file("read", Path::new(LIST), &error)),
    }
}

fn digest_of(bytes: &[u8]) -> String {
    creel_model::id::hex(&creel_seal::sha256(bytes))
}

/// The members of a group; `None`: there is no such group.
fn members(group: &str) -> Option<Vec<String>> {
    let text = std::fs::read_to_string("/etc/group").unwrap_or_default();
    text.lines().find_map(|line| match line.split(':').collect::<Vec<_>>().as_slice() {
        [name, _, _, members] if *name == group => {
            Some(members.split(',').filter(|member| !member.is_empty()).map(str::to_owned).collect())
        }
        _ => None,
    })
}

fn running_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}
