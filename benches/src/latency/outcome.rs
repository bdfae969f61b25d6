//! What a run of `latency` found, as a table and as JSON; and its histogram as the log that other tools read. No state.

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use serde::Serialize;

use super::arrivals::{Arrivals, Counts};
use super::{Options, Through};
use crate::calibrate::OneWay;
use crate::outcome::{Traffic, print_json};
use crate::table::Table;

/// What of the offered rate has to come through.
const ACHIEVED_MIN: f64 = 0.99;

/// What was offered.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Load {
    /// Records per second.
    #[serde(rename = "offered_per_second")]
    pub rate: u64,
    /// If that was derived: per cent of the most that goes through.
    #[serde(rename = "load_percent")]
    pub percent: Option<u32>,
    /// And this most.
    pub most_per_second: Option<f64>,
}

/// Latencies, microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub p99_99: f64,
    pub max: f64,
}

impl Quantiles {
    fn of(latency: &Histogram<u64>) -> Self {
        let us = |ns: u64| ns as f64 / 1e3;
        let at = |quantile| us(latency.value_at_quantile(quantile));
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            p99_99: at(0.9999),
            max: us(latency.max()),
        }
    }

    /// As cells of a table.
    pub fn cells(&self) -> impl Iterator<Item = String> + use<> {
        let Self { p50, p90, p99, p99_9, p99_99, max } = *self;
        [p50, p90, p99, p99_9, p99_99, max].into_iter().map(|us| format!("{us:.1}"))
    }
}

/// A finished run.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    #[serde(flatten)]
    pub load: Load,
    /// Records that came, per second, until the last one was there.
    pub achieved_per_second: f64,
    /// Whether that is 99 % of what was offered.
    pub valid: bool,
    pub record_bytes: u64,
    /// Records that were due after the warm-up.
    pub records: u64,
    /// Of these, how many had their latency taken.
    pub samples: u64,
    /// Arrival minus due time, microseconds.
    pub latency_us: Quantiles,
    /// The same through a bare socket.
    pub bare_us: Quantiles,
    /// Half a round trip of a ping-pong over TCP between threads that sleep: median and 99th percentile, microseconds.
    pub one_way_us: [f64; 2],
    /// The median latency in terms of that.
    pub p50_to_one_way: f64,
    /// The median latency in terms of a bare socket's.
    pub p50_to_bare: f64,
    /// How long an idle slot looked for work before it slept, if it was told.
    pub spin_us: Option<u32>,
    /// Processor time of both TaskManagers per record.
    pub cpu_ns_per_record: f64,
    #[serde(flatten)]
    pub traffic: Traffic,
}

impl Counts {
    /// Records that came per second, from when the first was due until the last was there.
    pub fn per_second(&self) -> f64 {
        let ns = self.last_arrival_ns.saturating_sub(self.first_due_ns).max(1);
        self.measured as f64 * 1e9 / ns as f64
    }
}

impl Latency {
    pub(super) fn of(
        options: &Options,
        load: Load,
        engine: &Through,
        bare: &Arrivals,
        one_way: &OneWay,
    ) -> Self {
        let latency_us = Quantiles::of(&engine.latency);
        let bare_us = Quantiles::of(bare.latency());
        let one_way_us = [one_way.median_ns / 1e3, one_way.p99_ns / 1e3];
        // The last record is due one period before the run is over.
        let achieved_per_second = engine.counts.per_second().min(load.rate as f64);
        Self {
            load,
            achieved_per_second,
            valid: achieved_per_second >= ACHIEVED_MIN * load.rate as f64,
            record_bytes: options.record_bytes,
            records: engine.counts.measured,
            samples: engine.latency.len(),
            latency_us,
            bare_us,
            one_way_us,
            p50_to_one_way: latency_us.p50 / one_way_us[0],
            p50_to_bare: latency_us.p50 / bare_us.p50,
            spin_us: options.engine.spin,
            cpu_ns_per_record: engine.cpu_seconds * 1e9 / engine.counts.records as f64,
            traffic: engine.traffic.clone(),
        }
    }

    /// The sentence for a run that is not valid.
    pub fn why_invalid(&self) -> String {
        format!(
            "invalid: {:.0} records/s were offered and {:.0} came, less than {:.0} %; the queue grows, so its percentiles \
             say nothing. Offer less.",
            self.load.rate as f64,
            self.achieved_per_second,
            ACHIEVED_MIN * 100.0
        )
    }

    /// Prints it.
    pub fn print(&self, json: bool) {
        if json {
            print_json(self);
            return;
        }
        let mut table = Table::new(["latency, us", "p50", "p90", "p99", "p99.9", "p99.99", "max"]);
        table.row(std::iter::once("engine".to_owned()).chain(self.latency_us.cells()));
        table.row(std::iter::once("bare socket".to_owned()).chain(self.bare_us.cells()));
        println!("{table}");
        let [one_way, one_way_p99] = self.one_way_us;
        let mut rows = vec![
            ("offered records/s", self.load.rate.to_string()),
            ("achieved records/s", format!("{:.0}", self.achieved_per_second)),
            ("records", format!("{} of {} bytes, {} timed", self.records, self.record_bytes, self.samples)),
            ("TCP one way", format!("{one_way:.1} us (p99 {one_way_p99:.1}), half a round trip")),
            ("p50 to TCP one way", format!("{:.2}", self.p50_to_one_way)),
            ("p50 to bare socket", format!("{:.2}", self.p50_to_bare)),
            ("cpu", format!("{:.0} ns/record", self.cpu_ns_per_record)),
            ("driver", format!("{}, {}", self.traffic.driver, self.traffic.send_mode)),
        ];
        if let (Some(percent), Some(most)) = (self.load.percent, self.load.most_per_second) {
            rows.insert(1, ("load", format!("{percent} % of {most:.0}")));
        }
        if let Some(micros) = self.spin_us {
            rows.push(("spin", format!("{micros} us")));
        }
        for (name, value) in rows {
            println!("{name:>22}  {value}");
        }
    }
}

/// Writes a histogram of nanoseconds as a log of one interval; values are told in microseconds, as that log has it.
pub fn write_log(path: &Path, latency: &Histogram<u64>, seconds: f64) -> Result<(), Box<dyn Error>> {
    let wrong = |error: &dyn std::fmt::Debug| format!("can't write {}: {error:?}", path.display());
    let mut file = BufWriter::new(File::create(path).map_err(|error| wrong(&error))?);
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("Latency of records, nanoseconds: arrival minus due time")
        .with_start_time(SystemTime::now())
        .with_max_value_divisor(1e3)
        .begin_log_with(&mut file, &mut serializer)
        .map_err(|error| wrong(&error))?;
    let length = Duration::from_secs_f64(seconds);
    log.write_histogram(latency, Duration::ZERO, length, Tag::new("latency"))
        .map_err(|error| wrong(&error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::arrivals::histogram;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    #[test]
    fn the_log_holds_the_histogram() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("latency.hlog");
        let mut latency = histogram();
        (1..=1_000).for_each(|us| latency.record(us * 1_000).unwrap());
        write_log(&path, &latency, 2.0).unwrap();
        let text = std::fs::read(&path).unwrap();
        let found: Vec<_> = IntervalLogIterator::new(&text).map(Result::unwrap).collect();
        let Some(LogEntry::Interval(interval)) = found.iter().find(|e| matches!(e, LogEntry::Interval(_)))
        else {
            panic!("no interval in {}", String::from_utf8_lossy(&text))
        };
        assert_eq!(interval.duration(), Duration::from_secs(2));
        assert!((interval.max() - 1_000.0).abs() < 1.0, "microseconds, found {}", interval.max());
        assert!(!interval.encoded_histogram().is_empty());
        assert!((Quantiles::of(&latency).p50 - 500.0).abs() < 1.0);
    }

    #[test]
    fn less_than_what_was_offered_is_less() {
        let counts =
            Counts { measured: 1_000, first_due_ns: 5, last_arrival_ns: 1_000_000_005, ..Counts::default() };
        assert_eq!(counts.per_second(), 1_000.0);
    }
}
