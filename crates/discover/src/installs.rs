//! The folders where programs and packages are put → those of one kind, with the descriptions that name their version.

use creel_catalog::Kind;
use creel_model::Account;
use rustix::fs::FileType;

use crate::collect::{Program, description, names, real};
use crate::read::{Links, Machine};

/// Folders of programs and of global npm packages, as they exist on this machine.
pub(crate) struct Folders {
    /// Folder of programs, with the folder on the way to it that is trusted.
    programs: Vec<(String, String)>,
    /// `node_modules` folders.
    packages: Vec<(String, String)>,
}

const SYSTEM_PROGRAMS: &[&str] = &["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin", "/snap/bin"];
const SYSTEM_PACKAGES: &[&str] =
    &["/usr/lib/node_modules", "/usr/local/lib/node_modules", "/opt/nodejs/lib/node_modules"];
const HOME_PROGRAMS: &[&str] = &[
    ".local/bin",
    "bin",
    ".npm-global/bin",
    ".volta/bin",
    ".bun/bin",
    ".local/share/pnpm",
    ".cargo/bin",
    ".yarn/bin",
    ".asdf/shims",
    ".local/share/mise/shims",
];
const HOME_PACKAGES: &[&str] = &[
    ".npm-global/lib/node_modules",
    ".local/lib/node_modules",
    ".bun/install/global/node_modules",
    ".config/yarn/global/node_modules",
    ".claude/local/node_modules",
    "node_modules",
];
/// Folders with one folder per version, and where packages and programs lie in each.
const HOME_VERSIONS: &[(&str, &str, &str)] = &[
    (".nvm/versions/node", "lib/node_modules", "bin"),
    (".local/share/fnm/node-versions", "installation/lib/node_modules", "installation/bin"),
    (".volta/tools/image/packages", "lib/node_modules", "bin"),
    (".local/share/mise/installs/node", "lib/node_modules", "bin"),
    (".asdf/installs/nodejs", "lib/node_modules", "bin"),
    (".local/share/pnpm/global", "node_modules", "bin"),
];

impl Folders {
    pub(crate) fn of(machine: &Machine, account: &Account, links: Links) -> Self {
        let mut folders = Self { programs: Vec::new(), packages: Vec::new() };
        let system = "/".to_owned();
        folders.programs.extend(SYSTEM_PROGRAMS.iter().map(|path| (system.clone(), (*path).to_owned())));
        folders.packages.extend(SYSTEM_PACKAGES.iter().map(|path| (system.clone(), (*path).to_owned())));
        for name in names(machine, "/", "/opt", Links::Follow) {
            folders.programs.push((system.clone(), format!("/opt/{name}")));
            folders.programs.push((system.clone(), format!("/opt/{name}/bin")));
            folders.packages.push((system.clone(), format!("/opt/{name}/lib/node_modules")));
        }
        let home = account.home.trim_end_matches('/');
        let base = || account.home.clone();
        folders.programs.extend(HOME_PROGRAMS.iter().map(|path| (base(), format!("{home}/{path}"))));
        folders.packages.extend(HOME_PACKAGES.iter().map(|path| (base(), format!("{home}/{path}"))));
        for (above, packages, programs) in HOME_VERSIONS {
            for version in names(machine, &account.home, &format!("{home}/{above}"), links) {
                folders.packages.push((base(), format!("{home}/{above}/{version}/{packages}")));
                folders.programs.push((base(), format!("{home}/{above}/{version}/{programs}")));
            }
        }
        let links_of = |base: &str| if base == "/" { Links::Follow } else { links };
        folders.programs.retain(|(base, path)| machine.exists(base, path, links_of(base)));
        folders.packages.retain(|(base, path)| machine.exists(base, path, links_of(base)));
        folders
    }

    /// Everything of one kind, each real path once.
    pub(crate) fn programs(&self, machine: &Machine, account: &Account, links: Links, kind: &Kind) -> Vec<Program> {
        let mut found: Vec<Program> = Vec::new();
        let links_of = |base: &str| if base == "/" { Links::Follow } else { links };
        for (base, folder) in &self.packages {
            for package in &kind.install.npm {
                let path = format!("{folder}/{package}");
                if let Some(real) = real(machine, base, &path, links_of(base), FileType::Directory) {
                    let description = description(machine, base, &path, links_of(base));
                    found.push(Program { path: real, description, version: None });
                }
            }
        }
        let home = account.home.trim_end_matches('/');
        let in_home = |pattern: &String| pattern.strip_prefix("~/").map(|rest| format!("{home}/{rest}"));
        for folder in kind.install.versions.iter().filter_map(in_home) {
            for version in names(machine, &account.home, &folder, links) {
                let path = format!("{folder}/{version}");
                if version.starts_with(|first: char| first.is_ascii_digit())
                    && let Some(real) = real(machine, &account.home, &path, links, FileType::RegularFile)
                {
                    found.push(Program { path: real, description: None, version: Some(version) });
                }
            }
        }
        for path in kind.install.files.iter().filter_map(in_home) {
            self.push_program(machine, (&account.home, &path), links, kind, &mut found);
        }
        for (base, folder) in &self.programs {
            for name in &kind.install.programs {
                self.push_program(machine, (base, &format!("{folder}/{name}")), links_of(base), kind, &mut found);
            }
        }
        found.sort();
        found.dedup_by(|a, b| a.path == b.path);
        found
    }

    /// A program file, unless it is only the door to something that was found already.
    fn push_program(
        &self,
        machine: &Machine,
        (base, path): (&str, &str),
        links: Links,
        kind: &Kind,
        found: &mut Vec<Program>,
    ) {
        let Some(real) = real(machine, base, path, links, FileType::RegularFile) else { return };
        let below = |program: &Program| real == program.path || real.starts_with(&format!("{}/", program.path));
        if found.iter().any(below) {
            return;
        }
        // A package outside the known folders: its description lies above the program.
        for package in &kind.install.npm {
            let marker = format!("/node_modules/{package}/");
            if let Some((above, _)) = real.split_once(&marker) {
                let folder = format!("{above}/node_modules/{package}");
                if !found.iter().any(|program| program.path == folder) {
                    let description = description(machine, base, &folder, links);
                    found.push(Program { path: folder, description, version: None });
                }
                return;
            }
        }
        // A program without a package may be anybody's of that name; only a path that the kind is known by counts.
        if kind.process.executables.iter().any(|pattern| creel_catalog::process::path_matches(pattern, &real)) {
            found.push(Program { path: real, description: None, version: None });
        }
    }
}
