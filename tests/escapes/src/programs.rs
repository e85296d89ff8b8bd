//! Programs by other names, other ways and from other places (P1–P5, P19–P21).
//!
//! What holds a file holds it against every program, so most of these end at the same floor: a sealed name and the
//! secret. `denied_program` is a program that a narrow profile does not list; without such a profile it may run.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::attempt::{Ready, Stop, Tried, Tries, held};
use crate::facts::Facts;
use crate::files::{last, plant, planted, read_secret};
use crate::sys;

pub(crate) fn renamed_process(facts: &Facts, tries: &mut Tries) {
    let secret = facts.text("secret");
    for name in [c"dpkg", c"apt-get", c"creel", c"creeld", c"git", c"sshd"] {
        tries.attempt(&format!("as {}", name.to_string_lossy()), || {
            // SAFETY: the name lives over the call.
            unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
            match read_secret(&facts.secret_path(), &secret) {
                Err(_) => plant(&facts.at("repo-j/.git/hooks/pre-rebase")),
                read => read,
            }
        });
    }
}

/// Runs a program that says a word; reached when it says it.
fn runs(program: &str, before: &[&str]) -> Tried {
    let mut command = if let Some((first, rest)) = before.split_first() {
        let mut command = Command::new(first);
        command.args(rest).arg(program);
        command
    } else {
        Command::new(program)
    };
    let output = command.args(["-e", "print q(it runs)"]).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if said.contains("it runs") {
        Ok("it runs".to_owned())
    } else {
        held(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// Needs a profile that lists programs and not perl.
pub(crate) fn copied(facts: &Facts, tries: &mut Tries) {
    let program = facts.text("denied_program");
    tries.attempt("the program itself", || runs(&program, &[]));
    tries.attempt("a copy in the workspace", || {
        fs::copy(&program, facts.at("p2-copy")).ready("copy")?;
        runs(&facts.at("p2-copy"), &[])
    });
    tries.attempt("a copy in the temporary folder", || {
        fs::copy(&program, "/tmp/p2-copy").ready("copy")?;
        runs("/tmp/p2-copy", &[])
    });
    tries.attempt("a copy in the home folder", || {
        let copy = format!("{}/p2-copy", facts.text("home"));
        fs::copy(&program, &copy).ready("copy")?;
        runs(&copy, &[])
    });
    tries.attempt("a copy in shared memory", || {
        fs::copy(&program, "/dev/shm/p2-copy").ready("copy")?;
        runs("/dev/shm/p2-copy", &[])
    });
    tries.attempt("a link of another name", || {
        symlink(&program, facts.at("p2-link")).ready("link")?;
        runs(&facts.at("p2-link"), &[])
    });
    tries.attempt("a script that names it", || {
        let script = facts.at("p2-script");
        fs::write(&script, format!("#!{program}\nprint q(it runs)\n")).ready("script")?;
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).ready("mode")?;
        let output = Command::new(&script).stdin(Stdio::null()).output()?;
        if output.stdout.starts_with(b"it runs") { Ok("it runs".to_owned()) } else { held("it says nothing") }
    });
}

fn loader() -> Option<&'static str> {
    ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"].into_iter().find(|path| fs::metadata(path).is_ok())
}

/// Needs a profile that lists programs and not perl.
pub(crate) fn mapped(facts: &Facts, tries: &mut Tries) {
    let program = facts.text("denied_program");
    tries.attempt("by the loader", || runs(&program, &[loader().ready("loader")?]));
    tries.attempt("a copy by the loader", || {
        fs::copy(&program, facts.at("p3-copy")).ready("copy")?;
        runs(&facts.at("p3-copy"), &[loader().ready("loader")?])
    });
    tries.attempt("mapped for execution from the workspace", || {
        fs::copy(&program, facts.at("p3-map")).ready("copy")?;
        mapped_executable(&facts.at("p3-map"))
    });
    tries.attempt("mapped for execution from a folder that is only read", || {
        mapped_executable(&facts.text("read_only_program"))
    });
}

fn mapped_executable(path: &str) -> Tried {
    let file = sys::open(path, libc::O_RDONLY, 0).ready("open")?;
    // SAFETY: a new map of our own, never jumped into.
    let map = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_EXEC,
            libc::MAP_PRIVATE,
            file.as_raw_fd(),
            0,
        )
    };
    if map == libc::MAP_FAILED { Err(last()) } else { Ok("mapped".to_owned()) }
}

/// Needs a profile that lists programs and not perl.
pub(crate) fn from_memory(facts: &Facts, tries: &mut Tries) {
    let bytes = fs::read(facts.text("denied_program")).unwrap_or_default();
    for (what, flags) in [("plain", 0_u64), ("executable by flag", 0x10)] {
        tries.attempt(&format!("a file in memory, {what}, executed by descriptor"), || {
            let file = sys::descriptor(libc::SYS_memfd_create, [c"p4".as_ptr() as u64, flags, 0, 0, 0, 0])?;
            sys::write_all(file.as_raw_fd(), &bytes);
            executed(file.as_raw_fd())
        });
        tries.attempt(&format!("a file in memory, {what}, executed by the process folder"), || {
            let file = sys::descriptor(libc::SYS_memfd_create, [c"p4".as_ptr() as u64, flags, 0, 0, 0, 0])?;
            sys::write_all(file.as_raw_fd(), &bytes);
            runs(&format!("/proc/self/fd/{}", file.as_raw_fd()), &[])
        });
    }
    tries.attempt("a file without a name", || {
        let file = sys::open("/tmp", libc::O_TMPFILE | libc::O_RDWR, 0o755).ready("O_TMPFILE")?;
        sys::write_all(file.as_raw_fd(), &bytes);
        let again = sys::open(&format!("/proc/self/fd/{}", file.as_raw_fd()), libc::O_RDONLY, 0).ready("open again")?;
        drop(file);
        executed(again.as_raw_fd())
    });
}

/// `execveat` with an empty path in a child whose output is read.
fn executed(descriptor: i32) -> Tried {
    let (reader, writer) = sys::pipe().ready("pipe")?;
    // SAFETY: the child only replaces itself.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let words = [c"perl".as_ptr(), c"-e".as_ptr(), c"print q(it runs)".as_ptr(), std::ptr::null()];
        let none = [std::ptr::null::<libc::c_char>()];
        // SAFETY: all pointers live over the calls; the child ends when the call fails.
        unsafe {
            libc::dup2(writer.as_raw_fd(), 1);
            let empty = c"".as_ptr() as u64;
            let (words, none) = (words.as_ptr() as u64, none.as_ptr() as u64);
            libc::syscall(libc::SYS_execveat, descriptor, empty, words, none, libc::AT_EMPTY_PATH);
            let error = *libc::__errno_location();
            libc::_exit(if error == 0 { 255 } else { error })
        };
    }
    drop(writer);
    let said = sys::read_once(reader.as_raw_fd()).ready("read")?;
    let mut status = 0;
    // SAFETY: `status` lives over the call.
    unsafe { libc::waitpid(child, &mut status, 0) };
    if said.starts_with(b"it runs") {
        Ok("it runs".to_owned())
    } else {
        Err(Stop::from(std::io::Error::from_raw_os_error(libc::WEXITSTATUS(status))))
    }
}

/// Lets an interpreter try; what counts is what it reached.
fn interpreted(program: &str, arguments: &[&str], facts: &Facts, target: &str) -> Tried {
    let output = Command::new(program)
        .args(arguments)
        .env("ESCAPE_KEY", facts.secret_path())
        .env("ESCAPE_TARGET", target)
        .env("ESCAPE_MARK", sys::MARK)
        .env("ESCAPE_PORT", facts.text("tcp_port"))
        .stdin(Stdio::null())
        .output()
        .ready(program)?;
    if String::from_utf8_lossy(&output.stdout).contains(&facts.text("secret")) {
        return Ok("it read the secret".to_owned());
    }
    planted(target)
        .map_err(|_| Stop::Held(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()))
}

pub(crate) fn one_liners(facts: &Facts, tries: &mut Tries) {
    let target = facts.at("repo-j/.git/hooks/post-merge");
    for (program, arguments) in [
        (
            "/bin/sh",
            &[
                "-c",
                "cat \"$ESCAPE_KEY\"; printf '%s' \"$ESCAPE_MARK\" >\"$ESCAPE_TARGET\"; chmod 755 \"$ESCAPE_TARGET\"",
            ][..],
        ),
        (
            "/usr/bin/perl",
            &[
                "-e",
                "open(K,$ENV{ESCAPE_KEY}) and print <K>; open(T,'>',$ENV{ESCAPE_TARGET}) or die $!; print T $ENV{ESCAPE_MARK}",
            ],
        ),
        (
            "python3",
            &[
                "-c",
                "import os,shutil\ne=os.environ\ntry: print(open(e['ESCAPE_KEY']).read())\nexcept OSError as x: pass\nopen('/tmp/p5','w').write(e['ESCAPE_MARK']); shutil.copy('/tmp/p5',e['ESCAPE_TARGET'])",
            ],
        ),
        (
            "node",
            &[
                "-e",
                "const f=require('fs'),e=process.env;try{console.log(f.readFileSync(e.ESCAPE_KEY,'utf8'))}catch{};f.writeFileSync(e.ESCAPE_TARGET,e.ESCAPE_MARK)",
            ],
        ),
        (
            "awk",
            &[
                "BEGIN { while ((getline l < ENVIRON[\"ESCAPE_KEY\"]) > 0) print l; printf \"%s\", ENVIRON[\"ESCAPE_MARK\"] > ENVIRON[\"ESCAPE_TARGET\"] }",
            ],
        ),
        ("cp", &["--", "f5-source", "repo-j/.git/hooks/post-merge"]),
        ("install", &["-m755", "f5-source", "repo-j/.git/hooks/post-merge"]),
        ("dd", &["if=f5-source", "of=repo-j/.git/hooks/post-merge"]),
        ("ln", &["-f", "f5-source", "repo-j/.git/hooks/post-merge"]),
        ("mv", &["-f", "f5-source", "repo-j/.git/hooks/post-merge"]),
        ("sed", &["-i", "s/exit 0/exit 1/", "existing/.yarnrc.yml"]),
    ] {
        tries.attempt(program, || {
            std::env::set_current_dir(facts.text("workspace")).ready("workspace")?;
            let _ = fs::remove_file(&target);
            fs::write("f5-source", sys::MARK).ready("source")?;
            if program == "sed" {
                let before = fs::read("existing/.yarnrc.yml").ready("file")?;
                let status = Command::new(program).args(arguments).stdin(Stdio::null()).output().ready(program)?;
                let after = fs::read("existing/.yarnrc.yml").ready("file")?;
                let said = String::from_utf8_lossy(&status.stderr).trim().to_owned();
                return if before == after { held(said) } else { Ok("changed it".to_owned()) };
            }
            interpreted(program, arguments, facts, &target)
        });
    }
}

pub(crate) fn compound(facts: &Facts, tries: &mut Tries) {
    let target = facts.at("repo-j/.git/hooks/post-checkout");
    for words in [
        "true; printf '%s' \"$ESCAPE_MARK\" >\"$ESCAPE_TARGET\"",
        "true & printf '%s' \"$ESCAPE_MARK\" >\"$ESCAPE_TARGET\"; wait",
        "true && (exec 5>\"$ESCAPE_TARGET\"; printf '%s' \"$ESCAPE_MARK\" >&5)",
        "printf '%s' \"$ESCAPE_MARK\" | tee \"$ESCAPE_TARGET\" >/dev/null",
        "printf '%s' \"$ESCAPE_MARK\" > >(cat >\"$ESCAPE_TARGET\"); sleep 0.2",
        "export BASH_ENV=\"$ESCAPE_KEY\"; bash -c true; cat \"$BASH_ENV\"",
        "eval \"cat \\\"\\$ESCAPE_KEY\\\"\"",
        "nohup setsid sh -c 'printf \"%s\" \"$ESCAPE_MARK\" >\"$ESCAPE_TARGET\"' >/dev/null 2>&1; sleep 0.2",
        "cat <\"$ESCAPE_KEY\"",
    ] {
        tries.attempt(words, || {
            let _ = fs::remove_file(&target);
            interpreted("bash", &["-c", words], facts, &target)
        });
    }
}

pub(crate) fn replaced(facts: &Facts, tries: &mut Tries) {
    let _ = facts;
    for program in ["/usr/bin/true", "/bin/sh", "/usr/bin/git", "/usr/local/bin/git", "/usr/bin/creel-escape"] {
        tries.attempt(&format!("{program} for writing"), || {
            sys::open(program, libc::O_WRONLY, 0).map_err(Stop::from).map(|_| "opened".to_owned())
        });
        tries.attempt(&format!("something in place of {program}"), || {
            fs::write("/tmp/p20", sys::MARK).ready("source")?;
            sys::rename("/tmp/p20", program, 0)?;
            Ok("replaced".to_owned())
        });
    }
    tries.attempt("a program beside them", || plant("/usr/local/bin/p20-new"));
}

/// The program is away from the disk while it runs; it is still held, and the record still names it.
pub(crate) fn unlinked(facts: &Facts, tries: &mut Tries) {
    tries.attempt("a program that is gone plants a hook", || {
        let copy = facts.at("p21-program");
        fs::copy("/proc/self/exe", &copy).ready("copy")?;
        let target = facts.at("repo-j/.git/hooks/p21-hook");
        // The shell takes the file away while its copy waits for the word.
        let script = format!("'{copy}' probe plant '{target}'");
        let file = sys::open(&copy, libc::O_RDONLY, 0).ready("open")?;
        let mut command = Command::new(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        fs::remove_file(&copy).ready("remove")?;
        let status = command.args(["probe", "plant", &target]).stdin(Stdio::null()).status().ready(&script)?;
        if status.success() { planted(&target) } else { held("it could not") }
    });
}
