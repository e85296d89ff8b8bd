//! Measures how well commands are understood: give a folder of JSONL files (`{"text","shell","label","read_only",
//! "tactics"}` per line). Prints, with 95 % Wilson intervals: texts parsed, malicious texts found per shell, benign
//! read-only texts flagged, and how long the analysis takes.
//!
//! `--misses` lists what was missed or flagged wrongly, for people who mend general rules, never single samples.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a measuring program")]

use std::collections::BTreeMap;
use std::time::Instant;

use creel_inspect::{Place, Shell, guess_shell, suspicion, text_commands};
use creel_model::Verdict;
use serde_json::Value;

#[derive(Default)]
struct Tally {
    all: u64,
    hit: u64,
}

impl Tally {
    fn add(&mut self, hit: bool) {
        self.all += 1;
        self.hit += u64::from(hit);
    }

    /// The share and its 95 % Wilson interval, in percent.
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    fn line(&self) -> String {
        if self.all == 0 {
            return "no texts".to_owned();
        }
        let (n, z) = (self.all as f64, 1.96_f64);
        let p = self.hit as f64 / n;
        let middle = p + z * z / (2.0 * n);
        let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        let scale = 100.0 / (1.0 + z * z / n);
        let (low, high) = ((middle - half) * scale, (middle + half) * scale);
        format!("{:6.2} %  [{low:.2}, {high:.2}]  {} of {}", p * 100.0, self.hit, self.all)
    }
}

fn main() {
    let mut folder = None;
    let mut misses = false;
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--misses" => misses = true,
            "--bench" => {}
            _ => folder = Some(arg),
        }
    }
    let Some(folder) = folder else {
        println!("give a folder of JSONL files to measure");
        speed();
        return;
    };
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let mut files: Vec<_> = match std::fs::read_dir(&folder) {
        Ok(entries) => entries.flatten().map(|e| e.path()).collect(),
        Err(error) => {
            eprintln!("{folder}: {error}");
            return;
        }
    };
    files.sort();
    for path in files.iter().filter(|p| p.extension().is_some_and(|e| e == "jsonl")) {
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        for line in text.lines() {
            if let Ok(row) = serde_json::from_str::<Value>(line) {
                measure(&row, &mut tallies, misses);
            }
        }
    }
    for (name, tally) in &tallies {
        println!("{name:44} {}", tally.line());
    }
    speed();
}

fn measure(row: &Value, tallies: &mut BTreeMap<String, Tally>, misses: bool) {
    let text = row.get("text").and_then(Value::as_str).unwrap_or_default();
    let field = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
    let (shell, label) = (field("shell"), field("label"));
    let variables = BTreeMap::new();
    let place = Place { cwd: "/home/user/project", home: "/home/user", user: "user", variables: &variables };
    let understood = text_commands(text, &place);
    let (verdict, findings) = suspicion(&understood);
    let mut add = |name: &str, hit: bool| tallies.entry(name.to_owned()).or_default().add(hit);
    let posix = matches!(shell, "bash" | "sh");
    add(&format!("parsed, {}", if posix { "POSIX" } else { "Windows" }), understood.parsed);
    let flagged = matches!(verdict, Verdict::Ask | Verdict::Deny);
    let classed = findings.iter().any(|f| f.severity >= creel_model::Severity::Medium);
    let miss = |wrong: bool, what: &str| {
        if wrong && misses {
            println!(
                "{what}\t{shell}\t{}\t{:?}\t{}",
                field("technique"),
                findings.iter().map(|f| (&f.code, &f.evidence)).collect::<Vec<_>>(),
                text.replace('\n', "⏎")
            );
        }
    };
    if posix && !understood.parsed {
        miss(true, "UNPARSED");
    }
    if label == "malicious" {
        let tactics = row.get("tactics").and_then(Value::as_array).cloned().unwrap_or_default();
        let only_discovery = !tactics.is_empty() && tactics.iter().all(|t| t == "discovery");
        add(&format!("guessed right, {shell}"), posix == (guess_shell(text) == Shell::Posix));
        if only_discovery {
            add(&format!("malicious, discovery only, flagged, {shell}"), flagged);
        } else {
            add(&format!("malicious, flagged, {shell}"), flagged);
            add(&format!("malicious, with a class, {shell}"), classed);
            miss(!classed, if flagged { "OPAQUE" } else { "MISSED" });
        }
    } else if row.get("read_only").and_then(Value::as_bool) == Some(true) {
        add(&format!("benign read-only, flagged, {}", if posix { "POSIX" } else { "Windows" }), flagged);
        miss(flagged, "FALSE");
    } else {
        add("benign, may change something, flagged", flagged);
        add("benign, may change something, denied", verdict == Verdict::Deny);
        miss(verdict == Verdict::Deny && posix, "BENIGN-DENIED");
    }
}

/// Commands of everyday work, for timing.
const ORDINARY: &[&str] = &[
    "git -C /home/user/project log --oneline | grep -v 'fix' | head -n 20 > /tmp/out-1.txt && cargo test",
    "cd src && for f in *.rs; do wc -l \"$f\"; done",
    "export RUST_LOG=debug; cargo build --release 2>&1 | tail -n 40",
    "find . -name '*.py' -not -path './venv/*' | xargs grep -n 'import os' | sort | uniq -c",
    "curl -sSf https://example.com/api/v1/items?page=2 -H 'Accept: application/json' | jq '.items[].name'",
    "if [ -f package.json ]; then npm ci && npm test -- --watch=false; fi",
    "sed -i 's/foo/bar/g' src/main.c; diff -u a.txt b.txt || true",
    "docker compose up -d && docker compose logs --tail=50 web",
    "python3 -c 'import json,sys; print(json.load(sys.stdin)[\"version\"])' < package.json",
    "mkdir -p build/out && cp -r assets build/out/ && ls -la build/out",
    "echo \"built $(date +%F) by $USER\" >> build/notes.txt",
    "cat <<'EOF' > config.yml\nname: demo\nport: 8080\nEOF",
];

/// Times ordinary text of two sizes, and the parser alone on the same text.
fn speed() {
    let variables = BTreeMap::new();
    let place = Place { cwd: "/home/user/project", home: "/home/user", user: "user", variables: &variables };
    for (name, size) in [("4 KiB", 4096_usize), ("64 KiB", 65536)] {
        let mut text = String::new();
        for (index, line) in ORDINARY.iter().cycle().enumerate() {
            if text.len() + line.len() + 8 > size {
                break;
            }
            text.push_str(&line.replace("build", &format!("b{index}")));
            text.push('\n');
        }
        let commands = creel_inspect::command(&text, Shell::Posix, &place).commands.len();
        time(&format!("{name}, {commands} commands"), || drop(creel_inspect::command(&text, Shell::Posix, &place)));
        time(&format!("{name}, language guessed"), || drop(text_commands(&text, &place)));
        time(&format!("{name}, parser alone"), || {
            drop(brush_parser::Parser::new(text.as_bytes(), &brush_parser::ParserOptions::default()).parse_program());
        });
    }
}

fn time(name: &str, mut what: impl FnMut()) {
    let mut times: Vec<u128> = Vec::new();
    for _ in 0..400 {
        let start = Instant::now();
        what();
        times.push(start.elapsed().as_micros());
    }
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    println!("{name:28} least {} µs  p50 {} µs  p99 {} µs", at(0), at(50), at(99));
}
