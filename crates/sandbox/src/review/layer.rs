//! The copy-on-write layer of a run: made in the host's namespaces, mounted in the cage's.
//!
//! [`Layer::prepare`] makes the two folders and says why an overlay cannot work here, where that can be known without
//! mounting; [`Layer::mount`] is called by the cage's first process in its own user and mount namespace. The one fact a
//! newcomer gets wrong: a descriptor opened outside belongs to the *outer* mount namespace, and the kernel refuses it as
//! a part of an overlay mounted inside. So `mount` opens the same paths again and compares identities.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::fd::{self, Stamp};
use super::folder::{Folder, FolderError};
use super::name::shown_path;

/// Bytes of the mount table that are read.
const MOUNTS_BYTES_MAX: usize = 8 << 20;

/// Filesystems that cannot hold the writable half of an overlay in a user namespace, by their magic numbers
/// (`linux/magic.h`), each with its name.
const UNFIT: [(u64, &str); 11] = [
    (0x794c_7630, "overlayfs"),
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x6573_5546, "FUSE"),
    (0x4d44, "FAT"),
    (0x2011_bab0, "exFAT"),
    (0xf15f, "eCryptfs"),
    (0x0102_1997, "9P"),
    (0x9660, "ISO 9660"),
];

/// A layer that is ready to be mounted.
#[derive(Clone, Debug)]
pub struct Layer {
    lower: Part,
    upper: Part,
    work: Part,
}

#[derive(Clone, Debug)]
struct Part {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Why a workspace cannot be reviewed here.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The state folder's filesystem cannot hold a layer.
    #[error("`{path}` lies on {filesystem}, which cannot hold a layer")]
    Filesystem {
        /// The state folder.
        path: String,
        /// Its filesystem.
        filesystem: &'static str,
    },
    /// One of the folders lies in the other.
    #[error("the layer's folder `{layer}` and the workspace `{workspace}` lie in one another")]
    Nested {
        /// Where the layer would be.
        layer: String,
        /// The workspace.
        workspace: String,
    },
    /// Another filesystem is mounted somewhere in the workspace; an overlay would show an empty folder there.
    #[error("another filesystem is mounted in the workspace, at `{0}`; a layer cannot reach it")]
    Mounted(String),
    /// The workspace's path leads through a link.
    #[error("the workspace's path `{0}` leads through a link; name the real folder")]
    Link(String),
    /// The mount table could not be read.
    #[error("cannot read the mount table: {0}")]
    MountTable(String),
    /// The folders could not be made.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

impl Layer {
    /// Makes `upper` and `work` in the run's folder.
    ///
    /// # Errors
    /// With the reason why an overlay cannot work here. What only the mount itself can tell comes from
    /// [`Layer::mount`].
    pub fn prepare(run: &Folder) -> Result<Self, LayerError> {
        let layer = run.path().canonicalize().map_err(|error| {
            LayerError::Folder(FolderError::System { doing: "resolve", path: shown_path(run.path()), error })
        })?;
        let workspace = Path::new(&run.facts().workspace);
        let real = workspace.canonicalize();
        if real.is_err() || real.is_ok_and(|real| real != workspace) {
            return Err(LayerError::Link(shown_path(workspace)));
        }
        if layer.starts_with(workspace) || workspace.starts_with(&layer) {
            return Err(LayerError::Nested { layer: shown_path(&layer), workspace: shown_path(workspace) });
        }
        let filesystem = rustix::fs::fstatfs(run.fd());
        let filesystem = filesystem.map_err(|error| FolderError::system("look at", &layer, error))?;
        let magic = filesystem.f_type as u64 & 0xffff_ffff;
        if let Some((_, name)) = UNFIT.iter().find(|(unfit, _)| *unfit == magic) {
            return Err(LayerError::Filesystem { path: shown_path(&layer), filesystem: name });
        }
        if let Some(inside) = mounted_below(&mount_table()?, workspace) {
            return Err(LayerError::Mounted(shown_path(&inside)));
        }
        let part = |name: &'static str| -> Result<Part, FolderError> {
            let path = layer.join(name);
            rustix::fs::mkdirat(run.fd(), name, Mode::RWXU)
                .map_err(|error| FolderError::system("make", &path, error))?;
            let opened = fd::child(run.fd(), OsStr::new(name));
            let opened = opened.map_err(|error| FolderError::system("open", &path, error))?;
            if name == "upper" {
                // The layer's top folder stands for the workspace itself and shows its permissions.
                let mode = rustix::fs::fstat(run.workspace()).map(|stat| Stamp::from(stat).permissions());
                let mode = mode.map_err(|error| FolderError::system("look at", workspace, error))?;
                rustix::fs::fchmod(&opened, Mode::from_raw_mode(mode | 0o700))
                    .map_err(|error| FolderError::system("open up", &path, error))?;
            }
            Part::of(path, &opened)
        };
        let lower = Part { path: workspace.to_owned(), device: run.facts().device, inode: run.facts().inode };
        Ok(Self { lower, upper: part("upper")?, work: part("work")? })
    }

    /// Mounts the overlay, attached nowhere yet: the caller moves it to the workspace's place in the cage's root.
    ///
    /// To be called in a mount namespace that still shows the host's files and `/proc`, by a process with
    /// `CAP_SYS_ADMIN` in the user namespace that owns it. The mount is `nosuid` and `nodev`.
    ///
    /// # Errors
    /// What the kernel said; `ESTALE` when another folder stands at one of the paths by now.
    pub fn mount(&self) -> rustix::io::Result<OwnedFd> {
        let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_flag(&context, "userxattr")?;
        rustix::mount::fsconfig_set_string(&context, "source", "creel-review")?;
        // The descriptors live until the mount is made: their entries in `/proc` are the names given to the kernel,
        // which keeps colons, commas and backslashes of the real paths out of the option's syntax.
        let mut opened = Vec::new();
        for (key, part) in [("lowerdir", &self.lower), ("upperdir", &self.upper), ("workdir", &self.work)] {
            let fd = part.open()?;
            rustix::mount::fsconfig_set_string(&context, key, format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
            opened.push(fd);
        }
        rustix::mount::fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    }
}

impl Part {
    fn of(path: PathBuf, opened: &OwnedFd) -> Result<Self, FolderError> {
        let stat = rustix::fs::fstat(opened).map_err(|error| FolderError::system("look at", &path, error))?;
        let stamp = Stamp::from(stat);
        Ok(Self { path, device: stamp.device, inode: stamp.inode })
    }

    fn open(&self) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let opened = rustix::fs::openat2(rustix::fs::CWD, &self.path, flags, Mode::empty(), resolve)?;
        let stamp = Stamp::from(rustix::fs::fstat(opened.as_fd())?);
        if (stamp.device, stamp.inode) != (self.device, self.inode) {
            return Err(Errno::STALE);
        }
        Ok(opened)
    }
}

fn mount_table() -> Result<Vec<u8>, LayerError> {
    use std::io::Read as _;
    let fail = |error: std::io::Error| LayerError::MountTable(error.to_string());
    let mut bytes = Vec::new();
    let file = std::fs::File::open("/proc/self/mountinfo").map_err(fail)?;
    file.take(MOUNTS_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() > MOUNTS_BYTES_MAX {
        return Err(LayerError::MountTable(format!("it has more than {MOUNTS_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// The first mount point strictly below a folder in a text of the form of `/proc/self/mountinfo`, whose fifth column is
/// the mount point with blanks and backslashes as three octal digits.
fn mounted_below(table: &[u8], folder: &Path) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    table.split(|byte| *byte == b'\n').find_map(|line| {
        let column = line.split(|byte| *byte == b' ').nth(4)?;
        let mut bytes = Vec::with_capacity(column.len());
        let mut rest = column;
        while let Some((first, after)) = rest.split_first() {
            let octal = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok();
            match (first, after.get(..3).and_then(octal)) {
                (b'\\', Some(byte)) => {
                    bytes.push(byte);
                    rest = after.get(3..).unwrap_or_default();
                }
                _ => {
                    bytes.push(*first);
                    rest = after;
                }
            }
        }
        let path = PathBuf::from(std::ffi::OsString::from_vec(bytes));
        (path != folder && path.starts_with(folder)).then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use creel_model::cage::WorkspaceMode;

    use super::super::test::plan;
    use super::*;

    #[test]
    fn mounts_below_the_workspace_are_found_whatever_their_names() {
        let table = b"22 1 254:0 / / rw - ext4 /dev/vda rw\n\
            30 22 0:5 / /home/ada/site rw - ext4 /dev/vda rw\n\
            31 30 0:5 / /home/ada/site/a\\040b\\134c rw shared:1 - tmpfs tmpfs rw\n";
        let below = |folder: &str| mounted_below(table, Path::new(folder));
        assert_eq!(below("/home/ada/site"), Some(PathBuf::from("/home/ada/site/a b\\c")));
        assert_eq!(below("/home/ada"), Some(PathBuf::from("/home/ada/site")));
        assert_eq!(below("/home/ada/site2"), None);
        assert_eq!(below("/home/ada/site/a b\\c"), None);
    }

    #[test]
    fn a_layer_inside_the_workspace_is_refused_and_so_is_a_path_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let inside = Folder::create(&root.join("state"), &plan("r-1", &root, WorkspaceMode::Review)).unwrap();
        assert!(matches!(Layer::prepare(&inside), Err(LayerError::Nested { .. })));
        std::fs::create_dir_all(root.join("real/work")).unwrap();
        std::os::unix::fs::symlink("real", root.join("link")).unwrap();
        let through = plan("r-2", &root.join("link/work"), WorkspaceMode::Review);
        let through = Folder::create(&root.join("state"), &through).unwrap();
        assert!(matches!(Layer::prepare(&through), Err(LayerError::Link(_))));
    }
}
