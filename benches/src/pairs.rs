//! Runs of several benchmarks in turns, so that what else the machine does hits all of them alike.
//!
//! Always: round i has one run of each, one after the other, and ratios are taken within a round. The first benchmark is
//! the one that the others are measured against.

use std::error::Error;

use serde::Serialize;

use crate::outcome::{self, Details, Outcome};
use crate::stats::{median, range};
use crate::table::Table;

/// What of a run is compared.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sample {
    /// Records per second.
    pub records_per_second: f64,
    /// Payload bytes per second.
    pub bytes_per_second: f64,
    /// Processor time of the processes that move the records, per record, nanoseconds.
    pub cpu_ns_per_record: f64,
}

impl Sample {
    /// Of a finished run.
    pub fn of<D: Details>(outcome: &Outcome<D>) -> Self {
        Self {
            records_per_second: outcome.records_per_second,
            bytes_per_second: outcome.bytes_per_second,
            cpu_ns_per_record: outcome.cpu_ns_per_record(),
        }
    }
}

/// All runs of one benchmark, in the order of the rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// One per round.
    pub samples: Vec<Sample>,
}

/// Medians of a series, and how it compares with the first one.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// The series.
    pub name: String,
    /// Median, least and greatest records per second.
    pub records_per_second: [f64; 3],
    /// Median payload bytes per second.
    pub bytes_per_second: f64,
    /// Median processor time per record, nanoseconds.
    pub cpu_ns_per_record: f64,
    /// Median, least and greatest ratio of records per second to the first series, round by round.
    pub rate_ratio: [f64; 3],
    /// Median ratio of processor time per record to the first series, round by round.
    pub cpu_ratio: f64,
}

/// Several series of the same rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// How many rounds.
    pub rounds: u32,
    /// The first is what the others are measured against.
    pub series: Vec<Series>,
    /// One per series.
    pub summaries: Vec<Summary>,
}

/// A benchmark that can be run again and again.
pub type Run<'a> = (&'a str, &'a mut dyn FnMut() -> Result<Sample, Box<dyn Error>>);

/// Runs all of them `rounds` times in turns.
///
/// # Errors
/// That of the first run that failed, with its name.
pub fn interleave(rounds: u32, runs: &mut [Run<'_>]) -> Result<Comparison, Box<dyn Error>> {
    let mut series: Vec<Series> =
        runs.iter().map(|(name, _)| Series { name: (*name).to_owned(), samples: Vec::new() }).collect();
    for round in 1..=rounds {
        for ((name, run), series) in runs.iter_mut().zip(&mut series) {
            let sample = run().map_err(|error| format!("{name}, round {round}: {error}"))?;
            eprintln!("round {round} of {rounds}: {name} {:.2} M records/s", sample.records_per_second / 1e6);
            series.samples.push(sample);
        }
    }
    Ok(Comparison::of(series))
}

impl Comparison {
    fn of(series: Vec<Series>) -> Self {
        let first = series.first().map(|series| series.samples.clone()).unwrap_or_default();
        let summaries = series.iter().map(|series| summary(series, &first)).collect();
        Self { rounds: first.len() as u32, series, summaries }
    }

    /// As a table.
    pub fn table(&self) -> Table {
        let mut table = Table::new([
            "run",
            "M records/s",
            "spread",
            "GB/s",
            "CPU ns/record",
            "rate ratio",
            "spread",
            "CPU ratio",
        ]);
        for summary in &self.summaries {
            let [rate, least, most] = summary.records_per_second.map(|rate| rate / 1e6);
            let [ratio, ratio_least, ratio_most] = summary.rate_ratio;
            table.row([
                summary.name.clone(),
                format!("{rate:.2}"),
                format!("{least:.2} to {most:.2}"),
                format!("{:.2}", summary.bytes_per_second / 1e9),
                format!("{:.1}", summary.cpu_ns_per_record),
                format!("{ratio:.2}"),
                format!("{ratio_least:.2} to {ratio_most:.2}"),
                format!("{:.2}", summary.cpu_ratio),
            ]);
        }
        table
    }

    /// Prints it.
    pub fn print(&self, json: bool) {
        if json {
            outcome::print_json(self);
        } else {
            println!("{} rounds, medians; ratios round by round, to {}\n", self.rounds, self.series[0].name);
            print!("{}", self.table());
        }
    }
}

fn summary(series: &Series, first: &[Sample]) -> Summary {
    let of = |pick: fn(&Sample) -> f64| series.samples.iter().map(pick).collect::<Vec<f64>>();
    let ratios = |pick: fn(&Sample) -> f64| {
        series.samples.iter().zip(first).map(|(own, first)| pick(own) / pick(first)).collect::<Vec<f64>>()
    };
    Summary {
        name: series.name.clone(),
        records_per_second: spread(&of(|sample| sample.records_per_second)),
        bytes_per_second: middle(&of(|sample| sample.bytes_per_second)),
        cpu_ns_per_record: middle(&of(|sample| sample.cpu_ns_per_record)),
        rate_ratio: spread(&ratios(|sample| sample.records_per_second)),
        cpu_ratio: middle(&ratios(|sample| sample.cpu_ns_per_record)),
    }
}

fn middle(samples: &[f64]) -> f64 {
    median(samples).unwrap_or(f64::NAN)
}

fn spread(samples: &[f64]) -> [f64; 3] {
    let (least, most) = range(samples).unwrap_or((f64::NAN, f64::NAN));
    [middle(samples), least, most]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_a_round() {
        let mut floor = [10.0, 20.0, 40.0].into_iter();
        let mut engine = [5.0, 4.0, 20.0].into_iter();
        let sample = |rate: f64| Sample {
            records_per_second: rate,
            bytes_per_second: 16.0 * rate,
            cpu_ns_per_record: 1e3 / rate,
        };
        let comparison = interleave(
            3,
            &mut [
                ("floor", &mut || Ok(sample(floor.next().ok_or("no more")?))),
                ("engine", &mut || Ok(sample(engine.next().ok_or("no more")?))),
            ],
        )
        .unwrap();
        let engine = &comparison.summaries[1];
        assert_eq!(engine.records_per_second, [5.0, 4.0, 20.0]);
        assert_eq!(engine.rate_ratio, [0.5, 0.2, 0.5]);
        assert_eq!(engine.cpu_ratio, 2.0);
        assert_eq!(comparison.summaries[0].rate_ratio, [1.0; 3]);
        assert_eq!(comparison.table().to_string().lines().count(), 4);
    }

    #[test]
    fn a_failed_run_is_named() {
        let error = interleave(2, &mut [("floor", &mut || Err("no luck".into()))]).unwrap_err();
        assert_eq!(error.to_string(), "floor, round 1: no luck");
    }
}
