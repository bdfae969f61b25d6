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

/// Descriptors of any process besides those of its slots: the standard streams, listening sockets, the connection between
/// TaskManager and JobManager, the wake-ups of each thread's event loop, files that are read.
pub const DESCRIPTORS_LEAST: u64 = 64;

/// Descriptors of a slot besides connections and files: its ring or its epoll, the bell, the sleep's timer, and as many
/// for connections that begin or end.
pub const DESCRIPTORS_PER_SLOT: u64 = 8;

/// Files that a slot of an ordinary job has open at once: one for each buffer it may fill.
pub const FILES_PER_SLOT: u64 = tidegate_taskmanager::limits::FILE_BUFFERS_PER_SLOT as u64;

/// Descriptors that a JobManager should be allowed: a few hundred TaskManagers and clients, and its files.
pub const DESCRIPTORS_JOBMANAGER: u64 = 512;

/// Longest tick of a clock for timers of milliseconds.
pub const CLOCK_TICK_MAX_NS: u64 = 1_000_000;

const _: () = assert!(DESCRIPTORS_LEAST < DESCRIPTORS_JOBMANAGER);
const _: () = assert!(POLL_INTERVAL.as_millis() < REQUEST_TIMEOUT.as_millis());
const _: () = assert!(REQUEST_TIMEOUT.as_millis() < RECONNECT_MAX.as_millis());
const _: () = assert!(CANCEL_MAX.as_millis() > tidegate_jobmanager::limits::CANCEL_TIMEOUT_MS as u128);
const _: () = assert!(CHECKPOINT_INTERVAL_MIN.as_millis() < CHECKPOINT_INTERVAL_MAX.as_millis());

/// Fewest segments of a slot of `run` that nobody configured: 8 MiB of 32 KiB each, enough for any job to flow.
pub const SEGMENTS_MIN: u32 = 256;
