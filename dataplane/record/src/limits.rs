//! Every bound of this crate, with its reason, and how they relate. Nothing here owns state.
//!
//! Always true: inline scratch ≤ scratch bound ≤ archive bound < what a signed 32-bit relative pointer reaches.

/// Bytes of the length in front of every archived (not plain) record.
pub const PREFIX_BYTES: u32 = 4;

/// Scratch on the stack of an ordinary write. It holds one resolver per element of the vectors being written, so half a
/// KiB covers vectors of about a hundred strings without touching more of the stack than a call does anyway.
pub const SCRATCH_INLINE_BYTES: usize = 512;

/// Scratch on the stack of the second attempt, for records with long vectors of strings or of vectors. Four bytes an
/// element, so 4096 elements: as many as strings of any length fit a default segment of 32 KiB.
pub const SCRATCH_BYTES_MAX: usize = 16 * 1024;

/// Scratch on the heap for one snapshot value. Snapshots are written outside the record path, and a state value may be
/// far longer than a segment.
pub const SNAPSHOT_SCRATCH_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The longest archive this crate writes or counts. The format's relative pointers are signed 32-bit, so positions must
/// stay below 2 GiB; half of that leaves no arithmetic near the edge.
pub const ARCHIVE_BYTES_MAX: usize = 1 << 30;

/// The largest alignment of a plain record. Segments start on a page, payloads at a cache line within them.
pub const PLAIN_ALIGN_MAX: usize = 64;

const _: () = assert!(SCRATCH_INLINE_BYTES < SCRATCH_BYTES_MAX);
const _: () = assert!(SCRATCH_BYTES_MAX < SNAPSHOT_SCRATCH_BYTES_MAX);
const _: () = assert!(SNAPSHOT_SCRATCH_BYTES_MAX < ARCHIVE_BYTES_MAX);
const _: () = assert!(ARCHIVE_BYTES_MAX + PREFIX_BYTES as usize <= i32::MAX as usize);
const _: () = assert!(PLAIN_ALIGN_MAX.is_power_of_two());

/// Records that are read before the first of them is applied to keyed state: enough for the memory of all to arrive while
/// others are looked up, few enough to read again when a quantum ends among them.
pub const KEYED_BATCH: usize = 32;

/// Plain records of up to so many words of 8 bytes are stored word by word: a cache line. Longer ones are copied as they lie.
pub const WORDS_MAX: usize = 8;
