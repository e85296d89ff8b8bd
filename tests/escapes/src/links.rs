//! Ways to name a file that go through links, the process folder or a prepared mount point (F1–F4).

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;

use crate::attempt::{Ready, Tries};
use crate::facts::Facts;
use crate::files::{plant, read_secret};
use crate::sys;

pub(crate) fn through_links(facts: &Facts, tries: &mut Tries) {
    let (secret, home) = (facts.text("secret"), facts.text("home"));
    tries
        .attempt("a folder link that the workspace brought", || read_secret(&facts.at("ssh-link/id_ed25519"), &secret));
    tries.attempt("a file link that the workspace brought", || read_secret(&facts.at("key-link"), &secret));
    tries.attempt("a link made inside", || {
        symlink(format!("{home}/.ssh"), facts.at("f1-link")).ready("link")?;
        read_secret(&facts.at("f1-link/id_ed25519"), &secret)
    });
    tries.attempt("the plain path", || read_secret(&facts.secret_path(), &secret));
    tries.attempt("other credentials", || read_secret(&format!("{home}/.aws/credentials"), &secret));
}

pub(crate) fn through_proc(facts: &Facts, tries: &mut Tries) {
    let secret = facts.text("secret");
    let path = facts.secret_path();
    for root in ["/proc/self/root", "/proc/thread-self/root", "/proc/1/root", "/proc/2/root"] {
        tries.attempt(&format!("read through {root}"), || read_secret(&format!("{root}{path}"), &secret));
    }
    tries.attempt("read through the folder it stands in", || {
        read_secret(&format!("/proc/self/cwd/../../../../../..{path}"), &secret)
    });
    tries.attempt("read through a descriptor of the root", || {
        let root = sys::folder("/").ready("/")?;
        read_secret(&format!("/proc/self/fd/{}{path}", root.as_raw_fd()), &secret)
    });
    tries.attempt("read through the root of any process in sight", || {
        let mut last = "no process in sight".to_owned();
        for entry in fs::read_dir("/proc").ready("/proc")?.flatten() {
            let id = entry.file_name().to_string_lossy().into_owned();
            if !id.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            for way in ["root", "cwd/../../../../.."] {
                match read_secret(&format!("/proc/{id}/{way}{path}"), &secret) {
                    Ok(how) => return Ok(how),
                    Err(why) => last = format!("{why:?}"),
                }
            }
        }
        crate::attempt::held(last)
    });
    tries.attempt("plant through /proc/self/root", || {
        plant(&format!("/proc/self/root{}", facts.at("repo-i/.git/hooks/pre-commit")))
    });
    tries.attempt("plant through /proc/self/cwd", || {
        std::env::set_current_dir(facts.text("workspace")).ready("workspace")?;
        plant("/proc/self/cwd/repo-i/.git/hooks/pre-push")
    });
    tries.attempt("plant through a descriptor of the folder", || {
        let folder = sys::folder(&facts.at("repo-i/.git")).ready("folder")?;
        plant(&format!("/proc/self/fd/{}/hooks/post-commit", folder.as_raw_fd()))
    });
    tries.attempt("plant a sealed name through a descriptor of the folder", || {
        let folder = sys::folder(&facts.at("plain")).ready("folder")?;
        plant(&format!("/dev/fd/{}/.envrc", folder.as_raw_fd()))
    });
    tries.attempt("plant a sealed name through another process's folder", || {
        std::env::set_current_dir(facts.at("plain")).ready("workspace")?;
        // SAFETY: the child only waits for its signal.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: as above.
            unsafe {
                libc::pause();
                libc::_exit(0)
            };
        }
        std::env::set_current_dir("/").ready("/")?;
        plant(&format!("/proc/{child}/cwd/.mcp.json"))
    });
}

/// Needs a workspace whose sealed folders are links that lead out.
pub(crate) fn through_planted_mount_points(facts: &Facts, tries: &mut Tries) {
    for name in [".git/hooks", ".vscode", ".husky", ".claude", ".codex"] {
        tries.attempt(&format!("plant through {name}, which leads out"), || plant(&facts.at(&format!("{name}/f3"))));
    }
    tries.attempt("read through them", || read_secret(&facts.at(".vscode/note"), &facts.text("secret")));
}

/// Run in a workspace that was a link, or was changed into one, while the cage began.
pub(crate) fn the_folder_is_not_the_secret_one(facts: &Facts, tries: &mut Tries) {
    let secret = facts.text("secret");
    tries.attempt("the folder that it stands in", || read_secret("id_ed25519", &secret));
    tries.attempt("the workspace by name", || read_secret(&facts.at("id_ed25519"), &secret));
}
