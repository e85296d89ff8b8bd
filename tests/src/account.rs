//! Accounts of the stage. They exist only in its private `/etc/passwd`.

/// An account of the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: &'static str,
    /// User and group id.
    pub id: u32,
    /// Home folder.
    pub home: &'static str,
    /// Further group ids.
    pub groups: &'static [u32],
}

impl Account {
    /// The person at whose prompt agents run; not privileged.
    pub const USER: Self = Self { name: "dana", id: 61_000, home: "/home/dana", groups: &[] };
    /// Another local person; not privileged, hostile to the first.
    pub const OTHER: Self = Self { name: "mallory", id: 61_001, home: "/home/mallory", groups: &[] };
    /// A person who may approve for others.
    pub const APPROVER: Self = Self { name: "avery", id: 61_002, home: "/home/avery", groups: &[61_012] };
    /// The daemon's account.
    pub const CREEL: Self = Self { name: "creel", id: 61_010, home: "/var/lib/creel", groups: &[] };
    /// The administrator.
    pub const ROOT: Self = Self { name: "root", id: 0, home: "/root", groups: &[] };

    /// Those that the stage adds, with homes of their own.
    pub(crate) const PEOPLE: [Self; 3] = [Self::USER, Self::OTHER, Self::APPROVER];

    /// Lines for the stage's `/etc/passwd`.
    pub(crate) fn passwd() -> String {
        let mut lines = String::new();
        for account in [Self::USER, Self::OTHER, Self::APPROVER, Self::CREEL] {
            let shell = if account == Self::CREEL { "/usr/sbin/nologin" } else { "/bin/bash" };
            lines.push_str(&format!("{}:x:{1}:{1}::{2}:{shell}\n", account.name, account.id, account.home));
        }
        lines
    }

    /// Lines for the stage's `/etc/group`.
    pub(crate) fn group() -> String {
        let mut lines = String::new();
        for account in [Self::USER, Self::OTHER, Self::APPROVER, Self::CREEL] {
            lines.push_str(&format!("{}:x:{}:\n", account.name, account.id));
        }
        lines.push_str("creel-analyst:x:61011:\n");
        lines.push_str("creel-approver:x:61012:avery\n");
        lines
    }
}
