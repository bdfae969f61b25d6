//! What TaskManagers report of latencies: one histogram for each stage of each end of each edge.
//!
//! A histogram travels in HdrHistogram's V2 format, a few hundred bytes for most, and holds everything since its attempt
//! began. Always: all have the bounds in [`limits`](crate::limits); bytes with others are refused before anything is
//! allocated for them.

use crate::ids::{JobId, TaskId};
use crate::limits::{
    HISTOGRAM_BYTES_MAX, HISTOGRAM_COUNT_MAX, HISTOGRAM_DIGITS, HISTOGRAM_HIGH_NS, HISTOGRAM_LOW_NS,
};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2Serializer};
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;

/// Latencies, in nanoseconds.
pub type Latencies = Histogram<u64>;

/// Ends of edges, at most [`REPORT_EDGES_MAX`](crate::limits::REPORT_EDGES_MAX) of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyReport {
    /// Those that recorded something since they were reported last.
    pub edges: Vec<EdgeLatency>,
}

/// One end of an edge in one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeLatency {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
    /// The task at this end.
    pub task: TaskId,
    /// Position of the edge in the graph.
    pub edge: u32,
    /// The histogram of each stage, encoded.
    pub stages: Vec<(Stage, Vec<u8>)>,
}

/// A stretch of the way between two tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// Birth of the oldest record to the consumer's turn; between ends that share a clock.
    Total,
    /// Departure to arrival; between ends that share a clock, and not inside a process.
    Wire,
    /// Arrival to the consumer's turn.
    Queue,
    /// Birth of the oldest record to departure.
    Send,
    /// The part of that without credit.
    Credit,
}

impl Stage {
    /// All of them.
    pub const ALL: [Stage; 5] = [Stage::Total, Stage::Wire, Stage::Queue, Stage::Send, Stage::Credit];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Total => "total",
            Stage::Wire => "wire",
            Stage::Queue => "queue",
            Stage::Send => "send",
            Stage::Credit => "credit",
        }
    }

    /// Whether the consumer's end records it.
    pub fn of_consumer(self) -> bool {
        matches!(self, Stage::Total | Stage::Wire | Stage::Queue)
    }
}

/// An empty histogram.
pub fn empty() -> Latencies {
    Histogram::new_with_bounds(HISTOGRAM_LOW_NS, HISTOGRAM_HIGH_NS, HISTOGRAM_DIGITS)
        .expect("invariant: the bounds are constant and valid")
}

/// The bytes of a histogram with our bounds.
pub fn encode(histogram: &Latencies) -> Vec<u8> {
    let mut bytes = Vec::new();
    V2Serializer::new()
        .serialize(histogram, &mut bytes)
        .expect("invariant: memory can be written to, and no count is above what the format holds");
    bytes
}

/// Bytes that are no histogram of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("histogram: {0}")]
pub struct DamagedHistogram(String);

/// Reads the bytes of a histogram with our bounds.
///
/// # Errors
/// Anything else, by what is wrong with it.
pub fn decode(bytes: &[u8]) -> Result<Latencies, DamagedHistogram> {
    let damaged = |what: String| Err(DamagedHistogram(what));
    if bytes.len() > HISTOGRAM_BYTES_MAX {
        return damaged(format!("{} bytes, at most {HISTOGRAM_BYTES_MAX} allowed", bytes.len()));
    }
    // Cookie, length of what follows the head, normalization, digits, bounds, ratio: as a histogram of ours has them.
    const HEAD: usize = 40;
    static OURS: OnceLock<Vec<u8>> = OnceLock::new();
    let ours = OURS.get_or_init(|| encode(&empty()));
    let Some((head, counts)) = bytes.split_at_checked(HEAD) else {
        return damaged(format!("{} bytes, at least {HEAD} expected", bytes.len()));
    };
    if head[..4] != ours[..4] || head[8..] != ours[8..HEAD] {
        return damaged("other bounds or another format than ours".to_owned());
    }
    if head[4..8] != (counts.len() as u32).to_be_bytes() {
        return damaged("its length is not what it says".to_owned());
    }
    // No count of ours needs so many bytes, and the crate does not expect the ones that do.
    if counts.windows(8).any(|bytes| bytes.iter().all(|byte| *byte >= 0x80)) {
        return damaged("a count of 2^55 or more".to_owned());
    }
    let histogram: Latencies = match Deserializer::new().deserialize(&mut &*bytes) {
        Ok(histogram) => histogram,
        Err(error) => return damaged(error.to_string()),
    };
    if histogram.len() > HISTOGRAM_COUNT_MAX {
        return damaged(format!("{} counts, at most {HISTOGRAM_COUNT_MAX} are possible", histogram.len()));
    }
    Ok(histogram)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_histogram_fits_its_bound() {
        let mut full = empty();
        let values: Vec<u64> = full.iter_all().map(|value| value.value_iterated_to()).collect();
        values.iter().for_each(|value| full.saturating_record_n(*value, 1 << 35));
        let bytes = encode(&full);
        assert!(bytes.len() <= HISTOGRAM_BYTES_MAX, "{}", bytes.len());
        assert_eq!(decode(&bytes).unwrap(), full);
    }

    #[test]
    fn other_histograms_are_refused() {
        let other = |low, high, digits| encode(&Histogram::new_with_bounds(low, high, digits).unwrap());
        let (low, high, digits) = (HISTOGRAM_LOW_NS, HISTOGRAM_HIGH_NS, HISTOGRAM_DIGITS);
        for bytes in [other(1, high, digits), other(low, high * 2, digits), other(low, high, 5)] {
            assert!(decode(&bytes).unwrap_err().to_string().contains("other bounds"));
        }
        let mut huge = encode(&empty());
        huge.extend([0xff; 9]);
        let payload = (huge.len() - 40) as u32;
        huge[4..8].copy_from_slice(&payload.to_be_bytes());
        assert!(decode(&huge).unwrap_err().to_string().contains("2^55"));
        let mut many = empty();
        many.saturating_record_n(1_000, HISTOGRAM_COUNT_MAX + 1);
        assert!(decode(&encode(&many)).is_err());
    }

    proptest! {
        #[test]
        fn what_is_recorded_survives_the_way(values in prop::collection::vec(0..2 * HISTOGRAM_HIGH_NS, 0..200)) {
            let mut histogram = empty();
            values.iter().for_each(|value| histogram.saturating_record(*value));
            prop_assert_eq!(decode(&encode(&histogram)).unwrap(), histogram);
        }

        /// Any bytes, and any damage to good ones, are refused or read, and never more than that.
        #[test]
        fn damage_is_no_panic(
            values in prop::collection::vec(0..HISTOGRAM_HIGH_NS, 0..50),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in any::<prop::sample::Index>(),
            noise in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut histogram = empty();
            values.iter().for_each(|value| histogram.saturating_record(*value));
            let mut bytes = encode(&histogram);
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = decode(&bytes);
            let _ = decode(&bytes[..cut.index(bytes.len())]);
            let _ = decode(&noise);
            let mut long = encode(&empty());
            long.extend(noise);
            let payload = (long.len() - 40) as u32;
            long[4..8].copy_from_slice(&payload.to_be_bytes());
            let _ = decode(&long);
        }
    }
}
