//! What running a bundle's decision tables showed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use creel_model::Verdict;

/// The result of a bundle's own tests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestReport {
    /// How many cases were judged.
    pub cases: u32,
    /// Those that came out otherwise than they say.
    pub failures: Vec<CaseFailure>,
    /// Rules that no case shows matching.
    pub never_matched: BTreeSet<String>,
    /// Rules that no case shows *not* matching (`not = [..]`).
    pub never_spared: BTreeSet<String>,
}

impl TestReport {
    /// Whether every case came out as it says.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

/// A case that came out otherwise than it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseFailure {
    /// File of the bundle.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// What was done, as the case writes it.
    pub case: String,
    /// The verdict that it expects.
    pub expected: Verdict,
    /// The verdict that came.
    pub found: Verdict,
    /// What differs, in words.
    pub difference: String,
}
