//! A value ↔ one frame on a stream: length in bytes as 4 bytes little-endian, then JSON.

use std::io::{ErrorKind, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest frame in bytes; a larger one ends the connection.
pub const FRAME_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Why a frame could not be sent or received.
#[derive(Debug)]
pub enum FrameError {
    /// The other side closed the connection.
    Ended,
    /// The frame is larger than [`FRAME_BYTES_MAX`]: its size.
    TooLarge(usize),
    /// It is not what was expected.
    Malformed(String),
    /// The connection failed.
    Io(std::io::Error),
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ended => f.write_str("the root role closed the connection"),
            Self::TooLarge(size) => write!(f, "a frame of {size} bytes, more than {FRAME_BYTES_MAX}"),
            Self::Malformed(why) => write!(f, "a malformed frame: {why}"),
            Self::Io(error) => write!(f, "the connection failed: {error}"),
        }
    }
}

impl std::error::Error for FrameError {}

impl From<std::io::Error> for FrameError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

pub(super) fn send(stream: &mut impl Write, value: &impl Serialize) -> Result<(), FrameError> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, value).map_err(|error| FrameError::Malformed(error.to_string()))?;
    let size = bytes.len() - 4;
    let length = u32::try_from(size).ok().filter(|_| size <= FRAME_BYTES_MAX).ok_or(FrameError::TooLarge(size))?;
    for (place, byte) in bytes.iter_mut().zip(length.to_le_bytes()) {
        *place = byte;
    }
    stream.write_all(&bytes)?;
    Ok(stream.flush()?)
}

/// The next value; `None` where the other side closed the connection between frames.
pub(super) fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> Result<Option<T>, FrameError> {
    let mut length = [0; 4];
    let mut first = 0;
    while first == 0 {
        match stream.read(&mut length) {
            Ok(0) => return Ok(None),
            Ok(read) => first = read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    stream.read_exact(length.get_mut(first..).unwrap_or_default())?;
    let size = u32::from_le_bytes(length) as usize;
    if size > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge(size));
    }
    // Grows with what arrives, so that a length alone takes no memory.
    let mut bytes = Vec::new();
    let read = stream.take(size as u64).read_to_end(&mut bytes)?;
    if read != size {
        return Err(FrameError::Ended);
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|error| FrameError::Malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let mut bytes = Vec::new();
        send(&mut bytes, &"héllo").unwrap();
        send(&mut bytes, &"b").unwrap();
        let mut stream = bytes.as_slice();
        assert_eq!(receive::<String>(&mut stream).unwrap().as_deref(), Some("héllo"));
        assert_eq!(receive::<String>(&mut stream).unwrap().as_deref(), Some("b"));
        assert!(receive::<String>(&mut stream).unwrap().is_none());
        assert!(receive::<String>(&mut [1_u8, 0].as_slice()).is_err());
        assert!(matches!(receive::<String>(&mut [9_u8, 0, 0, 0, b'"'].as_slice()), Err(FrameError::Ended)));
        assert!(matches!(receive::<String>(&mut [255_u8; 4].as_slice()), Err(FrameError::TooLarge(_))));
        assert!(matches!(receive::<String>(&mut [1_u8, 0, 0, 0, b'x'].as_slice()), Err(FrameError::Malformed(_))));
    }
}
