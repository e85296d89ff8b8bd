//! Questions about a bundle folder that need the rules' engine and no daemon, and the undo that must work without one.
//!
//! One JSON document on standard output; exit code 0, or 1 when the answer is no. See `crates/creel/src/offline.rs` for
//! the asking side.

use std::path::Path;
use std::process::ExitCode;

use creel_guard::Trust;
use creel_policy::{Bundle, Places};
use creel_wire::control::{ProfileCheck, Scope};
use serde_json::{Value, json};

use crate::config::{Config, Role};
use crate::protection::{Place, Protections};
use crate::root::Root;
use crate::{bundles, clock, policy_views, reports};

/// Answers one question.
#[must_use]
pub fn run(question: &str, operands: &[String]) -> ExitCode {
    match answer(question, operands) {
        Ok((document, good)) => {
            say(&document);
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            complain(&why);
            ExitCode::from(2)
        }
    }
}

fn answer(question: &str, operands: &[String]) -> Result<(Value, bool), String> {
    match (question, operands) {
        ("policy-check", [folder]) => with(folder, |bundle, files| {
            let view = policy_views::policy(bundle, &Trust::LocalUnsigned, 0, files.clone());
            (json!({ "view": view }), true)
        }),
        ("policy-test", [folder]) => with(folder, |bundle, _| {
            let report = bundle.run_tests();
            (json!({ "report": policy_views::tests(&report) }), report.passed())
        }),
        ("policy-coverage", [folder]) => {
            with(folder, |bundle, _| (json!({ "coverage": reports::coverage(bundle) }), true))
        }
        ("policy-floor", [folder]) => with(folder, |bundle, _| (json!({ "floor": reports::floor(bundle) }), true)),
        ("profile-check", [folder]) => {
            let files = bundles::read_folder(Path::new(folder))?;
            let check = policy_views::check_profiles(&files, clock::now().unix_ns / 1_000_000_000);
            let good = check.diagnostics.is_empty();
            Ok((json!({ "check": check }), good))
        }
        ("profile-show", [folder, workspace]) => profiles(folder, workspace),
        ("policy-starter", []) => Ok((json!({ "files": creel_policy::starter() }), true)),
        ("guard-remove", [kind, scope, rest @ ..]) => remove(kind, scope, rest.iter().any(|word| word == "--dry-run")),
        _ => Err(format!("unknown question `{question}` with {} operands", operands.len())),
    }
}

fn with(
    folder: &str,
    work: impl FnOnce(&Bundle, &std::collections::BTreeMap<String, String>) -> (Value, bool),
) -> Result<(Value, bool), String> {
    let files = bundles::read_folder(Path::new(folder))?;
    match Bundle::load(&files, clock::now().unix_ns / 1_000_000_000) {
        Err(faults) => Ok((json!({ "diagnostics": policy_views::diagnostics(&faults) }), false)),
        Ok(bundle) => {
            let (mut document, good) = work(&bundle, &files);
            if let Value::Object(map) = &mut document {
                map.insert("diagnostics".to_owned(), json!([]));
            }
            Ok((document, good))
        }
    }
}

/// The profiles of a folder with the plans that they make for this account.
fn profiles(folder: &str, workspace: &str) -> Result<(Value, bool), String> {
    let files = bundles::read_folder(Path::new(folder))?;
    match Bundle::load(&files, clock::now().unix_ns / 1_000_000_000) {
        Err(faults) => {
            let check = ProfileCheck { profiles: Vec::new(), diagnostics: policy_views::diagnostics(&faults) };
            Ok((json!({ "check": check }), false))
        }
        Ok(bundle) => {
            let home = crate::own_home().ok_or("this account has no home folder")?.display().to_string();
            let places = Places { home, workspace: Some(workspace.to_owned()), ..Places::default() };
            let mut check = policy_views::profiles(&bundle);
            policy_views::add_plans(&bundle, &mut check, &places).map_err(|none| none.to_string())?;
            Ok((json!({ "check": check }), true))
        }
    }
}

/// Takes protection out without a daemon: with this account's own rights, from what creel kept.
fn remove(kind: &str, scope: &str, dry_run: bool) -> Result<(Value, bool), String> {
    let scope = match scope {
        "user" => Scope::User,
        "system" => Scope::System,
        other => return Err(format!("unknown scope `{other}`, expected user or system")),
    };
    let uid = rustix::process::geteuid().as_raw();
    let home = crate::own_home().ok_or("this account has no home folder")?;
    let Ok(Role::Daemon(config)) = crate::config::parse(&[], uid, &home) else {
        return Err("the usual places of this account cannot be told".to_owned());
    };
    let root = Root::in_process(&Config { ..config }, scope == Scope::System);
    let place = Place { kind, scope, uid, version: None };
    let change = Protections::remove(&root, &place, dry_run)?;
    Ok((json!({ "change": change }), true))
}

#[expect(clippy::print_stdout, reason = "the answer of the program")]
fn say(document: &Value) {
    println!("{document}");
}

#[expect(clippy::print_stderr, reason = "the complaint of the program")]
fn complain(why: &str) {
    eprintln!("creeld: {why}");
}
