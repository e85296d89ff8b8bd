//! One question to the daemon and its answer, within the deadline.
//!
//! A connection that breaks before the answer is tried again, because a daemon that restarts has forgotten the question;
//! asking twice records twice and allows nothing. An answer that is not a frame is never tried again: that is a deny.

use std::thread;
use std::time::{Duration, Instant};

use creel_wire::hook::{Answer, FrameType, HEADER_BYTES, body_bytes, decode_answer, encode_request_head};
use rustix::event::PollFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::input::wait;
use crate::socket::{NoConnection, Place};

/// First pause between attempts to connect; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// Longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// How often a broken connection is replaced.
const EXCHANGES_MAX: u32 = 3;

/// Why an exchange gave no answer.
enum Broken {
    /// The daemon went away; another may come.
    Lost,
    /// No use in trying again.
    Doubt(String),
}

/// Asks and waits: at most `wait` for somebody to listen, at most until `deadline` for the answer.
pub(crate) fn ask(
    place: &Place,
    kind: &str,
    event: &str,
    baked: &[&str],
    payload: &[u8],
    deadline: Instant,
    wait: Duration,
) -> Result<Answer, String> {
    let head = encode_request_head(kind, event, baked, payload.len()).map_err(|error| error.to_string())?;
    for _ in 0..EXCHANGES_MAX {
        let stream = connected(place, deadline.min(Instant::now() + wait), deadline)?;
        match exchange(&stream, &head, payload, deadline) {
            Ok(answer) => return Ok(answer),
            Err(Broken::Doubt(why)) => return Err(why),
            // A restarting daemon, or one that closes what is beyond its bounds: both pass in a moment.
            Err(Broken::Lost) => thread::sleep(PAUSE_MAX),
        }
    }
    Err("the daemon broke off several times".to_owned())
}

fn connected(place: &Place, until: Instant, deadline: Instant) -> Result<OwnedFd, String> {
    let mut pause = PAUSE_MIN;
    loop {
        match place.connect(deadline) {
            Ok(stream) => return Ok(stream),
            Err(NoConnection::Refused(why)) => return Err(why),
            Err(NoConnection::Absent) => {}
        }
        if Instant::now() + pause >= until {
            return Err("the daemon is not there".to_owned());
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn exchange(stream: &OwnedFd, head: &[u8], payload: &[u8], deadline: Instant) -> Result<Answer, Broken> {
    send_all(stream, head, deadline)?;
    send_all(stream, payload, deadline)?;

    let mut frame = Vec::with_capacity(512);
    receive(stream, &mut frame, HEADER_BYTES, deadline)?;
    let header = frame.first_chunk().ok_or(Broken::Lost)?;
    let body = body_bytes(header, FrameType::Answer).map_err(garbled)?;
    receive(stream, &mut frame, HEADER_BYTES + body, deadline)?;
    let answer = decode_answer(&frame).map_err(garbled)?;
    // Agents know two endings; any other one would let the call run.
    if matches!(answer.exit_code, 0 | 2) { Ok(answer) } else { Err(garbled("unknown ending")) }
}

fn garbled(why: impl std::fmt::Display) -> Broken {
    Broken::Doubt(format!("the daemon's answer is garbled ({why})"))
}

fn failed(error: Errno) -> Broken {
    match error {
        Errno::TIMEDOUT => Broken::Doubt("the daemon did not answer in time".to_owned()),
        Errno::PIPE | Errno::CONNRESET => Broken::Lost,
        error => Broken::Doubt(format!("the daemon could not be asked: {error}")),
    }
}

fn send_all(stream: &OwnedFd, mut bytes: &[u8], deadline: Instant) -> Result<(), Broken> {
    while !bytes.is_empty() {
        match send(stream, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
            Err(Errno::AGAIN) => wait(stream.as_fd(), PollFlags::OUT, deadline).map_err(failed)?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// Reads until the frame has `wanted` bytes; memory grows with what arrives.
fn receive(stream: &OwnedFd, frame: &mut Vec<u8>, wanted: usize, deadline: Instant) -> Result<(), Broken> {
    let mut buffer = [0u8; 16 * 1024];
    while frame.len() < wanted {
        wait(stream.as_fd(), PollFlags::IN, deadline).map_err(failed)?;
        let room = buffer.len().min(wanted - frame.len());
        match recv(stream, buffer.get_mut(..room).unwrap_or_default(), RecvFlags::empty()) {
            Ok((_, 0)) => return Err(Broken::Lost),
            Ok((_, read)) => frame.extend_from_slice(buffer.get(..read).unwrap_or_default()),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}
