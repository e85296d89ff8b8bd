//! `hook.sock`: one event in, one answer out, per connection (hook wire v1).
//!
//! Reads a frame, finds out by the kernel's word whose event it is, translates, prepares in parallel, and lets the desk
//! decide. Whatever goes wrong on the way ends in the agent's own deny form. The one fact a newcomer gets wrong: the
//! payload never says who is asking; the process tree above the peer does.

use std::io::{self, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use creel_dialect as dialect;
use creel_guard::{Caller, Input, Note, Overloaded, Parts, Prepared, Unattributed};
use creel_model::{Action, Decision, Moment, RecordKind};
use creel_wire::hook;

use crate::budget::{Fast, SlowLane, Until};
use crate::cages::CageRun;
use crate::clock;
use crate::connections::Places;
use crate::desk::{Desk, stopped};
use crate::flood::{Flood, Tell};
use crate::identity::Unknown;
use crate::sockets::Peer;
use crate::streams;
use crate::world::World;

/// Open hook calls of one run; one more is denied with `overload`.
const CALLS_PER_RUN: usize = 64;
/// Open hook connections of one account, and of the machine. At the bound a connection is closed unanswered and the
/// hook prints its own deny.
const CONNECTIONS_PER_ACCOUNT: usize = 128;
const CONNECTIONS: usize = 384;
/// How long a peer may take to hand in its whole frame, and to take its whole answer.
const TRANSFER: Duration = Duration::from_secs(5);
/// Threads that go on waiting after a call; one more ends. The stack and the memory that they have used stay theirs.
const WAITING_MAX: usize = 4;
/// The same at the socket of one run in a cage, of which there are many.
const WAITING_MAX_OF_RUN: usize = 1;
/// Stack of a connection's thread in bytes: the shell parser recurses on hostile text.
const STACK_BYTES: usize = 8 * 1024 * 1024;
/// Time kept back from the hook's deadline for the way there and back, in milliseconds.
const MARGIN_MS: u64 = 1_000;

/// Longest deadline of a hook that is believed, in milliseconds.
const DEADLINE_MS_MAX: u64 = 600_000;

/// A listener and the threads that wait at it.
struct Waiting {
    server: Arc<HookServer>,
    listener: Arc<UnixListener>,
    cage: Option<Arc<CageRun>>,
    /// How many wait now, and may at most.
    threads: AtomicUsize,
    threads_max: usize,
}

/// Serves hook calls.
pub struct HookServer {
    desk: Arc<Desk>,
    world: Arc<World>,
    slow: SlowLane,
    runs: Arc<Places<creel_guard::RunKey>>,
    connections: Arc<Places<u32>>,
    flood: Flood,
}

impl HookServer {
    /// A server for this desk.
    #[must_use]
    pub fn new(desk: Arc<Desk>, world: Arc<World>) -> Arc<Self> {
        Arc::new(Self {
            desk,
            world,
            slow: SlowLane::default(),
            runs: Places::new(CALLS_PER_RUN, CONNECTIONS),
            connections: Places::new(CONNECTIONS_PER_ACCOUNT, CONNECTIONS),
            flood: Flood::default(),
        })
    }

    /// Serves what connects here, from now on and until the daemon ends.
    ///
    /// Threads wait for connections themselves, and the last one that waits starts its successor before it works on what
    /// it got. So a call needs no new thread, and one that waits for a person keeps nobody else waiting.
    ///
    /// # Errors
    /// The first thread cannot be started.
    pub fn serve(self: &Arc<Self>, listener: UnixListener) -> io::Result<()> {
        self.wait_at(Arc::new(listener), None, WAITING_MAX)
    }

    /// The same on the socket of one run in a cage, until it is shut down: what arrives there is that run's.
    ///
    /// # Errors
    /// The first thread cannot be started.
    pub fn serve_run(self: &Arc<Self>, listener: Arc<UnixListener>, run: Arc<CageRun>) -> io::Result<()> {
        self.wait_at(listener, Some(run), WAITING_MAX_OF_RUN)
    }

    fn wait_at(
        self: &Arc<Self>,
        listener: Arc<UnixListener>,
        cage: Option<Arc<CageRun>>,
        threads_max: usize,
    ) -> io::Result<()> {
        Arc::new(Waiting { server: Arc::clone(self), listener, cage, threads: AtomicUsize::new(0), threads_max })
            .start()
    }

    fn take(&self, stream: UnixStream, cage: Option<&CageRun>) {
        let Ok(peer) = Peer::of(&stream) else { return };
        self.world.saw(&peer);
        let Some(_place) = self.connections.take(peer.uid) else { return };
        self.answer(stream, &peer, cage);
    }

    fn answer(&self, stream: UnixStream, peer: &Peer, cage: Option<&CageRun>) {
        let incoming = streams::InTime::new(&stream, TRANSFER);
        let request = match hook::read_request(&mut BufReader::with_capacity(64 * 1024, incoming)) {
            Ok(request) => request,
            Err(error) => {
                self.refuse(peer, "", "", format!("a frame that is not understood: {error}"), None);
                return;
            }
        };
        let received = clock::now();
        let answer = match cage {
            None => self.judge(&request, peer, received, &stream),
            Some(run) => self.judge_caged(&request, peer, received, &stream, run),
        };
        if let Ok(bytes) = hook::encode_answer(&answer) {
            let _ = streams::InTime::new(&stream, TRANSFER).write_all(&bytes);
        }
    }

    fn judge(&self, request: &hook::Request, peer: &Peer, received: Moment, stream: &UnixStream) -> hook::Answer {
        let hook::Request { kind, event, payload, .. } = request;
        if let Some(answer) = self.world.canary.answer(request, peer) {
            return answer;
        }
        let action = match dialect::parse(kind, event, payload) {
            Ok(action) => action,
            Err(malformed) => {
                let caller = self.world.identity.caller(peer).ok();
                let decision = self.refuse(peer, kind, event, malformed.to_string(), caller);
                return printed(kind, event, &decision);
            }
        };
        let caller = match self.world.identity.caller(peer) {
            Ok(caller) => caller,
            Err(unknown) => {
                let decision = self.unattributed(peer, request, &unknown, received);
                return answer_for(kind, &action, &decision);
            }
        };
        let canary = &self.world.canary.live;
        if let Some(decision) = canary.decide(&action, payload, &caller.kind, caller.account.uid, peer) {
            return answer_for(kind, &action, &decision);
        }
        let flags = hook::Flags::parse(&request.arguments).unwrap_or_default();
        let decision = self.decide(&action, &caller, payload.len() as u64, &flags, received, stream);
        answer_for(kind, &action, &decision)
    }

    /// What arrives over a run's own socket is that run's, if it comes out of its cage.
    fn judge_caged(
        &self,
        request: &hook::Request,
        peer: &Peer,
        received: Moment,
        stream: &UnixStream,
        run: &CageRun,
    ) -> hook::Answer {
        let hook::Request { kind, event, payload, .. } = request;
        let caller = run.admits(peer).then(|| run.caller(kind));
        let action = match dialect::parse(kind, event, payload) {
            Ok(action) => action,
            Err(malformed) => {
                let decision = self.refuse(peer, kind, event, malformed.to_string(), caller);
                return printed(kind, event, &decision);
            }
        };
        let Some(caller) = caller else {
            let decision = self.unattributed(peer, request, &Unknown::OutsideCage, received);
            return answer_for(kind, &action, &decision);
        };
        if caller.kind != *kind {
            let reason =
                format!("this cage is {}'s, and a hook of `{kind}` calls; start that one in its own", caller.kind);
            let decision = self.refuse(peer, kind, event, reason, Some(caller));
            return printed(kind, event, &decision);
        }
        let canary = &self.world.canary.live;
        if let Some(decision) = canary.decide(&action, payload, &caller.kind, caller.account.uid, peer) {
            return answer_for(kind, &action, &decision);
        }
        let flags = hook::Flags::parse(&request.arguments).unwrap_or_default();
        let decision = self.decide(&action, &caller, payload.len() as u64, &flags, received, stream);
        let answer = dialect::answer(kind, &action, &decision);
        let told = run.untold().and_then(|text| dialect::tell(&action, &answer, &text));
        if told.is_some() {
            run.was_told();
        }
        let dialect::Answer { stdout, stderr, exit_code } = told.unwrap_or(answer);
        hook::Answer { exit_code, stdout, stderr }
    }

    fn decide(
        &self,
        action: &Action,
        caller: &Caller,
        payload_bytes: u64,
        flags: &hook::Flags,
        received: Moment,
        stream: &UnixStream,
    ) -> Decision {
        let Some(_place) = self.runs.take(caller.run.clone()) else {
            return self.desk.deny(Input::Overload(Box::new(Unattributed {
                kind: caller.kind.clone(),
                event: action.event.clone(),
                reason: "too many open calls of this run".to_owned(),
                uid: caller.account.uid,
                pid: caller.run.process.pid,
                caller: Some(caller.clone()),
                payload_bytes,
                received,
            })));
        };
        // The hook's arguments are its caller's word: nobody holds the slow lane for hours.
        let deadline_ms = u64::from(flags.deadline_ms).min(DEADLINE_MS_MAX);
        let prepared = match self.prepare(action, caller, payload_bytes, &Fast::for_payload(payload_bytes)) {
            ready @ Prepared::Ready(_) => ready,
            over @ Prepared::Overload(_) => {
                // Four fifths of what the hook waits, so that the answer still reaches it.
                let until = Until { boot_ns: received.boot_ns.saturating_add(deadline_ms * 800_000) };
                match self.slow.enter(caller.run.clone(), &until) {
                    Some(_turn) => self.prepare(action, caller, payload_bytes, &until),
                    None => over,
                }
            }
        };
        let wait_ns_max = deadline_ms.saturating_sub(MARGIN_MS).saturating_mul(1_000_000);
        let mut again = || {
            let until = Until { boot_ns: clock::now().boot_ns.saturating_add(2_000_000_000) };
            self.prepare(action, caller, payload_bytes, &until)
        };
        let mut hook_is_there = || !streams::is_closed(stream);
        self.desk.decide(prepared, received, wait_ns_max, &mut again, &mut hook_is_there)
    }

    fn prepare(
        &self,
        action: &Action,
        caller: &Caller,
        payload_bytes: u64,
        budget: &dyn creel_guard::Budget,
    ) -> Prepared {
        let over = || {
            Prepared::Overload(Box::new(Overloaded { caller: caller.clone(), action: action.clone(), payload_bytes }))
        };
        let work = || {
            let place = self.world.place(action, caller);
            let parts: Parts = creel_guard::understand(action, &place.borrowed(), budget);
            if budget.spent() {
                return over();
            }
            let wanted = creel_guard::wanted(&parts);
            let Ok(looked) = self.world.look(&wanted, caller) else { return over() };
            let bundle = self.world.bundle();
            creel_guard::prepare(action.clone(), caller.clone(), parts, &looked, &bundle, payload_bytes, budget)
        };
        // A parser that is not ours reads hostile text here. Where it panics, this one call is denied; everything that
        // is shared is behind locks that are not held while it runs.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|_| over())
    }

    /// The deny of a call that belongs to no agent where its account made so many that this one is not written down.
    fn too_many(&self, peer: &Peer) -> Option<Decision> {
        let tell = self.flood.refused(peer.uid, clock::now().boot_ns);
        if tell == Tell::Stopped {
            let facts = [("uid".to_owned(), peer.uid.into()), ("pid".to_owned(), peer.pid.into())];
            let note = Note {
                kind: RecordKind::Alert,
                code: "alert.hook-flood".to_owned(),
                owner: peer.uid,
                facts: facts.into_iter().collect(),
            };
            // A record that cannot be written shows in the journal's own state.
            let _ = self.desk.tell(Input::Note(Box::new(note)));
        }
        (tell != Tell::Singly).then(|| stopped("this account makes too many calls that belong to no agent"))
    }

    fn refuse(&self, peer: &Peer, kind: &str, event: &str, reason: String, caller: Option<Caller>) -> Decision {
        if caller.is_none()
            && let Some(decision) = self.too_many(peer)
        {
            return decision;
        }
        self.desk.deny(Input::Malformed(Box::new(Unattributed {
            kind: kind.to_owned(),
            event: event.to_owned(),
            reason,
            uid: peer.uid,
            pid: peer.pid,
            caller,
            payload_bytes: 0,
            received: clock::now(),
        })))
    }

    fn unattributed(&self, peer: &Peer, request: &hook::Request, why: &Unknown, received: Moment) -> Decision {
        if let Some(decision) = self.too_many(peer) {
            return decision;
        }
        self.desk.deny(Input::NoAgentAbove(Box::new(Unattributed {
            kind: request.kind.clone(),
            event: request.event.clone(),
            reason: why.to_string(),
            uid: peer.uid,
            pid: peer.pid,
            caller: None,
            payload_bytes: request.payload.len() as u64,
            received,
        })))
    }
}

impl Waiting {
    /// One thread more waits.
    fn start(self: &Arc<Self>) -> io::Result<()> {
        let waiting = Arc::clone(self);
        self.threads.fetch_add(1, Ordering::AcqRel);
        let thread = std::thread::Builder::new().name("hook".to_owned()).stack_size(STACK_BYTES);
        let started = thread.spawn(move || waiting.work()).map(drop);
        if started.is_err() {
            self.threads.fetch_sub(1, Ordering::AcqRel);
        }
        started
    }

    fn work(self: &Arc<Self>) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                // What shutting a listening socket down ends in.
                Err(error) if self.cage.is_some() && error.kind() == io::ErrorKind::InvalidInput => return,
                // Out of descriptors, or an aborted connection: the hook retries or denies; we go on.
                Err(_) => {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                }
            };
            // A successor that cannot be started closes the connection, and the hook denies: nobody would wait.
            if self.threads.fetch_sub(1, Ordering::AcqRel) == 1 && self.start().is_err() {
                self.threads.fetch_add(1, Ordering::AcqRel);
                continue;
            }
            self.server.take(stream, self.cage.as_deref());
            if self.threads.fetch_add(1, Ordering::AcqRel) >= self.threads_max {
                self.threads.fetch_sub(1, Ordering::AcqRel);
                return;
            }
        }
    }
}

/// The agent's own form of a decision.
fn answer_for(kind: &str, action: &Action, decision: &Decision) -> hook::Answer {
    let dialect::Answer { stdout, stderr, exit_code } = dialect::answer(kind, action, decision);
    hook::Answer { exit_code, stdout, stderr }
}

/// The agent's own deny form where there is no action to answer.
fn printed(kind: &str, event: &str, decision: &Decision) -> hook::Answer {
    let printed = dialect::deny::print(kind, event, &decision.reason);
    hook::Answer {
        exit_code: printed.exit_code,
        stdout: printed.stdout.into_bytes(),
        stderr: printed.stderr.into_bytes(),
    }
}
