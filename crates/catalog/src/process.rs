//! Facts about one process → the kind of agent it is, if any.
//!
//! A process is what its executable or script *file* is, by place. Arguments further behind are never looked at: an
//! editor that opens `…/@openai/codex/bin/codex.js` is no agent.

use crate::facts::ProcessFacts;
use crate::kind::{Catalog, Kind, ProcessSigns};

/// How a process was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strength {
    /// By the name it gives itself, under an interpreter that runs such agents.
    Title,
    /// By the script that its interpreter runs.
    Script,
    /// By its executable, as the kernel names it.
    Executable,
}

/// A recognised process.
#[derive(Clone, Copy, Debug)]
pub struct Match<'a> {
    /// What it is.
    pub kind: &'a Kind,
    /// By what.
    pub strength: Strength,
}

impl Catalog {
    /// The kind of agent that this process is.
    #[must_use]
    pub fn match_process(&self, facts: &ProcessFacts) -> Option<&Kind> {
        self.identify(facts).map(|found| found.kind)
    }

    /// The kind of agent that this process is, and by what it was recognised; the strongest sign wins.
    #[must_use]
    pub fn identify(&self, facts: &ProcessFacts) -> Option<Match<'_>> {
        self.kinds()
            .iter()
            .filter_map(|kind| strength(&kind.process, facts).map(|strength| Match { kind, strength }))
            .max_by_key(|found| found.strength)
    }
}

/// Whether the arguments make this process a helper of the agent without a session of its own (`claude --version`).
#[must_use]
pub fn is_helper(kind: &Kind, facts: &ProcessFacts) -> bool {
    facts.argv.iter().skip(1).take(4).any(|argument| kind.process.helpers.contains(argument))
}

fn strength(signs: &ProcessSigns, facts: &ProcessFacts) -> Option<Strength> {
    let exe = facts.exe.as_str();
    if !exe.is_empty()
        && (signs.executables.iter().any(|pattern| path_matches(pattern, exe))
            || signs.packages.iter().any(|package| below_package(package, exe)))
    {
        return Some(Strength::Executable);
    }
    // Where the kernel does not name the executable (another account's process), the first argument has to do.
    let program = if exe.is_empty() { facts.argv.first().map_or("", String::as_str) } else { exe };
    let interpreter = base_name(program);
    let interprets = signs.interpreters.iter().any(|name| is_interpreter(name, interpreter));
    if interprets {
        let written = script_argument(&facts.argv).map(|script| absolute(&facts.cwd, script));
        for script in facts.script.iter().chain(written.iter()) {
            if signs.scripts.iter().any(|pattern| path_matches(pattern, script))
                || signs.packages.iter().any(|package| below_package(package, script))
            {
                return Some(Strength::Script);
            }
        }
        // A program that sets `process.title` overwrites its arguments: what is left is the title, perhaps with words.
        let title = facts.argv.first().map_or("", |first| first.split(' ').next().unwrap_or(""));
        if !exe.is_empty() && !title.is_empty() && signs.titles.iter().any(|name| name == title) {
            return Some(Strength::Title);
        }
    } else if exe.is_empty()
        && !program.is_empty()
        && signs.executables.iter().any(|pattern| path_matches(pattern, program))
    {
        return Some(Strength::Title);
    }
    None
}

/// `node` fits `node`, `node22` and `nodejs`, not `nodemon`; `python3.12` fits `python`.
fn is_interpreter(name: &str, base: &str) -> bool {
    base.strip_prefix(name).is_some_and(|rest| {
        rest.is_empty() || rest == "js" || rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    })
}

/// Options of interpreters that take the next argument as their value.
const TAKES_VALUE: &[&str] = &[
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "--env-file",
    "--conditions",
    "-C",
    "--title",
    "--max-old-space-size",
    "--stack-size",
    "--inspect-port",
    "--openssl-config",
    "--icu-data-dir",
    "-W",
    "-X",
    "--preload",
    "--config",
    "--cwd",
    "--tsconfig-override",
];

/// Options after which there is no script file.
const NO_SCRIPT: &[&str] = &["-e", "--eval", "-p", "--print", "-c", "-m", "-pe", "--test", "-"];

/// The script that these arguments make an interpreter run; `None` where it runs text, a module or nothing.
#[must_use]
pub fn script_argument(argv: &[String]) -> Option<&str> {
    let mut arguments = argv.iter().skip(1).map(String::as_str);
    while let Some(argument) = arguments.next() {
        if NO_SCRIPT.contains(&argument) {
            return None;
        }
        if TAKES_VALUE.contains(&argument) {
            arguments.next();
        } else if argument == "--" {
            return arguments.next();
        } else if argument == "run" {
            // `bun run x`, `deno run x`.
        } else if !argument.starts_with('-') {
            return Some(argument);
        }
    }
    None
}

/// Joins a path with the working folder and removes `.` and `..` by the letters alone.
#[must_use]
pub fn absolute(cwd: &str, path: &str) -> String {
    let joined = if path.starts_with('/') || cwd.is_empty() { path.to_owned() } else { format!("{cwd}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if joined.starts_with('/') { format!("/{}", parts.join("/")) } else { parts.join("/") }
}

/// The last part of a path.
#[must_use]
pub fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether the path lies below the package folder: its parts appear in the path one after another, and something
/// follows them. `*` stands for anything within a part.
fn below_package(package: &str, path: &str) -> bool {
    let wanted: Vec<&str> = package.split('/').collect();
    let parts: Vec<&str> = path.split('/').collect();
    parts.windows(wanted.len() + 1).any(|window| {
        window.iter().zip(&wanted).all(|(part, pattern)| part_matches(pattern.as_bytes(), part.as_bytes()))
    })
}

/// Whether a path fits a pattern part by part; `**` stands for any number of parts.
#[must_use]
pub fn path_matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    // Paths from the kernel have at most 4096 bytes; a pattern has few parts, so this stays small.
    let path: Vec<&str> = path.split('/').take(256).collect();
    parts_match(&pattern, &path)
}

fn parts_match(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), _) if parts_match(rest, path) => true,
        (Some((&"**", _)), Some((_, below))) => parts_match(pattern, below),
        (Some((first, rest)), Some((part, below))) => {
            part_matches(first.as_bytes(), part.as_bytes()) && parts_match(rest, below)
        }
        _ => false,
    }
}

fn part_matches(pattern: &[u8], part: &[u8]) -> bool {
    match (pattern.split_first(), part.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) if part_matches(rest, part) => true,
        (Some((b'*', _)), Some((_, below))) => part_matches(pattern, below),
        (Some((a, rest)), Some((b, below))) => a == b && part_matches(rest, below),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Example;
    use creel_model::ProcessKey;

    fn facts(example: &Example) -> ProcessFacts {
        let mut facts = ProcessFacts::bare(ProcessKey { pid: 100, start_ticks: 1 }, 1, 1000);
        facts.exe.clone_from(&example.exe);
        facts.argv.clone_from(&example.argv);
        facts.comm.clone_from(&example.comm);
        facts.script.clone_from(&example.script);
        facts.cwd.clone_from(&example.cwd);
        facts
    }

    #[test]
    fn every_kind_matches_its_examples_and_only_them() {
        let catalog = Catalog::built_in();
        for kind in catalog.kinds() {
            assert!(kind.matches.len() >= 3 && kind.not.len() >= 3, "{} has too few examples", kind.id);
            for example in &kind.matches {
                let found = catalog.match_process(&facts(example)).map(|found| found.id.as_str());
                assert_eq!(found, Some(kind.id.as_str()), "{example:?}");
            }
            for example in &kind.not {
                let found = catalog.match_process(&facts(example)).map(|found| found.id.as_str());
                assert_ne!(found, Some(kind.id.as_str()), "{example:?}");
            }
        }
    }

    #[test]
    fn patterns() {
        assert!(path_matches("**/claude/versions/*", "/home/a/.local/share/claude/versions/2.1.3"));
        assert!(!path_matches("**/claude/versions/*", "/home/a/.local/share/claude/versions/2.1.3/x"));
        assert!(path_matches("/usr/bin/codex", "/usr/bin/codex"));
        assert!(!path_matches("/usr/bin/codex", "/x/usr/bin/codex"));
        assert!(below_package("node_modules/@openai/codex-linux-*", "/a/node_modules/@openai/codex-linux-x64/v/codex"));
        assert!(!below_package("node_modules/@openai/codex", "/a/node_modules/@openai/codex"));
        assert!(!below_package("node_modules/@openai/codex", "/a/node_modules/@openai/codex-other/x"));
    }

    #[test]
    fn scripts_of_interpreters() {
        let check = |argv: &[&str], expected: Option<&str>| {
            let argv: Vec<String> = argv.iter().map(|argument| (*argument).to_owned()).collect();
            assert_eq!(script_argument(&argv), expected, "{argv:?}");
        };
        check(&["node", "x.js", "y"], Some("x.js"));
        check(&["node", "--no-warnings", "-r", "pre.js", "x.js"], Some("x.js"));
        check(&["node", "-e", "1", "/a/node_modules/@openai/codex/x.js"], None);
        check(&["node", "--", "x.js"], Some("x.js"));
        check(&["bun", "run", "x.ts"], Some("x.ts"));
        check(&["node"], None);
    }
}
