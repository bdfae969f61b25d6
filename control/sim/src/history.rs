//! What the control plane may do and may not, held against what it did.
//!
//! It owns what was published, completed and prepared so far. The rules: claims and, within an epoch, checkpoint ids only
//! grow; an id completes once; a file becomes visible only for a checkpoint that is published and counts for the leader
//! that commits it; only what counts is restored; and when an attempt is prepared or a checkpoint is complete, exactly the
//! rows before its sources' positions are visible.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_checkpoint::sink::Moved;
use tidegate_checkpoint::{Legal, Metadata, SinkDone, SinkOp, StoreDone, StoreOp, layout};
use tidegate_rpc::{JobId, ToTaskManager};
use xxhash_rust::xxh3::xxh3_64;

use crate::disk::Disk;
use crate::leader::records;
use crate::ledger::{Expected, OUT, Reference};
use crate::store::{self, Found, STORE};

/// Of one run, which has one job.
#[derive(Default)]
pub struct History {
    claimed: u64,
    /// Newest id by the epoch that published it.
    published: BTreeMap<u64, u64>,
    /// Who completed an id.
    completed: BTreeMap<u64, (u64, u32)>,
    prepared: BTreeSet<(u64, u32)>,
    /// What is visible when a checkpoint is the last one, for all that were published.
    cuts: Vec<(u64, Expected)>,
    /// What was visible when the newest checkpoint was said to be complete, and which that was.
    committed: BTreeMap<String, u64>,
    acknowledged: Option<(JobId, u64)>,
    /// Something in the store was damaged: what is told of it cannot be checked any more.
    pub rotten: bool,
}

impl History {
    /// Checkpoints that completed.
    pub fn completed(&self) -> u64 {
        self.completed.len() as u64
    }

    /// A job that was cancelled shows what one checkpoint covers, and none that completed before a later one.
    ///
    /// # Errors
    /// What is visible is no such thing.
    pub fn check_cut(&self, disk: &Disk, reference: &Reference) -> Result<u64, String> {
        let newest = self.completed.keys().next_back().copied();
        let nothing = [(0, Expected::At(Vec::new()))];
        let cuts = nothing.iter().filter(|_| newest.is_none()).chain(&self.cuts);
        let mut cuts = cuts.filter(|(id, _)| Some(*id) >= newest);
        match cuts.find_map(|(_, cut)| reference.check(disk, cut).ok()) {
            Some(rows) => Ok(rows),
            None => Err(format!("what is visible is what no checkpoint from {newest:?} on covers")),
        }
    }

    /// The power was gone: the newest checkpoint that anybody was told of is whole, and what it made visible stays so.
    ///
    /// # Errors
    /// What is not.
    pub fn after_cut(&self, disk: &Disk) -> Result<(), String> {
        let Some((job, id)) = self.acknowledged.filter(|_| !self.rotten) else { return Ok(()) };
        let found = visible(disk);
        if let Some((path, _)) = self.committed.iter().find(|(path, hash)| found.get(*path) != Some(hash)) {
            return Err(format!(
                "{path} was committed by checkpoint {id}; it did not outlive the loss of power"
            ));
        }
        // Of a job that is over none is needed any more.
        let over = records(disk).iter().any(|(_, record)| record.state.is_over());
        let dir = layout::checkpoint_dir(job.0, id);
        let newer = self.published.values().any(|published| *published > id);
        match store::find(disk, job.0, id, &dir) {
            Found::Metadata(metadata) => match store::damage(disk, &metadata) {
                None => Ok(()),
                Some(damage) => Err(format!("of checkpoint {id}, which was acknowledged, {damage}")),
            },
            _ if newer || over => Ok(()),
            _ => Err(format!("checkpoint {id} was acknowledged; it did not outlive the loss of power")),
        }
    }

    /// Attempts that were prepared.
    pub fn attempts(&self) -> u64 {
        self.prepared.len() as u64
    }

    /// A leader's operation was carried out, whatever it heard of it.
    ///
    /// # Errors
    /// The rule that was broken.
    pub fn stored(&mut self, disk: &Disk, epoch: u64, op: &StoreOp, done: &StoreDone) -> Result<(), String> {
        match (op, done) {
            (StoreOp::ClaimEpoch(record), StoreDone::Created) => {
                if record.epoch <= self.claimed {
                    return Err(format!("epoch {} is claimed after epoch {}", record.epoch, self.claimed));
                }
                self.claimed = record.epoch;
            }
            (StoreOp::PutMetadata { metadata, .. }, StoreDone::Created) => {
                let Metadata { epoch, id, job, .. } = **metadata;
                let base = store::settled(disk, epoch).and_then(|record| record.base(job));
                let before = self.published.insert(epoch, id).max(base);
                self.cuts.push((id, Expected::of(metadata)));
                if before >= Some(id) {
                    return Err(format!(
                        "epoch {epoch} publishes checkpoint {id} after checkpoint {before:?}"
                    ));
                }
            }
            (StoreOp::Sink(SinkOp::Rename { files }), StoreDone::Sink(SinkDone::Renamed(moved))) => {
                let files = files.iter().zip(moved).filter(|(_, moved)| **moved == Moved::Done);
                let listed = self.listed(disk, epoch);
                if let Some((file, _)) =
                    files.filter(|_| !self.rotten).find(|(file, _)| !listed.contains(&file.to))
                {
                    return Err(format!(
                        "epoch {epoch} makes {} visible, which no checkpoint that counts lists",
                        file.to
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Targets of all checkpoints that count under an epoch.
    fn listed(&self, disk: &Disk, epoch: u64) -> BTreeSet<String> {
        let mut listed = BTreeSet::new();
        for job in disk.list(&format!("{STORE}/jobs")) {
            let Ok(job) = u128::from_str_radix(&job, 16) else { continue };
            let dir = layout::checkpoints_dir(job);
            for name in disk.list(&format!("{STORE}/{dir}")) {
                let Some((id, false)) = layout::parse_checkpoint(&name) else { continue };
                if let Found::Metadata(metadata) = store::find(disk, job, id, &format!("{dir}/{name}"))
                    && counts(disk, epoch, &metadata)
                {
                    listed.extend(metadata.committables().into_iter().map(|file| file.target));
                }
            }
        }
        listed
    }

    /// A leader of `epoch` tells a TaskManager something.
    ///
    /// # Errors
    /// The rule that was broken.
    pub fn told(
        &mut self,
        disk: &Disk,
        reference: &Reference,
        epoch: u64,
        message: &ToTaskManager,
    ) -> Result<(), String> {
        let (job, attempt, checkpoint) = match message {
            ToTaskManager::Prepare(prepare) if self.prepared.insert((epoch, prepare.attempt)) => {
                (prepare.job, prepare.attempt, prepare.restored)
            }
            ToTaskManager::CheckpointComplete { job, attempt, checkpoint, .. } => {
                match self.completed.insert(*checkpoint, (epoch, *attempt)) {
                    Some(before) if before == (epoch, *attempt) => return Ok(()),
                    Some(before) => {
                        return Err(format!(
                            "checkpoint {checkpoint} completes for {before:?} and {:?}",
                            (epoch, attempt)
                        ));
                    }
                    None => {}
                }
                self.acknowledged = self.acknowledged.max(Some((*job, *checkpoint)));
                self.committed = visible(disk);
                (*job, *attempt, Some(*checkpoint))
            }
            _ => return Ok(()),
        };
        let expected = match checkpoint {
            None => Expected::At(Vec::new()),
            Some(id) => match store::find(disk, job.0, id, &layout::checkpoint_dir(job.0, id)) {
                Found::Metadata(metadata) if counts(disk, epoch, &metadata) => Expected::of(&metadata),
                Found::Metadata(metadata) => {
                    let of = metadata.epoch;
                    return Err(format!(
                        "epoch {epoch} uses checkpoint {id} of epoch {of}, which does not count"
                    ));
                }
                // Its successor may have done away with it.
                _ if self.rotten || epoch < store::newest_epoch(disk) => return Ok(()),
                _ => return Err(format!("epoch {epoch} uses checkpoint {id}, which is not there")),
            },
        };
        // A leader that was replaced may still believe what is not so any more.
        if epoch < store::newest_epoch(disk) {
            return Ok(());
        }
        let visible = reference.check(disk, &expected);
        visible
            .map(drop)
            .map_err(|error| format!("epoch {epoch} attempt {attempt} checkpoint {checkpoint:?}: {error}"))
    }
}

/// Hashes of all files that are visible.
fn visible(disk: &Disk) -> BTreeMap<String, u64> {
    let files = disk.below(OUT).into_iter().filter(|path| !path.contains(tidegate_graph::PENDING));
    let hash = |path: String| disk.look(&path, xxh3_64).map(|hash| (path, hash));
    files.filter_map(hash).collect()
}

/// Whether metadata counts for the leader of an epoch.
fn counts(disk: &Disk, epoch: u64, metadata: &Metadata) -> bool {
    let legal = Legal { id: metadata.id, epoch: metadata.epoch };
    metadata.epoch == epoch
        || store::settled(disk, epoch).is_some_and(|record| record.legal(metadata.job).contains(&legal))
}
