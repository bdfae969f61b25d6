//! Identities that travel: clusters, jobs, slots, tasks, and the fence that orders epochs.
//!
//! All of them are plain values. Always: the epoch of a [`Fence`] never falls.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A job, printed as 32 lower-case hexadecimal characters as Flink prints its own.
///
/// ```
/// use tidegate_rpc::JobId;
/// let id: JobId = "000000000000000000000000000000ff".parse().unwrap();
/// assert_eq!(id, JobId(255));
/// assert_eq!(id.to_string().len(), 32);
/// assert!("ff".parse::<JobId>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(pub u128);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text that is not 32 hexadecimal characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a job id has 32 hexadecimal characters, found {found:?}")]
pub struct NotAJobId {
    /// What was given, cut to 64 characters.
    pub found: String,
}

impl FromStr for JobId {
    type Err = NotAJobId;

    fn from_str(text: &str) -> Result<Self, NotAJobId> {
        let refuse = || NotAJobId { found: text.chars().take(64).collect() };
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(refuse());
        }
        u128::from_str_radix(text, 16).map(JobId).map_err(|_| refuse())
    }
}

/// A cluster: the directory of one JobManager, drawn at random when it was first opened. 0 means unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A slot: the TaskManager's id (random per process) and the slot's index in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotId {
    /// Id of the TaskManager process.
    pub taskmanager: u64,
    /// Index of the slot, from 0.
    pub slot: u32,
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}/{}", self.taskmanager, self.slot)
    }
}

/// One parallel instance of a vertex of the job graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// Id of the vertex in the job graph.
    pub vertex: u32,
    /// Index of the subtask, from 0, less than the vertex's parallelism.
    pub subtask: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.vertex, self.subtask)
    }
}

/// Remembers the highest epoch seen and refuses what is older.
///
/// ```
/// use tidegate_rpc::Fence;
/// let mut fence = Fence::default();
/// fence.admit(4).unwrap();
/// assert_eq!(fence.admit(3).unwrap_err().seen, 4);
/// fence.admit(4).unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    seen: u64,
}

/// A message of a leadership that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("epoch {found} is over: epoch {seen} was already seen; the sender must step down")]
pub struct StaleEpoch {
    /// Highest epoch seen so far.
    pub seen: u64,
    /// Epoch of the refused message.
    pub found: u64,
}

impl Fence {
    /// A fence that has seen `epoch`.
    pub fn at(epoch: u64) -> Self {
        Fence { seen: epoch }
    }

    /// Highest epoch admitted so far; 0 before the first.
    pub fn epoch(&self) -> u64 {
        self.seen
    }

    /// Lets `epoch` pass if none newer was seen, and remembers it.
    ///
    /// # Errors
    /// [`StaleEpoch`] if a newer epoch was admitted before.
    pub fn admit(&mut self, epoch: u64) -> Result<(), StaleEpoch> {
        if epoch < self.seen {
            return Err(StaleEpoch { seen: self.seen, found: epoch });
        }
        self.seen = epoch;
        Ok(())
    }
}
