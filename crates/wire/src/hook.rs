//! Hook wire v1, frozen: one request and one answer per connection, as bytes (`docs/hook-wire-v1.md`).
//!
//! A frame is a 12-byte header and a body. Header: the four bytes `CRLH`, version (1), type (1 request, 2 answer), two
//! zero bytes, then the body's length as 32 bits, little-endian. Decoding never panics and never allocates more than the
//! stated bounds. The one thing a newcomer gets wrong: nothing here may ever change. A new need is a new version byte,
//! and the daemon answers every older one.

use std::io::{self, Read};

/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"CRLH";
/// The version these types describe.
pub const VERSION: u8 = 1;
/// Bytes of a frame before its body.
pub const HEADER_BYTES: usize = 12;
/// Longest payload that a request carries.
pub const PAYLOAD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest kind, event or argument.
pub const STRING_BYTES_MAX: usize = 4 * 1024;
/// Most arguments of one request.
pub const ARGUMENTS_MAX: usize = 32;
/// Longest standard output, and longest standard error, of an answer.
pub const OUTPUT_BYTES_MAX: usize = 1024 * 1024;
/// Longest body of a request.
pub const REQUEST_BODY_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + (ARGUMENTS_MAX + 2) * (STRING_BYTES_MAX + 2) + 6;
/// Longest body of an answer.
pub const ANSWER_BODY_BYTES_MAX: usize = 2 * OUTPUT_BYTES_MAX + 9;
/// How long a hook waits for its answer when its arguments do not say, in milliseconds.
pub const DEADLINE_MS_DEFAULT: u32 = 55_000;

/// The two kinds of frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameType {
    /// From the hook to the daemon.
    Request,
    /// From the daemon to the hook.
    Answer,
}

impl FrameType {
    const fn byte(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Answer => 2,
        }
    }

    const fn body_bytes_max(self) -> usize {
        match self {
            Self::Request => REQUEST_BODY_BYTES_MAX,
            Self::Answer => ANSWER_BODY_BYTES_MAX,
        }
    }
}

/// One event of an agent, as the hook saw it; nothing in it is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The catalog kind that the hook was installed for, for example `claude-code`.
    pub kind: String,
    /// The agent's own event name.
    pub event: String,
    /// The hook's own arguments after kind and event: what `guard install` baked in.
    pub arguments: Vec<String>,
    /// The hook's standard input, unread.
    pub payload: Vec<u8>,
}

/// What the hook prints and how it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Exit status.
    pub exit_code: u8,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

/// Why bytes are not a frame, or a value does not fit into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// It does not begin with [`MAGIC`].
    Magic,
    /// Another version; answered by a daemon that knows it.
    Version(u8),
    /// A request where an answer was expected, or the reverse, or an unknown type.
    Type(u8),
    /// The reserved bytes are not zero.
    Reserved,
    /// A length beyond its bound, with the bound in bytes (or in arguments).
    TooLong {
        /// What was too long.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// It ends before what it announced.
    Truncated,
    /// Bytes follow the last field.
    Trailing,
    /// A string is not UTF-8.
    NotUtf8(&'static str),
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Magic => f.write_str("not a hook frame"),
            Self::Version(found) => write!(f, "hook wire version {found}, expected {VERSION}"),
            Self::Type(found) => write!(f, "unexpected frame type {found}"),
            Self::Reserved => f.write_str("reserved bytes of the frame header are not zero"),
            Self::TooLong { what, max } => write!(f, "{what} longer than {max}"),
            Self::Truncated => f.write_str("frame ends early"),
            Self::Trailing => f.write_str("bytes after the frame's last field"),
            Self::NotUtf8(what) => write!(f, "{what} is not UTF-8"),
        }
    }
}

impl std::error::Error for FrameError {}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// What `guard install` bakes into the hook's arguments after kind and event, read the same way by hook and daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags {
    /// `--system`: only the system daemon may answer. `--user` and nothing leave it false.
    pub system: bool,
    /// `--deadline-ms N`: when the hook denies by itself, counted from its start.
    pub deadline_ms: u32,
    /// `--socket PATH`: instead of the compiled-in places, for development.
    pub socket: Option<String>,
}

impl Default for Flags {
    fn default() -> Self {
        Self { system: false, deadline_ms: DEADLINE_MS_DEFAULT, socket: None }
    }
}

impl Flags {
    /// Reads the arguments.
    ///
    /// # Errors
    /// The first argument that is unknown or lacks its value: a hook that is not sure of its orders denies.
    pub fn parse<S: AsRef<str>>(arguments: &[S]) -> Result<Self, &str> {
        let mut flags = Self::default();
        let mut rest = arguments.iter().map(S::as_ref);
        while let Some(argument) = rest.next() {
            match argument {
                "--system" => flags.system = true,
                "--user" => flags.system = false,
                "--deadline-ms" => {
                    flags.deadline_ms = rest.next().and_then(|value| value.parse().ok()).ok_or(argument)?;
                }
                "--socket" => {
                    flags.socket = Some(rest.next().filter(|path| path.starts_with('/')).ok_or(argument)?.to_owned());
                }
                unknown => return Err(unknown),
            }
        }
        Ok(flags)
    }
}

/// Everything of a request but its payload, which follows on the wire: the hook need not copy 8 MiB.
///
/// # Errors
/// A string, the number of arguments or the payload is beyond its bound.
pub fn encode_request_head<S: AsRef<str>>(
    kind: &str,
    event: &str,
    arguments: &[S],
    payload_bytes: usize,
) -> Result<Vec<u8>, FrameError> {
    let mut body = Vec::with_capacity(256);
    push_string(&mut body, "kind", kind)?;
    push_string(&mut body, "event", event)?;
    let count = bounded("arguments", arguments.len(), ARGUMENTS_MAX)?;
    body.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
    for argument in arguments {
        push_string(&mut body, "argument", argument.as_ref())?;
    }
    let payload_length = bounded("payload", payload_bytes, PAYLOAD_BYTES_MAX)?;
    body.extend_from_slice(&payload_length.to_le_bytes());
    let mut frame = header(FrameType::Request, body.len().saturating_add(payload_bytes))?;
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// A request as one frame.
///
/// # Errors
/// A part is beyond its bound.
pub fn encode_request(request: &Request) -> Result<Vec<u8>, FrameError> {
    let mut frame = encode_request_head(&request.kind, &request.event, &request.arguments, request.payload.len())?;
    frame.extend_from_slice(&request.payload);
    Ok(frame)
}

/// An answer as one frame.
///
/// # Errors
/// An output is longer than [`OUTPUT_BYTES_MAX`].
pub fn encode_answer(answer: &Answer) -> Result<Vec<u8>, FrameError> {
    let stdout_length = bounded("standard output", answer.stdout.len(), OUTPUT_BYTES_MAX)?;
    let stderr_length = bounded("standard error", answer.stderr.len(), OUTPUT_BYTES_MAX)?;
    let mut frame = header(FrameType::Answer, 9 + answer.stdout.len() + answer.stderr.len())?;
    frame.push(answer.exit_code);
    frame.extend_from_slice(&stdout_length.to_le_bytes());
    frame.extend_from_slice(&answer.stdout);
    frame.extend_from_slice(&stderr_length.to_le_bytes());
    frame.extend_from_slice(&answer.stderr);
    Ok(frame)
}

/// The body's length announced by a header, checked against the bound of its type.
///
/// # Errors
/// Not a header of that type and version.
pub fn body_bytes(header: &[u8; HEADER_BYTES], expected: FrameType) -> Result<usize, FrameError> {
    let [m0, m1, m2, m3, version, frame_type, r0, r1, l0, l1, l2, l3] = *header;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(FrameError::Magic);
    }
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    if frame_type != expected.byte() {
        return Err(FrameError::Type(frame_type));
    }
    if [r0, r1] != [0, 0] {
        return Err(FrameError::Reserved);
    }
    let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
    if length > expected.body_bytes_max() {
        return Err(FrameError::TooLong { what: "frame body", max: expected.body_bytes_max() });
    }
    Ok(length)
}

/// A request from one whole frame.
///
/// # Errors
/// Anything but exactly one well-formed request.
pub fn decode_request(frame: &[u8]) -> Result<Request, FrameError> {
    let mut fields = Fields::of(frame, FrameType::Request)?;
    let kind = fields.string("kind")?;
    let event = fields.string("event")?;
    let count = usize::from(fields.u16()?);
    if count > ARGUMENTS_MAX {
        return Err(FrameError::TooLong { what: "arguments", max: ARGUMENTS_MAX });
    }
    let arguments = (0..count).map(|_| fields.string("argument")).collect::<Result<Vec<_>, _>>()?;
    let payload = fields.bytes("payload", PAYLOAD_BYTES_MAX)?;
    fields.end()?;
    Ok(Request { kind, event, arguments, payload })
}

/// An answer from one whole frame.
///
/// # Errors
/// Anything but exactly one well-formed answer.
pub fn decode_answer(frame: &[u8]) -> Result<Answer, FrameError> {
    let mut fields = Fields::of(frame, FrameType::Answer)?;
    let exit_code = fields.u8()?;
    let stdout = fields.bytes("standard output", OUTPUT_BYTES_MAX)?;
    let stderr = fields.bytes("standard error", OUTPUT_BYTES_MAX)?;
    fields.end()?;
    Ok(Answer { exit_code, stdout, stderr })
}

/// Reads one request frame; memory grows with what arrives, not with what is announced.
///
/// # Errors
/// The reader's own error, `UnexpectedEof` for a short frame, `InvalidData` with a [`FrameError`] otherwise.
pub fn read_request(reader: &mut impl Read) -> io::Result<Request> {
    Ok(decode_request(&read_frame(reader, FrameType::Request)?)?)
}

/// Reads one answer frame, as [`read_request`] does.
///
/// # Errors
/// As [`read_request`].
pub fn read_answer(reader: &mut impl Read) -> io::Result<Answer> {
    Ok(decode_answer(&read_frame(reader, FrameType::Answer)?)?)
}

fn read_frame(reader: &mut impl Read, expected: FrameType) -> io::Result<Vec<u8>> {
    let mut head = [0; HEADER_BYTES];
    reader.read_exact(&mut head)?;
    let length = body_bytes(&head, expected)?;
    let mut frame = head.to_vec();
    let wanted = u64::try_from(length).unwrap_or(u64::MAX);
    reader.take(wanted).read_to_end(&mut frame)?;
    if frame.len() < HEADER_BYTES + length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(frame)
}

fn header(frame_type: FrameType, length: usize) -> Result<Vec<u8>, FrameError> {
    let length = bounded("frame body", length, frame_type.body_bytes_max())?;
    let mut frame = Vec::with_capacity(HEADER_BYTES + 256);
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&[VERSION, frame_type.byte(), 0, 0]);
    frame.extend_from_slice(&length.to_le_bytes());
    Ok(frame)
}

fn bounded(what: &'static str, length: usize, max: usize) -> Result<u32, FrameError> {
    u32::try_from(length).ok().filter(|_| length <= max).ok_or(FrameError::TooLong { what, max })
}

fn push_string(body: &mut Vec<u8>, what: &'static str, text: &str) -> Result<(), FrameError> {
    let length = bounded(what, text.len(), STRING_BYTES_MAX)?;
    body.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
    body.extend_from_slice(text.as_bytes());
    Ok(())
}

/// What is left of a body.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn of(frame: &'a [u8], expected: FrameType) -> Result<Self, FrameError> {
        let (head, body) = frame.split_first_chunk::<HEADER_BYTES>().ok_or(FrameError::Truncated)?;
        let length = body_bytes(head, expected)?;
        match body.len().cmp(&length) {
            std::cmp::Ordering::Less => Err(FrameError::Truncated),
            std::cmp::Ordering::Greater => Err(FrameError::Trailing),
            std::cmp::Ordering::Equal => Ok(Self(body)),
        }
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (chunk, rest) = self.0.split_first_chunk::<N>().ok_or(FrameError::Truncated)?;
        self.0 = rest;
        Ok(*chunk)
    }

    fn u8(&mut self) -> Result<u8, FrameError> {
        self.chunk::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, FrameError> {
        self.chunk().map(u16::from_le_bytes)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], FrameError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(FrameError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn bytes(&mut self, what: &'static str, max: usize) -> Result<Vec<u8>, FrameError> {
        let length = usize::try_from(u32::from_le_bytes(self.chunk()?)).unwrap_or(usize::MAX);
        if length > max {
            return Err(FrameError::TooLong { what, max });
        }
        self.take(length).map(<[u8]>::to_vec)
    }

    fn string(&mut self, what: &'static str) -> Result<String, FrameError> {
        let length = usize::from(self.u16()?);
        if length > STRING_BYTES_MAX {
            return Err(FrameError::TooLong { what, max: STRING_BYTES_MAX });
        }
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| FrameError::NotUtf8(what))
    }

    fn end(&self) -> Result<(), FrameError> {
        if self.0.is_empty() { Ok(()) } else { Err(FrameError::Trailing) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            kind: "claude-code".into(),
            event: "PreToolUse".into(),
            arguments: vec!["--system".into(), "--deadline-ms".into(), "55000".into()],
            payload: b"{}".to_vec(),
        }
    }

    /// These bytes are the frozen format: when this test fails, the change is wrong, not the test.
    #[test]
    fn golden_request() {
        let mut golden = b"CRLH\x01\x01\0\0".to_vec();
        golden.extend_from_slice(&65u32.to_le_bytes());
        golden.extend_from_slice(
            b"\x0b\0claude-code\x0a\0PreToolUse\x03\0\x08\0--system\x0d\0--deadline-ms\x05\x0055000",
        );
        golden.extend_from_slice(b"\x02\0\0\0{}");
        assert_eq!(encode_request(&request()).unwrap(), golden);
        assert_eq!(decode_request(&golden).unwrap(), request());
        assert_eq!(read_request(&mut golden.as_slice()).unwrap(), request());
    }

    /// As above, for the other direction.
    #[test]
    fn golden_answer() {
        let answer = Answer { exit_code: 2, stdout: b"out".to_vec(), stderr: b"why".to_vec() };
        let golden = b"CRLH\x01\x02\0\0\x0f\0\0\0\x02\x03\0\0\0out\x03\0\0\0why".to_vec();
        assert_eq!(encode_answer(&answer).unwrap(), golden);
        assert_eq!(decode_answer(&golden).unwrap(), answer);
        assert_eq!(read_answer(&mut golden.as_slice()).unwrap(), answer);
    }

    #[test]
    fn every_prefix_and_every_flipped_byte_is_refused_or_decoded_without_panic() {
        let frame = encode_request(&request()).unwrap();
        for end in 0..frame.len() {
            assert_eq!(decode_request(&frame[..end]), Err(FrameError::Truncated));
            assert!(read_request(&mut &frame[..end]).is_err());
        }
        for at in 0..frame.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = frame.clone();
                changed[at] = value;
                let _ = decode_request(&changed);
                let _ = decode_answer(&changed);
            }
        }
        let mut longer = frame;
        longer.push(0);
        assert_eq!(decode_request(&longer), Err(FrameError::Trailing));
    }

    #[test]
    fn bounds_hold_in_both_directions() {
        let mut big = request();
        big.payload = vec![b' '; PAYLOAD_BYTES_MAX];
        let frame = encode_request(&big).unwrap();
        assert_eq!(decode_request(&frame).unwrap().payload.len(), PAYLOAD_BYTES_MAX);
        big.payload.push(b' ');
        assert_eq!(encode_request(&big), Err(FrameError::TooLong { what: "payload", max: PAYLOAD_BYTES_MAX }));
        let mut long = request();
        long.event = "e".repeat(STRING_BYTES_MAX + 1);
        assert!(matches!(encode_request(&long), Err(FrameError::TooLong { what: "event", .. })));
        let mut many = request();
        many.arguments = vec![String::new(); ARGUMENTS_MAX + 1];
        assert!(matches!(encode_request(&many), Err(FrameError::TooLong { what: "arguments", .. })));
        let loud = Answer { exit_code: 0, stdout: vec![0; OUTPUT_BYTES_MAX + 1], stderr: Vec::new() };
        assert!(matches!(encode_answer(&loud), Err(FrameError::TooLong { what: "standard output", .. })));

        let mut huge = b"CRLH\x01\x01\0\0".to_vec();
        huge.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(decode_request(&huge), Err(FrameError::TooLong { .. })));
        assert_eq!(read_request(&mut huge.as_slice()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_foreign_frame_is_named() {
        let good = encode_request(&request()).unwrap();
        let with = |at: usize, value: u8| {
            let mut frame = good.clone();
            frame[at] = value;
            decode_request(&frame)
        };
        assert_eq!(with(0, b'X'), Err(FrameError::Magic));
        assert_eq!(with(4, 2), Err(FrameError::Version(2)));
        assert_eq!(with(5, 2), Err(FrameError::Type(2)));
        assert_eq!(with(6, 1), Err(FrameError::Reserved));
        assert_eq!(with(14, 0xff), Err(FrameError::NotUtf8("kind")));
    }

    #[test]
    fn flags_are_read_strictly() {
        assert_eq!(Flags::parse::<&str>(&[]), Ok(Flags::default()));
        assert_eq!(
            Flags::parse(&["--system", "--deadline-ms", "900", "--socket", "/x/hook.sock"]),
            Ok(Flags { system: true, deadline_ms: 900, socket: Some("/x/hook.sock".into()) })
        );
        assert_eq!(Flags::parse(&["--deadline-ms"]), Err("--deadline-ms"));
        assert_eq!(Flags::parse(&["--deadline-ms", "soon"]), Err("--deadline-ms"));
        assert_eq!(Flags::parse(&["--socket", "relative"]), Err("--socket"));
        assert_eq!(Flags::parse(&["--allow"]), Err("--allow"));
    }
}
