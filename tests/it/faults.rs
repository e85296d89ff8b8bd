//! What goes wrong around the daemon: killed, doubled, without disk, flooded, its record damaged, its folder taken.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use creel_tests::{Account, Creel, Deadline, Finished, Running, Stage, StandIn, tool_call, until};
use serde_json::{Value, json};

const ASKS: &str = "echo x >> /home/dana/.bashrc";

fn call(command: &str) -> String {
    tool_call(Account::USER, "s-1", "t-1", "Bash", &json!({"command": command})).to_string()
}

fn verdict(ended: &Finished) -> String {
    match (ended.code, ended.stdout.is_empty()) {
        (Some(0), true) => "allow".to_owned(),
        (Some(0), false) => {
            ended.json().unwrap()["hookSpecificOutput"]["permissionDecision"].as_str().unwrap().to_owned()
        }
        (Some(2), _) => "deny".to_owned(),
        _ => panic!("neither a yes nor a no: {ended}"),
    }
}

fn ended(running: Running) -> Finished {
    running.finish(Deadline::seconds(120)).unwrap()
}

fn shell(stage: &Stage, account: Account, script: &str) -> Finished {
    stage.run(account, "sh").arguments(["-c", script]).finish(60).unwrap()
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let Some(stage) = Stage::open() else { return };
    let creel = Creel::user(&stage, Account::USER).unwrap();
    let second = stage.run(Account::USER, "creeld").arguments(["--user", "--enforce"]).finish(60).unwrap();
    assert_eq!(second.code, Some(1), "{second}");
    assert!(second.stderr.contains("creeld: "), "{second}");
    // Another runtime folder, the same record.
    let second = stage.run(Account::USER, "creeld").arguments(["--user", "--runtime", "/home/dana/elsewhere"]);
    let second = second.finish(60).unwrap();
    assert_eq!(second.code, Some(1), "{second}");
    assert!(second.stderr.contains("journal"), "{second}");
    creel.verified().unwrap();
    assert_eq!(creel.stop().unwrap().code, Some(0));
}

#[test]
fn a_user_daemon_does_not_start_beside_the_system_daemon() {
    let Some(stage) = Stage::open() else { return };
    let creel = Creel::system(&stage).unwrap();
    let second = stage.run(Account::USER, "creeld").argument("--user").finish(60).unwrap();
    assert_eq!(second.code, Some(1), "{second}");
    assert!(second.stderr.contains("this machine has a system creel"), "{second}");
    creel.verified().unwrap();
}

#[test]
fn a_daemon_killed_in_mid_decision_loses_nothing() {
    let Some(stage) = Stage::open() else { return };
    let mut creel = Creel::system(&stage).unwrap();
    let agent = StandIn::claude(&stage, Account::USER).unwrap();
    let held = agent.call("PreToolUse", "--system", call(ASKS)).start().unwrap();
    let before = creel.question().unwrap();
    let records = creel.records().unwrap();
    creel.kill().unwrap();
    creel.start().unwrap();
    // Everything that was told is still there, the question included, and the hook asks again by itself.
    let after = creel.records().unwrap();
    assert_eq!(after[..records.len()], records[..]);
    assert_eq!(creel.question().unwrap()["id"], before["id"]);
    let id = before["id"].as_str().unwrap();
    let waiting = || {
        let asked = creel.coded("approval.asked").ok()?;
        (asked.len() == 2).then_some(())
    };
    until("the hook that asks again", Deadline::seconds(60), waiting).unwrap();
    assert_eq!(creel.at_terminal(Account::APPROVER, &["approve", id]).unwrap().code, Some(0));
    assert_eq!(verdict(&ended(held)), "allow");
    assert_eq!(creel.coded("approval.used").unwrap().len(), 1);
    creel.verified().unwrap();
}

#[test]
fn a_clean_stop_denies_what_is_held_and_seals_the_record() {
    let Some(stage) = Stage::open() else { return };
    let creel = Creel::user(&stage, Account::USER).unwrap();
    let agent = StandIn::claude(&stage, Account::USER).unwrap();
    let held = agent.call("PreToolUse", "", call(ASKS)).start().unwrap();
    creel.question().unwrap();
    let stopped = creel.at_terminal(Account::USER, &["down"]).unwrap();
    assert_eq!(stopped.code, Some(0), "{stopped}");
    assert_eq!(verdict(&ended(held)), "deny");
    assert!(!stage.exists("/run/user/61000/creel/hook.sock"));
    let verified = stage.run(Account::USER, "creel").arguments(["log", "verify"]).finish(60).unwrap();
    assert_eq!(verified.code, Some(0), "{verified}");
}

#[test]
fn stale_sockets_are_replaced_and_strange_things_in_their_place_are_refused() {
    let Some(stage) = Stage::open() else { return };
    let mut creel = Creel::user(&stage, Account::USER).unwrap();
    let agent = StandIn::claude(&stage, Account::USER).unwrap();
    creel.kill().unwrap();
    assert!(stage.exists("/run/user/61000/creel/hook.sock"));
    creel.start().unwrap();
    assert_eq!(verdict(&agent.call("PreToolUse", "", call("ls")).finish(60).unwrap()), "allow");
    creel.stop().unwrap();
    stage.write(Account::USER, "/run/user/61000/creel/control.sock", "not a socket").unwrap();
    let refused = stage.run(Account::USER, "creeld").argument("--user").finish(60).unwrap();
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(refused.stderr.contains("no socket"), "{refused}");
}

#[test]
fn a_hostile_runtime_folder_is_refused_by_daemon_hook_and_command() {
    let Some(stage) = Stage::open() else { return };
    let agent = StandIn::claude(&stage, Account::USER).unwrap();
    let folder = "/run/user/61000/creel";
    for (make, why) in [
        (format!("mkdir {folder}; chown 61001:61001 {folder}; chmod 755 {folder}"), "another account"),
        (format!("mkdir {folder}; chown 61000:61000 {folder}; chmod 777 {folder}"), "others can write"),
        (format!("mkdir /home/mallory/x; chown 61001 /home/mallory/x; ln -s /home/mallory/x {folder}"), "not a folder"),
    ] {
        shell(&stage, Account::ROOT, &make).well().unwrap();
        let refused = stage.run(Account::USER, "creeld").argument("--user").finish(60).unwrap();
        assert_eq!(refused.code, Some(1), "{refused}");
        assert!(refused.stderr.contains("cannot be trusted"), "{refused}");
        let denied = agent.call("PreToolUse", "", call("ls")).finish(60).unwrap();
        assert_eq!(denied.code, Some(2), "{denied}");
        assert!(denied.stderr.contains("cannot be trusted") && denied.stderr.contains(why), "{denied}");
        let asked = stage.run(Account::USER, "creel").argument("status").finish(60).unwrap();
        assert_eq!(asked.code, Some(2), "{asked}");
        shell(&stage, Account::ROOT, &format!("rm -rf {folder} /home/mallory/x")).well().unwrap();
    }
}

#[test]
fn a_stranger_behind_the_socket_is_not_believed() {
    let Some(stage) = Stage::open() else { return };
    let agent = StandIn::claude(&stage, Account::USER).unwrap();
    // The folder is Dana's, the one who listens is Mallory: it would answer yes to everything.
    let listener = r#"use IO::Socket::UNIX; use Socket;
        my $server = IO::Socket::UNIX->new(Local => "/home/mallory/x/hook.sock", Listen => 5) or die;
        chmod 0777, "/home/mallory/x/hook.sock"; $| = 1; print "listens\n";
        while (my $client = $server->accept) { sysread $client, my $request, 65536;
            print $client "CRLH\x01\x02\0\0\x09\0\0\0" . "\0" x 9; close $client; print "answered\n"; }"#;
    stage.make_folder(Account::OTHER, "/home/mallory/x").unwrap();
    let mut fake = stage.run(Account::OTHER, "perl").arguments(["-e", listener]).start().unwrap();
    fake.says("listens", Deadline::seconds(60)).unwrap();
    let move_it =
        "mkdir -m 755 /home/dana/run; chown 61000 /home/dana/run; mv /home/mallory/x/hook.sock /home/dana/run/";
    shell(&stage, Account::ROOT, move_it).well().unwrap();
    let denied = agent.call("PreToolUse", "--socket /home/dana/run/hook.sock", call("rm -rf ~")).finish(60).unwrap();
    assert_eq!(denied.code, Some(2), "{denied}");
    assert!(denied.stderr.contains("account 61001 answers there"), "{denied}");
    assert!(!fake.stdout().contains("answered"));
}

#[test]
fn without_the_root_role_nothing_is_allowed() {
    let Some(stage) = Stage::open() else { return };
    let mut creel = Creel::system(&stage).unwrap();
    let agent = StandIn::claude(&stage, Account::USER).unwrap();
    assert_eq!(verdict(&agent.call("PreToolUse", "--system", call("ls")).finish(60).unwrap()), "allow");
    creel.kill_root().unwrap();
    assert_eq!(verdict(&agent.call("PreToolUse", "--system", call("ls")).finish(60).unwrap()), "deny");
    creel.start_root().unwrap();
    assert_eq!(verdict(&agent.call("PreToolUse", "--system", call("ls")).finish(60).unwrap()), "allow");
    creel.verified().unwrap();
}

#[test]
fn a_flipped_bit_is_found_and_named() {
    let Some(stage) = Stage::open() else { return };
    let creel = Creel::user(&stage, Account::USER).unwrap();
    let agent = StandIn::claude(&stage, Account::USER).unwrap();
    for _ in 0..4 {
        agent.call("PreToolUse", "", call("ls")).finish(60).unwrap();
    }
    let calls = creel.decisions("tool_call", "Bash").unwrap();
    let victim = calls[1]["envelope"]["action_id"].as_str().unwrap().to_owned();
    let sequence = calls[1]["sequence"].as_u64().unwrap();
    creel.stop().unwrap();
    let key = stage.read("/home/dana/.local/state/creel/device.pub").unwrap();
    shell(&stage, Account::USER, "cp -r ~/.local/state/creel/journal ~/copy").well().unwrap();
    let verify = || {
        let run = stage.run(Account::USER, "creel").arguments(["log", "verify", "copy", "--format", "json", "--key"]);
        run.argument(key.trim()).finish(60).unwrap()
    };
    assert_eq!(verify().code, Some(0), "{}", verify());

    let found = shell(&stage, Account::USER, &format!("grep -rl --binary-files=text {victim} ~/copy/segments | sort"));
    let path = stage.outside(found.stdout.lines().next().unwrap());
    let bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(victim.len()).position(|window| window == victim.as_bytes()).unwrap();
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(at as u64 + 5)).unwrap();
    let mut byte = [0u8; 1];
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at as u64 + 5)).unwrap();
    file.write_all(&[byte[0] ^ 1]).unwrap();
    drop(file);
    let broken = verify();
    assert_eq!(broken.code, Some(1), "{broken}");
    let view = broken.json().unwrap();
    assert_eq!(view["verdict"], "broken");
    assert_eq!(view["first_bad"], sequence, "{view}");
}

#[test]
fn a_flood_of_one_agent_does_not_starve_another() {
    let Some(stage) = Stage::open() else { return };
    let creel = Creel::system(&stage).unwrap();
    let flooding = StandIn::claude(&stage, Account::OTHER).unwrap();
    let working = StandIn::claude(&stage, Account::USER).unwrap();
    // One run, many calls that each wait for a person, each another question.
    let mut script = String::new();
    for number in 0..100 {
        let input = json!({"command": format!("echo {number} >> /home/mallory/.bashrc")});
        let payload = tool_call(Account::OTHER, "s-9", &format!("t-{number}"), "Bash", &input);
        stage.write(Account::OTHER, &format!("/home/mallory/calls/{number}"), payload.to_string()).unwrap();
        script.push_str(&format!("/usr/bin/creel-hook claude-code PreToolUse --system <calls/{number} &\n"));
    }
    script.push_str("wait");
    let flood = flooding.script(&script).start().unwrap();
    until("the flood to be bounded", Deadline::seconds(120), || {
        (!creel.coded("hook.overload").ok()?.is_empty()).then_some(())
    })
    .unwrap();
    for _ in 0..5 {
        assert_eq!(verdict(&working.call("PreToolUse", "--system", call("ls")).finish(60).unwrap()), "allow");
    }
    assert!(creel.questions().unwrap().len() <= 64);
    drop(flood);
    creel.verified().unwrap();
}

/// creel in user mode with its state on a disk of that size.
fn on_a_small_disk<'stage>(stage: &'stage Stage, size: &str) -> (Creel<'stage>, StandIn<'stage>) {
    stage.make_folder(Account::USER, "/home/dana/.local/state/creel").unwrap();
    let mount =
        format!("mount -t tmpfs -o size={size},mode=700,uid=61000,gid=61000 none /home/dana/.local/state/creel");
    shell(stage, Account::ROOT, &mount).well().unwrap();
    let creel = Creel::user(stage, Account::USER).unwrap();
    let agent = StandIn::claude(stage, Account::USER).unwrap();
    // A call whose record is large: many long paths.
    let paths: Vec<String> =
        (0..60).map(|number| format!("/tmp/{number}{}", format!("/{}", "a".repeat(250)).repeat(15))).collect();
    stage.write(Account::USER, "/home/dana/large", call(&format!("touch {}", paths.join(" ")))).unwrap();
    (creel, agent)
}

/// Makes large records until something is so.
fn fill_until(what: &str, agent: &StandIn<'_>, done: &dyn Fn() -> bool) {
    let calls = "for n in 1 2 3; do /usr/bin/creel-hook claude-code PreToolUse <large >>answers; done";
    for _ in 0..30 {
        if done() {
            return;
        }
        agent.script(calls).finish(180).unwrap().well().unwrap();
    }
    panic!("it never came to this: {what}");
}

fn journal(creel: &Creel<'_>, name: &str) -> Value {
    creel.status().unwrap()["journal"][name].clone()
}

#[test]
fn with_the_reserve_in_use_nobody_is_asked_any_more() {
    let Some(stage) = Stage::open() else { return };
    // Room for one segment and the reserve.
    let (creel, agent) = on_a_small_disk(&stage, "21m");
    fill_until("the reserve is in use", &agent, &|| journal(&creel, "reserve_in_use") == true);
    // What is harmless goes on, and the state says why the rest does not.
    assert_eq!(verdict(&agent.call("PreToolUse", "", call("ls")).finish(60).unwrap()), "allow");
    assert_eq!(verdict(&agent.call("PreToolUse", "", call(ASKS)).finish(120).unwrap()), "deny");
    // Denied in the same record in which it would have been asked: nothing was held.
    let newest = creel.latest(6).unwrap();
    let asked = newest.iter().find(|record| record["envelope"]["code"] == "approval.asked").unwrap();
    assert_eq!(asked["envelope"]["verdict"], "deny");
    assert_eq!(journal(&creel, "lost"), 0);
    let problems = creel.status().unwrap()["problems"].to_string();
    assert!(problems.contains("the disk is full"), "{problems}");
    creel.verified().unwrap();
}

#[test]
fn without_room_for_a_record_nothing_is_allowed_and_the_gap_is_recorded() {
    let Some(stage) = Stage::open() else { return };
    // Room for one segment, and none for the reserve: that alone is said, and nobody is asked.
    let (creel, agent) = on_a_small_disk(&stage, "5m");
    assert_eq!(journal(&creel, "reserve_in_use"), true);
    assert_eq!(verdict(&agent.call("PreToolUse", "", call("ls")).finish(60).unwrap()), "allow");
    assert_eq!(verdict(&agent.call("PreToolUse", "", call(ASKS)).finish(120).unwrap()), "deny");
    assert!(creel.coded("approval.hold-ended").unwrap().is_empty());

    fill_until("records are lost", &agent, &|| journal(&creel, "lost").as_u64() > Some(0));
    let answers = stage.read("/home/dana/answers").unwrap();
    assert!(answers.contains("the record cannot be written"), "{answers}");
    assert!(creel.status().unwrap()["problems"].to_string().contains("records were lost"));

    // With room again: first the gap, then what happens.
    shell(&stage, Account::ROOT, "mount -o remount,size=64m /home/dana/.local/state/creel").well().unwrap();
    until("a yes", Deadline::seconds(60), || {
        let again = agent.call("PreToolUse", "", call("echo again")).finish(60).ok()?;
        (verdict(&again) == "allow").then_some(())
    })
    .unwrap();
    let newest = creel.latest(8).unwrap();
    let gap = newest.iter().position(|record| record["envelope"]["kind"] == "gap").unwrap();
    assert_eq!(newest[gap]["envelope"]["code"], "journal.gap");
    assert!(newest[gap + 1..].iter().any(|record| record["envelope"]["verdict"] == "allow"), "{newest:?}");
    let verified = creel.command(&["log", "verify", "--format", "json"]).unwrap().well().unwrap();
    assert!(verified.json().unwrap()["lost"].as_u64() > Some(0), "{verified}");
}
