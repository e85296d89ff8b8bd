//! What stands in a stream between commands: its text where known, and where it came from.

use base64::Engine as _;

/// What is known of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Its exact text.
    pub(crate) text: Option<String>,
    /// The text is an example of its shape, not exact.
    pub(crate) loose: bool,
    /// It came over the network.
    pub(crate) downloaded: bool,
    /// It holds credentials.
    pub(crate) secret: bool,
    /// It holds content of local files.
    pub(crate) file: bool,
    /// It went through a decoder or decryptor.
    pub(crate) decoded: bool,
    /// It is made by a program whose output is not known.
    pub(crate) produced: bool,
}

impl Flow {
    /// A stream of exactly this text.
    pub(crate) fn known(text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), ..Self::default() }
    }

    /// Adds where another stream came from; the text is no longer known.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.downloaded |= other.downloaded;
        self.secret |= other.secret;
        self.file |= other.file;
        self.decoded |= other.decoded;
        self.produced |= other.produced;
    }

    /// The same provenance with another text.
    pub(crate) fn with_text(&self, text: Option<String>) -> Self {
        Self { text, ..self.clone() }
    }
}

/// Decodes standard or URL-safe base64, white space ignored, padding optional. `None` when it is not base64 of text.
pub(crate) fn base64(text: &str) -> Option<String> {
    let compact: String = text
        .chars()
        .filter(|c| !c.is_whitespace() && *c != '=')
        .map(|c| match c {
            '-' => '+',
            '_' => '/',
            c => c,
        })
        .collect();
    let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(compact).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Encodes text as base64 does.
pub(crate) fn to_base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text) + "\n"
}

/// Encodes text as hexadecimal digits.
pub(crate) fn to_hex(text: &str) -> String {
    text.bytes().map(|b| format!("{b:02x}")).collect::<String>() + "\n"
}

/// Decodes base32 of text, white space and padding ignored.
pub(crate) fn base32(text: &str) -> Option<String> {
    let (mut bits, mut held, mut bytes) = (0u32, 0u32, Vec::new());
    for c in text.chars().filter(|c| !c.is_whitespace() && *c != '=') {
        let value = match c {
            'A'..='Z' => u32::from(c) - u32::from('A'),
            '2'..='7' => u32::from(c) - u32::from('2') + 26,
            _ => return None,
        };
        bits = (bits << 5 | value) & 0xffff;
        held += 5;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).unwrap_or_default());
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Decodes base64 of UTF-16 little-endian text, as PowerShell's encoded commands are.
pub(crate) fn base64_utf16(text: &str) -> Option<String> {
    let compact: String = text.chars().filter(|c| !c.is_whitespace() && *c != '=').collect();
    let bytes = base64::engine::general_purpose::STANDARD_NO_PAD.decode(compact).ok()?;
    let units: Vec<u16> =
        bytes.chunks_exact(2).filter_map(|pair| Some(u16::from_le_bytes([*pair.first()?, *pair.get(1)?]))).collect();
    Some(String::from_utf16_lossy(&units))
}

/// Decodes hexadecimal digits; anything else is skipped.
pub(crate) fn hex(text: &str) -> Option<String> {
    let cleaned = text.replace("\\x", "").replace("0x", "");
    let digits: Vec<u8> = cleaned.chars().filter_map(|c| c.to_digit(16)).filter_map(|d| u8::try_from(d).ok()).collect();
    let bytes: Vec<u8> = digits.chunks_exact(2).filter_map(|pair| Some(pair.first()? << 4 | pair.get(1)?)).collect();
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// `tr FROM TO` on known text: single characters and ranges; `None` for anything else.
pub(crate) fn translate(text: &str, from: &str, to: &str) -> Option<String> {
    let (from, to) = (set(from)?, set(to)?);
    let last = to.last().copied()?;
    Some(
        text.chars()
            .map(|c| match from.iter().rposition(|&f| f == c) {
                Some(index) => to.get(index).copied().unwrap_or(last),
                None => c,
            })
            .collect(),
    )
}

/// The characters of a `tr` set, at most 1,024.
pub(crate) fn set(spec: &str) -> Option<Vec<char>> {
    let spec = match spec {
        "[:upper:]" => "A-Z",
        "[:lower:]" => "a-z",
        "[:space:]" => " \t\n\r",
        spec if spec.contains("[:") => return None,
        spec => spec,
    };
    let expanded = super::spelling::ansi_c(spec);
    let chars: Vec<char> = expanded.chars().collect();
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(&c) = chars.get(at) {
        match (chars.get(at + 1), chars.get(at + 2)) {
            (Some('-'), Some(&end)) if c <= end => {
                out.extend((c..=end).take(256));
                at += 3;
            }
            _ => {
                out.push(c);
                at += 1;
            }
        }
        if out.len() > 1024 {
            return None;
        }
    }
    Some(out)
}
