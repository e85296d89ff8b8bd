//! Time and randomness from the machine, as the values that the hearts take as arguments.

use creel_model::Moment;

/// Now, by both clocks.
#[must_use]
pub fn now() -> Moment {
    let wall = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Moment { unix_ns: nanoseconds(&wall), boot_ns: u64::try_from(nanoseconds(&boot)).unwrap_or(0) }
}

/// Processor time of the calling thread in nanoseconds: what a decision cost, whatever else the machine does.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    u64::try_from(nanoseconds(&rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime))).unwrap_or(u64::MAX)
}

/// Sixteen random bytes for an id.
///
/// # Errors
/// The kernel has no randomness, which stops whatever needed it.
pub fn random16() -> Result<[u8; 16], getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Which boot of the machine this is, from the kernel; `unknown` where it does not tell.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn nanoseconds(time: &rustix::time::Timespec) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}
