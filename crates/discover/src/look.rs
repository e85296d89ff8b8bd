//! Paths that an action names → what they mean on this machine right now.
//!
//! Used before every decision, so it takes a few microseconds per path: a descriptor that opens nothing, a look, the
//! kernel's own name for it. Files are read only for the digest of a script. What is true here can change before the
//! agent acts; a seal or a cage holds that, not a look.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use creel_model::Digest;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::read::{path_of, reopen};

/// The most paths in one look; further ones are left out, and what is left out counts as unknown.
pub const PATHS_MAX: usize = 64;
/// The largest script that is digested, in bytes.
pub const SCRIPT_BYTES_MAX: u64 = 4 * 1024 * 1024;
const LINKS_MAX: usize = 40;
const PATH_BYTES_MAX: usize = 4096;

/// What a path means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    /// The path after all symbolic links, also where its end does not exist yet; `None` where it cannot be known (a
    /// loop, no permission on the way, no absolute path).
    pub resolved: Option<String>,
    /// Something is there.
    pub exists: bool,
    /// It is a folder.
    pub is_dir: bool,
    /// More than one name leads to this file (hard links), so that its path does not tell everything.
    #[serde(default)]
    pub linked: bool,
    /// The digest of the content; only where it was asked for, and the file is regular and not too large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// Looks at absolute paths with the rights of the calling thread. Those also in `scripts` are digested.
#[must_use]
pub fn resolve(paths: &[String], scripts: &BTreeSet<String>) -> BTreeMap<String, Looked> {
    let unique: BTreeSet<&String> = paths.iter().chain(scripts).collect();
    unique.into_iter().take(PATHS_MAX).map(|path| (path.clone(), look(path, scripts.contains(path)))).collect()
}

/// Looks at one path.
#[must_use]
pub fn look(path: &str, with_digest: bool) -> Looked {
    let mut current = path.to_owned();
    for _ in 0..LINKS_MAX {
        if !current.starts_with('/') || current.len() > PATH_BYTES_MAX || current.contains('\0') {
            return Looked::default();
        }
        match rustix::fs::openat(CWD, current.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => {
                let Ok(stat) = rustix::fs::fstat(&fd) else { return Looked::default() };
                let kind = FileType::from_raw_mode(stat.st_mode);
                let digest = (with_digest && kind == FileType::RegularFile).then(|| digest(&fd)).flatten();
                return Looked {
                    resolved: path_of(&fd),
                    exists: true,
                    is_dir: kind == FileType::Directory,
                    linked: kind == FileType::RegularFile && stat.st_nlink > 1,
                    digest,
                };
            }
            Err(Errno::NOENT | Errno::NOTDIR) => match missing(&current) {
                Missing::At(resolved) => return Looked { resolved: Some(resolved), ..Looked::default() },
                Missing::Through(target) => current = target,
                Missing::Unknown => return Looked::default(),
            },
            Err(_) => return Looked::default(),
        }
    }
    Looked::default()
}

enum Missing {
    /// The nearest existing folder, resolved, with the rest of the path.
    At(String),
    /// The first missing part is a symbolic link to nowhere: look there instead.
    Through(String),
    Unknown,
}

/// What a path means whose end does not exist.
fn missing(path: &str) -> Missing {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    for kept in (0..parts.len()).rev() {
        let (above, below) = parts.split_at(kept);
        let above = format!("/{}", above.join("/"));
        let Ok(folder) = rustix::fs::openat(CWD, above.as_str(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else {
            continue;
        };
        let Some(real) = path_of(&folder) else { return Missing::Unknown };
        let Some((first, rest)) = below.split_first() else { return Missing::Unknown };
        if let Ok(target) = rustix::fs::readlinkat(&folder, *first, Vec::new()) {
            let Ok(target) = target.into_string() else { return Missing::Unknown };
            let target = if target.starts_with('/') { target } else { format!("{real}/{target}") };
            return Missing::Through([target.as_str()].iter().chain(rest).copied().collect::<Vec<_>>().join("/"));
        }
        let there = rustix::fs::statat(&folder, *first, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        if there && !rest.is_empty() {
            // A file stands where a folder is needed: nothing can come to be below it as it is.
            return Missing::At(creel_catalog::process::absolute(&real, &below.join("/")));
        }
        // The rest does not exist, so `..` in it has nothing to lead through but what is written.
        return Missing::At(creel_catalog::process::absolute(&real, &below.join("/")));
    }
    Missing::Unknown
}

/// The SHA-256 of a regular file's content; `None` where it is too large or cannot be read.
fn digest(fd: &rustix::fd::OwnedFd) -> Option<Digest> {
    let mut file = reopen(fd).ok()?;
    digest_of(&mut file, SCRIPT_BYTES_MAX)
}

pub(crate) fn digest_of(file: &mut std::fs::File, bytes_max: u64) -> Option<Digest> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0_u8; 64 * 1024];
    let mut total: u64 = 0;
    loop {
        let read = file.read(&mut buffer).ok()?;
        if read == 0 {
            return Some(Digest::from_bytes(&hash.finalize().into()));
        }
        total += read as u64;
        if total > bytes_max {
            return None;
        }
        hash.update(buffer.get(..read)?);
    }
}

/// The SHA-256 of bytes.
#[must_use]
pub fn digest_bytes(bytes: &[u8]) -> Digest {
    Digest::from_bytes(&Sha256::digest(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn text(path: &std::path::Path) -> String {
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn links_missing_ends_and_loops() {
        let folder = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(folder.path()).unwrap();
        std::fs::create_dir_all(root.join("real/sub")).unwrap();
        std::fs::write(root.join("real/file"), "x").unwrap();
        symlink(root.join("real"), root.join("link")).unwrap();
        symlink("real/not-yet", root.join("dangling")).unwrap();
        symlink("loop-b", root.join("loop-a")).unwrap();
        symlink("loop-a", root.join("loop-b")).unwrap();
        let check = |path: &str, resolved: Option<&str>, exists: bool, is_dir: bool| {
            let looked = look(&text(&root.join(path)), false);
            let resolved = resolved.map(|path| text(&root.join(path)));
            assert_eq!((looked.resolved, looked.exists, looked.is_dir), (resolved, exists, is_dir), "{path}");
        };
        check("link/file", Some("real/file"), true, false);
        check("link/sub", Some("real/sub"), true, true);
        check("link/new/deep", Some("real/new/deep"), false, false);
        check("dangling", Some("real/not-yet"), false, false);
        check("dangling/below", Some("real/not-yet/below"), false, false);
        check("link/new/../other", Some("real/other"), false, false);
        check("real/file/below", Some("real/file/below"), false, false);
        check("loop-a", None, false, false);
        check("loop-a/x", None, false, false);
        assert_eq!(look("relative", false), Looked::default());
        assert_eq!(look("/a\0b", false), Looked::default());
    }

    #[test]
    fn digests_only_of_regular_files() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("s.sh");
        std::fs::write(&script, "echo").unwrap();
        std::fs::hard_link(&script, folder.path().join("other")).unwrap();
        let looked = look(&text(&script), true);
        assert_eq!(looked.digest, Some(digest_bytes(b"echo")));
        assert!(looked.linked);
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let looked = look(&text(&fifo), true);
        assert!(looked.exists && looked.digest.is_none());
        let large = std::fs::File::create(folder.path().join("large")).unwrap();
        large.set_len(SCRIPT_BYTES_MAX + 1).unwrap();
        assert_eq!(look(&text(&folder.path().join("large")), true).digest, None);
        let many: Vec<String> = (0..100).map(|n| format!("/none/{n}")).collect();
        assert_eq!(resolve(&many, &BTreeSet::new()).len(), PATHS_MAX);
    }
}
