//! Executables → digests of their content, off the decision path.
//!
//! The key is which file it is and in which state, so a replaced file is another one. Until a digest is known, an
//! executable is `None`: unidentified, never guessed.

use std::collections::BTreeMap;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use creel_catalog::FileFacts;
use creel_model::{Digest, ProcessKey};
use rustix::fs::{CWD, Mode, OFlags};

use crate::look::digest_of;
use crate::process::is_alive;
use crate::read::{file_facts, reopen};

/// The most digests that are kept; at the bound all are forgotten and computed again when asked for.
pub const KNOWN_MAX: usize = 1024;
/// The most executables that wait; further ones are not taken and must be asked for again.
pub const WAITING_MAX: usize = 64;
/// The largest executable that is digested, in bytes; larger ones stay unidentified.
pub const EXECUTABLE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

type Known = Arc<Mutex<BTreeMap<FileFacts, Option<Digest>>>>;

/// Digests of executables, computed on a thread of its own.
#[derive(Debug)]
pub struct Identities {
    known: Known,
    queue: SyncSender<(ProcessKey, FileFacts)>,
}

impl Identities {
    /// Starts the thread; it ends when this value is dropped.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start() -> std::io::Result<Self> {
        let known = Known::default();
        let (queue, waiting) = sync_channel::<(ProcessKey, FileFacts)>(WAITING_MAX);
        let found = Arc::clone(&known);
        std::thread::Builder::new().name("identities".to_owned()).spawn(move || {
            while let Ok((process, file)) = waiting.recv() {
                if found.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&file) {
                    continue;
                }
                let digest = of_process(process, file);
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                if found.len() >= KNOWN_MAX {
                    found.clear();
                }
                found.insert(file, digest);
            }
        })?;
        Ok(Self { known, queue })
    }

    /// The digest of a process' executable where it is known; else it is queued, and may be known later. Never waits
    /// for a file.
    #[must_use]
    pub fn digest(&self, process: ProcessKey, file: FileFacts) -> Option<Digest> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&file).cloned();
        match known {
            Some(digest) => digest,
            None => {
                // Full: whoever asks again later is served then.
                if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.queue.try_send((process, file))
                {
                }
                None
            }
        }
    }
}

/// The digest of what a process executes; `None` where it is not this file in this state, or cannot be read.
#[must_use]
pub fn of_process(process: ProcessKey, file: FileFacts) -> Option<Digest> {
    let path = format!("/proc/{}/exe", process.pid);
    let fd = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let same = |fd: &rustix::fd::OwnedFd| rustix::fs::fstat(fd).is_ok_and(|stat| file_facts(&stat) == file);
    if !same(&fd) || !is_alive(process) {
        return None;
    }
    let digest = digest_of(&mut reopen(&fd).ok()?, EXECUTABLE_BYTES_MAX)?;
    same(&fd).then_some(digest)
}
