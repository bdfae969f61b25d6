//! What people see: the core as JSON, on Flink's paths and under Flink's names.
//!
//! Reads only. Always: a number that is not known is absent or null, never invented.

use super::job::{Job, TaskInfo};
use super::registry::TaskManager;
use super::submit::unknown_job;
use super::{Core, Rejection, latency, times};
use crate::memory;
use crate::record::JobState;
use serde_json::{Map, Value, json};
use tidegate_checkpoint::{CheckpointEntry, CheckpointStatus};
use tidegate_rpc::{JobId, TaskState};

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Query {
    Overview,
    TaskManagers,
    TaskManager(u64),
    Jobs,
    JobsOverview,
    Job(JobId),
    Checkpoints(JobId),
    Exceptions(JobId),
    Latency(JobId),
}

impl Core {
    /// Answers a question.
    pub(crate) fn view(&self, query: Query, now_ms: u64) -> Result<Value, Rejection> {
        Ok(match query {
            Query::Overview => self.overview(),
            Query::TaskManagers => {
                let list: Vec<Value> =
                    self.registry.all().map(|found| self.taskmanager(found, now_ms)).collect();
                json!({ "taskmanagers": list })
            }
            Query::TaskManager(id) => {
                let unknown = || Rejection::new(404, format!("TaskManager {id:016x} not found"));
                let found = self.registry.get(id).ok_or_else(unknown)?;
                self.taskmanager_details(found, now_ms)
            }
            Query::Jobs => {
                let list: Vec<Value> = self
                    .by_age()
                    .map(|job| json!({ "id": job.id.to_string(), "status": job.state().name() }))
                    .collect();
                json!({ "jobs": list })
            }
            Query::JobsOverview => {
                let list: Vec<Value> = self.by_age().map(|job| job_overview(job, now_ms)).collect();
                json!({ "jobs": list })
            }
            Query::Job(id) => job_details(self.job(id)?, now_ms),
            Query::Checkpoints(id) => checkpoints(self.job(id)?),
            Query::Exceptions(id) => exceptions(self.job(id)?),
            Query::Latency(id) => latency::view(self.job(id)?),
        })
    }

    fn job(&self, id: JobId) -> Result<&Job, Rejection> {
        self.jobs.get(&id).ok_or_else(|| unknown_job(id))
    }

    /// All jobs, the newest first.
    pub(crate) fn by_age(&self) -> impl Iterator<Item = &Job> {
        let mut jobs: Vec<&Job> = self.jobs.values().collect();
        jobs.sort_by_key(|job| std::cmp::Reverse((job.record.submitted_ms, job.rank)));
        jobs.into_iter()
    }

    pub(crate) fn taskmanagers(&self) -> impl Iterator<Item = &TaskManager> {
        self.registry.all()
    }

    fn overview(&self) -> Value {
        let count =
            |wanted: fn(JobState) -> bool| self.jobs.values().filter(|job| wanted(job.state())).count();
        json!({
            "taskmanagers": self.registry.all().count(),
            "slots-total": self.registry.slots_total(),
            "slots-available": self.registry.slots_free(),
            "jobs-running": count(|state| !state.is_over()),
            "jobs-finished": count(|state| state == JobState::Finished),
            "jobs-cancelled": count(|state| state == JobState::Canceled),
            "jobs-failed": count(|state| state == JobState::Failed),
            "tidegate-version": env!("CARGO_PKG_VERSION"),
            "epoch": self.config.epoch,
            "cluster": self.config.cluster.to_string(),
        })
    }

    fn taskmanager(&self, found: &TaskManager, now_ms: u64) -> Value {
        let register = &found.register;
        json!({
            "id": format!("{:016x}", register.taskmanager),
            "path": format!("{}:{}", register.host, register.pid),
            "host": register.host,
            "pid": register.pid,
            "dataAddress": found.address.to_string(),
            "dataPort": found.address.port(),
            "timeSinceLastHeartbeat": now_ms.saturating_sub(found.heard_ms),
            "slotsNumber": found.slots.len(),
            "freeSlots": found.free(),
            "leaving": found.leaving,
            "segmentSize": register.segment_size,
            "segmentsPerSlot": register.segments_per_slot,
            "maxRecordSize": register.record_max.max(register.segment_size),
            "linksPerSlot": register.links_per_slot,
            "driver": register.driver.driver,
            "sendMode": register.driver.send_mode,
            "transport": register.driver.transport,
        })
    }

    fn taskmanager_details(&self, found: &TaskManager, now_ms: u64) -> Value {
        let mut value = self.taskmanager(found, now_ms);
        let (mut total, mut free) = (0u64, 0u64);
        let mut slots = Vec::new();
        for (index, held) in (0u32..).zip(&found.slots) {
            let metrics = found.metrics.iter().find(|metrics| metrics.slot == index);
            if let Some(metrics) = metrics {
                total += u64::from(metrics.segments);
                free += u64::from(metrics.segments_free);
            }
            slots.push(json!({
                "index": index,
                "jobId": held.map(|(job, _)| job.to_string()),
                "attempt": held.map(|(_, attempt)| attempt),
                "segmentsTotal": metrics.map(|metrics| metrics.segments),
                "segmentsFree": metrics.map(|metrics| metrics.segments_free),
                "heapAllocations": metrics.map(|metrics| metrics.heap_allocations),
                "payloadBytesCopied": metrics.map(|metrics| metrics.payload_bytes_copied),
                "sendOps": metrics.map(|metrics| metrics.driver.send_ops),
                "receiveOps": metrics.map(|metrics| metrics.driver.receive_ops),
                "enters": metrics.map(|metrics| metrics.driver.enters),
                "fixedSends": metrics.map(|metrics| metrics.driver.fixed_sends),
                "zeroCopySends": metrics.map(|metrics| metrics.driver.zc_sends),
                "zeroCopyCopied": metrics.map(|metrics| metrics.driver.zc_copied),
                "zeroCopyNotifications": metrics.map(|metrics| metrics.driver.notifications),
                "zeroCopyNotificationMicros": metrics.map(|metrics| metrics.driver.notification_us),
                "zeroCopyNotificationMicrosMax": metrics.map(|metrics| metrics.driver.notification_us_max),
                "bytes": metrics.map(|metrics| metrics.driver.bytes),
                "sharedMemoryBytes": metrics.map(|metrics| metrics.driver.shared_bytes),
            }));
        }
        let size = u64::from(found.register.segment_size);
        let fields = value.as_object_mut().expect("invariant: a TaskManager is an object");
        fields.insert(
            "metrics".into(),
            json!({
                "segmentsTotal": total,
                "segmentsFree": free,
                "nettyShuffleMemorySegmentsTotal": total,
                "nettyShuffleMemorySegmentsAvailable": free,
                "nettyShuffleMemorySegmentsUsed": total.saturating_sub(free),
                "nettyShuffleMemoryTotal": total * size,
                "nettyShuffleMemoryAvailable": free * size,
                "nettyShuffleMemoryUsed": total.saturating_sub(free) * size,
                "heapAllocations": found.heap_allocations,
                "residentBytes": found.memory.resident.used,
                "memory": memory::ledger(&found.register.memory, &found.memory),
                "segmentHolders": memory::holders(&found.memory),
                "dataConnectionsRefused": found.connections_refused,
            }),
        );
        fields.insert("memoryConfiguration".into(), memory::configuration(&found.register.memory));
        fields.insert("managedConsumerWeights".into(), json!(found.register.memory.managed_weights));
        fields.insert("slots".into(), Value::Array(slots));
        fields.insert("registration".into(), json!(found.register.driver.rung));
        fields.insert("pages".into(), json!(found.register.driver.pages));
        value
    }
}

/// How many tasks are in each state, under Flink's names in the given case.
fn task_counts<'a>(tasks: impl Iterator<Item = &'a TaskInfo> + Clone, lower: bool) -> Map<String, Value> {
    let mut counts = Map::new();
    for state in TaskState::ALL {
        let count = tasks.clone().filter(|task| task.state == state).count();
        let name = if lower { state.name().to_lowercase() } else { state.name().to_owned() };
        counts.insert(name, json!(count));
    }
    counts
}

fn job_overview(job: &Job, now_ms: u64) -> Value {
    let mut tasks = task_counts(job.tasks.iter(), true);
    tasks.insert("total".into(), json!(job.tasks.len()));
    json!({
        "jid": job.id.to_string(),
        "name": job.record.request.job,
        "state": job.state().name(),
        "start-time": job.record.submitted_ms,
        "end-time": end_time(job),
        "duration": duration(job, now_ms),
        "last-modification": job.record.ended_ms.unwrap_or(now_ms),
        "tasks": tasks,
    })
}

fn end_time(job: &Job) -> i64 {
    match job.record.ended_ms {
        Some(ended) if job.state().is_over() => ended as i64,
        _ => -1,
    }
}

fn duration(job: &Job, now_ms: u64) -> u64 {
    job.record.ended_ms.unwrap_or(now_ms).saturating_sub(job.record.submitted_ms)
}

fn job_details(job: &Job, now_ms: u64) -> Value {
    let state = job.state();
    let mut counts = Map::new();
    let vertices: Vec<Value> = job
        .graph
        .vertices
        .iter()
        .map(|vertex| {
            let tasks = job.tasks.iter().filter(|task| task.id.vertex == vertex.id);
            let start = tasks.clone().filter_map(|task| task.started_ms).min();
            let ended = tasks.clone().all(|task| task.ended_ms.is_some());
            let end = tasks.clone().filter_map(|task| task.ended_ms).max().filter(|_| ended);
            json!({
                "id": format!("{:032x}", vertex.operators.first().map_or(0, |operator| operator.id)),
                "vertex": vertex.id,
                "name": vertex.name,
                "slotSharingGroupId": vertex.slot_group,
                "maxParallelism": job.graph.max_parallelism,
                "parallelism": vertex.parallelism,
                "status": vertex_state(tasks.clone()).name(),
                "start-time": start.map_or(-1, |start| start as i64),
                "end-time": end.map_or(-1, |end| end as i64),
                "duration": start.map_or(-1, |start| (end.unwrap_or(now_ms).saturating_sub(start)) as i64),
                "tasks": task_counts(tasks.clone(), false),
                "metrics": vertex_metrics(tasks.clone()),
                "subtasks": tasks.map(|task| subtask(job, task)).collect::<Vec<_>>(),
            })
        })
        .collect();
    for (name, count) in task_counts(job.tasks.iter(), false) {
        counts.insert(name, count);
    }
    let config = job.coordinator.config();
    json!({
        "jid": job.id.to_string(),
        "name": job.record.request.job,
        "args": job.record.request.args,
        "parallelism": job.record.request.parallelism,
        "state": state.name(),
        "start-time": job.record.submitted_ms,
        "end-time": end_time(job),
        "duration": duration(job, now_ms),
        "maxParallelism": job.graph.max_parallelism,
        "now": now_ms,
        "attempt": job.record.attempt,
        "restarts": job.record.restarts,
        "waiting-for": job.waiting_for,
        "outputs": job.coordinator.roots().collect::<Vec<_>>(),
        "checkpoint-interval": config.interval_ms,
        "status-counts": counts,
        "vertices": vertices,
        "plan": plan(job),
    })
}

/// One word for all subtasks, as Flink aggregates them.
fn vertex_state<'a>(tasks: impl Iterator<Item = &'a TaskInfo> + Clone) -> TaskState {
    let any = |state| tasks.clone().any(|task| task.state == state);
    let order = [
        TaskState::Failed,
        TaskState::Canceling,
        TaskState::Canceled,
        TaskState::Created,
        TaskState::Scheduled,
        TaskState::Deploying,
        TaskState::Initializing,
        TaskState::Running,
    ];
    order.into_iter().find(|state| any(*state)).unwrap_or(TaskState::Finished)
}

fn vertex_metrics<'a>(tasks: impl Iterator<Item = &'a TaskInfo> + Clone) -> Value {
    let sum = |field: fn(&tidegate_rpc::TaskMetrics) -> u64| -> u64 {
        let each = tasks.clone().filter_map(|task| task.metrics.as_ref()).map(field);
        each.fold(0, u64::saturating_add)
    };
    let complete = tasks.clone().all(|task| task.metrics.is_some());
    json!({
        "read-bytes": sum(|m| m.bytes_in),
        "read-bytes-complete": complete,
        "write-bytes": sum(|m| m.bytes_out),
        "write-bytes-complete": complete,
        "read-records": sum(|m| m.records_in),
        "read-records-complete": complete,
        "write-records": sum(|m| m.records_out),
        "write-records-complete": complete,
        "accumulated-backpressured-time": sum(|m| m.backpressured_ms),
        "accumulated-idle-time": sum(|m| m.idle_ms),
        "accumulated-busy-time": sum(|m| m.busy_ms),
        "malformed-records": sum(|m| m.malformed),
    })
}

fn subtask(job: &Job, task: &TaskInfo) -> Value {
    json!({
        "subtask": task.id.subtask,
        "status": task.state.name(),
        "attempt": job.record.attempt,
        "endpoint": task.host,
        "taskmanager-id": task.slot.map(|slot| format!("{:016x}", slot.taskmanager)),
        "slot": task.slot.map(|slot| slot.slot),
        "start-time": task.started_ms.map_or(-1, |start| start as i64),
        "end-time": task.ended_ms.map_or(-1, |end| end as i64),
        "metrics": task.metrics.map(|m| {
            let mut metrics = json!({
            "numRecordsIn": m.records_in,
            "numRecordsOut": m.records_out,
            "numBytesIn": m.bytes_in,
            "numBytesOut": m.bytes_out,
            "numBuffersIn": m.buffers_in,
            "numBuffersOut": m.buffers_out,
            "busyTimeMs": m.busy_ms,
            "idleTimeMs": m.idle_ms,
            "backPressuredTimeMs": m.backpressured_ms,
            "buffers.inPoolUsage": m.in_pool_usage,
            "buffers.outPoolUsage": m.out_pool_usage,
            "numRecordsMalformed": m.malformed,
            "heapUsed": m.heap.used,
            "heapPeak": m.heap.peak,
            });
            let fields = metrics.as_object_mut().expect("invariant: metrics are an object");
            times::add(fields, job, task.id, &m);
            metrics
        }),
    })
}

fn plan(job: &Job) -> Value {
    let edges: Vec<Value> = job
        .graph
        .edges
        .iter()
        .map(|edge| {
            json!({
                "from": edge.from,
                "to": edge.to,
                "input": edge.input,
                "ship_strategy": format!("{:?}", edge.partitioner),
                "record": edge.record,
            })
        })
        .collect();
    json!({ "name": job.graph.name, "edges": edges, "fingerprint": format!("{:016x}", job.record.graph_fingerprint) })
}

fn checkpoints(job: &Job) -> Value {
    let stats = job.coordinator.stats();
    let restored = stats.restored.iter().map(|restored| {
        json!({
            "id": restored.id,
            "restore_timestamp": restored.restored_ms,
            "is_savepoint": false,
            "external_path": chk(job, restored.id),
        })
    });
    let restored: Vec<Value> = restored.collect();
    let history: Vec<Value> = stats.history.iter().rev().map(|entry| checkpoint(job, entry)).collect();
    let refused: Vec<Value> =
        stats.refused.iter().map(|refused| json!({ "id": refused.id, "reason": refused.reason })).collect();
    json!({
        "counts": {
            "restored": stats.restored.len(),
            "total": stats.total,
            "in_progress": stats.in_progress(),
            "completed": stats.completed,
            "failed": stats.failed,
        },
        "latest": {
            "completed": stats.latest_completed.as_ref().map(|entry| checkpoint(job, entry)),
            "savepoint": null,
            "failed": stats.latest_failed.as_ref().map(|entry| checkpoint(job, entry)),
            "restored": restored.last(),
        },
        "history": history,
        "restored": restored,
        "refused": refused,
    })
}

/// Name of a checkpoint's directory within the store.
fn chk(job: &Job, id: u64) -> String {
    tidegate_checkpoint::layout::checkpoint_dir(job.id.0, id)
}

fn checkpoint(job: &Job, entry: &CheckpointEntry) -> Value {
    let end = entry.ended_ms.unwrap_or(entry.triggered_ms);
    let class = match entry.status {
        CheckpointStatus::InProgress => "in_progress",
        CheckpointStatus::Completed => "completed",
        CheckpointStatus::Failed => "failed",
    };
    json!({
        "@class": class,
        "id": entry.id,
        "status": entry.status.name(),
        "is_savepoint": false,
        "checkpoint_type": "CHECKPOINT",
        "trigger_timestamp": entry.triggered_ms,
        "latest_ack_timestamp": end,
        "end_to_end_duration": end.saturating_sub(entry.triggered_ms),
        "checkpointed_size": entry.bytes,
        "state_size": entry.bytes,
        "alignment_duration": entry.alignment_ns / 1_000_000,
        "num_subtasks": entry.subtasks,
        "num_acknowledged_subtasks": entry.acknowledged,
        "last": entry.last,
        "external_path": chk(job, entry.id),
        "failure_message": entry.failure,
        "failure_timestamp": entry.failure.as_ref().map(|_| end),
    })
}

fn exceptions(job: &Job) -> Value {
    let entries: Vec<Value> = job
        .record
        .exceptions
        .iter()
        .rev()
        .map(|exception| {
            json!({
                "exceptionName": exception.name,
                "stacktrace": exception.text,
                "timestamp": exception.timestamp_ms,
                "taskName": exception.task,
                "taskManagerId": exception.taskmanager,
                "concurrentExceptions": [],
            })
        })
        .collect();
    let root = job.record.exceptions.last();
    json!({
        "root-exception": root.map(|exception| exception.text.clone()),
        "timestamp": root.map(|exception| exception.timestamp_ms),
        "all-exceptions": [],
        "truncated": false,
        "exceptionHistory": { "entries": entries, "truncated": false },
    })
}
