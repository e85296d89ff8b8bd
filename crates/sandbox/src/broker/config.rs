//! Contents that the broker writes itself: git configurations that passed the gate, and granted files that programs
//! replace by renaming.
//!
//! The one fact a newcomer gets wrong: the file that was judged is never the file that stays. Whoever wrote it may still
//! hold it open, so its bytes are written into another one that nobody else has.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::caller::Call;
use super::judge::{Verdict, holds};
use super::names::names;
use super::path::Place;
use super::{Broker, Done, Outcome, Why, as_path, join};
use crate::gitconfig::{self, GitConfig};
use crate::seal::above;
use crate::seal::name::fold;

/// Largest configuration, in bytes.
const CONFIG_BYTES: usize = 262_144;
/// Largest file that a rename puts into a granted one, in bytes.
const REPLACED_BYTES: u64 = 256 * 1024 * 1024;

const HOLD: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Broker {
    /// A file is renamed onto a git configuration.
    pub(super) fn rename_config(
        &mut self,
        call: &Call,
        (from, source): (&Place, &OwnedFd),
        (to, path): (&Place, &[u8]),
        flags: RenameFlags,
        rule: &str,
    ) -> Done {
        let present = match rustix::fs::openat(&to.folder, to.name.as_slice(), HOLD, Mode::empty()) {
            Err(Errno::NOENT) => None,
            other => Some(other?),
        };
        if present.is_some() && flags.contains(RenameFlags::NOREPLACE) {
            return Err(Errno::EXIST);
        }
        let about = rustix::fs::fstat(source)?;
        let new = self.content(source)?;
        let old = match &present {
            Some(present) => self.content(present)?,
            None => Vec::new(),
        };
        if let Err(reason) = self.gate(&old, &new, above(path)) {
            let why = Why {
                rule,
                reason: &reason,
                fix: "let a person make this change with `git config`, outside of the cage",
            };
            return Err(self.refuse(call, "rename", path, &why, Errno::PERM));
        }
        let bound = match &present {
            Some(present) => {
                let about = rustix::fs::fstat(present)?;
                self.configs.get(&(about.st_dev, about.st_ino))
            }
            None => None,
        };
        match bound {
            // Bound read-only: it cannot be replaced, only written, through what was held before the binding. Written
            // first and cut afterwards, in one piece each, so that a reader sees little that was never meant.
            Some(object) => {
                let file = self.again(object, OFlags::WRONLY)?;
                let length = u64::try_from(new.len()).unwrap_or(u64::MAX);
                make_room(&file, length)?;
                write_all(&file, &new)?;
                rustix::fs::ftruncate(&file, length)?;
            }
            None => self.fresh(&to.folder, &to.name, &new, about.st_mode & 0o777)?,
        }
        rustix::fs::unlinkat(&from.folder, from.name.as_slice(), AtFlags::empty())?;
        Ok(Outcome::Value(0))
    }

    /// A file is renamed onto a granted one, which is a mount and cannot be replaced: its content is.
    pub(super) fn replace_content(&mut self, from: &Place, to: &Place) -> Done {
        let source = rustix::fs::openat(&from.folder, from.name.as_slice(), HOLD, Mode::empty())?;
        let about = rustix::fs::fstat(&source)?;
        if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile {
            return Err(Errno::BUSY);
        }
        if u64::try_from(about.st_size).unwrap_or(u64::MAX) > REPLACED_BYTES {
            return Err(Errno::FBIG);
        }
        let target = rustix::fs::openat(&to.folder, to.name.as_slice(), HOLD, Mode::empty())?;
        let target = self.again(&target, OFlags::WRONLY)?;
        make_room(&target, u64::try_from(about.st_size).unwrap_or(u64::MAX))?;
        let source = self.again(&source, OFlags::RDONLY)?;
        let mut buffer = vec![0; 65536];
        let mut total = 0u64;
        loop {
            let read = rustix::io::read(&source, &mut buffer)?;
            if read == 0 {
                break;
            }
            total += u64::try_from(read).unwrap_or(u64::MAX);
            if total > REPLACED_BYTES {
                return Err(Errno::FBIG);
            }
            write_all(&target, buffer.get(..read).unwrap_or_default())?;
        }
        rustix::fs::ftruncate(&target, total)?;
        rustix::fs::unlinkat(&from.folder, from.name.as_slice(), AtFlags::empty())?;
        Ok(Outcome::Value(0))
    }

    /// `name` is about to be made in `folder`: if that makes it a repository, it must be fit for one.
    pub(super) fn complete(&mut self, call: &Call, folder: &OwnedFd, path: &[u8], name: &[u8]) -> Result<(), Errno> {
        if self.judge(path, name) == Verdict::Private || Self::is_repository(folder, path)? {
            return Ok(());
        }
        let completes = match fold(name).as_ref() {
            b"objects" => holds(folder, "refs")?,
            b"refs" => holds(folder, "objects")?,
            _ => true,
        };
        if completes { self.fit_for_repository(call, folder, path) } else { Ok(()) }
    }

    /// A folder becomes a repository: nothing may lie in it that git would execute. Its configurations are written anew.
    pub(super) fn fit_for_repository(&mut self, call: &Call, folder: &OwnedFd, path: &[u8]) -> Result<(), Errno> {
        let kind = |name: &str| match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(about) => Ok(Some(FileType::from_raw_mode(about.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            // What cannot be looked at may hold anything.
            Err(error) => Err(error),
        };
        match kind("hooks")? {
            None => {}
            Some(FileType::Directory) => {
                let hooks = rustix::fs::openat(folder, "hooks", HOLD, Mode::empty())?;
                let mut budget = 1000;
                if names(&hooks, &mut budget)?.iter().any(|(name, _)| !name.ends_with(b".sample")) {
                    return Err(self.refuse_repository(call, path, "it would become a repository with hooks"));
                }
            }
            Some(_) => return Err(self.refuse_repository(call, path, "its hooks are not a directory")),
        }
        match kind("info")? {
            None => {}
            Some(FileType::Directory) if kind("info/attributes")?.is_none() => {}
            Some(_) => {
                return Err(self.refuse_repository(call, path, "it would become a repository with attributes"));
            }
        }
        for name in ["config", "config.worktree"] {
            match kind(name)? {
                None => {}
                Some(FileType::RegularFile) => {
                    let object = rustix::fs::openat(folder, name, HOLD, Mode::empty())?;
                    let text = self.content(&object)?;
                    if let Err(reason) = self.gate(b"", &text, path) {
                        return Err(self.refuse_repository(call, &join(path, name.as_bytes()), &reason));
                    }
                    let mode = rustix::fs::fstat(&object)?.st_mode & 0o777;
                    self.fresh(folder, name.as_bytes(), &text, mode)?;
                }
                Some(_) => return Err(self.refuse_repository(call, path, "its configuration is not a file")),
            }
        }
        Ok(())
    }

    fn gate(&self, old: &[u8], new: &[u8], folder: &[u8]) -> Result<(), String> {
        // What was there before and is not understood cannot be compared with.
        let old = GitConfig::parse(old).map_err(|error| format!("the present configuration: {error}"))?;
        let new = GitConfig::parse(new).map_err(|error| error.to_string())?;
        let place = gitconfig::Place { folder: as_path(folder), roots: &self.roots };
        gitconfig::gate(&old, &new, place).map_err(|refused| refused.to_string())
    }

    /// All of a small file.
    fn content(&self, object: &OwnedFd) -> Result<Vec<u8>, Errno> {
        let about = rustix::fs::fstat(object)?;
        if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile {
            return Err(Errno::PERM);
        }
        let file = self.again(object, OFlags::RDONLY)?;
        let mut text = vec![0; CONFIG_BYTES + 1];
        let mut length = 0;
        loop {
            let rest = text.get_mut(length..).unwrap_or_default();
            if rest.is_empty() {
                return Err(Errno::FBIG);
            }
            match rustix::io::read(&file, rest)? {
                0 => break,
                read => length += read,
            }
        }
        text.truncate(length);
        Ok(text)
    }

    /// Puts a new file with these bytes under a name. It is written under a passing name, which nobody else can open for
    /// writing: that, too, would come through here.
    fn fresh(&mut self, folder: &OwnedFd, name: &[u8], bytes: &[u8], mode: u32) -> Result<(), Errno> {
        self.counter = self.counter.wrapping_add(1);
        let mut passing = name.to_vec();
        passing.extend_from_slice(format!(".creel-{}-{}", std::process::id(), self.counter).as_bytes());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, passing.as_slice(), flags, Mode::from_raw_mode(0o600))?;
        let written = write_all(&file, bytes)
            .and_then(|()| rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)))
            .and_then(|()| rustix::fs::renameat(folder, passing.as_slice(), folder, name));
        if written.is_err() {
            // The error that counts is the first one.
            let _ = rustix::fs::unlinkat(folder, passing.as_slice(), AtFlags::empty());
        }
        written
    }
}

/// Makes sure that a file can grow to a length before its content is touched: a full disk must not cost the old content.
fn make_room(file: &OwnedFd, length: u64) -> Result<(), Errno> {
    if length == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, length) {
        // Not every file system can promise room.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) | Ok(()) => Ok(()),
        Err(error) => Err(error),
    }
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
