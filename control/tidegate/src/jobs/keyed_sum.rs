//! `keyed-sum`: sums per key over pairs of numbers that it makes itself. Record number n is `(n mod keys, n)`.

use super::rate;
use crate::connect::{CsvRow, CsvSink, Sequence};
use crate::stream::{files::Files, sink::Prepared};
use crate::{AggregateFunction, Args, Job, JobEntry, JobResult, Sink, SinkContext, SinkWriter, TaskError};

pub(super) fn entry() -> JobEntry {
    JobEntry::new("keyed-sum", keyed_sum)
        .about("Makes pairs of numbers, (n mod K, n) for n below N, and sums them up per key.")
        .flag("records", "N", "how many pairs")
        .flag("keys", "K", "how many keys")
        .flag(
            "output",
            "DIR",
            "folder for part files of `key,sum`; without it the sums are counted and dropped",
        )
        .flag("rate", "R", "pairs per second, of the whole source; no limit without it")
}

fn keyed_sum(job: &mut Job, args: &Args) -> JobResult {
    let (records, keys): (u64, u64) = (args.required("records")?, args.required("keys")?);
    if keys == 0 {
        return Err("--keys 0 leaves no key to sum under: give at least 1".into());
    }
    let sums = job
        .source("pairs", Sequence::generate(records, move |n| [n % keys, n]).rate(rate(args)?))
        .key_by(|pair: &[u64; 2]| pair[0])
        .aggregate("sum", Sum);
    match args.optional::<String>("output")? {
        Some(output) => {
            let sink = CsvSink::new(output, ["key", "sum"], |sum: &[u64; 2], row: &mut CsvRow<'_>| {
                row.value(sum[0]).value(sum[1]);
            });
            sums.sink("sums", sink);
        }
        None => {
            sums.sink("nowhere", Discard);
        }
    }
    Ok(())
}

/// The sum of a key, modulo 2⁶⁴.
#[derive(Clone)]
struct Sum;

impl AggregateFunction<u64, [u64; 2]> for Sum {
    type State = u64;
    type Out = [u64; 2];

    fn create(&mut self, _key: &u64) -> u64 {
        0
    }

    fn add(&mut self, sum: &mut u64, pair: &[u64; 2]) {
        *sum = sum.wrapping_add(pair[1]);
    }

    fn result(&mut self, key: &u64, sum: u64) -> Result<[u64; 2], TaskError> {
        Ok([*key, sum])
    }
}

/// A sink that keeps nothing.
#[derive(Clone)]
struct Discard;

impl<In: ?Sized> Sink<In> for Discard {
    type Writer = Self;

    fn outputs(&mut self) -> Vec<&mut String> {
        Vec::new()
    }

    fn open(&self, _context: &SinkContext<'_>) -> Result<Self, TaskError> {
        Ok(Self)
    }
}

impl<In: ?Sized> SinkWriter<In> for Discard {
    fn ready(&mut self, _files: &mut dyn Files) -> bool {
        true
    }

    fn write(&mut self, _item: &In, _files: &mut dyn Files) -> Result<(), TaskError> {
        Ok(())
    }

    fn cut(&mut self, _checkpoint: u64, _files: &mut dyn Files) -> Result<(), TaskError> {
        Ok(())
    }

    fn prepare_commit(&mut self, _checkpoint: u64, _files: &mut dyn Files) -> Result<Prepared, TaskError> {
        Ok(Prepared::Ready { state: Vec::new(), committables: Vec::new() })
    }
}
