//! What can be done with a run besides starting one, as types.

use std::path::Path;

use clap::Subcommand;

use super::{learned, review};
use crate::failure::Outcome;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show what a reviewed run wrote: file by file, as a patch.
    Diff(review::Diff),
    /// Carry over to the workspace what a reviewed run wrote.
    Commit(review::Commit),
    /// Take the last commit of a run back.
    Undo(review::Undo),
    /// Throw away what a reviewed run wrote.
    Discard(review::Discard),
    /// Propose a profile from what a learning run needed.
    Learned(learned::Learned),
}

impl Verb {
    /// Does it.
    pub(crate) fn run(&self, runtime: Option<&Path>) -> Outcome {
        match self {
            Verb::Diff(arguments) => review::diff(arguments),
            Verb::Commit(arguments) => review::commit(arguments),
            Verb::Undo(arguments) => review::undo(arguments),
            Verb::Discard(arguments) => review::discard(arguments),
            Verb::Learned(arguments) => learned::learned(arguments, runtime),
        }
    }
}
