//! `delays`: flights, cancellations and arrival delays per route and per carrier.
//!
//! Blocks of lines are spread over all slots and parsed there; each flight then goes two ways, to the slot that keeps its
//! route and to the one that keeps its carrier.

use super::figures::Figures;
use super::flight::{Code, Flight, MISSING, code_text};
use super::{FLIGHT_BLOCK_BYTES, FileArgs, describe_on_error, on_error};
use crate::connect::{CsvRow, CsvRows, CsvSink, LineFile};
use crate::record::Key;
use crate::{AggregateFunction, Args, Job, JobEntry, JobResult, TaskError};

pub(super) fn entry() -> JobEntry {
    let entry = JobEntry::new("delays", delays)
        .about("Flights, cancellations and arrival delays: part files per route under `routes`, per carrier under `carriers`.");
    describe_on_error(FileArgs::describe(entry, "flights with a header, .csv or .csv.gz", "rows"))
}

fn delays(job: &mut Job, args: &Args) -> JobResult {
    let FileArgs { input, output, rate } = FileArgs::read(args)?;
    let rows = CsvRows::new(&input, Flight::COLUMNS, Flight::read).missing(MISSING).on_error(on_error(args)?);
    let flights = job
        .source("lines", LineFile::new(&input).header(true).block_bytes(FLIGHT_BLOCK_BYTES).rate(rate))
        .rebalance()
        .flat_map_with("parse", rows)
        .fork();
    flights
        .branch()
        .key_by(|flight: &Flight| (flight.origin, flight.dest))
        .aggregate("per route", SumUp)
        .sink("routes", CsvSink::new(&output, columns(&["origin", "dest"]), route_row).folder("routes"));
    flights
        .branch()
        .key_by(|flight: &Flight| flight.carrier)
        .aggregate("per carrier", SumUp)
        .sink("carriers", CsvSink::new(&output, columns(&["carrier"]), carrier_row).folder("carriers"));
    Ok(())
}

/// What is written of one key.
type Summary<K> = (K, Figures);

fn route_row(((origin, dest), figures): &Summary<(Code, Code)>, row: &mut CsvRow<'_>) {
    row.text(code_text(origin)).text(code_text(dest));
    figures.write(row);
}

fn carrier_row((carrier, figures): &Summary<Code>, row: &mut CsvRow<'_>) {
    row.text(code_text(carrier));
    figures.write(row);
}

/// The columns of the key, and those of the figures.
fn columns(key: &[&'static str]) -> Vec<&'static str> {
    [key, &Figures::COLUMNS].concat()
}

/// The figures of a key.
#[derive(Clone)]
struct SumUp;

impl<K: Key + 'static> AggregateFunction<K, Flight> for SumUp {
    type State = Figures;
    type Out = Summary<K>;

    fn create(&mut self, _key: &K) -> Figures {
        Figures::NONE
    }

    fn add(&mut self, figures: &mut Figures, flight: &Flight) {
        figures.add(flight.cancelled(), flight.arr_delay());
    }

    fn result(&mut self, key: &K, figures: Figures) -> Result<Summary<K>, TaskError> {
        Ok((key.clone(), figures))
    }
}
