//! What every detector must and must not find, from its own data, and what holds for all texts.

use super::data::{DETECTORS, Kind};
use super::*;

fn found(text: &str) -> Vec<Finding> {
    scan(text, ContentRole::Other)
}

/// Whether exactly this code is found, at whatever confidence.
fn has(text: &str, kind: &Kind) -> bool {
    let code = format!("secret.{}", kind.code);
    found(text).iter().any(|f| f.code == code)
}

/// An example as it would stand in a text.
fn plain(example: &str) -> String {
    example.replace('¦', "")
}

#[test]
fn every_format_finds_its_examples_and_nothing_else() {
    let mut wrong = Vec::new();
    for kind in &DETECTORS.kinds {
        assert!(!kind.matches.is_empty() && !kind.not.is_empty(), "{} needs examples", kind.code);
        wrong
            .extend(kind.matches.iter().filter(|e| !has(&plain(e), kind)).map(|e| format!("{} missed {e}", kind.code)));
        wrong.extend(kind.not.iter().filter(|e| has(&plain(e), kind)).map(|e| format!("{} found {e}", kind.code)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
