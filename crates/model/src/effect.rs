//! What an action does: a verb on an object, and how sure we are of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::label::{Origin, SinkGrade};
use crate::word::words;
use crate::zone::Zone;

words! {
    /// What is done. The Cedar action of a rule.
    pub enum Verb {
        /// Content of the object is read.
        Read = "read",
        /// Content of the object is created or changed.
        Write = "write",
        /// The object is removed or emptied.
        Delete = "delete",
        /// The object gets another name.
        Rename = "rename",
        /// A program or code is run.
        Execute = "execute",
        /// A connection is opened.
        Connect = "connect",
        /// Data leaves for the object.
        Send = "send",
        /// Data comes from the object.
        Receive = "receive",
        /// A tool or service is called.
        Call = "call",
        /// A setting of an agent, a tool or the system changes.
        Configure = "configure",
        /// Money or quota is used.
        Spend = "spend",
        /// Words go to a model.
        Prompt = "prompt",
        /// Words come from a model.
        Reply = "reply",
    }
}

words! {
    /// How an effect is known.
    pub enum Certainty {
        /// From the kernel, a broker or a structured tool.
        Exact = "exact",
        /// From shell text that was understood.
        Parsed = "parsed",
        /// A script or text ran that was not understood: anything may have happened.
        Opaque = "opaque",
    }
}

words! {
    /// What kind of thing a command does, for rules and for suspicion.
    pub enum CommandClass {
        /// Only looks.
        ReadOnly = "read-only",
        /// Builds, tests or formats a project.
        Build = "build",
        /// Destroys data that is hard to get back.
        Destructive = "destructive",
        /// Sends local data elsewhere.
        Exfiltration = "exfiltration",
        /// Reads or uses credentials.
        CredentialAccess = "credential-access",
        /// Arranges for something to run later.
        Persistence = "persistence",
        /// Gains or uses higher rights.
        Privilege = "privilege",
        /// Hides what it does.
        Obfuscated = "obfuscated",
        /// Installs software.
        Install = "install",
        /// Rewrites version history.
        HistoryRewrite = "history-rewrite",
        /// Drops or truncates a database.
        DatabaseDrop = "database-drop",
        /// Destroys infrastructure.
        InfrastructureDrop = "infrastructure-drop",
        /// Looks around on the machine, its accounts or its network.
        Discovery = "discovery",
        /// Weakens a defence or its records.
        DefenseEvasion = "defense-evasion",
    }
}

/// The object of an effect.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Object {
    /// A file or folder.
    Path {
        /// Absolute and lexically normalised where the text allowed it; else as written (then the effect is `dynamic`).
        path: String,
        /// The same after symbolic links, as the machine saw it just before the decision. Absent: not looked up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        resolved: Option<String>,
    },
    /// A network host.
    Host {
        /// Lower-case name or address; empty when unknown.
        host: String,
        /// Port, where stated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        /// The URL without user information and query, where stated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
    },
    /// A program to be run.
    Program {
        /// Its base name, for example `rm`.
        program: String,
        /// Its arguments without the program, as far as they are known literally.
        argv: Vec<String>,
        /// The script file it runs, absolute where known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        script: Option<String>,
    },
    /// A tool of an MCP server, or a tool of the agent itself (server empty).
    McpTool {
        /// Server name; empty for the agent's own tools.
        server: String,
        /// Tool name.
        tool: String,
    },
    /// A credential, by what it is for and never by its value.
    Credential {
        /// For example `aws`, `ssh-key`, `environment:GITHUB_TOKEN`.
        name: String,
    },
    /// A setting.
    ConfigKey {
        /// Which thing is configured: `git`, `crontab`, `systemd`, `claude-code`, `sysctl` …
        system: String,
        /// The key, for example `core.hooksPath`.
        key: String,
    },
    /// Text that enters or leaves the model's context.
    Text {
        /// What the text is, see [`crate::ContentRole`].
        role: crate::ContentRole,
        /// Its size in bytes.
        bytes: u64,
    },
}

impl Object {
    /// The type's name as Cedar and records spell it.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Object::Path { .. } => "Path",
            Object::Host { .. } => "Host",
            Object::Program { .. } => "Program",
            Object::McpTool { .. } => "McpTool",
            Object::Credential { .. } => "Credential",
            Object::ConfigKey { .. } => "ConfigKey",
            Object::Text { .. } => "Text",
        }
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Object::Path { path, .. } => f.write_str(path),
            Object::Host { host, url, .. } => f.write_str(url.as_deref().unwrap_or(host)),
            Object::Program { program, argv, .. } if argv.is_empty() => f.write_str(program),
            Object::Program { program, argv, .. } => write!(f, "{program} {}", argv.join(" ")),
            Object::McpTool { server, tool } if server.is_empty() => f.write_str(tool),
            Object::McpTool { server, tool } => write!(f, "{server}/{tool}"),
            Object::Credential { name } => f.write_str(name),
            Object::ConfigKey { system, key } => write!(f, "{system}:{key}"),
            Object::Text { role, bytes } => write!(f, "{role} ({bytes} bytes)"),
        }
    }
}

/// One thing that an action does to one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// What is done.
    pub verb: Verb,
    /// To what.
    pub object: Object,
    /// How we know.
    pub certainty: Certainty,
    /// What kind of command it came from.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub classes: BTreeSet<CommandClass>,
    /// A whole tree below the object is meant.
    #[serde(default, skip_serializing_if = "is_false")]
    pub recursive: bool,
    /// The object could not be determined from the text alone (an unknown expansion, a pattern).
    #[serde(default, skip_serializing_if = "is_false")]
    pub dynamic: bool,
    /// It runs with higher rights than the agent (`sudo`, `doas`, `su`, `pkexec`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub elevated: bool,
    /// It happens on another machine or inside a container (`ssh host …`, `docker exec …`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub remote: bool,
    /// Zones of the object; filled by the guard from the bundle.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub zones: BTreeSet<Zone>,
    /// How well known the object is as a destination; filled by the guard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sink: Option<SinkGrade>,
    /// Where content that this effect brings in comes from; filled by the guard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Classes of the content that this effect moves, for example `secret`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub content: BTreeSet<String>,
}

impl Effect {
    /// An effect with nothing but what every effect has.
    #[must_use]
    pub const fn new(verb: Verb, object: Object, certainty: Certainty) -> Self {
        Self {
            verb,
            object,
            certainty,
            classes: BTreeSet::new(),
            recursive: false,
            dynamic: false,
            elevated: false,
            remote: false,
            zones: BTreeSet::new(),
            sink: None,
            origin: None,
            content: BTreeSet::new(),
        }
    }
}

/// Skips a false flag on the wire and in records.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}
