//! Why a command ends without having done what it was asked, as one line and one hint.
//!
//! The one thing a newcomer gets wrong: a closed pipe is not a failure. `creel log | head` ends quietly.

use std::io::ErrorKind;

/// How a command ends: the program's exit code, or why not.
pub(crate) type Outcome = Result<Exit, Failure>;

/// Exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done (0).
    Good,
    /// Done, and the answer is no: a test failed, a record is broken, a hook is not effective (1).
    No,
}

/// Why a command could not do its work (exit code 2).
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody reads the output any more.
    ClosedPipe,
    /// A sentence and what to do about it.
    Said {
        /// Lower case, no final dot.
        message: String,
        /// May be empty.
        hint: String,
    },
}

impl Failure {
    /// With a message and no hint.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Failure::Said { message: message.into(), hint: String::new() }
    }

    /// With what to do about it.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        match self {
            Failure::Said { message, .. } => Failure::Said { message, hint: hint.into() },
            Failure::ClosedPipe => Failure::ClosedPipe,
        }
    }

    /// About a file.
    pub(crate) fn file(doing: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Failure::new(format!("cannot {doing} `{}`: {error}", crate::text::clean(&path.display().to_string())))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == ErrorKind::BrokenPipe { Failure::ClosedPipe } else { Failure::new(error.to_string()) }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        if error.io_error_kind() == Some(ErrorKind::BrokenPipe) {
            Failure::ClosedPipe
        } else {
            Failure::new(error.to_string())
        }
    }
}
