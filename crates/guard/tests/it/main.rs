//! The guard from outside: payloads of a real agent's protocol go in, decisions and records come out.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests may panic")]

mod approvals;
mod flow;
mod lab;
mod paths;
mod random;
mod recovery;
