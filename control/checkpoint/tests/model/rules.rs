//! What no leader may do, held against everything that is done to the store, and everything that is told.
//!
//! `Rules` owns what was claimed, published and completed so far. Always: claims grow, and so do the ids that one epoch
//! publishes, beyond its base; an id completes once, for metadata that counts, with its files in place; nobody restores or
//! commits what doesn't count for it; and once a leader has its restore point, no older one changes what is visible, what
//! is pending under the newer, or a checkpoint that the newer may restore.

use super::{Stored, World};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_checkpoint::sink::Moved;
use tidegate_checkpoint::*;

#[derive(Clone, Debug, Default)]
pub struct Rules {
    claimed: u64,
    /// Newest id by the epoch that published it.
    published: BTreeMap<u64, u64>,
    /// Who completed an id.
    completed: BTreeMap<u64, (u64, u32)>,
    /// The newest epoch that was given a restore point, and which checkpoint that was.
    leading: (u64, u64),
    /// What was published was damaged: committed output may be taken back.
    pub damaged: bool,
}

/// What is the newest leader's.
#[derive(Debug, PartialEq)]
pub struct Theirs {
    visible: BTreeSet<String>,
    pending: BTreeSet<String>,
    checkpoints: BTreeSet<u64>,
}

impl Rules {
    /// What an operation of this epoch must leave alone, if there is a newer one.
    pub fn before(&self, world: &World, epoch: u64) -> Option<Theirs> {
        (epoch < self.leading.0).then(|| self.theirs(world))
    }

    pub fn untouched(&self, world: &World, before: Option<Theirs>, op: &StoreOp) {
        if let Some(before) = before {
            let epoch = self.leading.0;
            assert_eq!(self.theirs(world), before, "epoch {epoch} leads, and an older one did this: {op:?}");
        }
    }

    fn theirs(&self, world: &World) -> Theirs {
        let (epoch, base) = self.leading;
        let newer = |(path, of): (&str, Option<u64>)| (of >= Some(epoch)).then(|| path.to_owned());
        let counting = |id: &u64| metadata(world, *id).is_some_and(|metadata| counts(world, epoch, metadata));
        Theirs {
            visible: world.files.keys().filter(|path| !path.contains("/_pending/")).cloned().collect(),
            pending: world.pending().filter_map(newer).collect(),
            checkpoints: world
                .chks
                .keys()
                .map(|(id, _)| *id)
                .filter(|id| *id >= base)
                .filter(counting)
                .collect(),
        }
    }

    /// An operation was carried out, whatever its leader hears of it.
    pub fn stored(&mut self, world: &World, epoch: u64, op: &StoreOp, done: &StoreDone) {
        match (op, done) {
            (StoreOp::ClaimEpoch(record), StoreDone::Created) => {
                let (claimed, before) = (record.epoch, self.claimed);
                assert!(claimed > before, "epoch {claimed} is claimed after epoch {before}");
                self.claimed = claimed;
            }
            (StoreOp::PutMetadata { metadata, .. }, StoreDone::Created) => {
                let Metadata { epoch, id, job, .. } = **metadata;
                let base = world.settled.get(&epoch).and_then(|record| record.base(job));
                let before = self.published.insert(epoch, id).max(base);
                assert!(before < Some(id), "epoch {epoch} publishes checkpoint {id} after {before:?}");
            }
            (StoreOp::Sink(SinkOp::Rename { files }), StoreDone::Sink(SinkDone::Renamed(moved))) => {
                for (file, _) in files.iter().zip(moved).filter(|(_, moved)| **moved == Moved::Done) {
                    let lists = |metadata: &Metadata| {
                        metadata.committables().iter().any(|listed| listed.target == file.to)
                            && counts(world, epoch, metadata)
                    };
                    let listed = world.chks.keys().any(|(id, _)| metadata(world, *id).is_some_and(lists));
                    assert!(
                        listed || self.damaged,
                        "epoch {epoch} makes {} visible, which no checkpoint that counts lists",
                        file.to
                    );
                }
            }
            _ => {}
        }
    }

    /// A leader tells the tasks that a checkpoint is durable and committed.
    pub fn completed(&mut self, world: &World, epoch: u64, attempt: u32, id: u64) {
        let before = self.completed.insert(id, (epoch, attempt));
        assert_eq!(before, None, "checkpoint {id} completes for epoch {epoch} attempt {attempt}, too");
        if self.damaged || epoch < self.leading.0 {
            return;
        }
        let metadata = metadata(world, id).filter(|metadata| counts(world, epoch, metadata));
        let metadata =
            metadata.unwrap_or_else(|| panic!("checkpoint {id} completes, and nothing that counts is there"));
        for file in metadata.committables() {
            assert!(
                world.files.contains_key(&file.target),
                "{} of checkpoint {id} is not there",
                file.target
            );
        }
    }

    /// A leader has chosen what its next attempt begins with.
    pub fn restored(&mut self, world: &World, epoch: u64, chosen: Option<&Metadata>) {
        if let Some(chosen) = chosen {
            let (id, of) = (chosen.id, chosen.epoch);
            assert!(
                counts(world, epoch, chosen),
                "epoch {epoch} restores checkpoint {id} of epoch {of}, which does not count"
            );
        }
        self.leading = self.leading.max((epoch, chosen.map_or(0, |chosen| chosen.id)));
    }
}

fn metadata(world: &World, id: u64) -> Option<&Metadata> {
    match world.chks.get(&(id, false)).and_then(|chk| chk.metadata.as_ref()) {
        Some(Stored::Metadata(metadata)) => Some(metadata),
        _ => None,
    }
}

/// Whether metadata counts for the leader of an epoch.
fn counts(world: &World, epoch: u64, metadata: &Metadata) -> bool {
    let legal = Legal { id: metadata.id, epoch: metadata.epoch };
    let settled = world.settled.get(&epoch);
    metadata.epoch == epoch || settled.is_some_and(|record| record.legal(metadata.job).contains(&legal))
}
