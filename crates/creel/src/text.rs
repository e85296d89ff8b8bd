//! Text for a terminal: made harmless, measured, cut, wrapped, set in columns.
//!
//! The one thing a newcomer gets wrong: almost every text that creel shows was written by an agent, which is hostile.
//! [`clean`] comes before everything else: an escape sequence in a file name must not draw our screen.

/// Removes what could move a cursor, change colours, reverse the reading order or hide: control characters, escape
/// sequences' first bytes, bidirectional overrides, zero-width and variation characters.
pub(crate) fn clean(text: &str) -> String {
    text.chars().filter_map(|c| if c.is_whitespace() { Some(' ') } else { visible(c) }).collect()
}

fn visible(c: char) -> Option<char> {
    match c {
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => None,
        '\u{fe00}'..='\u{fe0f}' | '\u{e0000}'..='\u{e0fff}' | '\u{061c}' | '\u{180e}' => None,
        c if c.is_control() => Some('\u{fffd}'),
        c => Some(c),
    }
}

/// Columns that a text takes, as terminals count them: wide characters two, combining marks none.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

fn columns(c: char) -> usize {
    match u32::from(c) {
        0x300..=0x36f | 0x483..=0x489 | 0x591..=0x5bd | 0x610..=0x61a | 0x64b..=0x65f | 0x1ab0..=0x1aff => 0,
        0x1dc0..=0x1dff | 0x20d0..=0x20ff | 0xfe20..=0xfe2f => 0,
        0x1100..=0x115f | 0x2e80..=0x303e | 0x3041..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff => 2,
        0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1f64f | 0x1f680..=0x1f9ff => 2,
        0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// The beginning that fits, with `…` where something is missing.
pub(crate) fn cut(text: &str, columns_max: usize) -> String {
    if width(text) <= columns_max {
        return text.to_owned();
    }
    let mut result = String::new();
    let mut used = 1;
    for c in text.chars() {
        used += columns(c);
        if used > columns_max {
            break;
        }
        result.push(c);
    }
    if columns_max > 0 {
        result.push('…');
    }
    result
}

/// A path or command cut in its middle, because both ends matter.
pub(crate) fn cut_middle(text: &str, columns_max: usize) -> String {
    if width(text) <= columns_max || columns_max < 8 {
        return cut(text, columns_max);
    }
    let tail_columns = (columns_max - 1) / 2;
    let mut tail: Vec<char> = Vec::new();
    let mut used = 0;
    for c in text.chars().rev() {
        used += columns(c);
        if used > tail_columns {
            break;
        }
        tail.push(c);
    }
    let tail: String = tail.into_iter().rev().collect();
    let head = cut(text, columns_max - width(&tail));
    head + &tail
}

/// Filled up with spaces to that many columns.
pub(crate) fn pad(text: &str, columns_wanted: usize) -> String {
    let missing = columns_wanted.saturating_sub(width(text));
    format!("{text}{}", " ".repeat(missing))
}

/// Lines of at most that many columns, broken at spaces where there are some; later lines begin with `indent` spaces.
pub(crate) fn wrap(text: &str, columns_max: usize, indent: usize) -> Vec<String> {
    let columns_max = columns_max.max(indent + 8);
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    let mut fresh = true;
    for word in text.split_whitespace() {
        let mut word = word.to_owned();
        loop {
            let gap = usize::from(!fresh);
            if width(&line) + gap + width(&word) <= columns_max {
                line.push_str(if gap == 1 { " " } else { "" });
                line.push_str(&word);
                fresh = false;
                break;
            }
            if fresh {
                let room = columns_max - width(&line);
                let mut used = 0;
                let at = word.char_indices().find(|(_, c)| {
                    used += columns(*c);
                    used > room
                });
                let tail = word.split_off(at.map_or(word.len(), |(at, _)| at));
                line.push_str(&word);
                word = tail;
            }
            lines.push(std::mem::replace(&mut line, " ".repeat(indent)));
            fresh = true;
            if word.is_empty() {
                break;
            }
        }
    }
    if !fresh || lines.is_empty() {
        lines.push(line);
    }
    lines
}

/// Rows in columns. The widest columns give way first when the line is too short; the last column is never padded.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>], columns_max: usize) -> Vec<String> {
    const GAP: usize = 2;
    const NARROWEST: usize = 4;
    let mut widths: Vec<usize> = head.iter().map(|h| width(h)).collect();
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(width(cell));
        }
    }
    let least = vec![NARROWEST; widths.len()];
    let room = columns_max.saturating_sub(GAP * widths.len().saturating_sub(1));
    narrow(&mut widths, &least, room);
    // The last column is prose as a rule, whose beginning matters; others are names and paths.
    let last = widths.len().saturating_sub(1);
    set_table(head, rows, &widths, &|at| at == last)
}

/// Narrows the widest column that may give way, until all fit or none may.
fn narrow(widths: &mut [usize], least: &[usize], room: usize) {
    while widths.iter().sum::<usize>() > room {
        match widths.iter_mut().zip(least).filter(|(width, least)| **width > **least).max() {
            Some((widest, _)) => *widest -= 1,
            None => break,
        }
    }
}

/// One column of a table whose columns are of different worth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// Its heading.
    pub(crate) head: &'static str,
    /// How far it may be narrowed: prose still says something then, a name would not.
    pub(crate) least: usize,
    /// Columns of less worth are left out first.
    pub(crate) worth: u8,
}

/// As [`table`], but what does not fit is left out whole, the least worth first; what stays can be read.
pub(crate) fn table_by_worth(columns: &[Column], rows: &[Vec<String>], columns_max: usize) -> Vec<String> {
    const GAP: usize = 2;
    let widest = |at: usize, column: &Column| {
        rows.iter().filter_map(|row| row.get(at)).map(|cell| width(cell)).fold(width(column.head), usize::max)
    };
    let mut kept: Vec<(usize, Column, usize)> =
        columns.iter().enumerate().map(|(at, column)| (at, *column, widest(at, column))).collect();
    let needs = |kept: &[(usize, Column, usize)]| {
        kept.iter().map(|(_, column, widest)| column.least.min(*widest) + GAP).sum::<usize>().saturating_sub(GAP)
    };
    while kept.len() > 1 && needs(&kept) > columns_max {
        let least = kept.iter().map(|(_, column, _)| column.worth).min();
        kept.retain(|(_, column, _)| Some(column.worth) != least);
    }
    let head: Vec<&str> = kept.iter().map(|(_, column, _)| column.head).collect();
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| kept.iter().filter_map(|(at, ..)| row.get(*at).cloned()).collect()).collect();
    let mut widths: Vec<usize> = kept.iter().map(|(.., widest)| *widest).collect();
    let least: Vec<usize> = match kept.as_slice() {
        [_] => vec![0],
        kept => kept.iter().map(|(_, column, widest)| column.least.min(*widest)).collect(),
    };
    let room = columns_max.saturating_sub(GAP * widths.len().saturating_sub(1));
    narrow(&mut widths, &least, room);
    let prose: Vec<bool> = kept.iter().map(|(_, column, _)| column.least < usize::MAX).collect();
    set_table(&head, &rows, &widths, &|at| prose.get(at) == Some(&true))
}

/// Rows set in columns of these widths; of prose the end is cut off, of anything else the middle.
fn set_table(head: &[&str], rows: &[Vec<String>], widths: &[usize], prose: &dyn Fn(usize) -> bool) -> Vec<String> {
    let set = |cells: &mut dyn Iterator<Item = String>| {
        let fit = |(at, (cell, w)): (usize, (String, &usize))| {
            let cell = if prose(at) { cut(&cell, *w) } else { cut_middle(&cell, *w) };
            pad(&cell, *w)
        };
        let cells: Vec<String> = cells.zip(widths).enumerate().map(fit).collect();
        cells.join("  ").trim_end().to_owned()
    };
    let mut lines = Vec::with_capacity(rows.len() + 1);
    if head.iter().any(|h| !h.is_empty()) {
        lines.push(set(&mut head.iter().map(|h| (*h).to_owned())));
    }
    for row in rows {
        lines.push(set(&mut row.iter().cloned()));
    }
    lines
}

/// `1 question`, `2 questions`.
pub(crate) fn count(number: u64, one: &str) -> String {
    let number_text = thousands(number);
    if number == 1 { format!("{number_text} {one}") } else { format!("{number_text} {one}s") }
}

/// `12,345`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut result = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            result.push(',');
        }
        result.push(digit);
    }
    result
}

/// `812 B`, `3.4 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    let mut unit = "B";
    let mut whole = number;
    let mut tenth = 0;
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if whole < 1024 {
            break;
        }
        tenth = (whole % 1024) * 10 / 1024;
        whole /= 1024;
        unit = next;
    }
    if unit == "B" { format!("{whole} B") } else { format!("{whole}.{tenth} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_becomes_harmless() {
        for (input, expected) in [
            ("plain", "plain"),
            ("a\u{1b}[2Jb", "a\u{fffd}[2Jb"),
            ("a\nb\tc\r", "a b c "),
            ("exe\u{202e}txt.sh", "exetxt.sh"),
            ("zero\u{200b}width", "zerowidth"),
            ("bell\u{7}", "bell\u{fffd}"),
            ("c1\u{9b}31m", "c1\u{fffd}31m"),
        ] {
            assert_eq!(clean(input), expected, "{input:?}");
        }
    }

    #[test]
    fn cutting_keeps_to_the_columns() {
        for (input, columns, expected) in [
            ("short", 8, "short"),
            ("exactly", 7, "exactly"),
            ("a longer text", 8, "a longe…"),
            ("漢字漢字", 5, "漢字…"),
            ("abc", 0, ""),
        ] {
            assert_eq!(cut(input, columns), expected, "{input} at {columns}");
        }
        assert_eq!(cut_middle("/home/ada/projects/site/.git/hooks/pre-commit", 20), "/home/ada/…re-commit");
        for columns in 8..50 {
            assert!(width(&cut_middle("/home/ada/projects/漢字/.git/hooks/pre-commit", columns)) <= columns);
        }
    }

    #[test]
    fn wrapping_breaks_at_spaces_and_inside_long_words() {
        assert_eq!(wrap("one two three four", 9, 0), ["one two", "three", "four"]);
        assert_eq!(wrap("one two three four", 12, 2), ["one two", "  three four"]);
        assert_eq!(wrap("abcdefghijklmnop", 8, 0), ["abcdefgh", "ijklmnop"]);
        assert_eq!(wrap("", 8, 0), [""]);
        for line in wrap(&"word ".repeat(50), 20, 4) {
            assert!(width(&line) <= 20, "{line}");
        }
    }

    #[test]
    fn a_table_fits_every_width() {
        let rows = vec![
            vec!["claude-code".to_owned(), "2.1.204".to_owned(), "/home/ada/.local/bin/claude".to_owned()],
            vec!["codex".to_owned(), "0.160".to_owned(), "/usr/local/bin/codex".to_owned()],
        ];
        assert_eq!(
            table(&["AGENT", "VERSION", "PROGRAM"], &rows, 80),
            [
                "AGENT        VERSION  PROGRAM",
                "claude-code  2.1.204  /home/ada/.local/bin/claude",
                "codex        0.160    /usr/local/bin/codex",
            ]
        );
        for columns in [20, 40, 60, 120] {
            for line in table(&["AGENT", "VERSION", "PROGRAM"], &rows, columns) {
                assert!(width(&line) <= columns, "{columns}: {line}");
            }
        }
    }

    #[test]
    fn what_is_worth_least_is_left_out_and_names_stay_whole() {
        let columns = [
            Column { head: "AGENT", least: usize::MAX, worth: 9 },
            Column { head: "VERSION", least: usize::MAX, worth: 1 },
            Column { head: "GOVERNED", least: 8, worth: 5 },
        ];
        let rows =
            vec![vec!["GitHub Copilot CLI".to_owned(), "1.0.12".to_owned(), "partly: not proved yet".to_owned()]];
        let shown = |width| table_by_worth(&columns, &rows, width).join("\n");
        assert!(shown(60).contains("1.0.12   partly: not proved yet"), "{}", shown(60));
        assert!(shown(40).ends_with("GitHub Copilot CLI  1.0.12   partly: no…"), "{}", shown(40));
        assert!(shown(30).ends_with("GitHub Copilot CLI  partly: n…"), "{}", shown(30));
        assert!(shown(20).ends_with("\nGitHub Copilot CLI"), "{}", shown(20));
        for columns_max in 1..70 {
            for line in table_by_worth(&columns, &rows, columns_max) {
                assert!(width(&line) <= columns_max, "{columns_max}: {line}");
            }
        }
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(1, "question"), "1 question");
        assert_eq!(count(1_234_567, "record"), "1,234,567 records");
        assert_eq!(bytes(812), "812 B");
        assert_eq!(bytes(3_600_000), "3.4 MiB");
    }
}
