//! A small journal whose files are damaged: its reader must not stumble, and its verifier must not be fooled.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use creel_journal::{Journal, Options, Reader, Record, Start, Verdict, verify};
use creel_seal::{DeviceKey, VerifierKey};
use tempfile::TempDir;

/// Bytes of a damaged file that are kept; a segment's preallocated rest is zeros.
const FILE_BYTES_MAX: usize = 12 << 10;

struct Golden {
    folder: TempDir,
    key: VerifierKey,
    /// Files relative to the folder, with their bytes.
    files: Vec<(PathBuf, Vec<u8>)>,
    /// Envelopes in order, as they stand on disk.
    envelopes: Vec<Vec<u8>>,
}

fn golden() -> &'static Golden {
    static GOLDEN: OnceLock<Golden> = OnceLock::new();
    GOLDEN.get_or_init(|| build().expect("a journal can be written to the temporary folder"))
}

fn build() -> Result<Golden, Box<dyn std::error::Error>> {
    let folder = TempDir::with_prefix("creel-fuzz-journal-")?;
    let device = DeviceKey::from_seed("device.example/1", &[7; 32]).map_err(|error| format!("{error:?}"))?;
    let key = device.verifier().clone();
    let mut options = Options::new(device);
    options.segment_bytes = 64 << 10;
    options.reserve_bytes = 64 << 10;
    let (mut journal, _) = Journal::open(folder.path(), options).map_err(|error| format!("{error:?}"))?;
    for number in 0..6 {
        let record: Record = serde_json::from_value(serde_json::json!({
            "envelope": {"schema": "creel.event/1.0", "kind": "decision", "at": {"unix_ns": number, "boot_ns": number},
                "boot_id": "b", "action_id": format!("{number:032x}"), "owner": 1000, "engine": "0.1.0"},
            "detail": {"excerpt": format!("excerpt {number}")},
        }))?;
        journal.append(&record, &mut || b"state".to_vec()).map_err(|error| format!("{error:?}"))?;
    }
    journal.close().map_err(|error| format!("{error:?}"))?;
    let mut files = Vec::new();
    collect(folder.path(), folder.path(), &mut files)?;
    let envelopes = envelopes(folder.path());
    assert!(envelopes.len() >= 6, "the golden journal can be read");
    Ok(Golden { folder, key, files, envelopes })
}

fn collect(root: &Path, folder: &Path, into: &mut Vec<(PathBuf, Vec<u8>)>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, into)?;
        } else if let Ok(name) = path.strip_prefix(root) {
            into.push((name.to_path_buf(), fs::read(&path)?));
        }
    }
    into.sort();
    Ok(())
}

fn envelopes(folder: &Path) -> Vec<Vec<u8>> {
    let mut envelopes = Vec::new();
    if let Ok(mut reader) = Reader::open(folder, Start::Beginning) {
        while let Ok(Some(stored)) = reader.next_where(&mut |_, _| true) {
            envelopes.push(stored.envelope_bytes);
        }
    }
    envelopes
}

/// One seed per file: its name on the first line, then its bytes without the zeros at the end.
pub fn seeds() -> Vec<Vec<u8>> {
    golden()
        .files
        .iter()
        .map(|(name, bytes)| {
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let mut seed = format!("{}\n", name.display()).into_bytes();
            seed.extend(bytes.iter().take(used.min(FILE_BYTES_MAX)));
            seed
        })
        .collect()
}

/// Promise: where the verifier finds nothing broken, every envelope is one of those that were written, in order.
pub fn run(input: &[u8]) {
    let golden = golden();
    let Some(line_end) = input.iter().position(|byte| *byte == b'\n') else { return };
    let (name, bytes) = input.split_at(line_end);
    let bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
    let Some((name, original)) = golden.files.iter().find(|(known, _)| known.as_os_str().as_encoded_bytes() == name)
    else {
        return;
    };
    let path = golden.folder.path().join(name);
    let mut damaged = bytes.to_vec();
    damaged.resize(original.len().max(bytes.len()), 0);
    fs::write(&path, &damaged).expect("the temporary folder can be written");
    let verdict = verify(golden.folder.path(), &golden.key, &[]);
    let read = envelopes(golden.folder.path());
    fs::write(&path, original).expect("the temporary folder can be written");
    if let Ok(verification) = verdict
        && !matches!(verification.verdict, Verdict::Broken { .. })
    {
        assert_eq!(read, golden.envelopes, "{}: not broken, and yet another record", name.display());
    }
}
