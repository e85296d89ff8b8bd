//! The snapshot of a run and its workspace now, or its layer → what changed, as a list and as events.
//!
//! The one fact a newcomer gets wrong: a content time can be set by anybody, a change time only by the kernel. A file
//! whose change time moved counts as changed unless both digests are known and equal.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use creel_model::cage::{CageEvent, CageEventKind, WorkspaceMode};
use creel_model::id::Digest;
use rustix::fs::FileType;

use super::snapshot::{digests, entries, walk};
use crate::review::compare::{Change, Comparison, Kind, Side, compare, digest_at};
use crate::review::fd::Stamp;
use crate::review::{Folder, Relative, fd};

/// Events that one run's changes become; more changes are counted folder by folder.
pub const CHANGES_MAX: usize = 500;
/// Changes of one folder that are listed one by one when there are too many altogether.
const FOLDER_MAX: usize = 8;
/// Changes that are held; more are counted.
const HELD_MAX: usize = 200_000;
/// How long the walk at the end may take.
const WALK_TIME_MAX: Duration = Duration::from_secs(1);
/// Bytes of a file that is hashed at the end.
const DIGEST_BYTES_MAX: u64 = 4 << 20;
/// Bytes that are hashed at the end, both sides and all files together.
const DIGEST_BYTES_TOTAL: u64 = 64 << 20;

/// How a file changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clue {
    /// It was not there before.
    Created,
    /// Its content, identity or times are others.
    Changed,
    /// Its permissions only.
    Permissions,
    /// It is gone.
    Deleted,
}

impl Clue {
    /// One word, as it stands in an event.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Clue::Created => "created",
            Clue::Changed => "changed",
            Clue::Permissions => "permissions",
            Clue::Deleted => "deleted",
        }
    }
}

/// One changed file, link or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Where, below the workspace.
    pub path: Relative,
    /// How.
    pub clue: Clue,
    /// Bytes before, where known; folders have none.
    pub size_before: Option<u64>,
    /// Bytes after.
    pub size_after: Option<u64>,
}

/// Everything that changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// In the order of a walk.
    pub changed: Vec<Changed>,
    /// Changes beyond those held.
    pub beyond: u64,
    /// Why the list may be incomplete; empty when it is not.
    pub gaps: Vec<&'static str>,
}

/// A run as far as its changes are concerned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ground<'a> {
    /// The workspace.
    pub(crate) workspace: BorrowedFd<'a>,
    /// Its absolute path.
    pub(crate) path: &'a str,
    /// When the run began, by the clock that stamps files.
    pub(crate) began_unix_ns: i64,
    /// creel's state folder: where it lies in the workspace, changes there are creel's own.
    pub(crate) state: &'a Path,
    /// Its folder; a short run on the workspace itself has none.
    pub(crate) run: Option<&'a Folder>,
}

impl<'a> Ground<'a> {
    fn of(run: &'a Folder) -> Self {
        let facts = run.facts();
        let (path, began_unix_ns) = (facts.workspace.as_str(), facts.began_unix_ns);
        // `<state>/runs/<run>`
        let state = run.path().ancestors().nth(2).unwrap_or(run.path());
        Self { workspace: run.workspace(), path, began_unix_ns, state, run: Some(run) }
    }

    /// Finds out what changed.
    pub(crate) fn after(&self) -> Changes {
        match self.run.filter(|run| run.facts().mode == WorkspaceMode::Review) {
            Some(run) => of_layer(run),
            None => of_workspace(self),
        }
    }
}

/// Finds out what changed since the run began: in its layer, or in the workspace by the snapshot.
#[must_use]
pub fn after(run: &Folder) -> Changes {
    Ground::of(run).after()
}

/// The events of changes, at most [`CHANGES_MAX`] and one more that says what is missing. Files get digests as far as a
/// budget goes. To be called right after [`after`], before anything else changes the files.
#[must_use]
pub fn events(run: &Folder, changes: &Changes, now_unix_ns: i64) -> Vec<CageEvent> {
    Ground::of(run).events(changes, now_unix_ns)
}

impl Ground<'_> {
    /// As [`events`].
    pub(crate) fn events(&self, changes: &Changes, now_unix_ns: i64) -> Vec<CageEvent> {
        events_on(self, changes, now_unix_ns)
    }
}

fn events_on(ground: &Ground<'_>, changes: &Changes, now_unix_ns: i64) -> Vec<CageEvent> {
    let mut digests = Digests::new(ground, changes);
    // A layer holds what the run wrote and nothing else; in a workspace anybody may have.
    let whose = if digests.upper.is_some() { "in the layer that waits for review" } else { "while the run went on" };
    let object = |path: &Relative| {
        if path.is_root() { ground.path.to_owned() } else { format!("{}/{}", ground.path, path.shown()) }
    };
    let mut events = Vec::new();
    for line in lines(changes) {
        let mut event = CageEvent::new(CageEventKind::Changed, now_unix_ns, object(line.path()));
        match line {
            Line::One(changed) => {
                (event.before, event.after) = digests.of(changed);
                // Opened for writing, or touched, and still the same.
                if changed.clue == Clue::Changed && event.before.is_some() && event.before == event.after {
                    continue;
                }
                event.call = changed.clue.word().to_owned();
                event.reason = [sizes(changed).as_str(), whose].join(", ").trim_start_matches(", ").to_owned();
            }
            Line::Many { counts, .. } => {
                event.call = "changed".to_owned();
                event.times = counts.values().sum();
                let words = counts.iter().map(|(clue, count)| format!("{count} {}", clue.word()));
                event.reason = format!("below this folder: {}, {whose}", words.collect::<Vec<_>>().join(", "));
            }
        }
        events.push(event);
    }
    if changes.beyond > 0 || !changes.gaps.is_empty() {
        let mut event = CageEvent::new(CageEventKind::Changed, now_unix_ns, ground.path);
        event.call = "incomplete".to_owned();
        event.reason = changes.gaps.join("; ");
        event.times = changes.beyond.max(1);
        events.push(event);
    }
    events
}

fn sizes(changed: &Changed) -> String {
    match (changed.size_before, changed.size_after) {
        (Some(before), Some(after)) => format!("{before} → {after} bytes"),
        (None, Some(after)) => format!("{after} bytes"),
        (Some(before), None) => format!("had {before} bytes"),
        (None, None) => String::new(),
    }
}

fn of_layer(run: &Folder) -> Changes {
    let Ok(upper) = fd::child(run.fd(), "upper".as_ref()) else {
        return Changes { gaps: vec!["the layer cannot be read"], ..Changes::default() };
    };
    let Comparison { differences, unread, cut } = compare(upper.as_fd(), run.workspace(), &BTreeSet::new());
    let mut changes = Changes::default();
    if !unread.is_empty() {
        changes.gaps.push("a part of the layer cannot be read");
    }
    if cut {
        changes.gaps.push("the layer holds more than is listed");
    }
    let size = |side: &Option<Side>| side.as_ref().filter(|side| side.kind != Kind::Folder).map(|side| side.size);
    changes.changed.extend(differences.iter().map(|difference| Changed {
        path: difference.path.clone(),
        clue: match difference.change {
            Change::Created | Change::Renamed { .. } => Clue::Created,
            Change::Changed | Change::Replaced => Clue::Changed,
            Change::Permissions => Clue::Permissions,
            Change::Deleted => Clue::Deleted,
        },
        size_before: size(&difference.before),
        size_after: size(&difference.after),
    }));
    changes
}

fn of_workspace(ground: &Ground<'_>) -> Changes {
    let began = ground.began_unix_ns;
    let mut changes = Changes::default();
    let mut snapshot = ground.run.and_then(entries);
    let mut noted = snapshot.as_mut().and_then(Iterator::next);
    let deadline = Instant::now() + WALK_TIME_MAX;
    let (mut visited, mut late) = (0_u64, false);
    let whole = walk(ground.workspace, &mut |path, now| {
        visited += 1;
        if visited.is_multiple_of(256) && Instant::now() > deadline {
            late = true;
            return false;
        }
        // Both walks take the same order, so what was noted and comes earlier is gone.
        while let Some((gone, stamp)) = noted.take_if(|(before, _)| before.parts().lt(path.parts())) {
            changes.push(&gone, Clue::Deleted, Some(&stamp), None);
            noted = snapshot.as_mut().and_then(Iterator::next);
        }
        match noted.take_if(|(before, _)| before == path) {
            Some((_, before)) => {
                noted = snapshot.as_mut().and_then(Iterator::next);
                if let Some(clue) = clue(&before, now, began) {
                    changes.push(path, clue, Some(&before), Some(now));
                }
            }
            None if noted.is_some() || snapshot.as_ref().is_some_and(|entries| entries.whole) => {
                changes.push(path, Clue::Created, None, Some(now));
            }
            // The snapshot ended before this: the change time alone answers, and a folder's moves with its names.
            None if now.changed_ns >= began && now.kind() != FileType::Directory => {
                changes.push(path, Clue::Changed, None, Some(now));
            }
            None => {}
        }
        true
    });
    let own = ground.state.strip_prefix(ground.path).ok().and_then(Relative::parse);
    changes.changed.retain(|changed| !own.as_ref().is_some_and(|own| changed.path.is_within(own)));
    if late {
        changes.gaps.push("the walk at the end took too long");
        return changes;
    }
    if !whole {
        changes.gaps.push("a part of the workspace cannot be read");
    }
    while let Some((gone, stamp)) = noted {
        changes.push(&gone, Clue::Deleted, Some(&stamp), None);
        noted = snapshot.as_mut().and_then(Iterator::next);
    }
    if !snapshot.is_some_and(|entries| entries.whole) {
        changes.gaps.push("the walk at the start did not come to its end, so that deletions may be missing");
    }
    changes
}

fn clue(before: &Stamp, now: &Stamp, began: i64) -> Option<Clue> {
    let same_kind = before.kind() == now.kind();
    if now.kind() == FileType::Directory && same_kind {
        return (before.permissions() != now.permissions()).then_some(Clue::Permissions);
    }
    let untouched = before.changed_ns == now.changed_ns && before.inode == now.inode && before.device == now.device;
    if untouched && now.changed_ns < began {
        return None;
    }
    let same_content =
        same_kind && before.inode == now.inode && before.size == now.size && before.modified_ns == now.modified_ns;
    let permissions_only = same_content && before.permissions() != now.permissions();
    Some(if permissions_only { Clue::Permissions } else { Clue::Changed })
}

impl Changes {
    fn push(&mut self, path: &Relative, clue: Clue, before: Option<&Stamp>, after: Option<&Stamp>) {
        if self.changed.len() >= HELD_MAX {
            if self.beyond == 0 {
                self.gaps.push("there are more changes than are held");
            }
            self.beyond += 1;
            return;
        }
        let size = |stamp: &Stamp| (stamp.kind() != FileType::Directory).then_some(stamp.size);
        self.changed.push(Changed {
            path: path.clone(),
            clue,
            size_before: before.and_then(size),
            size_after: after.and_then(size),
        });
    }
}

enum Line<'a> {
    One(&'a Changed),
    Many { folder: Relative, counts: BTreeMap<Clue, u64> },
}

impl Line<'_> {
    fn path(&self) -> &Relative {
        match self {
            Line::One(changed) => &changed.path,
            Line::Many { folder, .. } => folder,
        }
    }
}

/// One line per change; where these are too many, folders with many changes become one line each, the deepest first.
fn lines(changes: &Changes) -> Vec<Line<'_>> {
    let all = &changes.changed;
    if all.len() <= CHANGES_MAX {
        return all.iter().map(Line::One).collect();
    }
    let deepest = all.iter().map(|changed| changed.path.depth()).max().unwrap_or(0);
    for depth in (0..deepest).rev() {
        let mut groups: BTreeMap<Relative, Vec<&Changed>> = BTreeMap::new();
        let mut single = Vec::new();
        for changed in all {
            if changed.path.depth() > depth {
                let folder = changed.path.parts().take(depth).try_fold(Relative::root(), |at, part| at.join(part));
                groups.entry(folder.unwrap_or_default()).or_default().push(changed);
            } else {
                single.push(changed);
            }
        }
        let count: usize = groups.values().map(|group| if group.len() > FOLDER_MAX { 1 } else { group.len() }).sum();
        if count + single.len() > CHANGES_MAX && depth > 0 {
            continue;
        }
        let mut lines: Vec<Line<'_>> = single.into_iter().map(Line::One).collect();
        for (folder, group) in groups {
            if group.len() <= FOLDER_MAX {
                lines.extend(group.into_iter().map(Line::One));
                continue;
            }
            let mut counts = BTreeMap::new();
            for changed in group {
                *counts.entry(changed.clue).or_default() += 1;
            }
            lines.push(Line::Many { folder, counts });
        }
        return lines;
    }
    Vec::new()
}

/// Digests for events, within a budget.
struct Digests<'a> {
    workspace: BorrowedFd<'a>,
    upper: Option<std::os::fd::OwnedFd>,
    early: BTreeMap<Relative, Digest>,
    budget: u64,
}

impl<'a> Digests<'a> {
    fn new(ground: &Ground<'a>, changes: &Changes) -> Self {
        let workspace = ground.workspace;
        let mut result = Self { workspace, upper: None, early: BTreeMap::new(), budget: DIGEST_BYTES_TOTAL };
        let Some(run) = ground.run else { return result };
        if run.facts().mode == WorkspaceMode::Review {
            result.upper = fd::child(run.fd(), "upper".as_ref()).ok();
        } else {
            let asked: BTreeSet<&Relative> = changes.changed.iter().map(|changed| &changed.path).collect();
            result.early = digests(run).filter(|(path, _)| asked.contains(path)).collect();
        }
        result
    }

    fn of(&mut self, changed: &Changed) -> (Option<Digest>, Option<Digest>) {
        let before = match (changed.clue, &self.upper) {
            (Clue::Created, _) => None,
            (_, Some(_)) => self.hash(Place::Workspace, changed, changed.size_before),
            (_, None) => self.early.get(&changed.path).cloned(),
        };
        let after = match (changed.clue, &self.upper) {
            (Clue::Deleted, _) => None,
            // Copied up with its content: what stands below is the same.
            (_, Some(_)) => self.hash(Place::Layer, changed, changed.size_after),
            (_, None) => self.hash(Place::Workspace, changed, changed.size_after),
        };
        (before, after)
    }

    fn hash(&mut self, place: Place, changed: &Changed, size: Option<u64>) -> Option<Digest> {
        let size = size.filter(|size| *size <= DIGEST_BYTES_MAX)?;
        self.budget = self.budget.checked_sub(size)?;
        let base = match place {
            Place::Workspace => self.workspace,
            Place::Layer => self.upper.as_ref()?.as_fd(),
        };
        digest_at(base, &changed.path, DIGEST_BYTES_MAX)
    }
}

#[derive(Clone, Copy)]
enum Place {
    Workspace,
    Layer,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::super::Snapshot;
    use super::*;
    use crate::review::test::{Trial, as_account, move_file_clock, plan};

    fn said(run: &Folder) -> Vec<String> {
        let prefix = format!("{}/", run.facts().workspace);
        let line = |event: &CageEvent| {
            let object = event.object.strip_prefix(&prefix).unwrap_or(".").to_owned();
            let known = |digest: &Option<Digest>| if digest.is_some() { "+" } else { "-" };
            let reason = if event.times > 1 { &event.reason } else { "" };
            format!("{} {object} {}{}{reason}", event.call, known(&event.before), known(&event.after))
        };
        let mut lines: Vec<String> = events(run, &after(run), 0).iter().map(line).collect();
        lines.sort();
        lines
    }

    fn direct(dir: &Path) -> Folder {
        Folder::create(&dir.join("state"), &plan("r-1", &dir.join("work"), WorkspaceMode::Direct)).unwrap()
    }

    fn shell(dir: &Path, script: &str) {
        let status = std::process::Command::new("sh").args(["-ec", script]).current_dir(dir.join("work")).status();
        assert!(status.unwrap().success());
    }

    const PREPARE: &str = "echo one > changed; echo two > deleted; echo four > mode; echo five > touched; echo x > same
        mkdir -p dir/sub; echo a > dir/sub/a; echo b > dir/b; echo i > identical";
    const RUN: &str = "echo more >> changed; rm deleted; chmod 755 mode; touch touched; mkdir new; echo n > new/n
        rm -r dir/sub; echo i > identical; touch -d @0 dir/b";

    #[test]
    fn direct_changes_are_found_by_the_snapshot_with_digests_of_both_sides() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        shell(dir.path(), PREPARE);
        move_file_clock(dir.path());
        let run = direct(dir.path());
        assert_eq!(said(&run), ["incomplete . --"], "nothing changed and nothing is known of the start");
        assert!(Snapshot::take_until(&run, true, &AtomicBool::new(false)).unwrap().whole);
        assert_eq!(said(&run), [""; 0]);
        shell(dir.path(), RUN);
        // Touched files are equal by their digests, and so not in the list.
        let expected = [
            "changed changed ++",
            "created new --",
            "created new/n -+",
            "deleted deleted +-",
            "deleted dir/sub --",
            "deleted dir/sub/a +-",
            "permissions mode ++",
        ];
        assert_eq!(said(&run), expected);
    }

    #[test]
    fn without_a_snapshot_change_times_answer_and_the_gap_is_said() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        shell(dir.path(), PREPARE);
        move_file_clock(dir.path());
        let run = direct(dir.path());
        shell(dir.path(), RUN);
        let expected = [
            "changed changed -+",
            "changed dir/b -+",
            "changed identical -+",
            "changed mode -+",
            "changed new/n -+",
            "changed touched -+",
            "incomplete . --",
        ];
        assert_eq!(said(&run), expected);
    }

    #[test]
    fn what_creel_writes_in_a_workspace_that_holds_its_state_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        shell(dir.path(), "mkdir -p state/journal; echo old > file; echo old > state/journal/tile");
        move_file_clock(dir.path());
        let workspace = dir.path().join("work");
        let plan = plan("r-1", &workspace, WorkspaceMode::Direct);
        let run = Folder::create(&workspace.join("state"), &plan).unwrap();
        Snapshot::take(&run).unwrap();
        shell(dir.path(), "echo new > file; echo new > state/journal/tile");
        assert_eq!(said(&run), ["changed file -+"]);
    }

    #[test]
    fn many_changes_are_counted_by_folder_and_lost_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        shell(dir.path(), "echo one > changed");
        move_file_clock(dir.path());
        let run = direct(dir.path());
        Snapshot::take(&run).unwrap();
        shell(
            dir.path(),
            "echo more > changed; for a in a b c; do for b in 1 2 3 4 5 6 7 8 9; do mkdir -p store/$a/$b
             for c in 0 1 2 3 4 5 6 7 8 9 x y z u v w; do : > store/$a/$b/$c; : > store/$a/$b/$c$c; done; done; done
             mkdir few; echo f > few/f",
        );
        let all = after(&run);
        let events = events(&run, &all, 0);
        assert!(events.len() <= CHANGES_MAX);
        assert_eq!(events.iter().map(|event| event.times).sum::<u64>(), all.changed.len() as u64);
        let objects: Vec<&str> = events.iter().map(|event| event.object.as_str()).collect();
        assert!(objects.iter().any(|object| object.ends_with("/work/changed")));
        assert!(objects.iter().any(|object| object.ends_with("/work/few/f")));
        assert!(events.iter().any(|event| event.reason.contains("32 created")), "{events:?}");
    }

    #[test]
    fn a_layers_changes_have_digests_of_both_sides() {
        if !as_account("changes::after::tests::a_layers_changes_have_digests_of_both_sides") {
            return;
        }
        let trial = Trial::new(PREPARE, RUN);
        let expected = [
            "changed changed ++",
            "created new --",
            "created new/n -+",
            "deleted deleted +-",
            "deleted dir/sub --",
            "deleted dir/sub/a +-",
            "permissions mode ++",
        ];
        assert_eq!(said(&trial.folder()), expected);
    }
}
