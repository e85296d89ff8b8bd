//! What was tried in a cage to the controls of its statement.
//!
//! The promises stand here, in plain words. The one fact a newcomer gets wrong: several attempts stand behind one
//! control, and the worst of them counts.

use creel_model::cage::{CagePlan, Control, Standing};

use crate::probe::Outcome;

const MOUNTS: &str = "mount namespace with a root built from nothing";
const FILTER: &str = "system call filter";

/// Control id, promise, mechanism without versions.
const CONTROLS: [(&str, &str, &str); 21] = [
    ("files.outside", "what the plan does not grant does not exist in the cage", MOUNTS),
    ("files.home", "of the home folder only what is granted is there", MOUNTS),
    ("files.denied", "what the plan refuses inside its grants cannot be read", "an unreadable mount over each"),
    ("files.root", "nothing is made or changed outside the granted folders", "read-only root"),
    (
        "seals.names",
        "no sealed name is made, and none becomes a link",
        "calls that make names are carried out by the broker",
    ),
    ("seals.existing", "what is sealed and exists is not changed, replaced or removed", "read-only mounts, broker"),
    ("process.descriptors", "no open file of the caller comes along but the standard three", "closed before the start"),
    ("process.environment", "no variable comes along that the plan does not name", "environment built from the plan"),
    ("processes.host", "processes outside are not visible", "pid namespace with its own /proc"),
    ("processes.signals", "nothing of the cage's own can be signalled", "Landlock scope"),
    ("kernel.namespaces", "no new namespaces", FILTER),
    ("kernel.mount", "no mounts", "system call filter, no capabilities"),
    (
        "kernel.ptrace",
        "no process outside, and none of creel's, is traced or read",
        "system call filter, closed memory",
    ),
    ("kernel.surface", "no io_uring, bpf, perf, keyrings, userfaultfd", FILTER),
    ("kernel.sockets", "no netlink, vsock, packet or raw sockets", FILTER),
    ("kernel.settings", "no kernel setting is changed", "read-only /proc"),
    ("kernel.devices", "no device but the harmless ones", "own /dev, nodev mounts"),
    ("kernel.privileges", "no program gains privileges", "no_new_privs, nosuid mounts, no capabilities"),
    ("ipc.sockets", "no unix socket outside is reached but granted ones", "mount namespace, broker"),
    ("ipc.abstract", "no abstract unix socket outside is reached", "network namespace, Landlock scope"),
    ("network.loopback", "nothing on the host's loopback device is reached but granted ports", "network namespace"),
];
/// The last of [`CONTROLS`], which has a word of its own where ports are forwarded.
const OUTSIDE: (&str, &str, &str) =
    ("network.outside", "no other network is reached", "network namespace without a way out");
/// Longest evidence in bytes.
const MAX_EVIDENCE: usize = 2048;

/// The controls of a run. `file_rules` is the version of the kernel's interface, 0 for none; `left_out` are optional
/// grants that could not be made.
pub(crate) fn controls(plan: &CagePlan, outcomes: &[Outcome], file_rules: u32, left_out: &[String]) -> Vec<Control> {
    let mut controls: Vec<Control> = CONTROLS
        .into_iter()
        .chain([OUTSIDE])
        .filter_map(|(id, promise, mechanism)| one(id, promise, mechanism, outcomes))
        .collect();
    let (standing, evidence) = match file_rules {
        0 => (Standing::NotHeld, "the kernel has no Landlock".to_owned()),
        version => (Standing::Configured, format!("the kernel took all grants as rules (interface {version})")),
    };
    controls.push(Control {
        id: "files.rules".to_owned(),
        promise: "the same grants hold a second time, independently of mounts".to_owned(),
        mechanism: format!("Landlock ABI {file_rules}"),
        standing,
        evidence,
    });
    let limits = &plan.limits;
    let mut held = Vec::new();
    for (what, value) in [
        ("processes", limits.processes),
        ("bytes of memory for each process", limits.memory_bytes),
        ("open files for each process", limits.open_files),
        ("bytes in one file", limits.file_bytes),
        ("bytes of temporary files", limits.temporary_bytes),
        ("seconds", limits.seconds),
    ] {
        if let Some(value) = value {
            held.push(format!("{value} {what}"));
        }
    }
    if !left_out.is_empty() {
        controls.push(Control {
            id: "files.left-out".to_owned(),
            promise: "every optional grant that exists is made".to_owned(),
            mechanism: MOUNTS.to_owned(),
            standing: Standing::Declared,
            evidence: cut(left_out.join("; ")),
        });
    }
    if !held.is_empty() {
        controls.push(Control {
            id: "limits".to_owned(),
            promise: "the run stays within its limits".to_owned(),
            mechanism: "resource limits, size of the temporary file system, supervisor's clock".to_owned(),
            standing: Standing::Configured,
            evidence: held.join(", "),
        });
    }
    controls
}

fn one(id: &str, promise: &str, mechanism: &str, outcomes: &[Outcome]) -> Option<Control> {
    let mine: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.control == id).collect();
    if mine.is_empty() {
        return None;
    }
    let through = mine.iter().any(|outcome| outcome.held == Some(false));
    let standing = if through {
        Standing::NotHeld
    } else if mine.iter().any(|outcome| outcome.held == Some(true)) {
        Standing::Proved
    } else {
        Standing::Configured
    };
    // Where something went through, only that is worth reading.
    let told = mine.iter().filter(|outcome| !through || outcome.held == Some(false));
    let evidence = cut(told.map(|outcome| outcome.detail.as_str()).collect::<Vec<_>>().join("; "));
    Some(Control {
        id: id.to_owned(),
        promise: promise.to_owned(),
        mechanism: mechanism.to_owned(),
        standing,
        evidence,
    })
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_EVIDENCE {
        text.truncate(text.floor_char_boundary(MAX_EVIDENCE));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(held: Option<bool>, detail: &str) -> Outcome {
        Outcome { control: "kernel.mount".to_owned(), detail: detail.to_owned(), held }
    }

    fn standing(outcomes: &[Outcome]) -> (Standing, String) {
        let control = one("kernel.mount", "", "", outcomes).unwrap();
        (control.standing, control.evidence)
    }

    #[test]
    fn the_worst_attempt_counts() {
        let good = outcome(Some(true), "a: EPERM");
        let bad = outcome(Some(false), "b: it went through");
        let none = outcome(None, "c");
        assert_eq!(standing(&[good.clone(), none.clone()]), (Standing::Proved, "a: EPERM; c".to_owned()));
        assert_eq!(standing(&[good, bad]), (Standing::NotHeld, "b: it went through".to_owned()));
        assert_eq!(standing(&[none]), (Standing::Configured, "c".to_owned()));
        assert_eq!(one("kernel.mount", "", "", &[]), None);
    }
}
