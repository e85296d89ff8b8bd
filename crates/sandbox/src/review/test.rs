//! Small plans for this folder's tests.

use std::path::Path;

use creel_model::cage::{CAGE_PLAN_VERSION, CagePlan, Degrade, Seal, SealKind, WorkspaceMode};
use creel_model::id::{Digest, RunId};

/// A plan with nothing in it but a workspace and three seals.
pub(crate) fn plan(run: &str, workspace: &Path, mode: WorkspaceMode) -> CagePlan {
    let seal = |components: &[&str], kind| Seal {
        components: components.iter().map(|part| (*part).to_owned()).collect(),
        kind,
        rule: "write-exec-bearing".to_owned(),
        below: None,
    };
    CagePlan {
        version: CAGE_PLAN_VERSION,
        run: RunId(run.to_owned()),
        profile: "test".to_owned(),
        kind: None,
        bundle: Digest::from_bytes(&[0; 32]),
        workspace: workspace.to_str().unwrap().to_owned(),
        mode,
        files: Vec::new(),
        seals: vec![
            seal(&[".git", "hooks"], SealKind::Directory),
            seal(&[".github", "workflows"], SealKind::Directory),
            seal(&["package.json"], SealKind::File),
            seal(&[".git", "config"], SealKind::GitConfig),
        ],
        programs: Vec::new(),
        network: Default::default(),
        sockets: Vec::new(),
        environment: Default::default(),
        limits: Default::default(),
        degrade: Degrade::Refuse,
        learn: false,
    }
}
