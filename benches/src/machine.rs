//! What is said about the machine beside the figures, and what the kernel says about a process.

use std::collections::BTreeMap;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Failure;

/// The kernel counts processor time for programs in hundredths of a second, on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// Date, processor, cores, kernel, load.
pub(crate) fn describe() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let days = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
    format!(
        "{} · {} · {cores} cores · Linux {} · {}",
        date(i64::try_from(days).unwrap_or(0)),
        model.unwrap_or("unknown processor"),
        kernel.trim(),
        load()
    )
}

/// The load averages.
pub(crate) fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("load {}", load.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}

/// The civil date (UTC) of a day since 1970, by counting years that begin in March.
fn date(days: i64) -> String {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Processor time of a process so far, all threads, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64, Failure> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(") ").ok_or("stat")?.1.split(' ').collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
    Ok((ticks(11).ok_or("stat")? + ticks(12).ok_or("stat")?) / TICKS_PER_SECOND)
}

/// A line of a process's status that is in kB, in MB: `VmRSS`, `VmHWM`.
pub(crate) fn memory_mb(pid: u32, line: &str) -> Result<f64, Failure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let found = status.lines().find_map(|row| row.strip_prefix(line)?.strip_prefix(':'));
    let kb: f64 = found.and_then(|row| row.split_whitespace().next()?.parse().ok()).ok_or("status")?;
    Ok(kb * 1024.0 / 1e6)
}

/// Memory of a process in kB, what it shares divided by those that share it; only its account and root may know.
pub(crate) fn pss_kb(pid: u32) -> Result<u64, Failure> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let found = text.lines().find_map(|row| row.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok());
    found.ok_or_else(|| "smaps_rollup".into())
}

/// All processes with their parents.
pub(crate) fn processes() -> Result<BTreeMap<u32, u32>, Failure> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let pids = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    Ok(pids.filter_map(|pid| Some((pid, parent(pid)?))).collect())
}

/// Whether a process is one of these or below one of them.
pub(crate) fn is_below(pid: u32, above: &[u32], processes: &BTreeMap<u32, u32>) -> bool {
    let mut at = Some(pid);
    // Deeper than any real tree: a list that changed while it was read may have a ring.
    for _ in 0..64 {
        match at {
            Some(pid) if above.contains(&pid) => return true,
            Some(pid) => at = processes.get(&pid).copied(),
            None => return false,
        }
    }
    false
}

/// The name of a process's program; `None` where it may not be seen.
pub(crate) fn program(pid: u32) -> Option<String> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(path.file_name()?.to_string_lossy().into_owned())
}
