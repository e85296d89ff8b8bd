//! How words are spelled: where quotes, substitutions and brackets end, escapes, lists in braces.
//!
//! Nothing here recurses: the text is hostile.

use crate::bounds;

/// Whether a word is spelled with quotes inside a run of letters, which hides it from a reader: `r''m`, `w\ho`.
pub(crate) fn is_disguised(raw: &str) -> bool {
    if raw.starts_with("$'") {
        return raw.contains("\\x") || raw.contains("\\u") || raw.contains("\\0") || raw.contains("\\1");
    }
    let plain = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphabetic());
    let chars: Vec<char> = raw.chars().take(256).collect();
    let mut index = 1;
    while index + 1 < chars.len() {
        let (before, here) = (chars.get(index - 1).copied(), chars.get(index).copied());
        if plain(before) {
            let after = chars.get(index + 1).copied();
            let second = chars.get(index + 2).copied();
            match here {
                Some('\\') if plain(after) => return true,
                Some(q @ ('\'' | '"')) if after == Some(q) && plain(second) => return true,
                Some(q @ ('\'' | '"')) if plain(after) && second == Some(q) => return true,
                _ => {}
            }
        }
        index += 1;
    }
    false
}

/// Index of the quote that ends a double-quoted text; its length if there is none.
pub(crate) fn double_quote_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&b) = bytes.get(at) {
        match b {
            b'\\' => at += 1,
            b'"' => return at,
            b'`' => at += 1 + backtick_end(text.get(at + 1..).unwrap_or_default()),
            b'$' if bytes.get(at + 1) == Some(&b'(') => at += 2 + paren_end(text.get(at + 2..).unwrap_or_default()),
            b'$' if bytes.get(at + 1) == Some(&b'{') => at += 2 + brace_end(text.get(at + 2..).unwrap_or_default()),
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Index of the backtick that ends a substitution; its length if there is none.
pub(crate) fn backtick_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&b) = bytes.get(at) {
        match b {
            b'\\' => at += 1,
            b'`' => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Index of the bracket that ends `$(…`; its length if there is none. Quotes, comments and nested brackets count.
pub(crate) fn paren_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0usize);
    while let Some(&b) = bytes.get(at) {
        match b {
            b'\\' => at += 1,
            b'\'' => at += 1 + text.get(at + 1..).and_then(|rest| rest.find('\'')).unwrap_or(bytes.len()),
            b'"' => at += 1 + flat_quote_end(bytes.get(at + 1..).unwrap_or_default()),
            b'#' if at == 0 || bytes.get(at - 1).is_some_and(|b| b" \t\n;(".contains(b)) => {
                at += text.get(at..).and_then(|rest| rest.find('\n')).unwrap_or(bytes.len());
            }
            b'(' => depth += 1,
            b')' if depth == 0 => return at,
            b')' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Index of the quote that ends a double-quoted text inside a substitution, with substitutions in it skipped, without
/// recursion.
fn flat_quote_end(bytes: &[u8]) -> usize {
    let (mut at, mut depth, mut inner_quote) = (0, 0usize, false);
    while let Some(&b) = bytes.get(at) {
        match b {
            b'\\' => at += 1,
            b'$' if bytes.get(at + 1) == Some(&b'(') => {
                depth += 1;
                at += 1;
            }
            b')' if depth > 0 && !inner_quote => depth -= 1,
            b'"' if depth == 0 => return at,
            b'"' => inner_quote = !inner_quote,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Index of the bracket that ends `${…`; its length if there is none.
pub(crate) fn brace_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0usize);
    while let Some(&b) = bytes.get(at) {
        match b {
            b'\\' => at += 1,
            b'\'' => {
                if let Some(end) = text.get(at + 1..).and_then(|rest| rest.find('\'')) {
                    at += 1 + end;
                }
            }
            b'{' => depth += 1,
            b'}' if depth == 0 => return at,
            b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// The index after `((…))` when `text` begins with one.
pub(crate) fn arithmetic_end(text: &str) -> Option<usize> {
    let inner = 1 + paren_end(text.get(1..)?);
    (text.as_bytes().get(1) == Some(&b'(') && text.as_bytes().get(inner - 1) == Some(&b')'))
        .then_some(inner + 1)
        .filter(|&end| end <= text.len())
}

/// The command inside backticks, one level of escapes taken off.
pub(crate) fn unescape_backticks(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\\' && chars.peek().is_some_and(|next| matches!(next, '`' | '\\' | '$')) {
            out.extend(chars.next());
        } else {
            out.push(c);
        }
    }
    out
}

/// Index of the quote that ends `$'…`; its length if there is none.
pub(crate) fn ansi_c_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&b) = bytes.get(at) {
        match b {
            b'\\' => at += 1,
            b'\'' => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Carries out the escapes of `$'…'`, `echo -e` and `printf`.
pub(crate) fn ansi_c(text: &str) -> String {
    let mut out: Vec<u8> = Vec::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let Some(kind) = chars.next() else {
            out.push(b'\\');
            break;
        };
        let mut digits = |radix: u32, most: usize, first: u32| {
            let mut value = first;
            for _ in 0..most {
                let Some(digit) = chars.peek().and_then(|c| c.to_digit(radix)) else { break };
                value = value.wrapping_mul(radix).wrapping_add(digit);
                chars.next();
            }
            value
        };
        match kind {
            'n' => out.push(b'\n'),
            't' => out.push(b'\t'),
            'r' => out.push(b'\r'),
            'a' => out.push(7),
            'b' => out.push(8),
            'e' | 'E' => out.push(27),
            'f' => out.push(12),
            'v' => out.push(11),
            'x' => out.push(u8::try_from(digits(16, 2, 0)).unwrap_or(b'?')),
            'u' | 'U' => {
                let value = digits(16, if kind == 'u' { 4 } else { 8 }, 0);
                let c = char::from_u32(value).unwrap_or('\u{fffd}');
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            '0' => out.push(u8::try_from(digits(8, 3, 0) & 0xff).unwrap_or(b'?')),
            '1'..='7' => out.push(u8::try_from(digits(8, 2, kind.to_digit(8).unwrap_or(0)) & 0xff).unwrap_or(b'?')),
            c => {
                if !matches!(c, '\\' | '\'' | '"' | '?') {
                    out.push(b'\\');
                }
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The words that a word's braces become, at most [`bounds::BRACES`]; a word without a list in braces stays itself.
pub(crate) fn braces(raw: &str) -> Vec<String> {
    let mut done = Vec::new();
    let mut todo = vec![raw.to_owned()];
    while let Some(word) = todo.pop() {
        match brace_list(&word) {
            Some((before, options, after)) if done.len() + todo.len() + options.len() <= bounds::BRACES => {
                for option in options.iter().rev() {
                    todo.push(format!("{before}{option}{after}"));
                }
            }
            _ => done.push(word),
        }
    }
    done
}

/// The first `{a,b}` outside quotes and expansions: what stands before, the options, what stands after.
fn brace_list(word: &str) -> Option<(&str, Vec<&str>, &str)> {
    let bytes = word.as_bytes();
    let mut at = 0;
    while let Some(&b) = bytes.get(at) {
        match b {
            b'\\' => at += 1,
            b'\'' => at += 1 + word.get(at + 1..)?.find('\'')?,
            b'"' => at += 1 + double_quote_end(word.get(at + 1..)?),
            b'`' => at += 1 + backtick_end(word.get(at + 1..)?),
            b'$' if bytes.get(at + 1) == Some(&b'(') => at += 2 + paren_end(word.get(at + 2..)?),
            b'$' if bytes.get(at + 1) == Some(&b'{') => at += 2 + brace_end(word.get(at + 2..)?),
            b'{' => {
                let body = word.get(at + 1..)?;
                let end = brace_end(body);
                let inner = body.get(..end)?;
                let after = body.get(end + 1..)?;
                let options = top_level_commas(inner);
                if options.len() > 1 {
                    return Some((word.get(..at)?, options, after));
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

fn top_level_commas(inner: &str) -> Vec<&str> {
    let (mut out, mut depth, mut from) = (Vec::new(), 0usize, 0);
    for (at, b) in inner.bytes().enumerate() {
        match b {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                out.extend(inner.get(from..at));
                from = at + 1;
            }
            _ => {}
        }
    }
    out.extend(inner.get(from..));
    out
}
