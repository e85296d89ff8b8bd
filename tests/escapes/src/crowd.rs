//! Too many, too large, too fast, and whoever watches stopped (P15–P17).

use std::fs;
use std::os::fd::AsRawFd;

use crate::attempt::{Ready, Stop, Tries, held};
use crate::facts::Facts;
use crate::files::{last, ordinary_folder, plant, planted};
use crate::sys;

/// Needs a profile with limits: `limit_*` in the facts. Each attempt goes twice as far as the limit allows.
pub(crate) fn exhausted(facts: &Facts, tries: &mut Tries) {
    tries.attempt("processes", || {
        let limit = facts.number("limit_processes");
        for number in 0..limit * 2 {
            // SAFETY: the child waits for the end of its group.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: as above.
                unsafe {
                    libc::pause();
                    libc::_exit(0)
                };
            }
            if child < 0 {
                return held(format!("after {number}: {}", sys::words(&std::io::Error::last_os_error())));
            }
        }
        Ok(format!("{} processes", limit * 2))
    });
    tries.attempt("memory", || {
        let limit = facts.number("limit_memory");
        let mut taken = 0;
        while taken < limit * 2 {
            let piece = 16 << 20;
            // SAFETY: new memory of our own, touched within its length.
            unsafe {
                let map = libc::mmap(
                    std::ptr::null_mut(),
                    piece,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                );
                if map == libc::MAP_FAILED {
                    return held(format!(
                        "after {} MiB: {}",
                        taken >> 20,
                        sys::words(&std::io::Error::last_os_error())
                    ));
                }
                for page in (0..piece).step_by(4096) {
                    map.cast::<u8>().add(page).write_volatile(1);
                }
            }
            taken += piece as u64;
        }
        Ok(format!("{} MiB", taken >> 20))
    });
    tries.attempt("open files", || {
        let limit = facts.number("limit_open_files");
        let mut held_open = Vec::new();
        for number in 0..limit * 2 {
            match sys::open("/dev/null", libc::O_RDONLY, 0) {
                Ok(file) => held_open.push(file),
                Err(error) => return held(format!("after {number}: {}", sys::words(&error))),
            }
        }
        Ok(format!("{} open", held_open.len()))
    });
    for (what, path, limit) in [
        ("a long file", facts.at("p15-file"), facts.number("limit_file")),
        ("the temporary folder", "/tmp/p15-fill".to_owned(), facts.number("limit_temporary")),
        ("shared memory", "/dev/shm/p15-fill".to_owned(), facts.number("limit_temporary")),
        ("the home folder", format!("{}/p15-fill", facts.text("home")), facts.number("limit_temporary")),
    ] {
        tries.attempt(what, || {
            // SAFETY: a plain number; a write beyond a limit is to fail and not to end us.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            let mut written = 0;
            let chunk = vec![1_u8; 1 << 20];
            let mut part = 0;
            // Several files, so that it is the folder's limit that is met and not one file's.
            while written < limit * 2 {
                let name = if what == "a long file" { path.clone() } else { format!("{path}-{part}") };
                let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND;
                let file = sys::open(&name, flags, 0o644)
                    .map_err(|error| Stop::Held(format!("after {} MiB: {}", written >> 20, sys::words(&error))))?;
                for _ in 0..8 {
                    if let Err(error) = sys::write_once(&file, &chunk) {
                        drop(file);
                        for number in 0..=part {
                            let _ = fs::remove_file(format!("{path}-{number}"));
                        }
                        let _ = fs::remove_file(&path);
                        return held(format!("after {} MiB: {}", written >> 20, sys::words(&error)));
                    }
                    written += 1 << 20;
                }
                part += 1;
            }
            Ok(format!("{} MiB", written >> 20))
        });
    }
}

/// Ends or halts everybody that can be signalled and then tries what is forbidden. Last of all cases: it may end the cage.
pub(crate) fn supervisor_stopped(facts: &Facts, tries: &mut Tries) {
    let target = facts.at("repo-j/.git/hooks/p16");
    tries.attempt("the first process ended", || {
        // SAFETY: plain numbers.
        sys::done(unsafe { libc::kill(1, libc::SIGKILL) })?;
        std::thread::sleep(std::time::Duration::from_millis(100));
        plant(&target)
    });
    tries.attempt("a full queue of calls that are being looked at", || {
        let folder = facts.at("p16-queue");
        ordinary_folder(&folder)?;
        let workers: Vec<_> = (0..64)
            .map(|worker| {
                let folder = folder.clone();
                std::thread::spawn(move || {
                    for round in 0..50 {
                        let _ = fs::create_dir(format!("{folder}/{worker}-{round}"));
                    }
                })
            })
            .collect();
        let mut made = false;
        for _ in 0..200 {
            made |= plant(&target).is_ok();
        }
        for worker in workers {
            let _ = worker.join();
        }
        if made { planted(&target) } else { held("200 calls, none through") }
    });
    tries.attempt("every other process in sight halted", || {
        // SAFETY: no arguments.
        let (own, parent) = unsafe { (libc::getpid(), libc::getppid()) };
        let mut halted = Vec::new();
        for entry in fs::read_dir("/proc").ready("/proc")?.flatten() {
            let Ok(id) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            // SAFETY: plain numbers.
            if id != own && id != parent && id != 1 && unsafe { libc::kill(id, libc::SIGSTOP) } == 0 {
                halted.push(id);
            }
        }
        // The call may wait for one that is halted: a child tries, and is not waited for longer than this.
        // SAFETY: the child tries once and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let code = i32::from(plant(&target).is_err());
            // SAFETY: as above.
            unsafe { libc::_exit(code) };
        }
        let mut status = -1;
        for _ in 0..100 {
            // SAFETY: `status` lives over the call.
            if unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == child {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        for id in &halted {
            // SAFETY: plain numbers.
            unsafe { libc::kill(*id, libc::SIGCONT) };
        }
        if planted(&target).is_ok() {
            Ok("planted".to_owned())
        } else {
            held(format!("{} halted, the call got no yes", halted.len()))
        }
    });
}

/// Callers that end between their question and its answer; nobody else may get what they asked for.
pub(crate) fn callers_that_die(facts: &Facts, tries: &mut Tries) {
    tries.attempt("two hundred callers that are ended at once", || {
        let folder = facts.at("p17");
        ordinary_folder(&folder)?;
        let before = fs::read_dir("/proc/self/fd").ready("fd")?.count();
        for round in 0..200 {
            // SAFETY: the child makes files until it is ended.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let mut number = 0;
                loop {
                    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
                    if let Ok(file) = sys::open(&format!("{folder}/{round}-{number}"), flags, 0o644) {
                        let _ = sys::write_once(&file, b"x");
                    }
                    number += 1;
                }
            }
            if child < 0 {
                return Err(last());
            }
            for _ in 0..round {
                std::hint::spin_loop();
            }
            let mut status = 0;
            // SAFETY: our own child.
            unsafe {
                libc::kill(child, libc::SIGKILL);
                libc::waitpid(child, &mut status, 0);
            }
        }
        let after = fs::read_dir("/proc/self/fd").ready("fd")?.count();
        if after != before {
            return Ok(format!("{after} descriptors, {before} before"));
        }
        plant(&facts.at("repo-j/.git/hooks/p17"))
    });
    tries.attempt("a descriptor of somebody else", || {
        // Whoever gets an injected descriptor gets its own file: each thread writes its name and reads it again.
        let folder = facts.at("p17-own");
        ordinary_folder(&folder)?;
        let workers: Vec<_> = (0..16)
            .map(|worker| {
                let folder = folder.clone();
                std::thread::spawn(move || {
                    (0..50).any(|round| {
                        let path = format!("{folder}/{worker}-{round}");
                        let Ok(file) = sys::open(&path, libc::O_RDWR | libc::O_CREAT, 0o644) else { return false };
                        let target = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default();
                        !target.to_string_lossy().ends_with(&format!("/{worker}-{round}"))
                    })
                })
            })
            .collect();
        let crossed = workers.into_iter().filter_map(|worker| worker.join().ok()).any(|crossed| crossed);
        if crossed { Ok("a descriptor was another's".to_owned()) } else { held("each its own") }
    });
}
