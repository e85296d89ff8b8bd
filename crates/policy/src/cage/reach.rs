//! What a plan says of one path, in one word: for the bundle's tables, `creel profile show` and `creel why`.
//!
//! It answers by the plan's text alone. The one fact a newcomer gets wrong: this is not what holds it; the launcher's
//! mounts and the broker do, and tests of them compare with this.

use creel_model::cage::{CagePlan, FileAccess, FileRule, Seal};
use serde::{Deserialize, Serialize};

/// What can be done with a path in a cage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reach {
    /// It does not exist there.
    Absent,
    /// A line hides it.
    Deny,
    /// The cage has its own, empty at the start and gone at the end.
    Private,
    /// It can be read.
    Read,
    /// It can be read and executed.
    Execute,
    /// It can be changed, but for what is sealed in it.
    Write,
    /// It can be read, but not made, changed, replaced or deleted.
    Sealed,
}

impl Reach {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Reach::Absent => "absent",
            Reach::Deny => "deny",
            Reach::Private => "private",
            Reach::Read => "read",
            Reach::Execute => "execute",
            Reach::Write => "write",
            Reach::Sealed => "sealed",
        }
    }
}

/// What a plan says of an absolute path (without `.`, `..` and links), and the line that says so. `home` is the account's.
#[must_use]
pub fn reach<'a>(plan: &'a CagePlan, home: &str, path: &str) -> (Reach, &'a str) {
    let line = plan.files.iter().filter(|line| is_at_or_below(path, &line.path)).max_by_key(|line| line.path.len());
    let Some(line) = line else { return (outside(home, path), "") };
    match line.access {
        FileAccess::Deny => (Reach::Deny, &line.source),
        FileAccess::Read => (Reach::Read, &line.source),
        FileAccess::Execute => (Reach::Execute, &line.source),
        FileAccess::Write => match plan.seals.iter().find(|seal| holds(seal, line, path)) {
            Some(seal) => (Reach::Sealed, &seal.rule),
            None => (Reach::Write, &line.source),
        },
    }
}

/// What the launcher gives every cage of its own.
fn outside(home: &str, path: &str) -> Reach {
    let private = ["/tmp", "/var/tmp", "/dev/shm"].iter().any(|folder| is_at_or_below(path, folder));
    if private || is_at_or_below(path, home) { Reach::Private } else { Reach::Absent }
}

/// Whether a seal is on the path or on a folder above it, below the line that grants it.
fn holds(seal: &Seal, line: &FileRule, path: &str) -> bool {
    let names: Vec<&str> = parts(path).collect();
    let from = parts(&line.path).count();
    let within = seal.below.as_deref().map_or(0, |below| parts(below).count());
    if seal.below.as_deref().is_some_and(|below| !is_at_or_below(path, below)) {
        return false;
    }
    // A granted folder itself is not sealed by its own name; what is below it may be.
    (from.max(within) + 1..=names.len()).any(|end| {
        let above = names.get(..end).unwrap_or_default();
        let start = end.saturating_sub(seal.components.len());
        let last = above.get(start..).unwrap_or_default();
        last.len() == seal.components.len()
            && start >= within
            && seal.components.iter().zip(last).all(|(pattern, name)| {
                crate::glob::wild(pattern.to_lowercase().as_bytes(), name.to_lowercase().as_bytes())
            })
    })
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

/// Whether an absolute path is a folder or in it.
pub(super) fn is_at_or_below(path: &str, folder: &str) -> bool {
    match path.strip_prefix(folder) {
        Some(rest) => rest.is_empty() || rest.starts_with('/') || folder == "/",
        None => false,
    }
}
