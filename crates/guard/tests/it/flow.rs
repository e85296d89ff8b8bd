//! An action's way: verdicts, causes, labels, comparison of judged and executed, redaction, break-glass.

use creel_guard::{Answer, Input, Limits, Note, OTHER, Overloaded, Prepared, Submission, Trust, Unattributed};
use creel_model::{Link, RecordKind, Verdict};
use serde_json::{Value, json};

use crate::lab::*;

#[test]
fn a_turn_is_judged_recorded_and_linked() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    lab.verdict(&agent, &start("s", "startup"));
    assert_eq!(lab.verdict(&agent, &prompt("s", "look at src/main.rs")), Verdict::Allow);
    let prompt_record = lab.last_decision().clone();
    let input = json!({"file_path": "/home/dev/work/src/main.rs"});
    assert_eq!(lab.verdict(&agent, &call("s", "c1", "Read", input.clone())), Verdict::Allow);
    let call_record = lab.last_decision().clone();
    assert_eq!(call_record.envelope.causes[0].action_id, prompt_record.envelope.action_id);
    assert_eq!(call_record.envelope.causes[0].link, Link::Interval);
    assert_eq!(call_record.envelope.trace_id, prompt_record.envelope.trace_id);
    assert!(call_record.envelope.trace_id.is_some());
    let response = json!({"type": "text", "file": {"filePath": "x", "content": "fn main() {}"}});
    assert_eq!(lab.verdict(&agent, &result("s", "c1", "Read", input, response)), Verdict::Allow);
    let result_record = lab.last_decision().clone();
    assert_eq!(result_record.envelope.causes[0].action_id, call_record.envelope.action_id);
    assert_eq!(result_record.envelope.causes[0].link, Link::Exact);
    assert_eq!(result_record.envelope.took_ns, 1000);
    assert_eq!(result_record.envelope.subject.as_ref().unwrap().run, agent.run.id());
    assert!(!lab.codes().iter().any(|code| code.starts_with("alert.")), "{:?}", lab.codes());
}

#[test]
fn the_same_rule_holds_for_a_tool_and_for_a_command() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    let read = call("s", "c1", "Read", json!({"file_path": "/home/dev/.ssh/id_ed25519"}));
    for action in [read, bash("s", "c2", "cat ~/.ssh/id_ed25519")] {
        let decision = lab.decide(&agent, &action);
        assert_eq!(decision.verdict, Verdict::Deny);
        assert_eq!(decision.rules[0].rule, "read-key");
        assert!(decision.reason.contains("nobody's business"), "{}", decision.reason);
    }
}

#[test]
fn a_link_is_judged_by_both_its_names() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    lab.links.insert("/home/dev/work/notes".into(), "/home/dev/.ssh/id_ed25519".into());
    let read = call("s", "c1", "Read", json!({"file_path": "/home/dev/work/notes"}));
    assert_eq!(lab.verdict(&agent, &read), Verdict::Deny);
    lab.links.insert("/home/dev/.ssh/config".into(), "/home/dev/work/config".into());
    let read = call("s", "c2", "Read", json!({"file_path": "/home/dev/.ssh/config"}));
    assert_eq!(lab.verdict(&agent, &read), Verdict::Deny);
}

#[test]
fn what_ran_is_compared_with_what_was_judged() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    let harmless = json!({"command": "ls"});
    lab.verdict(&agent, &call("s", "c1", "Bash", harmless.clone()));
    let ran = json!({"command": "rm -rf /"});
    lab.verdict(&agent, &result("s", "c1", "Bash", ran, json!({"stdout": ""})));
    assert!(lab.codes().contains(&"alert.result-mismatch"));
    // The call is closed: the same result once more has no call.
    lab.verdict(&agent, &result("s", "c1", "Bash", harmless.clone(), json!({"stdout": ""})));
    assert!(lab.codes().contains(&"alert.result-without-call"));
    // A failure is told twice by Claude Code, as a failure and as an ordinary result; a third time is one too many.
    let mut lab = Lab::new();
    let input = json!({"command": "false"});
    lab.verdict(&agent, &bash("s", "c2", "false"));
    let failure = json!({"tool_name": "Bash", "tool_input": input, "tool_use_id": "c2", "error": "Exit code 1"});
    lab.verdict(&agent, &event("s", "PostToolUseFailure", failure));
    let told = result("s", "c2", "Bash", input, json!({"stdout": "", "stderr": ""}));
    lab.verdict(&agent, &told);
    assert!(!lab.codes().iter().any(|code| code.starts_with("alert.")), "{:?}", lab.codes());
    lab.verdict(&agent, &told);
    assert!(lab.codes().contains(&"alert.result-without-call"));
    // A call that was denied must not have a result.
    let mut lab = Lab::new();
    let denied = json!({"file_path": "/home/dev/.ssh/id_rsa"});
    assert_eq!(lab.verdict(&agent, &call("s", "c9", "Read", denied.clone())), Verdict::Deny);
    lab.verdict(&agent, &result("s", "c9", "Read", denied, json!("x")));
    assert!(lab.codes().contains(&"alert.result-without-call"));
}

#[test]
fn secrets_are_taken_out_of_results_and_stand_in_no_record() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    let input = json!({"command": "ls"});
    lab.verdict(&agent, &call("s", "c1", "Bash", input.clone()));
    let response = json!({"stdout": format!("key {KEY} end"), "stderr": ""});
    let decision = lab.decide(&agent, &result("s", "c1", "Bash", input, response));
    assert_eq!(decision.verdict, Verdict::Modify, "{decision:?}");
    assert_eq!(decision.modifications.len(), 1);
    assert_eq!(decision.modifications[0].pointer, "/stdout");
    assert!(!decision.modifications[0].text.contains(KEY));
    assert!(decision.modifications[0].text.starts_with("key "));
    // A prompt cannot be changed by this agent, so it is denied.
    let denied = lab.decide(&agent, &prompt("s", &format!("use {KEY} please")));
    assert_eq!(denied.verdict, Verdict::Deny);
    assert!(denied.rules.iter().any(|rule| rule.rule == "modify-failed"));
    // In a command it is judged, but not written down.
    lab.verdict(&agent, &bash("s", "c2", &format!("deploy --key {KEY}")));
    let written = serde_json::to_string(&lab.records).unwrap();
    assert!(!written.contains(KEY), "a secret was recorded");
    assert!(!written.contains("please"), "a prompt was recorded");
    assert!(!String::from_utf8(lab.guard.snapshot()).unwrap().contains(KEY));
}

#[test]
fn labels_are_inherited_and_never_lost_by_a_new_claim() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    lab.verdict(&agent, &start("s", "startup"));
    let labels = |lab: &Lab| -> Vec<String> {
        lab.last_decision().detail.labels.iter().map(|fact| fact.label.to_string()).collect()
    };
    lab.verdict(&agent, &bash("s", "c0", "ls"));
    assert_eq!(labels(&lab), Vec::<String>::new());
    let fetch = json!({"url": "https://example.com/x", "prompt": "what"});
    lab.verdict(&agent, &call("s", "c1", "WebFetch", fetch.clone()));
    lab.verdict(&agent, &result("s", "c1", "WebFetch", fetch, json!({"result": "hello"})));
    lab.verdict(&agent, &bash("s", "c2", "ls"));
    assert_eq!(labels(&lab), ["untrusted"]);
    // Another claimed id in the same run, also after a clear.
    for (session, source) in [("t", "startup"), ("u", "clear")] {
        lab.verdict(&agent, &start(session, source));
        lab.verdict(&agent, &bash(session, "c3", "ls"));
        assert_eq!(labels(&lab), ["untrusted"], "{session}");
    }
    // The conversation goes on in another run.
    let other = caller(11);
    lab.verdict(&other, &start("s", "resume"));
    lab.verdict(&other, &bash("s", "c4", "ls"));
    assert_eq!(labels(&lab), ["untrusted"]);
    // A fresh run and conversation is clean; resuming what nobody knows is not.
    let fresh = caller(12);
    lab.verdict(&fresh, &start("v", "startup"));
    lab.verdict(&fresh, &bash("v", "c5", "ls"));
    assert_eq!(labels(&lab), Vec::<String>::new());
    let unknown = caller(13);
    lab.verdict(&unknown, &start("w", "resume"));
    lab.verdict(&unknown, &bash("w", "c6", "ls"));
    assert_eq!(labels(&lab), ["untrusted"]);
    // An agent started by a labelled one inherits, and its first action is linked to the open call.
    let mut nested = caller(14);
    nested.parent = Some(agent.run.clone());
    lab.verdict(&nested, &start("n", "startup"));
    lab.verdict(&nested, &bash("n", "c7", "ls"));
    assert_eq!(labels(&lab), ["untrusted"]);
    // The same claimed id of another account is another conversation.
    let mut stranger = caller(15);
    stranger.account.uid = 1001;
    lab.verdict(&stranger, &start("s", "startup"));
    lab.verdict(&stranger, &bash("s", "c8", "ls"));
    assert_eq!(labels(&lab), Vec::<String>::new());
}

#[test]
fn a_nested_agent_is_linked_to_the_call_that_started_it() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    lab.verdict(&agent, &bash("s", "c1", "claude -p x"));
    let started = lab.last_decision().envelope.action_id.clone();
    let mut nested = caller(14);
    nested.parent = Some(agent.run.clone());
    lab.verdict(&nested, &prompt("n", "hello"));
    let causes = &lab.last_decision().envelope.causes;
    assert_eq!((causes[0].action_id.clone(), causes[0].link), (started, Link::Subtree));
}

#[test]
fn what_the_prompt_names_is_no_new_destination() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    let sink = |lab: &Lab, path: &str| -> Value {
        let effects = serde_json::to_value(&lab.last_decision().detail.effects).unwrap();
        let found = effects.as_array().unwrap().iter().find(|e| e["object"]["path"] == path).cloned();
        found.unwrap()["sink"].clone()
    };
    lab.verdict(&agent, &prompt("s", "write the summary to ~/notes/today.md"));
    let write = |id: &str, path: &str| call("s", id, "Write", json!({"file_path": path, "content": "x"}));
    lab.verdict(&agent, &write("c1", "/home/dev/notes/today.md"));
    assert_eq!(sink(&lab, "/home/dev/notes/today.md"), "named-by-user");
    lab.verdict(&agent, &write("c2", "/home/dev/notes/other.md"));
    assert_eq!(sink(&lab, "/home/dev/notes/other.md"), "new");
    let input = json!({"file_path": "/home/dev/notes/other.md", "content": "x"});
    lab.verdict(&agent, &result("s", "c2", "Write", input, json!({"type": "create"})));
    lab.verdict(&agent, &write("c3", "/home/dev/notes/other.md"));
    assert_eq!(sink(&lab, "/home/dev/notes/other.md"), "seen-before");
    lab.verdict(&agent, &write("c4", "/home/dev/work/a.txt"));
    assert_eq!(sink(&lab, "/home/dev/work/a.txt"), "configured");
}

#[test]
fn what_cannot_be_attributed_or_understood_is_denied_also_with_broken_glass() {
    let mut lab = Lab::new();
    let seconds = 60;
    lab.step(Input::OpenBreakGlass { seconds, reason: "outage".into(), uid: None, by: person() });
    let call = || Box::new(Unattributed { kind: "claude-code".into(), uid: 1000, pid: 5, ..Unattributed::default() });
    for input in [Input::NoAgentAbove(call()), Input::Malformed(call()), Input::Overload(call())] {
        let out = lab.step(input);
        assert!(matches!(out.answer, Some(Answer::Final(decision)) if decision.verdict == Verdict::Deny));
        assert!(!out.records.is_empty());
    }
    assert!(lab.codes().contains(&"alert.no-agent-above"));
    // A payload of one agent below another.
    let mut other = caller(10);
    other.kind = "codex".into();
    assert_eq!(lab.verdict(&other, &bash("s", "c1", "ls")), Verdict::Deny);
    assert!(lab.codes().contains(&"alert.wrong-kind"));
}

#[test]
fn overload_is_a_deny_and_never_a_question() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    let over = Overloaded { caller: agent, action: hook_write("s", "c1", "x"), payload_bytes: 9 };
    let received = lab.now;
    let submission =
        Submission { ticket: 1, prepared: Prepared::Overload(Box::new(over)), received, wait_ns_max: SECOND };
    let out = lab.step(Input::Action(Box::new(submission)));
    let Some(Answer::Final(decision)) = out.answer else { panic!("not final") };
    assert_eq!((decision.verdict, decision.rules[0].rule.as_str()), (Verdict::Deny, "overload"));
}

#[test]
fn broken_glass_lets_pass_for_a_while_and_says_so() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    let read = call("s", "c1", "Read", json!({"file_path": "/home/dev/.ssh/id_rsa"}));
    let out = lab.step(Input::OpenBreakGlass { seconds: 60, reason: "  ".into(), uid: None, by: person() });
    assert!(out.refused.is_some(), "a reason is needed");
    lab.step(Input::OpenBreakGlass { seconds: 60, reason: "outage".into(), uid: Some(1000), by: person() });
    assert_eq!(lab.verdict(&agent, &read), Verdict::Allow);
    let record = lab.last_decision();
    assert_eq!(record.envelope.code.as_deref(), Some("break-glass"));
    assert!(record.envelope.rules.contains(&"read-key".to_owned()));
    let mut stranger = caller(11);
    stranger.account.uid = 1001;
    let theirs = call("t", "c2", "Read", json!({"file_path": "/home/dev/.ssh/id_rsa"}));
    assert_eq!(lab.verdict(&stranger, &theirs), Verdict::Deny);
    lab.pass(61 * SECOND);
    assert_eq!(lab.verdict(&agent, &read), Verdict::Deny);
    assert!(lab.codes().contains(&"break-glass.ended"));
    let everything = u64::MAX;
    lab.step(Input::OpenBreakGlass { seconds: everything, reason: "x".into(), uid: None, by: person() });
    let until = lab.guard.break_glass().unwrap().until_boot_ns;
    assert!(until <= lab.now.boot_ns + 8 * 3600 * SECOND);
}

#[test]
fn without_a_bundle_everything_is_denied() {
    let mut lab = Lab::new();
    lab.guard = creel_guard::Guard::new(settings(Limits::default()));
    assert_eq!(lab.decide(&caller(10), &bash("s", "c1", "ls")).rules[0].rule, "no-bundle");
}

#[test]
fn bundles_are_confirmed_and_do_not_go_back() {
    let mut lab = Lab::new();
    let other = bundle_with(
        "@id(\"more\") @effect(\"deny\") @severity(\"low\") @reason(\"no\")\n\
         forbid (principal, action == Action::\"execute\", resource is Program) when { resource.program == \"make\" };",
    );
    let activate =
        |confirmed| Input::Activate { bundle: other.clone(), trust: Trust::LocalUnsigned, confirmed_by: confirmed };
    assert!(lab.step(activate(None)).refused.is_some());
    assert_eq!(lab.verdict(&caller(10), &bash("s", "c1", "make all")), Verdict::Allow);
    assert!(lab.step(activate(Some(person()))).refused.is_none());
    // Prepared under the former bundle, judged under the new one.
    assert_eq!(lab.verdict(&caller(10), &bash("s", "c2", "make all")), Verdict::Deny);
    let stale = Input::SetModes { bundle: bundle_with(""), by: person() };
    assert!(lab.step(stale).refused.is_some(), "modes of another bundle");
}

#[test]
fn the_ledger_counts_what_people_feel() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    lab.verdict(&agent, &call("s", "c1", "Read", json!({"file_path": "/home/dev/.ssh/id_rsa"})));
    let (_, approval) = lab.ask(&agent, &hook_write("s", "c2", "x"));
    lab.pass(30 * SECOND);
    lab.answer(&approval, creel_guard::Response::Refuse);
    let agent = &lab.guard.quietness().agents["claude-code@1000"];
    assert_eq!((agent.actions, agent.denials, agent.asks), (2, 1, 1));
    assert_eq!(agent.rules["read-key"].denials, 1);
    assert_eq!(agent.rules["write-hook"].asks, 1);
    assert!(agent.rules["write-hook"].waited_ns >= 30 * SECOND);
    assert!(!agent.rules.contains_key(OTHER));
}

#[test]
fn notes_go_into_the_journal_with_their_code() {
    let mut lab = Lab::new();
    let facts = json!({"version": "1", "state": [{"run-ended": "r-1"}]}).as_object().unwrap().clone();
    let note = Note { kind: RecordKind::Daemon, code: "daemon.started".into(), owner: 0, facts };
    let out = lab.step(Input::Note(Box::new(note)));
    assert_eq!(out.records[0].envelope.code.as_deref(), Some("daemon.started"));
    assert!(!out.records[0].detail.facts.contains_key("state"), "a note cannot change the state");
}
