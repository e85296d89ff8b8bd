//! Drives every parser of bytes from outside with seeds and mutations of them, for a while, on the stable toolchain.
//!
//! Turns a random seed into a sequence of inputs per target and looks for panics and hangs, and for promises that do
//! not hold (each target says which). It is not guided by coverage: seeds and dictionaries carry the structure.
//! A newcomer gets wrong: without `--seed` the sequence is always the same, so that a landing does not fail by dice;
//! `--seed time` explores.

mod cage;
mod journal;
mod mutate;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mutate::Random;

/// How long one input may take before it counts as a hang. Inputs are small; this is a hundred times what they need.
const INPUT_SECONDS_MAX: u64 = 20;

struct Options {
    seconds: u64,
    seed: u64,
    only: Option<String>,
    input: Option<String>,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!(
                "creel-fuzz: {error}\nusage: creel-fuzz [--seconds N] [--seed N|time] [--target NAME] [--input FILE]"
            );
            return ExitCode::from(2);
        }
    };
    // The panic's own words come with the report of the failing input, once.
    let message = Arc::new(Mutex::new(String::new()));
    let theirs = Arc::clone(&message);
    std::panic::set_hook(Box::new(move |panic| {
        *theirs.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string();
    }));
    let mut good = true;
    for target in targets::all() {
        if options.only.as_deref().is_some_and(|only| only != target.name) {
            continue;
        }
        good &= drive(&target, &options, &message);
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options() -> Result<Options, String> {
    let mut options = Options { seconds: 2, seed: 0x0c7e_e100, only: None, input: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("`{name}` needs a value"))?;
        match name.as_str() {
            "--seconds" => options.seconds = value.parse().map_err(|_| format!("not a number: `{value}`"))?,
            "--seed" if value == "time" => {
                options.seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
            }
            "--seed" => options.seed = value.parse().map_err(|_| format!("not a number: `{value}`"))?,
            "--target" => options.only = Some(value),
            "--input" => options.input = Some(value),
            _ => return Err(format!("unknown argument `{name}`")),
        }
    }
    Ok(options)
}

fn drive(target: &targets::Target, options: &Options, message: &Mutex<String>) -> bool {
    if let Some(file) = &options.input {
        match std::fs::read(file) {
            Ok(input) => (target.run)(&input),
            Err(error) => eprintln!("{file}: {error}"),
        }
        println!("ok {} one input", target.name);
        return true;
    }
    let seeds = (target.seeds)();
    let mut random = Random::new(options.seed ^ u64::from(target.name.len() as u32));
    let watch = Watch::start(target.name);
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let mut runs = 0_u64;
    loop {
        // Each seed as it is first, then mutations of one or two of them.
        let input = match seeds.get(usize::try_from(runs).unwrap_or(usize::MAX)) {
            Some(seed) => seed.clone(),
            None if Instant::now() >= end => break,
            None => mutate::mutate(&seeds, target.words, &mut random),
        };
        watch.begin(&input);
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
        watch.end();
        runs += 1;
        if outcome.is_err() {
            let said = message.lock().unwrap_or_else(PoisonError::into_inner).clone();
            report(target.name, options.seed, runs, &input, &said);
            return false;
        }
    }
    println!("ok {} {runs} inputs, seed {}", target.name, options.seed);
    true
}

fn report(name: &str, seed: u64, run: u64, input: &[u8], said: &str) {
    let file = std::env::temp_dir().join(format!("creel-fuzz-{name}-{}", std::process::id()));
    let kept = std::fs::write(&file, input).map_or_else(|error| error.to_string(), |()| file.display().to_string());
    println!(
        "FAILED {name}: seed {seed}, input {run}, {} bytes kept in {kept}: {}\n  {said}",
        input.len(),
        String::from_utf8_lossy(input).chars().take(400).collect::<String>().escape_debug()
    );
}

/// Notices an input that does not come to an end, and ends the program with its name.
struct Watch {
    /// Milliseconds since `start` at which the input in progress began; 0 when none is.
    began_ms: Arc<AtomicU64>,
    input: Arc<Mutex<Vec<u8>>>,
    start: Instant,
}

impl Watch {
    fn start(name: &'static str) -> Self {
        let watch = Self {
            began_ms: Arc::new(AtomicU64::new(0)),
            input: Arc::new(Mutex::new(Vec::new())),
            start: Instant::now(),
        };
        let (began_ms, input, start) = (Arc::clone(&watch.began_ms), Arc::clone(&watch.input), watch.start);
        std::thread::spawn(move || {
            while Arc::strong_count(&began_ms) > 1 {
                std::thread::sleep(Duration::from_millis(500));
                let began = began_ms.load(Ordering::SeqCst);
                let now = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                if began != 0 && now.saturating_sub(began) > INPUT_SECONDS_MAX * 1000 {
                    let input = input.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    report(name, 0, 0, &input, "one input took longer than it may");
                    std::process::exit(1);
                }
            }
        });
        watch
    }

    fn begin(&self, input: &[u8]) {
        let mut kept = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        kept.clear();
        kept.extend_from_slice(input);
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.began_ms.store(now.max(1), Ordering::SeqCst);
    }

    fn end(&self) {
        self.began_ms.store(0, Ordering::SeqCst);
    }
}
