//! Looks at code given to interpreters (`python -c`, `node -e`, awk programs …) by tables of calls.
//!
//! Not a parser of those languages: a call whose arguments are literal becomes an effect, a call whose arguments are
//! not makes the code opaque, and words of power (`exec`, `eval`, dynamic imports) always do.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};
use creel_model::{CommandClass, Verb};
use serde::Deserialize;

/// The table, as built in.
pub(crate) static SOURCE: &str = include_str!("../data/code.toml");

/// What a call does with its first literal arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Act {
    /// Runs shell text or an argument list.
    Command,
    /// Reads the file, or writes it when a later argument is a writing mode.
    Open,
    Read,
    Write,
    Delete,
    DeleteTree,
    /// Fetches from a URL.
    Receive,
    /// Sends to a URL or host.
    Send,
    /// Opens a connection.
    Connect,
    /// May do anything.
    Opaque,
    /// Decodes data.
    Decode,
    /// Puts files or text into an archive.
    Archive,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    act: Act,
    /// Literal beginnings of the call, up to and with the bracket.
    names: Vec<String>,
    /// Languages it belongs to; empty for all.
    #[serde(default)]
    languages: Vec<String>,
}

#[derive(Deserialize)]
struct File {
    call: Vec<Call>,
}

struct Table {
    calls: Vec<Call>,
    /// The calls of each name, one per group of languages.
    owner: Vec<Vec<usize>>,
    search: AhoCorasick,
}

#[expect(clippy::expect_used, reason = "built-in data; a test reads all of it")]
static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let file: File = toml::from_str(SOURCE).expect("code data");
    let mut by_name: std::collections::BTreeMap<&str, Vec<usize>> = std::collections::BTreeMap::new();
    for (index, call) in file.call.iter().enumerate() {
        for name in &call.names {
            by_name.entry(name).or_default().push(index);
        }
    }
    let (names, owner): (Vec<&str>, Vec<Vec<usize>>) = by_name.into_iter().unzip();
    let search = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&names).expect("code names");
    Table { calls: file.call, owner, search }
});

/// What was seen in code.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// Shell texts it runs.
    pub(crate) commands: Vec<String>,
    pub(crate) paths: Vec<(Verb, String, bool)>,
    /// Hosts or URLs; empty where not literal.
    pub(crate) hosts: Vec<(Verb, String)>,
    pub(crate) classes: Vec<(CommandClass, &'static str)>,
    pub(crate) findings: Vec<(&'static str, &'static str)>,
    /// Something in it is not understood.
    pub(crate) opaque: bool,
    /// A literal text is decoded.
    pub(crate) decodes_text: bool,
}

/// Looks at code of a language; linear in its length, at most 256 calls.
pub(crate) fn look(text: &str, language: &str) -> Report {
    let table = &*TABLE;
    let mut report = Report::default();
    let (mut decodes, mut runs, mut connects, mut archives) = (false, false, false, false);
    for hit in table.search.find_iter(text).take(256) {
        let call = table.owner.get(hit.pattern().as_usize()).and_then(|calls| {
            calls
                .iter()
                .filter_map(|&index| table.calls.get(index))
                .find(|call| call.languages.is_empty() || call.languages.iter().any(|l| l == language))
        });
        let Some(call) = call else { continue };
        let name_is_word = text.as_bytes().get(hit.start()).is_some_and(u8::is_ascii_alphabetic);
        let before = text.as_bytes().get(hit.start().wrapping_sub(1)).copied().unwrap_or(b' ');
        if name_is_word && (before.is_ascii_alphanumeric() || before == b'_') {
            continue;
        }
        let (literals, complete) = literals(text.get(hit.end()..).unwrap_or_default());
        let first = literals.first().cloned();
        match call.act {
            Act::Command => {
                runs = true;
                match first {
                    Some(first) if complete => {
                        report.commands.push(if literals.len() > 1 { quoted(&literals) } else { first });
                    }
                    _ => report.opaque = true,
                }
            }
            Act::Open => match first {
                Some(path) if complete || literals.len() > 1 => {
                    let writes = literals.get(1).is_some_and(|mode| mode.contains(['w', 'a', 'x', '+', '>']));
                    report.paths.push((if writes { Verb::Write } else { Verb::Read }, path, false));
                }
                Some(path) => report.paths.push((Verb::Read, path, false)),
                None => report.opaque |= text.contains("'w") || text.contains("\"w"),
            },
            Act::Read => report.paths.extend(first.map(|path| (Verb::Read, path, false))),
            Act::Write => match first {
                Some(path) => report.paths.push((Verb::Write, path, false)),
                None => report.opaque = true,
            },
            Act::Delete | Act::DeleteTree => match first {
                Some(path) => report.paths.push((Verb::Delete, path, call.act == Act::DeleteTree)),
                None => report.opaque = true,
            },
            Act::Receive => {
                report.hosts.push((Verb::Receive, first.unwrap_or_default()));
                connects = true;
            }
            Act::Send => report.hosts.push((Verb::Send, first.unwrap_or_default())),
            Act::Connect => {
                connects = true;
                report.hosts.push((Verb::Connect, first.unwrap_or_default()));
            }
            Act::Opaque => {
                report.opaque = true;
                runs = true;
            }
            Act::Decode => {
                decodes = true;
                report.decodes_text |= first.is_some_and(|text| text.len() >= 12);
            }
            Act::Archive => archives = true,
        }
    }
    let shell = ["/bin/sh", "/bin/bash", "'sh'", "\"sh\"", "'bash'", "\"bash\"", "cmd.exe", "powershell"]
        .iter()
        .any(|s| text.contains(s));
    let duplicates =
        ["dup2", "fileno()", "STDIN,", ">&S", "<&3", ">&3", "pty.spawn", ".pipe("].iter().any(|s| text.contains(s));
    if connects && (shell || duplicates) {
        report.findings.push(("command.reverse-shell", "a shell's input or output is a network connection"));
    } else if shell && (runs || starts_shell(text)) {
        report.classes.push((CommandClass::Privilege, "code starts a shell"));
    }
    let machine = ["'/etc/", "\"/etc/", "'/root", "\"/root", "'/home", "\"/home", "'/var/", "\"/var/"];
    if archives && machine.iter().any(|folder| text.contains(folder)) {
        report.findings.push(("command.collection", "files of the machine are put into an archive"));
    }
    if decodes && runs {
        report.classes.push((CommandClass::Obfuscated, "code that comes out of a decoder is run"));
    }
    if connects && runs && report.opaque {
        report.findings.push(("command.download-and-run", "code runs what comes over the network"));
    }
    if report.hosts.iter().any(|(verb, _)| *verb == Verb::Receive)
        && report.paths.iter().any(|(verb, ..)| *verb == Verb::Write)
    {
        report.classes.push((CommandClass::Obfuscated, "code fetches a file"));
    }
    if (connects || report.hosts.iter().any(|(verb, _)| *verb == Verb::Send))
        && report.paths.iter().any(|(verb, ..)| *verb == Verb::Read)
    {
        report.findings.push(("command.exfiltration", "code sends local content away"));
    }
    report
}

/// Whether an argument is code that starts a shell: `!/bin/sh`, `exec "/bin/sh"`, `system("/bin/sh")` …
pub(crate) fn starts_shell(text: &str) -> bool {
    if text.len() > 4096 || !text.contains("sh") {
        return false;
    }
    let shell = ["/bin/sh", "/bin/bash", "/bin/dash", "/bin/zsh"].iter().filter_map(|s| text.find(s)).min();
    let escapes = ["!sh", "!bash", "exec sh", "exec bash", "\"sh\"", "'sh'"].iter().any(|s| text.contains(s));
    let calls =
        ["exec", "system", "spawn", "popen", "Popen", "fork", "!", "shell=", "Command", "command=", "SHELL", "(term"]
            .iter()
            .any(|s| text.contains(s));
    (shell.is_some_and(|at| at > 0) || escapes) && calls
}

/// An argument list as shell text.
fn quoted(list: &[String]) -> String {
    list.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect::<Vec<_>>().join(" ")
}

/// The leading literal strings of a call's arguments, lists included, and whether nothing but literals stood there
/// before the call's end or its first named argument.
fn literals(text: &str) -> (Vec<String>, bool) {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '[' | ',' | '('));
        let unprefixed = rest.strip_prefix(['r', 'b', 'u', 'f', 'q']).filter(|r| r.starts_with(['\'', '"']));
        let formatted = rest.starts_with('f') && unprefixed.is_some();
        let body = unprefixed.unwrap_or(rest);
        let quote = if body.starts_with("'''") {
            "'''"
        } else if body.starts_with("\"\"\"") {
            "\"\"\""
        } else if body.starts_with('\'') {
            "'"
        } else if body.starts_with('"') {
            "\""
        } else if body.starts_with('`') {
            "`"
        } else {
            let closed = rest.starts_with([')', ']', '}', ';']) || rest.is_empty();
            let named = rest.find('=').is_some_and(|at| {
                rest.get(..at).is_some_and(|n| n.chars().all(|c| c.is_alphanumeric() || c == '_' || c == ' '))
            });
            return (found.clone(), (closed || named) && !found.is_empty());
        };
        let inner = body.get(quote.len()..).unwrap_or_default();
        let mut end = 0;
        let bytes = inner.as_bytes();
        while end < bytes.len() && !inner.get(end..).is_some_and(|r| r.starts_with(quote)) {
            end += if bytes.get(end) == Some(&b'\\') { 2 } else { 1 };
        }
        let literal = inner.get(..end.min(inner.len())).unwrap_or_default();
        let after = inner.get((end + quote.len()).min(inner.len())..).unwrap_or_default().trim_start();
        // A literal that is added to, formatted or filled in is only a beginning.
        if (formatted && literal.contains('{'))
            || literal.contains("${")
            || literal.contains("#{")
            || after.starts_with(['+', '%', '.'])
        {
            return (found, false);
        }
        found.push(literal.replace("\\n", "\n").replace("\\'", "'").replace("\\\"", "\""));
        if found.len() >= 32 {
            return (found, false);
        }
        rest = after;
        if rest.starts_with([')', ']']) {
            return (found, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_calls_become_commands_and_others_are_opaque() {
        assert_eq!(look("import os; os.system('rm -rf /')", "python").commands, ["rm -rf /"]);
        assert_eq!(look("subprocess.run(['rm','-rf', '/'], check=True)", "python").commands, ["'rm' '-rf' '/'"]);
        assert!(look("os.system(x)", "python").opaque && look("exec(open('a').read())", "python").opaque);
        assert!(!look("import json,sys; print(json.load(sys.stdin)['a'])", "python").opaque);
        assert_eq!(
            look("require('fs').rmSync('/x', {recursive: true})", "node").paths,
            [(Verb::Delete, "/x".into(), true)]
        );
        assert_eq!(look("open('a','w').write('x')", "python").paths, [(Verb::Write, "a".into(), false)]);
    }
}
