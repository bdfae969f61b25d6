//! What the receiver keeps of what arrives: how many, when, and how late.
//!
//! Owned by the slot that receives, which writes it down when it is closed; the histograms of several are merged then. Always:
//! a record counts as measured if it was due after the warm-up; of those, one in `every` has its latency taken, with a clock
//! that is read for it alone.

use std::error::Error;
use std::path::Path;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::meter;

/// The least latency told apart, nanoseconds.
const LEAST_NS: u64 = 1_000;
/// The greatest; what is longer counts as this.
const MOST_NS: u64 = 60_000_000_000;
/// Significant digits.
const DIGITS: u8 = 3;

/// The host's monotonic clock, the same in all its processes, nanoseconds.
#[inline]
pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// An empty histogram of nanoseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LEAST_NS, MOST_NS, DIGITS).expect("invariant: the bounds are legal")
}

/// Counts of one receiver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Records, warm-up included.
    pub records: u64,
    /// Their numbers added up, modulo 2^64.
    pub sum: u64,
    /// Records that were due after the warm-up.
    pub measured: u64,
    /// When the first of these was due.
    pub first_due_ns: u64,
    /// When the last one of which the latency was taken arrived.
    pub last_arrival_ns: u64,
}

/// One receiver's.
#[derive(Debug, Clone)]
pub struct Arrivals {
    counts: Counts,
    warm_up_ns: u64,
    /// When the warm-up is over; known from the first record on.
    warm_ns: Option<u64>,
    every: u64,
    until_next: u64,
    latency: Histogram<u64>,
}

impl Arrivals {
    /// Takes the latency of one record in `every`.
    pub fn new(warm_up_ns: u64, every: u64) -> Self {
        let (counts, latency) = (Counts::default(), histogram());
        Self { counts, warm_up_ns, warm_ns: None, every: every.max(1), until_next: 0, latency }
    }

    /// Record `number`, due at `due_ns`, is here.
    #[inline]
    pub fn take(&mut self, number: u64, due_ns: u64) {
        self.counts.records += 1;
        self.counts.sum = self.counts.sum.wrapping_add(number);
        let warm_ns = *self.warm_ns.get_or_insert(due_ns + self.warm_up_ns);
        if due_ns < warm_ns {
            return;
        }
        if self.counts.measured == 0 {
            self.counts.first_due_ns = due_ns;
        }
        self.counts.measured += 1;
        if self.until_next == 0 {
            self.until_next = self.every;
            let now_ns = now_ns();
            self.counts.last_arrival_ns = now_ns;
            self.latency.saturating_record(now_ns.saturating_sub(due_ns));
        }
        self.until_next -= 1;
    }

    /// What was counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The latencies, nanoseconds.
    pub fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    /// Leaves both as files of `dir`, named by `name`.
    pub fn write(&self, dir: &Path, name: &str) {
        meter::write(&dir.join(format!("{name}.json")), &self.counts);
        let mut bytes = Vec::new();
        let written = V2Serializer::new().serialize(&self.latency, &mut bytes).map_err(|e| e.to_string());
        let path = dir.join(format!("{name}.hdr"));
        if let Err(error) = written.and_then(|_| std::fs::write(&path, bytes).map_err(|e| e.to_string())) {
            eprintln!("error: can't write {}: {error}", path.display());
        }
    }
}

/// Finds what a receiver left.
///
/// # Errors
/// It is missing or garbled.
pub fn read(dir: &Path, name: &str) -> Result<(Counts, Histogram<u64>), Box<dyn Error>> {
    let counts = meter::read(&dir.join(format!("{name}.json")))?;
    let bytes = std::fs::read(dir.join(format!("{name}.hdr")))?;
    let latency = Deserializer::new().deserialize(&mut bytes.as_slice());
    Ok((counts, latency.map_err(|error| format!("a histogram is garbled: {error}"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warm_up_counts_but_is_not_measured() {
        let start = now_ns();
        let mut arrivals = Arrivals::new(1_000, 3);
        (0..10).for_each(|number| arrivals.take(number, start + 200 * number));
        let Counts { records, sum, measured, first_due_ns, last_arrival_ns } = arrivals.counts();
        assert_eq!((records, sum, measured, first_due_ns), (10, 45, 5, start + 1_000));
        assert!(last_arrival_ns >= start);
        assert_eq!(arrivals.latency().len(), 2, "one in three of five");
    }

    #[test]
    fn what_was_left_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut arrivals = Arrivals::new(0, 1);
        arrivals.take(7, now_ns() - 5_000_000);
        arrivals.write(dir.path(), "a");
        let (counts, mut latency) = read(dir.path(), "a").unwrap();
        assert_eq!(counts, arrivals.counts());
        assert_eq!(&latency, arrivals.latency());
        assert!(latency.max() >= 5_000_000);
        latency.add(arrivals.latency()).unwrap();
        assert_eq!(latency.len(), 2);
        assert!(read(dir.path(), "b").is_err());
    }
}
