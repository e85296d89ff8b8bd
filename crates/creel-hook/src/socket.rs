//! Where the daemon listens, and who may answer there.
//!
//! The one thing a newcomer gets wrong: a socket's path proves nothing. The folder's owner and the peer's account, as
//! the kernel states them, do; and a hook of system mode never falls back to a place that its own account can write.
//! In a cage those accounts show as the one that stands for nobody; outside of one that account is trusted with nothing.

use std::time::Instant;

use creel_wire::hook::Flags;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::event::PollFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, Stat, lstat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::input::wait;

/// The system daemon's folder; `/run` can only be written by root.
const SYSTEM_FOLDER: &str = "/run/creel";
/// What the kernel takes where nobody set it.
const OVERFLOW_UID: u32 = 65_534;

/// Whose word counts at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Authority {
    /// Root, or the daemon's own account: whoever root made the owner of the folder.
    System,
    /// The agent's own account.
    User,
    /// Whoever owns the folder that was baked into the hook's arguments.
    Baked,
}

/// A socket and who must be behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    folder: String,
    path: String,
    authority: Authority,
}

/// Why there is no connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoConnection {
    /// Nobody listens; a restarting daemon may soon.
    Absent,
    /// Not to be trusted, or broken: waiting does not help.
    Refused(String),
}

impl Place {
    /// The place for these arguments.
    pub(crate) fn of(flags: &Flags) -> Self {
        if let Some(path) = &flags.socket {
            let folder = path.rsplit_once('/').map_or("/", |(folder, _)| if folder.is_empty() { "/" } else { folder });
            return Self { folder: folder.to_owned(), path: path.clone(), authority: Authority::Baked };
        }
        if flags.system || !matches!(lstat(SYSTEM_FOLDER), Err(Errno::NOENT)) {
            return Self::in_folder(SYSTEM_FOLDER.to_owned(), Authority::System);
        }
        Self::in_folder(format!("/run/user/{}/creel", own_uid()), Authority::User)
    }

    fn in_folder(folder: String, authority: Authority) -> Self {
        Self { path: format!("{folder}/hook.sock"), folder, authority }
    }

    /// A connection to a daemon whose account was checked.
    pub(crate) fn connect(&self, deadline: Instant) -> Result<OwnedFd, NoConnection> {
        let folder = match lstat(self.folder.as_str()) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Err(NoConnection::Absent),
            Err(error) => return Err(self.refused(&format!("the folder cannot be looked at: {error}"))),
        };
        self.check_folder(&folder).map_err(|why| self.refused(why))?;
        if folder.st_uid == overflow_uid() && !is_in_user_namespace() {
            return Err(self.refused("an account that stands for nobody owns its folder"));
        }

        let address = SocketAddrUnix::new(self.path.as_str()).map_err(|error| self.refused(&error.to_string()))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|error| self.refused(&error.to_string()))?;
        match connect(&stream, &address) {
            Ok(()) => {}
            // A full queue of a listening daemon is `AGAIN` here: it is there, only busy.
            Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN) => return Err(NoConnection::Absent),
            Err(Errno::INPROGRESS) => {
                wait(stream.as_fd(), PollFlags::OUT, deadline).map_err(|_| NoConnection::Absent)?
            }
            Err(error) => return Err(self.refused(&error.to_string())),
        }
        // Not rustix's: its type has no number 0 for a process, and out of a cage the daemon has none.
        let peer = getsockopt(&stream, PeerCredentials).map_err(|error| self.refused(&error.to_string()))?;
        if self.trusts(peer.uid(), folder.st_uid) {
            Ok(stream)
        } else {
            Err(self.refused(&format!("account {} answers there", peer.uid())))
        }
    }

    fn refused(&self, why: &str) -> NoConnection {
        NoConnection::Refused(format!("the daemon's socket `{}` cannot be trusted: {why}", self.path))
    }

    fn check_folder(&self, folder: &Stat) -> Result<(), &'static str> {
        check_folder(self.authority, folder.st_mode, folder.st_uid, own_uid())
    }

    fn trusts(&self, peer: u32, folder_owner: u32) -> bool {
        peer == 0 || peer == folder_owner
    }
}

fn check_folder(authority: Authority, mode: u32, owner: u32, own: u32) -> Result<(), &'static str> {
    if FileType::from_raw_mode(mode) != FileType::Directory {
        return Err("its folder is not a folder");
    }
    if mode & 0o022 != 0 {
        return Err("others can write its folder");
    }
    match authority {
        // Only root can make a folder in `/run`, so whoever owns this one was made its owner by root. The daemon's own
        // account is one of them: its canary runs this hook.
        Authority::User if owner != own => Err("another account owns its folder"),
        _ => Ok(()),
    }
}

/// The number under which a user namespace shows accounts that it does not know.
fn overflow_uid() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/overflowuid");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(OVERFLOW_UID)
}

/// Whether this process is in a user namespace that does not know all accounts: a cage. There, the daemon's account
/// shows as [`overflow_uid`], as every other one does that is not the agent's; but a cage's `/run` holds what creel put
/// there and nothing else. Where it cannot be told, it is none.
fn is_in_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !maps_everybody(&map))
}

fn maps_everybody(map: &str) -> bool {
    let fields: Vec<&str> = map.split_ascii_whitespace().collect();
    map.trim().is_empty() || fields == ["0", "0", "4294967295"]
}

fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLDER: u32 = 0o040_755;
    const LINK: u32 = 0o120_777;

    #[test]
    fn folders_are_trusted_by_owner_and_mode() {
        let check = |authority, mode, owner| check_folder(authority, mode, owner, 1000).is_ok();
        assert!(check(Authority::System, FOLDER, 0));
        assert!(check(Authority::System, FOLDER, 990));
        assert!(check(Authority::System, FOLDER, 1000));
        assert!(check(Authority::User, FOLDER, 1000));
        assert!(!check(Authority::User, FOLDER, 1001));
        assert!(!check(Authority::User, FOLDER, 0));
        for authority in [Authority::System, Authority::User, Authority::Baked] {
            assert!(!check(authority, LINK, 1000));
            assert!(!check(authority, FOLDER | 0o002, 0));
            assert!(!check(authority, FOLDER | 0o020, 1000));
        }
        assert!(check_folder(Authority::System, FOLDER, 0, 0).is_ok());
    }

    #[test]
    fn peers_are_trusted_by_account() {
        let place = Place::in_folder("/run/creel".into(), Authority::System);
        assert!(place.trusts(0, 990));
        assert!(place.trusts(990, 990));
        assert!(!place.trusts(1000, 990));
        assert!(!place.trusts(1000, 0));
    }

    #[test]
    fn only_a_map_of_some_accounts_makes_a_cage() {
        assert!(maps_everybody("         0          0 4294967295\n"));
        assert!(maps_everybody(""));
        assert!(!maps_everybody("      1000       1000          1\n"));
        assert!(!maps_everybody("         0       1000          1\n         1     100000      65536\n"));
        assert_eq!(overflow_uid(), 65_534);
    }

    #[test]
    fn the_place_comes_from_the_arguments_alone() {
        let system = Place::of(&Flags { system: true, ..Flags::default() });
        assert_eq!((system.path.as_str(), system.authority), ("/run/creel/hook.sock", Authority::System));
        let baked = Place::of(&Flags { socket: Some("/x/y/z.sock".into()), ..Flags::default() });
        assert_eq!((baked.folder.as_str(), baked.authority), ("/x/y", Authority::Baked));
        let user = Place::of(&Flags::default()).path;
        assert!(user.starts_with("/run/"), "{user}");
        for source in
            [include_str!("main.rs"), include_str!("socket.rs"), include_str!("daemon.rs"), include_str!("input.rs")]
        {
            assert!(!source.contains(concat!("env::", "var")), "the hook reads no environment");
        }
    }
}
