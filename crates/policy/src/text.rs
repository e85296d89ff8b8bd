//! Places in a bundle's text and what is wrong there.

use serde::{Deserialize, Serialize};

/// One fault of a bundle: where it is, what was expected there, what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Path inside the bundle.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// What is wrong, with what was found in backticks.
    pub message: String,
    /// What would have been right there.
    pub expected: String,
    /// What to do about it.
    pub hint: String,
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        if !self.expected.is_empty() {
            write!(f, "; expected {}", self.expected)?;
        }
        if !self.hint.is_empty() {
            write!(f, "\n  hint: {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// Collects faults; a bundle with one is not loaded, but all of them are told at once.
#[derive(Debug, Default)]
pub(crate) struct Faults(pub(crate) Vec<Diagnostic>);

impl Faults {
    /// More than this many are not collected: one broken quote should not print a thousand lines.
    const MAX: usize = 100;

    /// Adds a fault at a byte offset of a file's text.
    pub(crate) fn at(&mut self, file: &str, text: &str, offset: usize, message: String, expected: &str, hint: &str) {
        let (line, column) = position(text, offset);
        self.push(Diagnostic {
            file: file.to_owned(),
            line,
            column,
            message,
            expected: expected.to_owned(),
            hint: hint.to_owned(),
        });
    }

    /// Adds a ready fault.
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        if self.0.len() < Self::MAX {
            self.0.push(diagnostic);
        }
    }

    /// Parses TOML into `T`, or says what is wrong where.
    pub(crate) fn toml<T: serde::de::DeserializeOwned>(&mut self, file: &str, text: &str, hint: &str) -> Option<T> {
        match toml::from_str(text) {
            Ok(value) => Some(value),
            Err(error) => {
                let offset = error.span().map_or(0, |span| span.start);
                let (message, expected) = split_expected(error.message());
                self.at(file, text, offset, message, &expected, hint);
                None
            }
        }
    }
}

/// Line and column of a byte offset, both from 1; the column counts characters.
pub(crate) fn position(text: &str, offset: usize) -> (u32, u32) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

/// Serde's messages say what they expected after a comma; the two are shown apart.
fn split_expected(message: &str) -> (String, String) {
    match message.split_once(", expected ") {
        Some((what, expected)) => (what.replace('\n', " "), expected.replace('\n', " ")),
        None => (message.replace('\n', " "), String::new()),
    }
}
