//! The named bounds of checkpointing. Nobody else defines one for it.
//!
//! Always: at least two checkpoints are kept by default, so that an older one exists when the newest is
//! damaged; a retry never outlasts a checkpoint's timeout.

/// Completed checkpoints kept by default. One is enough while nothing is damaged; with three, two can be.
pub const RETAINED_DEFAULT: usize = 3;

/// Most checkpoints that may be configured to be kept; each is scanned at every restore.
pub const RETAINED_MAX: usize = 64;

/// Age at which a pending checkpoint is given up, in milliseconds (Flink's default).
pub const TIMEOUT_MS_DEFAULT: u64 = 10 * 60 * 1000;

/// Consecutive failed checkpoints that a job survives.
pub const TOLERABLE_FAILURES_DEFAULT: u32 = 3;

/// Shortest interval between checkpoints, in milliseconds; below it the coordinator does nothing else.
pub const INTERVAL_MS_MIN: u64 = 10;

/// Largest state an operator may carry inside its acknowledgement, in bytes.
pub const INLINE_STATE_BYTES_MAX: usize = 64 << 10;

/// Largest metadata body, in bytes: 32,768 key groups of 28 bytes for a few hundred operators.
pub const METADATA_BYTES_MAX: usize = 256 << 20;

/// Files that one sink operation names; larger commits are done in batches.
pub const SINK_BATCH_FILES: usize = 256;

/// Tries of a store operation before what it was for is given up.
pub const STORE_TRIES_MAX: u32 = 5;

/// Pause before a store operation is tried again, in milliseconds, times the number of tries so far.
pub const STORE_RETRY_MS: u64 = 200;

/// Rounds of opening an epoch: each lost one means that another leader published or claimed meanwhile.
pub const OPENING_ROUNDS_MAX: u32 = 16;

/// Checkpoints that were never published whose objects are deleted after one restore, the newest first.
pub const DISCARD_MAX: usize = 64;

/// Restores and refused checkpoints that are remembered; the oldest go first. They are part of a job's record,
/// which is written again at every change.
pub const RESTORES_MAX: usize = 256;

/// Finished checkpoints whose statistics are kept for people.
pub const HISTORY_MAX: usize = 10;

/// Bytes read at a time when an object is verified.
pub const VERIFY_CHUNK_BYTES: usize = 1 << 20;

const _: () = assert!(RETAINED_DEFAULT >= 2 && RETAINED_DEFAULT <= RETAINED_MAX);
const _: () =
    assert!(STORE_RETRY_MS * (STORE_TRIES_MAX as u64) * (STORE_TRIES_MAX as u64) < TIMEOUT_MS_DEFAULT);
const _: () = assert!(INLINE_STATE_BYTES_MAX < METADATA_BYTES_MAX);
