//! What a cage reads from outside: profiles, git configurations that an agent wrote, paths that it asks for.
//!
//! Each target has an oracle of its own that knows less and is simpler: real git for configurations, a plain comparison
//! of lower-case letters for sealed names, the plan's own answers for profiles.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use creel_model::RunId;
use creel_model::cage::{Seal, SealKind, WorkspaceMode};
use creel_policy::{Bundle, CageRequest, Places, reach};
use creel_sandbox::gitconfig::{GitConfig, Place, gate};
use creel_sandbox::seal::{Judged, SealSet};

pub const PROFILE_WORDS: &[&str] = &[
    "[[files]]\n",
    "access = \"write\"\n",
    "access = \"deny\"\n",
    "paths = [\"~\"]\n",
    "paths = [\"/\"]\n",
    "paths = [\"~/.ssh\"]\n",
    "paths = [\"@workspace/../..\"]\n",
    "zone = \"secrets\"\n",
    "zone = \"creel\"\n",
    "required = true\n",
    "initial = \"{}\"\n",
    "[[seals]]\n",
    "names = [\".git/hooks\"]\n",
    "kind = \"file\"\n",
    "[[sockets]]\n",
    "host = \"/run/docker.sock\"\n",
    "[network]\nhost_loopback_ports = [1]\n",
    "[environment]\npass = [\"*\"]\n",
    "[environment.set]\nLD_PRELOAD = \"x\"\n",
    "[limits]\nmemory = \"1 GiB\"\n",
    "extends = \"strict\"\n",
    "extends = \"test\"\n",
    "degrade = \"declare\"\n",
    "programs = [\"/usr/bin\"]\n",
];

pub fn profile_seeds() -> Vec<Vec<u8>> {
    let profiles = creel_policy::starter().into_iter().filter(|(name, _)| name.starts_with("profiles/"));
    profiles.map(|(_, text)| text.as_bytes().to_vec()).collect()
}

/// Promises: a profile is refused with reasons, or makes plans in which the floor holds whatever the profile says: keys
/// cannot be read, creel's own files cannot be changed, and no variable or socket of the session comes along.
pub fn profile(input: &[u8]) {
    let mut files: BTreeMap<String, String> =
        creel_policy::starter().into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
    files.insert("profiles/test.toml".to_owned(), String::from_utf8_lossy(input).into_owned());
    // Neither the shipped tables of decisions nor the rules that a plan does not come from are what is tried here.
    files.retain(|name, _| {
        !name.starts_with("tests/")
            && (!name.starts_with("rules/") || ["20", "30", "50"].iter().any(|n| name.contains(n)))
    });
    let bundle = match Bundle::load(&files, 1_795_000_000) {
        Ok(bundle) => bundle,
        Err(faults) => {
            assert!(!faults.is_empty() && faults.len() <= 100, "every refusal says why, within its bound");
            return;
        }
    };
    let places = Places {
        home: "/home/dana".to_owned(),
        workspace: Some("/home/dana/project".to_owned()),
        temporary: vec!["/tmp".to_owned()],
        uid: 1000,
    };
    let request = CageRequest {
        run: RunId::from_random([7; 16]),
        profile: Some("test"),
        kind: None,
        places: &places,
        mode: WorkspaceMode::Direct,
        learn: false,
        seconds: None,
        programs: &[],
        hook: None,
        never: &["/home/dana/.local/state/creel".to_owned()],
    };
    let Ok(compiled) = bundle.cage_plan(&request) else { return };
    let plan = compiled.plan;
    assert!(compiled.notes.len() <= 64, "notes stay within their bound");
    for path in ["/home/dana/.ssh/id_ed25519", "/etc/shadow", "/home/dana/.local/state/creel/device.key"] {
        let reached = reach(&plan, &places.home, path).0.as_str();
        assert!(!["read", "execute", "write"].contains(&reached), "{path} is {reached}");
    }
    for path in ["/home/dana/project/.git/hooks/pre-commit", "/home/dana/project/a/.git/config", "/usr/bin/creel"] {
        let reached = reach(&plan, &places.home, path).0.as_str();
        assert!(reached != "write", "{path} is {reached}");
    }
    for name in ["LD_PRELOAD", "BASH_ENV", "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS"] {
        assert!(!plan.environment.pass.iter().any(|pass| pass == name), "{name} is passed");
    }
    assert!(plan.files.iter().all(|rule| rule.path.starts_with('/') && !rule.path.contains("/../")), "paths are plain");
}

pub const GIT_WORDS: &[&str] = &[
    "[core]\n",
    "[CORE]",
    "[core \"x\"]\n",
    "[a.b]\n",
    "[include]\npath = x\n",
    "\tfsmonitor = x\n",
    "hooksPath=x",
    "\\\n",
    "\\",
    "\"",
    "#",
    ";",
    "\r\n",
    "\r",
    "= ",
    "[alias] x = !y\n",
    "[submodule \"s\"] update = !x\n",
    "\u{feff}",
    "\u{b}",
    "\u{c}",
    "\0",
    "]",
    " \t",
];

pub fn git_seeds() -> Vec<Vec<u8>> {
    [
        "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n",
        "[remote \"origin\"]\n\turl = https://example.com/x.git\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n[branch \"main\"]\n\tremote = origin\n\tmerge = refs/heads/main\n",
        "[user]\n\tname = \"A \\\"B\\\" C\" # who\n\temail = a@example.com ; mail\n",
        "[diff]\n\trenames\n[gc] auto = 0\n[submodule \"a/b\"]\n\tactive = true\n\turl = ../b\n",
        "[a \"b\\\\c\"] key = one \\\n two\n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}

/// Keys that git executes or obeys; the gate may never let one in. By their last part, or wholly.
const EXECUTED: &[&str] = &[
    ".fsmonitor",
    ".hookspath",
    ".sshcommand",
    ".editor",
    ".pager",
    ".askpass",
    ".gitproxy",
    ".textconv",
    ".command",
    ".driver",
    ".clean",
    ".smudge",
    ".process",
    ".program",
    ".helper",
    ".uploadpack",
    ".receivepack",
    ".vcs",
    ".insteadof",
    ".pushinsteadof",
    ".external",
    ".packobjectshook",
    ".recentobjectshook",
    ".cmd",
    ".difffilter",
    ".attributesfile",
    ".sslverify",
    ".proxy",
];

/// Promises: what the parser accepts, git reads in the same way, entry by entry; what the gate lets in holds no key that
/// git executes, in git's own reading.
pub fn git(input: &[u8]) {
    let Ok(ours) = GitConfig::parse(input) else { return };
    let file = std::env::temp_dir().join(format!("creel-fuzz-git-{}", std::process::id()));
    if std::fs::write(&file, input).is_err() {
        return;
    }
    let output = Command::new("git")
        .args(["config", "--no-includes", "--list", "-z", "--file"])
        .arg(&file)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let _ = std::fs::remove_file(&file);
    // Without git, or where git refuses the whole file, nothing of it is executed.
    let Ok(output) = output else { return };
    if !output.status.success() {
        return;
    }
    let theirs = String::from_utf8_lossy(&output.stdout).into_owned();
    let theirs: Vec<(&str, Option<&str>)> = theirs
        .split_terminator('\0')
        .map(|entry| entry.split_once('\n').map_or((entry, None), |(name, value)| (name, Some(value))))
        .collect();
    // Spaces at the end of a value that goes on over lines: git keeps some of them, and nothing depends on it.
    let trimmed = |value: Option<&str>| value.map(|value| value.trim_end_matches([' ', '\t']).to_owned());
    let ours_listed: Vec<(String, Option<String>)> =
        ours.entries().map(|(name, value)| (name, trimmed(value))).collect();
    let listed: Vec<(String, Option<String>)> =
        theirs.iter().map(|(name, value)| ((*name).to_owned(), trimmed(*value))).collect();
    assert_eq!(ours_listed, listed, "git reads the same entries");

    let roots = [PathBuf::from("/w")];
    let place = Place { folder: Path::new("/w/.git"), roots: &roots };
    if gate(&GitConfig::default(), &ours, place).is_ok() {
        for (name, value) in theirs {
            let lower = name.to_ascii_lowercase();
            let bad = EXECUTED.iter().any(|part| lower.ends_with(part))
                || ["include.", "includeif.", "alias.", "pager.", "credential.", "protocol."]
                    .iter()
                    .any(|part| lower.starts_with(part))
                || (lower.ends_with(".update") && value.is_some_and(|value| value.trim_start().starts_with('!')));
            assert!(!bad, "the gate let {name} in");
        }
    }
}

pub const SEAL_WORDS: &[&str] = &[
    "/.git",
    "/hooks",
    "/config",
    "/.GIT",
    "/.envrc",
    "/.vscode",
    "/tasks.json",
    "/node_modules",
    "/info",
    "/attributes",
    "/objects",
    "/refs",
    "\u{200c}",
    "\u{feff}",
    "/x.code-workspace",
    "/../",
    "//",
    "/./",
    "\u{130}",
    "\u{212a}",
    "\u{17f}",
];

pub fn seal_seeds() -> Vec<Vec<u8>> {
    [
        "/w/.git/hooks/pre-commit",
        "/w/a/.git/config",
        "/w/src/main.rs",
        "/w/.vscode/tasks.json",
        "/w/a/b/.envrc",
        "/w/x.code-workspace",
    ]
    .iter()
    .map(|path| path.as_bytes().to_vec())
    .collect()
}

/// Promises: a path that spells a sealed name, up to the case of plain letters, is never free; a judgement ends.
pub fn seal(input: &[u8]) {
    let seal = |components: &[&str], kind| Seal {
        components: components.iter().map(|component| (*component).to_owned()).collect(),
        kind,
        rule: "r".to_owned(),
        below: None,
    };
    let set = SealSet::new(&[
        seal(&[".git", "hooks"], SealKind::Directory),
        seal(&[".git", "config"], SealKind::GitConfig),
        seal(&[".envrc"], SealKind::File),
        seal(&[".vscode", "tasks.json"], SealKind::File),
        seal(&["*.code-workspace"], SealKind::File),
    ]);
    let mut path = b"/w/".to_vec();
    path.extend(input.iter().copied().filter(|byte| *byte != 0));
    let judged = set.judge(b"/w", &path, &mut |_| false);
    let _ = set.leads(b"/w", &path, &mut |_| true);
    let lower = String::from_utf8_lossy(&path).to_ascii_lowercase();
    let parts: Vec<&str> = lower.split('/').skip(2).filter(|part| !part.is_empty()).collect();
    let packages = parts.contains(&"node_modules");
    let last = parts.last().copied().unwrap_or_default();
    let sealed = parts.windows(2).any(|pair| pair == [".git", "hooks"])
        || parts.ends_with(&[".git", "config"])
        || (!packages
            && (last == ".envrc" || last.ends_with(".code-workspace") || parts.ends_with(&[".vscode", "tasks.json"])));
    if sealed && !parts.iter().any(|part| [".", ".."].contains(part)) && !path.ends_with(b"/") && !lower.contains("//")
    {
        assert!(judged != Judged::Free, "{lower} is free");
    }
}
