//! What reaches the daemon through the hook from a stand-in agent: malformed, unknown, forged, and from nobody.

use creel_tests::{Account, Creel, Stage, StandIn, tool_call};
use serde_json::json;

#[test]
fn a_stand_in_is_judged_like_the_agent() {
    let Some(stage) = Stage::open() else { return };
    let creel = Creel::system(&stage).unwrap();
    let agent = StandIn::claude(&stage, Account::USER).unwrap();
    let call = |command: &str| tool_call(Account::USER, "s-1", "t-1", "Bash", &json!({"command": command})).to_string();
    let harmless = agent.call("PreToolUse", "--system", call("ls")).finish(60).unwrap();
    assert_eq!((harmless.code, harmless.stdout.as_str()), (Some(0), ""), "{harmless}");
    let stopped = agent.call("PreToolUse", "--system", call("rm -rf ~")).finish(60).unwrap();
    let answer = stopped.json().unwrap();
    assert_eq!(answer["hookSpecificOutput"]["permissionDecision"], "deny", "{stopped}");
    let verdicts: Vec<_> =
        creel.decisions("tool_call", "Bash").unwrap().iter().map(|call| call["envelope"]["verdict"].clone()).collect();
    assert_eq!(verdicts, ["allow", "deny"]);
}
