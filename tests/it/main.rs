//! End-to-end tests. Each file is about one promise; `harness` is about the tools of the others.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    reason = "a test says what it expects by failing where it is not so"
)]

mod approvals;
mod cage;
mod claude_code;
mod cli;
mod codex;
mod daemon;
mod faults;
mod harness;
mod live;
mod review;
mod runs;
mod scan;
mod secrets;
mod service;
