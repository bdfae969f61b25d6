//! A partition's region: one record that is larger than a segment, written once and sent from where it lies.
//!
//! State: the region is in the partition while it is empty; otherwise each channel that the record goes to has a reference in
//! its queue, and one for each slice that the ring holds. With the last reference it comes back.

use tidegate_arena::{Arena, Filling, Sealed, Segment, SegmentState, Shard, Shared};
use tidegate_record::{Slot, WriteError};
use tidegate_wire::{Data, Entry};

use super::{Crc, OutChannel, Output, Partition, Queued, Taken};
use crate::error::EmitError;
use crate::limits::SLICE_BYTES_MAX;

impl OutChannel {
    /// True if the record at the front can be asked for, or a slice of it sent.
    pub(super) fn large_may_leave(&self) -> bool {
        self.credit.blocked_by().is_none() && (self.large.must_ask() || self.large.admitted())
    }
}

impl Partition {
    /// Gives it a region for records of more than a segment and up to so many bytes.
    pub fn with_region(mut self, region: Option<(Segment<Filling>, u32)>) -> Self {
        if let Some((region, record_max)) = region {
            (self.region, self.record_max) = (Some(region), record_max);
        }
        self
    }

    /// True if a record of any size up to the largest has room.
    #[inline]
    pub(super) fn region_ready(&self) -> bool {
        self.region.is_some() || self.record_max == 0
    }

    /// True of the partition's region, by its size: no segment is as large.
    pub(super) fn is_region<S: SegmentState>(&self, arena: &Arena, segment: &Segment<S>) -> bool {
        self.record_max > 0 && arena.capacity_of(segment) as usize > arena.segment_size()
    }

    /// The next entry for a record in the region: the ask, or a slice.
    pub(super) fn take_large(
        &mut self,
        channel: usize,
        number: u32,
        payload_room: bool,
        crc: Crc,
        unsealed: u32,
        arena: &Arena,
    ) -> Taken {
        let generation = self.generation;
        let out = &mut self.channels[channel];
        let Some(&Queued::Large { ref region, len: total, born_ns }) = out.queue.front() else {
            unreachable!("invariant: the front was a large record")
        };
        if !out.large_may_leave() {
            return Taken::Nothing;
        }
        if out.large.must_ask() {
            return Taken::Control(Entry::control(number, generation, out.large.ask(total)));
        }
        if !payload_room {
            return Taken::Nothing;
        }
        let (offset, len, last) = out.large.take(SLICE_BYTES_MAX);
        let mut segment = arena.share(region);
        if last && let Some(Queued::Large { region, .. }) = out.queue.pop_front() {
            arena.release(std::mem::replace(&mut segment, region));
        }
        let crc = crc(&arena.bytes(&segment)[offset as usize..(offset + len) as usize]);
        let backlog = (out.data_queued + unsealed).min(u32::from(u16::MAX)) as u16;
        let sequence = out.credit.slice(backlog);
        let entry = Entry::data(number, generation, sequence, backlog, Data { len, total, offset, crc });
        Taken::Data { entry, segment, offset, len, born_ns }
    }

    /// A consumer of this process gave up its reference to the region.
    pub(super) fn region_returned(&mut self, region: Segment<Shared>, shard: &mut Shard) {
        match shard.arena().reclaim(region) {
            Ok(empty) => self.region = Some(empty),
            Err(still_shared) => shard.release(still_shared),
        }
    }
}

impl Output<'_> {
    /// Writes a record that did not fit a segment into the region, behind what was written to `channel`, or to all.
    #[cold]
    pub(super) fn write_to_region(
        &mut self,
        channel: Option<u32>,
        write: &mut dyn FnMut(&mut Slot<'_>) -> Result<(), WriteError>,
        error: WriteError,
    ) -> Result<(), EmitError> {
        let record_max = self.partition.record_max;
        if !matches!(error, WriteError::Full { needed } if needed <= record_max) {
            return Err(self.emit_error(error));
        }
        let mut region = self.partition.region.take().expect("invariant: write only while writable");
        let mut slot = Slot::new(&mut self.arena.bytes_mut(&mut region)[..record_max as usize], 0);
        let written = write(&mut slot);
        let len = slot.len();
        if let Err(error) = written {
            self.partition.region = Some(region);
            return Err(self.emit_error(error));
        }
        if len <= self.arena.segment_size() as u32 {
            // A hand-written record whose length changes would be taken for our peer's mistake.
            self.partition.region = Some(region);
            return Err(EmitError::Record(format!(
                "it did not fit a segment of {} bytes, and took {len} when it was written again: a record has to be written \
                 the same each time",
                self.arena.segment_size()
            )));
        }
        let (region, born_ns) = (self.arena.seal(region, len), self.now_ns);
        self.partition.counters.segments += 1;
        self.partition.counters.bytes += u64::from(len);
        match channel {
            Some(channel) => {
                self.partition.seal(channel as usize, self.arena);
                self.queue_region(channel, region, len, born_ns);
            }
            None => {
                self.partition.seal_shared(self.shard);
                for channel in 0..self.channels() {
                    if !self.partition.channels[channel as usize].closed {
                        self.queue_region(channel, self.arena.share(&region), len, born_ns);
                    }
                }
                // The reference we sealed with; if every channel is closed it is the last one.
                self.partition.returned(region, self.shard);
            }
        }
        Ok(())
    }

    fn queue_region(&mut self, channel: u32, region: Segment<Sealed>, len: u32, born_ns: u64) {
        self.partition.channels[channel as usize].queue.push_back(Queued::Large { region, len, born_ns });
        self.list(channel);
    }
}
