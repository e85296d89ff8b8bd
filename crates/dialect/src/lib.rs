//! Each agent's hook protocol to and from creel's words: a payload becomes an [`creel_model::Action`], a
//! [`creel_model::Decision`] becomes exactly the bytes that this agent understands.
//!
//! Pure: no files, no sockets, no clock. It judges nothing: what a tool call means is stated ([`tools`]), whether it may
//! happen is the guard's. [`kinds`] and [`deny`] have no dependency at all, so that `creel-hook` can link them. The one
//! thing a newcomer gets wrong: an allowed call is answered with *silence*. An explicit allow would remove the agent's
//! own question and lower safety.

pub mod deny;
pub mod kinds;

#[cfg(feature = "full")]
mod answer;
#[cfg(feature = "full")]
pub mod claude_code;
#[cfg(feature = "full")]
pub mod codex;
#[cfg(feature = "full")]
pub mod install;
#[cfg(feature = "full")]
pub mod json;
#[cfg(feature = "full")]
mod malformed;
#[cfg(feature = "full")]
mod mcp;
#[cfg(feature = "full")]
mod parse;
#[cfg(feature = "full")]
mod told;
#[cfg(feature = "full")]
pub mod tools;

#[cfg(feature = "full")]
pub use answer::{Answer, answer, apply, deny_malformed, executed, same_input};
#[cfg(feature = "full")]
pub use malformed::Malformed;
#[cfg(feature = "full")]
pub use parse::{PAYLOAD_BYTES_MAX, parse};
#[cfg(feature = "full")]
pub use told::tell;
