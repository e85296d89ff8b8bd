//! `creel`: what a person types → one request to the daemon, or one piece of work that needs none, and its answer.
//!
//! Parses, dispatches, prints; decides nothing. The one thing a newcomer gets wrong: this program links neither the
//! rules' engine nor an async runtime, so that it starts in about a millisecond. Questions that need the rules go to
//! the daemon or, without one, to its program (see `offline`).

mod agents;
mod approvals;
mod break_glass;
mod clock;
mod command;
mod connection;
mod demo;
mod doctor;
mod failure;
mod guard;
mod inspect;
mod log;
mod offline;
mod out;
mod policy;
mod presence;
mod profile;
mod programs;
mod run;
mod runs;
mod screen;
mod service;
mod show;
mod statement;
mod status;
mod support;
mod text;
mod up;
mod why;

use std::process::ExitCode;

use clap::Parser as _;

use crate::failure::{Exit, Failure};

fn main() -> ExitCode {
    // The version is asked by scripts, often: answered before anything else is looked at.
    let mut arguments = std::env::args_os().skip(1);
    if let (Some(first), None) = (arguments.next(), arguments.next())
        && (first == "--version" || first == "-V")
    {
        let _ = out::lines([concat!("creel ", env!("CARGO_PKG_VERSION"))]);
        return ExitCode::SUCCESS;
    }
    let command = match command::Line::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match command.run() {
        Ok(Exit::Good) | Err(Failure::ClosedPipe) => ExitCode::SUCCESS,
        Ok(Exit::No) => ExitCode::from(1),
        Err(Failure::Said { message, hint }) => {
            out::say(&format!("creel: {message}"));
            if !hint.is_empty() {
                out::say(&format!("  hint: {hint}"));
            }
            ExitCode::from(2)
        }
    }
}
