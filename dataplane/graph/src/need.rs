//! How many segments and links each slot must have before a job can start there, and who asks for most of them. No state.
//!
//! Always true: `minimum <= wanted`, and both are the sums over the slot's partitions, gates and links. What stays within a
//! process takes no link and nothing of the gate: the consumer reads the producer's segments where they lie. A slot that
//! prepares an attempt must come to the same sums.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::job::{JobGraph, Subtask};
use crate::limits::{
    GATE_SEGMENTS_AHEAD, GATE_SEGMENTS_MIN, GATE_SEGMENTS_PER_CHANNEL, LINK_SEGMENTS,
    PARTITION_SEGMENTS_AHEAD, PARTITION_SEGMENTS_MIN,
};
use crate::placement::{Placement, SlotId};

/// Segments, by how badly they are needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segments {
    /// Without these the task does not start.
    pub minimum: u32,
    /// With these no channel waits for another; what lies between is shared out.
    pub wanted: u32,
}

impl Segments {
    /// What a partition with this many channels asks for.
    #[must_use]
    pub const fn of_partition(channels: u32) -> Self {
        Self { minimum: PARTITION_SEGMENTS_MIN, wanted: channels + PARTITION_SEGMENTS_AHEAD }
    }

    /// What a gate with this many channels from other TaskManagers asks for; nothing if there are none.
    #[must_use]
    pub const fn of_gate(remote_channels: u32) -> Self {
        if remote_channels == 0 {
            return Self { minimum: 0, wanted: 0 };
        }
        let wanted = GATE_SEGMENTS_PER_CHANNEL * remote_channels + GATE_SEGMENTS_AHEAD;
        Self { minimum: GATE_SEGMENTS_MIN, wanted }
    }

    /// Segments of a region for a record of up to `record_max` bytes; 0 if it fits a segment.
    #[must_use]
    pub const fn of_region(record_max: u32, segment_size: u32) -> u32 {
        if record_max <= segment_size { 0 } else { record_max.div_ceil(segment_size) }
    }

    /// What either end of a link to another TaskManager asks for.
    pub const OF_LINK: Self = Self { minimum: LINK_SEGMENTS, wanted: LINK_SEGMENTS };

    fn add(&mut self, more: Self) {
        self.minimum += more.minimum;
        self.wanted += more.wanted;
    }
}

/// What one slot must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotNeed {
    /// The slot.
    pub slot: SlotId,
    /// All segments of the job in this slot.
    pub segments: Segments,
    /// Number of partitions in the slot.
    pub partitions: u32,
    /// Number of gates in the slot that data of other TaskManagers enters.
    pub gates: u32,
    /// Number of links to and from slots of other TaskManagers.
    pub links: u32,
    /// The edge that asks for most segments, if the slot has any: what to change when the need is too much.
    pub most: Option<EdgeNeed>,
    /// The edge that asks for most links, if the slot has any.
    pub most_links: Option<EdgeNeed>,
}

/// What one edge asks for in one slot: its partitions, gates, and the links that no edge before it needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeNeed {
    /// Position of the edge.
    pub edge: u32,
    /// Name of the edge.
    pub name: String,
    /// Its segments.
    pub segments: Segments,
    /// Its links.
    pub links: u32,
}

/// What each slot of the placement must have, ascending by slot. `region` is what a record larger than a segment takes, in
/// segments: each partition has such a region, and each gate that data of other TaskManagers enters. 0: there are none.
///
/// A gate that several edges feed is counted once, for the first of them that comes from another TaskManager.
#[must_use]
pub fn segment_need(graph: &JobGraph, placement: &Placement, region: u32) -> Vec<SlotNeed> {
    placement.slots().into_iter().map(|slot| slot_need(graph, placement, slot, region)).collect()
}

fn slot_need(graph: &JobGraph, placement: &Placement, slot: SlotId, region: u32) -> SlotNeed {
    let region = Segments { minimum: region, wanted: region };
    let mut tally = Tally {
        placement,
        slot,
        edges: vec![(Segments::default(), 0); graph.edges.len()],
        links: BTreeSet::new(),
    };
    let (mut partitions, mut gates) = (0, 0);
    for task in placement.tasks_in(slot) {
        for partition in graph.partitions(task) {
            partitions += 1;
            tally.ask(partition.edge, Segments::of_partition(partition.channels.len() as u32));
            tally.ask(partition.edge, region);
            partition.channels.iter().for_each(|channel| tally.meet(channel.edge, channel.peer, Way::Out));
        }
        let Some(gate) = graph.gate(task) else { continue };
        let remote: Vec<_> = gate.channels.iter().filter(|channel| tally.is_remote(channel.peer)).collect();
        if let Some(first) = remote.first() {
            gates += 1;
            tally.ask(first.edge, Segments::of_gate(remote.len() as u32));
            tally.ask(first.edge, region);
            remote.iter().for_each(|channel| tally.meet(channel.edge, channel.peer, Way::In));
        }
    }
    let mut segments = Segments::default();
    tally.edges.iter().for_each(|&(edge, _)| segments.add(edge));
    SlotNeed {
        slot,
        segments,
        partitions,
        gates,
        links: tally.links.len() as u32,
        most: most(graph, &tally.edges, |segments, _| (segments.wanted, segments.minimum)),
        most_links: most(graph, &tally.edges, |_, links| (links, 0)),
    }
}

/// The edge that asks for most, if one asks for any, and of equals the first.
fn most(
    graph: &JobGraph,
    edges: &[(Segments, u32)],
    asks: impl Fn(Segments, u32) -> (u32, u32),
) -> Option<EdgeNeed> {
    let all = (0..).zip(edges).map(|(edge, &(segments, links))| (edge, segments, links));
    let (edge, segments, links) = all.min_by_key(|&(_, segments, links)| Reverse(asks(segments, links)))?;
    (asks(segments, links).0 > 0).then(|| EdgeNeed { edge, name: graph.edge_name(edge), segments, links })
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    In,
    Out,
}

struct Tally<'a> {
    placement: &'a Placement,
    slot: SlotId,
    /// What each edge asks for: segments and links.
    edges: Vec<(Segments, u32)>,
    links: BTreeSet<(SlotId, Way)>,
}

impl Tally<'_> {
    fn ask(&mut self, edge: u32, segments: Segments) {
        self.edges[edge as usize].0.add(segments);
    }

    fn is_remote(&self, peer: Subtask) -> bool {
        self.placement.slot_of(peer).taskmanager != self.slot.taskmanager
    }

    /// Counts the link to the peer's slot once per direction, if it leaves the process.
    fn meet(&mut self, edge: u32, peer: Subtask, way: Way) {
        if self.is_remote(peer) && self.links.insert((self.placement.slot_of(peer), way)) {
            self.ask(edge, Segments::OF_LINK);
            self.edges[edge as usize].1 += 1;
        }
    }
}
