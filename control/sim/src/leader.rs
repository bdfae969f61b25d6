//! One JobManager process: the real opening and core, and the shell around them, without threads.
//!
//! It owns what dies with the process. Always: operations and saves of one job are carried out in the order in which
//! they were asked for; a process that was deposed or crashed does nothing more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use tidegate_checkpoint::{Opening, StoreOp};
use tidegate_graph::JobGraph;
use tidegate_jobmanager::core::{Action, Core, CoreConfig, Found};
use tidegate_jobmanager::directory::{self, Entry};
use tidegate_jobmanager::{JobRecord, RestartPolicy};
use tidegate_rpc::JobId;
use tidegate_stream::Jobs;

use crate::cluster::{BINARY, CLUSTER};
use crate::disk::Disk;
use crate::store::STORE;

/// Something for a job's worker.
pub enum Work {
    Store { op: u64, body: StoreOp },
    Save { save: u64, record: Box<JobRecord> },
}

pub enum State {
    Opening(Box<Opening>),
    Leading(Box<Core>),
    /// Crashed, deposed or never opened.
    Gone,
}

/// A JobManager process.
pub struct Leader {
    pub state: State,
    pub epoch: u64,
    /// Its wall clock minus simulated time, and how far the one it uses has jumped.
    base_ms: u64,
    pub jumped_ms: u64,
    pub workers: BTreeMap<JobId, VecDeque<Work>>,
    pub links: BTreeSet<u64>,
    pub tick_ns: u64,
}

/// Records of all jobs: of each the one of the newest epoch.
pub fn records(disk: &Disk) -> Vec<(JobId, JobRecord)> {
    let entries = disk.quietly(|| directory::jobs(disk, Path::new(STORE)));
    let entries = entries.expect("invariant: the directory of jobs is there");
    let record = |entry: Entry| match entry.record {
        Ok(record) => (entry.id, record),
        Err(reason) => panic!("the record of job {}: {reason}", entry.id),
    };
    entries.into_iter().map(record).collect()
}

/// Writes a record, under the name of its epoch.
///
/// # Errors
/// What the disk says.
pub fn save(disk: &Disk, job: JobId, record: &JobRecord) -> Result<(), String> {
    directory::save(disk, Path::new(STORE), job, record)
}

/// Jobs whose checkpoints a new leader looks at: nothing of one that is over and clean is ever read again.
pub fn concerned(disk: &Disk) -> Vec<u128> {
    let concerns = |record: &JobRecord| !record.state.is_over() || !record.cleaned;
    records(disk).into_iter().filter(|(_, record)| concerns(record)).map(|(id, _)| id.0).collect()
}

impl Leader {
    /// A process that wants to lead.
    pub fn start(base_ms: u64) -> Self {
        Leader {
            state: State::Opening(Box::new(Opening::new(Vec::new()))),
            epoch: 0,
            base_ms,
            jumped_ms: 0,
            workers: BTreeMap::new(),
            links: BTreeSet::new(),
            tick_ns: u64::MAX,
        }
    }

    /// Its own clock.
    pub fn now_ms(&self, now_ns: u64) -> u64 {
        self.base_ms + self.jumped_ms + now_ns / 1_000_000
    }

    /// Its epoch is open: it takes up its jobs. What follows is to be carried out.
    pub fn lead(
        &mut self,
        disk: &Disk,
        jobs: &Jobs,
        leadership: &tidegate_checkpoint::Leadership,
        restart: RestartPolicy,
        now_ns: u64,
    ) -> Vec<Action> {
        let found = records(disk).into_iter().map(|(id, record)| Found {
            planned: (!record.state.is_over()).then(|| replan(jobs, &record)),
            legal: leadership.legal.get(&id.0).cloned().unwrap_or_default(),
            record,
            id,
        });
        let config = CoreConfig {
            cluster: CLUSTER,
            epoch: leadership.epoch,
            store: STORE.to_owned(),
            binary_fingerprint: BINARY,
            heartbeat_interval_ms: 500,
            heartbeat_timeout_ms: 2_000,
            restart,
        };
        self.epoch = leadership.epoch;
        let (core, actions) = Core::new(config, found.collect(), self.now_ms(now_ns));
        self.state = State::Leading(Box::new(core));
        actions
    }

    /// Whether it is over with it.
    pub fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone)
    }

    /// Whether TaskManagers can reach it.
    pub fn leads(&self) -> bool {
        matches!(self.state, State::Leading(_))
    }
}

fn replan(jobs: &Jobs, record: &JobRecord) -> Result<JobGraph, String> {
    let request = &record.request;
    let built = jobs.build(&request.job, &request.args, request.parallelism);
    built.map(|built| built.graph).map_err(|error| error.to_string())
}
