//! `exchange`: the setups that the goals ask about, each by itself. No state.

use std::error::Error;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{Found, Reading, Setup, run as run_setup};
use crate::forms::OPAQUE_OVERHEAD;
use crate::outcome::print_json;
use crate::pairs::Sample;
use crate::table::Table;
use crate::work::two_cores;

/// Consumers of one broadcast: so often a segment that was written once is handed over.
pub const HANDED: u32 = 32;
/// Pairs of a producer and a consumer.
pub const PAIRED: u32 = 1_000;

/// A setup that has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// Pairs of numbers from one slot of a process to another
    LocalRecords,
    /// Hand-overs of segments of 32 KiB from slot to slot that are not looked at, 32 for each segment that is written
    LocalSegments,
    /// Records of 64 KiB, every byte read, in segments of 64 KiB
    #[value(name = "record-64k")]
    Record64K,
    /// Records of 1 MiB in the same segments
    #[value(name = "record-1m")]
    Record1M,
    /// Records of 16 MiB
    #[value(name = "record-16m")]
    Record16M,
    /// 1,000 producers, each with a consumer of its own, over one link
    Free,
    /// The same with one consumer that does not read
    Blocked,
    /// 10,000 channels from one task to another: what each takes when nothing flows
    Idle,
}

impl Case {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::LocalRecords => "pairs within a process",
            Self::LocalSegments => "hand-overs of segments within a process",
            Self::Record64K => "records of 64 KiB",
            Self::Record1M => "records of 1 MiB",
            Self::Record16M => "records of 16 MiB",
            Self::Free => "1,000 pairs of tasks",
            Self::Blocked => "… one consumer blocked",
            Self::Idle => "10,000 channels",
        }
    }

    /// What runs.
    pub fn setup(self) -> Setup {
        let one = Setup::ONE;
        let large = |bytes: usize| Setup {
            record_bytes: bytes - OPAQUE_OVERHEAD,
            segment_bytes: 64 << 10,
            reading: Reading::Whole,
            ..one
        };
        let paired =
            Setup { producers: PAIRED, consumers: PAIRED, paired: true, segment_bytes: 4 << 10, ..one };
        match self {
            Self::LocalRecords => Setup { record_bytes: 16, local: true, ..one },
            Self::LocalSegments => Setup {
                record_bytes: 32_000,
                consumers: HANDED,
                broadcast: true,
                local: true,
                reading: Reading::Nothing,
                ..one
            },
            Self::Record64K => large(64 << 10),
            Self::Record1M => large(1 << 20),
            Self::Record16M => large(16 << 20),
            Self::Free => paired,
            Self::Blocked => Setup { blocked: 1, ..paired },
            Self::Idle => Setup { parallel: 10_000, segment_bytes: 4 << 10, ..one },
        }
    }

    /// Runs it for about `time`.
    ///
    /// # Errors
    /// As [`run`](super::run).
    pub fn measure(self, time: Duration, cores: [usize; 2]) -> Result<Found, String> {
        run_setup(&self.setup(), time, cores).map_err(|error| format!("{}: {error}", self.name()))
    }
}

impl Sample {
    /// Of two exchanges.
    pub fn of_exchange(found: &Found) -> Self {
        Self {
            records_per_second: found.per_second(),
            bytes_per_second: found.bytes_per_second(),
            cpu_ns_per_record: found.cpu_ns_per_record(),
            ends_ns: found.sides_ns(),
            ..Self::default()
        }
    }
}

/// Bytes of heap that a channel of many takes on both sides while nothing flows.
///
/// # Errors
/// As [`run`](super::run).
pub fn idle_channel_bytes(cores: [usize; 2]) -> Result<f64, String> {
    let setup = Case::Idle.setup();
    let one = Setup { parallel: 1, ..setup };
    let heap = |setup: &Setup| {
        let found = run_setup(setup, Duration::from_millis(1), cores)?;
        Ok::<i64, String>(found.sender.heap_bytes + found.receiver.heap_bytes)
    };
    // What a link and an attempt take with one channel is not the channels'.
    let (many, few) = (heap(&setup)?, heap(&one)?);
    Ok((many - few) as f64 / f64::from(setup.channels() - one.channels()))
}

/// Flags of `exchange`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// What runs
    #[arg(long, value_enum)]
    what: Case,
    /// For how long, seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Cores of the two ends
    #[arg(long, value_name = "A,B", value_parser = two_cores, default_value = "0,1")]
    cores: [usize; 2],
    /// One JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// What one case gave.
#[derive(Debug, Serialize)]
struct Outcome {
    what: &'static str,
    records_per_second: f64,
    bytes_per_second: f64,
    cpu_ns_per_record: f64,
    /// Heap of both sides per channel.
    heap_bytes_per_channel: f64,
    found: Found,
}

/// Runs one and prints what it found.
///
/// # Errors
/// It failed.
pub fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let time = Duration::from_secs_f64(options.seconds.clamp(0.001, 600.0));
    let found = options.what.measure(time, options.cores)?;
    let heap = (found.sender.heap_bytes + found.receiver.heap_bytes) as f64;
    let outcome = Outcome {
        what: options.what.name(),
        records_per_second: found.per_second(),
        bytes_per_second: found.bytes_per_second(),
        cpu_ns_per_record: found.cpu_ns_per_record(),
        heap_bytes_per_channel: heap / f64::from(options.what.setup().channels()),
        found,
    };
    if options.json {
        print_json(&outcome);
        return Ok(());
    }
    let mut table = Table::new(["what", "M records/s", "GB/s", "CPU ns/record", "heap bytes/channel"]);
    table.row([
        outcome.what.to_owned(),
        format!("{:.3}", outcome.records_per_second / 1e6),
        format!("{:.2}", outcome.bytes_per_second / 1e9),
        format!("{:.1}", outcome.cpu_ns_per_record),
        format!("{:.0}", outcome.heap_bytes_per_channel),
    ]);
    print!("{table}");
    Ok(())
}
