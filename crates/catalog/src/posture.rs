//! Everything seen of one kind for one account → its report.

use std::collections::BTreeMap;

use creel_model::{Account, ApprovalMode, Finding, Severity};

use crate::checks::{clip, file_findings, finding, hooks, mcp_findings, mcp_server};
use crate::document::{Document, FILE_BYTES_MAX, at, scalar};
use crate::facts::{ConfigFile, Content, Installation, ProcessFacts};
use crate::kind::{Kind, Place, Scope, Setting, Weakness};
use crate::process::is_helper;
use crate::report::{AgentReport, Approval, Origin, Running};

/// The most findings in one report; the worst are kept.
const FINDINGS_MAX: usize = 200;

/// What the edge saw of one kind for one account.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The account.
    pub account: &'a Account,
    /// Where the kind is installed, the one that is used first in front.
    pub installed: &'a [Installation],
    /// Its configuration files that exist.
    pub files: &'a [ConfigFile],
    /// Its processes of this account, as matched by the catalog.
    pub processes: &'a [ProcessFacts],
    /// Instruction files that exist.
    pub instructions: &'a [String],
    /// Skill folders that exist.
    pub skills: &'a [String],
}

/// Judges what was seen. Never fails: what is broken is a finding.
#[must_use]
pub fn posture(kind: &Kind, facts: &Facts<'_>) -> AgentReport {
    let mut findings = Vec::new();
    let files = read(kind, facts, &mut findings);
    let approval = approval(kind, &files, None);
    let mut report = AgentReport {
        kind: kind.id.clone(),
        name: kind.name.clone(),
        account: facts.account.clone(),
        installed: facts.installed.to_vec(),
        version: facts.installed.iter().find_map(|installed| installed.version.clone()),
        configured: facts.files.iter().filter(|file| file.project.is_none()).map(|file| file.path.clone()).collect(),
        projects: facts.files.iter().filter_map(|file| file.project.clone()).collect(),
        running: running(kind, facts, &files),
        approval,
        mcp_servers: Vec::new(),
        hooks: Vec::new(),
        instructions: facts.instructions.to_vec(),
        skills: facts.skills.to_vec(),
        findings: Vec::new(),
    };
    report.projects.sort();
    report.projects.dedup();
    lists(kind, &files, &mut report);
    findings.extend(report.mcp_servers.iter().flat_map(mcp_findings));
    hook_findings(&files, &report, &mut findings);
    approval_findings(facts.account, &report, &mut findings);
    power_findings(facts, &mut findings);
    weaknesses(kind, &files, facts, &mut findings);
    expectations(kind, &files, &report, &mut findings);
    findings
        .sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| (&a.code, &a.evidence).cmp(&(&b.code, &b.evidence))));
    findings.dedup();
    findings.truncate(FINDINGS_MAX);
    report.findings = findings;
    report
}

/// A file with its place and, where it was understood, its document.
struct Read<'a> {
    file: &'a ConfigFile,
    place: &'a Place,
    document: Option<Document>,
}

impl Read<'_> {
    fn managed(&self) -> bool {
        self.place.scope == Scope::Managed
    }
}

/// Reads every file, in the order of places: the weakest first.
fn read<'a>(kind: &'a Kind, facts: &Facts<'a>, findings: &mut Vec<Finding>) -> Vec<Read<'a>> {
    let mut files = Vec::new();
    for place in &kind.places {
        for file in facts.files.iter().filter(|file| file.place == place.id) {
            findings.extend(file_findings(place, file, facts.account.uid));
            let document = match &file.content {
                Content::Text(text) => match Document::parse(place.format, text) {
                    Ok(document) => Some(document),
                    Err(wrong) => {
                        malformed(place, file, &format!("cannot be understood: {wrong}"), findings);
                        None
                    }
                },
                Content::Unreadable(why) => {
                    malformed(place, file, &format!("cannot be read: {why}"), findings);
                    None
                }
                Content::TooLarge(size) => {
                    malformed(place, file, &format!("has {size} bytes, more than {FILE_BYTES_MAX}"), findings);
                    None
                }
                Content::NotAFile(what) => {
                    malformed(place, file, &format!("is no regular file but a {what}"), findings);
                    None
                }
                Content::NotText => {
                    malformed(place, file, "is not UTF-8 text", findings);
                    None
                }
            };
            if let Some(document) = &document {
                for key in document.duplicates.iter().take(8) {
                    findings.push(finding(
                        "agent.duplicate-key",
                        Severity::Low,
                        format!("{} has the key `{}` twice", file.path, clip(key, 100)),
                        "keep one of them: two readers may take different ones",
                    ));
                }
                if !place.credential_store {
                    for key in crate::secret::places(&document.root) {
                        findings.push(finding(
                            "agent.secret-in-configuration",
                            if file.project.is_some() { Severity::High } else { Severity::Medium },
                            format!("{} has a credential at `{}`", file.path, clip(&key, 120)),
                            "refer to a variable or a credential store instead, and renew the credential",
                        ));
                    }
                }
            }
            files.push(Read { file, place, document });
        }
    }
    files
}

fn malformed(place: &Place, file: &ConfigFile, what: &str, findings: &mut Vec<Finding>) {
    let managed = place.scope == Scope::Managed;
    findings.push(finding(
        "agent.malformed-configuration",
        if managed { Severity::High } else { Severity::Medium },
        format!("{} {what}", file.path),
        "mend or remove it; until then nobody can say what this agent is told",
    ));
    if managed && place.ignored_when_broken {
        findings.push(finding(
            "agent.policy-not-effective",
            Severity::Critical,
            format!("{} {what}, and this agent ignores a broken managed file silently", file.path),
            "mend it: as it is, nothing of it is enforced",
        ));
    }
}

/// The agent's processes; one whose parent is of the same kind is its helper and left out.
fn running(kind: &Kind, facts: &Facts<'_>, files: &[Read<'_>]) -> Vec<Running> {
    let pids: Vec<u32> = facts.processes.iter().map(|process| process.key.pid).collect();
    facts
        .processes
        .iter()
        .filter(|process| !pids.contains(&process.ppid) && !is_helper(kind, process))
        .map(|process| {
            // What counts is the innermost process: a wrapper hands its arguments on, and the program may add some.
            let below = facts.processes.iter().filter(|other| other.ppid == process.key.pid);
            let approval = std::iter::once(process)
                .chain(below)
                .map(|process| approval(kind, files, Some(process)))
                .max_by_key(|approval| openness(approval.mode));
            Running {
                key: process.key,
                exe: process.exe.clone(),
                cwd: process.cwd.clone(),
                approval: approval.unwrap_or_else(unknown_approval),
            }
        })
        .collect()
}

const fn openness(mode: ApprovalMode) -> u8 {
    match mode {
        ApprovalMode::Unknown => 0,
        ApprovalMode::ReadOnly => 1,
        ApprovalMode::Ask => 2,
        ApprovalMode::Edits => 3,
        ApprovalMode::Auto => 4,
        ApprovalMode::Bypass => 5,
    }
}

const fn unknown_approval() -> Approval {
    Approval { mode: ApprovalMode::Unknown, declared: String::new(), origin: Origin::Default }
}

/// A setting's value, how it was spelt, and who decided it.
struct Value {
    value: String,
    declared: String,
    origin: Origin,
}

/// The grade by configuration, or of one process.
fn approval(kind: &Kind, files: &[Read<'_>], process: Option<&ProcessFacts>) -> Approval {
    let values: BTreeMap<&str, Value> =
        kind.settings.iter().map(|setting| (setting.id.as_str(), setting_value(setting, files, process))).collect();
    for grade in &kind.grades {
        let fits = grade
            .when
            .iter()
            .all(|(id, wanted)| values.get(id.as_str()).is_some_and(|value| wanted.contains(&value.value)));
        if fits {
            let said: Vec<&Value> = grade.when.keys().filter_map(|id| values.get(id.as_str())).collect();
            let said = if said.is_empty() { values.values().collect() } else { said };
            // The origin that a person would go to first: an argument, then a variable, a file, nobody.
            let weight = |value: &&Value| match value.origin {
                Origin::Default => 0,
                Origin::File { .. } => 1,
                Origin::Variable { .. } => 2,
                Origin::Argument { .. } => 3,
            };
            let origin = said.iter().copied().max_by_key(weight).map_or(Origin::Default, |value| value.origin.clone());
            let declared = said.iter().map(|value| value.declared.as_str()).collect::<Vec<_>>().join(", ");
            return Approval { mode: grade.is, declared, origin };
        }
    }
    let declared = values.values().map(|value| value.declared.as_str()).collect::<Vec<_>>().join(", ");
    let origin = values.into_values().map(|value| value.origin).find(|origin| *origin != Origin::Default);
    Approval { mode: ApprovalMode::Unknown, declared, origin: origin.unwrap_or(Origin::Default) }
}

fn setting_value(setting: &Setting, files: &[Read<'_>], process: Option<&ProcessFacts>) -> Value {
    let mut found = Value {
        value: setting.default.clone(),
        declared: format!("{} = {} (default)", setting.id, setting.default),
        origin: Origin::Default,
    };
    for file in files {
        // A project's settings speak for processes in that project only.
        let applies = match (&file.file.project, process) {
            (None, _) => true,
            (Some(project), Some(process)) => is_below(&process.cwd, project),
            (Some(_), None) => false,
        };
        let looks =
            if setting.places.is_empty() { !file.place.no_settings } else { setting.places.contains(&file.place.id) };
        let Some(document) = file.document.as_ref().filter(|_| applies && looks) else { continue };
        for key in &setting.keys {
            for (path, value) in document.at(key) {
                // A table of patterns with a rule for everything else, as OpenCode has: that rule counts.
                let Some(value) = scalar(value).or_else(|| value.get("*").and_then(scalar)) else { continue };
                found = Value {
                    declared: format!("{} = {}", clip(&path, 80), clip(&value, 60)),
                    value,
                    origin: Origin::File { path: file.file.path.clone(), place: file.place.id.clone() },
                };
            }
        }
    }
    let Some(process) = process else { return found };
    for variable in &setting.variables {
        if let Some(value) = process.variables.get(&variable.name).filter(|value| !value.is_empty())
            && let Some(means) = variable.values.get(value).or_else(|| variable.values.get("*"))
        {
            found = Value {
                value: means.clone(),
                declared: format!("{}={}", variable.name, clip(value, 60)),
                origin: Origin::Variable { name: variable.name.clone() },
            };
        }
    }
    let mut arguments = process.argv.iter().skip(1).peekable();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            break;
        }
        for flag in &setting.flags {
            let inline = argument.strip_prefix(flag.argument.as_str()).and_then(|rest| rest.strip_prefix('='));
            let given = match (&flag.value, inline) {
                (Some(value), None) if *argument == flag.argument => Some(value.clone()),
                (Some(value), Some("true" | "1")) => Some(value.clone()),
                (None, Some(inline)) => Some(inline.to_owned()),
                (None, None) if *argument == flag.argument => arguments.peek().map(|next| (*next).clone()),
                _ => None,
            };
            let given = match &flag.prefix {
                Some(prefix) => given.and_then(|text| {
                    text.strip_prefix(prefix.as_str()).map(|rest| rest.trim_matches(['"', '\'']).to_owned())
                }),
                None => given,
            };
            if let Some(value) = given {
                let argument = clip(if flag.value.is_some() { argument } else { &flag.argument }, 80);
                found = Value {
                    declared: format!("{argument} → {}", clip(&value, 60)),
                    value,
                    origin: Origin::Argument { argument },
                };
            }
        }
    }
    found
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || folder == "/")
}

/// MCP servers and hooks.
fn lists(kind: &Kind, files: &[Read<'_>], report: &mut AgentReport) {
    for file in files {
        let Some(document) = &file.document else { continue };
        let here = |places: &[String]| places.is_empty() || places.contains(&file.place.id);
        for list in kind.mcp.iter().filter(|list| here(&list.places)) {
            for (_, table) in document.at(&list.key) {
                let servers = table.as_object().into_iter().flatten().take(256);
                report
                    .mcp_servers
                    .extend(servers.filter_map(|(name, value)| mcp_server(name, value, list, &file.file.path)));
            }
        }
        for list in kind.hooks.iter().filter(|list| here(&list.places)) {
            for (_, value) in document.at(&list.key) {
                if list.plugins {
                    report.hooks.extend(hooks("plugin", value, true, &file.file.path, file.managed()));
                } else {
                    for (event, value) in value.as_object().into_iter().flatten().take(128) {
                        report.hooks.extend(hooks(event, value, false, &file.file.path, file.managed()));
                    }
                }
            }
        }
    }
    report.mcp_servers.sort();
    report.mcp_servers.dedup();
    report.mcp_servers.truncate(256);
    report.hooks.sort();
    report.hooks.dedup();
    report.hooks.truncate(512);
}

fn hook_findings(files: &[Read<'_>], report: &AgentReport, findings: &mut Vec<Finding>) {
    let mut by_file: BTreeMap<&str, usize> = BTreeMap::new();
    for hook in report.hooks.iter().filter(|hook| !hook.ours) {
        *by_file.entry(hook.declared_in.as_str()).or_default() += 1;
    }
    for (path, count) in by_file {
        let project = files.iter().any(|file| file.file.path == path && file.file.project.is_some());
        findings.push(finding(
            "agent.hooks-of-others",
            if project { Severity::Medium } else { Severity::Info },
            format!(
                "{path} lets the agent run {count} hook{} or plugins that are not creel's",
                if count == 1 { "" } else { "s" }
            ),
            if project { "review them: who changes this project runs code on this machine" } else { "" },
        ));
    }
}

fn approval_findings(account: &Account, report: &AgentReport, findings: &mut Vec<Finding>) {
    let remedy = "let it ask, or run it inside a cage";
    if report.approval.mode == ApprovalMode::Bypass {
        findings.push(finding(
            "agent.auto-approve",
            Severity::High,
            format!("asks for nothing: {} ({})", report.approval.declared, report.approval.origin),
            remedy,
        ));
    } else if report.approval.mode == ApprovalMode::Auto && report.approval.origin != Origin::Default {
        findings.push(finding(
            "agent.auto-approve",
            Severity::Low,
            format!("decides alone: {} ({})", report.approval.declared, report.approval.origin),
            remedy,
        ));
    }
    for running in &report.running {
        let by_hand = matches!(running.approval.origin, Origin::Argument { .. } | Origin::Variable { .. });
        if running.approval.mode == ApprovalMode::Bypass && by_hand {
            findings.push(finding(
                "agent.bypass-flag",
                Severity::High,
                format!(
                    "process {} was started so that it asks for nothing: {}",
                    running.key.pid, running.approval.declared
                ),
                remedy,
            ));
        }
        if account.uid == 0 {
            findings.push(finding(
                "agent.runs-as-root",
                Severity::Critical,
                format!("process {} runs as root: it can stop creel and change its records", running.key.pid),
                "run agents under an ordinary account",
            ));
        }
    }
}

/// Rights beside the account's own that reach around every protection, also where the account is an ordinary one.
fn power_findings(facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for process in facts.processes.iter().filter(|process| !process.powers.is_empty()) {
        findings.push(finding(
            "agent.can-stop-creel",
            Severity::Critical,
            format!("process {} can stop creel: it has {}", process.key.pid, process.powers.join(", ")),
            "take the right away from its account, or run it inside a cage",
        ));
    }
}

fn weaknesses(kind: &Kind, files: &[Read<'_>], facts: &Facts<'_>, findings: &mut Vec<Finding>) {
    for weakness in &kind.weaknesses {
        let mut tell = |evidence: String| {
            let mut found = finding(&weakness.code, weakness.severity, evidence, &weakness.remedy);
            found.taxonomy.clone_from(&weakness.taxonomy);
            findings.push(found);
        };
        if let Some(key) = &weakness.key {
            for file in files.iter().filter(|file| in_scope(weakness, file.place.scope) && !file.place.no_settings) {
                for (path, value) in file.document.iter().flat_map(|document| at(&document.root, key)).take(32) {
                    if is_weak(weakness, value) {
                        tell(format!("{}: {} (`{}`)", file.file.path, weakness.says, clip(&path, 100)));
                    }
                }
            }
        }
        if let Some(setting) =
            weakness.setting.as_ref().and_then(|id| kind.settings.iter().find(|setting| setting.id == *id))
        {
            let by_file = setting_value(setting, files, None);
            if weakness.values.contains(&by_file.value) {
                tell(format!("{}: {} ({})", weakness.says, by_file.declared, by_file.origin));
            }
            for process in facts.processes.iter().filter(|process| !is_helper(kind, process)) {
                let value = setting_value(setting, files, Some(process));
                if value.origin != by_file.origin && weakness.values.contains(&value.value) {
                    tell(format!(
                        "process {}: {}: {} ({})",
                        process.key.pid, weakness.says, value.declared, value.origin
                    ));
                }
            }
        }
        if let Some(name) = &weakness.variable {
            for process in facts.processes {
                if let Some(value) = process.variables.get(name)
                    && is_weak(weakness, &serde_json::Value::String(value.clone()))
                {
                    tell(format!("process {}: {} (variable `{name}`)", process.key.pid, weakness.says));
                }
            }
            for file in files.iter().filter(|file| in_scope(weakness, file.place.scope)) {
                let Some(document) = &file.document else { continue };
                let env = file.place.format == crate::Format::Env;
                let values = if env { at(&document.root, name) } else { document.at(&format!("env.{name}")) };
                for (_, value) in values {
                    if is_weak(weakness, value) {
                        tell(format!("{}: {} (variable `{name}`)", file.file.path, weakness.says));
                    }
                }
            }
        }
    }
}

fn in_scope(weakness: &Weakness, scope: Scope) -> bool {
    weakness.scopes.is_empty() || weakness.scopes.contains(&scope)
}

fn is_weak(weakness: &Weakness, value: &serde_json::Value) -> bool {
    if weakness.values.is_empty() {
        !matches!(value, serde_json::Value::Null | serde_json::Value::Bool(false)) && value.as_str() != Some("")
    } else {
        scalar(value).is_some_and(|text| weakness.values.contains(&text))
    }
}

/// Policy that an administrator declared and that does not hold.
fn expectations(kind: &Kind, files: &[Read<'_>], report: &AgentReport, findings: &mut Vec<Finding>) {
    let managed: Vec<&Read<'_>> = files.iter().filter(|file| file.managed()).collect();
    let values = |key: &str| -> Vec<(String, Option<String>)> {
        let documents = managed.iter().filter_map(|file| file.document.as_ref().map(|document| (file, document)));
        documents
            .flat_map(|(file, document)| {
                document.at(key).into_iter().map(|(_, value)| (file.file.path.clone(), scalar(value)))
            })
            .collect()
    };
    for expectation in &kind.expectations {
        let declared = values(&expectation.when).into_iter().find(|(_, value)| {
            expectation.values.is_empty() || value.as_ref().is_some_and(|text| expectation.values.contains(text))
        });
        let Some((path, _)) = declared else { continue };
        let mut tell = |detail: String| {
            findings.push(finding(
                "agent.policy-not-effective",
                Severity::High,
                format!("{path}: {}{detail}", expectation.says),
                &expectation.remedy,
            ));
        };
        if let Some(needs) = &expectation.needs
            && !values(needs).iter().any(|(_, value)| expectation.value.is_none() || *value == expectation.value)
        {
            tell(String::new());
        }
        if let Some(forbidden) = expectation.forbids {
            if report.approval.mode == forbidden {
                tell(format!(" ({} says {})", report.approval.origin, report.approval.declared));
            }
            for running in report.running.iter().filter(|running| running.approval.mode == forbidden) {
                tell(format!(" (process {}: {})", running.key.pid, running.approval.declared));
            }
        }
    }
}

/// Installations with the newest version first; versions are compared number by number.
#[must_use]
pub fn newest_first(mut installed: Vec<Installation>) -> Vec<Installation> {
    let numbers = |installation: &Installation| -> Vec<u64> {
        let version = installation.version.as_deref().unwrap_or("");
        version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
    };
    installed.sort_by(|a, b| numbers(b).cmp(&numbers(a)).then_with(|| a.path.cmp(&b.path)));
    installed.dedup();
    installed
}

#[cfg(test)]
mod tests;
