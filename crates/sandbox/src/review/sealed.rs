//! Which paths of a layer bear a sealed name, for a commit.
//!
//! The seals held in the cage already; this is the second look, because a layer is only bytes on a disk until a person
//! commits it. Names are judged by the cage's own [`SealSet`], on layer and workspace laid over each other. The one fact a
//! newcomer gets wrong: a link or file *named* like a folder of a sealed path (`.git`, or `.github`) counts as sealed
//! too, since it moves what the sealed path means.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use creel_model::cage::SealKind;

use super::compare::{Difference, Kind, Side};
use super::fd;
use super::folder::{Folder, FolderError};
use super::name::Relative;
use crate::gitconfig::{GitConfig, Place, gate};
use crate::seal::{Judged, Root, SealSet};

/// Bytes of a git configuration that are read.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Judges the differences of one run.
pub(crate) struct Sealed<'a> {
    run: &'a Folder,
    upper: BorrowedFd<'a>,
    seals: SealSet,
}

impl<'a> Sealed<'a> {
    /// The run's seals, and the folders that configurations of the workspace name for hooks.
    ///
    /// # Errors
    /// When the workspace cannot be walked.
    pub(crate) fn new(run: &'a Folder, upper: BorrowedFd<'a>) -> Result<Self, FolderError> {
        let workspace = Path::new(&run.facts().workspace);
        let mut seals = SealSet::new(&run.facts().seals);
        seals.scan(&[Root { descriptor: run.workspace(), path: workspace }]).map_err(|error| FolderError::System {
            doing: "look for sealed names in",
            path: super::name::shown_path(workspace),
            error,
        })?;
        Ok(Self { run, upper, seals })
    }

    /// The rule that seals a path which a difference would change; `None` where none does.
    pub(crate) fn rule(&self, difference: &Difference) -> Option<String> {
        let root = self.run.facts().workspace.as_bytes();
        let whole = [root, b"/", difference.path.bytes()].concat();
        let mut exists = |path: &[u8]| self.exists(path);
        let rule = match self.seals.judge(root, &whole, &mut exists) {
            Judged::Sealed { kind: SealKind::GitConfig, .. } if self.passes_gate(difference) => None,
            // In the cage too a sealed folder may be made, and nothing in it.
            Judged::Sealed { kind: SealKind::Directory, .. } if makes_folder(difference) => None,
            Judged::Inside { rule } | Judged::Sealed { rule, .. } => Some(rule.to_owned()),
            Judged::Free => None,
        };
        let folder = |side: &Option<Side>| side.as_ref().is_none_or(|side| side.kind == Kind::Folder);
        if rule.is_some() || (folder(&difference.before) && folder(&difference.after)) {
            return rule;
        }
        self.seals.leads(root, &whole, &mut exists).into_iter().next().map(|lead| lead.rule)
    }

    /// Whether something stands at an absolute path in the layer or, below it, in the workspace.
    fn exists(&self, path: &[u8]) -> bool {
        let inside = path.strip_prefix(self.run.facts().workspace.as_bytes());
        let relative = inside.and_then(|rest| {
            let rest = rest.strip_prefix(b"/").unwrap_or(rest);
            Relative::parse(Path::new(OsStr::from_bytes(rest)))
        });
        let Some((parent, name)) = relative.as_ref().and_then(Relative::split) else { return false };
        // What the layer deletes still counts as there: the deletion may be left out of a commit.
        [self.upper, self.run.workspace()].into_iter().any(|base| {
            fd::below(base, &parent)
                .is_ok_and(|folder| matches!(fd::stamp(folder.as_fd(), name), Ok(Some(stamp)) if !stamp.is_whiteout()))
        })
    }

    /// Whether a git configuration changes only in what an agent may change.
    fn passes_gate(&self, difference: &Difference) -> bool {
        let (None | Some(Side { kind: Kind::File, .. }), Some(Side { kind: Kind::File, .. })) =
            (&difference.before, &difference.after)
        else {
            return false;
        };
        let old = match &difference.before {
            Some(_) => self.parse(self.run.workspace(), &difference.path),
            None => Some(GitConfig::default()),
        };
        let new = self.parse(self.upper, &difference.path);
        let Some((parent, _)) = difference.path.split() else { return false };
        let workspace = PathBuf::from(&self.run.facts().workspace);
        let folder = workspace.join(parent.to_path());
        let place = Place { folder: &folder, roots: &[workspace] };
        old.zip(new).is_some_and(|(old, new)| gate(&old, &new, place).is_ok())
    }

    fn parse(&self, base: BorrowedFd<'_>, path: &Relative) -> Option<GitConfig> {
        let (parent, name) = path.split()?;
        let folder = fd::below(base, &parent).ok()?;
        let (file, stamp) = fd::file(folder.as_fd(), name).ok()??;
        let mut bytes = Vec::new();
        std::fs::File::from(file).take(CONFIG_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        // Read in whole, and not grown meanwhile.
        (bytes.len() as u64 == stamp.size).then(|| GitConfig::parse(&bytes).ok()).flatten()
    }
}

fn makes_folder(difference: &Difference) -> bool {
    difference.before.is_none() && difference.after.as_ref().is_some_and(|side| side.kind == Kind::Folder)
}

#[cfg(test)]
mod tests {
    use creel_model::cage::WorkspaceMode;

    use super::super::compare::Change;
    use super::super::test::plan;
    use super::*;

    #[test]
    fn sealed_names_are_found_however_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let (workspace, upper_path) = (dir.path().join("work"), dir.path().join("upper"));
        for folder in
            ["work/bare/objects", "work/.git/objects", "work/.git/refs", "upper/bare/refs", "upper/half/objects"]
        {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        std::fs::write(dir.path().join("f"), "").unwrap();
        let run = Folder::create(&dir.path().join("state"), &plan("r-1", &workspace, WorkspaceMode::Review)).unwrap();
        let upper = fd::folder(&upper_path).unwrap();
        let sealed = Sealed::new(&run, upper.as_fd()).unwrap();
        let base = fd::folder(dir.path()).unwrap();
        let found = |path: &str, kind: &str| {
            let path = Relative::parse(path.as_ref()).unwrap();
            let stamp = fd::stamp(base.as_fd(), kind.as_ref()).unwrap().unwrap();
            let (after, change) = (Some(Side::of(stamp, None)), Change::Created);
            sealed.rule(&Difference { path, change, before: None, after, obstacle: None, set_id: false }).is_some()
        };
        for (path, kind, expected) in [
            (".git/hooks/pre-commit", "f", true),
            ("deep/in/.git/hooks", "work", false),
            ("deep/in/.git/hooks/folder", "work", true),
            ("deep/in/.git/hooks", "f", true),
            (".GIT/Hooks/x", "f", true),
            (".g\u{200c}it/hooks/x", "f", true),
            (".git", "f", true),
            (".git", "work", false),
            (".git/index", "f", false),
            (".github", "f", true),
            (".github/workflows/ci.yml", "f", true),
            ("bare/hooks/post-update", "f", true),
            ("bare/info/attributes", "f", true),
            ("bare/description", "f", false),
            ("half/hooks/x", "f", false),
            ("src/main.rs", "f", false),
            ("package.json", "f", true),
        ] {
            assert_eq!(found(path, kind), expected, "{path}");
        }
    }
}
