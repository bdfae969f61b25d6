//! `micro`: what each part of the data plane costs per operation, on one core and by itself.
//!
//! By time: batches of operations, repeated; the median, and between which times nine in ten of the repetitions lie. With
//! `--callgrind` by instructions, which a busy machine does not change: this program runs itself under valgrind with two
//! numbers of operations, and the difference of the two counts is what the operations took, start-up and all else left out.
//! `--check` compares these counts with a file that was written with `--save`.

mod baseline;
pub mod callgrind;
pub mod parts;

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::outcome::print_json;
use crate::stats::{median, percentile};
use crate::table::Table;
use baseline::{Baseline, Verdict};
use parts::{PARTS, Part};

/// How long one repetition takes, about.
const BATCH: Duration = Duration::from_millis(2);
/// Repetitions unless told.
const REPETITIONS: u32 = 100;

/// Flags of `micro`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// One part alone
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(PARTS.map(|part| part.name)))]
    pub only: Option<String>,
    /// So many operations and no measurement: what runs under valgrind
    #[arg(long, value_name = "N", requires = "only", conflicts_with_all = ["callgrind", "json"])]
    pub ops: Option<u64>,
    /// How often a batch of operations is repeated
    #[arg(long, value_name = "N", default_value_t = REPETITIONS, value_parser = clap::value_parser!(u32).range(3..=100_000))]
    pub repetitions: u32,
    /// Core on which it runs
    #[arg(long, default_value_t = 0)]
    pub core: usize,
    /// Count instructions, too; valgrind must be installed
    #[arg(long)]
    pub callgrind: bool,
    /// Compare the counts with the baseline; exit 1 if one is too large
    #[arg(long, requires = "callgrind")]
    pub check: bool,
    /// Make the counts the baseline
    #[arg(long, requires = "callgrind", conflicts_with_all = ["check", "only"])]
    pub save: bool,
    /// The baseline
    #[arg(long, value_name = "FILE", default_value = "benches/micro-baseline.json")]
    pub baseline: PathBuf,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// All parts, by time and perhaps by instructions.
    pub fn all(repetitions: u32, core: usize, callgrind: bool) -> Self {
        Self {
            only: None,
            ops: None,
            repetitions,
            core,
            callgrind,
            check: false,
            save: false,
            baseline: PathBuf::new(),
            json: false,
        }
    }
}

/// What one part costs per operation.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    pub name: &'static str,
    /// Median of the repetitions, nanoseconds.
    pub ns: f64,
    /// Between these lie nine in ten of them.
    pub ns_5_to_95: [f64; 2],
    /// Instructions, if they were counted.
    pub instructions: Option<f64>,
}

/// All of them.
#[derive(Debug, Clone, Serialize)]
pub struct Micro {
    /// What compiled this program.
    pub toolchain: &'static str,
    /// Whether it is a build with optimisations.
    pub optimised: bool,
    pub costs: Vec<Cost>,
    /// How the counts compare with the baseline.
    pub verdict: Option<Verdict>,
}

/// The compiler of this program.
pub const TOOLCHAIN: &str = env!("TIDEGATE_RUSTC");

/// Runs it and prints what it found.
///
/// # Errors
/// Valgrind is missing or failed, or a count is too large.
pub fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    if let (Some(only), Some(ops)) = (&options.only, options.ops) {
        let part = PARTS.iter().find(|part| part.name == only).ok_or("no such part")?;
        (part.make)()(ops);
        return Ok(());
    }
    let mut found = measure(options)?;
    if options.save {
        Baseline::of(&found).write(&options.baseline)?;
        eprintln!("wrote {}", options.baseline.display());
    }
    if options.check {
        found.verdict = Some(Baseline::read(&options.baseline)?.judge(&found));
    }
    if options.json {
        print_json(&found);
    } else {
        print!("{}", found.table());
        if let Some(verdict) = &found.verdict {
            println!("\n{verdict}");
        }
    }
    match found.verdict {
        Some(Verdict::Worse(worse)) => Err(Verdict::Worse(worse).to_string().into()),
        _ => Ok(()),
    }
}

/// Runs it.
///
/// # Errors
/// Valgrind is missing or failed.
pub fn measure(options: &Options) -> Result<Micro, Box<dyn Error>> {
    let wanted = |part: &&Part| options.only.as_ref().is_none_or(|only| part.name == only);
    let mut costs = Vec::new();
    for part in PARTS.iter().filter(wanted) {
        let mut cost = time(part, options)?;
        if options.callgrind {
            cost.instructions = Some(callgrind::instructions(part.name)?);
        }
        eprintln!("{}: {:.2} ns", cost.name, cost.ns);
        costs.push(cost);
    }
    Ok(Micro { toolchain: TOOLCHAIN, optimised: !cfg!(debug_assertions), costs, verdict: None })
}

/// On a thread of its own, so that the caller is not pinned.
fn time(part: &Part, options: &Options) -> Result<Cost, Box<dyn Error>> {
    let samples = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            crate::process::pin(options.core);
            repeat(&mut (part.make)(), options.repetitions)
        });
        thread.join().map_err(|_| format!("{} panicked", part.name))
    })?;
    let (Some(ns), Some(low), Some(high)) =
        (median(&samples), percentile(&samples, 5.0), percentile(&samples, 95.0))
    else {
        return Err(format!("{}: no samples", part.name).into());
    };
    Ok(Cost { name: part.name, ns, ns_5_to_95: [low, high], instructions: None })
}

/// Nanoseconds per operation of each repetition. The first batches only find out how many operations one has.
fn repeat(work: &mut parts::Work, repetitions: u32) -> Vec<f64> {
    let mut timed = |ops: u64| {
        let start = Instant::now();
        work(ops);
        start.elapsed()
    };
    let mut ops = 1;
    while timed(ops) < BATCH {
        ops *= 2;
    }
    (0..repetitions).map(|_| timed(ops).as_nanos() as f64 / ops as f64).collect()
}

impl Micro {
    /// As a table.
    pub fn table(&self) -> Table {
        let mut table = Table::new(["operation", "ns", "5 to 95 %", "instructions"]);
        for cost in &self.costs {
            let [low, high] = cost.ns_5_to_95;
            table.row([
                cost.name.to_owned(),
                format!("{:.2}", cost.ns),
                format!("{low:.2} to {high:.2}"),
                cost.instructions.map(|count| format!("{count:.1}")).unwrap_or_default(),
            ]);
        }
        table
    }
}
