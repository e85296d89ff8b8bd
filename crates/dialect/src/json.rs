//! JSON as the dialects need it: no key twice, pointers to every text, changes by pointer.
//!
//! Turns bytes into a [`Value`] or a reason, and a value plus [`Modification`]s into a changed value. The one thing a
//! newcomer gets wrong: `serde_json` alone keeps the last of two equal keys without a word, and an agent may keep the
//! first; then we judge one call and it runs another.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use creel_model::{Content, ContentRole, Modification};

use crate::Malformed;

/// Most texts of one payload that are looked at; more is malformed.
pub const TEXTS_MAX: usize = 65_536;

const DUPLICATE: &str = "duplicate key ";

/// Parses one JSON value in which no object has a key twice.
///
/// # Errors
/// [`Malformed::NotUtf8`], [`Malformed::NotJson`] or [`Malformed::DuplicateKey`].
pub fn parse(bytes: &[u8]) -> Result<Value, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|error| Malformed::NotUtf8 { at: error.valid_up_to() })?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let parsed = Strict.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    parsed.map_err(|error| {
        let message = error.to_string();
        match message.strip_prefix(DUPLICATE) {
            // serde_json appends ` at line …`, which a key may contain too: cut at the last one.
            Some(rest) => {
                let key = rest.rsplit_once(" at line ").map_or(rest, |(key, _)| key);
                Malformed::DuplicateKey { key: key.chars().take(64).collect() }
            }
            None => Malformed::NotJson { line: error.line(), column: error.column() },
        }
    })
}

/// A value that refuses duplicate keys at every level.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element_seed(Strict)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(Strict)?;
            if map.contains_key(&key) {
                return Err(de::Error::custom(format_args!("{DUPLICATE}{key}")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// Collects every text below `value` with its pointer, `prefix` being the pointer of `value` itself.
///
/// # Errors
/// [`Malformed::TooManyTexts`] beyond [`TEXTS_MAX`] in `texts`.
pub fn texts(value: &Value, prefix: &str, role: ContentRole, texts: &mut Vec<Content>) -> Result<(), Malformed> {
    let mut pointer = prefix.to_owned();
    collect(value, &mut pointer, role, texts)
}

fn collect(value: &Value, pointer: &mut String, role: ContentRole, texts: &mut Vec<Content>) -> Result<(), Malformed> {
    let length = pointer.len();
    match value {
        Value::String(text) if !text.is_empty() => {
            if texts.len() >= TEXTS_MAX {
                return Err(Malformed::TooManyTexts { max: TEXTS_MAX });
            }
            texts.push(Content { role, pointer: pointer.clone(), text: text.clone() });
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                pointer.push('/');
                pointer.push_str(&at.to_string());
                collect(item, pointer, role, texts)?;
                pointer.truncate(length);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                push_token(pointer, key);
                collect(item, pointer, role, texts)?;
                pointer.truncate(length);
            }
        }
        _ => {}
    }
    Ok(())
}

fn push_token(pointer: &mut String, key: &str) {
    pointer.push('/');
    pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
}

/// The value with every modification made.
///
/// # Errors
/// The pointer of the first modification that does not lead to a text: a change that cannot be made is a deny.
pub fn apply(value: &Value, modifications: &[Modification]) -> Result<Value, String> {
    let mut changed = value.clone();
    for modification in modifications {
        match changed.pointer_mut(&modification.pointer) {
            Some(Value::String(text)) => text.clone_from(&modification.text),
            _ => return Err(modification.pointer.clone()),
        }
    }
    Ok(changed)
}

/// Equality of meaning: order of keys, `null` against absent, and `1` against `1.0` make no difference.
#[must_use]
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let covers = |a: &Map<String, Value>, b: &Map<String, Value>| {
                a.iter().all(|(key, value)| same(value, b.get(key).unwrap_or(&Value::Null)))
            };
            covers(a, b) && covers(b, a)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Number(a), Value::Number(b)) => a == b || (a.as_f64() == b.as_f64() && a.is_f64() != b.is_f64()),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_that_stands_twice_is_refused_at_every_level() {
        let duplicate = |text: &str| match parse(text.as_bytes()) {
            Err(Malformed::DuplicateKey { key }) => key,
            other => panic!("{other:?}"),
        };
        assert_eq!(duplicate(r#"{"a":1,"a":2}"#), "a");
        assert_eq!(duplicate(r#"{"x":[{"command":"ls","command":"rm"}]}"#), "command");
        assert_eq!(duplicate(r#"{"command":"ls","c\u006fmmand":"rm"}"#), "command");
        assert_eq!(parse(br#"{"a":{"a":1},"b":[1.5,-2,null,true,"x"]}"#).unwrap()["b"][1], -2);
    }

    #[test]
    fn what_is_not_one_value_is_refused_with_its_place() {
        assert_eq!(parse(b"\xff"), Err(Malformed::NotUtf8 { at: 0 }));
        assert!(matches!(parse(b"{\"a\":"), Err(Malformed::NotJson { line: 1, .. })));
        assert!(matches!(parse(b"{} {}"), Err(Malformed::NotJson { .. })));
        assert!(matches!(parse(b""), Err(Malformed::NotJson { .. })));
        assert!(matches!(parse("[".repeat(200).as_bytes()), Err(Malformed::NotJson { .. })));
        assert!(matches!(parse(br#""\ud800""#), Err(Malformed::NotJson { .. })));
    }

    #[test]
    fn texts_are_found_and_changed_by_the_same_pointer() {
        let value = json!({"a/b": ["x", {"~": "y"}], "n": 1, "empty": ""});
        let mut found = Vec::new();
        texts(&value, "", ContentRole::Result, &mut found).unwrap();
        let pointers: Vec<_> = found.iter().map(|content| content.pointer.as_str()).collect();
        assert_eq!(pointers, ["/a~1b/0", "/a~1b/1/~0"]);
        let changes: Vec<_> = found
            .iter()
            .map(|content| Modification { pointer: content.pointer.clone(), text: "-".into(), replaced: 1 })
            .collect();
        assert_eq!(apply(&value, &changes).unwrap(), json!({"a/b": ["-", {"~": "-"}], "n": 1, "empty": ""}));
        let wrong = [Modification { pointer: "/n".into(), text: "-".into(), replaced: 1 }];
        assert_eq!(apply(&value, &wrong), Err("/n".into()));
    }

    #[test]
    fn same_means_same_to_a_program() {
        assert!(same(&json!({"a": 1, "b": null}), &json!({"a": 1.0})));
        assert!(same(&json!({"a": 1, "b": 2}), &json!({"b": 2, "a": 1})));
        assert!(!same(&json!({"a": "1"}), &json!({"a": 1})));
        assert!(!same(&json!({"a": [1, 2]}), &json!({"a": [1]})));
        assert!(!same(&json!({}), &json!({"command": "rm"})));
    }
}
