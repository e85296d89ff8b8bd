//! A scan of a generated home of 100,000 files, warm; and looks at paths. Prints medians; judges nothing.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement, not a part of the product")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use creel_catalog::Catalog;
use creel_discover::{accounts, look, process, scan};

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    let files: usize = if std::env::args().any(|argument| argument == "--bench") { 100_000 } else { 1_000 };
    let folder = tempfile::tempdir().unwrap();
    generate(folder.path(), files);
    let catalog = Catalog::built_in();
    let accounts = accounts(folder.path());
    let mut found = 0;
    let scan_once = || scan(folder.path(), &accounts, &catalog, &mut |_| {}).len();
    report(&format!("scan of a home with {files} files"), 7, || found = scan_once());
    println!("  agents found: {found}");
    report("catalog loaded", 15, || assert!(!Catalog::built_in().kinds().is_empty()));
    report("agent processes of this machine", 7, || drop(process::agents(&catalog)));
    let paths: Vec<String> =
        (0..64).map(|n| format!("{}/home/ada/p{}/d1/f{n}.txt", folder.path().display(), n % 10)).collect();
    report("64 paths looked at", 15, || assert_eq!(look::resolve(&paths, &BTreeSet::new()).len(), 64));
    let own = std::process::id();
    report("nearest agent above this process", 15, || drop(process::nearest_agent(own, &catalog)));
}

/// Projects of 1,000 files in ten folders each; every tenth holds configuration.
fn generate(root: &Path, files: usize) {
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/passwd"), "ada:x:1000:1000::/home/ada:/bin/bash\n").unwrap();
    for project in 0..files.div_ceil(1000) {
        let project_folder = root.join(format!("home/ada/p{project}"));
        for folder in 0..10 {
            let folder = project_folder.join(format!("d{folder}"));
            std::fs::create_dir_all(&folder).unwrap();
            for file in 0..100 {
                std::fs::write(folder.join(format!("f{file}.txt")), "x").unwrap();
            }
        }
        if project % 10 == 0 {
            std::fs::write(project_folder.join(".mcp.json"), r#"{"mcpServers":{"a":{"command":"npx","args":["a"]}}}"#)
                .unwrap();
        }
    }
}

fn report(what: &str, rounds: usize, mut run: impl FnMut()) {
    run();
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort();
    let median = times.get(rounds / 2).copied().unwrap_or_default();
    println!("{what}: median {median:?} (least {:?}, most {:?})", times.first().unwrap(), times.last().unwrap());
}
