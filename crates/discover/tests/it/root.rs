//! The root role: in process and over a socket, on a machine in a temporary folder.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;

use creel_catalog::{Catalog, Content};
use creel_discover::look::digest_bytes;
use creel_discover::root::{Answer, Managed, Policy, Refusal, Request, Root, Target, serve};
use creel_model::Account;

use crate::put;

fn policy(root: &Path) -> Policy {
    let uid = rustix::process::geteuid().as_raw();
    std::fs::create_dir_all(root.join("home/ada")).unwrap();
    std::fs::create_dir_all(root.join("etc")).unwrap();
    Policy {
        catalog: Catalog::built_in(),
        peer: uid,
        root: root.to_owned(),
        undo: root.join("state/undo"),
        accounts: vec![Account { uid, name: "ada".into(), home: "/home/ada".into() }],
    }
}

fn managed() -> Target {
    Target { kind: "claude-code".into(), place: "managed".into(), file: None, account: None }
}

fn write(target: &Target, text: &str, expected: Option<&str>) -> Request {
    let expected = expected.map(|text| digest_bytes(text.as_bytes()));
    Request::WriteManaged { target: target.clone(), text: text.into(), expected, before: None, forget: false }
}

fn refused(answer: Answer) -> Refusal {
    match answer {
        Answer::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

const FILE: &str = "etc/claude-code/managed-settings.json";

#[test]
fn writes_and_undoes_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let policy = policy(folder.path());
    let file = folder.path().join(FILE);
    let remove = Request::RemoveManaged { target: managed() };
    // Where nothing was, nothing is left: not even the folder.
    assert_eq!(policy.answer(&write(&managed(), "{}", None)), Answer::Done(Some(digest_bytes(b"{}"))));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o644);
    assert_eq!(
        policy.answer(&write(&managed(), "{\"a\":1}", Some("{}"))),
        Answer::Done(Some(digest_bytes(b"{\"a\":1}")))
    );
    assert_eq!(policy.answer(&remove), Answer::Done(None));
    assert!(!folder.path().join("etc/claude-code").exists() && folder.path().join("etc").exists());
    assert_eq!(policy.answer(&remove), Answer::Refused(Refusal::NotOurs));
    // Where something was, it comes back with its rights.
    put(folder.path(), FILE, "{\"mine\":1}\n");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
    assert_eq!(
        refused(policy.answer(&write(&managed(), "{}", None))),
        Refusal::Changed(Some(digest_bytes(b"{\"mine\":1}\n")))
    );
    assert!(matches!(policy.answer(&write(&managed(), "{}", Some("{\"mine\":1}\n"))), Answer::Done(Some(_))));
    assert!(matches!(policy.answer(&remove), Answer::Done(Some(_))));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{\"mine\":1}\n");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640);
    let names: Vec<_> =
        std::fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["managed-settings.json"]);
}

#[test]
fn changes_of_others_are_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let policy = policy(folder.path());
    assert!(matches!(policy.answer(&write(&managed(), "{}", None)), Answer::Done(_)));
    put(folder.path(), FILE, "{\"theirs\":1}");
    let changed = Refusal::Changed(Some(digest_bytes(b"{\"theirs\":1}")));
    assert_eq!(refused(policy.answer(&Request::RemoveManaged { target: managed() })), changed);
    let Answer::Managed(Managed { text, undo, .. }) = policy.answer(&Request::ReadManaged { target: managed() }) else {
        panic!()
    };
    assert_eq!(text.as_deref(), Some("{\"theirs\":1}"));
    assert_eq!(undo.unwrap().written, digest_bytes(b"{}"));
    // creel's last word: its part taken out, theirs kept, no undo any more.
    let last = Request::WriteManaged {
        target: managed(),
        text: "{\"theirs\":2}".into(),
        expected: Some(digest_bytes(b"{\"theirs\":1}")),
        before: None,
        forget: true,
    };
    assert!(matches!(policy.answer(&last), Answer::Done(_)));
    assert_eq!(refused(policy.answer(&Request::RemoveManaged { target: managed() })), Refusal::NotOurs);
    assert_eq!(std::fs::read_to_string(folder.path().join(FILE)).unwrap(), "{\"theirs\":2}");
}

#[test]
fn only_what_the_catalog_declares() {
    let folder = tempfile::tempdir().unwrap();
    let policy = policy(folder.path());
    let target = |kind: &str, place: &str, file: Option<&str>, account| Target {
        kind: kind.into(),
        place: place.into(),
        file: file.map(str::to_owned),
        account,
    };
    for target in [
        target("claude-code", "none", None, None),
        target("none", "managed", None, None),
        target("claude-code", "state", None, Some(policy.peer)),
        target("claude-code", "managed", Some("x.json"), None),
        target("claude-code", "managed", None, Some(policy.peer)),
        target("claude-code", "user", None, None),
        target("claude-code", "user", None, Some(4_000_000_000)),
        target("copilot-cli", "managed-hooks", None, None),
        target("copilot-cli", "managed-hooks", Some("../../passwd.json"), None),
        target("copilot-cli", "managed-hooks", Some(".x.json"), None),
        target("copilot-cli", "managed-hooks", Some("x.sh"), None),
    ] {
        assert!(matches!(refused(policy.answer(&write(&target, "{}", None))), Refusal::NotCatalogued(_)), "{target:?}");
    }
    let hook = target("copilot-cli", "managed-hooks", Some("creel.json"), None);
    assert!(matches!(policy.answer(&write(&hook, "{}", None)), Answer::Done(_)));
    assert!(folder.path().join("etc/github-copilot/policy.d/creel.json").exists());
    let large = "x".repeat(2 * 1024 * 1024);
    assert!(matches!(refused(policy.answer(&write(&hook, &large, None))), Refusal::TooMuch(_)));
}

#[test]
fn links_are_not_written_through() {
    let folder = tempfile::tempdir().unwrap();
    let policy = policy(folder.path());
    put(folder.path(), "precious", "p");
    std::fs::create_dir_all(folder.path().join("etc/claude-code")).unwrap();
    symlink(folder.path().join("precious"), folder.path().join(FILE)).unwrap();
    let named = Refusal::NotAFile("symlink `etc/claude-code/managed-settings.json`".into());
    assert_eq!(refused(policy.answer(&write(&managed(), "{}", None))), named);
    std::fs::remove_file(folder.path().join(FILE)).unwrap();
    // The name that a new file is written under first.
    symlink(folder.path().join("precious"), folder.path().join("etc/claude-code/.managed-settings.json.creel-new"))
        .unwrap();
    assert!(matches!(policy.answer(&write(&managed(), "{}", None)), Answer::Done(_)));
    assert_eq!(std::fs::read_to_string(folder.path().join("precious")).unwrap(), "p");
    // A link on the way.
    std::fs::create_dir_all(folder.path().join("elsewhere")).unwrap();
    symlink(folder.path().join("elsewhere"), folder.path().join("home/ada/.claude")).unwrap();
    let user = Target { kind: "claude-code".into(), place: "user".into(), file: None, account: Some(policy.peer) };
    assert!(matches!(refused(policy.answer(&write(&user, "{}", None))), Refusal::NotAFile(_)));
    assert_eq!(std::fs::read_dir(folder.path().join("elsewhere")).unwrap().count(), 0);
}

#[test]
fn a_private_file_stays_private() {
    let folder = tempfile::tempdir().unwrap();
    let policy = policy(folder.path());
    let user = Target { kind: "claude-code".into(), place: "user".into(), file: None, account: Some(policy.peer) };
    put(folder.path(), "home/ada/.claude/settings.json", "{}");
    let file = folder.path().join("home/ada/.claude/settings.json");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    assert!(matches!(policy.answer(&write(&user, "{\"a\":1}", Some("{}"))), Answer::Done(_)));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn the_same_answers_over_a_socket() {
    let folder = tempfile::tempdir().unwrap();
    let here = policy(folder.path());
    let there = policy(folder.path());
    put(folder.path(), "home/ada/.claude/settings.json", r#"{"permissions":{"defaultMode":"plan"}}"#);
    put(folder.path(), "home/ada/src/p/.mcp.json", "{}");
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = std::thread::spawn(move || serve(theirs, &there));
    let uid = here.peer;
    let me = std::process::id();
    let mut local = Root::local(here);
    let mut remote = Root::Remote(ours);
    let missing = folder.path().join("new/file").to_str().unwrap().to_owned();
    for request in [
        Request::Collect { account: uid },
        Request::OpenCatalogued { account: uid, kind: "claude-code".into(), place: "user".into(), file: None },
        Request::OpenInProject {
            account: uid,
            project: "/home/ada/src/p".into(),
            kind: "claude-code".into(),
            place: "project-mcp".into(),
            file: None,
        },
        Request::OpenInProject {
            account: uid,
            project: "/home/ada/../x".into(),
            kind: "claude-code".into(),
            place: "project-mcp".into(),
            file: None,
        },
        Request::ResolvePaths {
            account: uid,
            paths: vec!["/".into(), missing],
            scripts: ["/bin/sh".to_owned()].into(),
        },
        Request::DigestFile { account: uid, path: "/bin/sh".into() },
        Request::ProcessFacts { pid: 0 },
        Request::ReadManaged { target: managed() },
        Request::RemoveManaged { target: managed() },
    ] {
        assert_eq!(local.ask(&request).unwrap(), remote.ask(&request).unwrap(), "{request:?}");
    }
    let Answer::Process(Some(facts)) = remote.ask(&Request::ProcessFacts { pid: me }).unwrap() else { panic!() };
    assert_eq!(facts.key.pid, me);
    let request =
        Request::OpenCatalogued { account: uid, kind: "claude-code".into(), place: "user".into(), file: None };
    let Answer::File(Some(file)) = remote.ask(&request).unwrap() else { panic!() };
    assert!(matches!(file.content, Content::Text(text) if text.contains("plan")));
    drop(remote);
    assert!(server.join().unwrap().is_ok());
}

#[test]
fn strangers_and_garbage_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let uid = rustix::process::geteuid().as_raw();
    if uid != 0 {
        // Root may always ask, so this can be shown as another account only.
        let stranger = Policy { peer: uid + 1, ..policy(folder.path()) };
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || serve(theirs, &stranger));
        // The refusal, or no connection any more: which of them depends on who is faster. Never an answer.
        let answer = Root::Remote(ours).ask(&Request::Accounts);
        assert!(matches!(answer, Err(_) | Ok(Answer::Refused(Refusal::NotAllowed(_)))), "{answer:?}");
        assert!(server.join().unwrap().is_err());
    }
    use std::io::Write as _;
    for garbage in [&b"\xff\xff\xff\xff"[..], b"\x02\0\0\0{}", b"\x05\0\0\0{\"a\""] {
        let policy = policy(folder.path());
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(garbage).unwrap();
        drop(ours);
        assert!(serve(theirs, &policy).is_err());
    }
}

#[test]
fn rights_of_another_account() {
    // As root: a file of root's is nobody else's to resolve or digest, whoever asks for it.
    if !rustix::process::geteuid().is_root() {
        println!("skipped: shows only as root that the root role does not lend its rights");
        return;
    }
    let text = std::fs::read_to_string("/etc/passwd").unwrap();
    let Some(other) = text.lines().filter_map(|line| line.split(':').nth(2)?.parse::<u32>().ok()).find(|uid| *uid != 0)
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let policy_for = policy;
    let policy = policy(folder.path());
    put(folder.path(), "secret", "s");
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(folder.path().join("secret"), PermissionsExt::from_mode(0o600)).unwrap();
    put(folder.path(), "open", "o");
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let digest = |account, name: &str| policy.answer(&Request::DigestFile { account, path: path(name) });
    assert_eq!(digest(other, "secret"), Answer::Digest(None));
    assert_eq!(digest(other, "open"), Answer::Digest(Some(digest_bytes(b"o"))));
    assert_eq!(digest(0, "secret"), Answer::Digest(Some(digest_bytes(b"s"))));
    // What lies around for that account: read with its rights, so a file closed to it stays closed.
    let account = Account { uid: other, name: "ada".into(), home: "/home/ada".into() };
    let theirs = Policy { accounts: vec![account], ..policy_for(folder.path()) };
    put(folder.path(), "home/ada/.claude/settings.json", "{}");
    put(folder.path(), "home/ada/.claude/settings.local.json", "{}");
    std::fs::set_permissions(
        folder.path().join("home/ada/.claude/settings.local.json"),
        PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let Answer::Collected(collected) = theirs.answer(&Request::Collect { account: other }) else { panic!() };
    let contents: Vec<_> = collected.kinds["claude-code"].files.iter().map(|file| file.content.clone()).collect();
    assert_eq!(contents, [Content::Text("{}".into()), Content::Unreadable("no permission".into())]);
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let request = Request::ResolvePaths { account: other, paths: vec![path("open")], scripts: [].into() };
    let Answer::Paths(looked) = policy.answer(&request) else { panic!() };
    assert_eq!(looked[&path("open")].resolved, None);
}

/// A home folder is its owner's: what stands where the undo is kept must neither hold root nor fill its memory.
#[test]
fn what_stands_in_place_of_the_undo_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let policy = policy(folder.path());
    let read = Request::ReadManaged { target: managed() };
    let kept = folder.path().join("state/undo/claude-code.managed.file.json");
    std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &kept, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    assert_eq!(refused(policy.answer(&read)), Refusal::NotAFile("fifo".into()));
    std::fs::remove_file(&kept).unwrap();
    symlink("/dev/zero", &kept).unwrap();
    assert_eq!(refused(policy.answer(&read)), Refusal::NotAFile("symlink".into()));
    std::fs::remove_file(&kept).unwrap();
    std::fs::File::create(&kept).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(refused(policy.answer(&read)), Refusal::TooMuch(_)));
}
