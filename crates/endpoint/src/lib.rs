//! One device's daemon: joins the hearts (`guard`, with `policy`, `inspect`, `dialect`) and the edges (`journal`,
//! `discover`) over two sockets.
//!
//! Reads as a story: [`daemon`] opens everything and serves; `hook_server` takes an agent's event, `identity` finds out
//! whose it is, `world` looks things up, [`desk`] decides and records; `control_server` answers people. Threads, no
//! async runtime. The one fact a newcomer gets wrong: nothing here decides. Each module translates facts into an input
//! of the guard and its output into an answer.

pub mod accounts;
pub mod activation;
pub mod budget;
pub mod bundles;
pub mod cages;
pub mod canary;
pub mod clock;
pub mod config;
pub mod connections;
pub mod control_server;
pub mod daemon;
pub mod desk;
pub mod flood;
pub mod hook_server;
pub mod identity;
pub mod live;
pub mod offline;
pub mod policy_views;
pub mod protection;
pub mod reports;
pub mod root;
pub mod signals;
pub mod sockets;
pub mod streams;
pub mod world;

/// The home folder of this account by the system's user database, never by the environment.
#[must_use]
pub fn own_home() -> Option<std::path::PathBuf> {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.dir)
}
