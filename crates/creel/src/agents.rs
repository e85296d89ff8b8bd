//! `creel agents` (what the daemon knows) and `creel scan` (look now, without a daemon). Nothing is executed.

use std::path::{Path, PathBuf};

use clap::Args;
use creel_catalog::{AgentReport, Catalog};
use creel_discover::scan::Progress;
use creel_wire::control::{AgentView, Answer, Governed, Request};

use crate::connection::Daemon;
use crate::failure::{Exit, Outcome};
use crate::out::{self, Format};
use crate::show;

/// Arguments of `creel agents`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  creel agents\n  creel agents --details\n  creel agents --scan --format json")]
pub(crate) struct Agents {
    /// Look again first.
    #[arg(long)]
    scan: bool,
    /// Of every account (needs the right to).
    #[arg(long)]
    all_users: bool,
    /// Everything known, not only one line each.
    #[arg(long)]
    details: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Arguments of `creel scan`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  creel scan\n  sudo creel scan --all-users --format json\n  creel scan --root /mnt/image --all-users      a disk image or a backup"
)]
pub(crate) struct Scan {
    /// Of every account with a home folder.
    #[arg(long)]
    pub(crate) all_users: bool,
    /// A folder laid out like a machine, instead of this one.
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// One line per agent, without its findings.
    #[arg(long)]
    brief: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What the daemon knows.
pub(crate) fn known(arguments: &Agents, runtime: Option<&Path>) -> Outcome {
    let request = Request::Agents { scan: arguments.scan, all_users: arguments.all_users };
    let mut agents = Vec::new();
    for answer in Daemon::open(runtime)?.ask(&request)? {
        if let Answer::Agents(more) = answer {
            agents.extend(more);
        }
    }
    print(&agents, arguments.format, arguments.details)
}

fn print(agents: &[AgentView], format: Format, details: bool) -> Outcome {
    if agents.is_empty() && format == Format::Table {
        out::lines(["no agent found"])?;
        return Ok(Exit::Good);
    }
    out::list(agents, format, |look| {
        let mut lines = show::agents(agents, look);
        if details {
            for agent in agents {
                lines.push(String::new());
                lines.extend(show::agent_details(agent, look));
            }
        }
        lines
    })?;
    Ok(Exit::Good)
}

/// Looks now.
pub(crate) fn scan(arguments: &Scan) -> Outcome {
    let root = arguments.root.as_deref().unwrap_or(Path::new("/"));
    let accounts = match (&arguments.root, arguments.all_users) {
        (None, false) => vec![creel_discover::own()],
        _ => creel_discover::accounts(root),
    };
    if accounts.is_empty() {
        out::say("no account with a home folder there");
    }
    let catalog = Catalog::built_in();
    let reports = creel_discover::scan(root, &accounts, &catalog, &mut |progress| match progress {
        Progress::Account(_) => {}
        Progress::Skipped(account, why) => out::say(&format!("account {} is left out: {why}", account.name)),
        Progress::CutOff(account) => {
            out::say(&format!("the home of {} is too large to walk through; projects may be missing", account.name));
        }
    });
    if arguments.format != Format::Table {
        out::list(&reports, arguments.format, |_| Vec::new())?;
        return Ok(Exit::Good);
    }
    let views: Vec<AgentView> = reports.iter().map(view).collect();
    print(&views, Format::Table, !arguments.brief)
}

/// A scan's report in the words of the control socket. Whether creel's hook *works* only a canary knows, so a hook that
/// stands in the configuration is `partly` here.
pub(crate) fn view(report: &AgentReport) -> AgentView {
    let supported = !creel_dialect::kinds::events(&report.kind).is_empty();
    let (governed, because) = match (supported, report.has_creel_hook()) {
        (_, true) => (Governed::Partly, "creel's hook is configured; a canary shows whether it works"),
        (true, false) => (Governed::No, "no hook of creel is configured"),
        (false, false) => (Governed::Unsupported, "creel does not speak this agent's hook protocol yet"),
    };
    creel_discover::agent_view(report, governed, because.to_owned(), |_| None)
}
