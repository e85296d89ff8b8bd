//! A folder and its listening sockets, and who is at the other end of a connection.
//!
//! Creates the runtime folder with the right owner and mode or refuses it; never follows a link to it, never takes
//! over a socket that another living daemon answers on. The peer's process is held by a pidfd where the kernel gives
//! one (Linux 6.5), so that its pid cannot come to mean another process while we look at it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Why a runtime folder or socket cannot be used.
#[derive(Debug)]
pub enum SocketError {
    /// The folder exists with another owner, as a link, or open to others.
    Unsafe(String),
    /// Another daemon answers there.
    InUse(String),
    /// The system refused.
    Io(String, io::Error),
}

impl std::fmt::Display for SocketError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SocketError::Unsafe(why) => write!(f, "the runtime folder cannot be trusted: {why}"),
            SocketError::InUse(path) => write!(f, "another daemon already answers on `{path}`"),
            SocketError::Io(path, error) => write!(f, "cannot use `{path}`: {error}"),
        }
    }
}

impl std::error::Error for SocketError {}

/// Makes sure that `folder` is a real folder of this account that nobody else can write to.
///
/// `mode` is the mode of a new folder: 0700 in user mode, 0755 in system mode, where every account must reach
/// `hook.sock`.
///
/// # Errors
/// The folder is a link, of another owner, writable by others, or cannot be made.
pub fn prepare_folder(folder: &Path, mode: u32) -> Result<(), SocketError> {
    let name = folder.display().to_string();
    match fs::DirBuilder::new().mode(mode).create(folder) {
        Ok(()) => {
            fs::set_permissions(folder, fs::Permissions::from_mode(mode))
                .map_err(|error| SocketError::Io(name.clone(), error))?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(SocketError::Io(name, error)),
    }
    let metadata = fs::symlink_metadata(folder).map_err(|error| SocketError::Io(name.clone(), error))?;
    if !metadata.is_dir() {
        return Err(SocketError::Unsafe(format!("`{name}` is not a folder")));
    }
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own && metadata.uid() != 0 {
        return Err(SocketError::Unsafe(format!("`{name}` belongs to account {}", metadata.uid())));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(SocketError::Unsafe(format!("`{name}` is writable by others")));
    }
    Ok(())
}

/// Listens on `path` with the socket's mode set before the first connection can be accepted.
///
/// # Errors
/// Another daemon answers there, something that is no socket stands there, or the system refuses.
pub fn listen(path: &Path, mode: u32) -> Result<UnixListener, SocketError> {
    let name = path.display().to_string();
    let io_error = |error| SocketError::Io(name.clone(), error);
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::Unsafe(format!("`{name}` exists and is no socket")));
        }
        Ok(_) => {
            if UnixStream::connect(path).is_ok() {
                return Err(SocketError::InUse(name));
            }
            fs::remove_file(path).map_err(io_error)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error(error)),
    }
    // The folder admits only us (user mode), or the socket's mode is what decides (system mode), so a moment with the
    // umask's mode is harmless in the one and made impossible in the other by binding under another name first.
    let hidden = path.with_extension(format!("new.{}", std::process::id()));
    let _ = fs::remove_file(&hidden);
    let listener = UnixListener::bind(&hidden).map_err(io_error)?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(mode)).map_err(io_error)?;
    fs::rename(&hidden, path).map_err(io_error)?;
    Ok(listener)
}

/// Who is at the other end, by the kernel's word.
#[derive(Debug)]
pub struct Peer {
    /// Process id at the time of connecting.
    pub pid: u32,
    /// Account.
    pub uid: u32,
    /// Holds the process' identity; absent on kernels before 6.5.
    pidfd: Option<OwnedFd>,
}

impl Peer {
    /// Reads the peer's credentials from the connection.
    ///
    /// # Errors
    /// The kernel does not tell; the caller refuses the connection.
    pub fn of(stream: &UnixStream) -> io::Result<Peer> {
        let credentials = nix::sys::socket::getsockopt(&stream.as_fd(), nix::sys::socket::sockopt::PeerCredentials)?;
        // A peer in another process namespace has the number 0 here: nobody can say what is above it.
        let pid = u32::try_from(credentials.pid())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the peer has no process id here"))?;
        let pidfd = nix::sys::socket::getsockopt(&stream.as_fd(), nix::sys::socket::sockopt::PeerPidfd).ok();
        Ok(Peer { pid, uid: credentials.uid(), pidfd })
    }

    /// Whether the peer's process is still the one that connected. `None`: this kernel cannot tell.
    #[must_use]
    pub fn is_still_there(&self) -> Option<bool> {
        let pidfd = self.pidfd.as_ref()?;
        let mut fds = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)];
        // A pidfd becomes readable when its process has ended.
        let zero = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        match rustix::event::poll(&mut fds, Some(&zero)) {
            Ok(ready) => Some(ready == 0),
            Err(_) => Some(false),
        }
    }

    /// Whether the kernel gave a descriptor for the process, which rules out a reused pid.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pidfd.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_open_to_others_or_a_link_is_refused() {
        let base = tempfile::tempdir().expect("temp");
        let open = base.path().join("open");
        fs::create_dir(&open).expect("dir");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("mode");
        assert!(matches!(prepare_folder(&open, 0o700), Err(SocketError::Unsafe(_))));
        let link = base.path().join("link");
        std::os::unix::fs::symlink(base.path(), &link).expect("link");
        assert!(matches!(prepare_folder(&link, 0o700), Err(SocketError::Unsafe(_))));
        prepare_folder(&base.path().join("fresh"), 0o700).expect("a fresh folder is fine");
    }

    #[test]
    fn a_living_daemon_keeps_its_socket_and_a_stale_one_is_replaced() {
        let base = tempfile::tempdir().expect("temp");
        let path = base.path().join("hook.sock");
        let first = listen(&path, 0o600).expect("first");
        assert!(matches!(listen(&path, 0o600), Err(SocketError::InUse(_))));
        drop(first);
        listen(&path, 0o600).expect("a stale socket is replaced");
        let file = base.path().join("control.sock");
        fs::write(&file, "not a socket").expect("write");
        assert!(matches!(listen(&file, 0o600), Err(SocketError::Unsafe(_))));
    }

    #[test]
    fn the_peer_is_known_and_seen_to_end() {
        let base = tempfile::tempdir().expect("temp");
        let path = base.path().join("s.sock");
        let listener = listen(&path, 0o600).expect("listen");
        let client = UnixStream::connect(&path).expect("connect");
        let (server, _) = listener.accept().expect("accept");
        let peer = Peer::of(&server).expect("peer");
        assert_eq!(peer.pid, std::process::id());
        assert_ne!(peer.is_still_there(), Some(false));
        drop(client);
    }
}
