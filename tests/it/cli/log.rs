//! `creel log`: lists, follows, tells, verifies, exports, erases.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use creel_tests::{Account, Deadline, Stage, until};
use serde_json::Value;

use super::{CALLS, HOME, STATE, STOPPED, attack, confirmed, creel, json, lines, sh, well};

fn recorded(enforce: bool) -> Option<Stage> {
    let stage = Stage::open()?;
    well(&stage, if enforce { &["up", "--detach", "--enforce"] } else { &["up", "--detach"] });
    attack(&stage);
    Some(stage)
}

fn all(stage: &Stage) -> Vec<Value> {
    lines(stage, &["log", "--format", "jsonl", "-n", "10000"])
}

fn filtered(stage: &Stage, filter: &[&str]) -> Vec<Value> {
    lines(stage, &[&["log", "--format", "jsonl", "-n", "10000"], filter].concat())
}

#[test]
fn filters_leave_exactly_what_was_asked_for() {
    let Some(stage) = recorded(true) else { return };
    let all = all(&stage);
    let of = |keep: &dyn Fn(&Value) -> bool| -> Vec<Value> {
        all.iter().filter(|r| keep(&r["envelope"])).cloned().collect()
    };
    let denied = of(&|envelope| envelope["verdict"] == "deny");
    assert!(!denied.is_empty() && denied.len() <= STOPPED, "{denied:#?}");
    let first = &denied[0]["envelope"]["subject"];
    let (run, conversation) = (first["run"].as_str().unwrap(), first["conversation"].as_str().unwrap());
    let middle = all[all.len() / 2]["sequence"].to_string();
    for (filter, expected) in [
        (&["--verdict", "deny"][..], denied.clone()),
        (&["--rule", "write-exec-bearing"], of(&|e| e["rules"].to_string().contains("\"write-exec-bearing\""))),
        (&["--agent", "claude-code"], of(&|e| e["subject"]["kind"] == "claude-code")),
        (&["--agent", "codex"], Vec::new()),
        (&["--run", run], of(&|e| e["subject"]["run"] == run)),
        (&["--conversation", conversation], of(&|e| e["subject"]["conversation"] == conversation)),
        (&["--since", "2h"], all.clone()),
        (&["--until", "2026-01-01"], Vec::new()),
        (&["--kind", "daemon,policy"], of(&|e| e["kind"] == "daemon" || e["kind"] == "policy")),
        (&["--after", &middle], of(&|_| true).split_off(all.len() / 2 + 1)),
        (&["--verdict", "deny", "--rule", "no-such-rule"], Vec::new()),
    ] {
        // The daemon goes on meanwhile: what came after the list was made is left out.
        let mut got = filtered(&stage, filter);
        got.retain(|record| record["sequence"].as_u64() <= all[all.len() - 1]["sequence"].as_u64());
        assert_eq!(got, expected, "{filter:?}");
    }
    assert!(of(&|e| e["rules"].to_string().contains("\"write-exec-bearing\"")).len() >= 2);
    assert_eq!(lines(&stage, &["log", "--format", "jsonl", "-n", "3"]).len(), 3);
    assert!(json(&stage, &["log", "--format", "json", "-n", "10000"]).as_array().unwrap().starts_with(&all));
    for (wrong, told) in [
        (["--since", "yesterday"], "is not a time"),
        (["--verdict", "maybe"], "allow, modify, ask, deny"),
        (["--kind", "nothing"], "kind"),
        (["-n", "100001"], "10000"),
    ] {
        let refused = creel(&stage, &["log", wrong[0], wrong[1]]);
        assert_eq!(refused.code, Some(2));
        assert!(refused.stderr.contains(told), "{refused}");
    }
    // The table for people is as long as the list and names the day.
    let table = well(&stage, &["log", "-n", "10000"]).stdout;
    assert!(table.lines().count() > all.len(), "{table}");
    assert!(table.contains("delete-home-or-root"), "{table}");
}

#[test]
fn following_shows_what_comes_and_ends_with_the_daemon() {
    let Some(stage) = Stage::open() else { return };
    well(&stage, &["up", "--detach"]);
    let follow = |arguments: &[&str]| stage.run(Account::USER, "creel").arguments(arguments.iter().copied()).start();
    let mut table = follow(&["log", "--follow", "-n", "1"]).unwrap();
    let mut denied = follow(&["log", "--follow", "--rule", "delete-home-or-root", "--format", "jsonl"]).unwrap();
    table.says("daemon.started", Deadline::seconds(60)).unwrap();
    attack(&stage);
    table.says("CHANGELOG.md", Deadline::seconds(60)).unwrap();
    denied.says("delete-home-or-root", Deadline::seconds(60)).unwrap();
    well(&stage, &["down"]);
    for running in [table, denied] {
        let ended = running.finish(Deadline::seconds(60)).unwrap();
        assert!(!ended.stderr.contains("panicked"), "{ended}");
    }
}

#[test]
fn a_records_story_is_told() {
    let Some(stage) = recorded(true) else { return };
    let denied = filtered(&stage, &["--rule", "delete-home-or-root"]).remove(0);
    let sequence = denied["sequence"].to_string();
    let action = denied["envelope"]["action_id"].as_str().unwrap();
    let shown = well(&stage, &["log", "show", &sequence]).stdout;
    for expected in
        ["rm -rf ~", "deny", "delete-home-or-root", "effect", "delete /home/dana", "led to by", "claude-code"]
    {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let head: String = action.chars().take(14).collect();
    assert_eq!(well(&stage, &["log", "show", action]).stdout, shown);
    assert_eq!(well(&stage, &["log", "show", &head]).stdout, shown);
    assert_eq!(json(&stage, &["log", "show", &sequence, "--format", "json"])["record"]["sequence"], denied["sequence"]);
    let explained = well(&stage, &["policy", "explain", &sequence]).stdout;
    assert!(explained.contains("@id(\"delete-home-or-root\")") && explained.contains("forbid"), "{explained}");
    for unknown in ["999999", "a-0000", "nonsense"] {
        let refused = creel(&stage, &["log", "show", unknown]);
        assert_eq!(refused.code, Some(2), "{refused}");
        assert!(refused.stderr.starts_with("creel: "), "{refused}");
    }
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Where a text stands first in a folder's files.
fn find(folder: &Path, text: &str) -> Option<(PathBuf, usize)> {
    files(folder).into_iter().find_map(|path| {
        // The daemon may replace a file between the look at the folder and this one.
        let bytes = std::fs::read(&path).ok()?;
        let at = bytes.windows(text.len()).position(|window| window == text.as_bytes())?;
        Some((path, at))
    })
}

#[test]
fn one_flipped_bit_is_found_and_named() {
    let Some(stage) = recorded(false) else { return };
    let records = all(&stage);
    let key = json(&stage, &["status", "--format", "json"])["journal"]["verifier_key"].as_str().unwrap().to_owned();
    well(&stage, &["down"]);
    for at in [3, 7, 12] {
        // A copy, verified with the public key alone, as on another machine.
        sh(&stage, &format!("rm -rf copy; cp -a {STATE}/journal copy")).well().unwrap();
        let verify = || creel(&stage, &["log", "verify", "copy", "--key", &key, "--format", "json"]);
        let whole = verify().well().unwrap().json().unwrap();
        assert_eq!(whole["verdict"], "self-consistent-only");
        let action = records[at]["envelope"]["action_id"].as_str().unwrap();
        let (path, offset) = find(&stage.outside(&format!("{HOME}/copy")), action).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[offset + 5] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let broken = verify();
        assert_eq!(broken.code, Some(1), "{broken}");
        let told = broken.json().unwrap();
        assert_eq!((&told["verdict"], &told["first_bad"]), (&"broken".into(), &records[at]["sequence"]), "{broken}");
        let shown = creel(&stage, &["log", "verify", "copy", "--key", &key]);
        assert!(shown.stdout.contains(&format!("broken at record {}", records[at]["sequence"])), "{shown}");
    }
    // Another's key verifies nothing.
    well(&stage, &["log", "verify"]);
    let other = creel(&stage, &["log", "verify", "copy", "--key", "no-key"]);
    assert_eq!(other.code, Some(2), "{other}");
}

#[test]
fn the_record_goes_to_a_file_and_to_syslog() {
    let Some(stage) = recorded(false) else { return };
    let known = all(&stage);
    let events = lines(&stage, &["log", "export"]);
    let known: Vec<&Value> = known.iter().map(|record| &record["sequence"]).collect();
    let numbers: Vec<&Value> = events.iter().map(|event| &event["metadata"]["sequence"]).collect();
    assert!(numbers.starts_with(&known), "{numbers:?}");
    assert!(events.iter().all(|event| event["class_uid"].is_u64() && event["metadata"]["version"] == "1.8.0"));

    well(&stage, &["log", "export", "--to", "out.ndjson"]);
    let path = stage.outside(&format!("{HOME}/out.ndjson"));
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&path).unwrap();
    let written: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(written.starts_with(&events));
    sh(&stage, "ln -s out.ndjson link").well().unwrap();
    assert_eq!(creel(&stage, &["log", "export", "--to", "link"]).code, Some(2));

    let log = UnixDatagram::bind(stage.outside("/tmp/log")).unwrap();
    std::fs::set_permissions(stage.outside("/tmp/log"), std::fs::Permissions::from_mode(0o777)).unwrap();
    log.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let sending = stage.run(Account::USER, "creel").arguments(["log", "export", "--syslog", "/tmp/log"]);
    let sending = sending.start().unwrap();
    let mut buffer = vec![0; 1 << 17];
    for event in &events {
        let bytes = log.recv(&mut buffer).unwrap();
        let text = std::str::from_utf8(&buffer[..bytes]).unwrap();
        let (head, sent) = text.split_once("]: ").unwrap();
        assert!(head.starts_with("<8") && head.contains("creel["), "{head}");
        assert_eq!(&serde_json::from_str::<Value>(sent).unwrap(), event);
    }
    // Whatever came since is taken off its hands, so that it can end.
    let emptying = std::thread::spawn(move || while log.recv(&mut buffer).is_ok_and(|bytes| bytes > 1) {});
    sending.finish(Deadline::seconds(60)).unwrap().well().unwrap();
    UnixDatagram::unbound().unwrap().send_to(b"", stage.outside("/tmp/log")).unwrap();
    emptying.join().unwrap();

    // It goes on, also over a restart, without a gap and without sending anything twice.
    let following = stage.run(Account::USER, "creel").arguments(["log", "export", "--follow", "--to", "on.ndjson"]);
    let following = following.start().unwrap();
    let numbers = || -> Option<Vec<u64>> {
        let text = std::fs::read_to_string(stage.outside(&format!("{HOME}/on.ndjson"))).ok()?;
        let number = |line: &str| serde_json::from_str::<Value>(line).ok()?["metadata"]["sequence"].as_u64();
        text.lines().map(number).collect()
    };
    let until_seen = |last: u64| {
        until("the export", Deadline::seconds(60), || numbers().filter(|numbers| numbers.contains(&last))).unwrap()
    };
    until_seen(all(&stage).last().unwrap()["sequence"].as_u64().unwrap());
    well(&stage, &["down"]);
    well(&stage, &["up", "--detach"]);
    attack(&stage);
    let last = all(&stage).last().unwrap()["sequence"].as_u64().unwrap();
    let numbers = until_seen(last);
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    let mut seen: Vec<u64> = all(&stage).iter().map(|record| record["sequence"].as_u64().unwrap()).collect();
    seen.truncate(numbers.len());
    assert_eq!(numbers, seen);
    following.kill().unwrap();
}

#[test]
fn details_are_erased_by_a_person_with_a_reason_and_the_seal_holds() {
    let Some(stage) = recorded(false) else { return };
    let journal = stage.outside(&format!("{STATE}/journal"));
    let excerpt = "git log --oneline -5";
    assert!(find(&journal, excerpt).is_some());
    let dry = well(&stage, &["log", "erase", "--all", "--reason", "asked for", "--dry-run"]);
    assert!(dry.stdout.contains("would be erased"), "{dry}");
    for refused in [
        &["log", "erase", "--all", "--reason", "asked for"][..],
        &["log", "erase", "--all", "--reason", "asked for", "--code", "000000"],
        &["log", "erase", "--all", "--reason", " "],
        &["log", "erase", "--reason", "asked for"],
    ] {
        let refused = creel(&stage, refused);
        assert_eq!(refused.code, Some(2), "{refused}");
    }
    assert!(find(&journal, excerpt).is_some());

    let erased = confirmed(&stage, r#"creel log erase --all --reason "asked for""#);
    assert_eq!(erased.code, Some(0), "{erased}");
    assert!(erased.stdout.contains("details erased"), "{erased}");
    assert_eq!(find(&journal, excerpt), None);
    let view = json(&stage, &["log", "verify", "--format", "json"]);
    assert_eq!(view["verdict"], "self-consistent-only", "{view}");
    assert!(view["erased"].as_u64().unwrap() >= CALLS as u64, "{view}");
    let record = filtered(&stage, &["--kind", "erasure"]);
    assert!(record[0].to_string().contains("asked for"), "{record:#?}");
    let story = filtered(&stage, &["--rule", "delete-home-or-root"]).remove(0);
    assert_eq!(story["erased"], true, "{story}");
    well(&stage, &["log", "show", &story["sequence"].to_string()]);
}
