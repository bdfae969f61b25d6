//! The jobs that benchmarks submit: for `shuffle` one per shape, a source that counts on one TaskManager, what sums on the
//! other; for `latency` `stamped`.
//!
//! Both ends measure themselves (`meter`) and are never restored: a run that fails is run again.

pub mod bid;
pub mod bytes;
pub mod keyed;
pub mod numbered;
pub mod stamped;
mod sum_sink;

use std::path::PathBuf;

use tidegate::Jobs;
use tidegate_stream::{Args, JobEntry, JobResult};

use crate::meter::{Meter, SOURCE_FILE, SUM_FILE, TOTALS_FILE};
use crate::work::Shape;

/// The registry of a benchmark's own cluster.
pub fn all() -> Jobs {
    Jobs::new([keyed::entry(), bytes::entry(), bid::entry(), stamped::entry()])
}

/// Under which name the job of a shape is registered.
pub fn name(shape: Shape) -> &'static str {
    match shape {
        Shape::Keyed => keyed::JOB,
        Shape::Bytes => bytes::JOB,
        Shape::Bid => bid::JOB,
    }
}

fn entry(name: &'static str, job: fn(&mut tidegate_stream::Job, &Args) -> JobResult) -> JobEntry {
    JobEntry::new(name, job)
        .flag("records", "N", "records that are measured")
        .flag("warm-up", "N", "records before them")
        .flag("keys", "K", "keys of the shape keyed")
        .flag("record-bytes", "N", "bytes of a record of the shape bytes")
        .flag("dir", "DIR", "where the results go")
}

/// What every job's flags say. All are declared by every job, so that one command fits all.
struct Flags {
    keys: u64,
    record_bytes: usize,
    source: Meter,
    sum: Meter,
    totals: PathBuf,
}

impl Flags {
    fn of(args: &Args) -> Result<Self, tidegate_stream::ArgsError> {
        let (records, warm_up) = (args.required("records")?, args.required("warm-up")?);
        let dir: PathBuf = args.required("dir")?;
        Ok(Self {
            keys: args.required("keys")?,
            record_bytes: args.required("record-bytes")?,
            source: Meter::new(dir.join(SOURCE_FILE), warm_up, records),
            sum: Meter::new(dir.join(SUM_FILE), warm_up, records),
            totals: dir.join(TOTALS_FILE),
        })
    }
}
