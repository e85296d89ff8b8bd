//! Where the bundle in force comes from, and what of it is kept between starts.
//!
//! Order: the organisation's folder (`<configuration>/policy`, trusted by its owner), a bundle that was activated here
//! (`<state>/policy`, `local-unsigned`), the starter bundle that is built in. Modes that a person set are kept beside
//! it; without any, every rule only records (`audit`), unless creel was started with `--enforce`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use creel_guard::Trust;
use creel_model::{Mode, RuleMode};
use creel_policy::{Bundle, Diagnostic};
use serde::{Deserialize, Serialize};

use crate::config::Config;

/// A bundle that loaded, with where it comes from.
pub struct Source {
    /// Checked.
    pub bundle: Bundle,
    /// Its files.
    pub files: BTreeMap<String, String>,
    /// Why it is believed.
    pub trust: Trust,
    /// What went wrong with one that should have come before it.
    pub problem: Option<String>,
}

/// What a person decided about the rules' modes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modes {
    /// By rule id.
    #[serde(default)]
    pub rules: BTreeMap<String, RuleMode>,
    /// What holds for a rule that is not named; absent: the bundle's own word.
    #[serde(default)]
    pub all: Option<RuleMode>,
}

/// Reads a bundle folder: text files below it, by relative path.
///
/// # Errors
/// It is no folder, has links or special files in it, is not text, or is larger than a bundle may be.
pub fn read_folder(folder: &Path) -> Result<BTreeMap<String, String>, String> {
    let mut files = BTreeMap::new();
    let mut bytes = 0;
    read_below(folder, folder, 0, &mut files, &mut bytes)?;
    Ok(files)
}

fn read_below(
    top: &Path,
    folder: &Path,
    depth: usize,
    files: &mut BTreeMap<String, String>,
    bytes: &mut usize,
) -> Result<(), String> {
    let name = |path: &Path| path.strip_prefix(top).unwrap_or(path).display().to_string();
    if depth > 4 {
        return Err(format!("`{}` is nested too deeply for a bundle", name(folder)));
    }
    let entries = fs::read_dir(folder).map_err(|error| format!("cannot read `{}`: {error}", folder.display()))?;
    for entry in entries {
        let entry = entry.map_err(|error| format!("cannot read `{}`: {error}", folder.display()))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if kind.is_dir() {
            read_below(top, &path, depth + 1, files, bytes)?;
        } else if kind.is_file() {
            let text = read_text(&path, Bundle::BYTES_MAX)
                .map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
            *bytes += text.len();
            files.insert(name(&path), text);
            if *bytes > Bundle::BYTES_MAX || files.len() > Bundle::FILES_MAX {
                return Err(format!("`{}` is larger than a bundle may be", top.display()));
            }
        } else {
            return Err(format!("`{}` is neither a file nor a folder", name(&path)));
        }
    }
    Ok(())
}

fn read_text(path: &Path, bytes_max: usize) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(bytes_max as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}

/// The bundle to start with.
///
/// # Errors
/// Not even the starter bundle loads, which is a fault of the program.
pub fn at_start(config: &Config, now_unix_s: i64) -> Result<Source, String> {
    let mut problem = None;
    let organisation = config.configuration.join("policy");
    for (folder, trust) in [(organisation, trust_of(config)), (activated(config), Trust::LocalUnsigned)] {
        if !folder.is_dir() {
            continue;
        }
        let loaded = read_folder(&folder).and_then(|files| {
            // The packages make this folder, so that an administrator finds where a bundle belongs.
            if files.is_empty() {
                return Ok(None);
            }
            let bundle = Bundle::load(&files, now_unix_s).map_err(|errors| first(&errors))?;
            Ok(Some((bundle, files)))
        });
        match loaded {
            Ok(None) => {}
            Ok(Some((bundle, files))) => return Ok(Source { bundle, files, trust, problem }),
            Err(why) => problem = Some(format!("the bundle in `{}` is not used: {why}", folder.display())),
        }
    }
    Ok(Source { problem, ..starter(now_unix_s)? })
}

/// The bundle that is built in.
///
/// # Errors
/// It does not load, which is a fault of the program.
pub fn starter(now_unix_s: i64) -> Result<Source, String> {
    let files = creel_policy::starter();
    let bundle = Bundle::load(&files, now_unix_s).map_err(|errors| first(&errors))?;
    Ok(Source { bundle, files, trust: Trust::BuiltIn, problem: None })
}

/// Keeps an activated bundle for the next start.
///
/// # Errors
/// The state folder cannot be written.
pub fn keep(config: &Config, files: &BTreeMap<String, String>) -> io::Result<()> {
    let folder = activated(config);
    let fresh = config.state.join("policy.new");
    let old = config.state.join("policy.old");
    let _ = fs::remove_dir_all(&fresh);
    let _ = fs::remove_dir_all(&old);
    for (name, text) in files {
        let path = fresh.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, text)?;
    }
    match fs::rename(&folder, &old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(&fresh, &folder)?;
    let _ = fs::remove_dir_all(&old);
    Ok(())
}

/// The modes that a person set; with `--enforce` and none set, the bundle's own.
#[must_use]
pub fn modes(config: &Config) -> Modes {
    match fs::read_to_string(config.state.join("modes.json")) {
        Ok(text) => serde_json::from_str(&text)
            // A damaged file must not turn rules off: the bundle's own word is the stricter reading.
            .unwrap_or_default(),
        Err(_) if config.enforce => Modes::default(),
        Err(_) => Modes { rules: BTreeMap::new(), all: Some(RuleMode::Audit) },
    }
}

/// Keeps modes for the next start, replacing the file at once.
///
/// # Errors
/// The state folder cannot be written.
pub fn keep_modes(config: &Config, modes: &Modes) -> io::Result<()> {
    let path = config.state.join("modes.json");
    let fresh = config.state.join("modes.json.new");
    fs::write(&fresh, serde_json::to_vec_pretty(modes)?)?;
    fs::rename(fresh, path)
}

impl Modes {
    /// What each rule's mode becomes; rules that the bundle switched off stay off unless named.
    #[must_use]
    pub fn of(&self, bundle: &Bundle) -> BTreeMap<String, RuleMode> {
        // `all` stays a ceiling instead of becoming each rule's own mode: a cage holds what the bundle says even while the
        // hook only records, and only a mode that a person set for a rule by name loosens it there.
        let known = bundle.rules().iter().filter_map(|rule| self.rules.get_key_value(&rule.id));
        let mut modes: BTreeMap<String, RuleMode> = known.map(|(id, mode)| (id.clone(), *mode)).collect();
        modes.extend(self.all.map(|mode| ("*".to_owned(), mode)));
        modes
    }
}

fn activated(config: &Config) -> PathBuf {
    config.state.join("policy")
}

/// A bundle is `root-owned` only when nobody else could have written any of it.
fn trust_of(config: &Config) -> Trust {
    let mut path = config.configuration.join("policy");
    if config.mode == Mode::User {
        return Trust::LocalUnsigned;
    }
    loop {
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.uid() == 0 && metadata.mode() & 0o022 == 0 => {}
            _ => return Trust::LocalUnsigned,
        }
        if !path.pop() || path.as_os_str().is_empty() {
            return Trust::RootOwned;
        }
    }
}

fn first(errors: &[Diagnostic]) -> String {
    match errors {
        [] => "it has errors".to_owned(),
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(state: &Path, enforce: bool) -> Config {
        Config {
            mode: Mode::User,
            runtime: state.join("run"),
            state: state.to_owned(),
            configuration: state.join("etc"),
            enforce,
            root_socket: state.join("root.sock"),
            anchors: Vec::new(),
            with_parent: false,
        }
    }

    #[test]
    fn it_starts_in_audit_unless_told_and_keeps_what_a_person_set() {
        let base = tempfile::tempdir().expect("temp");
        assert_eq!(modes(&config(base.path(), false)).all, Some(RuleMode::Audit));
        assert_eq!(modes(&config(base.path(), true)).all, None);
        let set = Modes { rules: BTreeMap::from([("a".to_owned(), RuleMode::Block)]), all: Some(RuleMode::Audit) };
        keep_modes(&config(base.path(), false), &set).expect("kept");
        assert_eq!(modes(&config(base.path(), true)), set);
        fs::write(base.path().join("modes.json"), "{").expect("damage");
        assert_eq!(modes(&config(base.path(), false)), Modes::default(), "damaged means strict");
    }

    #[test]
    fn a_bundle_that_does_not_load_is_named_and_the_starter_is_used() {
        let base = tempfile::tempdir().expect("temp");
        let config = config(base.path(), false);
        fs::create_dir_all(config.configuration.join("policy")).expect("folder");
        fs::write(config.configuration.join("policy/bundle.toml"), "nonsense = [").expect("file");
        let source = at_start(&config, 1_790_000_000).expect("starter");
        assert_eq!(source.trust, Trust::BuiltIn);
        assert!(source.problem.expect("a problem").contains("bundle.toml"));
    }

    #[test]
    fn an_empty_folder_for_a_bundle_is_no_bundle() {
        let base = tempfile::tempdir().expect("temp");
        let config = config(base.path(), false);
        fs::create_dir_all(config.configuration.join("policy")).expect("folder");
        let source = at_start(&config, 1_790_000_000).expect("starter");
        assert_eq!((source.trust, source.problem), (Trust::BuiltIn, None));
    }

    #[test]
    fn an_activated_bundle_is_found_again() {
        let base = tempfile::tempdir().expect("temp");
        let config = config(base.path(), false);
        let files = creel_policy::starter();
        keep(&config, &files).expect("kept");
        keep(&config, &files).expect("replaced");
        let source = at_start(&config, 1_790_000_000).expect("loads");
        assert_eq!(source.trust, Trust::LocalUnsigned);
        assert_eq!(source.files, files);
    }

    #[test]
    fn links_in_a_bundle_are_refused() {
        let base = tempfile::tempdir().expect("temp");
        std::os::unix::fs::symlink("/etc/passwd", base.path().join("rules.cedar")).expect("link");
        assert!(read_folder(base.path()).is_err());
    }
}
