//! How fast one thread is: source → key_by → keyed sum over (u64, u64) records and 100,000 keys, all in one slot.
//!
//! Run it with `cargo run --release -p tidegate-stream --example throughput [millions of records]`. Envelope: per record
//! one 16-byte store, one 16-byte load, two hashes (one per side of the exchange), one probe of a table that fits L2.

use std::time::Instant;

use tidegate_stream::source::{Next, SourceContext};
use tidegate_stream::testing::{Harness, Setup, collect};
use tidegate_stream::{AggregateFunction, Args, Job, JobResult, Source, SourceReader, TaskError};

const KEYS: u64 = 100_000;

/// Pairs of a key and a value, made up on the spot.
#[derive(Clone)]
struct Pairs {
    count: u64,
}

struct PairsReader {
    next: u64,
    count: u64,
    pair: [u64; 2],
}

impl Source for Pairs {
    type Item = [u64; 2];
    type Reader = PairsReader;

    fn open(&self, _context: &SourceContext<'_>) -> Result<PairsReader, TaskError> {
        Ok(PairsReader { next: 0, count: self.count, pair: [0; 2] })
    }
}

impl SourceReader for PairsReader {
    type Item = [u64; 2];

    #[inline]
    fn next(&mut self, _now_ns: u64) -> Result<Next<'_, [u64; 2]>, TaskError> {
        if self.next == self.count {
            return Ok(Next::End);
        }
        self.pair = [self.next.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & 0x1_ffff, self.next];
        self.pair[0] = if self.pair[0] < KEYS { self.pair[0] } else { self.pair[0] - KEYS };
        self.next += 1;
        Ok(Next::Item(&self.pair))
    }

    fn position(&self, out: &mut Vec<u8>) -> Result<(), TaskError> {
        out.extend_from_slice(&self.next.to_le_bytes());
        Ok(())
    }
}

#[derive(Clone)]
struct Sum;

impl AggregateFunction<u64, [u64; 2]> for Sum {
    type State = u64;
    type Out = [u64; 2];

    fn create(&mut self, _key: &u64) -> u64 {
        0
    }

    #[inline]
    fn add(&mut self, sum: &mut u64, pair: &[u64; 2]) {
        *sum = sum.wrapping_add(pair[1]);
    }

    fn result(&mut self, key: &u64, sum: u64) -> Result<[u64; 2], TaskError> {
        Ok([*key, sum])
    }
}

fn job(job: &mut Job, args: &Args) -> JobResult {
    let count = args.required("records")?;
    job.source("pairs", Pairs { count })
        .key_by(|pair| pair[0])
        .aggregate("sum", Sum)
        .sink("out", collect("out"));
    Ok(())
}

fn main() -> Result<(), String> {
    let millions: u64 = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(50);
    let records = millions * 1_000_000;
    let setup = Setup::new(job).args(&["--records", &records.to_string()]).segments(256, 32 * 1024);
    let mut harness = Harness::start(setup)?;
    let start = Instant::now();
    harness.finish()?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{:.1} M records/s on one thread", records as f64 / seconds / 1e6);
    Ok(())
}
