//! A run's own socket: what the account's other terminals ask its supervisor, and what comes back.
//!
//! Messages are bounded and come from the same account only; the socket lies in a folder that no cage shows. The one
//! fact a newcomer gets wrong: a terminal is never lent. Who attaches or starts a further command gets a stream or the
//! cage's terminal as a descriptor, and carries the bytes himself.

mod relay;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen,
    socket_with,
};
use serde::{Deserialize, Serialize};

use crate::cage::{Cage, End, FIRST_COMMAND, Happening};
use crate::channel;

pub use relay::{Kind, relay};

/// Most askers at once.
const MAX_ASKERS: usize = 32;
/// Longest name of a socket that the kernel takes, with what stands before it.
const MAX_PATH: usize = 107;

/// Most entries of the folder that are looked at when sockets of killed supervisors are taken away.
const SWEEP: usize = 1024;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Ask {
    /// Kill everything.
    Stop,
    /// Send a signal to the first command.
    Signal(i32),
    /// Watch and type into the first command's terminal, of this size.
    Attach { rows: u16, columns: u16 },
    /// The asker's terminal has this size now.
    Resize { rows: u16, columns: u16 },
    /// Start a further command; its standard descriptors come along.
    Exec { command: Vec<Vec<u8>>, folder: Vec<u8>, terminal: Option<(u16, u16)> },
    /// Signal the command that this asker started.
    SignalMine(i32),
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Reply {
    /// Done; with an attachment its stream comes along.
    Done,
    /// The other side of the further command's terminal comes along.
    Terminal,
    /// The command ended: by a code or a signal.
    Ended(Option<i32>, Option<i32>),
    /// It cannot be: why.
    Refused(String),
}

/// The folder of the account's run sockets: in its runtime folder where it has one, else below `state`, its own folder
/// for what creel keeps.
#[must_use]
pub fn folder(state: &Path) -> PathBuf {
    let uid = rustix::process::getuid();
    let runtime = PathBuf::from(format!("/run/user/{}", uid.as_raw()));
    match rustix::fs::lstat(&runtime) {
        Ok(stat) if stat.st_uid == uid.as_raw() && stat.st_mode & 0o077 == 0 => runtime.join("creel-runs"),
        _ => state.join("sockets"),
    }
}

/// The supervisor's side.
#[derive(Debug)]
pub struct Server {
    folder: OwnedFd,
    name: String,
    listener: OwnedFd,
    askers: Vec<Asker>,
}

#[derive(Debug)]
struct Asker {
    socket: OwnedFd,
    /// Number of the further command that it waits for.
    command: Option<u32>,
    /// Bytes of the first command's terminal go here, and come from here.
    stream: Option<OwnedFd>,
    gone: bool,
}

impl Server {
    /// Opens the socket of a run in `folder`, which is made where it is missing, for this account only.
    ///
    /// # Errors
    /// The kernel's; `InvalidInput` for a name that is no run's.
    pub fn open(folder: &Path, run: &str) -> io::Result<Self> {
        let name = socket_name(run)?;
        std::fs::create_dir_all(folder)?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let opened = rustix::fs::openat(CWD, folder, flags, Mode::empty())?;
        rustix::fs::fchmod(&opened, Mode::RWXU)?;
        let kind = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, kind, None)?;
        sweep(&opened)?;
        // It gets its name when it listens: whoever sweeps takes one that refuses for one whose supervisor was killed.
        // The folder is private, so that between `bind` and `chmod` nobody else can come either.
        let early = format!("{name}.new");
        bind(&listener, &address(&opened, &early)?)?;
        rustix::fs::chmodat(&opened, early.as_str(), Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        listen(&listener, 16)?;
        rustix::fs::renameat(&opened, early.as_str(), &opened, name.as_str())?;
        Ok(Self { folder: opened, name, listener, askers: Vec::new() })
    }

    /// What to wait on for reading.
    #[must_use]
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let askers =
            self.askers.iter().flat_map(|asker| [Some(asker.socket.as_fd()), asker.stream.as_ref().map(|s| s.as_fd())]);
        [self.listener.as_fd()].into_iter().chain(askers.flatten()).collect()
    }

    /// Serves whoever asks. True when somebody asked for the end of the run.
    pub fn serve(&mut self, cage: &mut Cage) -> bool {
        let mut stop = false;
        while self.askers.len() < MAX_ASKERS {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let Ok(socket) = accept_with(&self.listener, flags) else { break };
            let own =
                rustix::net::sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.uid == rustix::process::getuid());
            if own {
                self.askers.push(Asker { socket, command: None, stream: None, gone: false });
            }
        }
        for asker in &mut self.askers {
            stop |= asker.serve(cage);
        }
        self.tidy(cage);
        stop
    }

    /// Passes on what concerns those who asked.
    pub fn tell(&mut self, happening: &Happening, cage: &mut Cage) {
        for asker in &mut self.askers {
            asker.tell(happening);
        }
        self.tidy(cage);
    }

    fn tidy(&mut self, cage: &mut Cage) {
        for asker in self.askers.iter().filter(|asker| asker.gone) {
            // Who started a command and goes away takes it along, as a terminal does.
            if let Some(id) = asker.command {
                let _ = cage.signal(id, libc::SIGHUP);
            }
        }
        self.askers.retain(|asker| !asker.gone);
        cage.watch_output(self.askers.iter().any(|asker| asker.stream.is_some()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(&self.folder, self.name.as_str(), AtFlags::empty());
    }
}

impl Asker {
    fn reply(&mut self, reply: &Reply, descriptors: &[BorrowedFd<'_>]) {
        // Who does not read is let go.
        self.gone |= channel::send(&self.socket, reply, descriptors, SendFlags::DONTWAIT).is_err();
    }

    fn serve(&mut self, cage: &mut Cage) -> bool {
        self.type_in(cage);
        let got = match channel::receive::<Ask>(&self.socket, RecvFlags::DONTWAIT) {
            Ok(Some(got)) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            _ => {
                self.gone = true;
                return false;
            }
        };
        match got.message {
            Ask::Stop => {
                self.reply(&Reply::Done, &[]);
                return true;
            }
            Ask::Signal(number) => match cage.signal(FIRST_COMMAND, number) {
                Ok(()) => self.reply(&Reply::Done, &[]),
                Err(error) => self.reply(&Reply::Refused(error.to_string()), &[]),
            },
            Ask::SignalMine(number) => {
                if let Some(id) = self.command {
                    let _ = cage.signal(id, number);
                }
            }
            Ask::Resize { rows, columns } => {
                if self.stream.is_some() {
                    cage.resize(rows, columns);
                }
            }
            Ask::Attach { rows, columns } => self.attach(cage, rows, columns),
            Ask::Exec { command, folder, terminal } => {
                let command = command.into_iter().map(OsString::from_vec).collect();
                self.exec(cage, command, OsString::from_vec(folder), terminal, &got.descriptors);
            }
        }
        false
    }

    fn attach(&mut self, cage: &mut Cage, rows: u16, columns: u16) {
        if !cage.has_terminal() {
            self.reply(&Reply::Refused("the run has no terminal to attach to".to_owned()), &[]);
            return;
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok((mine, theirs)) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None) else {
            self.reply(&Reply::Refused("no stream can be made".to_owned()), &[]);
            return;
        };
        self.reply(&Reply::Done, &[theirs.as_fd()]);
        self.stream = Some(mine);
        cage.resize(rows, columns);
    }

    fn exec(
        &mut self,
        cage: &mut Cage,
        command: Vec<OsString>,
        folder: OsString,
        terminal: Option<(u16, u16)>,
        standard: &[OwnedFd],
    ) {
        let [input, output, error] = standard else {
            self.reply(&Reply::Refused("the standard descriptors are missing".to_owned()), &[]);
            return;
        };
        if self.command.is_some() || command.is_empty() {
            self.reply(&Reply::Refused("one command for each connection".to_owned()), &[]);
            return;
        }
        if terminal.is_none() && !standard.iter().all(|fd| is_harmless(fd.as_fd())) {
            self.reply(&Reply::Refused("a standard descriptor is a folder, a disk or a terminal".to_owned()), &[]);
            return;
        }
        match cage.exec(command, folder, [input.as_fd(), output.as_fd(), error.as_fd()], terminal) {
            Ok(id) => self.command = Some(id),
            Err(error) => self.reply(&Reply::Refused(error.to_string()), &[]),
        }
    }

    fn type_in(&mut self, cage: &mut Cage) {
        let Some(stream) = &self.stream else { return };
        let mut bytes = [0_u8; 4096];
        match rustix::io::read(stream, &mut bytes) {
            Ok(0) => self.gone = true,
            Ok(count) => cage.type_in(bytes.get(..count).unwrap_or_default()),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.gone = true,
        }
    }

    fn tell(&mut self, happening: &Happening) {
        match happening {
            Happening::Output(bytes) => {
                if let Some(stream) = &self.stream {
                    // Who is too slow for what the kernel keeps for him is let go; the command does not wait for him.
                    let sent = rustix::net::send(stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
                    self.gone |= sent != Ok(bytes.len());
                }
            }
            Happening::Terminal { id, master } if self.command == Some(*id) => {
                self.reply(&Reply::Terminal, &[master.as_fd()]);
            }
            Happening::NotStarted { id, why } if self.command == Some(*id) => {
                self.command = None;
                self.reply(&Reply::Refused(why.clone()), &[]);
            }
            Happening::CommandEnded { id, end } if self.command == Some(*id) => {
                self.command = None;
                let (code, signal) = match end {
                    End::Code(code) => (Some(*code), None),
                    End::Signal(signal) => (None, Some(*signal)),
                    End::Lost => (None, None),
                };
                self.reply(&Reply::Ended(code, signal), &[]);
            }
            _ => {}
        }
    }
}

/// Neither a folder nor a disk, by which a cage could be left, nor a terminal, which is never lent.
fn is_harmless(fd: BorrowedFd<'_>) -> bool {
    let path = rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags.contains(OFlags::PATH));
    rustix::fs::fstat(fd).is_ok_and(|stat| {
        let kind = FileType::from_raw_mode(stat.st_mode);
        !path && !matches!(kind, FileType::Directory | FileType::BlockDevice)
    }) && !rustix::termios::isatty(fd)
}

/// The asker's side.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
}

/// What an asker waits for.
#[derive(Debug)]
pub enum Answer {
    /// The other side of the command's terminal.
    Terminal(OwnedFd),
    /// The command ended.
    Ended(End),
    /// The run is gone, or will not: why.
    Over(String),
}

impl Client {
    /// Connects to a run's supervisor.
    ///
    /// # Errors
    /// The kernel's: `NotFound` when the run is not there. A supervisor of another account is `PermissionDenied`.
    pub fn open(folder: &Path, run: &str) -> io::Result<Self> {
        let name = socket_name(run)?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let opened = rustix::fs::openat(CWD, folder, flags, Mode::empty())?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &address(&opened, &name)?)?;
        if rustix::net::sockopt::socket_peercred(&socket)?.uid != rustix::process::getuid() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(Self { socket })
    }

    /// Ends the run with everything in it.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn stop(&self) -> io::Result<()> {
        self.ask(&Ask::Stop, &[])?;
        self.done().map(drop)?;
        // The supervisor hangs up when nothing is left.
        while channel::receive::<Reply>(&self.socket, RecvFlags::empty())?.is_some() {}
        Ok(())
    }

    /// Signals the run's first command.
    ///
    /// # Errors
    /// The supervisor is gone, or refuses.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        self.ask(&Ask::Signal(number), &[])?;
        self.done().map(drop)
    }

    /// Signals the command that was started over this connection.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn signal_mine(&self, number: i32) -> io::Result<()> {
        self.ask(&Ask::SignalMine(number), &[])
    }

    /// A stream of the first command's terminal, which takes this size (rows, columns).
    ///
    /// # Errors
    /// The supervisor is gone, or the run has no terminal.
    pub fn attach(&self, rows: u16, columns: u16) -> io::Result<OwnedFd> {
        self.ask(&Ask::Attach { rows, columns }, &[])?;
        self.done()?.into_iter().next().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The asker's terminal has another size.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        self.ask(&Ask::Resize { rows, columns }, &[])
    }

    /// Starts a further command with these standard descriptors or a terminal of this size; [`Client::next`] tells more.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub fn exec(
        &self,
        command: &[OsString],
        folder: &Path,
        standard: [BorrowedFd<'_>; 3],
        terminal: Option<(u16, u16)>,
    ) -> io::Result<()> {
        let command = command.iter().map(|word| word.as_bytes().to_vec()).collect();
        let ask = Ask::Exec { command, folder: folder.as_os_str().as_bytes().to_vec(), terminal };
        self.ask(&ask, &standard)
    }

    /// Waits for what comes next about the command.
    ///
    /// # Errors
    /// The kernel's.
    pub fn next(&self) -> io::Result<Answer> {
        let Some(got) = channel::receive::<Reply>(&self.socket, RecvFlags::empty())? else {
            return Ok(Answer::Over("the run has ended".to_owned()));
        };
        Ok(match (got.message, got.descriptors.into_iter().next()) {
            (Reply::Terminal, Some(master)) => Answer::Terminal(master),
            (Reply::Ended(Some(code), _), _) => Answer::Ended(End::Code(code)),
            (Reply::Ended(None, Some(signal)), _) => Answer::Ended(End::Signal(signal)),
            (Reply::Refused(why), _) => Answer::Over(why),
            _ => Answer::Ended(End::Lost),
        })
    }

    fn ask(&self, ask: &Ask, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        channel::send(&self.socket, ask, descriptors, SendFlags::empty())
    }

    fn done(&self) -> io::Result<Vec<OwnedFd>> {
        match channel::receive::<Reply>(&self.socket, RecvFlags::empty())? {
            Some(got) => match got.message {
                Reply::Done => Ok(got.descriptors),
                Reply::Refused(why) => Err(io::Error::other(why)),
                _ => Err(io::ErrorKind::InvalidData.into()),
            },
            None => Err(io::Error::other("the run has ended")),
        }
    }
}

impl std::os::fd::AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Takes away what killed supervisors left: sockets that nobody listens on. At most [`SWEEP`] entries are looked at.
fn sweep(folder: &OwnedFd) -> io::Result<()> {
    for entry in Dir::read_from(folder)?.take(SWEEP) {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        let abandoned = match name.strip_suffix(".sock").or_else(|| name.strip_suffix(".sock.new")) {
            None => false,
            Some(_) if name.ends_with(".new") => {
                // One that is being made has no listener yet; it is a matter of microseconds.
                let Ok(stat) = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
                let made = UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
                made.elapsed().is_ok_and(|age| age > Duration::from_secs(60))
            }
            Some(_) => {
                let kind = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, kind, None)?;
                matches!(connect(&socket, &address(folder, name)?), Err(Errno::CONNREFUSED))
            }
        };
        if abandoned {
            // Two that sweep at once may both see it.
            let _ = rustix::fs::unlinkat(folder, name, AtFlags::empty());
        }
    }
    Ok(())
}

/// `<run>.sock`, for a run's id of letters, digits and hyphens.
fn socket_name(run: &str) -> io::Result<String> {
    let plain =
        !run.is_empty() && run.len() <= 64 && run.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if plain { Ok(format!("{run}.sock")) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// By way of the open folder, whose own path may be longer than a socket's may be.
fn address(folder: &OwnedFd, name: &str) -> io::Result<SocketAddrUnix> {
    use std::os::fd::AsRawFd as _;
    let path = format!("/proc/self/fd/{}/{name}", folder.as_raw_fd());
    if path.len() > MAX_PATH {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(SocketAddrUnix::new(path)?)
}
