//! Between the words of the control protocol and the words of a slot. Stateless.
//!
//! Always true: nothing is dropped or defaulted on the way, except what only people read.

use std::collections::BTreeMap;

use tidegate_exchange as exchange;
use tidegate_graph::{JobGraph, Partitioner};
use tidegate_rpc as rpc;
use tidegate_stream::error::Fault;
use tidegate_stream::files::FileReceipt;
use tidegate_stream::memory::SlotMemory;
use tidegate_stream::slot;

use crate::files::is_permanent;

/// A slot's part of an attempt; `restores` has one entry per task of the plan.
pub(super) fn deployment(
    prepare: &rpc::Prepare,
    plan: &rpc::SlotPlan,
    epoch: u64,
    graph: &JobGraph,
    restores: Vec<Option<slot::TaskRestore>>,
) -> slot::Deployment {
    assert_eq!(plan.tasks.len(), restores.len(), "each task of a plan is restored or known not to be");
    let tasks = plan.tasks.iter().zip(restores);
    slot::Deployment {
        job: prepare.job.0,
        job_name: prepare.job_name.clone(),
        args: prepare.args.clone(),
        parallelism: prepare.parallelism,
        graph_fingerprint: prepare.graph_fingerprint,
        epoch,
        attempt: prepare.attempt,
        ports: ports(prepare, plan, epoch, graph),
        tasks: tasks.map(|(task, restore)| slot::TaskDeployment { id: task_id(task.id), restore }).collect(),
        memory: SlotMemory {
            task_heap: Some(plan.memory.task_heap),
            task_off_heap: Some(plan.memory.task_off_heap),
            state: Some(plan.memory.state),
            operators: Some(plan.memory.operators),
        },
    }
}

fn ports(
    prepare: &rpc::Prepare,
    plan: &rpc::SlotPlan,
    epoch: u64,
    graph: &JobGraph,
) -> exchange::AttemptPlan {
    let tasks = plan.tasks.iter().enumerate().map(|(position, task)| exchange::TaskPorts {
        task: position as u32,
        gate: task.gate.as_ref().map(|gate| exchange::GatePlan {
            name: gate.name.clone(),
            channels: gate.channels.iter().map(channel).collect(),
        }),
        partitions: task.partitions.iter().map(|partition| self::partition(partition, graph)).collect(),
    });
    let peers: BTreeMap<u64, _> =
        plan.peers.iter().map(|(peer, address)| (peer.taskmanager, *address)).collect();
    exchange::AttemptPlan {
        job: prepare.job.0,
        epoch,
        attempt: prepare.attempt,
        record_max: prepare.record_max.min(rpc::limits::RECORD_BYTES_MAX),
        tasks: tasks.collect(),
        peers,
    }
}

fn partition(partition: &rpc::PartitionPlan, graph: &JobGraph) -> exchange::PartitionPlan {
    let edge = graph.edges.get(partition.edge as usize);
    exchange::PartitionPlan {
        name: partition.name.clone(),
        broadcast: edge.is_some_and(|edge| edge.partitioner == Partitioner::Broadcast),
        channels: partition.channels.iter().map(channel).collect(),
    }
}

fn channel(channel: &rpc::ChannelPlan) -> exchange::ChannelPlan {
    exchange::ChannelPlan {
        channel: channel.channel,
        peer: exchange::SlotId { taskmanager: channel.peer.taskmanager, slot: channel.peer.slot },
        input: channel.input,
        schema: channel.schema,
    }
}

/// A task's name in the slot.
pub(super) fn task_id(task: rpc::TaskId) -> slot::TaskId {
    slot::TaskId { vertex: task.vertex, subtask: task.subtask }
}

/// A task's name on the wire.
pub(super) fn wire_task(task: slot::TaskId) -> rpc::TaskId {
    rpc::TaskId { vertex: task.vertex, subtask: task.subtask }
}

/// A task's state on the wire.
pub(super) fn wire_state(state: slot::TaskState) -> rpc::TaskState {
    match state {
        slot::TaskState::Created => rpc::TaskState::Created,
        slot::TaskState::Scheduled => rpc::TaskState::Scheduled,
        slot::TaskState::Deploying => rpc::TaskState::Deploying,
        slot::TaskState::Initializing => rpc::TaskState::Initializing,
        slot::TaskState::Running => rpc::TaskState::Running,
        slot::TaskState::Finished => rpc::TaskState::Finished,
        slot::TaskState::Canceling => rpc::TaskState::Canceling,
        slot::TaskState::Canceled => rpc::TaskState::Canceled,
        slot::TaskState::Failed => rpc::TaskState::Failed,
    }
}

/// A snapshot on the wire.
pub(super) fn wire_snapshot(snapshot: slot::TaskSnapshot) -> rpc::TaskSnapshot {
    rpc::TaskSnapshot {
        operators: snapshot.operators.into_iter().map(wire_operator).collect(),
        finished: snapshot.finished,
        alignment_ns: snapshot.alignment_ns,
        bytes: snapshot.bytes,
    }
}

fn wire_operator(operator: slot::OperatorSnapshot) -> rpc::OperatorSnapshot {
    let groups = operator.groups.into_iter().map(|slice| rpc::GroupSlice {
        group: slice.group,
        offset: slice.offset,
        len: slice.len,
        hash: slice.hash,
    });
    let committables = operator.committables.into_iter().map(|file| rpc::Committable {
        pending: file.pending,
        target: file.target,
        len: file.len,
        hash: file.hash,
    });
    rpc::OperatorSnapshot {
        operator: operator.operator,
        inline: operator.inline,
        file: operator.file.map(|FileReceipt { path, len, hash }| rpc::FileReceipt { path, len, hash }),
        groups: groups.collect(),
        committables: committables.collect(),
        schema: operator.schema,
    }
}

/// A failure on the wire, with what it means for the job: whether trying again can help.
pub(super) fn wire_fault(kind: slot::FailureKind, cause: String) -> rpc::Fault {
    let kind = match kind {
        slot::FailureKind::Link => rpc::FaultKind::Link,
        slot::FailureKind::Resources => rpc::FaultKind::Resources,
        slot::FailureKind::Task(fault) => match fault {
            // The same input meets the same code, and the same plan, again. Heap that leaked is free after a restart.
            Fault::Data | Fault::FanOut | Fault::Output | Fault::TooLarge | Fault::Memory | Fault::Setup => {
                rpc::FaultKind::Permanent
            }
            // A file that is missing or cannot be read: waiting does not make it appear.
            Fault::Input => rpc::FaultKind::Permanent,
            Fault::Sink | Fault::Files if is_permanent(&cause) => rpc::FaultKind::Permanent,
            Fault::State => rpc::FaultKind::State,
            _ => rpc::FaultKind::Task,
        },
    };
    rpc::Fault { kind, cause: rpc::limits::clip(cause) }
}
