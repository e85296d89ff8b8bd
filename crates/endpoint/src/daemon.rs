//! A daemon's life: everything opened in one order, served, and closed in the reverse order.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use creel_catalog::Catalog;
use creel_guard::{Guard, Input, Limits, Note, RunKey, Settings, Trust};
use creel_journal::{Journal, Options, Target};
use creel_model::{Mode, RecordKind};
use serde_json::{Map, Value, json};

use crate::accounts::Accounts;
use crate::config::{Config, SYSTEM_RUNTIME};
use crate::control_server::{ControlServer, Shutdown};
use crate::desk::Desk;
use crate::hook_server::HookServer;
use crate::live::{Broadcast, LiveEvent};
use crate::root::Root;
use crate::sockets::{listen, prepare_folder};
use crate::world::{Foundation, World};
use crate::{activation, bundles, clock};

/// The log's name in checkpoints; which device it is, the key tells.
const ORIGIN: &str = "creel-device";
/// How often time is told to the guard when nothing else happens.
const TICK: Duration = Duration::from_secs(1);
/// How often the machine is looked at again.
const LOOK_AGAIN: u32 = 60;
/// How long open calls may take to leave at the end.
const FAREWELL: Duration = Duration::from_secs(3);

/// A daemon that serves.
pub struct Daemon {
    desk: Arc<Desk>,
    world: Arc<World>,
    live: Arc<Broadcast>,
    stop: Arc<Stop>,
    /// Whether hook.sock and control.sock are the service manager's.
    sockets_outlive: (bool, bool),
}

/// Asks the daemon to stop, from any thread.
#[derive(Default)]
pub struct Stop {
    asked: Mutex<Option<String>>,
    changed: Condvar,
}

impl Stop {
    /// Asks; the first reason stands.
    pub fn ask(&self, why: &str) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| why.to_owned());
        self.changed.notify_all();
    }

    /// Waits so long for it.
    fn wait(&self, at_most: Duration) -> Option<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_some() {
            return asked.clone();
        }
        self.changed.wait_timeout(asked, at_most).unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

/// Opens everything and serves until asked to stop.
///
/// # Errors
/// Something cannot be opened; nothing is served then.
pub fn run(config: Config, stop: Arc<Stop>) -> Result<()> {
    let daemon = Daemon::start(config, stop)?;
    daemon.tick();
    daemon.end()
}

impl Daemon {
    fn start(config: Config, stop: Arc<Stop>) -> Result<Self> {
        refuse_beside_system(&config)?;
        if let Some(parent) = config.state.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make `{}`", parent.display()))?;
        }
        prepare_folder(&config.state, 0o700)?;
        if let Some(parent) = config.runtime.parent()
            && config.mode == Mode::User
            && !parent.exists()
        {
            prepare_folder(parent, 0o700).with_context(|| {
                format!("there is no `{}` for this account; start with `--runtime DIR`", parent.display())
            })?;
        }
        let (folder_mode, hook_mode) = if config.mode == Mode::System { (0o755, 0o666) } else { (0o700, 0o600) };
        prepare_folder(&config.runtime, folder_mode)?;

        let key = creel_journal::keys::device_key(&config.state.join("device.key"), ORIGIN)
            .context("the device key cannot be used")?;
        let verifier = key.verifier().clone();
        // The journal keeps the one; statements about cages are signed with the other.
        let device_key = creel_journal::keys::device_key(&config.state.join("device.key"), ORIGIN)
            .context("the device key cannot be used")?;
        // The public half beside it, for whoever verifies the record without this daemon.
        std::fs::write(config.state.join("device.pub"), format!("{verifier}\n"))
            .context("the public key cannot be written")?;
        let mut options = Options::new(key);
        options.anchors = targets(&config.anchors);
        let (journal, recovered) = Journal::open(&config.state.join("journal"), options)
            .map_err(|error| anyhow!("the journal cannot be opened: {error}"))?;

        let now = clock::now();
        let boot_id = clock::boot_id();
        let accounts = Arc::new(Accounts::default());
        let root = Arc::new(Root::connect(&config)?);
        let catalog = Arc::new(Catalog::built_in());
        let mut source = bundles::at_start(&config, now.unix_ns / 1_000_000_000).map_err(|why| anyhow!(why))?;
        let modes = bundles::modes(&config).of(&source.bundle);
        source.bundle.set_modes(&modes).map_err(|unknown| anyhow!("{unknown}"))?;
        let trust = source.trust.clone();
        let content_key = creel_journal::keys::content_key(&config.state.join("content.key"))
            .context("the key of content digests cannot be used")?;
        let world = World::new(Foundation {
            config,
            catalog,
            accounts,
            root,
            boot_id: boot_id.clone(),
            source,
            content_key,
            device_key: Some(device_key),
            now_unix_ns: now.unix_ns,
        });
        world.set_verifier(verifier);

        let settings = Settings {
            engine: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id,
            seed: seed()?,
            limits: Limits::default(),
        };
        let dropped = recovered.dropped_tail_bytes;
        let guard = match (&recovered.snapshot, recovered.records_after.is_empty()) {
            (None, true) => Guard::new(settings),
            (snapshot, _) => {
                let after = recovered.records_after.iter().map(|stored| (&stored.envelope, stored.detail.as_ref()));
                Guard::restore(settings.clone(), snapshot.as_deref(), after).unwrap_or_else(|error| {
                    // A state that cannot be read back starts anew: unknown conversations begin untrusted.
                    world.add_problem(format!("the state before the last stop could not be read back: {error}"));
                    Guard::new(settings)
                })
            }
        };
        let live = Arc::new(Broadcast::default());
        let desk = Arc::new(Desk::new(guard, journal, Arc::clone(&live)));
        activate(&desk, &world, trust)?;
        let mut daemon = Self { desk, world, live, stop, sockets_outlive: (false, false) };
        daemon.note(
            RecordKind::Daemon,
            "daemon.started",
            json!({
                "mode": daemon.world.mode(),
                "version": env!("CARGO_PKG_VERSION"),
                "pid": std::process::id(),
                "dropped_tail_bytes": dropped,
            }),
        );
        daemon.serve(hook_mode)?;
        Ok(daemon)
    }

    fn serve(&mut self, hook_mode: u32) -> Result<()> {
        let config = self.world.config();
        let inherited = activation::inherited(&config.runtime)?;
        self.sockets_outlive = (inherited.hook.is_some(), inherited.control.is_some());
        let control_mode = if config.mode == Mode::System { 0o666 } else { 0o600 };
        let control = match inherited.control {
            Some(control) => control,
            None => listen(&config.runtime.join("control.sock"), control_mode)?,
        };
        let stop = Arc::clone(&self.stop);
        let desk = Arc::clone(&self.desk);
        let shutdown = Shutdown {
            seal: Box::new(move || {
                desk.close();
                desk.with_journal(|journal| {
                    let note = journal.checkpoint().unwrap_or_default();
                    (journal.state().records, note)
                })
            }),
            stop: Box::new(move |why: &str| stop.ask(why)),
        };
        let server =
            ControlServer::new(Arc::clone(&self.desk), Arc::clone(&self.world), Arc::clone(&self.live), shutdown);
        let hooks = HookServer::new(Arc::clone(&self.desk), Arc::clone(&self.world));
        self.world.cages.answer_with(&hooks);
        spawn("control", move || server.serve(&control))?;
        let world = Arc::clone(&self.world);
        let live = Arc::clone(&self.live);
        // The first look at the machine must not delay the first decision.
        spawn("look", move || {
            world.refresh_inventory();
            live.send(LiveEvent::State);
        })?;
        // Last: whoever finds this socket finds a daemon that can decide.
        let hook = match inherited.hook {
            Some(hook) => hook,
            None => listen(&config.runtime.join("hook.sock"), hook_mode)?,
        };
        hooks.serve(hook).context("a thread cannot be started")
    }

    /// Tells time to the guard, notices runs that ended and machines that changed, until asked to stop.
    fn tick(&self) {
        let parent = std::os::unix::process::parent_id();
        let looking = Arc::new(AtomicBool::new(false));
        let mut rounds = 0_u32;
        loop {
            if let Some(why) = self.stop.wait(TICK) {
                self.note(RecordKind::Daemon, "daemon.stopped", json!({ "why": why }));
                return;
            }
            if self.world.config().with_parent && std::os::unix::process::parent_id() != parent {
                self.stop.ask("the program that started it ended");
                continue;
            }
            let _ = self.desk.tell(Input::Tick);
            self.world.cages.tick(&self.world, &self.desk);
            for run in self.world.identity.ended() {
                self.run_ended(run);
            }
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(LOOK_AGAIN) && !looking.swap(true, Ordering::AcqRel) {
                let (world, live, looking) = (Arc::clone(&self.world), Arc::clone(&self.live), Arc::clone(&looking));
                let _ = spawn("look", move || {
                    world.refresh_inventory();
                    live.send(LiveEvent::State);
                    looking.store(false, Ordering::Release);
                });
            }
        }
    }

    fn run_ended(&self, run: RunKey) {
        let _ = self.desk.tell(Input::RunEnded(run));
        self.live.send(LiveEvent::State);
    }

    fn end(self) -> Result<()> {
        self.desk.close();
        self.live.send(LiveEvent::Stopping);
        let config = self.world.config();
        for (name, outlives) in [("hook.sock", self.sockets_outlive.0), ("control.sock", self.sockets_outlive.1)] {
            if !outlives {
                let _ = std::fs::remove_file(config.runtime.join(name));
            }
        }
        self.desk.wait_for_held(FAREWELL);
        let note = self.desk.with_journal(|journal| journal.checkpoint());
        note.map_err(|error| anyhow!("the record could not be sealed: {error}"))?;
        Ok(())
    }

    fn note(&self, kind: RecordKind, code: &str, facts: Value) {
        let facts: Map<String, Value> = match facts {
            Value::Object(facts) => facts,
            _ => Map::new(),
        };
        let note = Note { kind, code: code.to_owned(), owner: own_uid(), facts };
        // A record that cannot be written shows in the journal's own state.
        let _ = self.desk.tell(Input::Note(Box::new(note)));
    }
}

/// Puts the bundle in force that was found at the start. A `local-unsigned` one that differs from the one a person
/// confirmed is refused by the guard: a file that changed under creel must not decide silently. Then the built-in one
/// judges, and people are told.
fn activate(desk: &Desk, world: &World, trust: Trust) -> Result<()> {
    let first = Input::Activate { bundle: world.bundle(), trust, confirmed_by: None };
    let Err(refused) = desk.tell(first) else { return Ok(()) };
    world.add_problem(format!(
        "the bundle found at the start is not used: {}; `creel policy load DIR` confirms it",
        refused.0
    ));
    let now = clock::now();
    let mut source = bundles::starter(now.unix_ns / 1_000_000_000).map_err(|why| anyhow!(why))?;
    let modes = bundles::modes(world.config()).of(&source.bundle);
    source.bundle.set_modes(&modes).map_err(|unknown| anyhow!("{unknown}"))?;
    world.replace_bundle(Arc::new(source.bundle), source.files, source.trust.clone(), now.unix_ns);
    let second = Input::Activate { bundle: world.bundle(), trust: source.trust, confirmed_by: None };
    desk.tell(second).map(drop).map_err(|refused| anyhow!("no bundle can be used: {}", refused.0))
}

/// If a system daemon exists, a user daemon refuses to start (DESIGN §3). One with sockets in a place of its own is
/// found by nobody whose hook was not told of it, so a demonstration may run beside it.
fn refuse_beside_system(config: &Config) -> Result<()> {
    let system = Path::new(SYSTEM_RUNTIME).join("hook.sock");
    let usual = Path::new("/run/user").join(own_uid().to_string()).join("creel");
    if config.mode == Mode::User && config.runtime == usual && system.exists() {
        bail!("this machine has a system creel; `creel status` speaks to it");
    }
    Ok(())
}

fn targets(paths: &[std::path::PathBuf]) -> Vec<Target> {
    paths
        .iter()
        .filter(|path| path.exists())
        .map(|path| {
            if path.ends_with("journal/socket") { Target::Journald(path.clone()) } else { Target::Syslog(path.clone()) }
        })
        .take(1)
        .collect()
}

fn seed() -> Result<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| anyhow!("the kernel gives no random bytes: {error}"))?;
    Ok(seed)
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop).context("a thread cannot be started")
}

/// An empty map, for notes without facts.
#[must_use]
pub fn no_facts() -> Map<String, Value> {
    BTreeMap::<String, Value>::new().into_iter().collect()
}
