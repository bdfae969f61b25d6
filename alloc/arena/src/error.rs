//! What can go wrong while an arena is being mapped. Stateless; afterwards nothing here can happen any more.
//!
//! Misuse of a handle (wrong arena, released before, wrong state) is no error value: it is a bug of this process and
//! panics where it is found.

use crate::limits;

/// Why an arena could not be mapped. All numbers are bytes unless named otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArenaError {
    /// The configured segment size is not a power of two within the bounds.
    #[error(
        "configuration: segment size {found} bytes is not a power of two from {} to {} bytes; use 32768 unless measured otherwise",
        limits::SEGMENT_BYTES_MIN,
        limits::SEGMENT_BYTES_MAX
    )]
    SegmentSize {
        /// The refused size.
        found: u32,
    },
    /// No shard, or more shards than slots can exist.
    #[error("configuration: {found} shards, expected 1 to {}; give one shard per slot", limits::SHARDS_MAX)]
    Shards {
        /// Shards asked for.
        found: usize,
    },
    /// A shard without a segment.
    #[error("configuration: shard {shard} has no segments; give each slot at least one")]
    EmptyShard {
        /// Position of the shard in the configuration.
        shard: usize,
    },
    /// A shard larger than the kernel registers as one buffer.
    #[error(
        "configuration: shard {shard} has {found} bytes, at most {} fit one registered buffer; use more slots or less network memory",
        limits::SHARD_BYTES_MAX
    )]
    ShardTooLarge {
        /// Position of the shard in the configuration.
        shard: usize,
        /// Its size.
        found: u64,
    },
    /// All arena numbers of this process are taken.
    #[error(
        "this process: all {} arena numbers are taken or were lost with segments outstanding; reuse arenas instead of mapping new ones",
        limits::ARENAS_MAX
    )]
    TooManyArenas,
    /// The operating system refused the mapping.
    #[error(
        "operating system: mapping {bytes} bytes failed in {call} (errno {errno}); lower the network memory or raise the memory limit"
    )]
    Map {
        /// Size of the mapping.
        bytes: usize,
        /// The call that failed.
        call: &'static str,
        /// What the call reported.
        errno: i32,
    },
    /// The operating system refused a memory file that peers could read.
    #[error(
        "operating system: making a memory file of {bytes} bytes to share failed in {call} (errno {errno}); use a kernel of 5.1 or newer, or the transport tcp"
    )]
    Share {
        /// Size of the file.
        bytes: usize,
        /// The call that failed.
        call: &'static str,
        /// What the call reported.
        errno: i32,
    },
}
