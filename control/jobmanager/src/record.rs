//! What is kept of a job in `jobs/<id>/job-<epoch>.json`, and the words for its state.
//!
//! Values only; the core makes them, the shell writes them. Always: a record whose state is over is never
//! changed to one that is not; `attempt` only grows, and is on disk before the attempt begins.

use crate::limits::EXCEPTIONS_MAX;
use serde::{Deserialize, Serialize};
use std::fmt;
use tidegate_checkpoint::limits::RESTORES_MAX;
use tidegate_checkpoint::stats::keep_newest;
use tidegate_graph::JobGraph;
use tidegate_rpc::JobId;

/// Version of the record's format.
pub const RECORD_VERSION: u32 = 1;

/// Job states under Flink's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum JobState {
    /// Being written down.
    Initializing,
    /// Waits for slots or prepares them for the first time.
    Created,
    /// Its tasks were started.
    Running,
    /// Failed for good; its tasks are being stopped.
    Failing,
    /// Failed for good.
    Failed,
    /// Being cancelled.
    Cancelling,
    /// Cancelled.
    Canceled,
    /// All done, all committed.
    Finished,
    /// Failed or lost; waits to run again.
    Restarting,
}

impl JobState {
    /// Flink's name.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Initializing => "INITIALIZING",
            JobState::Created => "CREATED",
            JobState::Running => "RUNNING",
            JobState::Failing => "FAILING",
            JobState::Failed => "FAILED",
            JobState::Cancelling => "CANCELLING",
            JobState::Canceled => "CANCELED",
            JobState::Finished => "FINISHED",
            JobState::Restarting => "RESTARTING",
        }
    }

    /// No transition leads out of it.
    pub fn is_over(self) -> bool {
        matches!(self, JobState::Failed | JobState::Canceled | JobState::Finished)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRequest {
    /// Name of the job in the binary.
    pub job: String,
    /// Its own arguments.
    pub args: Vec<String>,
    /// Default parallelism.
    pub parallelism: u32,
    /// Time between checkpoints in milliseconds; none leaves the final one.
    pub checkpoint_interval_ms: Option<u64>,
    /// Least pause between checkpoints in milliseconds.
    pub min_pause_ms: u64,
    /// Age at which a checkpoint is given up, in milliseconds.
    pub checkpoint_timeout_ms: u64,
    /// Consecutive failed checkpoints that the job survives.
    pub tolerable_failures: u32,
    /// Completed checkpoints to keep.
    pub retained: usize,
}

/// One entry of the exception history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExceptionRecord {
    /// When, in milliseconds since 1970.
    pub timestamp_ms: u64,
    /// What kind of thing failed.
    pub name: String,
    /// What happened.
    pub text: String,
    /// The task, if it was one: vertex name and subtask.
    pub task: Option<String>,
    /// The TaskManager, if it was on one.
    pub taskmanager: Option<String>,
}

/// One restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredRecord {
    /// The checkpoint.
    pub id: u64,
    /// When, in milliseconds since 1970.
    pub timestamp_ms: u64,
}

/// The record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// The job's id, 32 hexadecimal characters.
    pub id: String,
    /// Leadership that wrote it.
    pub epoch: u64,
    /// What was asked for.
    pub request: JobRequest,
    /// Fingerprint of the graph.
    pub graph_fingerprint: u64,
    /// The graph, for people; it is planned anew before it runs again.
    pub graph: JobGraph,
    /// State when this was written.
    pub state: JobState,
    /// After the end: its output is complete, and nothing else of it is left in its output directories. While that
    /// is not so, every start of a JobManager tries again.
    pub cleaned: bool,
    /// Last attempt that may have been begun.
    pub attempt: u32,
    /// Output directories known so far.
    pub outputs: Vec<String>,
    /// When it was submitted, in milliseconds since 1970.
    pub submitted_ms: u64,
    /// When it was over, in milliseconds since 1970.
    pub ended_ms: Option<u64>,
    /// How often it was restarted.
    pub restarts: u64,
    /// What it restored lately, oldest first.
    pub restored: Vec<RestoredRecord>,
    /// Checkpoints that completed and failed, for people; brought up to date whenever the record is written.
    pub completed_checkpoints: u64,
    /// See `completed_checkpoints`.
    pub failed_checkpoints: u64,
    /// Checkpoints that could not be used, with the reason; the last ones.
    pub refused: Vec<(u64, String)>,
    /// The last failures, oldest first.
    pub exceptions: Vec<ExceptionRecord>,
}

impl JobRecord {
    /// What is written of a job that was just submitted to the leader of `epoch`, before anything is known of its outputs.
    pub fn new(id: JobId, epoch: u64, request: JobRequest, graph: JobGraph, submitted_ms: u64) -> Self {
        JobRecord {
            version: RECORD_VERSION,
            id: id.to_string(),
            epoch,
            request,
            graph_fingerprint: graph.fingerprint(),
            graph,
            state: JobState::Created,
            cleaned: false,
            attempt: 1,
            outputs: Vec::new(),
            submitted_ms,
            ended_ms: None,
            restarts: 0,
            restored: Vec::new(),
            completed_checkpoints: 0,
            failed_checkpoints: 0,
            refused: Vec::new(),
            exceptions: Vec::new(),
        }
    }

    /// Adds a failure, dropping the oldest beyond the limit.
    pub fn push_exception(&mut self, exception: ExceptionRecord) {
        self.exceptions.push(exception);
        keep_newest(&mut self.exceptions, EXCEPTIONS_MAX);
    }

    /// Adds a restore, dropping the oldest beyond the limit.
    pub fn push_restored(&mut self, restored: RestoredRecord) {
        self.restored.push(restored);
        keep_newest(&mut self.restored, RESTORES_MAX);
    }

    /// Adds a checkpoint that could not be used, dropping the oldest beyond the limit.
    pub fn push_refused(&mut self, id: u64, reason: String) {
        self.refused.push((id, reason));
        keep_newest(&mut self.refused, RESTORES_MAX);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tidegate_graph::{Operator, OperatorKind, Vertex};

    /// A record of a job that is nothing but a source.
    pub(crate) fn record(id: JobId) -> JobRecord {
        let operator =
            Operator { id: 1, name: "source".into(), kind: OperatorKind::Source, managed_memory: false };
        let vertex = Vertex {
            id: 0,
            name: "source".into(),
            parallelism: 1,
            slot_group: "default".into(),
            operators: vec![operator],
        };
        let vertices = vec![vertex];
        let graph = JobGraph { name: "job".into(), max_parallelism: 128, vertices, edges: Vec::new() };
        let request = JobRequest {
            job: "job".into(),
            args: Vec::new(),
            parallelism: 1,
            checkpoint_interval_ms: None,
            min_pause_ms: 0,
            checkpoint_timeout_ms: 1_000,
            tolerable_failures: 0,
            retained: 1,
        };
        JobRecord::new(id, 1, request, graph, 0)
    }
}
