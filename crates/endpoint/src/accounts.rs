//! Accounts of this machine, from the system's user database, bounded and kept for a while.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use creel_model::Account;
use nix::unistd::{Gid, Group, Uid, User};

use crate::identity::nameless;

/// Accounts kept in mind; beyond, all are forgotten and looked up again.
const KNOWN_MAX: usize = 1024;

/// Looks accounts up once.
#[derive(Default)]
pub struct Accounts {
    known: Mutex<BTreeMap<u32, Account>>,
}

impl Accounts {
    /// The account of that number; one without a name gets its number as name and no home.
    #[must_use]
    pub fn of(&self, uid: u32) -> Account {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = known.get(&uid) {
            return account.clone();
        }
        let account = match User::from_uid(Uid::from_raw(uid)) {
            Ok(Some(user)) => Account { uid, name: user.name, home: user.dir.to_string_lossy().into_owned() },
            _ => nameless(uid),
        };
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(uid, account.clone());
        account
    }

    /// Whether an account is in a group, by its primary group or the group's list. Unknown means no.
    #[must_use]
    pub fn is_member(&self, name: &str, group: &str) -> bool {
        let Ok(Some(group)) = Group::from_name(group) else { return false };
        group.mem.iter().any(|member| member == name)
            || User::from_name(name).is_ok_and(|user| user.is_some_and(|user| user.gid == group.gid))
    }

    /// The number of an account or group-less system account by name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<(u32, Gid)> {
        User::from_name(name).ok().flatten().map(|user| (user.uid.as_raw(), user.gid))
    }
}
