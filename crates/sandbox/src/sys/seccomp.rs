//! The kernel's call filter and its notifications, and the calls that a broker needs to act for another process.
//!
//! Numbers and records are the kernel's; nothing here decides. The one fact a newcomer gets wrong: a process number in a
//! notification is only that process for as long as [`still_waiting`] says so, because numbers are used again.
#![allow(unsafe_code)]
