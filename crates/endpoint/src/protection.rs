//! What is wired into agents' settings: planned by the dialect, written through the root seam, compared with what
//! stands there now.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use creel_catalog::AgentReport;
use creel_dialect::install::{self, HookCommand, OtherFile, Plan, Undo, Version};
use creel_dialect::kinds;
use creel_discover::root::{Answer, Managed, Request, Target};
use creel_model::Mode;
use creel_wire::control::{CanaryView, FileChange, GuardChange, GuardState, GuardStatusView, Scope};

use crate::config::{Config, SYSTEM_RUNTIME};
use crate::root::Root;

/// Longest difference that is shown, in bytes.
const DIFFERENCE_BYTES_MAX: usize = 64 * 1024;
/// A proof counts for a day (DESIGN §11).
pub const PROOF_NS: i64 = 24 * 3600 * 1_000_000_000;

/// Proofs kept at a time.
const PROOFS_MAX: usize = 1024;

/// The kinds that creel can govern.
pub const KINDS: &[&str] = &[kinds::CLAUDE_CODE, kinds::CODEX];

/// The wiring of hooks.
pub struct Protections {
    hook: PathBuf,
    socket: Option<String>,
    mode: Mode,
    proofs: Mutex<BTreeMap<(String, Scope, u32), Proof>>,
}

/// A proof, with what it was about.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The outcome.
    pub view: CanaryView,
    /// The bundle that was in force.
    pub bundle: String,
}

/// One kind for one scope and account.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// Catalog kind.
    pub kind: &'a str,
    /// For whom.
    pub scope: Scope,
    /// The account, at user scope.
    pub uid: u32,
    /// The agent's version, where known.
    pub version: Option<String>,
}

impl Place<'_> {
    fn target(&self) -> Result<Target, String> {
        let (place, file) = match (self.kind, self.scope) {
            (kinds::CLAUDE_CODE, Scope::User) => ("user", None),
            (kinds::CLAUDE_CODE, Scope::System) => ("managed-folder", Some("50-creel.json".to_owned())),
            (kinds::CODEX, Scope::User) => ("user-hooks", None),
            (kinds::CODEX, Scope::System) => ("managed", None),
            (kind, _) => return Err(format!("creel cannot govern `{kind}` yet")),
        };
        let account = (self.scope == Scope::User).then_some(self.uid);
        Ok(Target { kind: self.kind.to_owned(), place: place.to_owned(), file, account })
    }

    fn version(&self) -> Option<Version> {
        self.version.as_deref().and_then(Version::parse)
    }
}

impl Protections {
    /// For this daemon: the hook beside its own program, its socket baked in when it is not one of the compiled-in.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let hook = std::env::current_exe().ok().and_then(|exe| exe.parent().map(|folder| folder.join("creel-hook")));
        let uid = rustix::process::geteuid().as_raw();
        let compiled_in = match config.mode {
            Mode::System => PathBuf::from(SYSTEM_RUNTIME),
            Mode::User => PathBuf::from(format!("/run/user/{uid}/creel")),
        };
        let socket = (config.runtime != compiled_in).then(|| config.runtime.join("hook.sock").display().to_string());
        let hook = hook.unwrap_or_else(|| PathBuf::from("/usr/lib/creel/creel-hook"));
        Self { hook, socket, mode: config.mode, proofs: Mutex::new(BTreeMap::new()) }
    }

    /// The hook program that is written into settings.
    #[must_use]
    pub fn hook(&self) -> &Path {
        &self.hook
    }

    fn command(&self) -> HookCommand {
        HookCommand {
            path: self.hook.display().to_string(),
            socket: self.socket.clone(),
            mode: self.mode,
            environment: BTreeMap::new(),
        }
    }

    /// The program and arguments that the agent runs before a tool.
    ///
    /// # Errors
    /// The kind is unknown, or the hook's path cannot be written down.
    pub fn pre_tool_command(&self, kind: &str) -> Result<Vec<String>, String> {
        let event = kinds::event(kind, "PreToolUse").ok_or_else(|| format!("creel cannot govern `{kind}` yet"))?;
        let mut command = vec![self.hook.display().to_string()];
        command.extend(self.command().arguments(kind, event).map_err(|error| error.to_string())?);
        Ok(command)
    }

    /// Wires the hook in.
    ///
    /// # Errors
    /// In words, with nothing written.
    pub fn install(
        &self,
        root: &Root,
        place: &Place<'_>,
        reports: &[AgentReport],
        dry_run: bool,
    ) -> Result<GuardChange, String> {
        self.check_hook()?;
        let (plan, managed) = self.plan(root, place)?;
        let mut change = self.change(place, dry_run);
        change.notes = plan.limits.clone();
        change.silenced = silenced(place, reports);
        change
            .silenced
            .extend(plan.silenced.iter().map(|hook| format!("{}: {} ({})", hook.event, hook.command, hook.file)));
        change.silenced.sort();
        change.silenced.dedup();
        if managed.text.as_deref() == Some(plan.after.as_str()) {
            change.notes.insert(0, "everything is wired in already".to_owned());
            return Ok(change);
        }
        change.files.push(FileChange {
            path: managed.path.clone(),
            created_or_removed: managed.text.is_none(),
            difference: cut(&plan.difference),
            backup: managed
                .text
                .is_some()
                .then(|| "kept by creel; `creel guard remove` puts it back exactly".to_owned()),
        });
        if !dry_run {
            let before = self.before(place, &managed)?;
            let request = Request::WriteManaged {
                target: place.target()?,
                text: plan.after,
                expected: managed.digest,
                before,
                forget: false,
            };
            root.ask(&request)?;
            let outdated = |kind: &str, scope: Scope| kind == place.kind && scope == place.scope;
            let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
            proofs.retain(|(kind, scope, uid), _| {
                !outdated(kind, *scope) || (*scope == Scope::User && *uid != place.uid)
            });
        }
        Ok(change)
    }

    /// Takes the hook out again: the bytes of before where nobody edited the file since, else the file without our part.
    ///
    /// # Errors
    /// In words, with nothing written.
    pub fn remove(root: &Root, place: &Place<'_>, dry_run: bool) -> Result<GuardChange, String> {
        let managed = read(root, place)?;
        let mut change = GuardChange {
            kind: place.kind.to_owned(),
            scope: place.scope,
            dry_run,
            files: Vec::new(),
            silenced: Vec::new(),
            notes: Vec::new(),
            canary: None,
        };
        let Some(kept) = &managed.undo else {
            change.notes.push("creel has wired nothing in here".to_owned());
            return Ok(change);
        };
        let untouched = managed.digest.as_ref() == Some(&kept.written);
        let before = managed.text.as_deref().unwrap_or_default();
        if untouched || managed.text == kept.before {
            change.files.push(FileChange {
                path: managed.path.clone(),
                created_or_removed: kept.before.is_none(),
                difference: cut(&install::difference(
                    &managed.path,
                    before,
                    kept.before.as_deref().unwrap_or_default(),
                )),
                backup: None,
            });
            if !dry_run {
                root.ask(&Request::RemoveManaged { target: place.target()? })?;
            }
            return Ok(change);
        }
        // Edited since: only our part goes, what others wrote stays.
        let undo = install::undo(
            managed.text.as_deref().map(str::as_bytes),
            &[],
            kept.before.as_deref().map(str::as_bytes),
            |text| without(place, text, kept.before.as_deref()),
        )
        .map_err(|error| error.to_string())?;
        let after = match undo {
            Undo::Nothing => None,
            Undo::Remove => Some(String::new()),
            Undo::Write(bytes) => Some(String::from_utf8(bytes).map_err(|error| error.to_string())?),
        };
        change.notes.push("the file was edited since; only creel's part was taken out".to_owned());
        if let Some(after) = after {
            change.files.push(FileChange {
                path: managed.path.clone(),
                created_or_removed: false,
                difference: cut(&install::difference(&managed.path, before, &after)),
                backup: None,
            });
            if !dry_run {
                let target = place.target()?;
                root.ask(&Request::WriteManaged {
                    target,
                    text: after,
                    expected: managed.digest,
                    before: None,
                    forget: true,
                })?;
            }
        }
        Ok(change)
    }

    /// How the wiring stands.
    #[must_use]
    pub fn status(
        &self,
        root: &Root,
        place: &Place<'_>,
        account: Option<String>,
        reports: &[AgentReport],
    ) -> GuardStatusView {
        let mut view = GuardStatusView {
            kind: place.kind.to_owned(),
            scope: place.scope,
            account,
            state: GuardState::Absent,
            drift: Vec::new(),
            bypasses: bypasses(place, reports),
            limits: Vec::new(),
            canary: self.proof(place).map(|proof| proof.view),
        };
        match self.plan(root, place) {
            Err(why) => {
                view.state = GuardState::Drifted;
                view.drift.push(why);
            }
            Ok((plan, managed)) => {
                view.limits = plan.limits.clone();
                let wired = managed.text.as_deref().is_some_and(|text| text.contains("creel-hook"));
                let drift = install::managed_drift(&plan.after, managed.text.as_deref());
                view.state = match (drift.is_empty(), wired, managed.undo.is_some()) {
                    (true, ..) => GuardState::Installed,
                    (false, false, false) => GuardState::Absent,
                    (false, ..) => GuardState::Drifted,
                };
                if view.state == GuardState::Drifted {
                    view.drift = drift;
                }
            }
        }
        view
    }

    /// What an undo shall put back when the file was edited since creel wrote it: that text without creel's part.
    fn before(&self, place: &Place<'_>, managed: &Managed) -> Result<Option<String>, String> {
        let Some(kept) = &managed.undo else { return Ok(None) };
        let edited = managed.digest.as_ref() != Some(&kept.written) && managed.text != kept.before;
        let Some(text) = managed.text.as_deref().filter(|_| edited) else { return Ok(None) };
        without(place, text, kept.before.as_deref()).map_err(|error| error.to_string())
    }

    /// Keeps a proof. One with the real agent is about the agent of the account that ran it, so at system scope it is
    /// kept for that account alone: no account can make protection look proved, or broken, for another.
    pub fn keep_proof(&self, place: &Place<'_>, proof: Proof) {
        let mut proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        let key = if proof.view.live { live_key(place) } else { key(place) };
        if proofs.len() >= PROOFS_MAX && !proofs.contains_key(&key) {
            // The least that can be forgotten is somebody's, not everybody's, proof.
            if let Some(least) = proofs.keys().find(|(_, _, uid)| *uid != 0).cloned() {
                proofs.remove(&least);
            }
        }
        proofs.insert(key, proof);
    }

    /// The last proof, of everybody's wiring or with the account's own agent.
    #[must_use]
    pub fn proof(&self, place: &Place<'_>) -> Option<Proof> {
        let proofs = self.proofs.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = [proofs.get(&key(place)), proofs.get(&live_key(place))];
        kept.into_iter().flatten().max_by_key(|proof| proof.view.at_unix_ns).cloned()
    }

    fn plan(&self, root: &Root, place: &Place<'_>) -> Result<(Plan, Managed), String> {
        let managed = read(root, place)?;
        let text = managed.text.as_deref();
        let hook = self.command();
        let above = above(root, place)?;
        let files: Vec<OtherFile<'_>> = above
            .iter()
            .filter_map(|file| Some(OtherFile { path: &file.path, text: file.text.as_deref()?, managed: true }))
            .collect();
        let plan = match (place.kind, place.scope) {
            (kinds::CLAUDE_CODE, Scope::User) => install::claude_code::user(&hook, place.version(), text),
            (kinds::CLAUDE_CODE, Scope::System) => install::claude_code::system(&hook, place.version(), text, &files),
            (kinds::CODEX, Scope::User) => install::codex::user(&hook, place.version(), text),
            (kinds::CODEX, Scope::System) => install::codex::system(&hook, place.version(), text, &[]),
            (kind, _) => return Err(format!("creel cannot govern `{kind}` yet")),
        };
        plan.map(|plan| (plan, managed)).map_err(|error| error.to_string())
    }

    /// The hook that is written into settings must exist, and in system mode nobody but root may be able to change it.
    fn check_hook(&self) -> Result<(), String> {
        let name = self.hook.display();
        let metadata =
            std::fs::metadata(&self.hook).map_err(|error| format!("the hook `{name}` is not there: {error}"))?;
        if !metadata.is_file() || metadata.mode() & 0o111 == 0 {
            return Err(format!("the hook `{name}` is no program"));
        }
        if self.mode == Mode::System {
            let mut path: Option<&Path> = Some(&self.hook);
            while let Some(here) = path {
                let metadata = std::fs::metadata(here).map_err(|error| format!("`{}`: {error}", here.display()))?;
                if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
                    return Err(format!(
                        "`{}` can be changed by others than root, so the hook cannot be trusted",
                        here.display()
                    ));
                }
                path = here.parent();
            }
        }
        Ok(())
    }

    fn change(&self, place: &Place<'_>, dry_run: bool) -> GuardChange {
        GuardChange {
            kind: place.kind.to_owned(),
            scope: place.scope,
            dry_run,
            files: Vec::new(),
            silenced: Vec::new(),
            notes: Vec::new(),
            canary: None,
        }
    }
}

/// Managed files beside ours that can take its effect away.
fn above(root: &Root, place: &Place<'_>) -> Result<Vec<Managed>, String> {
    if (place.kind, place.scope) != (kinds::CLAUDE_CODE, Scope::System) {
        return Ok(Vec::new());
    }
    let target = Target { kind: place.kind.to_owned(), place: "managed".to_owned(), file: None, account: None };
    match root.ask(&Request::ReadManaged { target })? {
        Answer::Managed(managed) => Ok(vec![managed]),
        _ => Err("the root seam answered something else than was asked".to_owned()),
    }
}

fn key(place: &Place<'_>) -> (String, Scope, u32) {
    let uid = if place.scope == Scope::User { place.uid } else { 0 };
    (place.kind.to_owned(), place.scope, uid)
}

fn live_key(place: &Place<'_>) -> (String, Scope, u32) {
    (place.kind.to_owned(), place.scope, place.uid)
}

/// A settings text without creel's part.
fn without(place: &Place<'_>, text: &str, before: Option<&str>) -> Result<Option<String>, install::InstallError> {
    match (place.kind, place.scope) {
        (kinds::CODEX, Scope::System) => install::codex::without_requirements(text, before),
        (kinds::CODEX, Scope::User) => install::codex::without(text),
        _ => install::claude_code::without(text),
    }
}

fn read(root: &Root, place: &Place<'_>) -> Result<Managed, String> {
    match root.ask(&Request::ReadManaged { target: place.target()? })? {
        Answer::Managed(managed) => Ok(managed),
        _ => Err("the root seam answered something else than was asked".to_owned()),
    }
}

/// Other people's hooks that managed settings silence.
fn silenced(place: &Place<'_>, reports: &[AgentReport]) -> Vec<String> {
    if place.scope == Scope::User {
        return Vec::new();
    }
    reports
        .iter()
        .filter(|report| report.kind == place.kind)
        .flat_map(|report| &report.hooks)
        .filter(|hook| !hook.ours && !hook.managed)
        .map(|hook| format!("{}: {} ({})", hook.event, hook.command, hook.declared_in))
        .collect()
}

/// Findings that mean a running or configured way around the hook.
fn bypasses(place: &Place<'_>, reports: &[AgentReport]) -> Vec<String> {
    reports
        .iter()
        .filter(|report| report.kind == place.kind)
        .filter(|report| place.scope == Scope::System || report.account.uid == place.uid)
        .flat_map(|report| &report.findings)
        .filter(|finding| finding.code.contains("bypass") || finding.code.contains("hooks-off"))
        .map(|finding| format!("{}: {}", finding.code, finding.evidence))
        .collect()
}

fn cut(text: &str) -> String {
    if text.len() <= DIFFERENCE_BYTES_MAX {
        return text.to_owned();
    }
    let mut end = DIFFERENCE_BYTES_MAX;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}\n…", text.get(..end).unwrap_or_default())
}
