//! The patch text of `apply_patch` as effects: every file that it adds, updates, deletes or moves.
//!
//! The one thing a newcomer gets wrong: this must see *more* headers than Codex's own parser, never fewer. A line that
//! only looks like a header costs a needless effect; a header that is missed is a file written unseen.

use creel_model::{Effect, Object, Verb};

use crate::tools::{Part, Place};

/// What marks a patch inside any text, also inside a shell here-document.
pub(crate) const BEGIN: &str = "*** Begin Patch";

/// The patch's effects; [`Part::Unknown`] when no file is named.
pub(crate) fn parts(text: &str, place: &Place<'_>) -> Vec<Part> {
    let body = text.find(BEGIN).and_then(|at| text.get(at..)).unwrap_or(text);
    let mut effects: Vec<Effect> = Vec::new();
    let mut updated: Option<&str> = None;
    for line in body.lines().map(str::trim) {
        if let Some(path) = header(line, "*** Add File:") {
            effects.push(place.path(Verb::Write, path));
        } else if let Some(path) = header(line, "*** Update File:") {
            updated = Some(path);
            effects.push(place.path(Verb::Write, path));
        } else if let Some(path) = header(line, "*** Delete File:") {
            effects.push(place.path(Verb::Delete, path));
        } else if let Some(path) = header(line, "*** Move to:") {
            if let Some(from) = updated {
                effects.push(place.path(Verb::Rename, from));
            }
            effects.push(place.path(Verb::Write, path));
        }
    }
    effects.dedup_by(|a, b| a == b);
    if effects.is_empty() || effects.iter().any(|effect| is_root(&effect.object)) {
        return vec![Part::Unknown];
    }
    effects.into_iter().map(Part::Effect).collect()
}

fn header<'a>(line: &'a str, marker: &str) -> Option<&'a str> {
    line.strip_prefix(marker).map(str::trim)
}

/// An empty or nonsensical name resolves to a folder that no patch can write.
fn is_root(object: &Object) -> bool {
    matches!(object, Object::Path { path, .. } if path == "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let place = Place { cwd: "/w", home: "/home/u" };
        let shown: Vec<String> = parts(text, &place)
            .iter()
            .map(|part| match part {
                Part::Effect(effect) => format!("{} {}", effect.verb, effect.object),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn each_file_is_an_effect() {
        check(
            "*** Begin Patch\n*** Add File: a/b.txt\n+hi\n*** Update File: c.rs\n*** Move to: ../d.rs\n@@\n-x\n+y\n\
             *** Delete File: /etc/hosts\n*** End Patch",
            &["write /w/a/b.txt", "write /w/c.rs", "rename /w/c.rs", "write /d.rs", "delete /etc/hosts"],
        );
    }

    #[test]
    fn a_here_document_and_odd_spacing_are_read() {
        check(
            "apply_patch <<'EOF'\n*** Begin Patch\n  *** Update File:.git/hooks/pre-commit  \n@@\n+x\n*** End Patch\nEOF",
            &["write /w/.git/hooks/pre-commit"],
        );
        check("*** Begin Patch\r\n*** Add File: x\r\n+1\r\n*** End Patch\r\n", &["write /w/x"]);
    }

    #[test]
    fn a_patch_without_files_is_unknown() {
        check("*** Begin Patch\n*** End Patch", &["Unknown"]);
        check("", &["Unknown"]);
        check("*** Begin Patch\n*** Add File: /\n*** End Patch", &["Unknown"]);
    }
}
