//! `creel run`: commands in cages, and what is done with their runs.

mod patch;
mod review;

use clap::{Args, Subcommand};

use crate::failure::Outcome;

/// Arguments of `creel run`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  creel run diff                        what the last reviewed run of this folder wrote\n  \
        creel run commit r-4f2a src           carry over what it wrote in `src`\n  creel run undo r-4f2a                 \
        take the last commit back"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show what a reviewed run wrote: file by file, as a patch.
    Diff(review::Diff),
    /// Carry over to the workspace what a reviewed run wrote.
    Commit(review::Commit),
    /// Take the last commit of a run back.
    Undo(review::Undo),
    /// Throw away what a reviewed run wrote.
    Discard(review::Discard),
}

/// Does it.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    match &arguments.verb {
        Verb::Diff(arguments) => review::diff(arguments),
        Verb::Commit(arguments) => review::commit(arguments),
        Verb::Undo(arguments) => review::undo(arguments),
        Verb::Discard(arguments) => review::discard(arguments),
    }
}
