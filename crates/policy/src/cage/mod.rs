//! Profiles and the floor to the plan of a cage.
//!
//! A plan is floor ∧ profile: what the profile grants, less what the bundle's rules refuse whatever the situation is.
//! Zones that may not be read become `deny` lines inside grants, zones that may not be written become seals. Pure: which
//! of the paths exist is found out by the launcher.
//!
//! The one fact a newcomer gets wrong: a cage cannot ask. Where the rules say *ask*, a plan refuses, unless the profile
//! names that very path in a line of its own; where they say *deny*, no line of any profile opens it.

mod compile;
mod merge;
mod profile;
mod reach;
mod zones;

use std::collections::BTreeSet;

use creel_model::RunId;
use creel_model::cage::{CagePlan, WorkspaceMode};

use crate::question::Places;

pub(crate) use merge::Profiles;
pub(crate) use profile::{FOLDER, name_of};
pub use reach::{Reach, reach};
pub(crate) use zones::{Hold, holds};

/// What a plan is asked for.
#[derive(Clone, Debug)]
pub struct CageRequest<'a> {
    /// The run.
    pub run: RunId,
    /// Name of the profile; absent: the default for `kind`, else the profile `default`.
    pub profile: Option<&'a str>,
    /// Catalog kind of the agent.
    pub kind: Option<&'a str>,
    /// The account's home and the workspace, which must be there.
    pub places: &'a Places,
    /// How writes reach the disk.
    pub mode: WorkspaceMode,
    /// Learn instead of refusing.
    pub learn: bool,
    /// At most so many seconds, beside the profile's own limit.
    pub seconds: Option<u64>,
    /// Files and folders that belong to the command itself: granted for execution where nothing else grants them.
    pub programs: &'a [String],
    /// creel's hook program, granted for execution.
    pub hook: Option<&'a str>,
    /// creel's own folders on this machine (state, sockets): never in a cage.
    pub never: &'a [String],
}

/// A plan and what a person should know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// The plan.
    pub plan: CagePlan,
    /// What it narrows or does not hold, and why; at most 64.
    pub notes: Vec<String>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoPlan {
    /// What is wrong, in lower case.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl std::fmt::Display for NoPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.hint)
    }
}

impl std::error::Error for NoPlan {}

/// A profile for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileInfo {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub about: String,
    /// The profile it adds to.
    pub extends: Option<String>,
    /// The kinds it is the default for.
    pub kinds: BTreeSet<String>,
}
