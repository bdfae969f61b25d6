//! Memory as both sides talk about it: a TaskManager's plan, what a slot of it may hold, and what is held.
//!
//! Plain data; sizes are bytes. Always: what a slot is told are final sizes, made by the JobManager from the plan that the
//! TaskManager registered with; a TaskManager derives nothing.

use serde::{Deserialize, Serialize};

/// The plan a TaskManager runs by. The names are those of Flink's REST API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPlan {
    /// Heap of the runtime.
    pub framework_heap: u64,
    /// Heap of user code.
    pub task_heap: u64,
    /// Rings, file buffers, tables of links.
    pub framework_off_heap: u64,
    /// What user code may reserve outside of the heap.
    pub task_off_heap: u64,
    /// The arena.
    pub network: u64,
    /// Keyed state, and what operators reserve.
    pub managed: u64,
    /// Everything else.
    pub overhead: u64,
    /// The six above it.
    pub total_flink: u64,
    /// All of it.
    pub total_process: u64,
    /// How the managed memory of a slot is divided, as `taskmanager.memory.managed.consumer-weights` has it.
    pub managed_weights: String,
}

/// What the tasks of one slot may hold together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotMemory {
    /// Heap, keyed state excepted.
    pub task_heap: u64,
    /// Reserved by user code outside of the heap.
    pub task_off_heap: u64,
    /// Managed memory for keyed state.
    pub state: u64,
    /// Managed memory for operators that asked for some.
    pub operators: u64,
}

/// Bytes held, and the most that was held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Level {
    /// Now.
    pub used: u64,
    /// At most, since the process started.
    pub peak: u64,
}

impl Level {
    /// Takes in a new reading.
    pub fn seen(&mut self, used: u64) {
        *self = Level { used, peak: self.peak.max(used) };
    }
}

/// What a TaskManager holds of its plan. Peaks of the runtime's own parts are the highest of the readings, one for each
/// heartbeat; so is that of all tasks together, but it is never below the peak of one. Those of state, reservations and the
/// process are exact.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// Heap of the runtime.
    pub framework_heap: Level,
    /// Heap of tasks, keyed state excepted.
    pub task_heap: Level,
    /// Rings as they are mapped, staging and file buffers as they were made, tables of links as stated for each.
    pub framework_off_heap: Level,
    /// Reserved by user code outside of the heap.
    pub task_off_heap: Level,
    /// Segments in use; all of them are resident all the time.
    pub network: Level,
    /// Keyed state, and what operators reserved.
    pub managed: Level,
    /// Resident memory that is none of these.
    pub overhead: Level,
    /// Resident memory of the process, by the kernel; zero if it does not tell.
    pub resident: Level,
    /// Who holds segments.
    pub holders: Vec<SegmentsHeld>,
}

/// Segments that one kind of holder has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentsHeld {
    /// The kind: filling, queued, granted, …
    pub holder: String,
    /// How many.
    pub segments: u32,
    /// How long the oldest has been held, in milliseconds.
    pub oldest_ms: u64,
}
