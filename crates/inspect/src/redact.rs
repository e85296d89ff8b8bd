//! Takes findings out of a text and leaves typed placeholders. It does not decide what to redact.

use creel_model::Finding;

/// A text without what was found in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redacted {
    /// The text with placeholders like `[creel:redacted private-key]`.
    pub text: String,
    /// How many places were replaced; overlapping findings count once.
    pub replaced: u32,
}

/// Replaces every span of `findings` in `text`. Overlapping spans become one placeholder, named by the first. A span
/// that is out of range or cuts a character is widened to the nearest characters, never skipped.
#[must_use]
pub fn redact(text: &str, findings: &[Finding]) -> Redacted {
    let mut spans: Vec<(usize, usize, &str)> = findings
        .iter()
        .filter_map(|f| f.span.map(|(start, end)| (floor(text, start), ceil(text, end), f.code.as_str())))
        .filter(|(start, end, _)| start < end)
        .collect();
    spans.sort();
    let mut out = String::with_capacity(text.len());
    let mut replaced: u32 = 0;
    let mut at = 0;
    for (start, end, code) in spans {
        if start < at {
            at = at.max(end);
            continue;
        }
        out.push_str(text.get(at..start).unwrap_or_default());
        out.push_str("[creel:redacted ");
        out.push_str(code.strip_prefix("secret.").unwrap_or(code));
        out.push(']');
        replaced = replaced.saturating_add(1);
        at = end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    Redacted { text: out, replaced }
}

fn floor(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn ceil(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use creel_model::{Confidence, Severity};

    fn finding(code: &str, span: (usize, usize)) -> Finding {
        Finding {
            code: code.into(),
            class: "secret".into(),
            severity: Severity::High,
            confidence: Confidence::High,
            span: Some(span),
            evidence: String::new(),
            remedy: String::new(),
            taxonomy: Vec::new(),
        }
    }

    #[test]
    fn overlapping_and_ragged_spans_leave_nothing_behind() {
        let found = [finding("secret.a", (2, 5)), finding("b", (4, 7)), finding("c", (9, 99))];
        let got = redact("01234567é9", &found);
        assert_eq!(got.text, "01[creel:redacted a]7[creel:redacted c]");
        assert_eq!(got.replaced, 2);
    }
}
