//! Every bound of this crate, with its reason, and how the bounds relate.
//!
//! Nothing here changes at run time. A bound that is reached is either an [`ArenaError`](crate::ArenaError) when the
//! arena is mapped, or `None` or a refusal later; never an allocation.

/// Smallest segment: one page, so that a segment can be the unit of direct file I/O.
pub const SEGMENT_BYTES_MIN: u32 = 4 << 10;
/// Largest segment: half a huge page, so that no segment ever straddles one.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 20;
/// Default segment, the size Flink uses too.
pub const SEGMENT_BYTES_DEFAULT: u32 = 32 << 10;
/// Start of a shard, and the size of an explicit or transparent huge page.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Smallest page of the hosts we support; shards are touched in this stride where the kernel cannot populate.
pub const PAGE_BYTES: usize = 4 << 10;
/// Most bytes in one shard: the kernel refuses a larger entry in a ring's table of registered buffers.
pub const SHARD_BYTES_MAX: usize = 1 << 30;
/// Most shards in one arena: one per slot of a process, and a slot is a thread.
pub const SHARDS_MAX: usize = 1 << 10;
/// Most arenas alive (or lost with segments outstanding) in one process: what fits the handle's `u16`.
pub const ARENAS_MAX: u32 = 1 << 16;
/// Most references to one segment. A broadcast takes one per channel; beyond a million something leaks.
pub const REFERENCES_MAX: u32 = 1 << 20;
/// Explicit huge pages are used only if rounding the shards up to whole ones wastes at most a quarter of the arena.
pub const HUGE_WASTE_DIVISOR: usize = 4;
/// Most items a bounded single-producer single-consumer queue may hold.
pub const QUEUE_CAPACITY_MAX: u32 = 1 << 20;
/// Atomics written by different threads lie this far apart (adjacent cache lines are fetched in pairs).
pub const CONTENTION_BYTES: usize = 128;

/// Most bytes of a peer's arena that are mapped: that of all its shards. Address space only, until bytes are read.
pub const FOREIGN_BYTES_MAX: u64 = (SHARDS_MAX * SHARD_BYTES_MAX) as u64;
/// Ranges of a peer's arena that have pages, at most: its shards may have holes between them.
pub const FOREIGN_RANGES_MAX: usize = SHARDS_MAX;
/// Bytes from which a copy out of a peer's arena is one string instruction: below, starting it costs more than the words.
pub const STRING_BYTES_MIN: usize = 256;
/// Words of a page of [`shared::Words`](crate::shared::Words): whoever has more to say needs another design.
pub const WORDS: usize = PAGE_BYTES / size_of::<u64>();

/// Segments that the largest arena could have.
const SEGMENTS_MAX: usize = SHARDS_MAX * (SHARD_BYTES_MAX / SEGMENT_BYTES_MIN as usize);

const _: () = assert!(SEGMENT_BYTES_MIN.is_power_of_two() && SEGMENT_BYTES_MAX.is_power_of_two());
const _: () = assert!(SEGMENT_BYTES_MIN as usize >= PAGE_BYTES, "direct I/O needs whole pages");
const _: () =
    assert!(SEGMENT_BYTES_MAX as usize <= HUGE_PAGE_BYTES / 2, "a segment never straddles a huge page");
const _: () =
    assert!(SHARD_BYTES_MAX.is_multiple_of(HUGE_PAGE_BYTES), "the next shard starts on a huge page");
const _: () = assert!(SEGMENTS_MAX < u32::MAX as usize, "an index fits u32, and u32::MAX means none");
const _: () = assert!(SHARDS_MAX <= u16::MAX as usize, "a shard number fits the segment's u16");
const _: () =
    assert!(REFERENCES_MAX < u32::MAX / 2, "a reference count cannot wrap before the assertion sees it");
const _: () =
    assert!(QUEUE_CAPACITY_MAX <= u32::MAX / 2, "queue positions wrap at u32 and are compared by distance");
