//! Repositories in every form git knows, and hooks and settings in them that git outside would run (F5–F7, F11–F13).
//!
//! `armed` is the test of success: a folder that git takes for a repository with an executable hook of ours in it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use crate::attempt::{Ready, Stop, Tried, Tries, held};
use crate::facts::Facts;
use crate::files::{ordinary, ordinary_folder, plant, plant_deep, planted};
use crate::sys::{self, MARK};

/// git with arguments; its last line of words when it fails.
pub(crate) fn git(folder: &str, arguments: &[&str]) -> Tried {
    let output = Command::new("git")
        .args(["-c", "protocol.file.allow=always", "-c", "user.name=e", "-c", "user.email=e@example.com"])
        .arg("-C")
        .arg(folder)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .ready("git")?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        held(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("git failed").to_owned())
    }
}

/// Whether git would run our hook from this repository folder.
fn armed(repository: &str) -> Tried {
    let hook = format!("{repository}/hooks/pre-commit");
    let is_repository =
        ["HEAD", "objects", "refs"].iter().all(|part| fs::metadata(format!("{repository}/{part}")).is_ok());
    if !is_repository {
        return held(format!("{repository} is no repository"));
    }
    planted(&hook)?;
    let mode = fs::metadata(&hook)?.permissions().mode();
    if mode & 0o111 == 0 { held("the hook is not executable") } else { Ok(format!("{hook} would run")) }
}

/// Makes by hand what git takes for a repository, but for its hooks.
fn bones(repository: &str) -> Result<(), Stop> {
    for part in ["objects", "refs/heads"] {
        fs::create_dir_all(format!("{repository}/{part}"))?;
    }
    fs::write(format!("{repository}/HEAD"), "ref: refs/heads/main\n")?;
    Ok(())
}

/// A folder of hooks with ours, somewhere where it means nothing yet. Refused already here, it is held.
fn loose_hooks(folder: &str) -> Result<(), Stop> {
    fs::create_dir_all(folder)?;
    plant(&format!("{folder}/pre-commit")).map(|_| ())
}

pub(crate) fn nested(facts: &Facts, tries: &mut Tries) {
    let hooks = facts.at("repo-a/.git/hooks");
    tries.attempt("a new hook in a nested repository", || plant(&format!("{hooks}/pre-commit")));
    tries.attempt("over an existing hook", || plant(&format!("{hooks}/present")));
    tries.attempt("an existing hook made executable", || {
        fs::set_permissions(format!("{hooks}/inert"), fs::Permissions::from_mode(0o755))?;
        Ok("changed its mode".to_owned())
    });
    tries.attempt("an existing hook taken away and made again", || {
        fs::remove_file(format!("{hooks}/present"))?;
        plant(&format!("{hooks}/present"))
    });
    tries.attempt("a repository without a hooks folder", || plant_deep(&facts.at("hookless/.git/hooks/pre-commit")));
    tries.attempt("the workspace's own repository", || plant(&facts.at(".git/hooks/pre-commit")));
    tries.attempt("a submodule's repository", || {
        plant_deep(&facts.at(".git/modules/sub/hooks/pre-commit"))?;
        armed(&facts.at(".git/modules/sub"))
    });
    tries.attempt("info/attributes", || plant_deep(&facts.at("repo-a/.git/info/attributes")));
    tries.attempt("a new submodule's repository", || {
        let workspace = facts.at("repo-a");
        git(&workspace, &["submodule", "--quiet", "add", "../repo-j", "f5-sub"]).map_err(unready)?;
        plant_deep(&facts.at("repo-a/.git/modules/f5-sub/hooks/pre-commit"))?;
        armed(&facts.at("repo-a/.git/modules/f5-sub"))
    });
    tries.attempt("a new worktree's settings", || {
        git(&facts.at("repo-a"), &["worktree", "add", "-q", "-b", "f5", "../f5-tree"]).map_err(unready)?;
        git(&facts.at("repo-a"), &["config", "extensions.worktreeConfig", "true"]).map_err(unready)?;
        let settings = facts.at("repo-a/.git/worktrees/f5-tree/config.worktree");
        fs::write(&settings, "[core]\n\tfsmonitor = /bin/false\n")?;
        monitored(&facts.at("f5-tree"))
    });
}

pub(crate) fn fresh(facts: &Facts, tries: &mut Tries) {
    let workspace = facts.text("workspace");
    tries.attempt("git init", || {
        git(&workspace, &["init", "-q", "f6-init"]).map_err(unready)?;
        plant_deep(&facts.at("f6-init/.git/hooks/pre-commit"))?;
        armed(&facts.at("f6-init/.git"))
    });
    tries.attempt("git init --bare", || {
        git(&workspace, &["init", "-q", "--bare", "f6-bare"]).map_err(unready)?;
        plant_deep(&facts.at("f6-bare/hooks/pre-commit"))?;
        armed(&facts.at("f6-bare"))
    });
    tries.attempt("git clone", || {
        git(&workspace, &["clone", "-q", "repo-a", "f6-clone"]).map_err(unready)?;
        plant_deep(&facts.at("f6-clone/.git/hooks/pre-commit"))?;
        armed(&facts.at("f6-clone/.git"))
    });
    tries.attempt("git init with a repository folder of another name", || {
        git(&workspace, &["init", "-q", "--separate-git-dir=f6-separate", "f6-tree"]).map_err(unready)?;
        plant_deep(&facts.at("f6-separate/hooks/pre-commit"))?;
        armed(&facts.at("f6-separate"))
    });
    tries.attempt("git init with a template that has hooks", || {
        loose_hooks(&facts.at("f6-template/hooks"))?;
        let template = format!("--template={}", facts.at("f6-template"));
        let _ = git(&workspace, &["init", "-q", &template, "f6-templated"]);
        armed(&facts.at("f6-templated/.git"))
    });
    tries.attempt("by hand, hooks last", || {
        bones(&facts.at("f6-hand/.git"))?;
        plant_deep(&facts.at("f6-hand/.git/hooks/pre-commit"))?;
        armed(&facts.at("f6-hand/.git"))
    });
    tries.attempt("by hand, hooks first", || {
        plant_deep(&facts.at("f6-first/.git/hooks/pre-commit"))?;
        bones(&facts.at("f6-first/.git"))?;
        armed(&facts.at("f6-first/.git"))
    });
    tries.attempt("by hand and bare, hooks first", || {
        plant_deep(&facts.at("f6-hand-bare/hooks/pre-commit"))?;
        bones(&facts.at("f6-hand-bare"))?;
        armed(&facts.at("f6-hand-bare"))
    });
    tries.attempt("by hand, with linked parts", || {
        let built = facts.at("f6-soft/x");
        loose_hooks(&format!("{built}/hooks"))?;
        for part in ["objects", "refs", "HEAD"] {
            symlink(facts.at(&format!("repo-a/.git/{part}")), format!("{built}/{part}"))?;
        }
        sys::rename(&built, &facts.at("f6-soft/.git"), 0)?;
        armed(&facts.at("f6-soft/.git"))
    });
    tries.attempt("by hand and bare, with linked parts", || {
        let built = facts.at("f6-soft-bare");
        loose_hooks(&format!("{built}/hooks"))?;
        for part in ["objects", "refs", "HEAD"] {
            symlink(facts.at(&format!("repo-a/.git/{part}")), format!("{built}/{part}"))?;
        }
        armed(&built)
    });
    tries.attempt("by hand and bare, folder by folder moved in", || {
        ordinary_folder(&facts.at("f6-parts/refs/heads"))?;
        ordinary_folder(&facts.at("f6-parts/objects"))?;
        loose_hooks(&facts.at("f6-parts/x"))?;
        ordinary_folder(&facts.at("f6-moved"))?;
        for (from, to) in [("x", "hooks"), ("objects", "objects"), ("refs", "refs")] {
            sys::rename(&facts.at(&format!("f6-parts/{from}")), &facts.at(&format!("f6-moved/{to}")), 0)?;
        }
        fs::write(facts.at("f6-moved/HEAD"), "ref: refs/heads/main\n")?;
        armed(&facts.at("f6-moved"))
    });
    tries.attempt("built under another name and renamed to .git", || {
        bones(&facts.at("f6-built/x"))?;
        loose_hooks(&facts.at("f6-built/x/hooks"))?;
        sys::rename(&facts.at("f6-built/x"), &facts.at("f6-built/.git"), 0)?;
        armed(&facts.at("f6-built/.git"))
    });
    tries.attempt("a folder of hooks moved into a repository", || {
        loose_hooks(&facts.at("f6-loose"))?;
        sys::rename(&facts.at("f6-loose"), &facts.at("hookless-b/.git/hooks"), 0)?;
        armed(&facts.at("hookless-b/.git"))
    });
    tries.attempt("a link to a folder of hooks", || {
        loose_hooks(&facts.at("f6-linked"))?;
        symlink(facts.at("f6-linked"), facts.at("hookless-c/.git/hooks"))?;
        armed(&facts.at("hookless-c/.git"))
    });
    tries.attempt("a .git that is a link to a prepared folder", || {
        let built = facts.at("f6-elsewhere/x");
        bones(&built)?;
        loose_hooks(&format!("{built}/hooks"))?;
        ordinary_folder(&facts.at("f6-link-tree"))?;
        symlink(&built, facts.at("f6-link-tree/.git"))?;
        armed(&facts.at("f6-link-tree/.git"))
    });
    tries.attempt("a .git file that points to a prepared folder", || {
        let built = facts.at("f6-pointed/x");
        bones(&built)?;
        loose_hooks(&format!("{built}/hooks"))?;
        ordinary_folder(&facts.at("f6-pointer"))?;
        fs::write(facts.at("f6-pointer/.git"), format!("gitdir: {built}\n"))?;
        armed(&built)
    });
}

/// A command of git that has to work, so that something can be tried behind it.
fn unready(stop: Stop) -> Stop {
    match stop {
        Stop::Held(said) | Stop::Untried(said) => Stop::Untried(said),
    }
}

pub(crate) fn renamed_parent(facts: &Facts, tries: &mut Tries) {
    let exchange = libc::RENAME_EXCHANGE;
    tries.attempt("the repository's parent away, planted, back", || {
        sys::rename(&facts.at("repo-b"), &facts.at("f7-away"), 0).ready("rename of an ordinary folder")?;
        let tried = plant(&facts.at("f7-away/.git/hooks/pre-commit"));
        sys::rename(&facts.at("f7-away"), &facts.at("repo-b"), 0).ready("rename back")?;
        tried.and_then(|_| armed(&facts.at("repo-b/.git")))
    });
    tries.attempt(".git away, planted, back", || {
        sys::rename(&facts.at("repo-b/.git"), &facts.at("repo-b/f7-git"), 0)?;
        let tried = plant(&facts.at("repo-b/f7-git/hooks/pre-push"));
        sys::rename(&facts.at("repo-b/f7-git"), &facts.at("repo-b/.git"), 0)?;
        tried
    });
    tries.attempt("hooks away and a new folder in its place", || {
        sys::rename(&facts.at("repo-c/.git/hooks"), &facts.at("repo-c/f7-hooks"), 0)?;
        plant_deep(&facts.at("repo-c/.git/hooks/pre-commit"))?;
        armed(&facts.at("repo-c/.git"))
    });
    tries.attempt(".git away and a new one in its place", || {
        let built = facts.at("f7-built");
        bones(&built).map_err(unready)?;
        loose_hooks(&format!("{built}/hooks"))?;
        sys::rename(&facts.at("repo-c/.git"), &facts.at("f7-old-git"), 0)?;
        sys::rename(&built, &facts.at("repo-c/.git"), 0)?;
        armed(&facts.at("repo-c/.git"))
    });
    tries.attempt("two folders exchanged", || {
        ordinary_folder(&facts.at("f7-exchange"))?;
        loose_hooks(&facts.at("f7-exchange/hooks"))?;
        sys::rename(&facts.at("f7-exchange/hooks"), &facts.at("repo-d/.git/hooks"), exchange)?;
        armed(&facts.at("repo-d/.git"))
    });
    tries.attempt("a parent exchanged with one that holds .github/workflows", || {
        ordinary_folder(&facts.at("f7-parts/x/workflows"))?;
        ordinary(&facts.at("f7-parts/x/workflows/evil.yml"))?;
        sys::rename(&facts.at("f7-parts/x"), &facts.at("plain/.github"), 0)?;
        planted(&facts.at("plain/.github/workflows/evil.yml"))
    });
}

pub(crate) fn redirected_hooks(facts: &Facts, tries: &mut Tries) {
    tries.attempt("a new hook in the redirected folder", || plant(&facts.at("redirected/.myhooks/pre-commit")));
    tries.attempt("over a hook there", || plant(&facts.at("redirected/.myhooks/present")));
    tries.attempt("the folder away and a new one in its place", || {
        sys::rename(&facts.at("redirected/.myhooks"), &facts.at("redirected/f11-old"), 0)?;
        plant_deep(&facts.at("redirected/.myhooks/pre-commit"))
    });
    tries.attempt("a folder that the hooks folder is a link to", || plant(&facts.at("linked/shared-hooks/pre-commit")));
    tries.attempt("a folder that a sealed name is a link to", || plant(&facts.at("linked/settings/pre-push")));
    tries.attempt("the folder that the account's own settings name", || plant(&facts.at("tools/all-hooks/pre-commit")));
    tries.attempt("that folder in a repository where it is not yet", || {
        plant_deep(&facts.at("repo-a/tools/all-hooks/pre-commit"))
    });
    tries.attempt("git config core.hooksPath", || {
        loose_hooks(&facts.at("f11-hooks"))?;
        configured(&facts.at("repo-e"), &[], "core.hooksPath", &facts.at("f11-hooks"))
    });
    tries.attempt("git config --worktree core.hooksPath", || {
        configured(&facts.at("repo-e"), &["--worktree"], "core.hooksPath", &facts.at("f11-hooks"))
    });
}

/// Sets a key with git and asks git for it.
fn configured(repository: &str, flags: &[&str], key: &str, value: &str) -> Tried {
    let mut set = vec!["config"];
    set.extend(flags);
    set.extend([key, value]);
    git(repository, &set)?;
    let now = git(repository, &["config", "--get", key])?;
    if now == value { Ok(format!("{key} is {value}")) } else { held(format!("{key} is {now}")) }
}

/// Needs a workspace that is a worktree of a repository beside it.
pub(crate) fn worktree(facts: &Facts, tries: &mut Tries) {
    let workspace = facts.text("workspace");
    let common = facts.text("common");
    tries.attempt("the main repository's hooks", || plant(&format!("{common}/hooks/pre-commit")));
    tries.attempt("its info/attributes", || plant_deep(&format!("{common}/info/attributes")));
    tries.attempt("its config.worktree", || plant(&format!("{common}/config.worktree")));
    tries.attempt("git config", || configured(&workspace, &[], "core.fsmonitor", "/bin/false"));
    tries.attempt("its configuration", || append(&format!("{common}/config")));
    tries.attempt("the pointer file", || {
        let built = facts.at("f12-built");
        bones(&built)?;
        loose_hooks(&format!("{built}/hooks"))?;
        fs::write(facts.at(".git"), format!("gitdir: {built}\n"))?;
        let pointer = fs::read_to_string(facts.at(".git"))?;
        if pointer.contains("f12-built") { Ok("the worktree points elsewhere".to_owned()) } else { held("as it was") }
    });
    tries.attempt("the common folder's name", || {
        let private = git(&workspace, &["rev-parse", "--absolute-git-dir"]).map_err(unready)?;
        let built = facts.at("f12-common");
        bones(&built)?;
        loose_hooks(&format!("{built}/hooks"))?;
        fs::write(format!("{private}/commondir"), format!("{built}\n"))?;
        Ok("the worktree's common folder is elsewhere".to_owned())
    });
    tries.attempt("a file of the main worktree", || {
        crate::files::on_the_host(facts, &format!("{}/f12", facts.text("main")))
    });
}

/// Appends to a file without making it.
fn append(path: &str) -> Tried {
    let file = sys::open(path, libc::O_WRONLY | libc::O_APPEND, 0)?;
    sys::write_once(&file, MARK.as_bytes())?;
    planted(path)
}

/// Keys that make git start a program, or read further settings, or trust more than it did.
const EVIL_KEYS: &[(&str, &str)] = &[
    ("core.fsmonitor", "/bin/false"),
    ("core.sshCommand", "/bin/false"),
    ("core.editor", "/bin/false"),
    ("core.pager", "/bin/false"),
    ("core.askPass", "/bin/false"),
    ("core.gitProxy", "/bin/false"),
    ("core.attributesFile", "/tmp/x"),
    ("core.worktree", "/"),
    ("alias.st", "!/bin/false"),
    ("diff.x.textconv", "/bin/false"),
    ("diff.x.command", "/bin/false"),
    ("diff.external", "/bin/false"),
    ("merge.x.driver", "/bin/false"),
    ("filter.x.clean", "/bin/false"),
    ("filter.x.smudge", "/bin/false"),
    ("filter.x.process", "/bin/false"),
    ("include.path", "/tmp/x"),
    ("includeIf.gitdir:/.path", "/tmp/x"),
    ("credential.helper", "/bin/false"),
    ("gpg.program", "/bin/false"),
    ("gpg.ssh.program", "/bin/false"),
    ("url.ext::false.insteadOf", "https://example.com"),
    ("remote.origin.uploadpack", "/bin/false"),
    ("remote.origin.vcs", "ext"),
    ("remote.origin.proxy", "http://127.0.0.1:1"),
    ("submodule.sub.update", "!/bin/false"),
    ("protocol.ext.allow", "always"),
    ("uploadpack.packObjectsHook", "/bin/false"),
    ("sequence.editor", "/bin/false"),
    ("interactive.diffFilter", "/bin/false"),
    ("pager.log", "/bin/false"),
    ("man.x.cmd", "/bin/false"),
    ("browser.x.cmd", "/bin/false"),
    ("difftool.x.cmd", "/bin/false"),
    ("mergetool.x.cmd", "/bin/false"),
    ("sendemail.smtpServer", "/bin/false"),
    ("trailer.x.command", "/bin/false"),
    ("http.proxy", "http://127.0.0.1:1"),
    ("http.sslVerify", "false"),
    ("extensions.worktreeConfig", "true"),
];

/// Those of [`EVIL_KEYS`] that may be set: harmless by themselves.
pub(crate) const HARMLESS_KEYS: &[&str] = &["extensions.worktreeConfig"];

pub(crate) fn configuration(facts: &Facts, tries: &mut Tries) {
    let repository = facts.at("repo-f");
    for (key, value) in EVIL_KEYS {
        if !HARMLESS_KEYS.contains(key) {
            tries.attempt(&format!("git config {key}"), || configured(&repository, &[], key, value));
        }
    }
    tries.attempt("a file that the configuration includes", || append(&facts.at("including/team.gitconfig")));
    tries.attempt("another file in its place", || {
        ordinary(&facts.at("f13-included"))?;
        sys::rename(&facts.at("f13-included"), &facts.at("including/team.gitconfig"), 0)?;
        planted(&facts.at("including/team.gitconfig"))
    });
    tries.attempt("append to the file", || append(&facts.at("repo-f/.git/config")));
    tries.attempt("over the file", || plant(&facts.at("repo-f/.git/config")));
    tries.attempt("config.worktree", || plant(&facts.at("repo-f/.git/config.worktree")));
    tries.attempt("info/attributes", || plant_deep(&facts.at("repo-f/.git/info/attributes")));
    tries.attempt("another common folder, with linked parts", || {
        // git asks only that the common folder has something called `objects` and `refs`.
        let evil = facts.at("f13-common");
        loose_hooks(&format!("{evil}/hooks"))?;
        for part in ["objects", "refs"] {
            symlink(facts.at(&format!("repo-d/.git/{part}")), format!("{evil}/{part}"))?;
        }
        fs::write(facts.at("repo-d/.git/commondir"), format!("{evil}\n"))?;
        redirected_to(&facts.at("repo-d"), &evil)
    });
    tries.attempt("another common folder, with parts made first", || {
        let evil = facts.at("f13-parts");
        fs::write(facts.at("repo-c/.git/commondir"), format!("{evil}\n"))?;
        ordinary_folder(&format!("{evil}/refs"))?;
        loose_hooks(&format!("{evil}/hooks"))?;
        fs::create_dir(format!("{evil}/objects"))?;
        redirected_to(&facts.at("repo-c"), &evil)
    });
    tries.attempt("the lock file by hand, renamed", || {
        let evil = "[core]\n\trepositoryformatversion = 0\n\tfsmonitor = /bin/false\n";
        let lock = facts.at("repo-e/.git/config.lock");
        fs::write(&lock, evil).ready("lock file")?;
        let renamed = sys::rename(&lock, &facts.at("repo-e/.git/config"), 0);
        let _ = fs::remove_file(&lock);
        renamed?;
        monitored(&facts.at("repo-e"))
    });
    tries.attempt("the lock file kept open for writing over the rename", || {
        let lock = facts.at("repo-e/.git/config.lock");
        let plain = fs::read(facts.at("repo-e/.git/config")).ready("config")?;
        fs::write(&lock, &plain).ready("lock file")?;
        let open = sys::open(&lock, libc::O_WRONLY | libc::O_APPEND, 0).ready("lock file")?;
        let renamed = sys::rename(&lock, &facts.at("repo-e/.git/config"), 0);
        sys::write_once(&open, b"[core]\n\tfsmonitor = /bin/false\n").ready("write")?;
        let _ = fs::remove_file(&lock);
        renamed?;
        monitored(&facts.at("repo-e"))
    });
    tries.attempt("a new repository's first configuration kept open for writing", || {
        ordinary_folder(&facts.at("f13-new/.git"))?;
        let file = sys::open(&facts.at("f13-new/.git/config"), libc::O_RDWR | libc::O_CREAT, 0o644)?;
        sys::write_once(&file, b"[core]\n\trepositoryformatversion = 0\n").map_err(Stop::from)?;
        bones(&facts.at("f13-new/.git"))?;
        sys::write_once(&file, b"\tfsmonitor = /bin/false\n")?;
        monitored(&facts.at("f13-new"))
    });
    tries.attempt("a repository by hand with its configuration first", || {
        ordinary_folder(&facts.at("f13-hand/x"))?;
        fs::write(facts.at("f13-hand/x/config"), "[core]\n\trepositoryformatversion = 0\n\tfsmonitor = /bin/false\n")?;
        bones(&facts.at("f13-hand/x"))?;
        sys::rename(&facts.at("f13-hand/x"), &facts.at("f13-hand/.git"), 0)?;
        monitored(&facts.at("f13-hand"))
    });
    tries.attempt("git -c, kept by git init", || {
        let _ = git(&facts.text("workspace"), &["init", "-q", "f13-init"]);
        configured(&facts.at("f13-init"), &[], "core.fsmonitor", "/bin/false")
    });
    tries.attempt("git clone with a key to keep", || {
        let workspace = facts.text("workspace");
        git(&workspace, &["clone", "-q", "-c", "core.fsmonitor=/bin/false", "repo-a", "f13-clone"])?;
        monitored(&facts.at("f13-clone"))
    });
}

/// The same cases on repositories that were made inside a moment ago: over them nothing is mounted.
pub(crate) fn made_inside(facts: &Facts, tries: &mut Tries) {
    let inside = facts.moved("inside");
    let workspace = inside.text("workspace");
    tries.attempt("repositories are made as ever", || {
        // Held is what is wished for: here it means that all of this could be done.
        for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
            let folder = format!("{workspace}/repo-{name}");
            ordinary_folder(&folder)?;
            for arguments in
                [&["init", "-q", "-b", "main", "--template="][..], &["commit", "-q", "--allow-empty", "-m", "first"]]
            {
                git(&folder, arguments).map_err(unready)?;
            }
            ordinary_folder(&format!("{folder}/.git/info"))?;
            ordinary_folder(&format!("{folder}/.git/hooks"))?;
        }
        for name in ["plain", "plain-d", "plain-e", "hookless/.git"] {
            ordinary_folder(&format!("{workspace}/{name}"))?;
        }
        held("made")
    });
    nested(&inside, tries);
    renamed_parent(&inside, tries);
    configuration(&inside, tries);
    crate::sealed::renamed_onto(&inside, tries);
    crate::sealed::linked(&inside, tries);
    crate::sealed::other_calls(&inside, tries);
    crate::sealed::writes_to(&inside, tries, &inside.at("repo-i/.git/config"));
    tries.attempt("the configuration away and a new one", || {
        let config = inside.at("repo-i/.git/config");
        sys::rename(&config, &inside.at("repo-i/.git/config.old"), 0)?;
        fs::write(&config, "[core]\n\trepositoryformatversion = 0\n\tfsmonitor = /bin/false\n")?;
        monitored(&inside.at("repo-i"))
    });
    tries.attempt("the configuration deleted and a new one", || {
        let config = inside.at("repo-j/.git/config");
        fs::remove_file(&config)?;
        fs::write(&config, "[core]\n\trepositoryformatversion = 0\n\tfsmonitor = /bin/false\n")?;
        monitored(&inside.at("repo-j"))
    });
    tries.attempt("the empty hooks folder away, filled, and back", || {
        let (hooks, away) = (inside.at("repo-j/.git/hooks"), inside.at("s1-away"));
        sys::rename(&hooks, &away, 0)?;
        plant(&format!("{away}/pre-commit"))?;
        sys::rename(&away, &hooks, 0)?;
        armed(&inside.at("repo-j/.git"))
    });
    tries.attempt("the empty hooks folder away and a link in its place", || {
        let hooks = inside.at("repo-h/.git/hooks");
        loose_hooks(&inside.at("s1-loose"))?;
        fs::remove_dir_all(&hooks)?;
        symlink(inside.at("s1-loose"), &hooks)?;
        armed(&inside.at("repo-h/.git"))
    });
}

/// Whether git would look for hooks of a repository in this folder, and finds ours there.
fn redirected_to(repository: &str, evil: &str) -> Tried {
    let common = git(repository, &["rev-parse", "--path-format=absolute", "--git-common-dir"])?;
    if common != evil {
        return held(format!("git looks in {common}"));
    }
    planted(&format!("{evil}/hooks/pre-commit"))
}

fn monitored(repository: &str) -> Tried {
    let now = git(repository, &["config", "--get", "core.fsmonitor"])?;
    if now == "/bin/false" { Ok("git would start /bin/false".to_owned()) } else { held(format!("it is `{now}`")) }
}
