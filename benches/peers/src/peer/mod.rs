//! The peers that are Rust libraries: two processes of this binary and one TCP connection. What one run of them is.
//!
//! Owns its children: they end with it, by their ids, and if this process is killed the kernel ends them.

mod columns;
pub mod flight;
pub mod timely;
pub mod tonic;

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use clap::Args;
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use crate::meter::{self, Meter, SOURCE_FILE, SUM_FILE, Side};
use crate::outcome::Outcome;
use crate::process::Process;
use crate::socket;
use crate::work::Work;

/// First argument that makes this binary an end of a run.
pub const ROLE: &str = "end";

/// A peer and its settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    /// Timely dataflow.
    Timely(timely::Tuning),
    /// A gRPC stream.
    Tonic(tonic::Tuning),
    /// An Arrow Flight stream.
    Flight(flight::Tuning),
}

impl Peer {
    /// What it is called in tables.
    pub fn name(&self) -> String {
        match self {
            Self::Timely(tuning) => tuning.name(),
            Self::Tonic(tuning) => tuning.name(),
            Self::Flight(_) => "flight".to_owned(),
        }
    }

    fn settings(&self, work: &Work) -> BTreeMap<String, String> {
        let lines = match self {
            Self::Timely(tuning) => tuning.settings(work),
            Self::Tonic(tuning) => tuning.settings(),
            Self::Flight(tuning) => tuning.settings(),
        };
        lines.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Runs it once.
    ///
    /// # Errors
    /// The run failed or took too long, or a count or a sum is wrong.
    pub fn measure(&self, work: &Work) -> Result<Outcome, Box<dyn Error>> {
        let dir = tempfile::tempdir()?;
        let spec = serde_json::to_string(&Spec { peer: self.clone(), work: work.clone() })?;
        let mut flags = vec!["--spec".to_owned(), spec, "--dir".to_owned(), dir.path().display().to_string()];
        let [source_core, sum_core] = work.cores;
        let mut sum = Process::start(ROLE, &flags, Some(sum_core), &dir.path().join("sum.log"))?;
        flags.extend(["--to".to_owned(), sum.address("data")?.to_owned()]);
        let mut source = Process::start(ROLE, &flags, Some(source_core), &dir.path().join("source.log"))?;
        sum.wait(work.time_out())?;
        source.wait(work.time_out())?;
        let [source, sum]: [Side; 2] =
            [meter::read(&dir.path().join(SOURCE_FILE))?, meter::read(&dir.path().join(SUM_FILE))?];
        let mut settings = self.settings(work);
        let congestion = source.congestion.clone().unwrap_or_else(|| "unknown".to_owned());
        settings.insert("congestion control".to_owned(), congestion);
        Outcome::checked(&self.name(), work, [&source, &sum], settings)
    }
}

/// What an end is told.
#[derive(Debug, Serialize, Deserialize)]
struct Spec {
    peer: Peer,
    work: Work,
}

/// Flags of an end.
#[derive(Debug, Args)]
pub struct EndArgs {
    #[arg(long)]
    spec: String,
    #[arg(long)]
    dir: PathBuf,
    /// Where the receiving end listens; without it this is that end
    #[arg(long)]
    to: Option<SocketAddr>,
}

/// One end: its side, its connection, its meter.
pub struct End {
    /// Whether it is the source.
    pub is_source: bool,
    /// What moves.
    pub work: Work,
    /// The connection to the other end.
    pub socket: TcpStream,
    /// Measures this end.
    pub meter: Meter,
}

/// Is that end.
///
/// # Errors
/// It could not finish.
pub fn end(args: &EndArgs) -> Result<(), Box<dyn Error>> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let Spec { peer, work } = serde_json::from_str(&args.spec)?;
    let (socket, file) = match args.to {
        Some(address) => (socket::dial(address, &work.congestion)?, SOURCE_FILE),
        None => (socket::accept(&work.congestion)?, SUM_FILE),
    };
    let meter = Meter::new(&work, &args.dir, file, socket::congestion(&socket));
    let end = End { is_source: args.to.is_some(), work, socket, meter };
    match peer {
        Peer::Timely(tuning) => timely::end(&tuning, end),
        Peer::Tonic(tuning) => tonic::end(&tuning, end),
        Peer::Flight(tuning) => flight::end(&tuning, end),
    }
}
