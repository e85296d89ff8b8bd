//! The words that a rule may compare with: a misspelt zone or class would otherwise make a rule that never matches.

use std::collections::BTreeSet;

use creel_model::{ApprovalMode, Certainty, CommandClass, ContentRole, Mode, Point, SinkGrade, Zone};

/// The words allowed for one attribute.
#[derive(Clone, Debug)]
pub(crate) enum Words {
    /// Exactly these.
    Fixed(BTreeSet<String>),
    /// Anything.
    Free,
}

impl Words {
    fn of<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Fixed(words.into_iter().map(str::to_owned).collect())
    }
}

/// Classes of content that effects and findings carry; detectors add finer ones as `data.…`.
pub(crate) const CONTENT_CLASSES: &[&str] =
    &["secret", "private-key", "personal", "injection", "source-code", "local-file", "posture"];

/// What may stand beside `variable.attribute` in a comparison; `zones` are the bundle's own zone names.
pub(crate) fn words(variable: &str, attribute: &str, zones: &BTreeSet<String>) -> Words {
    match (variable, attribute) {
        ("context" | "resource", "zones" | "zone") | ("resource", "covers") => {
            Words::of(zones.iter().map(String::as_str).chain([Zone::UNKNOWN, "workspace", "home", "root"]))
        }
        ("context", "point") => Words::of(Point::ALL.iter().map(|word| word.as_str())),
        ("context", "classes") => Words::of(CommandClass::ALL.iter().map(|word| word.as_str())),
        ("context", "certainty") => Words::of(Certainty::ALL.iter().map(|word| word.as_str())),
        ("context", "sink") => Words::of(SinkGrade::ALL.iter().map(|word| word.as_str())),
        ("context", "origin") => Words::of([
            "user",
            "operator-config",
            "workspace-owned",
            "workspace-foreign",
            "dependency",
            "tool-local",
            "external",
            "mcp",
        ]),
        ("content", "classes") | ("context", "finding_classes") | ("labels", "sensitive") => {
            Words::of(CONTENT_CLASSES.iter().copied().chain(CommandClass::ALL.iter().map(|word| word.as_str())))
        }
        ("principal", "mode") => Words::of(Mode::ALL.iter().map(|word| word.as_str())),
        ("principal", "approval_mode") => Words::of(ApprovalMode::ALL.iter().map(|word| word.as_str())),
        ("resource", "role") => Words::of(ContentRole::ALL.iter().map(|word| word.as_str())),
        _ => Words::Free,
    }
}
