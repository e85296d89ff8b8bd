//! `creel run learned`: what a learning run needed, as a profile that a person reads before it is used.
//!
//! Plans come from the daemon, because profiles are its bundle's; the proposal itself is computed here. The one fact a
//! newcomer gets wrong: nothing is installed. The text goes into `profiles/NAME.toml` of a bundle, by hand.

use std::path::{Path, PathBuf};

use clap::Args;
use creel_model::cage::CagePlan;
use creel_sandbox::learn::{Line, Needs, Proposal, Surroundings, propose};
use creel_sandbox::review::Folder;
use creel_wire::control::{Answer, ProfileView, Request};
use serde_json::json;

use super::review::{find, folder_failure};
use crate::connection::Daemon;
use crate::failure::{Exit, Failure, Outcome};
use crate::out::{self, Look};
use crate::text::{clean, count, table};

/// Arguments of `creel run learned`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  creel run --learn -- npm test                records what it needs\n  \
        creel run learned                            what came of the last one in this folder\n  \
        creel run learned --format toml > bundle/profiles/npm.toml")]
pub(crate) struct Learned {
    /// The run, or the beginning of its id; without it the last learning run of this folder.
    run: Option<String>,
    /// The profile to build on.
    #[arg(long, value_name = "PROFILE", default_value = "strict")]
    on: String,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Form,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For people.
    #[default]
    Table,
    /// As a profile's text.
    Toml,
    /// One JSON document.
    Json,
}

/// Prints the proposal.
pub(crate) fn learned(arguments: &Learned, runtime: Option<&Path>) -> Outcome {
    let is_learning = |path: &PathBuf| path.join("needed").exists();
    let folder = find(arguments.run.as_deref(), Folder::look, is_learning, "learning")?;
    let facts = folder.facts();
    let needs = Needs::of(&folder).map_err(folder_failure)?;
    let needs = needs.ok_or_else(|| {
        Failure::new(format!("run `{}` did not learn", facts.run)).hint("`creel run --learn -- COMMAND`")
    })?;
    let base = plan(&arguments.on, &facts.workspace, runtime)?;
    let present = plan(&facts.profile, &facts.workspace, runtime)?;
    let home = creel_discover::own().home;
    let look = |path: &str| std::fs::symlink_metadata(path).ok().map(|metadata| metadata.is_dir());
    let place = Surroundings { home: &home, workspace: &facts.workspace, look: &look };
    let proposal = propose(&needs, &arguments.on, &base, &present, &place);
    match arguments.format {
        Form::Toml => out::lines([proposal.toml(&format!("what run {} needed", facts.run)).trim_end()])?,
        Form::Json => out::json(&document(facts.run.as_str(), &facts.profile, &proposal), out::Format::Json)?,
        Form::Table => out::lines(lines(&facts.profile, &proposal, Look::of_stdout()))?,
    }
    Ok(Exit::Good)
}

fn plan(profile: &str, workspace: &str, runtime: Option<&Path>) -> Result<CagePlan, Failure> {
    let request = Request::ProfileShow { name: Some(profile.to_owned()), workspace: Some(workspace.to_owned()) };
    let check = Daemon::open(runtime)?.one(&request, |answer| match answer {
        Answer::Profiles(check) => Some(check),
        _ => None,
    })?;
    let shown = check.profiles.into_iter().find(|view: &ProfileView| view.name == profile);
    let plan = shown.and_then(|view| view.plan);
    plan.map(|plan| *plan).ok_or_else(|| Failure::new(format!("profile `{}` makes no plan here", clean(profile))))
}

fn lines(profile: &str, proposal: &Proposal, look: Look) -> Vec<String> {
    let mut lines = Vec::new();
    let row = |line: &Line| {
        let programs: Vec<&str> = line.programs.iter().map(|path| path.rsplit('/').next().unwrap_or(path)).collect();
        vec![
            if line.new { "+" } else { "" }.to_owned(),
            line.access.as_str().to_owned(),
            clean(&line.path),
            clean(&programs.join(", ")),
            clean(&format!("{} ({})", line.examples.join(", "), line.needs)),
        ]
    };
    let rows: Vec<Vec<String>> = proposal.lines.iter().map(row).collect();
    lines.push(look.bold(&format!("beside profile {}, the run needed", clean(&proposal.extends))));
    if rows.is_empty() {
        lines.push("  no files".to_owned());
    } else {
        lines.extend(table(&["NEW", "ACCESS", "PATH", "BY", "NEEDED FOR"], &rows, look.width));
        lines.push(look.dim(&format!("+ is not granted by profile {}", clean(profile))));
    }
    if proposal.cut > 0 {
        lines.push(format!("and {} more, beyond what one profile may hold", proposal.cut));
    }
    let mut part = |head: &str, items: Vec<String>| {
        if !items.is_empty() {
            lines.push(String::new());
            lines.push(look.bold(head));
            lines.extend(items.iter().map(|item| format!("  {}", clean(item))));
        }
    };
    part("ports of this machine", proposal.ports.iter().map(u16::to_string).collect());
    part("sockets of other programs", proposal.sockets.iter().cloned().collect());
    part("connections that no profile grants", proposal.elsewhere.iter().cloned().collect());
    part("refused while learning", proposal.refused.iter().map(|(path, rule)| format!("{path}  by {rule}")).collect());
    let unused = proposal.unused.iter().map(|(access, path)| format!("{} {path}", access.as_str()));
    part(&format!("granted by profile {}, and not needed this time", clean(profile)), unused.collect());
    if proposal.unplaced > 0 {
        lines.push(String::new());
        lines.push(format!("{} could not be placed", count(proposal.unplaced, "need")));
    }
    lines
}

fn document(run: &str, profile: &str, proposal: &Proposal) -> serde_json::Value {
    let line = |line: &Line| {
        json!({
            "access": line.access, "path": line.path, "new": line.new, "needs": line.needs,
            "programs": line.programs, "examples": line.examples,
        })
    };
    let unused = proposal.unused.iter().map(|(access, path)| json!({ "access": access, "path": path }));
    let refused = proposal.refused.iter().map(|(path, rule)| json!({ "path": path, "rule": rule }));
    json!({
        "run": run,
        "profile": profile,
        "extends": proposal.extends,
        "files": proposal.lines.iter().map(line).collect::<Vec<_>>(),
        "host_loopback_ports": proposal.ports,
        "sockets": proposal.sockets,
        "elsewhere": proposal.elsewhere,
        "refused": refused.collect::<Vec<_>>(),
        "unused": unused.collect::<Vec<_>>(),
        "unplaced": proposal.unplaced,
        "cut": proposal.cut,
    })
}
