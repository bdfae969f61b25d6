//! `report`: calibrates, runs floor and shuffle of every shape in turns, and writes a page that says what was found.
//!
//! Always: every figure of the page comes from this one run (those of other systems from one of their own), and the page says
//! on which machine and how to run it again.

mod latency;
mod machine;
mod peers;

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::calibrate::{self, Calibration};
use crate::floor::{self, Checksum};
use crate::micro::{self, Micro};
use crate::outcome::print_json;
use crate::pairs::{self, Comparison, Run, Sample};
use crate::shuffle::{self, Driver, Engine, Transport};
use crate::work::{Shape, Work, two_cores};
use latency::Latencies;
use machine::Machine;

/// Payload bytes of the first, short run of each benchmark, from which the length of the others is chosen.
const BYTES_FIRST: f64 = 32e6;
/// All records of a run with `--quick`.
const RECORDS_QUICK: u64 = 20_000;
/// Lengths of opaque records that are reported.
const RECORD_BYTES: [u64; 3] = [100, 1_000, 16_000];
/// Repetitions of each part's measurement.
const REPETITIONS: u32 = 200;
/// By how much a run is planned longer than asked for, since the first run may have been slow.
const MARGIN: f64 = 1.2;

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
    /// One round of tiny runs: good for nothing but to see that it works, so it asks for a place of its own
    #[arg(long, requires = "out")]
    quick: bool,
    /// Cores of the two ends
    #[arg(long, value_name = "A,B", value_parser = two_cores, default_value = "0,1")]
    cores: [usize; 2],
    /// What `compare --out` of benches/peers left, to be part of the page
    #[arg(long, value_name = "FILE")]
    peers: Option<PathBuf>,
    /// Everything as one JSON object on the last line of stdout, too
    #[arg(long)]
    json: bool,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    calibration: Calibration,
    sections: Vec<Section>,
    latency: Latencies,
    micro: Micro,
}

/// Benchmarks that took turns.
#[derive(Debug, Serialize)]
struct Section {
    title: String,
    comparison: Comparison,
}

/// One benchmark of a section: how it runs some work.
type Bench<'a> = (&'a str, &'a dyn Fn(Work) -> Result<Sample, Box<dyn Error>>);

/// Runs everything, and writes the page.
///
/// # Errors
/// A run failed, a result is wrong, or the page cannot be written.
pub fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let machine = Machine::here()?;
    let peers = peers::page(options.peers.as_deref())?;
    let quick = options.quick;
    let calibration = calibrate::measure(&calibrate::Options { cores: options.cores, quick, json: false });
    let mut sections = vec![keyed(options)?];
    for bytes in RECORD_BYTES {
        sections.push(opaque(options, bytes)?);
    }
    sections.push(bids(options)?);
    eprintln!("latency");
    let (rounds, seconds) = if quick { (1, 0.2) } else { (options.rounds, f64::from(options.seconds)) };
    let latency = latency::measure(rounds, seconds, quick, options.cores)?;
    eprintln!("parts");
    let repetitions = if quick { 3 } else { REPETITIONS };
    let callgrind = !quick && micro::callgrind::installed();
    let micro = micro::measure(&micro::Options::all(repetitions, options.cores[0], callgrind))?;
    let report = Report { machine, calibration, sections, latency, micro };
    std::fs::write(&options.out, report.page(options, &peers))
        .map_err(|error| format!("can't write {}: {error}", options.out.display()))?;
    eprintln!("wrote {}", options.out.display());
    if options.json {
        print_json(&report);
    }
    Ok(())
}

fn keyed(options: &Options) -> Result<Section, Box<dyn Error>> {
    let own = |driver, transport| {
        move |work| {
            let engine = Engine { driver, transport, ..Engine::default() };
            let options = shuffle::Options { engine, ..shuffle::Options::of(work) };
            Ok(Sample::of(&shuffle::measure(&options)?))
        }
    };
    let (epoll, local) = (own(Driver::Epoll, Transport::Tcp), own(Driver::Auto, Transport::Local));
    let mut benches: Vec<Bench<'_>> = vec![
        ("floor", &bare),
        ("floor with CRC32C", &checked),
        ("shuffle", &engine),
        ("shuffle by epoll", &epoll),
    ];
    if options.cores == [0, 1] {
        benches.push(("shuffle within a process", &local));
    }
    let work = work(options, Shape::Keyed, 100);
    section("Pairs of (u64, u64), summed by 100,000 keys".to_owned(), options, &work, &benches)
}

fn opaque(options: &Options, bytes: u64) -> Result<Section, Box<dyn Error>> {
    let title = format!("Opaque records of {bytes} bytes, every byte summed");
    let benches: [Bench<'_>; 3] = [("floor", &bare), ("floor with CRC32C", &checked), ("shuffle", &engine)];
    section(title, options, &work(options, Shape::Bytes, bytes), &benches)
}

fn bids(options: &Options) -> Result<Section, Box<dyn Error>> {
    let title = "Bids with three texts, validated, every field read".to_owned();
    section(title, options, &work(options, Shape::Bid, 100), &[("shuffle", &engine)])
}

fn bare(work: Work) -> Result<Sample, Box<dyn Error>> {
    Ok(Sample::of(&floor::measure(&floor::Options::of(work, Checksum::None))?))
}

fn checked(work: Work) -> Result<Sample, Box<dyn Error>> {
    Ok(Sample::of(&floor::measure(&floor::Options::of(work, Checksum::Crc))?))
}

fn engine(work: Work) -> Result<Sample, Box<dyn Error>> {
    Ok(Sample::of(&shuffle::measure(&shuffle::Options::of(work))?))
}

fn work(options: &Options, shape: Shape, record_bytes: u64) -> Work {
    let keys = if options.quick { 1_000 } else { 100_000 };
    Work { shape, records: None, keys, record_bytes, cores: options.cores }
}

/// Runs each once to see how fast it is, then all in turns.
fn section(
    title: String,
    options: &Options,
    work: &Work,
    benches: &[Bench<'_>],
) -> Result<Section, Box<dyn Error>> {
    eprintln!("{title}");
    let with = |records: u64| Work { records: Some(records), ..work.clone() };
    let mut counts = vec![RECORDS_QUICK; benches.len()];
    if !options.quick {
        let first = (BYTES_FIRST / work.wire_bytes()) as u64;
        for ((name, bench), count) in benches.iter().zip(&mut counts) {
            let sample = bench(with(first)).map_err(|error| format!("{name}: {error}"))?;
            let wanted = sample.records_per_second * f64::from(options.seconds) * MARGIN;
            *count = (wanted as u64).max(first);
        }
    }
    let mut runs: Vec<_> =
        benches.iter().zip(counts).map(|((_, bench), count)| move || bench(with(count))).collect();
    let mut runs: Vec<Run<'_>> =
        benches.iter().zip(&mut runs).map(|((name, _), run)| (*name, run as _)).collect();
    let rounds = if options.quick { 1 } else { options.rounds };
    Ok(Section { title, comparison: pairs::interleave(rounds, &mut runs)? })
}

impl Report {
    fn page(&self, options: &Options, peers: &str) -> String {
        let Options { rounds, seconds, quick, cores: [first, second], .. } = options;
        let how = if *quick {
            "One round of tiny runs (`--quick`): **these figures mean nothing**.".to_owned()
        } else {
            format!("Medians of {rounds} rounds of about {seconds} s; ends on cores {first} and {second}.")
        };
        let mut page = format!(
            "# Benchmarks\n\nWritten by `tidegate-benches report`. {how}\nIn a round each benchmark runs once, one after the \
             other, and ratios are taken within rounds, to the first line of the\ntable. The machine is not reserved for \
             this: rates of different tables, or of different pages, cannot be compared;\nratios within a table can.\n\n\
             ## Machine\n\n{}\n## What the machine can do\n\n{}\n",
            self.machine.table(),
            self.calibration
        );
        for section in &self.sections {
            page.push_str(&format!("## {}\n\n{}\n", section.title, section.comparison.table()));
        }
        page.push_str(NOTES);
        page.push_str(&format!(
            "## Latency of records that are due at a given rate\n\n{LATENCY}\n{}\n## Parts, on one core\n\n{}\n",
            self.latency.table(),
            self.micro.table()
        ));
        page.push_str(peers);
        page.push_str(TAIL);
        page
    }
}

/// What the figures of latency are.
const LATENCY: &str = "\
Open loop, records of 16 bytes: arrival minus due time, so stalls of the sender count. *TCP one way* is half a round trip of
64 bytes between threads that sleep; *bare socket* sends the same due times by blocking writes and reads (by spinning ones
where the engine spins). Medians of rounds; a run that achieves less than 99 % of its rate is not valid.
";

/// What the tables mean.
const NOTES: &str = "\
CPU is processor time per record, warm-up included: of the two TaskManagers since the job was submitted (without the
JobManager), of the floor's two processes from their start. *floor* is two processes that move the
same records without an engine: no credits, no tasks, no control plane, and no checksum unless the line says so; what was
tried to make it fast is in `benches/src/floor/mod.rs`. *shuffle* is the engine with everything on: credits, CRC32C of each
payload, validation, control plane. Bids have no floor, since their records need the engine's format.

";

/// The end of every page.
const TAIL: &str = "\
## Again

```
cargo build --release -p tidegate-benches
target/release/tidegate-benches report
```

## Not measured

More than one producer, consumer or channel, and skew (`sweep` does); checkpoints while records flow; recovery; state
larger than a cache; a network other than loopback; zero-copy sends, which loopback cannot do.
";
