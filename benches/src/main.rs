//! Benchmarks of the data plane, as a user would run them: `cargo run --release -p tidegate-benches -- shuffle --help`.
//!
//! The binary is also every role of a cluster (it has the facade's `main`) and both ends of the floor, so a benchmark
//! starts itself, pinned to the cores it was given.
#![deny(unsafe_code)] // allowed in one file, which says why

mod calibrate;
mod channels;
mod cluster;
mod exchange;
mod floor;
mod forms;
mod jobs;
mod latency;
mod meter;
mod micro;
mod outcome;
mod pairs;
mod process;
mod report;
mod shuffle;
mod stats;
mod sweep;
mod table;
mod work;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static HEAP: tidegate::Allocator = tidegate::Allocator::new();

/// Benchmarks of Tidegate's data plane.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Records from one slot to another, each pinned to a core of its own
    Shuffle(shuffle::Options),
    /// The same records between the same cores without an engine: what shuffle is measured against
    Floor(floor::Options),
    /// How late records come that were sent at a given rate, whatever became of those before them
    Latency(latency::Options),
    /// How costs grow with record size, channels, fan-out, segments, skew, broadcast and flush; charts, and a fitted cost model
    Sweep(sweep::Options),
    /// Two exchanges and nothing else: what the goals ask of them, each by itself
    Exchange(exchange::cases::Options),
    /// What each part of the data plane costs by itself, in nanoseconds and in instructions
    Micro(micro::Options),
    /// What this machine can do at best: copying, checksums, system calls, waking, loopback
    Calibrate(calibrate::Options),
    /// All of them in turns, and a page that says what was found
    Report(report::Options),
    /// One end of the floor; started by it.
    #[command(name = floor::ROLE, hide = true)]
    FloorEnd(floor::ends::EndArgs),
    /// One end of `shuffle --channels`; started by it.
    #[command(name = channels::ROLE, hide = true)]
    ChannelsEnd(channels::EndArgs),
}

fn main() -> ExitCode {
    process::pin_as_told();
    if let Some(role) = std::env::args().nth(1)
        && cluster::ROLES.contains(&role.as_str())
    {
        return tidegate::main(jobs::all());
    }
    let done = match Cli::parse().command {
        Command::Shuffle(options) => shuffle::run(&options),
        Command::Floor(options) => floor::run(&options),
        Command::Latency(options) => latency::run(&options),
        Command::Sweep(options) => sweep::run(&options),
        Command::Exchange(options) => exchange::cases::run(&options),
        Command::Micro(options) => micro::run(&options),
        Command::Calibrate(options) => {
            calibrate::run(&options);
            Ok(())
        }
        Command::Report(options) => report::run(&options),
        Command::FloorEnd(args) => floor::ends::run(&args),
        Command::ChannelsEnd(args) => channels::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
