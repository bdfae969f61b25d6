//! A gate, open for reading: what a task does with its input.
//!
//! Owns nothing; borrows the gate, the shard and the control lists for one turn of the task.

use tidegate_arena::{Arena, Shard};
use tidegate_plant::{Plant, Rare, planted, rare};

use super::{Buffer, Gate, GateItem, InRoute, Phase, list};
use crate::ports::LinkQueues;

/// A gate, open for reading.
pub struct Input<'a> {
    pub(crate) gate: &'a mut Gate,
    pub(crate) shard: &'a mut Shard,
    pub(crate) arena: &'a Arena,
    pub(crate) links: &'a mut [LinkQueues],
    pub(crate) now_ns: u64,
}

impl Input<'_> {
    /// True if [`poll`](Self::poll) may find something.
    pub fn ready(&self) -> bool {
        self.gate.has_input()
    }

    /// The next item of any channel that is not waiting in an alignment; `None` if nothing is there.
    pub fn poll(&mut self) -> Option<GateItem> {
        if let Some(item) = self.gate.next.take() {
            return Some(item);
        }
        if rare(Rare::EmptyPoll) {
            return None;
        }
        while let Some(channel) = self.gate.ready.pop_front() {
            self.gate.channels[channel as usize].ready = false;
            if !self.gate.alignment.open(channel) {
                continue;
            }
            let item = self.gate.pop(channel, self.arena, self.now_ns);
            let entry = &self.gate.channels[channel as usize];
            let more = match &entry.route {
                InRoute::Remote { .. } => !entry.queue.is_empty(),
                InRoute::Local(local) => !local.is_empty(),
            };
            if more && entry.phase == Phase::Open {
                self.gate.mark_ready(channel);
            }
            self.announce();
            if item.is_some() {
                return item;
            }
        }
        let all = self.gate.channels.len() as u32;
        if self.gate.data_ended == all && !std::mem::replace(&mut self.gate.told_data_end, true) {
            return Some(GateItem::EndOfData);
        }
        if self.gate.alignment.live() == 0 && !std::mem::replace(&mut self.gate.told_partition_end, true) {
            return Some(GateItem::EndOfPartition);
        }
        None
    }

    /// The task has read the buffer's last record: its segment is free, and credit can be announced for it.
    pub fn release(&mut self, mut buffer: Buffer) {
        let Some(segment) = buffer.segment.take() else { return };
        let channel = buffer.channel;
        let region = self.gate.is_region(self.arena, &segment);
        let entry = &mut self.gate.channels[channel as usize];
        match &mut entry.route {
            InRoute::Local(local) => {
                local.give_back(self.arena, segment);
                self.gate.owe_ring(channel);
            }
            InRoute::Remote { .. } if region => self.gate.region_read(self.arena, segment),
            InRoute::Remote { .. } => {
                self.shard.release(segment);
                if !planted(Plant::LoseQuota) {
                    self.gate.policy.give_back(1);
                }
                if entry.credit.backlog() > 0 {
                    self.gate.mark_hungry(channel);
                }
            }
        }
    }

    /// The task marked its state at the barrier: channels that waited go on.
    pub fn resume(&mut self, checkpoint: u64) {
        self.gate.alignment.resume(checkpoint);
        self.gate.resume_channels(checkpoint);
        self.announce();
    }

    /// Lists channels whose producers must hear something.
    fn announce(&mut self) {
        while let Some(channel) = self.gate.announce.pop_front() {
            self.gate.regrant(channel as usize, self.shard);
            let index = self.gate.index;
            list(&mut self.gate.channels[channel as usize], index, channel, self.links);
        }
    }
}
