//! A partition, open for writing: what a task does with its output.
//!
//! Owns nothing; borrows the partition, the shard and the ready lists for one turn of the task.

use std::collections::VecDeque;

use tidegate_arena::{Arena, Draft, Shard};
use tidegate_memory::prefetch;
use tidegate_plant::{Plant, Rare, planted, rare};
use tidegate_record::{Record, Slot, WriteError};

use super::{Partition, Queued, list};
use crate::error::EmitError;
use crate::event::Event;
use crate::ports::{LinkQueues, OutRef};

/// A partition, open for writing.
pub struct Output<'a> {
    pub(crate) partition: &'a mut Partition,
    pub(crate) shard: &'a mut Shard,
    pub(crate) arena: &'a Arena,
    pub(crate) links: &'a mut [LinkQueues],
    pub(crate) local: &'a mut VecDeque<OutRef>,
    pub(crate) now_ns: u64,
}

impl Output<'_> {
    /// True if any one record of up to the attempt's largest can be written to any channel (R4).
    #[inline]
    pub fn writable(&self) -> bool {
        self.partition.writable()
    }

    /// Channels to choose from.
    #[inline]
    pub fn channels(&self) -> u32 {
        self.partition.channels.len() as u32
    }

    /// Says that a record will be written to this channel soon: the place it goes to is on its way into the cache then. Worth
    /// it where channels are so many that their segments are not.
    #[inline(always)]
    pub fn prefetch(&mut self, channel: u32) {
        if let Some(Some(draft)) = self.partition.filling.get_mut(channel as usize) {
            let len = draft.len() as usize;
            if let Some(place) = draft.bytes_mut(self.arena).get(len) {
                prefetch(place);
            }
        }
    }

    /// Writes a record to a channel.
    ///
    /// # Errors
    /// [`EmitError::TooLarge`] if it is larger than the attempt's largest record; nothing was written.
    ///
    /// # Panics
    /// If [`writable`](Self::writable) was false, or `channel` is out of range.
    #[inline(always)]
    pub fn write<T: Record>(&mut self, channel: u32, record: &T) -> Result<(), EmitError> {
        self.write_with(channel, |slot| record.write(slot))
    }

    /// As [`write`](Self::write), for a record in parts. `write` is called again with an empty segment if the first did
    /// not have room, and then with the region.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    #[inline(always)]
    pub fn write_with(
        &mut self,
        channel: u32,
        mut write: impl FnMut(&mut Slot<'_>) -> Result<(), WriteError>,
    ) -> Result<(), EmitError> {
        if let Some(draft) = &mut self.partition.filling[channel as usize]
            && !rare(Rare::SealEarly)
        {
            match append(draft, self.arena, &mut write) {
                Ok(()) => return Ok(()),
                Err(WriteError::Full { .. }) => {}
                Err(error) => return Err(EmitError::Record(error.to_string())),
            }
        }
        self.write_to_spare(channel, &mut write)
    }

    #[cold]
    fn write_to_spare(
        &mut self,
        channel: u32,
        write: &mut dyn FnMut(&mut Slot<'_>) -> Result<(), WriteError>,
    ) -> Result<(), EmitError> {
        if self.partition.channels[channel as usize].closed {
            return Ok(());
        }
        let segment = self.partition.spare.take().expect("invariant: write only while writable");
        let mut draft = self.arena.draft(segment);
        if let Err(error) = append(&mut draft, self.arena, write) {
            self.partition.spare = Some(draft.into_segment());
            return self.write_to_region(Some(channel), write, error);
        }
        self.partition.seal(channel as usize, self.arena);
        self.partition.filling[channel as usize] = Some(draft);
        self.partition.channels[channel as usize].born_ns = self.now_ns;
        self.partition.refill(self.shard);
        self.list(channel);
        Ok(())
    }

    /// Writes a record to every channel: one payload, shared.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    ///
    /// # Panics
    /// If the partition was not planned as a broadcast, or is not writable.
    pub fn broadcast<T: Record>(&mut self, record: &T) -> Result<(), EmitError> {
        self.broadcast_with(|slot| record.write(slot))
    }

    /// As [`broadcast`](Self::broadcast), for a record in parts.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn broadcast_with(
        &mut self,
        mut write: impl FnMut(&mut Slot<'_>) -> Result<(), WriteError>,
    ) -> Result<(), EmitError> {
        assert!(self.partition.broadcast, "partition \"{}\" is no broadcast", self.partition.name);
        if let Some(draft) = &mut self.partition.shared {
            match append(draft, self.arena, &mut write) {
                Ok(()) => return Ok(()),
                Err(WriteError::Full { .. }) => {}
                Err(error) => return Err(EmitError::Record(error.to_string())),
            }
        }
        let segment = self.partition.spare.take().expect("invariant: broadcast only while writable");
        let mut draft = self.arena.draft(segment);
        if let Err(error) = append(&mut draft, self.arena, &mut write) {
            self.partition.spare = Some(draft.into_segment());
            return self.write_to_region(None, &mut write, error);
        }
        self.partition.seal_shared(self.shard);
        self.partition.shared = Some(draft);
        self.partition.shared_born_ns = self.now_ns;
        self.partition.refill(self.shard);
        for channel in 0..self.channels() {
            self.list(channel);
        }
        Ok(())
    }

    /// True if every channel can take one more event.
    pub fn event_room(&self) -> bool {
        self.partition.event_room()
    }

    /// Sends an event to every channel, behind what was written.
    ///
    /// # Panics
    /// If [`event_room`](Self::event_room) is false: a task that makes events without looking is a bug.
    pub fn event(&mut self, event: Event) {
        assert!(self.event_room(), "partition \"{}\" has no room for an event", self.partition.name);
        if self.partition.broadcast {
            self.partition.seal_shared(self.shard);
        }
        for channel in 0..self.channels() {
            if self.partition.channels[channel as usize].closed {
                continue;
            }
            if !planted(Plant::BarrierOvertakesData) {
                self.partition.seal(channel as usize, self.arena);
            }
            let out = &mut self.partition.channels[channel as usize];
            out.queue.push_back(Queued::Event(event));
            out.events += 1;
            self.list(channel);
        }
    }

    /// True if all data and events were handed on, and every segment is back.
    pub fn drained(&self) -> bool {
        self.partition.drained()
    }

    pub(super) fn emit_error(&self, error: WriteError) -> EmitError {
        match error {
            WriteError::Full { needed, .. } => EmitError::TooLarge {
                size: u64::from(needed),
                limit: self.partition.record_max.max(self.arena.segment_size() as u32),
                partition: self.partition.name.clone(),
            },
            other => EmitError::Record(other.to_string()),
        }
    }

    pub(super) fn list(&mut self, channel: u32) {
        list(self.partition, channel, self.links, self.local, self.now_ns);
    }
}

/// Writes a record behind those in the draft. A writer that fails leaves it as it was.
#[inline(always)]
fn append(
    draft: &mut Draft,
    arena: &Arena,
    write: &mut (impl FnMut(&mut Slot<'_>) -> Result<(), WriteError> + ?Sized),
) -> Result<(), WriteError> {
    let len = draft.len();
    let mut slot = Slot::new(draft.bytes_mut(arena), len);
    write(&mut slot)?;
    let len = slot.len();
    draft.set_len(len);
    Ok(())
}
