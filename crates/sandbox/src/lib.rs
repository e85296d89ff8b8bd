//! A plan and a command to a confined process tree and the supervisor that owns it.
//!
//! Nothing here decides: what may be reached stands in the plan. Nothing here talks to the daemon: events come out of a
//! descriptor that the program reads. The one fact a newcomer gets wrong: the cage's root is built from nothing, so what
//! the plan does not grant is not *refused*, it is *not there*; refusals exist only inside what is granted.

pub mod broker;
pub mod changes;
pub mod doctor;
pub mod filter;
pub mod gitconfig;
pub mod learn;
pub mod remote;
pub mod review;
pub mod seal;

mod agent;
mod cage;
mod channel;
mod controls;
mod environment;
mod file_rules;
mod forward;
mod init;
mod launch;
mod probe;
mod root;
mod setup;
mod sys;
mod terminal;
mod warden;

pub use cage::{Cage, End, FIRST_COMMAND, Happening, Usage};
pub use launch::{Launch, LaunchError, Prepared, SocketFolder};
pub use probe::Probes;
