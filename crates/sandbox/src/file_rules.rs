//! A layout's grants as the kernel's own file rules (Landlock), the second layer under the mounts.
//!
//! The rules bind the broker and everything it starts; process 1 of the cage has none, because the kernel forbids
//! mounting to whoever has some. The one fact a newcomer gets wrong: these rules only ever add up below a folder, so a
//! `deny` inside a grant cannot be said here; it is held by the mount that covers it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use creel_model::cage::FileAccess;
use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, LandlockStatus, PathBeneath, RestrictionStatus,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, Scope,
};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::root::layout::{Layout, What};

/// Newest interface that is asked for; an older kernel holds what it knows.
const NEWEST: ABI = ABI::V9;

/// Binds this process, which must have given up new privileges, to the layout's grants, inside the finished root.
///
/// With `programs`, only those may be executed; else everything that is granted for execution or writing. Gives the
/// version of the kernel's interface, 0 where it has none.
///
/// # Errors
/// The kernel's, or a grant that cannot be opened any more.
pub(crate) fn apply(layout: &Layout, programs: &[String]) -> io::Result<u32> {
    let all = AccessFs::from_all(NEWEST);
    let list: BitFlags<AccessFs> = AccessFs::ReadDir.into();
    let read = list | AccessFs::ReadFile;
    let execute = if programs.is_empty() { read | AccessFs::Execute } else { read };
    let mut write = all;
    // Nobody can make device nodes in a cage's file systems anyway.
    write.remove(AccessFs::MakeChar | AccessFs::MakeBlock);
    if !programs.is_empty() {
        write.remove(AccessFs::Execute);
    }
    let device = read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;

    let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(all).map_err(other)?;
    let mut rules = ruleset.create().map_err(other)?;
    let mut add = |path: &str, access: BitFlags<AccessFs>| -> io::Result<()> {
        let object = match rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(object) => object,
            // Covered by a refusal, or a socket folder's content: then there is nothing to grant.
            Err(Errno::NOENT | Errno::ACCESS) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let access = if is_directory(&object)? { access } else { access & AccessFs::from_file(NEWEST) };
        (&mut rules).add_rule(PathBeneath::new(object.as_fd(), access)).map_err(other)?;
        Ok(())
    };
    add("/", list)?;
    add("/proc", read)?;
    add("/dev", device)?;
    for piece in &layout.pieces {
        match &piece.what {
            What::Host { access, .. } => match access {
                FileAccess::Write if piece.at.starts_with("/dev/") => add(&piece.at, device)?,
                FileAccess::Write => add(&piece.at, write)?,
                FileAccess::Execute => add(&piece.at, execute)?,
                FileAccess::Read => add(&piece.at, read | resolve_sockets())?,
                FileAccess::Deny => {}
            },
            What::Layer | What::Scratch(_) => add(&piece.at, write)?,
            What::Denied | What::Hollow | What::Link(_) => {}
        }
    }
    for program in programs {
        add(program, read | AccessFs::Execute)?;
    }
    let status = rules.log_new_exec(true).map_err(other)?.restrict_self().map_err(other)?;
    Ok(version(&status))
}

/// Keeps this process and all it starts from signalling, and from reaching abstract sockets of, anything outside.
///
/// # Errors
/// The kernel's.
pub(crate) fn apply_scopes() -> io::Result<u32> {
    let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    let ruleset = ruleset.scope(Scope::AbstractUnixSocket | Scope::Signal).map_err(other)?;
    let rules = ruleset.create().map_err(other)?;
    let status = rules.log_new_exec(true).map_err(other)?.restrict_self().map_err(other)?;
    Ok(version(&status))
}

/// The kernel's version of the interface; 0 where it has none.
fn version(status: &RestrictionStatus) -> u32 {
    match &status.landlock {
        LandlockStatus::Available { effective_abi, kernel_abi } => {
            kernel_abi.and_then(|abi| u32::try_from(abi).ok()).unwrap_or(*effective_abi as u32)
        }
        _ => 0,
    }
}

/// Connecting to sockets by path, where the kernel asks for a right for that; the broker decides which.
fn resolve_sockets() -> BitFlags<AccessFs> {
    let mut newer = AccessFs::from_all(ABI::V9);
    newer.remove(AccessFs::from_all(ABI::V8));
    newer
}

fn is_directory(object: &OwnedFd) -> io::Result<bool> {
    let mode = rustix::fs::fstat(object)?.st_mode;
    Ok(rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::Directory)
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}
