//! What a heartbeat says: counters of slots and tasks in the words of the control protocol. Stateless.

use tidegate_exchange::{Cause, PortUsage};
use tidegate_ring::DriverReport;
use tidegate_rpc as rpc;
use tidegate_stream::slot;

/// The counter by which connectors count malformed input.
const MALFORMED: &str = "malformed_rows";

/// A heartbeat from the last word of each slot and its ring.
pub(crate) fn make(
    sequence: u64,
    slots: &[slot::SlotMetrics],
    reports: &[DriverReport],
    connections_refused: u64,
    memory: rpc::MemoryUse,
) -> rpc::Heartbeat {
    let threads = tidegate_memory::thread_counters();
    let heap = |index: usize| {
        let name = format!("slot-{index}");
        let thread = threads.iter().find(|thread| thread.name == name);
        thread.map_or(0, |thread| thread.counters.allocations)
    };
    let slots_out =
        slots.iter().zip(reports).enumerate().map(|(index, (metrics, report))| rpc::SlotMetrics {
            slot: index as u32,
            segments: metrics.segments,
            segments_free: metrics.segments_free,
            heap_allocations: heap(index),
            payload_bytes_copied: metrics.exchange.payload_bytes_copied,
            driver: driver(report),
        });
    rpc::Heartbeat {
        sequence,
        tasks: slots.iter().flat_map(|metrics| &metrics.tasks).map(task).collect(),
        slots: slots_out.collect(),
        heap_allocations: threads.iter().map(|thread| thread.counters.allocations).sum(),
        memory,
        connections_refused,
    }
}

fn driver(report: &DriverReport) -> rpc::DriverCounters {
    let counters = &report.counters;
    rpc::DriverCounters {
        send_ops: counters.send_ops,
        receive_ops: counters.receive_ops,
        enters: counters.enters,
        fixed_sends: counters.fixed_sends,
        zc_sends: counters.zc_sends,
        zc_copied: counters.zc_copied,
        notifications: counters.notifications,
        notification_us: counters.notification_ns / 1000,
        notification_us_max: counters.notification_ns_max / 1000,
        bytes: counters.bytes_sent + counters.bytes_received,
        shared_bytes: counters.shared_bytes_sent + counters.shared_bytes_received,
    }
}

fn task(task: &slot::TaskMetrics) -> rpc::TaskMetrics {
    let id = rpc::TaskId { vertex: task.task.vertex, subtask: task.task.subtask };
    let mut metrics = rpc::TaskMetrics::zero(rpc::JobId(task.attempt.job), task.attempt.attempt, id);
    let counts = &task.counts;
    metrics.records_in = counts.records_in;
    metrics.records_out = counts.records_out;
    metrics.bytes_in = counts.bytes_in;
    metrics.bytes_out = task.output.counters.bytes;
    metrics.buffers_in = task.input.counters.segments;
    metrics.buffers_out = task.output.counters.segments;
    metrics.heap = rpc::Level { used: task.heap.0, peak: task.heap.1 };
    metrics.busy_ms = counts.busy_ns / 1_000_000;
    metrics.turn_ms = counts.turn_ns / 1_000_000;
    metrics.idle_ms = counts.idle_ns / 1_000_000;
    metrics.backpressured_ms = counts.backpressured_ns / 1_000_000;
    for (held_up, ns) in Cause::ALL.into_iter().zip(counts.held_up_ns) {
        metrics.held_up_ms[cause(held_up) as usize] = ns / 1_000_000;
    }
    metrics.held_up = task.held_up.map(|held_up| rpc::HeldUp {
        cause: cause(held_up.cause),
        partition: held_up.partition,
        channel: held_up.channel,
    });
    let slot::Rates { busy, turn, backpressured, idle } = task.rates;
    metrics.rates = rpc::Rates { busy, turn, backpressured, idle };
    metrics.in_pool_usage = share(task.input);
    metrics.out_pool_usage = share(task.output);
    metrics.malformed =
        task.counters.iter().filter(|(_, name, _)| name == MALFORMED).map(|(.., value)| value).sum();
    metrics
}

fn cause(cause: Cause) -> rpc::Cause {
    match cause {
        Cause::Credit => rpc::Cause::Credit,
        Cause::Barrier => rpc::Cause::Barrier,
        Cause::Flush => rpc::Cause::Flush,
        Cause::Cpu => rpc::Cause::Cpu,
        Cause::Memory => rpc::Cause::Memory,
    }
}

/// The used share of a quota, 0 to 1; 0 where there is none.
fn share(port: PortUsage) -> f32 {
    if port.quota == 0 { 0.0 } else { port.used as f32 / port.quota as f32 }
}
