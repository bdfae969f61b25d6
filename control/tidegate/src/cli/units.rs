//! Times and sizes as users write them, the way Flink's configuration does. Stateless.
//!
//! Always true: a text without a unit is milliseconds (times) or bytes (sizes), as it is for Flink; what is out of range
//! is an error, never clamped.

use std::time::Duration;

use tidegate_memory::MemorySize;
use tidegate_memory::limits::NATIVE_RECORD_BYTES_MAX;

use crate::limits::{CHECKPOINT_INTERVAL_MAX, CHECKPOINT_INTERVAL_MIN};

/// Names of each unit and its length in nanoseconds.
const UNITS: [(&[&str], u64); 7] = [
    (&["d", "day", "days"], 86_400_000_000_000),
    (&["h", "hour", "hours"], 3_600_000_000_000),
    (&["m", "min", "minute", "minutes"], 60_000_000_000),
    (&["s", "sec", "secs", "second", "seconds"], 1_000_000_000),
    (&["ms", "milli", "millis", "millisecond", "milliseconds"], 1_000_000),
    (&["us", "\u{b5}s", "micro", "micros", "microsecond", "microseconds"], 1_000),
    (&["ns", "nano", "nanos", "nanosecond", "nanoseconds"], 1),
];

/// A time: a whole number and a unit, such as `500ms`, `1 s` or `2 min`.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(tidegate::cli::units::time("1 min"), Ok(Duration::from_secs(60)));
/// assert_eq!(tidegate::cli::units::time("250"), Ok(Duration::from_millis(250)));
/// assert!(tidegate::cli::units::time("soon").is_err());
/// ```
///
/// # Errors
/// A sentence that says what was expected.
pub fn time(text: &str) -> Result<Duration, String> {
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = trimmed.split_at(digits);
    let unit = unit.trim_start().to_lowercase();
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{text}` does not start with a whole number; write a time such as 500ms"))?;
    let known = UNITS.iter().find(|(names, _)| names.contains(&unit.as_str()));
    let nanoseconds = match known {
        Some((_, nanoseconds)) => *nanoseconds,
        None if unit.is_empty() => 1_000_000,
        None => return Err(format!("`{unit}` is no unit of time; there are d, h, min, s, ms, us, ns")),
    };
    let total = number.checked_mul(nanoseconds);
    total.map(Duration::from_nanos).ok_or_else(|| format!("`{text}` is longer than 500 years"))
}

/// A checkpoint interval.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let interval = time(text)?;
    if (CHECKPOINT_INTERVAL_MIN..=CHECKPOINT_INTERVAL_MAX).contains(&interval) {
        Ok(interval)
    } else {
        Err(format!(
            "checkpoint intervals go from {CHECKPOINT_INTERVAL_MIN:?} to one day, found {interval:?}"
        ))
    }
}

/// An address whose host may be a name; what the name stands for is asked at every dial.
pub(crate) fn host_port(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let literal = text.parse::<std::net::SocketAddr>().is_ok(); // Such as [::1]:6123.
    if !host.is_empty() && (plain || literal) && port.parse::<u16>().is_ok_and(|port| port > 0) {
        Ok(text.to_owned())
    } else {
        Err("expected HOST:PORT, such as 127.0.0.1:6123, jobmanager.example:6123 or [::1]:6123".to_owned())
    }
}

/// A segment size in bytes.
pub(crate) fn segment_size(text: &str) -> Result<u32, String> {
    let size: MemorySize = text.parse().map_err(|error| format!("{error}"))?;
    let bytes = u32::try_from(size.bytes()).unwrap_or(u32::MAX);
    let valid = tidegate_taskmanager::SegmentSize::new(bytes);
    valid.map(|_| bytes).map_err(|error| error.to_string())
}

/// The size of the largest record, in bytes.
pub(crate) fn record_size(text: &str) -> Result<u32, String> {
    let size: MemorySize = text.parse().map_err(|error| format!("{error}"))?;
    match u32::try_from(size.bytes()) {
        Ok(bytes) if size.bytes() <= NATIVE_RECORD_BYTES_MAX => Ok(bytes),
        _ => Err(format!("at most {NATIVE_RECORD_BYTES_MAX} bytes allowed, found {}", size.bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_every_unit() {
        for (text, nanoseconds) in [
            ("1d", 86_400_000_000_000),
            ("2 hours", 7_200_000_000_000),
            ("3 min", 180_000_000_000),
            ("4m", 240_000_000_000),
            ("5 S", 5_000_000_000),
            (" 6ms ", 6_000_000),
            ("7us", 7_000),
            ("8 ns", 8),
            ("9", 9_000_000),
        ] {
            assert_eq!(time(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
        for text in ["", "s", "-1s", "1.5s", "1 fortnight", "99999999999999999999s", "999999999999d"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for text in ["127.0.0.1:6123", "localhost:1", "jm-0.jm_svc.example:65535", "[::1]:6123"] {
            assert_eq!(host_port(text).as_deref(), Ok(text));
        }
        for text in
            ["", ":", "foo", "foo:", ":6123", "foo:0", "foo:65536", "::1:6123", "http://foo:6123", "a b:1"]
        {
            assert!(host_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn intervals_have_bounds() {
        assert!(interval("1ms").is_err());
        assert!(interval("2d").is_err());
        assert_eq!(interval("200ms"), Ok(Duration::from_millis(200)));
    }

    #[test]
    fn segment_sizes_are_powers_of_two() {
        assert_eq!(segment_size("32k"), Ok(32768));
        assert_eq!(segment_size("4kb"), Ok(4096));
        assert!(segment_size("33k").is_err());
        assert!(segment_size("2k").is_err());
        assert!(segment_size("8g").is_err());
    }

    #[test]
    fn record_sizes_are_bounded() {
        assert_eq!(record_size("16m"), Ok(16 << 20));
        assert_eq!(record_size("0b"), Ok(0));
        assert!(record_size("17m").is_err());
        assert!(record_size("8g").is_err());
    }
}
