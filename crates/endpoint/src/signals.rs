//! Signals that ask the daemon to stop, taken by one thread.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};

use crate::daemon::Stop;

/// Turns SIGINT, SIGTERM and SIGHUP into a clean stop. Must be called before any other thread starts, because the
/// signals are blocked in all of them.
///
/// # Errors
/// The system refuses to block signals.
pub fn stop_on_signal(stop: &Arc<Stop>) -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().context("signals cannot be blocked")?;
    let stop = Arc::clone(stop);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if let Ok(signal) = signals.wait() {
                stop.ask(signal.as_str());
            }
        })
        .context("a thread cannot be started")?;
    Ok(())
}
