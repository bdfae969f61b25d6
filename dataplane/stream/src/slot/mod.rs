//! The slot: one thread that runs tasks in turns and does its own network I/O.
//!
//! `message` is what the control side and a slot say to each other, `snapshot` what tasks hand in, `mailbox` the bounded
//! queue in between, `runner` the loop. All state belongs to the runner.

mod board;
pub mod config;
mod deploy;
pub mod mailbox;
pub mod message;
pub mod runner;
pub mod snapshot;
mod spin;

pub use board::Board;
pub use config::{Events, SlotConfig, Spin};
pub use mailbox::{MailboxError, SlotMailbox};
pub use message::{
    AttemptId, Deployment, EdgeLatency, Failure, FailureKind, HeldUp, Rates, SlotCommand, SlotEvent,
    SlotMetrics, TaskDeployment, TaskId, TaskMetrics, TaskState,
};
pub use runner::SlotRunner;
pub use snapshot::{GroupSlice, OperatorRestore, OperatorSnapshot, StatePayload, TaskRestore, TaskSnapshot};
