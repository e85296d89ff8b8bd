//! One walk over the writable parts of the host: what lies sealed there now.
//!
//! Names come from the directories themselves, nothing is looked at singly that is not sealed. The one fact a newcomer
//! gets wrong: links are not followed; a sealed name that is a link seals what it leads to, if that is writable too.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags};

use creel_model::cage::SealKind;

use super::repository::INCLUDES;
use super::{FLOOR, PACKAGES, SealSet, above};
use crate::gitconfig::GitConfig;

/// Most entries of all roots together.
const MOST_ENTRIES: u64 = 2_000_000;
/// Deepest folder below a root.
const DEEPEST: usize = 200;
/// Most sealed objects.
const MOST_FOUND: usize = 8192;
/// Largest configuration that is read, in bytes.
const CONFIG_BYTES: u64 = 262_144;

/// The hooks that git runs.
const HOOKS: [&str; 28] = [
    "applypatch-msg",
    "commit-msg",
    "fsmonitor-watchman",
    "p4-changelist",
    "p4-post-changelist",
    "p4-pre-submit",
    "p4-prepare-changelist",
    "post-applypatch",
    "post-checkout",
    "post-commit",
    "post-index-change",
    "post-merge",
    "post-receive",
    "post-rewrite",
    "post-update",
    "pre-applypatch",
    "pre-auto-gc",
    "pre-commit",
    "pre-merge-commit",
    "pre-push",
    "pre-rebase",
    "pre-receive",
    "prepare-commit-msg",
    "proc-receive",
    "push-to-checkout",
    "reference-transaction",
    "sendemail-validate",
    "update",
];

/// A writable part of the cage that lives on the host.
#[derive(Debug)]
pub struct Root<'a> {
    /// The directory or file, opened without following links; `O_PATH` suffices.
    pub descriptor: BorrowedFd<'a>,
    /// Its absolute path, which is the same outside and in the cage.
    pub path: &'a Path,
}

/// Something sealed that exists: it is bound read-only onto itself, recursively, before the agent starts.
#[derive(Debug)]
pub struct Found {
    /// Absolute path in the cage.
    pub path: PathBuf,
    /// What it is.
    pub kind: SealKind,
    /// The rule that seals it.
    pub rule: String,
    /// The object itself (`O_PATH`), from before the binding: through it the broker can still write a git configuration.
    pub object: OwnedFd,
}

/// What [`SealSet::scan`] found.
#[derive(Debug, Default)]
pub struct Scanned {
    /// What must be bound read-only, by the launcher.
    pub found: Vec<Found>,
    /// Device and inode of sealed files that have other names too, under which they are sealed as well.
    pub(crate) linked: BTreeSet<(u64, u64)>,
    /// Entries seen.
    pub entries: u64,
}

struct Scan<'a> {
    set: &'a mut SealSet,
    roots: Vec<&'a Path>,
    scanned: Scanned,
    buffer: Vec<u8>,
}

/// A directory on the way down.
struct Level {
    folder: OwnedFd,
    path: Vec<u8>,
    left: Vec<CString>,
}

/// What a directory holds, as far as it matters.
#[derive(Default)]
struct Listing {
    folders: Vec<CString>,
    /// Names that may be sealed.
    candidates: Vec<(CString, FileType)>,
    objects: bool,
    refs: bool,
    common: bool,
}

impl SealSet {
    /// Walks the writable parts of the host once. Bounds: 2,000,000 entries, depth 200, 8,192 sealed objects.
    ///
    /// Folders that repositories name as `core.hooksPath` and files that they include become sealed paths of this set.
    ///
    /// # Errors
    /// What cannot be read, or is beyond the bounds: the cage must then not start.
    pub fn scan(&mut self, roots: &[Root<'_>]) -> io::Result<Scanned> {
        let mut scan = Scan {
            set: self,
            roots: roots.iter().map(|root| root.path).collect(),
            scanned: Scanned::default(),
            buffer: Vec::with_capacity(65536),
        };
        for root in roots {
            let about = rustix::fs::fstat(root.descriptor)?;
            if FileType::from_raw_mode(about.st_mode) == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let folder = rustix::fs::openat(root.descriptor, c".", flags, Mode::empty())?;
                scan.tree(folder, trimmed(root.path))?;
            }
        }
        scan.exact()?;
        Ok(scan.scanned)
    }
}

impl Scan<'_> {
    fn tree(&mut self, folder: OwnedFd, path: &[u8]) -> io::Result<()> {
        let root = path.to_vec();
        let left = self.folder(&folder, path, &root)?;
        let mut way = vec![Level { folder, path: path.to_vec(), left }];
        while let Some(level) = way.last_mut() {
            let Some(name) = level.left.pop() else {
                way.pop();
                continue;
            };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let folder = match rustix::fs::openat(&level.folder, &name, flags, Mode::empty()) {
                Ok(folder) => folder,
                // Gone or replaced meanwhile, or the owner's to read: then also nothing can be put there through it.
                Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => continue,
                Err(rustix::io::Errno::ACCESS) => continue,
                Err(error) => return Err(error.into()),
            };
            let path = join(&level.path, name.to_bytes());
            if way.len() > DEEPEST {
                return Err(too_much(&path, "lies too deep"));
            }
            let left = self.folder(&folder, &path, &root)?;
            if !left.is_empty() {
                way.push(Level { folder, path, left });
            }
        }
        Ok(())
    }

    /// Looks at one directory and returns the directories in it that are to be walked.
    fn folder(&mut self, folder: &OwnedFd, path: &[u8], root: &[u8]) -> io::Result<Vec<CString>> {
        let listing = self.list(folder, path)?;
        let repository = (listing.objects && listing.refs)
            || listing.common
            || super::name::fold(path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()).as_ref() == b".git";
        let below = path.strip_prefix(root).unwrap_or_default();
        let packages = below.split(|byte| *byte == b'/').any(|name| name == PACKAGES);
        let mut sealed: Vec<&CStr> = Vec::new();
        for (name, kind) in &listing.candidates {
            let inside = join(path, name.to_bytes());
            // The listing knows about this directory; what lies above it is asked of the disk.
            let mut exists = |asked: &[u8]| {
                if above(asked) == path {
                    repository
                } else {
                    rustix::fs::accessat(CWD, asked, rustix::fs::Access::EXISTS, AtFlags::SYMLINK_NOFOLLOW).is_ok()
                }
            };
            let Some((sealing, rule)) = self.set.names(&inside, name.to_bytes(), true, packages, &mut exists) else {
                continue;
            };
            if inside.len() <= root.len() {
                continue;
            }
            let rule = rule.to_owned();
            match kind {
                FileType::Symlink => self.link(&inside, sealing, &rule),
                _ if sealing == SealKind::Directory && *kind != FileType::Directory => {}
                FileType::Directory if sealing != SealKind::Directory => {}
                _ => {
                    self.seal(folder, name, &inside, sealing, &rule)?;
                    sealed.push(name);
                }
            }
        }
        let mut left = listing.folders.clone();
        left.retain(|name| !(sealed.contains(&name.as_c_str()) || repository && name.to_bytes() == b"objects"));
        Ok(left)
    }

    fn list(&mut self, folder: &OwnedFd, path: &[u8]) -> io::Result<Listing> {
        let mut listing = Listing::default();
        let mut entries = RawDir::new(folder, self.buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            let bytes = name.to_bytes();
            if matches!(bytes, b"." | b"..") {
                continue;
            }
            self.scanned.entries += 1;
            if self.scanned.entries > MOST_ENTRIES {
                return Err(too_much(path, "belongs to a tree with too many entries"));
            }
            let mut kind = entry.file_type();
            if kind == FileType::Unknown {
                let about = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
                kind = FileType::from_raw_mode(about.st_mode);
            }
            match bytes {
                b"objects" => listing.objects = true,
                b"refs" => listing.refs = true,
                b"commondir" => listing.common = true,
                _ => {}
            }
            if kind == FileType::Directory {
                listing.folders.push(name.to_owned());
            }
            if self.set.first.may(bytes) {
                listing.candidates.push((name.to_owned(), kind));
            }
        }
        Ok(listing)
    }

    /// Takes down one sealed object.
    fn seal(&mut self, folder: &OwnedFd, name: &CStr, path: &[u8], kind: SealKind, rule: &str) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let object = rustix::fs::openat(folder, name, flags, Mode::empty())?;
        self.take(object, path, kind, rule)
    }

    fn take(&mut self, object: OwnedFd, path: &[u8], kind: SealKind, rule: &str) -> io::Result<()> {
        if self.scanned.found.len() >= MOST_FOUND {
            return Err(too_much(path, "is one of too many sealed objects"));
        }
        if self.scanned.found.iter().any(|found| found.path.as_os_str().as_bytes() == path) {
            return Ok(());
        }
        let about = rustix::fs::fstat(&object)?;
        match FileType::from_raw_mode(about.st_mode) {
            FileType::Directory => self.linked_below(&object, path)?,
            FileType::RegularFile => {
                if about.st_nlink > 1 {
                    self.scanned.linked.insert((about.st_dev, about.st_ino));
                }
                if kind == SealKind::GitConfig {
                    self.hooks_path(path)?;
                }
            }
            _ => {}
        }
        let path = PathBuf::from(OsStr::from_bytes(path));
        self.scanned.found.push(Found { path, kind, rule: rule.to_owned(), object });
        Ok(())
    }

    /// Files of a sealed directory that have names outside of it.
    fn linked_below(&mut self, folder: &OwnedFd, path: &[u8]) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(folder) = rustix::fs::openat(folder, c".", flags, Mode::empty()) else { return Ok(()) };
        let mut waiting = vec![(folder, 0)];
        while let Some((folder, depth)) = waiting.pop() {
            let mut names = Vec::new();
            let mut entries = RawDir::new(&folder, self.buffer.spare_capacity_mut());
            while let Some(entry) = entries.next() {
                let entry = entry?;
                if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    names.push(entry.file_name().to_owned());
                }
            }
            for name in names {
                self.scanned.entries += 1;
                if self.scanned.entries > MOST_ENTRIES || depth > DEEPEST {
                    return Err(too_much(path, "holds too much"));
                }
                let Ok(about) = rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
                match FileType::from_raw_mode(about.st_mode) {
                    FileType::Directory => {
                        if let Ok(inner) = rustix::fs::openat(&folder, &name, flags | OFlags::NOFOLLOW, Mode::empty()) {
                            waiting.push((inner, depth + 1));
                        }
                    }
                    _ if about.st_nlink > 1 => {
                        self.scanned.linked.insert((about.st_dev, about.st_ino));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// A sealed name that is a link: what it leads to is sealed by its path, if an agent could write there.
    fn link(&mut self, path: &[u8], kind: SealKind, rule: &str) {
        let Ok(target) = fs::canonicalize(OsStr::from_bytes(path)) else { return };
        if self.roots.iter().any(|root| target.starts_with(root) && target != *root) {
            self.set.add_path(target.as_os_str().as_bytes(), kind, rule);
        }
    }

    /// A configuration that says where hooks lie seals that folder; files that it includes are sealed as it is itself.
    fn hooks_path(&mut self, config: &[u8]) -> io::Result<()> {
        let folder = Path::new(OsStr::from_bytes(above(config)));
        let top =
            if folder.file_name() == Some(OsStr::new(".git")) { folder.parent().unwrap_or(folder) } else { folder };
        self.configuration(Path::new(OsStr::from_bytes(config)), top, INCLUDES)
    }

    /// `top` is what relative folders of hooks are relative to, also in included files.
    fn configuration(&mut self, file: &Path, top: &Path, depth: u32) -> io::Result<()> {
        if fs::metadata(file)?.len() > CONFIG_BYTES || depth == 0 {
            return Err(too_much(file.as_os_str().as_bytes(), "is too long, or included too deep"));
        }
        let text = fs::read(file)?;
        // What is not understood here, the gate refuses to change; hooks are looked for in texts that are understood.
        let Ok(parsed) = GitConfig::parse(&text) else { return Ok(()) };
        let hooks: Vec<PathBuf> = parsed.values("core.hookspath").map(|value| top.join(value)).collect();
        for path in hooks {
            self.seal_path(&path, SealKind::Directory);
        }
        let folder = file.parent().unwrap_or(top).to_path_buf();
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let included: Vec<PathBuf> = parsed
            .included()
            .map(|value| value.strip_prefix("~/").map_or_else(|| folder.join(value), |rest| home.join(rest)))
            .collect();
        for path in included {
            // One outside of what an agent may write is nobody's here, but it may name hooks inside.
            self.seal_path(&path, SealKind::File);
            if fs::metadata(&path).is_ok_and(|about| about.is_file()) {
                self.configuration(&path, top, depth - 1)?;
            }
        }
        Ok(())
    }

    /// Seals a path and what it leads to, if an agent could write there.
    fn seal_path(&mut self, path: &Path, kind: SealKind) {
        let rule = self.set.git_rule().to_owned();
        for path in super::normal(path).into_iter().chain(fs::canonicalize(path)) {
            if !self.roots.iter().any(|root| path.starts_with(root)) {
                continue;
            }
            if !self.roots.iter().any(|root| path == *root) {
                self.set.add_path(path.as_os_str().as_bytes(), kind, &rule);
            } else if kind == SealKind::Directory {
                // Hooks right in a writable part, which cannot be sealed as a whole: the names that git knows.
                for hook in HOOKS {
                    self.set.add_path(path.join(hook).as_os_str().as_bytes(), SealKind::File, &rule);
                }
            }
        }
    }

    /// Sealed paths that exist and were not met by their names.
    fn exact(&mut self) -> io::Result<()> {
        for exact in self.set.exact.clone() {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            let Ok(object) = rustix::fs::openat2(CWD, exact.path.as_slice(), flags, Mode::empty(), resolve) else {
                continue;
            };
            self.take(object, &exact.path, exact.kind, &exact.rule)?;
        }
        Ok(())
    }
}

fn trimmed(path: &Path) -> &[u8] {
    let bytes = path.as_os_str().as_bytes();
    bytes.strip_suffix(b"/").unwrap_or(bytes)
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(path.len() + name.len() + 1);
    joined.extend_from_slice(path);
    joined.push(b'/');
    joined.extend_from_slice(name);
    joined
}

fn too_much(path: &[u8], what: &str) -> io::Error {
    io::Error::other(format!("{} {what} ({FLOOR})", String::from_utf8_lossy(path)))
}
