//! How a leader takes over: claim an epoch, look again, settle what counts, and only then act.
//!
//! The store decides between leaders; no clock does. `epochs/E` is created if absent and names the newest
//! checkpoint of each job that its leader had seen; from then on no older leader may commit, because it asks
//! for the newest claim between publishing and committing. The new leader scans again, since an older one may
//! have published in between, writes down in `epochs/E.settled` which checkpoints count, and steps down if
//! somebody claimed meanwhile. Metadata that a settled record does not list is void, whoever published it.
//!
//! Always: a leader acts only if, after its record was settled, its claim was the newest; so the newest
//! settled record is that of the newest leader that can have acted, plus perhaps some that never did.

use crate::frame::{Damage, FrameKind, open, seal};
use crate::limits::{OPENING_ROUNDS_MAX, STORE_RETRY_MS, STORE_TRIES_MAX};
use crate::store::{Scanned, ScannedState, StoreDone, StoreOp};
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::BTreeMap;

/// A checkpoint that counts: its number and the epoch that published it.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Legal {
    /// The checkpoint.
    pub id: u64,
    /// The epoch that published it.
    pub epoch: u64,
}

/// The checkpoints of one job that count.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct JobRecord {
    /// The job.
    pub job: u128,
    /// What counts, by id.
    pub legal: Vec<Legal>,
}

/// Claim or settled record of an epoch.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct EpochRecord {
    /// The epoch.
    pub epoch: u64,
    /// The jobs that existed.
    pub jobs: Vec<JobRecord>,
}

impl EpochRecord {
    /// The bytes of the object.
    ///
    /// # Errors
    /// [`Damage::Content`] if it cannot be encoded.
    pub fn encode(&self) -> Result<Vec<u8>, Damage> {
        let body = rkyv::to_bytes::<rkyv::rancor::Error>(self).map_err(|e| Damage::Content(e.to_string()))?;
        Ok(seal(FrameKind::Epoch, &body))
    }

    /// Reads the record of `epoch`.
    ///
    /// # Errors
    /// [`Damage`], also if it is another epoch's.
    pub fn decode(epoch: u64, bytes: &[u8]) -> Result<Self, Damage> {
        let body = open(FrameKind::Epoch, bytes)?;
        let record: EpochRecord =
            rkyv::from_bytes::<_, rkyv::rancor::Error>(body).map_err(|e| Damage::Content(e.to_string()))?;
        if record.epoch != epoch {
            return Err(Damage::Content(format!("record of epoch {}, expected {epoch}", record.epoch)));
        }
        Ok(record)
    }

    /// What counts of a job.
    pub fn legal(&self, job: u128) -> &[Legal] {
        self.jobs.iter().find(|record| record.job == job).map_or(&[], |record| &record.legal)
    }

    /// Newest checkpoint of a job that counts: its base.
    pub fn base(&self, job: u128) -> Option<u64> {
        self.legal(job).iter().map(|legal| legal.id).max()
    }
}

/// Why no epoch could be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    /// Another leader claimed a newer epoch.
    #[error("another JobManager has claimed epoch {newest}; this one claimed {claimed} and steps down")]
    Deposed {
        /// The newest claim.
        newest: u64,
        /// Ours.
        claimed: u64,
    },
    /// The record that says which checkpoints count is damaged.
    #[error("the newest record in epochs/ is damaged ({reason}); restore it from a copy of the directory")]
    Damaged {
        /// What is wrong.
        reason: String,
    },
    /// The store does not work.
    #[error(
        "the checkpoint store does not work: {reason}; it needs a file system that this user can write to and \
         that has hard links"
    )]
    Store {
        /// What it said last.
        reason: String,
    },
    /// Others were faster each time.
    #[error("no epoch could be claimed in {OPENING_ROUNDS_MAX} rounds; are many JobManagers starting?")]
    Contended,
}

/// An epoch that may act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The epoch.
    pub epoch: u64,
    /// What counts, by job; jobs without a checkpoint are absent or empty.
    pub legal: BTreeMap<u128, Vec<Legal>>,
}

/// What [`Opening`] wants.
#[derive(Clone, Debug, PartialEq)]
pub enum OpeningStep {
    /// Execute this and pass the answer to [`Opening::handle`].
    Op(StoreOp),
    /// Wait so many milliseconds, then ask again.
    Wait(u64),
    /// The epoch is open.
    Opened(Leadership),
    /// It is not.
    Failed(OpeningError),
}

#[derive(Clone, Debug, PartialEq)]
enum Stage {
    /// Look before the claim, so that it can name a base.
    Before,
    Claim,
    /// Look after the claim: this is what counts.
    After,
    Settle,
    Confirm,
    Opened,
    Failed(OpeningError),
}

/// What one look at the store found.
#[derive(Clone, Debug, Default, PartialEq)]
struct Look {
    epochs: Option<(Vec<u64>, Option<EpochRecord>)>,
    scans: BTreeMap<u128, Vec<Scanned>>,
}

/// The machine that opens an epoch. Ask [`Opening::step`], execute, tell [`Opening::handle`].
#[derive(Clone, Debug, PartialEq)]
pub struct Opening {
    jobs: Vec<u128>,
    stage: Stage,
    look: Look,
    epoch: u64,
    record: Option<EpochRecord>,
    rounds: u32,
    tries: u32,
    wait: bool,
}

impl Opening {
    /// Opens an epoch for a leader that knows these jobs.
    pub fn new(jobs: Vec<u128>) -> Self {
        Opening {
            jobs,
            stage: Stage::Before,
            look: Look::default(),
            epoch: 0,
            record: None,
            rounds: 0,
            tries: 0,
            wait: false,
        }
    }

    /// These are the jobs now. A look at the store begins with [`StoreOp::ReadEpochs`]; whoever carries that out tells
    /// the jobs of that moment first. A job that an older leader took before the claim is among them then; one that it
    /// takes later is never acknowledged, and publishes nothing that counts.
    pub fn know(&mut self, jobs: Vec<u128>) {
        self.jobs = jobs;
    }

    /// What to do next.
    pub fn step(&mut self) -> OpeningStep {
        if std::mem::take(&mut self.wait) {
            return OpeningStep::Wait(STORE_RETRY_MS * u64::from(self.tries));
        }
        match &self.stage {
            Stage::Before | Stage::After => OpeningStep::Op(self.look_op()),
            Stage::Claim => OpeningStep::Op(StoreOp::ClaimEpoch(self.current())),
            Stage::Settle => OpeningStep::Op(StoreOp::SettleEpoch(self.current())),
            Stage::Confirm => OpeningStep::Op(StoreOp::NewestEpoch),
            Stage::Opened => {
                let jobs = self.current().jobs;
                let legal = jobs.into_iter().map(|record| (record.job, record.legal)).collect();
                OpeningStep::Opened(Leadership { epoch: self.epoch, legal })
            }
            Stage::Failed(error) => OpeningStep::Failed(error.clone()),
        }
    }

    /// Takes the answer to the operation that [`Opening::step`] gave.
    ///
    /// # Panics
    /// When the answer is of another kind than the operation asked for.
    pub fn handle(&mut self, done: StoreDone) {
        if let StoreDone::Failed(fault) = done {
            return self.failed(fault.reason);
        }
        self.tries = 0;
        match (&self.stage, done) {
            (Stage::Before | Stage::After, done) => self.looked(done),
            (Stage::Claim, StoreDone::Created) => self.look_again(Stage::After),
            (Stage::Claim, StoreDone::Exists) => self.lost_round(),
            (Stage::Settle, StoreDone::Created | StoreDone::Exists) => self.stage = Stage::Confirm,
            (Stage::Confirm, StoreDone::Newest(newest)) if newest > self.epoch => {
                self.stage = Stage::Failed(OpeningError::Deposed { newest, claimed: self.epoch });
            }
            (Stage::Confirm, StoreDone::Newest(_)) => self.stage = Stage::Opened,
            (stage, done) => panic!("invariant: {done:?} does not answer stage {stage:?}"),
        }
    }

    fn look_op(&self) -> StoreOp {
        if self.look.epochs.is_none() {
            return StoreOp::ReadEpochs;
        }
        let job = self.next_job().expect("invariant: a finished look leaves its stage");
        StoreOp::Scan { job }
    }

    fn next_job(&self) -> Option<u128> {
        self.jobs.iter().copied().find(|job| !self.look.scans.contains_key(job))
    }

    fn looked(&mut self, done: StoreDone) {
        match done {
            StoreDone::Epochs { claims, settled } => match settled.transpose() {
                Ok(settled) => self.look.epochs = Some((claims, settled)),
                Err(reason) => self.stage = Stage::Failed(OpeningError::Damaged { reason }),
            },
            StoreDone::Scanned(found) => {
                let job = self.next_job().expect("invariant: a scan was asked for");
                self.look.scans.insert(job, found);
            }
            done => panic!("invariant: {done:?} does not answer a look"),
        }
        if matches!(self.stage, Stage::Before | Stage::After) && self.next_job().is_none() {
            self.conclude();
        }
    }

    /// A look is complete: claim, or settle.
    fn conclude(&mut self) {
        let look = std::mem::take(&mut self.look);
        let (claims, settled) = look.epochs.expect("invariant: epochs are read first");
        let newest = claims.into_iter().max().unwrap_or(0);
        if self.stage == Stage::Before
            && let Some(epoch) = unsettled(settled.as_ref(), newest, &look.scans)
        {
            return self.settled_missing(epoch);
        }
        if self.stage == Stage::Before {
            self.epoch = newest + 1;
        } else if newest > self.epoch {
            self.stage = Stage::Failed(OpeningError::Deposed { newest, claimed: self.epoch });
            return;
        }
        let jobs = look
            .scans
            .iter()
            .map(|(job, found)| JobRecord { job: *job, legal: legal_of(settled.as_ref(), *job, found) })
            .collect();
        self.record = Some(EpochRecord { epoch: self.epoch, jobs });
        self.stage = if self.stage == Stage::Before { Stage::Claim } else { Stage::Settle };
    }

    fn current(&self) -> EpochRecord {
        self.record.clone().expect("invariant: a record is made before it is written")
    }

    fn look_again(&mut self, stage: Stage) {
        self.look = Look::default();
        self.stage = stage;
    }

    /// Seen once, another JobManager may have settled it between our two reads; seen again and again, it is gone.
    fn settled_missing(&mut self, epoch: u64) {
        self.rounds += 1;
        if self.rounds < OPENING_ROUNDS_MAX {
            return self.look_again(Stage::Before);
        }
        let reason = format!(
            "epochs/{epoch}.settled is missing, though checkpoints of that epoch are there: without it nobody knows \
             which of them count"
        );
        self.stage = Stage::Failed(OpeningError::Damaged { reason });
    }

    fn lost_round(&mut self) {
        self.rounds += 1;
        if self.rounds >= OPENING_ROUNDS_MAX {
            self.stage = Stage::Failed(OpeningError::Contended);
        } else {
            self.look_again(Stage::Before);
        }
    }

    /// The store failed. A claim that may or may not exist is abandoned (the next round sees it), and its round
    /// is lost; everything else is repeated.
    fn failed(&mut self, reason: String) {
        self.tries += 1;
        let claiming = self.stage == Stage::Claim;
        self.rounds += u32::from(claiming);
        if self.tries >= STORE_TRIES_MAX || self.rounds >= OPENING_ROUNDS_MAX {
            self.stage = Stage::Failed(OpeningError::Store { reason });
            return;
        }
        self.wait = true;
        if claiming {
            self.look_again(Stage::Before);
        }
    }
}

/// An epoch that published a checkpoint and is newer than what is settled. A leader acts only once it has settled its
/// epoch, so the record was there.
fn unsettled(
    settled: Option<&EpochRecord>,
    newest_claim: u64,
    scans: &BTreeMap<u128, Vec<Scanned>>,
) -> Option<u64> {
    let known = settled.map_or(0, |record| record.epoch);
    let published = scans.values().flatten().filter_map(|scanned| match scanned.state {
        ScannedState::Present { epoch } => Some(epoch),
        _ => None,
    });
    published.filter(|epoch| *epoch > known && *epoch <= newest_claim).max()
}

/// Checkpoints of a job that count, given the newest settled record: those it lists, and those that its own
/// leader published later. A listed one that is gone or cannot be read still counts, so that the coordinator
/// refuses it by name, unless it is older than all that are there: then it was deleted to make room.
fn legal_of(settled: Option<&EpochRecord>, job: u128, found: &[Scanned]) -> Vec<Legal> {
    let Some(record) = settled else { return Vec::new() };
    let listed = record.legal(job);
    let mut legal: Vec<Legal> = found
        .iter()
        .filter(|scanned| !scanned.quarantined)
        .filter_map(|scanned| match scanned.state {
            ScannedState::Present { epoch } => Some(Legal { id: scanned.id, epoch }),
            // Which epoch published it cannot be read any more.
            ScannedState::Damaged(_) | ScannedState::Absent | ScannedState::Void => None,
        })
        .filter(|entry| entry.epoch == record.epoch || listed.contains(entry))
        .collect();
    let oldest = legal.iter().map(|entry| entry.id).min();
    let aside = |id| found.iter().any(|scanned| scanned.id == id && scanned.quarantined);
    legal.extend(listed.iter().filter(|entry| Some(entry.id) > oldest && !aside(entry.id)));
    legal.sort_unstable();
    legal.dedup();
    legal
}
