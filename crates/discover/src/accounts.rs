//! The account database → the accounts whose agents are looked for, and the rights of one of them.
//!
//! Only the files `/etc/passwd` and `/etc/group` are read; accounts that live in a directory service are not found
//! (weakness), except the one we run as, whose home the caller may state.

use std::path::Path;

use creel_model::Account;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::read::{Links, Machine};
use creel_catalog::Content;

/// The most accounts of one machine.
pub const ACCOUNTS_MAX: usize = 1024;
const FILE_BYTES_MAX: usize = 1024 * 1024;

/// All accounts of a machine that people (or root) log into: a home folder that exists, a shell, a user id of 0 or at
/// least 1000. In the order of the file.
#[must_use]
pub fn accounts(root: &Path) -> Vec<Account> {
    let Ok(machine) = Machine::open(root) else { return Vec::new() };
    entries(&machine)
        .into_iter()
        .filter(|entry| entry.person)
        .map(|entry| entry.account)
        .filter(|account| machine.exists("/", &account.home, Links::Follow))
        .collect()
}

/// The account with this user id, from the account database of the running machine; whether a person's or not.
#[must_use]
pub fn account(uid: u32) -> Option<Account> {
    let machine = Machine::open(Path::new("/")).ok()?;
    entries(&machine).into_iter().map(|entry| entry.account).find(|account| account.uid == uid)
}

/// The account that this program runs as.
#[must_use]
pub fn own() -> Account {
    let uid = rustix::process::geteuid().as_raw();
    account(uid).unwrap_or_else(|| Account { uid, name: uid.to_string(), home: "/".to_owned() })
}

struct Entry {
    account: Account,
    gid: u32,
    person: bool,
}

fn entries(machine: &Machine) -> Vec<Entry> {
    let Some((_, Content::Text(text))) = machine.config("/", "/etc/passwd", Links::Follow, FILE_BYTES_MAX) else {
        return Vec::new();
    };
    text.lines().filter_map(entry).take(ACCOUNTS_MAX).collect()
}

fn entry(line: &str) -> Option<Entry> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, shell] = fields.as_slice() else { return None };
    let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
    if name.is_empty() || !home.starts_with('/') || home.split('/').any(|part| part == "..") {
        return None;
    }
    let login = !shell.ends_with("/nologin") && !shell.ends_with("/false") && !shell.ends_with("/sync");
    // 65534 is `nobody`.
    let person = login && (uid == 0 || (uid >= 1000 && uid != 65534));
    let home = home.trim_end_matches('/');
    let home = if home.is_empty() { "/" } else { home };
    Some(Entry { account: Account { uid, name: (*name).to_owned(), home: home.to_owned() }, gid, person })
}

/// Runs something with the file rights of an account, and no more. Where we run as that account already, it is simply
/// run; where we are root, on a thread of its own that has the account's ids; else it is refused.
///
/// Only the *effective* ids of the thread change, real and saved ones stay root's: the account may not send that thread
/// signals, which would end the whole program. Its capabilities are off for as long as it is not root.
///
/// # Errors
/// Neither that account nor root, an unknown account, or the kernel refused.
pub fn as_account<T: Send>(uid: u32, run: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    let own = rustix::process::geteuid();
    if own.as_raw() == uid {
        return Ok(run());
    }
    if !own.is_root() {
        return Err(std::io::ErrorKind::PermissionDenied.into());
    }
    let machine = Machine::open(Path::new("/"))?;
    let entry = entries(&machine).into_iter().find(|entry| entry.account.uid == uid);
    let entry = entry.ok_or_else(|| std::io::Error::new(std::io::ErrorKind::NotFound, "unknown account"))?;
    let groups = groups(&machine, &entry);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            set_thread_groups(&groups)?;
            let (root, gid, uid) = (Gid::ROOT, Gid::from_raw(entry.gid), Uid::from_raw(uid));
            set_thread_res_gid(root, gid, root)?;
            set_thread_res_uid(Uid::ROOT, uid, Uid::ROOT)?;
            // The thread ends with its work, so nothing is given back.
            Ok(run())
        });
        thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the look failed")))
    })
}

fn groups(machine: &Machine, entry: &Entry) -> Vec<Gid> {
    let mut groups = vec![Gid::from_raw(entry.gid)];
    let Some((_, Content::Text(text))) = machine.config("/", "/etc/group", Links::Follow, FILE_BYTES_MAX) else {
        return groups;
    };
    for line in text.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let [_, _, gid, members] = fields.as_slice()
            && let Ok(gid) = gid.parse()
            && members.split(',').any(|member| member == entry.account.name)
            && groups.len() < 1024
        {
            groups.push(Gid::from_raw(gid));
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_only() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::create_dir_all(root.join("home/ada")).unwrap();
        std::fs::create_dir_all(root.join("root")).unwrap();
        let passwd = "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/usr/sbin:/usr/sbin/nologin\nada:x:1000:1000:,,,:/home/ada/:/bin/bash\n\
                      gone:x:1001:1001::/home/gone:/bin/bash\nevil:x:1002:1002::/home/../etc:/bin/bash\nbroken\nnobody:x:65534:1::/:/bin/sh\n";
        std::fs::write(root.join("etc/passwd"), passwd).unwrap();
        let names: Vec<String> = accounts(root).into_iter().map(|account| account.name).collect();
        assert_eq!(names, ["root", "ada"]);
        assert_eq!(accounts(root)[1].home, "/home/ada");
        assert!(accounts(Path::new("/nonexistent")).is_empty());
    }

    #[test]
    fn rights_of_an_account() {
        let own = rustix::process::geteuid();
        assert_eq!(as_account(own.as_raw(), || 7).unwrap(), 7);
        if own.is_root() {
            let Some(other) = accounts_for_test() else { return };
            let folder = tempfile::tempdir().unwrap();
            let secret = folder.path().join("secret");
            std::fs::write(&secret, "x").unwrap();
            rustix::fs::chmod(&secret, rustix::fs::Mode::RUSR).unwrap();
            let read = as_account(other, || std::fs::read(&secret)).unwrap();
            assert!(read.is_err(), "another account must not read root's file");
            assert!(std::fs::read(&secret).is_ok(), "the rest of the program is unchanged");
        } else {
            assert!(as_account(own.as_raw() + 1, || 7).is_err());
        }
    }

    fn accounts_for_test() -> Option<u32> {
        let machine = Machine::open(Path::new("/")).ok()?;
        entries(&machine).iter().map(|entry| entry.account.uid).find(|uid| *uid != 0)
    }
}
