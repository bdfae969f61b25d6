//! One number for a whole graph, so that two processes can tell whether they mean the same job. No state.
//!
//! Always true: equal graphs have equal fingerprints on every machine and in every build of this version, and every field
//! of the graph goes in, each string with its length, so no two different graphs have the same canonical bytes.

use xxhash_rust::xxh3::Xxh3;

use crate::job::{JobGraph, OperatorKind, Partitioner};

/// Changes whenever the canonical form does, so that builds that differ in it never agree by chance.
const CANONICAL_FORM: u32 = 2;

impl JobGraph {
    /// XXH3 (64 bits) of the canonical form: the fields in their order of declaration, integers little-endian, strings and
    /// lists with their length before them.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut canonical = Canonical(Xxh3::new());
        canonical.number(CANONICAL_FORM);
        canonical.text(&self.name);
        canonical.number(self.max_parallelism);
        canonical.number(self.vertices.len() as u32);
        for vertex in &self.vertices {
            canonical.number(vertex.id);
            canonical.text(&vertex.name);
            canonical.number(vertex.parallelism);
            canonical.text(&vertex.slot_group);
            canonical.number(vertex.operators.len() as u32);
            for operator in &vertex.operators {
                canonical.wide(operator.id);
                canonical.text(&operator.name);
                canonical.number(kind_number(operator.kind));
                canonical.number(operator.managed_memory.into());
            }
        }
        canonical.number(self.edges.len() as u32);
        for edge in &self.edges {
            canonical.number(edge.from);
            canonical.number(edge.to);
            canonical.number(edge.input.into());
            canonical.number(partitioner_number(edge.partitioner));
            canonical.wide(edge.schema);
            canonical.text(&edge.record);
        }
        canonical.0.digest()
    }
}

struct Canonical(Xxh3);

impl Canonical {
    fn number(&mut self, number: u32) {
        self.0.update(&number.to_le_bytes());
    }

    fn wide(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.wide(text.len() as u64);
        self.0.update(text.as_bytes());
    }
}

/// Numbers of their own, so that reordering an enum changes no fingerprint.
const fn kind_number(kind: OperatorKind) -> u32 {
    match kind {
        OperatorKind::Source => 1,
        OperatorKind::Stateless => 2,
        OperatorKind::Keyed => 3,
        OperatorKind::Sink => 4,
    }
}

const fn partitioner_number(partitioner: Partitioner) -> u32 {
    match partitioner {
        Partitioner::Forward => 1,
        Partitioner::Rebalance => 2,
        Partitioner::KeyGroup => 3,
        Partitioner::Broadcast => 4,
        Partitioner::Custom => 5,
    }
}
