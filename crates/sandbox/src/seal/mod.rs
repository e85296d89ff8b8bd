//! Sealed names: what a path means to the bundle's seals, and what lies sealed on the disk now.
//!
//! [`SealSet::judge`] answers for one path; [`SealSet::scan`] finds what exists and must be bound read-only before the
//! agent starts. The one fact a newcomer gets wrong: what appears *later* is not mounted over; it is held by the broker,
//! which carries out every call that makes a name or opens a file for writing, so `rm -rf` of a fresh clone still works.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use creel_model::cage::{Seal, SealKind};

/// All sealed names of a cage.
#[derive(Clone, Debug, Default)]
pub struct SealSet {
    seals: Vec<Seal>,
}

/// A writable part of the cage that lives on the host.
#[derive(Debug)]
pub struct Root<'a> {
    /// The directory or file, opened without following links.
    pub descriptor: BorrowedFd<'a>,
    /// Its absolute path, which is the same outside and in the cage.
    pub path: &'a Path,
}

/// Something sealed that exists: it is bound read-only onto itself, recursively, before the agent starts.
#[derive(Debug)]
pub struct Found {
    /// Absolute path in the cage.
    pub path: PathBuf,
    /// What it is.
    pub kind: SealKind,
    /// The rule that seals it.
    pub rule: String,
    /// The object itself (`O_PATH`), from before the binding: through it the broker can still write a git configuration.
    pub object: OwnedFd,
}

/// What [`SealSet::scan`] found.
#[derive(Debug, Default)]
pub struct Scanned {
    /// What must be bound read-only, by the launcher.
    pub found: Vec<Found>,
}

impl SealSet {
    /// The plan's seals, and those that every git repository has.
    pub fn new(seals: &[Seal]) -> Self {
        Self { seals: seals.to_vec() }
    }

    /// Walks the writable parts of the host once. Bounds: 2,000,000 entries, depth 200, 8,192 sealed objects.
    ///
    /// # Errors
    /// What cannot be read, or is beyond the bounds: the cage must then not start.
    pub fn scan(&mut self, _roots: &[Root<'_>]) -> io::Result<Scanned> {
        let _ = &self.seals;
        Err(io::ErrorKind::Unsupported.into())
    }
}
