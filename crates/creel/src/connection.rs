//! The way to the daemon: which socket, whether it can be trusted, one request and its answers.
//!
//! The environment is never asked where the daemon is: an agent's settings can set it. Compiled in are `/run/creel`
//! and then `/run/user/<uid>/creel`; another folder can only come from a command line argument. The one thing a
//! newcomer gets wrong: we check the daemon as it checks us. A folder that others can write, or a peer of a foreign
//! account, is refused.

use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use creel_wire::control::{Answer, FrameError, RefusalCode, Request, read_frame, write_frame};

use crate::failure::Failure;
use crate::text::clean;

/// Folder of the system daemon's sockets.
pub(crate) const SYSTEM_RUNTIME: &str = "/run/creel";
/// Longest silence of the daemon inside one answer before we give up.
const SILENCE: Duration = Duration::from_secs(120);

/// Where a daemon's sockets are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The folder.
    pub(crate) runtime: PathBuf,
    /// It is the system daemon's.
    pub(crate) system: bool,
}

impl Place {
    /// The place to look at: the one from the command line, else the system daemon's where it exists, else the user's.
    pub(crate) fn find(argument: Option<&Path>) -> Self {
        match argument {
            Some(folder) => Self { runtime: folder.to_owned(), system: false },
            None if Path::new(SYSTEM_RUNTIME).join("control.sock").exists() => {
                Self { runtime: SYSTEM_RUNTIME.into(), system: true }
            }
            None => Self { runtime: user_runtime(), system: false },
        }
    }
}

/// Folder of this account's own daemon.
pub(crate) fn user_runtime() -> PathBuf {
    format!("/run/user/{}/creel", rustix::process::getuid().as_raw()).into()
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Daemon {
    stream: UnixStream,
}

impl Daemon {
    /// Connects, or says what to do.
    pub(crate) fn open(argument: Option<&Path>) -> Result<Self, Failure> {
        let place = Place::find(argument);
        Self::try_open(&place)?.ok_or_else(|| {
            if place.system {
                Failure::new("the system daemon does not answer").hint("see `systemctl status creeld`")
            } else {
                Failure::new("creel is not running here").hint("start it with `creel up`")
            }
        })
    }

    /// Connects; `None` when no daemon answers there.
    pub(crate) fn try_open(place: &Place) -> Result<Option<Self>, Failure> {
        let socket = place.runtime.join("control.sock");
        match std::fs::symlink_metadata(&place.runtime) {
            Ok(folder) => check_folder(place, &folder)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::file("look at", &place.runtime, &error)),
        }
        let stream = match UnixStream::connect(&socket) {
            Ok(stream) => stream,
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) =>
            {
                return Ok(None);
            }
            Err(error) => {
                return Err(Failure::file("connect to", &socket, &error)
                    .hint("the system daemon answers people in a login session; see `creel --help`"));
            }
        };
        let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(|e| Failure::new(e.to_string()))?;
        if !trusted(place, peer.uid.as_raw()) {
            return Err(Failure::new(format!(
                "the daemon at `{}` runs under account {}, which is not to be trusted",
                clean(&socket.display().to_string()),
                peer.uid.as_raw()
            ))
            .hint("somebody else put a socket there; remove it"));
        }
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        Ok(Some(Self { stream }))
    }

    /// Asks and hands every answer to `each` until the daemon is done, refuses, or `each` breaks off.
    pub(crate) fn each(
        &mut self,
        request: &Request,
        each: &mut dyn FnMut(Answer) -> Result<ControlFlow<()>, Failure>,
    ) -> Result<(), Failure> {
        if matches!(request, Request::Watch | Request::Records { follow: true, .. }) {
            self.stream.set_read_timeout(None)?;
        }
        write_frame(&mut self.stream, request).map_err(|error| broken(&error))?;
        loop {
            match read_frame::<Answer>(&mut self.stream).map_err(|error| broken(&error))? {
                None => return Err(Failure::new("the daemon hung up").hint("`creel status` tells whether it runs")),
                Some(Answer::Done) => return Ok(()),
                Some(Answer::Refused { code, message, hint }) => return Err(Refusal { code, message, hint }.into()),
                Some(answer) => {
                    if each(answer)?.is_break() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Asks for all answers together (requests whose answers are few).
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Vec<Answer>, Failure> {
        let mut answers = Vec::new();
        self.each(request, &mut |answer| {
            answers.push(answer);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(answers)
    }

    /// Asks for exactly one answer, picked by `pick`.
    pub(crate) fn one<T>(&mut self, request: &Request, pick: impl Fn(Answer) -> Option<T>) -> Result<T, Failure> {
        pick_one(self.ask(request)?, pick)
    }

    /// As [`Daemon::ask`], but a refusal is a value: for requests that are repeated with a confirmation.
    pub(crate) fn attempt(&mut self, request: &Request) -> Result<Result<Vec<Answer>, Refusal>, Failure> {
        write_frame(&mut self.stream, request).map_err(|error| broken(&error))?;
        let mut answers = Vec::new();
        loop {
            match read_frame::<Answer>(&mut self.stream).map_err(|error| broken(&error))? {
                None => return Err(Failure::new("the daemon hung up").hint("`creel status` tells whether it runs")),
                Some(Answer::Done) => return Ok(Ok(answers)),
                Some(Answer::Refused { code, message, hint }) => return Ok(Err(Refusal { code, message, hint })),
                Some(answer) => answers.push(answer),
            }
        }
    }

    /// The stream itself, for a reader on another thread.
    pub(crate) fn into_stream(self) -> UnixStream {
        self.stream
    }
}

/// The one expected answer among several.
pub(crate) fn pick_one<T>(answers: Vec<Answer>, pick: impl Fn(Answer) -> Option<T>) -> Result<T, Failure> {
    answers.into_iter().find_map(pick).ok_or_else(|| {
        Failure::new("the daemon's answer is not the expected one")
            .hint("creel and creeld are of different versions; `creel down`, then `creel up`")
    })
}

/// What the daemon will not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: RefusalCode,
    pub(crate) message: String,
    pub(crate) hint: String,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let hint = match refusal.code {
            _ if !refusal.hint.is_empty() => refusal.hint.as_str(),
            RefusalCode::BelowAgent => "run it in a terminal that no agent started",
            RefusalCode::ConfirmationNeeded => "type the code that `creel up` shows in another terminal: `--code CODE`",
            RefusalCode::WrongCode => "codes work once, for a short time, and for one purpose",
            RefusalCode::Busy => "try again",
            _ => "",
        };
        Failure::new(clean(&refusal.message)).hint(clean(hint))
    }
}

fn broken(error: &FrameError) -> Failure {
    if let FrameError::Io(error) = error
        && matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
    {
        return Failure::new("the daemon does not answer in time");
    }
    // A broken socket is not our output's closed pipe, so it never ends quietly.
    Failure::new(format!("the daemon's answer was lost: {error}"))
}

fn trusted(place: &Place, uid: u32) -> bool {
    let own = rustix::process::getuid().as_raw();
    if place.system { uid == 0 || Some(uid) == account_uid("creel") } else { uid == own }
}

fn check_folder(place: &Place, folder: &std::fs::Metadata) -> Result<(), Failure> {
    let what = if !folder.is_dir() {
        "is not a folder"
    } else if !trusted(place, folder.uid()) {
        "belongs to somebody else"
    } else if folder.mode() & 0o022 != 0 {
        "can be written by others"
    } else {
        return Ok(());
    };
    let path = clean(&place.runtime.display().to_string());
    Err(Failure::new(format!("`{path}` {what}")).hint("no daemon is trusted there; remove it and run `creel up`"))
}

/// The numeric id of an account, from `/etc/passwd` (at most 1 MiB of it).
pub(crate) fn account_uid(name: &str) -> Option<u32> {
    account_ids(name).map(|(uid, _)| uid)
}

/// The numeric ids of an account and of its first group.
pub(crate) fn account_ids(name: &str) -> Option<(u32, u32)> {
    passwd().lines().find_map(|line| match line.split(':').collect::<Vec<_>>().as_slice() {
        [found, _, uid, gid, ..] if *found == name => Some((uid.parse().ok()?, gid.parse().ok()?)),
        _ => None,
    })
}

fn passwd() -> String {
    use std::io::Read as _;
    let mut text = String::new();
    if let Ok(file) = std::fs::File::open("/etc/passwd") {
        let _ = file.take(1 << 20).read_to_string(&mut text);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn private_folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        folder
    }

    /// Serves one connection with the given answers to every request.
    fn serve(folder: &Path, answers: Vec<Answer>) -> std::thread::JoinHandle<()> {
        let listener = UnixListener::bind(folder.join("control.sock")).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            while let Ok(Some(_)) = read_frame::<Request>(&mut stream) {
                for answer in &answers {
                    write_frame(&mut stream, answer).unwrap();
                }
            }
        })
    }

    #[test]
    fn answers_are_collected_until_done() {
        let folder = private_folder();
        let server = serve(folder.path(), vec![Answer::Erased { details: 3 }, Answer::Done]);
        let mut daemon = Daemon::open(Some(folder.path())).unwrap();
        assert_eq!(daemon.ask(&Request::Status).unwrap(), [Answer::Erased { details: 3 }]);
        assert_eq!(daemon.ask(&Request::Status).unwrap().len(), 1);
        drop(daemon);
        server.join().unwrap();
    }

    #[test]
    fn a_refusal_is_a_failure_with_a_hint() {
        let folder = private_folder();
        let refused = Answer::Refused {
            code: RefusalCode::ConfirmationNeeded,
            message: "a code is \u{1b}[31mneeded".to_owned(),
            hint: String::new(),
        };
        let server = serve(folder.path(), vec![refused]);
        let mut daemon = Daemon::open(Some(folder.path())).unwrap();
        let Err(Failure::Said { message, hint }) = daemon.ask(&Request::Status) else { panic!("a refusal") };
        assert_eq!(message, "a code is \u{fffd}[31mneeded");
        assert!(hint.contains("--code"), "{hint}");
        drop(daemon);
        server.join().unwrap();
    }

    #[test]
    fn without_a_daemon_the_hint_says_how_to_start_one() {
        let folder = private_folder();
        let Err(Failure::Said { message, hint }) = Daemon::open(Some(folder.path())) else { panic!("no daemon") };
        assert_eq!(message, "creel is not running here");
        assert!(hint.contains("creel up"));
    }

    #[test]
    fn a_folder_that_others_can_write_is_refused() {
        let folder = private_folder();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let _listener = UnixListener::bind(folder.path().join("control.sock")).unwrap();
        let Err(Failure::Said { message, .. }) = Daemon::open(Some(folder.path())) else { panic!("refused") };
        assert!(message.ends_with("can be written by others"), "{message}");
    }

    #[test]
    fn a_link_instead_of_a_folder_is_refused() {
        let folder = private_folder();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        assert!(Daemon::open(Some(&link)).is_err());
    }
}
