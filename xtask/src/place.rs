//! Where things are: the checkout, its sources, the caches. Knows folders, nothing about what is in them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The checkout's root. Compiled in, because `xtask` is always built from the checkout that it serves.
#[must_use]
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Folder of caches outside the checkout, as `./dev` names it.
#[must_use]
pub(crate) fn cache() -> PathBuf {
    if let Some(cache) = std::env::var_os("CREEL_CACHE") {
        return cache.into();
    }
    PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(".cache/creel")
}

/// Folder of build outputs, as `./dev` names it.
#[must_use]
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| cache().join("target"), PathBuf::from)
}

/// Every file below `folder` that git knows or would add, relative to the root and sorted.
/// git decides what belongs to the project, so that ignored files and build outputs are not looked at.
pub(crate) fn files() -> Result<Vec<PathBuf>> {
    let output = std::process::Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .context("git ls-files")?;
    anyhow::ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let mut files: Vec<PathBuf> = output
        .stdout
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| PathBuf::from(String::from_utf8_lossy(name).into_owned()))
        .filter(|name| root().join(name).is_file())
        .collect();
    files.sort();
    files.dedup();
    Ok(files)
}
