//! What git takes for a repository, and where its parts lie.
//!
//! The one fact a newcomer gets wrong: git needs no `.git`. Any folder with `objects` and `refs` in it is a repository
//! for who stands in it, and a `commondir` file leads to another one.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use creel_model::cage::{Seal, SealKind};

use super::FLOOR;
use super::name::fold;
use crate::gitconfig::GitConfig;

/// Largest pointer file that is read, in bytes.
const POINTER_BYTES: u64 = 8192;
/// Largest configuration that is read, in bytes.
const CONFIG_BYTES: u64 = 262_144;
/// How deep configurations may include each other, as for git.
pub(super) const INCLUDES: u32 = 10;

/// Whether git would take the folder at `path` for a repository, or a part of one.
pub(super) fn is(path: &[u8], exists: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if fold(name).as_ref() == b".git" {
        return true;
    }
    let mut has = |name: &[u8]| {
        let mut inside = Vec::with_capacity(path.len() + name.len() + 1);
        inside.extend_from_slice(path);
        inside.push(b'/');
        inside.extend_from_slice(name);
        exists(&inside)
    };
    (has(b"objects") && has(b"refs")) || has(b"commondir")
}

/// The part of a repository that several worktrees share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommonFolder {
    /// Absolute path.
    pub path: PathBuf,
}

/// The common git folder of a workspace that is a linked worktree, if it lies outside the workspace and says itself
/// that the workspace is one of its worktrees. `Ok(None)`: nothing more is needed.
///
/// # Errors
/// The workspace points to a folder that does not point back (or to nothing): granting it would give the agent a
/// repository that the pointer's author chose.
pub fn common_folder(workspace: &Path) -> io::Result<Option<CommonFolder>> {
    let pointer = workspace.join(".git");
    let Ok(about) = fs::symlink_metadata(&pointer) else { return Ok(None) };
    if !about.is_file() {
        return Ok(None);
    }
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", pointer.display()));
    let text = read_pointer(&pointer)?;
    let folder = text.strip_prefix("gitdir: ").ok_or_else(|| wrong("does not say where the repository is"))?;
    let folder = fs::canonicalize(workspace.join(folder))?;
    if folder.starts_with(workspace) {
        return Ok(None);
    }
    let common = folder.join("commondir");
    if !common.exists() {
        return Err(wrong("leads to a repository that is not a worktree's"));
    }
    let common = fs::canonicalize(folder.join(read_pointer(&common)?))?;
    let back = folder.join(read_pointer(&folder.join("gitdir"))?);
    let back = back.parent().map(fs::canonicalize).ok_or_else(|| wrong("leads to a worktree without a place"))??;
    if folder.parent() != Some(&common.join("worktrees")) || back != fs::canonicalize(workspace)? {
        return Err(wrong("leads to a repository that does not know this worktree"));
    }
    Ok((!common.starts_with(workspace)).then_some(CommonFolder { path: common }))
}

fn read_pointer(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > POINTER_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{}: too long", path.display())));
    }
    Ok(fs::read_to_string(path)?.trim_end_matches(['\n', '\r']).to_owned())
}

/// Seals for the folders that the account's own git configuration (not a repository's) names as `core.hooksPath`: git runs
/// what lies there in every repository of the account. Relative ones are sealed wherever they appear. Call it outside the
/// cage.
///
/// # Errors
/// A configuration is there, may name such a folder, and cannot be read or understood.
pub fn hooks_seals(home: &Path) -> io::Result<Vec<Seal>> {
    let mut values = Vec::new();
    for file in [PathBuf::from("/etc/gitconfig"), home.join(".config/git/config"), home.join(".gitconfig")] {
        hooks_of(&file, home, INCLUDES, &mut values)?;
    }
    let mut seals = Vec::new();
    for value in values {
        let path = value.strip_prefix("~/").map_or_else(|| PathBuf::from(&value), |rest| home.join(rest));
        let Some(path) = normal(&path) else { continue };
        let mut components: Vec<String> = path
            .components()
            .filter(|component| matches!(component, Component::Normal(_)))
            .map(|component| component.as_os_str().to_string_lossy().into_owned())
            .collect();
        let below = if path.is_absolute() {
            components = components.pop().into_iter().collect();
            path.parent().map(|parent| parent.display().to_string())
        } else {
            None
        };
        if !components.is_empty() {
            seals.push(Seal { components, kind: SealKind::Directory, rule: FLOOR.to_owned(), below });
        }
    }
    Ok(seals)
}

/// Takes down the values of `core.hooksPath` in a configuration and in those that it includes.
fn hooks_of(file: &Path, home: &Path, depth: u32, values: &mut Vec<String>) -> io::Result<()> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", file.display()));
    match fs::metadata(file) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => return Err(error),
        Ok(about) if about.len() > CONFIG_BYTES => return Err(wrong("too long".to_owned())),
        Ok(_) => {}
    }
    if depth == 0 {
        return Err(wrong("includes lie too deep".to_owned()));
    }
    let text = fs::read(file)?;
    let config = match GitConfig::parse(&text) {
        Ok(config) => config,
        Err(error) => {
            let words = String::from_utf8_lossy(&text).to_lowercase();
            let may = words.contains("hookspath") || words.contains("include");
            return if may { Err(wrong(error.to_string())) } else { Ok(()) };
        }
    };
    values.extend(config.values("core.hookspath").map(str::to_owned));
    let folder = file.parent().unwrap_or(file);
    for included in config.included() {
        let path = included.strip_prefix("~/").map_or_else(|| folder.join(included), |rest| home.join(rest));
        hooks_of(&path, home, depth - 1, values)?;
    }
    Ok(())
}

/// `path` with `.` and `..` taken out in words; `None` above the root.
pub(crate) fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                if !normal.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    Some(normal)
}
