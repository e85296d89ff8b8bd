//! Names below a workspace as bytes, and how they are shown.
//!
//! A [`Relative`] cannot leave the folder it is used in: it has no leading slash, no `.`, no `..` and no empty part.
//! The one fact a newcomer gets wrong: names are bytes. [`shown`] is for eyes; it is never opened again.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// Parts of a path that are looked at; the kernel's own bound on a path's bytes allows at most 2,048.
pub(crate) const DEPTH_MAX: usize = 128;
/// Bytes of a path that are looked at (the kernel's `PATH_MAX`, less the closing zero).
pub(crate) const PATH_BYTES_MAX: usize = 4095;

/// A path below a folder, in parts joined by `/`; empty for the folder itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relative(Vec<u8>);

impl Relative {
    /// The folder itself.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// From a path that is meant to lie below the folder; `None` for one that is absolute, has `..`, holds a zero byte,
    /// or is longer or deeper than the bounds. `.` and doubled slashes are dropped.
    #[must_use]
    pub fn parse(path: &Path) -> Option<Self> {
        let mut result = Self::root();
        for part in path.components() {
            match part {
                std::path::Component::CurDir => {}
                std::path::Component::Normal(name) => result = result.join(name.as_bytes())?,
                _ => return None,
            }
        }
        Some(result)
    }

    /// One part further; `None` where that is no part or beyond the bounds.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Option<Self> {
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
            return None;
        }
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        bytes.extend_from_slice(&self.0);
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        let result = Self(bytes);
        (result.0.len() <= PATH_BYTES_MAX && result.depth() <= DEPTH_MAX).then_some(result)
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether it is the folder itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// How many parts it has.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.parts().count()
    }

    /// Its parts, outermost first.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
    }

    /// The folder it lies in, and its last part; `None` for the root.
    #[must_use]
    pub fn split(&self) -> Option<(Relative, &OsStr)> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(at) => {
                let (parent, name) = self.0.split_at(at);
                (Self(parent.to_vec()), OsStr::from_bytes(name.strip_prefix(b"/").unwrap_or(name)))
            }
            None => (Self::root(), OsStr::from_bytes(&self.0)),
        })
    }

    /// Whether it is `other` or lies below it.
    #[must_use]
    pub fn is_within(&self, other: &Relative) -> bool {
        match self.0.strip_prefix(other.bytes()) {
            Some(rest) => other.is_root() || rest.is_empty() || rest.starts_with(b"/"),
            None => false,
        }
    }

    /// As a path for the standard library.
    #[must_use]
    pub fn to_path(&self) -> PathBuf {
        PathBuf::from(OsString::from_vec(self.0.clone()))
    }

    /// For eyes: see [`shown`].
    #[must_use]
    pub fn shown(&self) -> String {
        if self.is_root() { ".".to_owned() } else { shown(&self.0) }
    }
}

/// Bytes for eyes, on one line: as they are where they are plain text, else in double quotes with escapes, so that two
/// different names never look equal and no name moves a cursor, hides or reverses anything.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    let plain = std::str::from_utf8(bytes)
        .is_ok_and(|text| !text.is_empty() && text.chars().all(|c| is_plain(c) && c != '"' && c != '\\'));
    if plain {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                c if is_plain(c) => text.push(c),
                c => {
                    let _ = write!(text, "\\u{{{:x}}}", u32::from(c));
                }
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.push('"');
    text
}

/// A path of ours or of the person's, for eyes.
#[must_use]
pub fn shown_path(path: &Path) -> String {
    shown(path.as_os_str().as_bytes())
}

/// Whether a character is drawn as itself: no control, no direction or joining mark, nothing invisible.
#[must_use]
pub(crate) fn is_plain(c: char) -> bool {
    !c.is_control()
        && (c == ' ' || !c.is_whitespace())
        && !matches!(
            c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'
                ..='\u{180f}'
        )
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}')
        && !matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_parts_below_the_folder_is_a_relative_path() {
        for (text, expected) in [
            ("a/b", Some("a/b")),
            ("./a//b/", Some("a/b")),
            (".", Some("")),
            ("/etc/passwd", None),
            ("a/../../b", None),
            ("..", None),
        ] {
            let parsed = Relative::parse(Path::new(text));
            assert_eq!(parsed.as_ref().map(Relative::bytes), expected.map(str::as_bytes), "{text}");
        }
        assert_eq!(Relative::root().join(b"a\0b"), None);
        assert_eq!(Relative::root().join(b"a/b"), None);
        assert!(Relative::parse(Path::new(&"d/".repeat(DEPTH_MAX + 1))).is_none());
        assert!(Relative::parse(Path::new(&"d/".repeat(DEPTH_MAX))).is_some());
        assert!(Relative::root().join(&vec![b'x'; PATH_BYTES_MAX + 1]).is_none());
    }

    #[test]
    fn being_within_is_by_parts() {
        let path = |text: &str| Relative::parse(Path::new(text)).unwrap();
        assert!(path("src/main.rs").is_within(&path("src")));
        assert!(path("src").is_within(&path("src")));
        assert!(path("src").is_within(&Relative::root()));
        assert!(!path("srcs/main.rs").is_within(&path("src")));
        assert!(!path("src").is_within(&path("src/main.rs")));
        assert_eq!(path("a/b/c").split(), Some((path("a/b"), OsStr::new("c"))));
        assert_eq!(path("a").split(), Some((Relative::root(), OsStr::new("a"))));
        assert_eq!(Relative::root().split(), None);
    }

    #[test]
    fn no_name_draws_anything_but_itself() {
        for (name, expected) in [
            (&b"src/main.rs"[..], "src/main.rs"),
            ("ordner/größe".as_bytes(), "ordner/größe"),
            (b"a b", "a b"),
            (b"", "\"\""),
            (b"a\x1b[2Jb", "\"a\\u{1b}[2Jb\""),
            (b"a\nb", "\"a\\nb\""),
            (b"quote\"back\\", "\"quote\\\"back\\\\\""),
            ("exe\u{202e}txt".as_bytes(), "\"exe\\u{202e}txt\""),
            ("zero\u{200b}".as_bytes(), "\"zero\\u{200b}\""),
            ("c1\u{9b}31m".as_bytes(), "\"c1\\u{9b}31m\""),
            (b"latin\xe9", "\"latin\\xe9\""),
        ] {
            assert_eq!(shown(name), expected);
        }
    }
}
