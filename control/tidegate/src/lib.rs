//! Tidegate: streaming jobs in Rust, with exactly-once state, and records that are read where the network put them.
//!
//! A job is a function that describes streams. A binary hands its jobs to [`main`] and is a whole cluster: the same
//! executable is JobManager, TaskManager, the client that submits, or all of them in one process.
//!
//! ```no_run
//! use std::process::ExitCode;
//! use tidegate::connect::{CsvRow, CsvRows, CsvSink, LineFile, Row};
//! use tidegate::{Args, Job, JobEntry, JobResult, Jobs};
//!
//! /// The longest flight of each carrier.
//! fn longest(job: &mut Job, args: &Args) -> JobResult {
//!     let (input, output): (String, String) = (args.required("input")?, args.required("output")?);
//!     let rows = CsvRows::new(&input, ["carrier", "distance"], |row: &Row<'_>| {
//!         Ok((row.text(0)?.to_owned(), row.parse::<u32>(1)?))
//!     });
//!     job.source("lines", LineFile::new(&input).header(true))
//!         .rebalance() // blocks of lines to all subtasks
//!         .flat_map_with("rows", rows)
//!         .key_by(|flight: &(String, u32)| flight.0.clone())
//!         .aggregate("longest", Longest)
//!         .sink("miles", CsvSink::new(output, ["carrier", "miles"], |(carrier, miles): &(String, u32), row: &mut CsvRow<'_>| {
//!             row.text(carrier).value(miles);
//!         }));
//!     Ok(())
//! }
//! # use tidegate::{AggregateFunction, TaskError};
//! # #[derive(Clone)] struct Longest;
//! # impl<In: Miles + ?Sized> AggregateFunction<String, In> for Longest {
//! #     type State = u32;
//! #     type Out = (String, u32);
//! #     fn create(&mut self, _: &String) -> u32 { 0 }
//! #     fn add(&mut self, longest: &mut u32, flight: &In) { *longest = (*longest).max(flight.miles()) }
//! #     fn result(&mut self, carrier: &String, miles: u32) -> Result<(String, u32), TaskError> { Ok((carrier.clone(), miles)) }
//! # }
//! # trait Miles { fn miles(&self) -> u32; }
//! # impl Miles for <(String, u32) as tidegate::record::rkyv::Archive>::Archived { fn miles(&self) -> u32 { self.1.to_native() } }
//!
//! fn main() -> ExitCode {
//!     let longest = JobEntry::new("longest", longest)
//!         .about("The longest flight of each carrier.")
//!         .flag("input", "FILE", "flights")
//!         .flag("output", "DIR", "part files");
//!     tidegate::main(Jobs::new([longest]))
//! }
//! ```
//!
//! Then `longest run longest --parallelism 4 -- --input flights.csv.gz --output out` runs it in one process, and
//! `longest jobmanager …`, `longest taskmanager …`, `longest submit longest …` on a cluster; `--help` shows how.
//!
//! What there is: [`Job`] and [`Stream`] (the API), [`connect`] (files in, files out), [`record`] (types that travel),
//! [`stream`] (everything else of the job API), [`cli`] (the command line), [`jobs`] (those of the `tidegate` binary).
//! [`Allocator`] is the global allocator to install; without it heap use is not reported.
#![forbid(unsafe_code)]
// They panic where a log's disk is full or its reader gone; `cli::out` does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

// Bugs that are planted to test the tests have no place in a binary that people run.
const _: () = assert!(!tidegate_stream::PLANTED, "the feature `plant` is for the simulation only");

pub mod cli;
pub mod demo;
pub mod jobs;
pub mod limits;

pub use tidegate_memory::Accounted as Allocator;
pub use tidegate_record as record;
pub use tidegate_stream as stream;
pub use tidegate_stream::connect;
pub use tidegate_stream::sink::SinkContext;
pub use tidegate_stream::source::SourceContext;
pub use tidegate_stream::{
    AggregateFunction, Args, ArgsError, BuildError, Collector, FilterFunction, FlatMapFunction, Fork, Job,
    JobEntry, JobResult, Jobs, Keyed, MapFunction, ProcessFunction, ReduceFunction, RuntimeContext, Sink,
    SinkWriter, Source, SourceReader, Stream, TaskError, Value, View,
};

/// The `main` of a binary with these jobs: roles, clients and `run`, by the command line of the process.
///
/// ```no_run
/// # fn flights(_: &mut tidegate::Job, _: &tidegate::Args) -> tidegate::JobResult { Ok(()) }
/// #[global_allocator]
/// static HEAP: tidegate::Allocator = tidegate::Allocator::new();
///
/// fn main() -> std::process::ExitCode {
///     tidegate::main(tidegate::Jobs::new([("flights", flights)]))
/// }
/// ```
pub fn main(jobs: Jobs) -> std::process::ExitCode {
    cli::App::new(jobs).run()
}
