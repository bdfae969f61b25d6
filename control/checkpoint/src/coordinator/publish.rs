//! One checkpoint from "all acknowledged" to "committed": publish, resolve doubts, confirm, commit.
//!
//! It owns the metadata and the committer. Always: nothing is committed before the metadata is known to be
//! published by us and our claim known to be the newest after that; a lost answer is read back, and an absent
//! object is voided in its place, so the question can never be answered differently later.

use crate::metadata::{Committable, Metadata};
use crate::sink::{SinkCommit, SinkError, SinkStep};
use crate::store::{StoreDone, StoreOp};
use tidegate_plant::{Plant, planted};

#[derive(Clone, Debug)]
enum Stage {
    Put,
    Read,
    Void,
    Confirm,
    Commit(SinkCommit),
}

/// A publication under way.
#[derive(Clone, Debug)]
pub(super) struct Publish {
    metadata: Box<Metadata>,
    outputs: bool,
    stage: Stage,
}

/// What an answer of the store meant.
#[derive(Clone, Debug)]
pub(super) enum Published {
    /// Nothing is decided yet, or the commit goes on.
    Continue,
    /// It is published and we lead: from here on it counts.
    Yes,
    /// It will never be.
    Lost(String),
    /// Somebody else leads.
    Deposed { newest: u64 },
    /// It counts, but its files cannot be committed.
    SinkFailed(SinkError),
}

impl Publish {
    pub(super) fn new(metadata: Box<Metadata>, outputs: bool) -> Self {
        Publish { metadata, outputs, stage: Stage::Put }
    }

    pub(super) fn id(&self) -> u64 {
        self.metadata.id
    }

    pub(super) fn attempt(&self) -> u32 {
        self.metadata.attempt
    }

    pub(super) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Its fate is decided: it counts.
    pub(super) fn is_published(&self) -> bool {
        matches!(self.stage, Stage::Commit(_))
    }

    /// The next operation; none when everything is committed.
    pub(super) fn next_op(&self) -> Option<StoreOp> {
        let (job, id) = (self.metadata.job, self.metadata.id);
        Some(match &self.stage {
            Stage::Put => StoreOp::PutMetadata { metadata: self.metadata.clone(), outputs: self.outputs },
            Stage::Read => StoreOp::ReadMetadata { job, id },
            Stage::Void => StoreOp::VoidMetadata { job, id },
            Stage::Confirm => StoreOp::NewestEpoch,
            Stage::Commit(sink) => match sink.step() {
                SinkStep::Op(op) => StoreOp::Sink(op),
                SinkStep::Done { .. } => return None,
            },
        })
    }

    /// An operation may or may not have happened.
    pub(super) fn failed(&mut self) {
        if matches!(self.stage, Stage::Put | Stage::Void) {
            self.stage = if planted(Plant::CommitUnpublished) { Stage::Confirm } else { Stage::Read };
        }
    }

    pub(super) fn handle(&mut self, done: StoreDone) -> Published {
        match (&mut self.stage, done) {
            (Stage::Put, StoreDone::Created) => self.go(Stage::Confirm),
            (Stage::Put | Stage::Void, StoreDone::Exists) => self.go(Stage::Read),
            (Stage::Put, StoreDone::Damaged(reason)) => Published::Lost(reason),
            (Stage::Read, StoreDone::Metadata(found)) => self.read_back(&found),
            (Stage::Read, StoreDone::Absent) => self.go(Stage::Void),
            (Stage::Read, StoreDone::Void) => Published::Lost("its metadata could not be written".to_owned()),
            (Stage::Read, StoreDone::Damaged(reason)) => {
                Published::Lost(format!("its metadata is damaged: {reason}"))
            }
            (Stage::Void, StoreDone::Created) => {
                Published::Lost("its metadata could not be written".to_owned())
            }
            (Stage::Confirm, StoreDone::Newest(newest)) => {
                if newest > self.metadata.epoch && !planted(Plant::CommitUnconfirmed) {
                    return Published::Deposed { newest };
                }
                let files: Vec<Committable> = self.metadata.committables();
                self.stage = Stage::Commit(SinkCommit::complete(self.metadata.job, files));
                Published::Yes
            }
            (Stage::Commit(sink), StoreDone::Sink(done)) => match sink.handle(done) {
                Ok(()) => Published::Continue,
                Err(error) => Published::SinkFailed(error),
            },
            (stage, done) => panic!("invariant: {done:?} does not answer stage {stage:?}"),
        }
    }

    fn read_back(&mut self, found: &Metadata) -> Published {
        if (found.epoch, found.attempt) == (self.metadata.epoch, self.metadata.attempt) {
            return self.go(Stage::Confirm);
        }
        Published::Lost(format!(
            "epoch {} published checkpoint {} before; this is epoch {}",
            found.epoch, found.id, self.metadata.epoch
        ))
    }

    fn go(&mut self, stage: Stage) -> Published {
        self.stage = stage;
        Published::Continue
    }
}
