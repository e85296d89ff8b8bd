//! Chosen differences of a layer → the workspace, each file whole or not at all.
//!
//! First everything is judged, and nothing is done when anything chosen must be refused; then new contents are written
//! beside their places, then they take them by exchange. The exchange brings the old file out, so that what was replaced
//! is *seen* to be what the person was shown, else it is put back. The one fact a newcomer gets wrong: there is no moment
//! at which a name is missing or half written, and nothing on the way is resolved through a link.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};

use super::apply::{Applied, Step, StepError, apply};
use super::compare::{Change, Comparison, Difference, Kind, compare};
use super::fd;
use super::folder::{Folder, FolderError};
use super::name::Relative;
use super::sealed::Sealed;
use super::underneath;

/// What to carry over.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Paths below the workspace, each with all below it; empty: everything.
    pub paths: BTreeSet<Relative>,
    /// Sealed paths that are meant to be written, each by its own name.
    pub sealed: BTreeSet<Relative>,
    /// Leave out what is refused instead of refusing all.
    pub leave_refused: bool,
}

/// Why a path is not carried over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It changed underneath: what changed.
    Conflict(&'static str),
    /// It bears a sealed name: the rule. Only naming it in [`Wish::sealed`] helps.
    Sealed(String),
    /// It is something that is never made: what.
    Obstacle(&'static str),
    /// It could not be read: what the system said.
    Unread(String),
    /// The folder that it lies in is not carried over.
    Inside,
}

impl Why {
    /// Whether the whole commit is refused for this unless [`Wish::leave_refused`].
    #[must_use]
    pub fn refuses(&self) -> bool {
        matches!(self, Why::Conflict(_) | Why::Sealed(_) | Why::Unread(_))
    }
}

/// What a look at a layer found: each difference with what stands against carrying it over.
#[derive(Debug, Default)]
pub struct Review {
    /// In the order of a walk.
    pub differences: Vec<(Difference, Option<Why>)>,
    /// Places that could not be read.
    pub unread: Vec<(Relative, String)>,
    /// Not everything is listed.
    pub cut: bool,
}

/// What came of a commit.
#[derive(Debug, Default)]
pub struct Committed {
    /// Paths that were carried over.
    pub done: Vec<Relative>,
    /// Paths that were not, and why.
    pub left: Vec<(Relative, Why)>,
    /// Whether nothing was done because something chosen is refused.
    pub refused: bool,
    /// Names in [`Wish::paths`] that match no difference.
    pub unknown: Vec<Relative>,
}

/// Why a commit stopped. What it had done by then stays and is in the undo record.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The run's folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The run was not reviewed: its writes are in the workspace already.
    #[error("run `{0}` wrote to the workspace itself; there is nothing to commit or discard")]
    NotReviewed(String),
    /// The layer holds more differences than are looked at; name some.
    #[error("the layer holds more than {0} differences; name the paths to commit")]
    TooMany(usize),
    /// One file could not be carried over; with how many were before it.
    #[error("`{path}`: {error}; {done} paths were carried over before it")]
    Step {
        /// Where.
        path: String,
        /// What went wrong.
        error: StepError,
        /// How many were done.
        done: usize,
    },
}

/// Looks at a layer, at and below some paths (none: everything).
///
/// # Errors
/// When the run has no layer.
pub fn look(run: &Folder, scope: &BTreeSet<Relative>) -> Result<Review, CommitError> {
    let upper = upper(run)?;
    let Comparison { differences, unread, cut } = compare(upper.as_fd(), run.workspace(), scope);
    let conflicts = underneath::conflicts(run, &differences);
    let sealed = Sealed::new(run, upper.as_fd())?;
    let judged = differences.into_iter().zip(conflicts).map(|(difference, conflict)| {
        let root = difference.path.is_root().then_some("the workspace folder itself");
        let why = match (difference.obstacle.or(root), conflict) {
            (Some(obstacle), _) => Some(Why::Obstacle(obstacle)),
            (None, Some(conflict)) => Some(Why::Conflict(conflict)),
            (None, None) => sealed.rule(&difference).map(Why::Sealed),
        };
        (difference, why)
    });
    Ok(Review { differences: judged.collect(), unread, cut })
}

/// Carries over what is wished.
///
/// # Errors
/// When the layer cannot be read or a write fails on the way; nothing is half written then.
pub fn commit(run: &Folder, wish: &Wish, now_unix_ns: i64) -> Result<Committed, CommitError> {
    if !run.is_locked() {
        return Err(FolderError::Running(run.facts().run.to_string()).into());
    }
    let review = look(run, &wish.paths)?;
    if review.cut {
        return Err(CommitError::TooMany(super::compare::DIFFERENCES_MAX));
    }
    let mut result = Committed::default();
    let hit = |asked: &&Relative| {
        let found = review.differences.iter().map(|(difference, _)| &difference.path);
        !found.chain(review.unread.iter().map(|(path, _)| path)).any(|path| path.is_within(asked))
    };
    result.unknown = wish.paths.iter().filter(hit).cloned().collect();
    result.left.extend(review.unread.into_iter().map(|(path, why)| (path, Why::Unread(why))));
    let mut chosen = Vec::new();
    for (difference, why) in review.differences {
        // Whoever names a sealed file means the folders that lead to it too.
        let folder = difference.after.as_ref().is_some_and(|after| after.kind == Kind::Folder);
        let named = |sealed: &Relative| *sealed == difference.path || (folder && sealed.is_within(&difference.path));
        let why = why.filter(|why| !matches!(why, Why::Sealed(_)) || !wish.sealed.iter().any(named));
        match why {
            Some(why) => result.left.push((difference.path, why)),
            None => chosen.push(difference),
        }
    }
    if !wish.leave_refused && result.left.iter().any(|(_, why)| why.refuses()) {
        result.refused = true;
        return Ok(result);
    }
    let chosen = without_orphans(chosen, &mut result.left);
    if chosen.is_empty() {
        return Ok(result);
    }
    let upper = upper(run)?;
    let steps = steps(&upper, run, &chosen)?;
    let Applied { done, failed, conflicts } = apply(run, upper.as_fd(), &steps, now_unix_ns)?;
    result.left.extend(conflicts.into_iter().map(|(path, what)| (path, Why::Conflict(what))));
    // A place may take two steps.
    let mut seen = BTreeSet::new();
    result.done = done.into_iter().filter(|path| seen.insert(path.clone())).collect();
    result.done.retain(|path| !result.left.iter().any(|(left, _)| left == path));
    match failed {
        Some((path, error)) => Err(CommitError::Step { path: path.shown(), error, done: result.done.len() }),
        None => Ok(result),
    }
}

pub(crate) fn upper(run: &Folder) -> Result<OwnedFd, CommitError> {
    fd::child(run.fd(), "upper".as_ref()).map_err(|_| CommitError::NotReviewed(run.facts().run.to_string()))
}

/// What is made in a folder that is not made cannot be made either; and what would be left behind in a folder keeps it.
fn without_orphans(chosen: Vec<Difference>, left: &mut Vec<(Relative, Why)>) -> Vec<Difference> {
    let blocked: BTreeSet<Relative> =
        left.iter().filter(|(_, why)| !matches!(why, Why::Unread(_))).map(|(path, _)| path.clone()).collect();
    let mut kept = Vec::new();
    for difference in chosen {
        let mut above = difference.path.split().map(|(parent, _)| parent);
        let mut orphan = false;
        while let Some(path) = above.filter(|path| !path.is_root()) {
            orphan = orphan || (difference.after.is_some() && blocked.contains(&path));
            above = path.split().map(|(parent, _)| parent);
        }
        // A folder whose content stays must stay: the removal of a folder is only chosen with all that is in it.
        let keeps = difference.before.as_ref().is_some_and(|before| before.kind == Kind::Folder)
            && matches!(difference.change, Change::Deleted | Change::Replaced)
            && blocked.iter().any(|path| path != &difference.path && path.is_within(&difference.path));
        if orphan || keeps {
            left.push((difference.path, Why::Inside));
        } else {
            kept.push(difference);
        }
    }
    kept
}

/// Differences as steps in the order in which they can be done.
fn steps(upper: &OwnedFd, run: &Folder, chosen: &[Difference]) -> Result<Vec<Step>, CommitError> {
    let mut removals = Vec::new();
    let mut folders = made_on_the_way(upper, run, chosen)?;
    let mut files = Vec::new();
    let mut permissions = Vec::new();
    for difference in chosen {
        let path = difference.path.clone();
        let (before, after) = (difference.before.clone(), difference.after.clone());
        match (before, after) {
            (Some(before), None) if before.kind == Kind::Folder => removals.push(Step::RemoveFolder { path, before }),
            (Some(before), None) => removals.push(Step::Remove { path, before }),
            (before, Some(after)) if after.kind == Kind::Folder => match before {
                Some(before) if before.kind == Kind::Folder => {
                    permissions.push(Step::Permissions { path, before, permissions: after.permissions });
                }
                before => {
                    removals.extend(before.map(|before| Step::Remove { path: path.clone(), before }));
                    folders.push(Step::MakeFolder { path, permissions: after.permissions });
                }
            },
            (Some(before), Some(after)) if difference.change == Change::Permissions => {
                permissions.push(Step::Permissions { path, before, permissions: after.permissions });
            }
            (Some(before), Some(after)) if before.kind == Kind::Folder => {
                removals.push(Step::RemoveFolder { path: path.clone(), before });
                files.push(Step::Put { path, before: None, after });
            }
            (before, Some(after)) => files.push(Step::Put { path, before, after }),
            (None, None) => {}
        }
    }
    // What lies deeper goes first and comes last.
    removals.reverse();
    permissions.reverse();
    Ok(removals.into_iter().chain(folders).chain(files).chain(permissions).collect())
}

/// Folders of the layer that lead to a chosen path and are not in the workspace: made although nobody named them.
fn made_on_the_way(upper: &OwnedFd, run: &Folder, chosen: &[Difference]) -> Result<Vec<Step>, CommitError> {
    let mut missing: BTreeSet<Relative> = BTreeSet::new();
    for difference in chosen.iter().filter(|difference| difference.after.is_some()) {
        let mut above = difference.path.split().map(|(parent, _)| parent);
        while let Some(path) = above.filter(|path| !path.is_root() && !missing.contains(path)) {
            let there = fd::below(run.workspace(), &path).is_ok();
            let chosen = chosen.iter().any(|other| other.path == path && other.after.is_some());
            if !there && !chosen {
                missing.insert(path.clone());
            }
            above = path.split().map(|(parent, _)| parent);
        }
    }
    let mut steps = Vec::new();
    for path in missing {
        let stamp = fd::below(upper.as_fd(), &path).and_then(rustix::fs::fstat).map(fd::Stamp::from);
        let name = run.path().join("upper").join(path.to_path());
        let stamp = stamp.map_err(|error| FolderError::system("look at", &name, error))?;
        steps.push(Step::MakeFolder { path, permissions: stamp.permissions() });
    }
    Ok(steps)
}

/// Removes the layer of a run. What an earlier commit replaced is kept for [`super::undo`], unless `with_undo`.
///
/// # Errors
/// When something cannot be removed.
pub fn discard(run: Folder, with_undo: bool) -> Result<(), FolderError> {
    if with_undo || fd::stamp(run.fd(), "undo".as_ref()).is_ok_and(|stamp| stamp.is_none()) {
        return run.remove();
    }
    for name in ["upper", "work", "before", "digests", "restored"] {
        let path = run.path().join(name);
        fd::remove_tree(run.fd(), &OsString::from(name))
            .map_err(|error| FolderError::system("remove", &path, error))?;
    }
    Ok(())
}
