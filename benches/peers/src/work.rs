//! What moves: the flags that all peers share, and what follows from them. No state.
//!
//! Always: the same work gives the same records in the same order and the same checksum in every peer, and in Tidegate's
//! own benchmarks, whose closed forms are used.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::forms::{self, PAIR_BYTES, RECORD_BYTES_MAX, RECORD_BYTES_MIN};

/// Payload bytes of a run unless its records are counted by hand.
const RUN_BYTES: u64 = 2_000_000_000;
/// The part of the measured records that warms up.
const WARM_UP_PART: u64 = 25;

/// What moves, and what is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Pairs of (u64, u64), summed by key
    Keyed,
    /// Opaque records of one length, of which every byte is summed
    Bytes,
}

impl Shape {
    /// The word for it on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keyed => "keyed",
            Self::Bytes => "bytes",
        }
    }
}

/// Flags that say what moves, and where.
#[derive(Debug, Clone, Args, Serialize, Deserialize)]
pub struct Work {
    /// What moves, and what is done with it
    #[arg(long, value_enum, default_value_t = Shape::Keyed)]
    pub shape: Shape,
    /// Records that are measured, instead of 2 GB of them; the warm-up comes on top
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub records: Option<u64>,
    /// Records before them, instead of a twenty-fifth of them, or two of each key
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub warm_up: Option<u64>,
    /// Keys of the shape keyed
    #[arg(long, value_name = "K", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    pub keys: u64,
    /// Bytes of each record of the shape bytes
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(RECORD_BYTES_MIN as u64..=RECORD_BYTES_MAX as u64))]
    pub record_bytes: u64,
    /// Cores of the two ends
    #[arg(long, value_name = "A,B", value_parser = two_cores, default_value = "0,1")]
    pub cores: [usize; 2],
    /// Congestion control of each socket that this program opens, or "system" to leave it as it is
    #[arg(long, value_name = "NAME", default_value = "cubic")]
    pub congestion: String,
    /// Seconds after which a run is given up
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub time_out: u64,
}

/// Two core numbers.
///
/// # Errors
/// They are not.
pub fn two_cores(text: &str) -> Result<[usize; 2], String> {
    let mut cores = text.split(',').map(|core| core.trim().parse().ok());
    match (cores.next().flatten(), cores.next().flatten(), cores.next()) {
        (Some(first), Some(second), None) => Ok([first, second]),
        _ => Err(format!("expected two core numbers such as 0,1, found {text}")),
    }
}

/// What must come out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Keys with a sum, or records that were summed.
    pub results: u64,
    /// All of them added up, modulo 2^64.
    pub checksum: u64,
}

impl Work {
    /// Records that are measured.
    pub fn measured(&self) -> u64 {
        self.records.unwrap_or(RUN_BYTES / self.payload_bytes())
    }

    /// Records before them.
    pub fn warm_up(&self) -> u64 {
        let keys = if self.shape == Shape::Keyed { 2 * self.keys } else { 1 };
        self.warm_up.unwrap_or_else(|| keys.max(self.measured() / WARM_UP_PART))
    }

    /// Both together.
    pub fn all(&self) -> u64 {
        self.measured() + self.warm_up()
    }

    /// Bytes of a record that mean something to whoever sent it, whatever a peer puts around them.
    pub fn payload_bytes(&self) -> u64 {
        match self.shape {
            Shape::Keyed => PAIR_BYTES as u64,
            Shape::Bytes => self.record_bytes,
        }
    }

    /// What must come out.
    pub fn expected(&self) -> Totals {
        let all = self.all();
        match self.shape {
            Shape::Keyed => Totals { results: self.keys.min(all), checksum: forms::sum_of_numbers(all) },
            Shape::Bytes => {
                Totals { results: all, checksum: forms::opaque_sum(all, self.record_bytes as usize) }
            }
        }
    }

    /// How long a run may take.
    pub fn time_out(&self) -> Duration {
        Duration::from_secs(self.time_out)
    }

    /// What it is, for a title.
    pub fn title(&self) -> String {
        match self.shape {
            Shape::Keyed => format!("Pairs of (u64, u64), summed by {} keys", self.keys),
            Shape::Bytes => format!("Opaque records of {} bytes, every byte summed", self.record_bytes),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Keyed work over 1,000 keys, to be changed.
    pub fn work(shape: Shape, records: u64) -> Work {
        Work {
            shape,
            records: Some(records),
            warm_up: None,
            keys: 1_000,
            record_bytes: 100,
            cores: [0, 1],
            congestion: "system".to_owned(),
            time_out: 60,
        }
    }

    #[test]
    fn what_must_come_out_counts_the_warm_up() {
        let keyed = work(Shape::Keyed, 10_000);
        assert_eq!((keyed.measured(), keyed.warm_up(), keyed.all()), (10_000, 2_000, 12_000));
        assert_eq!(keyed.expected(), Totals { results: 1_000, checksum: 12_000 * 11_999 / 2 });
        let told = Work { warm_up: Some(7), ..work(Shape::Bytes, 3) };
        assert_eq!((told.all(), told.expected().results), (10, 10));
        assert_eq!(told.expected().checksum, forms::opaque_sum(10, 100));
    }

    #[test]
    fn a_run_is_two_gigabytes_unless_counted() {
        let all = |shape| Work { records: None, ..work(shape, 1) }.measured();
        assert_eq!((all(Shape::Keyed), all(Shape::Bytes)), (125_000_000, 20_000_000));
    }

    #[test]
    fn two_cores_are_two_numbers() {
        assert_eq!(two_cores("0,1"), Ok([0, 1]));
        for wrong in ["", "0", "0,1,2", "a,b"] {
            assert!(two_cores(wrong).unwrap_err().contains("such as 0,1"), "{wrong}");
        }
    }
}
