//! `creel service install|remove --system`: creel as a service of the machine, by hand, without a package manager.
//!
//! A short, linear list of steps, all printed by `--dry-run`: programs, accounts, folders, units, start. What was
//! written is remembered in a list, and only what is on it, unchanged, is removed. The journal is evidence: it stays.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Args, Subcommand};

use crate::failure::{Exit, Failure, Outcome};
use crate::text::clean;
use crate::{out, presence, programs};

/// What was written, by path with its digest.
const LIST: &str = "/etc/creel/service.json";
/// Where the programs go; the units name it.
const PROGRAMS: &str = "/usr/bin";
const UNITS: [&str; 2] = ["creeld-root.service", "creeld.service"];
const FILES: [(&str, &str); 4] = [
    ("/usr/lib/systemd/system/creeld-root.service", include_str!("../../../packaging/systemd/creeld-root.service")),
    ("/usr/lib/systemd/system/creeld.service", include_str!("../../../packaging/systemd/creeld.service")),
    ("/usr/lib/sysusers.d/creel.conf", include_str!("../../../packaging/sysusers.d/creel.conf")),
    ("/usr/lib/tmpfiles.d/creel.conf", include_str!("../../../packaging/tmpfiles.d/creel.conf")),
];
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
    let mut steps = Steps { dry_run: options.dry_run, list: BTreeMap::new() };
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

struct Steps {
    dry_run: bool,
    list: BTreeMap<String, String>,
}

impl Steps {
    fn install(&mut self) -> Result<(), Failure> {
        self.list = read_list()?;
        for name in ["creel", "creeld", "creel-hook"] {
            self.program(name)?;
        }
        for (path, text) in FILES {
            self.write(Path::new(path), text.as_bytes(), 0o644)?;
        }
        self.accounts()?;
        for (path, mode, account) in [("/etc/creel", 0o755, None), ("/etc/creel/policy", 0o755, None)] {
            self.folder(Path::new(path), mode, account)?;
        }
        for (path, mode) in [("/var/lib/creel", 0o700), ("/run/creel", 0o755)] {
            self.folder(Path::new(path), mode, Some("creel"))?;
        }
        self.remember()?;
        if running_systemd() {
            self.run("/usr/bin/systemctl", &["daemon-reload"])?;
            for unit in UNITS {
                self.run("/usr/bin/systemctl", &["enable", "--now", unit])?;
            }
            self.tell("the service runs; `creel status` shows it")
        } else {
            self.tell("no systemd runs here; start by hand, in this order:")?;
            self.tell("  as root:            /usr/bin/creeld --role=root --account creel")?;
            self.tell("  as account `creel`: /usr/bin/creeld --system")
        }
    }

    fn remove(&mut self) -> Result<(), Failure> {
        self.list = read_list()?;
        if self.list.is_empty() {
            return self.tell("nothing is installed by `creel service install`");
        }
        if running_systemd() {
            for unit in UNITS.iter().rev() {
                self.run("/usr/bin/systemctl", &["disable", "--now", unit])?;
            }
        }
        for (path, digest) in std::mem::take(&mut self.list) {
            let path = PathBuf::from(path);
            match std::fs::read(&path) {
                Err(_) => self.tell(&format!("gone already    {}", path.display()))?,
                Ok(bytes) if digest_of(&bytes) != digest => {
                    self.tell(&format!("changed, stays  {}", path.display()))?;
                }
                Ok(_) => {
                    self.tell(&format!("remove          {}", path.display()))?;
                    if !self.dry_run {
                        std::fs::remove_file(&path).map_err(|error| Failure::file("remove", &path, &error))?;
                    }
                }
            }
        }
        if !self.dry_run {
            std::fs::remove_file(LIST).map_err(|error| Failure::file("remove", Path::new(LIST), &error))?;
        }
        if running_systemd() {
            self.run("/usr/bin/systemctl", &["daemon-reload"])?;
        }
        self.tell("the journal in /var/lib/creel and account `creel` stay: they are evidence")?;
        self.tell("agents' settings stay as they are; `creel guard status` before, `creel guard remove KIND --system`")
    }

    fn program(&mut self, name: &str) -> Result<(), Failure> {
        let source = programs::beside(name)?;
        let target = Path::new(PROGRAMS).join(name);
        if source == target {
            return Ok(());
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
            self.list.insert(name, digest);
            return Ok(());
        }
        if let Some(there) = there
            && self.list.get(&name) != Some(&there)
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
            std::fs::create_dir_all(folder).map_err(|error| fail(&error))?;
        }
        let fresh = path.with_extension("creel-new");
        let _ = std::fs::remove_file(&fresh);
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh);
        let mut file = file.map_err(|error| fail(&error))?;
        std::io::Write::write_all(&mut file, bytes).map_err(|error| fail(&error))?;
        file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(|error| fail(&error))?;
        file.sync_all().map_err(|error| fail(&error))?;
        std::fs::rename(&fresh, path).map_err(|error| fail(&error))?;
        self.list.insert(name, digest);
        // A step that fails later must not make this file unknown.
        self.remember()
    }

    fn accounts(&self) -> Result<(), Failure> {
        if Path::new("/usr/bin/systemd-sysusers").exists() {
            return self.run("/usr/bin/systemd-sysusers", &["/usr/lib/sysusers.d/creel.conf"]);
        }
        if crate::connection::account_uid("creel").is_none() {
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
                    "creel",
                ],
            )?;
        }
        for group in GROUPS {
            self.run("/usr/sbin/groupadd", &["--system", "--force", group])?;
        }
        Ok(())
    }

    fn folder(&self, path: &Path, mode: u32, account: Option<&str>) -> Result<(), Failure> {
        let owner = account.map_or("root", |account| account);
        self.tell(&format!("folder {mode:o} {owner}  {}", path.display()))?;
        if self.dry_run {
            return Ok(());
        }
        let fail = |error: &std::io::Error| Failure::file("create", path, error);
        std::fs::create_dir_all(path).map_err(|error| fail(&error))?;
        let facts = std::fs::symlink_metadata(path).map_err(|error| fail(&error))?;
        if !facts.is_dir() {
            return Err(Failure::new(format!("`{}` is not a folder", path.display())));
        }
        let (uid, gid) = match account {
            Some(name) => crate::connection::account_ids(name)
                .ok_or_else(|| Failure::new(format!("account `{name}` was not created")))?,
            None => (0, 0),
        };
        if facts.uid() != uid {
            std::os::unix::fs::chown(path, Some(uid), Some(gid)).map_err(|error| fail(&error))?;
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(|error| fail(&error))
    }

    fn remember(&self) -> Result<(), Failure> {
        if self.dry_run {
            return Ok(());
        }
        let path = Path::new(LIST);
        let fail = |error: &std::io::Error| Failure::file("write", path, error);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| fail(&error))?;
        }
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, serde_json::to_vec_pretty(&self.list)?).map_err(|error| fail(&error))?;
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

fn read_list() -> Result<BTreeMap<String, String>, Failure> {
    match std::fs::read(LIST) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|error| Failure::new(format!("`{LIST}` is damaged: {error}")))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(Failure::file("read", Path::new(LIST), &error)),
    }
}

fn digest_of(bytes: &[u8]) -> String {
    creel_model::id::hex(&creel_seal::sha256(bytes))
}

fn running_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}
