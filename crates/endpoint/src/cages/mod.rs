//! Runs in cages: their plans, their hook sockets, what is stated about them and what is written down.
//!
//! The daemon decides what a cage holds and confirms it from outside; the supervisor (`creel run`) builds it. Records go
//! through the desk like all others. The one fact a newcomer gets wrong: nothing about a living run has to survive a
//! restart of the daemon here; the supervisor keeps the signed statement and presents it, and the kernel is asked again
//! whether that process 1 is still the one it names.

mod asked;
mod outside;
mod pending;
mod run;
mod written;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use creel_discover::{confinement, process};
use creel_guard::Input;
use creel_model::cage::{CageEvent, Control, Degrade, Standing};
use creel_model::{Mode, ProcessKey, RecordKind, RunId};
use creel_policy::{Bundle, CageRequest, Compiled, Places};
use creel_seal::DeviceKey;
use creel_wire::control::{
    CONTROLS_MAX, CageRunView, EVENTS_MAX, HookFolder, RefusalCode, RunEnd, RunEvents, RunExit, RunGo, RunPlan,
    RunResume, RunStart, RunStatement, Statement,
};
use serde_json::{Value, json};

use crate::clock;
use crate::control_server::{Asker, Refusal};
use crate::desk::Desk;
use crate::hook_server::HookServer;
use crate::sockets::{listen, prepare_folder};
use crate::world::World;

use asked::{caller, check, grant_repository, kind_of, programs, supervisor};
use run::{Ended, State};
use written::{digest, kernel, note, program_identity, write};

pub use run::CageRun;

/// Living runs of one account, and of the machine; one more is refused.
const RUNS_PER_ACCOUNT: usize = 256;
const RUNS: usize = 512;
/// Runs that ended and are still listed; older ones are in the record.
const ENDED_MAX: usize = 128;
/// Plans kept; beyond, all are made anew.
const PLANS_MAX: usize = 64;
/// How long a statement says something, in nanoseconds.
const STATEMENT_NS: i64 = 24 * 3_600 * 1_000_000_000;
/// First line of a statement's note: no checkpoint begins like it.
const STATEMENT_HEADER: &str = "creel.statement/1";
/// Longest evidence of one control, in characters; cut to the second where a statement gets too long to be signed.
const EVIDENCE_CHARS_MAX: [usize; 2] = [1_024, 200];
/// Folders of runs that nobody has taken up again so long after the daemon's start are removed, in nanoseconds.
const FORGOTTEN_NS: i64 = 600 * 1_000_000_000;
/// How often statements are compared with the machine, in ticks.
const COMPARE_EVERY: u32 = 30;

/// All runs in cages.
pub struct Cages {
    key: Option<DeviceKey>,
    runs: Mutex<Runs>,
    plans: Mutex<BTreeMap<PlanKey, (Weak<Bundle>, Compiled)>>,
    hooks: OnceLock<Weak<HookServer>>,
}

#[derive(Default)]
struct Runs {
    living: BTreeMap<RunId, Arc<CageRun>>,
    ended: VecDeque<Ended>,
    ticks: u32,
}

/// What a plan depends on beside the bundle and the run's own numbers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct PlanKey {
    profile: Option<String>,
    kind: Option<String>,
    home: String,
    workspace: String,
    programs: Vec<String>,
    learn: bool,
}

fn invalid(message: impl Into<String>, hint: &str) -> Refusal {
    Refusal::new(RefusalCode::Invalid, message, hint)
}

fn internal(message: impl Into<String>) -> Refusal {
    Refusal::new(RefusalCode::Internal, message, "")
}

impl Cages {
    /// No runs yet; statements are signed with `key`.
    #[must_use]
    pub fn new(key: Option<DeviceKey>) -> Self {
        Self { key, runs: Mutex::default(), plans: Mutex::default(), hooks: OnceLock::new() }
    }

    /// Who answers on the runs' hook sockets; set once, before the first run.
    pub fn answer_with(&self, hooks: &Arc<HookServer>) {
        let _ = self.hooks.set(Arc::downgrade(hooks));
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run whose cage a process is in.
    #[must_use]
    pub fn around(&self, pid: u32) -> Option<Arc<CageRun>> {
        let living: Vec<Arc<CageRun>> = self.runs().living.values().cloned().collect();
        living.into_iter().find(|run| run.contains(pid))
    }

    /// Makes a plan and opens the run's socket.
    ///
    /// # Errors
    /// The request makes no sense, there is no plan for it, or too many runs live.
    pub(crate) fn start(&self, world: &World, desk: &Desk, asker: &Asker, start: RunStart) -> Result<RunPlan, Refusal> {
        check(&start)?;
        let supervisor = supervisor(asker)?;
        let account = world.account(asker.uid);
        let kind = kind_of(&world.catalog, &start, supervisor, asker.uid)?;
        let id = RunId::from_random(clock::random16().map_err(|error| internal(error.to_string()))?);
        let Compiled { mut plan, notes } = self.plan(world, &account.home, kind.as_deref(), &start)?;
        if let Some(repository) = start.repository.clone() {
            grant_repository(&mut plan, repository, &account.home);
        }
        plan.run = id.clone();
        plan.mode = start.mode;
        plan.limits.seconds = match (plan.limits.seconds, start.seconds) {
            (Some(own), Some(asked)) => Some(own.min(asked)),
            (own, asked) => own.or(asked),
        };
        let hook = hook_folder(world, &id);
        let caller = caller(world, asker, supervisor, &id, kind.as_deref(), &plan.workspace);
        let run = Arc::new(CageRun {
            id: id.clone(),
            supervisor,
            kind,
            profile: plan.profile.clone(),
            workspace: plan.workspace.clone(),
            command: start.command,
            program: start.program,
            notes: notes.clone(),
            folder: PathBuf::from(&hook.host),
            hook: hook.clone(),
            started_unix_ns: clock::now().unix_ns,
            caller,
            plan: Some(plan.clone()),
            state: Mutex::default(),
        });
        self.admit(&run, asker.uid)?;
        let opened = self.open(world, &run).and_then(|()| {
            let facts = json!({
                "profile": run.profile, "command": run.command, "program": run.program, "workspace": run.workspace,
                "review": plan.mode.as_str(), "learn": plan.learn, "plan": digest(&plan), "notes": notes,
            });
            note(desk, &run, RecordKind::Event, "cage.planned", facts)
        });
        if let Err(refusal) = opened {
            self.forget(&run);
            return Err(refusal);
        }
        Ok(RunPlan { plan, hook, notes })
    }

    /// Confirms from outside, signs and records; only then may the command be executed.
    ///
    /// # Errors
    /// Something does not hold, or what is said is not about this run.
    pub(crate) fn go(&self, world: &World, desk: &Desk, asker: &Asker, go: RunGo) -> Result<RunStatement, Refusal> {
        let run = self.of_supervisor(asker, &go.run)?;
        let plan = run.plan.as_ref().ok_or_else(|| invalid("this run has its statement already", ""))?;
        if run.state().statement.is_some() {
            return Err(invalid("this run has its statement already", ""));
        }
        if go.controls.is_empty() || go.controls.len() > CONTROLS_MAX {
            return Err(invalid(format!("{} controls; 1 to {CONTROLS_MAX} are stated", go.controls.len()), ""));
        }
        let below = |process, above| confinement::is_below(process, above);
        if !below(go.init, run.supervisor) || !below(go.agent, go.init) || go.init == run.supervisor {
            return Err(invalid("the named processes are not this run's", "start it again"));
        }
        let mut controls = go.controls;
        if plan.degrade == Degrade::Declare {
            for control in controls.iter_mut().filter(|control| control.id == "files.rules") {
                if control.standing == Standing::NotHeld {
                    control.standing = Standing::Declared;
                }
            }
        }
        let declared = controls.iter().any(|control| control.standing == Standing::Declared);
        let namespaces = |process: ProcessKey| world.root.namespaces(process);
        controls.extend(outside::look(plan, &run.caller.account.home, run.supervisor, go.agent, &namespaces));
        let failed: Vec<&Control> = controls.iter().filter(|control| control.standing == Standing::NotHeld).collect();
        if !failed.is_empty() || (declared && plan.degrade == Degrade::Refuse) {
            let words: Vec<String> =
                failed.iter().take(8).map(|control| format!("{}: {}", control.id, control.evidence)).collect();
            let what = if words.is_empty() { "a control is only declared".to_owned() } else { words.join("; ") };
            let _ = note(desk, &run, RecordKind::Protection, "cage.refused-start", json!({ "controls": controls }));
            let hint = "`creel doctor` finds out what this machine can hold";
            return Err(Refusal::new(RefusalCode::Unavailable, format!("the cage does not hold: {what}"), hint));
        }
        let now = clock::now().unix_ns;
        let statement = Statement {
            run: run.id.clone(),
            uid: asker.uid,
            kind: run.kind.clone(),
            profile: run.profile.clone(),
            workspace: run.workspace.clone(),
            bundle: plan.bundle.clone(),
            plan: digest(plan),
            program: run.program.clone(),
            program_identity: program_identity(&run.program),
            kernel: kernel(),
            boot_id: world.boot_id().to_owned(),
            init: go.init,
            controls,
            notes: run.notes.clone(),
            issued_unix_ns: now,
            expires_unix_ns: now.saturating_add(STATEMENT_NS),
        };
        let statement = self.sign(statement)?;
        note(
            desk,
            &run,
            RecordKind::Protection,
            "cage.statement",
            json!({ "statement": statement.statement, "note": statement.note }),
        )?;
        let mut state = run.state();
        state.init = Some(go.init);
        state.statement = Some(Box::new(statement.clone()));
        Ok(statement)
    }

    fn sign(&self, mut statement: Statement) -> Result<RunStatement, Refusal> {
        let key = self.key.as_ref().ok_or_else(|| internal("the device key is not known"))?;
        for chars in EVIDENCE_CHARS_MAX {
            for control in &mut statement.controls {
                control.evidence = control.evidence.chars().take(chars).collect();
            }
            let text = serde_json::to_string(&statement).map_err(|error| internal(error.to_string()))?;
            if let Ok(note) = key.sign_note(&format!("{STATEMENT_HEADER}\n{text}\n")) {
                return Ok(RunStatement { statement, note });
            }
        }
        Err(internal("the statement is too long to be signed"))
    }

    /// Takes in what was noticed.
    ///
    /// # Errors
    /// It is not the supervisor's to say.
    pub(crate) fn events(&self, world: &World, desk: &Desk, asker: &Asker, events: RunEvents) -> Result<(), Refusal> {
        let run = self.of_supervisor(asker, &events.run)?;
        if events.events.len() > EVENTS_MAX {
            return Err(invalid(format!("{} events; at most {EVENTS_MAX} at once", events.events.len()), ""));
        }
        let mut noticed = events.events;
        for digest in noticed.iter_mut().flat_map(|event| [&mut event.before, &mut event.after]).flatten() {
            *digest = world.keyed(digest);
        }
        run.take(noticed, events.lost);
        write(desk, &run, clock::now().boot_ns, false);
        Ok(())
    }

    /// The cage is empty.
    ///
    /// # Errors
    /// It is not the supervisor's to say.
    pub(crate) fn end(&self, world: &World, desk: &Desk, asker: &Asker, end: RunEnd) -> Result<(), Refusal> {
        let run = self.of_supervisor(asker, &end.run)?;
        let facts = json!({ "exit": end.exit, "cpu_ms": end.cpu_ms, "memory_bytes": end.memory_bytes });
        self.close(world, desk, &run, end.exit, facts);
        Ok(())
    }

    /// Takes a run up again that another daemon stated.
    ///
    /// # Errors
    /// The note is none of this device, or what it names is not there any more.
    pub(crate) fn resume(
        &self,
        world: &World,
        desk: &Desk,
        asker: &Asker,
        resume: &RunResume,
    ) -> Result<HookFolder, Refusal> {
        let supervisor = supervisor(asker)?;
        let key = world.verifier().ok_or_else(|| internal("the device key is not known"))?;
        let text =
            key.open_note(&resume.note).map_err(|_| invalid("the statement is not signed by this device", ""))?;
        let text = text.strip_prefix(STATEMENT_HEADER).and_then(|text| text.strip_prefix('\n'));
        let text = text.ok_or_else(|| invalid("the note is no statement", ""))?;
        let statement: Statement = serde_json::from_str(text)
            .map_err(|error| invalid(format!("the statement cannot be read: {error}"), ""))?;
        let gone = "that run is over";
        let below = confinement::is_below(statement.init, supervisor) && statement.init != supervisor;
        if statement.uid != asker.uid || statement.boot_id != world.boot_id() || !below {
            return Err(Refusal::new(RefusalCode::NotFound, gone, ""));
        }
        if let Some(known) = self.runs().living.get(&statement.run) {
            return if known.supervisor == supervisor {
                Ok(known.hook.clone())
            } else {
                Err(invalid("it is another's run", ""))
            };
        }
        let hook = hook_folder(world, &statement.run);
        let caller = caller(world, asker, supervisor, &statement.run, statement.kind.as_deref(), &statement.workspace);
        let run = Arc::new(CageRun {
            id: statement.run.clone(),
            supervisor,
            kind: statement.kind.clone(),
            profile: statement.profile.clone(),
            workspace: statement.workspace.clone(),
            command: Vec::new(),
            program: statement.program.clone(),
            notes: statement.notes.clone(),
            folder: PathBuf::from(&hook.host),
            hook: hook.clone(),
            started_unix_ns: statement.issued_unix_ns,
            caller,
            plan: None,
            state: Mutex::new(State { init: Some(statement.init), ..State::default() }),
        });
        run.state().statement = Some(Box::new(RunStatement { statement, note: resume.note.clone() }));
        self.admit(&run, asker.uid)?;
        let opened =
            self.open(world, &run).and_then(|()| note(desk, &run, RecordKind::Event, "cage.resumed", json!({})));
        if let Err(refusal) = opened {
            self.forget(&run);
            return Err(refusal);
        }
        self.compare(world, &run);
        Ok(hook)
    }

    /// Writes down what waits, notices runs whose supervisor is gone and statements that say nothing any more.
    pub fn tick(&self, world: &World, desk: &Desk) {
        let (living, compare) = {
            let mut runs = self.runs();
            runs.ticks = runs.ticks.wrapping_add(1);
            (runs.living.values().cloned().collect::<Vec<_>>(), runs.ticks.is_multiple_of(COMPARE_EVERY))
        };
        let now = clock::now();
        for run in &living {
            if process::is_alive(run.supervisor) {
                write(desk, run, now.boot_ns, false);
                if compare {
                    self.compare(world, run);
                }
            } else {
                let exit = RunExit::Failed("the supervisor is gone".to_owned());
                self.close(world, desk, run, exit.clone(), json!({ "exit": exit }));
            }
        }
        if compare && now.unix_ns.saturating_sub(world.started_unix_ns) > FORGOTTEN_NS {
            sweep(&runs_folder(world), &living.iter().map(|run| run.folder.clone()).collect());
        }
    }

    /// Living runs and, where asked for, ended ones that the asker may see; newest first.
    pub(crate) fn list(&self, world: &World, asker: &Asker, ended: bool) -> Vec<CageRunView> {
        let (living, over) = {
            let runs = self.runs();
            let over =
                runs.ended.iter().filter(|_| ended).map(|run| CageRunView { statement: None, ..run.view.clone() });
            (runs.living.values().cloned().collect::<Vec<_>>(), over.collect::<Vec<_>>())
        };
        let mut views: Vec<CageRunView> =
            living.iter().map(|run| run.view(world.account_name(run.caller.account.uid), false)).collect();
        views.extend(over);
        views.retain(|view| asker.may_see(view.uid));
        views.sort_by_key(|view| std::cmp::Reverse(view.started_unix_ns));
        views
    }

    /// One run: by the beginning of its id (with or without `r-`), or the newest.
    pub(crate) fn find(
        &self,
        world: &World,
        asker: &Asker,
        id: &str,
    ) -> Result<(CageRunView, Vec<CageEvent>), Refusal> {
        let names = |run: &RunId| run.as_str().starts_with(id) || run.as_str().trim_start_matches("r-").starts_with(id);
        let views = self.list(world, asker, true);
        let mut found = views.iter().filter(|view| id.is_empty() || names(&view.run));
        let Some(first) = found.next() else {
            let message = if id.is_empty() { "no run in a cage is known".to_owned() } else { format!("no run `{id}`") };
            return Err(Refusal::new(
                RefusalCode::NotFound,
                message,
                "`creel runs` lists them; older ones are in `creel log`",
            ));
        };
        if !id.is_empty() && found.next().is_some() {
            return Err(invalid(format!("`{id}` begins several runs"), "give more of it"));
        }
        let runs = self.runs();
        if let Some(run) = runs.living.get(&first.run).cloned() {
            drop(runs);
            let recent = run.state().recent.iter().cloned().collect();
            return Ok((run.view(first.account.clone(), true), recent));
        }
        let over = runs.ended.iter().find(|ended| ended.view.run == first.run);
        over.map(|ended| (ended.view.clone(), ended.recent.iter().cloned().collect()))
            .ok_or_else(|| Refusal::new(RefusalCode::NotFound, format!("no run `{id}`"), ""))
    }

    fn plan(&self, world: &World, home: &str, kind: Option<&str>, start: &RunStart) -> Result<Compiled, Refusal> {
        let bundle = world.bundle();
        let key = PlanKey {
            profile: start.profile.clone(),
            kind: kind.map(str::to_owned),
            home: home.to_owned(),
            workspace: start.workspace.clone(),
            programs: programs(start),
            learn: start.learn,
        };
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_from, compiled)) = plans.get(&key)
            && std::ptr::eq(made_from.as_ptr(), Arc::as_ptr(&bundle))
        {
            return Ok(compiled.clone());
        }
        let hook = world.protections.hook().display().to_string();
        let config = world.config();
        let never = [&config.state, &config.root_socket].map(|path| path.display().to_string());
        let compiled = bundle
            .cage_plan(&CageRequest {
                run: RunId::from_random([0; 16]),
                profile: key.profile.as_deref(),
                kind,
                places: &Places { home: home.to_owned(), workspace: Some(key.workspace.clone()), ..Places::default() },
                mode: start.mode,
                learn: key.learn,
                seconds: None,
                programs: &key.programs,
                hook: Some(&hook),
                never: &never,
            })
            .map_err(|none| invalid(none.message, &none.hint))?;
        if plans.len() >= PLANS_MAX {
            plans.clear();
        }
        plans.insert(key, (Arc::downgrade(&bundle), compiled.clone()));
        Ok(compiled)
    }

    fn admit(&self, run: &Arc<CageRun>, uid: u32) -> Result<(), Refusal> {
        let mut runs = self.runs();
        let of_account = runs.living.values().filter(|run| run.caller.account.uid == uid).count();
        if of_account >= RUNS_PER_ACCOUNT || runs.living.len() >= RUNS {
            return Err(Refusal::new(RefusalCode::Busy, "too many runs in cages live already", "end one first"));
        }
        let beside = runs.living.values().any(|other| other.folder == run.folder);
        if beside || runs.living.contains_key(&run.id) {
            return Err(Refusal::new(RefusalCode::Busy, "the run's id is taken", "try again"));
        }
        runs.living.insert(run.id.clone(), Arc::clone(run));
        Ok(())
    }

    /// Opens the run's own hook socket and has it answered.
    fn open(&self, world: &World, run: &Arc<CageRun>) -> Result<(), Refusal> {
        let system = world.mode() == Mode::System;
        let above = runs_folder(world);
        // In system mode the cage's account goes through both folders, and sees which runs there are in neither.
        let result = prepare_folder(&above, if system { 0o711 } else { 0o700 })
            .and_then(|()| prepare_folder(&run.folder, if system { 0o755 } else { 0o700 }))
            .and_then(|()| listen(&run.folder.join("hook.sock"), if system { 0o666 } else { 0o600 }));
        let listener =
            Arc::new(result.map_err(|error| internal(format!("the run's socket cannot be opened: {error}")))?);
        let hooks = self.hooks.get().and_then(Weak::upgrade).ok_or_else(|| internal("nobody answers hooks yet"))?;
        run.state().listener = Some(Arc::clone(&listener));
        hooks
            .serve_run(listener, Arc::clone(run))
            .map_err(|error| internal(format!("a thread cannot be started: {error}")))
    }

    fn of_supervisor(&self, asker: &Asker, id: &RunId) -> Result<Arc<CageRun>, Refusal> {
        let run = self.runs().living.get(id).cloned();
        let run = run.filter(|run| run.caller.account.uid == asker.uid);
        let run = run.ok_or_else(|| Refusal::new(RefusalCode::NotFound, format!("no run `{id}` lives here"), ""))?;
        if run.supervisor != supervisor(asker)? {
            let message = "only the process that began a run speaks for it";
            return Err(Refusal::new(RefusalCode::Forbidden, message, ""));
        }
        Ok(run)
    }

    fn close(&self, world: &World, desk: &Desk, run: &Arc<CageRun>, exit: RunExit, facts: Value) {
        {
            let mut state = run.state();
            if state.over {
                return;
            }
            state.over = true;
        }
        write(desk, run, clock::now().boot_ns, true);
        // Records that cannot be written show in the journal's own state.
        let _ = note(desk, run, RecordKind::Event, "cage.ended", facts);
        let _ = desk.tell(Input::RunEnded(run.caller.run.clone()));
        self.forget(run);
        let ended = Ended::of(run, world.account_name(run.caller.account.uid), exit, clock::now().unix_ns);
        let mut runs = self.runs();
        if runs.ended.len() >= ENDED_MAX {
            runs.ended.pop_back();
        }
        runs.ended.push_front(ended);
    }

    fn forget(&self, run: &CageRun) {
        self.runs().living.remove(&run.id);
        if let Some(listener) = run.state().listener.take() {
            let _ = rustix::net::shutdown(&*listener, rustix::net::Shutdown::Both);
        }
        let _ = std::fs::remove_file(run.folder.join("hook.sock"));
        let _ = std::fs::remove_dir(&run.folder);
    }

    /// Whether the statement still says something about this machine.
    fn compare(&self, world: &World, run: &CageRun) {
        let now = clock::now().unix_ns;
        let Some(stated) = run.state().statement.clone() else { return };
        let statement = &stated.statement;
        let why = if now >= statement.expires_unix_ns || now < statement.issued_unix_ns {
            "it is older than 24 hours"
        } else if world.bundle().digest() != &statement.bundle {
            "another bundle is in force"
        } else if !statement.program_identity.is_empty()
            && program_identity(&statement.program) != statement.program_identity
        {
            "the program was changed on the disk"
        } else {
            return;
        };
        run.state().expired.get_or_insert_with(|| why.to_owned());
    }
}

fn runs_folder(world: &World) -> PathBuf {
    world.config().runtime.join("runs")
}

/// Short names: the path of a socket has 108 bytes at most.
fn hook_folder(world: &World, id: &RunId) -> HookFolder {
    let short: String = id.as_str().trim_start_matches("r-").chars().take(12).collect();
    HookFolder {
        host: runs_folder(world).join(short).display().to_string(),
        cage: world.config().runtime.display().to_string(),
    }
}

/// Removes folders of runs that nobody speaks for.
fn sweep(above: &Path, living: &BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(above).into_iter().flatten().flatten().take(4_096) {
        let folder = entry.path();
        if !living.contains(&folder)
            && entry.metadata().is_ok_and(|facts| facts.is_dir() && facts.permissions().mode() & 0o022 == 0)
        {
            let _ = std::fs::remove_file(folder.join("hook.sock"));
            let _ = std::fs::remove_dir(folder);
        }
    }
}
