//! What runs between two exchanges, and what was found. No state.

use std::time::Duration;

use serde::Serialize;
use tidegate_exchange::limits::{GATE_SEGMENTS_AHEAD, LINK_SEGMENTS, PARTITION_SEGMENTS_AHEAD};
use tidegate_exchange::{ChannelPlan, SlotId};

use crate::forms::{OPAQUE_OVERHEAD, PAIR_BYTES};

/// Most bytes of segments of a side.
const ARENA_BYTES: u64 = 512 << 20;

/// What a consumer does with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reading {
    /// Adds up its number.
    First,
    /// Looks at every byte of it, and adds up its number.
    Whole,
    /// Nothing: segments are given back as they came, and counted as a record each.
    Nothing,
}

/// What runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Setup {
    pub producers: u32,
    pub consumers: u32,
    /// Bytes of a record: pairs of numbers for 16, opaque ones for more.
    pub record_bytes: usize,
    pub segment_bytes: u32,
    /// Channels between each producer and each consumer.
    pub parallel: u32,
    /// The part of the records that goes to the first consumer, besides its share of the others.
    pub hot: f64,
    /// Every record goes to every consumer.
    pub broadcast: bool,
    /// Each producer has one consumer of its own, and no channel to another.
    pub paired: bool,
    /// With `paired`: the first consumers, which read nothing before all others have come to their end.
    pub blocked: u32,
    /// Both sides are slots of one process, with nothing but queues between them.
    pub local: bool,
    /// Milliseconds for which a partly filled segment waits for more.
    pub flush_ms: u64,
    pub reading: Reading,
}

impl Setup {
    /// One to one, records of 100 bytes.
    pub const ONE: Self = Self {
        producers: 1,
        consumers: 1,
        record_bytes: 100,
        segment_bytes: 32 << 10,
        parallel: 1,
        hot: 0.0,
        broadcast: false,
        paired: false,
        blocked: 0,
        local: false,
        flush_ms: 0,
        reading: Reading::First,
    };

    /// How often each record is read.
    pub fn copies(&self) -> u64 {
        if self.broadcast { u64::from(self.consumers) } else { 1 }
    }

    /// Channels in all.
    pub fn channels(&self) -> u32 {
        if self.paired { self.producers } else { self.producers * self.outs() }
    }

    /// Channels of a producer.
    pub fn outs(&self) -> u32 {
        if self.paired { 1 } else { self.consumers * self.parallel }
    }

    pub fn flush(&self) -> Duration {
        Duration::from_millis(self.flush_ms)
    }

    /// Bytes of the largest record.
    pub fn record_max(&self) -> u32 {
        wire_bytes(self.record_bytes) as u32
    }

    /// Segments that let both sides run without waiting for themselves, as the exchange counts them, within bounds; and the
    /// regions of records larger than a segment.
    pub fn segments(&self) -> [u32; 2] {
        let most = (ARENA_BYTES / u64::from(self.segment_bytes)) as u32;
        let region = if self.record_max() <= self.segment_bytes {
            0
        } else {
            self.record_max().div_ceil(self.segment_bytes)
        };
        if self.paired {
            // A pair trains together with all others: a few segments each are enough.
            let each = |tasks: u32| (8 * tasks + LINK_SEGMENTS).min(most);
            return [each(self.producers), each(self.consumers)];
        }
        let out = self.producers * (self.outs() + PARTITION_SEGMENTS_AHEAD + region) + LINK_SEGMENTS;
        let into = self.consumers * (2 * self.producers * self.parallel + GATE_SEGMENTS_AHEAD + region)
            + LINK_SEGMENTS;
        [out.min(most), into.min(most)]
    }

    /// The channels of producer `task`, or of consumer `task`.
    pub fn channels_of(&self, task: u32, produces: bool, peer: SlotId, schema: u64) -> Vec<ChannelPlan> {
        let channel = |channel| ChannelPlan { channel, peer, input: 0, schema };
        if self.paired {
            return vec![channel(task)];
        }
        let number = |producer, consumer, place| producer * self.outs() + consumer * self.parallel + place;
        let places = |producer, consumer| {
            (0..self.parallel).map(move |place| channel(number(producer, consumer, place)))
        };
        match produces {
            true => (0..self.consumers).flat_map(|other| places(task, other)).collect(),
            false => (0..self.producers).flat_map(|other| places(other, task)).collect(),
        }
    }
}

/// What one side did while records flowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Side {
    /// Records written or read.
    pub records: u64,
    /// Of those, how many were read by consumers that were blocked.
    pub blocked: u64,
    /// Payload bytes sent or received.
    pub bytes: u64,
    /// Trains sent or received.
    pub trains: u64,
    /// How often its thread waited.
    pub waits: u64,
    /// Processor time of its thread, nanoseconds.
    pub cpu_ns: u64,
    /// Bytes of heap that its ports took when they were prepared.
    pub heap_bytes: i64,
    /// All numbers of records added up, modulo 2^64.
    #[serde(skip)]
    pub sum: u64,
}

/// Both sides, and how long it took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Found {
    pub seconds: f64,
    pub sender: Side,
    pub receiver: Side,
}

impl Found {
    /// Records read per second, those of blocked consumers left out.
    pub fn per_second(&self) -> f64 {
        (self.receiver.records - self.receiver.blocked) as f64 / self.seconds
    }

    /// Payload bytes read per second.
    pub fn bytes_per_second(&self) -> f64 {
        self.receiver.bytes as f64 / self.seconds
    }

    /// Processor time of both sides per record read, nanoseconds.
    pub fn cpu_ns_per_record(&self) -> f64 {
        self.sides_ns().iter().sum()
    }

    /// Of each side, per record read.
    pub fn sides_ns(&self) -> [f64; 2] {
        [self.sender, self.receiver].map(|side| side.cpu_ns as f64 / self.receiver.records.max(1) as f64)
    }
}

/// Bytes of a record in its segment.
pub fn wire_bytes(record_bytes: usize) -> usize {
    if record_bytes == PAIR_BYTES { PAIR_BYTES } else { record_bytes + OPAQUE_OVERHEAD }
}
