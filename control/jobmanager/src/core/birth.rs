//! How a job comes to be: submitted just now, or found in the directory.
//!
//! Always: a recovered job counts its checkpoints, restores and attempts on from its record.

use super::job::{Job, Phase, TaskInfo};
use super::saver::{Goal, Saver};
use super::{CoreConfig, Found, Submission};
use crate::convert;
use crate::record::JobRecord;
use std::sync::Arc;
use tidegate_checkpoint as ckpt;
use tidegate_checkpoint::{CheckpointConfig, Coordinator, JobInfo};
use tidegate_rpc::{JobId, TaskId, TaskState};

impl Job {
    /// A job that has just been asked for.
    pub(super) fn submitted(
        submission: Submission,
        config: &CoreConfig,
        rank: u64,
        ticket: u64,
        now_ms: u64,
    ) -> Self {
        let Submission { id, request, planned, objection: _ } = submission;
        let mut record = JobRecord::new(id, config.epoch, request, planned.graph, now_ms);
        record.outputs = planned.outputs;
        let mut job = Job::from_record(id, record, Vec::new(), config, rank);
        job.phase = Phase::Submitting;
        job.tickets.push(ticket);
        job.saver.require(Goal::Submitted);
        job
    }

    /// A job from the directory; [`Job::resume`] sets it going.
    pub(super) fn recover(found: Found, config: &CoreConfig, rank: u64) -> Self {
        let Found { mut record, id, planned, legal } = found;
        record.epoch = config.epoch;
        let mut job = Job::from_record(id, record, legal, config, rank);
        job.broken = match planned {
            None => None,
            Some(Err(reason)) => Some(format!("the job cannot be planned again: {reason}")),
            Some(Ok(graph)) => {
                let (expected, found) = (job.record.graph_fingerprint, graph.fingerprint());
                (expected != found).then(|| {
                    format!(
                        "this binary plans another graph (fingerprint {found:016x}) than the job was \
                         submitted with ({expected:016x}); run the binary that submitted it"
                    )
                })
            }
        };
        job
    }

    fn from_record(
        id: JobId,
        record: JobRecord,
        legal: Vec<ckpt::Legal>,
        config: &CoreConfig,
        rank: u64,
    ) -> Self {
        let graph = Arc::new(record.graph.clone());
        let request = &record.request;
        let checkpoints = CheckpointConfig {
            interval_ms: request.checkpoint_interval_ms,
            min_pause_ms: request.min_pause_ms,
            timeout_ms: request.checkpoint_timeout_ms,
            tolerable_failures: request.tolerable_failures,
            retained: request.retained,
        };
        let info = JobInfo {
            job: id.0,
            name: request.job.clone(),
            args: request.args.clone(),
            parallelism: request.parallelism,
            graph_fingerprint: record.graph_fingerprint,
            binary_fingerprint: config.binary_fingerprint,
            operators: convert::operators(&graph),
        };
        let mut coordinator =
            Coordinator::new(checkpoints, info, config.epoch, legal, record.outputs.clone());
        coordinator.resume_stats(stats_of(&record));
        let tasks = graph
            .subtasks()
            .map(|subtask| TaskInfo {
                id: TaskId { vertex: subtask.vertex, subtask: subtask.subtask },
                state: TaskState::Created,
                slot: None,
                host: String::new(),
                started_ms: None,
                ended_ms: None,
                metrics: None,
            })
            .collect();
        Job {
            id,
            rank,
            record,
            graph,
            coordinator,
            tasks,
            latencies: super::latency::JobLatencies::default(),
            phase: Phase::Over,
            tickets: Vec::new(),
            saver: Saver::default(),
            attempt: None,
            point: None,
            backoff_ms: None,
            not_before_ms: 0,
            running_since_ms: None,
            ended_early: Vec::new(),
            waiting_for: None,
            restart_policy: config.restart,
            broken: None,
        }
    }
}

/// Counts of earlier leaderships.
fn stats_of(record: &JobRecord) -> ckpt::Stats {
    ckpt::Stats {
        completed: record.completed_checkpoints,
        failed: record.failed_checkpoints,
        total: record.completed_checkpoints + record.failed_checkpoints,
        restored: record
            .restored
            .iter()
            .map(|restored| ckpt::RestoreEntry { id: restored.id, restored_ms: restored.timestamp_ms })
            .collect(),
        refused: record
            .refused
            .iter()
            .map(|(id, reason)| ckpt::Refused { id: *id, reason: reason.clone() })
            .collect(),
        ..ckpt::Stats::default()
    }
}
