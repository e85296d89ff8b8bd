//! A machine → a report per agent: collects with each account's rights, looks at processes, lets the catalog judge.

use std::path::Path;

use creel_catalog::document::Document;
use creel_catalog::posture::newest_first;
use creel_catalog::{AgentReport, Catalog, Facts, Format, Installation, ProcessFacts, Scope, posture};
use creel_model::Account;

use crate::accounts::as_account;
use crate::collect::{Bounds, Collected, Program, collect};
use crate::process;
use crate::read::Machine;

/// What a scan tells while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// It looks at this account's folders now.
    Account(&'a Account),
    /// It could not look at this account's folders: why.
    Skipped(&'a Account, String),
    /// It walked through a home folder and came to a bound, so that projects may be missing.
    CutOff(&'a Account),
}

/// Scans a machine (`/`, or a folder laid out like one) for the agents of these accounts. Only what is present is
/// reported. Never fails: what cannot be read is left out or a finding.
#[must_use]
pub fn scan(
    root: &Path,
    accounts: &[Account],
    catalog: &Catalog,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Vec<AgentReport> {
    scan_within(root, accounts, catalog, &Bounds::default(), progress)
}

/// [`scan`] with other bounds for the walk through the home folders.
#[must_use]
pub fn scan_within(
    root: &Path,
    accounts: &[Account],
    catalog: &Catalog,
    bounds: &Bounds,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Vec<AgentReport> {
    let Ok(machine) = Machine::open(root) else { return Vec::new() };
    let processes = if machine.is_live() { process::agents(catalog) } else { Vec::new() };
    let mut reports = Vec::new();
    for account in accounts {
        progress(Progress::Account(account));
        // Of a folder laid out like a machine we are a reader like any other: its accounts are not ours.
        let collected = if machine.is_live() {
            as_account(account.uid, || collect(&machine, account, catalog, bounds))
        } else {
            Ok(collect(&machine, account, catalog, bounds))
        };
        match collected {
            Ok(collected) => {
                if collected.walk.cut_off {
                    progress(Progress::CutOff(account));
                }
                reports.extend(judge(&collected, account, catalog, &processes));
            }
            Err(error) => progress(Progress::Skipped(account, error.to_string())),
        }
    }
    reports
}

/// What was collected for one account, with the machine's agent processes → its reports.
#[must_use]
pub fn judge(
    collected: &Collected,
    account: &Account,
    catalog: &Catalog,
    processes: &[(String, ProcessFacts)],
) -> Vec<AgentReport> {
    let mut reports = Vec::new();
    for kind in catalog.kinds() {
        let Some(pieces) = collected.kinds.get(&kind.id) else { continue };
        let own = processes.iter().filter(|(id, facts)| *id == kind.id && facts.uid == account.uid);
        let own: Vec<ProcessFacts> = own.map(|(_, facts)| facts.clone()).collect();
        let installed = newest_first(pieces.programs.iter().map(installation).collect());
        let facts = Facts {
            account,
            installed: &installed,
            files: &pieces.files,
            processes: &own,
            instructions: &pieces.instructions,
            skills: &pieces.skills,
        };
        // An administrator's file alone makes no agent of an account that has none.
        let own_file = |file: &creel_catalog::ConfigFile| {
            kind.place(&file.place).is_some_and(|place| !matches!(place.scope, Scope::Managed | Scope::System))
        };
        let signs = !own.is_empty() || !installed.is_empty() || pieces.files.iter().any(own_file);
        if signs {
            reports.push(posture(kind, &facts));
        }
    }
    reports
}

fn installation(program: &Program) -> Installation {
    let described = program.description.as_ref().and_then(|text| {
        let document = Document::parse(Format::Json, text).ok()?;
        document.root.get("version")?.as_str().map(|version| creel_catalog::checks::clip(version, 40))
    });
    Installation { path: program.path.clone(), version: program.version.clone().or(described) }
}
