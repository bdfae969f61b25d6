//! Every bound of this crate, with its reason, and how the bounds relate.

/// Threads that may be registered at once: slots, and a few dozen others.
pub const THREADS_MAX: usize = 4096;
/// Smallest single allocation that is held against what the process has left: below it, the tasks' budgets and the
/// overhead of the plan are finer than the question is cheap (three system calls).
pub const LARGE_ALLOCATION_MIN: usize = 4 << 20;
/// Longest text that is looked at as a size; longer is refused before anything is parsed.
pub const SIZE_TEXT_BYTES_MAX: usize = 128;
/// Deepest control group that is looked at on the way to the root.
pub const CGROUP_DEPTH_MAX: usize = 64;

/// Longest text of one value of a configuration.
pub const SETTING_TEXT_BYTES_MAX: usize = 4 << 10;
/// Most values of one configuration, known or not; the reference has a few hundred keys in all.
pub const SETTINGS_MAX: usize = 4096;
/// Largest configuration file.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of maps in a configuration file.
pub const FILE_DEPTH_MAX: usize = 32;
/// Most letters by which a known key may differ from an unknown one to be offered as what was meant.
pub const NEAREST_DISTANCE_MAX: usize = 8;
/// Smallest network buffer, as for Flink: a page.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;
/// Largest network buffer of a native process: what the arena accepts.
pub const NATIVE_SEGMENT_BYTES_MAX: u64 = 1 << 20;
/// Most slots that a native plan is made for; each is a thread with a ring and a shard of its own.
pub const NATIVE_SLOTS_MAX: u64 = 64;
/// Most links of a slot that a native plan is made for: the connections one ring can have.
pub const NATIVE_LINKS_MAX: u64 = 4096;
/// Most network memory of a native slot: the kernel's bound on one registered buffer.
pub const NATIVE_SHARD_BYTES_MAX: u64 = 1 << 30;
/// Largest record of a native slot: what the wire carries in slices.
pub const NATIVE_RECORD_BYTES_MAX: u64 = 16 << 20;
/// What a format puts around a record of the largest size: lengths, roots, and the key of a keyed one.
pub const NATIVE_RECORD_FRAME_BYTES: u64 = 4 << 10;
/// The largest record is this part of a slot's network memory unless configured: a job with a dozen edges sets less than a
/// fifth of the slot aside for records that may never come.
pub const RECORD_SHARE: u64 = 64;
/// Segments that the smallest exchange between two slots needs: 2n+1 of a gate and m+1 of a partition with one channel.
pub const SEGMENTS_PER_EXCHANGE_MIN: u64 = 3 + 2;
/// Most trials in the search for a change that makes a refused plan hold; each takes microseconds.
pub const SEARCH_STEPS_MAX: u32 = 160;
/// Most changes that a refusal offers.
pub const CHANGES_MAX: usize = 4;

const _: () =
    assert!(SIZE_TEXT_BYTES_MAX >= 19 + 1 + 9, "the largest number, a space and the longest unit fit");
const _: () = assert!(SEGMENT_BYTES_MIN.is_power_of_two() && NATIVE_SEGMENT_BYTES_MAX.is_power_of_two());
const _: () = assert!(SEGMENT_BYTES_MIN <= NATIVE_SEGMENT_BYTES_MAX);
const _: () = assert!(NATIVE_SEGMENT_BYTES_MAX <= NATIVE_SHARD_BYTES_MAX);
const _: () = assert!(SETTING_TEXT_BYTES_MAX >= SIZE_TEXT_BYTES_MAX, "a size is refused as a size, by name");
const _: () = assert!(SEARCH_STEPS_MAX >= 2 * 64, "a doubling and a halving search of 63 bits both end");
