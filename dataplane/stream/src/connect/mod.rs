//! Connectors: sources and sinks that jobs name. Nothing here owns state; it names the modules in reading order.
//!
//! A file of lines enters a job as blocks from one subtask ([`lines`], cut by [`blocks`]), is spread with `rebalance`, and
//! becomes rows where there are cores to parse them ([`csv`], by the grammar in [`fields`]). Results leave as part files
//! that appear with their checkpoint ([`csv_sink`], [`csv_row`]). [`sequence`] makes records out of nothing; [`pace`] keeps
//! sources to a rate.
//!
//! ```
//! use tidegate_stream::connect::{CsvRow, CsvRows, CsvSink, LineFile, Row};
//! use tidegate_stream::{Args, Job, JobResult, testing};
//!
//! fn long_flights(job: &mut Job, args: &Args) -> JobResult {
//!     let input: String = args.required("input")?;
//!     let rows = CsvRows::new(&input, ["carrier", "distance"], |row: &Row<'_>| {
//!         Ok((row.text(0)?.to_owned(), row.parse::<u32>(1)?))
//!     });
//!     let sink = CsvSink::new("out", ["carrier", "miles"], |flight: &(String, u32), row: &mut CsvRow<'_>| {
//!         row.text(&flight.0).value(flight.1);
//!     });
//!     job.source("lines", LineFile::new(&input).header(true))
//!         .rebalance()
//!         .flat_map_with("rows", rows)
//!         .filter("long", |flight| flight.1 > 1000)
//!         .sink("flights", sink);
//!     Ok(())
//! }
//!
//! let folder = tempfile::tempdir().unwrap();
//! let input = folder.path().join("flights.csv");
//! std::fs::write(&input, "carrier,distance\nUA,1400\nB6,187\nAA,1089\n").unwrap();
//! let run = testing::run(long_flights, &["--input", input.to_str().unwrap()]).unwrap();
//! assert_eq!(run.manager().store().read("out/part-0-1.csv").unwrap(), b"carrier,miles\nUA,1400\nAA,1089\n");
//! ```

pub mod blocks;
pub mod csv;
pub mod csv_row;
pub mod csv_sink;
pub mod fields;
pub mod limits;
pub mod lines;
pub mod pace;
pub mod sequence;
#[cfg(test)]
mod tests;

pub use csv::{CsvRows, OnError, Row, RowError, RowParser};
pub use csv_row::CsvRow;
pub use csv_sink::CsvSink;
pub use lines::{ArchivedLineBlock, LineBlock, LineFile};
pub use sequence::Sequence;
