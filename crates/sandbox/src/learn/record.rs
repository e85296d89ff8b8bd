//! Events of a learning run ↔ the file `needed` in its folder, one JSON document per line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};

use creel_model::cage::{CageEvent, CageEventKind};
use rustix::fs::{Mode, OFlags};

use crate::review::{Folder, FolderError, fd};

/// Events that are kept.
const EVENTS_MAX: usize = 40_000;
/// Bytes that are kept.
const BYTES_MAX: u64 = 16 << 20;
/// Programs that are named for one need.
const PROGRAMS_MAX: usize = 4;

/// Keeps what a learning run needs. A failing disk loses events, not the run; the loss is counted.
#[derive(Debug)]
pub struct Recorder {
    out: File,
    events: usize,
    bytes: u64,
    lost: u64,
}

impl Recorder {
    /// Begins the file.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(run: &Folder) -> Result<Self, FolderError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(run.fd(), "needed", flags, Mode::RUSR | Mode::WUSR);
        let opened = opened.map_err(|error| FolderError::system("make", &run.path().join("needed"), error))?;
        Ok(Self { out: opened.into(), events: 0, bytes: 0, lost: 0 })
    }

    /// Takes an event in, if it is one that says what was needed or refused.
    pub fn note(&mut self, event: &CageEvent) {
        if !matches!(event.kind, CageEventKind::Needed | CageEventKind::Refused) {
            return;
        }
        let written = serde_json::to_vec(event).map_err(std::io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            let bytes = self.bytes.saturating_add(line.len() as u64);
            if self.events >= EVENTS_MAX || bytes > BYTES_MAX {
                return Err(std::io::ErrorKind::QuotaExceeded.into());
            }
            self.out.write_all(&line)?;
            self.bytes = bytes;
            self.events += 1;
            Ok(())
        });
        if written.is_err() {
            self.lost += 1;
        }
    }

    /// Events that were not kept.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

/// What was done with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// Opened for reading, or listed.
    Read,
    /// Started.
    Execute,
    /// Made, changed, renamed or removed.
    Write,
}

impl What {
    /// One word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            What::Read => "read",
            What::Execute => "execute",
            What::Write => "write",
        }
    }
}

/// One thing that was needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// How often it was reported.
    pub times: u64,
    /// Programs that needed it; at most four.
    pub programs: BTreeSet<String>,
}

/// Everything that a run needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// By absolute path.
    pub files: BTreeMap<(String, What), Need>,
    /// Where it connected to: absolute paths of unix sockets, or `address:port`.
    pub connections: BTreeMap<String, Need>,
    /// What was refused all the same, with the rule.
    pub refused: BTreeMap<(String, String), Need>,
    /// Names that are not absolute, or not plain text: they cannot stand in a profile.
    pub unplaced: u64,
}

impl Needs {
    /// Takes an event in.
    pub fn add(&mut self, event: &CageEvent) {
        let object = &event.object;
        let plain = object.chars().all(crate::review::is_plain) && !object.contains('\u{fffd}');
        let need = match (event.kind, event.call.as_str()) {
            _ if !plain || object.is_empty() => None,
            (CageEventKind::Refused, _) => Some(self.refused.entry((object.clone(), event.rule.clone())).or_default()),
            (CageEventKind::Needed, "connect") => Some(self.connections.entry(object.clone()).or_default()),
            (CageEventKind::Needed, call) => {
                let what = match call {
                    "read" => Some(What::Read),
                    "execute" => Some(What::Execute),
                    "write" => Some(What::Write),
                    _ => None,
                };
                let placed = what.filter(|_| normal(object));
                placed.map(|what| self.files.entry((object.clone(), what)).or_default())
            }
            _ => return,
        };
        match need {
            None => self.unplaced += event.times,
            Some(need) => {
                need.times += event.times;
                if !event.program.is_empty() && need.programs.len() < PROGRAMS_MAX {
                    need.programs.insert(event.program.clone());
                }
            }
        }
    }

    /// What is kept of a run; `None` when it did not learn.
    ///
    /// # Errors
    /// When it cannot be read. A last line that was cut off is passed over.
    pub fn of(run: &Folder) -> Result<Option<Self>, FolderError> {
        let path = run.path().join("needed");
        let opened =
            fd::file(run.fd(), "needed".as_ref()).map_err(|error| FolderError::system("open", &path, error))?;
        let Some((file, _)) = opened else { return Ok(None) };
        let mut needs = Self::default();
        for line in BufReader::new(File::from(file).take(BYTES_MAX)).lines() {
            let line = line.map_err(|error| FolderError::System {
                doing: "read",
                path: crate::review::shown_path(&path),
                error,
            })?;
            if let Ok(event) = serde_json::from_str(&line) {
                needs.add(&event);
            }
        }
        Ok(Some(needs))
    }
}

/// Whether a path is absolute and without `.`, `..` and doubled slashes.
fn normal(path: &str) -> bool {
    path == "/"
        || path
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(|part| !part.is_empty() && part != "." && part != ".."))
}

#[cfg(test)]
mod tests {
    use creel_model::cage::WorkspaceMode;

    use super::*;
    use crate::review::test::plan;

    fn event(kind: CageEventKind, call: &str, object: &str, program: &str) -> CageEvent {
        let mut event = CageEvent::new(kind, 0, object);
        event.call = call.to_owned();
        event.program = program.to_owned();
        event
    }

    #[test]
    fn what_is_recorded_reads_back_and_what_cannot_be_placed_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let run = plan("r-1", dir.path(), WorkspaceMode::Direct);
        let state = tempfile::tempdir().unwrap();
        let run = Folder::create(state.path(), &run).unwrap();
        assert_eq!(Needs::of(&run).unwrap(), None);
        let mut recorder = Recorder::new(&run).unwrap();
        for event in [
            event(CageEventKind::Needed, "read", "/etc/hosts", "/usr/bin/node"),
            event(CageEventKind::Needed, "read", "/etc/hosts", "/usr/bin/npm"),
            event(CageEventKind::Needed, "execute", "./configure", ""),
            event(CageEventKind::Needed, "read", "/a/../b", ""),
            event(CageEventKind::Needed, "read", "/a\u{1b}[2J", ""),
            event(CageEventKind::Needed, "connect", "127.0.0.1:5432", "/usr/bin/psql"),
            event(CageEventKind::Exec, "execve", "/bin/true", ""),
            event(CageEventKind::Refused, "openat", "/home/ada/w/.git/hooks/x", ""),
        ] {
            recorder.note(&event);
        }
        assert_eq!(recorder.lost(), 0);
        let needs = Needs::of(&run).unwrap().unwrap();
        assert_eq!(needs.unplaced, 3);
        assert_eq!(needs.files.len(), 1);
        let (key, need) = needs.files.first_key_value().unwrap();
        assert_eq!((key.0.as_str(), key.1, need.times, need.programs.len()), ("/etc/hosts", What::Read, 2, 2));
        assert_eq!((needs.connections.len(), needs.refused.len()), (1, 1));
    }

    #[test]
    fn a_flood_of_needs_is_cut_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let run = plan("r-1", dir.path(), WorkspaceMode::Direct);
        let state = tempfile::tempdir().unwrap();
        let run = Folder::create(state.path(), &run).unwrap();
        let mut recorder = Recorder::new(&run).unwrap();
        let long = event(CageEventKind::Needed, "read", &format!("/{}", "x".repeat(4000)), "");
        for _ in 0..5000 {
            recorder.note(&long);
        }
        assert!(recorder.lost() > 500);
        let size = std::fs::metadata(run.path().join("needed")).unwrap().len();
        assert!(size <= BYTES_MAX);
    }
}
