//! `report`: everything in turns, in one run, and a page that says what was found and which goals were reached.
//!
//! Always: every figure of the page comes from this one run (those of other systems too, unless their file is given), and the
//! page says on which machine and how to run it again. It is written anew after each part, and a part that fails becomes a
//! line of it: an hour is not lost to one of them.

mod blame;
mod goals;
mod idle;
mod latency;
mod machine;
mod moved;
mod page;
mod peers;

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde::Serialize;

use crate::calibrate::{self, Calibration};
use crate::micro::{self, Micro};
use crate::outcome::print_json;
use crate::pairs::{Comparison, Failed};
use crate::sweep::{self, Costs};
use crate::work::two_cores;
use idle::Idle;
use latency::Latencies;
use machine::Machine;
use moved::Section;
use peers::{ASKED, Peers};

/// How long a timed run takes with `--quick`.
const QUICK_SECONDS: f64 = 0.2;
/// Repetitions of each part's measurement.
const REPETITIONS: u32 = 200;
/// How long a run takes from which constants are fitted.
const COSTS_SECONDS: f64 = 0.5;

/// Flags of `report`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Where the page goes
    #[arg(long, value_name = "FILE", default_value = "BENCHMARKS.md")]
    out: PathBuf,
    /// How often each benchmark runs
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// How long a run is to take, about
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Minutes after which no part is begun that would not end in time
    #[arg(long, default_value_t = 58, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    budget: u32,
    /// One round of tiny runs: good for nothing but to see that it works, so it asks for a place of its own
    #[arg(long, requires = "out")]
    quick: bool,
    /// Cores of the two ends
    #[arg(long, value_name = "A,B", value_parser = two_cores, default_value = "0,1")]
    cores: [usize; 2],
    /// What `compare --out` of benches/peers left, to be part of the page
    #[arg(long, value_name = "FILE")]
    peers: Option<PathBuf>,
    /// The program of benches/peers, to be run as a part of the report
    #[arg(long, value_name = "PROGRAM", conflicts_with = "peers")]
    with_peers: Option<PathBuf>,
    /// Everything as one JSON object on the last line of stdout, too
    #[arg(long)]
    json: bool,
}

/// How often, how long, and where things run.
#[derive(Debug, Clone, Copy)]
pub struct Turns {
    rounds: u32,
    seconds: f64,
    quick: bool,
    cores: [usize; 2],
}

/// Everything that was found so far.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    calibration: Option<Calibration>,
    costs: Option<Costs>,
    idle: Option<Idle>,
    sections: Vec<Section>,
    latency: Latencies,
    peers: Vec<Peers>,
    micro: Option<Micro>,
    /// Parts that failed as a whole, or for which there was no time.
    failed: Vec<Failed>,
    minutes: f64,
    quick: bool,
}

impl Report {
    /// Nothing yet, on this machine.
    fn new(quick: bool) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            machine: Machine::here()?,
            calibration: None,
            costs: None,
            idle: None,
            sections: Vec::new(),
            latency: Latencies::default(),
            peers: Vec::new(),
            micro: None,
            failed: Vec::new(),
            minutes: 0.0,
            quick,
        })
    }

    fn section(&self, id: &str) -> Option<&Comparison> {
        self.sections.iter().find(|section| section.id == id).map(|section| &section.comparison)
    }

    /// Everything that failed, by name.
    fn failures(&self) -> Vec<Failed> {
        let named = |of: &str, Failed { name, error }: &Failed| Failed {
            name: format!("{of}: {name}"),
            error: error.clone(),
        };
        let peers = self.peers.iter().flat_map(|peers| &peers.failed).map(|failed| Failed {
            name: format!("{}: {}", failed.section, failed.name),
            error: failed.error.clone(),
        });
        let sections = self.sections.iter().flat_map(|section| {
            section.comparison.failed.iter().map(move |failed| named(&section.title, failed))
        });
        let latency = self.latency.failed.iter().map(|failed| named("latency", failed));
        self.failed.iter().cloned().chain(sections).chain(latency).chain(peers).collect()
    }
}

/// Adds to the report.
type Step<'a> = dyn FnOnce(&mut Report) -> Result<(), Box<dyn Error>> + 'a;

/// A part of the report.
struct Part<'a> {
    name: String,
    /// How long it will take, about.
    seconds: f64,
    run: Box<Step<'a>>,
}

impl<'a> Part<'a> {
    fn new(
        name: impl Into<String>,
        seconds: f64,
        run: impl FnOnce(&mut Report) -> Result<(), Box<dyn Error>> + 'a,
    ) -> Self {
        Self { name: name.into(), seconds, run: Box::new(run) }
    }
}

/// Runs everything, and writes the page.
///
/// # Errors
/// A part failed, which the page says; or the page cannot be written.
pub fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let (rounds, quick) = (if options.quick { 1 } else { options.rounds }, options.quick);
    let turns = Turns { rounds, seconds: f64::from(options.seconds), quick, cores: options.cores };
    let mut report = Report::new(quick)?;
    if let Some(path) = &options.peers {
        report.peers.push(peers::read(path)?);
    }
    let start = Instant::now();
    let parts = parts(options, turns);
    let mut left: f64 = parts.iter().map(|part| part.seconds).sum();
    let count = parts.len();
    for (number, Part { name, seconds, run }) in parts.into_iter().enumerate() {
        let gone = start.elapsed().as_secs_f64();
        let about = if quick { String::new() } else { format!(", about {:.0} minutes left", left / 60.0) };
        eprintln!("[{:.1} min] part {} of {count}: {name}{about}", gone / 60.0, number + 1);
        left -= seconds;
        let done = if !quick && gone + seconds > 60.0 * f64::from(options.budget) {
            Err("there was no time left for it".into())
        } else {
            run(&mut report)
        };
        if let Err(error) = done {
            eprintln!("{name} failed: {error}");
            report.failed.push(Failed { name, error: error.to_string() });
        }
        report.minutes = start.elapsed().as_secs_f64() / 60.0;
        std::fs::write(&options.out, report.page(turns))
            .map_err(|error| format!("can't write {}: {error}", options.out.display()))?;
    }
    eprintln!("wrote {} after {:.0} minutes", options.out.display(), report.minutes);
    if options.json {
        print_json(&report);
    }
    match report.failures().as_slice() {
        [] => Ok(()),
        [Failed { name, error }, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
            Err(format!("{name} failed: {error}{more}; the page has the rest").into())
        }
    }
}

/// All parts, those that goals ask about first.
fn parts<'a>(options: &'a Options, turns: Turns) -> Vec<Part<'a>> {
    let Turns { rounds, seconds, quick, cores } = turns;
    let mut parts = vec![
        Part::new("what the machine can do", 20.0, move |report| {
            report.calibration = Some(calibrate::measure(&calibrate::Options { cores, quick, json: false }));
            Ok(())
        }),
        Part::new("constants of the exchange", 60.0, move |report| {
            report.costs = Some(sweep::costs(COSTS_SECONDS, quick, cores)?);
            Ok(())
        }),
        Part::new("idle", f64::from(rounds) * seconds + 10.0, move |report| {
            report.idle = Some(idle::measure(turns)?);
            Ok(())
        }),
    ];
    for plan in moved::all(turns) {
        let (title, seconds) = (plan.title().to_owned(), plan.seconds(turns));
        parts.push(Part::new(title, seconds, move |report| {
            report.sections.push(plan.measure(turns));
            Ok(())
        }));
    }
    let beside_peers = options.with_peers.is_some() || options.peers.is_some();
    parts.push(Part::new("latency", latency::seconds(turns, beside_peers), move |report| {
        report.latency = latency::measure(turns, beside_peers);
        Ok(())
    }));
    if let Some(program) = &options.with_peers {
        for asked in ASKED {
            let name = format!("other systems, {}", asked.what);
            parts.push(Part::new(name, asked.seconds(turns), move |report| {
                report.peers.push(peers::compare(program, asked, turns)?);
                Ok(())
            }));
        }
    }
    parts.push(Part::new("parts by themselves", 120.0, move |report| {
        let repetitions = if quick { 3 } else { REPETITIONS };
        let callgrind = !quick && micro::callgrind::installed();
        report.micro = Some(micro::measure(&micro::Options::all(repetitions, cores[0], callgrind))?);
        Ok(())
    }));
    parts
}
