//! Finds secrets and keys in text by detectors that are data: one literal prefilter over the whole text, then an
//! anchored expression in a small window around each hit. It never validates a secret by asking anybody.
//!
//! The fact a newcomer gets wrong: the literals are the only thing that looks at the whole text, so a detector
//! without a distinctive literal does not belong here.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use creel_model::{Confidence, ContentRole, Finding, Severity};
use regex_automata::{Anchored, Input, meta::Regex};
use serde::Deserialize;

/// The detectors' data, as built in.
pub(crate) static SOURCES: &[&str] = &[include_str!("../../data/detectors/providers.toml")];

/// Most findings of one text; a text with more is reported with the first ones.
const FINDINGS: usize = 1024;

/// One detector as its file states it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Detector {
    /// Finding code.
    code: String,
    /// One of these must stand where the expression begins.
    literals: Vec<String>,
    /// The expression, anchored at the literal.
    pattern: String,
    /// Longest match, in bytes.
    window: usize,
    severity: Severity,
    confidence: Confidence,
    #[serde(default)]
    taxonomy: Vec<String>,
    #[serde(default)]
    #[cfg_attr(not(test), expect(dead_code, reason = "examples are for the tests"))]
    matches: Vec<String>,
    #[serde(default)]
    #[cfg_attr(not(test), expect(dead_code, reason = "examples are for the tests"))]
    not: Vec<String>,
}

#[derive(Deserialize)]
struct File {
    detector: Vec<Detector>,
}

/// All detectors, compiled once.
struct Compiled {
    detectors: Vec<(Detector, Regex)>,
    literals: AhoCorasick,
    /// Which detector each literal belongs to.
    owner: Vec<usize>,
}

#[expect(clippy::expect_used, reason = "built-in data; a test compiles every entry")]
static COMPILED: LazyLock<Compiled> = LazyLock::new(|| {
    let mut detectors = Vec::new();
    let (mut literals, mut owner) = (Vec::new(), Vec::new());
    for source in SOURCES {
        let file: File = toml::from_str(source).expect("detector data");
        for detector in file.detector {
            let regex = Regex::new(&detector.pattern).expect("detector pattern");
            for literal in &detector.literals {
                literals.push(literal.clone());
                owner.push(detectors.len());
            }
            detectors.push((detector, regex));
        }
    }
    let literals = AhoCorasick::new(&literals).expect("detector literals");
    Compiled { detectors, literals, owner }
});

/// Findings in `text`, in the order of their places; at most 1,024. `role` is for detectors that depend on it.
#[must_use]
pub fn scan(text: &str, role: ContentRole) -> Vec<Finding> {
    let _ = role;
    let compiled = &*COMPILED;
    let mut found: Vec<Finding> = Vec::new();
    for hit in compiled.literals.find_overlapping_iter(text) {
        let Some((detector, regex)) =
            compiled.owner.get(hit.pattern().as_usize()).and_then(|&index| compiled.detectors.get(index))
        else {
            continue;
        };
        // A token inside a longer word is another word.
        if text.as_bytes().get(hit.start().wrapping_sub(1)).is_some_and(u8::is_ascii_alphanumeric) {
            continue;
        }
        let end = text.len().min(hit.start().saturating_add(detector.window));
        let input = Input::new(text).span(hit.start()..end).anchored(Anchored::Yes);
        let Some(matched) = regex.find(input) else { continue };
        if found.iter().any(|f| f.code == detector.code && f.span == Some((matched.start(), matched.end()))) {
            continue;
        }
        found.push(Finding {
            code: detector.code.clone(),
            class: "secret".to_owned(),
            severity: detector.severity,
            confidence: detector.confidence,
            span: Some((matched.start(), matched.end())),
            evidence: String::new(),
            remedy: "remove it from the text and rotate it".to_owned(),
            taxonomy: detector.taxonomy.clone(),
        });
        if found.len() >= FINDINGS {
            break;
        }
    }
    found.sort_by_key(|f| f.span);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_detector_finds_its_examples_and_nothing_else() {
        for (detector, _) in &COMPILED.detectors {
            assert!(!detector.matches.is_empty() && !detector.not.is_empty(), "{} needs examples", detector.code);
            // `~` splits an example so that scanners of this repository do not take it for a real secret.
            for example in &detector.matches {
                let text = example.replace('~', "");
                assert!(scan(&text, ContentRole::Other).iter().any(|f| f.code == detector.code), "{text}");
            }
            for example in &detector.not {
                let text = example.replace('~', "");
                assert!(!scan(&text, ContentRole::Other).iter().any(|f| f.code == detector.code), "{text}");
            }
        }
    }
}
