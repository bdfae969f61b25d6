//! The end of a job: commits what its newest completed checkpoint lists, then leaves nothing pending.
//!
//! It owns one pass: confirm leadership, read the list, fence, commit, clean. Always: nothing pending is removed
//! before every file of that checkpoint is in its place; files that cannot be put there stay, and are named.

use crate::sink::{SinkCommit, SinkError, SinkStep};
use crate::store::{StoreDone, StoreOp};
use std::collections::BTreeSet;

/// What the output must hold in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// Nothing that is not in place already.
    Committed,
    /// The files of this checkpoint.
    Newest(u64),
    /// Checkpoints completed, but which ones is not known any more.
    Vanished,
}

#[derive(Clone, Debug)]
enum Stage {
    /// Do we lead still? Then this one is committed, if any.
    Confirm(Option<u64>),
    Read(u64),
    Sink(SinkCommit),
    Kept(String),
    Deposed(u64),
}

/// One pass.
#[derive(Clone, Debug)]
pub(super) struct End {
    job: u128,
    roots: BTreeSet<String>,
    /// Attempts up to this one are fenced.
    upto: (u64, u32),
    stage: Stage,
}

/// What a pass wants.
#[derive(Clone, Debug)]
pub(super) enum EndStep {
    Op(StoreOp),
    Done { leftover: Option<String> },
    Deposed { newest: u64 },
}

impl End {
    pub(super) fn new(job: u128, roots: BTreeSet<String>, upto: (u64, u32), base: Base) -> Self {
        let stage = match base {
            _ if roots.is_empty() => Stage::Sink(SinkCommit::clean(job, Vec::new(), upto)),
            Base::Committed => Stage::Confirm(None),
            Base::Newest(id) => Stage::Confirm(Some(id)),
            Base::Vanished => Stage::Kept("checkpoints completed, but none is in the store".to_owned()),
        };
        End { job, roots, upto, stage }
    }

    pub(super) fn step(&self) -> EndStep {
        let job = self.job;
        EndStep::Op(match &self.stage {
            Stage::Confirm(_) => StoreOp::NewestEpoch,
            Stage::Read(id) => StoreOp::ReadOutputs { job, id: *id, expected: true },
            Stage::Sink(sink) => match sink.step() {
                SinkStep::Op(op) => StoreOp::Sink(op),
                SinkStep::Done { .. } => return EndStep::Done { leftover: failures(sink.failed()) },
            },
            Stage::Kept(reason) => return EndStep::Done { leftover: Some(self.leftover(reason)) },
            Stage::Deposed(newest) => return EndStep::Deposed { newest: *newest },
        })
    }

    pub(super) fn handle(&mut self, done: StoreDone) {
        let next = match (&mut self.stage, done) {
            (Stage::Confirm(_), StoreDone::Newest(newest)) if newest > self.upto.0 => Stage::Deposed(newest),
            (Stage::Confirm(Some(id)), StoreDone::Newest(_)) => Stage::Read(*id),
            (Stage::Confirm(None), StoreDone::Newest(_)) => {
                let roots = self.roots.iter().cloned().collect();
                Stage::Sink(SinkCommit::clean(self.job, roots, self.upto))
            }
            (Stage::Read(_), StoreDone::Outputs(outputs)) => {
                self.roots.extend(outputs.files.iter().filter_map(|file| file.root()).map(str::to_owned));
                let roots = self.roots.iter().cloned().collect();
                Stage::Sink(SinkCommit::end(self.job, roots, self.upto, outputs.files))
            }
            (Stage::Read(id), StoreDone::Damaged(reason)) => {
                Stage::Kept(format!("checkpoint {id}: {reason}"))
            }
            (Stage::Sink(sink), StoreDone::Sink(done)) => {
                return sink.handle(done).expect("invariant: the last commit goes on after an error");
            }
            (stage, done) => panic!("invariant: {done:?} does not answer stage {stage:?}"),
        };
        self.stage = next;
    }

    /// What is said when it goes no further for `reason`.
    pub(super) fn leftover(&self, reason: &str) -> String {
        let pending: Vec<String> =
            self.roots.iter().map(|root| format!("{root}/{}", tidegate_graph::PENDING)).collect();
        format!("{reason}; files that are not in place stay in {}", pending.join(", "))
    }
}

/// Names what could not be committed.
fn failures(failed: &[SinkError]) -> Option<String> {
    const NAMED: usize = 4;
    let mut text: Vec<String> = failed.iter().take(NAMED).map(SinkError::to_string).collect();
    if failed.len() > NAMED {
        text.push(format!("and {} more", failed.len() - NAMED));
    }
    (!text.is_empty()).then(|| text.join("; "))
}
