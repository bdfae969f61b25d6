//! What the state machines of this crate ask of a store, and what it answers: plain values both ways.
//!
//! The machines own nothing in the store; the shell that executes an operation decides nothing. Always: every
//! operation can be repeated after an answer of [`StoreDone::Failed`], which means "may or may not have
//! happened"; the other answers are certain.

use crate::epoch::EpochRecord;
use crate::metadata::{Metadata, Outputs};
use crate::sink::{SinkDone, SinkOp};

/// An operation on the store.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreOp {
    /// All claims and the newest settled record → `Epochs`.
    ReadEpochs,
    /// Create the claim of an epoch if it is absent → `Created`, `Exists`.
    ClaimEpoch(EpochRecord),
    /// Create the settled record of an epoch if it is absent → `Created`, `Exists`.
    SettleEpoch(EpochRecord),
    /// The largest epoch that anybody claimed → `Newest`.
    NewestEpoch,
    /// Everything in a job's checkpoint directory, metadata read and checked → `Scanned`.
    Scan {
        /// The job.
        job: u128,
    },
    /// Publish: the list of outputs first if asked for, then metadata, create-if-absent → `Created`, `Exists`.
    PutMetadata {
        /// What to publish.
        metadata: Box<Metadata>,
        /// Write the list of outputs too.
        outputs: bool,
    },
    /// Make metadata that is there durable and read it → `Metadata`, `Absent`, `Void`, `Damaged`.
    ReadMetadata {
        /// The job.
        job: u128,
        /// The checkpoint.
        id: u64,
    },
    /// Make sure that a checkpoint can never be published: create-if-absent in metadata's place → `Created`,
    /// `Exists`.
    VoidMetadata {
        /// The job.
        job: u128,
        /// The checkpoint.
        id: u64,
    },
    /// Read metadata and every object it names, checking lengths and hashes → `Metadata`, `Absent`, `Void`,
    /// `Damaged`.
    Verify {
        /// The job.
        job: u128,
        /// The checkpoint.
        id: u64,
    },
    /// Rename a damaged checkpoint's directory aside, durably → `Done` (also when that was done before).
    Quarantine {
        /// The job.
        job: u128,
        /// The checkpoint.
        id: u64,
    },
    /// Output files of a checkpoint that is not used, from its list or its metadata → `Outputs`, `Absent` (it
    /// had none), `Damaged`.
    ReadOutputs {
        /// The job.
        job: u128,
        /// The checkpoint.
        id: u64,
        /// The job writes files, so a list must exist if metadata ever did.
        expected: bool,
    },
    /// Delete the job's checkpoints with an id below `below`, whatever they are; metadata goes first → `Done`.
    /// Nothing between two kept ones is deleted: to go back to the older one, the outputs of every checkpoint
    /// after it must be known.
    Retain {
        /// The job.
        job: u128,
        /// The oldest id that is kept.
        below: u64,
    },
    /// Make sure that these can never be published, then delete their objects → `Done`. One that is published
    /// is left alone.
    Discard {
        /// The job.
        job: u128,
        /// The checkpoints.
        ids: Vec<u64>,
    },
    /// An operation on output files → `Sink`.
    Sink(SinkOp),
}

/// The answer to a [`StoreOp`].
#[derive(Clone, Debug, PartialEq)]
pub enum StoreDone {
    /// Claimed epochs in any order, and the newest settled record, or why it cannot be read.
    Epochs {
        /// All claimed epochs.
        claims: Vec<u64>,
        /// The newest settled record.
        settled: Option<Result<EpochRecord, String>>,
    },
    /// It did not exist and does now, durably.
    Created,
    /// It existed before, and is durable.
    Exists,
    /// The largest claimed epoch, 0 if none.
    Newest(u64),
    /// Contents of a checkpoint directory.
    Scanned(Vec<Scanned>),
    /// Metadata, intact.
    Metadata(Box<Metadata>),
    /// Output files.
    Outputs(Outputs),
    /// Nothing of that name.
    Absent,
    /// It was voided.
    Void,
    /// It is there but not what was written; why.
    Damaged(String),
    /// Done.
    Done,
    /// Answer to an operation on output files.
    Sink(SinkDone),
    /// The store did not answer or an I/O error came in between: it may or may not have happened.
    Failed(StoreFault),
}

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct StoreFault {
    /// In words; names the file or directory.
    pub reason: String,
    /// It will be the same tomorrow unless somebody changes the file system: no permission, read-only, a file
    /// where a directory belongs or the other way round.
    pub permanent: bool,
}

impl StoreFault {
    /// An I/O error at `place`.
    pub fn io(place: impl std::fmt::Display, error: &std::io::Error) -> Self {
        StoreFault { reason: format!("{place}: {error}"), permanent: is_permanent(error) }
    }
}

impl<T: Into<String>> From<T> for StoreFault {
    fn from(reason: T) -> Self {
        StoreFault { reason: reason.into(), permanent: false }
    }
}

/// Whether waiting does not help.
pub(crate) fn is_permanent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{IsADirectory, NotADirectory, PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | NotADirectory | IsADirectory)
}

/// One directory of a job's checkpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// The checkpoint.
    pub id: u64,
    /// It was set aside as damaged.
    pub quarantined: bool,
    /// Its metadata.
    pub state: ScannedState,
    /// It has a list of outputs.
    pub outputs: bool,
}

/// What a scan finds in metadata's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScannedState {
    /// Never published (or removed by somebody).
    Absent,
    /// Will never be published.
    Void,
    /// Published and intact; objects are not checked yet.
    Present {
        /// Leadership that published it.
        epoch: u64,
    },
    /// There, but not what was written.
    Damaged(String),
}
