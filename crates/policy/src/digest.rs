//! A bundle's name by content: one digest for one set of files, whatever machine made it.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use creel_model::Digest;

/// SHA-256 over, for each file in order of its path: length of the path, the path, length of the text, the text.
/// Lengths are eight bytes, big-endian, so that no two sets of files run together into the same bytes.
pub(crate) fn of(files: &BTreeMap<String, String>) -> Digest {
    let mut hash = Sha256::new();
    hash.update(b"creel bundle 1\n");
    for (path, text) in files {
        for part in [path.as_bytes(), text.as_bytes()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
    }
    Digest::from_bytes(&hash.finalize().into())
}
