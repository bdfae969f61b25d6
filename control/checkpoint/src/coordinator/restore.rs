//! Choosing the restore point, and making the output equal to it.
//!
//! It owns one pass: confirm leadership, scan, verify candidates from the newest down, set damaged ones aside, find out which
//! visible files belong to checkpoints that are not used, then run the committer. Always: a checkpoint is chosen only after
//! every object it names was read and its hash agreed, and passed over only for what was found then, never on a
//! TaskManager's word; one that was passed over is renamed aside before its output is taken back, so no later leader can
//! choose it; nothing is set aside, and no restore fails, before leadership was confirmed again after what was found; and
//! what a newer epoch makes visible is never taken back.

use super::{Refused, RestorePoint};
use crate::epoch::Legal;
use crate::limits::DISCARD_MAX;
use crate::metadata::{Committable, Metadata};
use crate::sink::{SinkCommit, SinkStep};
use crate::store::{Scanned, ScannedState, StoreDone, StoreOp};
use std::collections::{BTreeSet, VecDeque};
use tidegate_plant::{Plant, planted};

/// What of the coordinator a restore reads and adds to.
pub(super) struct Scope<'a> {
    pub(super) epoch: u64,
    pub(super) legal: &'a [Legal],
    pub(super) roots: &'a mut BTreeSet<String>,
    /// Checkpoints of the job completed at some time.
    pub(super) completed: bool,
}

#[derive(Clone, Debug)]
enum Stage {
    /// Do we lead still? Then this. What is missing is no damage if a successor deleted it.
    Confirm(Box<Stage>),
    Scan,
    /// Read this candidate whole.
    Verify(u64),
    /// Set this one aside.
    Quarantine(u64),
    /// List the outputs of the first of these unused checkpoints.
    ReadOutputs(VecDeque<u64>),
    Sink(SinkCommit),
    Failed(String),
    Deposed(u64),
}

/// A candidate, and why it is refused without being read, if it is.
#[derive(Clone, Debug)]
struct Candidate {
    id: u64,
    refused: Option<String>,
}

/// One pass.
#[derive(Clone, Debug)]
pub(super) struct Restore {
    job: u128,
    attempt: u32,
    epoch: u64,
    stage: Stage,
    found: Vec<Scanned>,
    /// Newest first.
    candidates: VecDeque<Candidate>,
    chosen: Option<Box<Metadata>>,
    refused: Vec<Refused>,
    take_back: Vec<Committable>,
    taken_back: u32,
    has_roots: bool,
}

/// What a pass wants.
#[derive(Clone, Debug)]
pub(super) enum RestoreStep {
    Op(StoreOp),
    Done,
    Failed { reason: String },
    Deposed { newest: u64 },
}

impl Restore {
    pub(super) fn new(job: u128, attempt: u32) -> Self {
        Restore {
            job,
            attempt,
            epoch: 0,
            stage: Stage::Confirm(Box::new(Stage::Scan)),
            found: Vec::new(),
            candidates: VecDeque::new(),
            chosen: None,
            refused: Vec::new(),
            take_back: Vec::new(),
            taken_back: 0,
            has_roots: false,
        }
    }

    pub(super) fn attempt(&self) -> u32 {
        self.attempt
    }

    pub(super) fn step(&mut self) -> RestoreStep {
        let job = self.job;
        RestoreStep::Op(match &mut self.stage {
            Stage::Confirm(_) => StoreOp::NewestEpoch,
            Stage::Scan => StoreOp::Scan { job },
            Stage::Verify(id) => StoreOp::Verify { job, id: *id },
            Stage::Quarantine(id) => StoreOp::Quarantine { job, id: *id },
            Stage::ReadOutputs(ids) => {
                let id = *ids.front().expect("invariant: an empty list leaves its stage");
                StoreOp::ReadOutputs { job, id, expected: self.has_roots }
            }
            Stage::Sink(sink) => match sink.step() {
                SinkStep::Op(op) => StoreOp::Sink(op),
                SinkStep::Done { taken_back } => {
                    self.taken_back = taken_back;
                    return RestoreStep::Done;
                }
            },
            Stage::Failed(reason) => return RestoreStep::Failed { reason: reason.clone() },
            Stage::Deposed(newest) => return RestoreStep::Deposed { newest: *newest },
        })
    }

    pub(super) fn handle(&mut self, done: StoreDone, scope: Scope<'_>) {
        self.epoch = scope.epoch;
        self.has_roots = !scope.roots.is_empty();
        match (&mut self.stage, done) {
            (Stage::Confirm(_), StoreDone::Newest(newest))
                if newest > scope.epoch && !planted(Plant::CommitUnconfirmed) =>
            {
                self.stage = Stage::Deposed(newest);
            }
            (Stage::Confirm(then), StoreDone::Newest(_)) => {
                self.stage = std::mem::replace(&mut **then, Stage::Scan);
            }
            (Stage::Scan, StoreDone::Scanned(found)) => self.scanned(found, scope),
            (Stage::Verify(id), done) => {
                let id = *id;
                self.verified(id, done, scope);
            }
            (Stage::Quarantine(_), StoreDone::Done) => self.next_candidate(scope),
            (Stage::ReadOutputs(ids), done) => {
                let id = ids.pop_front().expect("invariant: an output list was asked for");
                self.outputs(id, done, scope);
            }
            (Stage::Sink(sink), StoreDone::Sink(done)) => {
                if let Err(error) = sink.handle(done) {
                    self.fail(error.to_string());
                }
            }
            (stage, done) => panic!("invariant: {done:?} does not answer stage {stage:?}"),
        }
    }

    fn scanned(&mut self, found: Vec<Scanned>, scope: Scope<'_>) {
        let mut candidates = Vec::new();
        for entry in found.iter().filter(|entry| !entry.quarantined) {
            let listed = scope.legal.iter().any(|legal| legal.id == entry.id);
            let refused = match &entry.state {
                ScannedState::Present { epoch } => {
                    let legal = Legal { id: entry.id, epoch: *epoch };
                    if *epoch != scope.epoch
                        && !scope.legal.contains(&legal)
                        && !planted(Plant::IgnoreSettled)
                    {
                        continue;
                    }
                    None
                }
                ScannedState::Damaged(reason) => Some(reason.clone()),
                ScannedState::Absent if listed => Some("its metadata was removed".to_owned()),
                ScannedState::Absent | ScannedState::Void => continue,
            };
            candidates.push(Candidate { id: entry.id, refused });
        }
        for legal in scope.legal {
            if !found.iter().any(|entry| entry.id == legal.id) {
                let refused = Some("its directory was removed".to_owned());
                candidates.push(Candidate { id: legal.id, refused });
            }
        }
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.id));
        self.candidates = candidates.into();
        self.found = found;
        self.next_candidate(scope);
    }

    fn next_candidate(&mut self, scope: Scope<'_>) {
        let Some(candidate) = self.candidates.pop_front() else {
            // A start from nothing is right only if nothing was ever published: output of deleted checkpoints
            // is visible.
            let earlier = self.found.iter().filter(|entry| entry.quarantined).map(|entry| entry.id);
            if self.refused.is_empty() && earlier.clone().next().is_none() {
                if scope.completed {
                    let reason = "no checkpoint can be used: some completed, but none is in the store";
                    return self.fail(reason.to_owned());
                }
                return self.choose(None, scope);
            }
            let list: Vec<String> = self
                .refused
                .iter()
                .map(|refused| format!("{}: {}", refused.id, refused.reason))
                .chain(earlier.map(|id| format!("{id}: set aside before")))
                .collect();
            return self.fail(format!("no checkpoint can be used: {}", list.join("; ")));
        };
        match candidate.refused {
            Some(reason) => self.refuse(candidate.id, reason),
            None => self.stage = Stage::Verify(candidate.id),
        }
    }

    fn refuse(&mut self, id: u64, reason: String) {
        self.refused.push(Refused { id, reason });
        self.stage = Stage::Confirm(Box::new(Stage::Quarantine(id)));
    }

    /// Not before it is confirmed that it leads: what went wrong may be a successor's doing.
    fn fail(&mut self, reason: String) {
        self.stage = Stage::Confirm(Box::new(Stage::Failed(reason)));
    }

    fn verified(&mut self, id: u64, done: StoreDone, scope: Scope<'_>) {
        match done {
            StoreDone::Metadata(metadata) => self.choose(Some(metadata), scope),
            StoreDone::Damaged(reason) => self.refuse(id, reason),
            StoreDone::Absent => self.refuse(id, "its metadata was removed".to_owned()),
            StoreDone::Void => self.refuse(id, "it was voided".to_owned()),
            done => panic!("invariant: {done:?} does not answer a verification"),
        }
    }

    /// The restore point is known; which newer checkpoints may have made files visible?
    fn choose(&mut self, chosen: Option<Box<Metadata>>, scope: Scope<'_>) {
        let base = chosen.as_ref().map_or(0, |metadata| metadata.id);
        for file in chosen.iter().flat_map(|metadata| metadata.committables()) {
            scope.roots.extend(file.root().map(str::to_owned));
        }
        self.chosen = chosen;
        let mut ids: BTreeSet<u64> = self.refused.iter().map(|refused| refused.id).collect();
        for entry in self.found.iter().filter(|entry| entry.id > base) {
            let published = entry.quarantined || matches!(entry.state, ScannedState::Damaged(_));
            let perhaps = entry.outputs && entry.state == ScannedState::Absent;
            if published || perhaps {
                ids.insert(entry.id);
            }
        }
        self.read_outputs(ids.into_iter().rev().collect(), scope);
    }

    fn outputs(&mut self, id: u64, done: StoreDone, scope: Scope<'_>) {
        match done {
            // We saw half of a publication, and it may be whole by now.
            StoreDone::Outputs(outputs) if outputs.epoch > scope.epoch => {
                self.stage = Stage::Deposed(outputs.epoch);
                return;
            }
            // Whoever published the restore point had made the output fit it: what an older leader lists beyond it was
            // never visible since, and names what its successors made anew.
            StoreDone::Outputs(outputs)
                if self.chosen.as_ref().is_some_and(|chosen| chosen.epoch > outputs.epoch) => {}
            StoreDone::Outputs(outputs) => {
                for file in &outputs.files {
                    scope.roots.extend(file.root().map(str::to_owned));
                }
                self.take_back.extend(outputs.files);
            }
            StoreDone::Absent => {}
            StoreDone::Damaged(reason) => {
                return self.fail(format!(
                    "checkpoint {id} cannot be used, nor can the files that it made visible be told from \
                     others: {reason}"
                ));
            }
            done => panic!("invariant: {done:?} does not answer a list of outputs"),
        }
        let Stage::ReadOutputs(ids) = &mut self.stage else {
            panic!("invariant: outputs are read in their stage")
        };
        let rest = std::mem::take(ids);
        self.read_outputs(rest, scope);
    }

    fn read_outputs(&mut self, ids: VecDeque<u64>, scope: Scope<'_>) {
        if !ids.is_empty() {
            self.stage = Stage::ReadOutputs(ids);
            return;
        }
        let files = self.chosen.as_ref().map_or(Vec::new(), |metadata| metadata.committables());
        let keep: BTreeSet<&str> = files.iter().map(|file| file.target.as_str()).collect();
        let take_back: Vec<Committable> = std::mem::take(&mut self.take_back)
            .into_iter()
            .filter(|file| !keep.contains(file.target.as_str()))
            .collect();
        let roots = scope.roots.iter().cloned().collect();
        let upto = (scope.epoch, self.attempt);
        self.stage = Stage::Sink(SinkCommit::restore(self.job, roots, upto, take_back, files));
    }

    /// The restore point is final and what follows concerns output.
    pub(super) fn is_committing(&self) -> bool {
        matches!(self.stage, Stage::Sink(_))
    }

    /// The restore point, none before it is known and for a start from nothing.
    pub(super) fn base(&self) -> Option<u64> {
        self.chosen.as_ref().map(|metadata| metadata.id)
    }

    /// Checkpoints that were never published and never will be: their objects are of no use.
    pub(super) fn garbage(&self) -> Vec<u64> {
        let unpublished = |entry: &&Scanned| {
            let state = matches!(entry.state, ScannedState::Void | ScannedState::Absent);
            let refused = self.refused.iter().any(|refused| refused.id == entry.id);
            state && !refused && !entry.quarantined && !entry.outputs && Some(entry.id) > self.base()
        };
        self.found.iter().rev().filter(unpublished).map(|entry| entry.id).take(DISCARD_MAX).collect()
    }

    /// An id that nothing in the store has.
    pub(super) fn first_free_id(&self) -> u64 {
        self.found.iter().map(|entry| entry.id).max().unwrap_or(0) + 1
    }

    pub(super) fn into_point(self, first_checkpoint: u64) -> RestorePoint {
        RestorePoint {
            checkpoint: self.chosen,
            refused: self.refused,
            taken_back: self.taken_back,
            first_checkpoint,
        }
    }
}
