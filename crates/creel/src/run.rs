//! `creel run`: commands in cages, and what is done with their runs.

mod afterwards;
mod learned;
mod patch;
mod report;
mod review;
mod start;

use std::path::Path;

use clap::Args;

use crate::failure::{Failure, Outcome};

/// Arguments of `creel run`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    override_usage = "creel run [OPTIONS] -- COMMAND…\n       creel run diff|commit|undo|discard|learned …",
    after_help = "Examples:\n  creel run -- claude                   the agent in a cage, on this folder\n  \
        creel run --profile strict -- npm test\n  \
        creel run --review -- claude          its writes wait for you\n  \
        creel run diff                        what the last reviewed run of this folder wrote\n  \
        creel run commit r-4f2a src           carry over what it wrote in `src`\n  \
        creel run undo r-4f2a                 take the last commit back\n\n\
        Exit codes: the command's own; 125 the cage could not be started, 126 the program could not be executed, \
        127 it was not found."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<afterwards::Verb>,
    #[command(flatten)]
    start: start::Start,
}

/// Does it.
pub(crate) fn run(arguments: &Arguments, runtime: Option<&Path>) -> Outcome {
    match &arguments.verb {
        Some(verb) => verb.run(runtime),
        None if arguments.start.has_command() => start::start(&arguments.start, runtime),
        None => Err(Failure::new("there is no command").hint("`creel run -- COMMAND`")),
    }
}
