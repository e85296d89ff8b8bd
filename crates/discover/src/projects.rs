//! A home folder → the project folders in it that hold configuration of some agent.
//!
//! A bounded walk, breadth first, that opens folders only and follows no symbolic link. What it skips is where builds
//! and package managers put things that are nobody's project.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use creel_catalog::{Catalog, Scope};
use creel_model::Account;
use rustix::fs::{Dir, FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::read::{Links, Machine};

/// How far a walk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Folders below the home folder.
    pub depth_max: usize,
    /// Entries that are looked at.
    pub entries_max: usize,
    /// Projects of one kind that are kept.
    pub projects_max: usize,
    /// Time in milliseconds.
    pub milliseconds_max: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { depth_max: 8, entries_max: 500_000, projects_max: 256, milliseconds_max: 5_000 }
    }
}

/// How a walk went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walk {
    /// Entries that were looked at.
    pub entries: usize,
    /// Folders that were opened.
    pub folders: usize,
    /// A bound was reached: there may be more.
    pub cut_off: bool,
}

/// Folders in which nobody keeps a project; names that start with a dot are skipped too, except projects' own.
const SKIPPED: &[&str] = &[
    "node_modules",
    "target",
    "dist",
    "build",
    "vendor",
    "__pycache__",
    "venv",
    "site-packages",
    "bower_components",
    "Library",
    "snap",
    "go",
    "miniconda3",
    "anaconda3",
    "lost+found",
];

/// The projects of every kind, by kind, sorted.
pub(crate) fn find(
    machine: &Machine,
    account: &Account,
    catalog: &Catalog,
    links: Links,
    bounds: &Bounds,
) -> (BTreeMap<String, Vec<String>>, Walk) {
    let signs = signs(catalog);
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut walk = Walk::default();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(home) = machine.open_at(&account.home, &account.home, links, flags) else { return (found, walk) };
    let deadline = Instant::now() + Duration::from_millis(bounds.milliseconds_max);
    let mut queue: VecDeque<(OwnedFd, String, usize)> =
        VecDeque::from([(home, account.home.trim_end_matches('/').to_owned(), 0)]);
    // Descriptors of folders that wait are bounded; beyond, the walk goes down first (a stack instead of a queue).
    const OPEN_MAX: usize = 256;
    let mut waiting: Vec<(String, usize)> = Vec::new();
    loop {
        let Some((fd, path, depth)) = queue.pop_front() else {
            // Folders that had no descriptor left: opened again from the top, by their path.
            let Some((path, depth)) = waiting.pop() else { break };
            if let Ok(fd) = machine.open_at(&account.home, &path, Links::RefuseBelow, flags) {
                queue.push_back((fd, path, depth));
            }
            continue;
        };
        let Ok(mut folder) = Dir::read_from(&fd) else { continue };
        walk.folders += 1;
        let mut below = Vec::new();
        while let Some(entry) = folder.read() {
            let Ok(entry) = entry else { break };
            walk.entries += 1;
            if walk.entries > bounds.entries_max || (walk.entries % 4096 == 0 && Instant::now() > deadline) {
                walk.cut_off = true;
                sort(&mut found);
                return (found, walk);
            }
            let Ok(name) = entry.file_name().to_str() else { continue };
            // In the home folder itself such names are the account's configuration, not a project's.
            if depth > 0
                && let Some(kinds) = signs.get(name)
            {
                for (kind, rest) in kinds {
                    note(machine, account, &mut found, kind, &path, name, rest, bounds, &mut walk);
                }
            }
            let is_folder = match entry.file_type() {
                FileType::Directory => true,
                FileType::Unknown => rustix::fs::statat(&fd, entry.file_name(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
                _ => false,
            };
            if is_folder && depth < bounds.depth_max && !name.starts_with('.') && !SKIPPED.contains(&name) {
                below.push(name.to_owned());
            }
        }
        for name in below {
            let path = format!("{path}/{name}");
            if queue.len() < OPEN_MAX {
                if let Ok(fd) = rustix::fs::openat(&fd, name.as_str(), flags | OFlags::NOFOLLOW, Mode::empty()) {
                    queue.push_back((fd, path, depth + 1));
                }
            } else {
                waiting.push((path, depth + 1));
            }
        }
    }
    sort(&mut found);
    (found, walk)
}

fn sort(found: &mut BTreeMap<String, Vec<String>>) {
    for projects in found.values_mut() {
        projects.sort();
        projects.dedup();
    }
}

/// First part of a project place's path → kinds, with the rest of the path that must exist as well.
fn signs(catalog: &Catalog) -> BTreeMap<&str, Vec<(&str, &str)>> {
    let mut signs: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for kind in catalog.kinds() {
        for place in kind.places.iter().filter(|place| matches!(place.scope, Scope::Project | Scope::Local)) {
            let path = place.path.trim_start_matches("./");
            let (first, rest) = path.split_once('/').unwrap_or((path, ""));
            signs.entry(first).or_default().push((kind.id.as_str(), rest));
        }
    }
    signs
}

#[expect(clippy::too_many_arguments, reason = "one step of the walk, split off for reading")]
fn note(
    machine: &Machine,
    account: &Account,
    found: &mut BTreeMap<String, Vec<String>>,
    kind: &str,
    project: &str,
    first: &str,
    rest: &str,
    bounds: &Bounds,
    walk: &mut Walk,
) {
    let projects = found.entry(kind.to_owned()).or_default();
    if projects.last().is_some_and(|last| last == project) {
        return;
    }
    if projects.len() >= bounds.projects_max {
        walk.cut_off = true;
        return;
    }
    // A broken link there is worth a finding, so only what is plainly absent is left out.
    let there = rest.is_empty() || {
        let path = format!("{project}/{first}/{rest}");
        !matches!(
            machine.locate(&account.home, &path, Links::RefuseBelow),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR)
        )
    };
    if there {
        projects.push(project.to_owned());
    }
}
