//! Ordinary work inside: a version control's look, builds, many small files, a large tree. Made up here, without network.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cage::{Inner, in_turns, syscalls};
use crate::figures::{self, At};
use crate::{Failure, machine};

/// Files of the repository, of the tree, and of one turn of creating.
const REPOSITORY_FILES: usize = 200;
const TREE_FILES: usize = 20_000;
const CREATED_FILES: usize = 1_000;
/// Sources of the build; packages of the installation, and files of each.
const SOURCES: usize = 24;
const PACKAGES: usize = 40;
const PACKAGE_FILES: usize = 50;

/// One piece of work and its goal.
struct Task {
    name: &'static str,
    /// Starts of each candidate.
    rounds: usize,
    /// How often in one start, and what.
    words: Vec<String>,
    ratio_max: f64,
}

/// Measures one part.
pub(crate) fn measure(inner: &mut Inner, part: &str) -> Result<(), Failure> {
    let work = inner.work();
    // Where every candidate shows it.
    let helper = work.join("inside");
    if !helper.exists() {
        fs::copy(std::env::current_exe()?, &helper)?;
    }
    let task = match part {
        "git" => git(&work)?,
        "build" => build(&work)?,
        "npm" => npm(&work)?,
        "files" => files(&work)?,
        "tree" => tree(&work)?,
        _ => return Err(format!("no part `{part}`").into()),
    };
    let Some(task) = task else { return Ok(()) };
    let mut words = vec![helper.display().to_string(), "inside".to_owned()];
    words.extend(task.words);
    let rounds = if inner.quick { 2 } else { task.rounds };
    let daemon = machine::cpu_seconds(inner.daemon.pid())?;
    let found = in_turns(inner, rounds, &words)?;
    let daemon = machine::cpu_seconds(inner.daemon.pid())? - daemon;
    figures::heading(&format!("{}, {rounds} rounds in turns", task.name));
    let bare = found.first().and_then(Option::as_ref).ok_or("nothing ran bare")?;
    for (candidate, times) in inner.candidates.iter().zip(&found) {
        let (name, Some(times)) = (candidate.name, times) else { continue };
        figures::figure(&format!("{name}, p50"), times.wall.median() / 1e3, "ms");
        figures::figure(&format!("{name}, its processor time, p50"), times.own_cpu.median() / 1e3, "ms");
        let all = times.all_cpu.median() / 1e3;
        figures::figure(&format!("{name}, processor time of all with the start, p50"), all, "ms");
        if !inner.quick {
            match syscalls(&mut candidate.command(&words)?, &work)? {
                Some(count) => figures::figure(&format!("{name}, system calls with its start"), count as f64, ""),
                None => figures::note(&format!("no strace that can follow {name}: its system calls are not counted")),
            }
        }
        let ratio = times.wall.median_ratio_to(&bare.wall);
        if candidate.is_creel {
            figures::goal(&format!("{name}, ratio to bare, median"), ratio, task.ratio_max, At::Most, "x");
        } else if name != "bare" {
            figures::figure(&format!("{name}, ratio to bare, median"), ratio, "x");
        }
    }
    figures::figure("creeld for one round, processor time", daemon * 1e3 / rounds as f64, "ms");
    Ok(())
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn git(work: &Path) -> Result<Option<Task>, Failure> {
    let repository = work.join("repository");
    for number in 0..REPOSITORY_FILES {
        let folder = repository.join(format!("part-{}", number % 10));
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("file-{number}.txt")), "a line\n".repeat(100))?;
    }
    let at = repository.display().to_string();
    let script =
        "cd \"$1\" && git init -q && git add -A && git -c user.name=b -c user.email=b@localhost commit -qm all";
    if !prepare(Command::new("sh").args(["-c", script, "sh", &at]), "git")? {
        return Ok(None);
    }
    let words = words(&["20", "run", "git", "-C", &at, "status", "--porcelain"]);
    Ok(Some(Task { name: "git status of 200 files, the best of 20", rounds: 20, words, ratio_max: 1.5 }))
}

fn build(work: &Path) -> Result<Option<Task>, Failure> {
    let folder = work.join("c");
    fs::create_dir_all(&folder)?;
    let mut objects = String::new();
    for number in 0..SOURCES {
        let mut text = String::from("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n");
        for function in 0..30 {
            writeln!(
                text,
                "int f_{number}_{function}(const char *t, int n) {{ int s = {function}; for (int i = 0; i < n; i++) \
                 s = s * 31 + t[i % 7]; return s ^ (int)strlen(t); }}"
            )?;
        }
        fs::write(folder.join(format!("s{number}.c")), text)?;
        write!(objects, " s{number}.o")?;
    }
    let rules = format!(
        "lib.a:{objects}\n\tar rcs lib.a{objects}\n%.o: %.c\n\tcc -O1 -c -o $@.tmp $< && mv $@.tmp $@\n\
         clean:\n\trm -f *.o lib.a\n"
    );
    fs::write(folder.join("Makefile"), rules)?;
    let script = format!("cd '{}' && make -s clean && make -s -j2", folder.display());
    if !prepare(Command::new("sh").args(["-c", &script]), "make and a C compiler")? {
        return Ok(None);
    }
    let words = words(&["1", "run", "/bin/sh", "-c", &script]);
    Ok(Some(Task { name: "C build of 24 sources, from clean", rounds: 8, words, ratio_max: 1.3 }))
}

fn npm(work: &Path) -> Result<Option<Task>, Failure> {
    let folder = work.join("js");
    let mut dependencies = serde_json::Map::new();
    for number in 0..PACKAGES {
        let name = format!("package-{number}");
        let package = work.join("packages").join(&name).join("package");
        fs::create_dir_all(package.join("lib"))?;
        fs::write(package.join("package.json"), format!("{{\"name\":\"{name}\",\"version\":\"1.0.0\"}}"))?;
        for file in 0..PACKAGE_FILES {
            fs::write(package.join(format!("lib/m{file}.js")), "exports.f = (a) => a + 1;\n".repeat(20))?;
        }
        dependencies.insert(name.clone(), format!("file:../packages/{name}.tgz").into());
    }
    fs::create_dir_all(&folder)?;
    let manifest = serde_json::json!({ "name": "app", "version": "1.0.0", "dependencies": dependencies });
    fs::write(folder.join("package.json"), manifest.to_string())?;
    let npm = format!("npm --offline --no-audit --no-fund --cache '{}'", work.join(".npm").display());
    let script = format!(
        "cd '{}' && for p in package-*; do tar czf $p.tgz -C $p package && rm -r $p; done && cd '{}' && {npm} install -s",
        work.join("packages").display(),
        folder.display()
    );
    if !prepare(Command::new("sh").args(["-c", &script]), "npm")? {
        return Ok(None);
    }
    let words = words(&["1", "run", "/bin/sh", "-c", &format!("cd '{}' && {npm} ci -s", folder.display())]);
    Ok(Some(Task { name: "npm ci of 40 packages, 2,000 files, from a local cache", rounds: 6, words, ratio_max: 1.3 }))
}

fn files(work: &Path) -> Result<Option<Task>, Failure> {
    let folder = work.join("created");
    fs::create_dir_all(&folder)?;
    let words = words(&["5", "files", &folder.display().to_string(), &CREATED_FILES.to_string()]);
    Ok(Some(Task { name: "create, write, unlink 1,000 files, the best of 5", rounds: 20, words, ratio_max: 2.5 }))
}

fn tree(work: &Path) -> Result<Option<Task>, Failure> {
    let folder = work.join("tree");
    for number in 0..TREE_FILES {
        let place = folder.join(format!("a{}/b{}", number % 20, number / 20 % 20));
        if number < 400 {
            fs::create_dir_all(&place)?;
        }
        fs::write(place.join(format!("f{number}")), "a line of text\n".repeat(1 + number % 40))?;
    }
    let words = words(&["3", "tree", &folder.display().to_string()]);
    Ok(Some(Task { name: "read a tree of 20,000 files, the best of 3", rounds: 15, words, ratio_max: 1.1 }))
}

/// Runs what prepares a part; without its tools the part is left out and that is said.
fn prepare(command: &mut Command, tools: &str) -> Result<bool, Failure> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        figures::note(&format!("{tools} cannot be used here: {}", told.trim()));
    }
    Ok(output.status.success())
}
