//! The profiles of a bundle and its bases, and one profile joined with those it extends.
//!
//! Lists add up, single values are replaced by the nearest. The one fact a newcomer gets wrong: lines of files are not
//! replaced by later ones for *other* paths; the longest path that contains an object counts, wherever it was written.

use std::collections::{BTreeMap, BTreeSet};

use super::ProfileInfo;
use super::profile::{self, PROFILES_MAX, Profile};
use crate::text::Faults;

/// Longest chain of `extends`, the profile itself counted.
const CHAIN_MAX: usize = 8;

/// All profiles, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Profiles {
    profiles: BTreeMap<String, Profile>,
    /// Kind to the profile that is its default, with the layer that said so.
    defaults: BTreeMap<String, (usize, String)>,
}

impl Profiles {
    /// Adds one file of a layer. `delegated`: the layers below let this one add profiles.
    pub(crate) fn add(
        &mut self,
        layer: usize,
        file: &str,
        text: &str,
        zones: &BTreeSet<String>,
        delegated: bool,
        faults: &mut Faults,
    ) {
        let Some(profile) = profile::read(file, text, zones, faults) else { return };
        if layer > 0 && !delegated {
            let hint = "the base must delegate it: `[delegate] profiles = true` in its bundle.toml";
            faults.at(file, text, 0, "a layer adds a profile".to_owned(), "rules, zones and exceptions", hint);
        }
        if self.profiles.contains_key(&profile.name) {
            let message = format!("profile `{}` is declared twice", profile.name);
            faults.at(
                file,
                text,
                0,
                message,
                "each name once, bases included",
                "give it another name and extend the other",
            );
            return;
        }
        if self.profiles.len() >= PROFILES_MAX {
            faults.at(file, text, 0, "too many profiles".to_owned(), "at most 128", "join some");
            return;
        }
        for kind in &profile.kinds {
            match self.defaults.get(kind) {
                Some((known, other)) if *known == layer => {
                    let at = text.find(&format!("\"{kind}\"")).unwrap_or(0);
                    let message = format!("`{kind}` has the default profile `{other}` already");
                    faults.at(
                        file,
                        text,
                        at,
                        message,
                        "one default for each kind",
                        "remove the kind from one of the two",
                    );
                }
                _ => {
                    self.defaults.insert(kind.clone(), (layer, profile.name.clone()));
                }
            }
        }
        self.profiles.insert(profile.name.clone(), profile);
    }

    /// Refuses profiles that extend nothing known, or themselves.
    pub(crate) fn check(&self, files: &BTreeMap<String, String>, faults: &mut Faults) {
        for profile in self.profiles.values() {
            let file = format!("{}{}.toml", profile::FOLDER, profile.name);
            // Those of a base were checked with it.
            let Some(text) = files.get(&file) else { continue };
            let Some(extends) = &profile.extends else { continue };
            let at = text.find("extends").unwrap_or(0);
            if !self.profiles.contains_key(extends) {
                let message = format!("extends the unknown profile `{extends}`");
                faults.at(&file, text, at, message, "a profile's name", "it is the name of its file without `.toml`");
            } else if self.chain(&profile.name).is_none() {
                let message = format!("extends `{extends}`, which leads back here or too far");
                faults.at(&file, text, at, message, "at most 8 profiles in a line", "cut the circle");
            }
        }
    }

    /// For people, by name.
    pub(crate) fn infos(&self) -> Vec<ProfileInfo> {
        let info = |profile: &Profile| ProfileInfo {
            name: profile.name.clone(),
            about: profile.about.clone(),
            extends: profile.extends.clone(),
            kinds: profile.kinds.clone(),
        };
        self.profiles.values().map(info).collect()
    }

    /// The default for a kind, else `default`.
    pub(crate) fn default_for(&self, kind: Option<&str>) -> &str {
        kind.and_then(|kind| self.defaults.get(kind)).map_or("default", |(_, name)| name.as_str())
    }

    /// A profile with everything it extends, the nearest word counting.
    pub(crate) fn joined(&self, name: &str) -> Option<Profile> {
        let chain = self.chain(name)?;
        let mut joined = Profile::default();
        for profile in chain.into_iter().rev() {
            joined.name.clone_from(&profile.name);
            joined.about.clone_from(&profile.about);
            joined.extends.clone_from(&profile.extends);
            joined.kinds.clone_from(&profile.kinds);
            joined.degrade = profile.degrade.or(joined.degrade);
            joined.files.extend(profile.files.iter().cloned());
            if profile.programs.is_some() {
                joined.programs.clone_from(&profile.programs);
            }
            joined.ports.extend(&profile.ports);
            joined.sockets.extend(profile.sockets.iter().cloned());
            joined.pass.extend(profile.pass.iter().cloned());
            joined.set.extend(profile.set.iter().map(|(name, value)| (name.clone(), value.clone())));
            joined.seals.extend(profile.seals.iter().cloned());
            let (own, below) = (profile.limits, joined.limits);
            joined.limits = profile::Limits {
                processes: own.processes.or(below.processes),
                memory: own.memory.or(below.memory),
                open_files: own.open_files.or(below.open_files),
                file: own.file.or(below.file),
                temporary: own.temporary.or(below.temporary),
                seconds: own.seconds.or(below.seconds),
            };
        }
        Some(joined)
    }

    /// The profile and those it extends, nearest first; `None` where one is unknown or they go round.
    fn chain(&self, name: &str) -> Option<Vec<&Profile>> {
        let mut chain = Vec::new();
        let mut next = Some(name);
        while let Some(name) = next {
            if chain.len() >= CHAIN_MAX {
                return None;
            }
            let profile = self.profiles.get(name)?;
            chain.push(profile);
            next = profile.extends.as_deref();
        }
        Some(chain)
    }
}
