//! Verbs that only read: `test`, `show`, `check`, `coverage`, `floor`, `report`.

use std::path::{Path, PathBuf};

use clap::Args;
use creel_wire::control::{
    Answer, CoverageRow, FloorCell, PolicyView, Request, RuleView, TestReportView, WouldHaveReport,
};

use super::mistakes;
use crate::connection::{Daemon, Place};
use crate::failure::{Exit, Failure, Outcome};
use crate::offline::{self, Checked, Covered, Floored, Tested};
use crate::out::{self, Format, Look};
use crate::text::{clean, count, table, thousands};
use crate::{clock, screen, show};

/// Arguments of verbs about a bundle folder.
#[derive(Debug, Args)]
pub(super) struct Bundle {
    /// The bundle's folder. Without one: this folder if it holds a `bundle.toml`, else the bundle in force, else the
    /// built-in one.
    folder: Option<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Arguments of `creel policy show`.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Only this rule, with its text.
    rule: Option<String>,
    /// With the text of all files.
    #[arg(long)]
    files: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Arguments of `creel policy check`.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The bundle's folder.
    folder: PathBuf,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Arguments of `creel policy report`.
#[derive(Debug, Args)]
pub(super) struct Report {
    /// From when; since the bundle came into force if not said.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Bundle {
    /// The folder that is meant; `None`: the bundle in force or the built-in one.
    fn folder(&self) -> Result<Option<String>, Failure> {
        match &self.folder {
            Some(folder) => offline::folder(folder).map(Some),
            None if Path::new("bundle.toml").is_file() => offline::folder(Path::new(".")).map(Some),
            None => Ok(None),
        }
    }
}

/// A running daemon, if there is one.
fn running(runtime: Option<&Path>) -> Result<Option<Daemon>, Failure> {
    Daemon::try_open(&Place::find(runtime))
}

/// `creel policy test`.
pub(super) fn test(arguments: &Bundle, runtime: Option<&Path>) -> Outcome {
    let tested: Tested = match (arguments.folder()?, running(runtime)?) {
        (Some(folder), _) => offline::about("policy-test", Some(&folder))?,
        (None, Some(mut daemon)) => {
            // The files in force are checked and tested by the daemon itself, changing nothing.
            let files = view(&mut daemon, true)?.files;
            let request = Request::PolicyActivate { files, dry_run: true, code: None };
            daemon.one(&request, |answer| match answer {
                Answer::PolicyActivated { tests, .. } => Some(Tested { report: Some(tests), diagnostics: Vec::new() }),
                Answer::Diagnostics(diagnostics) => Some(Tested { report: None, diagnostics }),
                _ => None,
            })?
        }
        (None, None) => offline::about("policy-test", None)?,
    };
    if !tested.diagnostics.is_empty() {
        mistakes(&tested.diagnostics, arguments.format)?;
        return Ok(Exit::No);
    }
    let report = tested.report.unwrap_or_default();
    match arguments.format {
        Format::Table => out::lines(test_lines(&report, Look::of_stdout()))?,
        format => out::json(&report, format)?,
    }
    Ok(if report.failed == 0 { Exit::Good } else { Exit::No })
}

pub(super) fn test_lines(report: &TestReportView, look: Look) -> Vec<String> {
    let mut lines = Vec::new();
    for case in report.cases.iter().filter(|case| !case.passed) {
        lines.push(look.bold(&format!("failed  {}: {}", clean(&case.file), clean(&case.name))));
        lines.extend(show::wrap_kept(&format!("        expected {}", clean(&case.expected)), look.width, 8));
        lines.extend(show::wrap_kept(&format!("        got      {}", clean(&case.got)), look.width, 8));
    }
    if !report.untested_rules.is_empty() {
        let line = format!("no case makes these rules match: {}", clean(&report.untested_rules.join(", ")));
        lines.extend(show::wrap_kept(&line, look.width, 2));
    }
    lines.push(format!(
        "{} passed, {} failed",
        count(u64::from(report.passed), "case"),
        thousands(u64::from(report.failed))
    ));
    lines
}

fn view(daemon: &mut Daemon, files: bool) -> Result<PolicyView, Failure> {
    daemon.one(&Request::PolicyShow { files }, |answer| match answer {
        Answer::Policy(view) => Some(*view),
        _ => None,
    })
}

/// `creel policy show`.
pub(super) fn show(arguments: &Show, runtime: Option<&Path>) -> Outcome {
    let with_files = arguments.files || arguments.rule.is_some();
    let mut view = match running(runtime)? {
        Some(mut daemon) => view(&mut daemon, with_files)?,
        None => {
            out::say("no daemon runs; these are the built-in rules");
            let checked: Checked = offline::about("policy-check", None)?;
            let mut view = checked.view.ok_or_else(|| Failure::new("the built-in rules have mistakes"))?;
            if !with_files {
                view.files.clear();
            }
            view
        }
    };
    if let Some(id) = &arguments.rule {
        view.rules.retain(|rule| rule.id == *id);
        if view.rules.is_empty() {
            return Err(
                Failure::new(format!("there is no rule `{}`", clean(id))).hint("`creel policy show` lists them")
            );
        }
    }
    if arguments.format != Format::Table {
        out::json(&view, arguments.format)?;
        return Ok(Exit::Good);
    }
    let look = Look::of_stdout();
    match &arguments.rule {
        Some(id) => out::lines(rule_lines(&view, id, look))?,
        None => out::lines(policy_lines(&view, look))?,
    }
    if arguments.files {
        for (name, text) in &view.files {
            out::lines([String::new(), look.bold(&format!("# {}", clean(name)))])?;
            out::lines(text.lines().map(clean))?;
        }
    }
    Ok(Exit::Good)
}

pub(super) fn policy_lines(view: &PolicyView, look: Look) -> Vec<String> {
    let summary = &view.summary;
    let mut lines = vec![
        look.bold(&format!(
            "{} {} · {} · {} act, {} watch, {} off",
            clean(&summary.id),
            clean(&summary.version),
            clean(&summary.trust),
            summary.blocking,
            summary.audit,
            summary.off
        )),
        format!("digest {}", clean(&summary.digest)),
        String::new(),
    ];
    let rows: Vec<Vec<String>> = view.rules.iter().map(rule_row).collect();
    lines.extend(table(&["RULE", "MODE", "EFFECT", "SEVERITY", "REASON"], &rows, look.width));
    for exception in &view.exceptions {
        lines.extend(show::wrap_kept(&format!("exception: {}", clean(exception)), look.width, 2));
    }
    lines
}

fn rule_row(rule: &RuleView) -> Vec<String> {
    vec![
        clean(&rule.id),
        rule.mode.to_string(),
        rule.effect.to_string(),
        rule.severity.to_string(),
        clean(&rule.reason),
    ]
}

fn rule_lines(view: &PolicyView, id: &str, look: Look) -> Vec<String> {
    let mut lines = Vec::new();
    for rule in &view.rules {
        lines.push(look.bold(&clean(&rule.id)));
        let verbs: Vec<&str> = rule.verbs.iter().map(|verb| verb.as_str()).collect();
        lines.extend(show::wrap_kept(&format!("  {}", clean(&rule.reason)), look.width, 2));
        let exceptable = if rule.exceptable { "exceptions may set it aside" } else { "no exception sets it aside" };
        let line = format!(
            "  {} · {} · {} · verbs {} · {exceptable}",
            rule.mode,
            rule.effect,
            rule.severity,
            verbs.join(", ")
        );
        lines.extend(show::wrap_kept(&line, look.width, 2));
        if !rule.taxonomy.is_empty() {
            lines.push(format!("  {}", clean(&rule.taxonomy.join(", "))));
        }
    }
    lines.extend(source(view, id));
    lines
}

/// The rule as it is written: from its first annotation to the semicolon that ends it.
pub(super) fn source(view: &PolicyView, id: &str) -> Vec<String> {
    let mark = format!("@id(\"{id}\")");
    for (name, text) in view.files.iter().filter(|(name, _)| name.ends_with(".cedar")) {
        let Some(begin) = text.lines().position(|line| line.contains(&mark)) else { continue };
        let mut lines = vec![String::new(), format!("  {}:{}", clean(name), begin + 1)];
        for line in text.lines().skip(begin).take(60) {
            lines.push(format!("  {}", clean(line)));
            if line.trim_end().ends_with(';') {
                break;
            }
        }
        return lines;
    }
    Vec::new()
}

/// `creel policy check`.
pub(super) fn check(arguments: &Check) -> Outcome {
    let folder = offline::folder(&arguments.folder)?;
    let checked: Checked = offline::about("policy-check", Some(&folder))?;
    if !checked.diagnostics.is_empty() {
        mistakes(&checked.diagnostics, arguments.format)?;
        return Ok(Exit::No);
    }
    let view = checked.view.ok_or_else(|| Failure::new("`creeld` neither found a bundle nor a mistake"))?;
    match arguments.format {
        Format::Table => out::lines([format!(
            "{} {}: {}, no mistakes (digest {})",
            clean(&view.summary.id),
            clean(&view.summary.version),
            count(view.rules.len() as u64, "rule"),
            clean(&view.summary.digest)
        )])?,
        format => out::json(&view, format)?,
    }
    Ok(Exit::Good)
}

/// `creel policy coverage`.
pub(super) fn coverage(arguments: &Bundle, runtime: Option<&Path>) -> Outcome {
    let covered: Covered = match (arguments.folder()?, running(runtime)?) {
        (Some(folder), _) => offline::about("policy-coverage", Some(&folder))?,
        (None, Some(mut daemon)) => {
            let mut coverage = Vec::new();
            for answer in daemon.ask(&Request::PolicyCoverage)? {
                if let Answer::Coverage(rows) = answer {
                    coverage.extend(rows);
                }
            }
            Covered { coverage, diagnostics: Vec::new() }
        }
        (None, None) => offline::about("policy-coverage", None)?,
    };
    if !covered.diagnostics.is_empty() {
        mistakes(&covered.diagnostics, arguments.format)?;
        return Ok(Exit::No);
    }
    out::list(&covered.coverage, arguments.format, |look| coverage_lines(&covered.coverage, look))?;
    Ok(Exit::Good)
}

fn coverage_lines(rows: &[CoverageRow], look: Look) -> Vec<String> {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| vec![clean(&row.rule), clean(&row.kind), clean(&row.mechanism), clean(&row.hold), clean(&row.why)])
        .collect();
    table(&["RULE", "AGENT", "MECHANISM", "HOLD", "WHY"], &rows, look.width)
}

/// `creel policy floor`.
pub(super) fn floor(arguments: &Bundle, runtime: Option<&Path>) -> Outcome {
    let floored: Floored = match (arguments.folder()?, running(runtime)?) {
        (Some(folder), _) => offline::about("policy-floor", Some(&folder))?,
        (None, Some(mut daemon)) => {
            let mut floor = Vec::new();
            for answer in daemon.ask(&Request::PolicyFloor)? {
                if let Answer::Floor(cells) = answer {
                    floor.extend(cells);
                }
            }
            Floored { floor, diagnostics: Vec::new() }
        }
        (None, None) => offline::about("policy-floor", None)?,
    };
    if !floored.diagnostics.is_empty() {
        mistakes(&floored.diagnostics, arguments.format)?;
        return Ok(Exit::No);
    }
    out::list(&floored.floor, arguments.format, |look| floor_lines(&floored.floor, look))?;
    Ok(Exit::Good)
}

/// Zones down, verbs across; allowed cells stay empty, so that what is held stands out.
fn floor_lines(cells: &[FloorCell], look: Look) -> Vec<String> {
    let mut verbs: Vec<creel_model::Verb> = Vec::new();
    let mut zones: Vec<&creel_model::Zone> = Vec::new();
    for cell in cells {
        if !verbs.contains(&cell.verb) {
            verbs.push(cell.verb);
        }
        if !zones.contains(&&cell.zone) {
            zones.push(&cell.zone);
        }
    }
    let mut head = vec!["ZONE"];
    head.extend(verbs.iter().map(|verb| verb.as_str()));
    let rows: Vec<Vec<String>> = zones
        .iter()
        .map(|zone| {
            let mut row = vec![clean(zone.as_str())];
            row.extend(verbs.iter().map(|verb| {
                let cell = cells.iter().find(|cell| cell.verb == *verb && cell.zone == **zone);
                cell.map_or(
                    "-".to_owned(),
                    |cell| if cell.cell == "allow" { "·".to_owned() } else { clean(&cell.cell) },
                )
            }));
            row
        })
        .collect();
    table(&head, &rows, look.width)
}

/// `creel policy report`.
pub(super) fn report(arguments: &Report, runtime: Option<&Path>) -> Outcome {
    let now = clock::now_unix_ns();
    let since = arguments.since.as_deref().map(|text| clock::parse(text, now)).transpose().map_err(Failure::new)?;
    let request = Request::PolicyReport { since_unix_ns: since };
    let report = Daemon::open(runtime)?.one(&request, |answer| match answer {
        Answer::WouldHave(report) => Some(report),
        _ => None,
    })?;
    match arguments.format {
        Format::Table => out::lines(report_lines(&report, Look::of_stdout()))?,
        format => out::json(&report, format)?,
    }
    Ok(Exit::Good)
}

fn report_lines(report: &WouldHaveReport, look: Look) -> Vec<String> {
    let line = format!(
        "since {}: {}, of which rules that watch would have stopped {} ({} per agent-hour)",
        clock::date_time(report.since_unix_ns),
        count(report.decisions, "decision"),
        thousands(report.would_have),
        screen::per_hour(report.would_have, report.agent_seconds),
    );
    let mut lines = show::wrap_kept(&line, look.width, 2);
    if report.rules.is_empty() {
        return lines;
    }
    lines.push(String::new());
    let rows: Vec<Vec<String>> = report
        .rules
        .iter()
        .map(|rule| {
            let examples: Vec<String> = rule.examples.iter().map(ToString::to_string).collect();
            vec![
                clean(&rule.rule),
                rule.effect.to_string(),
                rule.mode.to_string(),
                thousands(rule.matched),
                thousands(rule.conversations),
                examples.join(" "),
            ]
        })
        .collect();
    lines.extend(table(&["RULE", "EFFECT", "MODE", "MATCHED", "CONVERSATIONS", "EXAMPLES"], &rows, look.width));
    lines.push(String::new());
    lines.extend(show::wrap_kept(
        "look at one: `creel log show N`; let a rule act: `creel policy enforce RULE`",
        look.width,
        2,
    ));
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use creel_model::{Verb, Zone};

    use super::*;
    use crate::text::width;

    #[test]
    fn the_floor_is_a_table_of_what_is_held() {
        let cell = |verb, zone: &str, cell: &str| FloorCell {
            verb,
            zone: Zone::named(zone),
            cell: cell.to_owned(),
            rules: Vec::new(),
        };
        let cells = [
            cell(Verb::Read, "workspace", "allow"),
            cell(Verb::Write, "workspace", "allow"),
            cell(Verb::Read, "secrets", "deny"),
            cell(Verb::Write, "secrets", "depends"),
        ];
        assert_eq!(
            floor_lines(&cells, Look { width: 80, decorated: false }),
            ["ZONE       read  write", "workspace  ·     ·", "secrets    deny  depends",]
        );
    }

    #[test]
    fn the_rule_as_written_is_found() {
        let text = "// head\n@id(\"one\") @effect(\"deny\")\nforbid (principal, action, resource)\nwhen { true };\n\n@id(\"two\")\nforbid (principal, action, resource);\n";
        let view = PolicyView {
            summary: creel_wire::control::PolicySummary {
                id: "x".to_owned(),
                version: "1".to_owned(),
                digest: String::new(),
                trust: String::new(),
                blocking: 0,
                audit: 0,
                off: 0,
                since_unix_ns: 0,
            },
            rules: Vec::new(),
            exceptions: Vec::new(),
            defaults: BTreeMap::new(),
            files: BTreeMap::from([("rules/a.cedar".to_owned(), text.to_owned())]),
        };
        let lines = source(&view, "one");
        assert_eq!(lines.get(1).map(String::as_str), Some("  rules/a.cedar:2"));
        assert_eq!(lines.last().map(String::as_str), Some("  when { true };"));
        assert!(source(&view, "three").is_empty());
    }

    #[test]
    fn failing_cases_are_told_in_full() {
        let case = creel_wire::control::TestCaseView {
            file: "tests/files.toml".to_owned(),
            name: "a key is read".to_owned(),
            passed: false,
            expected: "deny by `secrets-read`".to_owned(),
            got: "allow".to_owned(),
        };
        let report = TestReportView { passed: 41, failed: 1, cases: vec![case], untested_rules: Vec::new() };
        for columns in [60, 80, 120] {
            let lines = test_lines(&report, Look { width: columns, decorated: false });
            assert_eq!(lines.last().map(String::as_str), Some("41 cases passed, 1 failed"));
            assert!(lines.iter().all(|line| width(line) <= columns));
        }
    }
}
