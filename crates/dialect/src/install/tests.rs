//! Settings in, settings out, and back again.

use serde_json::{Value, json};

use super::*;
use crate::kinds::{CLAUDE_CODE, CODEX};

fn hook(mode: Mode) -> HookCommand {
    HookCommand { path: "/usr/lib/creel/creel-hook".into(), socket: None, mode, environment: BTreeMap::new() }
}

const NOW: Option<Version> = Some(claude_code::TESTED);
const CODEX_NOW: Option<Version> = Some(codex::TESTED);

#[test]
fn versions_are_read_from_what_agents_print() {
    assert_eq!(Version::parse("2.1.329 (Claude Code)"), Some(Version(2, 1, 329)));
    assert_eq!(Version::parse("codex-cli 0.169.0"), Some(Version(0, 169, 0)));
    assert_eq!(Version::parse("no version"), None);
}

#[test]
fn the_claude_drop_in_pins_what_must_hold() {
    let plan = claude_code::system(&hook(Mode::System), NOW, None, &[]).unwrap();
    assert_eq!((plan.path.as_str(), plan.permissions), ("/etc/claude-code/managed-settings.d/50-creel.json", 0o644));
    let settings: Value = serde_json::from_str(&plan.after).unwrap();
    assert_eq!(settings["allowManagedHooksOnly"], true);
    assert_eq!(settings["disableSideloadFlags"], true);
    assert_eq!(settings["requiredMinimumVersion"], "2.1.295");
    assert_eq!(settings["env"], json!({"CLAUDE_CODE_SHELL_PREFIX": ""}));
    assert_eq!(
        settings["pluginConfigs"]["cc-plugin-sec-default@builtin"]["options"],
        json!({"allowManagedModsOnly": true})
    );
    assert_eq!(
        settings["hooks"]["PreToolUse"],
        json!([{"matcher": "*", "hooks": [{
            "type": "command", "command": "/usr/lib/creel/creel-hook",
            "args": ["claude-code", "PreToolUse", "--system", "--deadline-ms", "55000"],
            "timeout": 60, "onFailure": "block",
        }]}])
    );
    assert_eq!(
        settings["hooks"]["Stop"],
        json!([{"hooks": [{
            "type": "command", "command": "/usr/lib/creel/creel-hook",
            "args": ["claude-code", "Stop", "--system", "--deadline-ms", "55000"], "timeout": 60,
        }]}])
    );
    assert_eq!(settings["hooks"].as_object().unwrap().len(), 30);
    assert!(settings["hooks"].get("WorktreeCreate").is_none());

    let again = claude_code::system(&hook(Mode::System), NOW, Some(&plan.after), &[]).unwrap();
    assert_eq!((again.difference.as_str(), &again.after), ("", &plan.after));
}

#[test]
fn an_old_claude_gets_no_key_that_it_would_refuse() {
    for version in [None, Some(Version(2, 1, 200))] {
        let plan = claude_code::system(&hook(Mode::System), version, None, &[]).unwrap();
        assert!(!plan.after.contains("onFailure") && !plan.after.contains("requiredMinimumVersion"));
        assert!(plan.limits.iter().any(|limit| limit.contains("onFailure")));
    }
}

#[test]
fn what_would_be_silenced_is_listed_first() {
    let user = r#"{"hooks":{"Stop":[{"hooks":[{"type":"command","command":"notify-send done"}]}]}}"#;
    let files = [
        OtherFile { path: "/home/u/.claude/settings.json", text: user, managed: false },
        OtherFile { path: "/etc/claude-code/managed-settings.json", text: user, managed: true },
        OtherFile { path: "/home/u/p/.claude/settings.json", text: "{ // x\n}", managed: false },
    ];
    let plan = claude_code::system(&hook(Mode::System), NOW, None, &files).unwrap();
    assert_eq!(
        plan.silenced,
        [OtherHook {
            file: "/home/u/.claude/settings.json".into(),
            event: "Stop".into(),
            command: "notify-send done".into()
        }]
    );
    assert!(plan.limits.iter().any(|limit| limit.contains("/home/u/p/.claude/settings.json")));

    let off = [OtherFile {
        path: "/etc/claude-code/managed-settings.json",
        text: r#"{"disableAllHooks":true}"#,
        managed: true,
    }];
    assert!(matches!(
        claude_code::system(&hook(Mode::System), NOW, None, &off),
        Err(InstallError::HooksOff { key: "disableAllHooks", .. })
    ));
}

const MINE: &str = r#"{
  "model": "opus",
  "hooks": {
    "PreToolUse": [
      {
        "matcher": "Bash",
        "hooks": [
          {
            "type": "command",
            "command": "lint"
          }
        ]
      }
    ]
  },
  "env": {
    "A": "1"
  }
}
"#;

#[test]
fn a_persons_settings_keep_their_order_and_their_hooks() {
    let plan = claude_code::user(&hook(Mode::User), NOW, Some(MINE)).unwrap();
    let settings: Value = serde_json::from_str(&plan.after).unwrap();
    let keys: Vec<_> = settings.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["model", "hooks", "env"]);
    assert_eq!(settings["hooks"]["PreToolUse"][0]["hooks"][0]["command"], "lint");
    assert_eq!(settings["hooks"]["PreToolUse"][1]["hooks"][0]["args"][2], "--user");
    assert!(plan.difference.starts_with("--- ~/.claude/settings.json\n") && !plan.difference.contains("\n-    "));

    // Installing twice changes nothing; taking out gives the original text.
    assert_eq!(claude_code::user(&hook(Mode::User), NOW, Some(&plan.after)).unwrap().difference, "");
    assert_eq!(claude_code::without(&plan.after).unwrap().as_deref(), Some(MINE));
    let fresh = claude_code::user(&hook(Mode::User), NOW, None).unwrap();
    assert_eq!(claude_code::without(&fresh.after).unwrap(), None);
}

#[test]
fn settings_that_cannot_be_read_are_left_alone() {
    let refused = |text: &str| claude_code::user(&hook(Mode::User), NOW, Some(text)).unwrap_err();
    assert!(refused("{\n  // mine\n}").to_string().contains("line 2, column 3; comments are not JSON"));
    assert!(refused(r#"{"hooks":{},"hooks":{}}"#).to_string().contains("`hooks` stands twice"));
    assert!(matches!(refused(r#"{"hooks":[]}"#), InstallError::Shape { .. }));
    assert!(matches!(refused(r#"{"hooks":{"Stop":{}}}"#), InstallError::Shape { .. }));
    assert!(matches!(refused("[]"), InstallError::Unreadable { .. }));
    assert!(matches!(refused(r#"{"disableAllHooks":true}"#), InstallError::HooksOff { .. }));
    let relative = HookCommand { path: "creel-hook".into(), ..hook(Mode::User) };
    assert!(matches!(claude_code::user(&relative, NOW, None), Err(InstallError::HookPath(_))));
}

#[test]
fn undo_is_byte_identical() {
    let odd = "{\"hooks\" : { },   \"x\":1}\r\n";
    let plan = claude_code::user(&hook(Mode::User), NOW, Some(odd)).unwrap();
    let after = plan.after.as_bytes();
    let undone =
        |found: Option<&[u8]>, backup: Option<&[u8]>| undo(found, after, backup, claude_code::without).unwrap();
    assert_eq!(undone(Some(after), Some(odd.as_bytes())), Undo::Write(odd.as_bytes().to_vec()));
    assert_eq!(undone(Some(after), None), Undo::Remove);
    assert_eq!(undone(None, Some(odd.as_bytes())), Undo::Nothing);
    let edited = plan.after.replace("\"x\": 1", "\"x\": 2");
    assert_eq!(undone(Some(edited.as_bytes()), Some(odd.as_bytes())), Undo::Write(b"{\n  \"x\": 2\n}\n".to_vec()));
    assert!(undo(Some(b"{"), after, None, claude_code::without).is_err());
}

#[test]
fn codex_requirements_are_merged_and_pinned() {
    let mine = "# ours\nallowed_sandbox_modes = [\"workspace-write\"]\n\n[features]\nhooks = false # why\n\n[[hooks.Stop]]\n[[hooks.Stop.hooks]]\ntype = \"command\"\ncommand = \"notify\"\n";
    let plan = codex::system(&hook(Mode::System), CODEX_NOW, Some(mine), &[]).unwrap();
    let settings = codex::as_json(&plan.after).unwrap();
    assert_eq!(settings["allow_managed_hooks_only"], true);
    assert_eq!(settings["features"], json!({"hooks": true, "unified_exec": false}));
    assert_eq!(
        settings["hooks"]["PreToolUse"],
        json!([{"hooks": [{"type": "command",
            "command": "/usr/lib/creel/creel-hook codex PreToolUse --system --deadline-ms 55000", "timeout": 60}]}])
    );
    assert_eq!(settings["hooks"]["Stop"][0]["hooks"][0]["command"], "notify");
    assert_eq!(settings["hooks"]["Stop"].as_array().unwrap().len(), 2);
    assert!(plan.after.starts_with("# ours\n") && plan.after.contains("hooks = true # why"));

    let again = codex::system(&hook(Mode::System), CODEX_NOW, Some(&plan.after), &[]).unwrap();
    assert_eq!(again.difference, "");
    assert_eq!(codex::without_requirements(&plan.after, Some(mine)).unwrap().as_deref(), Some(mine));
    let fresh = codex::system(&hook(Mode::System), CODEX_NOW, None, &[]).unwrap();
    assert_eq!(codex::without_requirements(&fresh.after, None).unwrap(), None);
    assert!(matches!(
        codex::system(&hook(Mode::System), CODEX_NOW, Some("a = "), &[]),
        Err(InstallError::Unreadable { .. })
    ));
    assert!(matches!(
        codex::system(&hook(Mode::System), CODEX_NOW, Some("features = 1"), &[]),
        Err(InstallError::Shape { .. })
    ));
}

#[test]
fn codex_user_hooks_keep_the_two_keys_that_codex_reads() {
    let plan = codex::user(&hook(Mode::User), CODEX_NOW, Some(r#"{"description":"mine"}"#)).unwrap();
    let settings: Value = serde_json::from_str(&plan.after).unwrap();
    assert_eq!(settings.as_object().unwrap().keys().collect::<Vec<_>>(), ["description", "hooks"]);
    assert!(plan.limits.iter().any(|limit| limit.contains("/hooks")));
    assert_eq!(codex::user(&hook(Mode::User), CODEX_NOW, Some(&plan.after)).unwrap().difference, "");
    assert_eq!(codex::without(&plan.after).unwrap().unwrap(), "{\n  \"description\": \"mine\"\n}\n");
    assert!(matches!(
        codex::user(&hook(Mode::User), CODEX_NOW, Some(r#"{"version":1}"#)),
        Err(InstallError::Shape { .. })
    ));
    let files = [
        OtherFile {
            path: "/h/.codex/hooks.json",
            text: r#"{"hooks":{"Stop":[{"hooks":[{"command":"a"}]}]}}"#,
            managed: false,
        },
        OtherFile {
            path: "/h/.codex/config.toml",
            text: "[[hooks.Stop]]\n[[hooks.Stop.hooks]]\ncommand = \"b\"\n",
            managed: false,
        },
    ];
    let plan = codex::system(&hook(Mode::System), CODEX_NOW, None, &files).unwrap();
    assert_eq!(plan.silenced.iter().map(|hook| hook.command.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn drift_is_named() {
    let plan = claude_code::system(&hook(Mode::System), NOW, None, &[]).unwrap();
    assert!(managed_drift(&plan.after, Some(&plan.after)).is_empty());
    assert_eq!(managed_drift(&plan.after, None), ["the file is missing"]);
    assert_eq!(managed_drift(&plan.after, Some("{")), ["the file can no longer be read"]);
    let mut changed: Value = serde_json::from_str(&plan.after).unwrap();
    changed["allowManagedHooksOnly"] = json!(false);
    changed["disableAllHooks"] = json!(true);
    changed["hooks"].as_object_mut().unwrap().remove("PreToolUse");
    changed["hooks"]["Stop"] = json!([]);
    assert_eq!(
        managed_drift(&plan.after, Some(&changed.to_string())),
        [
            "`/allowManagedHooksOnly` is changed",
            "`/hooks/PreToolUse` is missing",
            "`/hooks/Stop/0` is missing or changed",
            "`/disableAllHooks` switches every hook off",
        ]
    );
    let plan = codex::system(&hook(Mode::System), CODEX_NOW, None, &[]).unwrap();
    let loosened = plan.after.replace("hooks = true", "hooks = false");
    assert_eq!(managed_drift(&plan.after, Some(&loosened)), ["`/features/hooks` is changed"]);
    assert!(managed_drift(&plan.after, Some(&format!("# a comment\n{}", plan.after))).is_empty());
}

#[test]
fn command_lines_are_quoted() {
    let spaced = HookCommand {
        path: "/opt/my creel/creel-hook".into(),
        socket: Some("/tmp/it's/hook.sock".into()),
        ..hook(Mode::User)
    };
    let event = crate::kinds::event(CODEX, "Stop").unwrap();
    assert_eq!(
        spaced.line(CODEX, event).unwrap(),
        r"'/opt/my creel/creel-hook' codex Stop --user --deadline-ms 55000 --socket '/tmp/it'\''s/hook.sock'"
    );
    assert!(is_ours(CODEX, &json!({"command": spaced.line(CODEX, event).unwrap()})));
    let ours = |handler: Value| is_ours(CLAUDE_CODE, &handler);
    assert!(ours(json!({"command": "/a/creel-hook", "args": ["claude-code", "Stop"]})));
    assert!(ours(json!({"command": "/a/creel-hook claude-code Stop"})));
    assert!(!ours(json!({"command": "/a/creel-hook", "args": ["codex", "Stop"]})));
    assert!(!ours(json!({"command": "/a/my-creel-hook.sh", "args": ["claude-code"]})));
}
