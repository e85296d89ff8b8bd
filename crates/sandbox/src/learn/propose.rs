//! Needs and two plans → a profile. Pure: what stands on the disk is asked of a function.
//!
//! A need that the base profile grants is no line. The rest becomes folders where several things of one folder were
//! needed the same way, never a folder that holds everything (`/etc`, `~`, `~/.config`). The one fact a newcomer gets
//! wrong: writing a file that is gone afterwards means writing its *folder*.

use std::collections::{BTreeMap, BTreeSet};

use creel_model::cage::{CagePlan, FileAccess, FileRule};

use super::record::{Need, Needs, What};

/// Things of one folder that make a line for the folder.
const SEVERAL: usize = 3;
/// Lines of one proposal; a profile may have 512.
const LINES_MAX: usize = 400;
/// Longest path that a profile may name, in bytes.
const PATH_BYTES_MAX: usize = 512;
/// Examples of what a line was needed for.
const EXAMPLES_MAX: usize = 3;
/// Folders of the system that are too much to grant as a whole.
const TOO_MUCH: [&str; 9] = ["/", "/etc", "/home", "/media", "/mnt", "/opt", "/root", "/srv", "/var"];
/// The same in a home folder; the home folder itself too.
const TOO_MUCH_AT_HOME: [&str; 8] =
    [".config", ".local", ".local/share", ".local/state", ".cache", "Desktop", "Documents", "Downloads"];
/// Places that each cage has of its own.
const PRIVATE: [&str; 6] = ["/dev", "/proc", "/run", "/sys", "/tmp", "/var/tmp"];

/// Where a run took place.
pub struct Surroundings<'a> {
    /// The account's home folder, absolute.
    pub home: &'a str,
    /// The workspace, absolute.
    pub workspace: &'a str,
    /// Whether something stands at a path now, and whether it is a folder.
    pub look: &'a dyn Fn(&str) -> Option<bool>,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings")
            .field("home", &self.home)
            .field("workspace", &self.workspace)
            .finish_non_exhaustive()
    }
}

/// One line of a proposed profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What is granted.
    pub access: FileAccess,
    /// Of what: begins with `/`, `~` or `@workspace`.
    pub path: String,
    /// Needs that it answers.
    pub needs: usize,
    /// Programs that had them; at most four.
    pub programs: BTreeSet<String>,
    /// Some of the needs, for example `read ~/.npmrc`.
    pub examples: Vec<String>,
    /// The profile that the run had does not grant it.
    pub new: bool,
}

/// A proposed profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proposal {
    /// The profile it adds to.
    pub extends: String,
    /// Grants of files.
    pub lines: Vec<Line>,
    /// Ports of the host's 127.0.0.1.
    pub ports: BTreeSet<u16>,
    /// Unix sockets of the host, absolute.
    pub sockets: BTreeSet<String>,
    /// Connections that no profile can grant.
    pub elsewhere: BTreeSet<String>,
    /// Grants of the profile that the run had and that nothing needed this time: access and path as in [`Line`].
    pub unused: Vec<(FileAccess, String)>,
    /// What was refused while learning: path and rule.
    pub refused: BTreeSet<(String, String)>,
    /// Needs whose names cannot stand in a profile.
    pub unplaced: u64,
    /// Lines beyond those listed.
    pub cut: usize,
}

/// Proposes a profile that adds to `base` (a plan of the profile named `extends`) what was needed; compares it with
/// `present`, the plan of the profile that the run had.
#[must_use]
pub fn propose(
    needs: &Needs,
    extends: &str,
    base: &CagePlan,
    present: &CagePlan,
    place: &Surroundings<'_>,
) -> Proposal {
    let mut proposal = Proposal { extends: extends.to_owned(), unplaced: needs.unplaced, ..Proposal::default() };
    let mut wanted: BTreeMap<(FileAccess, String), Line> = BTreeMap::new();
    for ((path, what), need) in &needs.files {
        if is_private(path, place) || granted(&base.files, path) >= access(*what) {
            continue;
        }
        if path.len() > PATH_BYTES_MAX {
            proposal.unplaced += need.times;
            continue;
        }
        let whole = target(path, *what, place);
        let line = wanted.entry((access(*what), whole.to_owned())).or_insert_with(|| Line {
            access: access(*what),
            path: whole.to_owned(),
            needs: 0,
            programs: BTreeSet::new(),
            examples: Vec::new(),
            new: true,
        });
        take(line, path, *what, need, place);
    }
    let mut lines = without_covered(merge(wanted, place));
    for line in &mut lines {
        line.new = granted(&present.files, &line.path) < line.access;
        line.path = shortened(&line.path, place);
    }
    proposal.cut = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    proposal.lines = lines;
    connections(needs, base, &mut proposal);
    proposal.unused = unused(needs, present, place);
    proposal.refused = needs.refused.keys().cloned().collect();
    proposal
}

fn access(what: What) -> FileAccess {
    match what {
        What::Read => FileAccess::Read,
        What::Execute => FileAccess::Execute,
        What::Write => FileAccess::Write,
    }
}

/// What a plan grants of a path.
fn granted(files: &[FileRule], path: &str) -> FileAccess {
    let at = files.iter().filter(|rule| within(path, &rule.path)).max_by_key(|rule| rule.path.len());
    at.map_or(FileAccess::Deny, |rule| rule.access)
}

fn within(path: &str, folder: &str) -> bool {
    let folder = folder.trim_end_matches('/');
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Places that are there in every cage: its own ones, and folders that lead to the home folder or the workspace.
fn is_private(path: &str, place: &Surroundings<'_>) -> bool {
    PRIVATE.iter().any(|private| within(path, private))
        || within(place.home, path)
        || (within(place.workspace, path) && path != place.workspace)
}

fn too_much(folder: &str, place: &Surroundings<'_>) -> bool {
    let at_home = folder.strip_prefix(place.home).and_then(|rest| rest.strip_prefix('/'));
    within(place.home, folder)
        || TOO_MUCH.contains(&folder)
        || at_home.is_some_and(|rest| TOO_MUCH_AT_HOME.contains(&rest))
        || within(place.workspace, folder) && folder != place.workspace
}

/// What has to be granted for one need: the path, or the folder in which a file is made.
fn target<'a>(path: &'a str, what: What, place: &Surroundings<'_>) -> &'a str {
    if within(path, place.workspace) {
        return path.get(..place.workspace.len()).unwrap_or(path);
    }
    match parent(path) {
        Some(folder) if what == What::Write && (place.look)(path).is_none() && !too_much(folder, place) => folder,
        _ => path,
    }
}

fn parent(path: &str) -> Option<&str> {
    let (folder, name) = path.rsplit_once('/')?;
    (!name.is_empty()).then_some(if folder.is_empty() { "/" } else { folder })
}

fn take(line: &mut Line, path: &str, what: What, need: &Need, place: &Surroundings<'_>) {
    line.needs += 1;
    if line.examples.len() < EXAMPLES_MAX {
        line.examples.push(format!("{} {}", what.word(), shortened(path, place)));
    }
    for program in &need.programs {
        if line.programs.len() < 4 {
            line.programs.insert(program.clone());
        }
    }
}

/// Several lines of one folder and one access become a line for the folder, from the deepest folders up.
fn merge(wanted: BTreeMap<(FileAccess, String), Line>, place: &Surroundings<'_>) -> Vec<Line> {
    let mut lines = wanted;
    let depth = |path: &str| path.split('/').count();
    let deepest = lines.keys().map(|(_, path)| depth(path)).max().unwrap_or(0);
    for level in (2..deepest).rev() {
        let mut groups: BTreeMap<(FileAccess, String), Vec<String>> = BTreeMap::new();
        for (access, path) in lines.keys() {
            if let Some(folder) = parent(path).filter(|folder| depth(folder) == level && !too_much(folder, place)) {
                groups.entry((*access, folder.to_owned())).or_default().push(path.clone());
            }
        }
        for ((access, folder), members) in groups.into_iter().filter(|(_, members)| members.len() >= SEVERAL) {
            let mut whole = Line {
                access,
                path: folder.clone(),
                needs: 0,
                programs: BTreeSet::new(),
                examples: Vec::new(),
                new: true,
            };
            let members = members.into_iter().map(|path| (access, path));
            for line in members.chain([(access, folder.clone())]).filter_map(|key| lines.remove(&key)) {
                whole.needs += line.needs;
                whole.examples.extend(line.examples);
                whole.programs.extend(line.programs);
            }
            whole.examples.truncate(EXAMPLES_MAX);
            while whole.programs.len() > 4 {
                whole.programs.pop_last();
            }
            lines.insert((access, folder), whole);
        }
    }
    lines.into_values().collect()
}

/// Without lines that another line grants too; their needs are counted there.
fn without_covered(lines: Vec<Line>) -> Vec<Line> {
    let mut kept: Vec<Line> = Vec::new();
    let mut sorted = lines;
    // The widest and strongest first.
    sorted.sort_by(|a, b| (a.path.len(), b.access).cmp(&(b.path.len(), a.access)).then(a.path.cmp(&b.path)));
    for line in sorted {
        match kept.iter_mut().find(|wider| wider.access >= line.access && within(&line.path, &wider.path)) {
            Some(wider) => wider.needs += line.needs,
            None => kept.push(line),
        }
    }
    kept.sort_by(|a, b| (a.access, &a.path).cmp(&(b.access, &b.path)));
    kept
}

/// With `@workspace` and `~` where that is what the beginning means.
fn shortened(path: &str, place: &Surroundings<'_>) -> String {
    for (long, short) in [(place.workspace, "@workspace"), (place.home, "~")] {
        if within(path, long) {
            return format!("{short}{}", path.get(long.trim_end_matches('/').len()..).unwrap_or_default());
        }
    }
    path.to_owned()
}

fn connections(needs: &Needs, base: &CagePlan, proposal: &mut Proposal) {
    for object in needs.connections.keys() {
        if object.starts_with('/') {
            let known = base.sockets.iter().any(|grant| grant.cage == *object);
            if !known && !PRIVATE.iter().any(|private| *private != "/run" && within(object, private)) {
                proposal.sockets.insert(object.clone());
            }
            continue;
        }
        let loopback = ["127.0.0.1:", "[::1]:", "localhost:"].iter().find_map(|host| object.strip_prefix(host));
        match loopback.and_then(|port| port.parse().ok()) {
            Some(port) if base.network.host_loopback_ports.contains(&port) => {}
            Some(port) => {
                proposal.ports.insert(port);
            }
            None => {
                proposal.elsewhere.insert(object.clone());
            }
        }
    }
}

fn unused(needs: &Needs, present: &CagePlan, place: &Surroundings<'_>) -> Vec<(FileAccess, String)> {
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for (path, _) in needs.files.keys() {
        let at = present.files.iter().filter(|rule| within(path, &rule.path)).max_by_key(|rule| rule.path.len());
        used.extend(at.map(|rule| rule.path.as_str()));
    }
    let grants = present.files.iter().filter(|rule| rule.access > FileAccess::Deny);
    // What is not on this machine was not granted either.
    let idle = grants.filter(|rule| !used.contains(rule.path.as_str()) && (place.look)(&rule.path).is_some());
    idle.map(|rule| (rule.access, shortened(&rule.path, place))).collect()
}

impl Proposal {
    /// As the text of `profiles/NAME.toml`. Comments say what each line was needed for.
    #[must_use]
    pub fn toml(&self, about: &str) -> String {
        use std::fmt::Write as _;
        // JSON's escapes are a part of TOML's; names with control characters never come this far.
        let quote = |text: &str| serde_json::Value::from(text).to_string();
        let mut text = format!("about = {}\nextends = {}\n", quote(about), quote(&self.extends));
        for line in &self.lines {
            let programs: Vec<&str> = line.programs.iter().map(|program| name_of(program)).collect();
            let by = if programs.is_empty() { String::new() } else { format!(" by {}", programs.join(", ")) };
            let _ = writeln!(text, "\n# {}{by}; {} in all", line.examples.join(", "), line.needs);
            let _ =
                writeln!(text, "[[files]]\naccess = {}\npaths = [{}]", quote(line.access.as_str()), quote(&line.path));
        }
        for socket in &self.sockets {
            let _ = writeln!(text, "\n[[sockets]]\nhost = {}", quote(socket));
        }
        if !self.ports.is_empty() {
            let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
            let _ = writeln!(text, "\n[network]\nhost_loopback_ports = [{}]", ports.join(", "));
        }
        text
    }
}

/// The last part of a program's path.
fn name_of(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

#[cfg(test)]
mod tests {
    use creel_model::cage::WorkspaceMode;

    use super::*;
    use crate::review::test::plan;

    const HOME: &str = "/home/ada";
    const WORK: &str = "/home/ada/site";

    fn needs(all: &[(&str, What)]) -> Needs {
        let mut needs = Needs::default();
        for (path, what) in all {
            let need = needs.files.entry(((*path).to_owned(), *what)).or_default();
            need.times += 1;
            need.programs.insert("/usr/bin/node".to_owned());
        }
        needs
    }

    fn granting(grants: &[(FileAccess, &str)]) -> CagePlan {
        let mut plan = plan("r-1", std::path::Path::new(WORK), WorkspaceMode::Direct);
        plan.files = grants
            .iter()
            .map(|(access, path)| FileRule {
                path: (*path).to_owned(),
                access: *access,
                optional: true,
                initial: None,
                make: false,
                source: String::new(),
            })
            .collect();
        plan
    }

    fn proposed(all: &[(&str, What)], gone: &[&str], present: &[(FileAccess, &str)]) -> Vec<String> {
        let look = |path: &str| (!gone.contains(&path)).then_some(false);
        let place = Surroundings { home: HOME, workspace: WORK, look: &look };
        let base = granting(&[(FileAccess::Execute, "/usr"), (FileAccess::Read, "/etc/ssl")]);
        let proposal = propose(&needs(all), "strict", &base, &granting(present), &place);
        let line = |line: &Line| {
            format!("{} {} {}{}", line.access.as_str(), line.path, line.needs, if line.new { " new" } else { "" })
        };
        proposal.lines.iter().map(line).collect()
    }

    #[test]
    fn only_what_the_base_does_not_grant_becomes_a_line() {
        let all = [
            ("/usr/bin/node", What::Execute),
            ("/usr/lib/x.so", What::Read),
            ("/etc/ssl/certs/a.pem", What::Read),
            ("/etc/hosts", What::Read),
            ("/proc/self/maps", What::Read),
            ("/tmp/x/y", What::Write),
            ("/home/ada", What::Read),
            ("/home", What::Read),
            ("/", What::Read),
            ("/home/ada/site/src/main.ts", What::Read),
            ("/home/ada/site/out.js", What::Write),
            ("/home/ada/.npmrc", What::Read),
        ];
        let expected = ["read /etc/hosts 1 new", "read ~/.npmrc 1", "write @workspace 2 new"];
        assert_eq!(proposed(&all, &[], &[(FileAccess::Read, "/home/ada/.npmrc")]), expected);
    }

    #[test]
    fn several_things_of_a_folder_become_the_folder_but_never_one_that_holds_everything() {
        let all = [
            ("/home/ada/.npm/_cacache/a/1", What::Read),
            ("/home/ada/.npm/_cacache/a/2", What::Read),
            ("/home/ada/.npm/_cacache/a/3", What::Read),
            ("/home/ada/.npm/_cacache/b/1", What::Read),
            ("/home/ada/.npm/_cacache/c", What::Read),
            ("/home/ada/.config/a", What::Read),
            ("/home/ada/.config/b", What::Read),
            ("/home/ada/.config/c", What::Read),
            ("/etc/a", What::Read),
            ("/etc/b", What::Read),
            ("/etc/c", What::Read),
            ("/etc/d/1", What::Read),
            ("/etc/d/2", What::Read),
            ("/etc/d/3", What::Read),
        ];
        let expected = [
            "read /etc/a 1 new",
            "read /etc/b 1 new",
            "read /etc/c 1 new",
            "read /etc/d 3 new",
            "read ~/.config/a 1 new",
            "read ~/.config/b 1 new",
            "read ~/.config/c 1 new",
            "read ~/.npm/_cacache/a 3 new",
            "read ~/.npm/_cacache/b/1 1 new",
            "read ~/.npm/_cacache/c 1 new",
        ];
        assert_eq!(proposed(&all, &[], &[]), expected);
    }

    #[test]
    fn writing_what_is_gone_means_its_folder_and_stronger_lines_cover_weaker_ones() {
        let all = [
            ("/home/ada/.cache/tool/tmp.1", What::Write),
            ("/home/ada/.cache/tool/db", What::Read),
            ("/home/ada/.toolrc", What::Write),
            ("/home/ada/.gone", What::Write),
        ];
        let gone = ["/home/ada/.cache/tool/tmp.1", "/home/ada/.gone"];
        assert_eq!(
            proposed(&all, &gone, &[]),
            ["write ~/.cache/tool 2 new", "write ~/.gone 1 new", "write ~/.toolrc 1 new"]
        );
    }

    #[test]
    fn connections_and_idle_grants_are_told_apart() {
        let mut all = needs(&[("/home/ada/.npmrc", What::Read)]);
        for object in ["127.0.0.1:5432", "[::1]:80", "93.184.216.34:443", "/run/docker.sock", "/tmp/own.sock"] {
            all.connections.insert(object.to_owned(), Need::default());
        }
        let look = |path: &str| (path != "/home/ada/.m2").then_some(true);
        let place = Surroundings { home: HOME, workspace: WORK, look: &look };
        let grants = [
            (FileAccess::Read, "/home/ada/.npmrc"),
            (FileAccess::Read, "/home/ada/.gradle"),
            (FileAccess::Read, "/home/ada/.m2"),
            (FileAccess::Deny, "/home/ada/.ssh"),
        ];
        let proposal = propose(&all, "strict", &granting(&[]), &granting(&grants), &place);
        assert_eq!(proposal.ports, BTreeSet::from([80, 5432]));
        assert_eq!(proposal.sockets, BTreeSet::from(["/run/docker.sock".to_owned()]));
        assert_eq!(proposal.elsewhere, BTreeSet::from(["93.184.216.34:443".to_owned()]));
        assert_eq!(proposal.unused, [(FileAccess::Read, "~/.gradle".to_owned())]);
        let text = proposal.toml("what `npm test` needed");
        let expected = "about = \"what `npm test` needed\"\nextends = \"strict\"\n\n# read ~/.npmrc by node; 1 in all\n\
            [[files]]\naccess = \"read\"\npaths = [\"~/.npmrc\"]\n\n[[sockets]]\nhost = \"/run/docker.sock\"\n\n\
            [network]\nhost_loopback_ports = [80, 5432]\n";
        assert_eq!(text, expected);
    }
}
