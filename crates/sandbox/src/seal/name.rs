//! Names as file systems may confuse them: without case and without characters that nobody sees.
//!
//! The one fact a newcomer gets wrong: the comparison is coarser than any file system's. `.GIT` is an ordinary name on
//! ext4 and is treated like `.git` all the same, because the folder may be copied to a disk where it is `.git`.

use std::borrow::Cow;

/// The form in which names are compared.
pub(crate) fn fold(name: &[u8]) -> Cow<'_, [u8]> {
    if name.is_ascii() {
        if name.iter().any(u8::is_ascii_uppercase) {
            return Cow::Owned(name.to_ascii_lowercase());
        }
        return Cow::Borrowed(name);
    }
    let mut folded = String::with_capacity(name.len());
    for character in String::from_utf8_lossy(name).chars().filter(|character| !ignorable(*character)) {
        let character = match u32::from(character) {
            // Full-width forms of ASCII.
            wide @ 0xff01..=0xff5e => char::from_u32(wide - 0xfee0).unwrap_or(character),
            _ => character,
        };
        // Twice: some small letters have the same capital (`ſ` and `s`).
        folded.extend(character.to_uppercase().flat_map(char::to_lowercase));
    }
    Cow::Owned(folded.into_bytes())
}

/// Code points that Unicode calls default-ignorable: some file systems drop them when they compare names.
fn ignorable(character: char) -> bool {
    matches!(
        u32::from(character),
        0x00ad
            | 0x034f
            | 0x061c
            | 0x115f..=0x1160
            | 0x17b4..=0x17b5
            | 0x180b..=0x180f
            | 0x200b..=0x200f
            | 0x202a..=0x202e
            | 0x2060..=0x206f
            | 0x3164
            | 0xfe00..=0xfe0f
            | 0xfeff
            | 0xffa0
            | 0xfff0..=0xfff8
            | 0x1bca0..=0x1bca3
            | 0x1d173..=0x1d17a
            | 0xe0000..=0xe0fff
    )
}

/// Whether a folded name fits a folded pattern, in which `*` stands for any characters.
pub(crate) fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on when a star has to take one character more.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Some(byte) if Some(byte) == name.get(n) => {
                p += 1;
                n += 1;
            }
            _ => match retry {
                Some((after, taken)) => {
                    p = after;
                    n = taken + 1;
                    retry = Some((after, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_of_a_name_are_the_same_name() {
        for variant in [".git", ".GIT", ".Gi\u{200c}t", "\u{feff}.git", ".g\u{131}t", ".\u{ff47}it"] {
            assert_eq!(fold(variant.as_bytes()).as_ref(), b".git", "{variant:?}");
        }
        assert_eq!(fold("hook\u{17f}".as_bytes()).as_ref(), b"hooks");
        assert_ne!(fold(b".gitx").as_ref(), b".git");
    }

    #[test]
    fn stars_stand_for_any_characters() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "abb", false),
            ("*.mcp.json", "x.mcp.json", true),
            ("*a*b", "xaxbxab", true),
            ("abc", "abcd", false),
            ("abc", "ab", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
