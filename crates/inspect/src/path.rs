//! Where a command would run, and lexical paths. A lexical path is not the file that will be touched: symbolic links
//! are looked up elsewhere, just before the decision.

use std::collections::BTreeMap;

/// The surroundings a command text would run in, as facts.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Working folder, absolute; empty when unknown (relative paths are then dynamic).
    pub cwd: &'a str,
    /// Home folder of the account, absolute; empty when unknown.
    pub home: &'a str,
    /// Login name of the account; empty when unknown.
    pub user: &'a str,
    /// Variables whose values are known for certain.
    pub variables: &'a BTreeMap<String, String>,
}

/// The absolute, lexically normalised form of `path` seen from `cwd`: no `.`, `..`, doubled or trailing slashes.
/// `None` when it is relative and `cwd` is not absolute. `..` at the root stays at the root.
#[must_use]
pub fn normalise(path: &str, cwd: &str) -> Option<String> {
    let base = if path.starts_with('/') {
        ""
    } else if cwd.starts_with('/') {
        cwd
    } else {
        return None;
    };
    // The usual case: a plain path below a folder that is already normalised.
    let below = |text: &str| text.strip_prefix('/').is_some_and(is_plain);
    if base.is_empty() && below(path) {
        return Some(path.to_owned());
    }
    if below(base) && is_plain(path) {
        return Some([base, path].join("/"));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut out = String::with_capacity(base.len() + path.len() + 1);
    for part in &parts {
        out.push('/');
        out.push_str(part);
    }
    if out.is_empty() {
        out.push('/');
    }
    Some(out)
}

/// Whether no part between slashes is empty, `.` or `..`. Every path of every command comes here: one pass over its bytes.
fn is_plain(path: &str) -> bool {
    let (mut length, mut dots) = (0_usize, 0_usize);
    for byte in path.bytes().chain([b'/']) {
        if byte == b'/' {
            if length == 0 || (length <= 2 && length == dots) {
                return false;
            }
            (length, dots) = (0, 0);
        } else {
            length += 1;
            dots += usize::from(byte == b'.');
        }
    }
    true
}

/// The last part of a path.
pub(crate) fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

/// Whether `path` is `folder` or below it; both absolute and normalised.
pub(crate) fn is_within(path: &str, folder: &str) -> bool {
    folder == "/" || path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Shell-like matching of a whole text: `*` any run of characters, `?` one character; everything else literal.
/// Linear in practice: on a mismatch only the last star is retried.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, t));
                p += 1;
            }
            Some(&c) if c == b'?' || Some(&c) == text.get(t) => {
                p += 1;
                t += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    p = star + 1;
                    t = from + 1;
                    retry = Some((star, t));
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|&c| c == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_lexically() {
        assert_eq!(normalise("../x/./y//", "/a/b").as_deref(), Some("/a/x/y"));
        assert_eq!(normalise("/../..", "/a").as_deref(), Some("/"));
        assert_eq!(normalise("x", ""), None);
        for (path, expected) in [
            ("b/.c/d..", "/a/b/.c/d.."),
            ("...", "/a/..."),
            ("/b/...x", "/b/...x"),
            ("/b/./c", "/b/c"),
            ("/b/", "/b"),
            ("//b", "/b"),
            (".", "/a"),
            ("b/..", "/a"),
            ("", "/a"),
        ] {
            assert_eq!(normalise(path, "/a").as_deref(), Some(expected), "{path}");
        }
        assert!(is_within("/a/b", "/a") && !is_within("/ab", "/a"));
    }

    #[test]
    fn globs_match_whole_texts() {
        assert!(glob("*.ssh/id_*", "/home/u/.ssh/id_rsa"));
        assert!(!glob("*.ssh/id_*", "/home/u/.ssh/known_hosts"));
        assert!(glob("a*b*c", "aXbYbZc") && !glob("a*b", "abc"));
    }
}
