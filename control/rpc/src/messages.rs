//! The two vocabularies: what a TaskManager tells its JobManager, and what it is told.
//!
//! The life of an attempt, seen from a slot: `Prepare` → `Prepared` → (all slots of the job prepared)
//! `Start` → `TaskState`… → any number of `Trigger` → `Acknowledge`/`Decline` → `CheckpointComplete` or
//! `CheckpointAborted` → `CheckpointComplete{last}` (finite jobs: tasks end, report FINISHED) or `Cancel` →
//! `Closed`. A slot is given a new attempt only after `Closed` of the one before.
//!
//! Always: everything but `Register` and `Refused` concerns an epoch that both ends agreed on; everything
//! about a task names its job and attempt, and a receiver ignores attempts it does not run.

use crate::deployment::Prepare;
use crate::ids::{ClusterId, JobId, TaskId};
use crate::latency::LatencyReport;
use crate::memory::MemoryPlan;
use crate::metrics::{DriverReport, Heartbeat};
use crate::snapshot::TaskSnapshot;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;

/// First message of a TaskManager on every connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Register {
    /// Random id, drawn once per process.
    pub taskmanager: u64,
    /// Counts the connections of this process, from 1. A newer one replaces an older one of the same id.
    pub incarnation: u32,
    /// Slots offered, at least 1.
    pub slots: u32,
    /// Where other TaskManagers dial for data. An unspecified IP (0.0.0.0, ::) is replaced by the one that
    /// the JobManager sees.
    pub data_address: SocketAddr,
    /// Host name, for people.
    pub host: String,
    /// Process id, for people.
    pub pid: u32,
    /// Fingerprint of the executable; must equal the JobManager's.
    pub binary_fingerprint: u64,
    /// Cluster this process has belonged to, 0 if it has not registered before.
    pub cluster: ClusterId,
    /// Highest epoch this process has seen, 0 if none: a JobManager of an older one has been replaced.
    pub epoch_seen: u64,
    /// Bytes of one segment; all TaskManagers of a cluster have the same.
    pub segment_size: u32,
    /// Segments in each slot's shard.
    pub segments_per_slot: u32,
    /// Bytes of the largest record that each slot sets regions aside for; 0 if records have to fit a segment.
    pub record_max: u32,
    /// Links to slots of other TaskManagers that each slot has room for, both directions counted.
    pub links_per_slot: u32,
    /// How its memory is divided.
    pub memory: MemoryPlan,
    /// What drives the network, for people.
    pub driver: DriverReport,
    /// Attempts whose slots are not free yet (they are being cancelled since the last connection ended).
    pub held: Vec<HeldSlot>,
}

/// A slot that still belongs to an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldSlot {
    /// Index of the slot.
    pub slot: u32,
    /// The attempt's job.
    pub job: JobId,
    /// The attempt.
    pub attempt: u32,
}

/// Task states under Flink's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TaskState {
    /// Known, not yet given a slot.
    Created,
    /// Waits for a slot.
    Scheduled,
    /// Its slot is being prepared.
    Deploying,
    /// Prepared and started; restores its state.
    Initializing,
    /// Works.
    Running,
    /// Ended by itself, its results committed.
    Finished,
    /// Told to stop.
    Canceling,
    /// Stopped because it was told to.
    Canceled,
    /// Ended by an error.
    Failed,
}

impl TaskState {
    /// All states, in the order Flink lists them in job details.
    pub const ALL: [TaskState; 9] = [
        TaskState::Created,
        TaskState::Scheduled,
        TaskState::Deploying,
        TaskState::Initializing,
        TaskState::Running,
        TaskState::Finished,
        TaskState::Canceling,
        TaskState::Canceled,
        TaskState::Failed,
    ];

    /// Flink's name, upper case.
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

    /// No transition leads out of this state.
    pub fn is_terminal(self) -> bool {
        matches!(self, TaskState::Finished | TaskState::Canceled | TaskState::Failed)
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why something failed, as far as it decides what happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FaultKind {
    /// User code or an operator failed or panicked: restart.
    Task,
    /// A link to another TaskManager broke or was refused: restart.
    Link,
    /// A state object could not be read or is not what was written: restart from an older checkpoint.
    State,
    /// The slot or its memory is not there yet (still closing, quota taken): restart.
    Resources,
    /// No restart can cure it (binary or graph differ, missing input, malformed input in fail mode): the
    /// job fails at once.
    Permanent,
}

/// A failure in words, with its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What happens next depends on this.
    pub kind: FaultKind,
    /// Who is at fault, what was expected, what was found.
    pub cause: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

/// From a TaskManager to its JobManager.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToJobManager {
    /// Asks to join; always the first message.
    Register(Box<Register>),
    /// "I am here", with metrics; sent at the interval that [`Registered`] names.
    Heartbeat(Box<Heartbeat>),
    /// Answer to `Prepare`, one for each slot it named.
    Prepared {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
        /// Index of the slot.
        slot: u32,
        /// Output directories (roots, absolute) that sinks in this slot write to; the committer fences them.
        outputs: Vec<String>,
        /// Set if the slot could not be prepared; it holds nothing then.
        refusal: Option<Fault>,
    },
    /// A task changed state. CREATED, SCHEDULED, DEPLOYING are the JobManager's own.
    TaskState {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
        /// The task.
        task: TaskId,
        /// Its new state; never FAILED, which `Failed` says.
        state: TaskState,
    },
    /// A task has seen the end of all of its input and flushed what it held; it stays alive for the final
    /// checkpoint. Needed of source tasks, welcome from others; once all sources have said so, the
    /// JobManager triggers that checkpoint, with or without an interval.
    EndOfData {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
        /// The task.
        task: TaskId,
    },
    /// A task, or with `task` empty a slot's link, failed. The slot cancels nothing else by itself.
    Failed {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
        /// Index of the slot.
        slot: u32,
        /// The task, if it was one.
        task: Option<TaskId>,
        /// Why.
        fault: Fault,
    },
    /// A task's part of a checkpoint is durable: every object and its directory are synced.
    Acknowledge {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
        /// The task.
        task: TaskId,
        /// The checkpoint.
        checkpoint: u64,
        /// Where the state lies and what it hashes to.
        snapshot: Box<TaskSnapshot>,
    },
    /// A task cannot take part in a checkpoint; it forwarded the barrier marked aborted.
    Decline {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
        /// The task.
        task: TaskId,
        /// The checkpoint.
        checkpoint: u64,
        /// Why.
        reason: String,
    },
    /// The attempt has left the slot: tasks ended, links closed, every segment back.
    Closed {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
        /// Index of the slot.
        slot: u32,
        /// Free segments in the slot's shard now.
        segments_free: u32,
    },
    /// This process is leaving (SIGTERM). Its slots take no new work; its jobs restart elsewhere.
    Goodbye {
        /// Why, for people.
        reason: String,
    },
    /// Latencies of edges, about once a second.
    Latencies(Box<LatencyReport>),
}

/// Answer to a [`Register`] that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Epoch of this JobManager; every later message of the connection carries it.
    pub epoch: u64,
    /// The cluster's id; used in data handshakes.
    pub cluster: ClusterId,
    /// Time between heartbeats, in milliseconds.
    pub heartbeat_interval_ms: u64,
    /// Silence after which the JobManager gives the TaskManager up, in milliseconds. The other way round the connection
    /// itself asks (`limits::KEEPALIVE_TIMEOUT_MS`), because a JobManager may have nothing to say for long.
    pub heartbeat_timeout_ms: u64,
    /// Root directory of the checkpoint store, absolute; state paths are relative to it.
    pub store: String,
}

/// Why a connection is refused. The connection ends after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Protocol versions differ.
    #[error("protocol version: JobManager speaks {expected}, TaskManager {found}; run the same binary")]
    Version {
        /// The JobManager's.
        expected: u16,
        /// The TaskManager's.
        found: u16,
    },
    /// The executables differ.
    #[error("binary: JobManager runs {expected:016x}, TaskManager {found:016x}; run the same binary")]
    Binary {
        /// The JobManager's fingerprint.
        expected: u64,
        /// The TaskManager's fingerprint.
        found: u64,
    },
    /// The TaskManager belongs to another cluster.
    #[error("cluster: this is {expected}, the TaskManager belongs to {found}; restart it or fix its address")]
    Cluster {
        /// The JobManager's.
        expected: ClusterId,
        /// The TaskManager's.
        found: ClusterId,
    },
    /// The TaskManager has seen a newer leader.
    #[error("epoch: this JobManager leads epoch {expected}, the TaskManager has seen {found}")]
    StaleEpoch {
        /// The JobManager's.
        expected: u64,
        /// The TaskManager's.
        found: u64,
    },
    /// A newer connection of the same process exists.
    #[error("incarnation: connection {found} of this TaskManager is older than connection {expected}")]
    Incarnation {
        /// Newest connection.
        expected: u32,
        /// This one.
        found: u32,
    },
    /// Segments of another size than the cluster's.
    #[error("segment size: the cluster uses {expected} bytes, the TaskManager {found}")]
    SegmentSize {
        /// The cluster's.
        expected: u32,
        /// The TaskManager's.
        found: u32,
    },
    /// No slots, or too many.
    #[error("slots: 1 to {expected} allowed, found {found}")]
    Slots {
        /// Most allowed.
        expected: u32,
        /// Offered.
        found: u32,
    },
    /// The JobManager takes nobody in for now: it is shutting down, or has no room for another connection.
    #[error("the JobManager takes nobody in for now: it is shutting down or all its connections are taken")]
    Draining,
    /// The first message was not `Register`, or a later one broke the order.
    #[error("protocol: {0}")]
    Protocol(String),
}

/// From the JobManager to a TaskManager.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToTaskManager {
    /// Welcome.
    Registered(Registered),
    /// Not welcome; the stream ends.
    Refused(Refusal),
    /// First phase of deployment: reserve quotas, fetch and check state, publish tables, dial.
    Prepare(Box<Prepare>),
    /// Second phase, after every slot of the job is prepared: run.
    Start {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
    },
    /// Begin a checkpoint at the sources.
    Trigger {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
        /// The checkpoint, larger than every one triggered before.
        checkpoint: u64,
    },
    /// The checkpoint is durable and its files are committed.
    CheckpointComplete {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
        /// The checkpoint.
        checkpoint: u64,
        /// Nothing follows: tasks end and report FINISHED.
        last: bool,
    },
    /// The checkpoint will never complete; its objects may be deleted.
    CheckpointAborted {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
        /// The checkpoint.
        checkpoint: u64,
    },
    /// Stop the attempt in all slots of this TaskManager; answer `Closed` for each.
    Cancel {
        /// The job.
        job: JobId,
        /// The attempt.
        attempt: u32,
    },
    /// The JobManager leaves in order; attempts go down with it and restart under the next one.
    Goodbye {
        /// Why, for people.
        reason: String,
    },
}
