//! What a heartbeat carries: counters of tasks, slots and their network driver.
//!
//! All counters are totals since the attempt (tasks) or process (slots) began and never fall within it.

use crate::ids::{JobId, TaskId};
use crate::memory::{Level, MemoryUse};
use serde::{Deserialize, Serialize};

/// One heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts the heartbeats of a connection, from 1.
    pub sequence: u64,
    /// Running tasks.
    pub tasks: Vec<TaskMetrics>,
    /// All slots.
    pub slots: Vec<SlotMetrics>,
    /// Heap allocations of the whole process since it started.
    pub heap_allocations: u64,
    /// What it holds of its memory.
    pub memory: MemoryUse,
    /// Connections at its data port that were turned away since it started.
    pub connections_refused: u64,
}

/// Counters of one task.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskMetrics {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
    /// The task.
    pub task: TaskId,
    /// Records read from channels, or emitted by the source operator of a source task.
    pub records_in: u64,
    /// Records written to channels, or given to the sink operator of a sink task.
    pub records_out: u64,
    /// Payload bytes read.
    pub bytes_in: u64,
    /// Payload bytes written.
    pub bytes_out: u64,
    /// Segments read.
    pub buffers_in: u64,
    /// Segments written.
    pub buffers_out: u64,
    /// Heap held, keyed state excepted, in bytes.
    pub heap: Level,
    /// Time spent working, in milliseconds.
    pub busy_ms: u64,
    /// Time of waiting for its turn while it could have worked, in milliseconds: its slot was busy with other tasks.
    pub turn_ms: u64,
    /// Time without input, in milliseconds.
    pub idle_ms: u64,
    /// Time without room in an output, in milliseconds.
    pub backpressured_ms: u64,
    /// The same by cause, in the order of [`Cause::ALL`].
    pub held_up_ms: [u64; Cause::ALL.len()],
    /// Who holds it up now, if it has no room.
    pub held_up: Option<HeldUp>,
    /// How it spent its time lately.
    pub rates: Rates,
    /// Used share of the gate's quota, 0 to 1.
    pub in_pool_usage: f32,
    /// Used share of the partitions' quotas, 0 to 1.
    pub out_pool_usage: f32,
    /// Malformed input lines that were counted and skipped.
    pub malformed: u64,
}

impl TaskMetrics {
    /// Zero counters for a task.
    pub fn zero(job: JobId, attempt: u32, task: TaskId) -> Self {
        TaskMetrics {
            job,
            attempt,
            task,
            records_in: 0,
            records_out: 0,
            bytes_in: 0,
            bytes_out: 0,
            buffers_in: 0,
            buffers_out: 0,
            busy_ms: 0,
            turn_ms: 0,
            idle_ms: 0,
            backpressured_ms: 0,
            held_up_ms: [0; Cause::ALL.len()],
            held_up: None,
            rates: Rates::default(),
            in_pool_usage: 0.0,
            out_pool_usage: 0.0,
            malformed: 0,
            heap: Level::default(),
        }
    }
}

/// What the segments of a task without room wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// Credit: the consumer in another process has no room.
    Credit,
    /// The resume after a barrier: the consumer aligns.
    Barrier,
    /// Their link: they have credit, or are being filled or sent.
    Flush,
    /// The consumer's slot in the same process, which has not read them.
    Cpu,
    /// A free segment of the slot.
    Memory,
}

impl Cause {
    /// All of them.
    pub const ALL: [Cause; 5] = [Cause::Credit, Cause::Barrier, Cause::Flush, Cause::Cpu, Cause::Memory];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Credit => "credit",
            Cause::Barrier => "barrier",
            Cause::Flush => "flush",
            Cause::Cpu => "cpu",
            Cause::Memory => "memory",
        }
    }
}

/// Who holds a task up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldUp {
    /// What its segments wait for.
    pub cause: Cause,
    /// Which of its partitions, in the order of the graph.
    pub partition: u32,
    /// Which channel of it.
    pub channel: u32,
}

/// How a task spent its time, in milliseconds per second: busy, idle and back-pressured are 1000 together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// Neither of the others.
    pub busy: u32,
    /// The part of that in which it waited for its turn.
    pub turn: u32,
    /// Without room in an output.
    pub backpressured: u32,
    /// Waiting for anything else.
    pub idle: u32,
}

/// Counters of one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotMetrics {
    /// Index of the slot.
    pub slot: u32,
    /// Segments in its shard.
    pub segments: u32,
    /// Of these, free now.
    pub segments_free: u32,
    /// Heap allocations of the slot's thread.
    pub heap_allocations: u64,
    /// Payload bytes copied beyond the one serialising store.
    pub payload_bytes_copied: u64,
    /// Counters of its ring.
    pub driver: DriverCounters,
}

/// Counters of a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverCounters {
    /// Send operations.
    pub send_ops: u64,
    /// Receive operations.
    pub receive_ops: u64,
    /// Kernel entries.
    pub enters: u64,
    /// Of the send operations, those from registered memory; what is neither these nor zero-copy ones is plain.
    pub fixed_sends: u64,
    /// Zero-copy sends.
    pub zc_sends: u64,
    /// Zero-copy sends that the kernel copied after all.
    pub zc_copied: u64,
    /// Notifications that the kernel is done with a zero-copy send.
    pub notifications: u64,
    /// Microseconds from those sends to their notifications, summed up.
    pub notification_us: u64,
    /// The longest of them, in microseconds.
    pub notification_us_max: u64,
    /// Bytes sent and received.
    pub bytes: u64,
    /// Of those, the bytes through shared memory.
    pub shared_bytes: u64,
}

/// What drives the network of a TaskManager, reported once at registration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverReport {
    /// Name of the driver, such as `io_uring`.
    pub driver: String,
    /// Rung of the registration ladder and why it was taken.
    pub rung: String,
    /// Send mode in force.
    pub send_mode: String,
    /// Pages of the arena: huge, transparent, 4 KiB.
    pub pages: String,
    /// What is between it and the TaskManagers of its host: `tcp` or `shm`, and why.
    pub transport: String,
}
