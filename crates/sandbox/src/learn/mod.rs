//! What a learning run needed → the smallest profile that would have sufficed, and why each of its lines is there.
//!
//! [`Recorder`] keeps the supervisor's events in the run's folder, [`Needs`] reads them back, [`propose`] is plain
//! computation. The one fact a newcomer gets wrong: a proposal says what *this* run needed. It is a beginning for a
//! person to read, and what the rules refuse stays refused whatever a profile says.

mod propose;
mod record;

pub use propose::{Line, Proposal, Surroundings, propose};
pub use record::{Need, Needs, Recorder, What};
