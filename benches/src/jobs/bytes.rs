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
    let records = Opaque { bytes: forms::opaque_template(flags.record_bytes), number: 0 };
    job.source("records", Records { records, meter: flags.source })
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

#[derive(Clone)]
struct Opaque {
    bytes: Vec<u8>,
    number: u64,
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
