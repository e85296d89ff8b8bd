//! Turns content into effects, classes and findings: shell text into what it would do to which object, and any text
//! into what stands in it (secrets, keys).
//!
//! It never runs, opens or resolves anything: no files, sockets, clock or environment. What a newcomer gets wrong: an
//! empty result is not a promise. [`Understood::parsed`] and [`Understood::opaque`] say whether the text was
//! understood at all, and a caller that allows must look at both.

mod bounds;
mod code;
pub mod detect;
mod knowledge;
mod path;
mod paths;
mod redact;
mod shell;
mod sql;
mod suspicion;
mod understood;
mod windows;

pub use path::{Place, normalise};
pub use redact::{Redacted, redact};
pub use shell::{command, guess_shell, text_commands};
pub use suspicion::suspicion;
pub use understood::{Shell, SimpleCommand, Understood};

use creel_model::{ContentRole, Finding};

/// Looks for detectors' findings in a text; spans are byte ranges of `text`. Linear in the text's length.
#[must_use]
pub fn content(text: &str, role: ContentRole) -> Vec<Finding> {
    detect::scan(text, role)
}

/// A short version of all built-in data (commands, code tables, detectors): it changes whenever any of them does.
#[must_use]
pub fn data_version() -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for text in knowledge::SOURCES.iter().chain(detect::SOURCES).chain([&code::SOURCE, &windows::SOURCE]) {
        for byte in text.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    format!("1.{hash:016x}")
}
