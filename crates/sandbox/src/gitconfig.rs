//! A git configuration's text to its entries, and two of them to a verdict: may an agent make this change?
//!
//! [`gate`] compares entries, not texts. What an agent may add, change or remove is a list of names; everything else
//! must stay as it is and in the same order, because git executes much of what stands in a configuration. The one fact a
//! newcomer gets wrong: names are allowed, never refused; a key that git learns tomorrow is outside the list.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::seal::normal;

mod allowed;
#[cfg(test)]
mod tests;

/// Most entries of one file.
const MOST_ENTRIES: usize = 10_000;
/// Longest value, in bytes.
const LONGEST_VALUE: usize = 4096;

/// A configuration's entries in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitConfig {
    entries: Vec<Entry>,
}

/// One entry: the section's and the key's name in small letters, what stands between them as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    section: String,
    subsection: Option<String>,
    key: String,
    /// Absent where there is no `=`, which git reads as "true".
    value: Option<String>,
}

/// The text is not one that this parser understands; git might read anything out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotUnderstood {
    /// From 1.
    pub line: usize,
    /// What was wrong there.
    pub why: &'static str,
}

impl fmt::Display for NotUnderstood {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {} of the configuration is not understood: {}", self.line, self.why)
    }
}

impl std::error::Error for NotUnderstood {}

/// Why a change is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The new text is not understood.
    NotUnderstood(NotUnderstood),
    /// This key may not be added, changed or removed by an agent.
    Key(String),
    /// This key may, but not to this value.
    Value(String),
    /// Entries that an agent may not touch changed their order.
    Order,
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUnderstood(error) => error.fmt(formatter),
            Self::Key(key) => write!(formatter, "an agent may not change {key}: git may execute what stands there"),
            Self::Value(key) => write!(formatter, "an agent may not give {key} this value"),
            Self::Order => formatter.write_str("entries that an agent may not change stand in another order"),
        }
    }
}

/// Where a configuration lies, for values that are paths.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Absolute path of the git directory.
    pub folder: &'a Path,
    /// Writable parts of the cage; a `core.worktree` must lie in one.
    pub roots: &'a [PathBuf],
}

/// Whether an agent may turn `old` into `new`.
///
/// # Errors
/// Why not.
pub fn gate(old: &GitConfig, new: &GitConfig, place: Place<'_>) -> Result<(), Refused> {
    let (old_fixed, old_open) = split(old);
    let (new_fixed, new_open) = split(new);
    if old_fixed != new_fixed {
        let missing =
            |of: &[&Entry], from: &[&Entry]| of.iter().find(|entry| !from.contains(entry)).map(|entry| entry.name());
        let key = missing(&new_fixed, &old_fixed).or_else(|| missing(&old_fixed, &new_fixed));
        return Err(key.map_or(Refused::Order, Refused::Key));
    }
    for (name, entries) in &new_open {
        for entry in entries {
            let known = old_open.get(name).is_some_and(|old| old.contains(entry));
            if !known && !allowed::value(entry, place) {
                return Err(Refused::Value(entry.name()));
            }
        }
    }
    Ok(())
}

/// Entries that must stay as they are, in order, and the others by name.
fn split(config: &GitConfig) -> (Vec<&Entry>, BTreeMap<String, Vec<&Entry>>) {
    let mut fixed = Vec::new();
    let mut open: BTreeMap<String, Vec<&Entry>> = BTreeMap::new();
    for entry in &config.entries {
        if allowed::name(entry) {
            open.entry(entry.name()).or_default().push(entry);
        } else {
            fixed.push(entry);
        }
    }
    (fixed, open)
}

impl Entry {
    fn name(&self) -> String {
        match &self.subsection {
            Some(subsection) => format!("{}.{subsection}.{}", self.section, self.key),
            None => format!("{}.{}", self.section, self.key),
        }
    }
}

impl GitConfig {
    /// The values of a key without subsection, `section.key` in small letters.
    pub fn values(&self, key: &str) -> impl Iterator<Item = &str> {
        let (section, key) = key.split_once('.').unwrap_or_default();
        self.entries
            .iter()
            .filter(move |entry| entry.subsection.is_none() && entry.section == section && entry.key == key)
            .filter_map(|entry| entry.value.as_deref())
    }

    /// Every entry in order: its name as `git config --list` prints it, and its value where there is one.
    pub fn entries(&self) -> impl Iterator<Item = (String, Option<&str>)> {
        self.entries.iter().map(|entry| (entry.name(), entry.value.as_deref()))
    }

    /// The files that are included, whatever for.
    pub(crate) fn included(&self) -> impl Iterator<Item = &str> {
        self.entries
            .iter()
            .filter(|entry| matches!(entry.section.as_str(), "include" | "includeif") && entry.key == "path")
            .filter_map(|entry| entry.value.as_deref())
    }

    /// Reads a text as git does, and refuses what git would read only by chance.
    ///
    /// # Errors
    /// The first line that is not understood.
    pub fn parse(text: &[u8]) -> Result<Self, NotUnderstood> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let text = std::str::from_utf8(text).map_err(|_| NotUnderstood { line: 1, why: "it is not UTF-8" })?;
        Parser { rest: text.chars().peekable(), line: 1, section: None, entries: Vec::new() }.run()
    }
}

struct Parser<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
    section: Option<(String, Option<String>)>,
    entries: Vec<Entry>,
}

impl Parser<'_> {
    fn wrong(&self, why: &'static str) -> NotUnderstood {
        NotUnderstood { line: self.line, why }
    }

    /// The next character; `\r\n` is one line end, as for git.
    fn next(&mut self) -> Option<char> {
        let character = self.rest.next()?;
        if character == '\r' && self.rest.peek() == Some(&'\n') {
            self.rest.next();
            self.line += 1;
            return Some('\n');
        }
        if character == '\n' {
            self.line += 1;
        }
        Some(character)
    }

    fn run(mut self) -> Result<GitConfig, NotUnderstood> {
        while let Some(character) = self.next() {
            match character {
                ' ' | '\t' | '\n' => {}
                '#' | ';' => self.comment(),
                '[' => self.header()?,
                letter if letter.is_ascii_alphabetic() => self.entry(letter)?,
                _ => return Err(self.wrong("neither a section nor a key begins here")),
            }
        }
        Ok(GitConfig { entries: self.entries })
    }

    fn comment(&mut self) {
        while let Some(character) = self.next() {
            if character == '\n' {
                return;
            }
        }
    }

    fn header(&mut self) -> Result<(), NotUnderstood> {
        let mut section = String::new();
        let subsection = loop {
            match self.next() {
                Some(']') => break None,
                Some(' ' | '\t') => break Some(self.subsection()?),
                Some(character) if character.is_ascii_alphanumeric() || matches!(character, '-' | '.') => {
                    section.push(character.to_ascii_lowercase());
                }
                _ => return Err(self.wrong("a section's name has letters, digits, `-` and `.`")),
            }
        };
        if section.is_empty() {
            return Err(self.wrong("a section has no name"));
        }
        // The old way to write a subsection: `[section.sub]`, in small letters.
        self.section = Some(match (section.split_once('.'), subsection) {
            (Some((section, old)), None) => (section.to_owned(), Some(old.to_owned())),
            (None, subsection) => (section, subsection),
            (Some(_), Some(_)) => return Err(self.wrong("a section has two subsections")),
        });
        Ok(())
    }

    fn subsection(&mut self) -> Result<String, NotUnderstood> {
        while matches!(self.rest.peek(), Some(' ' | '\t')) {
            self.rest.next();
        }
        if self.next() != Some('"') {
            return Err(self.wrong("a subsection stands in quotes"));
        }
        let mut name = String::new();
        loop {
            match self.next() {
                Some('"') => break,
                Some('\\') => match self.next() {
                    Some('\n') | None => return Err(self.wrong("a subsection does not end on its line")),
                    // The name would end there for git, and the rest of it be its key.
                    Some('\0') => return Err(self.wrong("a zero byte")),
                    Some(character) => name.push(character),
                },
                Some('\n') | None => return Err(self.wrong("a subsection does not end on its line")),
                Some('\0') => return Err(self.wrong("a zero byte")),
                Some(character) => name.push(character),
            }
        }
        if self.next() != Some(']') { Err(self.wrong("a section's name ends with `]`")) } else { Ok(name) }
    }

    fn entry(&mut self, first: char) -> Result<(), NotUnderstood> {
        let Some((section, subsection)) = self.section.clone() else {
            return Err(self.wrong("a key stands outside of any section"));
        };
        let mut key = String::from(first.to_ascii_lowercase());
        let value = loop {
            match self.next() {
                None | Some('\n') => break None,
                Some('=') => break Some(self.value()?),
                Some(' ' | '\t') => {
                    while matches!(self.rest.peek(), Some(' ' | '\t')) {
                        self.rest.next();
                    }
                    match self.next() {
                        None | Some('\n') => break None,
                        Some('=') => break Some(self.value()?),
                        _ => return Err(self.wrong("a key is followed by `=` or the line's end")),
                    }
                }
                Some(character) if character.is_ascii_alphanumeric() || character == '-' => {
                    key.push(character.to_ascii_lowercase());
                }
                _ => return Err(self.wrong("a key has letters, digits and `-`")),
            }
        };
        if self.entries.len() >= MOST_ENTRIES {
            return Err(self.wrong("too many entries"));
        }
        self.entries.push(Entry { section, subsection, key, value });
        Ok(())
    }

    fn value(&mut self) -> Result<String, NotUnderstood> {
        let (mut value, mut spaces, mut quoted) = (String::new(), String::new(), false);
        loop {
            if value.len() + spaces.len() > LONGEST_VALUE {
                return Err(self.wrong("a value is too long"));
            }
            match self.next() {
                None | Some('\n') if quoted => return Err(self.wrong("quotes do not end on their line")),
                None | Some('\n') => return Ok(value),
                Some('#' | ';') if !quoted => {
                    self.comment();
                    return Ok(value);
                }
                Some(character @ (' ' | '\t')) if !quoted => {
                    // Spaces count only between words.
                    if !value.is_empty() {
                        spaces.push(character);
                    }
                }
                Some('"') => {
                    value.push_str(&std::mem::take(&mut spaces));
                    quoted = !quoted;
                }
                Some('\\') => {
                    let escaped = match self.next() {
                        Some('\n') => continue,
                        Some('n') => '\n',
                        Some('t') => '\t',
                        Some('b') => '\u{8}',
                        Some(character @ ('"' | '\\')) => character,
                        _ => return Err(self.wrong("an unknown escape")),
                    };
                    value.push_str(&std::mem::take(&mut spaces));
                    value.push(escaped);
                }
                Some('\0') => return Err(self.wrong("a zero byte")),
                // git takes it for a space.
                Some('\r') => return Err(self.wrong("a carriage return within a line")),
                Some(character) => {
                    value.push_str(&std::mem::take(&mut spaces));
                    value.push(character);
                }
            }
        }
    }
}

/// Whether a `core.worktree` lies in a writable part of the cage.
fn inside(value: &str, place: Place<'_>) -> bool {
    !value.starts_with('~')
        && normal(&place.folder.join(value)).is_some_and(|path| place.roots.iter().any(|root| path.starts_with(root)))
}
