//! What ordinary git work writes passes; what executes does not.

use std::path::{Path, PathBuf};

use super::*;

const BASE: &str =
    "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n";

fn verdict(old: &str, new: &str) -> Result<(), Refused> {
    let roots = [PathBuf::from("/w")];
    let place = Place { folder: Path::new("/w/.git/modules/sub"), roots: &roots };
    let new = GitConfig::parse(new.as_bytes()).map_err(Refused::NotUnderstood)?;
    gate(&GitConfig::parse(old.as_bytes()).unwrap(), &new, place)
}

#[test]
fn ordinary_changes_pass() {
    for added in [
        "[remote \"origin\"]\n\turl = https://example.org/a.git\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n",
        "[remote \"origin\"]\n\turl = git@example.org:a/b.git\n",
        "[remote \"origin\"]\n\turl = ../other\n",
        "[branch \"main\"]\n\tremote = origin\n\tmerge = refs/heads/main\n\trebase = true\n",
        "[user]\n\tname = A \"B\" C\n\temail = a@b\n",
        "[submodule \"x\"]\n\tactive = true\n\turl = /w/other\n\tupdate = rebase\n",
        "[core]\n\tworktree = ../../../sub\n",
        "[extensions]\n\tworktreeConfig = true\n",
        "[color]\n\tui = auto\n[color \"diff\"]\n\tmeta = yellow bold\n",
        "[gc]\n\tauto\n",
        "; a comment\n# another\n[pull] rebase = false ; why\n",
    ] {
        assert_eq!(verdict(BASE, &format!("{BASE}{added}")), Ok(()), "{added}");
        assert_eq!(verdict(&format!("{BASE}{added}"), BASE), Ok(()), "removing {added}");
    }
}

#[test]
fn what_executes_does_not_pass() {
    for added in [
        "[core]\n\tfsmonitor = ./evil\n",
        // git reads the name up to the zero byte, and that is a command.
        "[submodule \"x.update\\\0\"]\n\turl = !evil\n",
        "[core]\n\tsshCommand = evil\n",
        "[core]\n\thooksPath = .evil\n",
        "[CORE]\n\tHooksPath = .evil\n",
        "[core]\n\tpager = evil\n",
        "[core]\n\teditor = evil\n",
        "[core]\n\tattributesFile = evil\n",
        "[core]\n\tworktree = /elsewhere\n",
        "[core]\n\tworktree = ../../../../elsewhere\n",
        "[alias]\n\tst = !evil\n",
        "[include]\n\tpath = evil\n",
        "[includeIf \"gitdir:/\"]\n\tpath = evil\n",
        "[filter \"x\"]\n\tclean = evil\n",
        "[diff \"x\"]\n\ttextconv = evil\n",
        "[diff \"x\"]\n\tcommand = evil\n",
        "[diff]\n\texternal = evil\n",
        "[merge \"x\"]\n\tdriver = evil\n",
        "[credential]\n\thelper = !evil\n",
        "[gpg]\n\tprogram = evil\n",
        "[gpg \"ssh\"]\n\tprogram = evil\n",
        "[gc]\n\trecentObjectsHook = evil\n",
        "[remote \"origin\"]\n\tuploadpack = evil\n",
        "[remote \"origin\"]\n\turl = ext::sh -c evil\n",
        "[remote \"origin\"]\n\turl = -evil\n",
        "[remote \"origin\"]\n\turl = ssh://-oProxyCommand=evil/x\n",
        "[remote \"origin\"]\n\tproxy = evil\n",
        "[remote \"origin\"]\n\tvcs = evil\n",
        "[submodule \"x\"]\n\tupdate = !evil\n",
        "[url \"ext::sh -c evil\"]\n\tinsteadOf = https://\n",
        "[sequence]\n\teditor = evil\n",
        "[protocol \"ext\"]\n\tallow = always\n",
        "[uploadpack]\n\tpackObjectsHook = evil\n",
        "[pager]\n\tlog = evil\n",
        "[difftool \"x\"]\n\tcmd = evil\n",
        "[trailer \"x\"]\n\tcommand = evil\n",
        "[safe]\n\tdirectory = *\n",
        "[core.x]\n\thooksPath = y\n[core \"\"]\n\thooksPath = y\n",
        "[core] hooksPath = .evil\n",
        "[core]\n\thooks\\\nPath = .evil\n",
        "[core]\n\t\"hooksPath\" = .evil\n",
        "[user]\n\tname = \"x\n[core]\n\thooksPath = .evil\n\"\n",
        "stray = 1\n[",
    ] {
        assert!(verdict(BASE, &format!("{BASE}{added}")).is_err(), "{added}");
    }
}

#[test]
fn what_a_person_set_stays_as_it_is() {
    let old = format!("{BASE}[core]\n\thooksPath = .husky\n[alias]\n\tst = status\n");
    assert_eq!(verdict(&old, &format!("{old}[user]\n\tname = x\n")), Ok(()));
    assert_eq!(verdict(&old, BASE), Err(Refused::Key("core.hookspath".into())));
    let swapped = format!("[alias]\n\tst = status\n[core]\n\thooksPath = .husky\n{BASE}");
    assert_eq!(verdict(&old, &swapped), Err(Refused::Order));
    let twice = format!("{old}[core]\n\thooksPath = .husky\n");
    assert!(verdict(&old, &twice).is_err());
}

#[test]
fn texts_are_read_as_git_reads_them() {
    let read = |text: &str| GitConfig::parse(text.as_bytes()).unwrap();
    let one = read("[a \"x\\\"y\"]\r\n\tKey = one \"two # three\"   four ; rest\r\n");
    assert_eq!(one.entries[0].name(), "a.x\"y.key");
    assert_eq!(one.entries[0].value.as_deref(), Some("one two # three   four"));
    let joined = read("[a]\nb = one \\\n  two\n");
    assert_eq!(joined.entries[0].value.as_deref(), Some("one   two"));
    assert_eq!(read("[core]\n\thooksPath = x\n").values("core.hookspath").collect::<Vec<_>>(), ["x"]);
    assert!(GitConfig::parse(b"[a]\nb = \xff\n").is_err());
    assert!(GitConfig::parse(b"[a]\nb = \"x\n").is_err());
    assert!(GitConfig::parse(b"b = x\n").is_err());
}
