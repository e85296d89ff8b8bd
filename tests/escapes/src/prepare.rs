//! The folders of a person: a home with secrets, a workspace with repositories in every state that the cases need.
//!
//! It runs before a cage begins, as the account that will be in it; what it makes is what launch-time seals find.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

/// Makes home and workspace.
pub(crate) fn all(home: &str, workspace: &str) -> io::Result<()> {
    let id = std::process::id();
    let secret = format!("secret-{id:08}-of-the-host");
    for (path, text) in [
        (".ssh/id_ed25519", format!("-- a key --\n{secret}\n")),
        (".sshfoo/note", secret.clone()),
        (".aws/credentials", secret.clone()),
        (".config/gh/hosts.yml", secret.clone()),
    ] {
        write(&format!("{home}/{path}"), &text)?;
    }
    write(&format!("{workspace}foo/note"), &secret)?;

    fs::create_dir_all(workspace)?;
    repository(workspace, true)?;
    for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
        repository(&format!("{workspace}/repo-{name}"), true)?;
    }
    for name in ["", "-b", "-c"] {
        let folder = format!("{workspace}/hookless{name}");
        repository(&folder, false)?;
    }
    let redirected = format!("{workspace}/redirected");
    repository(&redirected, true)?;
    write(&format!("{redirected}/.myhooks/present"), "#!/bin/sh\nexit 0\n")?;
    git(&redirected, &["config", "core.hooksPath", ".myhooks"])?;
    git(workspace, &["submodule", "--quiet", "add", "./repo-a", "sub"])?;
    git(workspace, &["commit", "-q", "-m", "with a submodule"])?;

    // What people do: hooks in a folder of the project, shared settings that are included, hooks for all repositories.
    let linked = format!("{workspace}/linked");
    repository(&linked, false)?;
    write(&format!("{linked}/shared-hooks/present"), "#!/bin/sh\nexit 0\n")?;
    let _ = symlink("../shared-hooks", format!("{linked}/.git/hooks"));
    write(&format!("{linked}/settings/present"), "{}\n")?;
    let _ = symlink("settings", format!("{linked}/.husky"));
    let including = format!("{workspace}/including");
    repository(&including, false)?;
    write(&format!("{including}/team.gitconfig"), "[pull]\n\trebase = true\n")?;
    git(&including, &["config", "include.path", "../team.gitconfig"])?;
    write(&format!("{home}/.gitconfig"), "[core]\n\thooksPath = tools/all-hooks\n")?;
    write(&format!("{workspace}/tools/all-hooks/present"), "#!/bin/sh\nexit 0\n")?;

    for name in ["plain", "plain-b", "plain-c", "plain-d", "plain-e", "new"] {
        fs::create_dir_all(format!("{workspace}/{name}"))?;
    }
    for (name, text) in [
        (".mcp.json", "{}\n"),
        (".envrc", "true\n"),
        (".vscode/settings.json", "{}\n"),
        (".husky/present", "#!/bin/sh\nexit 0\n"),
        (".yarnrc.yml", "exit 0\n"),
    ] {
        write(&format!("{workspace}/existing/{name}"), text)?;
    }
    let _ = symlink(format!("{home}/.ssh"), format!("{workspace}/ssh-link"));
    let _ = symlink(format!("{home}/.ssh/id_ed25519"), format!("{workspace}/key-link"));
    fs::create_dir_all(format!("{workspace}/loops"))?;
    let _ = symlink("../plain", format!("{workspace}/loops/l0"));
    for number in 1..45 {
        let _ = symlink(format!("l{}", number - 1), format!("{workspace}/loops/l{number}"));
    }
    Ok(())
}

fn write(path: &str, text: &str) -> io::Result<()> {
    if let Some((folder, _)) = path.rsplit_once('/') {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)
}

/// A repository with one commit; with hooks: one that would run and one that would not.
fn repository(folder: &str, hooks: bool) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    git(folder, &["init", "-q", "-b", "main", "--template="])?;
    write(&format!("{folder}/file"), "text\n")?;
    git(folder, &["add", "file"])?;
    git(folder, &["commit", "-q", "-m", "first"])?;
    fs::create_dir_all(format!("{folder}/.git/info"))?;
    if hooks {
        for (name, mode) in [("present", 0o755), ("inert", 0o644)] {
            let path = format!("{folder}/.git/hooks/{name}");
            write(&path, "#!/bin/sh\nexit 0\n")?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

fn git(folder: &str, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("git")
        .args(["-c", "protocol.file.allow=always", "-c", "user.name=e", "-c", "user.email=e@example.com"])
        .args(["-C", folder])
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("git {arguments:?} in {folder}: {}", String::from_utf8_lossy(&output.stderr))))
}
