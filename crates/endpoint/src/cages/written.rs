//! What is written down about runs, and by what a plan and a program are named in it.

use creel_guard::{CageNote, Input};
use creel_model::cage::CagePlan;
use creel_model::{Digest, RecordKind, Verdict};
use creel_seal::sha256;
use serde_json::{Map, Value};

use super::pending::Draft;
use super::{CageRun, internal};
use crate::control_server::Refusal;
use crate::desk::Desk;

/// How often events are written down at most, in nanoseconds.
const WRITE_EVERY_NS: u64 = 1_000_000_000;

pub(super) fn note(desk: &Desk, run: &CageRun, kind: RecordKind, code: &str, facts: Value) -> Result<(), Refusal> {
    let facts = match facts {
        Value::Object(facts) => facts,
        _ => Map::new(),
    };
    let draft = Draft { kind, code: "", verdict: None::<Verdict>, rules: Vec::new(), effects: Vec::new(), facts };
    told(desk, run, code, draft)
}

pub(super) fn told(desk: &Desk, run: &CageRun, code: &str, draft: Draft) -> Result<(), Refusal> {
    let caller = run.caller("none");
    let note = CageNote {
        caller,
        kind: draft.kind,
        code: code.to_owned(),
        verdict: draft.verdict,
        rules: draft.rules,
        effects: draft.effects,
        facts: draft.facts,
    };
    desk.tell(Input::Cage(Box::new(note)))
        .map(drop)
        .map_err(|refused| internal(format!("it cannot be written down: {}", refused.0)))
}

/// Writes down what waits, at most once a second unless it is the last time.
pub(super) fn write(desk: &Desk, run: &CageRun, now_boot_ns: u64, last: bool) {
    let drafts = {
        let mut state = run.state();
        if state.pending.is_empty() || (!last && now_boot_ns < state.written_boot_ns.saturating_add(WRITE_EVERY_NS)) {
            return;
        }
        state.written_boot_ns = now_boot_ns;
        state.pending.take()
    };
    for draft in drafts {
        // A record that cannot be written shows in the journal's own state.
        let _ = told(desk, run, draft.code, draft);
    }
}

pub(super) fn digest(plan: &CagePlan) -> Digest {
    Digest::from_bytes(&sha256(&serde_json::to_vec(plan).unwrap_or_default()))
}

/// The kernel's release, as it names itself.
pub(super) fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().chars().take(128).collect())
}

/// Which file a program is now; empty where this account cannot see it.
pub(super) fn program_identity(path: &str) -> String {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).map_or_else(
        |_| String::new(),
        |facts| format!("{}:{}:{}.{}:{}", facts.dev(), facts.ino(), facts.ctime(), facts.ctime_nsec(), facts.size()),
    )
}
