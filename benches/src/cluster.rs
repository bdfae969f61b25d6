//! A cluster of this binary's own processes for one benchmark: a JobManager, and two slots in one or two TaskManagers.
//!
//! Owns its children: they end with it.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::Process;

/// First arguments that make this binary a role of a cluster.
pub const ROLES: [&str; 2] = ["jobmanager", "taskmanager"];
/// How long the cluster may take to be whole.
const READY_WAIT: Duration = Duration::from_secs(30);

/// Where the two slots are.
#[derive(Debug, Clone, Copy)]
pub enum Slots {
    /// In a process each, pinned to these cores.
    Apart([usize; 2]),
    /// In one process, pinned to the first two cores it may use.
    Together,
}

/// A JobManager and its TaskManagers.
pub struct Cluster {
    /// The TaskManagers.
    pub workers: Vec<Process>,
    jobmanager: Process,
}

impl Cluster {
    /// Starts the processes and waits until all have registered.
    /// `variable` is set in the environment of the TaskManagers.
    pub fn start(
        dir: &Path,
        slots: Slots,
        worker_flags: &[String],
        variable: Option<&str>,
    ) -> Result<Self, Box<dyn Error>> {
        let flags = ["--rpc", "127.0.0.1:0", "--rest", "127.0.0.1:0", "--dir"].map(str::to_owned);
        let mut arguments = flags.to_vec();
        arguments.push(dir.join("jobmanager").display().to_string());
        let jobmanager = Process::start("jobmanager", &arguments, None, &dir.join("jobmanager.log"))?;
        let mut arguments = vec!["--jobmanager".to_owned(), jobmanager.address("rpc")?.to_owned()];
        arguments.extend_from_slice(worker_flags);
        let worker = |arguments: &[String], core, log: &Path| {
            Process::start_with("taskmanager", arguments, core, log, variable)
        };
        let mut cluster = Self { workers: Vec::new(), jobmanager };
        match slots {
            Slots::Apart(cores) => {
                arguments.extend(["--slots", "1"].map(str::to_owned));
                for (number, core) in cores.into_iter().enumerate() {
                    let log = dir.join(format!("taskmanager-{number}.log"));
                    cluster.workers.push(worker(&arguments, Some(core), &log)?);
                }
            }
            Slots::Together => {
                arguments.extend(["--slots", "2", "--pin"].map(str::to_owned));
                let log = dir.join("taskmanager.log");
                cluster.workers.push(worker(&arguments, None, &log)?);
            }
        }
        let start = Instant::now();
        while cluster.get("/taskmanagers")?["taskmanagers"].as_array().map_or(0, Vec::len)
            < cluster.workers.len()
        {
            if start.elapsed() > READY_WAIT {
                return Err("the TaskManagers did not register in time".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(cluster)
    }

    fn url(&self, path: &str) -> Result<String, Box<dyn Error>> {
        Ok(format!("{}{path}", self.jobmanager.address("rest")?))
    }

    /// GET of the JobManager's REST.
    pub fn get(&self, path: &str) -> Result<Value, Box<dyn Error>> {
        let text = ureq::get(self.url(path)?).call()?.body_mut().read_to_string()?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Submits a job and returns its id.
    pub fn submit(&self, job: &str, args: &[String]) -> Result<String, Box<dyn Error>> {
        let body = serde_json::json!({ "job": job, "args": args, "parallelism": 1 });
        let text = ureq::post(self.url("/jobs")?)
            .header("content-type", "application/json")
            .send(body.to_string())?
            .body_mut()
            .read_to_string()?;
        let answer: Value = serde_json::from_str(&text)?;
        Ok(answer["jobid"].as_str().ok_or("the submission was not answered with a job id")?.to_owned())
    }
}
