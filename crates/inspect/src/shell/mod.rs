//! Shell text → what it would do. Parsing is brush-parser's; everything after it is here.
//!
//! The parser is recursive, so nesting is measured before it sees the text.

mod effects;
mod flow;
mod interpret;
mod run;
mod signs;
mod simple;
mod spelling;
mod streams;
mod tools;
mod walk;
mod words;
mod wrap;

use brush_parser::{Parser, ParserOptions, ast};

pub(crate) use flow::base64_utf16;
use walk::Walker;

use crate::path::Place;
use crate::understood::{Shell, Understood};
use crate::{bounds, windows};

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

/// Parses shell text, or says why not. No cache: a text is seen once, and caches would keep secrets.
fn parse(text: &str) -> Result<ast::Program, &'static str> {
    if text.len() > bounds::TEXT_BYTES {
        return Err("text is over the limit of 256 KiB");
    }
    if text.contains('\0') {
        return Err("text holds a zero byte");
    }
    if nameless_here_document(text) {
        return Err("a here-document has an empty end word");
    }
    if descriptor_digits(text) > bounds::DESCRIPTOR_DIGITS {
        return Err("text names an impossible file descriptor");
    }
    if nesting(text) > bounds::BRACKET_DEPTH {
        return Err("text is nested too deeply");
    }
    // A shell ends a last line without its newline and an unfinished here-document by itself.
    let options = ParserOptions::default();
    let attempt = |text: &str| Parser::new(text.as_bytes(), &options).parse_program();
    match attempt(text) {
        Ok(program) => Ok(program),
        Err(_) if text.contains("\r\n") => attempt(&text.replace("\r\n", "\n")).map_err(|_| "text is not shell"),
        Err(_) if text.contains("<<") && !text.ends_with('\n') => {
            attempt(&format!("{text}\n")).map_err(|_| "text is not shell")
        }
        Err(_) => Err("text is not shell"),
    }
}

/// Whether a here-document's end word is empty (`<<''`): the parser would never come to an end of it. Longer runs of `<`
/// are no shell, but the parser reads them as such a beginning; three are a here-string.
fn nameless_here_document(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find("<<") {
        let from = rest.get(at..).unwrap_or_default();
        let after = from.trim_start_matches('<');
        let run = from.len() - after.len();
        let word = after.trim_start_matches(['-', ' ', '\t']);
        let end = word.find(|c: char| c.is_whitespace() || ";|&<>()".contains(c)).unwrap_or(word.len());
        let word = word.get(..end).unwrap_or_default();
        let quotes = !word.is_empty() && word.chars().all(|c| matches!(c, '\'' | '"' | '\\' | '$'));
        // One quote behind a long run ends a quoted text, such as a search for marks of a conflict.
        if quotes && (run == 2 || (run > 3 && word.len() > 1)) {
            return true;
        }
        rest = after;
    }
    false
}

/// The longest run of digits before a redirection: the parser takes it for a number that fits, and dies when not.
fn descriptor_digits(text: &str) -> usize {
    let (mut digits, mut longest) = (0usize, 0usize);
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' => digits += 1,
            b'<' | b'>' => longest = longest.max(std::mem::take(&mut digits)),
            _ => digits = 0,
        }
    }
    longest
}

/// An upper bound of how deeply brackets, substitutions and compound commands nest. Counts inside double quotes too,
/// because substitutions live there.
fn nesting(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut deepest, mut depth, mut words) = (0usize, 0usize, 0usize);
    let mut negations = 0usize;
    // For each open bracket whether it is a plain parenthesis; how many of those are open now, and were at most.
    let (mut open, mut bares, mut barest) = (Vec::new(), 0usize, 0usize);
    let mut single = false;
    let mut start_of_command = true;
    let mut at = 0;
    while let Some(&b) = bytes.get(at) {
        if single {
            single = b != b'\'';
            at += 1;
            continue;
        }
        match b {
            b'\\' => at += 1,
            b'(' | b'{' => {
                depth += 1;
                let before = at.checked_sub(1).and_then(|before| bytes.get(before));
                let bare = b == b'(' && !matches!(before, Some(b'$' | b'<' | b'>'));
                open.push(bare);
                bares += usize::from(bare);
                barest = barest.max(bares);
                start_of_command = true;
            }
            b')' | b'}' => {
                depth = depth.saturating_sub(1);
                bares -= usize::from(open.pop().unwrap_or(false));
                start_of_command = true;
            }
            b'`' => start_of_command = true,
            b';' | b'|' | b'&' | b'\n' => start_of_command = true,
            b' ' | b'\t' => {}
            b'!' => {
                negations += 1;
                deepest = deepest.max(negations);
            }
            // Apostrophes in comments and double quotes would hide brackets: only a quote that is closed on its
            // own line hides what stands in it.
            b'\''
                if bytes
                    .get(at + 1..)
                    .is_some_and(|rest| rest.iter().take_while(|&&b| b != b'\n').any(|&b| b == b'\'')) =>
            {
                let inner = bytes.get(at + 1..).map_or(0, |rest| rest.iter().take_while(|&&b| b != b'\'').count());
                // What a quote holds is still counted when it has no closing bracket: it may not be a quote at all.
                let held = bytes.get(at + 1..at + 1 + inner).unwrap_or_default();
                let opened = held.iter().filter(|b| matches!(b, b'(' | b'{')).count();
                let closed = held.iter().filter(|b| matches!(b, b')' | b'}')).count();
                depth += opened.saturating_sub(closed);
                single = true;
                start_of_command = false;
            }
            _ => {
                negations = 0;
                let length = bytes.get(at..).map_or(1, |rest| {
                    rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count().max(1)
                });
                let word = text.get(at..at + length).unwrap_or_default();
                match word {
                    "if" | "while" | "until" | "for" | "case" | "select" | "coproc" if start_of_command => words += 1,
                    "fi" | "done" | "esac" => words = words.saturating_sub(1),
                    _ => {}
                }
                start_of_command = start_of_command
                    && matches!(word, "then" | "do" | "else" | "if" | "while" | "until" | "elif" | "coproc" | "time");
                at += length - 1;
            }
        }
        deepest = deepest.max(depth + words);
        at += 1;
    }
    // The parser tries every reading of each plain parenthesis (subshell, arithmetic) when what is inside does not
    // parse, and of each bracket that is never closed: its time doubles with each of them.
    if depth > bounds::UNCLOSED || barest > bounds::PARENTHESES { usize::MAX } else { deepest }
}
