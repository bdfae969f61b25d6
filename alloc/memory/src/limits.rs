//! Every bound of this crate, with its reason, and how the bounds relate.

/// Threads that may be registered at once: slots, and a few dozen others.
pub const THREADS_MAX: usize = 4096;
/// Labels that allocations are attributed to.
pub const LABELS: usize = 2;
/// Longest text that is looked at as a size; longer is refused before anything is parsed.
pub const SIZE_TEXT_BYTES_MAX: usize = 128;
/// Deepest control group that is looked at on the way to the root.
pub const CGROUP_DEPTH_MAX: usize = 64;

const _: () =
    assert!(SIZE_TEXT_BYTES_MAX >= 19 + 1 + 9, "the largest number, a space and the longest unit fit");
