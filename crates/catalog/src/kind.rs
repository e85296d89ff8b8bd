//! The text of a catalog file → a checked [`Kind`]; all kinds together are the [`Catalog`].
//!
//! Unknown keys are errors: a misspelt key would silently watch nothing.

use std::collections::{BTreeMap, BTreeSet};

use creel_model::{ApprovalMode, Severity};
use serde::{Deserialize, Serialize};

use crate::document::Format;

/// All kinds of agents that are known.
#[derive(Clone, Debug)]
pub struct Catalog {
    kinds: Vec<Kind>,
}

/// Why a catalog file was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogError {
    /// The file's name.
    pub file: String,
    /// What is wrong.
    pub message: String,
}

impl std::fmt::Display for CatalogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.file, self.message)
    }
}

impl std::error::Error for CatalogError {}

/// The catalog files of this build: name and text.
pub const FILES: &[(&str, &str)] = &[
    ("claude-code.toml", include_str!("../../../catalog/claude-code.toml")),
    ("codex.toml", include_str!("../../../catalog/codex.toml")),
    ("gemini-cli.toml", include_str!("../../../catalog/gemini-cli.toml")),
    ("copilot-cli.toml", include_str!("../../../catalog/copilot-cli.toml")),
    ("openclaw.toml", include_str!("../../../catalog/openclaw.toml")),
    ("opencode.toml", include_str!("../../../catalog/opencode.toml")),
];

impl Catalog {
    /// The kinds compiled into this program.
    ///
    /// # Panics
    /// Never in a build whose tests pass: they load every file.
    #[must_use]
    pub fn built_in() -> Self {
        let mut kinds = Vec::new();
        for (file, text) in FILES {
            match Kind::parse(file, text) {
                Ok(kind) => kinds.push(kind),
                #[expect(clippy::panic, reason = "compiled-in data; the test `every_built_in_kind_loads` proves it")]
                Err(error) => panic!("built-in catalog: {error}"),
            }
        }
        Self { kinds }
    }

    /// Loads catalog files: file name → text.
    ///
    /// # Errors
    /// Every file that is wrong, with what is wrong; two files for one kind are an error.
    pub fn load(files: &BTreeMap<String, String>) -> Result<Self, Vec<CatalogError>> {
        let mut kinds: Vec<Kind> = Vec::new();
        let mut errors = Vec::new();
        for (file, text) in files {
            match Kind::parse(file, text) {
                Ok(kind) if kinds.iter().any(|other| other.id == kind.id) => errors.push(CatalogError {
                    file: file.clone(),
                    message: format!("kind `{}` is declared twice", kind.id),
                }),
                Ok(kind) => kinds.push(kind),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(Self { kinds }) } else { Err(errors) }
    }

    /// All kinds, in a fixed order.
    #[must_use]
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// The kind with this id.
    #[must_use]
    pub fn kind(&self, id: &str) -> Option<&Kind> {
        self.kinds.iter().find(|kind| kind.id == id)
    }

    /// The names of all catalogued environment variables: the only ones that may be read from a process.
    #[must_use]
    pub fn variables(&self) -> BTreeSet<&str> {
        self.kinds.iter().flat_map(|kind| kind.variables.iter().map(|variable| variable.name.as_str())).collect()
    }
}

/// What is known about one kind of agent.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Kind {
    /// Its id, for example `claude-code`.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Who makes it.
    pub vendor: String,
    /// How its processes look.
    pub process: ProcessSigns,
    /// How its installation looks.
    #[serde(default)]
    pub install: InstallSigns,
    /// Where its configuration lies, the weakest first: a later place wins over an earlier one.
    #[serde(default, rename = "place")]
    pub places: Vec<Place>,
    /// Where MCP servers stand in its configuration.
    #[serde(default, rename = "mcp")]
    pub mcp: Vec<McpList>,
    /// Where hooks stand in its configuration.
    #[serde(default, rename = "hooks")]
    pub hooks: Vec<HookList>,
    /// Instruction and memory files, as path patterns like those of places.
    #[serde(default)]
    pub instructions: Vec<String>,
    /// Skill folders, as path patterns like those of places.
    #[serde(default)]
    pub skills: Vec<String>,
    /// Settings that decide how it approves actions.
    #[serde(default, rename = "setting")]
    pub settings: Vec<Setting>,
    /// From settings to a grade; the first that fits decides.
    #[serde(default, rename = "grade")]
    pub grades: Vec<Grade>,
    /// Weaknesses that can be read from one key or one setting.
    #[serde(default, rename = "weakness")]
    pub weaknesses: Vec<Weakness>,
    /// What a managed configuration needs in order to hold.
    #[serde(default, rename = "expect")]
    pub expectations: Vec<Expectation>,
    /// Environment variables that change what it does.
    #[serde(default, rename = "variable")]
    pub variables: Vec<Variable>,
    /// Processes that must be recognised.
    #[serde(default, rename = "matches")]
    pub matches: Vec<Example>,
    /// Look-alikes that must not be.
    #[serde(default, rename = "not")]
    pub not: Vec<Example>,
}

/// How an agent's processes look. One sign is enough.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProcessSigns {
    /// Path patterns of the executable (`*` within a name, `**` for any folders).
    #[serde(default)]
    pub executables: Vec<String>,
    /// Package folders, for example `node_modules/@openai/codex`: the executable or the script lies below one.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Path patterns of the script that an interpreter runs.
    #[serde(default)]
    pub scripts: Vec<String>,
    /// Names that the agent gives itself (`process.title`), counted only where the executable is an interpreter.
    #[serde(default)]
    pub titles: Vec<String>,
    /// Interpreters that run it, by the base name of the executable.
    #[serde(default)]
    pub interpreters: Vec<String>,
    /// Arguments that make it a helper without a session of its own (for example `--version`); reported as no agent.
    #[serde(default)]
    pub helpers: Vec<String>,
}

/// How an agent's installation looks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct InstallSigns {
    /// Program names, looked for in the folders of programs.
    #[serde(default)]
    pub programs: Vec<String>,
    /// npm package names, looked for below the global `node_modules` folders.
    #[serde(default)]
    pub npm: Vec<String>,
    /// Folders of native installations, each entry of which is named by its version: `~/.local/share/claude/versions`.
    #[serde(default)]
    pub versions: Vec<String>,
    /// Further program files, for example `~/.opencode/bin/opencode`.
    #[serde(default)]
    pub files: Vec<String>,
}

/// Whose configuration a place holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The machine's, as a default that others override.
    System,
    /// The account's.
    User,
    /// A project's, shared with others.
    Project,
    /// A project's, for one account.
    Local,
    /// The administrator's, which wins over all others.
    Managed,
}

/// One place of configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Place {
    /// Its id within the kind.
    pub id: String,
    /// Whose it is.
    pub scope: Scope,
    /// Where: `/…` on the machine, `~/…` in the home folder, `./…` in a project.
    pub path: String,
    /// How to read it.
    pub format: Format,
    /// The path is a folder, and every file in it with one of these endings counts (first 256, by name).
    #[serde(default)]
    pub endings: Vec<String>,
    /// The variable that replaces the folder `~/.x` at the start of `path`, for example `CLAUDE_CONFIG_DIR`.
    #[serde(default)]
    pub home_variable: Option<String>,
    /// creel may write it: the root role accepts it in `WriteManaged`.
    #[serde(default)]
    pub writable: bool,
    /// It stores the agent's own login, so a credential in it is where it belongs.
    #[serde(default)]
    pub credential_store: bool,
    /// It holds no settings (only MCP servers or hooks), so settings and weaknesses are not looked for in it.
    #[serde(default)]
    pub no_settings: bool,
    /// The agent ignores a broken file silently, so that a broken managed one does not hold.
    #[serde(default)]
    pub ignored_when_broken: bool,
}

/// Where MCP servers stand.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct McpList {
    /// The key of the table of servers by name; `*` stands for any one part.
    pub key: String,
    /// Only in these places; empty: in all.
    #[serde(default)]
    pub places: Vec<String>,
    /// The value of a server's own key that switches it off: `enabled = false`, `disabled = true`.
    #[serde(default)]
    pub off: BTreeMap<String, bool>,
}

/// Where hooks stand.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HookList {
    /// The key of the table of hooks by event, or of a list of plugin modules.
    pub key: String,
    /// Only in these places; empty: in all.
    #[serde(default)]
    pub places: Vec<String>,
    /// The value is a list of plugin modules, not a table by event.
    #[serde(default)]
    pub plugins: bool,
}

/// A setting that decides how actions are approved.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Setting {
    /// Its id within the kind, used by grades.
    pub id: String,
    /// The keys that hold it.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Only in these places; empty: in all that hold settings.
    #[serde(default)]
    pub places: Vec<String>,
    /// Its value where nobody set it.
    pub default: String,
    /// Arguments that set it for one process.
    #[serde(default, rename = "flag")]
    pub flags: Vec<Flag>,
    /// Variables that set it for one process.
    #[serde(default, rename = "variable")]
    pub variables: Vec<SettingVariable>,
}

/// An argument that sets a setting.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Flag {
    /// The argument, for example `--yolo`.
    pub argument: String,
    /// The value it stands for; absent: the value follows (`--x v` or `--x=v`).
    #[serde(default)]
    pub value: Option<String>,
    /// The following value must start so, and what comes after is the value: `-c approval_policy=never`.
    #[serde(default)]
    pub prefix: Option<String>,
}

/// A variable that sets a setting.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SettingVariable {
    /// Its name; must be among the kind's variables.
    pub name: String,
    /// Its value → the setting's value. The key `*` stands for any value that is not empty.
    pub values: BTreeMap<String, String>,
}

/// From settings to a grade.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Grade {
    /// Setting id → values, one of which it must have. Empty: always fits.
    #[serde(default)]
    pub when: BTreeMap<String, Vec<String>>,
    /// The grade.
    pub is: ApprovalMode,
}

/// A weakness that can be read from one key or one setting.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Weakness {
    /// The finding's code, `agent.…`.
    pub code: String,
    /// How bad.
    pub severity: Severity,
    /// The key that is looked for; `*` stands for any one part.
    #[serde(default)]
    pub key: Option<String>,
    /// The setting that is looked at instead, for configuration and running processes alike.
    #[serde(default)]
    pub setting: Option<String>,
    /// The variable that is looked at instead, in running processes and in `env` tables of the configuration.
    #[serde(default)]
    pub variable: Option<String>,
    /// Values that are weak, as text (`true`, `never`); empty: any value but `false`, `null` and empty text.
    #[serde(default)]
    pub values: Vec<String>,
    /// Only in places of these scopes; empty: in all.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// What it means, one line.
    pub says: String,
    /// What to do, one line.
    pub remedy: String,
    /// Taxonomy ids.
    #[serde(default)]
    pub taxonomy: Vec<String>,
}

/// What a managed configuration needs in order to hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Expectation {
    /// If a managed file has this key …
    pub when: String,
    /// … with one of these values as text (empty: any) …
    #[serde(default)]
    pub values: Vec<String>,
    /// … then a managed file must have this key …
    #[serde(default)]
    pub needs: Option<String>,
    /// … with this value as text …
    #[serde(default)]
    pub value: Option<String>,
    /// … and no running process and no configuration may have this grade.
    #[serde(default)]
    pub forbids: Option<ApprovalMode>,
    /// What it means if not, one line.
    pub says: String,
    /// What to do, one line.
    pub remedy: String,
}

/// An environment variable that changes what an agent does.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// What it does, in a few words.
    pub does: String,
    /// Its value is a secret: only its presence is kept.
    #[serde(default)]
    pub secret: bool,
}

/// A process that must, or must not, be recognised.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Example {
    /// Its executable.
    #[serde(default)]
    pub exe: String,
    /// Its arguments.
    #[serde(default)]
    pub argv: Vec<String>,
    /// Its name.
    #[serde(default)]
    pub comm: String,
    /// Its script after symbolic links.
    #[serde(default)]
    pub script: Option<String>,
    /// Its working folder.
    #[serde(default)]
    pub cwd: String,
}

impl Kind {
    /// Reads and checks one catalog file.
    ///
    /// # Errors
    /// What is wrong in it: syntax, an unknown key, a reference to nothing.
    pub fn parse(file: &str, text: &str) -> Result<Self, CatalogError> {
        let wrong = |message: String| CatalogError { file: file.to_owned(), message };
        let kind: Kind = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        kind.check().map_err(wrong)?;
        Ok(kind)
    }

    /// The place with this id.
    #[must_use]
    pub fn place(&self, id: &str) -> Option<&Place> {
        self.places.iter().find(|place| place.id == id)
    }

    /// Everything that refers to something refers to something that exists.
    fn check(&self) -> Result<(), String> {
        let mut ids = BTreeSet::new();
        for place in &self.places {
            if !ids.insert(place.id.as_str()) {
                return Err(format!("place `{}` is declared twice", place.id));
            }
            let fits = match place.scope {
                Scope::System | Scope::Managed => place.path.starts_with('/'),
                Scope::User => place.path.starts_with("~/"),
                Scope::Project | Scope::Local => place.path.starts_with("./"),
            };
            if !fits || place.path.split('/').any(|part| part == "..") {
                return Err(format!("place `{}`: path `{}` does not fit its scope", place.id, place.path));
            }
            if place.writable && !matches!(place.scope, Scope::Managed | Scope::User) {
                return Err(format!("place `{}`: only managed and user places can be writable", place.id));
            }
        }
        let lists = self.mcp.iter().map(|list| &list.places);
        let lists = lists.chain(self.hooks.iter().map(|list| &list.places));
        for id in lists.chain(self.settings.iter().map(|setting| &setting.places)).flatten() {
            if !ids.contains(id.as_str()) {
                return Err(format!("place `{id}` is not declared"));
            }
        }
        let variables: BTreeSet<&str> = self.variables.iter().map(|variable| variable.name.as_str()).collect();
        let settings: BTreeSet<&str> = self.settings.iter().map(|setting| setting.id.as_str()).collect();
        let named = self.settings.iter().flat_map(|setting| setting.variables.iter().map(|variable| &variable.name));
        let named = named.chain(self.places.iter().filter_map(|place| place.home_variable.as_ref()));
        for name in named.chain(self.weaknesses.iter().filter_map(|weakness| weakness.variable.as_ref())) {
            if !variables.contains(name.as_str()) {
                return Err(format!("variable `{name}` is not declared"));
            }
        }
        let named = self.grades.iter().flat_map(|grade| grade.when.keys());
        for name in named.chain(self.weaknesses.iter().filter_map(|weakness| weakness.setting.as_ref())) {
            if !settings.contains(name.as_str()) {
                return Err(format!("setting `{name}` is not declared"));
            }
        }
        for weakness in &self.weaknesses {
            let looks = [&weakness.key, &weakness.setting, &weakness.variable].iter().filter(|at| at.is_some()).count();
            if looks != 1 || !weakness.code.starts_with("agent.") {
                return Err(format!(
                    "weakness `{}` needs one of key, setting, variable and a code `agent.…`",
                    weakness.code
                ));
            }
        }
        Ok(())
    }
}
