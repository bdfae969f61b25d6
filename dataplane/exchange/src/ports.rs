//! What a slot's tasks see of the exchange: partitions to write to, gates to read from. No ring in sight.

use std::collections::VecDeque;

use tidegate_arena::{Arena, Shard};
use tidegate_plant::{Plant, planted};

use crate::event::Event;
use crate::gate::{Gate, Input};
use crate::partition::{Output, Partition};
use crate::plan::{GateId, PartitionId};
use crate::ready::ReadyList;
use crate::report::{Counters, GateReport, PartitionReport, PortUsage};

/// A channel of a partition of this slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutRef {
    pub partition: u32,
    pub channel: u32,
}

/// A channel of a gate of this slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InRef {
    pub gate: u32,
    pub channel: u32,
}

/// Channels of one link that have something to say. Each channel is in a list at most once, so the capacity is the number
/// of channels.
#[derive(Debug, Default)]
pub(crate) struct LinkQueues {
    pub out: ReadyList,
    pub control: VecDeque<InRef>,
}

/// The ports of a slot.
pub struct Ports {
    pub(crate) arena: Arena,
    pub(crate) shard: Shard,
    pub(crate) partitions: Vec<Option<Partition>>,
    pub(crate) gates: Vec<Option<Gate>>,
    pub(crate) links: Vec<LinkQueues>,
    pub(crate) local: VecDeque<OutRef>,
    pub(crate) now_ns: u64,
    /// A partition waits for a segment: what links hold back goes.
    pub(crate) pressed: bool,
    pub(crate) counters: Counters,
}

impl Ports {
    pub(crate) fn new(shard: Shard) -> Self {
        Self {
            arena: shard.arena().clone(),
            shard,
            partitions: Vec::new(),
            gates: Vec::new(),
            links: Vec::new(),
            local: VecDeque::new(),
            now_ns: 0,
            pressed: false,
            counters: Counters::default(),
        }
    }

    /// The arena that buffers are read from.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Segments of this slot that nobody holds.
    pub fn segments_free(&mut self) -> u32 {
        self.shard.free()
    }

    /// Segments of this slot.
    pub fn segments(&self) -> u32 {
        self.shard.capacity()
    }

    /// The time of this turn, nanoseconds of the ring's clock.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Opens a partition for writing.
    ///
    /// # Panics
    /// If the partition's attempt was cancelled: its task must be gone by then.
    #[inline]
    pub fn output(&mut self, id: PartitionId) -> Output<'_> {
        let partition =
            self.partitions[id.0 as usize].as_mut().expect("invariant: a task writes to its own partitions");
        partition.refill(&mut self.shard);
        self.pressed |= !partition.writable();
        Output {
            partition,
            shard: &mut self.shard,
            arena: &self.arena,
            links: &mut self.links,
            local: &mut self.local,
            now_ns: self.now_ns,
        }
    }

    /// True if any one record can be written to any channel of this partition (R4).
    #[inline]
    pub fn writable(&mut self, id: PartitionId) -> bool {
        let partition =
            self.partitions[id.0 as usize].as_mut().expect("invariant: a task writes to its own partitions");
        partition.refill(&mut self.shard);
        self.pressed |= !partition.writable();
        partition.writable()
    }

    /// Sends an event on each of the partitions if all have room; false and nothing if one has not.
    pub fn events(&mut self, ids: &[PartitionId], event: Event) -> bool {
        if !ids.iter().all(|&id| self.output(id).event_room()) {
            return false;
        }
        let barrier = matches!(event, Event::Barrier { .. });
        let told = ids.len() - usize::from(barrier && ids.len() > 1 && planted(Plant::ForgetPartition));
        for &id in &ids[..told] {
            self.output(id).event(event);
        }
        true
    }

    /// Opens a gate for reading.
    ///
    /// # Panics
    /// As [`output`](Self::output).
    #[inline]
    pub fn input(&mut self, id: GateId) -> Input<'_> {
        let gate = self.gates[id.0 as usize].as_mut().expect("invariant: a task reads its own gate");
        Input {
            gate,
            shard: &mut self.shard,
            arena: &self.arena,
            links: &mut self.links,
            now_ns: self.now_ns,
        }
    }

    /// True if the gate has something for its task.
    pub fn readable(&self, id: GateId) -> bool {
        self.gates[id.0 as usize].as_ref().is_some_and(Gate::has_input)
    }

    /// What the exchange counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// A partition's use of its quota; `None` once its attempt is gone.
    pub fn partition_usage(&self, id: PartitionId) -> Option<PortUsage> {
        self.partitions.get(id.0 as usize)?.as_ref().map(Partition::usage)
    }

    /// A gate's use of its quota; `None` once its attempt is gone.
    pub fn gate_usage(&self, id: GateId) -> Option<PortUsage> {
        self.gates.get(id.0 as usize)?.as_ref().map(Gate::usage)
    }

    /// A partition's state, for people.
    pub fn partition_report(&self, id: PartitionId) -> Option<PartitionReport> {
        self.partitions.get(id.0 as usize)?.as_ref().map(Partition::report)
    }

    /// A gate's state, for people.
    pub fn gate_report(&self, id: GateId) -> Option<GateReport> {
        self.gates.get(id.0 as usize)?.as_ref().map(Gate::report)
    }

    /// All that decides what the ports do next, for those who compare states: no times, no numbers of segments.
    #[cfg(feature = "sim")]
    pub fn state(&self) -> String {
        let partitions: Vec<_> = self.partitions.iter().flatten().map(Partition::state).collect();
        let gates: Vec<_> = self.gates.iter().flatten().map(Gate::state).collect();
        format!("{partitions:?} {gates:?} {:?}", self.links)
    }
}
