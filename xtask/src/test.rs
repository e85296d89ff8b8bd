//! Every check and test, in order, each as a step with a heading and a duration; the last line is the sum.
//!
//! A failing step does not stop the others: one look at the end shows everything that is wrong.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::report::Report;
use crate::suite::{self, Counts, Suite};
use crate::{advisories, commands, place, tidy};

/// How long one unit-test program may take, and one end-to-end program; four times that with `--all`.
const UNIT_SECONDS_MAX: u64 = 240;
const END_TO_END_SECONDS_MAX: u64 = 540;

type StepFn = fn(&Options) -> Result<Counts>;

struct Options {
    all: bool,
    only: Vec<String>,
}

/// The steps, in order of how soon they tell something.
const STEPS: &[(&str, &str, StepFn)] = &[
    ("format", "sources are formatted", format),
    ("clippy", "lints, warnings are errors", clippy),
    ("tidy", "house rules", |_| counted(&tidy::check(false)?)),
    ("advisories", "known faults of dependencies", |_| counted(&advisories::check()?)),
    ("deny", "licences, bans and sources of dependencies", deny),
    ("unit", "unit and integration tests of each crate", unit),
    ("doc", "examples in the documentation", doc),
    ("build", "the programs", |_| build()),
    ("readme", "commands in README.md", |_| counted(&commands::check(&programs())?)),
    ("fuzz", "parsers against mutated input", fuzz),
    ("e2e", "end to end: real programs, real agents", end_to_end),
];

/// Runs the chosen steps and prints the sum.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let options = options(arguments)?;
    let started = Instant::now();
    let mut lines = Vec::new();
    let mut passed = 0;
    let mut failed = 0;
    let mut flaky = Vec::new();
    let mut skipped = Vec::new();
    for (name, what, step) in STEPS {
        if !options.only.is_empty() && !options.only.iter().any(|only| name.starts_with(only.as_str())) {
            continue;
        }
        println!("\n== {name}: {what}");
        let step_started = Instant::now();
        let counts = step(&options)
            .unwrap_or_else(|error| Counts { failed: vec![format!("{name}: {error:#}")], ..Counts::default() });
        for failure in &counts.failed {
            println!("  FAILED: {failure}");
        }
        let seconds = step_started.elapsed().as_secs_f64();
        println!("== {name}: {} passed, {} failed, {seconds:.1} s", counts.passed, counts.failed.len());
        lines.push(format!(
            "  {:<10} {:>5} passed {:>4} failed {seconds:>7.1} s",
            name,
            counts.passed,
            counts.failed.len()
        ));
        passed += counts.passed;
        failed += counts.failed.len();
        lines.extend(counts.failed.iter().map(|failure| format!("             FAILED {failure}")));
        flaky.extend(counts.flaky);
        skipped.extend(counts.skipped);
    }
    println!("\n== summary, {:.0} s", started.elapsed().as_secs_f64());
    for line in lines {
        println!("{line}");
    }
    for what in &skipped {
        println!("  SKIPPED: {what}");
    }
    for what in &flaky {
        println!("  FLAKY, mend it: {what}");
    }
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn options(arguments: &[String]) -> Result<Options> {
    let mut options = Options { all: false, only: Vec::new() };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--all" => options.all = true,
            "--only" => {
                let step = rest.next().context("`--only` needs the name of a step")?;
                ensure!(
                    STEPS.iter().any(|(name, ..)| name.starts_with(step.as_str())),
                    "no such step `{step}`; there are {}",
                    STEPS.iter().map(|(name, ..)| *name).collect::<Vec<_>>().join(", ")
                );
                options.only.push(step.clone());
            }
            other => bail!("unknown argument `{other}`"),
        }
    }
    Ok(options)
}

fn one() -> Counts {
    Counts { passed: 1, ..Counts::default() }
}

fn counted(report: &Report) -> Result<Counts> {
    for remark in &report.remarks {
        println!("  warning: {remark}");
    }
    println!("  {}", report.looked_at);
    Ok(Counts {
        passed: usize::from(report.complaints.is_empty()),
        failed: report.complaints.clone(),
        ..Counts::default()
    })
}

/// Runs a program with our output, and is an error when it fails.
fn must(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(place::root())
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("start `{program}`"))?;
    ensure!(status.success(), "`{program} {}`: {status}", arguments.join(" "));
    Ok(())
}

/// Packages outside the workspace, whose build would burden the daily loop.
fn outside() -> Vec<String> {
    ["fuzz", "benches"]
        .iter()
        .map(|folder| format!("{folder}/Cargo.toml"))
        .filter(|manifest| place::root().join(manifest).exists())
        .collect()
}

fn format(_: &Options) -> Result<Counts> {
    must("cargo", &["fmt", "--all", "--check"], &[])?;
    for manifest in outside() {
        must("cargo", &["fmt", "--manifest-path", &manifest, "--check"], &[])?;
    }
    Ok(one())
}

fn clippy(_: &Options) -> Result<Counts> {
    must("cargo", &["clippy", "-q", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])?;
    for manifest in outside() {
        must("cargo", &["clippy", "-q", "--manifest-path", &manifest, "--all-targets", "--", "-D", "warnings"], &[])?;
    }
    Ok(one())
}

fn deny(_: &Options) -> Result<Counts> {
    let tool = place::cache().join("tools/bin/cargo-deny").to_string_lossy().into_owned();
    let arguments =
        ["--offline", "check", "--hide-inclusion-graph", "--allow", "duplicate", "bans", "licenses", "sources"];
    if must(&tool, &arguments, &[]).is_err() {
        // On a machine that has not fetched every crate of the lock file yet, reading the graph needs the network.
        must("cargo", &["fetch", "-q", "--locked"], &[])?;
        must(&tool, &arguments, &[])?;
    }
    Ok(one())
}

fn longer(options: &Options, seconds: u64) -> Duration {
    Duration::from_secs(if options.all { seconds * 4 } else { seconds })
}

fn environment(options: &Options) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    if options.all {
        environment.insert("CREEL_TEST_ALL".to_owned(), "1".to_owned());
    }
    environment
}

fn unit(options: &Options) -> Result<Counts> {
    Suite {
        choose: ["--workspace", "--exclude", "creel-tests"].map(str::to_owned).to_vec(),
        environment: environment(options),
        deadline: longer(options, UNIT_SECONDS_MAX),
        threads: threads(),
        every_name: false,
    }
    .run()
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, |threads| threads.get().clamp(2, 8))
}

fn doc(_: &Options) -> Result<Counts> {
    let mut command = Command::new("cargo");
    command.args([
        "test",
        "-q",
        "--locked",
        "--workspace",
        "--exclude",
        "creel-tests",
        "--doc",
        "--",
        "--format=pretty",
    ]);
    command.current_dir(place::root());
    let ended = suite::with_deadline(command, Duration::from_secs(UNIT_SECONDS_MAX))?;
    let (passed, mut failed) = suite::count_lines(&ended.output);
    if !ended.good {
        println!("{}", ended.output);
        if failed.is_empty() {
            failed.push(ended.end);
        }
    }
    Ok(Counts { passed, failed, ..Counts::default() })
}

/// The programs that the end-to-end tests drive: the development profile, whose dependencies the unit tests have just
/// built, so that a change is tested in seconds. `./dev build` makes the ones for people.
fn programs() -> PathBuf {
    place::target().join("programs")
}

fn build() -> Result<Counts> {
    must("cargo", &["build", "-q", "--locked", "-p", "creel", "-p", "creel-endpoint", "--bins"], &[])?;
    let host = host()?;
    let hook_target = place::target().join("static");
    // Both start in any environment: the hook in an agent's, the other in a cage.
    must(
        "cargo",
        &[
            "build",
            "-q",
            "--locked",
            "-p",
            "creel-hook",
            "-p",
            "creel-escapes",
            "--target",
            &host,
            "--target-dir",
            &hook_target.to_string_lossy(),
        ],
        &[("RUSTFLAGS", "-C target-feature=+crt-static")],
    )?;
    let folder = programs();
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let still = hook_target.join(&host).join("debug");
    let programs = ["creel", "creeld"].map(|name| place::target().join("debug").join(name));
    for built in programs.into_iter().chain(["creel-hook", "creel-escape"].map(|name| still.join(name))) {
        let Some(name) = built.file_name() else { continue };
        // A new file in place of the old one: a program that still runs keeps its own.
        let to = folder.join(name);
        let beside = folder.join(format!("{}.new", name.to_string_lossy()));
        std::fs::copy(&built, &beside).with_context(|| built.display().to_string())?;
        std::fs::rename(&beside, &to).with_context(|| to.display().to_string())?;
    }
    Ok(one())
}

fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("rustc -vV")?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
        .context("rustc -vV names no host")
}

fn fuzz(options: &Options) -> Result<Counts> {
    let seconds = if options.all { "60" } else { "2" };
    let mut command = Command::new("cargo");
    command.args(["run", "-q", "--manifest-path", "fuzz/Cargo.toml", "--", "--seconds", seconds]);
    command.current_dir(place::root());
    let ended = suite::with_deadline(command, Duration::from_secs(if options.all { 1800 } else { 240 }))?;
    print!("{}", ended.output);
    let passed = ended.output.lines().filter(|line| line.starts_with("ok ")).count();
    let mut failed: Vec<String> =
        ended.output.lines().filter(|line| line.starts_with("FAILED ")).map(str::to_owned).collect();
    if !ended.good && failed.is_empty() {
        failed.push(ended.end);
    }
    Ok(Counts { passed, failed, ..Counts::default() })
}

fn end_to_end(options: &Options) -> Result<Counts> {
    let mut environment = environment(options);
    environment.insert("CREEL_PROGRAMS".to_owned(), programs().to_string_lossy().into_owned());
    environment.insert("CREEL_CACHE".to_owned(), place::cache().to_string_lossy().into_owned());
    let counts = Suite {
        choose: ["-p", "creel-tests"].map(str::to_owned).to_vec(),
        environment,
        deadline: longer(options, END_TO_END_SECONDS_MAX),
        threads: threads(),
        every_name: true,
    }
    .run()?;
    Ok(counts)
}
