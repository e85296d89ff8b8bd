//! Waiting for something to become true, with an end. No test sleeps for a fixed time and hopes.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long a step of a test may wait before it is a failure. Generous: it costs nothing when all is well, and a
/// loaded machine is not a fault.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline this many seconds from now.
    #[must_use]
    pub fn seconds(seconds: u64) -> Self {
        Self(Instant::now() + Duration::from_secs(seconds))
    }

    /// What is left.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.left().is_zero()
    }
}

/// Looks again and again until there is something to see.
///
/// # Errors
///
/// The deadline passed; the message says what was awaited.
pub fn until<T>(what: &str, deadline: Deadline, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    loop {
        if let Some(seen) = look() {
            return Ok(seen);
        }
        if deadline.passed() {
            bail!("waited in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
