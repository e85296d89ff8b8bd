//! Creates, writes and deletes 1,000 files in a folder, many times, and prints the fastest and the middle round.
//!
//! Run it bare and in a cage in one go, and compare: `files FOLDER [ROUNDS]`.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "/tmp".to_owned()));
    let rounds: usize = arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(20);
    let mut times: Vec<u128> = (0..rounds.max(1)).map(|_| round(&folder)).collect();
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    let fastest = times.first().copied().unwrap_or_default();
    let _ = writeln!(std::io::stdout(), "fastest {} us, middle {} us", fastest / 1000, middle / 1000);
}

fn round(folder: &std::path::Path) -> u128 {
    let begin = Instant::now();
    for number in 0..1000 {
        let path = folder.join(format!("file-{number}"));
        if let Ok(mut file) = fs::File::create_new(&path) {
            let _ = file.write_all(b"some text\n");
        }
        let _ = fs::remove_file(&path);
    }
    begin.elapsed().as_nanos()
}
