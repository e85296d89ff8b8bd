//! The caller's environment and a plan's lines about it to the environment of the cage.
//!
//! What no line names is not passed. The one fact a newcomer gets wrong: this is no filter for secrets; it is an
//! allow-list, and a name with a secret in it is passed only where the profile says so.

use std::ffi::{OsStr, OsString};

use creel_model::cage::CageEnvironment;

/// Longest environment that is passed, in bytes; beyond it a run is refused.
pub(crate) const MAX_BYTES: usize = 512 * 1024;

/// The environment of the cage, in the order of names.
pub(crate) fn build(rules: &CageEnvironment, caller: &[(OsString, OsString)]) -> Vec<(OsString, OsString)> {
    let mut built: Vec<(OsString, OsString)> =
        rules.set.iter().map(|(name, value)| (name.into(), value.into())).collect();
    for (name, value) in caller {
        let set = name.to_str().is_some_and(|name| rules.set.contains_key(name));
        if !set && passes(rules, name) {
            built.push((name.clone(), value.clone()));
        }
    }
    built.sort();
    built.dedup_by(|next, kept| next.0 == kept.0);
    built
}

/// Whether a line names it.
pub(crate) fn passes(rules: &CageEnvironment, name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    rules.pass.iter().any(|rule| match rule.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == rule,
    })
}

/// Names in `environment` that no line names.
pub(crate) fn foreign(rules: &CageEnvironment, environment: &[(OsString, OsString)]) -> Vec<String> {
    let named = |name: &OsStr| passes(rules, name) || name.to_str().is_some_and(|name| rules.set.contains_key(name));
    environment.iter().filter(|(name, _)| !named(name)).map(|(name, _)| name.to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_is_passed_and_fixed_values_are_stronger() {
        let rules = CageEnvironment {
            pass: vec!["LANG".to_owned(), "LC_*".to_owned(), "HOME".to_owned()],
            set: [("HOME".to_owned(), "/home/a".to_owned())].into(),
        };
        let caller = [("HOME", "/evil"), ("LC_ALL", "C"), ("LANG", "de"), ("LANGUAGE", "x"), ("TOKEN", "y")]
            .map(|(name, value)| (name.into(), value.into()));
        let built = build(&rules, &caller);
        let want = [("HOME", "/home/a"), ("LANG", "de"), ("LC_ALL", "C")].map(|(n, v)| (n.into(), v.into()));
        assert_eq!(built, want);
        assert!(foreign(&rules, &built).is_empty());
        assert_eq!(foreign(&rules, &caller), ["LANGUAGE", "TOKEN"]);
    }
}
