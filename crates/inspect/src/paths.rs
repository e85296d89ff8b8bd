//! What touching a path means, by the path alone: `[[path]]` tables of the command data, found by their literal parts.
//!
//! The fact a newcomer gets wrong: a pattern's `*` crosses slashes.

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use creel_model::CommandClass;
use serde::Deserialize;

use crate::path::glob;

/// A group of paths as its file states it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawPaths {
    globs: Vec<String>,
    #[serde(default)]
    not: Vec<String>,
    read: Option<CommandClass>,
    write: Option<CommandClass>,
    #[serde(default)]
    secret: bool,
    why: String,
}

/// What touching a path means.
#[derive(Debug)]
pub(crate) struct PathKnowledge {
    pub(crate) read: Option<CommandClass>,
    pub(crate) write: Option<CommandClass>,
    pub(crate) secret: bool,
    pub(crate) why: String,
    not: Vec<String>,
}

/// All groups, with a search for the longest literal part of each of their patterns.
pub(crate) struct Paths {
    groups: Vec<PathKnowledge>,
    search: AhoCorasick,
    /// For each literal the patterns that hold it, each with its group.
    owners: Vec<Vec<(u32, String)>>,
}

impl Paths {
    /// Puts groups together; at most 64 of them.
    pub(crate) fn new(raw: Vec<RawPaths>) -> Result<Self, String> {
        if raw.len() > 64 {
            return Err("more than 64 groups of paths".to_owned());
        }
        let mut by_literal: std::collections::BTreeMap<String, Vec<(u32, String)>> = std::collections::BTreeMap::new();
        let mut groups = Vec::new();
        for (group, raw) in (0u32..).zip(raw) {
            for pattern in raw.globs {
                let literal = pattern.split(['*', '?']).max_by_key(|part| part.len()).unwrap_or_default().to_owned();
                if literal.is_empty() {
                    return Err(format!("a pattern without letters: {pattern}"));
                }
                by_literal.entry(literal).or_default().push((group, pattern));
            }
            groups.push(PathKnowledge {
                read: raw.read,
                write: raw.write,
                secret: raw.secret,
                why: raw.why,
                not: raw.not,
            });
        }
        let (literals, owners): (Vec<_>, Vec<_>) = by_literal.into_iter().unzip();
        let search = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::DFA))
            .build(&literals)
            .map_err(|error| error.to_string())?;
        Ok(Self { groups, search, owners })
    }

    /// The groups that a path belongs to, absolute and normalised or as written.
    pub(crate) fn of<'a>(&'a self, path: &str) -> impl Iterator<Item = &'a PathKnowledge> + use<'a> {
        let mut found = 0u64;
        for hit in self.search.find_overlapping_iter(path) {
            for (group, pattern) in self.owners.get(hit.pattern().as_usize()).into_iter().flatten() {
                let bit = 1u64.checked_shl(*group).unwrap_or(0);
                if found & bit == 0 && glob(pattern, path) {
                    found |= bit;
                }
            }
        }
        for (group, known) in (0u32..).zip(&self.groups) {
            let bit = 1u64.checked_shl(group).unwrap_or(0);
            if found & bit != 0 && known.not.iter().any(|pattern| glob(pattern, path)) {
                found &= !bit;
            }
        }
        (0u32..)
            .zip(&self.groups)
            .filter(move |(group, _)| found.checked_shr(*group).unwrap_or(0) & 1 == 1)
            .map(|(_, known)| known)
    }
}

/// What is known of a path, absolute and normalised or as written.
pub(crate) fn path(path: &str) -> impl Iterator<Item = &'static PathKnowledge> + use<> {
    crate::knowledge::paths().of(path)
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn groups_are_found_by_their_patterns_and_left_out_by_their_exceptions() {
        let why = |text: &str| path(text).map(|known| known.why.as_str()).collect::<Vec<_>>();
        assert_eq!(why("/home/u/.ssh/id_rsa"), ["a private key"]);
        assert!(why("/home/u/.ssh/id_rsa.pub").is_empty());
        assert!(why("/home/u/project/src/main.rs").is_empty());
        assert!(why("/etc/shadow").len() == 2 && why("").is_empty());
    }
}
