//! A process id → what the kernel says confines that process, seen from outside.
//!
//! Read from files of `/proc` that every account may read, so that the daemon needs no rights over the process. The one
//! fact a newcomer gets wrong: Landlock is in none of them; that those rules hold is only told by a probe inside.

use std::collections::BTreeMap;

use creel_model::ProcessKey;

use crate::process::{is_alive, parent_of};
use crate::read::small;

/// Most mounts that are read; a cage with more cannot be confirmed.
pub const MOUNTS_MAX: usize = 16_384;
const MOUNTS_BYTES_MAX: u64 = 8 << 20;
/// The longest way up to another process.
const DEPTH_MAX: usize = 512;
/// All kinds of namespaces that a process has.
pub const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// What confines a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// `Seccomp`: 0 none, 1 strict, 2 filter.
    pub seccomp: u32,
    /// Number of its filters.
    pub filters: u32,
    /// `NoNewPrivs`.
    pub no_new_privileges: bool,
    /// Effective, permitted and ambient capabilities together.
    pub capabilities: u64,
    /// In how many process namespaces it has a number.
    pub levels: u32,
    /// Its user map: first inside, first outside, count.
    pub users: Vec<(u64, u64, u64)>,
    /// Inode numbers of its namespaces, where this account may see them.
    pub namespaces: BTreeMap<String, u64>,
    /// Its mounts.
    pub mounts: Vec<Mount>,
}

/// One mount as the process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where, absolute.
    pub point: String,
    /// It can be written to.
    pub writable: bool,
    /// Programs on it gain no privileges.
    pub nosuid: bool,
    /// The file system.
    pub kind: String,
}

/// What confines a process; `None` where it ended, or something could not be read or understood: nothing is known then.
#[must_use]
pub fn of(process: ProcessKey) -> Option<Confinement> {
    let text = |name: &str, bytes_max: u64| {
        let bytes = small(&format!("/proc/{}/{name}", process.pid), bytes_max)?;
        // What is cut off is not known.
        (u64::try_from(bytes.len()).ok()? < bytes_max).then(|| String::from_utf8_lossy(&bytes).into_owned())
    };
    let mut found = status(&text("status", 64 * 1024)?)?;
    found.users = users(&text("uid_map", 64 * 1024)?)?;
    found.mounts = mounts(&text("mountinfo", MOUNTS_BYTES_MAX)?)?;
    for name in NAMESPACES {
        if let Some(inode) = crate::process::namespace(process.pid, name) {
            found.namespaces.insert(name.to_owned(), inode);
        }
    }
    is_alive(process).then_some(found)
}

/// Whether a process is another one or was started below it, by parents that are all alive.
#[must_use]
pub fn is_below(process: ProcessKey, above: ProcessKey) -> bool {
    let mut next = process;
    for _ in 0..DEPTH_MAX {
        if next == above {
            return is_alive(above);
        }
        let Some((parent, started)) = parent_of(next.pid) else { return false };
        if started != next.start_ticks || parent <= 1 {
            return false;
        }
        let Some(start_ticks) = crate::process::start_ticks(parent) else { return false };
        if start_ticks > started {
            return false;
        }
        next = ProcessKey { pid: parent, start_ticks };
    }
    false
}

fn status(text: &str) -> Option<Confinement> {
    let field = |name: &str| Some(text.lines().find_map(|line| line.strip_prefix(name))?.trim());
    let bits = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
    Some(Confinement {
        seccomp: field("Seccomp:")?.parse().ok()?,
        filters: field("Seccomp_filters:").and_then(|count| count.parse().ok()).unwrap_or(0),
        no_new_privileges: field("NoNewPrivs:")? == "1",
        capabilities: bits("CapEff:")? | bits("CapPrm:")? | bits("CapAmb:").unwrap_or(0),
        levels: u32::try_from(field("NSpid:")?.split_ascii_whitespace().count()).ok()?,
        ..Confinement::default()
    })
}

fn users(text: &str) -> Option<Vec<(u64, u64, u64)>> {
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(|number| number.parse().ok());
        Some((numbers.next()??, numbers.next()??, numbers.next()??))
    };
    text.lines().map(line).collect()
}

fn mounts(text: &str) -> Option<Vec<Mount>> {
    let mount = |line: &str| {
        let (head, tail) = line.split_once(" - ")?;
        let mut fields = head.split(' ');
        let point = unescaped(fields.nth(4)?);
        let options: Vec<&str> = fields.next()?.split(',').collect();
        let mut tail = tail.split(' ');
        let kind = tail.next()?.to_owned();
        let whole = tail.nth(1)?;
        let writable = options.contains(&"rw") && whole.split(',').all(|option| option != "ro");
        Some(Mount { point, writable, nosuid: options.contains(&"nosuid"), kind })
    };
    let mounts: Vec<Mount> = text.lines().map(mount).collect::<Option<_>>()?;
    (mounts.len() <= MOUNTS_MAX).then_some(mounts)
}

/// The kernel writes spaces, tabs, newlines and backslashes as three octal digits.
fn unescaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let digits: Vec<u8> = bytes.by_ref().take(3).collect();
        let number = std::str::from_utf8(&digits).ok().and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.extend(number.map_or(digits, |number| vec![number]));
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        let text = "Name:\tx\nNSpid:\t812\t3\t1\nNoNewPrivs:\t1\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000001\n\
            CapAmb:\t0000000000000000\nSeccomp:\t2\nSeccomp_filters:\t3\n";
        let found = status(text).unwrap();
        assert_eq!((found.seccomp, found.filters, found.no_new_privileges), (2, 3, true));
        assert_eq!((found.capabilities, found.levels), (1, 3));
        assert_eq!(status("Name:\tx\n"), None);
        assert_eq!(users("      1000       1000          1\n"), Some(vec![(1000, 1000, 1)]));
        assert_eq!(users("x\n"), None);
        let line = "36 35 98:0 /mnt1 /a\\040b rw,noatime,nosuid master:1 - ext3 /dev/root rw,errors=continue\n\
            37 35 98:0 / / ro,relatime - tmpfs none rw\n38 35 0:5 / /c rw - tmpfs none ro\n";
        let found = mounts(line).unwrap();
        let seen: Vec<_> = found.iter().map(|mount| (&*mount.point, mount.writable, mount.nosuid)).collect();
        assert_eq!(seen, [("/a b", true, true), ("/", false, false), ("/c", false, false)]);
    }

    #[test]
    fn of_ourselves_everything_is_seen() {
        let key = |pid| ProcessKey { pid, start_ticks: crate::process::start_ticks(pid).unwrap() };
        let own = key(std::process::id());
        let found = of(own).unwrap();
        assert!(found.levels >= 1 && !found.users.is_empty() && !found.mounts.is_empty());
        assert_eq!(found.namespaces.len(), NAMESPACES.len());
        let parent = key(std::os::unix::process::parent_id());
        assert!(is_below(own, own) && is_below(own, parent) && !is_below(parent, own));
        assert!(!is_below(own, ProcessKey { start_ticks: parent.start_ticks + 1, ..parent }));
        assert_eq!(of(ProcessKey { start_ticks: own.start_ticks + 1, ..own }), None);
    }
}
