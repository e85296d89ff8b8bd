//! Other processes, what they hand down, and the way back to whoever watches (P9, P11–P14, P18, P23–P25).

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, ExitCode, Stdio};

use crate::attempt::{Ready, Stop, Tried, Tries, held};
use crate::facts::Facts;
use crate::files::{last, on_the_host, plant_deep, read_secret};
use crate::sys;

/// Numbers of the processes in sight that are neither this one nor one above it that this program started.
fn others() -> Vec<i32> {
    // SAFETY: no arguments.
    let (own, parent, group) = unsafe { (libc::getpid(), libc::getppid(), libc::getpgrp()) };
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
        .filter(|id| ![own, parent, group].contains(id))
        .collect()
}

fn looked_at(id: i32) -> Tried {
    let mut said = Vec::new();
    // PTRACE_SEIZE
    // SAFETY: no pointers are used.
    if unsafe { libc::ptrace(libc::PTRACE_SEIZE, id, 0, 0) } == 0 {
        return Ok(format!("traced {id}"));
    }
    said.push(format!("ptrace {}", sys::words(&std::io::Error::last_os_error())));
    for file in ["mem", "environ", "maps", "auxv", "stack", "syscall"] {
        match fs::File::open(format!("/proc/{id}/{file}")).and_then(|file| sys::read_once(file.as_raw_fd())) {
            Ok(bytes) if !bytes.is_empty() => return Ok(format!("read {} bytes of {file} of {id}", bytes.len())),
            Ok(_) => said.push(format!("{file} empty")),
            Err(error) => said.push(format!("{file} {}", sys::words(&error))),
        }
    }
    match fs::read_dir(format!("/proc/{id}/fd")).map(Iterator::count) {
        Ok(0) => said.push("fd empty".to_owned()),
        Ok(_) => return Ok(format!("listed the descriptors of {id}")),
        Err(error) => said.push(format!("fd {}", sys::words(&error))),
    }
    match sys::descriptor(libc::SYS_pidfd_open, [id as u64, 0, 0, 0, 0, 0]) {
        Ok(process) => {
            for number in 0..32 {
                if sys::descriptor(libc::SYS_pidfd_getfd, [process.as_raw_fd() as u64, number, 0, 0, 0, 0]).is_ok() {
                    return Ok(format!("took descriptor {number} of {id}"));
                }
            }
            said.push(format!("pidfd_getfd {}", sys::words(&std::io::Error::last_os_error())));
        }
        Err(error) => said.push(format!("pidfd_open {}", sys::words(&error))),
    }
    held(format!("{id}: {}", said.join(", ")))
}

pub(crate) fn looked_into(facts: &Facts, tries: &mut Tries) {
    let host = i32::try_from(facts.number("host_pid")).unwrap_or(0);
    tries.attempt("the host's process by its number", || looked_at(host));
    tries.attempt("memory of the host's process", || {
        let mut bytes = [0_u8; 16];
        let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let remote = libc::iovec { iov_base: facts.number("host_address") as *mut _, iov_len: bytes.len() };
        // SAFETY: our side lives over the call; the other side is the kernel's to check.
        let read = unsafe { libc::process_vm_readv(host, &local, 1, &remote, 1, 0) };
        sys::checked(read as i64)?;
        if facts.text("secret").as_bytes().starts_with(&bytes) {
            Ok("read the secret".to_owned())
        } else {
            held("something else")
        }
    });
    tries.attempt("a signal to the host's process", || {
        // SAFETY: signal 0 only asks.
        sys::done(unsafe { libc::kill(host, 0) })?;
        // The number may be one of ours by chance: it is the host's only if its program says so.
        let name = fs::read_to_string(format!("/proc/{host}/cmdline"))?;
        if name.contains("host") { Ok("reached".to_owned()) } else { held("another process") }
    });
    tries.attempt("each other process in sight", || {
        let mut said = Vec::new();
        for id in others() {
            match looked_at(id) {
                Ok(how) => return Ok(how),
                Err(Stop::Held(why) | Stop::Untried(why)) => said.push(why),
            }
        }
        held(if said.is_empty() { "none in sight".to_owned() } else { said.join("; ") })
    });
    tries.attempt("tracing a child of its own", || {
        // SAFETY: the child asks and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: as above.
            unsafe {
                let traced = libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
                libc::_exit(if traced == 0 { 0 } else { 1 })
            };
        }
        let mut status = 0;
        // SAFETY: `status` lives over the call.
        unsafe { libc::waitpid(child, &mut status, 0) };
        if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 {
            Ok("traced".to_owned())
        } else {
            held("refused")
        }
    });
    tries.attempt("comparing itself with the first process", || {
        // SAFETY: no arguments.
        let own = unsafe { libc::getpid() };
        sys::call(libc::SYS_kcmp, [own as u64, 1, 2, 0, 0, 0]).map_err(Stop::from).map(|_| "compared".to_owned())
    });
}

/// Descriptors above the first three that this program was started with. The attempt's own pipe is closed on exec, so
/// the question is asked by a program started anew.
pub(crate) fn inherited(facts: &Facts, tries: &mut Tries) {
    let secret = facts.text("secret");
    tries.attempt("descriptors that came along", || {
        let output =
            Command::new("/proc/self/exe").args(["probe", "descriptors", &secret]).output().ready("start itself")?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if said.is_empty() { held("none") } else { Ok(said) }
    });
    tries.attempt("the standard ones are what they should be", || {
        for number in 0..3 {
            let target = fs::read_link(format!("/proc/self/fd/{number}")).ready("link")?;
            if fs::metadata(format!("/proc/self/fd/{number}")).ready("metadata")?.is_dir() {
                return Ok(format!("{number} is the folder {}", target.display()));
            }
        }
        held("no folder among them")
    });
}

/// Questions that a fresh copy of this program answers.
pub(crate) fn probe(name: &str, rest: &[&str]) -> ExitCode {
    match (name, rest) {
        ("descriptors", [secret]) => {
            for number in 3..1024 {
                // SAFETY: plain numbers.
                if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
                    continue;
                }
                let target = fs::read_link(format!("/proc/self/fd/{number}")).unwrap_or_default();
                let holds =
                    fs::read_to_string(format!("/proc/self/fd/{number}")).is_ok_and(|text| text.contains(secret));
                println!("{number} is {}{}", target.display(), if holds { ", which holds the secret" } else { "" });
            }
            ExitCode::SUCCESS
        }
        ("plant", [path]) => match crate::files::plant(path) {
            Ok(_) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        _ => ExitCode::from(2),
    }
}

/// Variables that carry secrets, or that make an ordinary program load or start something.
const VARIABLES: &[&str] = &[
    "AWS_SECRET_ACCESS_KEY",
    "GITHUB_TOKEN",
    "SSH_AUTH_SOCK",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "LD_LIBRARY_PATH",
    "NODE_OPTIONS",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PERL5OPT",
    "RUBYOPT",
    "BASH_ENV",
    "PROMPT_COMMAND",
    "GIT_SSH_COMMAND",
    "GIT_CONFIG_COUNT",
    "GIT_EXEC_PATH",
    "GIT_EXTERNAL_DIFF",
    "GIT_ASKPASS",
];

/// The variables as `NAME=value` lines, for whoever starts this program from outside.
pub(crate) fn environment(facts: &Facts, tries: &mut Tries) {
    let secret = facts.text("secret");
    for name in VARIABLES {
        tries.attempt(name, || match std::env::var(name) {
            Ok(value) if value.contains(&secret) || value.contains("escape") => Ok(format!("it is `{value}`")),
            Ok(value) => held(format!("it is `{value}`, not the host's")),
            Err(_) => held("not set"),
        });
    }
    tries.attempt("any variable of any process in sight", || {
        for entry in fs::read_dir("/proc").ready("/proc")?.flatten() {
            let path = entry.path().join("environ");
            if fs::read(&path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(&secret)) {
                return Ok(format!("read it in {}", path.display()));
            }
        }
        held("none holds the secret")
    });
    tries.attempt("any command line in sight", || {
        for entry in fs::read_dir("/proc").ready("/proc")?.flatten() {
            let path = entry.path().join("cmdline");
            if fs::read(&path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains("creel-escape\0host")) {
                return Ok(format!("read it in {}", path.display()));
            }
        }
        held("no process of the host's")
    });
}

pub(crate) fn shared_memory(facts: &Facts, tries: &mut Tries) {
    let secret = facts.text("secret");
    tries.attempt("the host's System V segment", || {
        let id = facts.number("shm_id") as i32;
        // SAFETY: the kernel chooses the place; the segment is at least a page.
        let at = unsafe { libc::shmat(id, std::ptr::null(), libc::SHM_RDONLY) };
        if at as isize == -1 {
            return Err(last());
        }
        // SAFETY: one page was mapped.
        let bytes = unsafe { std::slice::from_raw_parts(at.cast::<u8>(), 256) };
        if String::from_utf8_lossy(bytes).contains(&secret) {
            Ok("read the secret".to_owned())
        } else {
            held("another segment")
        }
    });
    tries.attempt("the host's POSIX segment", || read_secret(&format!("/dev/shm/{}", facts.text("shm_name")), &secret));
    tries.attempt("a list of System V segments", || {
        let text = fs::read_to_string("/proc/sysvipc/shm")?;
        let id = facts.text("shm_id");
        let listed = text.lines().skip(1).any(|line| line.split_whitespace().nth(1) == Some(id.as_str()));
        if listed { Ok("the host's is listed".to_owned()) } else { held("the host's is not listed") }
    });
}

/// Needs a terminal as standard input.
pub(crate) fn terminal(_facts: &Facts, tries: &mut Tries) {
    for (what, path) in [("standard input", "/proc/self/fd/0"), ("its terminal", "/dev/tty")] {
        tries.attempt(&format!("words typed into {what}"), || {
            let terminal = sys::open(path, libc::O_RDWR | libc::O_NOCTTY, 0)?;
            for byte in b"touch /tmp/p14-typed\n" {
                // SAFETY: one byte that lives over the call.
                sys::done(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSTI, std::ptr::from_ref(byte)) })?;
            }
            Ok("typed".to_owned())
        });
    }
    tries.attempt("a request of the console", || {
        let mut code = [6_u8, 0];
        // SAFETY: the buffer lives over the call.
        sys::done(unsafe { libc::ioctl(0, 0x541C, code.as_mut_ptr()) })?;
        Ok("it answers".to_owned())
    });
    tries.attempt("another terminal", || {
        let own = fs::metadata("/proc/self/fd/0").ready("standard input")?;
        for entry in fs::read_dir("/dev/pts").ready("/dev/pts")?.flatten() {
            let path = entry.path().display().to_string();
            let Ok(terminal) = sys::open(&path, libc::O_RDWR | libc::O_NOCTTY, 0) else { continue };
            let other = fs::metadata(format!("/proc/self/fd/{}", terminal.as_raw_fd())).ready("terminal")?;
            if !path.ends_with("ptmx") && (own.dev(), own.rdev()) != (other.dev(), other.rdev()) {
                return Ok(format!("opened {path}"));
            }
        }
        held("none but its own")
    });
    tries.attempt("taking another session's terminal", || {
        // SAFETY: plain numbers.
        sys::done(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 1) })?;
        Ok("taken".to_owned())
    });
}

pub(crate) fn notify_descriptor(_facts: &Facts, tries: &mut Tries) {
    tries.attempt("a notify descriptor in sight", || {
        for entry in fs::read_dir("/proc").ready("/proc")?.flatten() {
            let Ok(descriptors) = fs::read_dir(entry.path().join("fd")) else { continue };
            for descriptor in descriptors.flatten() {
                let target = fs::read_link(descriptor.path()).unwrap_or_default();
                if target.to_string_lossy().contains("seccomp") {
                    return Ok(format!("{} is one", descriptor.path().display()));
                }
            }
        }
        held("none")
    });
    tries.attempt("a notify descriptor that came along", || {
        for number in 3..1024 {
            let id = 0_u64;
            // SECCOMP_IOCTL_NOTIF_ID_VALID: ENOENT says that it is one, ENOTTY or EBADF that it is none.
            // SAFETY: the number lives over the call.
            if unsafe { libc::ioctl(number, 0x4008_2102, &raw const id) } == 0
                || std::io::Error::last_os_error().raw_os_error() == Some(libc::ENOENT)
            {
                return Ok(format!("{number} is one"));
            }
        }
        held("none")
    });
}

pub(crate) fn own_settings(facts: &Facts, tries: &mut Tries) {
    let home = facts.text("home");
    for place in [
        ".config/creel/bundle/profiles/default.toml",
        ".config/creel/x",
        ".local/state/creel/x",
        ".local/bin/creel",
        ".claude/settings.json",
    ] {
        tries.attempt(&format!("write ~/{place}"), || on_the_host(facts, &format!("{home}/{place}")));
    }
    for place in
        ["/etc/creel/x", "/usr/bin/creel", "/usr/bin/creel-hook", "/etc/claude-code/x.json", "/var/lib/creel/x"]
    {
        tries.attempt(&format!("write {place}"), || plant_deep(place));
    }
    for arguments in [
        &["guard", "remove", "claude-code"][..],
        &["policy", "mode", "audit"],
        &["run", "stop", "--all"],
        &["runs"],
        &["status"],
        &["log", "--format", "jsonl"],
    ] {
        tries.attempt(&format!("creel {}", arguments.join(" ")), || {
            let output = Command::new("/usr/bin/creel").args(arguments).stdin(Stdio::null()).output()?;
            let said = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
            if output.status.success() { Ok("it works".to_owned()) } else { held(said) }
        });
    }
}

/// A cage inside the cage must not reach more than the outer one.
pub(crate) fn nested(facts: &Facts, tries: &mut Tries) {
    let (secret, path) = (facts.text("secret"), facts.secret_path());
    for profile in [&[][..], &["--profile", "default"], &["--profile", "strict"]] {
        tries.attempt(&format!("creel run {} -- cat", profile.join(" ")), || {
            let output = Command::new("/usr/bin/creel")
                .arg("run")
                .args(profile)
                .args(["--", "/usr/bin/cat", &path])
                .stdin(Stdio::null())
                .output()?;
            let said = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
            if String::from_utf8_lossy(&output.stdout).contains(&secret) {
                Ok("read the secret".to_owned())
            } else {
                held(said)
            }
        });
    }
}

/// Another tool's sandbox inside ours: it may work or say why not; it must not reach more.
pub(crate) fn other_sandbox(facts: &Facts, tries: &mut Tries) {
    let (secret, path) = (facts.text("secret"), facts.secret_path());
    for (program, arguments) in
        [("bwrap", &["--dev-bind", "/", "/", "cat"][..]), ("unshare", &["--user", "--map-root-user", "--mount", "cat"])]
    {
        tries.attempt(program, || {
            let output = Command::new(program).args(arguments).arg(&path).stdin(Stdio::null()).output()?;
            if String::from_utf8_lossy(&output.stdout).contains(&secret) {
                return Ok("read the secret".to_owned());
            }
            held(String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned())
        });
    }
}
