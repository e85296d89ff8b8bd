//! What the servers share about this machine: who is who, what is installed, which bundle judges, what a path means.
//!
//! Nothing is decided here. Locks are held for a copy, never while something is looked up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use creel_catalog::{AgentReport, Catalog};
use creel_guard::{Caller, FileDigest, Looked, Resolution, Trust, Wanted};
use creel_inspect::Place;
use creel_model::{Action, Digest, Mode};
use creel_policy::Bundle;
use creel_seal::{ContentKey, DeviceKey, VerifierKey};

use crate::accounts::Accounts;
use crate::bundles::Modes;
use crate::cages::Cages;
use crate::canary::Canary;
use crate::config::Config;
use crate::identity::Identity;
use crate::protection::Protections;
use crate::root::Root;

/// Files of a bundle, why it is believed, since when it is in force.
type Source = (BTreeMap<String, String>, Trust, i64);

/// A digest of content as it is recorded: keyed, so that without the key nobody can tell from the record which content
/// it was, and destroying the key unties all of them (DESIGN §12).
fn keyed(key: &ContentKey, digest: &Digest) -> Digest {
    Digest::from_bytes(&key.digest(digest.0.as_bytes()))
}

/// The shared facts.
pub struct World {
    content_key: ContentKey,
    boot_id: String,
    config: Config,
    accounts: Arc<Accounts>,
    /// Agents above processes.
    pub identity: Identity,
    /// Runs in cages.
    pub cages: Cages,
    /// Calls that are creel's own tests.
    pub canary: Canary,
    /// What is wired into agents' settings.
    pub protections: Protections,
    /// What only root may do.
    pub root: Arc<Root>,
    /// The catalog.
    pub catalog: Arc<Catalog>,
    bundle: RwLock<Arc<Bundle>>,
    source: Mutex<Source>,
    inventory: Mutex<Vec<AgentReport>>,
    /// When the last look at the machine began, on the boot clock. Held while one looks: however many ask for a look at
    /// the same time, they share it.
    looked: Mutex<u64>,
    /// When the daemon started, wall clock.
    pub started_unix_ns: i64,
    problems: Mutex<Vec<String>>,
    verifier: Mutex<Option<VerifierKey>>,
    unpinned: std::sync::atomic::AtomicBool,
}

/// Where a call takes place, as owned text.
pub struct OwnedPlace {
    cwd: String,
    home: String,
    user: String,
    variables: BTreeMap<String, String>,
}

impl OwnedPlace {
    /// As the inspection takes it.
    #[must_use]
    pub fn borrowed(&self) -> Place<'_> {
        Place { cwd: &self.cwd, home: &self.home, user: &self.user, variables: &self.variables }
    }
}

/// What a world is made of.
pub struct Foundation {
    /// Checked arguments.
    pub config: Config,
    /// The catalog.
    pub catalog: Arc<Catalog>,
    /// Accounts.
    pub accounts: Arc<Accounts>,
    /// The root role.
    pub root: Arc<Root>,
    /// This boot.
    pub boot_id: String,
    /// The bundle to start with.
    pub source: crate::bundles::Source,
    /// Key of content digests.
    pub content_key: ContentKey,
    /// The device key, for statements about cages.
    pub device_key: Option<DeviceKey>,
    /// Now, wall clock.
    pub now_unix_ns: i64,
}

impl World {
    /// The world of a daemon that starts.
    #[must_use]
    pub fn new(foundation: Foundation) -> Arc<Self> {
        let Foundation { config, catalog, accounts, root, boot_id, source, content_key, device_key, now_unix_ns } =
            foundation;
        let known_boot = boot_id.clone();
        let identity =
            Identity::new(Arc::clone(&catalog), Arc::clone(&accounts), Arc::clone(&root), config.mode, boot_id);
        let protections = Protections::new(&config);
        Arc::new(Self {
            content_key,
            identity,
            boot_id: known_boot,
            cages: Cages::new(device_key),
            canary: Canary::default(),
            protections,
            root,
            catalog,
            accounts,
            bundle: RwLock::new(Arc::new(source.bundle)),
            source: Mutex::new((source.files, source.trust, now_unix_ns)),
            inventory: Mutex::new(Vec::new()),
            looked: Mutex::new(0),
            started_unix_ns: now_unix_ns,
            problems: Mutex::new(source.problem.into_iter().collect()),
            verifier: Mutex::new(None),
            unpinned: std::sync::atomic::AtomicBool::new(false),
            config,
        })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// User or system mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.config.mode
    }

    /// What went wrong without stopping the daemon, for people.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds to that; at most 32 are kept.
    pub fn add_problem(&self, problem: String) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.len() < 32 {
            problems.push(problem);
        }
    }

    /// The device's public key.
    #[must_use]
    pub fn verifier(&self) -> Option<VerifierKey> {
        self.verifier.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets it, at the start.
    pub fn set_verifier(&self, verifier: VerifierKey) {
        *self.verifier.lock().unwrap_or_else(PoisonError::into_inner) = Some(verifier);
    }

    /// Whether a peer's process could not be pinned by a descriptor: the kernel is older than 6.5.
    #[must_use]
    pub fn peers_unpinned(&self) -> bool {
        self.unpinned.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Notes whether this peer was pinned.
    pub fn saw(&self, peer: &crate::sockets::Peer) {
        if !peer.is_pinned() {
            self.unpinned.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// The bundle that judges.
    #[must_use]
    pub fn bundle(&self) -> Arc<Bundle> {
        Arc::clone(&self.bundle.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where that bundle comes from.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The bundle in force with other modes.
    ///
    /// # Errors
    /// It does not load any more (an exception of it may have become malformed by time).
    pub fn fresh_bundle(&self, modes: &Modes) -> Result<Bundle, String> {
        let (files, _, _) = self.source();
        let now_s = crate::clock::now().unix_ns / 1_000_000_000;
        let mut bundle = Bundle::load(&files, now_s)
            .map_err(|faults| faults.first().map(ToString::to_string).unwrap_or_default())?;
        let of = modes.of(&bundle);
        bundle.set_modes(&of).map_err(|unknown| unknown.to_string())?;
        Ok(bundle)
    }

    /// From now on this bundle's zones are used in preparing; the guard was told before.
    pub fn replace_bundle(
        &self,
        bundle: Arc<Bundle>,
        files: BTreeMap<String, String>,
        trust: Trust,
        since_unix_ns: i64,
    ) {
        *self.bundle.write().unwrap_or_else(PoisonError::into_inner) = bundle;
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = (files, trust, since_unix_ns);
    }

    /// The last inventory.
    #[must_use]
    pub fn inventory(&self) -> Vec<AgentReport> {
        self.inventory.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the machine again; shares a look that began after this was asked for.
    pub fn refresh_inventory(&self) -> Vec<AgentReport> {
        let asked = crate::clock::now().boot_ns;
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if *looked > asked {
            return self.inventory();
        }
        *looked = crate::clock::now().boot_ns;
        let reports = self.root.scan(self.config.mode, &self.catalog);
        for report in &reports {
            self.identity.set_posture(
                &report.kind,
                report.account.uid,
                crate::identity::Posture { approval_mode: report.approval.mode, managed: report.has_creel_hook() },
            );
        }
        *self.inventory.lock().unwrap_or_else(PoisonError::into_inner) = reports.clone();
        reports
    }

    /// A digest of content as it is recorded.
    #[must_use]
    pub fn keyed(&self, digest: &Digest) -> Digest {
        keyed(&self.content_key, digest)
    }

    /// Which boot of the machine this is.
    #[must_use]
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// How an agent of that kind and account stood at the last look; `None` where none was seen.
    #[must_use]
    pub fn posture(&self, kind: &str, uid: u32) -> Option<crate::identity::Posture> {
        let inventory = self.inventory.lock().unwrap_or_else(PoisonError::into_inner);
        let report = inventory.iter().find(|report| report.kind == kind && report.account.uid == uid)?;
        let managed = report.has_creel_hook();
        Some(crate::identity::Posture { approval_mode: report.approval.mode, managed })
    }

    /// The account of that number.
    #[must_use]
    pub fn account(&self, uid: u32) -> creel_model::Account {
        self.accounts.of(uid)
    }

    /// The login name of an account.
    #[must_use]
    pub fn account_name(&self, uid: u32) -> String {
        self.accounts.of(uid).name
    }

    /// Whether an account is in a group.
    #[must_use]
    pub fn is_member(&self, name: &str, group: &str) -> bool {
        self.accounts.is_member(name, group)
    }

    /// Where a call takes place: the folder the agent claims (its own folder where it claims none), the account's home.
    #[must_use]
    pub fn place(&self, action: &Action, caller: &Caller) -> OwnedPlace {
        let home = caller.account.home.clone();
        let cwd = action.cwd.clone().or_else(|| caller.workspace.clone()).unwrap_or_else(|| "/".to_owned());
        let variables = BTreeMap::from([
            ("HOME".to_owned(), home.clone()),
            ("PWD".to_owned(), cwd.clone()),
            ("USER".to_owned(), caller.account.name.clone()),
        ]);
        OwnedPlace { cwd, home, user: caller.account.name.clone(), variables }
    }

    /// What the paths of an action mean now, as the agent's account sees them.
    ///
    /// # Errors
    /// The root role does not answer (system mode); the action is denied.
    pub fn look(&self, wanted: &Wanted, caller: &Caller) -> Result<Looked, String> {
        if wanted.paths.is_empty() && wanted.digests.is_empty() {
            return Ok(Looked::default());
        }
        let digests: BTreeSet<String> = wanted.digests.iter().cloned().collect();
        let found = self.root.look(&wanted.paths, &digests, &caller.account)?;
        let mut looked = Looked::default();
        for (path, seen) in found {
            if digests.contains(&path) {
                let digest = match (&seen.digest, seen.exists) {
                    (Some(digest), _) => FileDigest::Content(keyed(&self.content_key, digest)),
                    (None, false) if seen.resolved.is_some() => FileDigest::Absent,
                    (None, _) => FileDigest::Unknown,
                };
                looked.digests.insert(path.clone(), digest);
            }
            let resolution = match seen.resolved {
                _ if seen.of_process => Resolution::OfProcess,
                Some(resolved) => Resolution::Resolved(resolved),
                None => Resolution::Failed("it cannot be followed to its end".to_owned()),
            };
            looked.paths.insert(path, resolution);
        }
        Ok(looked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_digest_is_the_same_only_for_the_same_content_and_key() {
        let of = |byte: u8, content: &str| {
            let plain = Digest::from_bytes(&creel_seal::sha256(content.as_bytes()));
            keyed(&ContentKey::from_bytes([byte; 32]), &plain)
        };
        assert_eq!(of(1, "script"), of(1, "script"));
        assert_ne!(of(1, "script"), of(1, "other"));
        assert_ne!(of(1, "script"), of(2, "script"));
        assert_ne!(of(1, "script").0, creel_model::id::hex(&creel_seal::sha256(b"script")));
    }
}
