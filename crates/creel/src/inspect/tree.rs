//! `creel inspect --tree DIR`: every file below a folder, one line per file with something in it.
//!
//! Links are not followed, special files not opened, file systems' own folders not special. Bounds: 1,000,000 files,
//! 128 levels, 8 MiB per file; what lies beyond is counted and said.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use creel_model::Verdict;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use serde::Serialize;

use super::{Inspected, Point, Surroundings, TEXT_BYTES_MAX, judge, read_text};
use crate::failure::{Exit, Failure, Outcome};
use crate::out::{self, Format, Look};
use crate::text::{clean, count};

const FILES_MAX: u64 = 1_000_000;
const LEVELS_MAX: usize = 128;

#[derive(Serialize)]
struct Found {
    path: String,
    #[serde(flatten)]
    inspected: Inspected,
}

/// Walks and prints as it goes.
pub(super) fn run(folder: &Path, point: Point, format: Format, around: &Surroundings) -> Outcome {
    let root = File::open(folder).map_err(|error| Failure::file("read", folder, &error))?;
    if !root.metadata()?.is_dir() {
        return Err(Failure::new(format!("`{}` is not a folder", clean(&folder.display().to_string()))));
    }
    let mut walk = Walk { point, format, around, files: 0, passed_over: 0, found: Vec::new(), hits: 0 };
    walk.folder(root.into(), folder, 0)?;
    if format == Format::Json {
        out::json(&walk.found, Format::Json)?;
    }
    let over = if walk.passed_over == 0 { String::new() } else { format!(", {} passed over", walk.passed_over) };
    out::say(&format!("{} looked at{over}, {} with findings", count(walk.files, "file"), walk.hits));
    Ok(if walk.hits == 0 { Exit::Good } else { Exit::No })
}

struct Walk<'a> {
    point: Point,
    format: Format,
    around: &'a Surroundings,
    files: u64,
    passed_over: u64,
    found: Vec<Found>,
    hits: u64,
}

impl Walk<'_> {
    fn folder(&mut self, fd: OwnedFd, path: &Path, level: usize) -> Result<(), Failure> {
        let Ok(entries) = Dir::read_from(&fd) else {
            self.passed_over += 1;
            return Ok(());
        };
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name().to_owned()).collect();
        names.sort_unstable();
        for name in names {
            if name.as_bytes() == b"." || name.as_bytes() == b".." {
                continue;
            }
            let below: PathBuf = path.join(std::ffi::OsStr::new(&*name.to_string_lossy()));
            let kind = rustix::fs::statat(&fd, &name, AtFlags::SYMLINK_NOFOLLOW)
                .map(|stat| FileType::from_raw_mode(stat.st_mode));
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            match kind {
                Ok(FileType::Directory) if level < LEVELS_MAX => {
                    match rustix::fs::openat(&fd, &name, flags | OFlags::DIRECTORY, Mode::empty()) {
                        Ok(fd) => self.folder(fd, &below, level + 1)?,
                        Err(_) => self.passed_over += 1,
                    }
                }
                Ok(FileType::RegularFile) if self.files < FILES_MAX => {
                    match rustix::fs::openat(&fd, &name, flags, Mode::empty()) {
                        Ok(fd) => self.file(File::from(fd), &below)?,
                        Err(_) => self.passed_over += 1,
                    }
                }
                Ok(FileType::Symlink) => {}
                _ => self.passed_over += 1,
            }
        }
        Ok(())
    }

    fn file(&mut self, file: File, path: &Path) -> Result<(), Failure> {
        // What was looked at may have been exchanged meanwhile: a FIFO opens (without blocking) and reads as nothing.
        self.files += 1;
        let Ok(Some(text)) = read_text(file) else {
            self.passed_over += 1;
            return Ok(());
        };
        debug_assert!(text.len() <= 3 * TEXT_BYTES_MAX, "a replacement character has three bytes");
        let inspected = judge::text(self.point, &text, self.around);
        if inspected.findings.is_empty() && inspected.verdict == Verdict::Allow {
            return Ok(());
        }
        self.hits += 1;
        let found = Found { path: path.display().to_string(), inspected };
        match self.format {
            Format::Json => self.found.push(found),
            Format::Jsonl => out::json(&found, Format::Jsonl)?,
            Format::Table => {
                let look = Look::of_stdout();
                out::lines([look.bold(&clean(&found.path))])?;
                out::lines(super::lines(&found.inspected, look).into_iter().map(|line| format!("  {line}")))?;
            }
        }
        Ok(())
    }
}
