//! Floor ∧ profile: one joined profile and what the rules hold, to a plan.
//!
//! Every pattern of a zone that may not be read becomes a `deny` line where it lies inside a grant; every pattern of one
//! that may not be written becomes a seal. What cannot be said with a path or a name is told in the notes, never left
//! out silently. The one fact a newcomer gets wrong: nothing here looks at the disk, so a pattern with a wildcard hides
//! the whole folder before the wildcard rather than the files that match today.

use std::collections::{BTreeMap, BTreeSet};

use creel_model::cage::{
    CAGE_PLAN_VERSION, CageEnvironment, CageLimits, CageNetwork, CagePlan, Degrade, FileAccess, FileRule, Seal,
    SealKind, SocketGrant,
};
use creel_model::{Verdict, Zone};

use super::profile::{Named, Profile};
use super::reach::is_at_or_below;
use super::{CageRequest, Compiled, NoPlan, ProfileInfo};
use crate::bundle::Bundle;
use crate::glob::{Anchor, Part, Pattern};
use crate::question::Places;

/// Most notes of a plan; the last one says that there are more.
const NOTES_MAX: usize = 64;
/// Folders that every cage has of its own, whatever the host has there.
const BUILT: &[&str] = &["/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/var/run"];
/// Folders in which nobody works.
const NO_WORKSPACE: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr/bin",
    "/usr/lib",
    "/usr/sbin",
    "/var/lib",
    "/var/log",
    "/var/run",
];

impl Bundle {
    /// Its profiles and those of its bases, by name.
    #[must_use]
    pub fn profiles(&self) -> Vec<ProfileInfo> {
        self.profiles.infos()
    }

    /// The plan for a run.
    ///
    /// # Errors
    /// There is no such profile, or the workspace is none.
    pub fn cage_plan(&self, request: &CageRequest<'_>) -> Result<Compiled, NoPlan> {
        let name = request.profile.unwrap_or_else(|| self.profiles.default_for(request.kind));
        let profile = self
            .profiles
            .joined(name)
            .ok_or_else(|| no_plan(format!("the bundle has no profile `{name}`"), "`creel profile show` lists them"))?;
        let home = plain(&request.places.home).ok_or_else(|| no_plan("the account has no home folder", ""))?;
        let workspace = self.workspace(request.places, &home)?;
        let mut work = Work {
            bundle: self,
            places: Places { home: home.clone(), workspace: None, ..request.places.clone() },
            home,
            workspace,
            grants: BTreeMap::new(),
            seals: BTreeSet::new(),
            notes: Vec::new(),
            more: 0,
        };
        work.grant_all(&profile, request);
        work.hold_zones()?;
        work.forbid(request.never);
        Ok(work.finish(profile, request))
    }

    fn workspace(&self, places: &Places, home: &str) -> Result<String, NoPlan> {
        let hint = "start it in a project's folder, or name one with `--workspace DIR`";
        let folder = places.workspace.as_deref().and_then(plain);
        let folder = folder.ok_or_else(|| no_plan("the workspace has no absolute path", hint))?;
        if is_at_or_below(home, &folder) {
            return Err(no_plan(format!("`{folder}` contains the whole home folder"), hint));
        }
        if NO_WORKSPACE.iter().any(|system| is_at_or_below(&folder, system)) || folder == "/usr" || folder == "/var" {
            return Err(no_plan(format!("`{folder}` belongs to the system"), hint));
        }
        let bare = Places { home: home.to_owned(), workspace: None, ..places.clone() };
        let zones = self.zones.of_path(&folder, &bare);
        match zones.iter().find_map(|zone| self.holds.get(zone).map(|_| zone)) {
            Some(zone) => Err(no_plan(format!("`{folder}` is in the zone `{zone}`"), hint)),
            None => Ok(folder),
        }
    }
}

fn no_plan(message: impl Into<String>, hint: &str) -> NoPlan {
    NoPlan { message: message.into(), hint: hint.to_owned() }
}

/// An absolute path without `.`, `..` and doubled or closing slashes.
fn plain(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.strip_prefix('/')?.split('/').filter(|part| !part.is_empty()).collect();
    let bad = parts.iter().any(|part| *part == "." || *part == ".." || part.contains('\0'));
    (!bad).then(|| format!("/{}", parts.join("/")))
}

/// A grant while the plan is made.
struct Grant {
    access: FileAccess,
    optional: bool,
    initial: Option<String>,
    make: bool,
    source: String,
    /// A line of the profile names exactly this path.
    named: bool,
}

struct Work<'a> {
    bundle: &'a Bundle,
    /// Without a workspace: zones are asked as if nobody worked anywhere.
    places: Places,
    home: String,
    workspace: String,
    grants: BTreeMap<String, Grant>,
    seals: BTreeSet<Seal>,
    notes: Vec<String>,
    more: usize,
}

impl Work<'_> {
    fn note(&mut self, note: String) {
        if self.notes.contains(&note) {
            return;
        }
        if self.notes.len() + 1 < NOTES_MAX {
            self.notes.push(note);
        } else {
            self.more += 1;
        }
    }

    fn expand(&self, path: &str) -> String {
        for (word, folder) in [("~", &self.home), ("@workspace", &self.workspace)] {
            if let Some(rest) = path.strip_prefix(word).filter(|rest| rest.is_empty() || rest.starts_with('/')) {
                return format!("{folder}{rest}");
            }
        }
        path.to_owned()
    }

    fn grant_all(&mut self, profile: &Profile, request: &CageRequest<'_>) {
        // Zones first: a line that names a path is stronger than a zone that happens to begin at the same one.
        for by_zone in [true, false] {
            for line in profile.files.iter().filter(|line| matches!(line.named, Named::Zone(_)) == by_zone) {
                let grant = |named: bool| Grant {
                    access: line.access,
                    optional: line.optional,
                    initial: line.initial.clone(),
                    make: line.make,
                    source: line.source.clone(),
                    named,
                };
                match &line.named {
                    Named::Path(path) => {
                        self.grants.insert(self.expand(path), grant(true));
                    }
                    Named::Zone(zone) => {
                        for path in self.folders_of(zone) {
                            self.grants.insert(path, grant(false));
                        }
                    }
                }
            }
        }
        let own = |access, source: &str| Grant {
            access,
            optional: false,
            initial: None,
            make: false,
            source: source.to_owned(),
            named: false,
        };
        if request.learn {
            for (path, access) in [("/", FileAccess::Execute), ("/run", FileAccess::Deny)] {
                self.grants.insert(path.to_owned(), Grant { optional: true, ..own(access, "learning") });
            }
            self.grants.insert(self.home.clone(), own(FileAccess::Write, "learning"));
            self.grants.insert(self.workspace.clone(), own(FileAccess::Write, "learning"));
        }
        for (path, source) in request
            .programs
            .iter()
            .map(|path| (path.as_str(), "the command"))
            .chain(request.hook.map(|hook| (hook, "creel's hook")))
        {
            let Some(path) = plain(path) else { continue };
            if self.access(&path) < FileAccess::Execute {
                self.grants
                    .insert(path, Grant { optional: source != "the command", ..own(FileAccess::Execute, source) });
            }
        }
    }

    /// The access that the grants give to a path as they stand.
    fn access(&self, path: &str) -> FileAccess {
        let line = self.grants.iter().filter(|(folder, _)| is_at_or_below(path, folder)).max_by_key(|(f, _)| f.len());
        line.map_or(FileAccess::Deny, |(_, grant)| grant.access)
    }

    /// Where the patterns of a zone begin, as folders or files that can be granted.
    fn folders_of(&mut self, zone: &str) -> Vec<String> {
        let bundle = self.bundle;
        let mut folders = Vec::new();
        for pattern in bundle.zones.patterns_of(zone) {
            let (literal, rest) = pattern.split();
            let whole = rest.is_empty() || matches!(rest.as_slice(), [Part::AnyDepth]);
            match self.anchored(pattern.anchor).filter(|_| whole) {
                Some(anchor) => folders.push(joined(&anchor, &literal)),
                None => self.note(format!("zone {zone}: what `{pattern}` names cannot be granted as a folder")),
            }
        }
        folders
    }

    fn anchored(&self, anchor: Anchor) -> Option<String> {
        match anchor {
            Anchor::Root => Some(String::new()),
            Anchor::Home => Some(self.home.clone()),
            Anchor::Workspace => Some(self.workspace.clone()),
            Anchor::Temporary | Anchor::Anywhere => None,
        }
    }

    fn hold_zones(&mut self) -> Result<(), NoPlan> {
        let bundle = self.bundle;
        self.narrow();
        for (zone, hold) in &bundle.holds {
            for pattern in bundle.zones.patterns_of(zone.as_str()) {
                if let Some((verdict, rule)) = &hold.read {
                    self.hide(zone, pattern, *verdict, rule)?;
                }
                if let Some((verdict, rule)) = &hold.write {
                    self.seal(zone, pattern, *verdict, rule);
                }
            }
        }
        Ok(())
    }

    /// Grants that lie in a zone themselves get at most what it allows.
    fn narrow(&mut self) {
        let mut notes = Vec::new();
        for (path, grant) in &mut self.grants {
            let zones = self.bundle.zones.of_path(path, &self.places);
            for (zone, hold) in zones.iter().filter_map(|zone| self.bundle.holds.get_key_value(zone)) {
                for (held, most) in [(&hold.write, FileAccess::Execute), (&hold.read, FileAccess::Deny)] {
                    let Some((verdict, rule)) = held else { continue };
                    // A line of the profile that names the path sets an *ask* aside: a person wrote and reviewed it.
                    if grant.access > most && !(grant.named && *verdict < Verdict::Deny) {
                        notes.push(format!(
                            "`{path}` is granted as `{most}` only: it is in zone {zone}, see rule {rule}"
                        ));
                        grant.access = most;
                    }
                }
            }
        }
        notes.into_iter().for_each(|note| self.note(note));
    }

    /// A pattern that may not be read becomes a `deny` line where it lies inside a grant.
    fn hide(&mut self, zone: &Zone, pattern: &Pattern, verdict: Verdict, rule: &str) -> Result<(), NoPlan> {
        let (literal, rest) = pattern.split();
        let Some(anchor) = self.anchored(pattern.anchor) else {
            self.note(format!(
                "zone {zone}: `{pattern}` is not hidden inside grants, only its reading by tools is judged"
            ));
            return Ok(());
        };
        let front = joined(&anchor, &literal);
        if BUILT.iter().any(|built| is_at_or_below(&front, built)) {
            return Ok(());
        }
        let bare =
            rest.iter().all(|part| matches!(part, Part::AnyDepth) || matches!(part, Part::Name(name) if name == "*"));
        let named = |work: &Self| {
            let exactly = work.grants.get(&front).is_some_and(|grant| grant.named && grant.access > FileAccess::Deny);
            exactly && verdict < Verdict::Deny
        };
        if self.access(&front) == FileAccess::Deny || named(self) {
            // Not granted anyway, or opened by name.
        } else if let Some(grant) = self.grants.get_mut(&front) {
            if bare {
                if front == self.workspace {
                    let message = format!("the workspace `{front}` is in zone {zone}, see rule {rule}");
                    return Err(no_plan(message, "start it in a project's folder"));
                }
                grant.access = FileAccess::Deny;
                self.note(format!("`{front}` is not granted: it is zone {zone}, see rule {rule}"));
            } else {
                self.note(format!("zone {zone}: files like `{pattern}` inside `{front}` are not hidden"));
            }
        } else if is_at_or_below(&self.workspace, &front) || is_at_or_below(&self.home, &front) {
            self.note(format!("zone {zone}: files like `{pattern}` are not hidden"));
        } else {
            let source = format!("zone {zone}, rule {rule}");
            let deny =
                Grant { access: FileAccess::Deny, optional: true, initial: None, make: false, source, named: false };
            self.grants.insert(front, deny);
        }
        Ok(())
    }

    /// A pattern that may not be written becomes a seal where a writable part may hold it.
    fn seal(&mut self, zone: &Zone, pattern: &Pattern, verdict: Verdict, rule: &str) {
        let (literal, rest) = pattern.split();
        let below = match pattern.anchor {
            Anchor::Temporary => return,
            Anchor::Anywhere => None,
            Anchor::Workspace => Some(self.workspace.clone()),
            Anchor::Home | Anchor::Root => {
                let anchor = self.anchored(pattern.anchor).unwrap_or_default();
                let front = joined(&anchor, &literal);
                if BUILT.iter().any(|built| is_at_or_below(&front, built)) {
                    return;
                }
                let exact = rest.is_empty();
                let opened =
                    self.grants.get(&front).is_some_and(|grant| grant.named && grant.access == FileAccess::Write);
                if opened && verdict < Verdict::Deny && (exact || matches!(rest.as_slice(), [Part::AnyDepth])) {
                    return;
                }
                // Only where somebody could write it: a writable grant above it, or at the folder before its wildcard.
                let writable = |(path, grant): (&String, &Grant)| {
                    grant.access == FileAccess::Write
                        && (is_at_or_below(&front, path) || (!exact && is_at_or_below(path, &front)))
                };
                if !self.grants.iter().any(writable) {
                    return;
                }
                Some(if anchor.is_empty() { "/".to_owned() } else { anchor })
            }
        };
        match sealed(&pattern.parts()) {
            Sealed::Names(components, kind) => {
                self.seals.insert(Seal { components, kind, rule: rule.to_owned(), below });
            }
            Sealed::Repository => {}
            Sealed::Nothing => self.note(format!("zone {zone}: `{pattern}` cannot be sealed by a name")),
        }
    }

    /// Folders of creel's own: no line reaches them.
    fn forbid(&mut self, never: &[String]) {
        for folder in never.iter().filter_map(|folder| plain(folder)) {
            self.grants.retain(|path, _| !is_at_or_below(path, &folder));
            if self.access(&folder) > FileAccess::Deny {
                let source = "creel's own".to_owned();
                let deny = Grant {
                    access: FileAccess::Deny,
                    optional: true,
                    initial: None,
                    make: false,
                    source,
                    named: false,
                };
                self.grants.insert(folder, deny);
            }
        }
    }

    /// Lines that say what the line above them says already: each would be a mount of its own.
    fn prune(&mut self) {
        let above = |path: &str| {
            let enclosing = self.grants.iter().filter(|(folder, _)| *folder != path && is_at_or_below(path, folder));
            enclosing.max_by_key(|(folder, _)| folder.len()).map_or(FileAccess::Deny, |(_, grant)| grant.access)
        };
        let idle = |(path, grant): &(&String, &Grant)| {
            grant.optional && grant.initial.is_none() && !grant.make && grant.access == above(path)
        };
        let idle: Vec<String> = self.grants.iter().filter(idle).map(|(path, _)| path.clone()).collect();
        for path in idle {
            self.grants.remove(&path);
        }
    }

    fn finish(mut self, profile: Profile, request: &CageRequest<'_>) -> Compiled {
        self.prune();
        let mut seals: Vec<Seal> = self.seals.iter().cloned().collect();
        seals.extend(profile.seals.iter().map(|seal| Seal {
            components: seal.components.clone(),
            kind: seal.kind,
            rule: seal.source.clone(),
            below: None,
        }));
        let sockets = self.sockets(&profile, request.never);
        if self.more > 0 {
            self.notes.push(format!("{} more", self.more));
        }
        let line = |(path, grant): (String, Grant)| FileRule {
            path,
            access: grant.access,
            optional: grant.optional,
            initial: grant.initial,
            make: grant.make && grant.access == FileAccess::Write,
            source: grant.source,
        };
        let seconds = match (profile.limits.seconds, request.seconds) {
            (Some(own), Some(asked)) => Some(own.min(asked)),
            (own, asked) => own.or(asked),
        };
        let expand = |path: &String| {
            let path = path.strip_prefix("~").map_or_else(|| path.clone(), |rest| format!("{}{rest}", self.home));
            path.strip_prefix("@workspace").map_or(path.clone(), |rest| format!("{}{rest}", self.workspace))
        };
        let plan = CagePlan {
            version: CAGE_PLAN_VERSION,
            run: request.run.clone(),
            profile: profile.name,
            kind: request.kind.map(str::to_owned),
            bundle: self.bundle.digest.clone(),
            mode: request.mode,
            seals,
            programs: profile.programs.iter().flatten().map(expand).collect(),
            network: CageNetwork { host_loopback_ports: profile.ports },
            sockets,
            environment: CageEnvironment { pass: profile.pass.into_iter().collect(), set: profile.set },
            limits: CageLimits {
                processes: profile.limits.processes,
                memory_bytes: profile.limits.memory,
                open_files: profile.limits.open_files,
                file_bytes: profile.limits.file,
                temporary_bytes: profile.limits.temporary,
                seconds,
            },
            degrade: profile.degrade.unwrap_or(Degrade::Refuse),
            learn: request.learn,
            workspace: self.workspace,
            files: self.grants.into_iter().map(line).collect(),
        };
        Compiled { plan, notes: self.notes }
    }

    fn sockets(&mut self, profile: &Profile, never: &[String]) -> Vec<SocketGrant> {
        let mut sockets = Vec::new();
        for socket in &profile.sockets {
            let (host, cage) = (self.expand(&socket.host), self.expand(&socket.cage));
            let zones = self.bundle.zones.of_path(&host, &self.places);
            let held = zones.iter().find_map(|zone| {
                let hold = self.bundle.holds.get(zone)?;
                hold.write.as_ref().or(hold.read.as_ref()).filter(|(verdict, _)| *verdict == Verdict::Deny)
            });
            let own = never.iter().any(|folder| is_at_or_below(&host, folder));
            match held {
                Some((_, rule)) => {
                    self.note(format!("socket `{host}` is not granted, see rule {rule} ({})", socket.source))
                }
                None if own => self.note(format!("socket `{host}` is creel's own ({})", socket.source)),
                None => sockets.push(SocketGrant { host, cage }),
            }
        }
        sockets
    }
}

fn joined(anchor: &str, names: &[&str]) -> String {
    let path = names.iter().fold(anchor.to_owned(), |path, name| format!("{path}/{name}"));
    if path.is_empty() { "/".to_owned() } else { path }
}

/// What a pattern is as a seal.
enum Sealed {
    Names(Vec<String>, SealKind),
    /// A part of git's own folders: whoever seals repositories knows them better than a name does.
    Repository,
    Nothing,
}

fn sealed(parts: &[Part]) -> Sealed {
    let mut parts: &[Part] = parts;
    while let Some((Part::AnyDepth, rest)) = parts.split_first() {
        parts = rest;
    }
    let name = |part: &Part| match part {
        Part::Name(name) => Some(name.replace('?', "*")),
        Part::AnyDepth => None,
    };
    let mut kind = SealKind::File;
    while let Some((last, rest)) = parts.split_last() {
        let everything = matches!(last, Part::AnyDepth) || matches!(last, Part::Name(name) if name == "*");
        if !everything {
            break;
        }
        kind = SealKind::Directory;
        parts = rest;
    }
    if let [Part::Name(first), Part::Name(second), ..] = parts
        && first == ".git"
        && second == "modules"
    {
        return Sealed::Repository;
    }
    // With any depth in the middle, the folder before it is sealed as a whole.
    let front: Vec<String> = parts.iter().map_while(name).collect();
    if front.len() < parts.len() {
        kind = SealKind::Directory;
    }
    if front.is_empty() || front.iter().all(|name| name.bytes().all(|byte| byte == b'*')) {
        return Sealed::Nothing;
    }
    if let [git, config] = front.as_slice()
        && git == ".git"
        && (config == "config" || config == "config.worktree")
    {
        kind = SealKind::GitConfig;
    }
    Sealed::Names(front, kind)
}
