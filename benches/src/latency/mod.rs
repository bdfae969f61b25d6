//! `latency`: records that are due at a given rate, from one slot to another, and how late each comes.
//!
//! Open loop: record i is due at start + i / rate and carries that time; what is taken is its arrival minus that time, by the
//! clock that all processes of the host share. A stall of the sender, a wake-up, a queue: all of it counts. A run that
//! achieves less than 99 % of what was offered has a queue that grows, so that its percentiles mean nothing: it is invalid.
//!
//! Beside it, in the same run: half a round trip of a ping-pong over TCP, and the same due times through a bare socket.

pub mod arrivals;
pub mod bare;
mod outcome;
pub mod pace;

use std::error::Error;
use std::path::PathBuf;

use clap::Args;

use crate::calibrate;
use crate::cluster::Cluster;
use crate::forms::{self, RECORD_BYTES_MAX};
use crate::jobs::stamped::{self, ARRIVALS, STAMP_BYTES};
use crate::meter::{self, SOURCE_FILE};
use crate::outcome::Traffic;
use crate::process::Process;
use crate::shuffle::{self, Engine};
use crate::work::two_cores;
use arrivals::{Counts, histogram};
use bare::Bare;
pub use outcome::{Latency, Load};
use pace::Plan;

/// Latencies taken per second at most: taking one costs a look at the clock.
const SAMPLES_PER_SECOND: u64 = 1_000_000;
/// How long the most that goes through is measured for `--load`, and the bare socket, at most.
const BESIDE_SECONDS: f64 = 3.0;
/// Records per second unless told: few enough that each finds everything idle.
const RATE_UNLOADED: u64 = 1_000;

/// Flags of `latency`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Records per second; 1,000 unless told
    #[arg(long, value_name = "R", conflicts_with = "load", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub rate: Option<u64>,
    /// Per cent of the most that goes through, which is measured first
    #[arg(long, value_name = "PCT", value_parser = clap::value_parser!(u32).range(1..=200))]
    pub load: Option<u32>,
    /// Bytes of each record
    #[arg(long, value_name = "N", default_value_t = STAMP_BYTES as u64, value_parser = clap::value_parser!(u64).range(STAMP_BYTES as u64..=RECORD_BYTES_MAX as u64))]
    pub record_bytes: u64,
    /// Seconds that are measured
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    pub seconds: f64,
    /// Seconds before them
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub warmup: f64,
    /// Cores of the two ends
    #[arg(long, value_name = "A,B", value_parser = two_cores, default_value = "0,1")]
    pub cores: [usize; 2],
    #[command(flatten)]
    pub engine: Engine,
    /// Where the histogram goes, as an interval log of HdrHistogram V2
    #[arg(long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// Records that are stamps and nothing else, at a rate or a load.
    pub fn of(
        rate: Option<u64>,
        load: Option<u32>,
        seconds: f64,
        warmup: f64,
        cores: [usize; 2],
        engine: Engine,
    ) -> Self {
        let record_bytes = STAMP_BYTES as u64;
        Self { rate, load, record_bytes, seconds, warmup, cores, engine, hdr: None, json: false }
    }
}

/// A time of at least a hundredth of a second.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.01..=3_600.0).contains(&seconds) => Ok(seconds),
        _ => Err(format!("expected seconds from 0.01 to 3600, found {text}")),
    }
}

/// Runs it and prints what it found.
///
/// # Errors
/// The run failed, a result is wrong, or the run is invalid.
pub fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let found = measure(options)?;
    found.print(options.json);
    found.valid.then_some(()).ok_or_else(|| found.why_invalid().into())
}

/// Runs it. An invalid run is one of its results.
///
/// # Errors
/// The run failed, or a result is wrong.
pub fn measure(options: &Options) -> Result<Latency, Box<dyn Error>> {
    let load = match options.load {
        None => Load { rate: options.rate.unwrap_or(RATE_UNLOADED), percent: None, most_per_second: None },
        Some(percent) => {
            let most = most(options)?;
            let rate = (most * f64::from(percent) / 100.0).max(1.0) as u64;
            Load { rate, percent: Some(percent), most_per_second: Some(most) }
        }
    };
    let ns = |seconds: f64| (seconds * 1e9) as u64;
    let way = calibrate::one_way(options.cores)?;
    let plan = Plan { rate: load.rate, run_ns: ns(options.warmup + options.seconds) };
    let engine = through(options, plan, ns(options.warmup))?;

    let (warm_up, seconds) = (options.warmup.min(1.0), options.seconds.min(BESIDE_SECONDS));
    let bare = bare::measure(Bare {
        plan: Plan { rate: load.rate, run_ns: ns(warm_up + seconds) },
        warm_up_ns: ns(warm_up),
        every: every(load.rate),
        bytes: options.record_bytes as usize,
        cores: options.cores,
        spin: options.engine.spin.is_some_and(|micros| micros > 0),
    })?;
    if let Some(path) = &options.hdr {
        outcome::write_log(path, &engine.latency, options.seconds)?;
    }
    Ok(Latency::of(options, load, &engine, &bare, &way))
}

/// What came through the engine.
pub struct Through {
    counts: Counts,
    latency: hdrhistogram::Histogram<u64>,
    traffic: Traffic,
    /// Of both TaskManagers, over the whole run.
    cpu_seconds: f64,
}

/// The latency of one record in so many is taken.
fn every(rate: u64) -> u64 {
    rate.div_ceil(SAMPLES_PER_SECOND)
}

/// Records per second when each is due at once.
fn most(options: &Options) -> Result<f64, Box<dyn Error>> {
    let seconds = options.seconds.min(BESIDE_SECONDS);
    let run_ns = (1.2 * seconds * 1e9) as u64;
    let Through { counts, .. } = through(options, Plan { rate: 0, run_ns }, run_ns / 6)?;
    let most = counts.per_second();
    eprintln!("the most that goes through: {:.2} M records/s", most / 1e6);
    Ok(most)
}

/// One run through a cluster of its own.
fn through(options: &Options, plan: Plan, warm_up_ns: u64) -> Result<Through, Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let cluster = options.engine.start(dir.path(), options.cores, 0)?;
    let every = if plan.rate == 0 { 1_024 } else { every(plan.rate) };
    let flags = [
        ("--rate", plan.rate),
        ("--run-ns", plan.run_ns),
        ("--warm-up-ns", warm_up_ns),
        ("--every", every),
        ("--record-bytes", options.record_bytes),
    ];
    let mut args: Vec<String> =
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.to_string()]).collect();
    args.extend(["--dir".to_owned(), dir.path().display().to_string()]);
    let before = cpu_seconds(&cluster);
    let job = cluster.submit(stamped::JOB, &args)?;
    shuffle::wait(&cluster, &job, &format!("{} records/s", plan.rate))?;
    let cpu_seconds = cpu_seconds(&cluster) - before;
    let traffic = Traffic::of(&cluster)?;
    let (counts, latency) = arrivals::read(dir.path(), ARRIVALS)?;
    let sent: u64 = meter::read(&dir.path().join(SOURCE_FILE))?;
    let due = plan.records().unwrap_or(sent);
    let expected = forms::sum_of_numbers(sent);
    if sent > due || counts.records != sent || counts.sum != expected {
        return Err(format!(
            "{due} records were due, {sent} sent, {} came, and their numbers add up to {}, not {expected}",
            counts.records, counts.sum
        )
        .into());
    }
    if latency.is_empty() && sent < due {
        return Err(format!(
            "invalid: {} records/s were offered, and in twice the time not even the warm-up came through; offer less",
            plan.rate
        )
        .into());
    }
    if latency.is_empty() {
        return Err("no record was due after the warm-up: give more --seconds, or a higher --rate".into());
    }
    let mut merged = histogram();
    merged.add(&latency).map_err(|error| format!("a histogram has other bounds: {error}"))?;
    Ok(Through { counts, latency: merged, traffic, cpu_seconds })
}

fn cpu_seconds(cluster: &Cluster) -> f64 {
    cluster.workers.iter().filter_map(Process::cpu_seconds).sum()
}
