//! System calls that no safe library offers, each behind a safe function.
//!
//! Nothing here knows what a cage is. The one fact a newcomer gets wrong: after a fork or a
//! clone into namespaces the child runs on a copy of the parent's memory, so the parent must have one
//! thread only; programs that use this crate start no thread before they start a cage.

pub(crate) mod seccomp;
