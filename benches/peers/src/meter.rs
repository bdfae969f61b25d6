//! The two ends of a run measure themselves and leave what they found in files of the run's directory.
//!
//! A [`Meter`] owns one end's count. It measures from the end of the warm-up to the last record.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::work::{Totals, Work};

/// What the sending end found.
pub const SOURCE_FILE: &str = "source.json";
/// What the receiving end found.
pub const SUM_FILE: &str = "sum.json";

/// What one end found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// The process.
    pub pid: u32,
    /// Records after the warm-up.
    pub records: u64,
    /// Seconds from the end of the warm-up to the last record.
    pub seconds: f64,
    /// User and system time of the whole process in that time.
    #[serde(default)]
    pub cpu_seconds: f64,
    /// Congestion control of its socket, if it could be asked.
    #[serde(default)]
    pub congestion: Option<String>,
    /// What came out, at the receiver.
    #[serde(default)]
    pub totals: Totals,
}

/// Measures one end.
pub struct Meter {
    path: PathBuf,
    last: u64,
    seen: u64,
    /// Where something happens next: the end of the warm-up, then the last record.
    edge: u64,
    start: Option<Start>,
    found: Side,
}

struct Start {
    seen: u64,
    time: Instant,
    cpu: f64,
}

impl Meter {
    /// Measures that work, and writes the result to a file of that directory.
    pub fn new(work: &Work, dir: &Path, file: &str, congestion: Option<String>) -> Self {
        let found = Side { pid: std::process::id(), congestion, ..Side::default() };
        Self { path: dir.join(file), last: work.all(), seen: 0, edge: work.warm_up(), start: None, found }
    }

    /// Records that are still to come.
    #[inline]
    pub fn left(&self) -> u64 {
        self.last.saturating_sub(self.seen)
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
        let Some(start) = &self.start else {
            self.start = Some(Start { seen: self.seen, time: Instant::now(), cpu: cpu_seconds() });
            self.edge = self.last;
            return;
        };
        self.found.records = self.seen - start.seen;
        self.found.seconds = start.time.elapsed().as_secs_f64();
        self.found.cpu_seconds = cpu_seconds() - start.cpu;
        self.edge = u64::MAX;
    }

    /// Leaves what was found.
    ///
    /// # Errors
    /// Some records did not come, or too many did, or the file cannot be written.
    pub fn finish(mut self, totals: Totals) -> Result<(), Box<dyn Error>> {
        if self.seen != self.last {
            return Err(format!("{} records came, expected {}", self.seen, self.last).into());
        }
        self.found.totals = totals;
        std::fs::write(&self.path, serde_json::to_vec(&self.found)?)
            .map_err(|error| format!("can't write {}: {error}", self.path.display()))?;
        Ok(())
    }
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Finds a result.
///
/// # Errors
/// It is missing or garbled.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Box<dyn Error>> {
    let text =
        std::fs::read(path).map_err(|error| format!("a result is missing ({}): {error}", path.display()))?;
    Ok(serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Shape;
    use crate::work::tests::work;

    #[test]
    fn the_warm_up_is_not_measured() {
        let dir = tempfile::tempdir().unwrap();
        let work = Work { warm_up: Some(10), ..work(Shape::Bytes, 20) };
        let mut meter = Meter::new(&work, dir.path(), SUM_FILE, None);
        (0..9).for_each(|_| meter.count(1));
        assert!(meter.start.is_none());
        meter.count(4); // a batch across the edge
        assert_eq!(meter.left(), 17);
        meter.count(17);
        meter.finish(Totals { results: 30, checksum: 1 }).unwrap();
        let side: Side = read(&dir.path().join(SUM_FILE)).unwrap();
        assert_eq!((side.records, side.totals.results), (17, 30));
    }

    #[test]
    fn records_that_do_not_come_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut meter = Meter::new(&work(Shape::Bytes, 20), dir.path(), SUM_FILE, None);
        meter.count(20);
        assert_eq!(meter.finish(Totals::default()).unwrap_err().to_string(), "20 records came, expected 21");
    }
}
