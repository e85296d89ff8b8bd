//! The files of a plan to a list of pieces: what stands at which path of the cage, parents before children.
//!
//! It looks at the host but changes nothing. A grant is put at its path without links; the system's links on the way
//! are told apart, to be made again inside. The one fact a newcomer gets wrong: the order counts: a piece covers what
//! an earlier one shows at its path, which is how "the longest path wins" comes true.

use creel_model::cage::{CagePlan, FileAccess, FileRule, WorkspaceMode};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::resolve::{Unresolved, components, open_without_links, resolve};

/// Folders of the cage that hold nothing of the host and may be written: their path and their mode.
const SCRATCH: [(&str, u32); 3] = [("/dev/shm", 0o1777), ("/tmp", 0o1777), ("/var/tmp", 0o1777)];
/// Paths that the cage makes itself; a grant at or below them is refused, below `/dev` single files are not.
const OWN: [&str; 1] = ["/proc"];
/// Top-level folders that a grant of `/` does not include: each is made anew, or granted by its own name.
const NOT_WITH_ROOT: [&str; 5] = ["proc", "dev", "sys", "run", "tmp"];
/// Most lines of files in a plan.
const MAX_RULES: usize = 4096;

/// What stands at a path of the cage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// An object of the host, by its path without links.
    Host {
        /// That path.
        path: String,
        /// What may be done with it.
        access: FileAccess,
        /// It is a directory.
        directory: bool,
    },
    /// An empty folder of the cage's own that holds the places of grants and nothing else: it stands for a refused one.
    Hollow,
    /// An empty folder of the cage's own that may be written, with its mode.
    Scratch(u32),
    /// Nothing can be read or listed here, whatever an earlier piece shows.
    Denied,
    /// The copy-on-write layer of the workspace.
    Layer,
    /// A symbolic link with this text.
    Link(String),
}

/// One piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where, without links.
    pub(crate) at: String,
    /// What.
    pub(crate) what: What,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// In the order of mounting.
    pub(crate) pieces: Vec<Piece>,
    /// Optional grants that were left out, each with the reason.
    pub(crate) left_out: Vec<String>,
    /// The plan's listed programs; empty where every program may be started.
    programs: Vec<String>,
}

impl Layout {
    /// Whether nothing that lies at or below this path may be executed or mapped for it, although it may be written:
    /// programs are listed, and none of them is there.
    pub(crate) fn without_programs(&self, path: &str) -> bool {
        let meets = |program: &String| within(program, path) || within(path, program);
        !self.programs.is_empty() && !self.programs.iter().any(meets)
    }
}

/// Why there is no layout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// A line cannot be carried out.
    #[error("`{path}` cannot be granted: {why}")]
    Line {
        /// The path of the line.
        path: String,
        /// Why.
        why: String,
    },
    /// Too many lines.
    #[error("the plan has more than {MAX_RULES} lines of files")]
    TooMany,
}

/// The layout of a plan for an account with this home folder.
///
/// # Errors
/// [`Refused`].
pub(crate) fn lay_out(plan: &CagePlan, home: &str) -> Result<Layout, Refused> {
    if plan.files.len() > MAX_RULES {
        return Err(Refused::TooMany);
    }
    let mut layout = Layout { programs: plan.programs.clone(), ..Layout::default() };
    for (at, mode) in SCRATCH {
        layout.pieces.push(Piece { at: at.to_owned(), what: What::Scratch(mode) });
    }
    if components(home).is_some_and(|parts| !parts.is_empty()) {
        layout.pieces.push(Piece { at: home.to_owned(), what: What::Scratch(0o700) });
    }
    for rule in &plan.files {
        if rule.path == "/" && rule.access != FileAccess::Deny {
            for rule in below_root(rule)? {
                add(&mut layout, &rule)?;
            }
        } else {
            add(&mut layout, rule)?;
        }
    }
    for socket in &plan.sockets {
        let refused = |why: String| Refused::Line { path: socket.host.clone(), why };
        components(&socket.cage).ok_or_else(|| refused(Unresolved::Form.to_string()))?;
        let found = resolve(&socket.host).map_err(|why| refused(why.to_string()))?;
        let what = What::Host { path: found.path, access: FileAccess::Read, directory: false };
        layout.pieces.push(Piece { at: socket.cage.clone(), what });
    }
    if plan.mode == WorkspaceMode::Review {
        let found = resolve(&plan.workspace)
            .map_err(|why| Refused::Line { path: plan.workspace.clone(), why: why.to_string() })?;
        take_into_layer(&mut layout.pieces, &found.path)?;
        layout.pieces.push(Piece { at: found.path, what: What::Layer });
    }
    hollow(&mut layout.pieces);
    order(&mut layout.pieces);
    Ok(layout)
}

/// In review, grants of writing inside the workspace are the layer's: bound from the host they would be written at once.
///
/// # Errors
/// Where something less stands between, so that the layer does not reach there.
fn take_into_layer(pieces: &mut Vec<Piece>, workspace: &str) -> Result<(), Refused> {
    let inside = |piece: &Piece| piece.at != workspace && within(&piece.at, workspace);
    let writes = |piece: &Piece| matches!(piece.what, What::Host { access: FileAccess::Write, .. });
    for piece in pieces.iter().filter(|piece| inside(piece) && writes(piece)) {
        let above = pieces.iter().filter(|other| inside(other) && other.at != piece.at && within(&piece.at, &other.at));
        if above.max_by_key(|other| other.at.len()).is_some_and(|above| !writes(above)) {
            let why = "in review it cannot be written: a line above it grants less".to_owned();
            return Err(Refused::Line { path: piece.at.clone(), why });
        }
    }
    pieces.retain(|piece| !(inside(piece) && writes(piece)));
    Ok(())
}

/// A refusal with a grant below it becomes an empty folder in which that grant stands.
fn hollow(pieces: &mut [Piece]) {
    let granted: Vec<String> =
        pieces.iter().filter(|piece| matches!(piece.what, What::Host { .. })).map(|piece| piece.at.clone()).collect();
    for piece in pieces.iter_mut().filter(|piece| piece.what == What::Denied) {
        if granted.iter().any(|at| *at != piece.at && within(at, &piece.at)) {
            piece.what = What::Hollow;
        }
    }
}

/// Adds a folder of sockets: read-only, at another path than the host's.
///
/// # Errors
/// [`Refused`].
pub(crate) fn add_folder(layout: &mut Layout, host: &str, at: &str) -> Result<(), Refused> {
    let refused = |why: String| Refused::Line { path: host.to_owned(), why };
    components(at).filter(|parts| !parts.is_empty()).ok_or_else(|| refused(Unresolved::Form.to_string()))?;
    let found = resolve(host).map_err(|why| refused(why.to_string()))?;
    let directory = found.is_directory();
    let what = What::Host { path: found.path, access: FileAccess::Read, directory };
    layout.pieces.push(Piece { at: at.to_owned(), what });
    order(&mut layout.pieces);
    Ok(())
}

/// Makes a granted folder that is not there yet, for this account only. Without the folder above it it stays away.
fn make_folder(path: &str) -> Result<(), Errno> {
    let Some((parent, name)) = path.rsplit_once('/') else { return Ok(()) };
    let above = match open_without_links(if parent.is_empty() { "/" } else { parent }) {
        Ok(above) => above,
        // A folder behind a link is nobody's to be made in.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    match rustix::fs::mkdirat(&above, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn add(layout: &mut Layout, rule: &FileRule) -> Result<(), Refused> {
    let refused = |why: String| Refused::Line { path: rule.path.clone(), why };
    if OWN.iter().any(|own| within(&rule.path, own)) || rule.path == "/dev" {
        return Err(refused("the cage has its own".to_owned()));
    }
    if rule.make && rule.access == FileAccess::Write {
        make_folder(&rule.path).map_err(|errno| refused(format!("it cannot be made: {errno}")))?;
    }
    if rule.access == FileAccess::Deny {
        // What a refusal names is looked up inside, through links, when everything else stands.
        components(&rule.path).ok_or_else(|| refused(Unresolved::Form.to_string()))?;
        layout.pieces.push(Piece { at: rule.path.clone(), what: What::Denied });
        return Ok(());
    }
    let mut resolved = resolve(&rule.path);
    if let (Err(Unresolved::Missing), Some(text)) = (&resolved, &rule.initial) {
        begin(&rule.path, text).map_err(|errno| refused(format!("it cannot be begun: {errno}")))?;
        resolved = resolve(&rule.path);
    }
    match resolved {
        Ok(found) => {
            let directory = found.is_directory();
            for (at, text) in found.links {
                layout.pieces.push(Piece { at, what: What::Link(text) });
            }
            let what = What::Host { path: found.path.clone(), access: rule.access, directory };
            layout.pieces.push(Piece { at: found.path, what });
            Ok(())
        }
        Err(why) if rule.optional => {
            if why != Unresolved::Missing {
                layout.left_out.push(format!("`{}`: {why}", rule.path));
            }
            Ok(())
        }
        Err(why) => Err(refused(why.to_string())),
    }
}

/// Makes a granted file that is not there yet, for this account only. Without its folder it stays away; whoever makes
/// it at the same moment is as good.
fn begin(path: &str, text: &str) -> Result<(), Errno> {
    let Some((parent, name)) = path.rsplit_once('/') else { return Ok(()) };
    let folder = match open_without_links(if parent.is_empty() { "/" } else { parent }) {
        Ok(folder) => folder,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&folder, name, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => {
            let mut rest = text.as_bytes();
            while !rest.is_empty() {
                let written = rustix::io::write(&file, rest)?;
                rest = rest.get(written..).unwrap_or_default();
            }
            Ok(())
        }
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// A grant of `/` as grants of what lies there.
fn below_root(rule: &FileRule) -> Result<Vec<FileRule>, Refused> {
    let failed = |error: std::io::Error| Refused::Line { path: rule.path.clone(), why: error.to_string() };
    let mut rules = Vec::new();
    for entry in std::fs::read_dir("/").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str().filter(|name| !NOT_WITH_ROOT.contains(name)) else { continue };
        rules.push(FileRule { path: format!("/{name}"), optional: true, ..rule.clone() });
    }
    rules.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(rules)
}

/// Whether `path` is `folder` or lies below it.
pub(crate) fn within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || folder == "/")
}

/// Sorts parents before children, and keeps of several pieces at one path the one that counts.
fn order(pieces: &mut Vec<Piece>) {
    // Refusals go last of all: they are looked up in the finished cage.
    pieces.sort_by(|a, b| {
        let denied = |piece: &Piece| piece.what == What::Denied;
        denied(a).cmp(&denied(b)).then_with(|| a.at.split('/').cmp(b.at.split('/'))).then_with(|| rank(b).cmp(&rank(a)))
    });
    pieces.dedup_by(|next, kept| next.at == kept.at && (next.what == What::Denied) == (kept.what == What::Denied));
    // A grant that its folder makes already would be one mount more for nothing.
    let mut above: Vec<Piece> = Vec::new();
    pieces.retain(|piece| {
        above.retain(|folder| within(&piece.at, &folder.at));
        let shown = above.last().is_some_and(|folder| shows(folder, piece));
        if !shown && piece.what != What::Denied {
            above.push(piece.clone());
        }
        !shown
    });
}

/// Whether a folder's grant shows what a piece below it would, with the same rights.
fn shows(folder: &Piece, piece: &Piece) -> bool {
    match (&folder.what, &piece.what) {
        (What::Host { path: outer, access: one, directory: true }, What::Host { path: inner, access: other, .. }) => {
            one == other && *outer == folder.at && *inner == piece.at
        }
        _ => false,
    }
}

/// Which of two pieces at one path counts: the higher.
fn rank(piece: &Piece) -> u8 {
    match &piece.what {
        What::Denied => 9,
        What::Layer => 8,
        // Of two equal grants the one that allows less.
        What::Host { access: FileAccess::Read, .. } => 7,
        What::Host { access: FileAccess::Execute, .. } => 6,
        What::Host { .. } => 5,
        What::Hollow | What::Scratch(_) => 4,
        What::Link(_) => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(at: &str, what: What) -> Piece {
        Piece { at: at.to_owned(), what }
    }

    fn host(path: &str, access: FileAccess) -> Piece {
        piece(path, What::Host { path: path.to_owned(), access, directory: true })
    }

    #[test]
    fn parents_come_before_children_and_refusals_last() {
        let mut pieces = vec![
            piece("/a/b/secret", What::Denied),
            host("/a/b", FileAccess::Write),
            host("/a-b", FileAccess::Read),
            host("/a", FileAccess::Execute),
        ];
        order(&mut pieces);
        let paths: Vec<&str> = pieces.iter().map(|piece| piece.at.as_str()).collect();
        assert_eq!(paths, ["/a", "/a/b", "/a-b", "/a/b/secret"]);
    }

    #[test]
    fn a_grant_that_its_folder_makes_is_no_piece_of_its_own() {
        let mut pieces = vec![
            host("/usr", FileAccess::Execute),
            host("/usr/bin", FileAccess::Execute),
            host("/usr/local", FileAccess::Write),
            host("/usr/local/bin", FileAccess::Execute),
            host("/usr/share", FileAccess::Execute),
        ];
        order(&mut pieces);
        let paths: Vec<&str> = pieces.iter().map(|piece| piece.at.as_str()).collect();
        assert_eq!(paths, ["/usr", "/usr/local", "/usr/local/bin"]);
    }

    #[test]
    fn of_two_grants_of_one_path_the_smaller_counts_and_both_beat_the_scratch_folder() {
        let mut pieces =
            vec![piece("/tmp", What::Scratch(0o1777)), host("/tmp", FileAccess::Write), host("/tmp", FileAccess::Read)];
        order(&mut pieces);
        assert_eq!(pieces, [host("/tmp", FileAccess::Read)]);
    }

    #[test]
    fn in_review_nothing_inside_the_workspace_is_written_past_the_layer() {
        let mut pieces = vec![
            host("/w", FileAccess::Write),
            host("/w/target", FileAccess::Write),
            host("/w/data", FileAccess::Read),
            host("/work", FileAccess::Write),
        ];
        take_into_layer(&mut pieces, "/w").unwrap();
        let left = [host("/w", FileAccess::Write), host("/w/data", FileAccess::Read), host("/work", FileAccess::Write)];
        assert_eq!(pieces, left);
        for above in [piece("/w/data", What::Denied), host("/w/data", FileAccess::Read)] {
            let mut pieces = vec![host("/w", FileAccess::Write), above, host("/w/data/out", FileAccess::Write)];
            assert!(take_into_layer(&mut pieces, "/w").is_err());
        }
    }

    #[test]
    fn a_refusal_with_a_grant_below_becomes_an_empty_folder() {
        let mut pieces = vec![
            host("/a", FileAccess::Read),
            piece("/a/b", What::Denied),
            host("/a/b/c", FileAccess::Read),
            piece("/a/d", What::Denied),
        ];
        hollow(&mut pieces);
        order(&mut pieces);
        let whats: Vec<&What> = pieces.iter().map(|piece| &piece.what).collect();
        assert!(matches!(whats.as_slice(), [What::Host { .. }, What::Hollow, What::Host { .. }, What::Denied]));
    }

    #[test]
    fn a_granted_file_that_is_missing_is_begun_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let rule = FileRule {
            path: path.to_str().unwrap().to_owned(),
            access: FileAccess::Write,
            optional: true,
            source: String::new(),
            initial: Some("{}\n".to_owned()),
            make: false,
        };
        for text in ["{}\n", "{\"kept\": 1}"] {
            let mut layout = Layout::default();
            add(&mut layout, &rule).unwrap();
            assert_eq!(layout.pieces.len(), 1);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            std::fs::write(&path, "{\"kept\": 1}").unwrap();
        }
        // In a folder that is not there nothing is made.
        let missing = FileRule { path: format!("{}/none/x", folder.path().display()), ..rule };
        let mut layout = Layout::default();
        add(&mut layout, &missing).unwrap();
        assert!(layout.pieces.is_empty());
    }

    #[test]
    fn a_folder_that_is_to_be_kept_is_made_where_it_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let rule = |path: std::path::PathBuf| FileRule {
            path: path.display().to_string(),
            access: FileAccess::Write,
            optional: true,
            initial: None,
            make: true,
            source: String::new(),
        };
        let mut layout = Layout::default();
        add(&mut layout, &rule(base.join("state"))).unwrap();
        add(&mut layout, &rule(base.join("none/state"))).unwrap();
        assert_eq!(layout.pieces.len(), 1);
        std::os::unix::fs::symlink(base.join("state"), base.join("link")).unwrap();
        let _ = add(&mut layout, &rule(base.join("link/inside")));
        assert_eq!(std::fs::read_dir(base.join("state")).unwrap().count(), 0, "nothing is made through a link");
        let read = FileRule { access: FileAccess::Read, ..rule(base.join("other")) };
        add(&mut layout, &read).unwrap();
        assert!(!base.join("other").exists());
    }

    #[test]
    fn within_counts_whole_components() {
        assert!(within("/a/b", "/a"));
        assert!(within("/a", "/a"));
        assert!(within("/a", "/"));
        assert!(!within("/ab", "/a"));
    }
}
