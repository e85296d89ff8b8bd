//! `creel support`: a diagnosis for a bug report, without content, secrets, names of accounts or paths of projects.
//!
//! By allow-list: only fields named here are copied. The one thing a newcomer gets wrong: what is not named is left out,
//! so a new field of the status is absent until somebody decided that it is harmless.

use std::path::{Path, PathBuf};

use clap::Args;
use creel_model::RecordKind;
use creel_wire::control::{Answer, GuardStatusView, RecordFilter, Request, StatusReport};
use serde_json::{Value, json};

use crate::connection::{Daemon, Place};
use crate::failure::{Exit, Failure, Outcome};
use crate::out::{self, Format};
use crate::{programs, status};

/// How many records about creel itself are copied.
const RECORDS_MAX: u32 = 50;

/// Arguments of `creel support`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  creel support\n  creel support --to creel-support.json\n\nRead it before you send it: it is one JSON document."
)]
pub(crate) struct Arguments {
    /// Write to this new file instead of standard output.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// Collects and prints.
pub(crate) fn run(arguments: &Arguments, runtime: Option<&Path>) -> Outcome {
    let document = collect(runtime);
    match &arguments.to {
        None => out::json(&document, Format::Json)?,
        Some(path) => {
            let file = std::fs::OpenOptions::new().create_new(true).write(true).open(path);
            let file = file.map_err(|error| Failure::file("create", path, &error))?;
            serde_json::to_writer_pretty(file, &document)?;
            out::say(&format!("written to {}; read it before you send it", path.display()));
        }
    }
    Ok(Exit::Good)
}

fn collect(runtime: Option<&Path>) -> Value {
    let place = Place::find(runtime);
    let mut document = json!({
        "creel": env!("CARGO_PKG_VERSION"),
        "kernel": first_line("/proc/sys/kernel/osrelease"),
        "system": os_release(),
        "lsm": first_line("/sys/kernel/security/lsm"),
        "systemd": Path::new("/run/systemd/system").is_dir(),
        "programs": programs_beside(),
        "socket": if place.system { "system" } else { "user" },
    });
    let Value::Object(fields) = &mut document else { return document };
    match Daemon::try_open(&place) {
        Ok(None) => drop(fields.insert("daemon".to_owned(), json!("not running"))),
        Err(failure) => drop(fields.insert("daemon".to_owned(), json!(format!("refused: {}", kind_of(&failure))))),
        Ok(Some(mut daemon)) => {
            if let Ok(status) = status::ask(&mut daemon) {
                fields.insert("daemon".to_owned(), daemon_of(&status));
            }
            if let Ok(states) = daemon.one(&Request::GuardStatus { kind: None }, |answer| match answer {
                Answer::GuardStatus(states) => Some(states),
                _ => None,
            }) {
                fields.insert("guard".to_owned(), states.iter().map(guard_of).collect());
            }
            fields.insert("records".to_owned(), records(&mut daemon));
        }
    }
    document
}

/// Whether each program is there; never where.
fn programs_beside() -> Value {
    ["creel", "creeld", "creel-hook"].into_iter().map(|name| (name, json!(programs::beside(name).is_ok()))).collect()
}

fn daemon_of(status: &StatusReport) -> Value {
    json!({
        "version": status.version,
        "mode": status.mode,
        "up_seconds": (status.now_unix_ns - status.started_unix_ns) / 1_000_000_000,
        "policy": {
            "id": status.policy.id,
            "digest": status.policy.digest,
            "trust": status.policy.trust.split(':').next(),
            "blocking": status.policy.blocking,
            "audit": status.policy.audit,
            "off": status.policy.off,
        },
        "protections": status.protections.iter().map(|p| json!({ "name": p.name, "state": p.state })).collect::<Value>(),
        "agents": status.agents.iter().map(|agent| json!({
            "kind": agent.kind,
            "version": agent.version,
            "approval_mode": agent.approval_mode,
            "governed": agent.governed,
            "runs": agent.runs.len(),
            "mcp_servers": agent.mcp_servers.len(),
            "hooks": agent.hooks.len(),
            "findings": agent.findings.iter().map(|finding| &finding.code).collect::<Vec<_>>(),
        })).collect::<Value>(),
        "questions": status.questions.len(),
        "journal": {
            "records": status.journal.records,
            "bytes": status.journal.bytes,
            "checkpoint_records": status.journal.checkpoint_records,
            "anchored": status.journal.anchor.is_some(),
            "reserve_in_use": status.journal.reserve_in_use,
            "lost": status.journal.lost,
        },
        "quietness": status.quietness,
        "break_glass": status.break_glass.is_some(),
        "problems": status.problems.iter().map(|problem| json!(problem.severity)).collect::<Value>(),
    })
}

fn guard_of(state: &GuardStatusView) -> Value {
    json!({
        "kind": state.kind,
        "scope": state.scope,
        "state": state.state,
        "drift": state.drift.len(),
        "bypasses": state.bypasses.len(),
        "canary": state.canary.as_ref().map(|canary| json!({
            "effective": canary.effective, "live": canary.live, "version": canary.version,
        })),
    })
}

/// Records about creel itself: codes and times, no facts.
fn records(daemon: &mut Daemon) -> Value {
    let filter = RecordFilter {
        kinds: vec![RecordKind::Daemon, RecordKind::Protection, RecordKind::Gap, RecordKind::Policy, RecordKind::Alert],
        last: Some(RECORDS_MAX),
        ..RecordFilter::default()
    };
    let Ok(answers) = daemon.ask(&Request::Records { filter, follow: false }) else { return Value::Null };
    let records = answers.into_iter().filter_map(|answer| match answer {
        Answer::Record(record) => Some(json!({
            "sequence": record.sequence,
            "at_unix_ns": record.envelope.at.unix_ns,
            "kind": record.envelope.kind,
            "code": record.envelope.code,
        })),
        _ => None,
    });
    records.collect()
}

fn kind_of(failure: &Failure) -> &'static str {
    match failure {
        Failure::ClosedPipe => "closed",
        Failure::Said { message, .. } if message.contains("not to be trusted") => "foreign account",
        Failure::Said { message, .. } if message.contains("written by others") => "writable folder",
        Failure::Said { .. } => "no access",
    }
}

fn first_line(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.chars().take(200).collect())
}

fn os_release() -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(line.trim_matches('"').chars().take(100).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_daemon_it_still_says_what_can_be_said() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("run")).unwrap();
        let document = collect(Some(&folder.path().join("run")));
        assert_eq!(document["creel"], env!("CARGO_PKG_VERSION"));
        assert_eq!(document["daemon"], "not running");
        assert!(!document.to_string().contains(&folder.path().display().to_string()));
    }
}
