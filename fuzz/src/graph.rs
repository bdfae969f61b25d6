//! Bytes as a job graph: as the JSON of a job's record, and as a script that builds one.
//!
//! Oracle: a graph has one canonical form, whatever way it travelled; in a graph that passes its checks every channel has
//! one number, told alike by both of its ends, and a graph that is placed needs no more than its parts do.

use std::collections::BTreeMap;

use tidegate_graph::{
    Edge, JobGraph, MAX_PARALLELISM_MAX, Operator, OperatorKind, Partitioner, SlotOffer, Vertex, place,
    segment_need,
};

use crate::script::Script;

/// Channels of a graph that are looked at one by one; what is larger is only checked.
const CHANNELS_LOOKED_AT: u32 = 4096;

/// Any bytes as a graph.
pub fn graph(bytes: &[u8]) {
    if let Ok(graph) = serde_json::from_slice::<JobGraph>(bytes) {
        check(&graph);
    }
    check(&built(&mut Script(bytes)));
}

/// A graph out of choices: small, and often in order.
fn built(script: &mut Script<'_>) -> JobGraph {
    let max_parallelism = match script.byte() {
        0 => MAX_PARALLELISM_MAX,
        255 => u32::MAX,
        small => u32::from(small),
    };
    let mut graph = JobGraph { name: "job".into(), max_parallelism, vertices: Vec::new(), edges: Vec::new() };
    while let Some(what) = script.next() {
        if what % 3 == 0 {
            let id = graph.vertices.len() as u32;
            let kind = script.pick(&[
                OperatorKind::Source,
                OperatorKind::Keyed,
                OperatorKind::Stateless,
                OperatorKind::Sink,
            ]);
            let parallelism = match script.byte() {
                255 => script.wide() as u32,
                small => u32::from(small % 9),
            };
            let name = "v".repeat(usize::from(script.pick(&[1_u16, 2, 3, 0, 600])));
            let operators = (0..1 + script.byte() % 3)
                .map(|at| Operator {
                    id: u64::from(script.byte()) << 8 | u64::from(id),
                    name: format!("{name}{at}"),
                    kind: if at == 0 { kind } else { OperatorKind::Stateless },
                    managed_memory: what & 64 != 0,
                })
                .collect();
            let slot_group = script.pick(&["default", "other", ""]).into();
            graph.vertices.push(Vertex { id, name, parallelism, slot_group, operators });
        } else {
            let vertices = graph.vertices.len().max(1) as u8;
            graph.edges.push(Edge {
                from: (script.byte() % (vertices + 1)).into(),
                to: (script.byte() % (vertices + 1)).into(),
                input: script.byte() % 2,
                partitioner: script.pick(&[
                    Partitioner::KeyGroup,
                    Partitioner::Forward,
                    Partitioner::Rebalance,
                    Partitioner::Broadcast,
                    Partitioner::Custom,
                ]),
                schema: (script.byte() % 2).into(),
                record: "Word".into(),
            });
        }
    }
    graph
}

fn check(graph: &JobGraph) {
    let text = serde_json::to_vec(graph).expect("a graph is JSON");
    let again: JobGraph = serde_json::from_slice(&text).expect("what was written is read");
    assert_eq!((&again, again.fingerprint()), (graph, graph.fingerprint()), "one canonical form");
    match graph.validate() {
        Ok(()) => lawful(graph),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn lawful(graph: &JobGraph) {
    let total = graph.channels_total();
    if total > CHANNELS_LOOKED_AT || graph.subtasks().count() > CHANNELS_LOOKED_AT as usize {
        return;
    }
    // Channel number, to its producer and consumer as the producer tells them.
    let mut told = BTreeMap::new();
    for subtask in graph.subtasks() {
        for partition in graph.partitions(subtask) {
            for channel in partition.channels {
                let ends = (subtask, channel.peer);
                assert_eq!(channel.channel, graph.channel(channel.edge, ends.0.subtask, ends.1.subtask));
                assert_eq!(told.insert(channel.channel, ends), None, "a number for each channel");
            }
        }
    }
    assert!(told.keys().copied().eq(0..total), "channels are numbered from 0 without gaps");
    let mut heard = 0;
    for subtask in graph.subtasks() {
        for channel in graph.gate(subtask).into_iter().flat_map(|gate| gate.channels) {
            assert_eq!(told[&channel.channel], (channel.peer, subtask), "both ends say the same");
            heard += 1;
        }
    }
    assert_eq!(heard, total);

    let slots: u32 = graph.slots_needed().iter().map(|(_, slots)| slots).sum();
    let offer = |slot| SlotOffer { taskmanager: u64::from(slot % 3), slot: slot / 3 };
    let offers: Vec<SlotOffer> = (0..slots).map(offer).collect();
    assert!(place(graph, &offers[1..]).is_err(), "a slot too few");
    let placement = place(graph, &offers).expect("as many slots as are needed");
    for need in segment_need(graph, &placement, 0) {
        assert!(need.segments.minimum <= need.segments.wanted);
    }
}
