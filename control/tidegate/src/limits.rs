//! The named bounds of the command line, the client and the demo.

use std::time::Duration;

/// Slots one TaskManager may be asked for: each is a thread with a ring and an arena shard of its own.
pub const SLOTS_MAX: u32 = 64;

/// Shortest time between checkpoints: each writes and syncs a file per stateful operator instance.
pub const CHECKPOINT_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Longest time between checkpoints.
pub const CHECKPOINT_INTERVAL_MAX: Duration = Duration::from_secs(86_400);

/// How long one REST request may take, so that a client never hangs on a JobManager that does not answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest REST answer a client reads: a job with a thousand subtasks per vertex has about 1 MiB of details.
pub const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// How often `--wait` asks for the state of the job.
pub const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How long `--wait` looks for a JobManager that went away before it gives up. A restart takes seconds; a host that
/// comes back takes minutes.
pub const RECONNECT_MAX: Duration = Duration::from_secs(600);

/// How long the demo and `run` give their own processes and threads to come up.
pub const START_MAX: Duration = Duration::from_secs(30);

/// How long `run` and the demo wait for their job to be cancelled when they are interrupted: longer than the JobManager
/// gives slots that hang.
pub const CANCEL_MAX: Duration = Duration::from_secs(40);

/// Time between checkpoints in the demo.
pub const DEMO_CHECKPOINT_INTERVAL: Duration = Duration::from_millis(500);

/// How long the demo waits for a child that was asked to leave before it kills it.
pub const CHILD_STOP_MAX: Duration = Duration::from_secs(10);

const _: () = assert!(POLL_INTERVAL.as_millis() < REQUEST_TIMEOUT.as_millis());
const _: () = assert!(REQUEST_TIMEOUT.as_millis() < RECONNECT_MAX.as_millis());
const _: () = assert!(CANCEL_MAX.as_millis() > tidegate_jobmanager::limits::CANCEL_TIMEOUT_MS as u128);
const _: () = assert!(CHECKPOINT_INTERVAL_MIN.as_millis() < CHECKPOINT_INTERVAL_MAX.as_millis());
