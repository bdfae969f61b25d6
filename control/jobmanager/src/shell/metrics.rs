//! `/metrics`: the core in Prometheus' text format.
//!
//! Reads only; a registry is made for each scrape, so nothing can be stale. Always: names carry their unit.

use super::histograms::EdgeLatencies;
use crate::core::Core;
use crate::memory::{self, Meter};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tidegate_rpc::{Cause, Level};

type Labels = Vec<(String, String)>;

/// One family of gauges with labels.
struct Metric<'a> {
    registry: &'a mut Registry,
}

impl Metric<'_> {
    fn family(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Family::<Labels, Gauge>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        self.registry.register(name, help, family);
    }
}

fn label(name: &str, value: impl ToString) -> (String, String) {
    (name.to_owned(), value.to_string())
}

type Pick = fn(u64, Level) -> u64;

/// What is told of each component of memory.
const MEMORY: [(&str, &str, Pick); 3] = [
    ("memory_configured_bytes", "Memory planned for a component", |configured, _| configured),
    ("memory_used_bytes", "Memory of a component in use", |_, level| level.used),
    ("memory_peak_bytes", "The most of a component that was in use at once", |_, level| level.peak),
];

/// The text.
pub(super) fn text(core: &Core, meter: &mut Meter) -> String {
    let mut registry = Registry::with_prefix("tidegate");
    let mut metric = Metric { registry: &mut registry };
    taskmanagers(core, &mut metric);
    jobmanager(meter, &mut metric);
    jobs(core, &mut metric);
    registry.register_collector(Box::new(EdgeLatencies::of(core)));
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => text,
        Err(_) => "# the metrics could not be written\n".to_owned(),
    }
}

fn taskmanagers(core: &Core, metric: &mut Metric<'_>) {
    let all = || core.taskmanagers();
    let of = |id: u64| vec![label("taskmanager", format!("{id:016x}"))];
    metric.family("taskmanagers", "Registered TaskManagers", [(Vec::new(), all().count() as u64)]);
    metric.family(
        "slots",
        "Slots of a TaskManager",
        all().map(|found| (of(found.register.taskmanager), found.slots.len() as u64)),
    );
    metric.family(
        "slots_free",
        "Free slots of a TaskManager",
        all().map(|found| (of(found.register.taskmanager), u64::from(found.free()))),
    );
    metric.family(
        "resident_bytes",
        "Resident memory of a TaskManager",
        all().map(|found| (of(found.register.taskmanager), found.memory.resident.used)),
    );
    metric.family(
        "heap_allocations",
        "Heap allocations of a TaskManager since its start",
        all().map(|found| (of(found.register.taskmanager), found.heap_allocations)),
    );
    metric.family(
        "data_connections_refused",
        "Connections at a TaskManager's data port that were turned away",
        all().map(|found| (of(found.register.taskmanager), found.connections_refused)),
    );
    metric.family(
        "network",
        "1 for a TaskManager's network: its driver, whether segments are registered, and what carries links of its host",
        all().map(|found| {
            let driver = &found.register.driver;
            // What comes after the first word is for people, who find it under /taskmanagers.
            let word = |text: &str| text.split_whitespace().next().unwrap_or("unknown").to_owned();
            let mut labels = of(found.register.taskmanager);
            labels.push(label("transport", word(&driver.transport)));
            labels.push(label("driver", word(&driver.driver)));
            labels.push(label("registration", word(&driver.rung)));
            (labels, 1)
        }),
    );
    for (name, help, pick) in MEMORY {
        let values = all().flat_map(|found| {
            memory::levels(&found.register.memory, &found.memory).map(|(component, configured, level)| {
                let mut labels = of(found.register.taskmanager);
                labels.push(label("component", component));
                (labels, pick(configured, level))
            })
        });
        metric.family(name, help, values);
    }
    let held = all().flat_map(|found| {
        found.memory.holders.iter().map(move |held| {
            let mut labels = of(found.register.taskmanager);
            labels.push(label("holder", &held.holder));
            (labels, u64::from(held.segments))
        })
    });
    metric.family("segments_held", "Segments of a TaskManager by kind of holder", held);
    type Field = fn(&tidegate_rpc::SlotMetrics) -> u64;
    let fields: [(&str, &str, Field); 8] = [
        ("segments", "Segments of a slot", |m| u64::from(m.segments)),
        ("segments_free", "Free segments of a slot", |m| u64::from(m.segments_free)),
        ("slot_heap_allocations", "Heap allocations of a slot's thread", |m| m.heap_allocations),
        ("payload_bytes_copied", "Payload bytes copied", |m| m.payload_bytes_copied),
        ("send_ops", "Send operations", |m| m.driver.send_ops),
        ("receive_ops", "Receive operations", |m| m.driver.receive_ops),
        ("network_bytes", "Bytes sent and received", |m| m.driver.bytes),
        ("shared_memory_bytes", "Of the network bytes, those through shared memory", |m| {
            m.driver.shared_bytes
        }),
    ];
    for (name, help, field) in fields {
        let values = all().flat_map(|found| {
            found.metrics.iter().map(move |slot| {
                let mut labels = of(found.register.taskmanager);
                labels.push(label("slot", slot.slot));
                (labels, field(slot))
            })
        });
        metric.family(name, help, values);
    }
}

fn jobmanager(meter: &mut Meter, metric: &mut Metric<'_>) {
    let levels = meter.levels();
    for (name, help, pick) in MEMORY {
        let values = levels.map(|(component, configured, level)| {
            (vec![label("component", component)], pick(configured, level))
        });
        metric.family(&format!("jobmanager_{name}"), help, values);
    }
}

fn jobs(core: &Core, metric: &mut Metric<'_>) {
    let all = || core.by_age();
    let of = |job: &crate::core::Job| vec![label("job", job.id), label("name", &job.record.request.job)];
    metric.family(
        "job_state",
        "1 for the state that a job is in",
        all().map(|job| {
            let mut labels = of(job);
            labels.push(label("state", job.state()));
            (labels, 1)
        }),
    );
    metric.family("job_restarts", "Restarts of a job", all().map(|job| (of(job), job.record.restarts)));
    type Count = fn(&tidegate_checkpoint::Stats) -> u64;
    let counts: [(&str, &str, Count); 5] = [
        ("job_checkpoints_completed", "Completed checkpoints", |stats| stats.completed),
        ("job_checkpoints_failed", "Failed checkpoints", |stats| stats.failed),
        ("job_checkpoints_in_progress", "Checkpoints in progress", |stats| stats.in_progress()),
        ("job_last_checkpoint_bytes", "State of the newest checkpoint", |stats| {
            stats.latest_completed.as_ref().map_or(0, |entry| entry.bytes)
        }),
        ("job_last_checkpoint_duration_ms", "Duration of the newest checkpoint", |stats| {
            stats.latest_completed.as_ref().map_or(0, |entry| {
                entry.ended_ms.unwrap_or(entry.triggered_ms).saturating_sub(entry.triggered_ms)
            })
        }),
    ];
    for (name, help, count) in counts {
        metric.family(name, help, all().map(|job| (of(job), count(job.coordinator.stats()))));
    }
    tasks(core, metric);
}

fn tasks(core: &Core, metric: &mut Metric<'_>) {
    type Field = fn(&tidegate_rpc::TaskMetrics) -> u64;
    let fields: [(&str, &str, Field); 15] = [
        ("task_records_in", "Records that a task took in", |m| m.records_in),
        ("task_records_out", "Records that left a task", |m| m.records_out),
        ("task_bytes_in", "Payload bytes that a task took in", |m| m.bytes_in),
        ("task_bytes_out", "Payload bytes that a task wrote", |m| m.bytes_out),
        ("task_buffers_in", "Segments that a task took in", |m| m.buffers_in),
        ("task_buffers_out", "Segments that a task wrote", |m| m.buffers_out),
        ("task_busy_ms", "Time a task spent working", |m| m.busy_ms),
        ("task_idle_ms", "Time a task had nothing to do", |m| m.idle_ms),
        ("task_backpressured_ms", "Time a task had no room in an output", |m| m.backpressured_ms),
        ("task_cpu_wait_ms", "Time a task waited for its turn in its slot", |m| m.turn_ms),
        ("task_busy_ms_per_second", "Share of the last second a task was busy", |m| m.rates.busy.into()),
        ("task_idle_ms_per_second", "Share of the last second a task was idle", |m| m.rates.idle.into()),
        (
            "task_backpressured_ms_per_second",
            "Share of the last second a task had no room in an output",
            |m| m.rates.backpressured.into(),
        ),
        ("task_is_backpressured", "1 if a task has no room in an output now", |m| m.held_up.is_some().into()),
        ("task_malformed", "Malformed input that a task counted and skipped", |m| m.malformed),
    ];
    for (name, help, field) in fields {
        metric.family(name, help, measured(core).map(|(labels, metrics)| (labels, field(metrics))));
    }
    let by_cause = measured(core).flat_map(|(labels, metrics)| {
        Cause::ALL.iter().zip(metrics.held_up_ms).map(move |(cause, ms)| {
            let mut labels = labels.clone();
            labels.push(label("cause", cause.name()));
            (labels, ms)
        })
    });
    let help = "Time a task had no room in an output, by what its segments waited for";
    metric.family("task_backpressured_by_cause_ms", help, by_cause);
}

/// Tasks that said something of themselves.
fn measured(core: &Core) -> impl Iterator<Item = (Labels, &tidegate_rpc::TaskMetrics)> {
    core.by_age().flat_map(|job| {
        job.tasks.iter().filter_map(move |task| {
            let metrics = task.metrics.as_ref()?;
            let labels = vec![
                label("job", job.id),
                label("vertex", task.id.vertex),
                label("subtask", task.id.subtask),
            ];
            Some((labels, metrics))
        })
    })
}
