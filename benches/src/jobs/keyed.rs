//! The job of `shuffle --shape keyed`: pairs of (u64, u64) from a source on one TaskManager to a keyed sum on the other.
//!
//! Record i has value i; the order of its keys is `forms::Keys`'.

use tidegate_record::Plain;
use tidegate_stream::context::RuntimeContext;
use tidegate_stream::error::TaskError;
use tidegate_stream::{AggregateFunction, Args, Job, JobEntry, JobResult};

use super::numbered::{Numbered, Records};
use super::sum_sink::SumSink;
use crate::forms::Keys;
use crate::meter::Meter;

/// The job's name in the registry.
pub const JOB: &str = "bench-keyed";

/// A record.
#[derive(Clone, Copy, Debug, Plain)]
#[repr(C)]
pub struct Pair {
    /// What it is summed by.
    pub key: u64,
    /// Its number.
    pub value: u64,
}

const _: () = assert!(size_of::<Pair>() == crate::forms::PAIR_BYTES);

/// The job's entry in the registry.
pub fn entry() -> JobEntry {
    super::entry(JOB, job).about("Pairs of numbers, summed by key; measures itself.")
}

fn job(job: &mut Job, args: &Args) -> JobResult {
    let flags = super::Flags::of(args)?;
    job.source("pairs", Records { records: Pairs::new(flags.keys), meter: flags.source })
        .parallelism(1)
        .slot_group("source")
        .key_by(|pair: &Pair| pair.key)
        .aggregate("sum", Sum { meter: flags.sum })
        .parallelism(1)
        .slot_group("sum")
        .sink("totals", SumSink { of: |(_, sum): &(u64, u64)| *sum, meter: None, path: flags.totals });
    Ok(())
}

/// Pairs by number.
#[derive(Clone)]
pub struct Pairs {
    keys: Keys,
    number: u64,
    current: Pair,
}

impl Pairs {
    /// Over `keys` keys, from pair 0 on.
    pub fn new(keys: u64) -> Self {
        Self { keys: Keys::new(keys), number: 0, current: Pair { key: 0, value: 0 } }
    }
}

impl Numbered for Pairs {
    type Item = Pair;

    #[inline]
    fn make(&mut self) -> &Pair {
        self.current = Pair { key: self.keys.step(), value: self.number };
        self.number += 1;
        &self.current
    }
}

#[derive(Clone)]
struct Sum {
    meter: Meter,
}

impl AggregateFunction<u64, Pair> for Sum {
    type State = u64;
    type Out = (u64, u64);

    fn open(&mut self, _context: &RuntimeContext) -> Result<(), TaskError> {
        Ok(())
    }

    fn create(&mut self, _key: &u64) -> u64 {
        0
    }

    #[inline]
    fn add(&mut self, state: &mut u64, pair: &Pair) {
        *state = state.wrapping_add(pair.value);
        self.meter.count(1);
    }

    fn result(&mut self, key: &u64, state: u64) -> Result<(u64, u64), TaskError> {
        Ok((*key, state))
    }
}
