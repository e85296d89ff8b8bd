//! Classes of paths and hosts that policies speak about.

use serde::{Deserialize, Serialize};

/// A zone's name. The bundle declares which paths and hosts are in it; these constants are the ones creel ships.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Zone(pub String);

impl Zone {
    /// The project the agent works in.
    pub const WORKSPACE: &'static str = "workspace";
    /// Credential stores and key files.
    pub const SECRETS: &'static str = "secrets";
    /// Agents' own configuration, hooks, skills and memory.
    pub const AGENT_CONFIG: &'static str = "agent-config";
    /// Files whose content another program will execute later: git hooks, task runners, shell start files.
    pub const EXEC_BEARING: &'static str = "exec-bearing";
    /// The operating system's own files.
    pub const SYSTEM: &'static str = "system";
    /// The account's home outside the workspace.
    pub const HOME: &'static str = "home";
    /// Scratch space.
    pub const TEMPORARY: &'static str = "temporary";
    /// Hosts that serve models.
    pub const MODEL_PROVIDER: &'static str = "model-provider";
    /// Hosts that serve source code.
    pub const CODE_HOST: &'static str = "code-host";
    /// Hosts that serve packages.
    pub const PACKAGE_REGISTRY: &'static str = "package-registry";
    /// The organisation's own hosts.
    pub const INTERNAL: &'static str = "internal";
    /// This machine.
    pub const LOOPBACK: &'static str = "loopback";
    /// Cloud metadata services, which hand out credentials.
    pub const METADATA: &'static str = "metadata";
    /// No other zone.
    pub const UNKNOWN: &'static str = "unknown";

    /// The zone of that name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Zone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}
