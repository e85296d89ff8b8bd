//! Files that another program executes or obeys: planted, replaced, linked, spelled otherwise, raced (F8–F10, F14, F16–F17, F20–F24, F26).
//!
//! The names are those of the starter bundle's zones. `existing/` holds some of them from before the cage began.

use std::fs;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::attempt::{Ready, Stop, Tried, Tries, held};
use crate::facts::Facts;
use crate::files::{last, ordinary, ordinary_folder, plant, plant_deep, planted};
use crate::sys::{self, MARK};

/// How long a race is tried.
const RACE_SECONDS: u64 = 2;

/// Renames onto a target and looks.
fn onto(facts: &Facts, source: &str, target: &str, flags: u32) -> Tried {
    let source = facts.at(source);
    ordinary(&source)?;
    sys::rename(&source, &facts.at(target), flags)?;
    planted(&facts.at(target))
}

pub(crate) fn renamed_onto(facts: &Facts, tries: &mut Tries) {
    tries.attempt("onto a new hook", || onto(facts, "f8-a", "repo-g/.git/hooks/pre-commit", 0));
    tries.attempt("onto an existing hook", || onto(facts, "f8-b", "repo-g/.git/hooks/present", 0));
    tries.attempt("onto .git/config", || onto(facts, "f8-c", "repo-g/.git/config", 0));
    tries.attempt("onto an existing sealed file", || onto(facts, "f8-d", "existing/.mcp.json", 0));
    tries.attempt("onto a sealed name that is free", || onto(facts, "f8-e", "plain/.envrc", 0));
    tries.attempt("exchanged with a sealed file", || onto(facts, "f8-f", "existing/.envrc", libc::RENAME_EXCHANGE));
    tries.attempt("onto a free name, without replacing", || {
        onto(facts, "f8-g", "plain/.gdbinit", libc::RENAME_NOREPLACE)
    });
    tries.attempt("a folder onto a sealed name", || {
        ordinary_folder(&facts.at("f8-folder"))?;
        ordinary(&facts.at("f8-folder/tasks.json"))?;
        sys::rename(&facts.at("f8-folder"), &facts.at("plain/.vscode"), 0)?;
        planted(&facts.at("plain/.vscode/tasks.json"))
    });
    tries.attempt("from a temporary folder", || {
        ordinary("/tmp/f8-h")?;
        match sys::rename("/tmp/f8-h", &facts.at("plain/.envrc"), 0) {
            // Another mount: programs copy then, and so do we.
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => plant(&facts.at("plain/.envrc")),
            other => other.map_err(Stop::from).and_then(|()| planted(&facts.at("plain/.envrc"))),
        }
    });
}

fn hard_link(from: &str, to: &str) -> Result<(), Stop> {
    fs::hard_link(from, to).map_err(Stop::from)
}

pub(crate) fn linked(facts: &Facts, tries: &mut Tries) {
    let source = facts.at("f9-source");
    tries.attempt("a hard link as a hook", || {
        ordinary(&source)?;
        hard_link(&source, &facts.at("repo-h/.git/hooks/pre-commit"))?;
        planted(&facts.at("repo-h/.git/hooks/pre-commit"))
    });
    tries.attempt("a hard link under a sealed name", || {
        ordinary(&source)?;
        hard_link(&source, &facts.at("plain/.npmrc"))?;
        planted(&facts.at("plain/.npmrc"))
    });
    for (what, sealed) in [
        ("a sealed file", "existing/.mcp.json"),
        ("an existing hook", "repo-h/.git/hooks/present"),
        ("the configuration", "repo-h/.git/config"),
    ] {
        tries.attempt(&format!("a second name for {what}, then written"), || {
            let alias = facts.at("f9-alias");
            let _ = fs::remove_file(&alias);
            hard_link(&facts.at(sealed), &alias)?;
            plant(&alias)?;
            planted(&facts.at(sealed))
        });
        tries.attempt(&format!("a link to {what}, written through"), || {
            let alias = facts.at("f9-symlink");
            let _ = fs::remove_file(&alias);
            symlink(facts.at(sealed), &alias).ready("link")?;
            plant(&alias)?;
            planted(&facts.at(sealed))
        });
    }
    tries.attempt("a link to the hooks folder, written through", || {
        symlink(facts.at("repo-h/.git/hooks"), facts.at("f9-hooks")).ready("link")?;
        plant(&facts.at("f9-hooks/pre-push"))
    });
    tries.attempt("a dangling link to a sealed name, written through", || {
        symlink(facts.at("plain/.mcp.json"), facts.at("f9-dangling")).ready("link")?;
        plant(&facts.at("f9-dangling"))?;
        planted(&facts.at("plain/.mcp.json"))
    });
    tries.attempt("a link under a sealed name", || {
        ordinary(&source)?;
        symlink(&source, facts.at("plain/sitecustomize.py"))?;
        planted(&facts.at("plain/sitecustomize.py"))
    });
    tries.attempt("a link as a sealed folder", || {
        ordinary_folder(&facts.at("f9-folder"))?;
        ordinary(&facts.at("f9-folder/pre-push"))?;
        symlink(facts.at("f9-folder"), facts.at("plain/.husky"))?;
        planted(&facts.at("plain/.husky/pre-push"))
    });
}

pub(crate) fn first_agent_settings(facts: &Facts, tries: &mut Tries) {
    for name in [
        ".claude/settings.json",
        ".claude/settings.local.json",
        ".claude/hooks/x.sh",
        ".codex/config.toml",
        ".gemini/settings.json",
        ".cursor/mcp.json",
        ".github/hooks/x.json",
        ".opencode/plugin/x.js",
        ".kiro/settings/mcp.json",
        ".qwen/settings.json",
    ] {
        tries.attempt(name, || plant_deep(&facts.at(&format!("plain/{name}"))));
    }
}

/// Files of a project that another program executes without anybody running them.
const EXECUTED: &[&str] = &[
    ".envrc",
    ".direnv/x",
    ".vscode/tasks.json",
    ".vscode/settings.json",
    ".vscode/launch.json",
    ".mcp.json",
    ".devcontainer/devcontainer.json",
    ".devcontainer.json",
    ".idea/runConfigurations/x.xml",
    ".pre-commit-config.yaml",
    "lefthook.yml",
    ".husky/pre-push",
    ".githooks/pre-commit",
    ".npmrc",
    ".yarnrc.yml",
    ".cargo/config.toml",
    ".mise.toml",
    ".gdbinit",
    "sitecustomize.py",
    "usercustomize.py",
    "evil.code-workspace",
];

pub(crate) fn planted_by_name(facts: &Facts, tries: &mut Tries) {
    for name in EXECUTED {
        tries.attempt(name, || plant_deep(&facts.at(&format!("plain-b/{name}"))));
    }
    for name in [".mcp.json", ".envrc", ".vscode/settings.json", ".husky/present"] {
        tries.attempt(&format!("over {name} that was there"), || plant(&facts.at(&format!("existing/{name}"))));
    }
}

pub(crate) fn spelled_otherwise(facts: &Facts, tries: &mut Tries) {
    for name in [
        ".Envrc",
        ".MCP.json",
        ".mcp.JSON",
        ".VSCode/tasks.json",
        ".Husky/pre-push",
        ".e\u{200c}nvrc",
        ".mcp\u{200d}.json",
        ".mcp.j\u{feff}son",
        ".GIT/hooks/pre-commit",
        ".g\u{200c}it/hooks/pre-commit",
    ] {
        tries.attempt(&name.escape_default().to_string(), || {
            let folder = facts.at("plain-c");
            if let Some((repository, _)) = name.split_once("/hooks/") {
                // A repository of that spelling, as a file system that folds names would see it.
                for part in ["objects", "refs"] {
                    fs::create_dir_all(format!("{folder}/{repository}/{part}"))?;
                }
                fs::write(format!("{folder}/{repository}/HEAD"), "ref: refs/heads/main\n")?;
            }
            plant_deep(&format!("{folder}/{name}"))
        });
    }
}

/// Needs a workspace in which sealed files have second, harmless names from before.
pub(crate) fn second_name(facts: &Facts, tries: &mut Tries) {
    for (alias, sealed) in [("innocent-a.txt", ".mcp.json"), ("innocent-b.txt", ".git/config")] {
        tries.attempt(&format!("write to {alias}, which is {sealed}"), || {
            plant(&facts.at(alias))?;
            planted(&facts.at(sealed))
        });
    }
}

pub(crate) fn made_again(facts: &Facts, tries: &mut Tries) {
    tries.attempt("a sealed file taken away and made again", || {
        fs::remove_file(facts.at("existing/.mcp.json"))?;
        plant(&facts.at("existing/.mcp.json"))
    });
    tries.attempt("a sealed folder taken away and made again", || {
        fs::remove_dir_all(facts.at("existing/.husky"))?;
        plant_deep(&facts.at("existing/.husky/pre-push"))
    });
    // The host replaces both while the cage runs: an editor that saves, git that sets a remote.
    if facts.text("partner") != "1" {
        return;
    }
    tries.attempt("sealed files after the host replaced them", || {
        fs::write(facts.at("f20.ready"), "").ready("word to the host")?;
        let end = Instant::now() + Duration::from_secs(30);
        while fs::metadata(facts.at("f20.go")).is_err() {
            if Instant::now() > end {
                return Err(Stop::Untried("the host did nothing".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut said = Vec::new();
        for name in ["repo-e/.git/config", "existing/.envrc"] {
            let tried = sys::open(&facts.at(name), libc::O_WRONLY | libc::O_APPEND, 0)
                .and_then(|file| sys::write_once(&file, MARK.as_bytes()));
            match tried {
                Ok(()) => return planted(&facts.at(name)),
                Err(error) => said.push(format!("{name}: {}", sys::words(&error))),
            }
        }
        held(said.join(", "))
    });
}

/// Changes a path in memory, or on disk, while the call that uses it is being looked at.
pub(crate) fn changed_while_looked_at(facts: &Facts, tries: &mut Tries) {
    tries.attempt("the path's text", || {
        let folder = facts.at("f21");
        ordinary_folder(&folder)?;
        let sealed = format!("{folder}/.envrc");
        let plain = format!("{folder}/plainx");
        let buffer = Box::leak(sys::path(&plain).into_bytes_with_nul().into_boxed_slice());
        let address = buffer.as_mut_ptr() as usize;
        let at = folder.len() + 1;
        let over = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&over);
        let flipper = std::thread::spawn(move || {
            while !theirs.load(Ordering::Relaxed) {
                for name in [b".envrc", b"plainx"] {
                    for (place, byte) in name.iter().enumerate() {
                        // SAFETY: the buffer is leaked, so it lives; the race is what is tried here.
                        unsafe { std::ptr::write_volatile((address + at + place) as *mut u8, *byte) };
                    }
                }
            }
        });
        let end = Instant::now() + Duration::from_secs(RACE_SECONDS);
        let mut tried = 0_u64;
        let mut made = false;
        while Instant::now() < end && !made {
            let here = libc::AT_FDCWD as u64;
            let flags = (libc::O_WRONLY | libc::O_CREAT | libc::O_CLOEXEC) as u64;
            if let Ok(file) = sys::descriptor(libc::SYS_openat, [here, address as u64, flags, 0o755, 0, 0]) {
                let _ = sys::write_once(&file, MARK.as_bytes());
            }
            tried += 1;
            made = fs::symlink_metadata(&sealed).is_ok();
        }
        over.store(true, Ordering::Relaxed);
        let _ = flipper.join();
        if made { planted(&sealed) } else { held(format!("{tried} calls, none through")) }
    });
    tries.attempt("a folder of the path", || {
        let base = facts.at("f21-folders");
        ordinary_folder(&format!("{base}/plain"))?;
        symlink(facts.at("repo-i/.git/hooks"), format!("{base}/link")).ready("link")?;
        let over = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&over);
        let (one, other) = (format!("{base}/plain"), format!("{base}/link"));
        let flipper = std::thread::spawn(move || {
            while !theirs.load(Ordering::Relaxed) {
                let _ = sys::rename(&one, &other, libc::RENAME_EXCHANGE);
            }
        });
        let end = Instant::now() + Duration::from_secs(RACE_SECONDS);
        let sealed = facts.at("repo-i/.git/hooks/f21");
        let mut tried = 0_u64;
        let mut made = false;
        while Instant::now() < end && !made {
            let _ = plant(&format!("{base}/plain/f21"));
            tried += 1;
            made = fs::symlink_metadata(&sealed).is_ok();
        }
        over.store(true, Ordering::Relaxed);
        let _ = flipper.join();
        if made { planted(&sealed) } else { held(format!("{tried} calls, none through")) }
    });
}

pub(crate) fn other_calls(facts: &Facts, tries: &mut Tries) {
    let hooks = facts.at("repo-j/.git/hooks");
    let make = libc::O_WRONLY | libc::O_CREAT;
    tries.attempt("openat below the hooks folder", || {
        let folder = sys::folder(&hooks).ready("folder")?;
        let file = sys::open_at(folder.as_raw_fd(), "f22-a", make, 0o755)?;
        sys::write_once(&file, MARK.as_bytes())?;
        planted(&format!("{hooks}/f22-a"))
    });
    tries.attempt("openat with a way around", || {
        let folder = sys::folder(&facts.at("repo-j")).ready("folder")?;
        let file = sys::open_at(folder.as_raw_fd(), "./.git//refs/../hooks/./f22-b", make, 0o755)?;
        sys::write_once(&file, MARK.as_bytes())?;
        planted(&format!("{hooks}/f22-b"))
    });
    tries.attempt("from the folder itself", || {
        std::env::set_current_dir(&hooks).ready("folder")?;
        plant("f22-c")
    });
    tries.attempt("creat", || {
        let name = sys::path(&facts.at("plain-d/.envrc"));
        let file = sys::descriptor(libc::SYS_creat, [name.as_ptr() as u64, 0o755, 0, 0, 0, 0])?;
        sys::write_once(&file, MARK.as_bytes())?;
        planted(&facts.at("plain-d/.envrc"))
    });
    tries.attempt("open, the old call", || {
        let name = sys::path(&facts.at("plain-d/.mcp.json"));
        let file = sys::descriptor(libc::SYS_open, [name.as_ptr() as u64, make as u64, 0o755, 0, 0, 0])?;
        sys::write_once(&file, MARK.as_bytes())?;
        planted(&facts.at("plain-d/.mcp.json"))
    });
    for resolve in [0_u64, 0x04, 0x08, 0x10] {
        tries.attempt(&format!("openat2 with resolve {resolve:#x}"), || {
            let how = [make as u64, 0o755, resolve];
            let folder = sys::folder(&facts.at("plain-d")).ready("folder")?;
            let name = sys::path(".gdbinit");
            let arguments = [folder.as_raw_fd() as u64, name.as_ptr() as u64, how.as_ptr() as u64, 24, 0, 0];
            let file = sys::descriptor(libc::SYS_openat2, arguments)?;
            sys::write_once(&file, MARK.as_bytes())?;
            planted(&facts.at("plain-d/.gdbinit"))
        });
    }
    tries.attempt("mknod of an ordinary file", || {
        let name = facts.at("plain-d/.npmrc");
        let raw = sys::path(&name);
        // SAFETY: the name lives over the call.
        sys::done(unsafe { libc::mknod(raw.as_ptr(), libc::S_IFREG | 0o755, 0) })?;
        fs::OpenOptions::new().write(true).open(&name)?.write_all(MARK.as_bytes())?;
        planted(&name)
    });
    tries.attempt("in a folder that may not be listed", || {
        let folder = facts.at("plain-d/dark");
        ordinary_folder(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o300)).ready("mode")?;
        let tried = plant_deep(&format!("{folder}/.envrc"));
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).ready("mode")?;
        tried
    });
    tries.attempt("a name with a line end before it", || {
        ordinary_folder(&facts.at("plain-d/x\n"))?;
        plant(&facts.at("plain-d/x\n/.envrc"))
    });
    tries.attempt("a socket's name", || {
        use std::os::unix::net::UnixListener;
        let _listener = UnixListener::bind(facts.at("plain-d/.yarnrc.yml"))?;
        Ok("bound a socket at a sealed name".to_owned())
    });
}

pub(crate) fn other_writes(facts: &Facts, tries: &mut Tries) {
    let sealed = facts.at("existing/.vscode/settings.json");
    let name = sys::path(&sealed);
    tries.attempt("its mode", || {
        fs::set_permissions(&sealed, fs::Permissions::from_mode(0o777))?;
        Ok("changed".to_owned())
    });
    tries.attempt("its attributes", || {
        let key = sys::path("user.escape");
        // SAFETY: name, key and value live over the call.
        sys::done(unsafe { libc::setxattr(name.as_ptr(), key.as_ptr(), c"x".as_ptr().cast(), 1, 0) })?;
        Ok("set".to_owned())
    });
    writes_to(facts, tries, &sealed);
}

/// Every way to change the content of a sealed file that is there.
pub(crate) fn writes_to(facts: &Facts, tries: &mut Tries, sealed: &str) {
    let name = sys::path(sealed);
    let writing = |flags: i32| sys::open(sealed, libc::O_WRONLY | flags, 0);
    tries.attempt("open for writing", || writing(0).map_err(Stop::from).map(|_| "opened".to_owned()));
    tries.attempt("open for both", || {
        sys::open(sealed, libc::O_RDWR, 0).map_err(Stop::from).map(|_| "opened".to_owned())
    });
    tries.attempt("open for reading, cut", || {
        sys::open(sealed, libc::O_TRUNC, 0).map_err(Stop::from).map(|_| "cut".to_owned())
    });
    tries.attempt("truncate", || {
        // SAFETY: the name lives over the call.
        sys::done(unsafe { libc::truncate(name.as_ptr(), 3) })?;
        Ok("cut".to_owned())
    });
    tries.attempt("fallocate", || {
        let file = writing(0)?;
        // SAFETY: plain numbers.
        sys::done(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, 4096) })?;
        Ok("grown".to_owned())
    });
    tries.attempt("copy_file_range", || {
        ordinary(&facts.at("f23-source"))?;
        let source = sys::open(&facts.at("f23-source"), libc::O_RDONLY, 0).ready("source")?;
        let target = writing(0)?;
        let number = libc::SYS_copy_file_range;
        sys::call(number, [source.as_raw_fd() as u64, 0, target.as_raw_fd() as u64, 0, 10, 0])?;
        Ok("copied into it".to_owned())
    });
    tries.attempt("a shared map", || {
        let file = sys::open(sealed, libc::O_RDWR, 0)?;
        // SAFETY: a new map of our own; nothing else is there.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if map == libc::MAP_FAILED { Err(last()) } else { Ok("mapped for writing".to_owned()) }
    });
    for (what, way) in [("by its descriptor", 0), ("by the process folder", 1)] {
        tries.attempt(&format!("a file without a name, named {what}"), || {
            let folder = facts.at("plain-e");
            let target = format!("{folder}/{}", if way == 0 { ".envrc" } else { ".npmrc" });
            let file = sys::open(&folder, libc::O_TMPFILE | libc::O_WRONLY, 0o755).ready("O_TMPFILE")?;
            sys::write_once(&file, MARK.as_bytes()).ready("write")?;
            let to = sys::path(&target);
            let here = libc::AT_FDCWD;
            // SAFETY: both names live over the call.
            let linked = unsafe {
                if way == 0 {
                    libc::linkat(file.as_raw_fd(), c"".as_ptr(), here, to.as_ptr(), libc::AT_EMPTY_PATH)
                } else {
                    let from = sys::path(&format!("/proc/self/fd/{}", file.as_raw_fd()));
                    libc::linkat(here, from.as_ptr(), here, to.as_ptr(), libc::AT_SYMLINK_FOLLOW)
                }
            };
            sys::done(linked)?;
            planted(&target)
        });
    }
    tries.attempt("opened by handle", || {
        // The handle of the file, as any program may ask for it, and then opened past all names.
        let mut handle = [0_u64; 20];
        handle[0] = 128;
        let mut mount = 0_i32;
        let here = libc::AT_FDCWD as u64;
        let arguments = [here, name.as_ptr() as u64, handle.as_mut_ptr() as u64, (&raw mut mount) as u64, 0, 0];
        sys::call(libc::SYS_name_to_handle_at, arguments)?;
        let folder = sys::open(&facts.text("workspace"), libc::O_RDONLY | libc::O_DIRECTORY, 0).ready("folder")?;
        let flags = libc::O_WRONLY as u64;
        sys::descriptor(
            libc::SYS_open_by_handle_at,
            [folder.as_raw_fd() as u64, handle.as_mut_ptr() as u64, flags, 0, 0, 0],
        )?;
        Ok("opened for writing".to_owned())
    });
    tries.attempt("a descriptor for reading, opened again for writing", || {
        let file = sys::open(sealed, libc::O_RDONLY, 0).ready("open for reading")?;
        sys::open(&format!("/proc/self/fd/{}", file.as_raw_fd()), libc::O_WRONLY, 0)?;
        Ok("opened".to_owned())
    });
    tries.attempt("a name-only descriptor, opened again for writing", || {
        let file = sys::open(sealed, libc::O_PATH, 0).ready("open")?;
        sys::open(&format!("/proc/self/fd/{}", file.as_raw_fd()), libc::O_WRONLY, 0)?;
        Ok("opened".to_owned())
    });
}

pub(crate) fn after_launch(facts: &Facts, tries: &mut Tries) {
    for name in
        ["new/deep/down/.envrc", "new/.vscode/tasks.json", "new/x/evil.code-workspace", "new/.claude/settings.x.json"]
    {
        tries.attempt(name, || plant_deep(&facts.at(name)));
    }
    tries.attempt("a folder that becomes a sealed one by a rename of its parent", || {
        ordinary_folder(&facts.at("new/y/hooks"))?;
        ordinary(&facts.at("new/y/hooks/x.json"))?;
        sys::rename(&facts.at("new/y"), &facts.at("new/.github"), 0)?;
        planted(&facts.at("new/.github/hooks/x.json"))
    });
    tries.attempt("into a sealed folder made a moment ago, by an old descriptor", || {
        ordinary_folder(&facts.at("new/z"))?;
        let parent = sys::folder(&facts.at("new/z")).ready("folder")?;
        fs::create_dir(facts.at("new/z/.husky"))?;
        let folder = sys::open_at(parent.as_raw_fd(), ".husky", libc::O_PATH | libc::O_DIRECTORY, 0)?;
        let file = sys::open_at(folder.as_raw_fd(), "pre-push", libc::O_WRONLY | libc::O_CREAT, 0o755)?;
        sys::write_once(&file, MARK.as_bytes())?;
        planted(&facts.at("new/z/.husky/pre-push"))
    });
    tries.attempt("many threads make and fill sealed folders at once", || {
        ordinary_folder(&facts.at("new/many"))?;
        let workers: Vec<_> = (0..8)
            .map(|worker| {
                let base = facts.at(&format!("new/many/{worker}"));
                std::thread::spawn(move || {
                    let _ = fs::create_dir(&base);
                    for round in 0..20 {
                        let folder = format!("{base}/{round}/.husky");
                        let _ = fs::create_dir_all(&folder);
                        if plant(&format!("{folder}/pre-push")).is_ok() {
                            return Some(folder);
                        }
                    }
                    None
                })
            })
            .collect();
        let through: Vec<String> = workers.into_iter().filter_map(|worker| worker.join().ok().flatten()).collect();
        through.first().map_or_else(|| held("160 folders, none filled"), |folder| Ok(format!("filled {folder}")))
    });
}

/// Paths that whoever judges them cannot resolve: the answer has to be no.
pub(crate) fn unresolvable(facts: &Facts, tries: &mut Tries) {
    tries.attempt("a sealed name in a folder whose path is too long to be named", || {
        std::env::set_current_dir(facts.at("plain-e")).ready("folder")?;
        let part = "d".repeat(200);
        for _ in 0..25 {
            fs::create_dir(&part)
                .or_else(|error| if error.raw_os_error() == Some(libc::EEXIST) { Ok(()) } else { Err(error) })?;
            std::env::set_current_dir(&part)?;
        }
        plant(".envrc")
    });
    tries.attempt("a path that ends where memory ends", || {
        // SAFETY: two new pages of our own, of which the second is taken away again.
        let page = unsafe {
            let map = libc::mmap(
                std::ptr::null_mut(),
                8192,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            if map == libc::MAP_FAILED {
                return Err(last());
            }
            libc::munmap(map.cast::<u8>().add(4096).cast(), 4096);
            map.cast::<u8>()
        };
        let name = facts.at("plain-e/.mcp.json").into_bytes();
        // SAFETY: the name with its end fits exactly before the page's end.
        let start = unsafe {
            let start = page.add(4096 - name.len() - 1);
            std::ptr::copy_nonoverlapping(name.as_ptr(), start, name.len());
            *start.add(name.len()) = 0;
            start
        };
        let flags = (libc::O_WRONLY | libc::O_CREAT) as u64;
        let file = sys::descriptor(libc::SYS_openat, [libc::AT_FDCWD as u64, start as u64, flags, 0o755, 0, 0])?;
        sys::write_once(&file, MARK.as_bytes())?;
        planted(&facts.at("plain-e/.mcp.json"))
    });
    tries.attempt("a sealed name through forty links", || plant(&facts.at("loops/l39/.envrc")));
    tries.attempt("from a folder that is gone", || {
        let folder = facts.at("plain-e/gone");
        ordinary_folder(&folder)?;
        std::env::set_current_dir(&folder).ready("folder")?;
        fs::remove_dir(&folder).ready("remove")?;
        plant("../.gdbinit")
    });
    tries.attempt("a name that is no text", || {
        let folder = sys::folder(&facts.at("plain-e")).ready("folder")?;
        let name = c"x\xff/.envrc";
        let parent = c"x\xff";
        // SAFETY: both names live over the calls.
        sys::done(unsafe { libc::mkdirat(folder.as_raw_fd(), parent.as_ptr(), 0o755) }).ready("folder")?;
        let flags = (libc::O_WRONLY | libc::O_CREAT) as u64;
        sys::descriptor(libc::SYS_openat, [folder.as_raw_fd() as u64, name.as_ptr() as u64, flags, 0o755, 0, 0])?;
        Ok("made a sealed name there".to_owned())
    });
}
