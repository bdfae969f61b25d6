//! Flink's latency under a load that does not wait: each record carries the time it was due, and arrival minus due counts.
//!
//! Always: a run that did not reach 99 % of the rate says it is invalid; both clocks are the machine's monotonic one.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::cluster::Cluster;
use super::{SOURCE_FILE, Tuning};
use crate::forms;
use crate::meter::{self, Side};
use crate::outcome::{print_json, print_rows};
use crate::work::two_cores;

/// What the receiving end found.
const LATENCY_FILE: &str = "latency.json";
/// The part of the rate below which a run is invalid.
const RATE_PART: f64 = 0.99;

/// How long Flink may take to start and to end, and to catch up when it is overloaded.
const START_MAX: Duration = Duration::from_secs(120);

/// How the source waits for the next record's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Wait {
    /// Let others run, as long as there are any
    Yield,
    /// Sleep until then
    Sleep,
    /// Ask the clock again
    Spin,
}

/// What is offered.
#[derive(Debug, Clone, Args)]
pub struct Load {
    /// Records per second
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub rate: u64,
    /// Seconds that are measured
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Seconds before them
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub warm_up_seconds: u64,
    /// How the source waits for the next record's time
    #[arg(long, value_enum, default_value_t = Wait::Yield)]
    pub wait: Wait,
    /// Cores of the two ends
    #[arg(long, value_name = "A,B", value_parser = two_cores, default_value = "0,1")]
    pub cores: [usize; 2],
}

/// What the receiving end found.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Found {
    pid: u32,
    records: u64,
    checksum: u64,
    measured: u64,
    seconds: f64,
    latency_us: Quantiles,
}

/// Latencies, microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub p99_99: f64,
    pub max: f64,
}

/// A finished run.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Who did it.
    pub peer: String,
    /// Records per second that were offered.
    pub rate: u64,
    /// Records per second that arrived.
    pub achieved_per_second: f64,
    /// Whether that is enough for the latencies to mean something.
    pub valid: bool,
    /// Records measured.
    pub records_received: u64,
    /// From the first of them, when it was due, to the last, when it arrived.
    pub seconds: f64,
    /// Arrival minus due.
    pub latency_us: Quantiles,
    /// How it was set up.
    pub settings: BTreeMap<String, String>,
}

impl Load {
    /// Runs Flink under it.
    ///
    /// # Errors
    /// The run failed or took too long, or records are missing.
    pub fn measure(&self, tuning: &Tuning) -> Result<Outcome, Box<dyn Error>> {
        let distribution = tuning.distribution()?;
        let cluster = Cluster::prepare(&distribution, tuning, self.cores)?;
        let (records, warm_up) = (self.rate * self.seconds, self.rate * self.warm_up_seconds);
        let wait = self.wait.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let words = [
            ("--shape", "latency".to_owned()),
            ("--records", records.to_string()),
            ("--warm-up", warm_up.to_string()),
            ("--rate", self.rate.to_string()),
            ("--wait", wait.clone()),
        ];
        let words: Vec<String> = words.into_iter().flat_map(|(flag, word)| [flag.to_owned(), word]).collect();
        let time_out = Duration::from_secs(2 * (self.seconds + self.warm_up_seconds)) + START_MAX;
        cluster.run(&words, time_out)?;
        let found: Found = meter::read(&cluster.dir().join(LATENCY_FILE))?;
        let source: Side = meter::read(&cluster.dir().join(SOURCE_FILE))?;
        let mut settings = tuning.settings(&distribution);
        settings.insert("source waits by".to_owned(), wait);
        self.checked(&found, source.pid, settings)
    }

    fn checked(
        &self,
        found: &Found,
        source: u32,
        settings: BTreeMap<String, String>,
    ) -> Result<Outcome, Box<dyn Error>> {
        let all = self.rate * (self.seconds + self.warm_up_seconds);
        let right = found.records == all && found.checksum == forms::sum_of_numbers(all);
        if !right || found.measured != self.rate * self.seconds || source == found.pid {
            return Err(
                format!("flink: expected {all} records between two processes, found {found:?}").into()
            );
        }
        let achieved = found.measured as f64 / found.seconds;
        Ok(Outcome {
            peer: "flink".to_owned(),
            rate: self.rate,
            achieved_per_second: achieved,
            valid: achieved >= RATE_PART * self.rate as f64,
            records_received: found.measured,
            seconds: found.seconds,
            latency_us: found.latency_us,
            settings,
        })
    }
}

impl Outcome {
    /// Prints it.
    pub fn print(&self, json: bool) {
        if json {
            print_json(self);
            return;
        }
        let micros = |us: f64| format!("{us:.0} us");
        let valid = if self.valid { "" } else { ": INVALID, below 99 % of what was offered" };
        let at = &self.latency_us;
        let mut rows = vec![
            ("offered", format!("{} records/s for {:.1} s", self.rate, self.seconds)),
            ("achieved", format!("{:.0} records/s{valid}", self.achieved_per_second)),
            ("p50", micros(at.p50)),
            ("p90", micros(at.p90)),
            ("p99", micros(at.p99)),
            ("p99.9", micros(at.p99_9)),
            ("p99.99", micros(at.p99_99)),
            ("max", micros(at.max)),
        ];
        rows.extend(self.settings.iter().map(|(name, value)| (name.as_str(), value.clone())));
        print_rows(&self.peer, &rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_below_the_rate_is_invalid_and_missing_records_are_an_error() {
        let load = Load { rate: 1_000, seconds: 2, warm_up_seconds: 1, wait: Wait::Yield, cores: [0, 1] };
        let text = r#"{"pid":2,"records":3000,"checksum":4498500,"measured":2000,"seconds":2.01,
            "latency_us":{"p50":1.0,"p90":2.0,"p99":3.0,"p99_9":4.0,"p99_99":5.0,"max":9.0}}"#;
        let found: Found = serde_json::from_str(text).unwrap();
        assert!(load.checked(&found, 1, BTreeMap::new()).unwrap().valid);
        let slow = Found { seconds: 2.1, ..found };
        assert!(!load.checked(&slow, 1, BTreeMap::new()).unwrap().valid);
        for wrong in [Found { records: 2999, ..found }, Found { checksum: 1, ..found }] {
            assert!(load.checked(&wrong, 1, BTreeMap::new()).is_err());
        }
        assert!(load.checked(&found, 2, BTreeMap::new()).is_err(), "one process");
    }
}
