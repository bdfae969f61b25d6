//! Memory: what a slot may hold, and what TaskManagers and the JobManager itself hold of their plans.
//!
//! Owner of the state: the shell owns the [`Meter`] of this process; the rest is computed from registrations and heartbeats.
//!
//! Always: a slot is told final bytes; the shares of its consumers are at most its managed memory.

use serde_json::{Map, Value, json};
use tidegate_graph::{JobGraph, OperatorKind, Subtask};
use tidegate_memory::plan::{Consumer, JobManagerPlan, Plan, Weights};
use tidegate_memory::{process_counters, resident};
use tidegate_rpc::{Level, MemoryPlan, MemoryUse, SlotMemory};

/// What the tasks in one slot of a TaskManager with this plan may hold. Managed memory is divided among the kinds of
/// consumers that are in the slot, by their weights.
pub(crate) fn slot_memory(
    plan: &MemoryPlan,
    slots: u32,
    graph: &JobGraph,
    tasks: impl IntoIterator<Item = Subtask>,
) -> SlotMemory {
    let slots = u64::from(slots.max(1));
    let mut present = Vec::new();
    let vertices = tasks.into_iter().filter_map(|task| graph.vertices.get(task.vertex as usize));
    for operator in vertices.flat_map(|vertex| &vertex.operators) {
        if operator.kind == OperatorKind::Keyed {
            present.push(Consumer::StateBackend);
        }
        if operator.managed_memory {
            present.push(Consumer::Operator);
        }
    }
    // A TaskManager has checked its weights before it started; one that sends others gets nothing to divide.
    let weights = Weights::read(&plan.managed_weights).unwrap_or_default();
    let share = |consumer| weights.bytes(consumer, &present, plan.managed / slots);
    SlotMemory {
        task_heap: plan.task_heap / slots,
        task_off_heap: plan.task_off_heap / slots,
        state: share(Consumer::StateBackend),
        operators: share(Consumer::Operator),
    }
}

/// `memoryConfiguration` of a TaskManager, under Flink's names.
pub(crate) fn configuration(plan: &MemoryPlan) -> Value {
    json!({
        "frameworkHeap": plan.framework_heap,
        "taskHeap": plan.task_heap,
        "frameworkOffHeap": plan.framework_off_heap,
        "taskOffHeap": plan.task_off_heap,
        "networkMemory": plan.network,
        "managedMemory": plan.managed,
        "jvmMetaspace": 0,
        "jvmOverhead": plan.overhead,
        "totalFlinkMemory": plan.total_flink,
        "totalProcessMemory": plan.total_process,
    })
}

/// Components with what is configured and held, in the order of the plan.
pub(crate) fn levels(plan: &MemoryPlan, held: &MemoryUse) -> [(&'static str, u64, Level); 8] {
    [
        ("frameworkHeap", plan.framework_heap, held.framework_heap),
        ("taskHeap", plan.task_heap, held.task_heap),
        ("frameworkOffHeap", plan.framework_off_heap, held.framework_off_heap),
        ("taskOffHeap", plan.task_off_heap, held.task_off_heap),
        ("networkMemory", plan.network, held.network),
        ("managedMemory", plan.managed, held.managed),
        ("jvmOverhead", plan.overhead, held.overhead),
        ("totalProcessMemory", plan.total_process, held.resident),
    ]
}

/// `memory` of a TaskManager: each component as `{configured, used, peak}`.
pub(crate) fn ledger(plan: &MemoryPlan, held: &MemoryUse) -> Value {
    let lines = levels(plan, held).into_iter();
    Value::Object(lines.map(|(name, configured, level)| (name.to_owned(), line(configured, level))).collect())
}

fn line(configured: u64, level: Level) -> Value {
    json!({ "configured": configured, "used": level.used, "peak": level.peak })
}

/// Who holds segments of a TaskManager, and since when.
pub(crate) fn holders(held: &MemoryUse) -> Value {
    let line = |held: &tidegate_rpc::SegmentsHeld| json!({ "holder": held.holder, "segments": held.segments, "oldestMs": held.oldest_ms });
    held.holders.iter().map(line).collect()
}

/// Measures this process against its plan.
#[derive(Debug)]
pub(crate) struct Meter {
    plan: JobManagerPlan,
    heap: Level,
    resident: Level,
}

impl Meter {
    pub(crate) fn new(plan: JobManagerPlan) -> Self {
        let mut meter = Self { plan, heap: Level::default(), resident: Level::default() };
        meter.read();
        meter
    }

    /// Takes a reading of the heap; the kernel keeps the peak of what is resident by itself.
    pub(crate) fn read(&mut self) {
        self.heap.seen(u64::try_from(process_counters().current_bytes()).unwrap_or(0));
    }

    /// Components with what is configured and held. Heap and off-heap memory are one pool here: all of it is allocated.
    pub(crate) fn levels(&mut self) -> [(&'static str, u64, Level); 3] {
        self.read();
        if let Some(now) = resident() {
            self.resident = Level { used: now.bytes, peak: now.peak_bytes };
        }
        let beyond = Level {
            used: self.resident.used.saturating_sub(self.heap.used),
            peak: self.resident.peak.saturating_sub(self.heap.peak),
        };
        [
            ("totalFlinkMemory", self.plan.total_flink.bytes, self.heap),
            ("jvmOverhead", self.plan.overhead.bytes, beyond),
            ("totalProcessMemory", self.plan.total_process.bytes, self.resident),
        ]
    }

    /// The JobManager as `GET /jobmanager` shows it.
    pub(crate) fn view(&mut self) -> Value {
        let lines: Map<String, Value> = self
            .levels()
            .into_iter()
            .map(|(name, bytes, level)| (name.to_owned(), line(bytes, level)))
            .collect();
        let plan = Plan::JobManager(self.plan.clone());
        let configuration = plan.components().into_iter().chain(plan.off_heap_parts());
        let configuration: Map<String, Value> =
            configuration.map(|(name, component)| (name.json().to_owned(), json!(component.bytes))).collect();
        json!({ "memoryConfiguration": configuration, "metrics": { "memory": lines } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_graph::{Operator, Vertex};

    fn graph(operators: &[(OperatorKind, bool)]) -> JobGraph {
        let operators = operators.iter().zip(1..).map(|(&(kind, managed_memory), id)| Operator {
            id,
            name: format!("op-{id}"),
            kind,
            managed_memory,
        });
        let vertex = Vertex {
            id: 0,
            name: "v".into(),
            parallelism: 2,
            slot_group: "default".into(),
            operators: operators.collect(),
        };
        JobGraph { name: "job".into(), max_parallelism: 128, vertices: vec![vertex], edges: Vec::new() }
    }

    #[test]
    fn a_slot_gets_its_part_and_consumers_theirs() {
        let plan = MemoryPlan {
            task_heap: 1001,
            task_off_heap: 11,
            managed: 2000,
            managed_weights: "OPERATOR:70,STATE_BACKEND:30,PYTHON:30".into(),
            ..MemoryPlan::default()
        };
        let of = |operators: &[(OperatorKind, bool)]| {
            slot_memory(&plan, 2, &graph(operators), [Subtask { vertex: 0, subtask: 1 }])
        };
        let both = of(&[(OperatorKind::Keyed, false), (OperatorKind::Stateless, true)]);
        assert_eq!(both, SlotMemory { task_heap: 500, task_off_heap: 5, state: 300, operators: 700 });
        let keyed = of(&[(OperatorKind::Keyed, false), (OperatorKind::Sink, false)]);
        assert_eq!((keyed.state, keyed.operators), (1000, 0), "who is alone has all of it");
        let none = of(&[(OperatorKind::Stateless, false)]);
        assert_eq!((none.state, none.operators), (0, 0));
    }
}
