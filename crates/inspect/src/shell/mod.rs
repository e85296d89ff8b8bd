//! Shell text → what it would do. Parsing is brush-parser's; everything after it is here.
//! What the parser cannot bear is refused in `parse`.

mod effects;
mod flow;
mod interpret;
mod parse;
mod run;
mod signs;
mod simple;
mod spelling;
mod streams;
mod tools;
mod walk;
mod words;
mod wrap;

pub(crate) use flow::base64_utf16;
use parse::parse;
use walk::Walker;

use crate::path::Place;
use crate::understood::{Shell, Understood};
use crate::windows;

/// What a command text would do. Bounded: texts over 256 KiB, nested more than 40 deep, with more than 4,096 commands
/// or 64 effects come back opaque. Never fails; an unreadable text is `parsed: false` and opaque.
#[must_use]
pub fn command(text: &str, shell: Shell, place: &Place<'_>) -> Understood {
    if shell != Shell::Posix {
        return windows::look(text, shell);
    }
    let mut walker = Walker::new(place, text);
    walker.out.parsed = walker.top(text);
    if !walker.out.parsed && windows::resembles(text).is_some() {
        windows::add(text, &mut walker.out);
    }
    walker.out
}

/// What a command text of unknown language would do: the language is guessed by [`guess_shell`].
#[must_use]
pub fn text_commands(text: &str, place: &Place<'_>) -> Understood {
    command(text, guess_shell(text), place)
}

/// The most likely language of a command text. POSIX when nothing speaks for another.
#[must_use]
pub fn guess_shell(text: &str) -> Shell {
    windows::resembles(text).unwrap_or(Shell::Posix)
}
