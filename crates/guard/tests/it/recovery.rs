//! The state after a restart, and recorded facts against another bundle.

use creel_guard::{CageNote, Differences, Guard, Input, Limits, Response, RestoreError, explain, replay};
use creel_model::record::{Detail, Envelope, Record};
use creel_model::{RecordKind, RunId, Verdict};
use serde_json::json;

use crate::lab::*;

fn pairs(records: &[Record]) -> impl Iterator<Item = (&Envelope, Option<&Detail>)> {
    records.iter().map(|record| (&record.envelope, Some(&record.detail)))
}

/// A day's work in a few steps; the snapshot is taken in the middle.
fn busy() -> (Lab, Vec<u8>, usize) {
    let (mut lab, agent) = (Lab::new(), caller(10));
    lab.verdict(&agent, &start("s", "startup"));
    lab.verdict(&agent, &prompt("s", "clean up ~/old please"));
    lab.verdict(&agent, &bash("s", "c1", "ls"));
    let snapshot = lab.guard.snapshot();
    let at = lab.records.len();
    let fetch = json!({"url": "https://example.com/x", "prompt": "what"});
    lab.verdict(&agent, &call("s", "c2", "WebFetch", fetch.clone()));
    lab.verdict(&agent, &result("s", "c2", "WebFetch", fetch, json!({"result": "hello"})));
    let (_, open) = lab.ask(&agent, &hook_write("s", "c3", "echo 1"));
    let (_, approved) = lab.ask(&agent, &hook_write("s", "c4", "echo 2"));
    lab.answer(&approved, Response::Approve);
    lab.pass(121 * SECOND);
    lab.step(Input::RunEnded(caller(99).run));
    lab.step(Input::OpenBreakGlass { seconds: 60, reason: "x".into(), uid: None, by: person() });
    assert_ne!(open, approved);
    (lab, snapshot, at)
}

#[test]
fn the_state_is_the_same_after_a_restart() {
    let (lab, middle, at) = busy();
    let end = lab.guard.snapshot();
    let settings = || settings(Limits::default());
    for (snapshot, from) in [
        (None, 0),
        (Some(middle.as_slice()), at),
        // The journal takes its snapshot while it appends a step's records: they are not applied twice.
        (Some(middle.as_slice()), 0),
        (Some(end.as_slice()), at),
    ] {
        let restored = Guard::restore(settings(), snapshot, pairs(&lab.records[from..])).unwrap();
        assert_eq!(String::from_utf8(restored.snapshot()).unwrap(), String::from_utf8(end.clone()).unwrap(), "{from}");
    }
    let restored = Guard::restore(settings(), Some(&end), []).unwrap();
    assert_eq!(restored.approvals().len(), 2);
    assert!(restored.approvals().iter().all(|view| !view.waiting), "a held hook does not survive a restart");
}

/// A cage's run has the id that its plan was given, in its notes and in its decisions, also after a restart.
#[test]
fn a_run_in_a_cage_is_one_run_in_every_record() {
    let mut lab = Lab::new();
    let id = RunId::from_random([9; 16]);
    let mut caged = caller(10);
    caged.run.cage = Some(id.clone());
    let mut note = CageNote {
        caller: caged.clone(),
        kind: RecordKind::Event,
        code: "cage.refused".to_owned(),
        verdict: Some(Verdict::Deny),
        rules: (0..200).map(|n| format!("rule-{}", n % 70)).collect(),
        effects: Vec::new(),
        facts: json!({"state": "forged", "events": []}).as_object().unwrap().clone(),
    };
    lab.step(Input::Cage(Box::new(note.clone())));
    lab.verdict(&caged, &start("s", "startup"));
    lab.verdict(&caged, &bash("s", "c1", "ls"));
    note.facts = json!({"large": "x".repeat(300 * 1024)}).as_object().unwrap().clone();
    lab.step(Input::Cage(Box::new(note)));
    let of_runs: Vec<&Record> =
        lab.records.iter().filter(|record| record.envelope.kind != RecordKind::Policy).collect();
    let noted = of_runs[0];
    assert_eq!((noted.envelope.verdict, noted.envelope.rules.len()), (Some(Verdict::Deny), 64));
    assert_ne!(noted.detail.facts["state"], json!("forged"), "the state is the guard's own word");
    assert!(lab.records.last().unwrap().detail.facts.contains_key("left_out"));
    for record in &of_runs {
        assert_eq!(
            record.envelope.subject.as_ref().map(|subject| &subject.run),
            Some(&id),
            "{:?}",
            record.envelope.code
        );
    }
    let restored = Guard::restore(settings(Limits::default()), None, pairs(&lab.records)).unwrap();
    assert_eq!(restored.snapshot(), lab.guard.snapshot());
}

#[test]
fn an_approval_given_before_a_restart_is_used_after_it() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    let (ticket, approval) = lab.ask(&agent, &hook_write("s", "c1", "echo hi"));
    lab.step(Input::Gone { ticket });
    lab.answer(&approval, Response::Approve);
    let bundle = lab.bundle.clone();
    lab.guard = Guard::restore(settings(Limits::default()), None, pairs(&lab.records)).unwrap();
    assert_eq!(lab.verdict(&agent, &bash("s", "c0", "ls")), Verdict::Deny, "no bundle yet");
    lab.step(Input::Activate { bundle, trust: creel_guard::Trust::LocalUnsigned, confirmed_by: None });
    assert_eq!(lab.verdict(&agent, &hook_write("s", "c2", "echo hi")), Verdict::Allow);
}

#[test]
fn another_boot_ends_what_its_clock_measured() {
    let (lab, _, _) = busy();
    let mut settings = settings(Limits::default());
    settings.boot_id = "boot-2".into();
    let restored = Guard::restore(settings, Some(&lab.guard.snapshot()), []).unwrap();
    assert!(restored.approvals().is_empty() && restored.break_glass().is_none());
    assert_eq!(restored.runs().count(), 0);
    assert!(restored.active_bundle().is_some());
}

#[test]
fn an_erased_detail_makes_everything_untrusted() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    lab.verdict(&agent, &start("s", "startup"));
    lab.verdict(&agent, &bash("s", "c1", "ls"));
    let erased = lab.records.last().unwrap();
    let pairs = pairs(&lab.records).chain([(&erased.envelope, None)]);
    let restored = Guard::restore(settings(Limits::default()), None, pairs).unwrap();
    assert!(restored.runs().all(|run| run.labels == ["untrusted"]));
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let settings = || settings(Limits::default());
    assert!(matches!(Guard::restore(settings(), Some(b"{"), []), Err(RestoreError::Unreadable(_))));
    let other = br#"{"format":9,"boot_id":"b","state":{}}"#;
    assert!(Guard::restore(settings(), Some(other), []).is_err());
}

#[test]
fn recorded_facts_give_the_same_verdicts_and_show_what_another_bundle_changes() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    lab.verdict(&agent, &bash("s", "c1", "make all"));
    lab.verdict(&agent, &call("s", "c2", "Read", json!({"file_path": "/home/dev/.ssh/id_rsa"})));
    lab.verdict(&agent, &hook_write("s", "c3", "x"));
    lab.verdict(&agent, &bash("s", "c4", "rm /home/dev/old.txt"));
    let mut same = Differences::default();
    pairs(&lab.records).for_each(|(envelope, detail)| same.add(envelope, detail, &lab.bundle));
    assert_eq!((same.compared, same.skipped, same.different), (4, 0, 0));

    let stricter = bundle_with(
        "@id(\"no-make\") @effect(\"deny\") @severity(\"low\") @reason(\"no\")\n\
         forbid (principal, action == Action::\"execute\", resource is Program) when { resource.program == \"make\" };",
    );
    let mut found = Differences::default();
    pairs(&lab.records).for_each(|(envelope, detail)| found.add(envelope, detail, &stricter));
    let erased = &lab.last_decision().envelope;
    found.add(erased, None, &stricter);
    assert_eq!((found.compared, found.skipped, found.different), (4, 1, 1));
    assert_eq!(found.differences[0].after_rules, ["no-make"]);
    assert_eq!(found.by_verdict["allow -> deny"], 1);
    assert_eq!((found.by_agent["claude-code"], found.by_user[&1000]), (1, 1));

    let denied = lab.records.iter().find(|r| r.envelope.rules.contains(&"read-key".to_owned())).unwrap();
    assert_eq!(replay(denied, &lab.bundle).unwrap().rules, ["read-key"]);
    let why = explain(&denied.envelope, &denied.detail, &lab.bundle).unwrap();
    assert_eq!((why.judged, why.answered, why.same_bundle), (Verdict::Deny, Verdict::Deny, true));
    assert_eq!(why.now.judgement.verdict, Verdict::Deny);
}

/// An agent may claim as many conversations as it likes; the journal takes snapshots of 2 MiB, and one that is too
/// large would deny everything from then on, for everybody.
#[test]
fn a_flood_of_claimed_conversations_leaves_a_snapshot_that_can_be_written() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    let words: String = (0..200).map(|n| format!("~/f{n} ")).collect();
    for n in 0..700 {
        lab.verdict(&agent, &prompt(&format!("{n}-{}", "x".repeat(200)), &words));
        lab.records.clear();
    }
    let snapshot = lab.guard.snapshot();
    assert!(snapshot.len() <= creel_guard::SNAPSHOT_BYTES_MAX, "{} bytes", snapshot.len());
    let mut restored = Guard::restore(settings(Limits::default()), Some(&snapshot), []).unwrap();
    assert_eq!(restored.runs().count(), 1, "what is small stays");
    let bundle = lab.bundle.clone();
    restored.step(Input::Activate { bundle, trust: creel_guard::Trust::LocalUnsigned, confirmed_by: None }, lab.now);
    assert!(restored.bundle().is_some());
}
