//! A bundle folder on disk → the text of its files, as the control socket takes them.
//!
//! Bounds: 512 files, 768 KiB in all (a frame of the control socket holds 1 MiB), 8 levels. Links are not followed.

use std::collections::BTreeMap;
use std::path::Path;

use crate::failure::Failure;
use crate::text::clean;

const FILES_MAX: usize = 512;
const BYTES_MAX: u64 = 768 * 1024;
const LEVELS_MAX: usize = 8;

/// Reads `*.toml` and `*.cedar` below the folder; other files are not part of a bundle.
pub(super) fn read(folder: &Path) -> Result<BTreeMap<String, String>, Failure> {
    if !folder.join("bundle.toml").is_file() {
        return Err(Failure::new(format!("`{}` holds no `bundle.toml`", clean(&folder.display().to_string())))
            .hint("name the folder of a bundle; `creel policy show --files` prints the one in force"));
    }
    let mut files = BTreeMap::new();
    let mut bytes = 0;
    walk(folder, "", 0, &mut files, &mut bytes)?;
    Ok(files)
}

fn walk(
    folder: &Path,
    prefix: &str,
    level: usize,
    files: &mut BTreeMap<String, String>,
    bytes: &mut u64,
) -> Result<(), Failure> {
    let entries = std::fs::read_dir(folder).map_err(|error| Failure::file("read", folder, &error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Failure::file("read", folder, &error))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let kind = entry.file_type().map_err(|error| Failure::file("look at", &entry.path(), &error))?;
        if kind.is_dir() && !name.starts_with('.') && level < LEVELS_MAX {
            walk(&entry.path(), &format!("{prefix}{name}/"), level + 1, files, bytes)?;
        } else if kind.is_file() && (name.ends_with(".toml") || name.ends_with(".cedar")) {
            let path = entry.path();
            *bytes += entry.metadata().map_err(|error| Failure::file("look at", &path, &error))?.len();
            if files.len() >= FILES_MAX || *bytes > BYTES_MAX {
                return Err(Failure::new(format!(
                    "the bundle is larger than {FILES_MAX} files or {} KiB",
                    BYTES_MAX >> 10
                )));
            }
            let text = std::fs::read_to_string(&path).map_err(|error| Failure::file("read", &path, &error))?;
            files.insert(format!("{prefix}{name}"), text);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_without_its_other_files_and_links() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert!(read(path).is_err());
        std::fs::create_dir(path.join("rules")).unwrap();
        for (name, text) in [("bundle.toml", "a"), ("rules/files.cedar", "b"), ("README.md", "c")] {
            std::fs::write(path.join(name), text).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", path.join("rules/evil.cedar")).unwrap();
        let files = read(path).unwrap();
        assert_eq!(files.keys().map(String::as_str).collect::<Vec<_>>(), ["bundle.toml", "rules/files.cedar"]);
    }

    #[test]
    fn a_bundle_beyond_the_bound_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("bundle.toml"), " ".repeat(800 * 1024)).unwrap();
        assert!(read(folder.path()).is_err());
    }
}
