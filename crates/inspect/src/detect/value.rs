//! Turns the bytes of a candidate into what they look like: random, a test value, a placeholder, or ordinary words.
//!
//! It knows no provider. What a newcomer gets wrong: entropy alone does not tell a secret from an identifier; how
//! often the kind of character changes does.

/// Words that stand in values which somebody is meant to replace; lower case, matched anywhere in the value.
const PLACEHOLDER_WORDS: &[&str] = &[
    "example",
    "changeme",
    "change_me",
    "change-me",
    "placeholder",
    "redacted",
    "dummy",
    "replace",
    "yourkey",
    "yourtoken",
    "yoursecret",
    "yourpass",
    "yourapi",
    "your_",
    "your-",
    "your.",
    "my_secret",
    "mysecret",
    "mypass",
    "insert",
    "xxxx",
    "goes_here",
    "goes-here",
    "-here",
    "_here",
    "tokenhere",
    "keyhere",
    "to_be_",
    "sample",
    "not_a_real",
    "notareal",
    "sanitized",
    "hidden",
    "masked",
    "undefined",
    "foobar",
    "secret_key",
    "api_key",
    "apikey",
    "access_token",
    "todo",
    "removed",
    "my-secret",
    "supersecret",
    "password",
    "p4ssw0rd_ex",
];

/// Values that documents of providers use as their public samples; lower case, matched anywhere.
const DOCUMENTED: &[&str] = &[
    "akiaiosfodnn7",
    "wjalrxutnfemi",
    "4ec39hqlyjwdarjtt1zdp7dc",
    "123e4567-e89b-12d3",
    "eyjzdwiioiixmjm0nty3odkwiiwibmftzsi6ikpvag4grg9l",
    "00000000-0000-0000",
    "tdldhy3htdl",
    "bqokikjouiomycn",
];

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Somebody is meant to put the real one here.
    Placeholder,
    /// A sequence, keyboard row or documented sample: probably not in use.
    Test,
    /// Nothing speaks against it.
    Real,
}

/// Judges at most the first 512 bytes.
pub(super) fn look(value: &[u8]) -> Look {
    let value = value.get(..512.min(value.len())).unwrap_or_default();
    let lower: Vec<u8> = value.iter().map(u8::to_ascii_lowercase).collect();
    let has = |word: &&str| contains(&lower, word.as_bytes());
    let mut run = 1_usize;
    let mut longest_mask = 0_usize;
    let mut longest = 0_usize;
    for pair in lower.windows(2) {
        let [a, b] = pair else { continue };
        run = if a == b { run + 1 } else { 1 };
        longest = longest.max(run);
        if matches!(b, b'x' | b'*' | b'.' | b'#' | b'?' | b'-' | b'_') {
            longest_mask = longest_mask.max(run);
        }
    }
    let distinct = distinct(&lower);
    let masked = longest_mask >= 4 || longest >= 10 || longest * 2 > lower.len().max(8);
    if masked || (distinct <= 3 && lower.len() >= 8) || PLACEHOLDER_WORDS.iter().any(&has) {
        return Look::Placeholder;
    }
    if matches!(value, [b'<', ..] | [b'$', b'{' | b'(', ..] | [b'{', ..] | [b'[', ..] | [b'%', b'{' | b'(', ..]) {
        return Look::Placeholder;
    }
    if DOCUMENTED.iter().any(has) || sequence(&lower) { Look::Test } else { Look::Real }
}

/// Whether most neighbours, or most at a distance of two, are next to each other in the alphabet or the same.
fn sequence(lower: &[u8]) -> bool {
    let steps = |lag: usize| {
        let pairs = lower.iter().zip(lower.iter().skip(lag));
        let near = pairs.filter(|(a, b)| a.is_ascii_alphanumeric() && a.abs_diff(**b) <= 1).count();
        near * 10 >= lower.len().saturating_sub(lag) * 6
    };
    lower.len() >= 8 && (steps(1) || steps(2))
}

/// How many different bytes.
pub(super) fn distinct(bytes: &[u8]) -> usize {
    let mut seen = [false; 256];
    for &byte in bytes {
        if let Some(slot) = seen.get_mut(usize::from(byte)) {
            *slot = true;
        }
    }
    seen.iter().filter(|s| **s).count()
}

/// Shannon entropy in bits per byte.
#[expect(clippy::cast_precision_loss, reason = "values are short")]
pub(super) fn entropy(bytes: &[u8]) -> f32 {
    let mut counts = [0_u32; 256];
    for &byte in bytes {
        if let Some(count) = counts.get_mut(usize::from(byte)) {
            *count += 1;
        }
    }
    let all = bytes.len() as f32;
    counts.iter().filter(|c| **c > 0).map(|&c| c as f32 / all).map(|p| -p * p.log2()).sum()
}

/// The form of a value that may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    /// Words, an identifier, a path, a version: no secret.
    Words,
    /// Only digits, or short: a secret where the words around say so.
    Thin,
    /// A UUID: an identifier as often as a secret.
    Uuid,
    /// Hexadecimal of 16 digits or more: a digest as often as a secret.
    Hex,
    /// Random characters.
    Random,
}

/// Judges what kind of value this is.
pub(super) fn form(value: &[u8]) -> Form {
    let (mut digits, mut letters, mut others) = (0_usize, 0_usize, 0_usize);
    let mut hex = true;
    let mut chunks = 0_usize;
    let mut before = 0_u8;
    for &byte in value {
        let class = match byte {
            b'0'..=b'9' => 1,
            b'a'..=b'z' => 2,
            b'A'..=b'Z' => 3,
            _ => 4,
        };
        match class {
            1 => digits += 1,
            4 => others += 1,
            _ => letters += 1,
        }
        hex &= byte.is_ascii_hexdigit();
        // A capital before small letters belongs to their word.
        if class != before && !(before == 3 && class == 2) {
            chunks += 1;
        }
        before = class;
    }
    if is_uuid(value) {
        return Form::Uuid;
    }
    let length = value.len();
    if length < 10 || letters == 0 {
        return if length >= 12 && digits >= 10 { Form::Thin } else { Form::Words };
    }
    if hex && length >= 14 && digits >= 2 {
        return Form::Hex;
    }
    let random = chunks * 10 >= length * 3 || (sequence(&value.to_ascii_lowercase()) && digits + others > 0);
    let enough = distinct(value) >= if length >= 16 { 9 } else { 7 } && entropy(value) >= 2.8;
    let has_variety =
        digits >= 2 || (digits + others >= 1 && length >= 24) || (letters >= 20 && chunks * 10 >= length * 4);
    if random && enough && has_variety && others * 3 <= length {
        return if length >= 16 { Form::Random } else { Form::Thin };
    }
    // One long run of one case, or with digits: no word of a language, but nothing that is random by itself.
    let joints = value.iter().filter(|b| matches!(b, b'-' | b'_' | b'.' | b':' | b'|' | b'%')).count();
    let one_case = !value.iter().any(u8::is_ascii_lowercase) || !value.iter().any(u8::is_ascii_uppercase);
    let solid = joints == 0 && distinct(value) >= 6 && ((digits >= 2 && length >= 16) || (one_case && length >= 20));
    if solid || (length >= 20 && others == 0 && sequence(&value.to_ascii_lowercase())) {
        Form::Thin
    } else {
        Form::Words
    }
}

fn is_uuid(value: &[u8]) -> bool {
    value.len() == 36
        && value
            .iter()
            .enumerate()
            .all(|(i, b)| if matches!(i, 8 | 13 | 18 | 23) { *b == b'-' } else { b.is_ascii_alphanumeric() })
}

/// Whether the value is ordinary words, paths or versions joined by `-`, `_`, `.`, `/` or `:`.
pub(super) fn joined_words(value: &[u8]) -> bool {
    let mut longest = 0;
    let (mut parts, mut plain) = (0_usize, 0_usize);
    for part in value.split(|b| matches!(b, b'-' | b'_' | b'.' | b'/' | b':' | b'=')) {
        if part.is_empty() {
            continue;
        }
        parts += 1;
        let digits = part.iter().filter(|b| b.is_ascii_digit()).count();
        let letters = part.len() - digits;
        let word = letters == 0 || digits == 0 || (digits <= 2 && letters >= 2 && part.len() <= 8);
        plain += usize::from(word);
        longest = longest.max(if word { 0 } else { part.len() });
    }
    let url = contains(value, b"://") || contains(value, b"//");
    url || (parts >= 2 && plain == parts) || (parts >= 3 && longest < 8 && plain * 2 > parts)
}

/// Whether `needle` stands in `bytes`, not in the middle of a word.
pub(super) fn begins_word(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len().max(1)).enumerate().any(|(at, window)| window == needle && !super::in_word(bytes, at))
}

/// Whether `needle` stands in `bytes`.
pub(super) fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && bytes.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_and_sequences_are_told_from_random_values() {
        for value in ["xxxxxxxxxxxx", "<your-key>", "YOUR_API_KEY", "AKIAIOSFODNN7EXAMPLE", "aaaaaaaaaaaaa", "${TOKEN}"]
        {
            assert_eq!(look(value.as_bytes()), Look::Placeholder, "{value}");
        }
        for value in ["1234567890abcdef1234567890abcdef", "abcdefghijklmnop", "a1b2c3d4e5f6a7b8"] {
            assert_eq!(look(value.as_bytes()), Look::Test, "{value}");
        }
        for value in ["q7Zt0LmX2vB9nR4kW8sY", "9f0c6e1b7a2d48539f8e0b1c6d7a4e52"] {
            assert_eq!(look(value.as_bytes()), Look::Real, "{value}");
        }
    }

    #[test]
    fn identifiers_are_words_and_tokens_are_random() {
        let forms = [
            ("getUserAccessTokenFromHeader", Form::Words),
            ("SecretsManagerClientBuilder", Form::Words),
            ("q7Zt0LmX2vB9nR4kW8sY", Form::Random),
            ("9f0c6e1b7a2d48539f8e0b1c6d7a4e52", Form::Hex),
            ("3fa85f64-5717-4562-b3fc-2c963f66afa6", Form::Uuid),
            ("12345678901234567890", Form::Thin),
        ];
        for (value, expected) in forms {
            assert_eq!(form(value.as_bytes()), expected, "{value}");
        }
    }

    #[test]
    fn versions_and_paths_are_joined_words() {
        for value in ["jjwt-jackson-0.11.2", "prod5-key", "src/auth/token.rs", "rc0.15.0_20231217_1420"] {
            assert!(joined_words(value.as_bytes()), "{value}");
        }
        assert!(!joined_words(b"q7Zt0LmX2v-B9nR4kW8sYe3Hd"));
    }
}
