//! Saying that a test could not run here: loudly, and as a failure where CI is set.

use std::io::Write;

/// Says that a test is skipped, and why.
///
/// # Panics
///
/// Panics where `CI` is set: there, a test that did not run is a failure.
#[expect(clippy::panic, reason = "a skipped test must fail where CI is set")]
pub fn skip(why: &str) {
    if std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false" && value != "0") {
        panic!("skipped, and CI is set: {why}");
    }
    // Past the test harness's capture, which would hide the words of a test that passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
