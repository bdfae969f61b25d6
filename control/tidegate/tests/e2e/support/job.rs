//! One submitted job, seen through the JobManager's REST interface.

use std::process::ExitStatus;
use std::time::Duration;

use serde_json::Value;

use super::cluster::Cluster;
use super::process::Process;
use super::wait_for;

/// A job and the `submit --wait` that waits for its end.
pub struct Job {
    pub id: String,
    waiting: Process,
}

impl Job {
    /// Submits the only job of the cluster with checkpoints every 200 ms.
    pub fn submit(cluster: &mut Cluster, job: &str, parallelism: u32, flags: &[&str]) -> Self {
        let parallelism = parallelism.to_string();
        let mut line = vec![job, "--parallelism", &parallelism, "--checkpoint-interval", "200ms", "--"];
        line.extend(flags);
        let before = ids(cluster);
        let mut waiting = cluster.submit_waiting(&line);
        let id = wait_for("the job to be listed", super::SOON, || {
            let new = ids(cluster).into_iter().find(|id| !before.contains(id));
            assert!(new.is_some() || !waiting.has_ended(), "submit ended early{}", waiting.tail());
            new
        });
        Self { id, waiting }
    }

    /// Flink's word for where it is; nothing while the JobManager is away.
    pub fn state(&self, cluster: &Cluster) -> Option<String> {
        Some(cluster.get(&format!("/jobs/{}", self.id))?["state"].as_str()?.to_owned())
    }

    /// Waits until the job and each of its tasks is RUNNING.
    pub fn wait_running(&mut self, cluster: &Cluster, limit: Duration) {
        let path = format!("/jobs/{}", self.id);
        wait_for(&format!("all tasks of job {} to run", self.id), limit, || {
            let job = cluster.get(&path)?;
            let state = job["state"].as_str()?;
            assert!(
                !["FAILED", "FINISHED", "CANCELED"].contains(&state),
                "the job is {state} already: {}",
                self.exceptions(cluster)
            );
            let all = job["vertices"].as_array()?.iter().all(|vertex| {
                vertex["tasks"]["RUNNING"].as_u64() == vertex["parallelism"].as_u64()
                    && vertex["parallelism"].is_u64()
            });
            (state == "RUNNING" && all).then_some(())
        });
    }

    pub fn checkpoints(&self, cluster: &Cluster) -> Option<Checkpoints> {
        cluster.get(&format!("/jobs/{}/checkpoints", self.id)).map(Checkpoints)
    }

    /// A metric of the tasks called `name` in the current attempt, as far as the JobManager was told.
    pub fn metric_of(&self, cluster: &Cluster, name: &str, metric: &str) -> Option<u64> {
        let job = cluster.get(&format!("/jobs/{}", self.id))?;
        let vertices = job["vertices"].as_array()?;
        let vertex =
            vertices.iter().find(|vertex| vertex["name"].as_str().is_some_and(|all| all.contains(name)))?;
        vertex["metrics"][metric].as_u64()
    }

    /// How often the job was begun.
    pub fn attempts(&self, cluster: &Cluster) -> Option<u64> {
        cluster.get(&format!("/jobs/{}", self.id))?["attempt"].as_u64()
    }

    /// What `submit --wait` has said.
    pub fn said(&self) -> String {
        self.waiting.errors()
    }

    pub fn exceptions(&self, cluster: &Cluster) -> String {
        cluster.get(&format!("/jobs/{}/exceptions", self.id)).map_or(String::new(), |value| value.to_string())
    }

    /// Waits for `submit --wait`, however the job ends.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        self.waiting.wait(limit)
    }

    /// Waits for `submit --wait`, which must say that the job has finished.
    pub fn finish(&mut self, cluster: &Cluster, limit: Duration) {
        let status = self.wait(limit);
        assert!(
            status.success(),
            "submit --wait ended with {status}, the job is {:?}: {}{}",
            self.state(cluster),
            self.exceptions(cluster),
            self.waiting.tail()
        );
        assert_eq!(self.state(cluster).as_deref(), Some("FINISHED"));
    }
}

/// The answer of `/jobs/:id/checkpoints`.
#[derive(Debug)]
pub struct Checkpoints(Value);

impl Checkpoints {
    /// The newest complete checkpoint that the JobManager has taken since it started, 0 for none.
    pub fn completed(&self) -> u64 {
        self.0["latest"]["completed"]["id"].as_u64().unwrap_or(0)
    }

    /// Bytes of state in that checkpoint.
    pub fn state_size(&self) -> u64 {
        self.0["latest"]["completed"]["state_size"].as_u64().unwrap_or(0)
    }

    /// The checkpoint from which the job must go on at least, 0 for none.
    pub fn newest(&self) -> u64 {
        self.completed().max(self.restored())
    }

    /// The checkpoint that was restored last, 0 for none.
    pub fn restored(&self) -> u64 {
        self.0["latest"]["restored"]["id"].as_u64().unwrap_or(0)
    }

    /// Everything about the last restore, to tell one from the next.
    pub fn restore(&self) -> &Value {
        &self.0["latest"]["restored"]
    }
}

fn ids(cluster: &Cluster) -> Vec<String> {
    let overview = cluster.get("/jobs/overview").unwrap_or_default();
    let jobs = overview["jobs"].as_array().cloned().unwrap_or_default();
    jobs.iter().filter_map(|job| Some(job["jid"].as_str()?.to_owned())).collect()
}
