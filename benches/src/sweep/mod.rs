//! `sweep`: how the exchange's costs grow with the size of records, the number of channels, fan-out, the size of segments,
//! skew, broadcast and the flush interval; and the constants of a cost model that is fitted to all runs.
//!
//! Always: every run is checked (each record came once), rounds take all points in turns, and figures are medians of rounds.

mod fit;
mod plot;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::exchange::{self, Found, Setup, Side, wire_bytes};
use crate::outcome::print_json;
use crate::stats::{median, range};
use crate::table::Table;
use crate::work::two_cores;
pub use fit::{Fit, NAMES};
use fit::{Row, fit};
use plot::{Chart, Line, Point, number};

/// How long a run takes with `--quick`.
const QUICK: Duration = Duration::from_millis(20);

/// What is varied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Bytes of a record, 16 to 65,536
    Record,
    /// Channels of the link, 1 to 10,000
    Channels,
    /// Producers and consumers, 1 x 1 to 50 x 50
    Fanout,
    /// Bytes of a segment, 4 KiB to 1 MiB
    Segment,
    /// The part of all records that goes to one of 1,000 channels
    Skew,
    /// Consumers of the same records, 1 to 64
    Broadcast,
    /// Milliseconds that a partly filled segment of one of 1,000 channels waits for more, 0 to 100
    Flush,
}

/// Flags of `sweep`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// What is varied; all of it in turn unless told
    #[arg(long, value_enum)]
    pub what: Option<What>,
    /// How long a run takes, seconds
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
    /// How often each runs
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// One round of tiny runs, the largest left out: good for nothing but to see that it works
    #[arg(long)]
    pub quick: bool,
    /// Where the charts go, a file each
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Cores of the two ends
    #[arg(long, value_name = "A,B", value_parser = two_cores, default_value = "0,1")]
    pub cores: [usize; 2],
    /// One JSON object on the last line of stdout
    #[arg(long)]
    pub json: bool,
}

/// One point of a sweep.
#[derive(Debug, Clone, Serialize)]
struct Measured {
    /// What is varied.
    x: f64,
    label: String,
    setup: Setup,
    /// One per round.
    rounds: Vec<Found>,
}

/// What is drawn or told of a run.
type Figure = fn(&Found) -> f64;

/// One sweep.
#[derive(Debug, Clone, Serialize)]
struct Sweep {
    what: &'static str,
    points: Vec<Measured>,
}

/// All of them.
#[derive(Debug, Clone, Serialize)]
struct Sweeps {
    sweeps: Vec<Sweep>,
    #[serde(flatten)]
    costs: Costs,
}

/// The constants of the cost model.
#[derive(Debug, Clone, Serialize)]
pub struct Costs {
    /// Processor time of the sending thread, if there are enough runs to tell.
    pub sender: Option<Fit>,
    /// And of the receiving one.
    pub receiver: Option<Fit>,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Channels => "channels",
            Self::Fanout => "fanout",
            Self::Segment => "segment",
            Self::Skew => "skew",
            Self::Broadcast => "broadcast",
            Self::Flush => "flush",
        }
    }

    /// Of the axis.
    fn axis(self) -> &'static str {
        match self {
            Self::Record => "bytes of a record",
            Self::Channels => "channels of the link",
            Self::Fanout => "producers, and as many consumers",
            Self::Segment => "bytes of a segment",
            Self::Skew => "per cent of records on one channel of 1,000, beside its share",
            Self::Broadcast => "consumers of each record",
            Self::Flush => "ms that a segment of 1,000 channels waits for more",
        }
    }

    /// Of a point.
    fn label(self, x: f64) -> String {
        match self {
            Self::Segment => format!("{} KiB", x / 1_024.0),
            Self::Skew => format!("{x} %"),
            Self::Fanout => format!("{x} x {x}"),
            Self::Flush if x < 1.0 => "0 ms".to_owned(),
            Self::Flush => format!("{x} ms"),
            _ => number(x),
        }
    }

    /// What runs, by what is varied; the quick ones first.
    fn setups(self, quick: bool) -> Vec<(f64, Setup)> {
        let one = Setup::ONE;
        let all: Vec<(f64, Setup)> = match self {
            Self::Record => [16, 32, 64, 100, 256, 1_000, 4_000, 16_000, 32_000, 65_536]
                .map(|record_bytes| {
                    let segment =
                        (wire_bytes(record_bytes) as u32).next_power_of_two().max(one.segment_bytes);
                    (record_bytes as f64, Setup { record_bytes, segment_bytes: segment, ..one })
                })
                .to_vec(),
            // Smaller segments than usual, so that 10,000 channels have one each.
            Self::Channels => [(1, 1), (2, 5), (10, 10), (25, 40), (100, 100)]
                .map(|(producers, consumers)| {
                    let setup = Setup { producers, consumers, segment_bytes: 8 << 10, ..one };
                    (f64::from(producers * consumers), setup)
                })
                .to_vec(),
            Self::Fanout => [1, 2, 5, 10, 20, 50]
                .map(|tasks| (f64::from(tasks), Setup { producers: tasks, consumers: tasks, ..one }))
                .to_vec(),
            Self::Segment => [12, 13, 14, 15, 16, 17, 18, 19, 20]
                .map(|bits| (f64::from(1 << bits), Setup { segment_bytes: 1 << bits, ..one }))
                .to_vec(),
            Self::Skew => [1, 10, 50, 90, 99, 100]
                .map(|percent| {
                    let hot = f64::from(percent) / 100.0;
                    (
                        f64::from(percent),
                        Setup { producers: 25, consumers: 40, segment_bytes: 8 << 10, hot, ..one },
                    )
                })
                .to_vec(),
            Self::Broadcast => [1, 2, 4, 8, 16, 32, 64]
                .map(|consumers| (f64::from(consumers), Setup { consumers, broadcast: true, ..one }))
                .to_vec(),
            // No waiting has a place on a logarithmic axis, too.
            Self::Flush => [(0.1, 0), (1.0, 1), (3.0, 3), (10.0, 10), (30.0, 30), (100.0, 100)]
                .map(|(x, flush_ms)| {
                    let many = Setup { producers: 25, consumers: 40, segment_bytes: 8 << 10, ..one };
                    (x, Setup { flush_ms, ..many })
                })
                .to_vec(),
        };
        let few = |(_, setup): &(f64, Setup)| setup.producers * setup.consumers <= 100;
        if !quick {
            return all;
        }
        all.into_iter()
            .filter(|point| few(point) || matches!(self, Self::Skew | Self::Flush))
            .take(5)
            .collect()
    }
}

/// Runs it, prints what it found, and draws it.
///
/// # Errors
/// A run failed, or a chart cannot be written.
pub fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let whats = options.what.map_or_else(|| What::value_variants().to_vec(), |what| vec![what]);
    let sweeps = whats.into_iter().map(|what| sweep(what, options)).collect::<Result<Vec<_>, _>>()?;
    let sweeps = Sweeps { costs: Costs::of(&sweeps), sweeps };
    if let Some(dir) = &options.out {
        sweeps.draw(dir)?;
    }
    if options.json {
        print_json(&sweeps);
    } else {
        sweeps.print();
    }
    Ok(())
}

/// The constants alone, from one short run of every point of the sweeps that tell them apart.
///
/// # Errors
/// A run failed.
pub fn costs(seconds: f64, quick: bool, cores: [usize; 2]) -> Result<Costs, Box<dyn Error>> {
    let options = Options { what: None, seconds, rounds: 1, quick, out: None, cores, json: false };
    let whats = [What::Record, What::Channels, What::Segment];
    let sweeps = whats.into_iter().map(|what| sweep(what, &options)).collect::<Result<Vec<_>, _>>()?;
    Ok(Costs::of(&sweeps))
}

fn sweep(what: What, options: &Options) -> Result<Sweep, Box<dyn Error>> {
    let (rounds, time) = match options.quick {
        true => (1, QUICK),
        false => (options.rounds, Duration::from_secs_f64(options.seconds.clamp(0.001, 600.0))),
    };
    let setups = what.setups(options.quick);
    let mut points: Vec<Measured> = setups
        .into_iter()
        .map(|(x, setup)| Measured { x, label: what.label(x), setup, rounds: Vec::new() })
        .collect();
    for round in 1..=rounds {
        for point in &mut points {
            let found = exchange::run(&point.setup, time, options.cores)
                .map_err(|error| format!("{} {}, round {round}: {error}", what.name(), point.label))?;
            eprintln!(
                "round {round} of {rounds}: {} {} {:.2} M records/s",
                what.name(),
                point.label,
                found.per_second() / 1e6
            );
            point.rounds.push(found);
        }
    }
    Ok(Sweep { what: what.name(), points })
}

/// The model of one side over all runs.
fn fitted(sweeps: &[Sweep], side: fn(&Found) -> Side) -> Option<Fit> {
    let found = sweeps.iter().flat_map(|sweep| &sweep.points).flat_map(|point| &point.rounds);
    let rows: Vec<Row> = found
        .map(side)
        .map(|side| Row {
            counts: [side.records, side.bytes, side.trains, side.waits].map(|count| count as f64),
            ns: side.cpu_ns as f64,
        })
        .collect();
    fit(&rows)
}

impl Costs {
    fn of(sweeps: &[Sweep]) -> Self {
        Self {
            sender: fitted(sweeps, |found| found.sender),
            receiver: fitted(sweeps, |found| found.receiver),
        }
    }

    /// As a table.
    pub fn table(&self) -> Table {
        let [record, byte, train, wake] = NAMES;
        let mut table = Table::new(["CPU, ns", record, byte, train, wake, "residual", "worst"]);
        for (name, fit) in [("sender", &self.sender), ("receiver", &self.receiver)] {
            match fit {
                Some(Fit { costs: [record, byte, train, wake], residual, worst }) => table.row([
                    name.to_owned(),
                    format!("{record:.2}"),
                    format!("{byte:.3}"),
                    format!("{train:.0}"),
                    format!("{wake:.0}"),
                    format!("{:.0} %", residual * 100.0),
                    format!("{:.0} %", worst * 100.0),
                ]),
                None => table.row([name.to_owned(), "too few runs, or all alike".to_owned()]),
            }
        }
        table
    }
}

impl Measured {
    fn spread(&self, of: Figure) -> [f64; 3] {
        let samples: Vec<f64> = self.rounds.iter().map(of).collect();
        let (least, most) = range(&samples).unwrap_or((f64::NAN, f64::NAN));
        [median(&samples).unwrap_or(f64::NAN), least, most]
    }
}

impl Sweep {
    fn table(&self) -> Table {
        let mut table =
            Table::new([self.what, "M records/s", "spread", "GB/s", "CPU ns/record", "spread", "KiB/train"]);
        for point in &self.points {
            let [rate, least, most] = point.spread(Found::per_second).map(|rate| rate / 1e6);
            let [cpu, cpu_least, cpu_most] = point.spread(Found::cpu_ns_per_record);
            let [bytes, ..] = point.spread(Found::bytes_per_second);
            let [train, ..] =
                point.spread(|found| found.sender.bytes as f64 / found.sender.trains.max(1) as f64 / 1_024.0);
            table.row([
                point.label.clone(),
                format!("{rate:.3}"),
                format!("{least:.3} to {most:.3}"),
                format!("{:.2}", bytes / 1e9),
                format!("{cpu:.1}"),
                format!("{cpu_least:.1} to {cpu_most:.1}"),
                format!("{train:.0}"),
            ]);
        }
        table
    }

    fn chart(&self, title: &str, unit: &str, of: &[(&str, Figure)]) -> Chart {
        let what = What::value_variants().iter().find(|what| what.name() == self.what);
        let line = |&(name, of): &(&str, Figure)| Line {
            name: name.to_owned(),
            points: self.points.iter().map(|point| Point { x: point.x, y: point.spread(of) }).collect(),
        };
        Chart {
            title: title.to_owned(),
            x: what.map_or("", |what| what.axis()).to_owned(),
            y: unit.to_owned(),
            ticks: self.points.iter().map(|point| (point.x, point.label.clone())).collect(),
            lines: of.iter().map(line).collect(),
        }
    }
}

impl Sweeps {
    fn print(&self) {
        for sweep in &self.sweeps {
            println!("{}", sweep.table());
        }
        print!("{}", self.costs.table());
    }

    /// A chart of rates and one of costs for each.
    fn draw(&self, dir: &Path) -> Result<(), Box<dyn Error>> {
        std::fs::create_dir_all(dir).map_err(|error| format!("can't make {}: {error}", dir.display()))?;
        for sweep in &self.sweeps {
            let charts = [
                (
                    "rate",
                    sweep.chart(
                        "Throughput, 1 sending and 1 receiving core",
                        "per second",
                        &[("records/s", Found::per_second), ("bytes/s", Found::bytes_per_second)],
                    ),
                ),
                (
                    "cost",
                    sweep.chart(
                        "Processor time per record",
                        "ns per record",
                        &[
                            ("both sides", Found::cpu_ns_per_record),
                            ("sender", |found| {
                                found.sender.cpu_ns as f64 / found.receiver.records.max(1) as f64
                            }),
                            ("receiver", |found| {
                                found.receiver.cpu_ns as f64 / found.receiver.records.max(1) as f64
                            }),
                        ],
                    ),
                ),
            ];
            for (name, chart) in charts {
                let path = dir.join(format!("{}-{name}.svg", sweep.what));
                let Some(svg) = chart.svg() else { continue };
                std::fs::write(&path, svg)
                    .map_err(|error| format!("can't write {}: {error}", path.display()))?;
                eprintln!("wrote {}", path.display());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sweep_has_points_that_fit_their_segments() {
        for what in What::value_variants() {
            let all = what.setups(false);
            assert!(all.len() >= 5 && what.setups(true).len() <= all.len(), "{what:?}");
            assert!(
                all.iter().all(|(_, setup)| wire_bytes(setup.record_bytes) <= setup.segment_bytes as usize)
            );
            assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0), "{what:?} grows");
        }
        assert_eq!(What::Channels.setups(false)[4].0, 10_000.0);
    }
}
