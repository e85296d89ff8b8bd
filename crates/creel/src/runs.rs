//! `creel runs`: the runs in cages, and what can be done with one from another terminal.
//!
//! The list is the daemon's; everything else is asked of the run's own supervisor, which needs no daemon. The one thing
//! a newcomer gets wrong: a run is asked by its own account only, through a socket that no cage shows.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use creel_sandbox::End;
use creel_sandbox::remote::{self, Answer as Word, Client, Kind};
use creel_wire::control::{Answer, CageRunView, Request, RunExit};

use crate::connection::Daemon;
use crate::failure::{Exit, Failure, Outcome};
use crate::out::{self, Format};
use crate::text::{clean, table};
use crate::{clock, up};

/// Arguments of `creel runs`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Args)]
struct List {
    /// Those that have ended, too.
    #[arg(long)]
    all: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them (as without a word).
    List(List),
    /// Watch and type into a run's terminal; Ctrl-] lets go.
    Attach {
        /// The run, or the beginning of its id.
        run: String,
    },
    /// Send a signal to a run's command.
    Signal {
        /// The run, or the beginning of its id.
        run: String,
        /// Name or number: `INT`, `SIGTERM`, `10`.
        signal: String,
    },
    /// End a run, with everything it started.
    Stop {
        /// The run, or the beginning of its id.
        run: String,
    },
    /// Start a further command in a run's cage.
    Exec {
        /// The run, or the beginning of its id.
        run: String,
        /// Folder that it starts in, instead of this one.
        #[arg(long, value_name = "DIR")]
        folder: Option<PathBuf>,
        /// The command and its arguments.
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
}

/// Does it.
pub(crate) fn run(arguments: &Arguments, runtime: Option<&Path>) -> Outcome {
    match &arguments.verb {
        None => list(&arguments.list, runtime),
        Some(Verb::List(arguments)) => list(arguments, runtime),
        Some(Verb::Attach { run }) => attach(run),
        Some(Verb::Signal { run, signal }) => {
            let number = number_of(signal).ok_or_else(|| {
                Failure::new(format!("`{}` is no signal", clean(signal))).hint("`kill -l` lists them")
            })?;
            find(run)?.signal(number)?;
            Ok(Exit::Good)
        }
        Some(Verb::Stop { run }) => {
            find(run)?.stop()?;
            Ok(Exit::Good)
        }
        Some(Verb::Exec { run, folder, command }) => exec(run, folder.as_deref(), command),
    }
}

fn list(arguments: &List, runtime: Option<&Path>) -> Outcome {
    let mut runs: Vec<CageRunView> = Vec::new();
    for answer in Daemon::open(runtime)?.ask(&Request::Runs { ended: arguments.all })? {
        if let Answer::Runs(more) = answer {
            runs.extend(more);
        }
    }
    out::list(&runs, arguments.format, |look| {
        if runs.is_empty() {
            return vec!["no run in a cage; `creel run -- COMMAND` starts one".to_owned()];
        }
        let rows: Vec<Vec<String>> = runs
            .iter()
            .map(|run| {
                vec![
                    run.run.as_str().chars().take(12).collect(),
                    state(run),
                    clean(&run.command.join(" ")),
                    clean(&run.profile),
                    clock::date_time(run.started_unix_ns),
                    run.refused.to_string(),
                    clean(&run.workspace),
                ]
            })
            .collect();
        table(&["RUN", "STATE", "COMMAND", "PROFILE", "STARTED", "REFUSED", "WORKSPACE"], &rows, look.width)
    })?;
    Ok(Exit::Good)
}

fn state(run: &CageRunView) -> String {
    match &run.exit {
        None => clean(&run.state),
        Some(RunExit::Code(code)) => format!("ended {code}"),
        Some(RunExit::Signal(signal)) => format!("signal {signal}"),
        Some(RunExit::Failed(_)) => "failed".to_owned(),
        Some(RunExit::Stopped(_)) => "stopped".to_owned(),
    }
}

/// The supervisor of the run whose id begins so.
fn find(wanted: &str) -> Result<Client, Failure> {
    let folder = remote::folder(&up::state_folder(None)?);
    let wanted = if wanted.starts_with("r-") { wanted.to_owned() } else { format!("r-{wanted}") };
    let mut found = Vec::new();
    if let Ok(entries) = std::fs::read_dir(&folder) {
        for entry in entries.flatten() {
            let name = entry.file_name();
            let run = name.to_str().and_then(|name| name.strip_suffix(".sock"));
            if let Some(run) = run.filter(|run| run.starts_with(&wanted)) {
                // A socket whose supervisor was killed is left over.
                if let Ok(client) = Client::open(&folder, run) {
                    found.push(client);
                }
            }
        }
    }
    match found.len() {
        0 => Err(Failure::new(format!("no run of this account begins with `{}`", clean(&wanted)))
            .hint("`creel runs` lists them")),
        1 => found.pop().ok_or_else(|| Failure::new("the run is gone")),
        many => Err(Failure::new(format!("{many} runs begin with `{}`", clean(&wanted))).hint("write more of its id")),
    }
}

fn attach(run: &str) -> Outcome {
    let client = find(run)?;
    if !rustix::termios::isatty(rustix::stdio::stdin()) {
        return Err(Failure::new("attaching needs a terminal"));
    }
    let (columns, rows) = out::terminal_size();
    let side = |size: usize| u16::try_from(size).unwrap_or(u16::MAX);
    let stream = client.attach(side(rows), side(columns))?;
    out::say("creel: attached; Ctrl-] lets go");
    remote::relay(&client, &stream, Kind::Attachment)?;
    out::say("creel: let go");
    Ok(Exit::Good)
}

fn exec(run: &str, folder: Option<&Path>, command: &[OsString]) -> Outcome {
    let client = find(run)?;
    let folder = match folder {
        Some(folder) => folder.to_owned(),
        None => std::env::current_dir()?,
    };
    let standard = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    // With a terminal at both ends it gets one of the cage; else the three descriptors themselves, which must be none.
    let terminal = standard.iter().take(2).all(rustix::termios::isatty);
    let (columns, rows) = out::terminal_size();
    let side = |size: usize| u16::try_from(size).unwrap_or(u16::MAX);
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let lent = standard.map(|fd| {
        use std::os::fd::AsFd as _;
        if terminal || rustix::termios::isatty(fd) { null.as_fd() } else { fd }
    });
    client.exec(command, &folder, lent, terminal.then(|| (side(rows), side(columns))))?;
    loop {
        match client.next()? {
            Word::Terminal(master) => {
                if let Some(word) = remote::relay(&client, &master, Kind::Own)? {
                    return ended(word);
                }
            }
            word => return ended(word),
        }
    }
}

fn ended(word: Word) -> Outcome {
    match word {
        Word::Ended(end @ (End::Code(_) | End::Signal(_))) => end.repeat(),
        Word::Ended(End::Lost) => Err(Failure::new("the run broke")),
        Word::Over(why) => Err(Failure::new(clean(&why))),
        Word::Terminal(_) => Err(Failure::new("the run's answer is not the expected one")),
    }
}

/// The number of a signal by its name, with or without `SIG`, or by its number.
fn number_of(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    name.parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_and_number() {
        for text in ["INT", "int", "SIGINT", "2"] {
            assert_eq!(number_of(text), Some(2), "{text}");
        }
        for text in ["", "0", "65", "NOPE", "-2"] {
            assert_eq!(number_of(text), None, "{text}");
        }
    }
}
