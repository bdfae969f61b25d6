//! A binary of one's own: one job, and with it every role of Tidegate.
//!
//! ```text
//! cargo run --example longest -- run longest --parallelism 2 -- \
//!     --input examples/data/flights.csv.gz --output /tmp/longest
//! ```

use std::process::ExitCode;

use tidegate::connect::{CsvRow, CsvRows, CsvSink, LineFile, Row};
use tidegate::record::Plain;
use tidegate::{AggregateFunction, Args, Job, JobEntry, JobResult, Jobs, TaskError};

#[global_allocator]
static HEAP: tidegate::Allocator = tidegate::Allocator::new();

fn main() -> ExitCode {
    let longest = JobEntry::new("longest", longest)
        .about("The longest flight of each carrier.")
        .flag("input", "FILE", "flights with a header, .csv or .csv.gz")
        .flag("output", "DIR", "folder for part files of `carrier,miles`");
    tidegate::main(Jobs::new([longest]))
}

/// Two letters and a distance: a plain record, which travels as it is.
#[derive(Clone, Copy, Plain)]
#[repr(C)]
struct Flight {
    carrier: [u8; 4],
    miles: u32,
}

fn longest(job: &mut Job, args: &Args) -> JobResult {
    let (input, output): (String, String) = (args.required("input")?, args.required("output")?);
    let rows = CsvRows::new(&input, ["carrier", "distance"], |row: &Row<'_>| {
        let mut carrier = [b' '; 4];
        let code = row.bytes(0);
        carrier.get_mut(..code.len()).ok_or("a carrier has at most four letters")?.copy_from_slice(code);
        Ok(Flight { carrier, miles: row.parse(1)? })
    });
    let miles = CsvSink::new(
        output,
        ["carrier", "miles"],
        |(carrier, miles): &([u8; 4], u32), row: &mut CsvRow<'_>| {
            row.text(String::from_utf8_lossy(carrier).trim_end()).value(miles);
        },
    );
    job.source("lines", LineFile::new(&input).header(true))
        .rebalance()
        .flat_map_with("rows", rows)
        .key_by(|flight: &Flight| flight.carrier)
        .aggregate("longest", Longest)
        .sink("miles", miles);
    Ok(())
}

/// The most miles of a carrier.
#[derive(Clone)]
struct Longest;

impl AggregateFunction<[u8; 4], Flight> for Longest {
    type State = u32;
    type Out = ([u8; 4], u32);

    fn create(&mut self, _carrier: &[u8; 4]) -> u32 {
        0
    }

    fn add(&mut self, longest: &mut u32, flight: &Flight) {
        *longest = (*longest).max(flight.miles);
    }

    fn result(&mut self, carrier: &[u8; 4], longest: u32) -> Result<Self::Out, TaskError> {
        Ok((*carrier, longest))
    }
}
