//! What a slot needs to run its tasks of one attempt: channels, peers, and where its state lies.
//!
//! Code never travels: both ends build the same graph from `job_name`, `args` and `parallelism`, and compare
//! fingerprints. State never travels here either: references name objects in the checkpoint store, and the
//! TaskManager reads and verifies them before it answers `Prepared`.
//!
//! Always: every channel number is unique in the job; a gate's channel has its twin in exactly one partition.

use crate::ids::{JobId, SlotId, TaskId};
use crate::memory::SlotMemory;
use crate::snapshot::{FileReceipt, GroupSlice};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// First phase of deployment, for all slots that one TaskManager gives to an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prepare {
    /// The job.
    pub job: JobId,
    /// Name under which the binary knows the job.
    pub job_name: String,
    /// The job's own arguments.
    pub args: Vec<String>,
    /// Parallelism asked for.
    pub parallelism: u32,
    /// Fingerprint of the graph that the JobManager built.
    pub graph_fingerprint: u64,
    /// Number of the attempt, larger than any earlier one of this job under any epoch.
    pub attempt: u32,
    /// Checkpoint that is restored, if any.
    pub restored: Option<u64>,
    /// Smallest id that a checkpoint of this attempt can have.
    pub first_checkpoint: u64,
    /// Directory of the job's checkpoints, relative to the store: state objects of checkpoint `n` go to
    /// `<directory>/chk-<n>/<attempt>-<vertex>-<subtask>-<operator as 16 hex>.state`.
    pub checkpoints: String,
    /// Bytes of the largest record, the same on all slots; 0 if records have to fit a segment.
    pub record_max: u32,
    /// The slots.
    pub slots: Vec<SlotPlan>,
}

/// The tasks of one slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlotPlan {
    /// Index of the slot in this TaskManager.
    pub slot: u32,
    /// Its tasks, sources first (the order of the graph).
    pub tasks: Vec<TaskPlan>,
    /// Data addresses of the slots that its channels lead to, other slots of this process included.
    pub peers: BTreeMap<SlotId, SocketAddr>,
    /// What its tasks may hold together.
    pub memory: SlotMemory,
}

/// One task: its channels and what it restores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskPlan {
    /// Vertex and subtask.
    pub id: TaskId,
    /// Number of the task, unique in the job (subtasks of earlier vertices are counted before it).
    pub task: u32,
    /// All input channels; none for a source.
    pub gate: Option<GatePlan>,
    /// One for each outgoing edge, in the order of the graph's edges.
    pub partitions: Vec<PartitionPlan>,
    /// State by operator; empty when nothing is restored.
    pub restore: Vec<OperatorRestore>,
    /// It had said everything when the checkpoint was taken (`TaskSnapshot::finished`): a source is not read again.
    pub finished: bool,
}

/// All channels into a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatePlan {
    /// Name for people.
    pub name: String,
    /// The channels, by edge and then by producer.
    pub channels: Vec<ChannelPlan>,
}

/// All channels of one outgoing edge of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionPlan {
    /// Name of the edge, for people.
    pub name: String,
    /// Index of the edge in the graph.
    pub edge: u32,
    /// The channels, by consumer subtask.
    pub channels: Vec<ChannelPlan>,
}

/// One producer subtask to one consumer subtask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelPlan {
    /// Number of the channel, unique in the job.
    pub channel: u32,
    /// The slot at the other end.
    pub peer: SlotId,
    /// Which input of the consumer it feeds (union, join).
    pub input: u8,
    /// Fingerprint of the record schema.
    pub schema: u64,
}

/// What one operator of a task restores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorRestore {
    /// Stable id of the operator.
    pub operator: u64,
    /// One reference for each subtask of the checkpoint whose state this task inherits a part of.
    pub states: Vec<StateReference>,
}

/// Where a part of an operator's state lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateReference {
    /// Subtask that wrote it.
    pub subtask: u32,
    /// State that was small enough to travel (source positions).
    pub inline: Vec<u8>,
    /// The object, if there is one; length and hash are of the whole object.
    pub file: Option<FileReceipt>,
    /// The key groups of the object that this task owns now, sorted by group; each slice has its own hash.
    pub groups: Vec<GroupSlice>,
    /// Fingerprint of the state's schema.
    pub schema: u64,
}
