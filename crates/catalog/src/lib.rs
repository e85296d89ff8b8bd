//! Facts about processes, files and configurations → which agent it is, how it is set up, and what is weak about it.
//!
//! Everything known about a kind of agent is data: one TOML file per kind under `/catalog`, compiled in, each with
//! examples of what it must and must not match. Nothing here opens a file, looks at a process or runs anything; the
//! `discover` edge brings the facts. The one thing a newcomer gets wrong: the *name* of a program proves nothing
//! (any program may be called `claude`), so a kind is recognised by the place of its executable or package, and a name
//! counts only together with an interpreter that is known to run it.

pub mod checks;
pub mod document;
pub mod facts;
pub mod kind;
pub mod posture;
pub mod process;
pub mod report;
mod secret;

pub use document::{Document, Format};
pub use facts::{ConfigFile, Content, FileFacts, Installation, ProcessFacts};
pub use kind::{Catalog, CatalogError, Kind, Place, Scope};
pub use posture::{Facts, posture};
pub use process::{Match, Strength};
pub use report::{AgentReport, Approval, Hook, McpServer, Origin, Running};
