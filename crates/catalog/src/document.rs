//! The text of a configuration file → one tree of values, for every format that agents use.
//!
//! A small reader of our own for JSON with comments, trailing commas, bare keys and single quotes (JSON5), because
//! agents accept these and a strict reader would call a working file broken. It keeps what a strict reader hides:
//! duplicate keys are reported, since two readers may take different ones. Nothing is evaluated: `${…}` and `$(…)`
//! stay text. Bounds: nesting 64, values 200,000; beyond, the document is malformed.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

/// The largest configuration file that is read, in bytes.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
const DEPTH_MAX: usize = 64;
const VALUES_MAX: usize = 200_000;

/// How a configuration file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Plain JSON: a comment is malformed.
    Json,
    /// JSON with comments and trailing commas.
    Jsonc,
    /// JSON5: also bare keys, single quotes, hexadecimal numbers.
    Json5,
    /// TOML.
    Toml,
    /// Lines `NAME=value`.
    Env,
    /// Not read: its existence is what counts.
    Opaque,
}

/// A configuration file that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its values.
    pub root: Value,
    /// Keys that stand twice in one table, as dotted paths; the last value is kept.
    pub duplicates: Vec<String>,
}

/// Why a text was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Line, from 1; 0 where unknown.
    pub line: usize,
    /// What was expected or found; never content of the file beyond one character.
    pub message: String,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.line == 0 { f.write_str(&self.message) } else { write!(f, "line {}: {}", self.line, self.message) }
    }
}

impl Document {
    /// Reads a text. An empty text is an empty document.
    ///
    /// # Errors
    /// The first mistake, with its line.
    pub fn parse(format: Format, text: &str) -> Result<Self, Malformed> {
        if text.len() > FILE_BYTES_MAX {
            return Err(Malformed { line: 0, message: format!("larger than {FILE_BYTES_MAX} bytes") });
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match format {
            Format::Json | Format::Jsonc | Format::Json5 => Reader::new(format, text).document(),
            Format::Toml => from_toml(text),
            Format::Env => Ok(Self { root: Value::Object(from_env(text)), duplicates: Vec::new() }),
            Format::Opaque => Ok(Self { root: Value::Null, duplicates: Vec::new() }),
        }
    }

    /// Every value at a dotted key, with its full path; a part `*` stands for any one part. Dots within a quoted name
    /// do not part: the tree is walked, not the text.
    #[must_use]
    pub fn at(&self, key: &str) -> Vec<(String, &Value)> {
        at(&self.root, key)
    }
}

/// Every value at a dotted key below a value, with its path.
#[must_use]
pub fn at<'a>(root: &'a Value, key: &str) -> Vec<(String, &'a Value)> {
    // VS-Code-like settings put the whole dotted key into one name; both forms are looked at.
    let mut found = vec![(String::new(), root)];
    if let Some(value) = root.as_object().and_then(|object| object.get(key))
        && key.contains('.')
    {
        return vec![(key.to_owned(), value)];
    }
    for part in key.split('.') {
        let mut below = Vec::new();
        for (path, value) in found {
            let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            match (part, value) {
                ("*", Value::Object(object)) => below.extend(object.iter().map(|(name, value)| (join(name), value))),
                ("*", Value::Array(list)) => {
                    below.extend(list.iter().enumerate().map(|(index, value)| (join(&index.to_string()), value)));
                }
                (name, Value::Object(object)) => below.extend(object.get(name).map(|value| (join(name), value))),
                _ => {}
            }
        }
        below.truncate(10_000);
        found = below;
    }
    found
}

/// A simple value as text: `true`, `never`, `3`; `None` for tables, lists and null.
#[must_use]
pub fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

fn from_toml(text: &str) -> Result<Document, Malformed> {
    // The reader of TOML bounds its own recursion.
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line =
            error.span().map_or(0, |span| 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count());
        Malformed { line, message: error.message().lines().next().unwrap_or("not TOML").to_owned() }
    })?;
    let mut left = VALUES_MAX;
    let root = toml_value(toml::Value::Table(table), &mut left)?;
    Ok(Document { root, duplicates: Vec::new() })
}

fn toml_value(value: toml::Value, left: &mut usize) -> Result<Value, Malformed> {
    *left = left.checked_sub(1).ok_or_else(|| Malformed { line: 0, message: "too many values".to_owned() })?;
    Ok(match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::Number(number.into()),
        toml::Value::Float(number) => Number::from_f64(number).map_or(Value::Null, Value::Number),
        toml::Value::Boolean(flag) => Value::Bool(flag),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Array(list) => {
            Value::Array(list.into_iter().map(|value| toml_value(value, left)).collect::<Result<_, _>>()?)
        }
        toml::Value::Table(table) => {
            let mut object = Map::new();
            for (name, value) in table {
                object.insert(name, toml_value(value, left)?);
            }
            Value::Object(object)
        }
    })
}

fn from_env(text: &str) -> Map<String, Value> {
    let mut object = Map::new();
    for line in text.lines().take(10_000) {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        if line.starts_with('#') {
            continue;
        }
        if let Some((name, value)) = line.split_once('=') {
            let value = value.trim();
            let bare = [('"', '"'), ('\'', '\'')]
                .iter()
                .find_map(|(open, close)| value.strip_prefix(*open).and_then(|rest| rest.strip_suffix(*close)))
                .unwrap_or(value);
            object.insert(name.trim().to_owned(), Value::String(bare.to_owned()));
        }
    }
    object
}

/// Reads JSON and its friends, byte by byte. The text is valid UTF-8, and every byte looked for is ASCII, so that no
/// cut falls into a character.
struct Reader<'a> {
    format: Format,
    text: &'a str,
    at: usize,
    values: usize,
    duplicates: Vec<String>,
    path: Vec<String>,
}

impl<'a> Reader<'a> {
    const fn new(format: Format, text: &'a str) -> Self {
        Self { format, text, at: 0, values: 0, duplicates: Vec::new(), path: Vec::new() }
    }

    fn document(mut self) -> Result<Document, Malformed> {
        self.space()?;
        if self.peek().is_none() {
            return Ok(Document { root: Value::Object(Map::new()), duplicates: Vec::new() });
        }
        let root = self.value(0)?;
        self.space()?;
        if self.peek().is_some() {
            return Err(self.wrong("text after the end"));
        }
        Ok(Document { root, duplicates: self.duplicates })
    }

    fn value(&mut self, depth: usize) -> Result<Value, Malformed> {
        if depth > DEPTH_MAX {
            return Err(self.wrong("nested too deeply"));
        }
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(self.wrong("too many values"));
        }
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.list(depth),
            Some(b'"') => self.string(b'"').map(Value::String),
            Some(b'\'') if self.format == Format::Json5 => self.string(b'\'').map(Value::String),
            Some(_) => self.word(),
            None => Err(self.wrong("expected a value, found the end")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, Malformed> {
        self.at += 1;
        let mut object = Map::new();
        loop {
            self.space()?;
            if self.take(b'}') {
                return Ok(Value::Object(object));
            }
            let name = match self.peek() {
                Some(b'"') => self.string(b'"')?,
                Some(b'\'') if self.format == Format::Json5 => self.string(b'\'')?,
                Some(_) if self.format == Format::Json5 => {
                    let name =
                        self.run(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 128);
                    if name.is_empty() {
                        return Err(self.wrong("expected a key"));
                    }
                    name.to_owned()
                }
                _ => return Err(self.wrong("expected a key in quotes")),
            };
            self.space()?;
            if !self.take(b':') {
                return Err(self.wrong("expected `:`"));
            }
            self.space()?;
            self.path.push(name.clone());
            let value = self.value(depth + 1)?;
            if object.insert(name, value).is_some() && self.duplicates.len() < 64 {
                self.duplicates.push(self.path.join("."));
            }
            self.path.pop();
            self.space()?;
            if !self.comma(b'}')? {
                return Ok(Value::Object(object));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Malformed> {
        self.at += 1;
        let mut list = Vec::new();
        loop {
            self.space()?;
            if self.take(b']') {
                return Ok(Value::Array(list));
            }
            list.push(self.value(depth + 1)?);
            self.space()?;
            if !self.comma(b']')? {
                return Ok(Value::Array(list));
            }
        }
    }

    /// After an element: `true` where another may follow, `false` where the end was taken.
    fn comma(&mut self, end: u8) -> Result<bool, Malformed> {
        if self.take(end) {
            return Ok(false);
        }
        if !self.take(b',') {
            return Err(self.wrong("expected `,` or the end of the table or list"));
        }
        self.space()?;
        if self.format == Format::Json && self.peek() == Some(end) {
            return Err(self.wrong("a comma before the end"));
        }
        Ok(true)
    }

    fn string(&mut self, quote: u8) -> Result<String, Malformed> {
        self.at += 1;
        let mut out = String::new();
        loop {
            out.push_str(self.run(|byte| byte != quote && byte != b'\\' && byte != b'\n'));
            match self.next() {
                Some(byte) if byte == quote => return Ok(out),
                Some(b'\\') => self.escape(&mut out)?,
                _ => return Err(self.wrong("a text without its end")),
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), Malformed> {
        let found = match self.next() {
            Some(b'n') => '\n',
            Some(b't') => '\t',
            Some(b'r') => '\r',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'\'') if self.format == Format::Json5 => '\'',
            Some(b'\n') if self.format == Format::Json5 => return Ok(()),
            Some(b'u') => {
                let first = self.hex4()?;
                let code = if (0xd800..0xdc00).contains(&first) {
                    let second = if self.take(b'\\') && self.take(b'u') { self.hex4()? } else { 0 };
                    if !(0xdc00..0xe000).contains(&second) {
                        return Err(self.wrong("half a character"));
                    }
                    0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                } else {
                    first
                };
                char::from_u32(code).ok_or_else(|| self.wrong("half a character"))?
            }
            _ => return Err(self.wrong("an unknown escape")),
        };
        out.push(found);
        Ok(())
    }

    fn hex4(&mut self) -> Result<u32, Malformed> {
        let digits = self.text.get(self.at..self.at + 4).ok_or_else(|| self.wrong("an unknown escape"))?;
        let code = u32::from_str_radix(digits, 16).map_err(|_| self.wrong("an unknown escape"))?;
        self.at += 4;
        Ok(code)
    }

    /// `true`, `false`, `null` and numbers.
    fn word(&mut self) -> Result<Value, Malformed> {
        let word = self.run(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
        match word {
            "true" => return Ok(Value::Bool(true)),
            "false" => return Ok(Value::Bool(false)),
            "null" => return Ok(Value::Null),
            _ => {}
        }
        if self.format == Format::Json5 {
            if let Some(digits) = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"))
                && let Ok(number) = i64::from_str_radix(digits, 16)
            {
                return Ok(Value::Number(number.into()));
            }
            if matches!(word, "Infinity" | "+Infinity" | "-Infinity" | "NaN") {
                return Ok(Value::Null);
            }
        }
        if let Ok(number) = word.parse::<i64>() {
            return Ok(Value::Number(number.into()));
        }
        if word.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '-' | '+' | '.'))
            && let Some(number) = word.parse().ok().and_then(Number::from_f64)
        {
            return Ok(Value::Number(number));
        }
        Err(self.wrong("expected a value"))
    }

    /// Skips white space and, where the format has them, comments.
    fn space(&mut self) -> Result<(), Malformed> {
        loop {
            self.run(|byte| byte.is_ascii_whitespace());
            let rest = self.text.get(self.at..).unwrap_or("");
            if self.format == Format::Json || !rest.starts_with('/') {
                return Ok(());
            }
            if rest.starts_with("//") {
                self.run(|byte| byte != b'\n');
            } else if rest.starts_with("/*") {
                let end = rest.find("*/").ok_or_else(|| self.wrong("a comment without its end"))?;
                self.at += end + 2;
            } else {
                return Ok(());
            }
        }
    }

    fn run(&mut self, wanted: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.text.get(self.at..).unwrap_or("");
        let end = rest.bytes().position(|byte| !wanted(byte)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or("")
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn take(&mut self, byte: u8) -> bool {
        let here = self.peek() == Some(byte);
        self.at += usize::from(here);
        here
    }

    fn wrong(&self, message: &str) -> Malformed {
        let before = self.text.as_bytes().get(..self.at.min(self.text.len())).unwrap_or_default();
        Malformed { line: 1 + before.iter().filter(|byte| **byte == b'\n').count(), message: message.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(format: Format, text: &str, expected: Value) {
        assert_eq!(Document::parse(format, text).map(|document| document.root), Ok(expected), "{text}");
    }

    fn refuse(format: Format, text: &str, line: usize) {
        let found = Document::parse(format, text);
        assert_eq!(found.as_ref().map_err(|wrong| wrong.line).err(), Some(line), "{text:?} {found:?}");
    }

    #[test]
    fn json_and_friends() {
        check(Format::Json, "", json!({}));
        check(
            Format::Json,
            r#"{"a":[1,-2.5,true,null,"x\n\u00e9\ud83d\ude00"]}"#,
            json!({"a":[1,-2.5,true,null,"x\né😀"]}),
        );
        check(Format::Jsonc, "// c\n{\"a\": /* b */ 1,}", json!({"a":1}));
        check(Format::Json5, "{a: 'it\\'s', b: 0x10, c: [1,], $d: .5}", json!({"a":"it's","b":16,"c":[1],"$d":0.5}));
        refuse(Format::Json, "{\"a\":1,}", 1);
        refuse(Format::Json, "// c\n{}", 1);
        refuse(Format::Jsonc, "{\n\"a\": \n}", 3);
        refuse(Format::Jsonc, "{} x", 1);
        refuse(Format::Jsonc, "{\"a", 1);
        refuse(Format::Jsonc, "/* never", 1);
        refuse(Format::Json, "\"\\ud800\"", 1);
        refuse(Format::Json, "{a:1}", 1);
        refuse(Format::Json, "é", 1);
    }

    #[test]
    fn nesting_and_counts_are_bounded() {
        refuse(Format::Json, &"[".repeat(100_000), 1);
        refuse(Format::Json, &format!("[{}1]", "1,".repeat(200_001)), 1);
        assert!(Document::parse(Format::Toml, &format!("a = {}", "[".repeat(100_000))).is_err());
        assert!(Document::parse(Format::Json, &" ".repeat(FILE_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn duplicates_are_told() {
        let document = Document::parse(Format::Json, r#"{"a":{"b":1,"b":2}}"#).unwrap();
        assert_eq!(document.duplicates, ["a.b"]);
        assert_eq!(document.root, json!({"a":{"b":2}}));
    }

    #[test]
    fn toml_env_and_paths() {
        check(Format::Toml, "a = 1\n[b.c]\nd = 'x'", json!({"a":1,"b":{"c":{"d":"x"}}}));
        refuse(Format::Toml, "a = 1\nb = \n", 2);
        check(Format::Env, "# c\nexport A=\"x y\"\nB='z'\nnothing", json!({"A":"x y","B":"z"}));
        let document = Document::parse(Format::Json, r#"{"p":{"/a.b":{"m":1},"c":{"m":2}}}"#).unwrap();
        let found: Vec<String> = document.at("p.*.m").into_iter().map(|(path, _)| path).collect();
        assert_eq!(found, ["p./a.b.m", "p.c.m"]);
    }
}
