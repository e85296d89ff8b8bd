//! Differences of a layer → a patch that `git apply` takes, or lines for a terminal.
//!
//! The one fact a newcomer gets wrong: both names and contents were written by an agent. Names are quoted as git quotes
//! them, everywhere; contents are exact in a pipe, and on a terminal without anything that could draw on it.

use creel_sandbox::review::{Change, Difference, Hunk, Kind, Side, Text};

use crate::text::clean;

/// The lines of one difference, each without its end. `exact`: contents as they are, for a program; else for eyes.
pub(crate) fn lines(difference: &Difference, text: &Text, exact: bool) -> Vec<Vec<u8>> {
    let new_name = quoted("b/", difference.path.bytes());
    let old_path = if let Change::Renamed { from } = &difference.change { from } else { &difference.path };
    let old_name = quoted("a/", old_path.bytes());
    let mut lines = vec![format!("diff --git {old_name} {new_name}")];
    let (before, after) = (&difference.before, &difference.after);
    match (before, after) {
        (Some(before), Some(after)) if mode(before) != mode(after) => {
            lines.push(format!("old mode {}", mode(before)));
            lines.push(format!("new mode {}", mode(after)));
        }
        (Some(before), None) => lines.push(format!("deleted file mode {}", mode(before))),
        (None, Some(after)) => match &difference.change {
            Change::Renamed { from } => {
                lines.push("similarity index 100%".to_owned());
                lines.push(format!("rename from {}", quoted("", from.bytes())));
                lines.push(format!("rename to {}", quoted("", difference.path.bytes())));
            }
            _ => lines.push(format!("new file mode {}", mode(after))),
        },
        _ => {}
    }
    let mut lines: Vec<Vec<u8>> = lines.into_iter().map(String::into_bytes).collect();
    if matches!(difference.change, Change::Renamed { .. }) {
        return lines;
    }
    let name = |side: &Option<Side>, name: String| if side.is_some() { name } else { "/dev/null".to_owned() };
    let (old_name, new_name) = (name(before, old_name), name(after, new_name));
    match text {
        Text::Hunks(hunks) if !hunks.is_empty() => {
            lines.push(format!("--- {old_name}").into_bytes());
            lines.push(format!("+++ {new_name}").into_bytes());
            lines.extend(hunks.iter().flat_map(|hunk| hunk_lines(hunk, exact)));
        }
        Text::Binary | Text::Large => {
            // Without a line of that form git does not see that the next difference is another one.
            lines.push(b"index 0000000..1111111".to_vec());
            lines.push(format!("Binary files {old_name} and {new_name} differ").into_bytes());
        }
        Text::Hunks(_) | Text::None => {}
    }
    lines
}

fn hunk_lines(hunk: &Hunk, exact: bool) -> Vec<Vec<u8>> {
    let span = |(start, count): (usize, usize)| if count == 1 { start.to_string() } else { format!("{start},{count}") };
    let mut lines = vec![format!("@@ -{} +{} @@", span(hunk.old), span(hunk.new)).into_bytes()];
    for (mark, line) in &hunk.lines {
        let (line, ended) = match line.strip_suffix(b"\n") {
            Some(line) => (line, true),
            None => (line.as_slice(), false),
        };
        let mut shown = vec![u8::try_from(*mark).unwrap_or(b'?')];
        if exact {
            shown.extend_from_slice(line);
        } else {
            shown.extend_from_slice(eyes(line).as_bytes());
        }
        lines.push(shown);
        if !ended {
            lines.push(b"\\ No newline at end of file".to_vec());
        }
    }
    lines
}

/// A line of a file for a terminal: tabs stay, what could draw does not.
fn eyes(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.split('\t').map(clean).collect::<Vec<_>>().join("\t")
}

/// A mode as git writes it: only kind and whether it can be executed.
pub(crate) fn mode(side: &Side) -> &'static str {
    match side.kind {
        Kind::Link => "120000",
        Kind::Folder => "040000",
        _ if side.permissions & 0o100 != 0 => "100755",
        _ => "100644",
    }
}

/// A name as git writes it in a patch: in quotes with octal escapes unless it is plain ASCII.
pub(crate) fn quoted(prefix: &str, name: &[u8]) -> String {
    use std::fmt::Write as _;
    let plain = name.iter().all(|byte| (b' '..0x7f).contains(byte) && !matches!(byte, b'"' | b'\\'));
    if plain {
        return format!("{prefix}{}", String::from_utf8_lossy(name));
    }
    let mut text = format!("\"{prefix}");
    for byte in name {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            b' '..0x7f => text.push(char::from(*byte)),
            byte => {
                let _ = write!(text, "\\{byte:03o}");
            }
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_as_git_does() {
        assert_eq!(quoted("a/", b"src/main.rs"), "a/src/main.rs");
        assert_eq!(quoted("a/", b"a b"), "a/a b");
        assert_eq!(quoted("b/", b"a\x1b[2J\"\\\n"), "\"b/a\\033[2J\\\"\\\\\\012\"");
        assert_eq!(quoted("", "größe".as_bytes()), "\"gr\\303\\266\\303\\237e\"");
    }

    #[test]
    fn contents_draw_nothing_on_a_terminal_and_are_exact_in_a_pipe() {
        let hunk =
            Hunk { old: (1, 1), new: (1, 1), lines: vec![('+', b"\ta\x1b[2J\r\n".to_vec()), ('-', b"end".to_vec())] };
        let shown = |exact| hunk_lines(&hunk, exact);
        assert_eq!(shown(true)[1], b"+\ta\x1b[2J\r");
        assert_eq!(shown(false)[1], "+\ta\u{fffd}[2J ".as_bytes());
        assert_eq!(shown(true)[2..], [b"-end".to_vec(), b"\\ No newline at end of file".to_vec()]);
    }
}
