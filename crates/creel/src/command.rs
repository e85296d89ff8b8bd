//! The command line as types: one variant per command, its arguments beside its function in its own file.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::failure::Outcome;
use crate::{
    agents, approvals, break_glass, demo, doctor, guard, inspect, log, policy, profile, programs, run, runs, service,
    status, support, up, why,
};

/// Finds the AI agents of this machine, bounds what they can reach, judges what they do, and keeps the proof.
#[derive(Debug, Parser)]
#[command(name = "creel", version, disable_help_subcommand = true, after_help = EXAMPLES)]
pub(crate) struct Line {
    /// Folder of the daemon's sockets, for development.
    #[arg(long, global = true, hide = true, value_name = "DIR")]
    runtime: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  creel up                                start creel here and watch
  creel run -- claude                     start an agent in a cage, on this folder
  creel guard install claude-code         let creel judge what Claude Code does; undone by `guard remove`
  creel log --follow                      what happens, decision by decision
  creel policy report                     what the rules would have stopped
  creel policy enforce                    let them stop it
  creel demo                              see it work without any agent

Exit codes: 0 done; 1 done, and the answer is no; 2 not done.";

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one value per run of the program")]
enum Command {
    /// Start creel on this machine and show what happens.
    Up(up::Arguments),
    /// Say whether creel runs, what protects and what it cannot hold; with a run: what holds in its cage.
    Status(status::Arguments),
    /// Stop creel; the record is sealed.
    Down,
    /// Read, check, export and erase the record.
    Log(log::Arguments),
    /// Test, show, explain and change the rules.
    Policy(policy::Arguments),
    /// What cages let agents reach: show, check and compare profiles.
    Profile(profile::Arguments),
    /// What a cage refused last, and why.
    Why(why::Arguments),
    /// Let creel judge an agent, or stop doing so.
    Guard(guard::Arguments),
    /// Questions that wait for a person.
    Approvals(approvals::List),
    /// Answer a question with yes, once.
    Approve(approvals::Approve),
    /// Answer a question with no.
    Deny(approvals::Deny),
    /// For a limited time, stop nothing and record everything.
    BreakGlass(break_glass::Arguments),
    /// The agents that the daemon knows.
    Agents(agents::Agents),
    /// Look for agents now, without a daemon; executes nothing.
    Scan(agents::Scan),
    /// Say what is in a text or command; needs no daemon.
    Inspect(inspect::Arguments),
    /// Play a recorded attack through the real hook, daemon and rules; leaves nothing behind.
    Demo(demo::Arguments),
    /// Install creel as a system service, under its own account.
    Service(service::Arguments),
    /// Run a command in a cage that reaches only what its profile grants.
    Run(run::Arguments),
    /// What cages can hold on this machine, found out by trying; needs no daemon.
    Doctor(doctor::Arguments),
    /// The runs in cages: list, attach, signal, stop, start more in one.
    Runs(runs::Arguments),
    /// Put together a diagnosis without secrets or content, for a bug report.
    Support(support::Arguments),
    /// Becomes PROGRAM in a session of its own; used by `up --detach`.
    #[command(hide = true)]
    RunDetached {
        program: PathBuf,
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Plays the demonstration's calls; used by `demo`.
    #[command(hide = true)]
    DemoAgent(demo::Stage),
}

impl Line {
    /// Does it.
    pub(crate) fn run(self) -> Outcome {
        let runtime = self.runtime.as_deref();
        match self.command {
            Command::Up(arguments) => up::run(&arguments, runtime),
            Command::Status(arguments) => status::run(&arguments, runtime),
            Command::Down => up::down(runtime),
            Command::Log(arguments) => log::run(arguments, runtime),
            Command::Policy(arguments) => policy::run(arguments, runtime),
            Command::Profile(arguments) => profile::run(arguments, runtime),
            Command::Why(arguments) => why::run(&arguments, runtime),
            Command::Guard(arguments) => guard::run(arguments, runtime),
            Command::Approvals(arguments) => approvals::list(&arguments, runtime),
            Command::Approve(arguments) => approvals::approve(arguments, runtime),
            Command::Deny(arguments) => approvals::deny(arguments, runtime),
            Command::BreakGlass(arguments) => break_glass::run(arguments, runtime),
            Command::Agents(arguments) => agents::known(&arguments, runtime),
            Command::Scan(arguments) => agents::scan(&arguments),
            Command::Inspect(arguments) => inspect::run(&arguments),
            Command::Demo(arguments) => demo::run(&arguments),
            Command::Service(arguments) => service::run(arguments),
            Command::Support(arguments) => support::run(&arguments, runtime),
            Command::Run(arguments) => run::run(&arguments, runtime),
            Command::Doctor(arguments) => doctor::run(&arguments),
            Command::Runs(arguments) => runs::run(&arguments, runtime),
            Command::RunDetached { program, arguments } => programs::detached(&program, &arguments),
            Command::DemoAgent(stage) => demo::stage(&stage),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Line::command().debug_assert();
    }

    #[test]
    fn every_command_has_a_help_of_its_own() {
        for command in Line::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }
}
