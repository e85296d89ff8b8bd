//! Both sides of a difference as texts → the lines that differ, in hunks.
//!
//! The one fact a newcomer gets wrong: a difference of texts is for a person to read, and never what is applied. Within
//! its bounds it is exact; it is as short as possible only where it was found in time.

use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use similar::{Algorithm, DiffOp, capture_diff_slices_deadline, group_diff_ops};

use super::commit::CommitError;
use super::compare::{Difference, Kind, Side};
use super::fd;
use super::folder::{Folder, FolderError};

/// Bytes of each side that are compared as text.
const BYTES_MAX: u64 = 1 << 20;
/// Beginning of a file in which a zero byte means that it is no text.
const BINARY_PROBE: usize = 8 << 10;
/// Lines that stand around what differs.
const CONTEXT: usize = 3;
/// How long the shortest difference is looked for.
const TIME_MAX: Duration = Duration::from_secs(1);

/// What a difference looks like as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// The lines that differ; none where both sides have the same content.
    Hunks(Vec<Hunk>),
    /// At least one side is no text.
    Binary,
    /// At least one side has more than a mebibyte.
    Large,
    /// Neither side is a file or link.
    None,
}

/// A place where lines differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hunk {
    /// First line of the old text, from 1, and how many; with none, the line before.
    pub old: (usize, usize),
    /// The same of the new text.
    pub new: (usize, usize),
    /// ` `, `-` or `+`, and the line with its end.
    pub lines: Vec<(char, Vec<u8>)>,
}

impl Text {
    /// Lines added and removed.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let Text::Hunks(hunks) = self else { return (0, 0) };
        let lines = || hunks.iter().flat_map(|hunk| &hunk.lines);
        (lines().filter(|(mark, _)| *mark == '+').count(), lines().filter(|(mark, _)| *mark == '-').count())
    }
}

/// The text of one difference of a run's layer.
///
/// # Errors
/// When a side cannot be read.
pub fn text(run: &Folder, difference: &Difference) -> Result<Text, CommitError> {
    let upper = super::commit::upper(run)?;
    let path = run.path().join("upper").join(difference.path.to_path());
    let read = |base: BorrowedFd<'_>, side: &Option<Side>| {
        content(base, difference, side).map_err(|error| FolderError::System {
            doing: "read",
            path: super::name::shown_path(&path),
            error,
        })
    };
    let sides = (read(run.workspace(), &difference.before)?, read(upper.as_fd(), &difference.after)?);
    Ok(match sides {
        (Content::None, Content::None) => Text::None,
        (Content::Large, _) | (_, Content::Large) => Text::Large,
        (old, new) => {
            let bytes = |content| if let Content::Bytes(bytes) = content { bytes } else { Vec::new() };
            between(&bytes(old), &bytes(new))
        }
    })
}

enum Content {
    None,
    Large,
    Bytes(Vec<u8>),
}

fn content(base: BorrowedFd<'_>, difference: &Difference, side: &Option<Side>) -> std::io::Result<Content> {
    let Some(side) = side else { return Ok(Content::None) };
    if let Some(target) = &side.target {
        return Ok(Content::Bytes(target.clone()));
    }
    let Some((parent, name)) = difference.path.split().filter(|_| side.kind == Kind::File) else {
        return Ok(Content::None);
    };
    let folder = fd::below(base, &parent)?;
    let Some((file, _)) = fd::file(folder.as_fd(), name)? else { return Ok(Content::None) };
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(if bytes.len() as u64 > BYTES_MAX { Content::Large } else { Content::Bytes(bytes) })
}

fn between(old: &[u8], new: &[u8]) -> Text {
    let binary = |bytes: &[u8]| bytes.iter().take(BINARY_PROBE).any(|byte| *byte == 0);
    if binary(old) || binary(new) {
        return Text::Binary;
    }
    let (old, new) = (lines(old), lines(new));
    let deadline = Instant::now().checked_add(TIME_MAX);
    let operations = capture_diff_slices_deadline(Algorithm::Myers, &old, &new, deadline);
    Text::Hunks(group_diff_ops(operations, CONTEXT).iter().map(|group| hunk(group, &old, &new)).collect())
}

fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').collect()
}

fn hunk(group: &[DiffOp], old: &[&[u8]], new: &[&[u8]]) -> Hunk {
    let mut hunk = Hunk { old: (0, 0), new: (0, 0), lines: Vec::new() };
    let mut take = |mark, all: &[&[u8]], range: std::ops::Range<usize>| {
        let range = all.get(range).unwrap_or_default();
        hunk.lines.extend(range.iter().map(|line| (mark, line.to_vec())));
    };
    for operation in group {
        let (old_range, new_range) = (operation.old_range(), operation.new_range());
        match operation {
            DiffOp::Equal { .. } => take(' ', old, old_range),
            DiffOp::Delete { .. } => take('-', old, old_range),
            DiffOp::Insert { .. } => take('+', new, new_range),
            DiffOp::Replace { .. } => {
                take('-', old, old_range);
                take('+', new, new_range);
            }
        }
    }
    if let (Some(first), Some(last)) = (group.first(), group.last()) {
        let span = |start: usize, end: usize| (if start == end { start } else { start + 1 }, end - start);
        hunk.old = span(first.old_range().start, last.old_range().end);
        hunk.new = span(first.new_range().start, last.new_range().end);
    }
    hunk
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(old: &str, new: &str) -> String {
        let Text::Hunks(hunks) = between(old.as_bytes(), new.as_bytes()) else { return "no text".to_owned() };
        let mut text = String::new();
        for hunk in hunks {
            text += &format!("@{}+{} {}+{}:", hunk.old.0, hunk.old.1, hunk.new.0, hunk.new.1);
            for (mark, line) in hunk.lines {
                text.push(mark);
                text += String::from_utf8(line).unwrap().trim_end();
            }
        }
        text
    }

    #[test]
    fn hunks_hold_what_differs_and_three_lines_around_it() {
        for (old, new, expected) in [
            ("", "", ""),
            ("a\n", "a\n", ""),
            ("", "a\nb\n", "@0+0 1+2:+a+b"),
            ("a\nb\n", "", "@1+2 0+0:-a-b"),
            ("a\nb\nc\n", "a\nx\nc\n", "@1+3 1+3: a-b+x c"),
            ("a", "a\n", "@1+1 1+1:-a+a"),
            (
                "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n",
                "1\n2\n3\n4x\n5\n6\n7\n8\n9\n10\n11\n12\n13\n",
                "@1+7 1+7: 1 2 3-4+4x 5 6 7@10+3 10+4: 10 11 12+13",
            ),
        ] {
            assert_eq!(shown(old, new), expected, "{old:?} {new:?}");
        }
        assert_eq!(shown("a\0", "b"), "no text");
    }

    #[test]
    fn hostile_texts_end_and_stay_exact() {
        // Two texts without a line in common, which is the worst case: everything must be in the hunks.
        let text = |word: &str| (0..30_000).map(|number| format!("{word}{number}\n")).collect::<String>();
        let Text::Hunks(hunks) = between(text("old").as_bytes(), text("new").as_bytes()) else { panic!() };
        let count =
            |wanted: char| hunks.iter().flat_map(|hunk| &hunk.lines).filter(|(mark, _)| *mark == wanted).count();
        assert_eq!((count('-'), count('+')), (30_000, 30_000));
    }
}
