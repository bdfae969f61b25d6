//! What this process holds of its memory plan: the live ledger that heartbeats carry.
//!
//! Owner of the state: the control thread owns the [`Meter`], which keeps the peaks of what it reads itself.
//!
//! Always: heap is counted once (what tasks and state hold is not the runtime's); segments are resident whether they are in
//! use or not; what the process has besides is overhead.

use std::collections::BTreeMap;

use tidegate_arena::{Arena, State};
use tidegate_memory::plan::{NativeCosts, TaskManagerPlan};
use tidegate_memory::{BudgetReading, process_heap, resident};
use tidegate_rpc::{Level, MemoryPlan, MemoryUse, SegmentsHeld};
use tidegate_stream::slot::SlotMetrics;

use crate::limits::{STAGING_BUFFER_BYTES, STAGING_BUFFERS};

/// The plan in the words of the control protocol.
pub(crate) fn registered(plan: &TaskManagerPlan) -> MemoryPlan {
    MemoryPlan {
        framework_heap: plan.framework_heap.bytes,
        task_heap: plan.task_heap.bytes,
        framework_off_heap: plan.framework_off_heap.bytes,
        task_off_heap: plan.task_off_heap.bytes,
        network: plan.network.bytes,
        managed: plan.managed.bytes,
        overhead: plan.overhead.bytes,
        total_flink: plan.total_flink.bytes,
        total_process: plan.total_process.bytes,
        managed_weights: plan.weights.to_string(),
    }
}

/// What a reading is made of besides what the process knows by itself.
pub(crate) struct Reading<'a> {
    /// The slots' last words.
    pub slots: &'a [SlotMetrics],
    /// The slots' file buffers that were made, in bytes.
    pub file_buffers: u64,
    /// Connections of all slots.
    pub links: u64,
}

/// Measures the process against its plan.
pub(crate) struct Meter {
    arena: Arena,
    /// Bytes of rings, as the kernel maps them; they do not change once the process runs.
    rings: u64,
    costs: NativeCosts,
    held: MemoryUse,
}

impl Meter {
    /// To be made when all rings are there.
    pub(crate) fn new(arena: Arena) -> Self {
        Self { arena, rings: mapped_rings(), costs: NativeCosts::default(), held: MemoryUse::default() }
    }

    /// Reads everything.
    pub(crate) fn read(&mut self, reading: &Reading<'_>) -> MemoryUse {
        let ledger = self.arena.ledger();
        let segment = self.arena.segment_size() as u64;
        let all = u64::from(self.arena.segments()) * segment;
        let (mut free, mut holders) = (0u64, BTreeMap::new());
        for entry in ledger.entries() {
            if entry.state == State::Free {
                free += 1;
                continue;
            }
            let held: &mut SegmentsHeld = holders.entry(entry.holder.kind).or_insert_with(|| SegmentsHeld {
                holder: format!("{:?}", entry.holder.kind).to_lowercase(),
                segments: 0,
                oldest_ms: 0,
            });
            held.segments += 1;
            held.oldest_ms = held.oldest_ms.max(ledger.now_ms().saturating_sub(entry.since_ms));
        }
        let sum = |pick: fn(&SlotMetrics) -> BudgetReading| {
            let all = reading.slots.iter().map(pick);
            all.fold((0, 0), |(used, peak), part| (used + part.used, peak + part.peak))
        };
        let (tasks, state) = (sum(|slot| slot.memory.task_heap), sum(|slot| slot.memory.state));
        let operators = sum(|slot| slot.memory.operators);
        let links = reading.links * self.costs.link;
        // The slots' words are as old as their last report, so what tasks hold of the heap is read from their accounts.
        let heap = process_heap();
        let framework = heap.all.saturating_sub(heap.accounts + reading.file_buffers + links);
        let staging = (STAGING_BUFFERS * STAGING_BUFFER_BYTES) as u64;
        let off_heap = self.rings + staging + reading.file_buffers + links;

        let held = &mut self.held;
        held.framework_heap.seen(framework);
        set(&mut held.task_heap, tasks);
        held.framework_off_heap.seen(off_heap);
        set(&mut held.task_off_heap, sum(|slot| slot.memory.task_off_heap));
        held.network.seen(all - free * segment);
        set(&mut held.managed, (state.0 + operators.0, state.1 + operators.1));
        if let Some(now) = resident() {
            held.resident = Level { used: now.bytes, peak: now.peak_bytes };
            // What operators reserve outside of the heap may be resident as well; whether, nobody knows.
            held.overhead.seen(now.bytes.saturating_sub(heap.all + self.rings + staging + all));
        }
        held.holders = holders.into_values().collect();
        held.clone()
    }
}

fn set(level: &mut Level, (used, peak): (u64, u64)) {
    *level = Level { used, peak: peak.max(used).max(level.peak) };
}

/// Bytes of io_uring's queues in this process's address space; zero where there are none, or nobody tells.
fn mapped_rings() -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let rings = maps.lines().filter(|line| line.ends_with("[io_uring]"));
    rings
        .filter_map(|line| {
            let (from, to) = line.split_whitespace().next()?.split_once('-')?;
            let address = |text| u64::from_str_radix(text, 16).ok();
            Some(address(to)?.saturating_sub(address(from)?))
        })
        .sum()
}
