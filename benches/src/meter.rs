//! The two ends of a benchmark measure themselves and leave what they found in files of the benchmark's directory.
//!
//! A [`Meter`] owns one end's count. It measures from the end of the warm-up to the last record, whatever happens before
//! and after.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidegate_memory::this_thread;

/// What the sending end found.
pub const SOURCE_FILE: &str = "source.json";
/// What the receiving end found.
pub const SUM_FILE: &str = "sum.json";
/// What came out of the sum.
pub const TOTALS_FILE: &str = "totals.json";

/// What one end found.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Side {
    /// Records after the warm-up.
    pub records: u64,
    /// Seconds from the end of the warm-up to the last record.
    pub seconds: f64,
    /// Heap allocations of the end's thread in that time.
    pub heap_allocations: u64,
}

/// What came out of the sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Keys with a sum, or records that were summed.
    pub results: u64,
    /// All of them added up, modulo 2^64.
    pub checksum: u64,
}

/// Measures one end. The warm-up has at least one record, so does what is measured.
#[derive(Clone, Debug)]
pub struct Meter {
    path: PathBuf,
    last: u64,
    seen: u64,
    /// Where something happens next: the end of the warm-up, then the last record.
    edge: u64,
    start: Option<Start>,
}

#[derive(Clone, Copy, Debug)]
struct Start {
    seen: u64,
    time: Instant,
    allocations: u64,
}

impl Meter {
    /// Measures `records` records after `warm_up` others, and writes the result to `path`.
    pub fn new(path: PathBuf, warm_up: u64, records: u64) -> Self {
        Self { path, last: warm_up + records, seen: 0, edge: warm_up, start: None }
    }

    /// Records seen so far.
    #[inline]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Records that are still to come.
    #[inline]
    pub fn left(&self) -> u64 {
        self.last - self.seen
    }

    /// Counts some records. Those that come together with the last of the warm-up belong to it.
    #[inline]
    pub fn count(&mut self, records: u64) {
        self.seen += records;
        if self.seen >= self.edge {
            self.at_edge();
        }
    }

    #[cold]
    fn at_edge(&mut self) {
        let allocations = this_thread().allocations;
        match self.start {
            None => {
                self.start = Some(Start { seen: self.seen, time: Instant::now(), allocations });
                self.edge = self.last;
            }
            Some(start) => {
                let side = Side {
                    records: self.seen - start.seen,
                    seconds: start.time.elapsed().as_secs_f64(),
                    heap_allocations: allocations - start.allocations,
                };
                self.edge = u64::MAX;
                write(&self.path, &side);
            }
        }
    }
}

/// Leaves a result; if that fails the benchmark misses it and says so.
pub fn write<T: Serialize>(path: &Path, value: &T) {
    if let Ok(text) = serde_json::to_vec(value)
        && let Err(error) = std::fs::write(path, text)
    {
        eprintln!("error: can't write {}: {error}", path.display());
    }
}

/// Finds a result.
///
/// # Errors
/// It is missing or garbled.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Box<dyn Error>> {
    let text =
        std::fs::read(path).map_err(|error| format!("a result is missing ({}): {error}", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warm_up_is_not_measured() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SOURCE_FILE);
        let mut meter = Meter::new(path.clone(), 10, 20);
        (0..9).for_each(|_| meter.count(1));
        assert!(meter.start.is_none());
        meter.count(4); // a frame across the edge
        assert_eq!(meter.left(), 17);
        assert!(!path.exists());
        meter.count(17);
        assert_eq!(read::<Side>(&path).unwrap().records, 17);
    }
}
