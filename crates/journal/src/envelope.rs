//! The envelope as bytes: the caller's envelope with the journal's own fields, in one canonical JSON form.
//!
//! Canonical here: object keys sorted by bytes, no white space, strings escaped as RFC 8785 says, integers in decimal
//! digits at full width (RFC 8785 would round nanoseconds), no fractions. Written once; verification reads these bytes
//! and never writes them again, so a later version may add fields that this one does not know.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use creel_model::record::Envelope;

/// What the journal itself seals into every envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The record's place: the leaf's index in the tree.
    pub sequence: u64,
    /// `SHA-256(salt ‖ detail)` as hexadecimal digits.
    pub detail_digest: String,
    /// Length of the detail in bytes.
    pub detail_bytes: u64,
    /// On a segment's first record: the roots of the tree's complete subtrees before it, largest first, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peaks: Option<Vec<String>>,
    /// On an erasure record: what was erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erasure: Option<Erasure>,
    /// On a gap record: what was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
}

/// Which details were erased, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// First and last sequence number of each range, inclusive.
    pub ranges: Vec<(u64, u64)>,
    /// Why, in the words of who asked for it.
    pub reason: String,
}

/// How many records could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// How many.
    pub lost: u64,
    /// Wall clock of the first, in nanoseconds since 1970.
    pub first_unix_ns: i64,
    /// Wall clock of the last.
    pub last_unix_ns: i64,
}

/// The fields that verification needs, borrowed from the bytes.
#[derive(Debug, Deserialize)]
pub(crate) struct Core<'a> {
    pub(crate) sequence: u64,
    pub(crate) detail_digest: &'a str,
    pub(crate) detail_bytes: u64,
    #[serde(default)]
    pub(crate) peaks: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) erasure: Option<Erasure>,
    #[serde(default)]
    pub(crate) gap: Option<Gap>,
}

/// The bytes of an envelope with the journal's fields. `None`: it holds a number that is not an integer.
pub(crate) fn seal(envelope: &Envelope, sealed: &Sealed) -> Option<Vec<u8>> {
    let Ok(Value::Object(mut map)) = serde_json::to_value(envelope) else { return None };
    let Ok(Value::Object(own)) = serde_json::to_value(sealed) else { return None };
    map.extend(own);
    let mut bytes = Vec::with_capacity(1024);
    write_object(&map, &mut bytes)?;
    Some(bytes)
}

fn write_object(map: &Map<String, Value>, bytes: &mut Vec<u8>) -> Option<()> {
    let mut fields: Vec<(&String, &Value)> = map.iter().collect();
    fields.sort_unstable_by_key(|(key, _)| *key);
    bytes.push(b'{');
    for (number, (key, value)) in fields.into_iter().enumerate() {
        if number > 0 {
            bytes.push(b',');
        }
        serde_json::to_writer(&mut *bytes, key).ok()?;
        bytes.push(b':');
        write_value(value, bytes)?;
    }
    bytes.push(b'}');
    Some(())
}

fn write_value(value: &Value, bytes: &mut Vec<u8>) -> Option<()> {
    match value {
        Value::Object(map) => write_object(map, bytes)?,
        Value::Array(items) => {
            bytes.push(b'[');
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    bytes.push(b',');
                }
                write_value(item, bytes)?;
            }
            bytes.push(b']');
        }
        Value::Number(number) if !(number.is_i64() || number.is_u64()) => return None,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            serde_json::to_writer(bytes, value).ok()?;
        }
    }
    Some(())
}

/// The bytes of 64 hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let mut bytes = [0; 32];
    if pairs.len() != bytes.len() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

const fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_bytes_are_sorted_and_keep_wide_integers() {
        let value: Value =
            serde_json::from_str(r#"{"b":[1,{"z":null,"a":true}],"a":1800000000123456789,"é\n":"\u0001\"/"}"#).unwrap();
        let mut bytes = Vec::new();
        write_value(&value, &mut bytes).unwrap();
        let expected = "{\"a\":1800000000123456789,\"b\":[1,{\"a\":true,\"z\":null}],\"é\\n\":\"\\u0001\\\"/\"}";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        assert_eq!(write_value(&serde_json::json!(1.5), &mut Vec::new()), None);
    }

    #[test]
    fn hexadecimal_digits() {
        assert_eq!(unhex(&"0f".repeat(32)), Some([15; 32]));
        for wrong in ["", "0", &"0F".repeat(32), &"0f".repeat(31), &"0g".repeat(32)] {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }
}
