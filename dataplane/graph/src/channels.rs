//! The numbering of channels, and who sits at their ends. No state: a function of a valid graph.
//!
//! Always true: the channels of a job are numbered 0 to [`JobGraph::channels_total`] - 1 without gaps, edge by edge, in an
//! edge by producer, then by consumer; and each is in exactly one gate and one partition, under the same number.

use crate::job::{Edge, JobGraph, Partitioner, Subtask};

/// One end's view of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Number of the channel, unique in the job.
    pub channel: u32,
    /// Position of its edge.
    pub edge: u32,
    /// The consumer's input that it feeds.
    pub input: u8,
    /// Fingerprint of its records.
    pub schema: u64,
    /// The subtask at the other end.
    pub peer: Subtask,
}

/// All channels into a subtask, in the order of their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Name of the vertex.
    pub name: String,
    /// The channels.
    pub channels: Vec<Channel>,
}

/// All channels of one edge out of a subtask: channel i leads to the consumer's subtask i, or to the same subtask on a
/// forward edge, which has only one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Position of the edge.
    pub edge: u32,
    /// Name of the edge.
    pub name: String,
    /// How records find their channel.
    pub partitioner: Partitioner,
    /// The channels.
    pub channels: Vec<Channel>,
}

impl JobGraph {
    /// Number of the channel of `edge` between subtask `from` of its producer and `to` of its consumer.
    ///
    /// # Panics
    /// If there is no such channel: unknown edge or subtask, or `from != to` on a forward edge.
    #[must_use]
    pub fn channel(&self, edge: u32, from: u32, to: u32) -> u32 {
        let (producers, consumers) = self.ends(edge);
        assert!(from < producers && to < consumers, "misuse: edge {edge} has no channel from {from} to {to}");
        self.channels_before(edge) + self.offset(edge, from, to)
    }

    /// Number of channels of `edge`.
    ///
    /// # Panics
    /// If there is no such edge.
    #[must_use]
    pub fn channels(&self, edge: u32) -> u32 {
        let (producers, consumers) = self.ends(edge);
        if self.is_forward(edge) { producers } else { producers * consumers }
    }

    /// Number of channels of the job.
    #[must_use]
    pub fn channels_total(&self) -> u32 {
        self.channels_before(self.edges.len() as u32)
    }

    /// All channels into `subtask`; `None` for a source.
    ///
    /// # Panics
    /// If there is no such vertex.
    #[must_use]
    pub fn gate(&self, subtask: Subtask) -> Option<Gate> {
        let mut channels = Vec::new();
        let mut base = 0;
        for (edge, Edge { from, to, input, schema, .. }) in (0..).zip(&self.edges) {
            if *to == subtask.vertex {
                channels.extend(self.peers(edge, subtask.subtask, *from).map(|peer| Channel {
                    channel: base + self.offset(edge, peer.subtask, subtask.subtask),
                    edge,
                    input: *input,
                    schema: *schema,
                    peer,
                }));
            }
            base += self.channels(edge);
        }
        let name = &self.vertices[subtask.vertex as usize].name;
        if channels.is_empty() { None } else { Some(Gate { name: name.clone(), channels }) }
    }

    /// The partitions of `subtask`, one for each edge out of its vertex, in the order of the edges; none for the end of
    /// a job.
    #[must_use]
    pub fn partitions(&self, subtask: Subtask) -> Vec<Partition> {
        let mut partitions = Vec::new();
        let mut base = 0;
        for (edge, Edge { from, to, input, schema, partitioner, .. }) in (0..).zip(&self.edges) {
            if *from == subtask.vertex {
                let channels = self.peers(edge, subtask.subtask, *to).map(|peer| Channel {
                    channel: base + self.offset(edge, subtask.subtask, peer.subtask),
                    edge,
                    input: *input,
                    schema: *schema,
                    peer,
                });
                let (name, channels) = (self.edge_name(edge), channels.collect());
                partitions.push(Partition { edge, name, partitioner: *partitioner, channels });
            }
            base += self.channels(edge);
        }
        partitions
    }

    /// The subtasks of vertex `other` that subtask number `own` at this edge's near end has a channel with.
    fn peers(&self, edge: u32, own: u32, other: u32) -> impl Iterator<Item = Subtask> + use<> {
        let range = if self.is_forward(edge) { own..own + 1 } else { 0..self.parallelism(other) };
        range.map(move |subtask| Subtask { vertex: other, subtask })
    }

    fn channels_before(&self, edge: u32) -> u32 {
        (0..edge).map(|edge| self.channels(edge)).sum()
    }

    fn offset(&self, edge: u32, from: u32, to: u32) -> u32 {
        if self.is_forward(edge) {
            assert_eq!(from, to, "misuse: a forward edge has channels from a subtask to its equal only");
            return from;
        }
        let (_, consumers) = self.ends(edge);
        from * consumers + to
    }

    fn is_forward(&self, edge: u32) -> bool {
        self.edges[edge as usize].partitioner == Partitioner::Forward
    }

    fn ends(&self, edge: u32) -> (u32, u32) {
        let Edge { from, to, .. } = self.edges[edge as usize];
        (self.parallelism(from), self.parallelism(to))
    }
}
