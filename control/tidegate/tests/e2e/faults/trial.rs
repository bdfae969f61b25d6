//! One run of the ledger on a cluster: begun, hurt, seen to be healed, and checked to the last record.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::ledger::{Size, expected};
use crate::kills::all_segments_free;
use crate::support::cluster::{Cluster, SLOTS};
use crate::support::job::Job;
use crate::support::output::{Watch, check};
use crate::support::{SOON, WHOLE_JOB, wait_for};

pub struct Trial {
    pub cluster: Cluster,
    pub job: Job,
    size: Size,
    output: PathBuf,
    until: PathBuf,
    /// Nothing where the output may not be read all the time.
    watch: Option<Watch>,
}

/// Where a run is before a fault.
#[derive(Debug)]
pub struct Before {
    pub attempt: u64,
    /// The checkpoint from which it must go on at least.
    pub newest: u64,
    restore: Value,
    at: Instant,
}

impl Trial {
    /// Submits the job to a cluster that has slots for it.
    pub fn start(cluster: Cluster, size: Size) -> Self {
        Self::start_with(cluster, "ledger", size, &[])
    }

    /// As `start`, with an output of that name and further flags.
    pub fn start_with(mut cluster: Cluster, name: &str, size: Size, more: &[&str]) -> Self {
        let (output, until) = (cluster.output(name), cluster.folder().join(format!("{name}-until")));
        let watch = Watch::start(&output, expected(&size));
        let job = submit(&mut cluster, size, &output, &until, more);
        Self { cluster, job, size, output, until, watch: Some(watch) }
    }

    /// Nobody reads the output until the end.
    pub fn unwatched(mut self) -> Self {
        self.watch = None;
        self
    }

    /// Waits until every slot is there, every task runs, and a checkpoint of this attempt is complete.
    pub fn ready(&mut self) -> Before {
        self.cluster.wait_slots(self.cluster.taskmanagers.len() * SLOTS);
        self.running()
    }

    /// Waits until every task runs and a checkpoint of this attempt is complete.
    pub fn running(&mut self) -> Before {
        self.job.wait_running(&self.cluster, SOON);
        wait_for("a checkpoint", SOON, || {
            let now = self.job.checkpoints(&self.cluster)?;
            (now.completed() > now.restored()).then_some(())
        });
        self.now()
    }

    pub fn now(&mut self) -> Before {
        self.check();
        let now = self.job.checkpoints(&self.cluster).expect("the JobManager is there");
        let attempt = self.job.attempts(&self.cluster).expect("the JobManager is there");
        let state = self.job.state(&self.cluster);
        assert_eq!(state.as_deref(), Some("RUNNING"), "{}", self.job.exceptions(&self.cluster));
        Before { attempt, newest: now.newest(), restore: now.restore().clone(), at: Instant::now() }
    }

    /// Waits until the job runs again, from a checkpoint that is not older than it may be. Returns after how long.
    pub fn restored(&mut self, before: &Before) -> Duration {
        wait_for("the job to be restored", SOON, || {
            let now = self.job.checkpoints(&self.cluster)?;
            let anew = self.job.attempts(&self.cluster)? > before.attempt;
            (anew && *now.restore() != before.restore && now.restored() >= before.newest).then_some(())
        });
        self.job.wait_running(&self.cluster, SOON);
        self.check();
        before.at.elapsed()
    }

    /// Waits for two checkpoints more, so that one of them began after now. The job may have been restarted or not.
    pub fn goes_on(&mut self, limit: Duration) {
        let now = wait_for("the JobManager", SOON, || self.job.checkpoints(&self.cluster)).newest();
        wait_for("two checkpoints more", limit, || {
            (self.job.checkpoints(&self.cluster)?.completed() >= now + 2).then_some(())
        });
        self.check();
    }

    fn check(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.check();
        }
    }

    /// Lets the job come to its end: every record is there once, with what all before it make of it, and nothing is pending.
    pub fn complete(&mut self) {
        std::fs::write(&self.until, "").expect("the folder of the test can be written");
        self.job.finish(&self.cluster, WHOLE_JOB);
        let summary = match self.watch.take() {
            Some(watch) => watch.finish(),
            None => check(&self.output, expected(&self.size)),
        };
        assert_eq!(summary.rows, u64::from(self.size.partitions) * self.size.records);
    }

    /// As `complete`; then all segments are free, no checkpoint is left, every process ends by itself, and none is left.
    pub fn finish(mut self) {
        self.complete();
        self.cluster.wait_slots(self.cluster.taskmanagers.len() * SLOTS);
        all_segments_free(&self.cluster);
        let folder = self.cluster.directory().join("jobs").join(&self.job.id).join("checkpoints");
        wait_for("checkpoints to go", SOON, || {
            let left = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            left.map(|entry| entry.path().join("_metadata")).all(|file| !file.exists()).then_some(())
        });
        self.cluster.stop();
    }
}

/// Submits the job; it comes to its end once there is the file `until`.
pub fn submit(cluster: &mut Cluster, size: Size, output: &Path, until: &Path, more: &[&str]) -> Job {
    let path = |path: &Path| path.to_str().expect("paths of the tests are UTF-8").to_owned();
    let flags = [
        ("--partitions", size.partitions.to_string()),
        ("--records", size.records.to_string()),
        ("--keys", size.keys.to_string()),
        ("--payload", size.payload.to_string()),
        ("--output", path(output)),
        ("--until", path(until)),
    ];
    let mut line: Vec<&str> = flags.iter().flat_map(|(flag, value)| [*flag, value.as_str()]).collect();
    line.extend(more);
    Job::submit(cluster, "ledger", size.partitions, &line)
}
