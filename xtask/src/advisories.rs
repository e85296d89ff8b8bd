//! Known faults of our dependencies: the lock file against a vendored, dated snapshot.
//!
//! A check of a landing must not depend on the network, so the facts are in the repository and carry the day on which
//! they were taken. The snapshot is honest about what it is: facts of the RustSec database for crates that stand in
//! our lock file, collected by hand; it is not the whole database, and a crate that is new in the lock file is
//! reported as not looked at. Renewing it: read `advisories.toml`, look each crate up, change `taken`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result};
use serde::Deserialize;
use time::{Date, OffsetDateTime, macros::format_description};

use crate::place;
use crate::report::Report;

/// Age of the snapshot above which the check warns.
const AGE_DAYS_MAX: i64 = 60;
const SNAPSHOT: &str = "xtask/advisories.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Snapshot {
    /// Day on which the facts were taken, `YYYY-MM-DD`.
    taken: String,
    /// Crates of the lock file that were looked up, with or without a hit.
    looked_at: BTreeSet<String>,
    #[serde(default, rename = "advisory")]
    advisories: Vec<Advisory>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advisory {
    id: String,
    package: String,
    /// The fault in a few words of ours.
    fault: String,
    /// First faulty version, where older ones are good.
    #[serde(default)]
    since: Option<String>,
    /// First good version of each line that was mended, oldest first; empty: none is.
    patched: Vec<String>,
    /// Why it does not concern us, where it does not.
    #[serde(default)]
    accepted: Option<String>,
}

/// Compares the lock file with the snapshot.
pub(crate) fn check() -> Result<Report> {
    let mut report = Report::default();
    let snapshot: Snapshot =
        toml::from_str(&fs::read_to_string(place::root().join(SNAPSHOT)).context(SNAPSHOT)?).context(SNAPSHOT)?;
    let locked = locked(&fs::read_to_string(place::root().join("Cargo.lock")).context("Cargo.lock")?)?;
    let taken = Date::parse(&snapshot.taken, format_description!("[year]-[month]-[day]")).context(SNAPSHOT)?;
    let age = (OffsetDateTime::now_utc().date() - taken).whole_days();
    if age > AGE_DAYS_MAX {
        report.remark(format!("{SNAPSHOT}: taken {}, {age} days ago; look again", snapshot.taken));
    }
    for advisory in &snapshot.advisories {
        for version in locked.get(&advisory.package).into_iter().flatten() {
            if affected(version, advisory.since.as_deref(), &advisory.patched)? {
                let text = format!("{} {version}: {} ({})", advisory.package, advisory.fault, advisory.id);
                match &advisory.accepted {
                    Some(reason) => report.remark(format!("{text}; accepted: {reason}")),
                    None => report.complain(text),
                }
            }
        }
    }
    let unknown = locked.keys().filter(|name| !snapshot.looked_at.contains(*name)).count();
    if unknown > 0 {
        report.remark(format!("{SNAPSHOT}: {unknown} crates of the lock file were never looked up"));
    }
    report.looked_at = format!(
        "advisories: {} facts of {} about {} crates, {} in the lock file",
        snapshot.advisories.len(),
        snapshot.taken,
        snapshot.looked_at.len(),
        locked.len()
    );
    Ok(report)
}

/// Crates from the registry in a lock file, with their versions.
fn locked(text: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let lock: toml::Table = toml::from_str(text).context("Cargo.lock")?;
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in lock.get("package").and_then(toml::Value::as_array).into_iter().flatten() {
        let text = |key: &str| package.get(key).and_then(toml::Value::as_str).map(str::to_owned);
        if let (Some(name), Some(version), Some(_)) = (text("name"), text("version"), text("source")) {
            found.entry(name).or_default().push(version);
        }
    }
    Ok(found)
}

/// Whether `version` is older than the good version of its own line. Lines are major versions, or minor ones below 1.0,
/// as Cargo counts; a line without a good version of its own is good when it is newer than the last good line.
fn affected(version: &str, since: Option<&str>, patched: &[String]) -> Result<bool> {
    let version = numbers(version)?;
    if let Some(since) = since
        && version < numbers(since)?
    {
        return Ok(false);
    }
    let patched: Vec<[u64; 3]> = patched.iter().map(|text| numbers(text)).collect::<Result<_>>()?;
    if let Some(same) = patched.iter().find(|good| line(good) == line(&version)) {
        return Ok(version < *same);
    }
    Ok(patched.iter().max().is_none_or(|newest| version < *newest))
}

fn line(version: &[u64; 3]) -> (u64, u64) {
    let [major, minor, _] = *version;
    if major == 0 { (0, minor) } else { (major, 0) }
}

fn numbers(text: &str) -> Result<[u64; 3]> {
    let plain = text.split(['-', '+']).next().unwrap_or(text);
    let mut parts = plain.split('.').map(|part| part.parse::<u64>().with_context(|| format!("version `{text}`")));
    let mut next = || parts.next().unwrap_or(Ok(0));
    Ok([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_within_their_line() {
        let patched = ["0.2.23".to_owned(), "1.4.2".to_owned()];
        assert!(affected("0.2.22", None, &patched).unwrap());
        assert!(!affected("0.2.23", None, &patched).unwrap());
        assert!(affected("0.1.9", None, &patched).unwrap());
        assert!(affected("1.4.1", None, &patched).unwrap());
        assert!(!affected("2.0.0", None, &patched).unwrap());
        assert!(!affected("0.1.9", Some("0.2.0"), &patched).unwrap());
        assert!(affected("9.9.9", None, &[]).unwrap());
    }

    #[test]
    fn only_crates_from_a_registry_are_read() {
        let text = "[[package]]\nname = \"creel\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"a\"\nversion = \"1.2.3\"\nsource = \"registry+x\"\n";
        assert_eq!(locked(text).unwrap(), BTreeMap::from([("a".to_owned(), vec!["1.2.3".to_owned()])]));
    }
}
