//! Every named bound of the connectors, with its reason. Nothing here owns state.

/// The most bytes of whole lines in one block, and so the longest line. A quarter of a default segment, so that a block
/// and its header always fit one, and about eighty rows of flight data: enough to make the cost of a block vanish.
pub const BLOCK_BYTES_MAX: usize = 8 * 1024;

/// The fewest bytes a block may be limited to; below, every block would be one line and its record mostly overhead.
pub const BLOCK_BYTES_MIN: usize = 64;

/// Bytes asked of the operating system (or the decompressor) at once.
pub const READ_BYTES: usize = 256 * 1024;

/// Blocks handed from the reading thread to the slot at once. With `POOL_BATCHES` of them, read-ahead is under a megabyte.
pub const READ_BLOCKS: usize = 32;

/// How far a line that is too long is followed to tell its size.
pub const LINE_SCAN_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Parts of a second that a source with a rate cuts its blocks to, so that a slow rate is not a burst per block.
pub const BLOCKS_PER_SECOND_MIN: u64 = 100;

/// How much a source with a rate may catch up after it was held up, in nanoseconds. More would turn back-pressure into a
/// burst far above the rate.
pub const CATCH_UP_NS: u64 = 100_000_000;

/// The shortest pause of a source with a rate, in nanoseconds: timers are no finer, and a slot has other tasks.
pub const PAUSE_NS_MIN: u64 = 20_000;

/// Columns of a table, read or written.
pub const COLUMNS_MAX: usize = 4096;

/// Malformed rows that are described one by one; further ones are only counted.
pub const MALFORMED_REPORTED_MAX: u64 = 10;

/// How much of a malformed value is quoted in an error, in characters.
pub const QUOTED_CHARS_MAX: usize = 40;

/// Part files of one sink instance that wait for a checkpoint to complete. One is made per checkpoint, so this many
/// checkpoints in a row were aborted.
pub const PARTS_WAITING_MAX: usize = 1024;

const _: () = assert!(BLOCK_BYTES_MIN <= BLOCK_BYTES_MAX);
const _: () =
    assert!(READ_BYTES >= 2 * BLOCK_BYTES_MAX, "after moving the rest to the front there is room to read");
const _: () = assert!(READ_BLOCKS <= crate::limits::POOL_BATCH_ITEMS, "a hand-over fits one batch");
const _: () = assert!(BLOCK_BYTES_MAX <= crate::limits::SINK_ITEM_MAX, "a line that was read can be written");
