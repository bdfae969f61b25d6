//! What a graph must be, how its channels are numbered, and what its fingerprint covers.

mod common;

use std::collections::BTreeMap;

use common::{any_graph, edge, graph, sample, vertex};
use proptest::prelude::*;
use tidegate_graph::{
    CHANNELS_MAX, GraphError, JobGraph, MAX_PARALLELISM_MAX, NAME_BYTES_MAX, OPERATORS_MAX, Operator,
    OperatorKind, Partitioner, Subtask, VERTICES_MAX,
};

/// The sample graph, changed by `change`, is refused with what the returned error says.
fn refused(change: impl FnOnce(&mut JobGraph)) -> GraphError {
    let mut graph = sample();
    change(&mut graph);
    graph.validate().expect_err("the change breaks a rule")
}

#[test]
fn the_sample_is_valid() {
    sample().validate().unwrap();
}

#[test]
fn empty_and_overlong_graphs_are_refused() {
    assert_eq!(refused(|graph| graph.vertices.clear()), GraphError::Empty);
    let error = refused(|graph| {
        graph.vertices = (0..=VERTICES_MAX as u32).map(|id| vertex(id, "s", 1, "a")).collect()
    });
    assert!(matches!(error, GraphError::TooMany { what: "vertices", found: 1025, max: 1024 }), "{error}");
    let error = refused(|graph| {
        let operator =
            |id| Operator { id, name: "op".into(), kind: OperatorKind::Stateless, managed_memory: false };
        graph.vertices[1].operators = (0..=OPERATORS_MAX as u64).map(operator).collect();
    });
    assert!(matches!(error, GraphError::TooMany { found: 257, .. }), "{error}");
    let error = refused(|graph| {
        graph.max_parallelism = MAX_PARALLELISM_MAX;
        graph.vertices.iter_mut().for_each(|vertex| vertex.parallelism = MAX_PARALLELISM_MAX);
    });
    assert!(
        matches!(error, GraphError::TooMany { what: "channels", max, .. } if max == u64::from(CHANNELS_MAX)),
        "{error}"
    );
}

#[test]
fn names_have_bounds() {
    let error = refused(|graph| graph.vertices[1].name.clear());
    assert_eq!(error, GraphError::Name { what: "vertex 1".into(), found: 0 });
    let error = refused(|graph| graph.name = "n".repeat(NAME_BYTES_MAX + 1));
    assert_eq!(error.to_string(), "the name of the job has 513 bytes, expected 1 to 512: name it otherwise");
}

#[test]
fn parallelism_has_bounds() {
    assert_eq!(refused(|graph| graph.max_parallelism = 0), GraphError::MaxParallelism { found: 0 });
    let found = MAX_PARALLELISM_MAX + 1;
    assert_eq!(refused(|graph| graph.max_parallelism = found), GraphError::MaxParallelism { found });
    for found in [0, 129, u32::MAX] {
        let error = refused(|graph| graph.vertices[2].parallelism = found);
        assert_eq!(error, GraphError::Parallelism { name: "keyed".into(), found, max: 128 });
    }
}

#[test]
fn identities_are_unique() {
    let error = refused(|graph| graph.vertices[1].id = 2);
    assert_eq!(error, GraphError::VertexId { name: "map".into(), position: 1, found: 2 });
    let error = refused(|graph| graph.vertices[1].operators[0].id = 1000);
    let (first, second) = ("op-source".into(), "op-map".into());
    assert_eq!(error, GraphError::OperatorId { first, second, id: 1000 });
    assert_eq!(
        refused(|graph| graph.vertices[0].operators.clear()),
        GraphError::NoOperators { name: "source".into() }
    );
}

#[test]
fn edges_have_both_ends_and_forward_ones_are_equal() {
    let error = refused(|graph| graph.edges[2].to = 3);
    assert_eq!(error, GraphError::Dangling { edge: 2, from: 0, to: 3, vertices: 3 });
    let error = refused(|graph| graph.vertices[1].parallelism = 4);
    assert_eq!(error, GraphError::Forward { edge: "source -> map".into(), from: 2, to: 4 });
}

#[test]
fn one_input_carries_one_kind_of_record() {
    let error = refused(|graph| {
        graph.edges[2].input = 0;
        graph.edges[2].schema = 8;
    });
    assert_eq!(error, GraphError::Input { first: "map -> keyed".into(), second: "source -> keyed".into() });

    let mut union = sample();
    union.edges[2].input = 0;
    union.validate().expect("two edges with the same records may share an input");
}

#[test]
fn sources_stand_where_nothing_comes_in() {
    let by_name = |name: &str| GraphError::Source { name: name.into() };
    assert_eq!(
        refused(|graph| graph.vertices[0].operators[0].kind = OperatorKind::Stateless),
        by_name("source")
    );
    assert_eq!(refused(|graph| graph.vertices[1].operators[0].kind = OperatorKind::Source), by_name("map"));
    let error = refused(|graph| {
        graph.vertices[1].operators.push(Operator {
            id: 5,
            name: "late".into(),
            kind: OperatorKind::Source,
            managed_memory: false,
        });
    });
    assert_eq!(error, by_name("map"));
}

#[test]
fn keyed_state_needs_a_keyed_input() {
    let error = refused(|graph| graph.edges[1].partitioner = Partitioner::Rebalance);
    assert_eq!(error, GraphError::Unkeyed { name: "keyed".into() });
}

#[test]
fn cycles_are_refused_with_their_path() {
    let error = refused(|graph| graph.edges.push(edge(2, 1, 1, Partitioner::Rebalance)));
    let GraphError::Cycle { path } = &error else { panic!("{error}") };
    assert!(*path == ["map", "keyed", "map"] || *path == ["keyed", "map", "keyed"], "{path:?}");
    assert!(error.to_string().contains("map -> keyed"), "{error}");

    let error = refused(|graph| graph.edges.push(edge(1, 1, 1, Partitioner::Rebalance)));
    assert_eq!(error, GraphError::Cycle { path: vec!["map".into(), "map".into()] });
}

#[test]
fn a_cycle_upstream_of_what_it_feeds_is_named_without_the_rest() {
    // source -> a -> b -> c -> b, and c -> d: only b and c go round.
    let names = ["source", "a", "b", "c", "d"];
    let vertices = (0..).zip(names).map(|(id, name)| vertex(id, name, 1, "g")).collect();
    let edges = [(0, 1), (1, 2), (2, 3), (3, 2), (3, 4)];
    let edges = edges.map(|(from, to)| edge(from, to, 0, Partitioner::Rebalance)).to_vec();
    let Err(GraphError::Cycle { path }) = graph(vertices, edges).validate() else {
        panic!("there is a cycle")
    };
    assert_eq!((path.len(), &path[0] == path.last().unwrap()), (3, true), "{path:?}");
    assert!(path.iter().all(|name| name == "b" || name == "c"), "{path:?}");
}

#[test]
fn channels_of_the_sample() {
    let graph = sample();
    assert_eq!([0, 1, 2].map(|edge| graph.channels(edge)), [2, 6, 6]);
    assert_eq!(graph.channels_total(), 14);
    assert_eq!((graph.channel(0, 1, 1), graph.channel(1, 0, 0), graph.channel(1, 1, 2)), (1, 2, 7));

    let gate = graph.gate(Subtask { vertex: 2, subtask: 1 }).unwrap();
    let seen: Vec<_> =
        gate.channels.iter().map(|c| (c.channel, c.input, c.peer.vertex, c.peer.subtask)).collect();
    assert_eq!(seen, [(3, 0, 1, 0), (6, 0, 1, 1), (9, 1, 0, 0), (12, 1, 0, 1)]);
    assert_eq!(gate.name, "keyed");

    let partitions = graph.partitions(Subtask { vertex: 0, subtask: 1 });
    let seen: Vec<_> = partitions
        .iter()
        .map(|p| (p.name.as_str(), p.channels.iter().map(|c| c.channel).collect::<Vec<_>>()))
        .collect();
    assert_eq!(seen, [("source -> map", vec![1]), ("source -> keyed (input 1)", vec![11, 12, 13])]);
    assert_eq!(graph.gate(Subtask { vertex: 0, subtask: 0 }), None);
}

#[test]
#[should_panic(expected = "a forward edge has channels from a subtask to its equal only")]
fn a_forward_edge_has_no_channel_across() {
    let _ = sample().channel(0, 0, 1);
}

#[test]
fn the_fingerprint_does_not_drift() {
    assert_eq!(
        sample().fingerprint(),
        0x3b39aedbaa5f9b55,
        "a change of the canonical form needs a new CANONICAL_FORM"
    );
}

#[test]
fn the_fingerprint_covers_every_field() {
    let changes: [fn(&mut JobGraph); 17] = [
        |g| g.name.push('!'),
        |g| g.max_parallelism += 1,
        |g| g.vertices[0].id += 1,
        |g| g.vertices[0].name.push('!'),
        |g| g.vertices[0].parallelism += 1,
        |g| g.vertices[0].slot_group.push('!'),
        |g| g.vertices[0].operators[0].id += 1,
        |g| g.vertices[0].operators[0].name.push('!'),
        |g| g.vertices[0].operators[0].kind = OperatorKind::Sink,
        |g| g.vertices[0].operators[0].managed_memory = true,
        |g| g.edges[0].from += 1,
        |g| g.edges[0].to += 1,
        |g| g.edges[0].input += 1,
        |g| g.edges[0].partitioner = Partitioner::Custom,
        |g| g.edges[0].schema += 1,
        |g| g.edges[0].record.push('!'),
        // The same text, cut elsewhere between two fields.
        |g| (g.vertices[0].name, g.vertices[1].name) = ("sourcem".into(), "ap".into()),
    ];
    let mut seen = BTreeMap::from([(sample().fingerprint(), usize::MAX)]);
    for (index, change) in changes.into_iter().enumerate() {
        let mut graph = sample();
        change(&mut graph);
        assert_eq!(seen.insert(graph.fingerprint(), index), None, "change {index} is not covered");
    }
}

#[test]
fn a_graph_travels_as_json() {
    let text = serde_json::to_string(&sample()).unwrap();
    let back: JobGraph = serde_json::from_str(&text).unwrap();
    assert_eq!((back.fingerprint(), back), (sample().fingerprint(), sample()));
}

proptest! {
    #![proptest_config(common::config())]

    /// Both ends of a channel see the same number, and the numbers are dense over the job.
    #[test]
    fn channel_numbers_are_dense_and_agree(graph in any_graph()) {
        graph.validate().unwrap();
        let mut outgoing = BTreeMap::new();
        let mut incoming = BTreeMap::new();
        for task in graph.subtasks() {
            for partition in graph.partitions(task) {
                for channel in partition.channels {
                    let number = graph.channel(channel.edge, task.subtask, channel.peer.subtask);
                    prop_assert_eq!(channel.channel, number);
                    prop_assert_eq!(outgoing.insert(number, (channel.edge, channel.input, task, channel.peer)), None);
                }
            }
            for channel in graph.gate(task).into_iter().flat_map(|gate| gate.channels) {
                let seen = (channel.edge, channel.input, channel.peer, task);
                prop_assert_eq!(incoming.insert(channel.channel, seen), None);
            }
        }
        prop_assert!(outgoing.keys().copied().eq(0..graph.channels_total()));
        prop_assert_eq!(outgoing, incoming);
    }

    /// An edge back along any edge of a valid graph makes a cycle, and it is found.
    #[test]
    fn any_back_edge_is_a_cycle(graph in any_graph(), pick: prop::sample::Index) {
        let mut graph = graph;
        if graph.edges.is_empty() {
            return Ok(());
        }
        let tidegate_graph::Edge { from, to, .. } = graph.edges[pick.index(graph.edges.len())];
        // The vertex reads now, so it is no source any more; the edge has an input of its own: nothing else is wrong.
        graph.vertices[from as usize].operators[0].kind = OperatorKind::Stateless;
        graph.edges.push(edge(to, from, 9, Partitioner::Rebalance));
        let is_cycle = matches!(graph.validate(), Err(GraphError::Cycle { .. }));
        prop_assert!(is_cycle);
    }
}
