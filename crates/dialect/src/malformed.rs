//! Why a payload is not an action.

/// Why a payload is refused; the daemon answers each with the agent's own deny form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Longer than [`crate::PAYLOAD_BYTES_MAX`].
    TooLarge {
        /// Its length in bytes.
        bytes: usize,
    },
    /// Not UTF-8, from this byte on.
    NotUtf8 {
        /// Offset in bytes.
        at: usize,
    },
    /// Not one JSON value: truncated, garbled, or nested deeper than 128.
    NotJson {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// A key stands twice in one object: two readers would see two different calls.
    DuplicateKey {
        /// The key, cut at 64 bytes.
        key: String,
    },
    /// No dialect for this kind.
    UnknownKind {
        /// The kind.
        kind: String,
    },
    /// The kind has no such event.
    UnknownEvent {
        /// The event.
        event: String,
    },
    /// The payload names another event than the hook was installed for.
    WrongEvent {
        /// What the payload says.
        found: String,
    },
    /// The payload is another agent's.
    OtherAgent {
        /// Whose it looks like.
        looks_like: &'static str,
    },
    /// A key that this event always has is missing.
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A value has another type than expected.
    WrongType {
        /// The key.
        key: &'static str,
        /// What was expected.
        expected: &'static str,
    },
    /// A name or id is longer than its bound.
    TooLong {
        /// The key.
        key: &'static str,
        /// The bound in bytes.
        max: usize,
    },
    /// The working directory is not absolute.
    RelativeCwd,
    /// More texts than are looked at.
    TooManyTexts {
        /// The bound.
        max: usize,
    },
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooLarge { bytes } => {
                write!(f, "payload of {bytes} bytes, expected at most {}", crate::PAYLOAD_BYTES_MAX)
            }
            Self::NotUtf8 { at } => write!(f, "payload is not UTF-8 at byte {at}"),
            Self::NotJson { line, column } => write!(f, "payload is not JSON at line {line}, column {column}"),
            Self::DuplicateKey { key } => write!(f, "key `{key}` stands twice in one object"),
            Self::UnknownKind { kind } => write!(f, "no dialect for agent kind `{kind}`"),
            Self::UnknownEvent { event } => write!(f, "unknown event `{event}`"),
            Self::WrongEvent { found } => write!(f, "the payload is of event `{found}`"),
            Self::OtherAgent { looks_like } => write!(f, "the payload looks like one of {looks_like}"),
            Self::Missing { key } => write!(f, "`{key}` is missing"),
            Self::WrongType { key, expected } => write!(f, "`{key}` is not {expected}"),
            Self::TooLong { key, max } => write!(f, "`{key}` is longer than {max} bytes"),
            Self::RelativeCwd => f.write_str("`cwd` is not an absolute path"),
            Self::TooManyTexts { max } => write!(f, "more than {max} texts in one payload"),
        }
    }
}

impl std::error::Error for Malformed {}
