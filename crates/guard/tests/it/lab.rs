//! A small bundle, an agent and a clock that the tests turn by hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use creel_guard::{
    Answer, Approver, Caller, FileDigest, Guard, Input, Limits, Looked, Output, Prepared, Resolution, Response, RunKey,
    Settings, Submission, Trust, Unlimited,
};
use creel_inspect::Place;
use creel_model::record::Record;
use creel_model::{Account, Action, ApprovalMode, Decision, Digest, Mode, Moment, ProcessKey, Verdict};
use creel_policy::Bundle;
use serde_json::{Value, json};

pub(crate) const SECOND: u64 = 1_000_000_000;
/// A made-up key in the form of a real one.
pub(crate) const KEY: &str = "AKIAQ3EGRT5YVN2WLKXB";

const BUNDLE: &str = r#"
id = "lab"
version = "1.0.0"
creel = "1"
description = "for tests"

[default]
read = "allow"
write = "allow"
delete = "allow"
rename = "allow"
execute = "allow"
connect = "allow"
send = "allow"
receive = "allow"
call = "allow"
configure = "allow"
spend = "allow"
prompt = "allow"
reply = "allow"
"#;

const ZONES: &str = r#"
[[zone]]
name = "secrets"
about = "keys"
paths = ["~/.ssh/**"]

[[zone]]
name = "exec-bearing"
about = "hooks"
paths = ["**/.git/hooks/**"]

[[zone]]
name = "system"
about = "the system"
paths = ["/etc/**", "/usr/**"]

[[zone]]
name = "workspace"
about = "the project"
open = true
paths = ["@workspace/**"]

[[zone]]
name = "home"
about = "the home folder"
open = true
unless = ["workspace"]
paths = ["~/**"]
"#;

const RULES: &str = r#"
@id("read-key") @effect("deny") @severity("critical") @reason("private keys are nobody's business")
forbid (principal, action == Action::"read", resource is Path)
when { resource.zones.contains("secrets") };

@id("delete-system") @effect("deny") @severity("critical") @reason("the system stays")
forbid (principal, action == Action::"delete", resource is Path)
when { resource.zones.contains("system") };

@id("write-hook") @effect("ask") @severity("high") @reason("git would run this later")
forbid (principal, action == Action::"write", resource is Path)
when { resource.zones.contains("exec-bearing") };

@id("delete-home") @effect("ask") @severity("medium") @reason("this is outside the project")
forbid (principal, action == Action::"delete", resource is Path)
when { resource.zones.contains("home") };

@id("result-secret") @effect("modify") @transform("redact") @severity("high") @reason("the result holds a key")
forbid (principal, action == Action::"receive", resource is Text)
when { context.content.classes.contains("secret") };

@id("prompt-secret") @effect("modify") @transform("redact") @severity("high") @reason("the prompt holds a key")
forbid (principal, action == Action::"prompt", resource is Text)
when { context.content.classes.contains("secret") };

@id("untrusted-new") @effect("ask") @severity("high") @reason("untrusted, and a new place")
forbid (principal, action == Action::"delete", resource is Path)
when { context.labels.untrusted && context.sink == "new" && resource.zones.contains("home") };
"#;

/// The bundle of the lab, with `extra` rules.
pub(crate) fn bundle_with(extra: &str) -> Arc<Bundle> {
    let mut files = BTreeMap::from([
        ("bundle.toml".to_owned(), BUNDLE.to_owned()),
        ("zones.toml".to_owned(), ZONES.to_owned()),
        ("rules/lab.cedar".to_owned(), RULES.to_owned()),
    ]);
    if !extra.is_empty() {
        files.insert("rules/more.cedar".to_owned(), extra.to_owned());
    }
    match Bundle::load(&files, 0) {
        Ok(bundle) => Arc::new(bundle),
        Err(faults) => panic!("{faults:#?}"),
    }
}

pub(crate) fn settings(limits: Limits) -> Settings {
    Settings { engine: "0.0.0-test".into(), boot_id: "boot-1".into(), seed: [7; 32], limits }
}

pub(crate) fn person() -> Approver {
    Approver { uid: 1000, name: "dev".into(), means: "terminal-and-code".into(), verified: true }
}

/// A guard with its surroundings.
pub(crate) struct Lab {
    pub(crate) guard: Guard,
    pub(crate) bundle: Arc<Bundle>,
    pub(crate) now: Moment,
    pub(crate) records: Vec<Record>,
    /// Content digests of files, as the machine has them now.
    pub(crate) files: BTreeMap<String, FileDigest>,
    /// Symbolic links.
    pub(crate) links: BTreeMap<String, String>,
    tickets: u64,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default(), bundle_with(""))
    }

    pub(crate) fn with(limits: Limits, bundle: Arc<Bundle>) -> Self {
        let mut lab = Self {
            guard: Guard::new(settings(limits)),
            bundle,
            now: Moment { unix_ns: 1_700_000_000 * 1_000_000_000, boot_ns: 1000 * SECOND },
            records: Vec::new(),
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            tickets: 0,
        };
        let bundle = Arc::clone(&lab.bundle);
        let out = lab.step(Input::Activate { bundle, trust: Trust::BuiltIn, confirmed_by: None });
        assert_eq!(out.refused, None);
        lab
    }

    pub(crate) fn step(&mut self, input: Input) -> Output {
        let out = self.guard.step(input, self.now);
        self.records.extend(out.records.iter().cloned());
        out
    }

    pub(crate) fn pass(&mut self, ns: u64) -> Output {
        self.now.boot_ns += ns;
        self.now.unix_ns += i64::try_from(ns).unwrap();
        self.step(Input::Tick)
    }

    pub(crate) fn prepare(&self, caller: &Caller, action: &Action) -> Prepared {
        let variables = BTreeMap::new();
        let place = Place {
            cwd: action.cwd.as_deref().unwrap_or_default(),
            home: &caller.account.home,
            user: &caller.account.name,
            variables: &variables,
        };
        let parts = creel_guard::understand(action, &place, &Unlimited);
        let wanted = creel_guard::wanted(&parts);
        let resolved = |path: &String| self.links.get(path).unwrap_or(path).clone();
        let looked = Looked {
            paths: wanted.paths.iter().map(|path| (path.clone(), Resolution::Resolved(resolved(path)))).collect(),
            digests: wanted
                .digests
                .iter()
                .map(|path| (path.clone(), self.files.get(path).cloned().unwrap_or(FileDigest::Absent)))
                .collect(),
        };
        creel_guard::prepare(action.clone(), caller.clone(), parts, &looked, &self.bundle, 100, &Unlimited)
    }

    /// Submits an action whose hook can wait for `wait_s` seconds; its ticket and what came out.
    pub(crate) fn submit(&mut self, caller: &Caller, action: &Action, wait_s: u64) -> (u64, Output) {
        self.tickets += 1;
        let ticket = self.tickets;
        let prepared = self.prepare(caller, action);
        let received = self.now;
        self.now.boot_ns += 1000;
        let submission = Submission { ticket, prepared, received, wait_ns_max: wait_s * SECOND };
        (ticket, self.step(Input::Action(Box::new(submission))))
    }

    /// Submits an action that must be decided at once.
    pub(crate) fn decide(&mut self, caller: &Caller, action: &Action) -> Decision {
        match self.submit(caller, action, 0).1.answer {
            Some(Answer::Final(decision)) => decision,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn verdict(&mut self, caller: &Caller, action: &Action) -> Verdict {
        self.decide(caller, action).verdict
    }

    /// Submits an action that a human is asked about; ticket and approval.
    pub(crate) fn ask(&mut self, caller: &Caller, action: &Action) -> (u64, String) {
        let (ticket, out) = self.submit(caller, action, 600);
        match out.answer {
            Some(Answer::Pending { approval, .. }) => (ticket, approval),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn answer(&mut self, approval: &str, response: Response) -> Output {
        self.step(Input::Answer { approval: approval.to_owned(), response, approver: person() })
    }

    pub(crate) fn codes(&self) -> Vec<&str> {
        self.records.iter().filter_map(|record| record.envelope.code.as_deref()).collect()
    }

    pub(crate) fn last_decision(&self) -> &Record {
        self.records.iter().rev().find(|record| record.envelope.verdict.is_some()).unwrap()
    }
}

pub(crate) fn caller(pid: u32) -> Caller {
    Caller {
        run: RunKey {
            boot_id: "boot-1".into(),
            process: ProcessKey { pid, start_ticks: u64::from(pid) * 10 },
            cage: None,
        },
        kind: "claude-code".into(),
        account: Account { uid: 1000, name: "dev".into(), home: "/home/dev".into() },
        workspace: Some("/home/dev/work".into()),
        temporary: vec!["/tmp".into()],
        approval_mode: ApprovalMode::Ask,
        managed: true,
        mode: Mode::User,
        interactive: false,
        caged: false,
        tier: String::new(),
        parent: None,
    }
}

/// An event of Claude Code in a session.
pub(crate) fn event(session: &str, name: &str, more: Value) -> Action {
    let mut payload = json!({
        "session_id": session, "cwd": "/home/dev/work", "hook_event_name": name,
        "transcript_path": "/home/dev/.claude/t.jsonl", "permission_mode": "default",
    });
    for (key, value) in more.as_object().unwrap() {
        payload[key] = value.clone();
    }
    creel_dialect::parse("claude-code", name, payload.to_string().as_bytes()).unwrap()
}

pub(crate) fn start(session: &str, source: &str) -> Action {
    event(session, "SessionStart", json!({"source": source}))
}

pub(crate) fn prompt(session: &str, text: &str) -> Action {
    event(session, "UserPromptSubmit", json!({"prompt": text}))
}

pub(crate) fn call(session: &str, id: &str, tool: &str, input: Value) -> Action {
    event(session, "PreToolUse", json!({"tool_name": tool, "tool_input": input, "tool_use_id": id}))
}

pub(crate) fn bash(session: &str, id: &str, command: &str) -> Action {
    call(session, id, "Bash", json!({"command": command}))
}

pub(crate) fn result(session: &str, id: &str, tool: &str, input: Value, response: Value) -> Action {
    let more = json!({"tool_name": tool, "tool_input": input, "tool_use_id": id, "tool_response": response});
    event(session, "PostToolUse", more)
}

pub(crate) fn hook_write(session: &str, id: &str, content: &str) -> Action {
    call(session, id, "Write", json!({"file_path": "/home/dev/work/.git/hooks/pre-commit", "content": content}))
}

pub(crate) fn digest(letter: char) -> FileDigest {
    FileDigest::Content(Digest(letter.to_string().repeat(64)))
}
