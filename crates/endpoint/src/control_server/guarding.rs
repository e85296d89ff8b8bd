//! Protection wired in, taken out, looked at and proved, on a person's word.

use creel_guard::{Input, Note};
use creel_model::{Mode, RecordKind};
use creel_wire::control::{Answer, CanaryView, GuardChange, GuardState, LiveReport, Purpose, RefusalCode, Scope};
use serde_json::{Map, Value, json};

use super::{Asker, ControlServer, Ended, Out, Refusal};
use crate::live::LiveEvent;
use crate::protection::{KINDS, Place, Proof, Protections};

impl ControlServer {
    pub(super) fn guard_install(
        &self,
        asker: &Asker,
        kind: &str,
        scope: Scope,
        dry_run: bool,
        out: Out<'_>,
    ) -> Result<(), Ended> {
        self.check_scope(asker, kind, scope, "wire protection in")?;
        // What is written depends on the version that is here now, not at the last look.
        let reports = self.world.refresh_inventory();
        let place = self.place(asker, kind, scope);
        let failed = |why: String| Refusal::new(RefusalCode::Invalid, why, "nothing was changed");
        let mut change = self.world.protections.install(&self.world.root, &place, &reports, dry_run).map_err(failed)?;
        if !dry_run {
            let canary = self.prove(&place);
            self.record_change("protection.installed", asker, &change, Some(&canary));
            change.canary = Some(canary);
            self.world.refresh_inventory();
            self.live.send(LiveEvent::State);
        }
        Ok(out(&Answer::GuardChanged(change))?)
    }

    pub(super) fn guard_remove(
        &self,
        asker: &Asker,
        kind: &str,
        scope: Scope,
        dry_run: bool,
        code: Option<&str>,
        out: Out<'_>,
    ) -> Result<(), Ended> {
        self.check_scope(asker, kind, scope, "take protection out")?;
        if !dry_run {
            self.confirm(asker, &Purpose::GuardRemove { kind: kind.to_owned() }, code)?;
        }
        let place = self.place(asker, kind, scope);
        let change = Protections::remove(&self.world.root, &place, dry_run)
            .map_err(|why| Refusal::new(RefusalCode::Invalid, why, "nothing was changed"))?;
        if !dry_run {
            self.record_change("protection.removed", asker, &change, None);
            self.world.refresh_inventory();
            self.live.send(LiveEvent::State);
        }
        Ok(out(&Answer::GuardChanged(change))?)
    }

    pub(super) fn guard_status(&self, asker: &Asker, kind: Option<&str>, out: Out<'_>) -> Result<(), Ended> {
        let mut views = Vec::new();
        // A bypass flag on a process that began a moment ago counts. Who only sees their own cannot make creel look at
        // everybody's files again and again.
        let reports = match asker.sees_only() {
            None => self.world.refresh_inventory(),
            Some(_) => self.world.inventory(),
        };
        for known in KINDS.iter().copied().filter(|known| kind.is_none_or(|kind| kind == *known)) {
            for scope in [Scope::System, Scope::User] {
                if scope == Scope::User && self.world.mode() == Mode::System && asker.uid == 0 {
                    continue;
                }
                let place = self.place(asker, known, scope);
                let account = (scope == Scope::User).then(|| asker.name.clone());
                views.push(self.world.protections.status(&self.world.root, &place, account, &reports));
            }
        }
        if views.is_empty() {
            let hint = format!("creel governs {}", KINDS.join(" and "));
            let message = format!("creel cannot govern `{}` yet", kind.unwrap_or_default());
            return Err(Refusal::new(RefusalCode::NotFound, message, hint).into());
        }
        Ok(out(&Answer::GuardStatus(views))?)
    }

    pub(super) fn guard_canary(
        &self,
        asker: &Asker,
        kind: &str,
        scope: Option<Scope>,
        live: bool,
        out: Out<'_>,
    ) -> Result<(), Ended> {
        let scope = self.scope(scope);
        if live {
            let message = "the live canary runs the agent, which only your own account may do";
            let hint = "`creel guard canary --live` does it itself and reports what it saw";
            return Err(Refusal::new(RefusalCode::Unavailable, message, hint).into());
        }
        self.check_scope(asker, kind, scope, "prove protection")?;
        let place = self.place(asker, kind, scope);
        let canary = self.prove(&place);
        self.note(RecordKind::Protection, "protection.canary", asker.uid, canary_facts(&canary));
        self.live.send(LiveEvent::State);
        Ok(out(&Answer::Canary(canary))?)
    }

    /// The words of a canary that the asker runs with the real agent. Proving needs no rights: what is proved is about
    /// the asker's own agent, and kept as that.
    pub(super) fn canary_word(
        &self,
        asker: &Asker,
        kind: &str,
        scope: Option<Scope>,
        out: Out<'_>,
    ) -> Result<(), Ended> {
        let scope = self.scope(scope);
        if !KINDS.contains(&kind) {
            return Err(unknown(kind).into());
        }
        if asker.uid == 0 {
            let message = "the live canary runs the agent, and creel never runs an agent as root";
            let hint = format!("run `creel guard canary {kind} --live` under the account that uses the agent");
            return Err(Refusal::new(RefusalCode::Forbidden, message, hint).into());
        }
        let words = self
            .world
            .canary
            .live
            .open(kind, scope, asker.peer.pid, asker.uid)
            .map_err(|why| Refusal::new(RefusalCode::Busy, why, "try again in two minutes"))?;
        Ok(out(&Answer::CanaryWord(words))?)
    }

    /// What came of it: the asker's account of the disk beside the daemon's account of its hook socket.
    pub(super) fn canary_report(&self, asker: &Asker, report: &LiveReport, out: Out<'_>) -> Result<(), Ended> {
        let outcome = self
            .world
            .canary
            .live
            .close(report, asker.peer.pid)
            .map_err(|why| Refusal::new(RefusalCode::Invalid, why, "run `creel guard canary KIND --live` again"))?;
        let place = self.place(asker, &outcome.kind, outcome.scope);
        let mut view = CanaryView {
            kind: outcome.kind.clone(),
            effective: outcome.because.is_none(),
            because: outcome.because.unwrap_or_default(),
            at_unix_ns: crate::clock::now().unix_ns,
            live: true,
            version: place.version.clone(),
            steps: outcome.steps,
        };
        self.held_to_wiring(&place, &mut view);
        let mut facts = canary_facts(&view);
        facts.insert("scope".to_owned(), json!(outcome.scope));
        facts.insert("by".to_owned(), json!(asker.name));
        facts.insert("steps".to_owned(), json!(view.steps));
        self.note(RecordKind::Protection, "protection.canary", asker.uid, facts);
        self.live.send(LiveEvent::State);
        Ok(out(&Answer::Canary(view))?)
    }

    fn scope(&self, scope: Option<Scope>) -> Scope {
        scope.unwrap_or(match self.world.mode() {
            Mode::System => Scope::System,
            Mode::User => Scope::User,
        })
    }

    /// A wiring that is not as creel made it is not effective, whatever was seen; the proof is kept either way.
    fn held_to_wiring(&self, place: &Place<'_>, view: &mut CanaryView) {
        let status = self.world.protections.status(&self.world.root, place, None, &self.world.inventory());
        if status.state != GuardState::Installed && (view.effective || !view.live) {
            view.effective = false;
            view.because = match status.drift.first() {
                Some(drift) => format!("the wiring is not as creel made it: {drift}"),
                None => "the hook is not wired in".to_owned(),
            };
        }
        let bundle = self.world.bundle().digest().to_string();
        self.world.protections.keep_proof(place, Proof { view: view.clone(), bundle });
    }

    /// Drives the hook as the settings name it; a wiring that drifted is not effective whatever the hook answers.
    fn prove(&self, place: &Place<'_>) -> CanaryView {
        let mut view = match self.world.protections.pre_tool_command(place.kind) {
            Ok(command) => self.world.canary.drive(place.kind, &command),
            Err(why) => CanaryView {
                kind: place.kind.to_owned(),
                effective: false,
                because: why,
                at_unix_ns: crate::clock::now().unix_ns,
                live: false,
                version: None,
                steps: Vec::new(),
            },
        };
        view.version.clone_from(&place.version);
        self.held_to_wiring(place, &mut view);
        view
    }

    pub(crate) fn place<'a>(&self, asker: &Asker, kind: &'a str, scope: Scope) -> Place<'a> {
        let version = self
            .world
            .inventory()
            .iter()
            .find(|report| report.kind == kind && (scope == Scope::System || report.account.uid == asker.uid))
            .and_then(|report| report.version.clone());
        Place { kind, scope, uid: asker.uid, version }
    }

    fn check_scope(&self, asker: &Asker, kind: &str, scope: Scope, what: &str) -> Result<(), Refusal> {
        if !KINDS.contains(&kind) {
            return Err(unknown(kind));
        }
        match (self.world.mode(), scope) {
            (Mode::User, Scope::System) if asker.uid != 0 => Err(Refusal::new(
                RefusalCode::Unavailable,
                "managed settings need the system service",
                "install it with `sudo creel service install --system`, or use `--user`",
            )),
            (Mode::System, Scope::System) => asker.may_administer(what),
            _ => Ok(()),
        }
    }

    fn record_change(&self, code: &str, asker: &Asker, change: &GuardChange, canary: Option<&CanaryView>) {
        let mut facts = object(json!({
            "kind": change.kind,
            "scope": change.scope,
            "files": change.files.iter().map(|file| &file.path).collect::<Vec<_>>(),
            "silenced": change.silenced,
            "by": asker.name,
        }));
        if let Some(canary) = canary {
            facts.insert("effective".to_owned(), json!(canary.effective));
            facts.insert("because".to_owned(), json!(canary.because));
        }
        let note = Note { kind: RecordKind::Protection, code: code.to_owned(), owner: asker.uid, facts };
        let _ = self.desk.tell(Input::Note(Box::new(note)));
    }
}

fn unknown(kind: &str) -> Refusal {
    let message = format!("creel cannot govern `{kind}` yet");
    Refusal::new(RefusalCode::NotFound, message, format!("it governs {}", KINDS.join(" and ")))
}

fn canary_facts(canary: &CanaryView) -> Map<String, Value> {
    object(json!({
        "kind": canary.kind,
        "effective": canary.effective,
        "because": canary.because,
        "live": canary.live,
        "version": canary.version,
    }))
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
