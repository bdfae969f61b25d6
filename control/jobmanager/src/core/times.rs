//! How a task spends its time, as people see it: under Flink's names where they mean the same.
//!
//! Reads only. Always: busy, idle and back-pressured time per second are a second together; who holds a task up is said
//! with the cause and the subtask at the other end of the channel.

use super::job::Job;
use serde_json::{Map, Value, json};
use tidegate_graph::Subtask;
use tidegate_rpc::{Cause, HeldUp, TaskId, TaskMetrics};

/// Adds what `metrics` says of a task's time.
pub(super) fn add(fields: &mut Map<String, Value>, job: &Job, task: TaskId, metrics: &TaskMetrics) {
    let causes = Cause::ALL.iter().zip(metrics.held_up_ms);
    let by_cause: Map<String, Value> =
        causes.map(|(cause, ms)| (cause.name().to_owned(), json!(ms))).collect();
    let rates = metrics.rates;
    // A task that has just begun has no such time yet.
    let known = rates.busy > 0 || rates.idle > 0 || rates.backpressured > 0;
    let rate = |ms: u32| if known { json!(ms) } else { Value::Null };
    let named = [
        ("busyTimeMsPerSecond", rate(rates.busy)),
        ("idleTimeMsPerSecond", rate(rates.idle)),
        ("backPressuredTimeMsPerSecond", rate(rates.backpressured)),
        ("isBackPressured", json!(metrics.held_up.is_some())),
        ("cpuWaitTimeMsPerSecond", rate(rates.turn)),
        ("cpuWaitTimeMs", json!(metrics.turn_ms)),
        ("backPressuredTimeMsByCause", Value::Object(by_cause)),
        ("backPressure", metrics.held_up.map_or(Value::Null, |held_up| channel(job, task, held_up))),
    ];
    fields.extend(named.map(|(name, value)| (name.to_owned(), value)));
}

/// Who holds a task up; a channel that the job does not have is left out.
fn channel(job: &Job, task: TaskId, held_up: HeldUp) -> Value {
    let known = (task.vertex as usize) < job.graph.vertices.len();
    let me = Subtask { vertex: task.vertex, subtask: task.subtask };
    let partitions = if known { job.graph.partitions(me) } else { Vec::new() };
    let partition = partitions.get(held_up.partition as usize);
    let to =
        partition.and_then(|partition| partition.channels.get(held_up.channel as usize)).map(|channel| {
            let to = TaskId { vertex: channel.peer.vertex, subtask: channel.peer.subtask };
            json!({ "vertex": to.vertex, "subtask": to.subtask, "name": job.task_name(to) })
        });
    json!({
        "cause": held_up.cause.name(),
        "edge": partition.map(|partition| partition.name.clone()),
        "to": to,
    })
}
