//! Turns a service's name or a word like `password` into the value that stands behind it, by a short walk over
//! separators, quotes and the usual words. No expression: such walks are tried at every second line of code.
//!
//! What a newcomer gets wrong: JSON inside JSON writes a quote as `\"` or `\\\"` and a line end as `\n`; all of them
//! are separators here.

use std::ops::Range;

use creel_model::Confidence;

use super::value::{Form, Look, form, joined_words, look};

/// How far behind a service's name its value may begin, in bytes.
const GAP: usize = 64;
/// Longest value looked at, in bytes.
const VALUE: usize = 2048;
/// Longest identifier looked at on each side of a word, in bytes.
const IDENTIFIER: usize = 48;

/// Words that make a value secret, longest first where one begins another.
const NOUNS: &[&str] = &[
    "apikey",
    "password",
    "passphrase",
    "passwd",
    "credentials",
    "credential",
    "secret",
    "tokens",
    "token",
    "keys",
    "key",
    "pass",
    "pwd",
    "pat",
    "bearer",
    "authorization",
    "auth",
    "private",
    "access",
    "jwt",
];
/// Words that stand between a service's name and its value and say nothing.
const FILLERS: &[&str] = &[
    "application",
    "integration",
    "production",
    "personal",
    "account",
    "service",
    "webhook",
    "client",
    "oauth2",
    "server",
    "session",
    "master",
    "signing",
    "string",
    "oauth",
    "admin",
    "config",
    "value",
    "write",
    "basic",
    "live",
    "prod",
    "user",
    "rest",
    "dev",
    "api",
    "app",
    "env",
    "sdk",
    "str",
    "io",
    "is",
    "v1",
    "v2",
    "v3",
];
/// Words after which a value is not secret.
const OPEN: &[&str] = &[
    "public",
    "publishable",
    "pubkey",
    "url",
    "uri",
    "host",
    "hostname",
    "name",
    "version",
    "sha",
    "sha1",
    "sha256",
    "hash",
    "checksum",
    "digest",
    "commit",
    "rev",
    "ref",
    "path",
    "file",
    "region",
    "email",
    "type",
    "id",
    "ids",
    "domain",
    "endpoint",
    "tag",
    "release",
    "image",
    "integrity",
    "md5",
    "project",
    "bucket",
    "arn",
    "vault",
    "size",
    "length",
    "model",
    "csrf",
    "xsrf",
    "expires",
    "ttl",
    "issuer",
    "audience",
    "kid",
    "fingerprint",
];

/// The value behind a service's name at `start..end`, and how sure it is one.
pub(super) fn after_service(
    bytes: &[u8],
    start: usize,
    end: usize,
    ordinary: bool,
) -> Option<(Range<usize>, Confidence)> {
    if continues_word(bytes, start) {
        return None;
    }
    let limit = bytes.len().min(end + GAP);
    let (mut at, mut keyed, mut direct, mut words) = (end, false, true, 0);
    // Whether the last telling word was one like `id` or `url`.
    let mut open = false;
    // A name that goes on in letters is another word, unless the usual words follow.
    if bytes.get(end).is_some_and(|next| goes_on(bytes, end, *next)) && known_word(bytes, end).is_none() {
        return None;
    }
    while at < limit {
        let from = skip_separators(bytes, at, limit);
        at = from;
        while let Some((length, noun)) = known_word(bytes, at) {
            keyed |= noun;
            open &= !noun;
            direct = direct && noun;
            at += length;
        }
        if at > from && bytes.get(at).is_some_and(|b| separator(*b)) {
            continue;
        }
        let run = run(bytes, from);
        if run.end >= at + 10 && !open {
            let value = bytes.get(at..run.end)?;
            // The walk may still stand before words joined by `-` or `_`.
            let form = match form(value) {
                Form::Uuid => Form::Uuid,
                _ if joined_words(value) => Form::Words,
                form => form,
            };
            let equals = bytes.get(end..from).is_some_and(|gap| gap.contains(&b'='));
            let confidence = match (form, keyed) {
                (Form::Random | Form::Hex, true) => Some(Confidence::High),
                (Form::Uuid, true) => Some(if ordinary { Confidence::Medium } else { Confidence::High }),
                (Form::Thin, true) => Some(Confidence::Medium),
                (Form::Random, false) if direct && !ordinary && value.len() >= 20 => Some(Confidence::Medium),
                (Form::Hex | Form::Uuid, false) if direct && !ordinary && value.len() >= 24 => {
                    Some(if equals { Confidence::Medium } else { Confidence::Low })
                }
                _ => None,
            };
            if let Some(confidence) = confidence {
                return match look(value) {
                    Look::Placeholder => None,
                    Look::Test if confidence == Confidence::High => Some((from..run.end, Confidence::Medium)),
                    Look::Test | Look::Real => Some((from..run.end, confidence)),
                };
            }
        }
        if at == from {
            let word = bytes.get(at..limit)?.iter().take_while(|b| b.is_ascii_alphanumeric()).count();
            words += 1;
            if word == 0 || word > 20 || words > 4 {
                return None;
            }
            open |= open_word(bytes, at);
            let skipped = bytes.get(at..at + word)?;
            let noun = NOUNS.iter().any(|noun| {
                let tail = skipped.len().checked_sub(noun.len()).and_then(|from| skipped.get(from..));
                noun.len() > 4 && tail.is_some_and(|tail| tail.eq_ignore_ascii_case(noun.as_bytes()))
            });
            keyed |= noun;
            open &= !noun;
            direct = false;
            at += word;
        }
    }
    None
}

/// Whether the letter at `end` belongs to the word that ends there.
fn goes_on(bytes: &[u8], end: usize, next: u8) -> bool {
    let last = end.checked_sub(1).and_then(|i| bytes.get(i)).copied().unwrap_or_default();
    next.is_ascii_lowercase() || (next.is_ascii_uppercase() && last.is_ascii_uppercase())
}

/// Whether the byte before `start` makes this the end of a longer word.
fn continues_word(bytes: &[u8], start: usize) -> bool {
    let Some(before) = start.checked_sub(1).and_then(|i| bytes.get(i)) else { return false };
    let first = bytes.get(start).copied().unwrap_or_default();
    before.is_ascii_alphabetic()
        && !(before.is_ascii_lowercase() && first.is_ascii_uppercase())
        && super::in_word(bytes, start)
}

/// Past separators, quotes and their escapes.
fn skip_separators(bytes: &[u8], mut at: usize, limit: usize) -> usize {
    while at < limit {
        match bytes.get(at) {
            Some(b'\\') => {
                at += 1;
                match bytes.get(at) {
                    Some(b'n' | b'r' | b't') => at += 1,
                    Some(b'u') => at += 5,
                    _ => {}
                }
            }
            Some(byte) if separator(*byte) => at += 1,
            _ => break,
        }
    }
    at
}

fn separator(byte: u8) -> bool {
    matches!(
        byte,
        b' ' | b'\t'
            | b'\r'
            | b'\n'
            | b'_'
            | b'-'
            | b'.'
            | b':'
            | b'='
            | b'>'
            | b'"'
            | b'\''
            | b'`'
            | b','
            | b'('
            | b'|'
            | b'['
            | b'{'
            | b')'
            | b']'
            | b'\\'
    )
}

/// Length of a usual word at `at`, and whether it makes a value secret.
fn known_word(bytes: &[u8], at: usize) -> Option<(usize, bool)> {
    let here = bytes.get(at..bytes.len().min(at + 16))?;
    let first = here.first()?.to_ascii_lowercase();
    let is = |word: &&&str| {
        word.as_bytes().first() == Some(&first)
            && here.get(..word.len()).is_some_and(|h| h.eq_ignore_ascii_case(word.as_bytes()))
    };
    if let Some(noun) = NOUNS.iter().find(is) {
        return Some((noun.len(), true));
    }
    FILLERS.iter().find(is).map(|filler| (filler.len(), false))
}

/// Whether a word that makes the value public stands at `at`, whole.
fn open_word(bytes: &[u8], at: usize) -> bool {
    let Some(here) = bytes.get(at..bytes.len().min(at + 16)) else { return false };
    let length = here.iter().take_while(|b| b.is_ascii_alphabetic()).count();
    let word = here.get(..length).unwrap_or_default();
    !word.is_empty() && OPEN.iter().any(|open| open.as_bytes().eq_ignore_ascii_case(word))
}

/// The run of characters of tokens from `at`.
fn run(bytes: &[u8], at: usize) -> Range<usize> {
    let window = bytes.get(at..bytes.len().min(at + VALUE)).unwrap_or_default();
    let mut length = window
        .iter()
        .take_while(|b| {
            b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+' | b'/' | b'.' | b'~' | b':' | b'|' | b'%')
        })
        .count();
    // A sentence's dot or an assignment's colon is not part of a token.
    while length > 0 && window.get(length - 1).is_some_and(|b| matches!(b, b'.' | b':' | b'-' | b'|')) {
        length -= 1;
    }
    length += window.get(length..).unwrap_or_default().iter().take(3).take_while(|b| **b == b'=').count();
    at..at + length
}

/// The value assigned to the identifier around a word like `secret` at `start..end`.
pub(super) fn assignment(bytes: &[u8], start: usize, end: usize) -> Option<(Range<usize>, &'static str, Confidence)> {
    let part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let left = bytes.get(start.saturating_sub(IDENTIFIER)..start)?.iter().rev().take_while(|b| part(b)).count();
    let right = bytes.get(end..bytes.len().min(end + IDENTIFIER))?.iter().take_while(|b| part(b)).count();
    let identifier = bytes.get(start - left..end + right)?;
    let flag = identifier.starts_with(b"--");
    let span = assigned(bytes, end + right, flag)?;
    let value = bytes.get(span.clone())?;
    let (kind, sure) = secret_identifier(identifier)?;
    if joined_words(value) && kind != "generic-password" {
        return None;
    }
    if value.iter().any(|b| matches!(b, b'$' | b'{' | b'<' | b'(')) && form(value) < Form::Hex {
        return None;
    }
    let confidence = match (form(value), kind) {
        (Form::Random, _) if sure && value.len() >= 20 => Confidence::Medium,
        (Form::Random | Form::Hex, _) => Confidence::Low,
        (Form::Uuid, _) if sure => Confidence::Low,
        (Form::Thin | Form::Words | Form::Uuid, "generic-password") if password(value) => Confidence::Low,
        _ => return None,
    };
    match look(value) {
        Look::Real => Some((span, kind, confidence)),
        Look::Test if confidence > Confidence::Low => Some((span, kind, Confidence::Low)),
        Look::Test | Look::Placeholder => None,
    }
}

/// Whether a person could have chosen this as a password: more than a word of a language or of code.
fn password(value: &[u8]) -> bool {
    let digit = value.iter().any(u8::is_ascii_digit);
    let sign = value.iter().any(|b| b.is_ascii_punctuation() && !matches!(b, b'_' | b'.' | b'-' | b'/' | b',' | b':'));
    let letter = value.iter().any(u8::is_ascii_alphabetic);
    let code = value.iter().any(|b| matches!(b, b'(' | b')' | b'<' | b'>' | b'{' | b'}' | b'[' | b']' | b'\\' | b';'));
    value.len() >= 7
        && letter
        && !code
        && (digit && (sign || !joined_words(value)) || (sign && value.len() >= 8))
        && !value.starts_with(b"/")
        && !value.starts_with(b"--")
}

/// What an identifier says its value is, and whether it says so surely. `None`: nothing secret.
fn secret_identifier(identifier: &[u8]) -> Option<(&'static str, bool)> {
    let words = words(identifier);
    let has = |list: &[&str]| words.iter().any(|w| list.contains(&w.as_str()));
    if has(&[
        "public",
        "pub",
        "csrf",
        "xsrf",
        "primary",
        "foreign",
        "sort",
        "partition",
        "cache",
        "index",
        "keyboard",
        "unique",
        "column",
        "row",
        "audience",
        "length",
        "size",
        "count",
        "min",
        "max",
        "hash",
        "name",
        "path",
        "file",
        "url",
        "uri",
        "type",
        "format",
        "version",
        "event",
        "press",
        "pressed",
        "frame",
        "publishable",
        "anon",
        "antiforgery",
        "verification",
        "next",
        "page",
        "pagination",
        "continuation",
        "sync",
        "cursor",
        "idempotency",
        "object",
        "schema",
        "dedup",
        "group",
        "translation",
        "i18n",
        "sha",
        "checksum",
        "id",
        "ids",
        "accessor",
    ]) {
        return None;
    }
    let last = words.iter().rev().find(|w| {
        !["value", "string", "str", "var", "prod", "dev", "live", "env", "base64", "b64", "default", "main", "1", "2"]
            .contains(&w.as_str())
    })?;
    match last.as_str() {
        "password" | "passwd" | "pwd" | "passphrase" | "passwort" => Some(("generic-password", true)),
        "secret" | "secrets" | "apikey" | "secretkey" | "accesskey" | "clientsecret" | "authtoken" | "accesstoken" => {
            Some(("generic-secret", true))
        }
        "token" | "pat" | "jwt" => {
            Some(("generic-token", has(&["access", "auth", "api", "bearer", "refresh", "bot", "personal", "secret"])))
        }
        "key" | "keys" => {
            let qualified = has(&[
                "api",
                "secret",
                "private",
                "access",
                "auth",
                "encryption",
                "signing",
                "master",
                "license",
                "account",
                "storage",
                "shared",
                "deploy",
                "webhook",
                "service",
                "subscription",
                "app",
                "application",
                "server",
            ]);
            let named = words.len() >= 2 && words.iter().all(|w| w.len() >= 2);
            match (qualified, named) {
                (true, _) => Some(("generic-key", has(&["api", "secret", "private", "access"]))),
                (false, true) => Some(("generic-key", false)),
                (false, false) => None,
            }
        }
        "credential" | "credentials" | "auth" | "pass" => Some(("generic-secret", false)),
        _ => None,
    }
}

/// The words of an identifier in small letters: at most 12.
fn words(identifier: &[u8]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut before = 0_u8;
    let mut bytes = identifier.iter().peekable();
    while let Some(&byte) = bytes.next() {
        let next_small = bytes.peek().is_some_and(|b| b.is_ascii_lowercase());
        let border = byte.is_ascii_uppercase()
            && (before.is_ascii_lowercase() || before.is_ascii_digit() || (before.is_ascii_uppercase() && next_small));
        if (border || !byte.is_ascii_alphanumeric()) && !word.is_empty() {
            out.push(std::mem::take(&mut word));
        }
        if byte.is_ascii_alphanumeric() {
            word.push(char::from(byte.to_ascii_lowercase()));
        }
        before = byte;
    }
    if !word.is_empty() {
        out.push(word);
    }
    out.truncate(12);
    out
}

/// The value behind an identifier that ends at `at`: past quotes, a type, and a sign of assignment.
fn assigned(bytes: &[u8], mut at: usize, flag: bool) -> Option<Range<usize>> {
    let limit = bytes.len().min(at + 40);
    let (mut sign, mut quote) = (flag, None);
    while at < limit {
        match bytes.get(at)? {
            b' ' | b'\t' => at += 1,
            b'\\' if matches!(bytes.get(at + 1), Some(b'"' | b'\'' | b'\\' | b'/')) => at += 1,
            b'=' | b':' | b'>' => {
                sign = true;
                quote = None;
                at += 1;
            }
            b'(' | b',' if quote.is_some() || bytes.get(at) == Some(&b',') => {
                sign = true;
                quote = None;
                at += 1;
            }
            byte @ (b'"' | b'\'' | b'`') => {
                quote = Some(*byte);
                at += 1;
                if sign {
                    break;
                }
            }
            b']' | b')' | b'?' | b'!' | b'@' if !sign => at += 1,
            _ => break,
        }
    }
    // XML and .NET configuration: `key="Password" value="…"`.
    if let Some(rest) = bytes.get(at..bytes.len().min(at + 7))
        && rest.eq_ignore_ascii_case(b"value=\"")
    {
        (at, sign, quote) = (at + 7, true, Some(b'"'));
    }
    if !sign {
        return None;
    }
    let window = bytes.get(at..bytes.len().min(at + VALUE))?;
    let length = match quote {
        Some(quote) => {
            let end = window.iter().position(|b| *b == quote || *b == b'\n')?;
            let mut end = if window.get(end) == Some(&quote) { end } else { return None };
            while end > 0 && window.get(end - 1) == Some(&b'\\') {
                end -= 1;
            }
            if window.get(..end)?.contains(&b' ') {
                return None;
            }
            end
        }
        None => {
            let stop = |b: &u8| {
                b.is_ascii_whitespace()
                    || matches!(b, b',' | b';' | b'"' | b'\'' | b'`' | b'<' | b'&' | b')' | b']' | b'}' | b'\\')
            };
            let end = window.iter().position(stop).unwrap_or(window.len());
            // A call, an index or a template is code.
            let value = window.get(..end)?;
            if value.iter().any(|b| matches!(b, b'(' | b'[' | b'{' | b'$')) {
                return None;
            }
            end
        }
    };
    (length >= 6).then_some(at..at + length)
}
