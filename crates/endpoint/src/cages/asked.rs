//! What a supervisor asks for: whether it makes sense, which agent it is about, whose run it becomes.
//!
//! Nothing is planned here. The one fact a newcomer gets wrong: the kind is looked for by the program's file, as for every
//! process, unless a person names it; the workspace and the program are only words until the launcher resolves them.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use creel_catalog::{Catalog, ProcessFacts};
use creel_discover::process;
use creel_guard::{Caller, RunKey};
use creel_model::cage::{CagePlan, FileAccess, FileRule};
use creel_model::{ApprovalMode, ProcessKey, RunId};
use creel_wire::control::{RefusalCode, RunStart};

use super::invalid;
use crate::control_server::{Asker, Refusal};
use crate::world::World;

/// Adds the repository of a worktree to its plan, as the account names it: the same word that names the workspace. It
/// gets the same seals. What a line of the plan speaks of already stays as it is; the launcher then says why git fails.
pub(super) fn grant_repository(plan: &mut CagePlan, repository: String, home: &str) {
    let path = Path::new(&repository);
    let plain =
        path.is_absolute() && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let above = |other: &str| Path::new(other).starts_with(path);
    let named = plan.files.iter().any(|rule| path.starts_with(&rule.path) || above(&rule.path));
    if plain && !named && !above(home) && !above(&plan.workspace) {
        let source = "the workspace is a worktree of this repository".to_owned();
        let access = FileAccess::Write;
        plan.files.push(FileRule { path: repository, access, optional: false, initial: None, make: false, source });
    }
}

/// What a request may be at all.
pub(super) fn check(start: &RunStart) -> Result<(), Refusal> {
    let paths = [Some(&start.workspace), Some(&start.program), start.found_as.as_ref()];
    if let Some(path) = paths.into_iter().flatten().find(|path| !path.starts_with('/') || path.len() > 4_096) {
        return Err(invalid(format!("`{}` is no absolute path", path.chars().take(256).collect::<String>()), ""));
    }
    let words: usize = start.command.iter().map(String::len).sum();
    if start.command.len() > creel_wire::control::COMMAND_WORDS_MAX || words > 8_192 {
        return Err(invalid("the command is too long for the record", "leave arguments out"));
    }
    Ok(())
}

/// The asking process as supervisor.
pub(super) fn supervisor(asker: &Asker) -> Result<ProcessKey, Refusal> {
    let pid = asker.peer.pid;
    let start_ticks = process::start_ticks(pid).filter(|_| asker.peer.is_still_there() != Some(false));
    let start_ticks =
        start_ticks.ok_or_else(|| Refusal::new(RefusalCode::Forbidden, "the process that asks has ended", ""))?;
    Ok(ProcessKey { pid, start_ticks })
}

/// Whose calls those of a run are.
pub(super) fn caller(
    world: &World,
    asker: &Asker,
    supervisor: ProcessKey,
    id: &RunId,
    kind: Option<&str>,
    workspace: &str,
) -> Caller {
    let posture = world.posture(kind.unwrap_or_default(), asker.uid);
    Caller {
        run: RunKey { boot_id: world.boot_id().to_owned(), process: supervisor, cage: Some(id.clone()) },
        kind: kind.unwrap_or("none").to_owned(),
        account: world.account(asker.uid),
        workspace: Some(workspace.to_owned()),
        temporary: vec!["/tmp".to_owned(), "/var/tmp".to_owned()],
        approval_mode: posture.map_or(ApprovalMode::Unknown, |posture| posture.approval_mode),
        managed: posture.is_some_and(|posture| posture.managed),
        mode: world.mode(),
        interactive: asker.terminal,
        caged: false,
        tier: String::new(),
        parent: None,
    }
}

/// The catalog kind that is asked for, or that the program is.
pub(super) fn kind_of(
    catalog: &Catalog,
    start: &RunStart,
    asker: ProcessKey,
    uid: u32,
) -> Result<Option<String>, Refusal> {
    if let Some(kind) = &start.kind {
        let known = catalog.kinds().iter().any(|known| known.id == *kind);
        let hint = "`creel agents` shows kinds; leave it out to find it from the program";
        return if known {
            Ok(Some(kind.clone()))
        } else {
            Err(invalid(format!("no kind `{kind}` in the catalog"), hint))
        };
    }
    let looks = |program: &str| {
        let bare = ProcessFacts::bare(asker, 0, uid);
        let itself = ProcessFacts { exe: program.to_owned(), argv: vec![program.to_owned()], ..bare.clone() };
        // A script is started by its interpreter.
        let script = |exe: &str| ProcessFacts {
            exe: exe.to_owned(),
            argv: vec![exe.to_owned(), program.to_owned()],
            cwd: "/".to_owned(),
            script: Some(program.to_owned()),
            ..bare.clone()
        };
        [itself, script("/usr/bin/node"), script("/usr/bin/python3")]
    };
    let programs = [Some(start.program.as_str()), start.found_as.as_deref()];
    let found = programs
        .into_iter()
        .flatten()
        .flat_map(looks)
        .find_map(|facts| Some(catalog.identify(&facts)?.kind.id.clone()));
    Ok(found)
}

/// What belongs to the command itself: the program, the way it was found, and the package that it is part of.
pub(super) fn programs(start: &RunStart) -> Vec<String> {
    let mut programs: BTreeSet<String> = BTreeSet::new();
    for path in [Some(&start.program), start.found_as.as_ref()].into_iter().flatten() {
        programs.insert(path.clone());
        // A package of node's runs files of its neighbours.
        if let Some((before, _)) = path.split_once("/node_modules/") {
            programs.insert(format!("{before}/node_modules"));
        }
    }
    programs.into_iter().collect()
}
