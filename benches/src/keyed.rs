//! The job of `shuffle --shape keyed`: pairs of (u64, u64) from a source on one TaskManager to a keyed sum on the other.
//!
//! Both ends measure themselves from the end of the warm-up on (all keys were seen by then) to their last record, and write
//! what they found to files of the benchmark's directory.
//!
//! Record i has value i and key (i × stride) mod keys, with a stride near the golden ratio of the keys and prime to them: each
//! run of `keys` records touches every key once, in an order that no cache line likes.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tidegate_memory::this_thread;
use tidegate_record::Plain;
use tidegate_stream::context::RuntimeContext;
use tidegate_stream::error::{Fault, TaskError};
use tidegate_stream::files::Files;
use tidegate_stream::sink::{Prepared, Sink, SinkContext, SinkWriter};
use tidegate_stream::source::{Next, Source, SourceContext, SourceReader};
use tidegate_stream::{AggregateFunction, Args, Job, JobEntry, JobResult};

/// The job's name in the registry.
pub const JOB: &str = "bench-keyed";

/// What one end found.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Side {
    /// Records after the warm-up.
    pub records: u64,
    /// Seconds from the end of the warm-up to the last record.
    pub seconds: f64,
    /// Heap allocations of the slot's thread in that time.
    pub heap_allocations: u64,
}

/// What came out of the sum.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Keys with a sum.
    pub keys: u64,
    /// All sums added up, modulo 2^64.
    pub checksum: u64,
}

/// Files that the two ends write, in the benchmark's directory.
pub const SOURCE_FILE: &str = "source.json";
/// See [`SOURCE_FILE`].
pub const SUM_FILE: &str = "sum.json";
/// See [`SOURCE_FILE`].
pub const TOTALS_FILE: &str = "totals.json";

/// All sums added up for `records` records: 0 + 1 + … modulo 2^64.
pub fn closed_form(records: u64) -> u64 {
    let n = u128::from(records);
    (n * n.saturating_sub(1) / 2) as u64
}

#[derive(Clone, Copy, Debug, Plain)]
#[repr(C)]
struct Pair {
    key: u64,
    value: u64,
}

/// Measures one end: from the `warm_up`-th record to the last.
#[derive(Clone, Debug)]
struct Meter {
    path: PathBuf,
    warm_up: u64,
    last: u64,
    seen: u64,
    start: Option<(Instant, u64)>,
}

impl Meter {
    fn new(path: PathBuf, warm_up: u64, records: u64) -> Self {
        Self { path, warm_up, last: warm_up + records, seen: 0, start: None }
    }

    #[inline]
    fn record(&mut self) {
        self.seen += 1;
        if self.seen == self.warm_up || self.seen == self.last {
            self.edge();
        }
    }

    #[cold]
    fn edge(&mut self) {
        let allocations = this_thread().allocations;
        match self.start {
            None => self.start = Some((Instant::now(), allocations)),
            Some((start, before)) => {
                let side = Side {
                    records: self.seen - self.warm_up,
                    seconds: start.elapsed().as_secs_f64(),
                    heap_allocations: allocations - before,
                };
                write(&self.path, &side);
            }
        }
    }
}

/// Results go to a file; if that fails the benchmark misses it and says so.
fn write<T: Serialize>(path: &Path, value: &T) {
    if let Ok(text) = serde_json::to_vec(value)
        && let Err(error) = std::fs::write(path, text)
    {
        eprintln!("error: can't write {}: {error}", path.display());
    }
}

/// The job's entry in the registry.
pub fn entry() -> JobEntry {
    JobEntry::new(JOB, job)
        .about("Pairs of numbers, summed by key; measures itself.")
        .flag("records", "N", "records that are measured")
        .flag("warm-up", "N", "records before them")
        .flag("keys", "K", "keys")
        .flag("dir", "DIR", "where the results go")
}

fn job(job: &mut Job, args: &Args) -> JobResult {
    let records: u64 = args.required("records")?;
    let warm_up: u64 = args.required("warm-up")?;
    let keys: u64 = args.required("keys")?;
    let dir: PathBuf = args.required("dir")?;
    let source = Pairs { keys, meter: Meter::new(dir.join(SOURCE_FILE), warm_up, records) };
    let sum = Sum { meter: Meter::new(dir.join(SUM_FILE), warm_up, records) };
    job.source("pairs", source)
        .parallelism(1)
        .slot_group("source")
        .key_by(|pair: &Pair| pair.key)
        .aggregate("sum", sum)
        .parallelism(1)
        .slot_group("sum")
        .sink("totals", TotalsSink { path: dir.join(TOTALS_FILE) });
    Ok(())
}

#[derive(Clone)]
struct Pairs {
    keys: u64,
    meter: Meter,
}

impl Source for Pairs {
    type Item = Pair;
    type Reader = PairsReader;

    fn open(&self, _context: &SourceContext<'_>) -> Result<PairsReader, TaskError> {
        Ok(PairsReader {
            keys: self.keys,
            stride: stride(self.keys),
            meter: self.meter.clone(),
            next: Pair { key: 0, value: 0 },
            current: Pair { key: 0, value: 0 },
        })
    }
}

struct PairsReader {
    keys: u64,
    stride: u64,
    meter: Meter,
    next: Pair,
    current: Pair,
}

impl SourceReader for PairsReader {
    type Item = Pair;

    #[inline]
    fn next(&mut self, _now_ns: u64) -> Result<Next<'_, Pair>, TaskError> {
        if self.meter.seen == self.meter.last {
            return Ok(Next::End);
        }
        self.meter.record();
        self.current = self.next;
        self.next.value += 1;
        self.next.key += self.stride;
        if self.next.key >= self.keys {
            self.next.key -= self.keys;
        }
        Ok(Next::Item(&self.current))
    }

    fn position(&self, out: &mut Vec<u8>) -> Result<(), TaskError> {
        out.extend_from_slice(&self.next.value.to_le_bytes());
        Ok(())
    }
}

/// About 0.618 of the keys, and prime to them.
fn stride(keys: u64) -> u64 {
    let mut stride = (keys as f64 * 0.618_033_988_75) as u64;
    while gcd(stride.max(1), keys) != 1 {
        stride += 1;
    }
    stride.max(1) % keys.max(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[derive(Clone)]
struct Sum {
    meter: Meter,
}

impl AggregateFunction<u64, Pair> for Sum {
    type State = u64;
    type Out = (u64, u64);

    fn open(&mut self, _context: &RuntimeContext) -> Result<(), TaskError> {
        self.meter.seen = 0;
        Ok(())
    }

    fn create(&mut self, _key: &u64) -> u64 {
        0
    }

    #[inline]
    fn add(&mut self, state: &mut u64, pair: &Pair) {
        *state = state.wrapping_add(pair.value);
        self.meter.record();
    }

    fn result(&mut self, key: &u64, state: u64) -> Result<(u64, u64), TaskError> {
        Ok((*key, state))
    }
}

#[derive(Clone)]
struct TotalsSink {
    path: PathBuf,
}

impl Sink<(u64, u64)> for TotalsSink {
    type Writer = TotalsWriter;

    fn outputs(&mut self) -> Vec<&mut String> {
        Vec::new() // What it writes is for the benchmark alone, and replaced every time.
    }

    fn open(&self, context: &SinkContext<'_>) -> Result<TotalsWriter, TaskError> {
        if context.runtime.restored.is_some() {
            return Err(TaskError::new(Fault::User, "a benchmark is not restored"));
        }
        Ok(TotalsWriter { path: self.path.clone(), totals: Totals::default() })
    }
}

struct TotalsWriter {
    path: PathBuf,
    totals: Totals,
}

impl SinkWriter<(u64, u64)> for TotalsWriter {
    fn ready(&mut self, _files: &mut dyn Files) -> bool {
        true
    }

    fn write(&mut self, item: &(u64, u64), _files: &mut dyn Files) -> Result<(), TaskError> {
        self.totals.keys += 1;
        self.totals.checksum = self.totals.checksum.wrapping_add(item.1);
        Ok(())
    }

    fn cut(&mut self, _checkpoint: u64, _files: &mut dyn Files) -> Result<(), TaskError> {
        Ok(())
    }

    fn prepare_commit(&mut self, _checkpoint: u64, _files: &mut dyn Files) -> Result<Prepared, TaskError> {
        Ok(Prepared::Ready { state: Vec::new(), committables: Vec::new() })
    }

    fn close(&mut self, _files: &mut dyn Files) {
        write(&self.path, &self.totals);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_comes_once_per_round() {
        for keys in [1, 2, 7, 100, 4096] {
            let (mut key, mut seen) = (0, vec![false; keys as usize]);
            for _ in 0..keys {
                assert!(!std::mem::replace(&mut seen[key as usize], true), "{keys} keys: {key} came twice");
                key = (key + stride(keys)) % keys;
            }
        }
    }

    #[test]
    fn the_closed_form_is_the_sum() {
        assert_eq!(closed_form(0), 0);
        assert_eq!(closed_form(1_000), (0..1_000).sum::<u64>());
    }
}
