//! Long random sequences: what must hold whatever happens. A failure names its seed.

use std::collections::{BTreeMap, BTreeSet};

use creel_guard::{Answer, Guard, Input, Limits, Output, Response};
use creel_model::record::Record;
use creel_model::{Decision, Verdict};
use serde_json::json;

use crate::lab::*;

/// xorshift64*: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

fn limits() -> Limits {
    Limits {
        runs: 6,
        conversations: 8,
        calls: 4,
        calls_all: 10,
        approvals: 8,
        sinks: 16,
        workspaces: 2,
        ledger: 12,
        ..Limits::default()
    }
}

fn action(random: &mut Random) -> creel_model::Action {
    let session = format!("s{}", random.below(12));
    let id = format!("c{}", random.below(6));
    let path = ["/home/dev/work/a", "/home/dev/.ssh/id_rsa", "/home/dev/b", "/etc/hosts"][random.below(4) as usize];
    match random.below(9) {
        0 => start(&session, ["startup", "resume", "clear", "compact"][random.below(4) as usize]),
        1 => prompt(&session, ["look at b", "use ~/b and /etc/hosts", "hello"][random.below(3) as usize]),
        2 => call(&session, &id, "Read", json!({"file_path": path})),
        3 => bash(&session, &id, &format!("rm {path}")),
        4 | 5 => hook_write(&session, &id, ["echo 1", "echo 2"][random.below(2) as usize]),
        6 => bash(&session, &id, "ls"),
        7 => result(&session, &id, "Bash", json!({"command": "ls"}), json!({"stdout": format!("x {KEY}")})),
        _ => result(&session, &id, "Read", json!({"file_path": path}), json!("text")),
    }
}

/// Everything that must hold for one released or final decision.
fn check(decision: &Decision, used: &mut BTreeSet<String>, approved: &BTreeSet<String>, glass: bool) {
    let counts = |rule: &&creel_model::MatchedRule| rule.excepted_by.is_none() && rule.approved_by.is_none();
    if matches!(decision.verdict, Verdict::Allow | Verdict::Modify) && !glass {
        assert!(!decision.rules.iter().any(|r| r.effect == Verdict::Deny), "a deny was let go: {decision:?}");
        assert!(!decision.rules.iter().filter(counts).any(|r| r.effect == Verdict::Ask), "an ask was let go");
    }
    let by: BTreeSet<&String> = decision.rules.iter().filter_map(|rule| rule.approved_by.as_ref()).collect();
    if matches!(decision.verdict, Verdict::Allow | Verdict::Modify) {
        for id in by {
            assert!(approved.contains(id), "{id} was never approved");
            assert!(used.insert(id.clone()), "{id} was used twice");
        }
    }
}

fn run(seed: u64, steps: u64) -> (Vec<Record>, Vec<u8>) {
    let mut random = Random(seed);
    let mut lab = Lab::with(limits(), bundle_with(""));
    let mut waiting: BTreeMap<u64, (creel_guard::Caller, creel_model::Action)> = BTreeMap::new();
    let mut answered: BTreeSet<u64> = BTreeSet::new();
    let (mut used, mut approved) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..steps {
        let glass = lab.guard.break_glass().is_some();
        let out: Output = match random.below(20) {
            0..=11 => {
                let mut agent = caller(10 + u32::try_from(random.below(9)).unwrap());
                agent.interactive = random.below(3) == 0;
                let action = action(&mut random);
                let (ticket, out) = lab.submit(&agent, &action, [0, 5, 600][random.below(3) as usize]);
                match &out.answer {
                    Some(Answer::Pending { .. }) => {
                        waiting.insert(ticket, (agent, action));
                    }
                    Some(Answer::Final(decision)) => check(decision, &mut used, &approved, glass),
                    None => panic!("no answer"),
                }
                out
            }
            12..=14 => {
                let open: Vec<_> = lab.guard.approvals().into_iter().filter(|view| view.state == "open").collect();
                let Some(view) = open.get(random.below(open.len().max(1) as u64) as usize) else { continue };
                let yes = random.below(3) > 0;
                let out = lab.answer(&view.id, if yes { Response::Approve } else { Response::Refuse });
                if yes && out.refused.is_none() {
                    approved.insert(view.id.clone());
                }
                out
            }
            15 => {
                if random.below(2) == 0 {
                    lab.links.insert("/home/dev/work/.git/hooks/pre-commit".into(), format!("/x{}", random.below(3)));
                } else {
                    lab.links.clear();
                }
                continue;
            }
            16 => {
                let Some(ticket) = waiting.keys().next().copied() else { continue };
                waiting.remove(&ticket);
                lab.step(Input::Gone { ticket })
            }
            17 => lab.step(Input::RunEnded(caller(10 + u32::try_from(random.below(9)).unwrap()).run)),
            18 if random.below(4) == 0 => {
                lab.step(Input::OpenBreakGlass { seconds: 5, reason: "x".into(), uid: None, by: person() })
            }
            _ => {
                let ns = random.below(200) * SECOND;
                lab.pass(ns)
            }
        };
        let mut outs = vec![out];
        while let Some(out) = outs.pop() {
            for (ticket, decision) in &out.released {
                assert!(answered.insert(*ticket), "{ticket} was answered twice");
                assert!(waiting.remove(ticket).is_some(), "{ticket} did not wait");
                check(decision, &mut used, &approved, lab.guard.break_glass().is_some());
            }
            for ticket in &out.recheck {
                let (agent, action) = waiting[ticket].clone();
                let prepared = Box::new(lab.prepare(&agent, &action));
                outs.push(lab.step(Input::Recheck { ticket: *ticket, prepared }));
            }
        }
        assert!(lab.guard.runs().count() <= 6 && lab.guard.approvals().len() <= 8);
        assert!(lab.guard.runs().all(|run| run.open_calls <= 4));
        assert!(lab.guard.runs().map(|run| run.open_calls).sum::<usize>() <= 10);
        assert!(lab.guard.quietness().rows <= 12 + 2);
        let held = lab.guard.approvals().iter().filter(|view| view.waiting).count();
        assert_eq!(held, waiting.len(), "every held hook has its question");
    }
    (lab.records, lab.guard.snapshot())
}

#[test]
fn invariants_hold_and_the_same_inputs_give_the_same_outputs() {
    for seed in 1..=8 {
        let result = std::panic::catch_unwind(|| {
            let (records, snapshot) = run(seed, 200);
            let (again, same) = run(seed, 200);
            assert_eq!(records, again);
            assert_eq!(snapshot, same);
            let pairs = records.iter().map(|record| (&record.envelope, Some(&record.detail)));
            let restored = Guard::restore(settings(limits()), None, pairs).unwrap();
            assert_eq!(restored.snapshot(), snapshot, "recovery from records alone");
        });
        assert!(result.is_ok(), "seed {seed}");
    }
}
