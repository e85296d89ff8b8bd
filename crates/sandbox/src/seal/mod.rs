//! Sealed names: what a path means to the bundle's seals, and what lies sealed on the disk now.
//!
//! [`SealSet::judge`] answers for one path; [`SealSet::scan`] finds what exists and must be bound read-only before the
//! agent starts. The one fact a newcomer gets wrong: what appears *later* is not mounted over; it is held by the broker,
//! which carries out every call that makes a name or opens a file for writing, so `rm -rf` of a fresh clone still works.

pub(crate) mod name;
mod repository;
mod scan;
#[cfg(test)]
mod tests;

use creel_model::cage::{Seal, SealKind};

use name::{fits, fold};

pub(crate) use repository::normal;
pub use repository::{CommonFolder, common_folder, hooks_seals};
pub use scan::{Found, Root, Scanned};

/// Rule of the seals that every git repository has, where the plan does not name one.
const FLOOR: &str = "floor";

/// All sealed names of a cage.
#[derive(Clone, Debug, Default)]
pub struct SealSet {
    patterns: Vec<Pattern>,
    exact: Vec<Exact>,
    /// The rule that git's own names are sealed by.
    git_rule: String,
    /// Bytes that the last component of a pattern may begin with; a quick way to say no.
    first: FirstBytes,
}

/// A plan's seal, folded.
#[derive(Clone, Debug)]
struct Pattern {
    components: Vec<Vec<u8>>,
    kind: SealKind,
    rule: String,
    below: Option<Vec<u8>>,
}

/// One path that is sealed although its name is not, for example a folder that `core.hooksPath` names.
#[derive(Clone, Debug)]
struct Exact {
    path: Vec<u8>,
    kind: SealKind,
    rule: String,
}

#[derive(Clone, Debug)]
struct FirstBytes([bool; 256]);

impl Default for FirstBytes {
    fn default() -> Self {
        Self([false; 256])
    }
}

impl FirstBytes {
    fn add(&mut self, name: &[u8]) {
        match name.first() {
            None | Some(b'*') => self.0 = [true; 256],
            Some(byte) => {
                for entry in [byte.to_ascii_lowercase(), byte.to_ascii_uppercase()] {
                    if let Some(known) = self.0.get_mut(usize::from(entry)) {
                        *known = true;
                    }
                }
            }
        }
    }

    fn may(&self, name: &[u8]) -> bool {
        // Beyond ASCII anything may fold to anything.
        name.first().is_none_or(|byte| *byte >= 0x80 || self.0.get(usize::from(*byte)).is_some_and(|known| *known))
            || !name.is_ascii()
    }
}

/// What a path means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged<'a> {
    /// Nothing is sealed there.
    Free,
    /// It lies below a sealed directory.
    Inside {
        /// By which rule.
        rule: &'a str,
    },
    /// It is itself a sealed name.
    Sealed {
        /// What it protects.
        kind: SealKind,
        /// By which rule.
        rule: &'a str,
    },
}

/// A sealed name that would come to be, if a directory with `rest` in it got the name that was asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// Folded components below it.
    pub rest: Vec<Vec<u8>>,
    /// What it protects.
    pub kind: SealKind,
    /// By which rule.
    pub rule: String,
}

/// Below this folder the plan's seals do not count, git's do: packages bring their own `.github` and `.vscode` along,
/// which nothing reads there. Moving a directory out of it is looked through first.
const PACKAGES: &[u8] = b"node_modules";

/// In a git directory: names whose content git executes, or that say where it is.
const GIT_NAMES: [(&[&[u8]], SealKind); 4] = [
    (&[b"hooks"], SealKind::Directory),
    (&[b"config"], SealKind::GitConfig),
    (&[b"config.worktree"], SealKind::GitConfig),
    (&[b"info", b"attributes"], SealKind::File),
];

impl SealSet {
    /// The plan's seals, and those that every git repository has.
    pub fn new(seals: &[Seal]) -> Self {
        let mut first = FirstBytes::default();
        for (components, _) in GIT_NAMES {
            first.add(components.last().copied().unwrap_or_default());
        }
        let mut patterns = Vec::with_capacity(seals.len());
        let mut git_rule = None;
        for seal in seals {
            let components: Vec<Vec<u8>> =
                seal.components.iter().map(|component| fold(component.as_bytes()).into_owned()).collect();
            let Some(last) = components.last() else { continue };
            first.add(last);
            if git_rule.is_none() && components.first().is_some_and(|component| component == b".git") {
                git_rule = Some(seal.rule.clone());
            }
            patterns.push(Pattern {
                components,
                kind: seal.kind,
                rule: seal.rule.clone(),
                below: seal.below.as_ref().map(|below| below.trim_end_matches('/').as_bytes().to_vec()),
            });
        }
        Self { patterns, exact: Vec::new(), git_rule: git_rule.unwrap_or_else(|| FLOOR.to_owned()), first }
    }

    /// Seals one absolute path, whatever its name.
    pub fn add_path(&mut self, path: &[u8], kind: SealKind, rule: &str) {
        if !self.exact.iter().any(|exact| exact.path == path) {
            self.exact.push(Exact { path: path.to_vec(), kind, rule: rule.to_owned() });
        }
    }

    /// Whether `name` in the folder at `parent`, which is not sealed, may be sealed; `false` is certain.
    pub(crate) fn may(&self, parent: &[u8], name: &[u8]) -> bool {
        let parent = parent.strip_suffix(b"/").unwrap_or(parent);
        self.first.may(name)
            || self.exact.iter().any(|exact| {
                exact.path.len() == parent.len() + name.len() + 1
                    && exact.path.get(..parent.len()).is_some_and(|start| start.eq_ignore_ascii_case(parent))
                    && exact.path.get(parent.len() + 1..).is_some_and(|end| end.eq_ignore_ascii_case(name))
            })
    }

    /// The rule that git's own names are sealed by.
    pub fn git_rule(&self) -> &str {
        &self.git_rule
    }

    /// What `path` means: absolute, without links, below the writable `root`, whose own name is never sealed. `exists`
    /// says whether a path exists; it is asked only about the inside of what may be a git directory.
    pub fn judge(&self, root: &[u8], path: &[u8], exists: &mut dyn FnMut(&[u8]) -> bool) -> Judged<'_> {
        let mut packages = false;
        for (start, end) in components(path) {
            let (Some(name), Some(prefix)) = (path.get(start..end), path.get(..end)) else { continue };
            if start > root.len() {
                let last = end == path.len();
                let sample = path.get(end + 1..).is_some_and(|rest| is_sample(name, rest))
                    && git_name(prefix, name, exists).is_some();
                if !sample && let Some((kind, rule)) = self.names(prefix, name, last, packages, exists) {
                    return if last { Judged::Sealed { kind, rule } } else { Judged::Inside { rule } };
                }
                packages = packages || name == PACKAGES;
            }
        }
        Judged::Free
    }

    /// Whether the object at `prefix`, whose last component is `name`, is sealed; below a path only directories count.
    fn names(
        &self,
        prefix: &[u8],
        name: &[u8],
        last: bool,
        packages: bool,
        exists: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Option<(SealKind, &str)> {
        let counts = |kind: SealKind| last || kind == SealKind::Directory;
        if let Some(exact) = self.exact.iter().find(|exact| counts(exact.kind) && exact.is(prefix)) {
            return Some((exact.kind, &exact.rule));
        }
        if !self.first.may(name) {
            return None;
        }
        let folded = fold(name);
        if let Some(kind) = git_name(prefix, &folded, exists)
            && counts(kind)
        {
            return Some((kind, &self.git_rule));
        }
        if packages {
            return None;
        }
        let pattern = self.patterns.iter().find(|pattern| counts(pattern.kind) && pattern.ends(prefix, &folded))?;
        Some((pattern.kind, &pattern.rule))
    }

    /// What would become sealed below `path`, if a directory (or a link to one) came there; `root` as for
    /// [`SealSet::judge`].
    pub fn leads(&self, root: &[u8], path: &[u8], exists: &mut dyn FnMut(&[u8]) -> bool) -> Vec<Lead> {
        let mut leads = Vec::new();
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let folded = fold(name);
        for exact in &self.exact {
            if let Some(rest) = exact.path.strip_prefix(path).and_then(|rest| rest.strip_prefix(b"/")) {
                let rest = rest.split(|byte| *byte == b'/').map(|name| fold(name).into_owned()).collect();
                leads.push(Lead { rest, kind: exact.kind, rule: exact.rule.clone() });
            }
        }
        if folded.as_ref() == b".git" {
            for (components, kind) in GIT_NAMES {
                let rest = components.iter().map(|component| component.to_vec()).collect();
                leads.push(Lead { rest, kind, rule: self.git_rule.clone() });
            }
        }
        if folded.as_ref() == b"info" && repository::is(above(path), exists) {
            leads.push(Lead { rest: vec![b"attributes".to_vec()], kind: SealKind::File, rule: self.git_rule.clone() });
        }
        if !packaged(root, path) {
            for pattern in &self.patterns {
                for (length, _) in pattern.components.iter().enumerate().skip(1) {
                    let (Some(head), Some(rest)) = (pattern.components.get(..length), pattern.components.get(length..))
                    else {
                        continue;
                    };
                    if ends_with(path, &folded, head, pattern.below.as_deref()) {
                        leads.push(Lead { rest: rest.to_vec(), kind: pattern.kind, rule: pattern.rule.clone() });
                    }
                }
            }
        }
        leads
    }

    /// Whether moving a directory from one path to the other, both below `root`, puts it in reach of the plan's seals.
    pub(crate) fn unpacks(root: &[u8], from: &[u8], to: &[u8]) -> bool {
        let inside = |path: &[u8]| packaged(root, path) || path.rsplit(|byte| *byte == b'/').next() == Some(PACKAGES);
        inside(from) && !inside(to)
    }
}

impl Exact {
    fn is(&self, path: &[u8]) -> bool {
        self.path.eq_ignore_ascii_case(path)
    }
}

impl Pattern {
    fn ends(&self, path: &[u8], last: &[u8]) -> bool {
        ends_with(path, last, &self.components, self.below.as_deref())
    }
}

/// Whether the last components of `path` fit `pattern`; `last` is the last one, folded.
fn ends_with(path: &[u8], last: &[u8], pattern: &[Vec<u8>], below: Option<&[u8]>) -> bool {
    let Some((tail, head)) = pattern.split_last() else { return false };
    if !fits(tail, last) {
        return false;
    }
    let mut left = above(path);
    for wanted in head.iter().rev() {
        let name = left.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if name.is_empty() || !fits(wanted, &fold(name)) {
            return false;
        }
        left = above(left);
    }
    below.is_none_or(|below| left == below || left.strip_prefix(below).is_some_and(|rest| rest.starts_with(b"/")))
}

/// Whether `path` is, for git, a name in a git directory whose content it executes.
fn git_name(path: &[u8], folded: &[u8], exists: &mut dyn FnMut(&[u8]) -> bool) -> Option<SealKind> {
    let (components, kind) =
        GIT_NAMES.iter().find(|(components, _)| components.last().is_some_and(|name| *name == folded))?;
    let mut folder = above(path);
    if let [info, _] = components {
        let name = folder.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if fold(name).as_ref() != *info {
            return None;
        }
        folder = above(folder);
    }
    repository::is(folder, exists).then_some(*kind)
}

/// Whether `name` in a folder called `folder` is one of the samples that git puts beside hooks and never runs: `git init`
/// makes them, unless it is told otherwise. They cannot become hooks, because every other name there is sealed.
pub(crate) fn is_sample(folder: &[u8], name: &[u8]) -> bool {
    folder == b"hooks" && name.len() > 7 && name.ends_with(b".sample") && !name.contains(&b'/')
}

/// Whether one of the components between the root and the last is [`PACKAGES`].
fn packaged(root: &[u8], path: &[u8]) -> bool {
    above(path).strip_prefix(root).unwrap_or_default().split(|byte| *byte == b'/').any(|name| name == PACKAGES)
}

/// The path without its last component; empty for what lies in the root.
pub(crate) fn above(path: &[u8]) -> &[u8] {
    let at = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    path.get(..at).unwrap_or_default()
}

/// Where each component of an absolute path begins and ends.
fn components(path: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while path.get(at) == Some(&b'/') {
            at += 1;
        }
        let start = at;
        while path.get(at).is_some_and(|byte| *byte != b'/') {
            at += 1;
        }
        (at > start).then_some((start, at))
    })
}

/// Names that make a folder a git directory, or lead git from one to another.
pub(crate) fn completes_repository(name: &[u8]) -> bool {
    matches!(fold(name).as_ref(), b"objects" | b"refs" | b"commondir")
}
