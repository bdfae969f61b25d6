//! `calibrate`: what this machine can do at best, measured right here, so that figures can be read as a share of it.
//!
//! Each figure takes less than two seconds and is the median of many small samples, because the machine may be shared. No
//! state is kept between figures.

mod local;
mod network;
mod nop;
mod outside;
mod wake;

pub(crate) use network::{pair, raw};

use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::outcome::print_json;
use crate::stats::{median, percentile};
use crate::table::Table;
use crate::work::two_cores;

/// Names of figures that others ask about.
pub const MEMCPY_COLD: &str = "memcpy, through 256 MiB";
pub const WAKE_FUTEX: &str = "wake a thread on the other core, futex";

/// How long one figure is measured.
const BUDGET: Duration = Duration::from_millis(800);
/// How long with `--quick`.
const BUDGET_QUICK: Duration = Duration::from_millis(20);

/// Flags of `calibrate`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The two cores between which things are sent
    #[arg(long, value_name = "A,B", value_parser = two_cores, default_value = "0,1")]
    pub cores: [usize; 2],
    /// A fortieth of the time for each figure: good for nothing but to see that it runs
    #[arg(long)]
    pub quick: bool,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    pub json: bool,
}

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What was measured.
    pub what: &'static str,
    /// The median.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// What else there is to say: a percentile, processor time.
    pub note: String,
}

/// All figures.
#[derive(Debug, Clone, Serialize)]
pub struct Calibration {
    /// In the order in which they were measured.
    pub figures: Vec<Figure>,
    /// Why others are missing: where io_uring is forbidden, for instance.
    pub left_out: Vec<String>,
}

/// What every figure is told.
#[derive(Debug, Clone, Copy)]
struct Setting {
    cores: [usize; 2],
    budget: Duration,
}

type Measure = fn(Setting) -> Result<Figure, Box<dyn Error>>;

const FIGURES: [Measure; 16] = [
    local::memcpy_hot,
    local::memcpy_cold,
    local::checksum,
    local::system_call,
    nop::one_by_one,
    nop::by_thirty_two,
    wake::cache_line,
    wake::futex,
    wake::event_fd,
    network::ping_pong,
    network::single,
    network::single_with_checksum,
    network::train,
    network::train_with_checksum,
    outside::sockperf,
    outside::iperf3,
];

/// Runs all and prints them.
pub fn run(options: &Options) {
    let calibration = measure(options);
    if options.json {
        print_json(&calibration);
    } else {
        print!("{calibration}");
    }
}

/// Runs all. They run on threads of their own, so that the caller is not pinned.
pub fn measure(options: &Options) -> Calibration {
    let budget = if options.quick { BUDGET_QUICK } else { BUDGET };
    let setting = Setting { cores: options.cores, budget };
    let mut calibration = Calibration { figures: Vec::new(), left_out: Vec::new() };
    for measure in FIGURES {
        let measured = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                crate::process::pin(setting.cores[0]);
                measure(setting).map_err(|error| error.to_string())
            });
            thread.join().unwrap_or_else(|_| Err("the thread of a figure panicked".to_owned()))
        });
        match measured {
            Ok(figure) => {
                eprintln!("{}: {:.3} {}", figure.what, figure.value, figure.unit);
                calibration.figures.push(figure);
            }
            Err(error) => {
                eprintln!("left out: {error}");
                calibration.left_out.push(error);
            }
        }
    }
    calibration
}

impl Calibration {
    /// The figure of this name.
    pub fn value(&self, what: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.what == what).map(|figure| figure.value)
    }
}

impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["limit", "median", "unit", "and"]);
        for figure in &self.figures {
            let digits = if figure.value < 10.0 { 2 } else { 1 };
            table.row([
                figure.what.to_owned(),
                format!("{:.digits$}", figure.value),
                figure.unit.to_owned(),
                figure.note.clone(),
            ]);
        }
        write!(f, "{table}")?;
        self.left_out.iter().try_for_each(|why| write!(f, "\nLeft out: {why}\n"))
    }
}

/// Half a round trip of a small message over TCP, between threads that sleep.
#[derive(Debug, Clone, Copy)]
pub struct OneWay {
    pub median_ns: f64,
    pub p99_ns: f64,
}

/// Measures that alone, between `cores`.
///
/// # Errors
/// The sockets'.
pub fn one_way(cores: [usize; 2]) -> Result<OneWay, Box<dyn Error>> {
    let setting = Setting { cores, budget: BUDGET };
    let samples = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            crate::process::pin(cores[0]);
            network::ping_pong_samples(setting).map_err(|error| error.to_string())
        });
        thread.join().unwrap_or_else(|_| Err("the thread of a ping-pong panicked".to_owned()))
    })?;
    let [Some(median_ns), Some(p99_ns)] = [median(&samples), percentile(&samples, 99.0)] else {
        return Err("a ping-pong gave no samples".into());
    };
    Ok(OneWay { median_ns, p99_ns })
}

/// Repeats a batch of `count` operations until the budget is spent, at least three times: nanoseconds per operation.
fn sample(budget: Duration, count: u32, mut batch: impl FnMut()) -> Vec<f64> {
    let start = Instant::now();
    let mut samples = Vec::new();
    while samples.len() < 3 || start.elapsed() < budget {
        let begin = Instant::now();
        batch();
        samples.push(begin.elapsed().as_nanos() as f64 / f64::from(count));
    }
    samples
}

/// A figure of time: the median.
fn time(what: &'static str, samples: &[f64]) -> Result<Figure, Box<dyn Error>> {
    let (Some(value), Some(most)) = (median(samples), percentile(samples, 99.0)) else {
        return Err(format!("{what}: no samples").into());
    };
    Ok(Figure { what, value, unit: "ns", note: format!("p99 {most:.0}") })
}

/// A figure of throughput: the median of samples in nanoseconds per pass over `bytes` bytes.
fn throughput(what: &'static str, bytes: usize, samples: &[f64]) -> Result<Figure, Box<dyn Error>> {
    let value = median(samples).ok_or_else(|| format!("{what}: no samples"))?;
    Ok(Figure { what, value: bytes as f64 / value, unit: "GB/s", note: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_right() {
        let figure = throughput("copying", 32_768, &[1_000.0, 2_000.0, 4_000.0]).unwrap();
        assert_eq!((figure.value, figure.unit), (16.384, "GB/s"));
        let figure = time("a call", &[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((figure.value, figure.note.as_str()), (2.0, "p99 3"));
        assert!(time("nothing", &[]).is_err());
    }

    #[test]
    fn what_is_missing_is_said() {
        let figure = time("a call", &[3.0]).unwrap();
        let calibration = Calibration { figures: vec![figure], left_out: vec!["no ring here".to_owned()] };
        let text = calibration.to_string();
        assert!(
            text.contains("| a call |   3.00 |") && text.ends_with("\nLeft out: no ring here\n"),
            "{text}"
        );
    }

    #[test]
    fn there_are_three_samples_however_short_the_time() {
        assert_eq!(sample(Duration::ZERO, 1, || ()).len(), 3);
    }
}
