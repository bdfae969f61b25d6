use std::process::ExitCode;

use tidegate::connect::{CsvRow, CsvRows, CsvSink, LineFile, Row};
use tidegate::record::Record;
use tidegate::{Args, Job, JobResult, Jobs};

#[derive(Record)] // what travels: the layout, its validation and a fingerprint of the type
pub struct Flight {
    tail: String,
    miles: u32,
}

/// Miles that each aircraft has flown so far, after every flight.
pub fn miles(job: &mut Job, args: &Args) -> JobResult {
    let (input, output): (String, String) = (args.required("input")?, args.required("output")?);
    let rows = CsvRows::new(&input, ["tailnum", "distance"], |row: &Row<'_>| {
        Ok(Flight { tail: row.text(0)?.to_owned(), miles: row.parse(1)? })
    });
    let sink = CsvSink::new(output, ["tailnum", "miles"], |total: &(String, u64), row: &mut CsvRow<'_>| {
        row.text(&total.0).value(total.1);
    });
    job.source("lines", LineFile::new(&input).header(true))
        .rebalance() // blocks of lines go to all subtasks, to be parsed there
        .flat_map_with("rows", rows)
        .filter("known", |flight| flight.tail != "NA") // chained: a plain call
        .key_by(|flight: &Flight| flight.tail.clone()) // an exchange: from here on flights are read in place
        .process("miles", |tail: &String, flight, sum: &mut Option<u64>, out| {
            let sum = sum.insert(sum.unwrap_or(0) + u64::from(flight.miles.to_native()));
            out.emit((tail.clone(), *sum));
        })
        .sink("totals", sink); // rows appear with the checkpoint that covers them
    Ok(())
}

fn main() -> ExitCode {
    tidegate::main(Jobs::new([("miles", miles)]))
}
