//! The TaskManager: slot threads that run tasks, a files thread that writes, a control thread that listens.
//!
//! [`TaskManager::start`] maps the arena, starts the threads and returns; [`RunningTaskManager`] tells it to stop and
//! waits for its end. What is decided is decided by [`agent`], without I/O; the rest are shells around it.
//!
//! Reading order: [`agent`] (and its `translate`), `control` (the connection, heartbeats), `dial`, `fetch` (state read back),
//! `driver`, `transport`, `slots` and `metered` (the threads), `memory`, [`files`] (`core`, then `slot`, `uring`, `blocking`). Limits are in [`limits`].
//!
//! Inequalities: threads = slots + files + control + the endpoint's + bounded pools; a slot runs at most one attempt; a
//! TaskManager without a JobManager runs none. Killing it at any moment leaves nothing but files.
#![forbid(unsafe_code)]

pub mod agent;
mod control;
mod dial;
mod driver;
mod fetch;
pub mod files;
mod heartbeat;
mod latency;
mod latency_log;
pub mod limits;
mod memory;
mod metered;
pub mod plan;
mod slots;
mod start;
mod strangers;
mod transport;

pub use control::Ended;
pub use driver::Driver;
#[cfg(feature = "sim")]
pub use fetch::fetch_from;
pub use slots::SlotError;
pub use start::{RunningTaskManager, StartError, TaskManager, TaskManagerConfig};
pub use tidegate_arena::SegmentSize;
pub use tidegate_ring::{Registration, SendMode};
pub use tidegate_stream::slot::Spin;
pub use transport::Transport;
