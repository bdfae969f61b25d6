//! Apache Flink: a JobManager, two TaskManagers of one slot each, and one job of `flink/Peer.java`.
//!
//! Source and sum are in different slot sharing groups, so that they are in different TaskManagers and records travel by TCP;
//! that both ends found themselves in different processes is checked. The processes belong to one run.

mod cluster;
mod distribution;
pub mod latency;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::forms::Keys;
use crate::meter::{self, SOURCE_FILE, Side};
use crate::outcome::Outcome;
use crate::socket;
use crate::work::{Totals, Work};
use cluster::Cluster;
pub use cluster::{BecomeArgs, ROLE as BECOME, become_program};
pub use distribution::Distribution;

/// What the receiving end measured.
const METER_FILE: &str = "meter.json";
/// What came out at the receiving end.
const TOTALS_FILE: &str = "totals.json";

/// The collector of garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
pub enum Gc {
    /// One thread, as Java chooses by itself when it has one core
    Serial,
    /// The one for throughput
    Parallel,
    /// The default of machines with several cores
    G1,
}

impl Gc {
    fn flag(self) -> &'static str {
        match self {
            Self::Serial => "-XX:+UseSerialGC",
            Self::Parallel => "-XX:+UseParallelGC",
            Self::G1 => "-XX:+UseG1GC",
        }
    }
}

/// How Netty reaches the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
pub enum Netty {
    /// Java's own selector, Flink's default
    Nio,
    /// The kernel's epoll, through Netty's native library
    Epoll,
}

/// Where it is.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Where Flink is, or is put by pip if it is not; unless said, beside the folder this program was built into
    #[arg(long, value_name = "DIR")]
    flink_home: Option<PathBuf>,
    /// Release of the Python package apache-flink-libraries, if it has to be fetched
    #[arg(long, value_name = "V", default_value = distribution::RELEASE)]
    flink_release: String,
}

/// How it is set up.
#[derive(Debug, Clone, Args)]
pub struct Tuning {
    #[command(flatten)]
    pub place: Place,
    /// Milliseconds after which a buffer leaves though it is not full; 0: after each record
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub buffer_timeout: u32,
    /// KiB of a network buffer
    #[arg(long, value_name = "KIB", default_value_t = 32, value_parser = clap::value_parser!(u32).range(4..=1024))]
    pub segment: u32,
    /// Network buffers that belong to a channel
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub exclusive_buffers: u32,
    /// Network buffers that the channels of a gate share
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub floating_buffers: u32,
    /// Heap of each TaskManager, MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(256..=65_536))]
    pub heap: u32,
    /// Collector of garbage
    #[arg(long, value_enum, default_value_t = Gc::Serial)]
    pub gc: Gc,
    /// How Netty reaches the kernel
    #[arg(long, value_enum, default_value_t = Netty::Epoll)]
    pub netty: Netty,
    /// Let each TaskManager run on every core
    #[arg(long)]
    pub unpinned: bool,
}

impl Tuning {
    /// For people.
    fn settings(&self, distribution: &Distribution) -> BTreeMap<String, String> {
        let buffers = format!("{} exclusive, {} floating", self.exclusive_buffers, self.floating_buffers);
        let pinned = if self.unpinned { "no" } else { "a core for each TaskManager" };
        [
            ("version", distribution.version.clone()),
            ("java", distribution.java.clone()),
            ("buffer timeout", format!("{} ms", self.buffer_timeout)),
            ("network buffers", format!("{} KiB, {buffers}", self.segment)),
            ("heap", format!("{} MiB each, {}", self.heap, self.gc.flag().trim_start_matches("-XX:+Use"))),
            ("netty", format!("{:?}", self.netty).to_lowercase()),
            ("object reuse", "on; serializers of their own".to_owned()),
            ("checkpoints", "off; state on the heap".to_owned()),
            ("pinned", pinned.to_owned()),
            (
                "congestion control",
                format!("{} (the system's: Java can't set it)", socket::system_congestion()),
            ),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    /// What is needed to run it, fetched and compiled where missing.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn distribution(&self) -> Result<Distribution, Box<dyn Error>> {
        Distribution::find(self.place.flink_home.as_deref(), &self.place.flink_release)
    }

    /// Runs it once. Unless the work says otherwise as many records warm up as are measured: Java compiles while it runs.
    ///
    /// # Errors
    /// The run failed or took too long, or a count or a sum is wrong.
    pub fn measure(&self, work: &Work) -> Result<Outcome, Box<dyn Error>> {
        let work = &Work { warm_up: Some(work.warm_up.unwrap_or(work.measured())), ..work.clone() };
        let distribution = self.distribution()?;
        let cluster = Cluster::prepare(&distribution, self, work.cores)?;
        let numbers = [
            ("--records", work.measured()),
            ("--warm-up", work.warm_up()),
            ("--keys", work.keys),
            ("--stride", stride(work.keys)),
            ("--record-bytes", work.record_bytes),
        ];
        let mut words = vec!["--shape".to_owned(), work.shape.name().to_owned()];
        words.extend(numbers.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.to_string()]));
        cluster.run(&words, work.time_out())?;
        let dir = cluster.dir();
        let source: Side = meter::read(&dir.join(SOURCE_FILE))?;
        let sum: Side = meter::read(&dir.join(METER_FILE))?;
        let totals: Totals = meter::read(&dir.join(TOTALS_FILE))?;
        Outcome::checked("flink", work, [&source, &Side { totals, ..sum }], self.settings(&distribution))
    }
}

/// What is added to a key to get the next one, modulo their number: the first key is 0, the second is this.
fn stride(keys: u64) -> u64 {
    let mut keys = Keys::new(keys);
    keys.step();
    keys.step()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_from_the_stride() {
        for count in [1, 2, 7, 1_000, 100_000] {
            let (mut keys, stride) = (Keys::new(count), stride(count));
            assert!((0..3 * count).all(|number| keys.step() == number * stride % count), "{count} keys");
        }
    }
}
