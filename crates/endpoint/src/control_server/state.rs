//! The whole state as a person wants to see it, and its changes as they happen.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use creel_catalog::AgentReport;
use creel_journal::{Reader, Space, Start};
use creel_model::{Mode, Moment, RuleMode, Severity};
use creel_wire::control::{
    AgentView, Answer, Governed, GuardState, JournalView, Live, Problem, Protection, ProtectionState, Quietness,
    RefusalCode, Scope, StatusReport,
};

use super::records::view as record_view;
use super::{Asker, ControlServer, Ended, Out, Refusal};
use crate::live::LiveEvent;
use crate::protection::{KINDS, PROOF_NS};
use crate::{clock, policy_views, reports, streams};

/// Most agents and questions in one report.
const AGENTS_MAX: usize = 64;
const QUESTIONS_MAX: usize = 64;
/// How often a watcher gets the whole state at most.
const STATE_EVERY_NS: u64 = 250_000_000;

impl ControlServer {
    pub(super) fn status(&self, asker: &Asker) -> StatusReport {
        let now = clock::now();
        let screen_of = self.screen_of(asker);
        let (_, trust, since) = self.world.source();
        let bundle = self.world.bundle();
        let policy = policy_views::summary(&bundle, &trust, since);
        let journal = self.journal_view();
        let agents = self.agent_views(asker, false);
        let mut questions = self.desk.look(|guard, _| guard.approvals());
        questions.retain(|question| asker.may_see_question(question.owner) && question.state == "open");
        questions.truncate(QUESTIONS_MAX);
        let protections = self.protections(asker, now, &journal, policy.blocking);
        let problems = self.problems(&agents, &journal, &protections);
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: self.world.mode(),
            pid: std::process::id(),
            account: self.world.account_name(rustix::process::geteuid().as_raw()),
            started_unix_ns: self.world.started_unix_ns,
            now_unix_ns: now.unix_ns,
            policy,
            protections,
            agents,
            questions: questions.iter().map(|question| self.question_view(question, screen_of)).collect(),
            journal,
            quietness: self.quietness(),
            break_glass: self.break_glass_view(),
            problems,
        }
    }

    pub(super) fn agents(&self, asker: &Asker, scan: bool, all_users: bool, out: Out<'_>) -> Result<(), Ended> {
        if all_users && self.world.mode() == Mode::System && asker.sees_only().is_some() {
            let message = "only root and members of creel-analyst see the agents of all accounts";
            return Err(Refusal::new(RefusalCode::Forbidden, message, "leave `--all-users` out").into());
        }
        if scan {
            self.world.refresh_inventory();
            self.live.send(LiveEvent::State);
        }
        for views in self.agent_views(asker, all_users).chunks(16) {
            out(&Answer::Agents(views.to_vec()))?;
        }
        Ok(())
    }

    pub(super) fn watch(&self, asker: &Asker, out: Out<'_>, stream: &UnixStream) -> Result<(), Ended> {
        let screen_of = self.screen_of(asker);
        let busy = || Refusal::new(RefusalCode::Busy, "too many watch already", "close another screen first");
        let watcher = self.live.watch(screen_of).ok_or_else(busy)?;
        let folder = self.world.config().state.join("journal");
        let mut reader = Reader::open(&folder, Start::Last(0))
            .map_err(|error| Refusal::new(RefusalCode::Internal, error.to_string(), ""))?;
        out(&Answer::Live(Live::Status(Box::new(self.status(asker)))))?;
        let mut stated = clock::now().boot_ns;
        let mut changed = false;
        loop {
            let (events, lost) = watcher.wait(Duration::from_millis(if changed { 250 } else { 2_000 }));
            if streams::is_closed(stream) {
                return Err(Ended::Gone);
            }
            if lost > 0 {
                out(&Answer::Live(Live::Missed { events: lost }))?;
                changed = true;
            }
            let mut stopping = false;
            let mut records = false;
            for event in events {
                match event {
                    LiveEvent::Record { .. } => records = true,
                    LiveEvent::Question { id } => {
                        let view = self.desk.look(|guard, _| guard.approvals()).into_iter().find(|view| view.id == id);
                        if let Some(view) = view.filter(|view| asker.may_see_question(view.owner)) {
                            let view = Box::new(self.question_view(&view, screen_of));
                            out(&Answer::Live(Live::Question(view)))?;
                        }
                        changed = true;
                    }
                    LiveEvent::Confirmation { purpose, code, expires_unix_ns, .. } => {
                        out(&Answer::Live(Live::Confirmation { purpose, code, expires_unix_ns }))?;
                    }
                    LiveEvent::Alert(_) | LiveEvent::State => changed = true,
                    LiveEvent::Stopping => stopping = true,
                }
            }
            if records {
                changed = true;
                while let Ok(Some(stored)) = reader.next_record() {
                    if asker.sees_only().is_none_or(|owner| stored.envelope.owner == owner) {
                        out(&Answer::Live(Live::Record(Box::new(record_view(&stored)))))?;
                    }
                }
            }
            let now = clock::now().boot_ns;
            if changed && now.saturating_sub(stated) >= STATE_EVERY_NS {
                out(&Answer::Live(Live::Status(Box::new(self.status(asker)))))?;
                stated = now;
                changed = false;
            }
            if stopping {
                out(&Answer::Live(Live::Stopping { reason: "creel stops".to_owned() }))?;
                return Ok(());
            }
        }
    }

    /// Whether this asker's screen may show codes: a person at a terminal. In user mode that is the test of presence.
    fn screen_of(&self, asker: &Asker) -> Option<u32> {
        asker.terminal.then_some(asker.uid)
    }

    fn quietness(&self) -> Quietness {
        let (took_p50_ns, took_p99_ns) = self.desk.took();
        Quietness { took_p50_ns, took_p99_ns, ..self.desk.look(|guard, _| reports::quietness(guard)) }
    }

    fn journal_view(&self) -> JournalView {
        let folder = self.world.config().state.join("journal");
        let state = self.desk.look(|_, journal| journal.state());
        let anchored = state.anchors.iter().find(|anchor| anchor.anchored.is_some() && anchor.absent.is_none());
        JournalView {
            folder: folder.display().to_string(),
            records: state.records,
            bytes: bytes_below(&folder, 0),
            checkpoint_records: state.signed,
            verifier_key: self.world.verifier().map(|key| key.to_string()).unwrap_or_default(),
            anchor: anchored.map(|anchor| anchor.target.clone()),
            anchored_unix_ns: None,
            reserve_in_use: state.space != Space::Normal,
            lost: self.desk.records_lost(),
        }
    }

    fn protections(&self, asker: &Asker, now: Moment, journal: &JournalView, blocking: u32) -> Vec<Protection> {
        let mut list = Vec::new();
        let inventory = self.world.inventory();
        for kind in KINDS {
            for scope in [Scope::System, Scope::User] {
                let place = self.place(asker, kind, scope);
                let status = self.world.protections.status(&self.world.root, &place, None, &inventory);
                let present = inventory.iter().any(|report| report.kind == *kind && report.is_present());
                if status.state == GuardState::Absent && (scope == Scope::System || !present) {
                    continue;
                }
                let proof = self.world.protections.proof(&place);
                let fresh = proof.as_ref().filter(|proof| {
                    now.unix_ns.saturating_sub(proof.view.at_unix_ns) < PROOF_NS
                        && proof.bundle == self.world.bundle().digest().to_string()
                        && (place.version.is_none() || proof.view.version == place.version)
                });
                let (state, detail) = match (status.state, fresh) {
                    (GuardState::Absent, _) => {
                        (ProtectionState::Off, format!("`creel guard install {kind}` wires it in"))
                    }
                    (GuardState::Drifted, _) => {
                        (ProtectionState::NotEffective, status.drift.first().cloned().unwrap_or_default())
                    }
                    (GuardState::Installed, Some(proof)) if !proof.view.effective => {
                        (ProtectionState::NotEffective, proof.view.because.clone())
                    }
                    (GuardState::Installed, Some(proof)) => {
                        let how = if proof.view.live { "by live canary" } else { "by canary" };
                        (ProtectionState::Effective, how.to_owned())
                    }
                    (GuardState::Installed, None) => {
                        (ProtectionState::Configured, format!("not proved lately; `creel guard canary {kind}`"))
                    }
                };
                let mut limits = status.limits;
                limits.extend(status.bypasses);
                list.push(Protection {
                    name: format!("hook {kind} ({})", scope.as_str()),
                    state,
                    detail,
                    limits,
                    shown_unix_ns: proof.map(|proof| proof.view.at_unix_ns),
                });
            }
        }
        let (state, detail) = match blocking {
            0 => (ProtectionState::Audit, "rules only record; `creel policy enforce` turns them on".to_owned()),
            rules => (ProtectionState::Effective, format!("{rules} rules act")),
        };
        list.push(Protection {
            name: "rules".to_owned(),
            state,
            detail,
            limits: vec!["rules see what the agent's hook tells; only a cage holds what it does not tell".to_owned()],
            shown_unix_ns: None,
        });
        let limits = match (&journal.anchor, self.world.mode()) {
            (None, _) => vec!["no anchor outside this account: `verify` can only say self-consistent".to_owned()],
            (Some(_), Mode::User) => {
                vec!["this account can delete its own record; the anchor shows that it did".to_owned()]
            }
            (Some(_), Mode::System) => Vec::new(),
        };
        list.push(Protection {
            name: "record".to_owned(),
            state: ProtectionState::Effective,
            detail: format!("{} records, sealed", journal.records),
            limits,
            shown_unix_ns: None,
        });
        if self.world.mode() == Mode::User {
            list.push(Protection {
                name: "user mode".to_owned(),
                state: ProtectionState::Configured,
                detail: "stops accidents, not a hostile process of your account".to_owned(),
                limits: vec![
                    "the system service (`sudo creel service install --system`) is the enforced mode".to_owned(),
                ],
                shown_unix_ns: None,
            });
        }
        list
    }

    fn problems(&self, agents: &[AgentView], journal: &JournalView, protections: &[Protection]) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |severity, text: String, hint: &str| {
            problems.push(Problem { severity, text, hint: hint.to_owned() });
        };
        if journal.lost > 0 {
            add(
                Severity::Critical,
                format!("{} records were lost", journal.lost),
                "free disk space; see `creel log verify`",
            );
        }
        if journal.reserve_in_use {
            add(Severity::High, "the disk is full: the record uses its reserve".to_owned(), "free disk space");
        }
        for protection in protections.iter().filter(|known| known.state == ProtectionState::NotEffective) {
            let text = format!("{} is not effective: {}", protection.name, protection.detail);
            add(Severity::High, text, "`creel guard status` tells more, `creel guard install` mends it");
        }
        for problem in self.world.problems() {
            add(Severity::Medium, problem, "");
        }
        for agent in agents.iter().filter(|agent| agent.governed == Governed::No && !agent.runs.is_empty()) {
            let text = format!("{} runs without creel", agent.name);
            add(Severity::Medium, text, "`creel guard install` wires protection in");
        }
        for agent in agents {
            if let Some(found) = agent.findings.iter().find(|found| stops_creel(&found.code)) {
                let name = format!("{} of {}", agent.name, agent.account);
                let text = format!("{name}: enforcement none: can stop creel ({})", found.evidence);
                add(Severity::Critical, text, "run it under an ordinary account, or inside a cage");
            }
        }
        let unpinned = self.world.peers_unpinned();
        if unpinned {
            let text = "this kernel (before 6.5) cannot pin the process behind a connection".to_owned();
            add(Severity::Low, text, "update the kernel");
        }
        problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
        problems
    }

    fn agent_views(&self, asker: &Asker, all_users: bool) -> Vec<AgentView> {
        let runs: Vec<_> = self.desk.look(|guard, _| guard.runs().filter(|run| !run.ended).collect());
        self.world
            .inventory()
            .iter()
            .filter(|report| report.is_present())
            .filter(|report| all_users || report.account.uid == asker.uid || asker.uid == 0)
            .take(AGENTS_MAX)
            .map(|report| self.agent_view(report, &runs))
            .collect()
    }

    fn agent_view(&self, report: &AgentReport, runs: &[creel_guard::RunView]) -> AgentView {
        let (governed, governed_because) = self.governed(report);
        creel_discover::agent_view(report, governed, governed_because, |key| {
            runs.iter().find(|run| run.key.process == *key).map(|run| run.run.to_string())
        })
    }

    fn governed(&self, report: &AgentReport) -> (Governed, String) {
        if !KINDS.contains(&report.kind.as_str()) {
            return (Governed::Unsupported, "creel cannot judge this kind yet".to_owned());
        }
        if !report.has_creel_hook() {
            return (Governed::No, format!("`creel guard install {}` wires protection in", report.kind));
        }
        if let Some(found) = report.findings.iter().find(|found| stops_creel(&found.code)) {
            return (Governed::Partly, format!("enforcement none: can stop creel ({})", found.evidence));
        }
        let proved = [Scope::System, Scope::User].into_iter().any(|scope| {
            let place = crate::protection::Place {
                kind: &report.kind,
                scope,
                uid: report.account.uid,
                version: report.version.clone(),
            };
            self.world.protections.proof(&place).is_some_and(|proof| proof.view.effective)
        });
        let acts = self.world.bundle().rules().iter().any(|rule| rule.mode == RuleMode::Block);
        match (proved, acts) {
            (true, true) => (Governed::Yes, String::new()),
            (true, false) => (Governed::Partly, "rules only record yet".to_owned()),
            (false, _) => (Governed::Partly, "its hook was not proved since creel started".to_owned()),
        }
    }
}

/// Whether a finding means rights by which an agent can stop creel, whatever its hooks say.
fn stops_creel(code: &str) -> bool {
    matches!(code, "agent.runs-as-root" | "agent.can-stop-creel")
}

/// Bytes of the files below a folder of ours; at most four levels.
fn bytes_below(folder: &std::path::Path, depth: u8) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() && depth < 4 => bytes_below(&entry.path(), depth + 1),
            Ok(metadata) if metadata.is_file() => metadata.len(),
            _ => 0,
        })
        .sum()
}
