//! The report's section on latency: some rates, in turns, and the medians of what was found. No state.

use std::error::Error;

use serde::Serialize;

use crate::latency::{self, Latency};
use crate::shuffle::Engine;
use crate::stats::{median, range};
use crate::table::Table;

/// How long a slot spins where it does.
const SPIN_US: u32 = 2_000;

/// One load and its runs, one per round.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    name: String,
    runs: Vec<Latency>,
}

/// All loads.
#[derive(Debug, Clone, Serialize)]
pub struct Latencies {
    series: Vec<Series>,
}

/// The loads, and how each is asked for.
fn loads(quick: bool) -> Vec<(String, Option<u64>, Option<u32>, u32)> {
    if quick {
        return vec![("1,000 records/s".to_owned(), Some(1_000), None, 0)];
    }
    vec![
        ("1,000 records/s".to_owned(), Some(1_000), None, 0),
        (format!("1,000 records/s, spinning up to {SPIN_US} us"), Some(1_000), None, SPIN_US),
        ("100,000 records/s".to_owned(), Some(100_000), None, 0),
        ("1,000,000 records/s".to_owned(), Some(1_000_000), None, 0),
        ("half of the most".to_owned(), None, Some(50), 0),
    ]
}

/// Runs each load `rounds` times in turns.
///
/// # Errors
/// A run failed.
pub fn measure(
    rounds: u32,
    seconds: f64,
    quick: bool,
    cores: [usize; 2],
) -> Result<Latencies, Box<dyn Error>> {
    let loads = loads(quick);
    let mut series: Vec<Series> =
        loads.iter().map(|(name, ..)| Series { name: name.clone(), runs: Vec::new() }).collect();
    for round in 1..=rounds {
        for ((name, rate, load, spin), series) in loads.iter().zip(&mut series) {
            let engine = Engine { spin: *spin, ..Engine::default() };
            let warmup = seconds / 5.0;
            let options = latency::Options::of(*rate, *load, seconds, warmup, cores, engine);
            let found =
                latency::measure(&options).map_err(|error| format!("{name}, round {round}: {error}"))?;
            eprintln!("round {round} of {rounds}: {name} p50 {:.1} us", found.latency_us.p50);
            series.runs.push(found);
        }
    }
    Ok(Latencies { series })
}

impl Series {
    fn median(&self, of: impl Fn(&Latency) -> f64) -> String {
        let samples: Vec<f64> = self.runs.iter().map(of).collect();
        format!("{:.1}", median(&samples).unwrap_or(f64::NAN))
    }

    fn spread(&self, of: impl Fn(&Latency) -> f64) -> String {
        let samples: Vec<f64> = self.runs.iter().map(of).collect();
        let (least, most) = range(&samples).unwrap_or((f64::NAN, f64::NAN));
        format!("{:.2}, {least:.2} to {most:.2}", median(&samples).unwrap_or(f64::NAN))
    }
}

impl Latencies {
    /// As a table, with a line for each bare socket below its engine's.
    pub fn table(&self) -> Table {
        let mut table = Table::new([
            "offered",
            "p50 us",
            "p90",
            "p99",
            "p99.9",
            "p99.99",
            "max",
            "p50 to TCP one way",
            "p50 to bare socket",
            "CPU ns/record",
            "valid",
        ]);
        for series in &self.series {
            let valid = series.runs.iter().filter(|run| run.valid).count();
            table.row([
                series.name.clone(),
                series.median(|run| run.latency_us.p50),
                series.median(|run| run.latency_us.p90),
                series.median(|run| run.latency_us.p99),
                series.median(|run| run.latency_us.p99_9),
                series.median(|run| run.latency_us.p99_99),
                series.median(|run| run.latency_us.max),
                series.spread(|run| run.p50_to_one_way),
                series.spread(|run| run.p50_to_bare),
                series.median(|run| run.cpu_ns_per_record),
                format!("{valid} of {}", series.runs.len()),
            ]);
            table.row([
                "… by a bare socket".to_owned(),
                series.median(|run| run.bare_us.p50),
                series.median(|run| run.bare_us.p90),
                series.median(|run| run.bare_us.p99),
                series.median(|run| run.bare_us.p99_9),
                series.median(|run| run.bare_us.p99_99),
                series.median(|run| run.bare_us.max),
            ]);
        }
        table
    }
}
