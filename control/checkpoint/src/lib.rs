//! Checkpoints as the JobManager sees them: who decides, what is on disk, and how output becomes visible.
//!
//! The state machines do no I/O and read no clock: they take plain values and `now` and return what should be
//! done, so a test or a simulator runs the real code. The shell at the end executes it on a file system.
//!
//! Reading order: [`metadata`] and [`frame`] (what is on disk), [`layout`] (under which names), [`store`] (what
//! is asked of a store), [`sink`] (how files become visible), [`epoch`] (how a leader takes over),
//! [`coordinator`] (when a checkpoint is taken, published, restored), [`stats`], [`local`] (the shell).
//! Limits are in [`limits`].
//!
//! Inequalities: an id is published at most once; a file becomes visible only after the checkpoint that lists
//! it was published and its leader confirmed; a restore point is the newest checkpoint that counts and whose
//! every byte has the recorded hash.
#![forbid(unsafe_code)]

pub mod coordinator;
pub mod epoch;
pub mod frame;
pub mod layout;
pub mod limits;
pub mod local;
pub mod metadata;
pub mod sink;
pub mod stats;
pub mod store;

pub use coordinator::{Action, CheckpointConfig, Coordinator, Input, JobInfo, Refused, RestorePoint};
pub use epoch::{EpochRecord, Leadership, Legal, Opening, OpeningError, OpeningStep};
pub use local::{LocalStore, LocalStoreError};
pub use metadata::{
    Committable, GroupSlice, Metadata, Object, OperatorInfo, OperatorPart, Outputs, Task, TaskPart,
};
pub use sink::{SinkCommit, SinkDone, SinkError, SinkOp, SinkStep};
pub use stats::{CheckpointEntry, CheckpointStatus, RestoreEntry, Stats};
pub use store::{Scanned, ScannedState, StoreDone, StoreFault, StoreOp};
