//! What end-to-end tests stand on: a stage, programs on it, a scripted model, and the real agents.
//!
//! Turns "as this account, in this folder, run that" into what came out of it. It knows creel only as programs: it
//! links none of its crates, so that a test can see nothing that a user could not see.
//! A newcomer gets wrong: everything runs in a private mount namespace ([`Stage`]), so a test may install, break and
//! delete what it likes; the machine's `/etc`, `/usr`, `/var`, `/home` and `/run` are not touched.

mod account;
mod agent;
mod await_it;
mod creel;
mod endpoint;
mod escape;
mod run;
mod skip;
mod sse;
mod stage;
mod stand_in;

pub use account::Account;
pub use agent::{Agent, claude, codex, gemini};
pub use await_it::{Deadline, until};
pub use creel::Creel;
pub use endpoint::{Endpoint, Request, Step};
pub use escape::{Attempt, ESCAPE, Scene, attempts};
pub use run::{Finished, Run, Running};
pub use skip::skip;
pub use stage::Stage;
pub use stand_in::{StandIn, tool_call};
