//! Looks at PowerShell and Windows command texts for suspicion only: families of words, never effects to rely on.
//!
//! The text is first made plain (case, escape characters, broken-up strings), because that is what obfuscation
//! changes; anything but plain looking around stays opaque.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use creel_model::{Certainty, CommandClass, Confidence, Effect, Finding, Object, Severity, Verb};
use serde::Deserialize;

use crate::understood::{Shell, SimpleCommand, Understood};
use crate::{bounds, suspicion};

/// The table, as built in.
pub(crate) static SOURCE: &str = include_str!("../data/windows.toml");

/// A family of words as its file states it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Family {
    class: CommandClass,
    why: String,
    #[serde(default)]
    severity: Option<Severity>,
    /// One of these; a blank stands for any run of white space, words are matched at word beginnings.
    any: Vec<String>,
    /// And one of these, where given.
    #[serde(default)]
    with: Vec<String>,
    /// And none of these.
    #[serde(default)]
    without: Vec<String>,
    #[serde(default)]
    #[cfg_attr(not(test), expect(dead_code, reason = "examples are for the tests"))]
    matches: Vec<String>,
    #[serde(default)]
    #[cfg_attr(not(test), expect(dead_code, reason = "examples are for the tests"))]
    not: Vec<String>,
}

#[derive(Deserialize)]
struct File {
    /// Words that a text in PowerShell holds.
    powershell: Vec<String>,
    /// Words that a text for the Windows command processor holds.
    cmd: Vec<String>,
    /// Beginnings of statements that only look.
    looks: Vec<String>,
    family: Vec<Family>,
}

struct Table {
    file: File,
    /// All words of all families, for one pass.
    search: AhoCorasick,
    words: Vec<String>,
    powershell: AhoCorasick,
    cmd: AhoCorasick,
}

#[expect(clippy::expect_used, reason = "built-in data; a test reads all of it")]
static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let file: File = toml::from_str(SOURCE).expect("windows data");
    let words: BTreeSet<String> =
        file.family.iter().flat_map(|f| f.any.iter().chain(&f.with).chain(&f.without)).cloned().collect();
    let words: Vec<String> = words.into_iter().collect();
    let search = AhoCorasick::new(&words).expect("windows words");
    let fast = || AhoCorasick::builder().ascii_case_insensitive(true).kind(Some(AhoCorasickKind::DFA)).to_owned();
    let powershell = fast().build(&file.powershell).expect("words");
    let cmd = fast().build(&file.cmd).expect("words");
    Table { file, search, words, powershell, cmd }
});

/// Which Windows language a text is written in, if it looks like one.
pub(crate) fn resembles(text: &str) -> Option<Shell> {
    let table = &*TABLE;
    let starts = |search: &AhoCorasick, text: &str| {
        search.find_overlapping_iter(text).any(|hit| {
            let first = text.as_bytes().get(hit.start()).copied().unwrap_or(b' ');
            let before = text.as_bytes().get(hit.start().wrapping_sub(1)).copied().unwrap_or(b' ');
            !first.is_ascii_alphanumeric()
                || !(before.is_ascii_alphanumeric() || matches!(before, b'-' | b'_' | b'/' | b'.'))
        })
    };
    if text.len() > bounds::TEXT_BYTES {
        return None;
    }
    let squeezed = text.contains("  ").then(|| text.split_whitespace().collect::<Vec<_>>().join(" "));
    let text = squeezed.as_deref().unwrap_or(text);
    if starts(&table.powershell, text) || has_cmdlet(text) {
        return Some(Shell::PowerShell);
    }
    (starts(&table.cmd, text) || has_percent_variable(text)).then_some(Shell::Cmd)
}

/// Whether the text begins a statement with an approved verb and a noun: `Get-ChildItem`.
fn has_cmdlet(text: &str) -> bool {
    const VERBS: &[&str] = &[
        "Get",
        "Set",
        "New",
        "Remove",
        "Add",
        "Invoke",
        "Start",
        "Stop",
        "Import",
        "Export",
        "Out",
        "Write",
        "Select",
        "Where",
        "ForEach",
        "Test",
        "Enable",
        "Disable",
        "Copy",
        "Move",
        "Clear",
        "Compress",
        "Expand",
        "ConvertTo",
        "ConvertFrom",
        "Register",
        "Install",
        "Find",
        "Send",
        "Mount",
        "Dismount",
        "Restart",
        "Resolve",
        "Unblock",
        "Rename",
        "Stop",
        "Update",
    ];
    // Almost every text has no such word: look for the hyphen before a capital first.
    if !text.as_bytes().windows(2).any(|pair| matches!(pair, [b'-', b'A'..=b'Z'])) {
        return false;
    }
    text.split(|c: char| c.is_whitespace() || matches!(c, '|' | ';' | '(' | '{' | '"' | '=' | '&')).take(4096).any(
        |word| {
            word.split_once('-').is_some_and(|(verb, noun)| {
                VERBS.iter().any(|v| v.eq_ignore_ascii_case(verb))
                    && noun.starts_with(|c: char| c.is_ascii_uppercase())
                    && verb.starts_with(|c: char| c.is_ascii_uppercase())
                    && noun.len() > 2
                    && noun.chars().all(|c| c.is_ascii_alphanumeric())
            })
        },
    )
}

/// Whether the text has a Windows variable: `%NAME%`, `%NAME:~1,2%`.
fn has_percent_variable(text: &str) -> bool {
    if !text.contains('%') {
        return false;
    }
    text.split('%').skip(1).take(256).any(|part| {
        let name = part.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, '_' | '(' | ')')));
        name.is_some_and(|at| at > 3 && part.get(at..).is_some_and(|rest| rest.starts_with(":~")))
    }) || text.split('%').collect::<Vec<_>>().windows(3).take(256).any(|w| {
        w.get(1).is_some_and(|name| {
            name.len() > 2
                && name.starts_with(|c: char| c.is_ascii_uppercase())
                && name.chars().all(|c| c.is_ascii_uppercase() || matches!(c, '_' | '(' | ')'))
        })
    })
}

/// Whether an option is PowerShell's encoded command, which may be shortened.
pub(crate) fn is_encoded_option(option: &str) -> bool {
    let name = option.trim_start_matches(['-', '/']).to_ascii_lowercase();
    option.starts_with(['-', '/']) && (name == "ec" || (!name.is_empty() && "encodedcommand".starts_with(&name)))
}

/// The text as a reader of its meaning would see it: lower case, escapes and string joints taken out, blanks single.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1);
    out.push(' ');
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            // The escape characters of the two languages, inside words.
            '`' | '^' if chars.peek().is_some_and(|c| c.is_ascii_alphanumeric()) => {}
            '\'' | '"' => {}
            // `'a'+'b'`
            '+' if out.ends_with(|c: char| c.is_alphanumeric())
                && chars.peek().is_some_and(|c| matches!(c, '\'' | '"')) => {}
            c if c.is_whitespace() => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            c => out.extend(c.to_lowercase()),
        }
    }
    out
}

/// Suspicions in a text, encoded commands decoded.
pub(crate) fn suspicions(text: &str) -> Vec<(CommandClass, Option<Severity>, String)> {
    let table = &*TABLE;
    let mut all = plain(text);
    let mut found = Vec::new();
    let mut words =
        text.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')).filter(|w| !w.is_empty()).peekable();
    while let Some(word) = words.next() {
        if is_encoded_option(word)
            && let Some(decoded) = words.peek().filter(|w| w.len() > 16).and_then(|w| crate::shell::base64_utf16(w))
        {
            found.push((CommandClass::Obfuscated, Some(Severity::High), "an encoded command is run".to_owned()));
            all.push_str(&plain(&decoded));
        }
    }
    let mut seen = vec![false; table.words.len()];
    for hit in table.search.find_overlapping_iter(&all) {
        let before = all.as_bytes().get(hit.start().wrapping_sub(1)).copied().unwrap_or(b' ');
        let first = all.as_bytes().get(hit.start()).copied().unwrap_or(b' ');
        if (!first.is_ascii_alphanumeric() || !before.is_ascii_alphanumeric())
            && let Some(slot) = seen.get_mut(hit.pattern().as_usize())
        {
            *slot = true;
        }
    }
    let has = |wanted: &Vec<String>| {
        wanted.iter().any(|w| table.words.binary_search(w).is_ok_and(|index| seen.get(index).copied().unwrap_or(false)))
    };
    for family in &table.file.family {
        if has(&family.any) && (family.with.is_empty() || has(&family.with)) && !has(&family.without) {
            found.push((family.class, family.severity, family.why.clone()));
        }
    }
    found
}

/// Whether every statement begins with a word that only looks, and none writes a file, calls a method or computes a
/// command.
fn only_looks(text: &str) -> bool {
    if text.contains(['>', '`', '^']) || text.contains("::") || text.contains("&(") || text.contains("& ") {
        return false;
    }
    let looks = &TABLE.file.looks;
    text.split(['\n', ';', '|', '&', '(', '{']).map(str::trim).filter(|s| !s.is_empty()).all(|statement| {
        let word = statement.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
        looks.iter().any(|look| crate::path::glob(look, &word))
    })
}

/// Adds suspicions to a result whose text may be one of these languages.
pub(crate) fn add(text: &str, out: &mut Understood) {
    for (class, severity, why) in suspicions(text) {
        out.classes.insert(class);
        let Some(usual) = suspicion::severity(class) else { continue };
        let code = format!("command.{class}");
        if out.findings.len() >= bounds::FINDINGS || out.findings.iter().any(|f| f.code == code) {
            continue;
        }
        out.findings.push(Finding {
            code,
            class: class.as_str().to_owned(),
            severity: severity.unwrap_or(usual),
            confidence: Confidence::Medium,
            span: Some((0, text.len())),
            evidence: why,
            remedy: String::new(),
            taxonomy: suspicion::taxonomy(class).iter().map(|&id| id.to_owned()).collect(),
        });
    }
}

/// Looks at a PowerShell or Windows command text. `parsed` only says that its quotes are closed; the result is
/// opaque unless every statement only looks.
pub(crate) fn look(text: &str, shell: Shell) -> Understood {
    let parsed = !text.contains('\0') && text.len() <= bounds::TEXT_BYTES;
    let mut out = Understood { opaque: !parsed || !only_looks(text), parsed, ..Understood::default() };
    let text = if text.len() > bounds::TEXT_BYTES {
        out.overflow = true;
        text.char_indices().nth(bounds::TEXT_BYTES / 4).and_then(|(at, _)| text.get(..at)).unwrap_or(text)
    } else {
        text
    };
    add(text, &mut out);
    let program = if shell == Shell::PowerShell { "powershell" } else { "cmd" };
    let object = Object::Program { program: program.to_owned(), argv: Vec::new(), script: None };
    if !out.opaque && out.classes.is_empty() {
        out.classes.insert(CommandClass::ReadOnly);
    }
    let mut effect = Effect::new(Verb::Execute, object, Certainty::Opaque);
    effect.dynamic = true;
    effect.classes = out.classes.clone();
    out.effects.push(effect);
    for line in text.split(['\n', ';', '|', '&']).map(str::trim).filter(|l| !l.is_empty()).take(bounds::EFFECTS) {
        let mut words = line.split_whitespace();
        let program = words.next().unwrap_or_default().to_owned();
        let argv = words.map(str::to_owned).collect();
        let span = (0, text.len());
        out.commands.push(SimpleCommand {
            program,
            argv,
            known: false,
            depth: 0,
            via: Vec::new(),
            span,
            classes: BTreeSet::new(),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_examples_both_ways() {
        for family in &TABLE.file.family {
            for (examples, expected) in [(&family.matches, true), (&family.not, false)] {
                for example in examples {
                    let found =
                        suspicions(example).iter().any(|(class, _, why)| *class == family.class && *why == family.why);
                    assert_eq!(found, expected, "{}: {example}", family.why);
                }
            }
        }
    }

    #[test]
    fn encoded_and_broken_up_text_is_seen() {
        let plain = "powershell -e SQBFAFgAIAAoAE4AZQB3AC0ATwBiAGoAZQBjAHQAIABOAGUAdAAuAFcAZQBiAEMAbABpAGUAbgB0ACkA";
        assert!(suspicions(plain).iter().any(|(class, ..)| *class == CommandClass::Obfuscated));
        assert!(!suspicions("v^s^sadmin delete shadows /all").is_empty());
        assert_eq!(guess("Get-ChildItem C:\\"), Some(Shell::PowerShell));
        assert_eq!(guess("ls -la && git status"), None);
    }

    fn guess(text: &str) -> Option<Shell> {
        resembles(text)
    }
}
