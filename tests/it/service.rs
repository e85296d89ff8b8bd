//! creel as a service of the machine, installed by hand: what it puts where, that it runs, that nothing of it is left.

use std::os::unix::fs::MetadataExt as _;

use creel_tests::{Account, Deadline, Finished, Running, Stage, until};

/// Where a checkout would have its programs.
const BUILD: &str = "/opt/creel-build";
const PROGRAMS: [&str; 3] = ["creel", "creeld", "creel-hook"];
const WIRED: &str = "/etc/claude-code/managed-settings.d/50-creel.json";

/// A machine that creel was never on: programs only in a build folder, no accounts.
fn machine() -> Option<Stage> {
    let stage = Stage::open()?;
    let script = format!(
        "mkdir -p {BUILD} && cd /usr/bin && cp creel creeld creel-hook {BUILD} && rm creel creeld creel-hook && \
         sed -i '/^creel/d' /etc/passwd /etc/group && rm -rf /var/lib/creel-root"
    );
    stage.run(Account::ROOT, "sh").arguments(["-c", &script]).finish(60).unwrap().well().unwrap();
    Some(stage)
}

fn service(stage: &Stage, account: Account, program: &str, arguments: &[&str]) -> Finished {
    stage.run(account, program).argument("service").arguments(arguments.iter().copied()).finish(120).unwrap()
}

/// Everything that a service could leave: names below the usual folders, and the accounts.
fn traces(stage: &Stage) -> Vec<String> {
    let script = "find /usr/bin /usr/lib/systemd /usr/lib/sysusers.d /usr/lib/tmpfiles.d /etc /var/lib /run -xdev \
                  -iname '*creel*' 2>/dev/null | sort; cat /etc/passwd /etc/group";
    let found = stage.run(Account::ROOT, "sh").arguments(["-c", script]).finish(60).unwrap();
    found.stdout.lines().map(str::to_owned).collect()
}

fn mode_and_owner(stage: &Stage, path: &str) -> (u32, u32) {
    let facts = std::fs::metadata(stage.outside(path)).unwrap();
    (facts.mode() & 0o7777, facts.uid())
}

#[test]
fn what_is_installed_is_undone_exactly() {
    let Some(stage) = machine() else { return };
    let before = traces(&stage);
    let creel = format!("{BUILD}/creel");
    let refused = service(&stage, Account::USER, &creel, &["install", "--system"]);
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.stderr.contains("needs root"), "{refused}");
    let dry = service(&stage, Account::USER, &creel, &["install", "--system", "--dry-run"]).well().unwrap();
    assert!(dry.stdout.contains("write 755  /usr/bin/creel-hook"), "{dry}");
    assert_eq!(traces(&stage), before);

    let installed = service(&stage, Account::ROOT, &creel, &["install", "--system"]).well().unwrap();
    assert!(installed.stdout.contains("no systemd runs here"), "{installed}");
    assert!(installed.stdout.contains("/usr/bin/creeld --role=root"), "{installed}");
    for program in PROGRAMS {
        assert_eq!(mode_and_owner(&stage, &format!("/usr/bin/{program}")), (0o755, 0));
    }
    for unit in ["systemd/system/creeld.service", "systemd/system/creeld-root.service", "tmpfiles.d/creel.conf"] {
        assert_eq!(mode_and_owner(&stage, &format!("/usr/lib/{unit}")), (0o644, 0));
    }
    let passwd = stage.read("/etc/passwd").unwrap();
    let account = passwd.lines().find(|line| line.starts_with("creel:")).unwrap().to_owned();
    assert!(account.ends_with("nologin"), "{account}");
    let uid: u32 = account.split(':').nth(2).unwrap().parse().unwrap();
    assert_eq!(mode_and_owner(&stage, "/var/lib/creel"), (0o700, uid));
    assert_eq!(mode_and_owner(&stage, "/run/creel"), (0o755, uid));
    let groups = stage.read("/etc/group").unwrap();
    assert!(groups.contains("\ncreel-analyst:") && groups.contains("\ncreel-approver:"), "{groups}");

    // Once more changes nothing.
    let installed = traces(&stage);
    let again = service(&stage, Account::ROOT, &creel, &["install", "--system"]).well().unwrap();
    assert!(!again.stdout.contains("write"), "{again}");
    assert_eq!(traces(&stage), installed);

    let dry = service(&stage, Account::ROOT, "/usr/bin/creel", &["remove", "--system", "--dry-run"]).well().unwrap();
    assert!(dry.stdout.contains("remove  /usr/bin/creeld"), "{dry}");
    assert_eq!(traces(&stage), installed);
    service(&stage, Account::ROOT, "/usr/bin/creel", &["remove", "--system"]).well().unwrap();
    assert_eq!(traces(&stage), before);
    let nothing = service(&stage, Account::ROOT, &creel, &["remove", "--system"]).well().unwrap();
    assert!(nothing.stdout.contains("nothing is installed"), "{nothing}");
}

/// Starts both daemons as the install says it.
fn by_hand(stage: &Stage) -> [Running; 2] {
    let root = stage.run(Account::ROOT, "/usr/bin/creeld").arguments(["--role=root", "--account", "creel"]);
    let root = root.start().unwrap();
    until("the root role", Deadline::seconds(30), || stage.exists("/run/creel-root/root.sock").then_some(())).unwrap();
    let daemon = stage.run(Account::ROOT, "setpriv").arguments([
        "--reuid",
        "creel",
        "--regid",
        "creel",
        "--clear-groups",
        "/usr/bin/creeld",
        "--system",
    ]);
    let daemon = daemon.start().unwrap();
    until("the daemon", Deadline::seconds(30), || {
        let status = stage.run(Account::ROOT, "/usr/bin/creel").argument("status").finish(60).ok()?;
        (status.code == Some(0)).then_some(())
    })
    .unwrap();
    [root, daemon]
}

#[test]
fn the_service_runs_as_printed_and_takes_creel_out_of_settings_when_it_goes() {
    let Some(stage) = machine() else { return };
    let creel = format!("{BUILD}/creel");
    service(&stage, Account::ROOT, &creel, &["install", "--system"]).well().unwrap();
    let [root, mut daemon] = by_hand(&stage);
    let guard = ["guard", "install", "claude-code", "--system"];
    stage.run(Account::ROOT, "/usr/bin/creel").arguments(guard).finish(60).unwrap().well().unwrap();
    assert!(stage.read(WIRED).unwrap().contains("/usr/bin/creel-hook"));

    let removed = service(&stage, Account::ROOT, "/usr/bin/creel", &["remove", "--system"]).well().unwrap();
    assert!(removed.stdout.contains(WIRED), "{removed}");
    assert!(!stage.exists(WIRED));
    until("the daemon's end", Deadline::seconds(30), || (!daemon.alive()).then_some(())).unwrap();
    root.stop().unwrap();
    for program in PROGRAMS {
        assert!(!stage.exists(&format!("/usr/bin/{program}")));
    }
    // The record is evidence, and so is whose it is.
    assert!(removed.stdout.contains("evidence"), "{removed}");
    assert!(stage.exists("/var/lib/creel/journal"));
    assert!(stage.read("/etc/passwd").unwrap().contains("\ncreel:"));
    assert!(!stage.read("/etc/group").unwrap().contains("creel-analyst"));
}

#[test]
fn what_others_wrote_is_neither_overwritten_nor_removed() {
    let Some(stage) = machine() else { return };
    let creel = format!("{BUILD}/creel");
    stage.write(Account::ROOT, "/usr/bin/creeld", "another creeld").unwrap();
    let refused = service(&stage, Account::ROOT, &creel, &["install", "--system"]);
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.stderr.contains("was not written by"), "{refused}");
    assert_eq!(stage.read("/usr/bin/creeld").unwrap(), "another creeld");
    // What was done before that step is known, and undone.
    service(&stage, Account::ROOT, &creel, &["remove", "--system"]).well().unwrap();
    assert!(!stage.exists("/usr/bin/creel") && !stage.exists("/etc/creel"));
    stage.run(Account::ROOT, "rm").argument("/usr/bin/creeld").finish(30).unwrap().well().unwrap();

    service(&stage, Account::ROOT, &creel, &["install", "--system"]).well().unwrap();
    let tmpfiles = "/usr/lib/tmpfiles.d/creel.conf";
    stage.write(Account::ROOT, tmpfiles, "# mine now\n").unwrap();
    // An account that wired the hook in by itself: its agent could do nothing any more without the hook.
    let settings = r#"{"hooks":{"PreToolUse":[{"matcher":"*","hooks":[{"type":"command","command":"/usr/bin/creel-hook claude-code PreToolUse"}]}]}}"#;
    stage.write(Account::USER, "/home/dana/.claude/settings.json", settings).unwrap();
    let refused = service(&stage, Account::ROOT, &creel, &["remove", "--system"]);
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.stderr.contains("/home/dana/.claude/settings.json"), "{refused}");
    assert!(stage.exists("/usr/bin/creel-hook"));
    stage.write(Account::USER, "/home/dana/.claude/settings.json", "{}").unwrap();
    let removed = service(&stage, Account::ROOT, &creel, &["remove", "--system"]).well().unwrap();
    assert!(removed.stdout.contains(&format!("changed, stays  {tmpfiles}")), "{removed}");
    assert_eq!(stage.read(tmpfiles).unwrap(), "# mine now\n");
    assert!(!stage.exists("/usr/bin/creel-hook"));
}

#[test]
fn the_units_are_what_the_service_manager_understands() {
    let Some(stage) = machine() else { return };
    if !stage.exists("/usr/bin/systemd-analyze") {
        return creel_tests::skip("systemd-analyze is not installed");
    }
    service(&stage, Account::ROOT, &format!("{BUILD}/creel"), &["install", "--system"]).well().unwrap();
    let verify = stage.run(Account::ROOT, "systemd-analyze").arguments([
        "verify",
        "/usr/lib/systemd/system/creeld-root.service",
        "/usr/lib/systemd/system/creeld.service",
        "/usr/lib/systemd/system/creeld.socket",
    ]);
    let verified = verify.finish(60).unwrap();
    let about_us: Vec<&str> = verified.stderr.lines().filter(|line| line.contains("creel")).collect();
    assert!(about_us.is_empty(), "{verified}");
}

#[test]
fn the_units_hold_under_a_real_service_manager() {
    let Some(stage) = machine() else { return };
    if !std::path::Path::new("/usr/lib/systemd/systemd").exists() {
        return creel_tests::skip("systemd is not installed");
    }
    service(&stage, Account::ROOT, &format!("{BUILD}/creel"), &["install", "--system"]).well().unwrap();
    let script = r#"
        main() { systemctl show --property MainPID --value creeld.service; }
        first=$(main)
        grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs|Seccomp):' "/proc/$first/status" | tr -s '\t' ' '
        creel status --format json | tr -d '\n'; echo
        # A hook's connection waits in the socket while the daemon is away, and the answer is the new daemon's.
        kill -9 "$first"
        printf '{"session_id":"x","hook_event_name":"PreToolUse","tool_name":"Bash","tool_input":{"command":"ls"},"cwd":"/tmp"}' |
          creel-hook claude-code PreToolUse
        echo
        [ "$(main)" != "$first" ] && echo "another daemon"
        systemctl stop creeld.socket creeld.service
        creel log verify /var/lib/creel/journal --key /var/lib/creel/device.pub
    "#;
    stage.write(Account::ROOT, "/root/script", script).unwrap();
    stage.write(Account::ROOT, "/root/manager.sh", include_str!("../src/manager.sh")).unwrap();
    let booted = stage.run(Account::ROOT, "unshare").arguments([
        "--mount",
        "--pid",
        "--net",
        "--ipc",
        "--uts",
        "--cgroup",
        "--fork",
        "bash",
        "/root/manager.sh",
        "/root/script",
    ]);
    let booted = booted.finish(120).unwrap();
    let seen = stage.read("/tmp/manager.out").unwrap_or_default();
    let lines: Vec<&str> = seen.lines().collect();
    assert!(!lines.is_empty(), "systemd did not come up here: {booted}");
    let fact = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)).map(str::trim);
    assert_eq!(fact("CapEff:"), Some("0000000000000000"), "{seen}");
    assert_eq!(fact("CapBnd:"), Some("0000000000000000"), "{seen}");
    assert_eq!((fact("NoNewPrivs:"), fact("Seccomp:")), (Some("1"), Some("2")), "{seen}");
    assert!(!fact("Uid:").unwrap().starts_with("0 "), "{seen}");
    let status = lines.iter().find(|line| line.starts_with('{')).expect("a status");
    let status: serde_json::Value = serde_json::from_str(status).unwrap();
    // Under the unit's restrictions the root role still opens what it must: nothing needs attention on a new machine.
    assert_eq!((&status["mode"], &status["problems"]), (&"system".into(), &serde_json::json!([])), "{seen}");
    assert!(seen.contains(r#""permissionDecision":"deny""#), "{seen}");
    assert!(seen.contains("no known agent is above"), "{seen}");
    assert!(seen.contains("another daemon"), "{seen}");
    assert!(seen.contains("intact"), "{seen}");
}

#[test]
fn sockets_of_the_service_manager_are_taken_over_and_outlive_the_daemon() {
    let Some(stage) = Stage::open() else { return };
    if !std::path::Path::new("/usr/bin/systemd-socket-activate").exists() {
        creel_tests::skip("systemd-socket-activate is not here; it is in Debian's package systemd");
        return;
    }
    let runtime = "/run/user/61000/creel";
    stage.make_folder(Account::USER, runtime).unwrap();
    let chmod = stage.run(Account::USER, "chmod").arguments(["0700", runtime]);
    chmod.finish(30).unwrap().well().unwrap();
    let (hook, control) = (format!("{runtime}/hook.sock"), format!("{runtime}/control.sock"));
    let holder = stage
        .run(Account::USER, "systemd-socket-activate")
        .arguments(["-l", &hook, "-l", &control, "/usr/bin/creeld", "--user", "--enforce"])
        .start()
        .unwrap();
    until("the sockets", Deadline::seconds(30), || (stage.exists(&hook) && stage.exists(&control)).then_some(()))
        .unwrap();
    // The first connection starts the daemon, and waits for it instead of being refused.
    let status = stage.run(Account::USER, "creel").arguments(["status", "--format", "json"]).finish(60).unwrap();
    assert_eq!(status.well().unwrap().json().unwrap()["mode"], "user");
    stage.run(Account::USER, "creel").argument("down").finish(60).unwrap().well().unwrap();
    holder.finish(Deadline::seconds(30)).unwrap();
    assert!(stage.exists(&hook) && stage.exists(&control), "they are the service manager's to remove");
}

#[test]
fn a_socket_bound_elsewhere_is_not_taken_over() {
    let Some(stage) = Stage::open() else { return };
    if !std::path::Path::new("/usr/bin/systemd-socket-activate").exists() {
        creel_tests::skip("systemd-socket-activate is not here; it is in Debian's package systemd");
        return;
    }
    let holder = stage
        .run(Account::USER, "systemd-socket-activate")
        .arguments(["-l", "/tmp/elsewhere.sock", "/usr/bin/creeld", "--user", "--runtime", "/home/dana/run"])
        .start()
        .unwrap();
    until("the socket", Deadline::seconds(30), || stage.exists("/tmp/elsewhere.sock").then_some(())).unwrap();
    let poke = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/tmp/elsewhere.sock')";
    stage.run(Account::USER, "python3").arguments(["-c", poke]).finish(30).unwrap().well().unwrap();
    let ended = holder.finish(Deadline::seconds(30)).unwrap();
    assert_ne!(ended.code, Some(0), "{ended}");
    assert!(ended.stderr.contains("/tmp/elsewhere.sock"), "{ended}");
}
