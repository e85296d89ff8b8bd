//! A path of the plan to the object it names now, with the symbolic links on the way that the administrator made.
//!
//! It follows a link only when root owns both the link and its folder and nobody else may write there, because such
//! links are part of the system (`/bin` → `usr/bin`). Every other link is refused: whoever may write the folder could
//! turn a grant into one for something else. The one fact a newcomer gets wrong: nothing opened here is used for
//! mounting; it is opened again inside the cage's mount namespace, by its link-free path.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// Most links that are followed in one path, as in the kernel.
const MAX_LINKS: usize = 40;

/// What a path names.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The path without links.
    pub(crate) path: String,
    /// What lies there.
    pub(crate) stat: Stat,
    /// The links that were followed: where each lies (a path without links) and its text.
    pub(crate) links: Vec<(String, String)>,
}

impl Resolved {
    /// It is a directory.
    pub(crate) fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }
}

/// Why a path names nothing that can be granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unresolved {
    /// Nothing is there.
    #[error("it does not exist")]
    Missing,
    /// A link that others than root could change.
    #[error("`{0}` is a symbolic link that others than root may change; name what it points to")]
    Link(String),
    /// More links than any sane path has.
    #[error("it goes through more than {MAX_LINKS} symbolic links")]
    Loop,
    /// The path is not absolute, or holds `.`, `..` or a zero byte.
    #[error("it is not an absolute path without `.` and `..`")]
    Form,
    /// Anything else.
    #[error("{0}")]
    Other(Errno),
}

/// The components of an absolute path without `.`, `..`, empty components and zero bytes.
pub(crate) fn components(path: &str) -> Option<Vec<&str>> {
    let rest = path.strip_prefix('/')?;
    if rest.is_empty() {
        return Some(Vec::new());
    }
    let parts: Vec<&str> = rest.split('/').collect();
    let plain = |part: &&str| !part.is_empty() && **part != *"." && **part != *".." && !part.contains('\0');
    parts.iter().all(plain).then_some(parts)
}

/// Opens a path that must go through no link at all, as a place holder that can neither be read nor written.
///
/// # Errors
/// The kernel's; `ELOOP` for a link.
pub(crate) fn open_without_links(path: &str) -> Result<OwnedFd, Errno> {
    open_flags(path, OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW)
}

fn open_flags(path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(CWD, path, flags, Mode::empty(), resolve)
}

/// What `path` names.
///
/// # Errors
/// [`Unresolved`].
pub(crate) fn resolve(path: &str) -> Result<Resolved, Unresolved> {
    components(path).ok_or(Unresolved::Form)?;
    let mut path = path.to_owned();
    let mut links = Vec::new();
    for _ in 0..=MAX_LINKS {
        match open_without_links(&path) {
            Ok(object) => {
                let stat = rustix::fs::fstat(&object).map_err(Unresolved::Other)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                    return Ok(Resolved { path, stat, links });
                }
            }
            Err(Errno::LOOP) => {}
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(Unresolved::Missing),
            Err(errno) => return Err(Unresolved::Other(errno)),
        }
        path = through_first_link(&path, &mut links)?;
    }
    Err(Unresolved::Loop)
}

/// The path with its first link replaced by what that points to.
fn through_first_link(path: &str, links: &mut Vec<(String, String)>) -> Result<String, Unresolved> {
    let parts = components(path).ok_or(Unresolved::Form)?;
    let mut folder = open_flags("/", OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY).map_err(Unresolved::Other)?;
    let mut before = Vec::new();
    let mut rest = parts.into_iter();
    while let Some(part) = rest.next() {
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let next = match rustix::fs::openat(&folder, part, flags, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(Unresolved::Missing),
            Err(errno) => return Err(Unresolved::Other(errno)),
        };
        let stat = rustix::fs::fstat(&next).map_err(Unresolved::Other)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            before.push(part);
            folder = next;
            continue;
        }
        let here = join(&before, part);
        let around = rustix::fs::fstat(&folder).map_err(Unresolved::Other)?;
        if stat.st_uid != 0 || around.st_uid != 0 || around.st_mode & 0o022 != 0 {
            return Err(Unresolved::Link(here));
        }
        let text = rustix::fs::readlinkat(next.as_fd(), c"", Vec::new()).map_err(Unresolved::Other)?;
        let text = text.into_string().map_err(|_| Unresolved::Link(here.clone()))?;
        // What comes before has no links, so `..` can be taken off the text.
        let mut whole: Vec<&str> = if text.starts_with('/') { Vec::new() } else { before };
        for piece in text.split('/') {
            match piece {
                "" | "." => {}
                ".." => drop(whole.pop()),
                piece => whole.push(piece),
            }
        }
        whole.extend(rest);
        let through = format!("/{}", whole.join("/"));
        links.push((here, text));
        return Ok(through);
    }
    // The link was there a moment ago.
    Err(Unresolved::Missing)
}

fn join(before: &[&str], last: &str) -> String {
    let mut path = String::from("/");
    for part in before {
        path.push_str(part);
        path.push('/');
    }
    path + last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_plain_names() {
        assert_eq!(components("/usr/bin").unwrap(), ["usr", "bin"]);
        assert_eq!(components("/").unwrap(), [""; 0]);
        for bad in ["", "usr", "/usr/", "/usr//bin", "/usr/./bin", "/usr/../bin", "//", "/a\0b"] {
            assert!(components(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_plain_path_is_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let resolved = resolve(path).unwrap();
        assert!(resolved.is_directory());
        assert_eq!(resolved.path, path);
        assert!(resolved.links.is_empty());
        assert_eq!(resolve(&format!("{path}/no")).unwrap_err(), Unresolved::Missing);
    }

    #[test]
    fn a_link_that_an_account_could_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        // The folder may be root's when the tests run as root, so others are let in.
        rustix::fs::chmod(path, Mode::from_raw_mode(0o777)).unwrap();
        std::os::unix::fs::symlink("/etc", format!("{path}/link")).unwrap();
        assert_eq!(resolve(&format!("{path}/link/passwd")).unwrap_err(), Unresolved::Link(format!("{path}/link")));
        assert_eq!(resolve(&format!("{path}/link")).unwrap_err(), Unresolved::Link(format!("{path}/link")));
    }

    #[test]
    fn a_link_of_the_system_is_followed_and_told() {
        // Every machine that runs these tests has root's `/proc/self`-free link `/bin` or none at all.
        let Ok(text) = std::fs::read_link("/bin") else { return };
        let resolved = resolve("/bin/sh");
        let resolved = resolved.unwrap();
        assert_eq!(resolved.links.first().unwrap(), &("/bin".to_owned(), text.to_str().unwrap().to_owned()));
        assert!(resolved.path.starts_with("/usr/bin/"), "{}", resolved.path);
    }
}
