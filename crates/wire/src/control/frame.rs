//! Values ↔ frames on a byte stream: a big-endian `u32` length, then that many bytes of JSON.
//!
//! A reader never allocates more than what arrives, and at most [`FRAME_BYTES_MAX`].

use std::io::{Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest body of a frame, in bytes (1 MiB), in both directions.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Why a frame could not be read or written.
#[derive(Debug)]
pub enum FrameError {
    /// The body would be, or claims to be, larger than [`FRAME_BYTES_MAX`].
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
    },
    /// The stream ended inside a frame.
    Torn,
    /// The body is not the expected JSON.
    Malformed {
        /// What the parser said.
        message: String,
    },
    /// The stream failed.
    Io(std::io::Error),
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FrameError::TooLarge { bytes } => write!(f, "a frame of {bytes} bytes, at most {FRAME_BYTES_MAX} allowed"),
            FrameError::Torn => f.write_str("the connection ended inside a message"),
            FrameError::Malformed { message } => write!(f, "a message that is not understood: {message}"),
            FrameError::Io(error) => write!(f, "the connection failed: {error}"),
        }
    }
}

impl std::error::Error for FrameError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FrameError::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// Writes one frame with a single `write_all`, and flushes.
///
/// # Errors
/// [`FrameError::TooLarge`] before anything is written; [`FrameError::Io`] when the stream fails.
pub fn write_frame<T: Serialize + ?Sized>(out: &mut dyn Write, value: &T) -> Result<(), FrameError> {
    let mut bytes = vec![0_u8; 4];
    serde_json::to_writer(&mut bytes, value).map_err(|e| FrameError::Malformed { message: e.to_string() })?;
    let body = bytes.len() - 4;
    let length = match u32::try_from(body) {
        Ok(length) if body <= FRAME_BYTES_MAX => length,
        _ => return Err(FrameError::TooLarge { bytes: body }),
    };
    for (slot, byte) in bytes.iter_mut().zip(length.to_be_bytes()) {
        *slot = byte;
    }
    out.write_all(&bytes).and_then(|()| out.flush()).map_err(FrameError::Io)
}

/// Reads one frame; `None` when the stream ended before its first byte.
///
/// # Errors
/// Every variant of [`FrameError`]; after any of them the stream is of no further use.
pub fn read_frame<T: DeserializeOwned>(input: &mut dyn Read) -> Result<Option<T>, FrameError> {
    let mut head = Vec::with_capacity(4);
    input.take(4).read_to_end(&mut head).map_err(FrameError::Io)?;
    let head = match <[u8; 4]>::try_from(head.as_slice()) {
        Ok(head) => head,
        Err(_) if head.is_empty() => return Ok(None),
        Err(_) => return Err(FrameError::Torn),
    };
    let length = u32::from_be_bytes(head);
    let bytes = usize::try_from(length).unwrap_or(usize::MAX);
    if bytes > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge { bytes });
    }
    let mut body = Vec::new();
    input.take(u64::from(length)).read_to_end(&mut body).map_err(FrameError::Io)?;
    if body.len() < bytes {
        return Err(FrameError::Torn);
    }
    serde_json::from_slice(&body).map(Some).map_err(|e| FrameError::Malformed { message: e.to_string() })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::control::{Answer, Request};

    #[test]
    fn several_frames_follow_each_other_and_the_end_is_clean() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &Request::Status).unwrap();
        write_frame(&mut bytes, &Request::Watch).unwrap();
        let mut input = Cursor::new(bytes);
        assert_eq!(read_frame::<Request>(&mut input).unwrap(), Some(Request::Status));
        assert_eq!(read_frame::<Request>(&mut input).unwrap(), Some(Request::Watch));
        assert_eq!(read_frame::<Request>(&mut input).unwrap(), None);
    }

    #[test]
    fn every_cut_inside_a_frame_is_torn() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &Answer::Erased { details: 7 }).unwrap();
        for cut in 1..bytes.len() {
            let result = read_frame::<Answer>(&mut Cursor::new(&bytes[..cut]));
            assert!(matches!(result, Err(FrameError::Torn)), "cut at {cut}: {result:?}");
        }
    }

    #[test]
    fn a_claim_above_the_bound_is_refused_before_its_body_is_read() {
        let claim = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_be_bytes();
        let result = read_frame::<Request>(&mut Cursor::new(claim));
        assert!(matches!(result, Err(FrameError::TooLarge { bytes }) if bytes == FRAME_BYTES_MAX + 1));
    }

    #[test]
    fn a_value_above_the_bound_writes_nothing() {
        let fits = "x".repeat(FRAME_BYTES_MAX - 2);
        let mut out = Vec::new();
        write_frame(&mut out, &fits).unwrap();
        assert_eq!(out.len(), FRAME_BYTES_MAX + 4);
        assert_eq!(read_frame::<String>(&mut Cursor::new(&out)).unwrap(), Some(fits));
        out.clear();
        let result = write_frame(&mut out, &"x".repeat(FRAME_BYTES_MAX - 1));
        assert!(matches!(result, Err(FrameError::TooLarge { .. })));
        assert!(out.is_empty());
    }

    #[test]
    fn a_body_that_is_not_the_expected_json_is_malformed() {
        for body in [&b"{\"request\":\"no-such\"}"[..], b"[]", b"{", b"\xff\xfe", b""] {
            let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
            bytes.extend_from_slice(body);
            let result = read_frame::<Request>(&mut Cursor::new(bytes));
            assert!(matches!(result, Err(FrameError::Malformed { .. })), "{body:?}: {result:?}");
        }
    }
}
