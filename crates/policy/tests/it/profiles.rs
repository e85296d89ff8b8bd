//! Profiles: their mistakes are told with their places, and no line of one opens what the rules refuse.

use std::collections::BTreeMap;

use creel_model::cage::{CagePlan, FileAccess, SealKind, WorkspaceMode};
use creel_model::{RuleMode, RunId};
use creel_policy::{Bundle, CageRequest, Compiled, NoPlan, Places, Reach, reach, starter};

const HOME: &str = "/home/ada";

fn places(workspace: &str) -> Places {
    Places {
        home: HOME.to_owned(),
        workspace: Some(workspace.to_owned()),
        temporary: vec!["/tmp".to_owned()],
        uid: 1000,
    }
}

fn plan_in(bundle: &Bundle, profile: &str, workspace: &str, learn: bool) -> Result<Compiled, NoPlan> {
    bundle.cage_plan(&CageRequest {
        run: RunId::from_random([7; 16]),
        profile: Some(profile),
        kind: None,
        places: &places(workspace),
        mode: WorkspaceMode::Direct,
        learn,
        seconds: Some(60),
        programs: &["/home/ada/tools/agent".to_owned(), "/usr/bin/env".to_owned()],
        hook: Some("/usr/libexec/creel/creel-hook"),
        never: &["/home/ada/.local/state/creel".to_owned(), "/run/user/1000/creel".to_owned()],
    })
}

fn with(profile: &str) -> BTreeMap<String, String> {
    let mut files = starter();
    files.insert("profiles/mine.toml".to_owned(), profile.to_owned());
    files
}

fn mine(profile: &str) -> CagePlan {
    let bundle = Bundle::load(&with(profile), 0).unwrap_or_else(|faults| panic!("{faults:?}"));
    plan_in(&bundle, "mine", "/home/ada/project", false).unwrap().plan
}

#[track_caller]
fn says(plan: &CagePlan, path: &str, expected: Reach) {
    assert_eq!(reach(plan, HOME, path).0, expected, "{path}");
}

#[test]
fn every_mistake_is_told_with_its_place_and_a_hint() {
    let text = "extends = \"nothing\"\n\
        screen = \"real\"\n\
        [[files]]\n\
        access = \"write\"\n\
        paths = [\"relative\", \"~/a/../b\", \"/x/*\"]\n\
        [[files]]\n\
        access = \"read\"\n\
        zone = \"no-such-zone\"\n\
        [[seals]]\n\
        names = [\"**/x\"]\n\
        kind = \"file\"\n\
        [environment]\n\
        pass = [\"SSH_*\", \"GOOD\", \"not a name\"]\n\
        [limits]\n\
        memory = \"many\"\n\
        processes = 1\n";
    let faults = Bundle::load(&with(text), 0).unwrap_err();
    let lines: Vec<u32> = faults.iter().map(|fault| fault.line).collect();
    for line in [1, 2, 5, 8, 10, 13, 15, 16] {
        assert!(lines.contains(&line), "line {line}: {faults:#?}");
    }
    assert_eq!(lines.iter().filter(|line| **line == 5).count(), 3, "{faults:#?}");
    assert_eq!(lines.iter().filter(|line| **line == 13).count(), 2, "{faults:#?}");
    for fault in &faults {
        assert_eq!(fault.file, "profiles/mine.toml");
        assert!(fault.column >= 1 && !fault.message.is_empty() && !fault.expected.is_empty() && !fault.hint.is_empty());
    }
    let made = Bundle::load(&with("[[files]]\naccess = \"read\"\nmake = true\npaths = [\"/x\"]\n"), 0).unwrap_err();
    assert!(made.len() == 1 && made[0].message.contains("`make`"), "{made:?}");
    let unknown = Bundle::load(&with("colour = \"red\"\n"), 0).unwrap_err();
    assert!(unknown[0].message.contains("colour") && unknown[0].hint.contains("[[files]]"), "{unknown:?}");
}

#[test]
fn profiles_that_extend_each_other_are_refused() {
    let mut files = with("extends = \"other\"\n");
    files.insert("profiles/other.toml".to_owned(), "extends = \"mine\"\n".to_owned());
    let faults = Bundle::load(&files, 0).unwrap_err();
    assert_eq!(faults.len(), 2, "{faults:?}");
    let two = Bundle::load(&with("kinds = [\"codex\"]\n"), 0).unwrap_err();
    assert!(two.iter().any(|fault| fault.message.contains("`codex` has the default profile")), "{two:?}");
}

#[test]
fn what_is_denied_is_opened_by_no_line_and_what_is_asked_only_by_name() {
    let plan = mine(
        "extends = \"default\"\n\
         [[files]]\naccess = \"write\"\npaths = [\"~/.ssh\", \"~/.ssh/id_rsa\", \"/etc/creel\", \"~/.aws\", \"~/.bashrc\"]\n\
         [[files]]\naccess = \"write\"\npaths = [\"~/.config\"]\n\
         [[files]]\naccess = \"read\"\npaths = [\"~/.config/gh/hosts.yml\"]\n\
         [[files]]\naccess = \"write\"\nzone = \"keys\"\n",
    );
    // Not granted at all: the cage has a home folder of its own there.
    says(&plan, "/home/ada/.ssh/id_rsa", Reach::Private);
    says(&plan, "/home/ada/.ssh/config", Reach::Private);
    says(&plan, "/etc/shadow", Reach::Deny);
    says(&plan, "/etc/creel/policy/bundle.toml", Reach::Execute);
    says(&plan, "/home/ada/.aws/credentials", Reach::Deny);
    says(&plan, "/home/ada/.aws/config", Reach::Write);
    // Named itself: a person wrote and reviewed that line.
    says(&plan, "/home/ada/.bashrc", Reach::Write);
    says(&plan, "/home/ada/.config/gh/hosts.yml", Reach::Read);
    says(&plan, "/home/ada/.config/op/x", Reach::Deny);
    says(&plan, "/home/ada/.config/systemd/user/x.service", Reach::Sealed);
    says(&plan, "/home/ada/.config/creel/x", Reach::Sealed);
    says(&plan, "/home/ada/.config/other", Reach::Write);
}

#[test]
fn creels_own_folders_are_never_in_a_cage() {
    let plan = mine(
        "extends = \"default\"\n[[files]]\naccess = \"write\"\n\
         paths = [\"~/.local\", \"~/.local/state/creel\", \"~/.local/state/creel/journal\", \"/run/user/1000\"]\n\
         [[sockets]]\nhost = \"/run/user/1000/creel/control.sock\"\n\
         [[sockets]]\nhost = \"/run/postgresql/.s.PGSQL.5432\"\n",
    );
    says(&plan, "/home/ada/.local/state/creel/device.key", Reach::Deny);
    says(&plan, "/home/ada/.local/state/creel/journal/x", Reach::Deny);
    says(&plan, "/run/user/1000/creel/control.sock", Reach::Deny);
    let sockets: Vec<&str> = plan.sockets.iter().map(|socket| socket.host.as_str()).collect();
    assert_eq!(sockets, ["/run/postgresql/.s.PGSQL.5432"]);
}

#[test]
fn a_workspace_is_a_projects_folder() {
    let bundle = Bundle::load(&starter(), 0).unwrap();
    for bad in [
        "/",
        "/home",
        HOME,
        "/usr",
        "/etc/nginx",
        "relative",
        "/home/ada/.ssh",
        "/home/ada/.aws/sso",
        "/a/../b",
        "/home/ada/.claude/plugins",
        "/proc/1",
    ] {
        let refused = plan_in(&bundle, "default", bad, false);
        assert!(refused.is_err(), "{bad}: {:?}", refused.map(|compiled| compiled.notes));
    }
    for good in ["/home/ada/project/", "/srv/work", "/tmp/x", "/usr/src/linux", "/home/ada/.dotfiles"] {
        plan_in(&bundle, "default", good, false).unwrap_or_else(|none| panic!("{good}: {none}"));
    }
    assert!(plan_in(&bundle, "nothing", "/srv/work", false).unwrap_err().message.contains("no profile `nothing`"));
}

#[test]
fn a_plan_names_the_command_the_hook_and_what_they_need() {
    let bundle = Bundle::load(&starter(), 0).unwrap();
    let compiled = plan_in(&bundle, "strict", "/home/ada/project", false).unwrap();
    let plan = &compiled.plan;
    says(plan, "/home/ada/tools/agent", Reach::Execute);
    says(plan, "/home/ada/tools/other", Reach::Private);
    says(plan, "/usr/libexec/creel/creel-hook", Reach::Execute);
    assert!(!plan.files.iter().any(|line| line.path == "/usr/bin/env"), "it is in reach already");
    assert_eq!(plan.limits.seconds, Some(60));
    assert_eq!(plan.environment.set.get("GIT_TEMPLATE_DIR").map(String::as_str), Some(""));
    let wide = plan_in(&bundle, "claude-code", "/home/ada/project", false).unwrap().plan;
    assert!(!wide.files.iter().any(|line| line.path == "/etc/passwd"), "the line for /etc says it already");
    assert!(wide.files.iter().any(|line| line.path == "/home/ada/.claude.json" && line.initial.is_some()));
    let workspace = plan.files.iter().find(|line| line.path == "/home/ada/project").unwrap();
    assert_eq!((workspace.access, workspace.optional), (FileAccess::Write, false));
    assert!(workspace.source.starts_with("profiles/strict.toml:"), "{}", workspace.source);
    let seal =
        |names: &[&str]| plan.seals.iter().find(|seal| seal.components == names).map(|seal| (seal.kind, &*seal.rule));
    assert_eq!(seal(&[".git", "hooks"]), Some((SealKind::Directory, "write-exec-bearing")));
    assert_eq!(seal(&[".git", "config"]), Some((SealKind::GitConfig, "write-exec-bearing")));
    assert_eq!(seal(&[".github", "workflows"]), Some((SealKind::Directory, "write-pipeline")));
    assert_eq!(seal(&["hooks"]), None, "an ordinary folder of that name is nobody's business");
    let text = serde_json::to_string(plan).unwrap();
    assert_eq!(&serde_json::from_str::<CagePlan>(&text).unwrap(), plan);
}

#[test]
fn learning_opens_everything_but_secrets_and_seals() {
    let bundle = Bundle::load(&starter(), 0).unwrap();
    let plan = plan_in(&bundle, "default", "/home/ada/project", true).unwrap().plan;
    assert!(plan.learn);
    says(&plan, "/home/ada/anything", Reach::Write);
    says(&plan, "/var/lib/x", Reach::Execute);
    says(&plan, "/home/ada/.ssh/id_rsa", Reach::Deny);
    says(&plan, "/home/ada/.aws/credentials", Reach::Deny);
    says(&plan, "/home/ada/.npmrc", Reach::Deny);
    says(&plan, "/home/ada/.local/state/creel/device.key", Reach::Deny);
    says(&plan, "/run/docker.sock", Reach::Deny);
    says(&plan, "/home/ada/.bashrc", Reach::Sealed);
    says(&plan, "/home/ada/project/.git/hooks/x", Reach::Sealed);
}

/// A fresh installation only records what its rules would do. A cage that somebody starts holds all the same, unless a
/// person took that very rule back.
#[test]
fn a_cage_holds_also_while_the_rules_are_only_recorded() {
    let mut bundle = Bundle::load(&starter(), 0).unwrap();
    let sealed = |bundle: &Bundle| {
        let plan = plan_in(bundle, "default", "/home/ada/project", false).unwrap().plan;
        reach(&plan, HOME, "/home/ada/project/.github/workflows/x.yml").0
    };
    let modes = |pairs: &[(&str, RuleMode)]| pairs.iter().map(|(id, mode)| ((*id).to_owned(), *mode)).collect();
    bundle.set_modes(&modes(&[("*", RuleMode::Audit)])).unwrap();
    assert_eq!(sealed(&bundle), Reach::Sealed);
    bundle.set_modes(&modes(&[("write-pipeline", RuleMode::Audit)])).unwrap();
    assert_eq!(sealed(&bundle), Reach::Write);
}

#[test]
fn a_layer_adds_profiles_only_where_its_base_lets_it() {
    use creel_policy::Layers;
    let layer = |base: &str| {
        BTreeMap::from([
            ("bundle.toml".to_owned(), format!("id = \"team\"\nversion = \"1\"\ncreel = \"1\"\nbase = \"{base}\"\n")),
            ("profiles/team.toml".to_owned(), "extends = \"default\"\nkinds = [\"codex\"]\n".to_owned()),
        ])
    };
    let mut layers = Layers::default();
    let open = layers.add(starter());
    let bundle = Bundle::load_over(&layer(&open.0), &layers, 0).unwrap_or_else(|faults| panic!("{faults:?}"));
    assert!(bundle.profiles().iter().any(|profile| profile.name == "team"));
    let mut files = starter();
    let manifest = files["bundle.toml"].replace("profiles = true\n", "");
    files.insert("bundle.toml".to_owned(), manifest);
    let closed = layers.add(files);
    let faults = Bundle::load_over(&layer(&closed.0), &layers, 0).unwrap_err();
    assert!(faults[0].message.contains("adds a profile"), "{faults:?}");
}

/// Whatever a profile's text is, reading it ends, and what was refused is told.
#[test]
fn mutated_profiles_are_refused_or_read() {
    let whole = starter()["profiles/copilot-cli.toml"].clone();
    for at in 0..whole.len() {
        let mut bytes = whole.clone().into_bytes();
        bytes[at] ^= 0x15;
        let Ok(text) = String::from_utf8(bytes) else { continue };
        if at % 29 != 0 {
            continue;
        }
        let mut files: BTreeMap<String, String> = starter()
            .into_iter()
            .filter(|(name, _)| !name.starts_with("rules/") && !name.starts_with("tests/"))
            .collect();
        let manifest = files["bundle.toml"].split("[modes]").next().unwrap().to_owned();
        files.insert("bundle.toml".to_owned(), manifest);
        files.insert("profiles/copilot-cli.toml".to_owned(), text);
        if let Ok(bundle) = Bundle::load(&files, 0) {
            let _ = plan_in(&bundle, "copilot-cli", "/home/ada/project", false);
        }
    }
}
