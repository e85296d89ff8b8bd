//! One run in a cage, as the daemon knows it from its plan to its end.

use std::collections::{BTreeSet, VecDeque};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use creel_discover::confinement;
use creel_guard::Caller;
use creel_model::cage::{CageEvent, CageEventKind, CagePlan};
use creel_model::{ProcessKey, RunId};
use creel_wire::control::{CageRunView, HookFolder, RunExit, RunStatement};

use super::pending::{Pending, cleaned};
use crate::sockets::Peer;

/// Events kept for `creel why`, per run; older ones are in the record.
pub(super) const RECENT_MAX: usize = 256;
/// Different refusals that a model is told of in one run.
const TOLD_MAX: usize = 256;
/// Refusals told with one result.
const TOLD_AT_ONCE: usize = 8;

/// A run. What changes stands behind one lock, which is never held while anything is asked or written.
pub struct CageRun {
    /// Its id.
    pub id: RunId,
    /// The process that owns it and speaks for it; nobody else may.
    pub supervisor: ProcessKey,
    /// Its plan; absent of a run that was taken up again after a restart.
    pub(super) plan: Option<CagePlan>,
    pub(super) kind: Option<String>,
    pub(super) profile: String,
    pub(super) workspace: String,
    pub(super) command: Vec<String>,
    pub(super) program: String,
    pub(super) notes: Vec<String>,
    pub(super) folder: PathBuf,
    pub(super) hook: HookFolder,
    pub(super) started_unix_ns: i64,
    pub(super) caller: Caller,
    pub(super) state: Mutex<State>,
}

/// What changes.
#[derive(Default)]
pub(super) struct State {
    pub(super) init: Option<ProcessKey>,
    pub(super) statement: Option<Box<RunStatement>>,
    /// Why the statement says nothing any more.
    pub(super) expired: Option<String>,
    pub(super) pending: Pending,
    pub(super) written_boot_ns: u64,
    pub(super) recent: VecDeque<CageEvent>,
    pub(super) told: BTreeSet<(String, String, String)>,
    pub(super) untold: VecDeque<CageEvent>,
    pub(super) executed: u64,
    pub(super) refused: u64,
    pub(super) listener: Option<Arc<UnixListener>>,
    pub(super) over: bool,
}

impl CageRun {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The catalog kind of its agent; absent of any other program.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        self.kind.as_deref()
    }

    /// Whether a process is in this cage: it or one of its parents is the cage's process 1.
    #[must_use]
    pub fn contains(&self, pid: u32) -> bool {
        let Some(init) = self.state().init else { return false };
        let Some(start_ticks) = creel_discover::process::start_ticks(pid) else { return false };
        confinement::is_below(ProcessKey { pid, start_ticks }, init)
    }

    /// Whether a peer may speak as this run's agent: of its account, and in its cage.
    #[must_use]
    pub fn admits(&self, peer: &Peer) -> bool {
        peer.uid == self.caller.account.uid && self.contains(peer.pid) && peer.is_still_there() != Some(false)
    }

    /// Whose call it is that came over this run's socket. `kind` is what the hook was installed for: only a cage whose
    /// program is none of the catalog's takes it from there.
    #[must_use]
    pub fn caller(&self, kind: &str) -> Caller {
        let caged = {
            let state = self.state();
            state.statement.is_some() && state.expired.is_none()
        };
        let kind = self.kind.clone().unwrap_or_else(|| kind.to_owned());
        Caller { kind, caged, ..self.caller.clone() }
    }

    /// Takes in what the supervisor noticed.
    pub(super) fn take(&self, events: Vec<CageEvent>, lost: u64) {
        let mut state = self.state();
        state.pending.lose(lost);
        // What was refused before the statement was made was tried by its probes, and stands there as evidence.
        let since = state.statement.as_ref().map_or(i64::MIN, |stated| stated.statement.issued_unix_ns);
        for event in events {
            if event.kind == CageEventKind::Refused && event.at_unix_ns < since {
                continue;
            }
            let event = cleaned(event);
            state.pending.add(&event);
            match event.kind {
                CageEventKind::Exec => state.executed = state.executed.saturating_add(event.times),
                CageEventKind::Refused => {
                    state.refused = state.refused.saturating_add(event.times);
                    let key = (event.call.clone(), event.object.clone(), event.rule.clone());
                    if state.told.len() < TOLD_MAX && state.told.insert(key) {
                        state.untold.push_back(event.clone());
                    }
                }
                _ => {}
            }
            if matches!(event.kind, CageEventKind::Refused | CageEventKind::Limit | CageEventKind::Fault) {
                if state.recent.len() >= RECENT_MAX {
                    state.recent.pop_front();
                }
                state.recent.push_back(event);
            }
        }
    }

    /// What the model was not told of yet, in words.
    #[must_use]
    pub fn untold(&self) -> Option<String> {
        let state = self.state();
        let events: Vec<&CageEvent> = state.untold.iter().take(TOLD_AT_ONCE).collect();
        if events.is_empty() {
            return None;
        }
        let mut text = String::from("creel: this command runs in a cage, which refused something:\n");
        for event in events {
            text.push_str(&line(event));
        }
        text.push_str(
            "Do not try to get around it; say so if the task needs it, and the person can change the profile.",
        );
        Some(text)
    }

    /// The model was told.
    pub fn was_told(&self) {
        let mut state = self.state();
        let told = state.untold.len().min(TOLD_AT_ONCE);
        state.untold.drain(..told);
    }

    pub(super) fn view(&self, account: String, whole: bool) -> CageRunView {
        let state = self.state();
        CageRunView {
            run: self.id.clone(),
            state: if state.statement.is_some() { "running" } else { "building" }.to_owned(),
            uid: self.caller.account.uid,
            account,
            kind: self.kind.clone(),
            profile: self.profile.clone(),
            workspace: self.workspace.clone(),
            command: self.command.clone(),
            supervisor: Some(self.supervisor),
            init: state.init,
            started_unix_ns: self.started_unix_ns,
            ended_unix_ns: None,
            exit: None,
            executed: state.executed,
            refused: state.refused,
            statement: state.statement.clone().filter(|_| whole),
            expired: state.expired.clone().unwrap_or_default(),
        }
    }
}

/// A run that ended, kept for people until others push it out.
pub(super) struct Ended {
    pub(super) view: CageRunView,
    pub(super) recent: VecDeque<CageEvent>,
}

impl Ended {
    pub(super) fn of(run: &CageRun, account: String, exit: RunExit, now_unix_ns: i64) -> Self {
        let mut view = run.view(account, true);
        view.state = "ended".to_owned();
        view.ended_unix_ns = Some(now_unix_ns);
        view.exit = Some(exit);
        Self { view, recent: run.state().recent.clone() }
    }
}

/// One refusal for a model: what, why, what to do.
fn line(event: &CageEvent) -> String {
    let short = |text: &str| text.chars().take(240).map(|c| if c == '`' { '\'' } else { c }).collect::<String>();
    let mut text = format!("- {} of `{}`", short(&event.call), short(&event.object));
    if !event.reason.is_empty() {
        text.push_str(&format!(": {}", short(&event.reason)));
    }
    if !event.rule.is_empty() {
        text.push_str(&format!(" (rule {})", short(&event.rule)));
    }
    if !event.fix.is_empty() {
        text.push_str(&format!(". For the person: {}", short(&event.fix)));
    }
    text.push('\n');
    text
}
