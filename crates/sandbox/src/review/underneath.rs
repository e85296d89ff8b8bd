//! What changed underneath a layer since its run began: differences → those whose old side is not what the run saw.
//!
//! The snapshot of the start says what stood there; where it had not come by, the kernel's change times do. The one fact
//! a newcomer gets wrong: a *deletion* can conflict too. Whoever deletes a folder has not seen what was put into it since.

use std::collections::{BTreeMap, BTreeSet};

use super::compare::{Change, Difference, Kind, Side};
use super::fd::Stamp;
use super::folder::Folder;
use super::name::Relative;
use crate::changes::{entries, restored};

/// Why a difference cannot simply be carried over; in the order of the differences, `None` where it can.
pub(crate) fn conflicts(run: &Folder, differences: &[Difference]) -> Vec<Option<&'static str>> {
    let asked: BTreeSet<&Relative> = differences.iter().map(|difference| &difference.path).collect();
    let mut noted: BTreeMap<Relative, Stamp> = BTreeMap::new();
    let mut snapshot = entries(run);
    if let Some(entries) = &mut snapshot {
        noted.extend(entries.filter(|(path, _)| asked.contains(path)));
    }
    let back: BTreeMap<Relative, Stamp> = restored(run).filter(|(path, _)| asked.contains(path)).collect();
    let whole = snapshot.is_some_and(|entries| entries.whole);
    let began = run.facts().began_unix_ns;
    let judge = |difference: &Difference| match (back.get(&difference.path), &difference.before) {
        (Some(back), Some(now)) if *back == now.stamp => None,
        _ => conflict(difference, noted.get(&difference.path), whole, began),
    };
    differences.iter().map(judge).collect()
}

fn conflict(difference: &Difference, noted: Option<&Stamp>, whole: bool, began: i64) -> Option<&'static str> {
    let now = difference.before.as_ref();
    if difference.path.is_root() {
        return None;
    }
    match (noted, now) {
        (Some(noted), Some(now)) => moved(noted, now, began).then_some("changed in the workspace since the run began"),
        (Some(_), None) => Some("deleted in the workspace since the run began"),
        (None, Some(now)) if whole || now.stamp.changed_ns > began => Some(match difference.change {
            Change::Deleted => "appeared in the workspace since the run began",
            _ => "appeared or changed in the workspace since the run began",
        }),
        (None, _) => None,
    }
}

fn moved(noted: &Stamp, now: &Side, began: i64) -> bool {
    let now_stamp = &now.stamp;
    let other = (noted.device, noted.inode, noted.mode) != (now_stamp.device, now_stamp.inode, now_stamp.mode);
    // A folder's times move with every name in it; what matters of them are the names, which are looked at themselves.
    let content = now.kind != Kind::Folder && (noted != now_stamp || noted.changed_ns > began);
    other || content
}
