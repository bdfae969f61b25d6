//! The job of `shuffle --shape bytes`: opaque records of one length from a source on one TaskManager to a sum of all their
//! words on the other.

use tidegate_stream::{Args, Job, JobEntry, JobResult};

use super::numbered::{Numbered, Records};
use super::sum_sink::SumSink;
use crate::forms;

/// The job's name in the registry.
pub const JOB: &str = "bench-bytes";

/// The job's entry in the registry.
pub fn entry() -> JobEntry {
    super::entry(JOB, job).about("Opaque records, every byte summed; measures itself.")
}

fn job(job: &mut Job, args: &Args) -> JobResult {
    let flags = super::Flags::of(args)?;
    job.source("records", Records { records: Opaque::new(flags.record_bytes), meter: flags.source })
        .parallelism(1)
        .slot_group("source")
        .rebalance()
        .parallelism(1)
        .slot_group("sum")
        .sink(
            "sum",
            SumSink {
                of: |bytes: &<Vec<u8> as tidegate_record::Record>::Archived| forms::sum_of_words(bytes),
                meter: Some(flags.sum),
                path: flags.totals,
            },
        );
    Ok(())
}

/// Opaque records by number.
#[derive(Clone)]
pub struct Opaque {
    bytes: Vec<u8>,
    number: u64,
}

impl Opaque {
    /// Of `len` bytes, from record 0 on.
    pub fn new(len: usize) -> Self {
        Self { bytes: forms::opaque_template(len), number: 0 }
    }
}

impl Numbered for Opaque {
    type Item = Vec<u8>;

    #[inline]
    fn make(&mut self) -> &Vec<u8> {
        forms::number_opaque(&mut self.bytes, self.number);
        self.number += 1;
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forms::{OPAQUE_OVERHEAD, RECORD_BYTES_MAX, RECORD_BYTES_MIN};
    use crate::work::written;

    #[test]
    fn the_floor_lays_records_out_as_the_engine_does() {
        for len in [RECORD_BYTES_MIN, 100, 101, 1024, RECORD_BYTES_MAX] {
            assert_eq!(written(&forms::opaque_template(len)), len + OPAQUE_OVERHEAD, "{len} bytes");
        }
    }
}
