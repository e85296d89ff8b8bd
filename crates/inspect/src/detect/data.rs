//! Turns the detectors' TOML files into one prefilter and the checks behind its hits.
//!
//! The fact a newcomer gets wrong: expressions are anchored and compiled when first needed; nothing but the literals
//! looks at the whole text.

use std::collections::BTreeMap;
use std::sync::{LazyLock, OnceLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use creel_model::{Confidence, Severity};
use regex_automata::meta::Regex;
use regex_automata::util::syntax;
use serde::Deserialize;

use super::checksum::Checksum;

/// The detectors' data, as built in.
pub(crate) static SOURCES: &[&str] = &[
    include_str!("../../data/detectors/keys.toml"),
    include_str!("../../data/detectors/cloud.toml"),
    include_str!("../../data/detectors/code.toml"),
    include_str!("../../data/detectors/models.toml"),
    include_str!("../../data/detectors/messages.toml"),
    include_str!("../../data/detectors/payments.toml"),
    include_str!("../../data/detectors/operations.toml"),
    include_str!("../../data/detectors/platforms.toml"),
    include_str!("../../data/detectors/business.toml"),
    include_str!("../../data/detectors/connections.toml"),
    include_str!("../../data/detectors/services.toml"),
];

/// One format as its file states it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kind {
    /// Code without `secret.`; also the name in placeholders.
    pub(super) code: String,
    /// One of these must stand in the text; letters match in both cases.
    pub(super) literals: Vec<String>,
    /// The expression, anchored `behind` bytes before the literal. A group, if any, is what is secret.
    pub(super) pattern: String,
    #[serde(default)]
    pub(super) behind: usize,
    /// Longest match, in bytes.
    #[serde(default = "default_window")]
    pub(super) window: usize,
    pub(super) severity: Severity,
    pub(super) confidence: Confidence,
    /// Least entropy of what is secret, in bits per byte.
    #[serde(default = "default_entropy")]
    pub(super) entropy: f32,
    #[serde(default)]
    pub(super) checksum: Option<Checksum>,
    /// One of these lower-case words must stand in the 96 bytes before; without it a `public` key is of low
    /// confidence and any other is nothing.
    #[serde(default)]
    pub(super) context: Vec<String>,
    /// Whether the match may begin or end inside a word.
    #[serde(default)]
    pub(super) inside: bool,
    /// Whether placeholders are looked for (not in whole keys).
    #[serde(default = "yes")]
    pub(super) placeholders: bool,
    /// Whether its makers mean it to be public in some places: then no other way to find it makes it surer.
    #[serde(default)]
    pub(super) public: bool,
    /// Whether what is secret must look random by itself, where the format says little.
    #[serde(default)]
    pub(super) random: bool,
    #[serde(default)]
    pub(super) taxonomy: Vec<String>,
    #[serde(default)]
    #[cfg_attr(not(test), expect(dead_code, reason = "examples are for the tests"))]
    pub(super) matches: Vec<String>,
    #[serde(default)]
    #[cfg_attr(not(test), expect(dead_code, reason = "examples are for the tests"))]
    pub(super) not: Vec<String>,
    #[serde(skip)]
    pub(super) regex: OnceLock<Regex>,
}

/// Services whose keys have no form of their own: the service's name stands near.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Services {
    pub(super) severity: Severity,
    /// Whether the names are ordinary words: then a word like `key` must follow.
    #[serde(default)]
    pub(super) ordinary: bool,
    /// `name` or `name = other spelling`, lower case.
    pub(super) names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    kind: Vec<Kind>,
    #[serde(default)]
    services: Vec<Services>,
    /// Words of any assignment that is worth a look.
    #[serde(default)]
    nouns: Vec<String>,
}

/// One service's name.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) code: String,
    pub(super) severity: Severity,
    pub(super) ordinary: bool,
}

/// Who looks at a hit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner {
    Kind(usize),
    Service(usize),
    Noun,
}

/// All detectors.
pub(super) struct Detectors {
    pub(super) kinds: Vec<Kind>,
    pub(super) services: Vec<Service>,
    pub(super) literals: AhoCorasick,
    /// Who looks at each literal.
    pub(super) owners: Vec<Vec<Owner>>,
}

fn default_window() -> usize {
    320
}

fn default_entropy() -> f32 {
    2.5
}

fn yes() -> bool {
    true
}

#[expect(clippy::expect_used, reason = "built-in data; a test loads and compiles every entry")]
pub(super) static DETECTORS: LazyLock<Detectors> = LazyLock::new(|| {
    let (mut kinds, mut services) = (Vec::new(), Vec::new());
    let mut literals: BTreeMap<String, Vec<Owner>> = BTreeMap::new();
    for source in SOURCES {
        let file: File = toml::from_str(source).expect("detector data");
        for kind in file.kind {
            for literal in &kind.literals {
                literals.entry(literal.to_ascii_lowercase()).or_default().push(Owner::Kind(kinds.len()));
            }
            kinds.push(kind);
        }
        for group in file.services {
            for entry in &group.names {
                let mut spellings = entry.split('=').map(str::trim);
                let name = spellings.next().unwrap_or_default();
                for spelling in std::iter::once(name).chain(spellings) {
                    literals.entry(spelling.to_owned()).or_default().push(Owner::Service(services.len()));
                }
                services.push(Service {
                    code: format!("secret.{name}-key"),
                    severity: group.severity,
                    ordinary: group.ordinary,
                });
            }
        }
        for noun in file.nouns {
            literals.entry(noun).or_default().push(Owner::Noun);
        }
    }
    let automaton = AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::Standard)
        .kind(Some(AhoCorasickKind::DFA))
        .build(literals.keys())
        .expect("detector literals");
    Detectors { kinds, services, literals: automaton, owners: literals.into_values().collect() }
});

impl Kind {
    /// The compiled expression; bytes, no Unicode classes.
    #[expect(clippy::expect_used, reason = "built-in data; a test compiles every entry")]
    pub(super) fn regex(&self) -> &Regex {
        self.regex.get_or_init(|| {
            Regex::builder()
                .configure(Regex::config().utf8_empty(false).hybrid_cache_capacity(256 * 1024))
                .syntax(syntax::Config::new().unicode(false).utf8(false))
                .build(&self.pattern)
                .expect("detector pattern")
        })
    }
}
