//! Puts effects and findings together for the walker: objects, their classes, limits.
//!
//! A path's class follows from the path alone; a deletion is *destructive* by where it points, not by its flags.

use std::collections::BTreeSet;

use creel_model::{Certainty, CommandClass, Confidence, Effect, Finding, Object, Severity, Verb};

use super::walk::Walker;
use super::words::Arg;
use crate::path::{base_name, is_within, normalise};
use crate::{bounds, paths, suspicion};

/// Folders whose loss breaks the machine or cannot be rebuilt from a project.
const SYSTEM: &[&str] = &[
    "/etc",
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/boot",
    "/opt",
    "/var",
    "/root",
    "/srv",
    "/sys",
    "/proc",
    "/dev",
    "/home",
    "/Users",
    "/System",
    "/Library",
    "/Applications",
    "/mnt",
    "/media",
    "/snap",
    "/nix",
    "/private/etc",
];
/// Folders below those that are scratch space.
const SCRATCH: &[&str] = &["/tmp", "/var/tmp", "/dev/shm", "/private/tmp", "/var/cache", "/var/folders"];

/// Whether a path names an open file of the process by its number: `/dev/fd/63`, never `/dev/fd/../root/etc/shadow`.
pub(crate) fn is_descriptor(path: &str) -> bool {
    let number = path.strip_prefix("/dev/fd/").or_else(|| path.strip_prefix("/dev/pts/"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Paths that are streams, not files.
pub(crate) fn is_stream(path: &str) -> bool {
    matches!(
        path,
        "-" | "/dev/null"
            | "/dev/stdout"
            | "/dev/stderr"
            | "/dev/stdin"
            | "/dev/tty"
            | "/dev/zero"
            | "/dev/urandom"
            | "/dev/random"
            | "/dev/full"
    ) || is_descriptor(path)
}

/// Whether a path is a whole disk or partition.
fn is_disk(path: &str) -> bool {
    [
        "/dev/sd",
        "/dev/nvme",
        "/dev/hd",
        "/dev/vd",
        "/dev/xvd",
        "/dev/mmcblk",
        "/dev/disk",
        "/dev/rdisk",
        "/dev/mapper/",
        "/dev/dm-",
        "/dev/md",
        "/dev/mem",
        "/dev/kmem",
    ]
    .iter()
    .any(|prefix| path.starts_with(prefix))
}

/// What is said about an effect beside verb and object.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manner {
    pub(crate) recursive: bool,
    pub(crate) dynamic: bool,
    pub(crate) opaque: bool,
    pub(crate) classes: BTreeSet<CommandClass>,
    pub(crate) content: BTreeSet<String>,
}

/// How much an effect can change a verdict: above the limit of effects the heavier ones are kept.
fn weight(effect: &Effect) -> u8 {
    let changes = !matches!(effect.verb, Verb::Execute | Verb::Read);
    let marked = effect.classes.iter().any(|&class| suspicion::severity(class).is_some()) || !effect.content.is_empty();
    let wide = effect.verb == Verb::Delete || effect.elevated || effect.certainty == Certainty::Opaque;
    u8::from(changes) + 2 * u8::from(wide) + 4 * u8::from(marked)
}

impl Walker<'_> {
    /// Adds an effect once, within the limit.
    pub(crate) fn effect(&mut self, verb: Verb, object: Object, manner: Manner) {
        let certainty = if manner.opaque { Certainty::Opaque } else { Certainty::Parsed };
        let mut effect = Effect::new(verb, object, certainty);
        effect.recursive = manner.recursive;
        effect.dynamic = manner.dynamic;
        effect.elevated = self.elevated;
        effect.remote = self.remote;
        effect.content = manner.content;
        self.out.classes.extend(&manner.classes);
        effect.classes = manner.classes;
        let weight = weight(&effect);
        if self.full(weight) || self.out.effects.contains(&effect) {
            return;
        }
        if self.out.effects.len() >= bounds::EFFECTS {
            // What weighs more takes the place of the last one that weighs least: padding a text with harmless
            // commands must not hide the harmful one behind the limit.
            self.out.overflow = true;
            self.out.opaque = true;
            let least = self.weights.iter().copied().min().unwrap_or_default();
            if let Some(at) = self.weights.iter().rposition(|w| *w == least).filter(|_| least < weight) {
                self.weights.remove(at);
                self.out.effects.remove(at);
            } else {
                return;
            }
        }
        self.weights.push(weight);
        self.out.effects.push(effect);
    }

    /// Whether the limit was passed and nothing of that weight will be kept any more.
    fn full(&self, weight: u8) -> bool {
        self.out.overflow
            && self.out.effects.len() >= bounds::EFFECTS
            && self.weights.iter().all(|kept| *kept >= weight)
    }

    /// Whether effects of harmless commands are no longer kept: making them would only cost time.
    pub(crate) fn keeps_harmless(&self) -> bool {
        !self.full(0)
    }

    /// Notes why something is dangerous, once per place.
    pub(crate) fn finding(&mut self, code: &str, class: CommandClass, severity: Option<Severity>, why: &str) {
        let Some(usual) = suspicion::severity(class) else { return };
        self.out.classes.insert(class);
        let severity = severity.unwrap_or(usual);
        let span = Some(self.span);
        if self.out.findings.iter().any(|f| f.code == code && f.span == span)
            || self.out.findings.len() >= bounds::FINDINGS
        {
            return;
        }
        self.out.findings.push(Finding {
            code: code.to_owned(),
            class: class.as_str().to_owned(),
            severity,
            confidence: Confidence::Medium,
            span,
            evidence: why.to_owned(),
            remedy: String::new(),
            taxonomy: suspicion::taxonomy(class).iter().map(|&id| id.to_owned()).collect(),
        });
    }

    /// Notes a class with its usual code and severity.
    pub(crate) fn class(&mut self, class: CommandClass, why: &str) {
        self.finding(&format!("command.{class}"), class, None, why);
    }

    /// Something may do anything: an opaque effect, and the whole text is opaque.
    pub(crate) fn opaque(&mut self, program: &str, why: &str, hidden: bool) {
        self.out.opaque = true;
        let mut classes = BTreeSet::new();
        if hidden {
            classes.insert(CommandClass::Obfuscated);
            self.finding("command.obfuscated", CommandClass::Obfuscated, None, why);
        } else {
            self.finding("command.opaque", CommandClass::Obfuscated, Some(Severity::Low), why);
            self.out.classes.remove(&CommandClass::Obfuscated);
            if self.out.effects.iter().any(|e| e.classes.contains(&CommandClass::Obfuscated)) {
                self.out.classes.insert(CommandClass::Obfuscated);
            }
        }
        let object = Object::Program { program: program.to_owned(), argv: Vec::new(), script: None };
        self.effect(Verb::Execute, object, Manner { opaque: true, dynamic: true, classes, ..Manner::default() });
    }

    /// A limit was reached.
    pub(crate) fn limit(&mut self, what: &str) {
        self.out.overflow = true;
        self.opaque("", &format!("over a limit: {what}"), false);
    }

    /// The path of an argument as an effect states it, and whether it is dynamic.
    pub(crate) fn resolve(&self, arg: &Arg) -> (String, bool) {
        let text = arg.text.strip_prefix("file://").unwrap_or(&arg.text);
        if self.remote || arg.unknown || text.starts_with('~') {
            return (text.to_owned(), true);
        }
        match normalise(text, self.env.cwd.as_deref().unwrap_or("")) {
            Some(path) => (path, arg.loose),
            None => (text.to_owned(), true),
        }
    }

    /// The path as the kernel will walk it, where that may lead elsewhere than the normalised one: `link/../x` is not
    /// `x` when `link` is a symbolic link, and a repository may hold one. It is followed to its end on the machine.
    fn physical(&self, arg: &Arg, dynamic: bool) -> Option<String> {
        let text = arg.text.strip_prefix("file://").unwrap_or(&arg.text);
        if dynamic || !text.split('/').any(|part| part == "..") {
            return None;
        }
        if text.starts_with('/') {
            return Some(text.to_owned());
        }
        let cwd = self.env.cwd.as_deref().filter(|cwd| cwd.starts_with('/'))?;
        Some(format!("{cwd}/{text}"))
    }

    /// Adds an effect on a path; gives whether content at that path holds credentials.
    pub(crate) fn path_effect(&mut self, verb: Verb, arg: &Arg, recursive: bool) -> bool {
        let mut classes = BTreeSet::new();
        if arg.text.is_empty() || is_stream(&arg.text) {
            return false;
        }
        let (path, dynamic) = self.resolve(arg);
        let changes = matches!(verb, Verb::Write | Verb::Delete | Verb::Rename);
        let mut secret = false;
        for known in paths::path(&path) {
            secret |= known.secret;
            if let Some(class) = if changes { known.write } else { known.read } {
                classes.insert(class);
                self.class(class, &known.why);
            }
        }
        if verb == Verb::Delete && self.is_destructive(&path, recursive) {
            classes.insert(CommandClass::Destructive);
            self.class(CommandClass::Destructive, "deletes what is hard to get back");
        }
        if verb == Verb::Write && is_disk(&path) {
            classes.insert(CommandClass::Destructive);
            self.class(CommandClass::Destructive, "writes over a whole disk");
        }
        if arg.unknown && verb == Verb::Delete {
            self.opaque("rm", "the target of a deletion is not known", false);
        }
        let mut content = BTreeSet::new();
        if secret {
            content.insert("secret".to_owned());
        }
        let manner = Manner { recursive, dynamic, classes, content, opaque: false };
        let resolved = self.physical(arg, dynamic);
        self.effect(verb, Object::Path { path, resolved }, manner);
        secret
    }

    /// Whether losing what stands at `path` is hard to mend. Path as in effects; may end in a pattern.
    fn is_destructive(&self, path: &str, recursive: bool) -> bool {
        let whole = path.trim_end_matches(['*', '.', '?']);
        let folder = match whole.trim_end_matches('/') {
            "" if path.starts_with('/') => "/",
            folder => folder,
        };
        if !path.starts_with('/') {
            return recursive
                && (matches!(path, "." | ".." | "*" | "./*" | "../*" | "~" | "~/*" | "$HOME" | ".git")
                    || path.starts_with("../..")
                    || path.starts_with("$HOME/"));
        }
        if self.remote {
            return recursive && folder.matches('/').count() <= 1;
        }
        if is_disk(path) {
            return true;
        }
        let cwd = self.place.cwd;
        if recursive {
            if folder == "/" || (!cwd.is_empty() && is_within(cwd, folder)) {
                return true;
            }
            if folder == self.place.home || base_name(folder) == ".git" {
                return true;
            }
        }
        if !cwd.is_empty() && is_within(folder, cwd) && cwd != "/" {
            return false;
        }
        if SCRATCH.iter().any(|scratch| is_within(folder, scratch) && folder != *scratch) {
            return false;
        }
        let home = self.place.home;
        if !home.is_empty() && is_within(folder, home) {
            return recursive && !is_within(folder, &format!("{home}/.cache"));
        }
        if SYSTEM.iter().any(|system| is_within(folder, system)) {
            return true;
        }
        recursive && folder.matches('/').count() <= 2 && !folder.starts_with("/tmp")
    }

    /// Adds a network effect for a URL, `host`, `host:port` or `user@host:path`.
    pub(crate) fn host_effect(&mut self, verb: Verb, arg: &Arg, content: BTreeSet<String>) {
        let (host, port, url) = parse_host(&arg.text);
        if !arg.unknown && (!host.is_ascii() || host.contains('%') && !host.contains(':')) {
            // Programs turn such letters and codes into plain ones before they call.
            self.opaque("", "a host is not written in plain letters", true);
        }
        let dynamic = arg.unknown || arg.loose || host.is_empty();
        let object = Object::Host { host: if arg.unknown { String::new() } else { host }, port, url };
        self.effect(verb, object, Manner { dynamic, content, ..Manner::default() });
    }
}

/// Splits a URL or host into host, port and the URL without user information and query.
pub(crate) fn parse_host(text: &str) -> (String, Option<u16>, Option<String>) {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, text),
    };
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(at) => rest.split_at_checked(at).unwrap_or((rest, "")),
        None => (rest, ""),
    };
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    let (host, port) = if let Some(inner) = address.strip_prefix('[') {
        let (host, after) = inner.split_once(']').unwrap_or((inner, ""));
        (host, after.strip_prefix(':').and_then(|p| p.parse().ok()))
    } else {
        match address.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') => (host, port.parse().ok()),
            _ => (address, None),
        }
    };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let url = scheme.map(|scheme| {
        let port = port.map_or(String::new(), |p| format!(":{p}"));
        format!("{}://{host}{port}{path}", scheme.to_ascii_lowercase())
    });
    (host, port, url)
}

#[cfg(test)]
mod tests {
    use super::parse_host;

    #[test]
    fn urls_lose_user_information_and_query() {
        let (host, port, url) = parse_host("https://user:pw@Example.COM:8443/a/b?token=1#x");
        assert_eq!((host.as_str(), port), ("example.com", Some(8443)));
        assert_eq!(url.as_deref(), Some("https://example.com:8443/a/b"));
        assert_eq!(parse_host("git@host.example:repo.git").0, "host.example");
        assert_eq!(parse_host("[::1]:80"), ("::1".into(), Some(80), None));
    }
}
