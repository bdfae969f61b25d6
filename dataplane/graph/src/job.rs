//! The job graph as plain data: what a submission carries and every process of the cluster agrees on. It owns itself.
//!
//! True of a graph that passed [`JobGraph::validate`]: a vertex's id is its position, `1 <= parallelism <=
//! max_parallelism` everywhere, edges have both ends, there is no cycle, and channel numbers are dense from 0.

use serde::{Deserialize, Serialize};

/// A job: chains of operators and the exchanges between them.
///
/// ```
/// use tidegate_graph::{Edge, JobGraph, Operator, OperatorKind, Partitioner, Vertex};
/// let vertex = |id, name: &str, kind, parallelism| Vertex {
///     id, name: name.into(), parallelism, slot_group: "default".into(),
///     operators: vec![Operator { id: u64::from(id) + 100, name: name.into(), kind, managed_memory: false }],
/// };
/// let graph = JobGraph {
///     name: "count".into(),
///     max_parallelism: 128,
///     vertices: vec![vertex(0, "read", OperatorKind::Source, 2), vertex(1, "count", OperatorKind::Keyed, 3)],
///     edges: vec![Edge { from: 0, to: 1, input: 0, partitioner: Partitioner::KeyGroup, schema: 7, record: "Word".into() }],
/// };
/// graph.validate().unwrap();
/// assert_eq!(graph.channels_total(), 6);
/// assert_eq!(graph.channel(0, 1, 2), 5);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobGraph {
    /// Name for people; not empty.
    pub name: String,
    /// Number of key groups; 1 to [`MAX_PARALLELISM_MAX`](crate::MAX_PARALLELISM_MAX). Fixed for the life of the job's state.
    pub max_parallelism: u32,
    /// The chains; a vertex's id is its position here.
    pub vertices: Vec<Vertex>,
    /// The exchanges; an edge is known by its position here.
    pub edges: Vec<Edge>,
}

/// A chain of operators that call each other: one task per subtask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vertex {
    /// Position in [`JobGraph::vertices`].
    pub id: u32,
    /// Name for people; not empty.
    pub name: String,
    /// Number of subtasks; 1 to the job's maximum parallelism.
    pub parallelism: u32,
    /// Vertices of one group share slots: subtask i of each goes to the group's i-th slot.
    pub slot_group: String,
    /// The operators, first the one that reads.
    pub operators: Vec<Operator>,
}

/// One operator of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// Stable identity: a hash of the name path or of the id that the author gave. State is found by it.
    pub id: u64,
    /// Name for people; not empty.
    pub name: String,
    /// What it does with state and records.
    pub kind: OperatorKind,
    /// Whether it reserves managed memory for itself, beside that for keyed state.
    pub managed_memory: bool,
}

/// What an operator is, as far as scheduling and checkpoints care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OperatorKind {
    /// Brings records in; first of a chain without inputs.
    Source,
    /// Keeps nothing between records.
    Stateless,
    /// Keeps state per key; its chain reads at least one edge partitioned by key group.
    Keyed,
    /// Takes records out, committing with the checkpoint.
    Sink,
}

/// An exchange between two vertices: one partition of the producer, channels into the gate of the consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// The producing vertex.
    pub from: u32,
    /// The consuming vertex.
    pub to: u32,
    /// Which input of the consumer: edges with the same input carry the same records.
    pub input: u8,
    /// How records find their channel.
    pub partitioner: Partitioner,
    /// Fingerprint of the record type.
    pub schema: u64,
    /// Name of the record type, for messages.
    pub record: String,
}

/// How a partition picks the channel of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Partitioner {
    /// Subtask i to subtask i; equal parallelism.
    Forward,
    /// Round robin over all.
    Rebalance,
    /// To the owner of the key's group.
    KeyGroup,
    /// To all.
    Broadcast,
    /// The author's function.
    Custom,
}

/// One subtask of a vertex: a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subtask {
    /// The vertex's id.
    pub vertex: u32,
    /// 0 to parallelism - 1.
    pub subtask: u32,
}

impl JobGraph {
    /// The edge's name for people: producer and consumer by name, and the input where it is not the first.
    ///
    /// # Panics
    /// If the edge or its ends do not exist.
    #[must_use]
    pub fn edge_name(&self, edge: u32) -> String {
        let Edge { from, to, input, .. } = self.edges[edge as usize];
        let name = |id: u32| &self.vertices[id as usize].name;
        match input {
            0 => format!("{} -> {}", name(from), name(to)),
            _ => format!("{} -> {} (input {input})", name(from), name(to)),
        }
    }

    /// The slot groups in the order of their first vertex, each with the slots it needs: its largest parallelism.
    #[must_use]
    pub fn slots_needed(&self) -> Vec<(&str, u32)> {
        let mut groups: Vec<(&str, u32)> = Vec::new();
        for vertex in &self.vertices {
            match groups.iter_mut().find(|(name, _)| *name == vertex.slot_group) {
                Some((_, slots)) => *slots = vertex.parallelism.max(*slots),
                None => groups.push((&vertex.slot_group, vertex.parallelism)),
            }
        }
        groups
    }

    /// Every subtask of the job: by vertex, then by number.
    pub fn subtasks(&self) -> impl Iterator<Item = Subtask> + '_ {
        self.vertices
            .iter()
            .flat_map(|vertex| (0..vertex.parallelism).map(|subtask| Subtask { vertex: vertex.id, subtask }))
    }
}
