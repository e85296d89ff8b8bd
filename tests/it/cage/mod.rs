//! What a cage holds, tried from inside by an unprivileged account, with the real programs and the real agents.
//!
//! `bare` shows that each attempt can succeed at all; the others that none does in a cage: `battery` in one run with
//! the profile for any program, `places` in workspaces that were laid as traps, `profiles` with what a profile says.

mod agents;
mod bare;
mod battery;
mod faults;
mod hosts;
mod places;
mod profiles;
mod remote;

use creel_tests::{Account, Attempt, Creel, ESCAPE, Finished, Run, Stage, attempts};

/// The starter bundle, to which a test adds profiles.
const STARTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/starter");

/// The project that most tests work in.
const WORKSPACE: &str = "/home/dana/project";

/// Variables that carry secrets, or that make an ordinary program load or start something.
const VARIABLES: &[&str] = &[
    "AWS_SECRET_ACCESS_KEY",
    "GITHUB_TOKEN",
    "SSH_AUTH_SOCK",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "LD_LIBRARY_PATH",
    "NODE_OPTIONS",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PERL5OPT",
    "RUBYOPT",
    "BASH_ENV",
    "PROMPT_COMMAND",
    "GIT_SSH_COMMAND",
    "GIT_CONFIG_COUNT",
    "GIT_EXEC_PATH",
    "GIT_EXTERNAL_DIFF",
    "GIT_ASKPASS",
];

/// creel in user mode with a bundle that also holds these profiles (name, text).
fn creel_with<'stage>(stage: &'stage Stage, profiles: &[(&str, String)]) -> Creel<'stage> {
    if !profiles.is_empty() {
        let folder = "/home/dana/.config/creel/policy";
        copy(stage, Account::USER, std::path::Path::new(STARTER), folder);
        for (name, text) in profiles {
            stage.write(Account::USER, &format!("{folder}/profiles/{name}.toml"), text).unwrap();
        }
    }
    Creel::user(stage, Account::USER).unwrap()
}

/// A folder of the checkout onto the stage.
fn copy(stage: &Stage, account: Account, from: &std::path::Path, to: &str) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{to}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            copy(stage, account, &entry.path(), &name);
        } else {
            stage.write(account, &name, std::fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

/// `creel run` with options in front of the command.
fn caged<'stage>(stage: &'stage Stage, workspace: &str, options: &[&str], command: &[&str]) -> Run<'stage> {
    stage
        .run(Account::USER, "creel")
        .arguments(["run", "--workspace", workspace])
        .arguments(options.iter().copied())
        .argument("--")
        .arguments(command.iter().copied())
        .folder(workspace)
}

/// Tries cases in a cage and gives what was not held.
fn not_held(stage: &Stage, workspace: &str, options: &[&str], facts: &str, cases: &[&str]) -> Vec<Attempt> {
    let mut command = vec![ESCAPE, "try", facts];
    command.extend(cases);
    let ended = caged(stage, workspace, options, &command).finish(300).unwrap().well().unwrap();
    open(&ended, cases)
}

/// What was not held.
fn open(ended: &Finished, cases: &[&str]) -> Vec<Attempt> {
    let mut tried = attempts(ended, cases).unwrap();
    tried.retain(|attempt| attempt.outcome != "held");
    tried
}

/// A shell on the stage that has to succeed.
fn sh(stage: &Stage, account: Account, script: &str) -> Finished {
    stage.run(account, "sh").arguments(["-euc", script]).finish(60).unwrap().well().unwrap()
}
