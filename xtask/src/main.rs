//! House rules as programs: `cargo xtask COMMAND`, and `./dev test` behind its front door.
//!
//! Turns the checkout into a list of complaints, or a run of every check into one line, `N passed, N failed`.
//! It knows nothing of what creel does; it reads manifests, sources and papers, and starts other programs.
//! A newcomer gets wrong: it is never part of the product, and the product never depends on it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people at a terminal and for logs")]

mod advisories;
mod commands;
mod place;
mod report;
mod suite;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "usage: cargo xtask COMMAND

  test [--all] [--only STEP]…   every check and test
  tidy [--write]                house rules; --write renews xtask/dependencies.toml and generated files
  advisories                    known faults of our dependencies, from the vendored snapshot
  commands PROGRAMS             the commands in README.md exist; those marked to be run do run";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Result<ExitCode> {
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", arguments),
    };
    match command {
        "test" => test::run(rest),
        "tidy" => report::print(&tidy::check(rest.iter().any(|a| a == "--write"))?),
        "advisories" => report::print(&advisories::check()?),
        "commands" => match rest {
            [programs] => report::print(&commands::check(programs.as_ref())?),
            _ => bail!("`commands` needs the folder that holds the programs"),
        },
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        other => bail!("no such command `{other}`\n\n{USAGE}"),
    }
}
