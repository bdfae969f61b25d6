//! `shuffle`: a source on one TaskManager, its exchange, and what consumes it on the other.
//!
//! Both processes are pinned to cores of their own. The first part of the run warms up (all keys are seen, buffers and credit
//! have found their level); what is reported is what came after.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;

use crate::cluster::{Cluster, Process};
use crate::keyed::{self, Side, Totals};
use crate::report::{Report, Traffic};

/// Bytes of a (u64, u64) record.
const PAIR_BYTES: u64 = 16;
/// How often the job's state is asked for.
const POLL: Duration = Duration::from_millis(200);
/// A benchmark that takes longer than this is stuck.
const RUN_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// Pairs of (u64, u64), summed by key in a hash map
    Keyed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SendMode {
    Auto,
    Fixed,
    Plain,
    Zc,
}

/// Flags of `shuffle`.
#[derive(Debug, Args)]
pub struct Options {
    /// What moves, and what is done with it
    #[arg(long, value_enum, default_value_t = Shape::Keyed)]
    shape: Shape,
    /// Records that are measured; the warm-up comes on top
    #[arg(long, default_value_t = 500_000_000, value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    records: u64,
    /// Keys
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    keys: u64,
    /// How payloads are sent
    #[arg(long, value_enum, default_value_t = SendMode::Auto)]
    send: SendMode,
    /// Network segments of each slot
    #[arg(long, default_value_t = 512)]
    segments: u32,
    /// Cores of the two processes
    #[arg(long, value_delimiter = ',', default_value = "0,1")]
    cores: Vec<usize>,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// Runs it; exits 1 if the result is wrong or the run failed.
pub fn run(options: &Options) -> ExitCode {
    match measure(options) {
        Ok(report) => {
            report.print(options.json);
            if report.right() {
                ExitCode::SUCCESS
            } else {
                eprintln!("error: the checksum is {}, the closed form {}", report.checksum, report.expected);
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<Report, Box<dyn Error>> {
    let &[first, second] = options.cores.as_slice() else {
        return Err("--cores takes two core numbers, such as 0,1".into());
    };
    let dir = tempfile::tempdir()?;
    let warm_up = (2 * options.keys).max(options.records / 25);
    let send = format!("{:?}", options.send).to_lowercase();
    let flags = ["--segments".to_owned(), options.segments.to_string(), "--send".to_owned(), send];
    let cluster = Cluster::start(dir.path(), [first, second], &flags)?;
    let args = [
        ("--records", options.records.to_string()),
        ("--warm-up", warm_up.to_string()),
        ("--keys", options.keys.to_string()),
        ("--dir", dir.path().display().to_string()),
    ];
    let args: Vec<String> = args.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
    let before: Vec<f64> = cluster.workers.iter().filter_map(Process::cpu_seconds).collect();
    let job = cluster.submit(keyed::JOB, &args)?;
    wait(&cluster, &job, options.records + warm_up)?;
    let cpu_seconds: BTreeMap<String, f64> = cluster
        .workers
        .iter()
        .zip(before)
        .filter_map(|(worker, before)| Some((worker.pid().to_string(), worker.cpu_seconds()? - before)))
        .collect();
    let source: Side = read(&dir.path().join(keyed::SOURCE_FILE))?;
    let sum: Side = read(&dir.path().join(keyed::SUM_FILE))?;
    let totals: Totals = read(&dir.path().join(keyed::TOTALS_FILE))?;
    let all = options.records + warm_up;
    if totals.keys != options.keys.min(all) {
        return Err(format!("{} keys have a sum, expected {}", totals.keys, options.keys.min(all)).into());
    }
    Ok(Report {
        pids: cluster.workers.iter().map(Process::pid).collect(),
        records_received: sum.records,
        warm_up_records: warm_up,
        checksum: totals.checksum,
        expected: keyed::closed_form(all),
        seconds: sum.seconds,
        records_per_second: sum.records as f64 / sum.seconds,
        bytes_per_second: (sum.records * PAIR_BYTES) as f64 / sum.seconds,
        cpu_seconds,
        heap_allocations: source.heap_allocations + sum.heap_allocations,
        traffic: Traffic::of(&cluster)?,
    })
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Box<dyn Error>> {
    let text =
        std::fs::read(path).map_err(|error| format!("a result is missing ({}): {error}", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

/// Waits until the job is FINISHED, with a progress line.
fn wait(cluster: &Cluster, job: &str, records: u64) -> Result<(), Box<dyn Error>> {
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
            eprint!("\rmoving {} M records, {seconds} s ", records / 1_000_000);
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
