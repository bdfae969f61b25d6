//! Latencies of a job's edges: what TaskManagers reported of the present attempt, merged when somebody asks.
//!
//! Owned by the job, as encoded as they came: a few hundred bytes for each stage of each end. Always: what is kept is of
//! tasks and edges that the job has, and can be decoded; one job in `LATENCY_JOBS_MAX` that are over keeps it.

use super::Core;
use super::job::Job;
use crate::limits::{CURVE_POINTS_MAX, LATENCY_JOBS_MAX};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use tidegate_rpc::latency::{Latencies, decode, empty};
use tidegate_rpc::limits::{HISTOGRAM_LOW_NS, REPORT_EDGES_MAX};
use tidegate_rpc::{EdgeLatency, LatencyReport, Stage};

/// One stage of one end of an edge; the vertex follows from edge and stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) edge: u32,
    pub(crate) stage: Stage,
    pub(crate) subtask: u32,
}

/// What is known of a job.
#[derive(Default)]
pub(crate) struct JobLatencies {
    attempt: u32,
    known: BTreeMap<Place, Vec<u8>>,
}

impl Core {
    /// Takes a report in; jobs that were over long ago make room for it.
    pub(super) fn latencies(&mut self, report: LatencyReport) {
        for edge in report.edges.into_iter().take(REPORT_EDGES_MAX) {
            if let Some(job) = self.jobs.get_mut(&edge.job) {
                job.take_latencies(edge);
            }
        }
        let mut over: Vec<_> = self
            .jobs
            .values()
            .filter(|job| job.is_over() && !job.latencies.known.is_empty())
            .map(|job| (job.record.ended_ms, job.rank, job.id))
            .collect();
        over.sort_unstable();
        let surplus = over.len().saturating_sub(LATENCY_JOBS_MAX);
        for (.., id) in &over[..surplus] {
            if let Some(job) = self.jobs.get_mut(id) {
                job.latencies = JobLatencies::default();
            }
        }
    }
}

impl Job {
    fn take_latencies(&mut self, latency: EdgeLatency) {
        let Some(edge) = self.graph.edges.get(latency.edge as usize) else { return };
        if latency.attempt != self.record.attempt {
            return;
        }
        if self.latencies.attempt != latency.attempt {
            self.latencies = JobLatencies { attempt: latency.attempt, ..JobLatencies::default() };
        }
        for (stage, bytes) in latency.stages.into_iter().take(Stage::ALL.len()) {
            let vertex = if stage.of_consumer() { edge.to } else { edge.from };
            let parallelism = self.graph.vertices.get(vertex as usize).map_or(0, |vertex| vertex.parallelism);
            let ours = latency.task.vertex == vertex && latency.task.subtask < parallelism;
            if ours && decode(&bytes).is_ok() {
                let place = Place { edge: latency.edge, stage, subtask: latency.task.subtask };
                self.latencies.known.insert(place, bytes);
            }
        }
    }

    /// What is known of the present attempt.
    pub(crate) fn latencies(&self) -> impl Iterator<Item = (Place, Latencies)> {
        let present = self.latencies.attempt == self.record.attempt;
        let known = self.latencies.known.iter().filter(move |_| present);
        known.filter_map(|(place, bytes)| Some((*place, decode(bytes).ok()?)))
    }

    /// How many of them there are.
    pub(crate) fn latencies_known(&self) -> usize {
        self.latencies.known.len()
    }

    /// The vertex at the end of an edge that records a stage.
    pub(crate) fn vertex_of(&self, place: Place) -> u32 {
        let edge = &self.graph.edges[place.edge as usize];
        if place.stage.of_consumer() { edge.to } else { edge.from }
    }
}

/// Latencies by stage; where there is none, nothing was recorded.
type ByStage = BTreeMap<Stage, Latencies>;

fn merge(into: &mut ByStage, stage: Stage, more: &Latencies) {
    // Bounds are those of all, so there is nothing that could not be added.
    let _ = into.entry(stage).or_insert_with(empty).add(more);
}

/// `/jobs/:id/latency`: each edge and each operator with an input, all subtasks together and one by one.
pub(super) fn view(job: &Job) -> Value {
    let mut edges: BTreeMap<u32, (ByStage, Vec<Value>)> = BTreeMap::new();
    let mut vertices: BTreeMap<u32, ByStage> = BTreeMap::new();
    for (place, latencies) in job.latencies() {
        let (all, subtasks) = edges.entry(place.edge).or_default();
        merge(all, place.stage, &latencies);
        let vertex = job.vertex_of(place);
        if place.stage.of_consumer() {
            merge(vertices.entry(vertex).or_default(), place.stage, &latencies);
        }
        let mut one = summary(&latencies);
        one.insert("vertex".into(), json!(vertex));
        one.insert("subtask".into(), json!(place.subtask));
        one.insert("stage".into(), json!(place.stage.name()));
        subtasks.push(Value::Object(one));
    }
    let end = |vertex: u32| json!({ "vertex": vertex, "name": job.graph.vertices[vertex as usize].name });
    let edges = edges.into_iter().map(|(position, (all, subtasks))| {
        let edge = &job.graph.edges[position as usize];
        json!({
            "edge": position,
            "name": job.graph.edge_name(position),
            "from": end(edge.from),
            "to": end(edge.to),
            "stages": stages(&all),
            "curve": all.get(&Stage::Total).map(curve),
            "subtasks": subtasks,
        })
    });
    let operators = vertices.iter().map(|(vertex, all)| {
        json!({ "vertex": vertex, "name": job.graph.vertices[*vertex as usize].name, "stages": stages(all) })
    });
    json!({
        "jid": job.id.to_string(),
        "name": job.record.request.job,
        "attempt": job.record.attempt,
        "unit": "ns",
        "operators": operators.collect::<Vec<_>>(),
        "edges": edges.collect::<Vec<_>>(),
    })
}

fn stages(all: &ByStage) -> Map<String, Value> {
    all.iter().map(|(stage, all)| (stage.name().to_owned(), Value::Object(summary(all)))).collect()
}

fn summary(latencies: &Latencies) -> Map<String, Value> {
    let quantiles = [
        ("p50", 0.5),
        ("p75", 0.75),
        ("p90", 0.9),
        ("p95", 0.95),
        ("p99", 0.99),
        ("p999", 0.999),
        ("p9999", 0.9999),
    ];
    let mut fields = Map::new();
    fields.insert("count".into(), json!(latencies.len()));
    fields.insert("mean".into(), json!(latencies.mean().round() as u64));
    for (name, quantile) in quantiles {
        fields.insert(name.into(), json!(told(latencies.value_at_quantile(quantile))));
    }
    fields.insert("max".into(), json!(told(latencies.max())));
    fields
}

/// A time that is too short to be told from nothing is nothing.
fn told(ns: u64) -> u64 {
    if ns < HISTOGRAM_LOW_NS { 0 } else { ns }
}

/// Points of the percentile curve: percentile, nanoseconds.
fn curve(latencies: &Latencies) -> Vec<(f64, u64)> {
    let steps = latencies.iter_quantiles(4).take(CURVE_POINTS_MAX);
    steps.map(|step| (step.quantile_iterated_to() * 100.0, step.value_iterated_to())).collect()
}
