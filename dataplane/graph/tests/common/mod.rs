//! Graphs for the tests: terse to write, and random ones for properties.
#![allow(dead_code, reason = "each test binary uses its part of it")]

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tidegate_graph::{Edge, JobGraph, Operator, OperatorKind, Partitioner, Vertex};

/// The same cases in every run.
pub fn config() -> ProptestConfig {
    ProptestConfig {
        rng_seed: RngSeed::Fixed(0x7469_6465),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// A vertex of one operator; its kind follows from the name's first letter: s = source, k = keyed, else stateless.
pub fn vertex(id: u32, name: &str, parallelism: u32, group: &str) -> Vertex {
    let kind = match name.as_bytes()[0] {
        b's' => OperatorKind::Source,
        b'k' => OperatorKind::Keyed,
        _ => OperatorKind::Stateless,
    };
    let operators =
        vec![Operator { id: 1000 + u64::from(id), name: format!("op-{name}"), kind, managed_memory: false }];
    Vertex { id, name: name.into(), parallelism, slot_group: group.into(), operators }
}

pub fn edge(from: u32, to: u32, input: u8, partitioner: Partitioner) -> Edge {
    Edge { from, to, input, partitioner, schema: 7, record: "Row".into() }
}

pub fn graph(vertices: Vec<Vertex>, edges: Vec<Edge>) -> JobGraph {
    JobGraph { name: "job".into(), max_parallelism: 128, vertices, edges }
}

/// source (2) =forward=> map (2) =key group=> keyed (3), and source =broadcast=> keyed on its second input.
pub fn sample() -> JobGraph {
    graph(
        vec![vertex(0, "source", 2, "a"), vertex(1, "map", 2, "a"), vertex(2, "keyed", 3, "b")],
        vec![
            edge(0, 1, 0, Partitioner::Forward),
            edge(1, 2, 0, Partitioner::KeyGroup),
            edge(0, 2, 1, Partitioner::Broadcast),
        ],
    )
}

/// Random valid graphs: edges go from lower to higher vertices; a vertex that nothing feeds is a source.
pub fn any_graph() -> impl Strategy<Value = JobGraph> {
    let vertices = proptest::collection::vec((1..=4_u32, 0..3_usize), 1..7);
    let edges = proptest::collection::vec(
        (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..5_u8),
        0..10,
    );
    (vertices, edges).prop_map(|(vertices, edges)| {
        let count = vertices.len();
        let parallelism = |id: usize| vertices[id].0;
        let edges: Vec<Edge> = edges
            .into_iter()
            .filter_map(|(a, b, way)| {
                let (a, b) = (a.index(count), b.index(count));
                let (from, to) = (a.min(b), a.max(b));
                let partitioner = match way {
                    0 if parallelism(from) == parallelism(to) => Partitioner::Forward,
                    0 | 1 => Partitioner::Rebalance,
                    2 => Partitioner::KeyGroup,
                    3 => Partitioner::Broadcast,
                    _ => Partitioner::Custom,
                };
                (from != to).then(|| edge(from as u32, to as u32, way % 2, partitioner))
            })
            .collect();
        let vertices = vertices.iter().enumerate().map(|(id, &(parallelism, group))| {
            let fed = edges.iter().any(|edge| edge.to == id as u32);
            let name = format!("{}{id}", if fed { "map" } else { "source" });
            vertex(id as u32, &name, parallelism, ["a", "b", "c"][group])
        });
        graph(vertices.collect(), edges.clone())
    })
}
