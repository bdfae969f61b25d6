//! `floor`: the same records between the same two cores with nothing of an engine: what the engine is measured against.
//!
//! Two processes and a TCP connection. The source makes the records of `shuffle` in frames of a segment's size, laid out
//! as the engine lays them out; the receiving end does the same work on them: a sum per key, or a sum of every word. No
//! credits, no control plane, no tasks, no generality; a CRC32C per frame, as the engine has, only if asked for.
//!
//! A slow floor would be a lie, so it was tuned. Tried on the reference machine (two cores, kernel 6.18, loopback, records
//! of 16 bytes and 100,000 keys; processor time of both ends per record, for the machine was shared):
//!
//! | choice | taken | instead |
//! |---|---|---|
//! | blocking sockets or io_uring with registered segments | blocking, 9.2 ns | io_uring 10.1 ns (`--io ring`) |
//! | frames of a call, blocking | 8 | 2: 11.7 ns, 4: 11.1 ns, 16: 9.7 ns; 1 costs a tenth more than 2 |
//! | frames of an operation, io_uring | 16 | 2: 11.7 ns, 4: 11.4 ns, 8: 10.5 ns |
//! | places of the hash table | 131,072, an eighth empty or more | twice as many: an eighth more at the receiver |
//! | looking up keys | one by one | sixteen looked at together first: a quarter more at the receiver |
//! | huge pages for the table | no | within the noise |
//! | MSG_WAITALL, buffers of 1 or 4 MB, cubic instead of bbr | the kernel's own | within the noise |
//! | checksum of each frame | by flag | below 0.5 ns |

pub mod ends;
pub mod frames;
pub mod ring;
pub mod stream;
mod sums;

use std::error::Error;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::outcome::{Details, Outcome};
use crate::pairs::{self, Sample};
use crate::process::Process;
use crate::shuffle;
use crate::work::{Shape, Work};

/// First argument that makes this binary an end of the floor.
pub const ROLE: &str = "floor-end";
/// Why there is no floor for bids.
const NO_BIDS: &str =
    "the floor has no shape bid, because its records need the engine's format: take keyed or bytes";

/// Whether frames carry a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Checksum {
    /// CRC32C of each frame, made and checked, as the engine does
    Crc,
    /// Nothing but records
    None,
}

impl Checksum {
    fn name(self) -> &'static str {
        match self {
            Self::Crc => "crc",
            Self::None => "none",
        }
    }
}

/// How the ends reach the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Io {
    /// write and read
    Blocking,
    /// io_uring as the engine uses it: registered segments, gathered and scattered
    Ring,
}

impl Io {
    fn name(self) -> &'static str {
        match self {
            Self::Blocking => "blocking",
            Self::Ring => "ring",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Against {
    /// The engine, with the same work
    Shuffle,
}

/// Flags of `floor`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    #[command(flatten)]
    work: Work,
    /// Whether frames carry a checksum
    #[arg(long, value_enum, default_value_t = Checksum::None)]
    checksum: Checksum,
    /// How the ends reach the kernel
    #[arg(long, value_enum, default_value_t = Io::Blocking)]
    io: Io,
    /// Run alternately with this, and compare
    #[arg(long, value_enum)]
    against: Option<Against>,
    /// How often, with --against
    #[arg(long, default_value_t = 7, requires = "against", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pairs: u32,
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

impl Options {
    /// Tuned, for this work.
    pub fn of(work: Work, checksum: Checksum) -> Self {
        Self { work, checksum, io: Io::Blocking, against: None, pairs: 1, json: false }
    }
}

/// What only the floor has to say.
#[derive(Debug, Clone, Serialize)]
pub struct Plain {
    /// How the ends reached the kernel.
    pub driver: &'static str,
    /// Whether frames carried a checksum.
    pub frame_checksum: &'static str,
}

impl Details for Plain {
    fn lines(&self) -> Vec<(&'static str, String)> {
        vec![("driver", self.driver.to_owned()), ("frame checksum", self.frame_checksum.to_owned())]
    }
}

/// Runs it, alone or in pairs, and prints what it found.
///
/// # Errors
/// A run failed, or a result is wrong.
pub fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    if options.against.is_none() {
        measure(options)?.print(options.json);
        return Ok(());
    }
    let engine = shuffle::Options::of(options.work.clone());
    let comparison = pairs::interleave(
        options.pairs,
        vec![
            ("floor", Box::new(|| Ok(Sample::of(&measure(options)?)))),
            ("shuffle", Box::new(|| Ok(Sample::of(&shuffle::measure(&engine)?)))),
        ],
    )
    .whole()?;
    comparison.print(options.json);
    Ok(())
}

/// Runs it once.
///
/// # Errors
/// The run failed, or the result is wrong.
pub fn measure(options: &Options) -> Result<Outcome<Plain>, Box<dyn Error>> {
    let work = &options.work;
    if work.shape == Shape::Bid {
        return Err(NO_BIDS.into());
    }
    let (checksum, driver) = (options.checksum.name(), options.io.name());
    let dir = tempfile::tempdir()?;
    let mut flags = work.flags();
    let more = ["--shape", work.shape.name(), "--checksum", checksum, "--io", driver, "--dir"];
    flags.extend(more.map(str::to_owned));
    flags.push(dir.path().display().to_string());
    let [source_core, sum_core] = work.cores;
    let mut sum = Process::start(ROLE, &flags, Some(sum_core), &dir.path().join("sum.log"))?;
    flags.extend(["--to".to_owned(), sum.address("data")?.to_owned()]);
    let mut source = Process::start(ROLE, &flags, Some(source_core), &dir.path().join("source.log"))?;
    let cpu = [(source.pid(), source.wait(shuffle::RUN_MAX)?), (sum.pid(), sum.wait(shuffle::RUN_MAX)?)];
    Outcome::collect(dir.path(), work, &cpu, Plain { driver, frame_checksum: checksum })?.checked()
}
