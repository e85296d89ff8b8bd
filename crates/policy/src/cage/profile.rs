//! `profiles/*.toml` to checked profiles: what an agent may reach, as its author writes it.
//!
//! The file's name is the profile's name. Paths begin with `/`, `~` or `@workspace` and hold no wildcards: a grant names
//! what it grants. Nothing is joined or compiled here. The one fact a newcomer gets wrong: a line that grants is only a
//! wish; what the floor refuses stays refused, and where (`compile.rs`) the person is told.

use std::collections::{BTreeMap, BTreeSet};

use creel_model::cage::{Degrade, FileAccess, SealKind};
use serde::Deserialize;
use toml::Spanned;

use crate::text::{Faults, position};

/// Folder of the profiles in a bundle.
pub(crate) const FOLDER: &str = "profiles/";
/// Most profiles of a bundle with its bases.
pub(crate) const PROFILES_MAX: usize = 128;
/// Most paths, seals, sockets, names of one profile, each.
const LINES_MAX: usize = 512;
/// Longest path in bytes.
const PATH_BYTES_MAX: usize = 512;
/// Longest text that a missing file is begun with, in bytes.
const INITIAL_BYTES_MAX: usize = 4_096;
const HINT: &str = "a profile holds about, extends, kinds, degrade, programs, screen, clipboard, [[files]], [[seals]], \
                    [[sockets]], [network], [environment], [limits]";

/// Names that are never passed: they lead to sockets of the session or make programs load code.
const NEVER_PASSED: &[&str] = &[
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "GPG_AGENT_INFO",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "WAYLAND_SOCKET",
    "XAUTHORITY",
    "XDG_RUNTIME_DIR",
    "DOCKER_HOST",
    "LD_PRELOAD",
    "LD_AUDIT",
    "LD_LIBRARY_PATH",
    "BASH_ENV",
    "SUDO_ASKPASS",
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
];

/// A checked profile.
#[derive(Clone, Debug, Default)]
pub(crate) struct Profile {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) extends: Option<String>,
    pub(crate) kinds: BTreeSet<String>,
    pub(crate) degrade: Option<Degrade>,
    pub(crate) files: Vec<FileLine>,
    pub(crate) programs: Option<Vec<String>>,
    pub(crate) ports: BTreeSet<u16>,
    pub(crate) sockets: Vec<SocketLine>,
    pub(crate) pass: BTreeSet<String>,
    pub(crate) set: BTreeMap<String, String>,
    pub(crate) limits: Limits,
    pub(crate) seals: Vec<SealLine>,
}

/// What a line of files names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// A path that begins with `/`, `~` or `@workspace`.
    Path(String),
    /// Everything in a zone.
    Zone(String),
}

/// One path or zone of a `[[files]]` entry.
#[derive(Clone, Debug)]
pub(crate) struct FileLine {
    pub(crate) named: Named,
    pub(crate) access: FileAccess,
    pub(crate) optional: bool,
    pub(crate) initial: Option<String>,
    /// Made as a folder where it is missing.
    pub(crate) make: bool,
    /// File and line of the bundle.
    pub(crate) source: String,
}

#[derive(Clone, Debug)]
pub(crate) struct SocketLine {
    pub(crate) host: String,
    pub(crate) cage: String,
    pub(crate) source: String,
}

#[derive(Clone, Debug)]
pub(crate) struct SealLine {
    pub(crate) components: Vec<String>,
    pub(crate) kind: SealKind,
    pub(crate) source: String,
}

/// Limits as they stand in a profile; absent means that the profile it extends decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) processes: Option<u64>,
    pub(crate) memory: Option<u64>,
    pub(crate) open_files: Option<u64>,
    pub(crate) file: Option<u64>,
    pub(crate) temporary: Option<u64>,
    pub(crate) seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    about: String,
    #[serde(default)]
    extends: Option<Spanned<String>>,
    #[serde(default)]
    kinds: Vec<Spanned<String>>,
    #[serde(default)]
    degrade: Option<Degrade>,
    #[serde(default)]
    programs: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    screen: Option<Spanned<String>>,
    #[serde(default)]
    clipboard: Option<Spanned<String>>,
    #[serde(default)]
    files: Vec<Spanned<FilesEntry>>,
    #[serde(default)]
    seals: Vec<Spanned<SealEntry>>,
    #[serde(default)]
    sockets: Vec<SocketEntry>,
    #[serde(default)]
    network: NetworkEntry,
    #[serde(default)]
    environment: EnvironmentEntry,
    #[serde(default)]
    limits: LimitsEntry,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilesEntry {
    access: FileAccess,
    #[serde(default)]
    paths: Vec<Spanned<String>>,
    #[serde(default)]
    zone: Option<Spanned<String>>,
    #[serde(default)]
    required: bool,
    #[serde(default)]
    initial: Option<Spanned<String>>,
    #[serde(default)]
    make: bool,
    #[serde(default)]
    #[expect(dead_code, reason = "for the reader of the profile")]
    why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SealEntry {
    names: Vec<Spanned<String>>,
    kind: SealKind,
    #[serde(default)]
    #[expect(dead_code, reason = "for the reader of the profile")]
    why: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SocketEntry {
    host: Spanned<String>,
    #[serde(default)]
    cage: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkEntry {
    #[serde(default)]
    host_loopback_ports: Vec<Spanned<u16>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvironmentEntry {
    #[serde(default)]
    pass: Vec<Spanned<String>>,
    #[serde(default)]
    set: BTreeMap<Spanned<String>, Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsEntry {
    #[serde(default)]
    processes: Option<u64>,
    #[serde(default)]
    memory: Option<Spanned<String>>,
    #[serde(default)]
    open_files: Option<u64>,
    #[serde(default)]
    file: Option<Spanned<String>>,
    #[serde(default)]
    temporary: Option<Spanned<String>>,
    #[serde(default)]
    time: Option<Spanned<String>>,
}

/// A file that is being read.
struct Source<'a> {
    file: &'a str,
    text: &'a str,
    faults: &'a mut Faults,
}

/// Whether a file of a bundle is a profile, and its name then.
pub(crate) fn name_of(file: &str) -> Option<&str> {
    let name = file.strip_prefix(FOLDER)?.strip_suffix(".toml")?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (!name.is_empty() && name.len() <= 64 && name.bytes().all(plain)).then_some(name)
}

/// Reads one profile. `zones` are the bundle's.
pub(crate) fn read(file: &str, text: &str, zones: &BTreeSet<String>, faults: &mut Faults) -> Option<Profile> {
    let name = name_of(file)?.to_owned();
    let raw: File = faults.toml(file, text, HINT)?;
    let mut source = Source { file, text, faults };
    for (what, value) in [("screen", &raw.screen), ("clipboard", &raw.clipboard)] {
        if let Some(value) = value.as_ref().filter(|value| value.get_ref() != "none") {
            let message = format!("{what} `{}`", value.get_ref());
            source.fault(
                value.span().start,
                message,
                "`none`",
                "a cage shows nothing on the screen and reads nothing there",
            );
        }
    }
    let lines = raw.files.iter().map(|entry| entry.get_ref().paths.len().max(1)).sum::<usize>();
    let longest = lines.max(raw.seals.len()).max(raw.sockets.len()).max(raw.environment.pass.len());
    if longest.max(raw.environment.set.len()).max(raw.network.host_loopback_ports.len()) > LINES_MAX {
        source.fault(
            0,
            "too many lines".to_owned(),
            "at most 512 of each kind",
            "grant folders instead of single files",
        );
        return None;
    }
    let mut profile = Profile {
        name,
        about: raw.about,
        extends: raw.extends.map(Spanned::into_inner),
        kinds: raw.kinds.into_iter().map(Spanned::into_inner).collect(),
        degrade: raw.degrade,
        limits: source.limits(&raw.limits),
        ..Profile::default()
    };
    for entry in &raw.files {
        source.files(entry, zones, &mut profile.files);
    }
    for entry in &raw.seals {
        source.seal(entry, &mut profile.seals);
    }
    for entry in &raw.sockets {
        let cage = entry.cage.as_ref().unwrap_or(&entry.host);
        if let (Some(host), Some(cage)) = (source.path(&entry.host, false), source.path(cage, false)) {
            profile.sockets.push(SocketLine { host, cage, source: source.place(entry.host.span().start) });
        }
    }
    if let Some(programs) = &raw.programs {
        profile.programs = Some(programs.iter().filter_map(|path| source.path(path, true)).collect());
    }
    for port in &raw.network.host_loopback_ports {
        if *port.get_ref() == 0 {
            source.fault(
                port.span().start,
                "port 0".to_owned(),
                "1 to 65535",
                "name the port that a program listens on",
            );
        }
        profile.ports.insert(*port.get_ref());
    }
    source.environment(&raw.environment, &mut profile);
    Some(profile)
}

impl Source<'_> {
    fn fault(&mut self, offset: usize, message: String, expected: &str, hint: &str) {
        self.faults.at(self.file, self.text, offset, message, expected, hint);
    }

    fn place(&self, offset: usize) -> String {
        format!("{}:{}", self.file, position(self.text, offset).0)
    }

    fn files(&mut self, entry: &Spanned<FilesEntry>, zones: &BTreeSet<String>, lines: &mut Vec<FileLine>) {
        let at = entry.span().start;
        let entry = entry.get_ref();
        if entry.paths.is_empty() == entry.zone.is_none() {
            let message = "an entry of files that names nothing, or a zone and paths".to_owned();
            self.fault(at, message, "`paths = [..]` or `zone = \"..\"`", "write two entries");
            return;
        }
        if let Some(initial) = &entry.initial {
            let one = matches!(entry.paths.as_slice(), [path] if !path.get_ref().ends_with('/'));
            if entry.access != FileAccess::Write || !one || initial.get_ref().len() > INITIAL_BYTES_MAX {
                let message = "`initial` stands at no single writable file".to_owned();
                let expected = "one path with `access = \"write\"`, and at most 4096 bytes";
                self.fault(initial.span().start, message, expected, "give the file an entry of its own");
            }
        }
        if entry.make && (entry.access != FileAccess::Write || entry.zone.is_some() || entry.initial.is_some()) {
            let message = "`make` stands at no writable folder".to_owned();
            self.fault(
                at,
                message,
                "paths with `access = \"write\"`",
                "remove it, or give the folder an entry of its own",
            );
        }
        if let Some(zone) = &entry.zone {
            if !zones.contains(zone.get_ref()) {
                let message = format!("unknown zone `{}`", zone.get_ref());
                self.fault(zone.span().start, message, "a zone of zones.toml", "`creel policy show` lists them");
            }
            lines.push(FileLine {
                named: Named::Zone(zone.get_ref().clone()),
                access: entry.access,
                optional: true,
                initial: None,
                make: false,
                source: self.place(zone.span().start),
            });
        }
        for path in &entry.paths {
            if let Some(named) = self.path(path, true) {
                lines.push(FileLine {
                    named: Named::Path(named),
                    access: entry.access,
                    optional: !entry.required,
                    initial: entry.initial.as_ref().map(|text| text.get_ref().clone()),
                    make: entry.make,
                    source: self.place(path.span().start),
                });
            }
        }
    }

    /// A path without wildcards; `workspace`: it may begin there.
    fn path(&mut self, path: &Spanned<String>, workspace: bool) -> Option<String> {
        let text = path.get_ref();
        let begins = text.starts_with('/')
            || text == "~"
            || text.starts_with("~/")
            || (workspace && (text == "@workspace" || text.starts_with("@workspace/")));
        let plain = text.split('/').all(|part| part != "." && part != "..") && !text.contains("//");
        let (expected, hint) = if !begins {
            ("a path that begins with `/`, `~` or `@workspace`", "write where it lies")
        } else if !plain || text.len() > PATH_BYTES_MAX || text.contains('\0') {
            ("a path without `.`, `..` and empty parts, at most 512 bytes", "write the path as it is on the disk")
        } else if text.contains(['*', '?', '[', '$', '`']) {
            ("a path without wildcards", "grant the folder, or name a zone")
        } else {
            let trimmed = text.trim_end_matches('/');
            return Some(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() });
        };
        self.fault(path.span().start, format!("path `{text}`"), expected, hint);
        None
    }

    fn seal(&mut self, entry: &Spanned<SealEntry>, seals: &mut Vec<SealLine>) {
        for name in &entry.get_ref().names {
            let components: Vec<String> = name.get_ref().split('/').map(str::to_owned).collect();
            let good = |part: &String| {
                !part.is_empty()
                    && part != "."
                    && part != ".."
                    && !part.contains("**")
                    && !part.bytes().all(|b| b == b'*')
            };
            if components.len() > 8 || !components.iter().all(good) {
                let expected = "the last names of a path, for example `.git/hooks`; `*` only inside a name";
                let message = format!("seal `{}`", name.get_ref());
                self.fault(name.span().start, message, expected, "a seal holds wherever that name appears");
                continue;
            }
            let source = self.place(name.span().start);
            seals.push(SealLine { components, kind: entry.get_ref().kind, source });
        }
    }

    fn environment(&mut self, entry: &EnvironmentEntry, profile: &mut Profile) {
        let plain = |name: &str| {
            !name.is_empty()
                && name.len() <= 128
                && !name.starts_with(|first: char| first.is_ascii_digit())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        for name in &entry.pass {
            let text = name.get_ref();
            let (front, any) = text.strip_suffix('*').map_or((text.as_str(), false), |front| (front, true));
            let never = NEVER_PASSED.iter().find(|never| if any { never.starts_with(front) } else { **never == front });
            if let Some(never) = never {
                let message = format!("`{text}` would pass `{never}`");
                let hint = "it leads out of the cage or makes programs load code; name the others one by one";
                self.fault(name.span().start, message, "other names", hint);
            } else if !plain(front) {
                let expected = "a variable's name, with `*` at its end at most";
                self.fault(name.span().start, format!("variable `{text}`"), expected, "correct the name");
            } else {
                profile.pass.insert(text.clone());
            }
        }
        for (name, value) in &entry.set {
            let never = NEVER_PASSED.contains(&name.get_ref().as_str());
            if !plain(name.get_ref()) || never || value.get_ref().contains('\0') || value.get_ref().len() > 4_096 {
                let message = format!("variable `{}`", name.get_ref());
                self.fault(name.span().start, message, "another name, and at most 4096 bytes", "correct or remove it");
            } else {
                profile.set.insert(name.get_ref().clone(), value.get_ref().clone());
            }
        }
    }

    fn limits(&mut self, entry: &LimitsEntry) -> Limits {
        const BYTES: &[(&str, u64)] = &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];
        const TIME: &[(&str, u64)] = &[("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
        for (name, count) in [("processes", entry.processes), ("open_files", entry.open_files)] {
            if count.is_some_and(|count| !(8..=1 << 22).contains(&count)) {
                let at = self.text.find(name).unwrap_or(0);
                self.fault(at, format!("{name} out of range"), "8 to 4194304", "leave it out for no limit");
            }
        }
        Limits {
            processes: entry.processes,
            memory: self.amount(entry.memory.as_ref(), BYTES, "for example `8 GiB`"),
            open_files: entry.open_files,
            file: self.amount(entry.file.as_ref(), BYTES, "for example `8 GiB`"),
            temporary: self.amount(entry.temporary.as_ref(), BYTES, "for example `8 GiB`"),
            seconds: self.amount(entry.time.as_ref(), TIME, "for example `8h` or `30m`"),
        }
    }

    fn amount(&mut self, text: Option<&Spanned<String>>, units: &[(&str, u64)], expected: &str) -> Option<u64> {
        let text = text?;
        let word = text.get_ref();
        let split = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
        let (number, unit) = word.split_at(split);
        let factor = units.iter().find(|(name, _)| *name == unit.trim_start()).map(|(_, factor)| *factor);
        let amount = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
        if amount.is_none_or(|amount| amount == 0) {
            self.fault(text.span().start, format!("amount `{word}`"), expected, "a whole number and a unit");
            return None;
        }
        amount
    }
}
