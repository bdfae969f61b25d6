//! The named bounds of the JobManager. Nobody else defines one for it.
//!
//! Always: a TaskManager has several chances to be heard before it is given up; a slot that does not close is
//! given up before anybody waits for it a minute.

use tidegate_rpc::limits as rpc;

/// Time between heartbeats, in milliseconds.
pub const HEARTBEAT_INTERVAL_MS_DEFAULT: u64 = 500;

/// Silence after which a TaskManager is given up, in milliseconds.
pub const HEARTBEAT_TIMEOUT_MS_DEFAULT: u64 = 2_000;

/// Time a new connection has to say who it is, in milliseconds.
pub const REGISTER_TIMEOUT_MS: u64 = 5_000;

/// Time the slots of an attempt have to prepare, in milliseconds; restoring large states belongs to it.
pub const PREPARE_TIMEOUT_MS: u64 = 120_000;

/// Time a cancelled slot has to close, in milliseconds; its TaskManager is given up then.
pub const CANCEL_TIMEOUT_MS: u64 = 30_000;

/// Connections that may exist at once, registered or not.
pub const CONNECTIONS_MAX: usize = 4_096;

/// Streams that may wait for the core to look at them.
pub const ACCEPT_QUEUE: usize = 64;

/// Inputs that may wait for the core. Each connection waits with its next message when it is full.
pub const INPUT_QUEUE: usize = 8_192;

/// Operations that may wait for a job's store worker: one of the coordinator and one record.
pub const STORE_QUEUE: usize = 8;

/// Jobs that are not over, at once.
pub const JOBS_ACTIVE_MAX: usize = 256;

/// Jobs that are listed; the oldest finished ones leave the list first (their files stay).
pub const JOBS_LISTED_MAX: usize = 1_024;

/// Exceptions kept per job.
pub const EXCEPTIONS_MAX: usize = 16;

/// Bytes of a request body.
pub const REQUEST_BODY_BYTES_MAX: usize = 1 << 20;

/// Time that a request may take, reading its body and planning its job included, in milliseconds.
pub const REQUEST_TIMEOUT_MS: u64 = 30_000;

/// Entries of an output directory that are looked at, before a job may write there, for files of an earlier one. What is
/// missed then is still refused when the first file is committed.
pub const OUTPUT_SCAN_MAX: usize = 10_000;

/// Jobs that are over and whose latencies are kept; a job of ten edges with ten subtasks has some 500 KiB of them.
pub const LATENCY_JOBS_MAX: usize = 16;

/// Latency histograms in one answer of `/metrics`, of 27 lines each. Where there are more, the subtasks of an edge are one.
pub const HISTOGRAM_SERIES_MAX: usize = 2_000;

/// Points of a percentile curve.
pub const CURVE_POINTS_MAX: usize = 256;

/// Arguments of a job.
pub const ARGS_MAX: usize = 1_024;

/// Longest checkpoint interval, pause or timeout in a request, in milliseconds: a year.
pub const REQUEST_MS_MAX: u64 = 365 * 24 * 3_600 * 1_000;

/// Pause before a job record that could not be written is tried again, in milliseconds.
pub const SAVE_RETRY_MS: u64 = 1_000;

/// Time that store operations under way have to end at shutdown, in milliseconds.
pub const DRAIN_TIMEOUT_MS: u64 = 10_000;

/// Time that a server has to end its connections at shutdown, in milliseconds.
pub const SERVER_STOP_MS: u64 = 1_000;

/// Longest time without looking at the clock, in milliseconds.
pub const TICK_MS_MAX: u64 = 1_000;

/// How much later than [`TICK_MS_MAX`] the core may get to work, in milliseconds, before it takes itself for the one
/// that was silent and gives every TaskManager its time anew.
pub const LATE_MS_MAX: u64 = 250;

const _: () =
    assert!(TICK_MS_MAX + LATE_MS_MAX + HEARTBEAT_INTERVAL_MS_DEFAULT < HEARTBEAT_TIMEOUT_MS_DEFAULT);
// Both ends notice the silence of the other in the same time.
const _: () = assert!(rpc::KEEPALIVE_INTERVAL_MS + rpc::KEEPALIVE_TIMEOUT_MS <= HEARTBEAT_TIMEOUT_MS_DEFAULT);
const _: () = assert!(HEARTBEAT_TIMEOUT_MS_DEFAULT >= 3 * HEARTBEAT_INTERVAL_MS_DEFAULT);
const _: () = assert!(CANCEL_TIMEOUT_MS < 60_000 && CANCEL_TIMEOUT_MS > HEARTBEAT_TIMEOUT_MS_DEFAULT);
const _: () = assert!(INPUT_QUEUE >= rpc::QUEUE_MESSAGES_MAX);
const _: () = assert!(JOBS_ACTIVE_MAX <= JOBS_LISTED_MAX && STORE_QUEUE >= 2);
