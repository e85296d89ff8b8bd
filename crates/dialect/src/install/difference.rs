//! A unified difference of two texts, for people to read before anything is written.

use std::fmt::Write;

const CONTEXT: usize = 3;
/// Most cells of the comparison table; above it the whole text counts as replaced.
const CELLS_MAX: usize = 4_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Edit {
    Same,
    Removed,
    Added,
}

/// The difference from `before` to `after` in unified form; empty when they are equal.
#[must_use]
pub fn difference(path: &str, before: &str, after: &str) -> String {
    if before == after {
        return String::new();
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let edits = edits(&old, &new);
    let mut text = format!("--- {path}\n+++ {path}\n");
    let mut at = 0;
    while let Some(first) = (at..edits.len()).find(|at| changed(&edits, *at)) {
        let begin = first.saturating_sub(CONTEXT).max(at);
        let mut end = first + 1;
        while let Some(next) = (end..edits.len().min(end + 2 * CONTEXT + 1)).find(|at| changed(&edits, *at)) {
            end = next + 1;
        }
        let end = (end + CONTEXT).min(edits.len());
        write_hunk(&mut text, &edits, begin, end);
        at = end;
    }
    if text.lines().count() == 2 {
        text.push_str("only line ends differ\n");
    }
    text
}

fn changed(edits: &[(Edit, &str)], at: usize) -> bool {
    edits.get(at).is_some_and(|(edit, _)| *edit != Edit::Same)
}

fn write_hunk(text: &mut String, edits: &[(Edit, &str)], begin: usize, end: usize) {
    let count = |edits: &[(Edit, &str)], left_out: Edit| edits.iter().filter(|(edit, _)| *edit != left_out).count();
    let (before, hunk) = (edits.get(..begin).unwrap_or_default(), edits.get(begin..end).unwrap_or_default());
    let range = |left_out: Edit| {
        let (start, length) = (count(before, left_out), count(hunk, left_out));
        format!("{},{length}", if length == 0 { start } else { start + 1 })
    };
    let _ = writeln!(text, "@@ -{} +{} @@", range(Edit::Added), range(Edit::Removed));
    for (edit, line) in hunk {
        let mark = match edit {
            Edit::Same => ' ',
            Edit::Removed => '-',
            Edit::Added => '+',
        };
        let _ = writeln!(text, "{mark}{line}");
    }
}

/// Longest common subsequence by the usual table.
fn edits<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(Edit, &'a str)> {
    let width = new.len() + 1;
    if (old.len() + 1).saturating_mul(width) > CELLS_MAX {
        let removed = old.iter().map(|line| (Edit::Removed, *line));
        return removed.chain(new.iter().map(|line| (Edit::Added, *line))).collect();
    }
    let mut table = vec![0u32; (old.len() + 1) * width];
    let cell = |table: &[u32], row: usize, column: usize| table.get(row * width + column).copied().unwrap_or(0);
    for (row, left) in old.iter().enumerate().rev() {
        for (column, right) in new.iter().enumerate().rev() {
            let best = if left == right {
                cell(&table, row + 1, column + 1) + 1
            } else {
                cell(&table, row + 1, column).max(cell(&table, row, column + 1))
            };
            if let Some(slot) = table.get_mut(row * width + column) {
                *slot = best;
            }
        }
    }
    let (mut row, mut column, mut edits) = (0, 0, Vec::new());
    loop {
        match (old.get(row), new.get(column)) {
            (Some(left), Some(right)) if left == right => {
                edits.push((Edit::Same, *left));
                row += 1;
                column += 1;
            }
            (Some(left), right)
                if right.is_none() || cell(&table, row + 1, column) >= cell(&table, row, column + 1) =>
            {
                edits.push((Edit::Removed, *left));
                row += 1;
            }
            (_, Some(right)) => {
                edits.push((Edit::Added, *right));
                column += 1;
            }
            _ => return edits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_changes_with_its_surroundings() {
        let old = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n";
        let new = "1\n2\n3\n4\nfive\n6\n7\n8\n9\n10\n11\n12\n13\n14\n";
        assert_eq!(
            difference("f", old, new),
            "--- f\n+++ f\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n@@ -11,3 +11,4 @@\n 11\n 12\n 13\n+14\n"
        );
        assert_eq!(difference("f", "", "a\n"), "--- f\n+++ f\n@@ -0,0 +1,1 @@\n+a\n");
        assert_eq!(difference("f", "a\n", "a\n"), "");
        assert_eq!(difference("f", "a\n", "a"), "--- f\n+++ f\nonly line ends differ\n");
    }
}
