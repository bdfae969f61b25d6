//! The job of `latency`: records that carry when they were due, from a source that sends each then to a sink on the other
//! TaskManager that takes how late it came.

use std::path::PathBuf;

use tidegate_record::{Plain, Record};
use tidegate_stream::context::RuntimeContext;
use tidegate_stream::error::{Fault, TaskError};
use tidegate_stream::files::Files;
use tidegate_stream::sink::{Prepared, Sink, SinkContext, SinkWriter};
use tidegate_stream::source::{Next, Pause, Source, SourceContext, SourceReader};
use tidegate_stream::{Args, Job, JobEntry, JobResult};

use crate::forms;
use crate::latency::arrivals::Arrivals;
use crate::latency::pace::{Due, Pace, Plan};
use crate::meter::{self, SOURCE_FILE};

/// The job's name in the registry.
pub const JOB: &str = "bench-latency";
/// What the sink leaves: this and an ending.
pub const ARRIVALS: &str = "arrivals";
/// Bytes of a stamp, and so of the shortest record.
pub const STAMP_BYTES: usize = 16;

/// Number and due time of a record.
#[derive(Clone, Copy, Debug, Plain)]
#[repr(C)]
pub struct Stamp {
    number: u64,
    due_ns: u64,
}

const _: () = assert!(size_of::<Stamp>() == STAMP_BYTES);

/// The job's entry in the registry.
pub fn entry() -> JobEntry {
    JobEntry::new(JOB, job)
        .about("Records that say when they were due; measures how late they come.")
        .flag("rate", "R", "records per second; 0 is as fast as it goes")
        .flag("run-ns", "N", "for how long, warm-up included")
        .flag("warm-up-ns", "N", "how long is not measured")
        .flag("every", "N", "the latency of one record in so many is taken")
        .flag("record-bytes", "N", "bytes of a record")
        .flag("dir", "DIR", "where the results go")
}

fn job(job: &mut Job, args: &Args) -> JobResult {
    let dir: PathBuf = args.required("dir")?;
    let pace = Pace::new(Plan { rate: args.required("rate")?, run_ns: args.required("run-ns")? });
    let arrivals = Arrivals::new(args.required("warm-up-ns")?, args.required("every")?);
    let bytes: usize = args.required("record-bytes")?;
    if bytes == STAMP_BYTES {
        let of = |stamp: &Stamp| *stamp;
        build(job, Stamp { number: 0, due_ns: 0 }, of, pace, arrivals, dir);
    } else {
        let of = |bytes: &<Vec<u8> as Record>::Archived| stamp_of(bytes);
        build(job, forms::opaque_template(bytes), of, pace, arrivals, dir);
    }
    Ok(())
}

fn build<T: Carrier>(
    job: &mut Job,
    carrier: T,
    of: impl Fn(&T::Archived) -> Stamp + Clone + Send + 'static,
    pace: Pace,
    arrivals: Arrivals,
    dir: PathBuf,
) {
    job.source("stamps", Paced { carrier, pace, sent: 0, path: dir.join(SOURCE_FILE) })
        .parallelism(1)
        .slot_group("source")
        .rebalance()
        .parallelism(1)
        .slot_group("sum")
        .sink("arrivals", Taken { of, arrivals, dir });
}

/// The first words of an opaque record. One that is too short has none: its sum will be wrong.
#[inline]
fn stamp_of(bytes: &[u8]) -> Stamp {
    let word =
        |at: usize| bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes);
    Stamp { number: word(0).unwrap_or(u64::MAX), due_ns: word(8).unwrap_or(0) }
}

/// A record that can carry a stamp.
trait Carrier: Record + Clone + Send + 'static {
    fn stamp(&mut self, stamp: Stamp);
}

impl Carrier for Stamp {
    #[inline]
    fn stamp(&mut self, stamp: Stamp) {
        *self = stamp;
    }
}

impl Carrier for Vec<u8> {
    #[inline]
    fn stamp(&mut self, stamp: Stamp) {
        self[..8].copy_from_slice(&stamp.number.to_le_bytes());
        self[8..STAMP_BYTES].copy_from_slice(&stamp.due_ns.to_le_bytes());
    }
}

/// Sends each record when it is due.
#[derive(Clone)]
struct Paced<T> {
    carrier: T,
    pace: Pace,
    sent: u64,
    path: PathBuf,
}

impl<T: Carrier> Source for Paced<T> {
    type Item = T;
    type Reader = Self;

    fn open(&self, _context: &SourceContext<'_>) -> Result<Self, TaskError> {
        Ok(self.clone())
    }
}

impl<T: Carrier> SourceReader for Paced<T> {
    type Item = T;

    #[inline]
    fn next(&mut self, now_ns: u64) -> Result<Next<'_, T>, TaskError> {
        match self.pace.ask(now_ns) {
            Due::Now(due_ns) => {
                self.carrier.stamp(Stamp { number: self.sent, due_ns });
                self.sent += 1;
                Ok(Next::Item(&self.carrier))
            }
            Due::At(at) => Ok(Next::Wait(Pause::Punctual(at))),
            Due::Over => Ok(Next::End),
        }
    }

    fn position(&self, out: &mut Vec<u8>) -> Result<(), TaskError> {
        out.extend_from_slice(&self.sent.to_le_bytes());
        Ok(())
    }

    fn close(&mut self) {
        meter::write(&self.path, &self.sent);
    }
}

/// Takes what arrives.
#[derive(Clone)]
struct Taken<F> {
    of: F,
    arrivals: Arrivals,
    dir: PathBuf,
}

impl<In: ?Sized, F: Fn(&In) -> Stamp + Clone + Send + 'static> Sink<In> for Taken<F> {
    type Writer = Self;

    fn outputs(&mut self) -> Vec<&mut String> {
        Vec::new() // What it writes is for the benchmark alone, and replaced every time.
    }

    fn open(&self, context: &SinkContext<'_>) -> Result<Self, TaskError> {
        let RuntimeContext { restored, .. } = context.runtime;
        if restored.is_some() {
            return Err(TaskError::new(Fault::User, "a benchmark is not restored"));
        }
        Ok(self.clone())
    }
}

impl<In: ?Sized, F: Fn(&In) -> Stamp + Clone + Send + 'static> SinkWriter<In> for Taken<F> {
    #[inline]
    fn ready(&mut self, _files: &mut dyn Files) -> bool {
        true
    }

    #[inline]
    fn write(&mut self, item: &In, _files: &mut dyn Files) -> Result<(), TaskError> {
        let Stamp { number, due_ns } = (self.of)(item);
        self.arrivals.take(number, due_ns);
        Ok(())
    }

    fn cut(&mut self, _checkpoint: u64, _files: &mut dyn Files) -> Result<(), TaskError> {
        Ok(())
    }

    fn prepare_commit(&mut self, _checkpoint: u64, _files: &mut dyn Files) -> Result<Prepared, TaskError> {
        Ok(Prepared::Ready { state: Vec::new(), committables: Vec::new() })
    }

    fn close(&mut self, _files: &mut dyn Files) {
        self.arrivals.write(&self.dir, ARRIVALS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_its_carrier() {
        let mut bytes = forms::opaque_template(40);
        bytes.stamp(Stamp { number: 3, due_ns: u64::MAX - 1 });
        let Stamp { number, due_ns } = stamp_of(&bytes);
        assert_eq!((number, due_ns), (3, u64::MAX - 1));
        assert_eq!(stamp_of(&bytes[..7]).number, u64::MAX, "which no sum expects");
    }
}
