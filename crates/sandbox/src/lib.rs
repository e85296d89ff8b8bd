//! A plan and a command to a confined process tree and the supervisor that owns it.
//!
//! Nothing here decides: what may be reached stands in the plan. Nothing here talks to the daemon: events come out of a
//! descriptor that the program reads. The one fact a newcomer gets wrong: the cage's root is built from nothing, so what
//! the plan does not grant is not *refused*, it is *not there*; refusals exist only inside what is granted.

pub mod changes;
pub mod review;

pub mod broker;
pub mod filter;
pub mod gitconfig;
pub mod seal;

mod sys;
