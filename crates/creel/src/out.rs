//! Where output goes and how wide it may be.
//!
//! Standard output is for data, standard error for people. Colour is decoration: nothing is said by colour alone, and
//! none is used when `NO_COLOR` is set, on a dumb terminal, or into a pipe.

use std::io::{IsTerminal as _, Write};

use clap::ValueEnum;
use serde::Serialize;

use crate::failure::Failure;
use crate::text;

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One JSON document per line.
    Jsonl,
}

/// How wide, and whether decorated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Columns.
    pub(crate) width: usize,
    /// Bold and dim are wanted.
    pub(crate) decorated: bool,
}

impl Look {
    /// Of standard output: a terminal's width, else 120 columns so that pipes are not cut needlessly.
    pub(crate) fn of_stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let width = if terminal { terminal_size().0 } else { 120 };
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { width, decorated: terminal && !plain }
    }

    /// Emphasised, where decorated.
    pub(crate) fn bold(self, text: &str) -> String {
        if self.decorated { format!("\u{1b}[1m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Receding, where decorated.
    pub(crate) fn dim(self, text: &str) -> String {
        if self.decorated { format!("\u{1b}[2m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Columns and rows of the terminal on standard output, 80 × 24 where it does not say.
pub(crate) fn terminal_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col >= 20 && size.ws_row >= 4 => (usize::from(size.ws_col), usize::from(size.ws_row)),
        _ => (80, 24),
    }
}

/// Prints data lines to standard output.
pub(crate) fn lines<I>(lines: I) -> Result<(), Failure>
where
    I: IntoIterator,
    I::Item: AsRef<str>,
{
    let mut out = std::io::stdout().lock();
    for line in lines {
        writeln!(out, "{}", line.as_ref())?;
    }
    Ok(out.flush()?)
}

/// Prints one value as JSON: indented at `json`, else on one line.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T, format: Format) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if format == Format::Json {
        serde_json::to_writer_pretty(&mut out, value)?;
    } else {
        serde_json::to_writer(&mut out, value)?;
    }
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Prints a list: a table, one JSON array, or one line per item.
pub(crate) fn list<T: Serialize>(
    items: &[T],
    format: Format,
    table: impl FnOnce(Look) -> Vec<String>,
) -> Result<(), Failure> {
    match format {
        Format::Table => lines(table(Look::of_stdout())),
        Format::Json => json(items, format),
        Format::Jsonl => items.iter().try_for_each(|item| json(item, format)),
    }
}

/// A line for the person, on standard error; nobody there is no reason to stop.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text::clean(line));
}
