//! The report's section on latency: some rates, in turns, and the medians of what was found. No state.

use serde::Serialize;

use super::{QUICK_SECONDS, Turns};
use crate::latency::{self, Latency};
use crate::pairs::{Failed, spread};
use crate::shuffle::Engine;
use crate::stats::{median, range};
use crate::table::Table;

/// How long a slot spins where it does.
const SPIN_US: u32 = 2_000;
/// What a run takes beside what it measures: a ping-pong, a bare socket at the same rate, processes that start.
const AROUND_SECONDS: f64 = 7.0;

/// Names of loads that goals ask about.
pub const UNLOADED: &str = "1,000 records/s";
pub const SPINNING: &str = "1,000 records/s, spinning up to 2,000 us";

/// One load and its runs, one per round.
#[derive(Debug, Clone, Serialize)]
pub struct Series {
    pub name: String,
    pub runs: Vec<Latency>,
}

/// All loads.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Latencies {
    pub series: Vec<Series>,
    /// Those that failed, which have no series.
    pub failed: Vec<Failed>,
}

/// How a load is asked for.
#[derive(Debug, Clone, Copy)]
struct Load {
    name: &'static str,
    rate: Option<u64>,
    percent: Option<u32>,
    spin: Option<u32>,
}

/// The loads. Rates at which other systems are measured, too, are measured there.
fn loads(quick: bool, beside_peers: bool) -> Vec<Load> {
    let rate = |name, rate, spin| Load { name, rate: Some(rate), percent: None, spin };
    let mut loads = vec![rate(UNLOADED, 1_000, None), rate(SPINNING, 1_000, Some(SPIN_US))];
    if quick {
        return loads;
    }
    if !beside_peers {
        loads
            .extend([rate("100,000 records/s", 100_000, None), rate("1,000,000 records/s", 1_000_000, None)]);
    }
    loads.push(Load { name: "half of the most", rate: None, percent: Some(50), spin: None });
    loads
}

/// How long it will take, about.
pub fn seconds(turns: Turns, beside_peers: bool) -> f64 {
    let loads = loads(turns.quick, beside_peers).len() as f64;
    f64::from(turns.rounds) * loads * (turns.seconds * 1.2 + AROUND_SECONDS)
}

/// Runs each load in turns. One that fails is left out from then on, and named.
pub fn measure(turns: Turns, beside_peers: bool) -> Latencies {
    let seconds = if turns.quick { QUICK_SECONDS } else { turns.seconds };
    let mut loads = loads(turns.quick, beside_peers);
    let series = loads.iter().map(|load| Series { name: load.name.to_owned(), runs: Vec::new() });
    let mut found = Latencies { series: series.collect(), failed: Vec::new() };
    for round in 1..=turns.rounds {
        let mut at = 0;
        while let Some(&Load { name, rate, percent, spin }) = loads.get(at) {
            let engine = Engine { spin, ..Engine::default() };
            let options = latency::Options::of(rate, percent, seconds, seconds / 5.0, turns.cores, engine);
            match latency::measure(&options) {
                Ok(run) => {
                    eprintln!("round {round} of {}: {name} p50 {:.1} us", turns.rounds, run.latency_us.p50);
                    found.series[at].runs.push(run);
                    at += 1;
                }
                Err(error) => {
                    eprintln!("round {round} of {}: {name} failed: {error}", turns.rounds);
                    found.failed.push(Failed { name: name.to_owned(), error: error.to_string() });
                    found.series.remove(at);
                    loads.remove(at);
                }
            }
        }
    }
    found
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
    /// What valid runs of a load gave: median, least, greatest.
    pub fn figure(&self, name: &str, of: impl Fn(&Latency) -> f64) -> Option<[f64; 3]> {
        let series = self.series.iter().find(|series| series.name == name)?;
        let samples: Vec<f64> = series.runs.iter().filter(|run| run.valid).map(of).collect();
        (!samples.is_empty()).then(|| spread(&samples))
    }

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
        for Failed { name, error } in &self.failed {
            table.row([name.clone(), format!("failed: {}", error.lines().next().unwrap_or_default())]);
        }
        table
    }
}
