//! Writing, reading and putting back one managed file.
//!
//! The order of a write: what was there is kept and made durable, a new file is written beside the target and made
//! durable, then takes the target's name at once, then the folder is made durable. A crash leaves the old file or the
//! new one, never half of one, and always the means to undo. Folders are opened step by step without following links.

use std::io::Write as _;
use std::os::fd::OwnedFd;

use creel_catalog::Content;
use creel_catalog::document::FILE_BYTES_MAX;
use creel_model::Digest;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::{Managed, Refusal, Undo};
use crate::look::digest_bytes;
use crate::read::content;

/// The largest kept undo in bytes: a managed file's text, escaped at worst, and a few words.
const UNDO_BYTES_MAX: usize = 8 * FILE_BYTES_MAX;

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// One file that creel may write, and where its undo is kept.
pub(super) struct ManagedFile {
    /// The folder that is trusted as it is: the machine's root or a home folder.
    pub(super) base: OwnedFd,
    /// Folders below it, outermost first.
    pub(super) folders: Vec<String>,
    /// The file's name.
    pub(super) name: String,
    /// The whole path, for people.
    pub(super) path: String,
    /// Permission bits of a new file; an existing one in a home folder keeps its own where these are 0600.
    pub(super) mode: u32,
    /// The file that keeps the undo: folder and name.
    pub(super) undo: (std::path::PathBuf, String),
}

impl ManagedFile {
    pub(super) fn read(&self) -> Result<Managed, Refusal> {
        let (text, _) = match self.folder(false)? {
            Some((folder, _)) => self.now(&folder)?,
            None => (None, None),
        };
        let digest = text.as_ref().map(|text| digest_bytes(text.as_bytes()));
        Ok(Managed { path: self.path.clone(), text, digest, undo: self.kept()? })
    }

    pub(super) fn write(
        &self,
        text: &str,
        expected: Option<&Digest>,
        instead: Option<&str>,
    ) -> Result<Option<Digest>, Refusal> {
        if text.len() > FILE_BYTES_MAX {
            return Err(Refusal::TooMuch(format!("{} bytes, at most {FILE_BYTES_MAX}", text.len())));
        }
        let kept = self.kept()?;
        // First only looked at: a refused write leaves no folders behind.
        let before = match self.folder(false)? {
            Some((folder, _)) => self.now(&folder)?,
            None => (None, None),
        };
        let found = before.0.as_ref().map(|text| digest_bytes(text.as_bytes()));
        if found.as_ref() != expected {
            return Err(Refusal::Changed(found));
        }
        let existed = before.1.is_some();
        let (mode, owner, group) = before.1.unwrap_or((0o644, u32::MAX, u32::MAX));
        let Some((folder, made)) = self.folder(true)? else { return Err(Refusal::Failed("no folder".to_owned())) };
        let written = digest_bytes(text.as_bytes());
        // The second write keeps what stood there before the first.
        let undo = match kept {
            Some(undo) => Undo { written: written.clone(), ..undo },
            None => Undo { before: before.0, mode, owner, group, folders_made: made, written: written.clone() },
        };
        let undo = match instead {
            Some(text) => Undo { before: Some(text.to_owned()), ..undo },
            None => undo,
        };
        self.keep(&undo)?;
        let mode = if existed && self.mode == 0o600 { mode & 0o777 } else { self.mode };
        self.replace(&folder, text, mode, None)?;
        Ok(Some(written))
    }

    pub(super) fn remove(&self) -> Result<Option<Digest>, Refusal> {
        let undo = self.kept()?.ok_or(Refusal::NotOurs)?;
        let folder = self.folder(false)?;
        let now = match &folder {
            Some((folder, _)) => self.now(folder)?.0,
            None => None,
        };
        let found = now.as_ref().map(|text| digest_bytes(text.as_bytes()));
        let as_before = undo.before.as_ref().map(|text| digest_bytes(text.as_bytes()));
        // A crash between keeping and replacing leaves what was there before: then there is nothing left to do.
        if found.as_ref() != Some(&undo.written) && found != as_before {
            return Err(Refusal::Changed(found));
        }
        if found != as_before {
            let Some((folder, _)) = &folder else { return Err(Refusal::Changed(found)) };
            match &undo.before {
                Some(text) => self.replace(folder, text, undo.mode, Some((undo.owner, undo.group)))?,
                None => {
                    rustix::fs::unlinkat(folder, self.name.as_str(), AtFlags::empty()).map_err(failed)?;
                    rustix::fs::fsync(folder).map_err(failed)?;
                }
            }
        }
        self.remove_folders(&undo.folders_made);
        self.forget()?;
        Ok(as_before)
    }

    /// Drops what is kept for the undo.
    pub(super) fn forget(&self) -> Result<(), Refusal> {
        std::fs::remove_file(self.undo.0.join(&self.undo.1)).map_err(|error| Refusal::Failed(error.to_string()))
    }

    /// The folder of the file, opened step by step; with `make`, missing ones are made (mode 0755) and named.
    fn folder(&self, make: bool) -> Result<Option<(OwnedFd, Vec<String>)>, Refusal> {
        let mut made = Vec::new();
        let mut current =
            rustix::fs::openat(&self.base, ".", FOLDER | OFlags::RDONLY, Mode::empty()).map_err(failed)?;
        for name in &self.folders {
            let open = || rustix::fs::openat(&current, name.as_str(), FOLDER | OFlags::RDONLY, Mode::empty());
            let next = match open() {
                Err(Errno::NOENT) if make => {
                    rustix::fs::mkdirat(&current, name.as_str(), Mode::from_raw_mode(0o755)).map_err(failed)?;
                    made.push(name.clone());
                    open()
                }
                Err(Errno::NOENT) => return Ok(None),
                other => other,
            };
            current = match next {
                Ok(folder) => folder,
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    return Err(Refusal::NotAFile(format!("link or file `{name}` on the way")));
                }
                Err(error) => return Err(failed(error)),
            };
        }
        Ok(Some((current, made)))
    }

    /// The text that is there now, with mode, owner and group.
    #[expect(clippy::type_complexity, reason = "text and rights of one file, used here only")]
    fn now(&self, folder: &OwnedFd) -> Result<(Option<String>, Option<(u32, u32, u32)>), Refusal> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(folder, self.name.as_str(), flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok((None, None)),
            Err(error) => return Err(failed(error)),
        };
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        match content(&fd, &stat, FILE_BYTES_MAX) {
            Content::Text(text) => Ok((Some(text), Some((stat.st_mode & 0o7777, stat.st_uid, stat.st_gid)))),
            Content::NotAFile(what) => Err(Refusal::NotAFile(format!("{what} `{}`", self.below_base()))),
            Content::TooLarge(size) => {
                Err(Refusal::TooMuch(format!("{size} bytes are there, in `{}`", self.below_base())))
            }
            Content::Unreadable(why) => Err(Refusal::Failed(format!("`{}`: {why}", self.below_base()))),
            Content::NotText => Err(Refusal::NotAFile(format!("file `{}` that is not text", self.below_base()))),
        }
    }

    /// Which file it is, for messages.
    fn below_base(&self) -> String {
        let parts: Vec<&str> = self.folders.iter().map(String::as_str).chain([self.name.as_str()]).collect();
        parts.join("/")
    }

    /// Puts a text in place of what is there, at once.
    fn replace(&self, folder: &OwnedFd, text: &str, mode: u32, owner: Option<(u32, u32)>) -> Result<(), Refusal> {
        let beside = format!(".{}.creel-new", self.name);
        // What a crash left behind, or a link that somebody put there to be written through: gone either way.
        match rustix::fs::unlinkat(folder, beside.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(error)),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(folder, beside.as_str(), flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
        let write = || -> Result<(), Refusal> {
            let mut file = std::fs::File::from(fd.try_clone().map_err(|error| Refusal::Failed(error.to_string()))?);
            file.write_all(text.as_bytes()).map_err(|error| Refusal::Failed(error.to_string()))?;
            if let Some((uid, gid)) = owner.filter(|_| rustix::process::geteuid().is_root()) {
                rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).map_err(failed)?;
            }
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).map_err(failed)?;
            rustix::fs::fsync(&fd).map_err(failed)?;
            // A folder that took the name meanwhile makes this fail; a link is replaced, not followed.
            rustix::fs::renameat(folder, beside.as_str(), folder, self.name.as_str()).map_err(failed)
        };
        if let Err(refusal) = write() {
            let _ = rustix::fs::unlinkat(folder, beside.as_str(), AtFlags::empty());
            return Err(refusal);
        }
        rustix::fs::fsync(folder).map_err(failed)
    }

    /// What is kept for the undo; `None` where creel never wrote this file.
    fn kept(&self) -> Result<Option<Undo>, Refusal> {
        let path = self.undo.0.join(&self.undo.1);
        let refused = |why: String| Refusal::Failed(format!("{}: {why}", path.display()));
        // In a home folder anything may stand there: a FIFO that is never written, a link to something endless.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(rustix::fs::CWD, &path, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(refused(std::io::Error::from(error).to_string())),
        };
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        match content(&fd, &stat, UNDO_BYTES_MAX) {
            Content::Text(text) => serde_json::from_str(&text).map(Some).map_err(|error| refused(error.to_string())),
            Content::NotAFile(what) => Err(Refusal::NotAFile(what)),
            Content::TooLarge(size) => Err(Refusal::TooMuch(format!("an undo of {size} bytes"))),
            Content::Unreadable(why) => Err(refused(why)),
            Content::NotText => Err(refused("not text".to_owned())),
        }
    }

    fn keep(&self, undo: &Undo) -> Result<(), Refusal> {
        use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
        let failed = |error: std::io::Error| Refusal::Failed(format!("the undo cannot be kept: {error}"));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.undo.0).map_err(failed)?;
        let bytes = serde_json::to_vec_pretty(undo).map_err(|error| failed(error.into()))?;
        let beside = self.undo.0.join(format!("{}.new", self.undo.1));
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside).map_err(failed)?;
        file.write_all(&bytes).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        std::fs::rename(&beside, self.undo.0.join(&self.undo.1)).map_err(failed)?;
        std::fs::File::open(&self.undo.0).and_then(|folder| folder.sync_all()).map_err(failed)
    }

    /// Removes folders that creel made, as far as they are empty.
    fn remove_folders(&self, made: &[String]) {
        let first = self.folders.len().saturating_sub(made.len());
        for depth in (first..self.folders.len()).rev() {
            let Some((name, above)) = self.folders.get(..=depth).and_then(<[String]>::split_last) else { return };
            let above = Self {
                base: match self.base.try_clone() {
                    Ok(base) => base,
                    Err(_) => return,
                },
                folders: above.to_vec(),
                name: String::new(),
                path: String::new(),
                mode: 0,
                undo: self.undo.clone(),
            };
            let Ok(Some((folder, _))) = above.folder(false) else { return };
            if rustix::fs::unlinkat(&folder, name.as_str(), AtFlags::REMOVEDIR).is_err() {
                return;
            }
        }
    }
}

/// Whether a name may stand for a file of ours in a folder: letters, digits, `-`, `_`, `.`, no dot first.
pub(super) fn is_plain_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= 64 && !name.starts_with('.') && name.bytes().all(plain)
}

fn failed(error: Errno) -> Refusal {
    Refusal::Failed(std::io::Error::from(error).to_string())
}
