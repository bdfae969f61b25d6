//! Between the messages of TaskManagers and the values of checkpoints, and from both to a deployment.
//!
//! Pure functions. Always: a task inherits exactly the key groups that it owns, and other state only from the
//! subtask of the same index.

use crate::memory::slot_memory;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use tidegate_checkpoint as ckpt;
use tidegate_checkpoint::Metadata;
use tidegate_graph::{Channel, JobGraph, Placement, Subtask, group_range};
use tidegate_rpc as rpc;

/// A task as checkpoints name it.
pub(crate) fn task(task: rpc::TaskId) -> ckpt::Task {
    ckpt::Task { vertex: task.vertex, subtask: task.subtask }
}

/// A task's part of a checkpoint.
pub(crate) fn part(task_id: rpc::TaskId, snapshot: rpc::TaskSnapshot) -> ckpt::TaskPart {
    ckpt::TaskPart {
        task: task(task_id),
        finished: snapshot.finished,
        alignment_ns: snapshot.alignment_ns,
        bytes: snapshot.bytes,
        operators: snapshot.operators.into_iter().map(operator_part).collect(),
    }
}

fn operator_part(operator: rpc::OperatorSnapshot) -> ckpt::OperatorPart {
    ckpt::OperatorPart {
        operator: operator.operator,
        inline: operator.inline,
        object: operator.file.map(|file| ckpt::Object { path: file.path, len: file.len, hash: file.hash }),
        groups: operator
            .groups
            .into_iter()
            .map(|slice| ckpt::GroupSlice {
                group: slice.group,
                offset: slice.offset,
                len: slice.len,
                hash: slice.hash,
            })
            .collect(),
        committables: operator
            .committables
            .into_iter()
            .map(|file| ckpt::Committable {
                pending: file.pending,
                target: file.target,
                len: file.len,
                hash: file.hash,
            })
            .collect(),
        schema: operator.schema,
    }
}

/// The operators of a graph as metadata names them.
pub(crate) fn operators(graph: &JobGraph) -> Vec<ckpt::OperatorInfo> {
    graph
        .vertices
        .iter()
        .flat_map(|vertex| {
            vertex.operators.iter().map(|operator| ckpt::OperatorInfo {
                operator: operator.id,
                name: operator.name.clone(),
                vertex: vertex.id,
                parallelism: vertex.parallelism,
                max_parallelism: graph.max_parallelism,
            })
        })
        .collect()
}

/// What a task restores.
fn restore(graph: &JobGraph, subtask: Subtask, metadata: &Metadata) -> Vec<rpc::OperatorRestore> {
    let vertex = &graph.vertices[subtask.vertex as usize];
    let owned = group_range(subtask.subtask, vertex.parallelism, graph.max_parallelism);
    let mut restore = Vec::new();
    for operator in &vertex.operators {
        let mut states = Vec::new();
        for task in &metadata.tasks {
            for part in task.operators.iter().filter(|part| part.operator == operator.id) {
                let own = task.task.subtask == subtask.subtask;
                let groups: Vec<rpc::GroupSlice> = part
                    .groups
                    .iter()
                    .filter(|slice| owned.contains(&slice.group))
                    .map(|slice| rpc::GroupSlice {
                        group: slice.group,
                        offset: slice.offset,
                        len: slice.len,
                        hash: slice.hash,
                    })
                    .collect();
                if !own && groups.is_empty() {
                    continue;
                }
                states.push(rpc::StateReference {
                    subtask: task.task.subtask,
                    inline: if own { part.inline.clone() } else { Vec::new() },
                    file: part.object.as_ref().map(|object| rpc::FileReceipt {
                        path: object.path.clone(),
                        len: object.len,
                        hash: object.hash,
                    }),
                    groups,
                    schema: part.schema,
                });
            }
        }
        if !states.is_empty() {
            restore.push(rpc::OperatorRestore { operator: operator.id, states });
        }
    }
    restore
}

/// Whether a task had said everything; in another graph (of another parallelism, say) it is another task.
fn finished(graph: &JobGraph, subtask: Subtask, metadata: &Metadata) -> bool {
    let id = ckpt::Task { vertex: subtask.vertex, subtask: subtask.subtask };
    metadata.graph_fingerprint == graph.fingerprint()
        && metadata.tasks.iter().any(|part| part.task == id && part.finished)
}

/// What a plan needs to know of each TaskManager: its data address, its slots, how its memory is divided.
pub(crate) type Hosts<'a> = BTreeMap<u64, (SocketAddr, u32, &'a rpc::MemoryPlan)>;

/// What every slot of a placement is to run, by TaskManager.
pub(crate) fn plan(
    graph: &JobGraph,
    placement: &Placement,
    hosts: &Hosts<'_>,
    metadata: Option<&Metadata>,
) -> BTreeMap<u64, Vec<rpc::SlotPlan>> {
    let numbers: BTreeMap<Subtask, u32> = graph.subtasks().zip(0..).collect();
    let slot_of = |subtask: Subtask| {
        let slot = placement.slot_of(subtask);
        rpc::SlotId { taskmanager: slot.taskmanager, slot: slot.slot }
    };
    let mut plans: BTreeMap<u64, Vec<rpc::SlotPlan>> = BTreeMap::new();
    for slot in placement.slots() {
        let mut peers = BTreeMap::new();
        let mut channels = |channels: &[Channel]| -> Vec<rpc::ChannelPlan> {
            let plan = |channel: &Channel| {
                let peer = slot_of(channel.peer);
                if let Some((address, ..)) = hosts.get(&peer.taskmanager) {
                    peers.insert(peer, *address);
                }
                rpc::ChannelPlan {
                    channel: channel.channel,
                    peer,
                    input: channel.input,
                    schema: channel.schema,
                }
            };
            channels.iter().map(plan).collect()
        };
        let mut tasks = Vec::new();
        for subtask in placement.tasks_in(slot) {
            let gate = graph
                .gate(subtask)
                .map(|gate| rpc::GatePlan { channels: channels(&gate.channels), name: gate.name });
            let partitions = graph.partitions(subtask).into_iter().map(|partition| rpc::PartitionPlan {
                channels: channels(&partition.channels),
                name: partition.name,
                edge: partition.edge,
            });
            tasks.push(rpc::TaskPlan {
                id: rpc::TaskId { vertex: subtask.vertex, subtask: subtask.subtask },
                task: numbers[&subtask],
                gate,
                partitions: partitions.collect(),
                restore: metadata.map_or(Vec::new(), |metadata| restore(graph, subtask, metadata)),
                finished: metadata.is_some_and(|metadata| finished(graph, subtask, metadata)),
            });
        }
        let memory =
            hosts.get(&slot.taskmanager).map_or_else(rpc::SlotMemory::default, |(_, slots, plan)| {
                slot_memory(plan, *slots, graph, placement.tasks_in(slot))
            });
        plans.entry(slot.taskmanager).or_default().push(rpc::SlotPlan {
            slot: slot.slot,
            tasks,
            peers,
            memory,
        });
    }
    plans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_that_had_finished_is_told_so_in_the_same_graph_only() {
        let vertex = |parallelism| tidegate_graph::Vertex {
            id: 0,
            name: "source".into(),
            parallelism,
            slot_group: "default".into(),
            operators: Vec::new(),
        };
        let graph = |parallelism| JobGraph {
            name: "job".into(),
            max_parallelism: 128,
            vertices: vec![vertex(parallelism)],
            edges: Vec::new(),
        };
        let part = |subtask, finished| ckpt::TaskPart {
            task: ckpt::Task { vertex: 0, subtask },
            finished,
            alignment_ns: 0,
            bytes: 0,
            operators: Vec::new(),
        };
        let metadata = Metadata {
            job: 1,
            epoch: 1,
            attempt: 1,
            id: 7,
            base: None,
            job_name: "job".into(),
            args: Vec::new(),
            parallelism: 2,
            graph_fingerprint: graph(2).fingerprint(),
            binary_fingerprint: 0,
            triggered_ms: 0,
            completed_ms: 0,
            alignment: ckpt::metadata::Alignment::Aligned,
            last: false,
            operators: Vec::new(),
            tasks: vec![part(0, true), part(1, false)],
        };
        let told =
            |parallelism, subtask| finished(&graph(parallelism), Subtask { vertex: 0, subtask }, &metadata);
        assert_eq!([told(2, 0), told(2, 1), told(2, 2)], [true, false, false]);
        assert!(!told(3, 0), "another subtask of the same number");
    }
}
