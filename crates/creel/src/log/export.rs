//! `creel log export`: the record as OCSF events, one JSON document per line, to standard output, a file or syslog.
//!
//! A copy for other systems: it cannot be verified and does not come back. With `--follow` it goes on; a daemon that
//! restarts is waited for, and nothing is sent twice or left out, because sequence numbers tell where it was.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use creel_journal::{Reader, Sealed, Start, Stored, ocsf};
use creel_wire::control::{Answer, RecordView, Request};

use super::Filter;
use crate::connection::{Daemon, Place};
use crate::failure::{Exit, Failure, Outcome};
use crate::{clock, out};

/// Pause before a daemon that went away is looked for again.
const AGAIN: Duration = Duration::from_secs(1);
/// Largest syslog datagram; a longer event goes without its detail.
const DATAGRAM_BYTES_MAX: usize = 60 * 1024;

/// Arguments of `creel log export`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  creel log export --since 7d > week.ndjson\n  creel log export --follow --to /var/log/creel.ndjson\n  creel log export --follow --syslog /dev/log\n  creel log export --journal ./copy"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    filter: Filter,
    /// The form.
    #[arg(long, value_enum, default_value_t)]
    format: Form,
    /// Go on with what happens.
    #[arg(long, short)]
    follow: bool,
    /// Append to this file (created for this account only) instead of standard output.
    #[arg(long, value_name = "FILE", conflicts_with = "syslog")]
    to: Option<PathBuf>,
    /// Send to this syslog socket instead of standard output.
    #[arg(long, value_name = "SOCKET")]
    syslog: Option<PathBuf>,
    /// A journal's folder or a copy of one, read here without a daemon.
    #[arg(long, value_name = "DIR", conflicts_with = "follow")]
    journal: Option<PathBuf>,
}

/// Forms of export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// OCSF 1.8 events, one per line.
    #[default]
    Ocsf,
    /// The records as they are, one per line.
    Jsonl,
}

/// Where events go.
enum Sink {
    Output(std::io::Stdout),
    File(File),
    Syslog(UnixDatagram, PathBuf),
}

impl Sink {
    fn open(arguments: &Arguments) -> Result<Self, Failure> {
        if let Some(path) = &arguments.syslog {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path).map_err(|error| Failure::file("connect to", path, &error))?;
            return Ok(Sink::Syslog(socket, path.clone()));
        }
        match &arguments.to {
            None => Ok(Sink::Output(std::io::stdout())),
            Some(path) => {
                let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
                let file = OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(flags).open(path);
                Ok(Sink::File(file.map_err(|error| Failure::file("write", path, &error))?))
            }
        }
    }

    fn write(&mut self, stored: &Stored, form: Form) -> Result<(), Failure> {
        let mut line = text(stored, form)?;
        match self {
            Sink::Output(output) => {
                line.push('\n');
                let mut output = output.lock();
                output.write_all(line.as_bytes())?;
                Ok(output.flush()?)
            }
            Sink::File(file) => {
                // One write per line: readers of a growing file never see half of one.
                line.push('\n');
                Ok(file.write_all(line.as_bytes())?)
            }
            Sink::Syslog(socket, path) => {
                if line.len() > DATAGRAM_BYTES_MAX {
                    line = text(&Stored { detail: None, ..stored.clone() }, form)?;
                }
                // Facility authpriv (10); severity warning for what was stopped or asked, else informational.
                let severity = if stored.envelope.verdict >= Some(creel_model::Verdict::Ask) { 4 } else { 6 };
                let datagram = format!("<{}>creel[{}]: {line}", 80 + severity, std::process::id());
                let sent = socket.send(datagram.as_bytes()).or_else(|_| {
                    // The log's daemon restarted: its socket is a new one.
                    socket.connect(&*path).and_then(|()| socket.send(datagram.as_bytes()))
                });
                sent.map(drop).map_err(|error| Failure::file("send to", path, &error))
            }
        }
    }
}

fn text(stored: &Stored, form: Form) -> Result<String, Failure> {
    Ok(match form {
        Form::Ocsf => ocsf::event(stored).to_string(),
        Form::Jsonl => serde_json::to_string(&RecordView {
            sequence: stored.sequence,
            envelope: stored.envelope.clone(),
            detail: stored.detail.clone(),
            erased: stored.erased,
        })?,
    })
}

/// Exports.
pub(super) fn run(arguments: &Arguments, runtime: Option<&Path>) -> Outcome {
    let mut sink = Sink::open(arguments)?;
    if let Some(folder) = &arguments.journal {
        return offline(folder, arguments, &mut sink);
    }
    let mut filter = arguments.filter.to_wire(clock::now_unix_ns())?;
    let place = Place::find(runtime);
    let mut daemon = Daemon::open(runtime)?;
    loop {
        let request = Request::Records { filter: filter.clone(), follow: arguments.follow };
        let mut trouble = None;
        let ended = daemon.each(&request, &mut |answer| {
            let Answer::Record(record) = answer else { return Ok(ControlFlow::Continue(())) };
            let sequence = record.sequence;
            if let Err(failure) = sink.write(&stored(*record), arguments.format) {
                trouble = Some(failure);
                return Ok(ControlFlow::Break(()));
            }
            filter.after_sequence = Some(sequence);
            Ok(ControlFlow::Continue(()))
        });
        if let Some(failure) = trouble {
            return Err(failure);
        }
        match ended {
            Ok(()) if !arguments.follow => return Ok(Exit::Good),
            Err(failure) if !arguments.follow => return Err(failure),
            // A daemon that stops in order says that it is done; one that does not just goes.
            Ok(()) | Err(_) => out::say("the daemon went away; waiting for it"),
        }
        daemon = loop {
            std::thread::sleep(AGAIN);
            if let Ok(Some(daemon)) = Daemon::try_open(&place) {
                break daemon;
            }
        };
    }
}

fn offline(folder: &Path, arguments: &Arguments, sink: &mut Sink) -> Outcome {
    let filter = arguments.filter.to_wire(clock::now_unix_ns())?;
    let cannot = |error| Failure::new(format!("the journal cannot be read: {error:?}"));
    let mut reader = Reader::open(folder, Start::Beginning).map_err(cannot)?;
    let mut wanted = |sequence: u64, envelope: &creel_model::record::Envelope| filter.matches(sequence, envelope);
    while let Some(record) = reader.next_where(&mut wanted).map_err(cannot)? {
        sink.write(&record, arguments.format)?;
    }
    Ok(Exit::Good)
}

/// A record of the control socket as the journal's projection takes it. What the journal itself sealed into the
/// envelope (digests, place) does not come over the socket and is not in the event.
fn stored(record: RecordView) -> Stored {
    Stored {
        sequence: record.sequence,
        sealed: Sealed {
            sequence: record.sequence,
            detail_digest: String::new(),
            detail_bytes: 0,
            peaks: None,
            erasure: None,
            gap: None,
        },
        envelope_bytes: serde_json::to_vec(&record.envelope).unwrap_or_default(),
        envelope: record.envelope,
        detail: record.detail,
        erased: record.erased,
    }
}

#[cfg(test)]
mod tests {
    use creel_model::Verdict;

    use super::*;
    use crate::show::tests::record;

    #[test]
    fn an_event_carries_what_was_decided() {
        let event = text(&stored(record(12, Verdict::Deny, "rm -rf ~", "destructive-outside")), Form::Ocsf).unwrap();
        let event: serde_json::Value = serde_json::from_str(&event).unwrap();
        assert_eq!(event["class_uid"], 2004);
        assert_eq!(event["metadata"]["sequence"], 12);
        assert!(event.to_string().contains("destructive-outside"));
    }

    #[test]
    fn a_file_gets_whole_lines_and_a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.ndjson");
        let mut sink = Sink::File(File::create(&path).unwrap());
        for sequence in 0..3 {
            sink.write(&stored(record(sequence, Verdict::Allow, "ls", "")), Form::Jsonl).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3);
        for line in text.lines() {
            serde_json::from_str::<RecordView>(line).unwrap();
        }
    }

    #[test]
    fn syslog_gets_one_datagram_per_event() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = UnixDatagram::bind(&path).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        socket.connect(&path).unwrap();
        let mut sink = Sink::Syslog(socket, path);
        sink.write(&stored(record(1, Verdict::Deny, &"x".repeat(100_000), "rule")), Form::Ocsf).unwrap();
        let mut buffer = vec![0; 128 * 1024];
        let bytes = log.recv(&mut buffer).unwrap();
        assert!(bytes <= DATAGRAM_BYTES_MAX + 64);
        assert!(String::from_utf8_lossy(&buffer[..bytes]).starts_with("<84>creel["));
    }
}
