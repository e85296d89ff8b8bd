//! Finds secrets and keys in text by detectors that are data: one literal prefilter over the whole text, then an
//! anchored expression or a short walk in a small window around each hit. It never validates a secret by asking
//! anybody, and holds no state.
//!
//! The fact a newcomer gets wrong: the literals are the only thing that looks at the whole text, so a detector
//! without a distinctive literal does not belong here. Confidence is what separates the three ways to find: a
//! provider's own format, a service's name beside a random value, and any assignment of something random, which is
//! doubtful and only kept out of records.

mod checksum;
mod context;
mod data;
mod value;

use creel_model::{Confidence, ContentRole, Finding, Severity};
use regex_automata::{Anchored, Input};

use data::{DETECTORS, Detectors, Kind, Owner};
use value::{Look, look};

pub(crate) use data::SOURCES;

/// Most findings of one text; a text with more is reported with the first ones.
const FINDINGS: usize = 1024;

/// How far before a match its context may stand, in bytes.
const CONTEXT: usize = 96;

/// Who found it, the surest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Assignment,
    Service,
    Format,
}

/// One place, before it becomes a finding.
#[derive(Debug)]
struct Found<'a> {
    start: usize,
    end: usize,
    /// Of several findings at one place the one that ranks highest stays.
    public: bool,
    way: Way,
    /// Length of the literal: of two formats the one that says more wins.
    literal: usize,
    code: &'a str,
    severity: Severity,
    confidence: Confidence,
    taxonomy: &'a [String],
}

impl Found<'_> {
    fn rank(&self) -> (bool, Confidence, Way, usize) {
        (self.public, self.confidence, self.way, self.literal)
    }
}

/// Findings in `text`, in the order of their places; at most 1,024. Linear in the text's length. `role` is for
/// detectors that depend on it; none does yet.
#[must_use]
pub fn scan(text: &str, role: ContentRole) -> Vec<Finding> {
    let _ = role;
    let detectors = &*DETECTORS;
    let mut found: Vec<Found<'_>> = Vec::new();
    // Where each format was last found: what lies inside is not looked at again, so a long key costs once.
    let mut until: Vec<usize> = Vec::new();
    for hit in detectors.literals.find_overlapping_iter(text) {
        for owner in detectors.owners.get(hit.pattern().as_usize()).into_iter().flatten() {
            let new = match *owner {
                Owner::Kind(index) => {
                    if until.get(index).is_some_and(|end| *end > hit.start()) {
                        continue;
                    }
                    let new = detectors.kinds.get(index).and_then(|kind| format(text.as_bytes(), &hit, kind));
                    if let Some(new) = &new {
                        until.resize(detectors.kinds.len(), 0);
                        if let Some(end) = until.get_mut(index) {
                            *end = new.end;
                        }
                    }
                    new
                }
                Owner::Service(index) => service(text.as_bytes(), hit.start(), hit.end(), detectors, index),
                Owner::Noun => assignment(text.as_bytes(), hit.start(), hit.end()),
            };
            found.extend(new);
        }
        if found.len() >= FINDINGS {
            break;
        }
    }
    finish(found)
}

/// Checks a provider's format at a hit of one of its literals.
fn format<'a>(bytes: &[u8], hit: &aho_corasick::Match, kind: &'a Kind) -> Option<Found<'a>> {
    let start = hit.start().checked_sub(kind.behind)?;
    if !kind.inside && in_word(bytes, start) {
        return None;
    }
    let end = bytes.len().min(start.saturating_add(kind.window));
    let input = Input::new(bytes).span(start..end).anchored(Anchored::Yes);
    let regex = kind.regex();
    let (whole, secret) = if regex.captures_len() > 1 {
        let mut captures = regex.create_captures();
        regex.search_captures(&input, &mut captures);
        let whole = captures.get_match()?;
        let group = (1..regex.captures_len()).find_map(|index| captures.get_group(index));
        (whole.range(), group.map_or(whole.range(), |span| span.range()))
    } else {
        let range = regex.search(&input)?.range();
        (range.clone(), range)
    };
    if !kind.inside && whole.end == secret.end && bytes.get(whole.end).is_some_and(u8::is_ascii_alphanumeric) {
        return None;
    }
    // The literal is the same in every token: what follows or precedes it must be random.
    let token = bytes.get(secret.clone())?;
    let body = if secret.contains(&hit.start()) && kind.behind == 0 {
        bytes.get(hit.end().min(secret.end)..secret.end)?
    } else {
        token
    };
    let mut confidence = kind.confidence;
    if kind.placeholders {
        match look(body) {
            Look::Placeholder => return None,
            Look::Test => confidence = lower(confidence),
            Look::Real => {}
        }
        if value::entropy(body.get(..256.min(body.len()))?) < kind.entropy {
            return None;
        }
    }
    if kind.random && (value::form(token) < value::Form::Thin || value::joined_words(token)) {
        return None;
    }
    if let Some(checksum) = kind.checksum
        && !checksum.holds(token)
    {
        if checksum.decides() {
            return None;
        }
        confidence = lower(confidence);
    }
    if !kind.context.is_empty() {
        let before = bytes.get(start.saturating_sub(CONTEXT)..start)?.to_ascii_lowercase();
        if !kind.context.iter().any(|word| value::begins_word(&before, word.as_bytes())) {
            // A key that its makers let into browsers is still worth a hint.
            if !kind.public {
                return None;
            }
            confidence = Confidence::Low;
        }
    }
    Some(Found {
        start: secret.start,
        end: secret.end,
        public: kind.public,
        way: Way::Format,
        literal: hit.end() - hit.start(),
        code: &kind.code,
        severity: kind.severity,
        confidence,
        taxonomy: &kind.taxonomy,
    })
}

fn service<'a>(bytes: &[u8], start: usize, end: usize, detectors: &'a Detectors, index: usize) -> Option<Found<'a>> {
    let service = detectors.services.get(index)?;
    let (span, confidence) = context::after_service(bytes, start, end, service.ordinary)?;
    Some(Found {
        start: span.start,
        end: span.end,
        public: false,
        way: Way::Service,
        literal: 0,
        code: &service.code,
        severity: service.severity,
        confidence,
        taxonomy: &[],
    })
}

fn assignment<'a>(bytes: &[u8], start: usize, end: usize) -> Option<Found<'a>> {
    let (span, code, confidence) = context::assignment(bytes, start, end)?;
    Some(Found {
        start: span.start,
        end: span.end,
        public: false,
        way: Way::Assignment,
        literal: 0,
        code,
        severity: Severity::Medium,
        confidence,
        taxonomy: &[],
    })
}

/// One step less sure.
fn lower(confidence: Confidence) -> Confidence {
    match confidence {
        Confidence::High => Confidence::Medium,
        Confidence::Medium | Confidence::Low => Confidence::Low,
    }
}

/// Whether the byte at `at` continues a word. Escapes of JSON, terminals and URLs end in letters but end a word.
fn in_word(bytes: &[u8], at: usize) -> bool {
    let before = |distance: usize| at.checked_sub(distance).and_then(|i| bytes.get(i)).copied().unwrap_or(0);
    if !before(1).is_ascii_alphanumeric() {
        return false;
    }
    let escape = before(2) == b'\\' && matches!(before(1), b'n' | b'r' | b't' | b'b' | b'f');
    let unicode = before(6) == b'\\' && before(5) == b'u';
    let percent = before(3) == b'%' && before(2).is_ascii_hexdigit() && before(1).is_ascii_hexdigit();
    let terminal = before(1) == b'm' && (2..10).any(|i| before(i) == 0x1b);
    !(escape || unicode || percent || terminal)
}

/// Sorts, drops what a surer way has found at the same place, and words the findings.
fn finish(mut found: Vec<Found<'_>>) -> Vec<Finding> {
    found.sort_by_key(|f| (f.start, std::cmp::Reverse((f.end, f.rank()))));
    let mut kept: Vec<Found<'_>> = Vec::with_capacity(found.len());
    for next in found {
        let mut covered = false;
        // Only the last few can overlap; more would be one secret in many others.
        let recent = kept.len().saturating_sub(8);
        let mut index = recent;
        while let Some(old) = kept.get(index) {
            let overlap = old.start < next.end && next.start < old.end;
            if overlap && old.start <= next.start && next.end <= old.end && old.rank() >= next.rank() {
                covered = true;
                break;
            }
            // What is public by design stays so, however much of the line another way takes with it.
            if overlap && old.public && next.way == Way::Service {
                covered = true;
                break;
            }
            if overlap && next.public && old.way == Way::Service {
                kept.remove(index);
                continue;
            }
            if overlap && next.start <= old.start && old.end <= next.end && next.rank() > old.rank() {
                kept.remove(index);
                continue;
            }
            index += 1;
        }
        if !covered {
            kept.push(next);
        }
    }
    kept.truncate(FINDINGS);
    kept.into_iter()
        .map(|f| Finding {
            code: if f.code.starts_with("secret.") { f.code.to_owned() } else { format!("secret.{}", f.code) },
            class: "secret".to_owned(),
            severity: f.severity,
            confidence: f.confidence,
            span: Some((f.start, f.end)),
            evidence: format!("{} bytes", f.end.saturating_sub(f.start)),
            remedy: "remove it from the text and rotate it".to_owned(),
            taxonomy: if f.taxonomy.is_empty() {
                vec!["T1552.001".to_owned(), "LLM02".to_owned()]
            } else {
                f.taxonomy.to_vec()
            },
        })
        .collect()
}

#[cfg(test)]
mod tests;
