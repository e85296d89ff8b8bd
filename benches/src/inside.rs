//! What runs below the mechanism that is measured: does a piece of work so often and prints what each time took.
//!
//! The start of a cage is not in these times. A line of output is `WALL PROCESSOR`, both in microseconds; the processor
//! time is this process's and its children's: what a broker outside does for them is in the first only.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

use crate::Failure;

/// Does it. `words`: how often, then `files DIR COUNT`, `tree DIR` or `run PROGRAM ARGUMENT…`.
pub(crate) fn run(words: &[&str]) -> Result<(), Failure> {
    let [times, what @ ..] = words else { return Err("not for people".into()) };
    let mut out = std::io::stdout().lock();
    for _ in 0..times.parse::<usize>()? {
        let cpu = cpu_us()?;
        let began = Instant::now();
        match what {
            ["files", folder, count] => files(Path::new(folder), count.parse()?)?,
            ["tree", folder] => drop(tree(Path::new(folder))?),
            ["run", program, arguments @ ..] => command(program, arguments)?,
            _ => return Err("not for people".into()),
        }
        let took = began.elapsed();
        writeln!(out, "{} {}", took.as_micros(), cpu_us()? - cpu)?;
    }
    Ok(())
}

/// Creates, writes and removes files, as a build does with its temporary ones.
fn files(folder: &Path, count: usize) -> Result<(), Failure> {
    for number in 0..count {
        let path = folder.join(format!("file-{number}"));
        File::create(&path)?.write_all(b"a line of text in a small file\n")?;
        fs::remove_file(&path)?;
    }
    Ok(())
}

/// Reads every file below a folder; how many bytes they have.
fn tree(folder: &Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    let mut buffer = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            bytes += tree(&entry.path())?;
        } else {
            buffer.clear();
            bytes += File::open(entry.path())?.read_to_end(&mut buffer)? as u64;
        }
    }
    Ok(bytes)
}

fn command(program: &str, arguments: &[&str]) -> Result<(), Failure> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    Err(format!("{program} {arguments:?}: {}: {told}", output.status).into())
}

fn cpu_us() -> Result<i64, Failure> {
    let of = |who| -> Result<i64, Failure> {
        let usage = getrusage(who)?;
        Ok(usage.user_time().num_microseconds() + usage.system_time().num_microseconds())
    };
    Ok(of(UsageWho::RUSAGE_SELF)? + of(UsageWho::RUSAGE_CHILDREN)?)
}
