//! `zones.toml`: which paths and hosts are in which zone.
//!
//! A path is in every zone whose patterns match it, less each zone's `except`; a host is in one zone, the most
//! specific. Zones are listed strongest first, and the first of a path's zones is what rules see as `resource.zone`.
//!
//! The one thing to get right: a zone is *open* when being in it relaxes rules (the workspace, a known registry) and
//! *guarded* when it tightens them. Where a path is doubtful (unknown base, a shell pattern, a symbolic link) it is put
//! into every guarded zone it may be in, and never into an open one.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Deserialize;
use toml::Spanned;

use creel_model::{Object, Zone};

use crate::glob::{Anchor, Pattern, is_glob};
use crate::question::Places;
use crate::text::Faults;

pub(crate) const FILE: &str = "zones.toml";

/// Zones of a bundle and its bases.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zones {
    zones: Vec<Compiled>,
}

#[derive(Clone, Debug)]
struct Compiled {
    zone: Zone,
    open: bool,
    paths: Vec<Pattern>,
    except: Vec<Pattern>,
    unless: BTreeSet<String>,
    also: BTreeSet<String>,
    hosts: Vec<HostPattern>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPattern {
    Exact(String),
    /// With its leading dot.
    Suffix(String),
    Network(IpAddr, u32),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    zone: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Spanned<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "for the reader of the bundle")]
    about: String,
    #[serde(default)]
    open: bool,
    #[serde(default)]
    paths: Vec<Spanned<String>>,
    #[serde(default)]
    except: Vec<Spanned<String>>,
    #[serde(default)]
    unless: Vec<Spanned<String>>,
    #[serde(default)]
    also: Vec<Spanned<String>>,
    #[serde(default)]
    hosts: Vec<Spanned<String>>,
}

impl Zones {
    /// At most this many patterns in one bundle.
    const PATTERNS_MAX: usize = 4_096;

    /// Adds a layer's `zones.toml`. `delegated` names the open zones that it may widen; `None` is the lowest layer,
    /// which may declare anything.
    pub(crate) fn add(&mut self, text: &str, delegated: Option<&BTreeSet<String>>, faults: &mut Faults) {
        let hint = "zones.toml is a list of [[zone]] with name, paths, except, unless, hosts, open";
        let Some(file) = faults.toml::<File>(FILE, text, hint) else { return };
        let patterns: usize =
            file.zone.iter().map(|zone| zone.paths.len() + zone.except.len() + zone.hosts.len()).sum();
        if patterns > Self::PATTERNS_MAX {
            let message = format!("{patterns} patterns");
            faults.at(FILE, text, 0, message, "at most 4096", "match folders instead of single files");
            return;
        }
        for entry in file.zone {
            self.add_entry(text, &entry, delegated, faults);
        }
        let names = self.names();
        for name in self.zones.iter().flat_map(|zone| zone.unless.iter().chain(&zone.also)) {
            // `also` may not make a guarded place open: that would be an exception nobody sees.
            let opens = self.zones.iter().any(|zone| zone.open && zone.zone.as_str() == name)
                && self.zones.iter().any(|zone| zone.also.contains(name));
            if opens || !names.contains(name) {
                let offset = text.find(&format!("\"{name}\"")).unwrap_or(0);
                let message = format!("`{name}` is no zone that can stand here");
                let expected = "a declared zone's name; after `also`, a guarded one";
                faults.at(FILE, text, offset, message, expected, "declare it, or remove it here");
            }
        }
    }

    fn add_entry(&mut self, text: &str, entry: &Entry, delegated: Option<&BTreeSet<String>>, faults: &mut Faults) {
        let name = entry.name.get_ref();
        let at = entry.name.span().start;
        if name.is_empty()
            || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        {
            let message = format!("`{name}` is not a zone's name");
            faults.at(FILE, text, at, message, "lower-case letters, digits and `-`", "rename the zone");
            return;
        }
        let existing = self.zones.iter().position(|zone| zone.zone.as_str() == name);
        let mut compiled = Compiled {
            zone: Zone::named(name),
            open: entry.open,
            paths: patterns(text, &entry.paths, faults),
            except: patterns(text, &entry.except, faults),
            unless: entry.unless.iter().map(|word| word.get_ref().clone()).collect(),
            also: entry.also.iter().map(|word| word.get_ref().clone()).collect(),
            hosts: hosts(text, &entry.hosts, faults),
        };
        match (existing.and_then(|index| self.zones.get_mut(index)), delegated) {
            (Some(_), None) => {
                let message = format!("zone `{name}` is declared twice");
                faults.at(FILE, text, at, message, "each zone once", "join the two");
            }
            (None, None) => self.zones.push(compiled),
            (None, Some(_)) => {
                // A new guarded zone comes first: it is stronger than what the base knows, and takes nothing away.
                if compiled.open {
                    let message = format!("a layer declares the open zone `{name}`");
                    faults.at(
                        FILE,
                        text,
                        at,
                        message,
                        "a guarded zone",
                        "being in an open zone relaxes the base's rules",
                    );
                } else {
                    self.zones.insert(0, compiled);
                }
            }
            (Some(base), Some(delegated)) => {
                let widens = base.open && !(compiled.paths.is_empty() && compiled.hosts.is_empty());
                if widens && !delegated.contains(name) {
                    let message = format!("a layer widens the open zone `{name}`");
                    let hint = "the base must delegate it: `[delegate] zones = [..]` in its bundle.toml";
                    faults.at(FILE, text, at, message, "a delegated or a guarded zone", hint);
                } else if !(compiled.except.is_empty() && compiled.unless.is_empty() && compiled.also.is_empty()) {
                    let message = format!("a layer narrows the base's zone `{name}`");
                    faults.at(
                        FILE,
                        text,
                        at,
                        message,
                        "`paths` and `hosts` only",
                        "declare a zone of your own instead",
                    );
                } else {
                    base.paths.append(&mut compiled.paths);
                    base.hosts.append(&mut compiled.hosts);
                }
            }
        }
    }

    /// Every declared name.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.zones.iter().map(|zone| zone.zone.0.clone()).collect()
    }

    /// Zones that tighten rules and have path patterns of their own, not only what others leave over.
    pub(crate) fn guarded(&self) -> impl Iterator<Item = &Zone> {
        let own = |zone: &&Compiled| !zone.open && zone.unless.is_empty() && !zone.paths.is_empty();
        self.zones.iter().filter(own).map(|zone| &zone.zone)
    }

    /// The path patterns of a zone.
    pub(crate) fn patterns_of(&self, name: &str) -> &[Pattern] {
        self.zones.iter().find(|zone| zone.zone.as_str() == name).map_or(&[], |zone| zone.paths.as_slice())
    }

    /// Names of zones that have hosts, and of those that have paths.
    pub(crate) fn kinds(&self) -> (BTreeSet<Zone>, BTreeSet<Zone>) {
        let of = |hosts: bool| {
            let zones =
                self.zones.iter().filter(|zone| if hosts { !zone.hosts.is_empty() } else { !zone.paths.is_empty() });
            zones.map(|zone| zone.zone.clone()).chain([Zone::named(Zone::UNKNOWN)]).collect()
        };
        (of(false), of(true))
    }

    /// The strongest of some zones, by the order of declaration; `unknown` of none.
    pub(crate) fn main<'a>(&'a self, zones: &BTreeSet<Zone>) -> &'a str {
        self.zones.iter().map(|zone| &zone.zone).find(|zone| zones.contains(zone)).map_or(Zone::UNKNOWN, Zone::as_str)
    }

    /// Zones of an object as they should stand in its effect. Where a path was resolved, the resolved one decides, and
    /// the guarded zones of the path as written are added: a link may not hide what it was called or what it leads to.
    pub(crate) fn of_object(&self, object: &Object, places: &Places) -> BTreeSet<Zone> {
        match object {
            Object::Path { path, resolved: None } => self.of_path(path, places),
            Object::Path { path, resolved: Some(resolved) } => {
                let mut zones = self.of_path(resolved, places);
                if path != resolved {
                    let written = self.of_path(path, places);
                    zones.extend(written.into_iter().filter(|zone| !self.is_open(zone)));
                }
                zones
            }
            Object::Program { script: Some(script), .. } => self.of_path(script, places),
            Object::Host { host, .. } => BTreeSet::from([self.of_host(host)]),
            _ => BTreeSet::new(),
        }
    }

    fn is_open(&self, name: &Zone) -> bool {
        self.zones.iter().any(|zone| zone.zone == *name && zone.open)
    }

    /// Zones of a path.
    pub(crate) fn of_path(&self, path: &str, places: &Places) -> BTreeSet<Zone> {
        let view = View::new(path, places);
        let mut zones: BTreeSet<Zone> = BTreeSet::new();
        for zone in self.zones.iter().filter(|zone| zone.unless.is_empty()) {
            if view.is_in(zone) {
                zones.insert(zone.zone.clone());
            }
        }
        // Zones with `unless` are what is left over (home, system); they are looked at in order after the others.
        for zone in self.zones.iter().filter(|zone| !zone.unless.is_empty()) {
            if !zones.iter().any(|found| zone.unless.contains(found.as_str())) && view.is_in(zone) {
                zones.insert(zone.zone.clone());
            }
        }
        let also = self.zones.iter().filter(|zone| zones.contains(&zone.zone)).flat_map(|zone| &zone.also);
        let also: Vec<Zone> = also.map(|name| Zone::named(name)).collect();
        zones.extend(also);
        zones
    }

    /// What lies at or below a folder: `root`, `home`, `workspace`, and guarded zones with a pattern below it.
    pub(crate) fn covered(&self, path: &str, places: &Places) -> BTreeSet<String> {
        let view = View::new(path, places);
        let mut covered = BTreeSet::new();
        let mut folder = view.segments.as_slice();
        if let Some((last, rest)) = folder.split_last()
            && matches!(*last, "*" | ".*" | "**" | ".[!.]*" | ".??*" | "{*,.*}")
        {
            folder = rest;
        }
        if view.unknown_base {
            return covered;
        }
        if folder.is_empty() {
            covered.insert("root".to_owned());
        }
        let home = segments(&places.home);
        if !home.is_empty() && home.starts_with(folder) {
            covered.insert("home".to_owned());
        }
        let workspace = view.workspace_root.clone();
        if workspace.as_ref().is_some_and(|root| root.starts_with(folder)) {
            covered.insert("workspace".to_owned());
        }
        for zone in self.zones.iter().filter(|zone| !zone.open && zone.unless.is_empty()) {
            let below = |pattern: &Pattern| match pattern.anchor {
                Anchor::Root => pattern.lies_below(folder),
                Anchor::Home => below_from(&home, folder, pattern),
                Anchor::Workspace => workspace.as_ref().is_some_and(|root| below_from(root, folder, pattern)),
                Anchor::Temporary | Anchor::Anywhere => false,
            };
            if zone.paths.iter().any(below) {
                covered.insert(zone.zone.0.clone());
                covered.extend(zone.also.iter().cloned());
            }
        }
        covered
    }

    /// The zone of a host: the most specific entry; `unknown` where none fits.
    pub(crate) fn of_host(&self, host: &str) -> Zone {
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        let address = address(&name);
        let mut best: Option<(usize, &Zone)> = None;
        for zone in &self.zones {
            for pattern in &zone.hosts {
                if let Some(weight) = pattern.weight(&name, address)
                    && best.is_none_or(|(heaviest, _)| weight > heaviest)
                {
                    best = Some((weight, &zone.zone));
                }
            }
        }
        best.map_or_else(|| Zone::named(Zone::UNKNOWN), |(_, zone)| zone.clone())
    }
}

/// Whether a pattern below an anchor folder lies at or below `folder`, both absolute.
fn below_from(anchor: &[&str], folder: &[&str], pattern: &Pattern) -> bool {
    match folder.strip_prefix(anchor) {
        Some(inside) => pattern.lies_below(inside),
        None => anchor.starts_with(folder),
    }
}

fn segments(path: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts
}

/// A path seen from each anchor.
pub(crate) struct View<'a> {
    segments: Vec<&'a str>,
    /// Where the part below a home folder begins: the account's own, and anybody's.
    own_home: Option<usize>,
    any_home: Option<usize>,
    workspace: Option<usize>,
    workspace_root: Option<Vec<&'a str>>,
    temporary: Option<usize>,
    /// The beginning is not known: relative, or it starts with an expansion.
    unknown_base: bool,
    doubtful: bool,
}

impl<'a> View<'a> {
    pub(crate) fn new(path: &'a str, places: &'a Places) -> Self {
        let tilde = path == "~" || path.starts_with("~/");
        let mut parts = if tilde { segments(&places.home) } else { Vec::new() };
        parts.extend(segments(if tilde { path.get(1..).unwrap_or("") } else { path }));
        let unknown_base =
            !tilde && (!path.starts_with('/') || parts.first().is_some_and(|part| part.contains(['$', '`'])));
        let below = |folder: &str| {
            let folder = segments(folder);
            (!folder.is_empty() && parts.starts_with(&folder)).then_some(folder.len())
        };
        let own_home = below(&places.home);
        let any_home = own_home.or(match (parts.first(), parts.len()) {
            (Some(&"root"), _) => Some(1),
            (Some(&"home" | &"Users"), 2..) => Some(2),
            _ => None,
        });
        let home = segments(&places.home);
        let workspace_root =
            places.workspace.as_deref().map(segments).filter(|root| !root.is_empty() && !home.starts_with(root));
        let workspace = workspace_root.as_ref().filter(|root| !unknown_base && parts.starts_with(root)).map(Vec::len);
        let temporary = places.temporary.iter().filter_map(|folder| below(folder)).max();
        let doubtful = parts.iter().any(|part| is_glob(part));
        Self { segments: parts, own_home, any_home, workspace, workspace_root, temporary, unknown_base, doubtful }
    }

    fn is_in(&self, zone: &Compiled) -> bool {
        let guarded = !zone.open;
        zone.paths.iter().any(|pattern| self.fits(pattern, guarded, zone.unless.is_empty()))
            && !zone.except.iter().any(|pattern| !self.doubtful && self.fits(pattern, false, true))
    }

    /// Whether a pattern matches. `guarded`: doubt counts as a match. `anybody`: `~` means every account's home.
    pub(crate) fn fits(&self, pattern: &Pattern, guarded: bool, anybody: bool) -> bool {
        let doubt = guarded && self.doubtful;
        let from = |start: Option<usize>| {
            start.and_then(|start| self.segments.get(start..)).is_some_and(|rest| pattern.matches(rest, doubt))
        };
        if self.unknown_base {
            // Any suffix may be what follows the anchor. An open zone is never entered on a guess, and neither is one
            // that is only what others leave over.
            return guarded
                && anybody
                && match pattern.anchor {
                    Anchor::Anywhere => pattern.matches(&self.segments, doubt),
                    Anchor::Home | Anchor::Workspace => (0..self.segments.len().min(64)).any(|start| from(Some(start))),
                    Anchor::Root | Anchor::Temporary => false,
                };
        }
        match pattern.anchor {
            Anchor::Root | Anchor::Anywhere => pattern.matches(&self.segments, doubt),
            Anchor::Home => from(if anybody && guarded { self.any_home } else { self.own_home }),
            Anchor::Workspace => from(self.workspace),
            Anchor::Temporary => from(self.temporary),
        }
    }
}

impl HostPattern {
    fn parse(text: &str) -> Option<Self> {
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = address.parse().ok()?;
            let bits: u32 = bits.parse().ok()?;
            return (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some(Self::Network(address, bits));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Network(address, if address.is_ipv4() { 32 } else { 128 }));
        }
        let (suffix, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let valid = !name.is_empty()
            && name.len() <= 253
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte));
        valid.then(|| if suffix { Self::Suffix(format!(".{name}")) } else { Self::Exact(name.to_owned()) })
    }

    /// How specifically the pattern fits; exact names and addresses weigh most.
    fn weight(&self, name: &str, address: Option<IpAddr>) -> Option<usize> {
        match self {
            Self::Exact(exact) => (exact == name).then_some(10_000),
            Self::Suffix(suffix) => name.ends_with(suffix.as_str()).then_some(suffix.len()),
            Self::Network(network, bits) => match (network, address?) {
                (IpAddr::V4(network), IpAddr::V4(address)) => {
                    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
                    (u32::from(*network) & mask == u32::from(address) & mask).then_some(1_000 + *bits as usize * 4)
                }
                (IpAddr::V6(network), IpAddr::V6(address)) => {
                    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
                    (u128::from(*network) & mask == u128::from(address) & mask).then_some(1_000 + *bits as usize)
                }
                _ => None,
            },
        }
    }
}

/// The address a host text means, also in the old spellings that `inet_aton` understands (`0x7f.1`, `2130706433`).
fn address(host: &str) -> Option<IpAddr> {
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let host = host.split('%').next().unwrap_or(host);
    if let Ok(address) = host.parse::<Ipv6Addr>() {
        return Some(address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4));
    }
    let numbers: Option<Vec<u32>> = host.split('.').map(number).collect();
    let numbers = numbers.filter(|numbers| (1..=4).contains(&numbers.len()))?;
    let (last, front) = numbers.split_last()?;
    let mut value: u32 = 0;
    for (index, part) in front.iter().enumerate() {
        value |= u32::from(u8::try_from(*part).ok()?) << (24 - 8 * index);
    }
    let room = 32 - 8 * u32::try_from(front.len()).ok()?;
    if room < 32 && *last >= 1 << room {
        return None;
    }
    Some(IpAddr::V4(Ipv4Addr::from(value | last)))
}

fn number(text: &str) -> Option<u32> {
    if let Some(hex) = text.strip_prefix("0x") {
        return u32::from_str_radix(hex, 16).ok();
    }
    if text.len() > 1 && text.starts_with('0') {
        return u32::from_str_radix(text, 8).ok();
    }
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn patterns(text: &str, entries: &[Spanned<String>], faults: &mut Faults) -> Vec<Pattern> {
    let mut compiled = Vec::with_capacity(entries.len());
    for entry in entries {
        match Pattern::parse(entry.get_ref()) {
            Ok(pattern) => compiled.push(pattern),
            Err((wrong, expected)) => {
                let message = format!("pattern `{}` {wrong}", entry.get_ref());
                faults.at(
                    FILE,
                    text,
                    entry.span().start,
                    message,
                    expected,
                    "for a folder and all in it write `folder/**`",
                );
            }
        }
    }
    compiled
}

fn hosts(text: &str, entries: &[Spanned<String>], faults: &mut Faults) -> Vec<HostPattern> {
    let mut compiled = Vec::with_capacity(entries.len());
    for entry in entries {
        match HostPattern::parse(entry.get_ref()) {
            Some(pattern) => compiled.push(pattern),
            None => {
                let message = format!("`{}` is not a host pattern", entry.get_ref());
                let expected = "a lower-case name, `*.name`, an address or a network like `10.0.0.0/8`";
                faults.at(FILE, text, entry.span().start, message, expected, "leave out scheme, port and path");
            }
        }
    }
    compiled
}
