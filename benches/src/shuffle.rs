//! `shuffle`: a source in one slot, its exchange, and what consumes it in the other. The cluster is started for it.
//!
//! Both slots are pinned to cores of their own. The first part of the run warms up (all keys are seen, buffers and credit
//! have found their level); what is reported is what came after.

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::channels;
use crate::cluster::{Cluster, Slots};
use crate::jobs;
use crate::outcome::{Outcome, Traffic};
use crate::process::Process;
use crate::work::{Shape, Work};

/// How often the job's state is asked for.
const POLL: Duration = Duration::from_millis(200);
/// A benchmark that takes longer than this is stuck.
pub const RUN_MAX: Duration = Duration::from_secs(3600);

/// Tells a TaskManager to measure nothing.
const UNMEASURED: &str = "TIDEGATE_UNMEASURED";

/// What drives the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    Auto,
    #[value(name = "io_uring")]
    IoUring,
    Epoll,
}

/// How payloads are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SendMode {
    Auto,
    Fixed,
    Plain,
    Zc,
}

/// What is between the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// Two processes and a TCP connection
    Tcp,
    /// Two slots of one process, on the first two cores it may use
    Local,
    /// Two processes that share memory
    Shm,
}

/// The word for a value on the command line.
pub fn word(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// Flags of every benchmark that starts a cluster.
#[derive(Debug, Clone, Args)]
pub struct Engine {
    /// What drives the network
    #[arg(long, value_enum, default_value_t = Driver::Auto)]
    pub driver: Driver,
    /// How payloads are sent
    #[arg(long, value_enum, default_value_t = SendMode::Auto)]
    pub send: SendMode,
    /// Network segments of each slot
    #[arg(long, default_value_t = 512)]
    pub segments: u32,
    /// What is between the two ends
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    pub transport: Transport,
    /// Bytes of a network segment
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 10)]
    pub segment_size: u32,
    /// Milliseconds that a partly filled segment waits for more; 0 sends what there is when the link is idle
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub flush: u64,
    /// Microseconds for which an idle slot always looks for work before it sleeps; without it, a TaskManager's default
    #[arg(long, value_name = "MICROS")]
    pub spin: Option<u32>,
    /// Go without histograms of latency and without reports of counts, to see what these cost
    #[arg(long, hide = true)]
    pub unmeasured: bool,
}

impl Default for Engine {
    /// Everything as it is unless configured.
    fn default() -> Self {
        let (driver, send, transport) = (Driver::Auto, SendMode::Auto, Transport::Tcp);
        Self {
            driver,
            send,
            segments: 512,
            transport,
            segment_size: 32 << 10,
            flush: 0,
            spin: None,
            unmeasured: false,
        }
    }
}

impl Engine {
    /// Starts a cluster with its two slots on `cores`, for records of up to `record` bytes.
    ///
    /// # Errors
    /// It did not start, or the transport cannot have these cores.
    pub fn start(&self, dir: &Path, cores: [usize; 2], record: u64) -> Result<Cluster, Box<dyn Error>> {
        let slots = match self.transport {
            Transport::Tcp | Transport::Shm => Slots::Apart(cores),
            Transport::Local if cores == [0, 1] => Slots::Together,
            Transport::Local => {
                return Err(
                    "--transport local pins its slots to the first two cores it may use: leave --cores out, \
                            and choose the cores with taskset"
                        .into(),
                );
            }
        };
        // A record larger than a segment has a region at each end, beside the segments asked for.
        let segment = u64::from(self.segment_size);
        let regions = if record > segment { 2 * (record + (4 << 10)).div_ceil(segment) } else { 0 };
        let flags = [
            ("--segments", (u64::from(self.segments) + regions).to_string()),
            ("--segment-size", self.segment_size.to_string()),
            ("--max-record-size", format!("{record}b")),
            ("--flush", format!("{}ms", self.flush)),
            ("--driver", word(&self.driver)),
            ("--send", word(&self.send)),
            (
                "--transport",
                word(&if self.transport == Transport::Shm { Transport::Shm } else { Transport::Tcp }),
            ),
        ];
        let spin = self.spin.map(|micros| ("--spin", micros.to_string()));
        let flags: Vec<String> =
            flags.into_iter().chain(spin).flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
        Cluster::start(dir, slots, &flags, self.unmeasured.then_some(UNMEASURED))
    }
}

/// Flags of `shuffle`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    #[command(flatten)]
    pub work: Work,
    #[command(flatten)]
    pub engine: Engine,
    /// Logical channels of the link, between two processes with nothing but the exchange; otherwise a job with one
    #[arg(long, value_name = "C", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub channels: Option<u32>,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// Everything as it is unless configured.
    pub fn of(work: Work) -> Self {
        Self { work, engine: Engine::default(), channels: None, json: false }
    }
}

/// Runs it and prints what it found.
///
/// # Errors
/// The run failed, or the result is wrong.
pub fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    match options.channels {
        None => measure(options)?.print(options.json),
        Some(_) if options.engine.transport != Transport::Tcp => {
            return Err("--channels are those of one link over TCP: leave --transport out".into());
        }
        Some(channels) => channels::measure(options, channels)?.print(options.json),
    }
    Ok(())
}

/// Runs it.
///
/// # Errors
/// The run failed, or the result is wrong.
pub fn measure(options: &Options) -> Result<Outcome<Traffic>, Box<dyn Error>> {
    let work = &options.work;
    let dir = tempfile::tempdir()?;
    let record = if work.shape == Shape::Bytes { work.record_bytes } else { 0 };
    let cluster = options.engine.start(dir.path(), work.cores, record)?;
    let mut args = work.flags();
    args.extend(["--dir".to_owned(), dir.path().display().to_string()]);
    let before: Vec<f64> = cluster.workers.iter().filter_map(Process::cpu_seconds).collect();
    let job = cluster.submit(jobs::name(work.shape), &args)?;
    wait(&cluster, &job, &format!("moving {} M records", work.all() / 1_000_000))?;
    let cpu: Vec<(u32, f64)> = cluster
        .workers
        .iter()
        .zip(before)
        .filter_map(|(worker, before)| Some((worker.pid(), worker.cpu_seconds()? - before)))
        .collect();
    Outcome::collect(dir.path(), work, &cpu, Traffic::of(&cluster)?)?.checked()
}

/// Waits until the job is FINISHED, with a progress line.
pub fn wait(cluster: &Cluster, job: &str, what: &str) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    loop {
        let status = cluster.get(&format!("/jobs/{job}"))?;
        match status["state"].as_str() {
            Some("FINISHED") => break,
            Some("FAILED" | "CANCELED") => {
                let why = cluster.get(&format!("/jobs/{job}/exceptions"))?;
                return Err(format!("the job failed: {why}").into());
            }
            _ => {}
        }
        if start.elapsed() > RUN_MAX {
            return Err("the run takes too long".into());
        }
        if std::io::stderr().is_terminal() {
            let seconds = start.elapsed().as_secs();
            eprint!("\r{what}, {seconds} s ");
            // Progress is a courtesy; a broken terminal is no reason to stop.
            let _ = std::io::stderr().flush();
        }
        std::thread::sleep(POLL);
    }
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    Ok(())
}
