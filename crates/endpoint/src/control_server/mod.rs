//! `control.sock`: what people ask of the daemon, one request after another on a connection.
//!
//! Refuses every peer below an agent before it reads the first frame. Each request is translated into a question to
//! the desk or the world; nothing is decided here. What each kind of asker may do stands in [`authority`].

mod authority;
mod cages;
mod guarding;
mod policy;
mod questions;
mod records;
mod state;

use std::collections::BTreeMap;
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use creel_wire::control::{Answer, FrameError, RefusalCode, Request, read_frame, write_frame};

use crate::connections::Places;
use crate::desk::Desk;
use crate::live::Broadcast;
use crate::sockets::Peer;
use crate::world::World;

pub use authority::Asker;
pub use questions::Codes;

/// Open control connections of one account, and of the machine; at the bound a new one is closed.
const CONNECTIONS_PER_ACCOUNT: usize = 32;
const CONNECTIONS: usize = 128;
/// How long a person's program may take to send a request or take an answer.
const TRANSFER: Duration = Duration::from_secs(30);
/// Stack of a connection's thread in bytes: a bundle that is handed in is read by a recursive parser.
const STACK_BYTES: usize = 8 * 1024 * 1024;

/// The end of the daemon in two steps, so that whoever asked for it hears that the record is sealed.
pub struct Shutdown {
    /// Decides nothing more; returns the journal's number of records and its last checkpoint.
    pub seal: Box<dyn Fn() -> (u64, String) + Send + Sync>,
    /// Ends the process, for a reason.
    pub stop: Box<dyn Fn(&str) + Send + Sync>,
}

/// Serves people's commands.
pub struct ControlServer {
    pub(crate) desk: Arc<Desk>,
    pub(crate) world: Arc<World>,
    pub(crate) live: Arc<Broadcast>,
    pub(crate) codes: Mutex<Codes>,
    pub(crate) shutdown: Shutdown,
    connections: Arc<Places<u32>>,
}

/// Why a request is not carried out.
pub(crate) struct Refusal {
    code: RefusalCode,
    message: String,
    hint: String,
}

impl Refusal {
    pub(crate) fn new(code: RefusalCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }

    /// Whether it is of this kind.
    pub(crate) fn is(&self, code: RefusalCode) -> bool {
        self.code == code
    }
}

/// Where answers go.
pub(crate) type Out<'a> = &'a mut dyn FnMut(&Answer) -> Result<(), FrameError>;

/// What carrying out a request may end in: done, refused, or the connection is gone.
pub(crate) enum Ended {
    Refused(Refusal),
    Gone,
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Ended::Refused(refusal)
    }
}

impl From<FrameError> for Ended {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::TooLarge { bytes } => Ended::Refused(Refusal::new(
                RefusalCode::TooLarge,
                format!("the answer has {bytes} bytes, more than a message may have"),
                "narrow the request down",
            )),
            _ => Ended::Gone,
        }
    }
}

impl ControlServer {
    /// A server; `shutdown` stops the daemon and returns the journal's size and last checkpoint.
    #[must_use]
    pub fn new(desk: Arc<Desk>, world: Arc<World>, live: Arc<Broadcast>, shutdown: Shutdown) -> Arc<Self> {
        let connections = Places::new(CONNECTIONS_PER_ACCOUNT, CONNECTIONS);
        Arc::new(Self { desk, world, live, codes: Mutex::new(Codes::default()), shutdown, connections })
    }

    /// Accepts until the listener fails for good.
    pub fn serve(self: &Arc<Self>, listener: &UnixListener) {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            let Ok(peer) = Peer::of(&stream) else { continue };
            let Some(place) = self.connections.take(peer.uid) else { continue };
            let server = Arc::clone(self);
            let thread = std::thread::Builder::new().name("control".to_owned()).stack_size(STACK_BYTES);
            let _ = thread.spawn(move || {
                server.converse(&stream, peer);
                drop(place);
            });
        }
    }

    fn converse(&self, stream: &UnixStream, peer: Peer) {
        let _ = stream.set_read_timeout(Some(TRANSFER));
        let _ = stream.set_write_timeout(Some(TRANSFER));
        let mut reader = BufReader::new(stream);
        let mut writer = BufWriter::new(stream);
        let asker = match Asker::of(peer, &self.world) {
            Ok(asker) => asker,
            Err(refusal) => {
                // The first frame is read only so that the answer is not lost in a reset.
                let _ = read_frame::<Request>(&mut reader);
                let _ = write_frame(&mut writer, &refused(refusal));
                return;
            }
        };
        loop {
            let request = match read_frame::<Request>(&mut reader) {
                Ok(Some(request)) => request,
                Ok(None) => return,
                Err(FrameError::Malformed { message }) => {
                    let hint = "creel and creeld may be of different versions; see `creel status`";
                    let refusal = Refusal::new(RefusalCode::Invalid, message, hint);
                    let _ = write_frame(&mut writer, &refused(refusal));
                    return;
                }
                Err(_) => return,
            };
            let shutdown = matches!(request, Request::Shutdown);
            let ended = {
                let mut out = |answer: &Answer| write_frame(&mut writer, answer);
                self.carry_out(request, &asker, &mut out, stream)
            };
            let gone = matches!(ended, Err(Ended::Gone));
            let last = match ended {
                Ok(()) => Answer::Done,
                Err(Ended::Refused(refusal)) => refused(refusal),
                Err(Ended::Gone) => Answer::Done,
            };
            let told = write_frame(&mut writer, &last).is_ok() && writer.flush().is_ok();
            if shutdown && matches!(last, Answer::Done) {
                // Only now: before, the process could end while the answer was on its way.
                (self.shutdown.stop)(&format!("asked by {}", asker.name));
            }
            if gone || !told {
                return;
            }
        }
    }

    fn carry_out(&self, request: Request, asker: &Asker, out: Out<'_>, stream: &UnixStream) -> Result<(), Ended> {
        match request {
            Request::Status => Ok(out(&Answer::Status(Box::new(self.status(asker))))?),
            Request::Agents { scan, all_users } => self.agents(asker, scan, all_users, out),
            Request::Records { filter, follow } => self.records(asker, filter, follow, out, stream),
            Request::Record { id } => self.story(asker, &id, out),
            Request::VerifyJournal { anchors } => self.verify(asker, &anchors, out),
            Request::EraseDetails { filter, reason, dry_run, code } => {
                self.erase(asker, filter, &reason, dry_run, code.as_deref(), out)
            }
            Request::Approvals => self.questions(asker, None, out),
            Request::Approval { id } => self.questions(asker, Some(&id), out),
            Request::AnswerApproval { id, allow, code, reason } => {
                self.answer_question(asker, &id, allow, code.as_deref(), reason, out)
            }
            Request::RequestConfirmation { purpose } => self.request_confirmation(asker, purpose, out),
            Request::PolicyShow { files } => Ok(out(&Answer::Policy(Box::new(self.policy_view(files))))?),
            Request::PolicyActivate { files, dry_run, code } => {
                self.policy_activate(asker, files, dry_run, code.as_deref(), out)
            }
            Request::PolicyModes { rules, mode, code } => self.policy_modes(asker, &rules, mode, code.as_deref(), out),
            Request::PolicyReplay { files, filter } => self.policy_replay(asker, &files, filter, out),
            Request::PolicyReport { since_unix_ns } => self.policy_report(asker, since_unix_ns, out),
            Request::PolicyCoverage => self.policy_coverage(out),
            Request::PolicyFloor => self.policy_floor(out),
            Request::BreakGlass { minutes, reason, code } => {
                self.break_glass(asker, minutes, &reason, code.as_deref(), out)
            }
            Request::BreakGlassEnd => self.break_glass_end(asker, out),
            Request::GuardInstall { kind, scope, dry_run } => self.guard_install(asker, &kind, scope, dry_run, out),
            Request::GuardRemove { kind, scope, dry_run, code } => {
                self.guard_remove(asker, &kind, scope, dry_run, code.as_deref(), out)
            }
            Request::GuardStatus { kind } => self.guard_status(asker, kind.as_deref(), out),
            Request::GuardCanary { kind, scope, live } => self.guard_canary(asker, &kind, scope, live, out),
            Request::CanaryWord { kind, scope } => self.canary_word(asker, &kind, scope, out),
            Request::CanaryReport { report } => self.canary_report(asker, &report, out),
            Request::RunStart(start) => self.run_start(asker, *start, out),
            Request::RunGo(go) => self.run_go(asker, *go, out),
            Request::RunEvents(events) => Ok(self.world.cages.events(&self.world, &self.desk, asker, events)?),
            Request::RunEnd(end) => self.run_end(asker, end),
            Request::RunResume(resume) => {
                let hook = self.world.cages.resume(&self.world, &self.desk, asker, &resume)?;
                Ok(out(&Answer::RunResumed(hook))?)
            }
            Request::Runs { ended } => self.runs(asker, ended, out),
            Request::RunShow { id } => {
                let (view, _) = self.world.cages.find(&self.world, asker, &id)?;
                Ok(out(&Answer::Runs(vec![view]))?)
            }
            Request::RunWhy { id, limit } => self.run_why(asker, &id, limit, out),
            Request::ProfileShow { name, workspace } => {
                self.profiles(asker, name.as_deref(), workspace.as_deref(), out)
            }
            Request::ProfileCheck { files } => {
                let now_s = crate::clock::now().unix_ns / 1_000_000_000;
                Ok(out(&Answer::Profiles(crate::policy_views::check_profiles(&files, now_s)))?)
            }
            Request::Watch => self.watch(asker, out, stream),
            Request::Shutdown => {
                asker.may_administer("stop creel")?;
                let (records, checkpoint) = (self.shutdown.seal)();
                Ok(out(&Answer::Sealed { records, checkpoint })?)
            }
        }
    }

    pub(crate) fn codes(&self) -> std::sync::MutexGuard<'_, Codes> {
        self.codes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files of a bundle are text by name; bounded by the frame that brought them.
pub(crate) type Files = BTreeMap<String, String>;

fn refused(refusal: Refusal) -> Answer {
    Answer::Refused { code: refusal.code, message: refusal.message, hint: refusal.hint }
}
