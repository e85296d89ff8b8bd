//! Facts that stick to a run and a conversation, and where content comes from and goes to.

use serde::{Deserialize, Serialize};

use crate::id::ActionId;
use crate::word::words;

/// A fact that sticks to a run and a conversation (DESIGN §9).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Label {
    /// Content that nobody here vouches for has been read.
    Untrusted,
    /// Content of mixed origin has been read: dependencies, foreign files in the workspace.
    Mixed,
    /// Content of this sensitive class has been read.
    Sensitive(String),
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Label::Untrusted => f.write_str("untrusted"),
            Label::Mixed => f.write_str("mixed"),
            Label::Sensitive(class) => write!(f, "sensitive:{class}"),
        }
    }
}

words! {
    /// Whether a label was stated or seen.
    pub enum Basis {
        /// Somebody said so (a policy, a hook that cannot be checked).
        Declared = "declared",
        /// creel saw it.
        Observed = "observed",
    }
}

/// A label with why it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelFact {
    /// The label.
    pub label: Label,
    /// Where the content came from that raised it.
    pub origin: Origin,
    /// The action that brought it.
    pub cause: ActionId,
    /// How it is known.
    pub basis: Basis,
}

/// Where content comes from (DESIGN §9).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The user typed it.
    User,
    /// The operator configured it.
    OperatorConfig,
    /// A file of the workspace that its owner wrote.
    WorkspaceOwned,
    /// A file in the workspace that came from elsewhere.
    WorkspaceForeign,
    /// A dependency's file.
    Dependency,
    /// The output of a local tool.
    ToolLocal,
    /// The network.
    External,
    /// An MCP server.
    Mcp(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Origin::User => "user",
            Origin::OperatorConfig => "operator-config",
            Origin::WorkspaceOwned => "workspace-owned",
            Origin::WorkspaceForeign => "workspace-foreign",
            Origin::Dependency => "dependency",
            Origin::ToolLocal => "tool-local",
            Origin::External => "external",
            Origin::Mcp(server) => return write!(f, "mcp:{server}"),
        })
    }
}

words! {
    /// How well known an object is as the destination of an effect (DESIGN §9).
    pub enum SinkGrade {
        /// The user's own prompt names it literally.
        NamedByUser = "named-by-user",
        /// Configuration names it: remotes, registries, bundle zones.
        Configured = "configured",
        /// It was used before in this workspace.
        SeenBefore = "seen-before",
        /// Nothing is known of it.
        New = "new",
    }
}
