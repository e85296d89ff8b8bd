//! Measures how well secrets are found: give a folder of JSONL files (`{"source","rule","label","text_b64"}` per line)
//! and, for the speed on ordinary text, `--tree` and a folder of sources. Prints, with 95 % Wilson intervals and per
//! source: secrets of provider formats and of other rules found, and clean samples flagged, at medium confidence or
//! more and at any. General rules were mended after reading
//! what the samples miss, so on development data the figures are too good; only unseen data is a measure.
//!
//! `--misses` lists the rules, never the texts, of what was missed or flagged.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a measuring program")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use base64::Engine as _;
use creel_model::{Confidence, ContentRole};
use serde_json::Value;

/// Rules that stand for no provider's format.
const GENERAL: &[&str] = &[
    "generic",
    "curl",
    "privatekey",
    "jwt",
    "privkey",
    "pem",
    "odbc",
    "uri",
    "credentials",
    "weak_password",
    "ftp",
    "postgres",
    "jdbc",
    "mysql",
    "rabbitmq",
    "http",
    "basic",
    "password",
    "netrc",
    "age",
    "ldap",
    "url",
];

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
    let (mut folder, mut tree, mut misses, mut is_tree) = (None, None, false, false);
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--misses" => misses = true,
            "--tree" => is_tree = true,
            "--bench" => {}
            _ if is_tree => tree = Some(arg),
            _ => folder = Some(arg),
        }
    }
    match &folder {
        Some(folder) => samples(Path::new(folder), misses),
        None => println!("give a folder of JSONL files to measure"),
    }
    speed();
    if let Some(tree) = tree {
        sources(Path::new(&tree));
    }
}

fn samples(folder: &Path, misses: bool) {
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let mut files: Vec<_> = match std::fs::read_dir(folder) {
        Ok(entries) => entries.flatten().map(|e| e.path()).collect(),
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            return;
        }
    };
    files.sort();
    for path in files.iter().filter(|p| p.extension().is_some_and(|e| e == "jsonl")) {
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        let source = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for row in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            measure(&row, &source, &mut tallies, misses);
        }
    }
    for (name, tally) in &tallies {
        println!("{name:58} {}", tally.line());
    }
}

fn measure(row: &Value, source: &str, tallies: &mut BTreeMap<String, Tally>, misses: bool) {
    let field = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
    let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(field("text_b64")) else { return };
    let text = String::from_utf8_lossy(&bytes);
    let rule = field("rule");
    let general = rule.split('.').any(|part| GENERAL.contains(&part));
    let findings = creel_inspect::content(&text, ContentRole::Other);
    let sure = findings.iter().any(|f| f.confidence >= Confidence::Medium);
    let any = !findings.is_empty();
    let escaped = serde_json::to_string(&text).unwrap_or_default();
    let again = creel_inspect::content(&escaped, ContentRole::Other);
    let same = again.iter().any(|f| f.confidence >= Confidence::Medium) == sure;
    let what = match (field("label"), general) {
        ("secret", false) => "secret, provider format",
        ("secret", true) => "secret, general",
        _ => "clean",
    };
    for source in [source, "all"] {
        let mut add = |name: String, hit| tallies.entry(name).or_default().add(hit);
        add(format!("{what}, {source}, medium or more"), sure);
        add(format!("{what}, {source}, at any confidence"), any);
        add(format!("same judgement on JSON-escaped text, {source}"), same);
    }
    if misses && (what == "clean") == any {
        let codes: Vec<_> = findings.iter().map(|f| (f.code.as_str(), f.confidence.as_str())).collect();
        println!("{}\t{rule}\t{codes:?}\t{}", if any { "FLAGGED" } else { "MISSED" }, field("id"));
    } else if misses && what != "clean" && !sure {
        println!("DOUBTFUL\t{rule}\t{:?}\t{}", findings.first().map(|f| &f.code), field("id"));
    }
}

/// Times 16 KiB of configuration-like text, and of text made to be hard.
fn speed() {
    let line =
        "MAILGUN_DOMAIN=mg.example.org  # the key is in the vault\nlet token = lexer.next_token(Password::None)?;\n";
    let hard = "sk-sk_live_ghp_password=secret:token key eyJ-----BEGIN https://a:b AKIAaws_secret_key\n";
    for (name, line) in [("16 KiB of code", line), ("16 KiB made to be hard", hard)] {
        let text = line.repeat(16384 / line.len());
        let mut times: Vec<u128> = Vec::new();
        for _ in 0..300 {
            let once = || {
                let start = Instant::now();
                std::hint::black_box(creel_inspect::content(&text, ContentRole::Other));
                start.elapsed().as_micros()
            };
            times.extend((0..3).map(|_| once()).min());
        }
        times.sort_unstable();
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
        println!("{name:24} p50 {} µs  p99 {} µs", at(50), at(99));
    }
}

/// Scans every file below a folder, in pieces of 16 KiB, and prints speed and flags.
fn sources(tree: &Path) {
    let mut folders = vec![tree.to_path_buf()];
    let mut texts: Vec<String> = Vec::new();
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && bytes < 64 << 20 {
                let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
                bytes += text.len();
                texts.push(text);
            }
        }
    }
    let mut times: Vec<u128> = Vec::new();
    let (mut sure, mut any, mut flagged) = (0_usize, 0_usize, 0_usize);
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    let before = cpu_ns();
    for text in &texts {
        let mut rest = text.as_str();
        let (mut file_sure, mut file_any) = (false, false);
        while !rest.is_empty() {
            let mut end = rest.len().min(16384);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (piece, after) = rest.split_at(end);
            rest = after;
            let findings = creel_inspect::content(piece, ContentRole::Other);
            for finding in &findings {
                *codes.entry(format!("{} {}", finding.code, finding.confidence.as_str())).or_default() += 1;
            }
            file_sure |= findings.iter().any(|f| f.confidence >= Confidence::Medium);
            file_any |= !findings.is_empty();
            flagged += findings.len();
        }
        sure += usize::from(file_sure);
        any += usize::from(file_any);
    }
    let spent_ms = cpu_ns().saturating_sub(before) / 1_000_000;
    for piece in texts.iter().flat_map(|text| text.as_bytes().chunks(16384)).filter(|p| p.len() == 16384).take(2000) {
        let piece = String::from_utf8_lossy(piece);
        // The least of five: other processes' turns are not ours.
        let once = || {
            let start = Instant::now();
            std::hint::black_box(creel_inspect::content(&piece, ContentRole::Other));
            start.elapsed().as_micros()
        };
        times.extend((0..5).map(|_| once()).min());
    }
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 1000).copied().unwrap_or_default();
    let speed = (bytes as u128).checked_div(u128::from(spent_ms)).unwrap_or_default() / 1000;
    println!("tree: {} files, {bytes} bytes, {spent_ms} ms of CPU: {speed} MB per CPU-second", texts.len());
    println!("tree: pieces of 16 KiB: p50 {} µs  p99 {} µs  p99.9 {} µs", at(500), at(990), at(999));
    println!("tree: files with a finding at medium or more {sure}, at any {any}; findings {flagged}");
    let mut codes: Vec<_> = codes.into_iter().collect();
    codes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (code, count) in codes.iter().take(12) {
        println!("tree: {count:6} {code}");
    }
}

/// Processor time of this thread, in nanoseconds; 0 where the system does not tell.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or_default()
}
