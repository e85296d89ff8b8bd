//! An agent's report → the words of the control socket, for the daemon and for a scan without one.
//!
//! Whether an agent is *governed* is not known here: only who runs the hooks can tell, and says so. The one thing a
//! newcomer gets wrong: a flag that a process was started with is a bypass only when the approval mode says so.

use creel_catalog::{AgentReport, Origin};
use creel_model::{ApprovalMode, ProcessKey};
use creel_wire::control::{AgentView, Governed, HookView, McpServerView, RunView};

/// A report as it is shown. `run_of` gives the id under which a process's calls are recorded, where there is one.
#[must_use]
pub fn agent_view(
    report: &AgentReport,
    governed: Governed,
    governed_because: String,
    run_of: impl Fn(&ProcessKey) -> Option<String>,
) -> AgentView {
    let runs = report.running.iter().map(|running| RunView {
        run: run_of(&running.key),
        pid: running.key.pid,
        started_unix_ns: None,
        cwd: Some(running.cwd.clone()).filter(|cwd| !cwd.is_empty()),
        bypass_flags: match (&running.approval.mode, &running.approval.origin) {
            (ApprovalMode::Bypass, Origin::Argument { argument }) => vec![argument.clone()],
            _ => Vec::new(),
        },
    });
    let servers = report.mcp_servers.iter().map(|server| McpServerView {
        name: server.name.clone(),
        target: server.url.clone().unwrap_or_else(|| server.command.join(" ")),
        file: server.declared_in.clone(),
    });
    let hooks = report.hooks.iter().map(|hook| HookView {
        event: hook.event.clone(),
        command: hook.command.clone(),
        ours: hook.ours,
        file: hook.declared_in.clone(),
    });
    AgentView {
        kind: report.kind.clone(),
        name: report.name.clone(),
        version: report.version.clone(),
        account: report.account.name.clone(),
        uid: report.account.uid,
        program: report.installed.first().map(|installation| installation.path.clone()),
        installed: !report.installed.is_empty(),
        configured: !report.configured.is_empty(),
        runs: runs.collect(),
        approval_mode: report.approval.mode,
        approval_origin: match report.approval.declared.as_str() {
            "" => report.approval.origin.to_string(),
            declared => format!("{declared}, {}", report.approval.origin),
        },
        governed,
        governed_because,
        mcp_servers: servers.collect(),
        hooks: hooks.collect(),
        files: report.configured.clone(),
        findings: report.findings.clone(),
    }
}
