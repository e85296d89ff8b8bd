//! `tests/*.toml`: decision tables, one line per case, and running them.
//!
//! ```toml
//! cases = [
//!   { do = "read ~/.ssh/id_rsa", is = "ask", by = "read-credentials" },
//!   { do = "read ~/.ssh/known_hosts", is = "allow", not = "read-credentials" },
//! ]
//! ```
//!
//! A case says what is done (`verb object`, or several), which verdict comes out, which rules match (`by`, `audit`) and
//! which do not (`not`). Objects are paths unless they begin with `host:`, `program:`, `mcp:`, `credential:`, `key:` or
//! `text:`. A case is judged with the modes that the bundle itself states.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use toml::Spanned;

use creel_model::cage::WorkspaceMode;
use creel_model::{
    ApprovalMode, Certainty, CommandClass, ContentRole, Effect, Mode, Object, Point, RunId, SinkGrade, Verb, Verdict,
};

use crate::bundle::Bundle;
use crate::cage::{CageRequest, Reach, reach};
use crate::question::{AgentFacts, Context, Labels, Places, Question};
use crate::report::{CaseFailure, TestReport};
use crate::text::{Faults, position};

/// One case, checked.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    file: String,
    line: u32,
    name: String,
    effects: Vec<Effect>,
    context: Context,
    agent: AgentFacts,
    places: Places,
    set_aside: BTreeMap<String, String>,
    expected: Verdict,
    by: BTreeSet<String>,
    audit: BTreeSet<String>,
    not: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    places: Option<PlacesEntry>,
    #[serde(default)]
    cases: Vec<Spanned<Entry>>,
    #[serde(default)]
    plans: Vec<Spanned<PlanEntry>>,
}

/// `{ profile = "strict", path = "~/.ssh/id_rsa", is = "private" }`: what a plan says of a path.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanEntry {
    #[serde(default)]
    profile: Option<Spanned<String>>,
    #[serde(default)]
    kind: Option<String>,
    path: Spanned<String>,
    is: Reach,
    #[serde(default)]
    learn: bool,
    #[serde(default)]
    #[expect(dead_code, reason = "for the reader of the table")]
    note: String,
}

/// One line about a plan, checked.
#[derive(Clone, Debug)]
pub(crate) struct PlanCase {
    file: String,
    line: u32,
    profile: Option<String>,
    kind: Option<String>,
    written: String,
    path: String,
    places: Places,
    expected: Reach,
    learn: bool,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlacesEntry {
    home: String,
    workspace: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    r#do: Words,
    is: Verdict,
    #[serde(default)]
    by: Words,
    #[serde(default)]
    audit: Words,
    #[serde(default)]
    not: Words,
    #[serde(default)]
    #[expect(dead_code, reason = "for the reader of the table")]
    note: String,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    point: Option<Point>,
    #[serde(default)]
    tool: String,
    #[serde(default)]
    classes: BTreeSet<CommandClass>,
    #[serde(default)]
    content: BTreeSet<String>,
    #[serde(default)]
    findings: BTreeSet<String>,
    #[serde(default)]
    finding_classes: BTreeSet<String>,
    #[serde(default)]
    labels: BTreeSet<String>,
    #[serde(default)]
    sink: Option<SinkGrade>,
    #[serde(default)]
    certainty: Option<Certainty>,
    #[serde(default)]
    approval_mode: Option<ApprovalMode>,
    #[serde(default)]
    approved: Words,
    #[serde(default)]
    resolved: Option<String>,
    #[serde(default)]
    script: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    recursive: bool,
    #[serde(default)]
    dynamic: bool,
    #[serde(default)]
    elevated: bool,
    #[serde(default)]
    remote: bool,
    #[serde(default)]
    caged: bool,
    #[serde(default)]
    unparsed: bool,
}

/// One word or several.
#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Words {
    #[default]
    None,
    One(String),
    Several(Vec<String>),
}

impl Words {
    fn into_vec(self) -> Vec<String> {
        match self {
            Words::None => Vec::new(),
            Words::One(word) => vec![word],
            Words::Several(words) => words,
        }
    }
}

/// Reads one table. `known` says whether a rule exists.
pub(crate) fn read(
    file: &str,
    text: &str,
    known: &dyn Fn(&str) -> bool,
    plans: &mut Vec<PlanCase>,
    faults: &mut Faults,
) -> Vec<Case> {
    let hint = "a table is `cases = [ { do = \"read ~/.ssh/id_rsa\", is = \"ask\", by = \"rule\" }, … ]`, or `plans = \
                [ { profile = \"strict\", path = \"~/.ssh/id_rsa\", is = \"private\" }, … ]`";
    let Some(table) = faults.toml::<File>(file, text, hint) else { return Vec::new() };
    let places = Places {
        home: table.places.as_ref().map_or("/home/dev".to_owned(), |places| places.home.clone()),
        workspace: table.places.map_or(Some("/home/dev/project".to_owned()), |places| places.workspace),
        temporary: vec!["/tmp".to_owned(), "/var/tmp".to_owned()],
        uid: 1000,
    };
    for entry in table.plans {
        let (line, _) = position(text, entry.span().start);
        let entry = entry.into_inner();
        match object_of(entry.path.get_ref(), &places) {
            Ok(Object::Path { path, .. }) => plans.push(PlanCase {
                file: file.to_owned(),
                line,
                profile: entry.profile.map(Spanned::into_inner),
                kind: entry.kind,
                written: entry.path.into_inner(),
                path,
                places: places.clone(),
                expected: entry.is,
                learn: entry.learn,
            }),
            _ => {
                let message = format!("path `{}`", entry.path.get_ref());
                faults.at(file, text, entry.path.span().start, message, "a path", hint);
            }
        }
    }
    let mut cases = Vec::new();
    for entry in table.cases {
        let offset = entry.span().start;
        match case(file, text, offset, entry.into_inner(), &places) {
            Ok(case) => {
                for rule in case.by.iter().chain(&case.audit).chain(&case.not).filter(|rule| !known(rule)) {
                    let at = text.get(offset..).and_then(|rest| rest.find(&format!("\"{rule}\""))).unwrap_or(0);
                    let hint = "a table that names a rule which does not exist proves nothing";
                    faults.at(file, text, offset + at, format!("unknown rule `{rule}`"), "a rule's id", hint);
                }
                cases.push(case);
            }
            Err((message, expected)) => faults.at(file, text, offset, message, expected, hint),
        }
    }
    cases
}

fn case(file: &str, text: &str, offset: usize, entry: Entry, places: &Places) -> Result<Case, (String, &'static str)> {
    let mut effects = Vec::new();
    let done = entry.r#do.into_vec();
    for words in &done {
        let (verb, object) = words.split_once(' ').unwrap_or((words, ""));
        let verb: Verb = verb.parse().map_err(|_| (format!("unknown verb `{verb}`"), "`verb object`"))?;
        let mut object = object_of(object.trim(), places)?;
        match &mut object {
            Object::Path { resolved, .. } => resolved.clone_from(&entry.resolved),
            Object::Program { script, .. } => script.clone_from(&entry.script),
            Object::Host { port, .. } if entry.port.is_some() => *port = entry.port,
            _ => {}
        }
        effects.push(Effect {
            classes: entry.classes.clone(),
            content: entry.content.clone(),
            sink: entry.sink,
            recursive: entry.recursive,
            dynamic: entry.dynamic,
            elevated: entry.elevated,
            remote: entry.remote,
            ..Effect::new(verb, object, entry.certainty.unwrap_or(Certainty::Parsed))
        });
    }
    if effects.is_empty() {
        return Err(("a case that does nothing".to_owned(), "do = \"verb object\""));
    }
    let mut labels = Labels::default();
    for label in entry.labels {
        match label.as_str() {
            "untrusted" => labels.untrusted = true,
            "mixed" => labels.mixed = true,
            other => match other.strip_prefix("sensitive:") {
                Some(class) => {
                    labels.sensitive.insert(class.to_owned());
                }
                None => return Err((format!("label `{other}`"), "`untrusted`, `mixed` or `sensitive:<class>`")),
            },
        }
    }
    let (line, _) = position(text, offset);
    Ok(Case {
        file: file.to_owned(),
        line,
        name: done.join(", "),
        effects,
        context: Context {
            tool: entry.tool,
            labels,
            findings: entry.findings,
            finding_classes: entry.finding_classes,
            caged: entry.caged,
            parsed: !entry.unparsed,
            ..Context::at(entry.point.unwrap_or(Point::ToolCall))
        },
        agent: AgentFacts {
            kind: entry.kind.unwrap_or_else(|| "claude-code".to_owned()),
            account_uid: places.uid,
            mode: Mode::System,
            approval_mode: entry.approval_mode.unwrap_or(ApprovalMode::Ask),
            managed: true,
        },
        places: places.clone(),
        set_aside: entry.approved.into_vec().into_iter().map(|rule| (rule, "test".to_owned())).collect(),
        expected: entry.is,
        by: entry.by.into_vec().into_iter().collect(),
        audit: entry.audit.into_vec().into_iter().collect(),
        not: entry.not.into_vec().into_iter().collect(),
    })
}

fn object_of(text: &str, places: &Places) -> Result<Object, (String, &'static str)> {
    let expected = "a path, or `host:`, `program:`, `mcp:server/tool`, `credential:`, `key:system:key`, `text:role`";
    let wrong = || (format!("object `{text}`"), expected);
    if let Some(rest) = text.strip_prefix("host:") {
        let (url, host) = match rest.split_once("://") {
            Some((_, after)) => (Some(rest.to_owned()), after.split('/').next().unwrap_or("")),
            None => (None, rest),
        };
        let (host, port) = match host.rsplit_once(':') {
            Some((name, port)) if !name.contains(':') => (name, port.parse().ok()),
            _ => (host, None),
        };
        return Ok(Object::Host { host: host.to_ascii_lowercase(), port, url });
    }
    if let Some(rest) = text.strip_prefix("program:") {
        let mut words = rest.split_whitespace().map(str::to_owned);
        return Ok(Object::Program { program: words.next().ok_or_else(wrong)?, argv: words.collect(), script: None });
    }
    if let Some(rest) = text.strip_prefix("mcp:") {
        let (server, tool) = rest.split_once('/').ok_or_else(wrong)?;
        return Ok(Object::McpTool { server: server.to_owned(), tool: tool.to_owned() });
    }
    if let Some(rest) = text.strip_prefix("credential:") {
        return Ok(Object::Credential { name: rest.to_owned() });
    }
    if let Some(rest) = text.strip_prefix("key:") {
        let (system, key) = rest.split_once(':').ok_or_else(wrong)?;
        return Ok(Object::ConfigKey { system: system.to_owned(), key: key.to_owned() });
    }
    if let Some(rest) = text.strip_prefix("text:") {
        let role: ContentRole = rest.parse().map_err(|_| wrong())?;
        return Ok(Object::Text { role, bytes: 100 });
    }
    let home = &places.home;
    let path = match (text.strip_prefix("~"), text.strip_prefix("./"), &places.workspace) {
        (Some(rest), _, _) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
        (_, Some(rest), Some(workspace)) => format!("{workspace}/{rest}"),
        _ if text == "." => places.workspace.clone().ok_or_else(wrong)?,
        _ if text.starts_with('/') || text.starts_with('$') => text.to_owned(),
        _ => return Err(wrong()),
    };
    Ok(Object::Path { path, resolved: None })
}

impl Bundle {
    /// Runs the bundle's decision tables with the bundle's own modes, whatever `set_modes` has put over them.
    #[must_use]
    pub fn run_tests(&self) -> TestReport {
        let engine = self.own_engine();
        let mut report = TestReport::default();
        let mut matched_ever = BTreeSet::new();
        let mut spared_ever = BTreeSet::new();
        for case in &self.cases {
            let mut effects = case.effects.clone();
            for effect in &mut effects {
                effect.zones = self.zones_of_object(&effect.object, &case.places);
            }
            let judgement = self.judge_with(
                &engine,
                &Question {
                    agent: &case.agent,
                    effects: &effects,
                    context: &case.context,
                    places: &case.places,
                    set_aside: &case.set_aside,
                    now_unix_s: 0,
                },
            );
            let enforced: BTreeSet<&str> = judgement.rules.iter().map(|rule| rule.rule.as_str()).collect();
            let audit: BTreeSet<&str> = judgement.audit.iter().map(|rule| rule.rule.as_str()).collect();
            matched_ever.extend(enforced.iter().chain(&audit).map(|rule| (*rule).to_owned()));
            spared_ever.extend(case.not.iter().cloned());
            let mut difference = Vec::new();
            for rule in case.by.iter().filter(|rule| !enforced.contains(rule.as_str())) {
                difference.push(format!("`{rule}` does not match"));
            }
            for rule in case.audit.iter().filter(|rule| !audit.contains(rule.as_str())) {
                difference.push(format!("`{rule}` does not match in audit"));
            }
            for rule in case.not.iter().filter(|rule| enforced.contains(rule.as_str()) || audit.contains(rule.as_str()))
            {
                difference.push(format!("`{rule}` matches"));
            }
            if judgement.verdict != case.expected {
                let rules: Vec<&str> = judgement.deciding().map(|rule| rule.rule.as_str()).collect();
                let by = if rules.is_empty() { "no rule".to_owned() } else { rules.join(", ") };
                difference.push(format!("`{}` by {by}", judgement.verdict));
            }
            report.cases += 1;
            if !difference.is_empty() {
                report.failures.push(CaseFailure {
                    file: case.file.clone(),
                    line: case.line,
                    case: case.name.clone(),
                    expected: case.expected,
                    found: judgement.verdict,
                    difference: difference.join("; "),
                });
            }
        }
        self.run_plans(&mut report);
        let ids = || self.infos.iter().filter(|rule| rule.effect != Verdict::Allow).map(|rule| rule.id.clone());
        report.never_matched = ids().filter(|rule| !matched_ever.contains(rule)).collect();
        report.never_spared = ids().filter(|rule| !spared_ever.contains(rule)).collect();
        report
    }

    fn run_plans(&self, report: &mut TestReport) {
        for case in &self.plan_cases {
            let request = CageRequest {
                run: RunId::from_random([0; 16]),
                profile: case.profile.as_deref(),
                kind: case.kind.as_deref(),
                places: &case.places,
                mode: WorkspaceMode::Direct,
                learn: case.learn,
                seconds: None,
                programs: &[],
                hook: None,
                never: &[],
            };
            let (found, why) = match self.cage_plan(&request) {
                Ok(compiled) => {
                    let (found, line) = reach(&compiled.plan, &case.places.home, &case.path);
                    (found, line.to_owned())
                }
                Err(none) => (Reach::Absent, none.to_string()),
            };
            report.cases += 1;
            if found != case.expected {
                let who = case.profile.as_deref().or(case.kind.as_deref()).unwrap_or("default");
                report.failures.push(CaseFailure {
                    file: case.file.clone(),
                    line: case.line,
                    case: format!("{who}: {}", case.written),
                    expected: as_verdict(case.expected),
                    found: as_verdict(found),
                    difference: format!("`{}` instead of `{}` by {why}", found.as_str(), case.expected.as_str()),
                });
            }
        }
    }
}

/// Reports speak in verdicts; the words stand in the difference.
fn as_verdict(reach: Reach) -> Verdict {
    match reach {
        Reach::Absent | Reach::Deny | Reach::Sealed => Verdict::Deny,
        Reach::Private | Reach::Read | Reach::Execute | Reach::Write => Verdict::Allow,
    }
}
