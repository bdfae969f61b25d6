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
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Sample {
    /// Records per second.
    pub records_per_second: f64,
    /// Payload bytes per second.
    pub bytes_per_second: f64,
    /// Processor time of the processes that move the records, per record, nanoseconds.
    pub cpu_ns_per_record: f64,
    /// Of that, on either core.
    pub ends_ns: [f64; 2],
    /// Heap allocations of the two ends after the warm-up.
    pub heap_allocations: u64,
    /// What the engine did for it, where there is one.
    pub effort: Option<Effort>,
}

/// What the engine did in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Effort {
    /// The part of the payload bytes that were copied: into staging, which is the one place where that happens.
    pub copied_part: f64,
    /// Calls into the kernel, of both ends together, for each 64 KiB that crossed the network.
    pub enters_per_64k: f64,
}

impl Sample {
    /// Of a finished run.
    pub fn of<D: Details>(outcome: &Outcome<D>) -> Self {
        Self {
            records_per_second: outcome.records_per_second,
            bytes_per_second: outcome.bytes_per_second,
            cpu_ns_per_record: outcome.cpu_ns_per_record(),
            ends_ns: outcome.ends_ns(),
            heap_allocations: outcome.heap_allocations,
            effort: outcome.details.effort(),
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
    /// Those that failed, which have no series.
    pub failed: Vec<Failed>,
}

/// A benchmark that was left out, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    pub name: String,
    pub error: String,
}

/// A benchmark that can be run again and again.
pub type Run<'a> = (&'a str, Box<dyn FnMut() -> Result<Sample, Box<dyn Error>> + 'a>);

/// Runs all of them `rounds` times in turns. One that fails is left out from then on, and named; the others go on.
pub fn interleave(rounds: u32, mut runs: Vec<Run<'_>>) -> Comparison {
    let mut series: Vec<Series> =
        runs.iter().map(|(name, _)| Series { name: (*name).to_owned(), samples: Vec::new() }).collect();
    let mut failed = Vec::new();
    for round in 1..=rounds {
        let mut at = 0;
        while let Some((name, run)) = runs.get_mut(at) {
            match run() {
                Ok(sample) => {
                    let rate = sample.records_per_second / 1e6;
                    eprintln!("round {round} of {rounds}: {name} {rate:.2} M records/s");
                    series[at].samples.push(sample);
                    at += 1;
                }
                Err(error) => {
                    eprintln!("round {round} of {rounds}: {name} failed: {error}");
                    failed.push(Failed { name: (*name).to_owned(), error: error.to_string() });
                    drop(runs.remove(at));
                    series.remove(at);
                }
            }
        }
    }
    Comparison::of(series, failed)
}

impl Comparison {
    pub fn of(series: Vec<Series>, failed: Vec<Failed>) -> Self {
        let first = series.first().map(|series| series.samples.clone()).unwrap_or_default();
        let summaries = series.iter().map(|series| summary(series, &first)).collect();
        Self { rounds: first.len() as u32, series, summaries, failed }
    }

    /// What one benchmark gave: median, least and greatest.
    pub fn figure(&self, name: &str, pick: impl Fn(&Sample) -> f64) -> Option<[f64; 3]> {
        let series = self.series.iter().find(|series| series.name == name)?;
        let of: Vec<f64> = series.samples.iter().map(pick).collect();
        (!of.is_empty()).then(|| spread(&of))
    }

    /// What one gave by what another gave in the same round.
    pub fn ratio(&self, name: &str, of: &str, pick: impl Fn(&Sample) -> f64) -> Option<[f64; 3]> {
        let series = |name: &str| self.series.iter().find(|series| series.name == name);
        let rounds = series(name)?.samples.iter().zip(&series(of)?.samples);
        let ratios: Vec<f64> = rounds.map(|(own, other)| pick(own) / pick(other)).collect();
        (!ratios.is_empty()).then(|| spread(&ratios))
    }

    /// The benchmarks that failed, as an error.
    ///
    /// # Errors
    /// If there are any.
    pub fn whole(self) -> Result<Self, String> {
        match self.failed.first() {
            None => Ok(self),
            Some(Failed { name, error }) => Err(format!("{name}: {error}")),
        }
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
        for Failed { name, error } in &self.failed {
            table.row([name.clone(), format!("failed: {}", error.lines().next().unwrap_or_default())]);
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

/// Median, least and greatest.
pub fn spread(samples: &[f64]) -> [f64; 3] {
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
            ..Sample::default()
        };
        let comparison = interleave(
            3,
            vec![
                ("floor", Box::new(|| Ok(sample(floor.next().ok_or("no more")?)))),
                ("engine", Box::new(|| Ok(sample(engine.next().ok_or("no more")?)))),
            ],
        );
        assert_eq!(comparison.ratio("engine", "floor", |s| s.records_per_second), Some([0.5, 0.2, 0.5]));
        assert_eq!(comparison.figure("engine", |s| s.records_per_second), Some([5.0, 4.0, 20.0]));
        assert_eq!(comparison.figure("nobody", |s| s.records_per_second), None);
        let engine = &comparison.summaries[1];
        assert_eq!(engine.records_per_second, [5.0, 4.0, 20.0]);
        assert_eq!(engine.rate_ratio, [0.5, 0.2, 0.5]);
        assert_eq!(engine.cpu_ratio, 2.0);
        assert_eq!(comparison.summaries[0].rate_ratio, [1.0; 3]);
        assert_eq!(comparison.table().to_string().lines().count(), 4);
    }

    #[test]
    fn a_failed_run_is_named_and_the_others_go_on() {
        let good = Sample { records_per_second: 1.0, ..Sample::default() };
        let bad: Run<'_> = ("floor", Box::new(|| Err("no luck".into())));
        let comparison = interleave(2, vec![bad, ("engine", Box::new(|| Ok(good)))]);
        assert_eq!((comparison.rounds, comparison.series.len()), (2, 1));
        assert!(comparison.table().to_string().contains("failed: no luck"));
        assert_eq!(comparison.whole().unwrap_err(), "floor: no luck");
    }
}
