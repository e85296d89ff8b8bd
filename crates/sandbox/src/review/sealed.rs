//! Which paths of a layer bear a sealed name, for a commit.
//!
//! The seals held in the cage already; this is the second look, because a layer is only bytes on a disk until a person
//! commits it. The one fact a newcomer gets wrong: a link or file *named* like a folder of a sealed path (`.git`, or
//! `.github`) is sealed too, since it moves what the sealed path means.

use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use creel_model::cage::Seal;

use super::compare::{Difference, Kind};
use super::fd;
use super::name::{Relative, is_plain};

/// Names in a git repository, by their parts, that make git run something: sealed wherever `objects` and `refs` lie
/// beside them, whatever the repository's folder is called.
const IN_REPOSITORY: [&[&str]; 4] = [&["hooks"], &["config"], &["config.worktree"], &["info", "attributes"]];

/// The rule that seals a path which a difference would change; `None` where none does.
pub(crate) fn rule<'a>(
    difference: &Difference,
    seals: &'a [Seal],
    workspace: &Path,
    upper: BorrowedFd<'_>,
    lower: BorrowedFd<'_>,
) -> Option<&'a str> {
    let outer: Vec<String> = parts_of(workspace).map(folded).collect();
    let inner: Vec<String> = difference.path.parts().map(folded).collect();
    let whole: Vec<String> = outer.iter().chain(&inner).cloned().collect();
    let folder = |side: &Option<super::compare::Side>| side.as_ref().is_none_or(|side| side.kind == Kind::Folder);
    let is_folder = folder(&difference.before) && folder(&difference.after);
    for seal in seals {
        let pattern: Vec<String> = seal.components.iter().map(|part| folded(part.as_bytes())).collect();
        // Only what lies below that folder counts, and the folder's own names are no part of a match.
        let first = match &seal.below {
            Some(below) => {
                let below: Vec<String> = parts_of(Path::new(below)).map(folded).collect();
                if !whole.starts_with(&below) {
                    continue;
                }
                below.len()
            }
            None => 0,
        };
        // The match must take in at least one part of the path below the workspace: what the workspace itself is called
        // was the person's choice when he named it.
        let ends = outer.len() + 1..=whole.len();
        let matches = |end: usize, pattern: &[String]| {
            let start = end.checked_sub(pattern.len()).filter(|start| *start >= first);
            start
                .and_then(|start| whole.get(start..end))
                .is_some_and(|part| part.iter().zip(pattern).all(|(a, b)| glob(b, a)))
        };
        let hit = ends.clone().any(|end| matches(end, &pattern))
            || (!is_folder
                && (1..pattern.len())
                    .any(|length| pattern.get(..length).is_some_and(|part| matches(whole.len(), part))));
        if hit {
            return Some(&seal.rule);
        }
    }
    in_repository(&inner, &difference.path, upper, lower).then_some("git-repository")
}

/// Whether the path is one of [`IN_REPOSITORY`] of a folder that holds both `objects` and `refs`, in the layer or below.
fn in_repository(folded: &[String], path: &Relative, upper: BorrowedFd<'_>, lower: BorrowedFd<'_>) -> bool {
    (0..folded.len()).any(|at| {
        let candidate = IN_REPOSITORY
            .iter()
            .any(|names| folded.get(at..at + names.len()).is_some_and(|part| part.iter().eq(names.iter())));
        if !candidate {
            return false;
        }
        let Some(parent) = path.parts().take(at).try_fold(Relative::root(), |parent, part| parent.join(part)) else {
            return true;
        };
        let holds = |name: &str| {
            [upper, lower].into_iter().any(|base| {
                use std::os::fd::AsFd as _;
                fd::below(base, &parent)
                    .is_ok_and(|folder| matches!(fd::stamp(folder.as_fd(), name.as_ref()), Ok(Some(_))))
            })
        };
        holds("objects") && holds("refs")
    })
}

fn parts_of(path: &Path) -> impl Iterator<Item = &[u8]> {
    path.as_os_str().as_bytes().split(|byte| *byte == b'/').filter(|part| !part.is_empty())
}

/// A name as filesystems that ignore case, and eyes, take it: lower case, without characters that draw nothing.
fn folded(name: &[u8]) -> String {
    // `ſ` and `ß` and their like only meet their pair after a turn through upper case.
    let text = String::from_utf8_lossy(name);
    text.chars().filter(|c| is_plain(*c)).flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// Whether a name is of a pattern in which `*` stands for any characters.
fn glob(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut rest) = name.strip_prefix(head) else { return false };
    let mut pieces = tail.split('*').peekable();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        match rest.find(piece).and_then(|at| rest.get(at + piece.len()..)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use creel_model::cage::SealKind;

    use super::super::compare::{Change, Side};
    use super::*;

    fn seal(components: &[&str], below: Option<&str>) -> Seal {
        Seal {
            components: components.iter().map(|part| (*part).to_owned()).collect(),
            kind: SealKind::Directory,
            rule: components.join("/"),
            below: below.map(str::to_owned),
        }
    }

    #[test]
    fn sealed_names_are_found_however_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["bare/objects", "bare/refs", "half/objects"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let base = fd::folder(dir.path()).unwrap();
        let seals = [
            seal(&[".git", "hooks"], None),
            seal(&[".github", "workflows"], None),
            seal(&["*.pth"], None),
            seal(&["config.toml"], Some("/home/ada/work/.codex")),
        ];
        let side = |path: &str| {
            let name = std::ffi::OsStr::new(path);
            Side::of(fd::stamp(base.as_fd(), name).unwrap().unwrap(), None)
        };
        std::fs::write(dir.path().join("f"), "").unwrap();
        let found = |path: &str, kind: &str| {
            let path = Relative::parse(path.as_ref()).unwrap();
            let after = Some(side(kind));
            let change = Change::Created;
            let difference = Difference { path, change, before: None, after, obstacle: None, set_id: false };
            rule(&difference, &seals, Path::new("/home/ada/work"), base.as_fd(), base.as_fd()).map(str::to_owned)
        };
        for (path, kind, expected) in [
            (".git/hooks/pre-commit", "f", Some(".git/hooks")),
            ("deep/in/.git/hooks", "bare", Some(".git/hooks")),
            (".GIT/Hooks/x", "f", Some(".git/hooks")),
            (".g\u{200c}it/hooks/x", "f", Some(".git/hooks")),
            (".git", "f", Some(".git/hooks")),
            (".git", "bare", None),
            (".git/index", "f", None),
            (".github", "f", Some(".github/workflows")),
            (".github/workflows/ci.yml", "f", Some(".github/workflows")),
            ("lib/x.pth", "f", Some("*.pth")),
            ("lib/x.pthx", "f", None),
            (".codex/config.toml", "f", Some("config.toml")),
            ("config.toml", "f", None),
            ("bare/hooks/post-update", "f", Some("git-repository")),
            ("bare/config", "f", Some("git-repository")),
            ("bare/info/attributes", "f", Some("git-repository")),
            ("bare/description", "f", None),
            ("half/hooks/x", "f", None),
            ("src/main.rs", "f", None),
        ] {
            assert_eq!(found(path, kind).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, name, expected) in [
            ("*", "anything", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acb", false),
            ("*.a*.b", "x.a.b", true),
            ("*.a*.b", "x.b.a", false),
            ("a*a", "a", false),
            ("plain", "plain", true),
            ("plain", "plainer", false),
        ] {
            assert_eq!(glob(pattern, name), expected, "{pattern} {name}");
        }
    }
}
