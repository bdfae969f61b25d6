//! The work of Tidegate's benchmarks, done by other systems on the same cores: `cargo run --release -- compare --help`.
//!
//! The binary is also both ends of each peer that is a Rust library; Flink's processes are Java's, started and ended here.

#[path = "../../src/forms.rs"]
#[allow(
    dead_code,
    reason = "the closed forms of Tidegate's own benchmarks, of which bids are not needed here"
)]
mod forms;
#[path = "../../src/process.rs"]
#[allow(dead_code, reason = "a child as in Tidegate's own benchmarks")]
mod process;
#[path = "../../src/stats.rs"]
#[allow(dead_code, reason = "medians as in Tidegate's own benchmarks")]
mod stats;
#[path = "../../src/floor/sums.rs"]
#[allow(dead_code, reason = "the hash table of the floor")]
mod sums;
#[path = "../../src/table.rs"]
mod table;

mod compare;
mod flink;
mod meter;
mod outcome;
mod peer;
mod records;
mod socket;
mod work;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use peer::Peer;
use work::Work;

#[global_allocator]
static HEAP: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The work of Tidegate's benchmarks, done by other systems.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Timely dataflow: an exchange between two processes
    Timely(Run<peer::timely::Tuning>),
    /// A gRPC stream, a message for each record or for many
    Tonic(Run<peer::tonic::Tuning>),
    /// An Arrow Flight stream of record batches
    Flight(Run<peer::flight::Tuning>),
    /// Apache Flink: a job between two TaskManagers
    Flink(FlinkRun),
    /// Apache Flink under a load that does not wait
    FlinkLatency(FlinkLatency),
    /// Tidegate and its peers in turns
    Compare(compare::Options),
    /// Becomes a program that ends with its parent; started by the others.
    #[command(name = flink::BECOME, hide = true)]
    Become(flink::BecomeArgs),
    /// One end of a peer; started by the others.
    #[command(name = peer::ROLE, hide = true)]
    End(peer::EndArgs),
}

/// One run of a peer.
#[derive(Debug, Args)]
struct Run<T: Args> {
    #[command(flatten)]
    work: Work,
    #[command(flatten)]
    tuning: T,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

impl<T: Args> Run<T> {
    fn run(self, peer: fn(T) -> Peer) -> Result<(), Box<dyn std::error::Error>> {
        peer(self.tuning).measure(&self.work)?.print(self.json);
        Ok(())
    }
}

/// One run of Flink.
#[derive(Debug, Args)]
struct FlinkRun {
    #[command(flatten)]
    work: Work,
    #[command(flatten)]
    tuning: flink::Tuning,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// One run of Flink under a load.
#[derive(Debug, Args)]
struct FlinkLatency {
    #[command(flatten)]
    load: flink::latency::Load,
    #[command(flatten)]
    tuning: flink::Tuning,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    process::pin_as_told();
    let done = match Cli::parse().command {
        Command::Timely(run) => run.run(Peer::Timely),
        Command::Tonic(run) => run.run(Peer::Tonic),
        Command::Flight(run) => run.run(Peer::Flight),
        Command::Flink(run) => run.tuning.measure(&run.work).map(|outcome| outcome.print(run.json)),
        Command::FlinkLatency(run) => run.load.measure(&run.tuning).map(|outcome| outcome.print(run.json)),
        Command::Compare(options) => compare::run(&options),
        Command::Become(args) => flink::become_program(&args),
        Command::End(args) => peer::end(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
