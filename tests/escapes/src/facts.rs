//! What the inside knows about the outside, as an attacker who was told everything would.
//!
//! Turns a file of `key=value` lines in the workspace into lookups. It is written by `host`.

use std::collections::BTreeMap;
use std::fs;
use std::io;

/// Facts about the host.
#[derive(Debug)]
pub(crate) struct Facts(BTreeMap<String, String>);

impl Facts {
    pub(crate) fn read(path: &str) -> io::Result<Self> {
        let text = fs::read_to_string(path).map_err(|error| io::Error::other(format!("{path}: {error}")))?;
        Ok(Self(
            text.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        ))
    }

    /// A fact, or nothing.
    pub(crate) fn text(&self, key: &str) -> String {
        self.0.get(key).cloned().unwrap_or_default()
    }

    /// A fact that is a number; 0 when it is none.
    pub(crate) fn number(&self, key: &str) -> u64 {
        self.text(key).parse().unwrap_or(0)
    }

    /// The same with a folder of the workspace as the workspace.
    pub(crate) fn moved(&self, below: &str) -> Self {
        let mut facts = self.0.clone();
        facts.insert("workspace".to_owned(), self.at(below));
        Self(facts)
    }

    /// A path below the workspace.
    pub(crate) fn at(&self, below: &str) -> String {
        format!("{}/{below}", self.text("workspace"))
    }

    /// The file with the secret in the home folder.
    pub(crate) fn secret_path(&self) -> String {
        format!("{}/.ssh/id_ed25519", self.text("home"))
    }

    /// Sockets of the host whose path holds `part`.
    pub(crate) fn sockets(&self, part: &str) -> Vec<String> {
        self.text("sockets")
            .split(':')
            .filter(|path| !path.is_empty() && path.contains(part))
            .map(str::to_owned)
            .collect()
    }
}
