//! Path patterns of `zones.toml` and `exceptions.toml`, split once at load into segments.
//!
//! Not shell patterns and not regular expressions: `*` and `?` stay inside one segment, `**` stands for any number of
//! segments, everything else is literal. Matching remembers one place to go back to per level, so the work is at most
//! length of the pattern times length of the path; no pattern can make it slower.
//!
//! A pattern that ends in `/**` also matches the folder itself.

/// Where a pattern begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Anchor {
    /// `/…`: the root of the file system.
    Root,
    /// `~/…`: a home folder.
    Home,
    /// `@workspace/…`.
    Workspace,
    /// `@temporary/…`.
    Temporary,
    /// `**/…`: anywhere.
    Anywhere,
}

/// One path pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    pub(crate) anchor: Anchor,
    segments: Vec<Segment>,
    /// How many segments at the front are literal.
    literal: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Wild(String),
    AnyDepth,
}

/// One segment of a pattern, for whoever makes something else of it than a match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A name, perhaps with wildcards in it.
    Name(String),
    /// `**`.
    AnyDepth,
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.anchor {
            Anchor::Root | Anchor::Anywhere => "",
            Anchor::Home => "~",
            Anchor::Workspace => "@workspace",
            Anchor::Temporary => "@temporary",
        })?;
        for (index, part) in self.parts().iter().enumerate() {
            let slash = if index == 0 && self.anchor == Anchor::Anywhere { "" } else { "/" };
            match part {
                Part::Name(name) => write!(f, "{slash}{name}")?,
                Part::AnyDepth => write!(f, "{slash}**")?,
            }
        }
        Ok(())
    }
}

impl Pattern {
    /// Longest pattern, in bytes.
    const LENGTH_MAX: usize = 512;

    /// Reads a pattern, or says what is wrong with it and what would be right.
    pub(crate) fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        if text.len() > Self::LENGTH_MAX {
            return Err(("is too long", "at most 512 bytes"));
        }
        let (anchor, rest) = if let Some(rest) = after(text, "~") {
            (Anchor::Home, rest)
        } else if let Some(rest) = after(text, "@workspace") {
            (Anchor::Workspace, rest)
        } else if let Some(rest) = after(text, "@temporary") {
            (Anchor::Temporary, rest)
        } else if text.starts_with("**/") {
            (Anchor::Anywhere, text)
        } else if let Some(rest) = text.strip_prefix('/') {
            (Anchor::Root, rest)
        } else {
            return Err((
                "begins nowhere",
                "a pattern that begins with `/`, `~/`, `@workspace/`, `@temporary/` or `**/`",
            ));
        };
        let mut segments = Vec::new();
        for part in rest.split('/').filter(|part| !part.is_empty()) {
            segments.push(match part {
                "**" => Segment::AnyDepth,
                "." | ".." => return Err(("contains `.` or `..`", "a path without them")),
                part if part.contains("**") => return Err(("has `**` inside a name", "`**` alone between slashes")),
                part if part.contains(['*', '?']) => Segment::Wild(part.to_owned()),
                part => Segment::Literal(part.to_owned()),
            });
        }
        let literal = segments.iter().take_while(|segment| matches!(segment, Segment::Literal(_))).count();
        Ok(Self { anchor, segments, literal })
    }

    /// Whether the pattern matches these segments, counted from its anchor.
    ///
    /// `guarded` asks whether it *may* match: a segment of the path that is itself a shell pattern then matches
    /// whatever it could expand to.
    pub(crate) fn matches(&self, path: &[&str], guarded: bool) -> bool {
        let (mut at, mut in_path) = (0, 0);
        let mut back: Option<(usize, usize)> = None;
        loop {
            match self.segments.get(at) {
                Some(Segment::AnyDepth) => {
                    back = Some((at + 1, in_path));
                    at += 1;
                    continue;
                }
                Some(segment) => {
                    // A bare wildcard in the path could be any name; below a `**` that would be every name everywhere.
                    if let Some(name) = path.get(in_path)
                        && segment.fits(name, guarded && !(back.is_some() && is_bare(name)))
                    {
                        at += 1;
                        in_path += 1;
                        continue;
                    }
                }
                None if in_path >= path.len() => return true,
                None => {}
            }
            // A dead end: let the last `**` take one segment more.
            match back {
                Some((after, from)) if from < path.len() => {
                    back = Some((after, from + 1));
                    at = after;
                    in_path = from + 1;
                }
                _ => return false,
            }
        }
    }

    /// Its segments, from its anchor.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let part = |segment: &Segment| match segment {
            Segment::Literal(text) | Segment::Wild(text) => Part::Name(text.clone()),
            Segment::AnyDepth => Part::AnyDepth,
        };
        self.segments.iter().map(part).collect()
    }

    /// Its literal front, and what follows.
    pub(crate) fn split(&self) -> (Vec<&str>, Vec<Part>) {
        let literal = self.segments.iter().map_while(|segment| match segment {
            Segment::Literal(text) => Some(text.as_str()),
            _ => None,
        });
        (literal.collect(), self.parts().split_off(self.literal))
    }

    /// Whether what the pattern names lies below the folder `path` (counted from the same anchor), as far as the
    /// pattern's literal front tells.
    pub(crate) fn lies_below(&self, path: &[&str]) -> bool {
        path.len() <= self.literal && self.segments.len() > path.len() && self.begins_with(path)
    }

    /// Whether the pattern's literal front begins with these segments.
    fn begins_with(&self, path: &[&str]) -> bool {
        self.segments.iter().zip(path).all(|(segment, name)| matches!(segment, Segment::Literal(text) if text == name))
    }
}

impl Segment {
    fn fits(&self, name: &str, guarded: bool) -> bool {
        match self {
            Segment::AnyDepth => true,
            Segment::Literal(text) => text == name || (guarded && is_glob(name) && could_expand_to(name, text)),
            Segment::Wild(pattern) => {
                let front = literal_front(pattern);
                // Two wildcards that have nothing literal in common say nothing about each other.
                wild(pattern.as_bytes(), name.as_bytes())
                    || (guarded && !front.is_empty() && is_glob(name) && could_expand_to(name, front))
            }
        }
    }
}

/// The rest of a pattern after an anchor word.
fn after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(word)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// Whether a path segment is a shell pattern or holds something the shell will expand.
pub(crate) fn is_glob(name: &str) -> bool {
    name.contains(['*', '?', '[', '{', '$', '`'])
}

/// Whether a segment is nothing but wildcards.
fn is_bare(name: &str) -> bool {
    name.bytes().all(|byte| matches!(byte, b'*' | b'?'))
}

fn literal_front(text: &str) -> &str {
    text.split(['*', '?', '[', '{', '$', '`']).next().unwrap_or("")
}

/// Whether a shell pattern could stand for a name, judged by its literal beginning. A leading wildcard does not stand
/// for a leading dot, as in a shell. A bare variable could stand for anything; it is not taken to be every guarded
/// name at once, because then no command with a variable would pass: rules see it as `dynamic`.
fn could_expand_to(pattern: &str, name: &str) -> bool {
    let front = literal_front(pattern);
    if !front.is_empty() {
        return name.starts_with(front);
    }
    match pattern.as_bytes().first() {
        Some(b'*' | b'?' | b'[') if name.starts_with('.') => false,
        Some(b'*' | b'?') if !pattern.contains(['[', '{', '$', '`']) => wild(pattern.as_bytes(), name.as_bytes()),
        Some(b'$' | b'`') => false,
        _ => true,
    }
}

/// `*` and `?` inside one segment.
pub(crate) fn wild(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut in_name) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(at), name.get(in_name)) {
            (Some(b'*'), _) => {
                back = Some((at + 1, in_name));
                at += 1;
                continue;
            }
            (Some(b'?'), Some(_)) => {
                at += 1;
                in_name += 1;
                continue;
            }
            (Some(expected), Some(found)) if expected == found => {
                at += 1;
                in_name += 1;
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        match back {
            Some((after, from)) if from < name.len() => {
                back = Some((after, from + 1));
                at = after;
                in_name = from + 1;
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, path: &str, expected: bool) {
        let pattern = Pattern::parse(pattern).unwrap();
        let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        assert_eq!(pattern.matches(&segments, false), expected, "{pattern:?} on {path}");
    }

    #[test]
    fn patterns_match_by_segments() {
        check("/etc/shadow", "/etc/shadow", true);
        check("/etc/shadow", "/etc/shadow-", false);
        check("/etc/**", "/etc", true);
        check("/etc/**", "/etc/ssh/sshd_config", true);
        check("/etc/*", "/etc/ssh/sshd_config", false);
        check("**/.env", "/a/b/.env", true);
        check("**/.env", "/.env", true);
        check("**/.env", "/a/.env/b", false);
        check("**/.git/hooks/**", "/a/.git/hooks/pre-commit", true);
        check("**/a/**/b", "/x/a/y/a/z/b", true);
        check("**/a/**/b", "/x/a/y/a/z/c", false);
        check("/proc/*/environ", "/proc/1/environ", true);
        check("**/id_*", "/x/id_rsa", true);
        check("**/*.pem", "/x/a.pem", true);
        check("**/*.pem", "/x/a.pem.txt", false);
    }

    #[test]
    fn hostile_patterns_stay_linear() {
        let pattern = Pattern::parse(&"**/a/".repeat(60)).unwrap();
        let path = vec!["a"; 4000];
        assert!(pattern.matches(&path, false));
        let name = "a".repeat(100_000);
        assert!(!wild(b"*a*a*a*a*a*a*a*b", name.as_bytes()));
    }

    #[test]
    fn a_shell_pattern_in_a_guarded_place_may_match() {
        let pattern = Pattern::parse("~/.ssh/**").unwrap();
        assert!(pattern.matches(&[".ss*", "id_rsa"], true));
        assert!(pattern.matches(&[".s??", "id_rsa"], true));
        assert!(!pattern.matches(&["*", "id_rsa"], true), "a star does not stand for a leading dot");
        assert!(!pattern.matches(&["src", "*.rs"], true));
        assert!(!pattern.matches(&[".ss*", "id_rsa"], false));
        assert!(pattern.matches(&[".ss$H", "id_rsa"], true));
        assert!(!pattern.matches(&["$DIR", "id_rsa"], true), "a bare variable is not every name at once");
    }

    #[test]
    fn a_folder_knows_what_lies_below_it() {
        let pattern = Pattern::parse("~/.config/gcloud/**").unwrap();
        assert!(pattern.lies_below(&[".config"]));
        assert!(pattern.lies_below(&[]));
        assert!(pattern.lies_below(&[".config", "gcloud"]));
        assert!(!pattern.lies_below(&[".config", "gcloud", "x"]));
        assert!(!pattern.lies_below(&[".cache"]));
    }

    #[test]
    fn bad_patterns_are_refused() {
        for bad in ["etc/passwd", "", "~user/x", "/a/../b", "/a/b**", "@home/x"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
