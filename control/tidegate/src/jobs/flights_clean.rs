//! `flights-clean`: every valid row of the flights file, normalised, written as it comes.
//!
//! One exchange, by tail number: the flights of one aircraft are written by one subtask.

use super::flight::{CleanRow, MISSING};
use super::{FLIGHT_BLOCK_BYTES, FileArgs, describe_on_error, on_error};
use crate::connect::{CsvRow, CsvRows, CsvSink, LineFile};
use crate::{Args, Job, JobEntry, JobResult};

pub(super) fn entry() -> JobEntry {
    let entry = JobEntry::new("flights-clean", flights_clean)
        .about("Writes every valid row of the flights file as it goes, normalised.");
    describe_on_error(FileArgs::describe(entry, "flights with a header, .csv or .csv.gz", "rows"))
}

fn flights_clean(job: &mut Job, args: &Args) -> JobResult {
    let FileArgs { input, output, rate } = FileArgs::read(args)?;
    let rows =
        CsvRows::new(&input, CleanRow::COLUMNS, CleanRow::read).missing(MISSING).on_error(on_error(args)?);
    let sink = CsvSink::new(output, CleanRow::COLUMNS, |clean: &String, row: &mut CsvRow<'_>| {
        clean.split(',').for_each(|field| {
            row.text(field);
        });
    });
    job.source("lines", LineFile::new(&input).header(true).block_bytes(FLIGHT_BLOCK_BYTES).rate(rate))
        .rebalance()
        .flat_map_with("parse", rows)
        .key_by(|clean: &CleanRow| clean.tailnum.clone())
        .process("by aircraft", |_tailnum: &String, clean, _state: &mut Option<u64>, out| {
            out.emit(clean.row.to_string());
        })
        .sink("rows", sink);
    Ok(())
}
