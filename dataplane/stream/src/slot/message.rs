//! What the control side tells a slot, and what a slot tells it.
//!
//! Plain data without a ring in sight. Always: everything names its job and attempt; a slot answers each `Prepare` with one
//! `Prepared`, and each attempt it was told of with one `Closed` in the end.

use std::sync::Arc;

use tidegate_exchange::{AttemptPlan, Cause, Counters, LatencyFeed, LinkFault, PortUsage};

use crate::error::{Fault, TaskError};
use crate::files::FileEvent;
use crate::head::Counts;
use crate::memory::{MemoryUse, SlotMemory};
use crate::slot::snapshot::{TaskRestore, TaskSnapshot};

/// One task: a subtask of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The vertex.
    pub vertex: u32,
    /// Which of its subtasks.
    pub subtask: u32,
}

/// One run of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    /// The job.
    pub job: u128,
    /// The attempt, unique in the job.
    pub attempt: u32,
}

/// A slot's part of an attempt.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// The job's id.
    pub job: u128,
    /// The job's name in the registry.
    pub job_name: String,
    /// The job's own arguments.
    pub args: Vec<String>,
    /// Default parallelism the graph was built with.
    pub parallelism: u32,
    /// Fingerprint of the graph the JobManager has; another one is refused.
    pub graph_fingerprint: u64,
    /// The JobManager's epoch.
    pub epoch: u64,
    /// The attempt.
    pub attempt: u32,
    /// Ports of the slot's tasks; `TaskPorts::task` is the position in `tasks`.
    pub ports: AttemptPlan,
    /// The slot's tasks.
    pub tasks: Vec<TaskDeployment>,
    /// What they may hold together.
    pub memory: SlotMemory,
}

impl Deployment {
    /// Which attempt it is part of.
    pub fn id(&self) -> AttemptId {
        AttemptId { job: self.job, attempt: self.attempt }
    }
}

/// One task of a deployment.
#[derive(Clone, Debug)]
pub struct TaskDeployment {
    /// Which one.
    pub id: TaskId,
    /// What it goes on from.
    pub restore: Option<TaskRestore>,
}

/// What a slot is told.
#[derive(Clone, Debug)]
pub enum SlotCommand {
    /// Reserve, build, open, restore; answered by `Prepared`.
    Prepare(Box<Deployment>),
    /// Everybody is prepared: run.
    Start(AttemptId),
    /// To the sources: take this checkpoint.
    Trigger {
        /// Whose.
        attempt: AttemptId,
        /// Its number; larger than all before.
        checkpoint: u64,
    },
    /// That checkpoint is durable and its files are committed.
    CheckpointComplete {
        /// Whose.
        attempt: AttemptId,
        /// Its number.
        checkpoint: u64,
        /// It was the final one: tasks end.
        last: bool,
    },
    /// That checkpoint will not complete.
    CheckpointAborted {
        /// Whose.
        attempt: AttemptId,
        /// Its number.
        checkpoint: u64,
    },
    /// Drop the attempt's tasks and give everything back; answered by `Closed`.
    Cancel(AttemptId),
    /// Something happened to a file.
    FileEvent(FileEvent),
    /// Cancel everything and end the thread once all is closed.
    Shutdown,
}

/// How far a task is, in Flink's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskState {
    /// Known to nobody but the JobManager.
    Created,
    /// Given a slot.
    Scheduled,
    /// On its way to the slot.
    Deploying,
    /// Being opened and restored.
    Initializing,
    /// Stepping.
    Running,
    /// Ended of its own accord, all its output handed on.
    Finished,
    /// Told to end.
    Canceling,
    /// Ended because it was told to.
    Canceled,
    /// Ended by an error.
    Failed,
}

impl TaskState {
    /// The name, as shown to people and in the API.
    pub fn name(self) -> &'static str {
        match self {
            TaskState::Created => "CREATED",
            TaskState::Scheduled => "SCHEDULED",
            TaskState::Deploying => "DEPLOYING",
            TaskState::Initializing => "INITIALIZING",
            TaskState::Running => "RUNNING",
            TaskState::Finished => "FINISHED",
            TaskState::Canceling => "CANCELING",
            TaskState::Canceled => "CANCELED",
            TaskState::Failed => "FAILED",
        }
    }
}

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// A task's error.
    Task(Fault),
    /// A link to another slot broke; the cause is probably elsewhere.
    Link,
    /// The slot lacks what the attempt needs, for now.
    Resources,
}

/// Why an attempt cannot be prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure it was.
    pub kind: FailureKind,
    /// Who is at fault and why, for people.
    pub cause: String,
}

impl Failure {
    /// The job as it is described cannot run; trying again is no use.
    pub(crate) fn setup(cause: impl Into<String>) -> Self {
        TaskError::new(Fault::Setup, cause).into()
    }

    /// The slot lacks something, for now.
    pub(crate) fn resources(cause: impl Into<String>) -> Self {
        Failure { kind: FailureKind::Resources, cause: cause.into() }
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        Failure { kind: FailureKind::Task(error.fault()), cause: error.to_string() }
    }
}

impl From<&LinkFault> for Failure {
    fn from(fault: &LinkFault) -> Self {
        Failure { kind: FailureKind::Link, cause: fault.to_string() }
    }
}

/// What a slot tells.
#[derive(Clone, Debug)]
pub enum SlotEvent {
    /// The answer to `Prepare`.
    Prepared {
        /// Which attempt.
        attempt: AttemptId,
        /// Why not, by name.
        result: Result<(), Failure>,
    },
    /// A task changed its state.
    TaskState {
        /// Which attempt.
        attempt: AttemptId,
        /// Which task.
        task: TaskId,
        /// Its state now.
        state: TaskState,
    },
    /// A task has read all its input and emitted everything. Once all tasks have said so, the final checkpoint is due.
    EndOfData {
        /// Which attempt.
        attempt: AttemptId,
        /// Which task.
        task: TaskId,
    },
    /// The attempt cannot go on.
    Failed {
        /// Which attempt.
        attempt: AttemptId,
        /// The task at fault, if it was a task.
        task: Option<TaskId>,
        /// Who is at fault and why, for people.
        cause: String,
        /// What kind of failure it was.
        kind: FailureKind,
    },
    /// A task's part of a checkpoint is safe.
    Acknowledge {
        /// Which attempt.
        attempt: AttemptId,
        /// Which task.
        task: TaskId,
        /// Which checkpoint.
        checkpoint: u64,
        /// Its part.
        snapshot: TaskSnapshot,
    },
    /// A task cannot take part in a checkpoint.
    Decline {
        /// Which attempt.
        attempt: AttemptId,
        /// Which task.
        task: TaskId,
        /// Which checkpoint.
        checkpoint: u64,
        /// Why not.
        reason: String,
    },
    /// Nothing of the attempt is left in this slot.
    Closed {
        /// Which attempt.
        attempt: AttemptId,
        /// Segments of the slot that are free now.
        segments_free: u32,
    },
    /// For long now, no task of this slot could step, and none waits for anything but its ports. Other slots may be
    /// busy; if all say so, it is a deadlock.
    Stalled {
        /// What each task waits for, a line each.
        wait_graph: String,
    },
}

/// What a slot counted.
#[derive(Clone, Debug, Default)]
pub struct SlotMetrics {
    /// Per task.
    pub tasks: Vec<TaskMetrics>,
    /// Turns with something to do.
    pub turns: u64,
    /// Times the slot slept.
    pub waits: u64,
    /// Segments that are free.
    pub segments_free: u32,
    /// Segments there are.
    pub segments: u32,
    /// What its exchange counted.
    pub exchange: Counters,
    /// Memory held by tasks, and the most there was since the slot began.
    pub memory: MemoryUse,
}

/// What a task counted.
#[derive(Clone, Debug)]
pub struct TaskMetrics {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Which task.
    pub task: TaskId,
    /// The task's name.
    pub name: String,
    /// Records, bytes and time.
    pub counts: Counts,
    /// Heap it holds, keyed state excepted, and the most it held.
    pub heap: (u64, u64),
    /// Its gate.
    pub input: PortUsage,
    /// All of its partitions together.
    pub output: PortUsage,
    /// Users' counters: operator, counter, value.
    pub counters: Vec<(String, String, u64)>,
    /// How it spent its time lately.
    pub rates: Rates,
    /// When that began to be counted, nanoseconds of the slot's clock, and what had been counted by then.
    pub(crate) since: (u64, Counts),
    /// Who holds it up, if it has no room in an output now.
    pub held_up: Option<HeldUp>,
    /// What its ends of edges record.
    pub latencies: Arc<[EdgeLatency]>,
}

/// How a task spent its time, in milliseconds per second, in Flink's sense: busy, back-pressured and idle are 1000 together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// In steps, or ready for one: not idle and not back-pressured.
    pub busy: u32,
    /// The part of that in which it waited for its turn.
    pub turn: u32,
    /// Without room in an output.
    pub backpressured: u32,
    /// Waiting for anything else.
    pub idle: u32,
}

/// Who holds a task up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldUp {
    /// What the segments wait for.
    pub cause: Cause,
    /// Which of the task's partitions, from 0.
    pub partition: u32,
    /// Which channel of it.
    pub channel: u32,
}

/// What one end of an edge records in a task.
#[derive(Clone, Debug)]
pub struct EdgeLatency {
    /// Position of the edge in the graph.
    pub edge: u32,
    /// Its name, for people.
    pub name: String,
    /// What was recorded; whoever takes it keeps it.
    pub feed: LatencyFeed,
}
