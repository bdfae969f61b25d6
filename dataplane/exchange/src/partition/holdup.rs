//! Why a partition has no room: which of its channels holds most, and what that one waits for.
//!
//! Reads only. One look costs a visit of every channel, so whoever asks does so now and then, not per record.

use std::collections::VecDeque;

use tidegate_flow::limits::EVENTS_MAX;

use super::{OutRoute, Partition, Queued};

/// What the segments of a full partition wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Credit: the consumer in another process has no room.
    Credit,
    /// The resume after a barrier: the consumer aligns.
    Barrier,
    /// Their link: they have credit, or are being filled, held back for its flush, or sent.
    Flush,
    /// The consumer's slot in this process: they are with it, and it has not read them.
    Cpu,
    /// A free segment of the slot: the partition may have one, and there is none.
    Memory,
}

impl Cause {
    /// All of them.
    pub const ALL: [Cause; 5] = [Cause::Credit, Cause::Barrier, Cause::Flush, Cause::Cpu, Cause::Memory];
}

/// Who holds a partition up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holdup {
    /// What its segments wait for.
    pub cause: Cause,
    /// The channel, by its place in the partition.
    pub channel: u32,
}

impl Partition {
    /// Who holds it up; `None` if it has room for records and events.
    pub fn holdup(&self) -> Option<Holdup> {
        if self.writable() && self.event_room() {
            return None;
        }
        let open = || (0..).zip(&self.channels).filter(|(_, channel)| !channel.closed);
        let crowded = open().find(|(_, channel)| channel.events >= EVENTS_MAX);
        let (channel, out) = crowded.or_else(|| open().max_by_key(|&(place, _)| self.held(place)))?;
        if crowded.is_none() && self.spare.is_some() {
            // There is a segment, so it is the region that is out.
            return Some(self.region_holdup().unwrap_or(Holdup { cause: Cause::Cpu, channel }));
        }
        if crowded.is_none() && self.used < self.quota {
            return Some(Holdup { cause: Cause::Memory, channel });
        }
        let cause = match &out.route {
            OutRoute::Local(_) => Cause::Cpu,
            OutRoute::Remote { .. } if out.credit.blocked_by().is_some() => Cause::Barrier,
            OutRoute::Remote { .. } if self.lacks_credit(channel as usize) => Cause::Credit,
            OutRoute::Remote { .. } => Cause::Flush,
        };
        Some(Holdup { cause, channel })
    }

    /// The first channel that still has to send what is in the region; `None` if all have, and it was not read yet.
    fn region_holdup(&self) -> Option<Holdup> {
        let has_large =
            |queue: &VecDeque<Queued>| queue.iter().any(|item| matches!(item, Queued::Large { .. }));
        let (channel, out) =
            (0..).zip(&self.channels).find(|(_, out)| !out.closed && has_large(&out.queue))?;
        let cause = match &out.route {
            OutRoute::Local(_) => Cause::Cpu,
            OutRoute::Remote { .. } if out.credit.blocked_by().is_some() => Cause::Barrier,
            OutRoute::Remote { .. } if !out.large.admitted() => Cause::Credit,
            OutRoute::Remote { .. } => Cause::Flush,
        };
        Some(Holdup { cause, channel })
    }

    /// Segments of a channel: those that wait for it, and in this process those that are with its consumer.
    fn held(&self, place: u32) -> u32 {
        let channel = &self.channels[place as usize];
        let waiting = channel.data_queued + u32::from(self.filling[place as usize].is_some());
        match &channel.route {
            OutRoute::Local(local) => waiting + local.out(),
            OutRoute::Remote { .. } => waiting,
        }
    }
}
