//! Latency under a load that does not wait: how late records come at one rate, through Tidegate and through Flink at each of its
//! buffer timeouts.
//!
//! Always: arrival minus due; a run that did not reach 99 % of the rate is counted as invalid.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use serde::Serialize;

use super::{Contender, Failed, Options, Series, Who, interleave, settings, spread, tuned};
use crate::compare::tidegate::Tidegate;
use crate::flink::{self, latency};
use crate::table::Table;

pub use crate::flink::latency::Quantiles;

/// What of a run is compared.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sample {
    pub latency_us: Quantiles,
    pub achieved_per_second: f64,
    pub valid: bool,
}

/// One rate. The first line is Tidegate's.
#[derive(Debug, Serialize)]
pub struct Section {
    pub title: String,
    pub rate: u64,
    pub lines: Vec<Line>,
}

/// One of those who bore it.
#[derive(Debug, Serialize)]
pub struct Line {
    pub name: String,
    pub settings: BTreeMap<String, String>,
    pub samples: Vec<Sample>,
    /// Runs that reached the rate.
    pub valid: u32,
    /// Medians, microseconds.
    pub latency_us: Quantiles,
    /// This one's latency by Tidegate's, of rounds in which both runs are valid, if there are any: median, least, greatest.
    pub p50_ratio: Option<[f64; 3]>,
    pub p99_ratio: Option<[f64; 3]>,
}

/// Compares them under it.
///
/// # Errors
/// Tidegate failed.
pub fn section(
    options: &Options,
    tidegate: &Tidegate,
    rate: u64,
    failed: &mut Vec<Failed>,
) -> Result<Section, Box<dyn Error>> {
    let title = format!("Latency at {rate} records of 16 bytes a second, arrival minus due");
    eprintln!("{title}");
    let load = latency::Load { rate, seconds: options.seconds, cores: options.cores, ..tuned() };
    let mut contenders = vec![Contender {
        name: "tidegate".to_owned(),
        work: load.clone(),
        run: Box::new(|load: &latency::Load| tidegate.latency(load)),
    }];
    let timeouts = if options.peers.contains(&Who::Flink) { options.buffer_timeouts.as_slice() } else { &[] };
    for &buffer_timeout in timeouts {
        let tuning = flink::Tuning { place: options.flink.clone(), buffer_timeout, ..tuned() };
        contenders.push(Contender {
            name: format!("flink, buffer timeout {buffer_timeout} ms"),
            work: load.clone(),
            run: Box::new(move |load: &latency::Load| {
                let found = load.measure(&tuning)?;
                let (achieved_per_second, valid) = (found.achieved_per_second, found.valid);
                Ok((Sample { latency_us: found.latency_us, achieved_per_second, valid }, found.settings))
            }),
        });
    }
    let says = |sample: &Sample| {
        let Quantiles { p50, p99, .. } = sample.latency_us;
        format!("p50 {p50:.0} us, p99 {p99:.0} us{}", if sample.valid { "" } else { ", INVALID" })
    };
    let all = interleave(options.pairs, &title, contenders, failed, says)?;
    Ok(Section { title, rate, lines: lines(&all) })
}

fn lines(all: &[Series<Sample>]) -> Vec<Line> {
    let tidegate = all.first().map(|series| series.samples.as_slice()).unwrap_or_default();
    let line = |series: &Series<Sample>| {
        let middle = |pick: fn(&Quantiles) -> f64| {
            spread(&series.samples.iter().map(|sample| pick(&sample.latency_us)).collect::<Vec<f64>>())[0]
        };
        let by = |pick: fn(&Quantiles) -> f64| {
            let ratio =
                |(own, tidegate): (&Sample, &Sample)| pick(&own.latency_us) / pick(&tidegate.latency_us);
            let rounds = series.samples.iter().zip(tidegate).filter(|(own, other)| own.valid && other.valid);
            let ratios: Vec<f64> = rounds.map(ratio).collect();
            (!ratios.is_empty()).then(|| spread(&ratios))
        };
        Line {
            name: series.name.clone(),
            settings: series.settings.clone(),
            samples: series.samples.clone(),
            valid: series.samples.iter().filter(|sample| sample.valid).count() as u32,
            latency_us: Quantiles {
                p50: middle(|at| at.p50),
                p90: middle(|at| at.p90),
                p99: middle(|at| at.p99),
                p99_9: middle(|at| at.p99_9),
                p99_99: middle(|at| at.p99_99),
                max: middle(|at| at.max),
            },
            p50_ratio: by(|at| at.p50),
            p99_ratio: by(|at| at.p99),
        }
    };
    all.iter().map(line).collect()
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new([
            "system",
            "p50 us",
            "p90",
            "p99",
            "p99.9",
            "p99.99",
            "max",
            "valid runs",
            "p50 by Tidegate's",
            "p99 by Tidegate's",
        ]);
        for line in &self.lines {
            let at = &line.latency_us;
            let mut row = vec![line.name.clone()];
            row.extend([at.p50, at.p90, at.p99, at.p99_9, at.p99_99, at.max].map(|us| format!("{us:.0}")));
            row.push(format!("{} of {}", line.valid, line.samples.len()));
            row.extend([line.p50_ratio, line.p99_ratio].map(|of| {
                of.map_or("no valid round".to_owned(), |[ratio, least, most]| {
                    format!("{ratio:.2} ({least:.2} to {most:.2})")
                })
            }));
            table.row(row);
        }
        writeln!(f, "### {}\n\n{table}", self.title)?;
        write!(f, "{}", settings(self.lines.iter().map(|line| (line.name.as_str(), &line.settings))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_rounds_that_are_valid_on_both_sides_and_invalid_runs_are_counted() {
        let sample = |us: f64, valid| Sample {
            latency_us: Quantiles { p50: us, p90: us, p99: 2.0 * us, p99_9: us, p99_99: us, max: us },
            achieved_per_second: 1.0,
            valid,
        };
        let series = |name: &str, samples: Vec<Sample>| Series {
            name: name.to_owned(),
            settings: BTreeMap::new(),
            samples,
        };
        let lines = lines(&[
            series("tidegate", vec![sample(10.0, true), sample(20.0, true)]),
            series("flink", vec![sample(50.0, true), sample(60.0, false)]),
            series("flink, late", vec![sample(50.0, false), sample(60.0, false)]),
        ]);
        assert_eq!((lines[1].p50_ratio, lines[1].valid), (Some([5.0; 3]), 1));
        assert_eq!((lines[2].p50_ratio, lines[2].valid), (None, 0));
        let text = Section { title: "T".to_owned(), rate: 1, lines }.to_string();
        assert!(text.contains("1 of 2") && text.contains("5.00 (5.00 to 5.00)"), "{text}");
        assert!(text.contains("no valid round"), "{text}");
    }
}
