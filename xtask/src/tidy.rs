//! House rules that a compiler does not know: arrows between crates, headers, sizes, names, licences.
//!
//! Turns the checkout into complaints. It reads manifests as TOML and sources as text; it does not parse Rust, so a
//! rule here must be one that a line of text can show. What it does not do: format, lint, or judge.
//! A newcomer gets wrong: `dependencies.toml` is compared both ways. An arrow that is in the table and no longer in a
//! manifest is an error too, so that the table stays a true picture.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::place;
use crate::report::Report;

/// Lines of a Rust file above which it is worth splitting, and above which it must be.
const LINES_WARN: usize = 800;
const LINES_MAX: usize = 1000;

/// Names that attract everything.
const NAMES_FORBIDDEN: &[&str] = &["core", "common", "utils", "util", "helpers", "helper", "misc", "shared"];

/// Crates with lints of their own, because they make system calls that no safe library offers.
const LINTS_OWN: &[&str] = &["creel-escapes", "creel-sandbox"];

const TABLE: &str = "xtask/dependencies.toml";

/// The committed picture of who may use what.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// Layer → its crates, from the words at the bottom to the programs at the top.
    layers: BTreeMap<String, Vec<String>>,
    /// Layer → layers it may use.
    arrows: BTreeMap<String, Vec<String>>,
    /// Heavy dependency → the crates that alone may use it.
    heavy: BTreeMap<String, Vec<String>>,
    /// Crate → its dependencies.
    crates: BTreeMap<String, Uses>,
}

/// The dependencies of one crate, each list sorted.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Uses {
    /// Crates of this workspace.
    #[serde(default)]
    ours: BTreeSet<String>,
    /// Crates of others.
    #[serde(default)]
    others: BTreeSet<String>,
    /// Only for its tests.
    #[serde(default)]
    tests: BTreeSet<String>,
}

/// Checks every rule; with `write` first renews the table of dependencies from the manifests.
pub(crate) fn check(write: bool) -> Result<Report> {
    let mut report = Report::default();
    let manifests = manifests()?;
    if write {
        renew_table(&manifests)?;
    }
    arrows(&manifests, &mut report)?;
    for (name, manifest) in &manifests {
        package(name, manifest, &mut report);
    }
    let files = place::files()?;
    for file in &files {
        let path = file.to_string_lossy().into_owned();
        names(&path, &mut report);
        if let Ok(text) = fs::read_to_string(place::root().join(file)) {
            text_rules(&path, &text, &mut report);
        }
    }
    generated(&mut report);
    report.looked_at = format!("tidy: {} crates, {} files", manifests.len(), files.len());
    Ok(report)
}

/// One member's manifest.
struct Manifest {
    folder: String,
    value: toml::Table,
    uses: Uses,
}

fn manifests() -> Result<BTreeMap<String, Manifest>> {
    let mut folders: Vec<String> = ["tests", "tests/escapes", "xtask"].map(str::to_owned).to_vec();
    for other in ["fuzz", "benches"] {
        if place::root().join(other).join("Cargo.toml").exists() {
            folders.push(other.to_owned());
        }
    }
    for entry in fs::read_dir(place::root().join("crates")).context("crates/")? {
        folders.push(format!("crates/{}", entry?.file_name().to_string_lossy()));
    }
    let mut found = BTreeMap::new();
    for folder in folders {
        let path = place::root().join(&folder).join("Cargo.toml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let value: toml::Table = toml::from_str(&text).with_context(|| path.display().to_string())?;
        let name = value
            .get("package")
            .and_then(|package| package.get("name"))
            .and_then(toml::Value::as_str)
            .with_context(|| format!("{}: no package name", path.display()))?
            .to_owned();
        let uses = uses(&value);
        found.insert(name, Manifest { folder, value, uses });
    }
    Ok(found)
}

fn uses(manifest: &toml::Table) -> Uses {
    let mut uses = Uses::default();
    let mut tables: Vec<&toml::Table> = vec![manifest];
    if let Some(targets) = manifest.get("target").and_then(toml::Value::as_table) {
        tables.extend(targets.values().filter_map(toml::Value::as_table));
    }
    for table in tables {
        for (section, tests) in [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)] {
            for name in table.get(section).and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys) {
                if tests {
                    uses.tests.insert(name.clone());
                } else if name == "creel" || name.starts_with("creel-") {
                    uses.ours.insert(name.clone());
                } else {
                    uses.others.insert(name.clone());
                }
            }
        }
    }
    uses
}

fn table() -> Result<Table> {
    let text = fs::read_to_string(place::root().join(TABLE)).context(TABLE)?;
    toml::from_str(&text).context(TABLE)
}

/// Rewrites only the `[crates.*]` part of the table; layers, arrows and heavy dependencies are decisions of people.
fn renew_table(manifests: &BTreeMap<String, Manifest>) -> Result<()> {
    let path = place::root().join(TABLE);
    let old = fs::read_to_string(&path).context(TABLE)?;
    let kept = old.split("\n[crates.").next().unwrap_or(&old).trim_end();
    let mut new = format!("{kept}\n");
    for (name, manifest) in manifests {
        new.push_str(&format!("\n[crates.{name}]\n"));
        for (key, list) in
            [("ours", &manifest.uses.ours), ("others", &manifest.uses.others), ("tests", &manifest.uses.tests)]
        {
            if !list.is_empty() {
                let list: Vec<String> = list.iter().map(|name| format!("\"{name}\"")).collect();
                new.push_str(&format!("{key} = [{}]\n", list.join(", ")));
            }
        }
    }
    fs::write(&path, new).context(TABLE)
}

fn arrows(manifests: &BTreeMap<String, Manifest>, report: &mut Report) -> Result<()> {
    let table = table()?;
    let layer_of: BTreeMap<&str, &str> = table
        .layers
        .iter()
        .flat_map(|(layer, crates)| crates.iter().map(move |name| (name.as_str(), layer.as_str())))
        .collect();
    for (name, manifest) in manifests {
        let Some(stated) = table.crates.get(name) else {
            report
                .complain(format!("{TABLE}: `{name}` is missing; run `cargo xtask tidy --write` and read the change"));
            continue;
        };
        for (what, is, says) in [
            ("ours", &manifest.uses.ours, &stated.ours),
            ("others", &manifest.uses.others, &stated.others),
            ("tests", &manifest.uses.tests, &stated.tests),
        ] {
            for extra in is.difference(says) {
                report.complain(format!(
                    "{}/Cargo.toml: `{name}` uses `{extra}`, which {TABLE} does not allow (crates.{name}.{what})",
                    manifest.folder
                ));
            }
            for gone in says.difference(is) {
                report.complain(format!(
                    "{TABLE}: crates.{name}.{what} lists `{gone}`, which the manifest no longer uses"
                ));
            }
        }
        let Some(layer) = layer_of.get(name.as_str()) else {
            report.complain(format!("{TABLE}: `{name}` stands in no layer"));
            continue;
        };
        let allowed = table.arrows.get(*layer).cloned().unwrap_or_default();
        for used in &manifest.uses.ours {
            match layer_of.get(used.as_str()) {
                Some(used_layer) if allowed.iter().any(|allowed| allowed == used_layer) => {}
                Some(used_layer) => report.complain(format!(
                    "{}/Cargo.toml: `{name}` ({layer}) may not use `{used}` ({used_layer})",
                    manifest.folder
                )),
                None => report.complain(format!("{}/Cargo.toml: `{used}` stands in no layer", manifest.folder)),
            }
        }
        for (heavy, allowed) in &table.heavy {
            if manifest.uses.others.contains(heavy) && !allowed.contains(name) {
                report.complain(format!(
                    "{}/Cargo.toml: `{heavy}` is a heavy dependency and may only be used by {}",
                    manifest.folder,
                    allowed.join(", ")
                ));
            }
        }
        unused(name, manifest, report)?;
    }
    for name in table.crates.keys().chain(table.layers.values().flatten()) {
        if !manifests.contains_key(name) && name != "creel-fuzz" && name != "creel-benches" {
            report.complain(format!("{TABLE}: `{name}` does not exist"));
        }
    }
    Ok(())
}

/// A declared dependency whose name does not occur in the crate's sources is dead weight.
/// Text search is exact enough: a use must spell the name, and a comment that spells it is rare.
fn unused(name: &str, manifest: &Manifest, report: &mut Report) -> Result<()> {
    let mut sources = String::new();
    collect(&place::root().join(&manifest.folder), &mut sources)?;
    for used in manifest.uses.ours.iter().chain(&manifest.uses.others).chain(&manifest.uses.tests) {
        if !sources.contains(&used.replace('-', "_")) {
            report.remark(format!("{}/Cargo.toml: `{name}` declares `{used}` and never names it", manifest.folder));
        }
    }
    Ok(())
}

fn collect(folder: &Path, into: &mut String) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(&path).with_context(|| path.display().to_string())?);
        }
    }
    Ok(())
}

fn package(name: &str, manifest: &Manifest, report: &mut Report) {
    let place = format!("{}/Cargo.toml", manifest.folder);
    let standalone = manifest.value.contains_key("workspace");
    let Some(package) = manifest.value.get("package").and_then(toml::Value::as_table) else { return };
    for field in ["license", "publish", "edition", "rust-version", "version"] {
        let inherited = package
            .get(field)
            .and_then(toml::Value::as_table)
            .and_then(|field| field.get("workspace"))
            .and_then(toml::Value::as_bool)
            == Some(true);
        if standalone {
            if field == "license" && package.get(field).and_then(toml::Value::as_str) != Some("Apache-2.0") {
                report.complain(format!("{place}: `license` must be `Apache-2.0`"));
            }
        } else if !inherited {
            report.complain(format!("{place}: `{field}` must be inherited from the workspace"));
        }
    }
    if package.get("description").and_then(toml::Value::as_str).is_none_or(str::is_empty) {
        report.complain(format!("{place}: `{name}` has no description"));
    }
    let lints = manifest.value.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
    if !standalone && lints != Some(true) && !LINTS_OWN.contains(&name) {
        report.complain(format!("{place}: `lints.workspace = true` is missing"));
    }
    if !standalone {
        for (dependency, value) in
            manifest.value.get("dependencies").and_then(toml::Value::as_table).into_iter().flatten()
        {
            if value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                report.complain(format!("{place}: declare `{dependency}` once, in the workspace manifest"));
            }
        }
    }
}

fn names(path: &str, report: &mut Report) {
    if !path.ends_with(".rs") && !path.ends_with("Cargo.toml") {
        return;
    }
    for part in path.split('/') {
        let stem = part.strip_suffix(".rs").unwrap_or(part);
        if NAMES_FORBIDDEN.contains(&stem) {
            report.complain(format!("{path}: `{stem}` attracts everything; name the thing"));
        }
    }
}

fn text_rules(path: &str, text: &str, report: &mut Report) {
    for (number, line) in text.lines().enumerate() {
        for word in workplace_words() {
            if line.contains(&word) {
                report.complain(format!("{path}:{}: mentions a workplace (`{word}`)", number + 1));
            }
        }
        if line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ") {
            report.complain(format!("{path}:{}: an unfinished merge", number + 1));
        }
    }
    if !path.ends_with(".rs") {
        return;
    }
    if !text.trim_start().starts_with("//!") {
        report.complain(format!("{path}: begins without `//!`: say what it turns into what, and what it does not do"));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        report.complain(format!("{path}: {lines} lines, more than {LINES_MAX}; split it"));
    } else if lines > LINES_WARN {
        report.remark(format!("{path}: {lines} lines, more than {LINES_WARN}"));
    }
}

/// Paths of machines on which the project is written; they say nothing to a reader elsewhere.
/// Put together at run time, so that this file does not complain about itself.
fn workplace_words() -> [String; 3] {
    ["work/main", "work/shared", "tmp/brief"].map(|path| format!("/{path}"))
}

/// Files made from others. Each names its maker; a stale one is an error that says how to renew it.
fn generated(report: &mut Report) {
    let lock = place::root().join("Cargo.lock");
    if !lock.exists() {
        report.complain("Cargo.lock: missing; commit it, the programs are built with --locked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> Vec<String> {
        let mut report = Report::default();
        names(path, &mut report);
        text_rules(path, text, &mut report);
        report.complaints
    }

    #[test]
    fn a_good_file_has_nothing_to_complain_about() {
        assert_eq!(complaints("crates/seal/src/note.rs", "//! Notes.\nfn a() {}\n"), Vec::<String>::new());
    }

    #[test]
    fn a_missing_header_a_forbidden_name_and_length_are_seen() {
        assert_eq!(complaints("crates/x/src/a.rs", "fn a() {}\n").len(), 1);
        assert_eq!(complaints("crates/x/src/utils.rs", "//! x\n").len(), 1);
        assert_eq!(complaints("crates/common/src/lib.rs", "//! x\n").len(), 1);
        assert_eq!(complaints("crates/x/src/a.rs", &format!("//! x\n{}", "\n".repeat(1001))).len(), 1);
        assert_eq!(complaints("README.md", &format!("see {}", workplace_words()[0])).len(), 1);
    }

    #[test]
    fn dependencies_are_sorted_into_ours_others_and_tests() {
        let manifest: toml::Table = toml::from_str(
            "[dependencies]\ncreel-model.workspace = true\nserde.workspace = true\n[dev-dependencies]\ntempfile.workspace = true\n[target.'cfg(unix)'.dependencies]\nnix.workspace = true\n",
        )
        .unwrap();
        let uses = uses(&manifest);
        assert_eq!(uses.ours, BTreeSet::from(["creel-model".to_owned()]));
        assert_eq!(uses.others, BTreeSet::from(["nix".to_owned(), "serde".to_owned()]));
        assert_eq!(uses.tests, BTreeSet::from(["tempfile".to_owned()]));
    }
}
