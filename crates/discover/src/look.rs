//! Paths that an action names → what they mean on this machine right now.
//!
//! Used before every decision, so it takes a few microseconds per path: a descriptor that opens nothing, a look, the
//! kernel's own name for it. Files are read only for the digest of a script. What is true here can change before the
//! agent acts; a seal or a cage holds that, not a look.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use creel_model::Digest;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
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
    /// It leads through the view of whichever process opens it (`/proc/self/cwd`), so that what it means to us is not
    /// what it means to the agent.
    #[serde(default)]
    pub of_process: bool,
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
        match open(&current) {
            Ok(fd) => {
                let Ok(stat) = rustix::fs::fstat(&fd) else { return Looked::default() };
                let kind = FileType::from_raw_mode(stat.st_mode);
                let digest = (with_digest && kind == FileType::RegularFile).then(|| digest(&fd)).flatten();
                return Looked {
                    resolved: path_of(&fd),
                    exists: true,
                    is_dir: kind == FileType::Directory,
                    linked: kind == FileType::RegularFile && stat.st_nlink > 1,
                    of_process: false,
                    digest,
                };
            }
            Err(NotOpened::OfProcess) => return Looked { of_process: true, ..Looked::default() },
            Err(NotOpened::Because(Errno::NOENT | Errno::NOTDIR)) => match missing(&current) {
                Missing::At(resolved) => return Looked { resolved: Some(resolved), ..Looked::default() },
                Missing::Through(target) => current = target,
                Missing::OfProcess => return Looked { of_process: true, ..Looked::default() },
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
    OfProcess,
    Unknown,
}

enum NotOpened {
    /// The path leads through a link that the kernel makes up for the process that follows it.
    OfProcess,
    Because(Errno),
}

/// A descriptor that opens nothing. Links that stand for something else in every process are not followed, but for
/// those of a stated process (`/proc/7/root`), the machine's root, and single open files and programs.
fn open(path: &str) -> Result<OwnedFd, NotOpened> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let plain = |path: &str| rustix::fs::openat(CWD, path, flags, Mode::empty());
    match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        Ok(fd) => Ok(fd),
        Err(Errno::LOOP) => match plain(path) {
            Err(Errno::LOOP) => Err(NotOpened::Because(Errno::LOOP)),
            opened if is_same_for_all(path) => opened.map_err(NotOpened::Because),
            _ => Err(NotOpened::OfProcess),
        },
        // A kernel or filter without this call (before Linux 5.6): as well as it can be done.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => plain(path).map_err(NotOpened::Because),
        Err(error) => Err(NotOpened::Because(error)),
    }
}

/// Whether a path through a process' links means the same to us as to the agent.
fn is_same_for_all(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    match parts.as_slice() {
        ["proc", "self" | "thread-self", "root", ..] => true,
        // What these are is another thing in each process, but never more than one file that is open or runs.
        ["proc", "self" | "thread-self", "exe"] | ["proc", "self" | "thread-self", "fd", _] => true,
        ["dev", "stdin" | "stdout" | "stderr"] | ["dev", "fd", _] => true,
        ["proc", process, ..] => process.bytes().all(|byte| byte.is_ascii_digit()),
        _ => false,
    }
}

/// What a path means whose end does not exist.
fn missing(path: &str) -> Missing {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    for kept in (0..parts.len()).rev() {
        let (above, below) = parts.split_at(kept);
        let above = format!("/{}", above.join("/"));
        let folder = match open(&above) {
            Ok(folder) => folder,
            Err(NotOpened::OfProcess) => return Missing::OfProcess,
            Err(NotOpened::Because(_)) => continue,
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
fn digest(fd: &OwnedFd) -> Option<Digest> {
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

    /// A repository may hold such a link: followed by us it leads somewhere else than followed by the agent.
    #[test]
    fn what_leads_through_the_asking_process_is_not_taken_for_ours() {
        let folder = tempfile::tempdir().unwrap();
        symlink("/proc/self/cwd/../.ssh", folder.path().join("docs")).unwrap();
        for path in ["docs/id_rsa", "docs", "docs/new/deep"] {
            let looked = look(&text(&folder.path().join(path)), false);
            assert!(looked.of_process && looked.resolved.is_none(), "{path}: {looked:?}");
        }
        assert!(look("/proc/self/cwd/../x", false).of_process);
        assert!(look("/proc/thread-self/cwd", true).of_process);
        assert!(look("//proc/./self/task/../cwd/y", false).of_process);
        assert_eq!(look("/proc/self/root/etc/", false).resolved.as_deref(), Some("/etc"));
        assert_eq!(look(&format!("/proc/{}/root/etc", std::process::id()), false).resolved.as_deref(), Some("/etc"));
        assert!(!look("/proc/self/status", false).of_process && !look("/proc/self/exe", false).of_process);
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
