//! The bundle in force: shown, replaced, judged anew on recorded facts.

use std::sync::Arc;

use creel_guard::{Input, Trust};
use creel_model::RuleMode;
use creel_policy::Bundle;
use creel_wire::control::{
    Answer, PolicyView, Purpose, RecordFilter, RefusalCode, ReplayChange, ReplayReport, ReplayTotal, RuleReport,
    WouldHaveReport,
};

use super::{Asker, ControlServer, Ended, Files, Out, Refusal};
use crate::live::LiveEvent;
use crate::{bundles, clock, policy_views, reports};

impl ControlServer {
    pub(crate) fn policy_view(&self, with_files: bool) -> PolicyView {
        let (files, trust, since) = self.world.source();
        let files = if with_files { files } else { Files::new() };
        policy_views::policy(&self.world.bundle(), &trust, since, files)
    }

    pub(super) fn policy_activate(
        &self,
        asker: &Asker,
        files: Files,
        dry_run: bool,
        code: Option<&str>,
        out: Out<'_>,
    ) -> Result<(), Ended> {
        asker.may_administer("load a bundle")?;
        let now = clock::now();
        let now_s = now.unix_ns / 1_000_000_000;
        let mut bundle = match Bundle::load(&files, now_s) {
            Ok(bundle) => bundle,
            Err(faults) => {
                if !dry_run {
                    let why = faults.first().map(ToString::to_string).unwrap_or_default();
                    let _ = self.desk.tell(Input::BundleRefused { why });
                }
                return Ok(out(&Answer::Diagnostics(policy_views::diagnostics(&faults)))?);
            }
        };
        let report = bundle.run_tests();
        let tests = policy_views::tests(&report);
        let previous = Some(self.world.bundle().digest().to_string());
        let trust = Trust::LocalUnsigned;
        if dry_run || !report.passed() {
            let summary = policy_views::summary(&bundle, &trust, 0);
            return Ok(out(&Answer::PolicyActivated { summary, tests, active: false, previous })?);
        }
        self.confirm(asker, &Purpose::PolicyActivate, code)?;
        let modes = bundles::modes(self.world.config()).of(&bundle);
        bundle.set_modes(&modes).map_err(|unknown| Refusal::new(RefusalCode::Internal, unknown.to_string(), ""))?;
        let bundle = Arc::new(bundle);
        let confirmed_by = Some(asker.as_administrator());
        let input = Input::Activate { bundle: Arc::clone(&bundle), trust: trust.clone(), confirmed_by };
        self.desk.tell(input).map_err(|refused| Refusal::new(RefusalCode::Invalid, refused.0, ""))?;
        bundles::keep(self.world.config(), &files).map_err(|error| {
            let message = format!("the bundle is in force, but cannot be kept for the next start: {error}");
            Refusal::new(RefusalCode::Internal, message, "check the state folder's disk and permissions")
        })?;
        let summary = policy_views::summary(&bundle, &trust, now.unix_ns);
        self.world.replace_bundle(bundle, files, trust, now.unix_ns);
        self.live.send(LiveEvent::State);
        Ok(out(&Answer::PolicyActivated { summary, tests, active: true, previous })?)
    }

    pub(super) fn policy_modes(
        &self,
        asker: &Asker,
        rules: &[String],
        mode: RuleMode,
        code: Option<&str>,
        out: Out<'_>,
    ) -> Result<(), Ended> {
        asker.may_administer("change the modes of rules")?;
        let bundle = self.world.bundle();
        if let Some(unknown) = rules.iter().find(|id| bundle.rule(id).is_none()) {
            let message = format!("the bundle has no rule `{unknown}`");
            return Err(Refusal::new(RefusalCode::NotFound, message, "`creel policy show` lists them").into());
        }
        let mut modes = bundles::modes(self.world.config());
        if rules.is_empty() {
            modes.rules.clear();
            // "Turn everything on" means the bundle as its author wrote it: what is born in audit stays there.
            modes.all = if mode == RuleMode::Block { None } else { Some(mode) };
        } else {
            modes.rules.extend(rules.iter().map(|id| (id.clone(), mode)));
        }
        let fresh = self.world.fresh_bundle(&modes).map_err(|why| Refusal::new(RefusalCode::Internal, why, ""))?;
        let loosens = fresh.rules().iter().any(|rule| {
            let was = bundle.rule(&rule.id).map_or(rule.mode, |old| old.mode);
            was == RuleMode::Block && rule.mode != RuleMode::Block
        });
        if loosens {
            self.confirm(asker, &Purpose::PolicyModes, code)?;
        }
        let fresh = Arc::new(fresh);
        let (files, trust, since) = self.world.source();
        bundles::keep_modes(self.world.config(), &modes).map_err(|error| {
            let message = format!("the modes cannot be kept: {error}");
            Refusal::new(RefusalCode::Internal, message, "check the state folder's disk and permissions")
        })?;
        let by = asker.as_administrator();
        self.desk
            .tell(Input::SetModes { bundle: Arc::clone(&fresh), by })
            .map_err(|refused| Refusal::new(RefusalCode::Invalid, refused.0, ""))?;
        self.world.replace_bundle(fresh, files, trust, since);
        self.live.send(LiveEvent::State);
        Ok(out(&Answer::Policy(Box::new(self.policy_view(false))))?)
    }

    pub(super) fn policy_replay(
        &self,
        asker: &Asker,
        files: &Files,
        filter: RecordFilter,
        out: Out<'_>,
    ) -> Result<(), Ended> {
        let bundle = match Bundle::load(files, clock::now().unix_ns / 1_000_000_000) {
            Ok(bundle) => bundle,
            Err(faults) => return Ok(out(&Answer::Diagnostics(policy_views::diagnostics(&faults)))?),
        };
        let mut report = ReplayReport { bundle: bundle.digest().to_string(), ..ReplayReport::default() };
        let mut totals = std::collections::BTreeMap::new();
        self.each_record(asker, &filter, &mut |stored| {
            let Some(subject) = stored.envelope.subject.as_ref() else { return Ok(true) };
            if stored.envelope.verdict.is_none() {
                return Ok(true);
            }
            let Some(detail) = stored.detail.as_ref() else {
                report.erased += 1;
                return Ok(true);
            };
            let record = creel_model::record::Record { envelope: stored.envelope.clone(), detail: detail.clone() };
            let Some(again) = creel_guard::replay(&record, &bundle) else { return Ok(true) };
            report.judged += 1;
            let key = (subject.kind.clone(), subject.uid, again.before, again.after);
            *totals.entry(key).or_insert(0_u64) += 1;
            if again.before != again.after {
                report.changed += 1;
                if report.changes.len() < 500 {
                    report.changes.push(ReplayChange {
                        sequence: stored.sequence,
                        kind: subject.kind.clone(),
                        uid: subject.uid,
                        tool: stored.envelope.tool.clone(),
                        excerpt: detail.excerpt.chars().take(200).collect(),
                        before: again.before,
                        after: again.after,
                        rules_before: stored.envelope.rules.clone(),
                        rules_after: again.rules.clone(),
                    });
                }
            }
            Ok(true)
        })?;
        report.totals = totals
            .into_iter()
            .map(|((kind, uid, before, after), count)| ReplayTotal { kind, uid, before, after, count })
            .collect();
        Ok(out(&Answer::Replay(report))?)
    }

    pub(super) fn policy_report(&self, asker: &Asker, since_unix_ns: Option<i64>, out: Out<'_>) -> Result<(), Ended> {
        let (_, _, in_force_since) = self.world.source();
        let since = since_unix_ns.unwrap_or(in_force_since);
        let filter = RecordFilter { since_unix_ns: Some(since), ..RecordFilter::default() };
        let mut report = WouldHaveReport {
            since_unix_ns: since,
            until_unix_ns: clock::now().unix_ns,
            agent_seconds: self.desk.look(|guard, _| reports::quietness(guard).agent_seconds),
            ..WouldHaveReport::default()
        };
        let mut rules = reports::Tally::default();
        self.each_record(asker, &filter, &mut |stored| {
            if stored.envelope.verdict.is_some() {
                report.decisions += 1;
                if !stored.envelope.audit_rules.is_empty() {
                    report.would_have += 1;
                }
                rules.add(stored);
            }
            Ok(true)
        })?;
        let bundle = self.world.bundle();
        report.rules = rules.rows(|id| {
            bundle.rule(id).map(|rule| RuleReport {
                rule: rule.id.clone(),
                effect: rule.effect,
                mode: rule.mode,
                severity: rule.severity,
                ..reports::unknown_rule(id)
            })
        });
        Ok(out(&Answer::WouldHave(report))?)
    }

    pub(super) fn policy_coverage(&self, out: Out<'_>) -> Result<(), Ended> {
        for rows in reports::coverage(&self.world.bundle()).chunks(500) {
            out(&Answer::Coverage(rows.to_vec()))?;
        }
        Ok(())
    }

    pub(super) fn policy_floor(&self, out: Out<'_>) -> Result<(), Ended> {
        for cells in reports::floor(&self.world.bundle()).chunks(500) {
            out(&Answer::Floor(cells.to_vec()))?;
        }
        Ok(())
    }
}
