//! Every bound of a job graph, with its reason. No state.
//!
//! Always true: channel numbers of any admitted graph fit a `u32` with room for a marker value (asserted below).

/// Largest maximum parallelism, hence most key groups (Flink's bound, so that the arithmetic agrees).
pub const MAX_PARALLELISM_MAX: u32 = 1 << 15;
/// Smallest default for the maximum parallelism (Flink's).
pub const MAX_PARALLELISM_DEFAULT_MIN: u32 = 128;
/// Most vertices of a graph: each is a task in a slot; chains make even large jobs a few dozen.
pub const VERTICES_MAX: usize = 1024;
/// Most edges of a graph.
pub const EDGES_MAX: usize = 4096;
/// Most operators of one chain: they call each other, so this bounds the depth of a stack.
pub const OPERATORS_MAX: usize = 256;
/// Most channels of a job, all edges together; their numbers are below it.
pub const CHANNELS_MAX: u32 = 1 << 30;
/// Most bytes of any name in a graph: names travel in messages, file names and logs.
pub const NAME_BYTES_MAX: usize = 512;

/// Segments a partition must have before its task starts: one that fills, one on its way.
pub const PARTITION_SEGMENTS_MIN: u32 = 2;
/// Segments a gate must have before its task starts, if data of other TaskManagers enters it: one that is read, one that
/// arrives. A gate with local channels only needs none, it reads the producers' segments in place.
pub const GATE_SEGMENTS_MIN: u32 = 2;
/// Segments each end of a remote link must have: staging for what comes in, a manifest for what goes out.
pub const LINK_SEGMENTS: u32 = 2;
/// Segments that a partition would like beyond one per channel: one train's payloads on their way, another's filling.
pub const PARTITION_SEGMENTS_AHEAD: u32 = 32;
/// Segments that a gate would like for each remote channel: one that is read, one that arrives.
pub const GATE_SEGMENTS_PER_CHANNEL: u32 = 2;
/// Segments that a gate would like beyond those of its remote channels: two trains' payloads.
pub const GATE_SEGMENTS_AHEAD: u32 = 32;

const _: () = assert!(CHANNELS_MAX < u32::MAX, "u32::MAX marks a whole link on the wire, never a channel");
const _: () =
    assert!(MAX_PARALLELISM_MAX.is_power_of_two() && MAX_PARALLELISM_DEFAULT_MIN <= MAX_PARALLELISM_MAX);
const _: () = assert!(
    MAX_PARALLELISM_MAX as u64 * MAX_PARALLELISM_MAX as u64 <= CHANNELS_MAX as u64,
    "one edge at full parallelism on both sides is still numbered"
);
