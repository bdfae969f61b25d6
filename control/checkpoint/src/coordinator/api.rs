//! What the coordinator is told, what it wants done, and the values in both.
//!
//! Values only. Always: an action refers to the attempt and checkpoint it concerns.

use crate::limits::{RETAINED_DEFAULT, TIMEOUT_MS_DEFAULT, TOLERABLE_FAILURES_DEFAULT};
use crate::metadata::{Metadata, OperatorInfo, Task, TaskPart};
use crate::store::{StoreDone, StoreOp};

/// When and how checkpoints are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointConfig {
    /// Time from one trigger to the next, in milliseconds; `None` leaves the final checkpoint of a finite job.
    pub interval_ms: Option<u64>,
    /// Least time between the end of one and the trigger of the next, in milliseconds.
    pub min_pause_ms: u64,
    /// Age at which a pending checkpoint is given up, in milliseconds.
    pub timeout_ms: u64,
    /// Consecutive failures that the job survives.
    pub tolerable_failures: u32,
    /// Completed checkpoints to keep, 1 to [`crate::limits::RETAINED_MAX`].
    pub retained: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        CheckpointConfig {
            interval_ms: None,
            min_pause_ms: 0,
            timeout_ms: TIMEOUT_MS_DEFAULT,
            tolerable_failures: TOLERABLE_FAILURES_DEFAULT,
            retained: RETAINED_DEFAULT,
        }
    }
}

/// What metadata says about the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobInfo {
    /// The job.
    pub job: u128,
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Parallelism asked for.
    pub parallelism: u32,
    /// Fingerprint of its graph.
    pub graph_fingerprint: u64,
    /// Fingerprint of the executable.
    pub binary_fingerprint: u64,
    /// Its operators.
    pub operators: Vec<OperatorInfo>,
}

/// What the coordinator is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The attempt has failed or is being cancelled: what is pending is void from now on.
    Stop,
    /// The attempt before (if any) is over: choose what `attempt` restores and make the output fit.
    /// Answered by `Restored` or `RestoreFailed`.
    Restore {
        /// The new attempt, larger than every earlier one.
        attempt: u32,
    },
    /// The sinks of an attempt write to these directories; answered by `OutputsReady` when older attempts
    /// are fenced there. Comes between `Restored` and `Started`.
    Outputs {
        /// The attempt.
        attempt: u32,
        /// Output directories.
        roots: Vec<String>,
    },
    /// Every task of the attempt is running.
    Started {
        /// The attempt.
        attempt: u32,
        /// All tasks.
        tasks: Vec<Task>,
        /// Those without input.
        sources: Vec<Task>,
    },
    /// A task's part is durable.
    Acknowledge {
        /// Epoch of the message.
        epoch: u64,
        /// The attempt.
        attempt: u32,
        /// The checkpoint.
        checkpoint: u64,
        /// The part; names its task.
        part: Box<TaskPart>,
    },
    /// A task cannot take part.
    Decline {
        /// Epoch of the message.
        epoch: u64,
        /// The attempt.
        attempt: u32,
        /// The checkpoint.
        checkpoint: u64,
        /// The task.
        task: Task,
        /// Why.
        reason: String,
    },
    /// A task has seen the end of its input and flushed.
    EndOfData {
        /// The attempt.
        attempt: u32,
        /// The task.
        task: Task,
    },
    /// The job is over (finished, cancelled or failed) and no task of it runs: resolve, commit what the newest
    /// checkpoint lists, clean. Answered by `Ended`.
    End {
        /// The last attempt.
        attempt: u32,
    },
    /// The end of the job is on record and its output is clean: its checkpoints are of no use any more.
    Forget,
    /// Time has passed; see [`crate::Coordinator::deadline`].
    Tick,
    /// Answer to a store operation.
    Store {
        /// Number of the operation.
        op: u64,
        /// The answer.
        done: StoreDone,
    },
}

/// What the coordinator wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Execute and answer with [`Input::Store`].
    Store {
        /// Number of the operation.
        op: u64,
        /// The operation.
        body: StoreOp,
    },
    /// Tell the tasks of the attempt to begin.
    Trigger {
        /// The attempt.
        attempt: u32,
        /// The checkpoint.
        checkpoint: u64,
    },
    /// Durable and committed: tell the tasks.
    Completed {
        /// The attempt.
        attempt: u32,
        /// The checkpoint.
        checkpoint: u64,
        /// Nothing follows; make FINISHED durable before the tasks are told.
        last: bool,
    },
    /// Will never complete: tell the tasks.
    Aborted {
        /// The attempt.
        attempt: u32,
        /// The checkpoint.
        checkpoint: u64,
        /// Why.
        reason: String,
    },
    /// The attempt cannot go on.
    FailAttempt {
        /// The attempt.
        attempt: u32,
        /// Why.
        reason: String,
        /// No restart helps.
        permanent: bool,
    },
    /// Older attempts are fenced in the directories of [`Input::Outputs`].
    OutputsReady {
        /// The attempt.
        attempt: u32,
    },
    /// What the attempt restores; the output holds exactly what this checkpoint says.
    Restored {
        /// The attempt.
        attempt: u32,
        /// The restore point.
        point: RestorePoint,
    },
    /// No restore point.
    RestoreFailed {
        /// The attempt.
        attempt: u32,
        /// Why.
        reason: String,
        /// No retry helps.
        permanent: bool,
    },
    /// The job's output holds what its newest checkpoint says, and nothing pending.
    Ended {
        /// Or else what could not be committed or removed, where it lies, and why.
        leftover: Option<String>,
    },
    /// Something people should read.
    Report(String),
    /// A newer leader exists; this one must stop.
    Deposed {
        /// Its epoch.
        newest: u64,
    },
}

/// What an attempt starts from.
#[derive(Clone, Debug, PartialEq)]
pub struct RestorePoint {
    /// The checkpoint, `None` for a start from nothing.
    pub checkpoint: Option<Box<Metadata>>,
    /// Newer checkpoints that could not be used.
    pub refused: Vec<Refused>,
    /// Visible output files that belonged to those and were taken back.
    pub taken_back: u32,
    /// Smallest id that a checkpoint of the attempt can have.
    pub first_checkpoint: u64,
}

/// A checkpoint that could not be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The checkpoint.
    pub id: u64,
    /// What is wrong with it.
    pub reason: String,
}
