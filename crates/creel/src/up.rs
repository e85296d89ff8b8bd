//! `creel up` and `creel down`: start the daemon, watch it, stop it.
//!
//! One thread reads the daemon's events, one waits for signals, the main thread draws. The screen is redrawn on events,
//! on a change of size, and once a second for the ages on it. Where standard output is no terminal, the same events
//! come as plain lines. The one thing a newcomer gets wrong: a daemon that ran before `up` goes on after it.

use std::io::{IsTerminal as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use clap::Args;
use creel_wire::control::{Answer, Live, Request, read_frame, write_frame};
use nix::sys::signal::{SigSet, Signal};

use crate::connection::{Daemon, Place};
use crate::failure::{Exit, Failure, Outcome};
use crate::out::{self, Look};
use crate::programs::{self, Start};
use crate::screen::{self, Screen};
use crate::{clock, presence, status};

/// Events that wait to be drawn; the reading thread waits when there are more.
const EVENTS_MAX: usize = 256;
/// How long the screen stays as it is without an event.
const REDRAW: Duration = Duration::from_secs(1);

/// How long a sealed daemon may take to end, and the pause between two looks.
const END: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);

/// Arguments of `creel up`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  creel up              start and watch; Ctrl-C stops creel\n  creel up --detach     start in the background; `creel up` again watches, `creel down` stops\n  creel up --enforce    rules stop what they match instead of only recording it"
)]
pub(crate) struct Arguments {
    /// Go on in the background.
    #[arg(long)]
    detach: bool,
    /// Let rules act from the start.
    #[arg(long)]
    enforce: bool,
    /// Serve this account only (without a system service, the only possibility).
    #[arg(long)]
    user: bool,
    /// Folder of the record, instead of the usual one (development).
    #[arg(long, hide = true, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Folder of the organisation's bundle, instead of the usual one (development).
    #[arg(long, hide = true, value_name = "DIR")]
    configuration: Option<PathBuf>,
}

/// Starts or joins, and shows.
pub(crate) fn run(arguments: &Arguments, runtime: Option<&Path>) -> Outcome {
    let place = Place::find(runtime);
    if let Some(mut daemon) = Daemon::try_open(&place)? {
        if arguments.user && place.system {
            return Err(Failure::new("a system daemon runs on this machine; a second one is refused"));
        }
        let status = status::ask(&mut daemon)?;
        if arguments.enforce && status.policy.audit > 0 {
            out::say("creel already runs; `creel policy enforce` lets its rules act");
        }
        if arguments.detach {
            out::lines([format!("creel already runs (pid {})", status.pid)])?;
            return Ok(Exit::Good);
        }
        return watch(daemon, None, "Ctrl-C leaves this screen; creel goes on");
    }
    if place.system {
        return Err(Failure::new("the system daemon does not answer").hint("see `systemctl status creeld`"));
    }
    let start = start_of(arguments, &place)?;
    if !arguments.detach {
        // Before the first thread is started: a thread with open signals would let Ctrl-C end us at once.
        signal_set().thread_block().map_err(|error| Failure::new(format!("cannot wait for signals: {error}")))?;
    }
    let (child, mut daemon) = programs::start(&place, &start)?;
    if arguments.detach {
        let status = status::ask(&mut daemon)?;
        let rules = if status.policy.blocking > 0 { "rules act" } else { "rules only watch" };
        out::lines([
            format!("creel is up (pid {}, {} mode, {rules})", status.pid, status.mode),
            "creel status · creel log --follow · creel down".to_owned(),
        ])?;
        return Ok(Exit::Good);
    }
    watch(daemon, Some(child), "Ctrl-C stops creel")
}

fn start_of(arguments: &Arguments, place: &Place) -> Result<Start, Failure> {
    let mut start = Start { detached: arguments.detach, ..Start::default() };
    let mut add = |name: &str, value: &Path| {
        let value = value.to_str().ok_or_else(|| Failure::new("a folder's name is not UTF-8"))?;
        start.arguments.extend([name.to_owned(), value.to_owned()]);
        Ok::<(), Failure>(())
    };
    add("--runtime", &place.runtime)?;
    if let Some(state) = &arguments.state {
        add("--state", state)?;
    }
    if let Some(configuration) = &arguments.configuration {
        add("--configuration", configuration)?;
    }
    start.arguments.push("--user".to_owned());
    if arguments.enforce {
        start.arguments.push("--enforce".to_owned());
    }
    if arguments.detach {
        let folder = state_folder(arguments.state.as_deref())?;
        private_folder(&folder)?;
        start.messages = Some(folder.join("creeld.messages"));
    } else {
        start.arguments.push("--with-parent".to_owned());
    }
    Ok(start)
}

/// Where this account's daemon keeps its record.
pub(crate) fn state_folder(argument: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(folder) = argument {
        return Ok(folder.to_owned());
    }
    Ok(Path::new(&home()?).join(".local/state/creel"))
}

/// This account's home folder, by the account database.
pub(crate) fn home() -> Result<String, Failure> {
    let account = creel_discover::own();
    if !account.home.starts_with('/') {
        return Err(Failure::new(format!("account {} has no home folder", account.uid)));
    }
    Ok(account.home)
}

/// Creates a folder that only this account can enter.
fn private_folder(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Failure::file("create", path, &error))
}

enum Event {
    Live(Box<Live>),
    Lost(String),
    Signal(Signal),
}

/// Shows what happens until a signal or the daemon's end. With a child, its end is ours to bring about.
fn watch(daemon: Daemon, child: Option<Child>, footer: &str) -> Outcome {
    let (events, inbox) = sync_channel(EVENTS_MAX);
    signals(events.clone())?;
    let stream = daemon.into_stream();
    stream.set_read_timeout(None)?;
    reader(stream, events)?;
    // Codes are for people: a screen that an agent could read does not count as one.
    if std::io::stdout().is_terminal() && presence::agent_above().is_none() {
        let mut terminal = Terminal::enter()?;
        let end = draw(&inbox, &mut terminal, footer);
        terminal.leave();
        finish(end?, child)
    } else {
        let end = print(&inbox);
        finish(end?, child)
    }
}

enum End {
    Signal,
    Lost(String),
}

fn draw(inbox: &Receiver<Event>, terminal: &mut Terminal, footer: &str) -> Result<End, Failure> {
    let mut screen = Screen::with_footer(footer);
    loop {
        let (width, height) = out::terminal_size();
        let look = Look { width, ..Look::of_stdout() };
        terminal.draw(&screen.lines(look, height, clock::now_unix_ns()))?;
        let mut event = match inbox.recv_timeout(REDRAW) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return Ok(End::Lost("the daemon hung up".to_owned())),
        };
        // Everything that is already there goes into one redraw.
        while let Some(one) = event {
            match one {
                Event::Live(live) => screen.apply(*live),
                Event::Lost(why) => return Ok(End::Lost(why)),
                Event::Signal(Signal::SIGWINCH) => {}
                Event::Signal(_) => return Ok(End::Signal),
            }
            event = inbox.try_recv().ok();
        }
    }
}

fn print(inbox: &Receiver<Event>) -> Result<End, Failure> {
    let look = Look::of_stdout();
    let mut first = true;
    while let Ok(event) = inbox.recv() {
        match event {
            Event::Live(live) => {
                if let (true, Live::Status(status)) = (first, &*live) {
                    out::lines(screen::report(status, look))?;
                    out::lines([""])?;
                    first = false;
                }
                out::lines(screen::plain(&live, look, clock::now_unix_ns()))?;
            }
            Event::Lost(why) => return Ok(End::Lost(why)),
            Event::Signal(Signal::SIGWINCH) => {}
            Event::Signal(_) => return Ok(End::Signal),
        }
    }
    Ok(End::Lost("the daemon hung up".to_owned()))
}

fn finish(end: End, child: Option<Child>) -> Outcome {
    match (end, child) {
        (End::Signal, None) => {
            out::lines(["creel goes on; `creel down` stops it"])?;
            Ok(Exit::Good)
        }
        (End::Signal, Some(mut child)) => {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
            if pid.as_raw() > 0 {
                let _ = nix::sys::signal::kill(pid, Signal::SIGTERM);
            }
            let status = child.wait()?;
            if !status.success() {
                return Err(Failure::new(format!("the daemon ended badly: {status}"))
                    .hint("`creel log verify` tells whether the record is complete"));
            }
            out::lines(["creel is down; the record is sealed"])?;
            Ok(Exit::Good)
        }
        (End::Lost(why), Some(mut child)) => {
            let status = child.wait()?;
            if status.success() {
                out::lines(["creel is down; the record is sealed"])?;
                return Ok(Exit::Good);
            }
            Err(Failure::new(format!("the daemon ended: {status} ({why})")))
        }
        (End::Lost(why), None) => Err(Failure::new(why).hint("start creel with `creel up`")),
    }
}

/// Reads the daemon's events into the channel.
fn reader(mut stream: UnixStream, events: SyncSender<Event>) -> Result<(), Failure> {
    write_frame(&mut stream, &Request::Watch).map_err(|error| Failure::new(error.to_string()))?;
    std::thread::spawn(move || {
        loop {
            let event = match read_frame::<Answer>(&mut stream) {
                Ok(Some(Answer::Live(live))) => Event::Live(Box::new(live)),
                Ok(Some(Answer::Refused { message, .. })) => Event::Lost(message),
                Ok(Some(_)) => continue,
                Ok(None) => Event::Lost("the daemon stopped".to_owned()),
                Err(error) => Event::Lost(error.to_string()),
            };
            let last = matches!(event, Event::Lost(_));
            if events.send(event).is_err() || last {
                return;
            }
        }
    });
    Ok(())
}

/// Turns signals into events. Blocked in this and all later threads, so that they arrive in the waiting one only.
fn signals(events: SyncSender<Event>) -> Result<(), Failure> {
    let set = signal_set();
    set.thread_block().map_err(|error| Failure::new(format!("cannot wait for signals: {error}")))?;
    std::thread::spawn(move || {
        while let Ok(signal) = set.wait() {
            if events.send(Event::Signal(signal)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn signal_set() -> SigSet {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGWINCH] {
        set.add(signal);
    }
    set
}

/// The alternate screen, left again however we end.
struct Terminal {
    entered: bool,
}

impl Terminal {
    fn enter() -> Result<Self, Failure> {
        let mut out = std::io::stdout().lock();
        out.write_all(b"\x1b[?1049h\x1b[?25l")?;
        out.flush()?;
        Ok(Self { entered: true })
    }

    /// Draws all lines in one write: no flicker.
    fn draw(&mut self, lines: &[String]) -> Result<(), Failure> {
        let mut text = String::from("\x1b[H");
        for (index, line) in lines.iter().enumerate() {
            if index > 0 {
                text.push_str("\r\n");
            }
            text.push_str(line);
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        Ok(out.flush()?)
    }

    fn leave(&mut self) {
        if std::mem::take(&mut self.entered) {
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(b"\x1b[?25h\x1b[?1049l");
            let _ = out.flush();
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Whether a process is still at work: there, and not merely waiting for its parent to notice its end.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// `creel down`.
pub(crate) fn down(runtime: Option<&Path>) -> Outcome {
    let place = Place::find(runtime);
    let Some(mut daemon) = Daemon::try_open(&place)? else {
        out::lines(["creel is not running here"])?;
        return Ok(Exit::Good);
    };
    let pid = status::ask(&mut daemon)?.pid;
    let records = daemon.one(&Request::Shutdown, |answer| match answer {
        Answer::Sealed { records, .. } => Some(records),
        _ => None,
    })?;
    drop(daemon);
    // Sealed is said before the process has ended; who starts it again at once should not meet the old one.
    let begin = Instant::now();
    while begin.elapsed() < END && (matches!(Daemon::try_open(&place), Ok(Some(_))) || runs(pid)) {
        std::thread::sleep(LOOK);
    }
    out::lines([format!("creel is down; the record is sealed ({})", crate::text::count(records, "record"))])?;
    Ok(Exit::Good)
}
