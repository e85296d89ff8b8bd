//! Rule text → where it is built too deeply for the recursive parser and checker that read it next.
//!
//! Anybody may hand in a bundle to be looked at, and a few thousand brackets would end the whole program. The one fact a
//! newcomer gets wrong: brackets are not all of it; `a && b && c` nests as deeply as it is long.

/// Brackets inside one another in a rule.
pub(crate) const BRACKETS_MAX: usize = 24;
/// Operators, accesses and conditions of one rule.
pub(crate) const OPERATORS_MAX: usize = 256;

/// The byte offset at which the first rule is too deep, and why.
pub(crate) fn too_deep(text: &str) -> Option<(usize, &'static str)> {
    let bytes = text.as_bytes();
    let (mut brackets, mut operators) = (0_usize, 0_usize);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let next = bytes.get(at + 1).copied();
        let mut length = 1;
        match byte {
            b'"' => length = string(bytes, at),
            b'/' if next == Some(b'/') => {
                length = bytes.get(at..).map_or(1, |rest| rest.iter().take_while(|byte| **byte != b'\n').count());
            }
            b'(' | b'[' | b'{' => brackets += 1,
            b')' | b']' | b'}' => brackets = brackets.saturating_sub(1),
            b';' => (brackets, operators) = (0, 0),
            b'&' | b'|' | b'=' | b'<' | b'>' | b'!' => {
                operators += 1;
                length = if matches!(next, Some(b'&' | b'|' | b'=')) { 2 } else { 1 };
            }
            b'+' | b'-' | b'*' | b'.' => operators += 1,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'0'..=b'9' => {
                let word = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
                length = bytes.get(at..).map_or(1, |rest| rest.iter().take_while(word).count().max(1));
                let word = text.get(at..at + length).unwrap_or_default();
                operators += usize::from(matches!(word, "if" | "like" | "has" | "in" | "is"));
            }
            _ => {}
        }
        if brackets > BRACKETS_MAX {
            return Some((at, "brackets inside one another"));
        }
        if operators > OPERATORS_MAX {
            return Some((at, "operators in one rule"));
        }
        at += length;
    }
    None
}

/// The length of a string with its quotes; to the end where it is not closed.
fn string(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1 - from,
            _ => at += 1,
        }
    }
    at - from
}
