//! Decisions of the daemon, through its socket and without the hook's process: how many, how fast, in how much memory.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use creel_wire::hook::{self, Request};

use crate::Failure;
use crate::calls::{Call, Conversation, Shape};
use crate::figures::{self, At, Samples};
use crate::machine;

/// Callers at a time.
const CALLERS: usize = 8;
/// Goals by size of payload (p99): bytes, name, milliseconds.
const SIZES: [(usize, &str, f64); 3] = [(4 << 10, "4 KiB", 1.0), (64 << 10, "64 KiB", 5.0), (1 << 20, "1 MiB", 50.0)];
/// The longest command that is looked at; a longer one is not understood, by design.
const COMMAND_BYTES_MAX: usize = 256 << 10;

/// One question; milliseconds from the first byte to the last, with everything that a connection costs.
fn ask(socket: &Path, call: &Call) -> Result<f64, Failure> {
    let request = Request {
        kind: "claude-code".to_owned(),
        event: call.event.to_owned(),
        arguments: vec!["--user".to_owned()],
        payload: call.payload.clone(),
    };
    let frame = hook::encode_request(&request)?;
    let began = Instant::now();
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(&frame)?;
    let answer = hook::read_answer(&mut stream)?;
    let took = began.elapsed();
    let silent = answer.exit_code == 0 && answer.stdout.is_empty();
    if silent == call.stopped {
        let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
        return Err(format!("{} of {} bytes was answered with {answer}", call.event, call.payload.len()).into());
    }
    Ok(took.as_secs_f64() * 1e3)
}

/// Many decisions in a row from several callers.
pub(crate) fn sustained(socket: &Path, folder: &str, daemon: u32, count: usize) -> Result<(), Failure> {
    let each = count / CALLERS;
    let cpu_before = machine::cpu_seconds(daemon)?;
    let rss_before = machine::memory_mb(daemon, "VmRSS")?;
    let began = Instant::now();
    let took: Result<Vec<Samples>, Failure> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                scope.spawn(move || -> Result<Samples, Failure> {
                    let mut conversation = Conversation::new(&format!("sustained-{caller}"), folder);
                    for call in conversation.start() {
                        ask(socket, &call)?;
                    }
                    let mut took = Samples::default();
                    for _ in 0..each {
                        took.add(ask(socket, &conversation.next())?);
                    }
                    Ok(took)
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap_or_else(|_| Err("a caller ended early".into()))).collect()
    });
    let seconds = began.elapsed().as_secs_f64();
    let mut all = Samples::default();
    took?.into_iter().for_each(|samples| all.join(samples));
    let decisions = all.count() as f64;
    let cpu = machine::cpu_seconds(daemon)? - cpu_before;
    figures::heading(&format!("{decisions} decisions in a row, {CALLERS} callers, each with a connection, recorded"));
    figures::goal("decisions a second", decisions / seconds, 5_000.0, At::Least, "/s");
    figures::figure("decisions a second of the daemon's processor time", decisions / cpu, "/s");
    figures::figure("one decision, p50 / with 8 callers", all.median() * 1e3, "us");
    figures::figure("one decision, p99 / with 8 callers", all.p99() * 1e3, "us");
    figures::figure("creeld's memory before (VmRSS)", rss_before, "MB");
    let rss = machine::memory_mb(daemon, "VmRSS")?;
    figures::goal("creeld's memory after (VmRSS)", rss, 40.0, At::Most, "MB");
    figures::figure("creeld's memory at its highest (VmHWM)", machine::memory_mb(daemon, "VmHWM")?, "MB");
    Ok(())
}

/// One caller, payloads of the stated sizes.
pub(crate) fn by_size(socket: &Path, folder: &str, daemon: u32, rounds: usize) -> Result<(), Failure> {
    figures::heading("one decision by size of payload, one caller, connection and transfer included");
    for (bytes, name, goal_ms) in SIZES {
        for (shape, what) in
            [(Shape::Write, "a file written"), (Shape::Result, "a tool's output"), (Shape::Command, "a command")]
        {
            if matches!(shape, Shape::Command) && bytes > COMMAND_BYTES_MAX {
                continue;
            }
            let rounds = if bytes > 64 << 10 { rounds / 5 } else { rounds };
            let mut conversation = Conversation::new(&format!("sized-{bytes}-{what}"), folder);
            for call in conversation.start() {
                ask(socket, &call)?;
            }
            let mut took = Samples::default();
            let mut cpu_before = 0.0;
            for round in 0..rounds + rounds / 10 {
                if round == rounds / 10 {
                    cpu_before = machine::cpu_seconds(daemon)?;
                }
                let sample = ask(socket, &conversation.sized(shape, bytes))?;
                // The first tenth warms up.
                if round >= rounds / 10 {
                    took.add(sample);
                }
            }
            let cpu_ms = (machine::cpu_seconds(daemon)? - cpu_before) * 1e3 / took.count().max(1) as f64;
            figures::figure(&format!("{name}, {what}, processor time of creeld, mean"), cpu_ms, "ms");
            figures::figure(&format!("{name}, {what}, p50"), took.median(), "ms");
            figures::goal(&format!("{name}, {what}, p99"), took.p99(), goal_ms, At::Most, "ms");
        }
    }
    Ok(())
}
