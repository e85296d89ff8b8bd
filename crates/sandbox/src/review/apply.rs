//! Steps → the workspace, with the record that undoes them.
//!
//! ```text
//! 1. folders are made, new contents are written beside their places and flushed    (undone when anything fails)
//! 2. the record is written: what will stand where, and under which number the old thing will be kept
//! 3. each place is taken by one rename; what came out is compared, then kept       (put back when it is another)
//! ```
//! The one fact a newcomer gets wrong: the old file is not copied, it is *moved* into the record where that is possible,
//! so that whoever has it open goes on writing into what undo brings back.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::compare::{Kind, Side};
use super::fd::{self, Stamp};
use super::folder::{Folder, FolderError};
use super::name::Relative;
use super::undo::{Mark, Record, Undone};

/// One thing to do.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Take away what is not a folder.
    Remove { path: Relative, before: Side },
    /// Take away an empty folder.
    RemoveFolder { path: Relative, before: Side },
    /// Make a folder.
    MakeFolder { path: Relative, permissions: u32 },
    /// Put the layer's file or link there.
    Put { path: Relative, before: Option<Side>, after: Side },
    /// Set permissions.
    Permissions { path: Relative, before: Side, permissions: u32 },
}

impl Step {
    pub(crate) fn path(&self) -> &Relative {
        match self {
            Step::Remove { path, .. }
            | Step::RemoveFolder { path, .. }
            | Step::MakeFolder { path, .. }
            | Step::Put { path, .. }
            | Step::Permissions { path, .. } => path,
        }
    }
}

/// Why a step could not be done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The system said no.
    #[error("{0}")]
    System(std::io::Error),
    /// The layer's file is not what it was a moment ago.
    #[error("the layer's file changed while it was read")]
    Layer,
}

impl From<Errno> for StepError {
    fn from(error: Errno) -> Self {
        StepError::System(error.into())
    }
}

impl From<std::io::Error> for StepError {
    fn from(error: std::io::Error) -> Self {
        StepError::System(error)
    }
}

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub(crate) done: Vec<Relative>,
    /// What changed underneath between judging and doing; nothing was done there.
    pub(crate) conflicts: Vec<(Relative, &'static str)>,
    /// Where it stopped.
    pub(crate) failed: Option<(Relative, StepError)>,
}

/// Does the steps in their order.
pub(crate) fn apply(
    run: &Folder,
    upper: BorrowedFd<'_>,
    steps: &[Step],
    now_unix_ns: i64,
) -> Result<Applied, FolderError> {
    let mut work = Work { run, upper, staged: BTreeMap::new(), made: Vec::new(), applied: Applied::default() };
    let mut record = match work.stage(steps) {
        Ok(record) => record,
        Err((path, error)) => {
            work.unstage();
            work.applied.failed = Some((path, error));
            return Ok(work.applied);
        }
    };
    record.at_unix_ns = now_unix_ns;
    let kept = match Record::begin(run, &record) {
        Ok(kept) => kept,
        Err(error) => {
            work.unstage();
            return Err(error);
        }
    };
    let done = work.take_places(steps, &kept.folder);
    work.unstage();
    // Undo is to know nothing of what was not done, but for a crash.
    let made = |entry: &Undone| {
        steps
            .iter()
            .zip(&done)
            .any(|(step, done)| *done && matches!(step, Step::MakeFolder { .. }) && entry.is_of(step.path()))
    };
    let mut number = 0;
    record.entries.retain(|entry| {
        number += 1;
        done.get(number - 1).copied().unwrap_or_else(|| made(entry))
    });
    kept.finish(run, &record)?;
    Ok(work.applied)
}

struct Work<'a> {
    run: &'a Folder,
    upper: BorrowedFd<'a>,
    /// By the place it is for: the folder, the temporary name.
    staged: BTreeMap<Relative, (OwnedFd, OsString)>,
    /// Folders made in the first part, which an early failure removes again.
    made: Vec<Relative>,
    applied: Applied,
}

impl Work<'_> {
    /// The first part. What is in the way of a new thing is only moved away in the third, so a folder that takes the
    /// place of a file is made under a temporary name, with all its content.
    fn stage(&mut self, steps: &[Step]) -> Result<Record, (Relative, StepError)> {
        let mut record = Record::default();
        // Places whose folder is not there yet, because a file stands in its place: staged where the folder is made.
        for (number, step) in steps.iter().enumerate() {
            let staged = self.stage_one(step, number);
            record.entries.push(staged.map_err(|error| (step.path().clone(), error))?);
        }
        // New folders get their permissions at the very end; undo begins with making them writable again.
        for step in steps {
            if let Step::MakeFolder { path, permissions } = step {
                record.entries.push(Undone::permissions(path, 0o700, *permissions));
            }
        }
        let flushed = rustix::fs::syncfs(self.run.workspace());
        flushed.map_err(|error| (Relative::root(), StepError::from(error)))?;
        Ok(record)
    }

    fn stage_one(&mut self, step: &Step, number: usize) -> Result<Undone, StepError> {
        let number = number as u64;
        Ok(match step {
            Step::Remove { path, before } => Undone::removed(path, number, &before.stamp),
            Step::RemoveFolder { path, before } => Undone::removed_folder(path, before.permissions),
            Step::Permissions { path, before, permissions } => {
                Undone::permissions(path, before.permissions, *permissions)
            }
            Step::MakeFolder { path, .. } => {
                let (folder, name) = self.parent(path)?;
                let temporary = temporary(number);
                match fd::stamp(folder.as_fd(), &name)? {
                    None => {
                        rustix::fs::mkdirat(&folder, &name, Mode::RWXU)?;
                        self.made.push(path.clone());
                    }
                    // Something stands there that a step before this one takes away.
                    Some(_) => {
                        rustix::fs::mkdirat(&folder, &temporary, Mode::RWXU)?;
                        self.staged.insert(path.clone(), (folder, temporary));
                    }
                }
                Undone::made_folder(path)
            }
            Step::Put { path, before, after } => {
                let (folder, name) = self.parent(path)?;
                let temporary = temporary(number);
                let _ = rustix::fs::unlinkat(&folder, &temporary, AtFlags::empty());
                let mark = match after.kind {
                    Kind::Link => {
                        let target = after.target.as_deref().unwrap_or_default();
                        rustix::fs::symlinkat(OsStr::from_bytes(target), &folder, &temporary)?;
                        fd::stamp(folder.as_fd(), &temporary)?.ok_or(StepError::Layer)?
                    }
                    _ => self.copy(path, after, before.as_ref(), &folder, &name, &temporary)?,
                };
                self.staged.insert(path.clone(), (folder, temporary));
                Undone::put(path, before.as_ref().map(|_| number), &mark)
            }
        })
    }

    /// The folder in which a path's last part stands or will stand, through folders staged before.
    fn parent(&self, path: &Relative) -> Result<(OwnedFd, OsString), StepError> {
        let (parent, name) = path.split().ok_or(StepError::Layer)?;
        let name = name.to_owned();
        let mut staged = Relative::root();
        let mut found: Option<(Relative, &(OwnedFd, OsString))> = None;
        for part in parent.parts() {
            staged = staged.join(part).ok_or(StepError::Layer)?;
            if let Some(entry) = self.staged.get(&staged) {
                found = Some((staged.clone(), entry));
            }
        }
        let Some((at, (folder, temporary))) = found else {
            return Ok((fd::below(self.run.workspace(), &parent)?, name));
        };
        let top = fd::child(folder.as_fd(), temporary)?;
        let rest = parent.parts().skip(at.depth()).try_fold(Relative::root(), |rest, part| rest.join(part));
        Ok((fd::below(top.as_fd(), &rest.ok_or(StepError::Layer)?)?, name))
    }

    fn copy(
        &self,
        path: &Relative,
        after: &Side,
        before: Option<&Side>,
        folder: &OwnedFd,
        name: &OsStr,
        temporary: &OsStr,
    ) -> Result<Stamp, StepError> {
        let (parent, source_name) = path.split().ok_or(StepError::Layer)?;
        let source_folder = fd::below(self.upper, &parent)?;
        let (source, stamp) = fd::file(source_folder.as_fd(), source_name)?.ok_or(StepError::Layer)?;
        if stamp != after.stamp {
            return Err(StepError::Layer);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = rustix::fs::openat(folder, temporary, flags, Mode::RUSR | Mode::WUSR)?;
        let mut target = File::from(target);
        if std::io::copy(&mut File::from(source), &mut target)? != after.size {
            return Err(StepError::Layer);
        }
        if before.is_some_and(|before| before.kind == Kind::File) {
            // A file that is shared by its group stays so, where the account may give it to that group.
            let group = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| stat.st_gid);
            if let Ok(group) = group {
                let _ = rustix::fs::fchown(&target, None, Some(Gid::from_raw(group)));
            }
        }
        rustix::fs::fchmod(&target, Mode::from_raw_mode(after.permissions & 0o777))?;
        Ok(Stamp::from(rustix::fs::fstat(&target)?))
    }

    /// The third part. Answers which steps were done.
    fn take_places(&mut self, steps: &[Step], kept: &OwnedFd) -> Vec<bool> {
        let mut all = vec![false; steps.len()];
        for (number, step) in steps.iter().enumerate() {
            let path = step.path();
            // Behind a place that stayed as it was, nothing can be done.
            if self.applied.conflicts.iter().any(|(place, _)| path.is_within(place) && path != place) {
                self.applied.conflicts.push((path.clone(), "lies in a folder that changed since the run began"));
                continue;
            }
            match self.take_place(step, &OsString::from(number.to_string()), kept) {
                Ok(None) => {
                    self.applied.done.push(path.clone());
                    if let Some(done) = all.get_mut(number) {
                        *done = true;
                    }
                }
                Ok(Some(conflict)) => self.applied.conflicts.push((path.clone(), conflict)),
                Err(error) => {
                    self.applied.failed = Some((path.clone(), error));
                    return all;
                }
            }
        }
        for step in steps.iter().rev() {
            if let Step::MakeFolder { path, permissions } = step
                && self.applied.done.contains(path)
                && let Some((parent, name)) = path.split()
                && let Ok(folder) = fd::below(self.run.workspace(), &parent)
                && let Err(error) = fd::set_mode(folder.as_fd(), name, *permissions)
            {
                self.applied.failed = Some((path.clone(), error.into()));
                break;
            }
        }
        all
    }

    fn take_place(&mut self, step: &Step, number: &OsStr, kept: &OwnedFd) -> Result<Option<&'static str>, StepError> {
        const CHANGED: &str = "changed in the workspace at this moment";
        let (parent, name) = step.path().split().ok_or(StepError::Layer)?;
        let folder = fd::below(self.run.workspace(), &parent)?;
        match step {
            Step::RemoveFolder { .. } => match rustix::fs::unlinkat(&folder, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => Ok(None),
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {
                    Ok(Some("holds something that is not in the layer's view"))
                }
                Err(error) => Err(error.into()),
            },
            Step::MakeFolder { path, .. } => match self.staged.remove(path) {
                None => Ok(None),
                Some((_, temporary)) => Ok(put_new(&folder, &temporary, name)?.then_some(CHANGED)),
            },
            Step::Permissions { before, permissions, .. } => {
                let now = fd::stamp(folder.as_fd(), name)?;
                let same = |now: Stamp| {
                    (now.device, now.inode, now.mode) == (before.stamp.device, before.stamp.inode, before.stamp.mode)
                };
                if !now.is_some_and(same) {
                    return Ok(Some(CHANGED));
                }
                fd::set_mode(folder.as_fd(), name, *permissions)?;
                Ok(None)
            }
            Step::Remove { before, .. } => {
                let away = temporary_away(number);
                match rustix::fs::renameat_with(&folder, name, &folder, &away, RenameFlags::NOREPLACE) {
                    Err(Errno::NOENT) => return Ok(Some(CHANGED)),
                    moved => moved?,
                }
                if !is_still(&folder, &away, before)? {
                    rustix::fs::renameat_with(&folder, &away, &folder, name, RenameFlags::NOREPLACE)?;
                    return Ok(Some(CHANGED));
                }
                keep(&folder, &away, kept, number)?;
                Ok(None)
            }
            Step::Put { path, before, .. } => {
                let Some((_, temporary)) = self.staged.get(path) else { return Err(StepError::Layer) };
                let temporary = temporary.clone();
                let conflict = match before {
                    None => put_new(&folder, &temporary, name)?,
                    Some(before) => put_over(&folder, &temporary, name, before, kept, number)?,
                };
                if conflict {
                    let _ = rustix::fs::unlinkat(&folder, &temporary, AtFlags::empty());
                }
                self.staged.remove(path);
                Ok(conflict.then_some(CHANGED))
            }
        }
    }

    /// Removes what was staged and has not found its place.
    fn unstage(&mut self) {
        while let Some((_, (folder, temporary))) = self.staged.pop_last() {
            let _ = fd::remove_tree(folder.as_fd(), &temporary);
        }
        if self.applied.done.is_empty() {
            for path in self.made.drain(..).rev() {
                if let Some((parent, name)) = path.split()
                    && let Ok(folder) = fd::below(self.run.workspace(), &parent)
                {
                    let _ = rustix::fs::unlinkat(&folder, name, AtFlags::REMOVEDIR);
                }
            }
        }
    }
}

/// Gives a staged thing its name if that is free; answers whether it was taken.
pub(crate) fn put_new(folder: &OwnedFd, temporary: &OsStr, name: &OsStr) -> Result<bool, StepError> {
    match rustix::fs::renameat_with(folder, temporary, folder, name, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(false),
        Err(Errno::EXIST) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Exchanges a staged thing with what has its name, and keeps the old one; answers whether the old one was another than
/// expected, in which case it has its name again.
fn put_over(
    folder: &OwnedFd,
    temporary: &OsStr,
    name: &OsStr,
    before: &Side,
    kept: &OwnedFd,
    number: &OsStr,
) -> Result<bool, StepError> {
    match rustix::fs::renameat_with(folder, temporary, folder, name, RenameFlags::EXCHANGE) {
        Ok(()) => {
            if !is_still(folder, temporary, before)? {
                rustix::fs::renameat_with(folder, temporary, folder, name, RenameFlags::EXCHANGE)?;
                return Ok(true);
            }
            keep(folder, temporary, kept, number)?;
            Ok(false)
        }
        Err(Errno::NOENT) => Ok(true),
        // A filesystem that cannot exchange: the old one is copied first, and a short moment stays in which a change
        // underneath would be lost.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            if !is_still(folder, name, before)? {
                return Ok(true);
            }
            copy_away(folder, name, kept, number)?;
            if !is_still(folder, name, before)? {
                return Ok(true);
            }
            rustix::fs::renameat(folder, temporary, folder, name)?;
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether what stands there is what the person was shown. A rename moves the change time, so that one does not count.
fn is_still(folder: &OwnedFd, name: &OsStr, before: &Side) -> Result<bool, StepError> {
    let Some(now) = fd::stamp(folder.as_fd(), name)? else { return Ok(false) };
    Ok(Mark::of(&now) == Mark::of(&before.stamp) && now.mode == before.stamp.mode)
}

/// Moves a thing into the record, by copying where that lies on another filesystem.
fn keep(folder: &OwnedFd, name: &OsStr, kept: &OwnedFd, number: &OsStr) -> Result<(), StepError> {
    match rustix::fs::renameat(folder, name, kept, number) {
        Ok(()) => Ok(()),
        Err(Errno::XDEV) => {
            copy_away(folder, name, kept, number)?;
            Ok(rustix::fs::unlinkat(folder, name, AtFlags::empty())?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Copies a file or link from one folder into another, under a name that is free there.
pub(crate) fn copy_away(from: &OwnedFd, name: &OsStr, to: &OwnedFd, new_name: &OsStr) -> Result<(), StepError> {
    let Some((source, stamp)) = fd::file(from.as_fd(), name)? else {
        let target = fd::target(from.as_fd(), name)?;
        return Ok(rustix::fs::symlinkat(OsStr::from_bytes(&target), to, new_name)?);
    };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut target = File::from(rustix::fs::openat(to, new_name, flags, Mode::RUSR | Mode::WUSR)?);
    std::io::copy(&mut File::from(source), &mut target)?;
    rustix::fs::fchmod(&target, Mode::from_raw_mode(stamp.permissions()))?;
    Ok(rustix::fs::fsync(&target)?)
}

fn temporary(number: u64) -> OsString {
    OsString::from(format!(".creel-commit-{}-{number}", rustix::process::getpid()))
}

fn temporary_away(number: &OsStr) -> OsString {
    let mut name = OsString::from(format!(".creel-removed-{}-", rustix::process::getpid()));
    name.push(number);
    name
}

#[cfg(test)]
mod tests {
    use creel_model::cage::WorkspaceMode;

    use super::super::test::plan;
    use super::*;

    struct Place {
        _dir: tempfile::TempDir,
        run: Folder,
        upper: OwnedFd,
        upper_path: std::path::PathBuf,
        workspace: std::path::PathBuf,
    }

    fn place() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let (workspace, upper_path) = (dir.path().join("work"), dir.path().join("upper"));
        std::fs::create_dir(&workspace).unwrap();
        std::fs::create_dir_all(upper_path.join("new")).unwrap();
        for name in ["new/a", "b", "c"] {
            std::fs::write(upper_path.join(name), name).unwrap();
        }
        std::fs::write(workspace.join("c"), "old").unwrap();
        let run = Folder::create(&dir.path().join("state"), &plan("r-1", &workspace, WorkspaceMode::Review)).unwrap();
        Place { run, upper: fd::folder(&upper_path).unwrap(), upper_path, workspace, _dir: dir }
    }

    fn side(base: &std::path::Path, path: &str) -> Side {
        let base = fd::folder(base).unwrap();
        let path = Relative::parse(path.as_ref()).unwrap();
        let (parent, name) = path.split().unwrap();
        let folder = fd::below(base.as_fd(), &parent).unwrap();
        let stamp = fd::stamp(folder.as_fd(), name).unwrap().unwrap();
        Side::at(folder.as_fd(), name, stamp).unwrap()
    }

    fn steps(place: &Place) -> Vec<Step> {
        let path = |text: &str| Relative::parse(text.as_ref()).unwrap();
        vec![
            Step::MakeFolder { path: path("new"), permissions: 0o755 },
            Step::Put { path: path("new/a"), before: None, after: side(&place.upper_path, "new/a") },
            Step::Put { path: path("b"), before: None, after: side(&place.upper_path, "b") },
            Step::Put {
                path: path("c"),
                before: Some(side(&place.workspace, "c")),
                after: side(&place.upper_path, "c"),
            },
        ]
    }

    fn names(place: &Place) -> Vec<OsString> {
        fd::names(fd::folder(&place.workspace).unwrap().as_fd(), 100).unwrap().unwrap()
    }

    #[test]
    fn what_cannot_be_staged_changes_nothing_and_leaves_nothing() {
        let place = place();
        let steps = steps(&place);
        std::fs::write(place.upper_path.join("c"), "another length").unwrap();
        let applied = apply(&place.run, place.upper.as_fd(), &steps, 1).unwrap();
        assert!(matches!(applied.failed, Some((_, StepError::Layer))), "{:?}", applied.failed);
        assert_eq!((applied.done, names(&place)), (Vec::new(), vec![OsString::from("c")]));
        assert_eq!(fd::stamp(place.run.fd(), "undo".as_ref()).unwrap(), None);
    }

    #[test]
    fn what_changes_between_judging_and_doing_gets_its_name_back() {
        let place = place();
        let steps = steps(&place);
        std::fs::write(place.workspace.join("c"), "written by somebody else").unwrap();
        std::fs::write(place.workspace.join("b"), "this too").unwrap();
        let applied = apply(&place.run, place.upper.as_fd(), &steps, 1).unwrap();
        assert!(applied.failed.is_none());
        let conflicts: Vec<String> = applied.conflicts.iter().map(|(path, _)| path.shown()).collect();
        assert_eq!(conflicts, ["b", "c"]);
        assert_eq!(std::fs::read_to_string(place.workspace.join("c")).unwrap(), "written by somebody else");
        assert_eq!(std::fs::read_to_string(place.workspace.join("b")).unwrap(), "this too");
        assert_eq!(names(&place), ["b", "c", "new"]);
        let restored = super::super::undo(&place.run).unwrap();
        assert_eq!(restored.left, []);
        assert_eq!(names(&place), ["b", "c"]);
    }
}
