//! What a slot is told before an attempt starts: its tasks' ports, and where their peers are.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::limits::{
    GATE_SEGMENTS_AHEAD, GATE_SEGMENTS_MIN, LINK_SEGMENTS, PARTITION_SEGMENTS_AHEAD, PARTITION_SEGMENTS_MIN,
};

/// A slot of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId {
    /// The process, by the number it chose when it started.
    pub taskmanager: u64,
    /// The slot in it, from 0.
    pub slot: u32,
}

/// A partition of this slot, by its place in [`Ports`](crate::Ports).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PartitionId(pub(crate) u32);

/// A gate of this slot, by its place in [`Ports`](crate::Ports).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GateId(pub(crate) u32);

/// One slot's part of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptPlan {
    /// The job.
    pub job: u128,
    /// The JobManager's epoch.
    pub epoch: u64,
    /// The attempt; unique within job and epoch, and never reused.
    pub attempt: u32,
    /// Bytes of the largest record. What is above the segment size takes a region of every partition, and of every gate that
    /// data of other TaskManagers enters; the same in all slots of the attempt.
    pub record_max: u32,
    /// This slot's tasks.
    pub tasks: Vec<TaskPorts>,
    /// Data addresses of the TaskManagers that the channels name.
    pub peers: BTreeMap<u64, SocketAddr>,
}

/// The ports of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskPorts {
    /// The task's number in its slot's plan; comes back in [`TaskIds`].
    pub task: u32,
    /// Its input, if it has one.
    pub gate: Option<GatePlan>,
    /// Its outputs.
    pub partitions: Vec<PartitionPlan>,
}

/// All channels into a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatePlan {
    /// For messages and metrics.
    pub name: String,
    /// The channels; their order numbers them within the gate.
    pub channels: Vec<ChannelPlan>,
}

/// All channels out of a task along one edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionPlan {
    /// For messages and metrics.
    pub name: String,
    /// Every record goes to every channel: payloads are shared, not written once per channel.
    pub broadcast: bool,
    /// The channels; their order is what a partitioner picks from.
    pub channels: Vec<ChannelPlan>,
}

/// One channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelPlan {
    /// Its number in the job, the same on both sides.
    pub channel: u32,
    /// The slot at its other end.
    pub peer: SlotId,
    /// Which input of the consumer it belongs to.
    pub input: u8,
    /// Fingerprint of the records in it.
    pub schema: u64,
}

/// The ports of a task, after [`prepare`](crate::Exchange::prepare).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskIds {
    /// The number in the plan.
    pub task: u32,
    /// Its gate.
    pub gate: Option<GateId>,
    /// Its partitions, in the plan's order.
    pub partitions: Vec<PartitionId>,
}

/// What a plan asks of a slot's shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentNeed {
    /// Segments without which the plan is refused.
    pub min: u32,
    /// Segments that let it run without waiting for itself.
    pub wanted: u32,
    /// The port that asks for most.
    pub edge: String,
}

/// Segments of one region for a record of up to `record_max` bytes; 0 if such a record fits a segment.
pub(crate) fn region_segments(record_max: u32, segment_size: u32) -> u32 {
    if record_max <= segment_size { 0 } else { record_max.div_ceil(segment_size) }
}

/// The segments that `plan` needs on slot `me`, whose segments have `segment_size` bytes, and which edge asks for most.
///
/// Per partition, gate and link: see [`limits`](crate::limits). A gate whose channels are all local needs none: it reads the
/// producer's segments in place.
pub fn segments_min(plan: &AttemptPlan, me: SlotId, segment_size: u32) -> SegmentNeed {
    let region = region_segments(plan.record_max, segment_size);
    let mut need = SegmentNeed { min: 0, wanted: 0, edge: String::new() };
    let mut most = 0;
    let mut add = |min: u32, wanted: u32, edge: &str| {
        need.min += min;
        need.wanted += wanted;
        if wanted > most {
            most = wanted;
            need.edge = edge.to_owned();
        }
    };
    for task in &plan.tasks {
        for partition in &task.partitions {
            let wanted = partition_wanted(partition.channels.len());
            add(PARTITION_SEGMENTS_MIN + region, wanted + region, &partition.name);
        }
        if let Some(gate) = &task.gate {
            let remote = remote_channels(gate, me);
            if remote > 0 {
                add(GATE_SEGMENTS_MIN + region, gate_wanted(remote) + region, &gate.name);
            }
        }
    }
    let links = links(plan, me);
    let count = (links.consumers.len() + links.producers.len()) as u32;
    add(count * LINK_SEGMENTS, count * LINK_SEGMENTS, "links to other TaskManagers");
    need
}

pub(crate) fn partition_wanted(channels: usize) -> u32 {
    channels as u32 + PARTITION_SEGMENTS_AHEAD
}

pub(crate) fn gate_wanted(remote_channels: usize) -> u32 {
    2 * remote_channels as u32 + GATE_SEGMENTS_AHEAD
}

pub(crate) fn remote_channels(gate: &GatePlan, me: SlotId) -> usize {
    gate.channels.iter().filter(|channel| channel.peer.taskmanager != me.taskmanager).count()
}

/// The remote slots that this slot consumes from and produces for.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// Slots this one produces for: it waits for their connections.
    pub consumers: BTreeMap<SlotId, Vec<LinkChannel>>,
    /// Slots this one consumes from: it dials them.
    pub producers: BTreeMap<SlotId, Vec<LinkChannel>>,
}

/// A channel of a link: its number in the job, and its schema; sorted by number, the place is the index on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkChannel {
    pub channel: u32,
    pub schema: u64,
}

pub(crate) fn links(plan: &AttemptPlan, me: SlotId) -> Links {
    let mut links = Links::default();
    for task in &plan.tasks {
        for channel in task.partitions.iter().flat_map(|partition| &partition.channels) {
            if channel.peer.taskmanager != me.taskmanager {
                let list = links.consumers.entry(channel.peer).or_default();
                list.push(LinkChannel { channel: channel.channel, schema: channel.schema });
            }
        }
        for channel in task.gate.iter().flat_map(|gate| &gate.channels) {
            if channel.peer.taskmanager != me.taskmanager {
                let list = links.producers.entry(channel.peer).or_default();
                list.push(LinkChannel { channel: channel.channel, schema: channel.schema });
            }
        }
    }
    for list in links.consumers.values_mut().chain(links.producers.values_mut()) {
        list.sort_unstable();
    }
    links
}
