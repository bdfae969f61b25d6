//! What a native process needs besides the heaps of its users: the costs that its defaults are stated from. Stateless.
//!
//! The constants are inputs, because they belong to other crates (a ring's queues, the files thread's buffers) that this
//! one does not know; the defaults say what they were taken from. Measured (`sizing` in the end-to-end tests prints it): a
//! TaskManager has 9 MiB of its binary resident, at most 72 KiB of a stack, and 8.7 KiB for a link. Seen once in a TaskManager
//! of two slots and 256 MiB: idle, its allocator had 26 MiB for 1 MiB in use; with 34 MiB of keyed state that had grown, 23 MiB
//! more than the state. The defaults are above what was measured, because jobs bring code and functions of their own. What is
//! called an estimate was not measured.
//!
//! Always: a stated size is the sum of its items, rounded up to whole MiB; sums saturate below 2^63.

use std::collections::BTreeMap;

use super::component::Cost;
use super::keys;
use super::reader::{SIZE_MAX, Stated};
use super::{Process, Shape};
use crate::limits::NATIVE_SHARD_BYTES_MAX;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Most overhead unless more is needed, as for Flink.
const OVERHEAD_MAX: u64 = 1 << 30;

/// What the runtime of a native process needs, piece by piece, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeCosts {
    /// Text and data of the binary that are resident.
    pub code: u64,
    /// Stack of a thread, as far as it is ever touched; the address space is 2 MiB.
    pub stack: u64,
    /// Threads of a TaskManager besides one for each slot: main, signals, control, files and its two blocking ones, four
    /// readers, accepting, dialing.
    pub taskmanager_threads: u64,
    /// Threads of a JobManager: main, signals, core, RPC, REST, store workers.
    pub jobmanager_threads: u64,
    /// What the kernel holds for the socket of a link, which a control group is charged for. An estimate.
    pub socket: u64,
    /// What the allocator keeps for a thread: it takes memory in huge pages, and each thread has some that are hardly used.
    pub heap_thread: u64,
    /// Part of the process that the allocator holds besides without anybody using it, as one in so many: what tables leave
    /// that have grown.
    pub slack_divisor: u64,
    /// Queues of a slot's ring: the submission queue of at most 1024 entries of 64 bytes and its index, and the completion
    /// queue of a ring without links.
    pub ring: u64,
    /// What a link adds to its slot's ring: seven completions of 16 bytes, and the driver's tables for its sends.
    pub ring_link: u64,
    /// Manifests and tables of a link: two manifests of 2112 bytes, credit and channel tables.
    pub link: u64,
    /// Buffers that a slot fills for its files: 32 of 128 KiB.
    pub file_buffers: u64,
    /// Staging of the files thread: 8 buffers of 128 KiB.
    pub staging: u64,
    /// Control messages of a TaskManager on their way; one may have 32 MiB, a few MiB are normal. An estimate.
    pub control: u64,
    /// Least overhead of any process.
    pub overhead_min: u64,
    /// Least task heap of a slot.
    pub task_heap_slot: u64,
    /// Least task heap of a process.
    pub task_heap_min: u64,
}

impl Default for NativeCosts {
    fn default() -> Self {
        Self {
            code: 16 * MIB,
            stack: 128 * KIB,
            taskmanager_threads: 12,
            jobmanager_threads: 12,
            socket: 256 * KIB,
            heap_thread: 2 * MIB,
            slack_divisor: 16,
            ring: 128 * KIB,
            ring_link: 2 * KIB,
            link: 16 * KIB,
            file_buffers: 4 * MIB,
            staging: MIB,
            control: 16 * MIB,
            overhead_min: 64 * MIB,
            task_heap_slot: 8 * MIB,
            task_heap_min: 16 * MIB,
        }
    }
}

impl NativeCosts {
    /// Framework off-heap memory of a TaskManager.
    pub(super) fn framework_off_heap(&self, shape: &Shape) -> Stated {
        let slots = u64::from(shape.slots);
        let links = slots.saturating_mul(u64::from(shape.links));
        stated(vec![
            cost("rings", slots, self.ring),
            cost("links' places in rings", links, self.ring_link),
            cost("links' manifests and tables", links, self.link),
            cost("slots' file buffers", slots, self.file_buffers),
            cost("files thread's staging", 1, self.staging),
            cost("control messages", 1, self.control),
        ])
    }

    /// Least overhead of a process that is around `total` bytes.
    pub(super) fn overhead(&self, process: Process, shape: &Shape, total: u64) -> Stated {
        let slots = u64::from(shape.slots);
        let (threads, links) = match process {
            Process::TaskManager => {
                (self.taskmanager_threads.saturating_add(slots), slots.saturating_mul(u64::from(shape.links)))
            }
            Process::JobManager => (self.jobmanager_threads, 0),
        };
        let slack = total.checked_div(self.slack_divisor).unwrap_or(0);
        let needed = stated(vec![
            cost("code", 1, self.code),
            cost("stacks", threads, self.stack),
            cost("allocator's pages", threads, self.heap_thread),
            cost("sockets", links, self.socket),
            cost("allocator slack", 1, slack),
        ]);
        if needed.bytes >= self.overhead_min {
            needed
        } else {
            stated(vec![cost("process at least", 1, self.overhead_min)])
        }
    }

    /// Least task heap of a TaskManager.
    pub(super) fn task_heap_min(&self, shape: &Shape) -> Stated {
        let slots = u64::from(shape.slots);
        let bytes = slots.saturating_mul(self.task_heap_slot).max(self.task_heap_min).min(SIZE_MAX);
        plain(bytes)
    }

    /// Every default that is computed. `total` is the size to start from, `overhead_max` what is configured as such.
    pub(super) fn stated(
        &self,
        process: Process,
        shape: &Shape,
        total: u64,
        process_size: u64,
        overhead_max: Option<u64>,
    ) -> BTreeMap<&'static str, Stated> {
        let mut overhead = self.overhead(process, shape, total);
        // A large process needs more than the usual most; a configured most is obeyed, and the plan warns.
        let most = plain(overhead.bytes.max(OVERHEAD_MAX));
        overhead.bytes = overhead.bytes.min(overhead_max.unwrap_or(SIZE_MAX));
        match process {
            Process::TaskManager => BTreeMap::from([
                (keys::TM_PROCESS, plain(process_size)),
                (keys::TM_FRAMEWORK_OFF_HEAP, self.framework_off_heap(shape)),
                (keys::TM_TASK_HEAP_MIN, self.task_heap_min(shape)),
                (keys::TM_NETWORK_MAX, plain(u64::from(shape.slots).saturating_mul(NATIVE_SHARD_BYTES_MAX))),
                (keys::TM_OVERHEAD_MIN, overhead),
                (keys::TM_OVERHEAD_MAX, most),
            ]),
            Process::JobManager => BTreeMap::from([
                (keys::JM_PROCESS, plain(process_size)),
                (keys::JM_OVERHEAD_MIN, overhead),
                (keys::JM_OVERHEAD_MAX, most),
            ]),
        }
    }
}

/// The size a process gets where nothing is configured: the size the documents recommend, or a part of what the host (or the
/// control group) has where that is small. A TaskManager gets 4 GiB but at most a quarter of the host, a JobManager 1600 MiB
/// but at most an eighth; neither less than 256 MiB.
pub fn default_process_size(process: Process, host_bytes: Option<u64>) -> u64 {
    let (most, share) = match process {
        Process::TaskManager => (4096 * MIB, 4),
        Process::JobManager => (1600 * MIB, 8),
    };
    match host_bytes {
        // Whole MiB, so that the plan is readable.
        Some(host) => (host / share / MIB * MIB).clamp(256 * MIB, most),
        None => most,
    }
}

const fn cost(what: &'static str, count: u64, each: u64) -> Cost {
    Cost { what, count, each }
}

fn plain(bytes: u64) -> Stated {
    let bytes = bytes.min(SIZE_MAX);
    Stated { bytes, needed: bytes, costs: Vec::new() }
}

fn stated(costs: Vec<Cost>) -> Stated {
    let items = costs.iter().map(|cost| cost.count.saturating_mul(cost.each));
    let sum = items.fold(0u64, u64::saturating_add);
    let bytes = sum.checked_next_multiple_of(MIB).unwrap_or(SIZE_MAX).min(SIZE_MAX);
    Stated { bytes, needed: bytes, costs: costs.into_iter().filter(|cost| cost.count > 0).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slot_and_many() {
        let costs = NativeCosts::default();
        let of =
            |slots, links| costs.framework_off_heap(&Shape { slots, links, segment: 32 << 10 }).bytes >> 20;
        assert_eq!(of(1, 32), 22);
        assert_eq!(of(64, 32), 317);
        assert!(of(u32::MAX, u32::MAX) > 0);
        let overhead = |total| {
            costs
                .overhead(Process::TaskManager, &Shape { slots: 1, links: 32, segment: 32 << 10 }, total)
                .bytes
                >> 20
        };
        assert_eq!(overhead(256 << 20), 68);
        assert_eq!(overhead(1 << 30), 116);
        assert_eq!(overhead(4 << 30), 308);
        assert!(overhead(u64::MAX) > 0);
    }

    #[test]
    fn hosts() {
        assert_eq!(default_process_size(Process::TaskManager, None), 4 << 30);
        assert_eq!(default_process_size(Process::TaskManager, Some(64 << 30)), 4 << 30);
        assert_eq!(default_process_size(Process::TaskManager, Some(8 << 30)), 2 << 30);
        assert_eq!(default_process_size(Process::JobManager, Some(4 << 30)), 512 << 20);
        assert_eq!(default_process_size(Process::JobManager, Some(0)), 256 << 20);
    }
}
