//! Anchors: copies of signed checkpoints where the journal's account cannot rewrite them.
//!
//! Writing is one datagram to the system's log, without waiting; a missing log is declared in [`crate::State`], never
//! an error. Reading takes the log's text as `journalctl` or a syslog file prints it. Anybody may write to the system's
//! log, so a line counts only if the device key signed what is in it.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use creel_seal::{Checkpoint, VerifierKey};

/// The word before an anchored checkpoint in a line of the system's log.
const MARK: &str = "creel-checkpoint:";
/// How much of a line before the mark is kept to name the anchor, in bytes.
const WHEN_BYTES_MAX: usize = 64;

/// Where anchors are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// journald's native socket, usually `/run/systemd/journal/socket`.
    Journald(PathBuf),
    /// A syslog datagram socket, usually `/dev/log`.
    Syslog(PathBuf),
}

impl Target {
    /// journald at its usual place.
    #[must_use]
    pub fn journald() -> Self {
        Self::Journald(PathBuf::from("/run/systemd/journal/socket"))
    }

    /// syslog at its usual place.
    #[must_use]
    pub fn syslog() -> Self {
        Self::Syslog(PathBuf::from("/dev/log"))
    }

    /// Sends one checkpoint. A full or missing socket is an error at once; nothing waits.
    pub(crate) fn send(&self, note: &str, origin: &str, size: u64) -> io::Result<()> {
        let line = line(note);
        let (path, datagram) = match self {
            // journald's native protocol: `FIELD=value` lines; none of these values holds a newline.
            Target::Journald(path) => (
                path,
                format!(
                    "PRIORITY=5\nSYSLOG_IDENTIFIER=creel\nMESSAGE={line}\nCREEL_ORIGIN={origin}\nCREEL_SIZE={size}\n"
                ),
            ),
            // Facility authpriv (10), severity notice (5); the receiver adds the time.
            Target::Syslog(path) => (path, format!("<85>creel[{}]: {line}", std::process::id())),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to(datagram.as_bytes(), path).map(drop)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Journald(path) => write!(f, "journald ({})", path.display()),
            Target::Syslog(path) => write!(f, "syslog ({})", path.display()),
        }
    }
}

/// A checkpoint found in the system's log; believed only after its signature was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The signed note.
    pub note: String,
    /// What the log printed before it: usually time and host. At most 64 bytes.
    pub when: String,
}

impl Anchor {
    /// All anchors in the text of a log, in its order. Lines without one are skipped.
    #[must_use]
    pub fn parse(text: &str) -> Vec<Self> {
        text.lines().filter_map(Self::parse_line).collect()
    }

    fn parse_line(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(MARK)?;
        let digits: Vec<u32> = after.chars().map_while(|c| c.to_digit(16)).collect();
        let (pairs, []) = digits.as_chunks::<2>() else { return None };
        let bytes = pairs.iter().map(|[high, low]| (high * 16 + low) as u8).collect();
        let note = String::from_utf8(bytes).ok()?;
        let when = before.trim_start().get(..before.trim_start().floor_char_boundary(WHEN_BYTES_MAX)).unwrap_or("");
        Some(Self { note, when: when.trim().to_owned() })
    }

    /// The checkpoint, if `key` signed it.
    pub(crate) fn open(&self, key: &VerifierKey) -> Option<Checkpoint> {
        Checkpoint::open(&self.note, key).ok()
    }
}

/// One line of plain digits for a note: logs escape, cut or refuse much of what a note may hold.
fn line(note: &str) -> String {
    format!("{MARK}{}", creel_model::id::hex(note.as_bytes()))
}

#[cfg(test)]
mod tests {
    use creel_seal::DeviceKey;

    use super::*;

    fn key() -> DeviceKey {
        DeviceKey::from_seed("creel/test", &[1; 32]).unwrap()
    }

    fn note() -> (Checkpoint, String) {
        let checkpoint = Checkpoint { origin: "creel/test".to_owned(), size: 7, root: [5; 32] };
        let note = checkpoint.sign(&key()).unwrap();
        (checkpoint, note)
    }

    #[test]
    fn what_is_sent_is_read_back_from_what_a_log_prints() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        let (checkpoint, note) = note();
        for target in [Target::Journald(path.clone()), Target::Syslog(path.clone())] {
            target.send(&note, "creel/test", 7).unwrap();
            let mut buffer = [0; 4096];
            let count = socket.recv(&mut buffer).unwrap();
            let text = String::from_utf8(buffer[..count].to_vec()).unwrap();
            let message = text.lines().find(|line| line.contains(MARK)).unwrap();
            let printed = format!("Nov 21 19:00:01 host creel[12]: {}\n", message.trim_start_matches("MESSAGE="));
            let anchors = Anchor::parse(&format!("unrelated\n{printed}\nmore\n"));
            assert_eq!(anchors.len(), 1);
            assert_eq!(anchors[0].open(key().verifier()), Some(checkpoint.clone()), "{printed}");
            assert!(anchors[0].when.starts_with("Nov 21 19:00:01 host"));
        }
    }

    #[test]
    fn a_missing_log_is_an_error_at_once() {
        let target = Target::Syslog(PathBuf::from("/nonexistent/socket"));
        assert_eq!(target.send("x\n", "o", 0).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn forged_lines_are_not_believed() {
        let other = DeviceKey::from_seed("creel/test", &[2; 32]).unwrap();
        let (checkpoint, _) = note();
        let forged = line(&checkpoint.sign(&other).unwrap());
        let anchors = Anchor::parse(&forged);
        assert_eq!(anchors[0].open(key().verifier()), None);
        assert_eq!(Anchor::parse("creel-checkpoint:\n")[0].open(key().verifier()), None);
    }
}
