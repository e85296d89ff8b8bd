//! `creel up`, `status`, `down`: at a terminal, into a pipe, in the background.

use creel_tests::{Account, Deadline, Stage};
use rustix::process::Signal;

use super::{STATE, Terminal, attack, creel, json, plain, well};

#[test]
fn in_the_background_it_goes_on_until_it_is_told_to_stop() {
    let Some(stage) = Stage::open() else { return };
    let away = creel(&stage, &["status"]);
    assert_eq!(away.code, Some(2));
    assert!(away.stderr.contains("creel is not running here") && away.stderr.contains("creel up"), "{away}");

    let up = well(&stage, &["up", "--detach"]);
    assert!(up.stdout.contains("creel is up") && up.stdout.contains("rules only watch"), "{up}");
    let status = json(&stage, &["status", "--format", "json"]);
    assert_eq!((&status["mode"], &status["policy"]["blocking"]), (&"user".into(), &0.into()));
    let shown = well(&stage, &["status"]).stdout;
    for expected in ["user mode", "protections", "limit:", "claude-code", "codex"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let again = well(&stage, &["up", "--detach", "--enforce"]);
    assert!(again.stdout.contains("already runs") && again.stderr.contains("policy enforce"), "{again}");
    // A second daemon on the same record is refused.
    let second =
        stage.run(Account::USER, "creeld").arguments(["--user", "--runtime", "/tmp/other"]).finish(60).unwrap();
    assert_ne!(second.code, Some(0), "{second}");
    assert!(second.stderr.lines().count() <= 3, "{second}");

    attack(&stage);
    let records = json(&stage, &["status", "--format", "json"])["journal"]["records"].as_u64().unwrap();
    let down = well(&stage, &["down"]);
    assert!(down.stdout.contains("the record is sealed"), "{down}");
    assert!(!stage.process_named("creeld"));
    assert!(well(&stage, &["down"]).stdout.contains("not running"));
    // The record is there and whole without it, and goes on with the next one.
    well(&stage, &["log", "verify"]);
    well(&stage, &["up", "--detach"]);
    let later = json(&stage, &["status", "--format", "json"])["journal"]["records"].as_u64().unwrap();
    assert!(later > records, "{later} after {records}");
    well(&stage, &["log", "verify"]);
    well(&stage, &["down"]);
}

#[test]
fn the_screen_fits_and_ctrl_c_ends_it_cleanly() {
    let Some(stage) = Stage::open() else { return };
    for columns in [60, 80, 120] {
        let mut terminal = Terminal::open(&stage, columns, "creel up");
        terminal.sees("Ctrl-C stops creel");
        attack(&stage);
        terminal.sees("SessionEnd");
        let screen = terminal.screen();
        assert!(screen.len() <= 50, "{screen:#?}");
        for line in &screen {
            assert!(line.chars().count() <= usize::from(columns), "{columns}: {line}");
        }
        let all = screen.join("\n");
        for expected in
            ["creel 0.", "needs you", "protections", "agents", "decisions", "SessionEnd", "Ctrl-C stops creel"]
        {
            assert!(all.contains(expected), "{columns} columns: {expected}\n{all}");
        }
        terminal.types("\u{3}");
        let ended = terminal.ends();
        assert_eq!(ended.code, Some(0), "{ended}");
        // The terminal is as it was: alternate screen left, cursor shown.
        let after = ended.stdout.split("\u{1b}[?1049l").last().unwrap().to_owned();
        assert!(ended.stdout.contains("\u{1b}[?25h\u{1b}[?1049l"), "the screen was not left");
        assert_eq!(plain(&after).trim(), "creel is down; the record is sealed");
        assert!(!stage.process_named("creeld"));
        assert_eq!(creel(&stage, &["status"]).code, Some(2));
    }
    assert!(stage.exists(STATE));
    let verified = well(&stage, &["log", "verify"]);
    assert!(verified.stdout.contains("self-consistent"), "{verified}");
}

#[test]
fn without_a_terminal_it_is_plain_lines() {
    let Some(stage) = Stage::open() else { return };
    let mut up = stage.run(Account::USER, "creel").arguments(["up", "--enforce"]).start().unwrap();
    up.says("protections", Deadline::seconds(60)).unwrap();
    attack(&stage);
    up.says("delete-home-or-root", Deadline::seconds(60)).unwrap();
    up.signal(Signal::INT).unwrap();
    let ended = up.finish(Deadline::seconds(60)).unwrap().well().unwrap();
    assert!(ended.stdout.trim_end().ends_with("creel is down; the record is sealed"), "{ended}");
    assert!(!ended.stdout.contains('\u{1b}'), "{ended}");
    assert!(!stage.process_named("creeld"));
}

#[test]
fn a_screen_that_joined_leaves_the_daemon_alone() {
    let Some(stage) = Stage::open() else { return };
    well(&stage, &["up", "--detach"]);
    let mut terminal = Terminal::open(&stage, 80, "creel up");
    terminal.sees("Ctrl-C leaves this screen; creel goes on");
    terminal.types("\u{3}");
    let ended = terminal.ends();
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(ended.stdout.contains("creel goes on; `creel down` stops it"), "{ended}");
    well(&stage, &["status"]);
    // And when the daemon goes, the screen says so.
    let mut terminal = Terminal::open(&stage, 80, "creel up");
    terminal.sees("Ctrl-C leaves this screen; creel goes on");
    well(&stage, &["down"]);
    let ended = terminal.ends();
    assert_eq!(ended.code, Some(2), "{ended}");
    assert!(ended.stdout.contains("creel up"), "{ended}");
}
