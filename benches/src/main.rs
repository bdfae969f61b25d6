//! Benchmarks of the data plane, as a user would run them: `cargo run --release -p tidegate-benches -- shuffle --help`.
//!
//! The binary is also every role of a cluster (it has the facade's `main`), so a benchmark starts itself as a JobManager and
//! two TaskManagers and submits one of its own jobs.
#![forbid(unsafe_code)]

mod cluster;
mod keyed;
mod report;
mod shuffle;

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
    /// Records from one TaskManager process to another, each pinned to a core of its own
    Shuffle(shuffle::Options),
}

fn main() -> ExitCode {
    if let Some(role) = std::env::args().nth(1)
        && cluster::ROLES.contains(&role.as_str())
    {
        cluster::pin_as_told();
        return tidegate::main(tidegate::Jobs::new([keyed::entry()]));
    }
    match Cli::parse().command {
        Command::Shuffle(options) => shuffle::run(&options),
    }
}
