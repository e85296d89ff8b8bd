//! Times as people write and read them: `2h`, `2026-11-21`, `today` → nanoseconds; nanoseconds → clock and age.
//!
//! Everything is UTC and says so with a `Z`: records of one machine are read on others.

use std::time::{SystemTime, UNIX_EPOCH};

use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime, Time};

const SECOND: i64 = 1_000_000_000;

/// Now, in nanoseconds since 1970.
pub(crate) fn now_unix_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A point in time from what a person typed.
pub(crate) fn parse(text: &str, now_unix_ns: i64) -> Result<i64, String> {
    let text = text.trim();
    let wrong = || format!("`{text}` is not a time: expected `30m`, `2h`, `7d`, `today`, `2026-11-21` or RFC 3339");
    if text == "today" {
        return Ok(now_unix_ns - now_unix_ns.rem_euclid(86_400 * SECOND));
    }
    if let Some(seconds) = duration_seconds(text) {
        return Ok(now_unix_ns.saturating_sub(seconds.saturating_mul(SECOND)));
    }
    let nanoseconds = |time: OffsetDateTime| i64::try_from(time.unix_timestamp_nanos()).map_err(|_| wrong());
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return nanoseconds(time);
    }
    match Date::parse(text, format_description!("[year]-[month]-[day]")) {
        Ok(date) => nanoseconds(date.with_time(Time::MIDNIGHT).assume_utc()),
        Err(_) => Err(wrong()),
    }
}

fn duration_seconds(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    number.parse::<u32>().ok().map(|n| i64::from(n) * factor)
}

fn utc(unix_ns: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ns)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// `2026-11-21 19:28:09Z`.
pub(crate) fn date_time(unix_ns: i64) -> String {
    utc(unix_ns).format(format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z")).unwrap_or_default()
}

/// `19:28:09Z`.
pub(crate) fn clock(unix_ns: i64) -> String {
    utc(unix_ns).format(format_description!("[hour]:[minute]:[second]Z")).unwrap_or_default()
}

/// A length of time in words: `12 s`, `3 min`, `5 h`, `2 d`.
pub(crate) fn span(nanoseconds: i64) -> String {
    let seconds = nanoseconds.max(0) / SECOND;
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5_999 => format!("{} min", seconds / 60),
        6_000..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A short length of time: `740 ns`, `85 µs`, `1.2 ms`, `3.4 s`.
pub(crate) fn short(nanoseconds: u64) -> String {
    match nanoseconds {
        0..=999 => format!("{nanoseconds} ns"),
        1_000..=999_999 => format!("{} µs", nanoseconds / 1_000),
        1_000_000..=999_999_999 => format!("{}.{} ms", nanoseconds / 1_000_000, nanoseconds / 100_000 % 10),
        _ => format!("{}.{} s", nanoseconds / 1_000_000_000, nanoseconds / 100_000_000 % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_289_289 * SECOND; // 2026-11-21 19:28:09Z

    #[test]
    fn what_people_type() {
        assert_eq!(date_time(NOW), "2026-11-21 19:28:09Z");
        for (text, expected) in [
            ("30s", "2026-11-21 19:27:39Z"),
            ("2h", "2026-11-21 17:28:09Z"),
            ("7d", "2026-11-14 19:28:09Z"),
            ("today", "2026-11-21 00:00:00Z"),
            ("2026-11-20", "2026-11-20 00:00:00Z"),
            ("2026-11-20T10:00:00+02:00", "2026-11-20 08:00:00Z"),
        ] {
            assert_eq!(parse(text, NOW).map(date_time).as_deref(), Ok(expected), "{text}");
        }
        for text in ["", "h", "yesterday", "-2h", "2026-13-01", "99999999999d", "é"] {
            assert!(parse(text, NOW).is_err(), "{text}");
        }
    }

    #[test]
    fn lengths_of_time() {
        assert_eq!(span(12 * SECOND), "12 s");
        assert_eq!(span(7_200 * SECOND), "2 h");
        assert_eq!(span(-5), "0 s");
        assert_eq!(short(85_400), "85 µs");
        assert_eq!(short(1_260_000), "1.2 ms");
    }
}
