//! A home folder and the machine's own places → the configuration files, installations and projects of every kind, as
//! they are, unread by any parser: this part also runs inside the root role.

use std::collections::{BTreeMap, BTreeSet};

use creel_catalog::document::FILE_BYTES_MAX;
use creel_catalog::{Catalog, ConfigFile, Content, Kind, Place, Scope};
use creel_model::Account;
use rustix::fs::{Dir, FileType, OFlags};
use serde::{Deserialize, Serialize};

use crate::projects;
use crate::read::{Links, Machine, config_file, path_of};

/// The most bytes of configuration that are collected for one account; files beyond are reported as too large.
pub const BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most files in a folder of configuration.
pub const FOLDER_FILES_MAX: usize = 256;
/// The most configuration files of one kind and account.
pub const FILES_MAX: usize = 2048;
const DESCRIPTION_BYTES_MAX: usize = 256 * 1024;

/// What lies around of every kind, for one account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// By kind.
    pub kinds: BTreeMap<String, Pieces>,
    /// How the walk for projects went.
    pub walk: projects::Walk,
}

/// What lies around of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pieces {
    /// Configuration files.
    pub files: Vec<ConfigFile>,
    /// Programs and packages.
    pub programs: Vec<Program>,
    /// Instruction files that exist.
    pub instructions: Vec<String>,
    /// Skill folders that exist.
    pub skills: Vec<String>,
}

/// An installed program or package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Program {
    /// Where, links resolved.
    pub path: String,
    /// The text of the package's description (`package.json`), where there is one.
    pub description: Option<String>,
    /// The version that the path itself names.
    pub version: Option<String>,
}

/// How the walk for projects is bounded.
pub use projects::Bounds;

/// Collects everything for one account. Call it with the account's rights where they are less than ours.
#[must_use]
pub fn collect(machine: &Machine, account: &Account, catalog: &Catalog, bounds: &Bounds) -> Collected {
    let links = links_for(account);
    let (projects, walk) = projects::find(machine, account, catalog, links, bounds);
    let mut collected = Collected { kinds: BTreeMap::new(), walk };
    let mut left = BYTES_MAX;
    let installs = crate::installs::Folders::of(machine, account, links);
    for kind in catalog.kinds() {
        let mut look = Look { machine, account, links, kind, left: &mut left, pieces: Pieces::default() };
        look.places(None);
        let none = Vec::new();
        for project in projects.get(&kind.id).unwrap_or(&none) {
            look.places(Some(project));
            look.extras(&kind.instructions, false, Some(project));
            look.extras(&kind.skills, true, Some(project));
        }
        look.extras(&kind.instructions, false, None);
        look.extras(&kind.skills, true, None);
        let mut pieces = look.pieces;
        pieces.programs = installs.programs(machine, account, links, kind);
        collected.kinds.insert(kind.id.clone(), pieces);
    }
    collected
}

/// With the account's own rights a link leads nowhere that the account could not go itself; with more, none is followed.
pub(crate) fn links_for(account: &Account) -> Links {
    // The thread's effective id, which `as_account` changed; the process' may be another.
    if rustix::process::geteuid().as_raw() == account.uid { Links::Follow } else { Links::RefuseBelow }
}

/// Where a place's path pattern lies, and which folder on the way to it is trusted. `None` where it does not apply.
pub(crate) fn locate(pattern: &str, account: &Account, project: Option<&str>) -> Option<(String, String)> {
    let join = |base: &str, rest: &str| format!("{}/{rest}", base.trim_end_matches('/'));
    if let Some(rest) = pattern.strip_prefix("~/") {
        return project.is_none().then(|| (account.home.clone(), join(&account.home, rest)));
    }
    if let Some(rest) = pattern.strip_prefix("./") {
        return project.map(|project| (account.home.clone(), join(project, rest)));
    }
    project.is_none().then(|| ("/".to_owned(), pattern.to_owned()))
}

struct Look<'a> {
    machine: &'a Machine,
    account: &'a Account,
    links: Links,
    kind: &'a Kind,
    left: &'a mut usize,
    pieces: Pieces,
}

impl Look<'_> {
    /// All places of the kind: the machine's and the account's, or those of one project.
    fn places(&mut self, project: Option<&str>) {
        for place in &self.kind.places {
            let Some((base, path)) = locate(&place.path, self.account, project) else { continue };
            let links = links_of(place, self.links);
            if place.endings.is_empty() {
                self.file(place, &base, path, project, links);
            } else {
                for name in names(self.machine, &base, &path, links) {
                    if place.endings.iter().any(|ending| name.ends_with(ending.as_str())) {
                        self.file(place, &base, format!("{path}/{name}"), project, links);
                    }
                }
            }
        }
    }

    fn file(&mut self, place: &Place, base: &str, path: String, project: Option<&str>, links: Links) {
        if self.pieces.files.len() >= FILES_MAX {
            return;
        }
        let bytes_max = FILE_BYTES_MAX.min(*self.left);
        let Some((rights, content)) = self.machine.config(base, &path, links, bytes_max) else { return };
        let content = match content {
            // Only that it is there matters.
            Content::Text(_) if place.format == creel_catalog::Format::Opaque => Content::Text(String::new()),
            content => content,
        };
        if let Content::Text(text) = &content {
            *self.left -= text.len().min(*self.left);
        }
        self.pieces.files.push(config_file(&place.id, path, project.map(str::to_owned), rights, content));
    }

    fn extras(&mut self, patterns: &[String], skills: bool, project: Option<&str>) {
        for pattern in patterns {
            let Some((base, path)) = locate(pattern, self.account, project) else { continue };
            let links = if base == "/" { Links::Follow } else { self.links };
            if self.machine.exists(&base, &path, links) {
                if skills { &mut self.pieces.skills } else { &mut self.pieces.instructions }.push(path);
            }
        }
    }
}

/// Administrators' folders are followed: whoever may write there is root already.
pub(crate) fn links_of(place: &Place, links: Links) -> Links {
    if matches!(place.scope, Scope::Managed | Scope::System) { Links::Follow } else { links }
}

/// The names in a folder, sorted, at most [`FOLDER_FILES_MAX`]; empty where it is none.
pub(crate) fn names(machine: &Machine, base: &str, path: &str, links: Links) -> Vec<String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
    let Ok(fd) = machine.open_at(base, path, links, flags) else { return Vec::new() };
    let Ok(folder) = Dir::new(fd) else { return Vec::new() };
    // Sorted before it is cut off, so that the choice does not depend on the file system's order.
    let mut names = BTreeSet::new();
    for entry in folder.filter_map(Result::ok).take(65_536) {
        if let Ok(name) = entry.file_name().to_str()
            && name != "."
            && name != ".."
        {
            names.insert(name.to_owned());
            if names.len() > FOLDER_FILES_MAX {
                names.pop_last();
            }
        }
    }
    names.into_iter().collect()
}

/// A program file or package folder, links resolved, if it is there and of that type.
pub(crate) fn real(machine: &Machine, base: &str, path: &str, links: Links, kind: FileType) -> Option<String> {
    let fd = machine.locate(base, path, links).ok()?;
    let stat = rustix::fs::fstat(&fd).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != kind {
        return None;
    }
    if machine.is_live() { path_of(&fd) } else { Some(path.to_owned()) }
}

/// The text of a package's description.
pub(crate) fn description(machine: &Machine, base: &str, folder: &str, links: Links) -> Option<String> {
    match machine.config(base, &format!("{folder}/package.json"), links, DESCRIPTION_BYTES_MAX)?.1 {
        Content::Text(text) => Some(text),
        _ => None,
    }
}
