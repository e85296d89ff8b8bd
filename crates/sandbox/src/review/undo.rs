//! The record of a commit, and the way back.
//!
//! Each commit has a folder `undo/<n>` with `list.json` and what it replaced, by number; the last one is undone first.
//! The list is written before anything is done. The one fact a newcomer gets wrong: undo goes by what is there, not by
//! what the list says was meant. A place is only restored when the commit's own file still stands there, unchanged.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{AtFlags, Mode, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use creel_model::id::hex;

use super::apply::{StepError, copy_away, put_new};
use super::fd::{self, Stamp};
use super::folder::{Folder, FolderError};
use super::name::Relative;
use crate::changes::note_restored;

/// Bytes of a list that are read: as many entries as a commit has differences, with long names.
const LIST_BYTES_MAX: u64 = 256 << 20;
/// Commits of one run that can be undone.
const COMMITS_MAX: usize = 10_000;

/// What identifies a file's content without reading it. Renaming does not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    device: u64,
    inode: u64,
    size: u64,
    modified_ns: i64,
}

impl Mark {
    pub(crate) fn of(stamp: &Stamp) -> Self {
        Self { device: stamp.device, inode: stamp.inode, size: stamp.size, modified_ns: stamp.modified_ns }
    }
}

/// How one path is brought back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Undone {
    /// The path's bytes as hexadecimal digits: a list is for programs.
    path: String,
    way: Way,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Way {
    /// Remove ours; bring back the kept one where there was one.
    Put { ours: Mark, kept: Option<u64> },
    /// Bring back the kept one.
    Removed { kept: u64, was: Mark },
    /// Make the folder again.
    RemovedFolder { permissions: u32 },
    /// Remove the folder, if it is empty.
    MadeFolder,
    /// Set permissions back.
    Permissions { before: u32, ours: u32 },
}

impl Undone {
    fn new(path: &Relative, way: Way) -> Self {
        Self { path: hex(path.bytes()), way }
    }

    pub(crate) fn is_of(&self, path: &Relative) -> bool {
        self.path == hex(path.bytes())
    }

    pub(crate) fn put(path: &Relative, kept: Option<u64>, ours: &Stamp) -> Self {
        Self::new(path, Way::Put { ours: Mark::of(ours), kept })
    }

    pub(crate) fn removed(path: &Relative, kept: u64, was: &Stamp) -> Self {
        Self::new(path, Way::Removed { kept, was: Mark::of(was) })
    }

    pub(crate) fn removed_folder(path: &Relative, permissions: u32) -> Self {
        Self::new(path, Way::RemovedFolder { permissions })
    }

    pub(crate) fn made_folder(path: &Relative) -> Self {
        Self::new(path, Way::MadeFolder)
    }

    pub(crate) fn permissions(path: &Relative, before: u32, ours: u32) -> Self {
        Self::new(path, Way::Permissions { before, ours })
    }
}

/// The list of one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) at_unix_ns: i64,
    /// In the order in which they are done.
    pub(crate) entries: Vec<Undone>,
}

/// Where one commit keeps what it replaces.
pub(crate) struct Kept {
    pub(crate) folder: OwnedFd,
    number: u64,
}

impl Kept {
    /// Writes the list again, with what was really done.
    pub(crate) fn finish(&self, run: &Folder, record: &Record) -> Result<(), FolderError> {
        record.write(run, self.number)
    }
}

impl Record {
    fn write(&self, run: &Folder, number: u64) -> Result<(), FolderError> {
        let text = serde_json::to_vec(self)
            .map_err(|error| FolderError::Damaged { path: "list.json".to_owned(), why: error.to_string() })?;
        run.put(&format!("undo/{number}/list.json"), &text)
    }

    /// Makes a new folder in the run's and writes the list to it.
    pub(crate) fn begin(run: &Folder, record: &Record) -> Result<Kept, FolderError> {
        let path = run.path().join("undo");
        let fail = |error| FolderError::system("make", &path, error);
        match rustix::fs::mkdirat(run.fd(), "undo", Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(fail(error)),
        }
        let all = fd::child(run.fd(), "undo".as_ref()).map_err(fail)?;
        let next = last(&all).map_err(fail)?.map_or(1, |(number, _)| number + 1);
        rustix::fs::mkdirat(&all, next.to_string(), Mode::RWXU).map_err(fail)?;
        record.write(run, next)?;
        let folder = fd::child(all.as_fd(), next.to_string().as_ref()).map_err(fail)?;
        Ok(Kept { folder, number: next })
    }
}

/// What came of an undo.
#[derive(Debug, Default)]
pub struct Restored {
    /// When the undone commit was made, nanoseconds since 1970; absent when there was none.
    pub of_unix_ns: Option<i64>,
    /// Paths brought back.
    pub done: Vec<Relative>,
    /// Paths that are not what the commit left there, with the reason; they stay, and what it replaced stays kept.
    pub left: Vec<(Relative, String)>,
}

/// Undoes the last commit of a run that was not undone yet.
///
/// # Errors
/// When the record cannot be read. What could not be brought back is in [`Restored::left`].
pub fn undo(run: &Folder) -> Result<Restored, FolderError> {
    let path = run.path().join("undo");
    let fail = |error| FolderError::system("read", &path, error);
    let all = match fd::child(run.fd(), "undo".as_ref()) {
        Err(Errno::NOENT) => return Ok(Restored::default()),
        opened => opened.map_err(fail)?,
    };
    let Some((_, name)) = last(&all).map_err(fail)? else { return Ok(Restored::default()) };
    let kept = fd::child(all.as_fd(), &name).map_err(fail)?;
    let damaged = |why: String| FolderError::Damaged { path: super::name::shown_path(&path.join(&name)), why };
    let text = run.take(&format!("undo/{}/list.json", name.to_string_lossy()), LIST_BYTES_MAX)?;
    let record: Record = match text {
        Some(text) => serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?,
        // Stopped before the list was written: nothing had been done.
        None => Record::default(),
    };
    let mut restored = Restored { of_unix_ns: Some(record.at_unix_ns), ..Restored::default() };
    for entry in record.entries.iter().rev() {
        let path = relative(&entry.path).ok_or_else(|| damaged("a path in the list is none".to_owned()))?;
        match bring_back(run, &kept, &path, &entry.way) {
            Ok(Outcome::Done) => restored.done.push(path),
            Ok(Outcome::Nothing) => {}
            Ok(Outcome::Left(why)) => restored.left.push((path, why.to_owned())),
            Err(error) => restored.left.push((path, error.to_string())),
        }
    }
    note_restored(run, &restored.done);
    if restored.left.is_empty() {
        fd::remove_tree(all.as_fd(), &name).map_err(fail)?;
        let _ = rustix::fs::unlinkat(run.fd(), "undo", AtFlags::REMOVEDIR);
    }
    Ok(restored)
}

enum Outcome {
    Done,
    /// The commit had not come to this, or it was brought back before.
    Nothing,
    Left(&'static str),
}

fn bring_back(run: &Folder, kept: &OwnedFd, path: &Relative, way: &Way) -> Result<Outcome, StepError> {
    const OTHER: &str = "changed since the commit";
    let (parent, name) = path.split().ok_or(StepError::Layer)?;
    let folder = match fd::below(run.workspace(), &parent) {
        Err(Errno::NOENT) => return Ok(Outcome::Left("the folder that it lay in is gone")),
        opened => opened?,
    };
    let now = fd::stamp(folder.as_fd(), name)?;
    let temporary = OsString::from(format!(".creel-undo-{}", rustix::process::getpid()));
    let stands = |number: u64| fd::stamp(kept.as_fd(), number.to_string().as_ref());
    Ok(match way {
        Way::Put { ours, kept: number } => {
            let ours_stands = now.as_ref().is_some_and(|now| Mark::of(now) == *ours);
            match number {
                None if now.is_none() => Outcome::Nothing,
                None if !ours_stands => Outcome::Left(OTHER),
                None => {
                    rustix::fs::unlinkat(&folder, name, AtFlags::empty())?;
                    Outcome::Done
                }
                Some(number) if stands(*number)?.is_none() => Outcome::Nothing,
                Some(_) if !ours_stands => Outcome::Left(OTHER),
                Some(number) => {
                    bring(kept, *number, &folder, &temporary)?;
                    match rustix::fs::renameat_with(&folder, &temporary, &folder, name, RenameFlags::EXCHANGE) {
                        Ok(()) => rustix::fs::unlinkat(&folder, &temporary, AtFlags::empty())?,
                        Err(_) => rustix::fs::renameat(&folder, &temporary, &folder, name)?,
                    }
                    Outcome::Done
                }
            }
        }
        Way::Removed { kept: number, .. } if stands(*number)?.is_none() => Outcome::Nothing,
        Way::Removed { .. } if now.is_some() => Outcome::Left("something new stands there"),
        Way::Removed { kept: number, .. } => {
            bring(kept, *number, &folder, &temporary)?;
            if put_new(&folder, &temporary, name)? {
                rustix::fs::renameat(&folder, &temporary, kept, number.to_string())?;
                return Ok(Outcome::Left("something new stands there"));
            }
            Outcome::Done
        }
        Way::RemovedFolder { .. } if now.is_some() => Outcome::Nothing,
        Way::RemovedFolder { permissions } => {
            rustix::fs::mkdirat(&folder, name, Mode::RWXU)?;
            fd::set_mode(folder.as_fd(), name, *permissions)?;
            Outcome::Done
        }
        Way::MadeFolder => match rustix::fs::unlinkat(&folder, name, AtFlags::REMOVEDIR) {
            Ok(()) => Outcome::Done,
            Err(Errno::NOENT) => Outcome::Nothing,
            Err(Errno::NOTEMPTY | Errno::EXIST) => Outcome::Left("it holds something new"),
            Err(Errno::NOTDIR) => Outcome::Left(OTHER),
            Err(error) => return Err(error.into()),
        },
        Way::Permissions { before, ours } => match now {
            Some(now) if now.permissions() == *before => Outcome::Nothing,
            Some(now) if now.permissions() == *ours => {
                fd::set_mode(folder.as_fd(), name, *before)?;
                Outcome::Done
            }
            _ => Outcome::Left(OTHER),
        },
    })
}

/// Moves a kept thing beside its old place.
fn bring(kept: &OwnedFd, number: u64, folder: &OwnedFd, temporary: &OsString) -> Result<(), StepError> {
    let number = OsString::from(number.to_string());
    let _ = rustix::fs::unlinkat(folder, temporary, AtFlags::empty());
    match rustix::fs::renameat(kept, &number, folder, temporary) {
        Ok(()) => Ok(()),
        Err(Errno::XDEV) => {
            copy_away(kept, &number, folder, temporary)?;
            Ok(rustix::fs::unlinkat(kept, &number, AtFlags::empty())?)
        }
        Err(error) => Err(error.into()),
    }
}

/// The last commit's folder.
fn last(all: &OwnedFd) -> rustix::io::Result<Option<(u64, OsString)>> {
    let names = fd::names(all.as_fd(), COMMITS_MAX)?.ok_or(Errno::TOOBIG)?;
    let number = |name: OsString| Some((name.to_str()?.parse::<u64>().ok()?, name));
    Ok(names.into_iter().filter_map(number).max())
}

fn relative(digits: &str) -> Option<Relative> {
    use std::os::unix::ffi::OsStringExt as _;
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
    Relative::parse(std::path::Path::new(&OsString::from_vec(bytes?)))
}
