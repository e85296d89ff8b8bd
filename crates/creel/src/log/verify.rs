//! `creel log verify`: is the record complete and unaltered, and since when can nobody have rewritten it?
//!
//! A folder (also a copy, on another machine) is verified right here, with nothing but the public key. The running
//! daemon's own record is verified here too where it can be read, because then its word is not needed; else by the
//! daemon. The one thing a newcomer gets wrong: a key that lies beside the record may have been exchanged with it.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use creel_journal::{Anchor, Verdict, Verification, VerifyError};
use creel_seal::VerifierKey;
use creel_wire::control::{Answer, Request, VerificationVerdict, VerificationView};

use crate::connection::{Daemon, Place};
use crate::failure::{Exit, Failure, Outcome};
use crate::out::{self, Format, Look};
use crate::text::{clean, count, thousands};
use crate::{show, status, up};

/// How much of a system's log is searched for anchors, in bytes; its newest part.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// How many anchors are sent to a daemon.
const ANCHORS_MAX: usize = 64;
/// Where systems keep the log that anchors go to.
const LOGS: [&str; 3] = ["/var/log/auth.log", "/var/log/syslog", "/var/log/secure"];

/// Arguments of `creel log verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  creel log verify\n  journalctl -t creel > log.txt; creel log verify --anchors log.txt\n  creel log verify ./copy --key creel/laptop+1b2c3d4e+AbCd…"
)]
pub(super) struct Arguments {
    /// A journal's folder or a copy of one; the running (else this account's own) record if not said.
    folder: Option<PathBuf>,
    /// Text of a system's log with anchored checkpoints; the system's own logs are searched if not said.
    #[arg(long, value_name = "FILE")]
    anchors: Option<PathBuf>,
    /// The device's public key, as text or in a file.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A public key and where it came from.
pub(crate) struct Key {
    pub(crate) key: VerifierKey,
    /// It lay beside the record.
    beside: Option<PathBuf>,
}

/// Verifies.
pub(super) fn run(arguments: &Arguments, runtime: Option<&Path>) -> Outcome {
    let anchors = anchors(arguments.anchors.as_deref())?;
    let mut notes = Vec::new();
    let view = match &arguments.folder {
        Some(folder) => offline(folder, arguments.key.as_deref(), &anchors, &mut notes)?,
        None => match Daemon::try_open(&Place::find(runtime))? {
            Some(mut daemon) => running(&mut daemon, arguments.key.as_deref(), &anchors)?,
            None => {
                let folder = up::state_folder(None)?.join("journal");
                notes.push(format!("no daemon runs; this is the record in {}", folder.display()));
                offline(&folder, arguments.key.as_deref(), &anchors, &mut notes)?
            }
        },
    };
    match arguments.format {
        Format::Table => {
            let look = Look::of_stdout();
            out::lines(lines(&view, look))?;
            out::lines(
                notes.iter().flat_map(|note| show::wrap_kept(&format!("note: {}", clean(note)), look.width, 6)),
            )?;
        }
        format => out::json(&view, format)?,
    }
    Ok(if view.verdict == VerificationVerdict::Broken { Exit::No } else { Exit::Good })
}

fn offline(
    folder: &Path,
    key: Option<&str>,
    anchors: &[Anchor],
    notes: &mut Vec<String>,
) -> Result<VerificationView, Failure> {
    let key = public_key(key, folder)?;
    if let Some(path) = &key.beside {
        notes.push(format!(
            "the key was read from {}; whoever altered the record could have exchanged it: give it with `--key`",
            path.display()
        ));
    }
    match creel_journal::verify(folder, &key.key, anchors) {
        Ok(verification) => Ok(verification_view(&verification)),
        Err(VerifyError::NoJournal) => {
            Err(Failure::new(format!("`{}` holds no journal", clean(&folder.display().to_string()))))
        }
        Err(VerifyError::Io(error)) => Err(Failure::file("read", folder, &error)),
    }
}

/// The daemon seals its newest checkpoint and verifies; where the folder can be read, this program verifies it again
/// without trusting that answer, and the worse of both is told.
fn running(daemon: &mut Daemon, key: Option<&str>, anchors: &[Anchor]) -> Result<VerificationView, Failure> {
    let notes: Vec<String> = anchors.iter().rev().take(ANCHORS_MAX).map(|anchor| anchor.note.clone()).collect();
    let told = daemon.one(&Request::VerifyJournal { anchors: notes }, |answer| match answer {
        Answer::Verification(view) => Some(view),
        _ => None,
    })?;
    let status = status::ask(daemon)?;
    let folder = PathBuf::from(&status.journal.folder);
    if File::open(folder.join("checkpoint")).is_err() {
        return Ok(told);
    }
    let key = match key {
        Some(_) => public_key(key, &folder)?.key,
        None => VerifierKey::parse(&status.journal.verifier_key)
            .map_err(|error| Failure::new(format!("the daemon's public key is not one: {error:?}")))?,
    };
    let seen = creel_journal::verify(&folder, &key, anchors);
    let seen = seen.map_err(|error| Failure::new(format!("the record cannot be read: {error:?}")))?;
    let seen = verification_view(&seen);
    Ok(if seen.verdict == VerificationVerdict::Broken || told.verdict != VerificationVerdict::Broken {
        seen
    } else {
        told
    })
}

/// The key from the argument (text or file), else `device.pub` beside or in the folder.
pub(crate) fn public_key(argument: Option<&str>, folder: &Path) -> Result<Key, Failure> {
    let parse = |text: &str| {
        VerifierKey::parse(text.trim()).map_err(|error| {
            Failure::new(format!("that is no public key: {error:?}")).hint(
                "it looks like `name+1b2c3d4e+…`; `creel status --format json | jq -r .journal.verifier_key` prints it",
            )
        })
    };
    if let Some(text) = argument {
        // A key's base64 may hold `/` and `+`: only parsing tells it from a path.
        if let Ok(key) = VerifierKey::parse(text.trim()) {
            return Ok(Key { key, beside: None });
        }
        let path = Path::new(text);
        return Ok(Key { key: parse(&small(path)?)?, beside: None });
    }
    let beside = [folder.join("device.pub"), folder.join("../device.pub")];
    for path in beside {
        if path.is_file() {
            return Ok(Key { key: parse(&small(&path)?)?, beside: Some(path) });
        }
    }
    Err(Failure::new("which public key?").hint(
        "give it with `--key`; `creel status --format json | jq -r .journal.verifier_key` prints it on the device",
    ))
}

fn small(path: &Path) -> Result<String, Failure> {
    let file = File::open(path).map_err(|error| Failure::file("read", path, &error))?;
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text).map_err(|error| Failure::file("read", path, &error))?;
    Ok(text)
}

/// Anchors from the given text, else from the system's own logs as far as this account may read them.
fn anchors(file: Option<&Path>) -> Result<Vec<Anchor>, Failure> {
    if let Some(path) = file {
        return Ok(Anchor::parse(&newest(path).map_err(|error| Failure::file("read", path, &error))?));
    }
    let mut found = Vec::new();
    for path in LOGS.iter().map(Path::new) {
        if let Ok(text) = newest(path) {
            found.extend(Anchor::parse(&text));
        }
    }
    // The system's own program at its fixed place; what it prints is believed only where the device key signed it.
    let journal = std::process::Command::new("/usr/bin/journalctl")
        .args(["-q", "--no-pager", "-o", "short-iso", "-t", "creel"])
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .spawn();
    if let Ok(mut child) = journal {
        let mut bytes = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let _ = stdout.take(LOG_BYTES_MAX).read_to_end(&mut bytes);
        }
        let _ = child.kill();
        let _ = child.wait();
        found.extend(Anchor::parse(&String::from_utf8_lossy(&bytes)));
    }
    Ok(found)
}

/// The newest part of a log.
fn newest(path: &Path) -> std::io::Result<String> {
    use std::io::{Seek as _, SeekFrom};
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    if size > LOG_BYTES_MAX {
        file.seek(SeekFrom::Start(size - LOG_BYTES_MAX))?;
    }
    let mut bytes = Vec::new();
    file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The journal's answer in the words of the control socket.
pub(crate) fn verification_view(verification: &Verification) -> VerificationView {
    let (verdict, anchor, first_bad, why) = match &verification.verdict {
        Verdict::Intact => {
            let anchor = verification.anchored.map(|records| format!("anchored at {}", count(records, "record")));
            (VerificationVerdict::Intact, anchor, None, String::new())
        }
        Verdict::IntactSince { records, when } => {
            let anchor = format!("{when} ({})", count(*records, "record"));
            (VerificationVerdict::IntactSince, Some(anchor), None, String::new())
        }
        Verdict::SelfConsistentOnly => (VerificationVerdict::SelfConsistentOnly, None, None, String::new()),
        Verdict::Broken { first_bad, why } => (VerificationVerdict::Broken, None, Some(*first_bad), why.clone()),
    };
    VerificationView {
        verdict,
        records: verification.records,
        erased: verification.erased,
        anchor,
        first_bad,
        why,
        lost: verification.lost,
    }
}

fn lines(view: &VerificationView, look: Look) -> Vec<String> {
    let anchor = view.anchor.as_ref().map_or(String::new(), |anchor| format!(" ({})", clean(anchor)));
    let head = match view.verdict {
        VerificationVerdict::Broken => match view.first_bad {
            Some(first) => format!("broken at record {first}: {}", clean(&view.why)),
            None => format!("broken: {}", clean(&view.why)),
        },
        verdict => format!("{}{anchor}", verdict.as_str()),
    };
    let mut lines = show::wrap_kept(&head, look.width, 2);
    let mut facts = vec![count(view.records, "record")];
    if view.erased > 0 {
        facts.push(format!("{} erased", count(view.erased, "detail")));
    }
    if view.lost > 0 {
        facts.push(format!("{} lost, as sealed gap records say", thousands(view.lost)));
    }
    lines.push(format!("  {}", facts.join(", ")));
    if view.verdict == VerificationVerdict::SelfConsistentOnly {
        lines.extend(show::wrap_kept(
            "  no anchor speaks for it: whoever holds the device key could have rewritten it",
            look.width,
            2,
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::width;

    #[test]
    fn a_broken_record_is_named() {
        let view = VerificationView {
            verdict: VerificationVerdict::Broken,
            records: 17,
            erased: 1,
            anchor: None,
            first_bad: Some(12),
            why: "its bytes do not give the signed root".to_owned(),
            lost: 0,
        };
        for columns in [60, 80, 120] {
            let lines = lines(&view, Look { width: columns, decorated: false });
            assert_eq!(
                lines.first().map(String::as_str),
                Some("broken at record 12: its bytes do not give the signed root")
            );
            assert!(lines.iter().all(|line| width(line) <= columns));
        }
    }

    #[test]
    fn without_a_key_nothing_is_claimed() {
        let folder = tempfile::tempdir().unwrap();
        assert!(public_key(None, folder.path()).is_err());
        assert!(public_key(Some("not+a+key"), folder.path()).is_err());
    }

    #[test]
    fn a_key_as_text_or_in_a_file() {
        let keys = (0..64).map(|seed| creel_seal::DeviceKey::from_seed("creel/test", &[seed; 32]).unwrap());
        let key = keys.into_iter().find(|key| key.verifier().to_string().split('+').count() > 3).unwrap();
        let text = key.verifier().to_string();
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(public_key(Some(&text), folder.path()).unwrap().key, *key.verifier());
        std::fs::write(folder.path().join("device.pub"), format!("{text}\n")).unwrap();
        let found = public_key(None, folder.path()).unwrap();
        assert_eq!(found.key, *key.verifier());
        assert!(found.beside.is_some());
    }
}
