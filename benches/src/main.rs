//! Measures the whole programs from outside and compares with the goals; the output is what `docs/benchmarks.md` states.
//!
//! `creel-benches PROGRAMS [--quick] [PART…]`: PROGRAMS is the folder that holds `creel`, `creeld` and `creel-hook`; the
//! parts are `startup`, `hook`, `at-once`, `sustained`, `sizes` and `verify`, all of them if none is named. It starts a
//! daemon of its own in a private folder, with every rule on, plays an agent there, and leaves nothing behind. It ends
//! with 0 whatever the figures are: a missed goal is printed, a measurement that could not be made is an error.
//!
//! `creel-benches cage PROGRAMS [--quick] [--peers DIR] [PART…]` measures `creel run` instead; the parts are `start`,
//! `git`, `build`, `npm`, `files`, `tree` and `idle`. Start it as root, so that it can make an unprivileged account of
//! its own and look at all memory; DIR is where npm installed other programs that confine.
//!
//! The one thing a newcomer gets wrong: the clock on the wall measures the neighbours too. What is compared is always
//! measured in turns, and the median of the ratios is what counts; processor time stands beside it.

mod agent;
mod cage;
mod cage_tasks;
mod calls;
mod decisions;
mod figures;
mod inside;
mod machine;
mod spawned;
mod stage;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What can be measured alone.
const PARTS: [&str; 6] = ["startup", "hook", "at-once", "sustained", "sizes", "verify"];

/// Whatever went wrong; a measurement has one way to fail.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["agent", rest @ ..] => agent::run(rest),
        ["cage-inner", rest @ ..] => cage::inner(rest),
        ["inside", rest @ ..] => inside::run(rest),
        ["cage", programs, rest @ ..] => cage_of(Path::new(programs), rest),
        [programs, "--quick", parts @ ..] => measure(Path::new(programs), true, parts),
        [programs, parts @ ..] => measure(Path::new(programs), false, parts),
        [] => Err("usage: creel-benches [cage] PROGRAMS [--quick] [--peers DIR] [PART…]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("creel-benches: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn cage_of(programs: &Path, words: &[&str]) -> Result<(), Failure> {
    let (mut quick, mut peers, mut parts) = (false, None, Vec::new());
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        match word {
            "--quick" => quick = true,
            "--peers" => peers = Some(PathBuf::from(words.next().ok_or("--peers DIR")?).canonicalize()?),
            part if cage::PARTS.contains(&part) => parts.push(part),
            other => return Err(format!("no part `{other}`; there are {}", cage::PARTS.join(", ")).into()),
        }
    }
    cage::measure(programs, quick, &parts, peers.as_deref())
}

fn measure(programs: &Path, quick: bool, parts: &[&str]) -> Result<(), Failure> {
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(part)) {
        return Err(format!("no part `{unknown}`; there are {}", PARTS.join(", ")).into());
    }
    let parts = if parts.is_empty() { &PARTS } else { parts };
    let programs: PathBuf = programs.canonicalize().map_err(|error| format!("{}: {error}", programs.display()))?;
    println!("{}", machine::describe());
    let mut stage = stage::Stage::start(&programs)?;
    stage.play(&programs, quick, parts)?;
    stage.stop()?;
    if !parts.contains(&"verify") {
        return Ok(());
    }
    figures::heading("the record that this left");
    let (records, seconds) = stage.verify(&programs)?;
    let rate = records as f64 / seconds;
    figures::goal("creel log verify, whole process", rate, 200_000.0, figures::At::Least, "records/s");
    figures::note(&format!("{records} records in {seconds:.2} s"));
    println!("\n{}", machine::load());
    Ok(())
}
