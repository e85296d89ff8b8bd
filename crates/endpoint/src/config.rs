//! Raw arguments to one checked configuration, before anything is opened; all mistakes are reported together.

use std::path::{Path, PathBuf};

use creel_model::Mode;

/// Folder of the system daemon's sockets; compiled into `creel-hook` too.
pub const SYSTEM_RUNTIME: &str = "/run/creel";
/// Folder of the system daemon's state.
pub const SYSTEM_STATE: &str = "/var/lib/creel";
/// Folder of the system daemon's configuration, owned by root.
pub const SYSTEM_CONFIGURATION: &str = "/etc/creel";

/// What `creeld` was started as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// System or user mode.
    pub mode: Mode,
    /// Where the sockets are.
    pub runtime: PathBuf,
    /// Where the journal and keys are.
    pub state: PathBuf,
    /// Where a bundle of the organisation is looked for (`policy/`); the starter bundle otherwise.
    pub configuration: PathBuf,
    /// Turns every rule of the bundle to `block` unless its mode is stated: `--enforce`.
    pub enforce: bool,
    /// Socket of the root role; system mode only.
    pub root_socket: PathBuf,
    /// Datagram sockets to which checkpoints are anchored; the first that exists is used.
    pub anchors: Vec<PathBuf>,
    /// Ends with the process that started it (`creel up` in front).
    pub with_parent: bool,
}

/// The program's role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Decide, record, discover.
    Daemon(Config),
    /// Serve the root role on this socket to this account.
    Root {
        /// Where it listens.
        socket: PathBuf,
        /// The only account it serves (by name).
        account: String,
    },
    /// Answer one question about a bundle folder and end: for programs that do not link the rules' engine.
    Offline {
        /// What is asked, for example `policy-test`.
        question: String,
        /// Its operands.
        operands: Vec<String>,
    },
    /// Print the version.
    Version,
    /// Print the help.
    Help,
}

/// The help text.
pub const HELP: &str = "\
creeld — decides, records and discovers for the AI agents of this machine

usage: creeld [--user | --system] [options]
       creeld --role=root [--socket PATH] [--account NAME]

  --user               serve this account only (the default for accounts other than `creel`)
  --system             serve the machine, as account `creel`, with the root role beside it
  --enforce            turn the bundle's rules on instead of only recording what they would do
  --runtime DIR        folder of the sockets
  --state DIR          folder of the journal and keys
  --configuration DIR  folder that holds `policy/`, the organisation's bundle
  --root-socket PATH   the root role's socket (system mode)
  --anchor PATH        datagram socket for checkpoints (default: journald, then syslog); `none` for none
  --with-parent        end when the process that started it ends
  --role=root          serve the few things that need root; parses nothing of an agent
  --version, --help

`creel up` starts it for you.";

/// Reads the arguments (without the program's name). `uid` and `home` are the account's.
///
/// # Errors
/// Every mistake, one line each.
pub fn parse(arguments: &[String], uid: u32, home: &Path) -> Result<Role, Vec<String>> {
    let mut raw = Raw::default();
    let mut mistakes = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        let mut value = |mistakes: &mut Vec<String>| {
            let value = inline.clone().or_else(|| rest.next().cloned());
            if value.is_none() {
                mistakes.push(format!("`{name}` needs a value"));
            }
            value.unwrap_or_default()
        };
        match name {
            "--user" => raw.mode = Some(Mode::User),
            "--system" => raw.mode = Some(Mode::System),
            "--enforce" => raw.enforce = true,
            "--with-parent" => raw.with_parent = true,
            "--runtime" => raw.runtime = Some(value(&mut mistakes).into()),
            "--state" => raw.state = Some(value(&mut mistakes).into()),
            "--configuration" => raw.configuration = Some(value(&mut mistakes).into()),
            "--root-socket" | "--socket" => raw.root_socket = Some(value(&mut mistakes).into()),
            "--account" => raw.account = Some(value(&mut mistakes)),
            "--anchor" => raw.anchors.push(value(&mut mistakes).into()),
            "--role" => raw.role = Some(value(&mut mistakes)),
            "--offline" => {
                let question = value(&mut mistakes);
                return if mistakes.is_empty() {
                    Ok(Role::Offline { question, operands: rest.cloned().collect() })
                } else {
                    Err(mistakes)
                };
            }
            "--version" | "-V" => return Ok(Role::Version),
            "--help" | "-h" => return Ok(Role::Help),
            _ => mistakes.push(format!("unknown argument `{argument}`; see `creeld --help`")),
        }
    }
    if mistakes.is_empty() { raw.check(uid, home) } else { Err(mistakes) }
}

#[derive(Default)]
struct Raw {
    mode: Option<Mode>,
    enforce: bool,
    with_parent: bool,
    runtime: Option<PathBuf>,
    state: Option<PathBuf>,
    configuration: Option<PathBuf>,
    root_socket: Option<PathBuf>,
    account: Option<String>,
    anchors: Vec<PathBuf>,
    role: Option<String>,
}

impl Raw {
    fn check(self, uid: u32, home: &Path) -> Result<Role, Vec<String>> {
        let mut mistakes = Vec::new();
        let root_socket = self.root_socket.unwrap_or_else(|| "/run/creel-root/root.sock".into());
        let given = [&self.runtime, &self.state, &self.configuration];
        for path in given.into_iter().flatten().chain([&root_socket]) {
            if !path.is_absolute() {
                mistakes.push(format!("`{}` is not absolute", path.display()));
            }
        }
        match self.role.as_deref() {
            None | Some("daemon") => {}
            Some("root") if uid != 0 => mistakes.push("the root role needs root".to_owned()),
            Some("root") => {}
            Some(other) => mistakes.push(format!("unknown role `{other}`, expected daemon or root")),
        }
        let mode = self.mode.unwrap_or(Mode::User);
        if mode == Mode::System && uid == 0 && self.role.as_deref() != Some("root") {
            mistakes.push("the system daemon runs as account `creel`, not as root; only `--role=root` does".to_owned());
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        if self.role.as_deref() == Some("root") {
            return Ok(Role::Root { socket: root_socket, account: self.account.unwrap_or_else(|| "creel".to_owned()) });
        }
        let (runtime, state, configuration) = match mode {
            Mode::System => (SYSTEM_RUNTIME.into(), SYSTEM_STATE.into(), SYSTEM_CONFIGURATION.into()),
            Mode::User => (
                PathBuf::from(format!("/run/user/{uid}/creel")),
                home.join(".local/state/creel"),
                home.join(".config/creel"),
            ),
        };
        let anchors = if self.anchors.is_empty() {
            vec!["/run/systemd/journal/socket".into(), "/dev/log".into()]
        } else {
            self.anchors.into_iter().filter(|anchor| anchor.as_os_str() != "none").collect()
        };
        Ok(Role::Daemon(Config {
            mode,
            runtime: self.runtime.unwrap_or(runtime),
            state: self.state.unwrap_or(state),
            configuration: self.configuration.unwrap_or(configuration),
            enforce: self.enforce,
            root_socket,
            anchors,
            with_parent: self.with_parent,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arguments: &[&str], uid: u32) -> Result<Role, Vec<String>> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        parse(&arguments, uid, Path::new("/home/ada"))
    }

    #[test]
    fn user_mode_is_the_default_and_lives_in_the_accounts_folders() {
        let Ok(Role::Daemon(config)) = check(&[], 1000) else { panic!("a daemon") };
        assert_eq!(config.mode, Mode::User);
        assert_eq!(config.runtime, Path::new("/run/user/1000/creel"));
        assert_eq!(config.state, Path::new("/home/ada/.local/state/creel"));
        assert!(!config.enforce);
    }

    #[test]
    fn all_mistakes_are_reported_together() {
        let mistakes = check(&["--bogus", "--runtime"], 1000).expect_err("mistakes");
        assert_eq!(mistakes.len(), 2, "{mistakes:?}");
        let mistakes = check(&["--role=root", "--runtime", "relative"], 1000).expect_err("mistakes");
        assert_eq!(mistakes.len(), 2, "{mistakes:?}");
    }

    #[test]
    fn the_system_daemon_is_never_root() {
        assert!(check(&["--system"], 0).is_err());
        assert!(check(&["--system"], 990).is_ok());
        assert!(matches!(check(&["--role=root"], 0), Ok(Role::Root { .. })));
    }
}
