//! What the JobManager counts before it places a job is what the slot reserves when it prepares it.

use std::collections::BTreeMap;

use tidegate_exchange::{AttemptPlan, ChannelPlan, GatePlan, PartitionPlan, SlotId, TaskPorts, segments_min};
use tidegate_graph::{
    Channel, JobGraph, Partitioner, Placement, Segments, SlotOffer, Subtask, place, segment_need,
};
use tidegate_stream::testing::{collect, items};
use tidegate_stream::{Args, Job, JobEntry, JobResult, Jobs};

fn slot_id(slot: tidegate_graph::SlotId) -> SlotId {
    SlotId { taskmanager: slot.taskmanager, slot: slot.slot }
}

fn ports(graph: &JobGraph, placement: &Placement, subtask: Subtask, task: u32) -> TaskPorts {
    let channel = |channel: Channel| ChannelPlan {
        channel: channel.channel,
        peer: slot_id(placement.slot_of(channel.peer)),
        input: channel.input,
        schema: channel.schema,
    };
    let gate = graph
        .gate(subtask)
        .map(|gate| GatePlan { name: gate.name, channels: gate.channels.into_iter().map(channel).collect() });
    let partitions = graph.partitions(subtask).into_iter().map(|partition| PartitionPlan {
        name: partition.name,
        broadcast: partition.partitioner == Partitioner::Broadcast,
        channels: partition.channels.into_iter().map(channel).collect(),
    });
    TaskPorts { task, gate, partitions: partitions.collect() }
}

/// Each kind of edge: key groups, rebalance, broadcast, a union of two inputs, an edge that was unchained.
fn every_edge(job: &mut Job, _: &Args) -> JobResult {
    let odd = job.source("odd", items(0..10u64)).rebalance().map("odd again", |n| *n).unchain();
    let even = job.source("even", items(0..10u64)).broadcast().map("even again", |n| *n);
    odd.union("all", even)
        .key_by(|n| *n)
        .process("count", |_: &u64, n, count: &mut Option<u64>, out| {
            *count = Some(count.unwrap_or(0) + *n);
            out.emit(count.unwrap_or(0));
        })
        .sink("out", collect("out"));
    Ok(())
}

#[test]
fn both_sides_count_the_same_segments() {
    let jobs = Jobs::new([JobEntry::new("every-edge", every_edge)]);
    for (parallelism, taskmanagers, slots) in [(1, 1, 1), (2, 1, 2), (4, 2, 2), (6, 3, 2), (5, 5, 1)] {
        let graph = jobs.build("every-edge", &[], parallelism).expect("it builds").graph;
        let offers: Vec<SlotOffer> = (1..=taskmanagers)
            .flat_map(|taskmanager| (0..slots).map(move |slot| SlotOffer { taskmanager, slot }))
            .collect();
        let placement = place(&graph, &offers).expect("there are slots enough");
        for (need, record_max) in [0, 100_000].into_iter().flat_map(|record_max| {
            segment_need(&graph, &placement, Segments::of_region(record_max, 4096))
                .into_iter()
                .map(move |need| (need, record_max))
        }) {
            let tasks = placement.tasks_in(need.slot).into_iter().zip(0..);
            let plan = AttemptPlan {
                job: 1,
                epoch: 1,
                attempt: 1,
                record_max,
                tasks: tasks.map(|(subtask, task)| ports(&graph, &placement, subtask, task)).collect(),
                peers: BTreeMap::new(),
            };
            let reserved = segments_min(&plan, slot_id(need.slot), 4096);
            let counted = (need.segments.minimum, need.segments.wanted);
            assert_eq!((reserved.min, reserved.wanted), counted, "{:?} of {parallelism}", need.slot);
        }
    }
}
