//! What a job graph must be before anybody acts on it. No state.
//!
//! Always true after `Ok`: the inequalities at the top of `job.rs`. Checks go from cheap to dear, and names in a message
//! are those that the author wrote.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::job::{JobGraph, OperatorKind, Partitioner, Vertex};
use crate::limits::{
    CHANNELS_MAX, EDGES_MAX, MAX_PARALLELISM_MAX, NAME_BYTES_MAX, OPERATORS_MAX, VERTICES_MAX,
};

/// Why a job graph was refused: always the author's to change.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GraphError {
    /// The graph has no vertex.
    #[error("the job has no vertex: give it at least a source")]
    Empty,
    /// Too many of something.
    #[error("the job has {found} {what}, at most {max} are allowed: split the job")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        found: u64,
        /// How many there may be.
        max: u64,
    },
    /// A name is empty or too long.
    #[error("the name of {what} has {found} bytes, expected 1 to {NAME_BYTES_MAX}: name it otherwise")]
    Name {
        /// What is named.
        what: String,
        /// Bytes of the name.
        found: usize,
    },
    /// The maximum parallelism is out of range.
    #[error("max parallelism is {found}, expected 1 to {MAX_PARALLELISM_MAX}")]
    MaxParallelism {
        /// The value in the graph.
        found: u32,
    },
    /// A vertex's id is not its position.
    #[error("vertex {name:?} has id {found} at position {position}: ids are positions")]
    VertexId {
        /// The vertex.
        name: String,
        /// Where it stands.
        position: u32,
        /// Its id.
        found: u32,
    },
    /// A parallelism is out of range.
    #[error("vertex {name:?} has parallelism {found}, expected 1 to the job's max parallelism {max}")]
    Parallelism {
        /// The vertex.
        name: String,
        /// Its parallelism.
        found: u32,
        /// The job's maximum.
        max: u32,
    },
    /// A vertex without operators.
    #[error("vertex {name:?} has no operators")]
    NoOperators {
        /// The vertex.
        name: String,
    },
    /// Two operators with one id: their state could not be told apart.
    #[error(
        "operators {first:?} and {second:?} have the same id {id:#018x}: give one of them another name or uid"
    )]
    OperatorId {
        /// The earlier operator.
        first: String,
        /// The later one.
        second: String,
        /// The id of both.
        id: u64,
    },
    /// An edge to or from nowhere.
    #[error("edge {edge} goes from vertex {from} to vertex {to}, but there are only {vertices}")]
    Dangling {
        /// The edge's position.
        edge: u32,
        /// Its producer.
        from: u32,
        /// Its consumer.
        to: u32,
        /// Number of vertices.
        vertices: u32,
    },
    /// A forward edge between unequal parallelisms.
    #[error(
        "edge {edge} is forward, but {from} subtasks feed {to}: make them equal, or rebalance between the two"
    )]
    Forward {
        /// The edge's name.
        edge: String,
        /// Parallelism of the producer.
        from: u32,
        /// Parallelism of the consumer.
        to: u32,
    },
    /// Different records on one input.
    #[error(
        "edges {first} and {second} feed the same input with different records: use another input for one"
    )]
    Input {
        /// The earlier edge's name.
        first: String,
        /// The later edge's name.
        second: String,
    },
    /// A source that reads, a chain that reads nothing and is no source, or a source within a chain.
    #[error(
        "vertex {name:?}: a source is the first operator of a chain without inputs, and every such chain has one"
    )]
    Source {
        /// The vertex.
        name: String,
    },
    /// Keyed state behind edges that do not partition by key.
    #[error(
        "vertex {name:?} keeps state per key, but none of its inputs is partitioned by key group: key the stream"
    )]
    Unkeyed {
        /// The vertex.
        name: String,
    },
    /// A cycle: back-pressure could go round and stop for ever.
    #[error("the job has a cycle, which could block on itself: {}", path.join(" -> "))]
    Cycle {
        /// The names along the cycle; the last is the first again.
        path: Vec<String>,
    },
}

impl JobGraph {
    /// Checks everything that the rest of the system takes for granted.
    ///
    /// # Errors
    /// A [`GraphError`] for the first thing that is wrong, by name.
    pub fn validate(&self) -> Result<(), GraphError> {
        self.check_sizes()?;
        self.check_vertices()?;
        self.check_edges()?;
        self.check_chains()?;
        self.check_acyclic()
    }

    fn check_sizes(&self) -> Result<(), GraphError> {
        check_name(&self.name, || "the job".to_owned())?;
        if self.vertices.is_empty() {
            return Err(GraphError::Empty);
        }
        check_count("vertices", self.vertices.len(), VERTICES_MAX)?;
        check_count("edges", self.edges.len(), EDGES_MAX)?;
        if !(1..=MAX_PARALLELISM_MAX).contains(&self.max_parallelism) {
            return Err(GraphError::MaxParallelism { found: self.max_parallelism });
        }
        Ok(())
    }

    fn check_vertices(&self) -> Result<(), GraphError> {
        let mut operators: BTreeMap<u64, &str> = BTreeMap::new();
        for (position, vertex) in self.vertices.iter().enumerate() {
            let position = position as u32;
            check_name(&vertex.name, || format!("vertex {position}"))?;
            check_name(&vertex.slot_group, || format!("the slot group of vertex {:?}", vertex.name))?;
            let name = || vertex.name.clone();
            if vertex.id != position {
                return Err(GraphError::VertexId { name: name(), position, found: vertex.id });
            }
            if !(1..=self.max_parallelism).contains(&vertex.parallelism) {
                let (found, max) = (vertex.parallelism, self.max_parallelism);
                return Err(GraphError::Parallelism { name: name(), found, max });
            }
            if vertex.operators.is_empty() {
                return Err(GraphError::NoOperators { name: name() });
            }
            check_count("operators in one chain", vertex.operators.len(), OPERATORS_MAX)?;
            for operator in &vertex.operators {
                check_name(&operator.name, || format!("an operator of vertex {:?}", vertex.name))?;
                if let Some(first) = operators.insert(operator.id, &operator.name) {
                    let (first, second) = (first.to_owned(), operator.name.clone());
                    return Err(GraphError::OperatorId { first, second, id: operator.id });
                }
            }
        }
        Ok(())
    }

    fn check_edges(&self) -> Result<(), GraphError> {
        let vertices = self.vertices.len() as u32;
        let mut inputs: BTreeMap<(u32, u8), u32> = BTreeMap::new();
        let mut channels = 0;
        for (position, edge) in self.edges.iter().enumerate() {
            let position = position as u32;
            if edge.from >= vertices || edge.to >= vertices {
                return Err(GraphError::Dangling { edge: position, from: edge.from, to: edge.to, vertices });
            }
            let (from, to) = (self.parallelism(edge.from), self.parallelism(edge.to));
            if edge.partitioner == Partitioner::Forward && from != to {
                return Err(GraphError::Forward { edge: self.edge_name(position), from, to });
            }
            let first = *inputs.entry((edge.to, edge.input)).or_insert(position);
            if self.edges[first as usize].schema != edge.schema {
                let (first, second) = (self.edge_name(first), self.edge_name(position));
                return Err(GraphError::Input { first, second });
            }
            channels +=
                u64::from(from) * if edge.partitioner == Partitioner::Forward { 1 } else { u64::from(to) };
        }
        if channels > u64::from(CHANNELS_MAX) {
            return Err(GraphError::TooMany { what: "channels", found: channels, max: CHANNELS_MAX.into() });
        }
        Ok(())
    }

    /// Sources stand where nothing comes in, and keyed state where keys come in.
    fn check_chains(&self) -> Result<(), GraphError> {
        for vertex in &self.vertices {
            let mut inputs = self.edges.iter().filter(|edge| edge.to == vertex.id).peekable();
            let reads = inputs.peek().is_some();
            let is_source = |at: usize| vertex.operators[at].kind == OperatorKind::Source;
            let later_source = (1..vertex.operators.len()).any(is_source);
            if is_source(0) == reads || later_source {
                return Err(GraphError::Source { name: vertex.name.clone() });
            }
            let keyed = vertex.operators.iter().any(|operator| operator.kind == OperatorKind::Keyed);
            if keyed && !inputs.any(|edge| edge.partitioner == Partitioner::KeyGroup) {
                return Err(GraphError::Unkeyed { name: vertex.name.clone() });
            }
        }
        Ok(())
    }

    /// Takes away vertices that nothing feeds until none is left; what cannot be taken away holds a cycle.
    fn check_acyclic(&self) -> Result<(), GraphError> {
        let mut feeds = vec![0_u32; self.vertices.len()];
        for edge in &self.edges {
            feeds[edge.to as usize] += 1;
        }
        let mut free: Vec<u32> =
            self.vertices.iter().map(|v| v.id).filter(|&id| feeds[id as usize] == 0).collect();
        let mut taken = 0;
        while let Some(vertex) = free.pop() {
            taken += 1;
            for edge in self.edges.iter().filter(|edge| edge.from == vertex) {
                let left = &mut feeds[edge.to as usize];
                *left -= 1;
                if *left == 0 {
                    free.push(edge.to);
                }
            }
        }
        if taken == self.vertices.len() {
            Ok(())
        } else {
            Err(GraphError::Cycle { path: self.find_cycle(&feeds) })
        }
    }

    /// Walks against the edges from a vertex that is still fed by such vertices: the walk must come back to itself.
    fn find_cycle(&self, feeds: &[u32]) -> Vec<String> {
        let stuck = |id: u32| feeds[id as usize] > 0;
        let mut walk: Vec<u32> = vec![
            self.vertices
                .iter()
                .map(|v| v.id)
                .find(|&id| stuck(id))
                .expect("invariant: a cycle leaves vertices fed"),
        ];
        loop {
            let last = walk[walk.len() - 1];
            let edge = self.edges.iter().find(|edge| edge.to == last && stuck(edge.from));
            let next = edge.expect("invariant: a fed vertex is fed by a fed vertex").from;
            if let Some(start) = walk.iter().position(|&id| id == next) {
                let mut path: Vec<String> =
                    walk[start..].iter().rev().map(|&id| self.vertices[id as usize].name.clone()).collect();
                path.push(path[0].clone());
                return path;
            }
            walk.push(next);
        }
    }

    pub(crate) fn parallelism(&self, vertex: u32) -> u32 {
        let Vertex { parallelism, .. } = self.vertices[vertex as usize];
        parallelism
    }
}

fn check_count(what: &'static str, found: usize, max: usize) -> Result<(), GraphError> {
    if found <= max {
        Ok(())
    } else {
        Err(GraphError::TooMany { what, found: found as u64, max: max as u64 })
    }
}

fn check_name(name: &str, what: impl FnOnce() -> String) -> Result<(), GraphError> {
    let found = name.len();
    if (1..=NAME_BYTES_MAX).contains(&found) { Ok(()) } else { Err(GraphError::Name { what: what(), found }) }
}
