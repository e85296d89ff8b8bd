//! A layer and the workspace below it → what differs, file by file.
//!
//! Reads the kernel's overlay format outside any overlay: a character device 0:0 is a deletion, the attribute
//! `user.overlay.opaque` a folder that hides the one below, any other file a whole copy. What is equal on both sides is
//! no difference, so what was committed vanishes from the list by itself. The one fact a newcomer gets wrong: copied-up
//! is not changed; overlays copy a file as soon as it is opened for writing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use creel_model::id::Digest;
use rustix::fs::FileType;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::fd::{self, Stamp};
use super::name::Relative;

/// Differences that are listed; a layer with more is listed in part, and says so.
pub const DIFFERENCES_MAX: usize = 200_000;
/// Names in one folder that are looked at.
pub(crate) const NAMES_MAX: usize = 1_000_000;
/// Bytes of a file that are hashed to find renames.
const RENAME_BYTES_MAX: u64 = 64 << 20;
/// Bytes that are hashed to find renames, all files together.
const RENAME_BYTES_TOTAL: u64 = 1 << 30;

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A FIFO, socket or device: never committed.
    Special,
}

/// One side of a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// What it is.
    pub kind: Kind,
    /// `rwx` bits; set-id and sticky are left out everywhere.
    pub permissions: u32,
    /// Bytes.
    pub size: u64,
    /// Where a link points.
    pub target: Option<Vec<u8>>,
    pub(crate) stamp: Stamp,
}

/// How the two sides differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Only in the layer.
    Created,
    /// Only in the layer, with the content of a file that the layer deletes.
    Renamed {
        /// That file, which has a difference [`Change::Deleted`] of its own.
        from: Relative,
    },
    /// Other content, or another target.
    Changed,
    /// Other permissions only.
    Permissions,
    /// Something of another kind.
    Replaced,
    /// Deleted in the layer.
    Deleted,
}

impl Change {
    /// One word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Change::Created => "created",
            Change::Renamed { .. } => "renamed",
            Change::Changed => "changed",
            Change::Permissions => "permissions",
            Change::Replaced => "replaced",
            Change::Deleted => "deleted",
        }
    }
}

/// One path that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where, below the workspace.
    pub path: Relative,
    /// How.
    pub change: Change,
    /// What stands in the workspace now; absent at [`Change::Created`].
    pub before: Option<Side>,
    /// What stands in the layer; absent at [`Change::Deleted`].
    pub after: Option<Side>,
    /// Why this can never be committed: what it is, in plain words.
    pub obstacle: Option<&'static str>,
    /// The layer's file carried set-id bits, which are dropped.
    pub set_id: bool,
}

/// All that differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// In the order of a walk: a folder before what is in it.
    pub differences: Vec<Difference>,
    /// Places that could not be read, with the reason; what is below them is not in the list.
    pub unread: Vec<(Relative, String)>,
    /// Not everything is in the list: [`DIFFERENCES_MAX`] was reached.
    pub cut: bool,
}

/// Compares a layer's top folder with the workspace, at and below the paths of `scope`; an empty scope means everything.
#[must_use]
pub fn compare(upper: BorrowedFd<'_>, lower: BorrowedFd<'_>, scope: &BTreeSet<Relative>) -> Comparison {
    let mut walk = Walk { scope, found: Comparison::default() };
    let opened = (fd::below(upper, &Relative::root()), fd::below(lower, &Relative::root()));
    match opened {
        (Ok(upper_top), Ok(lower_top)) => {
            walk.permissions_of_top(upper, lower);
            walk.folder(&upper_top, Some(&lower_top), false, &Relative::root());
        }
        (Err(error), _) | (_, Err(error)) => walk.unread(Relative::root(), error),
    }
    let mut found = walk.found;
    pair_renames(&mut found, upper, lower);
    found
}

struct Walk<'a> {
    scope: &'a BTreeSet<Relative>,
    found: Comparison,
}

impl Walk<'_> {
    /// Whether a path is asked for, or leads to one that is.
    fn wanted(&self, path: &Relative) -> bool {
        self.scope.is_empty() || self.scope.iter().any(|asked| path.is_within(asked) || asked.is_within(path))
    }

    /// Whether a path itself is asked for.
    fn listed(&self, path: &Relative) -> bool {
        self.scope.is_empty() || self.scope.iter().any(|asked| path.is_within(asked))
    }

    fn unread(&mut self, path: Relative, error: Errno) {
        self.found.unread.push((path, std::io::Error::from(error).to_string()));
    }

    fn push(&mut self, difference: Difference) {
        if !self.listed(&difference.path) {
            return;
        }
        if self.found.differences.len() >= DIFFERENCES_MAX {
            self.found.cut = true;
            return;
        }
        self.found.differences.push(difference);
    }

    fn permissions_of_top(&mut self, upper: BorrowedFd<'_>, lower: BorrowedFd<'_>) {
        let side = |fd| rustix::fs::fstat(fd).map(|stat| Side::of(Stamp::from(stat), None));
        let (Ok(after), Ok(before)) = (side(upper), side(lower)) else { return };
        // The layer is made with these bits at least, see `Layer::prepare`.
        if after.permissions != before.permissions | 0o700 {
            let (path, change) = (Relative::root(), Change::Permissions);
            self.push(Difference {
                path,
                change,
                before: Some(before),
                after: Some(after),
                obstacle: None,
                set_id: false,
            });
        }
    }

    /// A folder of the layer, and the one of the workspace that stands there. `opaque`: what the workspace's folder holds
    /// does not shine through.
    fn folder(&mut self, upper: &OwnedFd, lower: Option<&OwnedFd>, opaque: bool, at: &Relative) {
        let names = match fd::names(upper.as_fd(), NAMES_MAX) {
            Ok(Some(names)) => names,
            Ok(None) => return self.unread(at.clone(), Errno::TOOBIG),
            Err(error) => return self.unread(at.clone(), error),
        };
        if opaque && let Some(lower) = lower {
            self.hidden(lower, &names, at);
        }
        for name in &names {
            if self.found.cut {
                return;
            }
            let Some(path) = at.join(name.as_bytes()) else {
                self.unread(at.clone(), Errno::NAMETOOLONG);
                continue;
            };
            if self.wanted(&path)
                && let Err(error) = self.entry(upper, lower, name, &path)
            {
                self.unread(path, error);
            }
        }
    }

    /// What the workspace's folder holds and an opaque folder of the layer does not: deleted.
    fn hidden(&mut self, lower: &OwnedFd, names: &[OsString], at: &Relative) {
        let inside = match fd::names(lower.as_fd(), NAMES_MAX) {
            Ok(Some(inside)) => inside,
            Ok(None) => return self.unread(at.clone(), Errno::TOOBIG),
            Err(error) => return self.unread(at.clone(), error),
        };
        for name in inside.iter().filter(|name| names.binary_search(name).is_err()) {
            match at.join(name.as_bytes()) {
                Some(path) => self.deleted(lower, name, path),
                None => self.unread(at.clone(), Errno::NAMETOOLONG),
            }
        }
    }

    fn entry(
        &mut self,
        upper: &OwnedFd,
        lower: Option<&OwnedFd>,
        name: &OsStr,
        path: &Relative,
    ) -> rustix::io::Result<()> {
        let Some(stamp) = fd::stamp(upper.as_fd(), name)? else { return Ok(()) };
        let below = match lower {
            Some(lower) => fd::stamp(lower.as_fd(), name)?,
            None => None,
        };
        if stamp.is_whiteout() {
            if let (Some(_), Some(lower)) = (below, lower) {
                self.deleted(lower, name, path.clone());
            }
            return Ok(());
        }
        let after = Side::at(upper.as_fd(), name, stamp)?;
        let before = match (lower, below) {
            (Some(lower), Some(below)) => Some(Side::at(lower.as_fd(), name, below)?),
            _ => None,
        };
        if after.kind == Kind::Folder {
            return self.entry_folder(upper, lower, name, path, before, after);
        }
        let change = match &before {
            None => Change::Created,
            Some(before) if before.kind != after.kind => Change::Replaced,
            Some(before) => match (lower, self.same_content(upper, lower, name, before, &after)?) {
                (Some(_), true) if before.permissions == after.permissions || after.kind == Kind::Link => return Ok(()),
                (Some(_), true) => Change::Permissions,
                _ => Change::Changed,
            },
        };
        let obstacle = obstacle_of(upper.as_fd(), name, &after)?;
        let set_id = stamp.mode & 0o6000 != 0 && after.kind == Kind::File;
        // A file in the place of a folder deletes what was in it.
        let hides = lower.filter(|_| before.as_ref().is_some_and(|before| before.kind == Kind::Folder));
        self.push(Difference { path: path.clone(), change, before, after: Some(after), obstacle, set_id });
        if let Some(lower) = hides {
            self.inside_deleted(lower, name, path);
        }
        Ok(())
    }

    fn entry_folder(
        &mut self,
        upper: &OwnedFd,
        lower: Option<&OwnedFd>,
        name: &OsStr,
        path: &Relative,
        before: Option<Side>,
        after: Side,
    ) -> rustix::io::Result<()> {
        let opened = fd::child(upper.as_fd(), name)?;
        let obstacle = unknown_attribute(&opened);
        let was_folder = before.as_ref().is_some_and(|before| before.kind == Kind::Folder);
        let change = match &before {
            None => Some(Change::Created),
            Some(_) if !was_folder => Some(Change::Replaced),
            Some(before) if before.permissions != after.permissions => Some(Change::Permissions),
            Some(_) if obstacle.is_some() => Some(Change::Changed),
            Some(_) => None,
        };
        if let Some(change) = change {
            let difference =
                Difference { path: path.clone(), change, before, after: Some(after), obstacle, set_id: false };
            self.push(difference);
        }
        if obstacle.is_some() {
            return Ok(());
        }
        let below = match lower {
            Some(lower) if was_folder => Some(fd::child(lower.as_fd(), name)?),
            _ => None,
        };
        let opaque = attribute(&opened, "user.overlay.opaque").is_some_and(|value| value == b"y");
        self.folder(&opened, below.as_ref(), opaque, path);
        Ok(())
    }

    /// A name of the workspace that the layer deletes, with all below it.
    fn deleted(&mut self, lower: &OwnedFd, name: &OsStr, path: Relative) {
        if !self.wanted(&path) {
            return;
        }
        let side = fd::stamp(lower.as_fd(), name)
            .and_then(|stamp| stamp.map(|stamp| Side::at(lower.as_fd(), name, stamp)).transpose());
        match side {
            Ok(None) => {}
            Ok(Some(before)) => {
                let folder = before.kind == Kind::Folder;
                let obstacle = None;
                let change = Change::Deleted;
                let inner = path.clone();
                self.push(Difference { path, change, before: Some(before), after: None, obstacle, set_id: false });
                if folder {
                    self.inside_deleted(lower, name, &inner);
                }
            }
            Err(error) => self.unread(path, error),
        }
    }

    fn inside_deleted(&mut self, lower: &OwnedFd, name: &OsStr, path: &Relative) {
        match fd::child(lower.as_fd(), name) {
            Ok(opened) => self.hidden(&opened, &[], path),
            Err(error) => self.unread(path.clone(), error),
        }
    }

    fn same_content(
        &self,
        upper: &OwnedFd,
        lower: Option<&OwnedFd>,
        name: &OsStr,
        before: &Side,
        after: &Side,
    ) -> rustix::io::Result<bool> {
        let Some(lower) = lower else { return Ok(false) };
        match after.kind {
            Kind::Link => Ok(before.target == after.target),
            Kind::File if before.size != after.size => Ok(false),
            Kind::File => same_bytes(upper.as_fd(), lower.as_fd(), name),
            Kind::Folder | Kind::Special => Ok(false),
        }
    }
}

impl Side {
    pub(crate) fn of(stamp: Stamp, target: Option<Vec<u8>>) -> Self {
        let kind = match stamp.kind() {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Folder,
            FileType::Symlink => Kind::Link,
            _ => Kind::Special,
        };
        let size = if kind == Kind::Folder { 0 } else { stamp.size };
        Self { kind, permissions: stamp.permissions(), size, target, stamp }
    }

    pub(crate) fn at(folder: BorrowedFd<'_>, name: &OsStr, stamp: Stamp) -> rustix::io::Result<Self> {
        let target = if stamp.kind() == FileType::Symlink { Some(fd::target(folder, name)?) } else { None };
        Ok(Self::of(stamp, target))
    }
}

/// Why something of the layer can never be committed. An error where its owner may not read it.
fn obstacle_of(upper: BorrowedFd<'_>, name: &OsStr, side: &Side) -> rustix::io::Result<Option<&'static str>> {
    Ok(match side.kind {
        Kind::Special => Some(match side.stamp.kind() {
            FileType::Fifo => "a FIFO",
            FileType::Socket => "a socket",
            _ => "a device",
        }),
        Kind::File => fd::file(upper, name)?.and_then(|(opened, _)| unknown_attribute(&opened)),
        Kind::Folder | Kind::Link => None,
    })
}

/// A mark of the overlay that changes what an entry means and that this reader does not know. The kernel writes none of
/// these in the way the layer is mounted.
fn unknown_attribute(opened: &OwnedFd) -> Option<&'static str> {
    const UNKNOWN: [&str; 3] = ["user.overlay.redirect", "user.overlay.metacopy", "user.overlay.whiteout"];
    let odd = attribute(opened, "user.overlay.opaque").is_some_and(|value| value != b"y");
    (odd || UNKNOWN.iter().any(|name| attribute(opened, name).is_some()))
        .then_some("marked in a way that the layer's reader does not know")
}

fn attribute(opened: &OwnedFd, name: &str) -> Option<Vec<u8>> {
    let mut buffer = [0_u8; 16];
    match rustix::fs::fgetxattr(opened, name, &mut buffer[..]) {
        Ok(length) => Some(buffer.get(..length).unwrap_or_default().to_vec()),
        // Longer than anything that is known.
        Err(Errno::RANGE) => Some(vec![0; buffer.len() + 1]),
        Err(_) => None,
    }
}

fn same_bytes(upper: BorrowedFd<'_>, lower: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<bool> {
    let (Some((left, _)), Some((right, _))) = (fd::file(upper, name)?, fd::file(lower, name)?) else {
        return Ok(false);
    };
    let (mut left, mut right) = (File::from(left), File::from(right));
    let mut buffers = (vec![0_u8; 128 << 10], vec![0_u8; 128 << 10]);
    loop {
        let (a, b) = (fill(&mut left, &mut buffers.0)?, fill(&mut right, &mut buffers.1)?);
        if buffers.0.get(..a) != buffers.1.get(..b) {
            return Ok(false);
        }
        if a == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    let mut used = 0;
    while let Some(rest) = buffer.get_mut(used..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(count) => used += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
    }
    Ok(used)
}

/// SHA-256 of a regular file; `None` when it is something else or has more than `bytes_max` bytes.
pub(crate) fn digest(folder: BorrowedFd<'_>, name: &OsStr, bytes_max: u64) -> rustix::io::Result<Option<[u8; 32]>> {
    let Some((opened, stamp)) = fd::file(folder, name)? else { return Ok(None) };
    if stamp.size > bytes_max {
        return Ok(None);
    }
    let mut file = File::from(opened);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 64 << 10];
    let mut read = 0_u64;
    loop {
        let count = fill(&mut file, &mut buffer)?;
        if count == 0 {
            break;
        }
        read = read.saturating_add(count as u64);
        // It may grow while it is read.
        if read > bytes_max {
            return Ok(None);
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
    }
    Ok(Some(hasher.finalize().into()))
}

/// Digest of a file at a path below a folder; `None` where it cannot be told.
pub(crate) fn digest_at(base: BorrowedFd<'_>, path: &Relative, bytes_max: u64) -> Option<Digest> {
    let (parent, name) = path.split()?;
    let folder = fd::below(base, &parent).ok()?;
    digest(folder.as_fd(), name, bytes_max).ok().flatten().map(|bytes| Digest::from_bytes(&bytes))
}

/// Marks created files whose content a deleted file had. Equal sizes first, so that most files are never hashed.
fn pair_renames(found: &mut Comparison, upper: BorrowedFd<'_>, lower: BorrowedFd<'_>) {
    let size_of = |side: &Option<Side>| match side {
        Some(side) if side.kind == Kind::File && (1..=RENAME_BYTES_MAX).contains(&side.size) => Some(side.size),
        _ => None,
    };
    let mut gone: BTreeMap<u64, Vec<&Relative>> = BTreeMap::new();
    for difference in &found.differences {
        if difference.change == Change::Deleted
            && let Some(size) = size_of(&difference.before)
        {
            gone.entry(size).or_default().push(&difference.path);
        }
    }
    let mut budget = RENAME_BYTES_TOTAL;
    let mut hashed: BTreeMap<u64, Vec<(Digest, Relative)>> = BTreeMap::new();
    let mut renames = Vec::new();
    for (at, difference) in found.differences.iter().enumerate() {
        let (Change::Created, Some(size)) = (&difference.change, size_of(&difference.after)) else { continue };
        let Some(candidates) = gone.get(&size) else { continue };
        let cost = size.saturating_mul(1 + if hashed.contains_key(&size) { 0 } else { candidates.len() as u64 });
        let Some(rest) = budget.checked_sub(cost) else { break };
        budget = rest;
        let known = hashed.entry(size).or_insert_with(|| {
            let hash = |path: &&Relative| Some((digest_at(lower, path, RENAME_BYTES_MAX)?, (*path).clone()));
            candidates.iter().filter_map(hash).collect()
        });
        let Some(digest) = digest_at(upper, &difference.path, RENAME_BYTES_MAX) else { continue };
        if let Some(place) = known.iter().position(|(candidate, _)| *candidate == digest) {
            renames.push((at, known.swap_remove(place).1));
        }
    }
    for (at, from) in renames {
        if let Some(difference) = found.differences.get_mut(at) {
            difference.change = Change::Renamed { from };
        }
    }
}
