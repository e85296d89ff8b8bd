//! What is said about one agent: one kind for one account.

use creel_model::{Account, ApprovalMode, Finding, ProcessKey};
use serde::{Deserialize, Serialize};

use crate::facts::Installation;

/// One agent of this machine: a kind for an account, with everything that could be learnt without running it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentReport {
    /// The catalogued kind, for example `claude-code`.
    pub kind: String,
    /// Its name for people.
    pub name: String,
    /// Whose it is.
    pub account: Account,
    /// Where it is installed; empty where only configuration or processes were found.
    pub installed: Vec<Installation>,
    /// The version of the installation that is used first, where known.
    pub version: Option<String>,
    /// Configuration files that exist, absolute.
    pub configured: Vec<String>,
    /// Projects in which configuration of this agent lies, absolute.
    pub projects: Vec<String>,
    /// Its processes, outermost only: an agent's helper of the same kind below it is not listed again.
    pub running: Vec<Running>,
    /// How it approves its own actions by configuration (running processes may differ, see [`Running::approval`]).
    pub approval: Approval,
    /// MCP servers that it is told to start or call.
    pub mcp_servers: Vec<McpServer>,
    /// Hooks that it is told to run.
    pub hooks: Vec<Hook>,
    /// Instruction and memory files that it reads, absolute.
    pub instructions: Vec<String>,
    /// Skill folders that it reads, absolute.
    pub skills: Vec<String>,
    /// Weaknesses, worst first.
    pub findings: Vec<Finding>,
}

impl AgentReport {
    /// Whether there is more than a project file: an installation, a process or a configuration of the account.
    #[must_use]
    pub fn is_present(&self) -> bool {
        !self.installed.is_empty() || !self.running.is_empty() || !self.configured.is_empty()
    }

    /// Whether creel's own hook is among its hooks. Says nothing about whether the agent obeys it: only a canary does.
    #[must_use]
    pub fn has_creel_hook(&self) -> bool {
        self.hooks.iter().any(|hook| hook.ours)
    }
}

/// A running process of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Which process.
    pub key: ProcessKey,
    /// Its executable.
    pub exe: String,
    /// Its working folder; empty where it could not be read.
    pub cwd: String,
    /// How it approves its actions, command line and environment included.
    pub approval: Approval,
}

/// How an agent approves its own actions, and who decided that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The grade.
    pub mode: ApprovalMode,
    /// In the agent's own words, for example `permissions.defaultMode = acceptEdits`.
    pub declared: String,
    /// What decided.
    pub origin: Origin,
}

/// What decided a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum Origin {
    /// Nobody: the agent's own default.
    Default,
    /// A configuration file.
    File {
        /// Its path.
        path: String,
        /// The place's id in the catalog.
        place: String,
    },
    /// An argument of a running process.
    Argument {
        /// The argument as given.
        argument: String,
    },
    /// A variable of a running process' environment.
    Variable {
        /// Its name.
        name: String,
    },
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, .. } => f.write_str(path),
            Origin::Argument { argument } => write!(f, "argument {argument}"),
            Origin::Variable { name } => write!(f, "variable {name}"),
        }
    }
}

/// An MCP server in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct McpServer {
    /// Its name there.
    pub name: String,
    /// The command line that starts it, secrets left out; empty for a remote one.
    pub command: Vec<String>,
    /// Its address without user information and query; `None` for a local one.
    pub url: Option<String>,
    /// The file that declares it.
    pub declared_in: String,
    /// The agent is told not to use it.
    pub disabled: bool,
}

/// A hook in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hook {
    /// The event, in the agent's words; `plugin` for plugin modules.
    pub event: String,
    /// What it runs or calls; an address without its query.
    pub command: String,
    /// The file that declares it.
    pub declared_in: String,
    /// It lies in a managed (administrator's) place.
    pub managed: bool,
    /// It runs creel's hook client.
    pub ours: bool,
}
