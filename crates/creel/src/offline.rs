//! Questions about a bundle folder that need the rules' engine and no daemon, asked of the daemon's program.
//!
//! This program does not link the engine. `creeld --offline QUESTION DIR` reads the folder, prints one JSON document to
//! standard output and ends with 0, or with 1 when the answer is no. The documents are types of
//! [`creel_wire::control`]:
//!
//! | question | prints | ends with 1 when |
//! |---|---|---|
//! | `policy-check DIR` | `{"view": PolicyView or null, "diagnostics": [DiagnosticView]}` | there are diagnostics |
//! | `policy-test DIR` | `{"report": TestReportView or null, "diagnostics": [DiagnosticView]}` | any, or a case fails |
//! | `policy-coverage DIR` | `{"coverage": [CoverageRow], "diagnostics": […]}` | there are diagnostics |
//! | `policy-floor DIR` | `{"floor": [FloorCell], "diagnostics": […]}` | there are diagnostics |
//! | `profile-check DIR` | `{"check": ProfileCheck}` | there are diagnostics |
//! | `profile-show DIR WORKSPACE` | the same, with plans for this account | there are diagnostics |
//! | `policy-starter` | `{"files": {name: text}}` — the starter bundle that is built in | never |
//! | `guard-remove KIND SCOPE [--dry-run]` | `{"change": GuardChange}` — undo from the backup, no daemon needed | – |
//!
//! Anything else (no such folder, unknown question) is a message on standard error and another exit code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use creel_wire::control::{CoverageRow, DiagnosticView, FloorCell, GuardChange, PolicyView, TestReportView};
use serde::Deserialize;

use crate::failure::Failure;
use crate::programs;

/// A bundle that was checked.
#[derive(Debug, Deserialize)]
pub(crate) struct Checked {
    /// The bundle; absent when it has errors.
    #[serde(default)]
    pub(crate) view: Option<PolicyView>,
    /// Its mistakes.
    #[serde(default)]
    pub(crate) diagnostics: Vec<DiagnosticView>,
}

/// A bundle whose tests were run.
#[derive(Debug, Deserialize)]
pub(crate) struct Tested {
    /// The outcome; absent when the bundle has errors.
    #[serde(default)]
    pub(crate) report: Option<TestReportView>,
    /// Its mistakes.
    #[serde(default)]
    pub(crate) diagnostics: Vec<DiagnosticView>,
}

/// A bundle's coverage.
#[derive(Debug, Deserialize)]
pub(crate) struct Covered {
    /// Its rows.
    #[serde(default)]
    pub(crate) coverage: Vec<CoverageRow>,
    /// The bundle's mistakes.
    #[serde(default)]
    pub(crate) diagnostics: Vec<DiagnosticView>,
}

/// A bundle's floor.
#[derive(Debug, Deserialize)]
pub(crate) struct Floored {
    /// Its cells.
    #[serde(default)]
    pub(crate) floor: Vec<FloorCell>,
    /// The bundle's mistakes.
    #[serde(default)]
    pub(crate) diagnostics: Vec<DiagnosticView>,
}

/// The bundle that is built in.
#[derive(Debug, Deserialize)]
pub(crate) struct Starter {
    /// Its files.
    pub(crate) files: BTreeMap<String, String>,
}

/// An undone installation.
#[derive(Debug, Deserialize)]
pub(crate) struct Removed {
    /// What changed.
    pub(crate) change: GuardChange,
}

/// Asks one question.
pub(crate) fn ask<T: for<'de> Deserialize<'de>>(question: &str, operands: &[&str]) -> Result<T, Failure> {
    let mut arguments = vec!["--offline", question];
    arguments.extend(operands);
    let (printed, _) = programs::output("creeld", &arguments, None)?;
    serde_json::from_slice(&printed).map_err(|error| {
        Failure::new(format!("`creeld` answered `{question}` in words that are not understood: {error}"))
            .hint("creel and creeld are of different versions; install both from one build")
    })
}

/// Asks about a bundle folder, or about the built-in bundle where none is named.
pub(crate) fn about<T: for<'de> Deserialize<'de>>(question: &str, folder: Option<&str>) -> Result<T, Failure> {
    about_with(question, folder, &[])
}

/// The same with operands behind the folder.
pub(crate) fn about_with<T: for<'de> Deserialize<'de>>(
    question: &str,
    folder: Option<&str>,
    operands: &[&str],
) -> Result<T, Failure> {
    let with = |folder: &str| ask(question, &[&[folder], operands].concat());
    match folder {
        Some(folder) => with(folder),
        None => {
            let starter: Starter = ask("policy-starter", &[])?;
            let written = Written::new(&starter.files)?;
            with(&folder_text(&written.folder)?)
        }
    }
}

/// The built-in bundle in a private folder for as long as it is asked about.
struct Written {
    folder: PathBuf,
}

impl Written {
    fn new(files: &BTreeMap<String, String>) -> Result<Self, Failure> {
        let folder = crate::demo::private_folder("creel-starter")?;
        let written = Self { folder };
        for (name, text) in files {
            let path = written.folder.join(name);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(|error| Failure::file("create", parent, &error))?;
            }
            std::fs::write(&path, text).map_err(|error| Failure::file("write", &path, &error))?;
        }
        Ok(written)
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn folder_text(path: &Path) -> Result<String, Failure> {
    path.to_str().map(str::to_owned).ok_or_else(|| Failure::new("the folder's name is not UTF-8"))
}

/// A folder as an operand.
pub(crate) fn folder(path: &Path) -> Result<String, Failure> {
    let path = std::path::absolute(path).map_err(|e| Failure::file("find", path, &e))?;
    path.into_os_string().into_string().map_err(|_| Failure::new("the folder's name is not UTF-8"))
}
