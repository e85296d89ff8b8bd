//! System calls that no safe library offers, each behind a safe function.
//!
//! Nothing here knows what a cage is. The one fact a newcomer gets wrong: after [`process::fork`] or
//! [`process::clone_into_namespaces`] the child runs on a copy of the parent's memory, so the parent must have one
//! thread only; programs that use this crate start no thread before they start a cage.

pub(crate) mod attempt;
pub(crate) mod mount;
pub(crate) mod process;
pub(crate) mod seccomp;
