//! A machine, or a folder laid out like one, → which agents are on it; and the one door to what only root may do.
//!
//! Nothing here executes, loads or sends what it looks at: versions come from package descriptions, configuration is
//! read as text. The one thing a newcomer gets wrong: a path below a home belongs to whoever owns that home, who may
//! swap any part of it for a symbolic link or a FIFO between two looks. So files are opened once, without following
//! links, without blocking, and judged by the descriptor.

pub mod accounts;
pub mod collect;
pub mod confinement;
pub mod identity;
mod installs;
pub mod look;
pub mod process;
pub mod projects;
pub mod read;
pub mod root;
pub mod scan;
mod view;

pub use accounts::{accounts, as_account, own};
pub use look::Looked;
pub use process::{AgentAbove, nearest_agent};
pub use scan::scan;
pub use view::agent_view;
