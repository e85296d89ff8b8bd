//! A bundle and what was found about it, as the control socket and the offline questions show it.

use std::collections::BTreeMap;

use creel_guard::Trust;
use creel_model::cage::WorkspaceMode;
use creel_model::{RuleMode, RunId};
use creel_policy::{Bundle, CageRequest, Diagnostic, NoPlan, Places, TestReport};
use creel_wire::control::{
    DiagnosticView, PolicySummary, PolicyView, ProfileCheck, ProfileView, RuleView, TestCaseView, TestReportView,
};

/// A bundle with its rules; `files` may be empty.
#[must_use]
pub fn policy(bundle: &Bundle, trust: &Trust, since_unix_ns: i64, files: BTreeMap<String, String>) -> PolicyView {
    PolicyView {
        summary: summary(bundle, trust, since_unix_ns),
        rules: bundle.rules().iter().map(rule).collect(),
        exceptions: bundle
            .exceptions()
            .map(|exception| {
                format!("{} sets {} aside for {}: {}", exception.id, exception.rule, exception.owner, exception.reason)
            })
            .collect(),
        defaults: bundle.defaults().iter().map(|(verb, verdict)| (verb.to_string(), *verdict)).collect(),
        files,
    }
}

/// A bundle in one line.
#[must_use]
pub fn summary(bundle: &Bundle, trust: &Trust, since_unix_ns: i64) -> PolicySummary {
    let count = |mode: RuleMode| {
        u32::try_from(bundle.rules().iter().filter(|rule| rule.mode == mode).count()).unwrap_or(u32::MAX)
    };
    PolicySummary {
        id: bundle.id().to_owned(),
        version: bundle.version().to_owned(),
        digest: bundle.digest().to_string(),
        trust: trust.to_string(),
        blocking: count(RuleMode::Block),
        audit: count(RuleMode::Audit),
        off: count(RuleMode::Off),
        since_unix_ns,
    }
}

/// One rule.
#[must_use]
pub fn rule(rule: &creel_policy::RuleInfo) -> RuleView {
    RuleView {
        id: rule.id.clone(),
        effect: rule.effect,
        severity: rule.severity,
        reason: rule.reason.clone(),
        mode: rule.mode,
        verbs: rule.verbs.iter().copied().collect(),
        exceptable: rule.exceptable,
        taxonomy: rule.taxonomy.clone(),
    }
}

/// The profiles of a bundle, without plans.
#[must_use]
pub fn profiles(bundle: &Bundle) -> ProfileCheck {
    let view = |info: creel_policy::ProfileInfo| ProfileView {
        name: info.name,
        about: info.about,
        extends: info.extends,
        kinds: info.kinds.into_iter().collect(),
        plan: None,
        notes: Vec::new(),
    };
    ProfileCheck { profiles: bundle.profiles().into_iter().map(view).collect(), diagnostics: Vec::new() }
}

/// Adds to each profile the plan that it makes for an account and a workspace.
///
/// # Errors
/// The workspace is none.
pub fn add_plans(bundle: &Bundle, check: &mut ProfileCheck, places: &Places) -> Result<(), NoPlan> {
    for profile in &mut check.profiles {
        let compiled = bundle.cage_plan(&CageRequest {
            run: RunId::from_random([0; 16]),
            profile: Some(&profile.name),
            kind: profile.kinds.first().map(String::as_str),
            places,
            mode: WorkspaceMode::Direct,
            learn: false,
            seconds: None,
            programs: &[],
            hook: None,
            never: &[],
        })?;
        profile.plan = Some(Box::new(compiled.plan));
        profile.notes = compiled.notes;
    }
    Ok(())
}

/// Checks the profiles of a bundle that is only text yet.
#[must_use]
pub fn check_profiles(files: &BTreeMap<String, String>, now_unix_s: i64) -> ProfileCheck {
    match Bundle::load(files, now_unix_s) {
        Ok(bundle) => profiles(&bundle),
        Err(faults) => ProfileCheck { profiles: Vec::new(), diagnostics: diagnostics(&faults) },
    }
}

/// Mistakes.
#[must_use]
pub fn diagnostics(found: &[Diagnostic]) -> Vec<DiagnosticView> {
    found
        .iter()
        .map(|fault| DiagnosticView {
            file: fault.file.clone(),
            line: fault.line,
            column: fault.column,
            message: if fault.expected.is_empty() {
                fault.message.clone()
            } else {
                format!("{}; expected {}", fault.message, fault.expected)
            },
            hint: fault.hint.clone(),
        })
        .collect()
}

/// The outcome of a bundle's tables. Only failing cases are listed one by one.
#[must_use]
pub fn tests(report: &TestReport) -> TestReportView {
    let failed = u32::try_from(report.failures.len()).unwrap_or(u32::MAX);
    TestReportView {
        passed: report.cases.saturating_sub(failed),
        failed,
        cases: report
            .failures
            .iter()
            .take(2_000)
            .map(|failure| TestCaseView {
                file: format!("{}:{}", failure.file, failure.line),
                name: failure.case.clone(),
                passed: false,
                expected: failure.expected.to_string(),
                got: if failure.difference.is_empty() {
                    failure.found.to_string()
                } else {
                    format!("{} ({})", failure.found, failure.difference)
                },
            })
            .collect(),
        untested_rules: report.never_matched.iter().cloned().collect(),
    }
}
