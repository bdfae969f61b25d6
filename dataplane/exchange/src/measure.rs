//! What a slot measures of its ports besides what it counts: latencies of their edges, and who holds them up.
//!
//! Owns nothing; everything lies with the port that is measured and ends with it. Always: a slot records into at most
//! `HISTOGRAMS_MAX` histograms, which are made here and nowhere else.

use crate::latency::{GateLatency, LatencyFeed, PartitionLatency, Recorder, Stage};
use crate::limits::HISTOGRAMS_MAX;
use crate::partition::Holdup;
use crate::plan::{GateId, PartitionId};
use crate::ports::Ports;

impl Ports {
    /// Measures the edges into a gate from now on: `edges` says for each of its channels to which one it belongs. Gives a feed
    /// for each edge, in the order in which they first occur; none if the slot has too many already, or the gate is gone.
    ///
    /// # Panics
    /// If `edges` is not as long as the gate has channels.
    pub fn measure_gate(&mut self, id: GateId, edges: &[u32]) -> Vec<(u32, LatencyFeed)> {
        let mut names: Vec<u32> = Vec::new();
        let places = edges.iter().map(|edge| {
            let place = names.iter().position(|name| name == edge).unwrap_or_else(|| {
                names.push(*edge);
                names.len() - 1
            });
            place as u16
        });
        let places: Box<[u16]> = places.collect();
        if !self.has_room_for(names.len() * Stage::OF_CONSUMER.len()) {
            return Vec::new();
        }
        let Some(gate) = self.gates[id.0 as usize].as_mut() else { return Vec::new() };
        assert_eq!(places.len(), gate.channels.len(), "each channel of gate {id:?} belongs to an edge");
        let recorders: Vec<Recorder> = names.iter().map(|_| Recorder::new(Stage::OF_CONSUMER)).collect();
        let feeds = names.into_iter().zip(recorders.iter().map(Recorder::feed)).collect();
        gate.latency = GateLatency::new(places, recorders);
        feeds
    }

    /// Measures the edge that begins at a partition from now on; `None` if the slot has too many already, or it is gone.
    pub fn measure_partition(&mut self, id: PartitionId) -> Option<LatencyFeed> {
        if !self.has_room_for(Stage::OF_PRODUCER.len()) {
            return None;
        }
        let partition = self.partitions[id.0 as usize].as_mut()?;
        let recorder = Recorder::new(Stage::OF_PRODUCER);
        let feed = recorder.feed();
        partition.latency = PartitionLatency::new(recorder);
        Some(feed)
    }

    fn has_room_for(&self, more: usize) -> bool {
        let gates = self.gates.iter().flatten().map(|gate| gate.latency.histograms());
        let partitions = self.partitions.iter().flatten().map(|partition| partition.latency.histograms());
        gates.chain(partitions).sum::<usize>() + more <= HISTOGRAMS_MAX
    }

    /// Offers to the readers of the feeds what was recorded since they were offered something last.
    pub fn offer_latencies(&mut self) {
        self.gates.iter_mut().flatten().for_each(|gate| gate.latency.offer());
        self.partitions.iter_mut().flatten().for_each(|partition| partition.latency.offer());
    }

    /// Who holds up the first of these partitions that has no room, and its place among them.
    pub fn holdup(&self, ids: &[PartitionId]) -> Option<(usize, Holdup)> {
        let partition = |id: &PartitionId| self.partitions.get(id.0 as usize)?.as_ref()?.holdup();
        ids.iter().enumerate().find_map(|(place, id)| Some((place, partition(id)?)))
    }
}
