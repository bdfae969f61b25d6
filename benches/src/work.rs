//! What a benchmark moves: the flags that shuffle and floor share, and what follows from them. No state.
//!
//! Always: the same work gives the same records, the same checksum and the same share of warm-up wherever it is done.

use clap::{Args, ValueEnum};
use tidegate_record::{Record, Slot};

use crate::forms::{self, OPAQUE_OVERHEAD, PAIR_BYTES, RECORD_BYTES_MAX, RECORD_BYTES_MIN};
use crate::jobs::bid::Bids;
use crate::meter::Totals;

/// Payload bytes of a run unless its records are counted by hand.
const RUN_BYTES: u64 = 8_000_000_000;
/// The part of the measured records that warms up.
const WARM_UP_PART: u64 = 25;

/// What moves, and what is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// Pairs of (u64, u64), summed by key in a hash map
    Keyed,
    /// Opaque records of one length, of which every byte is summed
    Bytes,
    /// Bids with three texts of varied length, validated, of which every field is read
    Bid,
}

impl Shape {
    /// The word for it on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keyed => "keyed",
            Self::Bytes => "bytes",
            Self::Bid => "bid",
        }
    }
}

/// Flags that say what moves.
#[derive(Debug, Clone, Args)]
pub struct Work {
    /// What moves, and what is done with it
    #[arg(long, value_enum, default_value_t = Shape::Keyed)]
    pub shape: Shape,
    /// Records that are measured, instead of 8 GB of them; the warm-up comes on top
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub records: Option<u64>,
    /// Keys of the shape keyed
    #[arg(long, value_name = "K", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    pub keys: u64,
    /// Bytes of each record of the shape bytes
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(RECORD_BYTES_MIN as u64..=RECORD_BYTES_MAX as u64))]
    pub record_bytes: u64,
    /// Cores of the two ends
    #[arg(long, value_name = "A,B", value_parser = two_cores, default_value = "0,1")]
    pub cores: [usize; 2],
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

impl Work {
    /// Records that are measured.
    pub fn measured(&self) -> u64 {
        self.records.unwrap_or_else(|| (RUN_BYTES as f64 / self.wire_bytes()) as u64)
    }

    /// Records before them: all keys are seen by then, and buffers and credit have found their level.
    pub fn warm_up(&self) -> u64 {
        let keys = if self.shape == Shape::Keyed { 2 * self.keys } else { 1 };
        keys.max(self.measured() / WARM_UP_PART)
    }

    /// Both together.
    pub fn all(&self) -> u64 {
        self.measured() + self.warm_up()
    }

    /// Payload bytes of a record on the wire, on average.
    pub fn wire_bytes(&self) -> f64 {
        match self.shape {
            Shape::Keyed => PAIR_BYTES as f64,
            Shape::Bytes => (self.record_bytes as usize + OPAQUE_OVERHEAD) as f64,
            Shape::Bid => Bids::wire_bytes(),
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
            Shape::Bid => Totals { results: all, checksum: Bids::sum(all) },
        }
    }

    /// The flags that its two ends need to know.
    pub fn flags(&self) -> Vec<String> {
        let flags = [
            ("--records", self.measured()),
            ("--warm-up", self.warm_up()),
            ("--keys", self.keys),
            ("--record-bytes", self.record_bytes),
        ];
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.to_string()]).collect()
    }
}

/// Bytes that a record takes in a segment.
///
/// # Panics
/// If it does not fit the longest record.
pub fn written<T: Record>(record: &T) -> usize {
    let mut buffer = vec![0; RECORD_BYTES_MAX + OPAQUE_OVERHEAD];
    let mut slot = Slot::new(&mut buffer, 0);
    record.write(&mut slot).expect("invariant: the benchmarks' records are no longer than this");
    slot.len() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(shape: Shape) -> Work {
        Work { shape, records: None, keys: 100_000, record_bytes: 100, cores: [0, 1] }
    }

    #[test]
    fn a_run_is_eight_gigabytes() {
        assert_eq!(work(Shape::Keyed).measured(), 500_000_000);
        assert_eq!(work(Shape::Keyed).warm_up(), 20_000_000);
        assert_eq!(work(Shape::Bytes).measured(), 8_000_000_000 / 112);
        let few = Work { records: Some(10), ..work(Shape::Keyed) };
        assert_eq!((few.measured(), few.warm_up(), few.expected().results), (10, 200_000, 100_000));
    }

    #[test]
    fn two_cores_are_two_numbers() {
        assert_eq!(two_cores("0,1"), Ok([0, 1]));
        for wrong in ["", "0", "0,1,2", "a,b"] {
            assert!(two_cores(wrong).unwrap_err().contains("such as 0,1"), "{wrong}");
        }
    }
}
