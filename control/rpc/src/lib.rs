//! What a JobManager and a TaskManager say to each other, and the gRPC stream that carries it.
//!
//! One TaskManager holds one connection: it dials, opens the bidirectional method
//! `/tidegate.Control/Connect` and sends [`Register`] first. From then on both sides send whenever they
//! have something to say. Order within a direction is the order of sending; nothing is answered twice and
//! nothing is retried: when the stream ends, both sides forget what was under way and start anew.
//!
//! Reading order: [`ids`], [`messages`], [`deployment`], [`snapshot`], [`metrics`], [`latency`], [`memory`], then [`envelope`] (the
//! bytes), [`codec`], [`client`] and [`server`] (the shells). Limits are in [`limits`].
//!
//! Inequalities: an encoded message is at most [`limits::MESSAGE_BYTES_MAX`]; a message of an epoch older
//! than one already seen takes no effect ([`ids::Fence`]); the protocol version of both ends is equal.
#![forbid(unsafe_code)]

mod caught;
pub mod client;
pub mod codec;
pub mod deployment;
pub mod envelope;
pub mod ids;
pub mod latency;
pub mod limits;
pub mod memory;
pub mod messages;
pub mod metrics;
pub mod server;
pub mod snapshot;

pub use caught::caught;
pub use client::{ConnectError, Connection, Stranger, connect};
pub use deployment::{
    ChannelPlan, GatePlan, OperatorRestore, PartitionPlan, Prepare, SlotPlan, StateReference, TaskPlan,
};
pub use envelope::{Envelope, FrameError};
pub use ids::{ClusterId, Fence, JobId, SlotId, StaleEpoch, TaskId};
pub use latency::{EdgeLatency, LatencyReport, Stage};
pub use memory::{Level, MemoryPlan, MemoryUse, SegmentsHeld, SlotMemory};
pub use messages::{
    Fault, FaultKind, HeldSlot, Refusal, Register, Registered, TaskState, ToJobManager, ToTaskManager,
};
pub use metrics::{Cause, DriverCounters, DriverReport, Heartbeat, HeldUp, Rates, SlotMetrics, TaskMetrics};
pub use snapshot::{Committable, FileReceipt, GroupSlice, OperatorSnapshot, TaskSnapshot};
