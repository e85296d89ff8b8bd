//! Runs in cages and profiles, as people and supervisors ask about them.

use creel_model::RecordKind;
use creel_model::cage::{CageEvent, CageEventKind};
use creel_policy::Places;
use creel_wire::control::{Answer, RecordFilter, RefusalCode, RunEnd, RunGo, RunStart};

use super::{Asker, ControlServer, Ended, Out, Refusal};
use crate::live::LiveEvent;
use crate::policy_views;

/// Runs in one answer.
const RUNS_AT_ONCE: usize = 64;
/// Most events of one answer about refusals.
const WHY_MAX: usize = 256;

impl ControlServer {
    pub(super) fn run_start(&self, asker: &Asker, start: RunStart, out: Out<'_>) -> Result<(), Ended> {
        let plan = self.world.cages.start(&self.world, &self.desk, asker, start)?;
        Ok(out(&Answer::RunPlan(Box::new(plan)))?)
    }

    pub(super) fn run_go(&self, asker: &Asker, go: RunGo, out: Out<'_>) -> Result<(), Ended> {
        let statement = self.world.cages.go(&self.world, &self.desk, asker, go)?;
        self.live.send(LiveEvent::State);
        Ok(out(&Answer::RunStatement(Box::new(statement)))?)
    }

    pub(super) fn run_end(&self, asker: &Asker, end: RunEnd) -> Result<(), Ended> {
        self.world.cages.end(&self.world, &self.desk, asker, end)?;
        self.live.send(LiveEvent::State);
        Ok(())
    }

    pub(super) fn runs(&self, asker: &Asker, ended: bool, out: Out<'_>) -> Result<(), Ended> {
        let views = self.world.cages.list(&self.world, asker, ended);
        for views in views.chunks(RUNS_AT_ONCE) {
            out(&Answer::Runs(views.to_vec()))?;
        }
        if views.is_empty() {
            out(&Answer::Runs(Vec::new()))?;
        }
        Ok(())
    }

    /// The last refusals: from memory where the run is remembered, else from the record.
    pub(super) fn run_why(&self, asker: &Asker, id: &str, limit: u32, out: Out<'_>) -> Result<(), Ended> {
        let limit = usize::try_from(limit).unwrap_or(WHY_MAX).clamp(1, WHY_MAX);
        let (run, mut events) = match self.world.cages.find(&self.world, asker, id) {
            Ok((view, events)) => (view.run, events),
            Err(refusal) if refusal.is(RefusalCode::NotFound) && id.len() >= 4 => self.why_of_record(asker, id)?,
            Err(refusal) => return Err(refusal.into()),
        };
        let beyond = events.len().saturating_sub(limit);
        events.drain(..beyond);
        Ok(out(&Answer::RunWhy { run, events })?)
    }

    fn why_of_record(&self, asker: &Asker, id: &str) -> Result<(creel_model::RunId, Vec<CageEvent>), Ended> {
        let id = if id.starts_with("r-") { id.to_owned() } else { format!("r-{id}") };
        let filter = RecordFilter { run: Some(id.clone()), kinds: vec![RecordKind::Event], ..RecordFilter::default() };
        let mut run = None;
        let mut events: Vec<CageEvent> = Vec::new();
        self.each_record(asker, &filter, &mut |stored| {
            let envelope = &stored.envelope;
            if !envelope.code.as_deref().is_some_and(|code| code.starts_with("cage.")) {
                return Ok(true);
            }
            let subject = envelope.subject.as_ref().map(|subject| subject.run.clone());
            if run.is_some() && run != subject {
                let message = format!("`{id}` begins several runs");
                return Err(Refusal::new(RefusalCode::Invalid, message, "give more of it").into());
            }
            run = subject;
            let facts = stored.detail.as_ref().and_then(|detail| detail.facts.get("events")).cloned();
            let noticed: Vec<CageEvent> =
                facts.and_then(|facts| serde_json::from_value(facts).ok()).unwrap_or_default();
            let told = |event: &CageEvent| {
                matches!(event.kind, CageEventKind::Refused | CageEventKind::Limit | CageEventKind::Fault)
            };
            events.extend(noticed.into_iter().filter(told));
            let beyond = events.len().saturating_sub(WHY_MAX);
            events.drain(..beyond);
            Ok(true)
        })?;
        let none = || Refusal::new(RefusalCode::NotFound, format!("no run `{id}`"), "`creel runs --all` lists them");
        Ok((run.ok_or_else(none)?, events))
    }

    pub(super) fn profiles(
        &self,
        asker: &Asker,
        name: Option<&str>,
        workspace: Option<&str>,
        out: Out<'_>,
    ) -> Result<(), Ended> {
        let bundle = self.world.bundle();
        let mut check = policy_views::profiles(&bundle);
        check.profiles.retain(|profile| name.is_none_or(|name| profile.name == name));
        if let Some(name) = name.filter(|_| check.profiles.is_empty()) {
            let message = format!("the bundle has no profile `{name}`");
            return Err(Refusal::new(RefusalCode::NotFound, message, "`creel profile show` lists them").into());
        }
        if let Some(workspace) = workspace {
            let home = self.world.account(asker.uid).home;
            let places = Places { home, workspace: Some(workspace.to_owned()), ..Places::default() };
            policy_views::add_plans(&bundle, &mut check, &places)
                .map_err(|none| Refusal::new(RefusalCode::Invalid, none.message, none.hint))?;
        }
        Ok(out(&Answer::Profiles(check))?)
    }
}
