//! The conversations on creel's sockets as types: what the hook sends and gets back, what the command line asks.
//!
//! Turns frames into values and values into frames. Opens no socket and decides nothing. The one thing a newcomer gets
//! wrong: [`hook`] is frozen, because hooks of every older version stay in agents' settings; `control` may change with
//! every release, because both of its ends are installed together.

#[cfg(feature = "full")]
pub mod control;
pub mod hook;
