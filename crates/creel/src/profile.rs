//! `creel profile`: what cages let agents reach, by the profiles of a bundle: shown, checked, compared.
//!
//! Profiles are text of the bundle; a plan is made of one by the rules' engine, so plans come from the daemon or, for a
//! folder, from its program (see [`crate::offline`]). Nothing is started here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use creel_model::cage::{CagePlan, FileAccess};
use creel_wire::control::{Answer, ProfileCheck, ProfileView, Request};
use serde::Deserialize;

use crate::connection::{Daemon, Place};
use crate::failure::{Exit, Failure, Outcome};
use crate::out::{self, Format, Look};
use crate::policy::mistakes;
use crate::text::{bytes, clean, count, table};
use crate::{offline, show};

/// Arguments of `creel profile`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  creel profile show                       the profiles of the rules in force\n  creel profile show claude-code           what Claude Code reaches in a cage, in this folder\n  creel profile check ./bundle             every mistake with file, line and column\n  creel profile diff strict default        what the second lets in beside the first\n  creel profile diff default --bundle ./b  what a changed bundle would let in"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show the profiles, or what one of them reaches.
    Show(Show),
    /// Check the profiles of a bundle folder.
    Check(Check),
    /// Show the difference between two profiles, or between a profile and the same one of another bundle.
    Diff(Diff),
}

#[derive(Debug, Args)]
struct Show {
    /// Only this one, with its plan.
    name: Option<String>,
    /// The workspace of the plan; this folder if not said.
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// Of this bundle folder instead of the rules in force.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
struct Check {
    /// The bundle's folder.
    folder: PathBuf,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
struct Diff {
    /// A profile.
    name: String,
    /// Another one; the same one of `--bundle` if not said.
    other: Option<String>,
    /// A bundle folder: the second profile is taken from there.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// The workspace of the plans; this folder if not said.
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Does it.
pub(crate) fn run(arguments: Arguments, runtime: Option<&Path>) -> Outcome {
    match arguments.verb {
        Verb::Show(arguments) => show_profiles(&arguments, runtime),
        Verb::Check(arguments) => check(&arguments),
        Verb::Diff(arguments) => diff(&arguments, runtime),
    }
}

/// What the offline question prints.
#[derive(Debug, Deserialize)]
struct Asked {
    check: ProfileCheck,
}

/// The profiles of a folder, of the rules in force, or of the built-in ones; with plans where a workspace is named.
fn profiles(
    name: Option<&str>,
    workspace: Option<&str>,
    bundle: Option<&Path>,
    runtime: Option<&Path>,
) -> Result<ProfileCheck, Failure> {
    let mut check = match (bundle, Daemon::try_open(&Place::find(runtime))?) {
        (None, Some(mut daemon)) => {
            let request =
                Request::ProfileShow { name: name.map(str::to_owned), workspace: workspace.map(str::to_owned) };
            daemon.one(&request, |answer| match answer {
                Answer::Profiles(check) => Some(check),
                _ => None,
            })?
        }
        (folder, _) => {
            let folder = folder.map(offline::folder).transpose()?;
            let question = if workspace.is_some() { "profile-show" } else { "profile-check" };
            let operands: Vec<&str> = workspace.into_iter().collect();
            let asked: Asked = offline::about_with(question, folder.as_deref(), &operands)?;
            asked.check
        }
    };
    check.profiles.retain(|profile| name.is_none_or(|name| profile.name == name));
    if let Some(name) = name.filter(|_| check.profiles.is_empty() && check.diagnostics.is_empty()) {
        let message = format!("there is no profile `{}`", clean(name));
        return Err(Failure::new(message).hint("`creel profile show` lists them"));
    }
    Ok(check)
}

fn workspace(named: Option<&Path>) -> Result<String, Failure> {
    let folder = named.unwrap_or(Path::new("."));
    let folder = std::fs::canonicalize(folder).map_err(|error| Failure::file("find", folder, &error))?;
    folder.into_os_string().into_string().map_err(|_| Failure::new("the workspace's name is not UTF-8"))
}

fn show_profiles(arguments: &Show, runtime: Option<&Path>) -> Outcome {
    let folder = arguments.name.as_ref().map(|_| workspace(arguments.workspace.as_deref())).transpose()?;
    let check = profiles(arguments.name.as_deref(), folder.as_deref(), arguments.bundle.as_deref(), runtime)?;
    if !check.diagnostics.is_empty() {
        mistakes(&check.diagnostics, arguments.format)?;
        return Ok(Exit::No);
    }
    out::list(&check.profiles, arguments.format, |look| match (&arguments.name, check.profiles.as_slice()) {
        (Some(_), [profile]) => plan_lines(profile, look),
        _ => list_lines(&check.profiles, look),
    })?;
    Ok(Exit::Good)
}

fn list_lines(profiles: &[ProfileView], look: Look) -> Vec<String> {
    let row = |profile: &ProfileView| {
        let kinds = profile.kinds.iter().map(|kind| clean(kind)).collect::<Vec<_>>().join(", ");
        vec![
            clean(&profile.name),
            profile.extends.as_deref().map(clean).unwrap_or_default(),
            kinds,
            clean(&profile.about),
        ]
    };
    table(&["PROFILE", "EXTENDS", "DEFAULT FOR", "ABOUT"], &profiles.iter().map(row).collect::<Vec<_>>(), look.width)
}

fn plan_lines(profile: &ProfileView, look: Look) -> Vec<String> {
    let mut lines = vec![look.bold(&format!("{} · {}", clean(&profile.name), clean(&profile.about)))];
    let Some(plan) = &profile.plan else { return lines };
    for (access, words) in [
        (FileAccess::Write, "writes"),
        (FileAccess::Execute, "executes and reads"),
        (FileAccess::Read, "reads"),
        (FileAccess::Deny, "never sees"),
    ] {
        let paths: Vec<String> =
            plan.files.iter().filter(|line| line.access == access).map(|line| clean(&line.path)).collect();
        paragraph(&mut lines, words, &paths, look);
    }
    let seals: Vec<String> = plan.seals.iter().map(|seal| clean(&seal.components.join("/"))).collect();
    paragraph(&mut lines, "sealed names", &BTreeSet::from_iter(seals).into_iter().collect::<Vec<_>>(), look);
    let ports: Vec<String> = plan.network.host_loopback_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    paragraph(&mut lines, "network", &if ports.is_empty() { vec!["none".to_owned()] } else { ports }, look);
    let sockets: Vec<String> = plan.sockets.iter().map(|socket| clean(&socket.host)).collect();
    paragraph(&mut lines, "sockets", &sockets, look);
    let set = plan.environment.set.iter().map(|(name, value)| format!("{}={}", clean(name), clean(value)));
    let variables: Vec<String> = plan.environment.pass.iter().map(|name| clean(name)).chain(set).collect();
    paragraph(&mut lines, "variables", &variables, look);
    paragraph(&mut lines, "limits", &limits(plan), look);
    for note in &profile.notes {
        lines.extend(show::wrap_kept(&format!("note: {}", clean(note)), look.width, 2));
    }
    lines
}

fn paragraph(lines: &mut Vec<String>, head: &str, items: &[String], look: Look) {
    if !items.is_empty() {
        lines.push(look.bold(head));
        lines.extend(show::wrap_kept(&format!("  {}", items.join("  ")), look.width, 2));
    }
}

fn limits(plan: &CagePlan) -> Vec<String> {
    let limits = &plan.limits;
    let sized = |what: &str, value: Option<u64>| value.map(|value| format!("{what} {}", bytes(value)));
    let counted = |what: &str, value: Option<u64>| value.map(|value| format!("{what} {value}"));
    let all = [
        counted("processes", limits.processes),
        sized("memory", limits.memory_bytes),
        counted("open files", limits.open_files),
        sized("file", limits.file_bytes),
        sized("temporary", limits.temporary_bytes),
        counted("seconds", limits.seconds),
    ];
    all.into_iter().flatten().collect()
}

fn check(arguments: &Check) -> Outcome {
    let check = profiles(None, None, Some(&arguments.folder), None)?;
    if !check.diagnostics.is_empty() {
        mistakes(&check.diagnostics, arguments.format)?;
        return Ok(Exit::No);
    }
    match arguments.format {
        Format::Table => out::lines([format!("{}, no mistakes", count(check.profiles.len() as u64, "profile"))])?,
        format => out::json(&check, format)?,
    }
    Ok(Exit::Good)
}

fn diff(arguments: &Diff, runtime: Option<&Path>) -> Outcome {
    if arguments.other.is_none() && arguments.bundle.is_none() {
        return Err(Failure::new("a difference is between two").hint("name another profile, or `--bundle DIR`"));
    }
    let folder = workspace(arguments.workspace.as_deref())?;
    let plan = |name: &str, bundle: Option<&Path>| -> Result<BTreeMap<String, String>, Failure> {
        let check = profiles(Some(name), Some(&folder), bundle, runtime)?;
        if let Some(fault) = check.diagnostics.first() {
            let message = format!("{}:{}: {}", clean(&fault.file), fault.line, clean(&fault.message));
            return Err(Failure::new(message).hint("`creel profile check DIR` lists all mistakes"));
        }
        let plan = check.profiles.into_iter().find_map(|profile| profile.plan);
        let plan = plan.ok_or_else(|| Failure::new("the daemon made no plan"))?;
        Ok(facts(&plan))
    };
    let first = plan(&arguments.name, None)?;
    let second = plan(arguments.other.as_ref().unwrap_or(&arguments.name), arguments.bundle.as_deref())?;
    let lines = difference(&first, &second);
    out::list(&lines, arguments.format, |_| lines.clone())?;
    Ok(if lines.is_empty() { Exit::Good } else { Exit::No })
}

/// A plan as words by what they are about.
fn facts(plan: &CagePlan) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    for line in &plan.files {
        facts.insert(format!("file {}", clean(&line.path)), line.access.to_string());
    }
    for seal in &plan.seals {
        facts.insert(format!("seal {}", clean(&seal.components.join("/"))), seal.kind.to_string());
    }
    for port in &plan.network.host_loopback_ports {
        facts.insert(format!("network 127.0.0.1:{port}"), "reached".to_owned());
    }
    for socket in &plan.sockets {
        facts.insert(format!("socket {}", clean(&socket.cage)), clean(&socket.host));
    }
    for name in &plan.environment.pass {
        facts.insert(format!("variable {}", clean(name)), "passed".to_owned());
    }
    for (name, value) in &plan.environment.set {
        facts.insert(format!("variable {}", clean(name)), format!("set to `{}`", clean(value)));
    }
    for program in &plan.programs {
        facts.insert(format!("program {}", clean(program)), "may be started".to_owned());
    }
    for limit in limits(plan) {
        let (what, value) = limit.rsplit_once(' ').unwrap_or((&limit, ""));
        facts.insert(format!("limit {what}"), value.to_owned());
    }
    facts.insert("degrade".to_owned(), plan.degrade.to_string());
    facts
}

/// `-` only in the first, `+` only in the second, `~` in both and not the same.
fn difference(first: &BTreeMap<String, String>, second: &BTreeMap<String, String>) -> Vec<String> {
    let about: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let line = |about: &String| match (first.get(about), second.get(about)) {
        (Some(one), Some(other)) if one == other => None,
        (Some(one), Some(other)) => Some(format!("~ {about}: {one} → {other}")),
        (Some(one), None) => Some(format!("- {about}: {one}")),
        (None, Some(other)) => Some(format!("+ {about}: {other}")),
        (None, None) => None,
    };
    about.into_iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_what_comes_goes_and_changes() {
        let of = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let first = of(&[("file /a", "read"), ("file /b", "write"), ("file /c", "read")]);
        let second = of(&[("file /a", "read"), ("file /b", "read"), ("file /d", "execute")]);
        assert_eq!(difference(&first, &second), ["~ file /b: write → read", "- file /c: read", "+ file /d: execute"]);
        assert!(difference(&first, &first).is_empty());
    }
}
