//! Places to verdicts: which writable part a folder belongs to, and what the seals say about a name in it.
//!
//! Most names are cleared by their folder, which is remembered, and their first letter. The one fact a newcomer gets
//! wrong: a folder may be remembered only if its verdict came from its path alone; whether it is a repository can change.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;

use creel_model::cage::SealKind;
use rustix::fs::{Access, AtFlags, CWD};
use rustix::io::Errno;

use super::caller::Call;
use super::{Broker, Why, join};
use crate::seal::name::fold;
use crate::seal::{Judged, is_sample};

/// Folders that are remembered.
const MOST_PARENTS: usize = 32;

/// Folders judged last, and whether something is sealed by its name in them at all.
#[derive(Debug, Default)]
pub(super) struct Parents {
    known: Vec<(Vec<u8>, Parent)>,
    next: usize,
}

/// What is known about a folder from its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parent {
    /// It does not lie on the host, or nothing can be written there.
    Private,
    /// It lies below this writable part, not below anything sealed.
    Open(usize),
}

/// What the seals say about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It does not lie on the host.
    Private,
    /// It is not sealed.
    Free,
    /// It lies below a sealed directory.
    Inside(String),
    /// It is a sealed name.
    Sealed(SealKind, String),
}

impl Verdict {
    /// The rule, if it is sealed in either way.
    pub(super) fn rule(&self) -> Option<&str> {
        match self {
            Self::Private | Self::Free => None,
            Self::Inside(rule) | Self::Sealed(_, rule) => Some(rule),
        }
    }
}

/// Whether something exists, a link counting as itself. What cannot be known counts as existing: an agent may close a
/// folder on the way while it stands further down.
pub(super) fn exists(path: &[u8]) -> bool {
    !matches!(
        rustix::fs::accessat(CWD, path, Access::EXISTS, AtFlags::SYMLINK_NOFOLLOW),
        Err(Errno::NOENT | Errno::NOTDIR)
    )
}

impl Broker {
    /// What the seals say about `name` in the folder at `parent`.
    pub(super) fn judge(&mut self, parent: &[u8], name: &[u8]) -> Verdict {
        if !parent.starts_with(b"/") {
            // A folder that does not hang in the cage's tree.
            return Verdict::Inside(self.seals.git_rule().to_owned());
        }
        let known = self.parents.known.iter().find(|(path, _)| path == parent).map(|(_, parent)| *parent);
        let root = match known {
            Some(Parent::Private) => return Verdict::Private,
            Some(Parent::Open(root)) => Some(root),
            None => None,
        };
        if root.is_some() && !self.seals.may(parent, name) {
            return Verdict::Free;
        }
        let path = join(parent, name);
        let Some(root) = root.or_else(|| self.root_of(parent)) else {
            self.remember(parent, Parent::Private);
            return Verdict::Private;
        };
        let mut asked = false;
        let verdict = {
            let root_path = self.roots.get(root).map(|root| root.as_os_str().as_bytes()).unwrap_or_default();
            if known.is_none() {
                let mut ask = |path: &[u8]| {
                    asked = true;
                    exists(path)
                };
                match self.seals.judge(root_path, parent, &mut ask) {
                    Judged::Free => None,
                    Judged::Inside { rule } => Some(Verdict::Inside(rule.to_owned())),
                    // A directory with the name of a sealed file seals nothing below it.
                    Judged::Sealed { kind: SealKind::Directory, rule } => Some(Verdict::Inside(rule.to_owned())),
                    Judged::Sealed { .. } => None,
                }
            } else {
                None
            }
        };
        if let Some(verdict) = verdict {
            let folder = parent.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            if !is_sample(folder, name) {
                return verdict;
            }
            asked = true;
        }
        if known.is_none() && !asked {
            self.remember(parent, Parent::Open(root));
        }
        let root_path = self.roots.get(root).map(|root| root.as_os_str().as_bytes()).unwrap_or_default();
        match self.seals.judge(root_path, &path, &mut exists) {
            Judged::Free => Verdict::Free,
            Judged::Inside { rule } => Verdict::Inside(rule.to_owned()),
            Judged::Sealed { kind, rule } => Verdict::Sealed(kind, rule.to_owned()),
        }
    }

    /// As [`Broker::judge`], of a whole path.
    pub(super) fn judge_path(&mut self, path: &[u8]) -> Verdict {
        let at = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let (parent, name) = path.split_at_checked(at).unwrap_or_default();
        let parent = if parent.is_empty() { b"/" } else { parent };
        self.judge(parent, name.strip_prefix(b"/").unwrap_or(name))
    }

    /// The writable part that a folder is, or lies in.
    fn root_of(&self, folder: &[u8]) -> Option<usize> {
        self.roots.iter().position(|root| {
            folder
                .strip_prefix(root.as_os_str().as_bytes())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        })
    }

    /// The path of the writable part that `path` lies in; the whole file system where there is none.
    pub(super) fn root_path(&self, path: &[u8]) -> &[u8] {
        let root = self.root_of(path).and_then(|root| self.roots.get(root));
        root.map(|root| root.as_os_str().as_bytes()).unwrap_or_default()
    }

    fn remember(&mut self, folder: &[u8], parent: Parent) {
        let entry = (folder.to_vec(), parent);
        if self.parents.known.len() < MOST_PARENTS {
            self.parents.known.push(entry);
            return;
        }
        let next = self.parents.next;
        if let Some(oldest) = self.parents.known.get_mut(next) {
            *oldest = entry;
        }
        self.parents.next = (next + 1) % MOST_PARENTS;
    }

    /// Refuses what is sealed.
    pub(super) fn refuse_sealed(&mut self, call: &Call, what: &str, path: &[u8], verdict: &Verdict) -> Errno {
        let rule = verdict.rule().unwrap_or_default().to_owned();
        let (reason, fix) = match verdict {
            Verdict::Sealed(SealKind::GitConfig, _) => (
                "a git configuration is only changed by git itself, and only where it executes nothing",
                "use `git config`; settings that execute something are a person's to make, outside of the cage",
            ),
            Verdict::Sealed(..) => (
                "the name is sealed: programs of the host execute or obey what stands there",
                "let a person make this change outside of the cage, or change the profile's seals",
            ),
            _ => (
                "the directory is sealed: programs of the host execute or obey what stands there",
                "let a person make this change outside of the cage, or change the profile's seals",
            ),
        };
        self.refuse(call, what, path, &Why { rule: &rule, reason, fix }, Errno::ACCESS)
    }

    /// Whether git takes a folder for a repository or a part of one. Asked of the folder itself, not by its path.
    pub(super) fn is_repository(folder: &OwnedFd, path: &[u8]) -> Result<bool, Errno> {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if fold(name).as_ref() == b".git" {
            return Ok(true);
        }
        Ok((holds(folder, "objects")? && holds(folder, "refs")?) || holds(folder, "commondir")?)
    }
}

/// Whether a name is in a folder.
pub(super) fn holds(folder: &OwnedFd, name: &str) -> Result<bool, Errno> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}
