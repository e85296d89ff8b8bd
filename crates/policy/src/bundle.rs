//! A loaded bundle: every file checked, every rule compiled, ready to judge.
//!
//! A bundle may name a base by digest and add to it. The layers are joined here, and what an upper layer may do is
//! enforced here: be stricter, widen delegated zones, except delegated rules — nothing else.

use std::collections::{BTreeMap, BTreeSet};

use creel_model::{Digest, Object, RuleMode, Verb, Verdict, Zone};

use crate::cage::{self, Hold, Profiles};
use crate::engine::Engine;
use crate::exceptions::{self, Exception, ExceptionInfo};
use crate::facts::Names;
use crate::manifest::{self, Manifest};
use crate::question::{Places, RuleInfo};
use crate::rules::{self, RULES_MAX, Rule};
use crate::tables::{self, Case, PlanCase};
use crate::text::{Diagnostic, Faults};
use crate::zones::{self, Zones};
use crate::{digest, schema};

/// A bundle that can judge. `Send` and `Sync`; judging changes nothing in it.
#[derive(Debug)]
pub struct Bundle {
    pub(crate) digest: Digest,
    pub(crate) id: String,
    pub(crate) version: String,
    pub(crate) base: Option<Digest>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) infos: Vec<RuleInfo>,
    pub(crate) zones: Zones,
    pub(crate) exceptions: Vec<Exception>,
    pub(crate) defaults: BTreeMap<Verb, Verdict>,
    pub(crate) cases: Vec<Case>,
    pub(crate) plan_cases: Vec<PlanCase>,
    pub(crate) names: Names,
    pub(crate) engine: Engine,
    pub(crate) profiles: Profiles,
    /// What plans of cages hold in each zone.
    pub(crate) holds: BTreeMap<Zone, Hold>,
}

/// Bundles that others may name as their base, by digest.
#[derive(Clone, Debug, Default)]
pub struct Layers(BTreeMap<Digest, BTreeMap<String, String>>);

impl Layers {
    /// Adds a bundle's files and says the digest by which others name it.
    pub fn add(&mut self, files: BTreeMap<String, String>) -> Digest {
        let digest = digest::of(&files);
        self.0.insert(digest.clone(), files);
        digest
    }
}

/// Rule ids that the bundle does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownRules(pub Vec<String>);

impl std::fmt::Display for UnknownRules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no such rule: {}", self.0.join(", "))
    }
}

impl std::error::Error for UnknownRules {}

impl Bundle {
    /// At most this many effects are judged; an action with more is answered with at least *ask*.
    pub const EFFECTS_MAX: usize = 64;
    /// At most this many files in a bundle.
    pub const FILES_MAX: usize = 256;
    /// At most this many bytes in a bundle's files together.
    pub const BYTES_MAX: usize = 4 << 20;
    /// At most this many layers, the bundle itself counted.
    pub const LAYERS_MAX: usize = 4;

    /// Loads a bundle that has no base. `now_unix_s` decides whether exceptions last too long.
    ///
    /// # Errors
    /// Everything that is wrong with it, at most 100 faults, each with its place.
    pub fn load(files: &BTreeMap<String, String>, now_unix_s: i64) -> Result<Self, Vec<Diagnostic>> {
        Self::load_over(files, &Layers::default(), now_unix_s)
    }

    /// Loads a bundle whose base, if it names one, is among `layers`.
    ///
    /// # Errors
    /// Everything that is wrong with it, at most 100 faults, each with its place.
    pub fn load_over(
        files: &BTreeMap<String, String>,
        layers: &Layers,
        now_unix_s: i64,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut faults = Faults::default();
        let bundle = Loader::default().load(files, layers, now_unix_s, &mut faults);
        match bundle {
            Some(bundle) if faults.0.is_empty() => Ok(bundle),
            _ => Err(faults.0),
        }
    }

    /// The digest of a bundle's files, without loading them.
    #[must_use]
    pub fn digest_of(files: &BTreeMap<String, String>) -> Digest {
        digest::of(files)
    }

    /// Digest over all its files; a base is named in them by its own.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its version, the author's own word.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Digest of the bundle below it.
    #[must_use]
    pub fn base(&self) -> Option<&Digest> {
        self.base.as_ref()
    }

    /// Its rules and those of its bases, by id; `mode` as it stands now.
    #[must_use]
    pub fn rules(&self) -> &[RuleInfo] {
        &self.infos
    }

    /// The rule of that id.
    #[must_use]
    pub fn rule(&self, id: &str) -> Option<&RuleInfo> {
        self.infos.binary_search_by(|rule| rule.id.as_str().cmp(id)).ok().and_then(|place| self.infos.get(place))
    }

    /// What holds per verb where no rule matches.
    #[must_use]
    pub fn defaults(&self) -> &BTreeMap<Verb, Verdict> {
        &self.defaults
    }

    /// The permits generated from the defaults, as Cedar text: one per verb whose default is *allow*.
    #[must_use]
    pub fn generated_permits(&self) -> Vec<String> {
        self.defaults
            .iter()
            .filter(|(_, verdict)| **verdict == Verdict::Allow)
            .map(|(verb, _)| crate::engine::generated_permit(*verb))
            .collect()
    }

    /// Its exceptions, expired ones too.
    pub fn exceptions(&self) -> impl Iterator<Item = &ExceptionInfo> {
        self.exceptions.iter().map(|exception| &exception.info)
    }

    /// Zones of a path; a path with an unknown beginning or a shell pattern is in every guarded zone it may be in.
    #[must_use]
    pub fn zones_of_path(&self, path: &str, places: &Places) -> BTreeSet<Zone> {
        self.zones.of_path(path, places)
    }

    /// The zone of a host; `unknown` where none fits.
    #[must_use]
    pub fn zone_of_host(&self, host: &str) -> Zone {
        self.zones.of_host(host)
    }

    /// Zones of an effect's object, as they should stand in the effect: for a path, those of where it leads, and the
    /// guarded ones of how it is written; for a program, those of its script.
    #[must_use]
    pub fn zones_of_object(&self, object: &Object, places: &Places) -> BTreeSet<Zone> {
        self.zones.of_object(object, places)
    }

    /// Puts modes over the bundle's own: a rule's id names that rule; `*` is a ceiling for all others (`*` = `audit`
    /// makes everything at most audit, `*` = `block` leaves the bundle's own words). Replaces earlier overlays.
    /// Prepares the rules anew: to be called off the deciding thread.
    ///
    /// # Errors
    /// Ids that the bundle does not have; then nothing is changed.
    pub fn set_modes(&mut self, overlay: &BTreeMap<String, RuleMode>) -> Result<(), UnknownRules> {
        let unknown: Vec<String> = overlay
            .keys()
            .filter(|id| *id != "*" && !self.rules.iter().any(|rule| rule.info.id == **id && !rule.permit))
            .cloned()
            .collect();
        if !unknown.is_empty() {
            return Err(UnknownRules(unknown));
        }
        for rule in &mut self.rules {
            rule.set_mode = overlay.get(&rule.info.id).copied();
            rule.info.mode = match (overlay.get(&rule.info.id), overlay.get("*")) {
                (Some(mode), _) => *mode,
                (None, Some(ceiling)) if !rule.permit => weaker(rule.own_mode, *ceiling),
                (None, _) => rule.own_mode,
            };
        }
        self.infos = self.rules.iter().map(|rule| rule.info.clone()).collect();
        self.engine = Engine::build(&self.rules, &self.defaults);
        self.holds = cage::holds(&self.rules, &self.zones);
        Ok(())
    }
}

fn weaker(left: RuleMode, right: RuleMode) -> RuleMode {
    if strictness(left) <= strictness(right) { left } else { right }
}

fn strictness(mode: RuleMode) -> u8 {
    match mode {
        RuleMode::Off => 0,
        RuleMode::Audit => 1,
        RuleMode::Block => 2,
    }
}

/// Joins layers from the lowest up.
#[derive(Default)]
struct Loader {
    rules: Vec<Rule>,
    zones: Zones,
    exceptions: Vec<Exception>,
    defaults: BTreeMap<Verb, Verdict>,
    cases: Vec<Case>,
    delegated_zones: BTreeSet<String>,
    delegated_exceptions: BTreeSet<String>,
    delegated_profiles: bool,
    profiles: Profiles,
    plan_cases: Vec<PlanCase>,
}

impl Loader {
    fn load(
        mut self,
        files: &BTreeMap<String, String>,
        layers: &Layers,
        now_unix_s: i64,
        faults: &mut Faults,
    ) -> Option<Bundle> {
        let names = fatal(Names::new(), faults)?;
        let schema = fatal(schema::schema(), faults)?;
        let chain = chain(files, layers, faults)?;
        let (top, base) = {
            let (_, manifest) = chain.last()?;
            ((manifest.id.clone(), manifest.version.clone()), manifest.base.clone())
        };
        for (index, (files, manifest)) in chain.iter().enumerate() {
            self.layer(index, files, manifest, &schema, now_unix_s, faults);
        }
        if !faults.0.is_empty() {
            return None;
        }
        self.rules.sort_by(|left, right| left.info.id.cmp(&right.info.id));
        let engine = Engine::build(&self.rules, &self.defaults);
        let holds = cage::holds(&self.rules, &self.zones);
        Some(Bundle {
            digest: digest::of(files),
            id: top.0,
            version: top.1,
            base: base.map(Digest),
            infos: self.rules.iter().map(|rule| rule.info.clone()).collect(),
            rules: self.rules,
            zones: self.zones,
            exceptions: self.exceptions,
            defaults: self.defaults,
            cases: self.cases,
            plan_cases: self.plan_cases,
            names,
            engine,
            profiles: self.profiles,
            holds,
        })
    }

    fn layer(
        &mut self,
        index: usize,
        files: &BTreeMap<String, String>,
        manifest: &Manifest,
        schema: &cedar_policy::Schema,
        now_unix_s: i64,
        faults: &mut Faults,
    ) {
        let text = files.get(manifest::FILE).map_or("", String::as_str);
        // A base's tables hold for the base alone: what a layer adds may rightly make some of its cases stricter.
        self.cases.clear();
        self.plan_cases.clear();
        self.join_defaults(index, manifest, text, faults);
        if let Some(zones) = files.get(zones::FILE) {
            let delegated = (index > 0).then_some(&self.delegated_zones);
            self.zones.add(zones, delegated, faults);
        }
        let zone_names = self.zones.names();
        for (file, text) in files.iter().filter(|(file, _)| file.starts_with("rules/") && is_kind(file, ".cedar")) {
            let rules = rules::read(file, text, index, schema, &zone_names, faults);
            self.join_rules(index, file, text, rules, faults);
        }
        self.join_modes(index, manifest, text, faults);
        if let Some(text) = files.get(exceptions::FILE) {
            let rules = &self.rules;
            let delegated = &self.delegated_exceptions;
            let allowed = |id: &str| {
                let Some(rule) = rules.iter().find(|rule| rule.info.id == id && !rule.permit) else {
                    return Err(("does not exist", "see `creel policy show` for the rules"));
                };
                if !rule.info.exceptable {
                    return Err(("is not exceptable", "it says @exceptable(\"no\")"));
                }
                if rule.layer < index && !delegated.contains("*") && !delegated.contains(id) {
                    let hint = "the base must delegate it: `[delegate] exceptions = [..]` in its bundle.toml";
                    return Err(("is the base's and not delegated", hint));
                }
                Ok(())
            };
            let found = exceptions::read(text, now_unix_s, &allowed, faults);
            self.exceptions.extend(found);
        }
        for (file, text) in files.iter().filter(|(file, _)| cage::name_of(file).is_some()) {
            self.profiles.add(index, file, text, &zone_names, self.delegated_profiles, faults);
        }
        self.profiles.check(files, faults);
        for (file, text) in files.iter().filter(|(file, _)| file.starts_with("tests/") && is_kind(file, ".toml")) {
            let known = |id: &str| rules::RESERVED.contains(&id) || self.rules.iter().any(|rule| rule.info.id == id);
            let cases = tables::read(file, text, &known, &mut self.plan_cases, faults);
            self.cases.extend(cases);
        }
        if index > 0 {
            self.delegated_zones.retain(|zone| manifest.delegated_zones.contains(zone));
            self.delegated_profiles &= manifest.delegated_profiles;
            self.delegated_exceptions.retain(|rule| manifest.delegated_exceptions.contains_key(rule));
        } else {
            self.delegated_profiles = manifest.delegated_profiles;
            self.delegated_zones.clone_from(&manifest.delegated_zones);
            self.delegated_exceptions = manifest.delegated_exceptions.keys().cloned().collect();
        }
        for (rule, offset) in &manifest.delegated_exceptions {
            if rule != "*" && !self.rules.iter().any(|known| known.info.id == *rule && known.info.exceptable) {
                let message = format!("delegated rule `{rule}`");
                faults.at(manifest::FILE, text, *offset, message, "`*` or an exceptable rule's id", "correct the id");
            }
        }
    }

    fn join_defaults(&mut self, index: usize, manifest: &Manifest, text: &str, faults: &mut Faults) {
        for (verb, default) in &manifest.defaults {
            let below = self.defaults.get(verb).copied().unwrap_or(Verdict::Allow);
            if index > 0 && default.verdict < below {
                let message =
                    format!("a layer relaxes the default of `{verb}` from `{below}` to `{}`", default.verdict);
                let expected = format!("`{below}` or stricter");
                faults.at(
                    manifest::FILE,
                    text,
                    default.offset,
                    message,
                    &expected,
                    "lower layers may only be stricter",
                );
            } else {
                self.defaults.insert(*verb, default.verdict);
            }
        }
    }

    fn join_rules(&mut self, index: usize, file: &str, text: &str, rules: Vec<Rule>, faults: &mut Faults) {
        for rule in rules {
            let offset = text.find(&format!("\"{}\"", rule.info.id)).unwrap_or(0);
            if self.rules.iter().any(|known| known.info.id == rule.info.id) {
                let message = format!("rule `{}` is declared twice", rule.info.id);
                faults.at(file, text, offset, message, "each id once, bases included", "rename one of the two");
            } else if rule.permit && index > 0 {
                let message = format!("a layer permits (`{}`)", rule.info.id);
                faults.at(file, text, offset, message, "`forbid`", "lower layers may only be stricter");
            } else if rule.permit && rule.info.verbs.iter().all(|verb| self.defaults.get(verb) == Some(&Verdict::Allow))
            {
                let message = format!("permit `{}` opens nothing", rule.info.id);
                let hint = "its verbs are allowed by default already; remove it, or make the default ask or deny";
                faults.at(file, text, offset, message, "a verb whose default is ask or deny", hint);
            } else if self.rules.len() >= RULES_MAX {
                faults.at(file, text, offset, "too many rules".to_owned(), "at most 2000", "join rules with `||`");
                return;
            } else {
                self.rules.push(rule);
            }
        }
    }

    fn join_modes(&mut self, index: usize, manifest: &Manifest, text: &str, faults: &mut Faults) {
        for (id, (mode, offset)) in &manifest.modes {
            match self.rules.iter_mut().find(|rule| rule.info.id == *id && !rule.permit) {
                None => {
                    let message = format!("mode of an unknown rule `{id}`");
                    faults.at(manifest::FILE, text, *offset, message, "a rule's id", "see `creel policy show`");
                }
                Some(rule) if rule.layer < index && strictness(*mode) < strictness(rule.own_mode) => {
                    let message = format!("a layer relaxes rule `{id}` from `{}` to `{mode}`", rule.own_mode);
                    let expected = format!("`{}` or stricter", rule.own_mode);
                    faults.at(manifest::FILE, text, *offset, message, &expected, "use a delegated exception");
                }
                Some(rule) => {
                    rule.own_mode = *mode;
                    rule.info.mode = *mode;
                }
            }
        }
    }
}

/// The layers from the lowest up, each with its manifest.
fn chain<'a>(
    files: &'a BTreeMap<String, String>,
    layers: &'a Layers,
    faults: &mut Faults,
) -> Option<Vec<(&'a BTreeMap<String, String>, Manifest)>> {
    let mut chain = Vec::new();
    let mut current = files;
    loop {
        check_files(current, faults)?;
        let text = current.get(manifest::FILE)?;
        let manifest = manifest::read(text, faults)?;
        let base = manifest.base.clone();
        let base_at = manifest.base_at;
        chain.push((current, manifest));
        let Some(base) = base else { break };
        if chain.len() >= Bundle::LAYERS_MAX {
            faults.at(manifest::FILE, text, base_at, "too many layers".to_owned(), "at most 4", "join two of them");
            return None;
        }
        let Some(below) = layers.0.get(&Digest(base.clone())) else {
            let message = format!("base `{base}` is not here");
            let hint = "install the base bundle first; its digest is shown by `creel policy show`";
            faults.at(manifest::FILE, text, base_at, message, "the digest of an installed bundle", hint);
            return None;
        };
        current = below;
    }
    chain.reverse();
    Some(chain)
}

/// Refuses files that would be silently ignored.
fn check_files(files: &BTreeMap<String, String>, faults: &mut Faults) -> Option<()> {
    let mut whole =
        |file: &str, message: String, expected: &str, hint: &str| faults.at(file, "", 0, message, expected, hint);
    if files.len() > Bundle::FILES_MAX {
        whole("", format!("{} files", files.len()), "at most 256", "join rule files");
        return None;
    }
    let bytes: usize = files.values().map(String::len).sum();
    if bytes > Bundle::BYTES_MAX {
        whole("", format!("{bytes} bytes"), "at most 4 MiB", "a bundle holds text for people to review");
        return None;
    }
    if !files.contains_key(manifest::FILE) {
        whole(
            manifest::FILE,
            "there is no `bundle.toml`".to_owned(),
            "id, version, creel, [default]",
            "see docs/policy.md",
        );
        return None;
    }
    for file in files.keys() {
        let known = [manifest::FILE, zones::FILE, exceptions::FILE].contains(&file.as_str())
            || (file.starts_with("rules/") && is_kind(file, ".cedar"))
            || (file.starts_with("tests/") && is_kind(file, ".toml"))
            || cage::name_of(file).is_some()
            || is_kind(file, ".md");
        if !known {
            let expected =
                "bundle.toml, zones.toml, exceptions.toml, rules/*.cedar, profiles/*.toml, tests/*.toml, *.md";
            let hint = if file.starts_with(cage::FOLDER) {
                "a profile is `profiles/<name>.toml`, its name at most 64 lower-case letters, digits and `-`"
            } else {
                "a file in the wrong place would be ignored; move or remove it"
            };
            whole(file, format!("`{file}` is not part of a bundle"), expected, hint);
        }
    }
    Some(())
}

fn is_kind(file: &str, suffix: &str) -> bool {
    file.ends_with(suffix) && !file.contains("..") && file.matches('/').count() <= 3
}

/// An error in creel's own tables, which no bundle can cause.
fn fatal<T>(result: Result<T, String>, faults: &mut Faults) -> Option<T> {
    result.map_err(|error| faults.at("", "", 0, error, "", "this is a fault of creel; please report it")).ok()
}
