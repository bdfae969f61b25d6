//! A gate's region: where one record that is larger than a segment arrives, slice by slice, and is read in place.
//!
//! State: `free` holds the region while nobody else does; `reserved` from the admit to the last slice. A record is admitted
//! when the region is free and not reserved; channels are admitted in the order in which they asked, each at most once in the
//! list.

use std::collections::VecDeque;

use tidegate_arena::{Arena, Granted, Holder, HolderKind, Segment, Shard, Shared};
use tidegate_flow::{ReceiveLarge, Violation};
use tidegate_wire::Data;

use super::{Arrived, Gate, Phase, list};
use crate::latency::Stamp;
use crate::ports::LinkQueues;

/// The region of a gate, or that there is none.
pub(crate) struct Region {
    free: Option<Segment<Granted>>,
    pub(super) reserved: bool,
    asking: VecDeque<u32>,
    segment_size: u32,
    /// The largest record; at most a segment if there is no region.
    record_max: u32,
}

impl Region {
    /// For records of more than `segment_size` and up to `record_max` bytes, on `channels` channels.
    pub fn new(
        region: Option<Segment<Granted>>,
        segment_size: u32,
        record_max: u32,
        channels: usize,
    ) -> Self {
        let record_max = if region.is_some() { record_max } else { 0 };
        let asking = VecDeque::with_capacity(if region.is_some() { channels } else { 0 });
        Self { free: region, reserved: false, asking, segment_size, record_max }
    }

    /// What a channel of the gate, with this number in the job, may ask for.
    pub(super) fn channel(&self, number: u32) -> ReceiveLarge {
        ReceiveLarge::new(number, self.segment_size, self.record_max)
    }

    /// For those who compare states: whether it is here, whether it is reserved, and who asks for it.
    #[cfg(feature = "sim")]
    pub(super) fn state(&self) -> (bool, bool, &VecDeque<u32>) {
        (self.free.is_some(), self.reserved, &self.asking)
    }

    fn put_back(&mut self, region: Segment<Granted>) {
        assert!(self.free.replace(region).is_none(), "a gate has one region");
    }

    /// Gives it back. After an end in order nobody else holds it.
    pub(super) fn dismantle(self, shard: &mut Shard, in_order: bool, name: &str) {
        let missing = self.record_max > 0 && (self.free.is_none() || self.reserved);
        assert!(!in_order || !missing, "gate \"{name}\" ends with its region in use");
        if let Some(region) = self.free {
            shard.release(region);
        }
    }
}

impl Gate {
    /// A channel asked for the region; it was checked.
    pub fn expect_ask(&mut self, channel: u32) {
        self.region.asking.push_back(channel);
    }

    /// A slice was announced, and is the next of an admitted record: hands out the region it will be placed in.
    pub fn expect_slice(
        &mut self,
        channel: usize,
        sequence: u32,
        backlog: u16,
    ) -> Result<Segment<Granted>, Violation> {
        self.channels[channel].credit.handle_slice(sequence, backlog)?;
        if backlog > 0 {
            self.mark_hungry(channel as u32);
        }
        Ok(self
            .region
            .free
            .take()
            .expect("invariant: the region is here between the slices of an admitted record"))
    }

    /// A slice is complete and its checksum is right.
    pub fn arrived_slice(
        &mut self,
        channel: usize,
        region: Segment<Granted>,
        data: Data,
        stamp: Stamp,
        arena: &Arena,
    ) {
        if !data.is_last() {
            return self.region.put_back(region);
        }
        self.region.reserved = false;
        let entry = &mut self.channels[channel];
        if entry.phase != Phase::Open {
            // As for other late payloads: unread.
            return self.region.put_back(region);
        }
        entry.queue.push_back(Arrived::Data(arena.received(region, data.total), stamp));
        self.mark_ready(channel as u32);
    }

    /// Reserves the region for the next record that was asked for, if nobody has it.
    pub(super) fn admit(&mut self, links: &mut [LinkQueues]) {
        while self.region.free.is_some()
            && !self.region.reserved
            && let Some(channel) = self.region.asking.pop_front()
        {
            let entry = &mut self.channels[channel as usize];
            // Nothing of ours may follow the close (W-33).
            if entry.phase != Phase::Open {
                continue;
            }
            entry.pending_admit = Some(entry.large.admit());
            self.region.reserved = true;
            list(entry, self.index, channel, links);
        }
    }

    /// True if this is the gate's region, by its size: no segment is as large.
    pub(super) fn is_region(&self, arena: &Arena, segment: &Segment<Shared>) -> bool {
        self.region.record_max > 0 && arena.capacity_of(segment) as usize > arena.segment_size()
    }

    /// The task has read the record: the next one can be admitted.
    pub(super) fn region_read(&mut self, arena: &Arena, region: Segment<Shared>) {
        let empty = arena.reclaim(region).expect("invariant: what a gate received has one reference");
        arena.set_holder(&empty, Holder::new(HolderKind::Region, self.index));
        self.region.put_back(empty);
    }
}
