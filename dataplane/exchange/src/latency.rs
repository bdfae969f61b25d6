//! Where the time between two tasks goes: histograms that a slot fills, and another thread empties and merges.
//!
//! A [`Recorder`] is one end of one edge of one task and lives on its slot's thread; a [`LatencyFeed`] is the way to what it
//! has recorded. Both halves have a set of histograms each, made when the edge is: the slot swaps a full set for an empty
//! one, so it never waits for a reader, allocates nothing, and copies nothing. A reader that does not come leaves the slot
//! recording into the set it has; what is recorded when the edge ends goes to the feed, so nothing is lost.
//!
//! Times are those of the slot's turns: the clock is read once per turn and quantum, never per record, train or segment. So a
//! time may be short by what the task did earlier in the same quantum, at most.
//!
//! Envelope: some 50 instructions a histogram (counted under callgrind), five histograms a segment: an eighth of an instruction
//! per record where 2,048 records of 16 bytes share a segment, and 256 where a record travels alone, beside thousands for that.
//!
//! Inequalities: at most `HISTOGRAMS_MAX` histograms are recorded in a slot; each has `HISTOGRAM_PLACES` counters.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use arrayvec::ArrayVec;
use hdrhistogram::Histogram;

use crate::limits::{HISTOGRAM_DIGITS, HISTOGRAM_HIGH_NS, HISTOGRAM_LOW_NS, STAGES_MAX};

/// A stretch of the way between two tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// From the birth of the oldest record of a train, or of a segment inside a process, to the turn in which its consumer
    /// takes it. Only between ends that share a clock.
    Total,
    /// From the departure of a train to its arrival. Only between ends that share a clock; none inside a process.
    Wire,
    /// From its arrival to the turn in which its consumer takes it: the wait for the consumer, alignment included.
    Queue,
    /// From the birth of the oldest record of a segment to its departure: being filled, waiting for its link and for credit.
    Send,
    /// The part of that in which its channel had something to send and no credit; nothing for most.
    Credit,
}

impl Stage {
    /// All of them, in the order of the way's ends.
    pub const ALL: [Stage; 5] = [Stage::Total, Stage::Wire, Stage::Queue, Stage::Send, Stage::Credit];
    /// What the consumer's end records.
    pub const OF_CONSUMER: &'static [Stage] = &[Stage::Total, Stage::Wire, Stage::Queue];
    /// What the producer's end records.
    pub const OF_PRODUCER: &'static [Stage] = &[Stage::Send, Stage::Credit];
}

/// Latencies, in nanoseconds.
pub type Latencies = Histogram<u32>;

/// An empty histogram with the bounds of all of them.
pub fn latencies() -> Latencies {
    Histogram::new_with_bounds(HISTOGRAM_LOW_NS, HISTOGRAM_HIGH_NS, HISTOGRAM_DIGITS)
        .expect("invariant: the bounds are constant and valid")
}

type Set = ArrayVec<Latencies, STAGES_MAX>;

struct Shared {
    set: Set,
    /// The set has something, and the recorder keeps its hands off until it is taken.
    full: bool,
}

/// What an end of an edge has recorded, for the thread that merges it. Clones are the same.
#[derive(Clone)]
pub struct LatencyFeed {
    stages: &'static [Stage],
    shared: Arc<Mutex<Shared>>,
}

impl LatencyFeed {
    /// Shows what was recorded since the last call, stage by stage, and empties it.
    pub fn take(&self, mut visit: impl FnMut(Stage, &Latencies)) {
        let mut shared = lock(&self.shared);
        if std::mem::take(&mut shared.full) {
            for (stage, histogram) in self.stages.iter().zip(&mut shared.set) {
                visit(*stage, histogram);
                histogram.reset();
            }
        }
    }

    /// What it records.
    pub fn stages(&self) -> &'static [Stage] {
        self.stages
    }

    /// True once the end is gone and nobody else has this feed: after the next [`take`](Self::take) nothing comes any more.
    pub fn is_last(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }
}

impl std::fmt::Debug for LatencyFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LatencyFeed").field("stages", &self.stages).finish_non_exhaustive()
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records one end of one edge.
pub(crate) struct Recorder {
    set: Set,
    recorded: bool,
    feed: LatencyFeed,
}

impl Recorder {
    pub fn new(stages: &'static [Stage]) -> Self {
        let set = || stages.iter().map(|_| latencies()).collect();
        let shared = Arc::new(Mutex::new(Shared { set: set(), full: false }));
        Recorder { set: set(), recorded: false, feed: LatencyFeed { stages, shared } }
    }

    pub fn feed(&self) -> LatencyFeed {
        self.feed.clone()
    }

    /// Histograms it records into.
    pub fn histograms(&self) -> usize {
        self.set.len()
    }

    /// Records at the place of a stage in its list.
    #[inline]
    fn record(&mut self, place: usize, ns: u64) {
        self.recorded = true;
        self.set[place].saturating_record(ns);
    }

    /// Offers what was recorded to the reader, unless that is reading, or has not taken what it was offered before.
    pub fn offer(&mut self) {
        if !self.recorded {
            return;
        }
        let mut shared = match self.feed.shared.try_lock() {
            Ok(shared) => shared,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if !shared.full {
            std::mem::swap(&mut self.set, &mut shared.set);
            (shared.full, self.recorded) = (true, false);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !self.recorded {
            return;
        }
        let mut shared = lock(&self.feed.shared);
        if shared.full {
            for (all, last) in shared.set.iter_mut().zip(&self.set) {
                all.add(last).expect("invariant: all histograms have the same bounds");
            }
        } else {
            std::mem::swap(&mut self.set, &mut shared.set);
            shared.full = true;
        }
    }
}

/// When what arrived on a channel was born, and when it arrived, in nanoseconds of this slot's clock; 0 is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub born_ns: u64,
    pub arrived_ns: u64,
}

/// The consumer's ends of the edges into a gate; empty until somebody wants to know.
#[derive(Default)]
pub(crate) struct GateLatency {
    /// Place of each channel's recorder.
    by_channel: Box<[u16]>,
    recorders: Vec<Recorder>,
}

impl GateLatency {
    pub fn new(by_channel: Box<[u16]>, recorders: Vec<Recorder>) -> Self {
        GateLatency { by_channel, recorders }
    }

    #[inline]
    fn of(&mut self, channel: usize) -> Option<&mut Recorder> {
        self.recorders.get_mut(usize::from(*self.by_channel.get(channel)?))
    }

    /// A payload came over a link, which it was handed to at `sent_ns` of this slot's clock.
    #[inline]
    pub fn arrived(&mut self, channel: usize, sent_ns: u64, now_ns: u64) {
        if let (1.., Some(recorder)) = (sent_ns, self.of(channel)) {
            recorder.record(1, now_ns.saturating_sub(sent_ns));
        }
    }

    /// The task takes a segment.
    #[inline]
    pub fn taken(&mut self, channel: usize, stamp: Stamp, now_ns: u64) {
        let Some(recorder) = self.of(channel) else { return };
        if stamp.born_ns > 0 {
            recorder.record(0, now_ns.saturating_sub(stamp.born_ns));
        }
        recorder.record(2, now_ns.saturating_sub(stamp.arrived_ns));
    }

    pub fn offer(&mut self) {
        self.recorders.iter_mut().for_each(Recorder::offer);
    }

    pub fn histograms(&self) -> usize {
        self.recorders.iter().map(Recorder::histograms).sum()
    }
}

/// The producer's end of an edge; nothing until somebody wants to know.
#[derive(Default)]
pub(crate) struct PartitionLatency(Option<Recorder>);

impl PartitionLatency {
    pub fn new(recorder: Recorder) -> Self {
        PartitionLatency(Some(recorder))
    }

    /// A segment departs. `starved_ns` is since when its channel has had something to send and no credit, 0 if it had some.
    #[inline]
    pub fn departed(&mut self, born_ns: u64, starved_ns: &mut u64, now_ns: u64) {
        let starved_ns = std::mem::take(starved_ns);
        let Some(recorder) = &mut self.0 else { return };
        recorder.record(0, now_ns.saturating_sub(born_ns));
        recorder.record(1, if starved_ns == 0 { 0 } else { now_ns.saturating_sub(starved_ns) });
    }

    pub fn offer(&mut self) {
        self.0.iter_mut().for_each(Recorder::offer);
    }

    pub fn histograms(&self) -> usize {
        self.0.as_ref().map_or(0, Recorder::histograms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(feed: &LatencyFeed) -> Vec<(Stage, u64, u64)> {
        let mut all = Vec::new();
        feed.take(|stage, histogram| all.push((stage, histogram.len(), histogram.max())));
        all
    }

    #[test]
    fn what_is_recorded_reaches_the_reader_once_and_all_of_it() {
        let mut recorder = Recorder::new(Stage::OF_PRODUCER);
        let feed = recorder.feed();
        recorder.offer();
        assert_eq!(counts(&feed), [], "nothing was recorded");
        recorder.record(0, 5_000);
        recorder.offer();
        recorder.record(0, 900_000);
        recorder.offer();
        let seen = counts(&feed);
        assert_eq!(seen.iter().map(|(_, count, _)| *count).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(counts(&feed), [], "it was taken");
        recorder.offer();
        assert_eq!(counts(&feed)[0].1, 1, "what the reader was too slow for comes later");
        recorder.record(1, 7_000);
        recorder.offer();
        recorder.record(1, 8_000);
        assert!(!feed.is_last());
        drop(recorder);
        assert!(feed.is_last());
        assert_eq!(counts(&feed)[1].1, 2, "the end hands over what is left, and keeps what was offered");
    }

    #[test]
    fn a_gate_tells_its_edges_apart_and_what_it_cannot_know() {
        let recorders: Vec<Recorder> = (0..2).map(|_| Recorder::new(Stage::OF_CONSUMER)).collect();
        let feeds: Vec<LatencyFeed> = recorders.iter().map(Recorder::feed).collect();
        let mut gate = GateLatency::new(Box::new([0, 1, 1]), recorders);
        gate.arrived(1, 1_000, 51_000);
        gate.taken(1, Stamp { born_ns: 500, arrived_ns: 51_000 }, 80_500);
        gate.arrived(2, 0, 60_000);
        gate.taken(2, Stamp { born_ns: 0, arrived_ns: 60_000 }, 80_000);
        gate.taken(3, Stamp::default(), 1);
        gate.offer();
        assert_eq!(counts(&feeds[0]), []);
        let [total, wire, queue] = counts(&feeds[1])[..] else { panic!("three stages") };
        assert_eq!((total.0, total.1, wire.0, wire.1), (Stage::Total, 1, Stage::Wire, 1));
        assert_eq!(
            (queue.0, queue.1),
            (Stage::Queue, 2),
            "a clock that is not ours says nothing of birth and departure"
        );
        assert!(
            (80_000..81_000).contains(&total.2) && (50_000..51_000).contains(&wire.2),
            "{total:?} {wire:?}"
        );
    }

    #[test]
    fn a_histogram_has_the_places_that_memory_is_planned_for() {
        assert_eq!(latencies().distinct_values(), crate::limits::HISTOGRAM_PLACES);
        let mut histogram = latencies();
        for ns in [0, 1, 1_000, HISTOGRAM_HIGH_NS, u64::MAX] {
            histogram.saturating_record(ns);
        }
        assert_eq!(histogram.len(), 5, "every time has a place");
    }
}
