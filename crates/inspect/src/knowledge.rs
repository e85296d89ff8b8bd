//! What commands do, as data: `data/commands/*.toml` read once into a table by name.
//!
//! A command that is not in the table is still a command: its `execute` effect stands, only nothing further is claimed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use creel_model::{CommandClass, Severity};
use serde::Deserialize;

use crate::path::glob;
use crate::paths::{Paths, RawPaths};

/// The data files, as built in.
pub(crate) static SOURCES: &[&str] = &[
    include_str!("../data/commands/archive.toml"),
    include_str!("../data/commands/build.toml"),
    include_str!("../data/commands/cloud.toml"),
    include_str!("../data/commands/containers.toml"),
    include_str!("../data/commands/credentials.toml"),
    include_str!("../data/commands/database.toml"),
    include_str!("../data/commands/discovery.toml"),
    include_str!("../data/commands/files.toml"),
    include_str!("../data/commands/git.toml"),
    include_str!("../data/commands/interpreters.toml"),
    include_str!("../data/commands/macos.toml"),
    include_str!("../data/commands/network.toml"),
    include_str!("../data/commands/packages.toml"),
    include_str!("../data/commands/paths.toml"),
    include_str!("../data/commands/persistence.toml"),
    include_str!("../data/commands/privilege.toml"),
    include_str!("../data/commands/system.toml"),
    include_str!("../data/commands/text.toml"),
    include_str!("../data/commands/wrappers.toml"),
];

/// What an argument is to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// Nothing that matters.
    None,
    /// A path that is read.
    Read,
    /// A path that is written.
    Write,
    /// A path that is removed.
    Delete,
    /// A path that gets another name.
    Rename,
    /// A path that is read and sent away.
    Upload,
    /// A path that is sent away, whatever it looks like.
    Send,
    /// A host, `user@host` or `host:port`.
    Host,
    /// A URL or host.
    Url,
    /// A local path, or `host:path`.
    Remote,
    /// Shell text that is run.
    Text,
    /// A script file that is run.
    Script,
}

impl Role {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "none" => Self::None,
            "read" => Self::Read,
            "write" => Self::Write,
            "delete" => Self::Delete,
            "rename" => Self::Rename,
            "upload" => Self::Upload,
            "send" => Self::Send,
            "host" => Self::Host,
            "url" => Self::Url,
            "remote" => Self::Remote,
            "text" => Self::Text,
            "script" => Self::Script,
            _ => return None,
        })
    }
}

/// How a command runs another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wrap {
    /// The rest of its arguments is a command.
    Prefix,
    /// A shell: `-c TEXT`, a script, or standard input.
    Shell,
    /// All its arguments together are shell text.
    Text,
}

/// Which way data goes over the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Network {
    /// None.
    #[default]
    Off,
    /// A connection without known direction.
    Connect,
    /// Data comes in unless something is uploaded.
    Receive,
    /// Data goes out.
    Send,
}

/// A command as its file states it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCommand {
    names: String,
    values: String,
    positional: String,
    classes: String,
    recursive: String,
    quiet: bool,
    long_single: bool,
    operands: String,
    wrap: Option<Wrap>,
    skip: usize,
    elevated: bool,
    remote: bool,
    network: Network,
    handler: String,
    why: String,
    when: Vec<RawWhen>,
    matches: Vec<String>,
    not: Vec<String>,
}

/// A condition as its file states it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawWhen {
    sub: Vec<String>,
    any: String,
    all: String,
    none: String,
    arg: Vec<String>,
    no_arg: Vec<String>,
    bare: bool,
    piped: bool,
    classes: String,
    positional: String,
    config: String,
    credential: String,
    severity: Option<Severity>,
    network: Option<Network>,
    why: String,
}

/// What is known of a command.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) values: BTreeMap<String, Role>,
    /// Those of `values` that are one letter, sorted.
    letters: Vec<(char, Role)>,
    pub(crate) positional: Vec<(Role, bool)>,
    pub(crate) classes: BTreeSet<CommandClass>,
    pub(crate) recursive: Vec<String>,
    pub(crate) quiet: bool,
    pub(crate) long_single: bool,
    pub(crate) operands: BTreeMap<String, Role>,
    pub(crate) wrap: Option<Wrap>,
    pub(crate) skip: usize,
    pub(crate) elevated: bool,
    pub(crate) remote: bool,
    pub(crate) network: Network,
    pub(crate) handler: String,
    pub(crate) why: String,
    pub(crate) when: Vec<When>,
}

/// A condition and what it adds.
#[derive(Debug)]
pub(crate) struct When {
    sub: Vec<Vec<String>>,
    any: Vec<String>,
    all: Vec<String>,
    none: Vec<String>,
    arg: Vec<String>,
    no_arg: Vec<String>,
    bare: bool,
    piped: bool,
    pub(crate) classes: BTreeSet<CommandClass>,
    pub(crate) positional: Vec<(Role, bool)>,
    pub(crate) config: Option<(String, String)>,
    pub(crate) credential: Option<String>,
    pub(crate) severity: Option<Severity>,
    pub(crate) network: Option<Network>,
    pub(crate) why: String,
}

/// A command line, split by an entry's knowledge of options.
#[derive(Debug, Default)]
pub(crate) struct Split<'a> {
    /// Options as written, without values.
    pub(crate) options: Vec<&'a str>,
    /// Values of options with their role and the index of the argument they stood in.
    pub(crate) values: Vec<(&'a str, &'a str, Role, usize)>,
    /// Positional arguments with their index.
    pub(crate) positional: Vec<(&'a str, usize)>,
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn classes(text: &str) -> Result<BTreeSet<CommandClass>, String> {
    text.split_whitespace().map(|word| word.parse().map_err(|e| format!("{e}"))).collect()
}

fn roles(text: &str) -> Result<Vec<(Role, bool)>, String> {
    text.split_whitespace()
        .map(|word| {
            let (name, star) = word.strip_suffix('*').map_or((word, false), |name| (name, true));
            Role::parse(name).map(|role| (role, star)).ok_or_else(|| format!("unknown role {word}"))
        })
        .collect()
}

fn valued(text: &str) -> Result<BTreeMap<String, Role>, String> {
    text.split_whitespace()
        .map(|word| {
            let (name, role) = word.split_once('=').unwrap_or((word, "none"));
            Role::parse(role).map(|role| (name.to_owned(), role)).ok_or_else(|| format!("unknown role {word}"))
        })
        .collect()
}

impl RawCommand {
    fn compile(&self) -> Result<Entry, String> {
        let when = self
            .when
            .iter()
            .map(|w| {
                Ok(When {
                    sub: w.sub.iter().map(|s| words(s)).collect(),
                    any: words(&w.any),
                    all: words(&w.all),
                    none: words(&w.none),
                    arg: w.arg.clone(),
                    no_arg: w.no_arg.clone(),
                    bare: w.bare,
                    piped: w.piped,
                    classes: classes(&w.classes)?,
                    positional: roles(&w.positional)?,
                    config: w.config.split_once(':').map(|(s, k)| (s.to_owned(), k.to_owned())),
                    credential: (!w.credential.is_empty()).then(|| w.credential.clone()),
                    severity: w.severity,
                    network: w.network,
                    why: w.why.clone(),
                })
            })
            .collect::<Result<_, String>>()?;
        let values = valued(&self.values)?;
        let letters = values
            .iter()
            .filter_map(|(name, role)| {
                let mut chars = name.strip_prefix('-')?.chars();
                chars.next().filter(|c| *c != '-' && chars.next().is_none()).map(|letter| (letter, *role))
            })
            .collect();
        Ok(Entry {
            values,
            letters,
            positional: roles(&self.positional)?,
            classes: classes(&self.classes)?,
            recursive: words(&self.recursive),
            quiet: self.quiet,
            long_single: self.long_single,
            operands: valued(&self.operands)?,
            wrap: self.wrap,
            skip: self.skip,
            elevated: self.elevated,
            remote: self.remote,
            network: self.network,
            handler: self.handler.clone(),
            why: self.why.clone(),
            when,
        })
    }
}

/// Whether one argument is the option `wanted`, alone, with `=value`, or in a cluster of short options.
fn is_option(arg: &str, wanted: &str, clusters: bool) -> bool {
    if arg == wanted {
        return true;
    }
    if arg.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('=') || (!clusters && rest.starts_with(':'))) {
        return true;
    }
    if !clusters || arg.starts_with("--") || !arg.starts_with('-') {
        return false;
    }
    let mut letters = wanted.chars();
    match (letters.next(), letters.next(), letters.next()) {
        (Some('-'), Some(letter), None) => arg.chars().skip(1).take_while(|c| *c != '=').any(|c| c == letter),
        _ => false,
    }
}

impl Entry {
    /// Whether the options hold `wanted`.
    pub(crate) fn has(&self, split: &Split<'_>, wanted: &str) -> bool {
        split.options.iter().any(|arg| is_option(arg, wanted, !self.long_single))
    }

    /// The role of the value of the short option of that letter, if it takes one.
    fn short(&self, letter: char) -> Option<Role> {
        let at = self.letters.binary_search_by_key(&letter, |(letter, _)| *letter).ok()?;
        self.letters.get(at).map(|(_, role)| *role)
    }

    /// Splits arguments into options, their values and positionals.
    pub(crate) fn split<'a>(&self, argv: &[&'a str]) -> Split<'a> {
        let mut split = Split::default();
        let mut index = 0;
        let mut only_positional = false;
        while let Some(&arg) = argv.get(index) {
            if only_positional || !arg.starts_with(['-', '+']) || arg.len() < 2 || arg.starts_with("+%") {
                split.positional.push((arg, index));
                index += 1;
                continue;
            }
            if arg == "--" {
                only_positional = true;
                index += 1;
                continue;
            }
            split.options.push(arg);
            if let Some((name, value)) = arg.split_once('=')
                && arg.starts_with('-')
                && let Some(&role) = self.values.get(name)
            {
                split.values.push((name, value, role, index));
            } else if let Some((name, role)) = self.values.get_key_value(arg) {
                let _ = name;
                index += 1;
                if let Some(&value) = argv.get(index) {
                    split.values.push((arg, value, *role, index));
                }
            } else if !self.long_single && !arg.starts_with("--") && arg.starts_with('-') {
                // A cluster such as `-sLo FILE` or a glued value such as `-ofile`.
                for (at, letter) in arg.char_indices().skip(1) {
                    let Some(role) = self.short(letter) else { continue };
                    let glued = arg.get(at + letter.len_utf8()..).unwrap_or_default();
                    let option = arg.get(..at + letter.len_utf8()).unwrap_or_default();
                    if glued.is_empty() {
                        index += 1;
                        if let Some(&value) = argv.get(index) {
                            split.values.push((option, value, role, index));
                        }
                    } else {
                        split.values.push((option, glued, role, index));
                    }
                    break;
                }
            }
            index += 1;
        }
        split
    }

    /// The role of the positional argument at `index` of `count`.
    pub(crate) fn role(spec: &[(Role, bool)], index: usize, count: usize) -> Role {
        let star = spec.iter().position(|(_, star)| *star);
        let found = match star {
            None => spec.get(index),
            Some(star) => {
                let after = spec.len() - star - 1;
                if index < star {
                    spec.get(index)
                } else if index + after >= count && count > star {
                    spec.get(spec.len() - (count - index))
                } else {
                    spec.get(star)
                }
            }
        };
        found.map_or(Role::None, |(role, _)| *role)
    }

    /// The conditions that hold for a command line.
    pub(crate) fn holding<'e>(
        &'e self,
        split: &Split<'_>,
        argv: &[&str],
        piped: bool,
    ) -> impl Iterator<Item = &'e When> {
        let held: Vec<&When> = self
            .when
            .iter()
            .filter(|w| {
                let has = |wanted: &String| self.has(split, wanted);
                (w.sub.is_empty()
                    || w.sub.iter().any(|sub| {
                        sub.iter()
                            .enumerate()
                            .all(|(index, word)| split.positional.get(index).is_some_and(|(p, _)| glob(word, p)))
                    }))
                    && (w.any.is_empty() || w.any.iter().any(has))
                    && w.all.iter().all(has)
                    && !w.none.iter().any(has)
                    && (w.arg.is_empty() || w.arg.iter().any(|p| argv.iter().any(|a| glob(p, a))))
                    && !w.no_arg.iter().any(|p| argv.iter().any(|a| glob(p, a)))
                    && (!w.bare || split.positional.is_empty())
                    && (!w.piped || piped)
            })
            .collect();
        held.into_iter()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    command: Vec<RawCommand>,
    #[serde(default)]
    path: Vec<RawPaths>,
}

struct Table {
    names: BTreeMap<String, usize>,
    entries: Vec<Entry>,
    paths: Paths,
    /// Examples of each entry: the classes it must and must not get.
    #[cfg_attr(not(test), expect(dead_code, reason = "examples are for the tests"))]
    examples: Vec<(String, Vec<String>, Vec<String>)>,
}

fn read(sources: &[&str]) -> Result<Table, String> {
    let (mut names, mut entries, mut examples, mut paths) = (BTreeMap::new(), Vec::new(), Vec::new(), Vec::new());
    for source in sources {
        let file: File =
            toml::from_str(source).map_err(|e| format!("{}: {e}", source.lines().next().unwrap_or_default()))?;
        for raw in file.command {
            let entry = raw.compile().map_err(|e| format!("{}: {e}", raw.names))?;
            for name in raw.names.split_whitespace() {
                if names.insert(name.to_owned(), entries.len()).is_some() {
                    return Err(format!("{name} is described twice"));
                }
            }
            entries.push(entry);
            examples.push((raw.names, raw.matches, raw.not));
        }
        paths.extend(file.path);
    }
    Ok(Table { names, entries, paths: Paths::new(paths)?, examples })
}

#[expect(clippy::expect_used, reason = "built-in data; a test reads all of it")]
static TABLE: LazyLock<Table> = LazyLock::new(|| read(SOURCES).expect("command data"));

/// What is known of the command of that base name.
pub(crate) fn lookup(name: &str) -> Option<&'static Entry> {
    let table = &*TABLE;
    let find = |name: &str| table.names.get(name).and_then(|&index| table.entries.get(index));
    find(name)
        .or_else(|| {
            // Versions: `python3.12`, `gcc-13`, `clang++-17`.
            let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
            if bare.len() == name.len() || bare.is_empty() { None } else { find(bare) }
        })
        .or_else(|| {
            let lower = name.to_ascii_lowercase();
            find(lower.strip_suffix(".exe").unwrap_or(&lower))
        })
}

/// The groups of paths.
pub(crate) fn paths() -> &'static Paths {
    &TABLE.paths
}

/// Whether a variable of that name usually holds a credential.
pub(crate) fn is_secret_variable(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "API_KEY", "APIKEY", "ACCESS_KEY", "PRIVATE_KEY", "CREDENTIAL"]
        .iter()
        .any(|part| name.contains(part))
}

#[cfg(test)]
pub(crate) fn examples() -> &'static [(String, Vec<String>, Vec<String>)] {
    &TABLE.examples
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use creel_model::CommandClass;

    use crate::{Place, Shell, command};

    /// The classes of an example, as a developer's machine would see it.
    fn classes(text: &str) -> std::collections::BTreeSet<CommandClass> {
        let variables = BTreeMap::new();
        let place = Place { cwd: "/home/user/project", home: "/home/user", user: "user", variables: &variables };
        command(text, Shell::Posix, &place).classes
    }

    #[test]
    fn every_example_of_every_entry_holds() {
        let mut wrong = Vec::new();
        for (names, matches, not) in super::examples() {
            for (list, expected) in [(matches, true), (not, false)] {
                for example in list {
                    let (text, class) = example.rsplit_once(" => ").expect("example => class");
                    let class: CommandClass = class.parse().expect("a class");
                    if classes(text).contains(&class) != expected {
                        let (what, got) = (if expected { "misses" } else { "has" }, classes(text));
                        wrong.push(format!("{:.20}: `{text}` {what} {class}: {got:?}", names));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }
}
