//! The device key and the content key as files of the daemon's account (mode 0600, never through a symbolic link).
//!
//! They do not belong in the journal's folder: a copy of that folder is what a verifier gets. Whoever reads the device
//! key can sign another history; only anchors speak against it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use creel_seal::{ContentKey, DeviceKey};
use rustix::fs::OFlags;

/// The device's signing key in a file, made with fresh randomness where there is none. `name` is the log's origin.
/// Errors: a file that others may read, that is not the account's own, or that does not hold 32 bytes.
pub fn device_key(path: &Path, name: &str) -> io::Result<DeviceKey> {
    let seed = read_or_make(path)?;
    DeviceKey::from_seed(name, &seed).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))
}

/// The key of content digests in a file, made where there is none.
pub fn content_key(path: &Path) -> io::Result<ContentKey> {
    read_or_make(path).map(ContentKey::from_bytes)
}

/// Destroys a content key: overwritten, made durable, removed. From then on no digest can be tied to content.
pub fn destroy_content_key(path: &Path) -> io::Result<()> {
    let mut file = options().write(true).open(path)?;
    file.write_all(&[0; 32])?;
    file.sync_all()?;
    fs::remove_file(path)?;
    sync_parent(path)
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    options
}

fn read_or_make(path: &Path) -> io::Result<[u8; 32]> {
    match options().read(true).open(path) {
        Ok(file) => read(path, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        Err(error) => Err(error),
    }
}

fn read(path: &Path, mut file: File) -> io::Result<[u8; 32]> {
    let refuse = |why: &str| io::Error::new(io::ErrorKind::PermissionDenied, format!("`{}` {why}", path.display()));
    let facts = file.metadata()?;
    if !facts.is_file() || facts.uid() != rustix::process::geteuid().as_raw() {
        return Err(refuse("is not a file of this account"));
    }
    if facts.mode() & 0o077 != 0 {
        return Err(refuse("can be read by other accounts; make a new key"));
    }
    if facts.len() != 32 {
        return Err(refuse("does not hold a key of 32 bytes"));
    }
    let mut bytes = [0; 32];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Makes a key whole before it has its name, so that an interruption leaves none or a whole one.
fn make(path: &Path) -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    let temporary = path.with_extension("new");
    let mut file = options().write(true).create(true).truncate(true).open(&temporary)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    // A link refuses to replace a key that somebody else made meanwhile; theirs is then the key.
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    match linked {
        Ok(()) => sync_parent(path).map(|()| bytes),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read(path, options().read(true).open(path)?),
        Err(error) => Err(error),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn keys_are_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.key");
        let first = device_key(&path, "creel/a").unwrap();
        let again = device_key(&path, "creel/a").unwrap();
        assert_eq!(first.verifier(), again.verifier());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn keys_that_others_can_read_or_that_are_not_keys_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        content_key(&path).unwrap();
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        content_key(&link).unwrap_err();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(content_key(&path).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let short = folder.path().join("short");
        fs::write(&short, [1; 31]).unwrap();
        fs::set_permissions(&short, fs::Permissions::from_mode(0o600)).unwrap();
        content_key(&short).unwrap_err();
    }

    #[test]
    fn a_destroyed_content_key_is_gone_and_another_follows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("content.key");
        let digest = content_key(&path).unwrap().digest(b"x");
        assert_eq!(content_key(&path).unwrap().digest(b"x"), digest);
        destroy_content_key(&path).unwrap();
        assert_ne!(content_key(&path).unwrap().digest(b"x"), digest);
    }
}
