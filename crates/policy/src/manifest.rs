//! `bundle.toml`: what the bundle is called, what holds where no rule matches, and which rules act.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use toml::Spanned;

use creel_model::{RuleMode, Verb, Verdict};

use crate::text::Faults;

pub(crate) const FILE: &str = "bundle.toml";

/// The bundle schema that this version reads.
pub(crate) const SCHEMA: &str = "1";

/// What `bundle.toml` says, checked.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) id: String,
    pub(crate) version: String,
    /// Digest of the bundle below, as text.
    pub(crate) base: Option<String>,
    pub(crate) base_at: usize,
    pub(crate) defaults: BTreeMap<Verb, Default>,
    pub(crate) modes: BTreeMap<String, (RuleMode, usize)>,
    pub(crate) delegated_zones: BTreeSet<String>,
    /// Rules that layers above may except; `*` for every exceptable one.
    pub(crate) delegated_exceptions: BTreeMap<String, usize>,
    /// Layers above may add profiles of cages.
    pub(crate) delegated_profiles: bool,
}

/// A verb's default and where it was stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Default {
    pub(crate) verdict: Verdict,
    pub(crate) offset: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    id: Spanned<String>,
    version: Spanned<String>,
    creel: Spanned<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "for the reader of the bundle")]
    description: String,
    #[serde(default)]
    base: Option<Spanned<String>>,
    #[serde(default)]
    default: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    modes: BTreeMap<Spanned<String>, Spanned<String>>,
    #[serde(default)]
    delegate: Delegate,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Delegate {
    #[serde(default)]
    zones: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Spanned<String>>,
    #[serde(default)]
    profiles: bool,
}

/// Reads `bundle.toml`; `None` when it says too little to go on.
pub(crate) fn read(text: &str, faults: &mut Faults) -> Option<Manifest> {
    let hint = "bundle.toml holds id, version, creel, and the tables [default], [modes], [delegate]";
    let file: File = faults.toml(FILE, text, hint)?;
    for (name, value) in [("id", &file.id), ("version", &file.version)] {
        let word = value.get_ref();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._+".contains(&byte);
        if word.is_empty() || word.len() > 64 || !word.bytes().all(plain) {
            let message = format!("{name} `{word}`");
            faults.at(
                FILE,
                text,
                value.span().start,
                message,
                "1 to 64 letters, digits and `-._+`",
                "shorten or rename it",
            );
        }
    }
    if file.creel.get_ref() != SCHEMA {
        let message = format!("bundle schema `{}`", file.creel.get_ref());
        faults.at(
            FILE,
            text,
            file.creel.span().start,
            message,
            "`1`",
            "this creel reads bundle schema 1; update creel",
        );
    }
    if let Some(base) = &file.base
        && !(base.get_ref().len() == 64 && base.get_ref().bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
    {
        let message = format!("base `{}` is not a digest", base.get_ref());
        faults.at(
            FILE,
            text,
            base.span().start,
            message,
            "64 lower-case hexadecimal digits",
            "see `creel policy show`",
        );
    }
    let mut defaults = BTreeMap::new();
    for (verb, verdict) in &file.default {
        let Ok(verb) = verb.get_ref().parse::<Verb>().map_err(|unknown| {
            let expected = format!("one of {}", unknown.expected.join(", "));
            let message = format!("unknown verb `{}`", unknown.found);
            faults.at(FILE, text, verb.span().start, message, &expected, "defaults are stated per verb");
        }) else {
            continue;
        };
        let word = match verdict.get_ref().as_str() {
            "allow" => Verdict::Allow,
            "ask" => Verdict::Ask,
            "deny" => Verdict::Deny,
            other => {
                let message = format!("default `{other}` of `{verb}`");
                faults.at(
                    FILE,
                    text,
                    verdict.span().start,
                    message,
                    "`allow`, `ask` or `deny`",
                    "a default cannot modify",
                );
                continue;
            }
        };
        defaults.insert(verb, Default { verdict: word, offset: verdict.span().start });
    }
    if file.base.is_none() {
        for verb in Verb::ALL.iter().filter(|verb| {
            !defaults.contains_key(verb) && !file.default.keys().any(|key| key.get_ref() == verb.as_str())
        }) {
            let offset = text.find("[default]").unwrap_or(0);
            let message = format!("no default for `{verb}`");
            faults.at(
                FILE,
                text,
                offset,
                message,
                "a line for every verb",
                &format!("add `{verb} = \"allow\"`, `\"ask\"` or `\"deny\"`"),
            );
        }
    }
    let mut modes = BTreeMap::new();
    for (rule, mode) in &file.modes {
        match mode.get_ref().parse::<RuleMode>() {
            Ok(mode) => {
                modes.insert(rule.get_ref().clone(), (mode, rule.span().start));
            }
            Err(unknown) => {
                let message = format!("mode `{}` of rule `{}`", unknown.found, rule.get_ref());
                faults.at(FILE, text, mode.span().start, message, "`block`, `audit` or `off`", "correct the word");
            }
        }
    }
    Some(Manifest {
        id: file.id.into_inner(),
        version: file.version.into_inner(),
        base_at: file.base.as_ref().map_or(0, |base| base.span().start),
        base: file.base.map(Spanned::into_inner),
        defaults,
        modes,
        delegated_profiles: file.delegate.profiles,
        delegated_zones: file.delegate.zones.into_iter().collect(),
        delegated_exceptions: file
            .delegate
            .exceptions
            .into_iter()
            .map(|rule| (rule.get_ref().clone(), rule.span().start))
            .collect(),
    })
}
