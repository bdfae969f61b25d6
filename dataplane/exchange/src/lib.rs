//! Partitions, gates and links: how records move between tasks.
//!
//! An [`Exchange`] belongs to one slot thread. It owns the slot's ring, its shard of the arena and the [`Ports`]: the
//! partitions its tasks write to and the gates they read from. Tasks see only `Ports`; nothing in it knows the ring.
//!
//! The way of a record: [`Output::write`] serialises it into the filling segment of its channel ([`partition`]). When the
//! channel's link is ready to send and the channel holds credit, the segment is sealed and leaves in a train ([`link`]). The
//! consumer's kernel writes it into a segment that was granted to the channel; [`Input::poll`] hands it to the task
//! ([`gate`]); the last record read, [`Input::release`] frees it and credit is announced. Inside a process the same segment
//! changes hands instead ([`local`]).
//!
//! Nothing here grows after [`Exchange::prepare`]: every queue has the capacity that its quota needs.
//!
//! The crate works without the control plane: see `examples/two_processes.rs`.
#![forbid(unsafe_code)]

pub mod endpoint;
mod error;
mod event;
mod exchange;
mod gate;
pub mod latency;
pub mod limits;
mod link;
mod local;
mod measure;
mod partition;
mod plan;
mod ports;
mod ready;
mod report;
#[cfg(feature = "sim")]
pub mod sim;
mod turned_away;

pub use endpoint::{Endpoint, Incoming};
pub use error::{EmitError, EndpointError, LinkError, LinkFault, PrepareError};
pub use event::Event;
pub use exchange::{Exchange, ExchangeConfig, Prepared};
pub use gate::{Buffer, GateItem, Input};
pub use latency::{LatencyFeed, Stage};
pub use local::LocalHub;
pub use partition::{Cause, Holdup, Output};
pub use plan::{
    AttemptPlan, ChannelPlan, GateId, GatePlan, PartitionId, PartitionPlan, SegmentNeed, SlotId, TaskIds,
    TaskPorts, segments_min,
};
pub use ports::Ports;
pub use report::{ChannelCounters, Counters, GateReport, PartitionReport, PortUsage};
pub use tidegate_plant as plant;
pub use turned_away::{Cause as TurnedAwayBecause, TurnedAway, Watcher};
