//! The starter bundle, built in.

use std::collections::BTreeMap;

/// The starter bundle's files: relative path to text.
#[must_use]
pub fn starter() -> BTreeMap<String, String> {
    BTreeMap::new()
}
