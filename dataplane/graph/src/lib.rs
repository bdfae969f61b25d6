//! What every process knows of a job before a record moves: its graph, its key groups, its channels and its slots.
//!
//! It is for the job API, which builds graphs, and for the control plane, which checks, places and deploys them. It owns
//! no state: a [`JobGraph`] is plain data, everything else is a function of it. No data-plane crate stands below it.
//!
//! Always true: the same graph gives the same fingerprint, channel numbers and placement in every process. For every
//! vertex of a valid graph `1 <= parallelism <= max_parallelism`, and each key group has one owner among its subtasks.
#![forbid(unsafe_code)]

mod channels;
mod fingerprint;
mod job;
mod key_group;
mod limits;
mod need;
mod output;
mod placement;
mod validate;

pub use channels::{Channel, Gate, Partition};
pub use job::{Edge, JobGraph, Operator, OperatorKind, Partitioner, Subtask, Vertex};
pub use key_group::{default_max_parallelism, fold_hash, group_range, key_group, murmur, owner};
pub use limits::{
    CHANNELS_MAX, EDGES_MAX, GATE_SEGMENTS_AHEAD, GATE_SEGMENTS_MIN, GATE_SEGMENTS_PER_CHANNEL,
    LINK_SEGMENTS, MAX_PARALLELISM_DEFAULT_MIN, MAX_PARALLELISM_MAX, NAME_BYTES_MAX, OPERATORS_MAX,
    PARTITION_SEGMENTS_AHEAD, PARTITION_SEGMENTS_MIN, VERTICES_MAX,
};
pub use need::{EdgeNeed, Segments, SlotNeed, segment_need};
pub use output::{PENDING, PendingFolder, is_plain_path, normal_path};
pub use placement::{GroupNeed, Placement, PlacementError, SlotId, SlotOffer, place};
pub use validate::GraphError;
