//! Where facts meet the guard and its records meet the journal: one lock, one order of events.
//!
//! Every answer leaves this module only after its records were appended. A held action waits on its own thread here,
//! so the guard never waits for a human. The one fact a newcomer gets wrong: a failed append turns the answer into a
//! deny, whatever the guard said (DESIGN §6, invariant 2).

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use creel_guard::{Answer, Guard, Input, Output, Prepared, Submission};
use creel_journal::Journal;
use creel_model::record::Record;
use creel_model::{Decision, MatchedRule, Moment, RecordKind, Severity, Verdict};

use crate::clock;
use crate::live::{Broadcast, LiveEvent};
use crate::reports::Durations;

/// Held actions at a time on the whole machine; one more is denied with `overload`.
pub const HELD_MAX: usize = 128;

/// How often a held action looks whether its hook is still there.
const HOOK_GONE_CHECK: Duration = Duration::from_millis(500);

/// The guard, its journal and who waits for them.
pub struct Desk {
    inner: Mutex<Inner>,
    released: Condvar,
    live: Arc<Broadcast>,
}

struct Inner {
    guard: Guard,
    journal: Journal,
    held: BTreeMap<u64, Held>,
    next_ticket: u64,
    records_lost: u64,
    closed: bool,
    durations: Durations,
}

enum Held {
    Waiting,
    LookAgain,
    Decided(Decision),
}

/// What the desk answers to an input that is no action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

impl Desk {
    /// A desk with an open journal.
    #[must_use]
    pub fn new(guard: Guard, journal: Journal, live: Arc<Broadcast>) -> Self {
        Self {
            inner: Mutex::new(Inner {
                guard,
                journal,
                held: BTreeMap::new(),
                next_ticket: 1,
                records_lost: 0,
                closed: false,
                durations: Durations::default(),
            }),
            released: Condvar::new(),
            live,
        }
    }

    /// Decides on a prepared action, waiting for a human where the guard asks for one.
    ///
    /// `again` prepares the same action once more with the files of now; `hook_is_there` tells whether anybody still
    /// waits for the answer.
    pub fn decide(
        &self,
        prepared: Prepared,
        received: Moment,
        wait_ns_max: u64,
        again: &mut dyn FnMut() -> Prepared,
        hook_is_there: &mut dyn FnMut() -> bool,
    ) -> Decision {
        let mut inner = self.lock();
        if inner.closed {
            return stopped("creel is stopping");
        }
        let ticket = inner.next_ticket;
        inner.next_ticket = inner.next_ticket.wrapping_add(1);
        // On a full disk what is left belongs to the record of what happens: whatever needs a question is denied.
        let may_wait = inner.held.len() < HELD_MAX && inner.journal.has_room();
        let wait_ns_max = if may_wait { wait_ns_max } else { 0 };
        let submission = Submission { ticket, prepared, received, wait_ns_max };
        let output = self.step(&mut inner, Input::Action(Box::new(submission)));
        match output {
            Err(decision) => *decision,
            Ok(output) => match output.answer {
                Some(Answer::Final(decision)) => decision,
                Some(Answer::Pending { deadline_boot_ns, .. }) => {
                    inner.held.insert(ticket, Held::Waiting);
                    self.wait(inner, ticket, deadline_boot_ns, again, hook_is_there)
                }
                None => stopped("the guard gave no answer"),
            },
        }
    }

    fn wait<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner>,
        ticket: u64,
        deadline_boot_ns: u64,
        again: &mut dyn FnMut() -> Prepared,
        hook_is_there: &mut dyn FnMut() -> bool,
    ) -> Decision {
        loop {
            match inner.held.remove(&ticket) {
                Some(Held::Decided(decision)) => return decision,
                Some(Held::LookAgain) => {
                    inner.held.insert(ticket, Held::Waiting);
                    drop(inner);
                    let prepared = again();
                    inner = self.lock();
                    let input = Input::Recheck { ticket, prepared: Box::new(prepared) };
                    match self.step(&mut inner, input) {
                        Err(decision) => {
                            inner.held.remove(&ticket);
                            return *decision;
                        }
                        Ok(Output { answer: Some(Answer::Final(decision)), .. }) => {
                            inner.held.remove(&ticket);
                            return decision;
                        }
                        Ok(_) => {}
                    }
                    continue;
                }
                Some(Held::Waiting) => {
                    inner.held.insert(ticket, Held::Waiting);
                }
                None => return stopped("the held action was lost"),
            }
            if inner.closed {
                inner.held.remove(&ticket);
                return stopped("creel is stopping");
            }
            if clock::now().boot_ns >= deadline_boot_ns {
                // The guard releases what has run out; nothing released by then is a deny all the same.
                let ticked = self.step(&mut inner, Input::Tick);
                if let Err(decision) = ticked {
                    inner.held.remove(&ticket);
                    return *decision;
                }
                return match inner.held.remove(&ticket) {
                    Some(Held::Decided(decision)) => decision,
                    _ => stopped("nobody answered in time"),
                };
            }
            let left = Duration::from_nanos(deadline_boot_ns.saturating_sub(clock::now().boot_ns));
            inner =
                self.released.wait_timeout(inner, left.min(HOOK_GONE_CHECK)).unwrap_or_else(PoisonError::into_inner).0;
            if matches!(inner.held.get(&ticket), Some(Held::Waiting)) && !hook_is_there() {
                inner.held.remove(&ticket);
                let _ = self.step(&mut inner, Input::Gone { ticket });
                return stopped("the hook went away");
            }
        }
    }

    /// Hands in an input that is no action.
    ///
    /// # Errors
    /// The guard refuses it, or it could not be recorded.
    pub fn tell(&self, input: Input) -> Result<Output, Refused> {
        let mut inner = self.lock();
        let output = self.step(&mut inner, input).map_err(|decision| Refused(decision.reason))?;
        match &output.refused {
            Some(why) => Err(Refused(why.clone())),
            None => Ok(output),
        }
    }

    /// Hands in a call that could not be judged and returns the deny that it gets.
    pub fn deny(&self, input: Input) -> Decision {
        let mut inner = self.lock();
        match self.step(&mut inner, input) {
            Ok(Output { answer: Some(Answer::Final(decision)), .. }) => decision,
            Ok(_) => stopped("the guard gave no answer"),
            Err(decision) => *decision,
        }
    }

    /// Looks at the guard's state and the journal's without changing them.
    pub fn look<T>(&self, look: impl FnOnce(&Guard, &Journal) -> T) -> T {
        let inner = self.lock();
        look(&inner.guard, &inner.journal)
    }

    /// Works on the journal itself (erasing, checkpoints) under the desk's order.
    pub fn with_journal<T>(&self, work: impl FnOnce(&mut Journal) -> T) -> T {
        work(&mut self.lock().journal)
    }

    /// Median and 99th percentile of what decisions took since the start, in nanoseconds.
    #[must_use]
    pub fn took(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.durations.at(500), inner.durations.at(990))
    }

    /// Records that could not be written since the start.
    #[must_use]
    pub fn records_lost(&self) -> u64 {
        self.lock().records_lost
    }

    /// Erases the details of records and writes down that it was done, by whom and why.
    ///
    /// # Errors
    /// In words; some may be erased already then, and asking again completes it.
    pub fn erase(&self, sequences: &[u64], reason: &str, by: &str, uid: u32) -> Result<u64, String> {
        let mut facts = serde_json::Map::new();
        facts.insert("by".to_owned(), by.into());
        facts.insert("by_uid".to_owned(), uid.into());
        // Sealed by the journal as well; here it is for people who read the record.
        facts.insert("reason".to_owned(), reason.into());
        let mut erased = 0;
        for ranges in ranges(sequences).chunks(1_000) {
            let mut inner = self.lock();
            let Inner { guard, journal, .. } = &mut *inner;
            // The guard makes the record, the journal completes it with what was erased and appends it.
            let note = creel_guard::Note {
                kind: RecordKind::Erasure,
                code: "journal.erased".to_owned(),
                owner: uid,
                facts: facts.clone(),
            };
            let output = guard.step(Input::Note(Box::new(note)), clock::now());
            let Some(record) = output.records.into_iter().next() else {
                return Err("the guard made no record of it".to_owned());
            };
            let mut snapshot = || guard.snapshot();
            let done = journal.erase(ranges, reason, &record, &mut snapshot).map_err(|error| error.to_string())?;
            erased += done.details;
            self.live.send(LiveEvent::Record { sequence: done.sequence });
        }
        Ok(erased)
    }

    /// Waits until the held actions have taken their answers, at most so long.
    pub fn wait_for_held(&self, at_most: Duration) {
        let until = clock::now().boot_ns.saturating_add(u64::try_from(at_most.as_nanos()).unwrap_or(u64::MAX));
        let mut inner = self.lock();
        while !inner.held.is_empty() && clock::now().boot_ns < until {
            inner =
                self.released.wait_timeout(inner, Duration::from_millis(20)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes no more actions, lets the held ones go with a deny.
    pub fn close(&self) {
        self.lock().closed = true;
        self.released.notify_all();
    }

    /// One step of the guard, its records appended, its releases handed on. An error is the deny that replaces every
    /// answer when the records could not be written.
    fn step(&self, inner: &mut Inner, input: Input) -> Result<Output, Box<Decision>> {
        let output = inner.guard.step(input, clock::now());
        let Inner { guard, journal, held, records_lost, durations, .. } = inner;
        let mut failed = None;
        for record in &output.records {
            if record.envelope.kind == RecordKind::Decision {
                durations.add(record.envelope.took_ns);
            }
            let mut snapshot = || guard.snapshot();
            match journal.append(record, &mut snapshot) {
                Ok(appended) => {
                    self.live.send(LiveEvent::Record { sequence: appended.sequence });
                }
                Err(error) => {
                    *records_lost = records_lost.saturating_add(1);
                    failed = Some(error.to_string());
                }
            }
        }
        if output.sync
            && let Err(error) = journal.sync()
        {
            failed = Some(error.to_string());
        }
        for ticket in &output.recheck {
            held.entry(*ticket).and_modify(|state| *state = Held::LookAgain);
        }
        for (ticket, decision) in &output.released {
            let decision = match &failed {
                Some(why) => stopped(&format!("the record cannot be written: {why}")),
                None => decision.clone(),
            };
            held.entry(*ticket).and_modify(|state| *state = Held::Decided(decision));
        }
        if !output.released.is_empty() || !output.recheck.is_empty() {
            self.released.notify_all();
        }
        for view in &output.asked {
            self.live.send(LiveEvent::Question { id: view.id.clone() });
        }
        for alert in &output.alerts {
            self.live.send(LiveEvent::Alert(alert.clone()));
        }
        match failed {
            Some(why) => Err(Box::new(stopped(&format!("the record cannot be written: {why}")))),
            None => Ok(output),
        }
    }

    /// Appends a record of the endpoint's own making, outside the guard: only for what happens before the guard lives.
    ///
    /// # Errors
    /// The journal cannot write it.
    pub fn append(&self, record: &Record) -> Result<u64, String> {
        let mut inner = self.lock();
        let Inner { guard, journal, .. } = &mut *inner;
        let mut snapshot = || guard.snapshot();
        journal.append(record, &mut snapshot).map(|appended| appended.sequence).map_err(|error| error.to_string())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic under the lock is a fault of ours; the state before the step is still consistent, and refusing to
        // decide at all would be an outage of every agent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ascending numbers as ranges, first and last.
fn ranges(sequences: &[u64]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for sequence in sequences {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*sequence) => *last = *sequence,
            _ => ranges.push((*sequence, *sequence)),
        }
    }
    ranges
}

/// A deny of the endpoint's own, with rule `creel-unavailable`.
#[must_use]
pub fn stopped(why: &str) -> Decision {
    Decision {
        verdict: Verdict::Deny,
        rules: vec![MatchedRule {
            rule: "creel-unavailable".to_owned(),
            effect: Verdict::Deny,
            severity: Severity::High,
            reason: why.to_owned(),
            effect_index: 0,
            excepted_by: None,
            approved_by: None,
        }],
        audit: Vec::new(),
        reason: format!("creel could not decide: {why}"),
        modifications: Vec::new(),
        approval: None,
    }
}

/// Kinds of records that tell people something at once.
#[must_use]
pub const fn is_for_people(kind: RecordKind) -> bool {
    matches!(kind, RecordKind::Alert | RecordKind::Approval | RecordKind::Gap | RecordKind::BreakGlass)
}
