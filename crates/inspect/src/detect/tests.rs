//! What every detector must and must not find, from its own data, and what holds for all texts.

use super::data::{DETECTORS, Kind};
use super::*;
use crate::redact;

/// A made-up value that looks random, for what has no form of its own.
const RANDOM: &str = "q7Zt0LmX2vB9nR4kW8sYe3Hd5Jf1GpT6";

fn found(text: &str) -> Vec<Finding> {
    scan(text, ContentRole::Other)
}

fn code(kind: &Kind) -> String {
    format!("secret.{}", kind.code)
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
        for example in &kind.matches {
            let all = found(&plain(example));
            // Where a service's name stands beside the format, the surer of the two is told.
            if !all.iter().any(|f| f.code == code(kind) || f.confidence > kind.confidence) {
                wrong.push(format!("{} missed {example}: {:?}", kind.code, all.first().map(|f| &f.code)));
            }
        }
        for example in &kind.not {
            if found(&plain(example)).iter().any(|f| f.code == code(kind)) {
                wrong.push(format!("{} found {example}", kind.code));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_expression_alone_matches_its_example_and_begins_at_its_literal() {
    for kind in &DETECTORS.kinds {
        for example in kind.matches.iter().map(|e| plain(e)) {
            let lower = example.to_ascii_lowercase();
            let hit = kind.literals.iter().flat_map(|literal| {
                lower.match_indices(literal.to_ascii_lowercase().as_str()).map(|(at, _)| at).collect::<Vec<_>>()
            });
            let matched = hit.filter_map(|at| at.checked_sub(kind.behind)).any(|start| {
                let end = example.len().min(start + kind.window);
                kind.regex().is_match(Input::new(example.as_bytes()).span(start..end).anchored(Anchored::Yes))
            });
            assert!(matched, "{}: {example}", kind.code);
        }
    }
}

#[test]
fn every_service_is_found_beside_a_random_value_and_not_beside_a_word() {
    let mut wrong = Vec::new();
    let mut spellings: Vec<(usize, usize)> = Vec::new();
    for (literal, owners) in DETECTORS.owners.iter().enumerate() {
        for owner in owners {
            if let Owner::Service(index) = owner {
                spellings.push((*index, literal));
            }
        }
    }
    assert!(spellings.len() >= DETECTORS.services.len());
    for service in &DETECTORS.services {
        let name = service.code.trim_start_matches("secret.").trim_end_matches("-key");
        for text in [format!("{name}_api_key={RANDOM}"), format!("\"{name}Secret\": \"{RANDOM}\"")] {
            if !found(&text).iter().any(|f| f.confidence >= Confidence::Medium) {
                wrong.push(text);
            }
        }
        for text in [
            format!("{name}_api_key=<your-{name}-key>"),
            format!("{name}_api_key=${{{name}_KEY}}"),
            format!("the {name} key is rotated every month by the operations team"),
            format!("{name}_token: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
            format!("import {{ {name}KeyProvider }} from './{name}-key-provider'"),
        ] {
            if found(&text).iter().any(|f| f.confidence >= Confidence::Medium) {
                wrong.push(text);
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong, first {:?}", wrong.len(), wrong.get(..wrong.len().min(12)));
}

#[test]
fn there_are_many_kinds_with_codes_of_small_letters() {
    let codes: std::collections::BTreeSet<_> = DETECTORS.kinds.iter().map(|k| k.code.as_str()).collect();
    assert!(codes.len() >= 150, "{}", codes.len());
    assert!(codes.iter().all(|c| c.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')));
    assert!(
        DETECTORS.kinds.iter().all(|k| k.window <= 16_384 && !k.literals.iter().any(|l| l.len() < 2 && k.behind == 0))
    );
}

#[test]
fn assignments_are_doubtful_unless_they_are_surely_secret_and_random() {
    let judged = |text: &str| found(text).first().map(|f| (f.code.clone(), f.confidence));
    let is = |code: &str, confidence| Some((format!("secret.{code}"), confidence));
    assert_eq!(judged("db_password = \"hunter2!x\""), is("generic-password", Confidence::Low));
    assert_eq!(judged("PASSWORD=Tr0ub4dor&3x"), is("generic-password", Confidence::Low));
    assert_eq!(judged(&format!("client_secret: '{RANDOM}'")), is("generic-secret", Confidence::Medium));
    assert_eq!(judged(&format!("{{\\\"apiKey\\\": \\\"{RANDOM}\\\"}}")), is("generic-key", Confidence::Medium));
    for text in [
        "password = \"password\"",
        "password: string",
        "token = lexer.next_token()",
        "secret = os.environ['SECRET']",
        "public_key = \"9Cnzj4p4WGeKLs1Pt8QuKUpRKfFLfRYC9AIKjbJTWit\"",
        "csrf-token=Mj2qykJO5rELyHgezQ69nzUX0i3OH67V",
        "key_id = 555ea4a3-d53a-4412-9c66-3a7cb667b0d6",
        "API_KEY=changeme-changeme-123",
        "fn password(value: &[u8]) -> bool {",
        "the password must have 12 characters",
    ] {
        assert_eq!(judged(text), None, "{text}");
    }
}

#[test]
fn what_is_found_does_not_change_by_escaping() {
    let best = |text: &str| found(text).iter().map(|f| f.confidence).max();
    let mut wrong = Vec::new();
    for kind in &DETECTORS.kinds {
        for example in kind.matches.iter().map(|e| plain(e)) {
            let text = format!("first\n{example}\nlast");
            let once = serde_json::to_string(&text).unwrap();
            let twice = serde_json::to_string(&once).unwrap();
            for escaped in [&once, &twice] {
                if best(escaped) < best(&text) {
                    wrong.push(format!("{}: {escaped}", kind.code));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_redacted_text_holds_no_finding_and_no_secret() {
    for kind in &DETECTORS.kinds {
        for example in kind.matches.iter().map(|e| plain(e)) {
            let text = format!("before {example} after");
            let redacted = redact(&text, &found(&text));
            assert!(redacted.replaced > 0 && redacted.text.contains("[creel:redacted "), "{}", redacted.text);
            let again = found(&redacted.text);
            assert!(again.is_empty(), "{}: {} {again:?}", kind.code, redacted.text);
        }
    }
}

#[test]
fn keys_that_are_public_by_design_need_context() {
    let key = plain("AIza¦SyB3k9QwErT7UiOpAsDfGhJkLzXcVbN1m24");
    let best = |text: String| found(&text).iter().map(|f| f.confidence).max();
    assert_eq!(best(format!("src=\"https://maps.example/js?x={key}\"")), Some(Confidence::Low));
    assert_eq!(best(format!("firebase: {{ apiKey: \"{key}\" }}")), Some(Confidence::Low));
    let gemini = format!("GEMINI_API_KEY={key}");
    assert_eq!(best(gemini.clone()), Some(Confidence::Medium), "{:?}", found(&gemini));
}

#[test]
fn findings_are_bounded_and_hostile_text_is_linear() {
    let token = plain("glpat-¦q7Zt0LmX2vB9nR4kW8sY ");
    assert_eq!(found(&token.repeat(3000)).len(), FINDINGS);
    for piece in
        ["sk-", "eyJ", "-----BEGIN RSA PRIVATE KEY-----\n", "password=", "https://a:", "AAAA", "key: ", "\\", "é"]
    {
        let text = piece.repeat(60_000 / piece.len());
        let all = found(&text);
        assert!(all.len() <= FINDINGS);
        assert!(all.iter().all(|f| f.span.is_some_and(|(start, end)| start < end && end <= text.len())));
    }
}
