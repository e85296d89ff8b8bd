//! What the daemon sees of a finished cage from outside, as controls of its statement.
//!
//! Each of these is the kernel's word about the very process that will execute the command. The one fact a newcomer gets
//! wrong: what cannot be seen (the namespaces of a process that hides itself, in another account's cage) is said to be
//! unseen; it is never taken to be well.

use std::collections::BTreeMap;

use creel_discover::confinement::{self, Confinement, NAMESPACES};
use creel_model::ProcessKey;
use creel_model::cage::{CagePlan, Control, FileAccess, Standing};

/// Folders that every cage has of its own and may write to.
const OWN: [&str; 5] = ["/tmp", "/var/tmp", "/dev", "/proc", "/run"];

/// Controls `outside.*`: what is seen of `agent`, the process that waits, against the supervisor's own. `namespaces` asks
/// whoever may see those of other accounts.
pub(super) fn look(
    plan: &CagePlan,
    home: &str,
    supervisor: ProcessKey,
    agent: ProcessKey,
    namespaces: &dyn Fn(ProcessKey) -> BTreeMap<String, u64>,
) -> Vec<Control> {
    let seen = |process: ProcessKey| {
        let mut found = confinement::of(process)?;
        if found.namespaces.len() < NAMESPACES.len() {
            found.namespaces.extend(namespaces(process));
        }
        Some(found)
    };
    match (seen(agent), seen(supervisor)) {
        (Some(inner), Some(outer)) => controls(plan, home, &inner, &outer),
        _ => vec![control(
            "outside.seen",
            "the kernel tells what confines the run",
            Some(false),
            "the process that waits cannot be looked at".to_owned(),
        )],
    }
}

fn controls(plan: &CagePlan, home: &str, inner: &Confinement, outer: &Confinement) -> Vec<Control> {
    let filters = inner.filters > outer.filters || (inner.filters > 0 && outer.seccomp != 2);
    let mapped: u64 = inner.users.iter().map(|(_, _, count)| *count).fold(0, u64::saturating_add);
    let writable: Vec<&str> = inner
        .mounts
        .iter()
        .filter(|mount| mount.writable && !is_expected(plan, home, &mount.point))
        .map(|mount| mount.point.as_str())
        .collect();
    let setuid = inner.mounts.iter().find(|mount| !mount.nosuid && mount.kind != "proc" && mount.kind != "devpts");
    vec![
        control(
            "outside.filter",
            "a system call filter of its own is on",
            Some(inner.seccomp == 2 && filters),
            format!("Seccomp: {}, {} filters ({} outside)", inner.seccomp, inner.filters, outer.filters),
        ),
        control(
            "outside.privileges",
            "no privileges, and none can be gained",
            Some(inner.no_new_privileges && inner.capabilities == 0),
            format!("NoNewPrivs: {}, capabilities {:#x}", u8::from(inner.no_new_privileges), inner.capabilities),
        ),
        control(
            "outside.processes",
            "it is numbered in a process namespace of its own",
            Some(inner.levels > outer.levels),
            format!("{} process namespaces, {} outside", inner.levels, outer.levels),
        ),
        control(
            "outside.users",
            "it stands for no account but its own",
            Some((1..=2).contains(&mapped)),
            format!("{mapped} accounts are mapped"),
        ),
        namespaces(inner, outer),
        control(
            "outside.mounts",
            "nothing outside the grants can be written to, and no program gains privileges by its file",
            Some(writable.is_empty() && setuid.is_none() && !inner.mounts.is_empty()),
            match (writable.as_slice(), setuid) {
                ([], None) => format!("{} mounts", inner.mounts.len()),
                ([], Some(mount)) => format!("`{}` is mounted without nosuid", mount.point),
                (some, _) => format!("writable: {}", some.iter().take(8).copied().collect::<Vec<_>>().join(", ")),
            },
        ),
    ]
}

fn namespaces(inner: &Confinement, outer: &Confinement) -> Control {
    let promise = "its namespaces are others than outside";
    let seen = |name: &&&str| inner.namespaces.contains_key(**name) && outer.namespaces.contains_key(**name);
    let same = |name: &&&str| inner.namespaces.get(**name) == outer.namespaces.get(**name);
    let shared: Vec<&str> = NAMESPACES.iter().filter(seen).filter(same).copied().collect();
    let unseen: Vec<&str> = NAMESPACES.iter().filter(|name| !seen(name)).copied().collect();
    let (held, evidence) = if !shared.is_empty() {
        (Some(false), format!("shared with the supervisor: {}", shared.join(", ")))
    } else if unseen.is_empty() {
        (Some(true), "all seven differ from the supervisor's".to_owned())
    } else {
        (None, format!("not to be seen by this account: {}", unseen.join(", ")))
    };
    control("outside.namespaces", promise, held, evidence)
}

/// Whether a mount may be writable: a grant, or what every cage has of its own. A folder that holds grants may be the
/// cage's own file system too, where it is the home folder or above a grant in it.
fn is_expected(plan: &CagePlan, home: &str, point: &str) -> bool {
    let own = OWN.iter().any(|folder| is_at_or_below(point, folder)) || point == home;
    let line = plan.files.iter().filter(|line| is_at_or_below(point, &line.path)).max_by_key(|line| line.path.len());
    own || line.is_some_and(|line| line.access == FileAccess::Write)
}

fn is_at_or_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || folder == "/")
}

fn control(id: &str, promise: &str, held: Option<bool>, evidence: String) -> Control {
    Control {
        id: id.to_owned(),
        promise: promise.to_owned(),
        mechanism: "the kernel's word, read by the daemon".to_owned(),
        standing: match held {
            Some(true) => Standing::Proved,
            Some(false) => Standing::NotHeld,
            None => Standing::Configured,
        },
        evidence,
    }
}

#[cfg(test)]
mod tests {
    use creel_discover::confinement::Mount;
    use serde_json::json;

    use super::*;

    fn plan() -> CagePlan {
        serde_json::from_value(json!({
            "version": 1, "run": "r-1", "profile": "p", "bundle": "d", "workspace": "/w", "mode": "direct",
            "files": [{"path": "/usr", "access": "execute"}, {"path": "/w", "access": "write"},
                {"path": "/w/secret", "access": "deny"}],
            "seals": [], "degrade": "refuse",
        }))
        .unwrap()
    }

    fn mount(point: &str, writable: bool, nosuid: bool) -> Mount {
        Mount { point: point.to_owned(), writable, nosuid, kind: "tmpfs".to_owned() }
    }

    fn caged() -> Confinement {
        Confinement {
            seccomp: 2,
            filters: 1,
            no_new_privileges: true,
            capabilities: 0,
            levels: 2,
            users: vec![(1000, 1000, 1)],
            namespaces: NAMESPACES.iter().map(|name| ((*name).to_owned(), 2)).collect(),
            mounts: vec![
                mount("/", false, true),
                mount("/usr", false, true),
                mount("/w", true, true),
                mount("/home/ada", true, true),
                mount("/tmp", true, true),
            ],
        }
    }

    fn outside() -> Confinement {
        Confinement {
            levels: 1,
            namespaces: NAMESPACES.iter().map(|name| ((*name).to_owned(), 1)).collect(),
            ..Confinement::default()
        }
    }

    #[track_caller]
    fn fails(id: &str, change: impl FnOnce(&mut Confinement)) {
        let mut inner = caged();
        change(&mut inner);
        let controls = controls(&plan(), "/home/ada", &inner, &outside());
        for control in &controls {
            let expected = if control.id == id { Standing::NotHeld } else { Standing::Proved };
            assert_eq!(control.standing, expected, "{control:?}");
        }
    }

    #[test]
    fn a_whole_cage_is_confirmed_and_each_hole_is_seen() {
        fails("none", |_| {});
        fails("outside.filter", |inner| inner.seccomp = 0);
        fails("outside.filter", |inner| inner.filters = 0);
        fails("outside.privileges", |inner| inner.no_new_privileges = false);
        fails("outside.privileges", |inner| inner.capabilities = 1 << 21);
        fails("outside.processes", |inner| inner.levels = 1);
        fails("outside.users", |inner| inner.users = vec![(0, 0, 4_294_967_295)]);
        fails("outside.namespaces", |inner| {
            inner.namespaces.insert("net".to_owned(), 1);
        });
        fails("outside.mounts", |inner| inner.mounts.push(mount("/etc", true, true)));
        fails("outside.mounts", |inner| inner.mounts.push(mount("/w/secret", true, true)));
        fails("outside.mounts", |inner| inner.mounts.push(mount("/opt", false, false)));
        fails("outside.mounts", |inner| inner.mounts.clear());
    }

    #[test]
    fn what_cannot_be_seen_is_not_proved() {
        let mut inner = caged();
        inner.namespaces.remove("mnt");
        let controls = controls(&plan(), "/home/ada", &inner, &outside());
        let standing =
            controls.iter().find(|control| control.id == "outside.namespaces").map(|control| control.standing);
        assert_eq!(standing, Some(Standing::Configured));
        let nobody = ProcessKey { pid: 1, start_ticks: u64::MAX };
        let unseen = look(&plan(), "/home/ada", nobody, nobody, &|_| BTreeMap::new());
        assert_eq!(unseen.iter().map(|control| control.standing).collect::<Vec<_>>(), [Standing::NotHeld]);
    }
}
