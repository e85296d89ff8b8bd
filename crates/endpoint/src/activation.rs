//! Sockets that the service manager holds for the daemon: taken over when they are handed in, so that no connection is
//! refused while the daemon restarts (systemd's protocol, `sd_listen_fds(3)`).
//!
//! A socket is known by the path that it is bound to, never by its number or name: what is bound elsewhere is not ours,
//! and the daemon does not start with it. The one fact a newcomer gets wrong: such a socket outlives the daemon, so its
//! file is not removed at the end.

use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use listenfd::ListenFd;
use rustix::io::FdFlags;

/// Sockets that were handed in.
#[derive(Debug, Default)]
pub struct Inherited {
    /// For hooks.
    pub hook: Option<UnixListener>,
    /// For people.
    pub control: Option<UnixListener>,
}

/// Takes over what was handed to this process for the sockets in `runtime`; nothing where nothing was.
///
/// # Errors
/// Something else was handed in: no listening socket, or one that is bound elsewhere.
pub fn inherited(runtime: &Path) -> Result<Inherited> {
    let mut handed = ListenFd::from_env();
    let mut taken = Inherited::default();
    for index in 0..handed.len() {
        let listener = handed.take_unix_listener(index).context("a descriptor that was handed in is no socket")?;
        let Some(listener) = listener else { continue };
        // Programs that the daemon starts must not hold the daemon's sockets.
        rustix::io::fcntl_setfd(&listener, FdFlags::CLOEXEC).context("a socket cannot be kept from other programs")?;
        listener.set_nonblocking(false).context("a socket cannot be used")?;
        let address = listener.local_addr().context("a socket cannot be looked at")?;
        let path = address.as_pathname().map(Path::to_owned).unwrap_or_default();
        let place = if path == runtime.join("hook.sock") {
            &mut taken.hook
        } else if path == runtime.join("control.sock") {
            &mut taken.control
        } else {
            bail!("a socket bound to `{}` was handed in, expected one in `{}`", path.display(), runtime.display());
        };
        *place = Some(listener);
    }
    Ok(taken)
}
