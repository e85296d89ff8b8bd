//! Bundle text to a checked bundle to a verdict for each effect of an action.
//!
//! A bundle is a folder of text (`bundle.toml`, `rules/*.cedar`, `zones.toml`, `exceptions.toml`, `tests/*.toml`),
//! handed in as a map from relative path to text. Loading checks everything and prepares everything, so that judging
//! is evaluation only. Cedar does the evaluating and appears in no public signature.
//!
//! What this crate does not do: read files, know the time, resolve symbolic links, keep state, carry out an approval
//! or a redaction. It says which rules match; the guard acts on it.
//!
//! The one fact a newcomer gets wrong: a matching rule is a Cedar `forbid`, whatever its `@effect` says. Cedar answers
//! *which forbids match*; how strong each is, which are set aside and what follows is decided here
//! (`docs/decisions/0002-cedar-semantics.md`).

mod bundle;
mod cage;
mod cell;
mod certain;
mod digest;
mod engine;
mod exceptions;
mod facts;
mod glob;
mod manifest;
mod nesting;
mod question;
mod report;
mod rules;
mod schema;
mod starter;
mod tables;
mod text;
mod vocabulary;
mod zones;

pub use bundle::{Bundle, Layers, UnknownRules};
pub use cage::{CageRequest, Compiled, NoPlan, ProfileInfo, Reach, reach};
pub use cell::{Answer, Cell, CoverageRow, Floor, KindSupport, Standing};
pub use exceptions::ExceptionInfo;
pub use question::{
    AgentFacts, Context, EffectExplanation, Explanation, Judgement, Labels, Places, Question, RuleInfo, Transform,
};
pub use report::{CaseFailure, TestReport};
pub use starter::starter;
pub use text::Diagnostic;
