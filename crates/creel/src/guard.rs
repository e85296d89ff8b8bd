//! `creel guard`: wire protection into an agent's own configuration, prove it, take it out again exactly.
//!
//! The daemon does the work. Only `remove` also works without one: the daemon's program undoes it from the backup.

mod live;
mod model;

use std::path::Path;

use clap::{Args, Subcommand};
use creel_wire::control::{Answer, CanaryView, GuardChange, GuardStatusView, Purpose, Request, Scope};

use crate::connection::{Daemon, Place, pick_one};
use crate::failure::{Exit, Failure, Outcome};
use crate::out::{self, Format, Look};
use crate::text::{clean, pad};
use crate::{clock, offline, presence, show};

/// Arguments of `creel guard`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  creel guard install claude-code --dry-run    the difference, nothing written\n  creel guard install claude-code\n  creel guard canary claude-code --live        with the real agent, against a local model\n  creel guard remove claude-code"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Wire protection in, then prove it with a canary.
    Install(Install),
    /// Restore the agent's configuration exactly.
    Remove(Remove),
    /// Say where it is wired in, what drifted, and what bypasses it.
    Status(Status),
    /// Drive the hook as the agent would, and say whether it holds.
    Canary(Canary),
}

#[derive(Clone, Debug, Args)]
struct Change {
    /// The kind of agent, for example `claude-code` or `codex`.
    kind: String,
    /// For this account.
    #[arg(long, conflicts_with = "system")]
    user: bool,
    /// For every account, in the agent's managed settings.
    #[arg(long)]
    system: bool,
    /// Only show the difference.
    #[arg(long)]
    dry_run: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
struct Install {
    #[command(flatten)]
    change: Change,
    /// Prove it with the real agent against a local model endpoint, not only with the hook alone.
    #[arg(long, conflicts_with = "dry_run")]
    live: bool,
}

#[derive(Debug, Args)]
struct Remove {
    #[command(flatten)]
    change: Change,
    /// The code that `creel up` shows in another terminal.
    #[arg(long)]
    code: Option<String>,
    /// Undo from the backup without the daemon.
    #[arg(long)]
    offline: bool,
}

#[derive(Debug, Args)]
struct Status {
    /// Only this kind.
    kind: Option<String>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
struct Canary {
    /// The kind of agent.
    kind: String,
    /// What is installed for this account.
    #[arg(long, conflicts_with = "system")]
    user: bool,
    /// What is installed for every account.
    #[arg(long)]
    system: bool,
    /// With the real agent against a local model endpoint.
    #[arg(long)]
    live: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Does it.
pub(crate) fn run(arguments: Arguments, runtime: Option<&Path>) -> Outcome {
    match arguments.verb {
        Verb::Install(arguments) => install(&arguments, runtime),
        Verb::Remove(arguments) => remove(&arguments, runtime),
        Verb::Status(arguments) => status(arguments, runtime),
        Verb::Canary(arguments) => canary(arguments, runtime),
    }
}

/// The scope that was asked for; nothing said means the daemon's own.
fn scope(user: bool, system: bool, place: &Place) -> Scope {
    match (user, system) {
        (true, _) => Scope::User,
        (_, true) => Scope::System,
        _ if place.system => Scope::System,
        _ => Scope::User,
    }
}

fn changed(answer: Answer) -> Option<GuardChange> {
    match answer {
        Answer::GuardChanged(change) => Some(change),
        _ => None,
    }
}

fn install(arguments: &Install, runtime: Option<&Path>) -> Outcome {
    let change = &arguments.change;
    let scope = scope(change.user, change.system, &Place::find(runtime));
    let request = Request::GuardInstall { kind: change.kind.clone(), scope, dry_run: change.dry_run };
    if !change.dry_run {
        presence::not_below_agent()?;
    }
    if arguments.live {
        // Before anything is written: a proof that cannot be had is said first.
        live::may_run(&change.kind)?;
    }
    let mut daemon = Daemon::open(runtime)?;
    let mut done = daemon.one(&request, changed)?;
    if arguments.live && done.canary.as_ref().is_none_or(|canary| canary.effective) {
        done.canary = Some(live::prove(&mut daemon, &change.kind, Some(scope))?);
    }
    print(&done, change.format, true)?;
    let effective = done.canary.as_ref().is_none_or(|canary| canary.effective);
    Ok(if effective { Exit::Good } else { Exit::No })
}

fn remove(arguments: &Remove, runtime: Option<&Path>) -> Outcome {
    let change = &arguments.change;
    let place = Place::find(runtime);
    let scope = scope(change.user, change.system, &place);
    let daemon = if arguments.offline { None } else { Daemon::try_open(&place).unwrap_or_default() };
    let done = match daemon {
        Some(mut daemon) => {
            let request =
                |code| Request::GuardRemove { kind: change.kind.clone(), scope, dry_run: change.dry_run, code };
            let answers = if change.dry_run {
                daemon.ask(&request(None))?
            } else {
                let purpose = Purpose::GuardRemove { kind: change.kind.clone() };
                presence::carry_out(&mut daemon, &purpose, arguments.code.as_deref(), &request)?
            };
            pick_one(answers, changed)?
        }
        None => {
            if !change.dry_run {
                presence::not_below_agent()?;
            }
            let mut operands = vec![change.kind.as_str(), scope.as_str()];
            if change.dry_run {
                operands.push("--dry-run");
            }
            offline::ask::<offline::Removed>("guard-remove", &operands)?.change
        }
    };
    print(&done, change.format, false)?;
    Ok(Exit::Good)
}

fn print(change: &GuardChange, format: Format, installed: bool) -> Result<(), Failure> {
    match format {
        Format::Table => out::lines(change_lines(change, installed, Look::of_stdout())),
        format => out::json(change, format),
    }
}

fn change_lines(change: &GuardChange, installed: bool, look: Look) -> Vec<String> {
    let mut lines = Vec::new();
    for file in &change.files {
        let new = match (file.created_or_removed, installed) {
            (true, true) => " (new)",
            (true, false) => " (goes away)",
            (false, _) => "",
        };
        lines.push(look.bold(&format!("{}{new}", clean(&file.path))));
        lines.extend(file.difference.lines().map(|line| format!("  {}", clean(line))));
        if let Some(backup) = &file.backup {
            lines.push(format!("  former bytes: {}", clean(backup)));
        }
    }
    for silenced in &change.silenced {
        lines.extend(show::wrap_kept(&format!("loses its effect: {}", clean(silenced)), look.width, 2));
    }
    for note in &change.notes {
        lines.extend(show::wrap_kept(&format!("note: {}", clean(note)), look.width, 6));
    }
    let kind = clean(&change.kind);
    let scope = change.scope.as_str();
    lines.push(match (change.files.is_empty(), change.dry_run, installed) {
        (true, _, true) => format!("{kind} ({scope}): already installed, nothing to change"),
        (true, _, false) => format!("{kind} ({scope}): nothing is installed"),
        (false, true, _) => "nothing was written (dry run)".to_owned(),
        (false, false, true) => format!("{kind} ({scope}): installed; undo with `creel guard remove {kind} --{scope}`"),
        (false, false, false) => format!("{kind} ({scope}): removed, every file as it was"),
    });
    if let Some(canary) = &change.canary {
        lines.extend(canary_lines(canary, look));
    }
    lines
}

fn status(arguments: Status, runtime: Option<&Path>) -> Outcome {
    let request = Request::GuardStatus { kind: arguments.kind };
    let states = Daemon::open(runtime)?.one(&request, |answer| match answer {
        Answer::GuardStatus(states) => Some(states),
        _ => None,
    })?;
    out::list(&states, arguments.format, |look| states.iter().flat_map(|state| status_lines(state, look)).collect())?;
    Ok(Exit::Good)
}

fn status_lines(state: &GuardStatusView, look: Look) -> Vec<String> {
    let account = state.account.as_ref().map_or(String::new(), |account| format!(" {}", clean(account)));
    let mut lines = vec![look.bold(&format!(
        "{} ({}{account}): {}",
        clean(&state.kind),
        state.scope.as_str(),
        state.state.as_str()
    ))];
    for (name, facts) in [("drift", &state.drift), ("bypass", &state.bypasses), ("limit", &state.limits)] {
        for fact in facts {
            lines.extend(show::wrap_kept(&format!("  {} {}", pad(name, 7), clean(fact)), look.width, 10));
        }
    }
    if let Some(canary) = &state.canary {
        lines.extend(canary_lines(canary, look));
    }
    lines
}

fn canary(arguments: Canary, runtime: Option<&Path>) -> Outcome {
    let scope = match (arguments.user, arguments.system) {
        (_, true) => Some(Scope::System),
        (true, false) => Some(Scope::User),
        (false, false) => None,
    };
    let mut daemon = Daemon::open(runtime)?;
    let canary = if arguments.live {
        live::may_run(&arguments.kind)?;
        live::prove(&mut daemon, &arguments.kind, scope)?
    } else {
        let request = Request::GuardCanary { kind: arguments.kind, scope, live: false };
        daemon.one(&request, |answer| match answer {
            Answer::Canary(canary) => Some(canary),
            _ => None,
        })?
    };
    match arguments.format {
        Format::Table => out::lines(canary_lines(&canary, Look::of_stdout()))?,
        format => out::json(&canary, format)?,
    }
    Ok(if canary.effective { Exit::Good } else { Exit::No })
}

fn canary_lines(canary: &CanaryView, look: Look) -> Vec<String> {
    let how = if canary.live { "the real agent" } else { "the hook as the agent runs it" };
    let version = canary.version.as_ref().map_or(String::new(), |version| format!(" {}", clean(version)));
    let at = clock::date_time(canary.at_unix_ns);
    let verdict = if canary.effective {
        "effective".to_owned()
    } else {
        format!("not effective, because {}", clean(&canary.because))
    };
    let line = format!("canary: {}{version} {verdict} ({how}, {at})", clean(&canary.kind));
    let mut lines = show::wrap_kept(&line, look.width, 8);
    for step in &canary.steps {
        lines.extend(show::wrap_kept(&format!("  {}", clean(step)), look.width, 4));
    }
    lines
}

#[cfg(test)]
mod tests {
    use creel_wire::control::FileChange;

    use super::*;

    fn change(files: Vec<FileChange>, dry_run: bool) -> GuardChange {
        GuardChange {
            kind: "claude-code".to_owned(),
            scope: Scope::User,
            dry_run,
            files,
            silenced: vec!["hooks.Stop in /home/ada/.claude/settings.json".to_owned()],
            notes: Vec::new(),
            canary: None,
        }
    }

    #[test]
    fn a_change_says_what_is_written_and_how_to_undo_it() {
        let file = FileChange {
            path: "/home/ada/.claude/settings.json".to_owned(),
            created_or_removed: true,
            difference: "+ {\n+ }".to_owned(),
            backup: None,
        };
        let look = Look { width: 80, decorated: false };
        let text = change_lines(&change(vec![file.clone()], false), true, look).join("\n");
        assert!(text.contains("settings.json (new)\n  + {\n  + }"), "{text}");
        assert!(text.contains("loses its effect: hooks.Stop"));
        assert!(text.contains("undo with `creel guard remove claude-code --user`"));
        let text = change_lines(&change(vec![file], true), true, look).join("\n");
        assert!(text.contains("nothing was written (dry run)"));
        let text = change_lines(&change(Vec::new(), false), true, look).join("\n");
        assert!(text.contains("already installed"));
    }
}
