//! `exceptions.toml`: scoped, owned, expiring settings-aside of rules.
//!
//! They are applied after Cedar: the rule is still reported as matched, then as excepted. An exception that has
//! expired is kept and shown, and does nothing.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::value::Datetime;

use creel_model::{Effect, Object, Verb};

use crate::glob::{Pattern, wild};
use crate::question::Question;
use crate::text::Faults;
use crate::zones::View;

pub(crate) const FILE: &str = "exceptions.toml";

/// An exception may last this long at most.
const DAYS_MAX: i64 = 90;
/// At most this many in one bundle.
const EXCEPTIONS_MAX: usize = 500;

/// An exception as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExceptionInfo {
    /// Its id; records name it.
    pub id: String,
    /// The rule that it sets aside.
    pub rule: String,
    /// Why.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// When it ends, in seconds since 1970.
    pub expires_unix_s: i64,
}

/// A checked exception.
#[derive(Clone, Debug)]
pub(crate) struct Exception {
    pub(crate) info: ExceptionInfo,
    agents: BTreeSet<String>,
    accounts: BTreeSet<u32>,
    verbs: BTreeSet<Verb>,
    paths: Vec<Pattern>,
    hosts: Vec<String>,
    programs: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    exception: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: Spanned<String>,
    rule: Spanned<String>,
    reason: Spanned<String>,
    owner: Spanned<String>,
    expires: Spanned<Datetime>,
    scope: Spanned<Scope>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scope {
    #[serde(default)]
    agents: BTreeSet<String>,
    #[serde(default)]
    accounts: BTreeSet<u32>,
    #[serde(default)]
    verbs: Vec<Spanned<String>>,
    #[serde(default)]
    paths: Vec<Spanned<String>>,
    #[serde(default)]
    hosts: Vec<Spanned<String>>,
    #[serde(default)]
    programs: BTreeSet<String>,
}

/// Why a rule may not be excepted, and what to do instead.
pub(crate) type Refusal = (&'static str, &'static str);

/// Reads `exceptions.toml`. `allowed` says why a rule may not be excepted here, where it may not.
pub(crate) fn read(
    text: &str,
    now_unix_s: i64,
    allowed: &dyn Fn(&str) -> Result<(), Refusal>,
    faults: &mut Faults,
) -> Vec<Exception> {
    let hint = "exceptions.toml is a list of [[exception]] with id, rule, reason, owner, expires and a scope table";
    let Some(file) = faults.toml::<File>(FILE, text, hint) else { return Vec::new() };
    if file.exception.len() > EXCEPTIONS_MAX {
        let message = format!("{} exceptions", file.exception.len());
        faults.at(FILE, text, 0, message, "at most 500", "rules with that many exceptions should be changed");
        return Vec::new();
    }
    let mut ids = BTreeSet::new();
    let mut exceptions = Vec::new();
    for entry in file.exception {
        let before = faults.0.len();
        let id = entry.id.get_ref().clone();
        if id.is_empty() || !ids.insert(id.clone()) {
            let message = format!("exception id `{id}`");
            faults.at(FILE, text, entry.id.span().start, message, "an id used once", "records name exceptions by id");
        }
        if let Err((wrong, hint)) = allowed(entry.rule.get_ref()) {
            let message = format!("rule `{}` {wrong}", entry.rule.get_ref());
            faults.at(FILE, text, entry.rule.span().start, message, "an exceptable rule", hint);
        }
        for (name, value) in [("reason", &entry.reason), ("owner", &entry.owner)] {
            if value.get_ref().trim().is_empty() {
                let hint = "somebody must be able to ask why this exists";
                faults.at(FILE, text, value.span().start, format!("an empty {name}"), "a text", hint);
            }
        }
        let expires_unix_s = unix_seconds(entry.expires.get_ref());
        match expires_unix_s {
            Some(end) if end <= now_unix_s + DAYS_MAX * 86_400 => {}
            _ => {
                let message = format!("exception `{id}` ends at `{}`", entry.expires.get_ref());
                let expected = "a date or an offset date-time at most 90 days from now";
                faults.at(
                    FILE,
                    text,
                    entry.expires.span().start,
                    message,
                    expected,
                    "an exception that must last is a change of the rule",
                );
            }
        }
        let at = entry.scope.span().start;
        let scope = entry.scope.into_inner();
        let mut exception = Exception {
            info: ExceptionInfo {
                id,
                rule: entry.rule.into_inner(),
                reason: entry.reason.into_inner(),
                owner: entry.owner.into_inner(),
                expires_unix_s: expires_unix_s.unwrap_or(0),
            },
            agents: scope.agents,
            accounts: scope.accounts,
            verbs: BTreeSet::new(),
            paths: Vec::new(),
            hosts: Vec::new(),
            programs: scope.programs,
        };
        for verb in &scope.verbs {
            match verb.get_ref().parse() {
                Ok(verb) => {
                    exception.verbs.insert(verb);
                }
                Err(creel_model::UnknownWord { found, expected }) => {
                    let expected = expected.join(", ");
                    faults.at(
                        FILE,
                        text,
                        verb.span().start,
                        format!("unknown verb `{found}`"),
                        &expected,
                        "correct the word",
                    );
                }
            }
        }
        for path in &scope.paths {
            match Pattern::parse(path.get_ref()) {
                Ok(pattern) => exception.paths.push(pattern),
                Err((wrong, expected)) => {
                    let message = format!("pattern `{}` {wrong}", path.get_ref());
                    faults.at(FILE, text, path.span().start, message, expected, "the same patterns as in zones.toml");
                }
            }
        }
        exception.hosts = scope.hosts.into_iter().map(Spanned::into_inner).collect();
        let unscoped = exception.agents.is_empty()
            && exception.accounts.is_empty()
            && exception.paths.is_empty()
            && exception.hosts.is_empty()
            && exception.programs.is_empty();
        if unscoped {
            let hint = "to set a rule aside everywhere, change its mode in bundle.toml";
            let message = format!("exception `{}` has no scope", exception.info.id);
            faults.at(FILE, text, at, message, "agents, accounts, paths, hosts or programs", hint);
        }
        if faults.0.len() == before {
            exceptions.push(exception);
        }
    }
    exceptions
}

impl Exception {
    /// Whether it sets aside its rule for this effect now. Every stated part of the scope must fit.
    pub(crate) fn covers(&self, question: &Question<'_>, effect: &Effect) -> bool {
        let any = |empty: bool, fits: bool| empty || fits;
        question.now_unix_s < self.info.expires_unix_s
            && any(self.agents.is_empty(), self.agents.contains(&question.agent.kind))
            && any(self.accounts.is_empty(), self.accounts.contains(&question.agent.account_uid))
            && any(self.verbs.is_empty(), self.verbs.contains(&effect.verb))
            && any(self.paths.is_empty(), self.covers_path(question, effect))
            && any(self.hosts.is_empty(), self.covers_host(effect))
            && any(
                self.programs.is_empty(),
                matches!(&effect.object, Object::Program { program, .. } if self.programs.contains(program)),
            )
    }

    /// Both the path as written and the resolved one must be in scope: a link does not carry an exception elsewhere.
    fn covers_path(&self, question: &Question<'_>, effect: &Effect) -> bool {
        let Object::Path { path, resolved } = &effect.object else { return false };
        std::iter::once(path).chain(resolved).all(|path| {
            let view = View::new(path, question.places);
            self.paths.iter().any(|pattern| view.fits(pattern, false, false))
        })
    }

    fn covers_host(&self, effect: &Effect) -> bool {
        let Object::Host { host, .. } = &effect.object else { return false };
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.hosts.iter().any(|pattern| wild(pattern.as_bytes(), host.as_bytes()))
    }
}

/// Seconds since 1970 of a TOML date (its first moment, UTC) or of a date-time with an offset.
fn unix_seconds(when: &Datetime) -> Option<i64> {
    let date = when.date?;
    let days = days_since_epoch(i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let Some(time) = when.time else { return Some(days * 86_400) };
    let offset_minutes = match when.offset? {
        toml::value::Offset::Z => 0,
        toml::value::Offset::Custom { minutes } => i64::from(minutes),
    };
    let seconds = i64::from(time.hour) * 3_600 + i64::from(time.minute) * 60 + i64::from(time.second.unwrap_or(0));
    Some(days * 86_400 + seconds - offset_minutes * 60)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar: whole 400-year cycles, then the year counted from March.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let cycle = year.div_euclid(400);
    let of_cycle = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    cycle * 146_097 + of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_become_seconds() {
        let seconds = |text: &str| unix_seconds(&text.parse().unwrap());
        assert_eq!(seconds("1970-01-01"), Some(0));
        assert_eq!(seconds("2024-02-29"), Some(1_709_164_800));
        assert_eq!(seconds("2026-11-21T19:00:00Z"), Some(1_795_287_600));
        assert_eq!(seconds("2026-11-21T20:00:00+01:00"), Some(1_795_287_600));
        assert_eq!(seconds("2026-11-21T20:00:00"), None, "a local time names no moment");
    }
}
